"""Whether an API server will take a pod: what can be told without one.

Pure, on plain data. ``known_fields.json`` holds the fields of all releases from 1.25 on and which
of them nobody may leave out; a test makes it from the published schemas. A field that is in none
may be one of tomorrow: that is said, and no more. Refuses to know what a cluster adds to this:
quotas, policies, nodes.
"""

import functools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backends.kit.misfits import Path
from backends.kit.remarks import Remark
from backends.kubernetes.pods import merge

_FILE = pathlib.Path(__file__).with_name("known_fields.json")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_QUANTITY = re.compile(r"\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?")
_CHOICES = {
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "effect": ("NoExecute", "NoSchedule", "PreferNoSchedule"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "protocol": ("SCTP", "TCP", "UDP"),
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
}
_INSIDE = frozenset({"containers", "initContainers", "restartPolicy", "volumes"})
"""Of a pod that is written without its ``spec``, or with a wrong indentation."""
_NAMED = {"Container": "container", "Volume": "volume"}
"""Types whose name is a DNS label, in words."""


def of_layer(layer: Any, namespace: str | None) -> Iterator[Remark]:
    """Say what is wrong with a part of a pod by itself; ``namespace``: of its backend, if known.

    That a field is unknown is no error: API servers leave it out, and it may be one of tomorrow.
    """
    if not isinstance(layer, Mapping):
        yield Remark(text="found no section; allowed: parts of a pod", wrong=True)
        return
    try:
        merge.check(layer)
    except merge.MergeError as error:
        text, _, hint = error.reason.partition("; hint: ")
        yield Remark(path=error.path, text=text, hint=hint, wrong=True)
        return
    for key, wanted in (("kind", "Pod"), ("apiVersion", "v1")):
        if layer.get(key, wanted) != wanted:
            yield Remark(
                path=(key,), text="only apiVersion v1, kind Pod can be created", wrong=True
            )
    for key in _INSIDE & layer.keys():
        text = "stands outside of `spec`"
        yield Remark(path=(key,), text=text, hint="put it into `spec`", wrong=True)
    yield from _metadata(layer.get("metadata") or {}, namespace)
    yield from _unknown(layer)


def _metadata(metadata: Mapping[str, Any], namespace: str | None) -> Iterator[Remark]:
    """Say what of it is the broker's."""
    for key in ("name", "generateName"):
        if key in metadata:
            text = "left out: each pod has the name of its agent"
            yield Remark(path=("metadata", key), text=text, hint="remove it")
    for key in ("ownerReferences", "finalizers"):
        if key in metadata:
            text = "the broker's: it alone decides when a pod goes"
            yield Remark(path=("metadata", key), text=text, hint="remove it", wrong=True)
    told = metadata.get("namespace")
    if told is not None and told != namespace:
        where = (
            "the backend's, which says none"
            if namespace is None
            else f"{namespace}, the backend's"
        )
        yield Remark(
            path=("metadata", "namespace"),
            text=f"found {str(told)[:80]!r}; allowed: {where}",
            hint="a backend of its own for each namespace",
            wrong=True,
        )


def _unknown(layer: Mapping[str, Any]) -> Iterator[Remark]:
    for path, kind, section in _sections(layer):
        for key in section:
            if key not in _fields()[kind] and key != "$patch" and (path or key not in _INSIDE):
                near = _elsewhere(str(key), kind)
                yield Remark(
                    path=(*path, key),
                    text="no release of Kubernetes knows this field here: API servers ignore it",
                    hint=f"it belongs into {near}" if near else "",
                )


def refused(pod: Mapping[str, Any]) -> Iterator[Remark]:
    """Say what of a pod every API server refuses; ``pod`` is whole, its layers are merged."""
    for path, kind, section in _sections(pod):
        yield from _missing(path, kind, section)
        yield from _choices(path, section)
        match kind:
            case "Container" | "Volume":
                yield from _name(path, section.get("name"), _NAMED[kind])
            case "ResourceRequirements":
                yield from _quantities(path, section)
            case "ObjectMeta":
                yield from _labels((*path, "labels"), section.get("labels"))
            case "PodSpec":
                yield from _labels((*path, "nodeSelector"), section.get("nodeSelector"))
                yield from _twice(path, section)


def place(path: Path, pod: Mapping[str, Any], layer: Mapping[str, Any]) -> Path:
    """Return where a place of a whole pod stands in one of its layers, as far as it does."""
    found: list[str | int] = []
    there: Any = pod
    written: Any = layer
    for step in path:
        there = there[step] if _has(there, step) else None
        if isinstance(written, list):
            step = next((at for at, entry in enumerate(written) if _is_same(entry, there)), -1)  # noqa: PLW2901
        if not _has(written, step):
            break
        written = written[step]
        found.append(step)
    return tuple(found)


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, Mapping):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping) and "name" in one:
        keys = ("name", "mountPath") if "mountPath" in one else ("name",)
        return all(one.get(key) == other.get(key) for key in keys)
    return bool(one == other)


def _missing(path: Path, kind: str, section: Mapping[str, Any]) -> Iterator[Remark]:
    for key in _required()[kind]:
        if section.get(key) is None and (kind, key) != ("PodSpec", "containers"):
            yield Remark(path=path, text=f"has no {key}", wrong=True)
    is_container = kind == "Container" and "name" in section
    if is_container and not section.get("image") and section["name"] != "jnlp":
        yield Remark(path=path, text="has no image", wrong=True)


def _choices(path: Path, section: Mapping[str, Any]) -> Iterator[Remark]:
    for key, allowed in _CHOICES.items():
        told = section.get(key)
        if isinstance(told, str) and told and told not in allowed:
            yield _wrong((*path, key), told, ", ".join(allowed))


def _name(path: Path, told: Any, what: str) -> Iterator[Remark]:
    if isinstance(told, str) and not _LABEL.fullmatch(told):
        allowed = f"as the name of a {what} lower-case letters, digits and '-', 63 at most"
        yield _wrong((*path, "name"), told, allowed)


def _quantities(path: Path, section: Mapping[str, Any]) -> Iterator[Remark]:
    for part in ("limits", "requests"):
        told = section.get(part)
        for key, value in told.items() if isinstance(told, Mapping) else ():
            if isinstance(value, str) and not _QUANTITY.fullmatch(value):
                yield _wrong((*path, part, key), value, "a quantity, such as 500m or 2Gi")
            elif isinstance(value, bool) or (isinstance(value, int | float) and value < 0):
                yield _wrong((*path, part, key), str(value), "a quantity, such as 500m or 2Gi")


def _labels(path: Path, told: Any) -> Iterator[Remark]:
    for key, value in told.items() if isinstance(told, Mapping) else ():
        if not _KEY.fullmatch(str(key)):
            yield _wrong(
                (*path, key), str(key), "a key of a label: letters, digits, '-', '_', '.'"
            )
        if isinstance(value, str) and not _VALUE.fullmatch(value):
            allowed = (
                "letters, digits, '-', '_', '.', 63 at most, at both ends a letter or a digit"
            )
            yield _wrong((*path, key), value, allowed)


def _twice(path: Path, section: Mapping[str, Any]) -> Iterator[Remark]:
    names: set[str] = set()
    for kind in ("containers", "initContainers"):
        for at, container in enumerate(section.get(kind) or ()):
            name = container.get("name") if isinstance(container, Mapping) else None
            if isinstance(name, str) and name in names:
                yield Remark(
                    path=(*path, kind, at), text=f"another container is called {name}", wrong=True
                )
            names.add(str(name))


def _wrong(path: Path, found: str, allowed: str) -> Remark:
    return Remark(path=path, text=f"found {found[:80]!r}; allowed: {allowed}", wrong=True)


# --- the tables --------------------------------------------------------------------------------


def _sections(pod: Mapping[str, Any]) -> Iterator[tuple[Path, str, Mapping[str, Any]]]:
    """Yield the sections of a pod with their types; what is no section is told by others."""
    left: list[tuple[Path, str, Any]] = [((), "Pod", pod)]
    while left:
        path, kind, value = left.pop()
        if isinstance(value, Mapping):
            yield path, kind, value
            left += [
                ((*path, key), inner, value[key])
                for key, inner in _fields()[kind].items()
                if inner and key in value
            ]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            left += [((*path, at), kind, entry) for at, entry in enumerate(value)]


@functools.cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(_FILE.read_text())
    return table


def _fields() -> Mapping[str, Mapping[str, str]]:
    """Return by type the fields with their types, which are empty for what is no section."""
    fields: Mapping[str, Mapping[str, str]] = _table()["fields"]
    return fields


def _required() -> Mapping[str, Sequence[str]]:
    required: Mapping[str, Sequence[str]] = _table()["required"]
    return required


def _elsewhere(key: str, kind: str) -> str:
    """Return where a field that stands at a wrong place belongs, if that is known."""
    if kind == "ResourceRequirements":
        return "`limits` or `requests`"
    return next((words for place, words in _PLACES.items() if key in _fields()[place]), "")


_PLACES = {"PodSpec": "`spec`", "Container": "a container", "ObjectMeta": "`metadata`"}
