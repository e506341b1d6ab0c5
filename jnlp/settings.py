"""How a controller is reached, as values: who we are there and how long we wait.

Apart from ``http``, so that whoever only reads a configuration need not load an HTTP library.
Refuses to connect.
"""

import pathlib

from attrs import field, frozen

from jnlp import secret as jnlp_secret


@frozen(kw_only=True)
class Credentials:
    """A user with an API token, or with a password (then crumbs and a cookie are used)."""

    user: str
    secret: jnlp_secret.Secret
    is_password: bool = False
    secret_file: pathlib.Path | None = None  # read again when the secret is refused


@frozen(kw_only=True)
class ControllerAccess:
    """How a controller is reached."""

    url: str  # with path prefix, without user; "/" at the end is added
    credentials: Credentials | None = None
    ca_file: str | None = None  # PEM; None: the system's authorities
    verify: bool = True  # False: any certificate will do (only ever for tests of a set-up)
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    timeout_s: float = 10.0  # one request, from connecting to the last byte
    max_bytes: int = 8 * 1024 * 1024  # of a list, unpacked: fifteen thousand queue items
