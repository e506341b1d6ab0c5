"""Supply that is none: executors that the controller does not use for some of what waits.

Whatever refuses, with words or without: neither is nothing ordered for ever, nor one agent a
minute, and what can be served beside it is served as before.
"""

import asyncio
import collections
import functools

import attrs
import pytest

from broker.core import model
from broker.loop import pace
from broker.simulator import inventory
from tests.loop.daemons import Daemon, template

pytestmark = pytest.mark.looptime
SAYS = "Already running 1 builds across all nodes"
LASTING = model.Retention(idle_s=60.0)
ONCE = model.Retention(once=True, idle_s=60.0)
WINDOW_S = 600.0


class Refusing(Daemon):
    """The controller's plugins refuse some items to nodes; ``says`` is what the queue tells."""

    def __init__(self, *templates, refuses, says):
        super().__init__(*templates, pace=pace.Pace(busy_s=5.0, idle_s=10.0))
        self.tick_s = 1.0
        self.refuses, self.says = refuses, says
        self.sim.create_node(0.0, inventory.Node(name="built-in", labels=frozenset()))
        self.sim._assign = self._assign
        self._read, self.controller.read = self.controller.read, self._read_with_words
        self.launches = []  # in each window

    def _free(self, item):
        nodes = (node for node in self.sim.all_nodes() if self.sim.takes(node) and item.fits(node))
        for node in nodes:
            slot = next((slot for slot in node.slots if slot.item is None), None)
            if slot is not None:
                yield node, slot

    def _assign(self, item, now):
        for node, slot in self._free(item):
            if not self.refuses(self.sim, item, node):
                slot.item, slot.running = item, False
                item.stage, item.node = inventory.ItemClass.PENDING, node.name
                begin = functools.partial(self.sim._begin, item, node, slot)
                self.sim.at(now + self.sim.handover_s, begin)
                return

    async def _read_with_words(self, now, *, to_order=False):
        view = await self._read(now, to_order=to_order)
        if not self.says:
            return view
        return attrs.evolve(view, items=tuple(self._worded(item) for item in view.items))

    def _worded(self, item):
        asked = self.sim.items[item.id]
        free = list(self._free(asked))
        refused = all(self.refuses(self.sim, asked, node) for node, _ in free)
        if item.stage is model.Stage.BUILDABLE and free and refused:
            return attrs.evolve(item, why=f"{self.says}; ‘built-in’ doesn’t have label ‘t’")
        return item

    async def watch_for(self, windows):
        """Let time pass; note how many agents were started in each window."""
        for _ in range(windows):
            before = self.loop.state.launches
            await asyncio.sleep(WINDOW_S)
            self.launches.append(self.loop.state.launches - before)

    def fates(self):
        return collections.Counter((i.job, i.fate.value) for i in self.sim.items.values())

    def submit_as(self, *jobs, duration_s=60.0):
        for job in jobs:
            self.sim.submit(self.watch.now(), job=job, label="t", duration_s=duration_s)


def throttled(sim, item, _):
    slots = (slot for node in sim.all_nodes() for slot in node.slots)
    return sum(slot.item is not None and slot.item.job == item.job for slot in slots) >= 1


def never(_, item, __):
    return item.job.startswith("x")


@pytest.mark.parametrize("says", [SAYS, pytest.param("", marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "jobs", [pytest.param(("x",) * 3, marks=pytest.mark.soak), ("x1", "x2", "x3")]
)
async def test_what_nobody_may_run_is_tried_by_one_agent_from_time_to_time(jobs, says):
    """They come, are refused, and go; after that one comes every ten minutes."""
    async with Refusing(template(retention=LASTING), refuses=never, says=says) as made:
        made.submit_as(*jobs)
        await made.watch_for(3)
        first, *then = made.launches
        assert (first, then) == (3, [1, 1])
        assert made.notes.results["retire", "withdrawn"] <= 3  # nobody is judged in vain for ever


@pytest.mark.parametrize("retention", [LASTING, pytest.param(ONCE, marks=pytest.mark.soak)])
async def test_throttled_builds_have_the_agents_that_they_need(retention):
    """One at a time: all run, and no more agents come than builds, once that is known."""
    async with Refusing(template(retention=retention), refuses=throttled, says=SAYS) as made:
        made.submit_as(*["heavy"] * 6)
        await made.watch_for(1)
        assert made.fates() == {("heavy", "done"): 6}
        assert made.launches[0] <= 7 + (4 if retention is ONCE else 0)


@pytest.mark.soak
@pytest.mark.parametrize("says", [SAYS, ""])
async def test_what_can_be_served_beside_it_is(says):
    """An agent for each that is wanted, and none of them is counted for what is refused."""
    async with Refusing(template(retention=ONCE), refuses=never, says=says) as made:
        made.submit_as(*["x"] * 5)
        await made.watch_for(1)
        for _ in range(5):
            made.submit_as("y", duration_s=20.0)
            await asyncio.sleep(WINDOW_S / 5)
        assert made.fates()["y", "done"] == 5
        assert made.loop.state.launches - made.launches[0] <= 5 + 1


async def test_what_is_allowed_at_last_is_served_at_once():
    """One agent tries it, is given work, and the others follow."""
    async with Refusing(template(retention=ONCE), refuses=never, says=SAYS) as made:
        made.submit_as(*["x"] * 4)
        await made.watch_for(1)
        made.refuses = lambda *_: False
        await made.watch_for(1)
        assert made.fates() == {("x", "done"): 4}
        assert made.launches[1] == 4
