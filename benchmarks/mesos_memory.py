"""What the Mesos backend costs a broker: memory subscribed, with 200 agents, and after 1000.

Run: ``python -m benchmarks.mesos_memory [--rounds N]``. The backend alone in a process that has
loaded all of a broker, against the tests' fake master (317 agents of 12 cores) in another. A whole
broker at rest: ``python -m benchmarks.memory_at_rest mesos``. docs/performance.md has the figures.
"""

# ruff: noqa: S603, TID251, ASYNC110 -- our own command; a measurement, not a model

import argparse
import asyncio
import gc
import pathlib
import re
import subprocess
import sys
import time

import broker.app  # noqa: F401 -- what a broker has loaded counts
from backends import api
from backends.mesos import backend, settings

_AT_ONCE = 200


class _Store:
    def load(self, key: str) -> str | None:  # noqa: ARG002 -- nothing is kept
        return None

    def save(self, key: str, value: str) -> None:
        """Nobody comes back."""


def rss() -> float:
    """Resident memory of this process in MiB."""
    told = re.search(r"VmRSS:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())
    return int(told[1]) / 1024 if told else 0.0


async def serve() -> None:
    """Be the master, until somebody ends us."""
    from tests.mesos import master, wire  # noqa: PLC0415 -- not in the process that is measured

    agents = [
        master.Agent(id=f"S{n}", hostname=f"agent-{n}", cpus=12, mem=40_000) for n in range(317)
    ]
    machine = master.Master(agents=agents, wall=time.time())
    async with wire.Wire(machine).serving() as served:
        print(served.base, flush=True)
        await asyncio.sleep(3600)


async def measure(address: str, rounds: int) -> None:
    """Launch, list and terminate, again and again."""
    told = settings.MesosSettings(master=address, offer_timeout_s=60, request_timeout_s=60)
    store, folder = _Store(), pathlib.Path()
    ours = backend.create(told, owner="many", store=store, state_dir=folder, now=time.time)
    await ours.list()
    print(f"subscribed, at rest: {rss():.1f} MiB")
    for number in range(rounds):
        names = [f"many-{number}-{n}" for n in range(_AT_ONCE)]
        began = time.monotonic()
        await asyncio.gather(*(ours.launch(_spec(name)) for name in names))
        rate = _AT_ONCE / (time.monotonic() - began)
        while len(await ours.list()) < _AT_ONCE:
            await asyncio.sleep(0.1)
        full = rss()
        await asyncio.gather(*(ours.terminate(name, grace_s=0) for name in names))
        gc.collect()
        count = (number + 1) * _AT_ONCE
        print(
            f"{count} launched, {rate:.0f}/s: {full:.1f} MiB with {_AT_ONCE}, {rss():.1f} without"
        )
    await ours.aclose()


def _spec(name: str) -> api.InstanceSpec:
    return api.InstanceSpec(
        name=name,
        metadata={"owner": "many", "template": "t"},
        argv=("java", "-jar", "agent.jar", "-url", "http://controller/"),
        secret_files={"agent-secret": "x" * 64},
        options=settings.MesosTemplate(default_cpus=0.4),
    )


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    again = [sys.executable, "-m", "benchmarks.mesos_memory", "--serve"]
    with subprocess.Popen(again, stdout=subprocess.PIPE, text=True) as server:
        try:
            if server.stdout is not None:
                asyncio.run(measure(server.stdout.readline().strip(), options.rounds))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
