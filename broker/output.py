"""Standard output, whose failure is an end of the command and no error of whoever prints.

A full disk and a reader that went away are neither a controller's nor a backend's trouble, so they
must not be taken for an ``OSError`` of what was being done. Refuses to know what is printed.
"""

import contextlib
import io
import os
import pathlib
import select
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO, cast

from broker import exits


class ReaderGone(Exception):  # noqa: N818 -- what it is
    """Nobody reads on (``| head -1``): there is no more to say, and nothing is wrong."""


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Let ``print`` raise ``ReaderGone`` or ``ends.Failed`` while inside, and at the end of it.

    What was not written by then is dropped, or the interpreter would try again at its own end.
    """
    stream = sys.stdout
    if stream is None:  # closed by whoever started us: nobody reads
        with pathlib.Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            with contextlib.redirect_stdout(nowhere):
                yield
        return
    if isinstance(stream, io.TextIOWrapper):  # what it has no characters for is spelt
        stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", _Guarded(stream))
    try:
        try:
            yield
        except SystemExit:  # of --help and --version
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BaseException:  # it has its own words and exit code
        with contextlib.suppress(exits.Failed, ReaderGone):
            sys.stdout.flush()
        raise
    finally:
        sys.stdout = stream


def pause(seconds: float) -> None:
    """Wait, as long as somebody reads on. Raises ReaderGone: a pipe's end is noticed at once."""
    try:
        handle = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # nothing that could go away
        time.sleep(seconds)
        return
    asked = select.poll()
    asked.register(handle, 0)  # what has ended is told of whatever is asked for
    if asked.poll(seconds * 1000):
        raise ReaderGone


class _Guarded:
    """A stream in all but how it fails."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._ending():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._ending():
            self._stream.flush()

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._drop()
            if isinstance(error, BrokenPipeError):
                raise ReaderGone from error
            words = error.strerror or str(error)
            raise exits.Failed(f"the output cannot be written: {words}") from error

    def _drop(self) -> None:
        """Send what is still to be written, and all that follows, nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
