"""A permission that is missing on the controller: said where the person on call looks."""

import asyncio

from broker import assembly, clock, store
from broker.config import kinds, loading
from broker.simulator import access, controller, simulation
from tests import patience

CONFIG = """\
owner: poor
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: off
templates:
  t: {{labels: t}}
"""
TOKEN = "a-token-of-eleven"


async def test_a_broker_that_may_not_make_nodes_says_which_permission_it_lacks(tmp_path):
    """Not ready, with the controller's own word for it, and ready as soon as it is granted."""
    watch, sim = clock.Clock(), simulation.Simulation()
    allowed = access.ALL - {"Agent/Create", "Overall/Administer"}
    mine = access.Accounts(user="u", token=TOKEN, permissions=allowed)
    async with controller.SimulatedController(sim, now=watch.now, access=mine) as server:
        settings = loading.parse(
            CONFIG.format(url=server.url, state=tmp_path / "state"),
            kinds.classes(),
            environ={"TOKEN": TOKEN},
            base=tmp_path,
        )
        made = assembly.build(settings, store.FileStore(settings.state_dir), watch=watch)
        async with asyncio.TaskGroup() as group, patience.limit(20):
            life = group.create_task(made.run(), name="broker")
            while "Agent/Create" not in made.ready()[1]:
                await asyncio.sleep(0.02)
            assert not made.ready()[0]
            mine.permissions = access.ALL
            while not made.ready()[0]:
                await asyncio.sleep(0.02)
            made.drain()
            await life
    assert sim.nodes == {}
