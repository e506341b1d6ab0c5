"""What a whole broker costs at rest, with each backend: one table.

Run: ``python -m benchmarks.memory_at_rest [--rounds N] [--docker URL] [KIND ...]``. Each round
starts one ``agent-broker run`` per backend, each in a fresh process, against a simulated
controller and the fakes of the tests in this one (a Docker engine has to be real), lets them
settle, reads ``/proc``, and reads their processor time again a while later. Shown are medians.

Rss counts every page that is mapped, also those of libraries that other processes share; Pss
divides the shared ones among those who map them; Uss is what ends with the process.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from typing import Any

import yaml
from attrs import frozen

from broker import clock
from broker.simulator import controller, simulation
from outside import waits
from tests.kubernetes import fake
from tests.mesos import master, wire

_LOOKS = 10  # before it counts as at rest: on a busy machine a start takes long
_SETTLE_S = 10.0
_REST_S = 30.0
_TOKEN = "a-token-of-eleven"  # noqa: S105 -- the simulation's
_AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
_CALLED = {
    "process": "process, one warm agent",
    "docker": "docker",
    "kubernetes": "kubernetes, service account",
    "kubeconfig": "kubernetes, kubeconfig",
    "mesos": "mesos, subscribed",
}


@frozen(kw_only=True)
class Cost:
    """Of one process: MiB, and seconds of processor time."""

    rss: float
    pss: float
    uss: float
    start_s: float
    hour_s: float


def memory(pid: int) -> tuple[float, float, float]:
    """Return Rss, Pss and Uss in MiB, as the kernel counts them."""
    told = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in told}
    uss = kib["Private_Clean"] + kib["Private_Dirty"]
    return kib["Rss"] / 1024, kib["Pss"] / 1024, uss / 1024


def processor_s(pid: int) -> float:
    """Return the time on a processor, of the process and of children that have ended."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def kubeconfig(folder: pathlib.Path, server: str) -> str:
    """Write a kubeconfig; return where."""
    path = folder / "kubeconfig"
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(told))
    return str(path)


@contextlib.asynccontextmanager
async def platforms(docker: str | None) -> AsyncIterator[Mapping[str, Mapping[str, Any]]]:
    """Serve what the backends talk to; yield the settings of each."""
    cluster = fake.Cluster()
    mesos = wire.Wire(master.Master(), step_s=0.05)
    async with cluster.serving(), mesos.serving():
        yield {
            "process": {"kind": "process"},
            "docker": {"kind": "docker", "hosts": [{"url": docker}]},
            "kubernetes": {"kind": "kubernetes", "namespace": "agents", "server": cluster.url},
            "kubeconfig": {"kind": "kubernetes", "namespace": "agents", "server": cluster.url},
            "mesos": {
                "kind": "mesos",
                "master": mesos.base,
                "handover": {"listen": "127.0.0.1:0", "url": "http://127.0.0.1:0"},
            },
        }


def write(kind: str, folder: pathlib.Path, url: str, told: Mapping[str, Any]) -> pathlib.Path:
    """Write the configuration of a broker with nothing to do; return where."""
    backend = dict(told)
    template: dict[str, Any] = {"labels": "nobody-asks", "image": "any"}
    if kind == "kubeconfig":
        backend["kubeconfig"] = kubeconfig(folder, backend.pop("server"))
    if kind == "process":
        template = {"labels": "x", "command": [sys.executable, "-S", str(_AGENT)]}
        template |= {"warm": {"min_idle": 1}, "retention": {"idle": "1h"}}
    document = {
        "owner": f"rest-{kind}",
        "controller": {"url": url, "user": "u", "token": "env:TOKEN"},
        "state_dir": str(folder / "state"),
        "listen": "127.0.0.1:0",
        "backends": {"there": backend},
        "templates": {"rare": template},
    }
    path = folder / "broker.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


async def measure(kind: str, told: Mapping[str, Any]) -> Cost:
    """Run one broker and measure it."""
    sim, access = simulation.Simulation(), controller.Accounts(user="u", token=_TOKEN)
    server = controller.SimulatedController(sim, now=clock.Clock().now, access=access)
    with tempfile.TemporaryDirectory() as name:
        async with server, waits.TaskGroup() as group:
            clockwork = group.create_task(server.run(), name="clockwork")
            config = write(kind, pathlib.Path(name), server.url, told)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "broker", "run", "--drain", "--config", str(config)),
                env={**os.environ, "TOKEN": _TOKEN},
                stderr=subprocess.DEVNULL,
            )
            try:
                while server.requests.count(("GET", "queue/api/json")) < _LOOKS:
                    if process.returncode is not None:
                        raise SystemExit(f"the broker of {kind} has ended: {process.returncode}")
                    await asyncio.sleep(0.1)
                await asyncio.sleep(_SETTLE_S)
                start = processor_s(process.pid)
                rss, pss, uss = memory(process.pid)
                await asyncio.sleep(_REST_S)
                used = processor_s(process.pid) - start
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
                clockwork.cancel()
    return Cost(rss=rss, pss=pss, uss=uss, start_s=start, hour_s=used * 3600 / _REST_S)


async def main(kinds: list[str], rounds: int, docker: str | None) -> None:
    """Measure and print."""
    found: dict[str, list[Cost]] = {kind: [] for kind in kinds}
    async with platforms(docker) as told:
        for _ in range(rounds):
            costs = await asyncio.gather(*(measure(kind, told[kind]) for kind in kinds))
            for kind, cost in zip(kinds, costs, strict=True):
                found[kind].append(cost)
    print("| backend | Rss MiB | Pss MiB | Uss MiB | processor to the start s | per hour s |")
    print("|---|---|---|---|---|---|")
    for kind, costs in found.items():
        middle = [
            statistics.median(getattr(cost, name) for cost in costs)
            for name in ("rss", "pss", "uss", "start_s", "hour_s")
        ]
        rest = " | ".join(f"{value:.1f}" for value in middle[:3])
        print(f"| {_CALLED[kind]} | {rest} | {middle[3]:.2f} | {middle[4]:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(_CALLED))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docker", default=os.environ.get("DOCKER_HOST"))
    options = parser.parse_args()
    chosen = options.kinds or [k for k in _CALLED if k != "docker" or options.docker]
    asyncio.run(main(chosen, options.rounds, options.docker))
