"""``docs/phases.md`` is drawn from the table in ``broker.core.fleet.lifecycle``, and kept true.

``UPDATE_GOLDEN=1 pytest tests/project/test_phases.py`` draws it anew.
"""

from broker.core.fleet import lifecycle
from broker.core.fleet.lifecycle import ComputerSight, InstanceSight
from broker.core.model import Phase
from tests.project import test_docs as docs

PAGE = docs.DOCS / "phases.md"
LIVING = (InstanceSight.STARTING, InstanceSight.RUNNING)
PRESENT = (*LIVING, InstanceSight.ENDED)
ONLINE = (ComputerSight.IDLE, ComputerSight.BUSY)
EMPTY = (ComputerSight.OFFLINE, ComputerSight.CORDONED)


def launch():
    """Yield each step of a launch: expectation, node, instance, and how it can be cut short."""
    order = lifecycle.classify(
        InstanceSight.ABSENT, ComputerSight.ABSENT, launching=True, overdue=False
    )
    yield "our order", None, order
    yield "the launch fails", order, Phase.GONE
    for instance in LIVING:
        made = lifecycle.TABLE[instance, ComputerSight.OFFLINE]
        yield "node and instance are seen", order, made
        late = lifecycle.classify(instance, ComputerSight.OFFLINE, launching=False, overdue=True)
        yield "its deadline has passed", made, late


def changes(words, instances, computers, to_instance=None, to_computer=None):
    """Yield the change of one sight in every cell of the table in which it can happen."""
    for instance in instances:
        for computer in computers:
            after = (to_instance or instance, to_computer or computer)
            if after != (instance, computer):
                yield words, lifecycle.TABLE[instance, computer], lifecycle.TABLE[after]


def arrows():
    """Return what can happen to an agent: from, to, and the words for each way."""
    steps = [
        *launch(),
        *changes(
            "it comes online", LIVING, [ComputerSight.OFFLINE], to_computer=ComputerSight.IDLE
        ),
        *changes("a build begins", LIVING, [ComputerSight.IDLE], to_computer=ComputerSight.BUSY),
        *changes("its build ends", LIVING, [ComputerSight.BUSY], to_computer=ComputerSight.IDLE),
        *changes("its connection breaks", LIVING, ONLINE, to_computer=ComputerSight.OFFLINE),
        *changes("we cordon it", LIVING, [ComputerSight.IDLE], to_computer=ComputerSight.CORDONED),
        *changes(
            "cordoned, its build ends",
            LIVING,
            [ComputerSight.BUSY],
            to_computer=ComputerSight.CORDONED,
        ),
        *changes(
            "a person takes it", LIVING, [ComputerSight.IDLE], to_computer=ComputerSight.HELD
        ),
        *changes(
            "a person gives it back", LIVING, [ComputerSight.HELD], to_computer=ComputerSight.IDLE
        ),
        *changes(
            "its instance ends",
            LIVING,
            [ComputerSight.OFFLINE, ComputerSight.HELD, ComputerSight.CHECKED],
            to_instance=InstanceSight.ENDED,
        ),
        *changes("a check of it is due", LIVING, ONLINE, to_computer=ComputerSight.CHECKED),
        *changes(
            "node and instance are seen, to be checked",
            [InstanceSight.ABSENT],
            [ComputerSight.CHECKED],
            to_instance=InstanceSight.RUNNING,
        ),
        *changes(
            "its check has passed", LIVING, [ComputerSight.CHECKED], to_computer=ComputerSight.IDLE
        ),
        *changes(
            "its check has passed, not online yet",
            LIVING,
            [ComputerSight.CHECKED],
            to_computer=ComputerSight.OFFLINE,
        ),
        *changes(
            "its check has failed",
            LIVING,
            [ComputerSight.CHECKED],
            to_computer=ComputerSight.CORDONED,
        ),
        *changes("its node is deleted", PRESENT, EMPTY, to_computer=ComputerSight.ABSENT),
        *changes(
            "its instance is terminated",
            PRESENT,
            [ComputerSight.ABSENT],
            to_instance=InstanceSight.ABSENT,
        ),
        *changes(
            "its node is swept", [InstanceSight.ABSENT], EMPTY, to_computer=ComputerSight.ABSENT
        ),
    ]
    drawn = {}
    for words, old, new in steps:
        if old is not new:
            drawn.setdefault((old, new), {})[words] = None
    return drawn


def name(phase):
    """Return the phase as the table and the diagram write it."""
    return "[*]" if phase is None or phase is Phase.GONE else phase.value


def diagram():
    """Return the ways as a diagram of mermaid."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [
        f"    {name(a)} --> {name(b)}: {', '.join(words)}" for (a, b), words in arrows().items()
    ]
    return "\n".join([*lines, "```"]) + "\n"


def table():
    """Return the whole table: a row for each sight of a backend, a column for each of the controller's."""
    head = ["instance \\ computer", *(c.value for c in ComputerSight)]
    rows = [
        [f"**{i.value}**", *(lifecycle.TABLE[i, c].value for c in ComputerSight)]
        for i in InstanceSight
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)


def legal():
    """Return for each phase what may never follow it."""
    lines = ["| after | never |", "|---|---|"]
    for phase in Phase:
        never = [p.value for p in Phase if not lifecycle.is_legal(phase, p)]
        lines.append(f"| {phase.value} | {', '.join(never) or '(anything may follow)'} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_the_manual_is_the_one_that_decides():
    """Cell by cell."""
    assert table() == docs.table_in(PAGE, "table", table())


def test_the_diagram_is_drawn_from_the_table():
    """Each arrow is a change of one sight in the table, and no way is missing."""
    assert diagram() == docs.table_in(PAGE, "diagram", diagram())


def test_the_changes_that_never_happen_are_those_of_the_code():
    """What is counted as illegal."""
    assert legal() == docs.table_in(PAGE, "legal", legal())


def test_every_arrow_is_a_legal_change_and_every_phase_is_drawn():
    """The two tables of the code agree; no phase stands alone but ``unknown``."""
    assert [pair for pair in arrows() if not lifecycle.is_legal(*pair)] == []
    drawn = {phase for pair in arrows() for phase in pair}
    assert drawn >= set(Phase) - {Phase.UNKNOWN}
