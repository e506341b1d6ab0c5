"""What is removed because its life is over: drained, lost and orphaned agents.

Rules: an orphan goes at its second sighting and after a grace; nothing goes while its source is
not synced; after a start of the controller (or of ours) nodes are left alone until pipelines have
had time to ask for them back; when the share to sweep is implausible nothing is swept and a
person is asked. Pure; refuses to know demand beyond "this item wants exactly that node".
"""

from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from backends import api as backends_api
from broker.core import model
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.fleet import keeping, lifecycle
from broker.core.model import Agent, NodeName, Phase
from outside import counts


@frozen(kw_only=True)
class Sweep:
    """Actions and refusals of one cycle."""

    actions: tuple[model.Action, ...] = ()
    refusals: tuple[model.Refusal, ...] = ()
    wake_at: tuple[float, ...] = field(default=())


def is_resting(agent: Agent, ledger: model.Ledger, policy: model.Policy, *, now: float) -> bool:
    """Return whether pipelines may still ask for this node after a start of the controller."""
    memory = agent.memory
    if ledger.session_at is None:
        return True
    if now - ledger.session_at >= policy.resume_grace_s:
        return False
    if memory is None or memory.busy_session == ledger.session:
        return False
    return memory.first_seen_at <= ledger.session_at


def wants_back(
    agent: Agent, wishes: Iterable[demand.Wish], ledger: model.Ledger
) -> demand.Wish | None:
    """Return the item of a pipeline that must go on with exactly this node.

    A pipeline that was running on the node when the controller went down asks for the node by its
    name (jenkins-rest-and-agents 7.5). An ordinary item shows the same text when the node is the
    only one of its label, so the text alone counts only if the node was there before the
    controller started and we have not seen it work since. What has ended cannot come back, nor
    what nobody has seen online and is past its deadline: deleting its node is what tells the
    pipeline so.
    """
    if _has_ended(agent) or _never_came(agent):
        return None
    for wish in wishes:
        if wish.kind is not demand.WishKind.NOW:
            continue
        if wish.pinned == agent.name:
            return wish
        named = wish.label.source is model.LabelSource.SINGLE_NODE
        if not named or wish.label.node != agent.name:
            continue
        worked = agent.memory is not None and agent.memory.busy_session == ledger.session
        if not worked and _is_older(agent, ledger) and "PlaceholderTask" in wish.item.task_class:
            return wish
    return None


def _is_older(agent: Agent, ledger: model.Ledger) -> bool:
    """Return whether an agent was there before the controller's present session."""
    if agent.created_at is None or ledger.session_at is None:
        return True
    return agent.created_at <= ledger.session_at


def pin(
    wishes: Iterable[demand.Wish], agents: Iterable[Agent], ledger: model.Ledger
) -> tuple[demand.Wish, ...]:
    """Mark the items that must go on with exactly one agent: no other can serve them."""
    wishes = tuple(wishes)
    if all(wish.label.node is None for wish in wishes):
        return wishes
    present = {agent.name: agent for agent in agents}
    marked = []
    for wish in wishes:
        agent = present.get(wish.label.node) if wish.label.node is not None else None
        if agent is not None and wants_back(agent, (wish,), ledger) is not None:
            marked.append(demand.pinned_to(wish, agent.name))
        else:
            marked.append(wish)
    return tuple(marked)


def _has_ended(agent: Agent) -> bool:
    if agent.instance is None:
        return agent.phase is Phase.LOST or _is_parted(agent.computer)
    return lifecycle.see_instance(agent.instance, synced=True) is lifecycle.InstanceSight.ENDED


def _never_came(agent: Agent) -> bool:
    """Return whether, as far as anybody knows, an agent was started, and that is all."""
    if agent.phase is not Phase.LOST or agent.memory is None:
        return False
    return agent.memory.online_at is None and not agent.memory.busy_session


def _is_parted(computer: model.Computer | None) -> bool:
    """Return whether an agent is surely not connected; one taken offline still may be."""
    return computer is not None and computer.offline and not computer.temporarily_offline


def sweep(
    world: model.World,
    policy: model.Policy,
    agents: Sequence[Agent],
    wishes: Sequence[demand.Wish],
    *,
    kept: Mapping[NodeName, keeping.Kept],
) -> Sweep:
    """Decide about every agent whose life is over and for whom nothing is in flight.

    ``kept``: whose instance stays for a look, though its node goes.
    """
    actions: list[model.Action] = []
    refusals: list[model.Refusal] = []
    wake: list[float] = []
    ending = [agent for agent in agents if agent.phase in agents_.GOING]
    naming = demand.by_name(wishes) if ending else {}
    for agent in ending:
        if agent.in_flight:
            continue
        look = kept.get(agent.name)
        if look is not None:
            wake.append(look.until_at)
        step = _step(agent, world, policy, naming.get(agent.name, ()), look)
        if isinstance(step, float):
            wake.append(step)
        elif isinstance(step, model.Refusal):
            refusals.append(step)
        elif step is not None:
            actions.append(step)
    plausible, refused = _plausible(actions, ending, policy, of=len(agents), now=world.now)
    return Sweep(actions=tuple(plausible), refusals=(*refusals, *refused), wake_at=tuple(wake))


def _step(
    agent: Agent,
    world: model.World,
    policy: model.Policy,
    wishes: Sequence[demand.Wish],
    look: keeping.Kept | None,
) -> model.Action | model.Refusal | float | None:
    """Return what is to be done with one, why it is not, or when to look again."""
    step: model.Action | model.Refusal | float | None = None
    match agent.phase:
        case Phase.DRAINED if look is not None and keeping.is_unfit(agent):
            return model.Refusal(subject=agent.name, text=keeping.reason(agent, look))
        case Phase.DRAINED:
            step = _drained(agent, world, policy, wishes)
        case Phase.LOST:
            step = _lost(agent, world, policy, wishes)
        case Phase.ORPHAN:
            step = _orphan(agent, world, policy)
        case Phase.GONE if look is not None:
            return model.Refusal(subject=agent.name, text=keeping.reason(agent, look))
        case Phase.GONE:
            step = _ended(agent, now=world.now)
    if look is not None and isinstance(step, model.RetireAgent):
        return evolve(step, reason=f"{step.reason}; {look.words(agent)}", keeps=True)
    return step


def _drained(
    agent: Agent, world: model.World, policy: model.Policy, wishes: Sequence[demand.Wish]
) -> model.Action | model.Refusal:
    cause = lifecycle.cause_of(agent.computer)
    wish = None if cause.unfit else wants_back(agent, wishes, world.ledger)
    if wish is not None:
        return model.UncordonAgent(
            name=agent.name, reason=f"item {wish.item.id} must go on with this very node"
        )
    if is_resting(agent, world.ledger, policy, now=world.now):
        return model.Refusal(
            subject=agent.name,
            text="out of service and empty, but a pipeline may still ask for it after the start",
        )
    told = agent.computer.offline_cause if agent.computer is not None else ""
    reason = told.removeprefix(model.CORDON_MARK).strip() or "out of service and empty"
    if not cause.accident and _died(agent):
        cause, reason = agents_.why_lost(agent)  # in its last build, after which it was to go
    return model.RetireAgent(
        name=agent.name, backend=agent.backend, reason=reason, cause=cause, cordoned=True
    )


def _died(agent: Agent) -> bool:
    """Return whether an instance has ended that nobody asked to, and not just with success."""
    end = agent.instance.exit if agent.instance is not None else None
    if end is None or agent.memory is None or agent.memory.removals > 0:
        return False
    return model.Cause.of_exit(end.slug) is not model.Cause.LOST_EXITED or end.code != 0


def _lost(
    agent: Agent, world: model.World, policy: model.Policy, wishes: Sequence[demand.Wish]
) -> model.Action | model.Refusal | float:
    cause, text = agents_.why_lost(agent)
    if is_resting(agent, world.ledger, policy, now=world.now):
        return model.Refusal(subject=agent.name, text=f"{text}, but the controller just started")
    wish = wants_back(agent, wishes, world.ledger)
    if wish is not None:
        return model.Refusal(
            subject=agent.name, text=f"{text}, but item {wish.item.id} must go on with it"
        )
    if agent.instance is not None:
        due = _certificate_due(agent, policy, now=world.now)
        if due is not None:
            return due
        return model.RetireAgent(name=agent.name, backend=agent.backend, reason=text, cause=cause)
    waiting = _second_sighting(agent, policy, now=world.now)
    if waiting is not None:
        return waiting
    was_there = agent.memory is not None and agent.memory.instance_seen
    return model.SweepNode(
        name=agent.name,
        reason=f"{text}, and it is offline",
        cause=cause if was_there else model.Cause.SWEPT,
    )


def _certificate_due(agent: Agent, policy: model.Policy, *, now: float) -> float | None:
    """Return until when it is waited for what an instance died of; None: nothing is to come.

    Whoever else removes it (a drain, an eviction, a person) is told by its platform once it is
    gone, and of what; a node that goes before keeps "its instance is being removed" for ever.
    """
    instance, memory = agent.instance, agent.memory
    if instance is None or instance.state is not backends_api.InstanceState.STOPPING:
        return None
    if instance.exit is not None or instance.spent or memory is None:
        return None
    since = memory.phase_at if memory.phase_at is not None else now
    due = since + policy.orphan_grace_s
    return due if now < due else None


def _orphan(
    agent: Agent, world: model.World, policy: model.Policy
) -> model.Action | model.Refusal | float | None:
    waiting = _second_sighting(agent, policy, now=world.now)
    if waiting is not None:
        return waiting
    if agent.backend is None:
        return None
    return model.SweepInstance(
        name=agent.name, backend=agent.backend, reason="the controller has no node of its name"
    )


def _ended(agent: Agent, *, now: float) -> model.Action | model.Refusal | None:
    if agent.instance is None or agent.backend is None:
        return None
    if agent.instance.spent and agent.instance.state is backends_api.InstanceState.STOPPING:
        # it was asked for, and to ask again changes nothing
        return model.Refusal(subject=agent.name, text=agents_.leaving_words(agent, now=now))
    cause, reason = model.Cause.SWEPT, "it has ended and its node is gone"
    if _died(agent):
        cause, text = agents_.why_lost(agent)
        reason = f"{text}, and its node is gone"
    # what was kept has told its end when its node went, unless that was somebody else's doing
    told = agent.memory is not None and agent.memory.deleted_at is not None
    return model.SweepInstance(
        name=agent.name,
        backend=agent.backend,
        reason=reason,
        cause=cause,
        told=told and keeping.ended_badly(agent),
    )


def _second_sighting(agent: Agent, policy: model.Policy, *, now: float) -> float | None:
    """Return when to look again, or None if it was seen twice and long enough."""
    memory = agent.memory
    if memory is None or memory.orphan_at is None:
        return now
    due = memory.orphan_at + policy.orphan_grace_s
    return None if memory.orphan_sightings >= 2 and now >= due else due


def _broken_off(agent: Agent, policy: model.Policy, *, now: float) -> bool:
    """Return whether a node is what a launch left that was broken off, by a kill of ours perhaps.

    No instance of it was seen, it was never online, and it is not older than an agent that is
    still to come: no build is lost with it, whatever else is the matter.
    """
    template = None if agent.template is None else policy.template(agent.template)
    if template is None or agent.created_at is None or agent.instance is not None:
        return False
    memory, computer = agent.memory, agent.computer
    was_there = memory is not None and (memory.instance_seen or memory.online_at is not None)
    left = computer is not None and computer.idle and not computer.offline_cause
    return left and not was_there and now - agent.created_at <= template.connect_deadline_s


def _plausible(
    actions: Sequence[model.Action],
    ending: Sequence[Agent],
    policy: model.Policy,
    *,
    of: int,
    now: float,
) -> tuple[list[model.Action], list[model.Refusal]]:
    alive: set[NodeName] = {
        a.name
        for a in ending
        if a.phase in {Phase.ORPHAN, Phase.LOST} and not _broken_off(a, policy, now=now)
    }
    doubtful = {
        a.name
        for a in actions
        if isinstance(a, model.SweepNode | model.SweepInstance) and a.name in alive
    }
    limit = max(policy.sweep_floor, int(policy.sweep_share * of))
    if len(doubtful) <= limit:
        return list(actions), []
    refusal = model.Refusal(
        subject="sweep",
        implausible=True,
        text=(
            f"{len(doubtful)} of {counts.told(of, 'agent looks', 'agents look')} "
            f"left over, more than {limit} at once "
            "is implausible: check the controller and the backends, then run `agent-broker sweep`"
        ),
    )
    return [a for a in actions if a.name not in doubtful], [refusal]
