"""Whether a command can be run in a container of a pod now, and if not, why not.

Pure. Refuses to know who asks, and how a command is run.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from backends.kubernetes.pods import states, table
from outside import quotes, text, typed

Pod = Mapping[str, Any]


@frozen(kw_only=True)
class Obstacle:
    """Why not: for ever, for a reason that seldom goes away, or just not yet."""

    text: str
    is_final: bool = False
    is_trouble: bool = False


def obstacle(pod: Pod, name: str) -> Obstacle | None:
    """Return what keeps a command from being run in a container, or None."""
    names = [name_of(c) for c in _beside(pod)]
    if name == states.agent_container(pod):
        return Obstacle(text=f"{name} is this container itself", is_final=True)
    if name not in names:
        others = text.clean(", ".join(names)) or "none"
        shown = text.clean(name, 80)
        return Obstacle(
            text=f"no container {quotes.shown(shown)} in this pod; others there: {others}",
            is_final=True,
        )
    if states.deleting(pod):
        return Obstacle(text="the pod is being ended", is_final=True)
    return _of_state(pod, name)


def _of_state(pod: Pod, name: str) -> Obstacle | None:
    status = next((c for c in _statuses(pod) if name_of(c) == name), {})
    state = states.part(status, "state")
    if "running" in state:
        return None
    if "terminated" in state:
        ended = states.part(state, "terminated")
        code = typed.integer(ended.get("exitCode"), -(1 << 31), 1 << 31)
        words = f"{states.word(ended, 'reason') or 'ended'}, exit code {code}"
        return Obstacle(text=f"container {name} is dead ({words})", is_final=True)
    waiting = states.part(state, "waiting")
    reason = states.word(waiting, "reason") or "not yet started"
    row = table.find(table.StatusPart.WAITING, reason)
    if row is None:
        return Obstacle(text=f"container {name} does not run yet ({reason})")
    told = states.words(waiting, "message")
    return Obstacle(
        text=f"container {name} does not run: {row.text} ({reason}): {told}"[:256],
        is_trouble=True,
    )


def is_up(pod: Pod, name: str) -> bool:
    """Tell whether a container of a pod runs, and the pod is not being ended."""
    status = next((c for c in _statuses(pod) if name_of(c) == name), {})
    return "running" in states.part(status, "state") and not states.deleting(pod)


def name_of(container: Pod) -> str:
    """Return the name of a container."""
    return typed.words(container.get("name"), 63)


def _beside(pod: Pod) -> Iterator[Pod]:
    """Yield all containers but the agent's, of those that live as long as the pod."""
    spec = states.part(pod, "spec")
    agent = states.agent_container(pod)
    yield from (c for c in states.entries(spec, "containers") if name_of(c) != agent)
    inits = states.entries(spec, "initContainers")
    yield from (c for c in inits if c.get("restartPolicy") == "Always")


def _statuses(pod: Pod) -> Iterator[Pod]:
    status = states.part(pod, "status")
    for key in ("containerStatuses", "initContainerStatuses"):
        yield from states.entries(status, key)
