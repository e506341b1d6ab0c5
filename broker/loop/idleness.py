"""Telling each backend which of its agents are idle, beside the loop.

Once for each change, one call at a time for each backend, at a pause; after a refusal a minute
later. Nothing waits for it and nothing depends on it. Refuses to decide who is idle, and to know
what a platform makes of it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

from attrs import define, field

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import idleness
from outside import waits

_LOG = logging.getLogger("broker.idleness")
_PAUSE_S = 2.0
_REFUSED_S = 60.0


@define(kw_only=True, eq=False)
class Telling:
    """What each backend was told, as far as it has made all of it."""

    backends: Mapping[model.BackendName, backends_api.Backend]
    now: Callable[[], float]
    time_limit_s: float
    outlived: Callable[[str], AbstractContextManager[None]]
    _done: dict[model.BackendName, frozenset[model.NodeName]] = field(factory=dict)
    _not_before: dict[model.BackendName, float] = field(factory=dict)
    _tasks: dict[model.BackendName, asyncio.Task[None]] = field(factory=dict)

    def begin(self, agents: Iterable[model.Agent], group: waits.TaskGroup) -> None:
        """Begin to tell whoever has not been told this; ``agents`` as a whole look shows them."""
        now = self.now()
        idle = idleness.idle(agents, now=now)
        for name, backend in self.backends.items():
            names = idle.get(name, frozenset())
            is_due = now >= self._not_before.get(name, 0.0) and name not in self._tasks
            if is_due and self._done.get(name) != names:
                work = self._tell(name, backend, names)
                self._tasks[name] = group.create_task(work, name=f"tell {name} who is idle")

    def forget(self) -> None:
        """Tell everybody anew: another broker has told them something else meanwhile."""
        self._done.clear()

    def stop(self) -> None:
        """Leave what is under way where it is; the next broker is told anew who is idle."""
        for task in self._tasks.values():
            task.cancel()

    async def _tell(
        self,
        name: model.BackendName,
        backend: backends_api.Backend,
        names: frozenset[model.NodeName],
    ) -> None:
        pause_s = _REFUSED_S
        try:
            with self.outlived("telling who is idle"):
                pause_s = await self._told(name, backend, names)
        finally:
            self._tasks.pop(name, None)
            self._not_before[name] = self.now() + pause_s

    async def _told(
        self,
        name: model.BackendName,
        backend: backends_api.Backend,
        names: frozenset[model.NodeName],
    ) -> float:
        """Return the seconds until there is something to tell again."""
        try:
            async with waits.timeout(self.time_limit_s):
                if await backends_api.tell_idle(backend, names):
                    self._done[name] = names
        except (backends_api.BackendError, TimeoutError) as error:
            _LOG.info("not told who is idle", extra={"backend": name, "reason": str(error)})
            return _REFUSED_S
        return _PAUSE_S
