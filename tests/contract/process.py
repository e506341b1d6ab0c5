"""The contract suite on the process backend; everything here asks the kernel, not the backend."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import attrs

from backends import api
from backends.kit import names
from backends.process import backend, settings
from tests.contract import harness

_NOBODY = 65534
_MAX_INSTANCES = 150


class ProcessHarness:
    kind = "process"
    within_s = 15.0
    burst = 30  # each has an interpreter that watches it
    lacks: Mapping[str, str] = {
        "ports": "a process has all ports of its machine",
        "list-part unavailable": "what cannot be read is remembered, or costs its instance only",
        "terminate unavailable": "an odd file is in the way of no removal",
        "logs unavailable": "output that cannot be read is left out",
        "place": "every process runs on the broker's own machine",
        "run unavailable": "an instance that cannot be read is none",
    }

    def __init__(self, folder: pathlib.Path) -> None:
        self.root = folder / "root"
        self._settings = settings.ProcessSettings(
            directory=str(self.root), max_instances=_MAX_INSTANCES
        )
        self._planted: dict[str, tuple[subprocess.Popen[bytes], pathlib.Path]] = {}

    def backend(self, *, owner: str = "ours") -> api.Backend:
        return backend.create(
            self._settings, owner=owner, store=None, state_dir=self.root, now=time.time
        )

    def spec(
        self, name: str, program: harness.Program = harness.FOR_EVER, **changes: object
    ) -> api.InstanceSpec:
        spec = api.InstanceSpec(name=name, metadata={names.OWNER: "ours"}, argv=program.argv())
        return attrs.evolve(spec, **changes)

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        raise NotImplementedError

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        if flaw == "bad-image":
            return attrs.evolve(self.spec(name), image="no-such-image:0")
        return attrs.evolve(self.spec(name), argv=("/no/such/program", "x"))

    # --- the platform as others see it ---

    def command(self, program: harness.Program) -> Sequence[str]:
        return program.argv()

    async def plant(self, name: str) -> None:
        """Put a process of the same name and a directory that looks like ours beside."""
        folder = self.root / "owners" / "somebody" / name
        folder.mkdir(parents=True)
        (folder / "instance.json").write_text(f'{{"name": "{name}", "token": "0123"}}')
        process = subprocess.Popen(["/bin/sleep", "86400"], cwd=folder)
        self._planted[name] = process, folder

    async def intact(self, name: str) -> bool:
        process, folder = self._planted[name]
        return process.poll() is None and ["instance.json"] == os.listdir(folder)

    def unplant(self) -> None:
        for process, _ in self._planted.values():
            process.kill()
            process.wait()

    def _processes(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield pid, command line and environment of everything that was started under us."""
        root = os.fsencode(self.root)
        planted = {process.pid for process, _ in self._planted.values()}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) not in {os.getpid(), *planted}:
                with contextlib.suppress(OSError):
                    argv = (entry / "cmdline").read_bytes()
                    environ = (entry / "environ").read_bytes()
                    if root in argv or root in environ:
                        yield int(entry.name), argv, environ

    def _supervisors(self, name: str | None = None) -> dict[int, str]:
        """Pids of supervisors to the name of their instance."""
        found, below = {}, {}
        for pid, argv, _ in self._processes():
            words = [os.fsdecode(word) for word in argv.split(b"\0")]
            if any(word.endswith("/supervisor.py") for word in words):
                home = pathlib.Path(words[-2])
                below[pid] = _children(pid)
                if name in {None, home.name} and below[pid]:
                    found[pid] = home.name
        # the first process forks the supervisor and leaves: it is none, though it has a child
        return {pid: name for pid, name in found.items() if not found.keys() & below[pid]}

    async def running(self) -> Sequence[str]:
        return sorted(self._supervisors().values())

    async def remains(self) -> Sequence[str]:
        found = [f"process {pid}: {argv!r}" for pid, argv, _ in self._processes()]
        owners = self.root / "owners"
        for home in owners.iterdir() if owners.exists() else ():
            if home.name != "somebody":
                found += map(str, home.glob("[!.]*"))
                found += map(str, home.glob(".*/*"))
        return found

    async def exposed(self, name: str) -> str:
        told = [argv + environ for _, argv, environ in self._processes()]
        assert len(told) >= 2, "the supervisor and the agent"
        return repr(told)

    async def kill(self, name: str) -> None:
        (supervisor,) = self._supervisors(name)
        for pid in _children(supervisor):
            os.kill(pid, signal.SIGKILL)

    @contextlib.asynccontextmanager
    async def provoke(self, verb: str, slug: str) -> AsyncIterator[None]:
        if slug == "no-capacity":
            with self._full():
                yield
            return
        if slug == "unauthorized":
            with _forbidden(self.root):
                yield
            return
        (home,) = (self.root / "owners").iterdir()
        with _unreadable(home):
            yield

    @contextlib.contextmanager
    def _full(self) -> Iterator[None]:
        """Take every place that `max_instances` leaves."""
        (home,) = (self.root / "owners").iterdir()
        taken = [home / f"taken-{number}" for number in range(_MAX_INSTANCES)]
        for path in taken:
            path.mkdir()
            (path / "instance.json").touch()
        yield
        for path in taken:
            shutil.rmtree(path)


def _children(pid: int) -> list[int]:
    try:
        text = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return []
    return [int(word) for word in text.split()]


@contextlib.contextmanager
def _unreadable(path: pathlib.Path) -> Iterator[None]:
    """Put something else in its place: a file for a directory, a directory for a file."""
    aside = path.with_name(f".aside.{path.name}")
    was_directory = path.is_dir()
    path.rename(aside)
    path.touch() if was_directory else path.mkdir()
    yield
    path.unlink() if was_directory else path.rmdir()
    aside.rename(path)


@contextlib.contextmanager
def _forbidden(root: pathlib.Path) -> Iterator[None]:
    """Take the right to enter the directory away from this process."""
    root.chmod(0)
    was = os.geteuid()
    if was == 0:  # root may enter everything
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)
        root.chmod(0o700)


@contextlib.asynccontextmanager
async def open_harness(folder: pathlib.Path, address: str | None) -> AsyncIterator[ProcessHarness]:
    opened = ProcessHarness(folder)
    try:
        yield opened
    finally:
        opened.unplant()
        for pid, _, _ in opened._processes():  # only after a failed test
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
