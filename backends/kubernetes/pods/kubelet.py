"""What pods use, by the kubelets of their nodes: ``/metrics/cadvisor``, read line by line. Pure.

A kubelet tells what the metrics API does not: kills for memory inside a container that lives on,
for how long its limit of processors held it back, the kernel's own peak of memory. The names are
cAdvisor's (google/cadvisor, docs/storage/prometheus.md); ``container_oom_events_total`` is told
since Kubernetes 1.24 (kubernetes/kubernetes#108004), and counts only in containers that survive
(gardener/gardener#6564). Each series has the labels container, namespace and pod; without a
container it is the pod's own group. The text is Prometheus' exposition format.

What comes may be of any size and kind: long lines, odd numbers and other people's pods are passed
over. Refuses to know how it is asked for.
"""

import math
import re
from collections.abc import Iterable, Mapping

import attrs
from attrs import frozen

from backends.kit import usage
from outside import typed

_OOM = b"container_oom_events_total"
_CPU = b"container_cpu_usage_seconds_total"
_THROTTLED = b"container_cpu_cfs_throttled_seconds_total"
_WORKING = b"container_memory_working_set_bytes"
_PEAK = b"container_memory_max_usage_bytes"
_NAMES = (_OOM, _CPU, _THROTTLED, _WORKING, _PEAK)
_LINE = re.compile(
    rb"(?P<name>[a-z_]{1,64})\{(?P<labels>(?:[^\"{}]|\"(?:[^\"\\]|\\.)*\")*)\} "
    rb"(?P<value>[0-9.eE+-]{1,32})(?: -?\d{1,16})?\r?"
)
_LABEL = re.compile(rb"(?:^|,)\s*(container|namespace|pod)=\"([a-z0-9.-]{0,253})\"")
_LINE_MAX = 4096
_MOST = 1000  # containers of ours on one node, and more than a node can hold
_BYTES_MAX = 1 << 62
_SECONDS_MAX = 1e12
_COUNT_MAX = 1 << 31
_PAUSES = frozenset({b"", b"POD"})
"""Of a pod's own group, and of its pause container where dockershim made it."""


@frozen(kw_only=True)
class PodSample:
    """What a kubelet says of one pod at one time."""

    used: usage.Sample
    kills: int  # for memory, in containers of it that live on


@attrs.define
class _Counts:
    """One number of each container by now, and the pod's own, "" is its name."""

    told: dict[bytes, dict[bytes, float]] = attrs.field(factory=dict)

    def take(self, name: bytes, container: bytes, value: float) -> None:
        amounts = self.told.setdefault(name, {})
        if len(amounts) < _MOST:
            # CPU time may be split: the parts of one container come to the whole
            amounts[container] = amounts.get(container, 0.0) + value

    def sum(self, name: bytes) -> float | None:
        amounts = self.told.get(name, {})
        parts = [value for container, value in amounts.items() if container not in _PAUSES]
        return sum(parts) if parts else None

    def peak(self) -> float | None:
        """Return the peak of the whole pod: of several containers the sum of theirs is not it."""
        amounts = self.told.get(_PEAK, {})
        parts = [value for container, value in amounts.items() if container not in _PAUSES]
        if len(parts) == 1:
            return parts[0] or None
        return amounts.get(b"") or None  # 0 where the kernel keeps none


class KubeletReader:
    """Takes lines, and keeps what they say of the pods that it was given."""

    def __init__(self, pods: Iterable[str], *, namespace: str) -> None:
        self._namespace = namespace.encode()
        self._pods = {name.encode(): _Counts() for name in pods}

    def take(self, line: bytes) -> None:
        """Take one line without its end; never raises."""
        if not line.startswith(b"container_") or len(line) > _LINE_MAX:
            return
        if not line.startswith(_NAMES):
            return
        parts = _LINE.fullmatch(line)
        if parts is None or parts["name"] not in _NAMES:
            return
        labels = dict(_LABEL.findall(parts["labels"]))
        counts = self._pods.get(labels.get(b"pod", b""))
        if counts is None or labels.get(b"namespace") != self._namespace:
            return
        try:
            value = float(parts["value"])
        except ValueError:
            return
        if math.isfinite(value) and value >= 0:
            counts.take(parts["name"], labels.get(b"container", b""), value)

    def samples(self, *, now: float) -> Mapping[str, PodSample]:
        """Return what was said of each pod, by its name; of some perhaps nothing."""
        found = {}
        for name, counts in self._pods.items():
            if not counts.told:
                continue
            memory, peak, kills = counts.sum(_WORKING), counts.peak(), counts.sum(_OOM)
            found[name.decode()] = PodSample(
                used=usage.Sample(
                    at=now,
                    memory_bytes=_whole(memory),
                    memory_cached_peak_bytes=_whole(peak),
                    cpu_s=typed.number(counts.sum(_CPU), 0.0, _SECONDS_MAX),
                    throttled_s=typed.number(counts.sum(_THROTTLED), 0.0, _SECONDS_MAX),
                ),
                kills=int(min(kills or 0.0, _COUNT_MAX)),
            )
        return found


def _whole(amount: float | None) -> int | None:
    return None if amount is None else int(min(amount, _BYTES_MAX))
