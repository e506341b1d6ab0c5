"""What the push hook tells reaches the loop at once; polling stays the truth. In simulated time."""

import asyncio
import collections

import pytest

from broker.core import model
from broker.loop import pace as paces
from broker.simulator import simulation
from broker.simulator.inventory import TaskKind
from tests.loop.daemons import Daemon, template

pytestmark = pytest.mark.looptime

ONCE = model.Retention(once=True, idle_s=600.0)
AT_REST = paces.Pace(busy_s=10.0, idle_s=60.0)  # so that a poll is never what is seen
BROAD = model.BackendPolicy(max_starting=500, launch_rate=1000.0, launch_burst=500)


async def until(condition, *, within_s=600.0):
    now = asyncio.get_running_loop().time
    end = now() + within_s
    while not condition():
        assert now() < end
        await asyncio.sleep(0.005 if within_s < 1.0 else 0.1)


def ordered(daemon):
    """Return how many nodes the controller was asked to create."""
    return daemon.controller.asked["create"]


async def proved(daemon):
    """Have a few builds served, so that the template is trusted with many starts at once."""
    for _ in range(3):
        daemon.submit(duration_s=1.0)
    await until(lambda: set(daemon.fates()) == {"done"})
    await until(lambda: not daemon.sim.nodes)
    await at_rest(daemon)


async def at_rest(daemon):
    await until(lambda: daemon.loop.state.plan is not None)
    await asyncio.sleep(30.0)


@pytest.mark.parametrize("many", [1, 50, 500])
async def test_who_is_ordered_is_ordered_at_once(many):
    """Whatever the pace of polling: the order is out within 50 ms of the item."""
    async with Daemon(template(cap=500), limits=BROAD, pace=AT_REST) as daemon:
        daemon.hooked()
        await proved(daemon)
        before = ordered(daemon)
        began = daemon.watch.now()
        for _ in range(many):
            daemon.submit(duration_s=1.0)
        await until(lambda: len(daemon.loop.state.ledger.hooks) == many, within_s=0.05)
        await asyncio.sleep(began + 0.05 - daemon.watch.now())
        soon = ordered(daemon)
        await asyncio.sleep(0.4)  # and looks, which may order all that caps and trust let through
        assert soon == ordered(daemon) >= before + min(many, 10)
        assert not daemon.notes.failed


async def test_each_item_gets_one_agent():
    """Told by the hook and seen by the look that follows, it is one item."""
    async with Daemon(template(retention=ONCE), pace=AT_REST) as daemon:
        daemon.hooked()
        await at_rest(daemon)
        for _ in range(5):
            daemon.submit(duration_s=2.0, kind=TaskKind.PIPELINE)
            await asyncio.sleep(0.03)
        await until(lambda: set(daemon.fates()) == {"done"})
        builds = collections.Counter(item.node for item in daemon.sim.items.values())
        assert set(builds.values()) == {1}
        assert daemon.loop.state.launches == 5
        assert daemon.loop.state.plan.overshoot == 0


async def test_a_single_use_agent_has_one_build_exactly():
    """Builds of a tenth of a second, that no poll sees."""
    async with Daemon(template(retention=ONCE, cap=4)) as daemon:
        daemon.tick_s = 0.02
        daemon.hooked()
        daemon.connects_s = lambda: 0.5
        for _ in range(30):
            daemon.submit(duration_s=0.1, kind=TaskKind.PIPELINE)
        await until(lambda: set(daemon.fates()) == {"done"})
        builds = collections.Counter(item.node for item in daemon.sim.items.values())
        assert set(builds.values()) == {1}
        assert daemon.notes.extra_builds == 0


async def test_an_item_that_a_free_agent_takes_orders_nobody():
    """Though the last look saw that agent at work."""
    async with Daemon(template(), pace=AT_REST) as daemon:
        daemon.hooked()
        daemon.submit(duration_s=5.0)
        await until(lambda: set(daemon.fates()) == {"done"})
        before = daemon.loop.state.launches
        daemon.submit(duration_s=5.0)
        await until(lambda: set(daemon.fates()) == {"done"})
        await asyncio.sleep(1.0)
        assert daemon.loop.state.launches == before == 1


async def test_an_idle_agent_is_closed_before_it_goes():
    """No request takes it out of service, and whoever has work stays."""
    async with Daemon(template(retention=model.Retention(idle_s=20.0))) as daemon:
        daemon.hooked()
        daemon.submit(duration_s=2.0)
        await until(lambda: daemon.loop.state.ends == 1)
        assert not daemon.sim.nodes
        assert daemon.controller.asked["cordon"] == 0


async def test_a_hook_that_is_silent_costs_nothing_but_time():
    """All goes on as without one."""
    async with Daemon(template(retention=model.Retention(idle_s=20.0))) as daemon:
        hook = daemon.hooked()
        await until(lambda: daemon.inbox.state.is_heard(daemon.watch.now()))
        daemon._coming.cancel()
        daemon.submit(duration_s=2.0)
        await until(lambda: set(daemon.fates()) == {"done"}, within_s=60.0)
        await until(lambda: daemon.loop.state.ends == 1)
        assert hook.events
        assert daemon.inbox.state.is_silent(daemon.watch.now() + 60)


async def test_a_hook_that_lies_does_not_last():
    """Items that are not there are ordered for until the next read, and no longer."""
    async with Daemon(template(cap=3)) as daemon:
        daemon.hooked()
        await proved(daemon)
        before = ordered(daemon)
        daemon.loop.push(
            [
                model.QueueEvent(
                    id=model.ItemId(900 + number),
                    at=daemon.watch.now(),
                    stage=model.Stage.BUILDABLE,
                    label="t",
                    idle=0,
                )
                for number in range(100)
            ]
        )
        await until(lambda: ordered(daemon) == before + 3, within_s=0.1)
        await until(lambda: not daemon.sim.nodes)  # they are idle, and go
        assert daemon.loop.state.pushed == {}
        assert daemon.loop.state.ledger.hooks == {}


async def test_the_exact_label_of_a_cell():
    """Over REST a matrix cell tells none while a node of its label is there."""
    async with Daemon(template("a"), template("b"), pace=AT_REST) as daemon:
        daemon.hooked()
        daemon.sim.create_node(
            daemon.watch.now(), simulation.Node(name="pet", labels=frozenset({"x"}))
        )
        await at_rest(daemon)
        daemon.sim.submit(daemon.watch.now(), label="b", cell="b", kind=TaskKind.MATRIX)
        await until(lambda: ordered(daemon), within_s=0.05)
        assert [name for name in daemon.sim.nodes if name.startswith("o-b-")]


async def test_why_a_step_waits_stands_in_its_own_log():
    """Once, in words."""
    async with Daemon(template(cap=0)) as daemon:
        hook = daemon.hooked()
        number = daemon.submit(duration_s=2.0, kind=TaskKind.PIPELINE)
        await until(lambda: hook.lines, within_s=30.0)
        await asyncio.sleep(200.0)
        ((item, words),) = hook.lines
        assert item == number
        assert words == daemon.loop.state.plan.unmet[0].text
