"""What an HTTP answer of a controller means: the error it stands for, and what it says.

Pure. Knows how Jenkins, and proxies before it, write refusals; refuses to know sockets, retries
and who asked.

Facts: recordings ``auth/01``, ``nodes/02``, ``permissions/01``, ``controller/02``. Error pages
come with or without ``X-Jenkins``, and say what is wrong in ``X-Error`` or only in HTML.
"""

import html
import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from jnlp import errors

POST_SUCCESS = frozenset({200, 201, 204, 302})
"""Jenkins answers a form with a redirect to the next page, which nobody needs to see."""

_SAID = (
    re.compile(r'<p class="error">(.*?)</(?:p|div)>', re.DOTALL),
    re.compile(r"<h1>Error</h1>\s*<p>(.*?)</(?:p|div)>", re.DOTALL),
    re.compile(r"<title>(.*?)</title>", re.DOTALL),
)
_NOT_TEXT = re.compile(r"<!--.*?-->|<(script|style|head)\b.*?</\1>|<[^>]*>", re.DOTALL)
_MISSING = re.compile(r"is missing the (.{1,80}?) permission")
_LONG_HEX = re.compile(r"[0-9a-fA-F]{32,}")  # agent secrets and crumbs are such
_JETTY = re.compile(r"^Error \d{3} ")
_PERMISSION_GROUPS = {
    "hudson.model.Hudson": "Overall",
    "hudson.model.Computer": "Agent",
    "hudson.model.Item": "Job",
    "hudson.model.Run": "Run",
}
_KINDS: Mapping[int, type[errors.JenkinsError]] = {
    401: errors.Unauthorized,
    404: errors.NotFound,
    407: errors.Unauthorized,
    408: errors.Unreachable,
    429: errors.Unexpected,
    502: errors.Unreachable,
    503: errors.Starting,
    504: errors.Unreachable,
}
_LOGIN = frozenset({"login", "commencelogin", "securityrealm", "oauth2", "saml", "signin", "sso"})


def quote(text: str, secrets: Iterable[str] = ()) -> str:
    """Make a remote text fit for a message: one line, 256 characters, nothing secret."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "(hidden)")
    text = _LONG_HEX.sub("(hidden)", text)
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(text.split())[:256]


def said(headers: Mapping[str, str], body: str) -> str:
    """Return the sentence of an error page that is meant for people, unquoted."""
    if headers.get("X-Error"):
        return headers["X-Error"]
    for pattern in _SAID:
        found = pattern.search(body)
        if found and found[1].strip():
            return _JETTY.sub("", html.unescape(_NOT_TEXT.sub(" ", found[1])).strip())
    return html.unescape(_NOT_TEXT.sub(" ", body[:16384])).strip()


def lacks_crumb(error: errors.JenkinsError) -> bool:
    """True when a POST was refused for its crumb only, so it was not carried out."""
    return isinstance(error, errors.Forbidden) and "No valid crumb" in error.text


def redirect(
    what: str, requested_path: str, location: str, *, posted: bool
) -> errors.Unexpected | None:
    """Judge a 3xx; None when it is the ordinary end of a form.

    A reverse proxy or a login filter redirects too, and following it would turn a refusal into a
    page that looks like success.
    """
    target = urlsplit(location)
    segments = set(target.path.lower().split("/"))
    if segments & _LOGIN and "computer" not in segments:  # a node may be called so
        return errors.Unexpected(
            f"{what}: redirected to the login page {quote(location)}; a login filter or a proxy "
            "takes the request before Jenkins sees the user"
        )
    same = target.path.rstrip("/") == urlsplit(requested_path).path.rstrip("/")
    if not posted or same:
        return errors.Unexpected(
            f"{what}: redirected to {quote(location)}; redirects are not followed, "
            "is the controller's URL written as its users see it?"
        )
    return None


def failure(
    what: str,
    status: int,
    headers: Mapping[str, str],
    body: str,
    secrets: Iterable[str] = (),
) -> errors.JenkinsError:
    """Make the error for a status of 400 and above. ``what`` is the method and path."""
    message = said(headers, body)
    text = quote(f"{what}: {status} {message}", secrets)
    retry_after = _seconds(headers.get("Retry-After", ""))
    if status == 403:
        return errors.Forbidden(
            text, status=status, retry_after=retry_after, permission=_permission(headers, body)
        )
    if status == 400 and "already exists" in message:
        return errors.NodeExists(text, status=status)
    kind = _KINDS.get(status, errors.BadRequest if status < 500 else errors.Unexpected)
    return kind(text, status=status, retry_after=retry_after)


def _permission(headers: Mapping[str, str], body: str) -> str:
    found = _MISSING.search(body)
    if found:
        return html.unescape(found[1])
    required = headers.get("X-Required-Permission", "")
    group, _, name = required.rpartition(".")
    return f"{_PERMISSION_GROUPS[group]}/{name}" if group in _PERMISSION_GROUPS else required


def _seconds(value: str) -> float | None:
    # the form with a date needs a clock; no Jenkins and no common proxy sends it with 503
    value = value.strip()
    return float(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
