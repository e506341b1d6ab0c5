"""What the published schemas say of a pod's fields, release by release, as one table.

``python -m tests.oracle.known_fields`` writes it for ``backends/kubernetes/pods/acceptance.py``.
"""

import json
from collections.abc import Mapping
from typing import Any

from backends.kubernetes.pods import fields as pod_fields
from tests.oracle import schemas

_POD = "io.k8s.api.core.v1.Pod"
_NAMED = {"Quantity": "quantity", "IntOrString": "port", "Time": "text"}
NOT_OURS = {"managedFields", "status"}


def table() -> dict[str, Any]:
    """Return the fields of any release by type, and what all that know a type require in it."""
    fields: dict[str, dict[str, str]] = {}
    required: dict[str, set[str]] = {}
    for release in schemas.releases():
        definitions = schemas.definitions(release)
        left, seen = [_POD], set[str]()
        while left:
            full = left.pop()
            section = definitions.get(full, {})
            if full in seen or "properties" not in section:
                continue
            seen.add(full)
            name = full.rpartition(".")[2]
            told = set(section.get("required", ()))
            required[name] = required.get(name, told) & told
            known = fields.setdefault(name, {})
            for key, value in section["properties"].items():
                inner = "" if key in NOT_OURS else schemas.type_of(value)
                left.append(inner)
                form = "" if key in NOT_OURS else form_of(value, definitions)
                known[key] = form or known.get(key, "")  # as the newest has it
    return {
        "fields": {name: dict(sorted(fields[name].items())) for name in sorted(fields)},
        "required": {name: sorted(required[name]) for name in sorted(required)},
    }


def form_of(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Return the form of a field in a word of ``backends.kit.misfits``."""
    if "$ref" in value:
        full = str(value["$ref"]).rpartition("/")[2]
        name = full.rpartition(".")[2]
        return _NAMED.get(name, name if "properties" in definitions[full] else "")
    match value["type"] if isinstance(value["type"], str) else value["type"][0]:
        case "array":
            return f"[{form_of(value['items'], definitions)}]"
        case "object":
            return f"{{{form_of(value['additionalProperties'], definitions)}}}"
        case "integer":
            return "number32" if value.get("format") == "int32" else "number"
        case other:
            return {"string": "text", "boolean": "truth"}[other]


def text() -> str:
    """Return the table as its file has it: a line for each type."""
    parts = []
    for key, types in table().items():
        lines = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(told)}" for name, told in types.items()
        )
        parts.append(f"  {json.dumps(key)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    pod_fields.FILE.write_text(text())
