"""A task's status as the master sends it, read once: types, lengths, clean words.

Pure. Raises only ValueError, KeyError, TypeError and AttributeError, which cost that status.
Refuses to know what a status means.
"""

import re
from collections.abc import Mapping
from typing import Any

from outside import text, typed

_NAME_MAX = 512
_MESSAGE_MAX = 1024
_STATE = re.compile(r"TASK_[A-Z_]{1,40}")
_REASON = re.compile(r"REASON_[A-Z_]{1,80}")
_UUID = re.compile(r"[A-Za-z0-9+/]{1,64}={0,2}")


def read(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that we know, each of its type; those that are absent stay absent."""
    state = raw["state"]
    if not isinstance(state, str) or not _STATE.fullmatch(state):
        raise ValueError("a state that does not exist")
    status: dict[str, Any] = {"task_id": {"value": _name(raw["task_id"])}, "state": state}
    if "agent_id" in raw:
        status["agent_id"] = {"value": _name(raw["agent_id"])}
    if "uuid" in raw:
        if not isinstance(raw["uuid"], str) or not _UUID.fullmatch(raw["uuid"]):
            raise ValueError("a uuid that is not a uuid")
        status["uuid"] = raw["uuid"]
    if "message" in raw:
        if not isinstance(raw["message"], str):
            raise ValueError("a message that is not a text")
        status["message"] = text.clean(raw["message"], _MESSAGE_MAX)
    if "reason" in raw:
        if not isinstance(raw["reason"], str) or not _REASON.fullmatch(raw["reason"]):
            raise ValueError("a reason that does not exist")
        status["reason"] = raw["reason"]
    if (timestamp := typed.number(raw.get("timestamp"), 0, 1e11)) is not None:
        status["timestamp"] = timestamp
    return status


def names(raw: Any) -> tuple[str | None, str | None, str | None]:
    """Return task, agent and uuid of a status that cannot be read, as far as they can."""
    told = raw if isinstance(raw, Mapping) else {}
    task = _name_or_none(told.get("task_id"))
    agent = _name_or_none(told.get("agent_id"))
    uuid = told.get("uuid")
    known = isinstance(uuid, str) and _UUID.fullmatch(uuid) is not None
    return task, agent, uuid if known else None


def _name(raw: Any) -> str:
    found = raw["value"]
    if not isinstance(found, str) or not 0 < len(found) <= _NAME_MAX:
        raise ValueError("a name that is not a text")
    return found


def _name_or_none(raw: Any) -> str | None:
    found, _ = typed.each([raw], _name)
    return found[0] if found else None
