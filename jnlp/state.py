"""The live side of a node as the controller's JSON tells it.

Pure. Strict about what a build could be lost over (idle, offline), tolerant about the rest;
refuses to know agents, templates or what follows from a state.

Facts: recordings ``nodes/03-online-node`` to ``nodes/06-operations``.
"""

import html
import re
from typing import Any

from attrs import frozen

from jnlp import errors
from outside import text, typed

TREE = (
    "displayName,description,idle,offline,temporarilyOffline,offlineCauseReason,"
    "offlineCause[timestamp,description],numExecutors,"
    "assignedLabels[name],executors[idle,currentExecutable[url]],"
    "oneOffExecutors[idle,currentExecutable[url]]"
)
"""What ``parse`` wants of a computer: the ``tree`` parameter, evaluates nothing else."""

CAUSE_LENGTH = 256
"""An offline cause may be a whole Java stack trace; this much of it is kept."""
MAX_EXECUTORS = 10_000
LATEST_MS = 253402300799000.0
"""The end of the year 9999."""
LABEL_LENGTH = 4096
_DESCRIPTION = 4096
_ADDRESS = 512
_SHOWN = 80  # of an odd value in an error


_STEP = "ExecutorStepExecution$PlaceholderTask$PlaceholderExecutable"
"""What an executor shows of a Pipeline's ``node`` block (recording ``nodes/07``)."""
_NAME_LENGTH = 64
_BY_PERSON = re.compile(r"Disconnected by (?P<name>.+?)(?= : |$)")
"""``SlaveComputer.DisconnectedBy`` (hudson/slaves/Messages.properties), asked for in English."""


@frozen(kw_only=True)
class NodeState:
    """One computer. ``exists`` False: the controller knows no such node, all else is empty."""

    exists: bool
    name: str = ""
    idle: bool = False  # no executor and no one-off executor works
    offline: bool = True
    temporarily_offline: bool = False
    offline_cause: str = ""
    offline_by: str = ""  # the person who took it out of service; the cause is without the name
    offline_since: float | None = None  # POSIX seconds on the controller's clock
    description: str = ""
    executors: int = 0
    busy_executors: int = 0  # of ``executors``; one-off executors only count against ``idle``
    labels: tuple[str, ...] = ()  # includes the node's own name
    busy_urls: tuple[str, ...] = ()  # builds that may be seen; others run without one
    only_steps: bool = False  # all that runs shows itself as a block of a Pipeline
    built_in: bool = False  # the controller's own

    @property
    def is_at_work(self) -> bool:
        """True when it is there and has something to do, be it only assigned."""
        return self.exists and not self.idle


def parse(computer: Any) -> NodeState:
    """Read one computer; raises ``Unexpected`` when it cannot be told idle from busy.

    Whatever may be shown is fit for it; of labels and description no secret is taken out.
    """
    name = name_of(computer)
    busy, urls, steps = _work(name, computer, "executors")
    one_off, one_off_urls, _ = _work(name, computer, "oneOffExecutors")
    return NodeState(
        exists=True,
        name=name,
        # ``idle`` and the executors are read one after the other: either may be the newer one
        idle=_flag(name, computer, "idle") and not busy and not one_off,
        offline=_flag(name, computer, "offline"),
        temporarily_offline=_flag(name, computer, "temporarilyOffline"),
        offline_cause=cause(computer.get("offlineCauseReason")),
        offline_by=_person(computer.get("offlineCause")),
        offline_since=_since(computer.get("offlineCause")),
        description=text.fit(_text(computer, "description"), _DESCRIPTION),
        executors=_executors(computer),
        busy_executors=busy,
        labels=_labels(computer),
        busy_urls=urls + one_off_urls,
        only_steps=0 < busy == steps and not one_off,
        built_in=_text(computer, "_class").endswith("$MasterComputer"),
    )


def name_of(computer: Any) -> str:
    """Return a computer's name, also of one that cannot be read; raises ``Unexpected``."""
    if not isinstance(computer, dict):
        raise errors.Unexpected(f"a computer is {type(computer).__name__}, an object expected")
    name = computer.get("displayName")
    if not isinstance(name, str) or not name:
        raise errors.Unexpected("a computer has no displayName")
    return text.name(name)


def cause(value: Any) -> str:
    """Return an offline cause for people.

    From 2.551 to 2.567, and in 2.541.3 and 2.555.1, it comes escaped for HTML.
    """
    return text.clean(html.unescape(typed.words(value, 8 * CAUSE_LENGTH)), CAUSE_LENGTH)


def address(value: Any) -> str:
    """Return a URL as it is compared and shown everywhere; empty for what is none."""
    return text.clean(value, _ADDRESS) if isinstance(value, str) else ""


def _flag(name: str, computer: dict[str, Any], key: str) -> bool:
    value = computer.get(key)
    if not isinstance(value, bool):
        raise errors.Unexpected(
            f"computer {name}: {key} is {shown(value)}, true or false expected"
        )
    return value


def shown(value: Any) -> str:
    """Return a little of a value that is not as expected."""
    told = value if isinstance(value, str | int | float | None) else type(value).__name__
    try:
        return text.clean(repr(told[:_SHOWN] if isinstance(told, str) else told), _SHOWN)
    except ValueError:  # more digits than Python writes
        return "a very large number"


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _person(told: Any) -> str:
    """Read the name in the description of a cause: ``offlineCauseReason`` leaves it out.

    Recent versions escape it for HTML (2.541.3).
    """
    words = typed.words(told.get("description"), 1024) if isinstance(told, dict) else ""
    found = _BY_PERSON.match(words)
    return text.clean(html.unescape(found["name"]), _NAME_LENGTH) if found is not None else ""


def _since(told: Any) -> float | None:
    """Read ``OfflineCause.getTimestamp``; a computer that is online has no cause."""
    at = typed.number(told.get("timestamp"), 0.0, LATEST_MS) if isinstance(told, dict) else None
    return None if at is None else at / 1000


def _executors(computer: dict[str, Any]) -> int:
    found = typed.integer(computer.get("numExecutors"), 0, MAX_EXECUTORS)
    return 1 if found is None else found


def _labels(computer: dict[str, Any]) -> tuple[str, ...]:
    labels = computer.get("assignedLabels")
    if not isinstance(labels, list):
        return ()
    names = (_text(label, "name") for label in labels if isinstance(label, dict))
    return tuple(text.fit(name, LABEL_LENGTH) for name in names if name)


def _work(name: str, computer: dict[str, Any], key: str) -> tuple[int, tuple[str, ...], int]:
    """Count executors at work; an executable that we may not see is null while idle is false.

    With the addresses that are shown, and how many of them are blocks of a Pipeline.
    """
    entries = computer.get(key)
    if entries is None:
        return 0, (), 0
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise errors.Unexpected(f"computer {name}: {key} is not a list of objects")
    busy = steps = 0
    urls = []
    for entry in entries:
        executable = entry.get("currentExecutable")
        if executable is None and entry.get("idle", True) is not False:
            continue
        busy += 1
        if isinstance(executable, dict) and executable.get("url"):
            urls.append(address(executable["url"]))
        if isinstance(executable, dict) and _text(executable, "_class").endswith(_STEP):
            steps += 1
    return busy, tuple(url for url in urls if url), steps
