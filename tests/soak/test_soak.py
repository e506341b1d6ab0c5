"""A short run of the soak: every kind of fault once, and two more with the same end."""

import pytest

from tests.soak import faults, run, script

pytestmark = pytest.mark.timeout(300)


def test_whatever_goes_wrong_nothing_is_lost_and_nothing_left_behind():
    """Each kind once, many at the same time, through the product's own loop."""
    kinds = {kind for kind, whose in faults.KINDS.items() if whose != script.ALONE}
    report = run.Run("ci", rounds=1, only=kinds).play()
    assert [] == [str(broken) for broken in report.broken]
    assert kinds == set(report.strikes)
    assert report.together > len(faults.KINDS) / 2
    assert report.builds > 0


@pytest.mark.soak
def test_what_takes_long_to_tell_is_found_where_nothing_else_is_wrong():
    """A host on which builds fail is named, and no other."""
    kinds = {kind for kind, whose in faults.KINDS.items() if whose == script.ALONE}
    report = run.Run("ci", rounds=2, only=kinds).play()
    assert [] == [str(broken) for broken in report.broken]
    assert report.checked["no healthy host is blamed"] > 0


def test_the_same_seed_gives_the_same_run():
    """A failure is played again by its seed: each item's fate, to the millisecond."""
    few = {"status 500", "killed, state lost"}
    one, again = (run.Run("x", rounds=1, only=few).play() for _ in range(2))
    assert one.builds > 0
    assert one.trace == again.trace


def test_every_kind_is_as_frequent_as_the_others():
    """Twenty rounds make twenty of each; some begin in one moment."""
    strikes = script.script("any", faults.KINDS, rounds=20).strikes
    counted = [sum(s.kind == kind for s in strikes) for kind in faults.KINDS]
    assert {20} == set(counted)
    moments = [s.at for s in strikes]
    assert len(moments) - len(set(moments)) > len(moments) / 5
