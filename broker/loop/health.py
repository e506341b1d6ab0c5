"""How long sources have been out of reach, and what that means for a probe. Pure.

A probe of life restarts what it finds dead, so it may only say "dead" where a restart can help:
when the loop does not turn, or when every look has failed by a bug of ours for long. A controller
or a platform that does not answer is not made to answer by a restart, which would only cost the
page that says so, and what runs through this process (`in-container`): that is said in words, with
the answer still good. Refuses to know clocks and sources.
"""

from collections.abc import Mapping

from attrs import frozen

from broker.core import model

LONG_S = 300.0
"""Beyond this a person should know."""
CONTROLLER = "controller"


@frozen(kw_only=True)
class SourceLost:
    """A source cannot be read any more, or not whole; ``reason`` in words."""

    source: str
    reason: str


@frozen(kw_only=True)
class SourceBack:
    """A source can be read again."""

    source: str


def unread(world: model.World) -> dict[str, str]:
    """Return why each source could not be read, by its name; backends as ``backend NAME``."""
    errors = {} if world.controller.synced else {CONTROLLER: world.controller.error}
    errors |= {
        f"backend {name}": view.error for name, view in world.backends.items() if not view.synced
    }
    return {name: error or "not synced" for name, error in errors.items()}


def since(before: Mapping[str, float], world: model.World) -> dict[str, float]:
    """Return since when (POSIX seconds) each source is unread, given the same of the last look."""
    return {name: before.get(name, world.now) for name in unread(world)}


def as_of(before: Mapping[str, float], world: model.World) -> dict[str, float]:
    """Return when the last read began (POSIX seconds) of which each source is known."""
    views = {f"backend {name}": view.read_at for name, view in world.backends.items()}
    views[CONTROLLER] = world.controller.read_at
    lost = unread(world)
    return {
        name: before[name] if name in lost else at
        for name, at in views.items()
        if name not in lost or name in before
    }


def idle_words(world: model.World, unread_since: Mapping[str, float], *, now: float) -> str:
    """Say that nothing can be done for long, and why; empty where something can."""
    errors = {
        name: error
        for name, error in unread(world).items()
        if now - unread_since.get(name, now) > LONG_S
    }
    backends = {name: error for name, error in errors.items() if name != CONTROLLER}
    whole = CONTROLLER in errors or (world.backends and len(backends) == len(world.backends))
    if not whole:
        return ""
    silent = [
        f"{name} not read for {(now - unread_since[name]) / 60:.0f} min: {error}"
        for name, error in errors.items()
    ]
    return "; ".join(silent)


def changes(before: model.World | None, now: model.World) -> tuple[SourceLost | SourceBack, ...]:
    """Return once that a source is lost, and once that it is back."""
    old = _not_whole(before) if before is not None else {}
    new = _not_whole(now)
    lost = [SourceLost(source=name, reason=new[name]) for name in new if name not in old]
    return (*lost, *(SourceBack(source=name) for name in old if name not in new))


def _not_whole(world: model.World) -> dict[str, str]:
    lost = {
        str(name): view.error or view.hidden or view.odd
        for name, view in world.backends.items()
        if not view.whole
    }
    if not world.controller.synced:
        lost[CONTROLLER] = world.controller.error
    elif world.controller.odd:
        lost[CONTROLLER] = world.controller.odd
    return lost
