"""A command inside an instance: a child of the broker's with everything of the agent's.

Blocking: each has a thread for as long as it takes. Refuses to know instances but for their
directory; docs/backends/process.md tells what such a command has.
"""

import contextlib
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Sequence

from backends import api
from backends.kit import running
from backends.process import kernel, proc
from outside import quotes, text, typed

_COMMAND = pathlib.Path(__file__).with_name("command.py")
_PIECE = 64 << 10
_PIECES_LEFT = 16  # a pipe holds 64 KiB, a megabyte at most
_LOOK_S = 0.1  # whether it was given up
_NO_PIDFD_S = 0.02
_GONE_S = 10.0  # killed processes that hang in the kernel are left to it


def run(
    home: pathlib.Path,
    argv: Sequence[str],
    *,
    within_s: float,
    given_up: threading.Event,
    hide: Collection[str],
) -> api.Ran:
    """Run a command in the instance of a directory. Raises Rejected, Unavailable, OSError.

    ``hide``: what its output is told without. One that is given up is ended at once.
    """
    told, tell = os.pipe()
    try:
        with subprocess.Popen(  # noqa: S603 -- our own file, no shell
            [sys.executable, "-I", "-S", str(_COMMAND), str(home), str(tell), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={},
            start_new_session=True,
            pass_fds=(tell,),
            bufsize=0,
        ) as child:
            os.close(tell)
            tell = -1
            output = running.LastOutput()
            try:
                ended = _follow(child, output, within_s=within_s, given_up=given_up)
            finally:
                _end(child)
            _drain(child, output)
            complaint = _report(told)
    finally:
        os.close(told)
        if tell >= 0:
            os.close(tell)
    if complaint:
        raise _refusal(complaint, argv[0])
    return running.ran(child.returncode if ended else None, output, hide=hide)


def _follow(
    child: subprocess.Popen[bytes],
    output: running.LastOutput,
    *,
    within_s: float,
    given_up: threading.Event,
) -> bool:
    """Keep what it writes until it ends; False if it did not in time."""
    assert child.stdout is not None  # noqa: S101 -- a pipe was asked for; this is for mypy
    stream = child.stdout.fileno()
    os.set_blocking(stream, False)
    until = time.monotonic() + within_s
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    with contextlib.ExitStack() as stack:
        look_s = _NO_PIDFD_S
        with contextlib.suppress(OSError):  # before Linux 5.3, some sandboxes
            pidfd = os.pidfd_open(child.pid)
            stack.callback(os.close, pidfd)
            poll.register(pidfd, select.POLLIN)
            look_s = _LOOK_S
        while child.poll() is None:
            left = until - time.monotonic()
            if left <= 0 or given_up.is_set():
                return False
            for file, _ in poll.poll(min(look_s, left) * 1000):
                if file == stream and not _read(stream, output):
                    poll.unregister(stream)
    return True


def _read(stream: int, output: running.LastOutput) -> bool:
    """Keep what is there; False at the end of the stream."""
    try:
        data = os.read(stream, _PIECE)
    except BlockingIOError:
        return True
    output.take(data)
    return bool(data)


def _drain(child: subprocess.Popen[bytes], output: running.LastOutput) -> None:
    """Take what is left in the pipe; whoever runs in the background may write for ever."""
    assert child.stdout is not None  # noqa: S101 -- as above
    with contextlib.suppress(BlockingIOError):
        for _ in range(_PIECES_LEFT):
            output.take(os.read(child.stdout.fileno(), _PIECE))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill one that runs still, with its group and all below it, and collect it."""
    if child.returncode is None:
        below = kernel.descendants(child.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        proc.kill(below)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GONE_S)


def _report(told: int) -> dict[str, object]:
    """Return why it could not become the program; empty: it did."""
    os.set_blocking(told, False)  # one that runs on in the kernel may hold the other end
    try:
        document = json.loads(os.read(told, 4096) or b"{}")
    except (BlockingIOError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _refusal(complaint: dict[str, object], program: str) -> api.BackendError:
    words = text.clean(typed.words(complaint.get("words"), 256))
    if complaint.get("step") == "execute":
        return api.Rejected(f"cannot execute {quotes.shown(program)}: {words}")
    what = "its working directory" if complaint.get("step") == "directory" else "its limits"
    return api.Unavailable(
        f"a command cannot be run in it: {what}: {words}", reach=api.Reach.LAUNCH
    )
