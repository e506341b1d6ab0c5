"""Docker for the builds of a pod: an engine beside the agent, or the one of its node.

Pure, on plain manifests. Refuses to know what Docker costs and who has acknowledged it
(``kit.pipelines``).

Theory of operation: what is brought is a sidecar (an init container that is restarted): it is
there before the agent starts, and ends after it. An engine is up once its probe says so. With the
socket of the node's engine the sidecar has a folder of the node instead, which it gives to the
agent's user, and removes when the pod ends, whoever deleted it.
"""

import posixpath
from collections.abc import Mapping
from typing import Any

from backends import api
from backends.kit import names, pipelines, workspaces

ENGINE = "agent-broker-engine"
FOLDER = "agent-broker-folder"
_DATA_VOLUME = "agent-broker-engine-data"
_SOCKET_VOLUME = "agent-broker-socket"
_ABOVE_VOLUME = "agent-broker-above"
_ABOVE = "/agent-broker/above"
_NODES_SOCKET = "/var/run/docker.sock"
_DATA = {"dind": pipelines.DATA, "dind-rootless": "/home/rootless/.local/share/docker"}
_ROOTLESS = 1000
_KEEP = """\
trap 'rm -rf -- "$0"; exit 0' TERM INT
chown "$1" "$0" || exit 1
while :; do sleep 3600 & wait $!; done
"""
"""What keeps a folder: ``$0`` is the folder, ``$1`` whose it is."""

Manifest = dict[str, Any]


def give(
    body: Manifest, agent: Manifest, spec: api.InstanceSpec, *, limits: Mapping[str, Any]
) -> None:
    """Bring into a pod what the builds of its agent need. Raises Rejected.

    ``limits``: the ``resources`` of an engine beside the agent, empty where nobody told some.
    """
    told = spec.pipelines
    if told is None:
        return
    if told.mode == "socket":
        _give_socket(body, agent, spec)
        return
    uid, gid = _ids(body, agent)
    sidecar: Manifest = {
        "name": ENGINE,
        "image": pipelines.image(told),
        "restartPolicy": "Always",
        "args": list(pipelines.command(told.mode, uid=uid, gid=gid)),
        "env": [{"name": "DOCKER_TLS_CERTDIR", "value": ""}],
        "securityContext": _privileged(_ROOTLESS if told.mode == "dind-rootless" else 0),
        "startupProbe": {
            "exec": {"command": ["docker", f"--host=unix://{pipelines.SOCKET}", "version"]},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
            "failureThreshold": int(pipelines.STARTED_WITHIN_S),
        },
        "volumeMounts": [
            {"name": ENGINE, "mountPath": pipelines.ENGINE},
            {"name": _DATA_VOLUME, "mountPath": _DATA[told.mode]},
        ],
    }
    if limits:
        sidecar["resources"] = {**limits}
    _bring(body, sidecar, {"name": ENGINE, "emptyDir": {}}, {"name": _DATA_VOLUME, "emptyDir": {}})
    _mount(agent, ENGINE, pipelines.ENGINE)
    _tell(agent, pipelines.ENVIRONMENT)


def _give_socket(body: Manifest, agent: Manifest, spec: api.InstanceSpec) -> None:
    folder = workspaces.normal(str(names.named(pipelines.own_folder(spec), spec.name)))
    above, entry = posixpath.split(folder)
    uid, gid = _ids(body, agent)
    context = body.get("securityContext") or {}
    if uid is None:
        raise api.Rejected(
            "docker_pipelines: socket: whose the folder of the agent is to be is known to its "
            "image only; hint: run_as_user"
        )
    if uid != 0 and not context.get("supplementalGroups"):
        raise api.Rejected(
            "docker_pipelines: socket: which group may use the socket of the nodes is not seen "
            "from here; hint: pod: {spec: {securityContext: {supplementalGroups: [NUMBER]}}} "
            f"(stat -c %g {_NODES_SOCKET} on a node)"
        )
    inside = posixpath.join(_ABOVE, entry)
    owner = f"{uid}:{uid if gid is None else gid}"
    sidecar: Manifest = {
        "name": FOLDER,
        "image": agent["image"],
        "restartPolicy": "Always",
        "command": ["sh", "-c", _KEEP, inside, owner],
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]},
        },
        "startupProbe": {
            "exec": {
                "command": ["sh", "-c", 'test "$(stat -c %u "$0")" = "$1"', inside, str(uid)]
            },
            "periodSeconds": 1,
            "failureThreshold": 60,
        },
        "volumeMounts": [{"name": _ABOVE_VOLUME, "mountPath": _ABOVE}],
    }
    _bring(
        body,
        sidecar,
        _of_node(_ABOVE_VOLUME, above, "DirectoryOrCreate"),
        _of_node(FOLDER, folder, "DirectoryOrCreate"),
        _of_node(_SOCKET_VOLUME, _NODES_SOCKET, "Socket"),
    )
    for container in body["containers"]:
        _mount(container, FOLDER, folder)
    _mount(agent, _SOCKET_VOLUME, _NODES_SOCKET)


def _ids(body: Manifest, agent: Manifest) -> tuple[int | None, int | None]:
    """Return who the agent is, and a group that it has, as far as the pod says so."""
    of_pod = body.get("securityContext") or {}
    context = {**of_pod, **(agent.get("securityContext") or {})}
    return context.get("runAsUser"), of_pod.get("fsGroup", context.get("runAsGroup"))


def _privileged(uid: int) -> Manifest:
    """All that an engine in a container needs: the one without the other is no privilege."""
    return {
        "privileged": True,
        "allowPrivilegeEscalation": True,
        "capabilities": {"add": ["ALL"]},
        "runAsUser": uid,
        "runAsGroup": uid,
        "runAsNonRoot": bool(uid),
    }


def _of_node(name: str, path: str, kind: str) -> Manifest:
    return {"name": name, "hostPath": {"path": path, "type": kind}}


def _bring(body: Manifest, sidecar: Manifest, *volumes: Manifest) -> None:
    """Put a sidecar before all that the pod starts, but what brings Java; and its volumes."""
    ours = {volume["name"] for volume in volumes}
    kept = [volume for volume in body.get("volumes", []) if volume["name"] not in ours]
    body["volumes"] = [*kept, *volumes]
    others = [c for c in body.get("initContainers", []) if c.get("name") != sidecar["name"]]
    body["initContainers"] = [sidecar, *others]


def _mount(container: Manifest, volume: str, path: str) -> None:
    kept = [m for m in container.get("volumeMounts", []) if m.get("mountPath") != path]
    container["volumeMounts"] = [*kept, {"name": volume, "mountPath": path}]


def _tell(agent: Manifest, variables: Mapping[str, str]) -> None:
    """Give the agent variables that nobody has given it."""
    known = {one.get("name") for one in agent.get("env", [])}
    new = [{"name": name, "value": text} for name, text in variables.items() if name not in known]
    agent["env"] = [*agent.get("env", []), *new]
