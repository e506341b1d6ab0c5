"""The broker is killed with kill -9 at any moment and started again: nothing is lost or left."""

import asyncio
import os
import random

import pytest

from tests.e2e.stage import Stage

ROUNDS = int(os.environ.get("KILL_ROUNDS", "8"))
"""How often the broker is killed; more by hand: KILL_ROUNDS=200 pytest tests/e2e/test_kill.py."""
LABELS = ("linux", "shell && !wide", "once", "wide")


@pytest.mark.timeout(60 + 5 * ROUNDS)
@pytest.mark.parametrize("version", ["2.263.4", "2.528.3"])
async def test_killed_again_and_again_it_serves_every_build_and_leaves_nothing(
    tmp_path, version, record_property
):
    """Builds stream in all the time; each is served once, and after a drain there is nothing."""
    seed = int(os.environ.get("KILL_SEED", random.randrange(1 << 32)))
    record_property("seed", seed)
    print(f"KILL_SEED={seed}")
    dice = random.Random(seed)
    async with Stage(tmp_path, version=version) as stage:
        for _ in range(ROUNDS):
            for _ in range(dice.randint(0, 3)):
                stage.submit(dice.choice(LABELS), dice.uniform(0.02, 1.0))
            await stage.start()
            await asyncio.sleep(
                dice.uniform(0.2, 1.8)
            )  # the moment of the kill: chance is the point
            await stage.kill()
        await stage.start("--drain")
        await stage.until_up()
        await stage.until_served()
        assert set(stage.fates()) <= {"done"}
        assert await stage.stop() == 0
        assert stage.left_over() == []
        assert stage.sim.nodes == {}  # a drain takes the placeholder along


async def test_a_broker_that_comes_back_uses_the_agents_of_its_earlier_life(tmp_path):
    """After kill -9 the idle agent is found again; the next build needs no new one."""
    async with Stage(tmp_path, templates="  t: {labels: t, retention: {idle: 60s}}\n") as stage:
        await stage.start()
        stage.submit("t", 0.1)
        await stage.until_served()
        (name,) = stage.connected()
        before = sorted(stage.agents())
        await stage.kill()
        assert sorted(stage.agents()) == before
        item = stage.submit("t", 0.1)
        await stage.start()
        await stage.until_served()
        assert stage.sim.items[item].node == name
        assert stage.nodes() == {name}
        assert sorted(stage.agents()) == before


async def test_sigterm_finishes_what_is_in_flight_and_keeps_the_agents(tmp_path):
    """The next start goes on with them; builds run on meanwhile."""
    async with Stage(tmp_path) as stage:
        await stage.start()
        item = stage.submit("linux", 1.5)
        await stage.until(lambda: stage.sim.items[item].started_at is not None)
        assert await stage.stop() == 0
        assert len(stage.nodes()) == len(stage.connected()) == 1
        await stage.until_served()
        assert stage.fates() == {"done": 1}


async def test_a_second_broker_of_the_same_owner_is_refused_and_harms_nobody(tmp_path):
    """On one machine by the state directory; from another by the claim on the controller."""
    async with Stage(tmp_path) as stage:
        await stage.start()
        await stage.until(lambda: "e2e-placeholder" in stage.sim.nodes)
        same = await stage.start(config=stage.config)
        assert await asyncio.wait_for(same.wait(), 20) == 3
        other_config = tmp_path / "other.yaml"
        stage.configure(stage.templates, state=tmp_path / "elsewhere", path=other_config)
        other = await stage.start(config=other_config)
        assert await asyncio.wait_for(other.wait(), 20) == 3
        assert "owner" in stage.said()
        stage.submit("linux", 0.1)
        await stage.until_served()
        assert stage.fates() == {"done": 1}
