"""Who goes, and whether it may: room for others, what has served its time, what is swept.

The verdicts are ``retention``'s and ``sweep``'s; here is what speaks against carrying them out
now. Refuses to launch anything.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import attrs
from attrs import define

from broker.core import model
from broker.core.decide import capacity, retention, variants
from broker.core.decide import draft as drafts
from broker.core.decide import sweep as sweeps
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.fleet import release, standing, withheld
from broker.core.model import Agent, NodeName, Phase, Template, WaitReason

_Helps = Callable[[Agent], bool]


def make_room(draft: drafts.Draft) -> None:
    """Let idle agents of other kinds go, or one busy one after its build, for those who wait."""
    starved = [
        (wish, refused)
        for crowd, refused in draft.short
        if refused.reason in capacity.SHARED or variants.can_yield(draft, crowd[0], refused)
        for wish in crowd
    ]
    waits = {w.item.id: draft.world.ledger.waits.get(w.item.id, draft.now) for w, _ in starved}
    draft.world = attrs.evolve(draft.world, ledger=attrs.evolve(draft.world.ledger, waits=waits))
    if not starved:
        return
    # a single-use agent leaves, too, but only when its build ends: that may take hours
    wanted = len(starved) - sum(_is_going(draft, agent) for agent in draft.agents)
    nominated = {supply.name for supply in draft.nominated.values()}
    helps = _helps(*starved[0])
    for agent in retention.order(draft.within(Phase.IDLE)):
        if wanted <= 0:
            return
        if agent.name in nominated or agent.name in draft.holds or not helps(agent):
            continue
        text = f"makes room for item {starved[0][0].item.id}"
        if _retire_idle(draft, agent, retention.Verdict(cause=model.Cause.YIELD, text=text)):
            wanted -= 1
    if wanted > 0 and not draft.leaving:
        _yield_one(draft, starved, waits)


def _is_going(draft: drafts.Draft, agent: Agent) -> bool:
    """Return whether an agent is being removed: its room is free in a moment."""
    if agent.phase is Phase.BUSY:
        return False
    return agent.name in draft.leaving or agent.phase is Phase.DRAINED


def _helps(wish: demand.Wish, refused: capacity.Shortage) -> _Helps:
    """Return which agents' room would help an item: where a cap is full, any for a total cap."""
    if refused.reason not in capacity.SHARED:
        return lambda agent: variants.is_other(agent, wish)
    anywhere = refused.reason is WaitReason.CAP_TOTAL
    return lambda agent: (
        (agent.template not in wish.templates or variants.is_other(agent, wish))
        and (anywhere or agent.backend in refused.capped)
    )


def _yield_one(
    draft: drafts.Draft,
    starved: Sequence[tuple[demand.Wish, capacity.Shortage]],
    waits: Mapping[model.ItemId, float],
) -> None:
    in_vain: set[Hashable] = set()
    for wish, refused in starved:
        due = waits[wish.item.id] + draft.policy.yield_after_s
        if draft.now < due:
            draft.wake.append(due)
            continue
        alike = (wish.templates, refused.reason, refused.capped)
        if alike in in_vain:
            continue
        holders = _holders(draft, wish, refused)
        if not holders:
            in_vain.add(alike)
            continue
        most = max(holders, key=lambda a: draft.room.by_template[a.template or ""])
        waited = draft.now - waits[wish.item.id]
        _cordon(
            draft,
            most,
            retention.Verdict(
                cause=model.Cause.YIELD,
                text=f"its place is due to item {wish.item.id}, waiting for {waited:.0f} s",
            ),
        )
        return


def _holders(draft: drafts.Draft, wish: demand.Wish, refused: capacity.Shortage) -> list[Agent]:
    """Return the agents at work whose place could be due to an item, the oldest first."""
    fewest = min((draft.room.by_template[name] for name in wish.templates), default=0)
    helps = _helps(wish, refused)
    return retention.order(
        agent
        for agent in draft.within(Phase.BUSY)
        if not agent.in_flight
        and not agent.cordoned
        and agent.name not in draft.holds
        and helps(agent)
        # with none at all its turn has come; else swapping places would help nobody
        and (draft.room.by_template[agent.template or ""] > fewest + 1 or fewest == 0)
    )


@define(kw_only=True)
class _Tally:
    """By template: agents that stay, and of them the idle ones without a nominated item."""

    staying: Counter[str]
    idle: Counter[str]


def let_go(draft: drafts.Draft) -> None:
    """Cordon or retire whoever has served its time."""
    touched = {action.name for action in draft.actions}
    nominated = {supply.name for supply in draft.nominated.values()}
    tally = _tally(draft, nominated)
    for agent in retention.order(_may_go(draft, touched, nominated, tally)):
        if agent.in_flight or agent.name in touched:
            continue
        template = draft.template_of(agent)
        if agent.memory is not None and agents_.ASSIGNED in agent.memory.executable_urls:
            continue  # an item on its way would be turned back at the door
        if withheld.is_held(agent):
            text = f"it {withheld.words(agent, now=draft.now)}: hands off"
            draft.refusals.append(model.Refusal(subject=agent.name, text=text))
        if agent.phase is Phase.BUSY:
            _end_work(draft, agent)
        elif agent.name in draft.holds:
            continue
        elif agent.phase is Phase.CONNECTING:
            _stop_starting(draft, agent, template, nominated, tally)
        elif agent.phase is Phase.IDLE and (
            agent.name not in nominated or _is_ordered_out(draft, agent)
        ):
            _let_idle_go(draft, agent, template, tally)


def _let_idle_go(
    draft: drafts.Draft, agent: Agent, template: Template | None, tally: _Tally
) -> None:
    misplaced = draft.misplaced.get(agent.name)
    if misplaced is not None and not agent.closed:
        _cordon_idle(draft, agent, misplaced)
        return
    verdict = (
        _closed(draft, agent)
        or draft.spent.get(agent.name)
        or _not_needed(draft, agent, template, tally)
    )
    if verdict is not None and _retire_idle(draft, agent, verdict):
        tally.idle[agent.template or ""] -= not agent.closed and not agent.asked
        tally.staying[agent.template or ""] -= 1


def _is_ordered_out(draft: drafts.Draft, agent: Agent) -> bool:
    """Return whether a person has ordered this very agent to go."""
    orders = draft.policy.standing
    order = standing.dismissing(orders, agent, now=draft.now) if orders else None
    return order is not None and order.kind is model.StandingKind.RETIRE


def _may_go(
    draft: drafts.Draft, touched: set[NodeName], nominated: set[NodeName], tally: _Tally
) -> list[Agent]:
    """Return the agents of whom there is anything to say.

    An idle one of a template goes with all others of it, for who goes decides who stays warm;
    where all stay only the end of their time is noted.
    """
    others = [*draft.within(Phase.CONNECTING, Phase.HELD)]
    spent = draft.spent.keys() | draft.misplaced.keys()
    others += [
        a for a in draft.within(Phase.BUSY) if a.name in spent or _dead(a) or withheld.is_held(a)
    ]
    noted = spent | touched | draft.closed
    at_ease: dict[str, list[Agent]] = {}
    moving: set[str | None] = set()
    templates, now = draft.policy.by_name, draft.now
    for agent in draft.within(Phase.IDLE):
        name, memory = agent.name, agent.memory
        template = templates.get(agent.template)
        if (
            template is None
            or memory is None
            or name in noted
            or agent.expectation is not None
            or memory.item_cancelled
            or agents_.ASSIGNED in memory.executable_urls
            or retention.idle_too_long(agent, template, now=now) is not None
        ):
            others.append(agent)
            moving.add(agent.template)
        elif agent.asked:  # nobody keeps it warm: its time is noted
            others.append(agent)
        elif name not in nominated:
            at_ease.setdefault(template.name, []).append(agent)
    for template in draft.policy.templates:
        staying = at_ease.get(template.name, [])
        if template.name in moving or _excess(template, tally) > 0:
            others.extend(staying)
        elif tally.idle[template.name] > template.min_idle:
            idle_s = template.retention.idle_s
            since = [
                a.memory.idle_at
                for a in staying
                if a.memory is not None and a.memory.idle_at is not None
            ]
            if idle_s is not None and since:
                draft.wake.append(min(since) + idle_s)
    return others


def _end_work(draft: drafts.Draft, agent: Agent) -> None:
    """Let a busy agent take nothing more; of one that died the steps are ended as well."""
    dead = _dead(agent)
    if dead is not None and release.obstacle(agent, draft.world.controller) is None:
        draft.actions.append(
            model.ReleaseAgent(
                name=agent.name,
                backend=agent.backend,
                reason=_with_look(draft, agent, dead.text),
                cause=dead.cause,
                keeps=agent.name in draft.kept,
            )
        )
        return
    verdict = dead or _last_build(draft, agent)
    if agent.cordoned:
        _retell(draft, agent)
    elif verdict is not None:
        _cordon(draft, agent, verdict)


def _with_look(draft: drafts.Draft, agent: Agent, text: str) -> str:
    kept = draft.kept.get(agent.name)
    return text if kept is None else f"{text}; {kept.words(agent)}"


def _retell(draft: drafts.Draft, agent: Agent) -> None:
    """Say what befalls an agent in its last build where the build's owner looks, too."""
    computer = agent.computer
    if computer is None or not computer.temporarily_offline:
        return  # a sealed one has no words
    slug, _, told = computer.offline_cause.removeprefix(model.CORDON_MARK).strip().partition(": ")
    cause = model.Cause.find(slug)
    if cause is not None and agents_.after_mishap(agent, told) != told:
        _cordon(draft, agent, retention.Verdict(cause=cause, text=told))


def _excess(template: Template, tally: _Tally) -> int:
    """Return how many agents more than its cap a template has."""
    return tally.staying[template.name] - template.cap if template.cap is not None else 0


def _last_build(draft: drafts.Draft, agent: Agent) -> retention.Verdict | None:
    """Return why the present build of an agent that lives is to be its last."""
    verdict = draft.misplaced.get(agent.name)
    if verdict is None and not withheld.is_held(agent):  # whoever holds it wants it kept as it is
        verdict = draft.spent.get(agent.name)
    return verdict


def _tally(draft: drafts.Draft, nominated: set[NodeName]) -> _Tally:
    going = {a.name for a in draft.actions if isinstance(a, model.RetireAgent)}
    going |= draft.leaving
    gone = [draft.present[name] for name in going]
    others = going | nominated | draft.closed | draft.misplaced.keys()
    return _Tally(
        staying=draft.room.by_template
        - Counter(a.template or "" for a in gone if capacity.takes_room(a)),
        idle=draft.idle_without(others),
    )


def _dead(agent: Agent) -> retention.Verdict | None:
    """Return what a busy agent died of, so that the controller can tell the build's owner.

    A pipeline's step waits minutes for an agent that ended; the offline cause is what it shows.
    """
    ended = agent.instance is not None and agent.instance.exit is not None
    is_over = ended or release.is_gone_for_good(agent)
    if not is_over or agent.computer is None or not agent.computer.offline:
        return None
    cause, text = agents_.why_lost(agent)
    return retention.Verdict(cause=cause, text=text)


def _not_needed(
    draft: drafts.Draft, agent: Agent, template: Template | None, tally: _Tally
) -> retention.Verdict | None:
    """Judge idleness and caps; ``min_idle`` keeps the youngest."""
    if template is None:
        return None
    excess = _excess(template, tally)
    if excess > 0:
        return retention.Verdict(
            cause=model.Cause.SURPLUS, text=f"{excess} more than the cap of {template.cap}"
        )
    if not agent.asked and tally.idle[template.name] <= template.min_idle:
        return None
    verdict = retention.unwanted(agent) or retention.idle_too_long(agent, template, now=draft.now)
    memory = agent.memory
    if verdict is None and memory is not None and memory.idle_at is not None:
        idle_s = template.retention.idle_s
        if idle_s is not None:
            draft.wake.append(memory.idle_at + idle_s)
    return verdict


def _closed(draft: drafts.Draft, agent: Agent) -> retention.Verdict | None:
    """Return a verdict for an agent that accepts no tasks: nobody can ever want it."""
    if not agent.closed:
        return None
    return retention.Verdict(
        cause=model.Cause.CLOSED, text=f"it {withheld.words(agent, now=draft.now)}"
    )


def _stop_starting(
    draft: drafts.Draft,
    agent: Agent,
    template: Template | None,
    nominated: set[NodeName],
    tally: _Tally,
) -> None:
    """Let an agent go that was never online, when there is nothing left to wait for."""
    if agent.memory is None or agent.memory.online_at is not None:
        return
    if agent.name in draft.misplaced:
        _retire_idle(draft, agent, draft.misplaced[agent.name])
        return
    dismissed = retention.dismissal(agent, draft.policy, now=draft.now)
    if dismissed is not None and dismissed.cause is model.Cause.ORDERED:
        _retire_idle(draft, agent, dismissed)
        return
    if withheld.is_outdated(agent, template):
        verdict = retention.spent(agent, template, now=draft.now)
        if verdict is not None:
            _retire_idle(draft, agent, verdict)
        return
    spare = template is not None and (
        bool(agent.asked) or tally.idle[template.name] >= template.min_idle
    )
    verdict = retention.unwanted(agent)
    if verdict is not None and spare and agent.name not in nominated:
        _retire_idle(draft, agent, verdict)


def _retire_idle(  # noqa: PLR0911 -- one objection, one return
    draft: drafts.Draft, agent: Agent, verdict: retention.Verdict
) -> bool:
    """Retire an agent that works on nothing if nothing speaks against it; otherwise say what."""
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
    refused = draft.refused.get(agent.name, frozenset())
    is_useless = agent.closed or agent.name in draft.misplaced
    is_useless = is_useless or withheld.is_outdated(agent, draft.template_of(agent))
    interests = draft.interests_in(agent)
    if is_useless:  # but to a pipeline that must go on with this very one
        interests = tuple(c for c in interests if c.wish.pinned == agent.name)
    wish = retention.protector(
        agent,
        (c for c in interests if c.wish.item.id not in refused or _is_fresh(draft, c.wish)),
        now=draft.now,
        settle_s=draft.policy.settle_s,
        over_age=verdict.cause is model.Cause.MAX_AGE,
    )
    if wish is not None:
        by_name = next((c.wish for c in interests if c.wish.pinned == agent.name), None)
        if by_name is not None:  # what must go on with this very one comes before all rules
            _refuse(draft, agent, verdict, f"item {by_name.item.id} must go on with it")
            return False
        if verdict.cause in retention.USED:
            _cordon(draft, agent, verdict)  # at once: another build is what must not come
            return True
        _refuse(draft, agent, verdict, f"item {wish.item.id} could want it")
        return False
    draft.actions.append(
        model.RetireAgent(
            name=agent.name,
            backend=agent.backend,
            reason=agents_.after_mishap(agent, verdict.text),
            cause=verdict.cause,
            refused=refused,
        )
    )
    return True


def _is_fresh(draft: drafts.Draft, wish: demand.Wish) -> bool:
    """Return whether an item came so late that whoever is free may still be given it."""
    return draft.now - drafts.since(wish) < draft.policy.settle_s


def _cordon_idle(draft: drafts.Draft, agent: Agent, verdict: retention.Verdict) -> None:
    """Take an idle agent out of service though items may want it; empty, it goes."""
    ledger = draft.world.ledger
    if draft.world.controller.quieting_down:
        _refuse(draft, agent, verdict, "the controller is about to shut down")
    elif sweeps.is_resting(agent, ledger, draft.policy, now=draft.now):
        _refuse(draft, agent, verdict, "a pipeline may still ask for it after the start")
        if ledger.session_at is not None:
            draft.wake.append(ledger.session_at + draft.policy.resume_grace_s)
    else:
        _cordon(draft, agent, verdict)


def _refuse(draft: drafts.Draft, agent: Agent, verdict: retention.Verdict, why: str) -> None:
    draft.refusals.append(
        model.Refusal(subject=agent.name, text=f"may go ({verdict.text}), stays because {why}")
    )


def _cordon(draft: drafts.Draft, agent: Agent, verdict: retention.Verdict) -> None:
    draft.actions.append(
        model.CordonAgent(
            name=agent.name,
            reason=agents_.after_mishap(agent, verdict.text),
            cause=verdict.cause,
            online=agent.computer is not None and not agent.computer.offline,
            idle=agent.phase is Phase.IDLE,
        )
    )


def sweep(draft: drafts.Draft) -> None:
    """Remove what is left of agents whose life is over."""
    result = sweeps.sweep(draft.world, draft.policy, draft.agents, draft.wishes, kept=draft.kept)
    draft.actions.extend(result.actions)
    draft.refusals.extend(result.refusals)
    draft.wake.extend(result.wake_at)
