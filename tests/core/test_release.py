"""Who died at work, for good, is released: its node goes so that Pipeline's steps end at once."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import judge
from broker.core.model import Phase
from tests.core.worlds import Scene, actions, template
from tests.each import each

KILLED = backends_api.Exit(slug="killed", code=-9, message="killed by SIGKILL")
STATES = backends_api.InstanceState


class Release(Scene):
    """One agent that was at work when it died; the controller could end its steps."""

    def __init__(self, *templates, end=KILLED, **more):
        super().__init__(*(templates or (template("t"),)))
        self.releases = True
        self.name = self.agent("t", Phase.BUSY, exit=end, **more)
        self.change_computer(offline=True, only_steps=True)

    def change_computer(self, **more):
        self.computers = [attrs.evolve(self.computers[0], **more)]

    def change_instance(self, **more):
        (backend,) = self.instances
        self.instances[backend] = [attrs.evolve(self.instances[backend][0], **more)]

    def world(self):
        world = super().world()
        return attrs.evolve(
            world, controller=attrs.evolve(world.controller, releases=self.releases)
        )

    def released(self):
        return actions(self.plan(), model.ReleaseAgent).get(self.name)

    def objection(self, action):
        return judge.objection(action, judge.prepare(self.world(), self.policy))


def test_the_node_of_an_agent_that_died_at_work_goes_at_once():
    """With what it died of; and a second look has nothing against it."""
    scene = Release()
    action = scene.released()
    assert action.cause is model.Cause.LOST_KILLED
    assert "killed by SIGKILL" in action.reason
    assert action.backend == "local"
    assert scene.objection(action) is None
    assert actions(scene.plan(), model.CordonAgent) == {}


def test_whoever_was_to_go_after_this_build_is_released_as_well():
    """Out of service by us, as a single-use agent is while it builds; or marked at an earlier try."""
    scene = Release(cordoned=True)
    assert scene.released() is not None


@each(
    ("end", "state", "spent", "is_gone"),
    [
        (KILLED, STATES.EXITED, False, True),
        (KILLED, STATES.STOPPING, True, True),  # held by a finalizer
        (KILLED, STATES.STOPPING, False, False),  # its grace: its build may end well
        (None, STATES.STOPPING, True, False),  # nobody says what it died of
        (backends_api.Exit(slug="platform-lost"), STATES.EXITED, False, False),  # out of sight
        (backends_api.Exit(slug="platform-lost", code=255), STATES.EXITED, False, True),
        (backends_api.Exit(slug="platform-lost", witnessed=True), STATES.EXITED, False, True),
        (backends_api.Exit(slug="unknown"), STATES.EXITED, False, False),
        (backends_api.Exit(slug="evicted"), STATES.EXITED, False, True),
        (backends_api.Exit(slug="out-of-memory", code=0), STATES.EXITED, False, True),
    ],
)
def test_only_what_cannot_come_back(end, state, spent, is_gone):
    scene = Release()
    scene.change_instance(exit=end, state=state, spent=spent)
    assert (scene.released() is not None) is is_gone


@pytest.mark.parametrize(
    ("change", "is_gone"),
    [
        (lambda s: None, True),
        (lambda s: s.hidden.update(local="a host has not answered yet"), True),  # nor since then
        (lambda s: s.dark_backends.add("local"), False),
        (lambda s: s.change_computer(offline=False), False),  # the better witness
    ],
)
def test_what_somebody_removed_is_gone_for_good(change, is_gone):
    """What a platform has shown and shows no more; what it may only hide is left alone."""
    scene = Release(end=None, instance_seen=True)
    scene.instances = {"local": []}
    change(scene)
    action = scene.released()
    assert (action is not None) is is_gone
    if is_gone:
        assert action.cause is model.Cause.LOST_INSTANCE
        assert scene.objection(action) is None


def test_an_instance_that_was_never_seen_may_yet_show_itself():
    """A listing may lag behind a start."""
    scene = Release(end=None, instance_seen=False)
    scene.instances = {"local": []}
    assert scene.released() is None
    assert actions(scene.plan(), model.CordonAgent) == {}


def hold(scene):
    scene.change_computer(temporarily_offline=True, offline_cause="mine", offline_by="Ann")


def quiet(scene):
    scene.quieting_down = True


def deprive(scene):
    scene.releases = False


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.change_computer(offline=False), "it is online"),
        (lambda s: s.change_computer(only_steps=False), "other things than steps of a Pipeline"),
        (lambda s: s.change_computer(idle=True, busy_executors=0), "it works no more"),
        (lambda s: s.change_instance(exit=None, state=STATES.RUNNING), "may come back"),
        (hold, "somebody holds it"),
        (quiet, "the controller is about to shut down"),
        (deprive, "the controller cannot end its steps"),
    ],
)
def test_what_speaks_against_it_speaks_against_it_at_the_second_look_too(change, why):
    """Otherwise the old way: its build is told what its agent died of, and ends by itself."""
    scene = Release()
    action = scene.released()
    change(scene)
    assert scene.released() is None
    assert why in scene.objection(action)


def test_where_it_cannot_be_released_its_build_is_told_all_the_same():
    scene = Release()
    scene.releases = False
    assert actions(scene.plan(), model.CordonAgent)[scene.name].cause is model.Cause.LOST_KILLED


def test_an_unknown_backend_releases_nobody():
    """What it showed before says nothing of now."""
    scene = Release()
    action = scene.released()
    scene.dark_backends.add("local")
    assert scene.released() is None
    assert scene.objection(action) == "its instance may come back"


def test_the_controller_is_asked_again_soon_while_it_does_not_notice_a_death():
    """Its instance has ended and its node looks online still: that is a matter of moments."""
    scene = Release()
    scene.change_computer(offline=False)
    assert scene.plan().active
    scene.change_instance(exit=None, state=STATES.RUNNING)
    assert not scene.plan().active


def test_its_backend_is_asked_again_soon_when_the_controller_is_the_first_to_notice():
    """A listing may lag behind the end of an instance; nobody tells when it does no more."""
    scene = Release()
    scene.change_instance(exit=None, state=STATES.RUNNING)
    assert scene.plan().active
    scene.change_computer(offline=False)
    assert not scene.plan().active
