"""Volumes of archives on the nodes whose engines can be reached, one keeper for each engine.

A container that is never started keeps a volume there, so that it is neither swept by another
owner nor pruned. Refuses to know agents, and the swarm beyond which node an engine is.
"""

import asyncio
import contextlib
import io
import logging
import tarfile
from collections.abc import Collection, Mapping
from typing import Any

from backends import api
from backends.docker.containers import container, runtimes
from backends.docker.engine import bodies, client
from backends.docker.swarm import errand
from backends.kit import runtime
from outside import quotes, text

_LOG = logging.getLogger(__name__)
_HELD_S = 30.0  # until it is looked again whether an engine still has a content
_AGAIN_S = 10.0  # until one that failed is asked again
_NOTHING = ("agent-broker-nothing", "1")


class Keeper:
    """An engine that can be reached, and what it holds of ours."""

    def __init__(self, engine: client.Engine, owner: str) -> None:
        self._engine = engine
        self._volumes = runtimes.Volumes(engine, owner=owner)
        self._marks = errand.marks(owner)
        self._suffix = f"keeper-{bodies.fingerprint(owner)[:8]}"
        self.node = ""
        self.held: dict[str, float] = {}  # volumes, and when that was seen; loop time
        self.failed: dict[str, tuple[str, float]] = {}  # volumes: words, and when
        self._under_way: asyncio.Future[Any] | None = None

    @property
    def is_asked(self) -> bool:
        """Whether it has not answered yet."""
        return self._under_way is not None

    async def begin_to_hold(self, manifest: runtime.Manifest, tar: str) -> None:
        """Begin to bring a content there, unless it is there or on its way."""
        volume = runtimes.volume_of(manifest)
        _, failed_at = self.failed.get(volume, ("", -_AGAIN_S))
        held_at = self.held.get(volume, -_HELD_S)
        is_new = _now() - held_at >= _HELD_S and _now() - failed_at >= _AGAIN_S
        if self._under_way is not None or not is_new:
            return
        began = await self._engine.begin(client.Lane.START, self.hold, manifest, tar)

        def over(ended: asyncio.Future[str]) -> None:
            self._under_way = None
            error = None if ended.cancelled() else ended.exception()
            if error is None and not ended.cancelled():
                self.node = ended.result()
                self.held[volume] = _now()
                self.failed.pop(volume, None)
            else:
                self.held.pop(volume, None)
                words = error.reason if isinstance(error, api.BackendError) else repr(error)
                self.failed[volume] = (text.clean(words), _now())

        self._under_way = began
        began.add_done_callback(over)

    def hold(self, manifest: runtime.Manifest, tar: str) -> str:
        """Keep a content in a volume, filled; return the node. Blocking; raises BackendError."""
        node = self._engine.swarm_node()
        if not node:
            raise api.Unavailable("the engine is in no swarm", reach=api.Reach.PLACE)
        volume = runtimes.volume_of(manifest)
        mount = {
            "Type": "volume",
            "Source": volume,
            "Target": runtime.ROOT,
            "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True, "Labels": self._volumes.labels(manifest)},
        }
        keeper = self._keeper(volume, mount)
        self._volumes.provide(keeper, tar=tar, image=":".join(_NOTHING), mount=mount)
        return node

    def _keeper(self, volume: str, mount: Mapping[str, Any]) -> str:
        """Return the id of the container that keeps a volume; it is never started."""
        called = f"{volume}-{self._suffix}"
        labels = {**self._marks, container.RUNTIME: volume}
        body = {
            "Image": ":".join(_NOTHING),
            "Entrypoint": ["/never"],
            "Labels": labels,
            "HostConfig": {"NetworkMode": "none", "Mounts": [mount]},
        }
        try:
            try:
                return self._engine.create_body(called, body)
            except client.NoImageError:
                self._engine.import_image(*_NOTHING, _nothing())
                return self._engine.create_body(called, body)
        except client.NoImageError as error:
            raise api.Unavailable(f"{error}, though it was made") from error
        except client.NameTakenError as error:
            there = self._engine.inspect(called)
            if not labels.items() <= there.labels.items():
                raise api.Rejected(
                    f"the container {quotes.shown(called)} exists and is not ours"
                ) from error
            return there.id

    async def begin_sweep(self, wanted: Collection[str]) -> None:
        """Begin to remove contents that are not wanted; nobody waits for it."""
        if self._under_way is not None:
            return
        with contextlib.suppress(api.Unavailable):
            began = await self._engine.begin(client.Lane.END, self.sweep, set(wanted))
            began.add_done_callback(_noted)

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove what keeps our other volumes, and then these. Blocking; raises BackendError."""
        found, _ = self._engine.list(self._marks)
        for one in found:
            volume = one.labels.get(container.RUNTIME, "")
            if volume and volume not in wanted:
                with contextlib.suppress(api.NotFound, api.Rejected):
                    self._engine.remove(one.id)
        self._volumes.sweep(wanted)


def _nothing() -> bytes:
    """Return a tar file with an empty folder: an engine makes no image of nothing at all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("opt")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    return buffer.getvalue()


def _noted(ended: asyncio.Future[None]) -> None:
    if not ended.cancelled() and (error := ended.exception()) is not None:
        _LOG.debug("contents were not swept", extra={"reason": str(error)})


def _now() -> float:
    return asyncio.get_running_loop().time()
