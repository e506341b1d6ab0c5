"""The election as tables: what a broker does about the lease in each situation."""

import attrs
import pytest

from backends import lease
from broker.core import election
from broker.core.election import Candidate, Left, Read, Terms, Wait, Write
from tests.each import each

TERMS = Terms(lease_s=10, renew_deadline_s=6.0, retry_s=2.0)
ME, OTHER = "me", "other"


def record(holder, **more):
    fields = {"lease_s": 10, "acquired": "a", "renewed": "r", "transitions": 3}
    return lease.Record(holder=holder, **{**fields, **more})


def seen(holder, version="1", **more):
    return lease.SeenRecord(record=record(holder, **more), version=version, uid="u")


def known(holder, **more):
    """Return a candidate that looked at 100 and saw a record that changed then."""
    fields = {"seen": seen(holder), "known": True, "changed_at": 100.0, "next_at": 102.0}
    return Candidate(me=ME, **{**fields, **more})


LEADER = known(ME, began_at=100.0)
MINE = record(ME, acquired="now", renewed="now", transitions=4)


@each(
    ("candidate", "now", "step"),
    [
        # nothing is known yet
        (Candidate(me=ME), 0.0, Read()),
        (Candidate(me=ME, next_at=5.0), 3.0, Wait(until=5.0)),  # nobody answered
        # there is no lease, and never was: ours at once
        (
            Candidate(me=ME, known=True, gone=True),
            1.0,
            Write(record=attrs.evolve(MINE, transitions=0), over=None),
        ),
        # another holds it
        (known(OTHER), 101.0, Wait(until=102.0)),
        (known(OTHER), 102.0, Read()),
        (known(OTHER, next_at=111.0), 109.0, Wait(until=110.0)),  # not later than it is free
        (known(OTHER), 110.0, Write(record=MINE, over=seen(OTHER))),
        # the holder's promise counts, not ours
        (known(OTHER, seen=seen(OTHER, lease_s=30)), 111.0, Read()),
        (
            known(OTHER, seen=seen(OTHER, lease_s=0)),
            110.0,
            Write(record=MINE, over=seen(OTHER, lease_s=0)),
        ),
        # it is gone, but its holder may not know: as if it had not changed
        (known(OTHER, gone=True), 101.0, Wait(until=102.0)),
        (known(OTHER, gone=True), 110.0, Write(record=MINE, over=None)),
        # released
        (known(""), 100.5, Write(record=MINE, over=seen(""))),
        # we hold it
        (LEADER, 101.0, Wait(until=102.0)),
        (
            LEADER,
            102.0,
            Write(record=record(ME, renewed="now"), over=seen(ME)),
        ),
        (  # not in time, and nobody took it: it is ours still, but we wait for the answer
            LEADER,
            200.0,
            Write(record=record(ME, renewed="now"), over=seen(ME)),
        ),
        (  # a person deleted it under us
            attrs.evolve(LEADER, gone=True, next_at=101.0),
            101.0,
            Write(record=record(ME, renewed="now"), over=None),
        ),
        (attrs.evolve(LEADER, known=False), 102.0, Read()),  # an answer was lost
        # leaving
        (
            election.leave(LEADER),
            101.0,
            Write(record=record("", lease_s=1, renewed="now"), over=seen(ME)),
        ),
        (election.leave(attrs.evolve(LEADER, known=False)), 101.0, Read()),
        (election.leave(known(OTHER)), 101.0, Left()),
        (election.leave(known("")), 101.0, Left()),
        (election.leave(attrs.evolve(LEADER, gone=True)), 101.0, Left()),
    ],
)
def test_every_step(candidate, now, step):
    """One row for each situation."""
    assert step == election.step(candidate, now=now, terms=TERMS, stamp="now")


@each(
    ("candidate", "now", "leads"),
    [
        (Candidate(me=ME), 0.0, False),
        (known(OTHER), 101.0, False),
        (LEADER, 100.0, True),
        (LEADER, 105.9, True),
        (LEADER, 106.0, False),  # the deadline itself is too late
        (LEADER, 99_999.0, False),  # stopped for a day
        (election.leave(LEADER), 101.0, False),
        (known(ME), 101.0, False),  # ours by name, but no answer said so
    ],
)
def test_who_may_act(candidate, now, leads):
    """Only who began a write that succeeded, for as long as the deadline."""
    assert leads is election.leads(candidate, now=now, terms=TERMS)


def test_a_renewal_counts_from_its_begin():
    """The answer took four seconds: two are left, for the other saw it as early as it was asked."""
    after = election.wrote(LEADER, seen(ME, "2"), began=102.0, now=106.0, terms=TERMS)
    assert (102.0 + 6.0) == election.acts_until(after, TERMS)


def test_a_change_counts_from_when_it_was_seen():
    """A look that took long saw, perhaps, something that was written in its last moment."""
    after = election.looked(known(OTHER), seen(OTHER, "2"), now=109.0, terms=TERMS)
    assert 119.0 == election.free_at(after, TERMS)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},  # somebody has set a label: a sign of life, to be on the safe side
        {"record": record(OTHER, renewed="later")},
        {"record": record("third")},
        {"record": record(OTHER, transitions=9)},
    ],
)
def test_any_change_is_a_sign_of_life(change):
    """Whatever changes the wait begins anew."""
    after = election.looked(
        known(OTHER), attrs.evolve(seen(OTHER), **change), now=109.0, terms=TERMS
    )
    assert 119.0 == election.free_at(after, TERMS)


def test_no_change_is_none_however_often_it_is_looked_at():
    """Looks do not put the end off, and neither does the lease's disappearance."""
    candidate = known(OTHER)
    for now in (102.0, 104.0, 106.0):
        candidate = election.looked(candidate, seen(OTHER), now=now, terms=TERMS)
        candidate = election.looked(candidate, None, now=now, terms=TERMS)
    assert 110.0 == election.free_at(candidate, TERMS)


def test_times_in_the_record_are_not_believed():
    """A holder whose clock is in another century is judged like any other."""
    strange = seen(OTHER, renewed="1970-01-01T00:00:00Z", acquired="2999-01-01T00:00:00Z")
    after = election.looked(Candidate(me=ME), strange, now=100.0, terms=TERMS)
    assert 110.0 == election.free_at(after, TERMS)


def test_who_sees_another_in_its_place_stops_at_once():
    """Long before the deadline."""
    after = election.looked(LEADER, seen(OTHER, "2"), now=101.0, terms=TERMS)
    assert not election.leads(after, now=101.0, terms=TERMS)


def test_who_was_beaten_looks_at_once_but_does_not_spin():
    """The first time without a pause, then once in a retry period."""
    first = election.beaten(LEADER, now=102.0, terms=TERMS)
    assert Read() == election.step(first, now=102.0, terms=TERMS, stamp="now")
    looked = election.looked(first, seen("", "2"), now=102.0, terms=TERMS)
    second = election.beaten(looked, now=102.1, terms=TERMS)
    assert Wait(until=104.0) == election.step(second, now=102.1, terms=TERMS, stamp="now")


def test_a_lost_answer_is_looked_up_before_anything_is_written():
    """The write may have succeeded: over the old version it would only be beaten by itself."""
    lost = election.unanswered(LEADER, began=102.0, now=105.0, terms=TERMS)
    assert Read() == election.step(lost, now=105.0, terms=TERMS, stamp="now")
    found = election.looked(lost, seen(ME, "2"), now=105.1, terms=TERMS)
    assert election.leads(found, now=105.9, terms=TERMS)  # by the write before
    step = election.step(found, now=105.1, terms=TERMS, stamp="now")
    assert Write(record=record(ME, renewed="now"), over=seen(ME, "2")) == step
