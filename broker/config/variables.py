"""``${NAME}`` in values: variables of the environment, written as Configuration as Code has them.

``${NAME:-text}`` says what stands for one that is not set or empty, ``^${NAME}`` is the text
itself. Pure. Refuses to know YAML, and to look into a default: it is plain text.
"""

import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import define, field

from broker.config import concealing, errors, reading, shape, tree, values
from broker.config.settings import KindClasses

_MARK = "${"
_WRITTEN = re.compile(
    r"\^\$\{(?P<itself>[^}]*\}?)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"(?::-(?P<default>[^{}$]*))?\}|(?P<odd>\$\{[^}]*\}?)"
)
_WORDS = "${NAME} or ${NAME:-text}"
_ITSELF = "^${…} is the text itself"
_OF_PROGRAMS = frozenset({"command", "entry_point", "environment", "health_command"})
"""What agents, shells and images read: a ``${NAME}`` in it is theirs."""


def substituted(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with its variables put in. Raises ``tree.NotInserted``."""

    def value(found: re.Match[str]) -> str:
        if found["itself"] is not None:
            return f"{_MARK}{found['itself']}"
        if found["odd"] is not None:
            raise tree.NotInserted(
                f"found {values.shown(found['odd'])}; allowed: {_WORDS}", _ITSELF
            )
        name, default = found["name"], found["default"]
        given = environ.get(name)
        if default is not None:
            return given or default
        if given is None:
            raise tree.NotInserted(
                f"the environment variable {name} is not set",
                f"export {name}=…, or ${{{name}:-text}}; {_ITSELF}",
            )
        return given

    return _WRITTEN.sub(value, text)


@define(kw_only=True)
class Variables:
    """Puts the variables of an environment into one file, and remembers which."""

    environ: Mapping[str, str]
    stays: Callable[[errors.Path, str], bool]  # ``kept``
    of_team: bool = False  # a team's file is given none: the environment has the broker's secrets
    used: list[tuple[str, errors.Path]] = field(factory=list)
    inserted: list[concealing.Inserted] = field(factory=list)

    def insert(self, text: str, path: errors.Path) -> str:
        """Return a text with its variables put in (``tree.Insert``)."""
        if _MARK not in text or self.stays(path, text):
            return text
        if self.of_team:
            raise tree.NotInserted(
                "a team's file has no variables",
                "write the value, or put the setting into defaults of broker.yaml",
            )
        names = [found["name"] for found in _WRITTEN.finditer(text) if found["name"]]
        self.used += [(name, path) for name in names]
        value = substituted(text, self.environ)
        held = {name: given for name in names if (given := self.environ.get(name))}
        if held:  # a default stands in the file
            each = tuple((given, f"${{{name}}}") for name, given in held.items())
            self.inserted.append(
                concealing.Inserted(path=path, written=text, value=value, variables=each)
            )
        return value


def kept(kinds: Mapping[str, KindClasses]) -> Callable[[errors.Path, str], bool]:
    """Return what says of a place, and of what is written there, whether it stays as it is.

    What another program reads does: its ``${NAME}`` is its own. So does what stands where a secret
    should only be referred to: it is refused as it is written.
    """
    taken = {name: raw(kind.template_settings) for name, kind in kinds.items()}
    of_backends = {setting for kind in kinds.values() for setting in raw(kind.settings)}
    secrets = {
        ("controller", reading.key_of(a))
        for a in attrs.fields(shape.Controller)
        if shape.SecretRef in {a.type, *typing.get_args(a.type)}
    }

    def stays(path: errors.Path, text: str) -> bool:
        if path in secrets:
            return not text.startswith(("file:", "env:"))
        match path:
            case ("backends", _, setting, *_):
                return setting in of_backends or setting in _OF_PROGRAMS
            case ("templates", _, *rest) | ("defaults", *rest):
                pass
            case _:
                return False
        if len(rest) > 1 and rest[0] in taken:
            return rest[1] in _OF_PROGRAMS or rest[1] in taken[str(rest[0])]
        return bool(rest) and rest[0] in _OF_PROGRAMS

    return stays


def raw(cls: type[Any]) -> set[str]:
    """Return the settings of a kind that hold whatever a platform takes."""
    return {
        reading.key_of(a)
        for a in attrs.fields(cls)
        if typing.get_args(a.type) in {(str, Any), (Any,)}
    }
