"""Agents that take room and serve nobody: closed, held, refused, outdated, unwanted."""

import itertools

import attrs
import pytest

from broker.core import model
from broker.core.decide import judge, plan
from broker.core.demand import queue_texts, vetoes, wishes
from broker.core.fleet import ledger as ledgers
from broker.core.fleet import withheld
from broker.core.model import ItemId, Phase, Stage, WaitReason
from tests.core.worlds import NOW, Scene, actions, item, launches, reasons, template, texts
from tests.each import each

LINUX = template("linux", cap=1)
VETO = "Already running 1 builds on node; ‘agent-broker-o’ doesn’t have label ‘linux’"


def remembered(scene, name, **more):
    memory = attrs.evolve(scene.ledger.memories[name], **more)
    scene.ledger = attrs.evolve(scene.ledger, memories={**scene.ledger.memories, name: memory})


def closed(scene, name, looks=model.CLOSED_LOOKS):
    remembered(scene, name, closed_at=NOW - 5, closed_looks=looks)


# --- closed: the controller's own word ---


def test_a_closed_agent_goes_and_fills_no_cap_for_ever():
    """It neither counts as supply nor is it protected by the item that waits."""
    scene = Scene(LINUX)
    name = scene.agent("linux", Phase.IDLE)
    closed(scene, name)
    scene.wait(item(1, "linux"))
    made = scene.plan()
    assert actions(made, model.RetireAgent)[name].cause.slug == "closed"
    assert "accepts no tasks" in actions(made, model.RetireAgent)[name].reason
    assert reasons(made) == {1: WaitReason.CAP_TEMPLATE}
    assert f"{name} is given no work for 5 s: it accepts no tasks" in made.unmet[0].text


def test_with_room_its_successor_is_ordered_at_once():
    scene = Scene(template("linux", cap=2))
    closed(scene, scene.agent("linux", Phase.IDLE))
    scene.wait(item(1, "linux"))
    assert launches(scene.plan()) == {"linux": 1}


def test_a_closed_agent_is_no_warm_one():
    scene = Scene(template("linux", min_idle=1))
    name = scene.agent("linux", Phase.IDLE)
    closed(scene, name)
    made = scene.plan()
    assert launches(made) == {"linux": 1}
    assert name in actions(made, model.RetireAgent)


def test_one_look_alone_proves_nothing():
    """It may fall between the end of a build and the start of the next."""
    scene = Scene(LINUX)
    closed(scene, scene.agent("linux", Phase.IDLE), looks=1)
    scene.wait(item(1, "linux"))
    made = scene.plan()
    assert not actions(made, model.RetireAgent)
    assert reasons(made) == {1: WaitReason.AGENT_IDLE}


def test_the_free_slot_of_a_closed_busy_agent_is_no_supply_and_its_build_goes_on():
    scene = Scene(template("linux", executors=2, cap=2))
    name = scene.agent("linux", Phase.BUSY)
    closed(scene, name)
    scene.wait(item(1, "linux"))
    made = scene.plan()
    assert launches(made) == {"linux": 1}
    assert not {*actions(made, model.RetireAgent), *actions(made, model.CordonAgent)}


@pytest.mark.parametrize(("takes", "looks"), [(False, 2), (True, 0), (None, 1)])
def test_what_the_controller_says_is_counted_and_forgotten(takes, looks):
    scene = Scene(LINUX)
    name = scene.agent("linux", Phase.IDLE)
    closed(scene, name, looks=1)
    world = scene.world()
    told = {} if takes is None else {name: takes}
    view = attrs.evolve(world.controller, takes_work=told)
    made = plan.plan(attrs.evolve(world, controller=view), scene.policy)
    assert made.ledger.memories[name].closed_looks == looks


def test_only_suspects_are_asked():
    scene = Scene(template("linux", executors=2))
    wanted = scene.agent("linux", Phase.IDLE, nominated_at=NOW - withheld.SUSPECT_S)
    scene.agent("linux", Phase.IDLE)
    scene.agent("linux", Phase.IDLE, nominated_at=NOW - 1)
    scene.agent("linux", Phase.BUSY, busy=2, nominated_at=NOW - 9)
    scene.agent("linux", Phase.DRAINED, nominated_at=NOW - 9)
    known = scene.agent("linux", Phase.IDLE)
    closed(scene, known)
    world = scene.world()
    assert withheld.suspects(world.controller, world.ledger, now=NOW) == (wanted, known)


def test_a_removal_of_a_closed_agent_is_not_held_up_by_an_item():
    scene = Scene(LINUX)
    name = scene.agent("linux", Phase.IDLE)
    scene.wait(item(1, "linux"))
    action = model.RetireAgent(
        name=name, backend="local", reason="closed", cause=model.Cause.CLOSED
    )
    assert judge.objection(action, judge.prepare(scene.world(), scene.policy)) is not None
    closed(scene, name)
    assert judge.objection(action, judge.prepare(scene.world(), scene.policy)) is None


@pytest.mark.parametrize(
    ("cause", "tried", "more"),
    [
        (model.Cause.CLOSED, None, 1),
        (model.Cause.CLOSED, {"phase": Phase.CONNECTING, "age_s": 5}, 0),
        (model.Cause.CLOSED, {"phase": Phase.IDLE, "age_s": 20}, 0),
        (model.Cause.CLOSED, {"phase": Phase.BUSY, "age_s": 20}, 1),  # it was given something
        (
            model.Cause.CLOSED,
            {"phase": Phase.IDLE, "age_s": 2000},
            1,
        ),  # there may be no work for it
        (
            model.Cause.LOST_EXITED,
            {"phase": Phase.IDLE, "age_s": 20},
            1,
        ),  # being online disproves that
    ],
)
def test_who_replaces_the_closed_goes_alone_until_it_is_given_work(cause, tried, more):
    """Whatever closes a large pool closes the next one: not as many as before each time."""
    scene = Scene(template("linux", min_idle=20))
    if tried is not None:
        scene.agent("linux", **tried)
    scene.backoff(model.Scope.TEMPLATE, "linux", cause=cause, for_s=-1, failures=2)
    made = scene.plan()
    assert launches(made).get("linux", 0) == more
    if not more:
        assert "one agent of linux is tried first after a failure" in texts(made)


def test_a_pool_that_is_closed_again_and_again_costs_one_agent_in_each_pause():
    """Ten minutes of a plugin that closes whatever comes; then it is gone, and the pool is back."""
    scene = Scene(template("linux", min_idle=20))
    for _ in range(20):
        closed(scene, scene.agent("linux", Phase.IDLE), looks=model.CLOSED_LOOKS - 1)
    started, now = [], NOW
    while now < NOW + 600:
        scene.now = now
        told = {c.name: False for c in scene.computers}
        made = plan.plan(look(scene, told), scene.policy)
        scene.ledger = made.ledger
        gone = set(actions(made, model.RetireAgent))
        scene.computers = [c for c in scene.computers if c.name not in gone]
        for backend, there in scene.instances.items():
            scene.instances[backend] = [i for i in there if i.name not in gone]
        for _ in range(launches(made).get("linux", 0)):
            started.append(now)
            name = scene.agent("linux", Phase.IDLE, age_s=0, idle_s=0)
            closed(scene, name, looks=0)
        now += 5.0
    assert 2 <= len(started) <= 12
    gaps = [after - before for before, after in itertools.pairwise(started)]
    assert gaps == sorted(gaps)
    assert max(gaps) > 100
    name = scene.agent("linux", Phase.BUSY)
    remembered(scene, name, executable_urls=())
    scene.now = now + scene.policy.backoff_max_s
    assert 8 == launches(plan.plan(look(scene, {}), scene.policy))["linux"]  # at once; then more


def look(scene, told):
    world = scene.world()
    return attrs.evolve(world, controller=attrs.evolve(world.controller, takes_work=told))


# --- held: by a person ---


def hold(scene, name, who="ann", words="debugging", since=NOW - 7200):
    scene.computers = [
        attrs.evolve(
            c,
            offline=True,
            temporarily_offline=True,
            offline_by=who,
            offline_cause=words,
            offline_since_at=since,
        )
        if c.name == name
        else c
        for c in scene.computers
    ]


def test_a_held_agent_is_left_alone_and_the_cap_says_who_holds_it():
    scene = Scene(LINUX)
    name = scene.agent("linux", Phase.HELD)
    hold(scene, name)
    scene.wait(item(1, "linux"))
    made = scene.plan()
    assert made.actions == ()
    words = f"{name} is held by ann for 2 h (debugging)"
    assert words in made.unmet[0].text
    assert "is held by ann for 2 h (debugging): hands off" in texts(made)


def test_a_build_on_a_held_agent_does_not_make_us_take_it_over():
    """A single-use agent would be taken out of service by us, and then removed."""
    scene = Scene(template("linux", retention=model.Retention(once=True)))
    name = scene.agent("linux", Phase.BUSY, builds=1)
    assert name in actions(scene.plan(), model.CordonAgent)
    hold(scene, name)
    made = scene.plan()
    assert made.actions == ()
    assert "is held by ann" in texts(made)


# --- refused: by a plugin's veto ---


def test_a_veto_is_said_at_once():
    scene = Scene(template("linux", cap=2))
    name = scene.agent("linux", Phase.IDLE)
    scene.wait(item(1, "linux", why=VETO))
    assert reasons(scene.plan()) == {1: WaitReason.AGENT_IDLE}  # just come: it may be another's
    remembered(scene, name, free_at=NOW - withheld.SUSPECT_S)
    made = scene.plan()
    assert reasons(made) == {1: WaitReason.NOT_GIVEN}
    assert "the controller says: Already running 1 builds on node" in made.unmet[0].text
    assert "label" not in made.unmet[0].text.partition("says: ")[2]


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BUSY])
def test_a_free_executor_that_is_refused_for_long_is_no_supply_for_that_item(phase):
    """With the controller's words for it after ``settle_s``, without after ``reservation_s``."""
    for why, waited, ordered in (
        (VETO, 14, 0),
        (VETO, 16, 1),
        ("Waiting for next available executor on ‘linux’", 16, 0),
        ("Waiting for next available executor on ‘linux’", 61, 1),
    ):
        scene = Scene(template("linux", executors=2))
        scene.agent("linux", phase, nominated_at=NOW - waited)
        scene.wait(item(1, "linux", why=why, age_s=waited))
        assert sum(launches(scene.plan()).values()) == ordered, (why, waited)


def test_a_busy_agents_free_executor_still_serves_the_items_it_was_not_refused():
    scene = Scene(template("linux", executors=2))
    name = scene.agent("linux", Phase.BUSY, nominated_at=NOW - 20)
    scene.wait(item(1, "linux", why=VETO, age_s=20), item(2, "linux", age_s=1))
    made = scene.plan()
    assert launches(made) == {"linux": 1}
    told = {u.item: u for u in made.unmet}
    assert (told[2].reason, told[2].agent) == (WaitReason.AGENT_IDLE, name)


def test_an_agent_that_took_something_is_not_called_refused():
    """Short builds one after the other: at each look an executor is free and something waits."""
    scene = Scene(template("linux", executors=2))
    name = scene.agent("linux", Phase.BUSY, nominated_at=NOW - 70)
    remembered(scene, name, executable_urls=("http://c/job/x/earlier/",), free_at=NOW - 70)
    scene.wait(item(1, "linux", age_s=70))
    made = scene.plan()
    assert made.ledger.memories[name].nominated_at == NOW
    scene.ledger = made.ledger
    scene.now = NOW + 10
    assert launches(scene.plan()) == {}


def test_who_is_refused_an_item_is_not_protected_by_it():
    scene = Scene(template("linux", cap=1))
    name = scene.agent("linux", Phase.IDLE, idle_s=700, nominated_at=NOW - 61)
    scene.wait(item(1, "linux", age_s=61))
    made = scene.plan()
    assert actions(made, model.RetireAgent)[name].cause.slug == "idle"
    assert f"{name} is free and refused by the controller to item 1" in made.unmet[0].text


@each(
    ("why", "veto"),
    [
        ("Waiting for next available executor", ""),
        ("Waiting for next available executor on ‘b1-linux-abc’", ""),
        ("There are no nodes with the label ‘linux&&docker’", ""),
        ("‘a’ doesn’t have label ‘x; y’", ""),
        ("‘a’ doesn’t have label ‘x’; ‘b’ is offline", ""),
        ("‘a’ is reserved for jobs with matching label expression", ""),
        ("‘a’ is not accepting tasks; ‘b’ doesn’t have label ‘x’", ""),
        ("‘u’ lacks permission to run on ‘a’", "‘u’ lacks permission to run on ‘a’"),
        (VETO, "Already running 1 builds on node"),
    ],
)
def test_the_controllers_own_texts_are_no_veto(why, veto):
    assert queue_texts.veto(why) == veto


def refused(scene, *items, why="Already running 1 builds on node", since_s=20):
    """Items that the controller refuses to executors that fit, for that long."""
    for one in items:
        scene.wait(attrs.evolve(one, why=why))
    vetoed = {one.id: NOW - since_s for one in items}
    scene.ledger = attrs.evolve(scene.ledger, vetoed={**scene.ledger.vetoed, **vetoed})


def pipeline(number, job="a", **more):
    """A node block, whose label only the controller's texts could tell."""
    fields = {"exports_label": False, "task_class": "x.ExecutorStepExecution$PlaceholderTask"}
    return item(number, task_url=f"http://c/job/{job}/{number}/", **{**fields, **more})


def test_one_build_of_a_kind_on_each_node_is_served_by_one_agent_more():
    """A plugin's words hide the label: the executors that are free, and refused, tell it."""
    scene = Scene(template("linux", executors=2), template("other"))
    name = scene.agent("linux", Phase.BUSY)
    refused(scene, pipeline(2))
    scene.ledger = attrs.evolve(scene.ledger, english=True)
    made = scene.plan()
    assert launches(made) == {"linux": 1}
    assert made.unmet[0].label == model.KnownLabel(source=model.LabelSource.SINGLE_NODE, node=name)


@pytest.mark.parametrize("more", ["language", "kinds", "foreign"])
def test_a_label_is_not_guessed_from_executors_of_several_kinds_or_an_unknown_language(more):
    scene = Scene(template("linux", executors=2), template("other"))
    scene.agent("linux", Phase.BUSY)
    refused(scene, pipeline(2))
    scene.ledger = attrs.evolve(scene.ledger, english=more != "language")
    if more == "kinds":
        scene.agent("other", Phase.IDLE)
    if more == "foreign":
        scene.computers.append(model.Computer(name="pet", labels=frozenset({"linux"})))
    made = scene.plan()
    assert launches(made) == {}
    (unmet,) = made.unmet
    if more == "language":
        assert unmet.reason is WaitReason.LABEL_UNREADABLE
    else:
        assert unmet.reason is WaitReason.NOT_GIVEN
        assert unmet.text.endswith("gives it none: Already running 1 builds on node")


def test_agents_at_work_that_refuse_an_item_say_nothing_of_a_further_one():
    """One build of a kind on each node: as many agents as builds, however many refuse."""
    scene = Scene(template("linux", executors=2))
    for _ in range(3):
        scene.agent("linux", Phase.BUSY)
    refused(scene, item(1, "linux"))
    assert launches(scene.plan()) == {"linux": 1}


def test_an_agent_that_has_just_come_is_not_taken_for_one_that_refuses():
    scene = Scene(template("linux", executors=2))
    scene.agent("linux", Phase.BUSY)
    scene.agent("linux", Phase.IDLE, online_at=NOW - 14)
    refused(scene, item(1, "linux"))
    assert launches(scene.plan()) == {}


@pytest.mark.parametrize("waiting", [1, 5])
def test_two_idle_agents_that_refuse_are_enough_however_many_wait(waiting):
    """And that is remembered for the label and the task, when these two have gone."""
    scene = Scene(template("linux"))
    names = [scene.agent("linux", Phase.IDLE) for _ in range(2)]
    refused(scene, *(item(n, "linux", task_url="http://c/job/a/") for n in range(1, waiting + 1)))
    made = scene.plan()
    assert launches(made) == {}
    assert set(reasons(made).values()) == {WaitReason.NOT_GIVEN}
    (veto,) = made.ledger.vetoes.values()
    assert veto.until_at == NOW + scene.policy.rejected_retry_s
    scene.ledger = made.ledger
    scene.computers, scene.instances = [], {name: [] for name in scene.instances}
    scene.ledger = ledgers.forget(scene.ledger, set(names))
    scene.items = [
        attrs.evolve(one, why="There are no nodes with the label ‘linux’") for one in scene.items
    ]
    made = scene.plan()
    assert (launches(made), set(reasons(made).values())) == ({}, {WaitReason.NOT_GIVEN})
    assert "were started for it; another one follows in 600 s" in made.unmet[0].text
    scene.now = NOW + 600
    made = scene.plan()
    assert launches(made) == {"linux": 1}
    told = sorted(reason.value for reason in reasons(made).values())
    assert told == ["agent-ordered"] + ["not-given"] * (waiting - 1)
    assert all("one more is tried" in one.text for one in made.unmet[1:])


@pytest.mark.parametrize("phase", [Phase.LAUNCHING, Phase.CONNECTING, Phase.IDLE])
def test_while_one_tries_again_what_was_refused_the_others_wait_for_it(phase):
    """However long that takes it to come."""
    scene = Scene(template("linux"))
    key = model.VetoKey(label="linux", task="")
    veto = model.Veto(items=frozenset({1, 2, 3}), until_at=NOW - 1)
    scene.ledger = attrs.evolve(scene.ledger, vetoes={key: veto})
    scene.wait(*(item(n, "linux") for n in (1, 2, 3)))
    scene.agent("linux", phase, age_s=5)
    made = scene.plan()
    assert launches(made) == {}
    assert sum("one more is tried" in one.text for one in made.unmet) == 2
    del scene.items[0]  # it was given work
    assert launches(scene.plan()) == {"linux": 1}


def test_a_veto_is_forgotten_when_one_of_those_that_it_held_back_has_left():
    scene = Scene(template("linux"))
    key = model.VetoKey(label="linux", task="")
    veto = model.Veto(items=frozenset({1, 2}), until_at=NOW + 500)
    scene.ledger = attrs.evolve(scene.ledger, vetoes={key: veto})
    scene.wait(item(1, "linux"), item(2, "linux"))
    assert launches(scene.plan()) == {}
    del scene.items[0]
    made = scene.plan()
    assert (launches(made), made.ledger.vetoes) == ({"linux": 1}, {})


def learnt(scene, *numbers, task="http://c/job/x", until_s=500.0, running=0):
    key = model.VetoKey(label="linux", task=task)
    veto = model.Veto(items=frozenset(numbers), until_at=NOW + until_s, running=running)
    vetoes_ = {**scene.ledger.vetoes, key: veto}
    scene.ledger = attrs.evolve(scene.ledger, vetoes=vetoes_)
    return key


@pytest.mark.parametrize(
    ("running", "at_work", "pending", "ordered", "known"),
    [
        (1, 1, 0, 0, True),
        (1, 0, 0, 1, True),  # another one may begin where that one was
        (1, 0, 1, 0, True),  # and is about to
        (2, 0, 0, 2, True),
        (1, 2, 0, 3, False),  # it was wrong, or is no longer so
        (0, 1, 0, 3, False),
    ],
)
def test_as_many_are_tried_as_ran_when_others_were_refused(
    running, at_work, pending, ordered, known
):
    """Throttling: so many builds of a kind at a time, whatever waits."""
    scene = Scene(template("linux"))
    for _ in range(at_work):
        scene.agent("linux", Phase.BUSY)
    for number in range(pending):
        one = item(50 + number, "linux", task_url="http://c/job/x/", stage=Stage.PENDING)
        scene.wait(one)
    key = learnt(scene, 1, 2, 3, running=running)
    scene.wait(*(item(n, "linux", task_url="http://c/job/x/") for n in (1, 2, 3)))
    made = scene.plan()
    assert launches(made) == ({"linux": ordered} if ordered else {})
    assert (key in made.ledger.vetoes) is known


def test_one_of_many_that_left_says_nothing_where_others_ran():
    """That is how throttled ones go on; when none is left it is forgotten."""
    scene = Scene(template("linux"))
    scene.agent("linux", Phase.BUSY)
    key = learnt(scene, 1, 2, running=1)
    scene.wait(item(2, "linux", task_url="http://c/job/x/"))
    made = scene.plan()
    assert (launches(made), key in made.ledger.vetoes) == ({}, True)
    scene.items = []
    assert key not in scene.plan().ledger.vetoes


@pytest.mark.parametrize(("came_s", "ordered"), [(700, 1), (30, 0)])
def test_a_warm_agent_that_refuses_does_not_keep_others_from_being_tried(came_s, ordered):
    """It may be at fault itself: what it showed is known already."""
    scene = Scene(template("linux", min_idle=1))
    scene.agent("linux", Phase.IDLE, online_at=NOW - came_s, nominated_at=NOW - 70)
    learnt(scene, 1, until_s=-1)
    scene.wait(item(1, "linux", task_url="http://c/job/x/", age_s=900))
    assert launches(scene.plan()).get("linux", 0) == ordered


def test_how_many_run_is_learnt_with_a_veto():
    """Of the same task alone."""
    scene = Scene(template("linux"))
    for _ in range(2):
        scene.agent("linux", Phase.IDLE)
        scene.agent("linux", Phase.BUSY)
    refused(scene, item(1, "linux", task_url="http://c/job/x/"))
    refused(scene, item(2, "linux", task_url="http://c/job/y/"))
    learnt_ = scene.plan().ledger.vetoes
    assert {key.task[-1]: veto.running for key, veto in learnt_.items()} == {"x": 2, "y": 0}


def test_what_is_refused_takes_no_agent_from_others():
    """Though it has waited for longer: who is ordered for another item is not counted for it."""
    scene = Scene(template("linux"))
    learnt(scene, 1, 2)
    scene.wait(*(item(n, "linux", task_url="http://c/job/x/", age_s=500) for n in (1, 2)))
    scene.wait(item(3, "linux", task_url="http://c/job/y/"))
    name = scene.agent("linux", Phase.CONNECTING, age_s=5)
    made = scene.plan()
    assert launches(made) == {}
    assert {one.item: one.agent for one in made.unmet} == {1: None, 2: None, 3: name}


def test_one_agent_tries_for_all_tasks_of_a_label():
    """Twelve jobs that nobody may run are not twelve agents every ten minutes."""
    scene = Scene(template("linux"))
    for number in range(1, 13):
        learnt(scene, number, task=f"http://c/job/{number}", until_s=-1)
        scene.wait(item(number, "linux", task_url=f"http://c/job/{number}/"))
    assert launches(scene.plan()) == {"linux": 1}


@pytest.mark.parametrize(("age_s", "known"), [(61.0, True), (59.0, False)])
def test_a_refusal_without_a_word_is_learnt_as_well(age_s, known):
    """Of what has waited for long enough, beside agents that took nothing all the time."""
    scene = Scene(template("linux"))
    for _ in range(2):
        scene.agent("linux", Phase.IDLE, nominated_at=NOW - 61, free_at=NOW - 61)
    waiting = [item(n, "linux", task_url="http://c/job/x/", age_s=age_s) for n in (1, 2, 3)]
    scene.wait(*waiting)
    made = scene.plan()
    assert bool(made.ledger.vetoes) is known
    assert launches(made) == ({} if known else {"linux": 2})


def test_what_one_task_is_refused_holds_up_no_other_of_the_same_label():
    scene = Scene(template("linux"))
    for _ in range(2):
        scene.agent("linux", Phase.IDLE)
    refused(scene, item(1, "linux", task_url="http://c/job/a/"))
    scene.wait(*(item(n, "linux", task_url="http://c/job/b/") for n in (2, 3, 4)))
    made = scene.plan()
    told = reasons(made)
    assert launches(made) == {"linux": 1}  # the two that refuse the one are there for the others
    assert told.pop(1) is WaitReason.NOT_GIVEN
    assert sorted(reason.value for reason in told.values()) == [
        "agent-idle",
        "agent-idle",
        "agent-ordered",
    ]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (pipeline(1), pipeline(2), True),  # two runs of one job
        (pipeline(1), pipeline(1, job="b"), False),
        (item(1, task_url="http://c/job/7/"), item(2, task_url="http://c/job/8/"), False),
    ],
)
def test_a_veto_is_learnt_for_the_task_not_for_its_run(one, other, alike):
    def key(what):
        label = model.KnownLabel(source=model.LabelSource.NO_LABEL)
        return vetoes.key_of(wishes.Wish(item=what, label=label, kind=wishes.WishKind.NOW))

    assert (key(one) == key(other)) == alike


# --- what was started for nothing ---


def test_a_start_of_a_corrected_definition_is_not_waited_for():
    """It goes at once, does not count as starting, and the corrected one is ordered."""
    scene = Scene(template("linux", revision="r2"), backend=model.BackendPolicy(max_starting=1))
    name = scene.agent("linux", Phase.CONNECTING, revision="r1", age_s=20)
    scene.wait(item(1, "linux"))
    made = scene.plan()
    assert launches(made) == {"linux": 1}
    assert actions(made, model.RetireAgent)[name].cause.slug == "drift"


def test_a_start_that_an_item_names_is_waited_for_whatever_its_definition():
    """No other can serve it; the broker may have forgotten that it was online once."""
    scene = Scene(template("linux", revision="r2"))
    name = scene.agent("linux", Phase.CONNECTING, revision="r1", age_s=20)
    scene.wait(item(1, name))
    made = scene.plan()
    assert made.actions == ()
    assert "item 1 must go on with it" in made.refusals[0].text


def test_an_agent_is_not_kept_by_what_the_controller_does_not_give_it():
    """Nor is it begun and withdrawn again with every look."""
    scene = Scene(template("linux", retention=model.Retention(idle_s=60)))
    names = [scene.agent("linux", Phase.IDLE, idle_s=900) for _ in range(2)]
    refused(scene, item(1, "linux", age_s=400), since_s=400)
    made = scene.plan()
    look = judge.prepare(scene.world(), scene.policy, made)
    going = actions(made, model.RetireAgent)
    assert going.keys() == set(names)
    assert {judge.objection(action, look) for action in going.values()} == {None}


def test_a_start_of_a_template_that_is_gone_is_ended():
    scene = Scene(template("other"))
    name = scene.agent("linux", Phase.CONNECTING, age_s=20)
    assert actions(scene.plan(), model.RetireAgent)[name].cause.slug == "removed"


def test_one_that_lost_its_connection_is_given_its_time_whatever_its_definition():
    scene = Scene(template("linux", revision="r2"))
    scene.agent("linux", Phase.CONNECTING, revision="r1", age_s=200, online_at=NOW - 100)
    assert scene.plan().actions == ()


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.CONNECTING])
def test_what_was_started_for_a_cancelled_item_goes_when_nothing_could_want_it(phase):
    scene = Scene(template("linux"))
    name = scene.agent("linux", phase, idle_s=1, age_s=20, item=ItemId(7))
    assert scene.plan().actions == ()
    scene.ledger = ledgers.cancelled(scene.ledger, ItemId(7))
    assert actions(scene.plan(), model.RetireAgent)[name].cause.slug == "surplus"
    scene.wait(item(8, "linux"))
    assert scene.plan().actions == ()


def test_the_warm_pool_keeps_what_was_started_for_a_cancelled_item():
    scene = Scene(template("linux", min_idle=1))
    scene.agent("linux", Phase.IDLE, idle_s=1, item=ItemId(7), item_cancelled=True)
    assert scene.plan().actions == ()


def test_an_agent_that_has_worked_is_like_the_others():
    scene = Scene(template("linux"))
    scene.agent("linux", Phase.IDLE, idle_s=1, builds=1, item=ItemId(7), item_cancelled=True)
    assert scene.plan().actions == ()


def test_a_launch_does_not_call_a_node_a_label():
    scene = Scene(template("linux", cap=2))
    name = scene.agent("linux", Phase.CONNECTING, age_s=5)
    text = f"‘{name}’ is offline"
    for number in (1, 2):
        scene.wait(
            item(number, why=text, exports_label=False, task_class="x.PlaceholderTask", age_s=1)
        )
    made = scene.plan()
    (launch,) = actions(made, model.LaunchAgent).values()
    assert launch.reason.endswith(f"waits for what only {name} has")
