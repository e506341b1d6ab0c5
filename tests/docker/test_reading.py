"""A backend made for reading, beside one at work on a real engine."""

import os
import pathlib
import threading
import time

import pytest

from backends import api, registry
from backends.docker import settings
from backends.docker.containers import handover
from tests.docker.conftest import Rig


def reader(rig: Rig) -> api.Backend:
    told = settings.DockerSettings(hosts=(settings.Host(url=rig.url),), name_prefix=rig.prefix)
    return registry.create(
        "docker",
        told,
        owner=f"{rig.prefix}ours",
        store=None,
        state_dir=pathlib.Path("/nonexistent"),
        now=time.time,
        reads_only=True,
    )


async def test_it_follows_nothing_clears_nothing_away_and_ends_nothing(
    rig: Rig, memory: pathlib.Path
) -> None:
    """Old secrets of others stay, and no thread listens for a command that looks once."""
    await rig.backend.launch(rig.spec("a1"))
    await rig.running("a1")
    hands = handover.SecretFolders(f"{rig.prefix}ours", rig.url)
    assert hands.give("left", {"x": "secret"}) is not None
    for path in memory.glob("agent-broker-*/left"):
        os.utime(path, (1, 1))
    before = await rig.sdk("inspect_container", rig.container("a1"))
    followers = [one for one in threading.enumerate() if "events" in one.name]
    looking = reader(rig)
    try:
        (seen,) = await looking.list()
        assert (seen.name, seen.state) == ("a1", api.InstanceState.RUNNING)
        await looking.logs("a1", tail=5)
        await looking.capacity()
        with pytest.raises(api.Rejected, match="reading only"):
            await looking.terminate("a1", grace_s=0)
        assert followers
        assert followers == [one for one in threading.enumerate() if "events" in one.name]
    finally:
        await looking.aclose()
    assert hands.held("left") == {"x": b"secret"}
    assert await rig.sdk("inspect_container", rig.container("a1")) == before
