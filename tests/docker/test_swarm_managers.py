"""Several managers of one real swarm, one of which fails or is none any more."""

import asyncio
import contextlib
import json
import time

import pytest

from backends import api
from backends.docker.settings import Host
from backends.docker.swarm import backend, doctor, managers, settings
from tests.contract import swarm
from tests.docker import engines

NO_MANAGER = "This node is not a swarm manager."
NO_LEADER = "rpc error: code = Unknown desc = The swarm does not have a leader."


def opened(*urls):
    told = settings.SwarmSettings(managers=tuple(Host(url=url) for url in urls))
    return backend.create(told, owner="nobody", store=None, state_dir=None, now=time.time)


@pytest.fixture(scope="module")
def engine_url():
    url = asyncio.run(engines.with_image(engines.address()))
    swarm.managed(url)
    return url


@contextlib.asynccontextmanager
async def pair(url):
    async with engines.proxied(url) as first, engines.proxied(url) as second:
        made = opened(first.url, second.url)
        try:
            yield first, second, made
        finally:
            await made.aclose()


def says(proxy, **told):
    """Let an engine say something else of its part in a swarm."""
    proxy.replies["GET", "/info"] = json.dumps({"Swarm": told}).encode()


@pytest.mark.parametrize(("status", "words"), [(503, NO_MANAGER), (500, NO_LEADER)])
async def test_another_manager_is_asked_and_goes_on_to_be(engine_url, status, words):
    """The one that fails is not asked again while the other one answers."""
    async with pair(engine_url) as (first, second, made):
        assert [] == await made.list()
        assert [] == second.asked
        first.faults["GET", "/"] = (status, words)
        assert [] == await made.list()
        asked = len(first.asked)
        assert [] == await made.list()
        assert asked == len(first.asked)


async def test_a_manager_that_is_gone_is_passed_over(engine_url, tmp_path):
    made = opened(f"unix://{tmp_path}/gone", engine_url)
    assert [] == await made.list()
    await made.aclose()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"LocalNodeState": "active", "ControlAvailable": False}, "is a worker, or was demoted"),
        ({"LocalNodeState": "locked"}, "is locked"),
        ({"LocalNodeState": "inactive"}, "is in no swarm"),
    ],
)
async def test_who_is_no_manager_is_told_so(engine_url, told, words):
    """The operator has to act; where there is another manager nobody notices."""
    async with pair(engine_url) as (first, second, made):
        says(first, **told)
        assert [] == await made.list()
        alone = opened(first.url)
        with pytest.raises(api.Unauthorized, match=words):
            await alone.list()
        await alone.aclose()
        assert second.asked


async def test_without_a_quorum_it_is_unavailable(engine_url):
    """Also where the status says that something was not found."""
    async with pair(engine_url) as (first, second, made):
        for proxy in (first, second):
            proxy.faults["GET", "/services"] = (404, NO_LEADER)
        with pytest.raises(api.Unavailable, match="no quorum"):
            await made.list()


ANOTHER = {"ControlAvailable": True, "Cluster": {"ID": "another"}}


async def test_what_is_said_of_the_whole_swarm_is_told_first(engine_url, tmp_path):
    """Not that another manager does not answer."""
    async with engines.proxied(engine_url) as proxy:
        proxy.faults["GET", "/services"] = (500, NO_LEADER)
        made = opened(f"unix://{tmp_path}/gone", proxy.url)
        with pytest.raises(api.Unavailable, match="no quorum"):
            await made.list()
        await made.aclose()


async def test_a_manager_of_another_swarm_is_never_believed(engine_url):
    """There all agents would seem to be gone."""
    async with pair(engine_url) as (first, second, made):
        assert [] == await made.list()
        says(second, **ANOTHER)
        first.faults["GET", "/"] = (503, NO_MANAGER)
        with pytest.raises(api.Unauthorized, match=r"none of 2 .*not a swarm manager"):
            await made.list()
        assert any("/info" in path for path in second.asked), "it was asked which swarm it manages"
        assert not any("/services" in path for path in second.asked), "and for nothing else"
        first.faults.clear()
        assert [] == await made.list()


async def test_a_manager_that_begins_another_swarm_is_not_believed_either(engine_url):
    """It has answered before, and nobody looked while it was in none."""
    async with engines.proxied(engine_url) as proxy:
        made = opened(proxy.url)
        assert [] == await made.list()
        says(proxy, **ANOTHER)
        with pytest.raises(api.Unauthorized, match="manages another swarm"):
            await made.list()
        for told, words in (({}, "does not say which swarm"), ({"Error": NO_LEADER}, "no quorum")):
            says(proxy, ControlAvailable=True, **told)
            with pytest.raises(api.Unavailable, match=words):
                await made.list()
        proxy.replies.clear()
        assert [] == await made.list()
        await made.aclose()


async def test_nobody_waits_for_a_manager_that_is_silent(engine_url, monkeypatch):
    """The next one is asked as well, and goes on to be asked first; twenty wait no longer."""
    monkeypatch.setattr(managers, "_PATIENCE_S", 0.1)
    async with pair(engine_url) as (first, second, made):
        assert [] == await made.list()
        first.delay_s = 3600
        asked = [made.logs(f"nobody-{number}", tail=1) for number in range(20)]
        found = await asyncio.gather(*asked, made.list(), return_exceptions=True)
        assert [] == found.pop()
        assert all(isinstance(error, api.NotFound) for error in found)
        assert second.url == made._managers.all[0].url


async def test_doctor_looks_at_every_manager(engine_url):
    async with engines.proxied(engine_url) as proxy:
        says(proxy, LocalNodeState="active", ControlAvailable=False)
        told = settings.SwarmSettings(managers=(Host(url=proxy.url), Host(url=engine_url)))
        order = api.InstanceSpec(
            name="a",
            metadata={},
            image=engines.IMAGE,
            options=settings.SwarmTemplate(resolve="id"),
        )
        found = [
            one
            async for one in doctor.examine(told, owner="o", orders={"t": order}, now=time.time)
        ]
    said = {(one.check, one.verdict.value): one.text for one in found}
    assert "is a worker" in said["manager", "FAIL"]
    assert "manages a swarm" in said["manager", "ok"]
    assert "1 of 1 node can be given tasks" in said["nodes", "ok"]
    assert "is on the manager" in said["image", "ok"]
