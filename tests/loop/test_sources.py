"""Each source at its own pace: one that hangs delays nobody, and only its own is unknown."""

import asyncio

import attrs
import pytest

from broker.core import model
from broker.loop import pace, sources
from tests.loop.daemons import LOCAL, OTHER, Daemon, template

pytestmark = pytest.mark.looptime
HERE = template("here", backends=(OTHER,))
THERE = template("there", retention=model.Retention(idle_s=5.0))


def hang(made, backend=LOCAL, times=1000):
    """Let a backend never answer a listing again."""
    for _ in range(times):
        made.platforms[backend].hang_next(verb="list")


def slow(made, list_s):
    platform = made.platforms[LOCAL]
    platform.settings = attrs.evolve(platform.settings, list_s=list_s)


async def cold_starts(count, *, hung):
    """Return how long cold starts took on the backend that answers, one after another."""
    async with Daemon(HERE, THERE, backends=(LOCAL, OTHER)) as made:
        await asyncio.sleep(12.3)
        if hung:
            hang(made)
        waited = []
        for _ in range(count):
            item = made.sim.items[made.submit("here", duration_s=1.0)]
            at = made.watch.now()
            while item.started_at is None:
                await asyncio.sleep(0.05)
            waited.append(item.started_at - at)
            await asyncio.sleep(90.0)  # its agent goes
        assert made.loop.state.world.backends[LOCAL].synced is not hung
        return waited


@pytest.mark.parametrize("count", [3, pytest.param(12, marks=pytest.mark.soak)])
async def test_a_hung_engine_does_not_delay_a_cold_start_elsewhere(count):
    """The loop does not wait for it: not at each look, and not at the first one that it hangs."""
    alone = await cold_starts(count, hung=False)
    beside = await cold_starts(count, hung=True)
    assert sum(beside) <= 1.2 * sum(alone)
    assert max(beside) <= max(alone) + sources.MOMENT_S


async def test_the_loop_turns_as_often_beside_a_hung_engine():
    """Every second under load, however long the engine keeps silent."""
    async with Daemon(HERE, backends=(LOCAL, OTHER)) as made:
        made.submit("nobody-serves-it")
        await asyncio.sleep(5)
        hang(made)
        before = len(made.controller.reads)
        await asyncio.sleep(60)
        assert 60 == pytest.approx(len(made.controller.reads) - before, abs=5)


async def test_what_a_hung_engine_has_is_unknown_and_left_alone():
    """Nothing of it is removed, nothing is ordered on it, and the reason names it."""
    async with Daemon(HERE, THERE, backends=(LOCAL, OTHER)) as made:
        made.submit("there", duration_s=5.0)
        await asyncio.sleep(4)
        (name,) = made.instances
        hang(made)
        await asyncio.sleep(made.loop.pace.idle_s + sources.PATIENCE_S + 2.0)
        creates = made.controller.asked["create"]
        item = made.sim.items[made.submit("there")]
        made.sim.take_offline(made.watch.now(), name, "elsewhere")  # else it would take the item
        await asyncio.sleep(60)
        assert {name} == made.instances == set(made.sim.nodes)
        assert creates == made.controller.asked["create"]
        (unmet,) = [one for one in made.loop.state.plan.unmet if one.item == item.id]
        assert model.WaitReason.NOT_SYNCED is unmet.reason
        assert unmet.text.startswith("local: its state is unknown (unavailable: no answer within")
        made.platforms[LOCAL].clear_faults()
        await asyncio.sleep(2 * made.loop.time_limit_s)  # until the read under way is given up
        assert made.loop.state.world.backends[LOCAL].synced
        assert item.started_at is not None


async def test_a_hung_engine_is_known_to_hang_long_before_the_limit_of_a_read():
    """Its agents are not taken for what they were twenty seconds ago."""
    async with Daemon(THERE) as made:
        made.submit("there", duration_s=500.0)
        await asyncio.sleep(5)
        hang(made)
        await asyncio.sleep(made.loop.pace.idle_s + sources.PATIENCE_S + 0.5)
        view = made.loop.state.world.backends[LOCAL]
        assert (view.synced, view.error) == (False, "unavailable: no answer within 5 s")


async def test_an_engine_that_is_always_slow_is_known():
    """Its views are some seconds old, the loop turns without waiting, and its agents are served."""
    async with Daemon(THERE) as made:
        slow(made, 8.0)
        await asyncio.sleep(30)
        lost = []
        for _ in range(200):
            made.submit("there", duration_s=2.0)
            await asyncio.sleep(0.5)
            lost += [view for view in made.loop.state.world.backends.values() if not view.synced]
        assert [] == lost
        await asyncio.sleep(60)
        assert {"done"} == set(made.fates())
        assert set(made.sim.nodes) == made.instances


async def test_a_view_that_comes_late_and_shows_something_new_wakes_the_loop():
    """Not the next look of a quiet time: what is new is acted upon when it is there."""
    quiet = pace.Pace(idle_s=300.0, busy_s=300.0)
    async with Daemon(THERE, pace=quiet) as made:
        await asyncio.sleep(5)
        slow(made, 3.0)
        at = made.watch.now()
        made.submit("there")
        made.loop.hint()
        await asyncio.sleep(30)
        (item,) = made.sim.items.values()
        assert item.started_at - at < 5.0
        view = made.loop.state.world.backends[LOCAL]
        assert 1 == len(view.instances)


async def test_whoever_takes_over_acts_on_nothing_that_was_read_before():
    """The other's last action may not be in it; a read that was under way is begun anew."""
    async with Daemon(THERE) as made:
        slow(made, 3.0)
        await asyncio.sleep(20)
        made.loop.step_down()
        await asyncio.sleep(1)
        at = made.watch.now()
        made.loop.take_over()
        while made.loop.state.world.controller.read_at < at:
            await asyncio.sleep(0.05)
        for _ in range(100):
            view = made.loop.state.world.backends[LOCAL]
            assert not view.synced or view.read_at >= at
            await asyncio.sleep(0.1)
        assert view.synced


async def test_one_listing_per_backend_is_under_way():
    """A slow one is not asked again before it has answered."""
    async with Daemon(THERE) as made:
        backend, running, most = made.backends[LOCAL], [0], [0]
        listed = backend.list

        async def counted():
            running[0] += 1
            most[0] = max(most[0], running[0])
            try:
                return await listed()
            finally:
                running[0] -= 1

        backend.list = counted
        slow(made, 4.0)
        made.submit("nobody")
        await asyncio.sleep(60)
        assert 1 == most[0]


async def test_the_end_leaves_no_read_behind():
    """A loop that stops does not wait for who never answers."""
    before = asyncio.all_tasks()
    async with Daemon(THERE) as made:
        await asyncio.sleep(3)
        hang(made)
        await asyncio.sleep(3)
        made.loop.stop()
        at = made.now()
        await made.life
        assert made.now() - at < 2.0
    assert before == asyncio.all_tasks()
