"""What a user may set for the Mesos backend. No I/O, no import of the backend itself.

Every field says unit, default and the reason of the default; ValueError names what is allowed.
"""

import ipaddress
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from attrs import frozen

from backends.kit import honoured, names, perils, setting, workspaces
from backends.kit.remarks import Common, Remark
from backends.mesos import offers
from outside import files, quotes

_ADDRESS = re.compile(
    r"zk://(?:[^@/\s]+@)?[^@/\s]+/\S+|(?:https?://)?[^\s/:,@]+(?::\d+)?/?"
    r"(?:,(?:https?://)?[^\s/:,@]+(?::\d+)?/?)*"
)
_SANDBOX = "/mnt/mesos/sandbox"
"""Where containers have it; a plain task's is elsewhere, and nothing else is there."""
_LAST_PORT = 65_535
_ROLE = re.compile(r"\*|[^\s/*.-][^\s/*]*(?:/[^\s/*.-][^\s/*]*)*")

_ULIMITS = frozenset(  # RLimitInfo.RLimit.Type of mesos.proto
    {
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
        *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    }
)


@frozen(kw_only=True)
class Handover:
    """Where the agents' hosts fetch the agents' secrets, each once, and authorities for builds."""

    listen: str = setting.of(
        "HOST:PORT to listen on. Apart from the broker's own page, because other hosts reach it.",
        like=re.compile(r"[^\s/]*:\d{1,5}"),
        words="HOST:PORT",
    )
    url: str = setting.of(
        "URL under which the agents' hosts reach it. No default: only you know what leads here.",
        like=re.compile(r"https?://[^\s?#@]+"),
        words="https://broker.example.com:8443",
    )
    cert_file: str | None = setting.of(
        "PEM file of the certificate that we show. None: plain HTTP.", None, **setting.ABSOLUTE
    )
    key_file: str | None = setting.of("PEM file of its key.", None, **setting.ABSOLUTE)

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file: needs key_file, and the other way round")
        if self.cert_file is not None and self.url.startswith("http:"):
            raise ValueError("url: with cert_file it begins with https://")


@frozen(kw_only=True)
class RuntimeArchive:
    """A Java for images that have none."""

    uri: str = setting.of(
        "Where Mesos' fetcher finds the archive that `agent-broker runtime build` wrote: "
        "https://, http://, hdfs://, or a path of every agent's host.",
        like=re.compile(r"[^\s]{1,1000}\.(tar|tar\.gz|tgz)"),
        words="an address that ends with .tar, .tar.gz or .tgz: by that the fetcher unpacks it",
    )
    cache: bool = setting.of(
        "Let the agent's host keep it for the next task; another content needs another address.",
        True,
    )


@frozen(kw_only=True)
class MesosSettings:
    """Settings of the backend: one framework at one cluster."""

    master: str = setting.of(
        'Where the masters are: all of them as "http://host:5050" with commas between '
        "(nobody else is told our secrets, also if a master says that another one leads), "
        'or the ZooKeeper address "zk://[user:password@]h1:2181,h2:2181/mesos".',
        like=_ADDRESS,
        words="http://host:5050 or zk://h1:2181,h2:2181/mesos",
    )
    name: str = setting.of(
        "Name of the framework, also where its id is kept: two Mesos backends of one broker "
        "need two.",
        "agent-broker",
        like=re.compile(r"\S.{0,99}"),
        words="a name",
    )
    role: str = setting.of(
        "The role whose offers we take. A role per controller, with a quota, keeps teams apart.",
        "*",
        like=_ROLE,
        words="a role such as ci or ci/large",
    )
    user: str = setting.of(
        "Who the tasks run as, unless the template says; on the agents this user has to exist.",
        "jenkins",
    )
    principal: str | None = setting.of(
        "Who we are at the masters (basic authentication). Agents are never given it.", None
    )
    secret_file: str | None = setting.of(
        "File with the secret of `principal`, and nothing else.", None, **setting.ABSOLUTE
    )
    handover: Handover | None = setting.of(
        "Where the agents' hosts fetch the agents' secrets, so that nobody else sees them, and "
        "the authorities for builds (`trust`).",
        None,
    )
    ca_file: str | None = setting.of(
        "PEM file with the authorities that sign the masters' and agents' certificates.",
        None,
        **setting.ABSOLUTE,
    )
    tls_ciphers: str | None = setting.of(
        "Ciphers for TLS, as OpenSSL writes lists of them. None: Python's own. Mesos' "
        "default list (AES128-SHA and such, without forward secrecy) is not among them: "
        '"AES128-SHA:AES256-SHA" reaches such a master; better LIBPROCESS_SSL_CIPHERS of '
        "the master.",
        None,
    )
    request_timeout_s: float = setting.of(
        "Seconds for one request. A master answers in milliseconds or is overloaded.",
        10.0,
        least=0.5,
        most=600,
    )
    offer_timeout_s: float = setting.of(
        "Seconds that a launch waits for an offer that fits. Masters make offers every "
        "second; what is not offered within ten is in use, and other backends may be free. "
        "Six times as long where the master's page shows room: then other frameworks are "
        "offered it first.",
        10.0,
        least=0.1,
        most=600,
    )
    refuse_s: float = setting.of(
        "Seconds for which what we do not need is refused. An hour: REVIVE takes it back at "
        "once, and 2000 frameworks that ask again every five seconds (the master's default) "
        "wear it out.",
        3600.0,
        least=1,
        most=31_536_000,
    )
    failover_timeout_s: float = setting.of(
        "Seconds that the master keeps our tasks running without us. A day: longer than any "
        "repair of the broker's machine should take; too short kills builds, too long "
        "leaves garbage.",
        86_400.0,
        least=60,
        most=31_536_000,
    )
    work_root: str = setting.of(
        "Where the agents' work directories appear, one link per agent into its sandbox. On "
        "the hosts where plain tasks run, and in every container.",
        "/tmp/jenkins-agents",  # noqa: S108 -- on the agents' hosts; made with the sticky bit
        **setting.ABSOLUTE,
    )
    gpus: bool = setting.of(
        "Whether agents with GPUs make us offers, for templates with `gpus`. Masters keep "
        "them for frameworks that say so, and so should we: their processors are wanted by "
        "those.",
        False,
    )
    hostname: str = setting.of("Host of the framework, as the master's pages show it.", "")
    web_url: str = setting.of("Address to which the master's pages link.", "")
    runtimes: Mapping[str, RuntimeArchive] = setting.of(
        "What `inject` of a template brings into images without Java, by name; `default` is that "
        "of `inject: true`.",
        {},
    )

    def remarks(self) -> Iterator[Remark]:
        """Say what is open to others: secrets in the clear, a file that everybody reads."""
        told = self.principal is not None and self.secret_file is not None
        if told and self._in_the_clear():
            yield Remark(
                path=("master",),
                text="the framework's secret, and every agent's, travel in the clear",
                hint="https:// masters, or `ca_file` with zk://",
            )
        if self.handover is not None and not _is_safe(self.handover.url):
            yield Remark(
                path=("handover", "url"),
                text="the agents' secrets travel in the clear",
                hint="cert_file and key_file, or a proxy with TLS in front of it",
            )
        if self.secret_file is not None and self.principal is None:
            yield Remark(path=("secret_file",), text="it is not used without `principal`")
        if self.secret_file is not None and _is_open(self.secret_file):
            yield Remark(
                path=("secret_file",),
                text="every user of this machine may read it",
                hint=f"chmod 600 {self.secret_file[:200]}",
            )

    def _in_the_clear(self) -> bool:
        if self.master.startswith("zk://"):
            return self.ca_file is None
        return not all(_is_safe(one) for one in self.master.split(","))


def _is_safe(url: str) -> bool:
    """Return whether nobody reads along: TLS, or a place on this machine."""
    parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    try:
        host = parts.hostname or ""
        return (
            parts.scheme == "https"
            or host == "localhost"
            or ipaddress.ip_address(host).is_loopback
        )
    except ValueError:
        return False


def _is_open(path: str) -> bool:
    try:
        return files.is_open_to_others(path)
    except OSError:
        return False  # that it cannot be read is said where it is read


@frozen(kw_only=True)
class Network:
    """How a task is connected. ``host``: as the agent's host."""

    mode: Literal["host", "bridge", "cni"] = setting.of("host: as the agent's host.", "host")
    name: str = setting.of("Of the CNI or Docker network.", "")
    ports: tuple[int, ...] = setting.of(
        "Ports in the container, each mapped to a port of the offer; `$PORT0` and so on "
        "tell which, and the page and `agent-broker describe NAME`.",
        (),
    )
    host_ports: tuple[str, ...] = setting.of(
        "Which ports of the Mesos agent those of `ports` may be, in their order: 31005, "
        "31000-31099 or 0 for any, as Marathon's hostPort. One that does not offer them is passed "
        "over.",
        (),
        like=re.compile(r"\d{1,5}(-\d{1,5})?"),
        words="PORT, FIRST-LAST or 0",
    )

    def __attrs_post_init__(self) -> None:
        """Check what the patterns cannot."""
        if len(self.host_ports) > len(self.ports):
            raise ValueError(
                f"host_ports: found {len(self.host_ports)}; allowed: one for each of `ports` at "
                f"most, {len(self.ports)}"
            )
        for port in self.ports:
            if not 0 < port <= _LAST_PORT:
                raise ValueError(f"ports: found {port}; allowed: 1 to {_LAST_PORT}")
        fixed = [low for low, high in self.ranges if low == high]
        for text, (low, high) in zip(self.host_ports, self.ranges, strict=True):
            if not 0 < low <= high <= _LAST_PORT:
                raise ValueError(
                    f"host_ports: found {quotes.shown(text)}; allowed: ports from 1 to "
                    f"{_LAST_PORT}, or 0"
                )
            if low == high and fixed.count(low) > 1:
                raise ValueError(f"host_ports: found {low} twice; allowed: each port once")

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First and last of the ports that may be taken, of as many of ``ports`` as are told."""
        found = []
        for text in self.host_ports:
            first, _, last = text.partition("-")
            low, high = int(first), int(last or first)
            found.append((1, _LAST_PORT) if (low, high) == (0, 0) else (low, high))
        return tuple(found)


@frozen(kw_only=True)
class Volume:
    """One volume: from the host, from a volume driver, in memory, or from the sandbox."""

    container_path: str = setting.of("Where it appears.")
    host_path: str | None = setting.of("A path of the agent's host.", None)
    read_only: bool = setting.of("Mount it read-only.", False)
    driver: str | None = setting.of(
        "A volume driver of Docker, such as rexray (EBS) or one for NFS.", None
    )
    driver_name: str | None = setting.of("Name of the volume, for the driver.", None)
    driver_options: Mapping[str, str] = setting.of("Options of the driver.", {})
    tmpfs_bytes: int | None = setting.of("In memory, of this size.", None)
    sandbox_path: str | None = setting.of(
        "A folder of the sandbox, which goes with the task.", None
    )

    def __attrs_post_init__(self) -> None:
        """Refuse a volume from nowhere, and one from two places."""
        given = (self.host_path, self.driver, self.tmpfs_bytes, self.sandbox_path)
        if sum(one is not None for one in given) != 1:
            raise ValueError(
                f"{quotes.shown(self.container_path)} needs one of host_path, driver, "
                "tmpfs_bytes, sandbox_path"
            )
        if self.driver is not None and not self.driver_name:
            raise ValueError(f"{quotes.shown(self.container_path)}: a driver needs driver_name")


@frozen(kw_only=True)
class Uri:
    """What the fetcher brings into the sandbox before the start, such as a Java archive."""

    value: str = setting.of("Its address.")
    extract: bool = setting.of("Unpack an archive.", True)
    executable: bool = setting.of("Make it executable.", False)
    cache: bool = setting.of("Let the agent's host keep it for the next task.", True)
    output_file: str | None = setting.of(
        "What it is called in the sandbox. None: as in its address.", None
    )


@frozen(kw_only=True)
class MesosTemplate:
    """Settings of one template on this backend. Cores and memory are the template's own."""

    default_cpus: float = setting.of(
        "Cores asked for where the template's `resources` say nothing.", 1.0, least=0.01, most=1024
    )
    default_memory_bytes: int = setting.of(
        "Memory asked for where they say nothing.", 1 << 30, least=32 << 20, most=1 << 42
    )
    disk_bytes: int = setting.of(
        "Bytes of disk, 0: not asked for. Agents without a disk isolator only count it.",
        0,
        least=0,
        most=1 << 50,
    )
    gpus: int = setting.of(
        "GPUs of each task; `gpus` of the backend has to be true.", 0, least=0, most=64
    )
    containerizer: Literal["mesos", "docker"] = setting.of(
        "Who runs containers with an image: Mesos itself or the Docker daemon of the agent.",
        "mesos",
    )
    force_pull: bool = setting.of(
        "Ask the registry for the image at each start, for a tag that moves. Off: what the "
        "agent's host has is taken.",
        False,
    )
    image_login_file: str | None = setting.of(
        "File of the broker's machine, a config.json of Docker with the login at the image's "
        "registry; read at each start and sent with the task (`containerizer: mesos`). For the "
        "Docker daemon: an archive with .docker/config.json in `uris`.",
        None,
        **setting.ABSOLUTE,
    )
    limits: bool = setting.of(
        "The hard limits of `resources` apart from what is reserved (needs Mesos 1.10 agents).",
        False,
    )
    ulimits: Mapping[str, int] = setting.of(
        "By name, as nofile or nproc: soft and hard limit alike. Needs the isolator "
        "posix/rlimits on the agents, or `containerizer: docker`.",
        {},
    )
    user: str | None = setting.of("Who the task runs as. None: the backend's.", None)
    network: Network = setting.of("How a task is connected.", Network())
    volumes: tuple[Volume, ...] = setting.of("Mounts.", ())
    uris: tuple[Uri, ...] = setting.of(
        "What the fetcher brings into the sandbox, such as a Java archive.", ()
    )
    constraints: tuple[offers.Constraint, ...] = setting.of(
        "On which Mesos agents, by their attributes.", ()
    )
    privileged: bool = setting.of("Every build is root on the agent's host.", False)
    docker_parameters: Mapping[str, str] = setting.of('Options of "docker run".', {})
    secrets: Literal["fetch", "volume", "environment"] | None = setting.of(
        'How the agent\'s secret reaches its task. "fetch", the default where the backend '
        "has a `handover`: Mesos' fetcher asks the broker for it, once. The other two have "
        'to be chosen, because others see it for a moment at each start. "volume": a secret '
        "volume (the Mesos agents need --launcher=linux and the isolators filesystem/linux "
        "and volume/secret): on the pages of master and agents, and in the agent's runtime "
        'directory. "environment": a variable: in the list of processes of the agent\'s '
        "host, and on the agents' pages.",
        None,
    )
    kill_grace_s: float = setting.of(
        "Seconds between SIGTERM and SIGKILL when the agent host or an operator ends the task.",
        10.0,
        least=0,
        most=3600,
    )
    max_completion_time_s: float | None = setting.of(
        "Seconds after which Mesos ends the task whatever happens. None: never.",
        None,
        least=60,
        most=31_536_000,
    )
    health_command: str | None = setting.of(
        "A shell command that has to answer 0; None: a living process is a healthy one.", None
    )
    raw: Mapping[str, Any] = setting.of(
        "Merged last into the TaskInfo of the v1 API: what nothing above can say.", {}
    )

    def __attrs_post_init__(self) -> None:
        """Refuse limits that Mesos has no word for, and such as are none."""
        for name, most in self.ulimits.items():
            if name not in _ULIMITS:
                known = ", ".join(sorted(_ULIMITS))
                raise ValueError(f"ulimits: found {quotes.shown(name)}; allowed: {known}")
            if most < 0:
                raise ValueError(f"ulimits: {name}: found {most}; allowed: 0 or more")

    def shares(self, common: Common) -> Iterator[workspaces.Shared]:
        """Yield where tasks of this template would work together: on one host, or in a volume."""
        mounts = list(self._mounts())
        if common.image is None and common.remote_fs is not None:  # it sees its host's files
            mounts.insert(0, workspaces.Mount(target="/", source="/"))
        for shared in workspaces.find(mounts, common.remote_fs or f"{_SANDBOX}/work"):
            yield workspaces.Shared(where=shared.where, path=shared.path or None)

    def _fixed_ports(self) -> Iterator[Remark]:
        """Say which ports of a Mesos agent only one of its tasks can have."""
        for number, (first, last) in enumerate(self.network.ranges):
            if first == last:
                yield Remark(
                    path=("network", "host_ports", number),
                    text="only one agent of each Mesos agent can have that port at a time",
                    hint="a range, or 0 for any that is offered",
                )

    def remarks(self, common: Common) -> Iterator[Remark]:
        """Say what is unwise about this template, and what others on the agent's host see."""
        handover = getattr(common.settings, "handover", None)
        if self.secrets in {None, "fetch"} and handover is None:
            yield Remark(
                path=("secrets",),
                text="no way for the agents' secrets to their tasks is chosen",
                hint="`handover` of the backend, or `secrets: volume` or `environment` with what "
                "the manual says of them",
                wrong=True,
            )
        if self.secrets == "environment":
            how_long = "while it runs" if self.containerizer == "docker" else "at each start"
            yield Remark(
                path=("secrets",),
                text="every user of the agent's host sees the agent's secret in the list of "
                f"processes {how_long}",
                hint="`handover` of the backend and `secrets: fetch`",
            )
        if self.secrets == "volume":
            yield Remark(
                path=("secrets",),
                text="whoever may read the pages of master and agents, and users of the agent's "
                "host at each start, see the agent's secret",
                hint="`handover` of the backend and `secrets: fetch`",
            )
        yield from self._fixed_ports()
        machine = "the agent's host"
        parameters = {key: text for key, text in self.docker_parameters.items() if text != "false"}
        if self.privileged or (self.containerizer == "docker" and "privileged" in parameters):
            path = ("privileged",) if self.privileged else ("docker_parameters", "privileged")
            yield Remark(path=path, text=perils.is_root(machine), hint=perils.HINT)
        for mount in self._mounts():
            text = perils.of_folder(mount.source, machine)
            if text is not None:
                yield Remark(path=mount.path, text=text, hint=perils.HINT)
            if mount.source is not None and names.is_own(mount.source) and not mount.read_only:
                yield Remark(
                    path=mount.path,
                    text="a place for each task that Mesos does not remove",
                    hint="sandbox_path goes with the task",
                )
        if common.image is None and common.remote_fs and names.is_own(common.remote_fs):
            yield Remark(
                path=(),
                text="remote_fs outside the sandbox: nobody removes it",
                hint="leave remote_fs out: each task works in its sandbox",
            )

    def _mounts(self) -> Iterator[workspaces.Mount]:
        raw = _section(self.raw.get("container"))
        for number, volume in enumerate(self.volumes if "volumes" not in raw else ()):
            source = _outside(volume.host_path)
            if volume.driver is not None:
                source = f"{volume.driver} {volume.driver_name}"
            yield _mount(
                volume.container_path,
                source,
                path=("volumes", number),
                read_only=volume.read_only,
            )
        told = raw.get("volumes")
        for volume in told if isinstance(told, list) else ():
            one = _section(volume)
            source = _outside(one.get("host_path"))
            if "source" in one and _section(one["source"]).get("type") != "SANDBOX_PATH":
                source = str(one["source"])
            yield _mount(
                str(one.get("container_path", "")),
                source,
                path=("raw",),
                read_only=one.get("mode") == "RO",
            )
        if self.containerizer == "docker":
            for key, text in self.docker_parameters.items():
                place, _, rest = text.partition(":")
                target, _, options = rest.partition(":")
                if key in {"volume", "v"} and target:
                    read_only = "ro" in options.split(",")
                    path = ("docker_parameters", key)
                    yield _mount(target, place, path=path, read_only=read_only)


def _mount(
    target: str, source: str | None, *, path: tuple[str | int, ...], read_only: bool
) -> workspaces.Mount:
    """Return a mount; what is not absolute lies in the sandbox, which is the task's own."""
    if not target.startswith("/"):
        target = f"{_SANDBOX}/{target}"
    return workspaces.Mount(target=target, source=source, path=path, read_only=read_only)


def _outside(path: Any) -> str | None:
    """Return a path of the host; None for one in the sandbox."""
    return path if isinstance(path, str) and path.startswith("/") else None


def _section(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _has_limits(one: honoured.Circumstances) -> bool:
    return one.options is not None and bool(one.options.limits)


UNHEARD = (
    honoured.Unheard(
        setting="resources.memory_reservation",
        why="`memory` is what is reserved, unless the two are told apart",
        unless="with `limits`, or without `memory`",
        heard=lambda one: _has_limits(one) or "resources.memory" not in one.told,
        hint="limits: true, for agents of Mesos 1.10 and later",
    ),
    honoured.Unheard(
        setting="resources.cpu_limit",
        why="`cpu_shares` is what is reserved, unless the two are told apart",
        unless="with `limits`, or without `cpu_shares`",
        heard=lambda one: _has_limits(one) or "resources.cpu_shares" not in one.told,
        hint="limits: true, for agents of Mesos 1.10 and later",
    ),
)
"""Of what a template says to every kind (``kit.honoured``)."""
