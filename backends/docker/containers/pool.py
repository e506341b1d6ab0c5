"""Several engines as one: who is asked, and what is known of those that do not answer.

Why: machines are rebooted while others serve. Refuses to know how an instance is made, and what an
engine says to it.

Theory of operation: an engine that fails is set aside and its error remembered; as long as another
one answers it is asked again only once its events can be followed again, or after a while if they
always could. They are tried in a thread, so nobody waits for a machine that is switched off.

What was there may not vanish from the list. Of an engine that answered before, the last picture
stays. Of one that never did, since the broker started, nothing is known: the list is then
``Partial``, which says that what is neither in it nor was ever in one may still be alive. If two
engines show one name (a call that timed out, and yet took effect), the later one is removed. So
two addresses of one engine must not both be listed: each container would be its own double. Of
several hosts each is asked which engine it is before it is listed, again after each failure, and
of two with one answer the later one in the configuration is left out.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import attrs
from attrs import Factory, define

from backends import api
from backends.docker.containers import host
from outside import counts, quotes, text, waits

T = TypeVar("T")
_ASIDE_S = (5.0, 15.0, 60.0, 300.0)
_PATIENCE_S = 10.0  # with one of several that does not answer
_RESERVED_S = 150.0
_TWIN_S = 300.0  # until one that is left out is asked again: its name may lead elsewhere by then
_LOG = logging.getLogger("backends.docker.pool")


@define(eq=False)
class Place:
    """An engine, and what is remembered of it: failures in a row and the last picture."""

    host: host.Host
    failures: int = 0
    aside_until: float = 0.0  # loop time
    error: api.BackendError | None = None
    stream: int = 0  # of events, that was open when it was set aside
    picture: Sequence[api.Instance] | None = None
    odd: str = ""  # why the picture is not whole
    launched: dict[str, float] = Factory(dict)  # names since the picture: when; inf: just now
    identity: str = ""  # of its engine, as it was told last
    ask_at: float = -math.inf  # loop time: when it is to be asked which engine it is
    twin: "Place | None" = None  # an earlier one that leads to the same engine

    def names(self) -> set[str]:
        """Return what takes room: the last picture, and what was made since it was taken."""
        return {one.name for one in self.picture or ()} | self.launched.keys()

    def show(self, instances: Sequence[api.Instance], odd: str, *, began: float) -> None:
        """Take a new picture, whose listing began at this loop time."""
        self.picture, self.odd = instances, odd
        self.launched = {name: at for name, at in self.launched.items() if at >= began}

    def reserve(self, name: str) -> None:
        """Keep a place for a container that is made in a moment, or it is free again."""
        self.launched[name] = asyncio.get_running_loop().time() + _RESERVED_S

    def took(self, name: str) -> None:
        """Note that it has a container that the picture may not show yet."""
        self.launched[name] = asyncio.get_running_loop().time()

    def lost(self, name: str) -> None:
        """Note that it has no container of this name."""
        self.launched.pop(name, None)
        self.picture = self.picture and [one for one in self.picture if one.name != name]

    def set_aside(self, error: api.BackendError) -> None:
        """Ask others first for a while."""
        pause = _ASIDE_S[min(self.failures, len(_ASIDE_S) - 1)]
        self.failures += 1
        self.error, self.stream = error, self.host.stream()
        self.aside_until = asyncio.get_running_loop().time() + (error.retry_after or pause)
        self.ask_at = -math.inf

    def answered(self) -> None:
        """Forget the failures."""
        self.failures, self.aside_until, self.error = 0, 0.0, None

    def is_aside(self) -> bool:
        """Tell whether asking it would probably be waiting for nothing."""
        if self.error is None:
            return False
        stream = self.host.stream()
        early = asyncio.get_running_loop().time() < self.aside_until
        return stream == 0 or (early and stream == self.stream)


class Pool:
    """The verbs that concern every engine."""

    def __init__(self, hosts: Sequence[host.Host], *, reading: bool = False) -> None:
        self._reading = reading
        self.everywhere = tuple(Place(one) for one in hosts)
        self.places = list(self.everywhere)  # without those that lead to an engine once more

    def twins(self) -> str:
        """Say which hosts are left out, and why; empty if none is."""
        return "; ".join(
            f"{place.host.url} is left out: it leads to the same engine as {place.twin.host.url}"
            for place in self.everywhere
            if place.twin is not None
        )

    async def _to_list(self) -> Sequence[Place]:
        """Return those to list: each engine once, and of several none that is not known."""
        if len(self.everywhere) == 1:
            return self.places
        now = asyncio.get_running_loop().time()
        due = [
            one
            for one in (*self.open(), *(one for one in self.everywhere if one.twin is not None))
            if one.ask_at <= now
        ]
        told = await asyncio.gather(*(self._identity(one) for one in due), return_exceptions=True)
        for place, answer in zip(due, told, strict=True):
            if isinstance(answer, str):
                place.identity, place.ask_at = answer, math.inf
            elif not isinstance(answer, api.BackendError):
                raise answer
            elif place.twin is None:
                place.set_aside(answer)
            else:
                place.ask_at = now + _TWIN_S
        before, known = self.twins(), dict[str, Place]()
        for place in self.everywhere:
            place.twin = known.setdefault(place.identity, place) if place.identity else place
            place.twin = None if place.twin is place else place.twin
            if place.twin is not None:
                place.picture, place.ask_at = None, min(place.ask_at, now + _TWIN_S)
                place.launched.clear()
        self.places = [place for place in self.everywhere if place.twin is None]
        if (words := self.twins()) and words != before:
            hint = "name it once; clones of one machine need names of their own"
            _LOG.warning("host left out", extra={"reason": f"{words}; hint: {hint}"})
        return [place for place in self.open() if place.ask_at > now]

    async def _identity(self, place: Place) -> str:
        return await self._patiently(place, place.host.identity())

    def open(self) -> list[Place]:
        """Return those that are not set aside, in order; all if there would be none."""
        return [place for place in self.places if not place.is_aside()] or self.places

    def refusal(self, refusals: Sequence[api.BackendError]) -> api.BackendError:
        """Return what a launch that no host took is to be told: what reaches least far.

        With its words stand the hosts that are set aside, for they might have taken it.
        """
        if not refusals:
            return api.Unavailable("no host is left to try")
        narrow = [one for one in refusals if one.reach not in {api.Reach.PLACE, api.Reach.BACKEND}]
        chosen = (narrow or refusals)[-1]
        aside = [place for place in self.places if place.is_aside()]
        if not narrow:
            everywhere = len(aside) == len(self.places)
            chosen.reach = api.Reach.BACKEND if everywhere else api.Reach.PLACE
            chosen.place = "" if everywhere else _owner_of(chosen, self.places)
            return chosen
        if aside and len(self.places) > 1:
            error = aside[0].error
            more = f" and {len(aside) - 1} more" if len(aside) > 1 else ""
            words = error.reason if error is not None else ""
            said = f"{chosen.reason}; set aside: {aside[0].host.url}{more} ({words})"
            chosen.reason = text.clean(said)
            chosen.args = (chosen.reason,)
        return chosen

    async def list(self) -> Sequence[api.Instance]:
        """Return the instances of all; raises Partial, or an error if none answers."""
        asked, began = await self._to_list(), asyncio.get_running_loop().time()
        answers = await asyncio.gather(
            *(self._pictured(place) for place in asked), return_exceptions=True
        )
        for place, answer in zip(asked, answers, strict=True):
            if isinstance(answer, api.BackendError):
                place.set_aside(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                place.answered()
                place.show(answer.instances, answer.odd, began=began)
        failed = [place.error for place in self.places if place.error is not None]
        if len(failed) == len(self.places):
            raise failed[0]
        for place in self.places:
            if place.error is not None and place.picture is not None:
                place.picture = [_out_of_sight(one, place.host.url) for one in place.picture]
        instances = await self._without_doubles()
        unseen = [place.error for place in self.places if place.picture is None and place.error]
        odd = [place.odd for place in self.places if place.odd]
        if unseen or odd:
            words = "; ".join([*odd, *(error.reason for error in unseen)])
            lead = "" if odd else "not all engines are known: "
            raise api.Partial(f"{lead}{words}", seen=instances, odd=bool(odd))
        return instances

    async def check_room(self, place: Place, name: str) -> None:
        """Take a place of a host's ``max_instances`` for a name; raises NoCapacity if it is full.

        By its last picture and what was made since, so that no launch has to list.
        """
        limit = place.host.max_instances
        if limit is not None:
            if place.picture is None:
                began = asyncio.get_running_loop().time()
                listing = await self._pictured(place)
                place.show(listing.instances, listing.odd, began=began)
            if len(place.names() - {name}) >= limit:
                raise api.NoCapacity(
                    f"{place.host.url} is full: it may have {counts.told(limit, 'container')}"
                )
        place.launched[name] = math.inf  # nothing was waited for since the count

    async def _pictured(self, place: Place) -> host.Listing:
        return await self._patiently(place, place.host.list())

    async def _patiently(self, place: Place, asked: Coroutine[Any, Any, T]) -> T:
        """Ask one; nobody waits for it longer than is good for the others."""
        try:
            async with waits.timeout(None if len(self.everywhere) == 1 else _PATIENCE_S):
                return await asked
        except TimeoutError as error:
            raise api.Unavailable(
                f"{place.host.url}: no answer within {_PATIENCE_S:g} s"
            ) from error

    async def _without_doubles(self) -> Sequence[api.Instance]:
        """Return the last pictures as one; of two containers of one name the better stays."""
        by_name: dict[str, tuple[api.Instance, Place]] = {}
        for place in self.places:
            for one in place.picture or ():
                other = by_name.get(one.name)
                if other is None:
                    by_name[one.name] = (one, place)
                    continue
                kept, gone = sorted((other, (one, place)), key=_worth)
                by_name[one.name] = kept
                if not self._reading and not gone[1].error and not kept[1].error:
                    with contextlib.suppress(api.BackendError):  # or at the next listing
                        await gone[1].host.terminate(one.name, grace_s=0)
        return [one for one, _ in by_name.values()]

    async def names(self) -> set[str]:
        """Return what takes room on the open ones, by their last pictures.

        Lists them only if one was never listed: a look lists everybody once, just before.
        """
        if any(place.picture is None for place in self.open()):
            with contextlib.suppress(api.Partial):
                await self.list()
        return set().union(*(place.names() for place in self.open()))

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """End it wherever it is; raises NotFound only if no engine can have it."""
        asked = self.open()
        results = await asyncio.gather(
            *(place.host.terminate(name, grace_s=grace_s) for place in asked),
            return_exceptions=True,
        )
        errors = {id(place): place.error for place in self.places if place not in asked}
        for place, result in zip(asked, results, strict=True):
            if result is None or isinstance(result, api.NotFound):
                place.lost(name)
            elif isinstance(result, api.BackendError):
                errors[id(place)] = result
            else:
                raise result
        ended = any(result is None for result in results)
        for place in self.places:
            error = errors.get(id(place))
            known = place.picture is not None and name in {one.name for one in place.picture}
            if error is not None and (known or not ended):
                raise error  # it has it, or may have it
        if not ended:
            raise api.NotFound(f"no instance {quotes.shown(name)}")

    async def logs(self, name: str, *, tail: int) -> str:
        """Return the last lines from whoever has it."""
        missing: api.BackendError = api.NotFound(f"no instance {quotes.shown(name)}")
        for place in self.open():
            try:
                return await place.host.logs(name, tail=tail)
            except api.NotFound:
                continue
            except api.BackendError as error:
                missing = error
        errors = [place.error for place in self.places if place.error is not None]
        raise errors[0] if errors and isinstance(missing, api.NotFound) else missing

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:
        """Run a command on whoever has it; never twice."""
        missing: api.BackendError = api.NotFound(f"no instance {quotes.shown(name)}")
        for place in self.open():
            try:
                if not await place.host.has(name):
                    continue
            except api.BackendError as error:
                missing = error
                continue
            return await place.host.run(name, argv, within_s=within_s)
        errors = [place.error for place in self.places if place.error is not None]
        raise errors[0] if errors and isinstance(missing, api.NotFound) else missing


def _owner_of(error: api.BackendError, places: Sequence[Place]) -> str:
    return next((place.host.url for place in places if place.error is error), "")


def _worth(entry: tuple[api.Instance, Place]) -> tuple[bool, float]:
    """The one that runs, and of two the older."""
    instance, _ = entry
    return instance.state is not api.InstanceState.RUNNING, instance.created_at or 0.0


def _out_of_sight(instance: api.Instance, url: str) -> api.Instance:
    return attrs.evolve(instance, detail=f"{url} does not answer; this is what it showed last")
