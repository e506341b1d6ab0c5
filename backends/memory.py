"""The reference backend: instances that exist in memory only, with scripted latency and faults.

Why: it is the smallest thing that keeps the contract, so the simulation, the demo and the tests
run on it, and every other backend is measured against it. ``Platform`` is a plain machine without
clock, loop or sleep (a simulator on a heap drives it directly); ``MemoryBackend`` is the thin
asynchronous shell. Refuses to know what an agent does: ``on_start`` and ``on_stop`` tell.

Theory of operation: every instance has a due time for its next change (running, gone, dead);
``advance(now)`` makes all changes that are due, in their order. Several owners share one platform
and never see each other's instances; a fault is taken by the first call that fits it.
"""

import asyncio
import collections
import math
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

import attrs
from attrs import field, frozen

from backends import api
from backends.kit import names, setting
from outside import quotes

Verb = Literal["reserve", "launch", "list", "terminate", "capacity", "logs", "run"]
_LOG_LINES = 1000
_WATCH_S = 0.25
_LIVE = frozenset((api.InstanceState.STARTING, api.InstanceState.RUNNING))


@frozen(kw_only=True)
class MemorySettings:
    """How slow and how large the platform is. The defaults make it immediate and endless."""

    launch_s: float = setting.of("from launch to running", 0.0, least=0, most=86_400)
    terminate_s: float = setting.of("from terminate to gone", 0.0, least=0, most=86_400)
    list_s: float = setting.of("one answer to list", 0.0, least=0, most=86_400)
    run_s: float = setting.of("one command in an instance", 0.0, least=0, most=86_400)
    capacity: int | None = setting.of("None: endless", None, least=0, most=100_000)
    places: tuple[str, ...] = setting.of(
        "names of where instances run; the emptiest takes the next", ()
    )


@frozen(kw_only=True)
class MemoryTemplate:
    """What a template may set on this backend."""

    launch_s: float | None = setting.of("None: the platform's", None, least=0, most=86_400)
    lives_s: float | None = setting.of("then it dies ...", None, least=0, most=86_400)
    exit_code: int = setting.of(
        "... with this status; None above: it lives until it is terminated", 0
    )


@frozen(kw_only=True)
class Fault:
    """What happens to the next call that fits."""

    verb: Verb = "launch"
    error: api.BackendError | None = None  # None: the call hangs for ever
    after: bool = False  # the effect takes place, only the answer is lost
    template: str | None = None  # only for instances whose metadata names this template
    name: str | None = None  # only for the instance of this name


class Hang(Exception):  # noqa: N818 -- not an error: the shell turns it into waiting
    """Raised by ``Platform`` where a call would never return."""


@attrs.define(kw_only=True)
class _Cell:
    """One instance on the platform; its changes are due at the times given."""

    owner: str
    spec: api.InstanceSpec
    state: api.InstanceState
    created_at: float
    place: str = ""
    held: bool = False  # reserved, and not launched yet
    due_at: float = math.inf  # of the next change
    dies_at: float = math.inf
    exit: api.Exit | None = None
    mishap: api.Mishap | None = None
    lines: collections.deque[str] = field(factory=lambda: collections.deque(maxlen=_LOG_LINES))

    def seen(self) -> api.Instance:
        """Return what a listing shows of it."""
        return api.Instance(
            name=self.spec.name,
            state=self.state,
            metadata=dict(self.spec.metadata),
            created_at=self.created_at,
            exit=self.exit,
            place=self.place,
            mishap=self.mishap,
            detail="it waits for its launch" if self.held else "",
        )


class Platform:
    """The machine behind the backend. All methods are immediate; ``now`` is POSIX seconds.

    ``on_start(spec)`` is called when an instance begins to run, ``on_stop(name)`` when it ends,
    both from within ``advance`` and the verbs. ``on_run(name, argv)`` says what comes of a command
    in one; without it every command ends well. ``version`` grows with every change.
    """

    def __init__(
        self,
        settings: MemorySettings | None = None,
        *,
        on_start: Callable[[api.InstanceSpec], None] | None = None,
        on_stop: Callable[[str], None] | None = None,
        on_run: Callable[[str, Sequence[str]], api.Ran] | None = None,
    ) -> None:
        self.settings = settings or MemorySettings()
        self.on_start = on_start
        self.on_stop = on_stop
        self.on_run = on_run
        self.version = 0
        self._cells: dict[str, _Cell] = {}
        self._faults: list[Fault] = []
        self._stale: list[tuple[str, api.Instance]] = []
        self._stale_reads = 0

    # --- scripting ---

    def fail_next(
        self,
        error: api.BackendError,
        *,
        verb: Verb = "launch",
        times: int = 1,
        template: str | None = None,
        name: str | None = None,
        after: bool = False,
    ) -> None:
        """Let the next ``times`` fitting calls raise; ``after``: but take effect."""
        self._faults += [
            Fault(verb=verb, error=error, template=template, name=name, after=after)
        ] * times

    def hang_next(
        self, *, verb: Verb = "launch", template: str | None = None, after: bool = False
    ) -> None:
        """Let the next fitting call never return."""
        self._faults.append(Fault(verb=verb, template=template, after=after))

    def stale_list(self, *, reads: int) -> None:
        """Freeze the present picture: the next ``reads`` listings show it, whatever happens."""
        self._stale = [(cell.owner, cell.seen()) for cell in self._cells.values()]
        self._stale_reads = reads

    def clear_faults(self) -> None:
        """Heal everything that was scripted."""
        self._faults.clear()
        self._stale_reads = 0

    # --- the machine ---

    def reserve(self, spec: api.InstanceSpec, *, owner: str, now: float) -> None:
        """Create an instance that waits. Raises as the contract says, or ``Hang``."""
        self.advance(now)
        late = self._strike("reserve", spec.name, spec)
        if self._existing(spec, owner) is None:
            self._create(spec, owner=owner, now=now)
        _answer(late)

    def start(self, spec: api.InstanceSpec, *, owner: str, now: float) -> None:
        """Create an instance. Raises as ``launch`` of the contract does, or ``Hang``."""
        self.advance(now)
        late = self._strike("launch", spec.name, spec)
        cell = self._existing(spec, owner)
        if cell is None:
            cell = self._create(spec, owner=owner, now=now)
        if cell.held:
            self._release(cell, spec, now=now)
        _answer(late)

    def _existing(self, spec: api.InstanceSpec, owner: str) -> _Cell | None:
        """Return the instance of this very specification; None if there is room for it."""
        problem = names.name_problem(spec.name)
        if problem is not None:
            raise api.Rejected(problem)
        existing = self._cells.get(spec.name)
        if existing is not None and (
            existing.owner != owner or _shown(existing.spec) != _shown(spec)
        ):
            raise api.AlreadyExists(f"{quotes.shown(spec.name)} is taken by another instance")
        if existing is None and self.free() == 0:
            raise api.NoCapacity(f"no place of {self.settings.capacity} is free")
        return existing

    def stop(self, name: str, *, owner: str, now: float) -> float:
        """Begin to end an instance; return when it is gone. Raises NotFound, scripted faults."""
        self.advance(now)
        cell = self._own(name, owner)
        late = self._strike("terminate", name, cell.spec)
        if cell.state is not api.InstanceState.STOPPING:
            ran = cell.state is api.InstanceState.RUNNING
            cell.state, cell.dies_at, cell.exit = api.InstanceState.STOPPING, math.inf, None
            cell.held = False
            cell.due_at = now + self.settings.terminate_s
            self._changed(cell, stopped=ran)
        gone_at = cell.due_at
        self.advance(now)
        _answer(late)
        return gone_at

    def kill(self, name: str, end: api.Exit | None = None, *, now: float) -> None:
        """Let an instance die by itself; unknown, ending and dead ones are left alone."""
        self.advance(now)
        cell = self._cells.get(name)
        if cell is not None and cell.state in _LIVE:
            self._die(cell, attrs.evolve(end or api.Exit(slug="exited", code=0), at=now))

    def advance(self, now: float) -> None:
        """Make every change that is due at ``now``, earliest first."""
        while True:
            cell = min(
                self._cells.values(), key=lambda c: (min(c.due_at, c.dies_at), c.spec.name),
                default=None,
            )  # fmt: skip
            if cell is None or min(cell.due_at, cell.dies_at) > now:
                return
            if cell.dies_at < cell.due_at:
                code = _options(cell.spec).exit_code
                self._die(cell, api.Exit(slug="exited", code=code, at=cell.dies_at))
            elif cell.state is api.InstanceState.STARTING:
                self._run(cell)
            else:
                del self._cells[cell.spec.name]
                self.version += 1

    def wake_at(self) -> float | None:
        """When ``advance`` has something to do next, or None."""
        due = min((min(c.due_at, c.dies_at) for c in self._cells.values()), default=math.inf)
        return None if due == math.inf else due

    def visible(self, *, owner: str, now: float) -> list[api.Instance]:
        """All instances of one owner as a listing shows them. Raises scripted faults."""
        self.advance(now)
        late = self._strike("list", None, None)
        instances = [(cell.owner, cell.seen()) for cell in self._cells.values()]
        if self._stale_reads:
            self._stale_reads -= 1
            instances = self._stale
        _answer(late)
        return [instance for whose, instance in instances if whose == owner]

    def free(self) -> int | None:
        """Places left; dead instances take one until they are removed. None: endless."""
        if self.settings.capacity is None:
            return None
        return max(0, self.settings.capacity - len(self._cells))

    def write(self, name: str, text: str) -> None:
        """Add output, as a program in the instance would."""
        self._cells[name].lines.extend(text.splitlines())

    def output(self, name: str, *, owner: str, tail: int) -> str:
        """Last lines of what was written; raises NotFound."""
        lines = list(self._own(name, owner).lines)
        return "\n".join(lines[-tail:]) if tail > 0 else ""

    def command(self, name: str, argv: Sequence[str], *, owner: str, now: float) -> api.Ran:
        """Run a command in an instance. Raises NotFound, scripted faults, or ``Hang``."""
        self.advance(now)
        cell = self._own(name, owner)
        late = self._strike("run", name, cell.spec)
        if cell.state is not api.InstanceState.RUNNING:
            raise api.NotFound(f"{quotes.shown(name)} does not run")
        ran = api.Ran(code=0) if self.on_run is None else self.on_run(name, argv)
        _answer(late)
        return ran

    def strike(self, verb: Verb) -> None:
        """Let a scripted fault hit a call that has no instance; raises it."""
        _answer(self._strike(verb, None, None))

    # --- inside ---

    def _choose(self, spec: api.InstanceSpec) -> str:
        """Return the allowed place with the fewest instances, the first of several."""
        allowed = [place for place in self.settings.places if place not in spec.avoid]
        if self.settings.places and not allowed:
            places = ", ".join(self.settings.places)
            raise api.NoCapacity(f"every place is to be avoided: {places}")
        held = collections.Counter(cell.place for cell in self._cells.values())
        return min(allowed, key=lambda place: held[place], default="")

    def _create(self, spec: api.InstanceSpec, *, owner: str, now: float) -> _Cell:
        """Make an instance that waits for its launch."""
        cell = _Cell(
            owner=owner,
            spec=spec,
            state=api.InstanceState.STARTING,
            created_at=now,
            place=self._choose(spec),
            held=True,
        )
        self._cells[spec.name] = cell
        self.version += 1
        return cell

    def _release(self, cell: _Cell, spec: api.InstanceSpec, *, now: float) -> None:
        """Let an instance start; now its secrets are known."""
        takes_s = _options(spec).launch_s
        cell.spec, cell.held = spec, False
        cell.due_at = now + (self.settings.launch_s if takes_s is None else takes_s)
        self.version += 1
        self.advance(now)

    def _run(self, cell: _Cell) -> None:
        lives_s = _options(cell.spec).lives_s
        cell.dies_at = math.inf if lives_s is None else cell.due_at + lives_s
        cell.state, cell.due_at = api.InstanceState.RUNNING, math.inf
        self.version += 1
        if self.on_start is not None:
            self.on_start(cell.spec)

    def _die(self, cell: _Cell, end: api.Exit) -> None:
        ran = cell.state is api.InstanceState.RUNNING
        cell.state, cell.exit = api.InstanceState.EXITED, end
        cell.due_at = cell.dies_at = math.inf
        self._changed(cell, stopped=ran)

    def _changed(self, cell: _Cell, *, stopped: bool) -> None:
        self.version += 1
        if stopped and self.on_stop is not None:
            self.on_stop(cell.spec.name)

    def _own(self, name: str, owner: str) -> _Cell:
        cell = self._cells.get(name)
        if cell is None or cell.owner != owner:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        return cell

    def _strike(self, verb: Verb, name: str | None, spec: api.InstanceSpec | None) -> Fault | None:
        """Take the first fitting fault: raise it, or return one that strikes after the effect."""
        template = None if spec is None else spec.metadata.get(names.TEMPLATE)
        for index, fault in enumerate(self._faults):
            if (
                fault.verb == verb
                and fault.template in {None, template}
                and fault.name in {None, name}
            ):
                del self._faults[index]
                if fault.after:
                    return fault
                _answer(fault)
        return None


def _answer(fault: Fault | None) -> None:
    """Raise what a fault says; nothing without one."""
    if fault is None:
        return
    raise Hang if fault.error is None else fault.error


def _options(spec: api.InstanceSpec) -> MemoryTemplate:
    return spec.options if isinstance(spec.options, MemoryTemplate) else MemoryTemplate()


def _shown(spec: api.InstanceSpec) -> api.InstanceSpec:
    """Return what tells two specifications apart; secrets are left out."""
    return attrs.evolve(spec, secret_files={}, avoid=())


class MemoryBackend:
    """The contract over a ``Platform``; several with different owners may share one."""

    kind = "memory"

    def __init__(
        self,
        platform: Platform,
        *,
        owner: str,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.platform = platform
        self._owner = owner
        self._now = now
        self._sleep = sleep
        self._closed = False

    async def reserve(self, spec: api.InstanceSpec) -> None:
        """Make an instance that waits."""
        self._refuse_when_closed()
        try:
            self.platform.reserve(spec, owner=self._owner, now=self._now())
        except Hang:
            await _for_ever()

    async def launch(self, spec: api.InstanceSpec) -> None:
        """Start an instance."""
        self._refuse_when_closed()
        try:
            self.platform.start(spec, owner=self._owner, now=self._now())
        except Hang:
            await _for_ever()

    async def list(self) -> Sequence[api.Instance]:
        """All instances of this owner; ``list_s`` passes before the picture is taken."""
        self._refuse_when_closed()
        await self._take(self.platform.settings.list_s)
        try:
            return self.platform.visible(owner=self._owner, now=self._now())
        except Hang:
            await _for_ever()
            return []

    async def watch(self) -> AsyncIterator[None]:
        """Wake after every change, at the latest a quarter of a second later."""
        version = self.platform.version
        while not self._closed:
            due = self.platform.wake_at()
            wait_s = _WATCH_S if due is None else min(_WATCH_S, max(0.0, due - self._now()))
            await self._sleep(wait_s)
            self.platform.advance(self._now())
            if self.platform.version != version:
                version = self.platform.version
                yield

    async def terminate(self, name: str, *, grace_s: float) -> None:  # noqa: ARG002 -- an instance in memory ends as scripted
        """End an instance and wait until it is gone."""
        self._refuse_when_closed()
        try:
            gone_at = self.platform.stop(name, owner=self._owner, now=self._now())
        except Hang:
            await _for_ever()
        await self._take(gone_at - self._now())
        self.platform.advance(self._now())

    async def capacity(self) -> api.Capacity | None:
        """Free places, or None when the platform is endless."""
        self._refuse_when_closed()
        try:
            self.platform.strike("capacity")
        except Hang:
            await _for_ever()
        free = self.platform.free()
        return None if free is None else api.Capacity(free_instances=free, text=f"{free} free")

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines that were written with ``Platform.write``."""
        self._refuse_when_closed()
        try:
            self.platform.strike("logs")
        except Hang:
            await _for_ever()
        return self.platform.output(name, owner=self._owner, tail=tail)

    async def run(self, name: str, argv: Sequence[str], *, within_s: float) -> api.Ran:
        """What ``Platform.on_run`` says, after ``run_s``."""
        self._refuse_when_closed()
        takes_s = self.platform.settings.run_s
        await self._take(min(takes_s, within_s))
        try:
            ran = self.platform.command(name, argv, owner=self._owner, now=self._now())
        except Hang:
            await _for_ever()
        return ran if takes_s <= within_s else api.Ran(code=None)

    def work_dir(self, name: str) -> str | None:
        """Return a path that nobody ever opens."""
        return f"/memory/{name}/work"

    async def aclose(self) -> None:
        """End the watches; the platform and its instances stay."""
        self._closed = True

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise api.Unavailable("the backend is closed")

    async def _take(self, seconds: float) -> None:
        if seconds > 0:
            await self._sleep(seconds)


async def _for_ever() -> None:
    """Wait until the caller gives up."""
    await asyncio.get_running_loop().create_future()


def create(
    settings: MemorySettings,
    *,
    owner: str,
    store: api.Store,  # noqa: ARG001 -- part of every factory; nothing here outlives the process
    state_dir: pathlib.Path,  # noqa: ARG001 -- likewise
    now: Callable[[], float],
    reading: bool = False,  # noqa: ARG001 -- likewise: it begins empty
) -> MemoryBackend:
    """Build a backend on a platform of its own."""
    return MemoryBackend(Platform(settings), owner=owner, now=now)
