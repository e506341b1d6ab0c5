"""What is removed because its life is over, when, and when a person is asked instead."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import judge
from broker.core.model import Phase, Retention
from tests.core.worlds import NOW, B, Scene, actions, item, template, texts
from tests.each import each

PIPELINE = "x.ExecutorStepExecution$PlaceholderTask"
DIED = backends_api.Exit(slug="out-of-memory", code=-9, message="limit 1 GiB")


def resumed(name, number=1):
    """An item of a pipeline that must go on with this node after a restart."""
    return item(number, why=f"‘{name}’ is offline", exports_label=False, task_class=PIPELINE)


@each("phase", [Phase.ORPHAN, Phase.LOST])
@each(
    ("sightings", "for_s", "goes"),
    [(0, 0.0, False), (0, 99.0, False), (1, 29.0, False), (1, 30.0, True), (5, 31.0, True)],
)
def test_left_overs_go_at_the_second_sighting_and_after_a_grace(phase, sightings, for_s, goes):
    """One look may be stale, and a short while may be a launch that is not finished."""
    scene = Scene(template("t"))
    name = scene.agent("t", phase, orphan_sightings=sightings,
                       orphan_at=NOW - for_s if sightings else None)  # fmt: skip
    kind = model.SweepInstance if phase is Phase.ORPHAN else model.SweepNode
    made = scene.plan()
    assert ({name} if goes else set()) == set(actions(made, kind))
    if not goes and sightings:
        assert NOW - for_s + scene.policy.orphan_grace_s == made.wake_at


def test_a_dead_instance_goes_at_once_with_its_node():
    """An exit is no matter of sightings."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.LOST, exit=DIED, age_s=5)
    (action,) = scene.plan().actions
    assert (name, "lost-out-of-memory") == (action.name, action.cause.slug)
    assert "limit 1 GiB" in action.reason


def test_an_ended_instance_without_a_node_goes_at_once():
    """Its metadata is all that is left of it."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.LOST, exit=DIED)
    scene.computers.clear()
    assert {name} == set(actions(scene.plan(), model.SweepInstance))


def test_any_number_of_dead_instances_is_plausible():
    """Each of them has said itself that it ended."""
    scene = Scene(template("t"), sweep_floor=0, sweep_share=0.0)
    names = {scene.agent("t", Phase.LOST, exit=DIED) for _ in range(3)}
    assert names == set(actions(scene.plan(), model.RetireAgent))


def test_a_node_of_a_template_that_is_gone_is_doubted_as_others_are():
    """Nobody can tell how long such an agent may take to come."""
    scene = Scene(template("t"), sweep_floor=0, sweep_share=0.0)
    scene.agent("gone", Phase.LOST, orphan_sightings=5, orphan_at=NOW - 1000)
    scene.computers = [attrs.evolve(c, offline_cause="") for c in scene.computers]
    made = scene.plan()
    assert (made.actions, [r.implausible for r in made.refusals]) == ((), [True])


def test_one_that_is_being_removed_hides_no_other():
    """It is not asked for again, and the next one is."""
    scene = Scene(template("t"))
    first, second = (scene.agent("t", Phase.LOST, exit=DIED, age_s=900 - n) for n in range(2))
    asked = model.Expectation(
        name=first,
        verb=model.Verb.RETIRE,
        since_at=NOW - 1,
        expires_at=NOW + 60,
        template="t",
        backend=B,
    )
    scene.ledger = attrs.evolve(scene.ledger, expectations={first: asked})
    assert [second] == [a.name for a in scene.plan().actions]


def test_a_removal_that_is_held_up_is_named_and_not_asked_for_again():
    """As a pod that a finalizer keeps; one that may not be removed is tried again."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.LOST, exit=DIED)
    scene.computers.clear()
    (instance,) = scene.instances[B]
    held = attrs.evolve(instance, detail="held by x", spent=True, leaving_at=NOW - 46)
    scene.instances[B] = [attrs.evolve(held, state=backends_api.InstanceState.STOPPING)]
    made = scene.plan()
    assert (made.actions, made.active) == ((), False)
    assert [(name, "leaving for 46 s: held by x")] == [(r.subject, r.text) for r in made.refusals]
    scene.instances[B] = [held]
    assert {name} == set(actions(scene.plan(), model.SweepInstance))


@each("phase", [Phase.LOST, Phase.DRAINED])
@each(
    ("since_start_s", "seen", "goes"),
    [
        (10.0, {}, False),
        (29.0, {}, False),
        (30.0, {}, True),
        (10.0, {"busy_session": "s1"}, True),
        (10.0, {"first_seen_at": NOW - 5.0}, True),
    ],
)
def test_after_a_start_pipelines_are_given_time(phase, since_start_s, seen, goes):
    """But not those agents that worked, or began, since that start."""
    scene = Scene(template("t"))
    remembered = {"busy_session": "s0", "first_seen_at": NOW - 600.0, **seen}
    scene.agent("t", phase, exit=DIED if phase is Phase.LOST else None, **remembered)
    scene.ledger = attrs.evolve(scene.ledger, session_at=NOW - since_start_s)
    made = scene.plan()
    assert goes is bool(made.actions)
    if not goes:
        assert "start" in texts(made)


def test_a_start_that_is_still_to_come_counts_as_now():
    """The clock was ahead when an earlier broker wrote it: nothing may rest until that time."""
    scene = Scene(template("t"))
    scene.agent("t", Phase.IDLE)
    scene.ledger = attrs.evolve(scene.ledger, session_at=NOW + 3600)
    assert scene.plan().ledger.session_at == NOW


@pytest.mark.parametrize(
    ("count", "total", "refused"), [(10, 10, False), (11, 22, False), (11, 21, True)]
)
def test_the_brake(count, total, refused):
    """More than the floor and more than the share: nothing is swept, a person is asked."""
    scene = Scene(template("t", retention=Retention(idle_s=None)))
    for _ in range(count):
        scene.agent("t", Phase.ORPHAN, orphan_sightings=5, orphan_at=NOW - 99)
    for _ in range(total - count):
        scene.agent("t", Phase.IDLE)
    made = scene.plan()
    assert (0 if refused else count) == len(actions(made, model.SweepInstance))
    assert refused is ("implausible" in texts(made))


@pytest.mark.parametrize(
    ("age_s", "seen", "cause", "swept"),
    [(60.0, {}, "", True), (600.0, {}, "", False), (60.0, {"instance_seen": True}, "", False),
     (60.0, {"online_at": NOW - 50}, "", False), (60.0, {}, "Connection was broken", False)],
)  # fmt: skip
def test_what_a_killed_broker_left_in_the_midst_of_launches_is_no_mass_deletion(
    age_s, seen, cause, swept
):
    """Nodes that never had an instance and never were online; all others may be a mistake."""
    scene = Scene(template("t", connect_deadline_s=300.0))
    for _ in range(20):
        scene.agent(
            "t", Phase.LOST, age_s=age_s, orphan_sightings=5, orphan_at=NOW - 99,
            busy_session="", first_seen_at=NOW - age_s, **seen,
        )  # fmt: skip
    scene.computers = [attrs.evolve(c, offline_cause=cause) for c in scene.computers]
    made = scene.plan()
    assert (20 if swept else 0) == len(actions(made, model.SweepNode))
    assert swept is not ("implausible" in texts(made))


def test_the_brake_holds_only_what_is_doubtful():
    """What was drained by us, or has ended, goes on going."""
    scene = Scene(template("t"))
    for _ in range(20):
        scene.agent("t", Phase.ORPHAN, orphan_sightings=5, orphan_at=NOW - 99)
    drained = scene.agent("t", Phase.DRAINED)
    assert {drained} == {a.name for a in scene.plan().actions}


def test_held_nodes_are_left_to_those_who_hold_them():
    """Somebody looks into it: neither age nor idleness counts."""
    scene = Scene(template("t", retention=Retention(idle_s=1.0, max_age_s=1.0)))
    scene.agent("t", Phase.HELD)
    assert scene.plan().actions == ()


@pytest.mark.parametrize("worked", [False, True])
def test_only_who_waits_for_its_own_node_gets_it_back(worked):
    """A node that worked in this session of the controller is named by any item of its label."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED, busy_session="s1" if worked else "s0", age_s=7200)
    scene.wait(resumed(name))
    kind = model.RetireAgent if worked else model.UncordonAgent
    assert {name} == set(actions(scene.plan(), kind))


def test_an_agent_of_this_session_has_nothing_to_go_on_with():
    """A new pipeline shows the same text while our new node is the only one of its label."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.CONNECTING, age_s=5, busy_session="")
    scene.wait(resumed(name, 1), resumed(name, 2))
    made = scene.plan()
    assert 1 == len(actions(made, model.LaunchAgent))


# --- the second judgement ---


def objection(scene, action):
    return judge.objection(action, judge.prepare(scene.world(), scene.policy))


def retire(name, slug="idle", **more):
    return model.RetireAgent(name=name, backend=B, reason="r", cause=model.Cause(slug), **more)


@pytest.mark.parametrize(
    ("phase", "slug", "words"),
    [
        (Phase.IDLE, "idle", None),
        (Phase.IDLE, "lost-exited", "it came online after all"),
        (Phase.IDLE, "connect-timeout", "it came online after all"),
        (Phase.BUSY, "idle", "it works"),
        (Phase.LOST, "lost-exited", None),
        (Phase.CONNECTING, "connect-timeout", None),
    ],
)
def test_a_fresh_look_may_object(phase, slug, words):
    """Between a plan and its execution anything may have happened."""
    scene = Scene(template("t"))
    name = scene.agent("t", phase)
    assert words == objection(scene, retire(name, slug))


def test_an_item_that_came_in_between_keeps_the_agent():
    """By its label; another label does not."""
    scene = Scene(template("t"), template("u"))
    name = scene.agent("t", Phase.IDLE)
    scene.wait(item(7, "u"))
    assert objection(scene, retire(name)) is None
    scene.wait(item(8, "t"))
    assert "item 8 could want it" == objection(scene, retire(name))


def test_a_drained_agent_goes_unless_it_is_back_or_asked_for():
    """Out of service nothing can be lost, but for a pipeline that resumes."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    scene.wait(item(8, "t"))
    assert objection(scene, retire(name, cordoned=True)) is None
    scene.wait(resumed(name, 9))
    assert "item 9 must go on with it" == objection(scene, retire(name, cordoned=True))
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    assert "it is back online" == objection(scene, retire(name, cordoned=True))
    assert "it is back online" == objection(scene, model.SweepNode(name=name, reason="r"))


def test_a_controller_that_does_not_answer_stops_every_removal():
    """I3, in the last moment too; a name that nobody knows may go."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    assert objection(scene, retire(model.NodeName("o-t-gone"))) is None
    scene.synced = False
    assert "the controller does not answer" == objection(scene, retire(name))


def test_whoever_dies_in_its_last_build_died_of_that():
    """Single use, and killed for memory while it built: that is why it goes, not its single use."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED, exit=DIED)
    action = actions(scene.plan(), model.RetireAgent)[name]
    assert action.cause is model.Cause.LOST_MEMORY
    assert "limit 1 GiB" in action.reason


@pytest.mark.parametrize(
    ("end", "removals"),
    [
        (backends_api.Exit(slug="exited", code=0), 0),  # its program is made to end so
        (DIED, 1),  # we have begun to remove it
    ],
)
def test_an_end_that_was_planned_keeps_its_cause(end, removals):
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED, exit=end, removals=removals)
    assert actions(scene.plan(), model.RetireAgent)[name].cause is model.Cause.ONCE


@pytest.mark.parametrize("was_there", [True, False])
def test_an_instance_that_vanished_is_a_death_and_a_crumb_of_a_crash_is_none(was_there):
    scene = Scene(template("t"))
    seen = {"orphan_sightings": 3, "orphan_at": NOW - 99, "instance_seen": was_there}
    name = scene.agent("t", Phase.LOST, **seen)
    cause = actions(scene.plan(), model.SweepNode)[name].cause
    assert cause is (model.Cause.LOST_INSTANCE if was_there else model.Cause.SWEPT)
