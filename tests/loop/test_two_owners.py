"""Two brokers of two owners on one controller, both of which serve the same label."""

import asyncio

import pytest

from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.core.fleet import marks
from broker.loop import pace
from broker.simulator import simulation
from tests.loop.daemons import LOCAL, Daemon, template

pytestmark = pytest.mark.looptime


def two(*, phase_s=0.0, proved=True):
    """Two that are alike but for their names, on one controller that shows the claims of both."""
    sim = simulation.Simulation()
    for owner in ("a", "b"):
        claim = f"[agent-broker held by {owner * 8} since 1]"
        node = simulation.Node(
            name=marks.placeholder_name(owner), labels=frozenset(), description=claim
        )
        sim.create_node(0.0, node)
    daemons = [
        Daemon(template(), owner=owner, sim=sim, pace=pace.Pace(least_s=0.1 + n * phase_s))
        for n, owner in enumerate("ab")
    ]
    key = ledgers.key_of(model.Scope.TEMPLATE, LOCAL, "t")
    known = {key: model.Trial(revision="r1", online=ledgers.ENOUGH_ONLINE)} if proved else {}
    for daemon in daemons:
        daemon.loop.state.ledger.trials.update(known)
        daemon.controller.slow_s = 0.02
    return daemons


def made_by(sim):
    return sorted(name.split("-")[0] for name in sim.nodes if "placeholder" not in name)


@pytest.mark.parametrize("phase_s", [0.0, 0.13, 0.5])
@pytest.mark.parametrize("builds", [1, 8])
async def test_as_many_agents_as_builds_not_one_for_each_owner(builds, phase_s):
    """Both look at once, or one after the other; what comes later is shared alike."""
    one, other = two(phase_s=phase_s)
    async with one, other:
        await asyncio.sleep(12)
        for round_ in range(1, 4):
            for _ in range(builds):
                one.submit(duration_s=600.0)
            await asyncio.sleep(20)
            assert builds * round_ == len(made_by(one.sim))


async def test_a_definition_on_trial_does_not_bring_twice_as_many():
    one, other = two(proved=False)
    async with one, other:
        await asyncio.sleep(12)
        for _ in range(12):
            one.submit(duration_s=600.0)
        await asyncio.sleep(60)
        assert 12 <= len(made_by(one.sim)) <= 14


async def test_who_goes_second_goes_on_alone_when_the_other_is_gone():
    """Its claim and its nodes are left; nothing waits for them for longer than a moment."""
    one, other = two()
    async with other:
        await asyncio.sleep(12)
        for _ in range(4):
            other.submit(duration_s=600.0)
        await asyncio.sleep(8)
        assert ["b"] * 4 == made_by(one.sim)
        began = other.now()
        other.submit(duration_s=600.0)  # and does not wait again
        while len(made_by(one.sim)) < 5:
            await asyncio.sleep(0.05)
        assert other.now() - began < 1.5
