"""What the cluster's events add where a pod's status says nothing, and what asking may cost."""

import asyncio
import copy
import itertools
import logging
from typing import Any

import pytest

from backends import api
from backends.kubernetes import settings
from backends.kubernetes.api import errors
from backends.kubernetes.pods import events, states, table
from tests import patience
from tests.kubernetes import fake, recorded, test_backend

# recording: what its events would say of a pod that is still mute, by how it begins
TOLD: dict[str, table.PodObstacle | None] = {
    "pod-10-pending-unschedulable-cpu": table.PodObstacle(
        slug=None, words="no node fits (FailedScheduling): 0/1 nodes are available: 1 Insuff"
    ),
    "pod-11-pending-unschedulable-selector": table.PodObstacle(
        slug=None,
        words="no node fits (FailedScheduling): 0/1 nodes are available: 1 node(s) didn't",
    ),
    "pod-20-image-pull-backoff": table.PodObstacle(
        slug=None, words="an image is being pulled (Pulling): Pulling image"
    ),
    "pod-24-volume-secret-missing": table.PodObstacle(
        slug="command",
        words="a volume refers to something that is not there (FailedMount): MountVolume.SetUp "
        'failed for volume "s" : secret "absent" not found',
    ),
    "pod-43-deleted-during-creation": table.PodObstacle(
        slug=None, words='no node fits (FailedScheduling): running Bind plugin "DefaultBinder"'
    ),
}
BY_STATUS = {"Failed", "ErrImageNeverPull", "InspectFailed", "BackOff", "Evicted"}


@pytest.mark.parametrize("name", recorded.names("pod-"))
def test_recorded_events(name: str) -> None:
    """The latest that says anything counts; trouble is either in the table or in the status."""
    told = recorded.load(name).get("coreEvents") or []
    verdict, expected = events.judge(told), TOLD.get(name)

    assert (verdict is None) == (expected is None)
    if verdict is not None and expected is not None:
        assert expected.slug == verdict.slug
        assert verdict.words.startswith(expected.words)
    known = {row.reason for row in table.EVENTS} | BY_STATUS
    assert {e["reason"] for e in told if e["type"] == "Warning"} <= known


def event(reason: str, message: str = "", at: str = "2026-11-24T00:00:05Z") -> dict[str, Any]:
    return {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": at}


@pytest.mark.parametrize(
    ("told", "slug", "words"),
    [
        (
            event("FailedMount", 'configmap "x" not found') | {"count": 4},
            "command",
            "a volume refers to something that is not there",
        ),
        (event("FailedMount", 'secret "own" not found') | {"count": 3}, None, "a volume cannot"),
        (event("FailedMount", "timed out waiting"), None, "a volume cannot be mounted (Fail"),
        (
            event("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1" Volume is already'),
            None,
            "a volume is still attached to another node (FailedAttachVolume): Multi-Attach error",
        ),
        (
            event("FailedCreatePodSandBox", "plugin type=calico failed (add)"),
            None,
            "its network or sandbox cannot be made (FailedCreatePodSandBox): plugin type=calico",
        ),
        (event("NotTriggerScaleUp", "pod didn't"), None, "no node fits, and none will be added"),
        (event("FailedMount", "x" * 4000), None, "a volume cannot be mounted"),
    ],
)
def test_events_that_were_not_recorded(told: dict[str, Any], slug: str | None, words: str) -> None:
    """Only what names a mistake ends a pod; the words are the cluster's, 256 at most."""
    verdict = events.judge([told])

    assert verdict is not None
    assert (slug, True) == (verdict.slug, verdict.words.startswith(words))
    assert len(verdict.words) <= 256


def test_a_step_forward_outdates_the_trouble_before() -> None:
    """A volume that was mounted at last is no reason; one that fails again is."""
    trouble = event("FailedMount", at="2026-11-24T00:00:05Z")
    step = {"type": "Normal", "reason": "Pulled", "lastTimestamp": "2026-11-24T00:00:07Z"}
    again = {**trouble, "series": {"lastObservedTime": "2026-11-24T00:00:09.000001Z"}}

    assert events.judge([trouble]) is not None
    assert events.judge([step, trouble]) is None
    assert events.judge([again, step]) is not None
    assert events.judge([event("ReasonOfTomorrow")]) is None


class Source:
    """Answers every question, and knows when it was asked."""

    def __init__(self) -> None:
        self.now = 1e9
        self.asked: list[tuple[float, str]] = []
        self.error: api.BackendError | None = None

    async def events_of(self, uid: str) -> list[dict[str, Any]]:
        self.asked.append((self.now - 1e9, uid))
        if self.error is not None:
            raise self.error
        return recorded.load("pod-24")["coreEvents"]


def mute(number: int) -> states.PodSighting:
    pod = copy.deepcopy(recorded.events("pod-24")[2][2])
    pod["metadata"] |= {"uid": f"u{number}", "creationTimestamp": "2001-01-01T00:00:00Z"}
    for condition in pod["status"]["conditions"]:
        condition["lastTransitionTime"] = "2001-01-01T00:00:00Z"
    return states.see(pod)


async def pass_time(inquiry: events.Inquiry, source: Source, pods: list[Any], s: int) -> None:
    for _ in range(s):
        await inquiry.ask(source, pods, now=source.now)
        source.now += 1.0


async def test_asking_is_seldom_and_fair() -> None:
    """One request in five seconds, new pods first, and ever less often about the same pod."""
    source, inquiry = Source(), events.Inquiry()
    pods = [mute(number) for number in range(3)]
    await pass_time(inquiry, source, pods, 600)

    assert [(0.0, "u0"), (5.0, "u1"), (10.0, "u2")] == source.asked[:3]
    first = [at for at, uid in source.asked if uid == "u0"]
    pauses = [later - earlier for earlier, later in itertools.pairwise(first)]
    assert pauses == sorted(pauses)
    assert [15.0, 20.0, 40.0] == pauses[:3]  # the others are asked about in between
    assert len(source.asked) <= 3 * 7
    assert all(inquiry.obstacle_of(pod) is not None for pod in pods)


async def test_a_pod_that_starts_is_forgotten() -> None:
    """Neither asked about nor remembered; and nobody asks about one that is young."""
    source, inquiry = Source(), events.Inquiry()
    await pass_time(inquiry, source, [mute(0)], 1)
    running = states.see(recorded.events("pod-40")[5][2])
    await pass_time(inquiry, source, [running], 30)
    source.now = 978307200.0 + 9.0  # nine seconds after its creation
    await pass_time(inquiry, source, [mute(1)], 1)

    assert [(0.0, "u0")] == source.asked
    assert inquiry.obstacle_of(mute(0)) is None


async def test_a_busy_server_is_left_alone() -> None:
    """As long as it asks for."""
    source, inquiry = Source(), events.Inquiry()
    source.error = api.Unavailable("busy", retry_after=60.0)
    await pass_time(inquiry, source, [mute(0)], 100)

    assert [0.0, 60.0] == [at for at, _ in source.asked]


async def test_a_missing_right_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """It is no error of the look, and tried again ten minutes later."""
    source, inquiry = Source(), events.Inquiry()
    source.error = errors.NoRight("broker is not allowed to list events in namespace agents")
    with caplog.at_level(logging.INFO, logger="backends.kubernetes"):
        await pass_time(inquiry, source, [mute(0)], 1300)

    assert [0.0, 600.0, 1200.0] == [at for at, _ in source.asked]
    assert ["broker is not allowed to list events in namespace agents"] == [
        record.reason for record in caplog.records
    ]


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_FIRST_S", -2.0)  # a server's times are whole seconds


VOLUME = {"name": "extra", "secret": {"secretName": "absent"}}
OPTIONS = settings.KubernetesTemplate(pod={"spec": {"volumes": [VOLUME]}})


async def seen(ours: api.Backend, state: str) -> api.Instance:
    async with patience.limit(5):
        while True:
            (found,) = await ours.list()
            if found.state.value == state and "not there" in f"{found.detail}{found.exit}":
                return found
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("_at_once")
async def test_a_volume_that_is_not_there_is_told(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """While there is patience as the reason of waiting, then as the reason of the end."""
    ours = make(start_patience_s=600)
    await ours.launch(test_backend.spec(options=OPTIONS))
    async with patience.limit(5):
        while not cluster.events:
            await asyncio.sleep(0.01)
    waiting = await seen(ours, "starting")
    impatient = make(start_patience_s=0)
    given_up = await seen(impatient, "exited")

    words = "a volume refers to something that is not there (FailedMount): MountVolume.SetUp"
    assert waiting.detail.startswith(words)
    assert given_up.exit is not None
    assert "command" == given_up.exit.slug
    assert given_up.exit.message.startswith(words)


@pytest.mark.usefixtures("_at_once")
async def test_a_look_works_without_the_right_to_read_events(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """The status is then all there is."""
    cluster.fail("list events", "error-403-rbac-list", times=1000)
    ours = make()
    await ours.launch(test_backend.spec(options=OPTIONS))
    async with patience.limit(5):
        while "list events" not in cluster.verbs():
            (found,) = await ours.list()
            await asyncio.sleep(0.01)
    for _ in range(20):
        (found,) = await ours.list()

    assert (api.InstanceState.STARTING, "being made: ContainerCreating") == (
        found.state,
        found.detail,
    )
    assert 1 == cluster.verbs().count("list events")
