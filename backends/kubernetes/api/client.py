"""The requests to an API server: one session, plain dictionaries, every refusal mapped.

Why not the official package: it costs 46 MiB and a second at the start, knows only the fields of
its own release, and its watch neither relists nor survives a busy server (see
docs/decisions/0030-kubernetes-client.md). Every answer has a size that no honest one exceeds,
every list is a list, and no redirect is followed. Refuses to know what pods are for.
"""

import asyncio
import contextlib
import logging
import re
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import aiohttp
from attrs import frozen

from backends import api
from backends.kubernetes import settings
from backends.kubernetes.api import access, decoding, errors, throttling
from outside import bodies, connect_errors, text, typed

_LOG = logging.getLogger("backends.kubernetes")
_MIB = 1 << 20
_OBJECT_BYTES = 4 * _MIB  # etcd takes 1.5 MiB, the API server 3; also a line of a watch
_PAGE_BYTES = 8 * _MIB  # a pod has 5 to 20 KiB; decoded this is some 60 MiB for a moment
_LOG_BYTES = _MIB // 4  # 20 lines of 12 KiB: longer ones are cut anyway
_LOG_LINE = 256
_REFUSAL_BYTES = 1 << 16
_LESS = 4  # by which a page is made smaller that was too large
_MOST_PODS = 20_000  # of one owner in one namespace
_MOST_WARNINGS = 100
_ANEW_S = 60.0  # between two looks at the files that say how the cluster is reached
_VERSION = re.compile(r"[\w.:-]{1,128}")  # of a resource: a number as yet
_CONTINUE = 1 << 14  # characters: a token holds a key and a version
_METHODS = {"create": "POST", "update": "PUT", "patch": "PATCH", "delete": "DELETE"}
_NAMES_ALONE = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_MOST_MAPS = 500  # of an owner's, at a look
_PATCH = {"Content-Type": "application/merge-patch+json"}
_EVENTS = 100  # of one pod; equal ones are counted, not repeated
_EVENTS_LIMIT_S = 2.0  # a look waits for them
_METRICS = "/apis/metrics.k8s.io"
_METRICS_LIMIT_S = 10.0
_KUBELET_BYTES = 16 * _MIB  # some 20 KiB for each container of a node
_NODE_LIMIT_S = 2.0  # as above

Object = dict[str, Any]


@frozen(kw_only=True)
class WatchEvent:
    """One change that a watch tells; ``kind`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Object


@frozen(kw_only=True)
class Page:
    """A part of a list; ``version`` is the resource version to watch from after the last."""

    pods: list[Object]
    version: str


class ApiServer:
    """One API server, one namespace."""

    def __init__(
        self,
        configured: settings.KubernetesSettings,
        reached: access.Access,
        *,
        again: Callable[[], Awaitable[access.Access]] | None = None,
    ) -> None:
        """``again`` finds the access anew: what stands in files is renewed there."""
        self._settings = configured
        self._access = reached
        self._again = again
        self._access_at = float("-inf")  # the last time that it was found anew
        self._session = _session(reached)
        self._warned: set[str] = set()
        self._manners = throttling.Throttle()
        self._watching: set[aiohttp.ClientResponse] = set()

    @property
    def namespace(self) -> str:
        """Where the pods live."""
        return self._access.namespace

    async def aclose(self) -> None:
        """Let go of the connections and end the watches; idempotent."""
        for answer in self._watching:  # closing its connection would not wake who reads it
            answer.content.set_exception(errors.Lost("the backend is closed"))
        await self._session.close()

    # --- pods ---

    async def list_pods(self, selector: str) -> AsyncGenerator[Page, None]:
        """Yield all pods page by page; only who comes to the end without an error has them all.

        A page of pods that are larger than pods are is asked for again with fewer of them. The
        entries are as they came: not all need be sections.
        """
        size, more, count = self._settings.page_size, "", 0
        while True:
            query = {"labelSelector": selector, "limit": str(size)}
            if more:
                query["continue"] = more
            try:
                page = await self._json(
                    "list",
                    "pods",
                    query=query,
                    timeout_s=self._settings.list_timeout_s,
                    limit=_PAGE_BYTES,
                )
            except errors.Large:
                if size == 1:
                    raise
                size = max(1, size // _LESS)
                continue
            pods, meta = _items(page, "PodList"), page["metadata"]
            count += len(pods)
            if count > _MOST_PODS:
                raise errors.Large(f"the list goes on after {_MOST_PODS} pods")
            yield Page(pods=pods, version=meta["resourceVersion"])
            before, more = more, meta.get("continue") or ""
            if not more:
                break
            if more == before or not isinstance(more, str) or len(more) > _CONTINUE:
                raise errors.OddAnswer("the list of pods goes on in a way that cannot be followed")
        if not count:
            await self._check_namespace()

    async def find_pod(self, name: str) -> Object | None:
        """Return one pod of any owner; by a list, so that no further right is needed."""
        query = {"fieldSelector": f"metadata.name={name}"}
        page = await self._json("list", "pods", query=query, limit=_PAGE_BYTES)
        for found in _items(page, "PodList"):
            metadata = found.get("metadata") if isinstance(found, dict) else None
            if isinstance(metadata, dict) and metadata.get("name") == name:
                return found  # type: ignore[no-any-return]  # just looked at
            raise errors.OddAnswer(
                f"asked for pod {name}, the API server answers with another object"
            )
        return None

    async def quotas(self) -> list[Object]:
        """Return the quotas of the namespace; needs a right of its own."""
        found = await self._json("list", "resourcequotas", limit=_PAGE_BYTES)
        return [one for one in _items(found, "ResourceQuotaList") if isinstance(one, dict)]

    async def pod_metrics(self, selector: str) -> list[Object]:
        """Return what pods use; a right of its own. Raises NotFound where nobody tells it."""
        path = f"{_METRICS}/v1beta1/namespaces/{self.namespace}/pods"
        found = await self._json(
            "list",
            path,
            query={"labelSelector": selector},
            timeout_s=_METRICS_LIMIT_S,
            limit=_PAGE_BYTES,
        )
        items = found.get("items")
        if found.get("kind") != "PodMetricsList" or not isinstance(items, list):
            raise errors.OddAnswer("the answer is not a PodMetricsList")  # without a version
        return [one for one in items if isinstance(one, dict)]

    async def node(self, name: str) -> Object:
        """Return one node; needs a right of the whole cluster. Raises NotFound, and the others."""
        path = f"/api/v1/nodes/{urllib.parse.quote(name, safe='')}"
        return await self._json("get", path, timeout_s=_NODE_LIMIT_S, limit=_PAGE_BYTES)

    async def kubelet_metrics(self, node: str) -> bytes:
        """Return what the kubelet of a node tells of containers, as Prometheus' text.

        By way of the API server; a right of the whole cluster (``nodes/proxy``).
        """
        path = f"/api/v1/nodes/{urllib.parse.quote(node, safe='')}/proxy/metrics/cadvisor"
        limits = aiohttp.ClientTimeout(total=_METRICS_LIMIT_S)
        async with self._answer("get", path, limits=limits) as told:
            return await bodies.read(told, _KUBELET_BYTES)

    async def events_of(self, uid: str) -> list[Object]:
        """Return what the cluster's components told of one pod, in no order."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(_EVENTS)}
        page = await self._json("list", "events", query=query, timeout_s=_EVENTS_LIMIT_S)
        found = _items(page, "EventList")[:_EVENTS]
        return [thing for thing in found if isinstance(thing, dict)]

    async def create_pod(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create a pod. Raises AlreadyExists, Rejected, NoCapacity and the others.

        A dry run passes all that the server has against it, and stores nothing.
        """
        query = {"dryRun": "All"} if dry_run else None
        return await self._json("create", "pods", query=query, body=manifest)

    async def delete_pod(self, name: str, *, uid: str, grace_s: int) -> None:
        """Begin to end this very pod. Raises NotFound when it is gone."""
        body = {"gracePeriodSeconds": grace_s, "preconditions": {"uid": uid}}
        await self._do("delete", "pods", name=name, body=body)

    async def annotate_pod(
        self, name: str, *, uid: str, annotations: Mapping[str, str | None]
    ) -> None:
        """Set annotations of this very pod, or remove them (None). Raises NotFound.

        Needs a right of its own. A pod of the same name with another uid is a conflict.
        """
        body = {"metadata": {"uid": uid, "annotations": dict(annotations)}}
        await self._do("patch", "pods", name=name, body=body)

    async def log(self, name: str, *, container: str, tail: int) -> str:
        """Return the last lines of a container, fit to be shown; none while it has not started."""
        query = {"container": container, "tailLines": str(tail), "limitBytes": str(_LOG_BYTES)}
        limits = aiohttp.ClientTimeout(total=self._settings.request_timeout_s)
        try:
            async with self._answer("get", "pods/log", name=name, query=query, limits=limits) as a:
                raw, _ = await bodies.begin(a, _LOG_BYTES)
        except api.Rejected:  # 400: the container waits or never was
            return ""
        lines = text.last_lines(raw.decode("utf-8", "replace"), tail, _LOG_LINE)
        return "".join(f"{line}\n" for line in lines)

    async def watch_pods(
        self, selector: str, version: str
    ) -> AsyncGenerator[list[WatchEvent], None]:
        """Yield changes in batches, first an empty one once connected; ends as the server ends.

        Raises Expired when the version is too old, Lost when the connection breaks or is silent
        too long, OddAnswer for what is no event, and the others.
        """
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._settings.watch_timeout_s)),
        }
        silence_s = self._settings.watch_silence_s
        limits = aiohttp.ClientTimeout(
            total=self._settings.watch_timeout_s + silence_s, sock_read=silence_s
        )
        async with self._answer("watch", "pods", query=query, limits=limits) as answer:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise errors.OddAnswer("the watch is packed, which was not asked for")
            lines = Lines()
            self._watching.add(answer)
            try:
                yield []
                async for chunk in answer.content.iter_any():
                    batch = [_event(line) for line in lines.feed(chunk)]
                    if batch:
                        yield batch
            finally:
                self._watching.discard(answer)

    # --- secrets ---

    async def create_secret(self, manifest: Mapping[str, Any]) -> None:
        """Create a secret; no error repeats what is in it."""
        hide = list((manifest.get("stringData") or {}).values())
        await self._do("create", "secrets", body=manifest, hide=hide)

    async def delete_secret(self, name: str) -> None:
        """Delete a secret. Raises NotFound."""
        await self._do("delete", "secrets", name=name)

    # --- config maps ---

    async def create_config_map(self, manifest: Mapping[str, Any]) -> None:
        """Create a config map; needs a right of its own. Raises AlreadyExists and the others."""
        await self._do("create", "configmaps", body=manifest)

    async def find_config_map(self, name: str) -> Object | None:
        """Return one of any owner, with what is in it; by a list, as ``find_pod``."""
        query = {"fieldSelector": f"metadata.name={name}"}
        found = await self._json("list", "configmaps", query=query)
        return next((one for one in _items(found, "ConfigMapList") if isinstance(one, dict)), None)

    async def config_maps(self, selector: str) -> list[Object]:
        """Return the metadata of those that a selector finds, without what is in them."""
        query = {"labelSelector": selector, "limit": str(_MOST_MAPS)}
        found = await self._json(
            "list", "configmaps", query=query, accept=_NAMES_ALONE, timeout_s=_EVENTS_LIMIT_S
        )
        items = _items(found, "PartialObjectMetadataList")
        return [one for one in items if isinstance(one, dict)]

    async def delete_config_map(self, name: str, *, uid: str) -> None:
        """Delete this very one. Raises NotFound when it is gone."""
        body = {"preconditions": {"uid": uid}}
        await self._do("delete", "configmaps", name=name, body=body)

    # --- leases ---

    async def get_lease(self, name: str) -> Object:
        """Return a lease. Raises NotFound."""
        return await self._json("get", "leases", name=name)

    async def create_lease(self, manifest: Mapping[str, Any]) -> Object:
        """Create a lease. Raises AlreadyExists."""
        return await self._json("create", "leases", body=manifest)

    async def update_lease(self, name: str, manifest: Mapping[str, Any]) -> Object:
        """Replace a lease. Raises Outdated when it has changed since it was read."""
        return await self._json("update", "leases", name=name, body=manifest)

    # --- anything else ---

    async def ask(self, verb: str, path: str, *, body: Mapping[str, Any] | None = None) -> Object:
        """Ask for any path of the API server, which begins with a slash."""
        return await self._json(verb, path, body=body)

    # --- inside ---

    async def _check_namespace(self) -> None:
        """An absent namespace has an empty list of pods; where we may not ask, it exists.

        Rights without a right to read the namespace come from a role inside it.
        """
        try:
            await self._do("get", "namespaces")
        except errors.NoRight:
            return

    def _url(self, what: str, name: str | None) -> str:
        group = "apis/coordination.k8s.io/v1" if what == "leases" else "api/v1"
        base = f"{self._access.server}/{group}/namespaces/{self.namespace}"
        if what == "namespaces":
            return base
        if what.startswith("/"):
            return f"{self._access.server}{what}"
        kind, _, sub = what.partition("/")
        path = f"{base}/{kind}"
        if name is not None:
            path += f"/{urllib.parse.quote(name, safe='')}"
        return f"{path}/{sub}" if sub else path

    async def _json(
        self,
        verb: str,
        what: str,
        *,
        name: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        limit: int = _OBJECT_BYTES,
        accept: str | None = None,
    ) -> Object:
        limits = aiohttp.ClientTimeout(total=timeout_s or self._settings.request_timeout_s)
        async with self._answer(
            verb, what, name=name, query=query, body=body, limits=limits, accept=accept
        ) as told:
            raw = await bodies.read(told, limit)
        try:
            answer = decoding.loads(raw)
        except ValueError:  # whose words may quote it
            raise errors.OddAnswer(f"the answer to {verb} {what} is not JSON") from None
        if not isinstance(answer, dict):
            raise errors.OddAnswer(f"the answer to {verb} {what} is not an object")
        return answer

    async def _do(
        self,
        verb: str,
        what: str,
        *,
        name: str | None = None,
        body: Mapping[str, Any] | None = None,
        hide: list[str] | None = None,
    ) -> None:
        """Ask for something whose answer says no more than that it was done."""
        limits = aiohttp.ClientTimeout(total=self._settings.request_timeout_s)
        async with self._answer(
            verb, what, name=name, body=body, limits=limits, hide=hide
        ) as answer:
            with contextlib.suppress(bodies.Unreadable):
                await bodies.begin(answer, _OBJECT_BYTES)

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        verb: str,
        what: str,
        *,
        name: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        limits: aiohttp.ClientTimeout,
        hide: list[str] | None = None,
        accept: str | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask; what was refused for who we are, or are told to trust, is found anew for the next.

        An authority or a certificate that was renewed on the disk would else need a restart.
        """
        try:
            async with self._answered(
                verb,
                what,
                name=name,
                query=query,
                body=body,
                limits=limits,
                hide=hide,
                accept=accept,
            ) as answer:
                yield answer
        except api.BackendError as error:
            # of an addition that is out of order nothing follows for whoever else is asked
            if not what.startswith(_METRICS) and _may_be_renewed(error):
                await self._find_anew()
            raise

    async def _find_anew(self) -> None:
        """Reach the cluster as the files say now; at most once in a while."""
        now = _clock()()
        if self._again is None or now - self._access_at < _ANEW_S or self._session.closed:
            return
        self._access_at = now
        with contextlib.suppress(api.BackendError):  # then it stays as it was
            found = await self._again()
            if not self._session.closed:
                old, self._access, self._session = self._session, found, _session(found)
                await old.close()

    @contextlib.asynccontextmanager
    async def _answered(
        self,
        verb: str,
        what: str,
        *,
        name: str | None,
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        limits: aiohttp.ClientTimeout,
        hide: list[str] | None,
        accept: str | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, once more with a fresh token after a 401; raise what a refusal means.

        Whoever the server has asked to wait is refused here until then.
        """
        sort, clock = (verb, what), _clock()
        wait_s = self._manners.wait_s(sort, now=clock())
        if wait_s:
            raise api.Unavailable("the API server asked us to wait", retry_after=wait_s)
        for renewed in (False, True):
            if self._session.closed:
                raise errors.Lost("the backend is closed")
            token = await self._access.tokens.get(renew=renewed)
            with _lost(verb, what):
                async with self._session.request(
                    _METHODS.get(verb, "GET"),
                    self._url(what, name),
                    params=query,
                    json=body,
                    headers=access.authorization(token)
                    | (_PATCH if verb == "patch" else {})
                    | ({"Accept": accept} if accept else {}),
                    timeout=limits,
                    allow_redirects=False,
                    server_hostname=self._access.server_name,
                ) as answer:
                    if answer.status == 401 and token and not renewed:
                        continue
                    if answer.status >= 300:
                        told = await refusal(answer)
                        self._manners.learn(sort, told.headers, told.retry_after, now=clock())
                        raise errors.mapped(verb, what, told, hide=hide or ())
                    self._manners.learn(sort, answer.headers, None, now=clock())
                    self._warn(answer)
                    yield answer
                    return

    def _warn(self, answer: aiohttp.ClientResponse) -> None:
        """Log what the server thinks of our manifests, each once."""
        for told in answer.headers.getall("Warning", [])[:_MOST_WARNINGS]:
            words = text.clean(told)
            if words not in self._warned and len(self._warned) < _MOST_WARNINGS:
                self._warned.add(words)
                _LOG.warning("API server warns", extra={"text": words})


def _session(found: access.Access) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=found.tls or True),
        headers=found.headers(Accept="application/json"),
        proxy=found.proxy,
        auto_decompress=False,  # ``bodies`` does it, with a limit
        trust_env=False,  # a netrc entry would take the place of our token
    )


def _may_be_renewed(error: api.BackendError) -> bool:
    """Whether what we show or trust may be an old one."""
    refused = isinstance(error, api.Unauthorized) and not isinstance(error, errors.NoRight)
    return refused or isinstance(error.__cause__, aiohttp.ClientSSLError)


class Lines:
    """Cuts a stream into lines, wherever its pieces end; a last piece without end is no line."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this piece completes. Raises Lost for an endless line."""
        *complete, rest = chunk.split(b"\n")
        if complete:
            complete[0] = b"".join((*self._rest, complete[0]))
            self._rest, self._size = [], 0
        self._rest.append(rest)
        self._size += len(rest)
        if self._size > _OBJECT_BYTES:
            raise errors.Lost(f"the watch sends a line of more than {_OBJECT_BYTES // _MIB} MiB")
        return [line for line in complete if line.strip()]


def _event(line: bytes) -> WatchEvent:
    try:
        told = decoding.loads(line)
    except ValueError:
        raise errors.OddAnswer("the watch sends a line that is not JSON") from None
    kind, thing = (told.get("type"), told.get("object")) if isinstance(told, dict) else (None,) * 2
    if kind == "ERROR":
        code = typed.integer(thing.get("code"), 0, 599) if isinstance(thing, dict) else None
        status = code if code is not None and code >= _REFUSED else _FAILED
        raise errors.mapped("watch", "pods", errors.ErrorAnswer(status=status, body=thing))
    if not isinstance(kind, str) or not isinstance(thing, dict):
        raise errors.OddAnswer("the watch sends something that is not an event")
    return WatchEvent(kind=kind, object=thing)


_REFUSED, _FAILED = 400, 500


def _items(page: Object, kind: str) -> list[Any]:
    """Return the entries of a list, which may each be anything; a list it is, or an error.

    Servers before 1.28 say null for an empty one (``GetList`` of etcd3/store.go).
    """
    items, metadata = page.get("items"), page.get("metadata")
    whole = page.get("kind") == kind and "items" in page and isinstance(metadata, dict)
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    if (
        not whole
        or not (items is None or isinstance(items, list))
        or not isinstance(version, str)
        or not _VERSION.fullmatch(version)
    ):
        raise errors.OddAnswer(f"the answer to a list is not a {kind}")
    return items or []


async def refusal(answer: aiohttp.ClientResponse) -> errors.ErrorAnswer:
    """Read what the server says of a request that it does not serve."""
    raw = b""
    with contextlib.suppress(bodies.Unreadable):
        raw, _ = await bodies.begin(answer, _REFUSAL_BYTES)
    body: Any = raw.decode("utf-8", "replace")
    with contextlib.suppress(ValueError):
        body = decoding.loads(raw)
    return errors.ErrorAnswer(status=answer.status, body=body, headers=answer.headers)


@contextlib.contextmanager
def _lost(verb: str, what: str) -> Iterator[None]:
    """Tell what an HTTP library has to say of a broken connection in our own words."""
    try:
        yield
    except TimeoutError as error:
        raise errors.Lost(f"no answer in time to {verb} {what}") from error
    except bodies.TooLarge as error:
        raise errors.Large(f"{verb} {what}: {error}") from error
    except bodies.Unreadable as error:
        raise errors.Large(text.clean(f"{verb} {what}: {error}")) from error
    except aiohttp.ClientError as error:
        raise errors.Lost(f"cannot {verb} {what}: {words_of(error)}") from error


def _clock() -> Callable[[], float]:
    return asyncio.get_running_loop().time


def words_of(error: BaseException) -> str:
    """Return an error's own words; those of an HTTP library may quote what came."""
    return connect_errors.words(error)
