"""The job that fills a volume of each node from an image, and later empties it. Pure.

Refuses to know when it is begun, and what its tasks are told of (``runtimes``).
"""

from collections.abc import Sequence
from typing import Any

from backends.docker.containers import container
from backends.docker.engine import bodies
from backends.docker.swarm import manager
from backends.kit import names, runtime

EMPTIES = "empties"
"""In place of the digest of one that empties the volume."""
_OF = f"{container.PREFIX}runtime."
_RETRY_S = 5.0
_FOLDER = "/agent-runtime"
"""Where it has the volume: no image has anything there that would be copied into it."""


def marks(owner: str) -> dict[str, str]:
    """Return the labels of what is ours and is no agent."""
    return names.encode_metadata({names.OWNER: owner}, prefix=_OF)


def filling(volume: str, image: str, constraints: Sequence[str], *, owner: str) -> dict[str, Any]:
    """Return the service that fills a volume of each node, as the API describes it."""
    labels = {**marks(owner), container.RUNTIME: volume}
    of_volume = {**container.owner_labels(owner), container.RUNTIME: volume}
    mount = {"Type": "volume", "Source": volume, "Target": _FOLDER}
    inner = {
        "Image": image,
        "Labels": labels,
        "Command": list(runtime.filled(_FOLDER)),
        "User": "0:0",
        "Mounts": [{**mount, "VolumeOptions": {"NoCopy": True, "Labels": of_volume}}],
        "CapabilityDrop": ["ALL"],
        "CapabilityAdd": ["DAC_OVERRIDE"],
    }
    task = {
        "ContainerSpec": inner,
        "RestartPolicy": {"Condition": "on-failure", "Delay": round(_RETRY_S * 1e9)},
        "Placement": bodies.without_nothing({"Constraints": list(constraints)}),
        "Networks": [{"Target": "host"}],  # nothing has to be made for it
        "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
    }
    told = {**labels, container.DIGEST: bodies.fingerprint(task)}
    return {"Name": volume, "Labels": told, "Mode": {"GlobalJob": {}}, "TaskTemplate": task}


def emptying(there: manager.Errand) -> dict[str, Any]:
    """Return the same job, which empties the volume of each node."""
    inner = {"Command": list(runtime.emptied(_FOLDER))}
    told = {
        "Labels": {container.DIGEST: EMPTIES},
        "TaskTemplate": {"ContainerSpec": inner},
    }
    return bodies.merged(there.spec, told)
