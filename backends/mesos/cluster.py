"""What the stream does not tell: labels, silent tasks, agents, quotas, output; from the pages.

Asked only when needed (after a restart, when no offer fits, for a log) and only about ourselves,
since 2000 brokers share one master. Refuses to know the stream and the broker's wishes.
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from backends import api
from backends.mesos import offers, records, transport
from outside import counts, quotes, text, typed

T = TypeVar("T")

_PAGE = 500
_PAGES_MAX = 64
_OUTPUT_BYTES = 64 << 10
_KNOWN_FOR_S = {"/slaves": 60.0, "/roles": 5.0}  # for reasons; such pages are large
_FRESH_S = 5.0  # so old may be what a verdict for ever is made of
_ROOM_S = 1.0  # so old may be what refuses a start, for a task may have ended since
OUTPUT, MESOS_OUTPUT = "agent.log", "stderr"
"""In the sandbox: everything that the agent wrote, and what Mesos did before it started."""


class Cluster:
    """Questions to one cluster."""

    def __init__(self, link: transport.Link, *, role: str) -> None:
        self._link = link
        self._role = role
        self._known: dict[str, tuple[float, Any]] = {}
        self._asking = asyncio.Lock()  # many launches fail in the same second

    async def tasks(self, framework: str) -> tuple[dict[str, Mapping[str, Any]], typed.Odd]:
        """Return the framework's tasks as the master shows them, by name, the newest of each.

        And what of the page could not be read.
        """
        found, odd = typed.each(await self._tasks_of(framework), _task_of)
        # masters before 1.5 do not filter
        return {name: raw for name, raw in found if raw.get("framework_id") == framework}, odd

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

        What cannot be read may run. Raises Unavailable then.

        An agent that does not answer now is told to end them when it comes back.
        """
        over = records.TERMINAL | {"TASK_UNREACHABLE"}
        by_name, odd = await self.tasks(framework)
        if odd:
            raise api.Unavailable(
                odd.words("task of our old framework", "tasks of our old framework")
            )
        return [name for name, task in by_name.items() if task.get("state") not in over]

    async def why_not(self, want: records.Want) -> api.BackendError:
        """Return the error that says why nothing that was offered fits."""
        words = f"no offer fits in time; the last: {want.miss}"
        if not want.offers_seen:
            words = f"the master made no offer to the role {quotes.shown(self._role)} in time"
        try:
            never = await self._never(want.need)
            if never is not None:
                return api.Rejected(never)
            quota = await self._quota(want.need)  # offers are cut to what is left of it
        except api.BackendError as error:
            return api.NoCapacity(f"{words}; its pages do not tell more: {error.reason}"[:256])
        return api.NoCapacity((quota or words)[:256])

    async def has_room(
        self,
        need: offers.Need,
        placed: Sequence[Mapping[str, str]],
        *,
        leaving: Collection[str] = (),
    ) -> bool:
        """Return whether a task that was offered nothing that fits only waits for its turn.

        A master offers an agent to one framework after the other, about one in a second. The page
        does not tell which are ``leaving``: ids of those that get nothing any more.
        """
        try:
            if await self._quota(need) is not None:
                return False
            agents, _ = await self._agents(_FRESH_S)
        except api.BackendError:
            return False
        return offers.has_room(need, agents, placed, leaving=leaving)

    async def full(
        self,
        need: offers.Need,
        placed: Sequence[Mapping[str, str]],
        *,
        before: Sequence[offers.Need],
    ) -> api.BackendError | None:
        """Return the error that says why no task fits now; None: one does, or that is not told.

        ``before``: what is about to take its room.
        """
        try:
            if (quota := await self._quota(need)) is not None:
                return api.NoCapacity(quota[:256])
            agents, odd = await self._agents(_ROOM_S)
            if odd or any(agent.free is None for agent in agents):
                return None
            if offers.has_room(need, agents, placed, before=before):
                return None
            never = await self._never(need)
        except api.BackendError:
            return None
        if never is not None:
            return api.Rejected(never[:256])
        some = counts.told(len(agents), "agent")
        return api.NoCapacity(f"none of {some} of the cluster has room for it now")

    async def output(self, task: records.Task, *, framework: str, file: str = OUTPUT) -> str:
        """Return the last lines that a task wrote, whole; empty while there is no sandbox.

        ``file``: another one of the sandbox.
        """
        if not task.agent_url and task.agent_id is not None:
            task.agent_url = await self._agent_url(task.agent_id)
        path = f"/frameworks/{framework}/executors/{task.name}/runs/latest/{file}"
        size = await self._read(task.agent_url, path, offset=-1)
        if size is None:
            return ""
        start = max(0, size[0] - _OUTPUT_BYTES)
        page = await self._read(task.agent_url, path, offset=start, length=_OUTPUT_BYTES)
        data = "" if page is None else page[1]
        _cut, newline, whole = data.partition("\n")
        return whole if start and newline else data

    async def containers(self, task: records.Task) -> Any:
        """Return the page of what runs on a task's agent; None if that has none such."""
        if not task.agent_url and task.agent_id is not None:
            task.agent_url = await self._agent_url(task.agent_id)
        return await self._link.agent_page(task.agent_url, "/containers")

    # --- inside ---

    async def _read(self, base: str, path: str, **numbers: int) -> tuple[int, str] | None:
        query = {key: str(number) for key, number in numbers.items()}
        page = await self._link.agent_page(base, "/files/read", path=path, **query)
        if page is None:
            return None
        with _understood("the agent's /files/read"):
            offset = typed.integer(page["offset"], 0, 1 << 60)
            if offset is None or not isinstance(page["data"], str):
                raise ValueError("no offset, or no data")
            return offset, page["data"][: 2 * _OUTPUT_BYTES]

    async def _tasks_of(self, framework: str) -> list[Any]:
        """Return all, page by page, oldest first; a page that fails fails the whole."""
        tasks: list[Any] = []
        for _ in range(_PAGES_MAX):
            page = await self._link.page(
                "/master/tasks",
                framework_id=framework,
                limit=str(_PAGE),
                offset=str(len(tasks)),
                order="asc",
            )
            part = _member(page, "tasks")
            if not isinstance(part, list) or len(part) > _PAGE:
                raise api.Unavailable("the master's page /tasks answers something else")
            tasks += part
            if len(part) < _PAGE:
                return tasks
        raise api.Unavailable(
            f"the master's page /tasks has no end after {counts.told(len(tasks), 'task')}"
        )

    async def _known_for_a_while(
        self, path: str, read: Callable[[Any], T], *, at_most_s: float
    ) -> T:
        """Return what a page told, asked again when that is older than ``at_most_s``."""
        now = asyncio.get_running_loop().time
        async with self._asking:
            at, value = self._known.get(path, (-math.inf, None))
            if now() - at >= at_most_s:
                page = await self._link.page(path)
                with _understood(f"the master's page {path}"):
                    value = read(page)
                self._known[path] = now(), value
            return value  # type: ignore[no-any-return]  # of what ``read`` returned

    async def _agents(self, at_most_s: float) -> tuple[list[offers.MesosAgent], typed.Odd]:
        def read(page: Any) -> tuple[list[offers.MesosAgent], typed.Odd]:
            every = _entries(page, "slaves")
            return typed.each(every, lambda one: offers.parse_agent(one, role=self._role))

        return await self._known_for_a_while("/slaves", read, at_most_s=at_most_s)

    async def _never(self, need: offers.Need) -> str | None:
        """Say why no agent can ever hold it: only if every agent was read, a moment ago."""
        for at_most_s in (_KNOWN_FOR_S["/slaves"], _FRESH_S):
            agents, odd = await self._agents(at_most_s)
            never = offers.never_fits(need, agents)
            if odd or never is None:
                return None
        return never

    async def _quotas(self) -> list[tuple[str, Mapping[str, float], Mapping[str, float]]]:
        """Return limit and use of those of our role and of the roles above it, which count too."""

        def read(page: Any) -> list[tuple[str, Mapping[str, float], Mapping[str, float]]]:
            found, _ = typed.each(_entries(page, "roles"), _quota_of)
            return [
                (name, limit, used)
                for name, limit, used in found
                if self._role == name or self._role.startswith(f"{name}/")
            ]

        return await self._known_for_a_while("/roles", read, at_most_s=_KNOWN_FOR_S["/roles"])

    async def _quota(self, need: offers.Need) -> str | None:
        """Say that the role's quota is used up, or None."""
        for name, limit, used in await self._quotas():
            for kind, wanted in need.scalars.items():
                left = limit[kind] - used.get(kind, 0.0) if kind in limit else math.inf
                if left < wanted / 1000:
                    return (
                        f"the quota of role {quotes.shown(name)} is used up: {kind} "
                        f"{left:g} of {limit[kind]:g} are left, {wanted / 1000:g} are needed"
                    )
        return None

    async def agents(self) -> dict[str, str]:
        """Return host name and address of the Mesos agents that are there."""
        page = await self._link.page("/slaves")
        with _understood("the master's page /slaves"):
            found, _ = typed.each(_entries(page, "slaves"), self._whereabouts)
        return dict(found)

    async def flags(self, base: str) -> Mapping[str, Any]:
        """Return the flags that an agent was started with."""
        flags = _member(await self._link.agent_page(base, "/flags"), "flags")
        if not isinstance(flags, Mapping):
            raise api.Unavailable("the agent's page /flags answers something else")
        return flags

    def _whereabouts(self, raw: Mapping[str, Any]) -> tuple[str, str]:
        host, _, port = raw["pid"].rpartition("@")[2].rpartition(":")
        host = raw["hostname"] if self._link.scheme == "https" else host.strip("[]")
        return text.clean(raw["hostname"], 80), offers.location(self._link.scheme, host, int(port))

    async def _agent_url(self, agent: str) -> str:
        page = await self._link.page("/slaves", slave_id=agent)
        with _understood("the master's page /slaves"):
            for one in _entries(page, "slaves"):
                if one.get("id") == agent and (url := self._whereabouts(one)[1]):
                    return url
        raise api.Unavailable("the master does not tell where the task's agent is")


@contextlib.contextmanager
def _understood(what: str) -> Iterator[None]:
    """Turn whatever goes wrong with what somebody sent into Unavailable."""
    try:
        yield
    except api.BackendError:
        raise
    except Exception as error:
        raise api.Unavailable(f"{what} answers something else: {type(error).__name__}") from error


def _task_of(raw: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    if not isinstance(raw["id"], str) or not isinstance(raw.get("state"), str):
        raise ValueError("a task without a name or a state")  # noqa: TRY004 -- theirs, not a bug
    return raw["id"], raw


def _quota_of(raw: Mapping[str, Any]) -> tuple[str, dict[str, float], dict[str, float]]:
    quota = raw.get("quota", {})
    return raw["name"], _amounts(quota.get("limit", {})), _amounts(quota.get("consumed", {}))


def _amounts(raw: Mapping[str, Any]) -> dict[str, float]:
    found = {kind: typed.number(value, 0, 1e12) for kind, value in raw.items()}
    return {kind: value for kind, value in found.items() if value is not None}


def _member(page: Any, name: str) -> Any:
    return page.get(name) if isinstance(page, Mapping) else None


def _entries(page: Any, name: str) -> list[Any]:
    """Return a list of a page. Raises ValueError where there is none."""
    found = _member(page, name)
    if not isinstance(found, list):
        raise ValueError(f"no list of {name}")  # noqa: TRY004 -- theirs, not a bug
    return found


def _names_of(agents: Any) -> list[str]:
    names = [one.get("hostname") for one in agents if isinstance(one, Mapping)]
    return [text.clean(str(one), 80) for one in names]
