"""What a user may set for the swarm backend. No I/O, and no import of the SDK.

Every field says unit, default and the reason of the default. What a swarm cannot do has no field:
a template that asks for it is refused when the configuration is read.
"""

import re
from collections.abc import Iterator
from typing import Any

from attrs import frozen

from backends.docker import settings as docker
from backends.docker.engine import bodies, reference
from backends.kit import misfits, names, perils, published, setting, workspaces
from backends.kit.remarks import Common, Remark
from outside import quotes

_USER = re.compile(r"[^\s:]+(:[^\s:]+)?")
_GROUP = re.compile(r"[^\s:]+")
_VOLUME = re.compile(
    r"/.*|(?!([A-Za-z0-9]|\{slot\})\Z)([A-Za-z0-9]|\{slot\})([A-Za-z0-9_.-]|\{slot\})*", re.DOTALL
)
_CONSTRAINT = re.compile(r"(node|engine)\.[A-Za-z0-9_.-]{1,56} ?[!=]= ?\S.*")
_SPREAD = re.compile(r"(node|engine)\.labels\.\S+")
_PLATFORM = re.compile(r"[a-z0-9]+(/[a-z0-9_]+)?")
_MODE = re.compile(r"0?[0-7]{3}")
_API = re.compile(r"1\.\d{2}")
_MACHINE = "the node"
SOCKET = "/var/run/docker.sock"
"""Where an agent with the engine of its node has its socket."""
FOLDER = f"/var/lib/docker/volumes/{names.TOKEN}-work/_data"
"""Where such an agent works, unless the template says ``remote_fs``."""
FOLDER_HINT = (
    f"leave remote_fs out for {FOLDER}; where `docker info` says another Docker Root Dir, that "
    "one in place of /var/lib/docker"
)
ROOTS = "the folder that a node's engine makes for an agent is that of root alone"
_KINDS = misfits.Kinds(
    texts="Image Target Hostname User Dir StopSignal",
    lists="Command Args Env Groups CapabilityAdd CapabilityDrop Hosts Constraints",
    sections="Labels Sysctls",
    numbers="NanoCPUs MemoryBytes Pids StopGracePeriod",
    truths="Disable Init NoNewPrivileges ReadOnly TTY",
)
_NOT_OURS = {
    "RestartPolicy": "the swarm would start a dead agent again, which its controller refuses",
    "Secrets": "replaces the agent's own secret; `secrets` takes more of them",
}


@frozen(kw_only=True)
class SwarmRuntime:
    """A Java for images that have none. Exactly one of image, tar and folder."""

    image: str | None = setting.of(
        "The image that `agent-broker runtime build --image` wrote, in a registry that the nodes "
        "reach or on all of them. A job of the swarm puts its content into a volume of each node.",
        None,
    )
    resolve: str = setting.of(
        "What the nodes are told for `image`, and how another content is noticed: digest (a "
        "manager asks the registry) or id (of the image on the manager; nodes must have it).",
        "digest",
        choices=("digest", "id"),
    )
    tar: str | None = setting.of(
        "The archive that `agent-broker runtime build` wrote, on the broker's machine. It comes "
        "into a volume of each node whose engine is one of `managers` and `engines`; agents are "
        "kept from all others.",
        None,
        **setting.ABSOLUTE,
    )
    folder: str | None = setting.of(
        "A folder of every node that agents may go to, with the tree in it: what is in "
        "`opt/agent` of the archive.",
        None,
        **setting.ABSOLUTE,
    )
    constraints: tuple[str, ...] = setting.of(
        "Which nodes `image` comes to, like node.role==worker; agents are kept from all others. "
        "Default: all.",
        (),
        like=_CONSTRAINT,
        words="node.KEY==VALUE, engine.labels.NAME!=VALUE and the like",
    )

    @property
    def is_volume(self) -> bool:
        """Whether agents have it as a volume of their node, which has to be filled first."""
        return self.folder is None

    def __attrs_post_init__(self) -> None:
        """Check the fields against each other."""
        if [self.image, self.tar, self.folder].count(None) != 2:
            raise ValueError("image: give exactly one of image, tar and folder")
        if self.constraints and self.image is None:
            raise ValueError("constraints: they say which nodes an image comes to; hint: `image`")
        if self.image is not None and (problem := reference.problem(self.image)) is not None:
            raise ValueError(f"image: {problem}")


@frozen(kw_only=True)
class SwarmSettings:
    """Settings of the backend."""

    managers: tuple[docker.Host, ...] = setting.of(
        "Managers of one swarm, in order; one that fails is passed over. A worker cannot be "
        "asked.",
        (docker.Host(),),
    )
    engines: tuple[docker.Host, ...] = setting.of(
        "Engines of nodes that can be reached, to ask them of what a container died: a manager "
        "cannot tell memory from a kill. The managers are asked in any case.",
        (),
    )
    api_version: str | None = setting.of(
        "Version of the engine's API. Default: the newest that both sides know, 1.41 at least.",
        None,
        like=_API,
        words="a version like 1.41",
    )
    name_prefix: str = setting.of(
        "Service names begin with this, for people who look at `docker service ls`.",
        "",
        like=re.compile(r"([a-z0-9][a-z0-9_-]{0,20})?"),
        words="lower-case letters, digits, '-', '_'",
    )
    timeout_s: float = setting.of(
        "For one call. Without a quorum a manager answers after 12 to 20 s only.",
        30.0,
        least=0.5,
        most=3600,
    )
    look_s: float = setting.of(
        "How often tasks are looked at: a swarm has no events for them. 100 tasks cost 2 ms.",
        1.0,
        least=0.1,
        most=60,
    )
    resolved_s: float = setting.of(
        "How long it is remembered what a tag stands for.", 300.0, least=0, most=86400
    )
    registries: dict[str, docker.Registry] = setting.of(
        "Logins by registry, like registry.example:5000; docker.io for the public one. The "
        "managers hand them to the nodes.",
        {},
    )
    docker_config: str | None = setting.of(
        "Directory with a config.json for all other registries. Default: $DOCKER_CONFIG or "
        "~/.docker.",
        None,
        **setting.ABSOLUTE,
    )

    runtimes: dict[str, SwarmRuntime] = setting.of(
        "What `inject` of a template brings into images without Java, by name; `default` is that "
        "of `inject: true`.",
        {},
    )

    @property
    def pull_timeout_s(self) -> float:
        """For one image, seconds: nodes pull, the broker does not."""
        return self.timeout_s

    def __attrs_post_init__(self) -> None:
        """Check what the patterns cannot."""
        if not self.managers:
            raise ValueError("managers: found none; allowed: one manager of the swarm or more")
        for host in (*self.managers, *self.engines):
            if host.max_instances is not None:
                raise ValueError(
                    "managers: max_instances is of single engines; hint: `cap` of the backend, or "
                    "reservations, which the swarm's scheduler keeps"
                )

    def remarks(self) -> Iterator[Remark]:
        """Say which doors are open."""
        for name, hosts in (("managers", self.managers), ("engines", self.engines)):
            for number, host in enumerate(hosts):
                if host.is_open:
                    yield Remark(
                        path=(name, number, "url"),
                        text=docker.OPEN,
                        hint="tls: true with cert_file and key_file, or a unix socket",
                    )


@frozen(kw_only=True)
class Volume:
    """A mount: a volume of the node, a directory of it, or a tmpfs."""

    name: str | None = setting.of(
        "A volume, made on whatever node the agent comes to, or a path of the node, which must "
        "be there. With `{slot}` in it one agent at a time has it. Default: anonymous, removed "
        "with the agent.",
        None,
        like=_VOLUME,
        words="letters, digits, '-', '_', '.', two at least, or a path that begins with '/'",
        hint="a swarm removes no volume of one agent: leave the name out for one of its own, or "
        "{slot} for one that is the next agent's",
    )
    target: str = setting.of(
        "Where it appears in the container.", **setting.ABSOLUTE, converter=workspaces.plain
    )
    read_only: bool = setting.of("Mount it read-only.", False)
    driver: str | None = setting.of("Volume driver. Default: local.", None)
    driver_options: dict[str, str] = setting.of("Options of the driver.", {})
    max_age_s: float | None = setting.of(
        "For a volume with `{slot}` in its name: one that was made longer ago than this is "
        "removed before the next agent comes, on each node whose engine is among `managers` and "
        "`engines`. Default: it stays.",
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
        if self.name is not None and self.name.startswith("/") and self.driver:
            raise ValueError("driver: a directory of the node has none")


@frozen(kw_only=True)
class Config:
    """A configuration of the swarm (`docker config`) as a file of the agent."""

    name: str = setting.of("Its name in the swarm; it must be there.")
    target: str = setting.of("Where it appears in the container.", **setting.ABSOLUTE)
    mode: str = setting.of("Its rights, octal.", "0444", like=_MODE, words="a mode like 0444")


@frozen(kw_only=True)
class LentSecret:
    """A secret of the swarm (`docker secret`) as a file of the agent."""

    name: str = setting.of("Its name in the swarm; it must be there.")
    target: str = setting.of("Where it appears in the container.", **setting.ABSOLUTE)
    mode: str = setting.of("Its rights, octal.", "0400", like=_MODE, words="a mode like 0400")


@frozen(kw_only=True)
class SwarmTemplate:
    """Settings of one template on this backend.

    Of the template's `resources` limits are enforced, and what is reserved (memory, `cpu_shares`
    as cores) the scheduler keeps free.
    """

    resolve: str = setting.of(
        "What the nodes are told for `image`: digest (the registry is asked by a manager what a "
        "tag stands for; the nodes pull it once), id (of the image on the manager; nodes must "
        "have it), tag (every node asks the registry at every start: three times slower, 20 s "
        "where it is away).",
        "digest",
        choices=("digest", "id", "tag"),
    )
    user: str | None = setting.of(
        "UID[:GID] or names of the image; image: whom the image says. 1000 is `jenkins` in the "
        "official images. Only a number keeps the secret from other users of the container.",
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
    pids: int | None = setting.of(
        "Processes and threads at most: a fork bomb must not take the node. null: no limit.",
        8192,
        least=16,
        most=4_194_304,
    )
    ulimits: dict[str, int] = setting.of("By name.", {"nofile": 16384})
    constraints: tuple[str, ...] = setting.of(
        "Which nodes, like node.role==worker or node.labels.pool==agents.",
        (),
        like=_CONSTRAINT,
        words="node.KEY==VALUE, engine.labels.NAME!=VALUE and the like",
    )
    spread: tuple[str, ...] = setting.of(
        "Spread agents over the values of these labels of nodes, like node.labels.rack.",
        (),
        like=_SPREAD,
        words="node.labels.NAME or engine.labels.NAME",
    )
    platforms: tuple[str, ...] = setting.of(
        "Nodes of these platforms alone, like linux/amd64.",
        (),
        like=_PLATFORM,
        words="OS or OS/ARCHITECTURE",
    )
    networks: tuple[str, ...] = setting.of(
        "Networks: overlay, host, bridge. Default: the bridge of the node.", ()
    )
    aliases: tuple[str, ...] = setting.of("More names on overlay networks.", ())
    dns: tuple[str, ...] = setting.of("Name servers. Default: the node's.", ())
    dns_search: tuple[str, ...] = setting.of("Search domains.", ())
    extra_hosts: tuple[str, ...] = setting.of("Lines NAME:ADDRESS.", ())
    ports: tuple[str, ...] = setting.of(
        "Published ports: 8080 (a random one), 18080:8080, 53/udp, 9000-9003 (each), "
        "19000-19003:9000-9003 (one by one). What was bound is on the page and in `agent-broker "
        "describe NAME`. Of a fixed port the next agent waits until it is free.",
        (),
        like=published.PATTERN,
        words=published.WORDS,
    )
    publish_mode: str = setting.of(
        "host: on the node of the agent, random ports from those of its kernel. ingress: the same "
        "port on every node of the swarm, random ones from 30000 on; needs IPVS.",
        "host",
        choices=("host", "ingress"),
    )
    volumes: tuple[Volume, ...] = setting.of("Mounts.", ())
    configs: tuple[Config, ...] = setting.of("Configurations of the swarm, as files.", ())
    secrets: tuple[LentSecret, ...] = setting.of(
        "Secrets of the swarm, as files in memory: every build of the template can read them.", ()
    )
    init: bool = setting.of("Reap zombies and pass signals on (tini).", True)
    no_new_privileges: bool = setting.of(
        "setuid programs such as sudo do not work. Of swarms from API 1.44 on (Docker 25): "
        "managers before it leave it out without a word.",
        True,
    )
    read_only_root: bool = setting.of(
        "The image's own files cannot be changed. `/tmp` and the work directory are volumes then "
        "that go with the agent, as the image has them, unless `volumes` has something there.",
        False,
    )
    cap_drop: tuple[str, ...] = setting.of(
        "Capabilities taken away; a build as an ordinary user needs none.", ("ALL",)
    )
    cap_add: tuple[str, ...] = setting.of("Capabilities given back.", ())
    entry_point: tuple[str, ...] | None = setting.of("In place of the image's entry point.", None)
    labels: dict[str, str] = setting.of("Labels of service and container.", {})
    grace_s: float = setting.of(
        "Between SIGTERM and SIGKILL. A swarm wants to know it when the agent is made.",
        10.0,
        least=0,
        most=3600,
    )
    log_driver: str | None = setting.of(
        "Log driver; must be one that can be read back for the reason of a death.", "json-file"
    )
    log_options: dict[str, str] = setting.of(
        "An agent that talks must not fill the node's disk.", {"max-size": "1m", "max-file": "2"}
    )
    service: dict[str, Any] = setting.of(
        "Merged last into what a manager is sent (POST /services/create).", {}
    )

    def __attrs_post_init__(self) -> None:
        """Check what the patterns cannot."""
        twice = published.clash(self.ports)
        if twice:
            raise ValueError(
                f"ports: found {quotes.shown(twice)}: an entry before it has that port of the node"
            )
        for text in self.ports:
            for one in published.read(text):
                if one.address:
                    raise ValueError(
                        f"ports: found {quotes.shown(text)}; allowed: no address: a swarm binds "
                        "all of a node's"
                    )
                if one.first != one.last:
                    raise ValueError(
                        f"ports: found {quotes.shown(text)}; allowed: one port of the node for "
                        "each inside, or none for a random one: a swarm chooses from no range"
                    )
        if self.ports and "host" in self.networks:
            raise ValueError(
                "ports: the network `host` has them all, and a swarm publishes none of it; hint: "
                "leave out one of them"
            )

    def shares(self, common: Common) -> Iterator[workspaces.Shared]:
        """Yield where agents of this template would work together."""
        from backends.docker.swarm import service  # noqa: PLC0415 -- it is made of these settings

        mounts = (
            workspaces.Mount(
                target=volume.target,
                source=volume.name,
                path=("volumes", number),
                read_only=volume.read_only,
            )
            for number, volume in enumerate(self.volumes)
        )
        yield from workspaces.find(mounts, common.remote_fs or service.WORK)

    @property
    def has_own_network(self) -> bool:
        """Whether the loopback address is the container's own."""
        return "host" not in self.networks

    def remarks(self, common: Common) -> Iterator[Remark]:
        """Say what cannot be right about this template, and what is dangerous."""
        problem = reference.problem(common.image) if common.image else None
        if problem is not None:
            yield Remark(path=("image",), common=True, text=problem, wrong=True)
        yield from docker.cache_remarks(self.volumes)
        has_socket = common.pipelines is not None and common.pipelines.mode == "socket"
        if has_socket:
            yield from self._of_socket(common.remote_fs or "")
        for number, volume in enumerate(self.volumes):
            if has_socket and volume.target == SOCKET:
                continue  # that is acknowledged
            if volume.name is not None and volume.name.startswith("/"):
                words = perils.of_folder(volume.name, _MACHINE)
                if words is not None:
                    yield Remark(path=("volumes", number), text=words, hint=perils.HINT)
        yield from self._of_rights()
        if "host" in self.networks:
            yield Remark(
                path=("networks",),
                text=f"every build of this template sees the network, loopback too, of {_MACHINE}",
                hint=perils.HINT,
            )
        for number, text in enumerate(self.ports):
            if any(one.is_fixed for one in published.read(text)):
                where = "each node" if self.publish_mode == "host" else "the swarm"
                yield Remark(
                    path=("ports", number),
                    text=f"only one agent of {where} can have that port at a time",
                    hint=f"a random one: {text.rpartition(':')[2]}",
                )
        yield from self._raw_remarks()

    def _of_socket(self, folder: str) -> Iterator[Remark]:
        """Say what keeps an agent from a folder at the same path on its node."""
        if bodies.ids(self.user)[0] != 0:
            yield Remark(path=("user",), text=ROOTS, hint="user: '0'", wrong=True)
        place, _, data = folder.rpartition("/")
        above, _, volume = place.rpartition("/")
        is_volume = names.is_own(volume) and not names.is_own(above)
        if not (is_volume and above.endswith("/volumes") and data == "_data"):
            yield Remark(
                path=("remote_fs",),
                common=True,
                text="with docker_pipelines of mode socket an agent on a swarm works in a volume "
                "of its node, at the path that it has there",
                hint=FOLDER_HINT,
                wrong=True,
            )
        for number, one in enumerate(self.volumes):
            if f"{folder}/".startswith(f"{one.target}/") or one.target.startswith(f"{folder}/"):
                yield Remark(
                    path=("volumes", number, "target"),
                    text="with docker_pipelines the engine mounts what lies at the same path on "
                    "its host",
                    hint="leave the volume out: the folder is made for each agent",
                    wrong=True,
                )

    def _of_rights(self) -> Iterator[Remark]:
        """Say what lets builds become more than their user."""
        words = perils.of_capabilities(self.cap_add, _MACHINE)
        if words is not None:
            yield Remark(path=("cap_add",), text=words, hint=perils.HINT)
        if "ALL" not in {name.upper() for name in self.cap_drop}:
            yield Remark(
                path=("cap_drop",),
                text="whoever is root in the container keeps the engine's own capabilities",
                hint=perils.HINT,
            )
        if not self.no_new_privileges:
            yield Remark(
                path=("no_new_privileges",),
                text="every build of this template can become root in its container",
                hint=perils.HINT,
            )

    def _raw_remarks(self) -> Iterator[Remark]:
        """Say what of the raw section is of another kind, or is the broker's own."""
        yield from _KINDS.remarks(self.service, ("service",))
        if "Mode" in self.service:
            yield Remark(
                path=("service", "Mode"),
                text="an agent is one task; jobs leave their containers running",
                hint="leave it out",
                wrong=True,
            )
        task = self.service.get("TaskTemplate")
        template = task if isinstance(task, dict) else {}
        told = template.get("ContainerSpec")
        inner = told if isinstance(told, dict) else {}
        places: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
            (("TaskTemplate",), template),
            (("TaskTemplate", "ContainerSpec"), inner),
        )
        for path, section in places:
            for key in sorted(_NOT_OURS.keys() & section.keys()):
                yield Remark(
                    path=("service", *path, key),
                    text=_NOT_OURS[key],
                    hint="leave it out",
                    wrong=True,
                )
        if "Env" in inner:
            yield Remark(
                path=("service", "TaskTemplate", "ContainerSpec", "Env"),
                text="replaces what the broker tells the agent",
                hint="environment",
                wrong=True,
            )
