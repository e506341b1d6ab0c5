"""The configuration that an import makes: settings and comments in order, and its text.

Pure. Refuses to know what is imported, and which settings there are.
"""

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from attrs import define, field, frozen

from outside import text as outside_text

Path = tuple[str | int, ...]
_WIDTH = 98
_VARIABLE = "${"


class Written(str):
    """A value that is written without quotes: a variable in the place of a number."""

    __slots__ = ()


@frozen
class Comment:
    """A comment; a loud one is said on standard error, too."""

    text: str
    loud: bool = False
    lines: tuple[str, ...] = ()  # settings that are left out, as they would have been written


@frozen
class Setting:
    """One key with its value, which may be a section."""

    key: str
    value: Any


@define
class Section:
    """Settings with the comments before them."""

    items: list[Comment | Setting] = field(factory=list)

    def note(self, text: str, *, loud: bool = False) -> None:
        """Add a comment, once."""
        found = Comment(text, loud)
        if found not in self.items:
            self.items.append(found)

    def set(self, key: str, value: Any, note: str = "", *, loud: bool = False) -> None:
        """Add a setting with a comment, or replace its value."""
        if note:
            self.note(note, loud=loud)
        for number, item in enumerate(self.items):
            if isinstance(item, Setting) and item.key == key:
                self.items[number] = Setting(key, value)
                return
        self.items.append(Setting(key, value))

    def section(self, key: str) -> "Section":
        """Return the section of that key; it is made if there is none."""
        found = self.get(key)
        if not isinstance(found, Section):
            found = Section()
            self.set(key, found)
        return found

    def get(self, key: str | int) -> Any:
        """Return a value; None if there is none."""
        for item in self.items:
            if isinstance(item, Setting) and item.key == key:
                return item.value
        return None

    def leave_out(self, key: str, why: str) -> None:
        """Put a comment in the place of a setting, which says what it was."""
        for number, item in enumerate(self.items):
            if isinstance(item, Setting) and item.key == key:
                shown = Section([item])
                self.items[number] = Comment(why, loud=True, lines=tuple(_lines(shown)))

    def keys(self) -> list[str]:
        """Return the keys that have a value."""
        return [item.key for item in self.items if isinstance(item, Setting)]

    def loud(self, path: Path = ()) -> Iterator[tuple[Path, str]]:
        """Yield what is to be said aloud, with the section where it stands."""
        for item in self.items:
            if isinstance(item, Comment):
                if item.loud:
                    yield path, item.text
            elif isinstance(item.value, Section):
                yield from item.value.loud((*path, item.key))


class _Dumper(yaml.SafeDumper):
    """Writes lists inside of their keys' indentation."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 -- the library's own signature
        """Indent lists, too."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- as above
        """Write everything out."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if _VARIABLE in text else None
    if "\n" in text.rstrip("\n"):
        style = "|"
    if not text.replace("\n", "").replace("\t", "").isprintable():
        style = '"'  # spelt, or nobody could read it again
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=style)


def _written(dumper: yaml.SafeDumper, text: Written) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text))


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Written, _written)


def text_of(section: Section) -> str:
    """Return YAML with its comments."""
    return "".join(f"{line}\n" for line in _lines(section))


def _lines(section: Section) -> Iterator[str]:
    for item in section.items:
        if isinstance(item, Comment):
            words = outside_text.fit(" ".join(item.text.split()), len(item.text))
            mark = "# !! " if item.loud else "# "
            yield from textwrap.wrap(
                words,
                _WIDTH,
                initial_indent=mark,
                subsequent_indent="#    " if item.loud else "# ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            yield from (f"#    {line}" for line in item.lines)
        elif isinstance(item.value, Section):
            inner = list(_lines(item.value))
            if item.value.keys():
                yield f"{_dumped(item.key)}:"
                yield from (f"  {line}" if line else "" for line in inner)
            else:  # comments alone make no section
                yield from inner
        else:
            yield from _dumped({item.key: item.value}).split("\n")


def _dumped(value: Any) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=10_000,
        default_flow_style=False,
    )
    return text.removesuffix("\n").removesuffix("\n...")
