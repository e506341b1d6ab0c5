"""Whether a broker grows with the agents it has had.

Run: ``python -m benchmarks.broker_growth [BUILDS] [--docker URL]``. The real command runs as a
process of its own with the process backend, or with a Docker engine, against the simulated
controller in this one; every build goes through an agent of its own.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator

from broker import clock
from broker.demo import image
from broker.simulator import controller, simulation
from outside import waits

_SETTLE_S = 15.0
_CONFIG = """\
owner: growth
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
state_dir: {folder}/state
listen: "127.0.0.1:0"
log: {{level: warning}}
{where}
templates:
  single: {{labels: single, cap: 16, retention: {{once: true, idle: 5s}}}}
"""

_PROCESS = """\
defaults:
  command: ["{python}", "-S", "{agent}"]"""
_DOCKER = """\
backends: {{engine: {{kind: docker, hosts: [{{url: "{engine}"}}]}}}}
defaults:
  command: ["{agent}"]
  image: {image}
  docker: {{network: host, pull: never}}"""


def resident_mib(pid: int) -> float:
    """Return how much memory a process holds, from the kernel."""
    pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.asynccontextmanager
async def running(
    folder: pathlib.Path, server: controller.SimulatedController, *, docker: str | None = None
) -> AsyncIterator[int]:
    """Run a broker; yield its process id. A drain ends it."""
    if docker is None:
        agent = pathlib.Path(controller.__file__).with_name("agent.py")
        where = _PROCESS.format(python=sys.executable, agent=agent)
    else:
        await image.build(docker)
        where = _DOCKER.format(engine=docker, agent=image.AGENT, image=image.NAME)
    config = folder / "broker.yaml"
    config.write_text(_CONFIG.format(url=server.url, folder=folder, where=where))
    broker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker", "run", "--drain", "--config", str(config)),
        env={**os.environ, "TOKEN": "a-token-of-eleven"},
    )
    try:
        yield broker.pid
    finally:
        broker.terminate()
        await broker.wait()


async def serve(server: controller.SimulatedController, builds: int, *, at_once: int = 16) -> None:
    """Put so many builds through, each on an agent of its own.

    Longer than a poll: a single-use agent whose build nobody saw is taken for unused; on a busy
    machine some are, and go for idleness.
    """
    for submitted in range(builds):
        while _open(server.sim) >= at_once:  # noqa: ASYNC110 -- the machine rings no bell
            await asyncio.sleep(0.02)
        server.submit(job=f"job-{submitted % 7}", label="single", duration_s=1.2)
    while _open(server.sim) or len(server.sim.nodes) > 1:  # noqa: ASYNC110 -- as above
        await asyncio.sleep(0.05)


def _open(sim: simulation.Simulation) -> int:
    return len(sim.wanted) + sum(not node.idle for node in sim.nodes.values())


async def main(builds: int, docker: str | None) -> None:
    """Measure and print."""
    watch, sim = clock.Clock(), simulation.Simulation()
    access = controller.Accounts(user="u", token="a-token-of-eleven")  # noqa: S106 -- the simulation's
    server = controller.SimulatedController(sim, now=watch.now, access=access)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with server, waits.TaskGroup() as group:
            clockwork = group.create_task(server.run(), name="clockwork")
            async with running(pathlib.Path(folder), server, docker=docker) as pid:
                await asyncio.sleep(_SETTLE_S)
                print(f"at the start: {resident_mib(pid):.1f} MiB resident")
                for part in range(1, 6):
                    await serve(server, builds // 5)
                    await asyncio.sleep(_SETTLE_S)
                    size = resident_mib(pid)
                    print(f"after {part * (builds // 5)} agents: {size:.1f} MiB resident")
            clockwork.cancel()
    print(f"(that took {time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("builds", type=int, nargs="?", default=1000)
    parser.add_argument("--docker", metavar="URL", help="with this engine, not with processes")
    options = parser.parse_args()
    asyncio.run(main(options.builds, options.docker))
