"""The contract suite on Mesos: over the fake master, or a real one given by its address."""

import contextlib
import getpass
import json
import os
import pathlib
import signal
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
import attrs
import pytest

from backends import api
from backends.kit import names
from backends.mesos import backend as mesos
from backends.mesos import driver, settings
from tests.contract import checks, harness
from tests.mesos import agent, master, wire

_NO_IMAGE = "localhost:1/no/such:1"
_BY_BROKER = {
    "list-part unavailable": "a listing is what the stream told; its one page is covered elsewhere",
    "two-brokers": "two brokers of one framework are detected, and the first one stops",
    "reused-name": "a task's id is used once: an agent whose executor still has it aborts",
}


class MemoryStore:
    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def load(self, key: str) -> str | None:
        return self.kept.get(key)

    def save(self, key: str, value: str) -> None:
        self.kept[key] = value


class _Harness:
    kind = "mesos"
    within_s = 60.0
    _secrets: Any = None  # the default way

    def __init__(self, address: str, **changes: Any) -> None:
        place = os.environ.get("MESOS_HANDOVER", "127.0.0.1:0")
        door = settings.Handover(listen=place, url=f"http://{place}")
        self._settings = settings.MesosSettings(master=address, handover=door, **changes)
        self._stores: dict[str, MemoryStore] = {}
        self._drivers: list[driver.Driver] = []

    def backend(self, *, owner: str = "ours") -> api.Backend:
        store = self._stores.setdefault(owner, MemoryStore())
        driven = driver.Driver(
            self._settings, owner=owner, store=store, now=time.time, pause_s=(0.02, 0.2)
        )
        self._drivers.append(driven)
        return mesos.MesosBackend(self._settings, driver=driven, now=time.time)

    def spec(
        self, name: str, program: harness.Program = harness.FOR_EVER, **changes: object
    ) -> api.InstanceSpec:
        options = settings.MesosTemplate(
            default_cpus=0.1, default_memory_bytes=64 << 20, secrets=self._secrets
        )
        spec = api.InstanceSpec(
            name=name, metadata={names.OWNER: "ours"}, argv=program.argv(), options=options
        )
        return attrs.evolve(spec, **changes)

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        spec = self.spec(name)
        network = settings.Network(ports=(8080,), host_ports=tuple(map(str, fixed)))
        return attrs.evolve(spec, options=attrs.evolve(spec.options, network=network))

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        if flaw == "bad-image":
            return attrs.evolve(self.spec(name), image=_NO_IMAGE)
        return attrs.evolve(self.spec(name), argv=("/no/such/program",))

    async def exposed(self, name: str) -> str:
        """Every command line of this machine, and what every operator sees."""
        assert self._processes(name)
        shown = [await self._shown(framework) for framework in self._frameworks()]
        return repr([data for _path, data in agent.readable("cmdline")]) + json.dumps(shown)

    async def kill(self, name: str) -> None:
        """All but the executor, which stays to tell the tale; once the program is there."""

        async def program() -> list[int]:
            every = {pid: _command(pid) for pid in self._processes(name)}
            return [pid for pid, command in every.items() if not command.startswith("mesos-")]

        for pid in await checks.until("the program has begun", program, within_s=self.within_s):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _shown(self, framework: str) -> list[dict[str, Any]]:
        """Return the tasks of a framework as an operator sees them."""
        raise NotImplementedError

    def _processes(self, name: str) -> list[int]:
        """Find a task's processes on this machine by the variables that Mesos gives them."""
        found = [
            pid
            for framework in self._frameworks()
            for pid in agent.processes(framework=framework, name=name)
        ]
        if not found:
            pytest.skip("the agent's processes are not on this machine, or not ours to look at")
        return found

    def _frameworks(self) -> set[str]:
        return {value for store in self._stores.values() for value in store.kept.values()}


class FakeHarness(_Harness):
    """The fake master; its agents run real programs, images alone are only played."""

    within_s = 15.0
    burst = 100
    lacks = _BY_BROKER

    def __init__(self, served: wire.Wire, launcher: agent.Launcher, root: pathlib.Path) -> None:
        super().__init__(
            served.base,
            offer_timeout_s=3.0,
            request_timeout_s=8.0,
            user="nobody",
            work_root=str(root),
        )
        self._wire = served
        self._machine = served.machine
        self._machine.launcher = launcher
        self._machine.plan = _no_image
        self._launcher = launcher

    def _ours(self) -> list[master.Task]:
        ours = self._frameworks()
        return [task for task in self._machine.tasks.values() if task.framework in ours]

    async def plant(self, name: str) -> None:
        opened = self._machine.subscribe(
            {
                "subscribe": {
                    "framework_info": {"user": "x", "name": "stranger", "failover_timeout": 9e9}
                }
            },
            "s",
        )
        offer = next(e for e in opened.stream if e["type"] == "OFFERS")["offers"]["offers"][0]
        info = {
            "name": name,
            "task_id": {"value": name},
            "agent_id": offer["agent_id"],
            "command": {"value": "exec sleep 86400"},
            "resources": [],
        }
        self._machine.call(
            {
                "type": "ACCEPT",
                "framework_id": {"value": opened.id},
                "accept": {
                    "offer_ids": [offer["id"]],
                    "operations": [{"type": "LAUNCH", "launch": {"task_infos": [info]}}],
                },
            }
        )
        self._machine.call(
            {"type": "SUPPRESS", "framework_id": {"value": opened.id}, "suppress": {}}
        )
        for other in [e for e in opened.stream if e["type"] == "OFFERS"]:
            ids = [one["id"] for one in other["offers"]["offers"]]
            self._machine.call(
                {
                    "type": "DECLINE",
                    "framework_id": {"value": opened.id},
                    "decline": {"offer_ids": ids},
                }
            )
        self._planted = self._machine.tasks[opened.id, name]

    async def intact(self, name: str) -> bool:
        return (
            self._planted in self._machine.tasks.values()
            and self._planted.state in master.LIVE
            and not self._planted.killed
        )

    async def running(self) -> Sequence[str]:
        return [task.name for task in self._ours() if task.state == "TASK_RUNNING"]

    async def remains(self) -> Sequence[str]:
        tasks = [f"{task.name} {task.state}" for task in self._ours()]
        frameworks = self._frameworks()
        return tasks + [f"process {pid}" for pid in agent.processes(frameworks=frameworks)]

    async def _shown(self, framework: str) -> list[dict[str, Any]]:
        return self._machine.view_tasks(framework)

    @contextlib.asynccontextmanager
    async def provoke(self, verb: str, slug: str) -> AsyncIterator[None]:
        faults = {
            "unauthorized": (401, "401 Unauthorized.", {"WWW-Authenticate": "Basic"}),
            "unavailable": (503, "No leader elected", {}),
        }
        if slug == "no-capacity":
            for agent in self._machine.agents.values():
                agent.used["cpus"] += 4_000_000
        elif verb == "logs":
            self._wire.agent_fault = faults[slug]
        else:
            self._wire.fault = faults[slug]
            self._wire.cut()
            await checks.until("the end of the stream is noticed", self._nobody_online, within_s=5)
        try:
            yield
        finally:
            if slug == "no-capacity":
                for agent in self._machine.agents.values():
                    agent.used["cpus"] -= 4_000_000
            self._wire.fault = self._wire.agent_fault = None

    async def _nobody_online(self) -> bool:
        return all(driven._online() is None for driven in self._drivers)


class LiveHarness(_Harness):
    """A real master; what the operator API shows is the platform's own word.

    Plain processes as the user who runs the tests; ``MESOS_TASK_USER`` names another user. Secrets
    are fetched from this machine, at ``MESOS_HANDOVER`` (an address of it with a port, one for all:
    then ``-n 0``); ``MESOS_TASK_SECRETS=environment`` does without. Everything has names of its own, and no task's
    id is used twice.
    """

    within_s = 60.0
    burst = 10
    lacks = {
        **_BY_BROKER,
        "any-name": "the file systems of agents may not tell upper case from lower",
        "bad-image": "needs an agent with a containerizer for images",
        **dict.fromkeys(
            (name for name in harness.CAPABILITIES if name.rpartition(" ")[0]),
            "a real cluster is not broken for a test",
        ),
    }

    def __init__(self, address: str) -> None:
        super().__init__(
            address,
            name=f"contract-{uuid.uuid4().hex[:8]}",
            user=os.environ.get("MESOS_TASK_USER") or getpass.getuser(),
            failover_timeout_s=300.0,
        )
        self._secrets = os.environ.get("MESOS_TASK_SECRETS")
        self._address = address.rstrip("/")
        self._planted = ""

    async def _page(self, path: str, **query: str) -> Any:
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self._address}{path}", params=query) as response,
        ):
            return await response.json()

    async def _tasks(self, framework: str) -> list[dict[str, Any]]:
        page = await self._page("/master/tasks", framework_id=framework, limit="1000")
        return [task for task in page["tasks"] if task["framework_id"] == framework]

    async def running(self) -> Sequence[str]:
        return [
            task["name"]
            for framework in self._frameworks()
            for task in await self._tasks(framework)
            if task["state"] == "TASK_RUNNING"
        ]

    async def remains(self) -> Sequence[str]:
        return [
            f"{task['name']} {task['state']}"
            for framework in self._frameworks()
            for task in await self._tasks(framework)
            if task["state"] in master.LIVE
        ]

    async def plant(self, name: str) -> None:
        """A framework of another name, so that not even the key of the store is the same."""
        stranger = f"stranger-{uuid.uuid4().hex[:8]}"
        backend = self.backend(owner=stranger)
        await backend.launch(self.spec(name))
        (self._planted,) = self._stores.pop(stranger).kept.values()
        await backend.aclose()

    async def intact(self, name: str) -> bool:
        tasks = await self._tasks(self._planted)
        return [task["state"] in master.LIVE for task in tasks if task["name"] == name] == [True]

    async def _shown(self, framework: str) -> list[dict[str, Any]]:
        return await self._tasks(framework)

    def provoke(self, verb: str, slug: str) -> contextlib.AbstractAsyncContextManager[None]:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Remove every framework of this test, and with it whatever it still runs."""
        for framework in {*self._frameworks(), self._planted} - {""}:
            async with (
                aiohttp.ClientSession() as http,
                http.post(
                    f"{self._address}/master/teardown", data={"frameworkId": framework}
                ) as response,
            ):
                await response.read()


def _command(pid: int) -> str:
    """Return the name of a process's program; of one that is gone, the executor's: leave it."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return "mesos-gone"


def _no_image(info: Mapping[str, Any]) -> master.Plan:
    """Of tasks in containers: their image is nowhere (recording 28)."""
    image = info.get("container", {}).get("mesos", {}).get("image", {}).get("docker", {})
    pull = f"Failed to run 'docker pull {image.get('name')}': connection refused"
    return master.Plan(
        starting=None,
        running=None,
        end=0.03,
        state="TASK_FAILED",
        message=f"Failed to launch container: {pull}",
        reason="REASON_CONTAINER_LAUNCH_FAILED",
        source="SOURCE_AGENT",
    )


@contextlib.asynccontextmanager
async def open_harness(folder: pathlib.Path, address: str | None) -> AsyncIterator[_Harness]:
    if address is not None:
        live = LiveHarness(address)
        try:
            yield live
        finally:
            await live.aclose()
        return
    agents = [
        master.Agent(id=f"{master.MASTER_ID}-S{n}", hostname=f"agent-{n + 1}", cpus=16, mem=16384)
        for n in range(3)
    ]
    machine = master.Master(agents=agents, wall=time.time())
    machine.allocation_s = 0.05
    launcher = agent.Launcher(machine, folder / "agents")
    async with wire.Wire(machine).serving() as served:
        try:
            yield FakeHarness(served, launcher, folder / "work")
        finally:
            await launcher.aclose()
