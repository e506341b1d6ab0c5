"""A node is deleted so that Pipeline ends the steps on it at once: over HTTP, simulated."""

import contextlib

import pytest
import recorded
from attrs import define

from broker.controller import reading
from broker.core import model
from broker.core.decide import judge
from broker.loop import execute
from broker.simulator import controller as controllers
from broker.simulator import documents, simulation
from broker.simulator.simulation import Fate, TaskKind
from jnlp import client, errors, http, node
from tests.core import worlds

TEMPLATE = worlds.template("t", "linux")
NAME = "o-t-1"


class Killed(controllers.SimulatedController):
    """It is killed when it has answered so many more requests, and comes up again at once."""

    killed_after = None

    async def _handle(self, request):
        answer = await super()._handle(request)
        if self.killed_after is not None:
            self.killed_after -= 1
            if self.killed_after == 0:
                self.sim.restart(self.now(), down_s=0.0)
        return answer


@define
class Place:
    """A Pipeline's step whose agent has just died."""

    sim: simulation.Simulation
    server: controllers.SimulatedController
    session: http.ControllerSession
    now: float = worlds.NOW

    def submit(self, **job):
        number = self.sim.submit(
            self.now, label="linux", duration_s=60, **{"kind": TaskKind.PIPELINE, **job}
        )
        return self.sim.items[number]

    def later(self, seconds):
        self.now += seconds
        self.sim.advance(self.now)


@contextlib.asynccontextmanager
async def place(**more):
    sim = simulation.Simulation(**more)
    there = Place(sim, None, None)
    server = Killed(sim, now=lambda: there.now)
    async with server, http.ControllerSession(recorded.settings(server.url)) as session:
        there.server, there.session = server, session
        agent = simulation.Node(name=NAME, labels=TEMPLATE.labels, connected=True)
        sim.create_node(there.now, agent)
        yield there


async def dead(there, **job):
    item = there.submit(**job)
    there.later(1.0)
    there.sim.disconnect(there.now, NAME)
    return item


async def test_a_step_ends_at_once_and_is_tried_again():
    """The old way is minutes; and of the node nothing is left."""
    async with place() as there:
        item = await dead(there, retries=1)
        there.later(30.0)
        assert item.fate is Fate.OPEN
        await client.NodeClient(there.session).release(NAME)
        there.later(0.1)
        assert item.fate is Fate.FAILED
        (again,) = there.sim.wanted
        assert (again.job, again.retries) == (item.job, 0)
        assert NAME not in there.sim.nodes
        assert there.sim.ghosts == {}


async def test_deletion_alone_leaves_the_step_for_minutes():
    async with place() as there:
        item = await dead(there)
        await client.NodeClient(there.session).delete(NAME)
        there.later(290.0)
        assert item.fate is Fate.OPEN
        there.later(20.0)
        assert item.fate is Fate.FAILED


async def test_without_the_plugin_all_stays_as_it_was():
    """The controller drops the mark without a word: so it is read again, and nothing is deleted."""
    async with place(durable_task=False) as there:
        await dead(there)
        before = documents.config_xml(there.sim.nodes[NAME])
        with pytest.raises(errors.Unexpected, match="the plugin durable-task is missing"):
            await client.NodeClient(there.session).release(NAME)
        assert documents.config_xml(there.sim.nodes[NAME]) == before


@pytest.mark.parametrize("fault", ["500", "503"])
async def test_who_cannot_be_deleted_is_not_left_marked(fault):
    """With the mark it would have no computer after the next start of the controller."""
    async with place() as there:
        await dead(there)
        there.server.fail_next("computer/*/doDelete", fault)
        with pytest.raises(errors.JenkinsError):
            await client.NodeClient(there.session).release(NAME)
        assert not there.sim.nodes[NAME].single_use


@pytest.mark.parametrize("gap", range(1, 4))
async def test_a_controller_that_is_killed_in_its_midst_starts_again(gap):
    """With the mark on a node that has a computer it would not start, until a person removes it."""
    async with place() as there:
        await dead(there)
        there.server.killed_after = gap
        with contextlib.suppress(errors.JenkinsError):
            await client.NodeClient(there.session).release(NAME)
        assert there.sim.session == "s2"
        assert not there.sim.is_down(there.now)


async def test_a_node_that_is_gone_is_said_to_be():
    async with place() as there:
        with pytest.raises(errors.NotFound):
            await client.NodeClient(there.session).release("nobody")


@pytest.mark.parametrize("is_there", [True, False])
async def test_the_reader_says_whether_it_can_be_done_and_asks_once(is_there):
    """Not before somebody died at work."""
    async with place(durable_task=is_there) as there:
        reader = reading.Reader(there.session)
        there.submit()
        there.later(1.0)
        assert not (await reader.read(lambda: there.now)).releases
        there.sim.disconnect(there.now, NAME)
        for _ in range(2):
            assert (await reader.read(lambda: there.now)).releases is is_there
        asked = [path for _, path in there.server.requests]
        assert asked.count("plugin/durable-task") == 1
        there.sim.restart(there.now, down_s=0.0)  # perhaps with another plugin


async def release(there, *, instance, steps=None):
    reader, nodes = reading.Reader(there.session), client.NodeClient(there.session)

    async def look():
        view = await reader.read(lambda: there.now)
        backend = model.BackendView(synced=True, read_at=there.now, instances=(instance,))
        ledger = model.Ledger(session=view.session, session_at=there.now - 3600)
        world = model.World(
            now=there.now, controller=view, backends={worlds.B: backend}, ledger=ledger
        )
        return judge.prepare(world, worlds.policy(TEMPLATE))

    steps = steps if steps is not None else []

    async def before_end(_action):
        steps.append(("last words", NAME in there.sim.nodes))

    executor = execute.Executor(
        nodes=nodes,
        backends={},
        order=None,
        look=look,
        retires_by_offline=lambda: True,
        now=lambda: there.now,
        before_end=before_end,
        released=lambda: steps.append(("released", NAME in there.sim.nodes)),
    )
    action = model.ReleaseAgent(
        name=NAME, backend=None, reason="killed by SIGKILL", cause=model.Cause.LOST_KILLED
    )
    return await executor.perform(action)


def instance(there, **more):
    scene = worlds.Scene(TEMPLATE)
    scene.agent("t", model.Phase.BUSY, suffix="1", exit=model_exit(**more))
    there.sim.nodes[NAME].description = scene.computers[0].description
    return scene.instances[worlds.B][0]


def model_exit(slug="killed", code=-9):
    return worlds.backends_api.Exit(slug=slug, code=code)


async def test_the_message_is_there_before_the_node_goes():
    """The build's log shows the offline cause; then the node goes, and its step ends."""
    async with place() as there:
        item = await dead(there)
        shown = instance(there)
        messages = []
        there.sim.on_gone = lambda name, _why: messages.append(agent.offline_message)
        agent = there.sim.nodes[NAME]
        outcome = await release(there, instance=shown)
        assert (outcome.failure, outcome.withdrawn) == (None, False)
        assert messages == ["agent-broker: lost-killed: killed by SIGKILL"]
        assert item.fate is Fate.FAILED


async def test_nobody_waits_for_the_last_words_of_the_dead():
    """Its steps end first; then whatever is queued anew is looked for, and its log is read."""
    async with place() as there:
        await dead(there)
        steps = []
        await release(there, instance=instance(there), steps=steps)
        assert steps == [("released", False), ("last words", False)]


async def test_whoever_came_back_meanwhile_keeps_its_step():
    async with place() as there:
        item = await dead(there)
        shown = instance(there)
        there.sim.connect(there.now, NAME)
        outcome = await release(there, instance=shown)
        assert outcome.withdrawn
        assert outcome.text == "it is online"
        assert item.fate is Fate.OPEN


async def test_a_matrix_cell_or_freestyle_build_that_has_not_ended_is_let_alone():
    """It fails by itself in a moment; whatever it still does on the controller goes on."""
    async with place() as there:
        there.sim.nodes[NAME].slots.append(simulation.Slot())
        item = await dead(there)
        shown = instance(there)
        other = there.submit(kind=TaskKind.MATRIX)
        there.sim.nodes[NAME].slots[1] = simulation.Slot(item=other, running=True)
        outcome = await release(there, instance=shown)
        assert outcome.text == "other things than steps of a Pipeline run on it"
        assert (item.fate, NAME in there.sim.nodes) == (Fate.OPEN, True)


def test_the_mark_is_read_as_the_controller_writes_it():
    """With the plugin's name as an attribute (2.541.3), which differs from how it was sent."""
    kept = (
        "<?xml version='1.1' encoding='UTF-8'?>\n<slave>\n  <name>n</name>\n"
        '  <retentionStrategy class="org.jenkinsci.plugins.durabletask.executors.'
        'OnceRetentionStrategy" plugin="durable-task@639.v99076e9c3145">\n'
        "    <idleMinutes>10</idleMinutes>\n  </retentionStrategy>\n</slave>"
    )
    assert node.is_single_use(kept)
    assert node.is_single_use(node.as_single_use("<slave><name>n</name></slave>"))
    assert not node.is_single_use("<slave><name>n</name></slave>")
