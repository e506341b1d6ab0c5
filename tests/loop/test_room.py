"""A platform that is full and does not tell how much room it has is asked politely."""

import asyncio

import pytest

from backends import api, memory
from broker.core import model
from jnlp import errors
from tests.loop.daemons import LOCAL, OWNER, Daemon, template

pytestmark = pytest.mark.looptime


class Silent(memory.MemoryBackend):
    """Says no when it is full, and before that nothing."""

    refusals: list[float]

    async def reserve(self, spec):
        try:
            await super().reserve(spec)
        except api.NoCapacity:
            self.refusals.append(asyncio.get_running_loop().time())
            raise

    async def capacity(self):
        return None


class Full(Daemon):
    """A daemon on a platform with room for three."""

    def __init__(self, *templates, room=3):
        super().__init__(*templates)
        self.platforms[LOCAL].settings = memory.MemorySettings(launch_s=1.0, capacity=room)
        silent = Silent(self.platforms[LOCAL], owner=OWNER, now=self.watch.now)
        silent.refusals = []
        self.backends[LOCAL] = silent

    @property
    def refusals(self):
        return self.backends[LOCAL].refusals


async def test_a_full_platform_is_asked_seldom():
    """Fifty builds wait for room for three: a dozen refusals in a minute, then two a minute."""
    async with Full() as made:
        for _ in range(50):
            made.submit(duration_s=3600.0)
        await asyncio.sleep(60)
        assert len(made.instances) == 3
        assert 1 <= len(made.refusals) <= 12
        await asyncio.sleep(60)
        before = len(made.refusals)
        await asyncio.sleep(240)
        assert 1 <= len(made.refusals) - before <= 8
        said = {u.reason for u in made.loop.state.plan.unmet}
        assert {model.WaitReason.NO_ROOM} == said
        assert made.controller.asked["create"] == 3, "no node for an instance that is refused"


async def test_room_that_one_of_ours_leaves_is_taken_at_once():
    """Not when the pause is over; and the waiting builds go through one after the other."""
    async with Full(template(retention=model.Retention(once=True))) as made:
        for _ in range(9):
            made.submit(duration_s=30.0)
        await asyncio.sleep(3 * 30 + 40)
        assert ["done"] * 9 == made.fates()
        assert len(made.refusals) <= 30


async def test_room_that_somebody_else_makes_is_found_by_asking():
    """At the latest after the longest pause; then nothing is held back any more."""
    async with Full() as made:
        for _ in range(20):
            made.submit(duration_s=3600.0)
        await asyncio.sleep(60)
        made.platforms[LOCAL].settings = memory.MemorySettings(launch_s=1.0)
        await asyncio.sleep(70)
        assert len(made.instances) == 20


@pytest.mark.parametrize("verb", ["create", "secret"])
async def test_room_is_given_back_when_the_node_cannot_be_made(verb):
    """At once, and asked for again with one agent at a growing pause: also of the controller."""
    async with Full() as made:
        ask, tries = made.controller._ask, []

        async def refusing(asked):
            if asked == verb and made.watch.now() < until:
                tries.append(made.watch.now())
                raise errors.Forbidden("no")
            await ask(asked)

        until = made.watch.now() + 120
        made.controller._ask = refusing
        for _ in range(3):
            made.submit(duration_s=3600.0)
        await asyncio.sleep(60)
        assert 2 <= len(tries) <= 8
        assert made.instances == set()
        assert not [name for name in made.sim.nodes if name.startswith("ab-")]
        said = {u.reason for u in made.loop.state.plan.unmet}
        assert {model.WaitReason.BACKOFF} == said
        await asyncio.sleep(150)
        assert len(made.instances) == 3


@pytest.mark.parametrize("good", [True, False])
async def test_a_template_that_never_comes_online_costs_two_agents_at_a_time(good):
    """However many builds wait for it; a good one has them all at work within seconds."""
    async with Daemon(template(connect_deadline_s=20.0)) as made:
        if not good:
            made.platforms[LOCAL].on_start = lambda name: None
        for _ in range(30):
            made.submit(duration_s=3600.0)
        most = 0
        for _ in range(40):
            await asyncio.sleep(0.5)
            most = max(most, len(made.instances))
        assert most == (30 if good else 2)
