"""The document's shape: every setting with its unit, default and the reason of the default.

Names that end in ``_s`` are durations and in ``_bytes`` sizes; in the file they stand without the
ending (``timeout: 10s``, ``memory: 2Gi``). Defaults that the core has are taken from there. The
JSON Schema and the table in ``docs/configuration.md`` are made from these classes. Refuses to
read or check anything.
"""

import re
from collections.abc import Mapping
from typing import Any, NewType

from attrs import frozen

from backends.kit import pipelines, setting
from broker.core import election, model
from broker.core.demand import globs

SecretRef = NewType("SecretRef", str)
"""``file:PATH`` or ``env:NAME``."""
TimeOfDay = NewType("TimeOfDay", int)
"""Minutes after midnight."""
Days = NewType("Days", frozenset)  # type: ignore[type-arg]  # of int, 0 is Monday
Cap = NewType("Cap", int)
"""A number, or ``UNLIMITED``."""
UNLIMITED = "unlimited"
Amount = NewType("Amount", str)
"""A number or a text, as it stands in a label."""


class Number(str):
    """An amount that the document has as a number."""

    __slots__ = ()


Labels = NewType("Labels", tuple)  # type: ignore[type-arg]  # of str: a list, or one text
Argv = NewType("Argv", tuple)  # type: ignore[type-arg]  # of str: a list, or a text for a shell
Injected = NewType("Injected", str)
"""The name of a runtime, or true for ``default``."""


_MANY = 100_000
"""More agents than a controller can have."""
_MOST_WARM = 10_000
_LEAST_MEMORY = 4 << 20
"""Less is given by no platform; what a Java needs is far more, and judged with the template."""
_DAY_S = 86_400.0
_YEAR_S = 365 * _DAY_S
_WEEK_S = 7 * _DAY_S


_JOBS: Mapping[str, Any] = {
    "like": re.compile(r"(?=.{1,256}\Z)[^/\x00-\x1f]([^\x00-\x1f]*[^/\x00-\x1f])?"),
    "words": f"patterns of full names of jobs, of {globs.MOST} characters at most",
    "hint": "as the address of a job has it, without the /job/ between: team-a/app, team-a/**",
}


def same(cls: type, name: str, text: str, **more: Any) -> Any:
    """Return a field with the default that the core has."""
    return setting.of(text, setting.default_of(cls, name), **more)


@frozen(kw_only=True)
class Controller:
    """The Jenkins controller."""

    url: str = setting.of("Its URL as the broker reaches it.")
    user: str | None = setting.of("Who the broker is there.", None)
    token: SecretRef | None = setting.of("API token of the user (better than a password).", None)
    password: SecretRef | None = setting.of("Password, where tokens are not allowed.", None)
    agent_url: str | None = setting.of("Its URL as agents reach it; default: the same.", None)
    ca_file: str | None = setting.of(
        "PEM file with its authority; default: the system's. What fetches agent.jar is given it "
        "as well, and agent.jar itself.",
        None,
    )
    agents_trust_ca: bool = setting.of(
        "Give agents the authority in `ca_file` (`-cert` of agent.jar). False where their Java "
        "knows it, or an image's entry point takes no such argument (Windows).",
        True,
    )
    verify: bool = setting.of("Check its certificate. False only to try something out.", True)
    proxy: str | None = setting.of(
        "HTTP proxy on the way to it: a URL, or file:PATH or env:NAME of one with a password.",
        None,
    )
    timeout_s: float = setting.of(
        "For one request, to the last byte; slow controllers take 2 s.",
        10.0,
        above=0,
        most=600.0,
    )
    placeholder: bool = same(
        model.Policy,
        "placeholder",
        "Keep one node that never connects: it makes the queue name labels and shows a second "
        "broker that this owner is taken.",
    )


@frozen(kw_only=True)
class Poll:
    """How often to look."""

    busy_s: float = setting.of(
        "While anything waits, starts or leaves; at rest a peek at the queue. "
        "What happens meanwhile brings looks forward, "
        "no more than two within this in the long run.",
        1.0,
        least=0.25,
        most=600.0,
    )
    idle_s: float = setting.of(
        "At rest, for everything else: two requests each time.", 5.0, least=0.25, most=3600.0
    )


@frozen(kw_only=True)
class Log:
    """The log, on standard error."""

    format: str = setting.of(
        "auto (JSON unless it is a terminal), json or console.",
        "auto",
        choices=("auto", "json", "console"),
    )
    level: str = setting.of(
        "debug, info, warning or error.", "info", choices=("debug", "info", "warning", "error")
    )


@frozen(kw_only=True)
class Limits:
    """Over everything; each template and backend may have its own."""

    agents: int | None = setting.of("Agents in all; default: no limit.", None, least=0, most=_MANY)
    starting: int | None = setting.of(
        "Agents ordered and not yet online; default: no limit.", None, least=0, most=_MANY
    )
    give_up_s: float | None = setting.of(
        "A build that nothing can serve for so long is cancelled (docs/operating.md); needs "
        "Job/Cancel. Not beside other clouds: their labels are served by no template. "
        "Default: never.",
        None,
        least=10,
        most=_YEAR_S,
    )


@frozen(kw_only=True)
class Advanced:
    """Figures that hardly anybody needs to change."""

    reservation_s: float = same(
        model.Policy,
        "reservation_s",
        "An idle agent that fits and is given nothing for this long is no longer counted on.",
        above=0,
        most=_DAY_S,
    )
    orphan_grace_s: float = same(
        model.Policy,
        "orphan_grace_s",
        "From the first to the deciding sighting of a leftover.",
        least=0,
        most=_DAY_S,
    )
    yield_after_s: float = same(
        model.Policy,
        "yield_after_s",
        "A label that waits this long on a shared cap gets a turn.",
        least=0,
        most=_YEAR_S,
    )
    launch_timeout_s: float = same(
        model.Policy,
        "launch_timeout_s",
        "One launch: node, secret, instance.",
        above=0,
        most=_DAY_S,
    )
    backoff_base_s: float = same(
        model.Policy, "backoff_base_s", "Pause after one failure.", above=0, most=_DAY_S
    )
    backoff_max_s: float = same(
        model.Policy, "backoff_max_s", "Longest pause after failures.", above=0, most=_DAY_S
    )
    rejected_retry_s: float = same(
        model.Policy,
        "rejected_retry_s",
        "Pause after the platform refused a template; a changed template is tried at once.",
        above=0,
        most=_YEAR_S,
    )
    sweep_share: float = same(
        model.Policy,
        "sweep_share",
        "Never sweep a larger share of all agents at once ...",
        least=0,
        most=1,
    )
    sweep_floor: int = same(
        model.Policy, "sweep_floor", "... unless they are this few.", least=0, most=_MANY
    )
    resume_grace_s: float = same(
        model.Policy,
        "resume_grace_s",
        "After a start: time for pipelines to ask for the nodes that they ran on.",
        least=0,
        most=_DAY_S,
    )
    settle_s: float = same(
        model.Policy,
        "settle_s",
        "The controller gives an idle agent its item within this.",
        least=0,
        most=_DAY_S,
    )


@frozen(kw_only=True)
class Backend:
    """What all kinds have; the kind's own settings stand beside these."""

    kind: str = setting.of("Which kind of backend.")
    cap: Cap | None = setting.of(
        "Agents on it, or `unlimited`. Default: 50; of kind process 20, and at most 4 for each "
        "processor.",
        None,
        least=0,
        most=_MANY,
    )
    starting: int | None = same(
        model.BackendPolicy,
        "max_starting",
        "Agents ordered and not yet online on it: what the platform takes without queueing.",
        least=1,
        most=_MANY,
    )
    launch_rate: float = same(
        model.BackendPolicy,
        "launch_rate",
        "Launches per second, on average (token bucket).",
        above=0,
        most=10_000,
    )
    launch_burst: int = same(
        model.BackendPolicy,
        "launch_burst",
        "Launches at once before the rate holds.",
        least=1,
        most=_MANY,
    )


@frozen(kw_only=True)
class ScheduleWindow:
    """One window of a week."""

    days: Days = setting.of("mon-fri, sat,sun or daily: the days on which it begins.")
    start: TimeOfDay = setting.of('From, like "07:00", local time.', key="from")
    end: TimeOfDay = setting.of(
        'To, like "19:00"; not after the start: on the next day.', key="to"
    )
    min_idle: int = setting.of(
        "Agents to keep idle within it; the largest of all that hold.", least=0, most=_MOST_WARM
    )


@frozen(kw_only=True)
class Schedule:
    """A week."""

    zone: str = setting.of("Time zone, like Europe/Berlin.", "UTC")
    windows: tuple[ScheduleWindow, ...] = setting.of("The windows of the week.", ())


@frozen(kw_only=True)
class Warm:
    """Agents kept idle for whoever comes next."""

    min_idle: int = same(
        model.Template,
        "min_idle",
        "Agents online and idle; replaced as soon as one is taken.",
        least=0,
        most=_MOST_WARM,
    )
    schedule: Schedule | None = setting.of("Other figures at certain times of the week.", None)


@frozen(kw_only=True)
class Retention:
    """When an agent may go; the first limit reached wins."""

    once: bool = same(
        model.Retention,
        "once",
        "One build, then gone; one more at most where builds are as short as Jenkins answers.",
    )
    max_builds: int | None = same(
        model.Retention, "max_builds", "Builds; default: no limit.", least=1, most=1_000_000_000
    )
    idle_s: float | None = same(
        model.Retention,
        "idle_s",
        "Idle longer than this and not needed; never: not for idleness.",
        word="never",
        least=0,
        most=_YEAR_S,
    )
    max_age_s: float | None = same(
        model.Retention,
        "max_age_s",
        "Age; stronger than min_idle. Default: no limit.",
        above=0,
        most=_YEAR_S,
    )
    keep_failed_s: float | None = same(
        model.Retention,
        "keep_failed_s",
        "An instance that failed (it ended by itself, and not well) is not removed until so long "
        "after its end, for a look; its node goes. Default: it is removed at once.",
        above=0,
        most=_WEEK_S,
    )
    keep_failed_most: int = same(
        model.Retention,
        "keep_failed_most",
        "So many instances at most are kept like that at a time, the first that failed.",
        least=1,
        most=20,
    )


@frozen(kw_only=True)
class Connect:
    """How agents reach the controller."""

    mode: str = setting.of(
        "tcp, websocket or direct.", "tcp", choices=("tcp", "websocket", "direct")
    )
    tunnel: str | None = setting.of(
        "HOST:PORT, HOST: or :PORT in place of what is announced.", None
    )
    direct: str | None = setting.of("HOST:PORT of the agent port, for mode direct.", None)
    instance_identity: str | None = setting.of(
        "The controller's identity (base64), for direct.", None
    )
    protocols: tuple[str, ...] = setting.of("Agent protocols to try; default: all.", ())


@frozen(kw_only=True)
class Resources:
    """What the platform's scheduler is told."""

    memory_bytes: int | None = setting.of(
        "Hard limit of memory.", None, least=_LEAST_MEMORY, most=1 << 50
    )
    memory_reservation_bytes: int | None = setting.of(
        "Memory set aside.", None, least=_LEAST_MEMORY, most=1 << 50
    )
    cpu_limit: float | None = setting.of("Cores, hard limit.", None, above=0, most=10_000)
    cpu_shares: float | None = setting.of("Cores, relative weight.", None, above=0, most=10_000)


@frozen(kw_only=True)
class Choice:
    """What one of a parameter's values stands for."""

    image: str | None = setting.of("Container image.", None)
    inherits: tuple[str, ...] = setting.of(
        "Kubernetes only: names in the backend's `pods`, laid over the template's pod.", ()
    )
    memory_bytes: int | None = setting.of("Hard limit.", None, least=_LEAST_MEMORY, most=1 << 50)
    cpu: float | None = setting.of("Cores, hard limit.", None, above=0, most=10_000)


@frozen(kw_only=True)
class Parameter:
    """What builds may ask of a template by a label ``NAME=VALUE``."""

    allow: tuple[str, ...] | None = setting.of(
        "Of `image`, and of others that stand for images: patterns; `*` does not cross a `/`, "
        "`**` does; a registry and a digest are allowed only where the pattern has one.",
        None,
        like=re.compile(r"[!-~]{1,256}"),
        words=f"patterns of images, of {globs.MOST} characters at most",
    )
    stands_for: str | None = setting.of(
        "The image that a value stands for, with `{value}` in it: `maven:{value}`. `allow` then "
        "has patterns of the value. Default: the value is the image.",
        None,
    )
    container: str | None = setting.of(
        "Kubernetes only: the container of the pod whose image is asked for. Default: the "
        "agent's own.",
        None,
    )
    inherits: tuple[str, ...] = setting.of(
        "Kubernetes only: names in the backend's `pods` that are laid over the template's pod "
        "where an image is asked for: the container, say.",
        (),
    )
    min: Amount | None = setting.of(
        "Of `memory` (512m, 512Mi; default: 64Mi) and `cpu` (0.5; default: 0.1).", None
    )
    max: Amount | None = setting.of("The same, at most; required.", None)
    values: dict[str, Choice] | None = setting.of("Of any other name: what may be asked.", None)
    default: Amount | None = setting.of("What who asks for none gets, as if asked for.", None)


@frozen(kw_only=True)
class Pipelines:
    """Docker for the builds of a template."""

    mode: str = setting.of(
        "socket: the engine that the agent, or its pod's node, runs on; dind: a privileged engine "
        "of its own beside each agent; dind-rootless: such a one that runs without root, whose "
        "containers cannot write into the workspace unless they are root in it.",
        choices=pipelines.MODES,
    )
    acknowledge: str | None = setting.of(
        "Says that the cost is known, in these words: `builds-are-root-on-the-host` for socket "
        "and dind, `a-privileged-container-beside-each-agent` for dind-rootless.",
        None,
    )
    engine_image: str | None = setting.of(
        "Image of the engine beside each agent. Default: docker:dind, docker:dind-rootless.", None
    )
    engine_memory_bytes: int | None = setting.of(
        "Hard limit of memory of the engine beside each agent, with all containers of its builds, "
        "beside what the agent has. Default: docker: as much as the agent; kubernetes: what the "
        "namespace says.",
        None,
        least=_LEAST_MEMORY,
        most=1 << 50,
    )
    engine_cpu_limit: float | None = setting.of(
        "The same of cores, hard limit. Default: as for its memory.", None, above=0, most=10_000
    )


@frozen(kw_only=True)
class Proxy:
    """The HTTP proxy of a template's builds, and of its agents' JVM."""

    http: str | None = setting.of(
        "`http://HOST:PORT` of the proxy for addresses that begin with http. Every build reads "
        "it: no password.",
        None,
    )
    https: str | None = setting.of(
        "The same for those that begin with https. Default: as `http`.", None
    )
    no_proxy: tuple[str, ...] = setting.of(
        "Where to go without it: names (and all below them), addresses, networks. This machine "
        "and the controller are always among them.",
        (),
    )
    agent: bool = setting.of(
        "The agent itself reaches its controller by way of the proxy, too, which then has to "
        "allow CONNECT to the agents' port.",
        False,
    )


@frozen(kw_only=True)
class Trusted:
    """Authorities that builds and the agents' JVM trust besides the public ones."""

    ca_file: str = setting.of(
        "PEM file with your own authorities, on the broker's machine. Read with the "
        "configuration; part of the revision."
    )
    public: bool = setting.of(
        "Trust the public authorities, too. False: yours alone, where builds reach nothing else; "
        "then an agent is given a few kB instead of 400.",
        True,
    )
    java_tools: bool = setting.of(
        "Give the store to every JVM of the builds, too (`JAVA_TOOL_OPTIONS`; each says so in a "
        "line of its output).",
        False,
    )
    public_file: str | None = setting.of(
        "PEM file with the public authorities, on the broker's machine. Read at each launch. "
        "Default: the system's there.",
        None,
    )


@frozen(kw_only=True)
class Check:
    """A command that is run in an agent, by its user and beside its program."""

    command: Argv = setting.of(
        "Program and arguments, or one text for `sh -c`. Exit status 0: the agent is fit; "
        "anything else, or no end within `timeout`: it is not, and its last line is told."
    )
    timeout_s: float = setting.of(
        "For all of it. Builds, or the start, wait for it.",
        model.CheckCommand().within_s,
        above=0,
        most=3600.0,
    )


@frozen(kw_only=True)
class Checks:
    """Whether an agent is fit for builds: commands that say so."""

    ready: Check | None = setting.of(
        "Before an agent is given anything: it is out of service until this has passed. One that "
        "fails goes and counts as a failed start.",
        None,
    )
    dirty: Check | None = setting.of(
        "After each build, before the next one: a build's agent is taken out of service until "
        "this has passed. One that fails goes. Not with `retention.once`.",
        None,
    )


@frozen(kw_only=True)
class Template:
    """A kind of agent. A section named like a kind of backend holds that kind's settings."""

    labels: Labels = setting.of("Labels of the node: a list, or one text with blanks.")
    backends: tuple[str, ...] | None = setting.of(
        "In order: failure or cap moves to the next. Default: all, as they stand.", None
    )
    executors: int = same(
        model.Template, "executors", "Builds at the same time.", least=1, most=1000
    )
    mode: str = setting.of(
        "exclusive: only builds that ask for a label; normal: any build.",
        "exclusive",
        choices=("exclusive", "normal"),
    )
    takes_unlabelled: bool = same(
        model.Template, "takes_unlabelled", "Start for builds without a label (mode normal)."
    )
    start_early: bool = same(
        model.Template, "start_early", "Start for builds that are still in their quiet period."
    )
    paused: bool = same(model.Template, "paused", "Start no new agents.")
    only_for: tuple[str, ...] | None = setting.of(
        "Start only for builds of these jobs: patterns of full names, as `team-a/**`; `*` does "
        "not cross a `/`. Default: all. No access control of Jenkins.",
        None,
        **_JOBS,
    )
    not_for: tuple[str, ...] | None = setting.of(
        "Do not start for builds of these; stronger than `only_for`.", None, **_JOBS
    )
    cap: int | None = same(
        model.Template, "cap", "Agents of it; default: no limit.", least=0, most=_MANY
    )
    parameters: dict[str, Parameter] = setting.of(
        "What builds may ask for by labels like `image=golang:1.22` or `memory=4g`. `image`, "
        "`memory` and `cpu` are those of the agent, any other name an image or a word of a list. "
        "Each set of values is a variant: agents of its own, within the template's cap, none "
        "kept warm. On docker, swarm, kubernetes and mesos; memory and cpu on process, too.",
        {},
    )
    variants: int = same(
        model.Template, "variants", "Different variants at the same time.", least=1, most=1000
    )
    warm: Warm = setting.of("Agents kept idle.", Warm())
    retention: Retention = setting.of("When an agent goes.", Retention())
    checks: Checks = setting.of(
        "Commands that say whether an agent is fit (docs/operating.md). Default: none.", Checks()
    )
    connect: Connect = setting.of("How agents reach the controller.", Connect())
    give_up_s: float | None = same(
        model.Template,
        "give_up_s",
        "A build that waits for it is cancelled when it backs off or is set aside for so long; "
        "needs Job/Cancel. Default: as limits.give_up.",
        least=10,
        most=_YEAR_S,
    )
    connect_deadline_s: float = same(
        model.Template,
        "connect_deadline_s",
        "From launch to online; then the agent is replaced. Agents were seen to hang.",
        above=0,
        most=30 * _DAY_S,
    )
    reconnect_for_s: float | None = same(
        model.LaunchSettings,
        "reconnect_for_s",
        "How long an agent tries to come back to a controller that is away.",
        word="forever",
        least=0,
        most=_YEAR_S,
    )
    command: tuple[str, ...] | None = same(
        model.LaunchSettings, "command", "Own program instead of java -jar agent.jar."
    )
    java: str = same(model.LaunchSettings, "java", "Java to run agent.jar with.")
    jvm_options: tuple[str, ...] = same(
        model.LaunchSettings,
        "jvm_options",
        "Options before -jar, such as -Xmx256m; they win over what makes an agent start fast.",
    )
    heap_share: float = same(
        model.LaunchSettings,
        "heap_share",
        "The agent's heap as a share of `resources.memory`; builds need the rest.",
        above=0,
        most=0.9,
    )
    image: str | None = same(model.LaunchSettings, "image", "Container image.")
    inject: Injected | None = same(
        model.LaunchSettings,
        "inject",
        "Bring Java and agent.jar into the image, which needs neither: true, or the name of one "
        "of the backend's `runtimes` (`agent-broker runtime build` makes them).",
    )
    docker_pipelines: Pipelines | None = setting.of(
        "Docker for the builds (docs/docker-pipelines.md). Default: none.", None
    )
    remote_fs: str | None = same(
        model.LaunchSettings,
        "remote_fs",
        "Working directory; default: the backend's, and with `docker_pipelines` of mode socket "
        "`/srv/agent-broker/{name}`, on swarms `/var/lib/docker/volumes/{name}-work/_data`.",
    )
    environment: dict[str, str] = setting.of(
        "Environment of the agent. Visible to its builds: no secrets.", {}
    )
    proxy: Proxy | None = setting.of(
        "The HTTP proxy of builds and of the agent's JVM, by variables and options, on every "
        "backend. Default: none.",
        None,
    )
    trust: Trusted | None = setting.of(
        "Authorities of your own for builds and the agent's JVM, by files, variables and an "
        "option. Default: what image and machine trust.",
        None,
    )
    resources: Resources = setting.of("What the platform's scheduler is told.", Resources())


@frozen(kw_only=True)
class HighAvailability:
    """Several brokers of one owner, one of which acts. Where the lease is stands beside these."""

    kind: str = setting.of(
        "lease: a Lease of a Kubernetes cluster. How the cluster is reached (`namespace`, "
        "`kubeconfig`, ...) stands beside this, as for the backend of that kind.",
        "lease",
        choices=("lease",),
    )
    name: str | None = setting.of("Name of the lease; default: `agent-broker-OWNER`.", None)
    identity: str | None = setting.of(
        "What this replica is called; default: the host's name, which is the pod's.", None
    )
    lease_s: float = setting.of(
        "Whoever leads has stopped when the lease is this old, in whole seconds; "
        "the other takes over then.",
        float(election.Terms().lease_s),
        least=1,
        most=3600,
    )
    renew_deadline_s: float = same(
        election.Terms,
        "renew_deadline_s",
        "Whoever leads and cannot renew for this long stops acting.",
        above=0,
        most=3600,
    )
    retry_s: float = same(
        election.Terms,
        "retry_s",
        "Pause between two requests for the lease, of every replica.",
        least=0.1,
        most=3600,
    )


@frozen(kw_only=True)
class HookSection:
    """The push hook of the controller (``agent-broker hook``)."""

    key: SecretRef = setting.of(
        "Key that the hook brings, 20 characters or more: file:PATH or env:NAME."
    )
    url: str | None = setting.of(
        "The broker's address as the controller reaches it; default: that of `listen`.", None
    )
    install: bool = setting.of(
        "Put it in by the controller's script console, and again after each of its starts: "
        "the broker's user needs Overall/Administer for that. Default: a person or a file does.",
        False,
    )
    tells_builds: bool = setting.of(
        "Say in the log of a Pipeline run why its `node` step waits, when that changes, once a "
        "minute at most.",
        True,
    )


@frozen(kw_only=True)
class Control:
    """What people may order of the broker at work."""

    tokens_file: str | None = setting.of(
        "File with a line NAME ROLE TOKEN for each who may ask; ROLE is view or operate, TOKEN "
        "has 20 characters or more. Read again when it changes. Default: nothing can be ordered.",
        None,
    )
    hook: HookSection | None = setting.of(
        "The controller tells of its queue as it happens. Default: the broker polls alone.", None
    )


@frozen(kw_only=True)
class Document:
    """The whole file."""

    owner: str = setting.of(
        "Name of this broker on the controller and the backends; unique there."
    )
    controller: Controller = setting.of("The Jenkins controller.")
    poll: Poll = setting.of("How often to look.", Poll())
    state_dir: str = setting.of(
        "Directory for the few facts that cannot be observed again; a relative path begins where "
        "the (first) configuration file is.",
        "agent-broker-state",
    )
    listen: str | None = setting.of(
        "HOST:PORT of status page and metrics; off: none. Everybody who reaches it may read it.",
        "127.0.0.1:8087",
        word="off",
    )
    control: Control = setting.of("What people may order of the broker at work.", Control())
    log: Log = setting.of("The log.", Log())
    watch_files_s: float | None = setting.of(
        "Look this often whether the configuration's files changed, and put them in force; off: "
        "only SIGHUP does. For a mounted ConfigMap, and where nobody can send a signal.",
        None,
        word="off",
        least=1.0,
        most=86_400.0,
    )
    high_availability: HighAvailability | None = setting.of(
        "Several brokers of this owner, one of which acts. Default: this one is alone.", None
    )
    limits: Limits = setting.of("Over everything.", Limits())
    backends: dict[str, Any] = setting.of("Where agents run. Default: local, of kind process.", {})
    defaults: dict[str, Any] = setting.of("Settings that every template starts from.", {})
    templates: dict[str, Template] = setting.of("The kinds of agents, in order of preference.")
    advanced: Advanced = setting.of("Figures that hardly anybody needs to change.", Advanced())
