"""Agents as containers on Docker engines: the contract over one or several hosts.

Why: where Docker runs, an agent is an image. Chooses the host, pulls images, keeps callers of one
name apart and wakes the watch; docs/backends/docker.md tells an operator the rest. Refuses to
know what the agents do, and to speak to an engine itself.

Theory of operation: hosts are tried in order; one that does not answer is set aside for a while
and the next one is asked. A name is looked for everywhere before it is made, and if two hosts
ever show it (a call that timed out, and yet took effect), the later one is removed. A host that
does not answer shows its last known instances as long as another one answers: what is there may
not vanish from the list. Before its first answer there is nothing to show: the list is an error.
"""

import asyncio
import contextlib
import pathlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import aiohttp
import attrs
from attrs import define

from backends import api
from backends.docker import client, container, host, settings

_RESCAN_S = 30.0
_ASIDE_S = (5.0, 15.0, 60.0, 300.0)
_FETCH_S = 60.0
_PROGRESS_S = 0.5
_Files = Mapping[str, bytes]  # by name, fetched for the container


def create(
    configured: settings.DockerSettings,
    *,
    owner: str,
    store: api.Store,  # noqa: ARG001 -- part of every factory; the engine remembers all there is
    state_dir: pathlib.Path,  # noqa: ARG001 -- as above
    now: Callable[[], float],
) -> "DockerBackend":
    """Build the backend; nothing is asked before the first call."""
    return DockerBackend(configured, owner=owner, now=now)


@define(eq=False)
class _Place:
    """A host, and what is remembered of it: failures in a row and the last picture."""

    host: host.Host
    failures: int = 0
    aside_until: float = 0.0  # loop time
    picture: list[api.Instance] | None = None

    def set_aside(self, now: float, retry_after: float | None) -> None:
        """Ask others first for a while."""
        pause = _ASIDE_S[min(self.failures, len(_ASIDE_S) - 1)]
        self.failures += 1
        self.aside_until = now + (retry_after or pause)

    def answered(self) -> None:
        """Forget the failures."""
        self.failures, self.aside_until = 0, 0.0


class DockerBackend:
    """The contract over Docker engines; one object per owner and event loop."""

    kind = "docker"

    def __init__(
        self, configured: settings.DockerSettings, *, owner: str, now: Callable[[], float]
    ) -> None:
        self._settings = configured
        self._owner = owner
        self._now = now
        self._places = [
            _Place(host.Host(told, configured, owner=owner, wake=self._wake, now=now))
            for told in configured.hosts
        ]
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._preparing: dict[str, api.Instance] = {}
        self._working: dict[str, asyncio.Future[None]] = {}
        self._pulls: dict[tuple[str, str, str | None], asyncio.Future[None]] = {}
        self._pull_turn = asyncio.Lock()
        self._progress: dict[tuple[str, str, str | None], str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakers: set[asyncio.Event] = set()
        self._closed = False

    # --- the contract ---

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Start an instance; idempotent by name, also across brokers and restarts."""
        prefix = self._settings.name_prefix
        plan = container.plan(spec, owner=self._owner, prefix=prefix)
        async with self._turn(spec.name):
            self._preparing[spec.name] = api.Instance(
                name=spec.name,
                state=api.InstanceState.STARTING,
                metadata=dict(spec.metadata),
                created_at=self._now(),
                detail="its container is being made",
            )
            try:
                files = {file.name: await _fetched(file.url) for file in spec.files}
                await self._somewhere(spec.name, plan, files)
            finally:
                if spec.name not in self._working:
                    self._preparing.pop(spec.name, None)

    async def list(self) -> Sequence[api.Instance]:
        """All instances of this owner on all hosts, those that are being made too."""
        self._begin()
        preparing = dict(self._preparing)
        answers = await asyncio.gather(
            *(place.host.list() for place in self._places), return_exceptions=True
        )
        now = asyncio.get_running_loop().time()
        for place, answer in zip(self._places, answers, strict=True):
            if not isinstance(answer, BaseException):
                place.answered()
                place.picture = answer
            elif not isinstance(answer, api.Unavailable):
                raise answer
            else:
                place.set_aside(now, answer.retry_after)
                alone = all(isinstance(other, BaseException) for other in answers)
                if alone or place.picture is None:
                    raise answer
                place.picture = [_out_of_sight(one, place.host.url) for one in place.picture]
        found = await self._without_doubles()
        late = [one for name, one in preparing.items() if name not in found]
        # made and published while we read, or still being made: never left out
        return [*found.values(), *late]

    async def watch(self) -> AsyncIterator[None]:
        """Wake when an engine tells of a change, or comes back; ends when it is closed."""
        if self._closed:
            return
        self._begin()
        for place in self._places:
            place.host.follow()
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            while not self._closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_RESCAN_S):
                        await waker.wait()
                if not self._closed and waker.is_set():
                    waker.clear()
                    yield
        finally:
            self._wakers.discard(waker)

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """SIGTERM, ``grace_s`` later SIGKILL, then remove, wherever it is."""
        self._begin()
        async with self._turn(name):
            results = await asyncio.gather(
                *(place.host.terminate(name, grace_s=grace_s) for place in self._places),
                return_exceptions=True,
            )
            failed: list[BaseException] = []
            for place, result in zip(self._places, results, strict=True):
                if result is None or isinstance(result, api.NotFound):
                    place.picture = place.picture and [i for i in place.picture if i.name != name]
                if isinstance(result, BaseException):
                    failed.append(result)
            for error in failed:
                if not isinstance(error, api.NotFound):
                    raise error
            if len(failed) == len(results):
                raise failed[0]

    async def capacity(self) -> api.Capacity | None:
        """Free room under every host's ``max_instances``, or None where one has no limit."""
        self._begin()
        limits = [place.host.max_instances for place in self._places]
        total = sum(limit or 0 for limit in limits)
        if any(limit is None for limit in limits):
            return None
        free = max(0, total - len(await self.list()))
        return api.Capacity(free_instances=free, text=f"{free} of {total} containers are free")

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of what the instance wrote, its secrets blanked out."""
        self._begin()
        missing: api.BackendError = api.NotFound(f"no instance {name[:80]!r}")
        for place in self._places:
            try:
                return await place.host.logs(name, tail=tail)
            except api.NotFound:
                continue
            except api.Unavailable as error:
                missing = error
        if name in self._preparing:
            return ""
        raise missing

    def work_dir(self, name: str) -> str | None:  # noqa: ARG002 -- the same in every container
        """Return None: the image decides, or the template's ``remote_fs``."""
        return None

    async def aclose(self) -> None:
        """Wait for calls under way, then let go; instances live on."""
        if self._closed:
            return
        self._closed = True
        for waker in self._wakers:
            waker.set()
        for place in self._places:
            await asyncio.to_thread(place.host.close)

    # --- launching ---

    async def _somewhere(self, name: str, plan: container.Plan, files: _Files) -> None:
        """Try the hosts in order; raises the last refusal."""
        loop = asyncio.get_running_loop()
        refusal: api.BackendError = api.Unavailable("no host is left to try")
        for place in await self._in_order(name):
            try:
                if place.host.max_instances is not None:
                    await self._check_room(place, name)
                await self._on(place, name, plan, files)
            except api.NoCapacity as error:
                refusal = error
            except (api.Unavailable, api.Unauthorized) as error:
                place.set_aside(loop.time(), error.retry_after)
                refusal = error
            else:
                place.answered()
                return
        raise refusal

    async def _in_order(self, name: str) -> Sequence[_Place]:
        """The host that has it already, alone; else those that answered, then the others."""
        self._begin()
        now = asyncio.get_running_loop().time()
        if len(self._places) > 1:
            for place in self._places:
                with contextlib.suppress(api.BackendError):
                    if place.aside_until <= now and await place.host.has(name):
                        return [place]
        return sorted(self._places, key=lambda place: place.aside_until > now)

    async def _check_room(self, place: _Place, name: str) -> None:
        there = {one.name for one in await place.host.list()} - {name}
        limit = place.host.max_instances
        if limit is not None and len(there) >= limit:
            raise api.NoCapacity(f"all {limit} containers of {place.host.url} are in use")

    async def _on(self, place: _Place, name: str, plan: container.Plan, files: _Files) -> None:
        """Launch on one host, with its image."""
        if plan.pull == "always":
            await self._pull(place, name, plan)
        try:
            await self._make(place, name, plan, files)
        except client.NoImageError as error:
            if plan.pull == "never":
                raise api.Rejected(
                    f"{error}; hint: `pull` of the template is never, so load it into the engine"
                ) from error
            await self._pull(place, name, plan)
            try:
                await self._make(place, name, plan, files)
            except client.NoImageError as again:
                raise api.Rejected(f"{again}, though it was pulled; hint: `platform`") from again

    async def _make(self, place: _Place, name: str, plan: container.Plan, files: _Files) -> None:
        """Run the blocking piece; a cancelled call leaves nothing or a listed instance."""
        cancelled = threading.Event()
        future = await place.host.client.begin(
            client.Lane.START, place.host.make, plan, files, cancelled
        )
        self._working[name] = future
        future.add_done_callback(lambda _: self._working.pop(name, None))
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled.set()

            def over(ended: asyncio.Future[None]) -> None:
                self._preparing.pop(name, None)
                _ended(ended)

            future.add_done_callback(over)
            raise

    async def _pull(self, place: _Place, name: str, plan: container.Plan) -> None:
        """Wait for the image; whoever else wants it waits for the same pull."""
        key = (place.host.url, plan.image, plan.platform)
        async with self._pull_turn:
            future = self._pulls.get(key)
            if future is None:
                future = await place.host.client.begin(
                    client.Lane.PULL,
                    place.host.client.pull,
                    plan.image,
                    plan.platform,
                    lambda text: self._progress.update({key: text}),
                )
                self._pulls[key] = future

                def over(ended: asyncio.Future[None]) -> None:
                    self._pulls.pop(key, None)
                    self._progress.pop(key, None)
                    _ended(ended)

                future.add_done_callback(over)
        while not future.done():
            told = self._progress.get(key, "asking the registry")
            detail = f"pulling {plan.image[:120]}: {told}"
            self._preparing[name] = attrs.evolve(self._preparing[name], detail=detail)
            await asyncio.wait([future], timeout=_PROGRESS_S)
        await future

    # --- inside ---

    async def _without_doubles(self) -> dict[str, api.Instance]:
        """Return the last pictures as one; of two containers of one name the better stays."""
        found: dict[str, tuple[api.Instance, _Place]] = {}
        for place in self._places:
            for one in place.picture or ():
                other = found.get(one.name)
                if other is None:
                    found[one.name] = (one, place)
                    continue
                kept, gone = sorted((other, (one, place)), key=_worth)
                found[one.name] = kept
                if not gone[1].failures and not kept[1].failures:
                    with contextlib.suppress(api.BackendError):  # or at the next listing
                        await gone[1].host.terminate(one.name, grace_s=0)
        return {name: one for name, (one, _) in found.items()}

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """One call at a time per name; work that outlives a cancelled call counts too."""
        lock = self._turns.setdefault(name, asyncio.Lock())
        async with lock:
            while (left_over := self._working.get(name)) is not None:
                await asyncio.wait([left_over])
            yield

    def _begin(self) -> None:
        if self._closed:
            raise api.Unavailable("the backend is closed")
        self._loop = asyncio.get_running_loop()

    def _wake(self) -> None:
        """Wake every watch; called from the threads that follow the events."""

        def wake() -> None:
            for waker in self._wakers:
                waker.set()

        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(wake)


def _worth(entry: tuple[api.Instance, _Place]) -> tuple[bool, float]:
    """The one that runs, and of two the older."""
    instance, _ = entry
    return instance.state is not api.InstanceState.RUNNING, instance.created_at or 0.0


def _ended(future: "asyncio.Future[None]") -> None:
    """Take the error of what nobody may wait for any more."""
    _ = future.cancelled() or future.exception()


def _out_of_sight(instance: api.Instance, url: str) -> api.Instance:
    return attrs.evolve(instance, detail=f"{url} does not answer; this is how it was")


async def _fetched(url: str) -> bytes:
    """Return a file for the container, without credentials; redirects are mostly login pages."""
    try:
        async with (
            asyncio.timeout(_FETCH_S),
            aiohttp.ClientSession() as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status >= 500:
                raise api.Unavailable(f"{url[:120]} answered {answer.status}")
            if answer.status != 200:
                raise api.Rejected(f"{url[:120]} answered {answer.status}")
            return await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise api.Unavailable(f"cannot fetch {url[:120]}: {error}") from error
