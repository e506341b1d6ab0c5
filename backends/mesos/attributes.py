"""An agent's attributes, read in one way wherever they come from.

Mesos makes numbers, ranges and sets of what an operator writes (``rack:7``, ``build:20161107.1``,
``disks:[1-3,7-9]``, ``os:{a,b}``), and tells them in two ways: typed in an offer, as JSON numbers
and texts on the pages. Here each becomes one text, the way an operator would write it, so that
whoever compares two of them compares texts. A constraint's value goes through the same reader.

Rules: a number has neither an exponent nor an end of zeros, and fifteen digits, as many as both
tellers agree on; ranges are joined and in order, as are the members of a set. Pure; refuses to
know constraints.
"""

import decimal
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from outside import quotes, typed

_TEXT_MAX = 1024
_HUGE = 1e300
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?")
_WHOLE = re.compile(r"-?\d+")
_RANGE = re.compile(r"\s*(\d{1,20})\s*-\s*(\d{1,20})\s*")


def of_offer(raw: Mapping[str, Any]) -> str:
    """Read a typed attribute of an offer. Raises ValueError, KeyError, TypeError."""
    if raw["type"] == "TEXT":
        return of_text(raw["text"]["value"])
    if raw["type"] == "SCALAR":
        return _number(raw["scalar"]["value"])
    if raw["type"] == "SET":
        return _set(raw["set"].get("item", ()))
    if raw["type"] == "RANGES":
        ranges = raw["ranges"].get("range", ())
        return _ranges((one["begin"], one["end"]) for one in ranges)
    raise ValueError(f"an attribute of type {quotes.shown(str(raw['type']), 40)}")


def of_page(raw: Any) -> str:
    """Read an attribute as a page shows it. Raises ValueError."""
    return of_text(raw) if isinstance(raw, str) else _number(raw)


def of_text(raw: Any) -> str:
    """Read an attribute as an operator writes it. Raises ValueError."""
    if not isinstance(raw, str) or len(raw) > _TEXT_MAX:
        raise ValueError("an attribute that is not a text, or too long")
    text = raw.strip()
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return _number(float(text))
    if text.startswith("[") and text.endswith("]"):
        parts = [_RANGE.fullmatch(part) for part in text[1:-1].split(",")]
        if all(parts):
            return _ranges((int(part[1]), int(part[2])) for part in parts if part is not None)
    if text.startswith("{") and text.endswith("}"):
        return _set(text[1:-1].split(","))
    return raw


def spellings(value: str) -> tuple[str, ...]:
    """Return in which ways people write a value that was read: also ``7.0``, also ``1-3,7-9``."""
    if _WHOLE.fullmatch(value):
        return value, f"{value}.0"
    if value[:1] + value[-1:] in {"[]", "{}"}:
        return value, value[1:-1]
    return (value,)


def is_written(value: str, told: str) -> bool:
    """Return whether a value that was read is what somebody wrote, as text, number or list."""
    try:
        return told in spellings(value) or of_text(told) == value
    except ValueError:
        return False


def _number(value: Any) -> str:
    number = typed.number(value, -_HUGE, _HUGE)
    if number is None or abs(number) == _HUGE:
        raise ValueError("an attribute that is neither a text nor a number of an allowed size")
    plain = format(decimal.Decimal(f"{number:.15g}"), "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain == "-0" else plain


def _ranges(pairs: Iterable[tuple[Any, Any]]) -> str:
    joined: list[list[int]] = []
    for begin, end in sorted((_whole(begin), _whole(end)) for begin, end in pairs):
        if joined and begin <= joined[-1][1] + 1:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([begin, end])
    return _short(f"[{','.join(f'{begin}-{end}' for begin, end in joined)}]")


def _set(members: Iterable[Any]) -> str:
    return _short(f"{{{','.join(sorted({str(one).strip() for one in members} - {''}))}}}")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 64:
        raise ValueError("a range that does not go from number to number")
    return int(value)


def _short(text: str) -> str:
    if len(text) > 16 * _TEXT_MAX:
        raise ValueError("an attribute with too many members")
    return text
