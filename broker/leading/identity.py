"""One broker per identity and controller: a claim on the placeholder node, challenged by a deed.

Two brokers with one owner name would fight over the same agents. The state directory's lock stops
the second on one machine; across machines the claim does. It stands in the description of the
placeholder node, so it costs no extra request to read (it is in every computer list). Words prove
nothing, whoever may describe a node can write them: whether the one who claims lives is asked by a
node that is made for it, and answered by removing that node. Asking takes the right to create
nodes, answering the right to delete them, which is what a broker has and what could end every
agent anyway; an offline message, or a claim that nobody stands up for, ends nothing.

``decide`` is pure. This module refuses to know HTTP and agents.
"""

import enum
import hashlib
import re
from collections.abc import Set as AbstractSet

from attrs import evolve, frozen

_CLAIM = re.compile(r"\[agent-broker held by ([a-z0-9]{1,64}) since ([0-9]{1,12})\]")
_LOOKED_AT = 4096  # characters of a description


@frozen(kw_only=True)
class Claim:
    """Who says to be the broker of an identity, and since when (POSIX seconds)."""

    holder: str
    since: int

    def text(self) -> str:
        """Return what the placeholder's description says."""
        return f"[agent-broker held by {self.holder} since {self.since}]"


class Step(enum.Enum):
    """What to do about the claim in this cycle."""

    WORK = "work"  # the claim is ours
    TAKE = "take"  # write ours: nobody lives who has another
    ASK = "ask"  # whether who has the claim lives
    ANSWER = "answer"  # we do: remove the questions of others
    WAIT = "wait"  # for an answer
    REFUSE = "refuse"  # somebody else lives


def read(description: str) -> Claim | None:
    """Read a claim out of the placeholder's description; None if there is none."""
    found = _CLAIM.search(description[:_LOOKED_AT])
    return None if found is None else Claim(holder=found[1], since=int(found[2]))


@frozen(kw_only=True)
class Standing:
    """Our own position, from cycle to cycle."""

    mine: Claim
    previous: tuple[str, ...] = ()  # holders of our earlier lives, from the state directory
    works: bool = False
    stood: bool = False  # our claim was seen in its place while we worked
    asked_at: float | None = None  # since when our question is there
    questions: int = 0  # how many we have asked: a node name is never used again

    @property
    def question(self) -> str:
        """Return what names the latest question that we asked."""
        return hashlib.sha256(f"{self.mine.holder} {self.questions}".encode()).hexdigest()[:12]

    def is_ours(self, claim: Claim | None) -> bool:
        """Whether there is nobody else to be asked about a claim."""
        return claim is None or claim.holder in {self.mine.holder, *self.previous}


def decide(
    claim: Claim | None,
    questions: AbstractSet[str],
    standing: Standing,
    *,
    now: float,
    challenge_s: float,
) -> tuple[Step, Standing]:
    """Return the step of this cycle and the new standing.

    ``questions`` are those that stand on the controller, ours among them. Whose claim has stood
    goes on working while it asks about another one in its place: that may be anybody's words.
    Whose claim has not waits for the answer.
    """
    own = standing.question if standing.asked_at is not None else None
    if claim is not None and claim.holder == standing.mine.holder:
        standing = evolve(standing, works=True, stood=True, asked_at=None)
        # ours may have been left standing, too
        return (Step.ANSWER if questions else Step.WORK), standing
    if standing.is_ours(claim):
        return Step.TAKE, evolve(standing, works=True, asked_at=None)
    if standing.asked_at is None:
        asked = evolve(standing, asked_at=now, questions=standing.questions + 1)
        return Step.ASK, evolve(asked, works=standing.works and standing.stood)
    if own not in questions:
        return Step.REFUSE, evolve(standing, works=False)
    if now - standing.asked_at < challenge_s:
        return Step.WAIT, standing
    return Step.TAKE, evolve(standing, works=True, asked_at=None)
