"""The bounded output of one agent: written by its supervisor, read by the broker.

Files are ``output.N`` in the instance's directory. Number 0 is the head, of the later ones the
last two are kept; a hole in the numbers tells the reader that something was left out. Refuses to
know processes and secrets; imports what the supervisor may import (see supervisor.py).
"""

# ruff: noqa: PTH108, PTH118, PTH208 -- pathlib would cost every agent 1.5 MiB

import contextlib
import os
import stat

_NAME = "output."
_DIGITS = 9
_LEFT_OUT = b"\n[... output left out ...]\n"


class Output:
    """The writing side; works in the current directory.

    What cannot be written (disk full) is dropped: the agent must never block on us.
    """

    def __init__(self, limit: int) -> None:
        """``limit`` in bytes, for all files together."""
        self._number = 0
        self._room = limit // 4
        self._segment = max(1, (limit - self._room) // 2)
        self._file = self._open()

    def write(self, data: bytes) -> None:
        """Keep or drop; never raises OSError."""
        while data:
            if not self._room:
                self._next()
            part, data = data[: self._room], data[self._room :]
            self._room -= len(part)
            with contextlib.suppress(OSError):
                os.write(self._file, part)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return os.open(f"{_NAME}{self._number}", flags, 0o600)

    def _next(self) -> None:
        self._number += 1
        self._room = self._segment
        if self._number > 2:
            with contextlib.suppress(OSError):
                os.unlink(f"{_NAME}{self._number - 2}")
        with contextlib.suppress(OSError):
            file = self._open()
            os.close(self._file)
            self._file = file


def read(directory: str, *, limit: int) -> bytes:
    """Join what is kept, saying where something is missing; raises OSError.

    Of each part the last ``limit`` bytes at most: a build may have written there, too.
    """
    text, expected = b"", 0
    for number in _numbers(directory):
        if number != expected:
            text += _LEFT_OUT
        expected = number + 1
        with contextlib.suppress(OSError):  # dropped while we read, or put there by somebody
            text += _end_of(os.path.join(directory, f"{_NAME}{number}"), limit)
    return text


def _end_of(path: str, limit: int) -> bytes:
    """Return the end of a regular file; nothing of what is none, and nothing is waited for."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return b""
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return b""
        if status.st_size > limit:
            file.seek(status.st_size - limit)
            return _LEFT_OUT + file.read(limit)
        return file.read(limit)


def _numbers(directory: str) -> list[int]:
    """Return which parts are there: the first, and the newest three."""
    names = (name.removeprefix(_NAME) for name in os.listdir(directory) if name.startswith(_NAME))
    found = sorted(int(name) for name in names if name.isdecimal() and len(name) <= _DIGITS)
    return [*found[:1], *found[1:][-3:]]
