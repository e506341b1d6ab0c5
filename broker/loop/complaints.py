"""What the last lines of an agent say it died of: a table from its words to ours. Pure.

What it says after it was last connected counts, of that the last line that the table knows, and
where it knows none the innermost cause of a Java trace, or the last line that is not part of one.
The signs are those of agent.jar and of Java (recordings ``agent/*``). Refuses to know when an
agent has died.
"""

import re
from collections.abc import Sequence

from attrs import frozen

from broker.core import model
from outside import text as texts

_LINE = 200
_CONNECTED = re.compile(r"^(INFO: )?(Connected|WebSocket connection open)$")
_INNER = re.compile(r"\s*(?:\[[^\]]*\] )?Caused by: (?P<words>.*)")
_FRAME = re.compile(
    r"\s*(?:at [\w.$/<>@]+\(|\.\.\. \d+ (?:more|common frames)|Suppressed: )"
    r"|\w{3} \d{1,2}, \d{4} [\d:]{7,8} (?:[AP]M )?[\w.$]+ [\w.$<>]+$"
)
"""A line of a trace, or the line above a message in which Java says when and where."""
_USAGE = re.compile(r"java -jar \S{1,80} \[options")
"""What agent.jar prints below an argument that it does not understand, and 97 lines of help."""
_ADDRESS = re.compile(r"https?://[^\s\"'<>]{1,200}|Connecting to (?P<socket>[\w.:-]{1,200})$")
_CLASS_FILE = re.compile(
    r"class file version (?P<needs>\d{1,3})\.\d.{1,120}?up to (?P<has>\d{1,3})\."
)
"""``UnsupportedClassVersionError``: version 52 is Java 8, and so on."""
_BEFORE_JAVA_1 = 44


@frozen(kw_only=True)
class Complaint:
    """What the last lines say an agent died of. ``cause``: if they name one of its own."""

    words: str = ""
    cause: model.Cause | None = None


@frozen
class Sign:
    """Words of an agent, what they mean, and as which cause it is counted.

    ``where``: the address that was last named is told as well.
    """

    sign: re.Pattern[str]
    words: str
    cause: model.Cause | None
    where: bool = False


def _signs(
    *rows: tuple[str, str, model.Cause | None] | tuple[str, str, model.Cause, bool],
) -> tuple[Sign, ...]:
    return tuple(Sign(re.compile(pattern), *more) for pattern, *more in rows)


_C = model.Cause
TABLE = _signs(
    (
        (
            r"(?P<said>requires? Java .{1,80}"
            r"|(?<![\w./$])[\w./$]{0,80}UnsupportedClassVersionError.{0,150})"
        ),
        "its Java is too old: {said}",
        _C.LOST_JAVA,
    ),
    (r"OutOfMemoryError(: (?P<said>.*))?", "its Java ran out of memory: {said}", _C.LOST_MEMORY),
    (
        r"(?:insufficient memory for the Java Runtime|Could not reserve enough space)(?P<said>.*)",
        "there was too little memory for its Java to start",
        _C.LOST_MEMORY,
    ),
    (
        r"ConnectionRefusalException: Authorization failure|not 101: 40[13]\b",
        "the controller refused its secret",
        _C.LOST_REFUSED,
    ),
    (
        r"Unknown client name: (?P<said>\S+)",
        "the controller knows no node {said}",
        _C.LOST_REFUSED,
    ),
    (
        r"(?<![\w.-])(?P<said>[\w.-]{1,80}) is already connected to this (?:master|controller)",
        "an agent of the name {said} is connected already",
        _C.LOST_REFUSED,
    ),
    (
        r"not 101: (?P<said>\d+)",
        "the controller, or a proxy before it, refused its WebSocket with {said}",
        _C.LOST_REFUSED,
        True,
    ),
    (
        r"UnknownHostException: (?P<said>[^\s:]+)",
        "the name {said} cannot be resolved",
        _C.LOST_NO_CONTROLLER,
    ),
    (
        r"UnresolvedAddressException",
        "the name of its tunnel cannot be resolved",
        _C.LOST_NO_CONTROLLER,
    ),
    (
        (
            r"\b(?:SSL\w*|(?:Sun)?CertPath\w*|Certificate\w*|ValidatorException)Exception: "
            r"(?P<said>.*)"
            r"|ValidatorException: (?P<more>.*)"
        ),
        "TLS to its controller failed: {said}",
        _C.LOST_NO_CONTROLLER,
    ),
    (
        r"Incorrect acknowledgement sequence",
        "something else answers than a controller's port for agents",
        _C.LOST_NO_CONTROLLER,
        True,
    ),
    (
        (
            r"tcpSlaveAgentListener/ (?:is invalid|appears to be publishing)(?P<said>.*)"
            r"|is not Jenkins"
        ),
        "what answers it is not a Jenkins controller, or one without a port for agents",
        _C.LOST_NO_CONTROLLER,
        True,
    ),
    (
        (
            r"(?P<said>Connection refused|Connection timed out|[Cc]onnect timed out|Read timed out"
            r"|No route to host|Network is unreachable|Host is down)"
        ),
        "it cannot reach its controller: {said}",
        _C.LOST_NO_CONTROLLER,
        True,
    ),
)
"""The last line in which one of them is counts; of one line the first row that fits.

What may begin with any word begins at the beginning of one: an agent that is made of one word for
120 lines held the loop for a quarter of a second.
"""

WEAK = _signs(
    (
        r"None of the protocols were accepted",
        "the controller accepted none of its protocols",
        _C.LOST_REFUSED,
    ),
    (
        r"Failed to connect: Handshake error",
        "the controller, or a proxy before it, refused its WebSocket",
        _C.LOST_REFUSED,
        True,
    ),
)
"""What comes after the reason, or in place of it: counts where the table knows no other line."""


def complaint(lines: Sequence[str]) -> Complaint:
    """Return what the last lines of an agent say it died of; empty if they say nothing."""
    connected = [at for at, line in enumerate(lines) if _CONNECTED.match(line.strip())]
    last = lines[connected[-1] + 1 :] if connected else lines
    for table in (TABLE, WEAK):
        for at, line in reversed(list(enumerate(last))):
            told = _java(line) or _told(line, table, last[: at + 1])
            if told is not None:
                return told
    for line in reversed(last):
        inner = _INNER.match(line)
        if inner is not None:
            return Complaint(words=texts.clean(inner["words"], _LINE))
    plain = telling(last)  # of one that was connected and said no more there is nothing to say
    return Complaint(words=texts.clean(plain[-1], _LINE).strip() if plain else "")


def telling(lines: Sequence[str]) -> list[str]:
    """Return the lines that are worth a person's time: no frames of traces, no help.

    Help ends where the log goes on: its lines cannot be told from others.
    """
    kept, is_help = [], False
    for line in lines:
        is_frame = bool(_FRAME.match(line))
        is_help = bool(_USAGE.match(line)) or (is_help and not is_frame)
        if line.strip() and not is_help and not is_frame:
            kept.append(line)
    return kept


def _java(line: str) -> Complaint | None:
    found = _CLASS_FILE.search(line)
    if found is None:
        return None
    needs, has = (int(found[key]) - _BEFORE_JAVA_1 for key in ("needs", "has"))
    return Complaint(
        cause=model.Cause.LOST_JAVA,
        words=f"its Java is too old: it is Java {has}, needed is {needs}",
    )


def _told(line: str, table: Sequence[Sign], before: Sequence[str]) -> Complaint | None:
    for row in table:
        found = row.sign.search(line)
        if found is None:
            continue
        groups = found.groupdict()
        said = texts.clean(groups.get("said") or groups.get("more") or "", _LINE).strip(" :")
        words = row.words.format(said=said).rstrip(" :")
        where = _address(before) if row.where else ""
        return Complaint(words=f"{words} ({where})" if where else words, cause=row.cause)
    return None


def _address(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        found = _ADDRESS.search(line)
        if found is not None:
            return texts.clean(found["socket"] or found[0].rstrip(":"), _LINE)
    return ""
