"""What the Kubernetes backend costs with many pods, and afterwards.

Run: ``python -m benchmarks.kubernetes_memory [--pods N]``. The backend alone, in a process that
has loaded all of a broker, against a fake API server in another one. What a whole broker costs at
rest is measured by ``memory_at_rest``.
"""

# ruff: noqa: S603, TID251, ASYNC110 -- our own commands; a measurement, not a model

import argparse
import asyncio
import pathlib
import re
import subprocess
import sys
import time

import broker.cli.main  # noqa: F401 -- what a broker has loaded counts
from backends import api
from backends.kubernetes import backend, settings
from tests.kubernetes import fake

_ROUNDS = 3


def rss(pid: int | str = "self") -> float:
    """Resident memory of a process in MiB."""
    told = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", told)
    return int(found[1]) / 1024 if found else 0.0


async def serve() -> None:
    """Be the API server, until somebody ends us."""
    async with fake.Cluster().serving() as cluster:
        print(cluster.url, flush=True)
        await asyncio.sleep(3600)


async def many(server: str, pods: int) -> None:
    """Memory of the backend alone with many pods, again and again."""
    ours = backend.KubernetesBackend(
        settings.KubernetesSettings(server=server, namespace="agents"), owner="many", now=time.time
    )

    async def follow() -> None:
        async for _ in ours.watch():
            pass

    task = asyncio.ensure_future(follow())
    await ours.list()
    print(f"backend alone, at rest: {rss():.1f} MiB")
    for number in range(_ROUNDS):
        names = [f"many-{number}-{n}" for n in range(pods)]
        gate = asyncio.Semaphore(20)

        async def one(name: str, gate: asyncio.Semaphore = gate) -> None:
            async with gate:
                await ours.launch(
                    api.InstanceSpec(name=name, metadata={"owner": "many"}, image="busybox")
                )

        began = time.monotonic()
        await asyncio.gather(*map(one, names))
        rate = pods / (time.monotonic() - began)
        while len(await ours.list()) < pods:
            await asyncio.sleep(0.1)
        looks = time.monotonic()
        await ours.list()
        looks = time.monotonic() - looks
        full = rss()

        async def end(name: str, gate: asyncio.Semaphore = gate) -> None:
            async with gate:
                await ours.terminate(name, grace_s=0)

        await asyncio.gather(*map(end, names))
        while await ours.list():
            await asyncio.sleep(0.1)
        print(
            f"round {number + 1}: {rate:.0f} launches/s, {pods} pods {full:.1f} MiB, a look "
            f"{looks * 1000:.1f} ms, afterwards {rss():.1f} MiB"
        )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ours.aclose()


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    again = [sys.executable, "-m", "benchmarks.kubernetes_memory", "--serve"]
    with subprocess.Popen(again, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            asyncio.run(many(url, options.pods))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
