"""Removals to the letter: each action and refusal whole, with the words that a person reads."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import draft as drafts
from broker.core.decide import leaving, leftovers, retention
from broker.core.decide import sweep as sweeps
from broker.core.demand import wishes as demand
from broker.core.model import Cause, Phase, Retention, Stage
from tests.core.test_plan_rules import OTHER, drafted, full
from tests.core.worlds import NOW, B, Scene, actions, item, template, texts

PIPELINE = "x.ExecutorStepExecution$PlaceholderTask"
DIED = backends_api.Exit(slug="exited", code=1)
ENDED_WELL = backends_api.Exit(slug="exited", code=0)
ENDED = "its instance ended (exited with exit code 1)"
MAY_GO = retention.Verdict(cause=Cause.IDLE, text="x")


def resumed(name, number=1, **more):
    """An item of a pipeline that must go on with this node after a restart."""
    return item(
        number, why=f"‘{name}’ is offline", exports_label=False, task_class=PIPELINE, **more
    )


def blocked(number, label, **more):
    return item(number, label, stage=Stage.BLOCKED, why="Build #1 is already in progress", **more)


def at(scene, session_at):
    """The scene, its controller started at this time."""
    scene.ledger = attrs.evolve(scene.ledger, session_at=session_at)
    return scene


def let_go(draft, verdict=MAY_GO):
    """Whether the one agent may go by this verdict."""
    return leaving._retire_idle(draft, draft.agents[0], verdict)


def one(phase=Phase.IDLE, *items, **more):
    """A scene of one agent and some items."""
    scene = Scene(template("t"))
    scene.agent("t", phase, **more)
    scene.wait(*items)
    return scene


# --- what speaks against a removal ---


@pytest.mark.parametrize(
    ("scene", "backends", "why"),
    [
        (one(), {B: model.BackendView(synced=False)}, "its backend's state is unknown"),
        (one(), {}, "its backend's state is unknown"),
        (one(Phase.IDLE, item(7, "t")), None, "item 7 could want it"),
        (
            at(one(busy_session="s0"), NOW - 10),
            None,
            "a pipeline may still ask for it after the start",
        ),
    ],
)
def test_who_may_go_and_stays_says_what_speaks_against_it(scene, backends, why):
    """One row for each reason."""
    draft = drafted(scene)
    if backends is not None:  # after the look: whatever was seen there is in doubt
        draft.world = attrs.evolve(draft.world, backends=backends)
    draft.refusals.clear()
    assert let_go(draft) is False
    assert draft.actions == []
    (agent,) = draft.agents
    expected = model.Refusal(subject=agent.name, text=f"may go (x), stays because {why}")
    assert draft.refusals == [expected]


def test_nothing_idle_goes_while_the_controller_is_about_to_stop():
    """The words of it."""
    scene = one()
    scene.quieting_down = True
    draft = drafted(scene)
    assert let_go(draft) is False
    (refusal,) = draft.refusals
    assert refusal.text == "may go (x), stays because the controller is about to shut down"


@pytest.mark.parametrize(("session_at", "wake"), [(None, []), (NOW - 10, [NOW + 20])])
def test_whoever_rests_is_looked_at_when_the_rest_is_over(session_at, wake):
    """When the controller's start is not known, nobody can tell when that is."""
    draft = drafted(one(busy_session="s0"))
    draft.world = attrs.evolve(
        draft.world, ledger=attrs.evolve(draft.world.ledger, session_at=session_at)
    )
    draft.wake.clear()
    assert draft.policy.resume_grace_s == 30
    assert let_go(draft) is False
    assert draft.wake == wake


def test_whoever_goes_is_named_with_its_backend_and_the_verdict():
    """The whole action."""
    draft = drafted(one())
    assert let_go(draft) is True
    name = draft.agents[0].name
    expected = model.RetireAgent(name=name, backend=B, reason="x", cause=Cause.IDLE)
    assert (draft.actions, draft.refusals) == ([expected], [])


def test_an_online_agent_without_an_instance_makes_no_room():
    """It stays, and nothing is said: so the next one is asked."""
    scene = one()
    scene.instances[B].clear()
    draft = drafted(scene)
    assert (let_go(draft), draft.actions, draft.refusals) == (False, [], [])


@pytest.mark.parametrize("exclusive", [False, True])
def test_an_item_without_a_label_keeps_who_takes_such_items(exclusive):
    """An exclusive agent is for those who ask for its label."""
    scene = Scene(template("t", exclusive=exclusive, takes_unlabelled=not exclusive))
    scene.agent("t", Phase.IDLE)
    scene.wait(item(1))
    assert let_go(drafted(scene)) is exclusive


@pytest.mark.parametrize(("cause", "goes"), [(Cause.MAX_AGE, True), (Cause.IDLE, False)])
def test_a_blocked_item_keeps_nobody_beyond_its_age(cause, goes):
    """It may be blocked for ever."""
    draft = drafted(one(Phase.IDLE, blocked(1, "t")))
    assert let_go(draft, retention.Verdict(cause=cause, text="x")) is goes


@pytest.mark.parametrize(("revision", "goes"), [("r0", True), ("r1", False)])
def test_an_item_keeps_nobody_of_another_definition_who_never_came(revision, goes):
    """It would wait for what does not come; one of the present definition is on its way."""
    draft = drafted(one(Phase.CONNECTING, item(1, "t"), age_s=5, revision=revision))
    assert let_go(draft) is goes


@pytest.mark.parametrize(
    ("refused", "age_s", "goes"),
    [(True, 1.0, False), (True, 9.9, False), (True, 10.0, True), (False, 500.0, False)],
)
def test_an_item_that_was_refused_keeps_its_agent_only_while_it_is_fresh(refused, age_s, goes):
    """Whom the controller gives no work is of no use to that item, and to no other harm."""
    scene = one(Phase.IDLE, item(1, "t", age_s=age_s))
    scene.policy = attrs.evolve(scene.policy, settle_s=10.0)
    draft = drafted(scene)
    if refused:
        draft.refused[draft.agents[0].name] = frozenset({1})
    assert let_go(draft) is goes


# --- who is let go ---


@pytest.mark.parametrize(
    ("offline", "exit", "reason", "cause"),
    [
        (False, None, "single use: it has had its build", Cause.ONCE),
        (
            True,
            DIED,
            f"{ENDED} after it had been online",
            Cause.of_exit("exited"),
        ),
    ],
)
def test_a_cordon_tells_whether_its_agent_is_online(offline, exit, reason, cause):
    """The whole action."""
    scene = Scene(template("t", retention=Retention(once=True)))
    name = scene.agent("t", Phase.BUSY, builds=1, exit=exit)
    scene.computers[0] = attrs.evolve(scene.computers[0], offline=offline)
    expected = model.CordonAgent(name=name, reason=reason, cause=cause, online=not offline)
    assert scene.plan().actions == (expected,)


def test_a_surplus_says_how_many_are_too_many():
    """Over the cap that was lowered."""
    scene = Scene(template("t", cap=1))
    for _ in range(3):
        scene.agent("t", Phase.IDLE)
    assert [a.reason for a in scene.plan().actions] == [
        "2 more than the cap of 1",
        "1 more than the cap of 1",
    ]


def test_of_whoever_goes_the_end_of_its_time_is_not_waited_for():
    """An agent that was started for a cancelled item goes at once."""
    scene = Scene(template("t", retention=Retention(idle_s=600)))
    scene.agent("t", Phase.IDLE, idle_s=5, item=model.ItemId(9), item_cancelled=True)
    draft = drafted(scene)
    (agent,) = draft.agents
    verdict = leaving._not_needed(
        draft, agent, draft.template_of(agent), leaving._tally(draft, set())
    )
    assert verdict == retention.unwanted(agent)
    assert draft.wake == []


@pytest.mark.parametrize(
    ("min_idle", "seen", "goes"),
    [(0, {}, True), (1, {}, False), (0, {"online_at": NOW - 50}, False)],
)
def test_an_agent_on_its_way_for_a_cancelled_item_goes_if_it_is_of_no_use(min_idle, seen, goes):
    """It may become the warm one; and one that was online already is waited for."""
    scene = Scene(template("t", min_idle=min_idle))
    name = scene.agent(
        "t", Phase.CONNECTING, age_s=60, item=model.ItemId(9), item_cancelled=True, **seen
    )
    assert set(actions(scene.plan(), model.RetireAgent)) == ({name} if goes else set())


# --- whose place is due ---


def waiting_since(scene, waits):
    scene.ledger = attrs.evolve(scene.ledger, waits=waits)
    return [(a.name[:4], a.reason) for a in actions(scene.plan(), model.CordonAgent).values()]


def test_whoever_waits_for_long_goes_before_who_does_not():
    """Though the other one is first in the queue."""
    scene = full(waiting=("b", "c"))
    reason = "its place is due to item 2, waiting for 600 s"
    assert waiting_since(scene, {1: NOW, 2: NOW - 600}) == [("o-a-", reason)]


def test_items_that_nobody_can_help_do_not_hold_up_the_next():
    """Their backend has no room that another one could give."""
    scene = Scene(template("a"), template("b"), template("x", backends=(OTHER,)))
    limits = {B: model.BackendPolicy(cap=1), OTHER: model.BackendPolicy(cap=0)}
    scene.policy = attrs.evolve(scene.policy, backends=limits)
    scene.agent("a", Phase.BUSY)
    scene.wait(item(1, "x"), item(2, "x"), item(3, "b"))
    reason = "its place is due to item 3, waiting for 600 s"
    assert waiting_since(scene, dict.fromkeys((1, 2, 3), NOW - 600)) == [("o-a-", reason)]


def test_an_idle_agent_that_is_being_retired_makes_its_room_already():
    """Nobody else goes for the same item."""
    scene = Scene(template("a"), template("b"), cap=2)
    first = scene.agent("a", Phase.IDLE, age_s=900)
    scene.agent("a", Phase.IDLE, age_s=100)
    scene.wait(item(1, "b"))
    (action,) = scene.plan().actions
    assert action.name == first
    flight = model.Expectation(
        name=first,
        verb=model.Verb.RETIRE,
        since_at=NOW,
        expires_at=NOW + 60,
        template="a",
        backend=B,
    )
    scene.ledger = attrs.evolve(scene.ledger, expectations={first: flight})
    assert scene.plan().actions == ()


# --- what is swept ---


def test_a_pipeline_gets_its_node_back_in_so_many_words():
    """Drained, but asked for; its instance need not be there for that."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    scene.wait(resumed(name, 4))
    expected = model.UncordonAgent(name=name, reason="item 4 must go on with this very node")
    assert scene.plan().actions == (expected,)
    scene.instances[B].clear()
    assert scene.plan().actions == (expected,)


def test_a_sealed_node_whose_agent_is_gone_is_no_node_to_go_on_with():
    """No instance, and offline by itself: only its deletion tells the pipeline so."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    labels = scene.computers[0].labels | {model.RETIRED_LABEL}
    sealed = attrs.evolve(
        scene.computers[0], labels=labels, temporarily_offline=False, offline_cause=""
    )
    scene.computers[0] = sealed
    scene.wait(resumed(name, 4))
    back = model.UncordonAgent(name=name, reason="item 4 must go on with this very node")
    assert scene.plan().actions == (back,)  # its instance is there: it may connect again
    scene.instances[B].clear()
    assert set(actions(scene.plan(), model.RetireAgent)) == {name}
    scene.computers[0] = attrs.evolve(sealed, offline=False)
    assert scene.plan().actions == (back,)


@pytest.mark.parametrize(
    ("offline_cause", "sealed", "reason", "cause"),
    [
        ("agent-broker: once: done", False, "once: done", Cause.ONCE),
        ("", True, "out of service and empty", Cause.DRAINED),
    ],
)
def test_a_drained_agent_goes_with_what_was_said_when_it_was_taken_out(
    offline_cause, sealed, reason, cause
):
    """The whole action."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED)
    labels = {model.RETIRED_LABEL} if sealed else set()
    scene.computers[0] = attrs.evolve(
        scene.computers[0],
        offline_cause=offline_cause,
        labels=scene.computers[0].labels | labels,
    )
    expected = model.RetireAgent(name=name, backend=B, reason=reason, cause=cause, cordoned=True)
    assert scene.plan().actions == (expected,)


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        (
            Phase.DRAINED,
            "out of service and empty, but a pipeline may still ask for it after the start",
        ),
        (
            Phase.LOST,
            f"{ENDED} before it came online, but the controller just started",
        ),
    ],
)
def test_what_rests_after_a_start_says_so(phase, text):
    """The whole refusal."""
    seen = {"exit": DIED} if phase is Phase.LOST else {}
    scene = at(one(phase, busy_session="s0", **seen), NOW - 10)
    made = scene.plan()
    assert made.refusals == (model.Refusal(subject=made.agents[0].name, text=text),)


def test_a_lost_agent_that_a_pipeline_needs_says_which_item():
    """The whole refusal; one that worked in this session is not meant."""
    scene = Scene(template("t", connect_deadline_s=30))
    name = scene.agent("t", Phase.CONNECTING, busy_session="s0", age_s=7200)
    scene.wait(resumed(name, 3))
    text = "it did not come online within its deadline, but item 3 must go on with it"
    assert scene.plan().refusals == (model.Refusal(subject=name, text=text),)
    scene = Scene(template("t", connect_deadline_s=30))
    name = scene.agent("t", Phase.CONNECTING, busy_session="s1", age_s=7200)
    scene.wait(resumed(name, 3))
    expected = model.RetireAgent(
        name=name,
        backend=B,
        reason="it did not come online within its deadline",
        cause=Cause.CONNECT_TIMEOUT,
    )
    assert actions(scene.plan(), model.RetireAgent) == {name: expected}


def test_a_node_whose_instance_is_gone_is_swept_although_a_pipeline_names_it():
    """It cannot come back: deleting the node is what tells the pipeline so."""
    scene = Scene(template("t"))
    name = scene.agent(
        "t", Phase.LOST, busy_session="s0", age_s=7200, orphan_sightings=3, orphan_at=NOW - 99
    )
    scene.wait(resumed(name))
    expected = model.SweepNode(name=name, reason="its instance is gone, and it is offline")
    assert actions(scene.plan(), model.SweepNode) == {name: expected}


@pytest.mark.parametrize(
    ("phase", "exit", "reason", "cause"),
    [
        (Phase.ORPHAN, None, "the controller has no node of its name", Cause.SWEPT),
        (
            Phase.LOST,
            DIED,
            (
                "its instance ended (exited with exit code 1) before it came online, "
                "and its node is gone"
            ),
            Cause.LOST_EXITED,
        ),
        (Phase.LOST, ENDED_WELL, "it has ended and its node is gone", Cause.SWEPT),
    ],
)
def test_an_instance_without_a_node_is_swept_from_its_backend(phase, exit, reason, cause):
    """The whole action; a death keeps its own cause."""
    scene = one(phase, exit=exit, orphan_sightings=3, orphan_at=NOW - 99)
    scene.computers.clear()
    made = scene.plan()
    (agent,) = made.agents
    assert made.actions == (
        model.SweepInstance(name=agent.name, backend=B, reason=reason, cause=cause),
    )


def test_what_is_not_there_is_not_swept():
    """No instance, or none of which the place is known; nor what was never seen left over."""
    scene = one(Phase.LOST, exit=DIED)
    scene.computers.clear()
    (agent,) = scene.plan().agents
    assert sweeps._ended(attrs.evolve(agent, instance=None), now=NOW) is None
    assert sweeps._ended(attrs.evolve(agent, backend=None), now=NOW) is None
    for memory in (None, attrs.evolve(agent.memory, orphan_at=None)):
        unseen = attrs.evolve(agent, memory=memory)
        assert sweeps._second_sighting(unseen, scene.policy, now=NOW) == NOW


@pytest.mark.parametrize(
    ("created_at", "session_at", "older"),
    [(None, 5.0, True), (5.0, None, True), (4.0, 5.0, True), (5.0, 5.0, True), (6.0, 5.0, False)],
)
def test_who_was_there_before_the_controller_started(created_at, session_at, older):
    """What is not known counts as there before: a pipeline may ask for it."""
    (agent,) = one().plan().agents
    ledger = model.Ledger(session_at=session_at)
    assert sweeps._is_older(attrs.evolve(agent, created_at=created_at), ledger) is older


def test_other_items_do_not_hide_the_one_that_wants_its_node_back():
    """Neither one that does not run yet, nor one that wants another node, nor its label."""
    scene = Scene(template("t"))
    mine = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    other = scene.agent("t", Phase.DRAINED, busy_session="s0", age_s=7200)
    scene.wait(
        resumed(mine, 1, stage=Stage.BLOCKED),
        resumed(other, 2),
        item(3, "t"),
        resumed(mine, 4),
    )
    made = scene.plan()
    world = attrs.evolve(scene.world(), ledger=made.ledger)
    wishes, _ = demand.wishes(world.controller, scene.policy.templates, world.ledger, {})
    (agent,) = (a for a in made.agents if a.name == mine)
    wish = sweeps.wants_back(agent, sorted(wishes, key=lambda w: w.item.id), world.ledger)
    assert wish.item.id == 4


# --- leftovers ---


@pytest.mark.parametrize(
    ("draining", "everything", "drains"),
    [(False, False, False), (True, False, True), (False, True, True)],
)
def test_a_look_at_leftovers_spares_nothing(draining, everything, drains):
    """All at once, no rest after a start, and in a drain the idle ones as well."""
    policy = Scene(template("t"), draining=draining, sweep_share=0.5, resume_grace_s=30.0).policy
    bold = leftovers.unsparing(policy, everything=everything)
    assert (bold.sweep_share, bold.resume_grace_s, bold.draining) == (1.0, 0.0, drains)


@pytest.mark.parametrize("everything", [False, True])
def test_leftovers_are_idle_agents_only_if_everything_is_asked_for(everything):
    """And every orphan, however many."""
    scene = Scene(template("t"))
    idle = scene.agent("t", Phase.IDLE)
    orphans = {
        scene.agent("t", Phase.ORPHAN, orphan_sightings=5, orphan_at=NOW - 99) for _ in range(20)
    }
    made = leftovers.look(scene.world(), scene.policy, everything=everything)
    names = {action.name for action in leftovers.removals(made)}
    assert names == orphans | ({idle} if everything else set())
    assert "implausible" not in texts(made)


# --- how old an item is ---


@pytest.mark.parametrize(
    ("buildable_since_at", "in_queue_since_at", "since"), [(5.0, 3.0, 5.0), (None, 3.0, 3.0)]
)
def test_an_item_is_as_old_as_it_could_run(buildable_since_at, in_queue_since_at, since):
    """Or as it is in the queue, while it cannot."""
    scene = Scene(template("t"))
    scene.wait(
        item(
            1,
            "t",
            buildable_since_at=buildable_since_at,
            in_queue_since_at=in_queue_since_at,
        )
    )
    (wish,) = drafted(scene).wishes
    assert drafts.age(wish) == (since, 1)
