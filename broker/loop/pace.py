"""How often to look. Refuses to know clocks: ``turn.next_look`` says when, given the time."""

from attrs import define

_AT_ONCE = 5
_MORE = 2  # looks within ``busy_s``, in the long run


@define(kw_only=True)
class Pace:
    """How often to look, in seconds.

    At rest a peek at the queue every ``busy_s`` is what notices new items: one small request in
    place of two larger ones, because a controller saves a file for every authenticated request.
    """

    busy_s: float = 1.0
    idle_s: float = 5.0
    least_s: float = 0.1  # between two looks, however many hints come
    failing_s: float = 5.0  # while the controller does not answer, at most


@define(kw_only=True)
class Haste:
    """How soon one look may follow another, whatever happens meanwhile.

    A few follow at once, so that a single event is answered in no time. Where hints go on and on,
    because a hundred agents start and end, looks follow twice as often as they do while anything
    waits; and a controller that takes its time gets a pause as long, up to ``busy_s``.
    """

    pace: Pace
    _left: float = _AT_ONCE  # looks that may follow at once
    _at: float | None = None  # when that was so, in seconds of any clock

    def pause_s(self, *, took_s: float, now: float) -> float:
        """Return the least seconds until the next look, which is counted; ``took_s``: the last."""
        every_s = self.pace.busy_s / _MORE
        gone_s = max(0.0, now - self._at) if self._at is not None else 0.0
        self._left = min(float(_AT_ONCE), self._left + gone_s / every_s) - 1.0
        self._at = now
        return max(self.pace.least_s, min(took_s, self.pace.busy_s), -self._left * every_s)
