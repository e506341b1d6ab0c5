"""What the simulated controller is made of: items, executors, nodes, and its refusals.

Plain values that ``simulation`` moves; refuse to know what moves them.
"""

import enum
import math
from collections.abc import Callable

from attrs import Factory, define, field, frozen

from broker.simulator import labels

HANDOVER_S = 0.0008
"""From assignment to start: the rest of a queue run. Measured on 2.263.4: of 250 items sent within
7 ms around an offline mark 25 were lost, with 300 others waiting 11 of 200 within 14 ms."""
SWAP_S = 0.0001
"""How long a node is not there while its ``config.xml`` is replaced (measured: 1 build of 250
within 14 ms failed, and 1 of 100)."""
DISCONNECT_S = 0.002
"""How long it takes the controller to close a connection, once it has decided to (guessed)."""
PIPELINE_WAITS_S = 300.0
"""How long a pipeline step waits for a node that was deleted (recording ``nodes/09``), or whose
agent went away, unless it is deleted as single-use: then it ends at once (measured on 2.541.3)."""
LEFT_KEPT_S = 300.0
"""How long a left item can be asked for (``hudson/model/Queue.java``)."""


NO_FORM = "This page expects a form submission"
"""What the servlet container says to ``doCreateItem`` without a form (recording ``nodes/02``)."""


class ItemClass(enum.Enum):
    """Where an item is."""

    WAITING = "WaitingItem"
    BLOCKED = "BlockedItem"
    BUILDABLE = "BuildableItem"
    PENDING = "pending"  # a BuildableItem with ``pending``
    LEFT = "LeftItem"


class Fate(enum.Enum):
    """What became of an item."""

    OPEN = "open"  # in the queue or building
    DONE = "done"
    FAILED = "failed"  # a build that did not end well: visible, red
    LOST = "lost"  # dropped without a trace
    CANCELLED = "cancelled"


class TaskKind(enum.Enum):
    """What kind of task an item is of; they tell different things of themselves."""

    FREESTYLE = "freestyle"
    PIPELINE = "pipeline"  # a ``node`` block
    MATRIX = "matrix"  # a cell


class SimulatedRefusal(Exception):  # noqa: N818 -- what it is
    """The controller says no: an HTTP status and, for some, a text (header ``X-Error``)."""

    def __init__(self, status: int, text: str = "") -> None:
        """``status`` as recorded."""
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text


@define(kw_only=True, eq=False)
class Item:
    """One queue item and the build that it becomes."""

    id: int
    job: str
    kind: TaskKind
    label: str | None
    cell: str  # of a matrix: its axes
    duration_s: float
    concurrent: bool
    retries: int = 0  # of a pipeline's block, on another agent: ``retry(conditions: [agent()])``
    in_queue_since: float
    quiet_until: float
    stage: ItemClass
    number: int
    era: labels.Era
    fate: Fate = Fate.OPEN
    buildable_since: float | None = None
    blocked_by: int | None = None  # build number of its own job
    node: str | None = None
    pinned: str | None = None  # a pipeline that must go on with this node
    started_at: float | None = None
    node_since: float | None = None  # when the node that runs it had connected
    ended_at: float | None = None
    left_at: float | None = None
    is_overdue: bool = False  # a pipeline's step that has ended while its agent was away

    @property
    def wanted(self) -> labels.LabelReading | None:
        """The label as the controller reads it."""
        return None if self.label is None else labels.of(self.label, self.era)

    def fits(self, node: "Node") -> bool:
        """Return whether a node may run it, online or not."""
        if self.pinned is not None:
            return node.name == self.pinned
        wanted = self.wanted
        if wanted is None:
            return not node.exclusive
        return wanted.fits(node.labels | {node.name})


@define(kw_only=True, eq=False)
class Slot:
    """One executor."""

    item: Item | None = None
    running: bool = False  # False with an item: assigned, its thread has not started yet


@define(kw_only=True, eq=False)
class Node:
    """A node and its computer."""

    name: str
    labels: frozenset[str]
    executors: int = 1
    exclusive: bool = True
    scheduled: bool = False  # by a schedule that never comes
    single_use: bool = False  # Pipeline ends the steps on it when it is deleted
    accepting: bool = True  # of the live side, until the next start
    description: str = ""
    remote_fs: str = ""
    tunnel: str = ""
    websocket: bool = False
    built_in: bool = False
    properties: str | None = None  # as they were last written in its ``config.xml``
    kept: bool = False  # when Configuration as Code is loaded again
    connected: bool = False
    connected_at: float | None = None  # the last time
    parted_at: float | None = None  # likewise
    offline_message: str | None = None  # temporarily offline
    offline_by: str = ""  # the user who said so
    offline_at: float | None = None
    launch_failed: bool = False  # somebody pressed "launch" on it
    swapped_at: float = -math.inf  # its configuration was replaced
    slots: list[Slot] = Factory(list)

    @property
    def online(self) -> bool:
        """Connected and in service."""
        return self.connected and self.offline_message is None

    @property
    def idle(self) -> bool:
        """No executor has an item, not even an assigned one."""
        return all(slot.item is None for slot in self.slots)


@frozen(order=True)
class Due:
    """Something that happens when its time has come."""

    at: float
    order: int
    what: Callable[[float], None] = field(order=False)
