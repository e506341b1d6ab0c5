"""What it costs others that something hangs: cold starts beside it, and the broker's end.

``python benchmarks/hung.py [--starts N] [--ends N] [--tree FOLDER]`` starts a simulated controller
and a broker as a program for each side: the process backend alone, or with a Docker engine, a
Mesos master or an API server beside it that accepts every connection and says nothing. Builds are
submitted to the sides in turns, and what is measured is the time from the queue to the start of
the build; its agent is a real process, single use, started cold. Then every broker is ended by
SIGTERM, also one whose controller hangs. ``--tree``: of another checkout, to compare.
"""

import argparse
import asyncio
import contextlib
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable

from attrs import define, field

from broker import clock
from broker.simulator import controller, simulation

_CONFIG = """\
owner: {owner}
controller: {{url: "{url}"}}
state_dir: {folder}/state
listen: 127.0.0.1:0
backends:
  local: {{kind: process, directory: {folder}/agents}}
{beside}
templates:
  linux:
    labels: linux
    backends: [local]
    command: ["{python}", "-S", "{agent}"]
    retention: {{once: true, idle: 30s}}
{more}
"""
_MORE = "  there: {{labels: there, backends: [beside], image: nobody/asks, command: [agent]{way}}}"
_WAYS = {"mesos": ", mesos: {secrets: environment}"}
_BESIDE = {
    "alone": "",
    "docker": "  beside: {{kind: docker, hosts: [{{url: 'tcp://127.0.0.1:{port}'}}]}}",
    "mesos": "  beside: {{kind: mesos, master: 'http://127.0.0.1:{port}'}}",
    "kubernetes": "  beside: {{kind: kubernetes, namespace: agents, token_file: {token}, "
    "server: 'http://127.0.0.1:{port}'}}",
}
_AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
_WITHIN_S = 90.0


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, read and never answer."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()


@define
class Side:
    """A broker, its controller, and what it has measured."""

    name: str
    tree: pathlib.Path
    took_s: list[float] = field(factory=list)
    end_s: list[float] = field(factory=list)

    @contextlib.asynccontextmanager
    async def at_work(
        self, port: int, *, url: str = ""
    ) -> AsyncIterator[tuple[controller.SimulatedController, asyncio.subprocess.Process]]:
        """Run both; give the controller and the broker's process."""
        sim = simulation.Simulation()
        async with contextlib.AsyncExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = controller.SimulatedController(sim, now=clock.Clock().now)
            await stack.enter_async_context(server)
            clockwork = asyncio.ensure_future(server.run())  # noqa: TID251 -- no broker, no group
            stack.callback(clockwork.cancel)
            (folder / "token").write_text("nobody-asks-for-it")
            config = folder / "broker.yaml"
            beside = _BESIDE.get(self.name, "")
            config.write_text(
                _CONFIG.format(
                    owner=f"bench-{random.randrange(10**6)}",  # noqa: S311 -- a name
                    url=url or server.url,
                    folder=folder,
                    python=sys.executable,
                    agent=_AGENT,
                    beside=beside.format(port=port, token=folder / "token"),
                    more=_MORE.format(way=_WAYS.get(self.name, "")) if beside else "",
                )
            )
            arguments = (sys.executable, "-m", "broker", "run", "--config", str(config))
            with (folder / "log").open("wb") as log:
                process = await asyncio.create_subprocess_exec(
                    *arguments, cwd=self.tree, stdout=log, stderr=subprocess.STDOUT
                )
            try:
                if not url:
                    # the placeholder: it is at work
                    await _until(lambda: bool(sim.nodes) or process.returncode is not None)
                await asyncio.sleep(8.0)
                yield server, process
            except SystemExit:
                print((folder / "log").read_text())
                raise
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    async def start(self, server: controller.SimulatedController) -> None:
        """Measure one build: from the queue to its start."""
        began = time.monotonic()
        # long enough to be seen, or its agent would serve the next one
        item = server.sim.items[server.submit(job="b", label="linux", duration_s=2.5)]
        await _until(lambda: item.started_at is not None)
        self.took_s.append(time.monotonic() - began)

    async def end(self, process: asyncio.subprocess.Process) -> None:
        """Measure an end by SIGTERM."""
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await process.wait()
        self.end_s.append(time.monotonic() - began)


async def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + _WITHIN_S
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"not within {_WITHIN_S:.0f} s")
        await asyncio.sleep(0.01)


async def _cold_starts(sides: list[Side], port: int, count: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = {
            side.name: await stack.enter_async_context(side.at_work(port)) for side in sides
        }
        for _ in range(count):
            for side in random.sample(sides, len(sides)):
                await side.start(running[side.name][0])
                await asyncio.sleep(random.uniform(2.5, 3.5))  # noqa: S311 -- at rest again


async def _ends(sides: list[Side], port: int, count: int) -> None:
    silent = f"http://127.0.0.1:{port}/"
    for _ in range(count):
        for side in sides:
            url = silent if side.name == "controller" else ""
            async with side.at_work(port, url=url) as (_, process):
                await side.end(process)


def _told(words: str, took: list[float], alone: list[float]) -> None:
    if took:
        quarters = statistics.quantiles(took, n=4) if len(took) > 1 else took * 3
        ratio = statistics.median(took) / statistics.median(alone)
        print(
            f"{words:28} median {statistics.median(took):6.2f} s, half of them {quarters[0]:.2f} "
            f"to {quarters[2]:.2f}, all {min(took):.2f} to {max(took):.2f}, {len(took)} times, "
            f"ratio {ratio:.2f}"
        )


async def _main(starts: int, ends: int, tree: pathlib.Path) -> None:
    silent = await asyncio.start_server(_silent, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    sides = [Side(name, tree) for name in _BESIDE]
    if starts:
        await _cold_starts(sides, port, starts)
    for side in sides:
        _told(f"cold start, {side.name}", side.took_s, sides[0].took_s)
    sides.append(Side("controller", tree))
    await _ends(sides, port, ends)
    for side in sides:
        _told(f"end, {side.name}", side.end_s, sides[0].end_s)
    silent.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--starts", type=int, default=15, help="of each side")
    parser.add_argument("--ends", type=int, default=3, help="of each side")
    parser.add_argument("--tree", type=pathlib.Path, default=pathlib.Path.cwd())
    given = parser.parse_args()
    asyncio.run(_main(given.starts, given.ends, given.tree))
