"""What a framework runs, read from the master's pages; nothing is subscribed, nothing is said.

A master lets one scheduler speak for a framework: who subscribes with its id ends the other one's
stream. So whoever only looks must not, and asks the pages instead: the framework's own page tells
its tasks, those whose agent is away, and keeps apart those that are over and acknowledged, which
no broker counts any more. Refuses to know the stream.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends import api
from backends.mesos import cluster, instances, records, settings, tasks, transport
from outside import counts, quotes, text, typed


class ClusterReader:
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
        """All tasks of the framework as the master's pages show them.

        Raises ``Partial`` while the master waits for agents, and for tasks that cannot be read.
        """
        self._refuse_when_closed()
        identity = self._identity()
        framework, awaited = await self._cluster.framework(identity or "-")
        if identity is None:
            return []  # no broker of this state directory has ever been there
        if framework is None and not awaited and self._settings.principal is not None:
            raise api.Unauthorized(
                "the master does not show our framework; hint: the ACL view_frameworks"
            )
        seen, odd = typed.each(
            _tasks_of(framework or {}), lambda raw: instances.instance(_task(raw))
        )
        if odd:
            raise api.Partial(
                odd.words("task of the master's page", "tasks of the master's page"),
                seen=seen,
                odd=True,
            )
        if awaited:
            names = ", ".join(awaited[:3])
            raise api.Partial(
                "the master was restarted and waits for "
                f"{counts.told(len(awaited), 'agent')}, such as {names}",
                seen=seen,
            )
        return seen

    async def capacity(self) -> api.Capacity | None:
        """Unknown, as ever."""
        self._refuse_when_closed()
        return None

    async def logs(self, name: str, *, tail: int) -> str:
        """Last lines of what the agent wrote."""
        self._refuse_when_closed()
        identity = self._identity()
        told, _ = await self._cluster.tasks(identity or "-")
        found = told.get(name)
        if identity is None or found is None:
            raise api.NotFound(f"no instance {quotes.shown(name)}")
        task = records.Task(name=name, agent_id=str(found.get("slave_id")))
        lines = await self._cluster.output(task, framework=identity)
        return "\n".join(text.last_lines(lines, tail)) if tail > 0 else ""

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


def _tasks_of(framework: Mapping[str, Any]) -> list[Any]:
    """Return those that run, may run, or are over and not yet acknowledged."""
    every: list[Any] = []
    for kind in ("tasks", "unreachable_tasks"):
        part = framework.get(kind, [])
        if not isinstance(part, list):
            raise api.Unavailable("the master's page /frameworks answers something else")
        every += part
    return every


def _task(raw: Mapping[str, Any]) -> records.Task:
    state = str(raw["state"])
    statuses = raw.get("statuses", ())
    final = None
    if state in records.TERMINAL:
        final = {"state": state, "timestamp": statuses[-1].get("timestamp") if statuses else None}
    return records.Task(
        name=str(raw["id"]),
        agent_id=str(raw.get("slave_id", "")) or None,
        state=state,
        started=any(one.get("state") != "TASK_STAGING" for one in statuses),
        labels=tasks.labels_of(raw),
        final=final,
    )
