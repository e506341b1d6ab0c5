"""What controllers of three ages take for a label expression, beside what we make of it.

The table is of core's own grammars, each run by the ANTLR that its controllers had; ``sources`` in
it names the commits. It has the examples of core's ``LabelExpressionTest`` and texts made at random;
among 40,000 of those no text meant two things: what differs is only which are expressions.
``today`` was held to the recording of a real controller (``expressions.json``).
"""

import itertools
import json
import pathlib

import pytest

from broker.core.demand import labels
from broker.simulator import labels as simulated
from tests.core import worlds
from tests.each import each

TABLE = json.loads(
    (pathlib.Path(__file__).parent.parent / "recordings/jenkins/labels/grammars.json").read_text()
)
SETS = [frozenset(one) for one in TABLE["sets"]]
VERSIONS = {
    "before 2.313": ("2.190", "2.312", "2.303.2", "2.289.1"),
    "before 2.376": ("2.313", "2.375", "2.303.3", "2.361.4", "2.375.4"),
    "today": ("2.376", "2.387.1", "2.541.3", "", "of somebody's own"),
}


def digits(fits):
    return "".join(str(int(fits(one))) for one in SETS)


def test_the_ages_differ():
    """A table in which nothing differs proves nothing."""
    ages = list(VERSIONS)
    for older, newer in itertools.pairwise(ages):
        assert sum(one[older] != one[newer] for one in TABLE["texts"]) > 30


AGES = [(age, version) for age, versions in VERSIONS.items() for version in versions]


@each(("age", "version"), AGES)
def test_the_broker_reads_as_the_controller_of_that_age(age, version):
    """What is an expression there is one here, and fits the same sets of labels."""
    grammar = labels.Grammar.of(version)
    assert not {
        one["text"] for one in TABLE["texts"] if _matches(one["text"], grammar) != one[age]
    }


@each(("age", "version"), [(age, v) for age, v in AGES if v[:1].isdigit()])
def test_the_simulated_controller_reads_as_the_real_one_of_that_age(age, version):
    """By its own reading."""
    era = simulated.Era.of(version)
    assert not {one["text"] for one in TABLE["texts"] if _simulated(one["text"], era) != one[age]}


@pytest.mark.parametrize(
    ("version", "typed", "why", "serves"),
    [
        ("2.303.2", "x->linux", "x->linux", False),
        ("2.303.2", "x -> linux", "x->linux", True),
        ("2.303.2", None, "x->linux", True),
        ("2.303.3", "x->linux", "x->linux", True),
        ("2.361.4", "linux||ä", "linux||ä", False),
        ("2.387.1", "linux||ä", "linux||ä", True),
    ],
)
def test_an_item_is_read_by_the_version_of_its_controller(version, typed, why, serves):
    """What it waits for is told without blanks, also where the controller needs them to read it."""
    scene = worlds.Scene(worlds.template("linux"))
    scene.version = version
    scene.wait(worlds.item(1, typed, why=f"There are no nodes with the label ‘{why}’"))
    assert bool(worlds.launches(scene.plan())) is serves


def _matches(text, grammar):
    try:
        return digits(labels.parse(text, grammar).matches)
    except labels.LabelError:
        return None


def _simulated(text, era):
    try:
        return digits(simulated.parse(text, era).fits)
    except simulated.NoExpression:
        return None
