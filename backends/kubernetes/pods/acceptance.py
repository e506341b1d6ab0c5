"""Whether an API server will take a pod: what can be told without one.

Pure, on plain data. ``fields`` knows the fields of all releases and their forms, and which of
them nobody may leave out; a field that is in none may be one of tomorrow: that is said, and no
more. The tables here are of what an API server asks beyond its schemas: words, limits, one of
several fields. They go by a field's name, or by its type's and its own. Refuses to know what a
cluster adds to this: quotas, policies, nodes.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from backends.kit.misfits import Path
from backends.kit.remarks import Remark
from backends.kubernetes.pods import fields, merge, table, volumes
from outside import quotes

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_IMAGE = re.compile(
    r"((\[[0-9A-Fa-f:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*"
    r"(:[A-Za-z0-9_][-.A-Za-z0-9_]{0,127})?(@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?"
)
_POLICIES = ("Always", "IfNotPresent", "Never")
_RELATIONS = ("DoesNotExist", "Exists", "In", "NotIn")
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_CHOICES = {
    "AppArmorProfile.type": _PROFILES,
    "Container.restartPolicy": ("Always", "Never", "OnFailure"),
    "HTTPGetAction.scheme": ("HTTP", "HTTPS"),
    "HostPathVolumeSource.type": (
        *("BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate"),
        "Socket",
    ),
    "LabelSelectorRequirement.operator": _RELATIONS,
    "NodeSelectorRequirement.operator": (*_RELATIONS, "Gt", "Lt"),
    "PodOS.name": ("linux", "windows"),
    "PodSpec.restartPolicy": ("Always", "Never", "OnFailure"),
    "SeccompProfile.type": _PROFILES,
    "Toleration.operator": ("Equal", "Exists", "Gt", "Lt"),
    "dnsPolicy": ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    "effect": ("NoExecute", "NoSchedule", "PreferNoSchedule"),
    "fsGroupChangePolicy": ("Always", "OnRootMismatch"),
    "imagePullPolicy": _POLICIES,
    "mountPropagation": ("Bidirectional", "HostToContainer", "None"),
    "nodeAffinityPolicy": ("Honor", "Ignore"),
    "nodeTaintsPolicy": ("Honor", "Ignore"),
    "preemptionPolicy": ("Never", "PreemptLowerPriority"),
    "procMount": ("Default", "Unmasked"),
    "protocol": ("SCTP", "TCP", "UDP"),
    "pullPolicy": _POLICIES,
    "terminationMessagePolicy": ("FallbackToLogsOnError", "File"),
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
}
_LARGEST = {"number": 2**63 - 1, "number32": 2**31 - 1}
_NOT_NEGATIVE = (0, None)
_PORTS = (1, 65_535)
_MODES = (0, 0o777)
_LIMITS: Mapping[str, tuple[int, int | None]] = {
    "PodSpec.activeDeadlineSeconds": (1, 2**31 - 1),
    "ServiceAccountTokenProjection.expirationSeconds": (600, 2**32),
    "containerPort": _PORTS,
    "defaultMode": _MODES,
    "failureThreshold": _NOT_NEGATIVE,
    "fsGroup": (0, 2**31 - 1),
    "hostPort": (0, 65_535),
    "initialDelaySeconds": _NOT_NEGATIVE,
    "maxSkew": (1, None),
    "minDomains": (1, None),
    "mode": _MODES,
    "periodSeconds": _NOT_NEGATIVE,
    "port": _PORTS,
    "runAsGroup": (0, 2**31 - 1),
    "runAsUser": (0, 2**31 - 1),
    "seconds": _NOT_NEGATIVE,
    "successThreshold": _NOT_NEGATIVE,
    "terminationGracePeriodSeconds": _NOT_NEGATIVE,
    "timeoutSeconds": _NOT_NEGATIVE,
    "weight": (1, 100),
}
_HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")
_ONE_OF: Mapping[str, tuple[frozenset[str], bool]] = {
    "EnvFromSource": (frozenset({"configMapRef", "secretRef"}), True),
    "EnvVar": (frozenset({"value", "valueFrom"}), False),
    "EnvVarSource": (frozenset(), True),
    "LifecycleHandler": (frozenset({"exec", "httpGet", "sleep", "tcpSocket"}), True),
    "Probe": (frozenset(_HANDLERS), True),
    "Volume": (frozenset(), False),
    "VolumeProjection": (frozenset(), True),
}
"""Of which fields there is only one, and whether there must be; none named: all its sections."""
_INSIDE = frozenset({"containers", "initContainers", "restartPolicy", "volumes"})
"""Of a pod that is written without its ``spec``, or with a wrong indentation."""
_NAMED = {"Container": "container", "Volume": "volume"}
"""Types whose name is a DNS label, in words."""


def of_layer(layer: Any, namespace: str | None) -> Iterator[Remark]:
    """Say what is wrong with a part of a pod by itself; ``namespace``: of its backend, if known.

    That a field is unknown is no error: API servers leave it out, and it may be one of tomorrow.
    """
    if not isinstance(layer, Mapping):
        hint = (
            "remove the | or the quotes: its lines are YAML themselves"
            if isinstance(layer, str)
            else ""
        )
        text = "found no section; allowed: parts of a pod"
        yield Remark(text=text, hint=hint, wrong=True)
        return
    formed = list(fields.KINDS.remarks(layer, ()))
    yield from formed
    try:
        merge.check(sound(layer))
    except merge.MergeError as error:
        text, _, hint = error.reason.partition("; hint: ")
        yield Remark(path=error.path, text=text, hint=hint, wrong=True)
    for key, wanted in (("kind", "Pod"), ("apiVersion", "v1")):
        if layer.get(key, wanted) != wanted:
            yield Remark(
                path=(key,), text="only apiVersion v1, kind Pod can be created", wrong=True
            )
    for key in _INSIDE & layer.keys():
        text = "stands outside of `spec`"
        yield Remark(path=(key,), text=text, hint="put it into `spec`", wrong=True)
    metadata = layer.get("metadata")
    yield from _metadata(metadata if isinstance(metadata, Mapping) else {}, namespace)
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
            text=f"found {quotes.shown(str(told))}; allowed: {where}",
            hint="a backend of its own for each namespace",
            wrong=True,
        )


def _unknown(layer: Mapping[str, Any]) -> Iterator[Remark]:
    for path, kind, section in fields.sections(layer):
        for key in section:
            if (
                key not in fields.known()[kind]
                and key != "$patch"
                and (path or key not in _INSIDE)
            ):
                near = _elsewhere(str(key), kind)
                yield Remark(
                    path=(*path, key),
                    text="no release of Kubernetes knows this field here: API servers ignore it",
                    hint=f"it belongs into {near}" if near else "",
                )


def sound(layer: Any, form: str = fields.KINDS.top) -> Any:
    """Return a layer whose sections and lists are such, empty where the user wrote others.

    The others are told, and what stands beside them is judged all the same.
    """
    if form[:1].isupper():
        if not isinstance(layer, Mapping):
            return layer if layer is None else {}
        inner = fields.known().get(form, {})
        return {key: sound(value, inner.get(str(key), "")) for key, value in layer.items()}
    if form.startswith("{"):
        return layer if layer is None or isinstance(layer, Mapping) else {}
    if form.startswith("["):
        if not isinstance(layer, list):
            return layer if layer is None else []
        of_sections = form[1:2].isupper()
        kept = [one for one in layer if isinstance(one, Mapping) or not of_sections]
        return [sound(one, form[1:-1]) for one in kept]
    return layer


def refused(pod: Mapping[str, Any], agent: str) -> Iterator[Remark]:
    """Say what of a pod every API server refuses; ``pod`` is whole, its layers are merged.

    ``agent``: its container that has its image from elsewhere.
    """
    for path, kind, section in fields.sections(pod):
        yield from _missing(path, kind, section, agent)
        yield from _choices(path, kind, section)
        yield from _limits(path, kind, section)
        yield from _one_of(path, kind, section)
        match kind:
            case "Container" | "Volume":
                if kind == "Container":
                    yield from _image(path, section.get("image"))
                yield from _name(path, section.get("name"), _NAMED[kind])
            case "ObjectMeta":
                yield from _labels((*path, "labels"), section.get("labels"))
            case "PodSpec":
                yield from _labels((*path, "nodeSelector"), section.get("nodeSelector"))
                yield from _twice(path, section)
                yield from _unmounted(path, section)


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


def _missing(path: Path, kind: str, section: Mapping[str, Any], agent: str) -> Iterator[Remark]:
    for key in fields.required()[kind]:
        if section.get(key) is None and (kind, key) != ("PodSpec", "containers"):
            yield Remark(path=path, text=f"has no {key}", wrong=True)
    is_container = kind == "Container" and "name" in section
    if is_container and not section.get("image") and section["name"] != agent:
        yield Remark(path=path, text="has no image", wrong=True)


def _choices(path: Path, kind: str, section: Mapping[str, Any]) -> Iterator[Remark]:
    for key, told in section.items():
        allowed = _CHOICES.get(f"{kind}.{key}") or _CHOICES.get(key)
        if isinstance(told, str) and told and allowed is not None and told not in allowed:
            yield _wrong((*path, key), told, ", ".join(allowed))


def _limits(path: Path, kind: str, section: Mapping[str, Any]) -> Iterator[Remark]:
    for key, told in section.items():
        largest = _LARGEST.get(fields.known()[kind].get(key, ""))
        least, most = _LIMITS.get(f"{kind}.{key}") or _LIMITS.get(key) or (None, None)
        if type(told) is not int or (largest is None and least is None):
            continue
        least = -largest - 1 if least is None and largest is not None else least
        most = largest if most is None else most
        low = -math.inf if least is None else least
        high = math.inf if most is None else most
        if not low <= told <= high:
            is_open = most is None or most in _LARGEST.values()
            allowed = f"{least} or more" if is_open else f"{least} to {most}"
            text = f"found {str(told)[:40]}; allowed: {allowed}"
            yield Remark(path=(*path, key), text=text, wrong=True)


def _one_of(path: Path, kind: str, section: Mapping[str, Any]) -> Iterator[Remark]:
    if kind not in _ONE_OF:
        return
    names, at_least_one = _ONE_OF[kind]
    known = fields.known()[kind]
    names = names or frozenset(name for name, form in known.items() if form[:1].isupper())
    told = [key for key in section if key in names and section[key] not in (None, "")]
    if len(told) > 1:
        text = f"has {' and '.join(told)}; allowed: one of them"
        yield Remark(path=path, text=text[:256], wrong=True)
    elif not told and at_least_one and not any(key not in known for key in section):
        text = f"says nothing of what it is; allowed: one of {', '.join(sorted(names))}"
        yield Remark(path=path, text=text, wrong=True)


def _image(path: Path, told: Any) -> Iterator[Remark]:
    if isinstance(told, str) and told and not _IMAGE.fullmatch(told):
        yield _wrong((*path, "image"), told, "an image, such as registry.example/maven:3.9")


def _unmounted(path: Path, section: Mapping[str, Any]) -> Iterator[Remark]:
    known = [str(volume) for volume in volumes.names_of(section)]
    for where, volume in volumes.missing(section, besides=(table.OWN_SECRET,)):
        allowed = f"a volume of the pod, which are {', '.join(known)[:120]}"
        yield _wrong((*path, *where), volume, allowed)


def _name(path: Path, told: Any, what: str) -> Iterator[Remark]:
    if isinstance(told, str) and not _LABEL.fullmatch(told):
        allowed = f"as the name of a {what} lower-case letters, digits and '-', 63 at most"
        yield _wrong((*path, "name"), told, allowed)


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
    return Remark(path=path, text=f"found {quotes.shown(found)}; allowed: {allowed}", wrong=True)


def _elsewhere(key: str, kind: str) -> str:
    """Return where a field that stands at a wrong place belongs, if that is known."""
    if kind == "ResourceRequirements":
        return "`limits` or `requests`"
    return next((words for place, words in _PLACES.items() if key in fields.known()[place]), "")


_PLACES = {"PodSpec": "`spec`", "Container": "a container", "ObjectMeta": "`metadata`"}
