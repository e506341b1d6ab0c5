"""``plan(world, policy) -> Plan``: all rules in one visible order, then the clamp.

Observe, then: who waits; what the present agents will serve; launches for the rest; the warm
pool; who makes room; who goes; what is swept. The rules themselves live in the sibling modules:
this file holds their order and refuses to hold their bodies. Pure and level-triggered: the same
world gives the same plan, and after its actions have taken effect it proposes nothing new (I6).
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

import attrs

from broker.core import model
from broker.core.decide import capacity, checking, holding, leaving, ordering, serving
from broker.core.decide import draft as drafts
from broker.core.decide import sweep as sweeps
from broker.core.demand import matching, vetoes
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.fleet import places
from broker.core.model import Phase

_Kind = tuple[str, frozenset[str]]
"""A template, and what makes agents a variant of it."""
_Pile = tuple[matching.Supply, dict[Hashable, demand.Wish]]
"""One of the agents that are alike, and an item of each kind that they serve."""


def plan(world: model.World, policy: model.Policy, last: model.Plan | None = None) -> model.Plan:
    """Decide everything for one cycle.

    ``last``: the plan before this one, of the same owner. It decides nothing: the agents of whom
    all is as it was are taken from it, and without it the same plan takes longer.
    """
    agents, ledger, illegal = agents_.observe(world, policy, last.agents if last else ())
    ledger, unavoidable = places.judge(ledger, _places(world), now=world.now)
    if not world.controller.synced:
        return model.Plan(
            agents=agents,
            illegal=illegal,
            refusals=(_blind(world),),
            ledger=ledger,
            active=True,
        )
    ours = {a.name: a.template for a in agents if a.template is not None}
    wishes, labels = demand.wishes(world.controller, policy.templates, ledger, ours)
    wishes = sweeps.pin(wishes, agents, ledger)
    ledger = attrs.evolve(ledger, labels=labels)
    ledger = vetoes.seen(ledger, wishes, world.controller, now=world.now)
    world = attrs.evolve(world, ledger=ledger)
    draft = drafts.Draft(
        world=world,
        policy=policy,
        agents=agents,
        wishes=drafts.oldest_first(wishes),
        room=capacity.count(world, policy, agents),
    )
    draft.refusals.extend(
        model.Refusal(
            subject=f"{one.backend} {one.place}",
            text=f"{one.text}; it stays in use: {one.backend} has no other place",
        )
        for one in unavoidable
    )
    serving.serve_from_present(draft)
    if world.controller.quieting_down:
        text = "prepares for a shut-down: it gives out no work, and nobody is ordered or let go"
        draft.refusals.append(model.Refusal(subject="controller", text=text))
    else:
        ordering.order(draft)
    leaving.make_room(draft)
    leaving.let_go(draft)
    holding.hold(draft)
    checking.check(draft)
    leaving.sweep(draft)
    overshoot = _clamp(draft)
    return _finish(draft, illegal, overshoot)


def _places(world: model.World) -> dict[model.BackendName, set[str]]:
    """Return the places of each backend that can be told: by itself, or by who runs there."""
    return {
        name: {one.place for one in view.instances if one.place}
        | set(view.capacity.places if view.capacity is not None else ())
        for name, view in world.backends.items()
    }


def _blind(world: model.World) -> model.Refusal:
    words = f": {world.controller.error}" if world.controller.error else ""
    return model.Refusal(
        subject="controller", text=f"its state is unknown, so nothing is decided{words}"
    )


def _clamp(draft: drafts.Draft) -> int:
    """Take back launches beyond demand + warm target, counted independently of the rules above.

    Demand is what the present agents cannot serve however the items are nominated (the matching is
    a maximum); the warm target is short of the agents that are idle or on their way and have no
    nominated item. Returns how many there were. It must be 0: the rules never order too much. Who
    is tried after a failure comes on top, one of a template and backend.
    """
    if not draft.launches:
        return 0
    useful = _useful(draft)
    spare = _spare(draft)
    beyond = 0
    tries = {(o.template.name, o.backend) for o in draft.orders.values() if o.tries}
    tried = Counter(name for name, _ in tries)
    for template in draft.policy.templates:
        needed = useful[template.name]
        missing = max(0, template.min_idle - spare[template.name])
        excess = draft.launches[template.name] - needed - missing - tried[template.name]
        for _ in range(max(0, excess)):
            last = next(
                a
                for a in reversed(draft.actions)
                if isinstance(a, model.LaunchAgent) and a.template == template.name
            )
            draft.actions.remove(last)
            draft.launches[template.name] -= 1
            beyond += 1
    return beyond


def _useful(draft: drafts.Draft) -> Counter[str]:
    """Count by template the agents that help items which no present agent serves.

    An item is helped by one that fits it, or that fits whom another agent serves, which makes room
    for it. Agents of different variants share nothing: each variant fills its own.
    """
    piles = _piles(draft)
    items: Counter[str] = Counter()
    by_kind: Counter[_Kind] = Counter()
    for crowd in demand.crowds(draft.unserved).values():
        found = _kinds(crowd[0], piles)
        by_kind.update(dict.fromkeys(found, len(crowd)))
        items.update(dict.fromkeys({name for name, _ in found}, len(crowd)))
    filled: Counter[str] = Counter()
    for (name, _), number in by_kind.items():
        template = draft.policy.by_name.get(name)
        filled[name] += -(-number // template.executors) if template is not None else 0
    return filled & items  # the lesser: no item needs two


def _piles(draft: drafts.Draft) -> list[_Pile]:
    """Return the present agents that serve somebody, those alike as one, and whom they serve."""
    if not draft.served:
        return []
    named = demand.names_in(draft.wanted)
    piles: dict[Hashable, _Pile] = {}
    for wish in draft.wanted:
        supply = draft.served.get(wish.item.id)
        if supply is not None:
            own = supply.name if supply.name in named else None
            key = (supply.template, supply.kind, supply.exclusive, supply.asked, own)
            pile = piles.setdefault(key, (attrs.evolve(supply, refused=frozenset()), {}))
            pile[1].setdefault(wish.crowd, wish)
    return list(piles.values())


def _kinds(wish: demand.Wish, piles: Sequence[_Pile]) -> set[_Kind]:
    """Return which agents would help an item: of which templates, and which variants of them."""
    kinds: set[_Kind] = set()
    reached, left, others = {wish.crowd}, [wish], list(piles)
    while left:
        one = left.pop()
        kinds.update((name, demand.asked_of(one, name)) for name in one.templates)
        fitting = [pile for pile in others if matching.fits(one, pile[0])]
        others = [pile for pile in others if pile not in fitting] if fitting else others
        for _, served in fitting:
            left += [served[crowd] for crowd in served.keys() - reached]
            reached |= served.keys()
    return kinds


def _spare(draft: drafts.Draft) -> Counter[str]:
    """Count by template the agents that are idle or on their way and nominated to nobody.

    Variants are nobody's warm agents.
    """
    offered = draft.offering - {supply.name for supply in draft.nominated.values()}
    return Counter(
        agent.template or ""
        for agent in draft.agents
        if agent.name in offered and agent.phase is not Phase.BUSY and not agent.asked
    )


def _finish(
    draft: drafts.Draft, illegal: tuple[tuple[Phase | None, Phase], ...], overshoot: int
) -> model.Plan:
    until_at = draft.now + draft.policy.rejected_retry_s
    _note_deferences(draft)
    for owner in draft.neighbours.owners:
        text = "its broker works on this controller as well: its free agents count as supply"
        draft.refusals.append(model.Refusal(subject=f"owner {owner}", text=text))
    ledger = _note_nominations(draft)
    if draft.learnt:
        ledger = vetoes.learnt(ledger, draft.learnt, draft.running, until_at=until_at)
    unmet = drafts.unmet(draft)
    _wake_for_deadlines(draft)
    later = [at for at in draft.wake if at > draft.now]
    return model.Plan(
        actions=tuple(draft.actions),
        unmet=tuple(unmet.values()),
        refusals=tuple(draft.refusals),
        agents=draft.agents,
        illegal=illegal,
        counts=_counts(draft, unmet),
        overshoot=overshoot,
        wake_at=min(later) if later else None,
        active=_is_active(draft),
        ledger=ledger,
    )


def _note_deferences(draft: drafts.Draft) -> None:
    """Remember how far each template leaves it to a neighbour; where nothing waits, from anew."""
    before = draft.world.ledger.deferences
    if not before and not draft.deferences:
        return
    after = {
        name: attrs.evolve(one, waits_since_at=None)
        for name, one in (before.items() if draft.neighbours.owners else ())
    }
    ledger = attrs.evolve(draft.world.ledger, deferences={**after, **draft.deferences})
    draft.world = attrs.evolve(draft.world, ledger=ledger)


def _note_nominations(draft: drafts.Draft) -> model.Ledger:
    """Remember since when a free executor fits a waiting item without being given it."""
    ledger = draft.world.ledger
    anybody = any(w.kind is demand.WishKind.NOW and w.unmet is None for w in draft.wishes)
    noted = {}
    for agent in draft.agents:
        memory = agent.memory
        if memory is None:
            continue
        could = anybody and memory.free_at is not None
        if not could and memory.nominated_at is None:
            continue
        since = None
        if could and draft.is_wanted_now(agent):
            since = memory.nominated_at if memory.nominated_at is not None else draft.now
            # what it took meanwhile keeps the nomination
            since = max(since, memory.free_at or 0.0)
        if memory.nominated_at != since:
            noted[agent.name] = agents_.changed(memory, nominated_at=since)
    return attrs.evolve(ledger, memories={**ledger.memories, **noted}) if noted else ledger


def _wake_for_deadlines(draft: drafts.Draft) -> None:
    draft.wake.extend(a.expectation.expires_at for a in draft.agents if a.expectation is not None)
    draft.wake.extend(o.until_at for o in draft.policy.standing if o.until_at is not None)
    for agent in draft.within(Phase.CONNECTING, Phase.CHECKING):
        memory, template = agent.memory, draft.template_of(agent)
        if memory is not None and template is not None and memory.offline_at is not None:
            since = max(memory.offline_at, memory.created_at or 0.0)
            draft.wake.append(since + template.connect_deadline_s)
    allowed_s = {
        template.name: template.retention.max_age_s
        for template in draft.policy.templates
        if template.retention.max_age_s is not None
    }
    for agent in draft.agents if allowed_s else ():
        age_s = allowed_s.get(agent.template or model.TemplateName(""))
        if age_s is not None and agent.created_at is not None and agent.memory is not None:
            draft.wake.append(agent.created_at + age_s)


def _is_active(draft: drafts.Draft) -> bool:
    """Return whether to poll fast: something waits, starts or leaves, or builds are counted."""
    if draft.actions or any(a.in_flight for a in draft.agents):
        return True
    if any(w.kind in {demand.WishKind.NOW, demand.WishKind.ANNOUNCED} for w in draft.wishes):
        return True
    ending = draft.within(*capacity.STARTING, *agents_.GOING)
    kept = draft.kept
    if any(a.name not in kept and capacity.takes_room(a) for a in ending):
        return True
    at_work = list(draft.within(Phase.IDLE, Phase.BUSY))
    computers = [a.computer for a in at_work if a.computer is not None]
    if any(c.offline and not c.temporarily_offline for c in computers):
        return True  # its backend shows in a moment whether its instance has ended
    if any(a.absent or (a.instance is not None and a.instance.exit is not None) for a in at_work):
        return True  # the controller notices in a moment that its agent is dead
    counted = {
        template.name
        for template in draft.policy.templates
        if template.retention.once
        or template.retention.max_builds is not None
        or template.checks.dirty is not None
    }
    return any(a.template in counted for a in at_work)


def _counts(
    draft: drafts.Draft, unmet: Mapping[model.ItemId, model.Unmet]
) -> dict[model.TemplateName, model.TemplateCount]:
    at_once = demand.WishKind.NOW
    told = [unmet[w.item.id] for w in draft.wanted if w.kind is at_once and w.item.id in unmet]
    served = Counter([one.template or "" for one in told])
    idle: Counter[str | None] = Counter()
    busy: Counter[str | None] = Counter()
    # out of service an agent has nothing to give, and its builds go on
    there = Counter(
        (a.template, a.computer.executors, a.computer.busy_executors, a.computer.offline)
        for a in draft.agents
        if a.computer is not None and (a.computer.temporarily_offline or not a.computer.offline)
    )
    for (name, executors, busy_executors, offline), agents in there.items():
        busy[name] += agents * busy_executors
        idle[name] += 0 if offline else agents * (executors - busy_executors)
    starting = Counter(agent.template for agent in draft.within(*capacity.STARTING))
    return {
        template.name: model.TemplateCount(
            demand=served[template.name],
            warm_target=template.min_idle * template.executors,
            idle=idle[template.name],
            busy=busy[template.name],
            starting=starting[template.name] * template.executors,
            agents=draft.room.held[template.name],
            launches=draft.launches[template.name],
        )
        for template in draft.policy.templates
    }
