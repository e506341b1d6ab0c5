"""The broker's end of the hook: who is heard, what is answered, and who waits for what is done."""

import asyncio
import contextlib
import json

import pytest

from broker import metrics
from broker.core import model
from broker.core.model import NodeName
from broker.hook import inbox, messages

KEY = "k" * 32
AGENT = NodeName("o-t-1")


class Notes(metrics.NullRecorder):
    """Keeps what was not taken."""

    def __init__(self):
        self.refused = []

    def hook_refused(self, slug):
        self.refused.append(slug)


class Desk:
    """An inbox, and a hook that says what a test wants."""

    def __init__(self):
        self.time, self.taken, self.session = 1000.0, [], "s1"
        self.world = self.plan = None
        self.leads = True
        self.notes = Notes()
        self.inbox = inbox.Inbox(
            owner="o",
            key=lambda: KEY,
            now=lambda: self.time,
            session=lambda: self.session,
            take=self.taken.extend,
            seen=lambda: (self.world, self.plan),
            tells_builds=lambda: True,
            recorder=self.notes,
            leads=lambda: self.leads,
        )

    def say(self, *events, **more):
        told = {"hook": 1, "owner": "o", "session": "s1", "sent_ms": self.time * 1000, **more}
        return self.inbox.receive(json.dumps({**told, "events": list(events)}).encode())

    def refused(self, **more):
        with pytest.raises(inbox.NotHeard):
            self.say(**more)
        return self.notes.refused[-1]


@pytest.fixture
def desk():
    return Desk()


def buildable(number, desk):
    return {"event": "buildable", "id": number, "at_ms": desk.time * 1000, "label": "t", "idle": 0}


def test_the_key_opens_and_nothing_else(desk):
    """However near it comes; without a key nobody is heard."""
    assert desk.inbox.admit(KEY) == ""
    for wrong in ("", KEY[:-1], KEY + "k", KEY.upper(), "\udcff"):
        assert desk.inbox.admit(wrong)
    assert set(desk.notes.refused) == {"key"}
    desk.inbox.key = lambda: None
    assert "not set" in desk.inbox.admit(KEY)


def test_events_are_taken_and_the_pause_is_named(desk):
    """Where something happens it is to come again soon; at rest every few seconds."""
    assert desk.say(buildable(1, desk)).pause_ms < 1000
    assert [one.id for one in desk.taken] == [1]
    desk.plan = model.Plan(agents=(), ledger=model.Ledger())
    assert desk.say().pause_ms >= 5000
    assert desk.inbox.state.events == 1


def test_who_is_not_heard(desk):
    """Another broker's hook, another controller's, and whoever asks a standby."""
    assert desk.refused(owner="p") == "owner"
    assert desk.refused(session="s2") == "session"
    desk.leads = False
    assert desk.refused() == "standby"
    desk.leads, desk.session = True, ""  # nothing has been read yet
    desk.say(session="s2")
    with pytest.raises(inbox.NotHeard):
        desk.inbox.receive(b"{}")
    assert desk.notes.refused[-1] == "malformed"
    assert not desk.taken


def test_a_hook_in_a_loop_is_turned_away(desk):
    """And taken again a moment later."""
    taken = 0
    while not desk.notes.refused:
        with contextlib.suppress(inbox.NotHeard):
            desk.say()
            taken += 1
    assert desk.notes.refused == ["rate"]
    assert taken < 1000
    desk.time += 1
    desk.say()


def test_silence_is_noticed_within_a_minute(desk):
    """Also of one that never came."""
    state = desk.inbox.state
    assert not state.is_heard(desk.time)
    assert not state.is_silent(desk.time)
    assert state.is_silent(desk.time + 60)
    desk.time += 100
    desk.say()
    assert desk.inbox.state.is_heard(desk.time + 10)
    assert desk.inbox.state.is_silent(desk.time + 60)
    assert not desk.inbox.state.is_heard(desk.time + 60)


async def asking(desk, call, *later):
    """Begin to ask, let the hook come as often as said, and return the answers and the result."""
    desk.say()
    task = asyncio.ensure_future(call(AGENT))
    await asyncio.sleep(0)
    answers = [desk.say(**more) for more in later]
    return answers, await task


@pytest.mark.looptime
async def test_an_agent_is_closed_under_the_queues_lock(desk):
    """Asked once; the hook says what came of it with its next message."""
    (first, _), closed = await asking(desk, desk.inbox.close, {}, {"closed": [AGENT]})
    assert first.close == (AGENT,)
    assert closed is True
    (first, second), closed = await asking(desk, desk.inbox.close, {}, {"busy": [AGENT]})
    assert (first.close, second.close, closed) == ((AGENT,), (), False)
    (first, _), ended = await asking(desk, desk.inbox.end_steps, {}, {"ended": [AGENT]})
    assert (first.end_steps, ended) == ((AGENT,), True)


@pytest.mark.looptime
async def test_nobody_waits_long_for_a_hook_that_does_not_come(desk):
    """What it may have done all the same is undone."""
    assert await desk.inbox.close(AGENT) is None  # it has never come
    _, closed = await asking(desk, desk.inbox.close)
    assert closed is None
    assert desk.say().close == desk.say().reopen == ()  # it was not told of it
    _, closed = await asking(desk, desk.inbox.close, {})
    assert closed is None
    assert desk.say().reopen == (AGENT,)
    assert desk.say().reopen == ()


@pytest.mark.looptime
async def test_nothing_that_was_not_asked_is_believed(desk):
    """A result that comes before the question was sent is none."""
    desk.say()
    task = asyncio.ensure_future(desk.inbox.close(AGENT))
    await asyncio.sleep(0)
    assert desk.say(closed=[AGENT]).close == (AGENT,)
    assert not task.done()
    desk.say(closed=["o-t-2"])
    desk.say(closed=[AGENT])
    assert await task is True


def test_an_answer_is_what_the_script_reads():
    """Its fields have the names that stand in the script."""
    document = messages.HookAnswer(
        pause_ms=1, close=(AGENT,), reopen=(AGENT,), end_steps=(AGENT,), say=((1, "x"),)
    ).document()
    assert document == {
        "pause_ms": 1,
        "close": [AGENT],
        "open": [AGENT],
        "end_steps": [AGENT],
        "say": [{"id": 1, "text": "x"}],
    }
