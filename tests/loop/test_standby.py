"""The loop of one of several brokers: it looks, acts only while it leads, and begins anew."""

import asyncio

import attrs
import pytest

from broker.core import model
from tests.loop.daemons import LOCAL, Daemon, template

pytestmark = pytest.mark.looptime


class Led(Daemon):
    """A daemon that somebody tells whether it leads."""

    def __init__(self, *templates, leading=False, **more):
        super().__init__(*templates, **more)
        self.leading = leading
        self.loop.leads = lambda: self.leading
        self.loop.executor.leads = lambda: self.leading

    def lead(self):
        self.leading = True
        self.loop.take_over()

    def lose(self):
        self.leading = False
        self.loop.step_down()


WRITES = {"create", "cordon", "uncordon", "delete", "seal", "unseal"}


async def test_a_standby_looks_and_does_nothing():
    """An item waits for a minute: the queue is read, slowly, and nothing is changed anywhere."""
    async with Led() as made:
        made.submit()
        await asyncio.sleep(60)
        assert made.instances == set()
        assert set(made.controller.asked) == {"read"}  # not even a peek
        assert 12 == pytest.approx(made.controller.asked["read"], abs=1)
        assert made.loop.state.plan.actions  # it knows what it would do
        assert [] == made.notes.latencies


async def test_taking_over_serves_what_waits_at_once():
    """It does not wait for its next look, nor for the pause of a start."""
    async with Led() as made:
        await asyncio.sleep(31)
        made.submit(duration_s=1.0)
        made.lead()
        await asyncio.sleep(3)
        assert 1 == len(made.instances)
        await asyncio.sleep(2)
        assert ["done"] == made.fates()


async def test_what_was_seen_before_is_not_acted_on():
    """A look that began before the take-over, and does not show the other's last launch."""
    async with Led() as made:
        made.submit(duration_s=30)
        made.controller.slow_s = 1.0  # the look is answered with what was true at its begin
        await asyncio.sleep(5.5)
        begun = made.controller.asked["read"]
        while made.controller.asked["read"] == begun:
            await asyncio.sleep(0.1)
        made.lead()
        reads = len(made.controller.reads)
        while not made.controller.asked["create"]:
            await asyncio.sleep(0.1)
        assert len(made.controller.reads) > reads
        await asyncio.sleep(5)
        assert 1 == len(made.instances)


async def test_a_followed_picture_is_listed_anew():
    """Whatever a stream was late to tell, the first look of a term has: it is opened again."""
    made = Led()
    opened, closed = [], []
    stream = made.backends[LOCAL].watch

    async def watch():
        opened.append(made.now())
        try:
            async for one in stream():
                yield one
        finally:
            closed.append(made.now())

    made.backends[LOCAL].watch = watch
    async with made:
        await asyncio.sleep(6)
        assert (1, 0) == (len(opened), len(closed))
        reads = len(made.controller.reads)
        made.lead()
        await asyncio.sleep(1)
        assert (2, 1) == (len(opened), len(closed))
        assert made.controller.reads[reads] - made.watch._offset >= closed[0]


def launched(made):
    """Return whose instance was launched, and has not only its room."""
    return {name for name, cell in made.platforms[LOCAL]._cells.items() if not cell.held}


async def test_stepping_down_abandons_what_is_in_flight():
    """As by a kill: the launch ends where it is, and nothing is settled."""
    async with Led(leading=True) as made:
        made.controller.slow_s = 2.0
        made.submit()
        await asyncio.sleep(3)
        assert 1 == made.loop.in_flight
        made.lose()
        await asyncio.sleep(0.1)
        assert 0 == made.loop.in_flight
        assert {} == made.loop.state.ledger.expectations
        await asyncio.sleep(60)
        assert set() == launched(made)
        assert [] == [v for v in made.notes.results if v[0] == "launch"]


async def test_the_next_call_of_an_action_is_not_begun():
    """The process was stopped between the node and the instance: its own clock says no."""
    async with Led(leading=True) as made:
        create = made.controller.create

        async def create_slowly(definition):
            await create(definition)
            made.leading = False  # nobody has told the loop yet

        made.loop.executor.nodes.create = create_slowly
        made.submit()
        await asyncio.sleep(5)
        assert 1 == len(made.sim.nodes)
        assert set() == launched(made)
        assert 1 == made.notes.results["launch", "withdrawn"]


@pytest.mark.parametrize("verb", ["cordon", "delete", "terminate"])
async def test_no_removal_is_begun_either(verb):
    """At each single call of a retirement."""
    async with Led(template(retention=model.Retention(idle_s=5.0)), leading=True) as made:
        made.submit(duration_s=1.0)
        await asyncio.sleep(5)
        (name,) = made.instances
        stop = {"cordon": "read", "delete": "cordon", "terminate": "delete"}[verb]
        nodes = made.loop.executor.nodes
        call = getattr(nodes, stop)

        async def then_lose(*told, **more):
            answer = await call(*told, **more)
            made.leading = False
            return answer

        setattr(nodes, stop, then_lose)
        await asyncio.sleep(30)
        assert {name} == made.instances
        assert (verb == "terminate") is (name not in made.sim.nodes)
        assert 1 == made.notes.results["retire", "withdrawn"]


async def test_a_new_term_knows_builds_but_no_whole_life():
    """What it saw as a standby counts; that it has seen everything, it does not believe."""
    async with Led(template(retention=model.Retention(max_builds=3)), leading=True) as made:
        made.submit(duration_s=2.0)
        await asyncio.sleep(8)
        (name,) = made.instances
        assert made.loop.state.ledger.memories[name].online_witnessed
        made.lose()
        made.lead()
        memory = made.loop.state.ledger.memories[name]
        assert (1, False) == (memory.builds, memory.online_witnessed)
        kept = made.loop.state.ledger
        assert kept.session_at is not None
        session = {"session": kept.session, "session_at": kept.session_at}
        assert attrs.evolve(kept, memories={}, cycle=0) == model.Ledger(
            **session, trials=kept.trials
        )
