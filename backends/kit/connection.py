"""How a file's server is reached, as an HTTP client wants it.

For the backends that fetch files themselves. Refuses to fetch, and to know why a server is
trusted: that comes with the file (``api.Route``).
"""

import ssl

from backends import api
from outside import quotes, tls


def context(route: api.Route, *, ca_file: str | None = None) -> ssl.SSLContext | bool:
    """Return what ``aiohttp`` takes as ``ssl``: the authority to trust, or whether to check.

    ``ca_file``: an authority of the backend's own, which outranks the file's. Raises Rejected for
    a file that holds no certificates.
    """
    authority = ca_file if ca_file is not None else route.ca_file
    if ca_file is None and not route.verify:
        return False
    if authority is None:
        return True
    try:
        return tls.trusting(authority)
    except OSError as error:
        raise api.Rejected(
            f"the CA file {quotes.shown(authority, 120)} cannot be used: {error}"[:256]
        ) from error
