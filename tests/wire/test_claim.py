"""The claim on an owner name over HTTP: two brokers, restarts, a person, a missing permission."""

import contextlib

import pytest
import recorded
from attrs import define

from broker.controller import placeholder, reading
from broker.core.fleet import marks
from broker.leading import identity
from broker.simulator import access, simulation
from broker.simulator import controller as controllers
from jnlp import client, errors, http
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings

OWNER, NODE = "ci", "ci-placeholder"
CHALLENGE_S = 10.0


@define
class Clock:
    now: float = 1_000_000.0

    def read(self):
        return self.now


@define
class Host:
    """A broker's claim, on some machine; ``state`` is what its state directory remembers."""

    server: controllers.SimulatedController
    clock: Clock
    reader: reading.Reader
    nodes: client.NodeClient
    state: dict

    def starts(self, holder, *, ahead=0):
        mine = identity.Claim(holder=holder, since=int(self.clock.now + ahead))
        standing = identity.Standing(mine=mine, previous=tuple(self.state.get("holders", ())))
        return placeholder.Placeholder(
            nodes=self.nodes, owner=OWNER, standing=standing, challenge_s=CHALLENGE_S
        )

    async def cycle(self, place):
        works = await place.tend(await self.reader.read(self.clock.read), now=self.clock.now)
        if works:
            self.state["holders"] = [place.standing.mine.holder]
        self.clock.now += 5.0
        self.server.sim.advance(self.clock.now)
        return works


@contextlib.asynccontextmanager
async def hosts(**may):
    clock = Clock()
    sim = simulation.Simulation(version="2.263.4")
    rules = access.Accounts(user="u", token="a-token", **may)
    server = controllers.SimulatedController(sim, now=clock.read, access=rules)
    credentials = jnlp_settings.Credentials(user="u", secret=jnlp_secret.Secret("a-token"))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(server)

        async def host():
            settings = recorded.settings(server.url, credentials=credentials)
            session = await stack.enter_async_context(http.ControllerSession(settings))
            nodes = client.NodeClient(session)
            return Host(server, clock, reading.Reader(session), nodes, {})

        yield sim, await host(), await host()


def holder_of(sim):
    return identity.read(sim.nodes[NODE].description).holder


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
async def test_a_second_broker_refuses(ahead):
    """Its clock may be wrong by an hour, its user be another one; the first one goes on."""
    async with hosts() as (sim, one, two):
        first = one.starts("first")
        assert await one.cycle(first)
        assert await one.cycle(first)
        second = two.starts("second", ahead=ahead)
        assert not await two.cycle(second)
        assert len(sim.nodes) == 2
        assert await one.cycle(first)
        assert (list(sim.nodes), holder_of(sim)) == ([NODE], "first")
        with pytest.raises(placeholder.SecondBroker) as raised:
            await two.cycle(second)
        assert str(raised.value) == (
            "another broker (first) works for owner 'ci' on this controller; hint: every broker "
            "needs an owner name of its own, or stop the other one"
        )
        assert await one.cycle(first)


async def test_after_a_kill_the_same_state_directory_starts_at_once():
    """Another host has to wait for as long as a living broker needs to take its claim back."""
    async with hosts() as (sim, one, two):
        await one.cycle(one.starts("life1"))
        assert await one.cycle(one.starts("life2"))  # killed, started again
        stranger = two.starts("stranger")
        assert [await two.cycle(stranger) for _ in range(4)] == [False, False, True, True]
        assert (list(sim.nodes), holder_of(sim)) == ([NODE], "stranger")


async def test_an_offline_message_means_nothing():
    """Whoever may take nodes offline writes a claim into it, again and again: nobody is ended."""
    async with hosts() as (sim, one, two):
        first = one.starts("first")
        assert await one.cycle(first)
        words = identity.Claim(holder="mallory", since=1).text()
        for _ in range(5):
            sim.take_offline(one.clock.now, NODE, f"agent-broker: held by mallory {words}")
            assert await one.cycle(first)
        assert holder_of(sim) == "first"
        newcomer = two.starts("second")
        assert not await two.cycle(newcomer)
        sim.take_offline(one.clock.now, NODE, words)
        assert [await two.cycle(newcomer) for _ in range(2)] == [False, True]


async def test_a_restart_of_the_controller_changes_nothing():
    """The claim is part of the node."""
    async with hosts() as (sim, one, _):
        first = one.starts("first")
        await one.cycle(first)
        sim.restart(one.clock.now, down_s=1.0)
        one.clock.now += 2.0
        assert await one.cycle(first)
        assert holder_of(sim) == "first"


@pytest.mark.parametrize("how", ["delete", "online"])
async def test_a_person_removes_the_claim(how):
    """It is back after one look, and the broker went on."""
    async with hosts() as (sim, one, _):
        first = one.starts("first")
        await one.cycle(first)
        if how == "delete":
            sim.delete_node(one.clock.now, NODE)
        else:
            sim.toggle(one.clock.now, NODE, "")
        assert await one.cycle(first)
        assert holder_of(sim) == "first"


async def test_a_permission_is_missing():
    """The error names it; once granted, it is claimed when the pause is over."""
    missing = "Agent/Create"
    async with hosts(permissions=access.ALL - {missing, "Overall/Administer"}) as (sim, one, _):
        first = one.starts("first")
        with pytest.raises(errors.Forbidden, match=missing) as raised:
            await one.cycle(first)
        assert (raised.value.permission, raised.value.fault) == (missing, "operator")
        one.server.access.permissions = access.ALL
        one.clock.now += 5.0
        assert await one.cycle(first)
        assert holder_of(sim) == "first"


async def test_the_node_is_removed_once():
    """Leaving for good, twice."""
    async with hosts() as (sim, one, _):
        first = one.starts("first")
        await one.cycle(first)
        assert marks.placeholder_name(OWNER) in sim.nodes
        await first.remove()
        await first.remove()
        assert sim.nodes == {}
