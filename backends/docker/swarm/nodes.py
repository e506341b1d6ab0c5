"""Engines of nodes that can be reached: what only they know of a container.

A manager tells a kill for memory from no other, and says nothing of a process that was killed
beside the agent. Each engine is followed, because the kernel's kills are in its events, which wake
the watch before a look would. Nobody waits long for one: what they know is more than a
certificate needs. Refuses to know tasks and services.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from backends import api
from backends.docker.containers import caches, death, renewal
from backends.docker.engine import answers, client, events
from backends.kit import sampling
from outside import text, waits

_PATIENCE_S = 4.0
_CLEAR_S = 8.0
_EVENTS_S = 1.0  # within which the reason of an end is told, once the end is
_LOOK_S = 0.1
_KILLED = 137


@frozen(eq=False)
class _Reached:
    engine: client.Engine
    follower: events.Follower


class NodeEngines:
    """The engines that can be reached; one object for each event loop."""

    def __init__(
        self, engines: Sequence[client.Engine], labels: Mapping[str, str], now: Callable[[], float]
    ) -> None:
        """``labels``: of the containers that are followed."""
        self._now = now
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._reached = [
            _Reached(one, events.Follower(one, labels, wake=self._wake, now=now))
            for one in engines
        ]
        self._having: dict[str, client.Engine | None] = {}  # by container; None: none that answers
        self._sampler = sampling.Sampler(self._sample, now=now)
        self._caches = [
            renewal.Caches(one, owner=labels, now=now, place=text.clean(one.url))
            for one in engines
        ]

    @property
    def all(self) -> Sequence[client.Engine]:
        """Every one that can be reached, or could be."""
        return [one.engine for one in self._reached]

    def follow(self) -> asyncio.Event:
        """Begin to listen; return what is set when a container has changed."""
        self._loop = asyncio.get_running_loop()
        for one in self._reached:
            one.follower.start()
        return self._changed

    def mishap(self, container: str) -> api.Mishap | None:
        """Return what has befallen a container that runs."""
        traces = (one.follower.seen(container) for one in self._reached)
        return next((found for trace in traces if (found := death.mishap(trace, None))), None)

    def usage(self, container: str) -> api.Usage | None:
        """Return what a container uses, or has used, as far as its engine can be reached."""
        return self._sampler.of(container)

    def look(self, running: Collection[str], *, there: Collection[str]) -> None:
        """Begin to ask what containers use, beside everything else."""
        self._having = {one: engine for one, engine in self._having.items() if one in there}
        if self._reached:
            self._sampler.look(running, there=there)
        for one in self._caches:
            one.look()

    async def clear(self, bounded: Sequence[caches.Cache], agent: str) -> None:
        """Have caches that are too old or too large removed, wherever that can be.

        Nobody has them: the service that is to have them is not made yet. An engine that does not
        answer keeps its own, and no launch waits long for it.
        """
        await asyncio.gather(*(self._clear_one(*one, bounded, agent) for one in self._clearable()))

    def _clearable(self) -> Iterable[tuple[client.Engine, renewal.Caches]]:
        return zip(self.all, self._caches, strict=True)

    async def _clear_one(
        self,
        engine: client.Engine,
        there: renewal.Caches,
        bounded: Sequence[caches.Cache],
        agent: str,
    ) -> None:
        with contextlib.suppress(api.BackendError, TimeoutError):
            async with waits.timeout(_CLEAR_S):
                await engine.call(client.Lane.END, there.clear, bounded, agent)

    async def _sample(self, containers: Collection[str], take: sampling.Take) -> None:
        await asyncio.gather(*(self._sample_one(one, take) for one in containers))

    async def _sample_one(self, container: str, take: sampling.Take) -> None:
        known = self._having.get(container)
        if container in self._having and known is None:
            return
        everybody_answered = True
        for engine in [known] if known is not None else self.all:
            try:
                sample = await engine.call(
                    client.Lane.USAGE, engine.sample, container, now=self._now
                )
            except api.BackendError:
                everybody_answered = False
                continue
            if sample is not None:
                self._having[container] = engine
                take(container, sample)
                return
        if known is None and everybody_answered:
            self._having[container] = None

    async def engine_of(self, container: str) -> client.Engine:
        """Return the engine that has a container that runs. Raises Rejected, Unavailable."""
        missing: api.BackendError = api.Rejected(
            "commands are run by the engine of an agent's node, and that of this one is not "
            "among `managers` and `engines` of the backend"
        )
        for engine in self.all:
            try:
                there = await engine.call(client.Lane.READ, engine.inspect, container)
            except api.NotFound:
                continue
            except api.BackendError as error:
                missing = error
                continue
            if there.state != "running":
                raise api.NotFound(f"its container does not run: it is {there.state}")
            return engine
        raise missing

    async def certificate(self, container: str) -> api.Exit | None:
        """Return what a container died of; None if no engine that can be reached has it."""
        for one in self._reached:
            if one.follower.heard_of_end(container):
                return await self._ask(one, container)
        answered = await asyncio.gather(*(self._ask(one, container) for one in self._reached))
        return next((end for end in answered if end is not None), None)

    async def _ask(self, one: _Reached, container: str) -> api.Exit | None:
        with contextlib.suppress(api.BackendError, TimeoutError):
            async with waits.timeout(_PATIENCE_S):
                there = await one.engine.call(client.Lane.READ, one.engine.inspect, container)
                if there.state in {"running", "paused", "created"}:
                    return None
                while not self._is_told(there, seen := one.follower.seen(container)):
                    await asyncio.sleep(_LOOK_S)
                    there = await one.engine.call(client.Lane.READ, one.engine.inspect, container)
                return death.certificate(
                    death.Ended(
                        exit_code=there.exit_code,
                        oom_killed=there.oom_killed,
                        error=there.error,
                        started=there.started,
                        finished_at=there.finished_at,
                        memory_bytes=there.memory_bytes,
                        seen=seen,
                    )
                )
        return None

    def _is_told(self, there: answers.Inspected, seen: death.EventTrace) -> bool:
        """Tell whether all is told: of a kill for memory flag and event may come after the end."""
        if there.exit_code != _KILLED or there.oom_killed or seen.oom_at or seen.signals:
            return True
        at = there.finished_at
        return at is None or not 0 <= self._now() - at < _EVENTS_S

    def _wake(self) -> None:
        """Set the event; called from the threads that listen."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(self._changed.set)

    def leave(self) -> frozenset[asyncio.Future[Any]]:
        """Begin nothing more; return the calls that are under way."""
        self._changed.set()
        for one in self._reached:
            one.follower.leave()
        for cached in self._caches:
            cached.leave()
        return frozenset[asyncio.Future[Any]](self._sampler.leave()).union(
            *(one.engine.leave() for one in self._reached)
        )

    def close(self) -> None:
        """Let go of every connection, and wait for the threads; blocking."""
        for one in self._reached:
            one.engine.close()
        for one in self._reached:
            one.follower.close()
