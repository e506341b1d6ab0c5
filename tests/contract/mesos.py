"""The contract suite on Mesos: over the fake master, or a real one given by its address."""

import contextlib
import json
import pathlib
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
import attrs

from backends import api, names
from backends.mesos import backend as mesos
from backends.mesos import driver, settings
from tests.contract import checks, harness
from tests.mesos import master, wire

_NOT_REAL = "the fake master starts no programs"
_BY_BROKER = {
    "list-part unavailable": "a listing is what the stream told; its one page is covered elsewhere",
    "blank-secrets": "what a task printed lies in its sandbox; secrets of earlier lives are not known",
    "two-brokers": "two brokers of one framework are detected, and the first one stops",
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

    def __init__(self, address: str, **changes: Any) -> None:
        self._settings = settings.MesosSettings(master=address, **changes)
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
        options = settings.MesosTemplate(default_cpus=0.1, default_memory_bytes=64 << 20)
        spec = api.InstanceSpec(
            name=name, metadata={names.OWNER: "ours"}, argv=program.argv(), options=options
        )
        return attrs.evolve(spec, **changes)

    def _frameworks(self) -> set[str]:
        return {value for store in self._stores.values() for value in store.kept.values()}


class FakeHarness(_Harness):
    within_s = 5.0
    burst = 100
    lacks = {
        **_BY_BROKER,
        "shell": _NOT_REAL,
        "bad-command": _NOT_REAL,
    }

    def __init__(self, served: wire.Wire) -> None:
        super().__init__(served.base, offer_timeout_s=1.0, request_timeout_s=8.0, user="nobody")
        self._wire = served
        self._machine = served.machine
        self._machine.plan = self._plan
        served.output = self._output
        self._programs: dict[str, harness.Program] = {}

    def spec(
        self, name: str, program: harness.Program = harness.FOR_EVER, **changes: object
    ) -> api.InstanceSpec:
        self._programs[name] = program
        return super().spec(name, program, **changes)

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        return attrs.evolve(self.spec(name), image="localhost:1/no/such:1")

    def _plan(self, info: Mapping[str, Any]) -> master.Plan:
        name = info["name"]
        image = (
            info.get("container", {})
            .get("mesos", {})
            .get("image", {})
            .get("docker", {})
            .get("name")
        )
        if image == "localhost:1/no/such:1":
            message = f"Failed to launch container: Failed to run 'docker pull {image}': connection refused"
            return master.Plan(
                starting=None,
                running=None,
                end=0.03,
                state="TASK_FAILED",
                message=message,
                reason="REASON_CONTAINER_LAUNCH_FAILED",
                source="SOURCE_AGENT",
            )
        code = self._programs[name].exit_code if name in self._programs else None
        if code is None:
            return master.Plan(starting=0.01, running=0.02)
        state = "TASK_FAILED" if code else "TASK_FINISHED"
        return master.Plan(
            starting=0.01,
            running=0.02,
            end=0.04,
            state=state,
            message=f"Command exited with status {code}",
        )

    def _output(self, task: master.Task) -> str:
        program = self._programs.get(task.name, harness.FOR_EVER)
        return (
            "".join(f"{line}\n" for line in program.lines)
            if task.state not in ("TASK_STAGING", "TASK_STARTING")
            else ""
        )

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
            "command": {"value": "x"},
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
        return [f"{task.name} {task.state}" for task in self._ours()]

    async def exposed(self, name: str) -> str:
        (task,) = [task for task in self._ours() if task.name == name]
        info = {key: value for key, value in task.info.items() if key != "command"}
        command = {
            key: value for key, value in task.info["command"].items() if key != "environment"
        }
        return json.dumps([info, command, self._machine.view_tasks(task.framework)])

    async def kill(self, name: str) -> None:
        (task,) = [task for task in self._ours() if task.name == name]
        self._machine.change(task, "TASK_FAILED", "Command terminated with signal Killed")

    @contextlib.asynccontextmanager
    async def provoke(self, verb: str, slug: str) -> AsyncIterator[None]:
        faults = {
            "unauthorized": (401, "401 Unauthorized.", {"WWW-Authenticate": "Basic"}),
            "unavailable": (503, "No leader elected", {}),
        }
        if slug == "no-capacity":
            for agent in self._machine.agents.values():
                agent.used["cpus"] += 4_000_000
        elif verb == "launch" and slug == "unauthorized":
            self._machine.refused_users.add("nobody")
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
            self._machine.refused_users.clear()
            self._wire.fault = self._wire.agent_fault = None

    async def _nobody_online(self) -> bool:
        return all(driven._online() is None for driven in self._drivers)


class LiveHarness(_Harness):
    """A real master; what the operator API shows is the platform's own word."""

    within_s = 60.0
    burst = 10
    lacks = {
        **_BY_BROKER,
        "any-name": "the file systems of agents may not tell upper case from lower",
        "bad-image": "needs an agent with a containerizer for images",
        "exposure": "needs a look at the agent's host",
        "outside-kill": "needs a look at the agent's host",
        **dict.fromkeys(
            (name for name in harness.CAPABILITIES if name.rpartition(" ")[0]),
            "a real cluster is not broken for a test",
        ),
    }

    def __init__(self, address: str) -> None:
        super().__init__(
            address, name=f"contract-{uuid.uuid4().hex[:8]}", user="root", failover_timeout_s=60.0
        )
        self._address = address
        self._planted = ""

    async def _tasks(self, framework: str) -> list[dict[str, Any]]:
        async with (
            aiohttp.ClientSession() as http,
            http.get(
                f"{self._address}/master/tasks",
                params={"framework_id": framework, "limit": "1000"},
            ) as response,
        ):
            return [
                task
                for task in (await response.json())["tasks"]
                if task["framework_id"] == framework
            ]

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

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        return attrs.evolve(self.spec(name), argv=("/no/such/program",))

    async def plant(self, name: str) -> None:
        stranger = self.backend(owner=f"stranger-{uuid.uuid4().hex[:8]}")
        await stranger.launch(self.spec(name))
        (self._planted,) = [
            value for store in list(self._stores.values())[-1:] for value in store.kept.values()
        ]
        del self._stores[list(self._stores)[-1]]
        self._stranger = stranger

    async def intact(self, name: str) -> bool:
        states = [
            task["state"] for task in await self._tasks(self._planted) if task["name"] == name
        ]
        return states in (["TASK_RUNNING"], ["TASK_STARTING"], ["TASK_STAGING"])

    async def exposed(self, name: str) -> str:
        raise NotImplementedError

    async def kill(self, name: str) -> None:
        raise NotImplementedError

    def provoke(self, verb: str, slug: str) -> contextlib.AbstractAsyncContextManager[None]:
        raise NotImplementedError

    async def aclose(self) -> None:
        stranger = getattr(self, "_stranger", None)
        if stranger is not None:
            for instance in await stranger.list():
                await stranger.terminate(instance.name, grace_s=0)
            await stranger.aclose()


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
    async with wire.Wire(machine).serving() as served:
        yield FakeHarness(served)
