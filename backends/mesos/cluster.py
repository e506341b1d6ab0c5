"""What the stream does not tell: labels, silent tasks, agents, quotas, output; from the pages.

Asked only when needed (after a restart, when no offer fits, for a log) and only about ourselves,
since 2000 brokers share one master. Refuses to know the stream and the broker's wishes.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from backends import api
from backends.mesos import facts, offers, transport
from outside import text

T = TypeVar("T")

_PAGE = 500
_OUTPUT_BYTES = 64 << 10
_KNOWN_FOR_S = {"/slaves": 60.0, "/roles": 5.0}  # for reasons; such pages are large
OUTPUT = "agent.log"
"""In the sandbox: everything that the agent wrote."""


class Cluster:
    """Questions to one cluster."""

    def __init__(self, link: transport.Link, *, role: str) -> None:
        self._link = link
        self._role = role
        self._known: dict[str, tuple[float, Any]] = {}
        self._asking = asyncio.Lock()  # many launches fail in the same second

    async def tasks(self, framework: str) -> dict[str, Mapping[str, Any]]:
        """Return the framework's tasks as the master shows them, by name, the newest of each."""
        return {str(task["id"]): task for task in await self._tasks_of(framework)}

    async def framework(self, identity: str) -> tuple[Mapping[str, Any] | None, list[str]]:
        """Return a framework as the master's page shows it, and the agents it waits for.

        None: the master does not show it. The agents' host names are of those that were there
        before the master's restart and have not come back.
        """
        page = await self._link.page("/master/frameworks", framework_id=identity)
        agents = await self._link.page("/slaves")
        awaited = _member(agents, "recovered_slaves")
        every = _member(page, "frameworks"), _member(page, "completed_frameworks")
        if not all(isinstance(part, list) for part in (*every, awaited)):
            raise api.Unavailable(
                "the master's pages /frameworks and /slaves answer something else"
            )
        for part in every:
            for one in part:
                if isinstance(one, Mapping) and one.get("id") == identity:
                    return one, _names_of(awaited)
        return None, _names_of(awaited)

    async def living(self, framework: str) -> list[str]:
        """Return the names of its tasks that run; a removed framework's others never will.

        An agent that does not answer now is told to end them when it comes back.
        """
        over = facts.TERMINAL | {"TASK_UNREACHABLE"}
        found = await self.tasks(framework)
        return [name for name, task in found.items() if task.get("state") not in over]

    async def why_not(self, want: facts.Want) -> api.BackendError:
        """Return the error that says why nothing that was offered fits."""
        words = f"no offer fits in time; the last: {want.miss}"
        if not want.offers_seen:
            words = f"the master made no offer to the role {self._role!r} in time"
        try:
            never = offers.never_fits(want.need, await self._all_agents())
            if never is not None:
                return api.Rejected(never)
            quota = await self._quota(want.need)  # offers are cut to what is left of it
        except api.BackendError as error:
            return api.NoCapacity(f"{words}; its pages do not tell more: {error.reason}"[:256])
        return api.NoCapacity((quota or words)[:256])

    async def output(self, task: facts.Task, *, framework: str) -> str:
        """Return the last lines that a task wrote, whole; empty while there is no sandbox."""
        if not task.agent_url and task.agent_id is not None:
            task.agent_url = await self._agent_url(task.agent_id)
        path = f"/frameworks/{framework}/executors/{task.name}/runs/latest/{OUTPUT}"
        size = await self._read(task.agent_url, path, offset=-1)
        if size is None:
            return ""
        start = max(0, int(size["offset"]) - _OUTPUT_BYTES)
        page = await self._read(task.agent_url, path, offset=start, length=_OUTPUT_BYTES)
        data = "" if page is None else str(page["data"])
        _cut, newline, whole = data.partition("\n")
        return whole if start and newline else data

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

    async def _known_for_a_while(self, path: str, read: Callable[[Any], T]) -> T:
        now = asyncio.get_running_loop().time
        async with self._asking:
            until, known = self._known.get(path, (0.0, None))
            if until < now():
                known = read(await self._link.page(path))
                self._known[path] = now() + _KNOWN_FOR_S[path], known
            return known  # type: ignore[no-any-return]  # of what ``read`` returned

    async def _all_agents(self) -> list[offers.Agent]:
        return await self._known_for_a_while(
            "/slaves",
            lambda page: [
                offers.parse_agent(one, role=self._role) for one in _member(page, "slaves") or ()
            ],
        )

    async def _quotas(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return those of our role and of the roles above it, which count as well."""

        def read(page: Any) -> list[tuple[str, Mapping[str, Any]]]:
            named = [(str(one.get("name")), one) for one in _member(page, "roles") or ()]
            return [
                (name, one.get("quota", {}))
                for name, one in named
                if self._role == name or self._role.startswith(f"{name}/")
            ]

        return await self._known_for_a_while("/roles", read)

    async def _quota(self, need: offers.Need) -> str | None:
        """Say that the role's quota is used up, or None."""
        for name, quota in await self._quotas():
            limit, used = quota.get("limit", {}), quota.get("consumed", {})
            for kind, wanted in need.scalars.items():
                left = limit[kind] - used.get(kind, 0) if kind in limit else math.inf
                if left < wanted / 1000:
                    return (
                        f"the quota of role {name!r} is used up: {kind} "
                        f"{left:g} of {limit[kind]:g} are left, {wanted / 1000:g} are needed"
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


def _names_of(agents: Any) -> list[str]:
    names = [one.get("hostname") for one in agents if isinstance(one, Mapping)]
    return [text.clean(str(one), 80) for one in names]
