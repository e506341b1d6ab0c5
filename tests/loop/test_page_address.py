"""A command knows the broker that works with its state directory, and takes nobody else for it."""

import functools
import json
import stat

import pytest
from aiohttp import test_utils, web

from broker import page_address, store
from broker.status import Server
from outside import secrets
from tests.status import status_source


async def serving(files, *, key=None, source=None):
    """A page, announced in a state directory; with ``key`` it proves with another one."""
    server = Server(source or status_source.full(), metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    note = page_address.announce(files, url)
    server.prove = functools.partial(page_address.proof, key or note.key)
    return server, note


async def test_the_broker_of_this_state_directory_proves_itself(tmp_path):
    """Whatever the address; the note is for its own user alone, and the key is a secret."""
    files = store.FileStore(tmp_path / "state")
    server, note = await serving(files)
    try:
        read = page_address.noted(store.ReadOnlyStore(tmp_path / "state"))
        assert read == note
        told = await page_address.ask(read.url, ("plan", "leftovers/all"), note=read)
        assert told["plan"]["owner"] == "o"
        assert told["leftovers/all"]["everything"] is True
    finally:
        await server.aclose()
    assert stat.S_IMODE((tmp_path / "state" / page_address.NOTE).stat().st_mode) == 0o600
    assert note.key not in repr(note)
    assert secrets.blanked(f"x{note.key}x") != f"x{note.key}x"


async def test_nobody_else_is_taken_for_it(tmp_path):
    """Another broker at that address, one of an earlier life, and a stranger that answers alike."""
    files = store.FileStore(tmp_path / "state")
    server, note = await serving(files, key="0" * 64)
    try:
        with pytest.raises(page_address.NoAnswer, match="not the broker of this state directory"):
            await page_address.ask(note.url, ("plan",), note=note)
        assert (await page_address.ask(note.url, ("plan",), note=None))["plan"]["owner"] == "o"
    finally:
        await server.aclose()
    with pytest.raises(page_address.NoAnswer):
        await page_address.ask(note.url, ("plan",), note=note)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, b"{}", "was answered 404"),
        (302, b"{}", "was answered 302"),
        (200, b"<html>", "is not JSON at character 1"),
        (200, b"[]", "names no owner"),
        (200, b'{"owner": null}', "names no owner"),
    ],
)
async def test_who_is_no_broker_is_told_apart(status, body, words):
    """From nobody at all: another program has that port."""

    async def answer(_):
        return web.Response(status=status, body=body)

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    async with test_utils.TestServer(app) as server:
        with pytest.raises(page_address.NotABroker, match=words):
            await page_address.ask(str(server.make_url("/")), ("plan",), note=None)


async def test_a_proof_is_good_for_one_word_one_document_and_one_body(tmp_path):
    """So what was overheard proves nothing, and nothing can be put in between."""
    given = page_address.proof("k" * 64, "a" * 32, "/api/v1/plan", b"{}")
    others = (
        page_address.proof("x" * 64, "a" * 32, "/api/v1/plan", b"{}"),
        page_address.proof("k" * 64, "b" * 32, "/api/v1/plan", b"{}"),
        page_address.proof("k" * 64, "a" * 32, "/api/v1/queue", b"{}"),
        page_address.proof("k" * 64, "a" * 32, "/api/v1/plan", b"{ }"),
    )
    assert given is not None
    assert given not in others
    for word in ("", "a" * 31, "A" * 32, "a" * 65, "a" * 31 + "\n", "é" * 32):
        assert page_address.proof("k" * 64, word, "/", b"") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "nonsense",
        '{"url": "http://h/"}',
        '{"url": "", "key": "k"}',
        "\x00",
        "[" * 5000,
    ],
)
def test_a_damaged_note_is_none(tmp_path, text):
    """As a power loss may leave it."""
    files = store.FileStore(tmp_path)
    files.save(page_address.NOTE, text)
    assert page_address.noted(files) is None


async def test_what_answers_something_else_is_no_broker(tmp_path):
    """No document, and no traceback."""
    for url in ("nonsense", "http://127.0.0.1:1/", "http://[::1/", "ftp://h/", "http://h:99999/"):
        with pytest.raises(page_address.NoAnswer):
            await page_address.ask(url, ("plan",), note=None)


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://0.0.0.0:8087/", "http://127.0.0.1:8087/"),
        ("http://[::]:8087/", "http://[::1]:8087/"),
        ("http://10.0.0.1:1/", "http://10.0.0.1:1/"),
        ("http://name:1/", "http://name:1/"),
    ],
)
def test_a_page_for_all_the_world_is_asked_on_this_machine(url, asked):
    """Nobody listens at the address that means every address."""
    assert asked == page_address.reachable(url)


def test_a_reader_of_the_state_directory_leaves_it_alone(tmp_path):
    """It makes nothing, holds nothing and writes nothing, there or not."""
    reader = store.ReadOnlyStore(tmp_path / "state")
    assert reader.load("holder") is None
    with pytest.raises(OSError, match="reads"):
        reader.save("holder", "x")
    with pytest.raises(OSError, match="reads"):
        reader.locked()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert store.ReadOnlyStore(tmp_path / "file").load("holder") is None
    store.FileStore(tmp_path / "state").save("holder", json.dumps("me"))
    assert reader.load("holder") == '"me"'
