"""The words of the core as frozen values: what is seen, what is wanted, what is to be done.

Nothing here decides, waits, reads a clock or knows a platform. Rules live in the sibling modules;
this file refuses to know them. Times named ``..._at`` are POSIX seconds on the broker's own clock
(``broker.clock``), durations end in ``_s``. Changes are made with ``attrs.evolve``.
"""

import enum
from collections.abc import Mapping
from typing import Any, NewType

from attrs import Factory, field, frozen

from backends import api as backends_api
from jnlp import tunnel as jnlp_tunnel

NodeName = NewType("NodeName", str)
"""Name of a Jenkins node, and of the backend's instance behind it: they are always the same."""
ItemId = NewType("ItemId", int)
"""Id of a queue item; survives a controller restart (recording ``controller/01-restart``)."""
TemplateName = NewType("TemplateName", str)
BackendName = NewType("BackendName", str)

CORDON_MARK = "agent-broker:"
"""How the offline message of a node begins when we took it out of service."""
CLOSED_LOOKS = 2
"""One look may fall between the end of a build and the start of the next."""
RETIRED_LABEL = "agent-broker-retired"
"""By this label everybody knows a node that was sealed; its offline message stays empty."""


def retired_labels(slug: str) -> tuple[str, str]:
    """Return the labels of a sealed node; the second one tells why it goes."""
    return RETIRED_LABEL, f"{RETIRED_LABEL}-{slug}"


# --- the controller, as seen -------------------------------------------------------------------


class Stage(enum.Enum):
    """Where a queue item is (``_class`` of the item, ``hudson.model.Queue``)."""

    WAITING = "waiting"  # quiet period
    BLOCKED = "blocked"
    BUILDABLE = "buildable"
    PENDING = "pending"  # given to an executor that has not started yet


@frozen(kw_only=True)
class QueueItem:
    """One item of ``/queue/api/json``; times are already on the broker's clock."""

    id: ItemId
    stage: Stage
    why: str = ""
    label_expression: str | None = None  # as typed into the job; None: absent or null
    exports_label: bool = False  # the task has the field ``labelExpression`` (null or not)
    task_class: str = ""
    task_name: str = ""
    task_url: str = ""
    stuck: bool = False
    in_queue_since_at: float = 0.0
    buildable_since_at: float | None = None
    quiet_until_at: float | None = None  # end of the quiet period, WAITING only


@frozen(kw_only=True)
class Computer:
    """The live side of a node, from ``/computer/api/json``."""

    name: NodeName
    offline: bool = False
    temporarily_offline: bool = False
    offline_cause: str = ""
    offline_by: str = ""  # who took it out of service, if a person did
    offline_since_at: float | None = None  # of the cause, where the controller tells
    idle: bool = True  # no executor and no one-off executor works
    executors: int = 1
    busy_executors: int = 0
    executable_urls: tuple[str, ...] = ()  # what runs, one entry per busy executor that says so
    labels: frozenset[str] = frozenset()  # includes the node's own name
    description: str = ""


@frozen(kw_only=True)
class ControllerView:
    """What one read of the controller showed. ``synced`` False: unknown, never empty."""

    synced: bool = False
    read_at: float = 0.0  # when the read began
    version: str = ""  # X-Jenkins
    session: str = ""  # X-Jenkins-Session, changes at every controller start
    quieting_down: bool = False
    items: tuple[QueueItem, ...] = ()
    computers: tuple[Computer, ...] = ()
    error: str = ""  # why it is not synced, for people
    odd_items: str = ""  # why some items could not be read: they are not among ``items``
    odd_computers: str = ""  # the same; of these nothing is known: ``is_unread``
    odd_names: frozenset[NodeName] = frozenset()  # theirs, where they could be read ...
    odd_nameless: bool = False  # ... and whether some could not: it may be any that is not here
    takes_work: Mapping[NodeName, bool] = Factory(dict)  # of those that were asked for it

    @property
    def odd(self) -> str:
        """Why some entries could not be read; empty if all could be."""
        return "; ".join(text for text in (self.odd_computers, self.odd_items) if text)

    @property
    def whole(self) -> bool:
        """What is not here does not exist."""
        return self.synced and not self.odd

    def is_unread(self, name: NodeName) -> bool:
        """Return whether a computer that is not among ``computers`` may exist all the same."""
        return self.odd_nameless or name in self.odd_names


@frozen(kw_only=True)
class BackendView:
    """What one read of a backend showed. ``synced`` False: unknown, never empty.

    ``hidden``: why a part of it has not been seen since we started. Of an instance that is neither
    here nor was ever seen nothing is known then. ``odd``: why some entries could not be read. Of
    whatever instance is not here nothing is known then.
    """

    synced: bool = False
    read_at: float = 0.0
    instances: tuple[backends_api.Instance, ...] = ()
    capacity: backends_api.Capacity | None = None
    error: str = ""
    hidden: str = ""
    odd: str = ""

    @property
    def whole(self) -> bool:
        """What is not here does not exist."""
        return self.synced and not self.hidden and not self.odd


# --- what is wanted ----------------------------------------------------------------------------


@frozen(kw_only=True)
class Retention:
    """When an agent may go. All limits that are set hold together; the first one reached wins."""

    once: bool = False  # exactly one build, then gone
    max_builds: int | None = None
    idle_s: float | None = 600.0  # idle longer than this and not needed; None: never for idleness
    max_age_s: float | None = None  # stronger than ``min_idle``


@frozen(kw_only=True)
class LaunchSettings:
    """How an agent of a template is started; ``spec`` turns it into an ``InstanceSpec``."""

    connection: jnlp_tunnel.Connection
    agent_url: str  # the controller's URL as agents see it, ends with "/"
    remote_fs: str | None = None  # None: the backend's working directory of the instance
    image: str | None = None
    command: tuple[str, ...] | None = None  # own program instead of agent.jar
    java: str = "java"
    jvm_options: tuple[str, ...] = ()
    heap_share: float = 0.25  # of the memory limit; the builds' own processes need the rest
    environment: Mapping[str, str] = Factory(dict)
    resources: backends_api.Resources = Factory(backends_api.Resources)
    reconnect_for_s: float | None = 600.0  # how long an agent tries to come back; None: for ever
    platform: Mapping[BackendName, Any] = Factory(dict)  # the backend's own template settings


@frozen(kw_only=True)
class Template:
    """A kind of agent."""

    name: TemplateName
    labels: frozenset[str]
    backends: tuple[BackendName, ...]  # in order: failure, set-aside or cap moves to the next
    revision: str  # changes with the definition; agents of an older one retire when idle
    executors: int = 1
    exclusive: bool = True  # only builds that ask for one of the labels
    takes_unlabelled: bool = False  # items without a label go here (needs ``exclusive`` False)
    start_early: bool = False  # start for items that are still in their quiet period
    paused: bool = False  # no new agents
    cap: int | None = None
    min_idle: int = 0  # of this moment: schedules are resolved before
    retention: Retention = Factory(Retention)
    connect_deadline_s: float = 300.0  # from launch, or from losing the connection, to online
    launch: LaunchSettings = field(
        repr=False,
        factory=lambda: LaunchSettings(connection=jnlp_tunnel.Connection(), agent_url="/"),
    )


@frozen(kw_only=True)
class BackendPolicy:
    """Limits of one backend."""

    cap: int | None = None  # agents in all
    max_starting: int | None = 20  # agents ordered and not yet online
    launch_rate: float = 10.0  # token bucket: launches per second ...
    launch_burst: int = 20  # ... and its size


@frozen(kw_only=True)
class Policy:
    """Everything a cycle needs to know about intent; made from the configuration."""

    owner: str
    templates: tuple[Template, ...]  # order is preference
    backends: Mapping[BackendName, BackendPolicy]
    cap: int | None = None
    max_starting: int | None = None
    placeholder: bool = True  # keep one never-connected node so that ``why`` names labels
    reservation_s: float = 60.0  # how long an idle agent may stay promised and not be taken
    orphan_grace_s: float = 30.0  # second sighting at least this much after the first
    yield_after_s: float = 60.0  # a label that waits this long on a shared cap gets a turn
    launch_timeout_s: float = 120.0  # one launch action: node, secret, instance
    backoff_base_s: float = 5.0
    backoff_max_s: float = 300.0
    rejected_retry_s: float = 600.0  # a template that the backend refuses is tried again after
    settle_s: float = 15.0  # the controller gives an idle agent its item within this
    resume_grace_s: float = 30.0  # after a (re)start: time for pipelines to ask for their nodes
    sweep_share: float = 0.5  # more than this share of all instances (and more than
    sweep_floor: int = 10  # this many) to sweep at once is implausible and refused
    draining: bool = False  # launch nothing, retire everything that is idle
    _by_name: Mapping[str, Template] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: {t.name: t for t in self.templates}, takes_self=True),
    )

    def template(self, name: str) -> Template | None:
        """The template of that name, if it is still configured."""
        return self._by_name.get(name)


# --- agents, joined ----------------------------------------------------------------------------


class Phase(enum.Enum):
    """Where an agent is in its life; derived every cycle by ``lifecycle``, never stored."""

    LAUNCHING = "launching"  # ordered; node or instance not visible yet
    CONNECTING = "connecting"  # node and instance exist, not online yet (or not again)
    IDLE = "idle"
    BUSY = "busy"
    DRAINED = "drained"  # taken out of service by us and empty: only the removal is left
    HELD = "held"  # taken out of service by somebody else: hands off
    LOST = "lost"  # will not come (back) online
    ORPHAN = "orphan"  # an instance without a node
    UNKNOWN = "unknown"  # a source is not synced
    GONE = "gone"


@frozen(kw_only=True)
class Memory:
    """What was seen of an agent in earlier cycles and cannot be seen again."""

    first_seen_at: float
    created_at: float | None = None
    online_at: float | None = None  # first time seen online
    online_witnessed: bool = False  # we saw it before it was online: its whole working life
    offline_at: float | None = None  # since when not online (connecting, lost)
    idle_at: float | None = None  # since when idle and online
    busy_session: str = ""  # controller session in which it was last seen busy
    builds: int = 0  # builds seen to start
    executable_urls: tuple[str, ...] = ()  # of the last sighting
    template: TemplateName | None = None
    backend: BackendName | None = None
    phase: Phase | None = None  # of the last cycle, only to check that changes are legal
    orphan_sightings: int = 0
    orphan_at: float | None = None
    promised_at: float | None = None  # a free slot, wanted by an item and nothing taken, since
    free_at: float | None = None  # online with a free slot and nothing taken, since
    closed_at: float | None = None  # the controller says that it gives it nothing, since ...
    closed_looks: int = 0  # ... and said so this often
    phase_at: float | None = None  # in ``phase`` since
    item: ItemId | None = None  # that it was started for
    item_cancelled: bool = False  # nobody runs it any more
    instance_seen: bool = False  # since we started
    removals: int = 0  # how often we tried to remove it, and it was there still


class Verb(enum.Enum):
    """What may be in flight for an agent."""

    LAUNCH = "launch"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    RETIRE = "retire"
    SWEEP = "sweep"


@frozen(kw_only=True)
class Expectation:
    """Something we did, or are doing, that the sources may not show yet."""

    verb: Verb
    name: NodeName
    template: TemplateName | None
    backend: BackendName | None
    since_at: float
    expires_at: float
    done_at: float | None = None  # the action has returned
    reason: str = ""
    item: ItemId | None = None  # of a launch: what it is for


@frozen(kw_only=True)
class Agent:
    """Node, computer, instance and our own intentions of one name, joined."""

    name: NodeName
    phase: Phase
    template: TemplateName | None = None
    backend: BackendName | None = None
    revision: str = ""
    created_at: float | None = None
    computer: Computer | None = None
    instance: backends_api.Instance | None = None
    expectation: Expectation | None = None
    memory: Memory | None = None
    cordoned: bool = False  # taken out of service by us, busy or not

    @property
    def in_flight(self) -> bool:
        """An action of ours is running or its effect is not visible yet."""
        return self.expectation is not None

    @property
    def closed(self) -> bool:
        """The controller gives it no work, by its own word at two looks in a row."""
        return self.memory is not None and self.memory.closed_looks >= CLOSED_LOOKS


class LabelSource(enum.Enum):
    """Where the label of an item was learnt, best first."""

    HOOK = "push hook"
    WHY = "why text"
    EXPRESSION = "labelExpression"
    REMEMBERED = "remembered for this item"
    SINGLE_NODE = "the single node that has it"
    NO_LABEL = "the item has no label"
    UNREADABLE = "not readable"


@frozen(kw_only=True)
class KnownLabel:
    """The label of an item: ``expression`` None with NO_LABEL or UNREADABLE."""

    source: LabelSource
    expression: str | None = None
    node: NodeName | None = None  # SINGLE_NODE: the node that the text names


# --- the ledger: what is remembered between cycles ---------------------------------------------


class Scope(enum.Enum):
    """What a back-off holds back."""

    CONTROLLER = "controller"  # it refuses to make nodes; ``backend`` is empty
    BACKEND = "backend"
    TEMPLATE = "template"


@frozen(kw_only=True)
class BackoffKey:
    """A whole backend, or one template on one backend."""

    scope: Scope
    backend: BackendName
    template: TemplateName | None = None


@frozen(kw_only=True)
class Backoff:
    """Why and until when something is left alone."""

    failures: int
    until_at: float
    reason: str
    slug: str  # metric label: the error's slug
    revision: str = ""  # of the template: a new definition is tried at once


@frozen(kw_only=True)
class Bucket:
    """Launch budget of a backend: a token bucket as a value."""

    tokens: float
    at: float


@frozen(kw_only=True)
class Ledger:
    """All that is remembered between cycles; a fresh one is always a correct start."""

    expectations: Mapping[NodeName, Expectation] = Factory(dict)
    memories: Mapping[NodeName, Memory] = Factory(dict)
    labels: Mapping[ItemId, KnownLabel] = Factory(dict)
    hooks: Mapping[ItemId, str | None] = Factory(dict)  # pushed labels; the hook comes later
    backoffs: Mapping[BackoffKey, Backoff] = Factory(dict)
    buckets: Mapping[BackendName, Bucket] = Factory(dict)
    session: str = ""  # controller session of the last synced read ...
    session_at: float | None = None  # ... and when it was first seen
    waits: Mapping[ItemId, float] = Factory(dict)  # first time seen blocked by a shared cap
    cycle: int = 0


@frozen(kw_only=True)
class World:
    """One observation, frozen."""

    now: float
    controller: ControllerView
    backends: Mapping[BackendName, BackendView]
    ledger: Ledger = Factory(Ledger)
    fresh_ids: tuple[str, ...] = ()  # unused random suffixes for new names
    jitter: float = 0.0  # 0 to 1, rolled by the shell: spreads what is retried


# --- the plan ----------------------------------------------------------------------------------


@frozen(kw_only=True)
class LaunchAgent:
    """Create a node, fetch its secret, launch its instance."""

    name: NodeName
    template: TemplateName
    backend: BackendName
    reason: str
    item: ItemId | None = None  # None: for the warm pool


@frozen(kw_only=True)
class CordonAgent:
    """Take an agent out of service while its build runs."""

    name: NodeName
    reason: str
    slug: str = "drained"  # metric label of the end that follows
    online: bool = True  # it could be given another item: old controllers need care


@frozen(kw_only=True)
class UncordonAgent:
    """Bring a node back into service."""

    name: NodeName
    reason: str


@frozen(kw_only=True)
class RetireAgent:
    """Cordon, read again, still idle? delete the node, terminate the instance."""

    name: NodeName
    backend: BackendName | None
    reason: str
    cordoned: bool = False  # already out of service and empty: nothing can be lost
    slug: str = "surplus"  # metric label


@frozen(kw_only=True)
class SweepNode:
    """Delete a node that has no instance and will never come online."""

    name: NodeName
    reason: str


@frozen(kw_only=True)
class SweepInstance:
    """Terminate an instance that has no node."""

    name: NodeName
    backend: BackendName
    reason: str


Action = LaunchAgent | CordonAgent | UncordonAgent | RetireAgent | SweepNode | SweepInstance


class WaitReason(enum.Enum):
    """Why an item waits; the value is the metric label and the API's word."""

    AGENT_IDLE = "agent-idle"  # an idle agent fits, the controller will give it the item
    AGENT_STARTING = "agent-starting"
    AGENT_ORDERED = "agent-ordered"
    AGENT_BUSY = "agent-busy"  # pinned to a node that works
    NOT_GIVEN = "not-given"  # idle agents fit, the controller does not give it to them
    CAP_TEMPLATE = "cap-template"
    CAP_BACKEND = "cap-backend"
    CAP_TOTAL = "cap-total"
    CAP_STARTING = "cap-starting"
    BUDGET = "launch-budget"
    BACKOFF = "back-off"
    SET_ASIDE = "set-aside"
    NO_ROOM = "no-room"  # the platform itself is full
    PAUSED = "paused"
    NO_TEMPLATE = "no-template"
    BAD_LABEL = "bad-label"
    LABEL_UNREADABLE = "label-unreadable"
    QUIET_PERIOD = "quiet-period"
    BLOCKED = "blocked"  # by another build or a resource: more agents do not help
    QUIETING_DOWN = "quieting-down"
    NOT_OURS = "not-ours"  # a node that is not ours will take it
    NOT_SYNCED = "not-synced"
    DRAINING = "draining"


@frozen(kw_only=True)
class Unmet:
    """An item that does not run yet, and why, for people."""

    item: ItemId
    reason: WaitReason
    text: str
    template: TemplateName | None = None
    agent: NodeName | None = None
    label: KnownLabel = field(default=KnownLabel(source=LabelSource.UNREADABLE))
    since_at: float = 0.0


@frozen(kw_only=True)
class Refusal:
    """Something that would have been done, and why it was not (sweeps, retirements, warm pool)."""

    subject: str
    text: str


@frozen(kw_only=True)
class TemplateCount:
    """The recount of one template in this cycle; all in slots but ``agents``."""

    demand: int = 0  # items that this template is to serve
    warm_target: int = 0
    idle: int = 0
    busy: int = 0
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
