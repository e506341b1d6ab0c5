"""At rest: one small request a second notices new demand, the full look comes seldom."""

import asyncio
import contextlib

import attrs
import pytest

from broker import clock, metrics
from broker.core import model
from broker.loop import reconcile
from jnlp import errors
from tests.core.worlds import item, policy

pytestmark = pytest.mark.looptime


class Controller:
    """A controller with a queue that the test fills; counts what it is asked."""

    def __init__(self):
        self.items = ()
        self.reads = []
        self.peeks = []
        self.down = False

    async def read(self, now, *, to_order=False):
        self.reads.append(asyncio.get_running_loop().time())
        return model.ControllerView(synced=True, read_at=now(), session="s1", items=self.items)

    async def peek(self):
        self.peeks.append(asyncio.get_running_loop().time())
        if self.down:
            raise errors.Unreachable("no answer")
        return frozenset((i.id, i.stage is model.Stage.BUILDABLE) for i in self.items)


@contextlib.asynccontextmanager
async def looping():
    """Run a reconciler without templates for some simulated seconds."""
    async with asyncio.TaskGroup() as group:
        controller = Controller()
        now = asyncio.get_running_loop().time
        made = reconcile.Reconciler(
            reader=controller,
            backends={},
            executor=None,  # nothing is ever to be done
            place=None,
            policy=policy,
            recorder=metrics.NullRecorder(),
            watch=clock.Clock(wall=lambda: 1e6 + now(), monotonic=now),
            roll=lambda: 0.5,
            new_id=lambda: "x",
        )
        group.create_task(made.run(), name="loop")
        yield controller
        made.stop()


async def test_at_rest_the_queue_is_peeked_at_and_the_rest_read_seldom():
    """Twenty seconds of nothing: about four looks and one peek in each other second."""
    async with looping() as loop_of:
        await asyncio.sleep(20.5)
        assert len(loop_of.reads) == pytest.approx(5, abs=1)
        assert len(loop_of.peeks) == pytest.approx(16, abs=2)


async def test_a_new_item_is_looked_at_within_a_peek():
    """Demand is noticed as fast at rest as under load."""
    async with looping() as loop_of:
        await asyncio.sleep(6.3)
        before = len(loop_of.reads)
        loop_of.items = (item(1, "nobody"),)
        await asyncio.sleep(1.1)
        assert len(loop_of.reads) > before
        assert loop_of.reads[before] - 6.3 <= 1.01


async def test_an_item_that_becomes_buildable_is_news():
    """A blocked item is no demand; the moment it is, somebody must look."""
    async with looping() as loop_of:
        blocked = item(1, "x", stage=model.Stage.BLOCKED)
        loop_of.items = (blocked,)
        await asyncio.sleep(11.3)
        before = len(loop_of.reads)
        loop_of.items = (attrs.evolve(blocked, stage=model.Stage.BUILDABLE),)
        await asyncio.sleep(1.1)
        assert len(loop_of.reads) > before


async def test_a_peek_that_fails_is_followed_by_a_look():
    """What is wrong is found out by the read that knows how to say it."""
    async with looping() as loop_of:
        await asyncio.sleep(6.3)
        before, loop_of.down = len(loop_of.reads), True
        await asyncio.sleep(1.1)
        assert len(loop_of.reads) > before
