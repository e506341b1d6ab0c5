"""The keeper of the leadership: what it does with a platform that answers, hangs, or is away."""

import asyncio

import pytest

from backends import api, lease
from broker import clock
from broker.core import election
from broker.leading import leadership

pytestmark = pytest.mark.looptime

TERMS = election.Terms()


class Memory:
    """One record for several keepers; hangs and fails on request."""

    where = "lease l"

    def __init__(self, shared=None):
        self.shared = shared or {"seen": None, "version": 0}
        self.error = None
        self.hangs = False
        self.asked = []
        self.closed = False

    async def _ask(self, what):
        self.asked.append(what)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(0.05)
        if self.error is not None:
            raise self.error

    async def read(self):
        await self._ask("read")
        return self.shared["seen"]

    async def write(self, record, *, over):
        await self._ask("write")
        if over != self.shared["seen"]:
            return None
        self.shared["version"] += 1
        seen = lease.SeenRecord(record=record, version=str(self.shared["version"]), uid="U-1")
        self.shared["seen"] = seen
        return seen

    async def aclose(self):
        self.closed = True


class Keeper:
    """A running leadership; ``turns`` are the moments at which who leads changed."""

    def __init__(self, name, memory, *, elapsed=None):
        self.now = asyncio.get_running_loop().time
        self.memory = memory
        self.it = leadership.Elected(
            lease=memory,
            me=name,
            terms=TERMS,
            watch=clock.Clock(wall=lambda: 1e9 + self.now(), monotonic=self.now),
            elapsed=elapsed or self.now,
        )
        self.turns = []
        self.life = asyncio.create_task(self.it.run(self._changed), name=name)

    def _changed(self):
        if not self.turns or self.turns[-1][1] is not self.it.leading:
            self.turns.append((self.now(), self.it.leading))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.life.cancel()
        await asyncio.gather(self.life, return_exceptions=True)


async def test_the_first_leads_and_goes_on():
    """One request in two seconds, and no other."""
    memory = Memory()
    async with Keeper("one", memory) as one:
        await asyncio.sleep(60)
        assert one.it.leading
        assert [True] == [led for _, led in one.turns]
        assert ["read", "write"] == memory.asked[:2]
        assert set(memory.asked[2:]) == {"write"}
        assert 31 == pytest.approx(len(memory.asked), abs=2)
        state = one.it.state()
        assert (True, "one", 0, "") == (
            state.shared,
            state.holder,
            state.transitions,
            state.reason,
        )
        assert "u1" == one.it.claim


async def test_the_second_waits_and_says_for_whom():
    """It asks as often, and writes nothing."""
    first = Memory()
    second = Memory(first.shared)
    async with Keeper("one", first), asyncio.timeout(100):
        await asyncio.sleep(1)
        async with Keeper("two", second) as two:
            await asyncio.sleep(30)
            assert not two.it.leading
            assert {"read"} == set(second.asked)
            assert "one leads" == two.it.state().reason
            assert (True, pytest.approx(1e9 + 1, abs=1)) == (
                two.it.state().reached,
                two.it.state().since,
            )


async def test_who_leaves_hands_over_within_a_retry_period():
    """The lease is freed, the connection closed, and the other takes it at its next look."""
    first = Memory()
    async with Keeper("one", first) as one, Keeper("two", Memory(first.shared)) as two:
        await asyncio.sleep(20)
        one.it.leave()
        assert not one.it.leading  # at once, not when somebody has heard of it
        left = one.now()
        await asyncio.wait_for(one.life, 1.0)
        assert first.closed
        while not two.it.leading:
            await asyncio.sleep(0.01)
        assert two.now() - left < TERMS.retry_s + 0.3
        assert 1 == two.it.state().transitions


async def test_who_leaves_does_not_wait_for_a_platform_that_is_away():
    """It tries for as long as the deadline; then the lease runs out by itself."""
    memory = Memory()
    async with Keeper("one", memory) as one:
        await asyncio.sleep(5)
        memory.hangs = True
        one.it.leave()
        await asyncio.wait_for(one.life, TERMS.renew_deadline_s + TERMS.renew_deadline_s / 2 + 0.1)
        assert memory.closed


async def test_a_standby_that_leaves_leaves_at_once():
    """It has nothing to give back."""
    first = Memory()
    async with Keeper("one", first), Keeper("two", Memory(first.shared)) as two:
        await asyncio.sleep(5)
        two.it.leave()
        await asyncio.wait_for(two.life, 0.2)
        assert "one" == first.shared["seen"].record.holder


@pytest.mark.parametrize("how", ["hangs", "fails"])
async def test_who_cannot_renew_says_so_at_the_deadline_and_comes_back(how):
    """Not later, whatever it waits for; and it leads again as soon as it has an answer."""
    memory = Memory()
    async with Keeper("one", memory) as one:
        await asyncio.sleep(5)
        if how == "hangs":
            memory.hangs = True
        else:
            memory.error = api.Unavailable("it is away")
        begun = max(one.it._candidate.began_at, 0)
        await asyncio.sleep(10)
        assert [True, False] == [led for _, led in one.turns]
        assert begun + TERMS.renew_deadline_s == pytest.approx(one.turns[-1][0], abs=0.02)
        state = one.it.state()
        assert not state.reached
        assert ("no answer in time" if how == "hangs" else "it is away") in state.reason
        memory.hangs, memory.error = False, None
        await asyncio.sleep(TERMS.renew_deadline_s)
        assert one.it.leading
        assert one.it.state().reached


async def test_the_first_answer_may_take_long():
    """Credentials have to be fetched, perhaps: cut short again and again it would never come."""
    memory = Memory()
    ask = memory._ask

    async def ask_slowly(what):
        await asyncio.sleep(0 if memory.asked else 20)
        await ask(what)

    memory._ask = ask_slowly
    async with Keeper("one", memory) as one:
        await asyncio.sleep(21)
        assert one.it.leading


async def test_a_platform_that_refuses_is_not_asked_in_a_loop():
    """A right that is missing: one question in a retry period."""
    memory = Memory()
    memory.error = api.Unauthorized("may not get leases")
    async with Keeper("one", memory) as one:
        await asyncio.sleep(60)
        assert len(memory.asked) <= 31
        assert "may not get leases" in one.it.state().reason


async def test_a_clock_that_ran_on_while_the_process_slept():
    """After a suspend: it is over before anybody has told, and before anything is asked."""
    asleep = [0.0]
    memory = Memory()
    now = asyncio.get_running_loop().time
    async with Keeper("one", memory, elapsed=lambda: now() + asleep[0]) as one:
        await asyncio.sleep(5)
        assert one.it.leading
        asleep[0] = 3600.0
        assert not one.it.leading
        await asyncio.sleep(3)
        assert [True, False, True] == [led for _, led in one.turns]  # nobody had taken it


async def test_alone_costs_nothing():
    """Without a section the broker leads, and nothing runs."""
    alone = leadership.Always()
    await alone.run(lambda: None)
    alone.leave()
    assert (True, None) == (alone.leading, alone.claim)
    assert not alone.state().shared
