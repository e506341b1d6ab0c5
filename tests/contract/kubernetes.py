"""The contract suite on the Kubernetes backend: over the fake API server, or a real cluster.

``--live kubernetes=KUBECONFIG`` uses the namespace of the current context, with an account of its
own for the backend (``kubernetes_rights``); the official package's generated client is then the
second pair of eyes. Images: busybox.
"""

import asyncio
import contextlib
import json
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import attrs

from backends import api
from backends.kit import names
from backends.kubernetes import backend, settings
from backends.kubernetes.pods import pod
from tests.contract import harness, kubernetes_rights
from tests.kubernetes import fake

_IMAGE = "busybox:1.36"
_BAD_IMAGE = "registry.invalid/nope/agent:1"
_MANAGED = "=".join(fake.MANAGED)
_NO_READING = "only the kubelet reads secrets: the broker has no right to read one back"


def spec_of(name: str, program: harness.Program, **changes: object) -> api.InstanceSpec:
    options = settings.KubernetesTemplate(
        run_as_user=65534,
        run_as_group=65534,
        fs_group=65534,
        pod={"spec": {"terminationGracePeriodSeconds": 2}},
        image_pull_policy="IfNotPresent",
    )
    spec = api.InstanceSpec(
        name=name,
        metadata={names.OWNER: "ours"},
        image=_IMAGE,
        argv=program.argv(),
        options=options,
    )
    return attrs.evolve(spec, **changes)


def publishing_of(spec: api.InstanceSpec, port: int = 30_080) -> api.InstanceSpec:
    """A cluster chooses no port: one is named."""
    ports = [{"containerPort": 8080, "hostPort": port}]
    spec_part = {**spec.options.pod["spec"], "containers": [{"name": "jnlp", "ports": ports}]}
    return attrs.evolve(spec, options=attrs.evolve(spec.options, pod={"spec": spec_part}))


def broken_of(flaw: str, name: str) -> api.InstanceSpec:
    if flaw == "bad-image":
        return spec_of(name, harness.FOR_EVER, image=_BAD_IMAGE)
    return spec_of(name, harness.FOR_EVER, argv=("/nonexistent/program",))


class FakeHarness:
    kind = "kubernetes"
    within_s = 5.0
    burst = 100
    lacks: Mapping[str, str] = {
        "shell": "the fake kubelet runs nothing",
        "blank-secrets": _NO_READING,
    }

    def __init__(self, cluster: fake.Cluster) -> None:
        self._cluster = cluster
        self._planted: dict[str, Any] = {}
        self._settings = settings.KubernetesSettings(
            namespace=cluster.namespace, server=cluster.url, page_size=7, start_patience_s=0.2
        )

    def backend(self, *, owner: str = "ours") -> api.Backend:
        return backend.KubernetesBackend(self._settings, owner=owner, now=time.time)

    def spec(
        self, name: str, program: harness.Program = harness.FOR_EVER, **changes: object
    ) -> api.InstanceSpec:
        told = fake.Program(lines=program.lines, exit_code=program.exit_code)
        self._cluster.programs[pod.pod_name(name)] = told
        return spec_of(name, program, **changes)

    def command(self, program: harness.Program) -> Sequence[str]:
        return program.argv()

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        return publishing_of(self.spec(name), *fixed)

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        return broken_of(flaw, name)

    async def plant(self, name: str) -> None:
        manifest = {"metadata": {"name": pod.pod_name(name)}, "spec": {"containers": []}}
        manifest["status"] = {"phase": "Running"}
        manifest["metadata"] |= {"uid": "planted", "generation": 1, "labels": {"app": "theirs"}}
        self._cluster.put(manifest, "ADDED")
        self._planted[name] = json.dumps(manifest, sort_keys=True)

    async def intact(self, name: str) -> bool:
        found = self._cluster.pods.get(pod.pod_name(name))
        return found is not None and self._planted[name] == json.dumps(found, sort_keys=True)

    def _ours(self) -> list[dict[str, Any]]:
        key, value = fake.MANAGED
        return [
            p
            for p in self._cluster.pods.values()
            if p["metadata"].get("labels", {}).get(key) == value
        ]

    async def running(self) -> Sequence[str]:
        return [
            p["metadata"]["annotations"][pod.NAME]
            for p in self._ours()
            if p["status"]["phase"] == "Running"
        ]

    async def remains(self) -> Sequence[str]:
        return [f"pod {p['metadata']['name']}" for p in self._ours()] + [
            f"secret {name}" for name in self._cluster.secrets
        ]

    async def exposed(self, name: str) -> str:
        return json.dumps(self._cluster.pods[pod.pod_name(name)])

    async def kill(self, name: str) -> None:
        self._cluster.kill(pod.pod_name(name))

    @contextlib.asynccontextmanager
    async def provoke(self, verb: str, slug: str) -> AsyncIterator[None]:
        before, self._cluster.short_pages = list(self._cluster.faults), True
        for request, answer, when in _FAULTS[verb, slug]:
            self._cluster.fail(request, answer, times=1000, when=when)
        yield
        self._cluster.faults[:], self._cluster.short_pages = before, False


def _always(_: object) -> bool:
    return True


def _later_page(request: Any) -> bool:
    return "continue" in request.query


_Fault = tuple[str, str, Callable[[Any], bool]]
_FAULTS: Mapping[tuple[str, str], list[_Fault]] = {
    ("launch", "no-capacity"): [("create", "error-403-quota-pods", _always)],
    ("launch", "unauthorized"): [("create", "error-403-rbac-create", _always)],
    ("launch", "unavailable"): [("create", "error-500-webhook-down", _always)],
    ("list", "unauthorized"): [("list", "error-403-rbac-list", _always)],
    ("list", "unavailable"): [("list", "error-429-flowcontrol-list", _always)],
    ("list-part", "unavailable"): [("list", "error-410-list-continue", _later_page)],
    ("terminate", "unauthorized"): [("delete", "error-403-rbac-delete", _always)],
    ("terminate", "unavailable"): [("delete", "error-429-flowcontrol-create", _always)],
    ("run", "unauthorized"): [("get pods/exec", "error-403-rbac-log", _always)],
    ("run", "unavailable"): [("get pods/exec", "error-500-webhook-timeout", _always)],
    ("logs", "unauthorized"): [("get pods/log", "error-403-rbac-log", _always)],
    ("logs", "unavailable"): [("get pods/log", "error-500-webhook-timeout", _always)],
}


class LiveHarness:
    """A real cluster; what the suite looks at is asked with the official package."""

    kind = "kubernetes"
    within_s = 90.0
    burst = 20
    lacks: Mapping[str, str] = {
        "blank-secrets": _NO_READING,
        **{
            f"{verb} {slug}": "a real API server does not fail on request"
            for verb, slug in _FAULTS
            if slug == "unavailable"
        },
    }

    def __init__(self, kubeconfig: str, folder: pathlib.Path) -> None:
        from kubernetes import client, config

        config.load_kube_config(config_file=kubeconfig)
        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)
        assert contexts
        self._namespace = active["context"].get("namespace", "default")
        self._api = client.ApiClient()
        self._core = client.CoreV1Api(self._api)
        self._planted: list[str] = []
        self._account = kubernetes_rights.Account(self._api, self._namespace, folder)

    async def open(self) -> None:
        await self._account.open()

    def backend(self, *, owner: str = "ours") -> api.Backend:
        return backend.KubernetesBackend(self._account.settings(), owner=owner, now=time.time)

    def spec(
        self, name: str, program: harness.Program = harness.FOR_EVER, **changes: object
    ) -> api.InstanceSpec:
        return spec_of(name, program, **changes)

    def command(self, program: harness.Program) -> Sequence[str]:
        return program.argv()

    def publishing(self, name: str, *fixed: int) -> api.InstanceSpec:
        return publishing_of(self.spec(name), *fixed)

    def broken(self, flaw: str, name: str) -> api.InstanceSpec:
        return broken_of(flaw, name)

    async def plant(self, name: str) -> None:
        container = {"name": "c", "image": _IMAGE, "command": ["sleep", "600"]}
        manifest = {"metadata": {"name": pod.pod_name(name)}, "spec": {"containers": [container]}}
        await asyncio.to_thread(self._core.create_namespaced_pod, self._namespace, manifest)
        self._planted.append(pod.pod_name(name))

    async def aclose(self) -> None:
        """Take away what is nobody's, and let go of the connections."""
        for name in self._planted:
            await asyncio.to_thread(
                self._core.delete_namespaced_pod, name, self._namespace, grace_period_seconds=0
            )
        await asyncio.to_thread(  # a broker leaves those for the next agents
            self._core.delete_collection_namespaced_config_map,
            self._namespace,
            label_selector=_MANAGED,
        )
        await self._account.aclose()
        self._api.rest_client.pool_manager.clear()

    async def intact(self, name: str) -> bool:
        found = await asyncio.to_thread(
            self._core.read_namespaced_pod, pod.pod_name(name), self._namespace
        )
        return found.metadata.deletion_timestamp is None

    async def _ours(self) -> list[Any]:
        found = await asyncio.to_thread(
            self._core.list_namespaced_pod, self._namespace, label_selector=_MANAGED
        )
        return list(found.items)

    async def running(self) -> Sequence[str]:
        return [
            p.metadata.annotations[pod.NAME]
            for p in await self._ours()
            if p.status.phase == "Running" and p.metadata.deletion_timestamp is None
        ]

    async def remains(self) -> Sequence[str]:
        secrets = await asyncio.to_thread(
            self._core.list_namespaced_secret, self._namespace, label_selector=_MANAGED
        )
        return [f"pod {p.metadata.name}" for p in await self._ours()] + [
            f"secret {s.metadata.name}" for s in secrets.items
        ]

    async def exposed(self, name: str) -> str:
        found = await asyncio.to_thread(
            self._core.read_namespaced_pod, pod.pod_name(name), self._namespace
        )
        return json.dumps(self._api.sanitize_for_serialization(found))

    async def kill(self, name: str) -> None:
        from kubernetes import stream

        def run() -> None:
            opened = stream.stream(
                self._core.connect_get_namespaced_pod_exec,
                pod.pod_name(name),
                self._namespace,
                container="jnlp",
                command=["sh", "-c", "kill -9 -1"],
                stderr=True,
                stdout=True,
                _preload_content=False,
            )
            with contextlib.closing(opened.sock.sock):  # closing `opened` would leave it
                opened.run_forever(timeout=self.within_s)

        await asyncio.to_thread(run)

    def provoke(self, verb: str, slug: str) -> contextlib.AbstractAsyncContextManager[None]:
        if slug == "no-capacity":
            return self._account.without_room()
        return self._account.without_right(verb)


@contextlib.asynccontextmanager
async def open_harness(
    folder: pathlib.Path, address: str | None
) -> AsyncIterator[harness.Harness]:
    if address is not None:
        live = LiveHarness(address, folder)
        await live.open()
        try:
            yield live
        finally:
            await live.aclose()
        return
    async with fake.Cluster().serving() as cluster:
        yield FakeHarness(cluster)
