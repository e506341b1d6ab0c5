"""Who of several brokers may act: a lease, judged by what is seen to change, on one's own clock.

Rules. Whoever leads writes the record again and again. It may act for ``renew_deadline_s`` after
it *began* the last write that succeeded, and not a moment longer. Whoever waits notes on its own
clock when it *has seen* the record change last; when nothing has changed for as long as the
record's holder promises (``lease_s``, longer than the deadline), it writes itself into it. A write
goes through only over the version that was seen, so of several who try one succeeds.

Why never two: a write takes effect after it was begun and is seen after it took effect. So the
wait of whoever waits begins later than the leave of who leads, and is longer. Clocks are never
compared; they only have to run about as fast (the defaults allow for 60 % of difference). Times in
the record are for people. What a call's answer would have told stays unknown when the answer is
lost; then the record is read before anything is written.

A record that vanishes counts as unchanged: its holder may not know yet. A released record (no
holder) is free at once.

Pure. This module refuses to read a clock, and to know where the record is kept.
"""

import attrs
from attrs import frozen

from backends import lease


@frozen(kw_only=True)
class Terms:
    """Durations in seconds; checked by the configuration: retry < renew deadline < lease."""

    lease_s: int = 10
    renew_deadline_s: float = 6.0
    retry_s: float = 2.0


@frozen(kw_only=True)
class Candidate:
    """What one broker knows. Times are on its own clock."""

    me: str
    seen: lease.SeenRecord | None = None  # the last record, also when it is gone
    gone: bool = False  # the last look found no record
    changed_at: float = 0.0  # when ``seen`` was seen to change
    known: bool = False  # nothing of ours is under way or lost since the last look
    next_at: float = 0.0  # when to look, or to renew
    began_at: float | None = None  # when our last write that succeeded was begun
    beaten_at: float | None = None
    leaving: bool = False

    @property
    def holder(self) -> str:
        """Who holds the lease, as far as we know; empty if nobody does."""
        return self.seen.record.holder if self.seen is not None else ""


@frozen(kw_only=True)
class Read:
    """Read the record."""


@frozen(kw_only=True)
class Write:
    """Write a record over what was seen; None: make it."""

    record: lease.Record
    over: lease.SeenRecord | None


@frozen(kw_only=True)
class Wait:
    """Do nothing before a moment."""

    until: float


@frozen(kw_only=True)
class Left:
    """There is nothing more to do: we hold nothing."""


Step = Read | Write | Wait | Left


def acts_until(candidate: Candidate, terms: Terms) -> float | None:
    """Return the moment from which this broker may no longer act; None if it may not now."""
    if candidate.began_at is None or candidate.leaving:
        return None
    return candidate.began_at + terms.renew_deadline_s


def leads(candidate: Candidate, *, now: float, terms: Terms) -> bool:
    """Return whether this broker may act at this very moment."""
    until = acts_until(candidate, terms)
    return until is not None and now < until


def free_at(candidate: Candidate, terms: Terms) -> float:
    """Return when the record may be taken; the past if it is free or ours."""
    if candidate.holder in {"", candidate.me} or candidate.seen is None:
        return float("-inf")
    promised = candidate.seen.record.lease_s
    return candidate.changed_at + (promised if promised > 0 else terms.lease_s)


def step(candidate: Candidate, *, now: float, terms: Terms, stamp: str) -> Step:
    """Return what to do now; ``stamp`` is the wall clock's time for people."""
    if candidate.leaving:
        return _leave(candidate, now=now, stamp=stamp)
    if not candidate.known:
        return Read() if now >= candidate.next_at else Wait(until=candidate.next_at)
    if leads(candidate, now=now, terms=terms) and now < candidate.next_at:
        return Wait(until=candidate.next_at)
    free = free_at(candidate, terms)
    if now >= free:
        over = None if candidate.gone else candidate.seen
        return Write(record=_claim(candidate, terms, stamp), over=over)
    if now >= candidate.next_at:
        return Read()
    return Wait(until=min(free, candidate.next_at))


def _claim(candidate: Candidate, terms: Terms, stamp: str) -> lease.Record:
    old = candidate.seen.record if candidate.seen is not None else None
    mine = old is not None and old.holder == candidate.me
    return lease.Record(
        holder=candidate.me,
        lease_s=terms.lease_s,
        acquired=(old.acquired if old is not None and mine else "") or stamp,
        renewed=stamp,
        transitions=(old.transitions + (not mine)) if old is not None else 0,
    )


def _leave(candidate: Candidate, *, now: float, stamp: str) -> Step:
    """Give the lease back, if it is ours."""
    if not candidate.known:
        return Read() if now >= candidate.next_at else Wait(until=candidate.next_at)
    if candidate.holder != candidate.me or candidate.gone or candidate.seen is None:
        return Left()
    record = attrs.evolve(candidate.seen.record, holder="", lease_s=1, renewed=stamp)
    return Write(record=record, over=candidate.seen)


# --- what became of a step ---------------------------------------------------------------------


def looked(
    candidate: Candidate, record: lease.SeenRecord | None, *, now: float, terms: Terms
) -> Candidate:
    """Take in what a look showed; ``now`` is after the answer."""
    holder = record.record.holder if record is not None else candidate.holder
    again = now if holder == candidate.me else now + terms.retry_s
    after = attrs.evolve(candidate, known=True, gone=record is None, next_at=again)
    if record is None or record == candidate.seen:
        return after
    lost = record.record.holder != candidate.me
    return attrs.evolve(
        after,
        seen=record,
        changed_at=now,
        began_at=None if lost else candidate.began_at,
    )


def wrote(
    candidate: Candidate, record: lease.SeenRecord, *, began: float, now: float, terms: Terms
) -> Candidate:
    """Take in that a write succeeded."""
    mine = record.record.holder == candidate.me
    return attrs.evolve(
        candidate,
        seen=record,
        gone=False,
        changed_at=now,
        known=True,
        began_at=began if mine else None,
        next_at=began + terms.retry_s,
        beaten_at=None,
    )


def beaten(candidate: Candidate, *, now: float, terms: Terms) -> Candidate:
    """Take in that somebody else was faster: look at once, but not again and again."""
    again = candidate.beaten_at
    at = now if again is None else max(now, again + terms.retry_s)
    return attrs.evolve(candidate, known=False, next_at=at, beaten_at=now)


def unanswered(candidate: Candidate, *, began: float, now: float, terms: Terms) -> Candidate:
    """Take in that a look or a write failed; a write may have succeeded all the same."""
    return attrs.evolve(candidate, known=False, next_at=max(now, began + terms.retry_s))


def leave(candidate: Candidate) -> Candidate:
    """Act no more, and give the lease back."""
    return attrs.evolve(candidate, leaving=True, next_at=0.0)
