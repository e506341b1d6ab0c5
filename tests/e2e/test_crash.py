"""Kill -9 at any moment: no build is lost, none waits for ever, nothing is left behind."""

import asyncio
import collections
import os
import random
import secrets

import pytest

from broker.simulator import simulation
from tests.e2e import stage

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "5"))
SEED = os.environ.get("CRASH_SEED") or secrets.token_hex(4)

LABELS = ("pool", "pool && !wide", "single", "wide")
MOMENTS = (  # which request a kill follows, and at most how long after it
    ("POST", "computer/doCreateItem", 0.01),
    ("GET", "slave-agent.jnlp", 0.25),
    ("GET", "slave-agent.jnlp", 0.03),
    ("POST", "changeOfflineCause", 0.03),
    ("POST", "config.xml", 0.03),
    ("POST", "doDelete", 0.02),
    ("POST", "doDelete", 0.3),
    ("GET", "computer/api/json", 0.02),
    ("GET", "queue/api/json", 0.1),
)


class Orders:
    """Watches every order: live agents without work must never outnumber what waited of late."""

    def __init__(self, made):
        self.made = made
        self.waited = collections.deque()
        self.excess = []
        self.create, made.sim.create_node = made.sim.create_node, self.on_create

    def look(self, now):
        waiting = collections.Counter(
            i.label.split()[0] for i in self.made.open if i.started_at is None
        )
        self.waited.append((now, waiting))
        while self.waited[0][0] < now - 1.5:
            self.waited.popleft()

    def on_create(self, now, node):
        self.create(now, node)
        if node.name == stage.PLACEHOLDER:
            return
        self.look(now)
        label = next(iter(node.labels))
        alive = set(self.made.directories) | {node.name}
        free = [
            n.name
            for n in self.made.sim.nodes.values()
            if n.labels == node.labels and n.name in alive and n.idle and n.offline_message is None
        ]
        most = max(waiting[label] for _, waiting in self.waited)
        if len(free) > most:
            self.excess.append((label, free, most))


async def feed(made, orders, dice):
    """Submit a build now and then, for as long as it is awaited."""
    while True:
        for _ in range(dice.choice((1, 1, 1, 3))):
            made.submit(dice.choice(LABELS), dice.uniform(0.05, 1.0))
        until = made.watch.now() + dice.uniform(0.2, 1.2)
        while made.watch.now() < until:
            orders.look(made.watch.now())
            await asyncio.sleep(0.05)


async def moment(made, dice):
    """Wait for an instant to kill at: any, or one right inside a launch or a retirement."""
    if dice.random() < 0.3:
        await asyncio.sleep(dice.uniform(0.0, 2.5))
        return
    method, path, after_s = dice.choice(MOMENTS)

    def fits(asked_method, asked_path):
        return asked_method == method and asked_path.endswith(path)

    try:
        async with asyncio.timeout(4.0):
            await made.server.requests.next_that(fits)
    except TimeoutError:
        return
    await asyncio.sleep(dice.uniform(0.0, after_s))


@pytest.mark.timeout(120 + 10 * ROUNDS)
@pytest.mark.parametrize("version", [pytest.param("2.263.4", marks=pytest.mark.soak), "2.528.3"])
async def test_kill_at_any_moment_then_restart(tmp_path, version):
    """Every build is served exactly once, and after a drain nothing is there."""
    print(f"CRASH_SEED={SEED} CRASH_ROUNDS={ROUNDS}")
    dice = random.Random(f"{SEED} {version}")
    async with stage.Stage(tmp_path, version=version) as made:
        orders = Orders(made)
        feeder = asyncio.create_task(feed(made, orders, dice))
        for _ in range(ROUNDS):
            broker = await made.start()
            await moment(made, dice)
            assert broker.returncode is None, made.describe()
            await made.kill(broker)
        feeder.cancel()
        last = await made.start("--drain")
        await made.until_served(within_s=45)
        assert {simulation.Fate.DONE.value} == set(made.fates()), made.describe()
        ended = await made.stop(last, within_s=45)
        assert ended.code == 0, ended.said
        assert made.sim.nodes == {}
        assert ([], {}) == (made.directories, made.processes())
        assert orders.excess == []
