"""A runtime is brought to a real engine before any agent wants it."""

import concurrent.futures
import contextlib
import pathlib
import secrets

import attrs
import pytest

from backends import api, registry
from backends.docker import delivery, settings
from backends.docker.containers import runtimes
from backends.docker.engine import client as client_
from backends.kit import runtime
from broker import clock
from broker.runtime import tree
from tests.docker import conftest, engines, test_runtimes

LONG_AGO = 1_000_000_000.0
NOW = clock.Clock().now()  # engines say when a container was made


@contextlib.contextmanager
def ways(url: str, number: int = 1):
    """Give so many ways to an engine; nothing of them stays open."""
    with contextlib.ExitStack() as stack:
        found = [
            one for _ in range(number) for one in registry.deliveries("docker", None, url=url)
        ]
        for way in found:
            stack.callback(way.close)
        yield found


@contextlib.contextmanager
def looked_at(url: str, volume: str):
    """Give the engine to look at; the volume is gone afterwards."""
    with contextlib.closing(engines.connected(url)) as client:
        yield client
        for one in client.volumes()["Volumes"] or ():
            if one["Name"] == volume:
                client.remove_volume(volume)


@pytest.fixture(autouse=True)
def own_image(monkeypatch):
    """Let the image of nothing have a name that no other test looks for."""
    monkeypatch.setattr(delivery, "NOTHING", f"agent-broker-filler-{secrets.token_hex(4)}")


def silent(sent: int, size: int) -> None:
    """Hear nothing of what is sent."""


async def test_several_at_once_fill_a_volume_once_and_agents_take_it(engine_url, tmp_path):
    """On an engine without any image of ours; nothing but the volume stays, which is nobody's."""
    path = tmp_path / "java.tar"
    volume = test_runtimes.archive(path)
    sent = []

    def fill(way: runtime.Delivery) -> str:
        return way.fill(str(path), now=NOW, tell=lambda done, size: sent.append((done, size)))

    with ways(engine_url, 4) as found, looked_at(engine_url, volume) as client:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert list(pool.map(fill, found)) == [volume] * 4
        size = path.stat().st_size
        pieces = [done for done, whole in sent if whole == size]
        assert pieces == sorted(pieces)  # of one who sent it once
        assert pieces[-1] == size
        assert not client.images(name=delivery.NOTHING)
        assert not [c for c in client.containers(all=True) if volume in c["Names"][0]]
        assert "agent-broker.owner" not in client.inspect_volume(volume)["Labels"]
        before = client.inspect_volume(volume)["CreatedAt"]
        rig = test_runtimes.rig_with(engine_url, path)
        async with conftest.cleaned(rig):
            await rig.backend.launch(test_runtimes.spec(rig, "one"))
            await rig.running("one")
        assert client.inspect_volume(volume)["CreatedAt"] == before


def test_a_full_disk_is_told_plainly_and_leaves_nothing(engine_url, tmp_path):
    """The engine's own words stand behind it; the next one begins anew."""
    path = tmp_path / "java.tar"
    content = b"#!/bin/sh\n" + secrets.token_bytes(1 << 20)
    volume = test_runtimes.archive(path, content)
    small = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}
    with ways(engine_url) as (way,), looked_at(engine_url, volume) as client:
        client.create_volume(volume, driver="local", driver_opts=small)
        with pytest.raises(api.Unavailable, match="no room on the engine's disk"):
            way.fill(str(path), now=NOW, tell=silent)
        assert volume not in {one["Name"] for one in client.volumes()["Volumes"] or ()}
        assert not client.images(name=delivery.NOTHING)
        assert way.fill(str(path), now=NOW, tell=silent) == volume


def test_what_a_killed_one_left_goes_with_the_next(engine_url, tmp_path, monkeypatch):
    """Image, filler and the volume it left half full, once nobody can be at it; others stay."""
    path, other = tmp_path / "java.tar", tmp_path / "other.tar"
    volume, half = test_runtimes.archive(path), test_runtimes.archive(other)
    with ways(engine_url) as (way,), looked_at(engine_url, volume) as client:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(client_.Engine, "remove", killed)
            patched.setattr(client_.Engine, "remove_image", killed)
            patched.setattr(client_.Engine, "remove_volume", killed)
            patched.setattr(client_.Engine, "put_file", killed)
            with pytest.raises(KeyboardInterrupt):
                way.fill(str(other), now=LONG_AGO, tell=silent)

        listed = client_.Engine.list

        def long_ago(engine: client_.Engine, labels: object) -> object:
            """Make ours as old; those of tests beside this one are not to be swept."""
            found, odd = listed(engine, labels)
            ours = [one for one in found if f"{half}-filler" in one.names]
            return [attrs.evolve(one, created_at=LONG_AGO) for one in ours], odd

        monkeypatch.setattr(client_.Engine, "list", long_ago)

        def left() -> tuple[int, int, int]:
            """Count images, fillers and volumes."""
            names = [name for one in client.containers(all=True) for name in one["Names"]]
            volumes = [one["Name"] for one in client.volumes()["Volumes"] or ()]
            tags = [tag for one in client.images(name=delivery.NOTHING) for tag in one["RepoTags"]]
            images = sum(f":{int(LONG_AGO)}-" in tag for tag in tags)
            return images, names.count(f"/{half}-filler"), volumes.count(half)

        assert left() == (1, 1, 1)
        assert way.fill(str(path), now=LONG_AGO + 60.0, tell=silent) == volume
        assert left() == (1, 1, 1), "somebody may be at it"
        assert way.fill(str(path), now=LONG_AGO + 4000.0, tell=silent) == volume
        assert left() == (0, 0, 0)


def test_an_image_is_loaded_without_a_registry(engine_url, tmp_path):
    """By its name, with the tree in it; what the engine does not take is told in its words."""
    path, packed = tmp_path / "java.tar", tmp_path / "image.tar"
    test_runtimes.archive(path)
    name = f"agent-runtime-of-tests:{secrets.token_hex(4)}"
    with packed.open("wb") as file:
        tree.write_image(path, name, file)
    with ways(engine_url) as (way,), contextlib.closing(engines.connected(engine_url)) as client:
        way.load(packed, name, tell=silent)
        try:
            (found,) = client.images(name=name)
            assert "agent-broker.runtime" in found["Labels"]
        finally:
            client.remove_image(name)
        (tmp_path / "odd.tar").write_bytes(b"no archive")
        with pytest.raises(api.BackendError):
            way.load(tmp_path / "odd.tar", name, tell=silent)


def test_an_engine_for_other_programs_is_refused_before_anything_is_made(engine_url):
    """It says which ones it runs."""
    with ways(engine_url) as (way,):
        way.check("linux/amd64")
        with pytest.raises(api.Rejected, match="it runs linux/amd64, and the runtime is for"):
            way.check("linux/arm64")


def test_an_engine_that_is_away_or_not_allowed_says_so(tmp_path: pathlib.Path):
    """Each in one message."""
    with ways(f"unix://{tmp_path}/none") as (way,):
        with pytest.raises(api.Unavailable, match="No such file or directory"):
            way.check("linux/amd64")
    told = settings.DockerSettings(
        hosts=(settings.Host(url="unix:///a"), settings.Host(url="unix:///b"))
    )
    both = registry.deliveries("docker", told)
    assert [way.where for way in both] == ["unix:///a", "unix:///b"]
    with pytest.raises(ValueError, match="bring a runtime to their agents by themselves"):
        registry.deliveries("mesos", None)


def test_the_name_of_the_volume_is_that_of_its_content(tmp_path):
    """The same archive on every engine; agents look for that name."""
    volume = test_runtimes.archive(tmp_path / "java.tar")
    assert volume == runtimes.volume_of(runtime.read(tmp_path / "java.tar"))
