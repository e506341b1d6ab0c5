"""A pipeline's step outlives its agent by minutes: the node says at once what the agent died of."""

import os
import signal

import pytest

from broker.core import model
from broker.simulator.simulation import TaskKind
from tests.e2e import stage as stages


@pytest.mark.parametrize("version", ["2.263.4", "2.528.3"])
async def test_a_pipeline_is_told_what_its_agent_died_of(tmp_path, version):
    """Killed from outside, in the midst of a step; the broker marks the node, and keeps it."""
    async with stages.Stage(tmp_path, version=version) as stage:
        await stage.start()
        number = stage.server.submit(
            job="wf", label="pool", duration_s=60.0, kind=TaskKind.PIPELINE
        )
        item = stage.sim.items[number]
        await stage.until(lambda: item.started_at is not None, "the step")
        node = stage.sim.nodes[item.node]
        (agent,) = (pid for pid, line in stage.processes().items() if "agent.py" in line)
        os.kill(agent, signal.SIGKILL)
        await stage.until(lambda: node.offline_message is not None, "the mark")
        assert node.offline_message.startswith(f"{model.CORDON_MARK} lost-killed: ")
        assert "killed by SIGKILL" in node.offline_message
        assert not node.idle
        assert item.node in stage.sim.nodes
