"""What surrounds a task: image, containerizer, volumes and networks, as a ContainerInfo.

Pure. Two containerizers say the same things differently: Mesos' own, and the Docker daemon of the
agent. Refuses to know commands, resources and labels.
"""

import base64
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from backends import api
from backends.kit import runtime
from backends.mesos import settings


def contradiction(  # noqa: PLR0911 -- one contradiction, one return
    spec: api.InstanceSpec, template: settings.MesosTemplate
) -> str | None:
    """Say what of the template cannot be together, or None."""
    network = template.network
    if template.containerizer == "docker" and spec.image is None:
        return "the Docker containerizer needs an image; hint: set `image`, or remove it"
    if network.mode == "bridge" and template.containerizer != "docker":
        return "bridge networks belong to Docker; hint: `containerizer: docker`, or `mode: cni`"
    if network.mode == "cni" and not network.name:
        return "a CNI network needs its `name`"
    if network.ports and network.mode == "host" and spec.image is not None:
        return "ports are mapped in bridge and CNI networks; the host network has them all"
    if template.containerizer != "docker" and any(v.tmpfs_bytes for v in template.volumes):
        return "volumes in memory need `containerizer: docker`; Mesos has none"
    if template.containerizer == "docker" and template.secrets == "volume":
        return "secret volumes need `containerizer: mesos`"
    if template.containerizer == "docker" and template.image_login_file is not None:
        return (
            "image_login_file needs `containerizer: mesos`; hint: an archive with "
            ".docker/config.json in `uris`"
        )
    if spec.runtime is not None and spec.image is None:
        return "inject brings Java into an image; hint: set `image`, or leave inject out"
    return None


def container(
    spec: api.InstanceSpec,
    template: settings.MesosTemplate,
    *,
    secret_volumes: Mapping[str, str],
    login: str | None = None,
) -> dict[str, Any]:
    """Return the ContainerInfo, or nothing for a plain process on the host.

    ``secret_volumes``: path in the sandbox to content, base64; ``login``: content, base64, of the
    config.json for the image's registry.
    """
    volumes = [_volume(volume) for volume in template.volumes if volume.tmpfs_bytes is None]
    volumes += [
        {
            "container_path": path,
            "mode": "RO",
            "source": {
                "type": "SECRET",
                "secret": {"type": "VALUE", "value": {"data": content}},
            },
        }
        for path, content in secret_volumes.items()
    ]
    if spec.runtime is not None:
        volumes += _brought(template)
    if template.containerizer == "docker":
        docker: dict[str, Any] = {"type": "DOCKER", "docker": _docker(spec, template)}
        if template.network.mode == "cni":
            docker["network_infos"] = [{"name": template.network.name}]
        return docker | ({"volumes": volumes} if volumes else {})
    parts: dict[str, Any] = {}
    if spec.image is not None:
        parts["mesos"] = {"image": _image(spec.image, template, login)}
    if volumes:
        parts["volumes"] = volumes
    if template.ulimits:
        parts["rlimit_info"] = {"rlimits": [_limit(*one) for one in template.ulimits.items()]}
    if template.network.mode == "cni":
        network: dict[str, Any] = {"name": template.network.name}
        if template.network.ports:
            network["port_mappings"] = _mappings(template.network)
        parts["network_infos"] = [network]
    return {"type": "MESOS", **parts} if parts else {}


def _docker(spec: api.InstanceSpec, template: settings.MesosTemplate) -> dict[str, Any]:
    modes = {"host": "HOST", "bridge": "BRIDGE", "cni": "USER"}
    docker: dict[str, Any] = {
        "image": spec.image,
        "network": modes[template.network.mode],
        "privileged": template.privileged,
    }
    if template.force_pull:
        docker["force_pull_image"] = True
    parameters = [
        {"key": key, "value": value} for key, value in template.docker_parameters.items()
    ]
    parameters += [
        {"key": "tmpfs", "value": f"{volume.container_path}:size={volume.tmpfs_bytes}"}
        for volume in template.volumes
        if volume.tmpfs_bytes is not None
    ]
    parameters += [
        {"key": "ulimit", "value": f"{name}={most}"} for name, most in template.ulimits.items()
    ]
    if spec.runtime is not None:  # the image's entry point would be given our command
        parameters.append({"key": "entrypoint", "value": f"{runtime.TOOLS}/sh"})
    if template.network.ports:
        docker["port_mappings"] = _mappings(template.network)
    return docker | ({"parameters": parameters} if parameters else {})


def _image(name: str, template: settings.MesosTemplate, login: str | None) -> dict[str, Any]:
    docker: dict[str, Any] = {"name": name}
    if login is not None:
        docker["config"] = {"type": "VALUE", "value": {"data": login}}
    image: dict[str, Any] = {"type": "DOCKER", "docker": docker}
    if template.force_pull:
        image["cached"] = False
    return image


def _limit(name: str, most: int) -> dict[str, Any]:
    """Return a limit as ``RLimitInfo`` of Mesos has it (mesos.proto)."""
    return {"type": f"RLMT_{name.upper()}", "soft": most, "hard": most}


def _brought(template: settings.MesosTemplate) -> list[dict[str, Any]]:
    """Return how what the fetcher unpacks in the sandbox comes to its place in the container.

    Images from scratch have no folder for temporary files, so Mesos' own containers get one; in
    Docker's the task makes it, as root.
    """
    tree, folder = runtime.ROOT.lstrip("/"), "/tmp"  # noqa: S108 -- of the container
    if template.containerizer == "docker":
        return [{"container_path": runtime.ROOT, "mode": "RO", "host_path": tree}]
    mounts = [(runtime.ROOT, "RO", tree)]
    if not any(volume.container_path == folder for volume in template.volumes):
        mounts.append((folder, "RW", "tmp"))
    return [
        {
            "container_path": target,
            "mode": mode,
            "source": {"type": "SANDBOX_PATH", "sandbox_path": {"type": "SELF", "path": path}},
        }
        for target, mode, path in mounts
    ]


def login_secrets(login: bytes) -> Sequence[str]:
    """Return what must never be shown of a config.json. Raises ValueError, with nothing of it."""
    try:
        told = json.loads(login)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    logins = told.get("auths") if isinstance(told, Mapping) else None
    if not isinstance(logins, Mapping) or not logins:
        raise ValueError("it has no `auths`; hint: credential helpers do not travel with a task")
    found = []
    for entry in logins.values():
        values = entry if isinstance(entry, Mapping) else {}
        texts = [values.get(key) for key in ("auth", "identitytoken", "password")]
        found += [text for text in texts if isinstance(text, str)]
        with contextlib.suppress(ValueError):
            pair = base64.b64decode(str(values.get("auth") or "")).decode()
            found.append(pair.partition(":")[2])
    return found


def _mappings(network: settings.Network) -> list[dict[str, Any]]:
    return [{"container_port": port, "protocol": "tcp"} for port in network.ports]


def _volume(volume: settings.Volume) -> dict[str, Any]:
    info: dict[str, Any] = {
        "container_path": volume.container_path,
        "mode": "RO" if volume.read_only else "RW",
    }
    if volume.driver is not None:
        source: dict[str, Any] = {"driver": volume.driver, "name": volume.driver_name or ""}
        if volume.driver_options:
            pairs = [{"key": k, "value": v} for k, v in volume.driver_options.items()]
            source["driver_options"] = {"parameter": pairs}
        info["source"] = {"type": "DOCKER_VOLUME", "docker_volume": source}
    elif volume.sandbox_path is not None:
        info["source"] = {
            "type": "SANDBOX_PATH",
            "sandbox_path": {"type": "SELF", "path": volume.sandbox_path},
        }
    elif volume.host_path is not None:
        info["host_path"] = volume.host_path
    return info
