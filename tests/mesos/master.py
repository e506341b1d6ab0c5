"""A Mesos master with its agents as a plain machine: calls and the time in, events out.

Behaves as the recordings do (``test_master.py`` holds it against them); no sockets, no waiting, so
the properties, the wire fake and the simulation of 2000 frameworks all drive the same machine.
"""

import base64
import collections
import random
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs

from tests.mesos import values

MASTER_ID = "fa7a75d4-36a2-434f-99c1-fb69c24140c7"
LIVE = ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING")
CALLS = (
    "ACCEPT", "DECLINE", "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "REVIVE", "SUPPRESS",
    "ACKNOWLEDGE", "RECONCILE", "KILL", "SHUTDOWN", "MESSAGE", "REQUEST", "TEARDOWN",
)  # fmt: skip
SCALARS = ("cpus", "mem", "disk", "gpus")
EXECUTOR_S = 1.0  # for so long an executor outlives its task's acknowledged end


@attrs.define(kw_only=True)
class Agent:
    id: str
    hostname: str = "agent-1"
    cpus: float = 4.0
    mem: float = 4096.0
    disk: float = 10240.0
    ports: tuple[int, int] = (31000, 31099)
    attributes: Mapping[str, str] = {  # as an operator writes them; of each type
        "os": "linux", "rack": "r1", "jenkins": "true",
        "build": "20161107.1", "generation": "7", "disks": "[1-3,7-9]", "tools": "{make,git}",
    }  # fmt: skip
    items: Mapping[str, str] = {"licences": "{red,blue}"}  # other resources, that no task takes
    role: str = "*"  # all is reserved for it
    address: tuple[str, int] = ("127.0.0.1", 5051)
    state: str = "up"  # up, away, recovered (known from the registry only), draining, gone...
    unreachable_at: int = 0
    maintenance_at: float | None = None  # POSIX seconds; for an hour, as in recording 19
    used: collections.Counter = attrs.field(factory=collections.Counter)
    used_ports: set = attrs.field(factory=set)
    are_items_offered: bool = False
    executors: dict = attrs.field(
        factory=dict
    )  # (framework, task's name): gone when; of ended tasks

    def total(self) -> dict[str, int]:
        return {
            "cpus": round(self.cpus * 1000),
            "mem": round(self.mem * 1000),
            "disk": round(self.disk * 1000),
        }

    def free(self) -> dict[str, int]:
        return {name: amount - self.used[name] for name, amount in self.total().items()}

    def free_ports(self) -> set[int]:
        return {*range(self.ports[0], self.ports[1] + 1)} - self.used_ports

    def resources(self) -> dict[str, str]:
        """All that it has, in the order of an agent's page, as an operator writes it."""
        scalars = {"cpus": self.cpus, "mem": self.mem, "disk": self.disk}
        ports = {"ports": f"[{self.ports[0]}-{self.ports[1]}]"}
        return {name: repr(float(one)) for name, one in scalars.items()} | ports | {**self.items}


@attrs.define(kw_only=True)
class Plan:
    """What a task does. Times in seconds after ACCEPT; None: never by itself."""

    starting: float | None = 0.1
    running: float | None = 0.11
    end: float | None = None
    state: str = "TASK_FINISHED"
    message: str = "Command exited with status 0"
    reason: str | None = None
    source: str = "SOURCE_EXECUTOR"
    deaf: bool = False  # ignores SIGTERM


@attrs.define(kw_only=True)
class Task:
    info: Mapping[str, Any]
    framework: str
    agent: Agent
    plan: Plan
    state: str = "TASK_STAGING"
    grace_s: float = 3.0
    taken: dict = attrs.field(factory=dict)
    ports: set = attrs.field(factory=set)
    pending: list = attrs.field(factory=list)  # statuses not acknowledged, oldest first
    resend_s: float = 10.0
    resend_at: float = 0.0
    statuses: list = attrs.field(factory=list)
    released: bool = False
    killed: bool = False
    launcher: Any = None  # what really runs it; None: its plan is played
    role: str = "*"

    @property
    def name(self) -> str:
        return self.info["task_id"]["value"]


@attrs.define(kw_only=True)
class Framework:
    id: str
    info: Mapping[str, Any]
    suppressed: bool = False
    filters: dict = attrs.field(factory=dict)  # agent id: [(until, scalars, ports)]
    stream: list | None = None  # events to be written; None: not connected
    stream_id: str = ""
    registered_at: float = 0.0
    unregistered_at: float = 0.0
    gone_at: float | None = None
    allocated: collections.Counter = attrs.field(factory=collections.Counter)

    @property
    def role(self) -> str:
        return self.info.get("roles", ["*"])[0]

    def has(self, capability: str) -> bool:
        return {"type": capability} in self.info.get("capabilities", [])


class Master:
    def __init__(
        self,
        *,
        agents: int | list[Agent] = 1,
        seed: int = 0,
        plan: Callable[[Mapping[str, Any]], Plan] = lambda info: Plan(),
        heartbeat_s: float = 15.0,
        wall: float = 1795476140.0,
    ) -> None:
        self.id = MASTER_ID
        self.now = 0.0
        self.wall = wall
        self.heartbeat_s = heartbeat_s
        self.plan = plan
        self.random = random.Random(seed)
        given = (
            agents
            if isinstance(agents, list)
            else [Agent(id=f"{self.id}-S{n}", hostname=f"agent-{n + 1}") for n in range(agents)]
        )
        self.agents = {agent.id: agent for agent in given}
        self.frameworks: dict[str, Framework] = {}
        self.removed: dict[str, Framework] = {}
        self.tasks: dict[tuple[str, str], Task] = {}
        self.completed: list[Task] = []
        self.offers: dict[str, tuple[str, Agent, dict, tuple]] = {}
        self.quota_limit: dict[str, dict[str, float]] = {}
        self.refused_roles: set[str] = set()
        self.refused_users: set[str] = set()
        self.calls = collections.Counter()
        self.problems: list[str] = []  # what a well-behaved scheduler never does
        self.aborted: list[str] = []  # the tasks whose launch ended their agent's process
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._offer_count = self._framework_count = 0
        self._allocate_at = 0.0
        self.allocation_s = 1.0
        self.offer_timeout_s: float | None = None
        self.launcher: Any = None  # of agent.py, to run programs for real
        self._total: collections.Counter | None = None

    # --- time ---

    def at(self, when: float, do: Callable[[], None]) -> None:
        self._count += 1
        self._due.append((when, self._count, do))

    def advance(self, now: float) -> None:
        while self._due:
            first = min(self._due, key=lambda due: due[:2])
            if first[0] > now:
                break
            self._due.remove(first)
            self.now = max(self.now, first[0])
            first[2]()
        self.now = now
        for task in [*self.tasks.values()]:
            if task.pending and task.resend_at <= now:
                self._deliver(task)
        for framework in [*self.frameworks.values()]:
            if framework.gone_at is not None and framework.gone_at <= now:
                self.remove(framework.id)
        if self._allocate_at <= now:
            missed = (now - self._allocate_at) // self.allocation_s
            self._allocate_at += (missed + 1) * self.allocation_s
            self.allocate()

    # --- the API; answers (status, text) ---

    def subscribe(self, call: Mapping[str, Any], stream_id: str) -> Framework | tuple[int, str]:
        if "subscribe" not in call:
            return 400, "Failed to validate scheduler::Call: Expecting 'subscribe' to be present"
        info = call["subscribe"]["framework_info"]
        if "user" not in info:
            return (
                400,
                "Failed to convert JSON into Call protobuf: Missing required fields: subscribe.framework_info.user",
            )
        outer, inner = call.get("framework_id", {}).get("value"), info.get("id", {}).get("value")
        if outer != inner:
            return (
                400,
                "Failed to validate scheduler::Call: 'framework_id' differs from 'subscribe.framework_info.id'",
            )
        self.calls["SUBSCRIBE"] += 1
        framework = Framework(id=inner or "", info=info)
        refused = [role for role in info.get("roles", ["*"]) if role in self.refused_roles]
        if refused or inner in self.removed:
            text = (
                f"Not authorized to register framework {inner or ''} with roles {{ {refused[0]} }}"
                if refused
                else "Framework has been removed"
            )
            framework.stream = [{"type": "ERROR", "error": {"message": text}}, None]
            return framework
        if inner is None:
            framework.id = f"{self.id}-{self._framework_count:04d}"
            self._framework_count += 1
        known = self.frameworks.get(framework.id)
        framework.registered_at = self.now
        if known is not None:
            if known.stream is not None:
                known.stream += [
                    {"type": "ERROR", "error": {"message": "Framework failed over"}},
                    None,
                ]
            self._void_offers(known.id)
            framework.allocated = known.allocated
        self.frameworks[framework.id] = framework
        framework.stream_id = stream_id
        framework.suppressed = framework.role in call["subscribe"].get("suppressed_roles", [])
        framework.stream = [
            {
                "type": "SUBSCRIBED",
                "subscribed": {
                    "framework_id": {"value": framework.id},
                    "heartbeat_interval_seconds": float(self.heartbeat_s),
                    "master_info": {
                        "id": self.id,
                        "ip": 16777343,
                        "port": 5050,
                        "pid": "master@127.0.0.1:5050",
                        "hostname": "localhost",
                        "version": "1.11.0",
                        "address": {"hostname": "localhost", "ip": "127.0.0.1", "port": 5050},
                        "capabilities": [{"type": "AGENT_UPDATE"}, {"type": "AGENT_DRAINING"}, {}],
                    },
                },
            },
            {"type": "HEARTBEAT"},
        ]
        self.allocate(framework)
        for task in self.tasks.values():
            if task.framework == framework.id and task.pending:
                self._deliver(task)
        return framework

    def disconnect(self, framework: Framework) -> None:
        if self.frameworks.get(framework.id) is framework and framework.stream is not None:
            framework.stream = None
            self._void_offers(framework.id)
            framework.gone_at = self.now + framework.info.get("failover_timeout", 0.0)

    def call(self, call: Mapping[str, Any], stream_id: str | None = None) -> tuple[int, str]:
        kind = call.get("type")
        handler = getattr(self, f"_{str(kind).lower()}", None) if kind in CALLS else None
        missing = "framework_id" if handler is not None and "framework_id" not in call else None
        if missing is not None or handler is None:
            words = f"Expecting '{missing or 'type'}' to be present"
            return 400, f"Failed to validate scheduler::Call: {words}"
        framework = self.frameworks.get(call["framework_id"]["value"])
        if framework is None:
            return 400, "Framework cannot be found"
        if framework.stream is None:
            return 403, "Framework is not subscribed"
        if stream_id is not None and stream_id != framework.stream_id:
            return (
                400,
                f"The stream ID '{stream_id}' included in this request didn't match the stream ID currently associated with framework ID {framework.id}",
            )
        self.calls[kind] += 1
        members = call.get(kind.lower())
        if members is None and kind in ("ACCEPT", "DECLINE", "ACKNOWLEDGE", "RECONCILE", "KILL"):
            return (
                400,
                f"Failed to validate scheduler::Call: Expecting '{kind.lower()}' to be present",
            )
        if kind == "KILL" and "task_id" not in members:
            return (
                400,
                "Failed to convert JSON into Call protobuf: Missing required fields: kill.task_id",
            )
        return handler(framework, members) or (202, "")

    # --- offers ---

    def allocate(self, only: Framework | None = None) -> None:
        """Offer all that is free, an agent at a time, to those with the smallest share first."""
        agents = [agent for agent in self.agents.values() if agent.state == "up"]
        self.random.shuffle(agents)
        given = [only] if only is not None else [*self.frameworks.values()]
        ready = [
            one
            for one in given
            if one.stream is not None and not one.suppressed and not self._over_quota(one)
        ]
        ready.sort(key=lambda one: (self._share(one), self.random.random()))
        for agent in agents:
            free, ports = agent.free(), agent.free_ports()
            if free["cpus"] < 10 and free["mem"] < 32_000:
                continue
            for framework in ready:
                if agent.role not in ("*", framework.role):
                    continue
                if self._filtered(framework, agent.id, free, ports):
                    continue
                self._offer(framework, agent)
                ready.remove(framework)  # what is offered counts as its share
                ready.append(framework)
                break
        self._flush()

    def _flush(self) -> None:
        waiting: dict[str, list] = {}
        for framework_id, _agent, _scalars, raw in self.offers.values():
            if raw[1]:
                continue
            raw[1].append(True)
            waiting.setdefault(framework_id, []).append(raw[0])
        for framework_id, raws in waiting.items():
            self.frameworks[framework_id].stream.append(
                {"type": "OFFERS", "offers": {"offers": raws}}
            )

    def _offer(self, framework: Framework, agent: Agent) -> None:
        room = self._headroom(framework)
        scalars = {
            name: min(amount, room.get(name, amount)) for name, amount in agent.free().items()
        }
        ports = sorted(agent.free_ports())
        agent.used.update(scalars)
        agent.used_ports.update(ports)
        offer_id = f"{self.id}-O{self._offer_count}"
        self._offer_count += 1
        extra = (
            {"allocation_info": {"role": framework.role}} if framework.has("MULTI_ROLE") else {}
        )
        had = {"ports": values.ports(ports)} if ports else {}
        had |= {name: repr(amount / 1000) for name, amount in scalars.items() if amount > 0}
        items = {} if agent.are_items_offered else {**agent.items}
        agent.are_items_offered = True
        resources = [
            {**values.typed(name, written), "role": agent.role, **extra}
            for name, written in (had | items).items()
        ]
        raw = {
            "id": {"value": offer_id},
            "framework_id": {"value": framework.id},
            "agent_id": {"value": agent.id},
            "hostname": agent.hostname,
            "url": {
                "scheme": "http",
                "address": {
                    "hostname": agent.hostname if agent.address[1] == 5051 else agent.address[0],
                    "ip": agent.address[0],
                    "port": agent.address[1],
                },
                "path": "/slave(1)",
            },
            "resources": resources,
            "attributes": [
                values.typed(name, written) for name, written in agent.attributes.items()
            ],
            **extra,
        }
        if agent.maintenance_at is not None:
            raw["unavailability"] = {
                "start": {"nanoseconds": round(agent.maintenance_at * 1e9)},
                "duration": {"nanoseconds": 3600 * 10**9},
            }
        taken = {**scalars, "ports": ports, "items": items}
        self.offers[offer_id] = (framework.id, agent, taken, (raw, []))
        if self.offer_timeout_s is not None:
            self.at(
                self.now + self.offer_timeout_s,
                lambda: self.rescind(offer_id) if offer_id in self.offers else None,
            )

    def _filtered(
        self, framework: Framework, agent: str, free: Mapping[str, int], ports: set[int]
    ) -> bool:
        """True when it has refused as much or more of this agent, and the time is not over."""
        standing = framework.filters.get(agent)
        if not standing:
            return False
        if standing[0][0] <= self.now:
            framework.filters[agent] = standing = [one for one in standing if one[0] > self.now]
        return any(
            all(free[name] <= scalars.get(name, 0) for name in free) and ports <= refused
            for until, scalars, refused in standing
            if until > self.now
        )

    def _share(self, framework: Framework) -> float:
        if self._total is None:
            self._total = collections.Counter()
            for agent in self.agents.values():
                self._total.update(agent.total())
        total = self._total
        return max(
            (framework.allocated[name] / total[name] for name in ("cpus", "mem") if total[name]),
            default=0,
        )

    def _over_quota(self, framework: Framework) -> bool:
        return any(left <= 0 for left in self._headroom(framework).values())

    def _headroom(self, framework: Framework) -> dict[str, int]:
        """What the quota of its role, and of the roles above, leaves to be offered."""
        left: dict[str, int] = {}
        for role, limit in self.quota_limit.items():
            if framework.role == role or framework.role.startswith(f"{role}/"):
                for name, amount in limit.items():
                    free = round(amount * 1000) - framework.allocated[name]
                    left[name] = min(free, left.get(name, free))
        return left

    def _void_offers(self, framework_id: str) -> None:
        for offer_id in [key for key, offer in self.offers.items() if offer[0] == framework_id]:
            self._give_back(offer_id)

    def _give_back(self, offer_id: str) -> tuple[Agent, dict]:
        _framework, agent, scalars, _raw = self.offers.pop(offer_id)
        agent.used.subtract({name: scalars[name] for name in SCALARS if name in scalars})
        agent.used_ports.difference_update(scalars["ports"])
        agent.are_items_offered &= not scalars["items"]
        return agent, scalars

    def rescind(self, offer_id: str) -> None:
        framework_id = self.offers[offer_id][0]
        self._give_back(offer_id)
        self.frameworks[framework_id].stream.append(
            {"type": "RESCIND", "rescind": {"offer_id": {"value": offer_id}}}
        )

    def _refuse(
        self,
        framework: Framework,
        agent: Agent,
        scalars: Mapping[str, int],
        ports: set[int],
        filters: Mapping[str, Any] | None,
    ) -> None:
        """Remember for how long it wants nothing like this; several refusals stand side by side."""
        seconds = (filters or {}).get("refuse_seconds", 5.0)
        if seconds < 0:
            seconds = 5.0
        some = any(scalars.get(name, 0) > 0 for name in SCALARS)
        if seconds > 0 and some and agent.state in ("up", "draining"):
            refused = {name: scalars.get(name, 0) for name in SCALARS}
            until = self.now + max(seconds, self.allocation_s)
            framework.filters.setdefault(agent.id, []).append((until, refused, {*ports}))

    def _decline(self, framework: Framework, members: Mapping[str, Any]) -> None:
        for one in members["offer_ids"]:
            offer = self.offers.get(one["value"])
            if offer is None or offer[0] != framework.id:
                continue
            agent, scalars = self._give_back(one["value"])
            self._refuse(framework, agent, scalars, set(scalars["ports"]), members.get("filters"))

    def _decline_inverse_offers(self, framework: Framework, members: Mapping[str, Any]) -> None:
        pass

    def _accept_inverse_offers(self, framework: Framework, members: Mapping[str, Any]) -> None:
        pass

    def _suppress(self, framework: Framework, members: Any) -> None:
        framework.suppressed = True

    def _revive(self, framework: Framework, members: Any) -> None:
        framework.suppressed = False
        framework.filters.clear()
        self.allocate(framework)

    def _accept(self, framework: Framework, members: Mapping[str, Any]) -> None:
        infos = [
            info
            for operation in members.get("operations", ())
            for info in operation["launch"]["task_infos"]
        ]
        ids = [one["value"] for one in members.get("offer_ids", ())]
        problem = None
        for number, offer_id in enumerate(ids):
            if offer_id in ids[:number]:
                problem = f"Duplicate offer {offer_id} in offer list"
            elif offer_id not in self.offers or self.offers[offer_id][0] != framework.id:
                problem = f"Offer {offer_id} is no longer valid"
        if problem is not None:
            self.problems.append(problem)
            for offer_id in set(ids) & set(self.offers):
                self._give_back(offer_id)
            for info in infos:
                self._tell(
                    framework,
                    info["task_id"]["value"],
                    "TASK_DROPPED",
                    f"Task launched with invalid offers: {problem}",
                    "REASON_INVALID_OFFERS",
                    agent=info["agent_id"]["value"],
                )
            return
        left: collections.Counter = collections.Counter()
        ports: set = set()
        agent = None
        for offer_id in ids:
            agent, scalars = self._give_back(offer_id)
            left.update({name: scalars[name] for name in SCALARS if name in scalars})
            ports.update(scalars["ports"])
        available = dict(left)
        for info in infos:
            error = self._invalid(framework, info, agent, left, ports, available)
            if error is not None:
                self._tell(
                    framework,
                    info["task_id"]["value"],
                    "TASK_ERROR",
                    error[1],
                    error[0],
                    agent=info["agent_id"]["value"],
                )
                continue
            self._start(framework, info, agent, left, ports)
        if agent is not None:
            self._refuse(framework, agent, left, ports, members.get("filters"))

    def _invalid(
        self,
        framework: Framework,
        info: Mapping[str, Any],
        agent: Agent,
        left: collections.Counter,
        ports: set,
        available: Mapping[str, int],
    ) -> tuple[str, str] | None:
        name = info["task_id"]["value"]
        if "/" in name:
            return "REASON_TASK_INVALID", f"'{name}' contains invalid characters"
        if (framework.id, name) in self.tasks:
            return "REASON_TASK_INVALID", f"Task has duplicate ID: {name}"
        if info["agent_id"]["value"] != agent.id:
            return (
                "REASON_TASK_INVALID",
                f"Task uses invalid agent {info['agent_id']['value']} while agent {agent.id} is expected",
            )
        if "command" not in info and "executor" not in info:
            return (
                "REASON_TASK_INVALID",
                "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present",
            )
        wanted, wanted_ports = _wanted(info)
        roles = {resource.get("role", "*") for resource in info.get("resources", ())}
        short = any(left[key] < amount for key, amount in wanted.items())
        if short or not wanted_ports <= ports or roles - {agent.role}:
            self.problems.append(f"{name} exceeds its offer")
            shown = "; ".join(
                f"{key}(allocated: {framework.role}):{amount / 1000:g}"
                for key, amount in wanted.items()
            )
            have = "; ".join(
                [f"ports(allocated: {framework.role}):[{agent.ports[0]}-{agent.ports[1]}]"]
                + [
                    f"{key}(allocated: {framework.role}):{amount / 1000:g}"
                    for key, amount in available.items()
                ]
            )
            return (
                "REASON_TASK_INVALID",
                f"Total resources {shown} required by task and its executor is more than available {have}",
            )
        user = info["command"].get("user", framework.info["user"])
        if user in self.refused_users:
            return (
                "REASON_TASK_UNAUTHORIZED",
                f"Principal '{framework.info.get('principal')}' no authorized to launch task {name} of framework {framework.id} under user '{user}'",
            )
        return None

    # --- tasks ---

    def _start(
        self,
        framework: Framework,
        info: Mapping[str, Any],
        agent: Agent,
        left: collections.Counter,
        ports: set,
    ) -> None:
        wanted, wanted_ports = _wanted(info)
        left.subtract(wanted)
        ports -= wanted_ports
        agent.used.update(wanted)
        agent.used_ports |= wanted_ports
        framework.allocated.update(wanted)
        task = Task(
            info=info,
            framework=framework.id,
            agent=agent,
            plan=self.plan(info),
            taken=wanted,
            ports=wanted_ports,
            role=framework.role,
        )
        policy = info.get("kill_policy", {}).get("grace_period", {}).get("nanoseconds")
        task.grace_s = 3.0 if policy is None else policy / 1e9
        self.tasks[framework.id, task.name] = task
        if agent.executors.get((framework.id, task.name), 0.0) > self.now:
            self.aborted.append(task.name)  # "Check failed: executor == nullptr"
            self.at(self.now, lambda: self.lose(agent.id) if agent.state == "up" else None)
            return
        if self.launcher is not None and self.launcher.takes(info):
            task.launcher = self.launcher
            task.launcher.start(task)
            return
        plan = task.plan
        if plan.starting is not None:
            self.at(self.now + plan.starting, lambda: self.change(task, "TASK_STARTING"))
        if plan.running is not None:
            self.at(self.now + plan.running, lambda: self.change(task, "TASK_RUNNING"))
        if plan.end is not None:
            self.at(
                self.now + plan.end,
                lambda: self.change(task, plan.state, plan.message, plan.reason, plan.source),
            )

    def change(
        self,
        task: Task,
        state: str,
        message: str | None = None,
        reason: str | None = None,
        source: str = "SOURCE_EXECUTOR",
    ) -> None:
        if task.state not in LIVE or (task.killed and state in ("TASK_STARTING", "TASK_RUNNING")):
            return
        self._count += 1
        task.state = state
        status = {"task_id": {"value": task.name}, "state": state}
        if message is not None:
            status["message"] = message
        status["source"] = source
        if reason is not None:
            status["reason"] = reason
        status |= {
            "agent_id": {"value": task.agent.id},
            "executor_id": {"value": task.name},
            "timestamp": self.wall + self.now,
            "uuid": base64.b64encode(b"%016d" % self._count).decode(),
            "container_status": {
                "container_id": {"value": f"c-{task.name}"},
                "network_infos": [
                    {"ip_addresses": [{"protocol": "IPv4", "ip_address": task.agent.address[0]}]}
                ],
                "executor_pid": 10_000 + self._count,
            },
        }
        task.statuses.append(status)
        task.pending.append(status)
        if len(task.pending) == 1:
            task.resend_s, task.resend_at = 10.0, self.now
            self._deliver(task)

    def _deliver(self, task: Task) -> None:
        """The agent sends the oldest update; with it the master learns the latest state."""
        if task.agent.state in ("away", "recovered"):
            return
        if task.state not in LIVE:
            self._release(task)
        task.resend_at = self.now + task.resend_s
        task.resend_s = min(2 * task.resend_s, 600.0)
        framework = self.frameworks.get(task.framework)
        if framework is not None and framework.stream is not None:
            framework.stream.append({"type": "UPDATE", "update": {"status": task.pending[0]}})

    def _release(self, task: Task) -> None:
        if not task.released:
            task.released = True
            task.agent.used.subtract(task.taken)
            task.agent.used_ports -= task.ports
            self.frameworks[task.framework].allocated.subtract(task.taken)

    def _acknowledge(
        self, framework: Framework, members: Mapping[str, Any]
    ) -> tuple[int, str] | None:
        if "uuid" not in members:
            return (
                400,
                "Failed to convert JSON into Call protobuf: Missing required fields: acknowledge.uuid",
            )
        if not re.fullmatch(r"[A-Za-z0-9+/]*=*", members["uuid"]):
            return (
                400,
                "Failed to convert JSON into Call protobuf: Failed to base64 decode bytes field 'uuid'",
            )
        if not re.fullmatch(r".{22}==", members["uuid"]):
            return 400, "Failed to validate scheduler::Call: Not a valid UUID"
        task = self.tasks.get((framework.id, members["task_id"]["value"]))
        known = task is not None and task.agent.id == members["agent_id"]["value"]
        if not known or not task.pending or task.pending[0]["uuid"] != members["uuid"]:
            self.calls["ACKNOWLEDGE in vain"] += 1
            return None
        task.pending.pop(0)
        if task.pending:
            task.resend_s = 10.0
            self._deliver(task)
        elif task.state not in LIVE:
            self._complete(task)
        return None

    def _complete(self, task: Task) -> None:
        self.completed.append(self.tasks.pop((task.framework, task.name)))
        task.agent.executors[task.framework, task.name] = self.now + EXECUTOR_S

    def _reconcile(self, framework: Framework, members: Mapping[str, Any]) -> None:
        asked = members["tasks"]
        if not asked:
            for task in [*self.tasks.values()]:
                if task.framework == framework.id and task.agent.state in ("up", "draining"):
                    self._latest(framework, task)
            return
        for one in asked:
            self._reconcile_one(
                framework, one["task_id"]["value"], one.get("agent_id", {}).get("value")
            )

    def _reconcile_one(self, framework: Framework, name: str, agent_id: str | None) -> None:
        task = self.tasks.get((framework.id, name))
        if task is not None and task.agent.state == "up":
            self._latest(framework, task)
            return
        agent = task.agent if task is not None else self.agents.get(agent_id)
        recovering = any(one.state == "recovered" for one in self.agents.values())
        if (agent is not None and agent.state == "recovered") or (agent_id is None and recovering):
            return
        if agent is not None and agent.state == "gone by operator":
            self._tell(
                framework,
                name,
                "TASK_GONE_BY_OPERATOR",
                "Reconciliation: Task is gone",
                "REASON_RECONCILIATION",
                agent=agent.id,
            )
        elif agent is not None and agent.state == "away":
            self._tell(
                framework,
                name,
                "TASK_UNREACHABLE",
                "Reconciliation: Task is unreachable",
                "REASON_RECONCILIATION",
                agent=agent.id,
            )
        elif agent is not None:
            self._tell(
                framework,
                name,
                "TASK_GONE",
                "Reconciliation: Task is unknown to the agent",
                "REASON_RECONCILIATION",
                agent=agent_id,
            )
        else:
            self._tell(
                framework,
                name,
                "TASK_UNKNOWN",
                "Reconciliation: Task is unknown",
                "REASON_RECONCILIATION",
                agent=agent_id,
            )

    def _latest(self, framework: Framework, task: Task) -> None:
        state = task.pending[0]["state"] if task.pending else task.state
        self._tell(
            framework,
            task.name,
            state,
            "Reconciliation: Latest task state",
            "REASON_RECONCILIATION",
            agent=task.agent.id,
        )

    def _kill(self, framework: Framework, members: Mapping[str, Any]) -> None:
        name = members["task_id"]["value"]
        task = self.tasks.get((framework.id, name))
        if task is None or task.agent.state != "up" or task.state not in LIVE:
            self._reconcile_one(framework, name, members.get("agent_id", {}).get("value"))
            return
        policy = members.get("kill_policy", {}).get("grace_period", {}).get("nanoseconds")
        grace_s = task.grace_s if policy is None else policy / 1e9
        if task.state == "TASK_STAGING":
            task.killed = True
            self.at(
                self.now + 0.006,
                lambda: self.change(
                    task,
                    "TASK_KILLED",
                    "Killed before delivery to the executor",
                    "REASON_TASK_KILLED_DURING_LAUNCH",
                    "SOURCE_AGENT",
                ),
            )
            return
        again, task.killed = task.killed, True
        if framework.has("TASK_KILLING_STATE") and not again:
            self.change(task, "TASK_KILLING")
        if task.launcher is not None:
            task.launcher.kill(task, grace_s)
        elif task.plan.deaf:
            self.at(
                self.now + grace_s,
                lambda: self.change(task, "TASK_KILLED", "Command terminated with signal Killed"),
            )
        else:
            self.at(
                self.now + 0.05,
                lambda: self.change(
                    task, "TASK_KILLED", "Command terminated with signal Terminated"
                ),
            )

    def _tell(
        self,
        framework: Framework,
        name: str,
        state: str,
        message: str,
        reason: str,
        *,
        agent: str | None,
    ) -> None:
        if not framework.has("PARTITION_AWARE") and state in (
            "TASK_UNREACHABLE",
            "TASK_DROPPED",
            "TASK_GONE",
            "TASK_UNKNOWN",
            "TASK_GONE_BY_OPERATOR",
        ):
            state = "TASK_LOST"
        status = {
            "task_id": {"value": name},
            "state": state,
            "message": message,
            "source": "SOURCE_MASTER",
            "reason": reason,
        }
        if agent is not None:
            status["agent_id"] = {"value": agent}
        status["timestamp"] = self.wall + self.now
        if agent in self.agents and self.agents[agent].state == "away":
            status["unreachable_time"] = {"nanoseconds": self.agents[agent].unreachable_at}
        if framework.stream is not None:
            framework.stream.append({"type": "UPDATE", "update": {"status": status}})

    # --- what happens to a cluster ---

    def lose(self, agent_id: str) -> None:
        """The agent does not answer for longer than the ping time-out; its tasks run on."""
        agent = self._without(agent_id, "away")
        agent.unreachable_at = round((self.wall + self.now) * 1e9)
        self._tell_all(agent, "TASK_UNREACHABLE", "health check timed out", "REASON_AGENT_REMOVED")
        self._fail(agent_id)

    def shut_down(self, agent_id: str) -> None:
        """The agent says good-bye and takes its tasks along: LOST to everybody (recording 24)."""
        agent = self._without(agent_id, "gone")
        words = f"Agent {agent.hostname} removed: the agent unregistered"
        self._tell_all(agent, "TASK_LOST", words, "REASON_AGENT_REMOVED")
        self._fail(agent_id)

    def mark_gone(self, agent_id: str) -> None:
        """The operator says that it will not return; the reason depends on the framework."""
        agent = self._without(agent_id, "gone by operator")
        self._tell_all(
            agent,
            "TASK_GONE_BY_OPERATOR",
            "Agent has been marked gone",
            "REASON_AGENT_REMOVED_BY_OPERATOR",
        )
        self._fail(agent_id)

    def _without(self, agent_id: str, state: str) -> Agent:
        agent = self.agents[agent_id]
        agent.state = state
        for offer_id in [key for key, offer in self.offers.items() if offer[1] is agent]:
            self.rescind(offer_id)
        for framework in self.frameworks.values():
            framework.filters.pop(agent_id, None)
        return agent

    def _tell_all(self, agent: Agent, state: str, message: str, reason: str) -> None:
        for task in self._on(agent):
            framework = self.frameworks[task.framework]
            if not framework.has("PARTITION_AWARE") and reason.endswith("_BY_OPERATOR"):
                told = "REASON_AGENT_REMOVED"
            else:
                told = reason
            self._tell(framework, task.name, state, message, told, agent=agent.id)

    def _fail(self, agent_id: str) -> None:
        for framework in self.frameworks.values():
            if framework.stream is not None:
                failure = {"agent_id": {"value": agent_id}}
                framework.stream.append({"type": "FAILURE", "failure": failure})

    def come_back(self, agent_id: str) -> None:
        agent = self.agents[agent_id]
        agent.state = "up"
        for task in self._on(agent):
            self._tell(
                self.frameworks[task.framework],
                task.name,
                task.state,
                "Unreachable agent re-reregistered",
                "REASON_AGENT_REREGISTERED",
                agent=agent.id,
            )

    def _on(self, agent: Agent) -> list[Task]:
        return [task for task in self.tasks.values() if task.agent is agent and task.state in LIVE]

    def fail_over(self) -> None:
        """Another master leads: streams are cut, agents have yet to re-register."""
        for framework in self.frameworks.values():
            self._void_offers(framework.id)
            framework.stream = None
        for agent in self.agents.values():
            agent.state = "recovered" if agent.state == "up" else agent.state

    def reregister(self) -> None:
        for agent in self.agents.values():
            agent.state = "up" if agent.state == "recovered" else agent.state

    def remove(self, framework_id: str) -> None:
        """TEARDOWN, the operator, or the failover time-out."""
        framework = self.frameworks[framework_id]
        self._void_offers(framework_id)
        for key in [key for key in self.tasks if key[0] == framework_id]:
            task = self.tasks[key]
            self._release(task)
            task.state = "TASK_KILLED" if task.state in LIVE else task.state
            self._complete(task)
        del self.frameworks[framework_id]
        framework.unregistered_at = self.now
        self.removed[framework_id] = framework
        if framework.stream is not None:
            framework.stream.append(None)

    def _teardown(self, framework: Framework, members: Any) -> None:
        self.remove(framework.id)

    def _shutdown(self, framework: Framework, members: Mapping[str, Any]) -> None:
        """A command task's executor has the task's name; no TASK_KILLING this way."""
        task = self.tasks.get((framework.id, members["executor_id"]["value"]))
        if task is not None:
            task.killed = True
            words = "Command terminated with signal Terminated"
            self.at(self.now + 0.08, lambda: self.change(task, "TASK_KILLED", words))

    def _message(self, framework: Framework, members: Mapping[str, Any]) -> None:
        pass

    def _request(self, framework: Framework, members: Mapping[str, Any]) -> None:
        pass

    # --- what an operator sees ---

    def view_tasks(self, framework_id: str) -> list[dict[str, Any]]:
        every = [task for task in self.completed if task.framework == framework_id]
        every += [task for task in self.tasks.values() if task.framework == framework_id]
        return [
            {
                "id": task.name,
                "name": task.info.get("name", ""),
                "framework_id": task.framework,
                "executor_id": "",
                "slave_id": task.agent.id,
                "state": "TASK_UNREACHABLE"
                if task.state in LIVE and task.agent.state == "away"
                else task.state,
                "resources": _flat(task.taken, task.ports),
                "role": task.role,
                "statuses": [
                    {
                        "state": one["state"],
                        "timestamp": one["timestamp"],
                        "container_status": {
                            "container_id": one["container_status"]["container_id"],
                            "network_infos": one["container_status"]["network_infos"],
                        },
                    }
                    for one in task.statuses
                ],
            }
            | ({"labels": task.info["labels"]["labels"]} if "labels" in task.info else {})
            for task in every
        ]

    def view_frameworks(self, framework_id: str) -> dict[str, Any]:
        """One framework, as its page tells: what is over and acknowledged stands apart."""
        known = self.frameworks.get(framework_id)
        removed = self.removed.get(framework_id)
        return {
            "frameworks": [self._framework_view(known)] if known is not None else [],
            "completed_frameworks": [self._framework_view(removed)] if removed is not None else [],
            "unregistered_frameworks": [],
        }

    def _framework_view(self, one: Framework) -> dict[str, Any]:
        every = self.view_tasks(one.id)
        over = {task.name for task in self.completed if task.framework == one.id}
        over -= {name for framework, name in self.tasks if framework == one.id}
        offered: collections.Counter = collections.Counter()
        for framework, _agent, scalars, _raw in self.offers.values():
            if framework == one.id:
                offered.update({name: scalars[name] for name in SCALARS if name in scalars})
        ports = {
            port
            for task in self.tasks.values()
            if task.framework == one.id and not task.released
            for port in task.ports
        }
        total = one.allocated + offered
        info, connected = one.info, one.stream is not None and one.id in self.frameworks
        return {
            "id": one.id,
            "name": info["name"],
            "used_resources": _flat(one.allocated, ports),
            "offered_resources": _flat(offered),
            "capabilities": [capability["type"] for capability in info.get("capabilities", ())],
            "hostname": info.get("hostname", ""),
            "webui_url": info.get("webui_url", ""),
            "active": connected,
            "connected": connected,
            "recovered": False,
            "user": info["user"],
            "failover_timeout": float(info.get("failover_timeout", 0.0)),
            "checkpoint": info.get("checkpoint", False),
            "registered_time": self.wall + one.registered_at,
            "unregistered_time": self.wall + one.unregistered_at if one.id in self.removed else 0.0,
            "resources": _flat(total, ports),
            **({"roles": info["roles"]} if one.has("MULTI_ROLE") else {"role": one.role}),
            "tasks": [
                task for task in every
                if task["id"] not in over and task["state"] != "TASK_UNREACHABLE"
            ],
            "unreachable_tasks": [task for task in every if task["state"] == "TASK_UNREACHABLE"],
            "completed_tasks": [task for task in every if task["id"] in over],
            "offers": [],
            "executors": [],
            "offer_constraints": {},
        }  # fmt: skip

    def view_agents(self) -> list[dict[str, Any]]:
        return [self._agent_view(agent) for agent in self.agents.values()]

    def _agent_view(self, agent: Agent) -> dict[str, Any]:
        """An agent as ``/slaves`` has it; the reservation of an agent is a static one."""
        has, own = agent.resources(), agent.role != "*"
        all_of_it = {"gpus": 0.0} | {name: values.flat(one) for name, one in has.items()}
        reservation = {"reservations": [{"role": agent.role, "type": "STATIC"}]} if own else {}
        full = [
            {**values.typed(name, one), "role": agent.role, **reservation}
            for name, one in has.items()
        ]
        offered: collections.Counter = collections.Counter()
        ports: set[int] = set()
        offered_full = []
        for framework, where, scalars, (raw, _sent) in self.offers.values():
            if where is agent:
                offered.update({name: scalars[name] for name in SCALARS if name in scalars})
                ports.update(scalars["ports"])
                role = {"allocation_info": {"role": self.frameworks[framework].role}}
                offered_full += [{**one, **role} for one in raw["resources"]]
        used = collections.Counter(agent.used)
        used.subtract(offered)
        used_ports = agent.used_ports - ports
        items = {
            name: values.flat(one) for name, one in agent.items.items() if agent.are_items_offered
        }
        return {
            "id": agent.id,
            "hostname": agent.hostname,
            "port": agent.address[1],
            "attributes": {name: values.flat(one) for name, one in agent.attributes.items()},
            "pid": f"slave(1)@{agent.address[0]}:{agent.address[1]}",
            "registered_time": self.wall,
            "resources": all_of_it,
            "used_resources": _flat(used, used_ports),
            "offered_resources": _flat(offered, ports) | items,
            "reserved_resources": {agent.role: all_of_it} if own else {},
            "unreserved_resources": _flat({}) if own else all_of_it,
            "active": agent.state == "up",
            "deactivated": False,
            "version": "1.11.0",
            "capabilities": ["MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT"],
            "reserved_resources_full": {agent.role: full} if own else {},
            "unreserved_resources_full": [] if own else full,
            "used_resources_full": [
                {**resource, "role": agent.role, "allocation_info": {"role": task.role}}
                for task in self.tasks.values()
                if task.agent is agent and not task.released
                for resource in _full(task.taken, task.ports)
            ],
            "offered_resources_full": offered_full,
        }

    def view_roles(self) -> list[dict[str, Any]]:
        allocated: dict[str, collections.Counter] = {
            role: collections.Counter() for role in self.quota_limit
        }
        offered: dict[str, collections.Counter] = {}
        for framework in self.frameworks.values():
            allocated.setdefault(framework.role, collections.Counter()).update(framework.allocated)
        for framework_id, _agent, scalars, _raw in self.offers.values():
            role = offered.setdefault(self.frameworks[framework_id].role, collections.Counter())
            role.update({name: scalars[name] for name in SCALARS if name in scalars})
        return [
            {
                "name": role,
                "weight": 1.0,
                "quota": {
                    "role": role,
                    "guarantee": {},
                    "limit": {
                        name: float(limit)
                        for name, limit in self.quota_limit.get(role, {}).items()
                    },
                    "consumed": _some(used),
                },
                "resources": _some(used + offered.get(role, collections.Counter())),
                "allocated": _some(used),
                "offered": _some(offered.get(role, {})),
                "reserved": {},
                "frameworks": [
                    framework.id
                    for framework in self.frameworks.values()
                    if framework.role == role
                ],
            }
            for role, used in allocated.items()
        ]


def _flat(amounts: Mapping[str, int], ports: Collection[int] = ()) -> dict[str, Any]:
    """Return what resources come to as pages have it: four numbers always, ports if any."""
    told = {name: amounts.get(name, 0) / 1000 for name in ("disk", "mem", "gpus", "cpus")}
    return told | ({"ports": values.flat(values.ports(ports))} if ports else {})


def _full(amounts: Mapping[str, int], ports: Collection[int]) -> list[dict[str, Any]]:
    written = {name: repr(amount / 1000) for name, amount in amounts.items()}
    written |= {"ports": values.ports(ports)} if ports else {}
    return [values.typed(name, one) for name, one in written.items()]


def _some(amounts: Mapping[str, int]) -> dict[str, float]:
    return {name: amount / 1000 for name, amount in amounts.items() if amount}


def _wanted(info: Mapping[str, Any]) -> tuple[dict[str, int], set]:
    wanted: collections.Counter = collections.Counter()
    ports: set = set()
    for resource in info.get("resources", ()):
        if resource["type"] == "SCALAR":
            wanted[resource["name"]] += round(resource["scalar"]["value"] * 1000)
        else:
            for one in resource["ranges"]["range"]:
                ports.update(range(one["begin"], one["end"] + 1))
    return dict(wanted), ports


def plan_of(info: Mapping[str, Any]) -> Plan:
    """What the commands of the recordings do."""
    text = info.get("command", {}).get("value", "")
    if found := re.fullmatch(r"(?:.*; )?exit (\d+)", text):
        return Plan(end=0.2, state="TASK_FAILED", message=f"Command exited with status {found[1]}")
    if text == "true" or (
        (found := re.fullmatch(r"(?:.*; )?sleep (\d+)", text)) and int(found[1]) < 100
    ):
        return Plan(end=0.2 if text == "true" else float(found[1]) + 0.2)
    return Plan(deaf="trap '' TERM" in text)
