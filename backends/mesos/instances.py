"""From what is known of a task to the instance that the broker sees.

Pure; one table for the backend, which hears of its tasks, and for commands that read about them.
Refuses to know where the facts came from.
"""

from backends import api
from backends.mesos import death, records, tasks
from outside import text

_KILLING = "TASK_KILLING"
_STATES = {
    "TASK_STAGING": api.InstanceState.STARTING,
    "TASK_STARTING": api.InstanceState.STARTING,
    "TASK_RUNNING": api.InstanceState.RUNNING,
    _KILLING: api.InstanceState.STOPPING,
}
_AWAY = "its Mesos agent does not answer the master"


def instance(task: records.Task, *, maintenance_at: float | None = None) -> api.Instance:
    """Return the instance that a task is. Raises ValueError when its labels were damaged.

    ``maintenance_at``: when its agent goes into maintenance, if that is soon; POSIX seconds.
    """
    labels = task.labels or {}
    metadata = tasks.metadata(labels)
    state = _STATES.get(task.state, api.InstanceState.STARTING)
    if task.state == "TASK_UNREACHABLE":
        state = api.InstanceState.RUNNING if task.started else api.InstanceState.STARTING
    if task.final is not None:
        state = api.InstanceState.EXITED
    elif task.grace_s is not None:
        state = api.InstanceState.STOPPING
    place = tasks.place_of(labels) or text.clean(task.agent_id or "")
    ends_because = _announced(task, place, maintenance_at)
    return api.Instance(
        name=task.name,
        state=state,
        metadata=metadata,
        created_at=tasks.created_at(labels),
        exit=None
        if task.final is None
        else death.certificate(task.final, last_words=task.last_words or "", place=place),
        detail=_AWAY if task.state == "TASK_UNREACHABLE" else "",
        place=place,
        host=place,
        ports=tasks.ports_of(labels) if state is api.InstanceState.RUNNING else (),
        ends_because=ends_because,
        ends_at=maintenance_at if ends_because and task.state != _KILLING else None,
    )


def _announced(task: records.Task, place: str, maintenance_at: float | None) -> str:
    """Say why a task that runs still will be ended by others; "" if nobody has said so."""
    if task.final is not None or task.grace_s is not None:
        return ""
    if task.state == _KILLING:
        if task.reason == death.DRAINING:
            return f"its Mesos agent {place} is drained"
        return f"somebody else ends it on {place}"
    if maintenance_at is not None:
        return f"its Mesos agent {place} goes into maintenance"
    return ""
