"""A ``Lease`` of ``coordination.k8s.io/v1`` as the record that several brokers agree on.

Get, create and update of one object by name; nothing is listed or watched, so a Role on that one
name is enough (RBAC cannot limit ``create`` to a name). What others have put into the object
(labels, annotations, fields of later releases) is kept. Refuses to conclude anything from it.
"""

import asyncio
import copy
import re
from typing import Any

import attrs

from backends import api, lease
from backends.kubernetes import settings
from backends.kubernetes.api import access, client, errors
from backends.kubernetes.pods import states
from outside import typed

_VERSION = re.compile(r"[\w.:-]{1,128}")
_LONGEST_S = 86_400  # whoever asks for more has made a mistake


def create(configured: settings.ClusterSettings, *, name: str) -> "KubernetesLease":
    """Build the adapter; nothing is touched before the first call."""
    return KubernetesLease(configured, name=name)


class KubernetesLease:
    """``backends.lease.Lease`` in one namespace of one cluster."""

    def __init__(self, configured: settings.ClusterSettings, *, name: str) -> None:
        told = {
            a.name: getattr(configured, a.name) for a in attrs.fields(settings.ClusterSettings)
        }
        self._settings = settings.KubernetesSettings(**told)
        self._name = name
        self._client: client.ApiServer | None = None
        self._closed = False

    @property
    def where(self) -> str:
        """The lease, in words for people."""
        known = self._client.namespace if self._client is not None else self._settings.namespace
        return f"lease {known}/{self._name}" if known else f"lease {self._name}"

    async def read(self) -> lease.SeenRecord | None:
        """Return the lease as it is now."""
        with errors.contract():
            asked = await self._open()
            try:
                return _seen(await asked.get_lease(self._name))
            except api.NotFound:
                return None

    async def write(
        self, record: lease.Record, *, over: lease.SeenRecord | None
    ) -> lease.SeenRecord | None:
        """Create the lease, or replace the version that was seen."""
        with errors.contract():
            asked = await self._open()
            manifest = self._manifest(record, asked.namespace, over)
            try:
                if over is None:
                    return _seen(await asked.create_lease(manifest))
                return _seen(await asked.update_lease(self._name, manifest))
            except (api.AlreadyExists, api.NotFound, errors.Outdated):
                return None

    async def aclose(self) -> None:
        """Let go of the connections."""
        self._closed = True
        if self._client is not None:
            await self._client.aclose()

    def _manifest(
        self, record: lease.Record, namespace: str, over: lease.SeenRecord | None
    ) -> dict[str, Any]:
        manifest: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": namespace},
            "spec": {},
        }
        if over is not None:
            manifest = copy.deepcopy(over.raw)
            manifest["metadata"]["resourceVersion"] = over.version
        # null: left out, as the server wants it for what is empty
        manifest["spec"] = (manifest.get("spec") or {}) | {
            "holderIdentity": record.holder or None,
            "leaseDurationSeconds": record.lease_s or None,
            "acquireTime": record.acquired or None,
            "renewTime": record.renewed or None,
            "leaseTransitions": record.transitions,
        }
        return manifest

    async def _open(self) -> client.ApiServer:
        if self._closed:
            raise api.Unavailable("the lease is closed")
        if self._client is None:
            found = await self._access()
            self._client = client.ApiServer(self._settings, found, again=self._access)
        return self._client

    async def _access(self) -> access.Access:
        clock = asyncio.get_running_loop().time
        return await access.find(self._settings, clock=clock)


def _seen(raw: client.Object) -> lease.SeenRecord:
    """Read an answer, tolerating a spec that somebody else has written."""
    metadata, spec = states.part(raw, "metadata"), raw.get("spec") or {}
    version = metadata.get("resourceVersion")
    if (
        raw.get("kind") != "Lease"
        or not isinstance(version, str)
        or not _VERSION.fullmatch(version)
        or not isinstance(spec, dict)
        or _is_deep(raw)
    ):
        raise errors.OddAnswer("the answer is not a lease")
    record = lease.Record(
        holder=states.words(spec, "holderIdentity"),
        lease_s=_number(spec.get("leaseDurationSeconds"), _LONGEST_S),
        acquired=states.word(spec, "acquireTime"),
        renewed=states.word(spec, "renewTime"),
        transitions=_number(spec.get("leaseTransitions"), 1 << 31),
    )
    uid = typed.words(metadata.get("uid"), 128)
    return lease.SeenRecord(record=record, version=version, uid=uid, raw=raw)


def _number(told: object, most: int) -> int:
    return typed.integer(told, 0, most) or 0


def _is_deep(value: object, levels: int = 16) -> bool:
    """Tell whether something is nested too deeply to be an object of Kubernetes."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deep(one, levels - 1) for one in inner)
