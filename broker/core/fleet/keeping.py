"""Whose instance is kept for a look after it failed, and until when.

Rules: only what has ended by itself, and not well, is kept (what still runs is ended: it holds
memory, and would try to come back); until so long after its end, by its platform's own clock as
far as that tells, so that a restart of ours changes nothing; of each template the few that failed
first, so that nothing disappears under somebody's eyes; nothing of a template that is gone, nor
in a drain. The node goes as ever, for builds wait for that; of one whose check failed it stays, as
its instance does, which runs on in quarantine. Pure; refuses to remove anything.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping

from attrs import frozen

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import agents as agents_
from broker.core.fleet import lifecycle
from broker.core.model import Agent, Cause, NodeName

_NOTHING_TO_SEE = frozenset({Cause.LOST_PLATFORM, Cause.LOST_INTERRUPTED, Cause.LOST_IMAGE})
"""Ends of which nothing is left, or nothing ever was."""


@frozen(kw_only=True)
class Kept:
    """``until_at`` in POSIX seconds."""

    until_at: float

    def words(self, agent: Agent) -> str:
        """Say until when, and how one looks."""
        until = dt.datetime.fromtimestamp(self.until_at, dt.UTC)
        look = agent.instance.look if agent.instance is not None else ""
        return f"kept for a look until {until:%H:%M} UTC{f': {look}' if look else ''}"


def kept(agents: Iterable[Agent], policy: model.Policy, *, now: float) -> Mapping[NodeName, Kept]:
    """Return by name those whose instance is kept now."""
    if policy.draining or not any(t.retention.keep_failed_s for t in policy.templates):
        return {}
    due: list[tuple[float, NodeName, model.Template]] = []
    for agent in agents:
        template = policy.by_name.get(agent.template)
        if template is None or not template.retention.keep_failed_s:
            continue
        if not (has_failed(agent) or is_unfit(agent)):
            continue
        until_at = _ended_at(agent, now=now) + template.retention.keep_failed_s
        if now < until_at:
            due.append((until_at, agent.name, template))
    held: Counter[str] = Counter()
    found = {}
    for until_at, name, template in sorted(due, key=lambda one: one[:2]):
        if held[template.name] < template.retention.keep_failed_most:
            held[template.name] += 1
            found[name] = Kept(until_at=until_at)
    return found


def has_failed(agent: Agent) -> bool:
    """Return whether an instance has ended that nobody asked to, and left something to see."""
    return agent.memory is not None and agent.memory.removals == 0 and ended_badly(agent)


def ended_badly(agent: Agent) -> bool:
    """Return whether an instance has ended, not well, and left something to see."""
    instance = agent.instance
    if instance is None or instance.state is not backends_api.InstanceState.EXITED:
        return False
    end = instance.exit
    if end is None:
        return False
    cause = Cause.of_exit(end.slug)
    if cause in _NOTHING_TO_SEE:
        return False
    return cause is not Cause.LOST_EXITED or end.code != 0


def is_unfit(agent: Agent) -> bool:
    """Return whether a check of an agent failed: it runs on, out of service, node and all."""
    if agent.phase is not model.Phase.DRAINED or agent.instance is None:
        return False
    running = agent.instance.state is backends_api.InstanceState.RUNNING
    return running and lifecycle.cause_of(agent.computer).unfit


def reason(agent: Agent, one: Kept) -> str:
    """Say why one that is left is not removed."""
    return f"{one.words(agent)}; {agents_.why_lost(agent)[1]}"


def _ended_at(agent: Agent, *, now: float) -> float:
    """Return when it ended; a time to come is no time, nor is none: then when it was seen."""
    end = agent.instance.exit if agent.instance is not None else None
    if end is not None and end.at is not None and end.at <= now:
        return end.at
    since_at = agent.computer.offline_since_at if agent.computer is not None else None
    if end is None and since_at is not None and since_at <= now:
        return since_at  # in quarantine
    seen_at = agent.memory.phase_at if agent.memory is not None else None
    return seen_at if seen_at is not None else now
