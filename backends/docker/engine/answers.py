"""What an engine answers, as values, and whose fault its refusals are. Pure.

Every rule on a status or on words was seen on a real engine: tests/docker holds the recordings of
20.10. Refuses to know the SDK; what cannot be told from an answer is the platform's fault.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from attrs import Factory, frozen

from backends import api
from backends.kit import usage
from outside import addresses, text, typed

_LABELS_MAX = 4096
_NAMES_MAX = 16
_PORTS_MAX = 64
_PROTOCOL_MAX = 8
_IPV4, _IPV6 = "0.0.0.0", "::"  # noqa: S104 -- all addresses of a family, as engines tell it
_WORD_MAX = 64
_PATH_MAX = 4096
_TIME_MAX = 1e11  # POSIX seconds: the year 5138
_BYTES_MAX = _NANOSECONDS_MAX = 1 << 62
_CODE_MAX = 1 << 31
_NOT_BEGUN = frozenset({126, 127})
_NO_PROGRAM = re.compile(
    "OCI runtime exec failed|unable to start container process|executable file .{0,300}not found"
)
_NOT_RUNNING = re.compile(
    "is not running|is paused|is restarting|container .{0,100} (?:not running|stopped)"
)
_DIGEST = re.compile(r"[a-z0-9]{1,16}:[0-9a-f]{32,128}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@frozen(kw_only=True)
class Listed:
    """A container in a listing; what cannot be read of it is empty."""

    id: str
    labels: Mapping[str, str]
    state: str  # the engine's word
    created_at: float | None
    ports: tuple[api.Port, ...] = ()
    names: tuple[str, ...] = ()  # without the slash
    flawed: bool = False  # there are labels that cannot be read, or none that can


@frozen(kw_only=True)
class Inspected:
    """A container looked at."""

    id: str
    labels: Mapping[str, str]
    state: str
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started: bool = False
    finished_at: float | None = None
    memory_bytes: int | None = None
    image: str = ""  # its id
    mounts: tuple[str, ...] = ()  # where
    mounts_of: tuple[str, ...] = ()  # other containers, by name or id, whose mounts it has, too
    has_terminal: bool = False  # then its output is not in frames
    health: str = ""  # "healthy" if its own check says so; "" without one
    restarts: int = 0


@frozen(kw_only=True)
class ContainerEvent:
    """What happened to a container; ``at`` is the engine's clock, POSIX seconds, if it told."""

    id: str
    action: str
    at: float | None
    attributes: Mapping[str, str] = Factory(dict)


# --- reading answers ---------------------------------------------------------------------------

LAYER_DONE = frozenset({"Pull complete", "Already exists", "Download complete"})


def version(told: Any) -> tuple[int, int] | None:
    """Read a version of the API; None for what is none."""
    parts = re.fullmatch(r"([0-9]{1,4})\.([0-9]{1,4})", told) if isinstance(told, str) else None
    return None if parts is None else (int(parts[1]), int(parts[2]))


def stamp(told: Any) -> float | None:
    """Read the engine's time, RFC 3339 with nanoseconds; year 1 is never."""
    words = typed.words(told, _WORD_MAX)
    parts = re.fullmatch(r"(.{19})(\.\d+)?(.*)", words)
    if parts is None or words.startswith("0001-"):
        return None
    whole, fraction, zone = parts.groups()
    try:
        moment = datetime.fromisoformat(whole + zone.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return moment + float(fraction or 0)


def listed(entry: Any) -> Listed:
    """Read an entry of a listing. Raises ValueError for what is none.

    An odd value costs that value: an unknown state is taken for running, never for an end.
    """
    if not isinstance(entry, Mapping):
        raise ValueError("an entry that is not a container")  # noqa: TRY004 -- the caller's one kind
    names, labels = entry.get("Names"), texts(entry.get("Labels"))
    return Listed(
        id=plain_id(entry.get("Id")),
        labels=labels,
        flawed=not labels or len(labels) < len(entry["Labels"]),
        state=typed.words(entry.get("State"), _WORD_MAX),
        created_at=_moment(entry.get("Created")),
        ports=_ports(entry.get("Ports")),
        names=tuple(
            name.removeprefix("/")
            for name in (names[:_NAMES_MAX] if isinstance(names, list) else ())
            if isinstance(name, str)
        ),
    )


def _ports(listed: Any) -> tuple[api.Port, ...]:
    """Return published ports.

    Of one that is bound to all addresses the engine lists each family, maybe with another random
    port: that of IPv4 is enough.
    """
    found = set()
    for entry in listed[:_PORTS_MAX] if isinstance(listed, list) else ():
        told = _section(entry)
        inside = addresses.port(told.get("PrivatePort"))
        host_port = addresses.port(told.get("PublicPort"))
        if inside is not None and host_port is not None:
            protocol = typed.words(told.get("Type"), _PROTOCOL_MAX)
            address = addresses.plain(typed.words(told.get("IP"), _WORD_MAX))
            found.add((inside, protocol, address, host_port))
    everywhere = {(inside, protocol) for inside, protocol, address, _ in found if address == _IPV4}
    return tuple(
        api.Port(
            port=inside,
            protocol=protocol,
            address=addresses.own(address),
            host_port=host_port,
        )
        for inside, protocol, address, host_port in sorted(found)
        if address != _IPV6 or (inside, protocol) not in everywhere
    )


def inspected(entry: Mapping[str, Any]) -> Inspected:
    """Read an inspect. Raises ValueError if it does not even tell which, whose and in what state.

    An exit code that is none is taken for 0, a time for unknown.
    """
    state, host = entry.get("State"), _section(entry.get("HostConfig"))
    config = entry.get("Config")
    if not isinstance(state, Mapping) or not isinstance(config, Mapping):
        raise ValueError("it gives no state, or no configuration")  # noqa: TRY004 -- as above
    word, id_ = typed.words(state.get("Status"), _WORD_MAX), plain_id(entry.get("Id"))
    if not word or not id_:
        raise ValueError("it gives no state, or no id")
    mounts, taken = entry.get("Mounts"), host.get("VolumesFrom")
    return Inspected(
        id=id_,
        labels=texts(config.get("Labels")),
        state=word,
        exit_code=typed.integer(state.get("ExitCode"), -(1 << 31), 1 << 32) or 0,
        oom_killed=state.get("OOMKilled") is True,
        error=text.clean(typed.words(state.get("Error"), _PATH_MAX)),
        started=stamp(state.get("StartedAt")) is not None,
        finished_at=stamp(state.get("FinishedAt")),
        memory_bytes=typed.integer(host.get("Memory"), 0, _BYTES_MAX) or None,
        image=typed.words(entry.get("Image"), 256),
        mounts=tuple(
            typed.words(mount.get("Destination"), _PATH_MAX)
            for mount in (mounts[:_LABELS_MAX] if isinstance(mounts, list) else ())
            if isinstance(mount, Mapping)
        ),
        mounts_of=tuple(
            one.partition(":")[0].removeprefix("/")
            for one in (taken[:_NAMES_MAX] if isinstance(taken, list) else ())
            if isinstance(one, str)
        ),
        has_terminal=config.get("Tty") is True,
        health=typed.words(_section(state.get("Health")).get("Status"), _WORD_MAX),
        restarts=typed.integer(entry.get("RestartCount"), 0, 1 << 31) or 0,
    )


def sample(told: Mapping[str, Any], *, limit: int | None, at: float) -> usage.Sample | None:
    """Read a container's statistics; None if it does not run. ``limit``: what it may use, bytes.

    ``usage`` counts files that the kernel keeps in memory; those that it has not used of late
    (``inactive_file``; cgroup v1 says ``total_inactive_file``) go first, and are left out here, as
    ``docker stats`` does. ``max_usage`` is of v1. The limit in here is the machine's where a
    container has none.
    """
    memory, cpu = _section(told.get("memory_stats")), _section(told.get("cpu_stats"))
    used = typed.integer(memory.get("usage"), 0, _BYTES_MAX)
    spent = typed.integer(_section(cpu.get("cpu_usage")).get("total_usage"), 0, _NANOSECONDS_MAX)
    if not used and not spent:
        return None
    details = _section(memory.get("stats"))
    files = typed.integer(
        details.get("total_inactive_file", details.get("inactive_file")), 0, _BYTES_MAX
    )
    held = typed.integer(
        _section(cpu.get("throttling_data")).get("throttled_time"), 0, _NANOSECONDS_MAX
    )
    return usage.Sample(
        at=at,
        memory_bytes=max(0, used - (files or 0)) if used else None,
        memory_cached_peak_bytes=typed.integer(memory.get("max_usage"), 1, _BYTES_MAX),
        memory_limit_bytes=limit,
        cpu_s=spent / 1e9 if spent is not None else None,
        throttled_s=held / 1e9 if held is not None else None,
    )


def event(raw: Any) -> ContainerEvent:
    """Read an event. Raises ValueError for what is none; an odd time is unknown."""
    if not isinstance(raw, Mapping):
        raise ValueError("something that is not an event")  # noqa: TRY004 -- as above
    actor = _section(raw.get("Actor"))
    nanoseconds = typed.number(raw.get("timeNano"), 0.0, math.inf)
    at = nanoseconds / 1e9 if nanoseconds else _moment(raw.get("time"))
    return ContainerEvent(
        id=plain_id(actor.get("ID")),
        action=typed.words(raw.get("Action"), _WORD_MAX),
        at=at if at is not None and at <= _TIME_MAX else None,
        attributes=texts(actor.get("Attributes")),
    )


def security_options(info: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what an engine says of its security. Raises ValueError if that cannot be read."""
    told = info.get("SecurityOptions")
    if told is None:
        return ()
    if not isinstance(told, list) or not all(isinstance(option, str) for option in told):
        raise ValueError("its security options are not a list of texts")
    return tuple(told)


def created_at(entry: Mapping[str, Any]) -> float | None:
    """Return when a network was made, POSIX seconds by the engine's clock, if it says so."""
    return stamp(entry.get("Created"))


def identity(info: Mapping[str, Any]) -> str:
    """Return what tells one engine from another; empty if it does not say.

    Its ID, the name of its machine and where it keeps its data: engines whose disks were cloned
    have one ID, and so have several on one machine (20.10 makes it of ``/etc/docker/key.json``).
    """
    number, machine, data = (
        typed.words(info.get(key), limit)
        for key, limit in (
            ("ID", _WORD_MAX * 4),
            ("Name", _WORD_MAX * 4),
            ("DockerRootDir", _PATH_MAX),
        )
    )
    return f"{number} {machine} {data}" if number else ""


def swarm_place(info: Mapping[str, Any]) -> tuple[str, str]:
    """Return the id of an engine's node in its swarm, and where it keeps its data, if it says."""
    node = plain_id(_section(info.get("Swarm")).get("NodeID"))
    return node, typed.words(info.get("DockerRootDir"), _PATH_MAX)


def progress(line: Any) -> tuple[str, str, str]:
    """Read a line of a pull: error, layer, what is done with it. Raises ValueError.

    The layer is empty where the line is about none.
    """
    if not isinstance(line, Mapping):
        raise ValueError("a line that is not part of a pull")  # noqa: TRY004 -- as above
    if "error" in line or "errorDetail" in line:
        detail = _section(line.get("errorDetail")).get("message")
        words = typed.words(line.get("error"), _PATH_MAX) or typed.words(detail, _PATH_MAX)
        return text.clean(words) or "no reason is given", "", ""
    layer = typed.words(line.get("id"), _WORD_MAX) if "progressDetail" in line else ""
    return "", layer, typed.words(line.get("status"), _WORD_MAX)


def created_id(told: Mapping[str, Any]) -> str:
    """Return the id of a container that was created. Raises ValueError."""
    found_id = plain_id(told.get("Id"))
    if not found_id:
        raise ValueError("it gives no id of what it created")
    return found_id


def digest(told: Mapping[str, Any]) -> str:
    """Return the digest that a registry gives for a tag; empty if it gives none."""
    words = typed.words(_section(told.get("Descriptor")).get("digest"), 256)
    return words if _DIGEST.fullmatch(words) else ""


def status_code(told: Mapping[str, Any]) -> int:
    """Return how a container that was waited for ended. Raises ValueError."""
    code = typed.integer(told.get("StatusCode"), -(1 << 31), 1 << 32)
    if code is None:
        raise ValueError("it gives no status code")
    return code


def exec_status(told: Mapping[str, Any]) -> int | None:
    """Return the exit status of a command in a container; None while it runs. Raises ValueError.

    One that no shell has begun has 0 as soon as it is made.
    """
    if told.get("Running") is not False:
        return None
    return typed.integer(told.get("ExitCode"), -_CODE_MAX, _CODE_MAX)


def is_no_program(code: int | None, output: str) -> bool:
    """Tell whether a command has never begun, and its output is the engine's words why.

    20.10 says 126, later ones 127 as well; runc and crun have words of their own.
    """
    return code in _NOT_BEGUN and _NO_PROGRAM.search(output) is not None


def platform(told: Mapping[str, Any]) -> str:
    """Return what programs an engine runs, as its version tells it; empty if it does not."""
    parts = (plain_id(told.get("Os")), plain_id(told.get("Arch")))
    return "/".join(parts) if all(parts) else ""


def volumes(told: Mapping[str, Any]) -> dict[str, Mapping[str, str]]:
    """Return the labels of each volume, by name. Raises ValueError; an odd one is left out."""
    entries = told.get("Volumes")
    if entries is None:
        return {}
    if not isinstance(entries, list):
        raise ValueError("its volumes are not a list")  # noqa: TRY004 -- the caller's one kind
    return {
        name: texts(entry.get("Labels"))
        for entry in entries
        if isinstance(entry, Mapping) and (name := plain_id(entry.get("Name")))
    }


def volume_labels(told: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the labels of a volume that was looked at."""
    return texts(told.get("Labels"))


def volume_sizes(
    told: Mapping[str, Any], wanted: Mapping[str, str]
) -> dict[str, tuple[Mapping[str, str], int]]:
    """Return labels and bytes of each volume with these labels, by name.

    From API 1.52 on the volumes stand in a section of their own, which its documents and its
    engines call differently. One whose size is not known (-1: not of the local driver) is left
    out. Raises ValueError.
    """
    entries = told.get("Volumes")
    for key in ("VolumeUsage", "VolumesDiskUsage"):
        entries = _section(told.get(key)).get("Items") if entries is None else entries
    ours = {
        name: labels
        for name, labels in volumes({"Volumes": entries}).items()
        if all(labels.get(key) == text for key, text in wanted.items())
    }
    return {
        name: (ours[name], size)
        for entry in entries or ()
        if isinstance(entry, Mapping) and (name := plain_id(entry.get("Name"))) in ours
        if (size := _size(_section(entry.get("UsageData")).get("Size"))) is not None
    }


def _size(told: Any) -> int | None:
    size = typed.integer(told, -1, _BYTES_MAX)
    return None if size == -1 else size


def tags(entries: Sequence[Any], repository: str) -> list[str]:
    """Return the tags of a repository in a listing of images; what is odd is left out."""
    names = [
        name
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("RepoTags"), list)
        for name in entry["RepoTags"]
    ]
    start = f"{repository}:"
    return [
        name.removeprefix(start) for name in names
        if isinstance(name, str) and name.startswith(start) and plain_id(name.removeprefix(start))
    ]  # fmt: skip


def variable(entry: Mapping[str, Any], name: str) -> str | None:
    """Return what an image has in its environment under that name; None if it says nothing."""
    lines = _section(entry.get("Config")).get("Env")
    for line in lines[:_LABELS_MAX] if isinstance(lines, list) else ():
        key, _, value = typed.words(line, _PATH_MAX).partition("=")
        if key == name:
            return value
    return None


def plain_id(told: Any) -> str:
    """Return what goes into URLs; empty for what cannot."""
    return told if isinstance(told, str) and _ID.fullmatch(told) else ""


def _moment(told: Any) -> float | None:
    seconds = typed.number(told, 0.0, math.inf)
    return seconds if seconds is not None and 0 < seconds <= _TIME_MAX else None


def _section(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, Mapping) else {}


def texts(section: Any) -> dict[str, str]:
    """Return the entries that are texts."""

    def entries() -> Iterator[tuple[str, str]]:
        for number, (key, value) in enumerate(_section(section).items()):
            if number >= _LABELS_MAX:
                return
            if isinstance(value, str):
                yield key, value

    return dict(entries())


# --- errors ------------------------------------------------------------------------------------

_SICK = (
    r"no space left on device|cannot allocate memory|resource temporarily unavailable"
    r"|too many open files|input/output error|i/o timeout|deadline exceeded"
    r"|creating overlay mount|transport is closing|is shutting down"
)
_VOLUME = (
    r"looking up \w{1,20} plugin|plugin \S{1,80} not found|mounting volume|failed to mount"
    r"|invalid mount|mount denied|volume driver"
)
_PROCESS = (
    r"error during container init|error mounting|unable to apply caps|exec format error"
    r"|unable to start container process: (exec|chdir)|seccomp|apparmor|selinux|sysctl"
    r"|storage-opt|storage option|cannot unmarshal|is not a directory|unknown runtime"
    r"|invalid reference|read-only"
)
_TEMPLATE, _PLACE = api.Reach.TEMPLATE, api.Reach.PLACE


@frozen
class RefusalWords:
    """What some words of an engine mean: the error, how far it reaches, and what to say."""

    words: str  # a regular expression
    kind: type[api.BackendError]
    reach: api.Reach
    meaning: str = ""


_REFUSALS = (
    # the host's, whoever asks: another engine may do it, a person has to act
    RefusalWords(r"client version .{0,40} is too (new|old)", api.Unauthorized, _PLACE,
            "hint: `api_version`"),
    RefusalWords(r"HTTP request to an HTTPS server", api.Unauthorized, _PLACE,
            "hint: `tls: true` of the host"),
    # what the template asks for is taken there
    RefusalWords(r"port is already allocated|address already in use|all ports are allocated",
            api.NoCapacity, _TEMPLATE,
            "a published port is taken"),
    RefusalWords(r"no available (IPv4 |IPv6 )?addresses|could not find an available",
            api.NoCapacity, _TEMPLATE, "its networks are full"),
    # the host is full or sick
    RefusalWords(_SICK, api.Unavailable, _PLACE),
    # the template's
    RefusalWords(r"unable to find (user|group)|no matching entries in (passwd|group)",
            api.Rejected, _TEMPLATE, "hint: `user` and `groups` of the template"),
    RefusalWords(r"network \S{1,80} not found|could not attach to network|No such network",
            api.Rejected, _TEMPLATE, "hint: `network` of the template"),
    RefusalWords(r"could not select device driver|gathering device information|device nodes",
            api.Rejected, _TEMPLATE,
            "hint: the devices of the template, and the host's drivers for them"),
    RefusalWords(r"rlimit", api.Rejected, _TEMPLATE, "hint: `ulimits` of the template"),
    RefusalWords(_VOLUME, api.Rejected, _TEMPLATE,
            "hint: `volumes` of the template, and the host's drivers for them"),
    RefusalWords(_PROCESS, api.Rejected, _TEMPLATE),
)  # fmt: skip
"""What an engine's words mean, whatever the status beside them; the first that fits."""

_NO_CONTAINER = re.compile(r"no such (container|volume)|could not find the file", re.IGNORECASE)
_NO_IMAGE = re.compile(
    r"no such image|image not known|does not match the specified platform", re.IGNORECASE
)
_PULL_DENIED = re.compile(r"unauthorized|authentication required|no basic auth", re.IGNORECASE)
_PULL_WRONG = re.compile(
    r"not found|manifest unknown|access denied|does not exist|invalid reference|no matching",
    re.IGNORECASE,
)
_HOST_FULL = re.compile(
    r"no space left on device|cannot allocate memory|too many open files|input/output error"
    r"|is shutting down",
    re.IGNORECASE,
)
_PULL_AWAY = re.compile(r"dial tcp|no such host|refused|timeout|toomanyrequests", re.IGNORECASE)


def refusal(status: int, words: str, *, retry_after: float | None = None) -> api.BackendError:
    """Map an answer of the engine that is no success; ``words`` are clean.

    What nobody has heard of reaches as far as the engine, which is ``Reach.PLACE``.
    """
    if status in {401, 403}:
        return api.Unauthorized(f"the engine says {status}: {words}", reach=_PLACE)
    for row in _REFUSALS:
        if re.search(row.words, words, re.IGNORECASE):
            if row.meaning.startswith("hint: "):
                return row.kind(f"the engine refuses: {words}; {row.meaning}", reach=row.reach)
            return row.kind(f"{row.meaning or 'the engine refuses'}: {words}", reach=row.reach)
    if status == 404 and _NO_CONTAINER.search(words):
        return api.NotFound(words)
    if status in {400, 409}:
        return api.Rejected(f"the engine refuses: {words}")
    return api.Unavailable(
        f"the engine says {status}: {words}", retry_after=retry_after, reach=_PLACE
    )


def refused_launch(status: int, words: str, *, container_id: str = "") -> api.BackendError:
    """Map a refused creation or start; ``container_id`` is the container that it was about.

    The engine has read what the template asks for, and answers about that: a plugin of it that
    does not allow it, or an error that nobody has heard of, may mean this template alone. Who is
    wrong about that costs every template one try. Another container that is missing was named by
    the template.
    """
    error = refusal(status, words)
    if isinstance(error, api.NotFound) and not (container_id and container_id in words):
        return api.Rejected(f"the engine refuses: {words}; hint: the template names it")
    is_known = any(re.search(row.words, words, re.IGNORECASE) for row in _REFUSALS)
    if status == 403 or (status == 500 and not is_known):
        return type(error)(error.reason, retry_after=error.retry_after, reach=_TEMPLATE)
    return error


def refused_exec(status: int, words: str) -> api.BackendError:
    """Map a refused command: of a container that does not run there is nothing to be run in."""
    if _NOT_RUNNING.search(words):
        return api.NotFound(words)
    if status in {400, 404, 500} and _NO_PROGRAM.search(words):
        return api.Rejected(f"the engine refuses: {words}")
    return refusal(status, words)


def refused_pull(status: int | None, words: str) -> api.BackendError:
    """Map what a registry says, by way of the engine; it hides the registry's status.

    All of it is the trouble of those who want that image, unless the host's disk is full.
    """
    if _HOST_FULL.search(words):
        return api.Unavailable(f"the image cannot be pulled: {words}", reach=_PLACE)
    if _PULL_AWAY.search(words):
        return api.Unavailable(f"the registry cannot be reached: {words}", reach=_TEMPLATE)
    if _PULL_DENIED.search(words) and not _PULL_WRONG.search(words):
        return api.Unauthorized(
            f"the registry refuses: {words}; hint: `registries`", reach=_TEMPLATE
        )
    if _PULL_WRONG.search(words) or status in {400, 404}:
        return api.Rejected(f"the image cannot be pulled: {words}")
    return api.Unavailable(f"the image cannot be pulled: {words}", reach=_TEMPLATE)


_TLS = (
    (r"WRONG_VERSION|wrong version|UNKNOWN_PROTOCOL|HTTP_REQUEST",
     "it does not speak TLS there; hint: its port, or `tls: false`"),
    (r"mismatch, certificate|doesn't match",
     "its certificate is for another name; hint: a name of the certificate in `url`"),
    (r"verify failed.*expired", "its certificate has expired; hint: that host needs a new one"),
    (r"verify failed.*not yet valid", "its certificate is not valid yet; hint: both clocks"),
    (r"verify failed", "its certificate is signed by somebody else; hint: `ca_file`"),
    (r"VALUES_MISMATCH", "our key is not that of our certificate; hint: `key_file`"),
    (r"alert|violation of protocol",
     "it does not accept our certificate, or that we have none; hint: `cert_file`"),
)  # fmt: skip


_SSH = (
    (r"host key verification failed",
     "`ssh` to it once, as the broker's user, says whose key that is (known_hosts)"),
    (r"permission denied while trying|docker daemon socket",
     "the user there needs the group of its engine's socket"),
    (r"permission denied|too many authentication failures",
     "a key of the broker's user that needs no password: ~/.ssh, or SSH_AUTH_SOCK"),
    (r"docker.*not found|not found.*docker",
     "it needs `docker` there, 18.09 or later, in the PATH of a command by ssh"),
    (r"no such file or directory: 'ssh'", "install the OpenSSH client beside the broker"),
)  # fmt: skip


def refused_tls(url: str, words: str) -> api.Unauthorized:
    """Say whose certificate is wrong, from the words of OpenSSL."""
    for pattern, meaning in _TLS:
        if re.search(pattern, words, re.IGNORECASE):
            return api.Unauthorized(f"{url}: {meaning} ({words})")
    return api.Unauthorized(f"{url}: {words}; hint: `ca_file`, `cert_file` of the host")


def refused_ssh(words: str) -> api.BackendError:
    """Say who has to act where an ssh ended, from its words."""
    for pattern, hint in _SSH:
        if re.search(pattern, words, re.IGNORECASE):
            return api.Unauthorized(f"{words}; hint: {hint}")
    return api.Unavailable(words)


def is_missing_image(status: int, words: str) -> bool:
    """Tell whether a creation failed for its image alone."""
    return status == 404 and _NO_IMAGE.search(words) is not None


def innermost(error: BaseException) -> str:
    """Return the last cause's words, clean: libraries wrap the operating system's three times."""
    seen: BaseException = error
    while (inner := seen.__cause__ or seen.__context__) is not None:
        seen = inner
    return text.clean(str(seen)) or type(seen).__name__
