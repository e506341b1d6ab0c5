"""Labels with values, from the queue to an agent that runs the build, and back to the people."""

import json
import os

from broker.simulator import simulation
from tests import forked, patience
from tests.e2e import stage

TEMPLATES = """\
  docker:
    labels: docker
    cap: 2
    retention: {idle: 1h}
    variants: 1
    only_for: ["team-*"]
    parameters:
      size: {values: {small: {}, large: {}}}
      memory: {min: 64Mi, max: 8g}
"""


async def reasons(made):
    """Ask the running broker why builds wait, as a person would; by job."""
    process = await forked.talking(
        *("status", "--json", "--config", str(made.config)), cwd=made.folder, env=os.environ
    )
    out, _ = await patience.wait_for(process.communicate(), 60)
    rows = json.loads(out)["queue"]["items"] if process.returncode == 0 else []
    return {row["job"]: (row["reason"], row["text"]) for row in rows}


def _labels(made, name):
    return set(made.sim.nodes[name].labels) - {name}


async def test_a_variant_serves_builds_twice_and_outlives_the_broker(tmp_path):
    """The node carries what was asked for; the second build takes the warm agent, after a restart."""
    async with stage.Stage(tmp_path, templates=TEMPLATES) as made:
        made.write_config(templates=TEMPLATES)
        first = await made.start()
        made.server.submit(job="team-a", label="docker && size=small", duration_s=0.1)
        await made.until_served()
        (name,) = made.agents
        assert _labels(made, name) == {"docker", "size=small"}
        assert (await made.stop(first)).code == 0
        second = await made.start()
        made.server.submit(job="team-b", label="docker&&size=small", duration_s=0.1)
        await made.until_served()
        assert made.agents == {name}
        assert made.fates() == {simulation.Fate.DONE.value: 2}
        # another variant: the idle one makes room for it
        made.server.submit(job="team-a", label="docker && size=large", duration_s=0.1)
        await made.until_served()
        (other,) = made.agents
        assert _labels(made, other) == {"docker", "size=large"}
        assert (await made.stop(second)).code == 0


async def test_what_is_not_allowed_is_told(tmp_path, monkeypatch):
    """On the page's JSON and by the command, with what is; nothing is started for it."""
    monkeypatch.setenv("TOKEN", stage.TOKEN)
    async with stage.Stage(tmp_path, templates=TEMPLATES) as made:
        made.write_config(templates=TEMPLATES, listen="127.0.0.1:0")
        await made.start()
        made.server.submit(job="team-a", label="docker && size=huge")
        made.server.submit(job="team-b", label="docker && size=small", duration_s=0.1)
        await made.until(lambda: len(made.open) == 1, "what is allowed is served")
        expected = {
            "team-a": (
                "parameter",
                "of template docker size=huge is not allowed, but size=small, size=large",
            ),
        }
        patient = patience.Patience(20)
        while (told := await reasons(made)) != expected:  # the page is a look behind
            assert not patient.is_over(), told
        assert len(made.agents) == 1
