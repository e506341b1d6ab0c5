"""Reads each source at its own pace: nobody waits for the slowest.

Every backend is read by tasks of its own, one read at a time. A look begins a read of each that
is not being read, reads the controller, and takes the newest view of every backend, whatever its
age. It waits a moment for those that answered within a moment the last time, and for no other. A
view that comes later and shows something new wakes the loop. A backend whose read has been under
way for much longer than it usually takes is unknown from then on, until it answers.

Refuses to judge what a view shows, and to try again: the next look is the retry.
"""

import asyncio
from collections.abc import Callable, Mapping

from attrs import define, evolve, field

from backends import api as backends_api
from broker.core import model
from broker.loop import observe
from outside import waits

MOMENT_S = 0.25
"""How long a look waits for backends that came within it the last time."""
FIRST_S = 1.0
"""How long the first look waits for everybody."""
PATIENCE_S = 5.0
"""For how long a read may be under way before its backend is unknown, at the least."""
_USUAL = 2.0
"""How often the duration of the last good read may pass before its backend is unknown."""
_UNREAD = model.BackendView(error="unavailable: it has not answered yet")


def patience(took_s: float, *, time_limit_s: float) -> float:
    """Return for how long a read may be under way, given how long the last good one took."""
    return min(max(PATIENCE_S, _USUAL * took_s), time_limit_s)


def aged(
    view: model.BackendView, asked_at: float | None, *, now: float, patience_s: float
) -> model.BackendView:
    """Return the newest view as it counts now; ``asked_at``: when the read under way began."""
    if asked_at is None or not view.synced or now - asked_at <= patience_s:
        return view
    text = f"unavailable: no answer within {patience_s:g} s"
    return model.BackendView(read_at=asked_at, error=text)


@define(kw_only=True, eq=False)
class _Source:
    """What is known of one backend's reads."""

    view: model.BackendView = _UNREAD
    asked_at: float | None = None  # when the read under way began
    task: asyncio.Task[None] | None = None
    took_s: float = 0.0  # the last good read
    is_prompt: bool = True  # the last read came within a moment; a first one is waited for
    given: model.BackendView | None = None  # what the last look took, if a read was under way


@define(kw_only=True, eq=False)
class Sources:
    """The sources of one loop. Times are those of ``now``."""

    reader: observe.ControllerReader
    backends: Mapping[model.BackendName, backends_api.Backend]
    now: Callable[[], float]
    time_limit_s: float
    news: Callable[[], None]  # called when a late view shows something new
    _sources: dict[model.BackendName, _Source] = field(factory=dict)

    async def look(self, group: waits.TaskGroup) -> observe.Observation:
        """Read the controller and begin to read everybody else; return the newest views."""
        began = self.now()
        for name in self.backends:
            self._begin(name, group)
        controller = await observe.read_controller(self.reader, now=self.now, to_order=True)
        await self._wait(began)
        return observe.Observation(controller=controller, backends=self._newest())

    def forget(self) -> None:
        """Give up what is being read and know nothing: what comes next is read from now on."""
        for source in self._sources.values():
            if source.task is not None:
                source.task.cancel()
        self._sources.clear()

    def _begin(self, name: model.BackendName, group: waits.TaskGroup) -> None:
        source = self._sources.setdefault(name, _Source())
        source.given = None
        if source.task is None:
            source.asked_at = self.now()
            source.task = group.create_task(self._read(name, source), name=f"list {name}")

    async def _read(self, name: model.BackendName, source: _Source) -> None:
        began = self.now()
        view = await observe.read_backend(
            self.backends[name], now=self.now, time_limit_s=self.time_limit_s
        )
        took_s = self.now() - began
        source.view, source.asked_at, source.task = view, None, None
        source.is_prompt = took_s <= MOMENT_S
        if view.synced:
            source.took_s = took_s
        if source.given is not None and _differ(view, source.given):
            self.news()

    async def _wait(self, began: float) -> None:
        """Wait for those that are likely to answer at once."""
        waited = [
            source.task
            for source in self._sources.values()
            if source.task is not None and source.is_prompt
        ]
        is_first = all(source.view is _UNREAD for source in self._sources.values())
        left = began + (FIRST_S if is_first else MOMENT_S) - self.now()
        if waited:
            await asyncio.wait(waited, timeout=max(0.0, left))

    def _newest(self) -> dict[model.BackendName, model.BackendView]:
        now = self.now()
        views = {}
        for name in self.backends:
            source = self._sources.get(name) or _Source()
            limit_s = patience(source.took_s, time_limit_s=self.time_limit_s)
            views[name] = aged(source.view, source.asked_at, now=now, patience_s=limit_s)
            if source.task is not None:
                source.given, source.is_prompt = views[name], False
        return views


def _differ(one: model.BackendView, other: model.BackendView) -> bool:
    """Return whether two views show different things, whenever they were read."""
    return evolve(one, read_at=0.0, error="") != evolve(other, read_at=0.0, error="")
