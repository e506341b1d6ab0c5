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
import re
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import yarl
from attrs import evolve, field, frozen
from multidict import CIMultiDictProxy

from jnlp import answers, errors
from jnlp import entries as jnlp_entries
from jnlp import secret as jnlp_secret
from jnlp.settings import ControllerAccess, Credentials
from outside import bodies, connect_errors, files, odd_json, quotes, secrets, tls, waits
from outside import text as outside_text

_HEADER_BYTES = 65536  # group headers of a large directory service exceed aiohttp's 8190
_ERROR_PAGE_BYTES = answers.PAGE_LENGTH  # the rest is not read
DOCUMENT_BYTES = 1024 * 1024
"""Of one answer that is taken whole, unpacked: parsed it takes up to 24 times as much memory."""
_SECRET_BYTES = 65536
_HEADER_LENGTH = 64  # characters of what a header tells and we keep
_COOKIE_LENGTH = 16  # a shorter one proves nobody's identity, and may be an ordinary word
_CRUMB_FIELD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CRUMB = re.compile(r"[\x21-\x7e]{1,4096}")
_NO_CRUMB_FIELD = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_CONNECTIONS = 16  # to one controller; actions beyond it wait their turn
_CRUMB_PATH = "crumbIssuer/api/json"
_WRONG = {
    "token": "is the user right, and is the token revoked or expired (since 2.548 tokens expire)?",
    "password": "are user and password right? an API token is better",
}


@frozen(kw_only=True)
class ControllerAnswer:
    """A successful answer: ``json``, ``entries`` or ``text`` by the method that asked.

    All may be secret.
    """

    status: int
    json: Any = field(default=None, repr=False)
    entries: jnlp_entries.Entries = field(default=jnlp_entries.NONE, repr=False)
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


class ControllerSession:
    """One client session to one controller; use as an async context manager or ``aclose`` it."""

    def __init__(self, settings: ControllerAccess) -> None:
        """Raise ``ValueError`` for a URL or CA file that cannot be used."""
        self.url = _base_url(settings.url)
        self.version = ""
        self.session = ""
        self._settings = settings
        self._ssl = _ssl(settings)
        self._credentials = settings.credentials
        if settings.credentials is not None:
            secrets.register(settings.credentials.secret.reveal())
        if settings.proxy:
            secrets.register(yarl.URL(settings.proxy).password)
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

    async def get_json(
        self, path: str, params: Mapping[str, str] | None = None, *, limit: int = DOCUMENT_BYTES
    ) -> ControllerAnswer:
        """GET a JSON document; ``path`` is relative to the controller's URL and quoted.

        Raises any ``JenkinsError``; ``Unexpected`` for what is not JSON, or more than ``limit``
        bytes of it.
        """
        what = f"GET {path}"
        reply = await self._get_json(
            what, path, params, limit=min(limit, self._settings.max_bytes)
        )
        try:
            document = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise errors.Unexpected(
                f"{what}: the answer is {odd_json.words(error)}", status=reply.status
            ) from error
        return _answer(reply, document=document)

    async def get_list(self, path: str, key: str, params: Mapping[str, str]) -> ControllerAnswer:
        """GET the list that a JSON document has under ``key``, its entries not yet parsed.

        Raises any ``JenkinsError``; ``Unexpected`` when there is no such list.
        """
        what = f"GET {path}"
        reply = await self._get_json(what, path, params, limit=self._settings.max_bytes)
        try:
            entries = jnlp_entries.Entries(reply.body, key)
        except ValueError as error:
            raise errors.Unexpected(
                f"{what}: {error}; is the URL a Jenkins controller's?", status=reply.status
            ) from None
        return _answer(reply, entries=entries)

    async def get_text(
        self, path: str, params: Mapping[str, str] | None = None
    ) -> ControllerAnswer:
        """GET a text document in UTF-8; raises any ``JenkinsError``."""
        what = f"GET {path}"
        reply = await self._get(what, path, params, limit=DOCUMENT_BYTES)
        try:
            text = reply.body.decode("utf-8")
        except UnicodeDecodeError:
            raise errors.Unexpected(f"{what}: the text is not UTF-8", status=200) from None
        return _answer(reply, text=text)

    async def is_folder(self, path: str) -> bool:
        """Tell whether the controller has something below a path: it redirects to it with a "/".

        Raises any ``JenkinsError`` but ``NotFound``, which says no.
        """
        what = f"GET {path}"
        reply = await self._request(what, path, limit=DOCUMENT_BYTES)
        target = reply.headers.get("Location", "").partition("?")[0]
        if 300 <= reply.status < 400 and target.endswith(f"/{path}/"):
            return True
        error = self._judge(what, path, reply, posted=False)
        if isinstance(error, errors.NotFound):
            return False
        if error is not None:
            raise error
        return True

    async def post(
        self,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/xml",
    ) -> ControllerAnswer:
        """POST a form or a body; 200, 201, 204 and 302 are success.

        With a password, a crumb that the controller no longer takes is renewed and the call made
        once more: a refused crumb means that nothing was done. Raises any ``JenkinsError``.
        """
        headers = {"Content-Type": content_type} if body is not None else {}
        return _answer(
            await self._posted(path, body if body is not None else dict(form or {}), headers)
        )

    async def _posted(self, path: str, data: Any, headers: Mapping[str, str]) -> _Reply:
        what = f"POST {path}"
        crumb = await self._current_crumb()
        reply, error = await self._post_once(what, path, data, headers, crumb)
        if error is not None and answers.lacks_crumb(error) and crumb.header:
            await self._drop_crumb(crumb)
            crumb = await self._current_crumb()
            reply, error = await self._post_once(what, path, data, headers, crumb)
        if error is None:
            return reply
        if answers.lacks_crumb(error) and not crumb.header:
            raise errors.Forbidden(
                f"{error.text}; was a password given as an API token?", status=error.status
            )
        raise error

    async def post_text(self, path: str, form: Mapping[str, str]) -> str:
        """POST a form, and return the text of the answer; may be secret. As ``post``."""
        return (await self._posted(path, dict(form), {})).body.decode("utf-8", "replace")

    # --- below: one request ----------------------------------------------------------------

    async def _get(
        self, what: str, path: str, params: Mapping[str, str] | None, *, limit: int
    ) -> _Reply:
        reply = await self._request(what, path, params=params, limit=limit)
        error = self._judge(what, path, reply, posted=False)
        if error is not None:
            raise error
        return reply

    async def _get_json(
        self, what: str, path: str, params: Mapping[str, str] | None, *, limit: int
    ) -> _Reply:
        reply = await self._get(what, path, params, limit=limit)
        kind = reply.headers.get("Content-Type", "")
        if not kind.startswith("application/json"):
            page = answers.quote(answers.said({}, _text(reply.body)), 120)
            kind = answers.quote(kind.split(";")[0], 80)
            raise errors.Unexpected(
                f"{what}: {kind or 'an answer without type'} instead of JSON ({page}); is the "
                "URL a Jenkins controller's?",
                status=reply.status,
            )
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
        error = answers.failure(what, reply.status, reply.headers, page)
        if reply.status == 401 and self._credentials is not None:
            of = "password" if self._credentials.is_password else "token"
            return errors.Unauthorized(
                f"{answers.quote(error.text, 120)}; {_WRONG[of]}", status=401
            )
        return error

    async def _request(
        self,
        what: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        limit: int = DOCUMENT_BYTES,
    ) -> _Reply:
        used = self._credentials
        reply = await self._request_once(
            what, path, params=params, data=data, headers=headers, limit=limit
        )
        if reply.status == 401 and self._has_other_secret(used):
            reply = await self._request_once(
                what, path, params=params, data=data, headers=headers, limit=limit
            )
        return reply

    def _has_other_secret(self, refused: Credentials | None) -> bool:
        """Read the secret again that was refused; return whether there is another one now.

        Nothing was done for a request that was refused, so it may be made once more.
        """
        if self._credentials != refused:
            return True  # another request has found it already
        if refused is None or refused.secret_file is None:
            return False
        try:
            text = files.secret(refused.secret_file, limit=_SECRET_BYTES)
        except (OSError, ValueError):
            return False
        secret = jnlp_secret.Secret(text)
        if len(text.splitlines()) > 1 or secret == refused.secret:
            return False
        secrets.register(text)
        self._credentials = evolve(refused, secret=secret)
        self._crumb = None
        return True

    async def _request_once(
        self,
        what: str,
        path: str,
        *,
        params: Mapping[str, str] | None,
        data: Any,
        headers: Mapping[str, str] | None,
        limit: int,
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
                    headers={**self._who_we_are(), **(headers or {})},
                    allow_redirects=False,
                    proxy=self._settings.proxy,
                ) as response,
            ):
                self._note_cookies(response)
                body = await self._body(what, response, limit)
                self.version = _told(response.headers, "X-Jenkins") or self.version
                self.session = _told(response.headers, "X-Jenkins-Session") or self.session
                return _Reply(status=response.status, headers=response.headers, body=body)
        except TimeoutError:
            failed = f"no answer within {self._settings.timeout_s:g} s"
        except aiohttp.ClientPayloadError:
            failed = "the answer was cut off"
        except aiohttp.ClientResponseError as error:
            # what follows may be what the other side sent, in a form that nobody knows
            failed = f"no HTTP answer: {error.message.splitlines()[0].split(chr(39))[0][:80]}"
        except (aiohttp.ClientError, OSError) as error:
            failed = connect_errors.words(error)
        # neither chained nor raised above: the library's errors show the request's headers in
        # their repr, and with them who we are
        raise errors.Unreachable(f"{what}: {failed}")

    async def _body(self, what: str, response: aiohttp.ClientResponse, limit: int) -> bytes:
        try:
            if response.status >= 300:
                return (await bodies.begin(response, _ERROR_PAGE_BYTES))[0]
            return await bodies.read(response, limit)
        except (bodies.TooLarge, bodies.Unreadable) as error:
            raise errors.Unexpected(f"{what}: {error}", status=response.status) from None

    def _client(self) -> aiohttp.ClientSession:
        if self._http is None:
            jar: aiohttp.abc.AbstractCookieJar = aiohttp.DummyCookieJar()
            if self._credentials is not None and self._credentials.is_password:
                jar = aiohttp.CookieJar(unsafe=True)  # also for controllers without a name
            self._http = aiohttp.ClientSession(
                headers={"Accept-Language": "en", "Accept-Encoding": "gzip"},
                auto_decompress=False,  # a limit counts what is unpacked
                cookie_jar=jar,
                connector=aiohttp.TCPConnector(ssl=self._ssl, limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None),  # asyncio.timeout rules
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
            )
        return self._http

    def _who_we_are(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        login = f"{self._credentials.user}:{self._credentials.secret.reveal()}".encode()
        return {"Authorization": f"Basic {base64.b64encode(login).decode()}"}

    def _note_cookies(self, response: aiohttp.ClientResponse) -> None:
        """Keep out of all outputs what stands for our login."""
        for cookie in response.cookies.values():
            if _COOKIE_LENGTH <= len(cookie.value) <= _SECRET_BYTES:
                secrets.register(cookie.value, pool="session of a controller")

    # --- crumbs ----------------------------------------------------------------------------

    async def _current_crumb(self) -> _Crumb:
        if self._credentials is None or not self._credentials.is_password:
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
        secrets.register(value[:_SECRET_BYTES], pool="session of a controller")
        good = _CRUMB_FIELD.fullmatch(header) and _CRUMB.fullmatch(value)
        if not good or header.lower() in _NO_CRUMB_FIELD:
            raise errors.Unexpected(f"GET {_CRUMB_PATH}: the crumb cannot be sent in a header")
        return _Crumb(header=header, value=value, session=self.session)


def _base_url(text: str) -> str:
    url = yarl.URL(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(
            f"controller URL {quotes.shown(text, 256)}: http://HOST/ or https://HOST/ expected"
        )
    if url.user is not None or url.password is not None:
        raise ValueError("controller URL: user and password belong into the credentials")
    if url.query_string or url.fragment:
        raise ValueError(
            f"controller URL {quotes.shown(text, 256)}: no query and no fragment allowed"
        )
    return str(url).rstrip("/") + "/"


def _ssl(settings: ControllerAccess) -> ssl.SSLContext | bool:
    if not settings.verify:
        return False
    if settings.ca_file is None:
        return True
    try:
        return tls.trusting(settings.ca_file)
    except OSError as error:
        raise ValueError(
            f"CA file {quotes.shown(settings.ca_file)} cannot be used: {error}"
        ) from error


def _answer(
    reply: _Reply,
    *,
    document: Any = None,
    entries: jnlp_entries.Entries = jnlp_entries.NONE,
    text: str = "",
) -> ControllerAnswer:
    return ControllerAnswer(
        status=reply.status,
        json=document,
        entries=entries,
        text=text,
        version=_told(reply.headers, "X-Jenkins"),
        session=_told(reply.headers, "X-Jenkins-Session"),
        date=_date(reply.headers.get("Date", "")[:_HEADER_LENGTH]),
    )


def _told(headers: Mapping[str, str], name: str) -> str:
    return outside_text.clean(headers.get(name, ""), _HEADER_LENGTH)


def _date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")
