"""What one broker does while nothing happens: start-up, requests, threads.

What it costs in memory and processor time is measured by ``memory_at_rest``.

``python benchmarks/broker_at_rest.py [SECONDS]`` starts a simulated controller here and a broker
as a program, with the process backend and one warm agent, and reads /proc.
"""

# ruff: noqa: ASYNC110, ASYNC240 -- it measures another process and may wait itself

import asyncio
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from broker import clock
from broker.simulator import controller, simulation

_CONFIG = """\
owner: rest
controller: {{url: "{url}"}}
state_dir: {folder}
listen: 127.0.0.1:0
templates:
  linux:
    labels: linux
    command: ["{python}", "-S", "{agent}"]
    warm: {{min_idle: 1}}
    retention: {{idle: 1h}}
"""
_AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
_IMPORT = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def _imported(what: str) -> float:
    """Return the median of seven imports in fresh interpreters, in seconds."""
    code = [sys.executable, "-c", _IMPORT.format(what)]
    return sorted(float(subprocess.check_output(code)) for _ in range(7))[3]  # noqa: S603 -- our own


def _status(pid: int, field: str) -> int:
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(field))


async def _main(seconds: float) -> None:
    sim = simulation.Simulation()
    with tempfile.TemporaryDirectory() as folder:
        async with controller.SimulatedController(sim, now=clock.Clock().now) as server:
            clockwork = asyncio.ensure_future(server.run())  # noqa: TID251 -- no broker, no group
            config = pathlib.Path(folder, "broker.yaml")
            config.write_text(
                _CONFIG.format(url=server.url, folder=folder, python=sys.executable, agent=_AGENT)
            )
            arguments = (sys.executable, "-m", "broker", "run", "--config", str(config), "--drain")
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(*arguments, stderr=subprocess.DEVNULL)
            while not server.requests:
                await asyncio.sleep(0.005)
            first = time.perf_counter() - began
            await asyncio.sleep(10.0)  # until the warm agent is there and the polling is slow
            asked = len(server.requests)
            await asyncio.sleep(seconds)
            asked = len(server.requests) - asked
            print(f"start to the first request   {first:.2f} s")
            print(f"threads                      {_status(process.pid, 'Threads')}")
            print(f"requests at rest             {asked / seconds:.2f} per second")
            process.send_signal(signal.SIGTERM)
            await process.wait()
            clockwork.cancel()
    print(f"import aiohttp.web           {1000 * _imported('aiohttp.web'):.0f} ms")
    print(f"import broker.cli.main            {1000 * _imported('broker.cli.main'):.0f} ms")


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0))
