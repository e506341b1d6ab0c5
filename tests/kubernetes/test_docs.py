"""The manual says what the code says.

``python -m tests.kubernetes.test_docs`` writes the table of states anew.
"""

import pathlib

import attrs
import pytest

from backends.kubernetes import settings, table
from broker.config import reading

MANUAL = pathlib.Path(__file__).parents[2] / "docs" / "backends" / "kubernetes.md"
BEGIN, END = "<!-- table: ", "<!-- end of table -->"


def made() -> str:
    """Return the table of reasons as Markdown."""
    rows = ["| where | reason | death certificate | in words |", "|---|---|---|---|"]
    rows += [f"| {r.where.value} | `{r.reason}` | {r.slug} | {r.text} |" for r in table.TABLE]
    return "\n".join(rows)


def split(text: str) -> tuple[str, str, str]:
    """Return what is before the table, the table, and what is after it."""
    head, rest = text.split(BEGIN, 1)
    mark, rest = rest.split("\n", 1)
    found, tail = rest.split(END, 1)
    return f"{head}{BEGIN}{mark}\n", found.strip(), f"{END}{tail}"


def test_the_table_of_states_is_the_code_s() -> None:
    """Made from it, not written beside it."""
    assert made() == split(MANUAL.read_text())[1]


@pytest.mark.parametrize("cls", [settings.KubernetesSettings, settings.KubernetesTemplate])
def test_every_setting_is_in_the_manual(cls: type) -> None:
    """By the name that it has in the file."""
    text = MANUAL.read_text()

    assert [] == [a.name for a in attrs.fields(cls) if f"`{reading.key_of(a)}`" not in text]


if __name__ == "__main__":
    head, _, tail = split(MANUAL.read_text())
    MANUAL.write_text(f"{head}{made()}\n{tail}")
