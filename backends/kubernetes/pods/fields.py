"""What a pod's fields are called, and which form of value each takes.

``known_fields.json`` holds them for all releases from 1.25 on, as the published schemas of
Kubernetes say; a test makes it from them. Its words are those of ``backends.kit.misfits`` and
``number32``, ``quantity``, ``port`` (a number, or the name of a port). Pure.
"""

import functools
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.kit import misfits

FILE = pathlib.Path(__file__).with_name("known_fields.json")
_QUANTITY = re.compile(r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?")
_NUMBER32 = "number32"


class PodForms(misfits.Forms):
    """The forms of a pod, or of whatever is made of pods."""

    def __init__(self, top: str) -> None:
        self.top = top

    def form(self, section: str, name: str) -> str:
        """Return what a field of a section takes; empty if no release knows it."""
        return known().get(section, {}).get(name, "").replace(_NUMBER32, misfits.NUMBER)

    def scalar(self, form: str, value: Any) -> str | None:
        """Return in words what belongs in the place of a plain value, None if it does."""
        match form:
            case "quantity":
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                fits = value >= 0 if is_number else _is_quantity(value)
                return None if fits else "a quantity, such as 500m or 2Gi"
            case "port":
                fits = isinstance(value, str) or type(value) is int
                return None if fits else "the number or the name of a port"
            case _:
                return super().scalar(form, value)


def _is_quantity(value: Any) -> bool:
    return isinstance(value, str) and _QUANTITY.fullmatch(value) is not None


KINDS = PodForms("Pod")
FRAGMENTS = PodForms("{Pod}")
"""Pods by names."""


def sections(pod: Mapping[str, Any]) -> Iterator[tuple[misfits.Path, str, Mapping[str, Any]]]:
    """Yield the sections of a pod with their types; what is no section is told by others."""
    left: list[tuple[misfits.Path, str, Any]] = [((), "Pod", pod)]
    while left:
        path, form, value = left.pop()
        if isinstance(value, Mapping) and form in known():
            yield path, form, value
            left += [
                ((*path, key), inner, value[key])
                for key, inner in known()[form].items()
                if key in value
            ]
        elif isinstance(value, Sequence) and form.startswith("["):
            left += [((*path, at), form[1:-1], entry) for at, entry in enumerate(value)]


def known() -> Mapping[str, Mapping[str, str]]:
    """Return by type the fields with their forms."""
    fields: Mapping[str, Mapping[str, str]] = _table()["fields"]
    return fields


def required() -> Mapping[str, Sequence[str]]:
    """Return by type the fields that nobody may leave out."""
    told: Mapping[str, Sequence[str]] = _table()["required"]
    return told


@functools.cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(FILE.read_text(), object_hook=_shared)
    return table


def _shared(section: dict[str, Any]) -> dict[str, Any]:
    """Keep one copy of each word of the table."""
    return {k: sys.intern(v) if isinstance(v, str) else v for k, v in section.items()}
