"""The manual of each kind of backend names every setting that its classes read.

``UPDATE_GOLDEN=1 pytest tests/project/test_manuals.py`` writes the tables of the large kinds anew,
out of what is said where a setting is declared.
"""

import re
import typing

import attrs
import pytest

from backends import registry
from broker.config import describing, reading
from tests.project import test_docs as docs

WRITTEN = ("docker", "mesos", "swarm")
"""Kinds with more settings than a page tells in passing."""


def rows(cls, prefix=""):
    """Yield path, default and meaning of every setting, also of those inside."""
    for attribute in attrs.fields(cls):
        path = f"{prefix}{reading.key_of(attribute)}"
        text = describing.described_text(attribute)
        default = describing.default_text(attribute).replace("``", "")
        if isinstance(attribute.default, tuple) and attribute.default:
            default = ", ".join(f"`{one}`" for one in attribute.default)
        kind, _ = reading.optional_of(attribute.type)
        items = typing.get_args(kind)
        if attrs.has(kind):
            yield path, "", text
            yield from rows(kind, f"{path}.")
        elif typing.get_origin(kind) is tuple and attrs.has(items[0]):
            yield path, "", text
            yield from rows(items[0], f"{path}[].")
        elif typing.get_origin(kind) is dict and len(items) == 2 and attrs.has(items[1]):
            yield path, "", text
            yield from rows(items[1], f"{path}.NAME.")
        else:
            yield path, default, text


def table(kind):
    """Return both tables of a kind: of the backend, and of a template on it."""
    made = ""
    for cls, prefix in (
        (registry.settings_class(kind), "backends.NAME."),
        (registry.template_settings_class(kind), f"templates.NAME.{kind}."),
    ):
        made += "| setting | default | what it is |\n|---|---|---|\n"
        for path, default, text in rows(cls, prefix):
            clean = re.sub(r"``", "`", text).replace("|", "\\|").replace("None:", "Without it:")
            made += f"| `{path}` | {default} | {clean} |\n"
        made += "\n"
    return made


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_settings_in_the_manual_are_those_of_the_code(kind):
    """Each with its default, and with what is said where it is defined."""
    assert table(kind) == docs.table_in(
        docs.DOCS / "backends" / f"{kind}.md", "settings", table(kind)
    )


@pytest.mark.parametrize("kind", sorted(registry.KINDS))
def test_every_setting_of_a_kind_is_in_its_manual(kind):
    """By the key that a user writes, of the backend and of its templates."""
    page = (docs.DOCS / "backends" / f"{kind}.md").read_text()
    for cls in (registry.settings_class(kind), registry.template_settings_class(kind)):
        keys = [reading.key_of(attribute) for attribute in attrs.fields(cls)]
        assert [key for key in keys if not re.search(rf"`(?:[\w.]+\.)?{key}`", page)] == []


@pytest.mark.parametrize("kind", WRITTEN)
def test_every_setting_says_what_it_is(kind):
    """A row that is empty tells a user nothing."""
    for cls in (registry.settings_class(kind), registry.template_settings_class(kind)):
        silent = [path for path, _, text in rows(cls) if not text]
        assert silent == []
