"""What a plan tells beside its actions: nominations, when to look again, how many of each."""

import pytest
from attrs import evolve

from broker.core import model
from broker.core.decide import plan
from broker.core.model import Phase, Retention, Stage
from tests.core.worlds import NOW, B, Scene, item, template
from tests.each import each


def expects(scene, name, verb=model.Verb.UNCORDON, *, for_s=60.0):
    """Something was done with an agent, and cannot be seen yet."""
    expectation = model.Expectation(
        name=name,
        verb=verb,
        since_at=NOW - 1,
        expires_at=NOW + for_s,
        template=scene.policy.templates[0].name,
        backend=B,
    )
    expectations = {**scene.ledger.expectations, name: expectation}
    scene.ledger = evolve(scene.ledger, expectations=expectations)


# --- while the controller cannot be read ---


def test_a_plan_without_the_controller_shows_and_remembers_the_agents():
    """It decides nothing, and looks again soon."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, builds=3)
    scene.synced = False
    made = scene.plan()
    assert [(a.name, a.phase) for a in made.agents] == [(name, Phase.UNKNOWN)]
    assert made.ledger.memories[name].builds == 3
    assert made.active is True


# --- since when somebody is nominated ---


@pytest.mark.parametrize(
    ("remembered", "waits", "since"),
    [
        ({}, True, NOW),
        ({"free_at": NOW - 40}, True, NOW),
        ({"free_at": NOW - 40, "nominated_at": NOW - 30}, True, NOW - 30),
        ({"free_at": NOW - 10, "nominated_at": NOW - 30}, True, NOW - 10),
        ({"free_at": NOW - 40, "nominated_at": NOW - 30}, False, None),
        ({"free_at": NOW - 40}, False, None),
    ],
    ids=["free now", "free before", "still", "took another", "no more", "never"],
)
def test_since_when_an_item_could_be_given_to_an_agent(remembered, waits, since):
    """From the look that saw both; what the agent takes meanwhile keeps its nomination."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE, **remembered)
    scene.wait(*[item(1, "t")] * waits)
    assert scene.plan().ledger.memories[name].nominated_at == since


@pytest.mark.parametrize(
    ("phase", "executors", "stage", "nominated"),
    [
        (Phase.BUSY, 2, Stage.BUILDABLE, True),
        (Phase.BUSY, 1, Stage.BUILDABLE, False),
        (Phase.CONNECTING, 1, Stage.BUILDABLE, False),
        (Phase.IDLE, 1, Stage.BLOCKED, False),
    ],
)
def test_only_a_free_slot_and_an_item_that_may_run_are_a_nomination(
    phase, executors, stage, nominated
):
    """To all others nothing could have been given."""
    scene = Scene(template("t", executors=executors))
    name = scene.agent("t", phase, age_s=5)
    scene.wait(item(1, "t", stage=stage, why="" if stage is Stage.BUILDABLE else "blocked"))
    assert (scene.plan().ledger.memories[name].nominated_at is not None) is nominated


@pytest.mark.parametrize(
    "other",
    [
        item(1, "t", stage=Stage.BLOCKED, why="Build #1 is already in progress"),
        item(1, "o-gone-a1"),
    ],
    ids=["blocked", "without a template"],
)
def test_nobody_is_nominated_for_what_it_would_not_be_given(other):
    """However many others may run."""
    scene = Scene(template("t"), template("u"))
    scene.agent("gone", Phase.IDLE)
    scene.agent("t", Phase.IDLE)
    scene.wait(other, item(2, "u"))
    assert {m.nominated_at for m in scene.plan().ledger.memories.values()} == {None}


def test_each_agent_is_nominated_by_itself():
    """One to whom nothing could be given hides nobody behind it; what is known of it stays."""
    scene = Scene(template("t"), template("u"))
    others = scene.agent("u", Phase.IDLE, builds=2), scene.agent("t", Phase.CONNECTING, age_s=5)
    names = scene.agent("t", Phase.IDLE), scene.agent("t", Phase.IDLE)
    scene.wait(item(1, "t"))
    memories = scene.plan().ledger.memories
    assert {n: m.nominated_at for n, m in memories.items()} == {
        **dict.fromkeys(others),
        **dict.fromkeys(names, NOW),
    }
    assert memories[others[0]].builds == 2


def test_what_an_item_was_read_to_ask_for_is_remembered():
    """A text that says less later does not change it."""
    scene = Scene(template("t"))
    scene.wait(item(1, "t"))
    made = scene.plan()
    assert [str(known.expression) for known in made.ledger.labels.values()] == ["t"]
    assert list(made.ledger.labels) == [1]


# --- when to look again ---


@pytest.mark.parametrize(
    ("remembered", "in_s"),
    [
        ({"age_s": 10}, 20),
        ({"age_s": 3600, "offline_at": NOW - 5}, 25),
        ({"age_s": 10, "offline_at": NOW - 50}, 20),
        ({"age_s": 10, "created_at": None}, 20),
        ({"age_s": 31}, None),
    ],
)
def test_a_start_is_looked_at_when_its_time_is_over(remembered, in_s):
    """Counted from its launch, or from when it was lost."""
    scene = Scene(template("t", connect_deadline_s=30))
    scene.agent("t", Phase.CONNECTING, **remembered)
    assert scene.plan().wake_at == (None if in_s is None else NOW + in_s)


@each("phase", [Phase.IDLE, Phase.BUSY, Phase.HELD])
@each(("left_s", "in_s"), [(7, 7), (0, None), (-7, None)])
def test_an_agent_is_looked_at_when_it_has_its_age(phase, left_s, in_s):
    """Whatever it does; when it has it already nothing more is waited for."""
    ages = template("t", retention=Retention(idle_s=None, max_age_s=600))
    scene = Scene(template("eternal", retention=Retention(idle_s=None)), ages)
    scene.agent("eternal", phase, age_s=599)
    scene.agent("t", phase, age_s=600 - left_s)
    assert scene.plan().wake_at == (None if in_s is None else NOW + in_s)


def test_the_first_of_all_deadlines_counts():
    """What was done and cannot be seen has one as well."""
    scene = Scene(template("t", connect_deadline_s=30))
    name = scene.agent("t", Phase.IDLE)
    expects(scene, name, for_s=12.0)
    scene.agent("t", Phase.CONNECTING, age_s=10)
    assert scene.plan().wake_at == NOW + 12
    scene.agent("t", Phase.CONNECTING, age_s=20)
    assert scene.plan().wake_at == NOW + 10


# --- whether something is going on ---


@pytest.mark.parametrize(
    ("phase", "active"),
    [
        (Phase.CONNECTING, True),
        (Phase.DRAINED, True),
        (Phase.ORPHAN, True),
        (Phase.HELD, False),
        (Phase.IDLE, False),
        (Phase.BUSY, False),
    ],
)
def test_who_starts_or_goes_is_looked_at_often(phase, active):
    """Work alone is none of our doing."""
    scene = Scene(template("t"))
    scene.agent("t", phase, age_s=5, busy_session="s0")
    scene.ledger = evolve(scene.ledger, session_at=NOW - 1)  # it may be asked for: nothing is done
    made = scene.plan()
    assert (made.actions, made.active) == ((), active)


def test_what_is_on_its_way_is_looked_at_often():
    """Its effect is to be seen as soon as it is there."""
    scene = Scene(template("t"))
    expects(scene, scene.agent("t", Phase.HELD))
    made = scene.plan()
    assert (made.actions, made.active) == ((), True)


@pytest.mark.parametrize(
    ("stage", "why", "active"),
    [
        (Stage.BUILDABLE, None, True),
        (Stage.WAITING, "In the quiet period", True),
        (Stage.BLOCKED, "Build #1 is already in progress", False),
    ],
)
def test_what_waits_or_is_about_to_is_looked_at_often(stage, why, active):
    """What is blocked may be for hours."""
    scene = Scene(template("t", cap=1))
    scene.agent("t", Phase.BUSY)
    scene.wait(item(1, "t", stage=stage, why=why))
    made = scene.plan()
    assert (made.actions, made.active) == ((), active)


# --- how many of each ---


def test_a_plan_counts_by_template():
    """Demand in items, what is there in slots, and agents; what is out of service is no slot."""
    scene = Scene(template("t", executors=3, min_idle=1), template("u"), template("none"))
    scene.agent("t", Phase.BUSY, busy=2)
    scene.agent("t", Phase.BUSY, busy=2)
    scene.agent("t", Phase.IDLE)
    scene.agent("t", Phase.CONNECTING, age_s=5)
    scene.agent("t", Phase.HELD)
    scene.agent("u", Phase.BUSY)
    scene.wait(*(item(n, "t") for n in range(1, 3)), *(item(n, "u") for n in range(3, 6)))
    scene.wait(item(6, "u", stage=Stage.BLOCKED, why="Build #1 is already in progress"))
    counts = scene.plan().counts
    assert counts["t"] == model.TemplateCount(
        demand=2, warm_target=3, idle=5, busy=4, starting=3, agents=5, launches=0
    )
    assert counts["u"] == model.TemplateCount(
        demand=3, warm_target=0, idle=0, busy=1, starting=0, agents=1, launches=3
    )
    assert counts["none"] == model.TemplateCount()


@pytest.mark.parametrize("busy", [1, 2, 3])
def test_builds_are_counted_until_they_end(busy):
    """While the broker drains, too: an agent out of service has no slot for others."""
    scene = Scene(template("t", executors=3))
    name = scene.agent("t", Phase.BUSY, busy=busy, cordoned=True)
    scene.policy = evolve(scene.policy, draining=True)
    made = scene.plan()
    assert (made.counts["t"].busy, made.counts["t"].idle) == (busy, 0)
    assert not [a for a in made.actions if a.name == name]  # its builds end before it goes
    scene.computers = [
        evolve(c, busy_executors=0, executable_urls=(), idle=True) for c in scene.computers
    ]
    made = scene.plan()
    assert (made.counts["t"].busy, made.counts["t"].idle) == (0, 0)
    assert [type(a) for a in made.actions if a.name == name] == [model.RetireAgent]


def test_a_busy_agent_that_is_lost_has_no_slots():
    """Nothing is known of what it does."""
    scene = Scene(template("t", executors=3))
    scene.agent("t", Phase.BUSY, busy=2)
    scene.computers = [evolve(c, offline=True) for c in scene.computers]
    counts = scene.plan().counts["t"]
    assert (counts.busy, counts.idle) == (0, 0)


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.IDLE])
def test_an_agent_of_a_template_that_is_gone_is_nobodys_spare(phase):
    """The pool is short of one all the same, and no order is too much."""
    scene = Scene(template("t", min_idle=1))
    scene.agent("gone", phase, age_s=5)
    made = scene.plan()
    assert made.counts["t"].launches == 1


def test_a_phase_that_cannot_follow_is_told():
    """A name is never used again: whoever is gone and works is a defect, of us or of a source."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.IDLE)
    scene.ledger = evolve(
        scene.ledger,
        memories={name: evolve(scene.ledger.memories[name], phase=Phase.GONE)},
    )
    made = plan.plan(scene.world(), scene.policy)
    assert made.illegal == ((Phase.GONE, Phase.IDLE),)
