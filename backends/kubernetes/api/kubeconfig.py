"""Credentials out of a kubeconfig, read by a child with the official package.

The child (``credentials``) costs a second and ends; what it told is kept here, and asked for again
before it expires or when it was refused. Tokens and keys come through a pipe; a client's key lies
in a file that only we may read for as long as the TLS library takes to read it, and nowhere else.
Refuses to know how a kubeconfig is read.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import ssl
import tempfile
from collections.abc import Callable
from typing import Any

from backends import api
from backends.kit import interpreter
from backends.kubernetes import settings
from backends.kubernetes.api import access
from outside import secrets, text, waits

_MISSING = "a kubeconfig needs the official package; hint: pip install kubernetes"
_CHILD = "from backends.kubernetes.api import credentials; credentials.tell(*sys.argv[1:])"
_LIMIT_S = 60.0  # plugins ask the network
_SHARE = 0.8  # of its life, after which a token is renewed
_PAUSE_S = 15.0  # at least, between two readings that nobody asked for
_TOLD_BYTES = 4 << 20  # certificates and keys
_SAID_BYTES = 1 << 16  # what a plugin may complain with; the rest is thrown away


class Lent:
    """What a kubeconfig says; read again in time, and when it was refused."""

    def __init__(self, told: settings.ClusterSettings, clock: Callable[[], float]) -> None:
        self._settings = told
        self._clock = clock  # seconds, monotonic
        self._reading = asyncio.Lock()
        self._readings = 0
        self._token: str | None = None
        self._due: float | None = None
        self._tls: ssl.SSLContext | None = None

    async def get(self, *, renew: bool = False) -> str | None:
        """Return the token. Raises Unauthorized when none can be had any more."""
        is_due = self._due is not None and self._clock() >= self._due
        if renew or is_due:
            before = self._readings
            async with self._reading:
                if self._readings == before:  # nobody else has done it meanwhile
                    await self._renew(asked=renew)
        secrets.register(self._token)  # it stays known, however many come after it
        return self._token

    async def open(self) -> access.Access:
        """Read for the first time. Raises Unauthorized."""
        credentials = await self._read()
        server = str(credentials["server"])
        if server.startswith("https:"):
            self._tls = _context(credentials)
        self._take(credentials)
        return access.Access(
            server=access.checked(self._settings.server or server),
            namespace=self._settings.namespace or credentials["namespace"] or "default",
            tokens=self,
            tls=self._tls,
            server_name=credentials["server_name"],
            proxy=credentials["proxy"],
            acts_as=tuple((name, value) for name, value in credentials["acts_as"]),
        )

    async def _renew(self, *, asked: bool) -> None:
        try:
            self._take(await self._read())
        except api.Unauthorized:
            if asked:
                raise
            self._due = self._clock() + _PAUSE_S  # what we have may still be good

    def _take(self, found: dict[str, Any]) -> None:
        if self._tls is not None and found["certificate"]:
            _identify(self._tls, found)
        self._token = found["token"]
        left_s = found["left_s"]
        self._due = None if left_s is None else self._clock() + max(left_s * _SHARE, _PAUSE_S)
        self._readings += 1

    async def _read(self) -> dict[str, Any]:
        if importlib.util.find_spec("kubernetes") is None:
            raise api.Unauthorized(_MISSING)
        where = self._settings.kubeconfig or ""
        try:
            async with waits.timeout(_LIMIT_S):
                code, document, said = await _ask(where, self._settings.context or "")
        except TimeoutError as error:
            raise api.Unauthorized(
                f"kubeconfig {where}: not read within {_LIMIT_S:g} s; hint: its plugin"
            ) from error
        except OSError as error:
            raise api.Unavailable(
                f"kubeconfig {where}: no process can be started to read it: {error}"
            ) from error
        credentials: dict[str, Any] = {}
        if code == 0:
            credentials = json.loads(document)
            secrets.register(*credentials.get("secrets", ()))
        words = text.last_lines(said, 1)
        if code != 0:  # a traceback, whose words may quote the file
            why = f" ({words[0].partition(':')[0]})" if words else ""
            raise api.Unauthorized(f"kubeconfig {where}: its reader ended with code {code}{why}")
        if "error" in credentials:
            why = f": {words[0]}" if words and credentials.get("plugin") else ""
            raise api.Unauthorized(text.clean(f"kubeconfig {where}: {credentials['error']}{why}"))
        return credentials


async def load(told: settings.ClusterSettings, *, clock: Callable[[], float]) -> access.Access:
    """Return how to reach the cluster of a context. Raises Unauthorized."""
    return await Lent(told, clock).open()


async def _ask(path: str, context: str) -> tuple[int, bytes, str]:
    """Run the child; end it with everything that it started when nobody waits any more.

    Returns its exit code, what it told, and what it and its plugin complained of.
    """
    child = await asyncio.create_subprocess_exec(
        *interpreter.command(_CHILD, path, context),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None  # noqa: S101 -- a pipe; for mypy
        assert child.stderr is not None  # noqa: S101 -- as above
        document, said = await asyncio.gather(
            _read(child.stdout, _TOLD_BYTES), _read(child.stderr, _SAID_BYTES)
        )
        await child.wait()
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    return child.returncode or 0, document, said.decode("utf-8", "replace")


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Read a pipe to its end; what is beyond the limit is thrown away."""
    kept = bytearray()
    while piece := await stream.read(1 << 16):
        kept += piece[: limit - len(kept)]
    return bytes(kept)


def _context(credentials: dict[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=credentials["authority"])
    except (ssl.SSLError, ValueError) as error:
        words = getattr(error, "reason", None) or error
        raise api.Unauthorized(f"cannot use the authority of the kubeconfig: {words}") from error
    if not credentials["verify"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _identify(context: ssl.SSLContext, credentials: dict[str, Any]) -> None:
    """Show a client's certificate on connections from now on."""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write(f"{credentials['certificate']}\n{credentials['key'] or ''}\n")
            file.flush()
            context.load_cert_chain(file.name)
    except (OSError, ssl.SSLError) as error:
        raise api.Unauthorized(
            f"cannot use the certificates of the kubeconfig: {error}"
        ) from error
