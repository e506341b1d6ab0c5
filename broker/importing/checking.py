"""What was imported is held against the configuration's own rules; what they refuse is a comment.

So the result can always be used, and says what is missing. Refuses to know where a setting came
from.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from broker.config import errors, loading
from broker.config.settings import KindClasses, Secrets
from broker.importing import outline

_ROUNDS = 60
_KEPT = {"labels": "", "url": "http://localhost:8080/", "master": "http://localhost:5050"}
"""What has to be there, and what stands there instead; empty: the template's name."""

_UNDIVIDED = {"constraints", "handover", "hosts", "uris", "volumes"}
"""Lists and sections of which an entry without one of its parts would be another one."""


class _Environment(dict[str, str]):
    """One in which every variable is set; those with a default are empty, so that it is tried."""

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 -- a dict's signature
        """Return a number for what is asked, and remember that it was."""
        return self.setdefault(key, "1")


def mended(
    root: outline.Section, kinds: Mapping[str, KindClasses], defaulted: frozenset[str]
) -> tuple[str, ...]:
    """Leave out what is refused; return the variables that have to be set.

    ``defaulted``: those that have a default where they stand.
    """
    before = ""
    for _ in range(_ROUNDS):
        environ = _Environment(dict.fromkeys(defaulted, ""))
        problems = _problems(root, kinds, environ)
        text = outline.text_of(root)
        if not problems or text == before:
            break
        before = text
        # what a template misses of a backend that is refused follows from that
        causes = [problem for problem in problems if problem.path[:1] != ("templates",)]
        for problem in reversed(causes or problems):  # what stands first keeps its place in a list
            _mend(root, problem)
    return tuple(sorted(name for name, value in environ.items() if value))


def _problems(
    root: outline.Section, kinds: Mapping[str, KindClasses], environ: Mapping[str, str]
) -> tuple[errors.Problem, ...]:
    try:
        loading.parse(outline.text_of(root), kinds, environ=environ, secrets=Secrets.UNREAD)
    except errors.ConfigError as error:
        return error.problems
    return ()


def _mend(root: outline.Section, problem: errors.Problem) -> None:
    """Put a comment in the place of what a problem is about."""
    places = list(_places(root, problem.path))
    part = problem.path[0] if problem.path else ""
    if len(places) < 2 or (part == "backends" and len(places) == 2):
        return  # a whole part of the file is never the mistake of one setting
    section, key = places[-1]
    hint = f"; hint: {problem.hint}" if problem.hint else ""
    why = f"{problem.where()}: left out: {problem.text}{hint}"
    if part == "templates" and len(places) == 2:
        _whole(section, key, why)
    elif key in _KEPT:
        section.note(why, loud=True)
        section.set(key, _KEPT[key] or places[1][1])
    elif not _in_part(section, key, problem.path[len(places) :], why):
        section.leave_out(key, why)


def _in_part(section: outline.Section, key: str, path: errors.Path, why: str) -> bool:
    """Leave a part of a plain value out, the innermost that a path leads to; False: all of it."""
    whole = copy.deepcopy(section.get(key))
    if key in _UNDIVIDED:
        path = path[:1]
    reached: list[tuple[Any, str | int]] = []
    last = whole
    for part in path:
        if not _has(last, part):
            break
        reached.append((last, part))
        last = last[part]
    missed = path[len(reached) :]
    if len(missed) > 1 or any(isinstance(part, int) for part in missed):
        return bool(
            reached
        )  # another problem took it away; what is left is told in the next round
    if not reached or len(whole) == 1 == len(reached):
        return False
    place, step = reached[-1]
    del place[step]
    section.note(why, loud=True)
    section.set(key, whole)
    return True


def _has(value: Any, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, dict) and part in value


def _places(root: outline.Section, path: errors.Path) -> Iterator[tuple[outline.Section, str]]:
    """Yield each setting on the way to a path, with the section that it is in."""
    section: Any = root
    for key in path:
        if not isinstance(section, outline.Section) or key not in section.keys():  # noqa: SIM118 -- no mapping
            return
        yield section, str(key)
        section = section.get(key)


def _whole(section: outline.Section, name: str, why: str) -> None:
    """Take away what may make a template impossible: what a platform is told, then all of it."""
    entry = section.get(name)
    kinds = [
        key for key in ("kubernetes", "docker", "swarm", "mesos") if entry.get(key) is not None
    ]
    for key in kinds:
        entry.leave_out(key, why)
    if not kinds:
        section.leave_out(name, why)
