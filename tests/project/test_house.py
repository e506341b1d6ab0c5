"""Where things live: every room, kind and decision is where the documents say that it is."""

import importlib
import pathlib
import re

from backends import registry
from tests.contract import conftest as contract

ROOT = pathlib.Path(__file__).parents[2]
DECISIONS = ROOT / "docs" / "decisions"


# --- decisions ---


def decisions():
    """Return number and path of each decision, in order."""
    return [(int(path.name[:4]), path) for path in sorted(DECISIONS.glob("[0-9]*.md"))]


def test_a_decision_has_a_number_of_its_own():
    """In the name of its file and, alike, in its heading."""
    numbers = [number for number, _ in decisions()]
    assert sorted(set(numbers)) == numbers
    for number, path in decisions():
        assert re.match(rf"# {number}\. \S", path.read_text()), path.name


def test_the_index_of_decisions_is_complete():
    """With each decision's own heading, and in order."""
    rows = [
        f"| {number} | [{path.read_text().splitlines()[0].split('. ', 1)[1]}]({path.name}) |"
        for number, path in decisions()
    ]
    index = (DECISIONS / "README.md").read_text().splitlines()
    assert rows == [line for line in index if re.match(r"\| \d", line)]


def test_who_names_a_decision_names_one_that_exists():
    """By its number or by its file: in code, tests and documents."""
    numbers = {number for number, _ in decisions()}
    named = 0
    for path in sources("*.py", "*.md", "*.toml", "*.sh"):
        text = path.read_text()
        told = re.findall(r"\bdecisions?[ /](?:0{0,3})(\d{1,4})\b", text, re.I)
        assert {int(number) for number in told} <= numbers, path
        named += len(told)
    assert named > 10


def sources(*patterns):
    """Yield what we wrote ourselves: no libraries, no recordings."""
    for folder in (
        "backends",
        "benchmarks",
        "broker",
        "docs",
        "examples",
        "jnlp",
        "outside",
        "tests",
    ):
        for pattern in patterns:
            for path in sorted((ROOT / folder).rglob(pattern)):
                if "recordings" not in path.parts:
                    yield path
    for pattern in patterns:
        yield from sorted(ROOT.glob(pattern))


# --- kinds of backends ---


def test_every_kind_has_a_harness_a_manual_an_example_and_a_row():
    """KINDS == HARNESSES == MANUALS == EXAMPLES == ROWS: none forgotten, none left over."""
    kinds = sorted(registry.KINDS)
    manuals = [path.stem for path in sorted((ROOT / "docs" / "backends").glob("*.md"))]
    readme = (ROOT / "README.md").read_text().split("## Where agents run")[1].split("\n## ")[0]
    assert kinds == sorted(contract.HARNESSES)
    assert kinds == manuals
    assert kinds == sorted(re.findall(r"^\| `(\w+)` \|", readme, re.M))
    for kind in kinds:
        assert f"](docs/backends/{kind}.md)" in readme, kind
        examples = (ROOT / "examples" / kind).rglob("broker*.yaml")
        assert any(f"kind: {kind}" in path.read_text() for path in examples), kind


def test_a_harness_is_what_the_suite_asks_for():
    """The module that is named for a kind exists, and can open a platform."""
    for kind, name in contract.HARNESSES.items():
        assert callable(importlib.import_module(name).open_harness), kind


def test_whatever_is_a_backend_is_in_the_registry():
    """A folder under ``backends/`` is a kind, or is named here as what all of them may know."""
    folders = {
        path.parent.name
        for path in (ROOT / "backends").glob("*/__init__.py")
        if path.parent.name != "kit"
    }
    assert folders <= set(registry.KINDS)
