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


@pytest.mark.parametrize(
    ("seen", "standing", "now", "step", "works"),
    [
        (None, {}, 100, Step.CLAIM, True),  # nobody was here
        (MINE, {}, 100, Step.CLAIM, True),
        (OTHER, {"previous": "other"}, 100, Step.CLAIM, True),  # our own earlier life
        (OTHER, {}, 100, Step.CLAIM, False),  # challenge
        (MINE, {"claimed_at": 100}, 105, Step.WAIT, False),
        (MINE, {"claimed_at": 100}, 110, Step.WORK, True),  # nobody took it back
        (OTHER, {"claimed_at": 100}, 105, Step.REFUSE, False),  # somebody lives
        (MINE, {"works": True, "claimed_at": 100}, 500, Step.WORK, True),
        (None, {"works": True, "claimed_at": 100}, 500, Step.DEFEND, True),
        (NEWER, {"works": True, "claimed_at": 100}, 500, Step.DEFEND, True),
        (OTHER, {"works": True, "claimed_at": 100}, 500, Step.REFUSE, False),
    ],
)
def test_every_step(seen, standing, now, step, works):
    """One row for each situation."""
    decided, after = identity.decide(
        seen, Standing(mine=MINE, **standing), now=now, challenge_s=10
    )
    assert (decided, after.works) == (step, works)


@pytest.mark.parametrize("order", list(itertools.product((0, 1), repeat=6)))
def test_two_brokers_never_both_work_for_long(order):
    """Whoever was there first goes on, in whatever order the two happen to look."""
    message = None
    standings = [
        Standing(mine=Claim(holder="first", since=10), claimed_at=10.0, works=True),
        Standing(mine=Claim(holder="second", since=20)),
    ]
    refused = set()
    now = 20.0
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
    assert refused == {1}
    assert standings[0].works
