"""Variants of a template, made by the values of parameters that items ask for: how many, and room.

All share the template's cap. Of different ones there are ``Template.variants`` at most at a time;
for an item of another one an idle agent that nobody asks for makes room. One job's thousand
variants wait behind each other, and not before others' first. Refuses to know labels.
"""

from collections import Counter
from collections.abc import Sequence

from broker.core.decide import capacity
from broker.core.decide import draft as drafts
from broker.core.demand import jobs
from broker.core.demand import wishes as demand
from broker.core.model import Agent, Template, WaitReason
from outside import counts


def gate(
    draft: drafts.Draft, template: Template, asked: frozenset[str]
) -> capacity.Shortage | None:
    """Refuse an agent of one more variant than a template may have."""
    if not asked:
        return None
    there = {
        other
        for (name, other), number in draft.room.by_variant.items()
        if other and number and name == template.name
    }
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


def ranks(crowds: Sequence[Sequence[demand.Wish]]) -> list[int]:
    """Return for each crowd how many variants its job waits for before this one.

    Each job's first goes before any other's second: who asks for a thousand delays nobody.
    """
    before: Counter[str] = Counter()
    ranked = []
    for crowd in crowds:
        if not crowd or not crowd[0].variants:
            ranked.append(0)
            continue
        job = jobs.name_of(crowd[0].item.task_url)
        ranked.append(before[job])
        before[job] += 1
    return ranked
