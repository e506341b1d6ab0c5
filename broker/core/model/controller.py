"""The controller as one read of it showed: queue items, computers."""

import enum
from collections.abc import Mapping
from typing import NewType

from attrs import Factory, field, frozen

NodeName = NewType("NodeName", str)
"""Name of a Jenkins node, and of the backend's instance behind it: they are always the same."""


ItemId = NewType("ItemId", int)
"""Id of a queue item; survives a controller restart (recording ``controller/01-restart``)."""


class Stage(enum.Enum):
    """Where a queue item is (``_class`` of the item, ``hudson.model.Queue``)."""

    WAITING = "waiting"  # quiet period
    BLOCKED = "blocked"
    BUILDABLE = "buildable"
    PENDING = "pending"  # given to an executor that has not started yet

    __hash__ = object.__hash__  # as of ``Phase``


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
    only_steps: bool = False  # all that runs shows itself as a block of a Pipeline
    labels: frozenset[str] = frozenset()  # includes the node's own name
    description: str = ""
    kind: frozenset[str] = field(  # the labels without its own name: what it has in common
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: self.labels - {self.name}, takes_self=True),
    )


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
    releases: bool = False  # a node can be deleted so that Pipeline's steps on it end at once

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
class QueueEvent:
    """What the push hook told of an item, the last time; times are on the broker's clock."""

    id: ItemId
    at: float  # when the controller saw it happen
    stage: Stage | None = None  # None: it has left the queue
    label: str | None = None  # exactly; None: it has none, or it has left
    flyweight: bool = False  # it needs no executor of an agent
    task_class: str = ""
    task_name: str = ""
    task_url: str = ""
    in_queue_since_at: float = 0.0
    idle: int | None = None  # executors of its label that were free a moment later, if counted
    cancelled: bool = False  # it has left, and nobody runs it
    node: NodeName | None = None  # it has left: where it was given an executor
    causes: tuple[str, ...] = ()  # who or what began the build, in words


class LabelSource(enum.Enum):
    """Where the label of an item was learnt, best first."""

    HOOK = "push hook"
    WHY = "why text"
    EXPRESSION = "labelExpression"
    REMEMBERED = "remembered for this item"
    SINGLE_NODE = "the single node that has it"
    NO_LABEL = "the item has no label"
    UNREADABLE = "not readable"

    __hash__ = object.__hash__  # as of ``Phase``


@frozen(kw_only=True)
class KnownLabel:
    """The label of an item: ``expression`` None with NO_LABEL or UNREADABLE."""

    source: LabelSource
    expression: str | None = None
    node: NodeName | None = None  # SINGLE_NODE: the node that the text names
