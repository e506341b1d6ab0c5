"""The reasons that Kubernetes gives, and what each means to us: data, no rule.

``states`` and ``events`` say where each is looked for; docs/backends/kubernetes.md prints the
table. Sources: the recordings, and for what they do not hold the words in
``pkg/kubelet/images/types.go``, ``pkg/kubelet/container/sync_result.go`` and
``pkg/kubelet/events/event.go`` of Kubernetes. Refuses to judge a whole pod.
"""

import enum

from attrs import frozen

from backends import api

OWN_SECRET = "agent-broker-secrets"  # noqa: S105 -- the name of a volume
"""The volume of a pod's own secret, which comes after the pod (docs/decisions/0007)."""


class StatusPart(enum.Enum):
    """Which part of a pod's status gives the reason."""

    WAITING = "a container waits"
    TERMINATED = "a container ended"
    POD = "the pod failed"
    CONDITION = "condition DisruptionTarget"


@frozen(kw_only=True)
class StatusRow:
    """One reason and its meaning; ``slug`` is one of ``api.ExitSlug``."""

    where: StatusPart
    reason: str
    slug: api.ExitSlug
    text: str


@frozen(kw_only=True)
class EventRow:
    """What an event says of a pod that does not run yet.

    ``slug``: to be given up for that after a while; None: it may well start yet. An empty text:
    a step forward, and nothing to tell. ``having``: only if the message does. ``times``: only if
    it was told so often.
    """

    reason: str
    text: str = ""
    slug: api.ExitSlug | None = None
    having: str = ""
    times: int = 1
    fetching: bool = False  # of an image


@frozen(kw_only=True)
class PodObstacle:
    """Why a pod does not run: ``slug`` of its end if it is given up, None if it is waited for.

    ``fetching``: an image is not there yet.
    """

    slug: api.ExitSlug | None
    words: str
    fetching: bool = False


def _rows(where: StatusPart, *told: tuple[str, api.ExitSlug, str]) -> tuple[StatusRow, ...]:
    return tuple(
        StatusRow(where=where, reason=reason, slug=slug, text=text) for reason, slug, text in told
    )


TABLE = (
    *_rows(
        StatusPart.WAITING,
        ("ErrImagePull", "image", "the image cannot be pulled"),
        ("ImagePullBackOff", "image", "the image cannot be pulled"),
        (
            "ErrImageNeverPull",
            "image",
            "the image is not on the node and pulling it is not allowed",
        ),
        ("InvalidImageName", "image", "the image's name is wrong"),
        ("ImageInspectError", "image", "the image cannot be read on the node"),
        ("RegistryUnavailable", "image", "the registry does not answer"),
        ("SignatureValidationFailed", "image", "the image's signature is wrong"),
        (
            "CreateContainerConfigError",
            "command",
            "the container's configuration cannot be used",
        ),
        ("CreateContainerError", "command", "the container cannot be made"),
        ("RunContainerError", "command", "the container cannot be started"),
        ("PreCreateHookError", "command", "the node refuses it"),
        ("PostStartHookError", "command", "its hook failed"),
        ("CrashLoopBackOff", "exited", "it ends again and again"),
    ),
    *_rows(
        StatusPart.TERMINATED,
        ("OOMKilled", "out-of-memory", "killed for using more memory than its limit"),
        ("StartError", "command", "could not be started"),
        ("ContainerCannotRun", "command", "could not be started"),
        ("ContainerStatusUnknown", "unknown", "the node does not know what became of it"),
    ),
    *_rows(
        StatusPart.POD,
        ("Evicted", "evicted", "evicted by its node"),
        ("Preempting", "evicted", "made room on its node"),
        ("Terminated", "platform-lost", "its node was shut down"),
        ("NodeShutdown", "platform-lost", "its node was shut down"),
        ("NodeLost", "platform-lost", "its node does not answer"),
        ("DeadlineExceeded", "killed", "older than its active deadline"),
    ),
    *_rows(
        StatusPart.CONDITION,
        ("PreemptionByScheduler", "evicted", "made room for pods of higher priority"),
        ("EvictionByEvictionAPI", "evicted", "evicted by somebody, as when a node is drained"),
        (
            "TerminationByKubelet",
            "evicted",
            "ended by its node, which is short of something or shuts down",
        ),
        ("DeletionByTaintManager", "platform-lost", "its node does not answer or got a taint"),
        ("DeletionByPodGC", "platform-lost", "its node is gone"),
    ),
)

# Only what can name nothing but a mistake in the template ends a pod: what nodes, networks and
# storage have trouble with they may overcome, and a second pod would not fare better.
EVENTS = (
    EventRow(
        reason="FailedMount",
        having=f'"{OWN_SECRET}"',
        times=3,
        slug="interrupted",
        text="its own secret is not there",
    ),
    EventRow(
        reason="FailedMount",
        having="not found",
        times=4,  # what was made a moment after the pod may be missed once or twice
        slug="command",
        text="a volume refers to something that is not there",
    ),
    EventRow(reason="FailedMount", text="a volume cannot be mounted"),
    EventRow(reason="FailedMapVolume", text="a volume cannot be mounted"),
    EventRow(
        reason="FailedAttachVolume",
        having="Multi-Attach",
        text="a volume is still attached to another node",
    ),
    EventRow(reason="FailedAttachVolume", text="a volume cannot be attached to the node"),
    EventRow(reason="FailedCreatePodSandBox", text="its network or sandbox cannot be made"),
    EventRow(reason="FailedPodSandBoxStatus", text="its sandbox does not answer"),
    EventRow(reason="NetworkNotReady", text="its node has no network"),
    EventRow(reason="NodeNotReady", text="its node is not ready"),
    EventRow(reason="FailedCreatePodContainer", text="its containers cannot be made"),
    EventRow(reason="FailedPrepareDynamicResources", text="its devices cannot be prepared"),
    EventRow(reason="FailedSync", text="its node cannot make it"),
    EventRow(reason="FailedToRetrieveImagePullSecret", text="an image pull secret is not there"),
    EventRow(reason="FailedScheduling", text="no node fits"),
    EventRow(reason="TriggeredScaleUp", text="no node fits; one is being added"),
    EventRow(reason="Nominated", text="no node fits; one is being added"),
    EventRow(reason="NotTriggerScaleUp", text="no node fits, and none will be added"),
    EventRow(reason="Pulling", text="an image is being pulled", fetching=True),
    *(
        EventRow(reason=reason)
        for reason in ["Scheduled", "SuccessfulAttachVolume", "Pulled", "Created", "Started"]
    ),
)


def find(where: StatusPart, reason: object) -> StatusRow | None:
    """Return the row of a reason, or None."""
    return _BY_REASON.get((where, str(reason)))


_BY_REASON = {(row.where, row.reason): row for row in TABLE}
