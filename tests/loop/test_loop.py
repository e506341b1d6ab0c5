"""The real loop in simulated time: what it notices, how often it looks, what it outlives."""

import asyncio

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.loop import pace
from broker.simulator import simulation
from broker.simulator.simulation import Fate, TaskKind
from tests.loop.daemons import LOCAL, OTHER, Daemon, template

pytestmark = pytest.mark.looptime


async def test_the_order_goes_out_within_one_cycle_of_demand_being_seen():
    """Not two looks, not a timer of its own: what a look shows is ordered before the next."""
    async with Daemon() as made:
        await asyncio.sleep(30.2)
        made.submit()
        at = made.watch.now()
        await asyncio.sleep(1.3)
        assert 1 == len(made.sim.nodes)
        seen = next(began for began in made.controller.reads if began >= at)
        (agent,) = made.loop.state.ledger.memories.values()
        assert agent.created_at - seen < 0.01


async def test_a_build_is_served_and_its_agent_goes_when_idle_for_too_long():
    """From the queue to nothing left, by the clock."""
    async with Daemon() as made:
        made.submit(duration_s=10.0)
        await asyncio.sleep(20)
        assert ["done"] == made.fates()
        assert 1 == len(made.instances)
        await asyncio.sleep(70)
        assert (set(), {}) == (made.instances, made.sim.nodes)
        assert {} == made.loop.state.ledger.memories


async def test_its_wait_is_accounted_for_and_what_it_was_spent_on_is_kept():
    """From the queue into the history: how it ended, where, and what its time was spent on."""
    async with Daemon() as made:
        made.submit(duration_s=10.0)
        made.submit("nobody-serves-it")
        await asyncio.sleep(20)
        (closed,) = made.loop.state.waits.closed
        (agent,) = made.instances
        assert (model.WaitEnd.STARTED, agent) == (closed.end, closed.agent)
        assert closed.ended_at - closed.since_at == pytest.approx(sum(closed.spent.values()))
        assert next(iter(closed.spent)) is model.WaitStep.ORDERED
        assert "t" == closed.label
        (account,) = made.loop.state.waits.open.values()
        assert model.WaitReason.NO_TEMPLATE is account.spell


async def test_what_nothing_can_serve_is_given_up_and_what_is_served_is_not(caplog):
    """Cancelled on the controller, with its reason in the log and in the history."""
    async with Daemon() as made:
        made.policy = attrs.evolve(made.policy, give_up_s=60.0)
        made.submit("nobody-serves-it")
        made.submit(duration_s=100.0)
        made.submit(duration_s=100.0)
        await asyncio.sleep(58)
        assert "cancelled" not in made.fates()
        await asyncio.sleep(12)
        assert ["cancelled"] == [fate for fate in made.fates() if fate == "cancelled"]
        ends = [one.end for one in made.loop.state.waits.closed]
        assert 1 == ends.count(model.WaitEnd.GIVEN_UP)
        (said,) = [r for r in caplog.records if r.getMessage().startswith("item given up")]
        assert "no template serves" in said.reason


async def test_without_job_cancel_the_log_says_so_and_it_goes_on(caplog):
    async with Daemon() as made:
        made.policy = attrs.evolve(made.policy, give_up_s=60.0)
        made.controller.fails["cancel-item"] = 1
        made.submit("nobody-serves-it")
        await asyncio.sleep(80)
        (said,) = [r for r in caplog.records if "is Job/Cancel granted?" in r.getMessage()]
        assert "unreachable" == said.slug
        assert model.WaitReason.NO_TEMPLATE is made.loop.state.plan.unmet[0].reason


async def test_it_looks_fast_while_something_waits_and_slowly_at_rest():
    """One look a second under load, one in five seconds at rest."""
    async with Daemon() as made:
        await asyncio.sleep(60.5)
        at_rest = len(made.controller.reads)
        assert 12 == pytest.approx(at_rest, abs=1)
        made.submit("nobody-serves-it")
        await asyncio.sleep(60)
        assert 60 == pytest.approx(len(made.controller.reads) - at_rest, abs=5)


async def test_a_storm_of_hints_costs_twice_the_looks_of_a_busy_minute():
    """The first few follow at once; then it is as ``poll.busy`` says, however many come."""
    async with Daemon(pace=pace.Pace(least_s=0.1, busy_s=1.0)) as made:
        until, reads = made.now() + 10.0, made.controller.reads
        while made.now() < until:
            made.loop.hint()
            await asyncio.sleep(0.01)
        assert 6 == pytest.approx(sum(at < reads[0] + 0.6 for at in reads), abs=1)
        assert 24 <= len(reads) <= 27
        await asyncio.sleep(10.0)
        before = len(reads)
        made.loop.hint()
        await asyncio.sleep(0.01)
        assert before + 1 == len(reads)


async def test_a_slow_controller_gets_a_pause_as_long_as_its_answer():
    """However many hints come; no longer than looks are apart anyway."""
    for slow_s, expected in ((0.4, 12), (4.0, 2)):
        async with Daemon(pace=pace.Pace(busy_s=1.0)) as made:
            made.controller.slow_s = slow_s
            until = made.now() + 10.0
            while made.now() < until:
                made.loop.hint()
                await asyncio.sleep(0.01)
            assert expected == pytest.approx(len(made.controller.reads), abs=1)


async def test_a_hint_wakes_it():
    """A look follows a hint at once, long before the timer."""
    async with Daemon(pace=pace.Pace(idle_s=300.0, busy_s=300.0)) as made:
        await asyncio.sleep(10)
        before = len(made.controller.reads)
        made.loop.hint()
        await asyncio.sleep(0.01)
        assert before + 1 == len(made.controller.reads)


async def test_a_hint_during_a_cycle_is_not_lost():
    """What happened after the look began is looked at anew."""
    async with Daemon(pace=pace.Pace(idle_s=300.0, busy_s=300.0)) as made:
        made.controller.slow_s = 2.0
        await asyncio.sleep(1)
        made.loop.hint()
        await asyncio.sleep(4)
        assert 2 == len(made.controller.reads)


async def test_failed_launches_back_off_and_retry_after_is_honoured():
    """Exponential with the platform's own word as the least."""
    async with Daemon() as made:
        made.platforms[LOCAL].fail_next(backends_api.Unavailable("full", retry_after=40.0))
        made.submit()
        await asyncio.sleep(39)
        assert 1 == made.controller.asked["create"]
        await asyncio.sleep(10)
        assert 2 == made.controller.asked["create"]
        await asyncio.sleep(20)
        assert ["done"] == made.fates()


async def test_a_platform_that_keeps_failing_is_asked_less_and_less():
    """Four minutes of failures: fewer than a dozen launches, not hundreds."""
    async with Daemon() as made:
        made.platforms[LOCAL].fail_next(backends_api.Unavailable("down"), times=1000)
        made.submit()
        await asyncio.sleep(240)
        assert 5 <= made.notes.results["launch", "unavailable"] <= 12
        made.platforms[LOCAL].clear_faults()
        await asyncio.sleep(120)
        assert ["done"] == made.fates()
        assert 1 >= len(made.instances)


@pytest.mark.parametrize("how", ["fails", "hangs", "has a bug"])
async def test_a_listing_that_does_not_come_sweeps_nothing_and_holds_up_nobody_else(how):
    """Not synced is unknown: its agents stay; the other backend gets the launches."""
    both = template(backends=(LOCAL, OTHER), retention=model.Retention(idle_s=5.0))
    async with Daemon(both, backends=(LOCAL, OTHER)) as made:
        made.submit(duration_s=5.0)
        await asyncio.sleep(3)
        kept = set(made.instances)
        for _ in range(100):
            if how == "fails":
                made.platforms[LOCAL].fail_next(backends_api.Unavailable("x"), verb="list")
            elif how == "hangs":
                made.platforms[LOCAL].hang_next(verb="list")
            else:
                made.platforms[LOCAL].fail_next(RuntimeError("x"), verb="list")
        await asyncio.sleep(60)
        assert ["done"] == made.fates()
        assert kept == set(made.sim.nodes)  # idle for long, and yet
        assert not made.loop.state.world.backends[LOCAL].synced
        made.submit("t", duration_s=50.0)
        made.submit("t", duration_s=50.0)
        began = made.watch.now()
        await asyncio.sleep(2 * made.loop.time_limit_s + 5)
        assert 1 == len(made.on(OTHER))
        ordered = [i.started_at - began for i in made.sim.items.values() if i.id > 1]
        assert max(ordered) < 2 * made.loop.time_limit_s
        assert kept <= made.instances


async def test_a_lost_watch_is_opened_again():
    """A stream that breaks, by the platform or by a bug of ours, is opened anew."""
    async with Daemon() as made:
        opened = []
        backend = made.backends[LOCAL]

        async def watch():
            opened.append(made.now())
            await asyncio.sleep(2.0)
            if len(opened) == 1:
                raise backends_api.Unavailable("reset")
            if len(opened) == 2:
                raise ZeroDivisionError
            yield

        backend.watch = watch
        await asyncio.sleep(40)
        assert 5 <= len(opened) <= 7
        assert ["bug"] == made.notes.failed
        assert not made.life.done()


async def test_an_action_that_hangs_ends_at_its_time_limit():
    """The agent's place is free again, the item is served by another launch."""
    async with Daemon() as made:
        made.platforms[LOCAL].hang_next()
        made.submit()
        await asyncio.sleep(119)
        assert 1 == made.loop.in_flight
        await asyncio.sleep(100)
        assert 1 == made.notes.results["launch", "unavailable"]
        assert ["done"] == made.fates()
        await asyncio.sleep(120)
        assert {} == made.sim.nodes


async def test_a_bug_in_an_action_is_counted_and_the_loop_goes_on():
    """One kind of action is broken, the others work."""
    async with Daemon(template(), template("u")) as made:
        made.platforms[LOCAL].fail_next(ZeroDivisionError("ours"), template="t", times=100)
        made.submit("t")
        made.submit("u")
        await asyncio.sleep(30)
        assert made.notes.results["launch", "bug"] >= 1
        assert ["done"] == [i.fate.value for i in made.sim.items.values() if i.label == "u"]
        assert not made.life.done()


async def test_a_bug_in_a_cycle_is_counted_and_the_loop_goes_on():
    """A read, a plan, a settlement or a recorder that raises costs that cycle alone."""
    async with Daemon() as made:
        made.controller.broken = {"read"}
        await asyncio.sleep(20)
        assert {"bug"} == set(made.notes.failed)
        made.controller.broken = set()
        made.notes.cycle = made.notes.acted = _broken
        made.submit()
        await asyncio.sleep(30)
        assert ["done"] == made.fates()
        assert not made.life.done()


def _broken(*_):
    raise ZeroDivisionError


async def test_a_bug_in_the_last_words_does_not_keep_an_agent():
    """Output that cannot be fetched is a pity, not a reason to stay."""
    async with Daemon() as made:
        made.submit(duration_s=1.0)
        made.platforms[LOCAL].fail_next(ZeroDivisionError("ours"), verb="logs", times=100)
        await asyncio.sleep(100)
        assert {} == made.sim.nodes


async def test_an_agent_that_dies_is_a_warning_also_before_it_came_online(caplog):
    """With what it died of; whoever goes as planned is none."""
    async with Daemon(launch_s=5.0) as made:
        made.submit(duration_s=1.0)
        await asyncio.sleep(2)
        platform = made.platforms[LOCAL]
        (name,) = platform._cells
        end = backends_api.Exit(slug="out-of-memory", code=-9, message="over 1 GiB")
        platform.kill(name, end, now=made.watch.now())
        await asyncio.sleep(100)
        (died,) = (r for r in caplog.records if r.message == "agent died")
        assert (died.levelname, died.cause) == ("WARNING", "lost-out-of-memory")
        assert "over 1 GiB" in died.reason
        assert {} == made.sim.nodes


async def test_the_step_of_a_dead_agent_ends_and_its_next_try_runs():
    """In seconds; the controller alone would take five minutes."""
    async with Daemon() as made:
        somebody = simulation.Node(name="x", labels=frozenset({"x"}), connected=True)
        made.sim.create_node(made.watch.now(), somebody)  # without any node no label can be read
        number = made.submit(duration_s=50.0, kind=TaskKind.PIPELINE, retries=1)
        await asyncio.sleep(20)
        item, platform = made.sim.items[number], made.platforms[LOCAL]
        platform.kill(item.node, backends_api.Exit(slug="killed", code=-9), now=made.watch.now())
        await asyncio.sleep(10)
        again = max(made.sim.items.values(), key=lambda one: one.id)
        assert item.fate is Fate.FAILED
        assert again is not item
        assert again.started_at - item.ended_at < 5.0
        await asyncio.sleep(60)
        assert again.fate is Fate.DONE


async def test_the_controller_is_away_for_minutes_and_nothing_is_lost():
    """Agents are kept, nothing is decided, and the first answer is acted upon."""
    async with Daemon(template(retention=model.Retention(idle_s=30.0))) as made:
        minutes = 5
        made.submit(duration_s=minutes * 60 + 60.0)
        made.submit(duration_s=1.0)
        await asyncio.sleep(5)
        kept = set(made.instances)
        made.controller.down = True
        before = len(made.controller.reads)
        await asyncio.sleep(minutes * 60)
        assert kept == made.instances == set(made.sim.nodes)
        looks = (len(made.controller.reads) - before) / (minutes * 60)
        assert 0.15 <= looks <= 0.25  # not a storm on one that starts up
        made.submit()
        made.controller.down = False
        await asyncio.sleep(90)
        assert ["done"] * 3 == made.fates()
        assert set(made.notes.failed) <= {"controller"}


async def test_a_clock_that_jumps_changes_nothing():
    """Wall time is put a day ahead and back: no age, no deadline, no back-off notices."""
    async with Daemon(template(retention=model.Retention(idle_s=60.0, max_age_s=600.0))) as made:
        made.submit(duration_s=5.0)
        await asyncio.sleep(10)
        kept = set(made.instances)
        for jump in (86_400.0, -86_400.0):
            made.watch._wall = lambda by=jump: made.now() + 1e9 + by
            await asyncio.sleep(15)
            assert kept == made.instances
        await asyncio.sleep(40)
        assert set() == made.instances


async def test_warm_and_cold_are_told_apart():
    """The first build waits for its agent, the second finds it; each is counted once.

    Both are seen pending, on an executor that has been given them and has not begun.
    """
    async with Daemon(launch_s=4.0) as made:
        await asyncio.sleep(12.3)
        made.submit(duration_s=10.0)
        await asyncio.sleep(30)
        made.submit(duration_s=10.0)
        await asyncio.sleep(5)
        (cold, warm) = made.notes.latencies
        assert ("t", False) == cold[:2]
        assert 4.0 <= cold[2] <= 6.5
        assert ("t", True) == warm[:2]
        assert warm[2] <= 1.5


async def test_more_left_over_than_is_plausible_is_kept_and_said_once(caplog):
    """Thirty nodes without an instance: nothing is removed, a person is asked, not each second."""
    async with Daemon() as made:
        for number in range(30):
            ghost = made.ghost(f"o-t-ghost{number}", age_s=3600.0)
            made.sim.create_node(made.watch.now(), ghost)
        await asyncio.sleep(60)
        assert 30 == len(made.sim.nodes)
        assert 1 == [r.message for r in caplog.records].count("sweep refused")


async def test_an_agent_that_is_given_nothing_is_asked_about_and_replaced():
    """The controller accepts no tasks for it and does not say so: a cap of one is full of it."""
    async with Daemon(template(cap=1)) as made:
        made.submit(duration_s=5.0)
        await asyncio.sleep(20)
        (name,) = made.sim.nodes
        assert "takes-work" not in made.controller.asked
        made.sim.nodes[name].accepting = False
        made.submit(duration_s=5.0)
        await asyncio.sleep(30)
        assert ["done", "done"] == made.fates()
        assert name not in made.sim.nodes


async def test_what_starts_for_a_cancelled_item_goes_at_once():
    """Not after the idle time that the template allows its agents."""
    async with Daemon() as made:
        for _ in range(15):  # more than is asked about in one cycle
            made.submit()
        await asyncio.sleep(0.5)  # an agent is online after a second
        assert 2 == len(made.sim.nodes)  # the first ones of a new template
        for item in list(made.sim.wanted):
            made.sim.cancel(made.now(), item.id)
        await asyncio.sleep(10)
        assert (set(), {}) == (made.instances, made.sim.nodes)
