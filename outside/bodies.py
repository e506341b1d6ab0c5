"""Bodies of answers, read to their end or to a limit, whatever they are packed with.

Sessions that use this are made with ``auto_decompress=False``: a few hundred kilobytes of gzip
hold gigabytes, and the library would unpack each piece whole before anybody can count it.
Refuses to know what a body means.
"""

import zlib

import aiohttp

from outside import counts, quotes, text

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS


class TooLarge(ValueError):
    """A body is larger than the limit, unpacked."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the answer is larger than {counts.told(limit, 'byte')}")


class Unreadable(ValueError):
    """A body is packed in a way that nobody asked for, or is no such pack."""


async def first(stream: aiohttp.StreamReader, limit: int) -> bytes:
    """Return the first ``limit`` bytes, or all of a shorter body; the rest stays unread.

    Why: one ``read(n)`` of a stream gives what has arrived so far, so words that come in two
    pieces would lose their end.
    """
    data = bytearray()
    while len(data) < limit and (piece := await stream.read(limit - len(data))):
        data += piece
    return bytes(data)


async def read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the whole body, unpacked. Raises ``TooLarge`` and ``Unreadable``."""
    body, ended = await begin(response, limit)
    if not ended:
        raise TooLarge(limit)
    return body


async def begin(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """Return the first ``limit`` bytes unpacked, and whether that is all.

    Raises ``Unreadable``.
    """
    body = Body(response.headers.get("Content-Encoding", ""), limit)
    async for piece in response.content.iter_any():
        if not body.add(piece):
            return body.data, False
    return body.data, True


class Body:
    """A body that is put together piece by piece, unpacked, up to a limit."""

    def __init__(self, packing: str, limit: int) -> None:
        """``packing`` is the header Content-Encoding. Raises ``Unreadable``."""
        self._packing = packing.strip().lower()
        if self._packing not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise Unreadable(
                f"the answer is packed as {quotes.shown(text.clean(self._packing, 40))}, "
                "which was not asked for"
            )
        plain = self._packing in {"", "identity"}
        self._unpack = None if plain else zlib.decompressobj(_GZIP_OR_ZLIB)
        self._limit = limit
        self._body = bytearray()

    @property
    def data(self) -> bytes:
        """What has come so far, at most the limit."""
        return bytes(memoryview(self._body)[: self._limit])

    def add(self, piece: bytes) -> bool:
        """Add a piece; return False if it is too large by now. Raises ``Unreadable``."""
        room = self._limit + 1 - len(self._body)
        try:
            self._body += (
                piece[:room] if self._unpack is None else self._unpack.decompress(piece, room)
            )
        except zlib.error as error:
            raise Unreadable(f"the answer says {self._packing}, but is not: {error}") from None
        return len(self._body) <= self._limit
