"""What a swarm's backend makes of odd moments, on a real manager behind a proxy."""

import asyncio
import base64
import contextlib
import json
import secrets

import docker
import pytest

from backends import api
from backends.docker.settings import Host
from backends.docker.swarm import backend, service, settings
from tests.contract import checks, harness, swarm
from tests.docker import engines

OWNER = f"t{secrets.token_hex(4)}"
LABELS = {**service.owner_labels(OWNER), service.NAME: "a"}


@pytest.fixture(scope="module")
def engine_url():
    url = asyncio.run(engines.with_image(engines.address()))
    swarm.managed(url)
    return url


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


@contextlib.asynccontextmanager
async def opened(url):
    """Give a proxy, a clock and a backend of an owner that nobody else has."""
    clock = Clock()
    async with engines.proxied(url) as proxy:
        told = settings.SwarmSettings(managers=(Host(url=proxy.url),), timeout_s=20)
        made = backend.create(told, owner=OWNER, store=None, state_dir=None, now=clock)
        try:
            yield proxy, clock, made
        finally:
            await made.aclose()


def shows(proxy, path, *entries):
    proxy.replies["GET", path] = json.dumps(entries).encode()


TASK = {
    "ID": "t1",
    "ServiceID": "s1",
    "DesiredState": "running",
    "Status": {"State": "running"},
    "Spec": {"ContainerSpec": {"Labels": {**LABELS, "agent-broker.metadata.k": "v"}}},
}
SERVICE = {"ID": "s1", "Spec": {"Name": "a", "Labels": {**LABELS, "agent-broker.metadata.k": "v"}}}


async def test_a_service_that_is_made_amid_a_look_is_not_taken_for_one_that_ends(engine_url):
    """Tasks are read first: one without its service is one whose service has gone."""
    async with opened(engine_url) as (proxy, _, made):
        assert [] == await made.list()
        asked = [path for path in proxy.asked if "filters" in path]
        assert ["/tasks", "/services", "/secrets"] == [
            f"/{path.split('?')[0].rsplit('/')[-1]}" for path in asked[:3]
        ]
        shows(proxy, "/tasks", TASK)
        (one,) = await made.list()
        assert api.InstanceState.STOPPING is one.state


async def test_a_service_without_a_task_is_given_up_by_our_own_clock(engine_url):
    """Clocks of managers are others; a leader that is new makes the task somewhat later."""
    async with opened(engine_url) as (proxy, clock, made):
        shows(proxy, "/services", {**SERVICE, "CreatedAt": "1970-01-01T00:00:01Z"})
        (one,) = await made.list()
        assert api.InstanceState.STARTING is one.state
        clock.now += 59
        (one,) = await made.list()
        assert api.InstanceState.STARTING is one.state
        shows(proxy, "/tasks", TASK)
        assert api.InstanceState.RUNNING is (await made.list())[0].state
        shows(proxy, "/tasks")
        clock.now += 2
        assert api.InstanceState.STARTING is (await made.list())[0].state, "it had one meanwhile"
        clock.now += 61
        (one,) = await made.list()
        assert ("platform-lost", api.InstanceState.EXITED) == (one.exit.slug, one.state)


async def test_a_secret_that_a_killed_broker_left_is_swept(engine_url):
    """Once nobody can be about to make its service, and never one that is needed."""
    with contextlib.closing(engines.connected(engine_url)) as client:

        def plant(name):
            data = base64.b64encode(b"x").decode()
            labels = {**LABELS, service.NAME: name}
            body = {"Name": f"{OWNER}.{name}", "Labels": labels, "Data": data}
            url = client._url("/secrets/create")
            return client._result(client._post_json(url, data=body), json=True)["ID"]

        def left():
            return {
                entry["ID"]
                for entry in client.secrets(
                    filters={"label": [f"{k}={v}" for k, v in service.owner_labels(OWNER).items()]}
                )
            }

        needed, stray = await asyncio.to_thread(plant, "a"), await asyncio.to_thread(plant, "b")
        try:
            async with opened(engine_url) as (proxy, clock, made):
                shows(proxy, "/services", SERVICE)
                for seconds in (0, 79):
                    clock.now += seconds
                    await made.list()
                assert {needed, stray} == await asyncio.to_thread(left)
                clock.now += 2
                await made.list()
                assert {needed} == await asyncio.to_thread(left)
        finally:
            for one in await asyncio.to_thread(left):
                client.remove_secret(one)


async def test_files_of_ours_are_shared_by_agents_and_go_after_the_last_one(engine_url):
    """Looked for now and then; a config that an engine refuses to remove stays."""
    clock, owner = Clock(), f"{OWNER}f"
    told = settings.SwarmSettings(
        managers=(Host(url=engine_url),), timeout_s=20, name_prefix=f"{owner}-"
    )
    made = backend.create(told, owner=owner, store=None, state_dir=None, now=clock)
    content = secrets.token_bytes(300_000)
    options = settings.SwarmTemplate(resolve="tag", networks=("host",), grace_s=0)

    def spec(name, files):
        commands = 'wc -c <"$1/ca"; if echo x >"$1/same"; then exit 3; fi'
        program = harness.Program(commands=commands, arguments=(api.FILES,), exit_code=0)
        return api.InstanceSpec(
            name=name,
            metadata={"owner": "ours"},
            image=engines.IMAGE,
            argv=program.argv(),
            given_files=files,
            options=options,
        )

    with contextlib.closing(engines.connected(engine_url)) as client:

        def there():
            marks = [f"{key}={value}" for key, value in service.owner_labels(owner).items()]
            return {one["Spec"]["Name"]: one for one in client.configs(filters={"label": marks})}

        async def look():
            clock.now += 901
            await made.list()
            return len(await asyncio.to_thread(there))

        try:
            for name in ("a", "b"):
                await made.launch(spec(name, {"ca": content, "same": content}))
            assert 1 == len(await asyncio.to_thread(there))
            for name in ("a", "b"):
                assert 0 == (await checks.exited(made, name, within_s=60)).exit.code
                assert "300000" in await made.logs(name, tail=5)
            await made.terminate("a", grace_s=0)
            assert [1, 1] == [await look(), await look()], "the other one has it still"
            await made.terminate("b", grace_s=0)
            assert [1, 0] == [await look(), await look()]

            name = service.GivenFile.of("ca", content, owner=owner).name
            await asyncio.to_thread(client.create_config, name, content)
            with pytest.raises(api.Rejected, match="is not ours, or of another content"):
                await made.launch(spec("c", {"ca": content}))
            await asyncio.to_thread(client.remove_config, name)
        finally:
            await made.aclose()
            for one in client.services(filters={"label": f"{service.NAME}"}):
                if one["Spec"]["Name"].startswith(f"{owner}-"):
                    client.remove_service(one["ID"])
            for one in there().values():
                client.remove_config(one["ID"])


async def test_a_cache_that_is_too_old_is_empty_for_the_next_agent(engine_url, caplog):
    """Where the engine of its node can be reached; one that nobody can reach holds nothing up."""
    caplog.set_level("INFO")
    clock, volume = Clock(), f"{OWNER}-m2-0"
    told = settings.SwarmSettings(
        managers=(Host(url=engine_url),),
        engines=(Host(url="tcp://127.0.0.1:1"),),
        timeout_s=20,
        name_prefix=f"{OWNER}-",
    )
    mount = settings.Volume(name=volume, target="/cache", max_age_s=86_400)
    options = settings.SwarmTemplate(
        user="0", resolve="tag", volumes=(mount,), networks=("host",), grace_s=0
    )
    empty, full = (
        'test -z "$(ls /cache)" || exit 5; echo x >/cache/x',
        "test -e /cache/x || exit 6",
    )
    made = backend.create(told, owner=OWNER, store=None, state_dir=None, now=clock)

    async def ran(name, commands):
        spec = api.InstanceSpec(
            name=name,
            metadata={"owner": "ours"},
            image=engines.IMAGE,
            argv=harness.Program(commands=commands, exit_code=0).argv(),
            options=options,
        )
        await made.launch(spec)
        code = (await checks.exited(made, name, within_s=60)).exit.code
        await made.terminate(name, grace_s=0)
        return code

    try:
        assert [0, 0] == [await ran("a", empty), await ran("b", full)]
        clock.now += 2 * 86_400
        assert [0, 0] == [await ran("c", empty), await ran("d", full)]
        (removed,) = [one for one in caplog.records if one.getMessage() == "cache removed"]
        assert (volume, "2 days old, max_age is 1d") == (removed.cache, removed.reason)
    finally:
        await made.aclose()
        with contextlib.closing(engines.connected(engine_url)) as client:

            async def removed_too():
                """The node removes containers when it comes to it."""
                with contextlib.suppress(docker.errors.APIError):
                    client.remove_volume(volume)
                return volume not in {one["Name"] for one in client.volumes()["Volumes"] or ()}

            await checks.until("it is gone", removed_too, within_s=30)
