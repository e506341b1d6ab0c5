"""Plain pod YAML laid over plain pod YAML: what overrides, what is joined, what is removed.

Pure; plain dictionaries in, new ones out. Refuses to know which fields a pod may have: only the
lists of ``_POD`` are special, everything else goes through, today's fields and tomorrow's.

Rules, the first that fits (docs/backends/kubernetes.md tells them to users):

* a section over a section: key by key;
* ``null`` removes what is below;
* a list that is named in ``_POD`` over another: entry by entry, matched by the key given there
  (containers by ``name``, mounts by ``mountPath``); entries keep the lower order, new ones follow.
  An entry with ``$patch: delete`` removes its match;
* entries of ``env`` and ``volumes`` are replaced, not merged: a variable has one value and a
  volume one source;
* ``tolerations`` are joined, equal ones once;
* a path that tells entries apart is written in one way, without a slash at its end: the API server
  takes two spellings of one place for two, and a runtime lays the one over the other;
* anything else replaces what is below.

Promised and tested: laying the same thing over twice changes nothing; with neither removals nor a
field that changes its kind, ``(a, b), c`` is ``a, (b, c)``, so that a fragment may itself be made
of fragments; the layers are never changed.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from backends.kit import workspaces
from outside import quotes

Layer = Mapping[str, Any]
Path = tuple[str | int, ...]

_PATCH = "$patch"


class MergeError(ValueError):
    """A layer cannot be merged: where in it (``path``) and why (``reason``)."""

    def __init__(self, path: Path, text: str) -> None:
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        super().__init__(f"pod{where}: {text}"[:256])
        self.path = path
        self.reason = text[:256]


@frozen(kw_only=True)
class _Fields:
    """A section, with those of its fields that are special."""

    fields: Mapping[str, "_Rule"]


@frozen(kw_only=True)
class _Keyed:
    """A list of sections that are told apart by some of their fields (None: has that default)."""

    keys: Mapping[str, Any]
    places: bool = False  # what tells them apart is an absolute path
    whole: bool = False  # entries are replaced, not merged
    entry: _Fields = field(factory=lambda: _Fields(fields={}))


@frozen(kw_only=True)
class _Union:
    """A list whose entries are joined, equal ones once."""


_Rule = _Fields | _Keyed | _Union

_MISSING = object()
_BY_NAME = {"name": _MISSING}
_SECTION = _Fields(fields={})
_CONTAINER = _Fields(
    fields={
        "securityContext": _Fields(fields={"capabilities": _SECTION}),
        "env": _Keyed(keys=_BY_NAME, whole=True),
        "volumeMounts": _Keyed(keys={"mountPath": _MISSING}, places=True),
        "volumeDevices": _Keyed(keys={"devicePath": _MISSING}, places=True),
        "ports": _Keyed(keys={"containerPort": _MISSING, "protocol": "TCP"}),
    }
)
_CONTAINERS = _Keyed(keys=_BY_NAME, entry=_CONTAINER)
_POD = _Fields(
    fields={
        "metadata": _Fields(fields={"labels": _SECTION, "annotations": _SECTION}),
        "spec": _Fields(
            fields={
                "securityContext": _SECTION,
                "containers": _CONTAINERS,
                "initContainers": _CONTAINERS,
                "volumes": _Keyed(keys=_BY_NAME, whole=True),
                "imagePullSecrets": _Keyed(keys=_BY_NAME),
                "hostAliases": _Keyed(keys={"ip": _MISSING}),
                "resourceClaims": _Keyed(keys=_BY_NAME),
                "schedulingGates": _Keyed(keys=_BY_NAME),
                "readinessGates": _Keyed(keys={"conditionType": _MISSING}),
                "topologySpreadConstraints": _Keyed(
                    keys={"topologyKey": _MISSING, "whenUnsatisfiable": "DoNotSchedule"}
                ),
                "tolerations": _Union(),
            }
        ),
    }
)


def check(layer: Layer) -> None:
    """Raise MergeError for a layer that cannot be merged with any other."""
    merge({}, layer)


def merge(under: Layer, over: Layer) -> dict[str, Any]:
    """Lay one pod over another; removals are kept for what may come below. Raises MergeError."""
    return _section(under, over, _POD, ())


def finish(pod: Layer) -> dict[str, Any]:
    """Return a merged pod without the marks of removals."""
    cleaned: dict[str, Any] = _without_marks(pod)
    return cleaned


def _section(under: Layer, over: Layer, rule: _Fields, where: Path) -> dict[str, Any]:
    merged = {key: copy.deepcopy(value) for key, value in under.items() if key != _PATCH}
    for key, value in over.items():
        if not isinstance(key, str):
            raise MergeError(where, f"the key {str(key)[:80]} is not a text; hint: quote it")
        place = (*where, key)
        if key == _PATCH and value != "delete":
            raise MergeError(place, f"{_kind(value)} is not known; allowed: delete")
        merged[key] = _value(merged.get(key), value, rule.fields.get(key), place)
    return merged


def _value(under: Any, over: Any, rule: _Rule | None, where: Path) -> Any:
    match rule:
        case _Keyed() if over is not None:
            return _keyed(_entries(under, where), _entries(over, where), rule, where)
        case _Union() if over is not None:
            joined = copy.deepcopy(_entries(under, where))
            joined += _copied(_entries(over, where), where)
            return [entry for at, entry in enumerate(joined) if entry not in joined[:at]]
        case _Fields() if over is not None and not isinstance(over, Mapping):
            raise MergeError(where, f"{_kind(over)} stands where a section belongs")
    if isinstance(over, Mapping):
        below = under if isinstance(under, Mapping) and not _deleted(over) else {}
        inner = rule if isinstance(rule, _Fields) else _SECTION
        return _section(below, over, inner, where)
    return _copied(over, where)


def _copied(value: Any, where: Path) -> Any:
    """Return a copy of what YAML made, if JSON can say it."""
    if isinstance(value, Mapping):
        return _section({}, value, _SECTION, where)
    if isinstance(value, list | tuple):
        return [_copied(part, (*where, number)) for number, part in enumerate(value)]
    if value is None or isinstance(value, str | int | float):
        return value
    raise MergeError(where, f"{value!s:.40} is read as a {type(value).__name__}; hint: quote it")


def _entries(value: Any, where: Path) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise MergeError(where, f"{_kind(value)} stands where a list belongs")
    for number, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise MergeError((*where, number), f"{_kind(entry)} stands where a section belongs")
    return list(value)


def _keyed(
    under: list[Layer], over: list[Layer], rule: _Keyed, where: Path
) -> list[dict[str, Any]]:
    merged = {key: copy.deepcopy(dict(entry)) for key, entry in _index(under, rule, where).items()}
    for at, (key, entry) in enumerate(_index(over, rule, where).items()):
        below = merged.get(key, {})
        if rule.whole or _deleted(entry):
            below = {}
        merged[key] = _section(below, entry, rule.entry, (*where, at))
    return list(merged.values())


def _index(entries: list[Layer], rule: _Keyed, where: Path) -> dict[tuple[Any, ...], Layer]:
    index: dict[tuple[Any, ...], Layer] = {}
    for number, told in enumerate(entries):
        entry = _placed(told, rule) if rule.places else told
        key = tuple(entry.get(name, default) for name, default in rule.keys.items())
        missing = [n for n, part in zip(rule.keys, key, strict=True) if part in (_MISSING, None)]
        if missing:
            raise MergeError((*where, number), f"has no {quotes.shown(missing[0])}")
        if not all(isinstance(part, str | int) for part in key):
            raise MergeError((*where, number), f"{' and '.join(rule.keys)} must be plain")
        if key in index:
            raise MergeError(where, f"{', '.join(map(str, key))} is there twice")
        index[key] = entry
    return index


def _placed(entry: Layer, rule: _Keyed) -> Layer:
    """Return an entry with its place in the one way of being written."""
    paths = {name: entry[name] for name in rule.keys if isinstance(entry.get(name), str)}
    return {**entry, **{name: workspaces.plain(path) for name, path in paths.items()}}


def _without_marks(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            k: _without_marks(v) for k, v in value.items() if v is not None and not _deleted(v)
        }
    if isinstance(value, list | tuple):
        return [_without_marks(entry) for entry in value if not _deleted(entry)]
    return value


def _deleted(value: Any) -> bool:
    return isinstance(value, Mapping) and value.get(_PATCH) == "delete"


def _kind(value: Any) -> str:
    words = {dict: "a section", list: "a list", str: "a text", bool: "a truth value"}
    words |= {type(None): "nothing", int: "a number", float: "a number"}
    return words.get(type(value), "a date")
