"""Follows one engine's events in a thread of its own: wake-ups, and what only events can tell.

Why remember anything: that a process was killed for memory, who sent a signal, and when the engine
was away are in no later answer. Everything here is a hint: a container that ended while nobody
listened has no event, so each return of the engine is a wake-up, and the list tells the truth. The
engine keeps its last 256 events, which a new connection reads again. Refuses to judge.
"""

import threading
from collections.abc import Callable, Iterator, Mapping

from attrs import define, field

from backends import api
from backends.docker import answers, client, death

_RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_AGAIN_S = 2.0  # an engine that starts still finds out what became of its containers
_AWAY_KEPT = 16
_OOM_KEPT = 100
_JOIN_S = 5.0  # an engine that says nothing must not hold up our end; the thread is a daemon
_SEEN_KEPT = 4096


@define
class _Memory:
    """Of one container; sets, because a new connection tells old events again."""

    oom_at: set[float] = field(factory=set)
    signals: set[tuple[float, int]] = field(factory=set)
    died: bool = False


class Follower:
    """The thread; ``wake`` is called from it."""

    def __init__(
        self,
        engine: client.Client,
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
        self._memory: dict[str, _Memory] = {}
        self._away: list[tuple[float, float]] = []
        self._lost_at: float | None = None
        self._since = 1
        self._began_at = now()
        self._end: Callable[[], None] | None = None
        self._streams = 0
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

    def close(self) -> None:
        """End the stream and the thread; blocking."""
        self._closing.set()
        with self._lock:
            if self._end is not None:
                self._end()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def stream(self) -> int:
        """Return the number of the stream that is open, from 1 on; 0: none."""
        with self._lock:
            return 0 if self._end is None else self._streams

    def seen(self, container_id: str) -> death.Seen:
        """Return what the events told of a container."""
        with self._lock:
            memory = self._memory.get(container_id, _Memory())
            return death.Seen(
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

    # --- the thread ---

    def _run(self) -> None:
        pauses = self._pauses()
        while not self._closing.is_set():
            try:
                for event in self._engine.events(self._labels, self._since, self._begun):
                    pauses = self._pauses()
                    if self._note(event) and event.at >= self._began_at:  # not one told again
                        self._wake()
            except api.BackendError:
                pass  # the listing says so, with the reason
            self._lose()
            self._wake()
            self._closing.wait(next(pauses))

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
                self._lost_at = self._now()

    def _note(self, event: answers.Event) -> bool:
        """Remember what only events tell; return whether a listing could show something new.

        A container that is short of memory has dozens of ``oom`` a second, for hours.
        """
        with self._lock:
            self._since = max(self._since, int(event.at))
            if event.action == "destroy":
                self._memory.pop(event.id, None)
                return True
            if event.action not in {"oom", "kill", "die", "start"}:
                return True
            if event.id not in self._memory and len(self._memory) >= _SEEN_KEPT:
                del self._memory[next(iter(self._memory))]
            memory = self._memory.setdefault(event.id, _Memory())
            if event.action == "oom":
                memory.oom_at.add(event.at)
                if len(memory.oom_at) > _OOM_KEPT:
                    memory.oom_at.discard(min(memory.oom_at))
                return len(memory.oom_at) == 1
            if event.action in {"die", "start"}:
                memory.died = event.action == "die"
            elif event.attributes.get("signal", "").isdecimal():
                memory.signals.add((event.at, int(event.attributes["signal"])))
            return True
