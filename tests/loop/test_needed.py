"""Never more agents than needed, however late everybody answers; who is needed by nobody goes."""

import asyncio
import random

import attrs
import pytest

from backends import memory
from broker.core import model
from broker.core.fleet import ledger as ledgers
from tests.loop.daemons import LOCAL, Daemon, template

pytestmark = pytest.mark.looptime
ONCE = model.Retention(once=True, idle_s=600.0)


class Loaded(Daemon):
    """Everything is slow: the controller's answers, listings, starts, and agents that connect."""

    def __init__(self, seed, *, list_s, hands_out_s=0.0, slow_s=2.0):
        dice = random.Random(seed)
        super().__init__(
            template(retention=ONCE, connect_deadline_s=300.0),
            limits=model.BackendPolicy(max_starting=None, launch_burst=99),
        )
        self.connects_s = lambda: dice.uniform(1.0, 60.0)
        self.controller.slow_s = slow_s
        self.platforms[LOCAL].settings = memory.MemorySettings(launch_s=5.0, list_s=list_s)
        key = ledgers.key_of(model.Scope.TEMPLATE, LOCAL, model.TemplateName("t"))
        proved = {key: model.Trial(revision="r1", online=ledgers.ENOUGH_ONLINE)}
        state = self.loop.state
        self.loop.state = attrs.evolve(state, ledger=attrs.evolve(state.ledger, trials=proved))
        self._hands_out_s, self._maintain = hands_out_s, self.sim.maintain
        self._last = self._due_at = 0.0
        self.sim.maintain = self._maintain_seldom

    def _maintain_seldom(self, now):
        """Run the queue late and seldom, as a controller does that is short of processor time."""
        if now < self._due_at:
            return
        if now - self._last >= self._hands_out_s:
            self._last = now
            self._maintain(now)
        else:
            self._due_at = self._last + self._hands_out_s
            self.sim.at(self._due_at, self._maintain_seldom)


@pytest.mark.parametrize(
    ("duration_s", "list_s", "hands_out_s"),
    [
        (5.0, 3.0, 0.0),
        pytest.param(1.0, 8.0, 0.0, marks=pytest.mark.soak),
        (5.0, 3.0, 20.0),
    ],
)
async def test_as_many_single_use_agents_as_builds(duration_s, list_s, hands_out_s):
    """Also where what is known of one agent is newer than what is known of the queue."""
    async with Loaded(0, list_s=list_s, hands_out_s=hands_out_s) as made:
        for _ in range(30):
            made.submit(duration_s=duration_s)
        for _ in range(40):
            await asyncio.sleep(10)
            if made.fates() == ["done"] * 30:
                break
        assert ["done"] * 30 == made.fates()
        assert (made.loop.state.launches, made.notes.unused_agents) == (30, 0)


@pytest.mark.parametrize("comes_s", [400.0, 1.0])
@pytest.mark.parametrize("once", [True, False])
async def test_the_agent_of_a_cancelled_item_goes_at_once(comes_s, once):
    """Before it is online or after, and that is no failure of its template."""
    async with Daemon(template(retention=model.Retention(once=once, idle_s=600.0))) as made:
        made.connects_s = lambda: comes_s
        made.sim.maintain, maintain = lambda now: None, made.sim.maintain
        number = made.submit()
        maintain(made.watch.now())  # it may run at once; but nobody hands it out from now on
        await asyncio.sleep(8)
        (name,) = made.instances
        assert made.sim.nodes[name].connected == (comes_s < 8)
        made.sim.cancel(made.watch.now(), number)
        await asyncio.sleep(12)
        assert made.instances == set()
        assert {} == made.loop.state.ledger.backoffs
        assert made.notes.unused_agents == 1


async def test_the_agent_of_a_cancelled_item_stays_for_others_and_for_the_warm_pool():
    """Nobody starts another one in its place."""
    async with Daemon(template(min_idle=1)) as made:
        made.connects_s = lambda: 20.0
        await asyncio.sleep(3)
        number = made.submit(duration_s=300.0)
        other = made.submit(duration_s=300.0)
        await asyncio.sleep(3)
        made.sim.cancel(made.watch.now(), number)
        await asyncio.sleep(60)
        assert made.sim.items[other].started_at is not None
        assert len(made.instances) == 2


async def test_nobody_is_ordered_in_vain_while_the_controller_prepares_for_a_shut_down():
    """Neither for what waits nor to keep warm, and people are told; afterwards it goes on."""
    async with Daemon(template(min_idle=1)) as made:
        made.sim.quiet_down(made.watch.now(), on=True)
        await asyncio.sleep(20)
        assert made.instances == set()
        assert (
            "shut-down" in {r.subject: r.text for r in made.loop.state.plan.refusals}["controller"]
        )
        made.submit()
        await asyncio.sleep(20)
        assert made.instances == set()
        assert [one.reason for one in made.loop.state.plan.unmet] == [
            model.WaitReason.QUIETING_DOWN
        ]
        made.sim.quiet_down(made.watch.now(), on=False)
        await asyncio.sleep(20)
        assert set(made.fates()) == {"done"}
