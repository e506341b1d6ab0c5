"""What is kept of an agent that is about to go: why, how its instance ended, its last lines.

Of its lines the telling one is said with the reason: the innermost cause of a Java trace, not the
"... 22 more" at its end. Refuses to decide when, and to fail: an agent without words goes all the
same.
"""

import re
from collections.abc import Sequence

from attrs import frozen

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import death
from outside import text as texts
from outside import waits

_LINES = 20
_LINE = 200
_CAUSE = re.compile(r"\s*(?:\[[^\]]*\] )?Caused by: (?P<words>.*)")
_FRAME = re.compile(r"\s*(?:at [\w.$/<>@]+\(|\.\.\. \d+ (?:more|common frames))")
_CLASS_FILE = re.compile(r"class file version (?P<needs>\d+)\.\d+.*?up to (?P<has>\d+)\.")
"""``UnsupportedClassVersionError``: version 52 is Java 8, and so on."""
_REQUIRED = re.compile(r"requires? Java .*", re.IGNORECASE)
_BEFORE_JAVA_1 = 44


@frozen(kw_only=True)
class Complaint:
    """What the last lines say an agent died of. ``cause``: if they name one of its own."""

    words: str = ""
    cause: model.Cause | None = None


async def read(backend: backends_api.Backend, name: str, *, within_s: float) -> Sequence[str]:
    """Return the last lines of an instance, cut and cleaned; none if they are not had in time."""
    try:
        async with waits.timeout(within_s):
            text = await backend.logs(name, tail=_LINES)
    except (backends_api.BackendError, TimeoutError):
        return ()
    return texts.last_lines(text, _LINES)


def complaint(lines: Sequence[str]) -> Complaint:
    """Return what the lines say; the last complaint counts, and of a trace its last cause."""
    for line in reversed(lines):
        versions = _CLASS_FILE.search(line)
        if versions is not None:
            needs, has = (int(versions[key]) - _BEFORE_JAVA_1 for key in ("needs", "has"))
            return Complaint(
                cause=model.Cause.LOST_JAVA,
                words=f"its Java is too old: it is Java {has}, needed is {needs}",
            )
        required = _REQUIRED.search(line)
        if required is not None or "UnsupportedClassVersionError" in line:
            said = required[0] if required is not None else line
            return Complaint(
                cause=model.Cause.LOST_JAVA,
                words=f"its Java is too old: {texts.clean(said, _LINE)}",
            )
    for line in reversed(lines):
        inner = _CAUSE.match(line)
        if inner is not None:
            return Complaint(words=texts.clean(inner["words"], _LINE))
    last_line = next(
        (line for line in reversed(lines) if line.strip() and not _FRAME.match(line)), ""
    )
    return Complaint(words=texts.clean(last_line, _LINE).strip())


def death_of(
    action: model.Removal,
    agent: model.Agent | None,
    lines: Sequence[str],
    *,
    at: float,
) -> death.Death:
    """Return the certificate."""
    exit_ = agent.instance.exit if agent is not None and agent.instance is not None else None
    said = complaint(lines) if action.cause.accident else Complaint()
    is_new = bool(said.words) and said.words not in action.reason
    more = f"; {said.words}" if said.cause else f"; it said last: {said.words}"
    return death.Death(
        name=action.name,
        template=agent.template if agent is not None else None,
        backend=agent.backend if agent is not None else None,
        at=at,
        phase=agent.phase if agent is not None else model.Phase.UNKNOWN,
        cause=said.cause or action.cause,
        text=action.reason + more if is_new else action.reason,
        place=agent.instance.place if agent is not None and agent.instance is not None else "",
        exit_code=exit_.code if exit_ is not None else None,
        last_lines=tuple(lines),
    )
