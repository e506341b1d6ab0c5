"""The plan while it is written: what was seen, what is decided so far, and its shorthand.

Only ``plan`` and the steps beside it hold one, within one cycle. Refuses to decide anything.
"""

import functools
import itertools
import math
import operator
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from attrs import Factory, define

from broker.core import model
from broker.core.decide import capacity, retention
from broker.core.demand import matching, vetoes
from broker.core.demand import wishes as demand
from broker.core.fleet import builds, keeping, neighbours, places, standing, withheld
from broker.core.model import Agent, NodeName, Phase, Template, Unmet, Verb, WaitReason

_LEAVING = frozenset({Verb.RETIRE, Verb.SWEEP, Verb.CORDON})


class Said(NamedTuple):
    """Why an item waits, or a whole crowd of items."""

    reason: WaitReason
    text: str
    template: model.TemplateName | None
    agent: NodeName | None


class OrderedAgent(NamedTuple):
    """An agent that this plan orders; for whom is known when all are nominated."""

    name: NodeName
    template: Template
    backend: model.BackendName
    asked: frozenset[str] = frozenset()
    tries: str = ""  # of which failure it shows whether it is over; nobody waits for it


@define(kw_only=True, slots=False)
class Draft:
    """The plan while it is written; what is asked of all agents is worked out once, if at all."""

    world: model.World
    policy: model.Policy
    agents: tuple[Agent, ...]
    wishes: tuple[demand.Wish, ...]
    room: capacity.Room
    actions: list[model.Action] = Factory(list)
    refusals: list[model.Refusal] = Factory(list)
    said: dict[model.ItemId, Said] = Factory(dict)  # why who waits; the last word holds
    wake: list[float] = Factory(list)
    nominated: dict[model.ItemId, matching.Supply] = Factory(dict)
    offering: set[NodeName] = Factory(set)  # who of the present agents could serve somebody
    supplies: list[matching.Supply] = Factory(list)  # theirs if anybody waits, and all others
    matched: int | None = None  # how many supplies there were when ``nominated`` was worked out
    passed_over: list[matching.Supply] = Factory(list)  # idle, fitting, and given no work
    refused: dict[NodeName, frozenset[model.ItemId]] = Factory(dict)  # by whom, to which items
    held: set[model.ItemId] = Factory(set)  # no further agent would be given these
    deferences: dict[model.TemplateName, model.Deference] = Factory(dict)  # after this look
    learnt: dict[model.VetoKey, frozenset[model.ItemId]] = Factory(dict)  # of idle agents
    unserved: list[demand.Wish] = Factory(list)  # by the agents that were there already ...
    # ... and whom those serve: one of them may give way, and be served by an order in its place
    served: dict[model.ItemId, matching.Supply] = Factory(dict)
    orders: dict[NodeName, OrderedAgent] = Factory(dict)
    launches: Counter[str] = Factory(Counter)
    short: list[tuple[Sequence[demand.Wish], capacity.Shortage]] = Factory(list)  # crowds

    @functools.cached_property
    def now(self) -> float:
        """The time of the look."""
        return self.world.now

    @functools.cached_property
    def wanted(self) -> Sequence[demand.Wish]:
        """The items that are to be served now: see ``wanted_now``.

        What others like them were refused takes nothing from anybody: they come last.
        """
        wanted, learnt = wanted_now(self.wishes), self.world.ledger.vetoes
        if learnt:
            wanted.sort(key=lambda wish: vetoes.key_of(wish) in learnt)
        return wanted

    @functools.cached_property
    def kept(self) -> Mapping[NodeName, keeping.Kept]:
        """Whose instance failed, and is kept for a look."""
        return keeping.kept(self.agents, self.policy, now=self.now)

    @functools.cached_property
    def present(self) -> Mapping[NodeName, Agent]:
        """The agents by name."""
        return {agent.name: agent for agent in self.agents}

    @functools.cached_property
    def vetoed(self) -> frozenset[model.ItemId]:
        """What the controller refuses to executors that are free, by its own words."""
        return frozenset(self.world.ledger.vetoed)

    @functools.cached_property
    def neighbours(self) -> neighbours.Neighbours:
        """Who else works on this controller, and what they have free or on its way."""
        ours = self.present
        others = (c for c in self.world.controller.computers if c.name not in ours)
        return neighbours.seen(others, self.policy.owner, now=self.now)

    @functools.cached_property
    def pinned(self) -> Sequence[demand.Wish]:
        """Those that want one of the present agents and no other."""
        return [w for w in self.wanted if w.pinned is not None and w.pinned in self.present]

    @functools.cached_property
    def running(self) -> Mapping[str, int]:
        """How many builds of each task are at work."""
        return vetoes.running(self.world.controller)

    @functools.cached_property
    def trying(self) -> Counter[model.VetoKey]:
        """Of what is learnt of vetoes: how many agents are there, or ordered, to be given it."""
        if not self.world.ledger.vetoes:
            return Counter()
        served = (vetoes.key_of(w) for w in self.wanted if w.item.id in self.served)
        return Counter(key for key in served if key in self.world.ledger.vetoes)

    @functools.cached_property
    def crowds(self) -> Sequence[Sequence[demand.Wish]]:
        """All others, by what they want; whoever is vetoed by the task as well."""
        pinned = {wish.item.id for wish in self.pinned}
        crowds: dict[Hashable, list[demand.Wish]] = {}
        keys: dict[Hashable, list[demand.Wish]] = {}
        apart = frozenset[model.ItemId]().union(*self.refused.values())
        learnt = bool(self.world.ledger.vetoes)
        for wish in self.wanted:
            if wish.item.id in pinned:
                continue
            if learnt or wish.item.id in apart:
                alike = (wish.kind, wish.templates, vetoes.key_of(wish), wish.variants)
                crowds.setdefault(alike, []).append(wish)
                continue
            crowd = keys.get(wish.crowd)
            if crowd is None:
                canonical = wish.expression.canonical() if wish.expression is not None else None
                key = (wish.kind, wish.templates, canonical, wish.variants)
                crowd = crowds.setdefault(key, [])
                keys[wish.crowd] = crowd
            crowd.append(wish)
        return list(crowds.values())

    @functools.cached_property
    def ids(self) -> list[str]:
        """Suffixes for new names that no agent has had, and no label expression speaks of (I5)."""
        names = {agent.name for agent in self.agents} | self._interests.named
        used = {name.rpartition("-")[2] for name in names}
        return [suffix for suffix in self.world.fresh_ids if suffix not in used]

    @functools.cached_property
    def leaving(self) -> frozenset[NodeName]:
        """Who takes no more work by our doing."""
        return frozenset(
            agent.name
            for agent in self.agents
            if agent.cordoned
            or (
                agent.expectation is not None
                and agent.expectation.verb in _LEAVING
                and agent.expectation.check is None
            )
        )

    @functools.cached_property
    def closed(self) -> frozenset[NodeName]:
        """Who is given no work by the controller, and serves nobody."""
        return frozenset(agent.name for agent in self.agents if agent.closed)

    @functools.cached_property
    def holds(self) -> Mapping[NodeName, model.StandingOrder]:
        """Who stays as it is by the order of a person."""
        return standing.holding(self.policy.standing, now=self.now)

    @functools.cached_property
    def avoided(self) -> Mapping[tuple[model.BackendName, str], model.Backoff]:
        """The places that get no agents for a while."""
        return places.avoided(self.world.ledger, now=self.now)

    @functools.cached_property
    def misplaced(self) -> Mapping[NodeName, retention.Verdict]:
        """Who must not be given anything more as it runs, or where, and why."""
        verdicts, avoided = {}, self.avoided
        suspects = builds.suspect_agents(self.world.ledger.build_fates)
        wanted_back = {wish.pinned for wish in self.pinned}
        for agent in self.agents:
            instance, backend = agent.instance, agent.backend
            if instance is None or backend is None:
                continue
            if not (avoided or suspects or instance.ends_because or instance.flaw is not None):
                continue
            verdict = retention.misplaced(
                agent, avoided.get((backend, instance.place)), suspects.get(agent.name, "")
            )
            wanted = withheld.is_held(agent) or agent.name in wanted_back
            wanted = wanted or agent.name in self.holds
            if verdict is not None and not wanted:
                verdicts[agent.name] = verdict
        return verdicts

    @functools.cached_property
    def spent(self) -> Mapping[NodeName, retention.Verdict]:
        """Who of those at work and idle has served its time, and why."""
        verdicts = {}
        templates, now, policy = self.policy.by_name, self.now, self.policy
        for agent in self.within(Phase.IDLE, Phase.BUSY):
            template = templates.get(agent.template)
            verdict = retention.spent(agent, template, now=now, policy=policy)
            if verdict is not None and agent.name not in self.holds:
                verdicts[agent.name] = verdict
        return verdicts

    @functools.cached_property
    def _by_phase(self) -> Mapping[Phase, Sequence[Agent]]:
        by_phase: dict[Phase, list[Agent]] = {}
        for agent in self.agents:
            by_phase.setdefault(agent.phase, []).append(agent)
        return by_phase

    @functools.cached_property
    def _interests(self) -> retention.Interests:
        return retention.Interests(wishes=self.wishes)

    def within(self, *phases: Phase) -> Iterator[Agent]:
        """Yield the agents that are in these phases, phase by phase."""
        return itertools.chain.from_iterable(self._by_phase.get(p, ()) for p in phases)

    @functools.cached_property
    def _idle(self) -> Mapping[str, int]:
        return Counter([a.template or "" for a in self.within(Phase.IDLE) if not a.asked])

    def idle_without(self, names: AbstractSet[NodeName]) -> Counter[str]:
        """Count by template the idle agents that are not among these, and no variants."""
        left = Counter(self._idle)
        others = (self.present[name] for name in self.present.keys() & names)
        left.subtract([a.template or "" for a in others if a.phase is Phase.IDLE and not a.asked])
        return left

    def template_of(self, agent: Agent) -> Template | None:
        """Return the template of an agent, if it is still configured."""
        return self.policy.by_name.get(agent.template)

    def interests_in(self, agent: Agent) -> tuple[retention.Interest, ...]:
        """Return who could want an agent."""
        return self._interests.for_agent(agent, self.template_of(agent))

    def is_wanted_now(self, agent: Agent) -> bool:
        """Return whether an item that could run at once wants an agent for certain."""
        return self._interests.is_wanted_now(agent, self.template_of(agent))


def since(wish: demand.Wish) -> float:
    """Return since when an item waits; whoever does not tell gets ahead of nobody."""
    item = wish.item
    return item.buildable_since_at or item.in_queue_since_at or math.inf


def age(wish: demand.Wish) -> tuple[float, model.ItemId]:
    """Return what sorts wishes, the oldest first."""
    return (since(wish), wish.item.id)


def oldest_first(wishes: Iterable[demand.Wish]) -> tuple[demand.Wish, ...]:
    """Sort wishes by their age."""
    return tuple(sorted(sorted(wishes, key=operator.attrgetter("item.id")), key=since))


def wanted_now(wishes: Iterable[demand.Wish]) -> list[demand.Wish]:
    """Items that are to be served now: waiting ones, then those that are announced early."""
    now, early = [], []
    at_once, announced = demand.WishKind.NOW, demand.WishKind.ANNOUNCED
    for wish in wishes:
        if wish.unmet is not None and wish.kind is not announced:
            continue
        if wish.kind is at_once:
            now.append(wish)
        elif wish.early:
            early.append(wish)
    return now + early


def note(
    draft: Draft,
    wish: demand.Wish,
    reason: WaitReason,
    text: str,
    *,
    template: model.TemplateName | None = None,
    agent: NodeName | None = None,
) -> None:
    """Write down why an item waits; the last word holds."""
    if template is None and wish.templates:
        template = wish.templates[0]
    draft.said[wish.item.id] = Said(reason, text, template, agent)


def note_all(
    draft: Draft,
    crowd: Sequence[demand.Wish],
    reason: WaitReason,
    text: str,
    *,
    template: model.TemplateName,
) -> None:
    """Write down why a whole crowd waits: items that the same templates serve."""
    said = Said(reason, text, template, None)
    draft.said.update(dict.fromkeys([wish.item.id for wish in crowd], said))


def unmet(draft: Draft) -> dict[model.ItemId, Unmet]:
    """Return what was written down, and of the others what their wish says; in their order."""
    reasons, all_said = {}, draft.said
    for wish in draft.wishes:
        item_id = wish.item.id
        said = all_said.get(item_id)
        if said is not None:
            reason, text, template, agent = said
            reasons[item_id] = Unmet(
                item_id, reason, text, template, agent, wish.label, since(wish)
            )
        elif wish.unmet is not None:
            reasons[item_id] = wish.unmet
    return reasons


def goes_unchecked(
    draft: Draft, agent: Agent, template: Template | None
) -> retention.Verdict | None:
    """Return why an agent that waits for a check goes instead; None: it is checked."""
    if agent.instance is None or draft.world.controller.quieting_down:
        return None
    verdict = draft.misplaced.get(agent.name) or retention.spent(
        agent, template, now=draft.now, policy=draft.policy
    )
    if verdict is None and agent.memory is not None and agent.memory.online_at is None:
        verdict = retention.unwanted(agent)
    return verdict
