"""Which agents may go and why; which must stay although they could.

Rules, in the order in which they are asked: an agent of a template that is gone or changed, one
that has had its build (``once``) or all its builds, one that is too old, one that was idle for
too long. ``min_idle`` keeps an agent from going for idleness, never from its age. A busy agent is
at most cordoned, so that its present build is its last (I2). An idle agent is protected while any
item in the queue could want it: a warm agent too many is cheap, a lost build is not. This module
refuses to launch anything and to know backends.
"""

import functools
from collections.abc import Hashable, Iterable, Mapping, Sequence

from attrs import define, field, frozen

from broker.core import model
from broker.core.demand import wishes as demand
from broker.core.fleet import single_use, standing
from broker.core.model import Agent, Cause, NodeName, Template
from outside import counts

USED = frozenset({Cause.ONCE, Cause.ONCE_UNWITNESSED, Cause.ORDERED})
"""Verdicts on whoever must not be given anything any more, whatever waits."""


@frozen(kw_only=True)
class Verdict:
    """Why an agent should go."""

    cause: Cause
    text: str


def spent(  # noqa: PLR0911 -- one rule, one return: the order is the rule
    agent: Agent, template: Template | None, *, now: float, policy: model.Policy | None = None
) -> Verdict | None:
    """Return why an agent has served its time, idle or busy; None if it has not.

    ``policy``: of which drains and orders of people count; without it none do.
    """
    memory = agent.memory
    dismissed = dismissal(agent, policy, now=now) if policy is not None else None
    if dismissed is not None:
        return dismissed
    if template is None:
        return Verdict(cause=Cause.REMOVED, text="its template is no longer configured")
    if memory is None:
        return None
    retention = template.retention
    if agent.revision and agent.revision != template.revision:
        return Verdict(
            cause=Cause.DRIFT, text=f"the definition of template {template.name} changed"
        )
    if retention.once and memory.builds > 0:
        return Verdict(cause=Cause.ONCE, text="single use: it has had its build")
    if retention.once and memory.online_at is not None and not memory.online_witnessed:
        return Verdict(
            cause=Cause.ONCE_UNWITNESSED,
            text="single use: it may have had a build while the broker was away",
        )
    if retention.once and memory.unseen >= single_use.MOST_UNSEEN:
        return Verdict(
            cause=Cause.ONCE_UNWITNESSED,
            text="single use: builds were too short to be seen, and it may have had them",
        )
    if retention.max_builds is not None and memory.builds >= retention.max_builds:
        return Verdict(
            cause=Cause.MAX_BUILDS,
            text=f"it has had {memory.builds} of {counts.told(retention.max_builds, 'build')}",
        )
    age = now - agent.created_at if agent.created_at is not None else 0.0
    if retention.max_age_s is not None and age >= retention.max_age_s:
        return Verdict(
            cause=Cause.MAX_AGE,
            text=f"it is {age:.0f} s old, allowed are {retention.max_age_s:.0f} s",
        )
    return None


def dismissal(agent: Agent, policy: model.Policy, *, now: float) -> Verdict | None:
    """Return a verdict for an agent that goes because the broker drains, or by an order."""
    if policy.draining:
        return Verdict(cause=Cause.DRAIN, text="the broker is draining")
    order = standing.dismissing(policy.standing, agent, now=now)
    if order is None:
        return None
    cause = Cause.DRAIN if order.kind is model.StandingKind.DRAIN else Cause.ORDERED
    return Verdict(cause=cause, text=standing.words(order))


def idle_too_long(agent: Agent, template: Template, *, now: float) -> Verdict | None:
    """Return a verdict for an agent that was idle longer than its template allows."""
    idle_s, memory = template.retention.idle_s, agent.memory
    if idle_s is None or memory is None or memory.idle_at is None:
        return None
    idle = now - memory.idle_at
    if idle < idle_s:
        return None
    return Verdict(cause=Cause.IDLE, text=f"idle for {idle:.0f} s, allowed are {idle_s:.0f} s")


def unwanted(agent: Agent) -> Verdict | None:
    """Return a verdict for an agent that was started for an item that was cancelled.

    Only as long as it has had no work: after that it is an agent like the others.
    """
    memory = agent.memory
    if memory is None or not memory.item_cancelled or memory.builds > 0:
        return None
    return Verdict(
        cause=Cause.SURPLUS, text=f"item {memory.item}, for which it was started, was cancelled"
    )


def misplaced(agent: Agent, avoided: model.Backoff | None, suspicion: str = "") -> Verdict | None:
    """Return why an agent must not be given anything more as it runs; None if it may.

    ``avoided``: why its place is left alone, if it is; ``suspicion``: why builds fail on it.
    """
    instance = agent.instance
    if instance is None:
        return None
    if instance.flaw is not None:
        return Verdict(
            cause=Cause.of_exit(instance.flaw.slug),
            text=f"a part of its instance is missing: {instance.flaw.message}",
        )
    if instance.ends_because:
        return Verdict(
            cause=Cause.ANNOUNCED, text=f"its platform will end it: {instance.ends_because}"
        )
    online = agent.memory is not None and agent.memory.online_at is not None
    if avoided is not None and not (online and avoided.blame is model.Blame.STARTS):
        return Verdict(cause=Cause.BLACK_HOLE, text=f"its place is avoided: {avoided.reason}")
    if suspicion:
        return Verdict(cause=Cause.BLACK_HOLE, text=suspicion)
    return None


def labels_of(agent: Agent, template: Template | None) -> frozenset[str]:
    """Return the labels that the controller sees, or will see, on an agent (with its name)."""
    if agent.computer is not None and agent.check is None:  # for a check it may be sealed
        labels = agent.computer.labels
        return labels if agent.name in labels else labels | {agent.name}
    own = template.labels if template is not None else frozenset()
    return own | agent.asked | {agent.name}


def kind_of(agent: Agent, template: Template | None) -> frozenset[str]:
    """Return these labels without the agent's own name: the same for all of a kind."""
    if agent.computer is not None and agent.check is None:
        return agent.computer.kind
    own = template.labels if template is not None else frozenset()
    return (own | agent.asked) - {agent.name}


@frozen(kw_only=True)
class Interest:
    """An item that could want an agent. ``sure`` False: whether it could is not known."""

    wish: demand.Wish
    sure: bool


@define(kw_only=True)
class _OfKind:
    """Who could want a kind of agent: whole crowds, item by item only if that is asked for."""

    crowds: tuple[tuple[Sequence[demand.Wish], bool], ...]
    interests: tuple[Interest, ...] | None = None
    wanted: bool | None = None


@define(kw_only=True, slots=False)
class Interests:
    """Who could want an agent.

    That an item of a job which the template is not for could want one is never sure: nothing is
    known of what keeps the controller from it. Worked out once for each kind of agent that no item
    tells apart, and each crowd of items that want the same.
    """

    wishes: Sequence[demand.Wish]
    _known: dict[Hashable, _OfKind] = field(init=False, factory=dict)

    @functools.cached_property
    def crowds(self) -> Sequence[Sequence[demand.Wish]]:
        """The wishes, those that want the same together."""
        return tuple(demand.crowds(self.wishes).values())

    @functools.cached_property
    def named(self) -> frozenset[str]:
        """Every word by which a wish could tell one agent from another of its kind."""
        return demand.names_in(crowd[0] for crowd in self.crowds)

    @functools.cached_property
    def _by_name(self) -> Mapping[NodeName, Sequence[demand.Wish]]:
        return demand.by_name(self.wishes)

    @functools.cached_property
    def _places(self) -> Mapping[int, int]:
        return {id(wish): place for place, wish in enumerate(self.wishes)}

    def for_agent(self, agent: Agent, template: Template | None) -> tuple[Interest, ...]:
        """Return the interests in an agent, in the order of the wishes."""
        kind = self._of_kind(agent, template)
        if kind.interests is None:
            interests = (
                Interest(wish=wish, sure=sure) for crowd, sure in kind.crowds for wish in crowd
            )
            kind.interests = tuple(
                sorted(interests, key=lambda interest: self._places[id(interest.wish)])
            )
        return kind.interests

    def is_wanted_now(self, agent: Agent, template: Template | None) -> bool:
        """Return whether an item that could run at once wants an agent for certain."""
        kind = self._of_kind(agent, template)
        if kind.wanted is None:
            kind.wanted = any(
                sure and wish.kind is demand.WishKind.NOW and wish.unmet is None
                for crowd, sure in kind.crowds
                for wish in crowd
            )
        return kind.wanted

    def naming(self, name: NodeName) -> Sequence[demand.Wish]:
        """Return the wishes that speak of an agent by its name."""
        return self._by_name.get(name, ())

    def _of_kind(self, agent: Agent, template: Template | None) -> _OfKind:
        exclusive = template.exclusive if template is not None else True
        own = agent.name if agent.name in self.named else None
        barring = template.name if template is not None and template.restricted else None
        key = (kind_of(agent, template), exclusive, own, barring)
        of_kind = self._known.get(key)
        if of_kind is None:
            labels = labels_of(agent, template)
            asked = ((c, demand.could_want(c[0], labels, exclusive)) for c in self.crowds)
            of_kind = _OfKind(
                crowds=tuple(
                    (crowd, is_ is True and barring not in crowd[0].barred)
                    for crowd, is_ in asked
                    if is_ is not False
                )
            )
            self._known[key] = of_kind
        return of_kind


def protector(
    agent: Agent,
    interests: Iterable[Interest],
    *,
    now: float,
    settle_s: float,
    over_age: bool = False,
) -> demand.Wish | None:
    """Return an item that could want this idle agent, or None if nobody can.

    An item whose label is unreadable protects only until the controller had ``settle_s`` seconds
    to give it to the idle agent: had it fitted, it would be running there. A blocked item does
    not keep an agent past its maximum age (``over_age``).
    """
    idle_at = agent.memory.idle_at if agent.memory is not None else None
    for interest in interests:
        wish = interest.wish
        if over_age and wish.kind is demand.WishKind.LATER:
            continue
        if not interest.sure:
            since = max(wish.item.in_queue_since_at, idle_at if idle_at is not None else now)
            if wish.kind is not demand.WishKind.NOW or now - since >= settle_s:
                continue
        return wish
    return None


def order(agents: Iterable[Agent]) -> list[Agent]:
    """Sort agents so that the one to let go first comes first: the oldest."""
    return sorted(agents, key=lambda a: (a.created_at or 0.0, a.name))
