"""What a framework runs, read from the master's pages; nothing is subscribed, nothing is said.

A master lets one scheduler speak for a framework: who subscribes with its id ends the other one's
stream. So whoever only looks must not. The pages tell which tasks there are and what their labels
are; of tasks that have ended they do not tell which were acknowledged, so those are left out.
Refuses to know the stream.
"""

import contextlib
from collections.abc import Callable, Sequence

from backends import api
from backends.mesos import cluster, facts, settings, tasks, transport
from outside import typed

_STATES = {
    "TASK_STAGING": api.InstanceState.STARTING,
    "TASK_STARTING": api.InstanceState.STARTING,
    "TASK_KILLING": api.InstanceState.STOPPING,
}


class Reader:
    """The questions of the contract; ``identity`` gives the framework's id, None without one."""

    kind = "mesos"

    def __init__(
        self, configured: settings.MesosSettings, *, identity: Callable[[], str | None]
    ) -> None:
        self._settings = configured
        self._identity = identity
        self._link = transport.Link(configured)
        self._cluster = cluster.Cluster(self._link, role=configured.role)
        self._closed = False

    async def list(self) -> Sequence[api.Instance]:
        """All tasks of the framework that have not ended."""
        self._refuse_when_closed()
        identity = self._identity()
        if identity is None:
            return []  # no broker of this state directory has ever been there
        found = await self._cluster.tasks(identity)
        good, odd = typed.each(
            [task for task in found.values() if task.get("state") not in facts.TERMINAL],
            lambda task: _instance(str(task["id"]), str(task.get("state")), tasks.labels_of(task)),
        )
        if odd:
            raise api.Partial(odd.words("tasks"), seen=good, odd=True)
        return good

    async def capacity(self) -> api.Capacity | None:
        """Unknown, as ever."""
        self._refuse_when_closed()
        return None

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of what the agent wrote."""
        self._refuse_when_closed()
        identity = self._identity()
        found = (await self._cluster.tasks(identity)).get(name) if identity is not None else None
        if identity is None or found is None:
            raise api.NotFound(f"no instance {name[:80]!r}")
        task = facts.Task(name=name, agent_id=str(found.get("slave_id")))
        text = await self._cluster.output(task, framework=identity)
        return "\n".join(text.splitlines()[-tail:]) if tail > 0 else ""

    def work_dir(self, name: str) -> str | None:
        """Return what the backend at work returns."""
        return f"{self._settings.work_root}/{name}"

    async def aclose(self) -> None:
        """Let go of the connections; idempotent."""
        self._closed = True
        with contextlib.suppress(api.BackendError):
            await self._link.aclose()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise api.Unavailable("the backend is closed")


def _instance(name: str, state: str, labels: dict[str, str]) -> api.Instance:
    away = state == "TASK_UNREACHABLE"
    return api.Instance(
        name=name,
        state=_STATES.get(state, api.InstanceState.RUNNING),
        metadata=tasks.metadata(labels),
        created_at=tasks.created_at(labels),
        detail="its Mesos agent does not answer the master" if away else "",
    )
