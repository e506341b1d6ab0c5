"""Whom we trust: a context for the authorities of a file.

The file is read by us: the library would wait for a pipe that lies there, and an empty one would
mean the system's authorities. Refuses to know whom we speak to.
"""

import errno
import os
import ssl

from outside import files

_LIMIT = 4 << 20  # the system's own bundle has a quarter of a megabyte


def trusting(path: str | os.PathLike[str]) -> ssl.SSLContext:
    """Return a context that trusts the authorities in a PEM file, and nobody else.

    Raises OSError, of which ssl.SSLError is one.
    """
    pem = files.read(path, limit=_LIMIT).decode("ascii", "ignore")
    if "-----BEGIN" not in pem:
        raise OSError(errno.EINVAL, "it holds no certificate", os.fspath(path))
    return ssl.create_default_context(cadata=pem)
