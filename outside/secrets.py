"""What must never be shown, in whatever form it comes back.

Whoever reads a secret, or is about to send one, registers it; from then on every text that goes
through ``outside.text`` or the log is free of it: as it is, quoted, escaped for JSON, HTML or a
URL, in hexadecimal, and in base64 together with whatever stood before and after it (``Basic``
credentials of any user, a registry's ``X-Registry-Auth``, the data of a Kubernetes Secret).
Agents' secrets are too many to register: they are known by their looks, plain and in base64.

Refuses to tell what is registered.
"""

import base64
import collections
import json
import re
import urllib.parse

HIDDEN = "(hidden)"
"""What stands in the place of a secret."""
_KEPT = 256
"""Secrets of a pool kept in mind; tokens are renewed, and a broker lives for months."""
_KEPT_OF_OTHERS = 16
_SHORTEST = 3
"""A shorter one is not blanked: it would take every text apart, and is no secret."""
_SHORTEST_CORE = 7  # characters of base64 that nothing else has by chance

# hexadecimal HMAC-SHA256; an image's digest is no secret
_AGENT_SECRET = re.compile(r"(?<!sha256:)(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_-]{80,}")
_HEX_64 = re.compile(rb"[0-9a-fA-F]{64}")
_HEX_BYTE = re.compile("%[0-9A-F]{2}")

_Pool = collections.OrderedDict[str, tuple[str, ...]]
_pools: dict[str, _Pool] = {}
_ordered: tuple[str, ...] = ()


def register(*words: str | None, pool: str = "", kept: int = _KEPT_OF_OTHERS) -> None:
    """Keep these texts out of everything that is shown; empty ones are nothing.

    Of each pool the latest are kept, ``kept`` of one that has a name: what a remote renews as it
    likes (cookies) has one of its own, so that it displaces nothing else.
    """
    forms = _pools.setdefault(pool, collections.OrderedDict())
    changed = False
    for secret in words:
        if not secret or len(secret) < _SHORTEST:
            continue
        if secret in forms:
            forms.move_to_end(secret)
            continue
        forms[secret] = _forms_of(secret)
        changed = True
        if len(forms) > (kept if pool else _KEPT):
            forms.popitem(last=False)
    if changed:
        _order()


def forget() -> None:
    """Forget all that was registered; for tests, of which many live in one process."""
    _pools.clear()
    _order()


def blanked(text: str) -> str:
    """Return a text without any form of a registered secret or of an agent's secret."""
    for form in _ordered:
        if form in text:
            text = text.replace(form, HIDDEN)
    if len(text) >= 64:
        text = _AGENT_SECRET.sub(HIDDEN, text)
        text = _BASE64_RUN.sub(_hidden_run, text)
    return text


def without(text: str, *words: str) -> str:
    """Return a text without any form of these secrets, which are not registered.

    For those of one request, of which there are too many to keep in mind.
    """
    forms = {form for secret in words if len(secret) >= _SHORTEST for form in _forms_of(secret)}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def cut_before(text: str, at: int) -> int:
    """Return where to cut a text at ``at`` or before, so that no registered form is cut in two."""
    for form in _ordered:
        start = text.find(form, max(0, at - len(form) + 1), at + len(form) - 1)
        if 0 <= start < at:
            at = start
    return min(at, len(text))


def _order() -> None:
    global _ordered  # noqa: PLW0603 -- the registry of this process
    every = {form for pool in _pools.values() for forms in pool.values() for form in forms}
    _ordered = tuple(sorted(every, key=len, reverse=True))


def _forms_of(secret: str) -> tuple[str, ...]:
    """Return how servers and proxies write a secret that they send back."""
    # UTF-8 that somebody reads as Latin-1: what a body is taken for that names no charset
    misread = secret.encode("utf-8", "replace").decode("latin-1")
    quoted = {repr(secret.encode("utf-8", "replace"))[2:-1]}
    for spelled in {secret, misread}:
        quoted |= {spelled, repr(spelled)[1:-1], *_html_forms(spelled)}
        quoted |= _url_forms(spelled.encode("utf-8", "replace"))
    quoted |= _url_forms(secret.encode("latin-1", "replace"))
    quoted |= _html_forms(json.dumps(secret)[1:-1])
    escaped = {json.dumps(form, ensure_ascii=a)[1:-1] for form in quoted for a in (True, False)}
    escaped |= {json.dumps(json.dumps(secret, ensure_ascii=a))[3:-3] for a in (True, False)}
    escaped |= {_as_go(form) for form in escaped}
    raw = {form.encode("utf-8", "replace") for form in (secret, json.dumps(secret)[1:-1])}
    raw |= {secret.encode("latin-1", "replace")}  # how aiohttp and requests write Basic at times
    encoded = {form for data in raw for form in _base64_forms(data)}
    encoded |= {form for data in raw for form in (data.hex(), data.hex().upper()) if len(form) > 8}
    encoded |= {urllib.parse.quote(form, safe="") for form in encoded}
    return tuple(form for form in quoted | escaped | encoded if len(form) >= _SHORTEST)


def _html_forms(text: str) -> set[str]:
    """Return a text as Python, Go, Java and XML escape it: they differ in quotes and ``>``."""
    inner = text.replace("&", "&amp;").replace("<", "&lt;")
    return {
        form.replace('"', double).replace("'", single)
        for form in (inner, inner.replace(">", "&gt;"))
        for double in ('"', "&quot;", "&#34;")
        for single in ("'", "&#x27;", "&#39;", "&#039;", "&apos;")
    }


def _url_forms(data: bytes) -> set[str]:
    """Return a text in URLs: as a path, a part or a form, in small letters, and twice."""
    forms = {urllib.parse.quote(data, safe=safe) for safe in ("/", "")}
    forms |= {urllib.parse.quote_plus(data)}
    forms |= {_HEX_BYTE.sub(lambda found: found[0].lower(), form) for form in forms}
    return forms | {urllib.parse.quote(form, safe="") for form in forms}


def _as_go(text: str) -> str:
    """Return JSON as Go's encoder writes it: safe inside HTML."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _base64_forms(data: bytes) -> set[str]:
    """Return what of it is always the same in base64, at each of the three places in a group."""
    forms = set()
    for before in range(3):
        text = base64.b64encode(bytes(before) + data).decode()
        # what shares a character with what stands before or after is not the secret's own
        first = -(-before * 8 // 6)
        last = (before + len(data)) * 8 // 6
        core = text[first:last]
        if len(core) >= _SHORTEST_CORE:
            forms |= {core, core.replace("+", "-").replace("/", "_")}
    return forms


def _hidden_run(match: re.Match[str]) -> str:
    """Blank a run of base64 in which an agent's secret stands."""
    run = match[0].replace("-", "+").replace("_", "/")
    for skipped in range(4):
        part = run[skipped:]
        if len(part) % 4 == 1:  # that is no end of base64
            part = part[:-1]
        if _HEX_64.search(base64.b64decode(part + "=" * (-len(part) % 4))):
            return HIDDEN
    return match[0]
