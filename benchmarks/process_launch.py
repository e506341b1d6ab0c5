"""How fast the process backend launches and terminates, and what each agent costs in memory.

Run: ``python benchmarks/process_launch.py [--count N]``. Every agent is a real ``/bin/sleep``
under a real supervisor, in a temporary directory. docs/performance.md holds what was measured.
"""

import argparse
import asyncio
import pathlib
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence

from backends import api, registry
from backends.kit import names

_KIB = 1024


class _NoStore:
    """The process backend keeps nothing in a store."""

    def load(self, key: str) -> str | None:
        raise KeyError(key)

    def save(self, key: str, value: str) -> None:
        raise KeyError(key, value)


def _spec(number: int) -> api.InstanceSpec:
    return api.InstanceSpec(
        name=f"agent-{number}",
        metadata={names.OWNER: "benchmark", names.TEMPLATE: "sleep"},
        argv=("/bin/sleep", "3600"),
        secret_files={"secret": "0" * 64},
    )


async def _timed(work: Callable[[int], Awaitable[None]], number: int) -> float:
    start = time.perf_counter()
    await work(number)
    return time.perf_counter() - start


async def _measure(
    words: str, work: Callable[[int], Awaitable[None]], numbers: Sequence[int], *, at_once: bool
) -> None:
    """Do the work for every number, one after the other or all at once; print what it took."""
    start, used = time.perf_counter(), _processor_s()
    if at_once:
        took = list(await asyncio.gather(*(_timed(work, number) for number in numbers)))
    else:
        took = [await _timed(work, number) for number in numbers]
    total, used = time.perf_counter() - start, _processor_s() - used
    p50, p95 = statistics.median(took), statistics.quantiles(took, n=20)[-1]
    print(
        f"{words:32} {len(numbers) / total:7.1f} per second   "
        f"p50 {p50 * 1000:7.1f} ms   p95 {p95 * 1000:7.1f} ms   "
        f"processor {used / len(numbers) * 1000:6.1f} ms each"
    )


def _processor_s() -> float:
    """Return the processor time of this process and of what it has waited for (the launchers)."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _supervisor_memory(root: pathlib.Path) -> dict[str, list[int]]:
    """Return Rss, Pss and private memory, in KiB, of every supervisor below ``root``."""
    found: dict[str, list[int]] = {"Rss": [], "Pss": [], "Private": []}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            argv = (entry / "cmdline").read_bytes()
            if b"supervisor.py" not in argv or str(root).encode() not in argv:
                continue
            rollup = (entry / "smaps_rollup").read_text().splitlines()[1:]
        except OSError:
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
        found["Rss"].append(sizes["Rss"])
        found["Pss"].append(sizes["Pss"])
        found["Private"].append(sizes["Private_Clean"] + sizes["Private_Dirty"])
    return found


async def _run(root: pathlib.Path, count: int) -> None:
    made = registry.create(
        "process",
        registry.settings_class("process")(),
        owner="benchmark",
        store=_NoStore(),
        state_dir=root,
        now=time.monotonic,
    )

    async def launch(number: int) -> None:
        await made.launch(_spec(number))

    async def terminate(number: int) -> None:
        await made.terminate(f"agent-{number}", grace_s=5)

    async def look(_: int) -> None:
        await made.list()

    few, many = range(20), range(20, 20 + count)
    try:
        await _measure("launch, one after the other", launch, few, at_once=False)
        await _measure(f"launch, {count} at once", launch, many, at_once=True)
        await _measure(f"list of {count + 20}", look, range(20), at_once=False)
        for kind, sizes in _supervisor_memory(root).items():
            told = statistics.median(sizes) / _KIB
            print(f"supervisor, {kind:20} {told:7.1f} MiB (median of {len(sizes)})")
        await _measure("terminate, one after the other", terminate, few, at_once=False)
        await _measure(f"terminate, {count} at once", terminate, many, at_once=True)
    finally:
        for instance in await made.list():
            await made.terminate(instance.name, grace_s=0)
        await made.aclose()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="launches at once (default 100)")
    arguments = parser.parse_args()
    print(f"Python {sys.version.split()[0]}")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_run(pathlib.Path(folder), arguments.count))


if __name__ == "__main__":
    main()
