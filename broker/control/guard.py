"""The door of whatever changes something: who asks, may they, and is it they who ask.

Without a file of tokens there is no such endpoint. A page elsewhere cannot order by way of a
browser here: the token is no cookie, what is sent has to be JSON, and a request that says that it
comes from another site is refused. Who ordered what, and who was turned away, stands in the log.
Pure but for the file and the log; refuses to know a web framework, and what is ordered.
"""

import logging
import pathlib
import urllib.parse
from collections.abc import Callable, Mapping
from http import HTTPStatus

from attrs import frozen

from broker.control import tokens
from outside import limited_log, text

_LOG = logging.getLogger("broker.control")
_SCHEME = "bearer "
_SAME_SITE = {"same-origin", "none"}
BODY_MAX = 4096
"""Bytes of what is sent to order something."""


@frozen(kw_only=True)
class OrderRequest:
    """What is looked at of a request; names of headers as HTTP has them, in any case."""

    method: str
    path: str
    headers: Mapping[str, str]
    remote: str = ""


@frozen(kw_only=True)
class TurnedAway:
    """Why not; ``status`` is HTTP's."""

    status: HTTPStatus
    words: str


class Guard:
    """Lets in whoever the file of tokens knows; ``path`` is asked at every request."""

    def __init__(self, path: Callable[[], pathlib.Path | None]) -> None:
        self._path = path
        self._file: tokens.TokenFile | None = None
        self._log = limited_log.LimitedLog(_LOG)

    @property
    def is_open(self) -> bool:
        """Whether anybody can be let in."""
        return self._path() is not None

    def admit(self, asked: OrderRequest, *, wanted: tokens.Role) -> tokens.Holder | TurnedAway:
        """Return who asks, or why they are turned away, which is in the log then."""
        answer = self._judged(asked, wanted)
        if isinstance(answer, TurnedAway):
            self._log.warning(
                "turned away", path=asked.path, remote=asked.remote, reason=answer.words
            )
        return answer

    def _judged(self, asked: OrderRequest, wanted: tokens.Role) -> tokens.Holder | TurnedAway:
        path = self._path()
        if path is None:
            return TurnedAway(
                status=HTTPStatus.NOT_FOUND,
                words="nothing can be ordered here: control.tokens_file is not set",
            )
        headers = {name.lower(): value for name, value in asked.headers.items()}
        if asked.method not in {"GET", "HEAD"} and (refusal := _foreign(headers)) is not None:
            return refusal
        if self._file is None or self._file.path != path:
            self._file = tokens.TokenFile(path)
        try:
            holders = self._file.holders()
        except tokens.TokensError as error:
            self._log.warning("tokens cannot be read: nobody is let in", reason=str(error))
            return TurnedAway(
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                words="the file of tokens cannot be used; the log says why",
            )
        told = headers.get("authorization", "")
        token = told[len(_SCHEME) :].strip() if told.lower().startswith(_SCHEME) else ""
        holder = tokens.holder_of(token, holders)
        if holder is None:
            needed = "a token is needed: Authorization: Bearer TOKEN"
            words = "nobody has this token" if token else needed
            return TurnedAway(status=HTTPStatus.UNAUTHORIZED, words=words)
        if not holder.role.may(wanted):
            return TurnedAway(
                status=HTTPStatus.FORBIDDEN,
                words=f"{holder.who} may {holder.role.value}; {wanted.value} is needed",
            )
        return holder


def ordered(holder: tokens.Holder, what: str, *, remote: str, why: str = "") -> None:
    """Write into the log who ordered what, and why."""
    _LOG.info(
        "ordered",
        extra={
            "who": holder.who,
            "order": text.clean(what, 256),
            "why": text.clean(why, 256),
            "remote": remote,
        },
    )


def _foreign(headers: Mapping[str, str]) -> TurnedAway | None:
    """Refuse what a browser sends for a page of another site, or what a form can send."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None and site not in _SAME_SITE:
        return TurnedAway(status=HTTPStatus.FORBIDDEN, words="asked by a page of another site")
    if origin is not None and not _is_own(origin, headers.get("host", "")):
        return TurnedAway(status=HTTPStatus.FORBIDDEN, words="asked by a page of another site")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return TurnedAway(
            status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            words="what is ordered is told as JSON: Content-Type: application/json",
        )
    return None


def _is_own(origin: str, host: str) -> bool:
    """Return whether a page of the host that is asked asks; what is no origin is not ours."""
    try:
        return bool(host) and urllib.parse.urlsplit(origin).netloc == host
    except ValueError:
        return False
