"""Follows what every backend notices, each in a task; what they tell only wakes the loop.

Refuses to know what has changed: the next look shows it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping

from attrs import define, field

from backends import api as backends_api
from broker.core import model
from outside import waits

_LOG = logging.getLogger("broker.watches")
_END_S = 2.0  # a stream that does not end when told to is left to itself


@define(kw_only=True, eq=False)
class Watches:
    """The streams of all backends."""

    backends: Mapping[model.BackendName, backends_api.Backend]
    wake: Callable[[], None]
    outlived: Callable[[str], contextlib.AbstractContextManager[None]]  # counts our bugs
    pause_s: float  # before a stream that has ended is opened again
    _tasks: list[asyncio.Task[None]] = field(factory=list)

    def start(self, group: waits.TaskGroup) -> None:
        """Follow every backend from now on."""
        self._tasks = [
            group.create_task(self._watch(name, backend), name=f"watch {name}")
            for name, backend in self.backends.items()
        ]

    def stop(self) -> None:
        """Follow none."""
        for task in self._tasks:
            task.cancel()

    async def renew(self, group: waits.TaskGroup) -> None:
        """Begin anew: a backend that has followed for somebody who only looked on lists again."""
        self.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_S)
        self.start(group)

    async def _watch(self, name: str, backend: backends_api.Backend) -> None:
        """Turn what a backend notices into hints; a stream that ends is opened again."""
        while True:
            with self.outlived("watch"):
                try:
                    async for _ in backend.watch():
                        self.wake()
                except backends_api.BackendError as error:
                    _LOG.info("watch ended", extra={"backend": name, "reason": error.reason})
            await asyncio.sleep(self.pause_s)
