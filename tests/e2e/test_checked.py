"""Agents that are checked, by the whole program: real processes, real commands, and kills."""

import pytest

from tests.e2e import stage

TEMPLATES = """\
  pool:
    labels: pool
    cap: 1
    retention: {{idle: 1h}}
    checks:
      ready:
        command: "echo begun >> {folder}/ready; while test -e {folder}/wait; do sleep 0.05; done"
        timeout: 15s
      dirty:
        command: "echo ran >> {folder}/dirty; test ! -e {folder}/spoilt || {{ echo spoilt; exit 4; }}"
"""
DUE = "agent-broker: ready-check-due: its ready check has not passed yet"


@pytest.fixture(params=["2.541.3", "2.516.3"])
async def made(request, tmp_path):
    """A stage for each way to take a busy agent out of service: by the offline mark, by a seal."""
    templates = TEMPLATES.format(folder=tmp_path)
    async with stage.Stage(tmp_path, templates=templates, version=request.param) as found:
        yield found


def lines(made, name):
    path = made.folder / name
    return path.read_text().splitlines() if path.exists() else []


def in_service(made):
    """Return whether all agents are online, with the labels that builds ask for."""
    nodes = [made.sim.nodes[name] for name in made.agents]
    return all(node.online and node.labels == {"pool"} for node in nodes)


async def test_no_build_is_given_before_the_ready_check_has_passed_whoever_is_killed(made):
    """The next broker finds the agent out of service, and begins its check anew."""
    wait = made.folder / "wait"
    wait.touch()
    first = await made.start()
    made.submit("pool", duration_s=0.3)
    await made.until(lambda: len(lines(made, "ready")) == 1, "the check has begun")
    await made.until(
        lambda: any(made.sim.nodes[name].connected for name in made.agents), "it is connected"
    )
    (name,) = made.agents
    assert made.sim.nodes[name].offline_message == DUE
    assert made.fates() == {"open": 1}
    await made.kill(first)
    second = await made.start()
    await made.until(lambda: len(lines(made, "ready")) == 2, "the check has begun anew")
    assert made.sim.nodes[name].idle
    wait.unlink()
    await made.until_served()
    assert made.agents == {name}
    await made.until(lambda: in_service(made), "it is back after its dirty check")
    assert (await made.stop(second)).code == 0


async def test_each_build_is_followed_by_the_dirty_check_and_who_fails_it_is_replaced(made):
    """On one agent as long as it passes."""
    broker = await made.start()
    for number in (1, 2):
        made.submit("pool", duration_s=1.5)
        await made.until_served()
        await made.until(lambda n=number: len(lines(made, "dirty")) == n, "it is checked")
        await made.until(lambda: in_service(made), "it is back")
        assert len(made.agents) == 1
    before = set(made.agents)
    spoilt = made.folder / "spoilt"
    spoilt.touch()
    made.submit("pool", duration_s=1.5)
    made.submit("pool", duration_s=0.1)
    await made.until(lambda: not made.agents & before, "it is gone")
    assert len(made.open) == 1
    spoilt.unlink()
    await made.until_served()
    ended = await made.stop(broker)
    assert ended.code == 0
    assert "dirty-check: its dirty check ended with exit status 4: spoilt" in ended.said
