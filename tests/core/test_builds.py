"""Builds that fail at once: whom they blame, and whom nothing may make them blame."""

import random

import attrs
import pytest

from broker.core import model
from broker.core.fleet import builds, places
from broker.core.model import NodeName, Phase
from tests.core import worlds
from tests.core.worlds import NOW, B
from tests.each import each

NORTH, SOUTH = "north", "south"


class Farm:
    """Agents at places, and builds that begin on whoever is free first, seen once a second."""

    def __init__(self, *, seed, agents_at, jobs, fails, broken=(), lasts_s=(15.0, 60.0)):
        self.dice = random.Random(seed)
        self.fails, self.jobs, self.broken, self.lasts_s = fails, jobs, broken, lasts_s
        self.scene = worlds.Scene(worlds.template("t"))
        for place, count in agents_at.items():
            for _ in range(count):
                self.scene.agent("t", Phase.IDLE)
                self.scene.instances[B][-1] = attrs.evolve(
                    self.scene.instances[B][-1], place=place
                )
        self.agents = {a.name: a for a in self.scene.plan().agents}
        self.running = {}  # agent to url, end, result, duration
        self.results = {}
        self.watch = builds.Watch()
        self.ledger = model.Ledger()
        self.now, self.number, self.asked = NOW, 0, []

    def second(self):
        """Let a second pass, look, and answer what is asked."""
        self.now += 1.0
        for name in [n for n, (_, end) in self.running.items() if end <= self.now]:
            del self.running[name]
        free = [name for name in self.agents if name not in self.running]
        self.dice.shuffle(free)
        for name in free:
            self._begin(name)
        agents = [
            attrs.evolve(
                agent,
                computer=attrs.evolve(
                    agent.computer,
                    executable_urls=(self.running[name][0],) if name in self.running else (),
                ),
            )
            for name, agent in self.agents.items()
        ]
        view = model.ControllerView(synced=True, session="s1", read_at=self.now)
        world = model.World(now=self.now, controller=view, backends={})
        self.watch, fates, questions = builds.look(self.watch, world, agents)
        self.ledger = builds.forget(builds.noted(self.ledger, fates), now=self.now)
        for one in questions:
            self.asked.append(self.now)
            result, duration_s = self.results[one.build.url]
            fate = builds.learn(one, result=result, duration_s=duration_s)
            self.ledger = builds.noted(self.ledger, () if fate is None else (fate,))

    def _begin(self, name):
        self.number += 1
        job = self.dice.randrange(self.jobs)
        place = self.agents[name].instance.place
        fails = place in self.broken or self.dice.random() < self.fails(job, self.now - NOW)
        lasts_s = self.dice.uniform(1.0, 8.0) if fails else self.dice.uniform(*self.lasts_s)
        url = f"http://c/job/j{job}/{self.number}/"
        self.results[url] = ("FAILURE" if fails else "SUCCESS", lasts_s)
        self.running[name] = (url, self.now + lasts_s)

    def until_blamed(self, within_s):
        """Return whom somebody blames, and after how many seconds."""
        for passed in range(int(within_s)):
            self.second()
            if passed % 10:
                continue
            if suspects := builds.suspect_places(self.ledger.build_fates):
                return [place for _, place in suspects], passed
        return [], within_s


@pytest.mark.parametrize("agents", [{NORTH: 1, SOUTH: 3}, {NORTH: 2, SOUTH: 2, "west": 2}])
def test_a_broken_host_is_found(agents):
    """Every build there fails at once, and it draws most of them; nobody else is blamed."""
    farm = Farm(seed=1, agents_at=agents, jobs=5, fails=lambda *_: 0.05, broken={NORTH})
    blamed, after_s = farm.until_blamed(1000)
    assert [NORTH] == blamed
    assert after_s < 900


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("lasts_s", [(1.0, 8.0), (15.0, 60.0)])
def test_a_farm_of_short_failing_tests_blames_nobody(share, lasts_s):
    """Jobs that fail often, or nearly always, do so everywhere."""
    farm = Farm(
        seed=7, agents_at={NORTH: 1, SOUTH: 3}, jobs=4, fails=lambda *_: share, lasts_s=lasts_s
    )
    assert [] == farm.until_blamed(1000)[0]


def test_what_breaks_all_jobs_for_a_while_blames_nobody():
    """A repository is away for two minutes, again and again: who is free then fails them all."""
    farm = Farm(
        seed=3,
        agents_at={NORTH: 1, SOUTH: 3},
        jobs=6,
        fails=lambda _, passed_s: 1.0 if passed_s % 400 < 120 else 0.02,
        lasts_s=(60.0, 200.0),
    )
    assert [] == farm.until_blamed(1000)[0]


def test_a_commit_that_breaks_a_job_blames_nobody():
    """From one moment on every build of it fails, wherever it runs."""
    farm = Farm(
        seed=5,
        agents_at={NORTH: 1, SOUTH: 1},
        jobs=3,
        fails=lambda job, passed_s: 1.0 if job and passed_s > 300 else 0.02,
    )
    assert [] == farm.until_blamed(900)[0]


def test_few_are_asked_about():
    """Twenty a minute at most, however many builds are short; and of long ones nobody asks."""
    agents = {NORTH: 6, SOUTH: 6}
    farm = Farm(seed=2, agents_at=agents, jobs=3, fails=lambda *_: 0.0, lasts_s=(1.0, 5.0))
    farm.until_blamed(180)
    assert builds.WAITING >= len(farm.watch.questions)
    for begin in range(120):
        within = [at for at in farm.asked if begin <= at - NOW < begin + 60]
        assert len(within) <= builds.ASKED_A_MINUTE
    assert len(farm.asked) >= 2 * builds.ASKED_A_MINUTE
    farm = Farm(seed=2, agents_at=agents, jobs=3, fails=lambda *_: 0.0, lasts_s=(15.0, 60.0))
    farm.until_blamed(180)
    assert [] == farm.asked


def fates(times, *, jobs=2, backend=B, north="north-1", south="south-1"):
    """Return so many comparisons that speak against the north, ten seconds apart, up to NOW."""
    made = []
    for n in range(times):
        job, since_at = f"j{n % jobs}", NOW - 10.0 * (times - n)
        for name, place, bad, later in ((north, NORTH, True, 0.0), (south, SOUTH, False, 1.0)):
            made.append(
                model.BuildFate(
                    backend=backend,
                    place=place,
                    agent=NodeName(name),
                    job=job,
                    since_at=since_at + later,
                    bad=bad,
                )
            )
    return tuple(made)


@pytest.mark.parametrize(
    ("told", "blamed"),
    [
        (fates(builds.LEAST_SCORE - 1), []),
        (fates(builds.LEAST_SCORE), [NORTH]),
        (fates(builds.LEAST_SCORE, jobs=1), []),
    ],
    ids=["too few", "enough", "of one job"],
)
def test_it_takes_so_many_comparisons_of_several_jobs(told, blamed):
    """Each side of every number; an agent is judged as a place is."""
    assert blamed == [place for _, place in builds.suspect_places(told)]
    assert ["north-1"] * len(blamed) == list(builds.suspect_agents(told))


def test_a_place_is_avoided_and_judged_anew_when_its_time_is_over():
    """With the words; what it was avoided for counts once."""
    ledger = model.Ledger(build_fates=fates(builds.LEAST_SCORE))
    known = {B: (NORTH, SOUTH)}
    after, only = places.judge(ledger, known, now=NOW)
    ((key, why),) = places.avoided(after, now=NOW).items()
    assert ((B, NORTH), ()) == (key, tuple(only))
    assert "14 times a build on agents there failed within 10 s" in why.reason
    later, _ = places.judge(after, known, now=NOW + places.AVOID_S)
    assert {} == places.avoided(later, now=NOW + places.AVOID_S)
    alone, (only,) = places.judge(ledger, {B: (NORTH,)}, now=NOW)
    del alone
    assert NORTH == only.place, "the last one stays in use, and that is said"


def test_an_agent_that_ends_there_as_badly_as_elsewhere_takes_no_blame_of_builds_back():
    """What its template does elsewhere speaks of the template; the host fails builds all the same."""
    end = model.AgentFate(
        backend=B, place=NORTH, template="t", revision="r1", at=NOW - 50, came=False, bad="it died"
    )
    ends = {"a": end, "b": attrs.evolve(end, place=SOUTH)}
    ledger = model.Ledger(build_fates=fates(builds.LEAST_SCORE), fates=ends)
    for now in (NOW, NOW + 1, NOW + places.AVOID_S - 1):
        ledger, _ = places.judge(ledger, {B: (NORTH, SOUTH)}, now=now)
        assert {(B, NORTH)} == places.avoided(ledger, now=now).keys()


@pytest.mark.parametrize(
    ("phase", "kind"), [(Phase.BUSY, model.CordonAgent), (Phase.IDLE, model.CordonAgent)]
)
def test_an_agent_on_which_builds_fail_takes_no_more(phase, kind):
    """Its build is the last; others at its place stay, as long as theirs do well."""
    scene = worlds.Scene(worlds.template("t"))
    suspect, other = scene.agent("t", phase), scene.agent("t", phase)
    told = fates(builds.LEAST_SCORE, north=suspect, south=other)
    scene.ledger = attrs.evolve(
        scene.ledger, build_fates=tuple(attrs.evolve(one, place="") for one in told)
    )
    if phase is Phase.IDLE:
        scene.wait(worlds.item(1, "t"), worlds.item(2, "t"))
    done = worlds.actions(scene.plan(), kind)
    assert [suspect] == list(done)
    assert model.Cause.BLACK_HOLE is done[suspect].cause
    assert "14 times a build on it failed" in done[suspect].reason


@each(
    ("result", "duration_s", "seen_s", "expected"),
    [
        ("FAILURE", 4.0, 4.0, True),
        ("FAILURE", 4.0, 0.0, True),
        ("FAILURE", 300.0, 4.0, True),  # a Pipeline that waited for its agent
        ("FAILURE", 40.0, 0.0, False),
        ("SUCCESS", 4.0, 4.0, False),
        ("UNSTABLE", 4.0, 4.0, False),
        ("ABORTED", 4.0, 4.0, None),
        ("NOT_BUILT", 4.0, 4.0, None),
        ("", 0.0, 4.0, None),
        ("SOMETHING_NEW", 4.0, 4.0, None),
    ],
)
def test_only_a_failure_that_came_soon_is_bad(result, duration_s, seen_s, expected):
    """Whoever was aborted, or runs on, says nothing."""
    seen = builds.SeenBuild(
        agent=NodeName("a"), backend=B, template=None, place=NORTH,
        url="http://c/job/x/7/", since_at=NOW,
    )  # fmt: skip
    ended = builds.GoneBuild(build=seen, gone_at=NOW + seen_s)
    fate = builds.learn(ended, result=result, duration_s=duration_s)
    assert expected == (fate.bad if fate is not None else None)
    assert fate is None or "x" not in fate.job, "no name of a job is kept"


def test_a_restart_of_the_controller_and_what_is_unknown_blame_nobody():
    """What ended with it was not its agent's fault; a view that is not there shows no end."""
    scene = worlds.Scene(worlds.template("t"))
    scene.agent("t", Phase.BUSY)
    agents = scene.plan().agents
    watch, _, _ = builds.look(builds.Watch(), scene.world(), agents)
    watch = attrs.evolve(watch, session="s1")
    assert 1 == len(watch.at_work)
    idle = [attrs.evolve(a, computer=attrs.evolve(a.computer, executable_urls=())) for a in agents]
    world = scene.world()
    unknown = attrs.evolve(world.controller, synced=False)
    restarted = attrs.evolve(world.controller, session="s2")
    odd = attrs.evolve(world.controller, odd_nameless=True)
    for view in (unknown, restarted, odd):
        after, _, _ = builds.look(watch, attrs.evolve(world, controller=view), idle)
        assert () == after.questions
    after, _, _ = builds.look(watch, world, idle)
    assert 1 == len(after.questions)
