"""How a command finds the broker that works with its state directory, and knows it for that one.

A broker that serves a page notes in its state directory, for its own user alone, where the page is
and a key of this life. A command that reads the note asks there and sends a word of its own; what
comes back is signed with the key, word, path and body together. So no other broker, of another
owner or controller on the same port, and nobody who took the port over is taken for it; a note
that a killed broker left leads nowhere. Refuses to know what the documents say.
"""

import hashlib
import hmac
import ipaddress
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import aiohttp
import yarl
from attrs import field, frozen

from backends import api as backends_api
from outside import bodies, connect_errors, odd_json, text
from outside import secrets as known_secrets

NOTE = "page"
"""Key in the store."""
CHALLENGE, PROOF = "X-Broker-Challenge", "X-Broker-Proof"
_WORD = re.compile(r"[0-9a-f]{32,64}")
_ASK_S = 10.0
_REFUSALS = frozenset({400, 401, 403, 409, 503})
_WORDS_MAX = 1024
LIMIT = 64 << 20
"""Bytes of one document: that of 50,000 agents has a good half."""


@frozen(kw_only=True)
class PageAddress:
    """Where the page of a broker is, and the key of its life."""

    url: str  # ends with "/"
    key: str = field(repr=False)


class Loads(Protocol):
    """What is needed of the store to read a note."""

    def load(self, key: str) -> str | None:
        """Return the value last saved, or None. Raises OSError."""


class NoAnswer(Exception):  # noqa: N818 -- what it is
    """Nobody answers as a broker does; ``str`` says what was found."""


class OrderDeclined(Exception):  # noqa: N818 -- as above
    """The broker does not do what was ordered; ``str`` are its words."""


class NotABroker(NoAnswer):
    """Somebody else answers."""


def announce(files: backends_api.Store, url: str) -> PageAddress:
    """Note where the page is, with a new key. Raises OSError."""
    address = PageAddress(url=url, key=secrets.token_hex(32))
    known_secrets.register(address.key)
    files.save(NOTE, json.dumps({"url": address.url, "key": address.key}))
    return address


def withdraw(files: backends_api.Store) -> None:
    """Note that there is no page. Raises OSError."""
    if files.load(NOTE) is not None:
        files.save(NOTE, "{}")


def noted(files: Loads) -> PageAddress | None:
    """Return the note of the broker that was last started here; None without one."""
    try:
        saved = json.loads(files.load(NOTE) or "{}")
        address = PageAddress(url=str(saved["url"]), key=str(saved["key"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    known_secrets.register(address.key)
    return address if address.url else None


def proof(key: str, word: str, path: str, body: bytes) -> str | None:
    """Return what proves to whoever chose the word that this answer is ours; None for no word."""
    if not _WORD.fullmatch(word):
        return None
    signed = f"{word}\n{path}\n{hashlib.sha256(body).hexdigest()}"
    return hmac.new(key.encode(), signed.encode(), hashlib.sha256).hexdigest()


def blinded(key: str, digest: str) -> str:
    """Return what only whoever has the key can compare: what is behind it cannot be guessed."""
    return hmac.new(key.encode(), f"part {digest}".encode(), hashlib.sha256).hexdigest()[:16]


async def ask(
    url: str, names: Sequence[str], *, note: PageAddress | None
) -> dict[str, dict[str, Any]]:
    """Return documents of the API by name. With a ``note`` whoever answers has to prove himself.

    Raises NoAnswer.
    """
    documents: dict[str, dict[str, Any]] = {}
    try:
        base = yarl.URL(reachable(url))
        async with aiohttp.ClientSession(
            auto_decompress=False, timeout=aiohttp.ClientTimeout(total=_ASK_S)
        ) as session:
            for name in names:
                documents[name] = await _document(session, base / "api/v1" / name, note)
    except aiohttp.ClientResponseError as error:
        raise NotABroker(connect_errors.words(error)) from error
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise NoAnswer(connect_errors.words(error)) from error
    return documents


async def order(
    note: PageAddress, name: str, *, token: str, told: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Order something of the broker, or (``told`` None) return what there is, with a token.

    Whoever answers there has proved to be the broker before the token is sent. Raises
    OrderDeclined with the broker's words, and NoAnswer.
    """
    await ask(note.url, ("plan",), note=note)
    headers = {"Authorization": f"Bearer {token}"}
    try:
        url = yarl.URL(reachable(note.url)) / "api/v1" / name
        async with aiohttp.ClientSession(
            auto_decompress=False, timeout=aiohttp.ClientTimeout(total=_ASK_S), headers=headers
        ) as session:
            return await _document(session, url, note, told=told)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise NoAnswer(connect_errors.words(error)) from error


async def _document(
    session: aiohttp.ClientSession,
    url: yarl.URL,
    note: PageAddress | None,
    *,
    told: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    word = secrets.token_hex(16)
    method, body_sent = ("GET", None) if told is None else ("POST", dict(told))
    async with session.request(
        method, url, json=body_sent, headers={CHALLENGE: word}, allow_redirects=False
    ) as answer:
        if answer.status in _REFUSALS or (told is not None and answer.status == 404):
            words = await answer.content.read(_WORDS_MAX)
            raise OrderDeclined(text.clean(words.decode("utf-8", "replace").strip()))
        if answer.status not in {200, 202}:
            raise NotABroker(f"{url.path} was answered {answer.status}")
        try:
            body = await bodies.read(answer, LIMIT)
        except (bodies.TooLarge, bodies.Unreadable) as error:
            raise NotABroker(f"{url.path}: {error}") from error
        given = answer.headers.get(PROOF, "")
    if note is not None:
        expected = proof(note.key, word, url.path, body)
        if expected is None or not hmac.compare_digest(expected.encode(), given.encode()):
            raise NoAnswer("whoever answers there is not the broker of this state directory")
    try:
        read = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotABroker(f"{url.path} is {odd_json.words(error)}") from error
    if not isinstance(read, dict) or not isinstance(read.get("owner"), str):
        raise NotABroker(f"{url.path} names no owner")
    return read


def reachable(url: str) -> str:
    """Return the address as a client on the same machine calls it; none listens *at* 0.0.0.0."""
    try:
        parts = yarl.URL(url)
        host = ipaddress.ip_address(parts.host or "")
    except ValueError:
        return url
    if not host.is_unspecified:
        return url
    return str(parts.with_host("127.0.0.1" if host.version == 4 else "::1"))
