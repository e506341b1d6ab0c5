"""Where things live: every room, kind and decision is where the documents say that it is."""

import importlib
import pathlib
import re
import tomllib

import pytest

from backends import registry
from tests.contract import conftest as contract
from tests.project import test_docs as docs

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


# --- rooms ---


def rooms(*tops):
    """Yield every package and folder of code beneath, by its path."""
    for top in tops:
        for path in sorted((ROOT / top).rglob("__init__.py")):
            yield path.parent


def test_every_room_is_in_the_manual_of_the_house():
    """By its path, or as a folder of one that is named."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    for room in rooms("backends", "broker", "jnlp", "outside"):
        path = str(room.relative_to(ROOT))
        if path.count("/") == 2 and path.startswith("backends/"):
            row = re.search(rf"^\| `{room.parent.relative_to(ROOT)}/` \|.*$", page, re.M)
            assert row is not None, path
            assert f"`{room.name}/`" in row[0], path
        elif path != "broker":
            assert re.search(rf"^\| `{path}/` \|", page, re.M), path
    for module in sorted((ROOT / "broker").glob("[a-z]*.py")):
        assert f"`broker/{module.name}`" in page, module.name


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/glossary.md", "CONTRIBUTING.md"])
def test_whatever_path_a_guide_names_exists(page):
    """Also of folders, and of what is made for a KIND."""
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:backends|broker|docs|examples|jnlp|outside|tests)/[\w./-]*)`", text)
    for path in named:
        for kind in (
            sorted(registry.KINDS) if "KIND" in path and path != "backends/KIND/" else [""]
        ):
            assert (ROOT / path.replace("KIND", kind)).exists(), path
    assert len(named) > 5 or page.endswith("glossary.md")


def test_the_targets_that_the_guide_names_exist():
    """And it names every one."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split())
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert targets == set(re.findall(r"\bmake (?:[A-Z]+=\S+ )*([a-z]+)", text))


def test_the_floors_are_those_of_the_contracts():
    """Drawn from the configuration of import-linter."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    drawn = "```\n"
    for contract_ in told["contracts"]:
        if contract_["type"] == "layers":
            (container,) = contract_["containers"]
            width = max(len(layer) for layer in contract_["layers"])
            drawn += f"{container}: {contract_['name']}\n"
            drawn += "".join(
                f"    {layer.center(width).rstrip()}\n" for layer in contract_["layers"]
            )
            drawn += "\n"
    drawn = f"{drawn.rstrip()}\n```\n"
    assert drawn == docs.table_in(ROOT / "docs" / "architecture.md", "floors", drawn)


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
