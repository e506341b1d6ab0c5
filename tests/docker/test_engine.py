"""Real containers: how they die, what they are given, and that nothing of them is left."""

import asyncio
import contextlib
import pathlib
import socket

import attrs
import pytest

from backends import api
from backends.docker import settings
from tests import patience
from tests.contract import checks
from tests.docker import engines
from tests.docker.conftest import WITHIN_S, Rig, backend_on, cleaned

MEMORY = 16 << 20
EAT = "dd if=/dev/zero of=/dev/null bs=64M count=1"  # one process, so it is the one to be killed
LATER = "sleep 1; "  # an engine does not see the kernel's kills of the first milliseconds


async def test_the_main_process_over_its_memory(rig):
    """The certificate names the limit."""
    await rig.backend.launch(rig.spec("a1", f"{LATER}exec {EAT}", memory=MEMORY, init=False))
    told = await rig.exited("a1")
    assert ("out-of-memory", -9) == (told.slug, told.code)
    assert "(limit 16 MiB)" in told.message


async def test_a_child_over_its_memory_while_the_agent_lives(rig):
    """It is told at once, and the true exit code afterwards."""
    child = f"{LATER}( {EAT} ); echo survived; while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 3"
    await rig.backend.launch(rig.spec("a1", child, memory=MEMORY))

    async def told() -> api.Mishap | None:
        return (await checks.listed(rig.backend))["a1"].mishap

    mishap = await checks.until("the listing tells", told, within_s=WITHIN_S)
    assert "a process in it was killed for memory (limit 16 MiB)" == mishap.text
    assert ("out-of-memory", True) == (mishap.slug, mishap.at is not None)
    made = await rig.sdk("exec_create", rig.container("a1"), ["touch", "/tmp/end"])
    await rig.sdk("exec_start", made["Id"])
    end = await rig.exited("a1")
    assert ("exited", 3) == (end.slug, end.code)
    assert "had been killed for memory" in end.message
    assert (await checks.listed(rig.backend))["a1"].mishap is None, "its end tells it"


async def test_what_it_uses_is_told_also_after_its_end(rig):
    """Memory and processor time, its limit, and for how long its limit held it back."""
    busy = "while [ ! -e /tmp/end ]; do :; done; exit 0"
    spec = rig.spec("a1", f"{LATER}{busy}")
    resources = api.Resources(memory_bytes=MEMORY, cpu_limit=0.1)
    await rig.backend.launch(attrs.evolve(spec, resources=resources))

    async def told() -> api.Usage | None:
        used = (await checks.listed(rig.backend))["a1"].usage
        known = used is not None and used.throttled_s and used.cpu_peak_cores is not None
        return used if known else None

    used = await checks.until("it was held back", told, within_s=WITHIN_S)
    assert MEMORY == used.memory_limit_bytes
    assert 0 < used.memory_bytes <= used.memory_peak_bytes <= MEMORY
    assert used.cpu_s > 0
    assert used.cpu_peak_cores <= 0.5, "a tenth of a processor is allowed"
    made = await rig.sdk("exec_create", rig.container("a1"), ["touch", "/tmp/end"])
    await rig.sdk("exec_start", made["Id"])
    await rig.exited("a1")
    after = (await checks.listed(rig.backend))["a1"].usage
    assert after.cpu_s >= used.cpu_s
    assert after.memory_peak_bytes >= used.memory_peak_bytes


async def test_somebody_kills_it(rig):
    """A kill through the engine is told as such."""
    await rig.backend.launch(rig.spec("a1"))
    await rig.running("a1")
    await rig.sdk("kill", rig.container("a1"), "SIGKILL")
    end = await rig.exited("a1")
    assert ("killed", -9) == (end.slug, end.code)
    assert "through the engine" in end.message


async def test_somebody_pauses_it(rig):
    """It is listed as running with the reason, and can be terminated as it is."""
    await rig.backend.launch(rig.spec("a1"))
    await rig.running("a1")
    await rig.sdk("pause", rig.container("a1"))
    assert "somebody paused it" == (await rig.running("a1")).detail
    async with patience.limit(5):
        await rig.backend.terminate("a1", grace_s=20)
    assert {} == await checks.listed(rig.backend)


async def test_a_network_that_is_missing(rig):
    """Rejected with the engine's words and a hint; no container stays."""
    with pytest.raises(api.Rejected, match=r"network no-such-net not found.*`network`"):
        await rig.backend.launch(rig.spec("a1", network="no-such-net"))
    assert {} == await checks.listed(rig.backend)


async def test_a_network_that_is_removed_before_a_start(rig):
    """A network that the engine knew yesterday is as missing as one that never was."""
    name = f"{rig.prefix}net"
    await rig.sdk("create_network", name)
    await rig.backend.launch(rig.spec("a1", network=name))
    await rig.running("a1")
    await rig.sdk("disconnect_container_from_network", rig.container("a1"), name)
    await rig.sdk("remove_network", name)
    assert api.InstanceState.RUNNING is (await rig.running("a1")).state
    with pytest.raises(api.Rejected, match="not found"):
        await rig.backend.launch(rig.spec("a2", network=name))
    assert ["a1"] == list(await checks.listed(rig.backend))


async def test_an_agent_on_several_networks(rig):
    """It is on all of them before its program starts; one that is missing is named."""
    names = [f"{rig.prefix}net{number}" for number in range(3)]
    try:
        for name in names:
            await rig.sdk("create_network", name)
        look = "ls /sys/class/net | grep -c eth"
        options = {"network": names[0], "networks": tuple(names[1:]), "aliases": ("agent",)}
        await rig.backend.launch(rig.spec("a1", look, code=0, **options))
        assert 0 == (await rig.exited("a1")).code
        assert "3" == (await rig.backend.logs("a1", tail=1)).strip()
        entry = await rig.sdk("inspect_container", rig.container("a1"))
        joined = entry["NetworkSettings"]["Networks"]
        assert set(names) == set(joined)
        assert all("agent" in told["Aliases"] for told in joined.values())
        options = {"network": names[0], "networks": ("no-such-net",)}
        with pytest.raises(api.Rejected, match=r"network no-such-net not found.*`network`"):
            await rig.backend.launch(rig.spec("a2", **options))
        assert ["a1"] == list(await checks.listed(rig.backend))
        await rig.backend.terminate("a1", grace_s=0)
    finally:
        for name in names:
            with contextlib.suppress(engines.docker.errors.APIError):
                await rig.sdk("remove_network", name)


async def test_a_command_that_is_missing_without_an_init(rig):
    """The engine refuses the start; no container stays."""
    spec = attrs.evolve(rig.spec("a1", init=False), argv=("/no/such",))
    with pytest.raises(api.Rejected, match=r"no such file|not found"):
        await rig.backend.launch(spec)
    assert {} == await checks.listed(rig.backend)


async def test_an_image_that_is_removed(rig):
    """What runs runs on; the next launch says which image is missing."""
    name = f"{rig.prefix}image"
    await rig.sdk("tag", engines.IMAGE, name, "1")
    await rig.backend.launch(rig.spec("a1", image=f"{name}:1"))
    await rig.running("a1")
    await rig.sdk("remove_image", f"{name}:1", force=True)
    assert "a1" in await checks.listed(rig.backend)
    with pytest.raises(api.Rejected, match=f"No such image: {name}:1.*`pull`"):
        await rig.backend.launch(rig.spec("a2", image=f"{name}:1"))
    assert ["a1"] == list(await checks.listed(rig.backend))


async def test_a_registry_that_cannot_be_reached(rig):
    """The platform's fault; two launches ask for the image once and both are reported."""
    specs = [rig.spec(name, image="127.0.0.1:1/x:1", pull="if-missing") for name in ("a1", "a2")]
    results = await asyncio.gather(
        *(rig.backend.launch(spec) for spec in specs), return_exceptions=True
    )
    assert [api.Unavailable] * 2 == [type(result) for result in results]
    assert "connection refused" in str(results[0])
    assert {} == await checks.listed(rig.backend)


async def test_the_disk_of_a_container_is_full(rig):
    """Its program fails, the engine does not; output, end and removal are as always."""
    tmpfs = settings.Volume(target="/work", tmpfs_bytes=64 << 10)
    fill = "echo before; dd if=/dev/zero of=/work/x bs=1k count=100 || exit 28"
    await rig.backend.launch(rig.spec("a1", fill, code=0, volumes=(tmpfs,)))
    end = await rig.exited("a1")
    assert ("exited", 28) == (end.slug, end.code)
    words = await rig.backend.logs("a1", tail=20)
    assert "before" in words
    assert "No space left on device" in words
    await rig.backend.terminate("a1", grace_s=1)
    assert {} == await checks.listed(rig.backend)


async def test_the_agent_is_an_ordinary_user_with_a_place_to_work(rig):
    """Uid 1000, no capability, no new privileges, limits set; it can write where it works."""
    look = (
        "id -u; id -g; grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status; ulimit -n; "
        f"touch {'/home/jenkins/agent'}/x && echo written; cat /proc/1/comm; "
        "cat /agent-broker/secrets/s; echo x >> /agent-broker/secrets/s || echo kept"
    )
    spec = attrs.evolve(rig.spec("a1", look, code=0), secret_files={"s": "not-this"})
    await rig.backend.launch(spec)
    await rig.exited("a1")
    told = (await rig.backend.logs("a1", tail=20)).split("\n")
    assert 2 == told.count("1000")
    assert {"CapBnd: 0000000000000000", "NoNewPrivs: 1", "16384", "written"} < set(told)
    assert "docker-init" in told
    assert any("kept" in line for line in told)


async def test_a_shared_volume_is_writable_and_anonymous_ones_go(rig):
    """Two agents share a cache; the named volume stays, nothing else does."""
    cache = settings.Volume(
        name=f"{rig.prefix}jars", target="/home/jenkins/agent/remoting/jarCache",
        writable_by_user=True,
    )  # fmt: skip
    volumes = (cache, settings.Volume(target="/scratch"))
    where = "/home/jenkins/agent/remoting"
    try:
        before = await asyncio.to_thread(engines.left_behind, rig.url)
        for name in ("a1", "a2"):
            write = (
                f"touch {where}/jarCache/$(hostname) {where}/log && ls {where}/jarCache | wc -l"
            )
            await rig.backend.launch(rig.spec(name, write, code=0, volumes=volumes))
            end = await rig.exited(name)
            assert 0 == end.code, await rig.backend.logs(name, tail=5)
        assert "2" == (await rig.backend.logs("a2", tail=1)).strip()
        mounts = (await rig.sdk("inspect_container", rig.container("a2")))["Mounts"]
        anonymous = {m["Name"] for m in mounts if len(m["Name"]) == 64}
        assert 1 == len(anonymous)
        for name in ("a1", "a2"):
            await rig.backend.terminate(name, grace_s=0)
        left = await asyncio.to_thread(engines.left_behind, rig.url, before)
        assert cache.name in left["volumes"]
        assert not anonymous & left["volumes"]
    finally:
        await rig.backend.aclose()
        with contextlib.suppress(engines.docker.errors.APIError):
            await rig.sdk("remove_volume", cache.name, force=True)


async def test_a_published_port_is_reported_and_a_taken_one_is_no_capacity(rig):
    """A random one is known once it runs; a fixed one that is taken sends the launch elsewhere."""
    await rig.backend.launch(rig.spec("a1", network="bridge", ports=("8080",)))
    await rig.running("a1")
    (port,) = (await checks.listed(rig.backend))["a1"].ports
    assert (8080, "tcp", "") == (port.port, port.protocol, port.address)
    taken = f"{port.host_port}:8080"
    with pytest.raises(api.NoCapacity, match="port is already allocated"):
        await rig.backend.launch(rig.spec("a2", network="bridge", ports=(taken,)))
    assert ["a1"] == list(await checks.listed(rig.backend))


async def test_ports_of_a_range_go_to_one_agent_each_and_only_at_the_address_that_is_told(rig):
    """Two agents share a range, the third finds it full; several ports are bound one by one."""
    first = _free_range(3)
    ports = (f"127.0.0.1:{first}-{first + 1}:8080", "127.0.0.1::9000-9001")
    for name in ("a1", "a2"):
        await rig.backend.launch(rig.spec(name, network="bridge", ports=ports))
        await rig.running(name)
    found = {
        name: {one.port: one for one in instance.ports}
        for name, instance in (await checks.listed(rig.backend)).items()
    }
    assert {"127.0.0.1"} == {one.address for ports in found.values() for one in ports.values()}
    assert {first, first + 1} == {ports[8080].host_port for ports in found.values()}
    assert [{8080, 9000, 9001}] * 2 == [set(ports) for ports in found.values()]
    with pytest.raises(api.NoCapacity, match="a published port is taken"):
        await rig.backend.launch(rig.spec("a3", network="bridge", ports=ports))


def _free_range(length: int) -> int:
    """Return the first of some ports beside each other that nobody has just now."""
    for first in range(20_000, 30_000, length):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + length):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    pytest.fail("no free ports")


async def test_fifty_launches_at_once(engine_url):
    """All come to run; all are gone when terminated, with volumes and networks."""
    before = await asyncio.to_thread(engines.left_behind, engine_url)
    async with cleaned(Rig(engine_url, backend_on())) as rig:
        wanted = [f"a{number}" for number in range(50)]
        await asyncio.gather(*(rig.backend.launch(rig.spec(name)) for name in wanted))
        found = await checks.listed(rig.backend)
        assert sorted(wanted) == sorted(found)
        assert {api.InstanceState.RUNNING} == {one.state for one in found.values()}
        await asyncio.gather(*(rig.backend.terminate(name, grace_s=2) for name in wanted))
        assert {} == await checks.listed(rig.backend)
        entries = await rig.sdk("containers", all=True)
        assert [] == [e["Names"] for e in entries if e["Names"][0][1:].startswith(rig.prefix)]
    assert (
        before["networks"]
        <= (await asyncio.to_thread(engines.left_behind, engine_url))["networks"]
    )


async def test_a_launch_that_is_cut_off_at_the_secret_leaves_nothing(engine_url):
    """An engine that fails between creation and start: the created container is taken back."""
    async with engines.proxied(engine_url) as proxy:
        rig = Rig(engine_url, backend_on(settings.Host(url=proxy.url)))
        async with cleaned(rig):
            put_in = settings.Volume(target="/scratch", writable_by_user=True)  # by an archive
            spec = rig.spec("a1", volumes=(put_in,))
            for method, word in (("PUT", "/archive"), ("POST", "/start")):
                proxy.faults[method, word] = (500, "out of luck")
                with pytest.raises(api.Unavailable, match="out of luck"):
                    await rig.backend.launch(spec)
                assert {} == await checks.listed(rig.backend)
                proxy.faults.clear()
            await rig.backend.launch(spec)
            await rig.running("a1")


async def test_closing_waits_for_launches_under_way(engine_url):
    """They come to their end as if nobody had closed: nothing half made is left."""
    async with engines.proxied(engine_url) as proxy:
        rig = Rig(engine_url, backend_on(settings.Host(url=proxy.url)))
        async with cleaned(rig):
            await rig.backend.list()
            proxy.delay_s = 0.3
            launch = asyncio.ensure_future(rig.backend.launch(rig.spec("a1")))
            await asyncio.sleep(0.4)
            await rig.backend.aclose()
            await launch
            entry = await rig.sdk("inspect_container", rig.container("a1"))
            assert "running" == entry["State"]["Status"]


async def test_an_engine_that_answers_slowly(engine_url):
    """Launches take their time, and a listing waits for its own call only."""
    async with engines.proxied(engine_url) as proxy:
        rig = Rig(engine_url, backend_on(settings.Host(url=proxy.url)))
        async with cleaned(rig):
            await rig.backend.list()
            proxy.delay_s = 0.5
            loop = asyncio.get_running_loop()
            launches = asyncio.gather(
                *(rig.backend.launch(rig.spec(f"a{number}")) for number in range(12))
            )
            await asyncio.sleep(0.2)
            began = loop.time()
            await rig.backend.list()
            took = loop.time() - began
            await launches
            assert took < 1.5, "three calls of each launch and two lanes' queues are 2.5 s"
            proxy.delay_s = 0.0
            assert 12 == len(await checks.listed(rig.backend))


async def test_an_engine_that_answers_too_slowly(engine_url):
    """That is Unavailable, for every verb; it is forgotten as soon as the engine is quick."""
    async with engines.proxied(engine_url) as proxy:
        rig = Rig(engine_url, backend_on(settings.Host(url=proxy.url), timeout_s=0.5))
        async with cleaned(rig):
            await rig.backend.list()
            proxy.delay_s = 2.0
            for call in (
                rig.backend.list(),
                rig.backend.launch(rig.spec("late")),
                rig.backend.terminate("late", grace_s=0),
                rig.backend.logs("late", tail=1),
            ):
                with pytest.raises(api.Unavailable, match="timed out"):
                    await call
            proxy.delay_s = 0.0
            assert set(await checks.listed(rig.backend)) <= {"late"}


async def test_the_engines_own_socket_is_mounted_for_a_user_who_may_use_it(rig):
    """Wherever this engine has it, and of whichever group it is."""
    path = pathlib.Path(rig.url.removeprefix("unix://"))
    look = "ls -ln /var/run/docker.sock; id -G; test -w /var/run/docker.sock && echo usable"
    await rig.backend.launch(rig.spec("a1", look, code=0, docker_socket=True))
    await rig.exited("a1")

    said = await rig.backend.logs("a1", tail=5)
    assert "usable" in said, said
    assert str(path.stat().st_gid) in said.splitlines()[1].split()
    inspected = await rig.sdk("inspect_container", rig.container("a1"))
    assert [str(path)] == [m["Source"] for m in inspected["Mounts"] if m["Type"] == "bind"]


async def test_a_socket_that_its_owner_alone_may_use_is_refused_with_words(rig):
    """Before a container is made; root in the container needs no group."""
    path = pathlib.Path(rig.url.removeprefix("unix://"))
    mode = path.stat().st_mode
    path.chmod(0o600)
    try:
        with pytest.raises(
            api.Rejected, match=r"the engine's socket .* by its owner alone, user 0"
        ):
            await rig.backend.launch(rig.spec("a1", docker_socket=True))
        await rig.backend.launch(rig.spec("a2", docker_socket=True, user="0"))
    finally:
        path.chmod(mode & 0o777)
    assert {"a2"} == set(await checks.listed(rig.backend))


@pytest.mark.parametrize(("user", "ids"), [("1234", "1234 1234"), ("1234:7", "1234 7")])
async def test_nobody_has_roots_group_who_did_not_ask_for_it(rig, user, ids):
    """Of a number that the image does not know the engine would make a member of group 0."""
    await rig.backend.launch(rig.spec("a1", "echo $(id -u) $(id -g)", code=0, user=user))
    await rig.exited("a1")

    assert ids == (await rig.backend.logs("a1", tail=1)).strip()
