"""What one broker costs at rest: memory, processor time, requests to the controller.

Run: ``.venv/bin/python -m benchmarks.at_rest [--seconds 60] [--agents 0] [--builds 0]``. The real
command runs as a process of its own with the process backend, against the simulated controller in
this one. With ``--builds`` so many builds go through first, each on an agent of its own, so that
what is left behind by past agents shows up in the figures.
"""

import argparse
import asyncio
import collections
import contextlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator

from attrs import frozen

from broker import clock
from broker.demo import controller, simulation

_CONFIG = """\
owner: rest
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
state_dir: {folder}/state
listen: "127.0.0.1:0"
log: {{level: warning}}
defaults:
  command: ["{python}", "-S", "{agent}"]
templates:
  warm: {{labels: warm, warm: {{min_idle: {agents}}}}}
  single: {{labels: single, cap: 16, retention: {{once: true}}}}
"""
_TICKS = os.sysconf("SC_CLK_TCK")


@frozen(kw_only=True)
class Usage:
    """What a process has used so far."""

    rss_mib: float
    cpu_s: float


def usage(pid: int) -> Usage:
    """Read it from the kernel."""
    folder = pathlib.Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return Usage(
        rss_mib=int(status["VmRSS"].split()[0]) / 1024,
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
    )


@contextlib.asynccontextmanager
async def running(
    folder: pathlib.Path, server: controller.SimulatedController, *, agents: int
) -> AsyncIterator[int]:
    """Run a broker with so many warm agents; yield its process id. A drain ends it."""
    config = folder / "broker.yaml"
    config.write_text(
        _CONFIG.format(
            url=server.url,
            folder=folder,
            python=sys.executable,
            agent=pathlib.Path(controller.__file__).with_name("agent.py"),
            agents=agents,
        )
    )
    broker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "run", "--drain", "--config", str(config)),
        env={**os.environ, "TOKEN": "t"},
    )
    try:
        yield broker.pid
    finally:
        broker.terminate()
        await broker.wait()


async def serve(server: controller.SimulatedController, builds: int, *, at_once: int = 16) -> None:
    """Put so many builds through, each on an agent of its own.

    Longer than a poll: a single-use agent whose build nobody saw would be taken for unused.
    """
    for submitted in range(builds):
        while _open(server.sim) >= at_once:  # noqa: ASYNC110 -- the machine rings no bell
            await asyncio.sleep(0.02)
        server.submit(job=f"job-{submitted % 7}", label="single", duration_s=1.2)
    while _open(server.sim) or _agents(server.sim, "single"):  # noqa: ASYNC110 -- as above
        await asyncio.sleep(0.05)


def _open(sim: simulation.Simulation) -> int:
    return len(sim.wanted) + sum(not node.idle for node in sim.nodes.values())


def _agents(sim: simulation.Simulation, template: str) -> int:
    return sum(name.startswith(f"rest-{template}-") for name in sim.nodes)


async def main(seconds: float, agents: int, builds: int) -> None:
    """Measure and print."""
    watch, sim = clock.Clock(), simulation.Simulation()
    server = controller.SimulatedController(
        sim,
        now=watch.now,
        access=controller.Access(user="u", token="t"),  # noqa: S106 -- the simulation's
    )
    with tempfile.TemporaryDirectory() as folder:
        async with server, asyncio.TaskGroup() as group:
            clockwork = group.create_task(server.run(), name="clockwork")
            async with running(pathlib.Path(folder), server, agents=agents) as pid:
                while _agents(sim, "warm") < agents or len(server.requests) < 10:  # noqa: ASYNC110 -- as above
                    await asyncio.sleep(0.1)
                await asyncio.sleep(3)
                print(f"at the start: {usage(pid).rss_mib:.1f} MiB resident")
                if builds:
                    began = time.monotonic()
                    for part in range(1, 6):
                        await serve(server, builds // 5)
                        done = part * (builds // 5)
                        print(f"after {done} agents: {usage(pid).rss_mib:.1f} MiB resident")
                    print(f"(that took {time.monotonic() - began:.0f} s)")
                    await asyncio.sleep(5)
                await _rest(server, pid, seconds)
            clockwork.cancel()


async def _rest(server: controller.SimulatedController, pid: int, seconds: float) -> None:
    asked = len(server.requests)
    before = usage(pid)
    await asyncio.sleep(seconds)
    after = usage(pid)
    paths = collections.Counter(path for _, path in server.requests[asked:])
    print(f"at rest for {seconds:.0f} s: {after.rss_mib:.1f} MiB resident")
    print(f"  processor: {(after.cpu_s - before.cpu_s) / seconds * 3600:.0f} s per hour")
    for path, count in paths.most_common():
        if not path.startswith("simulated-agent"):
            print(f"  {count / seconds * 60:.0f} requests per minute: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What one broker costs at rest.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=0, help="kept warm meanwhile")
    parser.add_argument("--builds", type=int, default=0, help="single-use agents before")
    options = parser.parse_args()
    asyncio.run(main(options.seconds, options.agents, options.builds))
