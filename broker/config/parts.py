"""What a configuration says, setting by setting, as short digests: to tell two of them apart.

Of a setting that has its default nothing is kept, so that it makes no difference whether it is
written. Secrets are only referred to in what is digested. Pure. Refuses to know what a difference
means.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from broker.config import reading, shape
from broker.config.settings import BackendSettings

_ONE = frozenset({"environment"})  # one part: names of variables are nobody's business
_DEEPEST = 4  # steps of a path: templates.NAME.kubernetes.pod
_LENGTH = 8
_STANDS_AS = {"max_starting": "starting"}  # of the limits of a backend


def digests(
    document: shape.Document,
    sections: Mapping[str, Mapping[str, Any]],
    backends: Mapping[Any, BackendSettings],
    others: Mapping[str, Any],
) -> dict[str, str]:
    """Return the settings that are not at their defaults, by their path, each with a digest.

    ``sections``: of each template what belongs to a kind; ``others``: what stands at the top and
    is not part of the document.
    """
    found = dict(_leaves(attrs.evolve(document, backends={}, defaults={}), ()))
    for name, section in sections.items():
        found |= dict(_leaves(section, ("templates", name)))
    for name, entry in backends.items():
        where = ("backends", str(name))
        found[".".join((*where, "kind"))] = _digest(entry.kind)
        found |= dict(_leaves(entry.settings, where))
        found |= dict(_leaves(entry.limits, where))
    for key, value in others.items():
        found |= dict(_leaves(value, (key,)))
    return found


def _leaves(
    value: Any, path: tuple[str, ...], default: Any = attrs.NOTHING
) -> Iterator[tuple[str, str]]:
    if attrs.has(type(value)) and len(path) < _DEEPEST:
        same = type(default) is type(value)
        for attribute in attrs.fields(type(value)):
            part = getattr(value, attribute.name)
            usual = getattr(default, attribute.name) if same else _default(attribute)
            if part != usual:
                key = _STANDS_AS.get(attribute.name) or reading.key_of(attribute)
                yield from _leaves(part, (*path, key), usual)
    elif isinstance(value, Mapping) and len(path) < _DEEPEST and path[-1] not in _ONE:
        for key, part in value.items():
            yield from _leaves(part, (*path, str(key)))
    else:
        yield ".".join(path), _digest(value)


def _default(attribute: "attrs.Attribute[Any]") -> Any:
    default: Any = attribute.default
    return default.factory() if hasattr(default, "takes_self") else default


def _digest(value: Any) -> str:
    text = json.dumps(_plain(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, the same in every process."""
    if attrs.has(type(value)):
        return {a.name: _plain(getattr(value, a.name)) for a in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, frozenset | set):
        return sorted(str(part) for part in value)
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)
