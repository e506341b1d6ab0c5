"""The fields of one section of a file that is imported: each read once, by its kind.

A plain tree has texts, lists and sections, whatever the file's format. What is of another kind
than belongs there costs itself and is said in a comment; what nobody reads is named at the end.
Refuses to know which fields a plugin has.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, field

from broker.config import tree, variables
from broker.importing import hiding, outline

_FALSE = {"", "false", "no", "off"}
_TRUE = {"true", "yes", "on"}
_MOST = 1 << 31  # what a plugin writes for "no limit" is one less
_USED = re.compile(r"(?<!\^)\$\{[^}]*\}?")


@define
class PlainSection:
    """A section and where its comments go."""

    data: Mapping[str, Any]
    out: outline.Section
    has_variables: bool = True  # of Configuration as Code; a controller's own file has none
    where: str = ""  # stands before the names in comments
    taken: set[str] = field(factory=set)

    def inner(self, data: Any, where: str = "") -> "PlainSection":
        """Return the fields of a section in this one; its comments go to the same place."""
        told = data if isinstance(data, Mapping) else {}
        return PlainSection(told, self.out, self.has_variables, f"{self.where}{where}")

    def to(self, out: outline.Section) -> "PlainSection":
        """Return the same fields with another place for comments."""
        return PlainSection(self.data, out, self.has_variables, "", self.taken)

    def note(self, text: str, *, loud: bool = False) -> None:
        """Say something of this section."""
        self.out.note(f"{self.where}{text}", loud=loud)

    # --- kinds of values ---

    def raw(self, *keys: str) -> str:
        """Return a text for what leaves ``${`` alone here, such as a pod; empty: none."""
        text = self._text(keys)
        if self.has_variables:
            self.say_variables(keys[0], text)
            text = text.replace("^${", "${")
        return text

    def text(self, *keys: str) -> str:
        """Return a text for a setting that has variables; empty: none, or not to be read."""
        text = self._text(keys).strip()
        if not self.has_variables:
            return text.replace("${", "^${")
        try:
            variables.substituted(text, _Anything())
        except tree.NotInserted as error:
            self.note(f"{keys[0]}: not imported: {error.text}", loud=True)
            return ""
        return text

    def whole(self, *keys: str) -> int | outline.Written | None:
        """Return a whole number, or the variable that stands for it; None: none."""
        text = self.text(*keys)
        if not text:
            return None
        if re.fullmatch(r"-?\d{1,15}", text):
            return int(text)
        if self.has_variables and re.fullmatch(r"\$\{[^${}]*\}", text):
            return outline.Written(text)
        self.note(f"{keys[0]}: not imported: found {_shown(text)}; a whole number belongs there")
        return None

    def limit(self, *keys: str) -> int | outline.Written | None:
        """Return a cap; None: no limit."""
        number = self.whole(*keys)
        if isinstance(number, int) and not 0 < number < _MOST - 1:
            return None
        return number

    def number(self, *keys: str) -> float | outline.Written | None:
        """Return a number, or the variable that stands for it; None: none."""
        text = self.text(*keys)
        if not text:
            return None
        if self.has_variables and re.fullmatch(r"\$\{[^${}]*\}", text):
            return outline.Written(text)
        if re.fullmatch(r"-?\d{0,12}(\.\d{0,12})?", text) and re.search(r"\d", text):
            return float(text)
        self.note(f"{keys[0]}: not imported: found {_shown(text)}; a number belongs there")
        return None

    def truth(self, key: str, *, default: bool = False) -> bool:
        """Return a truth value."""
        text = self._text((key,)).strip().lower()
        if not text:
            return default
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        self.note(f"{key}: not imported: found {_shown(text)}; true or false belongs there")
        return default

    def words(self, *keys: str, raw: bool = True) -> list[str]:
        """Return a text as a shell takes it apart."""
        text = self.raw(*keys) if raw else self.text(*keys)
        return split(text)

    def lines(self, *keys: str) -> list[str]:
        """Return the lines of a text, or the texts of a list."""
        found: list[str] = []
        for key in keys:
            self.taken.add(key)
            value = self.data.get(key)
            if isinstance(value, Mapping):  # a list of one kind, as a controller writes it
                value = next((v for v in value.values() if isinstance(v, list | str)), None)
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, str):
                    found += part.splitlines()
                elif part is not None:
                    self.note(f"{key}: not imported: text belongs there")
            if found:
                break
        cleaned = [self._cleaned(keys[0], line.strip()) for line in found]
        if self.has_variables:
            self.say_variables(keys[0], " ".join(cleaned))
            cleaned = [line.replace("^${", "${") for line in cleaned]
        return [line for line in cleaned if line]

    def section(self, key: str) -> "PlainSection":
        """Return a section; an empty one if there is none."""
        self.taken.add(key)
        value = self.data.get(key)
        if value is not None and not isinstance(value, Mapping) and value not in ("", []):
            self.note(f"{key}: not imported: a section belongs there")
        return self.inner(value, f"{key}.")

    def kind(self, key: str) -> tuple[str, "PlainSection"]:
        """Return what is named by its kind: ``{attach: {user: x}}``, or the kind alone."""
        self.taken.add(key)
        value = self.data.get(key)
        if isinstance(value, str):
            return value.strip(), self.inner({}, f"{key}.")
        if isinstance(value, Mapping) and len(value) == 1:
            ((name, told),) = value.items()
            if isinstance(told, Mapping) or told in (None, "", []):
                return str(name), self.inner(told, f"{key}.")
        return "", self.inner(value, f"{key}.")

    def entries(self, key: str) -> Iterator["PlainSection"]:
        """Yield the sections of a list."""
        for value in self.plain_list(key):
            if isinstance(value, Mapping):
                yield self.inner(value, f"{key}: ")
            elif value not in (None, ""):
                self.note(f"{key}: not imported: a section belongs there")

    def kinds(self, key: str) -> Iterator[tuple[str, "PlainSection"]]:
        """Yield the entries of a list of ``{kind: {...}}``."""
        for value in self.plain_list(key):
            if isinstance(value, Mapping) and len(value) == 1:
                ((name, told),) = value.items()
                yield str(name), self.inner(told, f"{key}: ")
            elif isinstance(value, str) and value:
                yield value, self.inner({}, f"{key}: ")
            elif value not in (None, ""):
                yield "", self.inner(value, f"{key}: ")

    def plain_list(self, key: str) -> list[Any]:
        """Return a list as it is."""
        self.taken.add(key)
        value = self.data.get(key)
        if value in (None, "", {}):
            return []
        if isinstance(value, list):
            return value
        if isinstance(value, Mapping):
            return [value]
        self.note(f"{key}: not imported: a list belongs there")
        return []

    # --- the rest ---

    def has(self, *keys: str) -> bool:
        """Return whether something is said there; it counts as read."""
        self.taken.update(keys)
        return any(_says(self.data.get(key)) for key in keys)

    def skip(self, *keys: str) -> None:
        """Count fields as read that say nothing here."""
        self.taken.update(keys)

    def rest(self, known: Mapping[str, str] | None = None) -> None:
        """Name what was not read: with what it meant, where that is known.

        A known field that is empty, false or 0 says nothing and is left out.
        """
        for key, value in self.data.items():
            if key in self.taken:
                continue
            self.taken.add(key)
            meaning = (known or {}).get(key)
            if meaning is None:
                if _says(value, nothing=("",)):
                    name = hiding.cleaned(str(key))[:80]
                    self.note(f"{name}: not imported: the broker does not know this field")
            elif _says(value):
                loud = meaning.startswith("!")
                self.note(f"{key}: {meaning.removeprefix('!')}", loud=loud)

    def say_variables(self, key: str, text: str) -> None:
        """Say which variables a text has where this configuration has none."""
        names = sorted({found[0][:60] for found in _USED.finditer(text)})
        if names:
            self.note(
                f"{key}: {', '.join(names)} was put in by Configuration as Code; here it is left "
                "alone, for it would be a shell's or an agent's: write what it stands for",
                loud=True,
            )

    def _text(self, keys: tuple[str, ...]) -> str:
        self.taken.update(keys)
        for key in keys:
            value = self.data.get(key)
            if isinstance(value, str) and value:
                return self._cleaned(key, value)
            if isinstance(value, list | Mapping) and value:
                self.note(f"{key}: not imported: text belongs there")
        return ""

    def _cleaned(self, key: str, text: str) -> str:
        clean = hiding.cleaned(text)
        if clean != text:
            self.note(
                f"{key}: it held what looks like a secret, which is not written here", loud=True
            )
        return clean


class _Anything(dict[str, str]):
    """An environment in which every variable is set."""

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 -- a dict's signature
        """Return something."""
        return "1"


def split(text: str) -> list[str]:
    """Take a command apart as a shell does; as blanks do where quotes do not match."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _says(value: Any, nothing: tuple[str, ...] = ("", "false", "0", "0.0", "NO")) -> bool:
    if isinstance(value, str):
        return value.strip() not in nothing
    if isinstance(value, Mapping):
        return any(_says(part, nothing) for part in value.values())
    if isinstance(value, list):
        return bool(value)
    return value is not None


def _shown(text: str) -> str:
    return f"'{hiding.cleaned(text)[:40]}'"
