"""A node whose kubelet runs pods for real: init containers, volumes, the agent, its end.

What is in every image is this machine in a mount namespace (``brought``), but for images that are
given as a folder: those are what image volumes and init containers show. Containers beside the
agent's are there and do nothing.
"""

import asyncio
import base64
import contextlib
import itertools
import os
import pathlib
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from backends.kit import runtime
from tests import brought

_NUMBERS = itertools.count()
_MISSING = 'failed to pull and unpack image "{}": not found'


@define(eq=False)
class Machine:
    """Runs the pods of one cluster below a folder; ``aclose`` leaves no process behind."""

    folder: pathlib.Path
    images: Mapping[str, pathlib.Path]  # by name: what is in them, at its path
    processes: dict[str, asyncio.subprocess.Process] = field(factory=dict)  # by pod
    lives: dict[str, "Life"] = field(factory=dict)  # by pod, the latest
    started: list[asyncio.Future[asyncio.subprocess.Process]] = field(factory=list)

    def begin(
        self,
        pod: Mapping[str, Any],
        secrets: Mapping[str, Any],
        config_maps: Mapping[str, Any],
    ) -> "Life":
        """Make the volumes of a pod."""
        home = self.folder / pod["metadata"]["uid"]
        for volume in pod["spec"].get("volumes", ()):
            place = home / "volumes" / volume["name"]
            place.mkdir(parents=True)
            if "secret" in volume:
                _fill(place, volume["secret"], secrets[volume["secret"]["secretName"]])
            if "configMap" in volume:
                _show(place, volume["configMap"], config_maps[volume["configMap"]["name"]])
        self.lives[pod["metadata"]["name"]] = Life(self, pod, home)
        return self.lives[pod["metadata"]["name"]]

    def stop(self, name: str) -> None:
        """End a pod's agent."""
        process = self.processes.get(name)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        for starting in self.started:  # also those that nobody waited for any more
            process = await starting
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@define(eq=False)
class Life:
    """One pod on its node."""

    machine: Machine
    pod: Mapping[str, Any]
    home: pathlib.Path

    def missing(self, container: Mapping[str, Any]) -> str | None:
        """Return the kubelet's words for an image that is nowhere."""
        volumes = {one["name"]: one for one in self.pod["spec"].get("volumes", ())}
        mounted = [volumes[one["name"]] for one in container.get("volumeMounts", ())]
        wanted = [one["image"]["reference"] for one in mounted if "image" in one]
        if container in self.pod["spec"].get("initContainers", ()):
            wanted.append(container["image"])
        return next(
            (_MISSING.format(one) for one in wanted if one not in self.machine.images), None
        )

    def lacks(self, container: Mapping[str, Any]) -> str | None:
        """Return the command of a container that is brought its Java, if that is not there."""
        (command, *_) = container["command"]
        for mount in container.get("volumeMounts", ()):
            inside = command.removeprefix(f"{mount['mountPath']}/")
            if inside != command and not (self._source(mount) / inside).exists():
                return command
        return None

    async def start(self, container: Mapping[str, Any]) -> asyncio.subprocess.Process:
        """Start a container's own command."""
        with (self.home / f"{container['name']}.log").open("wb") as out:
            starting = asyncio.ensure_future(
                asyncio.create_subprocess_exec(
                    *self.inside(container["name"], container["command"]),
                    env=self.env(container["name"]),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )
            self.machine.started.append(starting)
            return await asyncio.shield(starting)

    def env(self, name: str) -> dict[str, str]:
        """Return the variables that a container's processes have."""
        told = {one["name"]: one["value"] for one in self._container(name).get("env", ())}
        return {"PATH": os.environ["PATH"], "HOME": "/", **told}

    def inside(self, name: str, argv: Sequence[str]) -> Sequence[str]:
        """Return a command that runs one in a container, with its mounts."""
        container = self._container(name)
        root = self.home / "roots" / f"{name}-{next(_NUMBERS)}"
        scratch = self.home / f"{name}.tmp"
        for folder in (root, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        mounts = []
        if container["image"] in self.machine.images:
            mounts.append(self._of_image(container["image"], runtime.ROOT.lstrip("/")))
        for mount in container.get("volumeMounts", ()):
            source, read_only = str(self._source(mount)), mount.get("readOnly", False)
            mounts.append(brought.Mount(source, mount["mountPath"], read_only))
        if not any(mount.target == "/tmp" for mount in mounts):
            mounts.append(brought.Mount(str(scratch), "/tmp"))
        folder = container.get("workingDir", "/")
        return brought.inside(mounts, argv, folder=folder, root=root)

    def _source(self, mount: Mapping[str, Any]) -> pathlib.Path:
        volumes = {one["name"]: one for one in self.pod["spec"]["volumes"]}
        image = volumes[mount["name"]].get("image")
        place = self.home / "volumes" / mount["name"]
        if image is not None:
            place = self.machine.images[image["reference"]]
        return place / mount.get("subPath", "")

    def _container(self, name: str) -> Mapping[str, Any]:
        body = self.pod["spec"]
        every = (*body["containers"], *body.get("initContainers", ()))
        return next(one for one in every if one["name"] == name)

    def log(self, container: str) -> list[str]:
        """Return what a container has written."""
        return (self.home / f"{container}.log").read_text(errors="replace").splitlines()

    def _of_image(self, name: str, inside: str) -> brought.Mount:
        return brought.Mount(str(self.machine.images[name] / inside), f"/{inside}", True)


def _fill(place: pathlib.Path, source: Mapping[str, Any], secret: Mapping[str, Any]) -> None:
    """Write a secret's files, those that are asked for, as the kubelet does."""
    every = [{"key": key, "path": key} for key in secret["stringData"]]
    for item in source.get("items", every):
        (place / item["path"]).write_text(secret["stringData"][item["key"]])
        (place / item["path"]).chmod(item.get("mode", source.get("defaultMode", 0o644)))


def _show(place: pathlib.Path, source: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Write the files of a config map that are asked for."""
    files = {key: text.encode() for key, text in made.get("data", {}).items()}
    files |= {key: base64.b64decode(told) for key, told in made.get("binaryData", {}).items()}
    for item in source["items"]:
        (place / item["path"]).write_bytes(files[item["key"]])
        (place / item["path"]).chmod(source["defaultMode"])
