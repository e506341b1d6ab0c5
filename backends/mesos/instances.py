"""From what is known of a task to the instance that the broker sees.

Pure; one table for the backend, which hears of its tasks, and for commands that read about them.
Refuses to know where the facts came from.
"""

from backends import api
from backends.mesos import death, records, tasks
from outside import text

_STATES = {
    "TASK_STAGING": api.InstanceState.STARTING,
    "TASK_STARTING": api.InstanceState.STARTING,
    "TASK_RUNNING": api.InstanceState.RUNNING,
    "TASK_KILLING": api.InstanceState.STOPPING,
}
_AWAY = "its Mesos agent does not answer the master"


def instance(task: records.Task) -> api.Instance:
    """Return the instance that a task is. Raises ValueError when its labels were damaged."""
    labels = task.labels or {}
    metadata = tasks.metadata(labels)
    state = _STATES.get(task.state, api.InstanceState.STARTING)
    if task.state == "TASK_UNREACHABLE":
        state = api.InstanceState.RUNNING if task.started else api.InstanceState.STARTING
    if task.final is not None:
        state = api.InstanceState.EXITED
    elif task.grace_s is not None:
        state = api.InstanceState.STOPPING
    return api.Instance(
        name=task.name,
        state=state,
        metadata=metadata,
        created_at=tasks.created_at(labels),
        exit=None
        if task.final is None
        else death.certificate(task.final, last_words=task.last_words or ""),
        detail=_AWAY if task.state == "TASK_UNREACHABLE" else "",
        place=tasks.place_of(labels) or text.clean(task.agent_id or ""),
    )
