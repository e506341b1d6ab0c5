"""Builds never share a workspace: a place for each agent, made before it and removed after."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import stat

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import belongings, container, host_paths
from backends.kit import names, workspaces
from backends.kit.remarks import Common
from tests.contract import checks
from tests.docker import conftest

# --- what would be shared ----------------------------------------------------------------------


def shared(remote_fs, **told):
    options = settings.DockerTemplate(**told)
    common = Common(settings=settings.DockerSettings(), remote_fs=remote_fs)
    return [(one.where, one.path) for one in options.shares(common)]


def volume(name, target, **more):
    return settings.Volume(name=name, target=target, **more)


@pytest.mark.parametrize(
    ("remote_fs", "mounts", "where"),
    [
        ("/b", [volume("/b", "/b")], "/b"),
        ("/b/", [volume("/b/", "/b//")], "/b"),
        ("/b/x/..", [volume("/b", "/b")], "/b"),
        ("/b/{name}/..", [volume("/b", "/b")], "/b"),
        ("/b/agents/all", [volume("/srv", "/b")], "/srv/agents/all"),
        ("/b/{name}", [volume("/srv", "/b")], None),
        ("/b", [volume("/srv/{name}", "/b")], None),
        ("/b", [volume("/srv/{name}/../x", "/b")], "/srv/x"),
        ("/b/{name}", [volume("/b/{name}", "/b/{name}")], None),
        (None, [volume("cache", "/home/jenkins")], "cache/agent"),
        (None, [volume("cache-{name}", "/home/jenkins")], None),
        (None, [volume("cache-{slot}", "/home/jenkins")], None),
        ("/b", [volume("/srv/{slot}/../x", "/b")], "/srv/x"),
        (None, [volume("cache", "/home/jenkins", read_only=True)], None),
        (None, [volume(None, "/home/jenkins")], None),
        (None, [volume("cache", "/home/jenkins/.m2")], None),
        (None, [volume("jars", "/home/jenkins/agent/remoting/jarCache")], None),
        (None, [volume("ws", "/home/jenkins/agent/workspace")], "ws"),
        (None, [volume("ws", "/home/jenkins/agent/workspace/job")], "ws"),
        (None, [volume("all", "/home"), volume(None, "/home/jenkins/agent")], None),
        (None, [volume("all", "/home"), volume("all2", "/home/jenkins/agent")], "all2"),
        (
            "/b",
            [volume("ws-{name}", "/b", driver_options={"type": "nfs", "device": ":/export"})],
            ":/export",
        ),
        ("/b", [volume(None, "/b", driver_options={"type": "none", "device": "/x"})], "/x"),
        ("/b", [volume(None, "/b", driver_options={"type": "tmpfs", "device": "tmpfs"})], None),
        ("/b", [settings.Volume(target="/b", tmpfs_bytes=1 << 20)], None),
        ("/elsewhere", [volume("/b", "/b")], None),
        ("/bb", [volume("/b", "/b")], None),
    ],
)
def test_where_agents_would_meet(remote_fs, mounts, where):
    """At or above the working directory, or where workspaces are; the deepest mount counts."""
    found = shared(remote_fs, volumes=tuple(mounts))
    assert [place for place, _ in found] == ([] if where is None else [where])


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ({"Binds": ["/b:/b"]}, "/b"),
        ({"Binds": ["/b:/b:ro"]}, None),
        ({"Binds": ["/b:/b:rw,z"]}, "/b"),
        ({"Binds": ["/b"]}, None),
        ({"Binds": ["ws:/b"]}, "ws"),
        ({"Binds": ["ws-{name}:/b"]}, None),
        ({"Mounts": [{"Type": "bind", "Source": "/b", "Target": "/b"}]}, "/b"),
        ({"Mounts": [{"Type": "volume", "Target": "/b"}]}, None),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/b"}]}, None),
        ({"VolumesFrom": ["other"]}, "the volumes of other"),
        ({"VolumesFrom": ["other:ro"]}, None),
        ({"Binds": [7, None, {}], "Mounts": [1, "x", {"Target": 5}]}, None),
        ({"Binds": "text", "Mounts": {}, "VolumesFrom": 3}, None),
        ("text", None),
    ],
)
def test_the_raw_section_is_looked_at_too(host, where):
    """It is merged last, so it counts; nonsense in it is the engine's to refuse."""
    found = shared("/b", docker={"HostConfig": host})
    assert [place for place, _ in found] == ([] if where is None else [where])


def test_a_raw_list_of_mounts_takes_the_place_of_the_volumes():
    """As it does in what is sent."""
    assert shared("/b", volumes=(volume("/b", "/b"),), docker={"HostConfig": {"Mounts": []}}) == []


# --- what goes with a container ----------------------------------------------------------------


def test_places_are_told_by_a_label_and_read_back():
    """With the name in them, and only then: nobody's label makes us remove something else."""
    host, own = host_paths.settled(
        {
            "Mounts": [
                {"Type": "bind", "Source": "/srv/x-{name}/deep", "Target": "/w"},
                {"Type": "volume", "Source": "v-{name}", "Target": "/v"},
                {"Type": "volume", "Source": "shared", "Target": "/s"},
            ],
            "Binds": ["/other/{name}:/o:ro"],
        },
        "ci-t-abc123",
        {"mark": "ours"},
    )
    assert host["Binds"] == ["/other/ci-t-abc123:/o:ro", "/srv/x-ci-t-abc123/deep:/w"]
    assert host["Mounts"][0]["VolumeOptions"] == {"Labels": {"mark": "ours"}}
    assert "VolumeOptions" not in host["Mounts"][1]
    assert own.folders == (("/other", "ci-t-abc123"), ("/srv", "x-ci-t-abc123"))
    assert host_paths.read(own.label(), "ci-t-abc123") == own
    assert not host_paths.read(own.label(), "ci-t-abc124")
    assert not host_paths.read(own.label(), "")


@pytest.mark.parametrize(
    "label",
    [
        "nonsense",
        "[]",
        '{"folders": 3}',
        '{"folders": [["/"]]}',
        '{"folders": [["/", "etc"]], "volumes": ["db"]}',
        '{"folders": [["/srv/../etc", "n"]]}',
        '{"folders": [["/srv", "n/../../etc"]]}',
    ],
)
def test_a_label_that_somebody_wrote_removes_nothing(label):
    """Only an entry that has the agent's name, of a directory that is written plainly."""
    assert not host_paths.read({host_paths.LABEL: label}, "n")


def test_a_folder_for_each_needs_a_user_by_number():
    """It is given to the user before the start, and only the image knows names."""
    common = Common(settings=settings.DockerSettings())
    told = (volume("/b/{name}", "/b"),)
    assert list(settings.DockerTemplate(volumes=told, user="1000:5").remarks(common)) == []
    for user in ("jenkins", None):
        (found,) = settings.DockerTemplate(volumes=told, user=user).remarks(common)
        assert found.wrong


def test_the_name_is_put_into_what_is_sent():
    """Into mounts of every kind; the digest tells two agents apart, ${name} is somebody else's."""
    spec = conftest.Rig.spec
    made = container.plan(
        spec(
            conftest.Rig("", lambda _: None),
            "ci-t-1",
            volumes=(volume("v-{name}", "/w/{name}"),),
            docker={"HostConfig": {"Tmpfs": {"/x": "a=${name}"}}},
        ),
        owner="o",
    )
    (mount,) = made.body["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"]) == ("v-ci-t-1", "/w/ci-t-1")
    assert made.body["HostConfig"]["Tmpfs"] == {"/x": "a=${name}"}
    assert "/w/ci-t-1" in made.folders
    assert names.named("${name} {name} {{name}}", "n") == "${name} n {n}"
    assert workspaces.normal("//a/./b/../c/") == "/a/c"


# --- on a real engine --------------------------------------------------------------------------

# a build of one job: it writes a file of its own, and shows its workspace once all have written
BUILD = (
    "trap 'echo files $(ls); touch /tmp/shown' USR1; trap 'exit 143' TERM; "
    'mkdir -p "$W/workspace/job" && cd "$W/workspace/job" && echo x > "$ME.txt" && echo written; '
    "while :; do sleep 1 & wait $!; done"
)


@pytest.fixture
def folder():
    """Give a folder that the engine sees, too: it has to be on this machine."""
    path = pathlib.Path(f"/tmp/agent-broker-test-{os.getpid()}")
    if not os.environ.get("DOCKER_HOST", "").startswith("unix:"):
        pytest.skip("the engine has to be on this machine")
    path.mkdir()
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


async def three(rig, *, where, volumes):
    """Run three builds of one job at the same time; return what each of them shows."""
    specs = {}
    for number in range(3):
        name = f"ci-t-{number}"
        words = f"W={names.named(where, name)}; ME={name}; {BUILD}"
        specs[name] = rig.spec(name, words, volumes=tuple(volumes))
    async with asyncio.TaskGroup() as group:
        for spec in specs.values():
            group.create_task(rig.backend.launch(spec))

    async def said(word):
        texts = {name: await rig.backend.logs(name, tail=50) for name in specs}
        return texts if all(word in text for text in texts.values()) else None

    await checks.until("written", lambda: said("written"), within_s=conftest.WITHIN_S)
    for name in specs:
        await rig.sdk("kill", rig.container(name), signal="USR1")
    texts = await checks.until("shown", lambda: said("files"), within_s=conftest.WITHIN_S)
    return {name: text.partition("files ")[2].split() for name, text in texts.items()}


def own(printed):
    return all(files == [f"{name}.txt"] for name, files in printed.items())


async def test_builds_that_share_a_folder_find_each_others_files(rig, folder):
    """What is refused would do this; and nothing of it is ours to remove."""
    folder.chmod(0o1777)
    printed = await three(rig, where=folder, volumes=[volume(f"{folder}", f"{folder}")])
    assert {len(files) for files in printed.values()} == {3}
    for name in printed:
        await rig.backend.terminate(name, grace_s=0)
    assert len(list((folder / "workspace/job").iterdir())) == 3


@pytest.mark.parametrize("inside", ["{name}", "agents/x-{name}/home"])
async def test_a_folder_of_the_host_for_each_agent(rig, folder, inside):
    """The same path inside and outside: made for the user, and gone with the agent, only it."""
    (folder / "others").mkdir()
    where = f"{folder}/{inside}"
    printed = await three(rig, where=where, volumes=[volume(where, where)])
    assert own(printed)
    for name in printed:
        made = pathlib.Path(names.named(where, name))
        assert (made.stat().st_uid, stat.S_IMODE(made.stat().st_mode)) == (1000, 0o755)
        await rig.backend.terminate(name, grace_s=1)
        assert not made.exists()
    assert {path.name for path in folder.rglob("*")} <= {"others", "agents"}
    found = await rig.sdk("containers", all=True)
    assert not [one for one in found if rig.prefix in str(one["Names"])]


async def test_a_volume_for_each_agent_at_its_own_path(rig):
    """The engine's own volume, at the path that it has there: no folder of the host is needed."""
    root = (await rig.sdk("info"))["DockerRootDir"]
    where = f"{root}/volumes/{rig.prefix}{{name}}/_data"
    name = f"{rig.prefix}{{name}}"
    printed = await three(rig, where=where, volumes=[volume(name, where)])
    assert own(printed)
    for agent in printed:
        await rig.backend.terminate(agent, grace_s=1)
    there = (await rig.sdk("volumes"))["Volumes"] or ()
    assert not [one for one in there if rig.prefix in one["Name"]]


async def test_a_cache_of_a_slot_has_one_writer_and_is_the_next_ones(rig):
    """Two agents at once write to two; the third finds what the first one left, as its own user."""
    cache = volume(f"{rig.prefix}cache-{{slot}}", "/cache", writable_by_user=True)
    write = "i=0; while [ $i -lt 200 ]; do echo $HOSTNAME >> /cache/log; i=$((i+1)); done"

    def spec(name, slot, commands, user="1000"):
        made = rig.spec(name, commands, code=0, volumes=(cache,), user=user)
        return attrs.evolve(made, options=names.in_slot(made.options, slot), slot=slot)

    try:
        await asyncio.gather(
            *(rig.backend.launch(spec(name, slot, write)) for name, slot in (("a", 0), ("b", 1)))
        )
        for name in ("a", "b"):
            assert (await rig.exited(name)).code == 0
        await rig.backend.terminate("a", grace_s=0)
        alike = "test $(sort -u /cache/log | wc -l) = 1 && test $(wc -l < /cache/log) = 200"
        found = f"{alike} && echo more >> /cache/log || exit 5"
        await rig.backend.launch(spec("c", 0, found))
        assert (await rig.exited("c")).code == 0
    finally:
        for name in ("a", "b", "c"):
            with contextlib.suppress(api.NotFound):
                await rig.backend.terminate(name, grace_s=0)
        for slot in (0, 1):
            await rig.sdk("remove_volume", f"{rig.prefix}cache-{slot}")


async def test_a_volume_that_was_there_before_is_not_ours_to_remove(rig):
    """Its labels say so, whatever it is called."""
    name = f"{rig.prefix}ci-t-0"
    await rig.sdk("create_volume", name)
    try:
        await rig.backend.launch(
            rig.spec("ci-t-0", volumes=(volume(f"{rig.prefix}{{name}}", "/w"),))
        )
        await rig.backend.terminate("ci-t-0", grace_s=0)
        assert (await rig.sdk("inspect_volume", name))["Name"] == name
    finally:
        await rig.sdk("remove_volume", name)


async def test_what_a_killed_broker_left_goes_with_the_next_one(rig, folder):
    """A container that ended still knows its folder; a volume is known by its marks."""
    where = f"{folder}/{{name}}"
    told = (volume(where, where), volume(f"{rig.prefix}{{name}}", "/v"))
    for name in ("ci-t-0", "ci-t-1"):
        await rig.backend.launch(rig.spec(name, "echo x > $0; exit", volumes=told))
        await rig.exited(name)
    await rig.sdk("remove_container", rig.container("ci-t-1"), v=True)  # then it was killed
    other = conftest.backend_on()(rig)
    try:
        assert {one.name for one in await other.list()} == {"ci-t-0"}
        names_ = {one["Name"] for one in (await rig.sdk("volumes"))["Volumes"] or ()}
        assert f"{rig.prefix}ci-t-1" not in names_
        assert f"{rig.prefix}ci-t-0" in names_
        await other.terminate("ci-t-0", grace_s=0)
    finally:
        await other.aclose()
    assert not (folder / "ci-t-0").exists()


async def test_a_helper_that_cannot_start_costs_a_warning(rig, folder, caplog, monkeypatch):
    """An agent must be possible to end, whatever its image lacks; the folder is named."""
    monkeypatch.setattr(belongings, "_PROGRAM", "/no/such/program")
    where = f"{folder}/{{name}}"
    await rig.backend.launch(rig.spec("ci-t-0", volumes=(volume(where, where),)))
    await rig.running("ci-t-0")
    await rig.backend.terminate("ci-t-0", grace_s=0)
    assert await rig.backend.list() == []
    (told,) = [r for r in caplog.records if r.getMessage() == "folder not removed"]
    assert told.path == f"{folder}/ci-t-0"
    assert (folder / "ci-t-0").is_dir()
    found = await rig.sdk("containers", all=True)
    assert not [one for one in found if rig.prefix in str(one["Names"])]
