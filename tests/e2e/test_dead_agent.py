"""A pipeline's step outlives its agent by minutes: it is told what it died of, and ended at once."""

import os
import signal

import pytest

from broker.core import model
from broker.simulator.simulation import Fate, TaskKind
from tests.e2e import stage as stages


async def killed(stage, **job):
    """Start a step, and kill its agent from outside, in its midst."""
    number = stage.server.submit(
        job="wf", label="pool", duration_s=60.0, kind=TaskKind.PIPELINE, **job
    )
    item = stage.sim.items[number]
    await stage.until(lambda: item.started_at is not None, "the step")
    (agent,) = (pid for pid, line in stage.processes().items() if "agent.py" in line)
    os.kill(agent, signal.SIGKILL)
    return item, stage.sim.nodes[item.node]


@pytest.mark.parametrize("version", ["2.263.4", "2.528.3"])
async def test_a_pipeline_goes_on_elsewhere_when_its_agent_dies(tmp_path, version):
    """The node says what the agent died of, and goes; the next try has another agent."""
    async with stages.Stage(tmp_path, version=version) as stage:
        await stage.start()
        item, node = await killed(stage, retries=1)
        await stage.until(lambda: item.fate is Fate.FAILED, "the end of the step")
        assert node.offline_message.startswith(f"{model.CORDON_MARK} lost-killed: ")
        assert "killed by SIGKILL" in node.offline_message
        await stage.until(lambda: len(stage.sim.items) == 2, "the next try in the queue")
        again = max(stage.sim.items.values(), key=lambda one: one.id)
        await stage.until(lambda: again.started_at is not None, "the next try")
        assert again.node != item.node
        assert item.node not in stage.sim.nodes


async def test_without_the_plugin_it_is_told_what_its_agent_died_of(tmp_path):
    """The broker marks the node, and keeps it: the step ends by itself."""
    async with stages.Stage(tmp_path) as stage:
        stage.sim.durable_task = False
        await stage.start()
        item, node = await killed(stage)
        await stage.until(lambda: node.offline_message is not None, "the mark")
        assert "killed by SIGKILL" in node.offline_message
        assert not node.idle
        assert item.node in stage.sim.nodes
