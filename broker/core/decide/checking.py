"""Whose check is due: who is taken out of service for one, and in whom it is run now.

Rules: with a dirty check an agent is taken out of service while its build runs, the way a
single-use agent is, and also when it is idle and may have had a build that was not seen; whoever
is out of service for a check, runs and has nothing to do is checked. What is to go anyway is not
checked. Refuses to run a check, and to judge what comes of it.
"""

from collections.abc import Sequence

from backends import api as backends_api
from broker.core import model
from broker.core.decide import draft as drafts
from broker.core.decide import retention
from broker.core.decide import sweep as sweeps
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.fleet import checks, withheld
from broker.core.model import Agent, Check, Phase, Template


def check(draft: drafts.Draft) -> None:
    """Have agents checked that wait for it, and take out of service those that must wait."""
    touched = {action.name for action in draft.actions}
    waiting = list(draft.within(Phase.CHECKING))
    naming = demand.by_name(draft.wishes) if waiting else {}
    for agent in waiting:
        if not agent.in_flight and agent.name not in touched:
            _proceed(draft, agent, naming.get(agent.name, ()))
    if any(template.checks.dirty is not None for template in draft.policy.templates):
        for agent in draft.within(Phase.BUSY, Phase.IDLE):
            if not agent.in_flight and agent.name not in touched:
                _hold_back(draft, agent)


def _proceed(draft: drafts.Draft, agent: Agent, naming: Sequence[demand.Wish]) -> None:
    template, due = draft.template_of(agent), agent.check
    if due is None:
        return
    wish = sweeps.wants_back(agent, naming, draft.world.ledger)
    verdict = None if wish is not None else drafts.goes_unchecked(draft, agent, template)
    if due is Check.DIRTY:
        if sweeps.is_resting(agent, draft.world.ledger, draft.policy, now=draft.now):
            _refuse(draft, agent, "a pipeline may still ask for it after the start")
            if draft.world.ledger.session_at is not None:
                draft.wake.append(draft.world.ledger.session_at + draft.policy.resume_grace_s)
            return
        if wish is not None:
            text = f"item {wish.item.id} must go on with this very node"
            draft.actions.append(_back(agent, template, text))
            return
    if verdict is not None:
        draft.actions.append(
            model.RetireAgent(
                name=agent.name,
                backend=agent.backend,
                reason=verdict.text,
                cause=verdict.cause,
                cordoned=True,
            )
        )
    elif template is None or template.checks.of(due) is None:
        text = f"its template has no {due.value} check any more"
        draft.actions.append(_back(agent, template, text))
    elif _runs(agent) and agent.backend is not None:
        draft.actions.append(
            model.CheckAgent(
                name=agent.name,
                backend=agent.backend,
                template=template.name,
                check=due,
                reason=f"its {due.value} check is due",
                labels=_labels(agent, template),
                exclusive=template.exclusive,
            )
        )


def _runs(agent: Agent) -> bool:
    instance = agent.instance
    return instance is not None and instance.state is backends_api.InstanceState.RUNNING


def _labels(agent: Agent, template: Template | None) -> tuple[str, ...]:
    return tuple(sorted(retention.kind_of(agent, template)))


def _back(agent: Agent, template: Template | None, reason: str) -> model.UncordonAgent:
    return model.UncordonAgent(
        name=agent.name,
        reason=reason,
        labels=_labels(agent, template),
        exclusive=template.exclusive if template is not None else True,
    )


def _hold_back(draft: drafts.Draft, agent: Agent) -> None:
    """Take an agent out of service before it can be given another build."""
    if agent.cordoned or agent.check is not None or withheld.is_held(agent):
        return
    if not checks.may_be_dirty(agent, draft.template_of(agent)):
        return
    if agent.computer is None or agent.computer.offline or draft.world.controller.quieting_down:
        return
    if agent.memory is not None and agents_.ASSIGNED in agent.memory.executable_urls:
        return  # an item on its way would be turned back at the door
    if agent.name in draft.spent or agent.name in draft.misplaced or agent.closed:
        return  # it goes, and what it is in matters to nobody
    ledger = draft.world.ledger
    if agent.phase is Phase.IDLE and (
        sweeps.is_resting(agent, ledger, draft.policy, now=draft.now)
        or sweeps.wants_back(agent, draft.wishes, ledger) is not None
    ):
        return  # a pipeline goes on with it, or may: it would be brought back at once
    draft.actions.append(
        model.CordonAgent(
            name=agent.name,
            reason="a build of it is followed by its dirty check",
            idle=agent.phase is Phase.IDLE,
            check=Check.DIRTY,
            asked=tuple(sorted(agent.asked)),
        )
    )


def _refuse(draft: drafts.Draft, agent: Agent, why: str) -> None:
    draft.refusals.append(
        model.Refusal(subject=agent.name, text=f"is to be checked, and is not yet: {why}")
    )
