"""The wire: which master leads, the event stream, calls, and the pages of masters and agents.

Knows HTTP, heartbeats, time limits and credentials; refuses to know what events and calls mean.
Everything that goes wrong is one of the contract's errors, in the remote's words. Nothing is
tried twice here: the caller has the back-off.

Who is told what: our credentials, and calls, which hold the agents' secrets, go to the masters
that are configured, or to the one that ZooKeeper says leads, over the configured scheme; a
redirect only ever chooses among them. Agents are anybody who has registered: they are asked
without credentials, and followed nowhere. Every answer has a limit, unpacked.
"""

import asyncio
import base64
import contextlib
import json
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from attrs import frozen

from backends import api
from backends.mesos import calls, recordio, settings, zookeeper
from outside import (
    bodies,
    connect_errors,
    files,
    odd_json,
    quotes,
    secrets,
    text,
    tls,
    typed,
    waits,
)

_SCHEDULER = "/api/v1/scheduler"
_STREAM_ID = "Mesos-Stream-Id"
_REDIRECTS_MAX = 4
_HEARTBEATS_MISSED = 3
_FIRST_HEARTBEAT_S = 15.0  # until the master has said how often it beats
_HEARTBEAT_S = (0.05, 300.0)
_TEXT_MAX = 4096
_PAGE_MAX = 16 << 20  # of /slaves, 6000 agents
_SECRET_MAX = 64 << 10
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


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
            secrets.register((self._zookeeper.credentials or "").partition(":")[2])
        else:
            self._masters = [
                (one if "://" in one else f"http://{one}").rstrip("/")
                for one in configured.master.split(",")
            ]
        self._leader: str | None = None
        self._next = 0
        self._open_session: aiohttp.ClientSession | None = None
        self._credentials: dict[str, str] = {}

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
                raise _refusal(response.status, await self._words_of(response))
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise api.Unavailable("the master packs its stream, which was not asked for")
            yield Stream(base=base, id=response.headers.get(_STREAM_ID, ""), response=response)
        finally:
            response.close()

    async def events(self, stream: Stream) -> AsyncIterator[Mapping[str, Any] | None]:
        """Yield events until the stream ends; None: one that cannot be read.

        A master that sends no whole event for a while is given up. Raises Unavailable when the
        stream does not end as it should.
        """
        decoder = recordio.Decoder()
        silence_s = _HEARTBEATS_MISSED * _FIRST_HEARTBEAT_S
        now = asyncio.get_running_loop().time
        last = now()
        try:
            while True:
                async with waits.timeout(last + silence_s - now()):
                    data = await stream.response.content.readany()
                if not data:
                    break
                for record in decoder.feed(data):
                    last = now()
                    event = _event(record)
                    beat = _heartbeat_s(event)
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
        except recordio.FramingError as error:
            reason = text.clean(f"the master's stream cannot be read: {error}")
            raise api.Unavailable(reason) from error
        if not decoder.is_between_records:
            raise api.Unavailable("the master's stream ended inside a record")

    async def send(self, stream: Stream, call: calls.Call) -> None:
        """Say one call on an open stream; 202 only means that it was read."""
        status, words = await self._once(
            "POST",
            stream.base + _SCHEDULER,
            body=calls.encode(call),
            headers={_STREAM_ID: stream.id},
        )
        if status in {200, 202}:
            return
        if status in _REDIRECTS | {403} or (status == 400 and "stream ID" in words):
            raise LostStream(f"the master does not take calls from this stream: {words}")
        raise _refusal(status, words)

    # --- pages ---

    async def page(self, path: str, **query: str) -> Any:
        """Return a JSON page of the leading master."""
        response, _ = await self._at_leader("GET", path, query=query)
        async with response:
            return await self._json(response)

    async def agent_page(self, base: str, page: str, **query: str) -> Any:
        """Return a JSON page of an agent, asked without credentials; None if it has none such."""
        if not base:
            raise api.Unavailable("the agent's address is not known")
        url = f"{base}{page}?{urllib.parse.urlencode(query)}"
        try:
            async with waits.timeout(self._settings.request_timeout_s):
                async with self._session().get(url, allow_redirects=False) as response:
                    if response.status == 404:
                        return None
                    if response.status in {401, 403}:
                        raise api.Unauthorized(
                            "the agent shows its sandboxes to nobody without credentials, and "
                            "agents get none of ours"
                        )
                    return await self._json(response, who="agent")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise api.Unavailable(f"agent {base} does not answer: {_words(error)}") from error

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        if self._open_session is not None:
            await self._open_session.close()

    # --- inside ---

    async def _at_leader(
        self, method: str, path: str, *, body: bytes | None = None, query: Mapping[str, str] = {}
    ) -> tuple[aiohttp.ClientResponse, str]:
        """Ask the leader, whoever that is: masters that do not lead tell by 307 who does."""
        base = await self._find()
        asked: list[str] = []
        suffix = f"?{urllib.parse.urlencode(query)}" if query else ""
        for _ in range(_REDIRECTS_MAX + len(self._masters)):
            asked.append(base)
            try:
                async with waits.timeout(self._settings.request_timeout_s):
                    response = await self._session().request(
                        method,
                        base + path + suffix,
                        data=body,
                        headers=self._headers(body),
                        allow_redirects=False,
                    )
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                self._forget_leader()
                raise api.Unavailable(f"master {base}: {_words(error)}") from error
            if response.status not in _REDIRECTS:
                self._leader = base
                return response, base
            named = response.headers.get("Location", "")
            response.close()
            try:
                base = await self._after(base, named, asked)
            except api.BackendError:
                self._forget_leader()
                raise
        self._forget_leader()
        raise api.Unavailable("the masters send us from one to the other; nobody leads yet")

    async def _after(self, base: str, named: str, asked: list[str]) -> str:
        """Return whom to ask when ``base`` names another one: only somebody we know anyway."""
        where = _origin(_joined(base, named))
        if where is None:
            raise api.Unavailable(f"the master at {base} names no leader")
        shown = text.clean(f"{where[0]}://{where[1]}:{where[2]}", 120)
        if self._zookeeper is not None:
            leader = await self._ask(self._zookeeper)
            if _origin(leader) == _origin(base):
                raise api.Unavailable(f"ZooKeeper says that {base} leads, which says {shown}")
            return leader
        for one in self._masters:
            if _origin(one) == where:
                return one
        # the names in `master` need not be those that masters know each other by
        for one in self._masters:
            if one not in asked:
                return one
        if base.startswith("https:") and where[0] != "https":
            raise api.Unavailable(
                f"the master at {base} sends us to a leader without TLS: {shown}"
            )
        raise api.Unavailable(
            f"the master at {base} says that {shown} leads, which is not in `master`; hint: name "
            "every master there: nobody else gets credentials and secrets"
        )

    async def _once(
        self, method: str, url: str, *, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, str]:
        try:
            async with waits.timeout(self._settings.request_timeout_s):
                async with self._session().request(
                    method,
                    url,
                    data=body,
                    headers=self._headers(body) | dict(headers),
                    allow_redirects=False,
                ) as response:
                    return response.status, await self._words_of(response)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._forget_leader()
            raise api.Unavailable(f"the master does not answer: {_words(error)}") from error

    async def _find(self) -> str:
        """Return the leader last seen, or somebody to ask."""
        if self._leader is not None:
            return self._leader
        if self._zookeeper is not None:
            return await self._ask(self._zookeeper)
        return self._masters[self._next % len(self._masters)]

    async def _ask(self, address: zookeeper.Address) -> str:
        """Return the master that ZooKeeper says leads."""
        try:
            host, port = await zookeeper.leader(
                address, timeout_s=self._settings.request_timeout_s
            )
        except zookeeper.ZooKeeperError as error:
            raise api.Unavailable(text.clean(f"ZooKeeper: {error}")) from error
        return f"{self.scheme}://{host}:{port}"

    def _forget_leader(self) -> None:
        """Ask the next one next time."""
        self._leader = None
        self._next += 1

    async def _json(self, response: aiohttp.ClientResponse, *, who: str = "master") -> Any:
        if response.status != 200:
            raise _refusal(response.status, await self._words_of(response), who=who)
        page = f"the {who}'s page {response.url.path}"
        try:
            async with waits.timeout(self._settings.request_timeout_s):
                return json.loads(await bodies.read(response, _PAGE_MAX))
        except (bodies.TooLarge, bodies.Unreadable) as error:
            raise api.Unavailable(text.clean(f"{page}: {error}")) from error
        except (ValueError, RecursionError) as error:
            raise api.Unavailable(f"{page} is {odd_json.words(error)}") from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise api.Unavailable(f"{page}: {_words(error)}") from error

    async def _words_of(self, response: aiohttp.ClientResponse) -> str:
        """Return what an answer says, shortly; empty if that cannot be read."""
        try:
            async with waits.timeout(self._settings.request_timeout_s):
                data, _ = await bodies.begin(response, _TEXT_MAX)
        except (bodies.Unreadable, TimeoutError, aiohttp.ClientError, OSError):
            return ""
        return text.clean(data.decode(errors="replace"))

    def _headers(self, body: bytes | None) -> dict[str, str]:
        """Return what a master is told; agents are told nothing of it.

        The type must be exact: with a charset it is answered 415 (recording 12).
        """
        self._session()  # reads the secret
        headers = {"Accept": "application/json"}
        if body is not None:
            headers |= {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        return headers | self._credentials

    def _session(self) -> aiohttp.ClientSession:
        if self._open_session is None:
            configured = self._settings
            if configured.principal is not None and configured.secret_file is not None:
                self._credentials = _credentials(configured.principal, configured.secret_file)
            self._open_session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    ssl=_trusted(configured.ca_file, configured.tls_ciphers), limit=16
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._open_session


def _event(record: bytes) -> Mapping[str, Any] | None:
    """Return what a record says; None if that cannot be read."""
    try:
        event = json.loads(record)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _heartbeat_s(event: Mapping[str, Any] | None) -> float | None:
    told = (event or {}).get("subscribed")
    beat = told.get("heartbeat_interval_seconds") if isinstance(told, dict) else None
    return typed.number(beat, *_HEARTBEAT_S)


def _credentials(principal: str, path: str) -> dict[str, str]:
    try:
        secret = files.secret(path, limit=_SECRET_MAX)
    except (OSError, UnicodeError) as error:
        raise api.Rejected(
            f"secret_file {quotes.shown(path)} cannot be read: {_reason(error)}",
            reach=api.Reach.BACKEND,
        ) from error
    told = base64.b64encode(f"{principal}:{secret}".encode()).decode()
    secrets.register(secret, told)
    return {"Authorization": f"Basic {told}"}


def _trusted(ca_file: str | None, ciphers: str | None) -> ssl.SSLContext | bool:
    if ca_file is None and ciphers is None:
        return True
    context = _authorities(ca_file)
    if ciphers is not None:
        try:
            context.set_ciphers(ciphers)
        except (ssl.SSLError, ValueError) as error:
            raise api.Rejected(
                f"tls_ciphers: OpenSSL knows none of {quotes.shown(ciphers)}",
                reach=api.Reach.BACKEND,
            ) from error
    return context


def _authorities(ca_file: str | None) -> ssl.SSLContext:
    if ca_file is None:
        return ssl.create_default_context()
    try:
        return tls.trusting(ca_file)
    except OSError as error:
        words = "it holds no certificate" if isinstance(error, ssl.SSLError) else _reason(error)
        raise api.Rejected(
            f"ca_file {quotes.shown(ca_file)} cannot be used: {words}", reach=api.Reach.BACKEND
        ) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _joined(base: str, named: str) -> str:
    """Return the URL that a Location such as ``//host:5050/master`` means; empty for none."""
    try:
        return urllib.parse.urljoin(base, named) if named else ""
    except ValueError:
        return ""


def _origin(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of a URL; None for what is none of HTTP."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port


def _refusal(status: int, words: str, *, who: str = "master") -> api.BackendError:
    words = text.clean(words, 200) or f"HTTP {status}"
    if status in {401, 403}:
        return api.Unauthorized(
            f"the {who} refuses us access: {words}; hint: `principal` and `secret_file`"
        )
    if 400 <= status < 500:
        return BadCall(f"the {who} cannot use what we say: {words}")
    return api.Unavailable(f"the {who} says {status}: {words}")


def _words(error: BaseException) -> str:
    """Say it shortly; of a certificate, what is wrong with it and where to look."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        inner = error.certificate_error
        said = getattr(inner, "verify_message", None) or str(inner)
        words = text.clean(said, 120)
        return f"its certificate is not trusted: {words}; hint: `ca_file`, `master`"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        words = text.clean(str(error), 120)
        return f"it does not speak TLS as we do: {words}; hint: http:// or https://, `tls_ciphers`"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno is None:
        words = type(error.os_error).__name__
        return f"it breaks off the TLS handshake: {words}; hint: `tls_ciphers`, its own settings"
    return connect_errors.words(error)
