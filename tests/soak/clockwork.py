"""An event loop whose time is a number: nobody waits, the next thing due is now.

What a step of the loop takes is measured, without what the world around the broker took of it
(``outside``). On a machine that is busy with something else that is more than it costs.
"""

import asyncio
import contextlib
import selectors
import time

START = 1_800_000_000.0
"""POSIX seconds when the loop's clock says 0."""


class _Selector(selectors.SelectSelector):
    """Lets time pass in the place of waiting."""

    def __init__(self, clockwork):
        super().__init__()
        self._clockwork = clockwork

    def select(self, timeout=None):
        if timeout is None:
            raise RuntimeError("everybody waits for ever")
        self._clockwork.pass_time(timeout)
        return []


class Clockwork(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self):
        self._seconds = 0.0
        self._outside_s = 0.0
        self._awake_since = time.perf_counter()
        self.longest_s = 0.0  # that one step has taken
        self.longest_at = 0.0  # on the loop's clock
        super().__init__(_Selector(self))

    def time(self):
        return self._seconds

    @property
    def now(self):
        """POSIX seconds, as everybody here agrees on."""
        return START + self._seconds

    def pass_time(self, seconds):
        took_s = time.perf_counter() - self._awake_since - self._outside_s
        if took_s > self.longest_s:
            self.longest_s, self.longest_at = took_s, self._seconds
        self._seconds += max(0.0, seconds)
        self._outside_s = 0.0
        self._awake_since = time.perf_counter()

    @contextlib.contextmanager
    def outside(self):
        """Of the time in here the broker is not guilty."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._outside_s += time.perf_counter() - began
