"""Single-use agents, as far as REST tells of them: who may be given a second build.

Nothing on REST lets an agent take exactly one build, so it is taken out of service while its first
one runs, as soon as that is seen. Rules: as long as one is free, or about to come, and an item of
its template waits, the computers are glanced at between the looks (``at_risk``). A build that
came and went unseen shows in the queue alone: its item has left. Where it ran the controller tells
of freestyle builds (``builtOn``), not of Pipeline's: then everybody who could have had it may have
had it, and ``Memory.unseen`` counts that. Whoever may have had two is spent, so nobody is given
more than one further build. Pure; refuses to ask and to take anybody out of service.
"""

from collections.abc import Iterable, Mapping

import attrs

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import latency
from broker.core.model import Agent, Memory, NodeName, Phase, TemplateName, Verb

MOST_UNSEEN = 2
"""Builds that it may have had unseen: with so many it may have had a further one already."""
_COMES_WITHIN_S = 10.0
"""An instance that was ordered so long ago and is not seen to run is not about to come ..."""
_CONNECTS_WITHIN_S = 60.0
"""... nor one that runs, and has not come for so long."""
_COMING = frozenset({Phase.LAUNCHING, Phase.CONNECTING})
_TOLD_KEPT = 8
_PRESENT = frozenset({Phase.IDLE, Phase.BUSY, Phase.DRAINED})


def at_risk(plan: model.Plan, policy: model.Policy, *, now: float) -> frozenset[NodeName]:
    """Return who may be given its first build, and then another one, before the next look."""
    wanted = {unmet.template for unmet in plan.unmet}
    names = {t.name for t in policy.templates if t.retention.once and t.name in wanted}
    if not names:
        return frozenset()
    return frozenset(
        agent.name
        for agent in plan.agents
        if agent.template in names and _is_unused(agent) and _may_be_given(agent, now)
    )


def _is_unused(agent: Agent) -> bool:
    memory = agent.memory
    return memory is not None and memory.builds == 0 and not agent.cordoned


def _may_be_given(agent: Agent, now: float) -> bool:
    flight, memory = agent.expectation, agent.memory
    if flight is not None and flight.verb is not Verb.LAUNCH:
        return False
    if agent.phase is Phase.IDLE:
        return True
    if agent.phase not in _COMING or memory is None or memory.online_at is not None:
        return False
    instance = agent.instance
    runs = instance is not None and instance.state is backends_api.InstanceState.RUNNING
    within_s = _CONNECTS_WITHIN_S if runs else _COMES_WITHIN_S
    since = memory.phase_at if runs else agent.created_at
    return now - (since if since is not None else memory.first_seen_at) < within_s


def given(
    ledger: model.Ledger, events: Iterable[model.QueueEvent], policy: model.Policy
) -> frozenset[NodeName]:
    """Return which single-use agents an item has been given to, as the push hook tells."""
    names = {event.node for event in events if event.stage is None and event.node is not None}
    once = {t.name for t in policy.templates if t.retention.once}
    memories = ((name, ledger.memories.get(name)) for name in names)
    return frozenset(n for n, memory in memories if memory is not None and memory.template in once)


def used(
    ledger: model.Ledger, at_work: Iterable[NodeName], *, now: float
) -> tuple[model.Ledger, tuple[NodeName, ...]]:
    """Note that agents have their first build; return those of which that was not known.

    Whoever is taken out of service for it may never be seen online by a look.
    """
    fresh = {
        name: attrs.evolve(
            memory,
            builds=1,
            untold=1,
            executable_urls=("",),
            glanced_at=now,
            online_at=memory.online_at if memory.online_at is not None else now,
            online_witnessed=memory.online_witnessed or memory.online_at is None,
        )
        for name in sorted(at_work)
        if (memory := ledger.memories.get(name)) is not None and memory.builds == 0
    }
    return _with(ledger, fresh), tuple(fresh)


def attribute(
    ledger: model.Ledger,
    agents: Iterable[Agent],
    policy: model.Policy,
    vanished: latency.Vanished,
    *,
    executable_url: str,
    built_on: str,
) -> tuple[model.Ledger, NodeName | None, bool]:
    """Count a build that does not run any more; ``built_on``: where, empty if that is not told.

    Returns the ledger, the agent that had it if that is certain, and whether one whose build was
    known already had a further one and it is not certain which.
    """
    known = _memory(ledger, NodeName(built_on))
    if known is not None and executable_url in known.named:  # a look has seen it meanwhile
        return linked(ledger, NodeName(built_on)), NodeName(built_on), False
    if known is not None:
        known = attrs.evolve(known, told=(*known.told, executable_url)[-_TOLD_KEPT:])
        return _counted(ledger, NodeName(built_on), known), NodeName(built_on), False
    template = policy.template(vanished.template)
    if built_on or template is None or not template.retention.once:
        return ledger, None, False
    could = _could_have_had(ledger, agents, vanished)
    if len(could) == 1:
        ((name, memory),) = could.items()
        return _counted(ledger, name, memory), name, False
    for name, memory in could.items():
        if memory.untold:  # a build of whoever is seen to have had one without a name
            return _counted(ledger, name, memory), None, False
    fresh = {
        name: attrs.evolve(memory, unseen=memory.unseen + 1)
        for name, memory in could.items()
        if memory.builds == 0
    }
    host = next((name for name, memory in fresh.items() if not memory.supposed), None)
    if host is not None:
        fresh[host] = attrs.evolve(fresh[host], supposed=True)
    return _with(ledger, fresh), None, bool(could) and host is None


def settled(
    ledger: model.Ledger, policy: model.Policy
) -> tuple[model.Ledger, tuple[TemplateName, ...]]:
    """Suppose of others what was supposed of agents that were seen at a build since.

    Also returns the template of each build of which it can be supposed of nobody: an extra one.
    """
    if not any(template.retention.once for template in policy.templates):
        return ledger, ()
    known = {**ledger.departed, **ledger.memories}
    changed: dict[NodeName, Memory] = {}
    extra: list[TemplateName] = []
    for name, memory in known.items():
        if not memory.supposed or memory.builds == 0 or memory.template is None:
            continue
        changed[name] = attrs.evolve(memory, supposed=False)
        other = next(
            (
                other
                for other, one in known.items()
                if one.template == memory.template
                and other not in changed
                and one.unseen
                and one.builds == 0
                and not one.supposed
            ),
            None,
        )
        if other is None:
            extra.append(memory.template)
        else:
            changed[other] = attrs.evolve(known[other], supposed=True)
    return _with(ledger, changed), tuple(extra)


def _could_have_had(
    ledger: model.Ledger, agents: Iterable[Agent], vanished: latency.Vanished
) -> Mapping[NodeName, Memory]:
    """Return who was there when an item of a template left the queue, also who has gone since."""
    present = {
        agent.name: memory
        for agent in agents
        if agent.template == vanished.template
        and agent.phase in _PRESENT
        and (memory := ledger.memories.get(agent.name)) is not None
    }
    departed = {
        name: memory
        for name, memory in ledger.departed.items()
        if memory.template == vanished.template
        and memory.phase_at is not None
        and memory.phase_at >= vanished.gone_at
    }
    return {
        name: memory
        for name, memory in {**departed, **present}.items()
        if memory.untold  # a glance may have seen it later than the look
        or (memory.online_at is not None and memory.online_at <= vanished.looked_at)
    }


def unlinked(ledger: model.Ledger, names: Iterable[NodeName]) -> model.Ledger:
    """Note that agents were seen at a build, and which item that was is not known yet."""
    memories = ledger.memories
    return _with(
        ledger,
        {
            name: attrs.evolve(memories[name], untold=memories[name].untold + 1)
            for name in names
            if name in memories
        },
    )


def linked(ledger: model.Ledger, name: NodeName) -> model.Ledger:
    """Note that an item was that of a build which an agent was seen at."""
    memory = _memory(ledger, name)
    if memory is None or not memory.untold:
        return ledger
    return _with(ledger, {name: attrs.evolve(memory, untold=memory.untold - 1)})


def _memory(ledger: model.Ledger, name: NodeName) -> Memory | None:
    return ledger.memories.get(name) or ledger.departed.get(name)


def _counted(ledger: model.Ledger, name: NodeName, memory: Memory) -> model.Ledger:
    """Count a build, unless it is the one that was seen and not known by its item."""
    if memory.untold:
        return _with(ledger, {name: attrs.evolve(memory, untold=memory.untold - 1)})
    return _with(ledger, {name: attrs.evolve(memory, builds=memory.builds + 1)})


def _with(ledger: model.Ledger, changed: Mapping[NodeName, Memory]) -> model.Ledger:
    """Return a ledger with other memories of agents that are there, or have departed."""
    if not changed:
        return ledger
    gone = {name: memory for name, memory in changed.items() if name not in ledger.memories}
    here = {name: memory for name, memory in changed.items() if name not in gone}
    return attrs.evolve(
        ledger,
        memories={**ledger.memories, **here} if here else ledger.memories,
        departed={**ledger.departed, **gone} if gone else ledger.departed,
    )


def extra_builds(
    before: model.Ledger, after: model.Ledger, policy: model.Policy
) -> tuple[TemplateName, ...]:
    """Return the template of each build that a single-use agent had beyond its first."""
    once = {t.name for t in policy.templates if t.retention.once}
    extra: list[TemplateName] = []
    if not once:
        return ()
    for old, new in ((before.memories, after.memories), (before.departed, after.departed)):
        for name, memory in new.items() if new is not old else ():
            remembered = _memory(before, name)
            if memory is remembered or memory.builds < 2 or memory.template not in once:
                continue
            known = max(1, remembered.builds if remembered is not None else memory.builds)
            extra += [memory.template] * (memory.builds - known)
    return tuple(extra)


def unasked(
    plan: model.Plan, policy: model.Policy, view: model.ControllerView
) -> tuple[latency.Vanished, ...]:
    """Return what is to be asked about for a free single-use agent: the item it was started for.

    That item has left the queue, and what became of it was not asked when it left: nobody looked
    for a while. Each is asked about once (``asked``).
    """
    once = {t.name for t in policy.templates if t.retention.once}
    if not once or not view.whole:
        return ()
    waiting = {item.id for item in view.items}
    return tuple(
        latency.Vanished(
            item=memory.item,
            template=agent.template,
            ready_at=agent.created_at or memory.first_seen_at,
            gone_at=view.read_at,
        )
        for agent in plan.agents
        if agent.phase is Phase.IDLE
        and agent.template in once
        and _is_unused(agent)
        and (memory := agent.memory) is not None
        and memory.item is not None
        and not memory.item_asked
        and memory.item not in waiting
    )


def asked(ledger: model.Ledger, items: Iterable[model.ItemId]) -> model.Ledger:
    """Note that it was asked what became of these items."""
    about = frozenset(items)
    if not about:
        return ledger
    return _with(
        ledger,
        {
            name: attrs.evolve(memory, item_asked=True)
            for name, memory in ledger.memories.items()
            if memory.item in about and not memory.item_asked
        },
    )
