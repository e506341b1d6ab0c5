"""Builds too short to be seen, on agents for one build: by the real loop in simulated time."""

import asyncio
import collections
import functools
import random

import pytest

from backends import memory
from broker.core import model
from broker.simulator import simulation
from broker.simulator.inventory import TaskKind
from tests.loop.daemons import LOCAL, Daemon, template

pytestmark = pytest.mark.looptime

ONCE = model.Retention(once=True, idle_s=600.0)
BLOCK_S = 0.1


def builds_by_agent(daemon):
    return collections.Counter(item.node for item in daemon.sim.items.values() if item.node)


async def served(daemon, *, within_s=600.0):
    until = daemon.now() + within_s
    while set(daemon.fates()) != {"done"}:
        assert daemon.now() < until, daemon.fates()
        await asyncio.sleep(0.5)


@pytest.mark.parametrize(
    ("seed", "blocks"),
    [(0, 24), *(pytest.param(seed, 60, marks=pytest.mark.soak) for seed in range(1, 9))],
)
async def test_blocks_of_a_tenth_of_a_second_make_one_agent_serve_two_at_most(seed, blocks):
    """Many of them at once, four agents at a time: who has begun is taken out of service at once.

    Whoever had two is counted. (With a look in each second alone: ten on one agent.)
    """
    async with Daemon(template(retention=ONCE, cap=4)) as daemon:
        daemon.tick_s, daemon.controller.slow_s = 0.02, 0.01
        daemon.connects_s = functools.partial(random.Random(seed).uniform, 0.3, 4.0)
        daemon.sim.create_node(0.0, simulation.Node(name="place", labels=frozenset()))
        for _ in range(blocks):
            daemon.submit(duration_s=BLOCK_S, kind=TaskKind.PIPELINE)
        await served(daemon)
        builds = builds_by_agent(daemon)
        assert max(builds.values()) <= 2
        extra = builds.total() - len(builds)
        # none is missed; of a Pipeline's build that nobody saw no name is told, only who may have had it
        assert extra <= daemon.notes.extra_builds <= extra + 2


_ALL_SLOW = [
    (0.01, 0.0, 0.0, 0.1, 2),
    (0.05, 1.0, 0.0, 0.1, 2),
    (0.1, 1.0, 0.5, 0.5, 1),
    (0.3, 2.0, 1.0, 0.5, 2),
    (1.0, 3.0, 3.0, 0.1, 99),  # ten builds come and go while one answer is on its way
]


@pytest.mark.parametrize(
    ("kind", "answers_s", "launch_s", "list_s", "build_s", "most"),
    [
        (TaskKind.PIPELINE, 0.05, 1.0, 0.0, 0.1, 2),
        (TaskKind.FREESTYLE, 0.3, 2.0, 1.0, 0.5, 2),
        *(
            pytest.param(kind, *delays, marks=pytest.mark.soak)
            for kind in (TaskKind.FREESTYLE, TaskKind.PIPELINE)
            for delays in _ALL_SLOW
        ),
    ],
)
async def test_however_slow_everybody_is_each_further_build_is_counted(
    kind, answers_s, launch_s, list_s, build_s, most
):
    """One at most per agent where builds take twice as long as the controller's answers."""
    policy = model.BackendPolicy(max_starting=None, launch_burst=99)
    async with Daemon(template(retention=ONCE, cap=4), limits=policy) as daemon:
        daemon.tick_s, daemon.controller.slow_s = 0.05, answers_s
        daemon.platforms[LOCAL].settings = memory.MemorySettings(launch_s=launch_s, list_s=list_s)
        daemon.connects_s = functools.partial(random.Random(0).uniform, 0.0, 0.3)
        daemon.sim.create_node(0.0, simulation.Node(name="place", labels=frozenset()))
        for _ in range(16):
            daemon.submit(duration_s=build_s, kind=kind)
        await served(daemon)
        await asyncio.sleep(20 * answers_s + 5)
        builds = builds_by_agent(daemon)
        assert max(builds.values()) <= most
        extra = builds.total() - len(builds)
        slack = 1 if kind is TaskKind.PIPELINE else 0  # whose builds they were nobody tells
        assert extra <= daemon.notes.extra_builds <= extra + slack


async def test_nobody_is_glanced_at_where_nothing_waits():
    """A warm pool of single-use agents costs a look in each second, and no more."""
    async with Daemon(template(retention=ONCE, min_idle=2)) as daemon:
        await asyncio.sleep(60)
        assert 2 == len(daemon.instances)
        assert 0 == daemon.controller.asked["at-work"]


async def test_a_controller_that_does_not_answer_is_not_glanced_at():
    """The look says what is wrong; when it answers again, the glances go on."""
    async with Daemon(template(retention=ONCE, cap=1)) as daemon:
        daemon.connects_s = lambda: 20.0
        daemon.submit()
        await asyncio.sleep(5)
        before = daemon.controller.asked["at-work"]
        assert before > 10
        daemon.controller.down = True
        await asyncio.sleep(5)
        assert daemon.controller.asked["at-work"] <= before + 2
        daemon.controller.down = False
        await asyncio.sleep(8)
        assert daemon.controller.asked["at-work"] > before + 10


async def test_a_short_build_on_a_warm_agent_is_asked_about_and_its_agent_goes():
    """It comes and goes between two looks; of a freestyle build the controller tells the node."""
    async with Daemon(template(retention=ONCE, min_idle=3)) as daemon:
        daemon.tick_s = 0.02
        await asyncio.sleep(20)
        before = daemon.instances
        for number in range(5):
            daemon.submit(duration_s=BLOCK_S, quiet_s=5.03)
            await asyncio.sleep(10.3 + number / 7)
        builds = builds_by_agent(daemon)
        assert {1} == set(builds.values())
        assert daemon.notes.extra_builds == 0
        used = set(builds)
        assert not used & daemon.instances
        assert before - used <= daemon.instances
