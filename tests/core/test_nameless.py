"""An entry that cannot be read: it may be any that is not seen, but not one that we removed."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import plan
from broker.core.fleet import ledger as ledgers
from broker.core.model import Phase, Retention, WaitReason
from tests.core.worlds import B, Scene, actions, item, launches, reasons, template

READ_LATER_S = 5.0


def nameless(world):
    """Show a computer whose entry tells no name."""
    view = attrs.evolve(
        world.controller, odd_computers="a computer has no displayName", odd_nameless=True
    )
    return attrs.evolve(world, controller=view)


def damaged(world):
    """Show an instance of which nothing can be read."""
    view = attrs.evolve(world.backends[B], odd="a container has no labels")
    return attrs.evolve(world, backends={**world.backends, B: view})


def look(scene, ledger, odd, *, later_s=0.0, removed=()):
    """Plan once more, after some were removed from both sides."""
    scene.now += later_s
    scene.ledger = ledger
    scene.computers = [one for one in scene.computers if one.name not in removed]
    scene.instances[B] = [one for one in scene.instances[B] if one.name not in removed]
    return plan.plan(odd(scene.world()), scene.policy)


def settled(made, action, scene, **outcome):
    """Return the ledger after an action, as its outcome is taken in."""
    ledger = ledgers.expect(made.ledger, action, now=scene.now, policy=scene.policy)
    ended = ledgers.Outcome(action=action, at=scene.now + 1.0, **outcome)
    return ledgers.settle(ledger, ended, policy=scene.policy, jitter=1.0)


def used():
    """Return a scene with the one agent that there may be; it has had its build."""
    one = template("t", retention=Retention(once=True), cap=1)
    scene = Scene(one)
    name = scene.agent("t", Phase.DRAINED, builds=1, busy_session="s1")
    scene.wait(item(1, "t"))
    return scene, name


@pytest.mark.parametrize("odd", [nameless, damaged])
def test_an_agent_that_we_removed_is_gone_and_fills_no_cap(odd):
    """Else nothing was ordered any more after as many single-use agents as a cap has."""
    scene, name = used()
    made = look(scene, scene.ledger, odd)
    (action,) = actions(made, model.RetireAgent).values()
    made = look(scene, settled(made, action, scene), odd, later_s=READ_LATER_S, removed={name})
    assert () == made.agents
    assert 1 == len(launches(made))


@pytest.mark.parametrize(
    "outcome",
    [{"failure": model.Failure.UNREACHABLE, "text": "no answer"}, {"withdrawn": True}, None],
)
@pytest.mark.parametrize("odd", [nameless, damaged])
def test_one_that_may_be_there_still_is_unknown(outcome, odd):
    """The removal failed, or was put off; or somebody else removed it."""
    scene, name = used()
    made = look(scene, scene.ledger, odd)
    (action,) = actions(made, model.RetireAgent).values()
    ledger = settled(made, action, scene, **outcome) if outcome is not None else made.ledger
    made = look(scene, ledger, odd, later_s=60.0, removed={name})
    assert [(name, Phase.UNKNOWN)] == [(agent.name, agent.phase) for agent in made.agents]
    assert {1: WaitReason.CAP_TEMPLATE} == reasons(made)


@pytest.mark.parametrize("odd", [nameless, damaged])
def test_a_view_of_before_does_not_tell_that_it_is_gone(odd):
    """It was read while the node was being deleted."""
    scene, name = used()
    made = look(scene, scene.ledger, odd)
    (action,) = actions(made, model.RetireAgent).values()
    ledger = settled(made, action, scene)
    made = look(scene, ledger, odd, later_s=0.5, removed={name})
    assert [name] == [agent.name for agent in made.agents]
