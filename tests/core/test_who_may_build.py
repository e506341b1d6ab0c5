"""Somebody who may build, and nothing else, harms himself alone."""

import attrs
import pytest

from backends import api
from broker.core import model
from broker.core.model import Phase, Retention, Scope, WaitReason
from tests.core.worlds import B, Scene, actions, item, launches, reasons, template

TASK = "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"


def by_name(number, name, *, of_pipeline):
    """Return an item whose label is the name of an agent, as each kind of job shows it."""
    why = f"Waiting for next available executor on ‘{name}’"
    if of_pipeline:
        return item(number, None, why=why, task_class=TASK, exports_label=False)
    return item(number, name, why=why)


@pytest.mark.parametrize("of_pipeline", [True, False])
def test_a_used_agent_is_not_brought_back_for_whoever_writes_its_name(of_pipeline):
    """As a label it would be a way to another's workspace."""
    scene = Scene(template("t", retention=Retention(once=True)))
    name = scene.agent("t", Phase.DRAINED, builds=1, busy_session="s1", online_at=1.0)
    scene.wait(by_name(1, name, of_pipeline=of_pipeline))
    made = scene.plan()
    assert {name: model.Cause.ONCE} == {
        n: one.cause for n, one in actions(made, model.RetireAgent).items()
    }
    assert {} == actions(made, model.UncordonAgent)


@pytest.mark.parametrize("of_pipeline", [True, False])
def test_a_used_agent_that_is_idle_is_closed_for_whoever_writes_its_name(of_pipeline):
    """At once: the controller would give it to him."""
    scene = Scene(template("t", retention=Retention(once=True)))
    name = scene.agent("t", Phase.IDLE, builds=1, idle_s=1.0)
    scene.wait(by_name(1, name, of_pipeline=of_pipeline))
    assert [name] == list(actions(scene.plan(), model.CordonAgent))


@pytest.mark.parametrize(
    "shows", [{"flaw": api.Exit(slug="image", message="no image")}, {"ends_because": "drained"}]
)
def test_an_agent_that_must_take_no_work_takes_none_of_whoever_writes_its_name(shows):
    """A side container is missing, or its platform is about to end it."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    (instance,) = scene.instances[B]
    scene.instances[B] = [attrs.evolve(instance, **shows)]
    scene.wait(by_name(1, name, of_pipeline=False))
    assert [name] == list(actions(scene.plan(), model.CordonAgent))


def test_a_pipeline_that_was_at_work_there_gets_its_node_back():
    """After a start of the controller it asks for it by its name, too; nobody else did work."""
    scene = Scene(template("t", retention=Retention(once=True)))
    name = scene.agent("t", Phase.DRAINED, builds=1, age_s=7200.0, busy_session="s0")
    scene.wait(by_name(1, name, of_pipeline=True))
    assert [name] == list(actions(scene.plan(), model.UncordonAgent))


def test_an_item_that_wants_a_reusable_agent_by_its_name_is_given_it():
    """That is anybody's right, and costs nobody anything."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.BUSY)
    scene.wait(by_name(1, name, of_pipeline=False))
    assert {1: WaitReason.AGENT_BUSY} == reasons(scene.plan())


# --- builds that kill their agents ---

BROKEN = "Connection was broken: java.nio.channels.ClosedChannelException"


def died(cause, *, proved, **told):
    """Let an agent die of a signal that was never seen online."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.LOST, exit=api.Exit(slug="killed", code=-9), age_s=5.0)
    memory = attrs.evolve(scene.ledger.memories[name], phase=Phase.CONNECTING)
    trials = scene.ledger.trials if proved else {}
    scene.ledger = attrs.evolve(scene.ledger, memories={name: memory}, trials=trials)
    (computer,) = scene.computers
    told = {"offline": True, "offline_cause": cause, **told}
    scene.computers = [attrs.evolve(computer, **told)]
    scene.wait(item(1, "t"))
    return scene, name


def test_a_build_that_kills_its_agent_before_anybody_looks_sets_no_template_aside():
    """It was online; the template's next agent is ordered as if nothing had been."""
    scene, name = died(BROKEN, proved=True)
    made = scene.plan()
    assert 1 == len(launches(made))
    assert {} == made.ledger.backoffs
    gone = actions(made, model.RetireAgent)[name]
    assert model.Cause.LOST_KILLED is gone.cause
    assert "after it had been online" in gone.reason


@pytest.mark.parametrize(
    ("cause", "proved", "told"),
    [
        (BROKEN, False, {}),  # a definition that nobody has seen at work may be the fault itself
        ("", True, {}),
        (
            "This agent is offline because Jenkins failed to launch the agent process on it.",
            True,
            {},
        ),
        (BROKEN, True, {"temporarily_offline": True}),  # the words are a person's
    ],
)
def test_a_start_that_may_have_failed_counts_as_one(cause, proved, told):
    """What the controller says does not show that the agent was fit for work."""
    scene, _ = died(cause, proved=proved, **told)
    assert {model.Cause.LOST_KILLED} == {
        one.cause
        for key, one in scene.plan().ledger.backoffs.items()
        if key.scope is Scope.TEMPLATE
    }
