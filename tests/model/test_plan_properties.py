"""What holds for every plan, whatever the world looks like."""

import re

import attrs
from hypothesis import assume, given
from hypothesis import strategies as st

from backends import api as backends_api
from broker.core import model
from broker.core.decide import judge, plan, retention
from broker.core.demand import wishes as demand
from broker.core.fleet import checks, marks
from broker.core.fleet import ledger as ledgers
from broker.core.model import BackendName, Phase, Retention, Scope, Stage
from tests.core.worlds import NOW, OWNER, B, Scene, item, launches, template

C = BackendName("other")
LABELS = (None, "a", "b", "a||b", "a&&!b", "!a", "c", "a b", "a&&!o-a-n0", "x&&!o-a-a1", "o-b-a2")
WHYS = {
    Stage.WAITING: "In the quiet period. Expires in 2 sec",
    Stage.BLOCKED: "Build #1 is already in progress (ETA: N/A)",
}
PHASES = (Phase.IDLE, Phase.BUSY, Phase.CONNECTING, Phase.CHECKING, Phase.DRAINED, Phase.HELD,
          Phase.LOST, Phase.ORPHAN)  # fmt: skip
CAPS = st.none() | st.integers(0, 6)
RETENTIONS = st.builds(
    Retention,
    once=st.booleans(),
    max_builds=st.none() | st.integers(1, 3),
    idle_s=st.none() | st.sampled_from([30.0, 600.0]),
    max_age_s=st.none() | st.sampled_from([100.0, 5000.0]),
    keep_failed_s=st.none() | st.sampled_from([100.0, 5000.0]),
    keep_failed_most=st.integers(1, 2),
)
CHECK = model.CheckCommand(argv=("look",))
CHECKS = st.sampled_from(
    [None, None, model.Checks(ready=CHECK), model.Checks(dirty=CHECK),
     model.Checks(ready=CHECK, dirty=CHECK)]
).map(lambda told: told or model.Checks())  # fmt: skip
TEMPLATES = st.tuples(*(
    st.builds(
        template,
        *(st.just(word) for word in (name, *owned)),
        backends=st.sampled_from([(B,), (C,), (B, C), (C, B)]),
        executors=st.integers(1, 3),
        cap=CAPS,
        min_idle=st.integers(0, 2),
        exclusive=st.just(name == "b"),
        takes_unlabelled=st.booleans() if name == "a" else st.just(value=False),
        start_early=st.booleans(),
        paused=st.sampled_from([False, False, True]),
        retention=RETENTIONS,
        checks=CHECKS,
    )
    for name, owned in (("a", ("a", "x")), ("b", ("b", "x")))
))  # fmt: skip
AGENTS = st.lists(
    st.fixed_dictionaries({
        "template_name": st.sampled_from(["a", "b", "removed"]),
        "phase": st.sampled_from(PHASES),
        "backend": st.sampled_from([B, C]),
        "age_s": st.sampled_from([5.0, 200.0, 6000.0]),
        "idle_s": st.sampled_from([1.0, 100.0, 1000.0]),
        "builds": st.integers(0, 3),
        "known": st.booleans(),
        "revision": st.sampled_from(["r1", "r1", "r0"]),
        "dies": st.booleans(),
        "check": st.sampled_from(model.Check),
    }),
    max_size=7,
)  # fmt: skip
ITEMS = st.lists(
    st.tuples(
        st.sampled_from(LABELS),
        st.sampled_from([Stage.BUILDABLE, Stage.BUILDABLE, *Stage]),
        st.sampled_from([0.5, 5.0, 100.0]),
    ),
    max_size=7,
)
LIMITS = st.fixed_dictionaries({
    "cap": CAPS,
    "max_starting": st.none() | st.integers(1, 4),
    "draining": st.sampled_from([False, False, False, True]),
    "backend": st.builds(
        model.BackendPolicy, cap=CAPS, max_starting=st.none() | st.integers(1, 3),
        launch_burst=st.sampled_from([2, 20]),
    ),
})  # fmt: skip


@st.composite
def scenes(draw):
    """A world as it might be found, from tidy to absurd."""
    scene = Scene(*draw(TEMPLATES), **draw(LIMITS))
    for name in (B, C):
        scene.instances.setdefault(name, [])
    for told in draw(AGENTS):
        dies = told.pop("dies") and told["phase"] is Phase.LOST
        end = backends_api.Exit(slug="exited", code=1) if dies else None
        scene.agent(told.pop("template_name"), told.pop("phase"), exit=end, **told)
    for number, (label, stage, age_s) in enumerate(draw(ITEMS), start=1):
        why = WHYS.get(stage) or ("Waiting for next available executor" if label is None else None)
        scene.wait(item(number, label, stage=stage, why=why, age_s=age_s))
    if draw(st.booleans()):
        name = draw(st.sampled_from(["a", "b"]))
        scope = draw(st.sampled_from(list(Scope)))
        cause = draw(
            st.sampled_from(
                [model.Failure.UNAVAILABLE, model.Failure.REJECTED, model.Failure.NO_CAPACITY]
            )
        )
        scene.backoff(scope, name, backend=draw(st.sampled_from([B, C])), cause=cause,
                      for_s=draw(st.sampled_from([-5.0, 50.0])))  # fmt: skip
    scene.quieting_down = draw(st.sampled_from([False, False, False, True]))
    if draw(st.sampled_from([False, False, True])):
        scene.dark_backends.add(draw(st.sampled_from([B, C])))
    return scene


PASSES = {model.CheckAgent: True}


def take_effect(scene, made):
    """Let everything that a plan wants come true, at once."""
    scene.ledger = made.ledger
    for action in made.actions:
        scene.ledger = ledgers.expect(scene.ledger, action, now=scene.now, policy=scene.policy)
        scene.ledger = ledgers.settle(
            scene.ledger, ledgers.Outcome(action=action, at=scene.now, passed=PASSES.get(type(action))),
            policy=scene.policy, jitter=0.5,
        )  # fmt: skip
        if isinstance(action, model.LaunchAgent):
            scene.agent(action.template, Phase.CONNECTING, suffix=action.name.rpartition("-")[2],
                        backend=action.backend, age_s=0.0, known=False)  # fmt: skip
        elif isinstance(action, model.CordonAgent | model.UncordonAgent):
            out = isinstance(action, model.CordonAgent)
            due = action.check if out else None
            words = "agent-broker: once: x" if due is None else checks.due_message(due)
            scene.computers = [
                attrs.evolve(c, offline=out, temporarily_offline=out,
                             offline_cause=words if out else "")
                if c.name == action.name else c
                for c in scene.computers
            ]  # fmt: skip
        elif isinstance(action, model.CheckAgent):
            scene.computers = [
                attrs.evolve(c, offline=False, temporarily_offline=False, offline_cause="")
                if c.name == action.name else c
                for c in scene.computers
            ]  # fmt: skip
        else:
            scene.computers = [c for c in scene.computers if c.name != action.name]
            for name, instances in scene.instances.items():
                scene.instances[name] = [i for i in instances if i.name != action.name]


@given(scene=scenes())
def test_a_fixed_point_is_reached_and_kept(scene):
    """I6: after its actions took effect it wants nothing new; making room may take rounds."""
    for _ in range(8):
        made = scene.plan()
        if not made.actions:
            break
        take_effect(scene, made)
    assert made.actions == ()


@given(scene=scenes())
def test_what_is_ordered_is_not_ordered_again(scene):
    """While everything is still under way, the plan is content."""
    made = scene.plan()
    scene.ledger = made.ledger
    for action in made.actions:
        scene.ledger = ledgers.expect(scene.ledger, action, now=NOW, policy=scene.policy)
    assert scene.plan().actions == ()


@given(scene=scenes(), data=st.data())
def test_the_order_of_what_is_seen_means_nothing(scene, data):
    """Queue, computers and listings in any order give the same plan."""
    expected = scene.plan()
    for name in ("items", "computers"):
        setattr(scene, name, data.draw(st.permutations(getattr(scene, name))))
    scene.instances = {
        name: data.draw(st.permutations(seen)) for name, seen in scene.instances.items()
    }
    found = scene.plan()
    assert expected.actions == found.actions
    assert {u.item: u for u in expected.unmet} == {u.item: u for u in found.unmet}


_TIME_OF_DAY = re.compile(r"\d\d:\d\d UTC")
_TIMES = {"at", "since_at", "until_at"}


def shifted(value, by):
    """Return a value with every time in it moved."""
    if attrs.has(type(value)):
        changes = {}
        for field in attrs.fields(type(value)):
            if not field.init:
                continue
            old = getattr(value, field.name)
            is_time = field.name == "now" or field.name.endswith("_at") or field.name in _TIMES
            changes[field.name] = (
                old + by if is_time and isinstance(old, float) else shifted(old, by)
            )
        return type(value)(**changes)
    if isinstance(value, dict):
        return {k: shifted(v, by) for k, v in value.items()}
    return type(value)(shifted(v, by) for v in value) if isinstance(value, tuple) else value


def moved(world, by):
    """Move a world in time, with the times that are written into marks."""
    world = shifted(world, by)

    def redescribed(computer):
        read = marks.from_description(computer.description)
        if read is None:
            return computer
        later = attrs.evolve(read, created_at=read.created_at + by)
        return attrs.evolve(computer, description=later.description())

    controller = attrs.evolve(
        world.controller, computers=tuple(redescribed(c) for c in world.controller.computers)
    )
    backends = {
        name: attrs.evolve(
            view,
            instances=tuple(
                attrs.evolve(
                    i, metadata={**i.metadata, "created": f"{float(i.metadata['created']) + by:.0f}"}
                )
                for i in view.instances
            ),
        )
        for name, view in world.backends.items()
    }  # fmt: skip
    return attrs.evolve(world, controller=controller, backends=backends)


def timeless(action):
    """Return an action without the times of day that its reason names."""
    return attrs.evolve(action, reason=_TIME_OF_DAY.sub("a time", action.reason))


@given(scene=scenes(), by=st.sampled_from([-500_000.0, 3600.0, 1e9]))
def test_only_differences_of_time_matter(scene, by):
    """The same world an hour, or thirty years, later gives the same plan.

    But for words that name a time of day, which is another one then.
    """
    world = scene.world()
    expected = plan.plan(world, scene.policy)
    found = plan.plan(moved(world, by), scene.policy)
    assert [timeless(a) for a in expected.actions] == [timeless(a) for a in found.actions]
    assert {(u.item, u.reason) for u in expected.unmet} == {
        (u.item, u.reason) for u in found.unmet
    }


SERVED = {
    model.WaitReason.AGENT_IDLE,
    model.WaitReason.AGENT_STARTING,
    model.WaitReason.AGENT_ORDERED,
    model.WaitReason.UNANSWERED,
}


def served(made):
    return {u.item for u in made.unmet if u.reason in SERVED}


@given(scene=scenes(), where=st.sampled_from(["total", "starting", "templates", "backends"]))
def test_more_room_never_serves_less(scene, where):
    """Raising one kind of limit by one: at least as many items are served."""

    def raised(value):
        return None if value is None else value + 1

    before = len(served(scene.plan()))
    changes = {
        "total": lambda p: {"cap": raised(p.cap)},
        "starting": lambda p: {"max_starting": raised(p.max_starting)},
        "templates": lambda p: {
            "templates": tuple(attrs.evolve(t, cap=raised(t.cap)) for t in p.templates)
        },
        "backends": lambda p: {
            "backends": {n: attrs.evolve(b, cap=raised(b.cap)) for n, b in p.backends.items()}
        },
    }[where]
    scene.policy = attrs.evolve(scene.policy, **changes(scene.policy))
    assert before <= len(served(scene.plan()))


@given(scene=scenes(), label=st.sampled_from([t for t in LABELS if t is not None]))
def test_more_demand_never_retires_more(scene, label):
    """One more item only ever keeps idle agents, but for those that yield their place to it."""

    def gone(made):
        return {
            a.name for a in made.actions
            if isinstance(a, model.RetireAgent) and a.cause is not model.Cause.YIELD
        }  # fmt: skip

    before = gone(scene.plan())
    scene.wait(item(99, label))
    assert gone(scene.plan()) <= before


@given(scene=scenes())
def test_who_works_or_cannot_be_seen_is_let_alone(scene):
    """I2, I3, I9: removals concern our own, idle or dead, on a backend that answers."""
    made = scene.plan()
    agents = {a.name: a for a in made.agents}
    for action in made.actions:
        if isinstance(action, model.RetireAgent | model.SweepNode | model.SweepInstance):
            agent = agents[action.name]
            assert agent.phase is not Phase.BUSY
            assert agent.phase is not Phase.HELD
            assert agent.backend not in scene.dark_backends
            assert action.name.startswith(f"{OWNER}-")


@given(scene=scenes())
def test_an_idle_agent_that_somebody_could_want_stays(scene):
    """Whatever the reason to let it go: the item would be lost, or wait for the next one."""
    made = scene.plan()
    agents = {a.name: a for a in made.agents}
    ours = {a.name: a.template for a in made.agents if a.template is not None}
    wishes, _ = demand.wishes(
        scene.world().controller, scene.policy.templates, scene.ledger, ours
    )  # fmt: skip
    for action in made.actions:
        agent = agents.get(action.name)
        if not isinstance(action, model.RetireAgent) or agent.phase is not Phase.IDLE:
            continue
        own = scene.policy.template(agent.template)
        sure = [c.wish for c in retention.Interests(wishes=wishes).for_agent(agent, own) if c.sure]
        assert [w for w in sure if w.kind is not demand.WishKind.LATER] == []


@st.composite
def particular(draw):
    """A world with items that are refused to who is free, and pipelines that name their node."""
    scene = draw(scenes())
    for number, computer in enumerate(scene.computers, start=70):
        if draw(st.booleans()):
            told = f"‘{computer.name}’ is offline"
            placeholder = "x.ExecutorStepExecution$PlaceholderTask"
            scene.wait(item(number, why=told, exports_label=False, task_class=placeholder))
    told = st.tuples(st.sampled_from([label for label in LABELS if label]), st.booleans())
    for number, (label, is_refused) in enumerate(draw(st.lists(told, max_size=4)), start=50):
        why = "Already running 1 builds on node" if is_refused else None
        scene.wait(item(number, label, why=why, age_s=400.0))
        if is_refused:
            vetoed = {**scene.ledger.vetoed, number: NOW - 400}
            scene.ledger = attrs.evolve(scene.ledger, vetoed=vetoed)
    return scene


@given(scene=scenes() | particular())
def test_what_a_plan_removes_the_judge_lets_go(scene):
    """On the same look; else it would be begun and withdrawn again with every look."""
    made = scene.plan()
    look = judge.prepare(scene.world(), scene.policy, made)
    removals = model.RetireAgent | model.ReleaseAgent | model.SweepNode
    for action in made.actions:
        if isinstance(action, removals):
            assert judge.objection(action, look) is None, action


@given(scene=scenes())
def test_limits_hold_counting_what_is_under_way(scene):
    """I1: nothing is ordered above a cap, of a template, a backend, all or those starting."""
    made = scene.plan()
    ordered = [a for a in made.actions if isinstance(a, model.LaunchAgent)]
    policy, there = scene.policy, list(made.agents) + ordered
    for action in ordered:
        cap = policy.template(action.template).cap
        assert cap is None or sum(a.template == action.template for a in there) <= cap
        limits = policy.backends.get(action.backend, model.BackendPolicy())
        on_it = sum(a.backend == action.backend for a in there)
        assert limits.cap is None or on_it <= limits.cap
        assert sum(a.backend == action.backend for a in ordered) <= limits.launch_burst
        assert policy.cap is None or len(there) <= policy.cap
    assert not (policy.draining and ordered)
    assert not any(policy.template(a.template).paused for a in ordered)


@given(scene=scenes())
def test_one_action_an_agent_one_name_once(scene):
    """I4 and I5: no two actions for one name, no new name that is known."""
    made = scene.plan()
    names = [a.name for a in made.actions]
    assert len(names) == len(set(names))
    new = {a.name for a in made.actions if isinstance(a, model.LaunchAgent)}
    assert not new & {a.name for a in made.agents}


@given(scene=scenes())
def test_every_item_that_waits_has_a_reason(scene):
    """I7, and the reason is a sentence."""
    made = scene.plan()
    told = {u.item: u.text for u in made.unmet}
    for waiting in scene.items:
        if waiting.stage is not Stage.PENDING:
            assert told[waiting.id]


@given(scene=scenes())
def test_orders_never_exceed_demand_and_warm_target(scene):
    """Overshoot 0, counted by hand: every order has an item of its own or fills the pool."""
    made = scene.plan()  # asserts that the clamp had nothing to do
    waiting = sum(i.stage in {Stage.BUILDABLE, Stage.WAITING} for i in scene.items)
    warm = sum(t.min_idle for t in scene.policy.templates)
    assert sum(launches(made).values()) <= waiting + warm


@given(
    executors=st.integers(1, 4),
    min_idle=st.integers(0, 3),
    busy=st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=4),
    idle=st.integers(0, 2),
    connecting=st.integers(0, 2),
    waiting=st.integers(0, 12),
)
def test_executors_are_what_orders_are_counted_in(
    executors, min_idle, busy, idle, connecting, waiting
):
    """Free ones of every agent are used first, of a busy one too, unless it takes nothing more."""
    scene = Scene(template("t", executors=executors, min_idle=min_idle))
    working = [(min(number, executors), cordoned) for number, cordoned in busy]
    for number, cordoned in working:
        scene.agent("t", Phase.BUSY, busy=number, cordoned=cordoned)
    for _ in range(idle):
        scene.agent("t", Phase.IDLE, idle_s=1.0)
    for _ in range(connecting):
        scene.agent("t", Phase.CONNECTING, age_s=5.0)
    scene.wait(*(item(number, "t") for number in range(1, waiting + 1)))
    made = scene.plan()
    beside = sum(executors - number for number, cordoned in working if not cordoned)
    spare = beside + (idle + connecting) * executors
    needed = -(-max(0, waiting - spare) // executors)
    # who waits is given busy agents first, so that as many as can be stay wholly idle
    taken = -(-max(0, waiting - beside) // executors)
    warm = max(0, min_idle - max(0, idle + connecting - taken))
    assume(needed + warm + connecting <= 8)  # what a plan has names for, and may start at once
    assert sum(launches(made).values()) == needed + warm
    count = made.counts["t"]
    assert count.busy == sum(number for number, _ in working)
    assert count.idle == beside + idle * executors
    assert count.warm_target == min_idle * executors


def test_shifting_moves_what_it_should():
    """The helper of the test above: every time in a world is moved, nothing else."""
    scene = Scene(template("a"))
    scene.agent("a", Phase.IDLE)
    scene.wait(item(1, "a"))
    world = scene.world()
    there = moved(world, 10.0)
    assert world == moved(there, -10.0)
    assert there.now == NOW + 10
    assert there.controller.items[0].in_queue_since_at == NOW + 9
    (memory,) = there.ledger.memories.values()
    assert memory.idle_at == NOW - 50


@st.composite
def crowded(draw):
    """A world with room for many orders, of templates that may serve the same items."""
    templates = (
        template(
            name,
            name,
            "x",
            executors=draw(st.integers(1, 3)),
            min_idle=draw(st.integers(0, 1)),
            start_early=draw(st.booleans()),
        )
        for name in ("z", "a")
    )
    scene = Scene(*templates, cap=draw(st.none() | st.integers(1, 6)))
    for number in range(1, draw(st.integers(1, 9)) + 1):
        stage = draw(st.sampled_from([Stage.BUILDABLE, Stage.BUILDABLE, Stage.WAITING]))
        label = draw(st.sampled_from(["a", "z", "x", "a||z"]))
        age_s = draw(st.sampled_from([1.0, 2.0, 3.0]))
        scene.wait(item(number, label, stage=stage, why=WHYS.get(stage), age_s=age_s))
    return scene


@given(scene=scenes() | crowded())
def test_what_launches_say_is_what_waits_say(scene):
    """A launch is for an item that waits for this very agent, or for the warm pool."""
    made = scene.plan()
    ordered = {a.name: a for a in made.actions if isinstance(a, model.LaunchAgent)}
    waits = {u.item: u for u in made.unmet}
    expected = {u.agent for u in made.unmet} & ordered.keys()
    assert expected == {name for name, action in ordered.items() if action.item is not None}
    for name, action in ordered.items():
        if action.item is None:
            assert scene.policy.template(action.template).min_idle > 0
        else:
            assert f"item {action.item} waits" in action.reason
            assert (name, action.template) == (
                waits[action.item].agent,
                waits[action.item].template,
            )
            assert f"agent {name} is ordered for it" in waits[action.item].text
    there = {a.name for a in made.agents}
    assert {
        u.agent for u in made.unmet if u.reason is model.WaitReason.AGENT_ORDERED
    } <= there | ordered.keys()
