"""What is wanted: templates, limits, and the policy of a moment."""

import enum
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NewType

from attrs import Factory, field, frozen

from backends import api as backends_api
from broker.core.model.controller import NodeName
from jnlp import proxy as jnlp_proxy
from jnlp import truststore as jnlp_truststore
from jnlp import tunnel as jnlp_tunnel

TemplateName = NewType("TemplateName", str)


BackendName = NewType("BackendName", str)


@frozen(kw_only=True)
class Retention:
    """When an agent may go. All limits that are set hold together; the first one reached wins."""

    once: bool = False  # exactly one build, then gone
    max_builds: int | None = None
    idle_s: float | None = 600.0  # idle longer than this and not needed; None: never for idleness
    max_age_s: float | None = None  # stronger than ``min_idle``
    keep_failed_s: float | None = None  # an instance that failed stays so long after its end ...
    keep_failed_most: int = 3  # ... of so many at a time


class Check(enum.Enum):
    """When it is checked whether an agent is fit for builds; the value is the setting's name."""

    READY = "ready"  # before it is given anything
    DIRTY = "dirty"  # after each build, before it is given the next one

    __hash__ = object.__hash__  # as of ``Phase``


@frozen(kw_only=True)
class CheckCommand:
    """What is run in an agent's instance to find out; exit status 0: it is fit."""

    argv: tuple[str, ...] = field(default=(), repr=False)
    within_s: float = 30.0  # whatever takes longer has failed


@frozen(kw_only=True)
class Checks:
    """What is asked of the agents of a template."""

    ready: CheckCommand | None = None
    dirty: CheckCommand | None = None

    def of(self, check: Check) -> CheckCommand | None:
        """Return what is run for a check; None: nothing is."""
        return self.ready if check is Check.READY else self.dirty


@frozen(kw_only=True)
class LaunchSettings:
    """How an agent of a template is started; ``spec`` turns it into an ``InstanceSpec``."""

    connection: jnlp_tunnel.Connection
    agent_url: str  # the controller's URL as agents see it, ends with "/"
    remote_fs: str | None = None  # None: the backend's working directory of the instance
    image: str | None = None
    command: tuple[str, ...] | None = None  # own program instead of agent.jar
    inject: str | None = None  # the Java to be brought into the image, by its name
    docker_pipelines: backends_api.DockerPipelines | None = None  # an engine for the builds
    java: str = "java"
    jvm_options: tuple[str, ...] = ()
    heap_share: float = 0.25  # of the memory limit; the builds' own processes need the rest
    environment: Mapping[str, str] = Factory(dict)
    proxy: jnlp_proxy.Proxy | None = None  # of builds and the JVM; ``environment`` wins
    trust: jnlp_truststore.Trust | None = None  # of builds and the JVM; ``environment`` wins
    resources: backends_api.Resources = Factory(backends_api.Resources)
    inherits: tuple[str, ...] = ()  # parts of the backend's settings that are asked for
    side_images: Mapping[str, str] = Factory(dict)  # asked for, by container
    reconnect_for_s: float | None = 600.0  # how long an agent tries to come back; None: for ever
    platform: Mapping[BackendName, Any] = Factory(dict)  # the backend's own template settings


VALUE = "{value}"
"""Stands in ``Parameter.stands_for`` for what a build asks for."""


class ParameterKind(enum.Enum):
    """What a label ``NAME=VALUE`` stands for."""

    IMAGE = "image"
    MEMORY = "memory"
    CPU = "cpu"
    CHOICE = "choice"  # a name of several settings

    __hash__ = object.__hash__


@frozen(kw_only=True)
class Choice:
    """What one value of a parameter sets; None: as the template has it."""

    image: str | None = None
    container: str | None = None  # whose image; None: the agent's own
    inherits: tuple[str, ...] = ()  # parts of the backend's settings
    memory_bytes: int | None = None
    cpu: float | None = None  # cores, hard limit


@frozen(kw_only=True)
class Parameter:
    """What items may ask of a template by a label ``NAME=VALUE``."""

    kind: ParameterKind
    allow: tuple[str, ...] = ()  # of an image: patterns of it, or of the value in ``stands_for``
    stands_for: str | None = None  # the image, with ``VALUE`` in it; None: the value is the image
    container: str | None = None  # of an image: whose it is; None: the agent's own
    inherits: tuple[str, ...] = ()  # of an image: parts of the backend's settings
    least: float | None = None  # of memory, in bytes, or of cores
    most: float | None = None
    values: Mapping[str, Choice] = Factory(dict)  # of a choice


@frozen(kw_only=True)
class Template:
    """A kind of agent."""

    name: TemplateName
    labels: frozenset[str]
    backends: tuple[BackendName, ...]  # in order: failure, set-aside or cap moves to the next
    revision: str  # changes with the definition; agents of an older one retire when idle
    executors: int = 1
    exclusive: bool = True  # only builds that ask for one of the labels
    takes_unlabelled: bool = False  # items without a label go here (needs ``exclusive`` False)
    start_early: bool = False  # start for items that are still in their quiet period
    paused: bool = False  # no new agents
    only_for: tuple[str, ...] = ()  # patterns of the full names of jobs; empty: for all ...
    not_for: tuple[str, ...] = ()  # ... but these
    cap: int | None = None
    parameters: Mapping[str, Parameter] = Factory(dict)  # by the name that stands before ``=``
    variants: int = 10  # different sets of their values that agents may have at a time
    min_idle: int = 0  # of this moment: schedules are resolved before
    retention: Retention = Factory(Retention)
    numbered: bool = False  # its agents have a slot each, for places that outlive them
    checks: Checks = Factory(Checks)
    give_up_s: float | None = None  # what waits for it in vain is cancelled; None: as the policy's
    connect_deadline_s: float = 300.0  # from launch, or from losing the connection, to online
    launch: LaunchSettings = field(
        repr=False,
        factory=lambda: LaunchSettings(connection=jnlp_tunnel.Connection(), agent_url="/"),
    )

    @property
    def restricted(self) -> bool:
        """It is not for every job."""
        return bool(self.only_for or self.not_for)

    def asked(self, labels: AbstractSet[str]) -> frozenset[str]:
        """Return which of these labels, beside its own, ask for a value of its parameters."""
        if not self.parameters:
            return frozenset()
        return frozenset(
            label
            for label in labels - self.labels
            if "=" in label and label.partition("=")[0] in self.parameters
        )


class StandingKind(enum.Enum):
    """What a person has ordered that stands; the value is the API's word."""

    PAUSE = "pause"  # no new agents
    DRAIN = "drain"  # no new agents, and those that are there go after their builds
    PREWARM = "prewarm"  # so many agents are kept warm, if the caps allow it
    RETIRE = "retire"  # one agent goes, after its build
    HOLD = "hold"  # one agent is given no new build, and stays

    __hash__ = object.__hash__  # as of ``Phase``


@frozen(kw_only=True)
class StandingOrder:
    """An order of a person that stands until its time is over, or it is taken back.

    One of template, backend and agent says what it is about; none of them: the whole broker.
    """

    kind: StandingKind
    who: str
    note: str = ""
    since_at: float
    until_at: float | None = None  # None: until it is taken back
    template: TemplateName | None = None
    backend: BackendName | None = None
    agent: NodeName | None = None
    agents: int = 0  # that are kept warm

    def stands(self, now: float) -> bool:
        """Whether its time is not over."""
        return self.until_at is None or now < self.until_at


@frozen(kw_only=True)
class BackendPolicy:
    """Limits of one backend."""

    cap: int | None = None  # agents in all
    max_starting: int | None = 20  # agents ordered and not yet online
    launch_rate: float = 10.0  # token bucket: launches per second ...
    launch_burst: int = 20  # ... and its size


@frozen(kw_only=True)
class Policy:
    """Everything a cycle needs to know about intent; made from the configuration."""

    owner: str
    templates: tuple[Template, ...]  # order is preference
    backends: Mapping[BackendName, BackendPolicy]
    cap: int | None = None
    max_starting: int | None = None
    give_up_s: float | None = None  # an item that nothing can serve is cancelled; None: never
    placeholder: bool = True  # keep one never-connected node so that ``why`` names labels
    reservation_s: float = 60.0  # how long an idle agent may stay nominated and not be taken
    orphan_grace_s: float = 30.0  # second sighting at least this much after the first
    yield_after_s: float = 60.0  # a label that waits this long on a shared cap gets a turn
    launch_timeout_s: float = 120.0  # one launch action: node, secret, instance
    backoff_base_s: float = 5.0
    backoff_max_s: float = 300.0
    rejected_retry_s: float = 600.0  # a template that the backend refuses is tried again after
    settle_s: float = 15.0  # the controller gives an idle agent its item within this
    resume_grace_s: float = 30.0  # after a (re)start: time for pipelines to ask for their nodes
    sweep_share: float = 0.5  # more than this share of all instances (and more than
    sweep_floor: int = 10  # this many) to sweep at once is implausible and refused
    draining: bool = False  # launch nothing, retire everything that is idle
    standing: tuple[StandingOrder, ...] = ()  # what people have ordered, and stands
    by_name: Mapping[str | None, Template] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: {t.name: t for t in self.templates}, takes_self=True),
    )

    def template(self, name: str) -> Template | None:
        """The template of that name, if it is still configured."""
        return self.by_name.get(name)
