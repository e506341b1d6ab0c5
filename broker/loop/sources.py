"""Reads each source at its own pace: nobody waits for the slowest.

The controller and every backend are read by tasks of their own, one read at a time each. A look
begins a read of each that is not being read, and takes the newest view of every one, whatever its
age. It waits a moment for those that answered within a moment the last time, and for no other. A
view that comes later and shows something new wakes the loop. A source whose read has been under
way for much longer than it usually takes is unknown from then on, until it answers; the loop is
woken in that very moment, too.

Refuses to judge what a view shows, and to try again: the next look is the retry.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Generic, TypeVar

from attrs import define, evolve, field

from backends import api as backends_api
from broker.core import model
from broker.loop import observe
from jnlp import errors as jnlp_errors
from outside import waits

MOMENT_S = 0.25
"""How long a look waits for backends that came within it the last time."""
CONTROLLER_S = 1.0
"""The same of the controller: without it little can be decided, and it is read in two requests."""
FIRST_S = 1.0
"""How long the first look waits for every backend."""
PATIENCE_S = 5.0
"""For how long a read may be under way before its source is unknown, at the least.

Also how long the first look waits for the controller.
"""
_SURELY_S = 0.01  # the event loop's clock is not the one that counts
_USUAL = 2.0
"""How often the duration of the last good read may pass before its source is unknown."""

V = TypeVar("V", model.ControllerView, model.BackendView)

_SLUGS: Mapping[type, str] = {
    model.ControllerView: jnlp_errors.Unreachable.slug,
    model.BackendView: backends_api.Unavailable.slug,
}


def patience(took_s: float, *, time_limit_s: float) -> float:
    """Return for how long a read may be under way, given how long the last good one took."""
    return min(max(PATIENCE_S, _USUAL * took_s), time_limit_s)


def aged(view: V, asked_at: float | None, *, now: float, patience_s: float) -> V:
    """Return the newest view as it counts now; ``asked_at``: when the read under way began."""
    if asked_at is None or not view.synced or now - asked_at < patience_s:
        return view
    kind = type(view)
    return kind(read_at=asked_at, error=f"{_SLUGS[kind]}: no answer within {patience_s:g} s")


def _unread(kind: type[V]) -> V:
    return kind(error=f"{_SLUGS[kind]}: it has not answered yet")


@define(kw_only=True, eq=False)
class _Source(Generic[V]):
    """What is known of one source's reads."""

    name: str
    read: Callable[[], Coroutine[Any, Any, V]]
    moment_s: float
    first_s: float
    view: V
    is_unread: bool = True
    asked_at: float | None = None  # when the read under way began
    task: asyncio.Task[None] | None = None
    late: asyncio.TimerHandle | None = None  # when its time is over
    took_s: float = 0.0  # the last good read
    is_prompt: bool = True  # the last read came within a moment; a first one is waited for
    given: V | None = None  # what the last look took, if a read was under way
    is_fresh: bool = False  # a view has come late, and woke the loop that has not taken it yet
    is_due: bool = False  # something had happened before the read under way began ...
    again: bool = False  # ... or has happened since
    error: Exception | None = None  # what a read ended with that is no view: our bug, or a claim


@define(kw_only=True, eq=False)
class Sources:
    """The sources of one loop. Times are those of ``now``."""

    read_controller: Callable[[], Coroutine[Any, Any, model.ControllerView]]
    backends: Mapping[model.BackendName, backends_api.Backend]
    now: Callable[[], float]
    time_limit_s: float
    news: Callable[[], None]  # called when a late view shows something new, or does not come
    _controller: _Source[model.ControllerView] = field(init=False)
    _backends: dict[model.BackendName, _Source[model.BackendView]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._know_nothing()

    @property
    def is_reading_controller(self) -> bool:
        """Whether a read of the controller is under way."""
        return self._controller.task is not None

    async def look(
        self, group: waits.TaskGroup, *, something_happened: bool = False
    ) -> observe.Observation:
        """Begin to read everybody; return the newest views.

        ``something_happened``: what is under way began before that, and is not enough. Raises
        what a read of the controller has raised.
        """
        began = self.now()
        for source in self._all():
            self._begin(source, group, something_happened=something_happened)
        await _come([self._controller], since=began, now=self.now)
        await _come(self._backends.values(), since=began, now=self.now)
        if self._controller.error is not None:
            error, self._controller.error = self._controller.error, None
            raise error
        return observe.Observation(
            controller=self._newest(self._controller),
            backends={name: self._newest(source) for name, source in self._backends.items()},
        )

    def newest(self) -> observe.Observation:
        """Return the newest view of everybody, as it counts now; nothing is read for it."""
        now = self.now()

        def aged_view(source: _Source[V]) -> V:
            return aged(source.view, source.asked_at, now=now, patience_s=self._patience(source))

        return observe.Observation(
            controller=aged_view(self._controller),
            backends={name: aged_view(source) for name, source in self._backends.items()},
        )

    def forget(self) -> None:
        """Give up what is being read and know nothing: what comes next is read from now on."""
        for source in self._all():
            if source.task is not None:
                source.task.cancel()
            if source.late is not None:
                source.late.cancel()
        self._know_nothing()

    def _know_nothing(self) -> None:
        self._controller = _Source(
            name="read controller",
            read=self.read_controller,
            moment_s=CONTROLLER_S,
            first_s=PATIENCE_S,
            view=_unread(model.ControllerView),
        )
        self._backends = {name: self._new(name) for name in self.backends}

    def _new(self, name: model.BackendName) -> _Source[model.BackendView]:
        def read() -> Coroutine[Any, Any, model.BackendView]:
            return observe.read_backend(
                self.backends[name], now=self.now, time_limit_s=self.time_limit_s
            )

        return _Source(
            name=f"list {name}",
            read=read,
            moment_s=MOMENT_S,
            first_s=FIRST_S,
            view=_unread(model.BackendView),
        )

    def _all(self) -> "tuple[_Source[Any], ...]":
        return (self._controller, *self._backends.values())

    def _begin(
        self, source: _Source[V], group: waits.TaskGroup, *, something_happened: bool
    ) -> None:
        is_fresh, source.is_fresh = source.is_fresh, False
        source.given = None
        if source.task is not None:
            source.again |= something_happened
        elif something_happened or not is_fresh:  # what has just come is not asked for again
            source.is_due, source.again = something_happened or source.again, False
            source.asked_at = self.now()
            source.task = group.create_task(self._read(source), name=source.name)
            source.late = asyncio.get_running_loop().call_later(
                self._patience(source) + _SURELY_S, self.news
            )

    async def _read(self, source: _Source[V]) -> None:
        began = self.now()
        view = source.view
        try:
            view = await source.read()
        except Exception as error:  # noqa: BLE001 -- whoever looks is told
            source.error = error
        took_s = self.now() - began
        if source.late is not None:
            source.late.cancel()
        source.view, source.asked_at, source.task, source.is_unread = view, None, None, False
        source.is_prompt = took_s <= source.moment_s
        if view.synced:
            source.took_s = took_s
        if source.given is None:  # whoever looks waits for it
            return
        is_awaited = source.is_due or source.again or source.error is not None
        if is_awaited or _differ(view, source.given):
            source.is_fresh = not source.again
            self.news()

    def _patience(self, source: _Source[V]) -> float:
        return patience(source.took_s, time_limit_s=self.time_limit_s)

    def _newest(self, source: _Source[V]) -> V:
        view = aged(
            source.view, source.asked_at, now=self.now(), patience_s=self._patience(source)
        )
        if source.task is not None:
            source.given, source.is_prompt = view, False
        return view


async def _come(sources: Iterable[_Source[V]], *, since: float, now: Callable[[], float]) -> None:
    """Wait for those that are likely to answer at once."""
    waited = [source for source in sources if source.task is not None and source.is_prompt]
    if not waited:
        return
    limit_s = max(source.first_s if source.is_unread else source.moment_s for source in waited)
    tasks = [source.task for source in waited if source.task is not None]
    await asyncio.wait(tasks, timeout=max(0.0, since + limit_s - now()))


def _differ(one: V, other: V) -> bool:
    """Return whether two views show different things, whenever they were read."""
    return evolve(one, read_at=0.0, error="") != evolve(other, read_at=0.0, error="")
