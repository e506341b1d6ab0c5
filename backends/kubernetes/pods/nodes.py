"""Nodes that are about to end: what their taints say of the pods on them.

An autoscaler, a spot notice or a person marks a node minutes before its pods are evicted, or
before it is gone without that. To read nodes needs a right of the whole cluster, so nobody has to
give it: without it ends are known when the pods are told. Rules:

* Only taints that mean an end, by their key, count; whatever else a node is tainted with its pods
  may tolerate. Of a taint that evicts (``NoExecute``) the pods themselves tell, at once.
* A node that is only cordoned, or not ready, ends nothing yet.
* Nodes are asked one by one, each seldom: a list of all is megabytes in a large cluster. What goes
  wrong with that never stands in the way of a look.

Refuses to know what follows from it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from backends import api
from backends.kubernetes.api import rights
from backends.kubernetes.pods import states

ENDS: Mapping[str, str] = {
    # kubernetes/autoscaler, cluster-autoscaler/utils/taints/taints.go: ToBeDeletedTaint
    "ToBeDeletedByClusterAutoscaler": "the cluster autoscaler removes it",
    # kubernetes-sigs/karpenter, pkg/apis/v1/taints.go: DisruptedTaintKey
    "karpenter.sh/disrupted": "Karpenter removes it",
    # the same before 1.0, pkg/apis/v1beta1/taints.go: DisruptionTaintKey
    "karpenter.sh/disruption": "Karpenter removes it",
    # kubernetes/kubernetes, k8s.io/api/core/v1/well_known_taints.go: TaintNodeOutOfService
    "node.kubernetes.io/out-of-service": "it was taken out of service",
    # kubernetes/kubernetes, k8s.io/cloud-provider/api/well_known_taints.go: TaintNodeShutdown
    "node.cloudprovider.kubernetes.io/shutdown": "its machine is shut down",
    # GoogleCloudPlatform/k8s-node-termination-handler, main.go, flag `taint`; known to the
    # cluster autoscaler, taints.go: gkeNodeTerminationHandlerTaint
    "cloud.google.com/impending-node-termination": "its machine is about to be terminated",
    # aws/aws-node-termination-handler, pkg/node/node.go: SpotInterruptionTaint,
    # ScheduledMaintenanceTaint, ASGLifecycleTerminationTaint. Not RebalanceRecommendationTaint:
    # such a machine may stay for days, and where it is drained the pods are told
    "aws-node-termination-handler/spot-itn": "its spot machine is about to be taken away",
    "aws-node-termination-handler/scheduled-maintenance": "its machine goes into maintenance",
    "aws-node-termination-handler/asg-lifecycle-termination": "its machine is about to end",
    # MicrosoftDocs/azure-aks-docs, node-auto-drain.md; Azure/AKS, CHANGELOG.md has the older one
    "remediator.kubernetes.azure.com/unschedulable": "its machine is about to be moved or taken",
    "remediator.aks.microsoft.com/unschedulable": "its machine is about to be moved or taken",
}
"""Taints by which a node's end is announced, by their keys; above each, who sets it."""
_AT_ONCE = 2  # nodes for one look
_EVERY_S = 15.0  # for each of them; a spot notice is given two minutes before, or half of one
_TROUBLE_S = 60.0
_REFUSED_S = 600.0  # until a missing right is tried again
_TAINTS = 100


class NodeSource(Protocol):
    """Who can be asked."""

    async def node(self, name: str) -> Mapping[str, Any]:
        """Return one node. Raises NotFound, NoRight and the others."""


def ending(node: Mapping[str, Any]) -> str:
    """Say why a node will end what runs on it; empty if nobody has said so."""
    for number, taint in enumerate(states.entries(states.part(node, "spec"), "taints")):
        if number >= _TAINTS:
            break
        why = ENDS.get(states.word(taint, "key"))
        if why is not None and states.word(taint, "effect") != "PreferNoSchedule":
            return f"{why} (taint {states.word(taint, 'key')})"
    return ""


class NodeWatch:
    """Asks about the nodes that pods run on, and remembers what they said last."""

    def __init__(self) -> None:
        self._endings: dict[str, str] = {}  # by node, of those that were asked
        self._asked_at: dict[str, float] = {}
        self._quiet_until = 0.0
        self._right = rights.OptionalRight("ends of nodes are known when pods are told")

    def ending_of(self, name: str) -> str:
        """Return why a node will end; empty if it will not, or that is not known."""
        return self._endings.get(name, "")

    async def ask(self, source: NodeSource, names: Iterable[str], *, now: float) -> None:
        """Ask about those of these nodes that were asked longest ago; ``now`` in POSIX seconds."""
        wanted = {name for name in names if name}
        self._endings = {name: why for name, why in self._endings.items() if name in wanted}
        self._asked_at = {name: at for name, at in self._asked_at.items() if name in wanted}
        if now < self._quiet_until:
            return
        due = [name for name in wanted if not 0.0 <= now - self._last(name) < _EVERY_S]
        for name in sorted(due, key=lambda name: (self._last(name), name))[:_AT_ONCE]:
            self._asked_at[name] = now
            try:
                self._endings[name] = ending(await source.node(name))
            except api.NotFound:
                self._endings[name] = ""
            except api.BackendError as error:
                self._refused(error, now)
                return

    def _last(self, name: str) -> float:
        return self._asked_at.get(name, float("-inf"))

    def _refused(self, error: api.BackendError, now: float) -> None:
        """Keep what was said last: a node that goes does not stay because nobody can be asked."""
        lasting = self._right.lacks(error)
        self._quiet_until = now + (_REFUSED_S if lasting else error.retry_after or _TROUBLE_S)
