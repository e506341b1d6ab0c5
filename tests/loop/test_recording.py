"""Worlds as lines: what comes back is what was written, names of jobs aside."""

import json

import attrs
import pytest
from hypothesis import given

from broker import recording
from broker.core import model
from broker.core.decide import plan as plans
from broker.core.fleet import ledger as ledgers
from broker.core.model import BackendName, NodeName, Phase, Scope, Stage, TemplateName
from tests.core import worlds
from tests.each import each
from tests.model.test_plan_properties import scenes

SECRET = "c5f7a1b2-very-secret"


def written(*records, **how):
    lines = []
    writer = recording.Writer(lines.append, **how)
    writer.begin(at=1.0)
    for record in records:
        writer.add(record)
    return lines


def back(*records, **how):
    return list(recording.read(written(*records, **how)))


def bare(policy):
    """Return a policy without what a launch hands over, and what checks run."""
    fresh = attrs.fields(model.Template).launch.default.factory()
    return attrs.evolve(
        policy,
        templates=tuple(
            attrs.evolve(t, launch=fresh, checks=unsaid(t.checks)) for t in policy.templates
        ),
    )


def unsaid(checks):
    return model.Checks(
        **{
            check.value: command and attrs.evolve(command, argv=())
            for check in model.Check
            for command in [checks.of(check)]
        }
    )


@given(scenes())
def test_the_plan_of_what_comes_back_is_the_same(scene):
    """Whatever was seen: worlds and policies survive the way through a file."""
    world = scene.world()
    one = recording.RecordedWorld(at=world.now, world=world, policy=scene.policy)
    (there,) = back(one, with_names=True)
    assert there.world == world
    assert there.policy == bare(scene.policy)
    assert plans.plan(there.world, there.policy) == plans.plan(world, scene.policy)
    (hidden,) = back(one)
    told = plans.plan(hidden.world, hidden.policy)
    assert told.actions == plans.plan(world, scene.policy).actions


@each("cause", [*model.Cause, *model.Failure], ids=lambda cause: cause.slug)
def test_what_is_remembered_comes_back(cause):
    """Back-offs are kept by a key that is no text; what they began with may be a cause or a failure."""
    key = model.BackoffKey(
        scope=Scope.TEMPLATE, backend=BackendName("b"), template=TemplateName("t")
    )
    scene = worlds.Scene(worlds.template("t"))
    scene.agent("t", phase=Phase.BUSY)
    backoff = model.Backoff(failures=2, until_at=5.0, reason="away", cause=cause)
    world = scene.world()
    world = attrs.evolve(world, ledger=attrs.evolve(world.ledger, backoffs={key: backoff}))
    (there,) = back(
        recording.RecordedWorld(at=1.0, world=world, policy=scene.policy), with_names=True
    )
    assert there.world == world


ACTIONS = [
    model.LaunchAgent(
        name=NodeName("a"), template=TemplateName("t"), backend=BackendName("b"), reason="why"
    ),
    model.CordonAgent(name=NodeName("a"), reason="why"),
    model.UncordonAgent(name=NodeName("a"), reason="why"),
    model.RetireAgent(name=NodeName("a"), backend=None, reason="why"),
    model.SweepNode(name=NodeName("a"), reason="why"),
    model.SweepInstance(name=NodeName("a"), backend=BackendName("b"), reason="why"),
]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: type(a).__name__)
def test_outcomes_of_every_action(action):
    """With their error, if there was one."""
    for outcome in (
        ledgers.Outcome(action=action, at=2.0),
        ledgers.Outcome(
            action=action, at=2.0, failure=model.Failure.REJECTED, text="no", retry_after=3.0
        ),
    ):
        assert [recording.RecordedOutcome(at=2.0, outcome=outcome)] == back(
            recording.RecordedOutcome(at=2.0, outcome=outcome)
        )


def named(**more):
    view = model.ControllerView(
        synced=True,
        items=(
            worlds.item(
                1, "linux", task_name="payroll", task_url="http://j/job/team/job/payroll/"
            ),
            worlds.item(2, None, stage=Stage.BLOCKED, why="Upstream project payroll is building"),
        ),
        computers=(
            model.Computer(
                name=NodeName("x"),
                executable_urls=("http://j/job/team/job/payroll/7/",),
                offline_by="Anna",
                offline_cause="Disconnected by Anna : payroll is broken",
            ),
        ),
    )
    world = attrs.evolve(worlds.Scene(worlds.template("t")).world(), controller=view)
    policy = worlds.policy(worlds.template("t", launch=launch(SECRET)))
    return recording.RecordedWorld(at=1.0, world=world, policy=policy), recording.Arrival(
        at=1.0, item=model.ItemId(1), label="linux", task="payroll"
    )


def launch(secret):
    fresh = attrs.fields(model.Template).launch.default.factory()
    return attrs.evolve(fresh, environment={"PASSWORD": secret}, platform={worlds.B: secret})


def test_names_of_jobs_and_people_are_hashed_unless_asked_for():
    """Alike stay alike: a build still is a build of its job."""
    text = "".join(written(*named()))
    assert not [word for word in ("payroll", "Anna", "team") if word in text]
    there, arrival = back(*named())
    (item, _), (computer,) = there.world.controller.items, there.world.controller.computers
    assert item.task_name == arrival.task != ""
    assert computer.executable_urls[0] == item.task_url + "7/"
    assert "payroll" in "".join(written(*named(), with_names=True))


def test_no_secret_is_written():
    """Of a template nothing that a launch hands over is kept."""
    assert SECRET not in "".join(written(*named(), with_names=True))


def test_a_file_is_bounded_and_says_so():
    """What does not fit any more is left out, whole."""
    record, _ = named()
    size = len("".join(written(record)))
    lines = written(record, record, record, limit_bytes=size + 10)
    *_, first, note = recording.read(lines)
    assert isinstance(first, recording.RecordedWorld)
    assert note.text == f"full: the limit is {size + 10}, in bytes"
    assert 3 == len(lines)


@each(
    ("lines", "words"),
    [
        ([], "line 1: the file is empty"),
        (["nonsense"], "line 1: not JSON"),
        (["[]"], "line 1: expected: a JSON object"),
        (['{"format": "x"}'], "line 1: no record of agent-broker"),
        (['{"format": "agent-broker-record", "version": 99}'], "reads version 1"),
        ([written()[0], '{"kind": "world", "at": "x"}'], "line 2: "),
        ([written()[0], '{"kind": "outcome", "at": 1, "outcome": {"action": {}}}'], "line 2: "),
        ([written()[0], "[" * 100_000], "line 2: not JSON"),
    ],
)
def test_what_is_no_record_is_told_with_its_line(lines, words):
    """Where, what, and what is expected."""
    with pytest.raises(recording.RecordError, match=words):
        list(recording.read(lines))


def test_a_kind_of_a_later_release_is_passed_over():
    """Whoever writes more does not make the rest unreadable."""
    line = json.dumps({"kind": "from the future", "at": 1.0})
    assert [] == list(recording.read([written()[0], line]))


def test_who_came_and_who_left():
    """Between two looks; an item that could not be read has not left."""
    scene = worlds.Scene(worlds.template("t", "linux"))
    before = scene.world().controller
    scene.items = [worlds.item(1, "linux", age_s=3.0)]
    came = scene.world()
    (arrival,) = recording.changes(before, came)
    assert (1, "linux") == (arrival.item, arrival.label)
    scene.items = []
    left = scene.world()
    (gone,) = recording.changes(came.controller, left)
    assert (1, 3.0) == (gone.item, gone.waited_s)
    odd = attrs.evolve(left, controller=attrs.evolve(left.controller, odd_items="one entry"))
    assert [] == list(recording.changes(came.controller, odd))
    dark = attrs.evolve(left, controller=model.ControllerView())
    assert [] == list(recording.changes(came.controller, dark))
