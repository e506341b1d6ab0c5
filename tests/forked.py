"""Starts of the program that cost no import: forked off a process that has imported it already.

Each is a process of its own, with its own signals, files, environment and end; only what an
interpreter does to begin is not done again. What that is about starts one itself: ``tests/cli``,
``tests/e2e/test_demo.py``, ``test_at_rest.py``, ``test_another_user.py``.
"""

import asyncio
import contextlib
import gc
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import IO

from attrs import define, field

_REQUEST_BYTES = 1 << 17
_FILES = 4  # input, output, errors, and where the end is told
_ROOT = pathlib.Path(__file__).parents[1]


class _Source:
    """The process that is forked; started when it is first wanted."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def ask(self, request: bytes, files: list[int]) -> None:
        """Let a program be started with these files."""
        if self._line is None:
            self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            environ = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd=_ROOT,
                    env=environ,
                )
        socket.send_fds(self._line, [request], files)

    def end(self) -> None:
        """End it; what was started goes on."""
        if self._line is not None and self._process is not None:
            self._line.close()
            self._process.wait()
        self._line = self._process = None


_source = _Source()
end = _source.end


@define(slots=False)  # a stage notes more of each
class Process:
    """A broker as a process, asked as one of asyncio's."""

    pid: int
    returncode: int | None = None
    stdout: asyncio.StreamReader | None = None  # of one that was begun with ``talking``
    stderr: asyncio.StreamReader | None = None
    _line: socket.socket = field(kw_only=True)
    _over: asyncio.Event = field(init=False, factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        asyncio.get_running_loop().add_reader(self._line, self._ended)

    def _ended(self) -> None:
        self.returncode = int(self._line.recv(16))
        asyncio.get_running_loop().remove_reader(self._line)
        self._line.close()
        self._over.set()

    async def wait(self) -> int | None:
        """Wait for its end; return its exit code, or minus the signal that ended it."""
        await self._over.wait()
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Return the rest of what it says, once it has ended."""
        assert self.stdout is not None
        assert self.stderr is not None
        out, err, _ = await asyncio.gather(self.stdout.read(), self.stderr.read(), self.wait())
        return out, err

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Raises ProcessLookupError."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Raises ProcessLookupError."""
        self.send_signal(signal.SIGKILL)


async def start(
    *arguments: str,
    output: IO[bytes] | int,
    errors: IO[bytes] | int | None = None,
    cwd: pathlib.Path,
    env: Mapping[str, str],
) -> Process:
    """Start ``agent-broker`` with arguments; it says everything into files, and is asked nothing."""
    request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": dict(env)}).encode()
    line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.setblocking(False)
    told = [
        one if isinstance(one, int) else one.fileno()
        for one in (output, output if errors is None else errors)
    ]
    with theirs, open(os.devnull, "rb") as nothing:
        _source.ask(request, [nothing.fileno(), *told, theirs.fileno()])
    pid = int(await asyncio.get_running_loop().sock_recv(line, 16))
    return Process(pid, line=line)


async def talking(*arguments: str, cwd: pathlib.Path, env: Mapping[str, str]) -> Process:
    """Start ``agent-broker`` with arguments; what it says is read as it comes."""
    pipes = [os.pipe(), os.pipe()]
    try:
        output, errors = (writes for _, writes in pipes)
        process = await start(*arguments, output=output, errors=errors, cwd=cwd, env=env)
    finally:
        for _, writes in pipes:
            os.close(writes)
    process.stdout, process.stderr = [await _reader(reads) for reads, _ in pipes]
    return process


async def _reader(handle: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(handle, "rb", buffering=0)
    )
    return reader


# --- in the process that is forked ---


def _serve(line: socket.socket) -> list[str] | None:
    """Fork for each request; return its arguments in the program, nothing at the end of all."""
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        request, files, _, _ = socket.recv_fds(line, _REQUEST_BYTES, _FILES)
        if not request:
            return None
        if os.fork() == 0:
            line.close()
            return _program(json.loads(request), files)
        for file in files:
            os.close(file)


def _program(told: dict, files: list[int]) -> list[str]:
    """Fork once more: wait for the program and tell of its end, or be the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        for file in files[:3]:
            os.close(file)
        with contextlib.suppress(BrokenPipeError), socket.socket(fileno=files[3]) as asker:
            asker.send(str(pid).encode())
            _, status = os.waitpid(pid, 0)
            asker.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    # what Python made of those that this process began with, it makes of these
    sys.stdin = sys.__stdin__ = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = open(
        2, "w", buffering=1, errors="backslashreplace", closefd=False
    )
    os.environ.clear()
    os.environ.update(told["env"])
    os.chdir(told["cwd"])
    return told["arguments"]


def _main() -> int:
    from broker.cli import main as cli

    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    return 0 if arguments is None else cli.main(arguments)


if __name__ == "__main__":
    sys.exit(_main())
