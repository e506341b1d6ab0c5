"""Secrets for containers by way of a file system that we share with the engine, where we do.

Why: the engine unpacks an archive into a container with a process of its own, which costs a fifth
of a whole launch; a mount costs nothing. Beside an engine on the same machine a secret is
therefore a file in memory, in a folder that nobody but the broker may enter, mounted read-only
into its one container, and readable there by the agent's user alone where the broker may say so
(as root, or as the same user). Whether an engine sees our files at all only a launch can tell
(``host``).

Refuses to know engines. What goes wrong here is no error: secrets can always be put in otherwise.

Theory of operation: a folder per instance, made before the container and removed with it. One that
a killed broker left is removed when no container has had its name for a while: another process
may have made it a moment ago for a container that is not listed yet.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
from collections.abc import Collection, Mapping

from outside import files, paths

MEMORY = pathlib.Path("/dev/shm")  # noqa: S108 -- a folder of our own in it, checked to be ours
_STALE_S = 600.0


class SecretFolders:
    """The secrets of one owner's instances on one host."""

    def __init__(self, owner: str, url: str) -> None:
        whose = hashlib.sha256(f"{owner}\0{url}".encode()).hexdigest()[:16]
        self._folder = MEMORY / f"agent-broker-{whose}"

    def give(
        self,
        name: str,
        secrets: Mapping[str, str],
        ids: tuple[int | None, int | None] = (None, None),
    ) -> str | None:
        """Return a folder that holds the secrets for the user with these ids, or None."""
        folder = self._folder / name
        try:
            if not paths.is_directory(self._folder.parent):
                return None
            files.make_private(self._folder)
            ours = self._folder.lstat()
            if ours.st_uid != os.geteuid() or ours.st_mode & 0o777 != 0o700:
                return None  # somebody else made it, perhaps to read along
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # whatever the umask says
            for file, text in secrets.items():
                path = folder / file
                path.unlink(missing_ok=True)
                _write(path, text.encode("utf-8", "surrogateescape"), ids)
        except OSError:
            return None
        return str(folder)

    def held(self, name: str) -> dict[str, bytes]:
        """Return the secrets of an instance; empty if they are not here."""
        with contextlib.suppress(OSError):
            return {path.name: path.read_bytes() for path in (self._folder / name).iterdir()}
        return {}

    def take(self, name: str) -> None:
        """Remove the secrets of an instance; idempotent."""
        shutil.rmtree(self._folder / name, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are in it
            self._folder.rmdir()

    def keep(self, names: Collection[str], *, now: float) -> None:
        """Remove what no container of these names needs; ``now`` in POSIX seconds."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name not in names and path.stat().st_mtime < now - _STALE_S:
                    self.take(path.name)


def _write(path: pathlib.Path, content: bytes, ids: tuple[int | None, int | None]) -> None:
    """Write a file that the container's user can read, and nobody else if that can be."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        uid, gid = ids
        if uid is None:  # whoever it is, only the image knows
            os.fchmod(handle, 0o444)
            return
        try:
            os.fchown(handle, uid, -1 if gid is None else gid)
        except PermissionError:
            os.fchmod(handle, 0o400 if uid == os.geteuid() else 0o444)
        else:
            os.fchmod(handle, 0o400)  # whatever the umask says
