"""From a final task status to the death certificate that every backend shares.

Pure. Mesos tells an end by a state, a reason (an enum, closed) and a message (free text that alone
holds the exit status). The table names every reason of Mesos 1.11, so that a new one is noticed by
a test and not by an operator at night; a reason from the future is ``unknown``, with its words.
"""

import re
import signal
from collections.abc import Mapping
from typing import Any

from backends import api
from outside import text, typed

_SPECIFICATION: api.ExitSlug = (
    "command"  # what we asked for cannot run: user, command, task definition
)

REASONS: Mapping[str, api.ExitSlug] = {
    "REASON_COMMAND_EXECUTOR_FAILED": "unknown",
    "REASON_CONTAINER_LAUNCH_FAILED": "unknown",  # the message tells image, fetch or else
    "REASON_CONTAINER_LIMITATION": "evicted",
    "REASON_CONTAINER_LIMITATION_DISK": "evicted",
    "REASON_CONTAINER_LIMITATION_MEMORY": "out-of-memory",
    "REASON_CONTAINER_PREEMPTED": "evicted",
    "REASON_CONTAINER_UPDATE_FAILED": "unknown",
    "REASON_MAX_COMPLETION_TIME_REACHED": "evicted",
    "REASON_EXECUTOR_REGISTRATION_TIMEOUT": "platform-lost",
    "REASON_EXECUTOR_REREGISTRATION_TIMEOUT": "platform-lost",
    "REASON_EXECUTOR_TERMINATED": "killed",
    "REASON_EXECUTOR_UNREGISTERED": "killed",
    "REASON_FRAMEWORK_REMOVED": "killed",
    "REASON_GC_ERROR": "platform-lost",
    "REASON_INVALID_FRAMEWORKID": "platform-lost",
    "REASON_INVALID_OFFERS": "platform-lost",
    "REASON_IO_SWITCHBOARD_EXITED": "unknown",
    "REASON_MASTER_DISCONNECTED": "platform-lost",
    "REASON_RECONCILIATION": "platform-lost",
    "REASON_RESOURCES_UNKNOWN": "platform-lost",
    "REASON_AGENT_DISCONNECTED": "platform-lost",
    "REASON_AGENT_DRAINING": "evicted",
    "REASON_AGENT_REMOVED": "platform-lost",
    "REASON_AGENT_REMOVED_BY_OPERATOR": "platform-lost",
    "REASON_AGENT_REREGISTERED": "unknown",
    "REASON_AGENT_RESTARTED": "platform-lost",
    "REASON_AGENT_UNKNOWN": "platform-lost",
    "REASON_TASK_CHECK_STATUS_UPDATED": "unknown",
    "REASON_TASK_GROUP_INVALID": _SPECIFICATION,
    "REASON_TASK_GROUP_UNAUTHORIZED": _SPECIFICATION,
    "REASON_TASK_HEALTH_CHECK_STATUS_UPDATED": "killed",
    "REASON_TASK_INVALID": _SPECIFICATION,
    "REASON_TASK_KILLED_DURING_LAUNCH": "killed",
    "REASON_TASK_UNAUTHORIZED": _SPECIFICATION,
    "REASON_TASK_UNKNOWN": "platform-lost",
}
"""Reason to slug, for an end whose message does not say more."""

DRAINING = "REASON_AGENT_DRAINING"

_STATES: Mapping[str, api.ExitSlug] = {
    "TASK_KILLED": "killed",
    "TASK_LOST": "platform-lost",
    "TASK_DROPPED": "platform-lost",
    "TASK_GONE": "platform-lost",
    "TASK_GONE_BY_OPERATOR": "platform-lost",
    "TASK_UNKNOWN": "platform-lost",
    "TASK_ERROR": _SPECIFICATION,
}
"""State to slug, for an end without a reason; what is not here is judged by its message."""

_STATUS = re.compile(r"(?:Command|Container) exited with status (\d+)")
_SIGNAL = re.compile(r"terminated with signal ([A-Za-z0-9 /]+)")
_IMAGE = re.compile(
    r"\bpull\b|image|manifest|registry", re.IGNORECASE
)  # of a container that could not be launched
_FETCH = re.compile(r"fetch", re.IGNORECASE)
_USER = re.compile(r"[Nn]o such user|chown")
_GLOG = re.compile(r"^[A-Z]\d{4} [\d:.]{1,20} +\d{1,10} [^ \]]{1,80}\] ")
_FATAL = re.compile(r"^[EF]\d{4} ")
_COMPLAINS = re.compile(r"[Ff]ailed|[Ee]rror|[Cc]an't|[Cc]annot|denied|No such|not found")
_LOOKED_AT = 40
_NOT_LAUNCHED = frozenset(
    (
        "REASON_CONTAINER_LAUNCH_FAILED",
        "REASON_EXECUTOR_TERMINATED",
        "REASON_COMMAND_EXECUTOR_FAILED",
    )
)
_CANNOT_EXECUTE = frozenset((126, 127))  # what shells answer
_SIGNALS = {signal.strsignal(number): number for number in signal.valid_signals()}


def is_told_elsewhere(status: Mapping[str, Any]) -> bool:
    """True when the sandbox tells more: of what could not be executed, fetched or launched."""
    if status.get("reason") in _NOT_LAUNCHED:
        return True
    return _code(str(status.get("message", ""))) in _CANNOT_EXECUTE


def telling(output: str) -> str:
    """Return the line of Mesos' own output in a sandbox that says what went wrong; "" if none."""
    lines = text.last_lines(output, _LOOKED_AT, 400)
    for known in (_FATAL, _COMPLAINS):
        if found := [line for line in lines if known.search(line)]:
            return _GLOG.sub("", found[-1])
    return lines[-1] if lines else ""


def certificate(status: Mapping[str, Any], *, last_words: str = "", place: str = "") -> api.Exit:
    """Return how a task ended; ``status`` is a TaskStatus of the v1 API.

    ``place``: the host of its agent, which is named where that is why.
    """
    message = str(status.get("message", ""))
    code = _code(message)
    words = message or str(status.get("reason", status.get("state", "")))
    words += f": {last_words}" if last_words else ""
    if status.get("reason") == DRAINING:
        words = f"its Mesos agent{f' {place}' if place else ''} was drained: {words}"
    return api.Exit(
        slug=_slug(status, message, code),
        code=code,
        message=_short(words),
        at=typed.number(status.get("timestamp"), 0, 1e11),
    )


def _short(words: str) -> str:
    """Return what fits into a certificate; of long words the end, which says why."""
    line = text.clean(words, 4 * text.LIMIT)
    if len(line) <= text.LIMIT:
        return line
    head = text.LIMIT // 4
    return f"{line[:head]} … {line[head + 3 - text.LIMIT :]}"


def _code(message: str) -> int | None:
    """Return the exit status that the message tells; minus the number of a signal."""
    if found := _STATUS.search(message):
        return int(found[1])
    if found := _SIGNAL.search(message):
        number = _SIGNALS.get(found[1].strip())
        return None if number is None else -int(number)
    return None


def _slug(  # noqa: PLR0911 -- one kind of end, one return
    status: Mapping[str, Any], message: str, code: int | None
) -> api.ExitSlug:
    reason, state = status.get("reason"), str(status.get("state", ""))
    if reason == "REASON_CONTAINER_LAUNCH_FAILED":
        if _FETCH.search(message):
            return "network"
        return "image" if _IMAGE.search(message) else "unknown"
    if reason == "REASON_EXECUTOR_TERMINATED" and _USER.search(message):
        return _SPECIFICATION
    if reason is not None:
        return REASONS.get(str(reason), "unknown")
    if code in _CANNOT_EXECUTE:
        return _SPECIFICATION
    if state in _STATES:
        return _STATES[state]
    if code is not None:
        return "exited" if code >= 0 else "killed"
    return "exited" if state == "TASK_FINISHED" else "unknown"
