"""From plain data to the shape, strictly, with every problem and where it stands.

cattrs does the walking; the hooks here allow no guessing (``"no"`` is no boolean, ``5`` is no
text). Problems are collected, not raised one by one. Refuses to know what the settings mean.
"""

import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import cattrs
from cattrs import errors as cattrs_errors
from cattrs import gen

from backends.kit import runtime, setting
from broker.config import schedule, shape, tree, values
from broker.config.errors import Problem
from outside import counts

UNKNOWN = "unknown setting"
_SECTION = "a section of settings"
SECTION = f"allowed: {_SECTION}"
_TOLD = 20  # unknown settings of one section, one by one
_LONGEST_KEY = 64  # what is longer resembles nothing
_ALIKE = 0.75  # of difflib: one letter of four is another one
_WORD = re.compile("[a-z]+")
_NEGATIONS = frozenset(
    {"deny", "disable", "disabled", "never", "no", "non", "not", "off", "skip", "without"}
)
_NEGATING = ("de", "dis", "in", "non", "un")
_OPPOSITES = tuple(
    set(pair.split())
    for pair in (
        "add drop", "after before", "allow deny", "always never", "disable enable", "false true",
        "disabled enabled", "exclude include", "first last", "high low", "in out", "max min",
        "maximum minimum", "off on", "read write", "start stop", "private public",
    )
)  # fmt: skip


def key_of(attribute: "attrs.Attribute[Any]") -> str:
    """Return how a field is called in the file: without the unit of its value."""
    told = attribute.metadata.get("key")
    if told is not None:
        return str(told)
    if attribute.type in {float, float | None}:
        return attribute.name.removesuffix("_s")
    if attribute.type in {int, int | None}:
        return attribute.name.removesuffix("_bytes")
    return attribute.name


def read(cls: type[Any], data: object, path: tree.Path, problems: list[Problem]) -> Any:
    """Structure ``data``; on problems add them and return None."""
    if not isinstance(data, Mapping):
        problems.append(Problem(path=path, text=f"found {values.shown(data)}; {SECTION}"))
        return None
    try:
        return _CONVERTER.structure(data, cls)
    except Exception as error:  # noqa: BLE001 -- cattrs passes on whatever a constructor raises
        problems.extend(_problems(error, path, cls))
        return None


def read_each(
    cls: type[Any], data: Mapping[str, Any], path: tree.Path, problems: list[Problem]
) -> Any:
    """Like ``read``, for a class that checks itself: it stops at its first wrong value."""
    own: list[Problem] = []
    read_value = read(cls, data, path, own)
    for key, value in data.items() if own and isinstance(data, Mapping) else ():
        alone: list[Problem] = []
        read(cls, {key: value}, path, alone)
        own += [p for p in alone if p not in own and p.path[: len(path) + 1] == (*path, key)]
    problems.extend(own)
    return read_value


def read_both(
    shared: type[Any],
    own: type[Any],
    data: Mapping[str, Any],
    path: tree.Path,
    problems: list[Problem],
) -> tuple[Any, Any]:
    """Read a section in which the settings of two classes stand side by side.

    ``own`` checks itself, as in ``read_each``. None in the place of what has problems.
    """
    common, special = ({key_of(a) for a in attrs.fields(cls)} for cls in (shared, own))
    problems.extend(strangers(path, set(data) - common - special, sorted(common | special)))
    return (
        read(shared, {k: v for k, v in data.items() if k in common}, path, problems),
        read_each(own, {k: v for k, v in data.items() if k in special}, path, problems),
    )


# --- what is allowed ---------------------------------------------------------------------------


def _strict(kind: type, words: str) -> Callable[[object, Any], Any]:
    def hook(value: object, _: Any) -> Any:
        if type(value) is kind:
            return value
        is_single = value is not None and not isinstance(value, list | Mapping)
        hint = "quote it" if kind is str and is_single else ""
        raise values.Bad(values.shown(value), words, hint)

    return hook


def _number(value: object, _: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise values.Bad(values.shown(value), "a number")


def _via(parse: Callable[[Any], Any]) -> Callable[[object, Any], Any]:
    def hook(value: object, _: Any) -> Any:
        try:
            return parse(value)
        except values.Bad:
            raise
        except (ValueError, AttributeError) as error:
            raise values.Bad(values.shown(value), str(error)) from error

    return hook


def _cap(value: object) -> int | str:
    if value == shape.UNLIMITED or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise values.Bad(values.shown(value), f"a whole number, or {shape.UNLIMITED}")


def _injected(value: object) -> str:
    if value is True:
        return runtime.DEFAULT
    if isinstance(value, str) and values.NAME.fullmatch(value):
        return value
    raise values.Bad(
        values.shown(value), "true, or the name of a runtime", "leave it out to bring nothing"
    )


def _amount(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return shape.Number(f"{value:g}")
    if isinstance(value, int) and not isinstance(value, bool):
        return shape.Number(value)
    if isinstance(value, str):
        return value
    raise values.Bad(values.shown(value), "a number or a text")


def _labels(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise values.Bad(values.shown(value), "a list of labels, or one text with blanks between")


def _argv(value: object) -> tuple[str, ...]:
    told = ["sh", "-c", value] if isinstance(value, str) else value
    words = [word for word in told if isinstance(word, str)] if isinstance(told, list) else []
    is_whole = isinstance(told, list) and len(words) == len(told)
    if is_whole and words and words[0] and words[-1].strip() and "\0" not in "".join(words):
        return tuple(words)
    raise values.Bad(values.shown(value), "a list, program and arguments, or one text for sh -c")


def _field_hook(
    converter: cattrs.Converter, attribute: "attrs.Attribute[Any]"
) -> Callable[[object, Any], Any] | None:
    """Return what reads a field of which more is told than its type: a unit, a word, limits."""
    word = attribute.metadata.get("word")
    read_value = _reader(converter, attribute)
    if read_value is None:
        return None

    def hook(value: object, kind: Any) -> Any:
        if word is not None and (value == word or value is False):  # YAML 1.1: off is false
            return None
        if value is None and attribute.default is None:
            return None
        try:
            return _within(attribute, read_value(value, kind))
        except values.Bad as error:
            more = f", or {word}" if word is not None else ""
            raise values.Bad(error.found, error.allowed + more, error.hint) from error

    return hook


def _reader(
    converter: cattrs.Converter, attribute: "attrs.Attribute[Any]"
) -> Callable[[object, Any], Any] | None:
    """Return what reads the value itself; None where the type says all."""
    choices = attribute.metadata.get("choices")
    if attribute.name.endswith("_s") and attribute.type in {float, float | None}:
        return _via(values.duration)
    if attribute.name.endswith("_bytes") and attribute.type in {int, int | None}:
        return _via(values.size)
    if choices is not None:
        return _via(_choice(choices))
    if setting.limits_of(attribute) != setting.NONE:
        return converter.structure
    return _strict(str, "a text") if "word" in attribute.metadata else None


def _within(attribute: "attrs.Attribute[Any]", value: Any) -> Any:
    """Return a value that is within the limits of its field. Raises ``Bad``."""
    found = setting.wrong(attribute, value)
    if found is not None:
        raise values.Bad(found.found, found.allowed, found.hint)
    return value


def _choice(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise values.Bad(values.shown(value), ", ".join(choices), guess(str(value), choices))

    return parse


def _make() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(str, _strict(str, "a text"))
    converter.register_structure_hook(int, _strict(int, "a whole number"))
    converter.register_structure_hook(bool, _strict(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    for kind, parse in (
        (shape.SecretRef, values.reference),
        (shape.TimeOfDay, schedule.parse_time),
        (shape.Days, lambda value: schedule.parse_days(str(value))),
        (shape.Amount, _amount),
        (shape.Labels, _labels),
        (shape.Argv, _argv),
        (shape.Cap, _cap),
        (shape.Injected, _injected),
    ):
        converter.register_structure_hook_func(_is(kind), _via(parse))
    converter.register_structure_hook_factory(attrs.has, lambda cls: _class_hook(converter, cls))
    converter.register_structure_hook_func(
        _is_dict, lambda value, cls: _dict(converter, value, cls)
    )
    converter.register_structure_hook_func(
        _is_tuple, lambda value, cls: _tuple(converter, value, cls)
    )
    return converter


def _is(kind: object) -> Callable[[Any], bool]:
    return lambda told: told is kind


def _is_tuple(told: Any) -> bool:
    return typing.get_origin(told) is tuple


def _block(value: object) -> str:
    """Return what to do about a text that was meant as a section: YAML's ``|`` makes one."""
    is_block = isinstance(value, str) and "\n" in value
    return "without the | after its name, which makes one text of it" if is_block else ""


def _required(cls: type[Any]) -> str:
    """Return how a section is written of which one setting alone is required."""
    required = [one.name for one in attrs.fields(cls) if one.default is attrs.NOTHING]
    return f"{{{required[0]}: ...}}" if len(required) == 1 else ""


def _is_dict(told: Any) -> bool:
    return typing.get_origin(told) is dict


def _dict(made: cattrs.Converter, value: object, cls: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise values.Bad(values.shown(value), _SECTION, _block(value))
    kind: Any = Mapping[typing.get_args(cls)]  # type: ignore[misc]  # known at run time only
    return dict(made.structure(value, kind))


def _tuple(made: cattrs.Converter, value: object, cls: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise values.Bad(values.shown(value), "a list")
    kind: Any = list[typing.get_args(cls)[0]]  # type: ignore[misc]  # known at run time only
    return tuple(made.structure(value, kind))


def _class_hook(converter: cattrs.Converter, cls: type[Any]) -> Callable[[Any, Any], Any]:
    overrides: dict[str, Any] = {
        attribute.name: gen.override(
            rename=key_of(attribute), struct_hook=_field_hook(converter, attribute)
        )
        for attribute in attrs.fields(cls)
    }
    inner = gen.make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        **overrides,
    )

    def structure(value: Any, told: Any) -> Any:
        if not isinstance(value, Mapping):
            hint = _block(value) or ("" if value is None else _required(cls))
            raise values.Bad(values.shown(value), _SECTION, hint)
        return inner(value, told)

    return structure


_CONVERTER = _make()


# --- what went wrong ---------------------------------------------------------------------------


def _problems(error: BaseException, path: tree.Path, cls: Any) -> Iterator[Problem]:
    """Take an error of cattrs apart."""
    if isinstance(
        error, cattrs_errors.ClassValidationError | cattrs_errors.IterableValidationError
    ):
        yield from _of_parts(error, path)
        return
    match error:
        case cattrs_errors.ForbiddenExtraKeysError():
            known = sorted(key_of(a) for a in attrs.fields(error.cl))
            yield from strangers(path, error.extra_fields, known)
        case values.Bad():
            text = f"found {error.found}; allowed: {error.allowed}"
            yield Problem(path=path, text=text, hint=error.hint)
        case KeyError():
            yield Problem(path=path, text="missing; it has no default")
        case _:
            yield _said_by_class(error, path, cls)


def _of_parts(
    error: cattrs_errors.ClassValidationError | cattrs_errors.IterableValidationError,
    path: tree.Path,
) -> Iterator[Problem]:
    """Go on with each part of a group, one step deeper where the part is named."""
    named, others = error.group_exceptions()
    keys: dict[str, str] = {}
    if isinstance(error, cattrs_errors.ClassValidationError) and attrs.has(error.cl):
        keys = {a.name: key_of(a) for a in attrs.fields(error.cl)}
    for inner, note in named:
        place = note.index if isinstance(note, cattrs.IterableValidationNote) else note.name
        step = keys.get(place, place) if isinstance(place, str) else place
        yield from _problems(inner, (*path, step), note.type)
    for other in others:
        yield from _problems(other, path, error.cl)


def _said_by_class(error: BaseException, path: tree.Path, cls: Any) -> Problem:
    """Read the message of a validator: ``field: words``."""
    name, colon, words = str(error).partition(": ")
    field = _field_of(cls, name) if colon else None
    if field is None:
        return Problem(path=path, text=str(error)[:256])
    return Problem(path=(*path, field), text=words[:256])


def _field_of(cls: Any, name: str) -> str | None:
    if not attrs.has(cls):
        return None
    return next((key_of(a) for a in attrs.fields(cls) if a.name == name), None)


def strangers(path: tree.Path, keys: typing.Iterable[str], known: list[str]) -> Iterator[Problem]:
    """Yield the problems of keys that nobody knows; of very many the first are told."""
    ordered = sorted(keys, key=str)
    for key in ordered[:_TOLD]:
        yield _unknown(path, str(key), known)
    if len(ordered) > _TOLD:
        yield Problem(path=path, text=counts.told(len(ordered) - _TOLD, "more unknown setting"))


def _unknown(path: tree.Path, key: str, known: list[str]) -> Problem:
    return Problem(
        path=(*path, key),
        text=f"{UNKNOWN}; allowed: {', '.join(known)}",
        hint="a blank is missing after the colon" if _is_run_on(key, known) else guess(key, known),
    )


def _is_run_on(key: str, known: list[str]) -> bool:
    """Tell whether a key is a setting with its value: ``url:http://c/``."""
    name, colon, _ = key.partition(":")
    return bool(colon) and name in known


def guess(told: str, known: typing.Iterable[str]) -> str:
    """Return the hint for a word that resembles a known one; else none."""
    told = told[:_LONGEST_KEY]
    fit = [word for word in known if not _is_opposite(told, word)]
    plain = {word.casefold(): word for word in fit}
    near = difflib.get_close_matches(told.casefold(), plain, n=1, cutoff=_ALIKE)
    return f"did you mean {plain[near[0]]}?" if near else ""


def _is_opposite(one: str, other: str) -> bool:
    """Tell whether one of two names says no to what the other says, or asks for its opposite."""
    ours, theirs = (set(_WORD.findall(name.lower())) for name in (one, other))
    if len(ours & _NEGATIONS) != len(theirs & _NEGATIONS):
        return True
    ours, theirs = ours - theirs, theirs - ours
    return any(
        {a, b} in _OPPOSITES or a in _negated(b) or b in _negated(a) for a in ours for b in theirs
    )


def _negated(word: str) -> set[str]:
    return {prefix + word for prefix in _NEGATING}


def optional_of(kind: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether None was in it."""
    if typing.get_origin(kind) in {types.UnionType, typing.Union}:
        inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        return inner[0], len(inner) < len(typing.get_args(kind))
    return kind, False
