"""What is remembered of events, and which of them wake: recorded events, no engine."""

import threading
import time

from backends.docker.engine import answers, events
from tests import patience
from tests.docker import recorded


class Told:
    """Stands in for the client: it tells these events once, then the stream is open."""

    def __init__(self, events: list[answers.ContainerEvent]) -> None:
        self._events = events
        self._ended = threading.Event()
        self.told = threading.Event()

    def events(self, labels, since, begun):
        begun(self._ended.set)
        yield from self._events
        self.told.set()
        self._ended.wait(10)


def followed(
    heard: list[answers.ContainerEvent], *, now: float = 0.0
) -> tuple[events.Follower, int]:
    wakes: list[int] = []
    engine = Told(heard)
    follower = events.Follower(engine, {}, wake=lambda: wakes.append(1), now=lambda: now)
    follower.start()
    assert engine.told.wait(5)
    count = len(wakes)
    return follower, count


def recorded_life(name: str, *, without_end: bool = True) -> list[answers.ContainerEvent]:
    heard = [answers.event(entry) for entry in recorded.load(f"events-{name}")]
    return [e for e in heard if e.action != "destroy" or not without_end]


def test_a_life_is_remembered_until_its_container_is_destroyed():
    """Out of memory, signals and the end; then nothing."""
    life = recorded_life("oom-pid1")
    follower, _ = followed(life)
    assert follower.heard_of_end(life[0].id)
    assert 1 == len(follower.seen(life[0].id).oom_at)
    follower.close()
    follower, _ = followed(recorded_life("oom-pid1", without_end=False))
    assert not follower.heard_of_end(life[0].id)
    assert () == follower.seen(life[0].id).oom_at
    follower.close()


def test_an_engine_that_answers_nobody_is_away_from_then_on():
    """Its stream goes on until it has ended its containers; one that answers again was slow."""
    clock = [100.0]
    engine = Told([])
    follower = events.Follower(engine, {}, wake=lambda: None, now=lambda: clock[0])
    follower.silent()
    follower.answered()
    clock[0] = 131.0
    follower.silent()
    clock[0] = 142.0
    follower.silent()
    assert () == follower.away(), "it may be slow"
    follower._lose()
    assert ((131.0, 142.0),) == follower.away()


def test_signals_are_remembered():
    """A stop whose grace expired sends two."""
    life = recorded_life("stop-grace-expired-137")
    follower, _ = followed(life)
    assert [15, 9] == [number for _, number in follower.seen(life[0].id).signals]
    follower.close()


def test_a_flood_of_oom_wakes_once_and_is_not_kept_without_end():
    """A container that is short of memory has dozens a second."""
    flood = [
        answers.ContainerEvent(id="c", action="oom", at=float(number)) for number in range(1, 500)
    ]
    follower, wakes = followed(flood)
    assert 1 == wakes
    assert 100 == len(follower.seen("c").oom_at)
    assert 499.0 == follower.seen("c").oom_at[-1]
    follower.close()


def test_what_the_engine_tells_again_does_not_wake():
    """Its last 256 events come with every connection."""
    follower, wakes = followed(recorded_life("exit3"), now=2e9)
    assert 0 == wakes
    follower.close()


class Brief:
    """An engine whose stream ends as soon as it has told the same again."""

    url = "unix:///x"

    def __init__(self) -> None:
        self.opened: list[float] = []

    def events(self, labels, since, begun):
        self.opened.append(time.monotonic())
        begun(lambda: None)
        yield from recorded_life("oom-pid1")


def test_a_stream_that_ends_at_once_is_opened_ever_more_seldom(monkeypatch):
    """Though it tells something each time: that is always the same."""
    monkeypatch.setattr(events, "_RETRY_S", (0.05, 0.1, 0.2, 0.4))
    engine = Brief()
    follower = events.Follower(engine, {}, wake=lambda: None, now=lambda: 1e10)
    follower.start()
    end = time.monotonic() + patience.seconds(20)
    while len(engine.opened) < 5:
        assert time.monotonic() < end
        time.sleep(0.01)
    follower.close()
    assert engine.opened[4] - engine.opened[0] > 0.05 + 0.1 + 0.2 + 0.4 - 0.05
