"""Who would serve a label, and why not that one."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import capacity, explain
from broker.core.demand import labels
from broker.core.fleet import agents as agents_
from tests.core.worlds import B, Scene, item, template

SCENE_TEMPLATES = (
    template("maven", "maven", "linux"),
    template("any", "linux", exclusive=False, takes_unlabelled=True),
)


def answers(expression, room=None):
    scene = Scene(*SCENE_TEMPLATES)
    return {
        a.template: (a.serves, a.text)
        for a in explain.explain_label(expression, scene.policy, room)
    }


def test_each_template_answers_for_itself():
    """In order of preference; who does not serve says what is missing."""
    found = answers("maven && linux")
    assert ["maven", "any"] == list(found)
    assert (True, "has linux, maven") == found["maven"]
    assert (False, "has linux, does not have maven") == found["any"]


def test_no_label_at_all():
    """Goes to those that take it."""
    assert {
        "maven": (False, "takes no items without a label"),
        "any": (True, "takes items without a label"),
    } == answers(" ")


def test_whatever_is_missing_is_said_to_those_that_do_not_serve():
    """Whoever serves lacks nothing, though the expression names more."""
    assert (False, "has linux, does not have a, b") == answers("b && a")["any"]
    assert (True, "has linux") == answers("linux || windows")["any"]
    scene = Scene(attrs.evolve(template("bare"), labels=frozenset()))
    (answer,) = explain.explain_label("x", scene.policy)
    assert "has no label, does not have x" == answer.text


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("linux && !maven", "has linux, maven, must not have maven"),
        ("!linux && !windows", "has linux, maven, must not have linux"),
        ("windows && !maven", "has linux, maven, does not have windows, must not have maven"),
        ("a && b && c && d", "has linux, maven, does not have a, b, c, d"),
    ],
)
def test_what_is_denied_is_not_missing(expression, text):
    """``!windows`` asks for nothing that a template without it lacks."""
    assert answers(expression)["maven"] == (False, text)


def test_with_the_room_of_this_moment():
    """Whether an agent could start right now, and if not, why."""
    scene = Scene(*SCENE_TEMPLATES)
    room = capacity.count(
        scene.world(), scene.policy, agents_.observe(scene.world(), scene.policy)[0]
    )
    assert (True, f"has linux, maven; would start on backend {B}") == answers("maven", room)[
        "maven"
    ]
    assert (False, "has linux, does not have maven") == answers("maven", room)["any"]
    scene = Scene(*SCENE_TEMPLATES, cap=0)
    room = capacity.count(scene.world(), scene.policy, ())
    assert "has linux, maven; not now: 0 of 0 agents in all" == answers("maven", room)["maven"][1]


def test_a_malformed_expression_is_told_as_such():
    """Not answered with "nobody"."""
    with pytest.raises(labels.LabelError):
        answers("a &&")


def test_while_the_controller_is_away_no_agent_is_said_to_be_ordered():
    """What was known last is kept, but for what was about to happen."""
    scene = Scene(template("t"))
    scene.wait(item(1, "t"), item(2, "nobody"))
    last = scene.plan()
    before = {one.item: one for one in last.unmet}
    away = model.ControllerView(error="unreachable: refused")
    after = {one.item: one for one in explain.unsure(last, away).unmet}
    assert before[1].reason is model.WaitReason.AGENT_ORDERED
    assert after[2] == before[2]
    assert after[1].reason is model.WaitReason.NOT_SYNCED
    assert after[1].text == (
        "the controller's state is unknown (unreachable: refused): nothing is ordered; "
        f"at the last look {before[1].text}"
    )
