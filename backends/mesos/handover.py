"""A door through which an agent's host fetches the agent's secret, once.

Everything that a master is told about a task, it and the Mesos agents show on their pages, and
what a task has in its environment stands in a command line for a moment. So a task is told a URL
with a token, which Mesos' fetcher asks before the task starts, and which is worth nothing after
that. Whoever asks a second time gets nothing and is told in the log: somebody may have been first,
and then the task, which came too late, ends, and its node with it.

Files of ours that are no secrets are given by the same door as often as they are asked for, until
their instance is removed or an hour is over.

Serves one request per connection, a few hundred bytes of it, for seconds; whoever says nothing
has to go for somebody who asks (``outside.doors``). Refuses to know tasks and HTTP beyond that.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
import ssl
from collections.abc import Callable

import attrs

from backends import api
from backends.mesos import settings
from outside import counts, doors, text

_LOG = logging.getLogger("backends.mesos")
_PATH = "/handover/"
_ASKED = re.compile(rb"GET [^ ]*/handover/([0-9a-f]{64}) HTTP/1\.[01]\r\n")
_LIMITS = doors.DoorLimits(
    connections=128,
    per_address=96,  # a host may start many tasks at once; addresses may be hidden behind one
    request_s=10.0,
    answer_s=30.0,  # the authorities for builds are 400 kB
    request_bytes=8192,
)
_KEPT_S = 3600.0  # from the launch to the fetch; an agent may be downloading an image first
_GIVEN_MAX = 2 << 20
_KEPT_MAX = 40_000  # a task has four; contents are shared


@attrs.define(kw_only=True)
class _Deposit:
    """One file that was left at the door; ``content`` is None once it was taken."""

    name: str  # of the instance
    content: bytes | None = attrs.field(repr=False)
    until: float
    once: bool = True


class HandoverDoor:
    """Listens from the first ``open`` on; one object per backend and event loop."""

    def __init__(
        self,
        configured: settings.Handover,
        *,
        now: Callable[[], float],
        limits: doors.DoorLimits = _LIMITS,
    ) -> None:
        self._settings = configured
        self._now = now
        self._limits = limits
        self._door: doors.Door | None = None
        self._opening = asyncio.Lock()
        self._base = ""
        self._left: dict[str, _Deposit] = {}  # by the token's digest, oldest first
        self.closed = False

    async def open(self) -> None:
        """Listen, if nobody does yet. Raises Rejected when that cannot be."""
        async with self._opening:
            if self._door is not None or self.closed:
                return
            host, _, port = self._settings.listen.rpartition(":")
            try:
                door = doors.Door(
                    lambda: _Guest(door, self._answer),
                    limits=self._limits,
                    logger=_LOG,
                    tls=self._context(),
                )
                _, chosen = await door.open(host=host.strip("[]"), port=int(port))
            except (OSError, ValueError) as error:
                words = getattr(error, "strerror", None) or str(error)
                raise api.Rejected(
                    text.clean(f"handover: cannot listen on {self._settings.listen}: {words}")
                ) from error
            self._door = door
            url = self._settings.url.rstrip("/")
            self._base = url.removesuffix(":0") + f":{chosen}" if url.endswith(":0") else url

    def leave(self, name: str, content: str) -> str:
        """Leave a file for an instance; returns the URL under which it can be taken once."""
        return self._kept(name, content.encode("utf-8", "surrogateescape"), once=True)

    def give(self, name: str, content: bytes) -> str:
        """Leave what is no secret; returns the URL under which it can be had again and again.

        Raises Rejected for more than 2 MiB.
        """
        if len(content) > _GIVEN_MAX:
            raise api.Rejected(
                f"handover: a file has {counts.told(len(content), 'byte')}; allowed: "
                f"{_GIVEN_MAX}; hint: a smaller public_file of `trust`, or public: false"
            )
        return self._kept(name, content, once=False)

    def _kept(self, name: str, content: bytes, *, once: bool) -> str:
        self._clear_away()
        token = secrets.token_hex(32)
        self._left[_digest(token)] = _Deposit(
            name=name, content=content, until=self._now() + _KEPT_S, once=once
        )
        return f"{self._base}{_PATH}{token}"

    def withdraw(self, name: str) -> None:
        """Take back what nobody has taken of an instance, and what anybody may take."""
        for left in self._left.values():
            if left.name == name:
                left.content = None

    async def aclose(self) -> None:
        """Close the door; what lies there is lost, and its tasks will say so. Idempotent."""
        self.closed = True
        if self._door is not None:
            await self._door.aclose()
            self._door.expel()

    def _context(self) -> ssl.SSLContext | None:
        if self._settings.cert_file is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._settings.cert_file, self._settings.key_file)
        return context

    def _answer(self, head: bytes, peer: str) -> bytes:
        asked = _ASKED.match(head)
        left = None if asked is None else self._left.get(_digest(asked[1].decode()))
        if left is None or left.until < self._now():
            return _reply("404 Not Found", b"")
        if left.content is None:
            if left.once:
                _LOG.warning(
                    "an agent's secret was asked for again",
                    extra={
                        "agent": left.name,
                        "reason": f"by {peer}; it was taken, or its task is gone",
                    },
                )
            return _reply("410 Gone", b"")
        body = left.content
        if left.once:
            left.content = None
        return _reply("200 OK", body)

    def _clear_away(self) -> None:
        now = self._now()
        while self._left:
            oldest = next(iter(self._left))
            if self._left[oldest].until >= now and len(self._left) < _KEPT_MAX:
                return
            del self._left[oldest]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class _Guest(asyncio.Protocol):
    """Hears one request's head, gives the answer, and closes; ``answer`` is told who asks."""

    def __init__(self, door: doors.Door, answer: Callable[[bytes, str], bytes]) -> None:
        self._door = door
        self._answer = answer
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember whom to answer."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- a socket's
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer once the head is whole; nothing after it is looked at."""
        self._head += data
        if self._transport is None or b"\r\n\r\n" not in self._head:
            return
        if (here := self._door.inside.get(self)) is not None:
            here.asked()
        transport, self._transport = self._transport, None
        transport.write(self._answer(self._head, _peer(transport)))
        transport.close()


def _peer(transport: asyncio.Transport) -> str:
    with contextlib.suppress(TypeError, IndexError):
        return text.clean(str(transport.get_extra_info("peername")[0]), 60)
    return "somebody"


def _reply(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
