"""The schemas of Kubernetes' own API, release by release, as the package kubernetes-validate has them.

Its authors make them from the OpenAPI documents that Kubernetes publishes; nothing in them is ours. They know types,
required fields and every field there is (strict), and neither names nor what fields say to each other.
"""

import functools
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import referencing
import referencing.jsonschema

LAB = "1.36"
"""The release whose answers are in tests/recordings/kubernetes."""
_FOLDER = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


def releases() -> list[str]:
    """Return all that there are schemas of, the oldest first."""
    found = (re.match(r"v1\.(\d+)\.\d+-local-strict$", path.name) for path in _FOLDER.iterdir())
    return [f"1.{minor}" for minor in sorted(int(match[1]) for match in found if match)]


def sampled(first: int = 0) -> list[Any]:
    """Return releases as parameters of a test: the oldest and the newest, the others for the soak."""
    told = releases()[first:]
    return [
        release
        if release in {told[0], told[-1]}
        else pytest.param(release, marks=pytest.mark.soak)
        for release in told
    ]


def problems(document: Mapping[str, Any], *, release: str = LAB) -> list[str]:
    """Name everything in a document that the schema of its kind does not allow, with its path."""
    return sorted(text for error in errors(document, release=release) for text in _told(error))


def errors(
    document: Mapping[str, Any], *, release: str = LAB
) -> Iterator[jsonschema.ValidationError]:
    """Yield the same as the validator has them."""
    judge = _judge(document["apiVersion"], document["kind"], release)
    yield from judge.iter_errors(document)


def type_of(value: Mapping[str, Any]) -> str:
    """Return the type of a field, or of the entries of a list; empty for what has none."""
    for inner in (value, value.get("items", {}), *value.get("oneOf", ()), *value.get("anyOf", ())):
        if "$ref" in inner:
            return str(inner["$ref"]).rpartition("/")[2]
    return ""


@functools.cache
def definitions(release: str) -> Mapping[str, Any]:
    """Return the schemas of all types by their full name."""
    told: Mapping[str, Any] = json.loads((_folder(release) / "_definitions.json").read_text())
    return told["$defs"]


def _folder(release: str) -> pathlib.Path:
    return _FOLDER / f"v{release}.0-local-strict"


@functools.cache
def _judge(api_version: str, kind: str, release: str) -> jsonschema.Draft202012Validator:
    group, _, version = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)
    schema = json.loads((_folder(release) / f"{name}.json").read_text())
    resource = referencing.Resource.from_contents(
        json.loads((_folder(release) / "_definitions.json").read_text()),
        default_specification=referencing.jsonschema.DRAFT202012,
    )
    registry: Any = referencing.Registry().with_resource("_definitions.json", resource)
    return jsonschema.Draft202012Validator(schema, registry=registry.crawl())


def _told(error: jsonschema.ValidationError) -> Iterator[str]:
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.path)
    yield f"{where.removeprefix('.')}: {error.message[:200]}"
