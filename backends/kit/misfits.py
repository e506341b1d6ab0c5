"""Where a user's YAML says another kind of value than a platform's API takes.

Pure, on plain data. For one number where a text belongs an API refuses the whole of it, and YAML
makes numbers and truth values of what was meant as text: ``12:30`` is 750, ``off`` is false. The
tables go by a field's name wherever it stands; fields that are in none go through. Refuses to know
any platform: each has tables of its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from backends.kit.remarks import Remark

Path = tuple[str | int, ...]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


@frozen(kw_only=True)
class Kinds:
    """The names of fields by the kind of value that they take, separated by blanks."""

    texts: frozenset[str] = field(default="", converter=_names)
    lists: frozenset[str] = field(default="", converter=_names)  # of texts
    words: frozenset[str] = field(default="", converter=_names)  # a text, or a list of texts
    sections: frozenset[str] = field(default="", converter=_names)  # of texts, under any names
    numbers: frozenset[str] = field(default="", converter=_names)  # whole ones
    truths: frozenset[str] = field(default="", converter=_names)

    def remarks(self, told: Mapping[str, Any], path: Path) -> Iterator[Remark]:
        """Say what of a section, as a user wrote it at ``path``, is of another kind."""
        yield from self._inside(told, path)

    def _inside(self, value: Any, path: Path) -> Iterator[Remark]:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield from self._field(str(key), inner, (*path, str(key)))
        elif isinstance(value, list | tuple):
            for number, inner in enumerate(value):
                yield from self._inside(inner, (*path, number))

    def _field(self, name: str, value: Any, path: Path) -> Iterator[Remark]:
        if value is None:
            return
        parts = _parts(value)
        of_texts = self.sections if isinstance(value, Mapping) else self.lists | self.words
        if name in of_texts and parts is not None:
            yield from _texts(parts, path)
        elif name in self.lists:
            yield _misfit(value, path, "a list of texts")
        elif name in self.texts | self.words and parts is None:
            yield from _texts([((), value)], path)
        elif name in self.numbers:
            if type(value) is not int:
                bare = isinstance(value, str) and value.isdecimal()
                yield _misfit(value, path, "a whole number", "without quotes" if bare else "")
        elif name in self.truths:
            if type(value) is not bool:
                bare = value in {"true", "false"}
                yield _misfit(value, path, "true or false", "without quotes" if bare else "")
        else:
            yield from self._inside(value, path)


def _parts(value: Any) -> list[tuple[Path, Any]] | None:
    """Return what a section or a list consists of, each with its step; None for what is plain."""
    if isinstance(value, Mapping):
        return [((str(key),), inner) for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [((number,), inner) for number, inner in enumerate(value)]
    return None


def _texts(parts: Iterable[tuple[Path, Any]], path: Path) -> Iterator[Remark]:
    for step, value in parts:
        if value is None or isinstance(value, str):
            continue
        hint = "put it in quotes, as it is written there" if _parts(value) is None else ""
        yield _misfit(value, (*path, *step), "a text", hint)


def _misfit(value: Any, path: Path, allowed: str, hint: str = "") -> Remark:
    return Remark(
        path=path, text=f"found {_shown(value)}; allowed: {allowed}", hint=hint, wrong=True
    )


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "a section"
        case list() | tuple():
            return "a list"
        case str():
            return repr(value[:40])
        case _:
            return str(value)[:40]
