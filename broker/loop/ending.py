"""What an end waits for, in words for people: sources that do not answer, agents, orders. Pure.

Refuses to decide when the end has come.
"""

from collections.abc import Iterable, Mapping

from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.core.fleet import withheld
from broker.loop import health
from broker.loop.state import State

SHOWN = 5

_ALONE = model.CordonAgent | model.UncordonAgent | model.SweepNode  # of the controller alone


def orders(running: Mapping[model.NodeName, model.Action]) -> str:
    """Name what is under way, and where."""
    return listed(_order(action) for _, action in sorted(running.items()))


def waits_for(state: State, *, now: float, most: int = SHOWN) -> str:
    """Say what a drain waits for, ``most`` agents by name; empty if nothing can be named."""
    world, plan = state.world, state.plan
    if world is None or plan is None:
        return "the first look"
    # who does not answer comes first: perhaps that is what somebody must see to
    unread = [
        f"{name}, unknown for {withheld.duration(now - state.unread_since.get(name, now))} ({why})"
        for name, why in health.unread(world).items()
    ]
    hidden = [
        f"backend {name}, not seen whole ({view.hidden or view.odd})"
        for name, view in world.backends.items()
        if view.synced and not view.whole
    ]
    if world.controller.synced and world.controller.odd_computers:
        hidden.append(f"{health.CONTROLLER}, not seen whole ({world.controller.odd_computers})")
    agents = [_agent(agent, state.running.get(agent.name)) for agent in plan.agents]
    names = {agent.name for agent in plan.agents}
    others = [_order(action) for name, action in state.running.items() if name not in names]
    unseen = [
        f"{name} ({expected.verb.value} cannot be seen yet)"
        for name, expected in state.ledger.expectations.items()
        if name not in names and name not in state.running
    ]
    return ", ".join([*unread, *hidden, *_few([*agents, *sorted(others), *sorted(unseen)], most)])


def listed(words: Iterable[str]) -> str:
    """Return them as one text, the first ones by name and the others as a number."""
    return ", ".join(_few(list(words), SHOWN))


def _few(words: list[str], most: int) -> list[str]:
    more = len(words) - most
    return words if more <= 0 else [*words[:most], f"and {more} more"]


def _order(action: model.Action) -> str:
    words = f"{ledgers.verb_of(action).value} {action.name}"
    backend = None if isinstance(action, _ALONE) else action.backend
    return words if backend is None else f"{words} on {backend}"


def _agent(agent: model.Agent, running: model.Action | None) -> str:
    where = f" on {agent.backend}" if agent.backend is not None else ""
    what = agent.phase.value if running is None else f"{ledgers.verb_of(running).value} under way"
    return f"{agent.name}{where} ({what})"
