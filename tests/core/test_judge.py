"""A removal is judged again on a fresh look: what speaks against it, and what does not."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import judge
from broker.core.model import Cause, Phase
from tests.core.worlds import NOW, B, Scene, item, template

T = template("t", "linux")
PIPELINE = "x.ExecutorStepExecution$PlaceholderTask"


def retire(name, cause=Cause.IDLE, **more):
    return model.RetireAgent(name=name, backend=B, cause=cause, reason="r", **more)


def sweep(name):
    return model.SweepNode(name=name, cause=Cause.SWEPT, reason="r")


def objection(scene, action, **seen):
    world = scene.world()
    world = attrs.evolve(world, controller=attrs.evolve(world.controller, **seen))
    return judge.objection(action, judge.prepare(world, scene.policy))


@pytest.mark.parametrize("action", [retire, sweep])
def test_nothing_is_removed_unseen(action):
    """A controller that does not answer may have given it work."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    assert "the controller does not answer" == objection(scene, action(name), synced=False)


@pytest.mark.parametrize("action", [retire, sweep])
def test_whoever_works_stays(action):
    """Whatever the plan said a moment ago."""
    scene = Scene(T)
    assert "it works" == objection(scene, action(scene.agent("t", Phase.BUSY)))


def test_of_whom_nothing_can_be_read_stays():
    """One odd entry among the computers may be just this one; whom we can read goes."""
    scene = Scene(T)
    idle, orphan = scene.agent("t", Phase.IDLE), scene.agent("t", Phase.ORPHAN)
    unread = {"odd_names": frozenset({orphan, idle})}
    words = "what the controller says of it cannot be read"
    assert words == objection(scene, retire(orphan, Cause.SWEPT), **unread)
    assert objection(scene, retire(idle), **unread) is None
    assert objection(scene, retire(orphan, Cause.SWEPT)) is None


def test_an_idle_agent_that_nobody_could_want_goes():
    """And one that is not there at all."""
    scene = Scene(T)
    scene.wait(item(1, "windows"))
    assert objection(scene, retire(scene.agent("t", Phase.IDLE))) is None
    assert objection(scene, retire("o-t-nobody")) is None


def test_an_item_that_came_meanwhile_keeps_its_agent():
    """Said with the item; by the template's labels, which the computer's may not show."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    scene.wait(item(7, "linux"))
    assert "item 7 could want it" == objection(scene, retire(name))


def test_an_item_that_is_refused_to_it_keeps_it_no_longer():
    """As the plan knew when it let the agent go; any other item keeps it."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    scene.wait(item(7, "linux"))
    action = retire(name, refused=frozenset({7}))
    assert objection(scene, action) is None
    scene.wait(item(8, "linux"))
    assert "item 8 could want it" == objection(scene, action)


def test_a_pipeline_that_must_go_on_with_another_node_keeps_nobody_else():
    """The plan knows it as well: no other can serve it, whatever labels it has."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    other = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    scene.wait(item(7, why=f"‘{other}’ is offline", exports_label=False, task_class=PIPELINE))
    assert objection(scene, retire(name)) is None
    assert "item 7 must go on with it" == objection(scene, retire(other, cordoned=True))


def test_a_removal_under_way_says_nothing_for_itself():
    """The agent is judged as it is, and its like as well: no wish is promised to who goes."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    scene.wait(item(7, "linux"))
    going = model.Expectation(
        verb=model.Verb.RETIRE,
        name=name,
        template=T.name,
        backend=B,
        since_at=NOW,
        expires_at=NOW + 99,
    )
    scene.ledger = attrs.evolve(scene.ledger, expectations={name: going})
    assert "item 7 could want it" == objection(scene, retire(name))
    look = judge.prepare(scene.world(), scene.policy)
    assert look.agents[name].expectation is None


def test_what_else_is_under_way_is_remembered():
    """An order that is not seen yet is no removal."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    order = model.Expectation(
        verb=model.Verb.LAUNCH,
        name="o-t-new",
        template=T.name,
        backend=B,
        since_at=NOW,
        expires_at=NOW + 99,
    )
    scene.ledger = attrs.evolve(scene.ledger, expectations={"o-t-new": order})
    look = judge.prepare(scene.world(), scene.policy)
    assert {name, "o-t-new"} == set(look.agents)


def test_a_pipeline_that_must_go_on_with_it_brings_it_back():
    """It asks for its node by name."""
    scene = Scene(T)
    name = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    scene.wait(item(3, why=f"‘{name}’ is offline", exports_label=False, task_class=PIPELINE))
    assert "item 3 must go on with it" == objection(scene, retire(name, cordoned=True))


@pytest.mark.parametrize("action", [sweep, lambda name: retire(name, cordoned=True)])
def test_who_was_out_of_service_and_is_back_stays(action):
    """Somebody brought it online meanwhile; one that is still away goes."""
    scene = Scene(T)
    assert "it is back online" == objection(scene, action(scene.agent("t", Phase.IDLE)))
    assert objection(scene, action(scene.agent("t", Phase.LOST))) is None


def test_who_was_given_up_for_lost_and_came_online_stays():
    """Its death was a mistake."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    assert "it came online after all" == objection(scene, retire(name, Cause.CONNECT_TIMEOUT))
    lost = scene.agent("t", Phase.LOST)
    assert objection(scene, retire(lost, Cause.CONNECT_TIMEOUT)) is None


def test_who_is_given_nothing_goes_though_an_item_could_want_it():
    """As long as the controller still says so."""
    scene = Scene(T)
    closed = scene.agent("t", Phase.IDLE, closed_at=NOW - 9, closed_looks=model.CLOSED_LOOKS)
    opened = scene.agent("t", Phase.IDLE)
    scene.wait(item(7, "linux"), item(8, "linux"))
    assert (
        objection(scene, retire(closed, Cause.CLOSED), takes_work={closed: False, opened: True})
        is None
    )
    assert objection(scene, retire(opened, Cause.CLOSED), takes_work={opened: True}) is not None


def test_a_blocked_item_keeps_nobody_past_the_greatest_age():
    """It may be blocked for days; for idleness alone nobody goes from under it."""
    scene = Scene(T)
    name = scene.agent("t", Phase.IDLE)
    scene.wait(item(7, "linux", stage=model.Stage.BLOCKED))
    assert objection(scene, retire(name, Cause.MAX_AGE)) is None
    assert "item 7 could want it" == objection(scene, retire(name, Cause.IDLE))


def test_an_item_whose_label_nobody_can_read_keeps_an_agent_for_a_moment():
    """Had it fitted, it would be running there."""
    scene = Scene(T)
    fresh = scene.agent("t", Phase.IDLE, idle_s=1.0)
    scene.wait(item(7, None, why="", exports_label=False, age_s=600.0))
    assert "item 7 could want it" == objection(scene, retire(fresh))
    old = scene.agent("t", Phase.IDLE, idle_s=600.0)
    assert objection(scene, retire(old)) is None


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_item_without_a_label_could_want_whom_it_is_given_to(exclusive):
    """Its template says whether it takes such items."""
    scene = Scene(attrs.evolve(T, exclusive=exclusive, takes_unlabelled=not exclusive))
    name = scene.agent("t", Phase.IDLE)
    scene.wait(item(7))
    found = objection(scene, retire(name))
    assert (None if exclusive else "item 7 could want it") == found


def test_an_item_that_waits_for_another_agent_keeps_that_one_alone():
    """Though its label fits both."""
    scene = Scene(T)
    meant, other = scene.agent("t", Phase.IDLE), scene.agent("t", Phase.IDLE)
    scene.wait(item(7, "linux", why=f"Must run on {meant} not {other}"))
    assert "item 7 must go on with it" == objection(scene, retire(meant))
    assert objection(scene, retire(other)) is None
