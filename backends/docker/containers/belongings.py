"""Removes what belongs to one agent beside its container: folders of the host, named volumes.

And containers that its builds left running with all mounts of the agent (``--volumes-from``), as
``docker.image().inside`` starts them: their program waits for ever, for a build that is no more,
in a folder that goes away. Whoever has the agent's folder in another way is left alone.

Blocking. An engine removes volumes, but no folders; so a helper of the agent's own image removes
them: a container without network and rights but those over files, which sees the directory above
and removes the one entry in it that has the agent's name. Nothing whose name does not hold the
agent's is touched, and no volume without our mark. Refuses to know when.

Theory of operation: folders go before the container, because its label says which they are: what
was interrupted is done again with the next attempt to remove it. A volume can only go after it;
one that is left is found by its mark, and the engine refuses to remove one that is in use.
"""

import logging
import posixpath
from collections.abc import Collection, Mapping
from typing import Any

from backends import api
from backends.docker.containers import container, host_paths
from backends.docker.engine import answers, client

_LOG = logging.getLogger(__name__)
_ABOVE = f"{container.ROOT}/above"
_PROGRAM = "rm"
_SHORT_ID = 12  # as the command `docker` shows ids
_HELPS = f"{container.PREFIX}helps"


def remove_folders(
    engine: client.Engine, *, labels: Mapping[str, str], image: str, called: str
) -> None:
    """Remove the folders of a container that runs no more; raises Unavailable, try again then.

    ``called`` is the container's name. What cannot be removed at all is told, not raised.
    """
    name = labels.get(container.NAME, "")
    for above, entry in host_paths.read(labels, name).folders:
        try:
            words = engine.run_helper(
                f"{called}-tidy", _helper(image, above, entry, name), {_HELPS: name}
            )
        except (api.Rejected, api.NotFound) as error:
            words = error.reason
        if words:
            _LOG.warning(
                "folder not removed",
                extra={"path": posixpath.join(above, entry), "reason": words},
            )


def remove_heirs(engine: client.Engine, *, agent: answers.Inspected, called: str) -> None:
    """Remove containers with the mounts of an agent that runs no more; raises Unavailable.

    ``called`` is the name of the agent's container.
    """
    name = agent.labels.get(container.NAME, "")
    places = [place for place in agent.mounts if name and name in place]
    for other in engine.mounting(places) if places else ():
        try:
            found = engine.inspect(other)
            if found.id == agent.id or not is_heir(found, agent=agent.id, called=called):
                continue
            engine.remove(found.id)
        except (api.NotFound, api.Rejected, client.OddAnswerError):
            continue  # it is gone, or somebody else removes it
        _LOG.info(
            "container of a build removed",
            extra={"agent": name, "container": found.id[:_SHORT_ID]},
        )


def is_heir(found: answers.Inspected, *, agent: str, called: str) -> bool:
    """Tell whether a container was started with the mounts of that agent's: by name, or id."""
    return any(
        one == called or (len(one) >= _SHORT_ID and agent.startswith(one))
        for one in found.mounts_of
    )


def remove_volumes(
    engine: client.Engine, *, labels: Mapping[str, str], marks: Mapping[str, str]
) -> None:
    """Remove the volumes of a container that is gone; raises Unavailable."""
    for volume in host_paths.read(labels, labels.get(container.NAME, "")).volumes:
        _remove_volume(engine, volume, marks)


def sweep_volumes(
    engine: client.Engine, *, marks: Mapping[str, str], needed: Collection[str]
) -> None:
    """Remove volumes with our marks whose instance is none of ``needed``; raises Unavailable."""
    for volume, labels in engine.volumes(marks).items():
        name = labels.get(container.NAME, "")
        if name and name in volume and name not in needed:
            _remove_volume(engine, volume, marks)


def _remove_volume(engine: client.Engine, volume: str, marks: Mapping[str, str]) -> None:
    try:
        there = engine.volumes(marks).get(volume)
        if there is not None:
            engine.remove_volume(volume)
    except api.NotFound:
        return
    except api.Rejected as error:
        _LOG.warning("volume not removed", extra={"volume": volume, "reason": error.reason})


def _helper(image: str, above: str, entry: str, name: str) -> dict[str, Any]:
    return {
        "Image": image,
        "User": "0:0",
        "Entrypoint": [_PROGRAM],
        "Cmd": ["-rf", "--", f"{_ABOVE}/{entry}"],
        "WorkingDir": "/",
        "Labels": {_HELPS: name},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": [f"{above}:{_ABOVE}"],
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "CapAdd": ["DAC_OVERRIDE", "FOWNER"],
            "SecurityOpt": ["no-new-privileges", "label=disable"],
            "UsernsMode": "host",  # where users are mapped, the directory above is the host's
            "PidsLimit": 64,
        },
    }
