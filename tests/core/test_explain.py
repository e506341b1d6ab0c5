"""Who would serve a label, and why not that one."""

import pytest

from broker.core.decide import capacity, explain
from broker.core.demand import labels
from broker.core.fleet import agents as agents_
from tests.core.worlds import B, Scene, template

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
    assert {"maven": False, "any": True} == {n: serves for n, (serves, _) in answers(" ").items()}


def test_with_the_room_of_this_moment():
    """Whether an agent could start right now, and if not, why."""
    scene = Scene(*SCENE_TEMPLATES)
    room = capacity.count(
        scene.world(), scene.policy, agents_.observe(scene.world(), scene.policy)[0]
    )
    assert answers("maven", room)["maven"][1].endswith(f"would start on backend {B}")
    scene = Scene(*SCENE_TEMPLATES, cap=0)
    room = capacity.count(scene.world(), scene.policy, ())
    assert "not now: 0 of 0 agents in all" in answers("maven", room)["maven"][1]


def test_a_malformed_expression_is_told_as_such():
    """Not answered with "nobody"."""
    with pytest.raises(labels.LabelError):
        answers("a &&")
