"""Builds on a real swarm that loses its registry, a machine, its leader and its quorum; `make swarm`.

Three managers and two workers, each an engine in a network namespace; the controller is the
simulated one, so what really became of each build is counted here. The registry wants a login.
"""

import asyncio
import collections
import contextlib
import functools
import time

import attrs
import pytest

from broker.demo import image
from broker.simulator import simulation
from tests import patience
from tests.docker import registries, swarms
from tests.e2e import stage as stages

pytestmark = [
    pytest.mark.soak,
    pytest.mark.enable_socket,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # the SDK's
]
CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:TOKEN", timeout: 5s}}
poll: {{busy: 500ms, idle: 1s}}
state_dir: {state}
listen: off
log: {{format: console}}
backends:
  it:
    kind: swarm
    managers: [{managers}]
    registries: {{"{registry}": {{user: {user}, password_env: REGISTRY_PASSWORD}}}}
defaults:
  command: ["{agent}"]
  swarm: {{networks: [host], constraints: [node.role==worker], grace: 1s}}
templates:
  t:
    labels: t
    image: {image}
    cap: 6
    retention: {{idle: 30s, max_builds: 2}}
  other:
    labels: other
    image: {other}
    retention: {{once: true}}
"""


@attrs.define
class Line:
    """A row of the table."""

    what: str
    began: float
    lost_before: int
    done_before: int


class Play:
    """A broker at work on the swarm, a stream of builds, and the table of what became of them."""

    def __init__(self, stage, swarm):
        self.stage = stage
        self.swarm = swarm
        self.rows = []
        self.starts = collections.Counter()  # of agents, by name: containers that were seen

    def count(self, *fates):
        return sum(item.fate in fates for item in self.stage.sim.items.values())

    @property
    def lost(self):
        return self.count(simulation.Fate.LOST, simulation.Fate.FAILED)

    @property
    def done(self):
        return self.count(simulation.Fate.DONE)

    @contextlib.asynccontextmanager
    async def row(self, what, said=""):
        """Play something, and note what it cost; ``said``: by the broker, while it lasted."""
        log = self.stage.brokers[-1].said
        before = len(log.read_text())
        began, lost, done = time.monotonic(), self.lost, self.done
        yield
        words = log.read_text()[before:]
        assert said in words, f"{said!r} is not said\n{words[-3000:]}"
        lost, done = self.lost - lost, self.done - done
        self.rows.append((what, f"{time.monotonic() - began:.0f} s", done, lost))
        print("|", " | ".join(map(str, self.rows[-1])), "|", flush=True)

    @property
    def said(self):
        return self.stage.brokers[-1].said.read_text()

    async def feed(self, number=4, duration_s=3.0):
        """Submit builds and wait until they all have ended."""
        items = [self.stage.submit("t", duration_s) for _ in range(number)]
        await self.until_ended(items)

    async def until_ended(self, items):
        await self.stage.until(
            lambda: all(self.item(i).fate is not simulation.Fate.OPEN for i in items),
            "every build has ended", within_s=240,
        )  # fmt: skip

    async def until_started(self, items):
        await self.stage.until(
            lambda: all(self.item(i).started_at is not None for i in items),
            "every build runs", within_s=120,
        )  # fmt: skip

    def item(self, told):
        return self.stage.sim.items[told] if isinstance(told, int) else told

    def running(self):
        """Builds that run, by the machine of their agent."""
        found = collections.defaultdict(list)
        places = self.places()
        for item in self.stage.open:
            if item.node in places and item.started_at is not None:
                found[places[item.node]].append(item)
        return found

    def places(self):
        """Machines of agents, by name, as the engines tell; one that runs twice fails."""
        found = {}
        for name, machine in self.swarm.machines.items():
            with contextlib.suppress(Exception):
                for entry in machine.ask("containers"):
                    agent = entry["Labels"].get("agent-broker.name")
                    if agent is not None:
                        assert agent not in found, f"{agent} runs on {found[agent]} and {name}"
                        found[agent] = name
        return found


@contextlib.asynccontextmanager
async def playing(folder, swarm, registry, monkeypatch):
    first = swarm.managers[0].engine.url
    names = [await asyncio.to_thread(registry.push, first, name) for name in ("agent", "other")]
    monkeypatch.setenv("REGISTRY_PASSWORD", registries.PASSWORD)
    stage = stages.Stage(folder)
    stage.server.start = functools.partial(stage.server.start, host=swarm.address)
    async with stage:
        stage.config.write_text(
            CONFIG.format(
                owner=stages.OWNER,
                url=stage.server.url,
                state=stage.state,
                managers=", ".join(f'{{url: "{one.url}"}}' for one in swarm.managers),
                registry=registry.address,
                user=registries.USER,
                agent=image.AGENT,
                image=names[0],
                other=names[1],
            )
        )
        await stage.start()
        yield Play(stage, swarm)
        await stage.stop(stage.brokers[-1], within_s=90)


async def until(is_so, what, within_s=90.0):
    patient = patience.Patience(within_s)
    while not await asyncio.to_thread(is_so):
        assert not patient.is_over(), what
        await asyncio.sleep(0.2)


async def test_a_swarm_that_loses_registry_machine_leader_and_quorum(tmp_path, monkeypatch):
    """Nothing is lost but what ran on the machine that died, and all heals by itself."""
    with contextlib.ExitStack() as stack:
        swarm = await asyncio.to_thread(stack.enter_context, swarms.swarm(3, 2))
        registry = contextlib.ExitStack()
        stack.callback(registry.close)
        there = registry.enter_context(
            registries.registry(tmp_path / "registry", asks=True, host=swarm.address)
        )
        (tmp_path / "stage").mkdir()
        async with playing(tmp_path / "stage", swarm, there, monkeypatch) as play:
            await scenes(play, swarm, registry)
            assert not play.stage.open
            print(f"builds: {play.stage.fates()}")


async def scenes(play, swarm, registry):
    stage, machine = play.stage, swarm.machines["w1"]
    async with play.row("all is well; images by digest, with the registry's login"):
        await play.feed(8)
    async with play.row("the registry goes; agents with an image that is known", "registry"):
        other = stage.submit("other", 1.0)
        registry.close()
        await play.feed(6)
        assert not play.lost
    async with play.row("a machine dies amid builds", "platform-lost"):
        items = [stage.submit("t", 60.0) for _ in range(6)]
        await until(lambda: len(play.running()["w1"]) > 1, "builds run on it")
        await play.until_started(items)
        doomed = play.running()["w1"]
        machine.cut_off()
        await until(lambda: "w1" not in swarm.ready(), "the swarm knows it")
        for item in doomed:  # as a controller's ping has it
            if item.node in stage.sim.nodes:
                stage.sim.disconnect(stage.watch.now(), item.node)
        await play.until_ended(items)
        assert {item.id for item in doomed} >= {
            item.id for item in map(play.item, items) if item.fate is not simulation.Fate.DONE
        }, "lost is what ran there, and no other build"
        await play.feed()
    async with play.row("it comes back; what ran there is ended by the swarm"):
        machine.reconnect()
        await until(lambda: len(swarm.ready()) == len(swarm.machines), "it is ready")
        await until(
            lambda: set(play.places()) <= stage.agents, "no agent but those that are wanted"
        )
        await play.feed()
    lost = play.lost
    async with play.row("the leader's engine is killed amid builds"):
        items = [stage.submit("t", 8.0) for _ in range(4)]
        await play.until_started(items)
        swarm.managers[0].kill()
        await play.until_ended(items)
        await play.feed()
        swarm.managers[0].start()
        await until(lambda: len(swarm.ready()) == len(swarm.machines), "it is back")
    async with play.row("the quorum is lost amid builds", "source lost"):
        items = [stage.submit("t", 40.0) for _ in range(3)]
        await play.until_started(items)
        for one in swarm.managers[1:]:
            one.kill()
        late = [stage.submit("t", 1.0) for _ in range(6)]
        await play.until_ended(items)
        assert all(play.item(item).fate is simulation.Fate.DONE for item in items)
        await asyncio.sleep(20)  # what is ordered meanwhile is refused
    async with play.row("the quorum comes back"):
        for one in swarm.managers[1:]:
            one.start()
        await play.until_ended(late)
    assert lost == play.lost, "nothing was lost since the machine died"
    assert play.item(other).fate is simulation.Fate.OPEN
    stage.sim.cancel(stage.watch.now(), other)
    await until(lambda: set(play.places()) <= stage.agents, "no agent but those that are wanted")
