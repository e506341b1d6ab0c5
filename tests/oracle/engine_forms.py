"""The types of the Engine's API, version by version, as moby publishes them; nothing in them is ours.

``engine/v*.json`` hold what the endpoints that we ask may answer, made of moby's Swagger documents (``api/docs``,
Apache License 2.0, the commit stands in each file): types, nullable fields, enums, and every field there is. Made
anew by ``python -m tests.oracle.engine_forms FOLDER_OF_YAML COMMIT``. Left out is what has no meaning to a validator;
of what an engine tells about itself the types are kept only of the fields that we read.
"""

import functools
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import yaml

RECORDED = "1.41"
"""What the engine of tests/recordings/docker spoke."""
VERSIONS = (RECORDED, "1.44", "1.52")
"""That, the oldest that engines of today still speak, and the newest that we ask for."""
_FOLDER = pathlib.Path(__file__).parent / "engine"
_ENDPOINTS = {
    "GET /version": 200,
    "GET /info": 200,
    "GET /containers/json": 200,
    "GET /containers/{id}/json": 200,
    "POST /containers/create": 201,
    "POST /containers/{id}/wait": 200,
    "GET /images/{name}/json": 200,
    "GET /distribution/{name}/json": 200,
    "GET /volumes": 200,
    "GET /networks/{id}": 200,
    "GET /events": 200,
}
CREATION = "a container that is to be created"
_REFUSAL, PROGRESS = "ErrorResponse", "CreateImageInfo"
_READ = {"ID", "Name", "DockerRootDir", "SecurityOptions"}  # of /info


def endpoint(method: str, path: str) -> str | None:
    """Return which of the endpoints of the definitions a request, or the end of its path, is for."""
    path = re.sub(r"^/v[0-9.]+(?=/)", "", path.partition("?")[0])
    for name in _ENDPOINTS:
        verb, _, pattern = name.partition(" ")
        if verb == method and re.fullmatch(re.sub(r"{\w+}", ".+", pattern), path):
            return name
    return None


def problems(name: str, document: object, *, version: str) -> list[str]:
    """Name everything in an answer of an endpoint that its definition does not allow, with its path.

    ``name``: an endpoint, PROGRESS, or CREATION for what is asked. A list, a map or a section may be null, which the definitions mostly do not
    say: Go writes what was never filled so.
    """
    errors = _judge(name, version).iter_errors(document)
    return sorted({line for error in errors for line in _told(error)})


GONE = {
    "HostConfig.KernelMemory": "1.42",
    "HostConfig.KernelMemoryTCP": "1.45",
    "KernelMemory": "1.42",
    **{f"NetworkSettings.{name}": "1.52" for name in (
        "Bridge", "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "HairpinMode",
        "IPAddress", "IPPrefixLen", "IPv6Gateway", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen",
        "MacAddress", "SecondaryIPAddresses", "SecondaryIPv6Addresses")},
    "from": "1.22", "id": "1.22", "status": "1.22",
}  # fmt: skip
"""What the recorded engine says and newer definitions no longer name, with the version that left it out."""
ONLY_IN_INFO = {"KernelMemory"}
UNDEFINED = {"HostConfig.MemorySwappiness: None is not of type 'integer'"}
"""What the recorded engine says against the definitions of its own version."""


def surprises(name: str, document: object, *, version: str) -> list[str]:
    """Name the same, without what the recorded engine says and all versions let stand."""
    return [
        problem
        for problem in problems(name, document, version=version)
        if problem not in UNDEFINED
        and not (problem.endswith(": no such field") and problem.partition(":")[0] in GONE)
    ]


def refusal_problems(document: object, *, version: str) -> list[str]:
    """Do the same for the body of an answer that is no success."""
    return problems(_REFUSAL, document, version=version)


def examples(version: str) -> Iterator[tuple[str, Any]]:
    """Yield the answers that the definitions themselves give as examples, with their endpoint."""
    yield from _read(version)["examples"].items()


def fields(name: str, *, version: str) -> frozenset[str]:
    """Return the path of every field of an answer, ``.State.Status`` or ``.Mounts[].Source``; of a list, its entries'."""
    told = _read(version)
    schema = told["endpoints"][name]
    return frozenset(_paths(schema.get("items", schema), "", told["$defs"], ()))


def _paths(
    schema: Any, place: str, defs: Mapping[str, Any], above: tuple[str, ...]
) -> Iterator[str]:
    if schema is True:
        return
    for inner in (schema, *schema.get("anyOf", ())):
        if "$ref" in inner:
            name = inner["$ref"].rpartition("/")[2]
            if name not in above:
                yield from _paths(defs[name], place, defs, (*above, name))
    if "items" in schema:
        yield from _paths(schema["items"], f"{place}[]", defs, above)
    for key, value in schema.get("properties", {}).items():
        yield f"{place}.{key}"
        yield from _paths(value, f"{place}.{key}", defs, above)


@functools.cache
def _read(version: str) -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads((_FOLDER / f"v{version}.json").read_text())
    return told


@functools.cache
def _judge(name: str, version: str) -> jsonschema.Draft202012Validator:
    told = _read(version)
    schema = told["endpoints"].get(name) or {"$ref": f"#/$defs/{name}"}
    return jsonschema.Draft202012Validator({**schema, "$defs": told["$defs"]})


def _told(error: jsonschema.ValidationError) -> Iterator[str]:
    steps = ["[]" if isinstance(step, int) else f".{step}" for step in error.absolute_path]
    where = "".join(steps).removeprefix(".")
    if error.validator == "additionalProperties" and error.validator_value is False:
        for name in sorted(set(error.instance) - set(error.schema["properties"])):
            yield f"{where}.{name}".removeprefix(".") + ": no such field"
    else:
        yield f"{where}: {error.message[-120:]}"


# --- making them -----------------------------------------------------------------------------------------------------


def _made(swagger: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the definitions that the endpoints need, as JSON Schema, and their examples."""
    needed: dict[str, Any] = {}
    endpoints, found = {}, {}
    for name, status in _ENDPOINTS.items():
        verb, _, path = name.partition(" ")
        answer = swagger["paths"][path][verb.lower()]["responses"]
        told = answer.get(status) or answer[str(status)]
        endpoints[name] = _schema(told["schema"], swagger, needed)
        if "application/json" in (shown := told.get("examples", {})):
            found[name] = shown["application/json"]
    create = swagger["paths"]["/containers/create"]["post"]["parameters"]
    (body,) = (one["schema"] for one in create if one["in"] == "body")
    endpoints[CREATION] = _schema(body, swagger, needed)
    for name in (_REFUSAL, PROGRESS):
        _schema({"$ref": f"#/definitions/{name}"}, swagger, needed)
    return {
        "source": source,
        "licence": "Apache-2.0",
        "endpoints": endpoints,
        "$defs": dict(sorted(needed.items())),
        "examples": json.loads(json.dumps(found, default=str)),
    }


def _schema(told: Mapping[str, Any], swagger: Mapping[str, Any], needed: dict[str, Any]) -> Any:
    if "$ref" in told:
        name = told["$ref"].rpartition("/")[2]
        if name not in needed:
            needed[name] = None  # it may need itself
            needed[name] = _schema(_pruned(name, swagger["definitions"][name]), swagger, needed)
        return {"$ref": f"#/$defs/{name}"}
    if "allOf" in told:
        whole: dict[str, Any] = {}
        if len(told["allOf"]) == 1 and "$ref" in told["allOf"][0]:
            inner = _schema(told["allOf"][0], swagger, needed)
            return {"anyOf": [inner, {"type": "null"}]} if told.get("x-nullable") else inner
        for part in told["allOf"]:
            part = (
                swagger["definitions"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
            )
            whole["properties"] = {**whole.get("properties", {}), **part.get("properties", {})}
        return _schema({"type": "object", **whole}, swagger, needed)
    kind = told.get("type", "object" if "properties" in told else None)
    made: dict[str, Any] = {key: told[key] for key in ("enum", "required") if key in told}
    if kind is None:
        return made or True
    nullable = kind in {"array", "object"} or told.get("x-nullable")
    made["type"] = [kind, "null"] if nullable else kind
    if nullable and "enum" in made:
        made["enum"] = [*made["enum"], None]
    if kind == "array":
        made["items"] = _schema(told["items"], swagger, needed)
    more = told.get("additionalProperties")
    if "properties" in told:
        made["properties"] = {
            key: value if value is True else _schema(value, swagger, needed)
            for key, value in told["properties"].items()
        }
        made["additionalProperties"] = False
    if isinstance(more, Mapping):
        made["additionalProperties"] = _schema(more, swagger, needed)
    return made


def _pruned(name: str, told: Mapping[str, Any]) -> Mapping[str, Any]:
    if name != "SystemInfo":
        return told
    kept = {key: value if key in _READ else True for key, value in told["properties"].items()}
    return {**told, "properties": kept}


def _make(folder: pathlib.Path, commit: str) -> None:
    for version in VERSIONS:
        swagger = yaml.safe_load((folder / f"v{version}.yaml").read_text())
        source = f"https://github.com/moby/moby api/docs/v{version}.yaml at {commit}"
        made = _made(swagger, source)
        (_FOLDER / f"v{version}.json").write_text(_written(made))


def _written(made: Mapping[str, Any]) -> str:
    """Write one definition a line."""
    lines = []
    for key, value in made.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{inner}\n}}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    _make(pathlib.Path(sys.argv[1]), sys.argv[2])
