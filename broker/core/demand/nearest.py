"""Which template comes nearest to an expression that none serves: a hint for people.

Pure. Refuses to know who waits, and when the search is too costly.
"""

import functools
import itertools

from broker.core.demand import labels
from broker.core.model import TemplateName

_MAX_ATOMS, _MAX_FLIPS = 12, 3


@functools.lru_cache(maxsize=1024)
def template(text: str, kinds: tuple[tuple[TemplateName, frozenset[str]], ...]) -> str:
    """Say which template comes nearest to an expression, and what would have to change."""
    expression = labels.parse(text)
    best: tuple[int, str] | None = None
    for name, has in kinds:
        found = change(expression, has)
        if found is None:
            continue
        lacks, surplus = found
        words = [f"lacks {', '.join(lacks)}"] if lacks else []
        words += [f"must not have {', '.join(surplus)}"] if surplus else []
        near = (len(lacks) + len(surplus), f"the nearest, {name}, {' and '.join(words)}")
        if best is None or near[0] < best[0]:
            best = near
    return "" if best is None else f"; {best[1]}"


def change(
    expression: labels.Expression, has: frozenset[str]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the fewest labels to add and to take away so that an expression matches.

    None where that is no small change.
    """
    flips = _flips(expression, has)
    if flips is None:
        return None
    return tuple(sorted(flips - has)), tuple(sorted(flips & has))


def _flips(expression: labels.Expression, has: frozenset[str]) -> frozenset[str] | None:
    """Return the smallest set of labels to add or take away so that the expression matches."""
    atoms = sorted(expression.atoms())[:_MAX_ATOMS]
    for size in range(1, _MAX_FLIPS + 1):
        for chosen in itertools.combinations(atoms, size):
            if expression.matches(has ^ frozenset(chosen)):
                return frozenset(chosen)
    return None
