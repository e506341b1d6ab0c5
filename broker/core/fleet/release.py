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
"""Ends that may be a platform's guess: an exit status is what proves them."""

Obstacle = Literal[
    "it works no more",
    "it is online",
    "its instance may come back",
    "other things than steps of a Pipeline run on it",
    "somebody holds it",
    "the controller is about to shut down",
    "the controller cannot end its steps",
]


def is_gone_for_good(instance: backends_api.Instance | None) -> bool:
    """Return whether an instance has ended, by its own platform's certificate."""
    if instance is None or instance.exit is None:
        return False
    over = instance.state is backends_api.InstanceState.EXITED or instance.spent
    return over and (instance.exit.code is not None or instance.exit.slug not in _OUT_OF_SIGHT)


def obstacle(agent: Agent, controller: model.ControllerView) -> Obstacle | None:  # noqa: PLR0911 -- one obstacle, one return
    """Return why the steps on an agent are left to end by themselves; None: nothing against it."""
    computer = agent.computer
    if agent.phase is not Phase.BUSY or computer is None:
        return "it works no more"
    if not computer.offline:
        return "it is online"
    if not is_gone_for_good(agent.instance):
        return "its instance may come back"
    if not computer.only_steps:
        return "other things than steps of a Pipeline run on it"
    if withheld.is_held(agent):
        return "somebody holds it"
    if controller.quieting_down:
        return "the controller is about to shut down"
    return None if controller.releases else "the controller cannot end its steps"
