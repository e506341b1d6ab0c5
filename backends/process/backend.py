"""Agents as local processes: the backend that needs no daemon, no image and no network.

Why: the embedded default. Joins the file work (``storage``, ``making``), the downloads (``fetch``)
and the wake-ups (``watch``) to the contract of ``backends.api``; docs/backends/process.md tells an
operator what is and what is not guaranteed. Refuses to know what the agents do.

Theory of operation: whatever an instance is, its directory says so (see ``storage``); the broker
remembers nothing but the launches that it is working on. Blocking work goes to two small
thread pools, one for reading, so that a slow removal never delays a ``list``.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import os
import pathlib
import shlex
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar

import attrs

from backends import api
from backends.kit import names, usage, workspaces
from backends.process import (
    fetch,
    kernel,
    launching,
    proc,
    records,
    running,
    settings,
    storage,
    used,
    watch,
)
from outside import counts, paths, quotes, text

_T = TypeVar("_T")

_END_MARGIN_S = 12.0  # a supervisor gives killed processes 10 s to vanish
_KILL_S = 10.0
_RESCAN_S = 30.0  # how often a watch looks for instances that another broker started
_WORKERS = 4
_RUNNERS = 8  # commands at a time; the others wait their turn
_RESERVED_S = 150.0  # a place that was taken, and no launch came
_SHORT = frozenset(  # the machine has no more of something
    {
        errno.EAGAIN,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EMFILE,
        errno.ENFILE,
        errno.EIO,
    }
)
_OUR_FAULT = frozenset(  # what exec says about the command, not about the machine
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOEXEC,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.E2BIG,
        errno.EINVAL,
    }
)


def create(
    configured: settings.ProcessSettings,
    *,
    owner: str,
    store: api.Store,  # noqa: ARG001 -- part of every factory; the directories say all there is to know
    state_dir: pathlib.Path,
    now: Callable[[], float],
    reading: bool = False,
) -> "ProcessBackend":
    """Build the backend; nothing is touched before the first call."""
    root = state_dir / "processes"
    if configured.directory is not None:
        root = pathlib.Path(configured.directory)
    return ProcessBackend(configured, owner=owner, root=root.absolute(), now=now, reading=reading)


class ProcessBackend:
    """The contract over local processes; one object per owner and event loop."""

    kind = "process"

    def __init__(
        self,
        configured: settings.ProcessSettings,
        *,
        owner: str,
        root: pathlib.Path,
        now: Callable[[], float],
        reading: bool = False,
    ) -> None:
        self._settings = configured
        self._owner = owner
        self._now = now
        self._storage = storage.Storage(
            root, owner=owner, start_timeout_s=configured.start_timeout_s, reading=reading
        )
        self._cache = fetch.FileCache(root / "cache", configured)
        self._shared = root / "shared"
        self._watcher = watch.Watcher()
        self._readers = concurrent.futures.ThreadPoolExecutor(1, "process-read")
        self._workers = concurrent.futures.ThreadPoolExecutor(_WORKERS, "process-work")
        self._runners = concurrent.futures.ThreadPoolExecutor(_RUNNERS, "process-run")
        self._given_up: set[threading.Event] = set()  # of commands that run
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._preparing: dict[str, api.Instance] = {}
        self._reserved: dict[str, float] = {}  # instances that a launch follows: until when
        self._working: dict[str, asyncio.Future[storage.InstanceRecord | None]] = {}
        self._usages = usage.Usages()
        self._reading = reading
        self._cleaned = reading  # who only reads clears nothing away
        self._closed = False

    # --- the contract ---

    async def reserve(self, spec: api.InstanceSpec) -> None:
        """Take a place of ``max_instances``; nothing is made."""
        launching.check(spec)
        self._refuse_when_closed()
        async with self._turn(spec.name):
            self._make_room(spec.name)
            self._reserved[spec.name] = self._now() + _RESERVED_S

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Start an instance; idempotent by name, also across brokers and restarts."""
        launching.check(spec)
        self._refuse_when_closed()
        async with self._turn(spec.name):
            self._make_room(spec.name)
            self._reserved.pop(spec.name, None)
            self._preparing[spec.name] = api.Instance(
                name=spec.name,
                state=api.InstanceState.STARTING,
                metadata=dict(spec.metadata),
                created_at=self._now(),
                detail="its files are being prepared",
            )
            try:
                with _mapped(self._storage.home):
                    files = {
                        file.name: await self._cache.get(file.url, file.route)
                        for file in spec.files
                    }
                    record = await self._make(spec, files)
            finally:
                if spec.name not in self._working:
                    self._preparing.pop(spec.name, None)
        if record is not None and record.supervisor is not None:
            self._watcher.add(record.supervisor)

    async def list(self) -> Sequence[api.Instance]:
        """All instances of this owner, those that are being made too."""
        if not self._cleaned:
            self._cleaned = True
            self._submit(self._workers, self._clean)
        preparing = dict(self._preparing)
        with _mapped():
            read, odd = await self._submit(self._readers, self._storage.read_all)
        for record in read:
            if (
                record.supervisor is not None
                and record.instance.state is not api.InstanceState.EXITED
            ):
                self._watcher.add(record.supervisor)
            preparing.pop(record.instance.name, None)
        await self._look_what_is_used(read)
        instances = [
            attrs.evolve(
                record.instance,
                usage=self._usages.of(record.instance.name),
                look=self._look(record.instance),
            )
            for record in read
        ]
        with _mapped():
            instances += [
                instance
                for name, instance in preparing.items()
                # published while we read: shown as it was, not left out
                if name in self._preparing or paths.is_directory(self._storage.path(name))
            ]
        if odd:
            raise api.Partial(odd.words("instance"), seen=instances, odd=True)
        return instances

    async def watch(self) -> AsyncIterator[None]:
        """Wake at the moment an instance ends; ends when the backend is closed or cannot list."""
        with self._watcher.listening() as waker:
            while not self._closed:
                try:
                    await self.list()
                except api.BackendError:
                    return
                if await self._watcher.wait(waker, at_most_s=_RESCAN_S) and not self._closed:
                    yield

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """SIGTERM, ``grace_s`` later SIGKILL to everything, then remove the directory."""
        if names.name_problem(name) is not None:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        async with self._turn(name):
            self._reserved.pop(name, None)
            with _mapped():
                record = await self._submit(self._workers, self._ask_to_end, name, grace_s)
                if record.supervisor is not None:
                    await self._watcher.gone(
                        record.supervisor, within_s=max(0.0, grace_s) + _END_MARGIN_S
                    )
                await self._submit(self._workers, self._finish, record)

    async def capacity(self) -> api.Capacity | None:
        """Free room under ``max_instances``, or None without a limit."""
        self._refuse_when_closed()
        limit = self._settings.max_instances
        if limit is None:
            return None
        with _mapped():
            used = set(await self._submit(self._readers, self._storage.names))
        free = max(0, limit - len(used | self._on_their_way()))
        return api.Capacity(
            free_instances=free,
            text=f"{free} of {counts.told(limit, 'process is', 'processes are')} free",
        )

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of what the instance wrote, its secrets blanked out."""
        if names.name_problem(name) is not None:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        try:
            with _mapped():
                return await self._submit(self._readers, self._logs, name, tail)
        except api.NotFound:
            if name in self._preparing:
                return ""
            raise

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:
        """Run it as the agent runs; one that is cancelled or out of time is ended."""
        if names.name_problem(name) is not None:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        given_up = threading.Event()
        self._given_up.add(given_up)
        try:
            with _mapped(self._storage.home):
                return await self._submit(self._runners, self._run, name, argv, within_s, given_up)
        finally:
            given_up.set()
            self._given_up.discard(given_up)

    def work_dir(self, name: str) -> str | None:
        """Return ``work`` in the instance's directory; a link if the template names another."""
        return str(self._storage.path(name) / "work")

    async def aclose(self) -> None:
        """Wait for launches under way, then let go; instances live on."""
        if self._closed:
            return
        self._closed = True
        for given_up in self._given_up:
            given_up.set()
        await asyncio.to_thread(self._runners.shutdown)
        await asyncio.to_thread(self._workers.shutdown)
        await asyncio.to_thread(self._readers.shutdown)
        self._watcher.close()
        await self._cache.aclose()

    # --- inside ---

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """One call at a time per name; work that outlives a cancelled call counts too."""
        lock = self._turns.setdefault(name, asyncio.Lock())
        async with lock:
            while (left_over := self._working.get(name)) is not None:
                await asyncio.wait([left_over])
            yield

    def _make_room(self, name: str) -> None:
        """Raise NoCapacity when the operator's limit is reached."""
        limit = self._settings.max_instances
        if limit is None:
            return
        with _mapped():
            used = set(self._storage.names()) | self._on_their_way()
        if name not in used and len(used) >= limit:
            raise api.NoCapacity(
                f"`max_instances` is reached: {counts.told(limit, 'process', 'processes')}"
            )

    def _on_their_way(self) -> set[str]:
        """Return what takes room and has no directory; a reservation that was left does not."""
        now = self._now()
        self._reserved = {name: until for name, until in self._reserved.items() if now < until}
        return {*self._preparing, *self._reserved}

    def _look(self, instance: api.Instance) -> str:
        """Say where people see what one that has ended left."""
        if instance.state is not api.InstanceState.EXITED:
            return ""
        return f"ls {shlex.quote(str(self._storage.path(instance.name)))}"

    async def _look_what_is_used(self, read: Collection[storage.InstanceRecord]) -> None:
        """Sample who is due; that takes a millisecond or two each."""
        self._usages.keep({record.instance.name for record in read})
        if self._reading:
            return
        running = {
            record.instance.name: record.supervisor
            for record in read
            if record.instance.state is api.InstanceState.RUNNING and record.supervisor is not None
        }
        for name in self._usages.due(running, now=self._now()):
            sample = await self._submit(self._readers, self._sample, name, running[name])
            if sample is not None:
                self._usages.take(name, sample)

    def _sample(self, name: str, supervisor: proc.Process) -> usage.Sample | None:
        limit = self._storage.memory_limit(name)
        return used.sample(supervisor, self._group(name), limit, now=self._now)

    def _group(self, name: str) -> str | None:
        parent = self._settings.cgroup
        return f"{parent}/{self._storage.slug}.{name}" if parent is not None else None

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise api.Unavailable("the backend is closed")

    def _submit(
        self, pool: concurrent.futures.Executor, work: Callable[..., _T], *arguments: object
    ) -> asyncio.Future[_T]:
        self._refuse_when_closed()
        return asyncio.get_running_loop().run_in_executor(pool, work, *arguments)

    async def _make(
        self, spec: api.InstanceSpec, files: Mapping[str, pathlib.Path]
    ) -> storage.InstanceRecord | None:
        """Make and start in a thread; a cancelled call leaves nothing or a listed instance."""
        cancelled = threading.Event()
        future = self._submit(self._workers, self._make_now, spec, files, cancelled)
        self._working[spec.name] = future

        def done(_: object) -> None:
            self._working.pop(spec.name, None)
            self._preparing.pop(spec.name, None)

        future.add_done_callback(done)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled.set()
            # nobody waits for its error any more
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
            raise

    def _make_now(
        self, spec: api.InstanceSpec, files: Mapping[str, pathlib.Path], cancelled: threading.Event
    ) -> storage.InstanceRecord | None:
        """Fill, publish, start; blocking."""
        home, wanted = self._storage.path(spec.name), launching.digest(spec)
        if self._storage.digest(spec.name) is None:
            with self._storage.stage(spec.name) as stage:
                launching.fill(
                    stage,
                    spec,
                    places=self._places(spec),
                    files=files,
                    configured=self._settings,
                    owner=self._owner,
                    created_at=self._now(),
                )
                if cancelled.is_set():
                    return None
                self._storage.publish(stage, spec.name)
        if self._storage.digest(spec.name) != wanted:
            raise api.AlreadyExists(
                f"{quotes.shown(spec.name)} exists and was made from another specification"
            )
        if not paths.exists(home / "supervisor"):
            self._start(spec)
        return self._storage.read(spec.name, boot=kernel.boot_id())

    def _places(self, spec: api.InstanceSpec) -> launching.InstancePaths:
        """Return the paths of an instance."""
        home, options = self._storage.path(spec.name), launching.check(spec)
        work = home / "work"
        outside = None
        if options.working_directory is not None:
            work = pathlib.Path(options.working_directory) / self._storage.slug / spec.name
            outside = work
        if spec.work_dir is not None and spec.name in spec.work_dir:  # one of its own
            work = pathlib.Path(workspaces.normal(spec.work_dir))
            ours = [path for path in (work, *work.parents) if spec.name in path.name]
            outside = ours[-1] if ours else None
            work = home / "work" if outside is None else work
        return launching.InstancePaths(
            home=home,
            work=work,
            shared=self._shared,
            cgroup=self._group(spec.name),
            outside=outside,
        )

    def _start(self, spec: api.InstanceSpec) -> None:
        """Start the supervisor; what cannot be started is removed, the reason is raised."""
        places = self._places(spec)
        try:
            if not places.own_work:  # that came with the instance, and may be gone with it
                places.work.mkdir(mode=0o700, parents=True, exist_ok=True)
            report = launching.start_supervisor(
                places.home, timeout_s=self._settings.start_timeout_s
            )
        except OSError:
            if self._storage.give_up(spec.name):
                self._remove_failed(spec.name)
            raise
        if report.get("state") in {"running", "claimed"}:
            return
        text = str(report.get("message", "the supervisor gave no reason"))
        if "slug" in report or self._storage.give_up(spec.name):  # it had the claim, or nobody
            self._remove_failed(spec.name)
        if report.get("slug") == "command" and report.get("errno") in _OUR_FAULT:
            raise api.Rejected(f"{text}; hint: `command`, `java` or PATH of the template")
        machine = report.get("slug") == "platform-lost" or report.get("errno") in _SHORT
        raise api.Unavailable(
            f"the process could not be started: {text}",
            reach=api.Reach.BACKEND if machine or "everybody" in report else api.Reach.TEMPLATE,
        )

    def _remove_failed(self, name: str) -> None:
        with contextlib.suppress(api.NotFound):
            self._finish(self._ask_to_end(name, 0.0))

    def _ask_to_end(self, name: str, grace_s: float) -> storage.InstanceRecord:
        return self._storage.ask_to_end(name, grace_s=max(0.0, grace_s))

    def _finish(self, record: storage.InstanceRecord) -> None:
        """Kill what is left and remove it; blocking."""
        left = self._storage.end_now(record, within_s=_KILL_S)
        if left:
            raise api.Unavailable(
                f"process {left[0]} of {quotes.shown(record.instance.name)} did not die "
                f"within {_KILL_S:g} s"
            )
        self._storage.remove(record)
        self._storage.clean()

    def _clean(self) -> None:
        """Sweep, or again with the next list if it cannot be done now; blocking."""
        try:
            self._cleaned = self._storage.clean()
        except OSError:  # the next list says what is wrong
            self._cleaned = False

    def _run(
        self, name: str, argv: Sequence[str], within_s: float, given_up: threading.Event
    ) -> api.Ran:
        record = self._storage.read(name, boot=kernel.boot_id())
        if record is None:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        if record.instance.state is not api.InstanceState.RUNNING:
            raise api.NotFound(f"{quotes.shown(name)} does not run")
        hide = self._storage.secrets(name)
        ran = running.run(
            self._storage.path(name), argv, within_s=within_s, given_up=given_up, hide=hide
        )
        if self._closed:
            raise api.Unavailable("the backend is closed")
        return ran

    def _logs(self, name: str, tail: int) -> str:
        return self._storage.logs(name, tail=tail)


@contextlib.contextmanager
def _mapped(home: pathlib.Path | None = None) -> Iterator[None]:
    """Turn what the operating system refuses into the contract's errors, with its words.

    ``home`` of a launch: what is refused outside is the template's, unless the machine is short.
    """
    try:
        yield
    except records.OddFileError as error:
        raise api.Unavailable(text.clean(str(error))) from error
    except OSError as error:
        words = error.strerror or str(error)
        reach = api.Reach.BACKEND
        if error.filename is not None:
            words += f": {error.filename}"
            ours = home is None or _is_below(home, error.filename)
            reach = reach if ours or error.errno in _SHORT else api.Reach.TEMPLATE
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise api.Unauthorized(words[:256], reach=reach) from error
        raise api.Unavailable(words[:256], reach=reach) from error


def _is_below(home: pathlib.Path, name: object) -> bool:
    """Tell whether a path is in our folders, or one of those they lie in."""
    path = pathlib.Path(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else home
    root = home.parent.parent
    return path.is_relative_to(root) or root.is_relative_to(path)
