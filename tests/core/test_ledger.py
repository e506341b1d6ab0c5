"""What is remembered: back-offs, launch budget, expectations."""

import itertools

import attrs
import pytest

from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.core.model import BackendName, NodeName, Scope, TemplateName, Verb
from tests.core.worlds import NOW, OWNER, B
from tests.each import each

T = TemplateName("t")
POLICY = model.Policy(
    owner=OWNER, templates=(), backends={}, backoff_base_s=5.0, backoff_max_s=300.0
)
KEY = ledgers.key_of(Scope.TEMPLATE, B, T)
LAUNCH = model.LaunchAgent(name=NodeName("o-t-1"), template=T, backend=B, reason="r")


def fail(ledger, *, cause=model.Cause.LOST_EXITED, now=NOW, jitter=1.0, **more):
    return ledgers.failed(
        ledger, KEY, cause=cause, reason="said so", now=now, policy=POLICY, jitter=jitter, **more
    )


def pause(ledger, now=NOW):
    return ledger.backoffs[KEY].until_at - now


@each(
    ("failures", "jitter", "seconds"),
    [
        (1, 1.0, 5.0), (2, 1.0, 10.0), (3, 1.0, 20.0), (6, 1.0, 160.0), (7, 1.0, 300.0),
        (1000, 1.0, 300.0), (1, 0.0, 2.5), (3, 0.5, 15.0), (1, 7.0, 5.0), (1, -7.0, 2.5), (0, 1.0, 5.0),
    ],
)  # fmt: skip
def test_the_delay_doubles_up_to_its_limit(failures, jitter, seconds):
    """Half of it is jitter, and odd jitter does no harm."""
    assert seconds == ledgers.delay(failures, policy=POLICY, jitter=jitter)


def test_failures_in_a_row_wait_longer_each_time():
    """Each attempt after the pause that fails again doubles the next pause."""
    ledger, now, waited = model.Ledger(), NOW, []
    for _ in range(4):
        ledger = fail(ledger, now=now)
        waited.append(pause(ledger, now))
        now += pause(ledger, now)
    assert [5.0, 10.0, 20.0, 40.0] == waited


def test_parallel_failures_are_one_failure():
    """Twenty launches into the same outage do not double twenty times."""
    ledger = model.Ledger()
    for number in range(20):
        ledger = fail(ledger, now=NOW + number * 0.01)
    assert 1 == ledger.backoffs[KEY].failures
    assert pause(ledger) == pytest.approx(5.19)


@pytest.mark.parametrize(
    ("slug", "retry_after", "seconds"),
    [
        ("unavailable", None, 5.0),
        ("unavailable", 60.0, 60.0),
        ("unavailable", 1.0, 5.0),
        ("no-capacity", None, 5.0),
        ("no-capacity", 90.0, 90.0),
        ("rejected", None, 600.0),
        ("rejected", 900.0, 900.0),
    ],
)
def test_retry_after_is_honoured_and_never_shortens(slug, retry_after, seconds):
    """The longer of what the platform asks for and what we would wait."""
    assert seconds == pause(
        fail(model.Ledger(), cause=model.Failure(slug), retry_after=retry_after)
    )


def test_a_full_platform_is_no_failure():
    """However often it is full nothing is counted; it is asked less often each time, to a limit."""
    ledger, now, waited = model.Ledger(), NOW, []
    for _ in range(7):
        ledger = fail(ledger, cause=model.Failure.NO_CAPACITY, now=now)
        waited.append(pause(ledger, now))
        now += pause(ledger, now)
    assert [5.0, 10.0, 20.0, 40.0, 80.0, 120.0, 120.0] == waited
    assert 0 == ledger.backoffs[KEY].failures


def test_a_later_failure_never_shortens_a_pause():
    """A set-aside of ten minutes outlives a small error of a launch begun before."""
    ledger = fail(model.Ledger(), cause=model.Failure.REJECTED)
    assert 600.0 == pause(fail(ledger, cause=model.Cause.LOST_EXITED, now=NOW + 1))


@pytest.mark.parametrize("scope", Scope)
def test_exactly_what_a_failure_reaches_is_left_alone(scope):
    """One key, which names no more than its scope needs; a place's failure is a start's, too."""
    outcome = ledgers.Outcome(
        action=LAUNCH,
        at=NOW,
        failure=model.Failure.UNAVAILABLE,
        text="said so",
        scope=scope,
        place="host 2",
        controller=scope is Scope.CONTROLLER,
    )
    settled = ledgers.settle(model.Ledger(), outcome, policy=POLICY, jitter=1.0)
    (key, *more), (backoff, *_) = settled.backoffs, settled.backoffs.values()
    assert (scope, "said so") == (key.scope, backoff.reason)
    start = [ledgers.key_of(Scope.LAUNCH, B, T)]
    assert more == (start if scope is Scope.PLACE else [])
    named = {Scope.BACKEND, Scope.PLACE, Scope.TEMPLATE, Scope.LAUNCH}
    assert (B if scope in named else "") == key.backend
    assert (T if scope in {Scope.TEMPLATE, Scope.LAUNCH} else None) == key.template
    assert ("host 2" if scope is Scope.PLACE else "") == key.place


def test_what_reaches_no_further_than_one_start_costs_no_pause_unless_it_goes_on():
    """The next one is tried at once; a row of them is no accident."""
    pauses, now = [], NOW
    ledger = model.Ledger()
    key = ledgers.key_of(Scope.LAUNCH, B, T)
    for _ in range(4):
        ledger = ledgers.failed(
            ledger,
            key,
            cause=model.Failure.ALREADY_EXISTS,
            reason="taken",
            now=now,
            policy=POLICY,
            jitter=1.0,
        )
        pauses.append(ledger.backoffs[key].until_at - now)
        now = ledger.backoffs[key].until_at
    assert pauses == [0.0, 5.0, 10.0, 20.0]
    worked = ledgers.Outcome(action=LAUNCH, at=now)
    assert {} == ledgers.settle(ledger, worked, policy=POLICY, jitter=1.0).backoffs


@pytest.mark.parametrize("scope", [Scope.PLACE, Scope.LAUNCH])
def test_a_platform_that_refuses_every_start_for_itself_is_asked_ever_more_rarely(scope):
    """One after the other; as soon as one works, nothing of that is left but the places' own."""
    ledger, now, asked = model.Ledger(), NOW, []
    key = ledgers.key_of(Scope.LAUNCH, B, T)
    while now < NOW + 60.0:
        asked.append(now - NOW)
        refused = ledgers.Outcome(
            action=LAUNCH, at=now, failure=model.Failure.UNAVAILABLE, scope=scope, place="host 2"
        )
        ledger = ledgers.settle(ledger, refused, policy=POLICY, jitter=1.0)
        now = max(now, ledger.backoffs[key].until_at)
    assert asked == [0.0, 0.0, 5.0, 15.0, 35.0]
    worked = ledgers.settle(
        ledger, ledgers.Outcome(action=LAUNCH, at=now), policy=POLICY, jitter=1.0
    )
    assert {Scope.PLACE} & {scope} == {key.scope for key in worked.backoffs}


def test_a_place_that_failed_long_ago_begins_anew():
    """Nobody tells that it has served since."""
    key = ledgers.key_of(Scope.PLACE, B, None, place="host 2")

    def again(ledger, now):
        return ledgers.failed(
            ledger,
            key,
            cause=model.Failure.UNAVAILABLE,
            reason="",
            now=now,
            policy=POLICY,
            jitter=1.0,
        )

    twice = again(again(model.Ledger(), NOW), NOW + 10)
    assert 2 == twice.backoffs[key].failures
    assert 1 == again(twice, NOW + 20 + POLICY.backoff_max_s).backoffs[key].failures


def test_a_launch_that_works_ends_the_outage():
    """It clears its backend and the controller; the template only when the agent is online."""
    ledger = model.Ledger()
    for scope in Scope:
        key = ledgers.key_of(scope, B, T)
        ledger = ledgers.failed(
            ledger,
            key,
            cause=model.Failure.UNAVAILABLE,
            reason="",
            now=NOW,
            policy=POLICY,
            jitter=1.0,
        )
    worked = ledgers.settle(
        ledger, ledgers.Outcome(action=LAUNCH, at=NOW), policy=POLICY, jitter=1.0
    )
    assert {Scope.TEMPLATE, Scope.PLACE} == {key.scope for key in worked.backoffs}
    refused = ledgers.Outcome(
        action=LAUNCH, at=NOW + 9, failure=model.Failure.UNAVAILABLE, scope=Scope.BACKEND
    )
    half = ledgers.settle(ledger, refused, policy=POLICY, jitter=1.0)
    assert set(Scope) == {key.scope for key in half.backoffs}


@pytest.mark.parametrize("began", [NOW, NOW + 1, NOW + 2])
def test_who_had_room_before_another_had_none_tells_nothing_of_room(began):
    """Its start had begun when the platform was not full yet; one that began later tells."""
    key = ledgers.key_of(Scope.BACKEND, B, None)
    order = attrs.evolve(LAUNCH, name=NodeName("late"))
    ledger = ledgers.expect(model.Ledger(), order, now=began, policy=POLICY)
    ledger = ledgers.failed(
        ledger,
        key,
        cause=model.Failure.NO_CAPACITY,
        reason="full",
        now=NOW + 1,
        policy=POLICY,
        jitter=1.0,
    )
    after = settled(ledger, order, at=NOW + 3)
    assert (key in after.backoffs) is (began <= NOW + 1)
    assert ledgers.window(after, key) == (1 if began <= NOW + 1 else 2)


def test_a_controller_that_refused_is_asked_for_one_until_it_makes_it():
    """What is asked of the platform at once is another matter."""
    key = ledgers.key_of(Scope.CONTROLLER, B, None)
    refused = ledgers.failed(
        attrs.evolve(model.Ledger(), windows={KEY: 5}),
        key,
        cause=model.Failure.FORBIDDEN,
        reason="no",
        now=NOW,
        policy=POLICY,
        jitter=1.0,
    )
    assert {key: 1, KEY: 5} == refused.windows
    made = settled(ordered(LAUNCH, refused), LAUNCH)
    assert key not in made.windows
    assert 6 == made.windows[KEY]


@pytest.mark.parametrize(("left_s", "counts"), [(1.0, False), (0.0, True)])
def test_a_place_that_is_left_alone_has_a_better_reason_than_one_failure(left_s, counts):
    """Until its time is over."""
    avoided = model.Backoff(
        failures=4, until_at=NOW + left_s, reason="they die there", cause=model.Cause.BLACK_HOLE
    )
    ledger = attrs.evolve(model.Ledger(), backoffs={KEY: avoided})
    assert (fail(ledger).backoffs[KEY] != avoided) is counts


def test_the_launch_budget_is_a_bucket_that_refills():
    """Burst first, then the rate; a clock that stands still or goes back gives nothing."""
    limits = model.BackendPolicy(launch_rate=2.0, launch_burst=4)
    policy = attrs.evolve(POLICY, backends={B: limits})
    ledger = model.Ledger()
    for number in range(4):
        action = attrs.evolve(LAUNCH, name=NodeName(f"o-t-{number}"))
        ledger = ledgers.expect(ledger, action, now=NOW, policy=policy)
    left = [
        ledgers.refilled(ledger.buckets[B], limits, now=at).tokens
        for at in (NOW - 9, NOW, NOW + 1, NOW + 2, NOW + 99)
    ]
    assert [0.0, 0.0, 2.0, 4.0, 4.0] == left


def test_an_expectation_stands_until_seen_or_too_old():
    """It lives while the action runs, and a while longer for its effect to show."""
    ledger = ledgers.expect(model.Ledger(), LAUNCH, now=NOW, policy=POLICY)
    running = ledger.expectations[LAUNCH.name]
    assert (Verb.LAUNCH, T, B, NOW + 150.0) == (
        running.verb, running.template, running.backend, running.expires_at,
    )  # fmt: skip
    done = ledgers.settle(
        ledger, ledgers.Outcome(action=LAUNCH, at=NOW + 4), policy=POLICY, jitter=1.0
    ).expectations[LAUNCH.name]
    assert (NOW + 4, NOW + 34) == (done.done_at, done.expires_at)


RETIRE = model.RetireAgent(name=LAUNCH.name, backend=B, reason="r")


@pytest.mark.parametrize(
    ("action", "outcome", "left_until"),
    [
        (LAUNCH, {"failure": model.Failure.UNAVAILABLE}, None),
        (LAUNCH, {"withdrawn": True}, None),
        (RETIRE, {"withdrawn": True}, None),
        (RETIRE, {"failure": model.Failure.UNREACHABLE, "controller": True}, NOW + 5),
        (RETIRE, {"failure": model.Failure.UNAUTHORIZED, "retry_after": 60.0}, NOW + 60),
    ],
)
def test_what_is_expected_after_an_action_did_not_work(action, outcome, left_until):
    """A launch may be ordered anew at once; a removal that failed is left alone for a moment."""
    ledger = ledgers.expect(model.Ledger(), action, now=NOW, policy=POLICY)
    ledger = ledgers.settle(
        ledger, ledgers.Outcome(action=action, at=NOW, **outcome), policy=POLICY, jitter=1.0
    )
    found = ledger.expectations.get(action.name)
    assert left_until == (None if found is None else found.expires_at)


COMPUTER = model.Computer(name=LAUNCH.name)


@each(
    ("verb", "computer", "instance", "cordoned", "visible"),
    [
        (Verb.LAUNCH, None, False, False, False),
        (Verb.LAUNCH, COMPUTER, False, False, False),
        (Verb.LAUNCH, None, True, False, False),
        (Verb.LAUNCH, COMPUTER, True, False, True),
        (Verb.RETIRE, COMPUTER, True, True, False),
        (Verb.RETIRE, None, True, False, False),
        (Verb.RETIRE, None, False, False, True),
        (Verb.SWEEP, None, True, False, False),
        (Verb.SWEEP, None, False, False, True),
        (Verb.CORDON, COMPUTER, True, False, False),
        (Verb.CORDON, COMPUTER, True, True, True),
        (Verb.CORDON, None, True, False, True),
        (Verb.UNCORDON, COMPUTER, True, True, False),
        (Verb.UNCORDON, COMPUTER, True, False, True),
        (Verb.UNCORDON, None, True, False, True),
    ],
)
def test_when_an_effect_is_visible(verb, computer, instance, cordoned, visible):
    """Both sides have to show it, where both sides are concerned."""
    expectation = model.Expectation(
        verb=verb, name=LAUNCH.name, template=T, backend=B, since_at=NOW, expires_at=NOW + 9
    )
    assert visible is ledgers.is_visible(
        expectation, computer=computer, instance_seen=instance, cordoned=cordoned
    )


def test_every_action_has_a_verb():
    """The table is total."""
    actions = [
        LAUNCH,
        model.CordonAgent(name=LAUNCH.name, reason=""),
        model.UncordonAgent(name=LAUNCH.name, reason=""),
        model.CheckAgent(
            name=LAUNCH.name, backend=B, template=T, check=model.Check.READY, reason=""
        ),
        RETIRE,
        model.ReleaseAgent(
            name=LAUNCH.name, backend=None, reason="", cause=model.Cause.LOST_KILLED
        ),
        model.SweepNode(name=LAUNCH.name, reason=""),
        model.SweepInstance(name=LAUNCH.name, backend=BackendName("x"), reason=""),
    ]
    assert {type(a) for a in actions} == set(model.Action.__args__)
    assert set(Verb) == {ledgers.verb_of(a) for a in actions}


def test_a_back_off_holds_for_its_whole_scope():
    """One of a backend holds for each of its templates, one of the controller for everything."""
    other, u = BackendName("two"), TemplateName("u")
    keys = [
        len({ledgers.key_of(scope, b, t) for b, t in itertools.product((B, other), (T, u))})
        for scope in (Scope.CONTROLLER, Scope.BACKEND, Scope.TEMPLATE)
    ]
    assert [1, 2, 4] == keys


# --- a change of who acts, and better words ---


def test_of_what_was_remembered_only_facts_stay_when_another_begins_to_act():
    """As after a restart: who was online, builds, sessions, places; no orders, pauses, clocks."""
    T2 = NodeName("o-t-2")
    place = model.BackoffKey(scope=Scope.PLACE, backend=B, place="north")
    avoided = model.Backoff(
        failures=4, until_at=NOW + 600, reason="they die there", cause=model.Cause.BLACK_HOLE
    )
    memory = model.Memory(
        first_seen_at=1.0, created_at=2.0, online_at=3.0, online_witnessed=True, idle_at=4.0,
        busy_session="s1", builds=5, executable_urls=("u",), template=T, backend=B,
        nominated_at=6.0, closed_looks=2, removals=3,
    )  # fmt: skip
    before = model.Ledger(
        memories={LAUNCH.name: memory, T2: model.Memory(first_seen_at=1.0, builds=1)},
        expectations=ledgers.expect(model.Ledger(), LAUNCH, now=NOW, policy=POLICY).expectations,
        backoffs={**fail(model.Ledger()).backoffs, place: avoided},
        buckets={B: model.Bucket(tokens=0.0, at=NOW)},
        trials={KEY: model.Trial(revision="r1", online=2)},
        labels={model.ItemId(1): model.KnownLabel(source=model.LabelSource.NO_LABEL)},
        waits={model.ItemId(1): 1.0},
        session="s1",
        session_at=7.0,
        cycle=9,
    )
    kept = model.Memory(
        first_seen_at=1.0, online_at=3.0, builds=5, executable_urls=("u",), busy_session="s1"
    )
    assert model.Ledger(
        memories={LAUNCH.name: kept},
        trials=before.trials,
        backoffs={place: avoided},
        labels=before.labels,
        session="s1",
        session_at=7.0,
        cycle=9,
    ) == ledgers.resumed(before)


def test_a_failure_is_told_better_when_more_is_known():
    """Nothing else of it changes; a failure that came after it keeps its own words."""
    ledger = fail(model.Ledger())
    after = ledgers.reworded(ledger, KEY, "said so", "its Java is too old")
    assert "its Java is too old" == after.backoffs[KEY].reason
    assert ledger == ledgers.reworded(after, KEY, "its Java is too old", "said so")
    assert ledgers.reworded(ledger, KEY, "something else", "x") is ledger
    assert ledgers.reworded(model.Ledger(), KEY, "said so", "x") == model.Ledger()


# --- how an order ended ---

RETIRE = model.RetireAgent(name=LAUNCH.name, backend=B, reason="r", cause=model.Cause.IDLE)


def settled(ledger, action, *, at=NOW, revision="", policy=POLICY, **more):
    outcome = ledgers.Outcome(action=action, at=at, **more)
    return ledgers.settle(ledger, outcome, policy=policy, jitter=1.0, revision=revision)


def ordered(action, ledger=None):
    before = ledger or model.Ledger(memories={LAUNCH.name: model.Memory(first_seen_at=NOW)})
    return ledgers.expect(before, action, now=NOW, policy=POLICY)


def test_a_removal_that_was_done_and_does_not_show_waits_longer_each_time():
    """First as long as a listing may lag; then tries are counted, one by one."""
    ledger, waited = None, []
    for _ in range(5):
        ledger = settled(ordered(RETIRE, ledger), RETIRE)
        expectation = ledger.expectations[LAUNCH.name]
        assert NOW == expectation.done_at
        waited.append(expectation.expires_at - NOW)
    assert [30.0, 30.0, 30.0, 40.0, 80.0] == waited
    assert 5 == ledger.memories[LAUNCH.name].removals


def test_a_removal_that_failed_is_tried_again_later_each_time():
    """Or when the platform says; until then nothing else is done to its agent."""
    ledger, waited = None, []
    for retry_after in (None, None, 60.0):
        ledger = settled(
            ordered(RETIRE, ledger),
            RETIRE,
            failure=model.Failure.UNAVAILABLE,
            retry_after=retry_after,
        )
        expectation = ledger.expectations[LAUNCH.name]
        assert NOW == expectation.done_at
        waited.append(expectation.expires_at - NOW)
    assert [5.0, 10.0, 60.0] == waited
    assert {} == ledger.backoffs


def test_a_failed_launch_says_of_which_definition_and_for_how_long():
    """All that the platform told stays with the pause."""
    ledger = settled(
        ordered(LAUNCH),
        LAUNCH,
        failure=model.Failure.UNAVAILABLE,
        text="the registry is away",
        retry_after=77.0,
        revision="r7",
    )
    assert {
        KEY: model.Backoff(
            failures=1,
            until_at=NOW + 77.0,
            reason="the registry is away",
            cause=model.Failure.UNAVAILABLE,
            revision="r7",
            at=NOW,
        )
    } == ledger.backoffs
    assert {} == ledger.expectations
    assert NOW == ledger.memories[LAUNCH.name].failed_at


@pytest.mark.parametrize("controller", [True, False])
def test_only_a_launch_that_succeeds_ends_the_controllers_pause(controller):
    """A backend that refuses does so before there is a node, which says nothing of nodes."""
    key = ledgers.key_of(Scope.CONTROLLER, B, None)
    pausing = ledgers.failed(
        model.Ledger(),
        key,
        cause=model.Failure.FORBIDDEN,
        reason="no",
        now=NOW,
        policy=POLICY,
        jitter=1.0,
    )
    scope = Scope.CONTROLLER if controller else Scope.TEMPLATE
    after = settled(
        ordered(LAUNCH, pausing),
        LAUNCH,
        failure=model.Failure.FORBIDDEN,
        controller=controller,
        scope=scope,
    )
    assert ({key} if controller else {key, KEY}) == set(after.backoffs)
    assert set() == set(settled(ordered(LAUNCH, pausing), LAUNCH).backoffs)


def test_an_order_of_which_nothing_is_known_changes_no_other():
    """An outcome that comes twice, or after a change of term, leaves what is under way alone."""
    ledger = ordered(LAUNCH)
    assert ledger.expectations == settled(ledger, RETIRE).expectations
    assert {} == settled(model.Ledger(), RETIRE).expectations


def test_only_whoever_is_gone_is_forgotten():
    """What is known of the others stays, and what is under way with them."""
    gone = attrs.evolve(LAUNCH, name=NodeName("o-t-gone"))
    memories = {LAUNCH.name: KNOWN, gone.name: KNOWN}
    ledger = ordered(gone, ordered(LAUNCH, model.Ledger(memories=memories)))
    after = ledgers.forget(ledger, {gone.name})
    assert {LAUNCH.name: KNOWN} == after.memories
    assert {LAUNCH.name} == set(after.expectations)


def test_an_item_that_nobody_was_started_for_changes_nothing():
    """The very ledger comes back."""
    ledger = ordered(LAUNCH)
    assert ledgers.cancelled(ledger, model.ItemId(99)) is ledger


KNOWN = model.Memory(first_seen_at=NOW, template=T, backend=B)


@each(
    ("action", "memory", "template", "backend", "item"),
    [
        (attrs.evolve(LAUNCH, item=model.ItemId(7)), None, T, B, model.ItemId(7)),
        (attrs.evolve(LAUNCH, item=model.ItemId(7)), model.Memory(first_seen_at=NOW), T, B, 7),
        (RETIRE, KNOWN, T, B, None),
        (RETIRE, None, None, B, None),
        (model.SweepInstance(name=LAUNCH.name, backend=B, reason="r"), None, None, B, None),
        (model.SweepNode(name=LAUNCH.name, reason="r"), None, None, None, None),
        (model.SweepNode(name=LAUNCH.name, reason="r"), KNOWN, T, B, None),
        (model.CordonAgent(name=LAUNCH.name, reason="r"), KNOWN, T, B, None),
    ],
)
def test_all_that_is_known_of_an_order_is_written_down(action, memory, template, backend, item):
    """Whose it is, from the order or from what is remembered; why, and what it is for."""
    ledger = model.Ledger(memories={LAUNCH.name: memory} if memory is not None else {})
    (written,) = ledgers.expect(ledger, action, now=NOW, policy=POLICY).expectations.items()
    order = model.Expectation(
        verb=ledgers.verb_of(action),
        name=LAUNCH.name,
        template=template,
        backend=backend,
        since_at=NOW,
        expires_at=NOW + POLICY.launch_timeout_s + ledgers.VISIBLE_S,
        reason="r",
        item=item,
    )
    assert (LAUNCH.name, order) == written


@pytest.mark.parametrize(
    ("base_s", "done", "failed"),
    [(40.0, [30.0, 80.0, 160.0], [40.0, 80.0, 160.0]), (0.25, [30.0] * 3, [0.25, 0.5, 1.0])],
)
def test_how_long_a_removal_waits_is_the_pauses_of_the_policy(base_s, done, failed):
    """The first that was done waits for nothing but a listing that lags."""
    policy = attrs.evolve(POLICY, backoff_base_s=base_s)
    for failure, waits in ((None, done), (model.Failure.UNAVAILABLE, failed)):
        ledger, waited = None, []
        for _ in waits:
            ledger = settled(ordered(RETIRE, ledger), RETIRE, failure=failure, policy=policy)
            waited.append(ledger.expectations[LAUNCH.name].expires_at - NOW)
        assert waits == waited


def test_a_cancelled_item_is_noted_with_whom_it_was_started_for():
    """And with nobody else."""
    other = NodeName("o-t-2")
    ledger = model.Ledger(
        memories={
            LAUNCH.name: attrs.evolve(KNOWN, item=model.ItemId(7)),
            other: attrs.evolve(KNOWN, item=model.ItemId(8)),
        }
    )
    memories = ledgers.cancelled(ledger, model.ItemId(7)).memories
    assert [True, False] == [memories[n].item_cancelled for n in (LAUNCH.name, other)]


# --- how much is asked for at once, and what has proved itself ---

FULL = {"cause": model.Failure.NO_CAPACITY, "held": 3}


def test_refusals_in_a_row_are_counted_once_for_each_time_it_was_asked():
    """One that comes while it is left alone is of the same time; any other failure ends the row."""
    first = fail(model.Ledger(), **FULL)
    assert (1, 0, 3) == _row(first)
    assert (1, 0, 3) == _row(fail(first, now=NOW + 1, **FULL))
    assert (2, 0, 3) == _row(fail(first, now=NOW + 5, **FULL))
    other = fail(first, now=NOW + 5, held=3)
    assert (0, 1, None) == _row(other)
    assert (1, 1, 3) == _row(fail(other, now=NOW + 6, **FULL))


def _row(ledger):
    backoff = ledger.backoffs[KEY]
    return backoff.refusals, backoff.failures, backoff.held


def test_who_had_no_room_is_asked_for_one_and_then_for_one_more_each_time():
    """Of the backend and of the template on it; to a limit, which no fleet comes near."""
    full = fail(model.Ledger(), **FULL)
    assert 1 == ledgers.window(full, KEY)
    backend = ledgers.key_of(Scope.BACKEND, B, None)
    assert ledgers.FIRST_WINDOW == ledgers.window(full, backend)
    later = ledgers.expect(full, LAUNCH, now=NOW + 1, policy=POLICY)
    worked = settled(later, LAUNCH)
    assert {KEY: 2, backend: ledgers.FIRST_WINDOW + 1} == worked.windows
    assert {} == worked.backoffs
    most = attrs.evolve(full, windows={KEY: 1024})
    assert 1024 == settled(ordered(LAUNCH, most), LAUNCH).windows[KEY]


@pytest.mark.parametrize("scope", [Scope.TEMPLATE, Scope.BACKEND])
def test_with_how_many_a_platform_was_full_is_remembered(scope):
    """As soon as it holds fewer of ours there may be room again."""
    refused = settled(
        ordered(LAUNCH), LAUNCH, failure=model.Failure.NO_CAPACITY, scope=scope, held=4
    )
    assert 4 == refused.backoffs[ledgers.key_of(scope, B, T)].held


def test_an_agent_that_comes_online_does_not_make_room():
    """It ends other failures of its template; only a start that is taken shows room."""
    full = fail(model.Ledger(), **FULL)
    assert ledgers.succeeded(full, KEY) is full
    assert {} == ledgers.succeeded(fail(model.Ledger()), KEY).backoffs


def test_a_definition_proves_itself_agent_by_agent():
    """Counted as far as it matters; a new one begins anew."""
    ledger, counted = model.Ledger(), []
    for revision in (*["r1"] * (ledgers.ENOUGH_ONLINE + 1), "r2"):
        ledger = ledgers.proved(ledger, KEY, revision)
        counted.append(ledger.trials[KEY].online)
    assert [1, 2, 3, 4, 5, 6, 6, 1] == counted
    assert "r2" == ledger.trials[KEY].revision


def test_a_person_who_has_seen_to_something_is_believed_once():
    """All is tried at once; what fails again waits longer. A full platform is asked as before."""
    rejected, full, host = (
        ledgers.key_of(model.Scope.TEMPLATE, B, TemplateName("t")),
        ledgers.key_of(model.Scope.TEMPLATE, B, TemplateName("u")),
        ledgers.key_of(model.Scope.BACKEND, B, None),
    )
    ledger, sure = model.Ledger(), {"policy": POLICY, "jitter": 1.0, "reason": "no"}
    for key, cause in (
        (rejected, model.Failure.REJECTED),
        (full, model.Failure.NO_CAPACITY),
        (host, model.Failure.UNAVAILABLE),
    ):
        ledger = ledgers.failed(ledger, key, cause=cause, now=NOW, **sure)
    later = ledgers.asked_again(ledger, now=NOW + 1)
    untils = {key: backoff.until_at for key, backoff in later.backoffs.items()}
    assert {rejected: NOW + 1, host: NOW + 1, full: ledger.backoffs[full].until_at} == untils
    assert ledgers.asked_again(later, now=NOW + 2) == later
    again = ledgers.failed(
        later, host, cause=model.Failure.UNAVAILABLE, now=NOW + 1, **sure
    ).backoffs[host]
    assert again.failures == 2
    assert again.until_at - (NOW + 1) > ledger.backoffs[host].until_at - NOW
