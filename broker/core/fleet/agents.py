"""Agents, joined: what the controller, the backends and our own memory say of one name.

Takes a ``World`` and gives the agents of this owner, each with its phase, and the ledger after
this observation (memories updated, visible expectations dropped, failed starts counted). Rules:
only names that carry our owner mark are agents (I9); a source that is not synced is unknown,
never empty (I3); a view is evidence only about what was done before its read began, for each
source is read at its own pace, and a view may be older than what we did since. Refuses to know
what is wanted and what is to be done.
"""

import math
import operator
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.core.fleet import lifecycle, marks, places
from broker.core.model import Agent, Cause, Memory, NodeName, Phase, Verb

_AT_WORK = frozenset({Phase.IDLE, Phase.BUSY})

ASSIGNED = "?"
"""In ``Memory.executable_urls``: at work since the last look, and no URL to be seen yet."""
_NAMED_KEPT = 8


@frozen(kw_only=True)
class Evidence:
    """What all sources show of one name in this cycle."""

    name: NodeName
    computer: model.Computer | None
    instance: backends_api.Instance | None
    marks: marks.Marks | None
    backend: model.BackendName | None
    backend_synced: bool
    controller_synced: bool
    read_at: float  # when the older one of the views that tell of it was begun


def observe(
    world: model.World, policy: model.Policy, last: Iterable[Agent] = ()
) -> tuple[tuple[Agent, ...], model.Ledger, tuple[tuple[Phase | None, Phase], ...]]:
    """Return the agents sorted by name, the ledger after this look, and illegal phase changes.

    ``last``: what the look before this one has returned, of the same owner. An agent of whom all
    sources show the same again is taken from there: that saves time, and changes nothing.
    """
    ledger = _watch_session(world)
    computers = {c.name: c for c in world.controller.computers} if world.controller.synced else {}
    same = _unchanged(world, ledger, last, computers)
    agents: list[Agent] = list(same.values())
    illegal: list[tuple[Phase | None, Phase]] = []
    gone: set[NodeName] = set()
    memories = dict(ledger.memories)
    expectations = dict(ledger.expectations)
    fates = dict(ledger.fates)
    for evidence in _gather(world, policy, computers, same):
        old = memories.get(evidence.name)
        memory = remember(old, evidence, world=world, ledger=ledger)
        expectation = _still_expected(expectations.get(evidence.name), evidence, world=world)
        if expectation is None:
            expectations.pop(evidence.name, None)
        agent = _join(evidence, memory, expectation, world=world, policy=policy)
        if old is not None and not lifecycle.is_legal(old.phase, agent.phase):
            illegal.append((old.phase, agent.phase))
        is_new = old is None or not old.whole
        if agent.phase not in _AT_WORK or agent.closed or is_new or ledger.backoffs:
            ledger = _count_start(ledger, agent, old, world=world, policy=policy)
        if (fate := places.fate(agent, old, why=why_lost, now=world.now)) is not None:
            places.note(fates, agent.name, fate)
        if agent.memory is not None:
            memories[evidence.name] = agent.memory
        if agent.phase is Phase.GONE and agent.instance is None and expectation is None:
            gone.add(evidence.name)
            continue
        agents.append(agent)
    agents.sort(key=operator.attrgetter("name"))
    ledger = attrs.evolve(ledger, memories=memories, expectations=expectations, fates=fates)
    return tuple(agents), ledgers.forget(ledger, gone), tuple(illegal)


def _watch_session(world: model.World) -> model.Ledger:
    ledger = attrs.evolve(world.ledger, cycle=world.ledger.cycle + 1)
    view = world.controller
    if not view.synced:
        return ledger
    ledger = attrs.evolve(ledger, seen_at=view.read_at)
    # a time to come was written by an earlier life of ours, whose clock was ahead
    has_session = ledger.session_at is not None and ledger.session_at <= world.now
    if view.session == ledger.session and has_session:
        return ledger
    return attrs.evolve(ledger, session=view.session, session_at=world.now)


def _unchanged(
    world: model.World,
    ledger: model.Ledger,
    last: Iterable[Agent],
    computers: Mapping[NodeName, model.Computer],
) -> dict[NodeName, Agent]:
    """Return by name the agents of whom all sources show what they showed at the last look.

    Those at work or idle alone: no time is part of what such an agent is, and a build that was
    given to it just now counts only at the next look.
    """
    if not last or not world.controller.synced:
        return {}
    views = {name: view.instances for name, view in world.backends.items() if view.synced}
    instances = {name: {one.name: one for one in listed} for name, listed in views.items()}
    others = _listed_twice(views.values())
    others |= ledger.expectations.keys() | world.controller.takes_work.keys()
    nothing: Mapping[str, backends_api.Instance] = {}
    memories, session, assigned = ledger.memories, ledger.session, ASSIGNED
    idle, busy = Phase.IDLE, Phase.BUSY
    same = {}
    for agent in last:
        name, phase, memory = agent.name, agent.phase, agent.memory
        if (
            (phase is idle or phase is busy)
            and agent.expectation is None
            and memory is not None
            and (phase is idle or memory.busy_session == session)
            and ((kept := memories.get(name)) is memory or kept == memory)
            and (computer := computers.get(name)) is not None
            and (computer is agent.computer or computer == agent.computer)
            and agent.backend is not None
            and (instance := instances.get(agent.backend, nothing).get(name)) is not None
            and instance == agent.instance
            and instance.usage == agent.instance.usage  # which makes no difference otherwise
            and assigned not in memory.executable_urls
            and not (memory.closed_at is not None and computer.offline)
            and name not in others
        ):
            same[name] = agent
    return same


def _listed_twice(
    listed: Collection[Sequence[backends_api.Instance]],
) -> set[str]:
    """Return the names of which it is to be decided where they run."""
    names = [one.name for listing in listed for one in listing]
    if len(set(names)) == len(names):
        return set()
    return {name for name, times in Counter(names).items() if times > 1}


def _gather(
    world: model.World,
    policy: model.Policy,
    computers: Mapping[NodeName, model.Computer],
    without: Mapping[NodeName, Agent],
) -> list[Evidence]:
    """Collect every other name of ours from all sources and from memory, sorted."""
    placeholder = marks.placeholder_name(policy.owner)
    marks_of: dict[NodeName, marks.Marks | None] = {}
    instances: dict[NodeName, tuple[model.BackendName, backends_api.Instance]] = {}
    for name in computers.keys() - without.keys():
        read = marks.from_description(computers[name].description)
        if read is not None and read.owner == policy.owner and name != placeholder:
            marks_of[name] = read
    for backend, view in world.backends.items():
        for instance in view.instances if view.synced else ():
            if instance.name in without:
                continue
            read = marks.from_metadata(instance.metadata)
            if read is None or read.owner != policy.owner:
                continue
            instances[NodeName(instance.name)] = (backend, instance)
            marks_of.setdefault(NodeName(instance.name), read)
    remembered = world.ledger.memories.keys() | world.ledger.expectations.keys()
    for name in remembered - without.keys():
        marks_of.setdefault(name, None)
    everybody = all(view.whole for view in world.backends.values())
    return [
        _evidence(
            name,
            marks_of[name],
            computers.get(name),
            instances.get(name),
            world=world,
            everybody=everybody,
        )
        for name in sorted(marks_of)
    ]


def _evidence(
    name: NodeName,
    read: marks.Marks | None,
    computer: model.Computer | None,
    placed: tuple[model.BackendName, backends_api.Instance] | None,
    *,
    world: model.World,
    everybody: bool,
) -> Evidence:
    remembered = world.ledger.memories.get(name)
    backend = placed[0] if placed is not None else (read.backend if read is not None else None)
    if backend is None:
        expectation = world.ledger.expectations.get(name)
        backend = remembered.backend if remembered is not None else None
        if backend is None and expectation is not None:
            backend = expectation.backend
    view = world.backends.get(backend) if backend is not None else None
    failed_at = remembered.failed_at if remembered is not None else None
    since = failed_at if failed_at is not None else -math.inf
    asked = (view,) if view is not None else world.backends.values()
    if view is not None:
        had_instance = remembered is not None and remembered.instance_seen
        absent = not view.odd and (had_instance or not view.hidden) and view.read_at >= since
        absent = absent or (remembered is not None and _is_past(remembered.terminated_at, view))
        backend_synced = view.synced and (placed is not None or absent)
    else:
        # a backend that is no longer configured cannot be asked about its node: unknown, for ever;
        # what has no node either is gone once everybody who can be asked has answered
        backend_synced = computer is None and everybody
    return Evidence(
        name=name,
        computer=computer,
        instance=placed[1] if placed is not None else None,
        marks=read,
        backend=backend,
        backend_synced=backend_synced,
        controller_synced=world.controller.synced
        and (
            computer is not None
            or _tells_absent(world.controller, name, since=since)
            or (remembered is not None and _is_past(remembered.deleted_at, world.controller))
        ),
        read_at=min(world.controller.read_at, *(one.read_at for one in asked), math.inf),
    )


def _tells_absent(view: model.ControllerView, name: NodeName, *, since: float) -> bool:
    return not view.is_unread(name) and view.read_at >= since


def _is_past(removed_at: float | None, view: model.ControllerView | model.BackendView) -> bool:
    """Return whether what is not here was removed by us before the view was read.

    An entry that cannot be read may be any other, but not that: else each agent that goes would
    fill a cap for as long as such an entry is there.
    """
    return removed_at is not None and view.read_at >= removed_at


def remember(
    old: Memory | None, evidence: Evidence, *, world: model.World, ledger: model.Ledger
) -> Memory:
    """Return the memory of a name after this look. Unsynced sources change nothing."""
    now = world.now
    read = evidence.marks
    facts: dict[str, Any] = {}
    expectation = ledger.expectations.get(evidence.name) if old is None else None
    if expectation is not None:
        facts.update(
            created_at=expectation.since_at,
            # our own launch of this life: it may be online before it is first looked at
            offline_at=expectation.since_at if expectation.verb is Verb.LAUNCH else None,
            template=expectation.template,
            backend=expectation.backend,
            item=expectation.item,
            slot=expectation.slot,
        )
    if read is not None and (old is None or old.template is None):
        # a clock that went back between two lives must not make an agent younger than now
        created_at = min(read.created_at, now)
        facts.update(created_at=created_at, template=read.template, backend=evidence.backend)
        facts.update(slot=read.slot)
    instance = evidence.instance
    if instance is not None:
        facts.update(instance_seen=True)
        if instance.flaw is not None:
            facts.update(flawed=True)
        if instance.mishap is not None:
            facts.update(mishap=instance.mishap)
        if instance.usage is not None:
            facts.update(usage=instance.usage)
    memory = Memory(first_seen_at=now, **facts) if old is None else changed(old, **facts)
    if not evidence.controller_synced:
        return changed(memory, nominated_at=None)
    if old is not None and world.ledger.seen_at == world.controller.read_at:
        return memory  # the view of the last look, once more: a second look is another view
    facts |= _work(memory, evidence, world)
    came = facts.get("online_at", memory.online_at) is not None
    if came and not memory.whole and _is_whole(instance):
        facts["whole"] = True
    memory = changed(memory, **facts)
    return _remember_refusal(memory, evidence, world)


def _is_before_its_build(
    memory: Memory, computer: model.Computer | None, view: model.ControllerView
) -> bool:
    """Return whether a view shows it idle that was read before it was known to have a build."""
    known_at = memory.glanced_at
    is_old = known_at is not None and view.read_at < known_at
    return is_old and computer is not None and computer.idle


def _is_whole(instance: backends_api.Instance | None) -> bool:
    """Return whether nothing of an instance, as far as it is seen, is missing."""
    if instance is None:
        return True
    return instance.flaw is None and instance.state is not backends_api.InstanceState.STARTING


_FACTS = tuple(attribute.name for attribute in attrs.fields(Memory))
_facts_of = operator.attrgetter(*_FACTS)


def changed(memory: Memory, **facts: Any) -> Memory:
    """Return a memory with other facts; the same one if they are what it remembers.

    Every agent of a first look comes by here: ``attrs.evolve`` would take twice as long.
    """
    for name, value in facts.items():
        if getattr(memory, name) != value:
            return Memory(**{**dict(zip(_FACTS, _facts_of(memory), strict=True)), **facts})
    return memory


def _remember_refusal(memory: Memory, evidence: Evidence, world: model.World) -> Memory:
    """Note what the controller says of giving it work, if it was asked at this look."""
    if memory.closed_at is not None and (evidence.computer is None or evidence.computer.offline):
        memory = attrs.evolve(memory, closed_at=None, closed_looks=0)
    takes = world.controller.takes_work.get(evidence.name)
    if takes is None:
        return memory
    if takes:
        return attrs.evolve(memory, closed_at=None, closed_looks=0)
    since = memory.closed_at if memory.closed_at is not None else world.now
    return attrs.evolve(memory, closed_at=since, closed_looks=memory.closed_looks + 1)


def _work(memory: Memory, evidence: Evidence, world: model.World) -> dict[str, Any]:
    """Return what there is to remember of what it was seen to do."""
    computer, now, session = evidence.computer, world.now, world.controller.session
    if _is_before_its_build(memory, computer, world.controller):
        return {}
    sight = lifecycle.see_computer(computer, synced=True)
    if computer is None or sight in {
        lifecycle.ComputerSight.ABSENT,
        lifecycle.ComputerSight.OFFLINE,
        lifecycle.ComputerSight.CHECKED,  # it has its deadline, too
    }:
        since = memory.offline_at if memory.offline_at is not None else now
        return {"offline_at": since, **_away(memory)}
    is_idle = sight is lifecycle.ComputerSight.IDLE
    if sight in {lifecycle.ComputerSight.CORDONED, lifecycle.ComputerSight.HELD}:
        # out of service hides whether it is connected
        return {"offline_at": None, **_away(memory)}
    idle_at = (memory.idle_at if memory.idle_at is not None else now) if is_idle else None
    first = memory.online_at is None
    builds, executable_urls = _look_at_work(memory, computer)
    new = {*executable_urls} - {*memory.executable_urls} - {"", ASSIGNED}
    told = new & {*memory.told}  # counted already, when it was asked what became of their items
    builds -= min(len(told), builds - memory.builds)
    # a build that is named is of no other item than the one that is seen to start
    untold = memory.untold + builds - memory.builds - len(new - told)
    free_at = None
    if not computer.offline and computer.busy_executors < computer.executors:
        took = builds > memory.builds or not set(executable_urls) <= set(memory.executable_urls)
        free_at = now if took or memory.free_at is None else memory.free_at
    return {
        "online_at": now if first else memory.online_at,
        "online_witnessed": memory.offline_at is not None if first else memory.online_witnessed,
        "offline_at": None,
        "idle_at": idle_at,
        "busy_session": session if sight is lifecycle.ComputerSight.BUSY else memory.busy_session,
        "free_at": free_at,
        "builds": builds,
        "named": (*memory.named, *sorted(new))[-_NAMED_KEPT:] if new else memory.named,
        "told": tuple(url for url in memory.told if url not in told),
        "untold": max(0, untold),
        "executable_urls": executable_urls,
    }


def _away(memory: Memory) -> dict[str, Any]:
    """Return what is remembered of one that may not be connected.

    A Pipeline goes on when it is back, as the build that it was: it is not counted again.
    """
    named = tuple(url for url in memory.executable_urls if url not in {"", ASSIGNED})
    return {"idle_at": None, "free_at": None, "executable_urls": named}


def _look_at_work(memory: Memory, computer: model.Computer) -> tuple[int, tuple[str, ...]]:
    """Return how many builds are known now, and one entry for each executor at work.

    A build that shows its URL counts. One that does not is ``ASSIGNED`` at its first look: it may
    not have started yet, nor ever do so. From the next look on it counts, whatever became of it:
    an empty text if its URL stays hidden, or the URL that it shows now.
    """
    if computer.idle and not memory.executable_urls:
        return memory.builds, ()
    before = Counter(memory.executable_urls)
    urls = () if computer.idle else computer.executable_urls
    hidden = 0 if computer.idle else max(1, computer.busy_executors) - len(urls)
    old_hidden = before[""] + before[ASSIGNED]
    settled = max(0, min(hidden, old_hidden))
    named = (Counter(urls) - before).total()
    fresh = before[ASSIGNED] + max(0, named - (old_hidden - settled))
    return memory.builds + fresh, urls + ("",) * settled + (ASSIGNED,) * (hidden - settled)


def _still_expected(
    expectation: model.Expectation | None, evidence: Evidence, *, world: model.World
) -> model.Expectation | None:
    if expectation is None:
        return None
    tells = evidence.controller_synced and evidence.backend_synced
    if expectation.done_at is not None and tells and evidence.read_at < expectation.done_at:
        return expectation  # what was read before it was done says nothing of it
    if world.now >= expectation.expires_at:
        return None
    if expectation.done_at is None or not tells:
        return expectation
    computer = evidence.computer
    visible = ledgers.is_visible(
        expectation,
        computer=computer,
        instance_seen=evidence.instance is not None,
        cordoned=computer is not None and lifecycle.is_cordoned(computer),
        check=lifecycle.check_due(computer) if computer is not None else None,
        held=computer is not None and lifecycle.is_by_order(computer),
    )
    return None if visible else expectation


def _join(
    evidence: Evidence,
    memory: Memory,
    expectation: model.Expectation | None,
    *,
    world: model.World,
    policy: model.Policy,
) -> Agent:
    template = policy.template(memory.template) if memory.template is not None else None
    deadline = template.connect_deadline_s if template is not None else 300.0
    since = [at for at in (memory.offline_at, memory.created_at) if at is not None]
    phase = lifecycle.classify(
        lifecycle.see_instance(evidence.instance, synced=evidence.backend_synced),
        lifecycle.see_computer(evidence.computer, synced=evidence.controller_synced),
        launching=expectation is not None and expectation.verb is Verb.LAUNCH,
        overdue=memory.offline_at is not None and world.now - max(since) >= deadline,
    )
    return Agent(
        name=evidence.name,
        phase=phase,
        template=memory.template,
        backend=evidence.backend,
        asked=_asked(evidence, expectation, template),
        revision=evidence.marks.revision if evidence.marks is not None else "",
        created_at=memory.created_at,
        computer=evidence.computer,
        instance=evidence.instance,
        absent=evidence.instance is None and evidence.backend_synced,
        expectation=expectation,
        memory=_note_phase(memory, phase, now=world.now, read_at=evidence.read_at),
        cordoned=evidence.computer is not None and lifecycle.is_cordoned(evidence.computer),
        check=lifecycle.check_due(evidence.computer) if evidence.computer is not None else None,
    )


def _asked(
    evidence: Evidence, expectation: model.Expectation | None, template: model.Template | None
) -> frozenset[str]:
    """Return the labels that make an agent a variant: its node's, or those it is ordered with."""
    if evidence.computer is not None:
        return template.asked(evidence.computer.kind) if template is not None else frozenset()
    return expectation.asked if expectation is not None else frozenset()


_LEFT_OVER = frozenset({Phase.ORPHAN, Phase.LOST})


def _note_phase(memory: Memory, phase: Phase, *, now: float, read_at: float) -> Memory:
    since = memory.phase_at if memory.phase is phase and memory.phase_at is not None else now
    if phase in _LEFT_OVER:
        # the same views, looked at again, are not a second sighting
        is_new = memory.orphan_read_at is None or read_at > memory.orphan_read_at
        return changed(
            memory,
            phase=phase,
            phase_at=since,
            orphan_sightings=memory.orphan_sightings + is_new,
            orphan_read_at=read_at if is_new else memory.orphan_read_at,
            orphan_at=memory.orphan_at if memory.orphan_at is not None else now,
        )
    if memory.phase is phase and memory.phase_at == since and memory.orphan_at is None:
        return memory
    return changed(
        memory,
        phase=phase,
        phase_at=since,
        orphan_sightings=0,
        orphan_at=None,
        orphan_read_at=None,
    )


def _count_start(
    ledger: model.Ledger,
    agent: Agent,
    old: Memory | None,
    *,
    world: model.World,
    policy: model.Policy,
) -> model.Ledger:
    """Clear back-offs when a start worked out; count a failure when it did not.

    One whose agent is closed before its first build did not: whatever closes it (a plugin, a
    person) may close the next ones as well, which being online then does not disprove.
    """
    memory = agent.memory
    if memory is None or agent.backend is None or agent.template is None:
        return ledger
    if memory.flawed and not memory.whole:
        is_known = old is not None and old.flawed
        return ledger if is_known else _count_lost(ledger, agent, world=world, policy=policy)
    if agent.phase is Phase.DRAINED and (old is None or old.phase is not Phase.DRAINED):
        cause = lifecycle.cause_of(agent.computer)
        if cause is Cause.READY_CHECK:
            return _count_unready(ledger, agent, world=world, policy=policy)
    if memory.online_at is not None:
        return _count_online(ledger, agent, memory, old, world=world, policy=policy)
    was_lost = old is not None and old.phase in {Phase.LOST, Phase.GONE}
    leaving = agent.expectation is not None and (
        agent.expectation.verb is not Verb.LAUNCH or _is_taken_back(agent)
    )
    if agent.phase is not Phase.LOST or was_lost or leaving or agent.instance is None:
        return ledger
    return _count_lost(ledger, agent, world=world, policy=policy)


def _count_online(
    ledger: model.Ledger,
    agent: Agent,
    memory: Memory,
    old: Memory | None,
    *,
    world: model.World,
    policy: model.Policy,
) -> model.Ledger:
    key, launch = _keys_of(agent)
    before = ledger.backoffs.get(key)
    was_closed = old is not None and old.closed_looks >= model.CLOSED_LOOKS
    if agent.closed and not was_closed and memory.builds == 0:
        return ledgers.failed(
            ledger,
            key,
            cause=model.Cause.CLOSED,
            reason="it was online and given no work: it accepts no tasks",
            now=world.now,
            policy=policy,
            jitter=world.jitter,
            revision=agent.revision,
        )
    is_first = memory.whole and (old is None or not old.whole)
    if is_first:
        template = policy.by_name.get(agent.template)
        if template is not None and template.revision == agent.revision:
            ledger = ledgers.proved(ledger, key, agent.revision)
    came = memory.online_witnessed and is_first
    worked = memory.whole and memory.builds > (old.builds if old is not None else 0)
    if worked or (came and (before is None or before.cause is not model.Cause.CLOSED)):
        return ledgers.succeeded(ledger, key, launch)
    return ledger


def _count_lost(
    ledger: model.Ledger, agent: Agent, *, world: model.World, policy: model.Policy
) -> model.Ledger:
    key, launch = _keys_of(agent)
    cause, reason = why_lost(agent)
    return ledgers.failed(
        ledger,
        launch if cause.scope is model.Scope.LAUNCH else key,
        cause=cause,
        reason=reason,
        now=world.now,
        policy=policy,
        jitter=world.jitter,
        revision=agent.revision,
    )


def _count_unready(
    ledger: model.Ledger, agent: Agent, *, world: model.World, policy: model.Policy
) -> model.Ledger:
    """Count a start whose ready check did not pass: it is as if it had not come online."""
    key, _ = _keys_of(agent)
    return ledgers.failed(
        ledger,
        key,
        cause=Cause.READY_CHECK,
        reason=unfit_words(agent, Cause.READY_CHECK),
        now=world.now,
        policy=policy,
        jitter=world.jitter,
        revision=agent.revision,
    )


def unfit_words(agent: Agent, cause: Cause) -> str:
    """Return how a check of an agent failed, as its node says; without that what the cause is."""
    told = agent.computer.offline_cause if agent.computer is not None else ""
    return told.partition(f"{cause.slug}: ")[2] or cause.words


def _keys_of(agent: Agent) -> tuple[model.BackoffKey, model.BackoffKey]:
    """Return what is held back after failures of its template there, and of single starts."""
    backend = agent.backend or model.BackendName("")
    return (
        ledgers.key_of(model.Scope.TEMPLATE, backend, agent.template, asked=agent.asked),
        ledgers.key_of(model.Scope.LAUNCH, backend, agent.template, asked=agent.asked),
    )


def _is_taken_back(agent: Agent) -> bool:
    """Return whether a launch that is under way removes what it has made: it will say why."""
    stops = (
        agent.instance is not None and agent.instance.state is backends_api.InstanceState.STOPPING
    )
    return stops and agent.expectation is not None and agent.expectation.done_at is None


def why_lost(agent: Agent) -> tuple[model.Cause, str]:
    """Return a cause and a sentence for an agent that never came online, or did not come back."""
    cause, words = _why_lost(agent)
    return cause, after_mishap(agent, words)


def after_mishap(agent: Agent, words: str) -> str:
    """Return the words on an agent, and before them what has befallen it; cut ends last."""
    mishap = agent.memory.mishap if agent.memory is not None else None
    if agent.instance is not None and agent.instance.exit is not None:
        mishap = agent.instance.mishap  # the end itself tells the rest
    return f"{mishap.text}; {words}" if mishap is not None and mishap.text not in words else words


def _why_lost(  # noqa: PLR0911 -- one end, one return
    agent: Agent,
) -> tuple[model.Cause, str]:
    instance = agent.instance
    if instance is not None and instance.exit is not None:
        end = instance.exit
        code = "" if end.code is None else f" with exit code {end.code}"
        words = f": {end.message}" if end.message else ""
        came = agent.memory is not None and agent.memory.online_at is not None
        when = "after it had been online" if came else "before it came online"
        return model.Cause.of_exit(
            end.slug
        ), f"its instance ended ({end.slug}{code}) {when}{words}"
    if instance is not None and instance.flaw is not None:
        flaw = instance.flaw
        return model.Cause.of_exit(flaw.slug), f"a part of its instance is missing: {flaw.message}"
    if agent.cordoned and (cause := lifecycle.cause_of(agent.computer)).unfit:
        return cause, unfit_words(agent, cause)
    if instance is None:
        return model.Cause.LOST_INSTANCE, "its instance is gone"
    detail = f" ({instance.detail})" if instance.detail else ""
    if instance.state is backends_api.InstanceState.STOPPING:
        return model.Cause.LOST_INSTANCE, f"its instance is being removed{detail}"
    if agent.check is not None:
        words = f"its {agent.check.value} check did not come about within its deadline{detail}"
        return model.Cause.CONNECT_TIMEOUT, words
    return model.Cause.CONNECT_TIMEOUT, f"it did not come online within its deadline{detail}"


GOING = frozenset({Phase.DRAINED, Phase.LOST, Phase.ORPHAN, Phase.GONE})
"""Phases in which only the removal of an agent is left to be done."""


def leaving_at(agent: Agent) -> float | None:
    """Return since when an agent is being removed, as far as that is known."""
    if agent.instance is not None and agent.instance.leaving_at is not None:
        return agent.instance.leaving_at
    flight = agent.expectation
    if flight is not None and flight.verb in {Verb.RETIRE, Verb.SWEEP}:
        return flight.since_at
    return agent.memory.orphan_at if agent.memory is not None else None


def leaving_words(agent: Agent, *, now: float) -> str:
    """Return for how long an agent has been leaving, and what the platform says holds it up."""
    since = leaving_at(agent)
    duration = f" for {max(0.0, now - since):.0f} s" if since is not None else ""
    detail = agent.instance.detail if agent.instance is not None else ""
    return f"leaving{duration}{f': {detail}' if detail else ''}"
