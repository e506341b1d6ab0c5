"""What the agents that are there offer, to the letter: to whom, in whose words, and who does not."""

import pytest
from attrs import evolve

from broker.core import model
from broker.core.decide import plan, serving
from broker.core.model import Phase, Scope, Stage, WaitReason
from tests.core.test_plan_rules import drafted
from tests.core.worlds import NOW, B, Scene, actions, item, launches, reasons, template


def offers(scene):
    scene.wait(item(1, "t"))  # for nobody it is not asked
    return {s.name: s.slots for s in drafted(scene).supplies}


# --- who offers nothing hides nobody behind it ---


@pytest.mark.parametrize(
    ("phase", "more"),
    [
        (Phase.HELD, {}),
        (Phase.BUSY, {}),
        (Phase.IDLE, {"closed_at": NOW - 9, "closed_looks": model.CLOSED_LOOKS}),
        (Phase.CONNECTING, {"revision": "r0"}),
    ],
    ids=["held", "full", "closed", "outdated"],
)
def test_one_that_offers_nothing_hides_no_other(phase, more):
    """Each is judged by itself."""
    scene = Scene(template("t"))
    scene.agent("t", phase, **more)
    name = scene.agent("t", Phase.IDLE)
    assert offers(scene) == {name: 1}


@pytest.mark.parametrize(
    ("executors", "busy", "slots"), [(1, 1, None), (3, 3, None), (3, 2, 1), (3, 0, 3)]
)
def test_a_busy_agent_offers_its_free_slots(executors, busy, slots):
    """One that has none is no supply at all."""
    scene = Scene(template("t", executors=executors))
    name = scene.agent("t", Phase.BUSY, busy=busy)
    assert offers(scene) == ({} if slots is None else {name: slots})


def test_a_busy_agent_that_is_held_offers_nothing():
    """Its build goes on, and it is given no other."""
    scene = Scene(template("t", executors=2))
    scene.agent("t", Phase.BUSY)
    scene.computers[0] = evolve(scene.computers[0], offline=True, temporarily_offline=True)
    assert offers(scene) == {}


def test_an_agent_whose_template_is_gone_is_kept_for_nobody():
    """No pool is short of it."""
    scene = Scene(template("t", min_idle=1))
    scene.agent("old", Phase.IDLE)
    scene.wait(item(1, "t"))
    assert [s.kept for s in serving._keep(drafted(scene))] == [False]


def test_the_free_slots_of_a_busy_agent_are_no_warm_agent():
    """One that is idle is kept instead."""
    scene = Scene(template("t", executors=2, min_idle=1))
    idle = scene.agent("t", Phase.IDLE)
    busy = scene.agent("t", Phase.BUSY)
    scene.wait(item(1, "t"))
    assert {s.name: s.kept for s in serving._keep(drafted(scene))} == {idle: True, busy: False}


# --- who is refused work ---


def test_whoever_is_given_no_work_is_named():
    """The whole refusals: closed to all, and refused to some."""
    scene = Scene(template("t"))
    closed = scene.agent("t", Phase.IDLE, closed_at=NOW - 60, closed_looks=model.CLOSED_LOOKS)
    refused = scene.agent("t", Phase.IDLE, nominated_at=NOW - 500, free_at=NOW - 500)
    scene.wait(item(1, "t", age_s=400))
    assert drafted(scene).refusals == [
        model.Refusal(
            subject=closed,
            text="is given no work for 60 s: it accepts no tasks: not counted",
        ),
        model.Refusal(
            subject=refused,
            text="it is free and fits, but the controller gives it no work: not counted for item 1",
        ),
    ]


def test_what_no_template_serves_is_refused_by_nobody():
    """Its label was put on this very node by somebody else: whether it fits is not ours to say."""
    scene = Scene(template("t", executors=2))
    scene.agent("t", Phase.BUSY, nominated_at=NOW - 500, free_at=NOW - 500)
    labels = scene.computers[0].labels | {"extra"}
    scene.computers[0] = evolve(scene.computers[0], labels=labels)
    scene.wait(item(1, "extra", age_s=400), item(2, "t", age_s=5))
    assert drafted(scene).refused == {}


def test_one_that_is_not_online_refuses_nothing():
    """What was remembered of it when it was is over."""
    scene = Scene(template("t"))
    scene.agent("t", Phase.CONNECTING, age_s=5, nominated_at=NOW - 500)
    scene.wait(item(1, "t", age_s=400))
    assert drafted(scene).refused == {}


# --- in whose words ---


def test_an_item_in_its_quiet_period_says_nothing_of_who_is_idle():
    """It waits for its time, and for nobody."""
    scene = Scene(template("t", start_early=True))
    scene.agent("t", Phase.IDLE)
    scene.wait(item(1, "t", why="In the quiet period", stage=Stage.WAITING))
    (wait,) = scene.plan().unmet
    assert (wait.reason, wait.text) == (WaitReason.QUIET_PERIOD, "In the quiet period")


def test_an_agent_that_has_been_free_for_long_is_only_doubted_by_a_veto():
    """Without one the controller may just not have looked."""
    scene = Scene(template("t"))
    scene.agent("t", Phase.IDLE, free_at=NOW - 30)
    scene.wait(item(1, "t"))
    assert reasons(scene.plan()) == {1: WaitReason.AGENT_IDLE}


def test_an_item_names_the_order_that_it_is_left_with():
    """The first one that was made for it is taken back again."""
    scene = Scene(template("z", "x"), template("a", "x", "y", executors=2))
    scene.wait(item(1, "x", age_s=9), item(2, "y", age_s=8))
    made = scene.plan()
    (name,) = actions(made, model.LaunchAgent)
    assert {u.agent for u in made.unmet} == {name}


# --- who is tried after a failure serves nobody whom another backend can serve ---

C = model.BackendName("two")


def trying(scope=Scope.TEMPLATE, *, failures=1, at=NOW - 30, **agent):
    """Return a scene in which one waits, and an agent starts where others have failed."""
    scene = Scene(template("t", backends=(B, C)))
    scene.agent(**{"template_name": "t", "phase": Phase.CONNECTING, "age_s": 5.0, **agent})
    of = "t" if scope is not Scope.BACKEND else None
    scene.backoff(scope, of, for_s=0.0, failures=failures, at=at)
    scene.wait(item(1, "t"))
    return scene


def ordered_at(scene):
    return [a.backend for a in scene.plan().actions if isinstance(a, model.LaunchAgent)]


@pytest.mark.parametrize(
    ("scope", "failures"), [(Scope.TEMPLATE, 1), (Scope.BACKEND, 1), (Scope.LAUNCH, 2)]
)
def test_nobody_waits_for_a_try(scope, failures):
    """The item is ordered another agent, and the try shows whether its backend works again."""
    scene = trying(scope, failures=failures)
    assert [C] == ordered_at(scene)
    words = "shows whether local works again, while two serves: said so"
    assert words in [refusal.text for refusal in scene.plan().refusals]


@pytest.mark.parametrize(
    "more",
    [
        {"failures": 0},
        {"scope": Scope.LAUNCH},  # once is an accident
        {"at": NOW - 5},  # it was on the way when another one failed
        {"phase": Phase.IDLE},
    ],
    ids=["no failure", "accident", "before", "online"],
)
def test_others_are_waited_for(more):
    """They are no try, or have shown what a try shows."""
    assert [] == ordered_at(trying(**more))


@pytest.mark.parametrize(
    "block",
    [
        lambda s: s.dark_backends.add(C),
        lambda s: s.backoff(Scope.BACKEND, backend=C),
        lambda s: s.backoff(Scope.BACKEND, backend=C, for_s=0.0),  # it has failed as well
        lambda s: setattr(s, "policy", evolve(s.policy, cap=1)),
        lambda s: setattr(s, "policy", evolve(s.policy, templates=(template("t"),))),
    ],
    ids=["dark", "backs off", "failed", "full", "no other"],
)
def test_where_no_other_backend_serves_the_try_does(block):
    """Two would be started for one item, and neither sooner."""
    scene = trying()
    block(scene)
    assert [] == ordered_at(scene)
    assert {1: WaitReason.AGENT_STARTING} == reasons(scene.plan())


def test_who_is_ordered_instead_is_waited_for():
    """One item is worth one agent beside the try."""
    scene = trying()
    scene.agent("t", Phase.CONNECTING, backend=C, age_s=2)
    assert [] == ordered_at(scene)


@pytest.mark.parametrize(
    ("waiting", "limits", "warm", "expected"),
    [
        (1, {}, 0, [B, C]),
        (3, {}, 0, [B, C, C, C]),
        (0, {}, 2, [B, C, C]),
        (1, {"cap": 1}, 0, [B]),  # there is room for the try alone: it is waited for
        (1, {"max_starting": 1}, 0, [B]),
        (0, {}, 0, []),
    ],
)
def test_a_try_is_ordered_beside_who_serves(waiting, limits, warm, expected):
    """One, whoever waits, for the first backend is to be used again when it works."""
    scene = Scene(template("t", backends=(B, C), min_idle=warm), **limits)
    scene.backoff(Scope.TEMPLATE, "t", for_s=0.0, at=NOW - 30)
    scene.wait(*(item(number, "t") for number in range(1, waiting + 1)))
    made = scene.plan()
    assert expected == ordered_at(scene)
    tried = next(iter(actions(made, model.LaunchAgent).values()), None)
    if len(expected) > 1:
        assert tried.item is None
        assert "shows whether local works again, while two serves: said so" == tried.reason
        assert tried.name not in {unmet.agent for unmet in made.unmet}


def test_a_try_goes_with_the_order_that_is_not_needed():
    """Another kind of agent serves both items: nobody is left who could use the first backend."""
    scene = Scene(
        template("z", "x", backends=(B, C)), template("a", "x", "y", executors=2, backends=(C,))
    )
    scene.backoff(Scope.TEMPLATE, "z", for_s=0.0, at=NOW - 30)
    scene.wait(item(1, "x", age_s=9), item(2, "y", age_s=8))
    assert ["a"] == [a.template for a in scene.plan().actions]


# --- where nobody waits ---


def test_where_nobody_waits_only_those_on_their_way_are_asked_what_they_offer():
    """They are warm agents to be; who is idle is one, and whoever could serve is noted."""
    scene = Scene(template("t", min_idle=2))
    idle, full = scene.agent("t", Phase.IDLE), scene.agent("t", Phase.BUSY)
    coming = scene.agent("t", Phase.CONNECTING, age_s=5)
    draft = drafted(scene)
    assert [supply.name for supply in draft.supplies] == [coming]
    assert draft.offering == {idle, coming} - {full}
    assert plan.plan(scene.world(), scene.policy).actions == ()


def test_who_goes_instead_of_being_checked_serves_nobody():
    """Another one is ordered in the same look; the next one has nothing to add."""
    scene = Scene(template("t", min_idle=1))
    scene.agent("t", Phase.CHECKING, revision="r0", age_s=200.0)
    scene.wait(item(1, "t"))
    assert launches(scene.plan()) == {"t": 2}
    scene = Scene(template("t", min_idle=1))
    scene.agent("t", Phase.CHECKING, age_s=200.0)
    assert launches(scene.plan()) == {}
