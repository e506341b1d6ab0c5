"""What an agent with its command executor does, for real: a sandbox, a shell, signals, an end.

The part of Mesos that the fake master's plans only pretend: programs run as processes of this
machine, with the secret volumes, variables, words and kills of the Mesos containerizer (recordings 02 to
04 and 17). A task with an image is left to its plan.
"""

import asyncio
import base64
import contextlib
import os
import pathlib
import shutil
import signal
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping

from tests.mesos import master


class Launcher:
    """Runs the tasks of one machine below one folder; ``aclose`` leaves no process behind."""

    def __init__(self, machine: master.Master, folder: pathlib.Path) -> None:
        self.fetches = asyncio.Event()  # cleared: fetching waits
        self.fetches.set()
        self.mounts = True  # False: an agent without the isolator volume/secret
        self._machine = machine
        self._folder = folder
        self._running: set[asyncio.Task[None]] = set()
        self._pids: dict[tuple[str, str], int] = {}

    def takes(self, info: Mapping[str, object]) -> bool:
        return set(info.get("container", {})) <= {"type", "volumes"}

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
        await self.fetches.wait()
        try:
            for uri in command.get("uris", ()):
                await asyncio.to_thread(_fetch, uri["value"], sandbox / uri["output_file"])
        except OSError as error:
            words = f"Failed to launch container: Failed to fetch all URIs: {error}"
            reason = "REASON_CONTAINER_LAUNCH_FAILED"
            self._machine.change(task, "TASK_FAILED", words, reason, "SOURCE_AGENT")
            return
        for volume in task.info.get("container", {}).get("volumes", ()) if self.mounts else ():
            # as the isolator volume/secret does
            assert volume["source"]["type"] == "SECRET"
            path = sandbox / volume["container_path"]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(base64.b64decode(volume["source"]["secret"]["value"]["data"]))
        with (sandbox / "stdout").open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                command["value"],
                cwd=sandbox,
                env={
                    "PATH": os.environ["PATH"],
                    "MESOS_SANDBOX": str(sandbox),
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


def _fetch(url: str, place: pathlib.Path) -> None:
    """As Mesos' fetcher does: into the sandbox, readable for whoever comes into it."""
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
