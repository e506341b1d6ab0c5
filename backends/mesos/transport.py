"""The wire: which master leads, the event stream, calls, and the pages of masters and agents.

Knows HTTP, heartbeats, time limits and credentials; refuses to know what events and calls mean.
Everything that goes wrong is one of the contract's errors, in the remote's words. Nothing is
tried twice here: the caller has the back-off.
"""

import base64
import contextlib
import json
import pathlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from attrs import frozen

from backends import api
from backends.mesos import calls, recordio, settings, zookeeper
from outside import bodies, waits

_SCHEDULER = "/api/v1/scheduler"
_STREAM_ID = "Mesos-Stream-Id"
_REDIRECTS_MAX = 4
_HEARTBEATS_MISSED = 3
_FIRST_HEARTBEAT_S = 15.0  # until the master has said how often it beats
_TEXT_MAX = 4096
_PAGE_MAX = 64 << 20


class BadCall(api.Rejected):
    """The master cannot read a call, 400: another try will end the same way."""


class LostStream(api.Unavailable):
    """The master no longer connects our calls to our stream."""


@frozen(kw_only=True)
class Stream:
    """One open subscription."""

    base: str
    id: str
    response: aiohttp.ClientResponse


class Link:
    """The HTTP side of one cluster; made without a loop, used within one."""

    def __init__(self, configured: settings.MesosSettings) -> None:
        self._settings = configured
        self._zookeeper: zookeeper.Address | None = None
        self._masters: list[str] = []
        if configured.master.startswith("zk://"):
            self._zookeeper = zookeeper.parse(configured.master)
        else:
            self._masters = [
                (one if "://" in one else f"http://{one}").rstrip("/")
                for one in configured.master.split(",")
            ]
        self._leader: str | None = None
        self._next = 0
        self._made: aiohttp.ClientSession | None = None

    @property
    def scheme(self) -> str:
        """How the cluster is spoken to; its agents as its masters."""
        if self._zookeeper is None:
            return urllib.parse.urlsplit(self._leader or self._masters[0]).scheme
        return "http" if self._settings.ca_file is None else "https"

    # --- the scheduler API ---

    @contextlib.asynccontextmanager
    async def subscribed(self, call: calls.Call) -> AsyncIterator[Stream]:
        """Open a stream at the leader. Raises any ``BackendError``."""
        response, base = await self._at_leader("POST", _SCHEDULER, body=calls.encode(call))
        try:
            if response.status != 200:
                raise _refusal(response.status, await _text(response))
            yield Stream(base=base, id=response.headers.get(_STREAM_ID, ""), response=response)
        finally:
            response.close()

    async def events(self, stream: Stream) -> AsyncIterator[Mapping[str, Any]]:
        """Yield events until the stream ends; a master that falls silent is given up.

        Raises Unavailable when it does not end as a stream should.
        """
        decoder = recordio.Decoder()
        silence_s = _HEARTBEATS_MISSED * _FIRST_HEARTBEAT_S
        try:
            while True:
                async with waits.timeout(silence_s):
                    data = await stream.response.content.readany()
                if not data:
                    break
                for record in decoder.feed(data):
                    event = json.loads(record)
                    beat = event.get("subscribed", {}).get("heartbeat_interval_seconds")
                    silence_s = _HEARTBEATS_MISSED * beat if beat else silence_s
                    yield event
        except TimeoutError:
            self._forget_leader()
            raise api.Unavailable(
                f"the master has not sent a heartbeat for {silence_s:g} s"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            self._forget_leader()
            raise api.Unavailable(f"the master's stream was cut: {_words(error)}") from error
        except ValueError as error:
            raise api.Unavailable(f"the master's stream cannot be read: {error}") from error
        if not decoder.is_between_records:
            raise api.Unavailable("the master's stream ended inside a record")

    async def send(self, stream: Stream, call: calls.Call) -> None:
        """Say one call on an open stream; 202 only means that it was read."""
        status, text = await self._once(
            "POST",
            stream.base + _SCHEDULER,
            body=calls.encode(call),
            headers={_STREAM_ID: stream.id},
        )
        if status in {200, 202}:
            return
        if status in {307, 403} or (status == 400 and "stream ID" in text):
            raise LostStream(f"the master does not take calls from this stream: {text}")
        raise _refusal(status, text)

    # --- pages ---

    async def page(self, path: str, **query: str) -> Any:
        """Return a JSON page of the leading master."""
        response, _ = await self._at_leader("GET", path, query=query)
        async with response:
            return await self._json(response)

    async def agent_page(self, base: str, page: str, **query: str) -> Any:
        """Return a JSON page of an agent; None if it has none such."""
        url = f"{base}{page}?{urllib.parse.urlencode(query)}"
        try:
            async with waits.timeout(self._settings.request_timeout_s):
                async with self._session().get(url, allow_redirects=False) as response:
                    if response.status == 404:
                        return None
                    return await self._json(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise api.Unavailable(f"agent {base} does not answer: {_words(error)}") from error

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        if self._made is not None:
            await self._made.close()

    # --- inside ---

    async def _at_leader(
        self, method: str, path: str, *, body: bytes | None = None, query: Mapping[str, str] = {}
    ) -> tuple[aiohttp.ClientResponse, str]:
        """Ask the leader, whoever that is: masters that do not lead tell by 307 who does."""
        base = await self._find()
        suffix = f"?{urllib.parse.urlencode(query)}" if query else ""
        for _ in range(_REDIRECTS_MAX):
            try:
                async with waits.timeout(self._settings.request_timeout_s):
                    response = await self._session().request(
                        method,
                        base + path + suffix,
                        data=body,
                        headers=_headers(body),
                        allow_redirects=False,
                    )
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                self._forget_leader()
                raise api.Unavailable(f"master {base}: {_words(error)}") from error
            if response.status != 307:
                self._leader = base
                return response, base
            location = response.headers.get("Location", "")
            response.close()
            base = _redirected(base, location)
        self._forget_leader()
        raise api.Unavailable("the masters send us from one to the other; nobody leads yet")

    async def _once(
        self, method: str, url: str, *, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str]:
        try:
            async with waits.timeout(self._settings.request_timeout_s):
                async with self._session().request(
                    method,
                    url,
                    data=body,
                    headers=_headers(body) | dict(headers),
                    allow_redirects=False,
                ) as response:
                    return response.status, await _text(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._forget_leader()
            raise api.Unavailable(f"the master does not answer: {_words(error)}") from error

    async def _find(self) -> str:
        """Return the leader last seen, or somebody to ask."""
        if self._leader is not None:
            return self._leader
        if self._zookeeper is not None:
            try:
                host, port = await zookeeper.leader(
                    self._zookeeper, timeout_s=self._settings.request_timeout_s
                )
            except zookeeper.ZooKeeperError as error:
                raise api.Unavailable(f"ZooKeeper: {error}") from error
            return f"{self.scheme}://{host}:{port}"
        return self._masters[self._next % len(self._masters)]

    def _forget_leader(self) -> None:
        """Ask the next one next time."""
        self._leader = None
        self._next += 1

    async def _json(self, response: aiohttp.ClientResponse) -> Any:
        if response.status != 200:
            raise _refusal(response.status, await _text(response))
        try:
            async with waits.timeout(self._settings.request_timeout_s):
                return json.loads(await _body(response))
        except ValueError as error:
            raise api.Unavailable(f"{response.url.path} is not JSON: {error}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise api.Unavailable(f"{response.url.path}: {_words(error)}") from error

    def _session(self) -> aiohttp.ClientSession:
        if self._made is None:
            told = self._settings
            headers = {}
            if told.principal is not None and told.secret_file is not None:
                pair = f"{told.principal}:{_secret(told.secret_file)}".encode()
                headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
            self._made = aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(ssl=_trusted(told.ca_file), limit=16),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._made


def _secret(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise api.Rejected(f"secret_file {path!r} cannot be read: {_reason(error)}") from error


def _trusted(ca_file: str | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        words = "it holds no certificate" if isinstance(error, ssl.SSLError) else _reason(error)
        raise api.Rejected(f"ca_file {ca_file!r} cannot be used: {words}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _headers(body: bytes | None) -> dict[str, str]:
    """The type must be exact: with a charset it is answered 415 (recording 12)."""
    headers = {"Accept": "application/json"}
    return headers if body is None else headers | {"Content-Type": "application/json"}


def _redirected(base: str, location: str) -> str:
    """Return the base of a scheme-relative Location such as ``//host:5050/master/...``."""
    parts = urllib.parse.urlsplit(urllib.parse.urljoin(base, location))
    if not location or not parts.netloc:
        raise api.Unavailable(f"the master at {base} names no leader")
    if base.startswith("https:") and parts.scheme != "https":
        raise api.Unavailable(f"the master at {base} sends us to a leader without TLS")
    return f"{parts.scheme}://{parts.netloc}"


def _refusal(status: int, text: str) -> api.BackendError:
    words = " ".join(text.split())[:200] or f"HTTP {status}"
    if status in {401, 403}:
        return api.Unauthorized(
            f"the master does not let us: {words}; hint: `principal` and `secret_file`"
        )
    if 400 <= status < 500:
        return BadCall(f"the master cannot use what we say: {words}")
    return api.Unavailable(f"the master says {status}: {words}")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    data = await bodies.first(response.content, _PAGE_MAX + 1)
    if len(data) > _PAGE_MAX:
        raise api.Unavailable(f"{response.url.path} is larger than {_PAGE_MAX >> 20} MiB")
    return data


async def _text(response: aiohttp.ClientResponse) -> str:
    return (await bodies.first(response.content, _TEXT_MAX)).decode(errors="replace")


def _words(error: BaseException) -> str:
    """Say it shortly; of a certificate, what is wrong with it and where to look."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        said = getattr(inner, "verify_message", None) or str(inner)
        return f"its certificate is not trusted: {said[:120]}; hint: `ca_file`, `master`"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"it does not speak TLS as we do: {str(error)[:120]}; hint: http:// or https://"
    return str(error)[:200] or type(error).__name__
