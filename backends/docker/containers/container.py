"""From a specification to what the engine is sent. Pure; the words are those of the Engine's API.

Rules:

* Whose a container is, its metadata and a digest of its specification are labels; the secret is
  in none of them, nor in the environment or the command line: it is a file, mounted from where
  ``handover`` keeps it, or in the archive that is put into the created container before its start.
* The user's raw section is merged last and wins, except over our labels: without them a container
  would be nobody's.
"""

import io
import json
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve, field, frozen

from backends import api
from backends.docker import settings
from backends.docker.containers import caches, host_paths
from backends.docker.engine import bodies, reference
from backends.kit import names, perils, pipelines, published, runtime, workspaces
from outside import quotes

PREFIX = "agent-broker."
_METADATA = f"{PREFIX}metadata."
DIGEST = f"{PREFIX}digest"
NAME = f"{PREFIX}name"
ENGINE = f"{PREFIX}has-engine"
"""Of an agent with an engine beside it."""
RUNTIME = f"{PREFIX}runtime"
"""Which content of a Java that is brought in something is about."""

ROOT = "/agent-broker"
SECRETS = f"{ROOT}/secrets"
FILES = f"{ROOT}/files"
WORK = "/home/jenkins/agent"
"""Where the official agent images have their volume; made for the user in any other image."""
SOCKET = "/var/run/docker.sock"
"""Where pipelines look for an engine, and where most engines have it."""
_SOCKET_MOUNT = {"Type": "bind", "Source": SOCKET, "Target": SOCKET, "ReadOnly": False}
_RUNTIME_MOUNT = {"Type": "volume", "Source": "", "Target": runtime.ROOT, "ReadOnly": True}
_PLACES = {api.SECRETS: SECRETS, api.WORK: WORK, api.FILES: FILES}
_TOKENS = re.compile("|".join(map(re.escape, _PLACES)))
_SHARES_PER_CORE = 1024
_LIMITS = (
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "CpuQuota",
    "CpuPeriod",
    "CpuShares",
    "PidsLimit",
)
_TMP = "/tmp"  # noqa: S108 -- of the container
_TMPFS = "rw,exec,nosuid,nodev,mode=1777"
"""Programs of Java load libraries from there; the engine's own way would forbid it."""
PRIVILEGED: Mapping[str, Any] = {"Privileged": True, "CapAdd": ["ALL"]}
"""Of an engine in a container: the one without the other is no privilege."""


class Volume(Protocol):
    """A mount as templates of containers and of services say it."""

    @property
    def name(self) -> str | None:
        """Of a volume, or a path of the machine; None: one of the agent's own."""

    @property
    def target(self) -> str:
        """Where it appears in the container."""

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
    def tmpfs_bytes(self) -> int | None:
        """Size of a tmpfs, if it is one."""

    @property
    def max_age_s(self) -> float | None:
        """Of a cache, until it is made anew; None: it stays."""

    @property
    def max_size_bytes(self) -> int | None:
        """The same of its size."""


@frozen(kw_only=True)
class ContainerPlan:
    """What to send: a body for the creation, and what has to be in the container before the start.

    ``folders`` have to belong to ``ids``; empty where the user is known to the image only.
    """

    container: str
    image: str
    platform: str | None
    pull: str
    body: Mapping[str, Any]
    networks: tuple[str, ...]  # to join besides the body's
    aliases: tuple[str, ...]  # there
    sealed: bool  # nothing can be put into its root file system, only into volumes
    ids: tuple[int | None, int | None]
    folders: tuple[str, ...]
    fresh_folders: bool  # no image can have them: they are on volumes, or below them
    kin: str  # the same for all that have the same user and mounts
    hands_on: bool  # its builds have the engine, and can give its mounts to other containers
    wants_socket: bool  # of the engine that it is made on (``with_socket``)
    needs_group: bool  # to use it: no group is told that may
    beside: Mapping[str, Any] | None  # what its own engine is made from, if it has one
    runtime: settings.Runtime | None  # the Java that is brought into it
    caches: tuple[caches.Cache, ...]  # volumes whose age or size is bounded
    given: Mapping[str, bytes] = field(repr=False)  # files that are put in, no secrets
    secrets: Mapping[str, str] = field(repr=False)

    def images(self) -> tuple[str, ...]:
        """Return what is needed for it to be started."""
        return (self.image, *(() if self.beside is None else (str(self.beside["Image"]),)))

    def with_secrets(self, folder: str) -> "ContainerPlan":
        """Return the same with the engine's ``folder`` for the secrets."""
        mount = {"Type": "bind", "Source": folder, "Target": SECRETS, "ReadOnly": True}
        told = bodies.section(self.body, "HostConfig")
        mounts = {"Mounts": [*told.get("Mounts", []), mount]}
        return evolve(self, body={**self.body, "HostConfig": {**told, **mounts}})

    def with_volume(self, volume: str, labels: Mapping[str, str]) -> "ContainerPlan":
        """Return the same with the volume that the runtime's archive is unpacked in."""
        told = bodies.section(self.body, "HostConfig")
        mounts = [
            runtime_mount(volume, labels) if mount == _RUNTIME_MOUNT else mount
            for mount in told.get("Mounts", [])
        ]
        return evolve(self, body={**self.body, "HostConfig": {**told, "Mounts": mounts}})

    def with_tools(self, path: str | None) -> "ContainerPlan":
        """Return the same with the runtime's tools behind the image's own, by its search path."""
        own = [line for line in self.body.get("Env", []) if not line.startswith("PATH=")]
        told = [line for line in self.body.get("Env", []) if line.startswith("PATH=")]
        if told:
            path = told[-1].removeprefix("PATH=")
        search = runtime.search_path(path or runtime.USUAL_PATH)
        return evolve(self, body={**self.body, "Env": [*own, f"PATH={search}"]})

    def with_socket(self, source: str, group: int | None) -> "ContainerPlan":
        """Return the same with the engine's socket, wherever its host has it.

        ``group``: that which may use it, as a number; None: nothing has to be given for it.
        """
        told = bodies.section(self.body, "HostConfig")
        mounts = [
            {**mount, "Source": source} if mount == _SOCKET_MOUNT else mount
            for mount in told.get("Mounts", [])
        ]
        groups = list(told.get("GroupAdd", []))
        if group is not None and str(group) not in groups:
            groups.append(str(group))
        host = {**told, "Mounts": mounts, **({"GroupAdd": groups} if groups else {})}
        return evolve(self, body={**self.body, "HostConfig": host})


def container_name(name: str, *, prefix: str) -> str:
    """Return the container's name; the engine wants two characters."""
    full = f"{prefix}{name}"
    return full if len(full) > 1 else f"{full}_"


def owner_labels(owner: str) -> dict[str, str]:
    """Return the labels that make a container ours."""
    return names.encode_metadata({names.OWNER: owner}, prefix=PREFIX)


def name_of(labels: Mapping[str, str], called: Sequence[str], *, prefix: str) -> str:
    """Return the instance's name; empty if neither its labels nor what it is called tell it."""
    candidates = [labels.get(NAME, "")]
    candidates += [name.removeprefix(prefix) for name in called if name.startswith(prefix)]
    return next((name for name in candidates if names.name_problem(name) is None), "")


def read_metadata(labels: Mapping[str, str]) -> dict[str, str]:
    """Return metadata of a container of ours. Raises ValueError if it was damaged."""
    return names.decode_metadata(labels, prefix=_METADATA)


def options_of(spec: api.InstanceSpec) -> settings.DockerTemplate:
    """Return the template's settings; raises Rejected for what a container cannot be."""
    problem = names.name_problem(spec.name)
    if problem is None and not spec.image:
        problem = "a container needs an image; hint: set `image` in the template"
    for name in (*spec.secret_files, *spec.given_files, *(file.name for file in spec.files)):
        if problem is None and names.name_problem(name) is not None:
            problem = (
                f"the file name {quotes.shown(name)} is not a plain name; hint: no '/', no spaces"
            )
    options = spec.options if spec.options is not None else settings.DockerTemplate()
    if problem is None and not isinstance(options, settings.DockerTemplate):
        problem = f"the template's options are {type(options).__name__}, not DockerTemplate"
    if problem is not None:
        raise api.Rejected(problem)
    folder = spec.work_dir or WORK
    if spec.pipelines is not None:
        folder = pipelines.own_folder(spec) if spec.pipelines.mode == "socket" else folder
        options = options.with_pipelines(spec.pipelines, folder)
    if options.read_only_root and not _covers(options, folder):
        work = settings.Volume(target=folder, writable_by_user=True)
        options = evolve(options, volumes=(*options.volumes, work))
    return options


def plan(
    spec: api.InstanceSpec,
    *,
    owner: str,
    prefix: str = "",
    runtimes: Mapping[str, settings.Runtime] | None = None,
) -> ContainerPlan:
    """Return what to send; raises Rejected."""
    options = options_of(spec)
    brought = _brought(spec, runtimes or {})
    body = bodies.merged(_body(spec, options), options.docker)
    problem = reference.problem(str(body["Image"]))
    if problem is not None:
        raise api.Rejected(problem)
    marks = {**owner_labels(owner), NAME: spec.name}
    beside = _beside(spec, options, body, marks)
    host, own = host_paths.settled(bodies.section(body, "HostConfig"), spec.name, marks)
    body["HostConfig"] = host
    if brought is not None:
        mounts = [*body["HostConfig"].get("Mounts", []), _mount_of(brought)]
        body["HostConfig"] = {**body["HostConfig"], "Mounts": mounts}
    sealed = bool(bodies.section(body, "HostConfig").get("ReadonlyRootfs"))
    hands_on = any(perils.has_socket(mount.source) for mount in mounts_of(options))
    if sealed and hands_on:
        raise api.Rejected(settings.SEALED_HANDS_ON)
    if sealed:  # then files can be put into volumes only
        mounts = [*body["HostConfig"].get("Mounts", []), {"Type": "volume", "Target": ROOT}]
        body["HostConfig"] = {**body["HostConfig"], "Mounts": mounts}
    try:
        metadata = names.encode_metadata(spec.metadata, prefix=_METADATA)
    except ValueError as error:
        raise api.Rejected(str(error)) from error
    labels = {**options.labels, **bodies.section(body, "Labels")}
    body["Labels"] = {
        **{key: text for key, text in labels.items() if not key.startswith(PREFIX)},
        **marks,
        **metadata,
        **own.label(),
        **({} if beside is None else {ENGINE: "true"}),
        DIGEST: _digest(spec, body, options.networks, beside),
    }
    return ContainerPlan(
        container=container_name(spec.name, prefix=prefix),
        image=str(body["Image"]),
        platform=options.platform,
        pull=options.pull,
        body=body,
        networks=options.networks,
        aliases=options.aliases,
        sealed=sealed,
        ids=bodies.ids(options.user),
        folders=_folders(spec, options, body, sealed=sealed),
        fresh_folders=any(volume.is_given for volume in options.volumes),
        kin=bodies.fingerprint([bodies.ids(options.user), body.get("HostConfig")]),
        hands_on=hands_on,
        wants_socket=options.docker_socket,
        beside=beside,
        needs_group=spec.pipelines is not None
        and not bodies.section(body, "HostConfig").get("GroupAdd"),
        runtime=brought,
        caches=tuple(bounded(options.volumes, body["HostConfig"].get("Mounts"), spec, owner)),
        given=spec.given_files,
        secrets=spec.secret_files,
    )


def body(
    spec: api.InstanceSpec, configured: settings.DockerSettings, *, owner: str
) -> Mapping[str, Any]:
    """Return the body that a launch would send. Raises Rejected."""
    return _plan_by(spec, configured, owner).body


def _plan_by(
    spec: api.InstanceSpec, configured: settings.DockerSettings, owner: str
) -> ContainerPlan:
    return plan(spec, owner=owner, prefix=configured.name_prefix, runtimes=configured.runtimes)


def render(spec: api.InstanceSpec, configured: settings.DockerSettings, *, owner: str) -> str:
    """Return it as JSON, and after it the engine beside it, if it has one. Raises Rejected."""
    made = _plan_by(spec, configured, owner)
    sent = [made.body, *([] if made.beside is None else [made.beside])]
    return "".join(json.dumps(one, indent=2) + "\n" for one in sent)


def mounts_of(options: settings.DockerTemplate) -> Iterator[workspaces.Mount]:
    """Yield everything that agents of a template have mounted."""
    host = {"Mounts": list(_mounts(options))}
    raw = bodies.section(options.docker, "HostConfig")
    typed: list[host_paths.Path] = []
    if "Mounts" not in raw:
        typed = [("volumes", number) for number in range(len(options.volumes))]
        typed.append(("docker_socket",))
    yield from host_paths.mounts({**host, **raw}, typed)


def archives(
    plan: ContainerPlan, files: Mapping[str, bytes], *, secrets: bool, folders: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield what has to be put in: where a tar file is unpacked, and the tar file.

    Owned by the template's user where that is a number. A name is known to the image only, so
    then, and for the image's own user, everybody in the container may read: it is one agent's.
    """
    files = {**plan.given, **files}
    with_files = files or (secrets and plan.secrets)
    with_folders = folders and plan.folders
    if not plan.sealed and (with_files or with_folders):
        yield "/", _archive(plan, files, secrets=secrets, folders=folders)
        return
    if with_files:
        yield ROOT, _archive(plan, files, secrets=secrets, folders=False, at=ROOT)
    for path in plan.folders if folders else ():
        yield path, _archive(plan, {}, secrets=False, folders=True, at=path)


def _archive(
    plan: ContainerPlan,
    files: Mapping[str, bytes],
    *,
    secrets: bool,
    folders: bool,
    at: str = "/",
) -> bytes:
    """Return a tar file of what is in the folder ``at``, and of that folder itself."""
    uid, gid = plan.ids
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(path: str, mode: int, content: bytes | None = None) -> None:
            if path != at and not path.startswith(f"{at.rstrip('/')}/"):
                return
            # the engine passes over an entry "." for a folder that is there
            member = tarfile.TarInfo("/" if path == at else posixpath.relpath(path, at))
            member.uid, member.gid, member.mode = uid or 0, gid or 0, mode
            if content is None:
                member.type = tarfile.DIRTYPE
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

        for path in (ROOT, *([SECRETS] if secrets else []), FILES):
            add(path, 0o755)
        for path in plan.folders if folders else ():
            add(path, 0o755)
        if folders and plan.runtime is not None:  # images from scratch have none
            add(_TMP, 0o1777)
        for name, text in plan.secrets.items() if secrets else ():
            content = text.encode("utf-8", "surrogateescape")
            add(f"{SECRETS}/{name}", 0o444 if uid is None else 0o400, content)
        for name, content in files.items():
            add(f"{FILES}/{name}", 0o444, content)
    return buffer.getvalue()


def bounded(
    volumes: Sequence[Volume], mounts: Any, spec: api.InstanceSpec, owner: str
) -> Iterator[caches.Cache]:
    """Yield the volumes whose age or size is bounded, as far as they are among ``mounts``."""
    template = spec.metadata.get(names.TEMPLATE, "")
    there = {one.get("Source") for one in mounts or () if isinstance(one, Mapping)}
    for volume in volumes:
        is_bounded = volume.max_age_s is not None or volume.max_size_bytes is not None
        if is_bounded and volume.name and volume.name in there:
            yield caches.Cache(
                name=volume.name,
                driver=volume.driver or "local",
                driver_options=volume.driver_options,
                max_age_s=volume.max_age_s,
                max_size_bytes=volume.max_size_bytes,
                marks={
                    **owner_labels(owner),
                    **names.encode_metadata({names.TEMPLATE: template}, prefix=PREFIX),
                },
            )


def _brought(
    spec: api.InstanceSpec, runtimes: Mapping[str, settings.Runtime]
) -> settings.Runtime | None:
    return None if spec.runtime is None else runtime.find(spec.runtime, runtimes)


def _mount_of(brought: settings.Runtime) -> dict[str, Any]:
    """Return how a runtime comes into a container; of an archive the volume is not known yet."""
    mount = {"Target": runtime.ROOT, "ReadOnly": True}
    if brought.folder is not None:
        return {"Type": "bind", "Source": brought.folder, **mount}
    if brought.image is not None:
        options = {"ImageOptions": {"Subpath": runtime.ROOT.lstrip("/")}}
        return {"Type": "image", "Source": brought.image, **mount, **options}
    return dict(_RUNTIME_MOUNT)


def runtime_mount(volume: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the mount of a volume that holds a runtime; of an image nothing is copied into it."""
    options = {"NoCopy": True, "Labels": dict(labels)}
    return {**_RUNTIME_MOUNT, "Source": volume, "VolumeOptions": options}


# --- the body ----------------------------------------------------------------------------------


def _body(spec: api.InstanceSpec, options: settings.DockerTemplate) -> dict[str, Any]:
    ports = _ports(options)
    exposed: dict[str, Any] = {port: {} for port in ports}
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{key}={_put(text)}" for key, text in _environment(spec).items()],
        "User": bodies.user(options.user),
        "Entrypoint": _entry_point(spec, options),
        "Cmd": [_put(word) for word in spec.argv],
        "ExposedPorts": exposed,
        "HostConfig": _host(spec.resources, options),
    }
    if options.aliases and options.network:
        endpoint = {"Aliases": list(options.aliases)}
        body["NetworkingConfig"] = {"EndpointsConfig": {options.network: endpoint}}
    return bodies.without_nothing(body)


def _environment(spec: api.InstanceSpec) -> Mapping[str, str]:
    own_engine = spec.pipelines is not None and spec.pipelines.mode != "socket"
    return {**(pipelines.ENVIRONMENT if own_engine else {}), **spec.env}


def _beside(
    spec: api.InstanceSpec,
    options: settings.DockerTemplate,
    body: Mapping[str, Any],
    marks: Mapping[str, str],
) -> Mapping[str, Any] | None:
    """Return what the engine beside an agent is made from; None: it has none. Raises Rejected.

    It sees what the agent has mounted, at the same places, is on the agent's networks, and has
    limits like the agent's where none are told. Its images and containers go with it.
    """
    told = spec.pipelines
    if told is None or told.mode == "socket":
        return None
    uid, gid = bodies.ids(options.user)
    host, _ = host_paths.settled({"Mounts": list(_mounts(options))}, spec.name, marks)
    from_agent = ("NetworkMode", "Dns", "DnsSearch", "ExtraHosts", "LogConfig")
    of_agent = bodies.section(body, "HostConfig")
    socket = f"unix://{pipelines.SOCKET}"
    return {
        "Image": pipelines.image(told),
        "Cmd": list(pipelines.command(told.mode, uid=uid, gid=gid)),
        "Env": ["DOCKER_TLS_CERTDIR="],
        "Healthcheck": {
            "Test": ["CMD", "docker", f"--host={socket}", "version"],
            "Interval": 500_000_000,
            "Timeout": 10_000_000_000,
            "Retries": 1000,
        },
        "HostConfig": {
            **{key: of_agent[key] for key in from_agent if key in of_agent},
            **_limits_beside(told, of_agent),
            **host,
            **PRIVILEGED,
            "RestartPolicy": {"Name": "on-failure"},
        },
    }


def _limits_beside(told: api.DockerPipelines, of_agent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the limits of an engine beside an agent with that HostConfig.

    What its builds run is in its control group, so they are limits of all of it together. A
    reservation, or swap, that was meant for the agent's memory may be none beside another limit.
    """
    limits = {key: of_agent[key] for key in _LIMITS if key in of_agent}
    if told.memory_bytes is not None:
        limits.pop("MemoryReservation", None)
        limits |= {"Memory": told.memory_bytes, "MemorySwap": told.memory_bytes}
    if told.cpu_limit is not None:
        for key in ("CpuQuota", "CpuPeriod"):
            limits.pop(key, None)
        limits["NanoCpus"] = round(told.cpu_limit * 1e9)
    return limits


def _entry_point(spec: api.InstanceSpec, options: settings.DockerTemplate) -> list[str] | None:
    """A command of the template's own replaces the image's entry point, unless it says another."""
    if options.entry_point is not None:
        return list(options.entry_point)
    return None if spec.use_entry_point or not spec.argv else [""]


def _host(resources: api.Resources, options: settings.DockerTemplate) -> dict[str, Any]:
    swap = options.memory_swap_bytes
    if swap is None:  # none beyond the limit in force, whoever sets that
        raw = bodies.section(options.docker, "HostConfig")
        swap = raw.get("Memory", resources.memory_bytes)
    cores, shares = resources.cpu_limit, resources.cpu_shares
    return bodies.without_nothing(
        {
            "Memory": resources.memory_bytes,
            "MemoryReservation": resources.memory_reservation_bytes,
            "MemorySwap": swap,
            "NanoCpus": None if cores is None else round(cores * 1e9),
            "CpuShares": None if shares is None else max(2, round(shares * _SHARES_PER_CORE)),
            "PidsLimit": options.pids,
            "Ulimits": [
                {"Name": name, "Soft": most, "Hard": most}
                for name, most in sorted(options.ulimits.items())
            ],
            "ShmSize": options.shm_bytes,
            "NetworkMode": options.network,
            "Dns": list(options.dns),
            "DnsSearch": list(options.dns_search),
            "ExtraHosts": list(options.extra_hosts),
            "PortBindings": _ports(options),
            "Mounts": list(_mounts(options)),
            "Devices": [_device(text) for text in options.devices],
            "GroupAdd": list(options.groups),
            "Init": options.init,
            "ReadonlyRootfs": options.read_only_root or None,
            "Tmpfs": {_TMP: _TMPFS} if options.read_only_root and not _has(options, _TMP) else {},
            "SecurityOpt": [
                *(["no-new-privileges"] if options.no_new_privileges else []),
                *options.security_opt,
            ],
            "CapDrop": list(options.cap_drop),
            "CapAdd": list(options.cap_add),
            "LogConfig": None
            if options.log_driver is None
            else {"Type": options.log_driver, "Config": dict(options.log_options)},
        }
    )


def _ports(options: settings.DockerTemplate) -> dict[str, list[dict[str, str]]]:
    """Return where each container port may be bound, as the API has it; no port: any free one."""
    found: dict[str, list[dict[str, str]]] = {}
    for one in published.bindings(options.ports):
        host_port = "" if one.first is None else str(one.first)
        if not one.is_fixed and one.first is not None:
            host_port = f"{one.first}-{one.last}"
        binding = {**({"HostIp": one.address} if one.address else {}), "HostPort": host_port}
        found.setdefault(f"{one.port}/{one.protocol}", []).append(binding)
    return found


def _mounts(options: settings.DockerTemplate) -> Iterator[dict[str, Any]]:
    yield from (volume_mount(volume, tmpfs_mode=0o1777) for volume in options.volumes)
    if options.docker_socket:
        yield dict(_SOCKET_MOUNT)


def volume_mount(volume: Volume, *, tmpfs_mode: int) -> dict[str, Any]:
    """Return a volume of a template as the API has mounts, of containers and of services.

    ``tmpfs_mode``: everybody may write, as in /tmp; the engine would give it to root.
    """
    mount: dict[str, Any] = {"Target": volume.target, "ReadOnly": volume.read_only}
    if volume.tmpfs_bytes is not None:
        options = {"SizeBytes": volume.tmpfs_bytes, "Mode": tmpfs_mode}
        return {**mount, "Type": "tmpfs", "TmpfsOptions": options}
    if volume.name is not None and volume.name.startswith("/"):
        return {**mount, "Type": "bind", "Source": volume.name}
    mount |= {"Type": "volume", "Source": volume.name or ""}
    if volume.driver or volume.driver_options:
        config = {"Name": volume.driver or "local", "Options": volume.driver_options}
        mount["VolumeOptions"] = {"DriverConfig": config}
    return mount


def _has(options: settings.DockerTemplate, path: str) -> bool:
    """Tell whether a template mounts something at a path."""
    return any(workspaces.normal(mount.target) == path for mount in mounts_of(options))


def _covers(options: settings.DockerTemplate, path: str) -> bool:
    """Tell whether a template mounts something at a path or above it."""
    targets = [workspaces.normal(mount.target) for mount in mounts_of(options)]
    return any(path == place or path.startswith(f"{place}/") for place in targets)


def _folders(
    spec: api.InstanceSpec,
    options: settings.DockerTemplate,
    body: Mapping[str, Any],
    *,
    sealed: bool,
) -> tuple[str, ...]:
    """Return the directories that have to be given to the user, as far as they can be."""
    if bodies.ids(options.user)[0] is None:
        return ()
    found = [str(names.named(path, spec.name)) for path in _owned(options)]
    if not sealed:
        return tuple(found)
    mounted = host_paths.mounts(bodies.section(body, "HostConfig"), ())
    writable = {workspaces.normal(mount.target) for mount in mounted if not mount.read_only}
    return tuple(path for path in found if workspaces.normal(path) in writable)


def _owned(options: settings.DockerTemplate) -> Iterator[str]:
    """Yield the directories that have to belong to the user, parents first.

    One by one, because the engine makes what is missing for root. What is a mount is left as it
    is, unless the template says otherwise: it may be a directory of the host.
    """
    mounted = [volume.target for volume in options.volumes if not volume.is_given]
    wanted = ["/home/jenkins", WORK]
    for volume in options.volumes:
        if volume.is_given:
            below = [volume.target]
            while below[-1].startswith(f"{WORK}/"):
                below.append(posixpath.dirname(below[-1]))
            wanted += reversed(below)
    for path in dict.fromkeys(wanted):
        if not any(path == place or path.startswith(f"{place}/") for place in mounted):
            yield path


def _device(text: str) -> dict[str, str]:
    host, _, rest = text.partition(":")
    inside, _, rights = rest.partition(":")
    return {
        "PathOnHost": host,
        "PathInContainer": inside or host,
        "CgroupPermissions": rights or "rwm",
    }


# --- helpers -----------------------------------------------------------------------------------


def _put(text: str) -> str:
    return _TOKENS.sub(lambda match: _PLACES[match.group()], text)


def _digest(
    spec: api.InstanceSpec,
    body: Mapping[str, Any],
    networks: tuple[str, ...],
    beside: Mapping[str, Any] | None,
) -> str:
    """Return what tells two specifications apart; secrets are left out."""
    files = [(file.url, file.name) for file in spec.files]
    more = [] if beside is None else [beside]
    return bodies.fingerprint([sorted(spec.metadata.items()), files, body, *networks, *more])
