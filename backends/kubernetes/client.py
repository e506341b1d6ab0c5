"""The requests to an API server: one session, plain dictionaries, every refusal mapped.

Why not the official package: it costs 46 MiB and a second at the start, knows only the fields of
its own release, and its watch neither relists nor survives a busy server (see
docs/decisions/0030-kubernetes-client.md). Refuses to know what pods are for.
"""

import asyncio
import contextlib
import json
import logging
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import aiohttp
from attrs import frozen

from backends import api
from backends.kubernetes import access, errors, manners, settings
from outside import bodies

_LOG = logging.getLogger("backends.kubernetes")
_LOG_BYTES = 1 << 20
_LINE_BYTES = 16 << 20  # an object has at most 3 MiB; a watch repeats it once
_CHUNK = 1 << 16
_METHODS = {"create": "POST", "update": "PUT", "delete": "DELETE"}
_EVENTS = 100  # of one pod; equal ones are counted, not repeated
_EVENTS_LIMIT_S = 2.0  # a look waits for them

Object = dict[str, Any]


@frozen(kw_only=True)
class Event:
    """One change that a watch tells; ``kind`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Object


@frozen(kw_only=True)
class Page:
    """A part of a list; ``version`` is the resource version to watch from after the last."""

    pods: list[Object]
    version: str


class Client:
    """One API server, one namespace."""

    def __init__(self, told: settings.KubernetesSettings, found: access.Access) -> None:
        self._told = told
        self._found = found
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=found.tls or True),
            headers={"Accept": "application/json"},
            trust_env=False,  # a netrc entry would take the place of our token
        )
        self._warned: set[str] = set()
        self._manners = manners.Manners()
        self._watching: set[aiohttp.ClientResponse] = set()

    @property
    def namespace(self) -> str:
        """Where the pods live."""
        return self._found.namespace

    async def aclose(self) -> None:
        """Let go of the connections and end the watches; idempotent."""
        for answer in self._watching:  # closing its connection would not wake who reads it
            answer.content.set_exception(errors.Lost("the backend is closed"))
        await self._session.close()

    # --- pods ---

    async def list_pods(self, selector: str) -> AsyncGenerator[Page, None]:
        """Yield all pods page by page; only who comes to the end without an error has them all."""
        query = {"labelSelector": selector, "limit": str(self._told.page_size)}
        empty = True
        while True:
            page = await self._json(
                "list", "pods", query=query, timeout_s=self._told.list_timeout_s
            )
            found, meta = page.get("items"), page.get("metadata") or {}
            version = meta.get("resourceVersion")
            if page.get("kind") != "PodList" or not isinstance(version, str):
                raise api.Unavailable("the answer to a list is no list of pods")
            empty = empty and not found
            yield Page(pods=found or [], version=version)
            if not meta.get("continue"):
                break
            query = {**query, "continue": meta["continue"]}
        if empty:
            await self._check_namespace()

    async def find_pod(self, name: str) -> Object | None:
        """Return one pod of any owner; by a list, so that no further right is needed."""
        query = {"fieldSelector": f"metadata.name={name}"}
        page = await self._json("list", "pods", query=query)
        return next(iter(page.get("items") or []), None)

    async def events_of(self, uid: str) -> list[Object]:
        """Return what the cluster's components told of one pod, in no order."""
        query = {"fieldSelector": f"involvedObject.uid={uid}", "limit": str(_EVENTS)}
        page = await self._json("list", "events", query=query, timeout_s=_EVENTS_LIMIT_S)
        return [thing for thing in page.get("items") or [] if isinstance(thing, dict)]

    async def create_pod(self, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create a pod. Raises AlreadyExists, Rejected, NoCapacity and the others.

        A dry run passes all that the server has against it, and stores nothing.
        """
        query = {"dryRun": "All"} if dry_run else None
        return await self._json("create", "pods", query=query, body=manifest)

    async def delete_pod(self, name: str, *, uid: str, grace_s: int) -> None:
        """Begin to end this very pod. Raises NotFound when it is gone."""
        body = {"gracePeriodSeconds": grace_s, "preconditions": {"uid": uid}}
        await self._json("delete", "pods", name=name, body=body)

    async def log(self, name: str, *, container: str, tail: int) -> str:
        """Return the last lines of a container; nothing while it has not started."""
        query = {"container": container, "tailLines": str(tail), "limitBytes": str(_LOG_BYTES)}
        try:
            raw = await self._request("get", "pods/log", name=name, query=query)
        except api.Rejected:  # 400: the container waits or never was
            return ""
        return raw.decode("utf-8", "replace")

    async def watch_pods(self, selector: str, version: str) -> AsyncGenerator[list[Event], None]:
        """Yield changes in batches, first an empty one once connected; ends as the server ends.

        Raises Expired when the version is too old, Lost when the connection breaks or is silent
        too long, and the others.
        """
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(self._told.watch_timeout_s)),
        }
        limits = aiohttp.ClientTimeout(total=None, sock_read=self._told.watch_silence_s)
        async with self._answer("watch", "pods", query=query, limits=limits) as answer:
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
        await self._request("create", "secrets", body=manifest, hide=hide)

    async def delete_secret(self, name: str) -> None:
        """Delete a secret. Raises NotFound."""
        await self._request("delete", "secrets", name=name)

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
            await self._request("get", "namespaces")
        except errors.NoRight:
            return

    def _url(self, what: str, name: str | None) -> str:
        group = "apis/coordination.k8s.io/v1" if what == "leases" else "api/v1"
        base = f"{self._found.server}/{group}/namespaces/{self.namespace}"
        if what == "namespaces":
            return base
        if what.startswith("/"):
            return f"{self._found.server}{what}"
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
    ) -> Object:
        raw = await self._request(
            verb, what, name=name, query=query, body=body, timeout_s=timeout_s
        )
        try:
            answer = json.loads(raw)
        except ValueError as error:
            raise api.Unavailable(f"the answer to {verb} {what} is no JSON") from error
        if not isinstance(answer, dict):
            raise api.Unavailable(f"the answer to {verb} {what} is no object")
        return answer

    async def _request(
        self,
        verb: str,
        what: str,
        *,
        name: str | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        hide: list[str] | None = None,
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=timeout_s or self._told.request_timeout_s)
        async with self._answer(
            verb, what, name=name, query=query, body=body, limits=limits, hide=hide
        ) as answer:
            return await answer.read()

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
            token = await self._found.tokens.get(renew=renewed)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            with _lost(verb, what):
                async with self._session.request(
                    _METHODS.get(verb, "GET"),
                    self._url(what, name),
                    params=query,
                    json=body,
                    headers=headers,
                    timeout=limits,
                    allow_redirects=False,
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
        for text in answer.headers.getall("Warning", []):
            if text not in self._warned and len(self._warned) < _CHUNK:
                self._warned.add(text)
                _LOG.warning("API server warns", extra={"text": text[:256]})


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
        if self._size > _LINE_BYTES:
            raise errors.Lost(f"the watch sends a line of more than {_LINE_BYTES >> 20} MiB")
        return [line for line in complete if line.strip()]


def _event(line: bytes) -> Event:
    try:
        told = json.loads(line)
        kind, thing = told["type"], told["object"]
    except (ValueError, TypeError, KeyError) as error:
        raise errors.Expired("the watch sends something that is no event") from error
    if kind == "ERROR":
        code = thing.get("code") if isinstance(thing, dict) else None
        status = code if isinstance(code, int) else 500
        raise errors.mapped("watch", "pods", errors.Answer(status=status, body=thing))
    if not isinstance(kind, str) or not isinstance(thing, dict):
        raise errors.Expired("the watch sends something that is no event")
    return Event(kind=kind, object=thing)


async def refusal(answer: aiohttp.ClientResponse) -> errors.Answer:
    """Read what the server says of a request that it does not serve."""
    raw = (await bodies.first(answer.content, _CHUNK)).decode("utf-8", "replace")
    body: Any = raw
    with contextlib.suppress(ValueError):
        body = json.loads(raw)
    return errors.Answer(status=answer.status, body=body, headers=answer.headers)


@contextlib.contextmanager
def _lost(verb: str, what: str) -> Iterator[None]:
    """Tell what an HTTP library has to say of a broken connection in our own words."""
    try:
        yield
    except TimeoutError as error:
        raise errors.Lost(f"no answer in time to {verb} {what}") from error
    except aiohttp.ClientError as error:
        raise errors.Lost(f"cannot {verb} {what}: {_words(error)}") from error


def _clock() -> Callable[[], float]:
    return asyncio.get_running_loop().time


def _words(error: BaseException) -> str:
    """Return an error's own words; a connector's carries no secret."""
    return (str(error) or type(error).__name__)[:200]
