"""What the cluster and the broker survive: brokers, masters and agents that die, memory that ends.

On the fake master, whose agents run real programs, and with ``--live mesos=ADDRESS`` on a real one.
There ``MESOS_RESTART_MASTER`` and ``MESOS_RESTART_AGENT`` are commands that do so; the memory test
needs an agent with a memory isolator.
"""

import asyncio
import contextlib
import getpass
import os
import shlex
import sys
import time

import aiohttp
import attrs
import pytest
import pytest_asyncio

from backends import api
from tests import leftovers, patience
from tests.contract import checks
from tests.contract.harness import Program
from tests.mesos import agent, master, short_life, wire

WITHIN_S = 30.0
USER = os.environ.get("MESOS_TASK_USER") or getpass.getuser()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" in metafunc.fixturenames:
        wishes = [wish.partition("=") for wish in metafunc.config.getoption("live")]
        lives = [
            pytest.param(address, id="live", marks=pytest.mark.enable_socket)
            for kind, _, address in wishes
            if kind == "mesos"
        ]
        params = [pytest.param("", id="fake"), *lives]
        metafunc.parametrize("cluster", params, indirect=True)


@attrs.define(kw_only=True)
class Cluster:
    """One cluster, and what may be done to it."""

    address: str
    folder: object
    served: wire.Wire | None = None  # None: a real one
    made: list = attrs.field(factory=list)

    def backend(self):
        user, work = USER, str(self.folder / "work")
        one = short_life.made(self.address, self.folder / "state", user, work)
        self.made.append(one)
        return one

    @contextlib.asynccontextmanager
    async def program(self, name: str):
        """Run a broker's backend that launches an instance, as a process to be killed."""
        words = [self.address, str(self.folder / "state"), USER, name]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.mesos.short_life",
            *words,
            str(self.folder / "work"),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def restart(self, what: str) -> None:
        if self.served is not None and what == "master":
            self.served.machine.fail_over()
            self.served.cut()
            await asyncio.sleep(0.3)
            self.served.machine.reregister()
            return
        command = os.environ.get(f"MESOS_RESTART_{what.upper()}")
        if command is None:
            pytest.skip(f"MESOS_RESTART_{what.upper()} is not set: no command to restart it")
        # what it starts is the platform's, and not to be ended with the tests
        strange = (leftovers.MARK, "PYTEST_CURRENT_TEST")
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command),
            env={key: value for key, value in os.environ.items() if key not in strange},
        )
        assert 0 == await patience.wait_for(process.wait(), WITHIN_S)


@pytest_asyncio.fixture
async def cluster(request, tmp_path):
    (tmp_path / "state").mkdir()
    async with contextlib.AsyncExitStack() as stack:
        served = None
        if not request.param:
            machine = master.Master(agents=2, wall=time.time())
            machine.allocation_s = 0.05
            machine.launcher = agent.Launcher(machine, tmp_path / "agents")
            served = await stack.enter_async_context(wire.Wire(machine).serving())
            stack.push_async_callback(machine.launcher.aclose)
        one = Cluster(address=request.param or served.base, folder=tmp_path, served=served)
        yield one
        last = one.backend()
        for name in await listed(last):
            await last.terminate(name, grace_s=0)
        for backend in one.made:
            await backend.aclose()


async def listed(backend) -> dict[str, api.Instance]:
    """List as soon as it can be listed: a master that was restarted waits for its agents."""

    async def look() -> tuple | None:
        with contextlib.suppress(api.Unavailable):
            return (await checks.listed(backend),)
        return None

    return (await checks.until("it lists", look, within_s=WITHIN_S))[0]


@pytest.mark.parametrize("moment", ["launching", "launched"])
async def test_a_killed_broker_is_followed_by_one_that_knows(cluster, moment):
    """SIGKILL in the midst of a launch or after it: one task at most, and the next life has it."""
    async with cluster.program("a1") as process:
        while (await process.stdout.readline()).decode().strip() != moment:
            assert process.returncode is None
        process.kill()
        await process.wait()
    backend = cluster.backend()
    found = await listed(backend)
    assert set(found) <= {"a1"}
    if moment == "launched":
        assert {"a1"} == set(found)
    await backend.launch(short_life.spec("a1"))
    running = await checks.running(backend, "a1", within_s=WITHIN_S)
    assert {"owner": short_life.OWNER} == running.metadata
    await backend.terminate("a1", grace_s=0)
    assert {} == await listed(backend)


@pytest.mark.parametrize("what", ["master", "agent"])
async def test_a_restart_below_us_ends_nothing(cluster, what):
    """The instance runs on, the same broker lists it again, launches and terminates."""
    if what == "agent" and cluster.served is not None:
        pytest.skip("checkpointed tasks outlive an agent's process: the fake has no such process")
    backend = cluster.backend()
    await backend.launch(short_life.spec("a1"))
    await checks.running(backend, "a1", within_s=WITHIN_S)
    await cluster.restart(what)

    async def again() -> bool:
        try:
            await backend.launch(short_life.spec("a2"))
        except (api.Unavailable, api.NoCapacity):
            return False
        return True

    await checks.until("it launches again", again, within_s=WITHIN_S)
    found = await listed(backend)
    assert {"a1": None, "a2": None} == {name: one.exit for name, one in found.items()}
    for name in ("a1", "a2"):
        await backend.terminate(name, grace_s=0)
    assert {} == await listed(backend)


async def test_memory_that_ends_is_named(cluster):
    """A program that takes more than its limit is killed, and the certificate says of what."""
    if cluster.served is not None:
        pytest.skip("the fake isolates no memory; recording 27 is held in test_death.py")
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{cluster.address}/slaves") as response:
            (first, *_) = (await response.json())["slaves"]
        url = f"http://{first['pid'].rpartition('@')[2]}/flags"
        async with http.get(url) as response:
            isolation = (await response.json())["flags"].get("isolation", "")
    if "cgroups/mem" not in isolation and "cgroups/all" not in isolation:
        pytest.skip(f"the agent isolates no memory: {isolation!r}")
    eater = "x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x}"
    backend = cluster.backend()
    spec = attrs.evolve(short_life.spec("a1"), argv=Program(commands=eater).argv())
    await backend.launch(spec)
    ended = await checks.exited(backend, "a1", within_s=WITHIN_S)
    assert "out-of-memory" == ended.exit.slug
