"""What we send and what we read, held against the official package's generated client."""

import asyncio
from typing import Any

import pytest
from kubernetes import client

from backends import api
from backends.kubernetes.pods import states
from tests import patience
from tests.each import each
from tests.kubernetes import fake, oracle, recorded, test_backend, test_pod


@pytest.mark.parametrize("case", test_pod.CASES)
def test_our_pods_and_secrets_are_what_the_models_expect(case: str) -> None:
    """Every field known and of the right type, but the one that a user took from tomorrow."""
    made = test_pod.made(test_pod.CASES[case])
    with_it = case in {"side-containers", "in-container"}
    tomorrow = [".spec.topologyOfTomorrow: {'ring': 7}"] if with_it else []

    told = oracle.problems(made.pod)
    assert tomorrow == [text.removesuffix(" is read as None") for text in told]
    assert [] == oracle.problems(made.secret("uid-1"))


def test_the_models_are_strict() -> None:
    """They would notice: a number for a text, a field at the wrong place, a missing list."""
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    container = {"name": "jnlp", "image": "x", "resources": {"limits": {"cpu": 1}}}
    with pytest.raises(ValueError, match="valid string"):
        oracle.problems({**pod, "spec": {"containers": [container]}})
    with pytest.raises(ValueError, match="valid list"):
        oracle.problems({**pod, "spec": {}})
    misplaced = {**pod, "spec": {"containers": [{"name": "a"}], "runAsUser": 1}}
    assert [".spec.runAsUser: 1 is read as None"] == oracle.problems(misplaced)


async def test_the_generated_client_sees_the_same_pods(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """Names, times and whether they run: as strict models read the same list of the same server."""
    cluster.programs["a2"] = fake.Program(exit_code=3)
    ours = make()
    for name in ("a0", "a1", "a2"):
        await ours.launch(test_backend.spec(name))
    await test_backend.running(ours, "a1")
    cluster.delete("a0")
    async with patience.limit(5):
        while len(cluster.pods) > 2:
            await asyncio.sleep(0.01)
    configuration = client.Configuration(host=cluster.url)
    with client.ApiClient(configuration) as session:
        theirs = await asyncio.to_thread(
            client.CoreV1Api(session).list_namespaced_pod, cluster.namespace
        )

    running = {
        pod.metadata.name: (
            any(c.name == "jnlp" and c.state.running for c in pod.status.container_statuses),
            pod.metadata.creation_timestamp.timestamp(),
        )
        for pod in theirs.items
    }
    assert running == {
        one.name: (one.state is api.InstanceState.RUNNING, one.created_at)
        for one in await ours.list()
    }


@each("name", recorded.names("pod-"))
def test_recorded_pods_are_read_alike(name: str) -> None:
    """The agent's state and how it ended, in every event of every recorded life."""
    for _, kind, pod in recorded.events(name):
        if kind == "BOOKMARK":
            continue
        seen, theirs = states.see(pod), client.V1Pod.from_dict(pod)
        agent = next((c for c in theirs.status.container_statuses or [] if c.name == "jnlp"), None)
        assert (theirs.metadata.name, theirs.metadata.uid) == (seen.pod, seen.uid)
        assert theirs.metadata.creation_timestamp.timestamp() == seen.instance.created_at
        if theirs.metadata.deletion_timestamp is not None:
            assert seen.instance.state is api.InstanceState.STOPPING
        elif agent is not None and agent.state.running is not None:
            assert seen.instance.state is api.InstanceState.RUNNING
        elif seen.instance.exit is not None and agent is not None and agent.state.terminated:
            assert (
                agent.state.terminated.exit_code
                in {
                    seen.instance.exit.code,
                    128 - (seen.instance.exit.code or 0),
                }
                or theirs.status.reason
            )
