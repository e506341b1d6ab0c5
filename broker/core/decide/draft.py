"""The plan while it is written: what was seen, what is decided so far, and its shorthand.

Only ``plan`` and the steps beside it hold one, within one cycle. Refuses to decide anything.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from attrs import Factory, define, field

from broker.core import model
from broker.core.decide import capacity, retention
from broker.core.demand import matching
from broker.core.demand import wishes as demand
from broker.core.model import Agent, NodeName, Template, Unmet, Verb, WaitReason

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


@define(kw_only=True)
class Draft:
    """The plan while it is written."""

    world: model.World
    policy: model.Policy
    agents: tuple[Agent, ...]
    wishes: tuple[demand.Wish, ...]
    room: capacity.Room
    actions: list[model.Action] = Factory(list)
    refusals: list[model.Refusal] = Factory(list)
    said: dict[model.ItemId, Said] = Factory(dict)  # why who waits; the last word holds
    wanted: Sequence[demand.Wish] = field(  # see ``wanted_now``
        init=False, default=Factory(lambda self: wanted_now(self.wishes), takes_self=True)
    )
    wake: list[float] = Factory(list)
    nominated: dict[model.ItemId, matching.Supply] = Factory(dict)
    supplies: list[matching.Supply] = Factory(list)
    matched: int | None = None  # how many supplies there were when ``nominated`` was worked out
    passed_over: list[matching.Supply] = Factory(list)  # idle, fitting, and given no work
    refused: dict[NodeName, frozenset[model.ItemId]] = Factory(dict)  # by whom, to which items
    unserved: list[demand.Wish] = Factory(list)  # by the agents that were there already
    orders: dict[NodeName, OrderedAgent] = Factory(dict)
    launches: Counter[str] = Factory(Counter)
    short: list[tuple[demand.Wish, capacity.Shortage]] = Factory(list)
    ids: list[str] = Factory(list)
    _claims: retention.Claims = field(
        init=False,
        default=Factory(lambda self: retention.Claims(wishes=self.wishes), takes_self=True),
    )

    @property
    def now(self) -> float:
        """Return the time of the look."""
        return self.world.now

    def template_of(self, agent: Agent) -> Template | None:
        """Return the template of an agent, if it is still configured."""
        return self.policy.template(agent.template) if agent.template is not None else None

    def claims_on(self, agent: Agent) -> tuple[retention.Claim, ...]:
        """Return who could want an agent."""
        return self._claims.on(agent, self.template_of(agent))

    def is_wanted_now(self, agent: Agent) -> bool:
        """Return whether an item that could run at once wants an agent for certain."""
        return self._claims.is_wanted_now(agent, self.template_of(agent))


def age(wish: demand.Wish) -> tuple[float, int]:
    """Return what sorts wishes, the oldest first."""
    since = wish.item.buildable_since_at or wish.item.in_queue_since_at
    return (since or math.inf, wish.item.id)  # whoever does not tell gets ahead of nobody


def is_leaving(agent: Agent) -> bool:
    """Return whether an agent takes no more work by our doing."""
    return agent.cordoned or (agent.expectation is not None and agent.expectation.verb in _LEAVING)


def wanted_now(wishes: Iterable[demand.Wish]) -> list[demand.Wish]:
    """Items that are to be served now: waiting ones, then those that are announced early."""
    now, early = [], []
    for wish in wishes:
        if wish.unmet is not None and wish.kind is not demand.WishKind.ANNOUNCED:
            continue
        if wish.kind is demand.WishKind.NOW:
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


def note_all(draft: Draft, crowd: Sequence[demand.Wish], reason: WaitReason, text: str) -> None:
    """Write down why a whole crowd waits: items that the same templates serve."""
    head = crowd[0]
    said = Said(reason, text, head.templates[0] if head.templates else None, None)
    for wish in crowd:
        draft.said[wish.item.id] = said


def unmet(draft: Draft) -> dict[model.ItemId, Unmet]:
    """Return what was written down, and of the others what their wish says; in their order."""
    found = {}
    for wish in draft.wishes:
        key = wish.item.id
        said = draft.said.get(key)
        if said is not None:
            found[key] = Unmet(
                item=key,
                reason=said.reason,
                text=said.text,
                template=said.template,
                agent=said.agent,
                label=wish.label,
                since_at=age(wish)[0],
            )
        elif wish.unmet is not None:
            found[key] = wish.unmet
    return found
