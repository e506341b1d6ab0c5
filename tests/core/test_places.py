"""Places where agents end too soon: who blames a place, and when it is left alone."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import places
from broker.core.model import BackendName, NodeName, Phase, TemplateName
from tests.core import worlds
from tests.core.worlds import NOW, B
from tests.each import each

NORTH, SOUTH = "north", "south"
BOTH = {B: (NORTH, SOUTH)}


def fates(*told):
    """Return fates from (place, how many, bad) or (..., template); a second apart, up to NOW."""
    made = {}
    for place, count, bad, *more in told:
        for _ in range(count):
            name = NodeName(f"a{len(made)}")
            made[name] = model.AgentFate(
                backend=B,
                place=place,
                template=TemplateName(more[0] if more else "linux"),
                revision="r1",
                at=NOW - 100.0 + len(made),
                came=bad == "in its build" or not bad,
                bad=bad,
            )
    return made


def ledger(*told, proved=("linux",), **more):
    """Return a ledger with these fates, where these templates have been online before."""
    templates = [worlds.template(name) for name in proved]
    return model.Ledger(fates=fates(*told), trials=worlds.trials(templates), **more)


def avoided(after, now=NOW):
    return sorted(place for _, place in places.avoided(after, now=now))


def judged(*told, known=BOTH, **more):
    return places.judge(ledger(*told, **more), known, now=NOW)


BAD = "it did not come online within its deadline"


@each(
    ("told", "expected"),
    [
        ([(NORTH, 3, BAD), (SOUTH, 5, "")], []),
        ([(NORTH, 4, BAD), (SOUTH, 5, "")], [NORTH]),
        ([(NORTH, 4, BAD), (NORTH, 1, ""), (SOUTH, 5, "")], [NORTH]),
        ([(NORTH, 4, BAD), (NORTH, 2, ""), (SOUTH, 5, "")], []),
        ([(NORTH, 4, BAD), (SOUTH, 3, BAD), (SOUTH, 3, "")], []),
        ([(NORTH, 4, BAD), (SOUTH, 1, BAD), (SOUTH, 3, "")], [NORTH]),
        ([(NORTH, 4, BAD), (SOUTH, 4, BAD)], []),
        ([(NORTH, 4, BAD, "one"), (SOUTH, 9, "", "two")], []),
        (
            [(NORTH, 4, BAD, "one"), (SOUTH, 9, BAD, "one"), (NORTH, 4, BAD), (SOUTH, 2, "")],
            [NORTH],
        ),
        ([(NORTH, 4, "in its build"), (SOUTH, 4, "")], [NORTH]),
        ([(NORTH, 4, "in its build")], []),
        ([(NORTH, 4, BAD)], [NORTH]),
    ],
    ids=[
        "too few",
        "enough",
        "most of all",
        "not most",
        "elsewhere half",
        "elsewhere a quarter",
        "bad everywhere",
        "another template fares well",
        "two templates, one of them bad everywhere",
        "in builds",
        "in builds, and nothing to compare with",
        "starts of what has been online before",
    ],
)
def test_a_place_is_avoided_for_what_goes_better_elsewhere(told, expected):
    """Each side of every number."""
    after, only = judged(*told)
    assert (expected, []) == (avoided(after), list(only))


def test_a_definition_that_has_never_been_online_blames_no_place():
    """Where it was tried nowhere else it may be wrong itself; another revision proves nothing."""
    assert [] == avoided(judged((NORTH, 9, BAD), proved=())[0])
    old = ledger((NORTH, 9, BAD))
    changed = {key: attrs.evolve(trial, revision="r0") for key, trial in old.trials.items()}
    after, _ = places.judge(attrs.evolve(old, trials=changed), BOTH, now=NOW)
    assert [] == avoided(after)


def test_the_only_place_of_a_backend_is_told_and_not_avoided():
    """Also the last one that is left: a backend is never emptied."""
    after, (only,) = judged((NORTH, 4, BAD), known={B: (NORTH,)})
    assert ([], NORTH) == (avoided(after), only.place)
    assert "4 of the last 4 agents on north ended too soon" in only.text
    first, _ = judged((NORTH, 4, BAD))
    more = attrs.evolve(
        first,
        fates={**first.fates, **{f"b{n}": attrs.evolve(one, place=SOUTH, template="other")
                                 for n, one in enumerate(first.fates.values())}},
        trials={**first.trials, **worlds.trials([worlds.template("other")])},
    )  # fmt: skip
    after, (only,) = places.judge(more, BOTH, now=NOW)
    assert ([NORTH], SOUTH) == (avoided(after), only.place)


def test_after_its_time_it_is_used_again_and_needs_new_ends():
    """What it was avoided for counts once."""
    after, _ = judged((NORTH, 4, BAD), (SOUTH, 4, ""))
    later = NOW + places.AVOID_S
    assert [NORTH] == avoided(after, later - 1)
    after, _ = places.judge(after, BOTH, now=later)
    assert [] == avoided(after, later)
    new = {f"n{n}": attrs.evolve(one, at=later + n) for n, one in
           enumerate(fates((NORTH, 4, BAD)).values())}  # fmt: skip
    after, _ = places.judge(attrs.evolve(after, fates=new), BOTH, now=later + 9)
    assert [NORTH] == avoided(after, later + 9)


def test_a_blame_that_proves_wrong_is_taken_back_at_once():
    """The template fares as badly where it went instead; that place is not blamed either."""
    after, _ = judged((NORTH, 4, BAD))
    assert [NORTH] == avoided(after)
    elsewhere = {f"s{n}": attrs.evolve(one, place=SOUTH) for n, one in
                 enumerate(fates((NORTH, 4, BAD)).values())}  # fmt: skip
    after, only = places.judge(
        attrs.evolve(after, fates={**after.fates, **elsewhere}), BOTH, now=NOW + 60
    )
    assert ([], []) == (avoided(after, NOW + 60), list(only))


def test_a_blame_is_not_taken_back_for_want_of_fresh_news():
    """Nobody started anything since: what was learnt holds for its whole time."""
    after, _ = judged((NORTH, 4, "in its build"), (SOUTH, 4, ""))
    late = NOW + places.AVOID_S - 1
    for now in (NOW + 600, late):
        after, _ = places.judge(after, BOTH, now=now)
    assert [NORTH] == avoided(after, late)


def test_what_a_place_has_cost_its_templates_is_forgotten_with_it():
    """They are tried elsewhere at once; a refusal that is the template's own stays."""
    pair = model.BackoffKey(scope=model.Scope.TEMPLATE, backend=B, template="linux")
    backoff = model.Backoff(
        failures=3, until_at=NOW + 99, reason="it died", cause=model.Cause.LOST_EXITED
    )
    refused = attrs.evolve(backoff, cause=model.Failure.REJECTED)
    for before, stays in ((backoff, False), (refused, True)):
        after, _ = judged((NORTH, 4, BAD), (SOUTH, 4, ""), backoffs={pair: before})
        assert stays == (pair in after.backoffs)


def test_old_fates_are_dropped():
    """What is longer ago than it counts is not kept."""
    after, _ = places.judge(
        ledger((NORTH, 2, BAD)), BOTH, now=NOW + places.WINDOW_S + places.AVOID_S + 1
    )
    assert {} == after.fates


# --- how an agent fared ---


def fate_of(scene):
    """Return bad, came and place of the one agent that a look has told of, or None."""
    made = scene.plan()
    return [(bool(one.bad), one.came, one.place) for one in made.ledger.fates.values()]


def scene_of(phase, *, exit=None, place=NORTH, state=None, **more):
    scene = worlds.Scene(worlds.template("linux"))
    scene.agent("linux", phase, exit=exit, **more)
    (instance,) = scene.instances[B]
    scene.instances[B] = [
        attrs.evolve(instance, place=place, **({"state": state} if state else {}))
    ]
    return scene


def ended(slug="exited", code=1):
    return backends_api.Exit(slug=slug, code=code)


@each(
    ("scene", "expected"),
    [
        (lambda: scene_of(Phase.CONNECTING, age_s=60.0), []),
        (lambda: scene_of(Phase.CONNECTING, age_s=600.0), [(True, False, NORTH)]),
        (lambda: scene_of(Phase.LOST, exit=ended()), [(True, False, NORTH)]),
        (lambda: scene_of(Phase.LOST, exit=ended(code=0)), [(True, False, NORTH)]),
        (lambda: scene_of(Phase.LOST, exit=ended("evicted")), []),
        (lambda: scene_of(Phase.LOST, exit=ended(), place=""), []),
        (lambda: scene_of(Phase.IDLE), [(False, True, NORTH)]),
        (lambda: scene_of(Phase.BUSY), [(False, True, NORTH)]),
        (lambda: scene_of(Phase.BUSY, exit=ended(), phase_at=NOW - 5), [(True, True, NORTH)]),
        (lambda: scene_of(Phase.BUSY, exit=ended(), phase_at=NOW - 31), [(False, True, NORTH)]),
        (lambda: scene_of(Phase.BUSY, exit=ended(code=0), phase_at=NOW - 5),
         [(False, True, NORTH)]),
        (lambda: scene_of(Phase.BUSY, exit=ended("out-of-memory", -9), phase_at=NOW - 5),
         [(False, True, NORTH)]),
        (lambda: scene_of(Phase.BUSY, exit=ended(), phase_at=NOW - 5, cordoned=True),
         [(True, True, NORTH)]),
        (lambda: scene_of(Phase.DRAINED, exit=ended(), online_at=NOW - 9), [(False, True, NORTH)]),
        (lambda: scene_of(Phase.LOST, exit=ended(), known=False), []),
    ],
    ids=[
        "may come yet",
        "too late",
        "ended before",
        "ended before, well",
        "evicted",
        "nowhere in particular",
        "came",
        "works",
        "ended in its first seconds of a build",
        "ended later",
        "ended well",
        "a build took too much memory",
        "ended in the first seconds of its last build",
        "was at its end",
        "not seen before",
    ],
)  # fmt: skip
def test_how_an_agent_fared(scene, expected):
    """As one look tells it."""
    assert expected == fate_of(scene())


def test_who_was_online_and_dies_in_its_next_build_has_ended_badly():
    """The first verdict is only as good as the last."""
    first = model.AgentFate(
        backend=B, place=NORTH, template=TemplateName("linux"), revision="r1", at=1.0, came=True
    )
    kept = {}
    for number, bad in enumerate(("", "", "first", "second", "")):
        places.note(kept, NodeName("a"), attrs.evolve(first, at=float(number), bad=bad))
    assert ("first", 2.0) == (kept["a"].bad, kept["a"].at)


# --- what follows ---


def black_hole(scene, place=NORTH, blame=model.Blame.AGENTS):
    """Leave a place alone from now on."""
    key = model.BackoffKey(scope=model.Scope.PLACE, backend=B, place=place)
    backoff = model.Backoff(
        failures=4,
        until_at=NOW + 600,
        reason="they die there",
        cause=model.Cause.BLACK_HOLE,
        blame=blame,
    )
    scene.ledger = attrs.evolve(scene.ledger, backoffs={**scene.ledger.backoffs, key: backoff})
    return scene


def test_an_idle_agent_there_is_given_nothing_more_and_its_item_another_agent():
    """It is taken out of service though it is wanted; the launch is told where not to go."""
    scene = black_hole(scene_of(Phase.IDLE))
    scene.wait(worlds.item(1, "linux"))
    made = scene.plan()
    (name,) = [agent.name for agent in made.agents]
    cordon, launch = sorted(made.actions, key=lambda a: type(a).__name__)
    assert (name, model.Cause.BLACK_HOLE) == (cordon.name, cordon.cause)
    assert (NORTH,) == launch.avoid
    assert "they die there" in cordon.reason
    elsewhere = black_hole(scene_of(Phase.IDLE, place=SOUTH))
    elsewhere.wait(worlds.item(1, "linux"))
    assert () == elsewhere.plan().actions


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BUSY])
def test_where_starts_alone_fail_whoever_is_online_goes_on(phase):
    """It has shown that it can; the next start is told to go elsewhere."""
    scene = black_hole(scene_of(phase), blame=model.Blame.STARTS)
    scene.wait(worlds.item(1, "linux"))
    if phase is Phase.BUSY:
        (launch,) = scene.plan().actions
        assert (NORTH,) == launch.avoid
    else:
        assert () == scene.plan().actions
    scene = black_hole(scene_of(Phase.CONNECTING, age_s=5.0), blame=model.Blame.STARTS)
    scene.wait(worlds.item(1, "linux"))
    kinds = sorted(type(action).__name__ for action in scene.plan().actions)
    assert ["LaunchAgent", "RetireAgent"] == kinds


@pytest.mark.parametrize(
    ("online", "blame"), [(0, "starts"), (1, "starts"), (2, "agents"), (4, "agents")]
)
def test_what_a_place_is_blamed_for_is_kept_with_it(online, blame):
    """One agent that was online may have died of anything."""
    after, _ = judged((NORTH, 4 - online, BAD), (NORTH, online, "in its build"), (SOUTH, 4, ""))
    (backoff,) = places.avoided(after, now=NOW).values()
    assert model.Blame(blame) is backoff.blame


def test_the_build_there_is_its_last():
    """It runs to its end."""
    scene = black_hole(scene_of(Phase.BUSY))
    (action,) = scene.plan().actions
    assert isinstance(action, model.CordonAgent)


def test_one_that_is_starting_there_is_not_waited_for():
    """It is ended, and another one is ordered."""
    scene = black_hole(scene_of(Phase.CONNECTING, age_s=5.0))
    scene.wait(worlds.item(1, "linux"))
    kinds = sorted(type(action).__name__ for action in scene.plan().actions)
    assert ["LaunchAgent", "RetireAgent"] == kinds


def test_what_a_person_holds_there_is_left_alone():
    """Whoever holds it wants it kept as it is."""
    scene = black_hole(scene_of(Phase.HELD))
    assert () == scene.plan().actions


def test_an_item_that_finds_no_room_is_told_which_places_are_avoided():
    """With the reason, for a person may put it right."""
    scene = black_hole(worlds.Scene(worlds.template("linux")))
    scene.capacity[B] = backends_api.Capacity(free_instances=0, places=(NORTH, SOUTH))
    scene.wait(worlds.item(1, "linux"))
    (unmet,) = scene.plan().unmet
    assert unmet.reason is model.WaitReason.NO_ROOM
    assert "north is avoided: they die there" in unmet.text


def test_a_backend_whose_only_place_is_bad_says_so_and_goes_on():
    """In a refusal, which is on the page; nobody is taken out of service."""
    scene = worlds.Scene(worlds.template("linux"))
    scene.ledger = attrs.evolve(scene.ledger, fates=fates((NORTH, 4, BAD)))
    scene.wait(worlds.item(1, "linux"))
    made = scene.plan()
    (said,) = [one.text for one in made.refusals if one.subject == f"{B} {NORTH}"]
    assert "it stays in use" in said
    (launch,) = made.actions
    assert () == launch.avoid


def test_another_backend_has_its_own_places():
    """The same name elsewhere is another place."""
    after, _ = judged((NORTH, 4, BAD), (SOUTH, 4, ""))
    assert {(B, NORTH)} == set(places.avoided(after, now=NOW))
    assert (BackendName("far"), NORTH) not in places.avoided(after, now=NOW)
