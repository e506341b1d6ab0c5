"""What came of builds that were gone soon is asked for, and kept."""

import asyncio

import pytest

from tests.loop.daemons import Daemon, template

pytestmark = pytest.mark.looptime


@pytest.mark.parametrize(("duration_s", "bad"), [(3.0, [True]), (12.0, [False]), (0.1, [True])])
async def test_a_build_that_fails_at_once_is_asked_about(duration_s, bad):
    """Also one that came and went between two looks; one that lasts needs no question."""
    async with Daemon(template(min_idle=1)) as daemon:
        daemon.controller.result = "FAILURE"
        daemon.submit(duration_s=duration_s)
        await asyncio.sleep(60)
        fates = daemon.loop.state.ledger.build_fates
        assert bad == [fate.bad for fate in fates]
        assert {fate.agent for fate in fates} <= daemon.instances
        assert (duration_s < 10.0) == (daemon.controller.asked["result"] == 1)


async def test_a_controller_that_does_not_tell_costs_nothing():
    """No result, no fate; the loop goes on."""
    async with Daemon(template(min_idle=1)) as daemon:
        daemon.controller.result = ""
        daemon.submit(duration_s=2.0)
        await asyncio.sleep(60)
        assert 1 == daemon.controller.asked["result"]
        assert () == daemon.loop.state.ledger.build_fates
        assert [] == daemon.notes.failed
