"""Agents that are to have nothing more where they run: what is said of them, and what holds it up."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.model import Cause, Phase
from tests.core.test_places import BAD, NORTH, SOUTH, black_hole, fates, scene_of
from tests.core.test_plan_rules import drafted
from tests.core.worlds import NOW, B, Scene, item, template

AVOIDED = "its place is avoided: they die there"


def test_one_that_is_given_nothing_more_is_named_and_hides_no_other():
    """The whole refusal; the next agent serves as ever."""
    scene = black_hole(scene_of(Phase.IDLE))
    first, second = scene.computers[0].name, scene.agent("linux", Phase.IDLE)
    scene.wait(item(1, "linux"))
    draft = drafted(scene)
    assert draft.refusals == [model.Refusal(subject=first, text=f"{AVOIDED}: not counted")]
    assert [supply.name for supply in draft.supplies] == [second]


def test_whose_end_is_announced_is_given_nothing_more():
    """The whole action: its platform says why."""
    scene = scene_of(Phase.IDLE)
    scene.instances[B] = [attrs.evolve(i, ends_because="it drains") for i in scene.instances[B]]
    expected = model.CordonAgent(
        name=scene.computers[0].name,
        reason="its platform will end it: it drains",
        cause=Cause.ANNOUNCED,
        online=True,
        idle=True,
    )
    assert scene.plan().actions == (expected,)


def test_it_is_taken_out_of_service_in_so_many_words():
    """The whole action."""
    scene = black_hole(scene_of(Phase.IDLE))
    expected = model.CordonAgent(
        name=scene.computers[0].name,
        reason=AVOIDED,
        cause=Cause.BLACK_HOLE,
        online=True,
        idle=True,
    )
    assert scene.plan().actions == (expected,)


@pytest.mark.parametrize(
    ("quieting_down", "session_at", "why"),
    [
        (True, NOW - 9999, "the controller is about to shut down"),
        (False, NOW - 10, "a pipeline may still ask for it after the start"),
    ],
)
def test_what_holds_that_up_is_said(quieting_down, session_at, why):
    """The whole refusal; when time alone ends it, that is waited for."""
    scene = black_hole(scene_of(Phase.IDLE, busy_session="s0", age_s=99_999))
    scene.quieting_down = quieting_down
    scene.ledger = attrs.evolve(scene.ledger, session_at=session_at)
    made = scene.plan()
    assert made.actions == ()
    text = f"may go ({AVOIDED}), stays because {why}"
    assert made.refusals[-1] == model.Refusal(subject=scene.computers[0].name, text=text)
    rested_at = session_at + scene.policy.resume_grace_s
    assert made.wake_at == (None if quieting_down else rested_at)


def test_an_item_that_waits_for_a_start_is_told_where_none_is_made():
    """That may be why it takes long."""
    scene = black_hole(scene_of(Phase.CONNECTING, place=SOUTH, age_s=5.0))
    scene.wait(item(1, "linux"))
    (wait,) = scene.plan().unmet
    assert wait.text == f"agent {wait.agent} is starting for it; north is avoided: they die there"


@pytest.mark.parametrize("told_by", ["the platform", "an agent there"])
def test_a_place_is_avoided_where_there_is_another_one(told_by):
    """The backend tells its places, or agents show them."""
    scene = Scene(template("linux"))
    scene.ledger = attrs.evolve(scene.ledger, fates=fates((NORTH, 4, BAD)))
    if told_by == "the platform":
        scene.capacity[B] = backends_api.Capacity(places=(NORTH, SOUTH))
    else:
        scene.agent("linux", Phase.BUSY)
        scene.instances[B] = [attrs.evolve(i, place=SOUTH) for i in scene.instances[B]]
    scene.wait(item(1, "linux"))
    (launch,) = scene.plan().actions
    assert launch.avoid == (NORTH,)
