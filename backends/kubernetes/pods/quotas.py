"""What the namespace's quotas leave for pods like one that was refused.

Pure. A quota says in its status how much of each resource may be used and how much is; admission
judges by the same numbers. Quotas with scopes are left out, for it is not told here which pods
they count, and so are resources that the pod does not name: what a LimitRange adds nobody tells.
Refuses to know when to ask, and what follows from it.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

from backends.kubernetes.pods import quantities, states
from outside import text

_COUNTS = frozenset({"pods", "count/pods"})
_PREFIXES = {"requests.": "requests", "limits.": "limits"}
_PLAIN = frozenset({"cpu", "memory", "ephemeral-storage"})  # means the requests
_MOST = 100  # quotas, and resources of one
_WORDS = 160


@frozen(kw_only=True)
class QuotaRoom:
    """What quotas leave: ``pods`` of any kind (None: no quota counts them), and of this kind."""

    pods: int | None = None
    alike: int | None = None
    text: str = ""


def room(quotas: Iterable[Mapping[str, Any]], pod: Mapping[str, Any]) -> QuotaRoom:
    """Return what quotas, as they were listed, leave for pods of this manifest."""
    pods: list[int] = []
    alike: list[int] = []
    words: list[str] = []
    for quota in list(quotas)[:_MOST]:
        spec, status = states.part(quota, "spec"), states.part(quota, "status")
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        hard, used = states.part(status, "hard"), states.part(status, "used")
        for resource in list(hard)[:_MOST]:
            most, has = (
                quantities.amount(hard[resource]),
                quantities.amount(used.get(resource, "0")),
            )
            wanted = _wanted(pod, str(resource))
            if most is None or has is None or not wanted:
                continue
            left = max(0, math.floor((most - has) / wanted + 1e-9))
            alike.append(left)
            if resource in _COUNTS:
                pods.append(left)
            if left == 0:
                name = states.word(states.part(quota, "metadata"), "name")
                words.append(f"quota {name}: {resource} {used.get(resource)} of {hard[resource]}")
    return QuotaRoom(
        pods=min(pods, default=None),
        alike=min(alike, default=None),
        text=text.clean("; ".join(words), _WORDS),
    )


def _wanted(pod: Mapping[str, Any], resource: str) -> float:
    """Return how much of a quota's resource one such pod takes; 0: nothing, or it is not told."""
    if resource in _COUNTS:
        return 1.0
    part, name = "requests", resource
    for prefix, told in _PREFIXES.items():
        if resource.startswith(prefix):
            part, name = told, resource.removeprefix(prefix)
    if part == "requests" and name == resource and resource not in _PLAIN:
        return 0.0
    return sum(_of_container(one, part, name) for one in _containers(pod))


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return states.entries(states.part(pod, "spec"), "containers")


def _of_container(container: Mapping[str, Any], part: str, name: str) -> float:
    """Return what a container asks for; without a request its limit is one."""
    resources = states.part(container, "resources")
    told = states.part(resources, part).get(name)
    if told is None and part == "requests":
        told = states.part(resources, "limits").get(name)
    return quantities.amount(str(told)) or 0.0 if told is not None else 0.0
