"""A swarm of three managers and two workers that loses them, for real; `make swarm`."""

import asyncio
import contextlib
import io
import secrets
import time

import attrs
import pytest

from backends import api
from backends.docker.swarm import backend, service, settings
from backends.kit import names, runtime
from broker.runtime import tree
from tests import patience
from tests.contract import checks, harness
from tests.docker import engines, swarms, test_swarm_runtimes

pytestmark = [pytest.mark.soak, pytest.mark.enable_socket, pytest.mark.timeout(900)]
WITHIN_S = 60.0
STATE = api.InstanceState


@pytest.fixture(scope="module")
def swarm():
    with swarms.swarm(3, 2) as made:
        yield made


@attrs.define
class Rig:
    """A backend of an owner of its own, over TCP."""

    swarm: swarms.Swarm
    backend: api.Backend
    owner: str

    def spec(self, name, on="", program=harness.FOR_EVER, resources=None, image=None, **options):
        where = (f"node.hostname=={self.swarm.hostname(on)}",) if on else ()
        told = {"networks": ("host",), "resolve": "id", "grace_s": 1, "constraints": where}
        return api.InstanceSpec(
            name=name,
            metadata={names.OWNER: "ours"},
            argv=program.argv(),
            image=image or engines.IMAGE,
            resources=resources or api.Resources(),
            options=settings.SwarmTemplate(**{**told, **options}),
        )

    async def running(self, name, on="", **more):
        await self.backend.launch(self.spec(name, on, **more))
        found = await checks.running(self.backend, name, within_s=WITHIN_S)
        assert not on or self.swarm.hostname(on) == found.place
        return found

    async def ended(self, name):
        return (await checks.exited(self.backend, name, within_s=WITHIN_S)).exit

    async def listed(self):
        return {one.name: one for one in await self.backend.list()}

    async def until(self, is_so, what):
        """Wait until it is so of what is listed."""
        found = None
        patient = patience.Patience(WITHIN_S)
        while not patient.is_over():
            with contextlib.suppress(api.BackendError):
                if is_so(found := await self.listed()):
                    return found
            await asyncio.sleep(0.2)
        raise AssertionError(f"{what}: {found}")

    def containers(self):
        """Names of what runs, one entry for each, by what the engines say that answer."""
        found = []
        for machine in self.swarm.machines.values():
            with contextlib.suppress(Exception):
                found += [
                    entry["Labels"][service.NAME]
                    for entry in machine.ask("containers")
                    if self.owner in str(entry["Labels"])
                ]
        return sorted(found)


@contextlib.asynccontextmanager
async def opened(swarm, **told):
    owner = f"t{secrets.token_hex(4)}"
    configured = settings.SwarmSettings(
        **{
            "managers": tuple(one.host for one in swarm.managers),
            "look_s": 0.2,
            "name_prefix": f"{owner}-",
            **told,
        }
    )
    made = backend.create(configured, owner=owner, store=None, state_dir=None, now=time.time)
    rig = Rig(swarm, made, owner)
    try:
        yield rig
        for name in await rig.listed():
            with contextlib.suppress(api.NotFound):  # it was ending
                await made.terminate(name, grace_s=0)
        await rig.until(lambda listed: not listed, "nothing is left")
        assert [] == [
            entry["Spec"]["Name"]
            for entry in swarm.managers[0].ask("secrets")
            if owner in str(entry["Spec"]["Labels"])
        ]
        swarm.until(lambda: not rig.containers(), "nothing runs")
    finally:
        await made.aclose()


async def raised(call):
    """Return what a call is refused with, if it is because nobody answers."""
    try:
        await call
    except api.Unavailable as error:
        return error
    return None


@contextlib.contextmanager
def without(*machines, how="kill"):
    """Let machines be dead for a while."""
    for machine in machines:
        getattr(machine, how)()
    try:
        yield
    finally:
        for machine in machines:
            machine.start() if how == "kill" else machine.reconnect()


async def test_the_leader_dies(swarm):
    """Nobody but the next question notices; what runs on the dead one's containers is told later."""
    first, *_ = swarm.managers
    async with opened(swarm) as rig:
        await rig.running("a", "w1")
        with without(first):
            began = time.monotonic()
            await rig.until(lambda listed: "a" in listed, "the others answer")
            await rig.running("b", "w2")
            print(f"leader killed: another agent runs after {time.monotonic() - began:.1f} s")
            assert ["a", "b"] == rig.containers()
        swarm.until(lambda: len(swarm.ready()) == 5, "it is back")


async def test_the_first_manager_is_cut_off(swarm):
    """A call to it hangs: the next one is asked beside it."""
    first, *_ = swarm.managers
    async with opened(swarm) as rig:
        await rig.running("a", "w1")
        with without(first, how="cut_off"):
            began = time.monotonic()
            await rig.until(lambda listed: listed["a"].state is STATE.RUNNING, "it is listed")
            looked_s = time.monotonic() - began
            await rig.running("b", "w2")
            print(f"cut off: listed after {looked_s:.1f} s, b at {time.monotonic() - began:.1f} s")
        swarm.until(lambda: len(swarm.ready()) == 5, "it is back")


async def test_the_quorum_is_lost(swarm):
    """Agents run on, nothing can be started, the words say why; it heals by itself."""
    _, second, third = swarm.managers
    async with opened(swarm) as rig:
        await rig.running("a", "w1")
        began = time.monotonic()
        with without(second, third):
            told = {"launch": None, "list": None}
            while not all(error and "no quorum" in error.reason for error in told.values()):
                told["launch"] = await raised(rig.backend.launch(rig.spec("b", "w2")))
                told["list"] = await raised(rig.listed())
                print(f"{time.monotonic() - began:5.1f} {told}")
                assert time.monotonic() - began < 300, told
            print(f"quorum lost: both are refused after {time.monotonic() - began:.1f} s")
            assert ["a"] == rig.containers()
        began = time.monotonic()
        listed = await rig.until(lambda listed: "a" in listed, "it has healed")
        print(f"quorum back: listed after {time.monotonic() - began:.1f} s")
        assert STATE.RUNNING is listed["a"].state
        await rig.running("b", "w2")
        assert ["a", "b"] == rig.containers()


async def test_a_machine_dies(swarm):
    """Its manager goes on to say that the task runs: the node's state is believed."""
    machine = swarm.machines["w1"]
    async with opened(swarm) as rig:
        await rig.running("a", "w1")
        await rig.running("b", "w2")
        with without(machine, how="cut_off"):
            began = time.monotonic()
            end = await rig.ended("a")
            print(f"machine dead: told after {time.monotonic() - began:.1f} s")
            assert ("platform-lost", False) == (end.slug, end.witnessed)
            assert "is down" in end.message
            await rig.backend.terminate("a", grace_s=0)
            assert ["b"] == sorted(await rig.listed())
            capacity = await rig.backend.capacity()
            assert swarm.hostname("w1") not in capacity.places
        swarm.until(lambda: ["b"] == rig.containers(), "what ran there is ended once it is back")


async def test_an_engine_is_killed_and_comes_back(swarm):
    """Its containers run on meanwhile; then they are ended, and the task tells how."""
    machine = swarm.machines["w1"]
    async with opened(swarm) as rig:
        await rig.running("a", "w1")
        with without(machine):
            end = await rig.ended("a")
            assert ("platform-lost", False) == (end.slug, end.witnessed)
        swarm.until(lambda: not rig.containers(), "the engine ends what it finds")
        end = (await rig.listed())["a"].exit
        print(f"engine killed and back: {end}")


async def test_a_node_is_drained(swarm):
    async with opened(swarm) as rig:
        await rig.running("a", "w1")
        swarm.update("w1", Availability="drain")
        try:
            end = await rig.ended("a")
            assert ("evicted", True) == (end.slug, end.witnessed), end
            assert "drained" in end.message
            await rig.backend.launch(rig.spec("b", "w1"))
            listed = await rig.until(
                lambda listed: "no node takes it" in listed["b"].detail, "the scheduler says why"
            )
            assert STATE.STARTING is listed["b"].state
        finally:
            swarm.update("w1", Availability="active")
        await checks.running(rig.backend, "b", within_s=WITHIN_S)


async def test_a_manager_is_demoted_and_a_worker_is_asked(swarm):
    third = swarm.managers[2]
    async with opened(swarm, managers=(third.host, swarm.managers[0].host)) as rig:
        await rig.running("a", "w1")
        swarm.update("m3", Role="worker")
        try:
            swarm.until(
                lambda: not third.ask("info")["Swarm"]["ControlAvailable"], "it is demoted"
            )
            assert ["a"] == sorted(await rig.listed())
            told = settings.SwarmSettings(managers=(swarm.machines["w2"].host, third.host))
            blind = backend.create(told, owner="o", store=None, state_dir=None, now=time.time)
            with pytest.raises(api.Unauthorized, match="is a worker, or was demoted"):
                await blind.list()
            await blind.aclose()
        finally:
            swarm.update("m3", Role="manager")
        swarm.until(lambda: third.ask("info")["Swarm"]["ControlAvailable"], "it manages again")


HOG = "tail -c 200000000 /dev/zero"
LATER = "sleep 1; "  # an engine begins to watch a container's memory once it runs
TIGHT = api.Resources(memory_bytes=20 << 20)


async def test_who_ran_out_of_memory_is_told_where_the_nodes_engine_can_be_reached(swarm):
    """A manager cannot tell it from a kill, nor does it know of a child that was killed."""
    reached = tuple(swarm.machines[name].host for name in ("w1", "w2"))
    dies = harness.Program(commands=f"{LATER}exec {HOG}", exit_code=0)
    child = harness.Program(commands=f"{LATER}{HOG}; true", exit_code=3)
    lives = harness.Program(commands=LATER + HOG)
    async with opened(swarm) as blind, opened(swarm, engines=reached) as rig:
        async with contextlib.aclosing(rig.backend.watch()) as wakes:
            hint = asyncio.ensure_future(anext(wakes))
            await asyncio.sleep(0)
            for one in (blind, rig):
                for name, program in (("a", dies), ("b", child)):
                    await one.backend.launch(one.spec(name, "w2", program, TIGHT))
            await rig.backend.launch(rig.spec("c", "w1", lives, TIGHT))
            assert {"killed", "exited"} == {(await blind.ended(name)).slug for name in "ab"}
            end = await rig.ended("a")
            assert ("out-of-memory", -9) == (end.slug, end.code)
            assert "20 MiB" in end.message
            end = await rig.ended("b")
            assert ("exited", 3) == (end.slug, end.code)
            assert "a process in it had been killed for memory" in end.message
            listed = await rig.until(lambda listed: listed["c"].mishap, "its child was killed")
            assert "out-of-memory" == listed["c"].mishap.slug
            await hint


async def test_what_it_uses_is_told_where_the_nodes_engine_can_be_reached(swarm):
    """By that engine alone, and also after its end."""
    reached = tuple(swarm.machines[name].host for name in ("w1", "w2"))
    async with opened(swarm) as blind, opened(swarm, engines=reached) as rig:
        for one in (blind, rig):
            await one.backend.launch(one.spec("a", "w2", harness.Program(), TIGHT))
        listed = await rig.until(lambda listed: listed["a"].usage, "its engine tells")
        used = listed["a"].usage
        assert TIGHT.memory_bytes == used.memory_limit_bytes
        assert 0 < used.memory_peak_bytes < TIGHT.memory_bytes
        assert (await blind.listed())["a"].usage is None, "a manager tells nothing of it"


async def test_an_engine_that_cannot_be_reached_holds_no_certificate_up(swarm):
    nobody = swarms.Host(url=f"tcp://{swarm.address}0:2375")
    async with opened(swarm, engines=(nobody,)) as rig:
        await rig.backend.launch(rig.spec("a", "w1", harness.Program(exit_code=4)))
        assert 4 == (await rig.ended("a")).code


async def test_java_comes_to_every_node_and_to_one_that_joins_later(swarm, tmp_path):
    """Agents are kept from a node without it; as soon as that takes tasks it gets its own."""
    test_swarm_runtimes.archive(tmp_path / "java.tar")
    name, buffer = f"agent-runtime-{secrets.token_hex(4)}:1", io.BytesIO()
    tree.write_image(tmp_path / "java.tar", name, buffer)
    for machine in swarm.machines.values():
        list(await asyncio.to_thread(machine.ask, "load_image", buffer.getvalue()) or ())
    await asyncio.to_thread(swarm.update, "w2", Availability="drain")
    told = {"default": settings.SwarmRuntime(image=name, resolve="id")}
    try:
        async with opened(swarm, runtimes=told) as rig:

            def spec(called, **options):
                made = attrs.evolve(rig.spec(called, **options), argv=(runtime.JAVA,))
                return attrs.evolve(made, runtime="default")

            await asyncio.gather(*(rig.backend.launch(spec(f"a{n}")) for n in range(4)))
            listed = await rig.until(
                lambda found: all(one.state is STATE.RUNNING for one in found.values()), "run"
            )
            assert swarm.hostname("w2") not in {one.place for one in listed.values()}
            await asyncio.to_thread(swarm.update, "w2", Availability="active")
            late = spec("late", on="w2")
            patient = patience.Patience(WITHIN_S)
            while not patient.is_over():
                with contextlib.suppress(api.NoCapacity, api.Unavailable):
                    await rig.backend.launch(late)
                    break
                await asyncio.sleep(0.2)
            found = await checks.running(rig.backend, "late", within_s=WITHIN_S)
            assert swarm.hostname("w2") == found.place
    finally:
        await asyncio.to_thread(swarm.update, "w2", Availability="active")
        for entry in swarm.managers[0].ask("services"):
            swarm.managers[0].ask("remove_service", entry["ID"])
