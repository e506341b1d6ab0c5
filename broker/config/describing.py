"""The settings described: JSON Schema for editors, a table for the manual.

All made from the classes of ``shape`` and of the kinds, so that nothing is written twice. Refuses
to check a configuration: the loader does that, and better.
"""

import typing
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from backends.kit import setting
from broker.config import honouring, reading, shape
from broker.config.settings import KindClasses

_DURATION = r"^(\d+(\.\d+)?d)?(\d+(\.\d+)?h)?(\d+(\.\d+)?m)?(\d+(\.\d+)?s)?(\d+ms)?$"
_SIZE = r"^\d+(\.\d+)?([KMGT]i?)?B?$"
_OF_TEMPLATES = "templates.NAME."
_NAMED = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"

_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    shape.SecretRef: {"type": "string", "pattern": r"^(file|env):\S"},
    shape.TimeOfDay: {"type": ["string", "integer"]},
    shape.Days: {"type": "string"},
    shape.Injected: {"anyOf": [{"const": True}, {"type": "string"}]},
    shape.Cap: {"anyOf": [{"type": "integer"}, {"enum": [shape.UNLIMITED]}]},
    shape.Amount: {"type": ["string", "number"]},
    shape.Argv: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    shape.Labels: {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
}


def schema(kinds: Mapping[str, KindClasses]) -> dict[str, Any]:
    """Return a JSON Schema (2020-12) of the whole file."""
    document = _object(shape.Document)
    template = _object(shape.Template)
    for name, kind in kinds.items():
        template["properties"][name] = _object(kind.template_settings)
    document["properties"]["templates"]["additionalProperties"] = template
    document["properties"]["templates"]["propertyNames"] = {"pattern": _NAMED}
    document["properties"]["defaults"] = {**template, "required": []}
    document["properties"]["backends"] = {
        "type": "object",
        "propertyNames": {"pattern": _NAMED},
        "additionalProperties": {"oneOf": [_backend(n, k) for n, k in sorted(kinds.items())]},
        "description": document["properties"]["backends"]["description"],
    }
    shared = _object(shape.HighAvailability)
    for kind in kinds.values():
        if kind.lease is not None:
            shared["properties"] |= _object(kind.lease)["properties"]
    text = document["properties"]["high_availability"]["description"]
    document["properties"]["high_availability"] = {
        "anyOf": [shared, {"type": "null"}],
        "description": text,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of the Jenkins Agent Broker",
        **document,
    }


def _backend(name: str, kind: KindClasses) -> dict[str, Any]:
    common, own = _object(shape.Backend), _object(kind.settings)
    common["properties"] |= own["properties"] | {"kind": {"const": name}}
    return common


def _object(cls: type[Any]) -> dict[str, Any]:
    fields = attrs.fields(cls)
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {reading.key_of(a): _field(a) for a in fields},
        "required": [reading.key_of(a) for a in fields if a.default is attrs.NOTHING],
    }


def _field(attribute: "attrs.Attribute[Any]") -> dict[str, Any]:
    kind, optional = reading.optional_of(attribute.type)
    if attribute.name.endswith("_s") and kind is float:
        described: dict[str, Any] = {"type": "string", "pattern": _DURATION}
    elif attribute.name.endswith("_bytes") and kind is int:
        described = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": _SIZE}]}
    elif "choices" in attribute.metadata:
        described = {"enum": list(attribute.metadata["choices"])}
    else:
        described = _type(kind)
    described = _limited(described, setting.schema_of(attribute))
    words = [w for w in (attribute.metadata.get("word"),) if w is not None]
    if words or optional:
        more = [{"enum": [*words, *([False] if "off" in words else [])]}] if words else []
        described = {"anyOf": [described, *more, *([{"type": "null"}] if optional else [])]}
    text = described_text(attribute)
    return {**described, "description": text} if text else described


def described_text(attribute: "attrs.Attribute[Any]") -> str:
    """Return what a setting is, and what its value may be."""
    text: str = attribute.metadata.get("doc", "")
    allowed = setting.allowed(attribute)
    return f"{text} Allowed: {allowed}." if allowed else text


def _limited(described: dict[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a value with its limits: of a list or a choice, those of its parts."""
    if described.get("type") == "array":
        return {**described, "items": _limited(described["items"], limits)}
    if "anyOf" in described:
        return {"anyOf": [_limited(one, limits) for one in described["anyOf"]]}
    numbers = described.get("type") in ("integer", "number")
    fits = {key: value for key, value in limits.items() if numbers != (key == "pattern")}
    return {**described, **fits} if "type" in described else described


def _type(kind: Any) -> dict[str, Any]:
    if attrs.has(kind):
        return _object(kind)
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return {"enum": list(args)}
    if origin is tuple:
        return {"type": "array", "items": _type(args[0])}
    if origin is dict:
        inner = {} if args[1] is Any else {"additionalProperties": _type(args[1])}
        return {"type": "object", **inner}
    return {}


def reference(kinds: Mapping[str, KindClasses]) -> str:
    """Return the table of ``docs/configuration.md``, in Markdown."""
    lines = ["| setting | default | backends | what it is |", "|---|---|---|---|"]
    lines += [
        f"| `{path}` | {default} | {_backends(kinds, path)} | {text} |"
        for path, default, text in (
            *_rows(shape.Document, ""),
            *_rows(shape.Backend, "backends.NAME."),
            *_rows(shape.Template, _OF_TEMPLATES),
        )
    ]
    return "\n".join(lines) + "\n"


def _backends(kinds: Mapping[str, KindClasses], path: str) -> str:
    """Return who honours a setting; empty for what is none of a template."""
    if not path.startswith(_OF_TEMPLATES):
        return ""
    return honouring.backends(kinds, path.removeprefix(_OF_TEMPLATES))


def _rows(cls: type[Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for attribute in attrs.fields(cls):
        path = f"{prefix}{reading.key_of(attribute)}"
        kind, _ = reading.optional_of(attribute.type)
        if attrs.has(kind):
            yield from _rows(kind, f"{path}.")
            continue
        if typing.get_origin(kind) is tuple and attrs.has(typing.get_args(kind)[0]):
            yield from _rows(typing.get_args(kind)[0], f"{path}[].")
            continue
        yield path, default_text(attribute), described_text(attribute)
        inner = typing.get_args(kind)[1:] if typing.get_origin(kind) is dict else ()
        if cls is not shape.Document and any(map(attrs.has, inner)):
            yield from _rows(inner[0], f"{path}.NAME.")


def default_text(attribute: "attrs.Attribute[Any]") -> str:
    """Return the default as it is written in the file; empty for none."""
    default = attribute.default
    if default is attrs.NOTHING:
        return "**required**"
    if default in (None, ()) or isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
        return ""
    if attribute.name.endswith("_s"):
        return f"`{setting.duration(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
