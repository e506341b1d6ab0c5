"""The status page's door: what strangers send costs little, and a probe is always answered."""

import asyncio
import contextlib
import gzip
import itertools
import json
import logging
import os
import random
import socket
import time

import aiohttp
import pytest

from broker.status import Server, documents
from outside import doors, limited_log
from tests import patience
from tests.status import status_source

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
WITHIN_S = 20.0


@contextlib.asynccontextmanager
async def served(*, metrics=b"m 1\n", source=None, **limits):
    server = Server(
        source or status_source.full(),
        metrics=lambda: (metrics, "text/plain; version=0.0.4; charset=utf-8"),
        limits=doors.DoorLimits(**limits),
    )
    url = await server.start(host="127.0.0.1", port=0)
    try:
        yield server, int(url.rstrip("/").rpartition(":")[2])
    finally:
        await server.aclose()


@pytest.fixture(autouse=True)
async def guests():
    """Every connection of a test; none outlives it."""
    GUESTS.clear()
    yield
    for writer in GUESTS:
        writer.transport.abort()
    for writer in GUESTS:
        with contextlib.suppress(ConnectionError, OSError):
            await writer.wait_closed()


GUESTS = []


async def opened(port, *, source="127.0.0.1", first=b"G"):
    """Connect and say next to nothing: what says nothing at all Linux may keep to itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(first)
    GUESTS.append(writer)
    return reader, writer


async def said(port, data, *, source="127.0.0.1", within_s=WITHIN_S):
    """Send and return all that comes until the other side closes."""
    reader, writer = await opened(port, source=source, first=data)
    got = b""
    try:
        async with patience.limit(within_s):
            while piece := await reader.read(65536):
                got += piece
    except ConnectionError:
        pass
    finally:
        writer.close()
    return got


async def closed(reader, *, within_s=WITHIN_S):
    """Wait until the other side ends a connection."""
    async with patience.limit(within_s):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass


def inside(server):
    return list(server._door.inside.values())


async def test_a_probe_is_answered_among_silent_connections():
    """From their own address and from another one; and they are no more than the limits say."""
    async with served() as (server, port):
        most, alike = 0, 0
        for number in range(400):
            source = "127.0.0.1" if number % 2 else f"127.0.0.{number % 18 + 2}"
            await opened(port, source=source)
            here = inside(server)
            most = max(most, len(here))
            alike = max(alike, sum(one.address == "127.0.0.1" for one in here))
            if number % 20 == 0:
                for probe in ("127.0.0.1", "127.0.1.1"):
                    answer = await said(port, HEALTH, source=probe)
                    assert answer.startswith(b"HTTP/1.1 200 OK"), number
        assert (most, alike) == (64, 16)


async def test_who_says_nothing_and_who_says_it_slowly_has_to_go():
    """The time for a request runs from the first moment, whatever trickles in."""
    async with served(request_s=0.5) as (server, port):
        silent, _keep = await opened(port)
        slow, writer = await opened(port)
        began = time.monotonic()
        ended = asyncio.create_task(closed(slow))
        while not ended.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"X")
            await asyncio.sleep(0.05)
            assert time.monotonic() - began < patience.seconds(WITHIN_S)
        await closed(silent)
        assert not inside(server)


async def test_who_does_not_read_has_to_go_and_holds_up_nobody():
    """Answers that are not taken: asked for one after the other without reading any."""
    async with served(metrics=b"m 1\n" * 4_000_000, answer_s=1.5) as (server, port):
        for _ in range(20):
            _, writer = await opened(port, first=METRICS * 20)
            writer.transport.pause_reading()
            assert (await said(port, HEALTH, source="127.0.0.2")).startswith(b"HTTP/1.1 200")
        patient = patience.Patience(WITHIN_S)
        while inside(server):
            assert not patient.is_over()
            await asyncio.sleep(0.05)


async def test_a_connection_is_for_one_request():
    """So there is nothing to pipeline, and nobody who stays."""
    async with served() as (server, port):
        answers = await said(port, HEALTH * 50)
        assert answers.count(b"HTTP/1.1 200 OK") == 1
        assert b"Connection: close" in answers
        assert not inside(server)


async def test_who_says_nothing_at_all_costs_nobody_a_place():
    """Among a thousand of them; and none of them has one for longer than the others."""
    async with served(request_s=1.0) as (server, port):
        for number in range(200):
            await opened(port, first=b"")
            if number % 20 == 0:
                assert (await said(port, HEALTH)).startswith(b"HTTP/1.1 200")
        assert len(inside(server)) <= 16
        patient = patience.Patience(WITHIN_S)
        while inside(server):
            assert not patient.is_over()
            await asyncio.sleep(0.05)


async def test_who_asks_without_end_gets_a_part_of_the_loop():
    """What is costly to make is given again for a while, and not for ever."""
    made = []

    def metrics():
        made.append(time.monotonic())
        end = 0.05 + time.monotonic()
        while time.monotonic() < end:
            pass
        return f"m {len(made)}\n".encode(), "text/plain"

    server = Server(status_source.full(), metrics=metrics)
    url = await server.start(host="127.0.0.1", port=0)
    try:
        async with aiohttp.ClientSession(url) as session:
            seen, asked, began = set(), 0, time.monotonic()
            while time.monotonic() - began < 2.0:
                async with session.get("/metrics") as answer:
                    seen.add(await answer.text())
                asked += 1
    finally:
        await server.aclose()
    assert asked > len(made)
    assert len(seen) == len(made) > 1
    gaps = [later - earlier for earlier, later in itertools.pairwise(made)]
    assert min(gaps) >= 0.45


async def test_a_request_is_small():
    """What is larger is no request for anything here; no part of it is kept."""
    async with served(request_s=10.0) as (server, port):
        for data in (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000,
            b"GET /" + b"a" * 200_000,
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 50_000,
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
            + b"a" * 99_999,
        ):
            answer = await said(port, data)
            assert b" 200 " not in answer
        assert (await said(port, HEALTH)).startswith(b"HTTP/1.1 200")
        assert not inside(server)


ODD = (
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: [zz]:1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x@localhost\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost:99999999\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: localhost:-1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)) + b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"G\x00T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gurgle\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
    b"GET http://evil.example/api/v1/queue HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil.example:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
)


@pytest.mark.parametrize("data", ODD)
async def test_what_is_no_request_is_answered_400_without_a_word_about_us(caplog, data):
    """No traceback in the log, no version in the answer."""
    caplog.set_level(logging.DEBUG)
    async with served() as (_, port):
        answer = await said(port, data)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
    assert b"Server: agent-broker\r\n" in answer
    assert b"aiohttp" not in answer
    assert b"Python" not in answer
    assert not [one for one in caplog.records if one.exc_info]


PACKED = gzip.compress(b"x" * 20_000_000)


@pytest.mark.parametrize("packed", [b"no gzip", PACKED[:-4], PACKED], ids=len)
async def test_a_body_that_comes_packed_stays_packed(caplog, packed):
    """Nobody wants it: neither its size nor what is wrong with it is any trouble of ours."""
    caplog.set_level(logging.DEBUG)
    head = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
    async with served() as (server, port):
        data = head + b"Content-Length: %d\r\n\r\n" % len(packed) + packed
        answer = await said(port, data)
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert not inside(server)
    assert not [one for one in caplog.records if one.exc_info]


async def test_random_bytes_cost_a_few_lines_and_nothing_else(caplog):
    """The log of a broker is not a stranger's to fill."""
    caplog.set_level(logging.DEBUG)
    dice = random.Random(11)
    async with served(request_s=0.5) as (server, port):
        for _ in range(300):
            data = dice.randbytes(dice.randrange(1, 3000))
            if dice.random() < 0.5:
                data = b"GET /" + data
            await said(port, data + b"\r\n\r\n")
        assert (await said(port, HEALTH)).startswith(b"HTTP/1.1 200")
        assert not inside(server)
    ours = [one for one in caplog.records if one.name.startswith(("broker", "aiohttp"))]
    assert len(ours) < 5
    assert not [one for one in caplog.records if one.exc_info]


async def test_no_answer_names_what_we_are_made_of():
    """Neither a good one nor a refusal."""
    async with served() as (_, port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        for path in ("/", "/healthz", "/nowhere", "/api/v1/plan", "/api/v1/leftovers"):
            async with session.get(path) as answer:
                assert answer.headers["Server"] == "agent-broker"
        async with session.post("/") as answer:
            assert (answer.status, answer.headers["Server"]) == (405, "agent-broker")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", 200),
        (b"HEAD / HTTP/1.1\r\nHost: localhost\r\n", 200),
        (b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n", 421),
        (b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n", 404),
        (b"GET /healthz/ HTTP/1.1\r\nHost: localhost\r\n", 404),
        (b"GET //healthz HTTP/1.1\r\nHost: localhost\r\n", 404),
        (b"PUT /metrics HTTP/1.1\r\nHost: localhost\r\n", 405),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: a miracle\r\n", 417),
        (b"GET /healthz HTTP/1.1\r\nHost: a b\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nbad header\r\n", 400),
    ],
)
async def test_every_answer_is_ours_and_ends_its_connection(head, status):
    """Also those that no route makes: one line, the headers of all, and nothing after it."""
    async with served() as (server, port):
        answer = await said(port, head + b"\r\n" + HEALTH)
        assert not inside(server)
    told, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = told.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in rest)
    assert first.split()[1] == str(status)
    assert fields["Server"] == "agent-broker"
    assert fields["Connection"] == "close"
    assert fields["Content-Security-Policy"].startswith("default-src 'none'")
    assert fields["Cache-Control"] == "no-store"
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert len(body.splitlines()) <= 1
    if status != 200:
        assert fields["Content-Type"] == "text/plain; charset=utf-8"
    assert fields.get("Allow") == ("GET,HEAD" if status == 405 else None)


async def test_who_may_send_a_body_gets_no_further_for_it():
    """``Expect: 100-continue`` is a question; the answer to the request is the same."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n"
    async with served(request_s=2.0) as (server, port):
        answer = await said(port, head + b"\r\nabc")
        assert b"HTTP/1.1 405 " in answer
        assert b" 200 " not in answer
        assert not inside(server)


async def test_a_document_that_cannot_be_made_costs_that_document(caplog, monkeypatch):
    """500 in words, once in the log; page, probes and the other documents are as ever."""

    def broken(_):
        raise KeyError("a bug")

    monkeypatch.setattr(documents, "queue", broken)
    monkeypatch.setitem(Server.__init__.__globals__["_DOCUMENTS"], "queue", broken)
    async with served() as (_, port), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        for _ in range(30):
            async with session.get("/api/v1/queue") as answer:
                assert answer.status == 500
                assert "/api/v1/queue cannot be made" in await answer.text()
        for path in ("/healthz", "/readyz", "/metrics", "/api/v1/agents", "/api/v1/plan"):
            async with session.get(path) as answer:
                assert answer.status == 200, path
    assert len([one for one in caplog.records if one.exc_info]) == 1


async def test_half_a_surrogate_pair_is_no_reason_to_fail():
    """In a job's name, as a controller may send it: page and JSON are served, and can be read."""
    source = status_source.full("a\ud800b\udfffc")
    async with (
        served(source=source) as (_, port),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path in ("/", "/api/v1/queue", "/api/v1/agents", "/api/v1/plan"):
            async with session.get(path) as answer:
                assert answer.status == 200
                text = (await answer.read()).decode("utf-8")
                if path != "/":
                    json.loads(text)


async def test_where_descriptors_run_out_the_page_comes_back(caplog):
    """A process without descriptors says so once, and takes connections again when it can."""
    async with served() as (server, port):
        real, failures = server._door._let_in, [OSError(24, "Too many open files")] * 3

        async def let_in(listening):
            if failures:
                raise failures.pop()
            await real(listening)

        await said(port, HEALTH)  # it waits in the real one now
        server._door._let_in = let_in
        for _ in range(2):
            answer = await said(port, HEALTH)
            assert answer.startswith(b"HTTP/1.1 200")
    assert len([one for one in caplog.records if "no connection can be taken" in one.message]) == 1


async def test_the_page_ends_while_somebody_stays():
    """A broker that stops waits for nobody at its door."""
    server = Server(status_source.full(), metrics=lambda: (b"m 1\n" * 4_000_000, "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    port = int(url.rstrip("/").rpartition(":")[2])
    silent, _keep = await opened(port)
    _, writer = await opened(port, first=METRICS)
    writer.transport.pause_reading()
    await said(port, HEALTH)
    async with patience.limit(WITHIN_S):
        await server.aclose()
        await closed(silent)
    with pytest.raises(ConnectionRefusedError):
        await opened(port)


@pytest.mark.parametrize(
    ("peer", "group"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (None, ""),
    ],
)
def test_what_counts_as_one_address(peer, group):
    """A host has one of IPv4, and may have 2^64 of IPv6."""
    assert group == doors.group_of(peer)


def test_lines_that_others_can_cause_are_seldom(caplog):
    """The first at once, then one in a while that says how many were left out."""
    caplog.set_level(logging.INFO)
    clock = [1000.0]
    told = limited_log.LimitedLog(
        logging.getLogger("seldom"), every_s=60, elapsed=lambda: clock[0]
    )
    for _ in range(500):
        told.info("a thing", remote="r")
    told.info("another thing")
    clock[0] += 61
    told.info("a thing", remote="r")
    lines = [(one.message, getattr(one, "left_out", 0)) for one in caplog.records]
    assert lines == [("a thing", 0), ("another thing", 0), ("a thing", 499)]


async def test_a_taken_port_is_said(tmp_path):
    """And nothing is left open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(OSError, match="in use"):
            await Server(status_source.full(), metrics=lambda: (b"", "")).start(
                host="127.0.0.1", port=port
            )
        assert len(os.listdir("/proc/self/fd")) == before
