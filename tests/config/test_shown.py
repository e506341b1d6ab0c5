"""Values in messages are written as YAML writes them: a person has never typed ``None``."""

import datetime as dt

from broker import config
from broker.config import kinds, loading, values
from tests.each import each

HEAD = "owner: o\ncontroller: {url: 'https://c/', user: u, token: 'env:T'}\nlisten: \"off\"\n"


@each(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ([False, None, 1, "a"], "[false, nothing, 1, 'a']"),
        ({"a": {"b": True}, 1: None}, "{a: {b: true}, 1: nothing}"),
        ("it's C:\\x", '"it\'s C:\\x"'),
        ("a\nb\x1b\ud800", "'a\\nb\\x1b\\ud800'"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (1.5, "1.5"),
        ([[[[1]]]], "[[[…]]]"),
        ("x" * 100, "'" + "x" * 78 + "…"),
    ],
)
def test_a_value_is_written_as_in_the_file(value, text):
    """Cut to what a line bears, with nothing that could steer a terminal."""
    assert text == values.shown(value)
    assert len(values.shown(value)) <= 80


def test_a_list_that_holds_itself_has_an_end():
    """An anchor of YAML makes one."""
    endless = []
    endless.append(endless)
    assert "[[[…]]]" == values.shown(endless)


WRONG = [
    "null", "true", "{a: 1}", "[x, null]", "[[true]]", "12", "1.5", "2026-01-02", "''",
    '"a\\nb"', "{a: {b: null}}", "!!binary aGk=", "nan",
]  # fmt: skip
PLACES = [
    "templates: {{t: {{labels: a, cap: {0}}}}}",
    "templates: {{t: {{labels: {0}}}}}",
    "templates: {{t: {0}}}",
    "templates: {{t: {{labels: a, environment: {{A: {0}}}}}}}",
    "templates: {{t: {{labels: a, retention: {{idle: {0}}}}}}}",
    "templates: {{t: {{labels: a, retention: {{once: {0}}}}}}}",
    "templates: {{t: {{labels: a, warm: {{schedule: {0}}}}}}}",
    "backends: {0}\ntemplates: {{t: {{labels: a}}}}",
    "backends: {{b: {0}}}\ntemplates: {{t: {{labels: a}}}}",
    "backends: {{b: {{kind: {0}}}}}\ntemplates: {{t: {{labels: a}}}}",
    "backends: {{b: {{kind: docker, hosts: {0}}}}}\ntemplates: {{t: {{labels: a, image: i}}}}",
    "limits: {0}\ntemplates: {{t: {{labels: a}}}}",
    "poll: {{busy: {0}}}\ntemplates: {{t: {{labels: a}}}}",
]
PYTHON = (
    "None",
    "True",
    "False",
    "<class",
    "<enum",
    "datetime.",
    "found b'",
    "[b'",
    ": b'",
    "NoneType",
    " object at ",
)


@each("place", PLACES)
def test_no_message_speaks_python(place):
    """Whatever stands wherever."""
    said = []
    for wrong in WRONG:
        try:
            made = loading.parse(HEAD + place.format(wrong), kinds.classes(), environ={"T": "t"})
        except config.ConfigError as error:
            said += error.lines
        else:
            said += [warning.placed() for warning in made.warnings]
    assert said
    assert [line for line in said if any(word in line for word in PYTHON)] == []
