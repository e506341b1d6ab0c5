"""The second judgement before a removal: fresh for everybody, and not one read for each."""

import asyncio

import pytest

from broker import clock, metrics
from broker.core import model
from broker.loop import reconcile
from tests.core.worlds import policy

pytestmark = pytest.mark.looptime


class Controller:
    """A controller that takes a second for a read and says when the read began."""

    def __init__(self):
        self.began = []

    async def read(self, now, *, to_order=False):
        at = now()
        self.began.append(at)
        await asyncio.sleep(1.0)
        return model.ControllerView(synced=True, read_at=at, session="s1")

    async def peek(self):
        raise AssertionError


@pytest.fixture
async def made():
    """A reconciler that does not run."""
    now = asyncio.get_running_loop().time
    return reconcile.Reconciler(
        reader=Controller(),
        backends={},
        executor=None,
        place=None,
        policy=policy,
        recorder=metrics.NullRecorder(),
        watch=clock.Clock(wall=now, monotonic=now),
        roll=lambda: 0.5,
        new_id=lambda: "x",
    )


async def test_a_hundred_at_once_share_two_reads(made):
    """The first read may have begun too early for the others; the second serves them all."""
    await asyncio.gather(*(made.look() for _ in range(100)))
    assert len(made.reader.began) == 2


async def test_nobody_gets_a_read_that_began_before_the_call(made):
    """What arrived in between must be seen: a build could be lost over it."""

    async def ask(after):
        await asyncio.sleep(after)
        asked = made.watch.now()
        look = await made.look()
        assert look.world.controller.read_at >= asked

    await asyncio.gather(*(ask(n * 0.3) for n in range(12)))
    assert 4 <= len(made.reader.began) <= 6


async def test_a_caller_that_is_cancelled_leaves_the_others_a_fresh_read(made):
    """Its read is not counted as done."""
    await made.look()
    first = asyncio.create_task(made.look())
    await asyncio.sleep(0.1)
    second = asyncio.create_task(made.look())
    third = asyncio.create_task(made.look())
    await asyncio.sleep(0.1)
    asked = made.watch.now()
    first.cancel()
    for look in await asyncio.gather(second, third):
        assert look.world.controller.read_at >= asked - 0.1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_removal_is_judged_once_per_look_and_not_once_per_agent(made):
    """A thousand agents that leave join the agents and read the wishes once for each read."""
    looks = await asyncio.gather(*(made.look() for _ in range(1000)))
    assert len(made.reader.began) == 2
    assert len({id(look) for look in looks}) == 2
