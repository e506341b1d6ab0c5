"""What the stream does not tell: labels, silent tasks, agents, quotas, output; from the pages.

Asked only when needed (after a restart, when no offer fits, for a log) and only about ourselves,
since 2000 brokers share one master. Refuses to know the stream and the broker's wishes.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from backends import api
from backends.mesos import facts, offers, transport

_PAGE = 500
_OUTPUT_BYTES = 64 << 10
_AGENTS_FOR_S = 60.0
OUTPUT = "agent.log"
"""In the sandbox: everything that the agent wrote."""


class Cluster:
    """Questions to one cluster."""

    def __init__(self, link: transport.Link, *, role: str) -> None:
        self._link = link
        self._role = role
        self._agents: tuple[float, list[offers.Agent]] | None = None

    async def tasks(self, framework: str) -> dict[str, Mapping[str, Any]]:
        """Return the framework's tasks as the master shows them, by name, the newest of each."""
        return {str(task["id"]): task for task in await self._tasks_of(framework)}

    async def living(self, framework: str) -> list[str]:
        """Return the names of its tasks that may still run."""
        found = await self.tasks(framework)
        return [name for name, task in found.items() if task.get("state") not in facts.TERMINAL]

    async def why_not(self, want: facts.Want) -> api.BackendError:
        """Return the error that says why nothing that was offered fits."""
        text = f"no offer fits in time; the last: {want.miss}"
        if not want.offers_seen:
            text = f"the master made no offer to the role {self._role!r} in time"
        try:
            never = offers.never_fits(want.need, await self._all_agents())
            if never is not None:
                return api.Rejected(never)
            quota = None if want.offers_seen else await self._quota(want.need)
        except api.BackendError as error:
            return api.NoCapacity(f"{text}; its pages do not tell more: {error.reason}"[:256])
        return api.NoCapacity((quota or text)[:256])

    async def output(self, task: facts.Task, *, framework: str) -> str:
        """Return the last part of what a task wrote; empty while there is no sandbox."""
        if not task.agent_url and task.agent_id is not None:
            task.agent_url = await self._agent_url(task.agent_id)
        path = f"/frameworks/{framework}/executors/{task.name}/runs/latest/{OUTPUT}"
        size = await self._read(task.agent_url, path, offset=-1)
        if size is None:
            return ""
        start = max(0, int(size["offset"]) - _OUTPUT_BYTES)
        page = await self._read(task.agent_url, path, offset=start, length=_OUTPUT_BYTES)
        return "" if page is None else str(page["data"])

    # --- inside ---

    async def _read(self, base: str, path: str, **numbers: int) -> Mapping[str, Any] | None:
        query = {key: str(number) for key, number in numbers.items()}
        page = await self._link.agent_page(base, "/files/read", path=path, **query)
        if page is not None and not {"offset", "data"} <= set(page):
            raise api.Unavailable("the agent's /files/read answers something else")
        return page  # type: ignore[no-any-return]  # JSON

    async def _tasks_of(self, framework: str) -> list[Mapping[str, Any]]:
        """Return all, page by page, oldest first; a page that fails fails the whole."""
        found: list[Mapping[str, Any]] = []
        while True:
            page = await self._link.page(
                "/master/tasks",
                framework_id=framework,
                limit=str(_PAGE),
                offset=str(len(found)),
                order="asc",
            )
            if not isinstance(part := _member(page, "tasks"), list):
                raise api.Unavailable("the master's page /tasks answers something else")
            found += part
            if len(part) < _PAGE:  # masters before 1.5 do not filter
                return [task for task in found if task.get("framework_id") == framework]

    async def _all_agents(self) -> list[offers.Agent]:
        now = asyncio.get_running_loop().time()
        if self._agents is None or self._agents[0] < now:
            page = await self._link.page("/slaves")
            listed = _member(page, "slaves") or ()
            agents = [offers.parse_agent(one, role=self._role) for one in listed]
            self._agents = now + _AGENTS_FOR_S, agents
        return self._agents[1]

    async def _quota(self, need: offers.Need) -> str | None:
        """Say that the role's quota is used up, or None."""
        page = await self._link.page("/roles")
        for role in _member(page, "roles") or ():
            quota = role.get("quota", {})
            limit, used = quota.get("limit", {}), quota.get("consumed", {})
            for name, wanted in need.scalars.items():
                if role.get("name") == self._role and name in limit:
                    left = limit[name] - used.get(name, 0)
                    if left < wanted / 1000:
                        return (
                            f"the quota of role {self._role!r} is used up: {name} "
                            f"{left:g} of {limit[name]:g} are left, {wanted / 1000:g} are needed"
                        )
        return None

    async def _agent_url(self, agent: str) -> str:
        page = await self._link.page("/slaves", slave_id=agent)
        for one in _member(page, "slaves") or ():
            if one.get("id") == agent:
                host, _, port = one["pid"].rpartition("@")[2].rpartition(":")
                host = one["hostname"] if self._link.scheme == "https" else host
                return f"{self._link.scheme}://{host}:{port}"
        raise api.Unavailable("the master does not know the task's agent any more")


def _member(page: Any, name: str) -> Any:
    return page.get(name) if isinstance(page, Mapping) else None
