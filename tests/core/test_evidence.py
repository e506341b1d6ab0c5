"""A view is evidence only about what was done before its read began.

Each source is read at its own pace, so the newest view of one may be older than what we did since.
"""

import attrs
import pytest

from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.core.model import Phase
from tests.core.worlds import NOW, B, Scene, actions, item, launches, template

LAUNCHED_AT = NOW - 10.0
DONE_AT = NOW - 5.0
NAME = model.NodeName("o-t-a1")


def launch():
    return model.LaunchAgent(name=NAME, template=model.TemplateName("t"), backend=B, reason="r")


def ended(scene, action, *, failure=None):
    """Write down an order, and how it ended, as the loop does."""
    scene.ledger = ledgers.expect(scene.ledger, action, now=LAUNCHED_AT, policy=scene.policy)
    outcome = ledgers.Outcome(action=action, at=DONE_AT, failure=failure)
    scene.ledger = ledgers.settle(scene.ledger, outcome, policy=scene.policy, jitter=0.5)


def seen(scene, *, controller_at=NOW, backend_at=NOW):
    """Return the agents and the ledger, with views that were begun at these times."""
    world = scene.world()
    world = attrs.evolve(
        world,
        controller=attrs.evolve(world.controller, read_at=controller_at),
        backends={B: attrs.evolve(world.backends[B], read_at=backend_at)},
    )
    made = model_plan(world, scene.policy)
    scene.ledger = made.ledger
    return made


def model_plan(world, policy):
    from broker.core.decide import plan

    return plan.plan(world, policy)


OLD = [
    {"backend_at": DONE_AT - 0.1},
    {"controller_at": DONE_AT - 0.1},
    {"controller_at": DONE_AT - 0.1, "backend_at": DONE_AT - 0.1},
]


@pytest.mark.parametrize("at", OLD)
@pytest.mark.parametrize("later_s", [0.0, ledgers.VISIBLE_S + 60.0])
def test_an_old_view_makes_no_agent_gone(at, later_s):
    """Launched, and in no view yet: it is on its way, however long a source takes to answer."""
    scene = Scene(template("t", cap=1))
    ended(scene, launch())
    scene.now += later_s
    scene.wait(item(1, "t"))
    made = seen(scene, **at)
    assert [(NAME, Phase.LAUNCHING)] == [(a.name, a.phase) for a in made.agents]
    assert {} == launches(made)
    assert NAME in scene.ledger.expectations
    made = seen(scene)  # now it is evidence
    assert ([], later_s > 0) == (
        [a.name for a in made.agents if later_s],
        NAME not in scene.ledger.expectations,
    )


@pytest.mark.parametrize("at", OLD)
def test_an_old_view_makes_no_removal_visible(at):
    """What was read before the launch shows nothing of it either: the removal is not done by that.

    The instance would turn up in the next view, as an orphan that nobody knows.
    """
    scene = Scene(template("t"))
    ended(scene, launch())
    ended(scene, model.RetireAgent(name=NAME, backend=B, reason="r"))
    seen(scene, **at)
    assert NAME in scene.ledger.expectations
    seen(scene)
    assert NAME not in scene.ledger.expectations
    assert NAME not in scene.ledger.memories


def test_an_old_view_makes_no_cordon_undone():
    """The node was in service when it was read: that is no reason to ask again."""
    scene = Scene(template("t"))
    name = scene.agent("t", Phase.BUSY)
    ended(scene, model.CordonAgent(name=name, reason="r"))
    seen(scene, controller_at=DONE_AT - 0.1)
    assert name in scene.ledger.expectations
    scene.computers = [
        attrs.evolve(one, labels=one.labels | {model.RETIRED_LABEL}) for one in scene.computers
    ]
    seen(scene)
    assert name not in scene.ledger.expectations


@pytest.mark.parametrize("at", OLD)
def test_of_a_launch_that_failed_an_old_view_tells_no_end(at):
    """Whether something of it was made the next view shows; until then it takes its place."""
    scene = Scene(template("t", cap=1))
    scene.ledger = attrs.evolve(
        scene.ledger,
        memories={NAME: model.Memory(first_seen_at=LAUNCHED_AT, template="t", backend=B)},
    )
    ended(scene, launch(), failure=model.Failure.REJECTED)
    scene.wait(item(1, "t"))
    made = seen(scene, **at)
    assert [(NAME, Phase.UNKNOWN)] == [(a.name, a.phase) for a in made.agents]
    assert {} == launches(made)
    assert [] == list(seen(scene).agents)


@pytest.mark.parametrize("phase", [Phase.ORPHAN, Phase.LOST])
def test_the_same_view_looked_at_twice_is_one_sighting(phase):
    """A backend that is slow to answer does not make a doubt a certainty."""
    scene = Scene(template("t"), orphan_grace_s=5.0)
    scene.agent("t", phase, known=False, age_s=3600)
    removals = (model.SweepInstance, model.SweepNode, model.RetireAgent)

    def removed(made):
        return [a for kind in removals for a in actions(made, kind)]

    for _ in range(5):
        made = seen(scene, backend_at=NOW)
        scene.now += 10.0
        assert not removed(made)
    assert 1 == len(removed(seen(scene, controller_at=scene.now, backend_at=scene.now)))


def test_room_of_an_old_view_is_given_once():
    """What was ordered since takes a place that the view still shows as free."""
    from backends import api

    scene = Scene(template("t"))
    scene.capacity[B] = api.Capacity(free_instances=1, text="1 free")
    ended(scene, launch())
    scene.wait(item(1, "t"), item(2, "t"))
    assert {} == launches(seen(scene, backend_at=LAUNCHED_AT - 1.0))
