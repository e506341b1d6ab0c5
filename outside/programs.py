"""Programs of the operator that answer one question: run with a limit of time and of bytes.

Why not ``subprocess.run``: it keeps all that a program says, however much, and waits for whoever
inherited the pipe. Refuses to know what is asked, and to use a shell. Blocking: for threads.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO

from attrs import frozen

from outside import counts

_ASKED_MAX = 4096  # fits into an empty pipe, so that writing it waits for nobody
_PIECE = 1 << 16
_LOOK_S = 0.05  # between two looks whether it has ended, while somebody else holds its pipe


class TooMuch(Exception):  # noqa: N818 -- what it is
    """The program said more than it may."""


@frozen
class ProgramOutput:
    """How a program ended, and what it said; negative codes are signals."""

    code: int
    printed: bytes
    complained: bytes


def ask(command: Sequence[str], asked: bytes, *, limit: int, within_s: float) -> ProgramOutput:
    """Run a program with a text of at most 4 KiB as its input; return what it says.

    ``limit``: bytes of each of both outputs. What it has started in its session ends with it; what
    it said before its end counts, also when somebody still holds the pipe. Raises OSError when it
    cannot be run, TimeoutError (seconds), TooMuch.
    """
    if len(asked) > _ASKED_MAX:
        raise TooMuch(f"more than {_ASKED_MAX} bytes to ask")
    end = time.monotonic() + within_s
    with subprocess.Popen(  # noqa: S603 -- the operator's own program
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    ) as process:
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 -- for mypy
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(asked)
            process.stdin.close()
            printed, complained = _heard(process, process.stdout, process.stderr, limit, end)
            while not _has_ended(process):
                if time.monotonic() >= end:
                    raise TimeoutError
                time.sleep(_LOOK_S)
        finally:
            # it is not waited for yet, so nobody else has its number
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    return ProgramOutput(code, printed, complained)


def _heard(
    process: subprocess.Popen[bytes], out: IO[bytes], err: IO[bytes], limit: int, end: float
) -> tuple[bytes, bytes]:
    """Read both pipes until they close, or the program has ended and they are empty."""
    heard = {pipe.fileno(): bytearray() for pipe in (out, err)}
    with selectors.DefaultSelector() as watch:
        for pipe in heard:
            watch.register(pipe, selectors.EVENT_READ)
        while watch.get_map():
            if time.monotonic() >= end:
                raise TimeoutError
            ended = _has_ended(process)  # before the look: what it said by then is in the pipes
            ready = watch.select(0 if ended else _LOOK_S)
            if ended and not ready:
                break
            for key, _ in ready:
                piece = os.read(key.fd, _PIECE)
                heard[key.fd] += piece
                if not piece:
                    watch.unregister(key.fd)
                elif len(heard[key.fd]) > limit:
                    raise TooMuch(f"more than {counts.told(limit, 'byte')}")
    return bytes(heard[out.fileno()]), bytes(heard[err.fileno()])


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether it runs no more; its number stays its own."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, options) is not None
