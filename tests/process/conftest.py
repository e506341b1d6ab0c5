"""A small workshop around the process backend: real programs, real files, real signals."""

import contextlib
import json
import os
import pathlib
import signal
import time
from collections.abc import AsyncIterator, Callable

import attrs
import pytest
import pytest_asyncio

from backends import api
from backends.process import backend, settings
from tests.contract import checks
from tests.contract.harness import Program
from tests.contract.process import ProcessHarness

WITHIN_S = 15.0


class Workshop:
    """One directory, any number of backend objects on it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.harness = ProcessHarness(folder)
        self.root = self.harness.root
        self.opened: list[api.Backend] = []

    def open(self, *, owner: str = "ours", root: pathlib.Path | None = None, **changes: object):
        """Return a new backend; ``changes`` are its settings."""
        configured = settings.ProcessSettings(directory=str(root or self.root), **changes)
        made = backend.create(
            configured, owner=owner, store=None, state_dir=self.root, now=time.time
        )
        self.opened.append(made)
        return made

    def home(self, name: str) -> pathlib.Path:
        """Return the directory of an instance."""
        (found,) = (self.root / "owners").glob(f"*/{name}")
        return found

    def claim(self, name: str) -> dict[str, object]:
        """Return what the supervisor wrote about itself and the agent."""
        return json.loads((self.home(name) / "supervisor").read_text())

    async def started(self, made: api.Backend, name: str, commands: str, **changes: object):
        """Launch shell commands that run for ever after; wait until they have been run."""
        spec = self.spec(name, f"{commands}\nprintf 'ready\\n'", **changes)
        await made.launch(spec)

        async def ready() -> bool:
            return "ready" in (await made.logs(name, tail=1000)).splitlines()

        await checks.until(f"{name} is ready", ready, within_s=WITHIN_S)

    def spec(self, name: str, commands: str = "", *, exit_code: int | None = None, **changes):
        """Return a specification that runs shell commands, then waits for its end, or ends."""
        program = Program(commands=commands, exit_code=exit_code)
        return attrs.evolve(self.harness.spec(name, program), **changes)

    async def ended(self, made: api.Backend, name: str) -> api.Exit:
        """Wait for the end of an instance."""
        instance = await checks.exited(made, name, within_s=WITHIN_S)
        assert instance.exit is not None
        return instance.exit


def lives(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or read
        return False


async def dead(*pids: int) -> None:
    """Wait until none of the processes runs."""

    async def look() -> bool:
        return not any(map(lives, pids))

    await checks.until(f"{pids} are dead", look, within_s=WITHIN_S)


@pytest_asyncio.fixture
async def shop(tmp_path: pathlib.Path) -> AsyncIterator[Workshop]:
    """Give the workshop; nothing that was started in it outlives the test."""
    made = Workshop(tmp_path)
    yield made
    for opened in made.opened:
        with contextlib.suppress(api.BackendError):
            for instance in await opened.list():
                await opened.terminate(instance.name, grace_s=0)
        await opened.aclose()
    for pid, _, _ in made.harness._processes():  # only after a failed test
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def made(shop: Workshop) -> api.Backend:
    """Give a backend with the default settings."""
    return shop.open()


@pytest.fixture
def innocent() -> Callable[[], int]:
    """Give the pid of a process that is nobody's business."""
    import subprocess

    with subprocess.Popen(["/bin/sleep", "86405"]) as process:
        yield process.pid
        assert process.poll() is None, "an innocent process was killed"
        process.kill()
