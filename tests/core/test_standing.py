"""What people have ordered: what it keeps from being started, whom it lets go, what it never does."""

import attrs
import pytest

from broker.core import model
from broker.core.fleet import standing
from broker.core.model import Phase, StandingKind, WaitReason
from tests.core.worlds import NOW, B, Scene, actions, item, launches, reasons, template

C = model.BackendName("far")
A, Z = template("a"), template("z", backends=(B, C))


def order(kind=StandingKind.PAUSE, **more):
    return model.StandingOrder(kind=kind, who="alice", since_at=NOW - 60, **more)


def words(plan):
    return {unmet.item: unmet.text for unmet in plan.unmet}


def scene(*orders, templates=(A, Z), **more):
    made = Scene(*templates, **more)
    made.policy = standing.in_force(made.policy, orders, now=NOW)
    return made


def test_a_paused_template_starts_nothing_and_says_who_why_and_for_how_long():
    """Of others nothing is changed."""
    made = scene(order(template="a", note="new kernel", until_at=NOW + 7200.0))
    made.wait(item(1, "a"), item(2, "z"))
    plan = made.plan()
    assert launches(plan) == {"z": 1}
    assert reasons(plan)[1] is WaitReason.PAUSED
    assert words(plan)[1] == "template a is paused by alice for another 2 h: new kernel"
    assert plan.wake_at <= NOW + 7200.0


@pytest.mark.parametrize("kind", [StandingKind.PAUSE, StandingKind.DRAIN])
def test_the_whole_broker_can_be_stopped(kind):
    """The warm pool is not filled either."""
    made = scene(order(kind), templates=(template("a", min_idle=2),))
    made.wait(item(1, "a"))
    plan = made.plan()
    assert launches(plan) == {}
    expected = WaitReason.PAUSED if kind is StandingKind.PAUSE else WaitReason.DRAINING
    assert reasons(plan)[1] is expected
    assert "by alice" in words(plan)[1]


def test_a_paused_backend_sends_agents_elsewhere():
    """To the next one of the template; where there is no other, the item says why it waits."""
    made = scene(order(backend=B))
    made.wait(item(1, "a"), item(2, "z"))
    plan = made.plan()
    assert [a.backend for a in plan.actions if isinstance(a, model.LaunchAgent)] == [C]
    assert reasons(plan)[1] is WaitReason.PAUSED
    assert "backend local is paused by alice" in words(plan)[1]


def test_a_pause_ends_no_agent():
    """Idle ones take builds, busy ones go on."""
    made = scene(order())
    busy, idle = made.agent("a", Phase.BUSY), made.agent("a", Phase.IDLE)
    made.wait(item(1, "a"))
    plan = made.plan()
    assert plan.actions == ()
    assert {busy, idle} == {agent.name for agent in plan.agents}
    assert reasons(plan)[1] is WaitReason.AGENT_IDLE


def test_whose_time_is_over_counts_no_more():
    """In the very moment."""
    late = order(until_at=NOW)
    assert standing.in_force(Scene(A).policy, [late], now=NOW).standing == ()
    made = Scene(A)
    made.policy = attrs.evolve(made.policy, standing=(late,))
    made.wait(item(1, "a"))
    assert launches(made.plan()) == {"a": 1}


@pytest.mark.parametrize("about", [{"template": "a"}, {"backend": B}, {}])
def test_who_is_drained_goes_after_its_build(about):
    """The idle one at once, a busy one is given no further build."""
    made = scene(order(StandingKind.DRAIN, **about))
    busy, idle = made.agent("a", Phase.BUSY), made.agent("a", Phase.IDLE)
    plan = made.plan()
    assert actions(plan, model.RetireAgent)[idle].cause is model.Cause.DRAIN
    assert actions(plan, model.CordonAgent)[busy].cause is model.Cause.DRAIN
    assert "being drained by alice" in actions(plan, model.RetireAgent)[idle].reason


def test_a_drain_of_another_concerns_nobody_else():
    """Neither by template nor by backend."""
    made = scene(order(StandingKind.DRAIN, template="z"), order(StandingKind.DRAIN, backend=C))
    made.agent("a", Phase.IDLE)
    assert made.plan().actions == ()


def test_one_agent_is_ordered_to_go():
    """At once if idle, whatever waits; a busy one after its build; no other goes."""
    made = scene(templates=(template("a", min_idle=3),))
    busy, idle, other = (made.agent("a", phase) for phase in (Phase.BUSY, Phase.IDLE, Phase.IDLE))
    orders = [order(StandingKind.RETIRE, agent=name) for name in (busy, idle)]
    made.policy = standing.in_force(made.policy, orders, now=NOW)
    plan = made.plan()
    assert actions(plan, model.RetireAgent).keys() == {idle}
    assert actions(plan, model.CordonAgent).keys() == {busy}
    made.wait(item(1, "a"))
    plan = made.plan()
    cordoned = actions(plan, model.CordonAgent)
    assert cordoned.keys() | actions(plan, model.RetireAgent).keys() == {busy, idle}
    assert other not in cordoned


def test_one_that_starts_is_ordered_to_go():
    """It is waited for no more."""
    made = scene(templates=(A,))
    name = made.agent("a", Phase.CONNECTING, age_s=10)
    made.policy = standing.in_force(made.policy, [order(StandingKind.RETIRE, agent=name)], now=NOW)
    assert actions(made.plan(), model.RetireAgent).keys() == {name}


def test_what_is_prewarmed_is_kept_warm_within_the_caps():
    """More than the template's own minimum, never less; the cap holds; a pause is stronger."""
    warm = order(StandingKind.PREWARM, template="a", agents=5)
    made = scene(warm, templates=(A,))
    assert launches(made.plan()) == {"a": 5}
    for _ in range(5):
        made.agent("a", Phase.IDLE, idle_s=1e6)
    assert made.plan().actions == (), "they stay, however idle"
    assert scene(warm, templates=(template("a", min_idle=7),)).policy.templates[0].min_idle == 7
    capped = scene(warm, templates=(template("a", cap=1),))
    assert launches(capped.plan()) == {"a": 1}
    paused = scene(warm, order(template="a"), templates=(A,))
    assert launches(paused.plan()) == {}


def held(made, name, words=f"{model.HOLD_MARK}: for alice"):
    """Show an agent out of service with a message."""
    made.computers = [
        attrs.evolve(one, offline=True, temporarily_offline=True, offline_cause=words)
        if one.name == name
        else one
        for one in made.computers
    ]


ONCE = template("a", retention=model.Retention(once=True, idle_s=60.0))


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BUSY])
def test_who_is_held_gets_no_further_build_and_does_not_go(phase):
    """However old and used: it is taken out of service, with who, until when and why."""
    made = scene(templates=(ONCE,))
    name = made.agent("a", phase, builds=1, idle_s=1e6)
    hold = order(StandingKind.HOLD, agent=name, until_at=NOW + 3600.0, note="look")
    made.policy = standing.in_force(made.policy, [hold], now=NOW)
    (action,) = made.plan().actions
    assert isinstance(action, model.CordonAgent)
    assert action.hold
    assert action.reason.startswith("for alice until 1970-01-12 14:46 UTC (look)")
    held(made, name)
    assert made.plan().actions == ()


def test_whose_time_is_over_is_back_in_service():
    """Idle or at work; what somebody else took out of service stays out."""
    made = scene(templates=(A,))
    names = [made.agent("a", phase) for phase in (Phase.IDLE, Phase.BUSY)]
    other = made.agent("a", Phase.IDLE)
    for name in names:
        held(made, name)
    held(made, other, "maintenance")
    assert actions(made.plan(), model.UncordonAgent).keys() == {*names}


def test_whoever_could_not_be_given_another_build_goes_after_it():
    """A single-use agent is never back in service; at work it ends its build."""
    made = scene(templates=(ONCE,))
    idle, busy = (made.agent("a", phase, builds=1) for phase in (Phase.IDLE, Phase.BUSY))
    held(made, idle)
    held(made, busy)
    plan = made.plan()
    assert actions(plan, model.RetireAgent)[idle].cordoned
    assert not actions(plan, model.CordonAgent)[busy].hold
    assert actions(plan, model.CordonAgent)[busy].cause is model.Cause.ONCE


def test_a_dirty_check_comes_before_service():
    """Of a template that has one."""
    check = model.CheckCommand(argv=("look",))
    made = scene(templates=(template("a", checks=model.Checks(dirty=check)),))
    name = made.agent("a", Phase.IDLE, builds=1)
    held(made, name)
    (action,) = made.plan().actions
    assert (action.name, action.check) == (name, model.Check.DIRTY)


def test_who_is_held_makes_no_room_and_is_not_drained():
    """Whatever waits."""
    made = scene(templates=(A, Z), cap=1)
    name = made.agent("a", Phase.IDLE)
    orders = [order(StandingKind.HOLD, agent=name), order(StandingKind.DRAIN, template="a")]
    made.policy = standing.in_force(made.policy, orders, now=NOW)
    made.wait(item(1, "z", age_s=600))
    (action,) = made.plan().actions
    assert action.hold
