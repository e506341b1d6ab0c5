"""Agents, joined: what is remembered of one, and what is concluded from how it came and went."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import agents as agents_
from broker.core.fleet import ledger as ledgers
from broker.core.model import BackendName, NodeName, Phase, Retention, Scope
from tests.core.worlds import NOW, B, Scene, actions, item, launches, reasons, template

ONCE = template("t", retention=Retention(once=True))


def see(scene, *, after_s=1.0, takes_work=None):
    """Take one look; the scene remembers it."""
    world = scene.world()
    view = attrs.evolve(world.controller, takes_work=takes_work or {})
    world = attrs.evolve(world, controller=view)
    found, scene.ledger, illegal = agents_.observe(world, scene.policy)
    assert illegal == ()
    scene.now += after_s
    return {a.name: a for a in found}


def memory_of(scene, name):
    return scene.ledger.memories[name]


def ordered(scene, name):
    """Write the expectation of a launch, as the loop does before it begins."""
    action = model.LaunchAgent(name=name, template="t", backend=B, reason="r")
    scene.ledger = ledgers.expect(scene.ledger, action, now=scene.now, policy=scene.policy)


def test_an_agent_that_is_online_at_its_first_look_is_ours_from_the_start():
    """A start faster than a cycle: nobody else can have used it, its template has proved itself."""
    scene = Scene(ONCE)
    scene.backoff(Scope.TEMPLATE, "t", cause=model.Cause("lost-exited"), failures=3)
    name = scene.agent("t", Phase.IDLE, known=False, age_s=0)
    ordered(scene, name)
    see(scene)
    assert memory_of(scene, name).online_witnessed
    assert scene.ledger.backoffs == {}
    assert scene.plan().actions == ()


def test_an_agent_that_was_online_before_us_is_not():
    """After a restart of the broker it may have had any number of builds."""
    scene = Scene(ONCE)
    name = scene.agent("t", Phase.IDLE, known=False)
    see(scene)
    assert not memory_of(scene, name).online_witnessed


def runs(scene, name, *urls, busy=None):
    scene.computers = [
        attrs.evolve(
            c, idle=not (urls or busy), busy_executors=busy or len(urls), executable_urls=urls
        )
        for c in scene.computers
    ]
    see(scene)
    return memory_of(scene, name).builds


def test_builds_are_counted_by_their_urls():
    """The same build seen twice is one; two at once are two; an idle look ends them."""
    scene = Scene(template("t", executors=2))
    name = scene.agent("t", Phase.IDLE)
    counted = [
        runs(scene, name, "a/1"),
        runs(scene, name, "a/1"),
        runs(scene, name, "a/1", "b/7"),
        runs(scene, name, "b/7", "c/1"),
        runs(scene, name),
        runs(scene, name, "c/2"),
    ]
    assert [1, 1, 2, 3, 3, 4] == counted


@pytest.mark.parametrize("gone", [{}, {"temporarily_offline": True, "offline_cause": "mine"}])
def test_a_pipeline_that_goes_on_after_its_agent_was_away_is_the_same_build(gone):
    """As after each restart of the controller; and what comes next is another one."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    assert runs(scene, name, "a/1") == 1
    scene.computers = [attrs.evolve(scene.computers[0], offline=True, idle=True, **gone)]
    assert runs(scene, name) == 1
    scene.computers = [
        attrs.evolve(
            scene.computers[0], offline=False, temporarily_offline=False, offline_cause=""
        )
    ]
    assert [1, 1, 2] == [runs(scene, name, "a/1"), runs(scene, name), runs(scene, name, "a/1")]


def test_builds_without_a_url_are_counted_by_executors():
    """The broker's user may not see the job: null, but busy."""
    scene = Scene(template("t", executors=2))
    name = scene.agent("t", Phase.IDLE)
    counted = [
        runs(scene, name, busy=1),
        runs(scene, name, busy=1),
        runs(scene, name, busy=2),
        runs(scene, name),
        runs(scene, name, busy=1),
    ]
    assert [0, 1, 1, 2, 2] == counted


def test_a_build_that_shows_its_url_a_moment_later_is_one_build():
    """An executor is busy before its thread has started."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    assert [0, 1] == [runs(scene, name, busy=1), runs(scene, name, "a/1")]


def test_an_item_on_its_way_is_not_turned_back():
    """Out of service before the build has started means that it never does."""
    scene = Scene(ONCE)
    name = scene.agent("t", Phase.IDLE)
    runs(scene, name, busy=1)
    assert scene.plan().actions != ()  # the second look at the same: its URL is hidden, it runs
    scene = Scene(ONCE)
    name = scene.agent("t", Phase.IDLE)
    scene.computers = [attrs.evolve(c, idle=False, busy_executors=1) for c in scene.computers]
    assert scene.plan().actions == ()


@pytest.mark.parametrize("cause", ["lunch", "agent-broker: drain: x"])
def test_out_of_service_is_no_proof_of_a_connection(cause):
    """A node that somebody takes offline while its agent starts has not come online."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.CONNECTING, age_s=5)
    scene.backoff(Scope.TEMPLATE, "t", cause=model.Cause("lost-exited"))
    scene.computers = [
        attrs.evolve(c, offline=True, temporarily_offline=True, offline_cause=cause)
        for c in scene.computers
    ]
    see(scene)
    assert memory_of(scene, name).online_at is None
    assert len(scene.ledger.backoffs) == 1


def test_a_failed_start_is_counted_once():
    """However long the dead one is seen; with what it died of."""
    scene = Scene(template("t"))
    end = backends_api.Exit(slug="out-of-memory", code=-9)
    scene.agent("t", Phase.LOST, exit=end, age_s=5, known=False)
    for _ in range(3):
        see(scene)
    (backoff,) = scene.ledger.backoffs.values()
    assert (1, "lost-out-of-memory") == (backoff.failures, backoff.cause.slug)
    assert "exit code -9) before it came online" in backoff.reason


def test_who_is_closed_before_its_first_build_is_a_failed_start():
    """Else whatever closes every new agent has us make and delete nodes without end."""
    scene = Scene(template("t"))
    pauses = []
    for number in range(4):
        name = scene.agent("t", Phase.CONNECTING, age_s=5)
        see(scene)
        scene.computers = [
            attrs.evolve(c, offline=False, idle=True) if c.name == name else c
            for c in scene.computers
        ]
        for _ in range(4):  # it is found out once, and being online clears nothing
            see(scene, takes_work={name: False})
        (backoff,) = scene.ledger.backoffs.values()
        assert (number + 1, "closed") == (backoff.failures, backoff.cause.slug)
        pauses.append(backoff.until_at - scene.now)
        scene.now = backoff.until_at + 1
    assert pauses == sorted(set(pauses))
    runs(scene, name, "a/1")  # somebody is given work again
    assert scene.ledger.backoffs == {}


def test_who_is_closed_after_a_build_was_a_good_start():
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, builds=1)
    for _ in range(3):
        see(scene, takes_work={name: False})
    assert scene.ledger.backoffs == {}


def test_a_death_after_work_is_no_failed_start():
    """An agent that had been online and dies does not set its template aside."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    see(scene)
    scene.computers = [attrs.evolve(c, offline=True) for c in scene.computers]
    scene.instances[B] = [
        attrs.evolve(
            i,
            state=backends_api.InstanceState.EXITED,
            exit=backends_api.Exit(slug="exited", code=0),
        )
        for i in scene.instances[B]
    ]
    assert Phase.LOST is see(scene)[name].phase
    assert scene.ledger.backoffs == {}


def test_nothing_is_forgotten_of_what_cannot_be_seen():
    """A dark backend: unknown stays unknown, and takes its room."""
    scene = Scene(template("t"), cap=1)
    scene.agent("t", Phase.LOST)
    scene.dark_backends.add(B)
    scene.wait(item(1, "t"))
    for _ in range(3):
        assert [Phase.UNKNOWN] == [a.phase for a in see(scene).values()]
    assert launches(scene.plan()) == {}


def test_an_agent_of_a_removed_backend_is_forgotten_with_its_node():
    """Nobody can be asked about it any more; it must not take room for ever."""
    scene = Scene(template("t"))
    old = BackendName("old")
    name = scene.agent("t", Phase.CONNECTING, backend=old)
    del scene.instances[old]
    assert Phase.UNKNOWN is see(scene)[name].phase
    scene.computers = []
    scene.dark_backends.add(B)
    assert Phase.UNKNOWN is see(scene)[name].phase
    scene.dark_backends.clear()
    assert see(scene) == {}
    assert scene.ledger.memories == {}


def test_a_clock_that_went_back_makes_nobody_younger_than_now():
    """The order's time comes from another life of the broker."""
    scene = Scene(template("t", retention=Retention(max_age_s=100.0)))
    name = scene.agent("t", Phase.IDLE, age_s=-5000, known=False)
    see(scene)
    assert memory_of(scene, name).created_at == NOW


def test_two_sightings_and_a_grace_are_counted_without_a_break():
    """An orphan whose node comes back begins anew."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.ORPHAN, known=False)
    see(scene)
    see(scene)
    assert (2, NOW) == (memory_of(scene, name).orphan_sightings, memory_of(scene, name).orphan_at)
    scene.synced = False
    see(scene)
    assert 0 == memory_of(scene, name).orphan_sightings


def test_the_placeholder_is_no_agent():
    """It carries no template and is never swept."""
    from broker.core.fleet import marks

    scene = Scene(template("t"))
    scene.computers.append(
        model.Computer(
            name=marks.placeholder_name("o"),
            offline=True,
            description=marks.Marks(
                owner="o", template="t", backend=B, revision="r", created_at=0.0
            ).description(),
        )
    )
    assert see(scene) == {}


def test_an_expectation_holds_while_its_source_is_dark():
    """What cannot be seen cannot have become visible."""
    scene = Scene(template("t"))
    name = NodeName("o-t-new")
    ordered(scene, name)
    scene.ledger = ledgers.settle(
        scene.ledger,
        ledgers.Outcome(
            action=model.LaunchAgent(name=name, template="t", backend=B, reason="r"),
            at=scene.now,
        ),
        policy=scene.policy,
        jitter=0.0,
    )
    scene.dark_backends.add(B)
    assert see(scene)[name].in_flight
    assert Phase.UNKNOWN is see(scene)[name].phase


def test_idle_places_are_freed_although_single_use_agents_work():
    """Ten long builds that leave one day do not keep an idle agent of another kind in its place."""
    scene = Scene(template("a"), template("once", retention=Retention(once=True)),
                  template("b"), cap=4)  # fmt: skip
    idle = scene.agent("a", Phase.IDLE)
    for _ in range(3):
        scene.agent("once", Phase.BUSY, builds=1, cordoned=True)
    scene.wait(item(1, "b"))
    assert {idle} == set(actions(scene.plan(), model.RetireAgent))


def test_nobody_starves_behind_a_cap_of_one():
    """The only place changes hands after a while, although both sides always have work."""
    scene = Scene(template("a"), template("b"), cap=1)
    held = scene.agent("a", Phase.BUSY)
    scene.wait(item(1, "b"), item(2, "a"))
    scene.ledger = scene.plan().ledger
    scene.now += scene.policy.yield_after_s
    assert {held} == set(actions(scene.plan(), model.CordonAgent))


def test_nothing_is_started_while_the_controller_shuts_down():
    """Neither for the warm pool nor for what is announced."""
    scene = Scene(template("t", min_idle=2, start_early=True))
    scene.wait(item(1, "t", stage=model.Stage.WAITING, why="In the quiet period"))
    scene.quieting_down = True
    assert scene.plan().actions == ()


def test_a_sealed_node_that_a_pipeline_asks_for_is_unsealed_and_nothing_ordered_instead():
    """No other agent can serve an item that must go on with this one."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, busy_session="s0", age_s=7200)
    scene.computers = [
        attrs.evolve(c, labels=frozenset({model.RETIRED_LABEL, name})) for c in scene.computers
    ]
    scene.wait(
        item(
            1, why=f"Waiting for next available executor on ‘{name}’", exports_label=False,
            task_class="x.ExecutorStepExecution$PlaceholderTask",
        )
    )  # fmt: skip
    made = scene.plan()
    assert [model.UncordonAgent] == [type(a) for a in made.actions]
    assert {1: model.WaitReason.AGENT_BUSY} == reasons(made)


def test_items_with_a_choice_leave_the_scarce_kind_to_the_others():
    """In one cycle: whoever may run elsewhere does, when a cap is short."""
    scene = Scene(template("a", cap=2), template("b"))
    scene.wait(item(1, "a", age_s=9), item(2, "a", age_s=8),
               *(item(n, "a||b", age_s=3) for n in (3, 4)))  # fmt: skip
    assert {"a": 2, "b": 2} == launches(scene.plan())


def test_a_free_slot_of_a_busy_agent_is_used_before_an_idle_agent_that_is_kept_warm():
    """And nothing is ordered in its place."""
    scene = Scene(template("a", min_idle=1, executors=2))
    scene.agent("a", Phase.IDLE)
    scene.agent("a", Phase.BUSY, busy=1)
    scene.wait(item(1, "a"))
    assert scene.plan().actions == ()


def test_the_warm_pool_is_kept_for_those_who_need_it():
    """An item that fits two idle agents takes the one that nobody keeps warm."""
    scene = Scene(template("a", min_idle=1), template("b"))
    scene.agent("a", Phase.IDLE)
    scene.agent("b", Phase.IDLE)
    scene.wait(item(1, "a||b"))
    assert scene.plan().actions == ()


def test_a_changed_definition_waits_until_the_build_has_started():
    """Whatever the reason to take an agent out of service, not between assignment and start."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, revision="r0")
    scene.computers = [attrs.evolve(c, idle=False, busy_executors=1) for c in scene.computers]
    made = scene.plan()
    assert made.actions == ()
    scene.ledger = made.ledger
    assert scene.plan().actions == (), "the same view again is no second look"
    scene.now += 1.0
    assert {name} == set(actions(scene.plan(), model.CordonAgent))


@pytest.mark.parametrize("cordoned", [False, True])
def test_what_was_never_seen_of_a_partly_seen_backend_is_unknown(cordoned):
    """After a restart of ours while one of several machines is down: its agents may be alive."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.LOST, known=False, age_s=5000)
    scene.hidden[B] = "unix:///two does not answer"
    scene.computers = [attrs.evolve(scene.computers[0], temporarily_offline=cordoned)]
    if cordoned:
        cause = f"{model.CORDON_MARK} idle: for too long"
        scene.computers = [attrs.evolve(scene.computers[0], offline_cause=cause)]
    for _ in range(5):
        assert (Phase.UNKNOWN, ()) == (see(scene, after_s=600)[name].phase, scene.plan().actions)
    scene.hidden.clear()
    assert see(scene)[name].phase in {Phase.LOST, Phase.DRAINED}


def test_what_was_seen_of_a_partly_seen_backend_and_is_not_there_is_gone():
    """The backend keeps what it once showed: nothing fills the caps while a machine is down."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, known=False)
    scene.hidden[B] = "unix:///two does not answer"
    assert Phase.IDLE is see(scene)[name].phase
    scene.instances[B].clear()
    scene.computers.clear()
    assert {} == see(scene)
    assert {} == scene.ledger.memories


def test_a_partly_seen_backend_gets_new_agents():
    """Its other machines serve."""
    scene = Scene(template("t"))
    scene.hidden[B] = "unix:///two does not answer"
    scene.wait(item(1, "t"))
    assert 1 == len(actions(scene.plan(), model.LaunchAgent))
