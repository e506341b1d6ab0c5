"""Agents for the items that nobody present will serve, fair between kinds of items; the warm pool.

Refuses to know who is served by whom (``serving``), and where there is room (``capacity``).
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from broker.core import model
from broker.core.decide import capacity, restraint, serving, variants
from broker.core.decide import draft as drafts
from broker.core.demand import matching, parameters, vetoes
from broker.core.demand import wishes as demand
from broker.core.fleet import marks
from broker.core.model import LabelSource, Phase, Template, WaitReason
from outside import counts

_TRY_AND_OTHER = 2  # agents
_TOLD = 4
"""So many templates that would serve an item are told of in the reason why none does."""


def order(draft: drafts.Draft) -> None:
    """Order agents for items that nobody present will serve, and for the warm pool.

    After each round all items are nominated anew, the new orders included: an item that may run
    on several kinds of agents leaves the one to those that need just it, and is ordered another.
    Whom an order serves is therefore known only at the end, and said there.
    """
    while True:
        served = len(draft.nominated)
        draft.short.clear()
        _order_round(draft)
        serving.nominate(draft)
        _take_back(draft)
        refusals = _keep_warm(draft)
        serving.nominate(draft)
        if len(draft.nominated) == served:  # nothing new, or orders for the warm pool alone
            break
    draft.refusals.extend(refusals)
    _launch_ordered(draft)


def _take_back(draft: drafts.Draft) -> None:
    """Withdraw what this plan ordered and nobody needs: another order has a slot for its item."""
    needed = {supply.name for supply in draft.nominated.values()}
    orders = draft.orders.values()
    idle = [order for order in orders if order.name not in needed and not order.tries]
    if not idle:
        return
    warm = _warm(draft)
    for order in reversed(idle):
        if order.asked or warm[order.template.name] > order.template.min_idle:
            warm[order.template.name] -= not order.asked
            _withdraw(draft, order)
    others = {order.template.name for order in orders if not order.tries}
    for order in [one for one in orders if one.tries and one.template.name not in others]:
        _withdraw(draft, order)
    present = {agent.name for agent in draft.agents}
    draft.supplies = [
        s for s in draft.supplies if s.name in present or s.name in draft.orders or s.owner
    ]
    draft.matched = len(draft.supplies)  # those that went served nobody


def _withdraw(draft: drafts.Draft, order: drafts.OrderedAgent) -> None:
    del draft.orders[order.name]
    draft.launches[order.template.name] -= 1
    draft.room.give_back(order.template, order.backend, order.asked)


def _launch_ordered(draft: drafts.Draft) -> None:
    """Make launches of the orders: for the items that each is nominated to, or for the pool."""
    served: dict[model.NodeName, list[demand.Wish]] = {name: [] for name in draft.orders}
    for wish in draft.wanted if draft.orders else ():
        supply = draft.nominated.get(wish.item.id)
        if supply is not None and supply.name in served:
            served[supply.name].append(wish)
    slots = _Slots(draft.agents)
    for order in draft.orders.values():
        wishes = served[order.name]
        if wishes:
            reason = f"item {wishes[0].item.id} waits for {_words(wishes[0])}"
            others = len(wishes) - 1
            reason += f", and {counts.told(others, 'more item')}" if others else ""
        elif order.tries:
            reason = order.tries
        else:
            reason = f"keeps {counts.told(order.template.min_idle, 'agent')} warm"
        draft.actions.append(
            model.LaunchAgent(
                name=order.name,
                template=order.template.name,
                backend=order.backend,
                reason=reason,
                item=wishes[0].item.id if wishes else None,
                avoid=tuple(
                    sorted(place for name, place in draft.avoided if name == order.backend)
                ),
                asked=tuple(sorted(order.asked)),
                slot=slots.take(order.template) if order.template.numbered else None,
                checked=order.template.checks.ready is not None,
            )
        )


class _Slots:
    """The lowest numbers that nobody of a template has who is there, or may still come to be.

    Low ones first, so that few places are kept, and those that were used last are used again.
    """

    def __init__(self, agents: Iterable[model.Agent]) -> None:
        self._taken = {(agent.template, agent.slot) for agent in agents}

    def take(self, template: Template) -> int:
        free = next(n for n in itertools.count() if (template.name, n) not in self._taken)
        self._taken.add((template.name, free))
        return free


def _order_round(draft: drafts.Draft) -> None:
    """Order for items that are given to nobody; fair between kinds of items."""
    for wish in draft.pinned:
        if wish.item.id not in draft.nominated:
            drafts.note(
                draft,
                wish,
                WaitReason.AGENT_BUSY,
                f"it must run on agent {wish.pinned} and nowhere else",
                agent=wish.pinned,
            )
    served = draft.nominated.keys()
    crowds = [[w for w in crowd if w.item.id not in served] for crowd in draft.crowds]
    spare: Counter[tuple[str, frozenset[str]]] = Counter()
    turn = itertools.count()
    heap = [
        (_turn(draft, crowd, rank), next(turn), rank, crowd)
        for crowd, rank in zip(crowds, variants.ranks(crowds), strict=True)
        if crowd
    ]
    heapq.heapify(heap)
    while heap:
        _, _, rank, crowd = heapq.heappop(heap)
        if _place_one(draft, crowd, spare) and crowd:
            heapq.heappush(heap, (_turn(draft, crowd, rank), next(turn), rank, crowd))


def _turn(
    draft: drafts.Draft, crowd: Sequence[demand.Wish], rank: int
) -> tuple[int, int, int, float, int]:
    head = crowd[0]
    held = min((draft.room.by_template[name] for name in head.templates), default=0)
    return (int(head.kind is not demand.WishKind.NOW), held, rank, *drafts.age(head))


def _place_one(
    draft: drafts.Draft,
    crowd: list[demand.Wish],
    spare: Counter[tuple[str, frozenset[str]]],
) -> bool:
    """Serve the oldest item of a crowd; on refusal note the reason for the whole crowd."""
    head = crowd[0]
    announced = head.kind is demand.WishKind.ANNOUNCED
    names = head.early if announced else head.templates
    templates = [t for name in names if (t := draft.policy.template(name)) is not None]
    for template in templates:
        kind = template.name, demand.asked_of(head, template.name)
        if spare[kind] > 0:
            spare[kind] -= 1
            crowd.pop(0)
            return True
    held = restraint.more_would_not_help(draft, crowd) or restraint.leaves_to_neighbour(
        draft, crowd
    )
    if held is not None:
        draft.held.update(wish.item.id for wish in crowd)
    refusals = [(held, templates[0])] if held is not None and templates else []
    for template in templates if held is None else ():
        asked = demand.asked_of(head, template.name)
        placed = variants.gate(draft, template, asked) or capacity.place(
            draft.room, template, asked
        )
        if not isinstance(placed, capacity.Shortage):
            if draft.ids:
                spare[template.name, asked] += template.executors - 1
                backend = _after_try(draft, template, placed, asked)
                _order_one(draft, template, backend, asked)
                if draft.world.ledger.vetoes:
                    draft.trying[vetoes.key_of(head)] += 1
                crowd.pop(0)
                return True
            placed = capacity.Shortage(
                reason=WaitReason.BUDGET, text="more launches follow in the next cycle"
            )
            refusals = [(placed, template)]
            break
        refusals.append((placed, template))
    draft.wake.extend(r.until_at for r, _ in refusals if r.until_at is not None)
    if refusals and not announced:
        _note_shortages(draft, crowd, refusals)
    return False


def _note_shortages(
    draft: drafts.Draft,
    crowd: list[demand.Wish],
    refusals: list[tuple[capacity.Shortage, Template]],
) -> None:
    """Write down why a crowd gets no agent: of the template that may serve it first, then others.

    One that is broken or paused is no reason while another is full.
    """
    refusals.sort(key=lambda refusal: capacity.nearest(refusal[0]))
    first, template = refusals[0]
    words = [first.text]
    for other, its in refusals[1:_TOLD]:
        if other.text != first.text:
            words.append(f"template {its.name}: {other.text}")
    drafts.note_all(draft, crowd, first.reason, "; ".join(words), template=template.name)
    capped = frozenset[model.BackendName]().union(*(r.capped for r, _ in refusals))
    draft.short.append((crowd, attrs.evolve(first, capped=capped)))


def _words(wish: demand.Wish) -> str:
    if wish.label.source is LabelSource.NO_LABEL:
        return "any agent"
    if wish.label.expression is None:
        return f"what only {wish.label.node} has"
    return f"'{wish.label.expression}'"


def _after_try(
    draft: drafts.Draft,
    template: Template,
    backend: model.BackendName,
    asked: frozenset[str] = parameters.NONE,
) -> model.BackendName:
    """Return who serves instead of a backend that has failed; that one is tried beside it."""
    failure = capacity.tried(draft.room, template, backend, asked)
    if not failure or len(draft.ids) < _TRY_AND_OTHER:
        return backend
    draft.room.take(template, backend, asked)
    other = capacity.elsewhere(draft.room, template, backend, asked)
    draft.room.give_back(template, backend, asked)
    if other is None:
        return backend
    _order_one(draft, template, backend, asked, tries=serving.tries(backend, other, failure))
    return other


def _order_one(
    draft: drafts.Draft,
    template: Template,
    backend: model.BackendName,
    asked: frozenset[str] = parameters.NONE,
    *,
    tries: str = "",
) -> None:
    name = marks.node_name(draft.policy.owner, template.name, draft.ids.pop(0))
    draft.orders[name] = drafts.OrderedAgent(
        name=name, template=template, backend=backend, asked=asked, tries=tries
    )
    draft.launches[template.name] += 1
    draft.room.take(template, backend, asked)
    if tries:
        return
    draft.supplies.append(
        matching.Supply(
            name=name,
            template=template.name,
            kind=(template.labels | asked) - {name},
            exclusive=template.exclusive,
            slots=template.executors,
            tier=serving.TIERS[Phase.LAUNCHING],
            asked=asked,
        )
    )


def _keep_warm(draft: drafts.Draft) -> list[model.Refusal]:
    """Replace what was taken from the warm pool; return what is short of it."""
    refusals = []
    warm = _warm(draft)
    for template in draft.policy.templates:
        missing = template.min_idle - warm[template.name]
        for number in range(missing):
            if not draft.ids:
                break
            placed = capacity.place(draft.room, template)
            if isinstance(placed, capacity.Shortage):
                text = f"{missing - number} fewer than wanted: {placed.text}"
                refusals.append(model.Refusal(subject=f"warm pool of {template.name}", text=text))
                if placed.until_at is not None:
                    draft.wake.append(placed.until_at)
                break
            _order_one(draft, template, _after_try(draft, template, placed))
    return refusals


def _warm(draft: drafts.Draft) -> Counter[str]:
    """Count by template the agents that are, or will be, idle and without a nominated item."""
    nominated = {supply.name for supply in draft.nominated.values()}
    # one that is being retired is idle in the controller until it is gone: not replaced yet
    warm = draft.idle_without(nominated | draft.closed)
    idle = {
        agent.name for agent in draft.within(Phase.IDLE)
    }  # online, though all of it may not run yet
    warm.update(
        supply.template or ""
        for supply in draft.supplies
        if supply.tier > 0 and not supply.asked and supply.name not in nominated | idle
    )
    return warm
