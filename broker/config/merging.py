"""Several files become one document, in which each value has a place; nothing is said twice.

Sections are put together. A template or a backend stands whole in one file. A team's file has
templates that are called like it, and defaults for them alone. Refuses to know what settings mean.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from broker.config import tree, values
from broker.config.errors import Path, Problem

_OF_TEAMS = ("defaults", "templates")
_WHOLE = {("backends",), ("templates",)}  # what is named in them is not put together


@frozen(kw_only=True)
class Part:
    """One file that was read."""

    name: str
    tree: tree.Tree
    team: str = ""

    def owns(self, path: Path) -> bool:
        """Return whether a path of the whole can stand in it."""
        return not self.team or path[:1] == ("templates",)


@define(kw_only=True)
class WholeDocument:
    """The whole: data, and where each value of it stands."""

    parts: Sequence[Part]
    data: Any = field(factory=dict)
    problems: list[Problem] = field(factory=list)

    def located(self, problem: Problem) -> Problem:
        """Say where a problem stands; one of the defaults is told where they are."""
        path = problem.path
        if self._part(path) is None and (default := self._default(path)) is not None:
            part, path = default
            return at(part, path, problem.text, problem.hint)
        while path and self._part(path) is None:
            path = path[:-1]
        part = self._part(path) or self.parts[0]
        return at(part, path, problem.text, problem.hint, shown=problem.path)

    def has(self, path: Path) -> bool:
        """Return whether something stands at a path."""
        return self._part(path) is not None or self._default(path) is not None

    def _part(self, path: Path) -> Part | None:
        """Return whose file has exactly this path."""
        return next((p for p in self.parts if p.owns(path) and path in p.tree.lines), None)

    def _default(self, path: Path) -> tuple[Part, Path] | None:
        """Return where the defaults say what a template does not: its team's, then all."""
        default: Path = ("defaults", *path[2:])
        if path[:1] != ("templates",) or len(default) < 2:
            return None
        own = self._part(path[:2])
        teams = [own] if own is not None and own.team else []
        for part in (*teams, *(p for p in self.parts if not p.team)):
            if default in part.tree.lines:
                return part, default
        return None


def merged(parts: Sequence[Part]) -> WholeDocument:
    """Put files together; what cannot be is told in the document's problems."""
    document = WholeDocument(parts=parts)
    whole = [part for part in parts if not part.team]
    if len(whole) == 1:
        document.data = whole[0].tree.data
    else:
        for part in whole:
            if _is_section(document, part):
                _add(document, part, document.data, part.tree.data, ())
    teams = [part for part in parts if part.team]
    if teams and isinstance(document.data, dict):
        document.data = dict(document.data)
        for part in teams:
            if _is_section(document, part):
                _add_team(document, part, {team.team for team in teams})
    return document


def _add(
    document: WholeDocument, part: Part, into: dict[str, Any], data: Mapping[str, Any], path: Path
) -> None:
    for key, value in data.items():
        where = (*path, key)
        below = into.get(key)
        if below is None:
            into[key] = value
        elif value is None:
            continue
        elif isinstance(below, dict) and isinstance(value, dict) and path not in _WHOLE:
            _add(document, part, below, value, where)
        else:
            _twice(document, part, where)


def _twice(document: WholeDocument, part: Part, path: Path) -> None:
    first = next(p for p in document.parts if p.owns(path) and path in p.tree.lines)
    text = f"given twice, first in {first.name}:{first.tree.line(path)}"
    document.problems.append(at(part, path, text, "keep one of them"))


def _is_section(document: WholeDocument, part: Part) -> bool:
    if isinstance(part.tree.data, dict):
        return True
    # a team's file may lead by a link to what the team may not read: it is not quoted
    what = "something else" if part.team else values.shown(part.tree.data)
    text = f"found {what}; allowed: a section of settings"
    document.problems.append(at(part, (), text))
    return False


def _add_team(document: WholeDocument, part: Part, teams: set[str]) -> None:
    """Take up what a team may say."""
    data = part.tree.data
    for key in data:
        if key not in _OF_TEAMS:
            text = "not of a team's file; allowed: defaults, templates"
            document.problems.append(at(part, (key,), text, "put it into broker.yaml"))
    defaults, templates = ({} if data.get(key) is None else data[key] for key in _OF_TEAMS)
    for key, value in (("defaults", defaults), ("templates", templates)):
        if not isinstance(value, dict):
            text = f"found {values.shown(value)}; allowed: a section of settings"
            document.problems.append(at(part, (key,), text))
            return
    present = document.data.get("templates")
    into = dict(present) if isinstance(present, dict) else {}
    for name, entry in templates.items():
        where: Path = ("templates", name)
        if (owner := _owner(name, teams)) != part.team:
            text = f"not a name of this file; allowed: {part.team}, {part.team}-…"
            hint = f"{owner}.yaml has it" if owner else "rename it, or put it into broker.yaml"
            document.problems.append(at(part, where, text, hint))
        elif name in into:
            _twice(document, part, where)
        else:
            into[name] = laid_over(defaults, entry) if isinstance(entry, dict) else entry
    if present is None or isinstance(present, dict):
        document.data["templates"] = into


def _owner(name: str, teams: set[str]) -> str:
    """Return the team that a template's name is of: the one whose own name says most of it."""
    fits = [team for team in teams if name == team or name.startswith(f"{team}-")]
    return max(fits, key=len, default="")


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``over`` upon ``under``; sections are merged, everything else is replaced."""
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        sections = isinstance(below, Mapping) and isinstance(value, Mapping)
        both[key] = laid_over(below, value) if sections else value  # type: ignore[arg-type]
    return both


def at(part: Part, path: Path, text: str, hint: str = "", *, shown: Path | None = None) -> Problem:
    """Return a problem of a file at a path in it; ``shown``: what it is called instead."""
    return Problem(
        path=path if shown is None else shown,
        text=text,
        hint=hint,
        file=part.name,
        line=part.tree.line(path),
    )
