"""Bodies that arrive in pieces are read whole, and never further than their limit."""

import asyncio

import aiohttp
import pytest
from aiohttp import test_utils, web

from outside import bodies


@pytest.mark.parametrize(
    ("limit", "expected"), [(100, b"quota exceeded"), (14, b"quota exceeded"), (9, b"quota exc")]
)
async def test_pieces(limit: int, expected: bytes) -> None:
    """The second piece is sent only when the first one has been read."""
    arrived = asyncio.Event()

    async def halting(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=403)
        await answer.prepare(request)
        await answer.write(b"quota ")
        await arrived.wait()
        await answer.write(b"exceeded")
        return answer

    app = web.Application()
    app.router.add_get("/", halting)
    async with (
        test_utils.TestServer(app, host="127.0.0.1") as server,
        aiohttp.ClientSession() as session,
        session.get(server.make_url("/")) as answer,
    ):
        reading = asyncio.create_task(bodies.first(answer.content, limit))
        while answer.content.total_bytes < len(b"quota "):  # its first piece is here
            await asyncio.sleep(0)
        arrived.set()
        assert expected == await reading
