"""What befalls an instance that lives on: said wherever somebody asks why a build failed."""

import attrs
import pytest

from backends import api as backends_api
from broker.core import model
from broker.core.decide import plan
from broker.core.fleet import agents as agents_
from broker.core.model import Phase
from tests.core import worlds
from tests.core.worlds import B

WORDS = "a process in it was killed for memory (limit 512 MiB)"
MISHAP = backends_api.Mishap(slug="out-of-memory", text=WORDS, times=2, at=worlds.NOW - 5)


def scene_of(phase, *, mishap=MISHAP, **more):
    scene = worlds.Scene(worlds.template("linux", retention=model.Retention(max_builds=1)))
    name = scene.agent("linux", phase, **more)
    scene.instances[B] = [attrs.evolve(one, mishap=mishap) for one in scene.instances[B]]
    return scene, name


def test_it_alone_takes_nobody_out_of_service():
    """The next build may need less; a label is not emptied by one that needs too much."""
    for phase in (Phase.IDLE, Phase.BUSY):
        scene, _ = scene_of(phase)
        assert () == scene.plan().actions


@pytest.mark.parametrize(
    ("phase", "kind"), [(Phase.BUSY, model.CordonAgent), (Phase.IDLE, model.RetireAgent)]
)
def test_whoever_goes_says_it_with_the_reason(phase, kind):
    """That is the node's offline cause, and what the page keeps of the agent."""
    scene, name = scene_of(phase, builds=1)
    reason = worlds.actions(scene.plan(), kind)[name].reason
    assert reason == f"{WORDS}; it has had 1 of 1 build"


def test_one_that_is_out_of_service_already_says_it_in_its_last_build():
    """Its offline cause is told anew, once, and keeps what it said."""
    scene, _ = scene_of(Phase.BUSY, builds=1, cordoned=True)
    (done,) = scene.plan().actions
    assert isinstance(done, model.CordonAgent)
    assert (model.Cause.ONCE, f"{WORDS}; done") == (done.cause, done.reason)
    told = f"{model.CORDON_MARK} {done.cause.slug}: {done.reason}"
    scene.computers = [attrs.evolve(one, offline_cause=told) for one in scene.computers]
    more = attrs.evolve(MISHAP, times=50)
    scene.instances[B] = [attrs.evolve(one, mishap=more) for one in scene.instances[B]]
    assert () == scene.plan().actions, "however often it happens"


@pytest.mark.parametrize("cause", ["", "taken out by anna", "agent-broker: no-such-cause: x"])
def test_what_we_did_not_say_is_not_changed(cause):
    """A person's words stay, and whatever a later version writes."""
    scene, _ = scene_of(Phase.BUSY, cordoned=True)
    scene.computers = [attrs.evolve(one, offline_cause=cause) for one in scene.computers]
    assert () == scene.plan().actions


def test_one_that_is_gone_is_said_to_have_had_it():
    """Its instance tells nothing any more: what was seen of it is remembered."""
    scene, _ = scene_of(Phase.IDLE)
    scene.ledger = scene.plan().ledger
    scene.instances[B] = []
    scene.computers = [attrs.evolve(one, offline=True) for one in scene.computers]
    (agent,) = scene.plan().agents
    assert agents_.why_lost(agent) == (
        model.Cause.LOST_INSTANCE,
        f"{WORDS}; its instance is gone",
    )


def test_an_end_that_tells_it_is_not_told_twice():
    """The platform's certificate knows when it was."""
    scene, _ = scene_of(Phase.IDLE)
    scene.ledger = scene.plan().ledger
    end = backends_api.Exit(slug="exited", code=3, message="a process had been killed before")
    (instance,) = scene.instances[B]
    ended = attrs.evolve(instance, state=backends_api.InstanceState.EXITED, exit=end, mishap=None)
    scene.instances[B] = [ended]
    (agent,) = scene.plan().agents
    assert WORDS not in agents_.why_lost(agent)[1]
    scene.instances[B] = [attrs.evolve(ended, mishap=MISHAP)]  # one that does not tell it
    (agent,) = scene.plan().agents
    assert agents_.why_lost(agent)[1].startswith(f"{WORDS}; its instance ended")


def test_what_it_used_stays_known_when_its_instance_is_gone():
    scene, name = scene_of(Phase.BUSY, mishap=None)
    used = backends_api.Usage(at=worlds.NOW, memory_peak_bytes=1 << 20)
    scene.instances[B] = [attrs.evolve(one, usage=used) for one in scene.instances[B]]
    ledger = scene.plan().ledger
    scene.instances[B] = []
    scene.ledger = ledger
    assert used == scene.plan().ledger.memories[name].usage


@pytest.mark.parametrize("phase", [Phase.IDLE, Phase.BUSY])
def test_what_an_agent_uses_is_shown_although_nothing_else_of_it_has_changed(phase):
    """A later plan takes agents from the one before it, if they are the same."""
    scene, name = scene_of(phase, mishap=None)
    last = None
    for number in range(5):
        used = backends_api.Usage(at=scene.now, memory_peak_bytes=number << 20)
        scene.instances[B] = [attrs.evolve(one, usage=used) for one in scene.instances[B]]
        last = plan.plan(scene.world(), scene.policy, last)
        (agent,) = last.agents
        assert used == agent.instance.usage == last.ledger.memories[name].usage
        scene.ledger, scene.now = last.ledger, scene.now + 15.0
