"""How often to look. Refuses to know clocks: ``turn.next_look`` says when, given the time."""

from attrs import define


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
