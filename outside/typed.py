"""Values that others sent, given a type; one odd entry of a list costs that entry.

Pure. Refuses to know what the values are for.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from attrs import frozen

from outside import counts, text

T = TypeVar("T")

_REASONS = 5


@frozen(kw_only=True)
class Odd:
    """Entries that could not be read: how many, and why the first of them could not."""

    count: int = 0
    reasons: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.count > 0

    def words(self, one: str, many: str = "") -> str:
        """Return one sentence for people; empty if all could be read. As ``counts.told``."""
        if not self.count:
            return ""
        return text.clean(
            f"{counts.told(self.count, one, many)} cannot be read: {'; '.join(self.reasons)}", 256
        )


def each(entries: Iterable[Any], read: Callable[[Any], T]) -> tuple[list[T], Odd]:
    """Read every entry; whatever goes wrong with one of them sets that one aside."""
    good: list[T] = []
    reasons: list[str] = []
    count = 0
    for entry in entries:
        try:
            good.append(read(entry))
        except Exception as error:  # noqa: BLE001 -- the entry is theirs, the loop is ours
            count += 1
            if len(reasons) < _REASONS:
                reasons.append(text.clean(odd_words(error), 100))
    return good, Odd(count=count, reasons=tuple(dict.fromkeys(reasons)))


def odd_words(error: Exception) -> str:
    """Say what is odd about what others sent: what its reader raised, without Python's words."""
    match error:
        case KeyError():
            return f"{error.args[0] if error.args else 'something'} is missing"
        case ValueError():
            return str(error)
        case _:
            return "of another form than it should have"


def number(value: Any, low: float, high: float) -> float | None:
    """Return a number, clamped; None for what is none (a truth value, NaN, a text)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # noqa: PLR0124
        return None
    try:
        return float(min(max(value, low), high))
    except OverflowError:  # a whole number beyond every float, where there is no limit
        return high if value > 0 else low


def integer(value: Any, low: int, high: int) -> int | None:
    """Return a whole number, clamped; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return int(min(max(value, low), high))


def words(value: Any, limit: int) -> str:
    """Return a text of at most ``limit`` characters, not cleaned; empty for what is none."""
    return text.cut(value, limit) if isinstance(value, str) else ""
