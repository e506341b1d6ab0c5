"""What builds on a node are told, as the controller's own XML has it."""

import json
import pathlib
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from jnlp import environment, node

OURS = re.compile(r"PORT_\d{1,5}|HOST_ADDRESS")
RECORDED = pathlib.Path(__file__).parents[1] / "recordings/jenkins/nodes/01-create.json"
EMPTY = '<?xml version="1.1"?>\n<slave>\n  <name>a</name>\n  <nodeProperties/>\n</slave>'
KEPT = "<io.jenkins.plugins.casc.core.CascKeepNode/>"


def recorded():
    """Return the file of a node that a person has given an environment (2.263)."""
    found = re.search(
        r"<slave>(?:(?!</slave>).)*EnvironmentVariablesNodeProperty.*?</slave>",
        json.dumps(json.loads(RECORDED.read_text())),
        re.DOTALL,
    )
    return json.loads(f'"{found[0]}"')


def test_what_the_controller_wrote_is_read_and_kept():
    """Another person's variables stay, in the order that the map has."""
    text = recorded()
    assert {"FOO": "bar", "HTTP_PROXY": "http://localhost:3128"} == environment.of(text)
    told = environment.with_variables(text, {"PORT_80": "31000", "HOST_ADDRESS": "h"}, ours=OURS)
    assert ["FOO", "HOST_ADDRESS", "HTTP_PROXY", "PORT_80"] == list(environment.of(told))
    assert told == environment.with_variables(
        told, {"HOST_ADDRESS": "h", "PORT_80": "31000"}, ours=OURS
    )
    again = environment.with_variables(told, {"PORT_81": "31001"}, ours=OURS)
    assert ["FOO", "HTTP_PROXY", "PORT_81"] == list(environment.of(again))
    assert environment.of(text) == environment.of(environment.with_variables(again, {}, ours=OURS))


@pytest.mark.parametrize(
    "text",
    [
        EMPTY,
        EMPTY.replace("  <nodeProperties/>\n", ""),
        EMPTY.replace("<nodeProperties/>", f"<nodeProperties>\n{KEPT}\n</nodeProperties>"),
    ],
)
def test_nothing_else_changes(text):
    """Other properties, and everything around them, go back byte for byte."""
    told = environment.with_variables(text, {"PORT_80": "31000"}, ours=OURS)
    assert {"PORT_80": "31000"} == environment.of(told)
    assert (KEPT in text) == (KEPT in told)
    assert node.is_kept(told) == node.is_kept(text)
    without = environment.with_variables(told, {}, ours=OURS)
    assert node.properties_of(text) == node.properties_of(without)
    assert text == environment.with_variables(text, {}, ours=OURS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "x"),
        ("PORT_80", "a\nb"),
        ("PORT_80", "ü"),
        ("port 80", "1"),
        ("PORT_80", "x" * 513),
    ],
)
def test_what_cannot_be_told(name, value):
    """Only our own names, and values that every charset has."""
    with pytest.raises(ValueError, match="cannot be told"):
        environment.with_variables(EMPTY, {name: value}, ours=OURS)


@pytest.mark.parametrize(
    "change",
    [
        ("<int>2</int>", "<int>3</int>"),
        ("<string>bar</string>", "<text>bar</text>"),
        ("<comparator", "<order"),
        ("<envVars", "<hudson.slaves.EnvironmentVariablesNodeProperty/><envVars"),
    ],
)
def test_what_cannot_be_read_is_left_alone(change):
    """Rather no variable of ours than one of somebody else lost."""
    text = recorded()
    assert change[0] in text
    with pytest.raises(ValueError, match="cannot be read"):
        environment.with_variables(text.replace(*change, 1), {"PORT_80": "1"}, ours=OURS)


@hypothesis.given(
    st.dictionaries(
        st.sampled_from(["PORT_1", "PORT_22", "HOST_ADDRESS"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    )
)
def test_what_is_written_is_read(variables):
    """Whatever stands in a value."""
    told = environment.with_variables(EMPTY, variables, ours=OURS)
    assert variables == environment.of(told)
    assert "a" == node.name_of(told)
