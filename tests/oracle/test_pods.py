"""Every field of a pod with values of every form: what the published schemas refuse is refused here too.

And nothing that they allow is, but for what an API server asks beyond them (a quantity's spelling).
"""

import functools
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema

from backends.kit import remarks
from backends.kubernetes import settings
from backends.kubernetes.pods import fields
from tests.oracle import known_fields, schemas

POD_SPEC = "io.k8s.api.core.v1.PodSpec"
VALUES: tuple[Any, ...] = (
    "x", "1", "true", 7, 1.5, True, [], ["x"], [7], [True], [{}], [["x"]], {}, {"x": "y"}, {"x": 7}, {"x": ["y"]}, {"x": {}},
)  # fmt: skip
NAMES = {"name": "n", "image": "i"}


def refs(value: Any) -> str:
    return schemas.type_of(value)


def minimal(full: str, release: str) -> dict[str, Any]:
    """Return the least section of a type: what it requires."""
    section = schemas.definitions(release)[full]
    least = {
        key: sample(section["properties"][key], key, release)
        for key in section.get("required", ())
    }
    return {**least, "image": "i"} if full.endswith(".Container") else least


def sample(schema: Any, key: str, release: str) -> Any:
    if "$ref" in schema:
        full = refs(schema)
        has_fields = "properties" in schemas.definitions(release)[full]
        return minimal(full, release) if has_fields else 1
    kind = schema["type"] if isinstance(schema["type"], str) else schema["type"][0]
    match kind:
        case "array":
            return [sample(schema["items"], key, release)]
        case "integer":
            return 1
        case "boolean":
            return True
        case _:
            return NAMES.get(key, "x")


Path = tuple[str | int, ...]


def types(release: str) -> Iterator[tuple[str, dict[str, Any], Path]]:
    """Yield each type below a pod's spec with a pod that has a section of it, and the way there."""
    seen = set()
    left: list[tuple[str, tuple[tuple[str, Any, bool], ...]]] = [(POD_SPEC, ())]
    while left:
        full, steps = left.pop(0)
        section = schemas.definitions(release).get(full, {})
        if full in seen or "properties" not in section:
            continue
        seen.add(full)
        yield full, *pod_with(steps, full, release)
        for key, schema in section["properties"].items():
            if (inner := refs(schema)) and key not in known_fields.NOT_OURS:
                left.append((inner, (*steps, (key, full, "items" in schema))))


def pod_with(
    steps: tuple[tuple[str, Any, bool], ...], full: str, release: str
) -> tuple[dict[str, Any], Path]:
    inner: Any = minimal(full, release)
    path: Path = ()
    for key, owner, is_list in reversed(steps):
        inner = {**minimal(owner, release), key: [inner] if is_list else inner}
        path = (key, 0, *path) if is_list else (key, *path)
    inner.pop("containers", None) if not path or path[0] != "containers" else None
    return {"spec": inner}, ("spec", *path)


@functools.cache
def judge(full: str, release: str) -> jsonschema.Draft202012Validator:
    resource = referencing.Resource(
        contents={"$defs": schemas.definitions(release)},
        specification=referencing.jsonschema.DRAFT202012,
    )
    registry: Any = referencing.Registry().with_resource("d", resource)
    return jsonschema.Draft202012Validator({"$ref": f"d#/$defs/{full}"}, registry=registry)


def written(value: Any, path: Path) -> dict[Path, str]:
    """Return how the plain values stand in a file, as its reader has it."""
    if isinstance(value, dict):
        return {k: v for key, one in value.items() for k, v in written(one, (*path, key)).items()}
    if isinstance(value, list):
        return {k: v for at, one in enumerate(value) for k, v in written(one, (*path, at)).items()}
    return {} if isinstance(value, str) else {path: str(value)}


def said(pod: dict[str, Any]) -> list[remarks.Remark]:
    """Return what is told of a pod, once it is read as it is meant: unknown fields are warned of."""
    meant, mended = fields.KINDS.mended(pod, written(pod, ()), ())
    told = settings.KubernetesTemplate(pod=meant).remarks(
        remarks.Common(settings=settings.KubernetesSettings())
    )
    return [*told, *mended]


def with_value(pod: Any, path: Path, value: Any) -> Any:
    if not path:
        return value
    if isinstance(pod, list):
        return [with_value(pod[0], path[1:], value), *pod[1:]]
    return {**pod, path[0]: with_value(pod.get(path[0]), path[1:], value)}


@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("release", schemas.sampled(-1))
def test_what_the_schemas_refuse_is_refused_or_mended(release: str, share: int) -> None:
    """And what they allow has the form that is asked for; each field with some values, or all."""
    missed, overdone, asked, number = [], [], 0, 0
    for full, pod, path in types(release):
        section = functools.reduce(lambda inner, step: inner[step], path, pod)
        properties = schemas.definitions(release)[full]["properties"]
        for key in sorted(properties.keys() - known_fields.NOT_OURS):
            number += 1
            for value in VALUES[number % share :: share]:
                asked += 1
                changed = {**minimal(full, release), **section, key: value}
                allowed = judge(full, release).is_valid(changed)
                told = said(with_value(pod, (*path, key), value))
                at = f"{full.rpartition('.')[2]}.{key}: {value!r}"
                if not allowed and not told:
                    missed.append(at)
                if allowed and is_of_form(told):
                    overdone.append((at, [r.text for r in told]))
    assert asked > 5000 / share
    assert [] == missed
    assert [] == overdone


def test_the_judge_refuses() -> None:
    """A list where a section belongs, and the like."""
    assert not judge(POD_SPEC, schemas.LAB).is_valid({"containers": [], "affinity": ["a"]})


FORMS = ("a text", "a whole number", "true or false", "a section", "a list of")


def is_of_form(told: list[remarks.Remark]) -> bool:
    """Return whether a value was refused for its form, not for what it says."""
    return any(r.text.partition("; allowed: ")[2].startswith(FORMS) for r in told)
