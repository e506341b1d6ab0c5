"""What an item's wait is made of: spells, accounts, and how it ended.

A spell is a stretch of time for which one thing held an item up: a ``WaitReason``, or, while an
agent of ours is on its way to it, how far that agent has come (``WaitStep``). Each is told here in
words for people, with what happens next. Refuses to know how time is booked.
"""

import enum
from collections.abc import Mapping
from typing import NamedTuple

from attrs import Factory, frozen

from broker.core.model.controller import ItemId, NodeName
from broker.core.model.plan import WaitReason
from broker.core.model.wanted import TemplateName


class WaitStep(enum.Enum):
    """How far the agent of an item has come; the value is the metric label and the API's word."""

    ORDERED = "ordered"  # nothing of it is there yet, or its node alone
    IMAGE = "image"  # its image is being fetched
    STARTING = "starting"  # its platform makes and starts it
    CONNECTING = "connecting"  # it runs, and is not online yet
    CHECKING = "checking"  # it is out of service until its ready check has passed
    GIVEN = "given"  # it is online and free: the controller is about to give it the item
    UNSEEN = "unseen"  # until the broker saw the item
    UNKNOWN = "unknown"  # the broker could not see the controller, or that agent's backend

    __hash__ = object.__hash__  # as of ``Phase``


Spell = WaitReason | WaitStep
"""What an item waits for, for a while."""


class SpellWords(NamedTuple):
    """A spell for people: what it is, and what ends it."""

    what: str
    ends: str


_NOBODY_ACTS = "somebody has to act: see why"

SPELLS: Mapping[Spell, SpellWords] = {
    WaitStep.ORDERED: SpellWords("an agent was ordered", "its node and instance appear"),
    WaitStep.IMAGE: SpellWords("the agent's image was fetched", "the image is there"),
    WaitStep.STARTING: SpellWords("its platform started the agent", "the agent's program runs"),
    WaitStep.CONNECTING: SpellWords("the agent connected", "the agent is online"),
    WaitStep.CHECKING: SpellWords("the agent's ready check ran", "the check passes"),
    WaitStep.GIVEN: SpellWords("an agent was free for it", "the controller gives it the item"),
    WaitStep.UNSEEN: SpellWords("the broker had not seen it yet", "the broker looks"),
    WaitStep.UNKNOWN: SpellWords("the broker could not see", "the source answers again"),
    WaitReason.AGENT_IDLE: SpellWords("an agent was free", "the controller gives it the item"),
    WaitReason.AGENT_STARTING: SpellWords("an agent was starting", "the agent is online"),
    WaitReason.AGENT_ORDERED: SpellWords("an agent was ordered", "the agent appears"),
    WaitReason.UNANSWERED: SpellWords(
        "an order was not answered", "the controller or the backend answers"
    ),
    WaitReason.NEIGHBOUR: SpellWords(
        "another owner's broker went first", "that broker serves it, or its time is over"
    ),
    WaitReason.STANDBY: SpellWords("another broker led", "the leader orders"),
    WaitReason.NOT_ACTING: SpellWords("the broker might not order", _NOBODY_ACTS),
    WaitReason.AGENT_BUSY: SpellWords("the one agent for it worked", "that agent's build ends"),
    WaitReason.NOT_GIVEN: SpellWords(
        "the controller gave it to no free agent", "the controller gives it one"
    ),
    WaitReason.CAP_TEMPLATE: SpellWords("the template's cap", "an agent of the template goes"),
    WaitReason.CAP_VARIANTS: SpellWords("the cap of variants", "an agent of another variant goes"),
    WaitReason.CAP_BACKEND: SpellWords("the backend's cap", "an agent of the backend goes"),
    WaitReason.CAP_TOTAL: SpellWords("the cap of all agents", "any agent goes"),
    WaitReason.CAP_STARTING: SpellWords(
        "too many agents started at once", "one of those that start is online"
    ),
    WaitReason.TRIAL: SpellWords(
        "a new definition was on trial", "the first of its agents are online"
    ),
    WaitReason.BUDGET: SpellWords("the rate of launches", "a moment passes"),
    WaitReason.BACKOFF: SpellWords("a pause after failures", "the pause is over"),
    WaitReason.SET_ASIDE: SpellWords("the template was set aside", "the template changes"),
    WaitReason.NO_ROOM: SpellWords("the platform was full", "the platform has room"),
    WaitReason.PAUSED: SpellWords("the template was paused", "somebody resumes it"),
    WaitReason.NO_TEMPLATE: SpellWords("no template served its label", _NOBODY_ACTS),
    WaitReason.PARAMETER: SpellWords("it asked for what is not allowed", _NOBODY_ACTS),
    WaitReason.NOT_FOR_JOB: SpellWords("the templates were for other jobs", _NOBODY_ACTS),
    WaitReason.JOB_UNREADABLE: SpellWords("its job could not be read", _NOBODY_ACTS),
    WaitReason.BAD_LABEL: SpellWords("its label was not an expression", _NOBODY_ACTS),
    WaitReason.LABEL_UNREADABLE: SpellWords("its label could not be read", _NOBODY_ACTS),
    WaitReason.QUIET_PERIOD: SpellWords("its quiet period", "the quiet period is over"),
    WaitReason.BLOCKED: SpellWords(
        "blocked by another build or a resource", "that build or resource is free"
    ),
    WaitReason.QUIETING_DOWN: SpellWords(
        "the controller prepared for a shut-down", "the controller gives out work again"
    ),
    WaitReason.NOT_OURS: SpellWords("it was for a node of others", "that node takes it"),
    WaitReason.NOT_SYNCED: SpellWords("the broker could not see", "the source answers again"),
    WaitReason.DRAINING: SpellWords("the broker drained", "another broker begins"),
}


class WaitEnd(enum.Enum):
    """How a wait ended; the value is the API's word."""

    STARTED = "started"  # on an agent of ours
    CANCELLED = "cancelled"
    GIVEN_UP = "given-up"  # nothing could serve it, so the broker cancelled it
    ELSEWHERE = "elsewhere"  # it runs on no agent of ours
    LEFT = "left"  # it is gone, and what became of it is not known (yet)


@frozen
class Account:
    """An item that waits, and what its time was spent on by the beginning of its last spell."""

    item: ItemId
    since_at: float  # since when it is in the queue
    spell: Spell  # that it is in now ...
    spell_at: float  # ... since
    template: TemplateName | None = None
    spent: Mapping[Spell, float] = Factory(dict)  # seconds, without the last spell


@frozen(kw_only=True)
class ClosedAccount:
    """An item that left the queue; its times add up to ``ended_at`` minus ``since_at``."""

    item: ItemId
    task_url: str = ""
    task_name: str = ""
    label: str | None = None  # as an expression, where it was known
    template: TemplateName | None = None
    agent: NodeName | None = None  # that it runs on; else the one that was for it
    end: WaitEnd
    since_at: float
    ended_at: float  # of the look that did not show it any more
    spent: Mapping[Spell, float]  # seconds
    text: str = ""  # why it waited, the last time


@frozen(kw_only=True)
class WaitBook:
    """The accounts of all who wait, and of the last who did."""

    open: Mapping[ItemId, Account] = Factory(dict)
    closed: tuple[ClosedAccount, ...] = ()  # oldest first; bounded
    looked_at: float | None = None  # when time was booked last
