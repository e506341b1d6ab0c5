"""A computer that its node has left behind: it goes by its deletion alone, and in growing pauses."""

import attrs
import pytest

from broker.core import model
from broker.core.decide import judge
from broker.core.fleet import ledger as ledgers
from broker.core.model import Phase
from broker.loop import execute
from jnlp import errors, state
from tests.core import worlds


class Nodes:
    """The controller lists a computer whose node is gone, and answers 500 to everything else."""

    def __init__(self, **seen):
        self.state = state.NodeState(exists=True, name="n", idle=True, **{"offline": True, **seen})
        self.calls = []

    async def read(self, name):
        return self.state

    async def cordon(self, name, message):
        self.calls.append("cordon")
        raise errors.Unexpected(
            "POST changeOfflineCause: 500 the node has been removed", status=500
        )

    async def delete(self, name):
        self.calls.append("delete")


def executor(nodes, scene):
    async def look():
        return judge.prepare(scene.world(), scene.policy)

    async def before_end(action):
        return None

    return execute.Executor(
        nodes=nodes,
        backends={},
        order=None,
        look=look,
        retires_by_offline=lambda: True,
        now=lambda: worlds.NOW,
        before_end=before_end,
    )


async def test_it_is_deleted_at_once():
    """Taking it out of service is refused, and not tried again and again."""
    scene = worlds.Scene(worlds.template("t"))
    name = scene.agent("t", Phase.LOST)
    nodes = Nodes()
    outcome = await executor(nodes, scene).attempt(model.SweepNode(name=name, reason="gone"))
    assert (outcome.failure, outcome.withdrawn, nodes.calls) == (None, False, ["cordon", "delete"])


async def test_an_agent_that_could_be_given_work_is_not_deleted_over_a_refusal():
    """Only what is offline is certain to get nothing meanwhile."""
    scene = worlds.Scene(worlds.template("t"))
    name = scene.agent("t", Phase.IDLE)
    nodes = Nodes(offline=False)
    action = model.RetireAgent(name=name, backend=None, reason="idle", cause=model.Cause("idle"))
    outcome = await executor(nodes, scene).attempt(action)
    assert (outcome.failure, nodes.calls) == (model.Failure.UNEXPECTED, ["cordon"])


@pytest.mark.parametrize("exists", [True, False])
async def test_a_404_alone_deletes_nothing(exists):
    """A proxy answers so in the place of a controller: the node must be gone for its reader too."""
    scene = worlds.Scene(worlds.template("t"))
    name = scene.agent("t", Phase.IDLE)
    nodes = Nodes(offline=False)

    async def refused(name, message):
        nodes.calls.append("cordon")
        nodes.state = attrs.evolve(nodes.state, exists=exists)
        raise errors.NotFound("POST changeOfflineCause: 404")

    nodes.cordon = refused
    action = model.RetireAgent(name=name, backend=None, reason="idle", cause=model.Cause("idle"))
    outcome = await executor(nodes, scene).attempt(action)
    assert outcome.withdrawn == exists
    assert nodes.calls == (["cordon"] if exists else ["cordon", "delete"])


@pytest.mark.parametrize("failure", [None, model.Failure.UNEXPECTED])
def test_the_pause_before_the_next_try_grows(failure):
    """Whether the controller says that it is done, or not: it is there still."""
    policy = worlds.policy(worlds.template("t"))
    action = model.SweepNode(name=model.NodeName("n"), reason="gone")
    ledger = model.Ledger(memories={"n": model.Memory(first_seen_at=0.0)})
    pauses = []
    for _ in range(8):
        ledger = ledgers.expect(ledger, action, now=0.0, policy=policy)
        outcome = ledgers.Outcome(action=action, at=0.0, failure=failure)
        ledger = ledgers.settle(ledger, outcome, policy=policy, jitter=1.0)
        pauses.append(ledger.expectations["n"].expires_at)
        ledger = attrs.evolve(ledger, expectations={})
    assert pauses == sorted(pauses)
    assert pauses[-1] == policy.backoff_max_s
    assert pauses[0] <= 30.0
