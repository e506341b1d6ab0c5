"""What the published schemas say of a pod's fields, release by release, as one table.

``python -m tests.oracle.known_fields`` writes it for ``backends/kubernetes/pods/acceptance.py``.
"""

import json
import pathlib
from typing import Any

from backends.kubernetes.pods import acceptance
from tests.oracle import schemas

_POD = "io.k8s.api.core.v1.Pod"
_NOT_OURS = {"managedFields", "status"}


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
                inner = "" if key in _NOT_OURS else schemas.type_of(value)
                if "properties" not in definitions.get(inner, {}):
                    inner = ""
                left.append(inner)
                known[key] = known.get(key) or inner.rpartition(".")[2]
    return {
        "fields": {name: dict(sorted(fields[name].items())) for name in sorted(fields)},
        "required": {name: sorted(required[name]) for name in sorted(required)},
    }


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
    pathlib.Path(acceptance._FILE).write_text(text())
