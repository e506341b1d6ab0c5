"""A Java that is brought to the nodes of a real swarm of one node: by a job, and by its engine."""

import asyncio
import contextlib
import io
import pathlib
import secrets
import shutil
import time

import attrs
import pytest

from backends import api
from backends.docker.containers import runtimes as archives
from backends.docker.settings import Host
from backends.docker.swarm import backend, errand, service, settings
from backends.docker.swarm import runtimes as swarm_runtimes
from backends.kit import names, runtime
from broker.runtime import tree
from tests import patience
from tests.contract import checks, swarm
from tests.docker import engines

WITHIN_S = 60.0
pytestmark = pytest.mark.timeout(300)  # a swarm takes seconds for whatever it begins or ends


@pytest.fixture(scope="module")
def engine_url():
    url = asyncio.run(engines.with_image(engines.address()))
    swarm.managed(url)
    return url


def archive(path: pathlib.Path, words: str = "") -> runtime.Manifest:
    """Write an archive whose Java is a script, with the tools that a real one has."""
    folder = path.with_suffix("")
    java, tools = folder / runtime.JAVA.lstrip("/"), folder / runtime.TOOLS.lstrip("/")
    java.parent.mkdir(parents=True)
    tools.mkdir()
    java.write_text(f"#!{runtime.TOOLS}/sh\n# {words}\nexec {runtime.TOOLS}/busybox sleep 86400\n")
    shutil.copyfile("/usr/bin/busybox" if pathlib.Path("/usr/bin/busybox").exists()
                    else "/bin/busybox", tools / "busybox")  # fmt: skip
    for file in (java, tools / "busybox"):
        file.chmod(0o755)
    (tools / "sh").symlink_to("busybox")
    digest = tree.digest(tree.entries(folder), platform=secrets.token_hex(8))
    manifest = runtime.Manifest(digest=digest, platform="linux/amd64", java="17", remoting="3309")
    with path.open("wb") as file:
        tree.write(tree.entries(folder), manifest, file)
    return manifest


@attrs.define
class Rig:
    """A backend of an owner of its own, and the engine behind its back."""

    url: str
    backend: api.Backend
    owner: str
    volumes: set[str] = attrs.field(factory=set)
    images: set[str] = attrs.field(factory=set)

    def spec(self, name, **options):
        told = {"networks": ("host",), "resolve": "id", "grace_s": 1, **options}
        return api.InstanceSpec(
            name=name,
            metadata={names.OWNER: "ours"},
            argv=(runtime.JAVA,),
            image=engines.IMAGE,
            runtime="default",
            options=settings.SwarmTemplate(**told),
        )

    async def running(self, name, **options):
        await self.backend.launch(self.spec(name, **options))
        await checks.running(self.backend, name, within_s=WITHIN_S)

    async def sdk(self, verb, *told, **more):
        def call():
            with contextlib.closing(engines.connected(self.url)) as client:
                return getattr(client, verb)(*told, **more)

        return await asyncio.to_thread(call)

    async def load(self, path, name):
        """Make an archive an image of the engine."""
        buffer = io.BytesIO()
        tree.write_image(path, name, buffer)
        await self.sdk("load_image", buffer.getvalue())
        self.images.add((await self.sdk("inspect_image", name))["Id"])

    async def volume_of(self, name):
        """Return the volume that an agent has its Java in."""
        mark = {"label": [f"{service.NAME}={name}", *self._marks(service.owner_labels)]}
        (there,) = await self.sdk("containers", filters=mark)
        (mount,) = [m for m in there["Mounts"] if m["Destination"] == runtime.ROOT]
        assert not mount["RW"]
        self.volumes.add(mount["Name"])
        return mount["Name"]

    def _marks(self, labels):
        return [f"{key}={text}" for key, text in labels(self.owner).items()]

    async def jobs(self):
        """Volumes of the jobs that are there."""
        found = await self.sdk("services", filters={"label": self._marks(errand.marks)})
        return {entry["Spec"]["Name"] for entry in found}

    async def until(self, is_so, what):
        patient = patience.Patience(WITHIN_S)
        while not await is_so():
            assert not patient.is_over(), what
            await asyncio.sleep(0.1)

    async def in_volume(self, volume, *command):
        """Run something in a volume."""
        mount = {"Type": "volume", "Source": volume, "Target": "/v"}
        made = await self.sdk(
            "create_container_from_config",
            {"Image": engines.IMAGE, "Entrypoint": list(command),
             "HostConfig": {"NetworkMode": "none", "Mounts": [mount]}},
        )  # fmt: skip
        await self.sdk("start", made["Id"])
        code = (await self.sdk("wait", made["Id"]))["StatusCode"]
        await self.sdk("remove_container", made["Id"], force=True)
        return code

    async def removed(self):
        for entry in await self.sdk("services", filters={"label": self._marks(errand.marks)}):
            self.volumes.add(entry["Spec"]["Name"])
            await self.sdk("remove_service", entry["ID"])
        mark = {"label": self._marks(errand.marks)}

        async def gone():
            for entry in await self.sdk("containers", all=True, filters=mark):
                with contextlib.suppress(engines.docker.errors.APIError):  # it was going
                    await self.sdk("remove_container", entry["Id"], force=True)
            for name in tuple(self.volumes):
                try:
                    await self.sdk("remove_volume", name)
                except engines.docker.errors.NotFound:
                    self.volumes.discard(name)
                except engines.docker.errors.APIError:
                    return False  # a container of it is going
            return True

        await self.until(gone, "volumes are free")
        for image in self.images:
            await self.sdk("remove_image", image, force=True)


@contextlib.asynccontextmanager
async def rig_with(url, *, owner="", **brought):
    owner = owner or f"t{secrets.token_hex(4)}"
    told = settings.SwarmSettings(
        managers=(Host(url=url),),
        look_s=0.2,
        name_prefix=f"{owner}-",
        resolved_s=0,
        runtimes={"default": settings.SwarmRuntime(**brought)},
    )
    made = backend.create(told, owner=owner, store=None, state_dir=None, now=time.time)
    rig = Rig(url, made, owner)
    try:
        yield rig
        for one in await made.list():
            with contextlib.suppress(api.NotFound):  # it was ending
                await made.terminate(one.name, grace_s=0)
    finally:
        await made.aclose()
        await rig.removed()


@pytest.fixture
def name():
    """Give a name of an image that no other test has."""
    return f"agent-runtime-{secrets.token_hex(4)}:1"


@contextlib.asynccontextmanager
async def with_image(url, tmp_path, name, **more):
    """Give a rig whose runtime is an image that the engine has."""
    archive(tmp_path / "java.tar")
    async with rig_with(url, image=name, resolve="id", **more) as rig:
        await rig.load(tmp_path / "java.tar", name)
        yield rig


async def test_many_at_once_have_an_image_brought_once(engine_url, tmp_path, name):
    """By one job; whoever is launched meanwhile waits for it, and says so; then it is there."""
    async with with_image(engine_url, tmp_path, name) as rig:
        waits = set()

        async def look():
            while True:
                waits.update(one.detail for one in await rig.backend.list())
                await asyncio.sleep(0.02)

        looking = asyncio.create_task(look())
        await asyncio.gather(*(rig.running(f"a{n}") for n in range(3)))
        looking.cancel()
        assert "its Java is brought to the nodes: 0 of 1 have it" in waits
        volumes = {await rig.volume_of(f"a{n}") for n in range(3)}
        assert await rig.jobs() == volumes
        assert not await rig.in_volume(*volumes, "/bin/sh", "-c", "test -e /v/.complete")
        before = await rig.sdk("services", filters={"name": next(iter(volumes))})
        await rig.running("later")
        after = await rig.sdk("services", filters={"name": next(iter(volumes))})
        assert before[0]["Version"] == after[0]["Version"]


@pytest.mark.soak
async def test_an_upgrade_leaves_those_that_run_alone(engine_url, tmp_path, name, monkeypatch):
    """The old content is emptied once its last agent has gone, and its job goes."""
    monkeypatch.setattr(archives, "SWEEP_S", 0.0)
    monkeypatch.setattr(swarm_runtimes, "_LATELY_S", 0.0)
    async with with_image(engine_url, tmp_path, name) as rig:
        await rig.running("old")
        archive(tmp_path / "new.tar", "another")
        await rig.load(tmp_path / "new.tar", name)
        await rig.running("new")
        old, new = await rig.volume_of("old"), await rig.volume_of("new")
        assert old != new
        await rig.backend.list()
        assert await rig.jobs() == {old, new}
        assert not await rig.in_volume(old, "/bin/sh", "-c", "test -e /v/.complete")
        await rig.backend.terminate("old", grace_s=0)

        async def gone():
            await rig.backend.list()
            return await rig.jobs() == {new}

        await rig.until(gone, "the old job goes")
        assert not await rig.in_volume(old, "/bin/sh", "-c", 'test -z "$(ls -A /v)"')
        assert "new" in {one.name for one in await rig.backend.list() if one.exit is None}


@pytest.mark.soak
async def test_a_content_that_is_wanted_again_is_brought_again(
    engine_url, tmp_path, name, monkeypatch
):
    """Though its volume is just being emptied: that comes to its end first."""
    monkeypatch.setattr(archives, "SWEEP_S", 0.0)
    monkeypatch.setattr(swarm_runtimes, "_LATELY_S", 0.0)
    async with with_image(engine_url, tmp_path, name) as rig:
        await rig.running("old")
        volume = await rig.volume_of("old")
        archive(tmp_path / "new.tar", "another")
        await rig.load(tmp_path / "new.tar", name)
        await rig.backend.terminate("old", grace_s=0)
        await rig.backend.list()
        await rig.load(tmp_path / "java.tar", name)
        await rig.running("again")
        assert await rig.volume_of("again") == volume


async def test_an_agent_without_its_java_has_it_brought_anew(engine_url, tmp_path, name):
    """Somebody has emptied the volume: that is told, and the next agent runs."""
    async with with_image(engine_url, tmp_path, name) as rig:
        await rig.running("one")
        volume = await rig.volume_of("one")
        await rig.in_volume(volume, "/bin/sh", "-c", "rm -rf /v/* /v/.complete")
        await rig.backend.launch(rig.spec("two"))
        end = (await checks.exited(rig.backend, "two", within_s=WITHIN_S)).exit
        assert end.slug == "platform-lost"
        assert "its Java was not on its node" in end.message
        await rig.running("three")


async def test_a_node_that_gets_no_java_is_told_with_its_reason(engine_url, tmp_path, name):
    """The runtime's constraints leave it out; nothing is made, and nobody waits long."""
    told = {"constraints": ("node.labels.none==such",)}
    async with with_image(engine_url, tmp_path, name, **told) as rig:
        with pytest.raises(api.Unavailable, match="`constraints` of the runtime leave it out"):
            await rig.backend.launch(rig.spec("one"))
        with pytest.raises(api.NoCapacity, match="no node"):
            await rig.backend.launch(rig.spec("one", constraints=("node.labels.none==such",)))
        assert await rig.backend.list() == []


async def test_an_image_that_is_none_is_refused(engine_url, name):
    """With the manager's words, before anything is made."""
    async with rig_with(engine_url, image=name, resolve="id") as rig:
        with pytest.raises(api.Rejected, match="the manager has no image"):
            await rig.backend.launch(rig.spec("one"))
        assert await rig.jobs() == set()


async def test_an_image_without_the_tree_is_told(engine_url):
    """The job ends with an error on every node, and the launch says it."""
    async with rig_with(engine_url, image=engines.IMAGE, resolve="id") as rig:
        with pytest.raises(api.Unavailable, match="none of 1 node"):
            await rig.backend.launch(rig.spec("one"))


# --- through the engine ---


async def test_an_archive_comes_by_the_engine_and_is_kept(engine_url, tmp_path):
    """As on a plain engine; a container that never starts keeps the volume from being swept."""
    manifest = archive(tmp_path / "java.tar")
    async with rig_with(engine_url, tar=str(tmp_path / "java.tar")) as rig:
        await asyncio.gather(*(rig.running(f"a{n}") for n in range(3)))
        volumes = {await rig.volume_of(f"a{n}") for n in range(3)}
        assert volumes == {archives.volume_of(manifest)}
        assert await rig.jobs() == set()
        there = [entry["Names"][0] for entry in await rig.sdk("containers", all=True)]
        assert [name for name in there if name.startswith(f"/{next(iter(volumes))}-")] == [
            name for name in there if name.startswith(f"/{next(iter(volumes))}-keeper-")
        ]
        with pytest.raises(engines.docker.errors.APIError, match="in use"):
            await rig.sdk("remove_volume", next(iter(volumes)))


@pytest.mark.soak
async def test_an_archive_that_changes_is_another_volume(engine_url, tmp_path, monkeypatch):
    """Those that run keep theirs; it goes with its keeper when nobody has it any more."""
    monkeypatch.setattr(archives, "SWEEP_S", 0.0)
    monkeypatch.setattr(swarm_runtimes, "_LATELY_S", 0.0)
    old = archives.volume_of(archive(tmp_path / "java.tar"))
    async with rig_with(engine_url, tar=str(tmp_path / "java.tar")) as rig:
        rig.volumes.add(old)
        await rig.running("old")
        new = archives.volume_of(archive(tmp_path / "new.tar", "another"))
        (tmp_path / "new.tar").replace(tmp_path / "java.tar")
        await rig.running("new")
        assert (await rig.volume_of("old"), await rig.volume_of("new")) == (old, new)
        await rig.backend.terminate("old", grace_s=0)

        async def gone():
            await rig.backend.list()
            there = (await rig.sdk("volumes"))["Volumes"] or ()
            return old not in {one["Name"] for one in there}

        await rig.until(gone, "the old volume goes")
        assert await rig.volume_of("new") == new


@pytest.mark.soak
async def test_another_owners_keeper_keeps_it(engine_url, tmp_path, monkeypatch):
    """Whoever made the volume wants it no more; another one has agents that may start."""
    monkeypatch.setattr(archives, "SWEEP_S", 0.0)
    monkeypatch.setattr(swarm_runtimes, "_LATELY_S", 0.0)
    mine, theirs = tmp_path / "mine.tar", tmp_path / "theirs.tar"
    old = archives.volume_of(archive(mine))
    shutil.copyfile(mine, theirs)
    async with (
        rig_with(engine_url, tar=str(mine)) as rig,
        rig_with(engine_url, tar=str(theirs)) as other,
    ):
        other.volumes.add(old)
        await rig.running("first")
        await other.running("second")
        for one, name in ((rig, "first"), (other, "second")):
            await one.backend.terminate(name, grace_s=0)
        archive(tmp_path / "new.tar", "another")
        (tmp_path / "new.tar").replace(mine)
        await rig.running("third")

        async def left():
            await rig.backend.list()
            names_ = [entry["Names"][0] for entry in await rig.sdk("containers", all=True)]
            return sum(name.startswith(f"/{old}-keeper-") for name in names_) == 1

        await rig.until(left, "our keeper goes, theirs stays")
        await rig.backend.list()
        await other.running("fourth")
        assert await other.volume_of("fourth") == old


async def test_an_archive_that_is_none_refuses_the_template(engine_url, tmp_path):
    """Before anything is made."""
    (tmp_path / "java.tar").write_bytes(b"no archive")
    async with rig_with(engine_url, tar=str(tmp_path / "java.tar")) as rig:
        with pytest.raises(api.Rejected, match="not a tar archive"):
            await rig.backend.launch(rig.spec("one"))
