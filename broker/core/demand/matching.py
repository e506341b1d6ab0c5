"""Which items the agents that exist or start can serve: a maximum matching, oldest item first.

Items whose label expressions overlap may be served by different kinds of agents. Counting per
template would order agents that are not needed; a matching that may re-assign does not. Once an
item is matched it stays matched, so the oldest items win. Among all maximum matchings it is one
that uses the soonest agents, and leaves alone those that are kept warm where others do. Pure;
refuses to know caps or reasons.

Theory of operation: items that want the same, and agents that no item can tell apart, are handled
as one; each item takes the augmenting path that ends at the agent of the lowest rank.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence

from attrs import Factory, define

from broker.core import model
from broker.core.demand import wishes as demand


@define  # a value all the same; there is one for each agent, and frozen ones are dear
class Supply:
    """Free slots of one agent. Lower ``tier`` first: 0 idle, 1 connecting, 3 ordered."""

    name: model.NodeName
    template: model.TemplateName | None
    kind: frozenset[str]  # the labels without its own name
    exclusive: bool
    slots: int
    tier: int
    kept: bool = False  # counts for the warm pool if nobody needs it
    refused: frozenset[model.ItemId] = frozenset()  # that the controller does not give to it
    owner: str = ""  # of a neighbour's agent
    asked: frozenset[str] = frozenset()  # of its labels, what makes it a variant of its template

    @property
    def labels(self) -> frozenset[str]:
        """The labels that the controller sees on the agent."""
        return self.kind | {self.name}

    @property
    def rank(self) -> tuple[int, bool]:
        """Return what sorts supplies, the one to use first."""
        return (self.tier, self.kept)


def fits(wish: demand.Wish, supply: Supply) -> bool:
    """Return whether the controller may give this item to this agent, and is to.

    An item in its quiet period counts only where its template starts early; one of a job that the
    template is not for never does, though the controller knows nothing of that.
    """
    if wish.item.id in supply.refused:
        return False
    if wish.kind is demand.WishKind.ANNOUNCED and supply.template not in wish.early:
        return False
    if wish.pinned is not None:
        return wish.pinned == supply.name
    if supply.template is not None and supply.template in wish.barred:
        return False
    if wish.label.source is model.LabelSource.SINGLE_NODE:
        is_of = supply.template is not None and supply.template in wish.templates
        return is_of and demand.asked_of(wish, supply.template) <= supply.asked
    return demand.could_want(wish, supply.labels, supply.exclusive) is True


@define(kw_only=True)
class _Pile:
    """Supplies that no item can tell apart."""

    members: list[Supply]
    rank: tuple[int, bool]
    free: int
    users: set[int] = Factory(set)  # crowds that hold a slot of it


@define(kw_only=True)
class _Crowd:
    """Items that want exactly the same."""

    wishes: list[demand.Wish] = Factory(list)
    piles: list[int] = Factory(list)
    matched: int = 0


def match(
    wishes: Sequence[demand.Wish], supplies: Iterable[Supply]
) -> list[tuple[demand.Wish, Supply]]:
    """Give as many items as possible a slot; ``wishes`` come oldest first."""
    supplies = [supply for supply in supplies if supply.slots > 0]
    crowds, order = _gather(wishes, supplies)
    heads = [crowd.wishes[0] for crowd in crowds]
    piles = _pile_up(demand.names_in(heads), supplies)
    for crowd, head in zip(crowds, heads, strict=True):
        crowd.piles = [i for i, pile in enumerate(piles) if fits(head, pile.members[0])]
    soonest = 0  # of the piles that have a free slot, which come in the order of their ranks
    flow: list[dict[int, int]] = [{} for _ in crowds]
    closed: set[int] = set()
    for index in order:
        if index in closed:
            continue
        if len(closed) == len(crowds):
            break
        while soonest < len(piles) and piles[soonest].free == 0:
            soonest += 1
        least = piles[soonest].rank if soonest < len(piles) else None
        if _augment(index, crowds, piles, flow, least):
            crowds[index].matched += 1
        else:
            closed.add(index)
    return _hand_out(crowds, piles, flow)


def _gather(
    wishes: Sequence[demand.Wish], supplies: Iterable[Supply]
) -> tuple[list[_Crowd], list[int]]:
    """Return the crowds, and of which of them each item is."""
    crowds: list[_Crowd] = []
    order: list[int] = []
    refused = frozenset[model.ItemId]().union(*(s.refused for s in supplies if s.refused))
    by_key: dict[Hashable, int] = {}
    by_wish: dict[Hashable, int] = {}
    for wish in wishes:
        alone = wish.item.id if refused and wish.item.id in refused else None
        group = wish.crowd if alone is None else (wish.crowd, alone)
        index = by_wish.get(group)
        if index is None:
            canonical = wish.expression.canonical() if wish.expression is not None else None
            key = (
                canonical,
                wish.label.source,
                wish.pinned,
                wish.templates,
                wish.kind,
                wish.barred,
                wish.variants,
                alone,
            )
            index = by_wish[group] = by_key.setdefault(key, len(crowds))
            if index == len(crowds):
                crowds.append(_Crowd())
        order.append(index)
        crowds[index].wishes.append(wish)
    return crowds, order


def _pile_up(named: frozenset[str], supplies: Iterable[Supply]) -> list[_Pile]:
    piles: dict[object, _Pile] = {}
    for supply in supplies:
        own = supply.name if supply.name in named else None
        rank = supply.rank
        key = (rank, supply.template, supply.kind, supply.exclusive, own, supply.refused)
        pile = piles.get(key)
        if pile is None:
            pile = piles[key] = _Pile(members=[], rank=rank, free=0)
        pile.members.append(supply)
        pile.free += supply.slots
    return sorted(piles.values(), key=lambda pile: (pile.rank, pile.members[0].name))


def _augment(
    start: int,
    crowds: Sequence[_Crowd],
    piles: Sequence[_Pile],
    flow: list[dict[int, int]],
    least: tuple[int, bool] | None,
) -> bool:
    """Find the best free slot for one more item of a crowd, re-assigning others along the way."""
    came_from: dict[int, tuple[int, int]] = {}  # crowd -> (previous crowd, pile between)
    frontier = deque([start])
    reached: dict[int, int] = {}  # pile -> the crowd that reached it
    best: int | None = None
    while frontier and (best is None or piles[best].rank != least):
        crowd = frontier.popleft()
        for pile in crowds[crowd].piles:
            if pile in reached:
                continue
            reached[pile] = crowd
            if piles[pile].free > 0:
                best = pile if best is None else min(best, pile)
                continue
            for other in sorted(piles[pile].users - came_from.keys() - {start}):
                came_from[other] = (crowd, pile)
                frontier.append(other)
    if best is None:
        return False
    piles[best].free -= 1
    _shift(reached[best], best, start, came_from, piles, flow)
    return True


def _shift(
    crowd: int,
    pile: int,
    start: int,
    came_from: Mapping[int, tuple[int, int]],
    piles: Sequence[_Pile],
    flow: list[dict[int, int]],
) -> None:
    """Walk the path back: each crowd takes the new pile and leaves the one it came by."""
    while True:
        flow[crowd][pile] = flow[crowd].get(pile, 0) + 1
        piles[pile].users.add(crowd)
        if crowd == start:
            return
        previous, pile = came_from[crowd]
        flow[crowd][pile] -= 1
        if flow[crowd][pile] == 0:
            piles[pile].users.remove(crowd)
        crowd = previous


def _hand_out(
    crowds: Sequence[_Crowd], piles: Sequence[_Pile], flow: Sequence[Mapping[int, int]]
) -> list[tuple[demand.Wish, Supply]]:
    # never a list of all slots: a remote says how many there are
    slots = [(s for s in pile.members for _ in range(s.slots)) for pile in piles]
    nominated: list[tuple[demand.Wish, Supply]] = []
    for crowd, flows in zip(crowds, flow, strict=True):
        takes = [next(slots[pile]) for pile, n in sorted(flows.items()) for _ in range(n)]
        nominated += zip(crowd.wishes[: crowd.matched], takes, strict=True)
    return nominated
