"""What every recorded life of a pod looks like through the table, and that the table is total."""

import datetime as dt
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from backends import api
from backends.kubernetes.pods import pod as pods
from backends.kubernetes.pods import states, table
from tests.each import each
from tests.kubernetes import recorded

STARTS = [
    ("starting", "waits for a node"),
    ("starting", "its node was chosen"),
    ("starting", "being made: ContainerCreating"),
]
RUNS = [*STARTS, ("running", "")]
INIT = [*STARTS[:2], ("starting", "being made: PodInitializing")]
DELETED = ("stopping", "being deleted")
NOT_PULLED = ("starting", "the image cannot be pulled (ErrImagePull): failed to pull and unpack")
NOT_PULLED_AGAIN = ("starting", "the image cannot be pulled (ImagePullBackOff): Back-off pulling")
NO_REFERENCE = "the container's configuration cannot be used (Create"
AGAIN = ("starting", "ended and is started again")
NODE = ("running", "its node does not answer")
TAINT = "its node does not answer or got a taint"

LIVES: dict[str, list[tuple[Any, ...]]] = {
    "pod-01-normal-two-containers": [*RUNS, ("exited", "exited", 0, "ended with 0")],
    "pod-02-jnlp-exits-sidecar-stays": [*RUNS, ("exited", "exited", 3, "ended with 3"), DELETED],
    "pod-03-native-sidecar": [*INIT, ("running", ""), ("exited", "exited", 0, "ended with 0")],
    "pod-04-container-exit-nonzero": [*RUNS, ("exited", "exited", 7, "ended with 7: boom")],
    "pod-05-init-container-fails": [
        *INIT,
        ("starting", "container init runs first"),
        ("exited", "exited", 9, "container init: ended with 9"),
    ],
    "pod-10-pending-unschedulable-cpu": [
        STARTS[0],
        (
            "starting",
            "no node fits, for want of cpu: 0/1 nodes are available: 1 Insufficient cpu.",
        ),
        DELETED,
    ],
    "pod-11-pending-unschedulable-selector": [
        STARTS[0],
        ("starting", "no node fits: 0/1 nodes are available: 1 node(s) didn't match Pod's node"),
        DELETED,
    ],
    "pod-12-scheduling-gated": [("starting", "held back by a gate: Scheduling is"), DELETED],
    "pod-20-image-pull-backoff": [
        *STARTS,
        NOT_PULLED,
        NOT_PULLED_AGAIN,
        NOT_PULLED,
        ("exited", "image", None, "the image cannot be pulled (ImagePullBackOff)"),
        ("exited", "image", None, "the image cannot be pulled (ErrImagePull)"),
        DELETED,
    ],
    "pod-21-err-image-never-pull": [
        *STARTS,
        (
            "starting",
            "the image is not on the node and pulling it is not allowed (ErrImageNeverPull)",
        ),
        DELETED,
    ],
    "pod-22-invalid-image-name": [
        *STARTS,
        ("starting", "the image's name is wrong (InvalidImageName): Failed to apply default"),
        DELETED,
    ],
    "pod-23-create-container-config-error": [*STARTS, ("starting", NO_REFERENCE), DELETED],
    "pod-24-volume-secret-missing": [*STARTS, DELETED],
    "pod-25-start-error-bad-command": [
        *STARTS,
        ("exited", "command", 128, "could not be started: failed to create containerd task"),
    ],
    "pod-26-crashloop": [
        *RUNS,
        AGAIN,
        ("running", ""),
        AGAIN,
        ("starting", "it ends again and again (CrashLoopBackOff): back-off 10s restarting"),
        ("running", ""),
        AGAIN,
        DELETED,
    ],
    "pod-27-secret-env-right-after-pod": [*RUNS, ("exited", "exited", 0, "ended with 0")],
    "pod-28-secret-env-3s-after-pod": [
        *STARTS,
        ("starting", NO_REFERENCE),
        ("running", ""),
        ("exited", "exited", 0, "ended with 0"),
    ],
    "pod-29-secret-volume-3s-after-pod": [*RUNS, ("exited", "exited", 0, "ended with 0")],
    "pod-30-oomkilled": [*RUNS, ("exited", "out-of-memory", -9, "killed for using more memory")],
    "pod-31-oomkilled-child": [
        *RUNS,
        ("exited", "out-of-memory", 0, "killed for using more memory than its limit (a child"),
    ],
    "pod-40-deleted-while-running": [*RUNS, DELETED],
    "pod-41-deleted-sigterm-ignored": [*RUNS, DELETED],
    "pod-42-deleted-force-grace0": [*RUNS, DELETED],
    "pod-43-deleted-during-creation": [STARTS[0], DELETED],
    "pod-44-deleted-with-finalizer": [
        *RUNS,
        DELETED,
        ("stopping", "held by finalizer example.com/hold"),
    ],
    "pod-45-succeeded-then-deleted": [*RUNS, ("exited", "exited", 0, "ended with 0"), DELETED],
    "pod-50-evicted-emptydir-limit": [
        *RUNS,
        ("exited", "evicted", None, 'evicted by its node: Usage of EmptyDir volume "w" exceeds'),
    ],
    "pod-51-evicted-by-api": [
        *RUNS,
        ("running", "evicted by somebody, as when a node is drained"),
        ("stopping", "evicted", None, "evicted by somebody, as when a node is drained"),
    ],
    "pod-52-active-deadline": [
        *RUNS,
        ("exited", "killed", None, "older than its active deadline: Pod was active on the node"),
    ],
    "pod-53-preempted": [
        *RUNS,
        ("running", "made room for pods of higher priority"),
        ("stopping", "evicted", None, "made room for pods of higher priority"),
    ],
    "pod-60-killed-from-inside": [*RUNS, ("exited", "killed", -11, "killed by signal 11")],
    "pod-70-node-gone": [
        *RUNS,
        NODE,
        ("running", TAINT),
        ("stopping", "platform-lost", None, TAINT),
        ("stopping", "platform-lost", None, "its node is gone"),
    ],
    "pod-71-node-returns": [
        *RUNS,
        NODE,
        ("running", TAINT),
        ("stopping", "platform-lost", None, TAINT),
    ],
}


def seen(pod: dict[str, Any], t: float) -> tuple[Any, ...]:
    created = states._time(pod["metadata"]["creationTimestamp"])
    assert created is not None
    told = states.see(pod).at(created + t, patience_s=30)
    if told.exit is not None:
        return (told.state.value, told.exit.slug, told.exit.code, told.exit.message)
    return (told.state.value, told.detail)


def matches(expected: tuple[Any, ...], actual: tuple[Any, ...]) -> bool:
    """Compare all but the text exactly; the text by how it begins, an empty one exactly."""
    head = expected[-1] == actual[-1] or (expected[-1] and actual[-1].startswith(expected[-1]))
    return bool(expected[:-1] == actual[:-1] and head)


@each("name", recorded.names("pod-"))
def test_recorded_lives(name: str) -> None:
    """Each state that a real kubelet reported, in order, each told once."""
    life: list[tuple[Any, ...]] = []
    for t, kind, pod in recorded.events(name):
        if kind != "BOOKMARK" and seen(pod, t) not in life[-1:]:
            life.append(seen(pod, t))

    assert len(LIVES[name]) == len(life), life
    for expected, actual in zip(LIVES[name], life, strict=True):
        assert matches(expected, actual), f"{expected} is not {actual}"


@each("name", recorded.names("pod-"))
def test_a_life_is_the_same_whatever_the_agent_s_container_is_called(name: str) -> None:
    """`agent_container` names it; a container that is called as it usually is stands beside it."""
    for t, _, pod in recorded.events(name):
        text = json.dumps(pod).replace('"jnlp"', '"maven"').replace("(jnlp)", "(maven)")
        other = json.loads(
            text.replace("=jnlp ", "=maven ").replace("container jnlp", "container maven")
        )
        other["metadata"].setdefault("annotations", {})[pods.AGENT_CONTAINER] = "maven"
        if "creationTimestamp" in pod["metadata"]:
            was, now = seen(pod, t), seen(other, t)
            assert (*was[:-1], was[-1].replace("jnlp", "maven")) == now
            assert states.see(other).speaker == states.see(pod).speaker.replace("jnlp", "maven")


@pytest.mark.parametrize(
    ("name", "slug", "text"),
    [
        ("pod-40", "killed", "the pod was deleted by somebody else"),
        ("pod-51", "evicted", "evicted by somebody, as when a node is drained"),
        ("pod-53", "evicted", "made room for pods of higher priority"),
        ("pod-70", "platform-lost", "its node is gone"),
    ],
)
def test_death_certificate_of_a_pod_that_is_gone(name: str, slug: str, text: str) -> None:
    """What was last seen of it tells why."""
    last = recorded.events(name)[-1][2]

    told = states.see(last).departed(7.0)

    assert told.state is api.InstanceState.EXITED
    assert told.exit == api.Exit(slug=slug, message=text, at=7.0)


def test_a_side_container_without_memory_is_told_while_the_agent_runs() -> None:
    """The agent's instance runs on; the detail names the container."""
    pod = recorded.events("pod-30")[-3][2]
    told = {c["name"]: c for c in pod["status"]["containerStatuses"]}
    told["sidecar"]["state"], told["jnlp"]["state"] = (
        told["jnlp"]["state"],
        told["sidecar"]["state"],
    )

    assert seen(pod, 3) == (
        "running",
        "container sidecar: killed for using more memory than its limit",
    )


def beside(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a pod whose agent runs beside a container in this state."""
    pod = recorded.events("pod-30")[-3][2]
    for container in pod["status"]["containerStatuses"]:
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        container["state"] = running if container["name"] == "jnlp" else state
    pod["status"]["phase"] = "Running"
    pod["metadata"].setdefault("annotations", {}).update(more)
    return pod


PULLED = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
ENDED = {"terminated": {"exitCode": 3, "reason": "Error"}}


@pytest.mark.parametrize(
    ("state", "now", "shown", "slug", "words"),
    [
        ({"running": {}}, 0, "running", None, ""),
        ({"waiting": {"reason": "ContainerCreating"}}, 0, "starting", None, "is being made"),
        ({}, 0, "starting", None, "container sidecar is being made"),
        (PULLED, 0, "starting", None, "container sidecar: the image cannot be pulled"),
        (PULLED, 1e12, "running", "image", "container sidecar: the image cannot be pulled"),
        (ENDED, 0, "running", "exited", "container sidecar: ended with 3"),
        ({"terminated": {"exitCode": 0}}, 0, "running", "exited", ""),
    ],
)
def test_an_agent_counts_when_all_containers_of_its_pod_run(
    state: dict[str, Any], now: float, shown: str, slug: str | None, words: str
) -> None:
    """Until then it starts; one that cannot be had, or ends, makes the pod no agent."""
    told = states.see(beside(state)).at(now, patience_s=60.0)
    assert (shown, slug) == (told.state.value, told.flaw.slug if told.flaw is not None else None)
    assert words in told.detail
    assert told.exit is None
    if told.flaw is not None:
        assert "container sidecar: " in told.flaw.message


EVICTED = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}


@pytest.mark.parametrize(
    ("conditions", "deleted", "expected"),
    [
        ([], False, ""),
        ([EVICTED], False, "evicted by somebody, as when a node is drained (node n-7)"),
        ([EVICTED], True, "evicted by somebody, as when a node is drained (node n-7)"),
        ([], True, "its pod is being deleted (node n-7)"),
    ],
)
def test_the_end_of_a_pod_that_runs_is_announced(conditions, deleted, expected) -> None:
    """With the node, from the moment on at which the cluster says it; and when it is due."""
    pod = beside({"running": {}})
    pod["spec"]["nodeName"] = "n-7"
    pod["status"]["conditions"] = conditions
    if deleted:
        pod["metadata"] |= {
            "deletionTimestamp": "2026-01-01T00:10:00Z", "deletionGracePeriodSeconds": 600,
        }  # fmt: skip
    told = states.see(pod).at(0.0, patience_s=60.0)
    assert (expected, deleted) == (told.ends_because, told.ends_at is not None)
    if conditions and deleted:
        assert "node n-7" in told.exit.message
    for container in pod["status"]["containerStatuses"]:
        container["state"] = ENDED
    assert "" == states.see(pod).instance.ends_because, "nothing of it runs any more"


def test_a_side_container_that_was_killed_for_memory_and_started_again_is_told() -> None:
    """As the API shows a restart (``pod-26``) and such an end (``pod-30``); the pod lives on."""
    pod = beside({"running": {}})
    sidecar = next(c for c in pod["status"]["containerStatuses"] if c["name"] == "sidecar")
    crashed = recorded.events("pod-26")[-1][2]["status"]["containerStatuses"][0]["lastState"]
    sidecar["lastState"] = crashed
    assert states.see(pod).instance.mishap is None, "that is no want of memory"
    killed = recorded.events("pod-30")[-1][2]["status"]["containerStatuses"][0]["state"]
    sidecar["lastState"] = killed
    told = states.see(pod).instance
    assert (api.InstanceState.RUNNING, None) == (told.state, told.exit)
    assert "out-of-memory" == told.mishap.slug
    assert "container sidecar was killed for memory, and started again" == told.mishap.text
    assert dt.datetime(2026, 11, 23, 23, 54, 58, tzinfo=dt.UTC).timestamp() == told.mishap.at


def test_a_kubelet_that_says_nothing_of_its_pod_is_named() -> None:
    """A node was chosen, and then silence: it is down, or cannot reach the API server."""
    _, _, pod = recorded.events("pod-10")[1]
    pod["spec"]["nodeName"] = "n-7"
    chosen = "2026-01-01T00:00:00Z"
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": chosen}
    ]
    pod["metadata"]["creationTimestamp"] = chosen
    sighting = states.see(pod)
    at = sighting.since
    assert "its node was chosen" == sighting.at(at + 15, patience_s=60.0).detail
    late = sighting.at(at + 47, patience_s=60.0)
    assert api.InstanceState.STARTING is late.state
    assert late.detail.startswith("its node n-7 was chosen 47 s ago, and has not said")


@pytest.mark.parametrize("state", [PULLED, ENDED, {}])
def test_where_the_template_says_so_the_agent_s_container_alone_decides(
    state: dict[str, Any],
) -> None:
    """Then it runs, whatever stands beside it."""
    told = states.see(beside(state, **{pods.AGENT_ALONE: "true"})).at(1e12, patience_s=60.0)
    assert (api.InstanceState.RUNNING, None) == (told.state, told.flaw)


@pytest.mark.parametrize(
    ("words", "lacks"),
    [
        (
            "0/3 nodes are available: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu.",
            ", for want of memory, nvidia.com/gpu",
        ),
        ("0/2 nodes are available: 2 Too many pods.", ", for want of pods"),
        ("0/2 nodes are available: 2 node(s) had untolerated taint {a: b}.", ""),
    ],
)
def test_what_the_nodes_lack_is_named_first(words: str, lacks: str) -> None:
    """The scheduler's words may be long; what is missing stands before them."""
    _, _, pod = recorded.events("pod-10")[1]
    pod["status"]["conditions"][0]["message"] = words

    assert f"no node fits{lacks}: {words}" == states.see(pod).instance.detail


def test_patience_begins_with_the_last_step_forward() -> None:
    """A pod that waited long for its node has as long to pull its image as any other."""
    _t, _, pod = recorded.events("pod-20")[4]
    created = states._time(pod["metadata"]["creationTimestamp"])
    assert created is not None
    pod["metadata"]["creationTimestamp"] = "2026-11-23T22:00:00Z"

    assert "starting" == states.see(pod).at(created + 29, patience_s=30).state.value
    assert "exited" == states.see(pod).at(created + 31, patience_s=30).state.value


def test_a_pod_refused_by_its_node_is_told_with_the_node_s_words() -> None:
    """A kubelet that has no room after all fails the pod with a reason of its own."""
    _, _, pod = recorded.events("pod-10")[0]
    pod["status"] |= {
        "phase": "Failed",
        "reason": "OutOfcpu",
        "message": "Node didn't have enough",
    }

    assert seen(pod, 1) == (
        "exited",
        "evicted",
        None,
        "refused by its node: OutOfcpu: Node didn't have enough",
    )


def test_rows_are_told_apart() -> None:
    """No reason has two meanings, and each meaning is one of the contract's words."""
    keys = [(row.where, row.reason) for row in table.TABLE]

    assert len(set(keys)) == len(keys)
    assert {row.slug for row in table.TABLE} <= {
        "exited", "killed", "out-of-memory", "image", "command", "network", "evicted",
        "platform-lost", "unknown",
    }  # fmt: skip


_REASONS = [row.reason for row in table.TABLE]
_WORDS = st.sampled_from(
    [*_REASONS, *"Pending Running Succeeded Failed Unknown jnlp side True False Never".split()]
) | st.sampled_from(["DisruptionTarget", "Ready", "2026-11-23T23:51:34Z", "", "x" * 400])
_KEYS = st.sampled_from(
    """metadata spec status labels annotations deletionTimestamp finalizers phase reason message
    conditions type containerStatuses name state initContainerStatuses initContainers
    restartPolicy waiting terminated running exitCode signal creationTimestamp finishedAt""".split()
)
_ANY = st.recursive(
    st.one_of(_WORDS, st.integers(-1, 300), st.none(), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=5)
    ),
    max_leaves=25,
)
_CONTAINER = st.fixed_dictionaries(
    {"name": st.sampled_from(["jnlp", "side"])},
    optional={
        "state": st.dictionaries(
            st.sampled_from(["waiting", "running", "terminated"]),
            st.one_of(
                _ANY,
                st.fixed_dictionaries(
                    {}, optional={"reason": _WORDS, "exitCode": st.integers(-1, 300)}
                ),
            ),
            max_size=1,
        )
    },
)
_STATUS = st.fixed_dictionaries(
    {},
    optional={
        "phase": _WORDS,
        "reason": _WORDS,
        "containerStatuses": st.one_of(_ANY, st.lists(_CONTAINER, max_size=3)),
        "initContainerStatuses": st.lists(_CONTAINER, max_size=2),
        "conditions": _ANY,
    },
)


@hypothesis.given(
    st.one_of(
        st.dictionaries(_KEYS, _ANY, max_size=4),
        st.fixed_dictionaries({"status": _STATUS}, optional={"spec": _ANY, "metadata": _ANY}),
    )
)
def test_the_table_is_total(pod: dict[str, Any]) -> None:
    """Whatever a pod says, there is a state, an end with it or none, in bounded words."""
    seen = states.see(pod)

    for told in (seen.at(1e9, patience_s=30), seen.at(0.0, patience_s=30)):
        assert told.exit is not None or told.state is not api.InstanceState.EXITED
        assert len(told.detail) <= 256
        assert told.exit is None or len(told.exit.message) <= 256
    assert seen.departed(1.0).exit is not None


def test_ports_of_the_node_are_those_of_the_agents_container():
    """Others have theirs; in the node's network the API server writes the same number into both."""
    ports = [
        {"containerPort": 8080, "hostPort": 31080, "protocol": "TCP"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.7"},
        {"containerPort": 22, "protocol": "TCP"},
        {"containerPort": True, "hostPort": "80"},
        "odd",
    ]
    pod = {
        "metadata": {"name": "a", "uid": "u", "annotations": {}},
        "spec": {
            "nodeName": "n",
            "containers": [
                {"name": "db", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": pods.AGENT, "ports": ports},
            ],
        },
        "status": {
            "phase": "Running",
            "hostIP": "10.0.0.7",
            "containerStatuses": [{"name": pods.AGENT, "state": {"running": {"startedAt": "x"}}}],
        },
    }
    shown = states.see(pod).instance
    assert api.InstanceState.RUNNING is shown.state
    assert shown.host == "10.0.0.7"
    assert shown.ports == (
        api.Port(port=53, protocol="udp", host_port=53, address="10.0.0.7"),
        api.Port(port=8080, host_port=31080),
    )
    pod["metadata"]["annotations"] = {pods.AGENT_CONTAINER: "db"}
    pod["status"]["containerStatuses"].append(
        {"name": "db", "state": {"running": {"startedAt": "x"}}}
    )
    assert (api.Port(port=1, host_port=1),) == states.see(pod).instance.ports
    pod["status"] |= {"phase": "Pending", "containerStatuses": [], "hostIP": ["x"]}
    assert ("", ()) == (states.see(pod).instance.host, states.see(pod).instance.ports)
