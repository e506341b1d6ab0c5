"""When a cache is to be made anew before the next agent has it: pure.

A cache is a named volume of a slot (``names.SLOT``) whose template bounds its age or its size. Its
labels say whose it is and when it was made, by the broker's clock: what an engine calls the
creation of a volume changes with each file at its top before 23.0 (moby 44719), and its clock may
be another one. What has no such labels is not ours, and is not removed.

Refuses to know engines, and how sizes are found out.
"""

import re
from collections.abc import Mapping

from attrs import Factory, frozen

from backends.kit import setting
from outside import counts

MADE = "agent-broker.cache-made"
"""The label that says when a cache was made, POSIX seconds by the broker's clock."""
_MOMENT = re.compile(r"[0-9]{1,11}")
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


@frozen(kw_only=True)
class Cache:
    """A volume that an agent is to have, and what its template says about it.

    ``marks`` are the labels of one that is made for it, but for the time.
    """

    name: str
    driver: str
    driver_options: Mapping[str, str] = Factory(dict)
    max_age_s: float | None = None
    max_size_bytes: int | None = None
    marks: Mapping[str, str]


def labels(cache: Cache, *, now: float) -> dict[str, str]:
    """Return the labels of one that is made now (POSIX seconds)."""
    return {**cache.marks, MADE: str(int(now))}


def made_at(told: Mapping[str, str], owner: Mapping[str, str]) -> float | None:
    """Return when a volume with these labels was made as a cache of the owner; None: it was not.

    ``owner``: the labels that make something ours.
    """
    made = told.get(MADE, "")
    ours = all(told.get(key) == text for key, text in owner.items())
    return float(made) if ours and _MOMENT.fullmatch(made) else None


def excess(cache: Cache, *, age_s: float, size_bytes: int | None) -> str:
    """Return why a cache is not to be handed on, in words; empty if it may be.

    A size of None is not known, and not too large.
    """
    if cache.max_age_s is not None and age_s > cache.max_age_s:
        return f"{_age(age_s)} old, max_age is {setting.duration(cache.max_age_s)}"
    if cache.max_size_bytes is not None and (size_bytes or 0) > cache.max_size_bytes:
        return f"{_size(size_bytes or 0)} large, max_size is {setting.size(cache.max_size_bytes)}"
    return ""


def _age(seconds: float) -> str:
    """Return an age in the two largest units that it has."""
    told: list[str] = []
    left = int(seconds)
    for length, unit in _UNITS:
        count, left = divmod(left, length)
        if count and len(told) < 2:
            told.append(f"{count} {unit}{'s' * (count > 1)}")
    return " and ".join(told) or "less than a minute"


def _size(number: int) -> str:
    for power, unit in ((4, "Ti"), (3, "Gi"), (2, "Mi"), (1, "Ki")):
        if number >= 1024**power:
            return f"{number / 1024**power:.1f}{unit}"
    return counts.told(number, "byte")
