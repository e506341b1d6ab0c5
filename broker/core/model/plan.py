"""What is to be done, what is not and why: actions, reasons, the plan."""

import enum
from collections.abc import Mapping
from typing import Self

from attrs import Factory, field, frozen

from broker.core.model.causes import Cause
from broker.core.model.controller import ItemId, KnownLabel, LabelSource, NodeName
from broker.core.model.fleet import Agent, Phase
from broker.core.model.ledger import Ledger
from broker.core.model.wanted import BackendName, Check, TemplateName


@frozen(kw_only=True)
class LaunchAgent:
    """Create a node, fetch its secret, launch its instance."""

    name: NodeName
    template: TemplateName
    backend: BackendName
    reason: str
    item: ItemId | None = None  # None: for the warm pool
    avoid: tuple[str, ...] = ()  # places of the backend where it must not go
    asked: tuple[str, ...] = ()  # labels beside the template's, that make a variant of it
    slot: int | None = None  # a number that no other agent of the template has just now
    checked: bool = False  # out of service from the beginning, until its ready check has passed


@frozen(kw_only=True)
class CordonAgent:
    """Take an agent out of service: while its build runs, or because none is to come to it."""

    name: NodeName
    reason: str
    cause: Cause = Cause.DRAINED  # of the end that follows
    online: bool = True  # it could be given another item: old controllers need care
    idle: bool = False  # it may have nothing to do just now
    check: Check | None = None  # it stays, and is brought back when this has passed
    asked: tuple[str, ...] = ()  # labels of a variant: kept, or nobody knows it as one any more
    hold: bool = False  # it stays, and is brought back when a person's order is over


@frozen(kw_only=True)
class UncordonAgent:
    """Bring a node back into service."""

    name: NodeName
    reason: str
    labels: tuple[str, ...] = ()  # that it has there, where it was taken out for a check ...
    exclusive: bool = True  # ... and is not to be sealed any more


@frozen(kw_only=True)
class CheckAgent:
    """Run the check that an agent is out of service for; bring it back, or say that it goes."""

    name: NodeName
    backend: BackendName
    template: TemplateName
    check: Check
    reason: str
    labels: tuple[str, ...] = ()  # that its node has in service: old controllers need them told
    exclusive: bool = True  # the same


@frozen(kw_only=True)
class RetireAgent:
    """Cordon, read again, still idle? delete the node, terminate the instance."""

    name: NodeName
    backend: BackendName | None
    reason: str
    cordoned: bool = False  # already out of service and empty: nothing can be lost
    cause: Cause = Cause.SURPLUS
    refused: frozenset[ItemId] = frozenset()  # that the controller does not give to it
    keeps: bool = False  # its instance has failed, and stays for a look


@frozen(kw_only=True)
class ReleaseAgent:
    """Delete the node of an agent that died at work, so that Pipeline ends its steps at once."""

    name: NodeName
    backend: BackendName | None
    reason: str
    cause: Cause
    keeps: bool = False  # as ``RetireAgent``


@frozen(kw_only=True)
class SweepNode:
    """Delete a node that has no instance and will never come online."""

    name: NodeName
    reason: str
    cause: Cause = Cause.SWEPT


@frozen(kw_only=True)
class SweepInstance:
    """Terminate an instance that has no node."""

    name: NodeName
    backend: BackendName
    reason: str
    cause: Cause = Cause.SWEPT
    told: bool = False  # of its end all is told: its node went before, and it was kept


Removal = RetireAgent | ReleaseAgent | SweepNode | SweepInstance
"""What an agent's life ends with."""
Action = LaunchAgent | CordonAgent | UncordonAgent | CheckAgent | Removal


class WaitReason(enum.Enum):
    """Why an item waits; the value is the metric label and the API's word.

    ``needs_person``: time does not heal it, somebody has to act.
    """

    needs_person: bool

    def __new__(cls, slug: str, needs_person: bool = False) -> Self:  # noqa: FBT001, FBT002 -- members are rows of a table
        """Make a member whose value is its slug."""
        member = object.__new__(cls)
        member._value_ = slug
        member.needs_person = needs_person
        return member

    AGENT_IDLE = "agent-idle"  # an idle agent fits, the controller will give it the item
    AGENT_STARTING = "agent-starting"
    AGENT_ORDERED = "agent-ordered"
    UNANSWERED = "unanswered"  # ordered, and node, secret or instance do not come about
    NEIGHBOUR = "neighbour"  # a broker of another owner goes first, and may order for it
    STANDBY = "standby"  # another broker leads, and orders
    NOT_ACTING = "not-acting", True  # nobody may order: the owner's claim is not ours, or not yet
    AGENT_BUSY = "agent-busy"  # pinned to a node that works
    NOT_GIVEN = "not-given", True  # idle agents fit, the controller does not give it to them
    CAP_TEMPLATE = "cap-template"
    CAP_VARIANTS = "cap-variants"
    CAP_BACKEND = "cap-backend"
    CAP_TOTAL = "cap-total"
    CAP_STARTING = "cap-starting"
    TRIAL = "trial"  # a definition that has brought few agents online yet starts few at a time
    BUDGET = "launch-budget"
    BACKOFF = "back-off", True
    SET_ASIDE = "set-aside", True
    NO_ROOM = "no-room"  # the platform itself is full
    PAUSED = "paused"
    NO_TEMPLATE = "no-template", True
    PARAMETER = "parameter", True  # asks a template for a value that it does not allow
    NOT_FOR_JOB = "not-for-job", True  # the templates with its label are for other jobs
    JOB_UNREADABLE = "job-unreadable", True  # the same, and whose item it is is not told
    BAD_LABEL = "bad-label", True
    LABEL_UNREADABLE = "label-unreadable", True
    QUIET_PERIOD = "quiet-period"
    BLOCKED = "blocked"  # by another build or a resource: more agents do not help
    QUIETING_DOWN = "quieting-down"
    NOT_OURS = "not-ours"  # a node that is not ours will take it
    NOT_SYNCED = "not-synced", True
    DRAINING = "draining"

    __hash__ = object.__hash__  # as of ``Phase``


@frozen
class Unmet:
    """An item that does not run yet, and why, for people."""

    item: ItemId
    reason: WaitReason
    text: str
    template: TemplateName | None = None
    agent: NodeName | None = None
    label: KnownLabel = field(default=KnownLabel(source=LabelSource.UNREADABLE))
    since_at: float = 0.0
    last: bool = False  # the item is about to be given up


@frozen(kw_only=True)
class Refusal:
    """Something that would have been done, and why it was not (sweeps, retirements, warm pool)."""

    subject: str
    text: str
    implausible: bool = False  # a sweep of so many at once that a person has to order it


@frozen(kw_only=True)
class TemplateCount:
    """The recount of one template in this cycle; all in slots but ``agents``."""

    demand: int = 0  # items that this template is to serve
    warm_target: int = 0
    idle: int = 0
    busy: int = 0  # also of agents that take nothing more
    starting: int = 0
    agents: int = 0
    launches: int = 0  # agents ordered by this plan


@frozen(kw_only=True)
class Plan:
    """What is to be done now, what was not done and why, and when to look again at the latest."""

    actions: tuple[Action, ...] = ()
    unmet: tuple[Unmet, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    agents: tuple[Agent, ...] = ()
    illegal: tuple[tuple[Phase | None, Phase], ...] = ()  # phase changes that are not in the table
    counts: Mapping[TemplateName, TemplateCount] = Factory(dict)
    overshoot: int = 0  # agents ordered beyond demand + warm target; must be 0
    wake_at: float | None = None
    active: bool = False  # something waits, starts or leaves: poll fast
    ledger: Ledger = Factory(Ledger)  # the world's ledger after this cycle's observation
