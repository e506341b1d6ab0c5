"""Sections in a platform's own words, such as pod YAML: read as their usual readers read them.

A settings class says of such a field what kinds of value it has: ``metadata={"raw": KINDS}``. Of
what YAML 1.1 made another kind than belongs there the written text counts, with a warning, before
anybody judges it. Refuses to know any platform.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from backends.kit import misfits, remarks
from broker.config import reading, tree
from broker.config.settings import KindClasses


def mended(
    told: tree.Tree, kinds: Mapping[str, KindClasses]
) -> tuple[tree.Tree, tuple[remarks.Remark, ...]]:
    """Return a file with those sections as they are meant, and what is to be said of it.

    The paths of the remarks begin at the file's top. A fault of the text, such as the octal number
    0123, is none where a text belongs.
    """
    found: list[remarks.Remark] = []
    for section, key, where, table in _sections(told.data, kinds):
        section[key], said = table.mended(section[key], told.written, (*where, key))
        found += said
    meant = {remark.path for remark in found}
    faults = [fault for fault in told.faults if fault.path not in meant]
    return attrs.evolve(told, faults=faults), tuple(found)


def _sections(
    data: Any, kinds: Mapping[str, KindClasses]
) -> Iterator[tuple[dict[str, Any], str, tree.Path, misfits.Forms]]:
    """Yield each section that holds such a field, the field's key, its path, and the table."""
    for name, backend in _sections_of(data, "backends"):
        kind = backend.get("kind")
        if isinstance(kind, str) and kind in kinds:
            yield from _fields(backend, ("backends", name), kinds[kind].settings)
    templates: list[tuple[tree.Path, dict[str, Any]]]
    templates = [(("templates", name), entry) for name, entry in _sections_of(data, "templates")]
    if isinstance(data, dict) and isinstance(data.get("defaults"), dict):
        templates.append((("defaults",), data["defaults"]))
    for path, entry in templates:
        for kind, classes in kinds.items():
            if isinstance(entry.get(kind), dict):
                yield from _fields(entry[kind], (*path, kind), classes.template_settings)


def _sections_of(data: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    section = data.get(key) if isinstance(data, dict) else None
    for name, entry in section.items() if isinstance(section, dict) else ():
        if isinstance(entry, dict):
            yield name, entry


def _fields(
    section: dict[str, Any], path: tree.Path, cls: type[Any]
) -> Iterator[tuple[dict[str, Any], str, tree.Path, misfits.Forms]]:
    for attribute in attrs.fields(cls):
        key, table = reading.key_of(attribute), attribute.metadata.get("raw")
        if table is not None and key in section:
            yield section, key, path, table
