"""Some hours of many days: the invariants in every cycle, and reruns that are the same."""

import pathlib
from collections import Counter

import pytest

from broker.core import model
from tests.sim import simulator

KEPT = [
    line.split(maxsplit=2)
    for line in (pathlib.Path(__file__).parent / "seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
CASES = [
    pytest.param(seed, hours, name, marks=[pytest.mark.soak] * (hours > 1))
    for seed, hours in ((0, 1.0), (0, 2.0), (1, 2.0))
    for name in simulator.POLICIES
] + [pytest.param(int(seed), float(hours), name, marks=pytest.mark.soak) for seed, hours, name in KEPT]  # fmt: skip


@pytest.mark.parametrize(("seed", "hours", "policy_name"), CASES)
def test_nothing_is_lost_and_nothing_left_behind(seed, hours, policy_name):
    """I1 to I9 in every cycle, I8 when the faults stop. Seeds that ever failed stay for ever."""
    report = simulator.run(seed, hours=hours, policy_name=policy_name)
    assert report.builds > 0


def test_the_same_seed_gives_the_same_run():
    """Word for word: every action, every start, every end."""
    runs = [simulator.run(7, hours=0.5) for _ in range(2)]
    assert runs[0] == runs[1]
    assert runs[0].trace != simulator.run(8, hours=0.5).trace


def test_what_was_booked_of_waits_is_what_they_took_but_for_a_look():
    """The simulated controller knows when each began; what was waited for is plausible."""
    run = simulator.Run(5, hours=1.0, policy=simulator.POLICIES["default"], faults=False)
    run.go()
    items, seen = run.world.sim.items, Counter()
    for one in run.daemon.state.waits.closed:
        if one.end is model.WaitEnd.STARTED:
            assert 0.0 <= one.ended_at - items[one.item].started_at < 60.0
            assert abs(sum(one.spent.values()) - (one.ended_at - one.since_at)) < 1e-3
            seen.update(one.spent)
    assert {model.WaitStep.ORDERED, model.WaitStep.CONNECTING} <= seen.keys()


def test_without_faults_no_build_fails_and_warm_agents_pay():
    """The figures are worth comparing: a warm pool costs idle hours and saves waiting."""
    cold, warm = (
        simulator.run(3, hours=1.0, policy_name=name, faults=False) for name in ("default", "warm")
    )
    assert (0, 0) == (cold.excused, warm.excused)
    assert cold.builds == warm.builds
    assert sum(warm.waits) < sum(cold.waits)
    assert warm.idle_s > cold.idle_s
