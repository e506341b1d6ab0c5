"""What goes wrong, when and for how long: values from a seed, made before anything begins.

A round has every kind once, in a random order: first what befalls platforms, templates and agents
(the healthy backend beside them is to notice nothing), then what befalls everybody, then what is
only found where nothing else is wrong for a while. So all kinds are equally many. Three in ten of
the others begin in the same moment as the one before.
"""

import random

from attrs import frozen

BESIDE = "beside"  # platforms, templates, agents: some, never those of the healthy backend
ALL = "all"  # the controller, the broker, clocks, people
ALONE = "alone"  # each by itself

BEGINS_S = 45.0  # of quiet before the first
REST_S = 12.0  # between the two halves of a round
CALM_S = 12.0  # between two rounds
TOGETHER = 0.3

LASTS_S = (3.0, 6.0, 12.0, 25.0)
ALONE_S = 180.0


@frozen(kw_only=True)
class Strike:
    """One fault. ``dice`` is all the chance that it has."""

    step: int
    at: float  # seconds since the beginning
    kind: str
    lasts_s: float
    dice: int


@frozen(kw_only=True)
class Span:
    """When faults of the first half of a round are about, and no others."""

    begins: float
    ends: float


@frozen(kw_only=True)
class Script:
    """All that happens in one run."""

    strikes: tuple[Strike, ...]
    beside: tuple[Span, ...]
    ends: float


def script(seed, kinds, *, rounds):
    """Return the script of a seed; ``kinds`` says of each to which half it belongs."""
    dice = random.Random(f"script {seed}")
    at, strikes, spans = BEGINS_S, [], []
    for _ in range(rounds):
        for half in (BESIDE, ALL):
            of_half = sorted(kind for kind, whose in kinds.items() if whose == half)
            dice.shuffle(of_half)
            began = over = at
            for kind in of_half:
                if dice.random() >= TOGETHER:
                    at += dice.uniform(0.3, 2.5)
                lasts_s = dice.choice(LASTS_S)
                over = max(over, at + lasts_s)
                strikes.append(
                    Strike(
                        step=len(strikes),
                        at=at,
                        kind=kind,
                        lasts_s=lasts_s,
                        dice=dice.getrandbits(32),
                    )
                )
            if half == BESIDE:
                spans.append(Span(begins=began, ends=over + REST_S / 2))
            at = over + (REST_S if half == BESIDE else CALM_S)
        for kind in sorted(kind for kind, whose in kinds.items() if whose == ALONE):
            dice_of = dice.getrandbits(32)
            strikes.append(
                Strike(step=len(strikes), at=at, kind=kind, lasts_s=ALONE_S, dice=dice_of)
            )
            at += ALONE_S
    return Script(strikes=tuple(strikes), beside=tuple(spans), ends=at)
