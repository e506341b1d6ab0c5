"""Rules of a plan that no ordinary world makes show: the clamp, and whose turn it is."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import capacity, leaving, leftovers, ordering, plan, serving
from broker.core.decide import draft as drafts
from broker.core.demand import vetoes
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.model import BackendName, Phase, Stage, WaitReason
from tests.core.worlds import NOW, B, Scene, actions, item, launches, template
from tests.each import each

OTHER = BackendName("other")


def cordoned(made):
    return {a.name: a.cause for a in made.actions if isinstance(a, model.CordonAgent)}


# --- the clamp: it takes back what the rules order too much, should they ever ---


def drafted(scene):
    """A plan so far written: what the present agents will serve, and nothing ordered."""
    world = scene.world()
    found, ledger, _ = agents_.observe(world, scene.policy)
    ours = {a.name: a.template for a in found if a.template is not None}
    wishes, _ = demand.wishes(world.controller, scene.policy.templates, ledger, ours)
    ledger = vetoes.seen(ledger, wishes, world.controller, now=world.now)
    draft = drafts.Draft(
        world=attrs.evolve(world, ledger=ledger),
        policy=scene.policy,
        agents=found,
        wishes=drafts.oldest_first(wishes),
        room=capacity.count(world, scene.policy, found),
    )
    serving.serve_from_present(draft)
    return draft


def order_too_much(draft, name, count):
    """Launch as a rule with a bug would: whatever is wanted."""
    for _ in range(count):
        ordering._order_one(draft, draft.policy.template(name), B)
    draft.actions.clear()
    ordering._launch_ordered(draft)


@each(
    ("waiting", "warm", "executors", "idle", "ordered", "stay"),
    [
        (0, 0, 1, 0, 1, 0),
        (0, 0, 1, 0, 3, 0),
        (2, 0, 1, 0, 2, 2),
        (2, 0, 1, 0, 5, 2),
        (3, 0, 2, 0, 3, 2),  # two slots each: half an agent is a whole one
        (4, 0, 2, 0, 3, 2),
        (2, 0, 1, 2, 1, 0),  # who is idle serves them
        (2, 0, 1, 1, 3, 1),
        (0, 2, 1, 0, 4, 2),
        (0, 2, 1, 1, 4, 1),  # who is idle is warm already
        (0, 2, 1, 2, 4, 0),
        (1, 2, 1, 1, 9, 2),  # ... unless it is promised to somebody
        (1, 2, 1, 0, 9, 3),
    ],
)
def test_what_is_ordered_beyond_demand_and_warm_target_is_taken_back(
    waiting, warm, executors, idle, ordered, stay
):
    """Counted from the items that nobody present serves, and the warm ones that are missing."""
    scene = Scene(template("t", executors=executors, min_idle=warm))
    for _ in range(idle):
        scene.agent("t", Phase.IDLE)
    scene.wait(*(item(number, "t") for number in range(1, waiting + 1)))
    draft = drafted(scene)
    order_too_much(draft, "t", ordered)
    beyond = plan._clamp(draft)
    left = [a for a in draft.actions if isinstance(a, model.LaunchAgent)]
    assert (len(left), draft.launches["t"], beyond) == (stay, stay, ordered - stay)


def test_the_last_ones_of_that_template_are_taken_back():
    """What was ordered first is what the oldest items wait for; others are left alone."""
    scene = Scene(template("t"), template("u"))
    scene.wait(item(1, "t"), item(2, "u"))
    draft = drafted(scene)
    order_too_much(draft, "t", 2)
    order_too_much(draft, "u", 1)
    first, second, third = draft.actions
    assert 1 == plan._clamp(draft)
    assert draft.actions == [first, third]
    assert second.template == "t"


def test_an_agent_on_its_way_is_warm_and_one_at_work_is_not():
    """A free slot of a busy agent keeps nothing warm."""
    scene = Scene(template("t", min_idle=1, executors=2))
    scene.agent("t", Phase.BUSY)
    draft = drafted(scene)
    order_too_much(draft, "t", 2)
    assert 1 == plan._clamp(draft)
    scene = Scene(template("t", min_idle=1))
    scene.agent("t", Phase.CONNECTING, age_s=5.0)
    draft = drafted(scene)
    order_too_much(draft, "t", 2)
    assert 2 == plan._clamp(draft)


def test_an_item_that_several_templates_serve_is_no_excess_of_either():
    """Either may be the one that was ordered for it."""
    scene = Scene(template("t", "x"), template("u", "x"))
    scene.wait(item(1, "x"))
    draft = drafted(scene)
    order_too_much(draft, "u", 1)
    assert 0 == plan._clamp(draft)


def test_whoever_makes_room_for_another_item_is_no_excess():
    """The agent on its way goes to whom it alone can serve; for the two others two are ordered."""
    scene = Scene(template("t", "t", "any", cap=1), template("u", "u", "any"))
    scene.agent("t", Phase.CONNECTING, age_s=5.0)
    scene.wait(item(1, "any", age_s=9.0), item(2, "t", age_s=8.0), item(3, "any", age_s=7.0))
    made = scene.plan()  # asserts that nothing was beyond what is wanted
    assert {"u": 2} == launches(made)


def test_a_plan_tells_an_overshoot_and_does_not_order_it(monkeypatch):
    """It is what a metric and an alert are about; an ordinary plan tells none."""
    scene = Scene(template("t", min_idle=1))
    scene.wait(item(1, "t"))
    made = scene.plan()
    assert (made.overshoot, launches(made)) == (0, {"t": 2})
    monkeypatch.setattr(ordering, "order", lambda draft: order_too_much(draft, "t", 5))
    made = plan.plan(scene.world(), scene.policy)
    assert (made.overshoot, launches(made)) == (3, {"t": 2})
    assert made.counts["t"].launches == 2


# --- the fair turn on a shared cap ---


def full(*, cap=3, busy=("a", "a", "a"), waiting=("b",), **more):
    """A cap that agents at work fill, and an item of another template."""
    scene = Scene(template("a"), template("b"), template("c"), cap=cap, **more)
    for name in busy:
        scene.agent(name, Phase.BUSY)
    scene.wait(*(item(number, name) for number, name in enumerate(waiting, start=1)))
    return scene


def after(scene, seconds):
    """The plan when as much time has passed since the wait was first seen."""
    scene.ledger = scene.plan().ledger
    scene.now += seconds
    return scene.plan()


@pytest.mark.parametrize("yield_after_s", [20.0, 60.0, 300.0])
def test_a_place_is_due_after_the_time_that_is_set_and_not_before(yield_after_s):
    """Counted from the first look that saw the item blocked, not from its time in the queue."""
    scene = full(yield_after_s=yield_after_s)
    scene.items = [attrs.evolve(i, buildable_since_at=NOW - 5000) for i in scene.items]
    assert cordoned(after(scene, yield_after_s - 0.5)) == {}
    assert scene.plan().wake_at == NOW + yield_after_s
    scene.now += 0.5
    assert list(cordoned(scene.plan()).values()) == [model.Cause.YIELD]


def test_one_place_at_a_time():
    """As long as somebody leaves already nobody else has to."""
    scene = full(waiting=("b", "b", "c"))
    made = after(scene, 60.0)
    assert len(cordoned(made)) == 1
    name = next(iter(cordoned(made)))
    scene.ledger = made.ledger
    scene.computers = [
        attrs.evolve(
            c, temporarily_offline=True, offline=True, offline_cause="agent-broker: yield: x"
        )
        if c.name == name
        else c
        for c in scene.computers
    ]
    scene.now += 600.0
    assert cordoned(scene.plan()) == {}


def test_whoever_holds_most_gives_and_nobody_swaps_places():
    """A template that holds one more than the one that waits keeps it: nothing would be won."""
    scene = full(cap=4, busy=("a", "c", "c", "c"))
    (name,) = cordoned(after(scene, 60.0))
    assert name.startswith("o-c-")
    scene = full(cap=3, busy=("a", "a", "b"))
    assert cordoned(after(scene, 600.0)) == {}
    scene = full(cap=4, busy=("a", "a", "a", "b"))
    assert len(cordoned(after(scene, 60.0))) == 1


def test_with_none_at_all_even_a_single_one_gives():
    """A template without an agent waits for ever otherwise."""
    scene = full(cap=1, busy=("a",))
    assert len(cordoned(after(scene, 60.0))) == 1


def test_the_oldest_of_them_goes():
    """It is nearest to its end anyhow."""
    scene = Scene(template("a"), template("b"), cap=2)
    scene.agent("a", Phase.BUSY, age_s=100)
    oldest = scene.agent("a", Phase.BUSY, age_s=900)
    scene.wait(item(1, "b"))
    assert set(cordoned(after(scene, 60.0))) == {oldest}


def test_only_a_place_that_helps_is_taken():
    """A backend's cap is not lifted by an agent of another one, whoever holds most there."""
    scene = Scene(template("a", backends=(OTHER,)), template("b"), template("c"))
    scene.policy = attrs.evolve(
        scene.policy,
        backends={B: model.BackendPolicy(cap=1), OTHER: model.BackendPolicy(cap=3)},
    )
    for _ in range(3):
        scene.agent("a", Phase.BUSY, backend=OTHER)
    near = scene.agent("c", Phase.BUSY)
    scene.wait(item(1, "b"))
    assert set(cordoned(after(scene, 60.0))) == {near}
    scene.policy = attrs.evolve(scene.policy, cap=4)  # the total cap is lifted by any
    (name,) = cordoned(scene.plan())
    assert name.startswith("o-a-")


def test_nobody_yields_to_an_item_that_its_own_template_serves():
    """The item gets its place anyhow, when the build ends."""
    scene = Scene(template("a", "a", "x"), template("b", "x"), cap=2)
    scene.agent("a", Phase.BUSY)
    scene.agent("a", Phase.BUSY)
    scene.wait(item(1, "x"))
    assert cordoned(after(scene, 60.0)) == {}


@pytest.mark.parametrize("reason", [WaitReason.CAP_TEMPLATE, WaitReason.CAP_STARTING])
def test_nobody_yields_to_a_limit_that_is_not_shared(reason):
    """The template's own cap is its own affair, and what starts will be there soon."""
    more = {"max_starting": 1} if reason is WaitReason.CAP_STARTING else {}
    scene = Scene(template("a"), template("b", cap=1), **more)
    scene.agent("a", Phase.BUSY)
    scene.agent("b", Phase.BUSY if not more else Phase.CONNECTING, age_s=5.0)
    scene.wait(item(1, "b"), item(2, "b"))
    made = after(scene, 60.0)
    assert cordoned(made) == {}
    assert made.ledger.waits == {}


def test_a_wait_that_is_over_is_forgotten():
    """Who is blocked again waits anew."""
    scene = full()
    scene.ledger = scene.plan().ledger
    assert scene.ledger.waits == {1: NOW}
    scene.policy = attrs.evolve(scene.policy, cap=None)
    scene.ledger = scene.plan().ledger
    assert scene.ledger.waits == {}


def test_thousands_who_wait_ask_for_one_place_as_one_does(monkeypatch):
    """Items that want the same are asked about once, not one after the other."""
    asked = []
    real = leaving._holders
    monkeypatch.setattr(leaving, "_holders", lambda *a: asked.append(a) or real(*a))
    scene = full(cap=3, busy=("a", "a", "b"), waiting=("b",) * 500)
    after(scene, 60.0)
    assert len(asked) == 1


def test_idle_agents_make_room_one_for_each_item_that_is_blocked():
    """And not for those for whom somebody already leaves."""
    scene = Scene(template("a"), template("b"), cap=3)
    for _ in range(3):
        scene.agent("a", Phase.IDLE)
    scene.wait(item(1, "b"), item(2, "b"))
    assert len(actions(scene.plan(), model.RetireAgent)) == 2


# --- what mutants showed to be held by nothing ---


def test_an_agent_that_makes_room_is_retired_once():
    """Its time may be up as well; there is one action for one agent."""
    scene = Scene(template("a", retention=model.Retention(idle_s=10)), template("b"), cap=1)
    scene.agent("a", Phase.IDLE, idle_s=100)
    scene.wait(item(1, "b"))
    (action,) = scene.plan().actions
    assert action.cause is model.Cause.YIELD


def test_of_those_that_stay_the_next_end_is_noted_when_another_one_goes():
    """Nothing else would wake the loop in time."""
    scene = Scene(template("t", retention=model.Retention(idle_s=600)))
    scene.agent("t", Phase.IDLE, idle_s=601, age_s=900)
    scene.agent("t", Phase.IDLE, idle_s=580, age_s=800)
    scene.agent("t", Phase.IDLE, idle_s=590, age_s=700)
    made = scene.plan()
    assert (len(made.actions), made.wake_at) == (1, NOW + 10)
    scene = Scene(template("t", retention=model.Retention(idle_s=600)))
    scene.agent("t", Phase.IDLE, idle_s=580)
    scene.agent("t", Phase.IDLE, idle_s=590)
    made = scene.plan()
    assert (made.actions, made.wake_at) == ((), NOW + 10)


def test_who_stays_warm_is_not_waited_for():
    """Its time never ends."""
    scene = Scene(template("t", min_idle=1, retention=model.Retention(idle_s=600)))
    scene.agent("t", Phase.IDLE, idle_s=590)
    assert scene.plan().wake_at is None


def test_an_agent_that_starts_for_a_cancelled_item_stays_for_another():
    """It is nominated for it: to stop it and order another one would cost the time twice."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.CONNECTING, age_s=5.0, item_cancelled=True)
    assert set(actions(scene.plan(), model.RetireAgent)) == {name}
    scene.wait(item(1, "t"))
    assert scene.plan().actions == ()


def test_only_an_item_that_could_run_at_once_brings_its_agent_back():
    """A blocked one may be blocked for days."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.DRAINED)
    about = {"why": f"Must run on {name} not x", "task_class": "org.PlaceholderTask"}
    scene.wait(item(1, stage=Stage.BLOCKED, **about))
    assert actions(scene.plan(), model.UncordonAgent) == {}
    scene.items = [item(1, **about)]
    assert set(actions(scene.plan(), model.UncordonAgent)) == {name}


def test_leftovers_of_a_broker_that_drains_are_its_idle_agents_as_well():
    """Nobody has to ask for everything."""
    scene = Scene(template("t"), draining=True)
    scene.agent("t", Phase.IDLE)
    look = leftovers.look(scene.world(), scene.policy, everything=False)
    assert len(leftovers.removals(look)) == 1


def test_who_leaves_another_backend_is_not_told_of_this_one():
    """What fills a cap, and what holds it up, is of the same backend."""
    scene = Scene(template("t", backends=(B,)), template("u", backends=(OTHER,)))
    scene.policy = attrs.evolve(scene.policy, backends={
        B: model.BackendPolicy(cap=1), OTHER: model.BackendPolicy(cap=1),
    })  # fmt: skip
    scene.agent("t", Phase.BUSY)
    scene.agent("u", Phase.DRAINED, backend=OTHER)
    scene.wait(item(1, "t"), item(2, "u"))
    told = {unmet.item: unmet.text for unmet in scene.plan().unmet}
    assert "of them leaving" not in told[1]
    assert "1 of them leaving" in told[2]
