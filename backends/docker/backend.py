"""Agents as containers on Docker engines: the contract over one or several hosts.

Why: where Docker runs, an agent is an image. Chooses the host, pulls images, keeps callers of one
name apart and wakes the watch; docs/backends/docker.md tells an operator the rest. Refuses to
know what the agents do, and to speak to an engine itself.

Theory of operation: hosts are tried in order; one that does not answer is set aside for a while
and the next one is asked (``pool``). A name is looked for everywhere before it is made.
"""

import asyncio
import contextlib
import logging
import pathlib
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import attrs

from backends import api
from backends.docker import settings
from backends.docker.containers import container, host, pool
from backends.docker.engine import client, environment
from backends.kit import connection
from outside import bodies, connect_errors, counts, text, waits

_LOG = logging.getLogger(__name__)

_RESCAN_S = 30.0
_FETCH_S = 60.0
_FILE_MAX = 256 << 20
_PROGRESS_S = 0.5
_CLOSE_S = 5.0  # for calls under way at the end, then their connections are cut
_NOTHING_MADE = (api.Rejected, api.NoCapacity, api.AlreadyExists)
_Files = Mapping[str, bytes]  # by name, fetched for the container
_MADE = "its container is being made"


def create(
    configured: settings.DockerSettings,
    *,
    owner: str,
    store: api.Store,  # noqa: ARG001 -- part of every factory; the engine remembers all there is
    state_dir: pathlib.Path,  # noqa: ARG001 -- as above
    now: Callable[[], float],
    reading: bool = False,
) -> "DockerBackend":
    """Build the backend; nothing is asked before the first call."""
    return DockerBackend(configured, owner=owner, now=now, reading=reading)


class DockerBackend:
    """The contract over Docker engines; one object per owner and event loop."""

    kind = "docker"

    def __init__(
        self,
        configured: settings.DockerSettings,
        *,
        owner: str,
        now: Callable[[], float],
        reading: bool = False,
    ) -> None:
        self._settings = configured
        self._owner = owner
        self._now = now
        hosts, refusal = configured.hosts or (), ""
        if not hosts:
            hosts, refusal = _of_environment(configured)
        self._pool = pool.Pool(
            [
                host.Host(
                    told,
                    configured,
                    owner=owner,
                    wake=self._wake,
                    now=now,
                    reading=reading,
                    refusal=refusal,
                )
                for told in hosts
            ],
            reading=reading,
        )
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._preparing: dict[str, api.Instance] = {}
        self._working: dict[str, asyncio.Future[None]] = {}
        self._pulls: dict[tuple[str, str, str | None], asyncio.Future[None]] = {}
        self._pull_turn = asyncio.Lock()
        self._progress: dict[tuple[str, str, str | None], str] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wakers: set[asyncio.Event] = set()
        self._waking = False  # on its way; an engine may tell a thousand things in a moment
        self._closed = False

    # --- the contract ---

    async def reserve(self, spec: api.InstanceSpec) -> None:
        """Take a place of ``max_instances``; engines without a limit are not asked."""
        self._planned(spec)
        self._begin()
        refusals: list[api.BackendError] = []
        places = _allowed(self._pool.open(), frozenset(spec.avoid))
        if all(place.host.max_instances is None for place in places):
            return
        async with self._turn(spec.name):
            for place in places:
                try:
                    await self._pool.check_room(place, spec.name)
                except api.BackendError as error:
                    refusals.append(error)
                else:
                    place.reserve(spec.name)
                    return
        raise self._pool.refusal(refusals)

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Start an instance; idempotent by name, also across brokers and restarts."""
        plan = self._planned(spec)
        async with self._turn(spec.name):
            self._preparing[spec.name] = api.Instance(
                name=spec.name,
                state=api.InstanceState.STARTING,
                metadata=dict(spec.metadata),
                created_at=self._now(),
                detail=_MADE,
            )
            try:
                files = {file.name: await _fetched(file) for file in spec.files}
                await self._somewhere(spec.name, plan, files, avoid=frozenset(spec.avoid))
            finally:
                if spec.name not in self._working:
                    self._preparing.pop(spec.name, None)

    async def list(self) -> Sequence[api.Instance]:
        """All instances of this owner on all hosts, those that are being made too."""
        self._begin()
        preparing = dict(self._preparing)
        hidden: api.Partial | None = None
        try:
            instances = await self._pool.list()
        except api.Partial as error:
            instances, hidden = error.seen, error
        instances = [_with_look(one, self._settings.name_prefix) for one in instances]
        names = {one.name for one in instances}
        # made and published while we read, or still being made: never left out
        everything = [*instances, *(one for name, one in preparing.items() if name not in names)]
        if hidden is not None:
            raise api.Partial(hidden.reason, seen=everything, odd=hidden.odd)
        return everything

    async def watch(self) -> AsyncIterator[None]:
        """Wake when an engine tells of a change, or comes back; ends when it is closed."""
        if self._closed:
            return
        self._begin()
        for place in self._pool.places:
            place.host.follow()
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            while not self._closed:
                with contextlib.suppress(TimeoutError):
                    async with waits.timeout(_RESCAN_S):
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
            await self._pool.terminate(name, grace_s=grace_s)

    async def capacity(self) -> api.Capacity | None:
        """Free room under every host's ``max_instances``, unless one has none; who is left out."""
        self._begin()
        limits = [place.host.max_instances for place in self._pool.open()]
        total, twins = sum(limit or 0 for limit in limits), self._pool.twins()
        places = tuple(place.host.place for place in self._pool.open())
        if any(limit is None for limit in limits):
            return api.Capacity(text=twins, places=places)
        used = await self._pool.names() | self._preparing.keys()
        free = max(0, total - len(used))
        return api.Capacity(
            free_instances=free,
            places=places,
            text=f"{free} of {counts.told(total, 'container is', 'containers are')} free"
            f"{f'; {twins}' if twins else ''}",
        )

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of what the instance wrote, its secrets blanked out."""
        self._begin()
        try:
            return await self._pool.logs(name, tail=tail)
        except api.BackendError:
            if name in self._preparing:
                return ""
            raise

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:
        """Run a command in its container."""
        self._begin()
        return await self._pool.run(name, argv, within_s=within_s)

    def work_dir(self, name: str) -> str | None:  # noqa: ARG002 -- the same in every container
        """Return None: the image decides, or the template's ``remote_fs``."""
        return None

    async def aclose(self) -> None:
        """Wait for calls under way, but for none that hangs, and let go; instances live on."""
        if self._closed:
            return
        self._closed = True
        for waker in self._wakers:
            waker.set()
        hosts = [place.host for place in self._pool.everywhere]
        if under_way := frozenset[asyncio.Future[Any]]().union(*(one.leave() for one in hosts)):
            await asyncio.wait(under_way, timeout=_CLOSE_S)
        await asyncio.gather(*(asyncio.to_thread(one.close) for one in hosts))
        if left := [future for future in under_way if not future.done()]:
            await asyncio.wait(left, timeout=_CLOSE_S)  # what was cut off knows it at once

    # --- launching ---

    def _planned(self, spec: api.InstanceSpec) -> container.ContainerPlan:
        configured = self._settings
        return container.plan(
            spec,
            owner=self._owner,
            prefix=configured.name_prefix,
            runtimes=configured.runtimes,
        )

    async def _somewhere(
        self, name: str, plan: container.ContainerPlan, files: _Files, *, avoid: frozenset[str]
    ) -> None:
        """Try the hosts in order; raises the refusal that reaches least far.

        A host that fails is set aside, for everybody. One that cannot have what this template
        needs, such as its image, is not: another may, and others may on this one.
        """
        refusals: list[api.BackendError] = []
        for place in await self._in_order(name, avoid):
            try:
                await self._pool.check_room(place, name)
                await self._made_on(place, name, plan, files)
            except api.NoCapacity as error:
                refusals.append(error)
            except (api.Unavailable, api.Unauthorized) as error:
                if error.reach in {api.Reach.PLACE, api.Reach.BACKEND}:
                    place.set_aside(error)
                refusals.append(error)
            else:
                place.answered()
                return
        raise self._pool.refusal(refusals)

    async def _in_order(self, name: str, avoid: frozenset[str]) -> Sequence[pool.Place]:
        """The host that has it already, alone; else all that are not set aside or to be avoided.

        Raises NoCapacity if none is left.
        """
        self._begin()
        places = self._pool.open()
        if len(places) > 1:
            for place in places:
                with contextlib.suppress(api.BackendError):
                    if await place.host.has(name):
                        return [place]
        return _allowed(places, avoid)

    async def _made_on(
        self, place: pool.Place, name: str, plan: container.ContainerPlan, files: _Files
    ) -> None:
        """Launch on one host, whose room counts it from now on unless nothing can be left."""
        self._preparing[name] = attrs.evolve(self._preparing[name], place=place.host.place)
        try:
            await self._on(place, name, plan, files)
        except api.BackendError as error:
            if error.nothing_left or isinstance(error, _NOTHING_MADE):
                place.launched.pop(name, None)
            else:
                place.took(name)
            raise
        except BaseException:
            place.took(name)  # cancelled: what was begun may yet be there
            raise
        place.took(name)

    async def _on(
        self, place: pool.Place, name: str, plan: container.ContainerPlan, files: _Files
    ) -> None:
        """Launch on one host, with its image."""
        pulled = set[str]()
        for image in plan.images() if plan.pull == "always" else ():
            await self._pull(place, name, image, plan.platform)
        while True:
            try:
                await self._make(place, name, plan, files)
            except client.NoImageError as error:
                if plan.pull == "never":
                    raise api.Rejected(
                        f"{error}; hint: `pull` of the template is never, so load it into the "
                        "engine"
                    ) from error
                if error.image in pulled:
                    raise api.Rejected(
                        f"{error}, though it was pulled; hint: `platform`"
                    ) from error
                await self._pull(place, name, error.image, plan.platform)
                pulled.add(error.image)
            else:
                return

    async def _make(
        self, place: pool.Place, name: str, plan: container.ContainerPlan, files: _Files
    ) -> None:
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

    async def _pull(self, place: pool.Place, name: str, image: str, platform: str | None) -> None:
        """Wait for an image; whoever else wants it waits for the same pull."""
        key = (place.host.url, image, platform)
        async with self._pull_turn:
            future = self._pulls.get(key)
            if future is None:
                future = await place.host.client.begin(
                    client.Lane.PULL,
                    place.host.client.pull,
                    image,
                    platform,
                    lambda progress: self._progress.update({key: progress}),
                )
                self._pulls[key] = future

                def over(ended: asyncio.Future[None]) -> None:
                    self._pulls.pop(key, None)
                    self._progress.pop(key, None)
                    _ended(ended)

                future.add_done_callback(over)
        while not future.done():
            progress = self._progress.get(key, "asking the registry")
            detail = f"pulling {image[:120]}: {progress}"
            self._tell(name, detail, fetching=True)
            await asyncio.wait([future], timeout=_PROGRESS_S)
            if self._closed:
                raise api.Unavailable("the backend is closed; its pull was given up")
        await future
        self._tell(name, _MADE)

    # --- inside ---

    def _tell(self, name: str, detail: str, *, fetching: bool = False) -> None:
        """Say what is being done for an instance that is prepared."""
        told = attrs.evolve(self._preparing[name], detail=detail, fetching=fetching)
        self._preparing[name] = told

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
            self._waking = False
            for waker in self._wakers:
                waker.set()

        if self._loop is not None and not self._waking:
            self._waking = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(wake)


def _of_environment(configured: settings.DockerSettings) -> tuple[tuple[settings.Host], str]:
    """Return the engine that ``docker`` itself would speak to, or why none can be spoken to."""
    try:
        found = environment.engine(configured.docker_config)
    except ValueError as error:
        return (settings.Host(),), str(error)
    if found.complaint:
        details = {"reason": found.complaint, "host": text.clean(found.host.url)}
        _LOG.warning("Docker's own configuration counts for nothing", extra=details)
    if found.told_by:
        details = {"host": text.clean(found.host.url), "told_by": found.told_by}
        _LOG.info("the engine is the one of Docker's own configuration", extra=details)
    if found.host.is_open:
        details = {"host": text.clean(found.host.url), "hint": "DOCKER_TLS_VERIFY=1, or ssh://"}
        _LOG.warning(settings.OPEN, extra=details)
    return (found.host,), ""


def _allowed(places: Sequence[pool.Place], avoid: frozenset[str]) -> Sequence[pool.Place]:
    """Return the hosts where something may be started. Raises NoCapacity if none is left."""
    allowed = [place for place in places if place.host.place not in avoid]
    if places and not allowed:
        raise api.NoCapacity("all hosts that answer are to be avoided for now")
    return allowed


def _ended(future: "asyncio.Future[None]") -> None:
    """Take the error of what nobody may wait for any more."""
    _ = future.cancelled() or future.exception()


async def _fetched(file: api.RemoteFile) -> bytes:
    """Return a file for the container, without credentials; redirects are mostly login pages."""
    url, way = file.url, file.route
    connector = aiohttp.TCPConnector(ssl=connection.context(way))
    try:
        async with (
            waits.timeout(_FETCH_S),
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.get(url, allow_redirects=False, proxy=way.proxy) as answer,
        ):
            if answer.status >= 500:
                raise api.Unavailable(
                    f"{url[:120]} answered {answer.status}", reach=api.Reach.TEMPLATE
                )
            if answer.status != 200:
                raise api.Rejected(f"{url[:120]} answered {answer.status}")
            return await bodies.read(answer, _FILE_MAX)
    except (bodies.TooLarge, bodies.Unreadable) as error:
        raise api.Rejected(f"cannot fetch {url[:120]}: {error}") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise api.Unavailable(
            f"cannot fetch {url[:120]}: {connect_errors.words(error)}", reach=api.Reach.TEMPLATE
        ) from error


def _with_look(instance: api.Instance, prefix: str) -> api.Instance:
    """Say how people see what one that has ended wrote."""
    if instance.state is not api.InstanceState.EXITED:
        return instance
    called = container.container_name(instance.name, prefix=prefix)
    return attrs.evolve(instance, look=f"docker logs {called}")
