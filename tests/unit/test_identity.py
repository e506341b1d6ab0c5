"""The claim on an owner name, as tables and as two brokers on one controller."""

import itertools

import pytest

from broker import identity
from broker.identity import Claim, Standing, Step


def test_the_claim_is_read_back():
    """From the offline message of the placeholder node, whatever stands around it."""
    claim = Claim(holder="ab12", since=123)
    assert identity.read(claim.text()) == claim
    assert identity.read("Disconnected by admin : " + claim.text()) == claim
    assert identity.read("agent-broker: once: done") is None


MINE, OTHER = Claim(holder="me", since=100), Claim(holder="other", since=50)
NEWER = Claim(holder="other", since=200)
WORKS = {"works": True, "claimed_at": 100}
STOOD = {**WORKS, "stood": True}


@pytest.mark.parametrize(
    ("seen", "standing", "now", "step", "works"),
    [
        (None, {}, 100, Step.CLAIM, True),  # nobody was here
        (MINE, {}, 100, Step.CLAIM, True),
        (OTHER, {"previous": ("older", "other")}, 100, Step.CLAIM, True),  # our own earlier life
        (OTHER, {}, 100, Step.CLAIM, False),  # challenge
        (MINE, {"claimed_at": 100}, 105, Step.WAIT, False),
        (MINE, {"claimed_at": 100}, 110, Step.WORK, True),  # nobody took it back
        (OTHER, {"claimed_at": 100}, 105, Step.REFUSE, False),  # somebody lives
        (MINE, WORKS, 500, Step.WORK, True),
        (None, WORKS, 500, Step.DEFEND, True),
        (NEWER, WORKS, 500, Step.REFUSE, False),  # both came to an empty place, they wrote last
        (OTHER, WORKS, 500, Step.REFUSE, False),
        (None, STOOD, 500, Step.DEFEND, True),  # a person deleted the node
        (NEWER, STOOD, 500, Step.DEFEND, True),  # a newcomer asks whether we live
        (OTHER, STOOD, 500, Step.DEFEND, True),  # the same, and its clock is behind ours
        (NEWER, {**STOOD, "rival": "other"}, 500, Step.DEFEND, True),  # it defends, but is younger
        (OTHER, {**STOOD, "rival": "other"}, 500, Step.REFUSE, False),
    ],
)
def test_every_step(seen, standing, now, step, works):
    """One row for each situation."""
    decided, after = identity.decide(
        seen, Standing(mine=MINE, **standing), now=now, challenge_s=10
    )
    assert (decided, after.works) == (step, works)


ORDERS = list(itertools.product((0, 1), repeat=6))


def duel(order, first, second):
    """Let two brokers look in some order; return who refused and who works."""
    message = first.mine.text() if first.works else None
    standings, refused, now = [first, second], set(), 20.0
    for who in (*order, *(0, 1) * 20):
        now += 1.0
        if who in refused:
            continue
        seen = identity.read(message) if message else None
        step, standings[who] = identity.decide(seen, standings[who], now=now, challenge_s=10)
        if step is Step.REFUSE:
            refused.add(who)
        elif step in {Step.CLAIM, Step.DEFEND}:
            message = standings[who].mine.text()
    return refused, [who for who in (0, 1) if standings[who].works]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("ahead", [10, -1000])
def test_whoever_was_there_first_goes_on(order, ahead):
    """In whatever order the two look, and whatever the newcomer's clock says."""
    first = Standing(mine=Claim(holder="first", since=10), claimed_at=10.0, works=True, stood=True)
    second = Standing(mine=Claim(holder="second", since=10 + ahead))
    assert duel(order, first, second) == ({1}, [0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("since", [(10, 20), (20, 10), (10, 10)])
def test_of_two_that_start_at_once_one_works(order, since):
    """Nobody was there before."""
    first, second = (Standing(mine=Claim(holder=f"h{n}", since=n_)) for n, n_ in enumerate(since))
    refused, working = duel(order, first, second)
    assert len(refused) == len(working) == 1


@pytest.mark.parametrize("order", ORDERS)
def test_of_two_with_the_same_previous_life_one_works(order):
    """Two copies of one state directory: both take the claim of the dead for theirs."""
    one, two = (
        Standing(mine=Claim(holder=f"h{n}", since=10 + n), previous=("dead",)) for n in (0, 1)
    )
    refused, working = duel(order, one, two)
    assert len(refused) == len(working) == 1
