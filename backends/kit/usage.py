"""What instances have used of memory and processors: samples become what is told. Pure.

Platforms count processor time from the start, but tell of memory mostly what is in use now. So an
instance is asked again and again while it lives, and the largest answer is kept: what lay between
two samples is not seen. Refuses to know any platform, and who asks.
"""

import math
from collections.abc import Collection
from typing import TypeVar

import attrs
from attrs import field, frozen, mutable

from backends import api

_T = TypeVar("_T")
_N = TypeVar("_N", int, float)

FIRST_S, EVERY_S = 2.0, 15.0
"""Between the first two samples of an instance, twice that between the next, and at most: agents
of one short build are seen too, and a platform is not asked more than it bears."""
_ALL = ""  # no platform has such a key
_RATE_S = 1.0  # of a shorter interval the processor time says nothing


@frozen(kw_only=True)
class Sample:
    """One answer of a platform. None: it does not tell; sizes in bytes, times in seconds."""

    at: float  # POSIX
    memory_bytes: int | None = None  # in use, without what the kernel would give back at once
    memory_cached_peak_bytes: int | None = None  # the kernel's own peak, files in memory included
    memory_limit_bytes: int | None = None
    cpu_s: float | None = None  # of all processors, since its start
    cpu_cores: float | None = None  # in use just now, where only that is told
    throttled_s: float | None = None  # for how long its limit of processors held it back


@mutable
class Usages:
    """What is told of each instance, by a key of its platform's (an id: a name is used again)."""

    every_s: float = EVERY_S
    together: bool = False  # one request tells of all
    _told: dict[str, api.Usage] = field(factory=dict)
    _asked: dict[str, tuple[float, float]] = field(factory=dict)  # when, and the pause after it

    def of(self, key: str) -> api.Usage | None:
        """Return what is known of it by now."""
        return self._told.get(key)

    def due(self, keys: Collection[str], *, now: float) -> tuple[str, ...]:
        """Return who is to be asked, and take them for asked, whatever comes of it."""
        if self.together:
            return tuple(keys) if keys and self._is_due(_ALL, now, self.every_s) else ()
        return tuple(key for key in keys if self._is_due(key, now, FIRST_S))

    def _is_due(self, key: str, now: float, first_s: float) -> bool:
        asked_at, pause_s = self._asked.get(key, (-math.inf, 0.0))
        if 0 <= now - asked_at < pause_s:  # not if the clock went back
            return False
        self._asked[key] = (now, min(self.every_s, 2 * pause_s) if pause_s else first_s)
        return True

    def take(self, key: str, sample: Sample) -> None:
        """Add an answer."""
        self._told[key] = added(self._told.get(key), sample)

    def keep(self, keys: Collection[str]) -> None:
        """Forget all others."""
        self._told = {key: usage for key, usage in self._told.items() if key in keys}
        self._asked = {k: asked for k, asked in self._asked.items() if k in keys or k == _ALL}


def added(before: api.Usage | None, sample: Sample) -> api.Usage:
    """Return what is told after one more sample. What a later one leaves out stays."""
    old = before if before is not None else api.Usage(at=sample.at)
    return attrs.evolve(
        old,
        at=sample.at,
        memory_bytes=_first(sample.memory_bytes, old.memory_bytes),
        memory_peak_bytes=_most(old.memory_peak_bytes, sample.memory_bytes),
        memory_cached_peak_bytes=_most(
            old.memory_cached_peak_bytes, sample.memory_cached_peak_bytes
        ),
        memory_limit_bytes=_first(sample.memory_limit_bytes, old.memory_limit_bytes),
        cpu_s=_most(old.cpu_s, sample.cpu_s),
        cpu_peak_cores=_most(old.cpu_peak_cores, _cores(before, sample)),
        throttled_s=_most(old.throttled_s, sample.throttled_s),
    )


def _cores(before: api.Usage | None, sample: Sample) -> float | None:
    """Return how many processors it kept busy since the sample before."""
    if sample.cpu_cores is not None:
        return sample.cpu_cores
    if before is None or before.cpu_s is None or sample.cpu_s is None:
        return None
    passed_s = sample.at - before.at
    return max(0.0, sample.cpu_s - before.cpu_s) / passed_s if passed_s >= _RATE_S else None


def _first(new: _T | None, old: _T | None) -> _T | None:
    return new if new is not None else old


def _most(old: _N | None, new: _N | None) -> _N | None:
    if old is None or new is None:
        return new if new is not None else old
    return max(old, new)
