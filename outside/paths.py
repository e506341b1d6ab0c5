"""What lies at a path, told alike on every Python.

Up to 3.13 ``Path.exists`` and its like raise what keeps one from looking; from 3.14 on they say
that nothing is there. A test bans them from the product. Refuses to open anything.
"""

import errno
import os
import stat

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def mode(path: str | os.PathLike[str]) -> int | None:
    """Return ``st_mode``; None when nothing is there. Raises OSError when that cannot be known.

    Links are followed.
    """
    try:
        return os.stat(path).st_mode  # noqa: PTH116 -- a path may come as text
    except OSError as error:
        if error.errno in _MISSING:
            return None
        raise


def exists(path: str | os.PathLike[str]) -> bool:
    """Tell whether something is there. Raises OSError as ``mode`` does."""
    return mode(path) is not None


def is_missing(path: str | os.PathLike[str]) -> bool:
    """Tell whether surely nothing is there; what cannot be looked at is left to who reads it."""
    try:
        return not exists(path)
    except OSError:
        return False


def is_directory(path: str | os.PathLike[str]) -> bool:
    """Tell whether a directory is there. Raises OSError as ``mode`` does."""
    return stat.S_ISDIR(mode(path) or 0)


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Tell whether a regular file is there. Raises OSError as ``mode`` does."""
    return stat.S_ISREG(mode(path) or 0)
