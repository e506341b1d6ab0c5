"""What a session remembers: the tasks that are wanted, and those that exist.

Values that only ``session`` changes; everybody else reads. Pure; refuses to know offers' content,
calls and what an instance is to a broker.
"""

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field

from backends.mesos import offers

TERMINAL = frozenset(
    (
        "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED",
        "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
    )
)  # fmt: skip
_KILL_FIRST_S, _KILL_MAX_S = 5.0, 60.0
_AWAY = frozenset(("TASK_UNREACHABLE", "TASK_LOST", "TASK_GONE", "TASK_UNKNOWN"))


@attrs.define(kw_only=True)
class Want:
    """A task that waits for an offer. ``info``: its TaskInfo without agent and resources."""

    need: offers.Need
    info: Mapping[str, Any] = field(repr=False)  # holds secrets
    secrets: tuple[str, ...] = field(default=(), repr=False)
    miss: str = ""  # why the last offers did not fit
    offers_seen: int = 0


@attrs.define(kw_only=True)
class Task:
    """What is known of a task of ours."""

    name: str
    agent_id: str | None = None
    agent_url: str = ""
    group: str = ""
    traits: Mapping[str, str] = field(factory=dict)
    labels: Mapping[str, str] | None = None  # None: of an earlier life, not yet asked for
    ports: tuple[int, ...] = ()
    state: str = "TASK_STAGING"
    reason: str = ""  # of its state, as Mesos calls it
    detail: str = ""
    confirmed: bool = False  # the master has said something about it
    started: bool = False  # an executor has said something about it
    final: Mapping[str, Any] | None = None  # the status that ended it
    unacknowledged: str | None = None  # uuid of the final update
    grace_s: float | None = None  # not None: it shall end
    kill_at: float = 0.0
    kills: int = 0
    secrets: tuple[str, ...] = field(default=(), repr=False)  # not known of an earlier life
    last_words: str | None = None  # of a program that could not be executed; None: not yet read
    want: Want | None = field(default=None, repr=False)  # to go back to, until confirmed

    @property
    def is_away(self) -> bool:
        """True when only its agent could say more, and does not answer."""
        return self.state in _AWAY and self.unacknowledged is None

    @property
    def is_to_end(self) -> bool:
        """True when it was told to end and has not."""
        return self.grace_s is not None and self.final is None

    def told_to_end(self, now: float) -> None:
        """Take note of a KILL; the pause until the next one grows."""
        pause_s = min(_KILL_FIRST_S * 2**self.kills, _KILL_MAX_S)
        self.kill_at, self.kills = now + pause_s + (self.grace_s or 0.0), self.kills + 1

    def end(self, state: str, reason: str, message: str) -> None:
        """Take note of an end that no update tells."""
        told = {"task_id": {"value": self.name}, "state": state}
        self.state, self.want = state, None
        self.final = {**told, "reason": reason, "message": message}


def alive(tasks: Mapping[str, Task]) -> list[str]:
    """Return the names of those that run or may run."""
    return [name for name, task in tasks.items() if task.final is None or task.is_away]


def placed(tasks: Mapping[str, Task]) -> dict[str, list[Mapping[str, str]]]:
    """Return, by group, the traits of the agents where its tasks run."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for task in tasks.values():
        if task.final is None:
            found.setdefault(task.group, []).append(task.traits)
    return found
