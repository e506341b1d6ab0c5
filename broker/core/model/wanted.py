"""What is wanted: templates, limits, and the policy of a moment."""

from collections.abc import Mapping
from typing import Any, NewType

from attrs import Factory, field, frozen

from backends import api as backends_api
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


@frozen(kw_only=True)
class LaunchSettings:
    """How an agent of a template is started; ``spec`` turns it into an ``InstanceSpec``."""

    connection: jnlp_tunnel.Connection
    agent_url: str  # the controller's URL as agents see it, ends with "/"
    remote_fs: str | None = None  # None: the backend's working directory of the instance
    image: str | None = None
    command: tuple[str, ...] | None = None  # own program instead of agent.jar
    inject: str | None = None  # the Java to be brought into the image, by its name
    java: str = "java"
    jvm_options: tuple[str, ...] = ()
    heap_share: float = 0.25  # of the memory limit; the builds' own processes need the rest
    environment: Mapping[str, str] = Factory(dict)
    resources: backends_api.Resources = Factory(backends_api.Resources)
    reconnect_for_s: float | None = 600.0  # how long an agent tries to come back; None: for ever
    platform: Mapping[BackendName, Any] = Factory(dict)  # the backend's own template settings


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
    min_idle: int = 0  # of this moment: schedules are resolved before
    retention: Retention = Factory(Retention)
    connect_deadline_s: float = 300.0  # from launch, or from losing the connection, to online
    launch: LaunchSettings = field(
        repr=False,
        factory=lambda: LaunchSettings(connection=jnlp_tunnel.Connection(), agent_url="/"),
    )

    @property
    def restricted(self) -> bool:
        """It is not for every job."""
        return bool(self.only_for or self.not_for)


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
    by_name: Mapping[str | None, Template] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: {t.name: t for t in self.templates}, takes_self=True),
    )

    def template(self, name: str) -> Template | None:
        """The template of that name, if it is still configured."""
        return self.by_name.get(name)
