"""An API server with a scheduler and a kubelet, on loopback, that behaves as the recordings.

Refusals are the recorded bodies with the names replaced. ``test_fake.py`` replays recorded requests
and compares what a watch tells. Faults are scripted per verb; times are short.
"""

import asyncio
import base64
import contextlib
import copy
import datetime as dt
import itertools
import json
import re
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import multidict
from aiohttp import web
from attrs import define, field

from tests.kubernetes import admission, kubelet, machine, recorded
from tests.oracle import schemas

Object = dict[str, Any]

_DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_LEASE = "agent-broker-ours"
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_STEP_S = 0.01
_GC_S = 0.05
_TIME = "2026-11-24T00:00:00Z"
MANAGED = ("app.kubernetes.io/managed-by", "agent-broker")


@define
class Program:
    """What a container does."""

    lines: tuple[str, ...] = ()
    exit_code: int | None = None
    obeys: bool = True  # SIGTERM


@define
class Fault:
    """What happens to the next requests of a verb: a recorded answer, or something wilder."""

    verb: str
    answer: str | None = None  # name of a recording
    hang: bool = False
    after: bool = False  # only once it was done: the answer is lost
    reset: bool = False
    times: int = 1
    when: Callable[[web.Request], bool] = lambda request: True
    body: bytes | None = None  # with status 200


@define(eq=False)
class Watch:
    queue: asyncio.Queue[Object | None] = field(factory=asyncio.Queue)
    selector: dict[str, str] = field(factory=dict)
    seen: set[str] = field(factory=set)


@define(eq=False)
class Cluster:
    """One namespace ``agents`` of a cluster."""

    namespace: str = "agents"
    token: str | None = None
    programs: dict[str, Program] = field(factory=dict)  # by pod name
    inits: dict[str, Object] = field(factory=dict)  # how an init container ends, by its name
    runner: machine.Machine | None = None  # runs pods for real
    runs: bool = True  # a kubelet is there
    collects: bool = True  # the garbage collector works
    ends: bool = True  # it reports the end of pods
    bookmark_s: float = 60.0
    namespaces_readable: bool = False
    pods: dict[str, Object] = field(factory=dict)
    manifests: dict[str, Object] = field(factory=dict)  # as they were sent, by name
    secrets: dict[str, Object] = field(factory=dict)
    config_maps: dict[str, Object] = field(factory=dict)
    leases: dict[str, Object] = field(factory=dict)
    logs: dict[tuple[str, str], list[str]] = field(factory=dict)
    events: list[Object] = field(factory=list)  # core Events
    quotas: list[Object] | None = None  # None: they may not be listed
    hindrances: admission.Admission = field(factory=admission.Admission)
    nodes: dict[str, Object] | None = None  # None: they may not be read
    kubelets: dict[str, bytes] | None = None  # what each tells; None: there is no right to ask
    metrics: dict[str, Object] | None = None  # by pod; None: the cluster has no metrics-server
    most_pods: int | None = None  # of a quota of its own, which is kept
    refused: int = 0  # creations, by that
    denied: set[tuple[str, str]] = field(factory=set)  # verb, resource: what a review refuses
    requests: list[tuple[str, str]] = field(factory=list)  # verb, path with query
    faults: list[Fault] = field(factory=list)
    cut_watch_at: int | None = None  # bytes after which the next watch is cut
    cut_cleanly: bool = False
    short_pages: bool = False  # the last page is empty, as it may be
    dribble: bool = False  # watches are sent byte by byte
    compacted: int = 0  # versions up to here are too old
    busy: set[str] = field(factory=set)
    _version: itertools.count = field(factory=lambda: itertools.count(100))
    _now: int = 100
    _history: list[tuple[int, str, Object]] = field(factory=list)
    _watches: set[Watch] = field(factory=set)
    _tasks: set[asyncio.Task[None]] = field(factory=set)
    _pages: dict[str, tuple[list[Object], int]] = field(factory=dict)
    _uids: itertools.count = field(factory=lambda: itertools.count(1))
    url: str = ""
    node: kubelet.Kubelet = field(factory=kubelet.Kubelet)

    # --- scripting ---

    def fail(self, verb: str, answer: str | None = None, **how: Any) -> None:
        """Let requests of a verb (as in RBAC, ``pods`` unless ``VERB KIND``) fail."""
        self.faults.append(Fault(verb=verb, answer=answer, **how))

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.requests]

    def compact(self) -> None:
        """Forget the history: every watch from an older version gets 410."""
        self.compacted = self._now
        self._history.clear()

    def drop_watches(self, *, error: Object | None = None) -> None:
        """End every open watch, after an ERROR event if one is given."""
        for watch in self._watches:
            if error is not None:
                watch.queue.put_nowait({"type": "ERROR", "object": error})
            watch.queue.put_nowait(None)

    def put(self, pod: Object, kind: str = "MODIFIED") -> None:
        """Store a pod as it is and tell the watches."""
        self._now = next(self._version)
        pod["metadata"]["resourceVersion"] = str(self._now)
        if kind == "DELETED":
            self.pods.pop(pod["metadata"]["name"], None)
        else:
            self.pods[pod["metadata"]["name"]] = pod
        told = copy.deepcopy(pod)
        self._history.append((self._now, kind, told))
        for watch in self._watches:
            self._offer(watch, kind, told)

    def change(self, name: str, change: Callable[[Object], None]) -> None:
        """Change a pod in place."""
        pod = copy.deepcopy(self.pods[name])
        change(pod)
        self.put(pod)

    def delete(self, name: str, *, grace_s: int = 1) -> None:
        """Delete a pod as somebody else would."""
        self._delete(self.pods[name], grace_s)

    def kill(self, name: str) -> None:
        """End the agent's container with SIGKILL."""
        self._end(name, 137)

    # --- the scheduler and the kubelet ---

    def _create(self, manifest: Object) -> Object:
        self.manifests[manifest["metadata"]["name"]] = manifest
        pod = copy.deepcopy(manifest)
        meta = pod["metadata"]
        meta |= {
            "namespace": self.namespace,
            "uid": f"00000000-0000-4000-8000-{next(self._uids):012d}",
            "generation": 1,
            "creationTimestamp": _now_text(),
        }
        pod["spec"].setdefault("dnsPolicy", "ClusterFirst")
        pod["spec"].setdefault("restartPolicy", "Always")
        pod["status"] = {"phase": "Pending", "qosClass": "Burstable"}
        self.put(pod, "ADDED")
        if self.runs:
            self._spawn(self._run(meta["name"], meta["uid"]))
        return copy.deepcopy(pod)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _alive(self, name: str, uid: str) -> bool:
        pod = self.pods.get(name)
        gone = pod is None or pod["metadata"]["uid"] != uid
        return not gone and "deletionTimestamp" not in pod["metadata"]

    async def _run(self, name: str, uid: str) -> None:
        """Schedule, make, start: the steps of recording pod-01."""
        await asyncio.sleep(0)
        if not self._alive(name, uid):
            return

        def schedule(pod: Object) -> None:
            pod["spec"]["nodeName"] = "node-1"
            pod["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]

        self.change(name, schedule)
        self.change(name, lambda pod: self._wait_containers(pod, "ContainerCreating", None))
        for _ in range(500):
            await asyncio.sleep(_STEP_S)
            if not self._alive(name, uid):
                return
            if self._mounted(self.pods[name]):
                break
            self._miss(name, uid)
        pod = self.pods[name]
        life = None
        if self.runner is not None:
            life = self.runner.begin(pod, self.secrets, self.config_maps)
        if pod["spec"].get("initContainers") and not await self._initialize(name, uid, life):
            return
        called = _agent_of(pod)
        agent = next(c for c in pod["spec"]["containers"] if c["name"] == called)
        if agent["image"].startswith("registry.invalid/"):
            words = f'failed to pull and unpack image "{agent["image"]}": not found'
            self.change(name, lambda pod: self._wait_containers(pod, "ErrImagePull", words))
            return
        lacking = life is not None and not life.missing(agent) and life.lacks(agent)
        if lacking or (agent.get("command") or ["sh"])[0].startswith("/nonexistent"):
            last = recorded.events("pod-25")[-1][2]["status"]["containerStatuses"][0]
            words = last["state"]["terminated"]["message"]
            words = words.replace("/no/such/binary", agent["command"][0])
            self._end(name, 128, reason="StartError", message=words)
            return
        if life is not None:
            await self._live(name, uid, life, agent)
            return
        self.change(name, self._start)
        program = self.programs.get(name, Program())
        self.logs[name, called] = list(program.lines)
        if program.exit_code is not None:
            await asyncio.sleep(_STEP_S)
            if self._alive(name, uid):
                self._end(name, program.exit_code)

    async def _initialize(self, name: str, uid: str, life: machine.Life | None) -> bool:
        """Run the init containers, one after the other: recording pod-05. Tell whether all did well."""
        self.change(name, _initializing)
        for container in self.pods[name]["spec"]["initContainers"]:
            if container.get("restartPolicy") == "Always":
                self.change(name, _init_state(container, {"running": {"startedAt": _TIME}}))
                continue
            words = None if life is None else life.missing(container)
            if words is not None:
                waiting = {"waiting": {"reason": "ErrImagePull", "message": words}}
                self.change(name, _init_state(container, waiting))
                return False
            state = self.inits.get(container["name"], {"terminated": {"exitCode": 0}})
            if "waiting" in state:
                self.change(name, _init_state(container, state))
                return False
            self.change(name, _init_state(container, {"running": {"startedAt": _TIME}}))
            code = state["terminated"]["exitCode"]
            if life is not None and container["name"] not in self.inits:
                code = await (await life.start(container)).wait()
                reason = "Completed" if code == 0 else "Error"
                state = {"terminated": {"exitCode": code, "reason": reason}}
                self.logs[name, container["name"]] = life.log(container["name"])
            if not self._alive(name, uid):
                return False
            self.change(name, _init_state(container, state))
            if code != 0:
                self.change(name, lambda pod: pod["status"].update(phase="Failed"))
                return False
        return True

    async def _live(self, name: str, uid: str, life: machine.Life, agent: Object) -> None:
        """Start the agent's container, and wait for its end."""
        words = life.missing(agent)
        if words is not None:
            self.change(name, lambda pod: self._wait_containers(pod, "ErrImagePull", words))
            return
        process = await life.start(agent)
        self.runner.processes[name] = process
        self.change(name, self._start)
        code = await process.wait()
        self.logs[name, agent["name"]] = life.log(agent["name"])
        if self._alive(name, uid):
            self._end(name, code if code >= 0 else 128 - code)

    def _mounted(self, pod: Object) -> bool:
        wanted = [
            v["secret"]["secretName"] for v in pod["spec"].get("volumes", []) if "secret" in v
        ]
        return all(name in self.secrets for name in wanted) and not self._unshared(pod)

    def _unshared(self, pod: Object) -> list[str]:
        """Return the config maps that a pod mounts and that are not there."""
        maps = [v["configMap"]["name"] for v in pod["spec"].get("volumes", []) if "configMap" in v]
        return [name for name in maps if name not in self.config_maps]

    def _miss(self, name: str, uid: str) -> None:
        """Tell of a volume whose secret is not there, once: recording pod-24."""
        if any(e["involvedObject"]["uid"] == uid for e in self.events):
            return
        event = copy.deepcopy(recorded.load("pod-24")["coreEvents"][1])
        event["message"] = event["message"].replace('"absent"', f'"{name}"')
        event["involvedObject"] |= {"name": name, "uid": uid}
        event["lastTimestamp"] = _now_text()
        self.events.append(event)

    def _statuses(self, pod: Object, state: Object) -> None:
        pod["status"]["containerStatuses"] = [
            {
                "name": c["name"],
                "state": copy.deepcopy(state),
                "lastState": {},
                "ready": "running" in state,
                "restartCount": 0,
                "image": c["image"],
                "imageID": "",
            }
            for c in pod["spec"]["containers"]
        ]

    def _wait_containers(self, pod: Object, reason: str, message: str | None) -> None:
        told = {"reason": reason} | ({"message": message} if message else {})
        self._statuses(pod, {"waiting": told})

    def _start(self, pod: Object) -> None:
        pod["status"]["phase"] = "Running"
        self._statuses(pod, {"running": {"startedAt": _TIME}})

    def _end(self, name: str, code: int, *, reason: str = "", message: str = "") -> None:
        """The agent's container ends; a second later, as recorded, the phase follows."""
        told = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error")}
        told |= {"finishedAt": _now_text()} | ({"message": message} if message else {})

        def end(pod: Object) -> None:
            for status in pod["status"]["containerStatuses"]:
                if status["name"] == _agent_of(pod):
                    status["state"] = {"terminated": told}

        def finish(pod: Object) -> None:
            states = [c["state"] for c in pod["status"]["containerStatuses"]]
            if all("terminated" in state for state in states):
                good = all(state["terminated"]["exitCode"] == 0 for state in states)
                pod["status"]["phase"] = "Succeeded" if good else "Failed"

        self.change(name, end)
        self.change(name, finish)

    def _delete(self, pod: Object, grace_s: int) -> Object:
        pod = copy.deepcopy(pod)
        meta = pod["metadata"]
        asked = "deletionTimestamp" in meta
        if not asked:
            meta["generation"] += 1
        meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"] = _now_text(), grace_s
        done = pod["status"]["phase"] in {"Succeeded", "Failed"} or "nodeName" not in pod["spec"]
        self.put(pod)
        if (grace_s == 0 or done) and not meta.get("finalizers"):
            self._remove(pod)
        elif self.ends and not asked:
            self._spawn(self._stop(meta["name"], meta["uid"], grace_s))
        return copy.deepcopy(pod)

    async def _stop(self, name: str, uid: str, grace_s: int) -> None:
        """The kubelet's side of a deletion: recordings pod-40, pod-41, pod-44."""
        program = self.programs.get(name, Program())
        if self.runner is not None:
            self.runner.stop(name)
        await asyncio.sleep(_STEP_S if program.obeys else grace_s * 0.1)
        pod = self.pods.get(name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        pod = copy.deepcopy(pod)
        pod["status"]["phase"] = "Failed"
        code = 143 if program.obeys else 137
        ended = {"exitCode": code, "reason": "Error", "finishedAt": _now_text()}
        for status in pod["status"].get("containerStatuses", []):
            if "terminated" not in status["state"]:
                status["state"] = {"terminated": dict(ended)}
        self.put(pod)
        if not pod["metadata"].get("finalizers"):
            self._remove(pod)

    def release(self, name: str) -> None:
        """Take the finalizers off a pod that is being deleted."""
        pod = copy.deepcopy(self.pods[name])
        del pod["metadata"]["finalizers"]
        self._remove(pod)

    def _remove(self, pod: Object) -> None:
        self.put(copy.deepcopy(pod), "DELETED")
        self._spawn(self._collect())

    async def _collect(self) -> None:
        """The garbage collector: what is owned goes with its owner."""
        await asyncio.sleep(_GC_S)
        if not self.collects:
            return
        uids = {pod["metadata"]["uid"] for pod in self.pods.values()}
        for name, secret in list(self.secrets.items()):
            owners = secret["metadata"].get("ownerReferences", [])
            if owners and not any(owner["uid"] in uids for owner in owners):
                del self.secrets[name]

    # --- the wire ---

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Cluster"]:
        """Serve on a free port of loopback."""
        app = web.Application(client_max_size=4 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.05)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        self.node.machine = self.runner
        try:
            yield self
        finally:
            self.drop_watches()
            await self.node.aclose()
            if self.runner is not None:
                await self.runner.aclose()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        group, _, path = request.path.partition("/namespaces/")
        parts = path.split("/")
        kind = "/".join(parts[1:2] + parts[3:]) or "namespaces"
        name = parts[2] if len(parts) > 2 else ""
        if request.path.startswith("/api/v1/nodes/"):
            kind = "nodes/proxy" if "/proxy/" in request.path else "nodes"
        if group.startswith("/apis/metrics.k8s.io/"):
            kind = "metrics"
        verb = _VERBS.get(request.method, "get")
        if verb == "get" and kind in {"pods", "events", "configmaps"} and not name:
            verb = "watch" if "watch" in request.query else "list"
        key = verb if kind == "pods" else f"{verb} {kind}"
        self.requests.append((key, request.path_qs))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _recorded("error-401-bad-token")
        for fault in self.faults:
            if fault.verb == key and fault.when(request):
                fault.times -= 1
                if fault.after:
                    await self._act(request, group, verb, kind, name)
                if not fault.times:
                    self.faults.remove(fault)
                return await self._strike(fault, request)
        return await self._act(request, group, verb, kind, name)

    async def _act(
        self, request: web.Request, group: str, verb: str, kind: str, name: str
    ) -> web.StreamResponse:
        namespace = request.path.removeprefix(f"{group}/namespaces/").split("/")[0]
        if request.path == "/version":
            return web.json_response(_body("ok-version"))
        if kind == "nodes/proxy":
            return self._kubelet(*request.path.split("/")[4:6], request.path)
        if request.path.startswith("/api/v1/nodes/"):
            return self._node(request.path.rpartition("/")[2])
        if kind == "metrics":
            return self._metrics(request)
        if request.path.endswith("/selfsubjectaccessreviews"):
            return await self._review(request)
        if kind == "namespaces":
            return self._namespace(request, namespace)
        if namespace != self.namespace:
            return self._elsewhere(verb)
        assert group == ("/apis/coordination.k8s.io/v1" if kind == "leases" else "/api/v1")
        answer = getattr(self, f"_{verb}_{kind.replace('/', '_')}")
        return await answer(request, name)

    async def _strike(self, fault: Fault, request: web.Request) -> web.StreamResponse:
        if fault.hang:
            await asyncio.sleep(30)
        if fault.reset:
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        if fault.body is not None:
            return web.Response(body=fault.body, content_type="application/json")
        assert fault.answer is not None
        return _recorded(fault.answer)

    async def _review(self, request: web.Request) -> web.Response:
        """Tell whether a right is there, as a SelfSubjectAccessReview does."""
        review = await request.json()
        asked = review["spec"]["resourceAttributes"]
        resource = "/".join(asked[k] for k in ("resource", "subresource") if k in asked)
        allowed = asked.get("namespace", self.namespace) == self.namespace
        allowed = allowed and (asked["verb"], resource) not in self.denied
        return web.json_response({**review, "status": {"allowed": allowed}}, status=201)

    def _node(self, name: str) -> web.Response:
        if self.nodes is None:
            return _refused("get", "nodes")
        if name not in self.nodes:
            return _recorded("error-404-pod-get")
        return web.json_response(self.nodes[name])

    def _kubelet(self, node: str, proxy: str, path: str) -> web.Response:
        """Tell of a node's containers as its kubelet does, by way of the API server."""
        assert (proxy, path.partition("/proxy/")[2]) == ("proxy", "metrics/cadvisor")
        if self.kubelets is None:
            return _refused("get", "nodes/proxy")
        if node not in self.kubelets:
            return web.Response(status=503, text="error trying to reach service: dial tcp")
        return web.Response(
            body=self.kubelets[node],
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    def _metrics(self, request: web.Request) -> web.Response:
        """Tell what pods use, as metrics-server does; None: there is no such server."""
        if self.metrics is None:  # in these words of 1.36, which are no Status
            return web.Response(status=404, text="404 page not found\n")
        selected = _selector(request.query.get("labelSelector", ""))
        items = [
            {"metadata": {"name": name}, **told}
            for name, told in self.metrics.items()
            if name in self.pods and _selects(selected, self.pods[name])
        ]
        kind = {"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1"}
        return web.json_response({**kind, "metadata": {}, "items": items})

    async def _get_resourcequotas(self, request: web.Request, _: str) -> web.Response:
        if self.quotas is None:
            return _refused("list", "resourcequotas")
        meta = {"resourceVersion": str(self._now)}
        items = [*self.quotas, *([] if self.most_pods is None else [self._quota()])]
        return web.json_response({"kind": "ResourceQuotaList", "metadata": meta, "items": items})

    def _quota(self) -> Object:
        """Return a quota of pods, with its status; pods that have ended take nothing of it."""
        return {
            "metadata": {"name": "agents"},
            "spec": {"hard": {"pods": str(self.most_pods)}},
            "status": {"hard": {"pods": str(self.most_pods)}, "used": {"pods": str(self._used())}},
        }

    def _used(self) -> int:
        ended = {"Succeeded", "Failed"}
        return sum(pod["status"]["phase"] not in ended for pod in self.pods.values())

    async def _get_secrets(self, request: web.Request, name: str) -> web.Response:
        if ("get", "secrets") in self.denied:
            return _refused("get", "secrets")
        if name not in self.secrets:
            return _named("error-404-pod-get", "absent", name)
        return web.json_response(self.secrets[name])

    def _namespace(self, request: web.Request, name: str) -> web.Response:
        if not self.namespaces_readable:
            return _refused("get", "namespaces")
        if name == self.namespace:
            return web.json_response({"kind": "Namespace", "metadata": {"name": name}})
        return _recorded("error-404-namespace")

    def _elsewhere(self, verb: str) -> web.Response:
        name = "ok-200-list-absent-namespace" if verb == "list" else "error-404-namespace"
        return _recorded(name)

    async def _list_pods(self, request: web.Request, _: str) -> web.Response:
        selected = _selector(request.query.get("labelSelector", ""))
        only = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        token = request.query.get("continue")
        if token:
            if token not in self._pages:
                return _recorded("error-410-list-continue")
            items, at = self._pages.pop(token)
        else:
            at = self._now
            items = [
                copy.deepcopy(pod)
                for name, pod in sorted(self.pods.items())
                if _selects(selected, pod) and only in {"", name}
            ]
        limit = int(request.query.get("limit", "0")) or len(items)
        meta: Object = {"resourceVersion": str(at)}  # of the first page: a list is of one moment
        if len(items) > limit or (self.short_pages and not token):
            more = base64.b64encode(
                f"{self._now}/{len(items)}/{next(self._uids)}".encode()
            ).decode()
            self._pages[more] = (items[limit:], at)
            meta |= {"continue": more, "remainingItemCount": len(items) - limit}
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": items[:limit]}
        return web.json_response(body)

    async def _list_events(self, request: web.Request, _: str) -> web.Response:
        uid = request.query["fieldSelector"].removeprefix("involvedObject.uid=")
        items = [e for e in self.events if e["involvedObject"]["uid"] == uid]
        meta = {"resourceVersion": str(self._now)}
        body = {"kind": "EventList", "apiVersion": "v1", "metadata": meta, "items": items}
        return web.json_response(body)

    async def _create_pods(self, request: web.Request, _: str) -> web.Response:
        """Refuse what a real one refuses, in the same order: ``admission``."""
        manifest = await request.json()
        name = manifest["metadata"]["name"]
        strict = request.query.get("fieldValidation") == "Strict"
        try:
            decoded, warnings = admission.decoded(manifest, strict=strict)
            if decoded["metadata"].get("namespace", self.namespace) != self.namespace:
                return _recorded("error-400-namespace-mismatch")
            admission.validate(decoded, missing=admission.missing(manifest))
            if name in self.pods:
                return _named("error-409-already-exists", "agent-dup", name)
            self.hindrances.admit(decoded, namespace=self.namespace)
        except admission.Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        if self.most_pods is not None and self._used() >= self.most_pods:
            self.refused += 1
            return _recorded("error-403-quota-pods")
        if request.query.get("dryRun") == "All":
            decoded["metadata"]["creationTimestamp"] = _now_text()
        else:
            decoded = self._create(decoded)
        headers = multidict.CIMultiDict(("Warning", words) for words in warnings)
        return web.json_response(decoded, status=201, headers=headers)

    async def _delete_pods(self, request: web.Request, name: str) -> web.Response:
        told = await request.json() if request.can_read_body else {}
        pod = self.pods.get(name)
        if pod is None:
            return _named("error-404-pod-delete", "absent", name)
        uid = (told.get("preconditions") or {}).get("uid", pod["metadata"]["uid"])
        if uid != pod["metadata"]["uid"]:
            return _named("error-409-delete-uid-precondition", "agent-dup", name)
        return web.json_response(self._delete(pod, told.get("gracePeriodSeconds", 30)))

    async def _patch_pods(self, request: web.Request, name: str) -> web.Response:
        """Change labels and annotations: what a merge patch does to a section of texts."""
        if request.content_type != "application/merge-patch+json":
            return _recorded("error-415-patch")
        if ("patch", "pods") in self.denied:
            return _named("error-403-rbac-patch", "agent-x", name)
        told = await request.json()
        pod = copy.deepcopy(self.pods.get(name))
        if pod is None:
            return _named("error-404-pod-patch", "absent", name)
        meta = pod["metadata"]
        if told["metadata"].pop("uid", meta["uid"]) != meta["uid"]:
            return _named("error-422-patch-uid", "agent-x", name)
        assert told.keys() == {"metadata"}
        for key, texts in told["metadata"].items():
            assert key in {"labels", "annotations"}
            merged = {**meta.get(key, {}), **texts}
            meta[key] = {k: v for k, v in merged.items() if v is not None}
        if pod != self.pods[name]:
            self.put(pod)
        return web.json_response(pod)

    async def _get_pods_log(self, request: web.Request, name: str) -> web.Response:
        container = request.query["container"]
        pod = self.pods.get(name)
        if pod is None:
            return _named("error-404-pod-get", "absent", name)
        every = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
        if not any(c["name"] == container for c in every):
            return _named("error-400-log-no-such-container", "agent-two", name)
        if (name, container) not in self.logs:
            return web.Response(status=204)
        lines = self.logs[name, container][-int(request.query["tailLines"]) :]
        text = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
        return web.Response(body=text, content_type="text/plain")

    async def _get_pods_exec(self, request: web.Request, name: str) -> web.StreamResponse:
        if name not in self.pods:
            return _named("error-404-pod-get", "absent", name)
        return await self.node.exec(request, self.pods[name])

    async def _create_secrets(self, request: web.Request, _: str) -> web.Response:
        secret = await request.json()
        name = secret["metadata"]["name"]
        try:
            secret, _ = admission.decoded(secret, strict=True)
        except admission.Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        if name in self.secrets:
            return _named("error-409-secret-exists", "agent-two", name)
        data = {k: base64.b64encode(v.encode()).decode() for k, v in secret["stringData"].items()}
        self.secrets[name] = {**secret, "data": data}
        self._spawn(self._collect())
        return web.json_response({**secret, "stringData": None, "data": data}, status=201)

    async def _delete_secrets(self, request: web.Request, name: str) -> web.Response:
        if name not in self.secrets:
            return _named("error-404-pod-delete", "absent", name)
        del self.secrets[name]
        return _named("ok-200-secret-delete", "agent-two", name)

    # --- config maps: answers as of secrets, in their own words ---

    async def _create_configmaps(self, request: web.Request, _: str) -> web.Response:
        made = await request.json()
        if ("create", "configmaps") in self.denied:
            return _refused("create", "configmaps")
        try:
            made, _ = admission.decoded(made, strict=True)
        except admission.Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status)
        name = made["metadata"]["name"]
        told = (*made.get("data", {}).items(), *made.get("binaryData", {}).items())
        binary = [base64.b64decode(v, validate=True) for v in made.get("binaryData", {}).values()]
        size = sum(len(v.encode()) for v in made.get("data", {}).values())
        assert size + sum(map(len, binary)) <= 1 << 20, "of what a ConfigMap holds"
        assert len(dict(told)) == len(told), "a key is in one of both"
        assert all(re.fullmatch(r"[-._a-zA-Z0-9]{1,253}", key) for key, _ in told)
        assert _DNS.fullmatch(name)
        assert len(name) <= 253
        if name in self.config_maps:
            return _of_maps("error-409-secret-exists", name)
        made["metadata"] |= {
            "namespace": self.namespace,
            "uid": f"c0000000-0000-4000-8000-{next(self._uids):012d}",
            "creationTimestamp": _now_text(),
        }
        self.config_maps[name] = made
        return web.json_response(made, status=201)

    async def _list_configmaps(self, request: web.Request, _: str) -> web.Response:
        """As objects, or as their metadata where that is all that was asked for."""
        if ("list", "configmaps") in self.denied:
            return _refused("list", "configmaps")
        selected = _selector(request.query.get("labelSelector", ""))
        only = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        items = [
            copy.deepcopy(one)
            for name, one in sorted(self.config_maps.items())
            if _selects(selected, one) and only in {"", name}
        ]
        kind, version = "ConfigMapList", "v1"
        if "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" in request.headers["Accept"]:
            kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
            items = [
                {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": i["metadata"]}
                for i in items
            ]
        meta = {"resourceVersion": str(self._now)}
        body = {"kind": kind, "apiVersion": version, "metadata": meta, "items": items}
        return web.json_response(body)

    async def _delete_configmaps(self, request: web.Request, name: str) -> web.Response:
        if ("delete", "configmaps") in self.denied:
            return _refused("delete", "configmaps")
        told = await request.json()
        if name not in self.config_maps:
            return _of_maps("error-404-pod-delete", name)
        if told["preconditions"]["uid"] != self.config_maps[name]["metadata"]["uid"]:
            return _named("error-409-delete-uid-precondition", "agent-dup", name)
        del self.config_maps[name]
        return _named("ok-200-secret-delete", "agent-two", name)

    # --- leases: a version is written over once; recordings lease-* ---

    async def _get_leases(self, request: web.Request, name: str) -> web.Response:
        if name not in self.leases:
            return _named("lease-404-get", _LEASE, name)
        return web.json_response(self.leases[name])

    async def _create_leases(self, request: web.Request, _: str) -> web.Response:
        told = await request.json()
        name = told["metadata"]["name"]
        if name in self.leases:
            return _named("lease-409-exists", _LEASE, name)
        told["metadata"] |= {"uid": f"1ea5e000-0000-4000-8000-{next(self._uids):012d}"}
        return web.json_response(self._keep_lease(name, told), status=201)

    async def _update_leases(self, request: web.Request, name: str) -> web.Response:
        told = await request.json()
        old = self.leases.get(name)
        if old is None:  # an update without a uid would make it: ours has one
            assert told["metadata"]["uid"]
            return _named("lease-409-update-deleted", _LEASE, name)
        if told["metadata"].get("resourceVersion") != old["metadata"]["resourceVersion"]:
            return _named("lease-409-conflict", _LEASE, name)
        told["metadata"]["uid"] = old["metadata"]["uid"]
        return web.json_response(old if told == old else self._keep_lease(name, told))

    def _keep_lease(self, name: str, told: Object) -> Object:
        assert [] == schemas.problems(told)
        spec = told["spec"] = {k: v for k, v in told["spec"].items() if v is not None}
        assert spec.get("leaseDurationSeconds", 1) > 0
        for key in {"acquireTime", "renewTime"} & spec.keys():
            assert _MICRO_TIME.fullmatch(spec[key]), spec[key]
        self._now = next(self._version)
        told["metadata"]["resourceVersion"] = str(self._now)
        self.leases[name] = told
        return told

    # --- watches ---

    async def _watch_pods(self, request: web.Request, _: str) -> web.StreamResponse:
        told = request.query.get("resourceVersion", "")
        watch = Watch(selector=_selector(request.query.get("labelSelector", "")))
        if int(told) < self.compacted:
            error = recorded.load("watch-apiserver-shutdown")["watchAfterRestart"]["events"]
            watch.queue.put_nowait(error[0]["event"])
            watch.queue.put_nowait(None)
        else:
            watch.seen = self._before(int(told), watch.selector)
            for version, kind, pod in self._history:
                if version > int(told):
                    self._offer(watch, kind, pod)
            self._watches.add(watch)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        try:
            await self._feed(answer, watch, request)
        except (ConnectionError, asyncio.CancelledError):
            return answer
        finally:
            self._watches.discard(watch)
        return answer

    async def _feed(self, answer: web.StreamResponse, watch: Watch, request: web.Request) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + float(request.query.get("timeoutSeconds", "300"))
        cut, self.cut_watch_at = self.cut_watch_at, None
        while loop.time() < end:
            try:
                async with asyncio.timeout(min(self.bookmark_s, end - loop.time())):
                    event = await watch.queue.get()
            except TimeoutError:
                if "allowWatchBookmarks" not in request.query:
                    continue
                told = recorded.load("watch-bookmarks")["watch"]["events"][0]["event"]
                event = copy.deepcopy(told)
                event["object"]["metadata"]["resourceVersion"] = str(self._now)
            if event is None:
                break
            raw = json.dumps(event).encode() + b"\n"
            if cut is not None and cut <= len(raw):
                await answer.write(raw[:cut]) if cut else None
                await asyncio.sleep(0.01)
                if not self.cut_cleanly:
                    assert request.transport is not None
                    request.transport.abort()
                return
            cut = None if cut is None else cut - len(raw)
            for piece in [raw[i : i + 1] for i in range(len(raw))] if self.dribble else [raw]:
                await answer.write(piece)
        await answer.write_eof()

    def _before(self, version: int, selector: dict[str, str]) -> set[str]:
        """Names that the selector showed at a version."""
        seen = {name for name, pod in self.pods.items() if _selects(selector, pod)}
        for at, kind, pod in reversed(self._history):
            if at <= version:
                break
            name = pod["metadata"]["name"]
            if kind == "ADDED":
                seen.discard(name)
            elif kind == "DELETED" and _selects(selector, pod):
                seen.add(name)
        return seen

    def _offer(self, watch: Watch, kind: str, pod: Object) -> None:
        """Tell a watch, with what entering and leaving its selector looks like."""
        name, fits = pod["metadata"]["name"], _selects(watch.selector, pod)
        known = name in watch.seen
        if kind == "DELETED" or not fits:
            if not known:
                return
            kind = "DELETED"
            watch.seen.discard(name)
        elif not known:
            kind = "ADDED"
            watch.seen.add(name)
        watch.queue.put_nowait({"type": kind, "object": pod})


def _selector(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(",") if part)


def _selects(selector: dict[str, str], pod: Object) -> bool:
    return selector.items() <= pod["metadata"].get("labels", {}).items()


def _of_maps(recording: str, name: str) -> web.Response:
    """A recorded answer about another kind of object, about a config map."""
    told = recorded.load(recording)["response"]
    text = json.dumps(told["body"])
    for old, new in (("secrets", "configmaps"), ("pods", "configmaps")):
        text = text.replace(old, new)
    for old in ("agent-two", "absent"):
        text = text.replace(old, name)
    return web.json_response(json.loads(text), status=told["status"])


def _body(name: str) -> Any:
    return recorded.load(name)["response"]["body"]


def _refused(verb: str, what: str) -> web.Response:
    """The recorded refusal of a right, for another right."""
    answer = _body("error-403-rbac-list")
    answer["message"] = answer["message"].replace("list", verb).replace("pods", what)
    return web.json_response(answer, status=403)


def _recorded(name: str) -> web.Response:
    told = recorded.load(name)["response"]
    kept = {"Retry-After", "Content-Type", "X-Kubernetes-Pf-Prioritylevel-Uid"}
    headers = {k: v for k, v in told["headers"].items() if k in kept}
    body = told["body"]
    text = body if isinstance(body, str) else json.dumps(body)
    return web.Response(text=None, body=text.encode(), status=told["status"], headers=headers)


def _named(recording: str, old: str, name: str) -> web.Response:
    told = recorded.load(recording)["response"]
    body = json.loads(json.dumps(told["body"]).replace(old, urllib.parse.unquote(name)))
    return web.json_response(body, status=told["status"])


def _initializing(pod: Object) -> None:
    """Let every container wait for the init containers."""
    for kind, told in (
        ("initContainers", "initContainerStatuses"),
        ("containers", "containerStatuses"),
    ):
        pod["status"][told] = [
            {
                "name": one["name"], "state": {"waiting": {"reason": "PodInitializing"}},
                "lastState": {}, "ready": False, "restartCount": 0,
                "image": one["image"], "imageID": "",
            }
            for one in pod["spec"][kind]
        ]  # fmt: skip


def _init_state(container: Object, state: Object) -> Callable[[Object], None]:
    """Return a change that puts an init container into a state."""

    def change(pod: Object) -> None:
        for status in pod["status"]["initContainerStatuses"]:
            if status["name"] == container["name"]:
                status["state"] = copy.deepcopy(state)

    return change


def _now_text() -> str:
    return text_of(dt.datetime.now(dt.UTC).timestamp())


def text_of(at: float) -> str:
    """Return a time as Kubernetes writes it."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _agent_of(pod: Object) -> str:
    """Return which container a test lets end: the one that the agent runs in."""
    return str(pod["metadata"].get("annotations", {}).get("agent-broker/agent-container", "jnlp"))
