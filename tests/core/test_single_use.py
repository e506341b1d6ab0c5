"""Who may be given a second build, and who may have had one that nobody saw."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import latency, single_use
from broker.core.fleet import ledger as ledgers
from broker.core.model import ItemId, Phase, WaitReason
from tests.core.worlds import NOW, Scene, actions, item, launches, reasons, template

ONCE = model.Retention(once=True)


def scene_of(**more):
    return Scene(template("t", retention=ONCE, **more))


def vanished(number=1, looked_at=NOW):
    return latency.Vanished(
        item=ItemId(number), template="t", ready_at=NOW - 9, gone_at=NOW, looked_at=looked_at
    )


URL = "http://c/job/x/7/"


def attributed(scene, built_on="", **more):
    made = scene.plan()
    return single_use.attribute(
        made.ledger,
        made.agents,
        scene.policy,
        vanished(**more),
        executable_url=URL,
        built_on=built_on,
    )


def counted(ledger):
    return {name: (m.builds, m.unseen, m.untold) for name, m in ledger.memories.items()}


# --- who is worth a glance ---


@pytest.mark.parametrize(
    ("phase", "more", "is_at_risk"),
    [
        (Phase.IDLE, {}, True),
        (Phase.IDLE, {"builds": 1}, False),
        (Phase.BUSY, {}, False),
        (Phase.CONNECTING, {"age_s": 200.0, "phase_at": NOW - 59}, True),  # its instance runs
        (Phase.CONNECTING, {"age_s": 200.0, "phase_at": NOW - 60}, False),  # it does not come
        (Phase.CONNECTING, {"age_s": 300.0, "online_at": NOW - 99}, False),  # it is coming back
        (Phase.DRAINED, {}, False),
    ],
)
def test_who_may_be_given_its_first_build_before_the_next_look(phase, more, is_at_risk):
    scene = scene_of()
    name = scene.agent("t", phase, **more)
    scene.wait(item(1, "t"))
    made = scene.plan()
    assert single_use.at_risk(made, scene.policy, now=NOW) == ({name} if is_at_risk else set())


@pytest.mark.parametrize(("age_s", "is_at_risk"), [(9.0, True), (10.0, False)])
def test_an_instance_that_does_not_run_yet_may_come_within_seconds_of_its_order(age_s, is_at_risk):
    scene = scene_of()
    scene.agent("t", Phase.CONNECTING, age_s=age_s)
    (local,) = scene.instances.values()
    local[0] = attrs.evolve(local[0], state=backends_api.InstanceState.STARTING)
    scene.wait(item(1, "t"))
    assert bool(single_use.at_risk(scene.plan(), scene.policy, now=NOW)) == is_at_risk


def test_nobody_is_at_risk_while_nothing_waits_for_it_or_where_many_builds_are_allowed():
    scene = Scene(template("t", retention=ONCE), template("many"))
    scene.agent("t", Phase.IDLE)
    scene.agent("many", Phase.IDLE)
    scene.wait(item(1, "many"))
    assert single_use.at_risk(scene.plan(), scene.policy, now=NOW) == set()


def test_one_that_is_being_removed_is_not_at_risk():
    scene = scene_of()
    scene.agent("t", Phase.IDLE, cordoned=True)
    scene.wait(item(1, "t"))
    assert single_use.at_risk(scene.plan(), scene.policy, now=NOW) == set()


# --- whose build it was ---


def test_a_build_of_which_the_controller_tells_the_node_is_that_agents():
    scene = scene_of()
    one, other = (scene.agent("t", Phase.IDLE) for _ in range(2))
    ledger, name, is_extra = attributed(scene, built_on=one)
    assert (name, is_extra) == (one, False)
    assert counted(ledger) == {one: (1, 0, 0), other: (0, 0, 0)}


def test_a_build_on_another_node_is_nobodys():
    scene = scene_of()
    scene.agent("t", Phase.IDLE)
    ledger, name, is_extra = attributed(scene, built_on="pet")
    assert (name, is_extra) == (None, False)
    assert set(counted(ledger).values()) == {(0, 0, 0)}


def test_a_build_that_only_one_agent_can_have_had_is_that_agents():
    """Who was not online when it was looked, or is of another template, cannot have had it."""
    scene = Scene(template("t", retention=ONCE), template("u", retention=ONCE))
    name = scene.agent("t", Phase.IDLE)
    scene.agent("t", Phase.CONNECTING, age_s=3)
    scene.agent("t", Phase.IDLE, online_at=NOW + 1)
    scene.agent("u", Phase.IDLE)
    ledger, found, _ = attributed(scene)
    assert found == name
    assert sum(builds for builds, _, _ in counted(ledger).values()) == 1


def test_what_several_can_have_had_each_may_have_had():
    scene = scene_of()
    names = [scene.agent("t", Phase.IDLE) for _ in range(3)]
    ledger, name, is_extra = attributed(scene)
    assert (name, is_extra) == (None, False)
    assert counted(ledger) == dict.fromkeys(names, (0, 1, 0))


def test_each_unseen_build_is_supposed_of_another_agent_and_those_beyond_are_extra_ones():
    """Whoever is seen at a build of its own hands on what was supposed of it."""
    scene = scene_of()
    for _ in range(3):
        scene.agent("t", Phase.IDLE)
    extra = []
    for number in range(4):
        scene.ledger, _, is_extra = attributed(scene, number=number)
        extra.append(is_extra)
    assert extra == [False, False, False, True]

    scene = scene_of()
    for _ in range(3):
        scene.agent("t", Phase.IDLE)
    for number in range(2):
        scene.ledger, _, _ = attributed(scene, number=number)
    memories = scene.ledger.memories
    told = []
    for name in sorted(memories, key=lambda one: not memories[one].supposed):
        scene.ledger, _ = single_use.used(scene.ledger, {name}, now=NOW)
        scene.ledger, extra = single_use.settled(scene.ledger, scene.policy)
        told.append(extra)
    assert told == [(), ("t",), ("t",)]  # 3 seen, 2 unseen, 3 agents


def test_a_build_counts_also_of_an_agent_that_is_gone():
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE, builds=1)
    kept = scene.plan().ledger
    scene.ledger = ledgers.forget(kept, {name})
    scene.computers, scene.instances = [], {}
    assert name not in scene.ledger.memories
    ledger, found, _ = attributed(scene, built_on=name)
    assert (found, ledger.departed[name].builds) == (name, 2)
    assert single_use.extra_builds(scene.ledger, ledger, scene.policy) == ("t",)


@pytest.mark.parametrize(("went_at", "unseen"), [(NOW, 0), (NOW - 1, 1)])
def test_a_pipelines_build_may_have_been_of_one_that_has_gone_since(went_at, unseen):
    """But of nobody who was gone when its item was in the queue still."""
    scene = scene_of()
    for _ in range(2):
        scene.agent("t", Phase.IDLE)
    ledger = scene.plan().ledger
    gone = attrs.evolve(
        min(ledger.memories.values(), key=id), builds=1, untold=1, phase_at=went_at
    )
    scene.ledger = attrs.evolve(ledger, departed={"gone": gone})
    ledger, _, is_extra = attributed(scene)
    assert {memory.unseen for memory in ledger.memories.values()} == {unseen}
    assert ledger.departed["gone"].untold == unseen
    assert not is_extra


def test_one_that_no_look_has_seen_online_had_the_build_that_a_glance_saw():
    """It is taken out of service at once: looks show it as that and nothing else."""
    scene = scene_of()
    name = scene.agent("t", Phase.CONNECTING, age_s=5)
    scene.agent("t", Phase.IDLE)
    scene.ledger, _ = single_use.used(scene.plan().ledger, {name}, now=NOW + 1)
    scene.computers = [
        attrs.evolve(
            c, offline=True, temporarily_offline=True, offline_cause="agent-broker: once: x"
        )
        if c.name == name
        else c
        for c in scene.computers
    ]
    scene.now += 2
    ledger, _, is_extra = attributed(scene)
    assert not is_extra
    assert counted(ledger)[name] == (1, 0, 0)
    assert {unseen for _, unseen, _ in counted(ledger).values()} == {0}


def test_a_build_that_a_look_has_seen_and_no_item_was_found_for_is_the_one_that_is_asked_about():
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE, builds=1)
    scene.agent("t", Phase.IDLE)
    scene.ledger = single_use.unlinked(scene.plan().ledger, [name, "gone"])
    ledger, _, _ = attributed(scene)
    assert counted(ledger)[name] == (1, 0, 0)
    assert counted(ledger) == counted(single_use.linked(scene.ledger, name))
    assert counted(single_use.linked(ledger, name)) == counted(ledger)


@pytest.mark.parametrize("is_asked_first", [True, False])
def test_a_build_that_is_asked_about_and_seen_counts_once(is_asked_first):
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE)
    if is_asked_first:
        scene.ledger = attributed(scene, built_on=name)[0]
    scene.computers = [
        attrs.evolve(c, idle=False, busy_executors=1, executable_urls=(URL,))
        for c in scene.computers
    ]
    scene.now += 1
    scene.ledger = attributed(scene, built_on=name)[0]
    scene.now += 1
    assert scene.plan().ledger.memories[name].builds == 1


def test_where_all_have_had_theirs_it_was_an_extra_build():
    scene = scene_of()
    names = [scene.agent("t", Phase.IDLE, builds=1) for _ in range(2)]
    ledger, name, is_extra = attributed(scene)
    assert (name, is_extra) == (None, True)
    assert counted(ledger) == dict.fromkeys(names, (1, 0, 0))


@pytest.mark.parametrize("others", [0, 1])
def test_a_build_that_was_seen_without_its_name_is_the_one_that_is_named_later(others):
    """It is not counted twice."""
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE, builds=1, untold=1)
    for _ in range(others):
        scene.agent("t", Phase.IDLE)
    ledger, _, is_extra = attributed(scene)
    assert not is_extra
    assert counted(ledger)[name] == (1, 0, 0)
    assert {unseen for _, unseen, _ in counted(ledger).values()} == {0}


def test_a_build_of_agents_for_many_builds_is_not_guessed_at():
    scene = Scene(template("t"))
    scene.agent("t", Phase.IDLE)
    ledger, name, is_extra = attributed(scene)
    assert (name, is_extra) == (None, False)
    assert set(counted(ledger).values()) == {(0, 0, 0)}


# --- how builds are counted over looks ---


def test_a_glance_and_the_look_that_names_the_build_are_one_build():
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE)
    scene.ledger, fresh = single_use.used(scene.plan().ledger, {name, "gone"}, now=NOW)
    assert fresh == (name,)
    assert single_use.used(scene.ledger, {name}, now=NOW)[1] == ()
    scene.computers = [
        attrs.evolve(c, idle=False, busy_executors=1, executable_urls=("http://c/job/x/7/",))
        for c in scene.computers
    ]
    scene.now = NOW + 1
    assert counted(scene.plan().ledger)[name] == (1, 0, 0)


def test_a_build_that_ends_before_a_look_names_it_stays_without_a_name():
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE)
    scene.ledger, _ = single_use.used(scene.plan().ledger, {name}, now=NOW)
    scene.now = NOW + 1
    assert counted(scene.plan().ledger)[name] == (1, 0, 1)


def test_each_build_after_the_first_is_an_extra_one():
    scene = Scene(template("t", retention=ONCE), template("many"))
    once, many = scene.agent("t", Phase.IDLE), scene.agent("many", Phase.IDLE)
    before = scene.plan().ledger

    def after(builds):
        memories = {
            name: attrs.evolve(before.memories[name], builds=builds) for name in (once, many)
        }
        return attrs.evolve(before, memories=memories)

    told = [single_use.extra_builds(before, after(n), scene.policy) for n in range(4)]
    assert [(), (), ("t",), ("t", "t")] == told
    assert single_use.extra_builds(after(2), after(3), scene.policy) == ("t",)


# --- what it was started for ---


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"item": ItemId(7)}, True),
        ({"item": ItemId(7), "item_asked": True}, False),
        ({"item": ItemId(1)}, False),  # it waits still
        ({"item": ItemId(7), "builds": 1}, False),
        ({}, False),
    ],
)
def test_what_became_of_the_item_that_it_was_started_for_is_asked_once(more, asked):
    scene = scene_of()
    scene.agent("t", Phase.IDLE, **more)
    scene.wait(item(1, "t"))
    world, made = scene.world(), scene.plan()
    questions = single_use.unasked(made, scene.policy, world.controller)
    assert [question.item for question in questions] == ([7] if asked else [])
    ledger = single_use.asked(made.ledger, [question.item for question in questions])
    again = attrs.evolve(scene.world(), ledger=ledger)
    assert all(
        m.item_asked == (asked or "item_asked" in more) for m in again.ledger.memories.values()
    )


# --- what follows ---


@pytest.mark.parametrize(
    ("remembered", "cause", "words"),
    [
        ({"builds": 1}, "once", "it has had its build"),
        (
            {"unseen": 2},
            "once-unwitnessed",
            "builds were too short to be seen, and it may have had them",
        ),
    ],
)
def test_whoever_has_had_its_build_is_out_of_service_at_once_though_items_want_it(
    remembered, cause, words
):
    """It serves nobody, and what waits is ordered another agent."""
    scene = scene_of(cap=2)
    name = scene.agent("t", Phase.IDLE, **remembered)
    scene.wait(item(1, "t"))
    made = scene.plan()
    cordon = actions(made, model.CordonAgent)[name]
    assert (cordon.cause.slug, cordon.idle) == (cause, True)
    assert cordon.reason == f"single use: {words}"
    assert launches(made) == {"t": 1}
    assert reasons(made) == {1: WaitReason.AGENT_ORDERED}


def test_one_build_that_it_may_have_had_is_no_reason_to_go():
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE, unseen=1)
    scene.wait(item(1, "t"))
    made = scene.plan()
    assert made.actions == ()
    assert made.unmet[0].agent == name


def test_who_is_asked_for_by_name_is_kept_for_that():
    """A Pipeline that goes on must go on there."""
    scene = scene_of()
    name = scene.agent("t", Phase.IDLE, builds=1)
    scene.wait(item(1, why=f"Must run on {name} not somewhere", exports_label=False))
    assert scene.plan().actions == ()


@pytest.mark.parametrize("label", ["t", "o-t-a1"])
@pytest.mark.parametrize("remembered", [{"builds": 1}, {"unseen": 2}, {"known": False}])
def test_who_is_asked_for_by_name_is_kept_for_that_whoever_else_waits(label, remembered):
    """Out of service for an item that came first it would be brought back with the next look."""
    scene = scene_of(cap=2)
    name = scene.agent("t", Phase.IDLE, **remembered)
    scene.wait(item(1, label))
    scene.wait(item(2, name))
    made = scene.plan()
    assert actions(made, model.CordonAgent) == {}
    assert actions(made, model.RetireAgent) == {}
    assert launches(made) == ({"t": 1} if label == "t" else {})
    (told,) = {r.text for r in made.refusals if r.subject == name}
    assert f"stays because item {2 if label == 't' else 1} must go on with it" in told


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.CONNECTING])
@pytest.mark.parametrize(("glanced_at", "ordered"), [(NOW, 0), (NOW - 5, 1)])
def test_a_look_that_began_before_a_glance_shows_the_item_still(phase, glanced_at, ordered):
    """The one that was given it counts in that look, though it is used: nobody is ordered twice."""
    scene = scene_of()
    name = scene.agent("t", phase, age_s=20)
    scene.wait(item(1, "t"))
    scene.ledger, _ = single_use.used(scene.plan().ledger, {name}, now=glanced_at)
    if glanced_at < NOW and phase is Phase.CONNECTING:
        ordered = 0  # nobody has seen it come, and it may yet
    assert len(launches(scene.plan())) == ordered
