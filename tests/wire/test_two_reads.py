"""Queue and computers are two reads; an item may become a build between them."""

import pytest

from broker.controller import reading
from broker.core import model
from broker.loop import observe
from broker.simulator import simulation
from tests.wire import test_controller_faults as faults


class Between(reading.Reader):
    """Lets something happen after the first of the two reads."""

    def __init__(self, session, happens):
        super().__init__(session)
        self._happens = [happens]

    async def _computers(self):
        answer = await super()._computers()
        self._happen()
        return answer

    async def _queue(self, now):
        answer = await super()._queue(now)
        self._happen()
        return answer

    def _happen(self):
        if self._happens:
            self._happens.pop()()


@pytest.mark.parametrize("to_order", [True, False])
async def test_an_item_that_becomes_a_build_between_two_reads(to_order):
    """Nobody is ordered for it twice, and nobody goes who has just been given it."""
    async with faults.staged() as stage:
        stage.sim.create_node(0.0, simulation.Node(name="a", labels=frozenset({"linux"})))
        stage.sim.submit(stage.clock.now, label="linux", duration_s=60.0)

        def connects():
            stage.sim.connect(stage.clock.now, "a")
            stage.sim.advance(stage.clock.now)

        before = await stage.read()
        view = await Between(stage.session, connects).read(stage.clock.read, to_order=to_order)
        after = await stage.read()

    def seen(view):
        waits = [item.stage for item in view.items if item.stage is model.Stage.BUILDABLE]
        busy = [computer.name for computer in view.computers if not computer.idle]
        return len(waits), len(busy)

    assert ((1, 0), (0, 1)) == (seen(before), seen(after))
    assert ((0, 0) if to_order else (1, 1)) == seen(view)


async def test_a_cycle_reads_to_order_and_a_removal_to_miss_nothing():
    """A launch follows from the first alone; before a removal it is looked at again."""
    asked = []

    class Asked:
        async def read(self, now, *, to_order=False):
            asked.append(to_order)
            return model.ControllerView(synced=True, read_at=now(), session="s1")

    await observe.observe(Asked(), {}, now=lambda: 0.0, time_limit_s=5.0)
    await observe.read_controller(Asked(), now=lambda: 0.0)
    assert [True, False] == asked
