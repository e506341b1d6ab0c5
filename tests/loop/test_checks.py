"""Ready and dirty checks by the real loop in simulated time, and what goes wrong with them."""

import asyncio

import pytest

from backends import api as backends_api
from backends import memory
from broker.core import model
from tests.loop.daemons import LOCAL, Daemon, template

pytestmark = pytest.mark.looptime

COMMAND = model.CheckCommand(argv=("look",), within_s=20.0)
READY = model.Checks(ready=COMMAND)
DIRTY = model.Checks(dirty=COMMAND)


def watched(daemon, *, code=0, run_s=3.0):
    """Have checks take a while and end so; return who was checked, and when it began."""
    began = []

    def on_run(name, argv):
        assert argv == COMMAND.argv
        node = daemon.sim.nodes[name]
        assert node.offline_message.startswith("agent-broker: ")
        assert node.idle
        began.append(name)
        return backends_api.Ran(code=code, output="first\nno room\n")

    platform = daemon.platforms[LOCAL]
    platform.on_run = on_run
    platform.settings = memory.MemorySettings(launch_s=1.0, run_s=run_s)
    return began


async def until(daemon, holds, *, within_s=120.0):
    deadline = daemon.now() + within_s
    while not holds():
        assert daemon.now() < deadline, daemon.loop.state.plan
        await asyncio.sleep(0.1)


def node_of(daemon, item):
    return daemon.sim.items[item].node


def phases(daemon):
    plan = daemon.loop.state.plan
    return [agent.phase for agent in plan.agents] if plan is not None else []


async def test_no_build_is_given_to_an_agent_before_its_ready_check_has_passed():
    """It is connected long before, and out of service until then; then the build begins."""
    async with Daemon(template(checks=READY)) as daemon:
        began = watched(daemon, run_s=10.0)
        item = daemon.submit(duration_s=1.0)
        await until(daemon, lambda: any(node.connected for node in daemon.sim.nodes.values()))
        (node,) = daemon.sim.nodes.values()
        assert (
            node.offline_message
            == "agent-broker: ready-check-due: its ready check has not passed yet"
        )
        await asyncio.sleep(5.0)
        assert phases(daemon) == [model.Phase.CHECKING]
        assert not node_of(daemon, item)
        await until(daemon, lambda: daemon.fates() == ["done"])
        assert began == [node_of(daemon, item)]
        assert daemon.notes.checks == {("t", "ready", True): 1}


async def test_who_fails_its_ready_check_is_given_nothing_and_counts_as_a_failed_start():
    """It goes with the words of its check; the next one is started later."""
    async with Daemon(template(checks=READY)) as daemon:
        began = watched(daemon, code=3)
        daemon.submit(duration_s=1.0)
        await until(daemon, lambda: len(began) >= 3)
        assert daemon.fates() == ["open"]
        death = daemon.loop.state.deaths[0]
        assert death.cause is model.Cause.READY_CHECK
        assert death.text == "ready-check: its ready check ended with exit status 3: no room"
        (backoff,) = daemon.loop.state.ledger.backoffs.values()
        assert backoff.failures >= 2
        daemon.platforms[LOCAL].on_run = None  # it is put right
        await until(daemon, lambda: daemon.fates() == ["done"])


async def test_between_two_builds_the_dirty_check_runs():
    """On one agent, which is reused; the next build waits for it."""
    async with Daemon(template(checks=DIRTY, cap=1)) as daemon:
        began = watched(daemon)
        items = [daemon.submit(duration_s=6.0) for _ in range(3)]
        await until(daemon, lambda: set(daemon.fates()) == {"done"})
        (name,) = {node_of(daemon, item) for item in items}
        await until(daemon, lambda: phases(daemon) == [model.Phase.IDLE])
        assert began == [name] * 3
        assert daemon.notes.checks == {("t", "dirty", True): 3}


async def test_a_build_that_no_look_has_seen_at_work_is_followed_by_its_check():
    """A build of a moment; it is known afterwards by its number alone, or not at all."""
    async with Daemon(template(checks=DIRTY, min_idle=1)) as daemon:
        began = watched(daemon)
        await until(daemon, lambda: phases(daemon) == [model.Phase.IDLE])
        daemon.submit(duration_s=1.2)
        await until(daemon, lambda: began)


async def test_who_fails_its_dirty_check_is_given_nothing_more_and_replaced():
    """Nothing backs off for it."""
    async with Daemon(template(checks=DIRTY, cap=1)) as daemon:
        watched(daemon, code=1)
        items = [daemon.submit(duration_s=6.0) for _ in range(2)]
        await until(daemon, lambda: set(daemon.fates()) == {"done"})
        assert node_of(daemon, items[0]) != node_of(daemon, items[1])
        assert daemon.loop.state.deaths[0].cause is model.Cause.DIRTY_CHECK
        assert daemon.loop.state.ledger.backoffs == {}


async def test_a_check_that_does_not_end_in_time_has_failed():
    """It says so, with its limit."""
    async with Daemon(template(checks=READY)) as daemon:
        watched(daemon, run_s=60.0)
        daemon.submit()
        await until(daemon, lambda: daemon.loop.state.deaths)
        text = daemon.loop.state.deaths[0].text
        assert text == "ready-check: its ready check did not end within 20 s"


async def test_a_backend_that_does_not_answer_the_check_condemns_nobody():
    """It is asked again, and the agent comes into service."""
    async with Daemon(template(checks=READY)) as daemon:
        began = watched(daemon)
        for _ in range(2):
            error = backends_api.Unavailable("no answer")
            daemon.platforms[LOCAL].fail_next(error, verb="run")
        item = daemon.submit(duration_s=1.0)
        await until(daemon, lambda: daemon.fates() == ["done"])
        assert began == [node_of(daemon, item)]
        assert not daemon.loop.state.deaths


@pytest.mark.parametrize("code", [0, 1])
async def test_whom_a_person_takes_out_of_service_while_its_check_runs_stays_so(code):
    """With that person's words, however the check ends."""
    async with Daemon(template(checks=READY)) as daemon:
        began = watched(daemon, code=code)
        platform = daemon.platforms[LOCAL]
        ended, words = platform.on_run, "mine: I look at its disk"

        def on_run(name, argv):
            ran = ended(name, argv)
            if len(began) == 1:
                daemon.sim.nodes[name].offline_message = words
            return ran

        platform.on_run = on_run
        item = daemon.submit(duration_s=1.0)
        await until(daemon, lambda: began)
        await asyncio.sleep(30.0)
        assert words == daemon.sim.nodes[began[0]].offline_message
        assert began[0] != node_of(daemon, item)


@pytest.mark.parametrize("call", ["cordon", "read-node", "uncordon"])
async def test_a_controller_that_fails_at_any_step_of_a_check_costs_time_alone(call):
    """No build is lost, nobody works unchecked, and nothing is left."""
    async with Daemon(template(checks=READY)) as daemon:
        began = watched(daemon)
        daemon.controller.fails[call] = 2
        daemon.submit(duration_s=1.0)
        await until(daemon, lambda: daemon.fates() == ["done"], within_s=300.0)
        assert began
        assert daemon.notes.checks["t", "ready", True] == 1


@pytest.mark.parametrize("after_s", [0.3, 1.1, 2.0, 4.0, 5.5])
async def test_a_broker_that_is_killed_in_the_midst_of_a_check_leaves_it_to_the_next(after_s):
    """What is out of service for a check is found so, and checked anew."""
    async with Daemon(template(checks=model.Checks(ready=COMMAND, dirty=COMMAND))) as daemon:
        watched(daemon)
        daemon.submit(duration_s=4.0)
        await asyncio.sleep(after_s)
        await daemon.restart()
        await until(daemon, lambda: daemon.fates() == ["done"])
        await until(daemon, lambda: phases(daemon) == [model.Phase.IDLE])
        assert daemon.notes.checks["t", "dirty", True] == 1
