"""What the hook sends, as values: what a real one sent, and what anybody might send."""

import json
import pathlib

import pytest

from broker.core import model
from broker.hook import messages

SENT = json.loads(pathlib.Path(__file__).with_name("sent.json").read_text())
NOW = 1_000_000.0


def read(**more):
    body = {"hook": 1, "owner": "o", "session": "s", "sent_ms": NOW * 1000, "events": [], **more}
    return messages.parsed(json.dumps(body).encode(), now=NOW)


def event(**more):
    told = {"event": "buildable", "id": 7, "at_ms": NOW * 1000 - 250, **more}
    return {key: value for key, value in told.items() if value is not ...}


def test_what_a_controller_sent():
    """Jenkins 2.541.3, the script of this version: a freestyle item, a Pipeline and its block."""
    message = messages.parsed(json.dumps(SENT).encode(), now=SENT["sent_ms"] / 1000 + 3600)
    assert not message.odd
    assert (message.owner, message.session, message.version) == ("o", "7c0dded1", 1)
    waiting, buildable, *_ = message.events
    assert waiting.stage is model.Stage.WAITING
    assert (buildable.label, buildable.idle, buildable.task_url) == ("maven&&x", 0, "/job/f1/")
    assert buildable.causes == ("Started by user admin",)
    flyweight, left = message.events[2:4]
    assert flyweight.flyweight
    assert (left.stage, left.node) == (None, None)  # it runs on the controller itself
    block = message.events[-1]
    assert block.task_class.endswith("ExecutorStepExecution$PlaceholderTask")
    assert not message.events[0].cancelled


def test_times_are_put_on_our_clock():
    """The controller's clock may be an hour off; what it tells of was before it told it."""
    for ahead_ms in (0, 3_600_000, -3_600_000):
        told = event(at_ms=NOW * 1000 + ahead_ms - 250, since_ms=NOW * 1000 + ahead_ms - 900)
        (got,) = read(sent_ms=NOW * 1000 + ahead_ms, events=[told]).events
        assert got.at == pytest.approx(NOW - 0.25)
        assert got.in_queue_since_at == pytest.approx(NOW - 0.9)
    (got,) = read(events=[event(at_ms=NOW * 1000 + 5000)]).events
    assert got.at == NOW


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "event",
        [],
        event(id=...),
        event(id="7"),
        event(id=True),
        event(event="eaten"),
        event(event=["left"]),
        event(at_ms=...),
        event(at_ms="soon"),
    ],
)
def test_one_odd_event_costs_that_event(odd):
    """And is counted."""
    message = read(events=[odd, event(id=8)])
    assert [one.id for one in message.events] == [8]
    assert message.odd.count == 1


def test_every_field_may_be_of_any_form():
    """It is left out then, or is what it is without one."""
    for value in (None, 1, -1, 1e308, "x" * 100_000, ["x"], {"a": 1}, True, "\u202e\x00\ud800"):
        told = event(
            label=value,
            node=value,
            name=value,
            url=value,
            idle=value,
            causes=[value, value],
            since_ms=value,
            cancelled=value,
            flyweight=value,
            **{"class": value},
        )
        message = read(events=[told], closed=value, busy=[value], ended=value, lost=value)
        (got,) = message.events
        assert len(got.label or "") <= 2 * 4096
        assert all(len(text) <= 512 for text in (got.task_name, *got.causes))
        assert got.idle is None or got.idle >= 0
        assert got.in_queue_since_at <= NOW


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b"1" * 5000,
        b'{"hook": 1}',
        b'{"hook": 1, "sent_ms": NaN, "events": []}',
        b'{"hook": "1", "sent_ms": 1, "events": []}',
        b'{"hook": 1, "sent_ms": 1, "events": {}}',
    ],
)
def test_what_is_no_message(body):
    """Whoever sends it is told so."""
    with pytest.raises(messages.NoMessage):
        messages.parsed(body, now=NOW)


def test_of_a_message_of_a_megabyte_a_part_is_read():
    """Of events and names only so many are read."""
    events = [event(id=number, label="x" * 50) for number in range(8000)]
    body = json.dumps(
        {"hook": 1, "owner": "o", "session": "s", "sent_ms": 1, "events": events}
    ).encode()
    assert len(messages.parsed(body, now=NOW).events) == messages.EVENTS_MAX
