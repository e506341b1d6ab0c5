"""Where the API server is and how we prove who we are.

Three ways, in this order: a kubeconfig that is named in the settings (read by a child with
the official package, see ``kubeconfig``), what the settings say themselves, and the service
account of the pod that we run in. Refuses to know requests.
"""

import os
import pathlib
import re
import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Protocol

from attrs import define, field, frozen
from multidict import CIMultiDict

from backends import api
from backends.kubernetes import settings
from outside import files, paths, secrets

ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
_REREAD_S = 60.0  # projected tokens are renewed when 80 % of an hour at least is over
_MAX_BYTES = 1 << 18  # a token has a kilobyte, a bundle of all authorities 200
_TOKEN = re.compile(r"[\x21-\x7e]+")


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
    server_name: str | None = None  # that its certificate is for, if not that of ``server``
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    acts_as: tuple[tuple[str, str], ...] = ()  # headers of impersonation

    def headers(self, **more: str) -> CIMultiDict[str]:
        """Return what every request has: nothing packed, and on whose behalf it is made."""
        return CIMultiDict([("Accept-Encoding", "identity"), *more.items(), *self.acts_as])


class NoToken:
    """Nobody: client certificates, or an API server that asks for nothing."""

    async def get(self, *, renew: bool = False) -> str | None:  # noqa: ARG002 -- there is nothing to renew
        """Return None."""
        return None


@define
class FileToken:
    """A token in a file that somebody else renews; a trailing line break is not part of it."""

    path: pathlib.Path
    clock: Callable[[], float]  # seconds, monotonic
    _token: str | None = field(default=None, repr=False)
    _read_at: float = 0.0

    async def get(self, *, renew: bool = False) -> str | None:
        """Return the token, read at most a minute ago."""
        if renew or self._token is None or self.clock() - self._read_at > _REREAD_S:
            token = read_secret(self.path)
            secrets.register(token)
            if not _TOKEN.fullmatch(token):
                raise api.Unauthorized(
                    f"{self.path} holds no token: {'nothing' if not token else 'more than a word'}"
                    "; hint: one line, as the API server issued it"
                )
            self._token, self._read_at = token, self.clock()
        secrets.register(self._token)  # it stays known, however many come after it
        return self._token


def authorization(token: str | None) -> dict[str, str]:
    """Return the header that shows a token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def read(path: pathlib.Path) -> str:
    """Read a small file; raises Unauthorized without its content."""
    try:
        return files.read(path, limit=_MAX_BYTES).decode().strip()
    except OSError as error:
        raise api.Unauthorized(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:  # which quotes what it found
        raise api.Unauthorized(f"cannot read {path}: not text") from None


def read_secret(path: pathlib.Path) -> str:
    """Read a file that holds a token alone; raises Unauthorized without its content."""
    try:
        return files.secret(path, limit=_MAX_BYTES)
    except OSError as error:
        raise api.Unauthorized(f"cannot read {path}: {error.strerror}") from error


def checked(server: str) -> str:
    """Return the URL of a server. Raises Unauthorized for one that holds a password."""
    try:
        parts = urllib.parse.urlsplit(server)
        password = parts.password
    except ValueError:
        raise api.Unauthorized("the URL of the API server cannot be read") from None
    if password is not None or parts.username is not None:
        secrets.register(password, urllib.parse.unquote(password or ""))
        raise api.Unauthorized(
            "the URL of the API server holds a user, which no API server takes; "
            "hint: `token_file`, or a kubeconfig"
        )
    return server.rstrip("/")


async def find(
    configured: settings.ClusterSettings,
    *,
    clock: Callable[[], float],
    environ: Mapping[str, str] | None = None,
    account: pathlib.Path = ACCOUNT,
) -> Access:
    """Return how to reach the cluster of these settings. Raises Unauthorized, Unavailable."""
    if configured.kubeconfig is not None or configured.context is not None:
        from backends.kubernetes.api import kubeconfig  # noqa: PLC0415 -- it makes an Access

        return await kubeconfig.load(configured, clock=clock)
    environ = os.environ if environ is None else environ
    token = pathlib.Path(configured.token_file) if configured.token_file else account / "token"
    tokens: Tokens = FileToken(token, clock)
    if configured.token_file is None and configured.server is not None and paths.is_missing(token):
        tokens = NoToken()
    authority = pathlib.Path(configured.ca_file) if configured.ca_file else account / "ca.crt"
    server = configured.server or _in_cluster(environ)
    return Access(
        server=checked(server),
        namespace=configured.namespace or _namespace(account / "namespace"),
        tokens=tokens,
        tls=context(authority, told=configured.ca_file is not None)
        if server[:6] == "https:"
        else None,
    )


def context(authority: pathlib.Path, *, told: bool) -> ssl.SSLContext:
    """Trust one authority; the system's, where none is told and there is no service account."""
    if not told and paths.is_missing(authority):
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=read(authority))
    except (ssl.SSLError, ValueError) as error:
        raise api.Unauthorized(
            f"cannot use the authority in {authority}: {getattr(error, 'reason', None) or error}"
        ) from error


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
    return "default" if paths.is_missing(path) else read(path)
