"""Patterns of names that consist of parts with ``/`` between them: jobs in folders, images.

``*`` stands for any characters but ``/``, ``?`` for one of these, ``**`` for any at all; whatever
else stands for itself. Pure; costs no more than the product of both lengths, whatever is written.
"""

import functools
import re
from collections.abc import Iterable

MOST = 256
"""Characters of a pattern."""
_PARTS = re.compile(r"\*\*+|\*|\?|[^*?]", re.DOTALL)
_WILD = frozenset({"*", "**", "?"})
_KEPT = 4096


def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern stands for all of a name."""
    return _matches(pattern[:MOST], name)


def any_matches(patterns: Iterable[str], name: str) -> bool:
    """Return whether one of several patterns stands for all of a name."""
    return any(matches(pattern, name) for pattern in patterns)


def filled(pattern: str, text: str) -> str:
    """Return a pattern with a text in place of each wildcard."""
    return "".join(text if part in _WILD else part for part in _parts(pattern[:MOST]))


@functools.lru_cache(maxsize=_KEPT)
def _parts(pattern: str) -> tuple[str, ...]:
    return tuple("**" if part.startswith("**") else part for part in _PARTS.findall(pattern))


@functools.lru_cache(maxsize=_KEPT)
def _matches(pattern: str, name: str) -> bool:
    """Walk over the name with every place of the pattern that may be reached (no backtracking)."""
    parts = _parts(pattern)
    places = _with_empty(parts, {0})
    for character in name:
        following = set()
        for place in places:
            part = parts[place] if place < len(parts) else None
            if part == "**" or (part == "*" and character != "/"):
                following.add(place)
            elif part == character or (part == "?" and character != "/"):
                following.add(place + 1)
        places = _with_empty(parts, following)
        if not places:
            return False
    return len(parts) in places


def _with_empty(parts: tuple[str, ...], places: set[int]) -> set[int]:
    """Add the places behind stars, which may stand for nothing."""
    reached = set(places)
    for place in sorted(places):
        behind = place
        while behind < len(parts) and parts[behind] in {"*", "**"}:
            behind += 1
            reached.add(behind)
    return reached
