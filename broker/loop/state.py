"""All that one broker remembers, as one value: what ``turn``'s functions take and give.

A fresh state is always a correct start: what it holds is either seen again, or only for people.
Refuses to know tasks, clocks and sources, and to change: whoever has a state has a moment.
"""

from collections.abc import Mapping

from attrs import Factory, frozen

from broker.core import model
from broker.core.decide import giving_up
from broker.core.fleet import builds, death, latency
from broker.core.fleet import hour as hours
from broker.core.fleet import ledger as ledgers

DEATHS_KEPT = 100
OUTCOMES_KEPT = 50
QUESTIONS_KEPT = 1000
"""Vanished items that wait to be asked about: the controller remembers them for five minutes."""


@frozen(kw_only=True)
class State:
    """One broker between two events. Times are POSIX seconds on its own clock."""

    ledger: model.Ledger = Factory(model.Ledger)
    world: model.World | None = None  # the last views of all sources, and the ledger after them
    plan: model.Plan | None = None  # what followed from them
    last_read: tuple[model.World, model.Plan] | None = None  # both, when the controller was read
    running: Mapping[model.NodeName, model.Action] = Factory(dict)  # one action for each agent
    known: latency.Known | None = None  # who waited at the last look, to see who starts
    questions: tuple[latency.Vanished, ...] = ()  # gone before they were seen to start
    # by the push hook, since the last read of the queue
    pushed: Mapping[model.ItemId, model.QueueEvent] = Factory(dict)
    waits: model.WaitBook = Factory(model.WaitBook)  # what the time of who waits was spent on
    doomed: giving_up.Doomed = Factory(dict)  # items that nothing can serve, to be cancelled
    seen_builds: builds.Watch = Factory(builds.Watch)  # at work at the last look
    hour: hours.Hour = Factory(hours.Hour)  # the last one, for people
    deaths: tuple[death.Death, ...] = ()  # the last ones, oldest first
    outcomes: tuple[ledgers.Outcome, ...] = ()  # the last ones, oldest first
    unread_since: Mapping[str, float] = Factory(dict)  # sources, by name; see ``health``
    as_of: Mapping[str, float] = Factory(dict)  # when the last good read of each began
    implausible: str = ""  # why more is left over than we dare to remove
    leads: bool = True  # whether we might act at the last look
    term: int = 0  # of leading, begun or ended
    failures: int = 0  # looks in a row that have not gone well, the present one included
    launches: int = 0  # that ended well
    ends: int = 0  # of agents, by our doing

    @classmethod
    def fresh(cls, ledger: model.Ledger | None = None) -> "State":
        """Return the state of a broker that begins, with what an earlier life has written down."""
        return cls(ledger=ledger if ledger is not None else model.Ledger())
