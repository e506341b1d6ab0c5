"""Docker for the builds of an agent of a swarm: what is sent, where it goes, what is left."""

import asyncio
import contextlib
import secrets
import shutil
import textwrap
import urllib.parse

import attrs
import pytest

from backends import api, registry
from backends.docker.engine import answers
from backends.docker.settings import Host
from backends.docker.swarm import backend, doctor, folders, node_folders, service, settings, states
from backends.kit import finding, names
from tests import programs
from tests.contract import checks, swarm
from tests.docker import engines

DOCKER = shutil.which("docker", path="/usr/bin:/usr/local/bin")
SOCKET = api.DockerPipelines(mode="socket")
FOLDER = "/var/lib/docker/volumes/o-t-abc-work/_data"
PLACES = ("/usr", "/lib", "/lib64")
"""Of this machine, read-only: the command `docker`, and what it needs if it is not static."""


def spec(work_dir=FOLDER, *, name="o-t-abc", **options):
    told = settings.SwarmTemplate(**{"user": "0", **options})
    return api.InstanceSpec(
        name=name, metadata={}, image="x", pipelines=SOCKET, work_dir=work_dir, options=told
    )


def mounts(plan):
    found = plan.body["TaskTemplate"]["ContainerSpec"]["Mounts"]
    return {mount["Target"]: mount for mount in found}


def test_the_workspace_is_a_volume_at_the_path_that_it_has_on_its_node():
    """Which is another one for each agent, and says whose it is."""
    plan = service.plan(spec(), owner="o")
    assert "/var/lib/docker" == plan.engine_root
    assert {FOLDER, settings.SOCKET} == set(mounts(plan))
    volume = mounts(plan)[FOLDER]
    assert ("volume", "o-t-abc-work") == (volume["Type"], volume["Source"])
    told = volume["VolumeOptions"]["Labels"]
    assert {**service.owner_labels("o"), folders.OF: "o-t-abc"} == told
    assert {"o-t-abc-work"} == {
        labels[folders.VOLUME]
        for labels in (plan.body["Labels"], plan.body["TaskTemplate"]["ContainerSpec"]["Labels"])
    }


def test_without_it_nothing_is_asked_of_a_node():
    plan = service.plan(attrs.evolve(spec(), pipelines=None), owner="o")
    assert ("", {}) == (plan.engine_root, mounts(plan) if "Mounts" in str(plan.body) else {})
    assert folders.VOLUME not in plan.body["Labels"]


def test_a_socket_that_is_elsewhere_on_the_nodes_is_the_one_that_is_mounted():
    other = settings.Volume(name="/run/user/docker.sock", target=settings.SOCKET)
    plan = service.plan(spec(volumes=(other,)), owner="o")
    assert "/run/user/docker.sock" == mounts(plan)[settings.SOCKET]["Source"]
    assert 2 == len(plan.body["TaskTemplate"]["ContainerSpec"]["Mounts"])


def test_beside_a_read_only_root_the_folder_is_still_the_only_one():
    plan = service.plan(spec(read_only_root=True), owner="o")
    targets = [m["Target"] for m in plan.body["TaskTemplate"]["ContainerSpec"]["Mounts"]]
    assert ["/tmp", settings.SOCKET, FOLDER] == targets


@pytest.mark.parametrize(
    ("work_dir", "words"),
    [
        (None, "a folder for each agent"),
        ("/var/lib/docker/volumes/work/_data", "a folder for each agent"),
        ("/srv/agent-broker/o-t-abc", "not a volume of one agent"),
        ("/var/lib/docker/volumes/o-t-abc/_data/w", "not a volume of one agent"),
        ("/o-t-abc/volumes/o-t-abc/_data", "not a volume of one agent"),
        ("/d//volumes/o-t-abc/_data", "not a volume of one agent"),
        ("/d/../volumes/o-t-abc/_data", "not a volume of one agent"),
    ],
)
def test_another_folder_would_not_be_found_by_the_engine(work_dir, words):
    with pytest.raises(api.Rejected, match=words):
        service.plan(spec(work_dir), owner="o")


@pytest.mark.parametrize("user", ["1000", "image", "root"])
def test_whom_the_folder_would_not_belong_to_has_none(user):
    """Only root can write into what an engine makes."""
    with pytest.raises(api.Rejected, match="root alone; hint: user: '0'"):
        service.plan(spec(user=user), owner="o")


def test_the_folder_of_the_manual_is_that_of_the_registry():
    assert registry.kind("swarm").own_folder == settings.FOLDER
    assert names.TOKEN in folders.parts(settings.FOLDER, names.TOKEN)[1]


# --- where it goes ------------------------------------------------------------------------------

NODES = tuple(
    states.node(
        {
            "ID": key * 25,
            "Spec": {"Role": "worker", "Availability": availability},
            "Description": {"Hostname": key},
            "Status": {"State": "ready"},
        }
    )
    for key, availability in (("a", "active"), ("b", "active"), ("c", "drain"))
)


class Told:
    """An engine that says this of itself, or does not answer."""

    def __init__(self, node="", root="/var/lib/docker"):
        self.node, self.root, self.asked = node, root, 0

    def swarm_place(self):
        return self.node * 25, self.root

    async def call(self, lane, work, *told, **more):
        self.asked += 1
        if not self.node:
            raise api.Unavailable("it is away")
        return work(*told, **more)


async def placed(*told, root="/var/lib/docker", constraints=()):
    made = node_folders.NodeFolders(told, {})
    return [one[0] for one in await made.placed(NODES, {"Constraints": constraints}, root)]


async def test_it_goes_where_the_engine_can_be_reached_and_has_its_volumes_there():
    assert ["b", "c"] == await placed(Told("a"), Told())
    assert ["c"] == await placed(Told("a"), Told("b"))
    assert ["a", "c"] == await placed(Told("a", "/data"), Told("b"))


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ((Told(),), "none of their engines can be asked; hint: name them in `engines`"),
        ((Told("c"),), "none of their engines can be asked"),
        ((Told("a", "/data"), Told("b", "/mnt")), "they are in /data, /mnt; hint: remote_fs"),
    ],
)
async def test_where_it_could_only_go_blindly_it_does_not_go(told, words):
    with pytest.raises(api.Unavailable, match="no node that it may go to has volumes") as caught:
        await placed(*told)
    assert (words in str(caught.value), api.Reach.TEMPLATE) == (True, caught.value.reach)


async def test_without_a_node_it_waits():
    with pytest.raises(api.NoCapacity):
        await placed(Told("a"), constraints=["node.hostname==z"])


async def test_an_engine_is_not_asked_for_each_agent():
    engine = Told("a")
    made = node_folders.NodeFolders([engine], {})
    for _ in range(3):
        await made.placed(NODES, {}, "/var/lib/docker")
    assert 1 == engine.asked


@pytest.mark.parametrize(
    ("info", "found"),
    [
        ({"Swarm": {"NodeID": "a1"}, "DockerRootDir": "/d"}, ("a1", "/d")),
        ({"Swarm": {"NodeID": "../a"}, "DockerRootDir": 7}, ("", "")),
        ({"Swarm": None}, ("", "")),
    ],
)
def test_what_an_engine_says_of_itself_is_read_with_care(info, found):
    assert found == answers.swarm_place(info)


# --- on a real swarm ----------------------------------------------------------------------------


@attrs.define
class Rig:
    """A backend on a swarm of one node."""

    url: str
    owner: str
    root: str
    backend: api.Backend

    def agent(self, name, script):
        """Return the specification of an agent that has the command `docker`."""
        name = f"{self.owner}-{name}"
        work = f"{self.root}/volumes/{name}-work/_data"
        mounted = [settings.Volume(name=p, target=p, read_only=True) for p in PLACES]
        socket = urllib.parse.urlsplit(self.url).path
        mounted.append(settings.Volume(name=socket, target=settings.SOCKET))
        options = settings.SwarmTemplate(
            user="0", resolve="tag", volumes=tuple(mounted), networks=("host",), grace_s=0
        )
        script = f"set -ex; exec 2>&1; cd {work}; {WHO_AM_I}\n{textwrap.dedent(script)}"
        return api.InstanceSpec(
            name=name,
            metadata={"owner": self.owner},
            image=engines.IMAGE,
            argv=("/bin/sh", "-c", script),
            env={"PATH": "/bin:/usr/local/bin:/usr/bin", "HOME": work},
            secret_files={"agent-secret": "5ecret" * 10},
            options=options,
            pipelines=SOCKET,
            work_dir=work,
        )

    async def said(self, spec):
        """Return what it said once it has ended well."""
        end = (await checks.exited(self.backend, spec.name, within_s=60)).exit
        words = await self.backend.logs(spec.name, tail=400)
        assert 0 == end.code, (words, end)
        return words

    def left(self):
        """Return volumes of the owner, and containers that name them."""
        with contextlib.closing(engines.connected(self.url)) as client:
            volumes = [one["Name"] for one in client.volumes()["Volumes"] or ()]
            found = [one["Names"][0] for one in client.containers(all=True)]
        return [name for name in (*volumes, *found) if self.owner in name]


WHO_AM_I = r"""
self=$(grep -oE '[0-9a-f]{64}' /proc/self/cgroup | tail -n 1)
[ -n "$self" ] || self=$(grep -oE '/containers/[0-9a-f]{64}/' /proc/1/mountinfo | head -n 1 | cut -d/ -f3)
"""


@pytest.fixture
async def rig():
    if DOCKER is None:
        engines.absent(programs.want("docker"))
    url = await engines.with_image(engines.address())
    if not url.startswith("unix:"):
        engines.absent("the engine's socket is not on this machine")
    swarm.managed(url)
    with contextlib.closing(engines.connected(url)) as client:
        root = client.info()["DockerRootDir"]
    owner = f"t{secrets.token_hex(4)}"
    told = settings.SwarmSettings(managers=(Host(url=url),), timeout_s=20)
    made = backend.create(
        told, owner=owner, store=None, state_dir=None, now=asyncio.get_running_loop().time
    )
    opened = Rig(url, owner, root, made)
    try:
        yield opened
    finally:
        for name in await checks.listed(opened.backend):
            await opened.backend.terminate(name, grace_s=0)
        await opened.backend.aclose()


async def test_two_builds_at_a_time_see_their_own_files_in_their_containers(rig):
    """By `docker run -v $PWD:$PWD`, both ways; nothing is left of them afterwards."""
    script = f"""
        echo NAME >who
        docker run --rm --network none -v $PWD:$PWD -w $PWD {engines.IMAGE} \\
            sh -c 'echo "saw: $(cat who) of $(ls | wc -l)"; echo inside >answer'
        echo "answer: $(cat answer)"
    """
    agents = [rig.agent(name, script.replace("NAME", name)) for name in ("one", "two")]
    await asyncio.gather(*(rig.backend.launch(agent) for agent in agents))
    for agent, name in zip(agents, ("one", "two"), strict=True):
        words = (await rig.said(agent)).splitlines()
        assert {f"saw: {name} of 1", "answer: inside"} <= set(words)
    await asyncio.gather(*(rig.backend.terminate(one.name, grace_s=0) for one in agents))
    assert [] == await asyncio.to_thread(rig.left)


async def test_what_takes_over_the_mounts_of_an_agent_has_no_secret_and_goes_with_it(rig):
    """As the container of `inside` does; it would wait for ever."""
    script = f"""
        test -s /agent-broker/secrets/agent-secret
        touch $PWD/mine
        box=$(docker run -d --network none --name {rig.owner}-box -w $PWD --volumes-from $self \\
            {engines.IMAGE} sleep 86400)
        docker exec $box ls mine
        docker exec $box sh -c 'cat /agent-broker/secrets/* || echo no secret'
    """
    agent = rig.agent("a", script)
    await rig.backend.launch(agent)
    assert "no secret" in (await rig.said(agent)).splitlines()
    assert f"/{rig.owner}-box" in await asyncio.to_thread(rig.left)
    await rig.backend.terminate(agent.name, grace_s=0)
    assert [] == await asyncio.to_thread(rig.left)


async def test_what_a_broker_left_that_died_is_swept(rig, monkeypatch):
    """Whoever removed the service did not remove the folder."""
    monkeypatch.setattr(node_folders, "_EVERY_S", 0.1)
    monkeypatch.setattr(node_folders, "_STALE_S", 0.5)
    agent, other = rig.agent("a", "touch left"), rig.agent("b", "touch needed")
    for one in (agent, other):
        await rig.backend.launch(one)
        await rig.said(one)
    with contextlib.closing(engines.connected(rig.url)) as client:
        await asyncio.to_thread(client.remove_service, agent.name)

    async def swept():
        await rig.backend.list()
        return not [name for name in await asyncio.to_thread(rig.left) if agent.name in name]

    await checks.until("its folder is gone", swept, within_s=60)
    assert f"{other.name}-work" in await asyncio.to_thread(rig.left)


async def test_the_doctor_says_to_how_many_nodes_it_can_go(rig):
    """By what their engines say; one that is away is none of them."""
    agent = rig.agent("a", "true")
    elsewhere = attrs.evolve(agent, work_dir=f"/elsewhere/volumes/{agent.name}-work/_data")
    told = settings.SwarmSettings(
        managers=(Host(url=rig.url),), engines=(Host(url="tcp://127.0.0.1:1"),), timeout_s=20
    )
    found = [
        (one.text, one.verdict)
        async for one in doctor.examine(
            told, owner="o", orders={"t": agent, "u": elsewhere}, now=lambda: 0.0
        )
        if one.check == "folders"
    ]
    of = "of 1 node whose engine can be asked"
    assert [
        (f"volumes in {rig.root} (template t): 1 {of}", finding.Grade.OK),
        (f"volumes in /elsewhere (template u): 0 {of}", finding.Grade.FAIL),
    ] == found


async def test_nobody_is_sent_to_a_node_that_has_its_volumes_elsewhere(rig):
    agent = rig.agent("a", "true")
    elsewhere = attrs.evolve(agent, work_dir=f"/elsewhere/volumes/{agent.name}-work/_data")
    with pytest.raises(api.Unavailable, match=f"they are in {rig.root}; hint: remote_fs"):
        await rig.backend.launch(elsewhere)
    assert {} == await checks.listed(rig.backend)
