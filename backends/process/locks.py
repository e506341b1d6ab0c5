"""A directory in which several may work at once, and one may sweep what the dead left behind.

The locks are the kernel's and end with their holder, however it ends: whatever lies in the
directory while nobody works there was left behind. Refuses to know what is made there.
"""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from outside import files


@contextlib.contextmanager
def working_in(directory: pathlib.Path) -> Iterator[None]:
    """Keep sweepers out, waiting for one that is at it; makes the directory. Raises OSError."""
    files.make_own(directory)
    with _opened(directory) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def alone_in(directory: pathlib.Path) -> Iterator[bool]:
    """Keep workers out; False, and nobody is kept out, when somebody works there now.

    Raises OSError, FileNotFoundError when there is no such directory.
    """
    with _opened(directory) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _opened(directory: pathlib.Path) -> Iterator[int]:
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)
