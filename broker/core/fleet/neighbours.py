"""Neighbours: brokers of other owners on the same controller, and their agents, by their marks.

The controller gives an item to whoever is free, whoever started it. So a neighbour's agent that is
free or on its way is supply, for as long as it would take it; and of two who could order for the
same item one goes first. Marks are words that anybody may write: nobody is waited for longer than
these limits. Pure; refuses to know templates and what is ordered.
"""

from collections.abc import Iterable

from attrs import frozen

from broker.core import model
from broker.core.fleet import lifecycle, marks
from broker.core.model import NodeName

GIVEN_WITHIN_S = 15.0
"""The controller gives a free agent an item within this, or not at all."""
COMES_WITHIN_S = 120.0
"""For so long an item, and an agent that is on its way, are left to a neighbour."""
_HELD_BY = "[agent-broker held by "


@frozen(kw_only=True)
class NeighboursAgent:
    """An agent of another owner that is free, or on its way."""

    name: NodeName
    owner: str
    labels: frozenset[str]  # with its own name
    slots: int
    online: bool


@frozen(kw_only=True)
class Neighbours:
    """Who else works on this controller."""

    owners: tuple[str, ...] = ()
    agents: tuple[NeighboursAgent, ...] = ()

    def goes_before(self, owner: str) -> str:
        """Return the owner that orders before this one, if there is any: the lowest name."""
        return self.owners[0] if self.owners and self.owners[0] < owner else ""


def seen(computers: Iterable[model.Computer], owner: str, *, now: float) -> Neighbours:
    """Return the neighbours that these computers show; none of them is an agent of ours."""
    owners: set[str] = set()
    agents = []
    for computer in computers:
        owned = marks.from_description(computer.description)
        if owned is None:
            other = computer.name.removesuffix(marks.placeholder_name(""))
            if other != computer.name and _HELD_BY in computer.description[:4096]:
                owners.add(other)
            continue
        if owned.owner == owner:
            continue
        owners.add(owned.owner)
        free = computer.executors - computer.busy_executors
        if computer.temporarily_offline or lifecycle.is_cordoned(computer) or free <= 0:
            continue
        if computer.offline and not 0.0 <= now - owned.created_at < COMES_WITHIN_S:
            continue
        agents.append(
            NeighboursAgent(
                name=computer.name,
                owner=owned.owner,
                labels=computer.labels | {computer.name},
                slots=free,
                online=not computer.offline,
            )
        )
    owners.discard(owner)
    return Neighbours(owners=tuple(sorted(owners)), agents=tuple(agents))
