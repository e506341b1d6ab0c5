"""Who is served: present agents first, launches for the rest, caps, fairness, warm pool."""

import pytest
from attrs import evolve

from backends import api as backends_api
from broker.core import model
from broker.core.decide import plan
from broker.core.model import BackendName, Phase, Retention, Scope, Stage, WaitReason
from tests.core.worlds import NOW, B, Scene, actions, item, launches, reasons, template, texts

MAVEN = template("maven", "maven", "linux")
WIN = template("win", "windows")


def test_one_agent_for_each_waiting_item():
    """A queue goes in, orders come out, within one cycle."""
    scene = Scene(MAVEN, WIN)
    scene.wait(item(1, "maven"), item(2, "linux"), item(3, "windows"))
    made = scene.plan()
    assert launches(made) == {"maven": 2, "win": 1}
    assert set(reasons(made).values()) == {WaitReason.AGENT_ORDERED}
    assert made.active


def test_nothing_is_ordered_for_what_is_idle_or_on_its_way():
    """Idle, connecting and ordered agents each take one item before anything new is ordered."""
    scene = Scene(MAVEN)
    scene.wait(*(item(n, "maven") for n in range(1, 5)))
    scene.agent("maven", Phase.IDLE)
    scene.agent("maven", Phase.CONNECTING, age_s=5)
    scene.agent("maven", Phase.BUSY)
    made = scene.plan()
    assert launches(made) == {"maven": 2}
    assert sorted(r.value for r in reasons(made).values()) == [
        "agent-idle", "agent-ordered", "agent-ordered", "agent-starting",
    ]  # fmt: skip


def test_several_executors_are_counted_in_slots():
    """Two slots of one ordered agent serve two items."""
    scene = Scene(template("big", executors=2))
    scene.wait(*(item(n, "big") for n in range(1, 6)))
    scene.agent("big", Phase.BUSY, busy=1)
    assert launches(scene.plan()) == {"big": 2}


def test_an_order_whose_item_another_one_serves_too_is_taken_back():
    """The second one has two slots, and each of the items may take one."""
    scene = Scene(template("z", "x"), template("a", "x", "y", executors=2), cap=2)
    scene.wait(item(1, "x", age_s=9), item(2, "y", age_s=8), item(3, "z&&!x"))
    made = scene.plan()
    assert {"a": 1} == launches(made)
    (launch,) = actions(made, model.LaunchAgent).values()
    assert "item 1 waits for 'x', and 1 more item" == launch.reason
    scene = Scene(template("z", "x", min_idle=1), template("a", "x", "y", executors=2))
    scene.wait(item(1, "x", age_s=9), item(2, "y", age_s=8))
    made = scene.plan()
    assert {"z": 1, "a": 1} == launches(made)  # it is a warm one now
    assert ["item 1 waits for 'x', and 1 more item", "keeps 1 agent warm"] == sorted(
        a.reason for a in made.actions
    )


def test_an_order_that_is_taken_back_gives_its_place_to_the_next():
    """The caps are counted without it, within the same plan."""
    scene = Scene(template("z", "x"), template("a", "x", "y", executors=2), template("q"), cap=2)
    scene.wait(item(1, "x", age_s=9), item(2, "y", age_s=8), item(3, "q", age_s=7))
    assert {"a": 1, "q": 1} == launches(scene.plan())


@pytest.mark.parametrize("min_idle", [0, 1, 2, 3, 4])
def test_so_many_orders_are_taken_back_as_are_neither_needed_nor_to_be_warm(min_idle):
    """Three for the first three items, until one is ordered that serves them all."""
    scene = Scene(template("z", "x", min_idle=min_idle), template("a", "x", "y", executors=4))
    scene.wait(*(item(n, "x", age_s=9) for n in (1, 2, 3)), item(4, "y", age_s=8))
    made = scene.plan()
    assert {"a": 1} | ({"z": min_idle} if min_idle else {}) == launches(made)
    assert {"a": 1, "z": min_idle} == {name: c.launches for name, c in made.counts.items()}
    assert {u.template for u in made.unmet} == {"a"}
    names = {a.name for a in made.actions}  # given in turn: whoever stays is not ordered anew
    assert names == {"o-a-n3", *("o-z-n0", "o-z-n1", "o-z-n2", "o-z-n4")[:min_idle]}


def test_an_order_that_is_taken_back_frees_the_room_of_its_backend():
    """And those that are there go on serving."""
    limits = model.BackendPolicy(cap=3)
    scene = Scene(
        template("z", "x"),
        template("a", "x", "y", executors=2),
        template("q"),
        template("p"),
        backend=limits,
    )
    name = scene.agent("p", Phase.IDLE)
    scene.wait(item(1, "x", age_s=9), item(2, "y", age_s=8), item(3, "q", age_s=7), item(4, "p"))
    made = scene.plan()
    assert {"a": 1, "q": 1} == launches(made)
    assert name == made.unmet[3].agent


def test_an_item_in_its_quiet_period_says_who_is_ordered_for_it():
    """Beside what it waits for."""
    scene = Scene(template("eager", start_early=True))
    scene.wait(item(1, "eager", why="In the quiet period", stage=Stage.WAITING))
    made = scene.plan()
    (wait,) = made.unmet
    assert WaitReason.QUIET_PERIOD is wait.reason
    assert "In the quiet period; agent o-eager-n0 is ordered for it" == wait.text
    assert 0 == made.counts["eager"].demand


def test_the_free_slot_of_an_agent_that_goes_is_nominated_to_nobody():
    """It is taken out of service with its last build on it, so its item needs another agent now."""
    scene = Scene(template("big", executors=2, retention=Retention(max_builds=3)))
    scene.wait(item(1, "big"))
    scene.agent("big", Phase.BUSY, busy=1, builds=3)
    made = scene.plan()
    assert ["o-big-a1"] == list(actions(made, model.CordonAgent))
    assert {"big": 1} == launches(made)


def test_the_matching_reassigns_instead_of_ordering():
    """An agent that only one of two items can use is left to that one."""
    scene = Scene(MAVEN, template("any", "linux"))
    scene.agent("maven", Phase.IDLE)
    scene.agent("any", Phase.IDLE)
    scene.wait(item(1, "linux"), item(2, "maven"))
    assert launches(scene.plan()) == {}


def test_an_announced_item_starts_early_only_where_that_is_wanted():
    """Quiet period: a switch of the template."""
    scene = Scene(MAVEN, template("eager", start_early=True))
    for number, label in ((1, "maven"), (2, "eager")):
        scene.wait(item(number, label, why="In the quiet period", stage=Stage.WAITING))
    assert launches(scene.plan()) == {"eager": 1}


@pytest.mark.parametrize(
    ("more", "wanted", "reason"),
    [
        ({"cap": 2}, 2, WaitReason.CAP_TOTAL),
        ({"max_starting": 1}, 1, WaitReason.CAP_STARTING),
        ({"backend": model.BackendPolicy(cap=3)}, 3, WaitReason.CAP_BACKEND),
        ({"backend": model.BackendPolicy(max_starting=3)}, 3, WaitReason.CAP_STARTING),
        ({"backend": model.BackendPolicy(launch_burst=2, launch_rate=0.5)}, 2, WaitReason.BUDGET),
        ({"draining": True}, 0, WaitReason.DRAINING),
    ],
)
def test_limits(more, wanted, reason):
    """Every limit holds within one plan, and the items beyond it say which."""
    scene = Scene(MAVEN, **more)
    scene.wait(*(item(n, "maven") for n in range(1, 6)))
    made = scene.plan()
    assert launches(made).get("maven", 0) == wanted
    assert list(reasons(made).values()).count(reason) == 5 - wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"cap": 1}, WaitReason.CAP_TEMPLATE), ({"paused": True}, WaitReason.PAUSED)],
)
def test_limits_of_a_template(changes, reason):
    """A template's own cap counts agents of every phase; a paused one starts none."""
    scene = Scene(template("t", **changes))
    scene.agent("t", Phase.BUSY)
    scene.wait(item(1, "t"))
    assert reasons(scene.plan()) == {1: reason}


def test_a_platform_that_tells_its_room_is_believed():
    """Free room is a cap of this cycle, with the platform's words."""
    scene = Scene(MAVEN)
    scene.capacity[B] = backends_api.Capacity(free_instances=1, text="4 GiB left")
    scene.wait(item(1, "maven"), item(2, "maven"))
    made = scene.plan()
    assert reasons(made) == {1: WaitReason.AGENT_ORDERED, 2: WaitReason.NO_ROOM}
    assert "4 GiB left" in made.unmet[1].text


@pytest.mark.parametrize(
    ("scope", "cause", "reason"),
    [
        (Scope.CONTROLLER, model.Failure.FORBIDDEN, WaitReason.BACKOFF),
        (Scope.BACKEND, model.Failure.UNAVAILABLE, WaitReason.BACKOFF),
        (Scope.TEMPLATE, model.Failure.REJECTED, WaitReason.SET_ASIDE),
        (Scope.TEMPLATE, model.Failure.NO_CAPACITY, WaitReason.NO_ROOM),
    ],
)
def test_back_offs_hold_launches_back_and_say_why(scope, cause, reason):
    """A failing scope is left alone until its time, with the last error in words."""
    scene = Scene(MAVEN)
    scene.backoff(scope, MAVEN.name, cause=cause, for_s=60)
    scene.wait(item(1, "maven"))
    made = scene.plan()
    assert reasons(made) == {1: reason}
    assert "said so" in made.unmet[0].text
    assert made.wake_at == NOW + 60
    scene.now += 60
    assert launches(scene.plan()) == {"maven": 1}


def test_after_a_failure_one_agent_tries_for_all():
    """A template that was set aside does not come back with a crowd."""
    scene = Scene(MAVEN)
    scene.backoff(
        Scope.TEMPLATE, MAVEN.name, cause=model.Cause("lost-exited"), for_s=-1, failures=3
    )
    scene.wait(*(item(n, "maven") for n in range(1, 4)))
    assert launches(scene.plan()) == {"maven": 1}


def test_spill_over_to_the_next_backend():
    """Cap, back-off and an unknown state each move to the next backend."""
    two = BackendName("two")
    scene = Scene(template("t", backends=(B, two)))
    scene.wait(item(1, "t"))

    def chosen():
        return [a.backend for a in scene.plan().actions]

    assert chosen() == [B]
    scene.dark_backends.add(B)
    assert chosen() == [two]
    scene.dark_backends.clear()
    scene.backoff(Scope.BACKEND)
    assert chosen() == [two]


def test_fairness_fewest_agents_first():
    """When room is short, the label that has fewest agents goes first, whatever its age."""
    scene = Scene(MAVEN, WIN, cap=4)
    scene.agent("maven", Phase.BUSY)
    scene.agent("maven", Phase.BUSY)
    scene.wait(*(item(n, "maven", age_s=100) for n in range(1, 5)), item(9, "windows", age_s=1))
    assert launches(scene.plan()) == {"win": 1, "maven": 1}


def test_the_warm_pool_comes_after_demand_and_replaces_what_is_taken():
    """``min_idle`` counts only agents that nobody is about to take."""
    scene = Scene(template("t", min_idle=2), cap=4)
    scene.agent("t", Phase.IDLE)
    scene.agent("t", Phase.IDLE)
    assert launches(scene.plan()) == {}
    scene.wait(item(1, "t"))
    assert launches(scene.plan()) == {"t": 1}
    scene.wait(item(2, "t"), item(3, "t"))
    made = scene.plan()
    assert launches(made) == {"t": 2}
    assert "1 fewer than wanted" in texts(made)


def test_one_that_is_online_before_all_of_it_runs_is_one_warm_agent():
    """It is idle, and it starts: the pool is short of the other one all the same."""
    scene = Scene(template("t", min_idle=2))
    scene.agent("t", Phase.IDLE)
    starting = backends_api.InstanceState.STARTING
    scene.instances[B] = [evolve(one, state=starting) for one in scene.instances[B]]
    assert launches(scene.plan()) == {"t": 1}


def test_what_a_warm_pool_is_short_of_is_said():
    """The whole refusal; what was ordered before it is not missing."""
    scene = Scene(template("t", min_idle=5), cap=2)
    made = scene.plan()
    assert launches(made) == {"t": 2}
    text = "3 fewer than wanted: 2 of 2 agents in all, so far only ordered"
    assert made.refusals == (model.Refusal(subject="warm pool of t", text=text),)


def test_without_a_name_left_the_next_look_fills_the_warm_pool():
    """Nothing is said of it: that is at once."""
    scene = Scene(template("t", min_idle=2), template("u", min_idle=1))
    made = plan.plan(evolve(scene.world(), fresh_ids=("n0",)), scene.policy)
    assert (launches(made), made.refusals) == ({"t": 1}, ())


def test_an_item_that_may_not_run_hides_no_other():
    """It came first, and something else speaks against it."""
    scene = Scene(MAVEN)
    scene.wait(item(1, "maven", stage=Stage.BLOCKED, why="Build #1 is in progress", age_s=99))
    scene.wait(item(2, "maven"))
    made = scene.plan()
    assert launches(made) == {"maven": 1}
    wait = made.unmet[1]
    assert (wait.item, wait.since_at, str(wait.label.expression)) == (2, NOW - 1, "maven")


def test_a_cancelled_item_releases_its_agent():
    """The agent that was starting for it serves the next one."""
    scene = Scene(MAVEN)
    scene.agent("maven", Phase.CONNECTING, age_s=5)
    scene.wait(item(1, "maven"))
    assert reasons(scene.plan()) == {1: WaitReason.AGENT_STARTING}
    scene.items = [item(2, "maven")]
    made = scene.plan()
    assert (launches(made), reasons(made)) == ({}, {2: WaitReason.AGENT_STARTING})


def test_an_agent_that_gets_no_work_is_not_counted_for_ever():
    """Reservations expire: idle, fitting, and yet the controller gives it nothing."""
    scene = Scene(MAVEN)
    scene.agent("maven", Phase.IDLE, nominated_at=NOW - 61)
    scene.wait(item(1, "maven", age_s=61))
    made = scene.plan()
    assert launches(made) == {"maven": 1}
    assert "gives it no work" in texts(made)


def test_an_item_that_two_agents_were_not_given_gets_no_third():
    """A veto that we do not see must not start an agent a minute until the cap."""
    scene = Scene(MAVEN)
    scene.wait(item(1, "maven", why="‘u’ lacks permission to run on ‘o-maven-a1’"))
    for _ in range(2):
        scene.agent("maven", Phase.IDLE, nominated_at=NOW - 61)
    made = scene.plan()
    assert launches(made) == {}
    assert reasons(made) == {1: WaitReason.NOT_GIVEN}
    assert "lacks permission" in made.unmet[0].text


def test_pinned_items_wait_for_their_agent():
    """No other agent helps a pipeline that must go on with this one."""
    scene = Scene(MAVEN)
    name = scene.agent("maven", Phase.BUSY)
    scene.wait(item(1, name))
    made = scene.plan()
    assert (launches(made), reasons(made)) == ({}, {1: WaitReason.AGENT_BUSY})


def test_an_unsynced_controller_means_no_decision_at_all():
    """Unknown is not empty."""
    scene = Scene(template("t", min_idle=3))
    scene.agent("t", Phase.IDLE, idle_s=10_000)
    scene.synced = False
    made = scene.plan()
    assert made.actions == ()
    assert "unknown" in texts(made)


def test_every_waiting_item_has_a_reason():
    """I7, for one item of each kind."""
    scene = Scene(MAVEN)
    scene.wait(
        item(1, "maven"),
        item(2, "nobody"),
        item(3, "a b"),
        item(4, "maven", stage=Stage.BLOCKED, why="Build #1 is already in progress"),
        item(5, "maven", stage=Stage.WAITING, why="In the quiet period"),
        item(6, why="Waiting for next available executor"),
    )
    assert set(reasons(scene.plan())) == {1, 2, 3, 4, 5, 6}


def test_what_is_ordered_is_expected_and_not_ordered_again():
    """The fixed point, by hand: the plan's own launches, seen as expectations, satisfy it."""
    from broker.core.fleet import ledger as ledgers

    scene = Scene(template("t", min_idle=1))
    scene.wait(item(1, "t"))
    made = scene.plan()
    assert launches(made) == {"t": 2}
    scene.ledger = made.ledger
    for action in actions(made, model.LaunchAgent).values():
        scene.ledger = ledgers.expect(scene.ledger, action, now=NOW, policy=scene.policy)
    again = scene.plan()
    assert again.actions == ()
    assert reasons(again) == {1: WaitReason.AGENT_ORDERED}


def test_what_the_platform_says_of_an_agent_that_starts_is_passed_on():
    """The person who waits reads that no node fits, not only that something is starting."""
    scene = Scene(MAVEN)
    name = scene.agent("maven", Phase.CONNECTING, age_s=5)
    scene.wait(item(1, "maven"))
    assert [f"agent {name} is starting for it"] == [u.text for u in scene.plan().unmet]
    (instances,) = scene.instances.values()
    instances[0] = evolve(instances[0], detail="no node fits, for want of cpu")
    words = "no node fits, for want of cpu"
    assert [f"agent {name} is starting for it: {words}"] == [u.text for u in scene.plan().unmet]


@pytest.mark.parametrize(
    ("since_s", "there", "done", "reason", "words"),
    [
        (4.9, "", False, WaitReason.AGENT_ORDERED, "is ordered for it"),
        (
            5.0,
            "",
            False,
            WaitReason.UNANSWERED,
            "5 s ago, and neither its node nor its instance from local is there yet",
        ),
        (5.0, "instance", False, WaitReason.UNANSWERED, "and its node is not there yet"),
        (
            23.0,
            "node",
            False,
            WaitReason.UNANSWERED,
            "23 s ago, and its instance from local is not there yet",
        ),
        (23.0, "node", True, WaitReason.AGENT_ORDERED, "is ordered for it"),  # a slow listing
    ],
)
def test_an_order_that_hangs_says_what_is_missing(since_s, there, done, reason, words):
    """The controller or the platform has it, and does not answer."""
    scene = Scene(MAVEN)
    scene.wait(item(1, "maven"))
    name = model.NodeName("o-maven-a1")
    if there:
        scene.agent("maven", Phase.CONNECTING, suffix="a1", known=False, age_s=since_s)
    if "instance" not in there:
        scene.instances = {backend: [] for backend in scene.instances}
    if "node" not in there:
        scene.computers = [one for one in scene.computers if one.name != name]
    flight = model.Expectation(
        verb=model.Verb.LAUNCH,
        name=name,
        template="maven",
        backend="local",
        since_at=NOW - since_s,
        expires_at=NOW + 100,
        done_at=NOW - 1 if done else None,
    )
    scene.ledger = evolve(scene.ledger, expectations={name: flight})
    made = scene.plan()
    assert launches(made) == {}
    assert (made.unmet[0].reason, made.unmet[0].agent) == (reason, name)
    assert words in made.unmet[0].text
