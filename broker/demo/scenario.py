"""The demo: the real broker and real agents against the simulated controller, for a minute.

A queue with several labels is fed by a seeded stream; progress is printed, at the end a summary
counted by the simulation, not by the broker. Everything lives in a temporary directory and is gone
afterwards, also after Ctrl-C. Refuses to be the broker: it configures one like any user would.
"""

import asyncio
import contextlib
import math
import os
import pathlib
import random
import secrets
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import define, frozen

from backends import api as backends_api
from broker import app, assembly, clock, config, log, signals, store
from broker.config import loading
from broker.core import model
from broker.demo import free_port, image
from broker.simulator import controller, simulation
from outside import counts, waits

_TOKEN = "11demo"  # noqa: S105 -- of the simulated controller
_PROGRESS_S = 2.0
_FEED_SHARE = 0.6
_DRAIN_S = 30.0
_SEED = 7
_EARLY = "builds are still waiting: draining all the same"
_STAYS = "all is done; the page stays at {page} until Ctrl-C"
_NOBODY = "the build that asks for a gpu is cancelled now, as no template could ever serve it"
_ENDED = "The page ended with the demo; `agent-broker demo --stay` keeps it until Ctrl-C."
_ASKED = "ending early: what waits is cancelled, what runs is finished (again: leave at once)"

_CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: demo, token: "env:DEMO_TOKEN"}}
poll: {{busy: 500ms, idle: 2s}}
state_dir: {state}
listen: "{listen}"
backends:
  local: {{cap: 8, {backend}}}
defaults:
  connect_deadline: 20s
{defaults}
templates:
  linux:
    labels: linux shell
    warm: {{min_idle: 1}}
    retention: {{idle: 6s}}
    cap: 5
  maven:
    labels: maven jdk17 linux-large
    retention: {{idle: 6s, max_builds: 4}}
  release:
    labels: release
    cap: 2
    retention: {{once: true}}
"""

_PROCESS = """\
  command: ["{python}", "{agent}"]
"""
_DOCKER = """\
  command: ["{agent}"]
  image: {image}
  docker: {{network: host, pull: never}}
"""
"""The host's network, because that is where the simulated controller is."""

_JOBS = (  # job, label, seconds, weight
    ("unit-tests", "linux", 2.0, 5),
    ("shell-check", "shell && !maven", 1.0, 3),
    ("package", "maven && jdk17", 3.0, 3),
    ("publish", "release", 1.5, 1),
)


class Trouble(Exception):  # noqa: N818 -- what it is
    """The demo cannot go on."""


@frozen(kw_only=True)
class Summary:
    """What happened, counted by the simulation."""

    builds_served: int
    builds_lost: int
    builds_failed: int
    builds_unserved: int  # still open at the end
    waited_warm_s: tuple[float, ...]
    waited_cold_s: tuple[float, ...]
    agents_started: int
    agents_reused: int  # that had more than one build
    agents_retired: int
    left_over: int


async def play(
    *,
    seconds: float,
    listen: str,
    quiet: bool,
    kinds: Mapping[str, config.KindClasses],
    backend: str = "process",
    stay: bool = False,
) -> dict[str, Any]:
    """Run it; return the summary for programs. Raises ``Trouble``.

    ``seconds``: about how long; ``stay``: when the queue is empty go on until a signal comes.
    """
    where = await _docker() if backend == "docker" else _process()
    free = free_port.instead_of(listen)
    with tempfile.TemporaryDirectory(prefix="agent-broker-demo-") as folder:
        base = pathlib.Path(folder)
        log.configure(form="console", level="error", secrets=[_TOKEN])
        watch = clock.Clock()
        sim = simulation.Simulation()
        access = controller.Accounts(user="demo", token=_TOKEN)
        async with controller.SimulatedController(sim, now=watch.now, access=access) as server:
            settings = loading.parse(
                _CONFIG.format(
                    url=server.url,
                    state=base / "state",
                    listen=free,
                    **where.configuration,
                ),
                kinds,
                environ={"DEMO_TOKEN": _TOKEN},
                base=base,
            )
            stage = _Performance(
                sim=sim,
                server=server,
                watch=watch,
                seconds=seconds,
                quiet=quiet,
                stay=stay,
                dice=_dice(),
                agents=where.agents,
                taken="" if free == listen else listen,
            )
            return await stage.run(settings)


@frozen(kw_only=True)
class _DemoBackend:
    """Where the agents run: in words, and what the configuration is told."""

    agents: str
    configuration: Mapping[str, str]


def _process() -> _DemoBackend:
    agent = pathlib.Path(controller.__file__).with_name("agent.py")
    return _DemoBackend(
        agents="local processes",
        configuration={
            "owner": "demo",
            "backend": "kind: process",
            "defaults": _PROCESS.format(python=sys.executable, agent=agent),
        },
    )


async def _docker() -> _DemoBackend:
    """Put the image into the engine; the owner is new each time, the engine may be shared."""
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        await image.build(engine)
    except image.ImageError as error:
        raise Trouble(str(error)) from error
    return _DemoBackend(
        agents=f"containers of {engine}",
        configuration={
            "owner": f"demo-{secrets.token_hex(3)}",
            "backend": f'kind: docker, hosts: [{{url: "{engine}"}}]',
            "defaults": _DOCKER.format(agent=image.AGENT, image=image.NAME),
        },
    )


def _dice() -> random.Random:
    return random.Random(_SEED)  # noqa: S311 -- the same demo every time


@define(kw_only=True, eq=False)
class _Performance:
    sim: simulation.Simulation
    server: controller.SimulatedController
    watch: clock.Clock
    seconds: float
    quiet: bool
    stay: bool
    dice: random.Random
    agents: str
    taken: str  # the address that was asked for, if somebody else has it

    def say(self, text: str = "") -> None:
        """Print for people."""
        if not self.quiet:
            print(text, flush=True)

    async def run(self, settings: config.Settings) -> dict[str, Any]:
        broker = assembly.build(settings, store.FileStore(settings.state_dir), watch=self.watch)
        try:
            with waits.Ungrouped(OSError):
                await self._play(broker)
        except OSError as raised:
            raise Trouble(f"{raised}; hint: --listen 127.0.0.1:0") from None
        finally:
            await broker.aclose()
            left = await self._clean_up(settings)
        return self._sum_up(broker, left)

    async def _play(self, broker: app.Broker) -> None:
        async with waits.TaskGroup() as group:
            clockwork = group.create_task(self.server.run(), name="simulated controller")
            life = group.create_task(broker.run(ready=self._welcome), name="broker")
            show = group.create_task(self._progress(broker), name="progress")
            with signals.obeyed(broker, drain_s=math.inf, again=lambda: None):
                await self._feed(broker)
                await self._until_served(broker)
                if self.stay and not broker.draining:
                    show.cancel()
                    await self._until_asked(broker)
                if broker.draining:
                    self._cancel_waiting()
                else:
                    broker.drain()
                await self._until_ended(broker, life)
            show.cancel()
            clockwork.cancel()

    def _welcome(self, made: app.Broker) -> None:
        self.say("Jenkins Agent Broker demo. The controller is SIMULATED, the broker is the real")
        self.say(f"one, agents are {self.agents} (a stand-in for agent.jar, no Java needed).")
        self.say(f"Status page: {made.page}   metrics: {made.page}metrics")
        if self.taken:
            self.say(free_port.words(self.taken, "the page"))
        end = f"ends by itself within about {counts.told(round(self.seconds), 'second')}"
        self.say(f"It feeds a queue and {'stays until Ctrl-C' if self.stay else end}.")
        self.say()

    async def _feed(self, broker: app.Broker) -> None:
        """Submit builds: single ones, now and then a burst, and one that nobody can serve."""
        until = self.watch.now() + self.seconds * _FEED_SHARE
        nobody = self.server.submit(job="train-model", label="gpu && linux", duration_s=1.0)
        weights = [job[3] for job in _JOBS]
        while self.watch.now() < until and not broker.draining:
            burst = self.dice.choice((1, 1, 2, 4))
            for name, label, seconds, _ in self.dice.choices(_JOBS, weights, k=burst):
                spread = self.dice.uniform(0.5, 1.5)
                self.server.submit(job=name, label=label, duration_s=seconds * spread)
            await asyncio.sleep(self.dice.uniform(0.5, 4.0))
        self.sim.cancel(self.watch.now(), nobody)
        self.say(_NOBODY)

    async def _until_served(self, broker: app.Broker) -> None:
        """Wait for the last build, but not for ever: a demo that cannot serve says so and ends."""
        until = self.watch.now() + self.seconds
        while self._is_open() and self.watch.now() < until and not broker.draining:  # noqa: ASYNC110 -- a plain machine rings no bell
            await asyncio.sleep(0.2)
        if broker.draining:
            self.say(_ASKED)
        elif not self.stay:
            self.say("the queue is empty: draining" if not self._is_open() else _EARLY)

    async def _until_asked(self, broker: app.Broker) -> None:
        """Keep the page for whoever looks at it."""
        self.say(_STAYS.format(page=broker.page))
        while not broker.draining:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.2)
        self.say("draining")

    def _cancel_waiting(self) -> None:
        """Take what has no agent yet out of the queue: nobody waits for it any more."""
        for item in list(self.sim.wanted):
            if item.stage is not simulation.ItemClass.PENDING:
                self.sim.cancel(self.watch.now(), item.id)

    async def _until_ended(self, broker: app.Broker, life: asyncio.Task[None]) -> None:
        """Wait until no agent is left; what then is left is removed and counted."""
        done, _ = await asyncio.wait([life], timeout=_DRAIN_S)
        if not done:
            broker.stop()
            await life

    def _is_open(self) -> bool:
        return any(i.fate is simulation.Fate.OPEN for i in self.sim.items.values())

    async def _progress(self, broker: app.Broker) -> None:
        """Print who waits and why, and what the agents do."""
        began = self.watch.now()
        while True:
            await asyncio.sleep(_PROGRESS_S)
            plan = broker.plan
            if plan is None:
                continue
            phases = Counter(agent.phase.value for agent in plan.agents)
            doing = " ".join(f"{count} {name}" for name, count in sorted(phases.items()))
            done = sum(i.fate is simulation.Fate.DONE for i in self.sim.items.values())
            self.say(
                f"{self.watch.now() - began:5.0f} s  served {done:3}  waiting {len(plan.unmet):2}"
                f"  agents: {doing or 'none'}"
            )
            for reason, count, text in _reasons(plan):
                self.say(f"         {count} x {reason}: {text}")

    async def _clean_up(self, settings: config.Settings) -> int:
        """End whatever is still there; return how many that were, with nodes left behind."""
        files = store.FileStore(settings.state_dir)
        left = set(self.sim.nodes)
        for backend in assembly.make_backends(settings, files, watch=self.watch).values():
            for instance in await backend.list():
                left.add(model.NodeName(instance.name))
                with contextlib.suppress(backends_api.BackendError):
                    await backend.terminate(instance.name, grace_s=1.0)
            await backend.aclose()
        return len(left)

    def _sum_up(self, broker: app.Broker, left: int) -> dict[str, Any]:
        items = self.sim.items.values()
        served = [i for i in items if i.fate is simulation.Fate.DONE]
        builds = Counter(item.node for item in served)
        waits: dict[bool, list[float]] = {True: [], False: []}
        for item in served:
            ready = item.buildable_since or item.in_queue_since
            warm = item.node_since is not None and item.node_since <= ready
            waits[warm].append(max(0.0, (item.started_at or ready) - ready))
        summary = Summary(
            builds_served=len(served),
            builds_lost=sum(i.fate is simulation.Fate.LOST for i in items),
            builds_failed=sum(i.fate is simulation.Fate.FAILED for i in items),
            builds_unserved=sum(i.fate is simulation.Fate.OPEN for i in items),
            waited_warm_s=tuple(sorted(waits[True])),
            waited_cold_s=tuple(sorted(waits[False])),
            agents_started=broker.reconciler.state.launches,
            agents_reused=sum(count > 1 for count in builds.values()),
            agents_retired=broker.reconciler.state.ends,
            left_over=left,
        )
        self._tell(summary)
        told = attrs.asdict(summary)
        told["waited_warm_s"] = _quantiles(summary.waited_warm_s)
        told["waited_cold_s"] = _quantiles(summary.waited_cold_s)
        return told

    def _tell(self, summary: Summary) -> None:
        self.say()
        self.say("Summary (counted by the simulated controller)")
        self.say(
            f"  builds served      {summary.builds_served}, lost {summary.builds_lost}, "
            f"failed {summary.builds_failed}, not served {summary.builds_unserved}"
        )
        for name, waited in (
            ("waited, warm agent", summary.waited_warm_s),
            ("waited, cold start", summary.waited_cold_s),
        ):
            quantiles = _quantiles(waited)
            if quantiles["count"]:
                self.say(
                    f"  {name} median {quantiles['median']:.3f} s, p95 {quantiles['p95']:.3f} s "
                    f"({counts.told(quantiles['count'], 'build')})"
                )
        self.say(
            f"  agents started     {summary.agents_started}, reused {summary.agents_reused}, "
            f"retired {summary.agents_retired}, left over {summary.left_over}"
        )
        if not self.stay:
            self.say()
            self.say(_ENDED)


def _reasons(plan: model.Plan) -> list[tuple[str, int, str]]:
    found: dict[str, list[str]] = {}
    for unmet in plan.unmet:
        found.setdefault(unmet.reason.value, []).append(unmet.text)
    return [(reason, len(texts), texts[0]) for reason, texts in found.items()]


def _quantiles(waits: Sequence[float]) -> dict[str, float]:
    if not waits:
        return {"count": 0}
    p95 = waits[min(len(waits) - 1, int(len(waits) * 0.95))]
    return {"count": len(waits), "median": statistics.median(waits), "p95": p95}
