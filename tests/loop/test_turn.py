"""The loop by hand: the rules of each function of ``turn``, without a clock, a task or a source."""

import copy

import attrs
import hypothesis
import pytest
from hypothesis import strategies as st

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import latency, marks
from broker.core.fleet import ledger as ledgers
from broker.core.model import Phase
from broker.loop import health, sources, turn
from broker.loop import pace as paces
from broker.loop import state as states
from tests.core.worlds import NOW, B, Scene, item, template
from tests.each import each

DICE = turn.Dice(jitter=0.5, ids=tuple(f"n{n}" for n in range(16)))
PACE = paces.Pace(busy_s=1.0, idle_s=60.0, failing_s=30.0)


def seen(scene, **more):
    """Return what the sources of a scene show, as a turn takes it."""
    world = scene.world()
    return turn.Sightings(**{"controller": world.controller, "backends": world.backends, **more})


def state_of(scene):
    return states.State.fresh(scene.ledger)


def taken(state, scene, *, now=None, **more):
    return turn.take_in(
        turn.look(state),
        seen(scene, **more),
        scene.policy,
        scene.now if now is None else now,
        DICE,
    )


def waiting(*more, **policy):
    """Return a scene in which one item wants one agent."""
    scene = Scene(template("t", cap=1), *more, **policy)
    scene.wait(item(1, "t"))
    return scene


def launched(scene, state=None):
    """Turn once, and begin what is ordered; return the order and the state after it."""
    made = taken(state or state_of(scene), scene)
    (order,) = made.orders
    return order, turn.begin(made.state, (order,), scene.now, scene.policy)


def outcome(order, *, at=NOW, **more):
    return ledgers.Outcome(action=order, at=at, **more)


def notes(made, kind):
    return [note for note in made.notes if isinstance(note, kind)]


# --- take_in: what is noted ---


def test_a_mishap_is_noted_once_for_each_agent():
    """However often it happens; and the broker's memory of it lasts as long as the agent."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.BUSY)
    made = taken(state_of(scene), scene)
    assert [] == notes(made, turn.Harmed)
    for times, expected in ((1, [name]), (40, [])):
        mishap = backends_api.Mishap(slug="out-of-memory", text="killed", times=times)
        scene.instances[B] = [attrs.evolve(one, mishap=mishap) for one in scene.instances[B]]
        scene.now += 1.0
        made = taken(made.state, scene)
        assert expected == [note.name for note in notes(made, turn.Harmed)]
        assert times == made.state.ledger.memories[name].mishap.times


# --- take_in: who may act ---


def test_what_waits_is_ordered_and_nothing_is_begun_by_it():
    """The order comes out; that it is carried out is only known once it is begun."""
    scene = waiting()
    made = taken(state_of(scene), scene)
    assert [model.LaunchAgent] == [type(order) for order in made.orders]
    assert ({}, {}) == (dict(made.state.running), dict(made.state.ledger.expectations))
    assert made.orders == made.state.plan.actions


@pytest.mark.parametrize("not_ours", [{"leads": False}, {"may_order": False}])
def test_who_may_not_act_orders_nothing_and_says_what(not_ours):
    """A standby, a broker in doubt and one that stops make the same plan and hold it back."""
    scene = waiting()
    made = taken(state_of(scene), scene, **not_ours)
    assert () == made.orders
    (held,) = notes(made, turn.HeldBack)
    assert made.state.plan.actions == held.actions != ()


def test_who_does_not_lead_compares_nothing():
    """What started under another leader is not told as if we had seen it start."""
    scene = waiting()
    made = taken(state_of(scene), scene, leads=False)
    assert (None, False) == (made.state.known, made.state.leads)


@pytest.mark.parametrize("leads", [True, False])
def test_an_order_under_way_is_not_given_twice(leads):
    """Whatever is planned for its agent meanwhile: one action at a time (I4)."""
    scene = waiting()
    order, state = launched(scene)
    blind = attrs.evolve(state, ledger=scene.ledger)  # as if nothing had been noted
    again = turn.take_in(
        blind, seen(scene, leads=leads), scene.policy, NOW, attrs.evolve(DICE, ids=("n0",))
    )
    assert [order.name] == [action.name for action in again.state.plan.actions]
    assert () == again.orders
    assert [] == notes(again, turn.HeldBack)


# --- take_in: what is known, and since when ---


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BUSY, Phase.ORPHAN, Phase.LOST])
def test_a_controller_that_is_unknown_orders_nothing_and_nothing_goes(phase):
    """Too old a view is no view: neither demand nor the end of an agent follows from it."""
    scene = waiting(template("u"))
    scene.agent("u", phase, idle_s=90_000, age_s=90_000)
    scene.synced = False
    state = state_of(scene)
    for _ in range(4):
        made = taken(state, scene)
        scene.now += 1000.0
        state = made.state
        assert () == made.orders == made.state.plan.actions


def test_a_backend_that_is_unknown_gets_no_order_and_loses_nothing():
    """The other one does."""
    scene = Scene(template("t"), template("u", backends=("other",)))
    kept = scene.agent("t", Phase.IDLE, idle_s=90_000)
    scene.agent("u", Phase.IDLE, idle_s=90_000, backend="other")
    scene.wait(item(1, "t"), item(2, "t"))
    scene.dark_backends = {B}
    made = taken(state_of(scene), scene)
    assert {"other"} == {order.backend for order in made.orders}
    assert kept not in {order.name for order in made.orders}


def old(view, kind="controller"):
    """Return a view of which the next read has been under way for too long."""
    return sources.aged(view, view.read_at + 1.0, now=view.read_at + 90.0, patience_s=5.0)


@pytest.mark.parametrize("name", ["controller", "backend local"])
def test_a_source_that_grows_old_is_told_once_and_is_unread_since(name):
    """Lost once, however long it stays away; since the look that found it; back once."""
    scene = Scene(template("t"))
    state = taken(state_of(scene), scene).state
    world = scene.world()
    if name == "controller":
        aged = {"controller": old(world.controller)}
    else:
        aged = {"backends": {B: old(world.backends[B])}}
    first = taken(state, scene, now=NOW + 90.0, **aged)
    second = taken(first.state, scene, now=NOW + 95.0, **aged)
    scene.now = NOW + 100.0
    third = taken(second.state, scene)
    assert [1, 0, 0] == [len(notes(m, health.SourceLost)) for m in (first, second, third)]
    assert [0, 0, 1] == [len(notes(m, health.SourceBack)) for m in (first, second, third)]
    assert {name: NOW + 90.0} == first.state.unread_since == second.state.unread_since
    assert {} == third.state.unread_since
    # as of when each is known: of the one that is lost, as long as it is
    assert NOW == first.state.as_of[name] == second.state.as_of[name]
    assert {"controller": NOW + 100.0, "backend local": NOW + 100.0} == third.state.as_of


def test_a_view_that_is_old_but_known_gives_what_it_shows_no_second_time():
    """The same view at the next look: what was ordered by it is on its way, and nobody goes by it."""
    scene = waiting()
    order, state = launched(scene)
    state = turn.settle(state, outcome(order, at=NOW + 0.5), scene.policy, DICE)
    for later_s in (1.0, 8.0, 200.0):
        made = taken(state, scene, now=NOW + later_s)
        state = made.state
        assert () == made.orders
        assert {order.name: Phase.LAUNCHING} == {a.name: a.phase for a in state.plan.agents}


@pytest.mark.parametrize("which", ["controller", "backends"])
def test_a_view_that_began_before_an_end_is_no_evidence_of_it(which):
    """Launched between two reads: the older one of them does not show that it is gone."""
    scene = waiting()
    order, state = launched(scene)
    before = seen(scene)
    scene.now = NOW + 100.0
    state = turn.settle(state, outcome(order, at=NOW + 50.0), scene.policy, DICE)
    made = taken(state, scene, **{which: getattr(before, which)})
    assert {order.name} == {agent.name for agent in made.state.plan.agents}
    made = taken(made.state, scene)
    assert order.name not in {agent.name for agent in made.state.plan.agents}


@pytest.mark.parametrize("source", ["controller", "backends"])
def test_a_view_that_arrives_out_of_order_is_not_taken(source):
    """What was read before the last view says nothing any more: the last one stands."""
    scene = Scene(template("t"))
    early = seen(scene)
    name = scene.agent("t", Phase.IDLE)
    scene.now += 5.0
    state = taken(state_of(scene), scene).state
    made = taken(state, scene, **{source: getattr(early, source)})
    assert {name: Phase.IDLE} == {a.name: a.phase for a in made.state.plan.agents}
    assert NOW + 5.0 == made.state.world.controller.read_at
    assert NOW + 5.0 == made.state.world.backends[B].read_at


def test_a_view_of_before_does_not_end_that_a_source_is_unknown():
    """A read that was given up began later: what is shown now is older than that."""
    scene = waiting()
    early = seen(scene)
    scene.now, scene.synced = NOW + 5.0, False
    state = taken(state_of(scene), scene).state
    made = taken(state, scene, controller=early.controller)
    assert not made.state.world.controller.synced
    assert () == made.orders
    assert 2 == made.state.failures


def test_a_source_that_is_unknown_is_so_whenever_its_read_began():
    """No answer yet, of a loop that begins anew, is not an older view."""
    scene = waiting()
    state = taken(state_of(scene), scene).state
    made = taken(state, scene, controller=model.ControllerView(error="it has not answered yet"))
    assert not made.state.world.controller.synced
    assert () == made.orders


def test_the_same_view_makes_no_second_look():
    """A build without an address counts from the second view on, not from the second glance."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.BUSY)
    scene.computers = [attrs.evolve(one, executable_urls=()) for one in scene.computers]
    scene.ledger = attrs.evolve(scene.ledger, memories={})
    state = state_of(scene)
    for later_s in (0.0, 10.0, 20.0):
        state = taken(state, scene, now=NOW + later_s).state
        assert 0 == state.ledger.memories[name].builds
    scene.now += 30.0
    state = taken(state, scene).state
    assert 1 == state.ledger.memories[name].builds


def test_an_agent_is_not_passed_over_by_what_was_seen_before():
    """That nothing was taken is known up to the read of the view, and no longer."""
    scene = Scene(template("t"), settle_s=5.0, reservation_s=30.0)
    name = scene.agent("t", Phase.IDLE)
    scene.wait(item(1, "t"))
    state = taken(state_of(scene), scene).state
    scene.now += 12.0
    state = taken(state, scene).state
    view = seen(scene)
    for later_s in (20.0, 50.0, 90.0):
        made = taken(state, scene, now=NOW + later_s, controller=view.controller)
        state = made.state
        assert () == made.orders, "it may long have the item"
    scene.now = NOW + 100.0
    made = taken(state, scene)
    assert [model.LaunchAgent] == [type(order) for order in made.orders]
    assert name != made.orders[0].name


# --- take_in: what is counted ---


def test_looks_that_fail_are_counted_until_one_goes_well():
    """Also those that a bug has ended: then nothing was taken in."""
    scene = Scene(template("t"))
    state = turn.look(turn.look(state_of(scene)))
    assert 2 == state.failures
    scene.synced = False
    state = taken(state, scene).state
    assert 3 == state.failures
    scene.synced = True
    assert 0 == taken(state, scene).state.failures


def test_questions_are_asked_a_few_in_a_turn_and_none_is_lost():
    """A flood that vanishes at once is not a flood of requests."""
    scene = Scene(template("t"))
    many = 3 * turn.QUESTIONS - 2
    scene.wait(*(item(n, "t") for n in range(1, many + 1)))
    state = taken(state_of(scene), scene).state
    scene.items = []
    asked = []
    for _ in range(4):
        scene.now += 1.0
        made = taken(state, scene)
        state = made.state
        asked.append([note.item for note in notes(made, latency.Vanished)])
    assert [turn.QUESTIONS, turn.QUESTIONS, turn.QUESTIONS - 2, 0] == [len(a) for a in asked]
    assert set(range(1, many + 1)) == {one for some in asked for one in some}


def test_a_sweep_that_is_refused_is_told_once_and_once_more_when_it_comes_again():
    """A person is needed, not a line a second."""
    scene = Scene(template("t"), orphan_grace_s=1.0, resume_grace_s=0.0)
    for _ in range(20):
        scene.agent("t", Phase.ORPHAN, age_s=90_000)
    state, told = state_of(scene), []
    for _ in range(4):
        scene.now += 60.0
        made = taken(state, scene)
        state = made.state
        told.append(len(notes(made, turn.Implausible)))
    assert 1 == sum(told)
    assert state.implausible
    scene.instances = {B: []}
    scene.now += 60.0
    state = taken(state, scene).state
    assert "" == state.implausible


# --- begin, settle, abandon ---


def test_what_is_begun_is_expected_and_runs():
    """Both, before anything is done: a view of the next moment shows nothing of it."""
    scene = waiting()
    order, state = launched(scene)
    assert {order.name: order} == state.running
    assert {order.name} == set(state.ledger.expectations)
    made = taken(state, scene)
    assert () == made.orders == made.state.plan.actions


FAILED = {"failure": model.Failure.UNAVAILABLE, "text": "no"}


@pytest.mark.parametrize(
    ("how", "launches", "expected"),
    [({}, 1, True), (FAILED, 0, False), ({"withdrawn": True}, 0, False)],
    ids=["done", "failed", "withdrawn"],
)
def test_how_a_launch_ends(how, launches, expected):
    """It runs no more; what is done is expected to be seen; the outcome is kept."""
    scene = waiting()
    order, state = launched(scene)
    ended = outcome(order, **how)
    state = turn.settle(state, ended, scene.policy, DICE)
    assert ({}, (ended,)) == (state.running, state.outcomes)
    assert (launches, 0) == (state.launches, state.ends)
    assert expected == (order.name in state.ledger.expectations)


@pytest.mark.parametrize(("how", "ends"), [({}, 1), (FAILED, 0), ({"withdrawn": True}, 0)])
def test_how_a_removal_ends(how, ends):
    """Counted when it is done, and not as a launch."""
    scene = Scene(template("t", retention=model.Retention(idle_s=5.0)))
    scene.agent("t", Phase.IDLE, idle_s=900.0)
    order, state = launched(scene)
    assert isinstance(order, model.RetireAgent)
    state = turn.settle(state, outcome(order, **how), scene.policy, DICE)
    assert (0, ends) == (state.launches, state.ends)


@each("how", [{}, FAILED, {"withdrawn": True}])
@each("kind", [model.LaunchAgent, model.RetireAgent, model.CordonAgent])
def test_an_outcome_for_an_agent_that_nobody_knows_any_more(how, kind):
    """The term has changed, or a person removed it: the outcome is kept, nothing else is made up."""
    scene = Scene(template("t"))
    fields = {f.name for f in attrs.fields(kind)}
    given = {"name": "o-t-gone", "reason": "r", "template": "t", "backend": B}
    order = kind(**{name: value for name, value in given.items() if name in fields})
    state = turn.settle(state_of(scene), outcome(order, **how), scene.policy, DICE)
    assert 1 == len(state.outcomes)
    assert ({}, {}) == (state.running, state.ledger.memories)
    made = taken(state, scene, now=NOW + 3600.0)
    assert ((), ()) == (made.orders, made.state.plan.agents)


def test_an_outcome_of_one_leaves_the_others_alone():
    """Two under way, one ends."""
    scene = Scene(template("t"))
    scene.wait(item(1, "t"), item(2, "t"))
    made = taken(state_of(scene), scene)
    state = made.state
    for order in made.orders:
        state = turn.begin(state, (order,), NOW, scene.policy)
    one, other = made.orders
    state = turn.settle(state, outcome(one, **FAILED), scene.policy, DICE)
    assert {other.name: other} == state.running
    assert {other.name} == set(state.ledger.expectations)


def test_outcomes_are_kept_to_a_number():
    """The last ones, oldest first."""
    scene = waiting()
    order, state = launched(scene)
    for second in range(states.OUTCOMES_KEPT + 3):
        state = turn.settle(state, outcome(order, at=NOW + second), scene.policy, DICE)
    assert states.OUTCOMES_KEPT == len(state.outcomes)
    assert NOW + states.OUTCOMES_KEPT + 2 == state.outcomes[-1].at


def test_what_is_abandoned_is_not_settled():
    """As by a kill: it runs no more, and its expectation is still there."""
    scene = waiting()
    order, state = launched(scene)
    state = turn.abandon(state, order.name)
    assert ({}, ()) == (state.running, state.outcomes)
    assert {order.name} == set(state.ledger.expectations)
    assert state == turn.abandon(state, order.name), "twice is once"


# --- bury, learn ---


def removal(name, cause=model.Cause.LOST_KILLED, reason="it was killed"):
    return model.RetireAgent(name=name, backend=B, reason=reason, cause=cause)


def test_a_death_is_kept_once_and_the_last_time_counts():
    """A removal that was put off is not a second death."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    state = taken(state_of(scene), scene).state
    for at in (NOW, NOW + 5.0):
        state = turn.bury(state, removal(name), ("java.lang.Error: no memory",), at)
    (dead,) = state.deaths
    assert (name, NOW + 5.0) == (dead.name, dead.at)
    assert "no memory" in dead.text
    assert (model.TemplateName("t"), model.Cause.LOST_KILLED) == turn.end_of(state, removal(name))


def test_a_death_of_somebody_unknown_is_kept_all_the_same():
    """And of the deaths a number."""
    state = states.State.fresh()
    for number in range(states.DEATHS_KEPT + 2):
        state = turn.bury(state, removal(f"o-t-{number}"), (), NOW)
    assert states.DEATHS_KEPT == len(state.deaths)
    assert f"o-t-{states.DEATHS_KEPT + 1}" == state.deaths[-1].name
    assert None is state.deaths[-1].template


def vanished(number=1):
    return latency.Vanished(item=number, template="t", ready_at=NOW - 5, gone_at=NOW)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"cancelled": True, "executable_url": None}, turn.Cancelled),
        ({"cancelled": False, "executable_url": None}, turn.Cancelled),
        ({"cancelled": False, "executable_url": "http://c/job/y/1/"}, turn.Elsewhere),
        ({"cancelled": False, "executable_url": "http://c/job/x/0/"}, latency.Started),
    ],
)
def test_what_became_of_an_item_is_one_note(told, kind):
    """It was cancelled, runs somewhere else, or on an agent of ours."""
    scene = Scene(template("t"))
    scene.agent("t", Phase.BUSY)
    state = taken(state_of(scene), scene).state
    made = turn.learn(state, vanished(), scene.policy, **told)
    assert ((), [kind]) == (made.orders, [type(note) for note in made.notes])
    waits = made.state.hour.waits
    assert len(waits) == (kind is latency.Started)
    assert attrs.evolve(made.state, hour=state.hour) == state


def test_an_item_that_was_cancelled_is_remembered_of_who_was_started_for_it():
    """Nobody else's memory is touched."""
    scene = Scene(template("t"))
    names = [scene.agent("t", Phase.CONNECTING, item=n) for n in (1, 2)]
    made = turn.learn(
        state_of(scene), vanished(1), scene.policy, cancelled=True, executable_url=None
    )
    memories = made.state.ledger.memories
    assert [True, False] == [memories[name].item_cancelled for name in names]


# --- who may not act says so ---


@pytest.mark.parametrize(
    ("sighting", "reason", "text"),
    [
        (
            {"leads": False},
            model.WaitReason.STANDBY,
            "another broker of this owner leads, and orders",
        ),
        (
            {"may_order": False, "hindrance": "placeholder node not kept (forbidden): no"},
            model.WaitReason.NOT_ACTING,
            "nothing is ordered: placeholder node not kept (forbidden): no",
        ),
        (
            {"may_order": False},
            model.WaitReason.NOT_ACTING,
            "nothing is ordered: this broker may not order just now",
        ),
    ],
)
def test_whoever_may_not_order_does_not_say_that_an_agent_is_ordered(sighting, reason, text):
    """What is under way already is said as ever."""
    scene = Scene(template("t"), template("u"))
    coming = scene.agent("u", Phase.CONNECTING, age_s=5)
    scene.wait(item(1, "t"), item(2, "u"))
    state = taken(state_of(scene), scene, **sighting).state
    told = {one.item: (one.reason, one.text, one.agent) for one in state.plan.unmet}
    assert told == {
        1: (reason, text, None),
        2: (model.WaitReason.AGENT_STARTING, f"agent {coming} is starting for it", coming),
    }


# --- change_term ---


def test_in_another_term_nothing_is_expected_and_no_back_off_holds():
    """Another has acted meanwhile; the term is a new one, so that what began before is known."""
    scene = waiting()
    order, state = launched(scene)
    state = turn.settle(state, outcome(order, **FAILED), scene.policy, DICE)
    after = turn.change_term(state)
    assert (state.term + 1, None) == (after.term, after.known)
    assert ({}, {}) == (after.ledger.expectations, after.ledger.backoffs)
    assert state.outcomes == after.outcomes


# --- next_look ---


def resting(**more):
    return states.State(plan=model.Plan(active=False), **more)


@each(
    ("state", "pause_s"),
    [
        (states.State(), 1.0),  # nothing was planned yet
        (states.State(leads=False), 60.0),
        (resting(), 60.0),
        (states.State(plan=model.Plan(active=True)), 1.0),
        (states.State(plan=model.Plan(active=True), leads=False), 60.0),
        (resting(failures=1), 1.0),
        (resting(failures=3), 4.0),
        (resting(failures=9), 30.0),
        (states.State(plan=model.Plan(active=False, wake_at=NOW + 7.0)), 7.0),
        (states.State(plan=model.Plan(active=False, wake_at=NOW - 7.0)), 0.0),
        (states.State(plan=model.Plan(active=False, wake_at=NOW + 7.0), leads=False), 60.0),
        (states.State(plan=model.Plan(active=True, wake_at=NOW + 7.0)), 1.0),
    ],
)
def test_when_to_look_again(state, pause_s):
    """Fast where something moves, slowly at rest, and less and less where looks fail."""
    assert pause_s == turn.next_look(state, PACE, NOW)


@hypothesis.given(
    failures=st.integers(0, 100),
    leads=st.booleans(),
    active=st.booleans(),
    wake_in=st.none() | st.floats(-1e6, 1e6),
)
def test_a_pause_is_never_negative_nor_longer_than_the_pace(failures, leads, active, wake_in):
    """Whatever the state: a loop that sleeps for ever is dead."""
    wake_at = None if wake_in is None else NOW + wake_in
    state = states.State(
        plan=model.Plan(active=active, wake_at=wake_at), failures=failures, leads=leads
    )
    assert 0.0 <= turn.next_look(state, PACE, NOW) <= max(PACE.idle_s, PACE.failing_s)


# --- of all of them ---

PHASES = st.sampled_from([Phase.IDLE, Phase.BUSY, Phase.CONNECTING, Phase.ORPHAN, Phase.LOST])


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    phases=st.lists(PHASES, max_size=5),
    items=st.integers(0, 4),
    knows=st.tuples(st.booleans(), st.booleans()),
    behind=st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 30.0)),
    looks=st.integers(1, 4),
)
def test_whatever_is_seen_the_same_views_order_nothing_twice(phases, items, knows, behind, looks):
    """Old or new, known or not: a turn changes nothing that it was given, and is a fixed point."""
    scene = Scene(template("t", cap=5), orphan_grace_s=1.0, sweep_share=1.0, sweep_floor=100)
    for phase in phases:
        scene.agent("t", phase, idle_s=9000.0)
    scene.wait(*(item(n + 1, "t") for n in range(items)))
    scene.synced = knows[0]
    scene.dark_backends = set() if knows[1] else {B}
    shown = seen(scene)
    shown = attrs.evolve(
        shown,
        controller=attrs.evolve(shown.controller, read_at=NOW - behind[0]),
        backends={B: attrs.evolve(shown.backends[B], read_at=NOW - behind[1])},
    )
    state = state_of(scene)
    ordered = []
    for number in range(looks):
        before = copy.deepcopy(state)
        made = turn.take_in(state, shown, scene.policy, NOW, DICE)
        assert before == state
        if not all(knows):
            assert () == made.orders
        assert number == 0 or () == made.orders
        state = made.state
        for order in made.orders:
            state = turn.begin(state, (order,), NOW, scene.policy)
            ordered.append(order.name)
    assert len(ordered) == len(set(ordered))
    assert set(ordered) == set(state.running)


# --- what stays known ---


def test_the_last_look_at_which_the_controller_answered_is_kept():
    """For people alone: nothing is decided by it."""
    scene = waiting()
    first = taken(state_of(scene), scene).state
    assert (first.world, first.plan) == first.last_read
    silent = model.ControllerView(read_at=NOW + 1, error="unreachable: no answer")
    second = taken(first, scene, now=NOW + 1, controller=silent).state
    assert first.last_read == second.last_read
    assert () == second.plan.unmet
    again = attrs.evolve(scene.world().controller, read_at=NOW + 2)
    third = taken(second, scene, now=NOW + 2, controller=again).state
    assert (third.world, third.plan) == third.last_read


def test_a_backend_holds_what_it_showed_and_what_it_took_since():
    """Of which a refusal for want of room is told; not what is asked for, nor what is elsewhere."""
    scene = Scene(template("t"), template("u", backends=(model.BackendName("other"),)))
    scene.agent("t", Phase.BUSY)
    scene.agent("u", Phase.BUSY, backend=model.BackendName("other"))
    scene.wait(item(1, "t"), item(2, "t"), item(3, "t"))
    made = taken(state_of(scene), scene)
    state = turn.begin(made.state, made.orders, NOW, scene.policy)
    assert 1 == turn.held_by(state, B)
    took, refused, _ = made.orders
    state = turn.settle(state, outcome(took), scene.policy, DICE)
    assert 2 == turn.held_by(state, B)
    failure = {"failure": model.Failure.NO_CAPACITY, "text": "full"}
    state = turn.settle(state, outcome(refused, **failure), scene.policy, DICE)
    (backoff,) = state.ledger.backoffs.values()
    assert (2, 1, 0) == (backoff.held, backoff.refusals, backoff.failures)


# --- what a person has tried ---


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.ORPHAN])
def test_nothing_is_decided_about_an_agent_that_is_tried(phase):
    """Without the word it would be removed at once; it takes room, and serves nobody."""
    scene = Scene(template("t"), cap=1)
    scene.agent(marks.TRIED, phase, idle_s=5.0, age_s=500.0)
    (name,) = {one.name for one in scene.instances[B]}
    scene.wait(item(1, "t"))
    free, held = state_of(scene), state_of(scene)
    held = turn.hold(held, name, B, template=marks.TRIED, now=scene.now, until=scene.now + 900)
    free_orders, held_orders = [], []
    for _ in range(3):
        made = taken(free, scene)
        free, free_orders = made.state, [*free_orders, *made.orders]
        made = taken(held, scene)
        held, held_orders = made.state, [*held_orders, *made.orders]
        scene.now += 200.0
    assert name in {order.name for order in free_orders}
    assert [] == held_orders
    (unmet,) = held.plan.unmet
    assert model.WaitReason.CAP_TOTAL is unmet.reason


def test_what_is_left_of_a_try_is_removed_once_nobody_is_at_it():
    """When it was let go and is still there, and when its time is over."""
    scene = Scene(template("t"))
    scene.agent(marks.TRIED, Phase.IDLE, idle_s=5.0)
    (name,) = {one.name for one in scene.instances[B]}
    begun = turn.hold(
        state_of(scene), name, B, template=marks.TRIED, now=scene.now, until=scene.now + 900
    )
    for state, after_s in ((begun, 901.0), (turn.let_go(begun, name, now=scene.now), 60.0)):
        made = taken(state, scene)
        assert () == made.orders
        later = taken(made.state, scene, now=scene.now + after_s)
        assert [name] == [order.name for order in later.orders]


def test_an_agent_that_nobody_holds_is_not_let_go():
    """A broker that has changed its term meanwhile knows of no try."""
    state = state_of(Scene(template("t")))
    assert turn.let_go(state, model.NodeName("o-try-1"), now=NOW) is state
