"""A Java that is brought into images without one: rendered, and filled in on a real engine."""

import asyncio
import io
import json
import pathlib
import secrets
import shutil
import tarfile

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import container, runtimes
from backends.kit import names, runtime
from broker.runtime import tree
from tests.docker import conftest, engines

SPEC = api.InstanceSpec(
    name="one",
    metadata={names.OWNER: "ours"},
    image="golang:1.22",
    argv=(runtime.JAVA, "-jar", runtime.JAR),
    runtime="default",
    options=settings.DockerTemplate(),
)


def planned(**brought: str) -> container.ContainerPlan:
    return container.plan(SPEC, owner="ours", runtimes={"default": settings.Runtime(**brought)})


def mount(plan: container.ContainerPlan) -> dict[str, object]:
    mounts = [m for m in plan.body["HostConfig"]["Mounts"] if m["Target"] == runtime.ROOT]
    assert len(mounts) == 1
    return mounts[0]


# --- rendered ---


def test_a_folder_and_an_image_are_mounted_as_they_are():
    """Read-only, whichever it is."""
    assert mount(planned(folder="/srv/java")) == {
        "Type": "bind", "Source": "/srv/java", "Target": "/opt/agent", "ReadOnly": True,
    }  # fmt: skip
    assert mount(planned(image="agent-runtime:17")) == {
        "Type": "image", "Source": "agent-runtime:17", "Target": "/opt/agent", "ReadOnly": True,
        "ImageOptions": {"Subpath": "opt/agent"},
    }  # fmt: skip


def test_an_archive_is_a_volume_of_its_content():
    """Which volume is known when the archive is read; nothing of the image is copied into it."""
    plan = planned(tar="/srv/java.tar").with_volume("v-1", {"a": "b"})
    assert mount(plan) == {
        "Type": "volume", "Source": "v-1", "Target": "/opt/agent", "ReadOnly": True,
        "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}},
    }  # fmt: skip


def test_the_images_entry_point_is_replaced():
    """An unmodified image starts something else."""
    body = planned(folder="/srv/java").body
    assert body["Entrypoint"] == [""]
    assert body["Cmd"][0] == runtime.JAVA


@pytest.mark.parametrize(
    ("environment", "image", "expected"),
    [
        ({}, "/image/bin", "PATH=/image/bin:/opt/agent/bin"),
        ({}, None, f"PATH={runtime.USUAL_PATH}:/opt/agent/bin"),
        ({"PATH": "/mine"}, "/image/bin", "PATH=/mine:/opt/agent/bin"),
    ],
)
def test_the_tools_are_found_behind_the_images_own(environment, image, expected):
    """What the template says wins over the image."""
    spec = attrs.evolve(SPEC, env={"A": "b", **environment})
    brought = {"default": settings.Runtime(folder="/srv/java")}
    plan = container.plan(spec, owner="ours", runtimes=brought).with_tools(image)
    assert plan.body["Env"] == ["A=b", expected]


def test_a_runtime_that_nobody_configured_is_refused():
    """By its name."""
    with pytest.raises(api.Rejected, match="no runtime 'default'"):
        container.plan(SPEC, owner="ours")


def test_a_runtime_is_one_of_three():
    """Neither none nor two."""
    for told in ({}, {"tar": "/a", "folder": "/b"}):
        with pytest.raises(ValueError, match="exactly one"):
            settings.Runtime(**told)


# --- on an engine ---


def archive(path: pathlib.Path, content: bytes = b"#!/bin/sh\nexec sleep 86400\n") -> str:
    """Write an archive whose Java is a script; return the volume's name."""
    folder = path.with_suffix("")
    java = folder / runtime.JAVA.lstrip("/")
    java.parent.mkdir(parents=True)
    java.write_bytes(content)
    java.chmod(0o755)
    digest = tree.digest(tree.entries(folder), platform=secrets.token_hex(8))
    manifest = runtime.Manifest(digest=digest, platform="linux/amd64", java="17", remoting="3309")
    with path.open("wb") as file:
        tree.write(tree.entries(folder), manifest, file)
    return runtimes.volume_of(manifest)


def spec(rig: conftest.Rig, name: str, **changes: object) -> api.InstanceSpec:
    return attrs.evolve(rig.spec(name), argv=(runtime.JAVA,), runtime="default", **changes)


def rig_with(url: str, path: pathlib.Path) -> conftest.Rig:
    told = {"default": settings.Runtime(tar=str(path))}
    return conftest.Rig(url, conftest.backend_on(runtimes=told))


async def volumes(rig: conftest.Rig) -> set[str]:
    return {one["Name"] for one in (await rig.sdk("volumes"))["Volumes"] or ()}


async def containers(rig: conftest.Rig) -> set[str]:
    return {one["Names"][0][1:] for one in await rig.sdk("containers", all=True)}


async def test_many_at_once_fill_a_volume_once(engine_url, tmp_path):
    """All of them run what is in the archive; the filler is gone, and nothing can be written."""
    volume = archive(tmp_path / "java.tar")
    rig = rig_with(engine_url, tmp_path / "java.tar")
    async with conftest.cleaned(rig):
        await asyncio.gather(*(rig.backend.launch(spec(rig, f"a{n}")) for n in range(4)))
        for number in range(4):
            await rig.running(f"a{number}")
            found = await rig.sdk("inspect_container", rig.container(f"a{number}"))
            (there,) = (m for m in found["Mounts"] if m["Destination"] == runtime.ROOT)
            assert (there["Name"], there["RW"]) == (volume, False)
        assert f"{volume}-filler" not in await containers(rig)
    await rig.sdk("remove_volume", volume)


async def test_what_a_dead_filler_left_is_taken_over(engine_url, tmp_path, monkeypatch):
    """It has filled half, and nobody else is at it: its time passes, then it is done anew."""
    volume = archive(tmp_path / "java.tar")
    rig = rig_with(engine_url, tmp_path / "java.tar")
    monkeypatch.setattr(runtimes, "_FILL_S", 0.5)
    async with conftest.cleaned(rig):
        half = {"Type": "volume", "Source": volume, "Target": runtime.ROOT}
        body = {
            "Image": engines.IMAGE,
            "Cmd": ["/never"],
            "Labels": {f"{container.PREFIX}fills": volume},
            "HostConfig": {"Mounts": [half], "NetworkMode": "none"},
        }
        left = await rig.sdk("create_container_from_config", body, f"{volume}-filler")
        part = io.BytesIO()
        with tarfile.open(fileobj=part, mode="w") as tar:
            member = tarfile.TarInfo(runtime.JAVA.lstrip("/"))
            member.size = 4
            tar.addfile(member, io.BytesIO(b"half"))
        await rig.sdk("put_archive", left["Id"], "/", part.getvalue())
        await rig.backend.launch(spec(rig, "heir"))
        await rig.running("heir")
        assert f"{volume}-filler" not in await containers(rig)
    await rig.sdk("remove_volume", volume)


async def test_an_archive_without_its_end_is_refused(engine_url, tmp_path):
    """It is unpacked once, not again and again, and the launch says what to do."""
    path = tmp_path / "java.tar"
    volume = archive(path)
    cut = tmp_path / "cut.tar"
    with tarfile.open(path) as whole, tarfile.open(cut, "w") as part:
        for member in whole.getmembers()[:-1]:
            part.addfile(member, whole.extractfile(member))
    rig = rig_with(engine_url, cut)
    async with conftest.cleaned(rig):
        with pytest.raises(api.Rejected, match="is missing at its end"):
            await rig.backend.launch(spec(rig, "cut"))
    await rig.sdk("remove_volume", volume)


async def test_a_foreign_container_of_the_fillers_name_is_left_alone(engine_url, tmp_path):
    """The launch is refused, and nothing of it stays."""
    volume = archive(tmp_path / "java.tar")
    rig = rig_with(engine_url, tmp_path / "java.tar")
    async with conftest.cleaned(rig):
        body = {"Image": engines.IMAGE, "Cmd": ["/never"]}
        left = await rig.sdk("create_container_from_config", body, f"{volume}-filler")
        with pytest.raises(api.Rejected, match="not ours"):
            await rig.backend.launch(spec(rig, "one"))
        assert await rig.backend.list() == []
        assert f"{volume}-filler" in await containers(rig)
        await rig.sdk("remove_container", left["Id"])
    await rig.sdk("remove_volume", volume)


async def test_another_content_leaves_running_agents_alone(engine_url, tmp_path, monkeypatch):
    """New agents have the new one; the old one goes when nobody has it any more."""
    monkeypatch.setattr(runtimes, "SWEEP_S", 0.0)
    path = tmp_path / "java.tar"
    old = archive(path)
    rig = rig_with(engine_url, path)
    async with conftest.cleaned(rig):
        await rig.backend.launch(spec(rig, "old"))
        new = archive(tmp_path / "other.tar", b"#!/bin/sh\n# new\nexec sleep 86400\n")
        (tmp_path / "other.tar").replace(path)
        await rig.backend.launch(spec(rig, "new"))
        await rig.running("old")
        await rig.running("new")
        assert {old, new} <= await volumes(rig)
        await rig.backend.terminate("old", grace_s=0)
        await rig.backend.list()
        assert {old, new} & await volumes(rig) == {new}
    await rig.sdk("remove_volume", new)


async def test_a_content_that_another_owner_uses_stays(engine_url, tmp_path, monkeypatch):
    """Whoever made it wants another one by now; it goes when the last agent of anybody has gone."""
    monkeypatch.setattr(runtimes, "SWEEP_S", 0.0)
    mine, theirs = tmp_path / "mine.tar", tmp_path / "theirs.tar"
    old = archive(mine)
    shutil.copyfile(mine, theirs)
    rig, other = rig_with(engine_url, mine), rig_with(engine_url, theirs)
    async with conftest.cleaned(rig), conftest.cleaned(other):
        await rig.backend.launch(spec(rig, "first"))
        await other.backend.launch(spec(other, "second"))
        await rig.backend.terminate("first", grace_s=0)
        archive(tmp_path / "new.tar", b"#!/bin/sh\n# new\nexec sleep 86400\n")
        (tmp_path / "new.tar").replace(mine)
        await rig.backend.list()
        assert old in await volumes(rig)
        await other.running("second")
        await other.backend.terminate("second", grace_s=0)
        await rig.backend.list()
        assert old not in await volumes(rig)


async def test_an_archive_that_is_none_refuses_the_template(engine_url, tmp_path):
    """Before anything is made."""
    (tmp_path / "java.tar").write_bytes(b"no archive")
    rig = rig_with(engine_url, tmp_path / "java.tar")
    async with conftest.cleaned(rig):
        with pytest.raises(api.Rejected, match="not a tar archive"):
            await rig.backend.launch(spec(rig, "one"))
        assert await rig.backend.list() == []


async def test_an_engine_that_mounts_no_images_says_so(engine_url):
    """Before anything is made; a newer one mounts it."""
    told = {"default": settings.Runtime(image="agent-runtime:17")}
    rig = conftest.Rig(engine_url, conftest.backend_on(api_version="1.41", runtimes=told))
    async with conftest.cleaned(rig):
        with pytest.raises(api.Rejected, match=r"1\.48"):
            await rig.backend.launch(spec(rig, "one"))


def test_what_is_rendered_is_json():
    """As ``render`` shows it."""
    configured = settings.DockerSettings(runtimes={"default": settings.Runtime(tar="/j.tar")})
    shown = json.loads(container.render(SPEC, configured, owner="ours"))
    assert shown["HostConfig"]["Mounts"][0]["Target"] == runtime.ROOT
