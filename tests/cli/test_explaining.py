"""``explain`` beside a broker: what it leaves alone just now is said of who serves."""

import pytest

from broker.cli import configuring
from broker.core.decide import explain
from broker.core.model import Parameter, ParameterKind
from tests.core.worlds import B, Scene, template

IMAGE = Parameter(kind=ParameterKind.IMAGE, allow=("a:*",))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"scope": "template", "template": "t", "backend": B},
            "; left alone on local just now: x",
        ),
        ({"scope": "backend", "backend": B}, "; left alone on local just now: x"),
        ({"scope": "controller", "backend": None}, "; left alone just now: x"),
        ({"scope": "template", "template": "u", "backend": B}, ""),
        ({"scope": "backend", "backend": "elsewhere"}, ""),
        ({"scope": "place", "backend": B, "place": "host-1"}, ""),
    ],
)
def test_what_is_left_alone_just_now_is_said_of_the_templates_that_serve(row, words):
    """As the broker at work says it."""
    scene = Scene(template("t"))
    (answer,) = explain.explain_label("t", scene.policy)
    told = configuring.held_up(answer, scene.policy, [{**row, "text": "x"}])
    assert (told.serves, told.text) == (True, answer.text + words)
    (other,) = explain.explain_label("u", scene.policy)
    assert configuring.held_up(other, scene.policy, [{**row, "text": "x"}]) == other


@pytest.mark.parametrize(
    ("asked", "told"),
    [(["image=a:1"], True), (["image=a:2"], False), ([], False)],
)
def test_what_one_variant_is_left_alone_for_is_said_of_that_variant_only(asked, told):
    """A wrong image of one Jenkinsfile says nothing of the others."""
    scene = Scene(template("t", parameters={"image": IMAGE}))
    (answer,) = explain.explain_label("t && image=a:1", scene.policy)
    row = {"scope": "template", "template": "t", "backend": B, "asked": asked, "text": "x"}
    assert answer.serves
    assert ("left alone" in configuring.held_up(answer, scene.policy, [row]).text) == told


def test_a_paused_template_says_so():
    scene = Scene(template("t", paused=True))
    (answer,) = explain.explain_label("t", scene.policy)
    assert configuring.held_up(answer, scene.policy, []).text.endswith("; it is paused")
