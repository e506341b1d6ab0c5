"""Orders and reservations to the letter: who serves whom, in which order, and the words of it."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import ordering, plan, restraint, serving
from broker.core.demand import matching
from broker.core.model import Phase, Retention, Stage, WaitReason
from tests.core.test_plan_rules import drafted
from tests.core.worlds import NOW, B, Scene, actions, item, launches, template

VETO = "‘u’ lacks permission to run on ‘o-t-a1’"


def quiet(number, label):
    return item(number, label, why="In the quiet period", stage=Stage.WAITING)


def unmet(made):
    return {u.item: (u.reason, u.text, u.template, u.agent) for u in made.unmet}


def a_supply(name, **more):
    fields = {"template": "t", "kind": frozenset({"t"}), "exclusive": False, "tier": 0}
    return matching.Supply(name=model.NodeName(name), slots=1, **{**fields, **more})


# --- without the controller ---


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("", "its state is unknown, so nothing is decided"),
        ("no answer", "its state is unknown, so nothing is decided: no answer"),
    ],
)
def test_a_controller_that_does_not_answer_is_all_there_is_to_say(error, text):
    """The whole refusal."""
    scene = Scene(template("t"))
    scene.synced = False
    world = scene.world()
    world = attrs.evolve(world, controller=attrs.evolve(world.controller, error=error))
    made = plan.plan(world, scene.policy)
    assert made.refusals == (model.Refusal(subject="controller", text=text),)


@pytest.mark.parametrize(
    ("retention", "phase", "active"),
    [
        (Retention(once=True), Phase.IDLE, True),
        (Retention(once=True), Phase.BUSY, True),
        (Retention(max_builds=9), Phase.IDLE, True),
        (Retention(max_builds=9), Phase.BUSY, True),
        (Retention(), Phase.IDLE, False),
        (Retention(), Phase.BUSY, False),
        (Retention(once=True), Phase.HELD, False),
    ],
)
def test_whose_builds_are_counted_is_looked_at_often(retention, phase, active):
    """A build that begins and ends between two looks is not seen."""
    scene = Scene(template("t", retention=retention))
    scene.agent("t", phase)
    made = scene.plan()
    assert (made.actions, made.active) == ((), active)


# --- the agents that are there ---


@pytest.mark.parametrize("exclusive", [False, True])
def test_what_an_agent_has_to_offer(exclusive):
    """The whole of it; an agent whose template is gone is only for those who ask for its label."""
    scene = Scene(template("t", "x", exclusive=exclusive, executors=3))
    name = scene.agent("t", Phase.BUSY)
    other = scene.agent("old", Phase.IDLE, executors=2)
    scene.wait(item(1, "x"))
    found = drafted(scene)
    assert sorted(found.supplies, key=lambda s: s.name, reverse=True) == [
        matching.Supply(
            name=name,
            template="t",
            kind=frozenset({"x"}),
            exclusive=exclusive,
            slots=2,
            tier=0,
        ),
        matching.Supply(
            name=other,
            template="old",
            kind=frozenset(),
            exclusive=True,
            slots=2,
            tier=0,
        ),
    ]


@pytest.mark.parametrize(
    ("seen", "starting"),
    [
        ({"age_s": 5}, True),
        ({"age_s": 29.9}, True),
        ({"age_s": 30}, False),
        ({"age_s": 5, "online_at": NOW - 1}, False),
        ({"age_s": 5, "created_at": None}, False),
    ],
)
def test_an_agent_of_a_backend_that_is_silent_may_still_be_starting(seen, starting):
    """Until its deadline, and if it was never online."""
    scene = Scene(template("t", connect_deadline_s=30))
    name = scene.agent("t", Phase.CONNECTING, **seen)
    scene.dark_backends.add(B)
    scene.wait(item(1, "t"))
    draft = drafted(scene)
    (agent,) = draft.agents
    assert agent.phase is Phase.UNKNOWN
    assert serving._may_be_starting(agent, draft.policy.templates[0], NOW) is starting
    assert [s.name for s in draft.supplies] == [name] * starting
    if starting:
        text = f"agent {name} was starting for it; its backend does not answer just now"
        assert unmet(scene.plan()) == {1: (WaitReason.AGENT_STARTING, text, "t", name)}


@pytest.mark.parametrize("min_idle", [0, 1, 2, 3])
def test_those_that_come_last_are_kept_warm(min_idle):
    """As many as are wanted: first those on their way, then the last by name."""
    scene = Scene(template("t", min_idle=min_idle))
    idle = sorted(scene.agent("t", Phase.IDLE) for _ in range(3))
    coming = scene.agent("t", Phase.CONNECTING, age_s=5)
    scene.wait(item(1, "t"))
    kept = {s.name for s in serving._keep(drafted(scene)) if s.kept}
    assert kept == set([coming, *reversed(idle)][:min_idle])


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ({5}, "item 5"),
        ({5, 3}, "items 3, 5"),
        ({5, 3, 1}, "items 1, 3, 5"),
        ({5, 3, 1, 2}, "items 1, 2, 3, ..."),
    ],
)
def test_items_in_words(items, text):
    """The oldest three."""
    assert serving._many(frozenset(map(model.ItemId, items))) == text


@pytest.mark.parametrize(
    ("why", "nominated_s", "refused"),
    [
        (None, 59.9, set()),
        (None, 60.0, {1}),
        (VETO, 14.9, set()),
        (VETO, 15.0, {1}),
    ],
)
def test_a_reservation_ends_to_the_second(why, nominated_s, refused):
    """Sooner where the controller says what speaks against it."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, nominated_at=NOW - nominated_s)
    scene.wait(item(1, "t", why=why, age_s=900))
    draft = drafted(scene)
    assert (draft.policy.settle_s, draft.policy.reservation_s) == (15, 60)
    assert draft.refused.get(name, frozenset()) == refused


def test_only_what_could_be_given_to_an_agent_is_refused_to_it():
    """Neither what is blocked, nor what nobody can read."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, nominated_at=NOW - 100)
    scene.wait(
        item(1, "t", stage=Stage.BLOCKED, why="Build #1 is already in progress", age_s=300),
        item(2, why="Ein anderer Text", exports_label=False, age_s=200),
        item(3, "t", age_s=100),
    )
    assert drafted(scene).refused == {name: frozenset({3})}


@pytest.mark.parametrize(("phase", "refused"), [(Phase.IDLE, {1, 2}), (Phase.BUSY, {1})])
def test_an_agent_at_work_refuses_only_what_it_was_not_given_for_long(phase, refused):
    """An idle one has taken nothing at all, so it counts for nobody."""
    scene = Scene(template("t", executors=2))
    name = scene.agent("t", phase, nominated_at=NOW - 500, free_at=NOW - 500)
    scene.wait(item(1, "t", age_s=100), item(2, "t", age_s=5))
    assert drafted(scene).refused == {name: frozenset(refused)}


# --- launches ---


@pytest.mark.parametrize(
    ("label", "words"), [(None, "any agent"), ("t", "'t'"), ("t || z", "'t || z'")]
)
def test_a_launch_says_for_whom_it_is(label, words):
    """The whole action."""
    scene = Scene(template("t", exclusive=False, takes_unlabelled=True))
    scene.wait(item(4, label))
    expected = model.LaunchAgent(
        name=model.NodeName("o-t-n0"),
        template="t",
        backend=B,
        reason=f"item 4 waits for {words}",
        item=model.ItemId(4),
    )
    assert scene.plan().actions == (expected,)


@pytest.mark.parametrize(
    ("waiting", "executors", "min_idle", "reason", "first"),
    [
        (2, 2, 0, "item 1 waits for 't', and 1 more item", 1),
        (3, 3, 0, "item 1 waits for 't', and 2 more items", 1),
        (0, 1, 1, "keeps 1 agent warm", None),
    ],
)
def test_a_launch_for_several_items_or_none_says_so(waiting, executors, min_idle, reason, first):
    """The first item stands for all; the warm pool has none."""
    scene = Scene(template("t", executors=executors, min_idle=min_idle))
    scene.wait(*(item(n, "t") for n in range(1, waiting + 1)))
    (action,) = scene.plan().actions
    assert (action.reason, action.item) == (reason, first)


@pytest.mark.parametrize(("exclusive", "since"), [(False, NOW), (True, None)])
def test_an_item_without_a_label_wants_who_takes_such_items(exclusive, since):
    """It is remembered since when one is free for it."""
    more = {"exclusive": exclusive, "takes_unlabelled": not exclusive}
    scene = Scene(template("t", **more))
    name = scene.agent("t", Phase.IDLE, free_at=NOW - 5)
    scene.wait(item(1))
    assert scene.plan().ledger.memories[name].nominated_at == since


def test_an_order_is_offered_as_its_agent_will_be():
    """The whole of it: the items of this very plan are matched with it."""
    scene = Scene(template("t", "x", exclusive=True, executors=2))
    draft = drafted(scene)
    ordering._order_one(draft, scene.policy.templates[0], B)
    name = model.NodeName("o-t-n0")
    assert draft.supplies == [
        matching.Supply(
            name=name,
            template="t",
            kind=frozenset({"x"}),
            exclusive=True,
            slots=2,
            tier=3,
        )
    ]


@pytest.mark.parametrize(
    ("waiting", "executors", "orders"), [(3, 1, 3), (4, 2, 2), (5, 2, 3), (7, 3, 3), (3, 3, 1)]
)
def test_one_round_orders_for_all(waiting, executors, orders):
    """The free slots of what it has just ordered are counted."""
    scene = Scene(template("t", executors=executors))
    scene.wait(*(item(n, "t") for n in range(1, waiting + 1)))
    draft = drafted(scene)
    ordering._order_round(draft)
    assert len(draft.orders) == orders


def test_who_waits_goes_before_who_is_announced():
    """However long the other is in the queue."""
    scene = Scene(template("t", start_early=True), template("u"), cap=1)
    scene.wait(quiet(1, "t"), item(2, "u"))
    assert launches(scene.plan()) == {"u": 1}


def test_an_announced_item_is_ordered_only_who_starts_early():
    """Though another one comes first for it once it waits; and a limit is none of its reasons."""
    scene = Scene(template("t", "x"), template("u", "x", start_early=True))
    scene.wait(quiet(1, "x"))
    assert launches(scene.plan()) == {"u": 1}
    scene.policy = attrs.evolve(scene.policy, cap=0)
    (one,) = scene.plan().unmet
    assert (one.reason, "quiet period" in one.text) == (WaitReason.QUIET_PERIOD, True)
    draft = drafted(scene)
    ordering.order(draft)
    assert (draft.said, draft.short) == ({}, [])


def test_without_a_name_left_the_next_look_orders():
    """The whole reason."""
    scene = Scene(template("t", "x"), template("u", "x"))
    scene.wait(item(1, "x"), item(2, "x"))
    made = plan.plan(attrs.evolve(scene.world(), fresh_ids=("n0",)), scene.policy)
    assert launches(made) == {"t": 1}
    text = "more launches follow in the next cycle"
    assert unmet(made)[2] == (WaitReason.BUDGET, text, "t", None)


def test_the_first_template_says_why_none_is_ordered():
    """It is the preferred one."""
    scene = Scene(template("t", "x", cap=0), template("u", "x"))
    scene.backoff(model.Scope.TEMPLATE, "u")
    scene.wait(item(1, "x"))
    (one,) = scene.plan().unmet
    assert (one.reason, one.template) == (WaitReason.CAP_TEMPLATE, "t")


def test_an_item_waits_for_the_template_of_its_agent():
    """Not for the one that is preferred."""
    scene = Scene(template("t", "x"), template("u", "x"))
    name = scene.agent("u", Phase.CONNECTING, age_s=5)
    scene.wait(item(1, "x"))
    text = f"agent {name} is starting for it"
    assert unmet(scene.plan()) == {1: (WaitReason.AGENT_STARTING, text, "u", name)}


def test_every_pinned_item_says_which_agent_it_must_run_on():
    """The whole reason; one whose agent is free is no obstacle to the next."""
    scene = Scene(template("t"))
    free = scene.agent("t", Phase.IDLE)
    busy = scene.agent("t", Phase.BUSY)
    scene.wait(item(1, free), item(2, busy))
    made = scene.plan()
    text = f"it must run on agent {busy} and nowhere else"
    assert unmet(made)[2] == (WaitReason.AGENT_BUSY, text, "t", busy)
    assert launches(made) == {}


# --- when more agents would not help ---


def shortage(scene, *supplies):
    """What is said of the first item when these were passed over."""
    draft = drafted(scene)
    draft.passed_over[:] = supplies
    found = restraint.more_would_not_help(draft, draft.crowds[0])
    return (found.reason, found.text) if found is not None else None


@pytest.mark.parametrize(
    ("more", "helps"),
    [
        ({}, False),  # fits, and was given nothing
        ({"refused": frozenset({1})}, False),
        ({"refused": frozenset({2})}, True),  # something else was not given to it
        ({"kind": frozenset({"u"}), "template": "u"}, True),  # does not fit
    ],
)
def test_who_was_not_given_an_item_speaks_against_another_agent(more, helps):
    """Two of them: the first one may be at fault."""
    scene = Scene(template("t"), template("u"))
    scene.wait(item(1, "t", why="w"))
    said = shortage(scene, a_supply("o-t-a1", **more), a_supply("o-t-a2", **more))
    text = "o-t-a1, o-t-a2 fit and are free, the controller gives none this item: w"
    assert said == (None if helps else (WaitReason.NOT_GIVEN, text))
    assert shortage(scene, a_supply("o-t-a1", **more)) is None


@pytest.mark.parametrize(("why", "words"), [("", ""), ("w" * 200, ": " + "w" * 120)])
def test_of_many_that_an_item_is_not_given_to_three_are_named(why, words):
    """With the beginning of what the controller says, if it says anything."""
    scene = Scene(template("t"))
    scene.wait(attrs.evolve(item(1, "t"), why=why))
    text = "a, b, c fit and are free, the controller gives none this item" + words
    assert shortage(scene, *map(a_supply, "abcd")) == (WaitReason.NOT_GIVEN, text)


def test_agents_of_another_kind_that_get_no_work_hold_up_nobody():
    """What fits nobody here is ordered all the same."""
    scene = Scene(template("t"), template("u"))
    for _ in range(2):
        scene.agent("u", Phase.IDLE, nominated_at=NOW - 100)
    scene.wait(item(1, "u", age_s=100), item(2, "t"))
    assert launches(scene.plan()) == {"t": 1}
    assert len(actions(scene.plan(), model.LaunchAgent)) == 1


def test_whoever_makes_room_for_an_item_that_names_its_node_is_given_another():
    """The item's own template is full, the node's is not: an agent for whom it serves now."""
    scene = Scene(template("a", "a", "x", cap=1), template("b", "b", "x"))
    name = scene.agent("b", Phase.IDLE)
    scene.wait(
        item(1, "x", age_s=100.0),
        item(2, "a", age_s=90.0),
        item(3, f"a || b && {name}", age_s=80.0),
        item(4, "x", age_s=70.0),
    )
    assert launches(scene.plan()) == {"a": 1, "b": 2}
