"""What stands between a request and the storage of an API server: decoding, validation, admission.

Types, unknown and required fields are those of the published schemas (``tests.oracle.schemas``), not of our own code;
the words are those of the recordings, which ``test_admission.py`` replays: the same request gets the same answer.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, field

from tests.oracle import schemas

Object = dict[str, Any]
Path = tuple[str | int, ...]

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_QUANTITY = r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)"
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9}
_RESTARTS = ("Always", "OnFailure", "Never")
_GO = {"string": "string", "boolean": "bool", "integer": "int32"}
_JSON = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
}


class Refusal(Exception):
    """An answer that is none of success."""

    def __init__(
        self, status: int, reason: str, message: str, details: Object | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.body |= {"message": message, "reason": reason}
        self.body |= {"details": details} if details else {}
        self.body |= {"code": status}


# --- decoding ---


def decoded(document: Object, *, strict: bool) -> tuple[Object, list[str]]:
    """Return an object as the server reads it, and its warnings; raises Refusal."""
    told = _judged(document)
    head = f'{document["kind"]} in version "v1" cannot be handled as a {document["kind"]}: '
    unknown = [path for kind, path, _ in told if kind == "unknown"]
    if strict and unknown:
        words = ", ".join(f'unknown field "{_written(path)}"' for path in unknown)
        raise Refusal(400, "BadRequest", f"{head}strict decoding error: {words}")
    document = copy.deepcopy(document)
    for path in unknown:
        _at(document, path[:-1]).pop(path[-1])
    for kind, path, wanted in told:
        if kind == "type":
            found = _JSON[type(_at(document, path))]
            names = ".".join(str(step) for step in path if isinstance(step, str))
            owner = _type_of(document, path[:-1])
            words = f"json: cannot unmarshal {found} into Go struct field {owner}.{names} of type {wanted}"
            raise Refusal(400, "BadRequest", head + words)
    for _, section in _resources(document):
        for quantity in section.values():
            if not re.fullmatch(_QUANTITY, str(quantity)):
                words = f"quantities must match the regular expression '^{_QUANTITY}$'"
                raise Refusal(400, "BadRequest", head + words)
    return document, [f'299 - "unknown field \\"{_written(path)}\\""' for path in unknown]


_KNOWN: dict[str, list[tuple[str, Path, str]]] = {}


def _judged(document: Object) -> list[tuple[str, Path, str]]:
    """Return what the schema has against an object; of alike ones it is asked once."""
    shape = json.dumps(_shape(document))
    if shape not in _KNOWN:
        _KNOWN[shape] = list(_faults(document))
    return _KNOWN[shape]


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: v if k in {"apiVersion", "kind"} else _shape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_shape(entry) for entry in value]
    return _JSON.get(type(value))


def _faults(document: Object) -> Iterator[tuple[str, Path, str]]:
    for error in schemas.errors(document):
        path = tuple(error.absolute_path)
        match error.validator:
            case "additionalProperties" if isinstance(error.validator_value, bool):
                for key in error.instance.keys() - error.schema.get("properties", {}).keys():
                    yield "unknown", (*path, key), ""
            case "required":
                missing = [k for k in error.validator_value if k not in error.instance]
                for key in missing:
                    yield "required", (*path, key), ""
            case "type":
                kinds = error.validator_value
                wanted = kinds if isinstance(kinds, str) else kinds[0]
                yield "type", path, _GO.get(wanted, wanted)
            case _:
                yield "type", path, error.validator


def _type_of(document: Object, path: Path) -> str:
    """Return the Go type of the section at a path, as the schemas call it."""
    full = f"io.k8s.api.core.v1.{document['kind']}"
    for step in path:
        if isinstance(step, str):
            value = (
                schemas.definitions(schemas.LAB).get(full, {}).get("properties", {}).get(step, {})
            )
            full = schemas.type_of(value) or full
    return full.rpartition(".")[2]


# --- validation ---


def validate(pod: Object, *, missing: list[Path]) -> None:
    """Raise what is wrong with a pod's values, all of it at once."""
    causes = [*_causes(pod, missing)]
    if not causes:
        return
    told = [f"{where}: {words}" for where, _, words in causes]
    listed = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    name = pod["metadata"]["name"]
    details = {"name": name, "kind": "Pod", "causes": [
        {"reason": f"FieldValue{kind}", "message": words, "field": where} for where, kind, words in causes
    ]}  # fmt: skip
    raise Refusal(422, "Invalid", f'Pod "{name}" is invalid: {listed}', details)


def _causes(pod: Object, missing: list[Path]) -> Iterator[tuple[str, str, str]]:
    meta, spec = pod["metadata"], pod.get("spec") or {}
    yield from _named("metadata.name", meta["name"], _SUBDOMAIN, 253)
    for labels in (meta.get("labels") or {},):
        for value in labels.values():
            if not re.fullmatch(_VALUE, value) or len(value) > 63:
                words = _regex_words(
                    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and "
                    "must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345'",
                    _VALUE,
                )
                yield "metadata.labels", "Invalid", f'Invalid value: "{value}": {words}'
    if sum(len(k) + len(v) for k, v in (meta.get("annotations") or {}).items()) > 262144:
        words = "Too long: may not be more than 262144 bytes"
        yield "metadata.annotations", "TooLong", words
    if not spec.get("containers"):
        yield "spec.containers", "Required", "Required value"
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    names: set[str] = set()
    for kind in ("initContainers", "containers"):
        for at, container in enumerate(spec.get(kind) or ()):
            yield from _of_container(f"spec.{kind}[{at}]", container, volumes, names)
    for path in missing:
        if path[-1] not in {"containers", "image"}:
            yield _written(path), "Required", "Required value"
    told = spec.get("restartPolicy", "Always")
    if told not in _RESTARTS:
        allowed = ", ".join(f'"{one}"' for one in _RESTARTS)
        words = f'Unsupported value: "{told}": supported values: {allowed}'
        yield "spec.restartPolicy", "NotSupported", words


def _of_container(
    where: str, container: Object, volumes: set[str | None], names: set[str]
) -> Iterator[tuple[str, str, str]]:
    if not container.get("image"):
        yield f"{where}.image", "Required", "Required value"
    for at, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            words = f'Not found: "{mount.get("name")}"'
            yield f"{where}.volumeMounts[{at}].name", "NotFound", words
    name = container.get("name", "")
    yield from _named(f"{where}.name", name, _LABEL, 63)
    if name in names:
        yield f"{where}.name", "Duplicate", f'Duplicate value: "{name}"'
    names.add(name)
    told = container.get("resources") or {}
    for resource, asked in (told.get("requests") or {}).items():
        most = (told.get("limits") or {}).get(resource)
        if most is not None and number(asked) > number(most):
            words = f'Invalid value: "{asked}": must be less than or equal to {resource} limit of {most}'
            yield f"{where}.resources.requests", "Invalid", words


def _named(where: str, name: str, pattern: str, most: int) -> Iterator[tuple[str, str, str]]:
    if re.fullmatch(pattern, name) and len(name) <= most:
        return
    text = {
        _SUBDOMAIN: "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and "
        "must start and end with an alphanumeric character (e.g. 'example.com'",
        _LABEL: "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start "
        "and end with an alphanumeric character (e.g. 'my-name',  or '123-abc'",
    }[pattern]
    yield where, "Invalid", f'Invalid value: "{name}": {_regex_words(text, pattern)}'


def _regex_words(text: str, pattern: str) -> str:
    return f"{text}, regex used for validation is '{pattern}')"


# --- admission ---


@define
class Admission:
    """What a namespace has against pods; nothing, unless a test says so."""

    restricted: bool = False  # Pod Security
    most_memory: str | None = None  # of a container, by a LimitRange
    quota: dict[str, str] = field(factory=dict)  # hard
    used: Callable[[], dict[str, float]] = dict
    accounts: frozenset[str] | None = None  # None: all that are asked for
    priorities: frozenset[str] | None = None

    def admit(self, pod: Object, *, namespace: str) -> None:
        """Raise what forbids a pod, the first of them as a server asks them."""
        for words in self._against(pod, namespace):
            name = pod["metadata"]["name"]
            details = {"name": name, "kind": "pods"}
            raise Refusal(403, "Forbidden", f'pods "{name}" is forbidden: {words}', details)

    def _against(self, pod: Object, namespace: str) -> Iterator[str]:
        spec = pod["spec"]
        account = spec.get("serviceAccountName", "default")
        if self.accounts is not None and account not in self.accounts:
            yield f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
        priority = spec.get("priorityClassName")
        if self.priorities is not None and priority and priority not in self.priorities:
            yield f"no PriorityClass with name {priority} was found"
        for container in spec["containers"]:
            told = ((container.get("resources") or {}).get("limits") or {}).get("memory")
            if self.most_memory is not None and told is not None:
                if number(told) > number(self.most_memory):
                    yield f"maximum memory usage per Container is {self.most_memory}, but limit is {told}"
        if self.restricted:
            broken = [*_against_restricted(spec)]
            if broken:
                yield f'violates PodSecurity "restricted:latest": {", ".join(broken)}'
        yield from self._over_quota(spec)

    def _over_quota(self, spec: Object) -> Iterator[str]:
        used = self.used()
        for resource, hard in self.quota.items():
            if resource == "pods":
                asked, told = 1.0, "1"
            else:
                part, _, kind = resource.partition(".")
                lists = [((c.get("resources") or {}).get(part) or {}) for c in spec["containers"]]
                without = [
                    c["name"]
                    for c, told in zip(spec["containers"], lists, strict=True)
                    if kind not in told
                ]
                if without:
                    yield f"failed quota: agents: must specify {resource} for: {','.join(without)}"
                asked = sum(number(told.get(kind, 0)) for told in lists)
                told = str(lists[0].get(kind)) if len(lists) == 1 else f"{asked:g}"
            held = used.get(resource, 0.0)
            if held + asked > number(hard):
                yield (
                    f"exceeded quota: agents, requested: {resource}={told}, used: {resource}={held:g}, "
                    f"limited: {resource}={hard}"
                )


def _against_restricted(spec: Object) -> Iterator[str]:
    """Say what of the level ``restricted`` is broken, as its admission does."""
    everything = [*(spec.get("initContainers") or ()), *spec["containers"]]
    of_pod = spec.get("securityContext") or {}
    windows = (spec.get("os") or {}).get("name") == "windows"

    def failing(is_good: Callable[[Object], bool]) -> str:
        bad = [c["name"] for c in everything if not is_good(c.get("securityContext") or {})]
        what = "container" if len(bad) == 1 else "containers"
        return f"{what} {', '.join(json.dumps(name) for name in bad)}" if bad else ""

    if not windows:
        if bad := failing(lambda own: own.get("allowPrivilegeEscalation") is False):
            yield f"allowPrivilegeEscalation != false ({bad} must set securityContext.allowPrivilegeEscalation=false)"
        if bad := failing(
            lambda own: "ALL" in ((own.get("capabilities") or {}).get("drop") or ())
        ):
            yield f'unrestricted capabilities ({bad} must set securityContext.capabilities.drop=["ALL"])'
    both = {**of_pod}
    if bad := failing(lambda own: {**both, **own}.get("runAsNonRoot") is True):
        yield f"runAsNonRoot != true (pod or {bad} must set securityContext.runAsNonRoot=true)"
    if not windows and (bad := failing(lambda own: "seccompProfile" in {**both, **own})):
        words = 'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        yield f"seccompProfile (pod or {bad} must set {words})"


# --- helpers ---


def missing(document: Object) -> list[Path]:
    """Return the required fields that an object lacks."""
    return [path for kind, path, _ in _judged(document) if kind == "required"]


def number(quantity: Any) -> float:
    """Return a quantity as a number."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity))
    assert match, quantity
    return float(match[1]) * _UNITS.get(match[2], 1)


def _resources(document: Object) -> Iterator[tuple[str, Object]]:
    for container in (document.get("spec") or {}).get("containers") or ():
        for part in ("limits", "requests"):
            yield part, (container.get("resources") or {}).get(part) or {}


def _written(path: Path) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document
