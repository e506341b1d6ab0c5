"""The one node that never connects: it makes the queue name labels, and carries our claim.

Without any node the queue text hides labels (recording ``queue/28``); with this one it names them
(``queue/29``). Its description says which broker works for this owner (``identity``); beside it
may stand, for a moment, nodes by which others ask whether that broker lives. Refuses to know
agents and to decide what a claim means.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from attrs import define

from broker.core import model
from broker.core.fleet import marks
from broker.leading import identity
from jnlp import errors as jnlp_errors
from jnlp import node as jnlp_node
from outside import quotes


class PlaceholderNodes(Protocol):
    """What is needed of the controller's write side."""

    async def create(self, definition: jnlp_node.NodeDefinition) -> None:
        """Create a node; ``NodeExists`` if the name is taken."""

    async def delete(self, name: str) -> None:
        """Delete a node; ``NotFound`` if it is gone."""


class SecondBroker(Exception):  # noqa: N818 -- what it is, not what went wrong
    """Another broker with this owner name lives on this controller."""


def challenge_s(idle_s: float) -> float:
    """Return for how long to ask whether another broker lives: such a one has looked by then."""
    return 2.0 * idle_s


def definition(owner: str, claim: identity.Claim) -> jnlp_node.NodeDefinition:
    """Return the placeholder node: exclusive, and no label but its own name."""
    return _never_connected(
        marks.placeholder_name(owner),
        f"Belongs to the Jenkins Agent Broker of owner {owner}. It never connects: while it "
        "exists, the queue names the labels that builds wait for. Do not delete. "
        f"{claim.text()}",
    )


def _question(owner: str, question: str) -> jnlp_node.NodeDefinition:
    return _never_connected(
        marks.question_name(owner, question),
        f"By this node a broker of owner {owner} asks whether another one lives that works for "
        "the same owner: a living one deletes it. It goes within a minute.",
    )


def _never_connected(name: str, description: str) -> jnlp_node.NodeDefinition:
    return jnlp_node.NodeDefinition(
        name=name,
        description=description,
        executors=1,
        remote_fs="/nonexistent",
        labels=(),
        exclusive=True,
    )


_PAUSE_S, _LONGEST_S = 5.0, 120.0  # until a node that was refused is tried again
_ANSWERS = 10
"""Questions answered in one cycle; a broker asks one."""


@define(kw_only=True)
class Placeholder:
    """Keeps the node in place and answers whether this broker may work."""

    nodes: PlaceholderNodes
    owner: str
    standing: identity.Standing
    challenge_s: float
    leads: Callable[[], bool] = lambda: True  # whether we may change anything at this very moment
    doubt: str = ""  # whose claim stands in the place of ours, for people
    _refusal: jnlp_errors.JenkinsError | None = None  # of a node, the last time
    _refusals: int = 0  # in a row
    _again_at: float = 0.0

    def begin(self, holder: str, *, now: float) -> None:
        """Forget an earlier term; claim for all brokers that share the leadership from now on."""
        mine = identity.Claim(holder=holder, since=int(now))
        self.standing = identity.Standing(
            mine=mine, previous=self.standing.previous, questions=self.standing.questions
        )

    async def tend(self, view: model.ControllerView, *, now: float) -> bool:
        """Do this cycle's step of the claim; return whether to work.

        Raises ``SecondBroker``, or ``JenkinsError`` if the controller refuses a node.
        """
        before = self.standing
        ours = marks.placeholder_name(self.owner), marks.question_name(self.owner, before.question)
        if any(view.is_unread(name) for name in ours):
            return before.works  # what is not seen may be there
        computer, claim = self._seen(view)
        questions = self._questions(view)
        step, standing = identity.decide(
            claim, questions, before, now=now, challenge_s=self.challenge_s
        )
        self.doubt = self._doubt(claim, step)
        match step:
            case identity.Step.REFUSE:
                holder = claim.holder if claim is not None else "unknown"
                raise SecondBroker(
                    f"another broker ({holder}) works for owner {quotes.shown(self.owner)} on "
                    "this controller; hint: every broker needs an owner name of its own, or stop "
                    "the other one"
                )
            case identity.Step.ASK:
                async with self._politely(now):
                    # it exists: an earlier try went through, and its answer was lost
                    with contextlib.suppress(jnlp_errors.NodeExists):
                        await self.nodes.create(_question(self.owner, standing.question))
            case identity.Step.TAKE:
                async with self._politely(now):
                    await self._take(exists=computer is not None)
                if before.asked_at is not None:
                    await self._delete(marks.question_name(self.owner, before.question))
            case identity.Step.ANSWER:
                for question in sorted(questions)[:_ANSWERS]:
                    await self._delete(marks.question_name(self.owner, question))
            case identity.Step.WORK | identity.Step.WAIT:
                pass
        self.standing = standing
        return standing.works

    @contextlib.asynccontextmanager
    async def _politely(self, now: float) -> AsyncIterator[None]:
        """Try a node again that was refused after a growing pause; till then raise the refusal."""
        if self._refusal is not None and now < self._again_at:
            raise self._refusal.with_traceback(None)
        try:
            yield
        except jnlp_errors.JenkinsError as error:
            pause_s = min(_PAUSE_S * 2.0 ** min(self._refusals, 16), _LONGEST_S)
            self._refusals += 1
            self._refusal, self._again_at = error, now + max(pause_s, error.retry_after or 0.0)
            raise
        self._refusal, self._refusals = None, 0

    def is_claimed_by_another(self, view: model.ControllerView) -> bool:
        """Whether the claim is neither ours nor one of our earlier lives'."""
        return not self.standing.is_ours(self._seen(view)[1])

    def _seen(
        self, view: model.ControllerView
    ) -> tuple[model.Computer | None, identity.Claim | None]:
        """Return the node and the claim on it."""
        name = marks.placeholder_name(self.owner)
        computer = next((c for c in view.computers if c.name == name), None)
        return computer, identity.read(computer.description) if computer is not None else None

    def _questions(self, view: model.ControllerView) -> frozenset[str]:
        asked = (marks.question_of(self.owner, computer.name) for computer in view.computers)
        return frozenset(question for question in asked if question is not None)

    def _doubt(self, seen: identity.Claim | None, step: identity.Step) -> str:
        if seen is None or step not in {identity.Step.ASK, identity.Step.WAIT}:
            return ""
        name = marks.placeholder_name(self.owner)
        return (
            f"the description of node {name} claims owner {self.owner} for another broker "
            f"({seen.holder}): asking whether it lives, for {self.challenge_s:.0f} s"
        )

    async def _take(self, *, exists: bool) -> None:
        """Put the node there with our claim: its description cannot be changed, only made anew."""
        name = marks.placeholder_name(self.owner)
        if exists:
            await self._delete(name)
        if not self.leads():  # deleting it took long
            return
        with contextlib.suppress(jnlp_errors.NodeExists):  # another one was faster: it is asked
            await self.nodes.create(definition(self.owner, self.standing.mine))

    async def _delete(self, name: str) -> None:
        if not self.leads():
            return
        with contextlib.suppress(jnlp_errors.NotFound):
            await self.nodes.delete(name)

    async def remove(self) -> None:
        """Delete the node: this owner leaves the controller for good."""
        with contextlib.suppress(jnlp_errors.NotFound):
            await self.nodes.delete(marks.placeholder_name(self.owner))
