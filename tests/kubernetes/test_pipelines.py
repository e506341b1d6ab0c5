"""Docker for the builds of a pod: what is created, and what keeps its folder."""

import contextlib
import os
import pathlib
import signal
import subprocess

import attrs
import pytest

from backends import api
from backends.kit import pipelines
from backends.kubernetes import settings
from backends.kubernetes.pods import engine, pod
from tests import patience
from tests.contract import checks
from tests.each import each
from tests.oracle import schemas

PLAIN = api.InstanceSpec(
    name="ci-docker-abc123",
    metadata={"owner": "ci"},
    use_entry_point=True,
    image="jenkins/inbound-agent",
    secret_files={"agent-secret": "0123456789abcdef"},
)
GROUPS = {"spec": {"securityContext": {"supplementalGroups": [998]}}}


def made(mode, *, limits=None, **options):
    """Return a pod whose builds have an engine."""
    spec = attrs.evolve(
        PLAIN,
        pipelines=api.DockerPipelines(mode=mode, **(limits or {})),
        work_dir=f"/srv/agent-broker/{PLAIN.name}" if mode == "socket" else None,
        options=settings.KubernetesTemplate(**options),
    )
    manifest = pod.make(spec, owner="ci").pod
    assert [] == schemas.problems(manifest)
    return manifest["spec"]


def mounts(container):
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize(
    ("mode", "user", "data", "group"),
    [
        ("dind", 0, "/var/lib/docker", ["--group=1000"]),
        ("dind-rootless", 1000, "/home/rootless/.local/share/docker", []),
    ],
)
def test_an_engine_stands_beside_the_agent(mode, user, data, group):
    """Privileged with all capabilities, though pods are restricted; it is up before the agent."""
    body = made(mode)
    (sidecar,), (agent,) = body["initContainers"], body["containers"]
    assert ("Always", f"docker:{mode}") == (sidecar["restartPolicy"], sidecar["image"])
    context = sidecar["securityContext"]
    assert (True, {"add": ["ALL"]}, user) == (
        context["privileged"], context["capabilities"], context["runAsUser"]
    )  # fmt: skip
    assert ["dockerd", f"--host=unix://{pipelines.SOCKET}", *group] == sidecar["args"]
    assert "version" in sidecar["startupProbe"]["exec"]["command"]
    shared = mounts(sidecar).items() & mounts(agent).items()
    assert {("/home/jenkins/agent", "workspace"), (pipelines.ENGINE, engine.ENGINE)} == shared
    assert data in mounts(sidecar)
    assert {"name": "DOCKER_HOST", "value": f"unix://{pipelines.SOCKET}"} in agent["env"]
    assert {"drop": ["ALL"]} == agent["securityContext"]["capabilities"]


def test_limits_of_the_engine_are_those_that_are_told():
    """Not the agent's: a pod would need twice the room. Without any the namespace decides."""
    (sidecar,) = made("dind")["initContainers"]
    assert "resources" not in sidecar
    (sidecar,) = made("dind", limits={"memory_bytes": 4 << 30, "cpu_limit": 1.5})["initContainers"]
    assert {"limits": {"memory": "4096Mi", "cpu": "1500m"}} == sidecar["resources"]


def test_the_agents_secret_is_the_agents_alone():
    """Neither an engine nor a keeper of a folder has it."""
    for body in (made("dind"), made("socket", pod=GROUPS)):
        assert "agent-secret" not in str(body["initContainers"])
        assert pod.table.OWN_SECRET not in str(body["initContainers"])


def test_with_the_nodes_socket_the_workspace_is_a_folder_of_the_node():
    """At the same path in every container of the pod; a keeper gives it away, and removes it."""
    side = {"containers": [{"name": "maven", "image": "maven:3"}]}
    body = made("socket", pod={"spec": {**GROUPS["spec"], **side}})
    folder = f"/srv/agent-broker/{PLAIN.name}"
    sources = {v["name"]: v["hostPath"] for v in body["volumes"] if "hostPath" in v}
    assert {folder, "/srv/agent-broker", "/var/run/docker.sock"} == {
        source["path"] for source in sources.values()
    }
    assert {sources[mounts(c)[folder]]["path"] for c in body["containers"]} == {folder}
    having = [c["name"] for c in body["containers"] if "/var/run/docker.sock" in mounts(c)]
    assert ["jnlp"] == having
    (keeper,) = body["initContainers"]
    assert "1000:1000" == keeper["command"][-1]
    assert ["CHOWN", "DAC_OVERRIDE", "FOWNER"] == keeper["securityContext"]["capabilities"]["add"]


@each(
    "mode, options, words",
    [
        ("socket", {}, "supplementalGroups"),
        ("socket", {"run_as_user": None}, "hint: run_as_user"),
        ("dind-rootless", {"run_as_user": 7}, "that of user 1000"),
        ("dind", {"run_as_user": None, "fs_group": None}, "hint: its user by number"),
        ("dind", {"node_selector": {"kubernetes.io/os": "windows"}}, "the pod for Windows"),
    ],
)
def test_what_cannot_be_is_refused_with_words(mode, options, words):
    """When the configuration is read, which makes each pod once."""
    with pytest.raises(api.Rejected, match=words):
        made(mode, **options)


async def test_a_folder_is_given_away_and_removed_when_the_pod_ends(tmp_path):
    """By the very words of the keeper, with whatever is in it."""
    folder = tmp_path / "a 1"
    folder.mkdir()
    owner = f"{os.getuid()}:{os.getgid()}" if os.getuid() else "1000:1001"
    keeper = subprocess.Popen(["sh", "-c", engine._KEEP, folder, owner], start_new_session=True)
    try:
        whose = tuple(map(int, owner.split(":")))

        async def given():
            told = pathlib.Path(f"/proc/{keeper.pid}/status").read_text()
            caught = int(told.partition("SigCgt:")[2].split()[0], 16)
            waits = bool(caught & 1 << signal.SIGTERM - 1)  # from then on it obeys
            return waits and (folder.stat().st_uid, folder.stat().st_gid) == whose

        await checks.until("the folder is given away", given, within_s=10)
        (folder / "deep" / "er").mkdir(parents=True)
        keeper.terminate()
        assert 0 == keeper.wait(patience.seconds(10))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)  # its sleep, as the end of a container does
        keeper.wait()
    assert not folder.exists()
