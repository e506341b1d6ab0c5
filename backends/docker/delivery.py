"""Brings a runtime to an engine before any agent wants it: into its volume, or as an image.

Blocking, without a broker and a registry: for ``agent-broker runtime build``. A volume is filled
as for an agent (``containers.runtimes``), by a container of an image of nothing, which is made for
it and removed. What is brought is nobody's: no broker removes it. Refuses to know how a runtime is
made.
"""

import contextlib
import hashlib
import io
import json
import pathlib
import secrets
import tarfile
from collections.abc import Callable, Iterator

from backends import api
from backends.docker import settings
from backends.docker.containers import runtimes
from backends.docker.engine import client, environment
from outside import quotes

NOTHING = "agent-broker-filler"
_TRIES = 3  # another one, which is done, may remove the same content before we use it
_LOAD_S = 600.0
_STALE_S = 3600.0
"""Nobody is at it for so long, whatever the clocks of machines and engines say."""
_FULL = "no space left on device"
_Told = Callable[[int, int], None]


def deliveries(
    configured: settings.DockerSettings | None, *, url: str | None = None
) -> tuple["EngineDelivery", ...]:
    """Return one for each engine of a backend, or for the engine at a URL.

    Raises ValueError for a URL that is none, and where it is not known which engine there is.
    """
    if configured is None:
        configured = settings.DockerSettings(hosts=(settings.Host(url=url or ""),))
    hosts = configured.hosts or (environment.engine(configured.docker_config).host,)
    return tuple(EngineDelivery(host, configured) for host in hosts)


class EngineDelivery:
    """The way to one engine."""

    def __init__(self, host: settings.Host, configured: settings.DockerSettings) -> None:
        self.where = host.url
        self._engine = client.Engine(host, configured)
        self._volumes = runtimes.Volumes(self._engine, owner="")

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.close()

    def check(self, platform: str) -> None:
        """Ask whether it is there, and runs programs of a platform.

        Raises Rejected, Unauthorized, Unavailable.
        """
        theirs = self._engine.platform()
        if theirs and theirs != platform:
            raise api.Rejected(
                f"it runs {theirs}, and the runtime is for {platform}; hint: build it on a "
                f"machine for {theirs}"
            )

    def fill(self, tar: str, *, now: float, tell: _Told) -> str:
        """Fill the volume of an archive unless it is full; return its name.

        ``now``: POSIX seconds; ``tell``: called with the bytes that were sent, and all of them.
        Raises Rejected, Unauthorized, Unavailable; nothing is left then, and what was left by
        others that were killed long ago goes first.
        """
        # of our own: others remove theirs, and what is left of those that were killed
        image = f"{NOTHING}:{int(now)}-{secrets.token_hex(8)}"
        with _room(), contextlib.ExitStack() as stack:
            self._sweep(now - _STALE_S)
            stack.callback(self._forget, image)
            for _ in range(_TRIES):
                self._engine.load(io.BytesIO(_nothing(image)), within_s=_LOAD_S)
                with contextlib.suppress(client.NoImageError):
                    return self._volumes.fill(tar, image, tell=tell)
        raise api.Unavailable(f"somebody removes the image {image} again and again")

    def load(self, archive: pathlib.Path, name: str, *, tell: _Told) -> None:
        """Load an image of that name; what had the name before loses it.

        Raises as ``fill``, and OSError for the file.
        """
        with _room(), archive.open("rb") as file:
            self._engine.load(file, within_s=_LOAD_S, tell=tell)
            if not self._engine.has_image(name):
                raise api.Unavailable(f"it took the image and has no {quotes.shown(name)}")

    def _sweep(self, before: float) -> None:
        """Remove what others of us began before a moment (POSIX seconds), and never ended."""
        self._volumes.sweep_fillers(before)  # first: an engine keeps the image of a container
        for tag in self._engine.tags(NOTHING):
            began = tag.partition("-")[0]
            if began.isascii() and began.isdigit() and int(began) < before:
                self._forget(f"{NOTHING}:{tag}")

    def _forget(self, image: str) -> None:
        with contextlib.suppress(api.BackendError):
            self._engine.remove_image(image)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Say plainly that a disk is full."""
    try:
        yield
    except api.BackendError as error:
        if _FULL not in error.reason:
            raise
        words = "no room on the engine's disk; hint: docker system df"
        raise api.Unavailable(f"{words} ({error.reason})") from error


def _nothing(name: str) -> bytes:
    """Return an image without a file in it, of that name: always the same one."""
    empty = {"type": "layers", "diff_ids": []}
    configured = {"architecture": "amd64", "config": {}, "os": "linux", "rootfs": empty}
    told = json.dumps(configured, sort_keys=True)
    config = f"{hashlib.sha256(told.encode()).hexdigest()}.json"
    index = json.dumps([{"Config": config, "RepoTags": [name], "Layers": []}])
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in ((config, told), ("manifest.json", index)):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return packed.getvalue()
