"""The recordings of a real API server and kubelet."""

import json
import pathlib
from typing import Any

FOLDER = pathlib.Path(__file__).parents[1] / "recordings" / "kubernetes"


def load(name: str) -> dict[str, Any]:
    """Read one recording, by name or by how its name begins."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        (path,) = FOLDER.glob(f"{name}*.json")
    return json.loads(path.read_text())


def names(prefix: str) -> list[str]:
    """Return the names of the recordings that begin so."""
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.json"))


def events(name: str) -> list[tuple[float, str, dict[str, Any]]]:
    """Return the watch events of one pod's life: seconds, type, object."""
    return [
        (told["t"], told["event"]["type"], told["event"]["object"])
        for told in load(name)["watch"]["events"]
    ]
