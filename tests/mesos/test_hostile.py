"""Masters and agents that mean no good: sizes, packs, redirects, and what they echo."""

import asyncio
import gzip
import json
import os
import tracemalloc

import pytest

from backends import api
from backends.mesos import calls, recordio, settings, transport
from tests import bombs, echo, patience
from tests.mesos.test_wire import OURS, broker, raw_server, served, spec

__all__ = ["broker", "served"]

SECRET = "s3cret-w0rd/with+odd=signs"
MB = 1 << 20


def answering(head: str, *pieces: bytes, forever: bytes = b""):
    """Serve one answer, whatever is asked; ``forever`` follows until the other side has enough."""
    sent = [0]

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        while forever:
            writer.write(forever)
            sent[0] += len(forever)
            await writer.drain()

    answer.sent = sent
    return answer


async def heard(link: transport.Link) -> list:
    async with link.subscribed(calls.subscribe(OURS, suppressed=True)) as stream:
        return [event async for event in link.events(stream)]


async def link_to(port: int, **changes) -> transport.Link:
    told = {"master": f"http://127.0.0.1:{port}", "request_timeout_s": 20.0} | changes
    return transport.Link(settings.MesosSettings(**told))


@pytest.mark.parametrize("who", ["master", "agent"])
async def test_a_page_without_end_is_given_up(who):
    answer = answering("Connection: close", forever=b'["' + b"x" * 65_000 + b'"],')
    async with raw_server(answer) as port:
        link = await link_to(port)
        page = link.page("/slaves")
        if who == "agent":
            page.close()
            page = link.agent_page(f"http://127.0.0.1:{port}", "/files/read")
        with pytest.raises(api.Unavailable, match="larger than"):
            await page
        await link.aclose()
    assert answer.sent[0] < transport._PAGE_MAX + 8 * MB, "no more was read than is allowed"


async def test_a_bomb_is_not_unpacked():
    """A hundred kilobytes that hold 100 MB."""
    bomb = bombs.packed(bytes(MB), 100)
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}"
    async with raw_server(answering(head, bomb)) as port:
        link = await link_to(port)
        tracemalloc.start()
        try:
            with pytest.raises(api.Unavailable, match="larger than"):
                await link.page("/slaves")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await link.aclose()
    assert peak < 4 * transport._PAGE_MAX


@pytest.mark.parametrize("packing", ["gzip", "br", "deflate"])
async def test_words_of_an_error_are_not_unpacked_either(packing):
    """Whatever an answer says that it is: an error of ours, in time."""
    body = gzip.compress(bytes(50 * MB))
    head = f"Content-Encoding: {packing}\r\nContent-Length: {len(body)}"

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 500 No\r\n{head}\r\n\r\n".encode() + body)
        await writer.drain()

    async with raw_server(answer) as port:
        link = await link_to(port)
        with pytest.raises(api.Unavailable, match="says 500"):
            await link.page("/slaves")
        await link.aclose()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"99999999999\n{}", "length of a record has no end|are allowed"),
        (b"%d\n" % (recordio.MAX_RECORD + 1), "are allowed"),
        (b"-1\n{}", "not with its length"),
        (b"0x10\n{}", "not with its length"),
        ("\N{ARABIC-INDIC DIGIT ONE}\n{".encode(), "not with its length"),
        (b"\n\n\n", "not with its length"),
        (b"1" * 100_000, "no end|are allowed"),
        (b"500\n{}", "inside a record"),
    ],
)
async def test_a_record_that_lies_about_its_length(data, words):
    """The stream is given up; nothing is kept for what it promises."""
    async with raw_server(answering("Connection: close", data)) as port:
        link = await link_to(port)
        with pytest.raises(api.Unavailable, match=words):
            await heard(link)
        await link.aclose()


async def test_a_packed_stream_is_refused():
    """Nobody asked for it, and it could hold anything."""
    answer = answering("Content-Encoding: gzip", forever=b"x" * 10_000)
    async with raw_server(answer) as port:
        link = await link_to(port)
        with pytest.raises(api.Unavailable, match="packs its stream"):
            await heard(link)
        await link.aclose()


async def test_a_stream_that_only_drips_is_silent(served, broker):
    """Bytes are no heartbeat: a whole event is."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        beat = b'{"type":"SUBSCRIBED","subscribed":{"heartbeat_interval_seconds":0.05}}'
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + recordio.encode(beat) + b"1000\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with raw_server(answer) as port:
        link = await link_to(port)
        with pytest.raises(api.Unavailable, match="heartbeat"):
            await heard(link)
        await link.aclose()


async def test_pages_without_end_end(served, broker):
    """Each page is full of tasks: not for ever."""
    backend = broker(served.base)
    await backend.list()
    identity = backend._driver._session.framework.id
    one = {"id": "t", "state": "TASK_KILLED", "framework_id": identity, "labels": []}
    page = json.dumps({"tasks": [one] * 500})
    served.page_fault = lambda path, query: page if path == "/tasks" else None
    with pytest.raises(api.Unavailable, match="has no end"):
        await backend._driver.cluster.tasks(identity)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_an_agent_is_followed_nowhere(served, broker, status):
    """Whoever has registered an agent cannot send us on."""
    asked = []

    async def elsewhere(reader, writer):
        asked.append(await reader.readline())

    async with raw_server(elsewhere) as port:
        served.agent_fault = (status, "", {"Location": f"http://127.0.0.1:{port}/"})
        backend = broker(served.base)
        await backend.launch(spec())
        with pytest.raises(api.BackendError, match=f"says {status}"):
            await backend.logs("a1", tail=3)
    assert [] == asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_master_sends_us_to_masters_only(served, broker, status):
    asked = []

    async def elsewhere(reader, writer):
        asked.append(await reader.readline())

    async with raw_server(elsewhere) as port:
        served.fault = (status, "", {"Location": f"http://127.0.0.1:{port}/"})
        with pytest.raises(api.Unavailable, match="not in `master`"):
            await broker(served.base).list()
    assert [] == asked


@pytest.mark.parametrize("way", echo.WAYS)
async def test_our_secret_is_in_nothing_that_a_person_sees(way, broker, tmp_path, caplog):
    """A master, or an agent, that sends back what it was told; agents are told nothing."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    told = {"principal": "builds", "secret_file": str(tmp_path / "secret")}
    shown = []
    with echo.serving(way) as server:
        backend = broker(server.url, **told)
        link = await link_to(server.port, **told)
        for question in (
            backend.list(),
            backend.launch(spec()),
            link.page("/slaves"),
            backend._driver.cluster.framework("x"),
            backend._driver.cluster.tasks("x"),
        ):
            try:
                shown.append(repr(await question))
            except api.BackendError as error:
                shown.append(repr(error) + error.reason + str(error))
        assert server.was_sent(SECRET), "or nothing is shown"
        await backend.aclose()
    with echo.serving(way) as agent:
        try:
            shown.append(repr(await link.agent_page(agent.url.rstrip("/"), "/files/read")))
        except api.BackendError as error:
            shown.append(repr(error) + error.reason)
        assert agent.requests
        assert not agent.was_sent(SECRET), "agents get none of ours"
        await link.aclose()
    if "page 200" not in way and "json 200" not in way:  # what it says is data there
        assert [] == [one for text in shown for one in echo.found(SECRET, text)]
    assert [] == echo.found(SECRET, caplog.text)


async def test_files_are_opened_safely(served, broker, tmp_path):
    """A pipe, a device, a file that is too large: said, and nothing hangs."""
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(b"x" * (100 * MB))
    for path in (pipe, "/dev/zero", large):
        for key in ("secret_file", "ca_file"):
            told = {"principal": "p", key: str(path)}
            with pytest.raises(api.Rejected, match=rf"{key}.*cannot be"):
                await patience.wait_for(broker(served.base, **told).list(), 10)
