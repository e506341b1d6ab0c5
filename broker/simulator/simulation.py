"""A simulated Jenkins controller as a plain machine: queue, nodes, scheduler, time as a number.

It behaves as the recordings of a real one show, as far as an agent provisioner can tell: items go
through quiet period, blocked, buildable and pending; executors take them by label; an assignment
takes a moment, and a node that goes offline within that moment loses the item without a trace
before weekly 2.517 / LTS 2.528.1; a node whose configuration is replaced is for a moment not
there, and a build that starts just then fails; builds fail when their agent goes. Deterministic:
no clock, no dice, no loop; every method takes ``now`` in POSIX seconds. Refuses to know HTTP, JSON
and words (``documents`` and ``why`` do), and the broker.
"""

import functools
import heapq
import itertools
import math
from collections.abc import Callable

from broker.simulator import inventory, labels
from broker.simulator.inventory import (
    Fate,
    Item,
    ItemClass,
    Node,
    SimulatedRefusal,
    Slot,
    TaskKind,
)
from jnlp import version as jnlp_version

__all__ = [
    "Fate",
    "Item",
    "ItemClass",
    "Node",
    "SimulatedRefusal",
    "Simulation",
    "Slot",
    "TaskKind",
]


class Simulation:
    """The machine. Call ``advance`` before reading it at a later time."""

    def __init__(
        self,
        *,
        version: str = "2.528.3",
        built_in_executors: int = 0,
        handover_s: float = inventory.HANDOVER_S,
        casc: str = "",
        durable_task: bool = True,
    ) -> None:
        """``casc``: Configuration as Code is not there, "old", or "new" (it may keep nodes).

        ``durable_task``: the plugin is there, and with it Pipeline.
        """
        self.version = version
        self.handover_s = handover_s
        self.casc = casc
        self.durable_task = durable_task
        self.session = "s1"
        self.down_until = 0.0
        self.quieting_down = False
        self.nodes: dict[str, Node] = {}
        self.ghosts: dict[str, Node] = {}  # deleted nodes whose pipelines still hold on
        self.items: dict[int, Item] = {}  # all there ever were, with their fates
        self.wanted: list[Item] = []  # those in the queue, oldest first
        self.on_gone: Callable[[str, str], None] = lambda _name, _why: None
        # a queue's listener: told of an item that has entered a stage, or has left
        self.tell: Callable[[Item, float], None] = lambda _item, _now: None
        self._ids = itertools.count(1)
        self._numbers: dict[str, int] = {}
        self._order = itertools.count()
        self._timers: list[inventory.Due] = []
        self._refuses_by_schedule = jnlp_version.schedule_only_refuses(version)
        self._era = labels.Era.of(version)
        self._keeps_items = jnlp_version.safe_to_retire_by_offline(version)
        name = "master" if not jnlp_version.at_least(version, (2, 307), (2, 319, 1)) else ""
        self.built_in = Node(
            name=name or "Built-In Node",
            labels=frozenset({"master"} if name else {"built-in"}),
            executors=built_in_executors,
            exclusive=False,
            built_in=True,
            connected=True,
            slots=[Slot() for _ in range(built_in_executors)],
        )

    # --- time ---

    def next_at(self) -> float | None:
        """Return when something is due next."""
        return self._timers[0].at if self._timers else None

    def advance(self, now: float) -> None:
        """Do everything that is due, in order."""
        while self._timers and self._timers[0].at <= now:
            due = heapq.heappop(self._timers)
            due.what(due.at)

    def at(self, at: float, what: Callable[[float], None]) -> None:
        """Let something happen when that time has come, be it in the midst of something else."""
        heapq.heappush(self._timers, inventory.Due(at, next(self._order), what))

    # --- jobs ---

    def submit(  # noqa: PLR0913 -- what a job is, by keyword
        self,
        now: float,
        *,
        job: str = "job",
        label: str | None = None,
        cell: str | None = None,
        duration_s: float = 1.0,
        kind: TaskKind = TaskKind.FREESTYLE,
        quiet_s: float = 0.0,
        concurrent: bool = True,
        retries: int = 0,
    ) -> int:
        """Put a build into the queue; return the item's id."""
        self.advance(now)
        number = self._numbers[job] = self._numbers.get(job, 0) + 1
        item = Item(
            id=next(self._ids),
            job=job,
            kind=kind,
            label=label,
            cell=cell or f"label={label}",
            duration_s=duration_s,
            concurrent=concurrent,
            retries=retries,
            in_queue_since=now,
            quiet_until=now + quiet_s,
            stage=ItemClass.WAITING,
            number=number,
            era=self._era,
        )
        self.items[item.id] = item
        self.wanted.append(item)
        self.tell(item, now)
        if quiet_s > 0:
            self.at(item.quiet_until, self.maintain)
        self.maintain(now)
        return item.id

    def waiting_for(self, job: str) -> Item | None:
        """Return a job's item in the queue, if any."""
        return next(
            (i for i in self.wanted if i.job == job and i.stage is not ItemClass.PENDING), None
        )

    def cancel(self, now: float, item_id: int) -> None:
        """Cancel a queued item. Raises ``SimulatedRefusal``: 404 unknown, 500 twice."""
        self.advance(now)
        item = self.items.get(item_id)
        if item is None:
            raise SimulatedRefusal(404)
        if item.stage is ItemClass.LEFT:
            raise SimulatedRefusal(500)
        for node in self.all_nodes():
            for slot in node.slots:
                if slot.item is item:  # assigned, its thread has not started yet
                    slot.item = None
        self._leave(item, now)
        item.fate = Fate.CANCELLED

    def _leave(self, item: Item, now: float) -> None:
        self.wanted.remove(item)
        item.stage = ItemClass.LEFT
        item.left_at = now
        self.tell(item, now)

    # --- the scheduler ---

    def maintain(self, now: float) -> None:
        """One run of the queue: move items on and hand them to executors."""
        for item in list(self.wanted):
            before = item.stage
            if item.stage is ItemClass.WAITING and now >= item.quiet_until:
                item.stage, item.buildable_since = ItemClass.BUILDABLE, now
            if item.stage in {ItemClass.BUILDABLE, ItemClass.BLOCKED}:
                item.blocked_by = None if item.concurrent else self._running_of(item.job)
                item.stage = ItemClass.BUILDABLE if item.blocked_by is None else ItemClass.BLOCKED
            if item.stage is not before:
                self.tell(item, now)
            if (
                item.stage is ItemClass.BUILDABLE
                and not self.quieting_down
                and not self.is_down(now)
            ):
                self._assign(item, now)

    def _running_of(self, job: str) -> int | None:
        for node in self.all_nodes():
            for slot in node.slots:
                if slot.item is not None and slot.item.job == job:
                    return slot.item.number
        return None

    def _assign(self, item: Item, now: float) -> None:
        for node in self.all_nodes():
            slot = next((s for s in node.slots if s.item is None), None)
            if slot is not None and self.takes(node) and item.fits(node):
                slot.item, slot.running = item, False
                item.stage, item.node = ItemClass.PENDING, node.name
                begin = functools.partial(self._begin, item, node, slot)
                self.at(now + self.handover_s, begin)
                return

    def takes(self, node: Node) -> bool:
        """Return whether the controller gives a node work, if it has a free executor."""
        refuses = node.scheduled and self._refuses_by_schedule
        return node.online and node.accepting and not refuses

    def _begin(self, item: Item, node: Node, slot: Slot, now: float) -> None:
        """The executor's thread looks at its node once more."""
        if slot.item is not item or item.stage is not ItemClass.PENDING:
            return
        if node.online and (node.built_in or self.nodes.get(node.name) is node):
            self._leave(item, now)
            slot.running = True
            item.started_at, item.node_since = now, node.connected_at
            if now < node.swapped_at + inventory.SWAP_S:  # "no longer a configured node for NAME"
                self._finish(item, node, slot, now, fate=Fate.FAILED)
                return
            self.at(now + item.duration_s, functools.partial(self._finish, item, node, slot))
            return
        slot.item = None
        item.node = None
        if self._keeps_items:
            item.stage = ItemClass.BUILDABLE
            self.maintain(now)
        else:
            self._leave(item, now)
            item.fate = Fate.LOST

    def _finish(
        self, item: Item, node: Node, slot: Slot, now: float, *, fate: Fate = Fate.DONE
    ) -> None:
        if slot.item is not item:
            return
        if not node.connected and fate is Fate.DONE:
            item.is_overdue = True  # nobody can tell the controller yet
            return
        slot.item, slot.running = None, False
        item.ended_at = now
        item.fate = fate
        self.maintain(now)

    def _kill_builds(self, node: Node, now: float, *, but: TaskKind | None = None) -> None:
        for slot in node.slots:
            if slot.item is not None and slot.running and slot.item.kind is not but:
                slot.item.fate = Fate.FAILED
                slot.item.ended_at = now
                self._try_again(slot.item, now)
                slot.item, slot.running = None, False

    def _try_again(self, item: Item, now: float) -> None:
        """Let a pipeline's block wait for another agent, as its ``retry`` wants it."""
        if item.kind is TaskKind.PIPELINE and item.retries:
            self.at(now, functools.partial(self._submit_again, item))

    def _submit_again(self, item: Item, now: float) -> None:
        self.submit(
            now,
            job=item.job,
            label=item.label,
            duration_s=item.duration_s,
            kind=item.kind,
            retries=item.retries - 1,
        )

    def _lose_channel(self, node: Node, now: float) -> bool:
        """Fail what builds there; return whether a pipeline's step holds on, for minutes."""
        node.connected, node.parted_at = False, now
        is_released = node.single_use and node.name not in self.nodes
        self._kill_builds(node, now, but=None if is_released else TaskKind.PIPELINE)
        holds = any(slot.running for slot in node.slots)
        if holds:
            self.at(now + inventory.PIPELINE_WAITS_S, functools.partial(self._give_up, node, now))
        return holds

    # --- nodes ---

    def all_nodes(self) -> list[Node]:
        """Return every node, the controller's own first."""
        return [self.built_in, *self.nodes.values()]

    def node(self, name: str) -> Node:
        """Return a node. Raises ``SimulatedRefusal`` with 404."""
        node = self.nodes.get(name)
        if node is None or not node.slots:  # without executors it has no computer to act on
            raise SimulatedRefusal(404)
        return node

    def computer(self, name: str) -> Node:
        """Return a node, or what is left of its computer. Raises ``SimulatedRefusal``: 404."""
        node = self.ghosts.get(name) or self.node(name)
        if not node.slots:
            raise SimulatedRefusal(404)
        return node

    def create_node(self, now: float, node: Node) -> None:
        """Add a node; its checks are those of the caller that knows the form."""
        self.advance(now)
        node.slots = [Slot() for _ in range(max(0, node.executors))]
        self.nodes[node.name] = node
        self.maintain(now)

    def configure(
        self,
        now: float,
        name: str,
        *,
        wanted: frozenset[str],
        exclusive: bool = True,
        scheduled: bool = False,
        single_use: bool = False,
        executors: int | None = None,
    ) -> None:
        """Replace labels, mode and schedule; what is assigned stays assigned.

        Out of its hours a node takes nothing. Before 2.440 the controller tells that to busy ones
        only, and closes the connection of an idle one, a moment later.
        """
        self.advance(now)
        node = self.node(name)
        node.labels, node.exclusive, node.scheduled = wanted, exclusive, scheduled
        node.single_use = single_use and self.durable_task
        node.executors = node.executors if executors is None else executors
        node.swapped_at = now
        if scheduled and not self._refuses_by_schedule and node.connected and node.accepting:
            if node.idle:
                self.at(now + inventory.DISCONNECT_S, lambda then: self._part(node, then))
            else:
                node.accepting = False
        self.maintain(now)

    def delete_node(self, now: float, name: str) -> None:
        """Remove a node; what builds on it fails, what was just assigned is undone.

        A pipeline's step waits for minutes, and its computer with it (recordings ``nodes/07``
        and ``nodes/09``).
        """
        self.advance(now)
        node = self.node(name)
        del self.nodes[name]
        if self._lose_channel(node, now):
            node.labels, node.executors, node.description = frozenset(), 0, ""
            node.slots = [slot for slot in node.slots if slot.running]
            self.ghosts[name] = node
        self.on_gone(name, "deleted")
        self.maintain(now)

    def _give_up(self, node: Node, parted_at: float, now: float) -> None:
        if node.connected or node.parted_at != parted_at:
            return
        self._kill_builds(node, now)
        if self.ghosts.get(node.name) is node:
            del self.ghosts[node.name]

    def rename(self, now: float, name: str, new: str) -> None:
        """Give a node another name: another computer, whose agent has yet to come."""
        self.advance(now)
        node = self.node(name)
        del self.nodes[name]
        self._kill_builds(node, now)
        node.name, node.connected = new, False
        self.nodes[new] = node
        self.on_gone(name, "deleted")
        self.maintain(now)

    def take_offline(self, now: float, name: str, message: str, *, by: str = "broker") -> None:
        """Mark temporarily offline, or change the message (``changeOfflineCause``)."""
        self.advance(now)
        node = self.node(name)
        node.offline_message, node.offline_by, node.offline_at = message, by, now

    def toggle(self, now: float, name: str, message: str, *, by: str = "broker") -> None:
        """Flip temporarily offline (``toggleOffline``)."""
        if self.node(name).offline_message is None:
            self.take_offline(now, name, message, by=by)
            return
        self.advance(now)
        self.node(name).offline_message = None
        self.maintain(now)

    def connect(self, now: float, name: str) -> None:
        """An agent comes. Raises ``SimulatedRefusal``: 404 no such node, 400 connected."""
        self.advance(now)
        node = self.node(name)
        if node.connected:
            raise SimulatedRefusal(400, f"{name} is already connected to this controller")
        node.connected, node.connected_at, node.launch_failed = True, now, False
        for slot in node.slots:
            if slot.item is not None and slot.item.is_overdue:
                self._finish(slot.item, node, slot, now)
        self.maintain(now)

    def disconnect(self, now: float, name: str) -> None:
        """The channel of an agent closes: its builds fail, pipelines wait for it."""
        self.advance(now)
        node = self.nodes.get(name)
        if node is None or not node.connected:
            return
        self._lose_channel(node, now)
        self.maintain(now)

    def _part(self, node: Node, now: float) -> None:
        if self.nodes.get(node.name) is node:
            self.disconnect(now, node.name)
            self.on_gone(node.name, "disconnect")

    # --- the controller itself ---

    def is_down(self, now: float) -> bool:
        """Return whether it is starting up (503 on every path)."""
        return now < self.down_until

    def quiet_down(self, now: float, *, on: bool = True) -> None:
        """Prepare for a shut-down, or take it back."""
        self.advance(now)
        self.quieting_down = on
        self.maintain(now)

    def restart(self, now: float, *, down_s: float) -> None:
        """Go down and come back: channels close, the queue and the nodes stay.

        Freestyle builds are dead; a pipeline goes on and asks for exactly the node it ran on.
        """
        self.advance(now)
        self.session = f"s{int(self.session[1:]) + 1}"
        self.down_until = now + down_s
        self.quieting_down = False
        if any(node.single_use and node.executors > 0 for node in self.nodes.values()):
            self.down_until = math.inf  # it does not come up again: ``jnlp.node.as_single_use``
        self.wanted.reverse()  # the queue is read back so (recording ``controller/01``)
        for node in self.nodes.values():
            for slot in node.slots:
                if slot.item is not None:
                    self._resume_later(slot, now)
            node.connected, node.connected_at, node.accepting = False, None, True
            if node.executors < 1:
                node.slots = []  # it has no computer now
            self.on_gone(node.name, "restart")
        self.at(self.down_until, self.maintain)

    def _resume_later(self, slot: Slot, now: float) -> None:
        item = slot.item
        running = slot.running
        slot.item, slot.running = None, False
        if item is None:
            return
        if not running:  # assigned only: still in the saved queue
            item.stage, item.node = ItemClass.BUILDABLE, None
        elif item.kind is TaskKind.PIPELINE and item.started_at is not None:
            item.pinned = item.node
            item.duration_s = max(0.0, item.duration_s - (now - item.started_at))
            item.stage, item.left_at = ItemClass.BUILDABLE, None
            self.wanted.append(item)
        else:
            item.fate, item.ended_at = Fate.FAILED, now
