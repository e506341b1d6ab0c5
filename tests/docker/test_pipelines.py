"""Docker for the builds of an agent: what is sent, and what builds see on a real engine."""

import asyncio
import shutil
import textwrap

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import container
from backends.kit import pipelines
from tests import programs
from tests.docker import engines

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
