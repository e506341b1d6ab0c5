"""Which items the agents that exist or start can serve: a maximum matching, oldest item first.

Items whose label expressions overlap may be served by different kinds of agents. Counting per
template would order agents that are not needed; a matching that may re-assign does not. Once an
item is matched it stays matched, so the oldest items win. Pure; refuses to know caps or reasons.
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import define, frozen

from broker.core import demand, model


@frozen(kw_only=True)
class Supply:
    """Free slots of one agent. Lower ``tier`` first: 0 idle, 1 connecting, 2 ordered."""

    name: model.NodeName
    template: model.TemplateName | None
    labels: frozenset[str]
    exclusive: bool
    slots: int
    tier: int


def fits(wish: demand.Wish, supply: Supply) -> bool:
    """Return whether the controller may give this item to this agent."""
    if wish.pinned is not None:
        return wish.pinned == supply.name
    if wish.label.source is model.LabelSource.SINGLE_NODE:
        return supply.template is not None and supply.template in wish.templates
    return demand.could_want(wish, supply.labels, supply.exclusive) is True


@define(kw_only=True)
class _Pile:
    """Supplies that no item can tell apart."""

    members: list[Supply]
    free: int


@define(kw_only=True)
class _Crowd:
    """Items that want exactly the same."""

    wishes: list[demand.Wish]
    piles: list[int]
    matched: int = 0


def match(wishes: Sequence[demand.Wish], supplies: Iterable[Supply]) -> dict[model.ItemId, Supply]:
    """Give as many items as possible a slot; ``wishes`` come oldest first."""
    piles = _pile_up(wishes, supplies)
    crowds = _gather(wishes, piles)
    flow: list[dict[int, int]] = [{} for _ in crowds]
    order = {wish.item.id: index for index, crowd in enumerate(crowds) for wish in crowd.wishes}
    closed: set[int] = set()
    for wish in wishes:
        index = order[wish.item.id]
        if index in closed:
            continue
        if _augment(index, crowds, piles, flow):
            crowds[index].matched += 1
        else:
            closed.add(index)
    return _hand_out(crowds, piles, flow)


def _pile_up(wishes: Sequence[demand.Wish], supplies: Iterable[Supply]) -> list[_Pile]:
    named = demand.names_in(wishes)
    piles: dict[object, _Pile] = {}
    for supply in supplies:
        if supply.slots <= 0:
            continue
        own = supply.name if supply.name in named else None
        key = (supply.tier, supply.template, supply.labels - {supply.name}, supply.exclusive, own)
        pile = piles.setdefault(key, _Pile(members=[], free=0))
        pile.members.append(supply)
        pile.free += supply.slots
    return sorted(piles.values(), key=lambda pile: (pile.members[0].tier, pile.members[0].name))


def _gather(wishes: Sequence[demand.Wish], piles: Sequence[_Pile]) -> list[_Crowd]:
    crowds: dict[object, _Crowd] = {}
    for wish in wishes:
        canonical = wish.expression.canonical() if wish.expression is not None else None
        key = (canonical, wish.label.source, wish.pinned, wish.templates)
        crowd = crowds.get(key)
        if crowd is None:
            fitting = [i for i, pile in enumerate(piles) if fits(wish, pile.members[0])]
            crowd = crowds[key] = _Crowd(wishes=[], piles=fitting)
        crowd.wishes.append(wish)
    return list(crowds.values())


def _augment(
    start: int, crowds: Sequence[_Crowd], piles: Sequence[_Pile], flow: list[dict[int, int]]
) -> bool:
    """Find a slot for one more item of a crowd, re-assigning others along the way."""
    came_from: dict[int, tuple[int, int]] = {}  # crowd -> (previous crowd, pile between)
    frontier = [start]
    seen_piles: set[int] = set()
    while frontier:
        crowd = frontier.pop(0)
        for pile in crowds[crowd].piles:
            if pile in seen_piles:
                continue
            seen_piles.add(pile)
            if piles[pile].free > 0:
                piles[pile].free -= 1
                _shift(crowd, pile, start, came_from, flow)
                return True
            for other in range(len(crowds)):
                if other != start and other not in came_from and flow[other].get(pile, 0) > 0:
                    came_from[other] = (crowd, pile)
                    frontier.append(other)
    return False


def _shift(
    crowd: int,
    pile: int,
    start: int,
    came_from: Mapping[int, tuple[int, int]],
    flow: list[dict[int, int]],
) -> None:
    """Walk the path back: each crowd takes the new pile and leaves the one it came by."""
    while True:
        flow[crowd][pile] = flow[crowd].get(pile, 0) + 1
        if crowd == start:
            return
        previous, pile = came_from[crowd]
        flow[crowd][pile] -= 1
        crowd = previous


def _hand_out(
    crowds: Sequence[_Crowd], piles: Sequence[_Pile], flow: Sequence[Mapping[int, int]]
) -> dict[model.ItemId, Supply]:
    slots = [[s for s in pile.members for _ in range(s.slots)] for pile in piles]
    given: dict[model.ItemId, Supply] = {}
    for crowd, flows in zip(crowds, flow, strict=True):
        takes = [slots[pile].pop(0) for pile, n in sorted(flows.items()) for _ in range(n)]
        for wish, supply in zip(crowd.wishes[: crowd.matched], takes, strict=True):
            given[wish.item.id] = supply
    return given
