"""What bodies for an engine are put together with: sections, users, digests. Pure."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def user(told: str | None) -> str | None:
    """Return whom to say: of a bare number the group, too, which may be root's otherwise."""
    return f"{told}:{told}" if told is not None and told.isdecimal() else told


def ids(told: str | None) -> tuple[int | None, int | None]:
    """Return uid and gid where they are numbers; the group of a bare number is the same number."""
    uid, _, gid = (told or "").partition(":")
    if not uid.isdecimal():
        return None, None
    return int(uid), int(gid) if gid.isdecimal() else int(uid)


def without_nothing(body: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that say something."""
    return {key: value for key, value in body.items() if value not in (None, [], {})}


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``over`` upon ``under``; sections are merged, everything else is replaced."""
    body = dict(under)
    for key, value in over.items():
        below = body.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        body[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return body


def section(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a section of a body; empty for none."""
    told = body.get(key)
    return told if isinstance(told, Mapping) else {}


def fingerprint(told: object) -> str:
    """Return 32 hexadecimal digits that tell two values apart."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
