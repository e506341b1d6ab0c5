"""A broker's account on a real cluster, with the documented rights and no other, and its faults.

The suite then shows that the rights of ``examples/kubernetes`` are enough, and what a missing one
looks like. Whoever runs it has to be allowed to make roles in the namespace.
"""

import asyncio
import contextlib
import copy
import pathlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import yaml

from backends.kubernetes import settings
from tests.contract import checks

_EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "kubernetes"
_ROLES = ("base", "trust")
_RIGHTS = {
    "launch": ("create", "pods", None),
    "list": ("list", "pods", None),
    "terminate": ("delete", "pods", None),
    "logs": ("get", "pods", "log"),
}
_WITHIN_S = 30.0


def documented_rules() -> list[dict[str, Any]]:
    """Return the rules of the examples' Roles, with that of files that agents share."""
    texts = [(_EXAMPLES / name / "rbac.yaml").read_text() for name in _ROLES]
    every = [d for text in texts for d in yaml.safe_load_all(text)]
    found = [d["rules"] for d in every if d["kind"] == "Role"]
    return [rule for rules in found for rule in rules]


class Account:
    """A service account with a Role of its own."""

    def __init__(self, api: Any, namespace: str, folder: pathlib.Path) -> None:
        from kubernetes import client

        self._core = client.CoreV1Api(api)
        self._roles = client.RbacAuthorizationV1Api(api)
        self._reviews = client.AuthorizationV1Api(api)
        self._server = api.configuration.host
        self._authority = api.configuration.ssl_ca_cert
        self._namespace = namespace
        self._token = folder / "token"
        self._name = f"contract-{uuid.uuid4().hex[:6]}"

    def settings(self) -> settings.KubernetesSettings:
        """Return what a broker with this account is told."""
        return settings.KubernetesSettings(
            server=self._server,
            namespace=self._namespace,
            token_file=str(self._token),
            ca_file=self._authority,
            start_patience_s=20,
        )

    async def open(self) -> None:
        """Create it, and wait until it has its rights."""
        named = {"metadata": {"name": self._name}}
        place = self._namespace
        await self._do(self._core.create_namespaced_service_account, place, named)
        role = {**named, "rules": documented_rules()}
        await self._do(self._roles.create_namespaced_role, place, role)
        who = {"kind": "ServiceAccount", "name": self._name, "namespace": place}
        what = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self._name}
        binding = {**named, "subjects": [who], "roleRef": what}
        await self._do(self._roles.create_namespaced_role_binding, place, binding)
        made = await self._do(
            self._core.create_namespaced_service_account_token,
            self._name,
            place,
            {"spec": {"expirationSeconds": 3600}},
        )
        self._token.write_text(f"{made.status.token}\n")
        self._token.chmod(0o600)
        await self._until_it_may(*_RIGHTS["launch"], allowed=True)

    async def aclose(self) -> None:
        """Remove it."""
        for remove in (
            self._roles.delete_namespaced_role_binding,
            self._roles.delete_namespaced_role,
            self._core.delete_namespaced_service_account,
        ):
            await self._do(remove, self._name, self._namespace)

    @contextlib.asynccontextmanager
    async def without_right(self, verb: str) -> AsyncIterator[None]:
        """Take away what a call of the contract needs."""
        right, kind, part = _RIGHTS[verb]
        rules = copy.deepcopy(documented_rules())
        for rule in rules:
            if (f"{kind}/{part}" if part else kind) in rule["resources"]:
                rule["verbs"].remove(right)
        await self._set_rules([rule for rule in rules if rule["verbs"]])
        await self._until_it_may(right, kind, part, allowed=False)
        try:
            yield
        finally:
            await self._set_rules(documented_rules())
            await self._until_it_may(right, kind, part, allowed=True)

    @contextlib.asynccontextmanager
    async def without_room(self) -> AsyncIterator[None]:
        """Give the namespace a quota of no pod."""
        quota = {"metadata": {"name": self._name}, "spec": {"hard": {"pods": "0"}}}
        await self._do(self._core.create_namespaced_resource_quota, self._namespace, quota)
        await checks.until("the quota counts", self._is_full, within_s=_WITHIN_S)
        try:
            yield
        finally:
            await self._do(
                self._core.delete_namespaced_resource_quota, self._name, self._namespace
            )

            async def has_room() -> bool:
                return not await self._is_full()

            await checks.until("the quota is gone", has_room, within_s=_WITHIN_S)

    async def _is_full(self) -> bool:
        from kubernetes.client import ApiException

        container = {"name": "c", "image": "busybox"}
        trial = {"metadata": {"generateName": "t-"}, "spec": {"containers": [container]}}
        try:
            await self._do(self._core.create_namespaced_pod, self._namespace, trial, dry_run="All")
        except ApiException as error:
            return "exceeded quota" in str(error.body)
        return False

    async def _set_rules(self, rules: list[dict[str, Any]]) -> None:
        role = {"metadata": {"name": self._name}, "rules": rules}
        await self._do(self._roles.replace_namespaced_role, self._name, self._namespace, role)

    async def _until_it_may(
        self, verb: str, kind: str, part: str | None, *, allowed: bool
    ) -> None:
        asked = {"namespace": self._namespace, "verb": verb, "resource": kind, "subresource": part}
        user = f"system:serviceaccount:{self._namespace}:{self._name}"
        review = {"spec": {"user": user, "resourceAttributes": asked}}

        async def as_wanted() -> bool:
            told = await self._do(self._reviews.create_subject_access_review, review)
            return bool(told.status.allowed) == allowed

        await checks.until("the rights are in force", as_wanted, within_s=_WITHIN_S)

    async def _do(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(call, *arguments, **named)
