"""Weekly windows with a time zone: how many agents are to be kept warm at a moment.

Windows are told in local wall time, so that 07:00 stays 07:00 when the clocks change. Pure;
refuses to look at a clock.
"""

import datetime as dt
import zoneinfo
from collections.abc import Iterator, Sequence

from attrs import frozen

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MIN = 24 * 60
_MONDAYS = (dt.datetime(2026, 1, 12), dt.datetime(2026, 7, 13))  # noqa: DTZ001 -- of every zone


@frozen(kw_only=True)
class Window:
    """From ``start_min`` to ``end_min`` (minutes after local midnight) on each of ``days``.

    An end at or before the start belongs to the next day; equal ones mean a whole day.
    """

    days: frozenset[int]  # 0 is Monday; the day on which the window begins
    start_min: int
    end_min: int
    min_idle: int

    def holds(self, weekday: int, minute: int) -> bool:
        """Return whether a local moment is inside."""
        if self.start_min < self.end_min:
            return weekday in self.days and self.start_min <= minute < self.end_min
        if weekday in self.days and minute >= self.start_min:
            return True
        return (weekday - 1) % len(DAYS) in self.days and minute < self.end_min


def min_idle(base: int, windows: Sequence[Window], *, zone: str, at: float) -> int:
    """Return the largest figure of the windows that hold at ``at`` (POSIX s), or ``base``."""
    if not windows:
        return base
    local = dt.datetime.fromtimestamp(at, zoneinfo.ZoneInfo(zone))
    minute = local.hour * 60 + local.minute
    holding = [w.min_idle for w in windows if w.holds(local.weekday(), minute)]
    return max(holding) if holding else base


def changes(windows: Sequence[Window], *, zone: str) -> Iterator[float]:
    """Yield when each window begins in a week of winter and in one of summer (POSIX s).

    The largest sum of several schedules is at one of these moments, or where none has a window.
    """
    for monday in _MONDAYS:
        yield monday.replace(tzinfo=dt.UTC).timestamp()
        for window in windows:
            for day in window.days:
                begins = monday + dt.timedelta(days=day, minutes=window.start_min)
                yield begins.replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()


def parse_days(text: str) -> frozenset[int]:
    """Read ``mon-fri``, ``sat,sun``, ``fri-mon`` or ``daily``. Raises ValueError."""
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        if part == "daily":
            return frozenset(range(len(DAYS)))
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError("days like mon-fri, sat,sun or daily")
        day, end = DAYS.index(first), DAYS.index(last if dash else first)
        days.add(day)
        while day != end:
            day = (day + 1) % len(DAYS)
            days.add(day)
    return frozenset(days)


def parse_time(value: str) -> int:
    """Read ``07:00`` to ``24:00`` as minutes after midnight. Raises ValueError.

    A number is none: hours, minutes, or 730?
    """
    hour, colon, minute = str(value).partition(":")
    if colon and hour.isdecimal() and minute.isdecimal() and len(minute) == 2:
        total = int(hour) * 60 + int(minute)
        if int(minute) < 60 and total <= _DAY_MIN:
            return total
    raise ValueError('a time of day like "07:00"')
