"""How the loop ends: what is in flight is finished, nothing new begins, no task is forgotten."""

import asyncio
import logging

import pytest

from broker.loop import state as states
from tests.loop.daemons import LOCAL, Daemon

pytestmark = pytest.mark.looptime


async def test_stop_waits_for_what_is_in_flight_and_begins_nothing():
    """Both launches under way become agents; the item that comes later is left alone."""
    async with Daemon() as made:
        made.controller.slow_s = 2.0
        made.submit()
        made.submit()
        await asyncio.sleep(3.0)
        assert 2 == made.loop.in_flight
        made.loop.stop()
        made.submit()
        await asyncio.sleep(1.0)
        assert not made.life.done()
        await asyncio.sleep(10)
        assert made.life.done()
        assert made.life.exception() is None
        assert 2 == len(made.sim.nodes) == len(made.instances)
        assert 2 == made.controller.asked["create"]


async def test_what_hangs_is_left_where_it_is_and_named(caplog):
    """A platform that hangs is no reason to hang: the next life finishes it or cleans it up."""
    before = asyncio.all_tasks()
    async with Daemon() as made:
        made.platforms[LOCAL].hang_next()
        made.submit()
        await asyncio.sleep(5)
        (name,) = made.loop.state.running
        made.loop.stop()
        await asyncio.sleep(made.loop.finish_s - 0.1)
        assert not made.life.done()
        with caplog.at_level(logging.WARNING):
            await asyncio.sleep(0.2)
        assert made.life.done()
        made.life.result()
        assert 0 == made.loop.in_flight
        assert [f"launch {name} on local"] == [one.orders for one in caplog.records]
    assert before == asyncio.all_tasks()


async def test_stop_at_rest_is_immediate():
    """Nobody waits for a timer."""
    async with Daemon() as made:
        await asyncio.sleep(12)
        made.loop.stop()
        await asyncio.sleep(0.2)
        assert made.life.done()


async def test_a_cancelled_loop_leaves_no_task_behind():
    """Cancelled within a read, a launch, a hanging list: all its tasks are gone with it."""
    for at in (0.5, 2.5, 3.5, 5.0, 8.1):
        before = asyncio.all_tasks()
        made = Daemon()
        async with made:
            made.controller.slow_s = 1.0
            made.platforms[LOCAL].hang_next(verb="list")
            made.platforms[LOCAL].hang_next()
            made.submit()
            await asyncio.sleep(at)
            made.life.cancel()
            with pytest.raises(asyncio.CancelledError):
                await made.life
            assert 0 == made.loop.in_flight
        assert before == asyncio.all_tasks()


async def test_whatever_a_cut_off_life_left_the_next_one_uses_or_removes():
    """Cancelled at several moments of a launch: one build, one agent, nothing else."""
    for tenths in range(2, 45, 6):
        async with Daemon() as made:
            made.controller.slow_s = 0.4
            made.submit(duration_s=3.0)
            await asyncio.sleep(tenths / 10)
            made.life.cancel()
            await asyncio.gather(made.life, return_exceptions=True)
            made.loop._stopping, made.loop.state = False, states.State.fresh()
            made.life = asyncio.create_task(made.loop.run(), name="next life")
            # one that was cut off before its launch is given up at its deadline, here 30 s
            await asyncio.sleep(60)
            assert ["done"] == made.fates()
            assert set(made.sim.nodes) == made.instances
            assert 1 == len(made.instances)
