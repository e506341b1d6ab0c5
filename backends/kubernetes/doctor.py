"""What may stand between this configuration and a pod, looked at from outside.

Rights are asked for by SelfSubjectAccessReview, which every account may do and which changes
nothing; pods are tried by a dry run, which passes everything that a real creation would, but is
not stored. What a broker needs no right to look at (quotas, secrets) is looked at where it may.
The official package's generated client is asked the same once more, as an opinion that shares
none of our code; it is imported here only. Refuses to be needed by a broker at work.
"""

import asyncio
import http
import importlib
import pathlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from attrs import frozen

from backends import api
from backends.kit import finding
from backends.kubernetes import settings
from backends.kubernetes.api import access, client, decoding, errors
from backends.kubernetes.pods import pod, states
from outside import counts, paths, text, waits

_SKEW_S = 10.0
_NEARLY = 0.9
_LIMIT_S = 30.0
_STRANGER_BYTES = 64 << 20
_ROWS = 20
_ROLE = "the rights in docs/backends/kubernetes.md"
_TRUST_ROLE = "examples/kubernetes/trust/rbac.yaml; or public: false, where builds need no others"


@frozen(kw_only=True)
class Right:
    """One right; ``why``: the feature that needs it, empty for what every agent needs."""

    verb: str
    resource: str
    why: str = ""
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


RIGHTS = (
    *(Right(verb=verb, resource="pods") for verb in ("create", "list", "watch", "delete")),
    *(Right(verb=verb, resource="secrets") for verb in ("create", "delete")),
    Right(verb="get", resource="pods/log", why="the last words of dead agents"),
    Right(verb="list", resource="events", why="why a pod does not start"),
    Right(verb="patch", resource="pods", why="node autoscalers that may take idle agents away"),
    Right(verb="list", resource="pods", group="metrics.k8s.io", why="what agents use"),
)
EXEC = tuple(Right(verb=v, resource="pods/exec", why="in-container") for v in ("create", "get"))
"""Only where `in_container` is set."""
SHARED = (
    # what is there already has to be looked at before it is mounted
    *(Right(verb=verb, resource="configmaps") for verb in ("create", "list")),
    Right(verb="delete", resource="configmaps", why="files that no agent needs any more"),
)
"""Only where a template has files that agents share."""


async def examine(
    configured: settings.KubernetesSettings,
    *,
    owner: str,
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],
) -> AsyncIterator[finding.Finding]:
    """Yield what is found; ``orders`` by template, as they would be given to ``launch``."""
    try:
        reached = await access.find(configured, clock=asyncio.get_running_loop().time)
        asked = client.ApiServer(configured, reached)
    except api.BackendError as error:
        yield _failed("access", error)
        return
    try:
        version = await asked.ask("get", "/version")
        number = states.word(version, "gitVersion") or "of no version"
        yield finding.ok("version", text.clean(f"{reached.server} is Kubernetes {number}"))
        for one in await _doors(configured, reached):
            yield one
        yield await _namespace(asked)
        rights = RIGHTS if configured.in_container is None else (*RIGHTS, *EXEC)
        async for one in _rights(asked, rights):
            yield one
        yield await _quotas(asked)
        yield await _nodes(asked)
        if configured.usage == "kubelet":
            yield await _kubelets(asked)
        for template, order in orders.items():
            check, served = f"template {template}", pod.serving(configured, authority=None)
            try:
                manifests = pod.make(
                    order,
                    owner=owner,
                    fragments=configured.pods,
                    served=served,
                    runtimes=configured.runtimes,
                )
            except api.Rejected as error:
                yield _failed(check, error)
                continue
            if manifests.shared is not None:
                yield await _shared(asked, check)
            async for one in _template(asked, check, manifests, now):
                yield one
        yield await _second_opinion(configured, reached, owner, asked)
    except api.BackendError as error:
        yield _failed("access", error)
    finally:
        await asked.aclose()


def _failed(check: str, error: api.BackendError) -> finding.Finding:
    return finding.fail(check, error.reason, finding.whose(error.fault))


async def _doors(
    configured: settings.KubernetesSettings, reached: access.Access
) -> list[finding.Finding]:
    """Say what others could listen to or read on the way to the cluster."""
    doors: list[finding.Finding] = []
    check = "open door"
    if settings.in_the_clear(reached.server) and await reached.tokens.get() is not None:
        words = "the token and every agent's secret travel in the clear"
        doors.append(finding.warn(check, f"{reached.server} is not https: {words}", "https"))
    if reached.tls is not None and reached.tls.verify_mode is ssl.CERT_NONE:
        words = "whoever stands in between gets the token and every agent's secret"
        doors.append(
            finding.warn(
                check,
                f"the API server's certificate is not verified: {words}",
                "certificate-authority in the kubeconfig, not insecure-skip-tls-verify",
            )
        )
    named = (configured.kubeconfig, configured.token_file)
    doors += [
        finding.warn(check, f"every user of this machine may read {name}", "chmod 600, or 0440")
        for name in named
        if name is not None and settings.is_open(name)
    ]
    return doors


async def _namespace(asked: client.ApiServer) -> finding.Finding:
    check = "namespace"
    try:
        namespace = await asked.ask("get", f"/api/v1/namespaces/{asked.namespace}")
    except errors.NoRight:
        return finding.ok(
            check,
            f"{asked.namespace} cannot be read (it is not permitted), but rights inside it exist",
        )
    except api.BackendError as error:
        return finding.fail(check, error.reason)
    if states.part(namespace, "status").get("phase") == "Terminating":
        return finding.fail(check, f"{asked.namespace} is being deleted", "another `namespace`")
    return finding.ok(check, f"{asked.namespace} exists")


async def _rights(
    asked: client.ApiServer, rights: Iterable[Right]
) -> AsyncIterator[finding.Finding]:
    missing = [right for right in rights if not await _may(asked, right)]
    needed = [str(right) for right in missing if not right.why]
    where = f"in namespace {asked.namespace}"
    if needed:
        yield finding.fail("rights", f"missing {where}: {', '.join(needed)}", _ROLE)
    else:
        yield finding.ok("rights", f"all that agents need {where}")
    for right in missing:
        if right.why:
            yield finding.warn("rights", f"missing {where}: {right}; for {right.why}", _ROLE)


async def _kubelets(asked: client.ApiServer) -> finding.Finding:
    """Say whether kubelets may be asked, which takes a right of the whole cluster."""
    right = Right(verb="get", resource="nodes/proxy")
    if await _may(asked, right, everywhere=True):
        words = "may be asked what agents use, and with it run commands in every pod"
        return finding.ok("kubelets", words)
    return finding.warn(
        "kubelets",
        f"missing in the cluster: {right}; for what agents use (usage: kubelet)",
        "examples/kubernetes/kubelets/rbac.yaml, or usage: metrics-server",
    )


async def _shared(asked: client.ApiServer, check: str) -> finding.Finding:
    """Say whether the files that a template's agents share may be brought."""
    missing = [right for right in SHARED if not await _may(asked, right)]
    where = f"in namespace {asked.namespace}"
    if not missing:
        return finding.ok(check, f"the files that its agents share may be brought {where}")
    words = f"missing {where}: {', '.join(map(str, missing))}; for `trust`"
    if any(not right.why for right in missing):
        return finding.fail(check, f"{words}: its agents cannot start", _TRUST_ROLE)
    return finding.warn(check, f"{words}: what no agent needs any more stays", _TRUST_ROLE)


async def _may(asked: client.ApiServer, right: Right, *, everywhere: bool = False) -> bool:
    resource, _, sub = right.resource.partition("/")
    attributes = {"verb": right.verb, "resource": resource}
    if not everywhere:
        attributes["namespace"] = asked.namespace
    if sub:
        attributes["subresource"] = sub
    if right.group:
        attributes["group"] = right.group
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    told = await asked.ask("create", path, body=review)
    status = told.get("status")
    if not isinstance(status, Mapping) or not isinstance(status.get("allowed"), bool):
        raise errors.OddAnswer("the answer is not a SelfSubjectAccessReview")
    return bool(status["allowed"])


async def _quotas(asked: client.ApiServer) -> finding.Finding:
    check = "quota"
    try:
        quotas = await asked.ask("get", f"/api/v1/namespaces/{asked.namespace}/resourcequotas")
    except errors.NoRight:
        return finding.ok(
            check, "cannot be read (it is not permitted); a full one is reported when it is met"
        )
    except api.BackendError as error:
        return finding.warn(check, error.reason)
    rows, full = [], False
    for quota in states.entries(quotas, "items"):
        status, name = (
            states.part(quota, "status"),
            states.word(states.part(quota, "metadata"), "name"),
        )
        hard, used = states.part(status, "hard"), states.part(status, "used")
        for resource in sorted(map(str, hard))[:_ROWS]:
            limit, has = states.word(hard, resource), states.word(used, resource)
            rows.append(f"{name}: {resource} {has or 'nothing'}/{limit}")
            full = full or _share(has, limit) >= _NEARLY
    words = text.clean("; ".join(rows[:_ROWS])) or "none"
    if full:
        return finding.warn(check, words, "more of it, or fewer agents by `cap`")
    return finding.ok(check, words)


async def _nodes(asked: client.ApiServer) -> finding.Finding:
    """Say whether ends of nodes are known before their pods are told.

    Whoever may not read them is answered 403 of any node, else none of this name is there.
    """
    check = "nodes"
    try:
        await asked.node("agent-broker-doctor")
    except errors.NoRight:
        words = "cannot be read (it is not permitted); their ends are known when pods are evicted"
        return finding.ok(check, words)
    except api.NotFound:
        pass
    except api.BackendError as error:
        return finding.warn(check, error.reason)
    return finding.ok(check, "can be read: their ends are known before their pods are evicted")


def _share(used: object, limit: object) -> float:
    """Return how much of a plain number is used; quantities with units are left to people."""
    try:
        return float(str(used)) / float(str(limit))
    except (ValueError, ZeroDivisionError, OverflowError):
        return 0.0


# --- one template ------------------------------------------------------------------------------


async def _template(
    asked: client.ApiServer, check: str, made: pod.Manifests, now: Callable[[], float]
) -> AsyncIterator[finding.Finding]:
    try:
        would = await asked.create_pod(made.pod, dry_run=True)
    except api.NoCapacity as error:
        yield finding.warn(check, error.reason, "agents wait until there is room")
        return
    except api.BackendError as error:
        yield _failed(check, error)
        return
    yield finding.ok(check, "the API server would take a pod of it")
    created = states.see(would).instance.created_at
    ahead = now() - created if created is not None else 0.0
    if abs(ahead) > _SKEW_S:
        way = "ahead of" if ahead > 0 else "behind"
        yield finding.warn(
            "clock", f"ours is {abs(ahead):.0f} s {way} the API server's", "keep both by NTP"
        )
    for secret in states.entries(states.part(would, "spec"), "imagePullSecrets"):
        missing = await _pull_secret(asked, check, states.word(secret, "name"))
        if missing is not None:
            yield missing


async def _pull_secret(asked: client.ApiServer, check: str, name: str) -> finding.Finding | None:
    """Look for a secret to pull images with, where we may: a broker needs no right to read any."""
    try:
        path = f"/api/v1/namespaces/{asked.namespace}/secrets/{urllib.parse.quote(name, safe='')}"
        await asked.ask("get", path)
    except api.NotFound:
        return finding.fail(check, f"its image pull secret {name} is not there", "create it")
    except api.BackendError:
        return None
    return None


# --- the second opinion ------------------------------------------------------------------------


async def _second_opinion(
    configured: settings.KubernetesSettings,
    reached: access.Access,
    owner: str,
    asked: client.ApiServer,
) -> finding.Finding:
    """Ask with the generated client what we asked ourselves."""
    check = "second opinion"
    try:
        package = importlib.import_module("kubernetes")
    except ImportError:
        return finding.warn(
            check,
            "the official package is not installed",
            "pip install kubernetes",
        )
    # ours first: what it refuses to read need not be read by somebody who knows no limits
    ours: set[str] = set()
    async for page in asked.list_pods(pod.selector(owner)):
        ours |= {states.word(states.part(_section(one), "metadata"), "name") for one in page.pods}
    token = await reached.tokens.get()
    try:
        async with waits.timeout(_LIMIT_S):
            theirs = await asyncio.to_thread(
                _ask_stranger, package, configured, reached, token, pod.selector(owner)
            )
    except Exception as error:  # noqa: BLE001 -- it passes on whatever its HTTP library raises
        words = text.clean(str(getattr(error, "reason", "")) or type(error).__name__, 200)
        return finding.warn(check, f"the official client: {words}", "a proxy in between?")
    if ours != theirs:
        differ = text.clean(", ".join(sorted(ours ^ theirs)[:5]))
        return finding.warn(
            check,
            f"the official client sees {counts.told(len(theirs), 'pod')} of ours, we "
            f"{len(ours)}: {differ}",
            "are agents starting or ending right now? then run it again",
        )
    return finding.ok(
        check, f"the official client agrees: {counts.told(len(ours), 'pod')} of ours"
    )


def _ask_stranger(
    package: Any,
    configured: settings.KubernetesSettings,
    reached: access.Access,
    token: str | None,
    selector: str,
) -> set[str]:
    """Runs in a thread: that client waits."""
    configuration = package.client.Configuration()
    if configured.kubeconfig is not None or configured.context is not None:
        package.config.load_kube_config(
            config_file=configured.kubeconfig,
            context=configured.context,
            client_configuration=configuration,
            persist_config=False,
        )
    else:
        authority = (
            pathlib.Path(configured.ca_file) if configured.ca_file else access.ACCOUNT / "ca.crt"
        )
        configuration.host = reached.server
        configuration.ssl_ca_cert = None if paths.is_missing(authority) else str(authority)
        if token is not None:  # where its releases of today and before look for it
            bearer = f"Bearer {token}"
            configuration.api_key = {"BearerToken": bearer, "authorization": bearer}
    with package.client.ApiClient(configuration) as session:
        answer = package.client.CoreV1Api(session).list_namespaced_pod(
            reached.namespace,
            label_selector=selector,
            _request_timeout=_LIMIT_S,
            _preload_content=False,
        )
        if answer.status != http.HTTPStatus.OK:
            raise OSError(f"status {answer.status}")
        raw = answer.read(_STRANGER_BYTES + 1)
        if len(raw) > _STRANGER_BYTES:
            raise ValueError(f"an answer of more than {_STRANGER_BYTES} bytes")
        listed = decoding.loads(raw)
    items = listed["items"]
    return {states.word(states.part(_section(one), "metadata"), "name") for one in items}


def _section(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
