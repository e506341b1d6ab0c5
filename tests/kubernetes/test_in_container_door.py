"""The door of ``in-container``: what strangers send costs little; agents get through, and share."""

import asyncio
import contextlib
import os
import ssl
import uuid
from unittest import mock

import attrs
import pytest

from backends.kubernetes import settings
from backends.kubernetes.exec import incontainer, listener
from tests import patience
from tests.docker import certificates

TOKEN = "token-of-the-agent"
GUESTS = []


@pytest.fixture(autouse=True)
async def guests():
    """Every connection of a test; none outlives it."""
    GUESTS.clear()
    yield
    for writer in GUESTS:
        writer.transport.abort()
    for writer in GUESTS:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def served(tls=None, **limits):
    """Serve one agent, ``pod-1``; who asks for another one is a stranger."""

    async def find(name):
        await asyncio.sleep(0)
        if name != "pod-1":
            return None
        return {"metadata": {"annotations": {incontainer.DIGEST: incontainer.digest(TOKEN)}}}

    told = {"listen": "127.0.0.1:0", "url": "http://x:1", **(tls or {})}
    made = listener.Listener(
        settings.InContainer(**told),
        rules=listener.Rules(find=find, patience_s=5),
        executor=mock.AsyncMock(),
        limits=attrs.evolve(listener.LIMITS, **limits),
    )
    await made.start()
    try:
        yield made
    finally:
        await made.aclose()


async def opened(made, first=b"G", source="127.0.0.1", **how):
    reader, writer = await asyncio.open_connection(*made.address, local_addr=(source, 0), **how)
    GUESTS.append(writer)
    writer.write(first)
    return reader, writer


def request(what, *, token=TOKEN, pod="pod-1", method="GET", length=0, number=None):
    path = f"/v2/{pod}/{number or uuid.uuid4()}{what}"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


async def answer(reader):
    """Return all that comes until the other side closes: it does after one request."""
    got = b""
    async with patience.limit(20):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                got += piece
    return got


async def until(true):
    async with patience.limit(20):
        while not true():
            await asyncio.sleep(0.01)


async def test_an_agent_is_answered_among_silent_strangers():
    """Of one address and of many; they hold no more descriptors than the limits say."""
    async with served() as made:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(300):
            await opened(made, source=f"127.0.0.{number % 3 + 2}")
            assert len(made._door.inside) <= listener.LIMITS.connections
        reader, _ = await opened(made, request("", method="POST"))
        assert b"125 not an order of in-container" in await answer(reader)
        # the strangers' own ends of the connections are in this process, too
        assert len(os.listdir("/proc/self/fd")) - before - 301 <= listener.LIMITS.connections


async def test_who_says_nothing_or_half_of_it_has_to_go():
    """A stranger may begin an order: its end is waited for, but not for ever."""
    async with served(request_s=0.3, answer_s=0.6) as made:
        silent, _ = await opened(made)
        half, _ = await opened(
            made, request("", token="wrong", pod="pod-2", method="POST", length=9)[:-9]
        )
        assert await answer(silent) == await answer(half) == b""
        await until(lambda: not made._door.inside)


async def test_a_stranger_that_does_not_shake_hands_holds_up_nobody(tmp_path):
    """Nor do hundreds: they are counted from the moment that they come."""
    authority = certificates.Authority(tmp_path, "ours")
    pair = authority.signed("broker", "IP:127.0.0.1")
    tls = {"cert_file": pair.cert, "key_file": pair.key, "url": "https://x:1"}
    context = ssl.create_default_context(cafile=authority.file)
    async with served(tls, request_s=30.0) as made:
        for _ in range(200):
            await opened(made, b"\x16")
            assert len(made._door.inside) <= listener.LIMITS.per_address
        reader, _ = await opened(
            made, request("", method="POST"), ssl=context, server_hostname="127.0.0.1"
        )
        assert b"125 not an order of in-container" in await answer(reader)
        plain, _ = await opened(made, b"GET / HTTP/1.1\r\n\r\n" + bytes(500))
        await answer(plain)
    assert not asyncio.all_tasks() - {asyncio.current_task()}


async def test_a_strangers_order_is_not_taken_and_an_agents_is():
    """Of what nobody has proved to be an agent's only the beginning is read."""
    size = 4 << 20
    async with served() as made:
        reader, writer = await opened(made, request("", token="wrong", method="POST", length=size))
        with contextlib.suppress(ConnectionError):
            writer.write(bytes(size))
            await writer.drain()
        assert b" 401 " in await answer(reader)
        reader, writer = await opened(made, request("", method="POST", length=size))
        writer.write(bytes(size))
        assert b" 200 " in await answer(reader)


async def test_one_agent_has_so_many_connections_and_so_much_memory():
    """Its builds are trusted with nothing: the others go on."""
    async with served(connections=500, per_address=500) as made:
        for _ in range(listener._OF_ONE_AGENT):
            await opened(made, request("", method="POST", length=100) + b"half")
        await until(lambda: len(made._guests) == listener._OF_ONE_AGENT)
        reader, _ = await opened(made, request("", method="POST"))
        assert b"too many commands at a time" in await answer(reader)
        for writer in GUESTS:
            writer.transport.abort()
        await until(lambda: not made._guests and not made._door.known)
        assert not made._orders
        half = listener._MAX_ORDER - 1000
        for _ in range(3):
            reader, writer = await opened(
                made, request("", method="POST", length=listener._MAX_ORDER)
            )
            writer.write(bytes(half))
        assert b"too many long commands" in await answer(reader)
        for writer in GUESTS:
            writer.transport.abort()
        await until(lambda: not made._orders)


async def test_what_is_no_request_is_answered_in_one_line(caplog):
    """No version, nothing quoted, no traceback; and told once."""
    async with served() as made:
        for _ in range(20):
            reader, _ = await opened(made, b"\x00\xff\x1b[2J nonsense\r\n\r\n")
            got = await answer(reader)
            assert got.startswith(b"HTTP/1.0 400 ")
            assert b"aiohttp" not in got
            assert got.endswith(b"\r\n\r\n400: Bad Request\n")
    lines = [one for one in caplog.records if one.message == "not an HTTP request"]
    assert len(lines) <= 1
    assert not any(one.exc_info for one in caplog.records)
