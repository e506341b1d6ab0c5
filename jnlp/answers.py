"""What an HTTP answer of a controller means: the error it stands for, and what it says.

Pure. Knows how Jenkins, and proxies before it, write refusals; refuses to know sockets, retries
and who asked.

Facts: recordings ``auth/01``, ``nodes/02``, ``permissions/01``, ``controller/02``. Error pages
come with or without ``X-Jenkins``, and say what is wrong in ``X-Error`` or only in HTML.
"""

import html
from collections.abc import Mapping
from urllib.parse import urlsplit

from jnlp import errors
from outside import text as outside_text

POST_SUCCESS = frozenset({200, 201, 204, 302})
"""Jenkins answers a form with a redirect to the next page, which nobody needs to see."""
PAGE_LENGTH = 65536
"""Of an error page so much is looked at: the sentence that counts is near the top."""
MAX_RETRY_AFTER_S = 600.0
"""Whoever answers may not put us off for longer."""

_SAID = (
    ('<p class="error">', ("</p>", "</div>")),
    ("<h1>Error</h1>", ("</p>", "</div>")),
    ("<title>", ("</title>",)),
)
_SENTENCE = 4096  # characters of a page, markup included, that a sentence may take
_SHOWN = 16384  # characters of a page without such a sentence
_NOT_SHOWN = {
    "<!--": "-->",
    "<script": "</script>",
    "<style": "</style>",
    "<head": "</head>",
}
_MISSING = "is missing the ", " permission"
_JETTY = "Error NNN "
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


def quote(text: str, limit: int = outside_text.LIMIT) -> str:
    """Make a remote text fit for a message: one line, cut, nothing secret."""
    return outside_text.clean(text, limit)


def said(headers: Mapping[str, str], body: str) -> str:
    """Return the sentence of an error page that is meant for people, unquoted.

    Takes no longer the longer a page is, and never longer than a page of ``PAGE_LENGTH``.
    """
    if headers.get("X-Error"):
        return headers["X-Error"][:_SENTENCE]
    body = body[:PAGE_LENGTH]
    for begin, ends in _SAID:
        sentence = _between(body, begin, ends)
        if sentence:
            told = html.unescape(sentence).strip()
            return told[len(_JETTY) :] if _is_jettys(told) else told
    return html.unescape(shown(body[:_SHOWN])).strip()


def shown(page: str) -> str:
    """Return what is left of a page without its markup, on one line; entities stay."""
    parts: list[str] = []
    lower = page.encode("ascii", "replace").lower().decode("ascii")  # as long as the page
    at = 0
    unclosed: set[str] = set()  # what has no end from here on has none further on either
    while (begin := page.find("<", at)) >= 0:
        parts.append(page[at:begin])
        at = _after_markup(lower, begin, unclosed)
    parts.append(page[at:])
    return " ".join(" ".join(parts).split())


def _after_markup(lower: str, begin: int, unclosed: set[str]) -> int:
    """Return where the text goes on after the markup that begins here."""
    if lower[begin + 1 : begin + 2] in {"!", "s", "h"}:
        for opening, closing in _NOT_SHOWN.items():
            if closing in unclosed or not lower.startswith(opening, begin):
                continue
            end = lower.find(closing, begin + len(opening))
            if end >= 0:
                return end + len(closing)
            unclosed.add(closing)
    end = -1 if ">" in unclosed else lower.find(">", begin)
    if end >= 0:
        return end + 1
    unclosed.add(">")
    return begin + 1


def _between(page: str, begin: str, ends: tuple[str, ...]) -> str:
    """Return the text between the first ``begin`` and the first end after it, without markup."""
    start = page.find(begin)
    if start < 0:
        return ""
    start += len(begin)
    part = page[start : start + _SENTENCE]
    found = [at for at in (part.find(end) for end in ends) if at >= 0]
    return shown(part[: min(found)] if found else part)


def _is_jettys(told: str) -> bool:
    return told.startswith("Error ") and told[6:9].isdecimal() and told[9:10] == " "


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
    try:
        target = urlsplit(location)
    except ValueError:
        return errors.Unexpected(
            f"{what}: redirected to {quote(location)}, which is not an address"
        )
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
) -> errors.JenkinsError:
    """Make the error for a status of 400 and above. ``what`` is the method and path."""
    message = said(headers, body)
    text = quote(f"{what}: {status} {message}")
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
    before, after = _MISSING
    body = body[:PAGE_LENGTH]
    begin = body.find(before) + len(before)
    end = body.find(after, begin, begin + 80 + len(after))
    if begin >= len(before) and end > begin:
        return quote(html.unescape(body[begin:end]), 80)
    required = quote(headers.get("X-Required-Permission", ""), 120)
    group, _, name = required.rpartition(".")
    return f"{_PERMISSION_GROUPS[group]}/{name}" if group in _PERMISSION_GROUPS else required


def _seconds(value: str) -> float | None:
    # the form with a date needs a clock; no Jenkins and no common proxy sends it with 503
    value = value.strip()
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        return None
    return min(float(value), MAX_RETRY_AFTER_S)
