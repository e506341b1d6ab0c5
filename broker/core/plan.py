"""``plan(world, policy) -> Plan``: all rules in one visible order, then the clamp.

Observe, then: who waits; what the present agents will serve; launches for the rest; the warm
pool; who makes room; who goes; what is swept. The rules themselves live in the sibling modules:
this file holds their order and refuses to hold their bodies. Pure and level-triggered: the same
world gives the same plan, and after its actions have taken effect it proposes nothing new (I6).
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs
from attrs import Factory, define

from broker.core import (
    agents as agents_,
)
from broker.core import (
    capacity,
    demand,
    marks,
    matching,
    model,
    retention,
)
from broker.core import (
    sweep as sweeps,
)
from broker.core.model import (
    Agent,
    LabelSource,
    NodeName,
    Phase,
    Template,
    Unmet,
    Verb,
    WaitReason,
)

_LEAVING = frozenset({Verb.RETIRE, Verb.SWEEP})
_TIERS: Mapping[Phase, int] = {
    Phase.IDLE: 0,
    Phase.BUSY: 0,
    Phase.CONNECTING: 1,
    Phase.LAUNCHING: 2,
    Phase.UNKNOWN: 3,
}
_TIER_REASON = (
    WaitReason.AGENT_IDLE,
    WaitReason.AGENT_STARTING,
    WaitReason.AGENT_ORDERED,
    WaitReason.AGENT_STARTING,
)
_TIER_TEXT = (
    "agent {} is idle and fits: the controller is about to give it this item",
    "agent {} is starting for it",
    "agent {} is ordered for it",
    "agent {} was starting for it; its backend does not answer just now",
)


@define(kw_only=True)
class _Draft:
    """The plan while it is written."""

    world: model.World
    policy: model.Policy
    agents: tuple[Agent, ...]
    wishes: tuple[demand.Wish, ...]
    room: capacity.Room
    actions: list[model.Action] = Factory(list)
    refusals: list[model.Refusal] = Factory(list)
    unmet: dict[model.ItemId, Unmet] = Factory(dict)
    wake: list[float] = Factory(list)
    given: dict[model.ItemId, matching.Supply] = Factory(dict)
    supplies: list[matching.Supply] = Factory(list)
    launches: Counter[str] = Factory(Counter)
    short: list[tuple[demand.Wish, capacity.Refused]] = Factory(list)
    ids: list[str] = Factory(list)

    @property
    def now(self) -> float:
        return self.world.now

    def template_of(self, agent: Agent) -> Template | None:
        return self.policy.template(agent.template) if agent.template is not None else None


def plan(world: model.World, policy: model.Policy) -> model.Plan:
    """Decide everything for one cycle."""
    agents, ledger, illegal = agents_.observe(world, policy)
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
    ledger = attrs.evolve(ledger, labels=labels)
    world = attrs.evolve(world, ledger=ledger)
    draft = _Draft(
        world=world,
        policy=policy,
        agents=agents,
        wishes=tuple(sorted(wishes, key=_age)),
        room=capacity.count(world, policy, agents),
        ids=[i for i in world.fresh_ids if not _is_used(i, agents)],
    )
    _serve_from_present(draft)
    _launch_for_waiting(draft)
    _keep_warm(draft)
    _make_room(draft)
    _let_go(draft)
    _sweep(draft)
    overshoot = _clamp(draft)
    return _finish(draft, illegal, overshoot)


def _blind(world: model.World) -> model.Refusal:
    words = f": {world.controller.error}" if world.controller.error else ""
    return model.Refusal(
        subject="controller", text=f"its state is unknown, so nothing is decided{words}"
    )


def _age(wish: demand.Wish) -> tuple[float, int]:
    since = wish.item.buildable_since_at
    return (since if since is not None else wish.item.in_queue_since_at, wish.item.id)


def _is_used(suffix: str, agents: Iterable[Agent]) -> bool:
    return any(agent.name.endswith(f"-{suffix}") for agent in agents)


# --- what the present agents serve -------------------------------------------------------------


def _is_leaving(agent: Agent) -> bool:
    return agent.cordoned or (
        agent.expectation is not None and agent.expectation.verb in (_LEAVING | {Verb.CORDON})
    )


def _supply(draft: _Draft, agent: Agent) -> matching.Supply | None:
    """Return the free slots of an agent, or None if it will not serve anybody."""
    template = draft.template_of(agent)
    tier = _TIERS.get(agent.phase)
    if tier is None or _is_leaving(agent):
        return None
    memory, computer = agent.memory, agent.computer
    if agent.phase in {Phase.IDLE, Phase.BUSY}:
        if computer is None or computer.offline:
            return None
        slots = computer.executors - computer.busy_executors
        promised = memory.promised_at if memory is not None else None
        if promised is not None and draft.now - promised >= draft.policy.reservation_s:
            draft.refusals.append(
                model.Refusal(
                    subject=agent.name,
                    text="idle and fitting, but the controller gives it no work: not counted",
                )
            )
            return None
    else:
        if template is None:
            return None
        if agent.phase is Phase.UNKNOWN and not _may_be_starting(agent, template, draft.now):
            return None
        slots = template.executors
    return matching.Supply(
        name=agent.name,
        template=agent.template,
        labels=retention.labels_of(agent, template),
        exclusive=template.exclusive if template is not None else True,
        slots=slots,
        tier=tier,
    )


def _may_be_starting(agent: Agent, template: Template, now: float) -> bool:
    memory = agent.memory
    if memory is None or memory.online_at is not None or memory.created_at is None:
        return False
    return now - memory.created_at < template.connect_deadline_s


def _wanted_now(draft: _Draft) -> list[demand.Wish]:
    """Items that are to be served now: waiting ones, then those that are announced early."""
    now, early = [], []
    for wish in draft.wishes:
        if wish.unmet is not None and wish.kind is not demand.Kind.ANNOUNCED:
            continue
        if wish.kind is demand.Kind.NOW:
            now.append(wish)
        elif wish.kind is demand.Kind.ANNOUNCED and _early(draft, wish):
            early.append(wish)
    return now + early


def _early(draft: _Draft, wish: demand.Wish) -> tuple[Template, ...]:
    templates = (draft.policy.template(name) for name in wish.templates)
    return tuple(t for t in templates if t is not None and t.start_early)


def _serve_from_present(draft: _Draft) -> None:
    for agent in draft.agents:
        supply = _supply(draft, agent)
        if supply is not None:
            draft.supplies.append(supply)
    wanted = _wanted_now(draft)
    draft.given = matching.match(wanted, draft.supplies)
    for wish in wanted:
        supply = draft.given.get(wish.item.id)
        if supply is not None and wish.kind is demand.Kind.NOW:
            _note(
                draft,
                wish,
                _TIER_REASON[supply.tier],
                _TIER_TEXT[supply.tier].format(supply.name),
                template=supply.template,
                agent=supply.name,
            )


def _note(
    draft: _Draft,
    wish: demand.Wish,
    reason: WaitReason,
    text: str,
    *,
    template: model.TemplateName | None = None,
    agent: NodeName | None = None,
) -> None:
    draft.unmet[wish.item.id] = Unmet(
        item=wish.item.id,
        reason=reason,
        text=text,
        template=template if template is not None else next(iter(wish.templates), None),
        agent=agent,
        label=wish.label,
        since_at=_age(wish)[0],
    )


# --- launches ----------------------------------------------------------------------------------


def _launch_for_waiting(draft: _Draft) -> None:
    """Order agents for items that nobody present will serve; fair between kinds of items."""
    crowds: dict[object, list[demand.Wish]] = {}
    for wish in _wanted_now(draft):
        if wish.item.id in draft.given:
            continue
        if wish.pinned is not None and wish.pinned in {a.name for a in draft.agents}:
            _note(
                draft,
                wish,
                WaitReason.AGENT_BUSY,
                f"it must run on agent {wish.pinned} and nowhere else",
                agent=wish.pinned,
            )
            continue
        canonical = wish.expression.canonical() if wish.expression is not None else None
        crowds.setdefault((wish.kind, wish.templates, canonical), []).append(wish)
    spare: Counter[str] = Counter()
    turn = itertools.count()
    heap = [(_turn(draft, crowd), next(turn), crowd) for crowd in crowds.values()]
    heapq.heapify(heap)
    while heap:
        _, _, crowd = heapq.heappop(heap)
        if _place_one(draft, crowd, spare) and crowd:
            heapq.heappush(heap, (_turn(draft, crowd), next(turn), crowd))


def _turn(draft: _Draft, crowd: Sequence[demand.Wish]) -> tuple[int, int, float, int]:
    head = crowd[0]
    held = min((draft.room.by_template[name] for name in head.templates), default=0)
    return (int(head.kind is not demand.Kind.NOW), held, *_age(head))


def _place_one(draft: _Draft, crowd: list[demand.Wish], spare: Counter[str]) -> bool:
    """Serve the oldest item of a crowd; on refusal note the reason for the whole crowd."""
    head = crowd[0]
    announced = head.kind is demand.Kind.ANNOUNCED
    named = (draft.policy.template(name) for name in head.templates)
    templates = _early(draft, head) if announced else tuple(t for t in named if t is not None)
    for template in templates:
        if spare[template.name] > 0:
            spare[template.name] -= 1
            _ordered(draft, crowd.pop(0), template)
            return True
    refused: capacity.Refused | None = None
    for template in templates:
        placed = capacity.place(draft.room, template)
        if not isinstance(placed, capacity.Refused):
            if not draft.ids:
                refused = capacity.Refused(
                    reason=WaitReason.BUDGET, text="more launches follow in the next cycle"
                )
                break
            spare[template.name] += template.executors - 1
            reason = f"item {head.item.id} waits for {_words(head)}"
            _launch(draft, template, placed, reason, item=head.item.id)
            _ordered(draft, crowd.pop(0), template)
            return True
        refused = refused if refused is not None else placed
        if placed.until_at is not None:
            draft.wake.append(placed.until_at)
    if refused is not None and not announced:
        for wish in crowd:
            _note(draft, wish, refused.reason, refused.text)
            draft.short.append((wish, refused))
    return False


def _words(wish: demand.Wish) -> str:
    if wish.label.source is LabelSource.NO_LABEL:
        return "any agent"
    return f"'{wish.label.expression or wish.label.node}'"


def _ordered(draft: _Draft, wish: demand.Wish, template: Template) -> None:
    if wish.kind is demand.Kind.NOW:
        _note(
            draft,
            wish,
            WaitReason.AGENT_ORDERED,
            f"an agent of template {template.name} is ordered for it in this cycle",
            template=template.name,
        )


def _launch(
    draft: _Draft,
    template: Template,
    backend: model.BackendName,
    reason: str,
    *,
    item: model.ItemId | None = None,
) -> None:
    name = marks.node_name(draft.policy.owner, template.name, draft.ids.pop(0))
    draft.actions.append(
        model.LaunchAgent(
            name=name, template=template.name, backend=backend, reason=reason, item=item
        )
    )
    draft.launches[template.name] += 1
    draft.room.take(template, backend)


def _keep_warm(draft: _Draft) -> None:
    """Replace what was taken from the warm pool; demand came first."""
    promised = {supply.name for supply in draft.given.values()}
    for template in draft.policy.templates:
        missing = template.min_idle - _warm(draft, template, promised)
        for number in range(missing):
            placed = capacity.place(draft.room, template)
            if isinstance(placed, capacity.Refused) or not draft.ids:
                if isinstance(placed, capacity.Refused):
                    draft.refusals.append(
                        model.Refusal(
                            subject=f"warm pool of {template.name}",
                            text=f"{missing - number} fewer than wanted: {placed.text}",
                        )
                    )
                    if placed.until_at is not None:
                        draft.wake.append(placed.until_at)
                break
            reason = f"keeps {template.min_idle} agents warm"
            _launch(draft, template, placed, reason)


def _warm(draft: _Draft, template: Template, promised: set[NodeName]) -> int:
    """Count agents of a template that are, or will be, idle and promised to nobody."""
    counted = {s.name for s in draft.supplies if s.slots > 0}
    total = 0
    for agent in draft.agents:
        if agent.template != template.name or agent.name in promised:
            continue
        if agent.phase is Phase.BUSY:
            continue
        # one that is being retired is idle in the controller until it is gone: not replaced yet
        total += agent.name in counted or agent.phase is Phase.IDLE
    return total


# --- who goes ----------------------------------------------------------------------------------


def _make_room(draft: _Draft) -> None:
    """Let idle agents of other kinds go, or one busy one after its build, for those who wait."""
    starved = [(w, r) for w, r in draft.short if r.reason in capacity.SHARED]
    waits = {w.item.id: draft.world.ledger.waits.get(w.item.id, draft.now) for w, _ in starved}
    draft.world = attrs.evolve(draft.world, ledger=attrs.evolve(draft.world.ledger, waits=waits))
    if not starved:
        return
    leaving = sum(1 for agent in draft.agents if _is_leaving(agent))
    wanted = len(starved) - leaving
    promised = {supply.name for supply in draft.given.values()}
    for agent in retention.order(a for a in draft.agents if a.phase is Phase.IDLE):
        if wanted <= 0:
            return
        if agent.name in promised or not _in_scope(draft, agent, starved[0]):
            continue
        text = f"makes room for item {starved[0][0].item.id}"
        if _retire_idle(draft, agent, retention.Verdict(slug="yield", text=text)):
            wanted -= 1
    if wanted > 0 and leaving == 0:
        _yield_one(draft, starved, waits)


def _in_scope(draft: _Draft, agent: Agent, short: tuple[demand.Wish, capacity.Refused]) -> bool:
    """Return whether the room of this agent would help: same backend, or a total cap."""
    wish, refused = short
    if agent.template in wish.templates:
        return False
    if refused.reason is WaitReason.CAP_TOTAL:
        return True
    backends = {
        backend
        for name in wish.templates
        if (template := draft.policy.template(name)) is not None
        for backend in template.backends
    }
    return agent.backend in backends


def _yield_one(
    draft: _Draft,
    starved: Sequence[tuple[demand.Wish, capacity.Refused]],
    waits: Mapping[model.ItemId, float],
) -> None:
    for wish, refused in starved:
        due = waits[wish.item.id] + draft.policy.yield_after_s
        if draft.now < due:
            draft.wake.append(due)
            continue
        fewest = min((draft.room.by_template[name] for name in wish.templates), default=0)
        holders = [
            agent
            for agent in retention.order(draft.agents)
            if agent.phase is Phase.BUSY
            and not agent.in_flight
            and not agent.cordoned
            and _in_scope(draft, agent, (wish, refused))
            and draft.room.by_template[agent.template or ""] > fewest + 1
        ]
        if holders:
            most = max(holders, key=lambda a: draft.room.by_template[a.template or ""])
            waited = draft.now - waits[wish.item.id]
            _cordon(
                draft,
                most,
                retention.Verdict(
                    slug="yield",
                    text=f"its place is due to item {wish.item.id}, waiting for {waited:.0f} s",
                ),
            )
            return


def _let_go(draft: _Draft) -> None:
    touched = {action.name for action in draft.actions}
    promised = {supply.name for supply in draft.given.values()}
    for agent in retention.order(draft.agents):
        if agent.in_flight or agent.name in touched:
            continue
        template = draft.template_of(agent)
        if agent.phase is Phase.BUSY and not agent.cordoned:
            verdict = retention.spent(
                agent, template, now=draft.now, draining=draft.policy.draining
            )
            if verdict is not None:
                _cordon(draft, agent, verdict)
        elif agent.phase is Phase.IDLE and agent.name not in promised:
            verdict = retention.spent(
                agent, template, now=draft.now, draining=draft.policy.draining
            ) or _not_needed(draft, agent, template, promised)
            if verdict is not None:
                _retire_idle(draft, agent, verdict)


def _not_needed(
    draft: _Draft, agent: Agent, template: Template | None, promised: set[NodeName]
) -> retention.Verdict | None:
    """Judge idleness and caps; ``min_idle`` keeps the youngest."""
    if template is None:
        return None
    going = {a.name for a in draft.actions if isinstance(a, model.RetireAgent)}
    if template.cap is not None:
        excess = draft.room.by_template[template.name] - template.cap - _going(draft, template)
        if excess > 0:
            return retention.Verdict(
                slug="surplus", text=f"{excess} more than the cap of {template.cap}"
            )
    free = [
        a
        for a in draft.agents
        if a.template == template.name
        and a.phase is Phase.IDLE
        and not _is_leaving(a)
        and a.name not in promised
        and a.name not in going
    ]
    if len(free) <= template.min_idle:
        return None
    verdict = retention.idle_too_long(agent, template, now=draft.now)
    memory = agent.memory
    if verdict is None and memory is not None and memory.idle_at is not None:
        idle_s = template.retention.idle_s
        if idle_s is not None:
            draft.wake.append(memory.idle_at + idle_s)
    return verdict


def _going(draft: _Draft, template: Template) -> int:
    going = {a.name for a in draft.actions if isinstance(a, model.RetireAgent)}
    return sum(
        1
        for a in draft.agents
        if a.template == template.name and (a.name in going or _is_leaving(a))
    )


def _retire_idle(draft: _Draft, agent: Agent, verdict: retention.Verdict) -> bool:
    """Retire an idle agent if nothing speaks against it; otherwise say what."""
    if agent.in_flight or agent.instance is None:
        return False  # an online computer without an instance: two witnesses, hands off
    backend = draft.world.backends.get(agent.backend) if agent.backend is not None else None
    if backend is None or not backend.synced:
        _refuse(draft, agent, verdict, "its backend's state is unknown")
        return False
    if draft.world.controller.quieting_down:
        _refuse(draft, agent, verdict, "the controller is about to shut down")
        return False
    ledger = draft.world.ledger
    if sweeps.is_resting(agent, ledger, draft.policy, now=draft.now):
        _refuse(draft, agent, verdict, "a pipeline may still ask for it after the start")
        if ledger.session_at is not None:
            draft.wake.append(ledger.session_at + draft.policy.resume_grace_s)
        return False
    wish = retention.protector(
        agent,
        draft.template_of(agent),
        draft.wishes,
        now=draft.now,
        settle_s=draft.policy.settle_s,
        over_age=verdict.slug == "max-age",
    )
    if wish is not None:
        _refuse(draft, agent, verdict, f"item {wish.item.id} could want it")
        return False
    draft.actions.append(
        model.RetireAgent(
            name=agent.name, backend=agent.backend, reason=verdict.text, slug=verdict.slug
        )
    )
    return True


def _refuse(draft: _Draft, agent: Agent, verdict: retention.Verdict, why: str) -> None:
    draft.refusals.append(
        model.Refusal(subject=agent.name, text=f"may go ({verdict.text}), stays because {why}")
    )


def _cordon(draft: _Draft, agent: Agent, verdict: retention.Verdict) -> None:
    template = draft.template_of(agent)
    labels = retention.labels_of(agent, template)
    exclusive = template.exclusive if template is not None else True
    draft.actions.append(
        model.CordonAgent(
            name=agent.name,
            reason=verdict.text,
            slug=verdict.slug,
            others_wait=any(
                demand.could_want(wish, labels, exclusive) is not False for wish in draft.wishes
            ),
        )
    )


def _sweep(draft: _Draft) -> None:
    result = sweeps.sweep(draft.world, draft.policy, draft.agents, draft.wishes)
    draft.actions.extend(result.actions)
    draft.refusals.extend(result.refusals)
    draft.wake.extend(result.wake_at)


# --- the end -----------------------------------------------------------------------------------


def _clamp(draft: _Draft) -> int:
    """Take back launches beyond demand + warm target, counted independently of the rules above.

    Returns how many there were. It must be 0: the rules never order too much.
    """
    beyond = 0
    for template in draft.policy.templates:
        wanted = sum(template.name in wish.templates for wish in _wanted_now(draft))
        present = sum(_counts_as_present(draft, a, template) for a in draft.agents)
        allowed = max(0, -(-wanted // template.executors) + template.min_idle - present)
        excess = draft.launches[template.name] - allowed
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


def _counts_as_present(draft: _Draft, agent: Agent, template: Template) -> bool:
    """Return whether an agent is idle or on its way, usable, and of today's definition."""
    if agent.template != template.name or _is_leaving(agent):
        return False
    if agent.revision not in {"", template.revision} or agent.phase is Phase.BUSY:
        return False
    return any(s.name == agent.name and s.slots > 0 for s in draft.supplies)


def speaks_against(  # noqa: PLR0911 -- one objection, one return
    action: model.RetireAgent | model.SweepNode, world: model.World, policy: model.Policy
) -> str | None:
    """Judge a removal again on a fresh look at the controller; None: go on.

    The time between a plan and its execution is short but not nothing: an item may have arrived,
    a build may have started, an agent may have come back.
    """
    without = {n: e for n, e in world.ledger.expectations.items() if n != action.name}
    world = attrs.evolve(world, ledger=attrs.evolve(world.ledger, expectations=without))
    if not world.controller.synced:
        return "the controller does not answer"
    agents, ledger, _ = agents_.observe(world, policy)
    agent = next((a for a in agents if a.name == action.name), None)
    if agent is None:
        return None
    ours = {a.name: a.template for a in agents if a.template is not None}
    wishes, _ = demand.wishes(world.controller, policy.templates, ledger, ours)
    if agent.phase is Phase.BUSY:
        return "it works"
    wish = sweeps.wants_back(agent, wishes, ledger)
    if wish is not None:
        return f"item {wish.item.id} must go on with it"
    if isinstance(action, model.SweepNode) or action.cordoned:
        return "it is back online" if agent.phase is Phase.IDLE else None
    if agent.phase is not Phase.IDLE:
        return None
    if action.slug.startswith(("lost-", "connect-")):
        return "it came online after all"
    wish = retention.protector(
        agent,
        policy.template(agent.template) if agent.template is not None else None,
        wishes,
        now=world.now,
        settle_s=policy.settle_s,
        over_age=action.slug == "max-age",
    )
    return f"item {wish.item.id} could want it" if wish is not None else None


def _finish(
    draft: _Draft, illegal: tuple[tuple[Phase | None, Phase], ...], overshoot: int
) -> model.Plan:
    for wish in draft.wishes:
        if wish.unmet is not None and wish.item.id not in draft.unmet:
            draft.unmet[wish.item.id] = wish.unmet
    ledger = _note_promises(draft)
    unmet = tuple(
        draft.unmet[wish.item.id] for wish in draft.wishes if wish.item.id in draft.unmet
    )
    _wake_for_deadlines(draft)
    later = [at for at in draft.wake if at > draft.now]
    return model.Plan(
        actions=tuple(draft.actions),
        unmet=unmet,
        refusals=tuple(draft.refusals),
        agents=draft.agents,
        illegal=illegal,
        counts=_counts(draft),
        overshoot=overshoot,
        wake_at=min(later) if later else None,
        active=_is_active(draft),
        ledger=ledger,
    )


def _note_promises(draft: _Draft) -> model.Ledger:
    """Remember since when an idle agent fits a waiting item without being given it."""
    ledger = draft.world.ledger
    memories = dict(ledger.memories)
    waiting = [w for w in draft.wishes if w.kind is demand.Kind.NOW and w.unmet is None]
    for agent in draft.agents:
        memory = memories.get(agent.name)
        if memory is None:
            continue
        template = draft.template_of(agent)
        labels = retention.labels_of(agent, template)
        exclusive = template.exclusive if template is not None else True
        is_wanted = agent.phase is Phase.IDLE and any(
            demand.could_want(wish, labels, exclusive) is True for wish in waiting
        )
        since = memory.promised_at if memory.promised_at is not None else draft.now
        memories[agent.name] = attrs.evolve(memory, promised_at=since if is_wanted else None)
    return attrs.evolve(ledger, memories=memories)


def _wake_for_deadlines(draft: _Draft) -> None:
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


def _is_active(draft: _Draft) -> bool:
    """Return whether to poll fast: something waits, starts or leaves, or is for single use."""
    if draft.actions or any(a.in_flight for a in draft.agents):
        return True
    if any(w.kind in {demand.Kind.NOW, demand.Kind.ANNOUNCED} for w in draft.wishes):
        return True
    moving = capacity.STARTING | {Phase.DRAINED, Phase.LOST, Phase.ORPHAN, Phase.GONE}
    return any(a.phase in moving or _counts_builds(draft, a) for a in draft.agents)


def _counts_builds(draft: _Draft, agent: Agent) -> bool:
    template = draft.template_of(agent)
    if template is None or agent.phase not in {Phase.IDLE, Phase.BUSY}:
        return False
    return template.retention.once or template.retention.max_builds is not None


def _counts(draft: _Draft) -> dict[model.TemplateName, model.TemplateCount]:
    serving: Counter[str] = Counter()
    for wish in draft.wishes:
        unmet = draft.unmet.get(wish.item.id)
        if wish.kind is demand.Kind.NOW and wish.unmet is None and unmet is not None:
            serving[unmet.template or ""] += 1
    counts = {}
    for template in draft.policy.templates:
        mine = [a for a in draft.agents if a.template == template.name]
        idle = busy = 0
        for agent in mine:
            if agent.computer is not None and not agent.computer.offline:
                busy += agent.computer.busy_executors
                idle += agent.computer.executors - agent.computer.busy_executors
        starting = sum(a.phase in capacity.STARTING for a in mine)
        counts[template.name] = model.TemplateCount(
            demand=serving[template.name],
            warm_target=template.min_idle,
            idle=idle,
            busy=busy,
            starting=starting * template.executors,
            agents=len(mine),
            launches=draft.launches[template.name],
        )
    return counts
