"""Waking up when a supervisor ends, without asking again and again.

The kernel makes a pidfd readable when its process ends; where it has none (before Linux 5.3, some
sandboxes) the followed processes are looked at every quarter of a second. Refuses to know
instances; a wake-up carries nothing.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator

from backends.process import proc
from outside import waits

POLL_S = 0.25


class Watcher:
    """Follows processes; ``wait`` returns after one of them has ended."""

    def __init__(self) -> None:
        self._files: dict[proc.Process, int] = {}
        self._polled: set[proc.Process] = set()
        self._wakers: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, process: proc.Process) -> None:
        """Follow one more until it ends; wakes when it is gone already."""
        self._loop = asyncio.get_running_loop()
        if process in self._files or process in self._polled:
            return
        try:
            file = proc.open_pidfd(process)
        except OSError:
            self._polled.add(process)
            return
        if file is None:
            self.wake()
            return
        self._files[process] = file
        self._loop.add_reader(file, self._ended, process)

    def wake(self) -> None:
        """Wake everybody who waits."""
        for waker in self._wakers:
            waker.set()

    async def wait(self, waker: asyncio.Event, *, at_most_s: float) -> bool:
        """Wait for the end of a followed process; False when the time is over."""
        end = asyncio.get_running_loop().time() + at_most_s
        while not waker.is_set():
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with waits.timeout(min(POLL_S, left) if self._polled else left):
                    await waker.wait()
            ended = {process for process in self._polled if not proc.alive(process)}
            if ended:
                self._polled -= ended
                self.wake()
        waker.clear()
        return True

    async def gone(self, process: proc.Process, *, within_s: float) -> bool:
        """Wait until a process has ended; False when it still runs after ``within_s``."""
        end = asyncio.get_running_loop().time() + within_s
        with self.listening() as waker:
            while proc.alive(process):
                self.add(process)
                left = end - asyncio.get_running_loop().time()
                if left <= 0 or not await self.wait(waker, at_most_s=left):
                    return not proc.alive(process)
        return True

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Give a waker that is woken until the block ends."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            yield waker
        finally:
            self._wakers.discard(waker)

    def close(self) -> None:
        """Let go of everything and wake everybody."""
        for process in list(self._files):
            self._let_go(process)
        self._polled.clear()
        self.wake()

    def _ended(self, process: proc.Process) -> None:
        self._let_go(process)
        proc.reap(process.pid)
        self.wake()

    def _let_go(self, process: proc.Process) -> None:
        file = self._files.pop(process)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(file)
        os.close(file)
