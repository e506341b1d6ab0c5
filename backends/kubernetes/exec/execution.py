"""Commands in containers, by the API server: one WebSocket each.

Apart from the other requests, with connections of its own: a hundred builds that run a step must
not keep the broker from listing its pods. Refuses to know what is run and for whom.

Who is on the other side of a silent connection is asked of the kernel (TCP keep-alive).
"""

import contextlib
import http
import socket
import sys
import urllib.parse
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import aiohttp

from backends.kubernetes.api import access, client, errors
from backends.kubernetes.exec import channels
from outside import waits

_FRAME = 1 << 15
_MESSAGE = 4 << 20  # of output; a kubelet sends 32 KiB at most
_CLOSE_S = 2.0
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}


class Execution:
    """A command that runs."""

    def __init__(self, wire: aiohttp.ClientWebSocketResponse) -> None:
        self._wire = wire

    async def send(self, data: bytes) -> None:
        """Give the command input, at its pace. Raises Lost."""
        for start in range(0, len(data), _FRAME):
            message = channels.frame(channels.STDIN, data[start : start + _FRAME])
            try:
                await self._wire.send_bytes(message)
            except (aiohttp.ClientError, ConnectionError) as error:
                raise errors.Lost("the connection to the container is broken") from error

    async def output(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield channel and data, the status last. Raises Lost when it ends before that.

        Nothing is read ahead but some 100 KiB: who takes no more slows the command.
        """
        while True:
            message = await self._wire.receive()
            if message.type is aiohttp.WSMsgType.BINARY and message.data:
                channel, data = message.data[0], message.data[1:]
                if data:  # an empty one only says that the connection stands
                    yield channel, data
                if channel == channels.STATUS:
                    return
            elif message.type is not aiohttp.WSMsgType.BINARY:
                raise errors.Lost("the connection to the container broke")

    async def aclose(self) -> None:
        """Let go of the connection; whether the command ends with it is up to the runtime."""
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            async with waits.timeout(_CLOSE_S):
                await self._wire.close()


class CommandExecutor:
    """Runs commands in the pods of one namespace of one API server."""

    def __init__(self, reached: access.Access, *, timeout_s: float) -> None:
        self._access = reached
        self._timeout_s = timeout_s
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=reached.tls or True, limit=0, force_close=True, socket_factory=_socket
            ),
            middlewares=(_with_words,),  # before any redirect would be followed
            headers=reached.headers(),
            proxy=reached.proxy,
            auto_decompress=False,  # ``bodies`` does it, with a limit
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Let go of the connections; idempotent."""
        await self._session.close()

    async def open(
        self,
        pod: str,
        container: str,
        command: Sequence[str],
        *,
        streams: Sequence[str] = ("stdin", "stdout", "stderr"),
    ) -> Execution:
        """Run a command with these streams. Raises the contract's errors, and Lost."""
        where = f"{self._access.server}/api/v1/namespaces/{self._access.namespace}/pods"
        url = f"{where}/{urllib.parse.quote(pod, safe='')}/exec"
        query = [
            ("container", container),
            *(("command", word) for word in command),
            *((stream, "true") for stream in streams),
        ]
        try:
            async with waits.timeout(self._timeout_s):
                wire = await self._connect(url, query)
        except TimeoutError as error:
            raise errors.Lost("no answer in time to create pods/exec") from error
        except aiohttp.ClientError as error:
            words = client.words_of(error)
            raise errors.Lost(f"cannot create pods/exec: {words}") from error
        return Execution(wire)

    async def _connect(
        self, url: str, query: list[tuple[str, str]]
    ) -> aiohttp.ClientWebSocketResponse:
        """Connect, once more with a fresh token after a 401."""
        for renewed in (False, True):
            if self._session.closed:
                raise errors.Lost("the backend is closed")
            token = await self._access.tokens.get(renew=renewed)
            try:
                return await self._session.ws_connect(
                    url,
                    params=query,
                    headers=access.authorization(token),
                    protocols=(channels.V5, channels.V4),
                    max_msg_size=_MESSAGE,
                    server_hostname=self._access.server_name,
                )
            except _UpgradeRefused as refused:
                if refused.answer.status != 401 or not token or renewed:
                    mapped = errors.mapped("create", "pods/exec", refused.answer)
                    raise mapped from refused
        raise AssertionError  # the second pass returns or raises


class _UpgradeRefused(Exception):  # noqa: N818 -- what happened
    """The API server's answer instead of an upgrade."""

    def __init__(self, answer: errors.ErrorAnswer) -> None:
        super().__init__(answer.message)
        self.answer = answer


async def _with_words(
    request: aiohttp.ClientRequest, ask: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Read a refusal before aiohttp drops its words."""
    answer = await ask(request)
    if answer.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
        return answer
    try:
        raise _UpgradeRefused(await client.refusal(answer))
    finally:
        answer.close()


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """Make one that asks now and then whether anybody is on the other side."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in _KEEPALIVE.items():
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
