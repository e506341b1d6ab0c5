"""What the cluster's events say of pods whose status does not tell why they do not run.

A missing Secret, a volume that another node holds, a network that is not there: the status says
``ContainerCreating`` and no more. The events are an aid for people: to read them needs a right of
its own and costs the API server a scan, so they are asked for late, seldom, pod by pod, and what
goes wrong with that is said once and never stands in the way of a look.

Refuses to know what else a pod's state means.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from attrs import evolve, frozen

from backends import api
from backends.kubernetes.api import rights
from backends.kubernetes.pods import states, table
from outside import typed

_WORDS = 256
_FIRST_S = 10.0  # most pods run by then, and an ordinary start is never asked about
_ADOPTED_S = 3.0  # of an earlier life, whose start may have been interrupted
_LONGEST_S = 300.0
_EVERY_S = 5.0  # between two requests: 2000 brokers may have the same trouble at once
_REFUSED_S = 600.0  # until a missing right is tried again


class EventSource(Protocol):
    """Who can be asked."""

    async def events_of(self, uid: str) -> list[dict[str, Any]]:
        """Return the events of one pod."""


@frozen(kw_only=True)
class _PodInquiry:
    verdict: table.PodObstacle | None = None
    again_at: float
    pause_s: float = _FIRST_S


class Inquiry:
    """Asks about pods that stay mute, and remembers the answers while they do."""

    def __init__(self) -> None:
        self._inquiries: dict[str, _PodInquiry] = {}  # by uid
        self._quiet_until = 0.0
        self._right = rights.OptionalRight("why pods do not start may stay unknown")

    def obstacle_of(self, pod: states.PodSighting) -> table.PodObstacle | None:
        """Return what is known of a pod."""
        known = self._inquiries.get(pod.uid)
        return None if known is None else known.verdict

    async def ask(
        self,
        source: EventSource,
        pods: Iterable[states.PodSighting],
        *,
        now: float,
        adopted: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Ask about at most one of these pods, if it is time to; ``now`` in POSIX seconds.

        ``adopted``: whether this broker has not made an instance of that name itself.
        """
        mute = {
            pod.uid: pod
            for pod in pods
            if pod.mute and pod.waited_s(now) >= (_ADOPTED_S if adopted(pod.name) else _FIRST_S)
        }
        self._inquiries = {uid: inquiry for uid, inquiry in self._inquiries.items() if uid in mute}
        due = [
            uid
            for uid in mute
            if uid not in self._inquiries or self._inquiries[uid].again_at <= now
        ]
        if now < self._quiet_until or not due:
            return
        self._quiet_until = now + _EVERY_S
        uid = min(due, key=self._urgency)
        inquiry = self._inquiries.get(uid) or _PodInquiry(again_at=now)
        try:
            verdict = judge(await source.events_of(uid))
        except api.BackendError as error:
            self._refused(error, now)
            return
        self._inquiries[uid] = evolve(
            inquiry,
            verdict=verdict,
            again_at=now + inquiry.pause_s,
            pause_s=min(2 * inquiry.pause_s, _LONGEST_S),
        )

    def _urgency(self, uid: str) -> float:
        """Whoever was never asked about comes first."""
        return self._inquiries[uid].again_at if uid in self._inquiries else 0.0

    def _refused(self, error: api.BackendError, now: float) -> None:
        lasting = self._right.lacks(error)
        self._quiet_until = now + (_REFUSED_S if lasting else error.retry_after or _FIRST_S)


def judge(events: Sequence[Mapping[str, Any]]) -> table.PodObstacle | None:
    """Return what the latest event that says anything means, or None."""
    fitting = [(row, event) for event in events if (row := _row(event)) is not None]
    if not fitting:
        return None
    row, event = max(fitting, key=lambda pair: _order(pair[1]))
    if not row.text:
        return None
    words = f"{row.text} ({row.reason}): {states.words(event, 'message')}"
    fetching = row.fetching or row.slug == "image"
    return table.PodObstacle(slug=row.slug, words=words[:_WORDS], fetching=fetching)


def _row(event: Mapping[str, Any]) -> table.EventRow | None:
    reason, words = states.word(event, "reason"), states.words(event, "message")
    times = typed.integer(event.get("count"), 1, 1 << 31) or 1
    fits = (
        row
        for row in table.EVENTS
        if row.reason == reason and row.having in words and row.times <= times
    )
    return next(fits, None)


def _order(event: Mapping[str, Any]) -> tuple[str, bool]:
    """Order by time, which is text that sorts; trouble after progress in the same second."""
    last = states.part(event, "series").get("lastObservedTime")
    at = last or event.get("lastTimestamp") or event.get("eventTime")
    return typed.words(at, len("2026-11-24T00:00:00")), event.get("type") == "Warning"
