"""Judge a removal again on a fresh look, in the moment before it is carried out.

Refuses to propose anything: it only objects.
"""

import attrs

from broker.core import model
from broker.core.decide import retention
from broker.core.decide import sweep as sweeps
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.model import Phase


def objection(  # noqa: PLR0911 -- one objection, one return
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
    if agent.computer is None and world.controller.is_unread(agent.name):
        return "what the controller says of it cannot be read"
    wish = sweeps.wants_back(agent, wishes, ledger)
    if wish is not None:
        return f"item {wish.item.id} must go on with it"
    if isinstance(action, model.SweepNode) or action.cordoned:
        return "it is back online" if agent.phase is Phase.IDLE else None
    if agent.phase is not Phase.IDLE:
        return None
    if action.slug.startswith(("lost-", "connect-")):
        return "it came online after all"
    if action.slug == "closed" and agent.closed:
        return None
    template = policy.template(agent.template) if agent.template is not None else None
    wish = retention.protector(
        agent,
        retention.Claims(wishes=wishes).on(agent, template),
        now=world.now,
        settle_s=policy.settle_s,
        over_age=action.slug == "max-age",
    )
    return f"item {wish.item.id} could want it" if wish is not None else None
