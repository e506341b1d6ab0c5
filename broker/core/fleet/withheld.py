"""Agents that take room and serve nobody: which they are, who holds them and since when, in words.

An executor that the controller gives no work to looks idle in ``/computer/api/json``: neither
"accept tasks" (``Computer.setAcceptingTasks``) nor a veto is a key of it. The node's own label
tells the first one (``idleExecutors`` 0 where nothing runs; 2.263 to master), so whoever stays
without work that it fits is worth that question. Pure; refuses to ask and to decide what follows.
"""

from collections.abc import Iterable, Mapping

from broker.core import model
from broker.core.model import Agent, Memory, NodeName, Phase, Template

SUSPECT_S = 2.0
"""A free executor has a fitting item within milliseconds (24 ms on 2.263.4): this is long."""
_MOST_ASKED = 20
_NOBODY: Mapping[NodeName, str] = {}


def suspects(
    view: model.ControllerView, ledger: model.Ledger, *, now: float
) -> tuple[NodeName, ...]:
    """Return whom to ask about: wanted for too long with a free executor, or known to be closed.

    The ones that have been asked least often come first, and not too many at once.
    """
    closed = []
    for computer in view.computers:
        memory = ledger.memories.get(computer.name)
        if memory is None or computer.offline or computer.busy_executors >= computer.executors:
            continue
        since = memory.nominated_at
        if memory.closed_at is not None or (since is not None and now - since >= SUSPECT_S):
            closed.append((memory.closed_looks, computer.name))
    return tuple(name for _, name in sorted(closed)[:_MOST_ASKED])


def free_for(agent: Agent, *, now: float) -> bool:
    """Return whether it has had a free executor for long enough to have been given something."""
    free_at = agent.memory.free_at if agent.memory is not None else None
    return free_at is not None and now - free_at >= SUSPECT_S


def is_outdated(agent: Agent, template: Template | None) -> bool:
    """Return whether it has never been online, and its template is not what it was started from.

    What kept it from coming may just have been put right, so it is not waited for.
    """
    memory = agent.memory
    if agent.phase is not Phase.CONNECTING or memory is None or memory.online_at is not None:
        return False
    if template is None:
        return True
    return bool(agent.revision) and agent.revision != template.revision


def is_held(agent: Agent) -> bool:
    """Return whether somebody else took it out of service; what it was given may still run."""
    computer = agent.computer
    if computer is None or not computer.temporarily_offline:
        return False
    if agent.cordoned or agent.check is not None:
        return False
    return agent.phase in {Phase.HELD, Phase.BUSY}


def held_since(agent: Agent) -> float | None:
    """Return since when it is held: as the controller says, or else since we see it."""
    if agent.computer is not None and agent.computer.offline_since_at is not None:
        return agent.computer.offline_since_at
    return _phase_at(agent.memory) if agent.phase is Phase.HELD else None


def words(agent: Agent, *, now: float) -> str:
    """Say who keeps an agent that serves nobody; empty for those that serve, or leave."""
    if is_held(agent) and agent.computer is not None:
        return f"is held{_held_words(agent, agent.computer, now)}"
    if agent.closed and agent.memory is not None:
        return f"is given no work{_for(agent.memory.closed_at, now)}: it accepts no tasks"
    return ""


def summary(agents: Iterable[Agent], *, now: float, more: Mapping[NodeName, str] = _NOBODY) -> str:
    """Say in half a sentence which of these agents serve nobody, and why; empty if all may."""
    said = [
        f"{a.name} {text}" for a in agents if (text := words(a, now=now) or more.get(a.name, ""))
    ]
    rest = f", and {len(said) - 3} more" if len(said) > 3 else ""
    return f"; of these serve nobody: {', '.join(said[:3])}{rest}" if said else ""


def duration(seconds: float) -> str:
    """Word a duration: 12 s, 3 min, 5 h, 2 d."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _held_words(agent: Agent, computer: model.Computer, now: float) -> str:
    cause = computer.offline_cause.strip()
    by = f" by {computer.offline_by}" if computer.offline_by else ""
    return f"{by}{_for(held_since(agent), now)}" + (f" ({cause})" if cause else "")


def _for(since: float | None, now: float) -> str:
    return f" for {duration(now - since)}" if since is not None else ""


def _phase_at(memory: Memory | None) -> float | None:
    return memory.phase_at if memory is not None else None
