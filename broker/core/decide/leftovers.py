"""What is left over on controller and platforms, as the rules see it when nothing is spared.

For whoever asks: a broker at work removes the same by itself, a part at a time. Pure.
"""

from attrs import evolve

from broker.core import model
from broker.core.decide import plan as plans


def look(world: model.World, policy: model.Policy, *, everything: bool) -> model.Plan:
    """Plan without the limits that keep a broker from removing much at once.

    ``everything``: also agents that have nothing to do, as in a drain.
    """
    return plans.plan(world, unsparing(policy, everything=everything))


def unsparing(policy: model.Policy, *, everything: bool) -> model.Policy:
    """Return a policy without the limits that keep a broker from removing much at once."""
    return evolve(
        policy, sweep_share=1.0, resume_grace_s=0.0, draining=policy.draining or everything
    )


def removals(plan: model.Plan) -> tuple[model.Removal, ...]:
    """Return the actions of such a plan that remove something."""
    return tuple(action for action in plan.actions if isinstance(action, model.Removal))
