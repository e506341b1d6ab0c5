"""Whether a command can be run in a container of a pod now, and if not, why not.

Pure. Refuses to know who asks, and how a command is run.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from backends.kubernetes import pod as pods
from backends.kubernetes import table

Pod = Mapping[str, Any]


@frozen(kw_only=True)
class Obstacle:
    """Why not: for ever, for a reason that seldom goes away, or just not yet."""

    text: str
    is_final: bool = False
    is_trouble: bool = False


def obstacle(pod: Pod, name: str) -> Obstacle | None:
    """Return what keeps a command from being run in a container, or None."""
    known = [c["name"] for c in _beside(pod)]
    if name == pods.AGENT:
        return Obstacle(text=f"{name} is this container itself", is_final=True)
    if name not in known:
        others = ", ".join(known) or "none"
        return Obstacle(
            text=f"no container {name[:80]!r} in this pod; others there: {others}", is_final=True
        )
    if "deletionTimestamp" in pod["metadata"]:
        return Obstacle(text="the pod is being ended", is_final=True)
    return _of_state(pod, name)


def _of_state(pod: Pod, name: str) -> Obstacle | None:
    state: Pod = next((c.get("state") or {} for c in _statuses(pod) if c["name"] == name), {})
    if "running" in state:
        return None
    if "terminated" in state:
        ended = state["terminated"]
        words = f"{ended.get('reason') or 'ended'}, exit code {ended.get('exitCode')}"
        return Obstacle(text=f"container {name} is dead ({words})", is_final=True)
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason") or "not yet started"
    row = table.find(table.Where.WAITING, reason)
    if row is None:
        return Obstacle(text=f"container {name} does not run yet ({reason})")
    told = str(waiting.get("message") or "").strip()
    return Obstacle(
        text=f"container {name} does not run: {row.text} ({reason}): {told}"[:256],
        is_trouble=True,
    )


def _beside(pod: Pod) -> Iterator[Pod]:
    """Yield all containers but the agent's, of those that live as long as the pod."""
    spec = pod["spec"]
    yield from (c for c in spec.get("containers") or () if c["name"] != pods.AGENT)
    inits = spec.get("initContainers") or ()
    yield from (c for c in inits if c.get("restartPolicy") == "Always")


def _statuses(pod: Pod) -> Iterator[Pod]:
    status = pod.get("status") or {}
    for key in ("containerStatuses", "initContainerStatuses"):
        yield from status.get(key) or ()
