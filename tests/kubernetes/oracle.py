"""The official package's generated models as a second pair of eyes: strict about every type.

They know the fields of their own release only and drop others without a word; what comes back is
therefore compared with what went in.
"""

from typing import Any

from kubernetes import client

_SERIALIZER = client.ApiClient()


def model(document: dict[str, Any]) -> Any:
    """Return the model class of a document's kind, ``V1Pod`` and the like."""
    version = document["apiVersion"].rpartition("/")[2]
    return getattr(client, f"{version[0].upper()}{version[1:]}{document['kind']}")


def read_back(document: dict[str, Any]) -> Any:
    """Return a document as the generated client would send it; raises for a wrong type."""
    return _SERIALIZER.sanitize_for_serialization(model(document).from_dict(document))


def unknown(document: Any, again: Any, where: str = "") -> list[str]:
    """Name what the models do not know, or read as something else."""
    if isinstance(document, dict) and isinstance(again, dict):
        return [
            text
            for key, value in document.items()
            for text in unknown(value, again.get(key), f"{where}.{key}")
        ]
    if isinstance(document, list) and isinstance(again, list) and len(document) == len(again):
        return [
            text
            for number, (one, other) in enumerate(zip(document, again, strict=True))
            for text in unknown(one, other, f"{where}[{number}]")
        ]
    return [] if document == again else [f"{where}: {document!r} is read as {again!r}"]


def problems(document: dict[str, Any]) -> list[str]:
    """Name everything in a document that is not as the models want it."""
    return unknown(document, read_back(document))
