"""Whoever counts things in a message says them right: one agent, two agents."""

import ast
import pathlib
import re

import pytest

from outside import counts

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = [
    path
    for package in ("backends", "broker", "jnlp", "outside")
    for path in sorted((ROOT / package).rglob("*.py"))
]
NOUNS = (
    "agents builds bytes certificates characters checks computers containers entries executors "
    "failures files finalizers hosts instances items jobs layers lines nodes places pods processes "
    "seconds settings tasks templates warnings"
)
COUNTED = re.compile(rf" (?:more |unknown |waiting |mesos )*(?:{'|'.join(NOUNS.split())})\b", re.I)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (counts.told(0, "agent"), "0 agents"),
        (counts.told(1, "agent"), "1 agent"),
        (counts.told(1.0, "second"), "1 second"),
        (counts.told(2, "agent"), "2 agents"),
        (counts.told(1234567, "byte"), "1234567 bytes"),
        (counts.told(1, "process", "processes"), "1 process"),
        (counts.told(3, "needs help", "need help"), "3 need help"),
    ],
)
def test_a_number_and_its_noun(words, said):
    assert words == said


def bare(path):
    """Yield what of a module's texts has a number before a noun that does not go with it.

    A constant, by its name or as what it is, is known to be more than one.
    """
    for text in ast.walk(ast.parse(path.read_text())):
        if not isinstance(text, ast.JoinedStr):
            continue
        for value, after in zip(text.values, text.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            what = ast.unparse(value.value)
            if COUNTED.match(after.value) and not what.split(".")[-1].lstrip("_").isupper():
                yield f"{path.relative_to(ROOT)}:{text.lineno}: {{{what}}}{after.value[:20]}"


def test_no_message_counts_by_itself():
    """``counts.told`` does, so that nobody reads of 1 agents."""
    assert [found for path in SOURCES for found in bare(path)] == []


def test_a_message_that_counts_by_itself_would_be_found(tmp_path, monkeypatch):
    module = tmp_path / "m.py"
    module.write_text(
        'a = f"{len(x)} agents"\nb = f"{told(1)} of"\nc = f"{n} more pods, {_MAX} items"'
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert [one.split(": ")[1] for one in bare(module)] == ["{len(x)} agents", "{n} more pods, "]
