"""When an agent may go, on both sides of each limit, and what keeps it."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import retention
from broker.core.demand import labels
from broker.core.demand import wishes as demand
from broker.core.model import KnownLabel, LabelSource, NodeName, Phase, Retention, TemplateName
from tests.core.worlds import NOW, policy, template
from tests.each import each

DRAINS = policy(template("t"), draining=True)
MEMORY = model.Memory(
    first_seen_at=NOW - 100, online_at=NOW - 90, online_witnessed=True, idle_at=NOW - 60
)
AGENT = model.Agent(
    name=NodeName("o-t-1"), phase=Phase.IDLE, template=TemplateName("t"), revision="r1",
    created_at=NOW - 100, memory=MEMORY,
)  # fmt: skip


@each(
    ("rule", "remembered", "more", "slug"),
    [
        ({"once": True}, {"builds": 0}, {}, None),
        ({"once": True}, {"builds": 1}, {}, "once"),
        ({"once": True}, {"online_witnessed": False}, {}, "once-unwitnessed"),
        ({"once": True}, {"online_witnessed": False, "online_at": None}, {}, None),
        ({"once": False}, {"online_witnessed": False, "builds": 9}, {}, None),
        ({"max_builds": 3}, {"builds": 2}, {}, None),
        ({"max_builds": 3}, {"builds": 3}, {}, "max-builds"),
        ({"max_age_s": 101.0}, {}, {}, None),
        ({"max_age_s": 100.0}, {}, {}, "max-age"),
        ({"max_age_s": 100.0}, {}, {"created_at": None}, None),
        ({}, {}, {"revision": "r0"}, "drift"),
        ({}, {}, {"revision": ""}, None),
        ({"once": True, "max_age_s": 1.0}, {"builds": 1}, {"revision": "r0"}, "drift"),
        ({"once": True, "max_age_s": 1.0}, {"builds": 1}, {}, "once"),
        ({"max_builds": 1, "max_age_s": 1.0}, {"builds": 1}, {}, "max-builds"),
    ],
)
def test_spent(rule, remembered, more, slug):
    """The first rule that holds is told; an unknown revision is no drift."""
    agent = attrs.evolve(AGENT, memory=attrs.evolve(MEMORY, **remembered), **more)
    found = retention.spent(agent, template("t", retention=Retention(**rule)), now=NOW)
    assert slug == (None if found is None else found.cause.slug)


def test_no_template_and_draining_outrank_every_rule():
    """With or without a memory of the agent."""
    for agent in (AGENT, attrs.evolve(AGENT, memory=None)):
        assert "removed" == retention.spent(agent, None, now=NOW).cause.slug
        assert "drain" == retention.spent(agent, template("t"), now=NOW, policy=DRAINS).cause.slug
        assert "drain" == retention.spent(agent, None, now=NOW, policy=DRAINS).cause.slug


@pytest.mark.parametrize(
    ("idle_s", "idle_at", "goes"),
    [(60.0, NOW - 60, True), (60.5, NOW - 60, False), (None, 0.0, False), (1.0, None, False)],
)
def test_idle(idle_s, idle_at, goes):
    """From the moment it was seen idle; None is for ever."""
    agent = attrs.evolve(AGENT, memory=attrs.evolve(MEMORY, idle_at=idle_at))
    found = retention.idle_too_long(
        agent, template("t", retention=Retention(idle_s=idle_s)), now=NOW
    )
    assert goes is (found is not None)


ONCE = {"once": True}
DRAIN = {"draining": True}


@pytest.mark.parametrize(
    ("rule", "builds", "more", "text"),
    [
        ({}, 0, DRAIN, "the broker is draining"),
        ({}, 0, {"revision": "r0"}, "the definition of template t changed"),
        (ONCE, 1, {}, "single use: it has had its build"),
        (ONCE, 0, {}, "single use: it may have had a build while the broker was away"),
        ({"max_builds": 1}, 1, {}, "it has had 1 of 1 build"),
        ({"max_builds": 2}, 3, {}, "it has had 3 of 2 builds"),
        ({"max_age_s": 60.0}, 0, {}, "it is 100 s old, allowed are 60 s"),
    ],
)
def test_what_is_said_of_one_that_has_served_its_time(rule, builds, more, text):
    """In full: it is what people read of an agent that goes."""
    memory = attrs.evolve(MEMORY, builds=builds, online_witnessed=False)
    agent = attrs.evolve(AGENT, memory=memory, revision=more.get("revision", "r1"))
    found = retention.spent(
        agent,
        template("t", retention=Retention(**rule)),
        now=NOW,
        policy=DRAINS if more is DRAIN else None,
    )
    assert text == found.text


def test_what_is_said_of_one_that_nobody_needs():
    """Its template is gone, it was idle for too long, or its item was cancelled."""
    memory = attrs.evolve(MEMORY, item=model.ItemId(7), item_cancelled=True)
    allowed = template("t", retention=Retention(idle_s=45.0))
    assert [
        (model.Cause.REMOVED, "its template is no longer configured"),
        (model.Cause.IDLE, "idle for 60 s, allowed are 45 s"),
        (model.Cause.SURPLUS, "item 7, for which it was started, was cancelled"),
    ] == [
        (found.cause, found.text)
        for found in (
            retention.spent(AGENT, None, now=NOW),
            retention.idle_too_long(AGENT, allowed, now=NOW),
            retention.unwanted(attrs.evolve(AGENT, memory=memory)),
        )
    ]


def test_an_age_that_nobody_knows_is_none():
    """However short the life that is allowed."""
    brief = template("t", retention=Retention(max_age_s=1.0))
    assert retention.spent(attrs.evolve(AGENT, created_at=None), brief, now=NOW) is None


def test_the_labels_of_an_agent_are_the_controllers_and_its_name():
    """Until there is a node, those of its template; of neither, its name alone."""
    for shown in ({"x"}, {"x", AGENT.name}):
        computer = model.Computer(name=AGENT.name, labels=frozenset(shown))
        agent = attrs.evolve(AGENT, computer=computer)
        assert {"x", AGENT.name} == retention.labels_of(agent, template("t"))
        assert {"x"} == retention.kind_of(agent, template("t"))
    assert {"t", AGENT.name} == retention.labels_of(AGENT, template("t"))
    assert {AGENT.name} == retention.labels_of(AGENT, None)


def asked(kind, source, *, age_s, text="t"):
    known = source is not LabelSource.UNREADABLE
    item = model.QueueItem(
        id=model.ItemId(1), stage=model.Stage.BUILDABLE, in_queue_since_at=NOW - age_s
    )
    return demand.Wish(
        item=item,
        label=KnownLabel(source=source, expression=text if known else None),
        kind=kind,
        expression=labels.parse(text) if known else None,
    )


def interests(kind, source, **more):
    wish = asked(kind, source, **more)
    return retention.Interests(wishes=(wish,)).for_agent(AGENT, template("t"))


K, WHY, DARK = demand.WishKind, LabelSource.WHY, LabelSource.UNREADABLE


@each(
    ("asked", "age_s", "over_age", "kept"),
    [
        ((K.NOW, WHY), 9000, False, True),
        ((K.NOW, WHY), 9000, True, True),
        ((K.ANNOUNCED, WHY), 1, False, True),
        ((K.LATER, WHY), 1, False, True),
        ((K.LATER, WHY), 1, True, False),
        ((K.STARTED, WHY), 1, False, False),
        ((K.NOT_DEMAND, WHY), 1, False, False),
        ((K.NOW, DARK), 14.9, False, True),
        ((K.NOW, DARK), 15.0, False, False),
        ((K.ANNOUNCED, DARK), 1, False, False),
        ((K.LATER, DARK), 1, False, False),
    ],
)
def test_who_keeps_an_idle_agent(asked, age_s, over_age, kept):
    """What could want it keeps it; what cannot be read only until the controller had its chance."""
    found = retention.protector(
        AGENT, interests(*asked, age_s=age_s), now=NOW, settle_s=15.0, over_age=over_age
    )
    assert kept is (found is not None)


def test_what_does_not_keep_it_leaves_the_word_to_the_next():
    """A blocked item, and one that had its chance, before one that could want it."""
    wishes = (
        asked(K.LATER, WHY, age_s=900),
        asked(K.NOW, DARK, age_s=900),
        asked(K.NOW, WHY, age_s=1),
    )
    said = retention.Interests(wishes=wishes).for_agent(AGENT, template("t"))
    assert wishes == tuple(interest.wish for interest in said)
    limits = {"now": NOW, "settle_s": 15.0}
    assert wishes[2] is retention.protector(AGENT, said, over_age=True, **limits)
    assert wishes[0] is retention.protector(AGENT, said, **limits)


@pytest.mark.parametrize("memory", [None, attrs.evolve(MEMORY, idle_at=None)])
def test_since_when_it_is_idle_may_be_unknown(memory):
    """Then what cannot be read has not had its chance yet."""
    agent = attrs.evolve(AGENT, memory=memory)
    unread = interests(K.NOW, DARK, age_s=9000)
    assert retention.protector(agent, unread, now=NOW, settle_s=15.0) is unread[0].wish


def test_other_labels_claim_nothing():
    """Nor does a negated name of its own; a name of its own does."""
    assert interests(K.NOW, WHY, age_s=1, text="u") == ()
    assert interests(K.NOW, WHY, age_s=1, text="t&&!o-t-1") == ()
    assert len(interests(K.NOW, WHY, age_s=1, text="o-t-1")) == 1


def test_who_is_named_is_told_from_its_like():
    """Agents of a kind are answered together, but for those that an item names."""
    named = asked(K.NOW, WHY, age_s=1, text="o-t-2")
    known = retention.Interests(wishes=(named, asked(K.NOW, WHY, age_s=1, text="t&&!o-t-3")))
    wanted = {
        name: [
            interest.wish is named
            for interest in known.for_agent(attrs.evolve(AGENT, name=name), template("t"))
        ]
        for name in ("o-t-1", "o-t-2", "o-t-3", "o-t-4")
    }
    assert {"o-t-1": [False], "o-t-2": [True, False], "o-t-3": [], "o-t-4": [False]} == wanted


def test_whoever_is_not_there_yet_has_the_labels_of_its_template():
    """Of another template, or of none any more, it is of another kind."""
    known = retention.Interests(wishes=(asked(K.NOW, WHY, age_s=1),))
    templates = (template("t"), template("u"), None)
    assert [1, 0, 0] == [len(known.for_agent(AGENT, one)) for one in templates]


def test_the_oldest_goes_first():
    """So that age limits are met by turnover, and the youngest stay warm."""
    young = attrs.evolve(AGENT, name=NodeName("a"), created_at=NOW)
    unknown = attrs.evolve(AGENT, name=NodeName("z"), created_at=None)
    assert [unknown, AGENT, young] == retention.order([young, AGENT, unknown])
