"""Each source at its own pace: one that hangs delays nobody, and only its own is unknown."""

import asyncio

import attrs
import pytest

from broker.core import model
from broker.loop import pace, sources
from tests.loop.daemons import LOCAL, OTHER, Daemon, template

pytestmark = pytest.mark.looptime
HERE = template("here", backends=(OTHER,), retention=model.Retention(idle_s=5.0))
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
        for number in range(count):
            item = made.sim.items[made.submit("here", duration_s=1.0)]
            at = made.watch.now()
            while item.started_at is None:
                await asyncio.sleep(0.05)
            waited.append(item.started_at - at)
            await asyncio.sleep(15.0 + number * 0.37)  # its agent goes; at any moment of a second
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


# --- the controller is one of them ---


async def test_a_hung_controller_holds_up_nobody_but_what_it_alone_can_tell():
    """The loop turns, backends are seen as they are, and how orders end is taken in."""
    async with Daemon(THERE) as made:
        await asyncio.sleep(0.5)
        made.controller.slow_s = 1.5
        made.submit("there", duration_s=500.0)
        while not made.loop.in_flight:
            await asyncio.sleep(0.1)
        made.controller.hanging = {"read", "peek"}
        await asyncio.sleep(60)
        assert 0 == made.loop.in_flight
        assert made.watch.now() - made.loop.beat_at <= made.loop.pace.idle_s
        world = made.loop.state.world
        assert made.watch.now() - world.backends[LOCAL].read_at <= made.loop.pace.idle_s
        assert 1 == len(world.backends[LOCAL].instances)
        assert [None] == [outcome.failure for outcome in made.loop.state.outcomes]


async def test_a_hung_controller_is_known_to_hang_as_soon_as_its_time_is_over():
    """At rest too: nobody waits for the next look of a quiet time."""
    quiet = pace.Pace(idle_s=300.0, busy_s=300.0)
    async with Daemon(THERE, pace=quiet) as made:
        await asyncio.sleep(10)
        made.controller.hanging = {"read"}
        at = made.watch.now()
        made.loop.hint()
        await asyncio.sleep(sources.PATIENCE_S - 0.1)
        assert made.loop.state.world.controller.synced
        await asyncio.sleep(0.2)
        view = made.loop.state.world.controller
        assert (False, "unreachable: no answer within 5 s") == (view.synced, view.error)
        assert at <= view.read_at < at + 0.2
        assert {"controller": view.read_at + 5} == {
            name: pytest.approx(since, abs=0.1)
            for name, since in made.loop.state.unread_since.items()
        }


async def test_nothing_is_ordered_and_nothing_goes_by_what_a_hung_controller_showed():
    """What has to be done is done on its next answer, by what that shows."""
    async with Daemon(THERE) as made:
        made.submit("there", duration_s=3.0)
        await asyncio.sleep(8)
        kept = set(made.instances)
        made.controller.slow_s = 30.0  # for what is asked from now on
        await asyncio.sleep(6)
        asked = dict(made.controller.asked)
        for _ in range(2):
            made.submit("there", duration_s=60.0)
        await asyncio.sleep(20)  # idle for long, and two wait
        assert not made.loop.state.world.controller.synced
        assert () == made.loop.state.plan.actions
        assert kept == made.instances
        assert {"read"} >= {v for v, n in made.controller.asked.items() if n != asked.get(v)}
        made.controller.slow_s = 0.0
        await asyncio.sleep(30)
        assert ["done", "open", "open"] == made.fates()
        assert 2 == len(made.instances), "one of them is the one that was there"


async def test_a_controller_that_is_always_slow_is_served():
    """Its views are some seconds old, the loop turns without waiting, and nothing is ordered twice."""
    async with Daemon(THERE) as made:
        made.controller.slow_s = 4.0
        await asyncio.sleep(20)
        lost, beats = [], set()
        for number in range(120):
            if number % 20 == 0:
                made.submit("there", duration_s=4.0)
            await asyncio.sleep(1.0)
            lost += [1] * (not made.loop.state.world.controller.synced)
            beats.add(made.loop.beat_at)
        assert [] == lost
        assert len(beats) > 60, "a look each second, not one in each read"
        await asyncio.sleep(120)
        assert {"done"} == set(made.fates())
        assert made.controller.asked["create"] <= len(made.fates())
        assert set(made.sim.nodes) == made.instances


async def test_a_slow_controller_is_not_read_without_a_pause():
    """What has just come is taken in, and not asked for again in the same moment."""
    async with Daemon(THERE) as made:
        made.controller.slow_s = 2.0
        await asyncio.sleep(20)
        for _ in range(3):
            made.submit("nobody-serves-it")
        before = len(made.controller.reads)
        for _ in range(30):
            made.submit("nobody-serves-it")  # each view is another one
            await asyncio.sleep(2.0)
        assert 20 == pytest.approx(len(made.controller.reads) - before, abs=3), (
            "two seconds and one"
        )


async def test_what_happens_during_a_read_of_the_controller_is_read_anew():
    """The view that comes shows what was before, and is not enough, however quiet the times."""
    quiet = pace.Pace(idle_s=300.0, busy_s=300.0)
    async with Daemon(THERE, pace=quiet) as made:
        await asyncio.sleep(10)
        made.controller.slow_s = 3.0
        made.loop.hint()
        await asyncio.sleep(1.5)
        at = made.watch.now()
        made.loop.hint()
        await asyncio.sleep(6)
        assert made.loop.state.world.controller.read_at >= at


async def test_a_peek_that_hangs_holds_up_nobody():
    """A hint is obeyed while it is under way."""
    async with Daemon(THERE) as made:
        await asyncio.sleep(12)
        made.controller.hanging = {"peek"}
        await asyncio.sleep(4)
        before = len(made.controller.reads)
        made.loop.hint()
        await asyncio.sleep(0.05)
        assert before + 1 == len(made.controller.reads)


async def test_a_bug_in_a_late_read_of_the_controller_is_counted():
    """As one in a read that is waited for: such a look has failed."""
    async with Daemon(THERE) as made:
        await asyncio.sleep(12)

        async def read(now, *, to_order=False):
            await asyncio.sleep(3.0)
            raise KeyError("ours")

        made.controller.read = read
        await asyncio.sleep(30)
        assert {"bug"} == set(made.notes.failed)
        assert not made.life.done()


async def test_who_stops_does_not_wait_for_a_hung_controller():
    """Neither in the first look, nor later."""
    for after_s in (0.5, 12.0):
        before = asyncio.all_tasks()
        async with Daemon(THERE) as made:
            made.controller.hanging = {"read", "peek", "item"}
            await asyncio.sleep(after_s)
            made.loop.stop()
            await asyncio.sleep(0.2)
            assert made.life.done()
            made.life.result()
        assert before == asyncio.all_tasks()


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
