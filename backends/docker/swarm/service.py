"""From a specification to the service that a manager is sent. Pure; the words are the Engine's.

Rules:

* One replica, restart condition ``none``: a dead agent stays, with its exit code and output, until
  its service is removed; it is never started again, and never updated (any change of its task
  would start another one).
* Whose a service is, its metadata and a digest of its specification are labels, of the service and
  of its container alike: a task whose service is gone still tells them.
* The secret is a secret of the swarm, one for each file, with a name of its own for each attempt;
  its id is put in at the last moment (``complete``).
* Files of ours that are no secrets are configs of the swarm, one for each content: named by owner
  and content, so that all agents share it.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from attrs import asdict, evolve, field, frozen

from backends import api
from backends.docker.containers import caches, container
from backends.docker.engine import bodies, reference
from backends.docker.swarm import folders, placement, settings
from backends.kit import names, pipelines, published, runtime, workspaces
from outside import counts, quotes

PREFIX, DIGEST, NAME = container.PREFIX, container.DIGEST, container.NAME
RUNTIME = container.RUNTIME
SECRETS, WORK, FILES = container.SECRETS, container.WORK, container.FILES
GIVEN = f"{PREFIX}given"
"""On a config of ours: the SHA-256 of its content."""
_PLACES = {api.SECRETS: SECRETS, api.WORK: WORK, api.FILES: FILES}
_TOKENS = re.compile("|".join(map(re.escape, _PLACES)))
_METADATA = f"{PREFIX}metadata."
_NAME_MAX = 63
_SECRET_MAX = 511_999
_CONFIG_MAX = 511_999  # of 20.10; since 24 twice as much
_PLAIN = re.compile(r"[a-z0-9]([a-z0-9_-]*[a-z0-9])?")
_OURS = "agent-broker"  # how our configs begin
_MARK = "-x"  # before the digest of a name that had to be changed
_DIGITS = 12
_MARKED = re.compile(rf".*{_MARK}[0-9a-f]{{{_DIGITS}}}")
_RUNTIME_MOUNT = {"Type": "volume", "Source": "", "Target": runtime.ROOT, "ReadOnly": True}
_OPENED, _CLOSED = 0o444, 0o400
_ITS_ID = "(its id)"
_ITS_CONTENT = "(named by its content)"


@frozen(kw_only=True)
class GivenFile:
    """A file of ours, and the config of the swarm that brings it."""

    file: str
    name: str  # of the config
    labels: Mapping[str, str]
    content: bytes = field(repr=False)

    @classmethod
    def of(cls, file: str, content: bytes, *, owner: str) -> "GivenFile":
        """Name it by its owner and its content; alike contents are one config."""
        digest = hashlib.sha256(content).hexdigest()
        return cls(
            file=file,
            name=f"{_OURS}.{bodies.fingerprint(owner)[:_DIGITS]}.{digest[:32]}",
            labels={**owner_labels(owner), GIVEN: digest},
            content=content,
        )


@frozen(kw_only=True)
class LentIds:
    """What a service uses of the swarm's own, by name to id."""

    secrets: Mapping[str, str]
    configs: Mapping[str, str]


NOTHING_LENT = LentIds(secrets={}, configs={})


@frozen(kw_only=True)
class ServicePlan:
    """What to send; ``image`` is as the template says, and ``body`` has no secret in it yet."""

    name: str  # of the instance
    service: str
    image: str
    resolve: str
    body: Mapping[str, Any]
    labels: Mapping[str, str]  # of everything that is made for it
    digest: str
    ids: tuple[int | None, int | None]
    configs: tuple[settings.Config, ...]
    borrowed: tuple[settings.LentSecret, ...]  # secrets of the swarm that are not ours
    runtime: settings.SwarmRuntime | None  # the Java that is brought into it
    caches: tuple[caches.Cache, ...]  # volumes whose age or size is bounded
    given: tuple[GivenFile, ...]
    engine_root: str  # where engines of its nodes keep their data; empty: anywhere
    secrets: Mapping[str, str] = field(repr=False)

    def complete(
        self, image: str, secrets: Mapping[str, tuple[str, str]], there: "LentIds" = NOTHING_LENT
    ) -> dict[str, Any]:
        """Return the body with what the nodes are told for the image, and the swarm's secrets.

        ``secrets``: file name to id and name in the swarm.
        """
        uid, _ = self.ids
        mode = _OPENED if uid is None else _CLOSED
        own = [
            {"SecretID": key, "SecretName": called, "File": self._file(f"{SECRETS}/{file}", mode)}
            for file, (key, called) in secrets.items()
        ]
        borrowed = [
            {
                "SecretID": there.secrets.get(one.name, _ITS_ID),
                "SecretName": one.name,
                "File": self._file(one.target, int(one.mode, 8)),
            }
            for one in self.borrowed
        ]
        configs = [
            {
                "ConfigID": there.configs.get(one.name, _ITS_ID),
                "ConfigName": one.name,
                "File": self._file(one.target, int(one.mode, 8)),
            }
            for one in self.configs
        ]
        configs += [
            {
                "ConfigID": there.configs.get(one.name, _ITS_ID),
                "ConfigName": one.name,
                "File": self._file(f"{FILES}/{one.file}", _OPENED),
            }
            for one in self.given
        ]
        told = {"Image": image, "Secrets": [*own, *borrowed], "Configs": configs}
        inner = bodies.without_nothing(told)
        return bodies.merged(self.body, {"TaskTemplate": {"ContainerSpec": inner}})

    @property
    def placement(self) -> Mapping[str, Any]:
        """Which nodes it may go to, in the API's words."""
        return bodies.section(bodies.section(self.body, "TaskTemplate"), "Placement")

    def with_volume(self, volume: str, without: Collection[str]) -> "ServicePlan":
        """Return the same with the volume that its Java is in.

        ``without``: ids of the nodes that do not have it.
        """
        task = bodies.section(self.body, "TaskTemplate")
        inner = bodies.section(task, "ContainerSpec")
        options = {"VolumeOptions": {"NoCopy": True}}
        mounts = [
            {**mount, "Source": volume, **options} if mount == _RUNTIME_MOUNT else mount
            for mount in inner.get("Mounts", [])
        ]
        label = {RUNTIME: volume}
        told = {
            "Labels": label,
            "TaskTemplate": {"ContainerSpec": {"Labels": label, "Mounts": mounts}},
        }
        return evolve(self, body=bodies.merged(self.body, told)).kept_from(without)

    def kept_from(self, without: Collection[str]) -> "ServicePlan":
        """Return the same, kept from nodes by their ids."""
        told = {"Placement": placement.kept_from(self.placement, without)}
        return evolve(self, body=bodies.merged(self.body, {"TaskTemplate": told}))

    def with_caches(self, now: float) -> "ServicePlan":
        """Return the same with labels for the caches that a node makes for it (POSIX seconds).

        One that is there keeps those that it has.
        """
        if not self.caches:
            return self
        made = {one.name: caches.labels(one, now=now) for one in self.caches}
        task = bodies.section(self.body, "TaskTemplate")
        mounts = [
            bodies.merged(mount, {"VolumeOptions": {"Labels": made[mount["Source"]]}})
            if mount.get("Source") in made
            else mount
            for mount in bodies.section(task, "ContainerSpec").get("Mounts", [])
        ]
        told = {"TaskTemplate": {"ContainerSpec": {"Mounts": mounts}}}
        return evolve(self, body=bodies.merged(self.body, told))

    def _file(self, path: str, mode: int) -> dict[str, Any]:
        uid, gid = self.ids
        return {"Name": path, "UID": str(uid or 0), "GID": str(gid or 0), "Mode": mode}


def service_name(name: str, *, prefix: str) -> str:
    """Return the service's name: managers take a DNS label, and are blind to upper case."""
    fits = _PLAIN.fullmatch(name) and len(prefix + name) <= _NAME_MAX
    if fits and not _MARKED.fullmatch(name):
        return f"{prefix}{name}"
    digits = bodies.fingerprint(name)[:_DIGITS]
    plain = re.sub(r"[^a-z0-9-]", "-", name.lower())
    room = _NAME_MAX - len(prefix) - len(_MARK) - _DIGITS
    return f"{prefix}{plain[:room].strip('-') or 'a'}{_MARK}{digits}"


def secret_name(service: str, file: str, token: str) -> str:
    """Return a name for the swarm's secret of a file; ``token`` is another one each time."""
    return f"{service[:28]}.{bodies.fingerprint([service, file])[:16]}.{token[:16]}"


def owner_labels(owner: str) -> dict[str, str]:
    """Return the labels that make something ours."""
    return container.owner_labels(owner)


def read_metadata(labels: Mapping[str, str]) -> dict[str, str]:
    """Return metadata of an instance of ours. Raises ValueError if it was damaged."""
    return container.read_metadata(labels)


def options_of(spec: api.InstanceSpec) -> settings.SwarmTemplate:
    """Return the template's settings; raises Rejected for what a service cannot be."""
    problem = names.name_problem(spec.name)
    if problem is None and not spec.image:
        problem = "a service needs an image; hint: set `image` in the template"
    if problem is None and spec.files:
        problem = (
            f"a swarm brings no file such as {quotes.shown(spec.files[0].name)} into a "
            "container; hint: an image that holds the agent's program"
        )
    for name, content in spec.secret_files.items():
        if problem is None and names.name_problem(name) is not None:
            problem = (
                f"the file name {quotes.shown(name)} is not a plain name; hint: no '/', no spaces"
            )
        if problem is None and len(content.encode("utf-8", "surrogateescape")) > _SECRET_MAX:
            problem = f"the secret {name} is larger than a swarm takes (500 kB)"
    problem = problem or _given_problem(spec.given_files)
    options = spec.options if spec.options is not None else settings.SwarmTemplate()
    if problem is None and not isinstance(options, settings.SwarmTemplate):
        problem = f"the template's options are {type(options).__name__}, not SwarmTemplate"
    if problem is not None:
        raise api.Rejected(problem)
    return options


def _given_problem(given: Mapping[str, bytes]) -> str | None:
    """Return what is wrong with files of ours."""
    for name, content in given.items():
        if names.name_problem(name) is not None:
            return f"the file name {quotes.shown(name)} is not a plain name; hint: no '/'"
        if not 0 < len(content) <= _CONFIG_MAX:
            return (
                f"the file {name} has {counts.told(len(content), 'byte')}; a config of a swarm "
                f"holds 1 to {_CONFIG_MAX}; hint: public: false, or a smaller public_file"
            )
    return None


def plan(
    spec: api.InstanceSpec,
    *,
    owner: str,
    prefix: str = "",
    runtimes: Mapping[str, settings.SwarmRuntime] | None = None,
) -> ServicePlan:
    """Return what to send; raises Rejected."""
    options = options_of(spec)
    called = service_name(spec.name, prefix=prefix)
    brought = None if spec.runtime is None else runtime.find(spec.runtime, runtimes or {})
    body = bodies.merged(_body(spec, options, brought), options.service)
    root, work = "", {}
    if spec.pipelines is not None and spec.pipelines.mode == "socket":
        root, volume = _folder(spec)
        marks = {**owner_labels(owner), folders.OF: spec.name}
        body = _with_socket(body, volume, spec.work_dir or "", marks)
        work = {folders.VOLUME: volume}
    task = bodies.section(body, "TaskTemplate")
    inner = bodies.section(task, "ContainerSpec")
    image = str(inner.get("Image", spec.image))
    problem = reference.problem(image)
    if problem is not None:
        raise api.Rejected(problem)
    marks = {**owner_labels(owner), NAME: spec.name}
    try:
        metadata = names.encode_metadata(spec.metadata, prefix=_METADATA)
    except ValueError as error:
        raise api.Rejected(str(error)) from error
    lent = [[asdict(one) for one in options.configs], [asdict(one) for one in options.secrets]]
    digest = bodies.fingerprint([sorted(spec.metadata.items()), body, *lent])
    own = {**marks, **metadata, **work, DIGEST: digest}
    body = bodies.merged(
        body,
        {
            "Name": called,
            "Labels": {**_foreign(options.labels, body), **own},
            "TaskTemplate": {
                "ContainerSpec": {"Labels": {**_foreign(options.labels, inner), **own}},
                **_placement(task, spec.avoid),
            },
        },
    )
    return ServicePlan(
        name=spec.name,
        service=called,
        image=image,
        resolve=options.resolve,
        body=body,
        labels=marks,
        digest=digest,
        ids=bodies.ids(options.user),
        configs=options.configs,
        borrowed=options.secrets,
        runtime=brought,
        caches=tuple(
            container.bounded(
                options.volumes,
                bodies.section(bodies.section(body, "TaskTemplate"), "ContainerSpec").get(
                    "Mounts"
                ),
                spec,
                owner,
            )
        ),
        engine_root=root,
        secrets=spec.secret_files,
        given=tuple(
            GivenFile.of(file, content, owner=owner) for file, content in spec.given_files.items()
        ),
    )


def body(
    spec: api.InstanceSpec, configured: settings.SwarmSettings, *, owner: str
) -> Mapping[str, Any]:
    """Return the body that a launch would send, but for secrets and digest. Raises Rejected."""
    made = plan(spec, owner=owner, prefix=configured.name_prefix, runtimes=configured.runtimes)
    if made.runtime is not None and made.runtime.is_volume:
        made = made.with_volume(_ITS_CONTENT, ())
    return made.complete(made.image, {file: (_ITS_ID, file) for file in made.secrets})


def render(spec: api.InstanceSpec, configured: settings.SwarmSettings, *, owner: str) -> str:
    """Return it as JSON. Raises Rejected."""
    return json.dumps(body(spec, configured, owner=owner), indent=2) + "\n"


# --- the body ----------------------------------------------------------------------------------


def _body(
    spec: api.InstanceSpec, options: settings.SwarmTemplate, brought: settings.SwarmRuntime | None
) -> dict[str, Any]:
    resources = spec.resources
    limits = {
        "NanoCPUs": _nano(resources.cpu_limit),
        "MemoryBytes": resources.memory_bytes,
        "Pids": options.pids,
    }
    reserved = {
        "NanoCPUs": _nano(resources.cpu_shares),
        "MemoryBytes": resources.memory_reservation_bytes,
    }
    placement = {
        "Constraints": list(options.constraints),
        "Preferences": [{"Spread": {"SpreadDescriptor": label}} for label in options.spread],
        "Platforms": [_platform(text) for text in options.platforms],
    }
    task = {
        "ContainerSpec": _container(spec, options, brought),
        "Resources": bodies.without_nothing(
            {
                "Limits": bodies.without_nothing(limits),
                "Reservations": bodies.without_nothing(reserved),
            }
        ),
        "RestartPolicy": {"Condition": "none"},
        "Placement": bodies.without_nothing(placement),
        "Networks": [
            bodies.without_nothing(
                {"Target": name, "Aliases": [] if name in _OF_NODES else list(options.aliases)}
            )
            for name in options.networks
        ],
        "LogDriver": None
        if options.log_driver is None
        else {"Name": options.log_driver, "Options": dict(options.log_options)},
    }
    return {
        "TaskTemplate": bodies.without_nothing(task),
        "Mode": {"Replicated": {"Replicas": 1}},
        "EndpointSpec": _endpoint(options),
    }


def _endpoint(options: settings.SwarmTemplate) -> dict[str, Any]:
    """Return how it is reached from outside, if at all.

    No virtual address: nobody else calls an agent. Ports of the ingress network need one (20.10:
    "port published with ingress mode can't be used with dnsrr mode").
    """
    if not options.ports:
        return {"Mode": "dnsrr"}
    ports = [
        bodies.without_nothing(
            {
                "Protocol": one.protocol,
                "TargetPort": one.port,
                "PublishedPort": one.first,
                "PublishMode": options.publish_mode,
            }
        )
        for one in published.bindings(options.ports)
    ]
    return {"Mode": "vip" if options.publish_mode == "ingress" else "dnsrr", "Ports": ports}


_OF_NODES = frozenset({"host", "bridge", "ingress"})


def _container(
    spec: api.InstanceSpec, options: settings.SwarmTemplate, brought: settings.SwarmRuntime | None
) -> dict[str, Any]:
    words = spec.argv if brought is None else runtime.started(spec.argv)
    argv = [_put(word) for word in words]
    command: list[str] | None = None
    if options.entry_point is not None:
        command = list(options.entry_point)
    elif argv and not spec.use_entry_point:
        command, argv = argv, []
    dns = {"Nameservers": list(options.dns), "Search": list(options.dns_search)}
    return bodies.without_nothing(
        {
            "Image": spec.image,
            "Command": command,
            "Args": argv,
            "Env": [f"{key}={_put(text)}" for key, text in spec.env.items()],
            "User": bodies.user(options.user),
            "Groups": list(options.groups),
            "Mounts": [
                # a manager drops a mode with a sticky bit altogether
                container.volume_mount(volume, tmpfs_mode=0o777)
                for volume in (*options.volumes, *_scratch(spec, options))
            ]
            + ([] if brought is None else [_tree(brought)]),
            "StopGracePeriod": round(options.grace_s * 1e9),
            "Healthcheck": {"Test": ["NONE"]},  # the task would not run before it is healthy
            "Hosts": [_host(line) for line in options.extra_hosts],
            "DNSConfig": bodies.without_nothing(dns),
            "Init": options.init,
            "ReadOnly": options.read_only_root or None,
            "Privileges": {"NoNewPrivileges": True} if options.no_new_privileges else None,
            "CapabilityAdd": list(options.cap_add),
            "CapabilityDrop": list(options.cap_drop),
            "Ulimits": [
                {"Name": name, "Soft": most, "Hard": most}
                for name, most in sorted(options.ulimits.items())
            ],
        }
    )


def _folder(spec: api.InstanceSpec) -> tuple[str, str]:
    """Return where engines keep their data, and the volume that it works in. Raises Rejected."""
    pipelines.own_folder(spec)
    try:
        return folders.parts(spec.work_dir or "", spec.name)
    except ValueError as error:
        raise api.Rejected(
            f"docker_pipelines: socket: {error}; hint: {settings.FOLDER_HINT}"
        ) from error


def _with_socket(
    body: Mapping[str, Any], volume: str, folder: str, marks: Mapping[str, str]
) -> dict[str, Any]:
    """Return the same with the engine's socket, unless it has one, and a folder of its own.

    A folder that an engine makes is that of root alone: raises Rejected for another user.
    """
    inner = bodies.section(bodies.section(body, "TaskTemplate"), "ContainerSpec")
    if bodies.ids(str(inner.get("User") or ""))[0] != 0:
        raise api.Rejected(f"docker_pipelines: socket: {settings.ROOTS}; hint: user: '0'")
    told = inner.get("Mounts")
    mounts = [
        dict(one)
        for one in (told if isinstance(told, list) else [])
        if workspaces.normal(str(one.get("Target"))) != folder  # scratch of a read-only root
    ]
    if not any(workspaces.normal(str(one.get("Target"))) == container.SOCKET for one in mounts):
        mounts.append({"Type": "bind", "Source": container.SOCKET, "Target": container.SOCKET})
    options = {"NoCopy": True, "Labels": dict(marks)}
    mounts.append({"Type": "volume", "Source": volume, "Target": folder, "VolumeOptions": options})
    return bodies.merged(body, {"TaskTemplate": {"ContainerSpec": {"Mounts": mounts}}})


def _scratch(spec: api.InstanceSpec, options: settings.SwarmTemplate) -> Iterator[settings.Volume]:
    """Yield places to write to beside a read-only root, where the template has none.

    Volumes, not in memory: a tmpfs of a swarm runs no programs and loads no libraries.
    """
    targets = [workspaces.normal(volume.target) for volume in options.volumes]
    for path in ("/tmp", spec.work_dir or WORK) if options.read_only_root else ():  # noqa: S108
        if not any(path == place or path.startswith(f"{place}/") for place in targets):
            yield settings.Volume(target=path)


def _tree(brought: settings.SwarmRuntime) -> dict[str, Any]:
    """Return how a runtime comes into a container; which volume it is, is not known yet."""
    if brought.folder is None:
        return dict(_RUNTIME_MOUNT)
    return {**_RUNTIME_MOUNT, "Type": "bind", "Source": brought.folder}


def _placement(task: Mapping[str, Any], avoid: tuple[str, ...]) -> dict[str, Any]:
    """Return the section with the nodes that are not wanted; empty if all are."""
    if not avoid:
        return {}
    there = bodies.section(task, "Placement").get("Constraints")
    kept = list(there) if isinstance(there, list) else []
    away = [f"node.hostname!={name}" for name in avoid if re.fullmatch(r"[\w.-]+", name)]
    return {"Placement": {"Constraints": [*kept, *away]}}


def _foreign(labels: Mapping[str, str], under: Mapping[str, Any]) -> dict[str, Any]:
    told = {**labels, **bodies.section(under, "Labels")}
    return {key: value for key, value in told.items() if not key.startswith(PREFIX)}


def _nano(cores: float | None) -> int | None:
    return None if cores is None else round(cores * 1e9)


def _platform(text: str) -> dict[str, str]:
    system, _, architecture = text.partition("/")
    return bodies.without_nothing({"OS": system, "Architecture": architecture or None})


def _host(line: str) -> str:
    """Return a line as hosts(5) has it, from NAME:ADDRESS."""
    name, _, address = line.partition(":")
    return f"{address} {name}"


def _put(text: str) -> str:
    return _TOKENS.sub(lambda match: _PLACES[match.group()], text)
