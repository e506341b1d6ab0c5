"""One line of a doctor: what was looked at, how it is, and what to do.

Shared by the broker's own checks and by those of the backends. Refuses to look at anything itself.
"""

import enum

from attrs import frozen


class Verdict(enum.Enum):
    """How one check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@frozen(kw_only=True)
class Finding:
    """One line: what was looked at, how it is, what to do."""

    check: str
    verdict: Verdict
    text: str
    hint: str = ""


def ok(check: str, text: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(check=check, verdict=Verdict.OK, text=text)


def warn(check: str, text: str, hint: str = "") -> Finding:
    """Return a finding of something that may be meant so."""
    return Finding(check=check, verdict=Verdict.WARN, text=text, hint=hint)


def fail(check: str, text: str, hint: str = "") -> Finding:
    """Return a finding of something that cannot work."""
    return Finding(check=check, verdict=Verdict.FAIL, text=text, hint=hint)
