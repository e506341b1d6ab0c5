"""What a template of a swarm says, as a real task has it; and images of a registry with a login."""

import asyncio
import contextlib
import secrets
import time

import pytest

from backends import api
from backends.docker import settings as docker
from backends.docker.swarm import backend, settings
from backends.kit import names
from tests import patience
from tests.contract import checks, harness, swarm
from tests.docker import engines, registries

WITHIN_S = 60.0
LOOK = """
ulimit -n; ulimit -u; id -u; id -G; cat /etc/kept /etc/told
stat -c '%a %u %g %n' /etc/kept /etc/told /agent-broker/secrets/key
grep -c '^/dev.* /cache \\| /cache ' /proc/mounts; grep ' /scratch tmpfs' /proc/mounts
grep 10.9.8.7 /etc/hosts; cat /etc/resolv.conf; ls /sys/class/net
"""


@pytest.fixture(scope="module")
def engine_url():
    url = asyncio.run(engines.with_image(engines.address()))
    swarm.managed(url)
    return url


@contextlib.asynccontextmanager
async def opened(url, **told):
    owner = f"t{secrets.token_hex(4)}"
    configured = settings.SwarmSettings(
        managers=(docker.Host(url=url),), name_prefix=f"{owner}-", look_s=0.2, **told
    )
    made = backend.create(configured, owner=owner, store=None, state_dir=None, now=time.time)
    try:
        yield made
    finally:
        for one in await made.list():
            with contextlib.suppress(api.NotFound):
                await made.terminate(one.name, grace_s=0)
        await made.aclose()


def spec(program, image=engines.IMAGE, resources=None, secret_files=None, **options):
    told = {"networks": ("host",), "resolve": "id", "grace_s": 1, **options}
    return api.InstanceSpec(
        name="a",
        metadata={names.OWNER: "ours"},
        argv=program.argv(),
        image=image,
        resources=resources or api.Resources(),
        secret_files=secret_files or {},
        options=settings.SwarmTemplate(**told),
    )


@pytest.fixture
def lent(engine_url):
    """A network, a config and a secret of somebody else's, by one name."""
    name = f"t{secrets.token_hex(4)}"
    with contextlib.closing(engines.connected(engine_url)) as client:
        client.create_network(name, driver="overlay", attachable=False)
        client.create_config(name, b"told\n")
        client.create_config(f"{name}0", b"of a longer name\n")  # managers look by the beginning
        client.create_secret(name, b"kept\n")
        yield name
        freed(client.remove_network, name)
        for entry in client.configs(filters={"name": name}):
            client.remove_config(entry["ID"])
        for entry in client.secrets(filters={"name": name}):
            client.remove_secret(entry["ID"])
        for entry in client.volumes(filters={"name": name})["Volumes"] or ():
            freed(client.remove_volume, entry["Name"])


def freed(remove, name):
    """Remove what a container that is just ending may have."""
    patient = patience.Patience(WITHIN_S)
    while True:
        try:
            remove(name)
            return
        except engines.docker.errors.APIError:
            assert not patient.is_over()
            time.sleep(0.2)


@pytest.mark.soak
async def test_every_setting_is_what_the_task_has(engine_url, lent):
    node = await asyncio.to_thread(lambda: engines.connected(engine_url).info()["Name"])
    told = spec(
        harness.Program(commands=LOOK),
        resources=api.Resources(
            memory_bytes=64 << 20, memory_reservation_bytes=32 << 20, cpu_limit=0.5, cpu_shares=0.1
        ),
        secret_files={"key": "of the agent"},
        user="1234:4321",
        groups=("777",),
        pids=100,
        ulimits={"nofile": 2048},
        constraints=(f"node.hostname=={node}",),
        spread=("node.labels.rack",),
        platforms=("linux/x86_64",),
        networks=(lent,),
        aliases=("builder",),
        dns=("10.1.2.3",),
        dns_search=("example.com",),
        extra_hosts=("nexus:10.9.8.7",),
        volumes=(
            settings.Volume(
                name=lent,
                target="/cache",
                driver="local",
                driver_options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"},
            ),
            settings.Volume(target="/scratch", tmpfs_bytes=1 << 20),
        ),
        configs=(settings.Config(name=lent, target="/etc/told", mode="0440"),),
        secrets=(settings.LentSecret(name=lent, target="/etc/kept", mode="0440"),),
        labels={"team": "x"},
    )
    async with opened(engine_url) as made:
        await made.launch(told)
        found = await checks.running(made, "a", within_s=WITHIN_S)
        assert node == found.place

        async def said():
            words = await made.logs("a", tail=100)
            return words if "nexus" in words and "eth" in words else ""

        words = await checks.until("it has said all", said, within_s=WITHIN_S)
        with contextlib.closing(engines.connected(engine_url)) as client:
            (entry,) = [
                one
                for one in client.containers()
                if one["Labels"].get("com.docker.swarm.service.name", "").endswith("-a")
                and lent in str(one["Mounts"])
            ]
            there = client.inspect_container(entry["Id"])
            made_of = client.inspect_service(entry["Labels"]["com.docker.swarm.service.name"])
            (network,) = there["NetworkSettings"]["Networks"].values()
    lines = words.splitlines()
    assert ["2048", "1234"] == [lines[0], lines[2]]
    assert "4321 777" == lines[3]
    assert ["kept", "told"] == lines[4:6]
    assert "440 1234 4321 /etc/kept" in lines
    assert "440 1234 4321 /etc/told" in lines
    assert "400 1234 4321 /agent-broker/secrets/key" in lines
    assert "size=1024k" in next(line for line in lines if " /scratch " in line)
    assert any("example.com" in line for line in lines)
    host = there["HostConfig"]
    assert (64 << 20, 500_000_000) == (host["Memory"], host["NanoCpus"])
    kept_free = made_of["Spec"]["TaskTemplate"]["Resources"]["Reservations"]
    assert {"MemoryBytes": 32 << 20, "NanoCPUs": 100_000_000} == kept_free
    assert 100 == host["PidsLimit"]
    assert ["10.1.2.3"] == host["Dns"]
    assert host["CapDrop"]
    assert network["IPAddress"]
    assert ["builder"] == made_of["Spec"]["TaskTemplate"]["Networks"][0]["Aliases"]
    assert "x" == there["Config"]["Labels"]["team"]
    assert "of the agent" not in str(there)


async def test_what_is_not_there_is_said_before_anything_is_made(engine_url):
    for options, words in (
        ({"configs": (settings.Config(name="nobody", target="/c"),)}, "no config 'nobody'"),
        ({"secrets": (settings.LentSecret(name="nobody", target="/c"),)}, "no secret 'nobody'"),
        ({"networks": ("nowhere",)}, "`networks` of the template"),
    ):
        async with opened(engine_url) as made:
            with pytest.raises(api.Rejected, match=words):
                await made.launch(spec(harness.FOR_EVER, **options))
            assert [] == await made.list()


async def test_an_image_of_a_registry_that_wants_a_login(engine_url, tmp_path, monkeypatch):
    """With the login nodes pull it, by digest; without one the reason says whose words it is."""
    login = docker.Registry(user=registries.USER, password_env="SECRET_OF_REGISTRY")
    monkeypatch.setenv("SECRET_OF_REGISTRY", registries.PASSWORD)
    with registries.registry(tmp_path / "r", asks=True) as registry:
        image = await asyncio.to_thread(registry.push, engine_url, "agent")
        program = harness.Program(exit_code=5)
        async with opened(engine_url) as stranger:
            with pytest.raises(api.Unauthorized) as caught:
                await stranger.launch(spec(program, image, resolve="digest"))
            assert api.Reach.TEMPLATE is caught.value.reach
            await stranger.launch(spec(program, image, resolve="tag"))
            end = (await checks.exited(stranger, "a", within_s=WITHIN_S)).exit
            assert "image" == end.slug
            assert "No such image" in end.message
            assert "registry refuses" in end.message
        async with opened(engine_url, registries={registry.address: login}) as made:
            await made.launch(spec(program, image, resolve="digest"))
            end = (await checks.exited(made, "a", within_s=WITHIN_S)).exit
            assert 5 == end.code
