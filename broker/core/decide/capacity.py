"""Room: caps, launch budget, back-off gates, and whose turn it is when room is short.

Rules: everything is recounted from the agents of this cycle, nothing is incremented across
cycles; every "no" is a reason; a gate of one backend sends the launch to the template's next
backend. Fairness: the template that holds the fewest agents goes first, then the item that waits
longest. This module refuses to know labels and retention.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from attrs import Factory, define, frozen

from broker.core import model
from broker.core.fleet import agents as agents_
from broker.core.fleet import keeping, places, standing, withheld
from broker.core.fleet import ledger as ledgers
from broker.core.model import Agent, BackendName, Phase, Scope, Template, WaitReason
from outside import counts

STARTING = frozenset({Phase.LAUNCHING, Phase.CONNECTING, Phase.CHECKING})
"""Phases that count against the caps on starting agents (the last two only until online)."""

_PLAIN: frozenset[str] = frozenset()
"""What an agent is asked for that is no variant."""
_FIRST_TRIED = 2
"""Agents that a new definition starts at first."""
_UNTRIED = 4
"""Agents of variants that brought none online yet, which start at a time."""

_ROW = 2
"""Starts that failed one after the other, each by itself: no accident any more."""

_CONTROLLER = ledgers.key_of(Scope.CONTROLLER, BackendName(""), None)

SHARED = frozenset({WaitReason.CAP_BACKEND, WaitReason.CAP_TOTAL})
"""Refusals that another template's agents cause: somebody may be asked to make room."""

_SOON = frozenset({WaitReason.BUDGET, WaitReason.TRIAL, WaitReason.CAP_STARTING})
_NOT_AT_ALL = frozenset({WaitReason.SET_ASIDE, WaitReason.PAUSED, WaitReason.DRAINING})


@frozen(kw_only=True)
class Shortage:
    """Why there is no agent now; ``until_at`` if time alone helps."""

    reason: WaitReason
    text: str
    until_at: float | None = None
    capped: frozenset[BackendName] = frozenset()  # where only a shared cap is in the way


@define(kw_only=True)
class Room:
    """The recount of one cycle; ``take`` is the only change, for launches of this very plan."""

    policy: model.Policy
    views: Mapping[BackendName, model.BackendView]
    ledger: model.Ledger
    now: float
    by_template: Counter[str] = Factory(Counter)
    by_variant: Counter[tuple[str, frozenset[str]]] = Factory(Counter)
    by_backend: Counter[str] = Factory(Counter)
    starting_by_backend: Counter[str] = Factory(Counter)
    starting_by_pair: Counter[tuple[str, str, frozenset[str]]] = Factory(Counter)
    taken_by_backend: Counter[str] = Factory(Counter)
    asked: Counter[model.BackoffKey] = Factory(Counter)  # ordered, and not answered yet
    unseen_by_backend: Counter[str] = Factory(Counter)  # ordered, and not in the view yet
    ordered_by_template: Counter[str] = Factory(Counter)  # by this plan, or unseen
    holders: list[Agent] = Factory(list)
    held: Counter[str] = Factory(Counter)  # of these, by template: without those of this plan
    passed_over: dict[model.NodeName, str] = Factory(dict)  # who is given nothing, in words
    going: list[Agent] = Factory(list)  # of those that take room ...
    kept: list[Agent] = Factory(list)  # ... and those that are gone, and kept for a look
    _said: dict[object, str] = Factory(dict)  # what was worded already: many are refused alike

    def words_of_going(
        self, *, template: model.TemplateName | None = None, backend: BackendName | None = None
    ) -> str:
        """Return who of those that fill a cap is on the way out, and what holds them up."""
        key = ("going", template, backend)
        if key not in self._said:
            going = [
                agent
                for agent in self.going
                if template in {None, agent.template} and backend in {None, agent.backend}
            ]
            text = ""
            if going:
                oldest = min(going, key=lambda agent: agents_.leaving_at(agent) or self.now)
                text = f", {len(going)} of them {agents_.leaving_words(oldest, now=self.now)}"
            kept = sum(backend in {None, agent.backend} for agent in self.kept)
            if kept and template is None:
                text += f", {kept} of them kept for a look"
            self._said[key] = text
        return self._said[key]

    def has_untried(self, template: Template, backend: BackendName) -> bool:
        """Return whether somebody is online, and given nothing yet."""
        since = self.now - self.policy.backoff_max_s
        return any(
            agent.template == template.name
            and agent.backend == backend
            and _is_untried(agent, since)
            for agent in self.holders
        )

    @property
    def total(self) -> int:
        """All agents, with those of this plan."""
        return sum(self.by_backend.values())

    def idlers(self, *, template: str | None = None, backend: str | None = None) -> str:
        """Say which holders of this room serve nobody, and why."""
        key = ("idle", template, backend, len(self.passed_over))
        if key not in self._said:
            chosen = (
                a
                for a in self.holders
                if template in {None, a.template} and backend in {None, a.backend}
            )
            self._said[key] = withheld.summary(chosen, now=self.now, more=self.passed_over)
        return self._said[key]

    def words_of_avoided(self, backend: BackendName) -> str:
        """Return which places of a backend are left alone, and why."""
        key = ("avoided", backend)
        if key not in self._said:
            text = places.words(self.ledger, backend, now=self.now)
            self._said[key] = f"; {text}" if text else ""
        return self._said[key]

    def take(
        self, template: Template, backend: BackendName, asked: frozenset[str] = _PLAIN
    ) -> None:
        """Count a launch of this plan."""
        self.by_template[template.name] += 1
        self.by_variant[template.name, asked] += 1
        self.by_backend[backend] += 1
        self.starting_by_backend[backend] += 1
        self.starting_by_pair[template.name, backend, asked] += 1
        self.taken_by_backend[backend] += 1
        self.ask(backend, template.name, asked=asked)
        self.ordered_by_template[template.name] += 1

    def give_back(
        self, template: Template, backend: BackendName, asked: frozenset[str] = _PLAIN
    ) -> None:
        """Count a launch of this plan no longer."""
        self.by_template[template.name] -= 1
        self.by_variant[template.name, asked] -= 1
        self.by_backend[backend] -= 1
        self.starting_by_backend[backend] -= 1
        self.starting_by_pair[template.name, backend, asked] -= 1
        self.taken_by_backend[backend] -= 1
        self.ask(backend, template.name, -1, asked=asked)
        self.ordered_by_template[template.name] -= 1

    def ask(
        self,
        backend: BackendName,
        template: model.TemplateName | None,
        number: int = 1,
        *,
        asked: frozenset[str] = _PLAIN,
    ) -> None:
        """Count starts that the backend has not answered."""
        self.asked[_CONTROLLER] += number
        self.asked[ledgers.key_of(Scope.BACKEND, backend, None)] += number
        self.asked[ledgers.key_of(Scope.TEMPLATE, backend, template, asked=asked)] += number


def count(world: model.World, policy: model.Policy, agents: Iterable[Agent]) -> Room:
    """Recount who takes room: every agent that is not gone, with what is in flight (I1)."""
    gone, going = Phase.GONE, agents_.GOING
    holders = [a for a in agents if a.phase is not gone or takes_room(a)]
    kept = keeping.kept(holders, policy, now=world.now)
    # what is kept for a look is on its backend; nothing of its kind waits for its going
    living = [a for a in holders if a.phase is not gone or a.name not in kept]
    by_template = Counter([agent.template or "" for agent in living])
    room = Room(
        policy=policy,
        views=world.backends,
        ledger=world.ledger,
        now=world.now,
        holders=holders,
        going=[agent for agent in living if agent.phase in going],
        kept=[agent for agent in holders if agent.phase is gone and agent.name in kept],
        held=by_template,
        by_template=Counter(by_template),
        by_variant=Counter([(agent.template or "", agent.asked) for agent in living]),
        by_backend=Counter([agent.backend or "" for agent in holders]),
    )
    for agent in holders:
        if agent.phase not in STARTING:
            continue
        if agent.phase is Phase.LAUNCHING and agent.instance is None:
            room.unseen_by_backend[agent.backend or ""] += 1
        flight = agent.expectation
        if flight is not None and flight.verb is model.Verb.LAUNCH and flight.done_at is None:
            room.ask(agent.backend or BackendName(""), agent.template, asked=agent.asked)
            room.ordered_by_template[agent.template or ""] += 1
        if _is_new(agent, policy):
            room.starting_by_backend[agent.backend or ""] += 1
            pair = agent.template or "", agent.backend or "", agent.asked
            room.starting_by_pair[pair] += 1
    return room


def _is_new(agent: Agent, policy: model.Policy) -> bool:
    """Return whether an agent was never online, and is waited for."""
    is_new = agent.memory is None or agent.memory.online_at is None
    return is_new and not withheld.is_outdated(agent, policy.by_name.get(agent.template))


def _is_untried(agent: Agent, since: float) -> bool:
    """Return whether it may yet show, as others did not, that it is given work."""
    memory = agent.memory
    if agent.phase is not Phase.IDLE or agent.closed or memory is None:
        return False
    return memory.builds == 0 and memory.online_at is not None and memory.online_at > since


def takes_room(agent: Agent) -> bool:
    """Return whether an agent counts against the caps.

    Not one whose node is deleted and of which the platform keeps no more than the record: what
    holds that up may take days, and it takes nothing from anybody.
    """
    if agent.phase is not Phase.GONE:
        return True
    if agent.instance is None:
        return agent.expectation is not None
    return not agent.instance.spent


def _ordered(ordered: int, held: int) -> str:
    """Say how many of those that fill a cap are ordered, and not there yet."""
    if ordered == 0:
        return ""
    return ", so far only ordered" if ordered >= held else f", {ordered} of them only ordered"


def nearest(shortage: Shortage) -> int:
    """Return what sorts several shortages: first what is told of an item, for it ends first."""
    if shortage.reason in _SOON:
        return 0
    if shortage.reason in SHARED:
        return 1
    return 3 if shortage.reason in _NOT_AT_ALL else 2


def place(
    room: Room, template: Template, asked: frozenset[str] = _PLAIN
) -> BackendName | Shortage:
    """Choose the first backend of a template that has room, or say why none has.

    One that has failed is tried with one agent; as long as it starts, others go elsewhere.
    ``asked`` makes a variant, which has failures of its own.
    """
    blocked = _template_gate(room, template)
    if blocked is not None:
        return blocked
    refusals: list[tuple[BackendName, Shortage]] = []
    for backend in template.backends:
        refused = _backend_gate(room, template, backend, asked)
        if refused is None:
            waits = room.starting_by_pair[template.name, backend, asked] > 0 and tried(
                room, template, backend, asked
            )
            return (elsewhere(room, template, backend, asked) if waits else None) or backend
        refusals.append((backend, refused))
    if not refusals:
        return Shortage(
            reason=WaitReason.SET_ASIDE, text=f"template {template.name} has no backend"
        )
    refusals.sort(key=lambda refusal: nearest(refusal[1]))
    untils = [r.until_at for _, r in refusals if r.until_at is not None]
    return Shortage(
        reason=refusals[0][1].reason,
        text="; ".join(
            f"{backend}: {refused.text}{room.words_of_avoided(backend)}"
            for backend, refused in refusals
        ),
        until_at=min(untils) if untils else None,
        capped=frozenset(b for b, r in refusals if r.reason is WaitReason.CAP_BACKEND),
    )


def tried(
    room: Room,
    template: Template,
    backend: BackendName,
    asked: frozenset[str] = _PLAIN,
    *,
    since: float | None = None,
) -> str:
    """Return of which failure a start shows whether it is over; empty: of none.

    ``since``: when it began; who was on the way when others failed is no try. None: it would begin
    now.
    """
    for key, least in (
        (ledgers.key_of(Scope.BACKEND, backend, None), 1),
        (ledgers.key_of(Scope.TEMPLATE, backend, template.name, asked=asked), 1),
        (ledgers.key_of(Scope.LAUNCH, backend, template.name, asked=asked), _ROW),
    ):
        backoff = room.ledger.backoffs.get(key)
        if backoff is None or backoff.failures < least:
            continue
        if backoff.revision and backoff.revision != template.revision:
            continue
        if since is None or since > backoff.at:
            return backoff.reason
    return ""


def elsewhere(
    room: Room, template: Template, backend: BackendName, asked: frozenset[str] = _PLAIN
) -> BackendName | None:
    """Return another backend of a template that has room and has not failed, if there is one."""
    if len(template.backends) == 1 or _template_gate(room, template) is not None:
        return None
    for other in template.backends:
        if other == backend or tried(room, template, other, asked):
            continue
        if _backend_gate(room, template, other, asked) is None:
            return other
    return None


def _template_gate(room: Room, template: Template) -> Shortage | None:
    policy = room.policy
    stopped = _stop_gate(room, template)
    if stopped is not None:
        return stopped
    held = room.by_template[template.name]
    if template.cap is not None and held >= template.cap:
        return Shortage(
            reason=WaitReason.CAP_TEMPLATE,
            text=f"template {template.name} has {held} of {counts.told(template.cap, 'agent')}"
            + _ordered(room.ordered_by_template[template.name], held)
            + room.words_of_going(template=template.name)
            + room.idlers(template=template.name),
        )
    if policy.cap is not None and room.total >= policy.cap:
        return Shortage(
            reason=WaitReason.CAP_TOTAL,
            text=f"{room.total} of {counts.told(policy.cap, 'agent')} in all"
            f"{_ordered(room.ordered_by_template.total(), room.total)}"
            f"{room.words_of_going()}{room.idlers()}",
        )
    starting = sum(room.starting_by_backend.values())
    if policy.max_starting is not None and starting >= policy.max_starting:
        return Shortage(
            reason=WaitReason.CAP_STARTING,
            text=f"{starting} of {counts.told(policy.max_starting, 'agent is', 'agents are')} "
            f"starting{_ordered(room.ordered_by_template.total(), starting)}",
        )
    return _backoff_gate(
        room, _CONTROLLER, "the controller refuses new nodes", ""
    ) or _window_gate(room, _CONTROLLER)


def _stop_gate(room: Room, template: Template) -> Shortage | None:
    """Say that nothing is to be started of a template, whatever room there is."""
    if room.policy.draining:
        return Shortage(reason=WaitReason.DRAINING, text="the broker is draining")
    if template.paused:
        return Shortage(reason=WaitReason.PAUSED, text=f"template {template.name} is paused")
    order = standing.stopping(room.policy.standing, template=template.name, now=room.now)
    return _ordered_not_to(order, now=room.now) if order is not None else None


def _ordered_not_to(order: model.StandingOrder, *, now: float) -> Shortage:
    is_drain = order.kind is model.StandingKind.DRAIN
    return Shortage(
        reason=WaitReason.DRAINING if is_drain else WaitReason.PAUSED,
        text=standing.words(order, now=now),
        until_at=order.until_at,
    )


def _backend_gate(
    room: Room, template: Template, backend: BackendName, asked: frozenset[str]
) -> Shortage | None:
    ordered = standing.stopping(room.policy.standing, backend=backend, now=room.now)
    if ordered is not None:
        return _ordered_not_to(ordered, now=room.now)
    view = room.views.get(backend)
    if view is None or not view.synced:
        words = f" ({view.error})" if view is not None and view.error else ""
        return Shortage(reason=WaitReason.NOT_SYNCED, text=f"its state is unknown{words}")
    whole = ledgers.key_of(Scope.BACKEND, backend, None)
    pair = ledgers.key_of(Scope.TEMPLATE, backend, template.name, asked=asked)
    launch = ledgers.key_of(Scope.LAUNCH, backend, template.name, asked=asked)
    name, revision = " ".join([template.name, *sorted(asked)]), template.revision
    return (
        _backoff_gate(room, whole, "backing off", "")
        or _backoff_gate(room, pair, f"template {name} is set aside", revision)
        or _backoff_gate(room, launch, f"starts of template {name} pause", revision)
        or _first_gate(room, whole)
        or _row_gate(room, template, pair)
        or _probe_gate(room, template, pair)
        or _trial_gate(room, template, pair)
        or _untried_gate(room, template, pair)
        or _window_gate(room, pair)
        or _window_gate(room, whole)
        or _cap_gate(room, backend, view)
        or _budget_gate(room, backend)
    )


def _backoff_gate(room: Room, key: model.BackoffKey, what: str, revision: str) -> Shortage | None:
    backoff = room.ledger.backoffs.get(key)
    if backoff is None or room.now >= backoff.until_at:
        return None
    if revision and backoff.revision and backoff.revision != revision:
        return None  # the definition changed since: try it at once
    if backoff.cause is model.Failure.NO_CAPACITY:
        if backoff.held is not None and room.by_backend[key.backend] < backoff.held:
            return None  # one of ours has gone since: there may be room for as many again
        if _shows_room(room, key.backend, since=backoff.at):
            return None
        left = backoff.until_at - room.now
        whom = f" for template {key.template}" if key.template is not None else ""
        return Shortage(
            reason=WaitReason.NO_ROOM,
            text=f"the platform has no room{whom}, asked again in {left:.0f} s: {backoff.reason}",
            until_at=backoff.until_at,
        )
    reason = WaitReason.BACKOFF
    if key.scope is Scope.TEMPLATE:
        reason = WaitReason.SET_ASIDE
    left = backoff.until_at - room.now
    failures = f" after {counts.told(backoff.failures, 'failure')}" if backoff.failures > 1 else ""
    return Shortage(
        reason=reason,
        text=f"{what}{failures}, tried again in {left:.0f} s: {backoff.reason}",
        until_at=backoff.until_at,
    )


def _shows_room(room: Room, backend: BackendName, *, since: float) -> bool:
    """Return whether the platform itself has shown room after it had refused some."""
    view = room.views.get(backend)
    room_at = view.capacity.room_at if view is not None and view.capacity is not None else None
    return room_at is not None and room_at > since


def _first_gate(room: Room, whole: model.BackoffKey) -> Shortage | None:
    """After a failure of a whole backend ask it for one agent, and for others when it answers."""
    backoff = room.ledger.backoffs.get(whole)
    if backoff is None or backoff.failures == 0 or room.asked[whole] == 0:
        return None
    return Shortage(
        reason=WaitReason.BACKOFF,
        text=f"one agent is asked for first after a failure: {backoff.reason}",
    )


def _row_gate(room: Room, template: Template, pair: model.BackoffKey) -> Shortage | None:
    """After several starts in a row that failed, each by itself, ask for one until one works."""
    key = ledgers.key_of(Scope.LAUNCH, pair.backend, template.name, asked=pair.asked)
    backoff = room.ledger.backoffs.get(key)
    if backoff is None or backoff.failures < _ROW:
        return None
    if backoff.revision and backoff.revision != template.revision:
        return None
    if room.asked[pair] == 0:
        return None
    return Shortage(
        reason=WaitReason.BACKOFF,
        text=f"{counts.told(backoff.failures, 'start')} of template {template.name} failed in a "
        f"row, and one is tried first: {backoff.reason}",
    )


def _probe_gate(room: Room, template: Template, pair: model.BackoffKey) -> Shortage | None:
    """After a failure one agent goes first; the others follow when it is online.

    Where the failure was that agents were online and closed, they follow when it is at work, and
    one by one after ``backoff_max_s``, for there may be no work.
    """
    backoff = room.ledger.backoffs.get(pair)
    if backoff is None or backoff.failures == 0 or backoff.cause is model.Failure.NO_CAPACITY:
        return None
    if backoff.revision and backoff.revision != template.revision:
        return None
    untried = backoff.cause is model.Cause.CLOSED and room.has_untried(template, pair.backend)
    if room.starting_by_pair[template.name, pair.backend, pair.asked] == 0 and not untried:
        return None
    return Shortage(
        reason=WaitReason.SET_ASIDE,
        text=f"one agent of {template.name} is tried first after a failure: {backoff.reason}",
    )


def _trial_gate(room: Room, template: Template, pair: model.BackoffKey) -> Shortage | None:
    """Start few agents of a definition that has brought few online: twice as many with each."""
    online = _online(room, template, pair)
    if online >= ledgers.ENOUGH_ONLINE:
        return None
    most = _FIRST_TRIED * 2**online
    if room.starting_by_pair[template.name, pair.backend, pair.asked] < most:
        return None
    words = f"only {counts.told(online, 'agent')}" if online else "no agent"
    return Shortage(
        reason=WaitReason.TRIAL,
        text=f"template {template.name} as it is now has brought {words} online there yet: "
        f"{counts.told(most, 'agent starts', 'agents start')} first",
    )


def _online(room: Room, template: Template, pair: model.BackoffKey) -> int:
    """Return how many agents of a definition, or of a variant of it, came online there so far."""
    trial = room.ledger.trials.get(pair)
    return trial.online if trial is not None and trial.revision == template.revision else 0


def _untried_gate(room: Room, template: Template, pair: model.BackoffKey) -> Shortage | None:
    """Start few agents of variants that brought none online yet: builds make up any number.

    However many wrong images wait, most of the template's room is for others.
    """
    if not pair.asked or _online(room, template, pair) > 0:
        return None
    starting = 0
    for (name, backend, asked), number in room.starting_by_pair.items():
        if asked and number and (name, backend) == (template.name, pair.backend):
            other = ledgers.key_of(Scope.TEMPLATE, pair.backend, template.name, asked=asked)
            starting += number if _online(room, template, other) == 0 else 0
    most = _UNTRIED if template.cap is None else min(_UNTRIED, max(1, template.cap // 2))
    if starting < most:
        return None
    return Shortage(
        reason=WaitReason.TRIAL,
        text=f"{counts.told(starting, 'agent')} of variants of template {template.name} that "
        "brought none online there yet start already: this one follows",
    )


def _window_gate(room: Room, key: model.BackoffKey) -> Shortage | None:
    """Ask for no more at once than the platform has taken before; after a refusal for one."""
    if room.asked[key] < ledgers.window(room.ledger, key):
        return None
    backoff = room.ledger.backoffs.get(key)
    if backoff is not None and backoff.cause is model.Failure.NO_CAPACITY:
        return Shortage(
            reason=WaitReason.NO_ROOM,
            text=f"the platform had no room, and is asked for one agent first: {backoff.reason}",
        )
    if backoff is not None and key == _CONTROLLER:
        return Shortage(
            reason=WaitReason.BACKOFF,
            text=f"the controller refused a node, and is asked for one first: {backoff.reason}",
        )
    asked = counts.told(room.asked[key], "start is", "starts are")
    return Shortage(
        reason=WaitReason.CAP_STARTING,
        text=f"{asked} not answered yet: more follow when the platform has taken these",
    )


def _cap_gate(room: Room, backend: BackendName, view: model.BackendView) -> Shortage | None:
    limits = room.policy.backends.get(backend, model.BackendPolicy())
    held = room.by_backend[backend]
    ordered = room.taken_by_backend[backend] + room.unseen_by_backend[backend]
    if limits.cap is not None and held >= limits.cap:
        words = room.words_of_going(backend=backend) + room.idlers(backend=backend)
        return Shortage(
            reason=WaitReason.CAP_BACKEND,
            text=f"{held} of {counts.told(limits.cap, 'agent')} on it"
            f"{_ordered(ordered, held)}{words}",
        )
    starting = room.starting_by_backend[backend]
    if limits.max_starting is not None and starting >= limits.max_starting:
        return Shortage(
            reason=WaitReason.CAP_STARTING,
            text=f"{starting} of {counts.told(limits.max_starting, 'agent is', 'agents are')} "
            f"starting on it{_ordered(ordered, starting)}",
        )
    free = view.capacity.free_instances if view.capacity is not None else None
    if free is not None and ordered >= free:
        words = f": {view.capacity.text}" if view.capacity and view.capacity.text else ""
        return Shortage(reason=WaitReason.NO_ROOM, text=f"the platform has no room{words}")
    return None


def _budget_gate(room: Room, backend: BackendName) -> Shortage | None:
    limits = room.policy.backends.get(backend, model.BackendPolicy())
    bucket = ledgers.refilled(room.ledger.buckets.get(backend), limits, now=room.now)
    left = bucket.tokens - room.taken_by_backend[backend]
    if left >= 1.0:
        return None
    wait_s = (1.0 - left) / limits.launch_rate
    return Shortage(
        reason=WaitReason.BUDGET,
        text=f"launch budget of {limits.launch_rate:g} per second is used up",
        until_at=room.now + wait_s,
    )
