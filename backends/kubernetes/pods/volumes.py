"""What of a pod's file systems outlives the pod, and where pods of one template would meet in it.

Pure. Reads the parts of pods that a user wrote, never complains about their shape: the API server
does. Refuses to know what is done about it.
"""

import json
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from backends.kit import names, perils, workspaces
from backends.kubernetes.pods import merge
from outside import addresses

AGENT = "jnlp"
"""The container that the agent runs in, unless a template names another one."""
WORK_VOLUME = "workspace"
THEIR_WORK_VOLUME = "workspace-volume"
"""What the Kubernetes plugin calls it, and pods that were written for that."""
_OWN = ("emptyDir", "ephemeral", "secret", "configMap", "downwardAPI", "projected", "image")
"""Volumes that begin and end with the pod, or that nobody can write to."""
_NODE = "its node"
_OF_THE_NODE = {
    "hostNetwork": "the network, loopback too,",
    "hostPID": "the processes",
    "hostIPC": "the shared memory",
}
_POD_FIELDS = ("metadata.name", "metadata.uid")
_GIVEN = "JENKINS_AGENT_NAME"  # a variable that images of agents get, another one for each
_THE_BROKERS = "JENKINS_"
_VARIABLE = re.compile(r"\$\(([^)$]{1,64})\)")


def merged(layers: Sequence[Mapping[str, Any]], agent: str = AGENT) -> Mapping[str, Any]:
    """Return the body of a pod that these layers make, without what a launch adds."""
    body: Mapping[str, Any] = _section(whole(layers, agent).get("spec"))
    return body


def whole(layers: Sequence[Mapping[str, Any]], agent: str = AGENT) -> Mapping[str, Any]:
    """Return the pod that these layers make, without what a launch adds; empty if they do not.

    ``agent``: the name of its container that the agent runs in.
    """
    pod: Mapping[str, Any] = {
        "spec": {
            "containers": [{"name": agent}],
            "volumes": [{"name": WORK_VOLUME, "emptyDir": {}}],
        }
    }
    try:
        for layer in layers:
            pod = merge.merge(pod, layer)
    except (AttributeError, merge.MergeError):
        return {}  # told by others
    finished = merge.finish(pod)
    share(finished)
    return finished


def containers(layers: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the containers that layers of a pod speak of, by name, what is said of each merged.

    In their order; none where the layers cannot be laid over each other.
    """
    pod: Mapping[str, Any] = {}
    try:
        for layer in layers:
            pod = merge.merge(pod, layer)
    except (AttributeError, merge.MergeError):
        return {}  # told by others
    body = _section(merge.finish(dict(pod)).get("spec"))
    return {str(one.get("name")): one for one in _entries(body.get("containers"))}


def share(pod: dict[str, Any]) -> None:
    """Take the plugin's name of the shared directory for ours, in a merged pod.

    Where it is declared as anything but an empty directory it is a volume of the user's own.
    """
    body = _section(pod.get("spec"))
    told = [v for v in _entries(body.get("volumes")) if v.get("name") == THEIR_WORK_VOLUME]
    if any(set(volume) - {"name", "emptyDir"} for volume in told):
        return
    volumes = [v for v in _entries(body.get("volumes")) if v not in told]
    for volume in told:  # its size and medium, unless ours has some
        for ours in volumes:
            if ours.get("name") == WORK_VOLUME and ours.get("emptyDir") == {}:
                ours["emptyDir"] = volume.get("emptyDir") or {}
    if told:
        body["volumes"] = volumes
    for _, mount in mounts(body):
        if mount.get("name") == THEIR_WORK_VOLUME:
            mount["name"] = WORK_VOLUME


def mounts(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what each container of a pod mounts, with the container's name."""
    for _, container, mount in _placed_mounts(body):
        yield container, mount


def _placed_mounts(
    body: Mapping[str, Any],
) -> Iterator[tuple[tuple[str | int, ...], str, dict[str, Any]]]:
    for kind in ("initContainers", "containers"):
        for number, container in _numbered(body.get(kind)):
            for key in ("volumeMounts", "volumeDevices"):
                for at, mount in _numbered(container.get(key)):
                    yield (kind, number, key, at), str(container.get("name")), mount


def names_of(body: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the names of a pod's volumes."""
    for volume in _entries(body.get("volumes")):
        yield volume.get("name")


def missing(
    body: Mapping[str, Any], *, besides: Collection[str] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where a volume is mounted that the pod does not have, and its name."""
    known = {*map(str, names_of(body)), *besides}
    for path, _, mount in _placed_mounts(body):
        volume = mount.get("name")
        if isinstance(volume, str) and volume not in known:
            yield (*path, "name"), volume


def apart(body: Mapping[str, Any], work_directory: str, agent: str = AGENT) -> Iterator[str]:
    """Yield the containers that have another volume at the working directory than the agent."""
    there = {
        container: mount.get("name")
        for container, mount in mounts(body)
        if mount.get("mountPath") == work_directory
    }
    agents = there.get(agent, WORK_VOLUME)
    for container, volume in there.items():
        if volume != agents:
            yield container


def shared(
    body: Mapping[str, Any], *, work_directory: str, remote_fs: str
) -> Iterator[workspaces.Shared]:
    """Yield where the pods of a template would work together."""
    sources = {str(v.get("name")): _source(v) for v in _entries(body.get("volumes"))}
    yielded = set()
    for container in _entries(body.get("containers")):
        found = workspaces.find(_mounts(container, sources, work_directory), remote_fs)
        for place in found:
            if place.where not in yielded:
                yielded.add(place.where)
                yield workspaces.Shared(where=place.where, path=("pod",))


def perilous(body: Mapping[str, Any]) -> Iterator[str]:
    """Say what gives the builds in a pod their node, or the API server."""
    for key, what in _OF_THE_NODE.items():
        if body.get(key) is True:
            yield f"{key}: every build of this template sees {what} of {_NODE}"
    if body.get("automountServiceAccountToken") is True:
        yield "automountServiceAccountToken: every build may do what the service account may"
    for volume in _entries(body.get("volumes")):
        path = _section(volume.get("hostPath")).get("path")
        if isinstance(path, str):
            reached = f"hostPath: every build of this template reaches {path} of {_NODE}"
            yield perils.of_folder(path, _NODE) or reached
        sources = _entries(_section(volume.get("projected")).get("sources"))
        if any("serviceAccountToken" in source for source in sources):
            yield "serviceAccountToken: every build of this template has that token"
    for kind in ("initContainers", "containers"):
        for container in _entries(body.get(kind)):
            words = _peril_of(_section(container.get("securityContext")))
            if words is not None:
                yield f"{container.get('name')}, {words}"


def _peril_of(context: Mapping[str, Any]) -> str | None:
    """Return the worst that a container's securityContext opens."""
    if context.get("privileged") is True:
        return f"privileged: {perils.is_root(_NODE)}"
    added = _section(context.get("capabilities")).get("add")
    words = perils.of_capabilities(map(str, added if isinstance(added, list) else ()), _NODE)
    if words is None and context.get("allowPrivilegeEscalation") is True:
        words = "allowPrivilegeEscalation: a build can become root in it"
    return words


def named(pod: dict[str, Any], name: str) -> None:
    """Put the instance's name into a pod's volumes, mounts and variables."""
    body = _section(pod.get("spec"))
    if "volumes" in body:
        body["volumes"] = names.named(body["volumes"], name)
    for container in (*_entries(body.get("containers")), *_entries(body.get("initContainers"))):
        for key in ("volumeMounts", "env"):
            if key in container:
                container[key] = names.named(container[key], name)


def host_ports(
    pod: Mapping[str, Any], agent: str = AGENT
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Yield the ports of its node that the agent's container wants, each after its path."""
    spec = pod.get("spec")
    for number, container in _numbered(spec.get("containers") if spec else ()):
        for at, port in _numbered(container.get("ports")):
            told = port.get("hostPort")
            if container.get("name") == agent and addresses.port(told):
                yield ("spec", "containers", number, "ports", at, "hostPort"), told


def given_variables(
    body: Mapping[str, Any], reserved: Mapping[str, str], agent: str = AGENT
) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Yield the variables of the agent's container that are the broker's, and what is meant.

    Each after its path in the body.
    """
    for number, container in enumerate(_entries(body.get("containers"))):
        for at, variable in enumerate(_entries(container.get("env"))):
            told = variable.get("name")
            if container.get("name") == agent and isinstance(told, str) and told in reserved:
                yield ("containers", number, "env", at), told, reserved[told]


def unknown_variables(
    body: Mapping[str, Any], reserved: Collection[str], agent: str = AGENT
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield where the agent's words name a variable like the broker's that nobody gives it."""
    for number, container in _numbered(body.get("containers")):
        if container.get("name") != agent or container.get("envFrom"):
            continue
        known = {*reserved, *(one.get("name") for one in _entries(container.get("env")))}
        for key in ("command", "args"):
            told = container.get(key)
            for at, word in enumerate(told if isinstance(told, list) else ()):
                plain = word.replace("$$", "") if isinstance(word, str) else ""
                for name in _VARIABLE.findall(plain):
                    if name.startswith(_THE_BROKERS) and name not in known:
                        yield ("containers", number, key, at), name


def _mounts(
    container: Mapping[str, Any], sources: Mapping[str, tuple[str | None, bool]], work: str
) -> list[workspaces.Mount]:
    own = {
        str(variable.get("name"))
        for variable in _entries(container.get("env"))
        if _is_own_variable(variable)
    } | {_GIVEN}
    found = []
    told = _entries(container.get("volumeMounts"))
    if not any(m.get("name") == WORK_VOLUME or work == m.get("mountPath") for m in told):
        told = [{"name": WORK_VOLUME, "mountPath": work}, *told]
    for mount in told:
        source, read_only = sources.get(str(mount.get("name")), (None, False))
        inside = str(mount.get("subPath") or "")
        if expression := mount.get("subPathExpr"):
            inside = _VARIABLE.sub(lambda m: names.TOKEN if m[1] in own else m[0], str(expression))
        found.append(
            workspaces.Mount(
                target=str(mount.get("mountPath", "")),
                source=None if source is None else posixpath.join(source, inside),
                read_only=read_only or mount.get("readOnly") is True,
            )
        )
    return found


def _is_own_variable(variable: Mapping[str, Any]) -> bool:
    field = _section(_section(variable.get("valueFrom")).get("fieldRef")).get("fieldPath")
    return field in _POD_FIELDS or names.is_own(str(variable.get("value") or "."))


def _source(volume: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return what a volume is a view of, None for what is the pod's own; and if for reading."""
    told = {key: value for key, value in volume.items() if key != "name"}
    kind, value = next(iter(told.items()), ("emptyDir", {}))
    if kind in _OWN:
        return None, False
    value = _section(value)
    read_only = value.get("readOnly") is True
    match kind:
        case "hostPath":
            return str(value.get("path", "")), read_only
        case "persistentVolumeClaim":
            return f"claim {value.get('claimName')}", read_only
        case "nfs":
            return f"{value.get('server')}:{value.get('path')}", read_only
        case _:
            return f"{kind} {json.dumps(value, sort_keys=True, default=str)}", read_only


def _section(value: Any) -> Any:
    return value if isinstance(value, Mapping) else {}


def _entries(value: Any) -> list[Any]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _numbered(value: Any) -> Iterator[tuple[int, Any]]:
    for number, one in enumerate(value if isinstance(value, list) else ()):
        if isinstance(one, Mapping):
            yield number, one
