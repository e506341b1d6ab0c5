"""Whose node is deleted at once so that Pipeline ends the steps on it: it died at work, for good.

A Pipeline's step waits for an agent that went away: for ever while its node is there, for five
minutes once it is deleted. Only where a node goes that is marked as single-use are its steps
cancelled at once, so that ``retry(conditions: [agent()])`` goes on elsewhere (decision 8). That
cannot be taken back, so it is never done to anybody who may come back: nobody is released whose
host only does not answer, who is connected, or on whom something else than such steps runs.
Refuses to carry it out.
"""

from typing import Literal

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import withheld
from broker.core.model import Agent, Phase

_OUT_OF_SIGHT: frozenset[backends_api.ExitSlug] = frozenset({"platform-lost", "unknown"})
"""Ends that may be a platform's guess: an exit status proves them, or a platform that saw it."""

Obstacle = Literal[
    "it works no more",
    "it is online",
    "its instance may come back",
    "other things than steps of a Pipeline run on it",
    "somebody holds it",
    "the controller is about to shut down",
    "the controller cannot end its steps",
]


def is_gone_for_good(agent: Agent) -> bool:
    """Return whether an instance has ended, by its own platform's certificate, or was removed.

    Removed is what the platform showed before and does not show any more, though nothing of it is
    hidden: then the end of the connection is the second witness.
    """
    instance = agent.instance
    if instance is None:
        was_there = agent.memory is not None and agent.memory.instance_seen
        return agent.absent and was_there
    end = instance.exit
    if end is None:
        return False
    over = instance.state is backends_api.InstanceState.EXITED or instance.spent
    is_proven = end.witnessed or end.code is not None or end.slug not in _OUT_OF_SIGHT
    return over and is_proven


def obstacle(agent: Agent, controller: model.ControllerView) -> Obstacle | None:  # noqa: PLR0911 -- one obstacle, one return
    """Return why the steps on an agent are left to end by themselves; None: nothing against it."""
    computer = agent.computer
    if agent.phase is not Phase.BUSY or computer is None:
        return "it works no more"
    if not computer.offline:
        return "it is online"
    if not is_gone_for_good(agent):
        return "its instance may come back"
    if not computer.only_steps:
        return "other things than steps of a Pipeline run on it"
    if withheld.is_held(agent):
        return "somebody holds it"
    if controller.quieting_down:
        return "the controller is about to shut down"
    return None if controller.releases else "the controller cannot end its steps"
