"""What a plan shares among many is what each of them would be told alone.

The straightforward way is the oracle: every agent joined anew, every item read by itself, every
agent asked about every item. Random worlds, looked at several times while they change.
"""

import random

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import judge, plan, retention
from broker.core.demand import wishes as demand
from broker.core.fleet import agents as agents_
from broker.core.fleet import ledger as ledgers
from broker.core.model import BackendName, Phase, Retention, Stage
from tests.core.worlds import NOW, B, Scene, item, template
from tests.each import each

OTHER = BackendName("other")
LABELS = (None, "a", "b", "a||b", "a&&!b", "!a", "c", "a b", "a&&!o-a-a1", "o-b-a2", "x", "a && x")
CLASSES = ("hudson.model.FreeStyleProject", "org.PlaceholderTask", "x.WorkflowJob")
PHASES = (*[Phase.IDLE] * 6, *[Phase.BUSY] * 4, Phase.CONNECTING, Phase.DRAINED, Phase.HELD,
          Phase.LOST, Phase.ORPHAN)  # fmt: skip


def why_of(dice, scene):
    """A text of the controller's; None: that of an item whose label nobody has."""
    name = dice.choice([c.name for c in scene.computers] or ["gone"])
    texts = (f"Must run on {name} not other", f"‘{name}’ is offline", "no permission; denied")
    return dice.choice([None, None, *texts, "Waiting for next available executor"])


def world_of(dice):
    """Some agents and items, from tidy to absurd."""
    made = [
        template(
            name, name, "x",
            backends=dice.choice([(B,), (OTHER,), (B, OTHER)]),
            executors=dice.randint(1, 3),
            cap=dice.choice([None, None, 1, 3]),
            min_idle=dice.choice([0, 0, 1, 2]),
            exclusive=name == "b",
            takes_unlabelled=dice.random() < 0.3,
            start_early=dice.random() < 0.3,
            retention=Retention(
                once=dice.random() < 0.3,
                max_builds=dice.choice([None, None, 2]),
                idle_s=dice.choice([None, 30.0, 600.0]),
                max_age_s=dice.choice([None, 100.0, 5000.0]),
            ),
        )
        for name in "ab"
    ]  # fmt: skip
    scene = Scene(*made, cap=dice.choice([None, None, 3, 8]), draining=dice.random() < 0.1)
    for name in (B, OTHER):
        scene.instances.setdefault(name, [])
    for _ in range(dice.choice([3, 8, 16])):
        scene.agent(
            dice.choice(["a", "b", "removed"]),
            dice.choice(PHASES),
            backend=dice.choice([B, OTHER]),
            age_s=dice.choice([5.0, 200.0, 6000.0]),
            idle_s=dice.choice([1.0, 100.0, 1000.0]),
            builds=dice.randint(0, 3),
            known=dice.random() < 0.85,
            revision=dice.choice(["r1", "r1", "r0"]),
            **({"nominated_at": NOW - 100, "free_at": NOW - 200} if dice.random() < 0.3 else {}),
            **({"closed_at": NOW - 50, "closed_looks": 2} if dice.random() < 0.1 else {}),
            **({"item_cancelled": True} if dice.random() < 0.1 else {}),
        )
    for number in range(1, dice.choice([4, 12, 30])):
        scene.wait(
            item(
                number,
                dice.choice(LABELS),
                stage=dice.choice([Stage.BUILDABLE] * 5 + list(Stage)),
                why=why_of(dice, scene),
                age_s=dice.choice([0.5, 5.0, 100.0]),
                task_class=dice.choice(CLASSES),
            )
        )
    return scene


def change(dice, scene):
    """Let some time pass, and something happen to a few."""
    scene.now += dice.choice([1.0, 1.0, 20.0, 70.0])
    changed = []
    for computer in scene.computers:
        what = dice.random()
        if what < 0.1:
            urls = ("http://c/job/y/1/",) if computer.idle and dice.random() < 0.7 else ()
            computer = attrs.evolve(
                computer, idle=not computer.idle, busy_executors=int(computer.idle),
                executable_urls=urls,
            )  # fmt: skip
        elif what < 0.14:
            computer = attrs.evolve(computer, offline=not computer.offline)
        elif what < 0.17:
            computer = attrs.evolve(computer, labels=computer.labels | {"b"})
        elif what < 0.19:
            computer = attrs.evolve(computer, temporarily_offline=True, offline_cause="by me")
        if what < 0.97:
            changed.append(computer)
    scene.computers = changed
    for name, seen in scene.instances.items():
        scene.instances[name] = [i for i in seen if dice.random() > 0.03]
    if scene.instances[B] and dice.random() < 0.1:
        scene.instances[OTHER].append(dice.choice(scene.instances[B]))  # the same on both
    scene.items = [
        attrs.evolve(one, why=why_of(dice, scene) or one.why) if dice.random() < 0.3 else one
        for one in scene.items
        if dice.random() > 0.2
    ]
    scene.dark_backends = {OTHER} if dice.random() < 0.1 else set()
    scene.synced = dice.random() > 0.05


def looks(seed):
    """Yield a world after the other, as the loop would see them, with the plan before it."""
    dice = random.Random(seed)
    scene, last = world_of(dice), None
    for _ in range(5):
        world = scene.world()
        if scene.computers and dice.random() < 0.3:
            asked = {scene.computers[0].name: dice.random() < 0.3}
            view = attrs.evolve(world.controller, takes_work=asked)
            world = attrs.evolve(world, controller=view)
        # a look makes new objects of what it reads
        view = attrs.evolve(
            world.controller, computers=tuple(attrs.evolve(c) for c in world.controller.computers)
        )
        world = attrs.evolve(world, controller=view)
        yield scene, world, last
        last = plan.plan(world, scene.policy, last)
        scene.ledger = last.ledger
        for action in last.actions:
            if dice.random() < 0.8:
                scene.ledger = ledgers.expect(
                    scene.ledger, action, now=scene.now, policy=scene.policy
                )
        change(dice, scene)


@each("seed", range(24))
def test_what_is_taken_from_the_last_plan_changes_nothing(seed):
    """The same plan as without it, in every field."""
    for scene, world, last in looks(seed):
        assert plan.plan(world, scene.policy, last) == plan.plan(world, scene.policy)


def test_somebody_of_whom_nothing_changed_is_taken_from_the_last_plan():
    """That is what it is for."""
    scene = Scene(template("t"))
    for phase in (Phase.IDLE, Phase.BUSY):
        scene.agent("t", phase)
    last = plan.plan(scene.world(), scene.policy)
    scene.ledger = last.ledger
    world = scene.world()
    assert [
        a is b
        for a, b in zip(last.agents, plan.plan(world, scene.policy, last).agents, strict=True)
    ] == [True, True]


@each("seed", range(12))
def test_an_item_is_read_as_if_it_were_alone(seed):
    """Those that nothing tells apart are read once; all that is said of one is its own."""
    for scene, world, _ in looks(seed):
        if not world.controller.synced:
            continue
        found, ledger, _ = agents_.observe(world, scene.policy)
        ours = {a.name: a.template for a in found if a.template is not None}
        templates = scene.policy.templates
        assert_read_alone(world.controller, templates, ledger, ours)


def assert_read_alone(view, templates, ledger, ours):
    together, labels = demand.wishes(view, templates, ledger, ours)
    for wish in together:
        view = attrs.evolve(view, items=(wish.item,))
        alone, label = demand.wishes(view, templates, ledger, ours)
        assert alone == (wish,)
        assert label == {k: v for k, v in labels.items() if k == wish.item.id}


def almost_alike():
    """Items that differ from another one in a single thing each, and two agents that they name."""
    scene = Scene(template("t", "t", "x", takes_unlabelled=True))
    one, two = scene.agent("t", Phase.BUSY), scene.agent("t", Phase.BUSY)
    free = "Waiting for next available executor"
    scene.wait(
        item(1, "nobody", age_s=1.0),
        item(2, "nobody", age_s=50.0),
        item(3, why=free, exports_label=False),
        item(4, why=free, exports_label=False),  # of which more is remembered
        item(5, why=free, exports_label=True),
        item(6, why=free, exports_label=False, stuck=True),
        item(7, why=free, exports_label=False, task_class="x.WorkflowJob"),
        item(8, why=free, exports_label=False, stage=Stage.PENDING),
        item(9, why=f"Must run on {one} not x", exports_label=False),
        item(10, why=f"Must run on {two} not x", exports_label=False),
        item(11, why=f"‘{one}’ is offline", exports_label=False),
        item(12, why=f"‘{two}’ is offline", exports_label=False),
        item(13, "x"),
        item(14, "t"),
        item(15, why=free, exports_label=False),  # pushed by a hook
    )
    was = model.KnownLabel(source=model.LabelSource.WHY, expression="t")
    scene.ledger = attrs.evolve(scene.ledger, labels={4: was}, hooks={15: "x"})
    return scene


def test_items_that_differ_in_one_thing_are_told_apart():
    """Each of these things changes what is said of an item."""
    scene = almost_alike()
    found, ledger, _ = agents_.observe(scene.world(), scene.policy)
    ours = {agent.name: agent.template for agent in found}
    assert_read_alone(scene.world().controller, scene.policy.templates, ledger, ours)


def test_an_agent_that_items_name_is_claimed_by_those_alone():
    """Two items that want two agents of one kind are no crowd."""
    scene = almost_alike()
    found, ledger, _ = agents_.observe(scene.world(), scene.policy)
    assert_claimed(scene, found, ledger)


@each("seed", range(12))
def test_an_agent_is_claimed_by_whom_each_item_alone_could_want_it(seed):
    """Whole crowds are asked for whole kinds of agents."""
    for scene, world, last in looks(seed):
        made = plan.plan(world, scene.policy, last)
        assert_claimed(scene, made.agents, made.ledger)


def assert_claimed(scene, agents, ledger):
    ours = {a.name: a.template for a in agents if a.template is not None}
    wishes, _ = demand.wishes(scene.world().controller, scene.policy.templates, ledger, ours)
    interests = retention.Interests(wishes=wishes)
    for agent in agents:
        wanted = scene.policy.template(agent.template) if agent.template else None
        exclusive = wanted.exclusive if wanted else True
        has = retention.labels_of(agent, wanted)
        asked = [(w, demand.could_want(w, has, exclusive)) for w in wishes]
        expected = [(w, is_ is True) for w, is_ in asked if is_ is not False]
        assert [(c.wish, c.sure) for c in interests.for_agent(agent, wanted)] == expected
        at_once = [
            w for w, sure in expected if sure and w.kind is demand.WishKind.NOW and not w.unmet
        ]
        assert interests.is_wanted_now(agent, wanted) == bool(at_once)
        about = [w for w in wishes if agent.name in {w.pinned, w.label.node}]
        assert list(interests.naming(agent.name)) == about


@pytest.mark.parametrize("seed", range(6))
def test_a_removal_is_judged_on_a_shared_look_as_on_one_of_its_own(seed):
    """Whatever else is judged on it, in whatever order, and whatever plan was there before."""
    for scene, world, last in looks(seed):
        made = plan.plan(world, scene.policy, last)
        removals = [
            model.RetireAgent(name=agent.name, backend=agent.backend, reason="x", cause=cause)
            for agent in made.agents
            for cause in (model.Cause.IDLE, model.Cause.MAX_AGE, model.Cause.CONNECT_TIMEOUT)
        ]
        shared = judge.prepare(attrs.evolve(world, ledger=scene.ledger), scene.policy, made)
        for action in removals:
            alone = judge.prepare(attrs.evolve(world, ledger=scene.ledger), scene.policy)
            assert judge.objection(action, shared) == judge.objection(action, alone)


def test_an_instance_on_two_backends_is_not_taken_for_what_it_was():
    """Of which of them it is, is decided as at the first look."""
    scene = Scene(template("t", backends=(B, OTHER)))
    scene.instances.setdefault(OTHER, [])
    name = scene.agent("t", Phase.IDLE)
    last = plan.plan(scene.world(), scene.policy)
    scene.ledger = last.ledger
    scene.instances[OTHER].append(
        attrs.evolve(scene.instances[B][0], state=backends_api.InstanceState.RUNNING)
    )
    made = plan.plan(scene.world(), scene.policy, last)
    assert made == plan.plan(scene.world(), scene.policy)
    assert [a.backend for a in made.agents if a.name == name] == [OTHER]
