"""Follows one engine's events in a thread of its own: wake-ups, and what only events can tell.

Why remember anything: that a process was killed for memory, who sent a signal, and when the engine
was away are in no later answer. Everything here is a hint: a container that ended while nobody
listened has no event, so each return of the engine is a wake-up, and the list tells the truth. The
engine keeps its last 256 events, which a new connection reads again. Refuses to judge.

The thread outlives whatever an engine sends, and bugs of ours: an event that cannot be read is a
wake-up like any other, what goes wrong is logged once, and ``stream`` tells whether it listens.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from attrs import define, field

from backends import api
from backends.docker.containers import death
from backends.docker.engine import answers, client
from outside import text

_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_SHORT_S = 1.0  # a stream that ends sooner is none
_LONG_S = 240.0  # one that is silent for longer is opened again, and that is nobody's trouble
_AGAIN_S = 2.0  # an engine that starts still finds out what became of its containers
_AWAY_KEPT = 16
_KEPT = 100  # of one container, of each kind
_JOIN_S = 1.0  # its connection is gone, and the thread is a daemon
_SEEN_KEPT = 4096
_QUIET_S = 60.0  # between two lines of the log
_SIGNAL = re.compile("[0-9]{1,3}")

_LOG = logging.getLogger("backends.docker.follow")


@define
class _EventMemory:
    """Of one container; sets, because a new connection tells old events again."""

    oom_at: set[float] = field(factory=set)
    signals: set[tuple[float, int]] = field(factory=set)
    died: bool = False


class Follower:
    """The thread; ``wake`` is called from it."""

    def __init__(
        self,
        engine: client.Engine,
        labels: Mapping[str, str],
        *,
        wake: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._labels = labels
        self._wake = wake
        self._now = now
        self._lock = threading.Lock()
        self._memory: dict[str, _EventMemory] = {}
        self._away: list[tuple[float, float]] = []
        self._lost_at: float | None = None
        self._silent_at: float | None = None  # since when calls are not answered
        self._since = 1
        self._began_at = now()
        self._end: Callable[[], None] | None = None
        self._streams = 0
        self._quiet_until = 0.0  # time.monotonic()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, once; from any thread."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="docker-events", daemon=True
                )
                self._thread.start()

    def leave(self) -> None:
        """End the stream."""
        self._closing.set()
        with self._lock:
            if self._end is not None:
                self._end()

    def close(self) -> None:
        """End the stream, and wait for the thread; blocking."""
        self.leave()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def stream(self) -> int:
        """Return the number of the stream that is open, from 1 on; 0: none."""
        with self._lock:
            return 0 if self._end is None else self._streams

    def seen(self, container_id: str) -> death.EventTrace:
        """Return what the events told of a container."""
        with self._lock:
            memory = self._memory.get(container_id, _EventMemory())
            return death.EventTrace(
                oom_at=tuple(sorted(memory.oom_at)), signals=tuple(sorted(memory.signals))
            )

    def heard_of_end(self, container_id: str) -> bool:
        """Tell whether the last event of a life has come, so that there is no earlier one."""
        with self._lock:
            memory = self._memory.get(container_id)
            return memory is not None and memory.died

    def away(self) -> tuple[tuple[float, float], ...]:
        """Return when the engine was away, from and to; the last may still go on."""
        with self._lock:
            open_end = [] if self._lost_at is None else [(self._lost_at, self._now())]
            return (*self._away, *open_end)

    def silent(self) -> None:
        """Note that the engine does not answer.

        One that stops takes no calls from the first moment on, and its stream goes on until the
        last of its containers has ended.
        """
        with self._lock:
            if self._silent_at is None:
                self._silent_at = self._now()

    def answered(self) -> None:
        """Note that it answers."""
        with self._lock:
            self._silent_at = None

    # --- the thread ---

    def _run(self) -> None:
        pauses = self._pauses()
        while not self._closing.is_set():
            opened = time.monotonic()
            try:
                for event in self._engine.events(self._labels, self._since, self._begun):
                    if time.monotonic() - opened > _SHORT_S:  # else the old ones, told again
                        pauses = self._pauses()
                    if event is None:
                        self._say(f"{self._engine.url} reports an event that cannot be read")
                    if event is None or self._is_news(event):
                        self._wake()
            except api.BackendError as error:  # the listing says so, too
                if time.monotonic() - opened < _LONG_S:  # an engine may have nothing to tell
                    self._say(error.reason)
            except Exception as error:  # noqa: BLE001 -- what follows must not end, or nothing is heard
                self._say(f"a bug: {error!r}", bug=error)
            self._lose()
            self._wake()
            self._closing.wait(next(pauses))

    def _say(self, trouble: str, *, bug: Exception | None = None) -> None:
        """Log why nothing is heard, now and then; an engine may come and go all the time."""
        if time.monotonic() >= self._quiet_until and not self._closing.is_set():
            self._quiet_until = time.monotonic() + _QUIET_S
            _LOG.warning(
                "the events of an engine cannot be followed, trying again: %s",
                text.clean(trouble),
                exc_info=bug,
            )

    def _is_news(self, event: answers.ContainerEvent) -> bool:
        """Remember an event; return whether to wake: not for one that is told again."""
        now = self._now()
        at = now if event.at is None else event.at
        return self._note(event, at, now) and at >= self._began_at

    def _pauses(self) -> Iterator[float]:
        yield from _RETRY_S
        while True:
            yield _RETRY_S[-1]

    def _begun(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._end = end
            self._streams += 1
            if self._closing.is_set():
                end()
            came_back = self._lost_at is not None
            if self._lost_at is not None:
                self._away = [*self._away[1 - _AWAY_KEPT :], (self._lost_at, self._now())]
                self._lost_at = None
        if came_back:
            self._wake()
            timer = threading.Timer(_AGAIN_S, self._wake)
            timer.daemon = True
            timer.start()

    def _lose(self) -> None:
        with self._lock:
            self._end = None
            if self._lost_at is None:
                now = self._now()
                self._lost_at = min(self._silent_at or now, now)

    def _note(self, event: answers.ContainerEvent, at: float, now: float) -> bool:
        """Remember what only events tell; return whether a listing could show something new.

        A container that is short of memory has dozens of ``oom`` a second, for hours.
        """
        with self._lock:
            self._since = max(self._since, int(min(at, now)))  # of a time to come nothing is heard
            if event.action == "destroy":
                self._memory.pop(event.id, None)
                return True
            if event.action not in {"oom", "kill", "die", "start"}:
                return True
            if event.id not in self._memory and len(self._memory) >= _SEEN_KEPT:
                del self._memory[next(iter(self._memory))]
            memory = self._memory.setdefault(event.id, _EventMemory())
            if event.action == "oom":
                memory.oom_at.add(at)
                if len(memory.oom_at) > _KEPT:
                    memory.oom_at.discard(min(memory.oom_at))
                return len(memory.oom_at) == 1
            if event.action in {"die", "start"}:
                memory.died = event.action == "die"
            elif _SIGNAL.fullmatch(number := event.attributes.get("signal", "")):
                memory.signals.add((at, int(number)))
                if len(memory.signals) > _KEPT:
                    memory.signals.discard(min(memory.signals))
            return True
