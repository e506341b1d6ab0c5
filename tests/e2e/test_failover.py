"""Two real brokers, one lease: the leader is killed, stopped, cut off; the other goes on."""

import asyncio
import contextlib
import os
import random
import secrets
import signal

import pytest
import pytest_asyncio

from broker.simulator import simulation
from tests.e2e import replicas

ROUNDS = int(os.environ.get("FAILOVER_ROUNDS", "1"))
SEED = os.environ.get("FAILOVER_SEED") or secrets.token_hex(4)
WITHIN_S = 15.0 + 15.0
"""What is promised, and as much again for a machine that is busy."""

MOMENTS = ("computer/doCreateItem", "slave-agent.jnlp", "changeOfflineCause", "doDelete")
"""Requests in the midst of a launch or a retirement."""

pytestmark = pytest.mark.timeout(120 + 40 * ROUNDS)


@pytest_asyncio.fixture
async def pair(tmp_path):
    """Broker ``one`` leads, ``two`` stands by."""
    print(f"FAILOVER_SEED={SEED}")
    async with replicas.Replicas(tmp_path) as made:
        await made.start("one")
        await made.until_leads("one")
        await made.start("two")
        await made.until_said("two", "standby")
        yield made


@contextlib.asynccontextmanager
async def fed(pair):
    """Builds come all the time; afterwards each was served once and nothing was ordered twice."""
    feeder = asyncio.create_task(pair.feed(random.Random(SEED)))
    await pair.made.until(lambda: pair.made.fates().get("done", 0) >= 2, "builds are served")
    yield
    feeder.cancel()
    await pair.made.until_served(within_s=WITHIN_S)
    assert {simulation.Fate.DONE.value} == set(pair.made.fates()), pair.made.describe()
    assert [] == pair.cluster.excess, pair.describe()


async def works(pair, name):
    """Wait until an agent that this broker orders from now on is there, and a build is served."""
    before = len(pair.cluster.made_pods)
    item = pair.made.sim.items[pair.made.submit("single", 0.1)]
    await pair.made.until(
        lambda: (
            item.fate is simulation.Fate.DONE
            and any(agent in pair.said(name) for agent in pair.cluster.made_pods[before:])
        ),
        f"{name} has ordered an agent, and a new build is served",
        within_s=WITHIN_S,
    )


async def test_a_killed_leader_is_replaced(pair):
    """By kill -9: the standby leads when the lease has run out, and what waited is served."""
    async with fed(pair):
        await pair.made.kill(pair.brokers["one"])
        await pair.until_leads("two", within_s=WITHIN_S)
        await works(pair, "two")
        again = await pair.start("one")
        await pair.until_said("one", "standby")
        assert again.returncode is None


async def test_a_leader_that_ends_well_hands_over(pair):
    """SIGTERM finishes what is in flight and frees the lease; exit code 0, no wait."""
    async with fed(pair):
        ended = await pair.made.stop(pair.brokers["one"])
        assert 0 == ended.code
        assert pair.holder in {"", "two"}
        await pair.until_leads("two", within_s=WITHIN_S)
        await works(pair, "two")
        assert 1 == pair.cluster.leases[replicas.LEASE]["spec"]["leaseTransitions"]


async def test_a_stopped_leader_finds_itself_a_standby(pair):
    """SIGSTOP, fail-over, SIGCONT: it withdraws what it was about to do, and the other goes on."""
    async with fed(pair):
        one = pair.brokers["one"]
        one.send_signal(signal.SIGSTOP)
        await pair.until_leads("two", within_s=WITHIN_S)
        await works(pair, "two")
        one.send_signal(signal.SIGCONT)
        await pair.until_said("one", "no longer leading")
        await pair.made.until(lambda: pair.holder == "two", "the other goes on")
        await works(pair, "two")
        await pair.until_ready("one")
        document = await pair.document("one")
        assert (False, True) == (document["leading"], document["leader"].startswith("two_"))


async def test_a_leader_that_is_cut_off_stops_before_the_other_starts(pair):
    """No request of it gets through, no answer comes: it says so and waits; then it stands by."""
    async with fed(pair):
        pair.lines["one"].cut.set()
        await pair.until_said("one", "no longer leading")
        assert pair.holder == "one"  # the lease runs longer than it dares to act
        await pair.until_leads("two", within_s=WITHIN_S)
        await works(pair, "two")
        status, text = await pair.page("one", "readyz")
        assert (503, True) == (status, "standby" in text)
        pair.lines["one"].cut.clear()
        await pair.until_said("one", "two_")
        await pair.until_ready("one")


async def moment(pair, dice):
    """Wait for an instant in the midst of something, or any instant."""
    path = dice.choice(MOMENTS)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(dice.uniform(0.5, 4.0)):
            await pair.made.server.requests.next_that(lambda _, asked: asked.endswith(path))
    await asyncio.sleep(dice.uniform(0.0, 0.03))


@pytest.mark.soak
async def test_whoever_leads_is_struck_again_and_again(pair):
    """Killed, stopped or cut off in the midst of a launch or a retirement; nothing is lost."""
    dice = random.Random(SEED)
    async with fed(pair):
        for _ in range(ROUNDS):
            old = pair.holder
            new = "two" if old == "one" else "one"
            process, line = pair.brokers[old], pair.lines[old]
            how = dice.choice(("kill", "stop", "cut"))
            await moment(pair, dice)
            match how:
                case "kill":
                    await pair.made.kill(process)
                case "stop":
                    process.send_signal(signal.SIGSTOP)
                case "cut":
                    line.cut.set()
            await pair.until_leads(new, within_s=WITHIN_S)
            await asyncio.sleep(dice.uniform(0.0, 2.0))
            match how:
                case "kill":
                    process = await pair.start(old)
                case "stop":
                    process.send_signal(signal.SIGCONT)
                case "cut":
                    line.cut.clear()
            said = len(pair.said(old))
            await pair.made.until(
                lambda old=old, new=new, said=said: (
                    "standby" in pair.said(old)[said:]
                    or f"{new}_" in pair.said(old).rpartition("leading")[2]
                ),
                "the old one stands by",
            )
            assert process.returncode is None


async def test_the_standby_only_looks(pair):
    """Not a single request that changes anything, on either side; page and metrics say so."""
    await works(pair, "one")
    text = (await pair.page("two", ""))[1]
    assert "standby: one_" in text
    assert (200, True) == ((await pair.page("two", "readyz"))[0], "ready" in text)
    metrics = (await pair.page("two", "metrics"))[1]
    assert "jenkins_broker_leader 0.0" in metrics
    assert 'jenkins_broker_lease_holder_info{holder="one_' in metrics
    assert "jenkins_broker_leader 1.0" in (await pair.page("one", "metrics"))[1]
    await pair.made.kill(pair.brokers["one"])  # whatever is asked from here on, the other asks
    await asyncio.sleep(1.0)  # well below a lease
    before = len(pair.made.server.requests)
    await pair.made.until(
        lambda: ("GET", "queue/api/json") in pair.made.server.requests[before:], "it looks"
    )
    asked = pair.made.server.requests[before:]
    assert pair.holder == "one"
    assert {"GET"} == {method for method, _ in asked}
    assert "launch begun" not in pair.said("two")
