"""Docker for the builds of an agent: what is sent, and what builds see on a real engine."""

import asyncio
import json
import shutil
import textwrap

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import belongings, container
from backends.docker.engine import answers
from backends.kit import pipelines
from tests import programs
from tests.contract import checks
from tests.docker import conftest, engines, registries

DOCKER = shutil.which("docker", path="/usr/bin:/usr/local/bin")
SOCKET = api.DockerPipelines(mode="socket")
PLACES = ("/usr", "/lib", "/lib64")
"""Of this machine, read-only: the command `docker`, and what it needs if it is not static."""

WHO_AM_I = r"""
self=$(grep -oE '[0-9a-f]{64}' /proc/self/cgroup | tail -n 1)
[ -n "$self" ] || self=$(grep -oE '/containers/[0-9a-f]{64}/' /proc/1/mountinfo | head -n 1 | cut -d/ -f3)
"""
"""As `docker.image().inside` finds the container that it runs in, by control group, or mounts."""


def spec(name="o-t-abc", *, mode="socket", work_dir="/srv/agent-broker/o-t-abc", **options):
    """A specification, for what is sent."""
    told = api.DockerPipelines(mode=mode)
    options = settings.DockerTemplate(**options)
    return api.InstanceSpec(
        name=name, metadata={}, image="x", pipelines=told, work_dir=work_dir, options=options
    )


def test_with_the_socket_the_workspace_is_at_one_path_on_both_sides():
    """A folder of this agent alone, given to its user, and removed with it."""
    plan = container.plan(spec(), owner="o")
    folder = "/srv/agent-broker/o-t-abc"
    assert [f"{folder}:{folder}"] == plan.body["HostConfig"]["Binds"]
    assert folder in plan.folders
    assert (True, True) == (plan.wants_socket, plan.hands_on)
    assert '{"folders": [["/srv/agent-broker", "o-t-abc"]]' in plan.body["Labels"][
        "agent-broker.places"
    ]  # fmt: skip


@pytest.mark.parametrize("work_dir", [None, "/srv/agent-broker", "work/o-t-abc"])
def test_a_folder_for_all_is_none(work_dir):
    """Builds would find each other's files in it, or none."""
    with pytest.raises(api.Rejected, match="a folder for each agent"):
        container.plan(spec(work_dir=work_dir), owner="o")


@pytest.mark.parametrize(("mode", "group"), [("dind", ["--group=7"]), ("dind-rootless", [])])
def test_an_engine_beside_the_agent_sees_what_it_has(mode, group):
    """At the same places; its socket is of the agent's group, or of the one user that it has."""
    plan = container.plan(spec(mode=mode, work_dir=None, user="1000:7", network="n"), owner="o")
    beside, host = plan.beside, plan.beside["HostConfig"]
    ours = {m["Target"]: m["Source"] for m in plan.body["HostConfig"]["Mounts"]}
    assert ours == {m["Target"]: m["Source"] for m in host["Mounts"]}
    assert {container.WORK: "o-t-abc-work", pipelines.ENGINE: "o-t-abc-engine"} == ours
    assert ["dockerd", f"--host=unix://{pipelines.SOCKET}", *group] == beside["Cmd"]
    assert f"DOCKER_HOST=unix://{pipelines.SOCKET}" in plan.body["Env"]
    assert "n" == host["NetworkMode"]
    assert (True, ["ALL"]) == (host["Privileged"], host["CapAdd"])
    assert "CapDrop" not in host
    assert f"docker:{mode}" == beside["Image"]
    assert not plan.wants_socket


@pytest.mark.parametrize(
    ("told", "options", "limits"),
    [
        ({}, {}, (2 << 30, 2 << 30, 1 << 30, 1_500_000_000, 512, 8192)),
        ({}, {"pids": 99}, (2 << 30, 2 << 30, 1 << 30, 1_500_000_000, 512, 99)),
        ({}, {"pids": None}, (2 << 30, 2 << 30, 1 << 30, 1_500_000_000, 512, None)),
        (
            {},
            {"docker": {"HostConfig": {"Memory": 3 << 30}}},
            (3 << 30, 3 << 30, 1 << 30, 1_500_000_000, 512, 8192),
        ),
        (
            {"memory_bytes": 512 << 20, "cpu_limit": 4.0},
            {"memory_swap_bytes": 8 << 30},
            (512 << 20, 512 << 20, None, 4_000_000_000, 512, 8192),
        ),
    ],
)
def test_an_engine_beside_the_agent_has_limits(told, options, limits):
    """Those of the agent once more, raw ones too, or those that are told for it."""
    had = api.Resources(
        memory_bytes=2 << 30, memory_reservation_bytes=1 << 30, cpu_limit=1.5, cpu_shares=0.5
    )
    one = attrs.evolve(
        spec(mode="dind", work_dir=None, **options),
        pipelines=api.DockerPipelines(mode="dind", **told),
        resources=had,
    )
    host = container.plan(one, owner="o").beside["HostConfig"]
    keys = ("Memory", "MemorySwap", "MemoryReservation", "NanoCpus", "CpuShares", "PidsLimit")
    assert limits == tuple(host.get(key) for key in keys)


def test_an_engine_beside_an_agent_without_limits_has_none_of_memory():
    host = container.plan(spec(mode="dind", work_dir=None), owner="o").beside["HostConfig"]
    assert {"PidsLimit": 8192} == {key: host[key] for key in container._LIMITS if key in host}


def test_the_engine_is_shown_beside_its_agent():
    """By `render`, as it would be sent."""
    shown = container.render(spec(mode="dind"), settings.DockerSettings(), owner="o")
    agent, _, engine = shown.partition("\n}\n")
    assert "o-t-abc" in json.loads(f"{agent}}}")["Labels"]["agent-broker.name"]
    assert json.loads(engine)["HostConfig"]["Privileged"] is True


def test_another_engine_is_another_specification():
    """An agent with the old one is not taken for it."""
    one = spec(mode="dind", work_dir=None)
    other = attrs.evolve(one, pipelines=api.DockerPipelines(mode="dind", image="mirror/dind"))
    digests = {container.plan(s, owner="o").body["Labels"][container.DIGEST] for s in (one, other)}
    assert 2 == len(digests)


# --- on a real engine ---------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path, memory):
    """A folder that the engine sees, too."""
    folder = tmp_path / "agents"
    folder.mkdir()
    folder.chmod(0o755)
    return folder


@pytest.fixture
def with_docker(rig, base):
    """What makes the specification of an agent whose image has the command `docker`."""
    if DOCKER is None:
        engines.absent(programs.want("docker"))
    mounts = tuple(settings.Volume(name=p, target=p, read_only=True) for p in PLACES)

    def made(name, script, **more):
        work = f"{base}/{name}"
        head = f"set -ex; exec 2>&1; cd {work}; export HOME={work}\n"
        made = rig.spec(name, head + textwrap.dedent(script), code=0, volumes=mounts, **more)
        env = {"PATH": "/bin:/usr/local/bin:/usr/bin", "DOCKER_BUILDKIT": "0"}
        return attrs.evolve(made, pipelines=SOCKET, work_dir=work, env=env)

    return made


async def said(rig, name):
    """Return what an agent said, once it has ended well."""
    end = await rig.exited(name)
    words = await rig.backend.logs(name, tail=400)
    assert 0 == end.code, words
    return words


async def test_a_container_of_a_build_sees_its_workspace(rig, base, with_docker):
    """By `docker run -v $PWD:$PWD`, and both ways; nothing is left of it afterwards."""
    script = f"""
        echo from the agent >told
        docker run --rm --network none -u 1000 -v $PWD:$PWD -w $PWD {engines.IMAGE} \\
            sh -c 'cat told; echo from inside >answer'
        cat answer
    """
    await rig.backend.launch(with_docker("a1", script))
    words = await said(rig, "a1")
    assert ("from the agent" in words, "from inside" in words) == (True, True)
    assert (base / "a1" / "answer").read_text() == "from inside\n"
    await rig.backend.terminate("a1", grace_s=0)
    assert [] == list(base.iterdir())


async def test_three_builds_at_a_time_do_not_mix(rig, base, with_docker):
    """Each container sees the files of its own agent alone."""
    script = f"""
        echo NAME >who
        for i in 1 2 3; do
            docker run --rm --network none -v $PWD:$PWD -w $PWD {engines.IMAGE} \\
                sh -c 'echo "saw: $(cat who) of $(ls | wc -l)"'
        done
    """
    names = ("b1", "b2", "b3")
    await asyncio.gather(
        *(rig.backend.launch(with_docker(n, script.replace("NAME", n))) for n in names)
    )
    for name in names:
        saw = {line for line in (await said(rig, name)).splitlines() if line.startswith("saw:")}
        assert {f"saw: {name} of 1"} == saw


async def test_the_calls_of_a_pipeline_do_as_they_do_on_a_machine(
    rig, base, with_docker, tmp_path_factory
):
    """`pull`, `withRegistry`, `build`, `inside`, `push`, as the docker-workflow plugin makes them.

    `inside` finds the agent's container by its control group or mounts, looks up what it has
    mounted, and takes that over, because the workspace lies below it; the secret is not among it.
    """
    with registries.registry(tmp_path_factory.mktemp("closed") / "r", asks=True) as registry:
        base_image = await asyncio.to_thread(registry.push, rig.url, "base")
        ours = f"{registry.address}/team/app:7"
        script = f"""
            mkdir -p workspace/job workspace/job@tmp && cd workspace/job
            export DOCKER_CONFIG=$PWD@tmp/config
            ! docker pull {base_image}
            echo {registries.PASSWORD} | docker login -u {registries.USER} --password-stdin {registry.address}
            docker pull {base_image}
            printf 'FROM {base_image}\nCOPY answer /answer\n' >Dockerfile
            echo 42 >answer
            docker build -t {ours} .
            {WHO_AM_I}
            test "$(docker inspect -f '{{{{.Name}}}}' $self)" = "/{rig.container("a1")}"
            docker inspect -f '{{{{range .Mounts}}}}{{{{println .Destination}}}}{{{{end}}}}' $self >mounted
            grep -qx {base}/a1 mounted
            box=$(docker run -t -d -u $(id -u):$(id -g) --network none -w $PWD --volumes-from $self \
                  -e BUILD=7 {ours} cat)
            docker top $box -eo pid,comm
            docker exec -i -w $PWD $box sh -c 'cat /answer >copied; echo $BUILD >>copied; id -u >>copied'
            docker exec $box sh -c 'cat /agent-broker/secrets/* || echo no secret'
            docker stop -t 1 $box; docker rm -f $box
            cat copied
            docker push {ours}
            docker rmi {ours} {base_image}
        """
        wanted = attrs.evolve(with_docker("a1", script), secret_files={"agent-secret": "s" * 64})
        await rig.backend.launch(wanted)
        words = await said(rig, "a1")
        copied = (base / "a1/workspace/job/copied").read_text()
        await rig.backend.terminate("a1", grace_s=0)
    assert "42\n7\n1000\n" == copied
    assert "no secret" in words.splitlines()
    assert "7: digest: sha256:" in words
    assert [] == list(base.iterdir())


@pytest.mark.parametrize(
    ("taken", "is_one"),
    [
        (["c" * 64], True),
        (["c" * 12 + ":ro"], True),
        (["/b-a1"], True),
        (["d" * 64, "b-a1:rw"], True),
        (["c" * 11], False),
        (["b-a12"], False),
        (["d" * 64], False),
        ([], False),
        (None, False),
    ],
)
def test_which_containers_have_the_mounts_of_an_agent(taken, is_one):
    """Those that were told to take them over from it: by its id, as it is or short, or name."""
    there = {
        "Id": "e" * 64,
        "State": {"Status": "running"},
        "Config": {"Labels": None},
        "HostConfig": {"VolumesFrom": taken},
    }
    found = answers.inspected(there)
    assert is_one is belongings.is_heir(found, agent="c" * 64, called="b-a1")


async def test_what_took_over_the_mounts_of_an_agent_goes_with_it(rig, base, with_docker):
    """As the container of `inside` does when its agent dies: nobody is left to end it.

    One that has the folder in another way is not known to be of a build, and stays.
    """
    script = f"""
        {WHO_AM_I}
        box=$(docker run -t -d --network none -w $PWD --volumes-from $self {engines.IMAGE} cat)
        other=$(docker run -t -d --network none -v $PWD:$PWD {engines.IMAGE} cat)
        echo $box $other >started
    """
    await rig.backend.launch(with_docker("a1", script))
    await said(rig, "a1")
    box, other = (base / "a1" / "started").read_text().split()
    try:
        await rig.backend.terminate("a1", grace_s=0)
        there = {one["Id"] for one in await rig.sdk("containers", all=True)}
        assert (False, True) == (box in there, other in there)
        assert [] == list(base.iterdir())
    finally:
        await rig.sdk("remove_container", other, force=True)


async def test_a_folder_of_an_agent_whose_broker_died_goes_with_it(rig, base, with_docker):
    """The next broker of that owner removes both."""
    await rig.backend.launch(with_docker("a1", "touch left"))
    await said(rig, "a1")
    await rig.backend.aclose()
    rig.backend = rig.make(rig)
    assert {"a1"} == set(await checks.listed(rig.backend))
    await rig.backend.terminate("a1", grace_s=0)
    assert [] == list(base.iterdir())


# --- an engine beside the agent -----------------------------------------------------------------

STAND_IN = """#!/bin/sh
echo "$0 $*" >/home/jenkins/agent/engine
touch /agent-broker/engine/docker.sock
exec sleep 86400
"""


@pytest.fixture
def beside(rig, tmp_path, memory, monkeypatch):
    """What makes the specification of an agent with an engine beside it, played by a script.

    Privileged containers are not to be had everywhere; all else is as it is with a real one.
    """
    monkeypatch.setattr(container, "PRIVILEGED", {})

    def made(name, script="", *, dockerd=STAND_IN, code=0):
        folder = tmp_path / f"bin-{name}"
        folder.mkdir()
        folder.chmod(0o755)
        for program, text in (
            ("dockerd", dockerd),
            ("docker", '#!/bin/sh\ntest -e "${1#--host=unix://}"\n'),
        ):
            (folder / program).write_text(text)
            (folder / program).chmod(0o755)
        mounts = (settings.Volume(name=str(folder), target="/usr/local/bin", read_only=True),)
        told = api.DockerPipelines(mode="dind", image=engines.IMAGE)
        spec = rig.spec(name, f"set -e; exec 2>&1\n{script}", code=code, volumes=mounts)
        return attrs.evolve(spec, pipelines=told)

    return made


@pytest.fixture
def name(rig):
    """An agent's, and so of volumes: no other test has it."""
    return f"{rig.prefix}1"


async def left(rig):
    """Return what there is of this rig: containers, and named volumes of its agents."""
    found = [one["Names"][0] for one in await rig.sdk("containers", all=True)]
    volumes = await rig.sdk("volumes", filters={"label": f"agent-broker.owner={rig.prefix}ours"})
    names = [one["Name"] for one in volumes["Volumes"] or ()]
    return [name for name in found if rig.prefix in name], names


async def test_an_engine_is_there_before_its_agent_and_goes_after_it(rig, beside, name):
    """They share the workspace, and the socket that the agent's builds are told of."""
    script = """
        cat /home/jenkins/agent/engine; echo $DOCKER_HOST
        test -e ${DOCKER_HOST#unix://} && echo there
        id -u; touch /home/jenkins/agent/mine
    """
    await rig.backend.launch(beside(name, script))
    words = (await said(rig, name)).splitlines()
    socket = f"unix://{pipelines.SOCKET}"
    command = f"/usr/local/bin/dockerd dockerd --host={socket} --group=1000"
    assert [command.replace("dockerd dockerd", "dockerd"), socket, "there", "1000"] == words
    containers, volumes = await left(rig)
    assert (2, {f"{name}-work", f"{name}-engine"}) == (len(containers), set(volumes))
    assert {name} == set(await checks.listed(rig.backend)), "an engine is no agent"
    await rig.backend.terminate(name, grace_s=0)
    assert ([], []) == await left(rig)


@pytest.mark.parametrize("told", [None, 96 << 20])
async def test_the_limits_of_an_engine_are_the_kernels(rig, beside, name, told):
    """Whatever it runs is below it: v1 and v2 of control groups say so in files of their own."""
    show = STAND_IN.replace(
        "exec sleep",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null\n"
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null\nexec sleep",
    )
    made = beside(name, code=None, dockerd=show)
    await rig.backend.launch(
        attrs.evolve(
            made,
            resources=api.Resources(memory_bytes=64 << 20),
            pipelines=attrs.evolve(made.pipelines, memory_bytes=told),
        )
    )

    async def written():
        engine = f"{rig.container(name)}-engine"
        return (await rig.sdk("logs", engine)).split()

    limits = await checks.until("its limits", written, within_s=conftest.WITHIN_S)
    assert [str(told or 64 << 20), "8192"] == [line.decode() for line in limits]


async def test_an_engine_whose_agent_is_gone_is_removed(rig, beside, name):
    """Somebody else removed the agent's container; and what a broker left that died."""
    other = f"{name}2"
    await rig.backend.launch(beside(name, code=None))
    await rig.backend.launch(beside(other, code=None))
    assert {name, other} == set(await checks.listed(rig.backend))
    await rig.sdk("remove_container", rig.container(name), force=True)
    await checks.listed(rig.backend)
    containers, _ = await left(rig)
    assert [f"/{rig.container(other)}", f"/{rig.container(other)}-engine"] == sorted(containers)
    await rig.backend.aclose()
    await rig.sdk("remove_container", rig.container(other), force=True)
    rig.backend = rig.make(rig)
    await checks.listed(rig.backend)
    assert ([], []) == await left(rig)


async def test_an_engine_that_does_not_start_is_told_with_its_words(rig, beside, name):
    """Nothing is left of the agent either."""
    broken = "#!/bin/sh\necho no cgroups here >&2\nexit 1\n"
    with pytest.raises(api.Rejected, match="does not answer; it says: no cgroups here"):
        await rig.backend.launch(beside(name, dockerd=broken))
    assert ([], []) == await left(rig)


async def test_where_no_engine_can_be_privileged_the_engines_words_say_so(rig, memory, name):
    """An image without an engine cannot be one where privileges are to be had."""
    told = api.DockerPipelines(mode="dind", image=engines.IMAGE)
    with pytest.raises(api.Rejected, match=r"^docker_pipelines: no privileged engine .*: \S"):
        await rig.backend.launch(attrs.evolve(rig.spec(name), pipelines=told))
    assert ([], []) == await left(rig)
