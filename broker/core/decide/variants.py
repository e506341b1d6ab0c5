"""Variants of a template, made by the values of parameters that items ask for: how many, and room.

All share the template's cap. Of different ones there are ``Template.variants`` at most at a time;
for an item of another one an idle agent that nobody asks for makes room. Refuses to know labels.
"""

from broker.core.decide import capacity
from broker.core.decide import draft as drafts
from broker.core.demand import parameters
from broker.core.demand import wishes as demand
from broker.core.model import Agent, Template, WaitReason
from outside import counts


def gate(
    draft: drafts.Draft, template: Template, asked: frozenset[str]
) -> capacity.Shortage | None:
    """Refuse an agent of one more variant than a template may have."""
    if not asked:
        return None
    there = _there(draft, template)
    if asked in there or len(there) < template.variants:
        return None
    return capacity.Shortage(
        reason=WaitReason.CAP_VARIANTS,
        text=f"template {template.name} has agents of {counts.told(len(there), 'variant')}, so "
        "many as it may: " + "; ".join(sorted(" ".join(sorted(one)) for one in there))[:256],
    )


def can_yield(draft: drafts.Draft, wish: demand.Wish, refused: capacity.Shortage) -> bool:
    """Return whether other variants may be in the way of an item."""
    if refused.reason not in {WaitReason.CAP_TEMPLATE, WaitReason.CAP_VARIANTS}:
        return False
    templates = (draft.policy.template(name) for name in wish.templates)
    return any(template is not None and template.parameters for template in templates)


def is_other(agent: Agent, wish: demand.Wish) -> bool:
    """Return whether an agent is of a template that serves an item, but of another variant."""
    if agent.template not in wish.templates:
        return False
    return not demand.asked_of(wish, agent.template) <= agent.asked


def _there(draft: drafts.Draft, template: Template) -> set[frozenset[str]]:
    present = {a.asked for a in draft.agents if a.template == template.name}
    ordered = {o.asked for o in draft.orders.values() if o.template.name == template.name}
    return (present | ordered) - {parameters.NONE}
