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
_AWAY = frozenset(("TASK_UNREACHABLE", "TASK_LOST", "TASK_GONE", "TASK_UNKNOWN"))


@attrs.define(kw_only=True)
class Want:
    """A task that waits for an offer. ``info``: its TaskInfo without agent and resources."""

    need: offers.Need
    info: Mapping[str, Any] = field(repr=False)  # holds secrets
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
    detail: str = ""
    confirmed: bool = False  # the master has said something about it
    started: bool = False  # an executor has said something about it
    final: Mapping[str, Any] | None = None  # the status that ended it
    unacknowledged: str | None = None  # uuid of the final update
    grace_s: float | None = None  # not None: it shall end
    kill_at: float = 0.0
    kills: int = 0
    want: Want | None = field(default=None, repr=False)  # to go back to, until confirmed

    @property
    def is_away(self) -> bool:
        """True when only its agent could say more, and does not answer."""
        return self.state in _AWAY and self.unacknowledged is None

    def end(self, state: str, reason: str, message: str) -> None:
        """Take note of an end that no update tells."""
        told = {"task_id": {"value": self.name}, "state": state}
        self.state, self.want = state, None
        self.final = {**told, "reason": reason, "message": message}
