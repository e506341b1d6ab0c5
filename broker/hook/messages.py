"""What the hook sends and is answered, as values: cut, cleaned and typed here.

A message is a JSON object: ``hook`` (its version), ``owner``, ``session`` (the controller's, as
X-Jenkins-Session), ``sent_ms`` (the controller's clock), ``lost`` (events that it dropped since it
was installed), ``events``, and what became of the last answer: ``closed``, ``busy``, ``ended``,
names of agents. One odd event costs that event. Pure; refuses to know who may send one, and what
is done about it.
"""

import enum
import json
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import Factory, frozen

from broker.core import model
from broker.core.demand import labels
from outside import text, typed

VERSION = 1
BODY_MAX = 1 << 20
"""Bytes of a message: 200 events with labels of 4 KiB."""
EVENTS_MAX = 500
NAMES_MAX = 500
_MAX_ID = 2**63 - 1  # a Java long
_LATEST_MS = 253402300799000.0  # end of the year 9999
_LABEL = 2 * labels.MAX_LENGTH
_CLASS = 256
_CAUSES, _CAUSE = 4, 128
_FREE_MAX = 100_000
_STAGES: Mapping[str, model.Stage | None] = {
    "waiting": model.Stage.WAITING,
    "blocked": model.Stage.BLOCKED,
    "buildable": model.Stage.BUILDABLE,
    "pending": model.Stage.PENDING,  # by the time it was told of, an executor had it
    "left": None,
}


class HookRefusal(enum.Enum):
    """Why a message is not taken."""

    KEY = "key"
    RATE = "rate"
    MALFORMED = "malformed"
    OWNER = "owner"  # it is another broker's
    SESSION = "session"  # it comes from another controller, or an earlier start of it
    STANDBY = "standby"  # this broker does not lead


class NoMessage(ValueError):  # noqa: N818 -- what it is
    """What was sent is no message of a hook; the text says why."""


@frozen(kw_only=True)
class HookMessage:
    """One message; times are on the broker's clock."""

    owner: str
    session: str
    version: int
    events: tuple[model.QueueEvent, ...] = ()
    odd: typed.Odd = Factory(typed.Odd)
    lost: int = 0  # since it was installed
    closed: frozenset[model.NodeName] = frozenset()
    busy: frozenset[model.NodeName] = frozenset()  # or not there, or not ours
    ended: frozenset[model.NodeName] = frozenset()  # their steps


@frozen(kw_only=True)
class HookAnswer:
    """What the hook is to do, and in how many milliseconds it is to come again."""

    pause_ms: int
    close: tuple[model.NodeName, ...] = ()  # if idle, under the queue's lock
    reopen: tuple[model.NodeName, ...] = ()
    end_steps: tuple[model.NodeName, ...] = ()
    say: tuple[tuple[model.ItemId, str], ...] = ()  # into the log of whose step waits

    def document(self) -> dict[str, Any]:
        """Return it as the hook reads it."""
        return {
            "pause_ms": self.pause_ms,
            "close": list(self.close),
            "open": list(self.reopen),
            "end_steps": list(self.end_steps),
            "say": [{"id": item, "text": words} for item, words in self.say],
        }


def parsed(body: bytes, *, now: float) -> HookMessage:
    """Read a message that came at ``now`` (POSIX seconds). Raises NoMessage."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise NoMessage("it is not JSON") from None
    if not isinstance(told, dict):
        raise NoMessage("it is not an object")
    version = typed.integer(told.get("hook"), 0, 1_000_000)
    sent_ms = typed.number(told.get("sent_ms"), 0.0, _LATEST_MS)
    events = told.get("events")
    if version is None or sent_ms is None or not isinstance(events, list):
        raise NoMessage("hook, sent_ms or events is missing")
    # it travels for some milliseconds: what it tells of was that much earlier, never later
    ahead_s = sent_ms / 1000 - now
    seen, odd = typed.each(
        events[:EVENTS_MAX], lambda event: _event(event, ahead_s=ahead_s, now=now)
    )
    return HookMessage(
        owner=text.name(_text(told, "owner"), 128),
        session=text.name(_text(told, "session"), 128),
        version=version,
        events=tuple(seen),
        odd=odd,
        lost=typed.integer(told.get("lost"), 0, _MAX_ID) or 0,
        closed=_names(told.get("closed")),
        busy=_names(told.get("busy")),
        ended=_names(told.get("ended")),
    )


def _event(event: Any, *, ahead_s: float, now: float) -> model.QueueEvent:
    event = event if isinstance(event, dict) else {}
    number = typed.integer(event.get("id"), 0, _MAX_ID)
    kind, at_ms = event.get("event"), typed.number(event.get("at_ms"), 0.0, _LATEST_MS)
    if number is None or at_ms is None or not isinstance(kind, str) or kind not in _STAGES:
        raise ValueError("an event without id, time, or a kind that is known")
    at = min(at_ms / 1000 - ahead_s, now)
    since_ms = typed.number(event.get("since_ms"), 0.0, _LATEST_MS)
    node = text.name(_text(event, "node"))
    causes = event.get("causes")
    return model.QueueEvent(
        id=model.ItemId(number),
        at=at,
        stage=_STAGES[kind],
        label=text.fit(_text(event, "label"), _LABEL) or None,
        flyweight=event.get("flyweight") is True,
        task_class=text.fit(_text(event, "class"), _CLASS),
        task_name=text.clean(_text(event, "name")),
        task_url=_url(event),
        in_queue_since_at=at if since_ms is None else min(since_ms / 1000 - ahead_s, now),
        idle=_free(event.get("idle")),
        cancelled=event.get("cancelled") is True,
        node=model.NodeName(node) if node else None,
        causes=tuple(
            text.clean(cause, _CAUSE)
            for cause in (causes if isinstance(causes, list) else ())[:_CAUSES]
            if isinstance(cause, str)
        ),
    )


def _free(told: Any) -> int | None:
    """Return how many executors were free; negative: nobody counted."""
    count = typed.integer(told, -1, _FREE_MAX)
    return None if count is None or count < 0 else count


def _url(event: Mapping[str, Any]) -> str:
    """Return the task's path, as the end of an address; what is none says nothing."""
    told = text.fit(_text(event, "url"), 1024)
    return f"/{told.lstrip('/')}" if told.startswith("job/") else ""


def _names(told: Any) -> frozenset[model.NodeName]:
    entries: Iterable[Any] = told[:NAMES_MAX] if isinstance(told, list) else ()
    names = (text.name(entry) for entry in entries if isinstance(entry, str))
    return frozenset(model.NodeName(name) for name in names if name)


def _text(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""
