"""A free port where the one that was asked for is taken: no demo fails for that.

Refuses to know what is served.
"""

import errno
import socket

from broker.config import values


def instead_of(listen: str) -> str:
    """Return the address, or the same with port 0 if another program has its port."""
    found = values.address(listen)
    if found is None:
        return listen
    host, port = found
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"[{host}]:0" if ":" in host else f"{host}:0"
    return listen


def words(taken: str, what: str) -> str:
    """Tell of it."""
    return f"({taken} is taken by another program, so {what} is on a free port.)"
