"""Caches that are too old or too large go before the next agent of their slot has them.

Nobody has a cache then: the core gives a slot away only once nothing is left of whoever had it
(and an engine removes no volume of a container that is there, in whatever state). What is removed
is made anew at once; a broker that is killed in between leaves none, which is as good as empty. An
engine lets nobody make a volume of that name before the last file of the old one is gone.

Theory of operation: what is remembered is sizes, and only for as long as this broker runs. To find
them out an engine walks through all volumes that it has, so it is asked beside everything else:
when an agent with a limit of size has come since it was asked last, an hour later at the earliest,
and for a hundredth of the time at most. A size belongs to one volume (its name and when it was
made), never to the one that took its place. Refuses to know when an agent comes.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from backends import api
from backends.docker.containers import caches, container
from backends.docker.engine import client

_LOG = logging.getLogger("backends.docker.caches")

EVERY_S = 3600.0
"""Between two looks at the sizes of an engine's volumes, at least."""
_SHARE = 100  # of the time a look takes: so much longer is none begun
_WITHIN_S = 900.0  # for a look, and for a removal: of each file on a disk that may be busy
_TOLD_MAX = 1000
_GOING_S, _LOOK_S = 5.0, 0.2
_FOREIGN = (
    "its labels do not say that this broker made it, so it stays whatever its age and size; "
    "hint: remove it once, while nobody has it: docker volume rm"
)


class Caches:
    """The caches of one owner's slots on one engine."""

    def __init__(
        self,
        engine: client.Engine,
        *,
        owner: Mapping[str, str],
        now: Callable[[], float],
        place: str,
    ) -> None:
        """``owner``: the labels that make something ours; ``now``: POSIX seconds."""
        self._engine = engine
        self._owner = owner
        self._now = now
        self._place = place
        self._lock = threading.Lock()  # launches run in threads of their own
        self._sizes: Mapping[tuple[str, float], int] = {}  # by name and when it was made
        self._told: set[tuple[str, str]] = set()  # complaints: about which, and what
        self._wanted = False  # somebody came with a limit of size since the last look
        self._looked_at, self._rest_s = -math.inf, EVERY_S
        self._look: asyncio.Task[None] | None = None
        self._is_unknown_told = False

    def renew(self, plan: container.ContainerPlan) -> None:
        """See to the caches of a container that is made in a moment; blocking.

        Raises what a launch does where the engine cannot say what is there, or make a volume. One
        that it does not remove stays, which is told.
        """
        if not plan.caches or self._is_there(plan.container):
            return
        self._want(plan.caches)
        for cache in plan.caches:
            there = self._engine.volume(cache.name)
            # also one that stays, as it seems: an engine that was too slow removes it yet, and the
            # container would get one that nobody knows
            if there is None or self._tried(cache, there, plan.container):
                self._engine.create_volume(
                    cache.name,
                    driver=cache.driver,
                    options=cache.driver_options,
                    labels=caches.labels(cache, now=self._now()),
                    within_s=_WITHIN_S,
                )

    def clear(self, bounded: Sequence[caches.Cache], agent: str) -> None:
        """Remove what is not to be handed on, where somebody else makes volumes; blocking.

        A swarm's node removes the container of a service that is gone two seconds later (20.10),
        and it has the volume so long. Raises ``BackendError`` where the engine cannot say what is
        there.
        """
        self._want(bounded)
        for cache in bounded:
            there = self._engine.volume(cache.name)
            if there is not None:
                self._tried(cache, there, agent, patience_s=_GOING_S)

    def _want(self, bounded: Sequence[caches.Cache]) -> None:
        """Have the sizes found out, if one of them needs it."""
        self._wanted |= any(one.max_size_bytes is not None for one in bounded)

    def _is_there(self, called: str) -> bool:
        """Tell whether the container is made already: it has what it has."""
        try:
            self._engine.inspect(called)
        except api.NotFound:
            return False
        return True

    def _tried(
        self, cache: caches.Cache, there: Mapping[str, str], agent: str, *, patience_s: float = 0.0
    ) -> bool:
        """Remove one that nobody should have any more; tell whether that was tried.

        ``patience_s``: for how long while somebody has it, the first time.
        """
        details = {"cache": cache.name, "agent": agent, "host": self._place}
        made = caches.made_at(there, self._owner)
        if made is None:
            self._complain((cache.name, "foreign"), {**details, "reason": _FOREIGN})
            return False
        size = self._sizes.get((cache.name, made))
        why = caches.excess(cache, age_s=self._now() - made, size_bytes=size)
        if not why:
            return False
        stays = (cache.name, "stays")
        try:
            self._remove(cache.name, 0.0 if stays in self._told else patience_s)
        except api.NotFound:
            return True
        except api.BackendError as error:
            self._complain(stays, {**details, "reason": f"{why}; {error.reason}"})
            return True
        with self._lock:
            self._told = {one for one in self._told if one[0] != cache.name}
            # the next one may be of the same second
            self._sizes = {key: one for key, one in self._sizes.items() if key[0] != cache.name}
        _LOG.info("cache removed", extra={**details, "reason": why})
        return True

    def _remove(self, name: str, patience_s: float) -> None:
        end = time.monotonic() + patience_s
        while True:
            try:
                self._engine.remove_volume(name, within_s=_WITHIN_S)
            except api.Rejected:
                if time.monotonic() >= end:
                    raise
                time.sleep(_LOOK_S)
            else:
                return

    def _complain(self, about: tuple[str, str], details: Mapping[str, str]) -> None:
        """Say it once, until that cache is removed."""
        with self._lock:
            if about in self._told or len(self._told) >= _TOLD_MAX:
                return
            self._told.add(about)
        _LOG.warning("cache not removed", extra=dict(details))

    # --- sizes ---

    def look(self) -> None:
        """Begin to find out the sizes, if that is due and not going on; nobody waits for it."""
        going_on = self._look is not None and not self._look.done()
        # a clock that was ahead and is put right must not put the next look off
        rests = 0 <= self._now() - self._looked_at < self._rest_s
        if going_on or not self._wanted or rests:
            return
        self._wanted = False
        self._look = asyncio.get_running_loop().create_task(self._ask_sizes())

    async def _ask_sizes(self) -> None:
        began = time.monotonic()
        try:
            volumes = await self._engine.call(
                client.Lane.SIZES, self._engine.volume_sizes, self._owner, within_s=_WITHIN_S
            )
        except api.BackendError as error:
            if not self._is_unknown_told:
                details = {"host": self._place, "reason": error.reason}
                _LOG.warning("sizes of caches are not known", extra=details)
            self._is_unknown_told = True
        else:
            self._is_unknown_told = False
            self._sizes = {
                (name, made): size
                for name, (labels, size) in volumes.items()
                if (made := caches.made_at(labels, self._owner)) is not None
            }
        took = time.monotonic() - began
        self._looked_at, self._rest_s = self._now(), max(EVERY_S, _SHARE * took)

    async def looked(self) -> None:
        """Wait for a look that is going on."""
        if self._look is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._look

    def leave(self) -> None:
        """Give up what is going on: an engine may take minutes for it."""
        if self._look is not None:
            self._look.cancel()
