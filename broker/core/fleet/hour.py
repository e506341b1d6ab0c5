"""The last hour by minutes: who waited, what agents there were, and how long starts took.

For people: nothing is decided by it. Bounded by the hour and by ``MOST_WAITS``. Pure.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs
from attrs import frozen

from broker.core import model
from broker.core.model import Phase, Stage, TemplateName

MINUTE_S = 60.0
MINUTES = 60
MOST_WAITS = 5000
_STARTING = (Phase.LAUNCHING, Phase.CONNECTING, Phase.CHECKING)


@frozen(kw_only=True)
class Minute:
    """The most of each that a look showed within a minute."""

    at: float  # when it began, POSIX seconds: a multiple of ``MINUTE_S``
    waiting: int = 0  # items that are buildable
    starting: int = 0  # agents, as the following
    idle: int = 0
    busy: int = 0


@frozen(kw_only=True)
class StartWait:
    """How long an item waited that began on an agent of ours."""

    at: float
    waited_s: float
    template: TemplateName | None = None


@frozen(kw_only=True)
class Hour:
    """What is kept of the last hour, oldest first; minutes without a look are missing."""

    minutes: tuple[Minute, ...] = ()
    waits: tuple[StartWait, ...] = ()

    def waited(self, share: float, template: TemplateName | None = None) -> float | None:
        """Return within how many seconds that share of the starts came; None without any."""
        return quantile(
            [one.waited_s for one in self.waits if template in {None, one.template}], share
        )


def noted(hour: Hour, view: model.ControllerView, plan: model.Plan, *, now: float) -> Hour:
    """Return the hour after a look; one that did not read the controller shows nothing."""
    if not view.synced:
        return hour
    phases = Counter(agent.phase for agent in plan.agents)
    seen = Minute(
        at=math.floor(now / MINUTE_S) * MINUTE_S,
        waiting=sum(item.stage is Stage.BUILDABLE for item in view.items),
        starting=sum(phases[phase] for phase in _STARTING),
        idle=phases[Phase.IDLE],
        busy=phases[Phase.BUSY],
    )
    last = hour.minutes[-1] if hour.minutes else None
    if last == seen:
        return hour
    if last is not None and last.at >= seen.at:  # also where the clock went back
        most = {
            name: max(getattr(last, name), getattr(seen, name))
            for name in ("waiting", "starting", "idle", "busy")
        }
        return attrs.evolve(hour, minutes=(*hour.minutes[:-1], attrs.evolve(last, **most)))
    kept = [one for one in hour.minutes if one.at > seen.at - MINUTES * MINUTE_S]
    waits = tuple(one for one in hour.waits if one.at > now - MINUTES * MINUTE_S)
    return Hour(minutes=(*kept, seen), waits=waits)


def started(
    hour: Hour, starts: Iterable[tuple[TemplateName | None, float]], *, now: float
) -> Hour:
    """Return the hour with starts that were seen: of which template, and how long they took."""
    fresh = tuple(
        StartWait(at=now, waited_s=waited_s, template=template) for template, waited_s in starts
    )
    if not fresh:
        return hour
    return attrs.evolve(hour, waits=(*hour.waits, *fresh)[-MOST_WAITS:])


def quantile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that so large a share of them does not exceed; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
