"""The reasons that Kubernetes gives, and what each means to us: data, no rule.

``states`` says where each is looked for; docs/backends/kubernetes.md prints the table. Sources:
the recordings, and for what they do not hold the words in ``pkg/kubelet/images/types.go`` and
``pkg/kubelet/container/sync_result.go`` of Kubernetes. Refuses to judge a whole pod.
"""

import enum

from attrs import frozen


class Where(enum.Enum):
    """Which part of a pod's status gives the reason."""

    WAITING = "a container waits"
    TERMINATED = "a container ended"
    POD = "the pod failed"
    CONDITION = "condition DisruptionTarget"


@frozen(kw_only=True)
class Row:
    """One reason and its meaning; ``slug`` is one of ``api.Exit``."""

    where: Where
    reason: str
    slug: str
    text: str


def _rows(where: Where, *told: tuple[str, str, str]) -> tuple[Row, ...]:
    return tuple(
        Row(where=where, reason=reason, slug=slug, text=text) for reason, slug, text in told
    )


TABLE = (
    *_rows(
        Where.WAITING,
        ("ErrImagePull", "image", "the image cannot be pulled"),
        ("ImagePullBackOff", "image", "the image cannot be pulled"),
        ("ErrImageNeverPull", "image", "the image is not on the node and may not be pulled"),
        ("InvalidImageName", "image", "the image's name is wrong"),
        ("ImageInspectError", "image", "the image cannot be read on the node"),
        ("RegistryUnavailable", "image", "the registry does not answer"),
        ("SignatureValidationFailed", "image", "the image's signature is wrong"),
        (
            "CreateContainerConfigError",
            "command",
            "the container's configuration refers to something that is not there",
        ),
        ("CreateContainerError", "command", "the container cannot be made"),
        ("RunContainerError", "command", "the container cannot be started"),
        ("PreCreateHookError", "command", "the node refuses it"),
        ("PostStartHookError", "command", "its hook failed"),
        ("CrashLoopBackOff", "exited", "it ends again and again"),
    ),
    *_rows(
        Where.TERMINATED,
        ("OOMKilled", "out-of-memory", "killed for using more memory than its limit"),
        ("StartError", "command", "could not be started"),
        ("ContainerCannotRun", "command", "could not be started"),
        ("ContainerStatusUnknown", "unknown", "the node does not know what became of it"),
    ),
    *_rows(
        Where.POD,
        ("Evicted", "evicted", "evicted by its node"),
        ("Preempting", "evicted", "made room on its node"),
        ("Terminated", "platform-lost", "its node was shut down"),
        ("NodeShutdown", "platform-lost", "its node was shut down"),
        ("NodeLost", "platform-lost", "its node does not answer"),
        ("DeadlineExceeded", "killed", "older than its active deadline"),
    ),
    *_rows(
        Where.CONDITION,
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


def find(where: Where, reason: object) -> Row | None:
    """Return the row of a reason, or None."""
    return _BY_REASON.get((where, str(reason)))


_BY_REASON = {(row.where, row.reason): row for row in TABLE}
