"""What pods use, by the cluster's metrics API (``metrics.k8s.io``, mostly of metrics-server).

The API tells of each container its working set and what it did with processors over some half a
minute, and one request tells it of all our pods. A cluster need not have it, and we need not have
the right: then nothing is told.

A kubelet tells more, throttled time and kills for memory (``kubelet``), but lets only those ask
who may proxy to nodes, and so run commands in any pod: it is asked only where a user wants that.
Refuses to know what the numbers are good for.
"""

import asyncio
import datetime as dt
import io
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from backends import api
from backends.kit import sampling, usage
from backends.kubernetes.api import rights
from backends.kubernetes.pods import kubelet, quantities, states

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


KUBELETS_EVERY_S = 60.0  # an answer is a megabyte or two
_NODES = 48  # for one round, those first that were asked longest ago
_AT_ONCE = 4
_LINES = 2000  # between two breaths of the loop


class KubeletSource(Protocol):
    """Who can be asked for a kubelet's words."""

    async def kubelet_metrics(self, node: str) -> bytes:
        """Return what the kubelet of a node tells of its containers. Raises NoRight and others."""


class Kubelets:
    """Asks the nodes that have pods of ours, each seldom."""

    def __init__(self) -> None:
        self._quiet_until = -math.inf
        self._asked_at: dict[str, float] = {}
        self._right = rights.OptionalRight(
            "what agents use, and what was killed in them for memory, is not told"
        )

    async def ask(
        self,
        source: KubeletSource,
        nodes: Mapping[str, Collection[str]],
        take: Callable[[str, kubelet.PodSample], None],
        *,
        namespace: str,
        now: float,
    ) -> None:
        """Take a sample of each pod, by its own name; ``nodes``: the pods on each of them.

        A node that does not answer costs its own pods a sample, and nobody else.
        """
        if now < self._quiet_until:
            return
        self._asked_at = {node: at for node, at in self._asked_at.items() if node in nodes}
        due = sorted(nodes, key=lambda node: (self._asked_at.get(node, -math.inf), node))[:_NODES]
        turns = asyncio.Semaphore(_AT_ONCE)

        async def one(node: str) -> None:
            async with turns:
                if now < self._quiet_until:
                    return
                self._asked_at[node] = now
                try:
                    told = await source.kubelet_metrics(node)
                except api.BackendError as error:
                    if self._right.lacks(error):
                        self._quiet_until = now + _REFUSED_S
                    return
                reader = kubelet.KubeletReader(nodes[node], namespace=namespace)
                for number, line in enumerate(io.BytesIO(told), 1):
                    reader.take(line.rstrip(b"\n"))
                    if number % _LINES == 0:
                        await asyncio.sleep(0)
                for name, sample in reader.samples(now=now).items():
                    take(name, sample)

        await asyncio.gather(*(one(node) for node in due))


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
