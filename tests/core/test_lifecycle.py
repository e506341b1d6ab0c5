"""Each cell of the life-cycle table is a named case; so is each change of phase."""

import itertools

import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import lifecycle
from broker.core.fleet.lifecycle import ComputerSight as C
from broker.core.fleet.lifecycle import InstanceSight as I
from broker.core.model import NodeName, Phase
from tests.each import each

COLUMNS = (C.ABSENT, C.OFFLINE, C.CORDONED, C.HELD, C.IDLE, C.BUSY, C.UNKNOWN)
CELLS = {
    I.ABSENT: "GONE LOST DRAINED LOST IDLE BUSY UNKNOWN",
    I.STARTING: "ORPHAN CONNECTING DRAINED HELD IDLE BUSY UNKNOWN",
    I.RUNNING: "ORPHAN CONNECTING DRAINED HELD IDLE BUSY UNKNOWN",
    I.ENDED: "GONE LOST DRAINED LOST IDLE BUSY UNKNOWN",
    I.UNKNOWN: "UNKNOWN UNKNOWN UNKNOWN HELD IDLE BUSY UNKNOWN",
}
CASES = [
    pytest.param(
        instance, computer, Phase[word], id=f"{instance.value}-{computer.value}-is-{word}"
    )
    for instance, row in CELLS.items()
    for computer, word in zip(COLUMNS, row.split(), strict=True)
]


@each(("instance", "computer", "phase"), CASES)
def test_cell(instance, computer, phase):
    """What the two sources show, and nothing else, gives the phase."""
    assert phase is lifecycle.classify(instance, computer, launching=False, overdue=False)


def test_the_table_is_total():
    """Every pair of sights has a phase."""
    assert set(itertools.product(I, C)) == set(lifecycle.TABLE)


@each(("instance", "computer", "phase"), CASES)
def test_cell_while_our_launch_is_under_way(instance, computer, phase):
    """What would be left over is being built up; what has ended, or works, is what it is."""
    is_young = phase in {Phase.GONE, Phase.LOST, Phase.ORPHAN} and instance is not I.ENDED
    expected = Phase.LAUNCHING if is_young else phase
    assert expected is lifecycle.classify(instance, computer, launching=True, overdue=False)


@each(("instance", "computer", "phase"), CASES)
def test_cell_past_the_deadline(instance, computer, phase):
    """Time turns connecting into lost and changes nothing else: never a busy or a held one."""
    expected = Phase.LOST if phase is Phase.CONNECTING else phase
    assert expected is lifecycle.classify(instance, computer, launching=False, overdue=True)


SEEN = model.Computer(name=NodeName("n"))
OURS = f"{model.CORDON_MARK} once: done"


@each(
    ("changes", "sight"),
    [
        ({}, C.IDLE),
        ({"idle": False}, C.BUSY),
        ({"offline": True}, C.OFFLINE),
        ({"offline": True, "temporarily_offline": True}, C.HELD),
        ({"offline": True, "temporarily_offline": True, "offline_cause": "lunch"}, C.HELD),
        ({"offline": True, "temporarily_offline": True, "offline_cause": OURS}, C.CORDONED),
        ({"offline": True, "offline_cause": OURS}, C.OFFLINE),
        ({"labels": frozenset({model.RETIRED_LABEL, "n"})}, C.CORDONED),
        ({"labels": frozenset({model.RETIRED_LABEL}), "idle": False}, C.BUSY),
        ({"offline": True, "temporarily_offline": True, "offline_cause": OURS, "idle": False}, C.BUSY),
        ({"offline": True, "idle": False}, C.BUSY),
    ],
)  # fmt: skip
def test_what_a_computer_shows(changes, sight):
    """Work outranks everything; then who took it out of service; then whether it is there."""
    import attrs

    assert sight is lifecycle.see_computer(attrs.evolve(SEEN, **changes), synced=True)
    assert C.UNKNOWN is lifecycle.see_computer(attrs.evolve(SEEN, **changes), synced=False)


def test_an_absent_computer():
    """Absent where the source answered, unknown where not."""
    assert (C.ABSENT, C.UNKNOWN) == (
        lifecycle.see_computer(None, synced=True),
        lifecycle.see_computer(None, synced=False),
    )


@pytest.mark.parametrize("state", list(backends_api.InstanceState))
def test_what_a_backend_shows(state):
    """Stopping is as good as ended; unsynced is unknown whatever is at hand."""
    instance = backends_api.Instance(name="n", state=state)
    expected = {"starting": I.STARTING, "running": I.RUNNING}.get(state.value, I.ENDED)
    assert expected is lifecycle.see_instance(instance, synced=True)
    assert I.UNKNOWN is lifecycle.see_instance(instance, synced=False)
    assert I.ABSENT is lifecycle.see_instance(None, synced=True)


@each(
    ("old", "new", "legal"),
    [
        (None, Phase.DRAINED, True),
        (Phase.LAUNCHING, Phase.CONNECTING, True),
        (Phase.LAUNCHING, Phase.IDLE, True),
        (Phase.CONNECTING, Phase.LAUNCHING, True),
        (Phase.CONNECTING, Phase.BUSY, True),
        (Phase.IDLE, Phase.LAUNCHING, True),
        (Phase.BUSY, Phase.LAUNCHING, True),
        (Phase.BUSY, Phase.CONNECTING, True),
        (Phase.DRAINED, Phase.IDLE, True),
        (Phase.HELD, Phase.IDLE, True),
        (Phase.LOST, Phase.IDLE, True),
        (Phase.ORPHAN, Phase.LAUNCHING, False),
        (Phase.ORPHAN, Phase.BUSY, True),
        (Phase.ORPHAN, Phase.CONNECTING, True),
        (Phase.GONE, Phase.LAUNCHING, True),
        (Phase.GONE, Phase.IDLE, False),
        (Phase.GONE, Phase.BUSY, False),
        (Phase.GONE, Phase.ORPHAN, False),
        (Phase.GONE, Phase.CONNECTING, False),
        (Phase.UNKNOWN, Phase.LAUNCHING, True),
    ],
)
def test_legal_changes(old, new, legal):
    """A name is never used again, and an orphan's launch never begins again."""
    assert legal is lifecycle.is_legal(old, new)


def test_every_phase_may_stay_become_unknown_and_end():
    """Whatever is seen, a source may fail next, and everything may vanish."""
    for phase in Phase:
        assert {phase, Phase.UNKNOWN, Phase.GONE} <= lifecycle.LEGAL[phase]
