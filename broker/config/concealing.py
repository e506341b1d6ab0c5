"""What a variable holds is never quoted: a message has the text as it stands in the file.

Why: nobody can tell which variable of an environment is a secret; ``url: ${PROXY}`` may have a
password. Pure. Refuses to know settings, and what a message means.
"""

import re
from collections.abc import Iterable

import attrs
from attrs import frozen

from broker.config import errors
from outside import quotes

_QUOTED = re.compile(
    r"""(?<=found ).+?(?=; allowed:|$)"""  # what was found, with all its quotes
    r"""|'[^']*'…?|"[^"]*"…?"""
)
_TELLING = 4  # characters in a row that two texts have in common by more than chance
_LONGEST = 4096  # of a value: no message quotes the end of a longer one


@frozen(kw_only=True)
class Inserted:
    """A value with variables: where it stands, as it is written there, and what it became."""

    path: errors.Path
    written: str
    value: str
    variables: tuple[tuple[str, str], ...] = ()  # what they hold, and how each is written


def concealed(problem: errors.Problem, inserted: Iterable[Inserted]) -> errors.Problem:
    """Return a problem that quotes no value which came out of a variable."""
    for one in inserted:
        problem = attrs.evolve(
            problem,
            text=_concealed(problem.text, one, here=_is_of(problem.path, one.path)),
            hint=_concealed(problem.hint, one, here=_is_of(problem.path, one.path)),
        )
    return problem


def _is_of(path: errors.Path, place: errors.Path) -> bool:
    """Tell whether a message may be about a value: about it, a part of it, or what it is in.

    Of the defaults every template is told.
    """
    if place[:1] == ("defaults",) and path[:1] == ("templates",):
        path, place = path[2:], place[1:]
    shared = min(len(path), len(place))
    return path[:shared] == place[:shared]


def _concealed(text: str, one: Inserted, *, here: bool) -> str:
    written = quotes.shown(one.written)

    def quoted(match: re.Match[str]) -> str:
        return written if _tells(match[0].strip("'\"…"), one.value, here=here) else match[0]

    for value, written_as in ((one.value, one.written), *one.variables):
        if len(value) >= _TELLING:
            text = text.replace(value, written_as)
    return _QUOTED.sub(quoted, text)


def _tells(quoted: str, value: str, *, here: bool) -> bool:
    """Tell whether a quotation may say something of a value."""
    quoted, value = quoted.casefold(), value.casefold()[:_LONGEST]
    if not value:
        return False
    if not here:
        return len(value) >= _TELLING and value in quoted
    if min(len(quoted), len(value)) < _TELLING:
        is_part = quoted in value and any(map(str.isalnum, quoted))  # a blank tells nothing
        return value in quoted or is_part
    return any(value[at : at + _TELLING] in quoted for at in range(len(value) - _TELLING + 1))
