"""The loop, turned by hand: what was seen goes in, a new state, orders and notes come out.

Every function here takes a ``State`` and gives the next one, at once and without a side effect.
The driver (``reconcile``), the model tests, the simulated days and the commands that look once
turn the same loop; they differ in who reads, who performs and where the time comes from. Notes
are values, which whoever drives may log and count. Refuses to know clocks, dice, tasks and logs:
``now`` and ``Dice`` come in.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeGuard, TypeVar

import attrs
from attrs import Factory, frozen

from backends import api as backends_api
from broker.core import model
from broker.core.decide import capacity, giving_up
from broker.core.decide import plan as plans
from broker.core.demand import pushed
from broker.core.fleet import accounts, builds, latency, single_use
from broker.core.fleet import hour as hours
from broker.core.fleet import ledger as ledgers
from broker.loop import health, last_words
from broker.loop import state as states
from broker.loop.health import SourceBack, SourceLost
from broker.loop.pace import Pace
from broker.loop.state import State

QUESTIONS = 10
"""Vanished items asked about in one turn, the others in the next ones."""
_MAX_DOUBLINGS = 6

V = TypeVar("V", model.ControllerView, model.BackendView)


@frozen(kw_only=True)
class Sightings:
    """The newest view of each source, and whether we may act upon them."""

    controller: model.ControllerView
    backends: Mapping[model.BackendName, model.BackendView] = Factory(dict)
    leads: bool = True  # we may act, and could all the time since the first of them began
    may_order: bool = True  # nobody else claims to be this broker, and it is not stopping
    hindrance: str = ""  # why it may not order, in words


@frozen(kw_only=True)
class Dice:
    """What was rolled for one turn."""

    jitter: float = 0.0  # 0 to 1
    ids: tuple[str, ...] = ()  # unused random suffixes for new names


# --- notes ---


@frozen(kw_only=True)
class Illegal:
    """A phase change that is not in the table of the life cycle."""

    old: model.Phase | None
    new: model.Phase


@frozen(kw_only=True)
class Implausible:
    """More is left over than may be removed without a person; noted once."""

    text: str


@frozen(kw_only=True)
class HeldBack:
    """What would have been ordered, had we been allowed to."""

    actions: tuple[model.Action, ...]


@frozen(kw_only=True)
class Cancelled:
    """An item that was gone before it was seen to start: nobody runs it."""

    item: model.ItemId


@frozen(kw_only=True)
class Waited:
    """Seconds that waiting items spent since the last look, by template and spell."""

    seconds: Mapping[tuple[model.TemplateName | None, model.Spell], float]


@frozen(kw_only=True)
class ExtraBuild:
    """A single-use agent was given another build after its first."""

    template: model.TemplateName


@frozen(kw_only=True)
class Harmed:
    """Something befell the instance of an agent that lives on; noted once for each agent."""

    name: model.NodeName
    template: model.TemplateName | None
    mishap: backends_api.Mishap


@frozen(kw_only=True)
class Elsewhere:
    """An item that was gone before it was seen to start: it runs on no agent of ours."""

    item: model.ItemId


Note = (
    SourceLost
    | SourceBack
    | Illegal
    | Implausible
    | HeldBack
    | latency.Started
    | builds.GoneBuild  # its result is to be asked for, and given to ``learn_result``
    | latency.Vanished  # its fate is to be asked for, and given to ``learn``
    | Cancelled
    | Elsewhere
    | ExtraBuild
    | Harmed
    | Waited
    | giving_up.GiveUp  # to be cancelled
)


class Turn(NamedTuple):
    """What follows from an event. Orders are begun in their order; notes are for people."""

    state: State
    orders: tuple[model.Action, ...]
    notes: tuple[Note, ...]


# --- the turn ---


def look(state: State) -> State:
    """A look begins: it counts as failed until ``take_in`` finds that it has gone well."""
    return attrs.evolve(state, failures=state.failures + 1)


def take_in(
    state: State, sightings: Sightings, policy: model.Policy, now: float, dice: Dice
) -> Turn:
    """Take in what the sources show and decide what is to be done about it."""
    state = _without_old_events(state, sightings.controller)
    world = world_of(state, sightings, now, dice)
    plan = plans.plan(world, policy, state.plan)
    world = attrs.evolve(world, ledger=plan.ledger)
    implausible = next((r.text for r in plan.refusals if r.implausible), "")
    notes: list[Note] = [*health.changes(state.world, world)]
    notes += [Illegal(old=old, new=new) for old, new in plan.illegal]
    if implausible and not state.implausible:
        notes.append(Implausible(text=implausible))
    wanted = tuple(action for action in plan.actions if action.name not in state.running)
    launches = {a.name for a in wanted if isinstance(a, model.LaunchAgent)}
    orders = wanted if sightings.leads and sightings.may_order else ()
    if wanted and not orders:
        notes.append(HeldBack(actions=wanted))
    known, questions, ledger = state.known, state.questions, plan.ledger
    ledger, moved = single_use.settled(ledger, policy)
    extra = (*single_use.extra_builds(state.ledger, ledger, policy), *moved)
    notes += [ExtraBuild(template=template) for template in extra]
    notes += _harmed(state.ledger, plan.agents)
    watched = state.seen_builds
    if sightings.leads:
        watched, fates, asked = builds.look(watched, world, plan.agents)
        notes += asked
        ledger = builds.noted(ledger, fates)
    if sightings.leads:
        compared = latency.look(known, world, plan)
        missed = single_use.unasked(plan, policy, world.controller)
        gone = {question.item for question in (*questions, *compared.vanished)}
        missed = tuple(question for question in missed if question.item not in gone)
        questions = (*questions, *compared.vanished, *missed)[-states.QUESTIONS_KEPT :]
        unknown = [start.agent for start in compared.started if start.item is None]
        ledger = single_use.unlinked(ledger, unknown)
        ledger = single_use.asked(ledger, (question.item for question in questions))
        notes += [*compared.started, *questions[:QUESTIONS]]
        known, questions = compared.known, questions[QUESTIONS:]
    if launches and not orders:
        plan = attrs.evolve(plan, unmet=_held_back(plan.unmet, launches, sightings))
    starts = [note for note in notes if isinstance(note, latency.Started)]
    waits, waited = accounts.look(state.waits, world, plan, state.last_read, starts)
    notes += [Waited(seconds=waited)] * (sightings.leads and bool(waited))
    hour = hours.noted(state.hour, world.controller, plan, now=now)
    took = [(note.template, note.waited_s) for note in starts if note.item is not None]
    waits, doomed, cancels = _give_up(state, sightings, world, plan, policy, waits)
    notes += cancels
    plan = giving_up.said(plan, doomed, policy)
    after = attrs.evolve(
        state,
        ledger=ledger,
        hour=hours.started(hour, took, now=now),
        world=world,
        plan=plan,
        last_read=(world, plan) if world.controller.synced else state.last_read,
        known=known,
        questions=questions,
        waits=waits,
        doomed=doomed,
        seen_builds=watched,
        unread_since=health.since(state.unread_since, world),
        as_of=health.as_of(state.as_of, world),
        implausible=implausible,
        leads=sightings.leads,
        failures=0 if world.controller.synced else state.failures,
    )
    return Turn(state=after, orders=orders, notes=tuple(notes))


def gave_up(state: State, item: model.ItemId) -> State:
    """Take in that the controller has cancelled an item for us."""
    sight = state.doomed.get(item)
    doomed = state.doomed
    if sight is not None:
        doomed = {**doomed, item: attrs.evolve(sight, cancelled=True)}
    waits = accounts.learnt(state.waits, item, model.WaitEnd.GIVEN_UP)  # it may be gone by now
    return attrs.evolve(state, doomed=doomed, waits=waits)


def _give_up(
    state: State,
    sightings: Sightings,
    world: model.World,
    plan: model.Plan,
    policy: model.Policy,
    book: model.WaitBook,
) -> tuple[model.WaitBook, giving_up.Doomed, tuple[giving_up.GiveUp, ...]]:
    """Say of those that are gone after we cancelled them that we did, and who is next."""
    for key, sight in state.doomed.items():
        if sight.cancelled and key not in book.open:
            book = accounts.learnt(book, key, model.WaitEnd.GIVEN_UP)
    if not sightings.leads or not sightings.may_order:
        return book, {}, ()
    return book, *giving_up.look(state.doomed, world, plan, policy, book)


def _without_old_events(state: State, view: model.ControllerView) -> State:
    """Forget what the push hook told and a read has shown by now."""
    if not state.pushed and not state.ledger.hooks:
        return state
    events = pushed.still(state.pushed, view)
    labels = pushed.labels_kept(state.ledger.hooks, view, events)
    ledger = attrs.evolve(state.ledger, hooks=labels)
    return attrs.evolve(state, pushed=events, ledger=ledger)


def _harmed(before: model.Ledger, agents: Iterable[model.Agent]) -> Iterator[Harmed]:
    """Return to whom a mishap has come since the last look."""
    for agent in agents:
        mishap = agent.memory.mishap if agent.memory is not None else None
        if mishap is not None:
            old = before.memories.get(agent.name)
            if old is None or old.mishap is None:
                yield Harmed(name=agent.name, template=agent.template, mishap=mishap)


def _held_back(
    unmet: Iterable[model.Unmet], launches: Container[str | None], sightings: Sightings
) -> tuple[model.Unmet, ...]:
    """Say of items whose agents are not ordered for now why they are not."""
    if sightings.leads:
        words = sightings.hindrance or "this broker may not order just now"
        reason, text = model.WaitReason.NOT_ACTING, f"nothing is ordered: {words}"
    else:
        words = sightings.hindrance or "another broker of this owner leads, and orders"
        reason, text = model.WaitReason.STANDBY, words
    return tuple(
        attrs.evolve(one, reason=reason, text=text, agent=None) if one.agent in launches else one
        for one in unmet
    )


def world_of(state: State, sightings: Sightings, now: float, dice: Dice) -> model.World:
    """Return all that a plan is made of: what is seen, and what was remembered before."""
    last = state.world
    backends = last.backends if last is not None else {}
    view = _later(last.controller if last is not None else None, sightings.controller)
    return model.World(
        now=now,
        controller=pushed.laid_over(view, state.pushed),
        backends={
            name: _later(backends.get(name), view) for name, view in sightings.backends.items()
        },
        ledger=state.ledger,
        fresh_ids=dice.ids,
        jitter=dice.jitter,
    )


def _later(last: V | None, view: V) -> V:
    """Return the newest view: what was read before the last one says nothing any more."""
    is_old = last is not None and view.synced and view.read_at < last.read_at
    return last if is_old and last is not None else view


def begin(state: State, orders: Sequence[model.Action], now: float, policy: model.Policy) -> State:
    """Write down orders before they are carried out: one at a time for each agent."""
    return attrs.evolve(
        state,
        ledger=ledgers.expect(state.ledger, *orders, now=now, policy=policy),
        running={**state.running, **{order.name: order for order in orders}},
    )


def settle(state: State, outcome: ledgers.Outcome, policy: model.Policy, dice: Dice) -> State:
    """Take in how an order ended."""
    action = outcome.action
    if outcome.failure is model.Failure.NO_CAPACITY and isinstance(action, model.LaunchAgent):
        outcome = attrs.evolve(outcome, held=held_by(state, action.backend))
    revision = ""
    if isinstance(action, model.LaunchAgent):
        template = policy.template(action.template)
        revision = template.revision if template is not None else ""
    done = outcome.failure is None and not outcome.withdrawn
    return attrs.evolve(
        abandon(state, action.name),
        ledger=ledgers.settle(
            state.ledger, outcome, policy=policy, jitter=dice.jitter, revision=revision
        ),
        outcomes=(*state.outcomes, outcome)[-states.OUTCOMES_KEPT :],
        launches=state.launches + (isinstance(action, model.LaunchAgent) and done),
        ends=state.ends + (is_end(action) and done),
    )


def held_by(state: State, backend: model.BackendName) -> int:
    """Return how many instances a backend holds: those that it showed, and that it took since."""
    agents = state.plan.agents if state.plan is not None else ()
    shown = {
        agent.name
        for agent in agents
        if agent.backend == backend and agent.instance is not None and capacity.takes_room(agent)
    }
    taken = {
        name
        for name, flight in state.ledger.expectations.items()
        if flight.verb is model.Verb.LAUNCH
        and flight.backend == backend
        and flight.done_at is not None
    }
    return len(shown | taken)


def hold(
    state: State,
    name: model.NodeName,
    backend: model.BackendName,
    *,
    template: model.TemplateName,
    now: float,
    until: float,
) -> State:
    """Write down that an agent is made and removed beside the loop: nothing is decided about it.

    It takes room as every other. When ``until`` is over it is judged by what is seen of it.
    """
    expected = model.Expectation(
        verb=model.Verb.LAUNCH,
        name=name,
        template=template,
        backend=backend,
        since_at=now,
        expires_at=until,
        reason="a person has it tried",
    )
    return _expecting(state, expected)


def let_go(state: State, name: model.NodeName, *, now: float) -> State:
    """Expect that an agent which was held is gone; if it is not, it is swept as others are."""
    held = state.ledger.expectations.get(name)
    if held is None:
        return state
    gone = attrs.evolve(
        held, verb=model.Verb.SWEEP, done_at=now, expires_at=now + ledgers.VISIBLE_S
    )
    return _expecting(state, gone)


def _expecting(state: State, expected: model.Expectation) -> State:
    expectations = {**state.ledger.expectations, expected.name: expected}
    return attrs.evolve(state, ledger=attrs.evolve(state.ledger, expectations=expectations))


def abandon(state: State, name: model.NodeName) -> State:
    """Forget an order that is left where it is, as if by a kill: how it ended nobody knows."""
    running = {other: action for other, action in state.running.items() if other != name}
    return attrs.evolve(state, running=running)


def bury(state: State, action: model.Removal, lines: Sequence[str], now: float) -> State:
    """Keep the last words of an agent that is about to be removed."""
    agent = agent_of(state, action.name)
    dead = last_words.death_of(action, agent, lines, at=now)
    # of an end that was put off, or did not come about, nothing is kept
    earlier = [d for d in state.deaths if d.name != action.name]
    state = attrs.evolve(state, deaths=(*earlier, dead)[-states.DEATHS_KEPT :])
    if agent is None or agent.backend is None or agent.template is None:
        return state
    if not dead.cause.accident or dead.text == action.reason:
        return state
    # what holds its successors back is said with its reason as well
    scope = action.cause.scope or model.Scope.TEMPLATE
    key = ledgers.key_of(scope, agent.backend, agent.template)
    ledger = ledgers.reworded(state.ledger, key, action.reason, dead.text)
    return attrs.evolve(state, ledger=ledger)


def at_risk(state: State, policy: model.Policy, now: float) -> frozenset[model.NodeName]:
    """Return which single-use agents are to be glanced at before the next look."""
    if state.plan is None or not state.leads or not _is_known(state):
        return frozenset()
    names = single_use.at_risk(state.plan, policy, now=now)
    memories = state.ledger.memories
    return frozenset(n for n in names if n in memories and memories[n].builds == 0)


def _is_known(state: State) -> bool:
    return state.world is not None and state.world.controller.synced


def glance(
    state: State, at_work: Iterable[model.NodeName], policy: model.Policy, now: float
) -> Turn:
    """Take in which single-use agents have begun to work since the last look: it is their last.

    Whoever has an order under way is dealt with at the next look.
    """
    return _used(state, at_risk(state, policy, now) & set(at_work), now)


def _used(state: State, names: Iterable[model.NodeName], now: float) -> Turn:
    """Note that single-use agents have their build, and take them out of service."""
    ledger, used = single_use.used(state.ledger, names, now=now)
    orders = tuple(
        model.CordonAgent(
            name=name,
            reason="single use: it has its build",
            cause=model.Cause.ONCE,
            idle=True,  # before it is taken out of service the build may have ended
        )
        for name in used
        if name not in state.running
    )
    return Turn(state=attrs.evolve(state, ledger=ledger), orders=orders, notes=())


def push(
    state: State,
    events: Iterable[model.QueueEvent],
    sightings: Sightings,
    policy: model.Policy,
    now: float,
    dice: Dice,
) -> Turn:
    """Take in what the push hook told, and decide at once whom to launch for it.

    ``sightings`` are the newest views that there are: nothing is read. All else waits for the
    look that follows, and so does an item whose label has a free executor: it is being served.
    """
    events = tuple(events)
    ledger = attrs.evolve(state.ledger, hooks=pushed.labels(state.ledger.hooks, events))
    state = attrs.evolve(state, pushed=pushed.told(state.pushed, events), ledger=ledger)
    acts = sightings.leads and sightings.may_order
    if not acts or not _is_known(state) or not sightings.controller.synced:
        return Turn(state=state, orders=(), notes=())
    taken = _used(state, single_use.given(state.ledger, events, policy), now)
    state, cordons = taken.state, taken.orders
    lacking = {key: event for key, event in state.pushed.items() if event.idle in {0, None}}
    world = world_of(attrs.evolve(state, pushed=lacking), sightings, now, dice)
    plan = plans.plan(world, policy, state.plan)
    launches = tuple(
        action
        for action in plan.actions
        if isinstance(action, model.LaunchAgent) and action.name not in state.running
    )
    state = attrs.evolve(state, ledger=plan.ledger)
    return Turn(state=state, orders=(*cordons, *launches), notes=())


def learn(
    state: State,
    vanished: latency.Vanished,
    policy: model.Policy,
    *,
    cancelled: bool,
    executable_url: str | None,
    built_on: str = "",
) -> Turn:
    """Take in what became of an item that was gone before it was seen to start."""
    if executable_url is None:
        if cancelled:
            ledger = ledgers.cancelled(state.ledger, vanished.item)
            state = attrs.evolve(state, ledger=ledger)
            state = _ended(state, vanished.item, model.WaitEnd.CANCELLED)
        return Turn(state=state, orders=(), notes=(Cancelled(item=vanished.item),))
    agents = state.plan.agents if state.plan is not None else ()
    start = latency.claim(vanished, executable_url=executable_url, agents=agents)
    if start is not None:
        ledger = single_use.linked(state.ledger, start.agent)
        state = _ended(state, vanished.item, model.WaitEnd.STARTED, start.agent)
        state = _timed(state, start, vanished.gone_at)
        return Turn(state=attrs.evolve(state, ledger=ledger), orders=(), notes=(start,))
    if not built_on and _may_begin_yet(state, vanished, policy):
        return Turn(
            state=attrs.evolve(state, questions=(*state.questions, vanished)), orders=(), notes=()
        )
    ledger, name, is_extra = single_use.attribute(
        state.ledger,
        agents,
        policy,
        vanished,
        executable_url=executable_url,
        built_on=built_on,
    )
    extra = [*single_use.extra_builds(state.ledger, ledger, policy)]
    extra += [vanished.template] * is_extra
    agent = agent_of(state, name) if name is not None else None
    start = latency.started(vanished, agent) if agent is not None else None
    if agent is not None:
        watched = builds.missed(state.seen_builds, agent, executable_url, now=vanished.gone_at)
        state = attrs.evolve(state, seen_builds=watched)
    end = model.WaitEnd.STARTED if start is not None else model.WaitEnd.ELSEWHERE
    state = _ended(state, vanished.item, end, name)
    if start is not None:
        state = _timed(state, start, vanished.gone_at)
    note = start if start is not None else Elsewhere(item=vanished.item)
    notes = (note, *(ExtraBuild(template=template) for template in extra))
    return Turn(state=attrs.evolve(state, ledger=ledger), orders=(), notes=notes)


def _ended(
    state: State, item: model.ItemId, end: model.WaitEnd, agent: model.NodeName | None = None
) -> State:
    return attrs.evolve(state, waits=accounts.learnt(state.waits, item, end, agent))


def _timed(state: State, start: latency.Started, now: float) -> State:
    """Keep for people how long an item waited."""
    return attrs.evolve(
        state, hour=hours.started(state.hour, [(start.template, start.waited_s)], now=now)
    )


def _may_begin_yet(state: State, vanished: latency.Vanished, policy: model.Policy) -> bool:
    """Return whether a build that is not told a node may show at the next look: ask again then.

    An item leaves the queue a moment before its build shows; it would be counted twice.
    """
    template = policy.template(vanished.template)
    is_once = template is not None and template.retention.once
    return is_once and state.world is not None and state.world.now == vanished.looked_at


def learn_result(
    state: State, ended: builds.GoneBuild, *, result: str, duration_s: float
) -> State:
    """Take in what came of a build that was gone soon."""
    fate = builds.learn(ended, result=result, duration_s=duration_s)
    if fate is None:
        return state
    return attrs.evolve(state, ledger=builds.noted(state.ledger, (fate,)))


def change_term(state: State) -> State:
    """Begin, or cease, to act in another's place: of what was remembered only facts stay."""
    return attrs.evolve(
        state, term=state.term + 1, ledger=ledgers.resumed(state.ledger), known=None
    )


def next_look(state: State, pace: Pace, now: float) -> float:
    """Return the seconds until the next look; who may not act is in no hurry."""
    pause = pace.idle_s
    plan = state.plan
    if state.failures:
        grown = pace.busy_s * 2.0 ** min(state.failures - 1, _MAX_DOUBLINGS)
        pause = min(grown, pace.failing_s)
    elif state.leads and (plan is None or plan.active):
        pause = pace.busy_s
    if plan is not None and plan.wake_at is not None and state.leads:
        pause = min(pause, max(plan.wake_at - now, 0.0))
    return pause


def is_end(action: model.Action) -> TypeGuard[model.Removal]:
    """Return whether an agent ends with an action; of one that was kept the end was told."""
    told = isinstance(action, model.SweepInstance) and action.told
    return isinstance(action, model.Removal) and not told


def end_of(state: State, action: model.Removal) -> tuple[model.TemplateName | None, model.Cause]:
    """Return the template and the cause of an end that a removal has brought about."""
    memory = state.ledger.memories.get(action.name)
    cause = next((d.cause for d in state.deaths if d.name == action.name), action.cause)
    return (
        memory.template if memory is not None else None,
        cause if action.cause.accident else action.cause,
    )


def is_unused(state: State, action: model.Removal) -> bool:
    """Return whether an agent goes without a build that was ordered for an item."""
    memory = state.ledger.memories.get(action.name)
    if memory is None or memory.item is None or memory.builds or memory.unseen:
        return False
    return not end_of(state, action)[1].accident


def agent_of(state: State, name: model.NodeName) -> model.Agent | None:
    """Return an agent as it was at the last look."""
    agents = state.plan.agents if state.plan is not None else ()
    return next((agent for agent in agents if agent.name == name), None)
