"""Items that nothing can serve are given up after a time: cancelled, with the reason.

Rules, off unless a time is set (``give_up``): only a buildable item whose reason is one that time
does not heal and that is about us (``HOPELESS``), after it waited so long for such reasons
altogether, as far as this broker saw it. Never one that is being served, blocked or in its quiet
period; never while any source is unknown or not seen whole, while the controller quiets down, or
while a person has paused the whole broker; never for a label that no template of ours serves
while another owner's broker works there, whose template it may be. It is sighted twice, in reads
that are ``LAST_WORDS_S`` apart: between them its own log is told. Pure; refuses to know how an
item is cancelled.
"""

from collections.abc import Mapping

from attrs import evolve, frozen

from broker.core import model
from broker.core.fleet import accounts, neighbours, standing
from broker.core.model import ItemId, Stage, WaitReason

HOPELESS = frozenset(
    {
        WaitReason.NO_TEMPLATE,
        WaitReason.PARAMETER,
        WaitReason.NOT_FOR_JOB,
        WaitReason.BAD_LABEL,
        WaitReason.BACKOFF,
        WaitReason.SET_ASIDE,
    }
)
_MAY_BE_OTHERS = frozenset({WaitReason.NO_TEMPLATE, WaitReason.BAD_LABEL})
LAST_WORDS_S = 3.0
AGAIN_S = 300.0
"""An item that is there still is cancelled once more after this."""
MOST = 20
"""In one look; the others follow."""


@frozen
class LastSight:
    """An item that is to be given up."""

    read_at: float  # of the view that showed it first
    text: str  # why, for people
    asked_at: float | None = None  # when it was to be cancelled, the last time
    cancelled: bool = False  # the controller has done so


@frozen(kw_only=True)
class GiveUp:
    """An item to be cancelled now."""

    item: ItemId
    template: model.TemplateName | None
    text: str


Doomed = Mapping[ItemId, LastSight]


def look(
    before: Doomed,
    world: model.World,
    plan: model.Plan,
    policy: model.Policy,
    book: model.WaitBook,
) -> tuple[Doomed, tuple[GiveUp, ...]]:
    """Return who is to be given up, and whom of them to cancel now, a few at a time.

    Nobody by a look that does not see everything. Those that were to be cancelled are kept until
    they are gone, whatever is seen of them.
    """
    if not gives_up(policy):
        return {}, ()
    if not world.controller.synced:
        return before, ()
    there = {item.id for item in world.controller.items}
    kept = {key: one for key, one in before.items() if key in there and one.asked_at is not None}
    if not _may_judge(world, policy):
        return kept, ()
    sights = _sights(before, world, plan, policy, book)
    templates = {one.item: one.template for one in plan.unmet}
    cancels: list[GiveUp] = []
    for key, sight in sights.items():
        if len(cancels) < MOST and _is_due(sight, world):
            cancels.append(GiveUp(item=key, template=templates[key], text=sight.text))
            sights[key] = evolve(sight, asked_at=world.now)
    return {**kept, **sights}, tuple(cancels)


def _is_due(sight: LastSight, world: model.World) -> bool:
    """Return whether one was sighted before, and has not been cancelled just now."""
    is_seen_again = world.controller.read_at - sight.read_at >= LAST_WORDS_S
    rests = sight.asked_at is not None and world.now - sight.asked_at < AGAIN_S
    return is_seen_again and not rests


def _may_judge(world: model.World, policy: model.Policy) -> bool:
    sees_everything = world.controller.whole and all(v.whole for v in world.backends.values())
    is_stopped = policy.draining or standing.stopping(policy.standing, now=world.now) is not None
    return sees_everything and not world.controller.quieting_down and not is_stopped


def _sights(
    before: Doomed,
    world: model.World,
    plan: model.Plan,
    policy: model.Policy,
    book: model.WaitBook,
) -> dict[ItemId, LastSight]:
    """Return those that have waited too long for what is hopeless."""
    view = world.controller
    buildable = {item.id for item in view.items if item.stage is Stage.BUILDABLE}
    ours = {agent.name for agent in plan.agents}
    others = (c for c in view.computers if c.name not in ours)
    has_neighbours = bool(neighbours.seen(others, policy.owner, now=world.now).owners)
    sights = {}
    for one in plan.unmet:
        if one.reason not in HOPELESS or (has_neighbours and one.reason in _MAY_BE_OTHERS):
            continue
        account, limit = book.open.get(one.item), _limit(one, policy)
        if account is None or limit is None or one.item not in buildable:
            continue
        if waited_s(account, world.now) >= limit:
            sight = before.get(one.item) or LastSight(view.read_at, one.text)
            sights[one.item] = evolve(sight, text=one.text)
    return sights


def said(plan: model.Plan, doomed: Doomed, policy: model.Policy) -> model.Plan:
    """Return a plan that says of those who are given up that they are."""
    if not doomed:
        return plan
    unmet = tuple(
        evolve(one, text=f"{_words(one, policy)}: {one.text}", last=True)
        if one.item in doomed and one.reason in HOPELESS
        else one
        for one in plan.unmet
    )
    return evolve(plan, unmet=unmet)


def gives_up(policy: model.Policy) -> bool:
    """Return whether any item may ever be given up."""
    return policy.give_up_s is not None or any(
        template.give_up_s is not None for template in policy.templates
    )


def waited_s(account: model.Account, now: float) -> float:
    """Return how long this broker saw an item wait for what is hopeless."""
    spent = accounts.so_far(account, now)
    return sum(seconds for spell, seconds in spent.items() if spell in HOPELESS)


def _limit(unmet: model.Unmet, policy: model.Policy) -> float | None:
    template = policy.by_name.get(unmet.template)
    own = template.give_up_s if template is not None else None
    return own if own is not None else policy.give_up_s


def _words(unmet: model.Unmet, policy: model.Policy) -> str:
    limit = _limit(unmet, policy) or 0.0
    minutes = f"{limit / 60:g} min" if limit >= 60 else f"{limit:g} s"
    return f"it is cancelled, since nothing could serve it for {minutes} (give_up)"
