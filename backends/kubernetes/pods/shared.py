"""Files of ours that agents share: a ConfigMap for each content, in the agents' namespace.

What is too much for the secret of each agent is kept once. Rules:

* Its name has the owner and the digest of what is in it, and it cannot be changed: whoever has the
  name has the files. Two owners never have the same one.
* It is there before the first pod that mounts it. That it exists already is as good, if it is ours
  and has these very files; one that somebody else made under the name is never mounted.
* One that no pod of ours mounts, that is older than an hour, and that no launch of an hour asked
  for is removed: a few at a look, and looks are seldom. Who has launched nothing of the kind does
  not look.
* Lists tell names and times alone, not the files. What goes wrong with looking never stands in the
  way of a listing.

A ConfigMap holds 1 MiB (kubernetes/kubernetes, pkg/apis/core/validation: ``MaxSecretSize``, the
sum of ``data`` and of ``binaryData`` as it is). Refuses to know what the files are.
"""

import asyncio
import base64
import datetime as dt
import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from attrs import frozen

from backends import api
from backends.kubernetes.api import errors, rights
from outside import counts, quotes, text, typed

VOLUME = "agent-broker-files"
FOLDER = "/run/agent-broker-files"
"""Where an agent's container has it; beside the secret, in whose volume nothing can be mounted."""
LARGEST = 1 << 20
"""Of all its files together, in bytes."""

_LOG = logging.getLogger("backends.kubernetes")
_UNUSED_S = 3600.0
_LOOK_S = 600.0  # between two looks for those that nobody needs
_KNOWN_S = 600.0  # for which one that was there is taken to be there yet
_AT_ONCE = 5  # that are removed at a look
_DIGEST = 32
_NAME = 253

Manifest = dict[str, Any]


class SharedSource(Protocol):
    """Who can be asked."""

    async def create_config_map(self, manifest: Mapping[str, Any]) -> None:
        """Create one. Raises AlreadyExists and the others."""

    async def find_config_map(self, name: str) -> Mapping[str, Any] | None:
        """Return one of any owner, with its files."""

    async def config_maps(self, selector: str) -> list[dict[str, Any]]:
        """Return what a selector finds, without the files."""

    async def delete_config_map(self, name: str, *, uid: str) -> None:
        """Delete this very one. Raises NotFound."""


def manifest(owner: str, labels: Mapping[str, str], files: Mapping[str, bytes]) -> Manifest:
    """Return the object; ``owner``: a label of DNS that is that owner's. Raises Rejected."""
    size = sum(map(len, files.values()))
    if size > LARGEST:
        raise api.Rejected(
            f"the files that agents share have {counts.told(size, 'byte')}; allowed: {LARGEST}, "
            "which a ConfigMap holds; hint: fewer authorities (trust.public, trust.public_file)"
        )
    texts = {name: one.decode("ascii") for name, one in files.items() if _is_text(one)}
    binary = {
        name: base64.b64encode(one).decode() for name, one in files.items() if name not in texts
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"agent-broker-{owner}-trust-{digest(files)}",
            "labels": dict(labels),
        },
        "immutable": True,
        **({"data": texts} if texts else {}),
        **({"binaryData": binary} if binary else {}),
    }


def digest(files: Mapping[str, bytes]) -> str:
    """Return what tells two sets of files apart."""
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(f"{len(name.encode())} {len(content)} {name}".encode())
        whole.update(content)
    return whole.hexdigest()[:_DIGEST]


def mount(body: Manifest, agent: Manifest, made: Manifest) -> None:
    """Show the files to the agent's container alone, to be read by all in it."""
    files = sorted({**made.get("data", {}), **made.get("binaryData", {})})
    source = {
        "name": made["metadata"]["name"],
        "items": [{"key": name, "path": name} for name in files],
        "defaultMode": 0o444,
    }
    others = [v for v in body.get("volumes", []) if v["name"] != VOLUME]
    body["volumes"] = [*others, {"name": VOLUME, "configMap": source}]
    mounts = [
        m
        for m in agent.get("volumeMounts", [])
        if m["mountPath"] != FOLDER and m.get("name") != VOLUME
    ]
    agent["volumeMounts"] = [*mounts, {"name": VOLUME, "mountPath": FOLDER, "readOnly": True}]


def shown(made: Manifest) -> Manifest:
    """Return an object as people see it: of its files the names."""
    kinds = ("data", "binaryData")
    return {
        **made,
        **{kind: dict.fromkeys(made[kind], "not shown") for kind in kinds & made.keys()},
    }


def _is_text(content: bytes) -> bool:
    return content.isascii() and re.search(rb"[^\t\n\r\x20-\x7e]", content) is None


class SharedFiles:
    """Makes those of one owner before they are needed, and removes those that no longer are."""

    def __init__(self, *, labels: Mapping[str, str], selector: str) -> None:
        self._labels = labels
        self._selector = selector
        self._there: dict[str, float] = {}  # by name, and since when that was known
        self._asked: dict[str, float] = {}  # by name, when a launch needed it last
        self._next_look = float("-inf")
        self._changing = asyncio.Lock()  # none is removed while a launch finds it there
        self._right = rights.OptionalRight("files that no agent needs any more are not removed")

    async def provide(self, source: SharedSource, made: Manifest, *, now: float) -> None:
        """See that an object is there; ``now`` in POSIX seconds.

        Raises Rejected where somebody else has the name, Unauthorized without the right (which
        concerns the template alone), and the others.
        """
        name = str(made["metadata"]["name"])
        async with self._changing:
            self._asked[name] = now
            if 0.0 <= now - self._there.get(name, float("-inf")) < _KNOWN_S:
                return
            try:
                try:
                    await source.create_config_map(made)
                except api.AlreadyExists:
                    await self._adopt(source, made)
            except errors.NoRight as error:
                error.reach = api.Reach.TEMPLATE  # who shares no files needs none
                raise
            self._there[name] = now

    async def _adopt(self, source: SharedSource, made: Manifest) -> None:
        """Take the object that has the name, if it is this very one."""
        name = made["metadata"]["name"]
        found = await source.find_config_map(name)
        if found is None or _part(found, "metadata").get("deletionTimestamp") is not None:
            raise api.Unavailable(
                f"ConfigMap {quotes.shown(name)} went away while it was looked at",
                reach=api.Reach.LAUNCH,
            )
        labels = _part(_part(found, "metadata"), "labels")
        ours = self._labels.items() <= labels.items()
        same = all((found.get(key) or {}) == made.get(key, {}) for key in ("data", "binaryData"))
        if not ours or not same or found.get("immutable") is not True:
            why = "has other files" if ours else "is not ours"
            raise api.Rejected(
                f"ConfigMap {quotes.shown(name)} exists and {why}; hint: remove it, or another "
                "`namespace`"
            )

    async def tidy(self, source: SharedSource, mounted: Collection[str], *, now: float) -> None:
        """Remove what nobody needs, if it is time for it; ``mounted``: the names in all our pods.

        Whoever has launched nothing with such files has nothing to look for.
        """
        if not self._asked or 0.0 < self._next_look - now <= _LOOK_S:
            return
        self._next_look = now + _LOOK_S
        async with self._changing:
            try:
                found = [
                    one for one in map(_seen, await source.config_maps(self._selector)) if one
                ]
                names = {one.name for one in found}
                self._there = {k: at for k, at in self._there.items() if k in names}
                for one in self._unneeded(found, mounted, now)[:_AT_ONCE]:
                    self._there.pop(one.name, None)
                    await source.delete_config_map(one.name, uid=one.uid)
                    _LOG.info("shared files are removed", extra={"config_map": one.name})
            except api.NotFound:
                pass  # somebody was faster
            except api.BackendError as error:
                self._right.lacks(error)

    def _unneeded(
        self, found: Iterable["_FoundMap"], mounted: Collection[str], now: float
    ) -> list["_FoundMap"]:
        return sorted(
            (
                one
                for one in found
                if one.name not in mounted
                and now - one.created_at > _UNUSED_S
                and now - self._asked.get(one.name, float("-inf")) > _UNUSED_S
            ),
            key=lambda one: (one.created_at, one.name),
        )


@frozen(kw_only=True)
class _FoundMap:
    """One as a list tells of it; ``created_at`` in POSIX seconds."""

    name: str
    uid: str
    created_at: float


def _seen(found: Mapping[str, Any]) -> _FoundMap | None:
    """Read one that may be ours to remove: named as we name them, and of a known age."""
    metadata = _part(found, "metadata")
    name, uid = (typed.words(metadata.get(key), _NAME) for key in ("name", "uid"))
    told = metadata.get("creationTimestamp")
    ours = re.fullmatch(rf"agent-broker-[-a-z0-9]+-trust-[0-9a-f]{{{_DIGEST}}}", name)
    if ours is None or not uid or not isinstance(told, str) or "deletionTimestamp" in metadata:
        return None
    try:
        created_at = dt.datetime.fromisoformat(told).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return _FoundMap(name=text.clean(name, _NAME), uid=uid, created_at=created_at)


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, Mapping) else {}
