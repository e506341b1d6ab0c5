"""Judge removals again on a fresh look, in the moment before they are carried out.

Many removals share one look: what it takes to judge any of them (the join of the agents, the
wishes, who could want whom) is worked out once. Refuses to propose anything: it only objects.
"""

from collections.abc import Mapping

import attrs
from attrs import frozen

from broker.core import model
from broker.core.decide import retention
from broker.core.decide import sweep as sweeps
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.fleet import release
from broker.core.model import Agent, NodeName, Phase, Verb

_REMOVALS = frozenset({Verb.RETIRE, Verb.SWEEP})


@frozen(kw_only=True, eq=False)
class SecondLook:
    """A fresh look at the controller, made ready to judge removals on it: see ``prepare``."""

    world: model.World
    policy: model.Policy
    ledger: model.Ledger
    agents: Mapping[NodeName, Agent]
    interests: retention.Interests


def prepare(
    world: model.World, policy: model.Policy, last: model.Plan | None = None
) -> SecondLook:
    """Return what any removal is judged on; that removals are under way says nothing for them.

    ``last``: the plan before this look, of the same owner; it saves time, and changes nothing.
    """
    others = {n: e for n, e in world.ledger.expectations.items() if e.verb not in _REMOVALS}
    world = attrs.evolve(world, ledger=attrs.evolve(world.ledger, expectations=others))
    agents, ledger, _ = agents_.observe(world, policy, last.agents if last else ())
    ours = {a.name: a.template for a in agents if a.template is not None}
    wishes, _ = demand.wishes(world.controller, policy.templates, ledger, ours)
    wishes = sweeps.pin(wishes, agents, ledger)
    return SecondLook(
        world=world,
        policy=policy,
        ledger=ledger,
        agents={agent.name: agent for agent in agents},
        interests=retention.Interests(wishes=wishes),
    )


def objection(  # noqa: C901, PLR0911 -- one objection, one return
    action: model.RetireAgent | model.ReleaseAgent | model.SweepNode, look: SecondLook
) -> str | None:
    """Judge a removal again on a fresh look at the controller; None: go on.

    The time between a plan and its execution is short but not nothing: an item may have arrived,
    a build may have started, an agent may have come back.
    """
    controller, policy = look.world.controller, look.policy
    if not controller.synced:
        return "the controller does not answer"
    agent = look.agents.get(action.name)
    if agent is None:
        return None
    if isinstance(action, model.ReleaseAgent):
        return release.obstacle(agent, controller)
    if agent.phase is Phase.BUSY:
        return "it works"
    if agent.computer is None and controller.is_unread(agent.name):
        return "what the controller says of it cannot be read"
    wish = sweeps.wants_back(agent, look.interests.naming(agent.name), look.ledger)
    if wish is not None:
        return f"item {wish.item.id} must go on with it"
    if isinstance(action, model.SweepNode) or action.cordoned:
        return "it is back online" if agent.phase is Phase.IDLE else None
    if agent.phase is not Phase.IDLE:
        return None
    if action.cause.accident:
        return "it came online after all"
    if action.cause is model.Cause.CLOSED and agent.closed:
        return None
    template = policy.template(agent.template) if agent.template is not None else None
    interests = look.interests.for_agent(agent, template)
    wish = retention.protector(
        agent,
        (c for c in interests if c.wish.item.id not in action.refused),
        now=look.world.now,
        settle_s=policy.settle_s,
        over_age=action.cause is model.Cause.MAX_AGE,
    )
    return f"item {wish.item.id} could want it" if wish is not None else None
