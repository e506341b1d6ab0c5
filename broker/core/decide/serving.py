"""Who is served by whom: what the present agents will take, and agents for the rest.

Present agents first (idle, then connecting, then ordered), then launches for items that nobody
will take, fair between kinds of items, then the warm pool. Refuses to let anybody go.
"""

import heapq
import itertools
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import attrs

from backends import api as backends_api
from broker.core import model
from broker.core.decide import capacity, retention, variants
from broker.core.decide import draft as drafts
from broker.core.demand import matching, parameters, queue_texts, vetoes
from broker.core.demand import wishes as demand
from broker.core.fleet import marks, neighbours, withheld
from broker.core.model import Agent, LabelSource, Phase, Template, WaitReason
from outside import counts

_TIERS: Mapping[Phase, int] = {
    Phase.IDLE: 0,
    Phase.BUSY: 0,
    Phase.CONNECTING: 1,
    Phase.UNKNOWN: 2,
    Phase.LAUNCHING: 3,  # and what this plan orders: last, so that it changes nothing else
}
_STARTING = backends_api.InstanceState.STARTING
_TRIED = 2
"""Idle agents that a vetoed item was not given: the next one would not be given it either."""
_TRY_AND_OTHER = 2  # agents
_TOLD = 4
"""So many templates that would serve an item are told of in the reason why none does."""
_ANSWERED_S = 5.0
"""Whoever has not answered an order within this is named."""
_TURN_S = 1.5
"""What a neighbour orders is seen within this: a look of its own, and its nodes are made."""
_IDLE, _BUSY = Phase.IDLE, Phase.BUSY
_AT_WORK = frozenset({_IDLE, _BUSY})
_TIER_REASON = (
    WaitReason.AGENT_IDLE,
    WaitReason.AGENT_STARTING,
    WaitReason.AGENT_STARTING,
    WaitReason.AGENT_ORDERED,
)
_TIER_TEXT = (
    "agent {} is free and fits: the controller is about to give it this item",
    "agent {} is starting for it",
    "agent {} was starting for it; its backend does not answer just now",
    "agent {} is ordered for it",
)


def serve_from_present(draft: drafts.Draft) -> None:
    """Match waiting items with the free slots of the agents that are there."""
    leaving, closed, misplaced = draft.leaving, draft.closed, draft.misplaced
    is_vetoed, anybody_waits = bool(draft.vetoed), bool(draft.wanted)
    for agent in draft.agents:
        if agent.phase not in _TIERS:
            continue
        name, memory = agent.name, agent.memory
        if name in leaving and not _took_work_since(draft, agent):
            continue
        slots = _slots(draft, agent)
        if slots <= 0:
            continue
        if name in misplaced or name in closed:  # certain: another agent may well be given work
            verdict = misplaced.get(name)
            words = verdict.text if verdict is not None else withheld.words(agent, now=draft.now)
            draft.refusals.append(model.Refusal(subject=name, text=f"{words}: not counted"))
            continue
        if _tier(agent) > 0 and (other := _sooner(draft, agent)):
            draft.refusals.append(model.Refusal(subject=name, text=other))
            continue
        if is_vetoed or (memory is not None and memory.nominated_at is not None):
            refused = _refused(draft, agent)
            if refused:
                _pass_over(draft, agent, _supply(draft, agent, slots), refused)
                continue
        draft.offering.add(name)
        if anybody_waits or _tier(agent) > 0:  # who starts counts for the warm pool
            draft.supplies.append(_supply(draft, agent, slots))
    draft.supplies.extend(_neighbours(draft))
    _nominate(draft)
    draft.served = draft.nominated
    draft.unserved = [w for w in draft.wanted if w.item.id not in draft.nominated]


def _sooner(draft: drafts.Draft, agent: Agent) -> str:
    """Say why nobody waits for an agent that starts where others failed; empty: somebody does.

    Another backend serves the item meanwhile; if it comes all the same, it is there for the next.
    """
    template = draft.template_of(agent)
    if template is None or agent.backend is None or agent.created_at is None:
        return ""
    room, asked = draft.room, agent.asked
    failure = capacity.tried(room, template, agent.backend, asked, since=agent.created_at)
    other = capacity.elsewhere(room, template, agent.backend, asked) if failure else None
    if other is None:
        return ""
    return _tries(agent.backend, other, failure)


def _tries(backend: model.BackendName, other: model.BackendName, failure: str) -> str:
    return f"shows whether {backend} works again, while {other} serves: {failure}"


def _pass_over(
    draft: drafts.Draft,
    agent: Agent,
    supply: matching.Supply,
    refused: frozenset[model.ItemId],
) -> None:
    """Count a free agent for nobody, or for others than the items that are not given to it."""
    draft.refused[agent.name] = refused
    draft.room.passed_over[agent.name] = (
        f"is free and refused by the controller to {_many(refused)}"
    )
    draft.refusals.append(
        model.Refusal(
            subject=agent.name,
            text="it is free and fits, but the controller gives it no work: not counted "
            f"for {_many(refused)}",
        )
    )
    if agent.phase is Phase.IDLE and not refused <= draft.vetoed:
        draft.passed_over.append(supply)  # it has taken nothing at all: not for others
        return
    supply = attrs.evolve(supply, refused=refused)
    draft.passed_over.append(supply)
    draft.supplies.append(supply)
    draft.offering.add(agent.name)


def _took_work_since(draft: drafts.Draft, agent: Agent) -> bool:
    """Return whether an agent was seen at work after this view of the controller was read.

    In the view its item waits still: both count, or another agent would be ordered for it.
    """
    glanced_at = agent.memory.glanced_at if agent.memory is not None else None
    if glanced_at is None or agent.phase is Phase.BUSY:
        return False
    return glanced_at >= draft.world.controller.read_at


def _neighbours(draft: drafts.Draft) -> Iterator[matching.Supply]:
    """Yield what other owners' agents will take, of the items that have not waited for long."""
    if not draft.neighbours.agents or not draft.wanted:
        return
    old = {
        limit: frozenset(
            wish.item.id
            for wish in draft.wanted
            if draft.now - drafts.since(wish) >= limit and wish.kind is demand.WishKind.NOW
        )
        for limit in (neighbours.GIVEN_WITHIN_S, neighbours.COMES_WITHIN_S)
    }
    for agent in draft.neighbours.agents:
        limit = neighbours.GIVEN_WITHIN_S if agent.online else neighbours.COMES_WITHIN_S
        yield matching.Supply(
            name=agent.name,
            template=None,
            kind=agent.labels - {agent.name},
            exclusive=True,
            slots=agent.slots,
            tier=_TIERS[Phase.IDLE if agent.online else Phase.CONNECTING],
            refused=old[limit],
            owner=agent.owner,
        )


def _nominate(draft: drafts.Draft) -> None:
    """Match every item that is to be served with the supplies there are, and write it down."""
    if draft.matched == len(draft.supplies):
        return
    draft.matched = len(draft.supplies)
    if not draft.wanted:
        return
    wanted = (
        [w for w in draft.wanted if w.item.id not in draft.held] if draft.held else draft.wanted
    )
    matched = matching.match(wanted, _keep(draft))
    before, draft.nominated = draft.nominated, {wish.item.id: one for wish, one in matched}
    for wish, supply in matched:
        old = before.get(wish.item.id)
        if old is None or old.name != supply.name:  # else it is written down
            _note_nominated(draft, wish, supply)


def _note_nominated(draft: drafts.Draft, wish: demand.Wish, supply: matching.Supply) -> None:
    reason = _TIER_REASON[supply.tier]
    text = _TIER_TEXT[supply.tier].format(supply.name)
    agent = draft.present.get(supply.name)  # None: it is ordered by this plan, or a neighbour's
    if supply.owner:
        text = f"{text} (of owner {supply.owner})"
    if wish.kind is not demand.WishKind.NOW:
        if wish.unmet is None or reason is WaitReason.AGENT_IDLE:
            return  # what it waits for is all that there is to say
        reason, text = wish.unmet.reason, f"{wish.unmet.text}; {text}"
    elif agent is not None and (late := _unanswered(draft, agent)):
        reason, text = WaitReason.UNANSWERED, late
    elif agent is not None and reason is WaitReason.AGENT_STARTING:
        if agent.instance is not None and agent.instance.detail:
            text = f"{text}: {agent.instance.detail}"
        if agent.backend is not None:
            text += draft.room.words_of_avoided(agent.backend)
    elif agent is not None and withheld.free_for(agent, now=draft.now):
        veto = queue_texts.veto(wish.item.why)
        if veto and reason is WaitReason.AGENT_IDLE:
            reason = WaitReason.NOT_GIVEN
            text = f"agent {supply.name} is free and fits, but the controller says: {veto}"
    drafts.note(draft, wish, reason, text, template=supply.template, agent=supply.name)


def _unanswered(draft: drafts.Draft, agent: Agent) -> str:
    """Say that the order of an agent is not answered; empty if it is, or may be in a moment."""
    flight = agent.expectation
    if agent.phase is not Phase.LAUNCHING or flight is None or flight.done_at is not None:
        return ""
    waited = draft.now - flight.since_at
    if waited < _ANSWERED_S:
        draft.wake.append(flight.since_at + _ANSWERED_S)
        return ""
    instance = f"its instance from {agent.backend}"
    match agent.computer is None, agent.instance is None:
        case True, True:  # some platforms are asked before the controller is
            words = f"neither its node nor {instance} is"
        case True, False:
            words = "its node is not"
        case _:
            words = f"{instance} is not"
    return f"agent {agent.name} was ordered {waited:.0f} s ago, and {words} there yet"


def _keep(draft: drafts.Draft) -> list[matching.Supply]:
    """Mark for each template those that come last as the ones to keep warm."""
    left = {t.name: t.min_idle for t in draft.policy.templates if t.min_idle > 0}
    present, marked = draft.present, []
    last_first = sorted(draft.supplies, key=operator.attrgetter("name"), reverse=True)
    for supply in sorted(last_first, key=operator.attrgetter("tier"), reverse=True):
        name, template = supply.name, supply.template
        kept = template in left and not supply.asked
        if kept and name in present:
            kept = present[name].phase is not _BUSY  # its free slots are no warm agent
        if kept and template is not None:
            left[template] -= 1
            if left[template] == 0:
                del left[template]
        marked.append(supply if supply.kept == kept else attrs.evolve(supply, kept=kept))
    return marked


def _many(items: frozenset[model.ItemId]) -> str:
    shown = ", ".join(str(number) for number in sorted(items)[:3])
    return f"item{'s' if len(items) > 1 else ''} {shown}" + ", ..." * (len(items) > 3)


def _refused(draft: drafts.Draft, agent: Agent) -> frozenset[model.ItemId]:
    """Return the items whose reservation has expired: long enough nominated, and not taken.

    Where the controller says what speaks against it, ``settle_s`` is long enough.
    """
    nominated = agent.memory.nominated_at if agent.memory is not None else None
    if agent.phase not in _AT_WORK:
        return frozenset()
    nominated = nominated if nominated is not None else draft.now
    policy = draft.policy
    limits = (policy.settle_s, policy.reservation_s)
    seen_at = draft.world.controller.read_at  # that nothing was taken since then nobody knows
    if seen_at - nominated < min(limits) and not draft.vetoed:
        return frozenset()
    refused = set()
    for interest in draft.interests_in(agent):
        wish = interest.wish
        vetoed = wish.item.id in draft.vetoed
        alike = vetoed and agent.template in wish.templates  # its label is known by one of them
        if not (interest.sure or alike) or wish.kind is not demand.WishKind.NOW or wish.unmet:
            continue
        since = _refused_since(draft, agent, wish, nominated)
        due = since + (min(limits) if vetoed else limits[1])
        if seen_at >= due:
            refused.add(wish.item.id)
        else:
            draft.wake.append(due)
    return frozenset(refused)


def _refused_since(
    draft: drafts.Draft, agent: Agent, wish: demand.Wish, nominated: float
) -> float:
    """Return since when an item could have been given to an agent.

    A veto is one of every free executor that fits, whatever else they are given meanwhile.
    """
    vetoed_at = draft.world.ledger.vetoed.get(wish.item.id, draft.now)
    memory = agent.memory
    if vetoed_at < draft.now and memory is not None and memory.online_at is not None:
        return max(vetoed_at, memory.online_at)
    # an idle agent has taken nothing at all since then, so it counts for nobody
    return nominated if agent.phase is Phase.IDLE else max(nominated, drafts.since(wish))


def _slots(draft: drafts.Draft, agent: Agent) -> int:
    """Return how many slots of an agent are free; 0 if it will not serve anybody."""
    phase, computer = agent.phase, agent.computer
    if phase is _IDLE or phase is _BUSY:
        if computer is None or computer.offline:
            return 0
        verdict = draft.spent.get(agent.name)
        if (
            verdict is not None
            and (phase is _BUSY or verdict.cause in retention.USED)
            and not _took_work_since(draft, agent)
        ):
            return 0  # it is being taken out of service, its free slots with it
        return computer.executors - computer.busy_executors
    template = draft.template_of(agent)
    # the definition may be what keeps it from coming: another one is due
    if template is None or withheld.is_outdated(agent, template):
        return 0
    if phase is Phase.UNKNOWN and not _may_be_starting(agent, template, draft.now):
        return 0
    return template.executors


def _supply(draft: drafts.Draft, agent: Agent, slots: int) -> matching.Supply:
    """Return what an agent offers that has free slots."""
    template = draft.policy.by_name.get(agent.template)
    return matching.Supply(
        agent.name,
        agent.template,
        retention.kind_of(agent, template),
        template.exclusive if template is not None else True,
        slots,
        _tier(agent),
        asked=agent.asked,
    )


def _tier(agent: Agent) -> int:
    """Return how far an agent is from work: online before all of it runs, it still starts."""
    phase, instance = agent.phase, agent.instance
    if phase is _IDLE and instance is not None and instance.state is _STARTING:
        phase = Phase.CONNECTING
    return _TIERS[phase]


def _may_be_starting(agent: Agent, template: Template, now: float) -> bool:
    memory = agent.memory
    if memory is None or memory.online_at is not None or memory.created_at is None:
        return False
    return now - memory.created_at < template.connect_deadline_s


# --- launches ---


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
        _nominate(draft)
        _take_back(draft)
        refusals = _keep_warm(draft)
        _nominate(draft)
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
            )
        )


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
    crowds = ([w for w in crowd if w.item.id not in served] for crowd in draft.crowds)
    spare: Counter[tuple[str, frozenset[str]]] = Counter()
    turn = itertools.count()
    heap = [(_turn(draft, crowd), next(turn), crowd) for crowd in crowds if crowd]
    heapq.heapify(heap)
    while heap:
        _, _, crowd = heapq.heappop(heap)
        if _place_one(draft, crowd, spare) and crowd:
            heapq.heappush(heap, (_turn(draft, crowd), next(turn), crowd))


def _turn(draft: drafts.Draft, crowd: Sequence[demand.Wish]) -> tuple[int, int, float, int]:
    head = crowd[0]
    held = min((draft.room.by_template[name] for name in head.templates), default=0)
    return (int(head.kind is not demand.WishKind.NOW), held, *drafts.age(head))


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
    held = _more_would_not_help(draft, crowd) or _leaves_to_neighbour(draft, crowd)
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


def _leaves_to_neighbour(
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


def _works(draft: drafts.Draft, name: model.NodeName) -> bool:
    agent = draft.present.get(name)
    return agent is not None and agent.phase is Phase.BUSY


def _more_would_not_help(
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
    _order_one(draft, template, backend, asked, tries=_tries(backend, other, failure))
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
            tier=_TIERS[Phase.LAUNCHING],
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
        agent.name for agent in draft.within(_IDLE)
    }  # online, though all of it may not run yet
    warm.update(
        supply.template or ""
        for supply in draft.supplies
        if supply.tier > 0 and not supply.asked and supply.name not in nominated | idle
    )
    return warm
