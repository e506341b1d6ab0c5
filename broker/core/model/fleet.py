"""Agents: what a backend showed, where one is in its life, what is remembered of it."""

import enum

from attrs import frozen

from backends import api as backends_api
from broker.core.model.causes import Cause
from broker.core.model.controller import Computer, ItemId, NodeName
from broker.core.model.wanted import BackendName, Check, TemplateName

CORDON_MARK = "agent-broker:"
"""How the offline message of a node begins when we took it out of service."""
HOLD_MARK = "agent-broker holds it"
"""How it begins when a person has it held: out of service, and it stays."""


CLOSED_LOOKS = 2
"""One look may fall between the end of a build and the start of the next."""


RETIRED_LABEL = "agent-broker-retired"
"""By this label everybody knows a node that was sealed; its offline message stays empty."""


def retired_labels(cause: Cause) -> tuple[str, str]:
    """Return the labels of a sealed node; the second one tells why it goes."""
    return RETIRED_LABEL, f"{RETIRED_LABEL}-{cause.slug}"


def check_slug(check: Check) -> str:
    """Return what stands in a node's offline message, or among its labels, until a check passes.

    It is no slug of a ``Cause``: the agent does not go.
    """
    return f"{check.value}-check-due"


def check_label(check: Check) -> str:
    """Return the label of a node that is sealed until a check passes, on old controllers."""
    return f"agent-broker-{check_slug(check)}"


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


class Phase(enum.Enum):
    """Where an agent is in its life; derived every cycle by ``lifecycle``, never stored."""

    LAUNCHING = "launching"  # ordered; node or instance not visible yet
    CONNECTING = "connecting"  # node and instance exist, not online yet (or not again)
    CHECKING = "checking"  # taken out of service by us until a check of it has passed
    IDLE = "idle"
    BUSY = "busy"
    DRAINED = "drained"  # taken out of service by us and empty: only the removal is left
    HELD = "held"  # taken out of service by somebody else: hands off
    LOST = "lost"  # will not come (back) online
    ORPHAN = "orphan"  # an instance without a node
    UNKNOWN = "unknown"  # a source is not synced
    GONE = "gone"

    __hash__ = object.__hash__  # a plan asks for it more than anything else; Enum's is slow


@frozen(kw_only=True)
class Memory:
    """What was seen of an agent in earlier cycles and cannot be seen again."""

    first_seen_at: float
    created_at: float | None = None
    online_at: float | None = None  # first time seen online
    whole: bool = False  # it was online with all of its instance at work
    flawed: bool = False  # a part of its instance was seen to be no good
    mishap: backends_api.Mishap | None = None  # the last that was seen to befall its instance
    usage: backends_api.Usage | None = None  # the last that was told of its instance
    online_witnessed: bool = False  # we saw it before it was online: its whole working life
    offline_at: float | None = None  # since when not online (connecting, lost)
    idle_at: float | None = None  # since when idle and online
    busy_session: str = ""  # controller session in which it was last seen busy
    builds: int = 0  # builds seen to start
    executable_urls: tuple[str, ...] = ()  # of the last sighting
    template: TemplateName | None = None
    backend: BackendName | None = None
    slot: int | None = None
    phase: Phase | None = None  # of the last cycle, only to check that changes are legal
    orphan_sightings: int = 0  # of views that are newer than the last ones
    orphan_at: float | None = None
    orphan_read_at: float | None = None  # when the older view of the last sighting was begun
    failed_at: float | None = None  # its launch: what was read before says nothing of it
    nominated_at: float | None = None  # a free slot, wanted by an item and nothing taken, since
    free_at: float | None = None  # online with a free slot and nothing taken, since
    closed_at: float | None = None  # the controller says that it gives it nothing, since ...
    closed_looks: int = 0  # ... and said so this often
    phase_at: float | None = None  # in ``phase`` since
    item: ItemId | None = None  # that it was started for
    item_cancelled: bool = False  # nobody runs it any more
    item_asked: bool = False  # what became of it
    named: tuple[str, ...] = ()  # the URLs of the last builds that were seen
    told: tuple[str, ...] = ()  # of builds that count because it was asked, and were not seen
    untold: int = 0  # of ``builds``: seen to run, and which item that was is not known
    glanced_at: float | None = None  # when it was seen at its first build between two looks
    unseen: int = 0  # builds that it may have had besides, between two looks
    supposed: bool = False  # one of them is counted as its first, until it is seen at another
    checked: int | None = None  # of ``builds``: before its last dirty check; None: none is known
    instance_seen: bool = False  # since we started
    removals: int = 0  # how often we tried to remove it, and it was there still
    deleted_at: float | None = None  # its node, by us: what is read from then on has none ...
    terminated_at: float | None = None  # ... and the same of its instance


@frozen(kw_only=True)
class AgentFate:
    """How an agent fared where it ran, as ``places`` judges it."""

    backend: BackendName
    place: str
    template: TemplateName
    revision: str
    asked: frozenset[str] = frozenset()  # of a variant of the template
    at: float  # when it was seen
    came: bool  # it was online
    bad: str = ""  # what it ended of, too soon; "": it fared well


@frozen(kw_only=True)
class BuildFate:
    """How a build fared on an agent, as ``builds`` judges it."""

    backend: BackendName
    place: str
    agent: NodeName
    job: str  # a digest of its address: a name is nobody's business here
    since_at: float  # when it was first seen
    bad: bool = False  # it failed, and soon


class Verb(enum.Enum):
    """What may be in flight for an agent."""

    LAUNCH = "launch"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    CHECK = "check"
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
    asked: frozenset[str] = frozenset()  # of a launch: the labels of a variant
    slot: int | None = None  # of a launch
    check: Check | None = None  # of a cordon: until that has passed, and the agent stays
    hold: bool = False  # of a cordon: by the order of a person, and the agent stays


@frozen(kw_only=True)
class Agent:
    """Node, computer, instance and our own intentions of one name, joined."""

    name: NodeName
    phase: Phase
    template: TemplateName | None = None
    backend: BackendName | None = None
    asked: frozenset[str] = frozenset()  # labels beside the template's: of a variant
    revision: str = ""
    created_at: float | None = None
    computer: Computer | None = None
    instance: backends_api.Instance | None = None
    absent: bool = False  # without an instance, by the word of its backend, of which all is seen
    expectation: Expectation | None = None
    memory: Memory | None = None
    cordoned: bool = False  # taken out of service by us for good, busy or not
    check: Check | None = None  # taken out of service by us until this has passed, busy or not

    @property
    def in_flight(self) -> bool:
        """An action of ours is running or its effect is not visible yet."""
        return self.expectation is not None

    @property
    def slot(self) -> int | None:
        """The number that no other agent of its template gets while it is there."""
        flight = self.expectation.slot if self.expectation is not None else None
        return self.memory.slot if self.memory is not None and flight is None else flight

    @property
    def closed(self) -> bool:
        """The controller gives it no work, by its own word at two looks in a row."""
        return self.memory is not None and self.memory.closed_looks >= CLOSED_LOOKS
