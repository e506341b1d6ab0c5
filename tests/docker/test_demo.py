"""End to end: the real broker, real containers, the simulated controller; then nothing is left."""

import asyncio

import pytest

from broker.config import kinds
from broker.demo import scenario
from tests import patience
from tests.docker import engines


async def test_the_demo_serves_its_builds_from_containers(engine_url, monkeypatch):
    """No build is lost, agents are reused, and the engine is as it was."""
    monkeypatch.setenv("DOCKER_HOST", engine_url)
    told = await scenario.play(
        seconds=patience.seconds(5),
        listen="127.0.0.1:0",
        quiet=True,
        kinds=kinds.classes(),
        backend="docker",
    )
    assert told["builds_served"] >= 1
    assert {"builds_lost": 0, "builds_failed": 0, "builds_unserved": 0, "left_over": 0} == {
        name: told[name]
        for name in ("builds_lost", "builds_failed", "builds_unserved", "left_over")
    }

    def owned() -> list[str]:
        client = engines.connected(engine_url)
        try:
            entries = client.containers(all=True)
        finally:
            client.close()
        labels = [entry["Labels"].get("agent-broker.owner", "") for entry in entries]
        return [owner for owner in labels if owner.startswith("demo-")]

    assert [] == await asyncio.to_thread(owned)


async def test_the_demo_says_which_engine_is_missing(monkeypatch):
    """In one sentence, not in a traceback."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    with pytest.raises(scenario.Trouble, match=r"no Docker engine answers|no busybox"):
        await scenario.play(
            seconds=1, listen="127.0.0.1:0", quiet=True, kinds=kinds.classes(), backend="docker"
        )
