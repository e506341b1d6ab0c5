"""One broker per identity and controller: a claim on the placeholder node, challenged at start.

Two brokers with one owner name would fight over the same agents. The state directory's lock stops
the second on one machine; across machines the claim does. The claim is the offline message of the
placeholder node, so it costs no extra request to read (it is in every computer list) and one to
write. A living broker notices a foreign claim in its next read and writes its own again; a dead
one does not. So whoever starts claims, waits, and refuses to work if the claim was taken back.

``decide`` is pure. This module refuses to know HTTP and agents.
"""

import enum
import re

from attrs import evolve, frozen

from broker.core import model

_CLAIM = re.compile(
    re.escape(model.CORDON_MARK) + r" held by (?P<holder>[a-z0-9]+) since (?P<since>\d+)"
)


@frozen(kw_only=True)
class Claim:
    """Who says to be the broker of an identity, and since when (POSIX seconds)."""

    holder: str
    since: int

    def text(self) -> str:
        """Return the offline message of the placeholder node."""
        return (
            f"{model.CORDON_MARK} held by {self.holder} since {self.since} "
            "(this node never connects: it makes the queue name labels and says who works here)"
        )


class Step(enum.Enum):
    """What to do about the claim in this cycle."""

    WORK = "work"  # the claim is ours
    CLAIM = "claim"  # write ours, do not work before it has stood
    DEFEND = "defend"  # write ours again and go on working
    WAIT = "wait"  # ours is written, the other one may still take it back
    REFUSE = "refuse"  # somebody else lives


def read(message: str) -> Claim | None:
    """Read a claim out of an offline message; None if there is none."""
    found = _CLAIM.search(message)
    return None if found is None else Claim(holder=found["holder"], since=int(found["since"]))


@frozen(kw_only=True)
class Standing:
    """Our own position, from cycle to cycle."""

    mine: Claim
    previous: tuple[str, ...] = ()  # holders of our earlier lives, from the state directory
    claimed_at: float | None = None  # when we first wrote the claim
    works: bool = False
    stood: bool = False  # our claim was seen in its place while we worked
    rival: str = ""  # whose claim we have written over


def decide(  # noqa: PLR0911 -- one situation, one return
    seen: Claim | None, standing: Standing, *, now: float, challenge_s: float
) -> tuple[Step, Standing]:
    """Return the step of this cycle and the new standing."""
    mine = standing.mine
    foreign = seen is not None and seen.holder != mine.holder
    if standing.works:
        if seen is None:
            return Step.DEFEND, standing
        if not foreign:
            return Step.WORK, evolve(standing, stood=True)
        return _contest(seen, standing)
    if standing.claimed_at is None:
        fresh = seen is None or seen.holder in {mine.holder, *standing.previous}
        return Step.CLAIM, evolve(standing, works=fresh, claimed_at=now)
    if foreign:
        return Step.REFUSE, standing
    if seen is None:
        return Step.CLAIM, standing
    if now - standing.claimed_at < challenge_s:
        return Step.WAIT, standing
    return Step.WORK, evolve(standing, works=True, stood=True)


def _contest(seen: Claim, standing: Standing) -> tuple[Step, Standing]:
    """Somebody has written over the claim that we work by.

    Whose claim has stood defends it against a newcomer, whatever the two clocks say; a newcomer
    that sees this gives in. Whoever writes twice over the same claim defends as well: then both
    work (copies of one state directory), and the elder stays.
    """
    if not standing.stood:
        return Step.REFUSE, evolve(standing, works=False)
    again = seen.holder == standing.rival
    elder = (seen.since, seen.holder) < (standing.mine.since, standing.mine.holder)
    if again and elder:
        return Step.REFUSE, evolve(standing, works=False)
    return Step.DEFEND, evolve(standing, rival=seen.holder)
