"""Hundreds of retirements over HTTP (`make soak`: thousands) against the measured race: no build may be lost.

Time is the simulation's: every request takes a fixed while of it, and items arrive in between, at
times that are spread evenly over the whole retirement. So every gap between two requests is hit,
on a slow machine and on a fast one alike.
"""

import collections
import contextlib
import random

import pytest
import recorded
from attrs import define

from broker.controller import reading
from broker.core import model
from broker.core.decide import judge
from broker.loop import execute
from broker.simulator import controller as controllers
from broker.simulator import inventory, simulation
from broker.simulator.simulation import Fate
from jnlp import client, http, version
from tests.core import worlds

OLD, MIDDLE, NEW = "2.263.4", "2.479.3", "2.528.3"
REQUEST_S = 0.0007
"""What one request takes, there and back, on loopback (jenkins-measured 3 was taken there)."""
BEFORE_S, AFTER_S = 0.002, 0.008
"""Items arrive from this long before a retirement begins until this long after."""
TEMPLATE = worlds.template("t", "linux", "jdk")
PLAIN = ("linux", "linux&&jdk", "linux||windows")
"""Each may be given to the agent, by a label that it has."""
ODD = ("jdk -> linux", "!windows")
"""These also to an agent without any label."""


@define
class Clock:
    now: float = worlds.NOW

    def read(self) -> float:
        return self.now


class Paced(controllers.SimulatedController):
    """Time passes with requests only."""

    async def _handle(self, request):
        self.clock.now += REQUEST_S / 2
        answer = await super()._handle(request)
        self.clock.now += REQUEST_S / 2
        return answer


@define
class Place:
    """One controller with everything that acts on it."""

    clock: Clock
    sim: simulation.Simulation
    nodes: client.NodeClient
    executor: execute.Executor
    dice: random.Random
    count: int = 0

    def agent(self) -> model.NodeName:
        """Put an idle agent there."""
        self.count += 1
        name = model.NodeName(f"o-t-{self.count}")
        node = simulation.Node(name=name, labels=TEMPLATE.labels, connected=True)
        self.sim.create_node(self.clock.now, node)
        return name

    def arrives(self, low: float, high: float, **job) -> int:
        """Let an item arrive at some time between; return its id (they are counted)."""
        at = self.clock.now + self.dice.uniform(low, high)
        job.setdefault("label", "linux")
        self.sim.at(at, lambda now: self.sim.submit(now, **job))
        return len(self.sim.items) + 1

    def settle(self, name: str) -> None:
        """Let everything end; what is left waits for an agent that never comes."""
        self.clock.now += 100.0
        self.sim.advance(self.clock.now)
        for item in list(self.sim.wanted):
            self.sim.cancel(self.clock.now, item.id)
        with contextlib.suppress(simulation.SimulatedRefusal):
            self.sim.delete_node(self.clock.now, name)

    def fates(self) -> collections.Counter:
        return collections.Counter(item.fate for item in self.sim.items.values())


@contextlib.asynccontextmanager
async def place(of_version, seed):
    clock = Clock()
    sim = simulation.Simulation(version=of_version)
    paced = Paced(sim, now=clock.read)
    paced.clock = clock
    async with paced, http.ControllerSession(recorded.settings(paced.url)) as session:
        reader = reading.Reader(session)
        nodes = client.NodeClient(session)

        async def look():
            view = await reader.read(clock.read)
            ledger = model.Ledger(session=view.session, session_at=clock.now - 3600)
            world = model.World(now=clock.now, controller=view, backends={}, ledger=ledger)
            return judge.prepare(world, worlds.policy(TEMPLATE))

        async def before_end(_action):
            clock.now += dice.choice((0.0, 0.001))  # the last words take a while, sometimes

        dice = random.Random(seed)
        executor = execute.Executor(
            nodes=nodes,
            backends={},
            order=None,
            look=look,
            retires_by_offline=lambda: version.safe_to_retire_by_offline(session.version),
            now=clock.read,
            before_end=before_end,
        )
        yield Place(clock, sim, nodes, executor, dice)


async def naive(there, name):
    """What a careful stranger would do: idle? offline, still idle? delete."""
    if (await there.nodes.read(name)).idle:
        await there.nodes.cordon(name, "bye")
        if (await there.nodes.read(name)).idle:
            await there.nodes.delete(name)


async def ours(there, name, **more):
    action = model.RetireAgent(
        name=name, backend=None, reason="idle", cause=model.Cause("idle"), **more
    )
    outcome = await there.executor.perform(action)
    assert outcome.failure is None
    return outcome


def tries_of(most):
    """Return how many retirements, as a parameter: some, and for the soak many."""
    return pytest.mark.parametrize(
        "tries", [most // 4, pytest.param(most, marks=pytest.mark.soak)]
    )


@pytest.mark.parametrize(("of_version", "low", "high"), [(OLD, 0.04, 0.2), (NEW, 0.0, 0.0)])
async def test_the_naive_way_loses_builds_on_old_versions(of_version, low, high):
    """As measured: 5 of 60 by offline and delete, 25 of 250 by the offline mark alone."""
    tries = 150
    async with place(of_version, seed=1) as there:
        for _ in range(tries):
            name = there.agent()
            there.arrives(-0.0, 0.007, duration_s=0.006)
            await naive(there, name)
            there.settle(name)
        assert low <= there.fates()[Fate.LOST] / tries <= high


@pytest.mark.parametrize(("of_version", "lost"), [(OLD, True), (NEW, False)])
async def test_deleting_alone_fails_builds_on_every_version(of_version, lost):
    """Measured on an old one: 14 of 100 lost, 56 failed."""
    async with place(of_version, seed=2) as there:
        for _ in range(100):
            name = there.agent()
            there.arrives(0.0, 0.010, duration_s=0.006)
            there.clock.now += 0.008
            await there.nodes.delete(name)
            there.settle(name)
        fates = there.fates()
        assert 40 < fates[Fate.FAILED] < 80
        assert (4 < fates[Fate.LOST] < 20) == lost


ALL = [(OLD, PLAIN), pytest.param(MIDDLE, PLAIN + ODD, marks=pytest.mark.soak), (NEW, PLAIN + ODD)]


@tries_of(600)
@pytest.mark.parametrize(("of_version", "expressions"), ALL)
async def test_no_build_is_lost_by_retiring_idle_agents(of_version, expressions, tries):
    """Agents for many builds. Items come in every gap, some ask for what is not there."""
    async with place(of_version, seed=3) as there:
        withdrawn = 0
        for number in range(tries):
            name = there.agent()
            there.arrives(
                -BEFORE_S,
                AFTER_S,
                label=expressions[number % len(expressions)],
                duration_s=there.dice.choice((0.001, 0.006, 1.0)),
            )
            withdrawn += (await ours(there, name)).withdrawn
            there.settle(name)
        fates = there.fates()
    assert fates.total() == tries
    assert fates[Fate.LOST] == 0
    assert tries / 10 < withdrawn < tries * 0.9  # both ways were gone often
    assert fates[Fate.FAILED] <= visible(of_version, tries)


@tries_of(400)
@pytest.mark.parametrize(("of_version", "expressions"), ALL)
async def test_no_build_is_lost_by_single_use(of_version, expressions, tries):
    """Out of service while its build runs and ends; the next item comes at any time."""
    async with place(of_version, seed=4) as there:
        for number in range(tries):
            name = there.agent()
            first = there.dice.uniform(0, 0.008)
            there.sim.submit(there.clock.now, label="linux", duration_s=first)
            there.clock.now += 0.002
            label = expressions[number % len(expressions)]
            there.arrives(-BEFORE_S, AFTER_S, label=label, duration_s=0.002)
            cordon = model.CordonAgent(name=name, reason="single use", cause=model.Cause("once"))
            assert (await there.executor.perform(cordon)).failure is None
            there.clock.now += 0.005
            await ours(there, name, cordoned=True)
            there.settle(name)
        fates = there.fates()
    assert fates.total() == 2 * tries
    assert fates[Fate.LOST] == 0
    assert fates[Fate.FAILED] <= visible(of_version, tries)


@tries_of(400)
async def test_what_is_left_on_the_oldest_versions(tries):
    """Items for the absence of a label that come in a retirement's last moments: not all live.

    As few as one request and one queue run allow (docs/decisions/0002 says how few).
    """
    hurt = {}
    for way in (ours, delete_alone):
        async with place(OLD, seed=8) as there:
            for number in range(tries):
                name = there.agent()
                there.arrives(0.0, 0.007, label=ODD[number % 2], duration_s=0.02)
                await way(there, name)
                there.settle(name)
            fates = there.fates()
            hurt[way] = fates[Fate.LOST] + fates[Fate.FAILED]
    assert hurt[ours] <= tries * 2 * (REQUEST_S + inventory.HANDOVER_S) / 0.007
    assert hurt[ours] < hurt[delete_alone]


@tries_of(200)
async def test_a_busy_agent_of_the_oldest_versions_takes_nothing_more(tries):
    """Told under the queue's lock: what comes afterwards stays in the queue, whatever it wants."""
    async with place(OLD, seed=9) as there:
        for number in range(tries):
            name = there.agent()
            there.sim.submit(there.clock.now, label="linux", duration_s=0.02)
            there.clock.now += 0.002
            there.arrives(-BEFORE_S, 0.04, label=(*PLAIN, *ODD)[number % 5], duration_s=0.002)
            cordon = model.CordonAgent(name=name, reason="single use", cause=model.Cause("once"))
            assert (await there.executor.perform(cordon)).failure is None
            there.clock.now += 0.03
            await ours(there, name, cordoned=True)
            there.settle(name)
        assert there.fates()[Fate.LOST] == there.fates()[Fate.FAILED] == 0


async def delete_alone(there, name):
    there.clock.now += 0.004
    await there.nodes.delete(name)


def visible(of_version, tries):
    """How many builds may fail, red, for starting while their node is being replaced."""
    if of_version == NEW:
        return 0
    return 3 * tries * inventory.SWAP_S / (BEFORE_S + AFTER_S)


async def test_a_sealed_node_takes_nothing_and_a_pipeline_gets_it_back():
    """After a start of an old controller the pipeline asks for exactly this node."""
    async with place(MIDDLE, seed=5) as there:
        name = there.agent()
        pipe = there.sim.submit(
            there.clock.now, label="linux", duration_s=60, kind=simulation.TaskKind.PIPELINE
        )
        there.clock.now += 1.0
        there.sim.advance(there.clock.now)
        cordon = model.CordonAgent(name=name, reason="single use", cause=model.Cause("once"))
        await there.executor.perform(cordon)
        assert there.sim.nodes[name].labels == set(model.retired_labels(model.Cause.ONCE))
        there.sim.restart(there.clock.now, down_s=1.0)
        there.clock.now += 2.0
        there.sim.connect(there.clock.now, name)
        there.clock.now += 1.0
        there.sim.advance(there.clock.now)
        assert there.sim.items[pipe].stage is simulation.ItemClass.BUILDABLE
        back = model.UncordonAgent(name=name, reason="a pipeline must go on with it")
        assert (await there.executor.perform(back)).failure is None
        there.settle(name)
        assert there.sim.items[pipe].fate is Fate.DONE


@pytest.mark.parametrize("of_version", [OLD, NEW])
async def test_a_person_deletes_the_node_first(of_version):
    """In every gap of a retirement: it ends well, there is nothing left to do."""
    async with place(of_version, seed=6) as there:
        for gap in range(9):
            name = there.agent()
            when = there.clock.now + (gap - 0.5) * REQUEST_S
            there.sim.at(when, lambda now, name=name: there.sim.nodes.pop(name, None))
            outcome = await ours(there, name)
            assert (outcome.failure, outcome.withdrawn) == (None, False)
            assert name not in there.sim.nodes


@tries_of(160)
async def test_a_late_agent_is_not_swept_with_its_first_build(tries):
    """The node looked dead; its agent comes in every gap and is given work at once."""
    for of_version in (OLD, NEW):
        async with place(of_version, seed=7) as there:
            for _ in range(tries):
                name = there.agent()
                there.sim.nodes[name].connected = False
                number = there.sim.submit(there.clock.now, label="linux", duration_s=1.0)
                comes = there.clock.now + there.dice.uniform(-BEFORE_S, AFTER_S)
                there.sim.at(comes, lambda now, name=name: connect(there.sim, now, name))
                sweep = model.SweepNode(name=name, reason="its instance is gone")
                assert (await there.executor.perform(sweep)).failure is None
                there.settle(name)
                assert there.sim.items[number].fate in {Fate.DONE, Fate.CANCELLED, Fate.FAILED}
            assert there.fates()[Fate.FAILED] <= visible(of_version, tries) + 1
            assert there.fates()[Fate.DONE] > tries / 15


def connect(sim, now, name):
    with contextlib.suppress(simulation.SimulatedRefusal):
        sim.connect(now, name)
