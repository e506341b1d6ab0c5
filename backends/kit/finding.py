"""One line of a doctor: what was looked at, how it is, and what to do.

Shared by the broker's own checks and by those of the backends. Refuses to look at anything itself;
what is said here is fit for a terminal, whoever has written it.
"""

import enum
from collections.abc import Mapping

from attrs import field, frozen

from outside import text as outside_text

_LENGTH = 1024
_WHOSE: Mapping[str, str] = {
    "us": "a mistake of the broker's: please report it",
    "configuration": "correct the configuration",
    "operator": "give the broker the right, or other credentials, there",
    "platform": "is it up, and reachable from here?",
    "nobody": "time helps, or more room there",
}


def _fit(text: str) -> str:
    """Take out what others have written into it to be shown on a terminal."""
    return outside_text.clean(text, _LENGTH)


class Grade(enum.Enum):
    """How one check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@frozen(kw_only=True)
class Finding:
    """One line: what was looked at, how it is, what to do."""

    check: str
    verdict: Grade
    text: str = field(converter=_fit)
    hint: str = field(default="", converter=_fit)
    fault: str = ""  # who has to act, as of ``api.BackendError``; "": nobody, or it is not known


def ok(check: str, text: str) -> Finding:
    """Return a finding that asks for nothing."""
    return Finding(check=check, verdict=Grade.OK, text=text)


def warn(check: str, text: str, hint: str = "", *, fault: str = "") -> Finding:
    """Return a finding of something that may be meant so."""
    return Finding(check=check, verdict=Grade.WARN, text=text, hint=hint, fault=fault)


def fail(check: str, text: str, hint: str = "", *, fault: str = "") -> Finding:
    """Return a finding of something that cannot work."""
    return Finding(check=check, verdict=Grade.FAIL, text=text, hint=hint, fault=fault)


def whose(fault: str) -> str:
    """Return a hint out of the ``fault`` of a backend's error: who has to act, and how."""
    return _WHOSE[fault]
