"""Where a user's YAML says another kind of value than a platform's API takes.

Pure, on plain data. For one number where a text belongs an API refuses the whole of it, and YAML
makes numbers and truth values of what was meant as text: ``12:30`` is 750, ``off`` is false. Where
it is known how a value was written it is taken for what was meant (``mended``); what cannot be
meant is said (``remarks``). The tables go by a field's name wherever it stands; fields that are in
none go through. Refuses to know any platform: each has tables of its own.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from backends.kit.remarks import Remark

Path = tuple[str | int, ...]
Written = Mapping[Path, str]
"""How numbers, truth values and dates stand in the file, by their path."""

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})|0o[0-7]{1,17}")  # as Python reads them, too
_TRUTHS = {"true": True, "false": False}
_SIXTIETHS = re.compile(r"[-+]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?")


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

    def mended(self, told: Any, written: Written, path: Path) -> tuple[Any, tuple[Remark, ...]]:
        """Return a section as it is meant, and what of it was written as another kind of value.

        ``path`` leads to it, and to what the remarks are about, from where the paths of
        ``written`` begin. A number, truth value or date where a text belongs is the text that was
        written; a whole number, true or false in quotes is what stands in them; and 12:30 is
        no number anywhere: only YAML 1.1 takes it for one.
        """
        mending = _Mending(kinds=self, written=written)
        return mending.value(told, path), tuple(mending.remarks)

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


@frozen(kw_only=True)
class _Mending:
    """One section on its way to what was meant; what was changed is in ``remarks``."""

    kinds: Kinds
    written: Written
    remarks: list[Remark] = field(factory=list)

    def value(self, value: Any, path: Path) -> Any:
        match value:
            case Mapping():
                return {
                    key: self._field(str(key), inner, (*path, key)) for key, inner in value.items()
                }
            case list():
                return [self.value(inner, (*path, at)) for at, inner in enumerate(value)]
            case _:
                return self._plain(value, path)

    def _field(self, name: str, value: Any, path: Path) -> Any:
        kinds, parts = self.kinds, _parts(value)
        of_texts = kinds.sections if isinstance(value, Mapping) else kinds.lists | kinds.words
        if parts is None and name in kinds.texts | kinds.words:
            return self._text(value, path)
        if isinstance(value, str) and name in kinds.numbers and _WHOLE.fullmatch(value):
            return self._bare(value, int(value, 0), path)
        if isinstance(value, str) and name in kinds.truths and value in _TRUTHS:
            return self._bare(value, _TRUTHS[value], path)
        if parts is None or name not in of_texts:
            return self.value(value, path)
        texts = [self._text(inner, (*path, *step)) for step, inner in parts]
        return dict(zip(value, texts, strict=True)) if isinstance(value, Mapping) else texts

    def _text(self, value: Any, path: Path) -> Any:
        written = self.written.get(path)
        if written is None:
            return value
        text = f"{written[:40]} is a {_noun(value)} in YAML: taken for the text that belongs here"
        self.remarks.append(Remark(path=path, text=text, hint="put it in quotes"))
        return written

    def _bare(self, value: str, meant: Any, path: Path) -> Any:
        text = f"{value!r} is a text in YAML: taken for the {_noun(meant)} that belongs here"
        self.remarks.append(Remark(path=path, text=text, hint="without quotes"))
        return meant

    def _plain(self, value: Any, path: Path) -> Any:
        written = self.written.get(path, "")
        return written if _SIXTIETHS.fullmatch(written) else value


def _noun(value: Any) -> str:
    match value:
        case bool():
            return "truth value"
        case int() | float():
            return "number"
        case _:
            return "date or a number"


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
