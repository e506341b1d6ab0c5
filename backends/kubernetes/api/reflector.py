"""A picture of our pods that is kept true by one list and one watch.

Why: a list every second would cost the API server more than all our pods. Whoever iterates
``changes`` keeps the picture; while somebody does and the stream is open, ``look`` answers from
it, otherwise it lists. So a picture that nobody keeps is never taken for the truth.

What recordings taught: a version that is too old is an ERROR event (410) in an answer 200; a watch
ends cleanly after ``timeoutSeconds`` or when the server stops, and goes on from the last version
seen; bookmarks renew that version about every minute, so silence beyond that is a dead connection;
leaving the label selector looks like DELETED.

What cannot be read costs itself: a pod of which nobody can tell whose it is leaves a doubt in the
picture (``Picture.odd``), and while there is one each look lists; an odd event makes us
list anew. A bug of ours is logged, and followed by a new list.

A pod is read when it changes, not at each look, and a long list with pauses, so that the loop is
never held up for long (docs/performance.md). Refuses to know what a state means.
"""

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Callable

import attrs
from attrs import define, frozen

from backends import api
from backends.kubernetes.api import client, errors
from backends.kubernetes.pods import states
from outside import typed, waits

_LOG = logging.getLogger("backends.kubernetes")
_SHORT_S = 1.0  # a watch that ends sooner is not opened again at once
_LONG_S = 30.0  # between two lists, where the version of each is refused
_LEFT_ALONE_S = 1.0  # a consumer that stays away longer has left the picture to age
_GONE_S = 120.0  # how long a pod that somebody else deleted is remembered
_MANY = 1000
_MOST = 20_000  # pods of one owner in one namespace
_PIECE = 50  # pods that are read without a pause: a few milliseconds
_ODD_S = 5.0  # until a stream that said what cannot be read, or met a bug, is opened anew
_REASONS = 5
_VERSION = re.compile(r"[\w.:-]{1,128}")


@frozen(kw_only=True)
class Picture:
    """All pods of one owner at one moment, and those that went without our doing."""

    pods: tuple[states.PodSighting, ...]
    departed: tuple[api.Instance, ...] = ()
    odd: str = ""  # why some pods cannot be told from others': any that is not here may be one


_Pods = dict[str, states.PodSighting]  # by the pod's name: a namespace has one of a name


@frozen
class _PodProgress:
    """How far a pod has come by the cluster's clock, and when we first saw that."""

    since: float | None
    seen_at: float


@define
class _FullList:
    """A full list."""

    pods: _Pods
    reasons: dict[str, None]  # why it cannot be told of some whose they are
    count: int = 0  # of those
    version: str = ""

    @property
    def odd(self) -> str:
        """Why they cannot be read, or nothing."""
        return typed.Odd(count=self.count, reasons=tuple(self.reasons)).words("pod")


class Reflector:
    """Keeps the picture of one selector."""

    def __init__(
        self,
        asked: client.ApiServer,
        *,
        owner: str,
        selector: str,
        now: Callable[[], float],
    ) -> None:
        self._client = asked
        self._owner = owner
        self._selector = selector
        self._now = now
        self._pods: _Pods = {}
        self._departed: dict[str, api.Instance] = {}
        self._steps: dict[str, _PodProgress] = {}  # by uid
        self._forgotten: dict[str, None] = {}  # names that we end ourselves, oldest first
        self._odd = ""  # of the last full list
        self._live = False
        self._kept = False
        self._open = False  # a stream of changes, also while they are taken over
        self._said = ""
        self._changed = asyncio.Event()

    @property
    def live(self) -> bool:
        """The picture is whole, and being kept true at this moment."""
        return self._live and not self._odd

    def forget(self, name: str) -> None:
        """Say that an instance's end is our own doing: its pod may go without a certificate."""
        self._departed.pop(name, None)
        self._forgotten.pop(name, None)
        self._forgotten[name] = None
        if len(self._forgotten) > _MANY:
            del self._forgotten[next(iter(self._forgotten))]

    def departed(self, name: str) -> bool:
        """Tell whether this instance's pod went without our doing."""
        return name in self._departed

    async def look(self) -> Picture:
        """Return the picture, or list; complete, or an error."""
        pods, odd = self._pods, ""
        if not self.live:
            found = await self._list()
            pods, odd = found.pods, found.odd
            self._odd = self._odd and odd  # whatever it was, its change was told like any other
        old = self._now() - _GONE_S
        for name, gone in list(self._departed.items()):
            if gone.exit is None or (gone.exit.at or 0.0) < old:
                del self._departed[name]
        there = {pod.name for pod in pods.values()}
        return Picture(
            pods=tuple(pods.values()),
            departed=tuple(gone for name, gone in self._departed.items() if name not in there),
            odd=odd,
        )

    def count(self) -> int:
        """Return of how many pods the picture is."""
        return len(self._pods)

    def shown(self) -> tuple[states.PodSighting, ...] | None:
        """Return the pods of the picture; None while nobody keeps it."""
        return tuple(self._pods.values()) if self.live else None

    def find(self, pod: str) -> states.PodSighting | None:
        """Return a pod by its name from the picture, if it is being kept."""
        return self._pods.get(pod) if self.live else None

    def shows(self, pod: str, uid: str) -> bool:
        """Return whether the picture shows a pod, and is kept: also while it is being changed."""
        there = self._pods.get(pod)
        return self._open and there is not None and there.uid == uid

    def has_lost(self, pod: str, uid: str) -> bool:
        """Return whether a pod that the picture once showed is certainly gone.

        A picture that is behind still shows it; one that was given up proves nothing.
        """
        there = self._pods.get(pod)
        return self._open and not self._odd and (there is None or there.uid != uid)

    async def wait(self, within_s: float) -> None:
        """Wait for the next change, or for a while."""
        try:
            async with waits.timeout(within_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def changes(self) -> AsyncGenerator[None, None]:
        """Keep the picture; yield after each batch of changes. Ends with an error, or by itself.

        Of several iterations at the same time the first keeps the picture; the others end with it.
        Whoever leaves it by its own will begins anew: what went until then was somebody else's
        business, as for a broker that only looked on until it took over.
        """
        while self._kept:
            await self._changed.wait()
            yield
        self._kept, has_listed = True, False
        loop = asyncio.get_running_loop()
        listed, pause_s = loop.time(), 0.0
        try:
            while True:
                try:
                    full = await self._list()
                    listed = loop.time()
                    first, has_listed = not has_listed, True
                    if self._replace(full) and not first:
                        self._tell()
                        yield
                    async with contextlib.aclosing(self._follow(full.version)) as followed:
                        async for _ in followed:
                            yield
                except errors.Expired:  # anew at once, but where each list is too old at once
                    quick = loop.time() - listed < _SHORT_S
                    pause_s = min(max(2 * pause_s, _SHORT_S), _LONG_S) if quick else 0.0
                    await asyncio.sleep(pause_s)
                except errors.OddAnswer as error:
                    self._say(error.reason)
                    await asyncio.sleep(_ODD_S)
                except api.BackendError:
                    raise
                except Exception:  # noqa: BLE001 -- whoever follows outlives our bugs, and says so
                    _LOG.exception("following the pods failed, because of a bug; beginning anew")
                    await asyncio.sleep(_ODD_S)
        except (asyncio.CancelledError, GeneratorExit):
            self._pods, self._departed = {}, {}
            raise
        finally:
            self._kept = self._live = False
            self._tell()

    async def _follow(self, version: str) -> AsyncGenerator[None, None]:
        """Watch from a version on, again and again, until it is too old."""
        loop = asyncio.get_running_loop()
        while True:
            opened, heard = loop.time(), False
            watched = self._client.watch_pods(self._selector, version)
            try:
                async with contextlib.aclosing(watched):
                    async for batch in watched:
                        if not batch:
                            self._live = self._open = True
                            continue
                        heard = True
                        for event in batch:
                            version = self._apply(event) or version
                        self._live = False  # while nobody reads on
                        left = loop.time()
                        self._tell()
                        yield
                        if loop.time() - left > _LEFT_ALONE_S:
                            raise errors.Expired("nobody kept the picture")
                        self._live = True
            except errors.Lost:
                if not self._live and not heard:
                    raise  # could not even be opened
            finally:
                self._live = self._open = False
            if loop.time() - opened < _SHORT_S:
                await asyncio.sleep(_SHORT_S)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _say(self, reason: str) -> None:
        """Log what cannot be read, once until it is something else."""
        if reason != self._said:
            _LOG.warning("the list of pods cannot be read in full", extra={"reason": reason})
        self._said = reason

    async def _list(self) -> _FullList:
        """Return all our pods; complete but for what is odd, or an error."""
        listed = _FullList(pods={}, reasons={})
        async with contextlib.aclosing(self._client.list_pods(self._selector)) as pages:
            async for page in pages:
                listed.version = page.version
                for number, pod in enumerate(page.pods):
                    if number % _PIECE == 0:
                        await asyncio.sleep(0)
                    self._take(listed, pod)
        if listed.odd:
            self._say(listed.odd)
        there = {pod.uid for pod in listed.pods.values()}
        self._steps = {uid: step for uid, step in self._steps.items() if uid in there}
        return listed

    def _take(self, listed: _FullList, pod: client.Object) -> None:
        try:
            if not states.is_ours(pod, self._owner):
                return
        except errors.OddAnswer as error:
            listed.count += 1
            if len(listed.reasons) < _REASONS:
                listed.reasons[error.reason] = None
            return
        seen = self._stamped(states.see(pod))
        if seen.pod in listed.pods:  # which of them is the pod?
            seen = states.unreadable(pod, "it is listed twice")
        listed.pods[seen.pod] = seen

    def _stamped(self, sighting: states.PodSighting) -> states.PodSighting:
        """Return a sighting with when we first saw its pod as far as it has come."""
        step = self._steps.get(sighting.uid)
        if step is None or step.since != sighting.since:
            step = self._steps[sighting.uid] = _PodProgress(
                since=sighting.since, seen_at=self._now()
            )
        return attrs.evolve(sighting, seen_at=step.seen_at)

    def _replace(self, listed: _FullList) -> bool:
        """Take over a full list; what is missing in it is gone, unless it may be what is odd.

        Tell whether anything changed.
        """
        before, self._odd = self._pods, listed.odd
        self._pods = {name: pod.after(before.get(name)) for name, pod in listed.pods.items()}
        for pod in before.values() if not listed.odd else ():
            if pod.pod not in listed.pods or listed.pods[pod.pod].uid != pod.uid:
                self._gone(pod)
        return self._pods != before

    def _apply(self, event: client.WatchEvent) -> str | None:
        """Take over one change; return the version that it brings. Raises Odd."""
        metadata = states.part(event.object, "metadata")
        version = metadata.get("resourceVersion")
        if event.kind in {"ADDED", "MODIFIED", "DELETED"}:
            self._change(event)
        fit = isinstance(version, str) and _VERSION.fullmatch(version)
        return version if fit else None

    def _change(self, event: client.WatchEvent) -> None:
        pod = event.object
        is_ours = states.is_ours(pod, self._owner)
        sighting = self._stamped(states.see(pod))
        before = self._pods.get(sighting.pod)
        if event.kind == "DELETED":
            self._steps.pop(sighting.uid, None)
        if event.kind != "DELETED":
            if is_ours:
                self._pods[sighting.pod] = sighting.after(before)
                if len(self._pods) > _MOST:
                    raise errors.Large(f"there are more than {_MOST} pods")
        elif before is not None:
            if not sighting.uid:
                raise errors.OddAnswer(
                    f"pod {sighting.pod} is deleted, and its uid cannot be read"
                )
            if before.uid == sighting.uid:
                del self._pods[before.pod]
                self._gone(sighting.after(before))

    def _gone(self, pod: states.PodSighting) -> None:
        if pod.name in self._forgotten:
            del self._forgotten[pod.name]
        else:
            self._departed[pod.name] = pod.departed(self._now())
            if len(self._departed) > _MANY:
                del self._departed[next(iter(self._departed))]
