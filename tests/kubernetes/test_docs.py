"""The manual says what the code says.

``python -m tests.kubernetes.test_docs`` writes the tables of states and events anew.
"""

import pathlib

import attrs
import pytest

from backends.kubernetes import settings
from backends.kubernetes.pods import table
from broker.config import reading

MANUAL = pathlib.Path(__file__).parents[2] / "docs" / "backends" / "kubernetes.md"


def reasons() -> str:
    """Return the table of reasons as Markdown."""
    rows = ["| where | reason | death certificate | in words |", "|---|---|---|---|"]
    rows += [f"| {r.where.value} | `{r.reason}` | {r.slug} | {r.text} |" for r in table.TABLE]
    return "\n".join(rows)


def told() -> str:
    """Return the table of events as Markdown."""
    rows = ["| event | ends the pod | in words |", "|---|---|---|"]
    for row in table.EVENTS:
        having = f" with `{row.having}`" if row.having else ""
        having += f", {row.times} times" if row.times > 1 else ""
        text = row.text or "a step forward: nothing to tell"
        rows.append(f"| `{row.reason}`{having} | {row.slug or 'no'} | {text} |")
    return "\n".join(rows)


MADE = {"table": reasons, "events": told}


def split(text: str, name: str) -> tuple[str, str, str]:
    """Return what is before the table of that name, the table, and what is after it."""
    head, rest = text.split(f"<!-- {name}: ", 1)
    mark, rest = rest.split("\n", 1)
    end = f"<!-- end of {name} -->"
    found, tail = rest.split(end, 1)
    return f"{head}<!-- {name}: {mark}\n", found.strip(), f"{end}{tail}"


@pytest.mark.parametrize("name", MADE)
def test_the_tables_are_the_code_s(name: str) -> None:
    """Made from it, not written beside it."""
    assert MADE[name]() == split(MANUAL.read_text(), name)[1]


@pytest.mark.parametrize("cls", [settings.KubernetesSettings, settings.KubernetesTemplate])
def test_every_setting_is_in_the_manual(cls: type) -> None:
    """By the name that it has in the file."""
    text = MANUAL.read_text()

    assert [] == [a.name for a in attrs.fields(cls) if f"`{reading.key_of(a)}`" not in text]


if __name__ == "__main__":
    for name, made in MADE.items():
        head, _, tail = split(MANUAL.read_text(), name)
        MANUAL.write_text(f"{head}{made()}\n{tail}")
