"""A swarm full of others, answers that are none, and a broker that is killed at every step."""

import asyncio
import contextlib
import json
import secrets
import time

import pytest

from backends import api
from backends.docker.settings import Host
from backends.docker.swarm import backend, service, settings
from backends.kit import names
from tests.contract import checks, harness, swarm
from tests.docker import engines

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def engine_url():
    url = asyncio.run(engines.with_image(engines.address()))
    swarm.managed(url)
    return url


class Rig:
    def __init__(self, url, proxy):
        self.owner = f"t{secrets.token_hex(4)}"
        self.url = url
        self.proxy = proxy
        self.skipped_s = 0.0

    def backend(self):
        told = settings.SwarmSettings(
            managers=(Host(url=self.proxy.url),), name_prefix=f"{self.owner}-", timeout_s=10
        )
        return backend.create(
            told, owner=self.owner, store=None, state_dir=None,
            now=lambda: time.time() + self.skipped_s,
        )  # fmt: skip

    def spec(self, name="a"):
        return api.InstanceSpec(
            name=name,
            metadata={names.OWNER: "ours"},
            argv=harness.FOR_EVER.argv(),
            image=engines.IMAGE,
            secret_files={"agent-secret": "s" * 64},
            options=settings.SwarmTemplate(networks=("host",), resolve="id", grace_s=1),
        )

    def secrets(self):
        labels = [f"{key}={text}" for key, text in service.owner_labels(self.owner).items()]
        with contextlib.closing(engines.connected(self.url)) as client:
            return client.secrets(filters={"label": labels})


@contextlib.asynccontextmanager
async def rigged(url):
    async with engines.proxied(url) as proxy:
        rig = Rig(url, proxy)
        yield rig
        proxy.faults.clear()
        proxy.replies.clear()
        proxy.held.clear()
        made = rig.backend()
        for one in await made.list():
            await made.terminate(one.name, grace_s=0)
        rig.skipped_s += 1e6
        await made.list()
        rig.skipped_s += 1e6
        await made.list()
        await made.aclose()
        assert [] == await asyncio.to_thread(rig.secrets)


@pytest.mark.parametrize(
    ("step", "when"),
    [
        ("/secrets/create", "answered"),
        pytest.param("/secrets/create", "asked", marks=pytest.mark.soak),
        pytest.param("/services/create", "asked", marks=pytest.mark.soak),
        pytest.param("/services/create", "answered", marks=pytest.mark.soak),
    ],
)
async def test_a_broker_that_is_killed_amid_a_launch_leaves_nothing(engine_url, step, when):
    """What it began is taken on by the next one, or swept."""
    async with rigged(engine_url) as rig:
        first = rig.backend()
        rig.proxy.held[step] = when
        launching = asyncio.ensure_future(first.launch(rig.spec()))
        await checks.until("the step", rig.proxy.holding, within_s=WITHIN_S)
        launching.cancel()  # nothing more of it comes to the manager
        rig.proxy.cut()
        with contextlib.suppress(asyncio.CancelledError):
            await launching
        second = rig.backend()
        there = await second.list()
        assert ["a"] == [one.name for one in there] or not there
        if when == "answered" and step == "/services/create":
            assert there, "the service was made"
        await second.launch(rig.spec())
        await checks.running(second, "a", within_s=WITHIN_S)
        await second.terminate("a", grace_s=0)
        assert [] == await second.list()
        assert [] == await asyncio.to_thread(rig.secrets), "with its agent all of them go"
        await second.aclose()
        await first.aclose()


NONSENSE = (
    b"{}", b"null", b"[1, null, [], {}]", b'[{"ID": 7, "Spec": "x"}]', b"[" * 5000, b"", b"<html>",
)  # fmt: skip


async def test_nonsense_is_never_an_empty_swarm(engine_url):
    """It is an error, or costs itself: what runs is not taken for gone."""
    async with rigged(engine_url) as rig:
        made = rig.backend()
        labels = {**service.owner_labels(rig.owner), service.NAME: "x"}
        spec = {"Name": "x", "Labels": {**labels, "agent-broker.metadata.k": "v"}}
        told = {"/services": json.dumps([{"ID": "s1", "Spec": spec}]).encode(), "/secrets": b"[]"}

        async def listed():
            try:
                return await made.list()
            except api.BackendError:
                return None

        for path in ("/services", "/tasks", "/nodes", "/secrets", "/info"):
            for nonsense in NONSENSE:
                rig.proxy.replies = {("GET", where): text for where, text in told.items()}
                (one,) = await made.list()
                assert api.InstanceState.STARTING is one.state
                rig.proxy.replies["GET", path] = nonsense
                found = await listed()
                assert found is None or ["x"] == [one.name for one in found], (path, nonsense)
                assert found is None or path not in {"/services", "/info"}, nonsense
        await made.aclose()


async def test_ten_thousand_services_of_others_cost_nothing(engine_url):
    """The manager is asked for ours alone; one that sends all of them anyway is refused or read."""
    async with rigged(engine_url) as rig:
        made = rig.backend()
        await made.list()
        assert all("label" in path for path in rig.proxy.asked if "/services?" in path)
        foreign = [
            {"ID": f"s{n}", "Spec": {"Name": f"a{n}", "Labels": {"team": "x" * 40}}}
            for n in range(10_000)
        ]
        rig.proxy.replies["GET", "/services"] = json.dumps(foreign).encode()
        with pytest.raises(api.Partial) as caught:
            await made.list()
        assert not caught.value.seen
        await made.aclose()


async def test_a_name_that_begins_as_another_is_another(engine_url):
    async with rigged(engine_url) as rig:
        made = rig.backend()
        await made.launch(rig.spec("a70"))
        await checks.running(made, "a70", within_s=WITHIN_S)
        for name in ("a7", "a"):
            with pytest.raises(api.NotFound):
                await made.terminate(name, grace_s=0)
            with pytest.raises(api.NotFound):
                await made.logs(name, tail=1)
        await made.launch(rig.spec("a7"))
        await made.terminate("a7", grace_s=0)
        assert ["a70"] == [one.name for one in await made.list()]
        await made.aclose()


async def test_an_agent_may_be_called_like_a_fault(engine_url):
    """A manager's words hold its name: it is looked for, started and removed all the same."""
    async with rigged(engine_url) as rig:
        made = rig.backend()
        for name in ("secret-scan-1", "no-quorum-1", "invalid-1"):
            await made.launch(rig.spec(name))
            await checks.running(made, name, within_s=WITHIN_S)
            await made.terminate(name, grace_s=0)
            with pytest.raises(api.NotFound):
                await made.terminate(name, grace_s=0)
        await made.aclose()
