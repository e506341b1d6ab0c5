"""Agents that a person has held: out of service, and kept as they are; then back, or gone.

Whoever is held is given no further build and is not let go, whatever its age and its builds. It is
known by its offline message alone: a message of ours that no order stands for any more is taken
back, unless the agent is to go or to be checked before it could be given another build. Refuses to
know who may have an agent held.
"""

import datetime as dt

from broker.core import model
from broker.core.decide import draft as drafts
from broker.core.decide import retention
from broker.core.decide import sweep as sweeps
from broker.core.fleet import agents as agents_
from broker.core.fleet import lifecycle
from broker.core.model import Agent, Phase


def hold(draft: drafts.Draft) -> None:
    """Take out of service who is to be held, and bring back whose time is over."""
    touched = {action.name for action in draft.actions}
    for agent in draft.within(Phase.IDLE, Phase.BUSY, Phase.HELD):
        if agent.in_flight or agent.name in touched or draft.world.controller.quieting_down:
            continue
        order = draft.holds.get(agent.name)
        is_there = agent.computer is not None and lifecycle.is_by_order(agent.computer)
        if order is not None and not is_there:
            _begin(draft, agent, order)
        elif order is None and is_there:
            _end(draft, agent)


def _begin(draft: drafts.Draft, agent: Agent, order: model.StandingOrder) -> None:
    computer, memory = agent.computer, agent.memory
    if computer is None or computer.offline or agent.cordoned or agent.check is not None:
        return
    if memory is not None and agents_.ASSIGNED in memory.executable_urls:
        return  # an item on its way would be turned back at the door
    if agent.phase is Phase.IDLE and _rests(draft, agent):
        return
    draft.actions.append(
        model.CordonAgent(
            name=agent.name, reason=_words(order), idle=agent.phase is Phase.IDLE, hold=True
        )
    )


def _end(draft: drafts.Draft, agent: Agent) -> None:
    template = draft.template_of(agent)
    pinned = [wish for wish in draft.pinned if wish.pinned == agent.name]
    verdict = retention.spent(agent, template, now=draft.now, policy=draft.policy)
    if not pinned and verdict is None and template is not None and template.checks.dirty:
        draft.actions.append(
            model.CordonAgent(
                name=agent.name,
                reason="it was held, and its dirty check comes first",
                online=False,
                idle=agent.phase is not Phase.BUSY,
                check=model.Check.DIRTY,
                asked=tuple(sorted(agent.asked)),
            )
        )
    elif pinned or verdict is None:
        text = f"item {pinned[0].item.id} must go on with it" if pinned else "it is held no more"
        draft.actions.append(model.UncordonAgent(name=agent.name, reason=text))
    elif agent.phase is Phase.BUSY:
        draft.actions.append(
            model.CordonAgent(
                name=agent.name, reason=verdict.text, cause=verdict.cause, online=False
            )
        )
    elif not _rests(draft, agent) and _is_seen(draft, agent):
        draft.actions.append(
            model.RetireAgent(
                name=agent.name,
                backend=agent.backend,
                reason=verdict.text,
                cause=verdict.cause,
                cordoned=True,
            )
        )


def _is_seen(draft: drafts.Draft, agent: Agent) -> bool:
    """Return whether its backend shows its instance."""
    view = draft.world.backends.get(agent.backend) if agent.backend is not None else None
    return view is not None and view.synced and agent.instance is not None


def _rests(draft: drafts.Draft, agent: Agent) -> bool:
    ledger = draft.world.ledger
    rests = sweeps.is_resting(agent, ledger, draft.policy, now=draft.now)
    if rests and ledger.session_at is not None:
        draft.wake.append(ledger.session_at + draft.policy.resume_grace_s)
    return rests


def _words(order: model.StandingOrder) -> str:
    """Say by whom and until when: it is read in Jenkins, and later."""
    until = ""
    if order.until_at is not None:
        until = f" until {dt.datetime.fromtimestamp(order.until_at, dt.UTC):%Y-%m-%d %H:%M} UTC"
    note = f" ({order.note})" if order.note else ""
    return f"for {order.who}{until}{note}"
