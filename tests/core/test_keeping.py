"""Whose instance is kept for a look after it failed: the node goes, and nothing else changes."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import leftovers
from broker.core.fleet import ledger as ledgers
from broker.core.model import Phase, Retention
from tests.core.test_release import Release
from tests.core.worlds import NOW, B, Scene, actions, item, reasons, template

HOUR_S = 3600.0
KEEPS = Retention(keep_failed_s=HOUR_S)


def _died(ago_s=60.0, slug="exited", code=1):
    return backends_api.Exit(slug=slug, code=code, message="it said so", at=NOW - ago_s)


def _scene(*, retention=KEEPS, **more):
    return Scene(template("t", retention=retention), **more)


def _without_node(scene, **told):
    """Put an agent whose node is gone, and whose instance has ended."""
    name = scene.agent("t", Phase.LOST, exit=_died(**told))
    scene.computers = [one for one in scene.computers if one.name != name]
    return name


def test_the_node_of_one_that_failed_goes_and_its_instance_stays():
    """The build's steps are freed as ever; the reason says until when it is kept."""
    scene = _scene()
    name = scene.agent("t", Phase.LOST, exit=_died())
    (action,) = scene.plan().actions
    assert isinstance(action, model.RetireAgent)
    assert (name, True, model.Cause.LOST_EXITED) == (action.name, action.keeps, action.cause)
    assert "kept for a look until 14:45 UTC" in action.reason
    scene = _scene(retention=Retention())
    scene.agent("t", Phase.LOST, exit=_died())
    assert [False] == [action.keeps for action in scene.plan().actions]


def test_what_is_kept_stays_until_its_time_is_over_and_is_told():
    """By its own clock: whoever restarts goes on with the rest of it."""
    scene = _scene()
    name = _without_node(scene, ago_s=600.0)
    (instance,) = scene.instances[B]
    scene.instances[B] = [attrs.evolve(instance, look="docker logs x")]
    made = scene.plan()
    assert () == made.actions
    assert NOW - 600.0 + HOUR_S == made.wake_at
    assert not made.active
    ((subject, text),) = [(one.subject, one.text) for one in made.refusals]
    assert name == subject
    assert text.startswith("kept for a look until 14:36 UTC: docker logs x; its instance ended")
    scene.now = NOW - 600.0 + HOUR_S
    assert {name} == set(actions(scene.plan(), model.SweepInstance))


def test_its_end_is_told_once():
    """When its node went, if that was our doing."""
    for deleted_at, told in ((NOW - 3500.0, True), (None, False)):
        scene = _scene()
        name = scene.agent("t", Phase.LOST, exit=_died(ago_s=HOUR_S), deleted_at=deleted_at)
        scene.computers.clear()
        assert told is actions(scene.plan(), model.SweepInstance)[name].told
        memory = attrs.evolve(scene.ledger.memories[name], removals=2)  # it did not go at once
        scene.ledger = attrs.evolve(scene.ledger, memories={name: memory})
        assert told is actions(scene.plan(), model.SweepInstance)[name].told


@pytest.mark.parametrize(
    ("told", "keeps"),
    [
        ({}, True),
        ({"slug": "out-of-memory", "code": 137}, True),
        ({"slug": "killed", "code": -9}, True),
        ({"code": 0}, False),
        ({"slug": "platform-lost", "code": None}, False),
        ({"slug": "interrupted", "code": None}, False),
        ({"slug": "image", "code": None}, False),
    ],
)
def test_what_failed_and_left_something(told, keeps):
    """One that ended well has not failed; of one whose host is gone nothing is left."""
    scene = _scene()
    scene.agent("t", Phase.LOST, exit=_died(**told))
    assert [keeps] == [action.keeps for action in scene.plan().actions]


def test_one_that_still_runs_is_ended():
    """It holds memory, and would try to come back."""
    scene = _scene()
    scene.agent("t", Phase.CONNECTING, age_s=9000.0, online_at=None)
    retired = [one for one in scene.plan().actions if isinstance(one, model.RetireAgent)]
    assert [(model.Cause.CONNECT_TIMEOUT, False)] == [(one.cause, one.keeps) for one in retired]


def test_few_of_a_template_are_kept_the_first():
    """A template that fails always must not fill a disk."""
    scene = _scene(retention=attrs.evolve(KEEPS, keep_failed_most=2))
    names = [scene.agent("t", Phase.LOST, exit=_died(ago_s=ago)) for ago in (10, 40, 30, 20)]
    made = actions(scene.plan(), model.RetireAgent)
    assert [False, True, True, False] == [made[name].keeps for name in names]


@pytest.mark.parametrize("at", [None, NOW + 99_999.0])
def test_an_end_without_a_time_counts_from_when_it_was_seen(at):
    """A clock that is ahead keeps nothing for ever."""
    scene = _scene()
    end = attrs.evolve(_died(), at=at)
    name = scene.agent("t", Phase.LOST, exit=end, phase_at=NOW - 100.0)
    scene.computers.clear()
    memory = attrs.evolve(scene.ledger.memories[name], phase=Phase.GONE)
    scene.ledger = attrs.evolve(scene.ledger, memories={name: memory})
    assert NOW - 100.0 + HOUR_S == scene.plan().wake_at
    scene.now = NOW + HOUR_S
    assert {name} == set(actions(scene.plan(), model.SweepInstance))


def test_it_takes_room_of_its_backend_and_none_of_its_template():
    """It has a name and a disk there; builds get another agent all the same."""
    scene = Scene(template("t", retention=KEEPS, cap=1))
    _without_node(scene)
    scene.wait(item(1, "t"))
    assert 1 == len([one for one in scene.plan().actions if isinstance(one, model.LaunchAgent)])
    scene = Scene(template("t", retention=KEEPS), backend=model.BackendPolicy(cap=1))
    _without_node(scene)
    scene.wait(item(1, "t"))
    made = scene.plan()
    assert {1: model.WaitReason.CAP_BACKEND} == reasons(made)
    assert "1 of them kept for a look" in made.unmet[0].text


def test_a_drain_keeps_nothing():
    """Everything goes; so does what a person sweeps with all the rest."""
    scene = _scene(draining=True)
    name = _without_node(scene)
    assert {name} == set(actions(scene.plan(), model.SweepInstance))
    scene = _scene()
    name = _without_node(scene)
    world = scene.world()
    for everything, swept in ((False, set()), (True, {name})):
        planned = leftovers.look(world, scene.policy, everything=everything)
        assert swept == {one.name for one in leftovers.removals(planned)}


def test_what_died_at_work_is_kept_too():
    """Its steps end at once, as ever."""
    scene = Release(template("t", retention=KEEPS), end=_died(slug="out-of-memory", code=137))
    released = scene.released()
    assert released.keeps
    assert "kept for a look" in released.reason


def test_a_removal_that_keeps_is_no_removal_of_the_instance():
    """How it ended is still its own doing."""
    scene = _scene()
    name = scene.agent("t", Phase.LOST, exit=_died())
    (action,) = scene.plan().actions
    ledger = ledgers.expect(scene.plan().ledger, action, now=NOW, policy=scene.policy)
    outcome = ledgers.Outcome(action=action, at=NOW + 1)
    ledger = ledgers.settle(ledger, outcome, policy=scene.policy, jitter=0.5)
    memory = ledger.memories[name]
    assert (0, NOW + 1, None) == (memory.removals, memory.deleted_at, memory.terminated_at)
