"""What each item's wait was spent on: time is booked from look to look.

Rules: the time between two looks belongs to what the earlier one showed, for ``MAX_GAP_S`` at
most; the rest of a longer gap, and all that follows a look without the controller, is unknown.
Where the queue tells when something ended (``buildableStartMilliseconds``), the spell ends then,
and the time until the look that shows it is unseen. Time before the first sight of an item is
what the queue tells of it: until it became buildable it was in its quiet period or blocked, which
nobody can tell apart afterwards; both are booked as the quiet period.

So the times of an item add up to its wait exactly, and each is right but for one look. An account
changes only when its item goes on to another spell: ten thousand that wait for one cap cost one
comparison each. Pure and total. Refuses to know metrics and how anybody is told.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from attrs import evolve

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import latency
from broker.core.model import (
    Account,
    ClosedAccount,
    ItemId,
    Phase,
    Spell,
    Stage,
    TemplateName,
    WaitBook,
    WaitEnd,
    WaitReason,
    WaitStep,
)

CLOSED_KEPT = 500
"""Of those that started or left."""
MAX_GAP_S = latency.MAX_GAP_S

Tally = Mapping[tuple[TemplateName | None, Spell], float]
"""Seconds that all items together spent since the look before."""

_ENDS_WHEN_READY = frozenset({WaitReason.QUIET_PERIOD, WaitReason.BLOCKED})
_READY = frozenset({Stage.BUILDABLE, Stage.PENDING})
_ON_ITS_WAY = frozenset(
    {WaitReason.AGENT_IDLE, WaitReason.AGENT_STARTING, WaitReason.AGENT_ORDERED}
)
_FIRST_STEPS = {
    WaitReason.AGENT_IDLE: WaitStep.GIVEN,
    WaitReason.AGENT_STARTING: WaitStep.STARTING,
    WaitReason.AGENT_ORDERED: WaitStep.ORDERED,
}
# by whether it is we who ended it
_MAY_BE_LEARNT = {False: {WaitEnd.LEFT}, True: {WaitEnd.LEFT, WaitEnd.CANCELLED}}
_STARTING = backends_api.InstanceState.STARTING

_Sum = dict[tuple[TemplateName | None, Spell], float]


def look(
    book: WaitBook,
    world: model.World,
    plan: model.Plan,
    before: tuple[model.World, model.Plan] | None,
    started: Iterable[latency.Started] = (),
) -> tuple[WaitBook, Tally]:
    """Book the time since the look before this one; return what was booked as well.

    ``before``: the last look of which the controller was a part. ``started``: who was seen to.
    """
    view, now = world.controller, world.now
    if not view.synced:
        return _blind(book, now)
    booking = _Booking(book.looked_at, now)
    unmet = {one.item: one for one in plan.unmet}
    agents = {agent.name: agent for agent in plan.agents}
    steps: dict[tuple[WaitReason, str | None], Spell] = {}
    after: dict[ItemId, Account] = {}
    for item in view.items:
        one, account = unmet.get(item.id), book.open.get(item.id)
        if one is not None:
            key = (one.reason, one.agent)
            spell = steps.get(key)
            if spell is None:
                spell = steps[key] = _spell(one, agents)
            template = one.template
        elif account is not None and item.stage is Stage.PENDING:
            spell, template = WaitStep.GIVEN, account.template
        else:
            continue  # it needs nobody, or was given to an executor before it was seen
        if account is None:
            after[item.id] = booking.opened(item, spell, template)
        else:
            after[item.id] = booking.goes_on(account, spell, template, item)
    gone = [account for key, account in book.open.items() if key not in after]
    if view.odd_items:  # some cannot be read: who is not shown may wait still
        after.update({one.item: booking.goes_on(one, one.spell, one.template) for one in gone})
        gone = []
    closed = _closed(gone, booking, before, {one.item: one for one in started}) if gone else ()
    return (
        WaitBook(open=after, closed=(*book.closed, *closed)[-CLOSED_KEPT:], looked_at=now),
        booking.tally(),
    )


def learnt(
    book: WaitBook, item: ItemId, end: WaitEnd, agent: model.NodeName | None = None
) -> WaitBook:
    """Write down what became of an item that was gone before it was seen to start."""
    closed = tuple(
        evolve(one, end=end, agent=agent if agent is not None else one.agent)
        if one.item == item and one.end in _MAY_BE_LEARNT[end is WaitEnd.GIVEN_UP]
        else one
        for one in book.closed
    )
    return evolve(book, closed=closed)


def so_far(account: Account, now: float) -> dict[Spell, float]:
    """Return the seconds of each spell up to now, in the order in which they began."""
    spent = dict(account.spent)
    _add(spent, account.spell, now - account.spell_at)
    return spent


def _blind(book: WaitBook, now: float) -> tuple[WaitBook, Tally]:
    booking = _Booking(book.looked_at, now)
    after = {
        key: booking.goes_on(one, WaitStep.UNKNOWN, one.template) for key, one in book.open.items()
    }
    return WaitBook(open=after, closed=book.closed, looked_at=now), booking.tally()


class _Booking:
    """The time between two looks, being booked."""

    def __init__(self, looked_at: float | None, now: float) -> None:
        self._looked_at = looked_at
        self._from = now if looked_at is None else min(looked_at, now)
        self.now = now
        self._known_until = min(now, self._from + MAX_GAP_S)
        self._sum: _Sum = {}
        self._unchanged: Counter[tuple[TemplateName | None, Spell]] = Counter()

    def tally(self) -> Tally:
        """Return what was booked since the look before; nothing at the first one."""
        if self._looked_at is None:
            return {}
        gap = self.now - self._from
        for key, number in self._unchanged.items():
            self._sum[key] = self._sum.get(key, 0.0) + number * gap
        return {key: seconds for key, seconds in self._sum.items() if seconds > 0.0}

    def goes_on(
        self,
        account: Account,
        spell: Spell,
        template: TemplateName | None,
        item: model.QueueItem | None = None,
    ) -> Account:
        """Book what an item's last spell took, if it is over, or too little is known of it."""
        if spell is account.spell and self._known_until == self.now:
            self._unchanged[account.template, spell] += 1
            if template == account.template:
                return account
            return evolve(account, template=template)
        return Account(
            account.item, account.since_at, spell, self.now, template, self.ended(account, item)
        )

    def ended(self, account: Account, item: model.QueueItem | None = None) -> dict[Spell, float]:
        """Return the times of an item up to now, its last spell with them."""
        spent = dict(account.spent)
        until = self._known_until
        rest: Spell = WaitStep.UNKNOWN
        if until == self.now and item is not None and item.stage in _READY:
            ready_at = item.buildable_since_at
            was_held = account.spell in _ENDS_WHEN_READY
            if was_held and ready_at is not None and self._from < ready_at < self.now:
                until, rest = ready_at, WaitStep.UNSEEN
        self._book(spent, account.spell, account.spell_at, until, account.template)
        self._book(spent, rest, max(until, account.spell_at), self.now, account.template)
        return spent

    def opened(
        self, item: model.QueueItem, spell: Spell, template: TemplateName | None
    ) -> Account:
        """Open an account: of the time before nothing is known but what the queue tells."""
        now, ready_at = self.now, item.buildable_since_at
        since = min(item.in_queue_since_at or ready_at or now, now)
        spent: dict[Spell, float] = {}
        if item.stage not in _READY:
            self._book(spent, spell, since, now, template)
        else:
            until = min(max(ready_at, since), now) if ready_at is not None else since
            self._book(spent, WaitReason.QUIET_PERIOD, since, until, template)
            self._book(spent, WaitStep.UNSEEN, until, now, template)
        return Account(item.id, since, spell, now, template, spent)

    def _book(
        self,
        spent: dict[Spell, float],
        spell: Spell,
        since: float,
        until: float,
        template: TemplateName | None,
    ) -> None:
        _add(spent, spell, until - since)
        fresh = until - max(since, self._from)
        if fresh > 0.0:
            key = (template, spell)
            self._sum[key] = self._sum.get(key, 0.0) + fresh


def _add(spent: dict[Spell, float], spell: Spell, seconds: float) -> None:
    if seconds > 0.0:
        spent[spell] = spent.get(spell, 0.0) + seconds


def _spell(unmet: model.Unmet, agents: Mapping[model.NodeName, model.Agent]) -> Spell:
    if unmet.reason not in _ON_ITS_WAY:
        return unmet.reason
    agent = agents.get(unmet.agent) if unmet.agent is not None else None
    if agent is None or unmet.reason is WaitReason.AGENT_IDLE:
        return _FIRST_STEPS[unmet.reason]  # it is ordered just now, or another owner's
    return _step(agent)


def _step(agent: model.Agent) -> WaitStep:
    """Return how far an agent has come that is not online yet."""
    instance = agent.instance
    if agent.phase is Phase.UNKNOWN:
        return WaitStep.UNKNOWN
    if agent.phase is Phase.CHECKING:
        return WaitStep.CHECKING
    if instance is None:
        return WaitStep.ORDERED
    if instance.state is _STARTING:
        return WaitStep.IMAGE if instance.fetching else WaitStep.STARTING
    return WaitStep.CONNECTING


def _closed(
    gone: Iterable[Account],
    booking: _Booking,
    before: tuple[model.World, model.Plan] | None,
    started: Mapping[ItemId | None, latency.Started],
) -> Iterable[ClosedAccount]:
    """Close the accounts of those who left, the one that came first foremost."""
    world, plan = before if before is not None else (None, None)
    items = {one.id: one for one in world.controller.items} if world is not None else {}
    unmet = {one.item: one for one in plan.unmet} if plan is not None else {}
    labels = plan.ledger.labels if plan is not None else {}
    oldest_first = sorted(gone, key=lambda one: (one.since_at, one.item))
    for account in oldest_first[:-CLOSED_KEPT]:
        booking.ended(account)
    for account in oldest_first[-CLOSED_KEPT:]:
        item, last = items.get(account.item), unmet.get(account.item)
        start = started.get(account.item)
        known = last.label if last is not None else labels.get(account.item)
        agent = last.agent if last is not None else None
        yield ClosedAccount(
            item=account.item,
            task_url=item.task_url if item is not None else "",
            task_name=item.task_name if item is not None else "",
            label=known.expression if known is not None else None,
            template=start.template if start is not None else account.template,
            agent=start.agent if start is not None else agent,
            end=WaitEnd.STARTED if start is not None else WaitEnd.LEFT,
            since_at=account.since_at,
            ended_at=booking.now,
            spent=booking.ended(account),
            text=last.text if last is not None else "",
        )
