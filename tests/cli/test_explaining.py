"""``explain`` beside a broker: what it leaves alone just now is said of who serves."""

import pytest

from broker.cli import configuring
from broker.core.decide import explain
from tests.core.worlds import B, Scene, template


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


def test_a_paused_template_says_so():
    scene = Scene(template("t", paused=True))
    (answer,) = explain.explain_label("t", scene.policy)
    assert configuring.held_up(answer, scene.policy, []).text.endswith("; it is paused")
