"""An agent that failed is kept for a look: node, builds and replacement as ever, its folder stays."""

import os
import pathlib
import signal

from tests.e2e import stage as stages

KEEPS = """\
  pool:
    labels: pool
    warm: {min_idle: 1}
    retention: {idle: 1h, keep_failed: 30m, keep_failed_most: 1}
"""


async def _killed(stage):
    """Kill the agent that is there; return its name."""
    await stage.until(
        lambda: any(stage.sim.nodes[n].online for n in stage.agents), "an agent online"
    )
    (name,) = (n for n in stage.agents if stage.sim.nodes[n].online)
    for pid, line in stage.processes().items():
        if "agent.py" in line and name in f"{line}{_environment(pid)}":
            os.kill(pid, signal.SIGKILL)
    await stage.until(lambda: name not in stage.agents, "its node is gone")
    return name


def _environment(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


async def test_one_that_failed_stays_for_a_look_also_through_a_restart(tmp_path):
    """One of a template, the first, as long as the template says so."""
    async with stages.Stage(tmp_path, templates=KEEPS) as stage:
        broker = await stage.start()
        first = await _killed(stage)
        log = broker.said
        second = await _killed(stage)  # its replacement
        assert first != second
        await stage.until(lambda: second not in stage.directories, "the second is removed")
        assert first in stage.directories
        await stage.kill(broker)
        broker = await stage.start()
        stage.submit("pool", duration_s=0.1)
        await stage.until_served()
        assert first in stage.directories
        assert 0 == (await stage.stop(broker)).code
        assert first in stage.directories
        assert "kept for a look until" in log.read_text()
        wishes = "keep_failed: 30m, keep_failed_most: 1"
        stage.write_config(templates=KEEPS.replace(wishes, "max_builds: 9"))
        broker = await stage.start()
        await stage.until(lambda: first not in stage.directories, "it is kept no longer")
        assert 0 == (await stage.stop(broker)).code
