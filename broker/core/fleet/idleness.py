"""Which agents a platform may take away to save a machine: those that have been idle for a while.

Pure. An agent between two builds is none of them: a platform that is told of each pause would be
told all the time, and needs minutes to make something of it. Refuses to know platforms.
"""

from collections.abc import Iterable, Mapping

from broker.core import model
from broker.core.model import Phase

IDLE_S = 60.0
"""Autoscalers look at a machine for minutes before they take it away."""


def idle(
    agents: Iterable[model.Agent], *, now: float
) -> Mapping[model.BackendName, frozenset[model.NodeName]]:
    """Return their names by backend; who is not seen to be idle is at work."""
    names: dict[model.BackendName, set[model.NodeName]] = {}
    for agent in agents:
        since = agent.memory.idle_at if agent.memory is not None else None
        rests = agent.phase is Phase.IDLE and since is not None and now - since >= IDLE_S
        if rests and agent.backend is not None and agent.instance is not None:
            names.setdefault(agent.backend, set()).add(agent.name)
    return {backend: frozenset(told) for backend, told in names.items()}
