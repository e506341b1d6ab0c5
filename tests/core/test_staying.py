"""Why an agent stays or goes, in words for whoever asks about one of them."""

import attrs

from broker.core import model
from broker.core.decide import staying
from broker.core.model import Phase
from tests.core.worlds import NOW, policy, template
from tests.each import each

NAME = model.NodeName("o-t-aaaaaa")
T = template("t", retention=model.Retention(idle_s=600.0))


def agent(phase, *, template_="t", **memory):
    return model.Agent(
        name=NAME, phase=phase, template=template_, created_at=NOW - 100,
        memory=model.Memory(first_seen_at=NOW - 100, **memory),
    )  # fmt: skip


def said(one, *, plan=None, wanted=T, **more):
    return staying.words(one, plan or model.Plan(), policy(wanted, **more), now=NOW)


def test_what_the_plan_has_decided_comes_first():
    """With its own words, and with what speaks against it."""
    plan = model.Plan(
        actions=(model.RetireAgent(name=NAME, backend=None, reason="idle for 700 s"),),
        refusals=(model.Refusal(subject="other", text="no"),),
    )
    assert "is to be retired: idle for 700 s" == said(agent(Phase.IDLE, idle_at=NOW), plan=plan)
    kept = model.Plan(refusals=(model.Refusal(subject=NAME, text="may go (x), stays because y"),))
    assert "may go (x), stays because y" == said(agent(Phase.IDLE, idle_at=NOW), plan=kept)


def test_what_is_under_way_is_said():
    """Since when, and why."""
    one = attrs.evolve(
        agent(Phase.IDLE),
        expectation=model.Expectation(
            verb=model.Verb.RETIRE, name=NAME, template=T.name, backend=None,
            since_at=NOW - 3, expires_at=NOW + 60, reason="too old",
        ),
    )  # fmt: skip
    assert "retire is under way for 3 s: too old" == said(one)


@each(
    ("one", "words"),
    [
        (agent(Phase.IDLE, idle_at=NOW - 12), "stays: idle for 12 s, allowed are 10 min"),
        (agent(Phase.BUSY), "stays: it works"),
        (agent(Phase.LAUNCHING), "is being started"),
        (
            agent(Phase.CONNECTING),
            "is awaited: it may take 3 min more to come online (connect_deadline)",
        ),
        (
            agent(Phase.CONNECTING, offline_at=NOW - 290),
            "is awaited: it may take 10 s more to come online (connect_deadline)",
        ),
        (agent(Phase.DRAINED), "goes: it is out of service and empty"),
        (
            agent(Phase.UNKNOWN),
            "stays: a source that knows of it does not answer, so nothing of it is removed",
        ),
        (
            agent(Phase.ORPHAN, orphan_sightings=2),
            "goes: node and instance do not belong together any more; seen so 2 times",
        ),
        (
            agent(Phase.BUSY, template_="gone"),
            "stays: it works; this build is its last: its template is no longer configured",
        ),
        (
            attrs.evolve(agent(Phase.BUSY), cordoned=True),
            "stays: it works; this build is its last",
        ),
    ],
)
def test_else_the_rule_that_holds_it(one, words):
    """With its limit."""
    assert words == said(one)


def test_an_idle_one_that_an_item_is_counted_to_stays_for_it():
    """Named as the plan does."""
    unmet = model.Unmet(
        item=model.ItemId(7), reason=model.WaitReason.AGENT_IDLE, text="", agent=NAME
    )
    plan = model.Plan(unmet=(unmet,))
    one = agent(Phase.IDLE, idle_at=NOW)
    assert "stays: item 7 is about to be given to it" == said(one, plan=plan)


def test_the_warm_pool_and_no_limit_are_said():
    """Both hold it."""
    warm = attrs.evolve(T, min_idle=2)
    one = agent(Phase.IDLE, idle_at=NOW - 5)
    assert (
        "stays: idle for 5 s, allowed are 10 min; 2 are kept warm (warm.min_idle)"
        == said(one, wanted=warm)
    )  # fmt: skip
    never = attrs.evolve(T, retention=model.Retention(idle_s=None))
    assert "stays: nobody goes for idleness here" == said(one, wanted=never)


@each("phase", list(Phase))
def test_of_every_phase_there_is_something_to_say(phase):
    """Also of one that nothing is remembered of, and in a drain."""
    bare = model.Agent(name=NAME, phase=phase)
    assert said(bare)
    assert staying.words(bare, model.Plan(), policy(T, draining=True), now=NOW)
