"""Bodies of answers, read to their end or to a limit.

Why: one ``read(n)`` of a stream gives what has arrived so far, so words that come in two pieces
would lose their end. Refuses to know what a body means.
"""

import aiohttp


async def first(stream: aiohttp.StreamReader, limit: int) -> bytes:
    """Return the first ``limit`` bytes, or all of a shorter body; the rest stays unread."""
    data = bytearray()
    while len(data) < limit and (piece := await stream.read(limit - len(data))):
        data += piece
    return bytes(data)
