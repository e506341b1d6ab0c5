"""Why none is ordered for an item though there may be room: a neighbour's turn, a veto.

Refuses to order, and to know of room.
"""

from collections.abc import Sequence

import attrs

from broker.core import model
from broker.core.decide import capacity
from broker.core.decide import draft as drafts
from broker.core.demand import matching, vetoes
from broker.core.demand import wishes as demand
from broker.core.fleet import neighbours
from broker.core.model import Phase, WaitReason

_TRIED = 2
"""Idle agents that a vetoed item was not given: the next one would not be given it either."""
_TURN_S = 1.5
"""What a neighbour orders is seen within this: a look of its own, and its nodes are made."""


def leaves_to_neighbour(
    draft: drafts.Draft, crowd: Sequence[demand.Wish]
) -> capacity.Shortage | None:
    """Leave it to a neighbour that goes first to order, as long as it may, or does.

    Both see the same items: who goes second waits for what the other orders to be seen, and on
    while more and more of it is. Where nobody has come it does not wait again.
    """
    head = crowd[0]
    first = draft.neighbours.goes_before(draft.policy.owner)
    if not first or not head.templates or head.kind is not demand.WishKind.NOW:
        return None
    name, now = head.templates[0], draft.now
    there = sum(
        demand.could_want(head, agent.labels, True) is True for agent in draft.neighbours.agents
    )
    before = draft.world.ledger.deferences.get(name)
    if before is not None and before.alone and there == 0:
        draft.deferences[name] = attrs.evolve(before, agents=0)
        return None
    since = before.waits_since_at if before is not None else None
    grows = before is None or since is None or there > before.agents
    since = now if grows or since is None else since
    is_over = now - since >= _TURN_S or now - drafts.since(head) >= neighbours.COMES_WITHIN_S
    draft.deferences[name] = model.Deference(
        agents=there, waits_since_at=since, alone=is_over and there == 0
    )
    if is_over:
        return None
    return capacity.Shortage(
        reason=WaitReason.NEIGHBOUR,
        text=f"the broker of owner {first} works on this controller as well, and goes first",
        until_at=since + _TURN_S,
    )


def more_would_not_help(
    draft: drafts.Draft, crowd: Sequence[demand.Wish]
) -> capacity.Shortage | None:
    """Refuse a third agent for an item that was given neither of two that fit.

    Something speaks against it (a permission, a plugin's veto). The first agent may be at fault,
    so there is a second one; more would be one a minute until a cap. Who works and refuses says
    nothing of one that does not. What was learnt so outlives the agents that showed it.
    """
    head = crowd[0]
    idle = [s for s in draft.passed_over if not _works(draft, s.name)]
    fitting = [
        s.name
        for s in idle
        if head.item.id in s.refused or (not s.refused and matching.fits(head, s))
    ]
    words = f": {head.item.why[:120]}" if head.item.why else ""
    key = vetoes.key_of(head)
    learnt = draft.world.ledger.vetoes.get(key)
    is_old = draft.now - drafts.since(head) >= draft.policy.reservation_s
    shows = (is_old or head.item.id in draft.vetoed) and (
        len(fitting) >= _TRIED
        if learnt is None
        else _came_since(draft, fitting, learnt.until_at - draft.policy.rejected_retry_s)
    )
    if shows:
        draft.learnt[key] = frozenset(wish.item.id for wish in crowd)
    elif learnt is not None:
        return _held_by_veto(draft, key, learnt, words)
    elif len(fitting) <= len(crowd):
        return None
    return capacity.Shortage(
        reason=WaitReason.NOT_GIVEN,
        text=f"{', '.join(fitting[:3])} fit and are free, the controller gives none this item"
        f"{words}",
    )


def _works(draft: drafts.Draft, name: model.NodeName) -> bool:
    agent = draft.present.get(name)
    return agent is not None and agent.phase is Phase.BUSY


def _came_since(draft: drafts.Draft, names: Sequence[model.NodeName], since: float) -> bool:
    """Return whether one of these agents shows something new."""
    memories = (draft.present[name].memory for name in names)
    came = (memory.online_at for memory in memories if memory is not None)
    return any(at is not None and at > since for at in came)


def _held_by_veto(
    draft: drafts.Draft, key: model.VetoKey, learnt: model.Veto, words: str
) -> capacity.Shortage | None:
    """Refuse an agent for what was refused to others; None if it is the turn of one more.

    So many as ran when it was refused may run again; and after a while one for all of its label.
    """
    trying = draft.trying
    if trying[key] < learnt.running - draft.running.get(key.task, 0):
        return None
    is_due = draft.now >= learnt.until_at
    if is_due and not any(other.label == key.label for other in trying):
        return None
    text = "the controller gave it to none of the agents that were started for it; "
    if is_due:
        text += "one more is tried, and others follow when it is given work"
    else:
        left_s = learnt.until_at - draft.now
        text += f"another one follows in {left_s:.0f} s, or when one of its like has begun{words}"
    until_at = None if is_due else learnt.until_at
    return capacity.Shortage(reason=WaitReason.NOT_GIVEN, text=text, until_at=until_at)
