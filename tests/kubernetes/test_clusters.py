"""Several clusters as several backends: a whole broker, a controller, two API servers.

Pods are only seen to run; that their agents come online is the stage's doing.
"""

import asyncio
import collections
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable

from attrs import define

from broker import app, assembly, clock, store
from broker.config import kinds, loading
from broker.simulator import access, controller, simulation
from tests import patience
from tests.kubernetes import fake

TOKEN = "a-token-of-eleven"
CONFIG = """\
owner: two
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
poll: {{busy: 250ms, idle: 500ms}}
state_dir: {folder}/state
listen: "off"
backends:
  near: {{kind: kubernetes, namespace: agents, server: "{near}"}}
  far: {{kind: kubernetes, namespace: agents, server: "{far}"}}
templates:
  maven: {{labels: maven, image: x, backends: [near, far], retention: {{once: true}}}}
advanced: {{resume_grace: 100ms, backoff_base: 5s}}
"""


@define
class Stage:
    """Everything there is."""

    server: controller.SimulatedController
    near: fake.Cluster
    far: fake.Cluster
    broker: app.Broker

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for a state; agents of pods that run come online meanwhile."""
        async with patience.limit(15):
            while not true():
                for pod in [*self.near.pods.values(), *self.far.pods.values()]:
                    node = self.server.sim.nodes.get(pod["metadata"]["name"])
                    if pod["status"]["phase"] == "Running" and node and not node.connected:
                        self.server.sim.connect(self.server.now(), node.name)
                await asyncio.sleep(0.02)

    def fates(self) -> list[str]:
        return [item.fate.value for item in self.server.sim.items.values()]

    def made(self, cluster: fake.Cluster) -> int:
        """How many pods it ever took."""
        return sum(kind == "ADDED" for _, kind, _ in cluster._history)


@contextlib.asynccontextmanager
async def stage(folder: pathlib.Path, *, down: bool = False) -> AsyncIterator[Stage]:
    watch, sim = clock.Clock(), simulation.Simulation()
    mine = access.Accounts(user="u", token=TOKEN, permissions=access.ALL - {"Overall/Administer"})
    async with (
        controller.SimulatedController(sim, now=watch.now, access=mine) as server,
        fake.Cluster().serving() as near,
        fake.Cluster().serving() as far,
    ):
        settings = loading.parse(
            CONFIG.format(
                url=server.url,
                folder=folder,
                near="http://127.0.0.1:9" if down else near.url,
                far=far.url,
            ),
            kinds.classes(),
            environ={"TOKEN": TOKEN},
            base=folder,
        )
        made = assembly.build(settings, store.FileStore(settings.state_dir), watch=watch)
        async with asyncio.TaskGroup() as group:
            clockwork = group.create_task(server.run(), name="clockwork")
            life = group.create_task(made.run(), name="broker")
            try:
                yield Stage(server, near, far, made)
            finally:
                made.stop()
                await life
                clockwork.cancel()


async def test_what_one_cluster_has_no_room_for_goes_to_the_next(tmp_path: pathlib.Path) -> None:
    """A quota that is used up is no failure: the first takes what it can, the second the rest."""
    async with stage(tmp_path) as made:
        made.near.fail(
            "create", "error-403-quota-pods", times=1000, when=lambda _: len(made.near.pods) >= 1
        )
        for number in range(3):
            made.server.submit(job=f"j{number}", label="maven", duration_s=0.5)
        await made.until(lambda: made.fates() == ["done"] * 3)
        await made.until(lambda: not made.near.pods and not made.far.pods)
        await made.until(lambda: not made.near.secrets and not made.far.secrets)

        assert 3 == made.made(made.near) + made.made(made.far)
        assert made.made(made.near) >= 1
        assert made.made(made.far) >= 1


async def test_a_cluster_that_does_not_answer_is_passed_by(tmp_path: pathlib.Path) -> None:
    """Its pods are unknown, not absent; the other one serves."""
    async with stage(tmp_path, down=True) as made:
        made.server.submit(label="maven", duration_s=0.2)
        await made.until(lambda: made.fates() == ["done"])

        assert 1 == made.made(made.far)
        world = made.broker.world
        assert world is not None
        assert {"near": False, "far": True} == {
            str(name): view.synced for name, view in world.backends.items()
        }


async def test_what_a_single_use_agent_asks_of_the_cluster(tmp_path: pathlib.Path) -> None:
    """Pod and secret made, both deleted; nobody's last words are read.

    A listing is needed only where the picture is behind, which a busy machine may make it.
    """
    async with stage(tmp_path) as made:
        for number in (1, 2):
            begun = len(made.near.requests)
            made.server.submit(label="maven", duration_s=0.2)
            await made.until(lambda: len(made.near.pods) == 1)
            await made.until(lambda: not made.near.pods and not made.near.secrets)
            assert ["done"] * number == made.fates()

        asked = collections.Counter(verb for verb, _ in made.near.requests[begun:])
        asked.pop("list", None)
        assert {"create": 1, "create secrets": 1, "delete": 1, "delete secrets": 1} == asked
