"""What runs away is stopped by the cap that nobody had to set."""

import asyncio

import pytest

from broker import config
from broker.config import kinds, loading
from tests.loop.daemons import LOCAL, Daemon

pytestmark = pytest.mark.looptime


async def test_sixty_builds_do_not_give_sixty_agents():
    """The configuration says nothing: never more than the default, and every build is served."""
    told = "owner: o\ncontroller: {url: 'https://c/'}\ntemplates: {t: {labels: t}}\n"
    made = loading.parse(told, kinds.classes(), environ={})
    limits = config.policy(made, wall_now=0.0).backends["local"]
    assert limits.cap is not None
    async with Daemon(limits=limits) as world:
        for _ in range(60):
            world.submit(duration_s=20.0)
        most = 0
        for _ in range(4000):
            await asyncio.sleep(0.5)
            most = max(most, len(world.on(LOCAL)), len(world.sim.nodes))
            if world.fates() == ["done"] * 60:
                break
        assert world.fates() == ["done"] * 60
    assert most == limits.cap
