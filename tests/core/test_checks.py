"""Ready and dirty checks: who is out of service for one, who is checked, what a failure means."""

import attrs

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import checks, lifecycle
from broker.core.fleet import ledger as ledgers
from broker.core.model import Check, Phase
from tests.core.worlds import NOW, B, Scene, actions, item, launches, template
from tests.each import each

COMMAND = model.CheckCommand(argv=("look",), within_s=20.0)
READY = template("t", checks=model.Checks(ready=COMMAND))
DIRTY = template("t", checks=model.Checks(dirty=COMMAND))


def changed(scene, name, **fields):
    scene.computers = [
        attrs.evolve(one, **fields) if one.name == name else one for one in scene.computers
    ]


def instance(scene, name, **fields):
    scene.instances[B] = [
        attrs.evolve(one, **fields) if one.name == name else one for one in scene.instances[B]
    ]


def phase_of(scene, name):
    return next(a.phase for a in scene.plan().agents if a.name == name)


# --- words ---


@each(
    "ran, words",
    [
        (backends_api.Ran(code=0, output="well"), ""),
        (backends_api.Ran(code=3), "its dirty check ended with exit status 3 and wrote nothing"),
        (
            backends_api.Ran(code=1, output="a\n disk full \n\n"),
            "its dirty check ended with exit status 1: disk full",
        ),
        (backends_api.Ran(code=-9), "its dirty check was ended by signal 9"),
        (
            backends_api.Ran(code=None, output="waits"),
            "its dirty check did not end within 20 s: waits",
        ),
    ],
)
def test_what_came_of_a_check_is_said_with_its_last_line(ran, words):
    """Only exit status 0 passes."""
    assert words == checks.failure(Check.DIRTY, ran, within_s=20.0)


def test_the_words_of_a_failure_fit_into_what_is_read_of_an_offline_cause():
    """Whatever a check says; else a restart would forget a part of it."""
    ran = backends_api.Ran(code=1, output="x" * 9000)
    words = checks.failure(Check.READY, ran, within_s=20.0)
    assert len(checks.failed_message(Check.READY, words)) <= 256


@each("check", list(Check))
def test_a_node_says_which_check_it_waits_for(check):
    """By its offline message, or by the label of a sealed one; not once a person takes it."""
    due = model.Computer(
        name="n",
        offline=True,
        temporarily_offline=True,
        offline_cause=checks.due_message(check),
    )
    assert check is lifecycle.check_due(due)
    assert not lifecycle.is_cordoned(due)
    assert check is lifecycle.check_due(
        model.Computer(name="n", labels=frozenset({"n", model.check_label(check)}))
    )
    failed = attrs.evolve(due, offline_cause=checks.failed_message(check, "no"))
    assert lifecycle.check_due(failed) is None
    assert lifecycle.is_cordoned(failed)
    assert checks.CAUSES[check] is lifecycle.cause_of(failed)
    assert lifecycle.check_due(attrs.evolve(due, offline_cause="maintenance")) is None


# --- the ready check ---


def test_an_agent_that_is_to_be_checked_is_ordered_out_of_service():
    """Of a template without a check nothing changes."""
    scene = Scene(READY, template("u"))
    scene.wait(item(1, "t"), item(2, "u"))
    assert {"t": True, "u": False} == {
        a.template: a.checked for a in actions(scene.plan(), model.LaunchAgent).values()
    }


def test_who_waits_for_its_check_is_checked_once_its_instance_runs():
    """Whether it is connected by then does not matter: out of service it is given nothing."""
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    (action,) = scene.plan().actions
    assert (
        model.CheckAgent(
            name=name,
            backend=B,
            template="t",
            check=Check.READY,
            reason="its ready check is due",
            labels=("t",),
        )
        == action
    )
    instance(scene, name, state=backends_api.InstanceState.STARTING)
    assert scene.plan().actions == ()
    assert phase_of(scene, name) is Phase.CHECKING


def test_who_is_being_checked_is_counted_on():
    """Nobody else is ordered for the item, and the reason names it."""
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    scene.wait(item(1, "t"))
    made = scene.plan()
    assert launches(made) == {}
    (unmet,) = made.unmet
    assert (model.WaitReason.AGENT_STARTING, name) == (unmet.reason, unmet.agent)
    assert unmet.text == f"agent {name} is for it once it has passed its check"


def test_a_start_whose_check_has_not_passed_within_the_deadline_is_lost():
    """The deadline of a start holds for both together."""
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, age_s=400.0)
    assert phase_of(scene, name) is Phase.LOST
    (action,) = actions(scene.plan(), model.RetireAgent).values()
    assert action.cause is model.Cause.CONNECT_TIMEOUT
    assert action.reason == "its ready check did not come about within its deadline"


def test_a_failed_ready_check_is_a_failed_start():
    """The agent goes, its template backs off there, and the reason is the check's own."""
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    scene.wait(item(1, "t"))
    words = "its ready check ended with exit status 1: no disk"
    changed(scene, name, offline_cause=checks.failed_message(Check.READY, words))
    made = scene.plan()
    assert phase_of(scene, name) is Phase.DRAINED
    retired = actions(made, model.RetireAgent)[name]
    assert retired.cause is model.Cause.READY_CHECK
    assert words in retired.reason
    assert launches(made) == {}
    (unmet,) = made.unmet
    assert unmet.reason is model.WaitReason.SET_ASIDE  # a person has to see to it
    assert words in unmet.text
    (backoff,) = made.ledger.backoffs.values()
    assert (1, model.Cause.READY_CHECK) == (backoff.failures, backoff.cause)
    scene.ledger = made.ledger
    (again,) = scene.plan().ledger.backoffs.values()  # one failure, however often it is seen
    assert again.failures == 1


@each("check, bad", [(Check.READY, True), (Check.DIRTY, False)])
def test_a_place_is_blamed_for_ready_checks_that_fail_there(check, bad):
    """What is not fit may be the host; what a build leaves behind is not its doing."""
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    instance(scene, name, place="north")
    words = "its check ended with exit status 1: no disk"
    changed(scene, name, offline_cause=checks.failed_message(check, words))
    fate = scene.plan().ledger.fates.get(name)
    assert (fate.bad if fate is not None else "") == words * bad


def test_a_check_that_did_not_come_about_is_tried_again_and_condemns_nobody():
    """After a pause; and it is no removal that was tried, so that its end is still told."""
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    made = scene.plan()
    (action,) = made.actions
    ledger = ledgers.expect(made.ledger, action, now=NOW, policy=scene.policy)
    failed = ledgers.Outcome(action=action, at=NOW, failure=model.Failure.UNAVAILABLE)
    scene.ledger = ledgers.settle(ledger, failed, policy=scene.policy, jitter=1.0)
    assert scene.ledger.memories[name].removals == 0
    assert scene.plan().actions == ()
    scene.now = NOW + 10.0
    assert scene.plan().actions == (action,)


@each("check", list(Check))
def test_who_has_failed_a_check_is_kept_in_quarantine_for_a_look_where_that_is_wanted(check):
    """It runs on, out of service; then it goes. It takes room all the time, and serves nobody."""
    kept = attrs.evolve(READY, retention=model.Retention(keep_failed_s=600.0), cap=1)
    scene = Scene(kept)
    name = scene.agent("t", Phase.CHECKING, age_s=60.0, online_at=NOW - 50)
    scene.wait(item(1, "t"))
    words = "its check ended with exit status 1"
    changed(scene, name, offline_cause=checks.failed_message(check, words),
            offline_since_at=NOW - 20)  # fmt: skip
    made = scene.plan()
    assert made.actions == ()
    (refusal,) = [r for r in made.refusals if r.subject == name]
    assert refusal.text.startswith("kept for a look until ")
    assert words in refusal.text
    assert made.wake_at <= NOW + 580
    scene.now = NOW + 581
    assert actions(scene.plan(), model.RetireAgent)[name].cause is checks.CAUSES[check]


def test_a_check_that_is_not_wanted_any_more_is_not_waited_for():
    """The configuration was read again; its template may be gone as well."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    back = actions(scene.plan(), model.UncordonAgent)[name]
    assert back.reason == "its template has no ready check any more"
    scene = Scene(template("u"))
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    assert actions(scene.plan(), model.RetireAgent)[name].cause is model.Cause.REMOVED


def test_what_is_to_go_is_not_checked():
    """A changed definition, a drain, an item that was cancelled before it came."""
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, revision="r0", age_s=5.0)
    assert actions(scene.plan(), model.RetireAgent)[name].cause is model.Cause.DRIFT
    scene = Scene(READY, draining=True)
    name = scene.agent("t", Phase.CHECKING, age_s=5.0)
    assert actions(scene.plan(), model.RetireAgent)[name].cause is model.Cause.DRAIN
    scene = Scene(READY)
    name = scene.agent("t", Phase.CHECKING, age_s=5.0, item=7, item_cancelled=True)
    assert actions(scene.plan(), model.RetireAgent)[name].cause is model.Cause.SURPLUS


# --- the dirty check ---


def test_who_works_is_taken_out_of_service_for_its_dirty_check():
    """Not to go: it stays supply, and is no agent that leaves."""
    scene = Scene(DIRTY)
    name = scene.agent("t", Phase.BUSY, builds=1)
    (action,) = scene.plan().actions
    assert (name, Check.DIRTY, False) == (action.name, action.check, action.idle)
    changed(scene, name, offline=True, temporarily_offline=True,
            offline_cause=checks.due_message(Check.DIRTY))  # fmt: skip
    made = scene.plan()
    assert made.actions == ()
    (agent,) = made.agents
    assert (Phase.BUSY, False, Check.DIRTY) == (agent.phase, agent.cordoned, agent.check)


@each(
    "remembered, due",
    [
        ({"builds": 0}, False),
        ({"builds": 1}, True),
        ({"builds": 1, "checked": 1}, False),
        ({"builds": 2, "checked": 1}, True),
        ({"builds": 0, "online_witnessed": False}, True),
        ({"builds": 0, "online_witnessed": False, "checked": 0}, False),
    ],
)
def test_an_idle_agent_is_checked_where_a_build_of_it_was_missed_or_may_have_been(remembered, due):
    """A build may end between two looks, and before we began."""
    scene = Scene(DIRTY)
    name = scene.agent("t", Phase.IDLE, **remembered)
    assert due is (name in actions(scene.plan(), model.CordonAgent))


def test_after_the_build_it_is_checked_and_then_not_again():
    """What it has built is remembered as looked at."""
    scene = Scene(DIRTY)
    name = scene.agent("t", Phase.CHECKING, check=Check.DIRTY, builds=2, online_at=NOW - 50,
                       offline_at=NOW - 1)  # fmt: skip
    made = scene.plan()
    (action,) = made.actions
    assert (name, Check.DIRTY) == (action.name, action.check)
    ledger = ledgers.expect(made.ledger, action, now=NOW, policy=scene.policy)
    assert ledger.expectations[name].expires_at == NOW + 120.0 + 20.0 + ledgers.VISIBLE_S
    outcome = ledgers.Outcome(action=action, at=NOW, passed=True)
    scene.ledger = ledgers.settle(ledger, outcome, policy=scene.policy, jitter=0.5)
    changed(scene, name, offline=False, temporarily_offline=False, offline_cause="")
    made = scene.plan()
    assert made.actions == ()
    (agent,) = made.agents
    assert (Phase.IDLE, 2) == (agent.phase, agent.memory.checked)


def test_a_failed_dirty_check_is_no_failed_start():
    """The agent goes, another one is ordered at once."""
    scene = Scene(DIRTY)
    name = scene.agent("t", Phase.CHECKING, check=Check.DIRTY, builds=1, online_at=NOW - 50)
    scene.wait(item(1, "t"))
    words = checks.failed_message(Check.DIRTY, "its dirty check ended with exit status 1")
    changed(scene, name, offline_cause=words)
    made = scene.plan()
    assert actions(made, model.RetireAgent)[name].cause is model.Cause.DIRTY_CHECK
    assert made.ledger.backoffs == {}
    assert launches(made) == {"t": 1}


def test_who_has_had_its_last_build_is_not_checked():
    """It goes, whatever is left of the build."""
    scene = Scene(attrs.evolve(DIRTY, retention=model.Retention(max_builds=1)))
    name = scene.agent("t", Phase.BUSY, builds=1)
    action = actions(scene.plan(), model.CordonAgent)[name]
    assert (model.Cause.MAX_BUILDS, None) == (action.cause, action.check)


def test_a_sealed_agent_stays_what_it_is():
    """Old controllers: its labels are gone while it is checked, and told when it is back."""
    scene = Scene(DIRTY)
    name = scene.agent("t", Phase.IDLE, builds=1)
    changed(scene, name, labels=frozenset({name, model.check_label(Check.DIRTY)}))
    scene.wait(item(1, "t"))
    made = scene.plan()
    (action,) = made.actions
    assert (name, ("t",)) == (action.name, action.labels)
    assert phase_of(scene, name) is Phase.CHECKING
