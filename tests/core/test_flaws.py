"""Agents that run and are no good: a part of theirs is missing, or their platform will end them."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.core.model import Phase
from tests.core import worlds
from tests.core.worlds import NOW, B

FLAW = backends_api.Exit(slug="image", message="container maven: the image cannot be pulled")


def scene_of(phase, *, waits=True, age_s=9.0, **told):
    """Return a scene with one agent, of whose instance this is told, and an item that wants it.

    It was not online at the last look.
    """
    scene = worlds.Scene(worlds.template("linux"))
    name = scene.agent(
        "linux", phase, age_s=age_s, online_at=None, offline_at=NOW - 9, whole=False,
        busy_session="s0",
    )  # fmt: skip
    (instance,) = scene.instances[B]
    scene.instances[B] = [attrs.evolve(instance, **told)]
    if waits:
        scene.wait(worlds.item(1, "linux"))
    return scene, name


def key():
    return ledgers.key_of(model.Scope.TEMPLATE, B, "linux")


def looked_again(scene, made, **told):
    """Return the plan of the next look, at which this is told of the instance."""
    scene.ledger = made.ledger
    scene.now += 1.0
    scene.instances[B] = [attrs.evolve(one, **told) for one in scene.instances[B]]
    return scene.plan()


@pytest.mark.parametrize(
    ("phase", "action"),
    [
        (Phase.IDLE, model.CordonAgent),
        (Phase.BUSY, model.CordonAgent),
        (Phase.CONNECTING, model.RetireAgent),
    ],
)
def test_an_agent_of_which_a_part_is_missing_takes_no_more(phase, action):
    """It goes, with the words, and its template is set aside, as after any bad start."""
    scene, name = scene_of(phase, flaw=FLAW)
    made = scene.plan()
    (done,) = made.actions
    assert (action, name, model.Cause.LOST_IMAGE) == (type(done), done.name, done.cause)
    assert "container maven" in done.reason
    backoff = made.ledger.backoffs[key()]
    assert (model.Cause.LOST_IMAGE, 1) == (backoff.cause, backoff.failures)
    assert "container maven" in backoff.reason
    again = looked_again(scene, made)
    assert 1 == again.ledger.backoffs[key()].failures, "it is counted once"


def test_an_agent_that_is_online_before_all_of_it_runs_has_not_started_well():
    """It is waited for, and only then a failure before is forgotten."""
    starting = backends_api.InstanceState.STARTING
    scene, name = scene_of(Phase.IDLE, state=starting, detail="container maven is being made")
    scene.backoff(model.Scope.TEMPLATE, "linux", cause=model.Cause.LOST_IMAGE, for_s=-1.0)
    made = scene.plan()
    (unmet,) = made.unmet
    assert (model.WaitReason.AGENT_STARTING, name) == (unmet.reason, unmet.agent)
    assert "container maven is being made" in unmet.text
    assert key() in made.ledger.backoffs
    running = backends_api.InstanceState.RUNNING
    made = looked_again(scene, made, state=running, detail="")
    assert key() not in made.ledger.backoffs
    assert model.WaitReason.AGENT_IDLE is made.unmet[0].reason


def test_one_that_was_whole_once_costs_its_template_nothing():
    """A build may break what it works with; the agent goes all the same."""
    scene, name = scene_of(Phase.BUSY, waits=False)
    made = scene.plan()
    again = looked_again(scene, made, flaw=attrs.evolve(FLAW, slug="exited"))
    assert [(name, model.Cause.LOST_EXITED)] == [(a.name, a.cause) for a in again.actions]
    assert {} == again.ledger.backoffs


@pytest.mark.parametrize(
    ("phase", "action"),
    [
        (Phase.IDLE, model.CordonAgent),
        (Phase.BUSY, model.CordonAgent),
        (Phase.CONNECTING, model.RetireAgent),
    ],
)
def test_an_agent_whose_end_is_announced_takes_no_more(phase, action):
    """Its build is the last one; its item is served by another, and nothing failed."""
    scene, name = scene_of(phase, ends_because="its node n1 is drained")
    made = scene.plan()
    (done,) = [a for a in made.actions if not isinstance(a, model.LaunchAgent)]
    assert (action, name, model.Cause.ANNOUNCED) == (type(done), done.name, done.cause)
    assert "its node n1 is drained" in done.reason
    assert 1 == sum(isinstance(a, model.LaunchAgent) for a in made.actions)
    assert {} == made.ledger.backoffs


def test_whom_a_resumed_pipeline_must_go_on_with_is_left_in_service():
    """No other agent can serve it."""
    scene, name = scene_of(
        Phase.IDLE, waits=False, age_s=600.0, ends_because="its node is drained"
    )
    pipeline = {"task_class": "x.ExecutorStepExecution$PlaceholderTask", "exports_label": False}
    scene.ledger = attrs.evolve(scene.ledger, session_at=NOW - 60)
    scene.wait(worlds.item(1, why=f"‘{name}’ is offline", **pipeline))
    assert not [a for a in scene.plan().actions if a.name == name]
