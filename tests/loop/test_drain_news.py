"""What a drain says while it waits: what changes at once, all of it at a calmer pace."""

import attrs

from backends import api as backends_api
from broker.core import model
from broker.core.model import NodeName, Phase
from broker.loop import ending
from broker.loop import state as states

LOCAL = model.BackendName("local")


def agent(name, phase, **more):
    return model.Agent(name=NodeName(name), phase=phase, backend=LOCAL, **more)


def state_of(*agents):
    view = model.BackendView(synced=True)
    world = model.World(
        now=0.0, controller=model.ControllerView(synced=True), backends={LOCAL: view}
    )
    plan = model.Plan(agents=agents)
    return attrs.evolve(states.State.fresh(), world=world, plan=plan)


def test_what_changes_is_said_at_once_and_all_of_it_now_and_then():
    """Nothing is said twice within that time, whatever the number of looks."""
    news = ending.DrainNews(30.0)
    before = state_of(agent("a", Phase.BUSY), agent("b", Phase.BUSY))
    assert {"waits_for": "a on local (busy), b on local (busy)"} == news.of(before, now=100.0)
    assert [None] * 3 == [news.of(before, now=at) for at in (101.0, 102.0, 129.0)]
    after = state_of(agent("b", Phase.DRAINED))
    said = news.of(after, now=129.5)
    assert {"gone": "a", "changed": "b on local (drained)", "left": "1"} == said
    assert None is news.of(after, now=129.9)
    assert {"waits_for": "b on local (drained)"} == news.of(after, now=130.0)
    assert "gone" in news.of(state_of(), now=131.0)


def test_who_holds_an_agent_up_is_named():
    """A person with the words of the controller, a finalizer with those of the platform."""
    held = model.Computer(
        name="a", offline=True, temporarily_offline=True, offline_by="anna",
        offline_cause="do not touch", offline_since_at=40.0,
    )  # fmt: skip
    leaving = backends_api.Instance(
        name="b", state=backends_api.InstanceState.STOPPING, leaving_at=10.0,
        detail="held by finalizer example.com/hold",
    )  # fmt: skip
    state = state_of(
        agent("a", Phase.HELD, computer=held), agent("b", Phase.GONE, instance=leaving)
    )
    words = ending.waits_for(state, now=100.0)
    assert "a on local (held): is held by anna for 60 s (do not touch)" in words
    assert "b on local (gone): leaving for 90 s: held by finalizer example.com/hold" in words
