"""What is remembered between looks."""

import enum
from collections.abc import Mapping

from attrs import Factory, frozen

from broker.core.model.causes import Cause, Failure, Scope
from broker.core.model.controller import ItemId, KnownLabel, NodeName
from broker.core.model.fleet import AgentFate, BuildFate, Expectation, Memory
from broker.core.model.wanted import BackendName, TemplateName


@frozen(kw_only=True)
class BackoffKey:
    """What is left alone: the scope tells which of these it needs."""

    scope: Scope
    backend: BackendName
    template: TemplateName | None = None
    place: str = ""  # as the backend calls it
    asked: frozenset[str] = frozenset()  # of a variant of the template


class Blame(enum.Enum):
    """What happens at a place that is left alone for it."""

    STARTS = "starts"  # agents end before they are online: those that are may go on
    AGENTS = "agents"  # agents end soon after that, or in their builds
    BUILDS = "builds"  # builds fail that do well elsewhere


@frozen(kw_only=True)
class Backoff:
    """Why and until when something is left alone."""

    failures: int
    until_at: float
    reason: str
    cause: Cause | Failure  # how the last start ended, or did not even begin
    revision: str = ""  # of the template: a new definition is tried at once
    refusals: int = 0  # for want of room, in a row; of these ``failures`` counts none
    at: float = 0.0  # when it was counted last
    held: int | None = None  # agents that the backend held when it had no room for another one
    blame: Blame | None = None  # of a place that is avoided


@frozen(kw_only=True)
class Bucket:
    """Launch budget of a backend: a token bucket as a value."""

    tokens: float
    at: float


@frozen(kw_only=True)
class Trial:
    """How far a template's definition has proved itself on a backend."""

    revision: str
    online: int = 0  # agents of it that came online; counted as far as it matters


@frozen(kw_only=True)
class Deference:
    """How far a template leaves it to a neighbour that goes first to order for what waits."""

    agents: int  # of neighbours, that fit, at the last look
    waits_since_at: float | None = None  # None: nothing waits that it leaves to anybody
    alone: bool = False  # it has waited, and nobody came


@frozen(kw_only=True, order=True)
class VetoKey:
    """Items that are refused alike: a label, canonical, and a task, as its address or name."""

    label: str
    task: str


@frozen(kw_only=True)
class Veto:
    """Items that the controller gave to none of the idle agents that fit."""

    items: frozenset[ItemId]
    until_at: float  # then another agent is tried
    running: int = 0  # builds of the task, when they were refused: so many may run at a time


@frozen(kw_only=True)
class Ledger:
    """All that is remembered between cycles; a fresh one is always a correct start."""

    expectations: Mapping[NodeName, Expectation] = Factory(dict)
    memories: Mapping[NodeName, Memory] = Factory(dict)
    departed: Mapping[NodeName, Memory] = Factory(dict)  # they went last, the oldest first
    labels: Mapping[ItemId, KnownLabel] = Factory(dict)
    hooks: Mapping[ItemId, str | None] = Factory(dict)  # pushed labels; the hook comes later
    backoffs: Mapping[BackoffKey, Backoff] = Factory(dict)
    buckets: Mapping[BackendName, Bucket] = Factory(dict)
    windows: Mapping[BackoffKey, int] = Factory(dict)  # starts that may be asked for at once
    trials: Mapping[BackoffKey, Trial] = Factory(dict)  # of a template on a backend
    fates: Mapping[NodeName, AgentFate] = Factory(dict)  # of agents that came, or ended, lately
    build_fates: tuple[BuildFate, ...] = ()  # of builds that were seen lately, oldest first
    session: str = ""  # controller session of the last synced read ...
    session_at: float | None = None  # ... and when it was first seen
    seen_at: float | None = None  # when that read began: nothing is learnt of one view twice
    waits: Mapping[ItemId, float] = Factory(dict)  # first time seen blocked by a shared cap
    deferences: Mapping[TemplateName, Deference] = Factory(dict)  # where a neighbour goes first
    english: bool = False  # the controller has said something in English
    vetoed: Mapping[ItemId, float] = Factory(dict)  # refused free executors that fit, since
    vetoes: Mapping[VetoKey, Veto] = Factory(dict)  # learnt of idle agents
    cycle: int = 0
