"""What an end waits for, in words for people: sources that do not answer, agents, orders. Pure.

Refuses to decide when the end has come.
"""

import math
from collections.abc import Iterable, Mapping

from attrs import Factory, define

from broker.core import model
from broker.core.fleet import agents as agents_
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
    agents = [
        _agent(agent, state.running.get(agent.name)) + _holdup(agent, now=now)
        for agent in plan.agents
    ]
    names = {agent.name for agent in plan.agents}
    others = [_order(action) for name, action in state.running.items() if name not in names]
    unseen = [
        f"{name} ({expected.verb.value} cannot be seen yet)"
        for name, expected in state.ledger.expectations.items()
        if name not in names and name not in state.running
    ]
    return ", ".join([*unread, *hidden, *_few([*agents, *sorted(others), *sorted(unseen)], most)])


@define
class DrainNews:
    """What was said of a drain: at once only what has changed, all of it at a calmer pace."""

    every_s: float
    _said_at: float = -math.inf
    _said: Mapping[str, str] = Factory(dict)

    def of(self, state: State, *, now: float) -> Mapping[str, str] | None:
        """Return what is to be said now, by what it is; None: nothing new."""
        plan = state.plan
        agents = plan.agents if plan is not None else ()
        waits: dict[str, str] = {a.name: _agent(a, state.running.get(a.name)) for a in agents}
        gone = [name for name in self._said if name not in waits]
        changed = [words for name, words in waits.items() if self._said.get(name) != words]
        is_first = self._said_at == -math.inf
        self._said = waits
        if now - self._said_at >= self.every_s:
            self._said_at = now
            words = waits_for(state, now=now) or "a look that is newer than what was done last"
            return {"waits_for": words} | ({"gone": listed(gone)} if gone else {})
        if is_first or not (gone or changed):
            return None
        news = {"gone": listed(gone), "changed": listed(changed), "left": str(len(waits))}
        return {key: words for key, words in news.items() if words}


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


def _holdup(agent: model.Agent, *, now: float) -> str:
    """Say who, or what, keeps an agent from going, where that is somebody else."""
    words = withheld.words(agent, now=now)
    detail = agent.instance.detail if agent.instance is not None else ""
    if not words and detail and agent.phase in agents_.GOING:
        words = agents_.leaving_words(agent, now=now)
    return f": {words}" if words else ""


def _agent(agent: model.Agent, running: model.Action | None) -> str:
    where = f" on {agent.backend}" if agent.backend is not None else ""
    what = agent.phase.value if running is None else f"{ledgers.verb_of(running).value} under way"
    return f"{agent.name}{where} ({what})"
