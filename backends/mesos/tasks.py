"""From an instance specification to the TaskInfo of a command task, and back from its labels.

Pure. The agent's command line may name places that only the sandbox knows (``${work}``,
``${files}``, ``${secrets}``), and secrets must reach a private file without passing a command line
or a label. What a task is told in its environment or as a secret volume, others see (decision
44), so by default the secrets are fetched by Mesos' fetcher, each from a URL that answers once.
The task is a small shell script: see that the secrets are there, keep fetched ones open and take
their names away, link the work directory to where the controller was told it is, replace itself by
the agent. Refuses to know offers beyond what one gives to its task, and what the command does.
"""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from backends import api
from backends.kit import names, runtime
from backends.mesos import containers, offers, settings
from outside import addresses, quotes, text

PREFIX = "agent-broker/"
_DIGEST, _CREATED, _TRAITS = "digest.spec", "created.at", "traits.agent"
_PLACE, _PORTS = "place.agent", "ports.agent"
_MAPPED = re.compile(r"(\d{1,5}):(\d{1,5})")
_PORTS_MAX = 256
_SECRET = "AGENT_BROKER_SECRET_"  # noqa: S105 -- the name of a variable
_SANDBOX = '"$MESOS_SANDBOX"'
_TOKEN = re.compile("|".join(map(re.escape, (api.SECRETS, api.WORK, api.FILES))))
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MB = 1 << 20
_TOOLS_TOO = (
    f'export PATH="${{PATH:-{runtime.USUAL_PATH}}}:{runtime.TOOLS}"',
    "mkdir -p -m 1777 /tmp 2>/dev/null",
)
"""What images without Java may lack, too."""
_HANDED = "http://(handover.url)/(a word that is good once)"
NOT_MOUNTED = (
    "the secret volume is not there; hint: the Mesos agent needs --launcher=linux and the "
    "isolators filesystem/linux,volume/secret, or the template says `secrets: environment`"
)
"""What the script of a task writes when Mesos did not mount its secrets."""
NOT_FETCHED = "the secret was not fetched; hint: `handover` of the backend, the agent's stderr"
"""What the script of a task writes when Mesos' fetcher did not bring its secrets."""


def check(spec: api.InstanceSpec) -> settings.MesosTemplate:
    """Return the template's settings; raises Rejected for what Mesos cannot run."""
    problem = names.name_problem(spec.name)
    if problem is None and (spec.use_entry_point or not spec.argv):
        problem = "the Mesos backend needs a command; hint: set `command` in the template"
    for name in (*spec.secret_files, *spec.given_files, *(file.name for file in spec.files)):
        if problem is None and names.name_problem(name) is not None:
            problem = (
                f"the file name {quotes.shown(name)} is not a plain name; hint: no '/', no spaces"
            )
    for name in spec.env:
        if problem is None and not _VARIABLE.fullmatch(name):
            problem = (
                f"the environment variable {quotes.shown(name)} has no name that a shell can set"
            )
    options = spec.options if spec.options is not None else settings.MesosTemplate()
    if problem is None and not isinstance(options, settings.MesosTemplate):
        problem = f"the template's options are {type(options).__name__}, not MesosTemplate"
    if problem is None:
        problem = containers.contradiction(spec, options)
    if problem is not None:
        raise api.Rejected(problem)
    return options


def digest(spec: api.InstanceSpec) -> str:
    """Return what tells two specifications apart; secrets are left out."""
    parts: list[Any] = [
        spec.name,
        sorted(spec.metadata.items()),
        spec.argv,
        sorted(spec.env.items()),
    ]
    parts += [spec.image, [(file.url, file.name) for file in spec.files]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def need(spec: api.InstanceSpec) -> offers.Need:
    """Return what the scheduler has to find for it."""
    template, resources = check(spec), spec.resources
    cpus = _first(resources.cpu_shares, resources.cpu_limit, template.default_cpus)
    memory = _first(
        resources.memory_reservation_bytes if template.limits else None,
        resources.memory_bytes,
        resources.memory_reservation_bytes,
        template.default_memory_bytes,
    )
    scalars = {
        "cpus": round(cpus * 1000),
        "mem": -(-int(memory) // _MB) * 1000,
        "disk": -(-template.disk_bytes // _MB) * 1000,
        "gpus": template.gpus * 1000,
    }
    return offers.Need(
        name=spec.name,
        scalars={name: amount for name, amount in scalars.items() if amount > 0},
        ports=len(template.network.ports),
        ranges=template.network.ranges,
        constraints=template.constraints,
        avoid=frozenset(spec.avoid),
        group=spec.metadata.get(names.TEMPLATE, ""),
    )


def way(spec: api.InstanceSpec, configured: settings.MesosSettings) -> str:
    """Return how the secrets go to the task, "" without any. Raises Rejected if none is chosen."""
    template = check(spec)
    if not spec.secret_files:
        return ""
    if template.secrets in {None, "fetch"} and configured.handover is None:
        raise api.Rejected(
            "no way for the agent's secret to its task is chosen; hint: `handover` of the "
            "backend, or `secrets: volume` or `environment` of the template"
        )
    return template.secrets or "fetch"


def info(
    spec: api.InstanceSpec,
    *,
    configured: settings.MesosSettings,
    created_at: float,
    handed: Mapping[str, str] = {},
    given: Mapping[str, str] = {},
    login: bytes | None = None,
) -> dict[str, Any]:
    """Return the TaskInfo without agent and resources; it holds secrets.

    ``handed``: name of a secret file to the URL that gives it once, where they are fetched;
    ``given``: the same of files that are no secrets, which are given again and again;
    ``login``: what the template's ``image_login_file`` holds.
    """
    template, secrets = check(spec), way(spec, configured)
    if template.gpus and not configured.gpus:
        raise api.Rejected("no agent with GPUs makes us offers; hint: `gpus: true` of the backend")
    ours: dict[str, Any] = {
        "name": spec.name,
        "task_id": {"value": spec.name},
        "command": _command(spec, template, configured, handed=handed, given=given),
        "labels": {"labels": _labels(spec, created_at, template.network.ports)},
        "kill_policy": {"grace_period": _nanoseconds(template.kill_grace_s)},
    }
    secret_volumes = {}
    if secrets == "volume":
        secret_volumes = {
            f"secrets/{name}": _base64(content) for name, content in spec.secret_files.items()
        }
    container = containers.container(
        spec,
        template,
        secret_volumes=secret_volumes,
        login=None if login is None else base64.b64encode(login).decode(),
    )
    if container:
        ours["container"] = container
    if template.max_completion_time_s is not None:
        ours["max_completion_time"] = _nanoseconds(template.max_completion_time_s)
    if template.health_command is not None:
        ours["health_check"] = {
            "type": "COMMAND",
            "command": {"value": template.health_command, "shell": True},
        }
    if template.limits and (limits := _limits(spec)):
        ours["limits"] = limits
    merged: dict[str, Any] = _merge(ours, template.raw)
    merged["task_id"], merged["labels"] = ours["task_id"], _both(ours, merged)
    if "container" in merged:
        merged["container"] = names.named(merged["container"], spec.name)
    return merged


def work_dir(configured: settings.MesosSettings, name: str) -> str:
    """Return the link into the sandbox that the task makes before the agent starts."""
    return f"{configured.work_root}/{name}"


def body(
    spec: api.InstanceSpec, configured: settings.MesosSettings, *, owner: str
) -> Mapping[str, Any]:
    """Return the TaskInfo of a launch, as far as no offer decides it. Raises Rejected."""
    del owner  # the framework's, not the task's
    handed = {}
    if way(spec, configured) == "fetch":
        handed = {name: f"{_HANDED}/{name}" for name in spec.secret_files}
    return info(spec, configured=configured, created_at=0.0, handed=handed)


def render(spec: api.InstanceSpec, configured: settings.MesosSettings, *, owner: str) -> str:
    """Return it as JSON, of a specification whose secrets are none. Raises Rejected."""
    return json.dumps(body(spec, configured, owner=owner), indent=2) + "\n"


def placed(wanted: Mapping[str, Any], placement: offers.Placement) -> dict[str, Any]:
    """Return the TaskInfo with what the offer decides: agent, resources, ports, labels."""
    task = {
        **wanted,
        "agent_id": {"value": placement.agent_id},
        "resources": [*placement.resources, *wanted.get("resources", ())],
    }
    labels = [
        _with_offered(one, placement.ports) if one["key"] == f"{PREFIX}{_PORTS}" else one
        for one in wanted.get("labels", {}).get("labels", ())
    ]
    labels.append({"key": f"{PREFIX}{_PLACE}", "value": placement.hostname})
    if placement.traits:
        traits = {"key": f"{PREFIX}{_TRAITS}", "value": json.dumps(dict(placement.traits))}
        labels.append(traits)
    task["labels"] = {"labels": labels}
    return _with_ports(task, placement.ports) if placement.ports else task


# --- and back ---


def labels_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a TaskInfo, or of a task as the master's pages show it."""
    labels = told.get("labels", ())
    pairs = labels.get("labels", ()) if isinstance(labels, Mapping) else labels
    return {one["key"]: one.get("value", "") for one in pairs}


def metadata(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the broker's metadata; raises ValueError when it was damaged."""
    own = {f"{PREFIX}{name}" for name in (_DIGEST, _CREATED, _TRAITS, _PLACE, _PORTS)}
    others = {key: value for key, value in labels.items() if key not in own}
    return names.decode_metadata(others, prefix=PREFIX)


def group_of(labels: Mapping[str, str]) -> str:
    """Return the group that its constraints look at; empty if unknown."""
    try:
        return metadata(labels).get(names.TEMPLATE, "")
    except ValueError:
        return ""


def digest_of(labels: Mapping[str, str]) -> str:
    """Return the digest of the specification that a task was made from; empty if unknown."""
    return labels.get(f"{PREFIX}{_DIGEST}", "")


def created_at(labels: Mapping[str, str]) -> float | None:
    """Return when the launch was asked for, POSIX seconds."""
    try:
        return float(labels.get(f"{PREFIX}{_CREATED}", ""))
    except ValueError:
        return None


def place_of(labels: Mapping[str, str]) -> str:
    """Return the host name of the Mesos agent that it was given to; empty if unknown."""
    return text.clean(labels.get(f"{PREFIX}{_PLACE}", ""))


def ports_of(labels: Mapping[str, str]) -> tuple[api.Port, ...]:
    """Return the ports of its Mesos agent that a task was given; what cannot be read is left out.

    They were written when it was given to an offer: no page tells which of a container's ports is
    which of the agent's, and of a task in the agent's network nobody else knows what they are for.
    """
    found = []
    for pair in labels.get(f"{PREFIX}{_PORTS}", "").split(",")[:_PORTS_MAX]:
        parts = _MAPPED.fullmatch(pair)
        inside, host_port = (int(parts[1]), int(parts[2])) if parts else (0, 0)
        if addresses.port(inside) and addresses.port(host_port):
            found.append(api.Port(port=inside, host_port=host_port))
    return tuple(found)


def traits_of(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of its agent that its constraints look at."""
    try:
        told = json.loads(labels.get(f"{PREFIX}{_TRAITS}", "{}"))
        return {str(key): str(value) for key, value in told.items()}
    except (ValueError, AttributeError):
        return {}


# --- inside ---


def _command(
    spec: api.InstanceSpec,
    template: settings.MesosTemplate,
    configured: settings.MesosSettings,
    *,
    handed: Mapping[str, str],
    given: Mapping[str, str],
) -> dict[str, Any]:
    secrets = way(spec, configured)
    variables: list[dict[str, Any]] = []
    if secrets == "environment":
        # a plain one: those of type SECRET stay in a command line for as long as the task runs
        variables += [
            {"name": f"{_SECRET}{number}", "type": "VALUE", "value": content}
            for number, content in enumerate(spec.secret_files.values())
        ]
    uris = [_fetched(file.url, f"files/{file.name}") for file in spec.files]
    uris += [_fetched(url, f"files/{name}") for name, url in given.items()]
    uris += [_fetched(url, f"secrets/{name}") for name, url in handed.items()]
    for uri in template.uris:
        one: dict[str, Any] = {
            "value": uri.value,
            "extract": uri.extract,
            "executable": uri.executable,
            "cache": uri.cache,
        }
        uris.append(one | ({"output_file": uri.output_file} if uri.output_file else {}))
    text_of_it = script(spec, work_root=configured.work_root, secrets=secrets)
    command: dict[str, Any] = {"shell": True, "value": text_of_it}
    if spec.runtime is not None:  # the image may have no shell
        uris.append(_archive(spec.runtime, configured))
        command = {"shell": False, "arguments": ["-c", text_of_it]}
        if template.containerizer == "mesos":
            shell = f"{runtime.TOOLS}/sh"
            command = {"shell": False, "value": shell, "arguments": ["sh", "-c", text_of_it]}
    command["user"] = template.user or configured.user
    if variables:
        command["environment"] = {"variables": variables}
    return command | ({"uris": uris} if uris else {})


def _fetched(url: str, place: str) -> dict[str, Any]:
    """Return what the fetcher is told of a file that comes into the sandbox as it is."""
    return {
        "value": url,
        "extract": False,
        "executable": False,
        "cache": False,
        "output_file": place,
    }


def _archive(name: str, configured: settings.MesosSettings) -> dict[str, Any]:
    """Return what the fetcher is told of a runtime. Raises Rejected."""
    brought = runtime.find(name, configured.runtimes)
    return {
        "value": brought.uri,
        "extract": True,
        "executable": False,
        "cache": brought.cache,
    }


def script(spec: api.InstanceSpec, *, work_root: str, secrets: str) -> str:
    """Return the shell script that becomes the agent; it holds no secret.

    ``secrets``: the way that they come, as ``way`` tells it.
    """
    work = shlex.quote(f"{work_root}/{spec.name}")
    root = shlex.quote(work_root)
    lines = [
        "umask 077",
        'cd "$MESOS_SANDBOX" || exit 126',
        "exec > agent.log 2>&1",
        "mkdir -p secrets files work",
    ]
    for number, name in enumerate(spec.secret_files):
        place = f"secrets/{name}"
        if secrets == "environment":
            variable = f"{_SECRET}{number}"
            lines.append(f'printf %s "${{{variable}}}" > {place}; unset {variable}')
            continue
        # an agent without the isolator may ignore a volume
        words = shlex.quote(NOT_MOUNTED if secrets == "volume" else NOT_FETCHED)
        lines.append(f"test -r {place} && test -s {place} || {{ echo {words}; exit 126; }}")
        if secrets == "fetch":
            lines += _kept_open(place, number)
    lines += [
        *(_TOOLS_TOO if spec.runtime is not None else ()),
        f"mkdir -p -m 1777 {root} 2>/dev/null",
        # links whose sandbox is gone: nobody else removes them
        f'for link in {root}/*; do [ -e "$link" ] || rm -f "$link"; done 2>/dev/null',
        f'rm -f {work}; ln -s "$MESOS_SANDBOX/work" {work} || exit 126',
        *(f"export {name}={_word(value, work)}" for name, value in spec.env.items()),
        "umask 022",
        "exec " + " ".join(_word(word, work) for word in spec.argv),
    ]
    return "\n".join(lines)


def _kept_open(place: str, number: int) -> list[str]:
    """Return how a file is held by the task alone: the agent's pages show sandboxes to anybody.

    A shell knows nine of these by number; what does not fit stays a private file.
    """
    descriptor = number + 3
    if descriptor > 9:
        return [f"chmod 600 {place}"]
    return [
        f"exec {descriptor}< {place}",
        f"rm -f {place} && ln -s /proc/self/fd/{descriptor} {place}",
    ]


def _word(text: str, work: str) -> str:
    """Quote for the shell, with our placeholders as places of the sandbox."""
    places = {
        api.SECRETS: f"{_SANDBOX}/secrets",
        api.FILES: f"{_SANDBOX}/files",
        api.WORK: work,
    }
    words, end = [], 0
    for found in _TOKEN.finditer(text):
        words += [_quoted(text[end : found.start()]), places[found.group()]]
        end = found.end()
    return "".join([*words, _quoted(text[end:])]) or "''"


def _quoted(text: str) -> str:
    return shlex.quote(text) if text else ""


def _labels(spec: api.InstanceSpec, at: float, ports: Sequence[int] = ()) -> list[dict[str, str]]:
    labels = names.encode_metadata(spec.metadata, prefix=PREFIX)
    labels[f"{PREFIX}{_DIGEST}"] = digest(spec)
    labels[f"{PREFIX}{_CREATED}"] = repr(at)
    if ports:
        labels[f"{PREFIX}{_PORTS}"] = ",".join(map(str, ports))
    return [{"key": key, "value": value} for key, value in labels.items()]


def _limits(spec: api.InstanceSpec) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if spec.resources.cpu_limit is not None:
        limits["cpus"] = {"value": spec.resources.cpu_limit}
    if spec.resources.memory_bytes is not None:
        limits["mem"] = {"value": -(-spec.resources.memory_bytes // _MB)}
    return limits


def _with_offered(label: Mapping[str, str], ports: Sequence[int]) -> dict[str, str]:
    """Return the label of the container's ports with the offered one of each."""
    pairs = zip(label["value"].split(","), ports, strict=False)
    return {**label, "value": ",".join(f"{inside}:{port}" for inside, port in pairs)}


def _with_ports(task: dict[str, Any], ports: Sequence[int]) -> dict[str, Any]:
    """Give the port mappings, in their order, the host ports that were offered."""

    def filled(mappings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        pairs = zip(mappings, ports, strict=False)
        return [{**mapping, "host_port": port} for mapping, port in pairs]

    container = dict(task.get("container", {}))
    if "port_mappings" in container.get("docker", {}):
        docker = container["docker"]
        container["docker"] = {**docker, "port_mappings": filled(docker["port_mappings"])}
    networks = container.get("network_infos", ())
    if networks and "port_mappings" in networks[0]:
        first = {**networks[0], "port_mappings": filled(networks[0]["port_mappings"])}
        container["network_infos"] = [first, *networks[1:]]
    variables = [*task["command"].get("environment", {}).get("variables", ())]
    variables += [
        {"name": f"PORT{number}", "type": "VALUE", "value": str(port)}
        for number, port in enumerate(ports)
    ]
    command = {**task["command"], "environment": {"variables": variables}}
    return {**task, "command": command} | ({"container": container} if container else {})


def _merge(told: Any, raw: Any) -> Any:
    """Merge mappings by key; anything else of ``raw`` takes the place of what was told."""
    if isinstance(told, Mapping) and isinstance(raw, Mapping):
        merged = dict(told)
        for key, value in raw.items():
            merged[key] = _merge(told[key], value) if key in told else value
        return merged
    return raw


def _both(told: Mapping[str, Any], merged: Mapping[str, Any]) -> dict[str, Any]:
    """Keep our labels, whatever the raw part says, and add those it brings."""
    ours = told["labels"]["labels"]
    own = {one["key"] for one in ours}
    more = [one for one in merged["labels"].get("labels", ()) if one["key"] not in own]
    return {"labels": [*ours, *more]}


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _nanoseconds(seconds: float) -> dict[str, int]:
    return {"nanoseconds": round(seconds * 1e9)}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
