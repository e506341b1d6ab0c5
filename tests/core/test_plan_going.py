"""Who goes while others stay: one action for each, counted once, whoever comes first in line."""

import pytest
from attrs import evolve

from broker.core import model
from broker.core.model import BackendName, Cause, NodeName, Phase, Retention
from tests.core.worlds import NOW, B, Scene, actions, item, template

OTHER = BackendName("other")
IDLE_10 = Retention(idle_s=10)


def retired(made):
    return {a.name: a.cause for a in actions(made, model.RetireAgent).values()}


def retires(scene, name):
    """It was asked to go, and is there still."""
    scene.ledger = evolve(
        scene.ledger,
        expectations={
            NodeName(name): model.Expectation(
                name=name,
                verb=model.Verb.RETIRE,
                since_at=NOW - 1,
                expires_at=NOW + 60,
                template=None,
                backend=B,
            )
        },
    )


# --- who makes room ---


def test_whoever_makes_room_says_for_whom():
    """The whole action."""
    scene = Scene(template("a"), template("b"), cap=1)
    name = scene.agent("a", Phase.IDLE)
    scene.wait(item(1, "b"), item(2, "b"))
    expected = model.RetireAgent(
        name=name, backend=B, reason="makes room for item 1", cause=Cause.YIELD
    )
    assert scene.plan().actions == (expected,)


def test_only_those_make_room_whose_room_helps():
    """Somewhere else there is room enough; whoever is behind them in line does help."""
    scene = Scene(
        template("else", backends=(OTHER,)),
        template("a"),
        template("b"),
        backend=model.BackendPolicy(cap=1),
    )
    scene.agent("else", Phase.IDLE, backend=OTHER, age_s=900)
    name = scene.agent("a", Phase.IDLE, age_s=700)
    scene.wait(item(1, "b"))
    assert retired(scene.plan()) == {name: Cause.YIELD}


def test_nobody_at_work_yields_when_enough_idle_ones_do():
    """However long the item has waited."""
    scene = Scene(template("a"), template("b"), cap=2)
    scene.agent("a", Phase.BUSY)
    name = scene.agent("a", Phase.IDLE)
    scene.wait(item(1, "b"))
    scene.ledger = evolve(scene.ledger, waits={model.ItemId(1): NOW - 600})
    (action,) = scene.plan().actions
    assert action.name == name


# --- one action for each ---


def test_whoever_makes_room_and_has_served_its_time_goes_once():
    """For the reason that came first; the next one goes for its own."""
    scene = Scene(template("a"), template("b"), cap=2)
    first = scene.agent("a", Phase.IDLE, revision="r0", age_s=900)
    second = scene.agent("a", Phase.IDLE, revision="r0", age_s=800)
    scene.wait(item(1, "b"))
    made = scene.plan()
    assert [(a.name, a.cause) for a in made.actions] == [
        (first, Cause.YIELD),
        (second, Cause.DRIFT),
    ]


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BUSY])
def test_whoever_was_asked_to_go_is_not_asked_again_and_hides_nobody(phase):
    """The next one has served its time as well."""
    scene = Scene(template("t"))
    first = scene.agent("t", phase, revision="r0", age_s=900)
    second = scene.agent("t", phase, revision="r0", age_s=800)
    retires(scene, first)
    assert [a.name for a in scene.plan().actions] == [second]


def test_whoever_is_just_being_given_something_hides_nobody():
    """It is not taken out of service now; the next one is."""
    scene = Scene(template("t"))
    scene.agent("t", Phase.BUSY, revision="r0", age_s=900, executable_urls=())
    scene.computers[-1] = evolve(scene.computers[-1], executable_urls=())
    second = scene.agent("t", Phase.BUSY, revision="r0", age_s=800)
    assert [a.name for a in scene.plan().actions] == [second]


def test_whoever_is_held_is_named():
    """The whole refusal."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.HELD)
    (refusal,) = scene.plan().refusals
    assert refusal.subject == name
    assert refusal.text.endswith(": hands off")


def test_whoever_is_held_is_no_surplus_that_goes():
    """However many there are: it is somebody else's."""
    scene = Scene(template("t", cap=1))
    for _ in range(3):
        scene.agent("t", Phase.HELD)
    assert scene.plan().actions == ()


# --- who stays ---


def test_so_many_stay_warm_as_are_wanted():
    """The oldest go."""
    scene = Scene(template("t", min_idle=1, retention=IDLE_10))
    names = [scene.agent("t", Phase.IDLE, age_s=900 - n) for n in range(4)]
    assert list(retired(scene.plan())) == names[:3]


def test_the_end_of_whoever_stays_warm_is_not_waited_for():
    """It was one too many before the other one went."""
    scene = Scene(template("t", min_idle=1, retention=Retention(idle_s=600)))
    first = scene.agent("t", Phase.IDLE, idle_s=700, age_s=900)
    scene.agent("t", Phase.IDLE, idle_s=590, age_s=800)
    made = scene.plan()
    assert (list(retired(made)), made.wake_at) == ([first], None)


def test_whoever_makes_room_is_not_counted_among_the_warm_ones():
    """The other one stays."""
    scene = Scene(template("a", min_idle=1, retention=IDLE_10), template("b"), cap=2)
    first = scene.agent("a", Phase.IDLE, age_s=900)
    scene.agent("a", Phase.IDLE, age_s=800)
    scene.wait(item(1, "b"))
    assert retired(scene.plan()) == {first: Cause.YIELD}


@pytest.mark.parametrize("other", ["nominated", "closed", "asked to go"])
def test_whoever_is_no_warm_one_any_more_is_not_counted_among_them(other):
    """However idle it is; so the one beside it stays."""
    scene = Scene(template("t", "t", "x", min_idle=1, retention=IDLE_10))
    closed = {"closed_at": NOW - 60, "closed_looks": 2} if other == "closed" else {}
    first = scene.agent("t", Phase.IDLE, age_s=900, **closed)
    second = scene.agent("t", Phase.IDLE, age_s=800)
    if other == "nominated":
        scene.wait(item(1, "t"))
    elif other == "asked to go":
        retires(scene, first)
    assert second not in retired(scene.plan())


def test_whoever_was_asked_to_go_is_no_surplus():
    """Its place is counted as free already."""
    scene = Scene(template("t", cap=2, retention=Retention(idle_s=None)))
    first, *_ = [scene.agent("t", Phase.IDLE, age_s=900 - n) for n in range(3)]
    retires(scene, first)
    assert scene.plan().actions == ()
