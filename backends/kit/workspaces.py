"""Whether the agents of a template would work in one and the same place: pure, on paths alone.

Builds that share a workspace find each other's files. What is mounted at or above the working
directory, or into the part of it where builds run, must be another place for each agent: made with
it, or named by it (``names.TOKEN``). Refuses to know any platform: an adapter says what a template
mounts, the configuration refuses.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator

from attrs import frozen

from backends.kit import names

_WORKSPACES = "workspace"
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
"""Below the working directory; the controller's name for where builds run."""


@frozen(kw_only=True)
class Mount:
    """One mount of a template; later ones lie over earlier ones of the same target.

    ``source`` is the same text for the same place, None for a place that is made with the agent.
    ``path`` leads from the template's section of its kind to the setting.
    """

    target: str
    source: str | None
    path: tuple[str | int, ...] = ()
    read_only: bool = False


@frozen(kw_only=True)
class Shared:
    """A place where agents of this template would work together; ``path`` None: ``remote_fs``."""

    where: str
    path: tuple[str | int, ...] | None = None


def find(mounts: Iterable[Mount], remote_fs: str) -> Iterator[Shared]:
    """Yield the places outside an agent, not named by it, in which its builds could work."""
    mounts = [_normal(mount) for mount in mounts]
    root = normal(remote_fs)
    below = posixpath.join(root, _WORKSPACES)
    yielded = set()
    for place in (root, below):
        over = [mount for mount in mounts if _covers(mount.target, place)]
        if not over:
            continue
        deepest = max(reversed(over), key=lambda mount: len(mount.target))
        inside = posixpath.relpath(place, deepest.target)
        if (where := _shared(deepest, inside)) and deepest not in yielded:
            yielded.add(deepest)
            yield Shared(where=where, path=deepest.path)
    for mount in mounts:
        if mount.target != below and _covers(below, mount.target) and mount not in yielded:
            yielded.add(mount)
            if where := _shared(mount, "."):
                yield Shared(where=where, path=mount.path)


def normal(path: str) -> str:
    """Return an absolute path in its one way of being written."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


def plain(path: str) -> str:
    """Return an absolute path in its one way of being written, anything else as it is."""
    if is_of_windows(path):
        return path.rstrip("/\\") if len(path) > len("C:/") else path
    return normal(path) if path.startswith("/") else path


def is_of_windows(path: str) -> bool:
    """Return whether a path begins with a drive."""
    return _DRIVE.match(path) is not None


def _normal(mount: Mount) -> Mount:
    return Mount(
        target=normal(mount.target),
        source=mount.source,
        path=mount.path,
        read_only=mount.read_only,
    )


def _covers(above: str, path: str) -> bool:
    return above in {"/", path} or path.startswith(f"{above}/")


def _shared(mount: Mount, inside: str) -> str | None:
    """Return the place that lies ``inside`` a mount if agents could meet there; else None."""
    if mount.source is None or mount.read_only:
        return None
    where = posixpath.normpath(posixpath.join(mount.source, inside))
    return None if names.is_own(where) or names.has_slot(where) else where
