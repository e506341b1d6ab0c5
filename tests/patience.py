"""How long tests wait: the seconds that are given are those of a machine that has nothing else to do.

On one that is slow or busy they last longer, and what is over is counted as it goes: a machine that
becomes busy in the middle of a wait makes the rest of it longer. One notion for all of it: the
waits of tests, their limits (``tests/conftest.py``) and what they allow the product.
"""

import asyncio
import contextlib
import os
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from outside import waits

T = TypeVar("T")

_LOOK_S = 0.25
_MOST = 50.0
_WORK_S = 0.007  # what the work below takes on a processor of 2020
_HASTE = 0.1  # how much of a new look counts


class _Machine:
    """Counts who wants a processor, and how many there are."""

    def __init__(self) -> None:
        self._processors = _processors()
        self._slow = min(max(1.0, min(_work_s() for _ in range(3)) / _WORK_S), 10.0)
        self._waiting, self._looked_at = 0.0, 0.0

    def slowness(self) -> float:
        """Return how many times longer than on a fast, idle machine something takes now."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_S:
            self._looked_at = now
            load, _, _, tasks, _ = pathlib.Path("/proc/loadavg").read_text().split()
            running = float(tasks.split("/")[0])
            self._waiting += _HASTE * (running - self._waiting)
            self._waiting = max(self._waiting, float(load))
        return min(_MOST, self._slow * max(1.0, self._waiting / self._processors))


def _processors() -> float:
    """Return how many processors we may use; a container may have a part of one."""
    count = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, int(quota) / int(period))
    return count


def fifty_ms() -> float:
    """Return the processor's seconds that 50 ms of an ordinary machine take on this one, now."""
    began = time.thread_time()
    total = 0
    for number in range(250_000):
        total += number & 3
    return 4 * (time.thread_time() - began)


def _work_s() -> float:
    """Return the processor's seconds for a piece of work; others' work does not count."""
    began = time.thread_time()
    sum(number * number for number in range(100_000))
    return time.thread_time() - began


_MACHINE = _Machine()


def slowness() -> float:
    """Return how many times longer than on a fast, idle machine something takes now; 1 or more."""
    return _MACHINE.slowness()


def seconds(least: float) -> float:
    """Return a limit for what is given one beforehand: a program, a thread, the product."""
    return least * max(4.0, 2 * slowness())


class Patience:
    """A limit that is looked at now and then."""

    def __init__(self, given_s: float) -> None:
        self.left_s = given_s
        self._looked_at = time.monotonic()

    def is_over(self) -> bool:
        """Take off what has passed since the last look; tell whether nothing is left."""
        now = time.monotonic()
        self.left_s -= (now - self._looked_at) / slowness()
        self._looked_at = now
        return self.left_s <= 0


@contextlib.asynccontextmanager
async def limit(given_s: float) -> AsyncIterator[asyncio.Timeout]:
    """Raise TimeoutError when what is inside takes longer, as ``asyncio.timeout`` does."""
    loop, patience = asyncio.get_running_loop(), Patience(given_s)
    async with waits.timeout(None) as made:

        def look() -> None:
            nonlocal handle
            if patience.is_over():
                made.reschedule(loop.time())
            else:
                handle = loop.call_later(max(0.01, min(_LOOK_S, patience.left_s)), look)

        handle = loop.call_later(0, look)
        try:
            yield made
        finally:
            handle.cancel()


async def wait_for(awaited: Awaitable[T], given_s: float) -> T:
    """Return what it returns; raise TimeoutError when it takes longer."""
    async with limit(given_s):
        return await awaited
