"""What a user may set for the Docker backend. No I/O, and no import of the SDK.

Every field says unit, default and the reason of the default. The values are checked here, so that
a wrong one is told when the configuration is read; ValueError names what is allowed.
"""

import contextlib
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from attrs import Attribute, evolve, frozen

from backends import api
from backends.docker.engine import reference
from backends.kit import misfits, names, perils, pipelines, published, setting, workspaces
from backends.kit.remarks import Common, Remark
from outside import quotes

_SIGNED = re.compile(r"[+-]?[A-Za-z_]+")
_USER = re.compile(r"[^\s:]+(:[^\s:]+)?")
_GROUP = re.compile(r"[^\s:]+")
_NAME = r"(\[[0-9A-Fa-f:.]+\]|[^\s/:@\[\]-][^\s/:@\[\]]*)"
_HOST = re.compile(
    rf"(unix:///\S+|tcp://{_NAME}:\d{{1,5}}(/[^\s@]*)?|https?://[^\s@]+"
    rf"|ssh://([^\s/:@-][^\s/:@]*@)?{_NAME}(:\d{{1,5}})?(/[^\s@?#]*)?)"
)
_VOLUME = re.compile(
    r"/.*|(?!([A-Za-z0-9]|\{slot\})\Z)([A-Za-z0-9]|\{(name|slot)\})"
    r"([A-Za-z0-9_.-]|\{(name|slot)\})*",
    re.DOTALL,
)
"""Two characters at least where it is none of an agent: a slot may have one."""
_API = re.compile(r"1\.\d{2}")
_CONFINED = re.compile(
    r"apparmor=\S+|label=(disable|(user|role|type|level):\S+)|seccomp=(unconfined|builtin)"
)
OPEN = "without TLS everybody who reaches that port, or is on the way to it, is root on that host"
POLICIES = ("if-missing", "always", "never")
_WORDS = {
    word.lower(): word
    for words in (
        "AutoRemove Binds CapAdd CapDrop Cmd CpuShares Devices Dns DnsSearch Entrypoint Env",
        "ExposedPorts ExtraHosts GroupAdd Healthcheck HostConfig Hostname Image Init Labels",
        "LogConfig Memory MemoryReservation MemorySwap Mounts NanoCpus NetworkMode",
        "NetworkingConfig PidsLimit PortBindings Privileged ReadonlyRootfs RestartPolicy",
        "SecurityOpt ShmSize Tmpfs Tty Ulimits User Volumes VolumesFrom WorkingDir",
    )
    for word in words.split()
}
"""Of the Engine's API, as far as somebody here looks at them."""
_KINDS = misfits.Kinds(
    texts="Hostname Image IpcMode NetworkMode PidMode User UsernsMode WorkingDir",
    lists="Binds CapAdd CapDrop Dns DnsSearch Env ExtraHosts GroupAdd SecurityOpt VolumesFrom",
    words="Cmd Entrypoint",
    sections="Labels Sysctls Tmpfs",
    numbers="CpuShares Memory MemoryReservation MemorySwap NanoCpus PidsLimit ShmSize",
    truths="AutoRemove Init Privileged ReadonlyRootfs Tty",
)
_MACHINE = "the engine's host"
_ALL = "every build of this template"
_SEES = f"{_ALL} sees"
_UNCONFINED = frozenset(
    {"apparmor=unconfined", "seccomp=unconfined", "label=disable", "label=type:spc_t"}
)
_OF_THE_HOST = {
    "IpcMode": "the shared memory",
    "NetworkMode": "the network, loopback too,",
    "PidMode": "the processes",
    "UsernsMode": "the users",
}


def _security(_: object, attribute: "Attribute[Any]", value: tuple[str, ...]) -> None:
    """Judge what confines a container; the engine would tell of it at each start."""
    for text in value:
        key, _, rest = text.partition("=")
        hint = ""
        if key == "seccomp" and rest not in {"unconfined", "builtin"}:
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(json.loads(rest), dict):
                    continue
            hint = "the engine reads no file: give the text of the profile"
        elif _CONFINED.fullmatch(text):
            continue
        elif text.startswith("no-new-privileges"):
            hint = "no_new_privileges is a setting of its own"
        raise ValueError(
            f"{attribute.name}: found {quotes.shown(text)}; allowed: apparmor=PROFILE, "
            "label=disable, label=type:TYPE (user, role, level), seccomp=unconfined, "
            f"seccomp={{...}}{'; hint: ' if hint else ''}{hint}"
        )


@frozen(kw_only=True)
class Host:
    """One engine."""

    url: str = setting.of(
        "unix:///PATH, tcp://HOST:PORT (2376 with TLS), or ssh://USER@HOST, which runs `ssh` and "
        "there `docker system dial-stdio`.",
        "unix:///var/run/docker.sock",
        like=_HOST,
        words="unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST",
        hint="npipe:// is of Windows and fd:// of systemd; no password in it: `cert_file`, or the "
        "keys of ssh, say who we are",
    )
    tls: bool = setting.of(
        "Speak TLS. Without it everybody on the way is root on that host.", False
    )
    ca_file: str | None = setting.of(
        "PEM file that signs the engine's certificate.", None, **setting.ABSOLUTE
    )
    cert_file: str | None = setting.of("Our certificate, PEM.", None, **setting.ABSOLUTE)
    key_file: str | None = setting.of("Its key, PEM.", None, **setting.ABSOLUTE)
    max_instances: int | None = setting.of(
        "Containers of ours on it at most; then the next host. Default: no limit.",
        None,
        least=0,
        most=100_000,
    )

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        try:
            _ = urllib.parse.urlsplit(self.url).port
        except ValueError as error:
            raise ValueError(f"url: found {quotes.shown(self.url)}: {error}") from None
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file: needs key_file, and the other way round")
        if self.tls and self.url.startswith(("unix:", "ssh:")):
            raise ValueError("tls: a unix socket and ssh have none; hint: tcp://HOST:2376")

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches it may use it."""
        return not self.tls and not self.url.startswith(("unix:", "https:", "ssh:"))


@frozen(kw_only=True)
class Registry:
    """How to log in at one registry. Exactly one of the two passwords."""

    user: str = setting.of("Who we are there.")
    password_file: str | None = setting.of(
        "File that holds the password, read at each pull.", None
    )
    password_env: str | None = setting.of("Variable of the broker that holds it.", None)

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if (self.password_file is None) == (self.password_env is None):
            raise ValueError("password_file: give either password_file or password_env")


@frozen(kw_only=True)
class Runtime:
    """A Java for images that have none. Exactly one of the three."""

    tar: str | None = setting.of(
        "The archive that `agent-broker runtime build` wrote, on the broker's machine. Each "
        "engine gets it once, as a volume that agents have read-only; another content is another "
        "volume, so running agents keep theirs.",
        None,
        **setting.ABSOLUTE,
    )
    folder: str | None = setting.of(
        "A folder of every engine's host with the tree in it (what is in `opt/agent` of the "
        "archive).",
        None,
        **setting.ABSOLUTE,
    )
    image: str | None = setting.of(
        "The image that `agent-broker runtime build --image` wrote, on every engine; mounted as "
        "it is, by engines from API 1.48 on.",
        None,
    )

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if [self.tar, self.folder, self.image].count(None) != 2:
            raise ValueError("tar: give exactly one of tar, folder and image")


@frozen(kw_only=True)
class DockerSettings:
    """Settings of the backend."""

    hosts: tuple[Host, ...] = setting.of(
        "Engines in order; one that fails or is full is passed over. Default: the one that "
        "`docker` itself would speak to: $DOCKER_HOST, $DOCKER_CONTEXT, its current context, the "
        "local socket.",
        (),
    )
    api_version: str | None = setting.of(
        "Version of the engine's API. Default: the newest that both sides know, 1.40 at least.",
        None,
        like=_API,
        words="a version like 1.41",
    )
    name_prefix: str = setting.of(
        "Container names begin with this, for people who look at `docker ps`.",
        "",
        like=re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,40})?"),
        words="letters, digits, '-', '_', '.'",
    )
    timeout_s: float = setting.of(
        "For one call. Creating and starting takes 0.3 s, on a busy host ten times that.",
        60.0,
        least=0.5,
        most=3600,
    )
    pull_timeout_s: float = setting.of(
        "For one image, 2 GB at 4 MB/s.", 600.0, least=1, most=86400
    )
    registries: dict[str, Registry] = setting.of(
        "Logins by registry, like registry.example:5000; docker.io for the public one.", {}
    )
    docker_config: str | None = setting.of(
        "Directory with a config.json for all other registries, credential helpers included, and "
        "the contexts. "
        "Default: $DOCKER_CONFIG or ~/.docker, as docker itself, which asks "
        "$DOCKER_AUTH_CONFIG first.",
        None,
        **setting.ABSOLUTE,
    )
    runtimes: dict[str, Runtime] = setting.of(
        "What `inject` of a template brings into images without Java, by name; `default` is that "
        "of `inject: true`.",
        {},
    )

    def remarks(self) -> Iterator[Remark]:
        """Say which doors are open."""
        for number, host in enumerate(self.hosts):
            if host.is_open:
                yield Remark(
                    path=("hosts", number, "url"),
                    text=OPEN,
                    hint="tls: true with cert_file and key_file, or a unix socket",
                )


@frozen(kw_only=True)
class Volume:
    """A mount: a named volume, a directory of the host, or a tmpfs (``name`` tells)."""

    name: str | None = setting.of(
        "A named volume, or a path of the host; with `{name}` in it each agent has its own, made "
        "for `user` before the start and removed with the agent; with `{slot}` in it it stays, "
        "and one agent at a time has it. Default: anonymous, removed with the agent.",
        None,
    )
    target: str = setting.of(
        "Where it appears in the container.", **setting.ABSOLUTE, converter=workspaces.plain
    )
    read_only: bool = setting.of("Mount it read-only.", False)
    writable_by_user: bool = setting.of(
        "Give the volume's root directory to `user`. For caches that agents share: only within "
        "one trust domain, agents can plant code for each other.",
        False,
    )
    driver: str | None = setting.of("Volume driver, for a named volume. Default: local.", None)
    driver_options: dict[str, str] = setting.of("Options of the driver.", {})
    max_age_s: float | None = setting.of(
        "For a volume with `{slot}` in its name: once it was made longer ago than this, the next "
        "agent gets a new and empty one in its place. Default: it stays.",
        None,
        least=60,
        most=10 * 365 * 86_400,
        **setting.NO_REVISION,
    )
    max_size_bytes: int | None = setting.of(
        "The same, of the local driver: once its files are larger. Engines are asked for sizes "
        "seldom, so one that grows may be an hour, and one agent, late. Default: any size.",
        None,
        least=1 << 20,
        most=1 << 50,
        **setting.NO_REVISION,
    )
    tmpfs_bytes: int | None = setting.of(
        "Makes it a tmpfs of that size, counted as memory of the agent.",
        None,
        least=4096,
        most=1 << 44,
    )

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if self.tmpfs_bytes is not None and (self.name or self.driver):
            raise ValueError("tmpfs_bytes: a tmpfs has neither name nor driver")
        if self.name is not None and not _VOLUME.fullmatch(self.name):
            raise ValueError(
                f"name: found {quotes.shown(self.name)}; allowed: letters, digits, '-', '_', "
                "'.', two of them at least, or a path that begins with '/'"
            )
        if self.name is not None and self.name.startswith("/") and self.driver:
            raise ValueError("driver: a directory of the host has none")
        if self.is_own and ":" in f"{self.name}{self.target}":
            raise ValueError("name: a place with {name} in it has no ':'")

    @property
    def is_own(self) -> bool:
        """Whether each agent has another one, by its name."""
        return self.name is not None and names.is_own(self.name)

    @property
    def is_given(self) -> bool:
        """Whether its root directory is given to the agent's user."""
        return self.writable_by_user or (self.is_own and not self.read_only)


SEALED_HANDS_ON = (
    "with a read-only root the agent's secret lies in a volume, and builds that have the engine's "
    "socket hand all volumes on by --volumes-from"
)


@frozen(kw_only=True)
class DockerTemplate:
    """Settings of one template on this backend. Memory and CPU are the template's `resources`."""

    pull: str = setting.of(
        "if-missing, always (a tag that moves) or never.", "if-missing", choices=POLICIES
    )
    platform: str | None = setting.of("Like linux/arm64, where an image has several.", None)
    user: str | None = setting.of(
        "UID[:GID] or names of the image; image: whom the image says. 1000 is `jenkins` in the "
        "official images, and nobody's root. The group of a bare number is the same number: that "
        "of an image that does not know it would be root's.",
        "1000",
        like=_USER,
        words="USER or USER:GROUP",
        word="image",
    )
    groups: tuple[str, ...] = setting.of(
        "More groups, such as that of a shared volume.",
        (),
        like=_GROUP,
        words="a number, or a group's name in the image",
    )
    memory_swap_bytes: int | None = setting.of(
        "Memory and swap together. Default: no swap where memory is limited; an agent that swaps "
        "is worse than one that is ended.",
        None,
        least=1,
        most=1 << 50,
    )
    pids: int | None = setting.of(
        "Processes and threads at most: a fork bomb must not take the host. The same again for an "
        "engine beside the agent with all its containers. null: no limit.",
        8192,
        least=16,
        most=4_194_304,
    )
    ulimits: dict[str, int] = setting.of(
        "By name. Engines start containers with a billion open files, which makes some programs "
        "close them one by one for minutes; more than the engine itself has is often refused.",
        {"nofile": 16384},
    )
    shm_bytes: int | None = setting.of(
        "Size of /dev/shm; browsers in tests want 1Gi. Default: the engine's, 64Mi.",
        None,
        least=4096,
        most=1 << 44,
    )
    network: str | None = setting.of(
        "Network, or host, none, bridge. Default: the engine's.", None
    )
    networks: tuple[str, ...] = setting.of("More networks, joined before the start.", ())
    aliases: tuple[str, ...] = setting.of("More names on networks of one's own.", ())
    dns: tuple[str, ...] = setting.of("Name servers. Default: the engine's.", ())
    dns_search: tuple[str, ...] = setting.of("Search domains.", ())
    extra_hosts: tuple[str, ...] = setting.of("Lines NAME:ADDRESS; host-gateway is the host.", ())
    ports: tuple[str, ...] = setting.of(
        "Published ports: 8080 (a random port of the host), 18080:8080, 53/udp, 8000-8010:8080 "
        "(the first free one), 9000-9003 (each), 127.0.0.1::8080 or [::1]:18080:8080 (of one "
        "address). What was bound is on the page and in `agent-broker describe NAME`. A fixed "
        "port has one agent of each host; the next one waits, or goes elsewhere.",
        (),
        like=published.PATTERN,
        words=published.WORDS,
    )
    volumes: tuple[Volume, ...] = setting.of("Mounts.", ())
    docker_socket: bool = setting.of(
        "Mount the engine's own socket as /var/run/docker.sock, for Docker in pipelines, with the "
        "group that may use it where the broker sees the socket. Every build is root on the host.",
        False,
    )
    devices: tuple[str, ...] = setting.of("Devices of the host, HOST[:CONTAINER[:rwm]].", ())
    init: bool = setting.of("Reap zombies and pass signals on (tini).", True)
    no_new_privileges: bool = setting.of("setuid programs such as sudo do not work.", True)
    security_opt: tuple[str, ...] = setting.of(
        "What confines the container, in the engine's words: apparmor=PROFILE (loaded on its "
        "host), label=type:TYPE and the like for SELinux, seccomp={...} with the text of a "
        "profile. Default: the engine's own profiles.",
        (),
        check=_security,
    )
    read_only_root: bool = setting.of(
        "The image's own files cannot be changed. `/tmp` is a tmpfs then (counted as memory of "
        "the agent), and its work directory a volume that goes with it, unless `volumes` has "
        "something there. What builds write to elsewhere, as to a home, needs a volume.",
        False,
    )
    cap_drop: tuple[str, ...] = setting.of(
        "Capabilities taken away; a build as an ordinary user needs none.", ("ALL",)
    )
    cap_add: tuple[str, ...] = setting.of("Capabilities given back.", ())
    entry_point: tuple[str, ...] | None = setting.of("In place of the image's entry point.", None)
    labels: dict[str, str] = setting.of("Labels of the container.", {})
    log_driver: str | None = setting.of(
        "Log driver; must be one that can be read back for the reason of a death.", "json-file"
    )
    log_options: dict[str, str] = setting.of(
        "An agent that talks must not fill the host's disk.", {"max-size": "1m", "max-file": "2"}
    )
    docker: dict[str, Any] = setting.of(
        "Merged last into what the engine is sent (POST /containers/create).", {}
    )

    def __attrs_post_init__(self) -> None:
        """Check what the patterns cannot."""
        twice = published.clash(self.ports)
        if twice:
            raise ValueError(
                f"ports: found {quotes.shown(twice)}: an entry before it has that port of the host"
            )
        for name in (*self.cap_add, *self.cap_drop):
            if not _SIGNED.fullmatch(name):
                raise ValueError(
                    f"cap_add: found {quotes.shown(name)}; allowed: names like NET_ADMIN"
                )

    def with_pipelines(
        self, pipelines_told: api.DockerPipelines | None, folder: str
    ) -> "DockerTemplate":
        """Return the same with what an engine for the builds needs in the agent's container.

        ``folder``: where it works, with ``names.TOKEN`` in it for the engine's socket.
        """
        if pipelines_told is None:
            return self
        if pipelines_told.mode == "socket":
            volumes = [Volume(name=folder, target=folder)]
        else:
            volumes = [
                Volume(name=f"{names.TOKEN}-work", target=folder),
                Volume(name=f"{names.TOKEN}-engine", target=pipelines.ENGINE),
            ]
        targets = {volume.target for volume in self.volumes}
        more = tuple(volume for volume in volumes if volume.target not in targets)
        return evolve(
            self,
            volumes=(*self.volumes, *more),
            docker_socket=self.docker_socket or pipelines_told.mode == "socket",
        )

    def shares(self, common: Common) -> Iterator[workspaces.Shared]:
        """Yield where agents of this template would work together."""
        from backends.docker.containers import container  # noqa: PLC0415 -- it is made of these settings

        folder = common.remote_fs or container.WORK
        mounts = container.mounts_of(self.with_pipelines(common.pipelines, folder))
        yield from workspaces.find(mounts, folder)
        host = self.docker.get("HostConfig")
        told = host.get("VolumesFrom") if isinstance(host, dict) else None
        for number, source in enumerate(told if isinstance(told, list) else ()):
            if not str(source).endswith(":ro"):  # whatever it has mounted, and wherever
                yield workspaces.Shared(
                    where=f"the volumes of {source}",
                    path=("docker", "HostConfig", "VolumesFrom", number),
                )

    @property
    def has_own_network(self) -> bool:
        """Whether the loopback address is the container's own."""
        raw = self.docker.get("HostConfig")
        told = raw.get("NetworkMode") if isinstance(raw, dict) else None
        mode = str(told or self.network or "")
        return mode != "host" and not mode.startswith("container:")

    def remarks(self, common: Common) -> Iterator[Remark]:
        """Say what cannot be right about this template, and what is dangerous."""
        from backends.docker.containers import container  # noqa: PLC0415 -- it is made of these settings

        folder = common.remote_fs or container.WORK
        whole = self.with_pipelines(common.pipelines, folder)
        for remark in whole._of_container(common):  # noqa: SLF001 -- of this class
            if common.pipelines is None or not self._is_brought(remark):
                yield remark
            elif remark.text != perils.is_root(_MACHINE):  # that is acknowledged
                yield evolve(remark, path=("docker_pipelines",), common=True, wrong=True)
        for number, volume in enumerate(self.volumes if common.pipelines is not None else ()):
            if volume.target == folder and volume.name != folder:
                yield Remark(
                    path=("volumes", number, "name"),
                    text="with docker_pipelines the engine mounts what lies at the same path on "
                    "its host",
                    hint="leave the volume out: the folder is made for each agent",
                    wrong=True,
                )

    def _is_brought(self, remark: Remark) -> bool:
        """Tell whether it is about what ``with_pipelines`` brings."""
        if remark.common or not remark.path:
            return False
        if remark.path[0] == "docker_socket":
            return not self.docker_socket
        if remark.path[0] == "volumes" and len(remark.path) > 1:
            return int(remark.path[1]) >= len(self.volumes)
        return False

    def _of_container(self, common: Common) -> Iterator[Remark]:
        """Say what cannot be right about a container, and what is dangerous in it."""
        number = re.fullmatch(r"\d+(:.*)?", self.user or "")
        for place, volume in enumerate(self.volumes):
            on_host = volume.is_own and (volume.name or "").startswith("/")
            if on_host and not volume.read_only and number is None:
                yield Remark(
                    path=("volumes", place, "name"),
                    text="a folder of the host that is made for each agent is given to its user, "
                    "and who that is only the image knows",
                    hint='user: a number, such as "1000"',
                    wrong=True,
                )
        yield from cache_remarks(self.volumes)
        yield from self._of_slots()
        yield from _perils(self)
        if not common.alone and len(getattr(common.settings, "hosts", ())) <= 1:
            yield from self._port_remarks()
        problem = reference.problem(common.image) if common.image else None
        if problem is not None:
            yield Remark(path=("image",), common=True, text=problem, wrong=True)
        yield from self._raw_remarks()
        hosts = getattr(common.settings, "hosts", ())
        unseen = [one.url for one in hosts if not one.url.startswith("unix:")]
        if self.docker_socket and unseen and not self.groups and number is not None:
            yield Remark(
                path=("docker_socket",),
                text=f"which group may use the socket of {unseen[0][:80]} is not seen from here",
                hint="`groups`: its number there (stat -c %g /var/run/docker.sock)",
            )
        if "Env" in self.docker:
            yield Remark(
                path=("docker", "Env"),
                text="replaces what the broker tells the agent",
                hint="environment",
                wrong=True,
            )

    def _of_slots(self) -> Iterator[Remark]:
        """Say of which caches the agent's user could only read what is there: nothing."""
        if re.fullmatch(r"(0|root|image)(:.*)?", self.user or "image"):
            return
        for number, volume in enumerate(self.volumes):
            is_made = volume.driver is None and not volume.driver_options
            if (
                is_made
                and not (volume.is_given or volume.read_only)
                and names.has_slot(volume.name)
            ):
                yield Remark(
                    path=("volumes", number),
                    text="a new volume belongs to root unless the image has that folder: the "
                    "agent could not write into its cache",
                    hint="writable_by_user: true",
                )

    def _port_remarks(self) -> Iterator[Remark]:
        """Say which ports of the host only one agent at a time can have."""
        for number, text in enumerate(self.ports):
            if any(one.is_fixed for one in published.read(text)):
                yield Remark(
                    path=("ports", number),
                    text="only one agent of a host can have a fixed port; the next one waits for "
                    "its end",
                    hint="8080 for any free port, a range such as 18080-18089:8080, or cap: 1",
                )

    def _raw_remarks(self) -> Iterator[Remark]:
        """Say what of the raw section would hide how agents end, or is not looked at here.

        Engines read their words in upper and lower case alike.
        """
        yield from _KINDS.remarks(self.docker, ("docker",))
        told = self.docker.get("HostConfig")
        host = told if isinstance(told, dict) else {}
        inner = [("docker", "HostConfig", str(key)) for key in host]
        for path in (*(("docker", str(key)) for key in self.docker), *inner):
            word = _WORDS.get(path[-1].lower(), path[-1])
            if path[-1] != word:
                yield Remark(path=path, text="is spelled differently", hint=word, wrong=True)
        if host.get("AutoRemove"):
            yield Remark(
                path=("docker", "HostConfig", "AutoRemove"),
                text="the engine would remove a dead agent with its exit code and last words; "
                "the broker removes it when it has read them",
                hint="leave it out",
                wrong=True,
            )
        policy = host.get("RestartPolicy")
        if policy and not (isinstance(policy, dict) and policy.get("Name") in {None, "", "no"}):
            yield Remark(
                path=("docker", "HostConfig", "RestartPolicy"),
                text="the engine would start a dead agent again, which its controller refuses: "
                "the broker starts another one",
                hint="leave it out",
                wrong=True,
            )


class BoundedVolume(Protocol):
    """A mount of a template, whose age or size may be bounded."""

    @property
    def name(self) -> str | None:
        """Of a volume, or a path of the machine."""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written there."""

    @property
    def driver(self) -> str | None:
        """Of the volume; None: local."""

    @property
    def driver_options(self) -> Mapping[str, str]:
        """For the driver."""

    @property
    def max_age_s(self) -> float | None:
        """Until it is made anew; None: it stays."""

    @property
    def max_size_bytes(self) -> int | None:
        """The same of its size."""


def cache_remarks(volumes: Sequence[BoundedVolume]) -> Iterator[Remark]:
    """Say which bounds of a cache cannot be kept."""
    for number, volume in enumerate(volumes):
        for key, value in (("max_age", volume.max_age_s), ("max_size", volume.max_size_bytes)):
            problem = None if value is None else _unbounded(volume, key)
            if problem is not None:
                text, hint = problem
                yield Remark(path=("volumes", number, key), text=text, hint=hint, wrong=True)


def _unbounded(volume: BoundedVolume, key: str) -> tuple[str, str] | None:
    """Return why the age or size of a volume cannot be bounded, and a hint; None: it can."""
    name = volume.name or ""
    problems = (
        (
            not name or name.startswith("/"),
            "only a named volume can be made anew",
            f"name: a volume such as x-{names.SLOT}",
        ),
        (
            names.is_own(name),
            "a volume of one agent goes with it, whatever its age and size",
            f"leave {key} out",
        ),
        (
            not names.has_slot(name),
            "others may have this volume when an agent starts, so it cannot be made anew then",
            f"put {names.SLOT} into its name: then one agent at a time has it",
        ),
        (
            volume.read_only,
            "whoever fills a volume that agents only read would lose what is in it",
            f"leave {key} out, or read_only",
        ),
        (
            bool(volume.driver_options.get("device")),
            "what lies behind `device` stays when the volume is removed",
            f"leave {key} out, and clean up where the files are",
        ),
        (
            key == "max_size" and volume.driver not in {None, "local"},
            "engines know the sizes of volumes of the local driver alone",
            "max_age",
        ),
    )
    return next(((text, hint) for holds, text, hint in problems if holds), None)


def _perils(template: DockerTemplate) -> Iterator[Remark]:
    """Say what gives builds the engine, its host, or a way to become root."""
    from backends.docker.containers import container  # noqa: PLC0415 -- it is made of these settings

    raw = template.docker.get("HostConfig")
    host = raw if isinstance(raw, dict) else {}
    places: list[tuple[tuple[str | int, ...], str | None]] = [
        (mount.path, perils.of_folder(mount.source, _MACHINE))
        for mount in container.mounts_of(template)
    ]
    places += [(("docker", "HostConfig", key), text) for key, text in _raw_perils(host)]
    places.append((("cap_add",), perils.of_capabilities(template.cap_add, _MACHINE)))
    if template.network == "host" and "NetworkMode" not in host:
        places.append((("network",), f"{_SEES} {_OF_THE_HOST['NetworkMode']} of {_MACHINE}"))
    if template.devices:
        places.append((("devices",), f"every build of this template has devices of {_MACHINE}"))
    if any(text in _UNCONFINED for text in template.security_opt):
        places.append((("security_opt",), f"{_ALL} runs without the engine's confinement"))
    if not template.no_new_privileges:
        text = "every build of this template can become root in its container"
        places.append((("no_new_privileges",), text))
    if "ALL" not in {name.upper() for name in template.cap_drop}:
        text = "whoever is root in the container keeps the engine's own capabilities"
        places.append((("cap_drop",), text))
    for path, words in places:
        if words is not None:
            yield Remark(path=path, text=words, hint=perils.HINT)
    if any(perils.has_socket(mount.source) for mount in container.mounts_of(template)):
        yield from _handed_on(template, host)


def _handed_on(template: DockerTemplate, host: Mapping[str, Any]) -> Iterator[Remark]:
    """Say what would put the secret among the mounts of an agent whose builds have the engine."""
    raw = host.get("ReadonlyRootfs")
    if template.read_only_root if raw is None else raw is True:
        yield Remark(
            path=("read_only_root",)
            if raw is None
            else ("docker", "HostConfig", "ReadonlyRootfs"),
            text=SEALED_HANDS_ON,
            hint="leave it out: whoever commands the engine can change any file of the host",
            wrong=True,
        )


def _raw_perils(host: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield what a raw HostConfig opens, by its setting; of a wrong type the engine complains."""
    if host.get("Privileged") is True:
        yield "Privileged", perils.is_root(_MACHINE)
    added, options = host.get("CapAdd"), host.get("SecurityOpt")
    if isinstance(added, list):
        yield "CapAdd", perils.of_capabilities(map(str, added), _MACHINE)
    for key, what in _OF_THE_HOST.items():
        if host.get(key) == "host":
            yield key, f"{_SEES} {what} of {_MACHINE}"
    if host.get("Devices"):
        yield "Devices", f"every build of this template has devices of {_MACHINE}"
    if isinstance(options, list) and any("unconfined" in str(one) for one in options):
        yield "SecurityOpt", "every build of this template runs without the engine's confinement"
