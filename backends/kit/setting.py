"""How a setting is declared: what it is, its default, and what its value may be.

A limit stands where the setting is defined, and nowhere else. From there it is checked when a
configuration is read (every value of a section, not only its first), told in messages, and found
in the JSON Schema and in the manuals. Names that end in ``_s`` are durations, in ``_bytes`` sizes.
Pure. Refuses to know any setting.

    pids: int | None = setting.of("Processes and threads at most.", 8192, least=16, most=4_194_304)
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import NOTHING, Attribute, field, frozen

from outside import quotes

Check = Callable[[Any, "Attribute[Any]", Any], None]

_SHOWN = 80
_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))
_LARGE = tuple(
    (f"{unit}i", 1024**power) for power, unit in ((4, "T"), (3, "G"), (2, "M"), (1, "K"))
)


@frozen(kw_only=True)
class Bounds:
    """What a value may be; of a list each part, where it is text that is limited."""

    least: float | None = None
    above: float | None = None  # more than this
    most: float | None = None
    like: re.Pattern[str] | None = None
    words: str = ""  # what ``like`` allows
    hint: str = ""


@frozen
class Wrong:
    """A value that is not allowed: as it is shown, what is, and a hint."""

    found: str
    allowed: str
    hint: str = ""

    def text(self) -> str:
        """Return it in the words of a validator."""
        hint = f"; hint: {self.hint}" if self.hint else ""
        return f"found {self.found}; allowed: {self.allowed}{hint}"


NONE = Bounds()
ABSOLUTE: Mapping[str, Any] = {
    "like": re.compile(r"/.*", re.DOTALL),
    "words": "an absolute path",
    "hint": "begin it with '/'",
}
"""For ``of``: a path of this machine, which does not depend on where the broker was started."""


NO_REVISION: Mapping[str, Any] = {"revised": False}
"""For ``of``: it is about those to come; an agent that is there is none the worse for a change."""


ELSEWHERE: Mapping[str, Any] = {
    "like": re.compile(r"(/|[A-Za-z]:[\\/]).*", re.DOTALL),
    "words": "an absolute path, of Windows too",
    "hint": "begin it with '/', or with a drive as C:/",
}
"""The same of a machine where agents run: it may be one with Windows."""


def of(  # noqa: PLR0913 -- all that a declaration may say, by name
    doc: str,
    default: Any = NOTHING,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    like: re.Pattern[str] | None = None,
    words: str = "",
    hint: str = "",
    check: Check | None = None,
    converter: Callable[[Any], Any] | None = None,
    **more: Any,
) -> Any:
    """Return a field of a settings class.

    ``like`` is matched as a whole, and ``words`` says what it allows. ``check`` judges what no
    limit can; its ValueError reads ``NAME: found …; allowed: …``. In ``more``: ``word``, how None
    is written in the file; ``choices``, all that a text may be; ``key``, how it is called there;
    ``revised``, False if no agent is renewed because it changed.
    """
    limits = Bounds(least=least, above=above, most=most, like=like, words=words, hint=hint)
    validators: list[Check] = [_validate] if limits != NONE else []
    validators += [check] if check is not None else []
    shared: dict[str, Any] = {
        "metadata": {"doc": doc, "limits": limits, **more},
        "validator": validators,
        "converter": converter,
    }
    if isinstance(default, dict | list):
        made = default
        return field(factory=lambda: type(made)(made), **shared)
    return field(default=default, **shared)


def limits_of(attribute: "Attribute[Any]") -> Bounds:
    """Return the limits of a field, whoever declared it."""
    found: Bounds = attribute.metadata.get("limits", NONE)
    return found


def wrong(attribute: "Attribute[Any]", value: Any) -> Wrong | None:
    """Return what is wrong with a value, if it is outside its limits; None is never."""
    limits = limits_of(attribute)
    if limits == NONE or value is None:
        return None
    if limits.like is not None:
        parts = (value,) if isinstance(value, str) else value
        for part in parts:
            if isinstance(part, str) and not limits.like.fullmatch(part):
                return Wrong(_shown(part), allowed(attribute), limits.hint)
        return None
    if not isinstance(value, int | float):
        return None  # a word in the place of a number
    low = limits.least if limits.least is not None else -math.inf
    high = limits.most if limits.most is not None else math.inf
    if low <= value <= high and (limits.above is None or value > limits.above):
        return None
    return Wrong(_number(attribute.name, value), allowed(attribute), limits.hint)


def allowed(attribute: "Attribute[Any]") -> str:
    """Return in words what a value may be; empty where there are no limits."""
    limits = limits_of(attribute)
    if limits.like is not None:
        return limits.words
    least, above, most = (
        None if number is None else _number(attribute.name, number)
        for number in (limits.least, limits.above, limits.most)
    )
    if above is not None:
        return f"more than {above}, {most} at most" if most else f"more than {above}"
    if least is not None:
        return f"{least} to {most}" if most is not None else f"{least} or more"
    return f"at most {most}" if most is not None else ""


def _shown(text: str) -> str:
    """Return a text as it may be quoted: what stands before an '@' may be a password."""
    before, at, after = text.rpartition("@")
    scheme = before.partition("://")[0] + "://" if "://" in before else ""
    return quotes.shown(f"{scheme}(hidden)@{after}" if at else text)


def _validate(_: object, attribute: "Attribute[Any]", value: Any) -> None:
    found = wrong(attribute, value)
    if found is not None:
        raise ValueError(f"{attribute.name}: {found.text()}")


def _number(name: str, value: float) -> str:
    """Return a number as it is written in the file."""
    if name.endswith("_s"):
        return duration(value)
    if name.endswith("_bytes"):
        return size(value)
    return str(value) if isinstance(value, int) and abs(value) < 10**_SHOWN else f"{value:g}"


def duration(seconds: float) -> str:
    """Return seconds as the file has them, in the largest unit that fits."""
    for unit, length in _UNITS:
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 or seconds <= 0 else f"{seconds * 1000:g}ms"


def size(number: float) -> str:
    """Return bytes as the file has them, in the largest unit that fits."""
    for unit, length in _LARGE:
        if number >= length and number % length == 0:
            return f"{number / length:g}{unit}"
    return f"{number:g}"


def schema_of(attribute: "Attribute[Any]") -> Mapping[str, Any]:
    """Return the limits as JSON Schema has them, for a value that is a number or a text there."""
    limits = limits_of(attribute)
    numbers = (
        ("minimum", limits.least),
        ("exclusiveMinimum", limits.above),
        ("maximum", limits.most),
    )
    pattern = {"pattern": f"^(?:{limits.like.pattern})$"} if limits.like is not None else {}
    return pattern | {key: value for key, value in numbers if value is not None}


def default_of(cls: type[Any], name: str) -> Any:
    """Return the default of another class's field, made if it is made anew for each."""
    default = getattr(attrs.fields(cls), name).default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
        default = default.factory()
    return default
