"""What pods use, by the cluster's metrics API (``metrics.k8s.io``, mostly of metrics-server).

A kubelet would tell more, throttled time and kills for memory, but lets only those ask who may
proxy to nodes, and so run commands in any pod. The API tells of each container its working set and
what it did with processors over some half a minute, and one request tells it of all our pods. A
cluster need not have it, and we need not have the right: then nothing is told. Refuses to know
what the numbers are good for.
"""

import datetime as dt
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from backends import api
from backends.kit import sampling, usage
from backends.kubernetes.api import rights
from backends.kubernetes.pods import quantities, states

EVERY_S = 30.0  # metrics-server looks at a kubelet every 15 s
_REFUSED_S = 600.0  # until a cluster without it, or a missing right, is tried again
_TROUBLE_S = 60.0
_MOST = 100  # containers of a pod
_BYTES_MAX = 1 << 62


class MetricsSource(Protocol):
    """Who can be asked."""

    async def pod_metrics(self, selector: str) -> Sequence[Mapping[str, Any]]:
        """Return ``PodMetrics`` of pods with these labels. Raises NotFound and the others."""


class PodMetrics:
    """Asks now and then, and remembers since when it is of no use."""

    def __init__(self) -> None:
        self._quiet_until = -math.inf
        self._right = rights.OptionalRight("what agents use of memory and processors is not told")

    async def ask(
        self, source: MetricsSource, selector: str, take: sampling.Take, *, now: float
    ) -> None:
        """Take a sample of each pod, by its own name; what goes wrong is waited out."""
        if now < self._quiet_until:
            return
        try:
            found = await source.pod_metrics(selector)
        except api.BackendError as error:
            lasting = self._right.lacks(error) or isinstance(error, api.NotFound)
            self._quiet_until = now + (_REFUSED_S if lasting else error.retry_after or _TROUBLE_S)
            return
        for one in found:
            name = states.word(states.part(one, "metadata"), "name")
            sample = read(one, now=now)
            if name and sample is not None:
                take(name, sample)


def read(metrics: Mapping[str, Any], *, now: float) -> usage.Sample | None:
    """Return what all containers of a pod use together; None if that is not told."""
    used = [states.part(one, "usage") for one in _containers(metrics)]
    memory, cores = (_sum(used, resource) for resource in ("memory", "cpu"))
    if memory is None and cores is None:
        return None
    return usage.Sample(
        at=_moment(metrics.get("timestamp"), now),
        memory_bytes=min(int(memory), _BYTES_MAX) if memory is not None else None,
        cpu_cores=cores,
    )


def _containers(metrics: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for number, container in enumerate(states.entries(metrics, "containers")):
        if number >= _MOST:
            return
        yield container


def _sum(used: Collection[Mapping[str, Any]], resource: str) -> float | None:
    amounts = [quantities.amount(one.get(resource)) for one in used]
    told = [amount for amount in amounts if amount is not None]
    return sum(told) if told and len(told) == len(amounts) else None


def _moment(told: object, now: float) -> float:
    try:
        at = dt.datetime.fromisoformat(told).timestamp() if isinstance(told, str) else now
    except (ValueError, OverflowError, OSError):
        return now
    return min(at, now)
