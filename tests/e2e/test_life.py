"""The broker as a program: signals, a second one, another configuration, faults around it."""

import asyncio
import os
import signal

import pytest

from broker.simulator import simulation
from tests.e2e import stage

WARM = """\
  pool:
    labels: pool
    warm: {min_idle: 1}
    retention: {idle: 1h}
"""


@pytest.fixture
async def made(tmp_path):
    """A stage with one warm agent wanted."""
    async with stage.Stage(tmp_path, templates=WARM) as found:
        yield found


async def online(made, count=1):
    """Wait until so many agents are connected; return their names."""

    def connected():
        return {n for n in made.agents if made.sim.nodes[n].online}

    await made.until(lambda: len(connected()) == count, f"{count} agents online")
    return connected()


def done(made):
    return made.fates().get(simulation.Fate.DONE.value, 0)


@pytest.mark.parametrize("end", ["SIGTERM", "SIGKILL"])
async def test_an_end_keeps_the_agents_and_the_next_start_uses_them(made, end):
    """A restart is no event: a build runs on through it, its agent serves again, none is added."""
    only = WARM.replace("min_idle: 1", "min_idle: 0")
    made.write_config(templates=only)
    first = await made.start()
    made.submit("pool", duration_s=2.0)
    names = await online(made)
    before = made.processes()
    if end == "SIGKILL":
        await made.kill(first)
    else:
        assert 0 == (await made.stop(first)).code
    assert before.keys() <= made.processes().keys()
    second = await made.start()
    await made.until_served()
    made.submit("pool", duration_s=0.1)
    await made.until_served()
    assert 2 == done(made)
    assert names == made.agents
    assert before == made.processes()
    assert 0 == (await made.stop(second)).code


async def test_sigterm_finishes_what_is_in_flight(made):
    """A launch that has begun ends as an agent, not as a node without one."""
    made.write_config(templates=stage.TEMPLATES)
    broker = await made.start()
    made.submit("pool", duration_s=0.1)
    await made.server.requests.next_that(lambda _, path: path.endswith("slave-agent.jnlp"))
    assert 0 == (await made.stop(broker)).code
    assert 1 == len(made.agents)
    assert sorted(made.agents) == sorted(made.directories)
    await made.until_served()


async def test_sigterm_twice_leaves_at_once(made):
    """What hangs holds nobody up who insists; the next start finishes the work."""
    made.write_config(templates=stage.TEMPLATES)
    broker = await made.start()
    await made.until(lambda: made.sim.nodes, "it works: the placeholder is there")
    made.server.fail_next("computer/doCreateItem", "timeout", times=1000, method="POST")
    made.submit("pool", duration_s=0.1)
    await made.server.requests.next_that(lambda _, path: path.endswith("doCreateItem"))
    broker.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    assert broker.returncode is None  # it waits for what is in flight
    ended = await made.stop(broker, within_s=1.5)
    assert 1 == ended.code
    assert "left at once" in ended.said
    assert "Traceback" not in ended.said


async def test_drain_leaves_nothing(made):
    """With --drain the busy agent ends its build, everything goes, the placeholder too."""
    broker = await made.start("--drain")
    await online(made)
    made.submit("pool", duration_s=1.5)
    await made.until(
        lambda: any(i.started_at is not None for i in made.sim.items.values()), "it runs"
    )
    ended = await made.stop(broker, within_s=30)
    assert 0 == ended.code
    assert 1 == done(made)
    assert {} == made.sim.nodes
    assert ([], {}) == (made.directories, made.processes())


async def test_a_second_broker_on_the_same_state_directory_is_refused(made):
    """Said in one line with the directory and a hint; the first one goes on."""
    first = await made.start()
    await online(made)
    ended = await made.ended(await made.start())
    assert 3 == ended.code
    assert str(made.state) in ended.said
    assert "hint:" in ended.said
    made.submit("pool", duration_s=0.1)
    await made.until_served()
    assert 0 == (await made.stop(first)).code


async def test_a_second_broker_of_the_same_owner_elsewhere_is_refused(made, tmp_path):
    """The claim on the placeholder is challenged and defended; nothing of the first is touched."""
    first = await made.start()
    names = await online(made)
    other = tmp_path / "other.yaml"
    other.write_text(
        made.config.read_text()
        .replace(str(made.state), str(tmp_path / "other-state"))
        .replace(str(made.instances), str(tmp_path / "other-instances"))
    )
    ended = await made.ended(await made.start(config=other))
    assert 3 == ended.code
    assert "another broker" in ended.said
    assert "Traceback" not in ended.said
    assert first.returncode is None
    assert names == set(made.agents)
    made.submit("pool", duration_s=0.1)
    await made.until_served()
    assert 0 == (await made.stop(first)).code


async def test_sighup_puts_a_good_configuration_in_force(made):
    """Another definition: the idle agent of the old one goes, one of the new one comes."""
    broker = await made.start()
    (old,) = await online(made)
    made.write_config(templates=WARM.replace("labels: pool", "labels: pool extra"))
    broker.send_signal(signal.SIGHUP)
    await made.until(lambda: old not in made.agents, "the old one is gone")
    await online(made)
    made.submit("extra", duration_s=0.1)
    await made.until_served()
    assert 0 == (await made.stop(broker)).code


async def test_sighup_with_a_bad_configuration_changes_nothing(made):
    """What is wrong is said, with the path; the old configuration stays in force."""
    broker = await made.start()
    names = await online(made)
    made.write_config(templates=WARM.replace("min_idle: 1", "min_idle: many"))
    broker.send_signal(signal.SIGHUP)
    await made.until(lambda: "not reloaded" in broker.said.read_text(), "it says so")
    assert "min_idle" in broker.said.read_text()
    made.submit("pool", duration_s=0.1)
    await made.until_served()
    assert names <= set(made.agents)
    assert 0 == (await made.stop(broker)).code


async def test_a_restart_of_the_controller_keeps_the_agents(made):
    """503 for a while, another session: agents come back by themselves and serve again."""
    broker = await made.start()
    names = await online(made)
    made.submit("nobody", duration_s=0.1)
    made.server.restart(down_s=2.0)
    made.submit("pool", duration_s=0.1)
    await made.until(lambda: done(made) == 1, "the build is done")
    assert names <= made.agents
    assert 0 == (await made.stop(broker)).code


async def test_a_killed_agent_is_replaced_and_its_leftovers_go(made):
    """An agent killed -9 with its supervisor, and one whose supervisor alone is killed."""
    broker = await made.start()
    for which in ("all", "supervisor"):
        (name,) = await online(made)
        mine = {pid: line for pid, line in made.processes().items() if name in _all_of(pid)}
        for pid, line in mine.items():
            if which == "all" or "supervisor.py" in line:
                os.kill(pid, signal.SIGKILL)
        await made.until(lambda n=name: n not in made.agents, "its node is gone")
        await made.until(lambda n=name: n not in made.directories, "its directory is gone")
    await online(made)
    made.submit("pool", duration_s=0.1)
    await made.until_served()
    assert 0 == (await made.stop(broker)).code
    assert len(made.agents) == len(made.directories)


def _all_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line, open(f"/proc/{pid}/environ", "rb") as env:
            return (line.read() + env.read()).decode(errors="replace")
    except OSError:
        return ""


async def test_a_life_that_was_cut_off_before_its_claim_costs_the_next_one_nothing(made):
    """The claim of an earlier life but one is still known for our own: nobody is waited for."""
    made.write_config(templates=WARM + "  other: {labels: other}\n", idle="10s")
    first = await made.start()
    await online(made)
    await made.kill(first)
    made.server.restart(down_s=60.0)
    for _ in range(2):
        broker = await made.start()
        await made.until_up(broker)
        await made.kill(broker)
    made.sim.down_until = made.watch.now()
    await made.start()
    made.submit("other", duration_s=0.1)
    await made.until_served(within_s=15)  # a challenge would take 20 s
