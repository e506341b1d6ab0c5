"""A picture of our pods that is kept true by one list and one watch.

Why: a list every second would cost the API server more than all our pods. Whoever iterates
``changes`` keeps the picture; while somebody does and the stream is open, ``look`` answers from
it, otherwise it lists. So a picture that nobody keeps is never taken for the truth.

What recordings taught: a version that is too old is an ERROR event (410) in an answer 200; a watch
ends cleanly after ``timeoutSeconds`` or when the server stops, and goes on from the last version
seen; bookmarks renew that version about every minute, so silence beyond that is a dead connection;
leaving the label selector looks like DELETED.

A pod is read when it changes, not at each look, and a long list with pauses, so that the loop is
never held up for long (docs/performance.md). Refuses to know what a state means.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from attrs import frozen

from backends import api
from backends.kubernetes import client, errors, states
from outside import waits

_SHORT_S = 1.0  # a watch that ends sooner without a word is not opened again at once
_LEFT_ALONE_S = 1.0  # a consumer that stays away longer has left the picture to age
_GONE_S = 120.0  # how long a pod that somebody else deleted is remembered
_MANY = 1000
_PIECE = 50  # pods that are read without a pause: a few milliseconds


@frozen(kw_only=True)
class Picture:
    """All pods of one owner at one moment, and those that went without our doing."""

    pods: tuple[states.Seen, ...]
    departed: tuple[api.Instance, ...] = ()


_Pods = dict[str, states.Seen]  # by the pod's name: a namespace has one of a name


class Reflector:
    """Keeps the picture of one selector."""

    def __init__(
        self,
        asked: client.Client,
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
        self._forgotten: dict[str, None] = {}  # names that we end ourselves, oldest first
        self._live = False
        self._kept = False
        self._changed = asyncio.Event()

    @property
    def live(self) -> bool:
        """The picture is being kept true at this moment."""
        return self._live

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
        pods = self._pods if self._live else (await self._list())[0]
        old = self._now() - _GONE_S
        for name, gone in list(self._departed.items()):
            if gone.exit is None or (gone.exit.at or 0.0) < old:
                del self._departed[name]
        there = {pod.name for pod in pods.values()}
        return Picture(
            pods=tuple(pods.values()),
            departed=tuple(gone for name, gone in self._departed.items() if name not in there),
        )

    def find(self, pod: str) -> states.Seen | None:
        """Return a pod by its name from the picture, if it is being kept."""
        return self._pods.get(pod) if self._live else None

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
        self._kept, known = True, False
        try:
            while True:
                pods, version = await self._list()
                first, known = not known, True
                if self._replace(pods) and not first:
                    self._tell()
                    yield
                try:
                    async with contextlib.aclosing(self._follow(version)) as followed:
                        async for _ in followed:
                            yield
                except errors.Expired:
                    continue
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
                            self._live = True
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
                self._live = False
            if not heard and loop.time() - opened < _SHORT_S:
                await asyncio.sleep(_SHORT_S)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _list(self) -> tuple[_Pods, str]:
        """Return all our pods and the version to watch from; complete, or an error."""
        found: _Pods = {}
        version = ""
        async with contextlib.aclosing(self._client.list_pods(self._selector)) as pages:
            async for page in pages:
                version = page.version
                for number, pod in enumerate(page.pods):
                    if number % _PIECE == 0:
                        await asyncio.sleep(0)
                    if states.is_ours(pod, self._owner):
                        seen = states.see(pod)
                        found[seen.pod] = seen
        return found, version

    def _replace(self, found: _Pods) -> bool:
        """Take over a full list; what is missing in it is gone. Tell whether anything changed."""
        before = self._pods
        self._pods = {name: pod.after(before.get(name)) for name, pod in found.items()}
        for pod in before.values():
            if pod.pod not in found or found[pod.pod].uid != pod.uid:
                self._gone(pod)
        return self._pods != before

    def _apply(self, event: client.Event) -> str | None:
        """Take over one change; return the version that it brings."""
        metadata = event.object.get("metadata") or {}
        known = self._pods.get(str(metadata.get("name")))
        if event.kind in {"ADDED", "MODIFIED"} and states.is_ours(event.object, self._owner):
            seen = states.see(event.object).after(known)
            self._pods[seen.pod] = seen
        elif event.kind == "DELETED" and known is not None and known.uid == metadata.get("uid"):
            del self._pods[known.pod]
            self._gone(states.see(event.object).after(known))
        version = metadata.get("resourceVersion")
        return version if isinstance(version, str) else None

    def _gone(self, pod: states.Seen) -> None:
        if pod.name in self._forgotten:
            del self._forgotten[pod.name]
        else:
            self._departed[pod.name] = pod.departed(self._now())
