"""What a real controller made of labels, beside what the broker and the simulated one make of them.

Recorded from Jenkins 2.541.3 (2.516.3 says the same): 116 label strings of nodes and 610 texts of
items, of which some 200 were written by hand and the rest made at random. ``matches`` has one
digit for each of ``sets``; ``assigned`` is what an item with the text waits for.
"""

import json
import pathlib

import pytest

from broker.core.demand import labels
from broker.simulator import labels as simulated
from tests.each import each

RECORDED = json.loads(
    (
        pathlib.Path(__file__).parent.parent / "recordings/jenkins/labels/expressions.json"
    ).read_text()
)
SETS = [frozenset(one) for one in RECORDED["sets"]]
CACHED = {atom for one in RECORDED["strings"] for atom in one["atoms"]} | {'"a && b"'}
"""Texts of which the controller's cache of labels told something else: nodes' labels were read
before, and ``a && b`` was asked for before it was in quotes."""
TEXTS = [one for one in RECORDED["expressions"] if one["text"] not in CACHED]


def digits(fits):
    return "".join(str(int(fits(one))) for one in SETS)


def test_there_are_enough():
    """A recording that lost its content does not pass as success."""
    assert len(TEXTS) > 500
    assert sum("error" in one for one in TEXTS) > 30


@each("one", TEXTS, ids=lambda one: ascii(one["text"])[:60])
def test_the_broker_reads_an_expression_as_the_controller_does(one):
    """What is none is none; of the others every set of labels fits or does not."""
    if "error" in one:
        with pytest.raises(labels.LabelError):
            labels.parse(one["text"])
        return
    read = labels.parse(one["text"])
    assert one["matches"] == digits(read.matches)
    assert one["matches"] == digits(labels.parse(read.canonical()).matches)


@each("one", TEXTS, ids=lambda one: ascii(one["text"])[:60])
def test_the_simulated_controller_reads_it_as_the_real_one_does(one):
    """By a reading of its own: the expression, how it is written, and what an item waits for."""
    if "error" in one:
        with pytest.raises(simulated.NoExpression):
            simulated.parse(one["text"])
    else:
        read = simulated.parse(one["text"])
        assert (one["matches"], one["name"]) == (digits(read.fits), read.name)
    waits = simulated.of(one["text"])
    assert (one["assigned"]["matches"], one["assigned"]["name"]) == (
        digits(waits.fits),
        waits.name,
    )
