"""Where the API server is and how we prove who we are.

Three ways, in this order: a kubeconfig that is named in the settings (read by a child with
the official package, see ``kubeconfig``), what the settings say themselves, and the service
account of the pod that we run in. Refuses to know requests.
"""

import os
import pathlib
import ssl
from collections.abc import Callable, Mapping
from typing import Protocol

from attrs import define, field, frozen

from backends import api
from backends.kubernetes import settings

ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REREAD_S = 60.0  # projected tokens are renewed when 80 % of an hour at least is over
_MAX_BYTES = 65_536


class Tokens(Protocol):
    """Where the bearer token comes from."""

    async def get(self, *, renew: bool = False) -> str | None:
        """Return the token, or None without one; ``renew`` after it was refused."""


@frozen(kw_only=True)
class Access:
    """How to reach one cluster."""

    server: str
    namespace: str
    tokens: Tokens = field(repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class NoToken:
    """Nobody: client certificates, or an API server that asks for nothing."""

    async def get(self, *, renew: bool = False) -> str | None:  # noqa: ARG002 -- there is nothing to renew
        """Return None."""
        return None


@define
class FileToken:
    """A token in a file that somebody else renews; a trailing line break is no part of it."""

    path: pathlib.Path
    clock: Callable[[], float]  # seconds, monotonic
    _token: str | None = field(default=None, repr=False)
    _read_at: float = 0.0

    async def get(self, *, renew: bool = False) -> str | None:
        """Return the token, read at most a minute ago."""
        if renew or self._token is None or self.clock() - self._read_at > _REREAD_S:
            self._token = read(self.path)
            self._read_at = self.clock()
        return self._token


def read(path: pathlib.Path) -> str:
    """Read a small file; raises Unauthorized without its content."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "not text"
        raise api.Unauthorized(f"cannot read {path}: {words}") from error


async def find(
    told: settings.Cluster,
    *,
    clock: Callable[[], float],
    environ: Mapping[str, str] | None = None,
    account: pathlib.Path = ACCOUNT,
) -> Access:
    """Return how to reach the cluster of these settings. Raises Unauthorized, Unavailable."""
    if told.kubeconfig is not None or told.context is not None:
        from backends.kubernetes import kubeconfig  # noqa: PLC0415 -- only who uses one pays for it

        return await kubeconfig.load(told, clock=clock)
    environ = os.environ if environ is None else environ
    token = pathlib.Path(told.token_file) if told.token_file else account / "token"
    tokens: Tokens = FileToken(token, clock)
    if told.token_file is None and told.server is not None and not token.exists():
        tokens = NoToken()
    authority = pathlib.Path(told.ca_file) if told.ca_file else account / "ca.crt"
    server = told.server or _in_cluster(environ)
    return Access(
        server=server.rstrip("/"),
        namespace=told.namespace or _namespace(account / "namespace"),
        tokens=tokens,
        tls=context(authority, told=told.ca_file is not None) if server[:6] == "https:" else None,
    )


def context(authority: pathlib.Path, *, told: bool) -> ssl.SSLContext:
    """Trust one authority; the system's, where none is told and there is no service account."""
    if not told and not authority.exists():
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise api.Unauthorized(f"cannot use the authority in {authority}: {error}") from error


def _in_cluster(environ: Mapping[str, str]) -> str:
    host = environ.get("KUBERNETES_SERVICE_HOST")
    if not host:
        raise api.Unauthorized(
            "not in a pod of Kubernetes, and neither `kubeconfig` nor `server` is set"
        )
    if ":" in host:
        host = f"[{host}]"
    return f"https://{host}:{environ.get('KUBERNETES_SERVICE_PORT') or 443}"


def _namespace(path: pathlib.Path) -> str:
    return read(path) if path.exists() else "default"
