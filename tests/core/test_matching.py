"""The matching against brute force, and the promises beside its size."""

import functools

from hypothesis import given
from hypothesis import strategies as st

from broker.core import model
from broker.core.demand import labels, matching
from broker.core.demand import wishes as demand
from broker.core.model import ItemId, KnownLabel, LabelSource, NodeName, TemplateName
from tests.each import each

EXPRESSIONS = ("a", "b", "a||b", "a&&b", "!a", "a&&!o-0", "o-1||b")


def wish(number, text, **more):
    return demand.Wish(
        item=model.QueueItem(id=ItemId(number), stage=model.Stage.BUILDABLE),
        label=KnownLabel(source=LabelSource.WHY, expression=text),
        kind=demand.WishKind.NOW,
        expression=labels.parse(text),
        **more,
    )


def supply(number, owned, **more):
    name = NodeName(f"o-{number}")
    fields = {"slots": 1, "tier": 0, "exclusive": True, "template": TemplateName("t"), **more}
    return matching.Supply(name=name, kind=frozenset(owned), **fields)


def best(wishes, slots):
    """Return which sets of wishes can be served at once, oldest first: the greedy optimum."""

    @functools.cache
    def fit(chosen, free):
        if not chosen:
            return True
        return any(
            fit(chosen[1:], free - {s}) for s in free if matching.fits(wishes[chosen[0]], slots[s])
        )

    taken = ()
    for number in range(len(wishes)):
        if fit((*taken, number), frozenset(range(len(slots)))):
            taken = (*taken, number)
    return taken


SUPPLIES = st.lists(
    st.tuples(
        st.sets(st.sampled_from("ab")), st.integers(0, 2), st.integers(0, 2), st.booleans()
    ),
    max_size=5,
)  # fmt: skip
WISHES = st.lists(st.sampled_from(EXPRESSIONS), max_size=6)


def world(texts, told):
    wishes = [wish(n, text) for n, text in enumerate(texts)]
    supplies = [
        supply(n, owned, slots=slots, tier=tier, kept=kept)
        for n, (owned, slots, tier, kept) in enumerate(told)
    ]
    return wishes, supplies


@given(texts=WISHES, told=SUPPLIES)
def test_as_good_as_brute_force(texts, told):
    """As many as possible, the oldest first, each with an agent that fits, no slot twice."""
    wishes, supplies = world(texts, told)
    slots = [s for s in supplies for _ in range(s.slots)]
    given_ = {w.item.id: s for w, s in matching.match(wishes, supplies)}
    assert set(best(wishes, slots)) == set(given_)
    for number, found in given_.items():
        assert matching.fits(wishes[number], found)
    taken = [found.name for found in given_.values()]
    assert all(taken.count(s.name) <= s.slots for s in supplies)


@given(texts=WISHES, told=SUPPLIES)
def test_the_soonest_agents_are_used(texts, told):
    """No better set of ranks serves the same items."""
    wishes, supplies = world(texts, told)
    given_ = {w.item.id: s for w, s in matching.match(wishes, supplies)}
    used = sorted(found.rank for found in given_.values())
    served = [w for w in wishes if w.item.id in given_]
    for limit in sorted({s.rank for s in supplies}):
        within = [s for s in supplies if s.rank <= limit for _ in range(s.slots)]
        most = _size(served, within)
        assert most == sum(rank <= limit for rank in used)


def _size(wishes, slots):
    """Return how many of these can be served at once, by Kuhn's algorithm on single slots."""
    owner = {}

    def place(number, seen):
        for s, one in enumerate(slots):
            if s not in seen and matching.fits(wishes[number], one):
                seen.add(s)
                if s not in owner or place(owner[s], seen):
                    owner[s] = number
                    return True
        return False

    return sum(place(number, set()) for number in range(len(wishes)))


@each(
    ("changes", "owned", "fits"),
    [
        ({}, "a", True),
        ({}, "b", False),
        ({"pinned": NodeName("o-0")}, "", True),
        ({"pinned": NodeName("o-9")}, "a", False),
        ({"kind": demand.WishKind.ANNOUNCED}, "a", False),
        ({"kind": demand.WishKind.ANNOUNCED, "early": (TemplateName("t"),)}, "a", True),
        ({"kind": demand.WishKind.STARTED}, "a", False),
        ({"label": KnownLabel(source=LabelSource.NO_LABEL), "expression": None}, "a", False),
        ({"label": KnownLabel(source=LabelSource.UNREADABLE), "expression": None}, "a", False),
    ],
)
def test_who_fits(changes, owned, fits):
    """What the controller may give to an agent, and nothing that is only possible."""
    import attrs

    assert fits is matching.fits(attrs.evolve(wish(1, "a"), **changes), supply(0, owned))


def test_unlabelled_items_fit_agents_that_are_not_exclusive():
    """As the controller has it."""
    import attrs

    plain = attrs.evolve(
        wish(1, "a"), label=KnownLabel(source=LabelSource.NO_LABEL), expression=None
    )
    assert matching.fits(plain, supply(0, "a", exclusive=False))
