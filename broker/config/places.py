"""Where each setting stands: the hint for whoever wrote one at another place.

Made from the classes of the shape and of the kinds. Pure. Refuses to judge a value.
"""

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import define, field

from broker.config import errors, reading, shape
from broker.config.settings import KindClasses

_NAMED = {"backends", "templates", "defaults"}  # sections of names, or the same as one
_TOLD = 3  # places of one setting


@define(kw_only=True)
class Places:
    """All settings by their names."""

    kinds: Mapping[str, KindClasses]
    found: dict[str, list[errors.Path]] = field(factory=dict)  # sections, by what stands in them

    def __attrs_post_init__(self) -> None:
        self._add(shape.Document, ())
        self._add(shape.Template, ("templates", "NAME"))
        self._add(shape.Backend, ("backends", "NAME"))
        for kind, classes in self.kinds.items():
            self._add(classes.template_settings, ("templates", "NAME", kind))
            self._add(classes.settings, ("backends", "NAME", f"(of kind {kind})"))

    def hinted(self, problem: errors.Problem) -> errors.Problem:
        """Return a problem of an unknown setting with where it belongs, if it is one of ours.

        What is in the same section is meant, or else what is nearest.
        """
        if not (problem.text.startswith(reading.UNKNOWN) or self._is_of_kind(problem)):
            return problem
        *section, key = problem.path
        here = _pattern(tuple(section))
        places = [p for p in self.found.get(str(key), []) if self._fits(p, here)]
        # what every kind of backend knows is meant rather than what stands deep in one of them
        places = [p for p in places if not any(map(_is_kind, p))] or places
        nearest = max((_common(here, place) for place in places), default=0)
        near = [place for place in places if _common(here, place) == nearest]
        if here and nearest == len(here) and not any(_is_kind(p[nearest]) for p in near):
            words = sorted({_words(place[nearest:]) for place in near})
            hint = f"it belongs in {_listed(words)} of this section"
        elif problem.hint:  # it resembles one of here
            return problem
        else:
            words = sorted(map(_words, near))
            hint = f"it belongs in {_listed(words)}"
        return attrs.evolve(problem, hint=hint) if words else problem

    def _is_of_kind(self, problem: errors.Problem) -> bool:
        """Tell whether a value stands where a kind has its section: ``memory: 2Gi``."""
        *section, key = problem.path or ("",)
        is_value = problem.text.endswith(reading.SECTION)
        return is_value and len(section) == 2 and key in self.kinds and str(key) in self.found

    def _fits(self, place: errors.Path, here: errors.Path) -> bool:
        """Return whether a place may be meant: another kind's setting is another one."""
        kind = here[2] if here[:1] == ("templates",) and len(here) > 2 else None
        others = set(self.kinds) - {kind} if kind in self.kinds else set[str]()
        return not any(other in place or f"(of kind {other})" in place for other in others)

    def _add(self, cls: type[Any], section: errors.Path) -> None:
        for attribute in attrs.fields(cls):
            key = reading.key_of(attribute)
            places = self.found.setdefault(key, [])
            if section not in places:
                places.append(section)
            for inner in _classes(attribute.type):
                if inner not in {shape.Template, shape.Backend, shape.Choice}:
                    self._add(inner, (*section, key))


def _classes(told: Any) -> Iterator[type[Any]]:
    """Yield the classes of sections in a type: of ``tuple[Volume, ...] | None`` it is Volume."""
    if isinstance(told, type) and attrs.has(told):
        yield told
    for inner in typing.get_args(told):
        yield from _classes(inner)


def _pattern(section: errors.Path) -> errors.Path:
    """Return a section as all of its kind are called; without positions in lists."""
    plain = tuple(step for step in section if isinstance(step, str))
    if plain[:1] == ("defaults",):
        return ("templates", "NAME", *plain[1:])
    return (plain[0], "NAME", *plain[2:]) if plain and plain[0] in _NAMED else plain


def _common(one: errors.Path, other: errors.Path) -> int:
    """Return how far two paths go together."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def _words(section: errors.Path) -> str:
    kinds = [str(step) for step in section if _is_kind(step)]
    plain = errors.dotted(tuple(step for step in section if step not in kinds))
    return " ".join([plain or "the top level of the file", *kinds])


def _is_kind(step: str | int) -> bool:
    return str(step).startswith("(")


def _listed(texts: list[str]) -> str:
    return " or ".join(texts[:_TOLD]) + (" or others" if len(texts) > _TOLD else "")
