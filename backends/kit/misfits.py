"""Where a user's YAML says another kind of value than a platform's API takes.

Pure, on plain data. For one number where a text belongs an API refuses the whole of it, and YAML
makes numbers and truth values of what was meant as text: ``12:30`` is 750, ``off`` is false. Where
it is known how a value was written it is taken for what was meant (``mended``); what cannot be
meant is said (``remarks``). Fields that no table knows go through. Refuses to know any platform:
each has a table of its own.

A form is a word: ``text``, ``number`` (a whole one), ``truth``; ``[text]`` a list of them,
``{text}`` a section of them under any names, ``text|[text]`` one or a list; the name of a section
that the table knows, such as ``Container``; and nothing for what nobody knows.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from backends.kit.remarks import Remark
from outside import quotes

Path = tuple[str | int, ...]
Written = Mapping[Path, str]
"""How numbers, truth values and dates stand in the file, by their path."""

TEXT, NUMBER, TRUTH = "text", "number", "truth"
_WORDS = {TEXT: "a text", NUMBER: "a whole number", TRUTH: "true or false"}
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})|0o[0-7]{1,17}")  # as Python reads them, too
_TRUTHS = {"true": True, "false": False}
_SIXTIETHS = re.compile(r"[-+]?[0-9_]+(:[0-5]?[0-9])+(\.[0-9_]*)?")


class Forms:
    """A table of forms: what stands at its top, and what a section's fields take."""

    top = ""

    def form(self, section: str, name: str) -> str:
        """Return what a field of a section takes; empty if nobody knows."""
        raise NotImplementedError

    def scalar(self, form: str, value: Any) -> str | None:
        """Return in words what belongs in the place of a plain value, None if it does.

        ``form`` is none of a list or a section; empty if it is one of the table's sections.
        """
        match form:
            case "text":
                fits = isinstance(value, str)
            case "number":
                fits = type(value) is int
            case "truth":
                fits = type(value) is bool
            case _:
                return "a section"
        return None if fits else _WORDS[form]

    def remarks(self, told: Any, path: Path) -> Iterator[Remark]:
        """Say what of a section, as a user wrote it at ``path``, is of another form."""
        yield from self._of(told, self.top, path)

    def mended(self, told: Any, written: Written, path: Path) -> tuple[Any, tuple[Remark, ...]]:
        """Return a section as it is meant, and what of it was written as another kind of value.

        ``path`` leads to it, and to what the remarks are about, from where the paths of
        ``written`` begin. A number, truth value or date where a text belongs is the text that was
        written; a whole number, true or false in quotes is what stands in them; and 12:30 is
        no number anywhere: only YAML 1.1 takes it for one.
        """
        mending = _Mending(forms=self, written=written)
        return mending.value(told, self.top, path), tuple(mending.remarks)

    def _of(self, value: Any, form: str, path: Path) -> Iterator[Remark]:
        if value is None:
            return
        form = chosen(form, value)
        if isinstance(value, Mapping):
            if not _is_section(form):
                yield _misfit(value, path, self._allowed(form))
                return
            for key, inner in value.items():
                yield from self._of(inner, self.inner(form, str(key)), (*path, str(key)))
        elif isinstance(value, list | tuple):
            if form and not form.startswith("["):
                yield _misfit(value, path, self._allowed(form))
                return
            for number, entry in enumerate(value):
                yield from self._of(entry, form[1:-1], (*path, number))
        elif form:
            allowed = self._allowed(form) if form[0] in "[{" else self.scalar(form, value)
            if allowed is not None:
                yield _misfit(value, path, allowed, _hint(form, value))

    def inner(self, form: str, name: str) -> str:
        """Return the form of what stands under a name in a section of a form."""
        return form[1:-1] if form.startswith("{") else self.form(form, name)

    def _allowed(self, form: str) -> str:
        one, _, many = form.partition("|")
        if many:
            return f"{self._allowed(one)}, or {self._allowed(many)}"
        if form.startswith("["):
            return f"a list of {_several(form[1:-1])}"
        if form.startswith("{"):
            return f"a section of {_several(form[1:-1])}"
        return self.scalar(form, None) or "a section"


def chosen(form: str, value: Any) -> str:
    """Return that of two forms which a value may be."""
    one, _, many = form.partition("|")
    return many if many and isinstance(value, list | tuple) else one if many else form


def _is_section(form: str) -> bool:
    return not form or form[0] == "{" or form[0].isupper()


def _several(form: str) -> str:
    words = {"truth": "truth values", "quantity": "quantities"}
    return "sections" if form[:1].isupper() else words.get(form, f"{form}s")


def _hint(form: str, value: Any) -> str:
    if form == TEXT:
        return "put it in quotes, as it is written there"
    bare = isinstance(value, str) and (
        value.isdecimal() if form == NUMBER else form == TRUTH and value in _TRUTHS
    )
    return "without quotes" if bare else ""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


@frozen(kw_only=True)
class Kinds(Forms):
    """A table that goes by a field's name wherever it stands: names, separated by blanks."""

    texts: frozenset[str] = field(default="", converter=_names)
    lists: frozenset[str] = field(default="", converter=_names)  # of texts
    words: frozenset[str] = field(default="", converter=_names)  # a text, or a list of texts
    sections: frozenset[str] = field(default="", converter=_names)  # of texts, under any names
    numbers: frozenset[str] = field(default="", converter=_names)  # whole ones
    truths: frozenset[str] = field(default="", converter=_names)

    def form(self, section: str, name: str) -> str:  # noqa: ARG002 -- wherever it stands
        """Return what a field takes; empty if it is in no table."""
        told = (
            (self.texts, TEXT),
            (self.lists, "[text]"),
            (self.words, "text|[text]"),
            (self.sections, "{text}"),
            (self.numbers, NUMBER),
            (self.truths, TRUTH),
        )
        return next((form for names, form in told if name in names), "")


@frozen(kw_only=True)
class _Mending:
    """One section on its way to what was meant; what was changed is in ``remarks``."""

    forms: Forms
    written: Written
    remarks: list[Remark] = field(factory=list)

    def value(self, value: Any, form: str, path: Path) -> Any:
        form = chosen(form, value)
        match value:
            case Mapping():
                inside = form if _is_section(form) else ""
                return {
                    key: self.value(inner, self.forms.inner(inside, str(key)), (*path, key))
                    for key, inner in value.items()
                }
            case list():
                inner = form[1:-1] if form.startswith("[") else ""
                return [self.value(entry, inner, (*path, at)) for at, entry in enumerate(value)]
            case str() if form == NUMBER and _WHOLE.fullmatch(value):
                return self._bare(value, int(value, 0), path)
            case str() if form == TRUTH and value in _TRUTHS:
                return self._bare(value, _TRUTHS[value], path)
            case _:
                return self._text(value, path) if form == TEXT else self._plain(value, path)

    def _text(self, value: Any, path: Path) -> Any:
        written = self.written.get(path)
        if written is None:
            return value
        text = f"{written[:40]} is a {_noun(value)} in YAML: taken for the text that belongs here"
        self.remarks.append(Remark(path=path, text=text, hint="put it in quotes"))
        return written

    def _bare(self, value: str, meant: Any, path: Path) -> Any:
        noun, found = _noun(meant), quotes.shown(value)
        text = f"{found} is a text in YAML: taken for the {noun} that belongs here"
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
            return quotes.shown(value, 40)
        case _:
            return str(value)[:40]
