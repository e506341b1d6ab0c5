"""Brokers of other owners on the same controller: what they have is supply; one goes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import model
from broker.core.fleet import marks, neighbours
from broker.core.model import Phase, WaitReason
from tests.core.worlds import NOW, OWNER, Scene, actions, item, launches, reasons, template, texts
from tests.each import each

LOWER, HIGHER = "a", "z"


def theirs(scene, owner=LOWER, *labels, age_s=10.0, number=1, **more):
    """An agent of another owner; offline unless it is said to be online."""
    owned = marks.Marks(
        owner=owner, template="x", backend="b", revision="r", created_at=NOW - age_s
    )
    name = model.NodeName(f"{owner}-x-{number}")
    fields = {"offline": True, "labels": frozenset({*labels, name}), **more}
    scene.computers.append(model.Computer(name=name, description=owned.description(), **fields))
    return name


def claimed(scene, owner):
    scene.computers.append(
        model.Computer(
            name=marks.placeholder_name(owner),
            offline=True,
            description="words [agent-broker held by 0abc since 12]",
        )
    )


def planned(scene, at):
    """Plan at a time, and remember what was learnt."""
    scene.now = at
    made = scene.plan()
    scene.ledger = made.ledger
    return made


@each(
    ("labels", "more", "item_age_s", "is_supply"),
    [
        (("t",), {}, 1, True),  # on its way
        (("t",), {"age_s": 119}, 1, True),
        (("t",), {"age_s": 120}, 1, False),  # it does not come
        (("t",), {"age_s": -5}, 1, False),  # of a time to come: no clock of ours
        (("t",), {}, 120, False),  # the item has waited long enough
        (("u",), {}, 1, False),
        (("t",), {"temporarily_offline": True}, 1, False),
        (("t",), {"offline": False, "age_s": 9999}, 1, True),  # free
        (("t",), {"offline": False}, 15, False),  # free, and given nothing
        (("t",), {"offline": False, "idle": False, "busy_executors": 1}, 1, False),
        (("t", model.RETIRED_LABEL), {"offline": False}, 1, False),
    ],
)
def test_what_another_owner_has_free_or_on_its_way_is_supply_for_a_while(
    labels, more, item_age_s, is_supply
):
    scene = Scene(template("t"))
    name = theirs(scene, HIGHER, *labels, **more)
    scene.wait(item(1, "t", age_s=item_age_s))
    made = scene.plan()
    assert launches(made) == ({} if is_supply else {"t": 1})
    if is_supply:
        (unmet,) = made.unmet
        assert unmet.agent == name
        assert unmet.text.endswith(f"(of owner {HIGHER})")
    assert "its broker works on this controller as well" in texts(made)


def test_our_own_idle_agent_and_theirs_are_one_supply():
    """Two items, one agent of each: nothing is ordered; of three items one is."""
    scene = Scene(template("t"))
    scene.agent("t", Phase.IDLE)
    theirs(scene, HIGHER, "t", offline=False)
    scene.wait(item(1, "t"), item(2, "t"))
    assert launches(scene.plan()) == {}
    scene.wait(item(3, "t"))
    assert launches(scene.plan()) == {"t": 1}


def test_nothing_of_another_owner_is_touched():
    scene = Scene(template("t"))
    name = theirs(scene, HIGHER, "t", offline=False)
    made = scene.plan()
    assert name not in {a.name for a in made.agents}
    assert made.actions == ()


@pytest.mark.parametrize(("owner", "waits"), [(LOWER, True), (HIGHER, False)])
def test_who_goes_second_leaves_it_to_the_other_for_a_moment(owner, waits):
    """And where nobody comes it orders, and does not wait again."""
    assert LOWER < OWNER < HIGHER
    scene = Scene(template("t"))
    claimed(scene, owner)
    scene.wait(item(1, "t"))
    made = planned(scene, NOW)
    if not waits:
        assert launches(made) == {"t": 1}
        return
    assert (launches(made), reasons(made)) == ({}, {1: WaitReason.NEIGHBOUR})
    assert made.wake_at == NOW + 1.5
    assert launches(planned(scene, NOW + 1.4)) == {}
    assert launches(planned(scene, NOW + 1.5)) == {"t": 1}
    scene.items = []
    planned(scene, NOW + 5)
    scene.wait(item(2, "t", age_s=-9))
    assert launches(planned(scene, NOW + 10)) == {"t": 1}


def test_as_long_as_more_and_more_comes_of_the_other_it_waits_on():
    scene = Scene(template("t"))
    claimed(scene, LOWER)
    scene.wait(*(item(n, "t") for n in range(1, 6)))
    assert launches(planned(scene, NOW)) == {}
    for number in range(1, 4):
        theirs(scene, LOWER, "t", number=number, age_s=0)
        assert launches(planned(scene, NOW + number)) == {}
    assert launches(planned(scene, NOW + 4.4)) == {}
    assert launches(planned(scene, NOW + 4.5)) == {"t": 2}


def test_a_claim_alone_is_a_neighbour_and_our_own_is_none():
    scene = Scene(template("t"))
    for owner in (OWNER, HIGHER):
        claimed(scene, owner)
    scene.computers.append(model.Computer(name="pet-placeholder", description="nobody's"))
    seen = neighbours.seen(scene.computers, OWNER, now=NOW)
    assert (seen.owners, seen.agents) == ((HIGHER,), ())
    assert (seen.goes_before(OWNER), seen.goes_before("zz")) == ("", HIGHER)


@given(
    waiting=st.integers(0, 8),
    ours=st.integers(0, 4),
    others=st.lists(st.tuples(st.sampled_from([LOWER, HIGHER]), st.booleans()), max_size=6),
    ages=st.sampled_from([1.0, 14.0, 16.0, 200.0]),
)
def test_of_two_owners_at_most_one_orders_and_never_more_than_what_nobody_has(
    waiting, ours, others, ages
):
    """Whatever both have: what one sees of the other lowers what it orders, by as much at most."""
    scene = Scene(template("t"))
    for _ in range(ours):
        scene.agent("t", Phase.IDLE)
    scene.wait(*(item(n, "t", age_s=ages) for n in range(1, waiting + 1)))
    alone = launches(scene.plan()).get("t", 0)
    for number, (owner, online) in enumerate(others):
        theirs(scene, owner, "t", number=number, offline=not online)
    together = launches(scene.plan()).get("t", 0)
    assert alone == max(0, waiting - ours)
    assert together <= alone
    if ages >= neighbours.COMES_WITHIN_S:
        assert together == alone
    if ages < neighbours.GIVEN_WITHIN_S:
        assert together in {0, max(0, alone - len(others))}
    assert not actions(scene.plan(), model.RetireAgent).keys() & {
        c.name for c in scene.computers if c.name.startswith((LOWER, HIGHER))
    }
