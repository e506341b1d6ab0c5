"""How fast pods start on a real cluster, and what the backend adds to what the API server takes.

Run: ``python -m benchmarks.kubernetes_start KUBECONFIG [start] [rate] [growth] [rest]``, in a
namespace without quota, limits or other pods. ``start`` needs a node with the image; the other
pods ask for a node that does not exist. docs/performance.md holds what was measured.
"""

# ruff: noqa: TID251 -- a measurement

import argparse
import asyncio
import contextlib
import os
import pathlib
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Iterable

import aiohttp

from backends import api
from backends.kit import names
from backends.kubernetes import backend, settings
from backends.kubernetes.api import access
from backends.kubernetes.pods import pod
from broker import clock

_OWNER = f"benchmark-{uuid.uuid4().hex[:6]}"
_IMAGE = "busybox:1.36"
_NOWHERE = {"agent-broker/benchmark": "nowhere"}
_ROUNDS = 5
_AT_ONCE = 20
_MIB = 1 << 20


def _spec(name: str, *, nowhere: bool = True) -> api.InstanceSpec:
    return api.InstanceSpec(
        name=f"{name}-{uuid.uuid4().hex[:8]}",
        metadata={names.OWNER: _OWNER, names.TEMPLATE: "benchmark"},
        image=_IMAGE,
        argv=("sh", "-c", "trap exit TERM; sleep 600 & wait"),
        secret_files={"secret": "0" * 64},
        options=settings.KubernetesTemplate(
            node_selector=_NOWHERE if nowhere else {}, image_pull_policy="IfNotPresent"
        ),
    )


async def _all(calls: Iterable[Awaitable[object]]) -> float:
    """Await all, so many at once as a broker does at most; return the seconds it took."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(call: Awaitable[object]) -> None:
        async with gate:
            await call

    began = time.perf_counter()
    await asyncio.gather(*(one(call) for call in calls))
    return time.perf_counter() - began


async def _remove(tested: api.Backend) -> None:
    await _all(tested.terminate(one.name, grace_s=0) for one in await tested.list())


async def start(told: settings.KubernetesSettings, tested: api.Backend) -> None:
    """Print the time of a launch, and that until the picture says that the pod runs."""
    calls, runs, ends = [], [], []
    for _ in range(_AT_ONCE):
        spec = _spec("start", nowhere=False)
        began = time.perf_counter()
        await tested.launch(spec)
        calls.append(time.perf_counter() - began)
        while True:
            states = [one.state for one in await tested.list()]  # a moment later it is there
            if states == [api.InstanceState.RUNNING]:
                break
            await asyncio.sleep(0.002)
        runs.append(time.perf_counter() - began)
        began = time.perf_counter()
        await tested.terminate(spec.name, grace_s=1)
        ends.append(time.perf_counter() - began)
    for name, seen_s in (("launch", calls), ("until it runs", runs), ("terminate", ends)):
        middle, most = statistics.median(seen_s), max(seen_s)
        print(f"{name:14} {middle * 1e3:6.0f} ms, at most {most * 1e3:.0f} ms, of {_AT_ONCE}")
    del told


async def rate(told: settings.KubernetesSettings, tested: api.Backend, count: int = 200) -> None:
    """Print the launches per second, beside the same two requests without us."""
    found = await access.find(told, clock=time.monotonic)
    url = f"{found.server}/api/v1/namespaces/{found.namespace}"
    connector = aiohttp.TCPConnector(ssl=found.tls or True)
    token = await found.tokens.get()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    alone, ours = [], []
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def plain(made: pod.Manifests) -> None:
            async with session.post(f"{url}/pods", json=made.pod) as answer:
                uid = (await answer.json())["metadata"]["uid"]
            async with session.post(f"{url}/secrets", json=made.secret(uid)) as answer:
                answer.raise_for_status()

        for _ in range(_ROUNDS):
            made = [pod.make(_spec("rate"), owner=_OWNER) for _ in range(count)]
            alone.append(count / await _all(plain(one) for one in made))
            await _remove(tested)
            specs = [_spec("rate") for _ in range(count)]
            ours.append(count / await _all(tested.launch(spec) for spec in specs))
            await _remove(tested)
    shares = [mine / its for mine, its in zip(ours, alone, strict=True)]
    print(
        f"{max(ours):.0f} launches per second, {_AT_ONCE} at once; the API server alone "
        f"{max(alone):.0f}; share {statistics.median(shares):.2f} "
        f"({min(shares):.2f} to {max(shares):.2f})"
    )


async def growth(
    told: settings.KubernetesSettings, tested: api.Backend, count: int = 1000
) -> None:
    """Print what the process grew by with pods in its picture, and after they are gone."""
    for number in range(3):
        await _all(tested.launch(_spec("growth")) for _ in range(count))
        held = len(await tested.list())
        print(f"round {number + 1}: {held} pods {_rss_mib():6.1f} MiB", end="")
        await _remove(tested)
        print(f", {len(await tested.list())} pods {_rss_mib():6.1f} MiB")
    del told


async def rest(
    told: settings.KubernetesSettings, tested: api.Backend, seconds: float = 30.0
) -> None:
    """Print the CPU that keeping the picture costs, with a look every second."""
    for count in (0, 1000):
        await _all(tested.launch(_spec("rest")) for _ in range(count))
        await asyncio.sleep(5)  # let the scheduler have its say
        began = time.process_time()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            await tested.list()
            await asyncio.sleep(1)
        used = time.process_time() - began
        print(f"{count:5} pods at rest: {used / seconds * 1e3:.1f} ms of CPU per second")
    await _remove(tested)
    del told


@contextlib.asynccontextmanager
async def _kept(told: settings.KubernetesSettings) -> AsyncIterator[api.Backend]:
    """Give the backend, its picture kept as the broker does."""
    tested = backend.KubernetesBackend(told, owner=_OWNER, now=clock.Clock().wall)

    async def keep() -> None:
        async for _ in tested.watch():
            pass

    await tested.list()
    keeper = asyncio.ensure_future(keep())
    try:
        yield tested
    finally:
        await _remove(tested)
        await tested.aclose()
        await keeper


def _rss_mib() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


_MEASURES = {"start": start, "rate": rate, "growth": growth, "rest": rest}


async def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kubeconfig")
    parser.add_argument("what", nargs="*", choices=[[], *_MEASURES])
    asked = parser.parse_args()
    told = settings.KubernetesSettings(kubeconfig=asked.kubeconfig)
    for name in asked.what or _MEASURES:
        async with _kept(told) as tested:
            await _MEASURES[name](told, tested)


if __name__ == "__main__":
    asyncio.run(main())
