"""The one HTTP session to one controller: who we are, how long we wait, what an answer means.

Knows authentication, crumbs, time limits and sizes; refuses to know any endpoint but the crumb's,
and never follows a redirect. No type of the HTTP library leaves this module, no secret either.

Facts: with an API token no crumb is wanted; with a password a crumb **and** the cookie of the
session it was made in (recording ``auth/01-crumb-token-errors``). Every call with a token makes
the controller save a file, so calls are few and narrow.
"""

import asyncio
import base64
import email.utils
import json
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import yarl
from attrs import field, frozen
from multidict import CIMultiDictProxy

from jnlp import answers, errors
from jnlp.settings import Settings
from outside import waits

_HEADER_BYTES = 65536  # group headers of a large directory service exceed aiohttp's 8190
_ERROR_PAGE_BYTES = 262144
_CONNECTIONS = 16  # to one controller; actions beyond it wait their turn
_CRUMB_PATH = "crumbIssuer/api/json"


@frozen(kw_only=True)
class Answer:
    """A successful answer. ``json`` or ``text`` by the method that asked; both may be secret."""

    status: int
    json: Any = field(default=None, repr=False)
    text: str = field(default="", repr=False)
    version: str = ""  # X-Jenkins; empty where the controller leaves it out
    session: str = ""  # X-Jenkins-Session, changes at every controller start
    date: float | None = None  # the controller's clock, POSIX seconds, cut to whole ones


@frozen(kw_only=True)
class _Crumb:
    header: str = ""  # empty: this controller wants none
    value: str = field(default="", repr=False)
    session: str = ""


@frozen(kw_only=True)
class _Reply:
    status: int
    headers: CIMultiDictProxy[str] = field(repr=False)
    body: bytes = field(repr=False)


class Session:
    """One client session to one controller; use as an async context manager or ``aclose`` it."""

    def __init__(self, settings: Settings) -> None:
        """Raise ``ValueError`` for a URL or CA file that cannot be used."""
        self.url = _base_url(settings.url)
        self.version = ""
        self.session = ""
        self._settings = settings
        self._ssl = _ssl(settings)
        self._http: aiohttp.ClientSession | None = None
        self._crumb: _Crumb | None = None
        self._crumb_lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections; idempotent."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def get_json(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET a JSON document; ``path`` is relative to the controller's URL and quoted.

        Raises any ``JenkinsError``; ``Unexpected`` for what is not JSON.
        """
        what = f"GET {path}"
        reply = await self._get(what, path, params)
        kind = reply.headers.get("Content-Type", "")
        if not kind.startswith("application/json"):
            page = answers.quote(answers.said({}, _text(reply.body)), self._secrets())
            raise errors.Unexpected(
                f"{what}: {kind.split(';')[0] or 'an answer without type'} instead of JSON "
                f"({page[:120]}); is the URL a Jenkins controller's?",
                status=reply.status,
            )
        try:
            document = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise errors.Unexpected(f"{what}: invalid JSON", status=reply.status) from error
        return _answer(reply, document=document)

    async def get_text(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """GET a text document in UTF-8; raises any ``JenkinsError``."""
        what = f"GET {path}"
        reply = await self._get(what, path, params)
        try:
            text = reply.body.decode("utf-8")
        except UnicodeDecodeError:
            raise errors.Unexpected(f"{what}: the text is not UTF-8", status=200) from None
        return _answer(reply, text=text)

    async def post(
        self,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/xml",
    ) -> Answer:
        """POST a form or a body; 200, 201, 204 and 302 are success.

        With a password, a crumb that the controller no longer takes is renewed and the call made
        once more: a refused crumb means that nothing was done. Raises any ``JenkinsError``.
        """
        what = f"POST {path}"
        headers = {"Content-Type": content_type} if body is not None else {}
        data: Any = body if body is not None else dict(form or {})
        crumb = await self._current_crumb()
        reply, error = await self._post_once(what, path, data, headers, crumb)
        if error is not None and answers.lacks_crumb(error) and crumb.header:
            await self._drop_crumb(crumb)
            crumb = await self._current_crumb()
            reply, error = await self._post_once(what, path, data, headers, crumb)
        if error is None:
            return _answer(reply)
        if answers.lacks_crumb(error) and not crumb.header:
            raise errors.Forbidden(
                f"{error.text}; was a password given as an API token?", status=error.status
            )
        raise error

    # --- below: one request ----------------------------------------------------------------

    async def _get(self, what: str, path: str, params: Mapping[str, str] | None) -> _Reply:
        reply = await self._request(what, path, params=params)
        error = self._judge(what, path, reply, posted=False)
        if error is not None:
            raise error
        return reply

    async def _post_once(
        self, what: str, path: str, data: Any, headers: Mapping[str, str], crumb: _Crumb
    ) -> tuple[_Reply, errors.JenkinsError | None]:
        if crumb.header:
            headers = {**headers, crumb.header: crumb.value}
        reply = await self._request(what, path, data=data, headers=headers)
        return reply, self._judge(what, path, reply, posted=True)

    def _judge(
        self, what: str, path: str, reply: _Reply, *, posted: bool
    ) -> errors.JenkinsError | None:
        if 300 <= reply.status < 400:
            location = reply.headers.get("Location", "")
            requested = yarl.URL(self.url + path, encoded=True).raw_path
            wrong = answers.redirect(what, requested, location, posted=posted)
            if wrong is not None:
                return wrong
        if reply.status == 200 or (posted and reply.status in answers.POST_SUCCESS):
            return None
        if reply.status < 400:
            return errors.Unexpected(f"{what}: status {reply.status}", status=reply.status)
        page = _text(reply.body)
        return answers.failure(what, reply.status, reply.headers, page, self._secrets())

    async def _request(
        self,
        what: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Reply:
        url = yarl.URL(self.url + path, encoded=True)
        if params:
            url = url.update_query(params)
        try:
            async with (
                waits.timeout(self._settings.timeout_s),
                self._client().request(
                    "GET" if data is None else "POST",
                    url,
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                    proxy=self._settings.proxy,
                ) as response,
            ):
                body = await self._body(what, response)
                self.version = response.headers.get("X-Jenkins", self.version)
                self.session = response.headers.get("X-Jenkins-Session", self.session)
                return _Reply(status=response.status, headers=response.headers, body=body)
        except TimeoutError:
            failed = f"no answer within {self._settings.timeout_s:g} s"
        except aiohttp.ClientPayloadError:
            failed = "the answer was cut off"
        except aiohttp.ClientResponseError as error:
            failed = f"{error.status} {error.message}"
        except (aiohttp.ClientError, OSError) as error:
            failed = str(error) or type(error).__name__
        # neither chained nor raised above: the library's errors show the request's headers in
        # their repr, and with them who we are
        raise errors.Unreachable(answers.quote(f"{what}: {failed}", self._secrets()))

    async def _body(self, what: str, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for part in response.content.iter_chunked(65536):
            body += part
            if response.status >= 400 and len(body) > _ERROR_PAGE_BYTES:
                break  # the sentence that counts is near the top; the rest is not read
            if len(body) > self._settings.max_bytes:
                raise errors.Unexpected(
                    f"{what}: the answer is larger than {self._settings.max_bytes} bytes",
                    status=response.status,
                )
        return bytes(body)

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None:
            credentials = self._settings.credentials
            headers = {"Accept-Language": "en", "Accept-Encoding": "gzip"}
            jar: aiohttp.abc.AbstractCookieJar = aiohttp.DummyCookieJar()
            if credentials is not None:
                login = f"{credentials.user}:{credentials.secret.reveal()}".encode()
                headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
                if credentials.is_password:
                    jar = aiohttp.CookieJar(unsafe=True)  # also for controllers without a name
            self._http = aiohttp.ClientSession(
                headers=headers,
                cookie_jar=jar,
                connector=aiohttp.TCPConnector(ssl=self._ssl, limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None),  # waits.timeout rules
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            )
        return self._http

    def _secrets(self) -> tuple[str, ...]:
        credentials = self._settings.credentials
        crumb = self._crumb.value if self._crumb is not None else ""
        proxy = yarl.URL(self._settings.proxy).password if self._settings.proxy else None
        return (credentials.secret.reveal() if credentials else "", crumb, proxy or "")

    # --- crumbs ----------------------------------------------------------------------------

    async def _current_crumb(self) -> _Crumb:
        credentials = self._settings.credentials
        if credentials is None or not credentials.is_password:
            return _Crumb()
        async with self._crumb_lock:
            if self._crumb is None or self._crumb.session != self.session:
                self._client().cookie_jar.clear()
                self._crumb = await self._fetch_crumb()
            return self._crumb

    async def _drop_crumb(self, refused: _Crumb) -> None:
        async with self._crumb_lock:
            if self._crumb is refused:  # else another call has renewed it already
                self._crumb = None

    async def _fetch_crumb(self) -> _Crumb:
        try:
            document = (await self.get_json(_CRUMB_PATH)).json
        except errors.NotFound:  # protection against forged requests is switched off
            return _Crumb(session=self.session)
        header = document.get("crumbRequestField") if isinstance(document, dict) else None
        value = document.get("crumb") if isinstance(document, dict) else None
        if not isinstance(header, str) or not isinstance(value, str):
            raise errors.Unexpected(f"GET {_CRUMB_PATH}: no crumb in the answer")
        return _Crumb(header=header, value=value, session=self.session)


def _base_url(text: str) -> str:
    url = yarl.URL(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"controller URL {text[:256]!r}: http://HOST/ or https://HOST/ expected")
    if url.user is not None or url.password is not None:
        raise ValueError("controller URL: user and password belong into the credentials")
    if url.query_string or url.fragment:
        raise ValueError(f"controller URL {text[:256]!r}: no query and no fragment allowed")
    return str(url).rstrip("/") + "/"


def _ssl(settings: Settings) -> ssl.SSLContext | bool:
    if not settings.verify:
        return False
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"CA file {settings.ca_file!r} cannot be used: {error}") from error


def _answer(reply: _Reply, *, document: Any = None, text: str = "") -> Answer:
    return Answer(
        status=reply.status,
        json=document,
        text=text,
        version=reply.headers.get("X-Jenkins", ""),
        session=reply.headers.get("X-Jenkins-Session", ""),
        date=_date(reply.headers.get("Date", "")),
    )


def _date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
