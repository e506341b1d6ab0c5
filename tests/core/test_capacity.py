"""Room: every gate with its reason, which one speaks first, and the spill-over."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import capacity
from broker.core.fleet import agents as agents_
from broker.core.fleet import ledger as ledgers
from broker.core.model import BackendName, Phase, Scope, WaitReason
from tests.core.worlds import NOW, B, Scene, item, launches, template
from tests.each import each

C = BackendName("two")
T = template("t", backends=(B, C))


def placed(scene):
    """Ask for room for one agent of the first template."""
    world = scene.world()
    found, ledger, _ = agents_.observe(world, scene.policy)
    room = capacity.count(attrs.evolve(world, ledger=ledger), scene.policy, found)
    return capacity.place(room, scene.policy.templates[0])


def reason(scene):
    found = placed(scene)
    return found.reason if isinstance(found, capacity.Shortage) else found


@pytest.mark.parametrize(
    ("phase", "counts", "starts"),
    [
        (Phase.CONNECTING, True, True),
        (Phase.IDLE, True, False),
        (Phase.BUSY, True, False),
        (Phase.DRAINED, True, False),
        (Phase.HELD, True, False),
        (Phase.LOST, True, False),
        (Phase.ORPHAN, True, False),
    ],
)
def test_who_takes_room(phase, counts, starts):
    """Everything that is not gone, also what is only left over (I1); who starts, twice."""
    scene = Scene(template("t"), cap=1)
    scene.agent("t", phase, age_s=5)
    assert (WaitReason.CAP_TOTAL if counts else B) == reason(scene)
    scene = Scene(template("t"), max_starting=1)
    scene.agent("t", phase, age_s=5)
    assert (WaitReason.CAP_STARTING if starts else B) == reason(scene)


def test_one_that_lost_its_connection_is_not_starting():
    """It was online once: it does not hold back those that start."""
    scene = Scene(template("t"), max_starting=1)
    scene.agent("t", Phase.CONNECTING, online_at=NOW - 100, offline_at=NOW - 5)
    assert [Phase.CONNECTING] == [agent.phase for agent in scene.plan().agents]
    assert B == reason(scene)


STOPPING = backends_api.InstanceState.STOPPING
EXITED = backends_api.InstanceState.EXITED
BY = "held by finalizer example.com/hold"


def leaving(scene, *, spent, state=STOPPING, detail=BY, node=False, since_s=46.0):
    """Put an agent there whose removal does not come about."""
    scene.agent("t", Phase.LOST, exit=backends_api.Exit(slug="exited", code=0))
    if not node:
        scene.computers.clear()
    (instance,) = scene.instances[B]
    scene.instances[B] = [
        attrs.evolve(
            instance,
            state=state,
            detail=detail,
            spent=spent,
            leaving_at=NOW - since_s if since_s is not None else None,
        )
    ]


@pytest.mark.parametrize("state", [STOPPING, EXITED])
@pytest.mark.parametrize("limit", ["cap", "template", "backend"])
def test_only_the_record_of_an_agent_takes_no_room(state, limit):
    """Nothing of it runs, its node is deleted: what keeps its record may do so for days."""
    scene = _capped(limit)
    leaving(scene, spent=True, state=state)
    assert B == reason(scene)
    assert 0 == scene.plan().counts["t"].agents


def _capped(limit):
    limits = {"cap": {"cap": 1}, "backend": {"backend": model.BackendPolicy(cap=1)}}
    return Scene(template("t", cap=1 if limit == "template" else None), **limits.get(limit, {}))


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("cap", "1 of 1 agent in all"),
        ("template", "template t has 1 of 1 agent"),
        ("backend", "local: 1 of 1 agent on it"),
    ],
)
@pytest.mark.parametrize(("spent", "node"), [(False, False), (True, True)])
def test_who_fills_a_cap_while_it_leaves_is_said(limit, words, spent, node):
    """With for how long, and what holds it up; one that runs, or has its node, takes room."""
    scene = _capped(limit)
    leaving(scene, spent=spent, node=node)
    assert placed(scene).text == f"{words}, 1 of them leaving for 46 s: {BY}"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"cap": 3}, "3 of 3 agents in all, 2 of them only ordered"),
        ({"backend": model.BackendPolicy(cap=3)}, "local: 3 of 3 agents on it, 2 of them only ordered"),
        ({"backend": model.BackendPolicy(max_starting=2)},
         "local: 2 of 2 agents are starting on it, so far only ordered"),
        ({"max_starting": 2}, "2 of 2 agents are starting, so far only ordered"),
    ],
)  # fmt: skip
def test_who_is_only_ordered_is_not_told_as_if_there(more, words):
    """By this very plan, or by one before it, and not seen yet."""
    scene = Scene(template("t"), **more)
    scene.agent("t", Phase.BUSY)
    scene.wait(*(item(n, "t") for n in (1, 2, 3)))
    made = scene.plan()
    assert words == made.unmet[-1].text
    ordered_before(scene, made)
    assert words == scene.plan().unmet[-1].text


def test_who_of_a_template_is_only_ordered_is_told():
    """Of this template, not of others."""
    scene = Scene(template("t", cap=2), template("u"))
    scene.agent("t", Phase.BUSY)
    scene.wait(item(1, "u"), item(2, "t"), item(3, "t"))
    made = scene.plan()
    words = "template t has 2 of 2 agents, 1 of them only ordered"
    assert words == made.unmet[-1].text
    ordered_before(scene, made)
    assert words == scene.plan().unmet[-1].text


def ordered_before(scene, made):
    """Let what a plan orders be on its way, and not seen yet."""
    scene.ledger = made.ledger
    for action in made.actions:
        scene.ledger = ledgers.expect(scene.ledger, action, now=NOW, policy=scene.policy)


def test_of_those_that_leave_the_one_that_does_so_for_longest_is_told_of():
    """What holds it up may hold up the others as well."""
    scene = Scene(template("t", cap=3))
    since_s = (46.0, 90.0, 7.0)
    for _ in since_s:
        scene.agent("t", Phase.LOST, exit=backends_api.Exit(slug="exited", code=0))
    scene.instances[B] = [
        attrs.evolve(instance, leaving_at=NOW - seconds, detail=f"for {seconds:.0f}")
        for instance, seconds in zip(scene.instances[B], since_s, strict=True)
    ]
    words = "template t has 3 of 3 agents, 3 of them leaving for 90 s: for 90"
    assert words == placed(scene).text


def test_what_the_platform_shows_already_takes_none_of_its_free_room():
    """It is counted by the platform."""
    scene = Scene(template("t"))
    scene.wait(item(1, "t"))
    ordered_before(scene, scene.plan())
    scene.capacity[B] = backends_api.Capacity(free_instances=1)
    assert WaitReason.NO_ROOM is reason(scene)
    scene.agent("t", Phase.ORPHAN, suffix="n0", known=False)
    assert [Phase.LAUNCHING] == [agent.phase for agent in scene.plan().agents]
    assert B == reason(scene)


def test_since_when_an_agent_leaves_may_be_unknown():
    """Then nothing is said of it; nor of what holds it up, if nobody knows."""
    scene = _capped("cap")
    leaving(scene, spent=False, since_s=None, detail="")
    assert placed(scene).text == "1 of 1 agent in all, 1 of them leaving"


@each(
    ("limits", "expected"),
    [
        ({}, B),
        ({"draining": True}, WaitReason.DRAINING),
        ({"cap": 0}, WaitReason.CAP_TOTAL),
        ({"max_starting": 0}, WaitReason.CAP_STARTING),
        ({"backend": model.BackendPolicy(cap=0)}, WaitReason.CAP_BACKEND),
        ({"backend": model.BackendPolicy(max_starting=0)}, WaitReason.CAP_STARTING),
        ({"backend": model.BackendPolicy(launch_burst=0)}, WaitReason.BUDGET),
        ({"draining": True, "cap": 0}, WaitReason.DRAINING),
    ],
)
def test_gates_of_all(limits, expected):
    """One row for each limit; what a person decided is said before what is counted."""
    assert expected == reason(Scene(template("t"), **limits))


def test_gates_of_a_template():
    """Paused before full."""
    assert WaitReason.PAUSED is reason(Scene(template("t", paused=True, cap=0)))
    assert WaitReason.CAP_TEMPLATE is reason(Scene(template("t", cap=0)))
    assert WaitReason.SET_ASIDE is reason(Scene(template("t", backends=())))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (lambda s, b: s.dark_backends.add(b), WaitReason.NOT_SYNCED),
        (lambda s, b: s.backoff(Scope.BACKEND, backend=b), WaitReason.BACKOFF),
        (lambda s, b: s.backoff(Scope.TEMPLATE, "t", backend=b), WaitReason.SET_ASIDE),
        (lambda s, b: s.backoff(Scope.TEMPLATE, "t", backend=b, cause=model.Failure("no-capacity")), WaitReason.NO_ROOM),
        (lambda s, b: s.capacity.__setitem__(b, backends_api.Capacity(free_instances=0)), WaitReason.NO_ROOM),
    ],
)  # fmt: skip
def test_each_gate_of_a_backend_spills_over(block, expected):
    """The next backend takes it; when none can, the first one's reason is told with all words."""
    scene = Scene(T)
    block(scene, B)
    assert C == placed(scene)
    block(scene, C)
    found = placed(scene)
    assert expected is found.reason
    assert "local: " in found.text
    assert "two: " in found.text


def test_time_alone_helps_at_the_earliest_moment():
    """Of several pauses the first to end decides when to look again."""
    scene = Scene(T)
    scene.backoff(Scope.BACKEND, backend=B, for_s=60.0)
    scene.backoff(Scope.BACKEND, backend=C, for_s=20.0)
    assert NOW + 20.0 == placed(scene).until_at


def test_a_controller_that_refuses_nodes_stops_every_template():
    """It is asked again when the pause is over."""
    scene = Scene(T)
    scene.backoff(Scope.CONTROLLER, cause=model.Failure("forbidden"))
    assert WaitReason.BACKOFF is reason(scene)
    scene.now += 60.0
    assert B == reason(scene)


def test_a_controller_that_refused_a_node_is_asked_for_one_first():
    """When the pause is over; whoever waits is told so."""
    scene = Scene(template("t"))
    scene.backoff(Scope.CONTROLLER, cause=model.Failure.FORBIDDEN, for_s=0.0)
    windows = {ledgers.key_of(Scope.CONTROLLER, B, None): 1}
    scene.ledger = attrs.evolve(scene.ledger, windows=windows)
    scene.wait(item(1, "t"), item(2, "t"))
    made = scene.plan()
    assert {"t": 1} == launches(made)
    words = "the controller refused a node, and is asked for one first: said so"
    assert (WaitReason.BACKOFF, words) == (made.unmet[1].reason, made.unmet[1].text)


@pytest.mark.parametrize(
    ("failures", "asked", "waits"), [(1, 1, True), (1, 0, False), (0, 1, False)]
)
def test_a_backend_that_failed_is_asked_for_one_first(failures, asked, waits):
    """When the pause is over, of whatever template; others follow as soon as it has answered."""
    scene = Scene(template("t"), template("u"))
    scene.backoff(Scope.BACKEND, for_s=0.0, failures=failures)
    room = capacity.count(scene.world(), scene.policy, ())
    room.ask(B, scene.policy.templates[1].name, asked)
    words = "local: one agent is asked for first after a failure: said so"
    refused = capacity.Shortage(reason=R.BACKOFF, text=words)
    assert capacity.place(room, scene.policy.templates[0]) == (refused if waits else B)


@pytest.mark.parametrize("scope", [Scope.CONTROLLER, Scope.BACKEND])
def test_starts_that_are_not_answered_are_no_refusal_of_the_controller(scope):
    """Whatever the platform refused before."""
    scene = Scene(template("t"))
    scene.backoff(Scope.BACKEND, for_s=0.0, failures=0)
    scene.ledger = attrs.evolve(scene.ledger, windows={ledgers.key_of(scope, B, None): 1})
    scene.wait(item(1, "t"), item(2, "t"))
    said = scene.plan().unmet[1]
    assert WaitReason.CAP_STARTING is said.reason
    assert "1 start is not answered yet" in said.text


def test_a_new_definition_is_tried_at_once():
    """A set-aside is about the old one."""
    scene = Scene(T)
    scene.backoff(Scope.TEMPLATE, "t")
    ((key, backoff),) = scene.ledger.backoffs.items()
    for revision, expected in (("r1", C), ("r0", B)):
        scene.ledger = attrs.evolve(
            scene.ledger, backoffs={key: attrs.evolve(backoff, revision=revision)}
        )
        assert expected == placed(scene)


@pytest.mark.parametrize(("tokens", "wait_s"), [(0.0, 2.0), (0.5, 1.0), (1.0, None)])
def test_the_launch_budget_says_when(tokens, wait_s):
    """At half a launch per second."""
    scene = Scene(template("t"), backend=model.BackendPolicy(launch_rate=0.5, launch_burst=3))
    bucket = model.Bucket(tokens=tokens, at=NOW)
    scene.ledger = attrs.evolve(scene.ledger, buckets={B: bucket})
    found = placed(scene)
    assert (B if wait_s is None else NOW + wait_s) == getattr(found, "until_at", found)


def test_the_room_of_a_plan_shrinks_with_each_launch():
    """What this very plan orders counts at once."""
    scene = Scene(template("t"), cap=2)
    world = scene.world()
    room = capacity.count(world, scene.policy, ())
    for expected in (B, B, WaitReason.CAP_TOTAL):
        found = capacity.place(room, scene.policy.templates[0])
        assert expected == getattr(found, "reason", found)
        if found == B:
            room.take(scene.policy.templates[0], B)


# --- a platform that has no room ---


def full(scene, *, held, for_s, scope=Scope.TEMPLATE):
    key = ledgers.key_of(scope, B, scene.policy.templates[0].name)
    backoff = model.Backoff(
        failures=0,
        refusals=3,
        held=held,
        until_at=NOW + for_s,
        reason="quota",
        cause=model.Failure.NO_CAPACITY,
    )
    scene.ledger = attrs.evolve(scene.ledger, backoffs={key: backoff}, windows={key: 1})


@pytest.mark.parametrize("scope", [Scope.TEMPLATE, Scope.BACKEND])
@pytest.mark.parametrize(("there", "goes"), [(3, False), (2, True), (1, True)])
def test_a_full_platform_is_asked_at_once_when_one_of_ours_has_gone(scope, there, goes):
    """There may be room for as many as it has held; for more it is asked when the pause is over."""
    scene = Scene(template("t"))
    for _ in range(there):
        scene.agent("t", Phase.BUSY)
    full(scene, held=3, for_s=60.0, scope=scope)
    assert (B if goes else WaitReason.NO_ROOM) == reason(scene)


@each("scope", [Scope.TEMPLATE, Scope.BACKEND])
@each(("room_at", "goes"), [(None, False), (NOW - 9, False), (NOW - 8, False), (NOW - 7, True)])
def test_a_platform_that_shows_room_after_a_refusal_is_asked_at_once(scope, room_at, goes):
    """With one agent; a sign of before the refusal is none."""
    scene = Scene(template("t"))
    full(scene, held=3, for_s=60.0, scope=scope)
    ((key, backoff),) = scene.ledger.backoffs.items()
    refused = {key: attrs.evolve(backoff, held=None, at=NOW - 8)}
    scene.ledger = attrs.evolve(scene.ledger, backoffs=refused)
    scene.capacity[B] = backends_api.Capacity(room_at=room_at)
    assert (B if goes else WaitReason.NO_ROOM) == reason(scene)
    scene.wait(*(item(n, "t") for n in range(9)))
    assert (1 if goes else 0) == launches(scene.plan()).get("t", 0)


@pytest.mark.parametrize("scope", [Scope.TEMPLATE, Scope.BACKEND])
def test_a_full_platform_is_asked_for_one(scope):
    """However many wait, and however much room there may be by now."""
    scene = Scene(template("t"))
    full(scene, held=3, for_s=0.0, scope=scope)
    scene.wait(*(item(n, "t") for n in range(9)))
    made = scene.plan()
    assert {"t": 1} == launches(made)
    texts = {u.text for u in made.unmet if u.reason is WaitReason.NO_ROOM}
    assert {"local: the platform had no room, and is asked for one agent first: quota"} == texts


def test_one_template_that_is_too_big_leaves_the_others_their_room():
    """Whose refusal it was waits; nobody else."""
    scene = Scene(template("big"), template("t"))
    full(scene, held=0, for_s=60.0)
    scene.wait(item(1, "big"), item(2, "t"))
    made = scene.plan()
    assert {"t": 1} == launches(made)
    words = "local: the platform has no room for template big, asked again in 60 s: quota"
    assert words == made.unmet[0].text


def test_a_whole_platform_without_room_is_no_matter_of_a_template():
    """None is named."""
    scene = Scene(template("t"))
    full(scene, held=0, for_s=60.0, scope=Scope.BACKEND)
    assert "local: the platform has no room, asked again in 60 s: quota" == placed(scene).text


def test_who_is_ordered_already_is_asked_for_in_its_own_name():
    """Another template's starts are other starts."""
    scene = Scene(template("t"), template("u"))
    scene.wait(item(1, "t"))
    ordered_before(scene, scene.plan())
    windows = {ledgers.key_of(Scope.TEMPLATE, B, name): 1 for name in ("t", "u")}
    scene.ledger = attrs.evolve(scene.ledger, windows=windows)
    scene.wait(item(2, "t"), item(3, "u"))
    made = scene.plan()
    assert {"u": 1} == launches(made)
    assert "1 start is not answered yet" in made.unmet[1].text


def test_so_many_as_a_platform_took_are_asked_for_and_one_more_with_each_answer():
    """Eight at first; what is not answered yet counts, what is answered does not."""
    scene = Scene(template("t"), backend=model.BackendPolicy(max_starting=None, launch_burst=99))
    scene.wait(*(item(n, "t") for n in range(60)))
    made = scene.plan()
    assert {"t": ledgers.FIRST_WINDOW} == launches(made)
    held = [u for u in made.unmet if u.reason is WaitReason.CAP_STARTING]
    assert (
        "local: 8 starts are not answered yet: more follow when the platform has taken these"
        == held[0].text
    )
    ledger = scene.ledger
    for order in made.actions:
        ledger = ledgers.expect(ledger, order, now=NOW, policy=scene.policy)
    for order in made.actions[:3]:
        ledger = ledgers.settle(
            ledger, ledgers.Outcome(action=order, at=NOW), policy=scene.policy, jitter=1.0
        )
    scene.ledger = ledger
    assert {"t": 6} == launches(scene.plan())  # eleven at once, five of which are under way


# --- a definition that has to prove itself ---


@pytest.mark.parametrize(
    ("online", "revision", "tried"),
    [(0, "r1", 2), (1, "r1", 4), (2, "r1", 8), (6, "r1", 8), (6, "r0", 2)],
)
def test_a_new_definition_starts_few_agents_at_a_time(online, revision, tried):
    """Two, and twice as many with each that comes online; what another one proved says nothing."""
    scene = Scene(template("t"))
    key = ledgers.key_of(Scope.TEMPLATE, B, "t")
    trial = model.Trial(revision=revision, online=online)
    scene.ledger = attrs.evolve(scene.ledger, trials={key: trial})
    scene.wait(*(item(n, "t") for n in range(20)))
    assert {"t": tried} == launches(scene.plan())


@pytest.mark.parametrize(
    ("missing", "expected"), [(0, B), (1, WaitReason.TRIAL)], ids=["proved", "one too few"]
)
def test_what_has_proved_itself_starts_as_many_as_there_are(missing, expected):
    """Its trial is over, and limits nothing."""
    scene = Scene(template("t"))
    room = capacity.count(scene.world(), scene.policy, ())
    key = ledgers.key_of(Scope.TEMPLATE, B, "t")
    trial = model.Trial(revision="r1", online=ledgers.ENOUGH_ONLINE - missing)
    room.ledger = attrs.evolve(room.ledger, trials={key: trial})
    room.starting_by_pair["t", B, frozenset()] = 1000
    found = capacity.place(room, scene.policy.templates[0])
    assert expected == (found.reason if isinstance(found, capacity.Shortage) else found)


def test_it_is_said_why_few_are_started():
    """With how many have come online."""
    scene = Scene(template("t"))
    scene.wait(*(item(n, "t") for n in range(5)))
    scene.ledger = attrs.evolve(scene.ledger, trials={})
    said = scene.plan().unmet[-1]
    assert WaitReason.TRIAL is said.reason
    assert (
        "local: template t as it is now has brought no agent online there yet: 2 agents start first"
        == said.text
    )


def test_an_agent_that_comes_online_proves_its_definition():
    """Seen at a start of ours as well; that of an older definition proves nothing."""
    scene = Scene(template("t"))
    scene.ledger = attrs.evolve(scene.ledger, trials={})
    scene.agent("t", Phase.IDLE, known=False)
    scene.agent("t", Phase.IDLE, known=False, revision="r0")
    scene.agent("t", Phase.CONNECTING, known=False, age_s=1)
    key = ledgers.key_of(Scope.TEMPLATE, B, "t")
    ledger = scene.plan().ledger
    assert {key: model.Trial(revision="r1", online=1)} == ledger.trials
    scene.ledger = ledger
    assert ledger.trials == scene.plan().ledger.trials


# --- the whole sentence of each gate ---


def whole(scene):
    """Return reason, words and seconds until it may be otherwise."""
    found = placed(scene)
    left = None if found.until_at is None else found.until_at - scene.now
    return found.reason, found.text, left


def of_backend(**limits):
    return {"backend": model.BackendPolicy(**limits)}


R = WaitReason
ONE = "1 of 1 agent is starting"
TWO = "2 of 2 agents are starting"


@each(
    ("starting", "of_template", "limits", "said"),
    [
        (0, {}, {"draining": True}, (R.DRAINING, "the broker is draining", None)),
        (0, {"paused": True}, {}, (R.PAUSED, "template t is paused", None)),
        (0, {"backends": ()}, {}, (R.SET_ASIDE, "template t has no backend", None)),
        (1, {"cap": 1}, {}, (R.CAP_TEMPLATE, "template t has 1 of 1 agent", None)),
        (2, {"cap": 2}, {}, (R.CAP_TEMPLATE, "template t has 2 of 2 agents", None)),
        (1, {}, {"cap": 1}, (R.CAP_TOTAL, "1 of 1 agent in all", None)),
        (2, {}, {"cap": 2}, (R.CAP_TOTAL, "2 of 2 agents in all", None)),
        (1, {}, {"max_starting": 1}, (R.CAP_STARTING, ONE, None)),
        (2, {}, {"max_starting": 2}, (R.CAP_STARTING, TWO, None)),
        (1, {}, of_backend(cap=1), (R.CAP_BACKEND, "local: 1 of 1 agent on it", None)),
        (2, {}, of_backend(cap=2), (R.CAP_BACKEND, "local: 2 of 2 agents on it", None)),
        (1, {}, of_backend(max_starting=1), (R.CAP_STARTING, f"local: {ONE} on it", None)),
        (2, {}, of_backend(max_starting=2), (R.CAP_STARTING, f"local: {TWO} on it", None)),
        (0, {}, of_backend(launch_rate=0.5, launch_burst=0),
         (R.BUDGET, "local: launch budget of 0.5 per second is used up", 2.0)),
    ],
)  # fmt: skip
def test_what_is_said_of_a_limit(starting, of_template, limits, said):
    """In full, for one and for several."""
    scene = Scene(template("t", **of_template), **limits)
    for _ in range(starting):
        scene.agent("t", Phase.CONNECTING, age_s=5)
    assert said == whole(scene)


FAILURES = [(1, ""), (2, " after 2 failures"), (3, " after 3 failures")]


@each(("failures", "after"), FAILURES)
@each(
    ("scope", "wait", "what"),
    [
        (Scope.CONTROLLER, R.BACKOFF, "the controller refuses new nodes"),
        (Scope.BACKEND, R.BACKOFF, "local: backing off"),
        (Scope.TEMPLATE, R.SET_ASIDE, "local: template t is set aside"),
        (Scope.LAUNCH, R.BACKOFF, "local: starts of template t pause"),
    ],
)
def test_what_is_said_of_a_pause(scope, wait, what, failures, after):
    """What pauses, after how many failures, until when, and why; at its end nothing is said."""
    scene = Scene(template("t"))
    scene.backoff(scope, "t", failures=failures, for_s=42.0)
    assert (wait, f"{what}{after}, tried again in 42 s: said so", 42.0) == whole(scene)
    scene.now += 42.0
    assert B == placed(scene)


@pytest.mark.parametrize("scope", [Scope.TEMPLATE, Scope.LAUNCH, Scope.BACKEND])
def test_a_pause_is_of_one_backend_and_one_template(scope):
    """What happened to others stops nobody; but a backend pauses for all of its templates."""
    scene = Scene(template("t"), template("u"))
    scene.backoff(scope, "u")
    assert (R.BACKOFF if scope is Scope.BACKEND else B) == reason(scene)
    scene = Scene(T)
    scene.backoff(scope, "t", backend=C)
    assert B == placed(scene)


@pytest.mark.parametrize(
    ("scope", "of_any"),
    [
        (Scope.CONTROLLER, True),
        (Scope.BACKEND, True),
        (Scope.TEMPLATE, False),
        (Scope.LAUNCH, False),
    ],
)
def test_which_pauses_end_with_a_new_definition(scope, of_any):
    """What was refused to a template's start; not what the controller or the platform refuses."""
    scene = Scene(template("t"))
    scene.backoff(scope, "t")
    ((key, backoff),) = scene.ledger.backoffs.items()
    for revision, paused in (("r1", True), ("r0", of_any)):
        told = attrs.evolve(backoff, revision=revision)
        scene.ledger = attrs.evolve(scene.ledger, backoffs={key: told})
        assert paused is isinstance(placed(scene), capacity.Shortage)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        (model.BackendView(synced=False, error="no answer"), " (no answer)"),
        (model.BackendView(synced=False), ""),
        (None, ""),
    ],
)
def test_what_is_said_of_a_backend_that_does_not_answer(view, words):
    """With its own words where it has any; it may never have been looked at."""
    scene = Scene(template("t"))
    world = attrs.evolve(scene.world(), backends={B: view} if view is not None else {})
    found = capacity.place(capacity.count(world, scene.policy, ()), scene.policy.templates[0])
    assert (R.NOT_SYNCED, f"local: its state is unknown{words}") == (found.reason, found.text)


@pytest.mark.parametrize(
    ("free", "text", "said"),
    [
        (0, "quota of 3 is used", "local: the platform has no room: quota of 3 is used"),
        (0, "", "local: the platform has no room"),
        (1, "one is free", None),
        (None, "unlimited", None),
    ],
)
def test_what_a_platform_says_of_its_room(free, text, said):
    """Told as it says it; where it counts nothing it refuses nothing."""
    scene = Scene(template("t"))
    scene.capacity[B] = backends_api.Capacity(free_instances=free, text=text)
    if said is None:
        assert B == placed(scene)
    else:
        assert (R.NO_ROOM, said, None) == whole(scene)


def test_what_none_of_several_backends_can_is_said_of_each():
    """In the order of the template."""
    scene = Scene(T)
    scene.dark_backends.add(B)
    scene.backoff(Scope.BACKEND, backend=C, for_s=20.0)
    words = (
        "local: its state is unknown (no answer); two: backing off, tried again in 20 s: said so"
    )
    assert (R.NOT_SYNCED, words, 20.0) == whole(scene)


def test_a_backend_without_limits_of_its_own_has_the_usual_ones():
    """Whoever asks need not have told any."""
    scene = Scene(template("t"))
    policy = attrs.evolve(scene.policy, backends={})
    room = capacity.count(scene.world(), policy, ())
    assert B == capacity.place(room, policy.templates[0])


@pytest.mark.parametrize(
    ("online", "starting", "words"),
    [
        (0, 2, "no agent online there yet: 2 agents start first"),
        (1, 4, "only 1 agent online there yet: 4 agents start first"),
        (2, 8, "only 2 agents online there yet: 8 agents start first"),
    ],
)
def test_what_is_said_of_a_definition_on_trial(online, starting, words):
    """How many have come, and how many may be on their way; one fewer is no reason."""
    scene = Scene(template("t"), backend=model.BackendPolicy(max_starting=None))
    key = ledgers.key_of(Scope.TEMPLATE, B, "t")
    scene.ledger = attrs.evolve(
        scene.ledger, trials={key: model.Trial(revision="r1", online=online)}
    )
    for _ in range(starting - 1):
        scene.agent("t", Phase.CONNECTING, age_s=5)
    assert B == placed(scene)
    scene.agent("t", Phase.CONNECTING, age_s=5)
    said = f"local: template t as it is now has brought {words}"
    assert (R.TRIAL, said, None) == whole(scene)


@pytest.mark.parametrize("scope", [Scope.TEMPLATE, Scope.BACKEND])
@pytest.mark.parametrize(("window", "asked"), [(1, "1 start is"), (2, "2 starts are")])
def test_what_is_said_of_starts_that_are_not_answered(scope, window, asked):
    """As many as the platform has taken before; one given back makes room for one."""
    scene = Scene(template("t"))
    room = capacity.count(scene.world(), scene.policy, ())
    (t,) = scene.policy.templates
    windows = {ledgers.key_of(scope, B, t.name): window}
    room.ledger = attrs.evolve(room.ledger, windows=windows)
    for _ in range(window):
        assert B == capacity.place(room, t)
        room.take(t, B)
    words = f"local: {asked} not answered yet: more follow when the platform has taken these"
    assert capacity.Shortage(reason=R.CAP_STARTING, text=words) == capacity.place(room, t)
    room.give_back(t, B)
    assert B == capacity.place(room, t)


@pytest.mark.parametrize(
    ("failures", "revision", "other", "waits"),
    [
        (2, "r1", "t", True),
        (2, "", "t", True),
        (1, "r1", "t", False),  # one unlucky start
        (2, "r0", "t", False),  # of another definition
        (2, "r1", "u", False),  # of another template
    ],
)
def test_after_starts_that_failed_in_a_row_one_goes_first(failures, revision, other, waits):
    """Until the platform has answered; one alone, or another template's, slows nobody."""
    scene = Scene(template("t"), template("u"))
    scene.backoff(Scope.LAUNCH, other, failures=failures, for_s=0.0)
    ((key, backoff),) = scene.ledger.backoffs.items()
    told = attrs.evolve(backoff, revision=revision)
    scene.ledger = attrs.evolve(scene.ledger, backoffs={key: told})
    room = capacity.count(scene.world(), scene.policy, ())
    t = scene.policy.templates[0]
    assert B == capacity.place(room, t)
    room.take(t, B)
    words = "local: 2 starts of template t failed in a row, and one is tried first: said so"
    refused = capacity.Shortage(reason=R.BACKOFF, text=words)
    assert capacity.place(room, t) == (refused if waits else B)


# --- one first after a failure ---

GIVEN_NOTHING = {"closed_at": NOW - 9, "closed_looks": model.CLOSED_LOOKS}


@each(
    ("cause", "failures", "there", "tried"),
    [
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE}, True),
        (model.Cause.CLOSED, 1, {"phase": Phase.CONNECTING, "age_s": 5}, True),
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE, "builds": 1}, False),
        (model.Cause.CLOSED, 1, {"phase": Phase.BUSY}, False),
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE, **GIVEN_NOTHING}, False),
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE, "backend": C}, False),
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE, "template_name": "u"}, False),
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE, "known": False}, True),
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE, "online_at": NOW - 300}, False),
        (model.Cause.CLOSED, 1, {"phase": Phase.IDLE, "online_at": NOW - 299}, True),
        (model.Cause.LOST_EXITED, 1, {"phase": Phase.IDLE}, False),
        (model.Cause.LOST_EXITED, 1, {"phase": Phase.CONNECTING, "age_s": 5}, True),
        (model.Cause.LOST_EXITED, 0, {"phase": Phase.CONNECTING, "age_s": 5}, False),
        (model.Failure.NO_CAPACITY, 1, {"phase": Phase.CONNECTING, "age_s": 5}, False),
    ],
)
def test_one_goes_first_after_a_failure(cause, failures, there, tried):
    """Until it is online; where others came online and were closed, until it is at work."""
    scene = Scene(T, template("u"), backoff_max_s=300.0)
    scene.agent(**{"template_name": "t", "age_s": 100.0, **there})
    scene.backoff(Scope.TEMPLATE, "t", cause=cause, failures=failures, for_s=0.0)
    scene.policy = attrs.evolve(
        scene.policy, templates=(template("t"), *scene.policy.templates[1:])
    )
    words = "local: one agent of t is tried first after a failure: said so"
    if tried:
        assert (R.SET_ASIDE, words, None) == whole(scene)
    else:
        assert B == placed(scene)


# --- of whom it is said that they serve nobody, or leave ---


def test_only_who_fills_a_cap_is_told_of():
    """Of the template, of the backend, or of all."""
    scene = Scene(template("t", cap=2), template("u", backends=(C,)))
    held = scene.agent("t", Phase.HELD)
    scene.agent("t", Phase.BUSY)
    elsewhere = scene.agent("u", Phase.HELD, backend=C)
    told = f"; of these serve nobody: {held} is held for 0 s"

    def said(**policy):
        scene.policy = attrs.evolve(scene.policy, **policy)
        return placed(scene).text

    assert f"template t has 2 of 2 agents{told}" == said()
    uncapped = tuple(attrs.evolve(t, cap=None) for t in scene.policy.templates)
    limits = {B: model.BackendPolicy(cap=2)}
    assert f"local: 2 of 2 agents on it{told}" == said(templates=uncapped, backends=limits)
    assert f"3 of 3 agents in all{told}, {elsewhere} is held for 0 s" == said(cap=3)


def test_who_leaves_is_told_of_where_it_fills_the_cap():
    """Not where another template's agents do."""
    scene = Scene(template("t", cap=1), template("u"))
    scene.agent("t", Phase.BUSY)
    scene.agent("u", Phase.LOST, exit=backends_api.Exit(slug="exited", code=0))
    assert "template t has 1 of 1 agent" == placed(scene).text


def test_what_was_said_to_one_is_not_said_to_another():
    """Many are refused alike, not all; and who is passed over is known later."""
    scene = Scene(template("t", cap=1), template("u", cap=1), template("v", cap=1))
    held = scene.agent("t", Phase.HELD)
    leaves = scene.agent("u", Phase.LOST, exit=backends_api.Exit(slug="exited", code=0))
    idle = scene.agent("v", Phase.IDLE)
    found, ledger, _ = agents_.observe(scene.world(), scene.policy)
    room = capacity.count(attrs.evolve(scene.world(), ledger=ledger), scene.policy, found)
    nobody = "; of these serve nobody"
    full = "1 of 1 agent"

    def said():
        return [capacity.place(room, t).text for t in scene.policy.templates]

    first = [
        f"template t has {full}{nobody}: {held} is held for 0 s",
        f"template u has {full}, 1 of them leaving for 0 s",
        f"template v has {full}",
    ]
    assert first == said()
    assert leaves in {agent.name for agent in room.going}
    room.passed_over[idle] = "is kept"
    assert [*first[:2], f"{first[2]}{nobody}: {idle} is kept"] == said()


def test_each_of_a_plan_counts():
    """Taken three times and given back once is twice."""
    scene = Scene(template("t"))
    room = capacity.count(scene.world(), scene.policy, ())
    (t,) = scene.policy.templates
    for times in (1, 2, 3):
        room.take(t, B)
        assert {times} == _counts(room)
    room.give_back(t, B)
    assert {2} == _counts(room)


def _counts(room):
    return {
        room.by_template["t"],
        room.by_backend[B],
        room.starting_by_backend[B],
        room.starting_by_pair["t", B, frozenset()],
        room.taken_by_backend[B],
        room.ordered_by_template["t"],
        *room.asked.values(),
    }


def test_what_was_never_seen_takes_room_while_it_is_ordered():
    """And what is gone for good takes none."""
    agent = model.Agent(name=model.NodeName("o-t-1"), phase=Phase.GONE)
    order = model.Expectation(
        verb=model.Verb.LAUNCH, name=agent.name, template=None, backend=B, since_at=NOW,
        expires_at=NOW + 9,
    )  # fmt: skip
    assert not capacity.takes_room(agent)
    assert capacity.takes_room(attrs.evolve(agent, expectation=order))
