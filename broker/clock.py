"""The broker's clock: POSIX seconds that never jump.

It is set by the wall clock once, at the start, and runs with the monotonic clock from then on, so
that a clock that is put forward or back changes no age, no deadline and no back-off of ours.
Weekly schedules are the one thing that asks the wall clock itself. Refuses to sleep.
"""

import time
from collections.abc import Callable


class Clock:
    """Seconds since 1970 as of the start of this process, plus what has passed since."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,  # noqa: TID251 -- this module is where it belongs
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Return POSIX seconds; never goes back."""
        return self._monotonic() + self._offset

    def wall(self) -> float:
        """Return what the wall clock says, jumps included: for schedules only."""
        return self._wall()


def elapsed() -> float:
    """Return seconds that only grow, also while the machine sleeps, where the system counts that.

    ``time.monotonic`` stands still during a suspend on Linux: what may be done for some seconds
    after something would then be done hours later.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
