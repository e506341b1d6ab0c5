"""Who is served by whom: what the agents that are there, or ordered, will take.

Idle ones first, then those that connect, then ordered ones. Refuses to order any, and to let
anybody go.
"""

import operator
from collections.abc import Iterator, Mapping

import attrs

from backends import api as backends_api
from broker.core import model
from broker.core.decide import capacity, retention
from broker.core.decide import draft as drafts
from broker.core.demand import matching, queue_texts
from broker.core.demand import wishes as demand
from broker.core.fleet import neighbours, withheld
from broker.core.model import Agent, Phase, Template, WaitReason

TIERS: Mapping[Phase, int] = {
    Phase.IDLE: 0,
    Phase.BUSY: 0,
    Phase.CONNECTING: 1,
    Phase.CHECKING: 1,
    Phase.UNKNOWN: 2,
    Phase.LAUNCHING: 3,  # and what this plan orders: last, so that it changes nothing else
}
_STARTING = backends_api.InstanceState.STARTING
_ANSWERED_S = 5.0
"""Whoever has not answered an order within this is named."""
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
_CHECKED_TEXT = "agent {} is for it once it has passed its check"


def serve_from_present(draft: drafts.Draft) -> None:
    """Match waiting items with the free slots of the agents that are there."""
    leaving, closed, misplaced = draft.leaving, draft.closed, draft.misplaced
    is_vetoed, anybody_waits = bool(draft.vetoed), bool(draft.wanted)
    for agent in draft.agents:
        if agent.phase not in TIERS:
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
    nominate(draft)
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
    return tries(agent.backend, other, failure)


def tries(backend: model.BackendName, other: model.BackendName, failure: str) -> str:
    """Return why an agent is started on a backend that failed, beside the one that serves."""
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
            tier=TIERS[Phase.IDLE if agent.online else Phase.CONNECTING],
            refused=old[limit],
            owner=agent.owner,
        )


def nominate(draft: drafts.Draft) -> None:
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
    agent = draft.present.get(supply.name)  # None: it is ordered by this plan, or a neighbour's
    is_checked = agent is not None and agent.phase is Phase.CHECKING
    text = (_CHECKED_TEXT if is_checked else _TIER_TEXT[supply.tier]).format(supply.name)
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
    goes = phase is Phase.CHECKING and drafts.goes_unchecked(draft, agent, template) is not None
    if goes or (phase is Phase.UNKNOWN and not _may_be_starting(agent, template, draft.now)):
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
    return TIERS[phase]


def _may_be_starting(agent: Agent, template: Template, now: float) -> bool:
    memory = agent.memory
    if memory is None or memory.online_at is not None or memory.created_at is None:
        return False
    return now - memory.created_at < template.connect_deadline_s


# --- launches ---
