"""A stranger's client is content with the simulated controller: python-jenkins, in a thread.

It knows nothing of us, so what it needs beyond our own calls (pages behind redirects, crumbs with
a token, whole documents without ``tree``) shows whether the simulation is a Jenkins or only our
idea of one.
"""

import asyncio
import contextlib
import itertools
import warnings

import pytest
import requests

from broker.simulator import access, simulation
from broker.simulator import controller as controllers
from tests import patience

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its import: not ours to mend
    import jenkins


@contextlib.asynccontextmanager
async def strangers(version="2.263.4", **more):
    """Give a function that runs calls of python-jenkins, and the simulation."""
    sim = simulation.Simulation(version=version)
    may = access.Accounts(**{"user": "admin", "token": "t", "password": "p", **more})
    clock = itertools.count(1_000_000)
    server = controllers.SimulatedController(sim, now=lambda: float(next(clock)), access=may)
    async with server:
        client = jenkins.Jenkins(
            server.url.rstrip("/"), username="admin", password="t", timeout=patience.seconds(5)
        )

        async def call(name, *args, **kwargs):
            return await asyncio.to_thread(getattr(client, name), *args, **kwargs)

        try:
            yield call, sim, client
        finally:
            await asyncio.to_thread(client._session.close)


NODE = {"numExecutors": 2, "nodeDescription": "by a stranger", "remoteFS": "/srv", "labels": "a b"}


@pytest.mark.parametrize("version", ["2.263.4", "2.528.3"])
async def test_who_and_which(version):
    """The user first: it asks for the version without one until it has asked something else."""
    async with strangers(version) as (call, _, _client):
        assert (await call("get_whoami"))["id"] == "admin"
        assert await call("get_version") == version


async def test_the_life_of_a_node():
    """Create, list, read, mark, bring back, change, delete."""
    async with strangers() as (call, sim, _):
        launcher = {"tunnel": "host:1234"}
        await call(
            "create_node", "n", **NODE, exclusive=True, launcher=jenkins.LAUNCHER_JNLP,
            launcher_params=launcher,
        )  # fmt: skip
        assert [n["name"] for n in await call("get_nodes")] == ["master", "n"]
        assert (sim.nodes["n"].labels, sim.nodes["n"].executors) == ({"a", "b"}, 2)
        assert sim.nodes["n"].tunnel == "host:1234"
        info = await call("get_node_info", "n")
        assert (info["description"], info["offline"]) == ("by a stranger", True)
        sim.connect(2_000_000.0, "n")
        await call("disable_node", "n", "away")
        assert sim.nodes["n"].offline_message == "away"
        assert (await call("get_node_info", "n"))["offlineCauseReason"] == "away"
        await call("enable_node", "n")
        assert sim.nodes["n"].online
        config = await call("get_node_config", "n")
        await call("reconfig_node", "n", config.replace("<label>a b<", "<label>c<"))
        assert sim.nodes["n"].labels == {"c"}
        assert sim.nodes["n"].online
        await call("delete_node", "n")
        assert await call("node_exists", "n") is False
        assert sim.nodes == {}


async def test_a_name_that_is_taken():
    """It finds out by itself; behind its back the controller refuses."""
    async with strangers() as (call, _, client):
        await call("create_node", "n", **NODE)
        with pytest.raises(jenkins.JenkinsException, match="already exists"):
            await call("create_node", "n", **NODE)
        client.node_exists = lambda name: False
        with pytest.raises(requests.HTTPError, match="400"):
            await call("create_node", "n", **NODE)


async def test_the_queue():
    """Items with their texts; one is cancelled, twice."""
    async with strangers() as (call, sim, _):
        number = sim.submit(1.0, job="j", label="nobody")
        shown = await call("get_queue_info")
        assert [(i["id"], i["why"]) for i in shown] == [
            (number, "Waiting for next available executor")
        ]
        assert (await call("get_queue_item", number))["task"]["name"] == "j"
        await call("cancel_queue", number)
        assert await call("get_queue_info") == []
        assert sim.items[number].fate is simulation.Fate.CANCELLED


async def test_a_build_by_its_token():
    """Triggered twice, it is one item."""
    async with strangers() as (call, _, client):
        client.build_job_url = lambda *_, **__: client._build_url("job/j/build")
        assert await call("build_job", "j") == await call("build_job", "j")


async def test_who_may_not():
    """401 and 403 reach it as its own errors."""
    async with strangers(permissions=frozenset({"Overall/Read"})) as (call, _, client):
        with pytest.raises(jenkins.JenkinsException, match="403"):
            await call("create_node", "n", **NODE)
        client._session.auth = requests.auth.HTTPBasicAuth(b"admin", b"wrong")
        with pytest.raises(jenkins.JenkinsException, match="401"):
            await call("get_nodes")


async def test_a_password_needs_the_crumb_and_loses_it():
    """Its crumb is good until the session is lost; then it is refused, as it is known to be."""
    async with strangers(token=None, password="t") as (call, sim, client):
        await call("create_node", "n", **NODE)
        assert "n" in sim.nodes
        client._session.cookies.clear()
        with pytest.raises(jenkins.JenkinsException, match="403"):
            await call("delete_node", "n")
