"""A node whose kubelet runs pods for real: init containers, volumes, the agent, its end.

What is in every image is this machine in a mount namespace (``brought``), but for images that are
given as a folder: those are what image volumes and init containers show. Containers beside the
agent's are there and do nothing.
"""

import asyncio
import contextlib
import os
import pathlib
import signal
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from backends.kit import runtime
from tests import brought

_MISSING = 'failed to pull and unpack image "{}": not found'


@define(eq=False)
class Machine:
    """Runs the pods of one cluster below a folder; ``aclose`` leaves no process behind."""

    folder: pathlib.Path
    images: Mapping[str, pathlib.Path]  # by name: what is in them, at its path
    processes: dict[str, asyncio.subprocess.Process] = field(factory=dict)  # by pod

    def begin(self, pod: Mapping[str, Any], secrets: Mapping[str, Any]) -> "Life":
        """Make the volumes of a pod."""
        home = self.folder / pod["metadata"]["uid"]
        for volume in pod["spec"].get("volumes", ()):
            place = home / "volumes" / volume["name"]
            place.mkdir(parents=True)
            if "secret" in volume:
                for name, text in secrets[volume["secret"]["secretName"]]["stringData"].items():
                    (place / name).write_text(text)
        return Life(self, pod, home)

    def stop(self, name: str) -> None:
        """End a pod's agent."""
        process = self.processes.get(name)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        for name, process in self.processes.items():
            self.stop(name)
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

    async def start(self, container: Mapping[str, Any]) -> asyncio.subprocess.Process:
        """Start a container's command with its mounts."""
        root = self.home / "roots" / container["name"]
        root.mkdir(parents=True)
        mounts = []
        if container["image"] in self.machine.images:
            mounts.append(self._of_image(container["image"], runtime.ROOT.lstrip("/")))
        volumes = {one["name"]: one for one in self.pod["spec"].get("volumes", ())}
        for mount in container.get("volumeMounts", ()):
            volume = volumes[mount["name"]]
            if "image" in volume:
                made = self._of_image(volume["image"]["reference"], mount["subPath"])
                source, read_only = made.source, True
            else:
                source = str(self.home / "volumes" / mount["name"])
                read_only = mount.get("readOnly", False)
            mounts.append(brought.Mount(source, mount["mountPath"], read_only))
        if not any(mount.target == "/tmp" for mount in mounts):
            scratch = root.with_name(f"{container['name']}.tmp")
            scratch.mkdir()
            mounts.append(brought.Mount(str(scratch), "/tmp"))
        log = self.home / f"{container['name']}.log"
        with log.open("wb") as out:
            return await asyncio.create_subprocess_exec(
                *brought.inside(
                    mounts,
                    container["command"],
                    folder=container.get("workingDir", "/"),
                    root=root,
                ),
                env={"PATH": os.environ["PATH"]}
                | {one["name"]: one["value"] for one in container.get("env", ())},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def log(self, container: str) -> list[str]:
        """Return what a container has written."""
        return (self.home / f"{container}.log").read_text(errors="replace").splitlines()

    def _of_image(self, name: str, inside: str) -> brought.Mount:
        return brought.Mount(str(self.machine.images[name] / inside), f"/{inside}", True)
