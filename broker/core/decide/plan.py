"""``plan(world, policy) -> Plan``: all rules in one visible order, then the clamp.

Observe, then: who waits; what the present agents will serve; launches for the rest; the warm
pool; who makes room; who goes; what is swept. The rules themselves live in the sibling modules:
this file holds their order and refuses to hold their bodies. Pure and level-triggered: the same
world gives the same plan, and after its actions have taken effect it proposes nothing new (I6).
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import attrs

from broker.core import model
from broker.core.decide import capacity, leaving, serving
from broker.core.decide import draft as drafts
from broker.core.decide import sweep as sweeps
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.model import Agent, Phase


def plan(world: model.World, policy: model.Policy, last: model.Plan | None = None) -> model.Plan:
    """Decide everything for one cycle.

    ``last``: the plan before this one, of the same owner. It decides nothing: the agents of whom
    all is as it was are taken from it, and without it the same plan takes longer.
    """
    agents, ledger, illegal = agents_.observe(world, policy, last.agents if last else ())
    world = attrs.evolve(world, ledger=ledger)
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
    world = attrs.evolve(world, ledger=ledger)
    draft = drafts.Draft(
        world=world,
        policy=policy,
        agents=agents,
        wishes=tuple(sorted(wishes, key=drafts.age)),
        room=capacity.count(world, policy, agents),
        ids=_unused(world.fresh_ids, agents, wishes),
    )
    serving.serve_from_present(draft)
    if not world.controller.quieting_down:
        serving.order(draft)
    leaving.make_room(draft)
    leaving.let_go(draft)
    leaving.sweep(draft)
    overshoot = _clamp(draft)
    return _finish(draft, illegal, overshoot)


def _blind(world: model.World) -> model.Refusal:
    words = f": {world.controller.error}" if world.controller.error else ""
    return model.Refusal(
        subject="controller", text=f"its state is unknown, so nothing is decided{words}"
    )


def _unused(
    suffixes: Iterable[str], agents: Iterable[Agent], wishes: Iterable[demand.Wish]
) -> list[str]:
    """Drop what an agent has had, or a label expression speaks of (I5)."""
    known = {agent.name for agent in agents} | demand.names_in(wishes)
    used = {name.rpartition("-")[2] for name in known}
    return [suffix for suffix in suffixes if suffix not in used]


def _clamp(draft: drafts.Draft) -> int:
    """Take back launches beyond demand + warm target, counted independently of the rules above.

    Demand is what the present agents cannot serve however the items are nominated (the matching is
    a maximum); the warm target is short of the agents that are idle or on their way and have no
    nominated item. Returns how many there were. It must be 0: the rules never order too much.
    """
    if not draft.launches:
        return 0
    unserved = Counter(name for wish in draft.unserved for name in wish.templates)
    spare = _spare(draft)
    beyond = 0
    for template in draft.policy.templates:
        needed = -(-unserved[template.name] // template.executors)
        missing = max(0, template.min_idle - spare[template.name])
        excess = draft.launches[template.name] - needed - missing
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


def _spare(draft: drafts.Draft) -> Counter[str]:
    """Count by template the agents that are idle or on their way and nominated to nobody."""
    offered = {supply.name for supply in draft.supplies if supply.slots > 0}
    offered -= {supply.name for supply in draft.nominated.values()}
    return Counter(
        agent.template or ""
        for agent in draft.agents
        if agent.name in offered and agent.phase is not Phase.BUSY
    )


def _finish(
    draft: drafts.Draft, illegal: tuple[tuple[Phase | None, Phase], ...], overshoot: int
) -> model.Plan:
    ledger = _note_nominations(draft)
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


def _note_nominations(draft: drafts.Draft) -> model.Ledger:
    """Remember since when a free executor fits a waiting item without being given it."""
    ledger = draft.world.ledger
    memories = dict(ledger.memories)
    anybody = any(w.kind is demand.WishKind.NOW and w.unmet is None for w in draft.wishes)
    for agent in draft.agents:
        memory = memories.get(agent.name)
        if memory is None or (memory.nominated_at is None and not anybody):
            continue
        is_wanted = anybody and memory.free_at is not None and draft.is_wanted_now(agent)
        since = memory.nominated_at if memory.nominated_at is not None else draft.now
        if memory.free_at is not None:
            since = max(since, memory.free_at)  # what it took meanwhile keeps the nomination
        if memory.nominated_at != (since if is_wanted else None):
            memories[agent.name] = attrs.evolve(memory, nominated_at=since if is_wanted else None)
    return attrs.evolve(ledger, memories=memories)


def _wake_for_deadlines(draft: drafts.Draft) -> None:
    for agent in draft.agents:
        memory, template = agent.memory, draft.template_of(agent)
        if agent.expectation is not None:
            draft.wake.append(agent.expectation.expires_at)
        if memory is None or template is None:
            continue
        if agent.phase is Phase.CONNECTING and memory.offline_at is not None:
            since = max(memory.offline_at, memory.created_at or 0.0)
            draft.wake.append(since + template.connect_deadline_s)
        if template.retention.max_age_s is not None and agent.created_at is not None:
            draft.wake.append(agent.created_at + template.retention.max_age_s)


def _is_active(draft: drafts.Draft) -> bool:
    """Return whether to poll fast: something waits, starts or leaves, or is for single use."""
    if draft.actions or any(a.in_flight for a in draft.agents):
        return True
    if any(w.kind in {demand.WishKind.NOW, demand.WishKind.ANNOUNCED} for w in draft.wishes):
        return True
    moving = capacity.STARTING | {Phase.DRAINED, Phase.LOST, Phase.ORPHAN, Phase.GONE}
    return any(
        (a.phase in moving and capacity.takes_room(a)) or _counts_builds(draft, a)
        for a in draft.agents
    )


def _counts_builds(draft: drafts.Draft, agent: Agent) -> bool:
    template = draft.template_of(agent)
    if template is None or agent.phase not in {Phase.IDLE, Phase.BUSY}:
        return False
    return template.retention.once or template.retention.max_builds is not None


def _counts(
    draft: drafts.Draft, unmet: Mapping[model.ItemId, model.Unmet]
) -> dict[model.TemplateName, model.TemplateCount]:
    served: Counter[str] = Counter()
    for wish in draft.wishes:
        if wish.kind is demand.WishKind.NOW and wish.unmet is None and wish.item.id in unmet:
            served[unmet[wish.item.id].template or ""] += 1
    by_template: dict[str | None, list[Agent]] = {}
    for agent in draft.agents:
        by_template.setdefault(agent.template, []).append(agent)
    counts = {}
    for template in draft.policy.templates:
        mine = by_template.get(template.name, [])
        idle = busy = 0
        for agent in mine:
            if agent.computer is not None and not agent.computer.offline:
                busy += agent.computer.busy_executors
                idle += agent.computer.executors - agent.computer.busy_executors
        starting = sum(a.phase in capacity.STARTING for a in mine)
        counts[template.name] = model.TemplateCount(
            demand=served[template.name],
            warm_target=template.min_idle,
            idle=idle,
            busy=busy,
            starting=starting * template.executors,
            agents=sum(capacity.takes_room(a) for a in mine),
            launches=draft.launches[template.name],
        )
    return counts
