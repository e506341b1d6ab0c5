"""Secrets for containers by way of a file system that we share with the engine, where we do.

Why: the engine unpacks an archive into a container with a process of its own, which costs a fifth
of a whole launch; a mount costs nothing. Beside an engine on the same machine a secret is
therefore a file in memory, in a folder that nobody but the broker may enter, mounted read-only
into its one container. Whether an engine sees our files at all only a launch can tell (``host``).

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

MEMORY = pathlib.Path("/dev/shm")  # noqa: S108 -- a folder of our own in it, checked to be ours
_STALE_S = 600.0


class Handover:
    """The secrets of one owner's instances on one host."""

    def __init__(self, owner: str, url: str) -> None:
        whose = hashlib.sha256(f"{owner}\0{url}".encode()).hexdigest()[:16]
        self._folder = MEMORY / f"agent-broker-{whose}"

    def give(self, name: str, secrets: Mapping[str, str]) -> str | None:
        """Return a folder that holds the secrets, or None."""
        folder = self._folder / name
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            ours = self._folder.lstat()
            if ours.st_uid != os.geteuid() or ours.st_mode & 0o777 != 0o700:
                return None  # somebody else made it, perhaps to read along
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # whatever the umask says
            for file, text in secrets.items():
                path = folder / file
                path.unlink(missing_ok=True)
                path.write_bytes(text.encode("utf-8", "surrogateescape"))
                path.chmod(0o444)  # the container's user need not be known here
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
