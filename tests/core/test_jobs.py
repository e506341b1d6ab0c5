"""For which jobs a template is: names of jobs, patterns, and what follows for waiting items."""

from broker import recording
from broker.core.decide import explain
from broker.core.demand import globs, jobs
from broker.core.model import LaunchAgent, Phase, WaitReason
from tests.core.worlds import Scene, item, template
from tests.each import each

ROOT = "https://ci.example.com/jenkins"


@each(
    ("pattern", "name", "expected"),
    [
        ("team-a/**", "team-a/app", True),
        ("team-a/**", "team-a/lib/main", True),
        ("team-a/**", "team-a", False),
        ("team-a/**", "team-ab/app", False),
        ("team-a/*", "team-a/app", True),
        ("team-a/*", "team-a/lib/main", False),
        ("*/release", "team-a/release", True),
        ("**/release", "a/b/release", True),
        ("**", "anything/at all", True),
        ("app-?", "app-1", True),
        ("app-?", "app-/", False),
        ("golang:*", "golang:1.22", True),
        ("golang:*", "golang:1/2", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("", "", True),
        ("*", "", True),
        ("a*b*c", "aXbYbc", True),
        ("a**c", "a/b/c/d", False),
    ],
)
def test_patterns(pattern, name, expected):
    """A star does not cross a slash, two do; everything else stands for itself."""
    assert globs.matches(pattern, name) is expected


def test_a_pattern_of_stars_is_read_in_steps():
    """Whoever writes it, and whatever name it meets: a walk, and no search."""
    assert not globs.matches("*a" * 120, "a" * 1000 + "b")
    assert globs.matches("**a" * 80, "a" * 1000)


@each(
    ("url", "name"),
    [
        (f"{ROOT}/job/app/", "app"),
        (f"{ROOT}/job/team-a/job/app/", "team-a/app"),
        (f"{ROOT}/job/team-a/job/app/17/", "team-a/app"),
        ("job/team-a/job/repo/job/feature%252Fx/3/", "team-a/repo/feature%2Fx"),
        (f"{ROOT}/job/mx/PY=3.9,label=mx-win/", "mx"),
        ("https://job/job/app/", "app"),
        (f"{ROOT}/job/job/job/job/", "job/job"),
        (f"{ROOT}/job/a%20b/", "a b"),
        (f"{ROOT}/job/a%1B%5B1m/job/%E2%80%AEb/", "a\ufffd[1m/\ufffdb"),
        (f"{ROOT}/job/team-a%E2%80%A8/job/x/", "team-a\ufffd/x"),
        (f"{ROOT}/job/a%20%20b/", "a  b"),
        (f"{ROOT}/computer/x/", ""),
        ("", ""),
    ],
)
def test_names_of_jobs(url, name):
    """A build, a step of a Pipeline and a cell of a matrix are of their job."""
    assert jobs.name_of(url) == name


def _item(number, job, label="linux", **more):
    return item(number, label, task_url=f"{ROOT}/{job}" if job else "", **more)


TEAM = template("team", "linux", only_for=("team-a/**",), not_for=("team-a/secret/**",))


def test_a_template_is_ordered_for_its_jobs_alone():
    """All kinds of tasks, by the full name of their job; the others are told whose it is."""
    scene = Scene(TEAM)
    scene.items += [
        _item(1, "job/team-a/job/app/"),
        _item(2, "job/team-a/job/pipe/7/", task_class="x.ExecutorStepExecution$PlaceholderTask"),
        _item(3, "job/team-a/job/mx/A=1/", task_class="hudson.matrix.MatrixConfiguration"),
        _item(4, "job/team-b/job/app/"),
        _item(5, "job/team-a/job/secret/job/app/"),
    ]
    plan = scene.plan()
    assert {a.item for a in plan.actions if isinstance(a, LaunchAgent)} == {1, 2, 3}
    unmet = {one.item: one for one in plan.unmet}
    assert {n for n, one in unmet.items() if one.reason is WaitReason.NOT_FOR_JOB} == {4, 5}
    text = "template team is for team-a/** only, not for team-a/secret/**"
    assert unmet[4].text == f"it is of job team-b/app, and {text}"
    assert unmet[5].text == f"it is of job team-a/secret/app, and {text}"


def test_a_name_in_a_reason_may_be_shown():
    """It is decoded behind the door that cleans what the controller tells."""
    scene = Scene(TEAM)
    scene.wait(_item(1, "job/%1B%5B31m%E2%80%AEx%0Aforged/1/"))
    (unmet,) = scene.plan().unmet
    assert unmet.reason is WaitReason.NOT_FOR_JOB
    assert unmet.text.isprintable()


def test_whose_name_is_not_told_is_refused():
    """Old Pipeline plugins export no address: neither side of a restriction lets it in."""
    scene = Scene(TEAM, template("rest", "other", not_for=("team-a/**",)))
    scene.items += [_item(1, ""), _item(2, "", label="other")]
    plan = scene.plan()
    assert not plan.actions
    assert {one.reason for one in plan.unmet} == {WaitReason.JOB_UNREADABLE}
    assert "2.38" in plan.unmet[0].text


def test_another_template_serves_those_of_others():
    """Preference as ever, but for templates that are not for the job."""
    scene = Scene(TEAM, template("all", "linux"))
    scene.items += [_item(1, "job/team-b/job/app/"), _item(2, "job/team-a/job/app/")]
    launches = [a for a in scene.plan().actions if isinstance(a, LaunchAgent)]
    assert {a.item: a.template for a in launches} == {1: "all", 2: "team"}


def test_an_idle_agent_of_a_template_is_not_counted_for_others():
    """The controller may give it the item all the same; nobody relies on it."""
    scene = Scene(TEAM, template("all", "linux"))
    scene.agent("team", Phase.IDLE)
    scene.items.append(_item(1, "job/team-b/job/app/"))
    (launch,) = [a for a in scene.plan().actions if isinstance(a, LaunchAgent)]
    assert (launch.item, launch.template) == (1, "all")


def test_explain_asks_for_a_job():
    """Without one, for any that may."""
    policy = Scene(TEAM).policy

    def serves(job):
        (answer,) = explain.explain_label("linux", policy, job=job)
        assert "is for team-a/** only" in answer.text
        return answer.serves

    assert serves(None)
    assert serves("team-a/app")
    assert not serves("team-b/app")


def test_a_recorded_world_is_decided_alike_without_names():
    """Names of jobs are hashed, those in patterns cannot be: the items that they meet stand there."""
    scene = Scene(TEAM)
    scene.items += [_item(1, "job/team-a/job/app/"), _item(2, "job/team-b/job/app/")]
    record = recording.RecordedWorld(at=0.0, world=scene.world(), policy=scene.policy)
    hidden = recording.disguised(record)
    assert "team-" not in repr(hidden.policy.templates[0].only_for)
    restricted = jobs.restrictions(hidden.policy.templates)
    ours, theirs = hidden.world.controller.items
    assert not jobs.barred(ours.task_url, restricted)
    assert jobs.barred(theirs.task_url, restricted) == {"team"}


def test_a_relative_address_is_hidden_too():
    """Steps of a Pipeline have one."""
    scene = Scene(TEAM)
    scene.items.append(item(1, "linux", task_url="job/team-a/job/app/3/"))
    record = recording.RecordedWorld(at=0.0, world=scene.world(), policy=scene.policy)
    url = recording.disguised(record).world.controller.items[0].task_url
    assert "team-a" not in url
    assert jobs.name_of(url)


def test_unrestricted_templates_ask_for_no_name():
    """Nobody's job is read for them."""
    assert jobs.is_for(template("plain"), "")
    scene = Scene(template("plain", "linux"))
    scene.items.append(_item(1, ""))
    (launch,) = scene.plan().actions
    assert launch.item == 1
