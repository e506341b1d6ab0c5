"""How long a look at many pods keeps the event loop from everything else.

Run: ``python -m benchmarks.kubernetes_look [--pods N]``. A fake API server in another process
holds pods as a real one recorded them, with their managed fields. Printed is the longest time
between two turns of the loop while something goes on. docs/performance.md holds what was measured.
"""

# ruff: noqa: S603, TID251, ARG005 -- our own commands; a measurement, not a model

import argparse
import asyncio
import contextlib
import copy
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from backends import api
from backends.kubernetes import backend, settings
from backends.kubernetes.pods import pod
from tests.kubernetes import fake, recorded

_ROUNDS = 7
_CHANGES = 10


async def serve(pods: int) -> None:
    """Be the API server, until somebody ends us; some pods change with every line read."""
    cluster = fake.Cluster()
    running = next(
        thing
        for _, kind, thing in recorded.events("pod-01")
        if kind == "MODIFIED" and thing["status"]["phase"] == "Running"
    )
    for number in range(pods):
        spec = api.InstanceSpec(
            name=f"look-{number}",
            metadata={"owner": "look", "template": "maven", "created": "1764000000.0"},
            image="jenkins/inbound-agent",
        )
        marks = pod.make(spec, owner="look").pod["metadata"]
        planted = copy.deepcopy(running)
        planted["metadata"] |= {**marks, "uid": f"uid-{number}"}
        cluster.put(planted, "ADDED")
    async with cluster.serving():
        print(cluster.url, flush=True)
        changed = 0
        while await asyncio.to_thread(sys.stdin.readline):
            for _ in range(_CHANGES):
                changed += 1
                cluster.change(f"look-{changed % pods}", lambda found: None)


class Gaps:
    """The longest time between two turns of the loop."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.longest_s = 0.0

    async def run(self) -> None:
        """Turn with the loop, for ever."""
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - self._last)
            self._last = now


@contextlib.asynccontextmanager
async def beside(work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run something meanwhile."""
    task = asyncio.ensure_future(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def gap(act: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Return the longest gap and the whole time of one act, in milliseconds."""
    gaps = Gaps()
    async with beside(gaps.run):
        await asyncio.sleep(0.01)
        gaps.longest_s, began = 0.0, time.perf_counter()
        await act()
        took = time.perf_counter() - began
        await asyncio.sleep(0)
    return gaps.longest_s * 1000, took * 1000


async def measured(what: str, act: Callable[[], Awaitable[object]]) -> None:
    """Print the best of some rounds: the machine has other work."""
    rounds = [await gap(act) for _ in range(_ROUNDS)]
    longest, took = (min(column) for column in zip(*rounds, strict=True))
    print(f"{what}: loop held up {longest:.1f} ms, took {took:.1f} ms")


async def main(url: str, server: "subprocess.Popen[str]", pods: int) -> None:
    """Measure everything."""
    ours = backend.KubernetesBackend(
        settings.KubernetesSettings(server=url, namespace="agents"), owner="look", now=time.time
    )
    heard = asyncio.Event()

    async def follow() -> None:
        async for _ in ours.watch():
            heard.set()

    await measured(f"full list of {pods} pods", ours.list)
    async with beside(follow):

        async def changed() -> None:
            heard.clear()
            server.stdin.write("\n")
            server.stdin.flush()
            await heard.wait()
            await ours.list()

        await asyncio.sleep(1)  # until the watch is open
        await changed()
        await measured(f"look at {pods} pods, nothing changed", ours.list)
        await measured(f"look at {pods} pods, {_CHANGES} changed", changed)
    await ours.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.pods))
        sys.exit()
    again = [sys.executable, "-m", "benchmarks.kubernetes_look", "--serve"]
    with subprocess.Popen(
        [*again, "--pods", str(options.pods)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            asyncio.run(main(line.strip(), server, options.pods))
        finally:
            server.kill()
