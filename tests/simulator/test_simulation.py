"""The simulated controller's machine: it must be as unforgiving as the real one."""

import pytest

from broker.simulator import documents, reasons, simulation
from broker.simulator.simulation import Fate, ItemClass, Node, SimulatedRefusal, TaskKind
from tests.each import each

OLD, NEW = "2.263.4", "2.528.3"


def made(version=NEW, *nodes, **more):
    sim = simulation.Simulation(version=version, **more)
    for node in nodes:
        sim.create_node(0.0, node)
    return sim


def node(name, *labels, online=True, **more):
    return Node(name=name, labels=frozenset(labels), connected=online, **more)


def text(sim, item_id, *, now=0.0, language="en"):
    return reasons.why(sim, sim.items[item_id], now=now, language=language)


def test_the_life_of_an_item():
    """Quiet period, buildable, pending, building, done."""
    sim = made(NEW, node("a", "x"))
    number = sim.submit(0.0, label="x", quiet_s=5.0, duration_s=3.0)
    item = sim.items[number]
    assert item.stage is ItemClass.WAITING
    sim.advance(5.0)
    assert item.stage is ItemClass.PENDING
    sim.advance(5.0 + sim.handover_s)
    assert (item.stage, item.fate, item.node) == (ItemClass.LEFT, Fate.OPEN, "a")
    sim.advance(9.0)
    assert (item.fate, item.ended_at) == (Fate.DONE, pytest.approx(8.0, abs=0.01))
    assert sim.nodes["a"].idle


def test_a_job_that_is_not_concurrent_waits_for_itself():
    """The second build is blocked while the first runs."""
    sim = made(NEW, node("a", "x", executors=2))
    first = sim.submit(0.0, job="j", label="x", concurrent=False, duration_s=10.0)
    sim.advance(1.0)
    second = sim.submit(1.0, job="j", label="x", concurrent=False)
    assert sim.items[second].stage is ItemClass.BLOCKED
    assert text(sim, second) == "Build #1 is already in progress (ETA: N/A)"
    sim.advance(11.0)
    assert sim.items[first].fate is Fate.DONE
    assert sim.items[second].stage in {ItemClass.PENDING, ItemClass.LEFT}


@pytest.mark.parametrize(("version", "fate"), [(OLD, Fate.LOST), (NEW, Fate.OPEN)])
@pytest.mark.parametrize("how", ["offline", "delete"])
def test_the_lost_item_race(version, fate, how):
    """Assigned, and then the node goes: old versions drop the item, newer ones put it back."""
    sim = made(version, node("a", "x"))
    number = sim.submit(0.0, label="x")
    assert sim.items[number].stage is ItemClass.PENDING
    if how == "offline":
        sim.take_offline(0.0005, "a", "bye")
    else:
        sim.delete_node(0.0005, "a")
    sim.advance(1.0)
    assert sim.items[number].fate is fate
    assert (sim.items[number] in sim.wanted) == (fate is Fate.OPEN)
    assert sim.items[number].stage is (
        ItemClass.LEFT if fate is Fate.LOST else ItemClass.BUILDABLE
    )


def test_a_label_swap_loses_nothing():
    """What is assigned runs, whatever labels its node has by then."""
    sim = made(OLD, node("a", "x"))
    number = sim.submit(0.0, label="x", duration_s=1.0)
    sim.configure(0.0005, "a", wanted=frozenset({"retired"}))
    sim.advance(5.0)
    assert sim.items[number].fate is Fate.DONE


def test_an_assigned_agent_is_not_idle():
    """Whoever looks between assignment and start sees it busy, without a build."""
    sim = made(OLD, node("a", "x"))
    sim.submit(0.0, label="x")
    shown = documents.computer(sim.nodes["a"], url="http://c/")
    assert (shown["idle"], shown["executors"][0]["currentExecutable"]) == (False, None)


def test_deleting_a_node_fails_its_build():
    """Never delete an agent that works."""
    sim = made(NEW, node("a", "x"))
    number = sim.submit(0.0, label="x", duration_s=100.0)
    sim.advance(1.0)
    sim.delete_node(1.0, "a")
    assert sim.items[number].fate is Fate.FAILED


def test_an_agent_that_goes_takes_its_build_along():
    """A closed channel fails what builds there; the node stays, offline."""
    sim = made(NEW, node("a", "x", online=False))
    sim.connect(0.0, "a")
    number = sim.submit(0.0, label="x", duration_s=100.0)
    sim.advance(1.0)
    sim.disconnect(2.0, "a")
    assert sim.items[number].fate is Fate.FAILED
    assert not sim.nodes["a"].online
    sim.connect(3.0, "a")
    with pytest.raises(SimulatedRefusal) as raised:
        sim.connect(3.0, "a")
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("away_s", "fate", "ended_at"),
    [(1.0, Fate.DONE, 10.0), (60.0, Fate.DONE, 62.0), (400.0, Fate.FAILED, 302.0)],
)
def test_a_pipelines_step_waits_for_its_agent(away_s, fate, ended_at):
    """Five minutes; what has ended meanwhile is told when the agent is back."""
    sim = made(NEW, node("a", "x", online=False))
    sim.connect(0.0, "a")
    number = sim.submit(0.0, label="x", duration_s=10.0, kind=TaskKind.PIPELINE)
    sim.advance(1.0)
    sim.disconnect(2.0, "a")
    shown = documents.computer(sim.nodes["a"], url="http://c/")
    assert (shown["idle"], shown["offline"]) == (False, True)
    sim.advance(2.0 + away_s)
    sim.connect(2.0 + away_s, "a")
    sim.advance(1000.0)
    assert sim.items[number].fate is fate
    assert sim.items[number].ended_at == pytest.approx(ended_at, abs=0.01)
    assert sim.nodes["a"].idle


def test_temporarily_offline_takes_no_more_work_but_finishes():
    """The cordon."""
    sim = made(NEW, node("a", "x"))
    running = sim.submit(0.0, label="x", duration_s=5.0)
    sim.advance(1.0)
    sim.take_offline(1.0, "a", "drain")
    waiting = sim.submit(1.0, label="x")
    sim.advance(20.0)
    assert sim.items[running].fate is Fate.DONE
    assert sim.items[waiting].stage is ItemClass.BUILDABLE
    sim.toggle(20.0, "a", "")
    sim.advance(30.0)
    assert sim.items[waiting].fate is Fate.DONE


def test_exclusive_nodes_refuse_items_without_a_label():
    """Mode NORMAL takes them."""
    sim = made(NEW, node("a", "x"), node("b", "x", exclusive=False))
    number = sim.submit(0.0)
    sim.advance(0.1)
    assert sim.items[number].node == "b"


def test_a_restart():
    """Queue and nodes stay, freestyle builds die, a pipeline wants exactly its node back."""
    sim = made(NEW, node("a", "x"), node("b", "x"))
    free = sim.submit(0.0, label="x", duration_s=100.0)
    pipe = sim.submit(0.0, label="x", duration_s=100.0, kind=TaskKind.PIPELINE)
    sim.advance(1.0)
    waiting = sim.submit(1.0, label="y")
    before = sim.session
    sim.restart(10.0, down_s=20.0)
    assert sim.is_down(29.9)
    assert not sim.is_down(30.0)
    assert sim.session != before
    assert sim.items[free].fate is Fate.FAILED
    assert [i.id for i in sim.wanted] == [waiting, pipe]
    name = sim.items[pipe].pinned
    assert text(sim, pipe, now=31.0) == f"‘{name}’ is offline"
    sim.advance(31.0)
    sim.connect(31.0, name)
    sim.advance(200.0)
    assert sim.items[pipe].fate is Fate.DONE


def test_quiet_down_gives_out_nothing():
    """Everything waits, and says so."""
    sim = made(NEW, node("a", "x"))
    sim.quiet_down(0.0)
    number = sim.submit(0.0, label="x")
    assert text(sim, number) == "Jenkins is about to shut down"
    sim.quiet_down(1.0, on=False)
    sim.advance(5.0)
    assert sim.items[number].fate is Fate.DONE


def test_cancelling():
    """Once; then as recorded."""
    sim = made()
    number = sim.submit(0.0, label="x")
    sim.cancel(1.0, number)
    assert sim.items[number].fate is Fate.CANCELLED
    for wrong, status in ((number, 500), (999, 404)):
        with pytest.raises(SimulatedRefusal) as raised:
            sim.cancel(2.0, wrong)
        assert raised.value.status == status


BUSY = {"busy": True}


@each(
    ("built_in", "nodes", "label", "english", "german"),
    [
        # recordings queue/01, 06, 13, 14, 03, 04, 11, 35: text and language
        (1, [("n", "z")], "x", "There are no nodes with the label ‘x’", "Es gibt keine Knoten mit dem Label „x“"),
        (1, [("n", "x"), ("m", "x")], "x", "All nodes of label ‘x’ are offline", "Alle Knoten des Labels „x“ sind offline"),
        (1, [], "x", "‘Jenkins’ doesn’t have label ‘x’", "„Jenkins“ hat nicht das Label „x“"),
        (0, [], "x", "Waiting for next available executor", "Warte auf den nächsten freien Build-Prozessor"),
        (0, [("n", "z")], None, "Waiting for next available executor", "Warte auf den nächsten freien Build-Prozessor"),
        (0, [("n", "x")], "x", "‘n’ is offline", "n ist offline"),
        (0, [("n", "z")], "x && (y||!w)", "There are no nodes with the label ‘x&&(y||!w)’", "Es gibt keine Knoten mit dem Label „x&&(y||!w)“"),
        (0, [("n", "z")], '"a b"', "There are no nodes with the label ‘a b’", "Es gibt keine Knoten mit dem Label „a b“"),
    ],
)  # fmt: skip
def test_the_controllers_words(built_in, nodes, label, english, german):
    """As recorded, in both languages."""
    sim = made(
        OLD, *(node(n, *ls.split(), online=False) for n, ls in nodes), built_in_executors=built_in
    )
    number = sim.submit(0.0, label=label, duration_s=100)
    if label is None and built_in == 0:
        sim.built_in.exclusive = True
    assert (text(sim, number), text(sim, number, language="de")) == (english, german)


def test_words_for_busy_nodes():
    """One busy node is named, of several the label is (queue/11, queue/35)."""
    sim = made(NEW, node("a", "x"))
    sim.submit(0.0, label="x", duration_s=100)
    second = sim.submit(0.0, label="x")
    assert text(sim, second) == "Waiting for next available executor on ‘a’"
    sim.create_node(1.0, node("b", "x", online=False))
    assert text(sim, second) == "Waiting for next available executor on ‘x’"


def test_stuck_tells_a_label_that_nobody_serves():
    """Recordings queue/14 and 15."""
    sim = made()
    served_by_nobody, unlabelled = sim.submit(0.0, label="x"), sim.submit(0.0)
    assert reasons.is_stuck(sim, sim.items[served_by_nobody])
    assert not reasons.is_stuck(sim, sim.items[unlabelled])


@pytest.mark.parametrize(
    ("seconds", "english"), [(116.2, "1 min 56 sec"), (3.94, "3.9 sec"), (42.0, "42 sec")]
)
def test_the_quiet_period_in_words(seconds, english):
    """As in queue/07 and queue/40."""
    sim = made()
    number = sim.submit(0.0, label="x", quiet_s=seconds)
    assert text(sim, number) == f"In the quiet period. Expires in {english}"


def test_trees():
    """Only what is asked for, the class always."""
    sim = made(NEW, node("a", "x"))
    sim.submit(0.0, job="j", label="x && y")
    told = documents.queue(sim, now=1.0, url="http://c/", language="en")
    tree = documents.parse_tree("items[id,task[labelExpression]]")
    assert documents.pruned(told, tree)["items"] == [
        {
            "_class": "hudson.model.Queue$BuildableItem",
            "id": 1,
            "task": {"_class": "hudson.model.FreeStyleProject", "labelExpression": "x && y"},
        }
    ]
    assert "labelExpression" not in documents.pruned(told, None)["items"][0]["task"]


def test_cancelling_what_is_just_assigned_frees_its_executor():
    """The node does not stay busy with an item that is gone."""
    sim = made(NEW, node("n", "a"))
    item = sim.submit(0.0, label="a")
    sim.cancel(0.0, item)
    sim.advance(1.0)
    assert sim.nodes["n"].idle
