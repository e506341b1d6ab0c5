"""Who goes: retention, retirement and its protections, yielding, sweeps."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import judge
from broker.core.fleet import ledger as ledgers
from broker.core.model import Phase, Retention, Stage, WaitReason
from tests.core.worlds import NOW, B, Scene, actions, item, launches, reasons, template, texts
from tests.each import each

IDLE_600 = Retention(idle_s=600)


def retired(made):
    return {a.cause.slug for a in made.actions if isinstance(a, model.RetireAgent)}


def cordoned(made):
    return {a.cause.slug for a in made.actions if isinstance(a, model.CordonAgent)}


@each(
    ("retention", "seen", "slug"),
    [
        (IDLE_600, {"idle_s": 601}, {"idle"}),
        (IDLE_600, {"idle_s": 599}, set()),
        (Retention(idle_s=None), {"idle_s": 1e6}, set()),
        (Retention(once=True), {"builds": 1}, {"once"}),
        (Retention(once=True), {"builds": 0}, set()),
        (Retention(once=True), {"online_witnessed": False}, {"once-unwitnessed"}),
        (Retention(max_builds=3), {"builds": 3}, {"max-builds"}),
        (Retention(max_builds=3), {"builds": 2}, set()),
        (Retention(max_age_s=500), {"age_s": 501}, {"max-age"}),
        (Retention(), {"revision": "r0"}, {"drift"}),
    ],
)
def test_why_an_idle_agent_goes(retention, seen, slug):
    """One row for each rule, on both sides of its limit."""
    scene = Scene(template("t", retention=retention))
    scene.agent("t", Phase.IDLE, **seen)
    assert retired(scene.plan()) == slug


@pytest.mark.parametrize(
    ("retention", "seen", "slug"),
    [
        (Retention(once=True), {"builds": 1}, {"once"}),
        (Retention(max_builds=3), {"builds": 3}, {"max-builds"}),
        (Retention(max_age_s=500), {"age_s": 501}, {"max-age"}),
        (Retention(), {"revision": "r0"}, {"drift"}),
        (Retention(idle_s=1), {}, set()),
    ],
)
def test_a_busy_agent_is_at_most_cordoned(retention, seen, slug):
    """Its present build is its last; it is never retired (I2)."""
    scene = Scene(template("t", retention=retention))
    scene.agent("t", Phase.BUSY, **seen)
    made = scene.plan()
    assert (cordoned(made), retired(made)) == (slug, set())


def test_a_template_that_is_gone_lets_its_agents_go():
    """Removed from the configuration: cordon the busy, retire the idle."""
    scene = Scene(template("t"))
    scene.agent("old", Phase.IDLE)
    scene.agent("old", Phase.BUSY)
    made = scene.plan()
    assert (retired(made), cordoned(made)) == ({"removed"}, {"removed"})


def test_a_template_that_is_gone_takes_no_items_without_a_label():
    """Its agents were for those who ask for them, and are for nobody else now."""
    scene = Scene(template("t", cap=0, exclusive=False, takes_unlabelled=True))
    name = scene.agent("gone", Phase.IDLE)
    scene.wait(item(1))
    assert set(actions(scene.plan(), model.RetireAgent)) == {name}


def test_min_idle_keeps_from_idleness_but_not_from_age():
    """The youngest stay warm, the oldest goes; beyond its age an agent goes and is replaced."""
    scene = Scene(template("t", min_idle=1, retention=Retention(idle_s=10, max_age_s=5000)))
    old = scene.agent("t", Phase.IDLE, age_s=900, idle_s=100)
    scene.agent("t", Phase.IDLE, age_s=800, idle_s=100)
    assert set(actions(scene.plan(), model.RetireAgent)) == {old}
    scene = Scene(template("t", min_idle=1, retention=Retention(max_age_s=500)))
    scene.agent("t", Phase.IDLE, age_s=501)
    made = scene.plan()
    assert retired(made) == {"max-age"}


@pytest.mark.parametrize(
    "waiting",
    [
        item(1, "t"),
        item(1, "t", stage=Stage.WAITING, why="In the quiet period"),
        item(1, "t", stage=Stage.BLOCKED, why="Build #1 is already in progress"),
        item(1, why="Ein anderer Text", exports_label=False, age_s=1.0),
    ],
)
def test_an_idle_agent_stays_while_anybody_could_want_it(waiting):
    """A warm agent too many is cheap, a lost build is not."""
    scene = Scene(template("t", retention=Retention(idle_s=10)), template("other"))
    scene.agent("t", Phase.IDLE, idle_s=1000)
    scene.agent("t", Phase.IDLE, idle_s=1000)
    scene.wait(waiting)
    assert retired(scene.plan()) == set()


def test_an_unreadable_item_protects_only_until_the_controller_had_its_chance():
    """Had it fitted, it would be running there."""
    scene = Scene(template("t", retention=Retention(idle_s=10)))
    scene.agent("t", Phase.IDLE, idle_s=1000)
    scene.wait(item(1, why="Ein anderer Text", exports_label=False, age_s=60.0))
    assert retired(scene.plan()) == {"idle"}


def test_other_labels_do_not_protect():
    """Only who could want it counts."""
    scene = Scene(template("t", retention=Retention(idle_s=10)), template("other"))
    scene.agent("t", Phase.IDLE, idle_s=1000)
    scene.wait(item(1, "other"))
    assert retired(scene.plan()) == {"idle"}


def test_nothing_goes_while_its_backend_is_unknown():
    """I3: a source that does not answer is not an empty one."""
    scene = Scene(template("t", retention=Retention(idle_s=10)))
    scene.agent("t", Phase.IDLE, idle_s=1000)
    scene.dark_backends.add(B)
    made = scene.plan()
    assert made.actions == ()


def test_nothing_idle_goes_while_the_controller_shuts_down():
    """A build may be about to resume after the restart."""
    scene = Scene(template("t", retention=Retention(idle_s=10)))
    scene.agent("t", Phase.IDLE, idle_s=1000)
    scene.quieting_down = True
    assert retired(scene.plan()) == set()


def test_after_a_start_old_agents_rest_until_pipelines_have_asked():
    """Within the grace nothing of before the start goes."""
    scene = Scene(template("t", retention=Retention(idle_s=10)))
    scene.agent("t", Phase.IDLE, idle_s=1000, busy_session="s0")
    scene.ledger = model.Ledger(session="s1", session_at=NOW - 10, memories=scene.ledger.memories)
    assert retired(scene.plan()) == set()
    scene.now += 30
    scene.ledger = model.Ledger(session="s1", session_at=NOW - 10, memories=scene.ledger.memories)
    assert retired(scene.plan()) == {"idle"}


def test_an_online_computer_without_an_instance_is_left_alone():
    """Two witnesses are needed to call an agent dead."""
    scene = Scene(template("t", retention=Retention(idle_s=10)))
    scene.agent("t", Phase.IDLE, idle_s=1000)
    scene.instances[B].clear()
    assert scene.plan().actions == ()


def test_a_node_taken_out_by_somebody_else_is_theirs():
    """Held: no launch counts on it, nobody removes it."""
    scene = Scene(template("t", retention=Retention(idle_s=10, max_age_s=10)))
    scene.agent("t", Phase.HELD)
    assert scene.plan().actions == ()


def test_a_drained_agent_is_removed_with_the_reason_of_its_cordon():
    """The offline message carries the reason over a restart of ours."""
    scene = Scene(template("t"))
    scene.agent("t", Phase.DRAINED, known=False)
    scene.ledger = model.Ledger()  # just started: a pipeline may ask for it
    assert scene.plan().actions == ()
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED)
    (action,) = scene.plan().actions
    assert (action.name, action.cause.slug, action.cordoned) == (name, "once", True)


def test_a_sealed_agent_is_removed_with_the_reason_in_its_labels():
    """Older controllers: it is online, says nothing, and takes nothing."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    labels = frozenset({name, *model.retired_labels(model.Cause.MAX_BUILDS)})
    scene.computers[0] = attrs.evolve(scene.computers[0], labels=labels)
    (action,) = scene.plan().actions
    assert (action.name, action.cause.slug, action.cordoned) == (name, "max-builds", True)
    scene.computers[0] = attrs.evolve(
        scene.computers[0], labels=frozenset({name, model.RETIRED_LABEL})
    )
    (action,) = scene.plan().actions
    assert action.cause.slug == "drained"


def test_a_pipeline_that_asks_for_a_drained_node_gets_it_back():
    """After a restart of the controller it must go on with this very node."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    scene.wait(
        item(
            1,
            why=f"‘{name}’ is offline",
            exports_label=False,
            task_class="x.ExecutorStepExecution$PlaceholderTask",
        )
    )
    assert set(actions(scene.plan(), model.UncordonAgent)) == {name}


def test_a_pipeline_does_not_hold_a_node_whose_instance_has_ended():
    """It could wait for ever; deleting the node is what tells it."""
    scene = Scene(template("maven"))
    died = backends_api.Exit(slug="killed", code=-9)
    name = scene.agent("maven", Phase.LOST, exit=died, busy_session="s0", age_s=7200)
    scene.wait(
        item(
            1,
            why=f"‘{name}’ is offline",
            task_class="org.x.ExecutorStepExecution$PlaceholderTask",
            exports_label=False,
        )
    )
    action = actions(scene.plan(), model.RetireAgent)[name]
    assert judge.objection(action, judge.prepare(scene.world(), scene.policy)) is None


def test_an_agent_that_may_still_come_back_is_kept_for_the_pipeline_that_needs_it():
    """Its instance lives: it may only be slow to find its controller again."""
    scene = Scene(template("maven", connect_deadline_s=30))
    name = scene.agent("maven", Phase.CONNECTING, busy_session="s0", age_s=7200)
    assert list(actions(scene.plan(), model.RetireAgent)) == [name]
    scene.wait(
        item(
            1,
            why=f"‘{name}’ is offline",
            task_class="org.x.ExecutorStepExecution$PlaceholderTask",
            exports_label=False,
        )
    )
    made = scene.plan()
    assert actions(made, model.RetireAgent) == {}
    assert "item 1 must go on with it" in texts(made)


@pytest.mark.parametrize(
    ("age_s", "online_at", "busy_session", "goes"),
    [
        (7200, None, "", True),
        (7200, NOW - 7000, "", False),
        (7200, None, "s0", False),  # it has worked before the controller's start
        (5, None, "", False),  # its deadline is not over
    ],
)
def test_no_pipeline_goes_on_with_an_agent_that_never_came(age_s, online_at, busy_session, goes):
    """A waiting item names the only node of its label: that node alone keeps no other away."""
    scene = Scene(template("maven", connect_deadline_s=30))
    name = scene.agent(
        "maven", Phase.CONNECTING, age_s=age_s, online_at=online_at, busy_session=busy_session
    )
    scene.wait(
        item(
            1,
            why=f"‘{name}’ is offline",
            task_class="org.x.ExecutorStepExecution$PlaceholderTask",
            exports_label=False,
        )
    )
    made = scene.plan()
    assert goes == (name in actions(made, model.RetireAgent)), made
    for action in actions(made, model.RetireAgent).values():
        assert judge.objection(action, judge.prepare(scene.world(), scene.policy)) is None


def test_a_build_is_told_at_once_what_its_agent_died_of():
    """The controller keeps a pipeline's step waiting for minutes; the offline cause says why."""
    scene = Scene(template("maven"))
    name = scene.agent(
        "maven", Phase.BUSY, exit=backends_api.Exit(slug="out-of-memory", message="over 2 GiB")
    )
    assert scene.plan().actions == ()  # still online: two witnesses
    scene.computers[0] = attrs.evolve(scene.computers[0], offline=True)
    cordon = actions(scene.plan(), model.CordonAgent)[name]
    assert cordon.cause.slug == "lost-out-of-memory"
    assert "over 2 GiB" in cordon.reason
    assert not cordon.online


def test_a_dead_instance_is_cleaned_up_and_counted():
    """Lost: it ended before it came online; its template is set aside."""
    scene = Scene(template("t"))
    died = backends_api.Exit(slug="exited", code=1)
    name = scene.agent("t", Phase.LOST, exit=died, age_s=5)
    scene.ledger = model.Ledger(
        session="s1",
        session_at=NOW - 3600,
        memories={name: model.Memory(first_seen_at=NOW - 5, phase=Phase.CONNECTING, template="t")},
    )
    scene.wait(item(1, "t"))
    made = scene.plan()
    (action,) = actions(made, model.RetireAgent).values()
    assert action.cause.slug == "lost-exited"
    assert "exit code 1) before it came online" in action.reason
    assert reasons(made) == {1: WaitReason.SET_ASIDE}


def removed_by_somebody(**more):
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.LOST, age_s=50, exit=backends_api.Exit(slug="unknown"), **more)
    stopping = backends_api.InstanceState.STOPPING
    (instance,) = scene.instances[B]
    shown = attrs.evolve(instance, state=stopping, exit=None, detail="being deleted")
    scene.instances[B] = [shown]
    return scene, name


def test_what_an_instance_died_of_that_somebody_else_removes_is_waited_for():
    """A drained pod is listed as stopping, and only once it is gone as evicted."""
    scene, name = removed_by_somebody(phase_at=NOW - 5)
    made = scene.plan()
    assert made.actions == ()
    assert made.wake_at == NOW - 5 + scene.policy.orphan_grace_s
    gone = {"state": backends_api.InstanceState.EXITED, "exit": backends_api.Exit(slug="evicted")}
    scene.instances[B] = [attrs.evolve(scene.instances[B][0], **gone)]
    assert actions(scene.plan(), model.RetireAgent)[name].cause is model.Cause.LOST_EVICTED


@pytest.mark.parametrize(
    "more", [{"spent": True}, {"exit": backends_api.Exit(slug="evicted")}, {}]
)
def test_an_instance_that_somebody_else_removes_is_no_timeout(more):
    """Nothing is waited for that is told already, that will not come, or for too long."""
    since = NOW - 5 if more else NOW - 60
    scene, name = removed_by_somebody(phase_at=since)
    scene.instances[B] = [attrs.evolve(scene.instances[B][0], **more)]
    action = actions(scene.plan(), model.RetireAgent)[name]
    cause = "lost-evicted" if "exit" in more else "lost-instance"
    assert action.cause.slug == cause
    assert "exit" in more or action.reason == "its instance is being removed (being deleted)"


def test_one_that_does_not_come_online_in_time_is_replaced():
    """The deadline counts from the launch."""
    scene = Scene(template("t", connect_deadline_s=30))
    scene.agent("t", Phase.CONNECTING, age_s=29)
    assert scene.plan().actions == ()
    scene.now += 2
    (action,) = scene.plan().actions
    assert (type(action), action.cause.slug) == (model.RetireAgent, "connect-timeout")


def test_orphans_go_at_the_second_sighting_and_after_a_grace():
    """An instance without a node may be a launch that is not finished."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.ORPHAN, known=False)
    first = scene.plan()
    assert first.actions == ()
    scene.ledger = first.ledger
    scene.now += scene.policy.orphan_grace_s
    assert set(actions(scene.plan(), model.SweepInstance)) == {name}


@pytest.mark.parametrize(
    ("count", "floor", "text"),
    [
        (20, 10, "20 of 20 agents look left over, more than 10 at once"),
        (1, 0, "1 of 1 agent looks left over, more than 0 at once"),
    ],
)
def test_an_implausible_sweep_is_refused(count, floor, text):
    """More than half of everything looks left over: ask a person. The whole refusal."""
    scene = Scene(template("t"), sweep_floor=floor)
    for _ in range(count):
        scene.agent("t", Phase.ORPHAN, orphan_sightings=5, orphan_at=NOW - 1000)
    made = scene.plan()
    assert made.actions == ()
    ask = "check the controller and the backends, then run `agent-broker sweep`"
    expected = model.Refusal(
        subject="sweep", implausible=True, text=f"{text} is implausible: {ask}"
    )
    assert made.refusals == (expected,)


def test_idle_agents_of_another_kind_make_room():
    """A shared cap is not held by those who have nothing to do."""
    scene = Scene(template("a"), template("b"), cap=1)
    name = scene.agent("a", Phase.IDLE)
    scene.wait(item(1, "b"))
    made = scene.plan()
    assert reasons(made) == {1: WaitReason.CAP_TOTAL}
    assert set(actions(made, model.RetireAgent)) == {name}
    assert retired(made) == {"yield"}


def test_a_busy_agent_yields_its_place_after_a_while():
    """No label starves behind another that holds the whole cap."""
    scene = Scene(template("a"), template("b"), cap=2)
    scene.agent("a", Phase.BUSY)
    scene.agent("a", Phase.BUSY)
    scene.wait(item(1, "b"), *(item(n, "a") for n in range(2, 5)))
    first = scene.plan()
    assert (first.actions, first.wake_at) == ((), NOW + scene.policy.yield_after_s)
    scene.ledger = first.ledger
    scene.now += scene.policy.yield_after_s
    assert cordoned(scene.plan()) == {"yield"}


@pytest.mark.parametrize("session", ["s1", "s2"])
def test_who_was_taken_out_of_service_and_is_not_any_more_is_taken_out_again(session):
    """Controllers forget at a reload of their configuration who is temporarily offline."""
    scene = Scene(template("t", retention=model.Retention(once=True)))
    name = scene.agent("t", Phase.BUSY, builds=1)
    action = actions(scene.plan(), model.CordonAgent)[name]
    scene.ledger = ledgers.expect(scene.ledger, action, now=NOW, policy=scene.policy)
    done = ledgers.Outcome(action=action, at=NOW)
    scene.ledger = ledgers.settle(scene.ledger, done, policy=scene.policy, jitter=0.0)
    before = scene.computers
    mark = {"offline": True, "temporarily_offline": True, "offline_cause": "agent-broker: once"}
    scene.computers = [attrs.evolve(computer, **mark) for computer in before]
    made = scene.plan()
    assert made.actions == ()  # it is out of service, and its build goes on
    scene.ledger, scene.computers = made.ledger, before
    scene.ledger = attrs.evolve(scene.ledger, session=session)
    again = actions(scene.plan(), model.CordonAgent)
    assert again[name].cause.slug == "once"


def test_draining_retires_the_idle_and_cordons_the_busy():
    """Nothing is launched any more."""
    scene = Scene(template("t", min_idle=2), draining=True)
    scene.agent("t", Phase.IDLE)
    scene.agent("t", Phase.BUSY)
    made = scene.plan()
    assert (launches(made), retired(made), cordoned(made)) == ({}, {"drain"}, {"drain"})


def test_surplus_over_a_lowered_cap():
    """A cap that was lowered lets idle agents go at once."""
    scene = Scene(template("t", cap=1, retention=Retention(idle_s=None)))
    scene.agent("t", Phase.IDLE, age_s=900)
    scene.agent("t", Phase.IDLE, age_s=800)
    made = scene.plan()
    assert retired(made) == {"surplus"}
    assert len(made.actions) == 1


def test_what_belongs_to_another_owner_is_invisible():
    """I9: only our owner mark counts."""
    from attrs import evolve

    scene = Scene(template("t", retention=Retention(idle_s=10)))
    scene.agent("t", Phase.IDLE, idle_s=1000, known=False)
    scene.computers = [
        evolve(c, description=c.description.replace("owner=o ", "owner=p "))
        for c in scene.computers
    ]
    scene.instances[B] = [
        evolve(i, metadata={**i.metadata, "owner": "p"}) for i in scene.instances[B]
    ]
    made = scene.plan()
    assert (made.agents, made.actions) == ((), ())


def test_an_agent_that_left_nothing_but_a_memory_is_forgotten():
    """It went while no broker watched; a drain must not wait for it."""
    scene = Scene(template("t"))
    gone = model.NodeName("o-t-gone")
    scene.ledger = attrs.evolve(
        scene.ledger, memories={gone: model.Memory(first_seen_at=NOW - 60, online_at=NOW - 50)}
    )
    scene.dark_backends = {B}
    assert [a.name for a in scene.plan().agents] == [gone]
    scene.dark_backends = set()
    made = scene.plan()
    assert made.agents == ()
    assert made.ledger.memories == {}
