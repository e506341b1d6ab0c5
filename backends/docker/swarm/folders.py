"""Where an agent whose builds command the engine of its node works: pure.

What a build mounts is looked up on the node, so the agent has to see its files at the path that
they have there. A volume of the driver ``local`` is a folder of the node whose path is known
beforehand, and the engine makes it on whatever node an agent comes to.
"""

import posixpath

from backends.docker.containers import container

VOLUME = f"{container.PREFIX}folder"
"""The label of a service and its container: the volume in which the agent works."""
OF = f"{container.PREFIX}folder-of"
"""The label of a volume: the agent that works in it."""


def parts(folder: str, name: str) -> tuple[str, str]:
    """Return the engine's own folder, and the volume of an agent. Raises ValueError.

    ``folder``: its working directory, ROOT/volumes/VOLUME/_data, with ``name`` in VOLUME.
    """
    above, data = posixpath.split(folder)
    place, volume = posixpath.split(above)
    root, volumes = posixpath.split(place)
    plain = folder == posixpath.normpath(folder) and folder.startswith("/")
    if not plain or (volumes, data) != ("volumes", "_data") or name not in volume or name in root:
        raise ValueError(f"{folder[:256]} is not a volume of one agent")
    return root, volume
