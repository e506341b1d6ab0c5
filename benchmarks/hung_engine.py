"""How long a cold start takes beside a container engine that never answers, and without it.

``python benchmarks/hung_engine.py [--count N] [--tree FOLDER]`` starts a simulated controller here
and two brokers as programs, one after another in turns: one with the process backend alone, one
with an engine beside it that accepts every connection and says nothing. A build is submitted, long
enough to be seen, or its agent would serve the next one. Its agent is a real process, and what is
measured is the time from the queue to the start of the build.
``--tree``: of another checkout, to compare.
"""

import argparse
import asyncio
import contextlib
import functools
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable

from broker import clock
from broker.simulator import controller, simulation

_CONFIG = """\
owner: {owner}
controller: {{url: "{url}"}}
state_dir: {folder}/state
listen: 127.0.0.1:0
backends:
  local: {{kind: process, directory: {folder}/agents}}
{engine}
templates:
  linux:
    labels: linux
    backends: [local]
    command: ["{python}", "-S", "{agent}"]
    retention: {{once: true, idle: 30s}}
{more}
"""
_ENGINE = "  engine: {{kind: docker, hosts: [{{url: 'tcp://127.0.0.1:{port}'}}]}}"
_MORE = "  there: {labels: there, backends: [engine], image: nobody/asks, command: [agent]}"
_AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
_WITHIN_S = 90.0


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, read and never answer."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()


@contextlib.asynccontextmanager
async def _broker(config: pathlib.Path, tree: pathlib.Path) -> AsyncIterator[None]:
    arguments = (sys.executable, "-m", "broker", "run", "--config", str(config))
    with (config.parent / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *arguments, cwd=tree, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _cold_starts(count: int, *, port: int | None, tree: pathlib.Path) -> list[float]:
    """Return the seconds from the queue to the start of a build, one after another."""
    sim = simulation.Simulation()
    took: list[float] = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        async with controller.SimulatedController(sim, now=clock.Clock().now) as server:
            clockwork = asyncio.ensure_future(server.run())  # noqa: TID251 -- no broker, no group
            config = folder / "broker.yaml"
            config.write_text(
                _CONFIG.format(
                    owner=f"bench-{random.randrange(10**6)}",  # noqa: S311 -- a name
                    url=server.url,
                    folder=folder,
                    python=sys.executable,
                    agent=_AGENT,
                    engine=_ENGINE.format(port=port) if port else "",
                    more=_MORE if port else "",
                )
            )
            async with _broker(config, tree):
                await _until(lambda: bool(sim.nodes))  # the placeholder: it is at work
                await asyncio.sleep(8.0)
                for _ in range(count):
                    began = time.monotonic()
                    number = server.submit(job="b", label="linux", duration_s=2.5)
                    await _until(functools.partial(_has_started, sim, number))
                    took.append(time.monotonic() - began)
                    await asyncio.sleep(random.uniform(9.0, 11.0))  # noqa: S311 -- until it is at rest
            clockwork.cancel()
    return took


def _has_started(sim: simulation.Simulation, number: int) -> bool:
    return sim.items[number].started_at is not None


async def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + _WITHIN_S
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"not within {_WITHIN_S:.0f} s")
        await asyncio.sleep(0.01)


async def _main(count: int, rounds: int, tree: pathlib.Path) -> None:
    server = await asyncio.start_server(_silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    alone: list[float] = []
    beside: list[float] = []
    for _ in range(rounds):
        alone += await _cold_starts(count, port=None, tree=tree)
        beside += await _cold_starts(count, port=port, tree=tree)
    for words, took in (("process backend alone", alone), ("beside a hung engine", beside)):
        print(
            f"{words:22} median {statistics.median(took):.2f} s, {min(took):.2f} to "
            f"{max(took):.2f}, {len(took)} starts"
        )
    print(f"ratio of the medians   {statistics.median(beside) / statistics.median(alone):.2f}")
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tree", type=pathlib.Path, default=pathlib.Path.cwd())
    given = parser.parse_args()
    asyncio.run(_main(given.count, given.rounds, given.tree))
