"""``POST /api/v1/hook``: whoever has the key is heard, and answered from memory."""

import asyncio
import contextlib
import json

import pytest

from broker import metrics
from broker.hook import inbox, messages
from broker.status import Server, documents, page, terminal
from tests.status import status_source
from tests.status.test_page_door import said

KEY = "k" * 32


@pytest.fixture(autouse=True)
def connections(monkeypatch):
    """Those of each test are its own."""
    monkeypatch.setattr("tests.status.test_page_door.GUESTS", [])


@contextlib.asynccontextmanager
async def served(*, key=KEY):
    taken = []
    end = inbox.Inbox(
        owner="o",
        key=lambda: key,
        now=lambda: status_source.NOW,
        session=lambda: "",
        take=taken.extend,
        seen=lambda: (None, None),
        tells_builds=lambda: True,
        recorder=metrics.NullRecorder(),
    )
    server = Server(status_source.full(), metrics=lambda: (b"", "text/plain"), hook=end)
    url = await server.start(host="127.0.0.1", port=0)
    try:
        yield int(url.rstrip("/").rpartition(":")[2]), taken
    finally:
        await server.aclose()


def body(many=1, label="t"):
    event = {"event": "buildable", "at_ms": status_source.NOW * 1000, "label": label, "idle": 0}
    events = [{**event, "id": number} for number in range(many)]
    told = {"hook": 1, "owner": "o", "session": "s", "sent_ms": status_source.NOW * 1000}
    return json.dumps({**told, "events": events}).encode()


def request(data, *, key=KEY, kind="application/json", length=None, more=""):
    told = f"Authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST /api/v1/hook HTTP/1.1\r\nHost: localhost\r\n{told}Content-Type: {kind}\r\n"
        f"Content-Length: {len(data) if length is None else length}\r\n{more}\r\n"
    )
    return head.encode() + data


def status(answer):
    return int(answer.split(b" ", 2)[1])


async def test_whoever_has_the_key_is_heard():
    """And told when to come again, and what to do."""
    async with served() as (port, taken):
        answer = await said(port, request(body()))
        assert status(answer) == 200
        document = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert document.keys() == messages.HookAnswer(pause_ms=1).document().keys()
        assert [event.label for event in taken] == ["t"]


async def test_a_message_is_larger_than_what_a_stranger_may_send():
    """The door lets it in once its sender is known."""
    async with served() as (port, taken):
        large = body(messages.EVENTS_MAX, label="x" * 1000)
        assert len(large) > 500_000
        assert status(await said(port, request(large))) == 200
        assert len(taken) == messages.EVENTS_MAX
        assert status(await said(port, request(body(1) + b" " * messages.BODY_MAX))) == 400


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (request(body(), key=""), 401),
        (request(body(), key="K" * 32), 401),
        (request(body(), kind="text/plain"), 415),
        (request(body(), kind="application/x-www-form-urlencoded"), 415),
        (request(b"[]"), 400),
        (request(b"nothing"), 400),
        (request(body().replace(b'"o"', b'"p"')), 409),
        (b"GET /api/v1/hook HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"PUT /api/v1/hook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
    ],
)
async def test_everybody_else_is_turned_away(sent, answered):
    """And nothing is taken in."""
    async with served() as (port, taken):
        assert status(await said(port, sent)) == answered
        assert not taken


async def test_without_a_hook_in_the_configuration_nobody_is():
    """Whatever key is brought, an empty one too."""
    async with served(key=None) as (port, taken):
        for key in ("", KEY, "None"):
            assert status(await said(port, request(body(), key=key))) == 401
        assert not taken


async def test_who_ends_in_the_middle_holds_nobody_up():
    """A body that does not come costs its sender a connection."""
    async with served() as (port, taken):
        half = body()[:40]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(half, length=4000))
        writer.write_eof()
        assert await reader.read() is not None
        writer.close()
        assert status(await said(port, request(body()))) == 200
        assert len(taken) == 1


def test_silence_is_told_and_why():
    """In the JSON, on the page and in a terminal; one that is heard is no news."""
    now = status_source.NOW
    silent = inbox.HookState(since_at=now - 600, heard_at=now - 300, trouble="not <b>the</b> key")
    source = status_source.full()
    source.hooked = silent
    told = documents.plan(source)["hook"]
    assert (told["silent"], told["silent_age_s"]) == (True, 300.0)
    words = [text for _, text in terminal.configuration_words(documents.plan(source))]
    assert any("push hook is silent for 5 min" in text and "key" in text for text in words), words
    assert "push hook is silent" in page.render(source)
    assert "<b>the</b>" not in page.render(source)
    source.hooked = inbox.HookState(since_at=now - 600, heard_at=now - 3)
    assert "push hook" not in page.render(source)
    source.hooked = None
    assert documents.plan(source)["hook"] is None
