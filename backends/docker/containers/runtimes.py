"""Brings a Java into containers whose image has none: a volume for each content, filled once.

Blocking. Refuses to know what is in an archive beside its manifest, and what agents do with it.

Theory of operation: a container that has the volume is created first: the agent's own, or, where
somebody else makes that, one that keeps it. From then on the engine
removes the volume for nobody, so what is looked at is what the container will have. Where
``.complete`` is missing in it, the archive is unpacked there by way of a second container that is
never started and sees the volume writable. Its name is the lock: whoever finds it taken waits.
The mark is the last file of the archive, so half of one is never taken for a whole. A filler may
not take longer than ``_FILL_S``; one that is there for longer was left by a broker that ended, and
is removed by whoever waits. All brokers of an engine share a volume; whoever made it sweeps it,
once it is of no runtime of his any more, and the engine keeps it while a container has it.
"""

import contextlib
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from backends import api
from backends.docker import settings
from backends.docker.containers import container
from backends.docker.engine import client
from backends.kit import finding, runtime
from outside import quotes, text

_FILLS = f"{container.PREFIX}fills"
_FILL_S = 90.0
_PUT_S = _FILL_S  # for the archive alone
_LOOK_S = 0.2
_IMAGE_MOUNTS = (1, 48)
SWEEP_S = 600.0


class Volumes:
    """The volumes of one owner on one engine, filled from archives."""

    def __init__(self, engine: client.Engine, *, owner: str) -> None:
        self._engine = engine
        self._marks = container.owner_labels(owner)
        self._lock = threading.Lock()
        self._fillers: dict[str, float] = {}  # since when each is seen, time.monotonic()

    def labels(self, manifest: runtime.Manifest) -> dict[str, str]:
        """Return the labels of the volume of a content."""
        return {**self._marks, container.RUNTIME: manifest.digest}

    def provide(
        self, container_id: str, *, tar: str, image: str, mount: Mapping[str, Any]
    ) -> None:
        """Unpack an archive in the volume that a created container has, unless it is full.

        ``image`` is any that the engine has; ``mount``: how the container has the volume. Raises
        Rejected, Unavailable.
        """
        while not self._is_complete(container_id):
            self._fill_or_wait(tar, _filler(image, mount))

    def fill(self, tar: str, image: str, *, tell: client.Sent) -> str:
        """Fill the volume of an archive that no container wants yet; return its name.

        ``image``: of the container that does it, which is never started. What is made here is of
        no owner. Raises Rejected, Unavailable, and ``client.NoImageError``.
        """
        manifest = manifest_of(tar)
        volume, is_full = volume_of(manifest), False
        mount = container.runtime_mount(volume, {container.RUNTIME: manifest.digest})
        try:
            while not is_full:
                is_full = self._fill_or_wait(tar, _filler(image, mount), tell=tell)
        finally:
            if not is_full:
                with contextlib.suppress(api.BackendError):  # or others have it
                    self._engine.remove_volume(volume)
        return volume

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove our volumes of contents but for those of ``wanted``. Raises Unavailable."""
        for name, labels in self._engine.volumes(self._marks).items():
            if container.RUNTIME in labels and name not in wanted:
                with contextlib.suppress(api.NotFound, api.Rejected):  # gone, or in use
                    self._engine.remove_volume(name)

    def sweep_fillers(self, before: float) -> None:
        """Remove fillers made before a moment (POSIX seconds), and volumes they left half full.

        Of contents that nobody wants any more nobody would. Raises Unavailable.
        """
        listed, _ = self._engine.list({})
        for one in listed:
            volume = one.labels.get(_FILLS)
            if volume is None or one.created_at is None or one.created_at >= before:
                continue
            with contextlib.suppress(api.NotFound, api.Rejected):  # gone, or in use
                is_full = self._is_complete(one.id)
                self._engine.remove(one.id)
                if not is_full:
                    self._engine.remove_volume(volume)

    def _is_complete(self, container_id: str) -> bool:
        return self._engine.owner_of(container_id, runtime.COMPLETE) is not None

    def _fill_or_wait(
        self, tar: str, body: dict[str, Any], *, tell: client.Sent | None = None
    ) -> bool:
        """Fill a volume, unless it is full; return False where somebody else was at it.

        Raises Rejected, Unavailable, and ``client.NoImageError``.
        """
        called = _called(body["Labels"][_FILLS])
        try:
            filler = self._engine.create_body(called, body)
        except client.NameTakenError:
            self._wait(called)
            return False
        try:
            if self._is_complete(filler):
                return True
            self._engine.put_file(filler, "/", tar, within_s=_PUT_S, tell=tell)
            if not self._is_complete(filler):  # again would end the same
                raise api.Rejected(
                    f"runtime {tar}: {runtime.COMPLETE} is missing at its end; hint: agent-broker "
                    "runtime build makes a whole one"
                )
        except OSError as error:
            raise api.Rejected(f"runtime {tar}: cannot be read: {error.strerror}") from error
        finally:
            with contextlib.suppress(api.BackendError):  # or whoever waits for it
                self._engine.remove(filler)
        return True

    def _wait(self, called: str) -> None:
        """Give the filler of that name time, and remove it when that is over."""
        try:
            there = self._engine.inspect(called)
        except api.NotFound:
            return
        if _FILLS not in there.labels:
            raise api.Rejected(f"the container {quotes.shown(called)} exists and is not ours")
        with self._lock:
            since = self._fillers.setdefault(there.id, time.monotonic())
        if time.monotonic() - since > _FILL_S:
            with contextlib.suppress(api.NotFound):
                self._engine.remove(there.id)
            with self._lock:
                self._fillers.pop(there.id, None)
        else:
            time.sleep(_LOOK_S)


class Runtimes:
    """The runtimes of one owner on one engine, for containers that are made there."""

    def __init__(
        self, engine: client.Engine, configured: settings.DockerSettings, *, owner: str
    ) -> None:
        self._engine = engine
        self._configured = configured
        self._volumes = Volumes(engine, owner=owner)
        self._swept_at: float | None = None  # time.monotonic()

    def planned(self, plan: container.ContainerPlan) -> container.ContainerPlan:
        """Return the same with what only this engine and its image tell.

        Raises Rejected for a runtime that cannot be, and ``client.NoImageError``.
        """
        brought = plan.runtime
        if brought is None:
            return plan
        if brought.image is not None and self._engine.speaks() < _IMAGE_MOUNTS:
            raise api.Rejected(
                "this engine mounts no images: API 1.48 is needed (Docker 28); hint: `tar` of the "
                "runtime"
            )
        if brought.tar is not None:
            manifest = manifest_of(brought.tar)
            plan = plan.with_volume(volume_of(manifest), self._volumes.labels(manifest))
        return plan.with_tools(self._engine.search_path(plan.image))

    def provide(self, container_id: str, plan: container.ContainerPlan) -> None:
        """Fill the volume of a created container, unless it is full.

        Raises Rejected, Unavailable.
        """
        if plan.runtime is not None and plan.runtime.tar is not None:
            self._volumes.provide(
                container_id, tar=plan.runtime.tar, image=plan.image, mount=_mount(plan)
            )

    def sweep(self) -> None:
        """Remove our volumes whose content is wanted no more, now and then; raises Unavailable."""
        now = time.monotonic()
        if self._swept_at is not None and now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        try:
            wanted = {
                volume_of(manifest_of(brought.tar))
                for brought in self._configured.runtimes.values()
                if brought.tar is not None
            }
        except api.Rejected:
            return  # which one it will be is not known
        self._volumes.sweep(wanted)


def volume_of(manifest: runtime.Manifest) -> str:
    """Return the name of the volume of a content."""
    return f"agent-broker-runtime-{manifest.short}"


def _called(volume: str) -> str:
    return f"{volume}-filler"


def manifest_of(path: str) -> runtime.Manifest:
    """Return what an archive of this machine says of itself. Raises Rejected."""
    try:
        return runtime.read(path)
    except OSError as error:
        raise api.Rejected(f"runtime {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise api.Rejected(text.clean(f"runtime {path}: {error}")) from error


class HasArchive(Protocol):
    """A runtime of a backend's settings, as far as it is looked at here."""

    @property
    def tar(self) -> str | None:
        """Its archive on the broker's machine."""


def examined(
    configured: Mapping[str, HasArchive], orders: Mapping[str, api.InstanceSpec]
) -> Iterator[finding.Finding]:
    """Yield what is wrong with the archives of this machine that templates want, each once."""
    for name in sorted({order.runtime for order in orders.values() if order.runtime is not None}):
        brought = configured.get(name)
        if brought is None or brought.tar is None:
            continue
        try:
            told = manifest_of(brought.tar)
        except api.Rejected as error:
            yield finding.fail(
                "runtime", error.reason, f"agent-broker runtime build --output {brought.tar}",
                fault="configuration",
            )  # fmt: skip
        else:
            words = f"{name}: {brought.tar} has Java {told.java} for {told.platform}"
            yield finding.ok("runtime", words)


def _mount(plan: container.ContainerPlan) -> dict[str, Any]:
    mounts = plan.body["HostConfig"]["Mounts"]
    return next(dict(mount) for mount in mounts if mount["Target"] == runtime.ROOT)


def _filler(image: str, mount: Mapping[str, Any]) -> dict[str, Any]:
    """A container for the sake of its mount: it is never started."""
    return {
        "Image": image,
        "Entrypoint": ["/never"],
        "Cmd": [],
        "Labels": {_FILLS: mount["Source"]},
        "HostConfig": {"NetworkMode": "none", "Mounts": [{**mount, "ReadOnly": False}]},
    }
