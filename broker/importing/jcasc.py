"""Clouds in YAML of Configuration as Code: alone, in several documents, in texts of other YAML.

Other YAML is a ConfigMap, or the values of a Helm chart. Pure. Every single value becomes the text
that is written there, as in a controller's own file. Refuses to know what a cloud means.
"""

import re
from collections.abc import Iterator
from typing import Any

from broker.config import tree
from broker.importing.found import Cloud, Found, NotReadable

_DOCUMENT = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_BLOCK = re.compile(r"^(?=[A-Za-z_\"'])", re.MULTILINE)
_DEEPEST = 3  # texts in texts
_MOST_SAID = 20


def read(text: str) -> Found:
    """Return the clouds of a file. Raises ``NotReadable``."""
    found = Found(has_variables=True)
    _documents(text, found, 0, "line")
    if found.remarks and not found.clouds:
        raise NotReadable(found.remarks[0])
    del found.remarks[_MOST_SAID:]
    return found


def _documents(text: str, found: Found, depth: int, where: str) -> None:
    """Take up all documents of a text; one that cannot be read costs only the part that is odd."""
    line = 0
    for document in _DOCUMENT.split(text):
        whole = tree.parse(document)
        begins = line
        for part in [document] if whole.whole else _BLOCK.split(document):
            told = whole if whole.whole else tree.parse(part)
            if len(found.remarks) <= _MOST_SAID:
                found.remarks += [f"{where} {begins + f.line}: {f.text}" for f in told.faults]
            _collect(told_as_text(told), found, depth)
            begins += part.count("\n")
        line += document.count("\n")


def told_as_text(told: tree.Tree) -> Any:
    """Return the data with every single value as it is written."""
    return _as_text(told.data, told, ())


def plain(told: tree.Tree) -> Any:
    """Return the data; dates and what could not be read as the text that is written."""
    return _plain(told.data, told, ())


def _plain(value: Any, told: tree.Tree, path: tree.Path) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part, told, (*path, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part, told, (*path, number)) for number, part in enumerate(value)]
    if value is None or not isinstance(value, str | int | float | bool):
        return told.written.get(path)
    return value


def _as_text(value: Any, told: tree.Tree, path: tree.Path) -> Any:
    if isinstance(value, dict):
        return {key: _as_text(part, told, (*path, key)) for key, part in value.items()}
    if isinstance(value, list):
        return [_as_text(part, told, (*path, number)) for number, part in enumerate(value)]
    if path in told.written:
        return told.written[path]
    return value if value is None or isinstance(value, str) else str(value)


def _collect(data: Any, found: Found, depth: int) -> None:
    if isinstance(data, dict):
        if isinstance(data.get("clouds"), list | dict):
            found.clouds += _clouds(data["clouds"])
        location = data.get("location")
        url = location.get("url") if isinstance(location, dict) else None
        if isinstance(url, str) and not found.url:
            found.url = url
        for key, value in data.items():
            if key not in {"clouds", "location"}:
                _collect(value, found, depth)
    elif isinstance(data, list):
        for value in data:
            _collect(value, found, depth)
    elif isinstance(data, str) and depth < _DEEPEST and "clouds:" in data:
        _documents(data, found, depth + 1, "in a text of the file, its line")


def _clouds(told: Any) -> Iterator[Cloud]:
    """Yield the clouds of a list of ``{kind: {...}}``."""
    for entry in told if isinstance(told, list) else [told]:
        if isinstance(entry, dict):
            for kind, fields in entry.items():
                yield Cloud(str(kind), fields if isinstance(fields, dict) else {})
        elif isinstance(entry, str) and entry:
            yield Cloud(entry, {})
