"""A server behind TLS on one port, whose certificate a test changes as an operator would."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from tests.docker import certificates

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Front:
    """What ``connect`` reaches, on loopback, with the certificate of the moment."""

    def __init__(self, connect: Callable[[], Awaitable[Line]]) -> None:
        self._connect = connect
        self._lines: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def show(self, pair: certificates.Pair) -> None:
        """Begin anew with this certificate; every connection is cut."""
        await self.aclose()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.cert, pair.key)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._lines:
            # before 3.11.4 a TLS transport that its peer has closed has no protocol to abort by
            with contextlib.suppress(AttributeError):
                writer.transport.abort()
        self._lines.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await self._connect()
        self._lines |= {writer, back}
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()
