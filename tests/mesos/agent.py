"""What an agent with its command executor does, for real: a sandbox, a shell, signals, an end.

The part of Mesos that the fake master's plans only pretend: programs run as processes of this
machine, with the secret volumes, variables, words and kills of the Mesos containerizer (recordings 02 to
04 and 17). A task with an image is left to its plan, unless the images are this machine in a mount
namespace (``brought``): then it has the mounts of either containerizer, as Mesos' sources make
them (``volume/sandbox_path``; ``docker.cpp``: a relative ``host_path`` is one of the sandbox).
"""

import asyncio
import base64
import contextlib
import os
import pathlib
import shutil
import signal
import tarfile
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tests import brought
from tests.mesos import master

_SANDBOX = "/mnt/mesos/sandbox"
_ARCHIVES = (".tar", ".tar.gz", ".tgz")


class Launcher:
    """Runs the tasks of one machine below one folder; ``aclose`` leaves no process behind."""

    def __init__(
        self, machine: master.Master, folder: pathlib.Path, *, images: bool = False
    ) -> None:
        self.fetches = asyncio.Event()  # cleared: fetching waits
        self.fetches.set()
        self.mounts = True  # False: an agent without the isolator volume/secret
        self.fetched: list[str] = []  # addresses; what the cache has is not fetched again
        self._machine = machine
        self._folder = folder
        self._images = images
        self._running: set[asyncio.Task[None]] = set()
        self._pids: dict[tuple[str, str], int] = {}

    def takes(self, info: Mapping[str, object]) -> bool:
        more = {"mesos", "docker"} if self._images else set()
        return set(info.get("container", {})) <= {"type", "volumes"} | more

    def start(self, task: master.Task) -> None:
        running = asyncio.ensure_future(self._run(task))
        self._running.add(running)
        running.add_done_callback(self._running.discard)

    def kill(self, task: master.Task, grace_s: float) -> None:
        self._signal(task, signal.SIGTERM)
        asyncio.get_running_loop().call_later(grace_s, self._signal, task, signal.SIGKILL)

    def output(self, framework: str, name: str, file: str) -> bytes | None:
        path = self._sandbox(framework, name) / file
        return path.read_bytes() if path.exists() else None

    async def aclose(self) -> None:
        for running in [*self._running]:
            running.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _run(self, task: master.Task) -> None:
        sandbox = self._sandbox(task.framework, task.name)
        shutil.rmtree(sandbox, ignore_errors=True)  # of an earlier task of that name
        sandbox.mkdir(parents=True)
        await asyncio.sleep(0.01)  # the way from the master over the agent to the executor
        if task.killed or task.state not in master.LIVE:
            return
        self._machine.change(task, "TASK_STARTING")
        command = task.info["command"]
        told = {
            one["name"]: one["value"]
            for one in command.get("environment", {}).get("variables", ())
        }
        roots = _made_by_isolators(task.info.get("container", {}), sandbox)
        await self.fetches.wait()
        try:
            for uri in command.get("uris", ()):
                await asyncio.to_thread(self._fetch, uri, sandbox, roots)
        except (OSError, tarfile.TarError) as error:
            words = f"Failed to launch container: Failed to fetch all URIs: {error}"
            reason = "REASON_CONTAINER_LAUNCH_FAILED"
            self._machine.change(task, "TASK_FAILED", words, reason, "SOURCE_AGENT")
            return
        container = task.info.get("container", {})
        with (sandbox / "stdout").open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *self._argv(command, container, sandbox),
                cwd=sandbox,
                env={
                    "PATH": os.environ["PATH"],
                    "MESOS_SANDBOX": _SANDBOX if _has_image(container) else str(sandbox),
                    "MESOS_FRAMEWORK_ID": task.framework,
                    "MESOS_EXECUTOR_ID": task.name,
                }
                | told,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._pids[task.framework, task.name] = process.pid
        self._machine.change(task, "TASK_RUNNING")
        if task.killed:  # while it was started
            self._signal(task, signal.SIGKILL)
        try:
            code = await process.wait()
        finally:
            del self._pids[task.framework, task.name]
            await self._destroy(task)
            await process.wait()
        words = f"exited with status {code}"
        if code < 0:
            words = f"terminated with signal {signal.strsignal(-code)}"
        state = "TASK_FINISHED" if code == 0 else "TASK_FAILED"
        self._machine.change(task, "TASK_KILLED" if task.killed else state, f"Command {words}")

    def _fetch(
        self, uri: Mapping[str, Any], sandbox: pathlib.Path, roots: Collection[pathlib.Path]
    ) -> None:
        """As Mesos' fetcher does: through the cache of its host, unpacked by the name's end."""
        url = uri["value"]
        place = sandbox / uri.get("output_file", url.rpartition("/")[2])
        unpacked = uri["extract"] and place.name.endswith(_ARCHIVES)
        source = place
        if uri["cache"]:
            source = self._folder / "cache" / url.encode().hex()
        if not source.exists():
            source.parent.mkdir(parents=True, exist_ok=True)
            _download(url, source)
            self.fetched.append(url)
        if unpacked:
            with tarfile.open(source) as tar:
                if roots & {sandbox / name for name in tar.getnames()}:
                    words = "Failed to write archive finish entry: Can't restore time"
                    raise OSError(f"Failed to extract archive '{source}': {words}")
            brought.unpacked(source, sandbox)
        elif source != place:
            shutil.copy(source, place)

    def _argv(
        self, command: Mapping[str, Any], container: Mapping[str, Any], sandbox: pathlib.Path
    ) -> Sequence[str]:
        """Return what the executor runs, in its image if it has one."""
        docker = container.get("docker", {})
        mounts = []
        for volume in container.get("volumes", ()):
            source, path = volume.get("source", {}), volume["container_path"]
            if source.get("type") == "SECRET":  # as the isolator volume/secret does
                if self.mounts:
                    place = sandbox / path
                    place.parent.mkdir(exist_ok=True)
                    place.write_bytes(base64.b64decode(source["secret"]["value"]["data"]))
                continue
            told = volume["host_path"] if docker else source["sandbox_path"]["path"]
            mounts.append(brought.Mount(str(sandbox / told), path, volume["mode"] == "RO"))
        if command["shell"]:
            argv = ["/bin/sh", "-c", command["value"]]
        elif docker:
            told = {one["key"]: one["value"] for one in docker.get("parameters", ())}
            argv = [told["entrypoint"], *command["arguments"]]
        else:  # the first argument is the program's own name
            argv = [command["value"], *command["arguments"][1:]]
        if not _has_image(container):
            return argv
        root = sandbox.with_name(f"{sandbox.name}.root")
        root.mkdir(exist_ok=True)
        mounts.append(brought.Mount(str(sandbox), _SANDBOX))
        if docker:  # an image has a folder of its own
            (root.with_name("tmp")).mkdir(exist_ok=True)
            mounts.append(brought.Mount(str(root.with_name("tmp")), "/tmp"))
        return brought.inside(mounts, argv, folder=_SANDBOX, root=root)

    async def _destroy(self, task: master.Task) -> None:
        """Whatever the program left: the container ends with its first process."""
        while left := processes(framework=task.framework, name=task.name):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.005)

    def _signal(self, task: master.Task, number: int) -> None:
        pid = self._pids.get((task.framework, task.name))
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _sandbox(self, framework: str, name: str) -> pathlib.Path:
        return self._folder / "frameworks" / framework / "executors" / name / "runs" / "latest"


def _made_by_isolators(
    container: Mapping[str, Any], sandbox: pathlib.Path
) -> Collection[pathlib.Path]:
    """Make what ``volume/sandbox_path`` does before anything is fetched; return what is root's.

    It gives the folder itself to the task's user, and those above it to nobody
    (``sandbox_path.cpp``, ``fetcher.cpp``, ``archiver.hpp`` of 1.11, tried with libarchive).
    """
    roots = set()
    for volume in container.get("volumes", ()):
        inside = volume.get("source", {}).get("sandbox_path")
        if inside is not None:
            folder = sandbox / inside["path"]
            folder.mkdir(parents=True, exist_ok=True)
            roots |= {*folder.parents} - {sandbox, *sandbox.parents}
    return roots


def _has_image(container: Mapping[str, Any]) -> bool:
    return "image" in container.get("mesos", container.get("docker", {}))


def _download(url: str, place: pathlib.Path) -> None:
    """Bring it into the sandbox, readable for whoever comes into it."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            data = answer.read()
    except urllib.error.HTTPError as error:
        error.close()  # else its end is a warning in some later test
        raise
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)


def processes(
    *, framework: str = "", name: str | None = None, frameworks: Collection[str] = ()
) -> list[int]:
    """Return what carries the variables of a task, or of frameworks, wherever it has gone."""
    ours = {f"MESOS_FRAMEWORK_ID={one}".encode() for one in (*frameworks, framework)}
    task = {f"MESOS_EXECUTOR_ID={name}".encode()} if name is not None else set()
    found = []
    for path, data in readable("environ"):
        variables = set(data.split(b"\0"))
        if ours & variables and task <= variables:
            found.append(int(path.parent.name))
    return found


def readable(file: str) -> list[tuple[pathlib.Path, bytes]]:
    """Return that file of every process of this machine that we may look at."""
    found = []
    for path in pathlib.Path("/proc").glob(f"[0-9]*/{file}"):
        with contextlib.suppress(OSError):
            found.append((path, path.read_bytes()))
    return found
