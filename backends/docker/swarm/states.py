"""What a swarm tells of a task, as an instance: pure, by a total table of its states.

Two things are believed more than a task's own state, because a manager does not learn how tasks
on a dead node are: the state of the node, and what is wanted of the task (``DesiredState``).
Refuses to know how they are asked for.
"""

import enum
import re
from collections.abc import Mapping
from typing import Any

from attrs import Factory, evolve, frozen

from backends import api
from backends.docker.containers import death
from backends.docker.engine import answers, bodies
from outside import addresses, text, typed

_WORD_MAX = 64
_WORDS_MAX = 4096
_PORTS_MAX = 512  # a task tells each twice
_PROTOCOL_MAX = 8
_KILLED = 137
_NO_IMAGE = re.compile(r"no such image|image not known|pull access denied", re.IGNORECASE)
_COMMAND = re.compile(
    r"executable file not found|no such file or directory|permission denied|exec format error"
    r"|unable to start container process",
    re.IGNORECASE,
)
_INIT = re.compile(r"\[FATAL tini")
_NETWORK = re.compile(r"network", re.IGNORECASE)
_MOVED = re.compile(r"no longer meets constraints|constraint enforcer", re.IGNORECASE)
_NO_COMMAND = {126, 127}
_OF_ENGINES = {"killed", "out-of-memory"}
"""What an engine knows better than a manager."""


class TaskStage(enum.Enum):
    """What the state of a task says of its container."""

    BEFORE = "not started yet"
    RUNS = "runs"
    ENDED = "has ended"
    NEVER = "has never been started"
    LOST = "nobody knows"


STAGES = {
    "new": TaskStage.BEFORE,
    "allocated": TaskStage.BEFORE,
    "pending": TaskStage.BEFORE,
    "assigned": TaskStage.BEFORE,
    "accepted": TaskStage.BEFORE,
    "preparing": TaskStage.BEFORE,
    "ready": TaskStage.BEFORE,
    "starting": TaskStage.BEFORE,
    "running": TaskStage.RUNS,
    "complete": TaskStage.ENDED,
    "shutdown": TaskStage.ENDED,
    "failed": TaskStage.ENDED,
    "rejected": TaskStage.NEVER,
    "remove": TaskStage.ENDED,
    "orphaned": TaskStage.LOST,
}
"""Every state of the Engine's API (``TaskState``)."""

_UNKNOWN = TaskStage.RUNS
"""Of a state that nobody has heard of: never an end."""
_LEAVES = frozenset({"shutdown", "complete", "remove"})
"""What a manager wants of a task that is to end."""


@frozen(kw_only=True)
class SwarmTask:
    """A task in a listing; what cannot be read of it is empty."""

    id: str
    service: str
    labels: Mapping[str, str]
    state: str
    desired: str
    node: str = ""  # its id
    container: str = ""  # its id
    error: str = ""
    message: str = ""
    exit_code: int | None = None
    at: float | None = None  # of the state, POSIX seconds
    created_at: float | None = None
    version: int = 0
    image: str = ""
    ports: tuple[api.Port, ...] = ()  # of its node, while it runs
    run: int = 0  # of its service that is a job, how often that was begun anew before

    @property
    def stage(self) -> TaskStage:
        """What its state says."""
        return STAGES.get(self.state, _UNKNOWN)


@frozen(kw_only=True)
class SwarmNode:
    """A machine of the swarm."""

    id: str
    name: str
    is_down: bool = False
    takes_tasks: bool = True  # it is up, and neither paused nor drained
    is_drained: bool = False
    why: str = ""  # the manager's words
    role: str = ""
    address: str = ""
    system: str = ""
    architecture: str = ""  # as the kernel calls it
    labels: Mapping[str, str] = Factory(dict)
    engine_labels: Mapping[str, str] = Factory(dict)


def task(entry: Any) -> SwarmTask:
    """Read an entry of ``/tasks``. Raises ValueError for what is none."""
    if not isinstance(entry, Mapping):
        raise ValueError("an entry that is not a task")  # noqa: TRY004 -- the caller's one kind
    status, spec = bodies.section(entry, "Status"), bodies.section(entry, "Spec")
    there = bodies.section(status, "ContainerStatus")
    inner = bodies.section(spec, "ContainerSpec")
    state = typed.words(status.get("State"), _WORD_MAX)
    found = SwarmTask(
        id=answers.plain_id(entry.get("ID")),
        service=answers.plain_id(entry.get("ServiceID")),
        labels=answers.texts(inner.get("Labels")),
        state=state,
        desired=typed.words(entry.get("DesiredState"), _WORD_MAX),
        node=answers.plain_id(entry.get("NodeID")),
        container=answers.plain_id(there.get("ContainerID")),
        error=text.clean(typed.words(status.get("Err"), _WORDS_MAX)),
        message=text.clean(typed.words(status.get("Message"), _WORDS_MAX)),
        exit_code=typed.integer(there.get("ExitCode"), -(1 << 31), 1 << 32),
        at=answers.stamp(status.get("Timestamp")),
        created_at=answers.stamp(entry.get("CreatedAt")),
        version=typed.integer(bodies.section(entry, "Version").get("Index"), 0, 1 << 62) or 0,
        image=typed.words(inner.get("Image"), _WORDS_MAX),
        ports=ports(bodies.section(status, "PortStatus").get("Ports")),
        run=typed.integer(bodies.section(entry, "JobIteration").get("Index"), 0, 1 << 62) or 0,
    )
    if not found.id or not state:
        raise ValueError("a task without an id, or without a state")
    return found


def ports(listed: Any) -> tuple[api.Port, ...]:
    """Return published ports, of a task's status or of a service's endpoint.

    A task tells each once for every family of addresses, and a random one with its number; a port
    of the ingress network has its number in the service alone (20.10).
    """
    found = set()
    for entry in listed[:_PORTS_MAX] if isinstance(listed, list) else ():
        told = entry if isinstance(entry, Mapping) else {}
        inside = addresses.port(told.get("TargetPort"))
        host_port = addresses.port(told.get("PublishedPort"))
        if inside is not None and host_port is not None:
            protocol = typed.words(told.get("Protocol"), _PROTOCOL_MAX) or "tcp"
            found.add((inside, protocol, host_port))
    return tuple(
        api.Port(port=inside, protocol=protocol, host_port=host_port)
        for inside, protocol, host_port in sorted(found)
    )


def node(entry: Any) -> SwarmNode:
    """Read an entry of ``/nodes``. Raises ValueError for what is none."""
    if not isinstance(entry, Mapping):
        raise ValueError("an entry that is not a node")  # noqa: TRY004 -- the caller's one kind
    spec, status = bodies.section(entry, "Spec"), bodies.section(entry, "Status")
    described = bodies.section(entry, "Description")
    found = answers.plain_id(entry.get("ID"))
    if not found:
        raise ValueError("a node without an id")
    availability = typed.words(spec.get("Availability"), _WORD_MAX)
    state = typed.words(status.get("State"), _WORD_MAX)
    platform = bodies.section(described, "Platform")
    return SwarmNode(
        id=found,
        name=text.clean(typed.words(described.get("Hostname"), 256), 128) or found,
        is_down=state == "down",
        takes_tasks=state == "ready" and availability in {"", "active"},
        is_drained=availability == "drain",
        why=text.clean(typed.words(status.get("Message"), _WORDS_MAX), 128),
        role=typed.words(spec.get("Role"), _WORD_MAX),
        address=typed.words(status.get("Addr"), _WORD_MAX),
        system=typed.words(platform.get("OS"), _WORD_MAX),
        architecture=typed.words(platform.get("Architecture"), _WORD_MAX),
        labels=answers.texts(spec.get("Labels")),
        engine_labels=answers.texts(bodies.section(described, "Engine").get("Labels")),
    )


def state_of(found: SwarmTask, where: SwarmNode | None) -> api.InstanceState:
    """Return what an instance of that task is."""
    if _is_lost(found, where) or found.stage in {TaskStage.ENDED, TaskStage.NEVER}:
        return api.InstanceState.EXITED
    if found.desired in _LEAVES:
        return api.InstanceState.STOPPING
    if found.stage is TaskStage.BEFORE:
        return api.InstanceState.STARTING
    return api.InstanceState.RUNNING


def exit_of(found: SwarmTask, where: SwarmNode | None) -> api.Exit | None:
    """Return how it ended, or of what it is ending; None while it is not."""
    if _is_lost(found, where):
        return api.Exit(slug="platform-lost", message=_lost(where), at=found.at)
    state = state_of(found, where)
    if state is api.InstanceState.STOPPING:
        return _left(where) if where is not None and where.is_drained else None
    if state is not api.InstanceState.EXITED:
        return None
    code = None
    if found.stage is TaskStage.ENDED and found.exit_code is not None:
        code = death.exit_status(found.exit_code)
    words = found.error or found.message
    slug: api.ExitSlug = "exited"
    if found.stage is TaskStage.NEVER:
        slug = _slug_of(words)
    elif found.state == "shutdown":  # by the manager, with nothing in Err
        slug = "evicted" if found.desired == "shutdown" else "killed"
        if where is not None and where.is_drained:
            words = f"its node {where.name} was drained"
    elif found.state == "failed":
        slug = _slug_failed(found, words)
    return api.Exit(slug=slug, code=code, message=words[:256], at=found.at, witnessed=True)


def with_last_words(end: api.Exit, words: str) -> api.Exit:
    """Return how it ended, with its last output; of a command that is none the init says so."""
    told = text.clean(f"{end.message}: {words}" if words else end.message, 256)
    is_none = end.code in _NO_COMMAND and _INIT.search(words) is not None
    return evolve(end, message=told, slug="command" if is_none else end.slug)


def as_engine_tells(end: api.Exit, told: api.Exit | None) -> api.Exit:
    """Return how it ended, with what its node's engine says of its container, if one says it."""
    if told is None:
        return end
    slug = told.slug if told.slug in _OF_ENGINES else end.slug
    return evolve(end, slug=slug, message=told.message or end.message)


def waits_for(found: SwarmTask) -> str:
    """Return why it does not run yet, in the scheduler's words; the reason is in brackets."""
    inner = re.search(r"no suitable node \((.+)\)", found.error)
    if inner is not None:
        return f"no node takes it: {inner[1]}"[:256]
    return (found.error or found.message)[:256]


def _is_lost(found: SwarmTask, where: SwarmNode | None) -> bool:
    """Tell whether nobody knows what became of it: its node is down, or the manager gave up."""
    if found.stage is TaskStage.LOST:
        return True
    is_down = where is not None and where.is_down
    return is_down and found.stage in {TaskStage.BEFORE, TaskStage.RUNS} and bool(found.node)


def _lost(where: SwarmNode | None) -> str:
    if where is None:
        return "the swarm has lost its task"
    return f"its node {where.name} is down{f': {where.why}' if where.why else ''}"


def _left(where: SwarmNode) -> api.Exit:
    return api.Exit(slug="evicted", message=f"its node {where.name} is being drained")


def _slug_of(words: str) -> api.ExitSlug:
    """Return what a task was rejected for."""
    for pattern, slug in (
        (_NO_IMAGE, "image"), (_MOVED, "evicted"), (_COMMAND, "command"), (_NETWORK, "network"),
    ):  # fmt: skip
        if pattern.search(words):
            return slug  # type: ignore[return-value]  # of a tuple the checker sees a text
    return "unknown"


def _slug_failed(found: SwarmTask, words: str) -> api.ExitSlug:
    """Return what a task failed of: of a kill its manager does not tell who did it."""
    if found.exit_code in _NO_COMMAND and _COMMAND.search(words):
        return "command"
    if not found.exit_code and _COMMAND.search(words):
        return "command"
    return "killed" if found.exit_code == _KILLED else "exited"
