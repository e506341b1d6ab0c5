"""Faults around a broker process: no disk, no controller, no memory to spare."""

import asyncio
import contextlib
import subprocess

import pytest

from benchmarks import broker_growth
from broker import clock
from broker.simulator import controller, simulation
from tests.e2e import stage

REUSED = "  pool: {labels: pool, retention: {idle: 1h, max_builds: 2}}\n"


@pytest.fixture
def small_disk(tmp_path):
    """A state directory on a file system of its own that can be filled."""
    folder = tmp_path / "state"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("no small file system: mounting needs root and a kernel that lets us")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    """Leave no byte free."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


async def test_with_a_full_state_directory_it_goes_on_says_so_and_recovers(tmp_path, small_disk):
    """Builds are served all the same; the count of builds is written once there is room."""
    async with stage.Stage(tmp_path, templates=REUSED) as made:
        broker = await made.start()
        await made.until_up(broker)
        fill(small_disk)
        made.submit("pool", duration_s=0.1)
        await made.until_served()
        await made.until(lambda: "not written" in broker.said.read_text(), "it says so")
        await made.kill(broker)
        broker = await made.start()
        made.submit("pool", duration_s=0.1)
        await made.until_served()
        assert 1 == broker.said.read_text().count("No space left") or made.describe()
        (small_disk / "filler").unlink()
        written = small_disk / "builds.json"
        await made.until(lambda: written.exists() and written.stat().st_size > 2, "it recovers")
        assert 0 == (await made.stop(broker)).code
        assert {"done": 2} == made.fates()


async def test_a_state_directory_that_cannot_be_made_is_said_before_anything_starts(tmp_path):
    """Exit code 2, the path, a hint; the controller is not even asked."""
    (tmp_path / "file").write_text("")
    async with stage.Stage(tmp_path) as made:
        made.write_config(state=tmp_path / "file" / "state")
        ended = await made.ended(await made.start())
        assert 2 == ended.code
        assert f"state_dir {tmp_path}/file/state" in ended.said
        assert "hint:" in ended.said
        assert [] == made.server.requests


async def test_a_controller_that_is_away_at_the_start_and_later_costs_nothing(tmp_path):
    """The broker waits, agents stay and come back, every build is served once."""
    async with stage.Stage(tmp_path, templates=REUSED) as made:
        made.server.restart(down_s=1.5)
        broker = await made.start()
        made.submit("pool", duration_s=0.1)
        await made.until_served()
        kept = set(made.agents)
        await made.server.aclose()  # nobody listens: not even a 503
        port = int(made.server.url.rsplit(":", 1)[1].rstrip("/"))
        await made.until(lambda: not made.sim.nodes[min(kept)].connected, "its agent is cut off")
        await made.until(
            lambda: made.processes() and broker.returncode is None, "both are still there"
        )
        await made.server.start(port=port)
        made.submit("pool", duration_s=0.1)
        await made.until_served(within_s=30)
        assert {"done": 2} == made.fates()
        assert kept == {item.node for item in made.sim.items.values()}
        assert 0 == (await made.stop(broker)).code


@pytest.mark.soak
async def test_the_process_does_not_grow_with_the_agents_it_has_had(tmp_path):
    """After 40 single-use agents it holds no more than after 20."""
    watch, sim = clock.Clock(), simulation.Simulation()
    access = controller.Accounts(user="u", token="a-token-of-eleven")
    async with controller.SimulatedController(sim, now=watch.now, access=access) as server:
        clockwork = asyncio.create_task(server.run(), name="clockwork")
        async with broker_growth.running(tmp_path, server) as pid:
            sizes = []
            for _ in range(2):
                await broker_growth.serve(server, 20)
                sizes.append(broker_growth.resident_mib(pid))
        clockwork.cancel()
    assert sizes[1] - sizes[0] < 1.0
