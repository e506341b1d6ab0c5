"""The one node that never connects: it makes the queue name labels, and carries our claim.

Without any node the queue text hides labels (recording ``queue/28``); with this one it names them
(``queue/29``). Its offline message says which broker works for this owner (``identity``). Refuses
to know agents and to decide what a claim means.
"""

import contextlib
from collections.abc import Callable
from typing import Protocol

from attrs import define

from broker import identity
from broker.core import lifecycle, marks, model
from jnlp import errors as jnlp_errors
from jnlp import node as jnlp_node


class Nodes(Protocol):
    """What is needed of the controller's write side."""

    async def create(self, definition: jnlp_node.NodeDefinition) -> None:
        """Create a node; ``NodeExists`` if the name is taken."""

    async def cordon(self, name: str, message: str) -> None:
        """Mark a node temporarily offline, or change its message."""

    async def delete(self, name: str) -> None:
        """Delete a node; ``NotFound`` if it is gone."""


class SecondBroker(Exception):  # noqa: N818 -- what it is, not what went wrong
    """Another broker with this owner name lives on this controller."""


def definition(owner: str) -> jnlp_node.NodeDefinition:
    """Return the placeholder node: exclusive, and no label but its own name."""
    return jnlp_node.NodeDefinition(
        name=marks.placeholder_name(owner),
        description=(
            f"Belongs to the Jenkins Agent Broker of owner {owner}. It never connects: while it "
            "exists, the queue names the labels that builds wait for. Do not delete."
        ),
        executors=1,
        remote_fs="/nonexistent",
        labels=(),
        exclusive=True,
    )


@define(kw_only=True)
class Placeholder:
    """Keeps the node in place and answers whether this broker may work."""

    nodes: Nodes
    owner: str
    standing: identity.Standing
    challenge_s: float
    leads: Callable[[], bool] = lambda: True  # whether we may change anything at this very moment

    def begin(self, holder: str, *, now: float) -> None:
        """Forget an earlier term; claim for all brokers that share the leadership from now on."""
        mine = identity.Claim(holder=holder, since=int(now))
        self.standing = identity.Standing(mine=mine, previous=self.standing.previous)

    async def tend(self, view: model.ControllerView, *, now: float) -> bool:
        """Do this cycle's step of the claim; return whether to work.

        Raises ``SecondBroker``, or ``JenkinsError`` if the controller refuses the node.
        """
        computer, seen = self._seen(view)
        step, standing = identity.decide(
            seen, self.standing, now=now, challenge_s=self.challenge_s
        )
        match step:
            case identity.Step.REFUSE:
                holder = seen.holder if seen is not None else "unknown"
                raise SecondBroker(
                    f"another broker ({holder}) works for owner {self.owner!r} on this "
                    "controller; hint: every broker needs an owner name of its own, or stop "
                    "the other one"
                )
            case identity.Step.CLAIM | identity.Step.DEFEND:
                await self._claim(exists=computer is not None)
            case identity.Step.WORK | identity.Step.WAIT:
                pass
        self.standing = standing
        return standing.works

    def is_claimed_by_another(self, view: model.ControllerView) -> bool:
        """Whether the claim is neither ours nor one of our earlier lives'."""
        _, seen = self._seen(view)
        known = {self.standing.mine.holder, *self.standing.previous}
        return seen is not None and seen.holder not in known

    def _seen(
        self, view: model.ControllerView
    ) -> tuple[model.Computer | None, identity.Claim | None]:
        """Return the node and the claim on it."""
        name = marks.placeholder_name(self.owner)
        computer = next((c for c in view.computers if c.name == name), None)
        if computer is None or not lifecycle.is_cordoned(computer):
            return computer, None
        return computer, identity.read(computer.offline_cause)

    async def _claim(self, *, exists: bool) -> None:
        if not exists:
            with contextlib.suppress(jnlp_errors.NodeExists):  # the look was a little old
                await self.nodes.create(definition(self.owner))
        name = marks.placeholder_name(self.owner)
        if not self.leads():  # creating it took long
            return
        await self.nodes.cordon(name, self.standing.mine.text())

    async def remove(self) -> None:
        """Delete the node: this owner leaves the controller for good."""
        try:
            await self.nodes.delete(marks.placeholder_name(self.owner))
        except jnlp_errors.NotFound:
            return
