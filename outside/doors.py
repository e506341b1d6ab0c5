"""How many strangers may stand at the door of what we serve, for how long, and with how much.

Why: whoever reaches a port of ours could otherwise hold every file descriptor of the broker, or
its memory, without saying a word. A connection is for one request; it has a few seconds to send it
and a few more to take the answer. Where there is no room the one that has waited longest without
asking goes, of whoever holds the most: so a probe that asks at once is answered among a thousand
silent ones. Whoever has proved to be no stranger may be let in for as long as it likes. Refuses to
know HTTP.
"""

import asyncio
import contextlib
import ipaddress
import logging
import math
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from attrs import frozen

from outside import limited_log

_BACKLOG = 1024  # whoever waits there costs us nothing
_BREATH_S = 0.5  # when the process has no descriptor left
_BUSY_S = 1.0  # an answer that is not taken within this may make room for others


@frozen(kw_only=True)
class DoorLimits:
    """What one door bears of strangers."""

    connections: int = 64
    per_address: int = 16
    request_s: float = 5.0  # to send a request, from the first moment
    answer_s: float = 15.0  # to take the answer
    request_bytes: int = 32 * 1024  # before anybody knows who sends it
    takes_bodies: bool = False  # what is more than that waits until its sender is let in


class LimitedConnection(asyncio.Protocol):
    """One client, counted and limited; another protocol speaks with it."""

    def __init__(self, door: "Door", inner: asyncio.Protocol, address: str) -> None:
        self._door = door
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._end: asyncio.TimerHandle | None = None
        self._taken = 0
        self._waits = False  # to be read on
        self.greeting: asyncio.Task[None] | None = None
        self.address = address
        self.since = 0.0  # loop time of its last step
        self.has_asked = False
        self.is_known = False
        door.inside[inner] = self
        self._within(door.limits.request_s)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 -- a socket's
        self._transport = transport
        self._inner.connection_made(transport)
        if self._inner not in self._door.inside:  # it had to go while it was greeted
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass on what comes, up to the limit."""
        self._taken += len(data)
        limits = self._door.limits
        if self._taken > limits.request_bytes and not self.is_known:
            if not limits.takes_bodies:
                self._door.log.info("a request was too large", remote=self.address)
                self.abort()
                return
            if self._transport is not None and not self._waits:
                self._waits = True
                self._transport.pause_reading()
        self._inner.data_received(data)

    def asked(self) -> None:
        """Note that a request is whole; the time for its answer runs."""
        if not self.has_asked and not self.is_known:
            self.has_asked = True
            self._within(self._door.limits.answer_s)

    def let_in(self) -> None:
        """Note that this is no stranger: no limit of the door concerns it any more."""
        self.has_asked = self.is_known = True
        self._door.inside.pop(self._inner, None)
        self._door.known[self._inner] = self
        if self._end is not None:
            self._end.cancel()
        if self._waits and self._transport is not None:
            self._waits = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """End at once, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()
        elif self.greeting is not None:
            self.greeting.cancel()

    def leave(self) -> None:
        """Give up its place."""
        if self._end is not None:
            self._end.cancel()
        self._door.inside.pop(self._inner, None)
        self._door.known.pop(self._inner, None)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave."""
        self.leave()
        self._inner.connection_lost(exc)

    def _within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        if self._end is not None:
            self._end.cancel()
        self._end = loop.call_later(seconds, self.abort)


class Door:
    """Listens, and takes as many as the limits say; ``speak`` makes who speaks with one."""

    def __init__(
        self,
        speak: Callable[[], asyncio.Protocol],
        *,
        limits: DoorLimits,
        logger: logging.Logger,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.limits = limits
        self.inside: dict[asyncio.BaseProtocol, LimitedConnection] = {}  # strangers
        self.known: dict[asyncio.BaseProtocol, LimitedConnection] = {}
        self.log = limited_log.LimitedLog(logger)
        self._tls = tls
        self._greeting: set[asyncio.Task[None]] = set()
        self._speak = speak
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []

    async def open(self, *, host: str, port: int) -> tuple[str, int]:
        """Listen at every address of the host; return the first. Raises OSError."""
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        try:
            for family, kind, protocol, _, address in dict.fromkeys(addresses):
                self._listen(family, kind, protocol, address)
        except OSError:
            self._close_listening()
            raise
        # owned by this object and awaited in aclose
        self._accepting = [
            loop.create_task(self._accept(one), name="accept") for one in self._listening
        ]
        bound = self._listening[0].getsockname()
        return str(bound[0]), int(bound[1])

    async def aclose(self) -> None:
        """Let nobody in any more; idempotent."""
        for task in self._accepting:
            task.cancel()
        if self._accepting:
            await asyncio.wait(self._accepting)
        self._accepting = []
        for task in self._greeting:
            task.cancel()
        if self._greeting:
            await asyncio.wait(self._greeting)
        self._close_listening()

    def expel(self) -> None:
        """End every connection that is still there."""
        for one in [*self.inside.values(), *self.known.values()]:
            one.abort()

    # --- inside ---

    def _listen(self, family: int, kind: int, protocol: int, address: tuple[object, ...]) -> None:
        listening = socket.socket(family, kind, protocol)
        self._listening.append(listening)
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with contextlib.suppress(OSError, AttributeError):
            # so long Linux keeps a silent connection to itself: no descriptor, no place of ours
            seconds = math.ceil(self.limits.request_s)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)
        listening.bind(address)
        listening.listen(_BACKLOG)

    def _close_listening(self) -> None:
        for one in self._listening:
            one.close()
        self._listening = []

    async def _accept(self, listening: socket.socket) -> None:
        """Let in one after the other: whoever has come is heard before the next one."""
        while True:
            try:
                await self._let_in(listening)
            except OSError as error:
                self.log.warning("no connection can be taken", reason=str(error))
                await asyncio.sleep(_BREATH_S)
            except Exception as error:  # noqa: BLE001 -- the door outlives our bugs
                self.log.bug("a connection was not taken, because of a bug", error)
                await asyncio.sleep(_BREATH_S)

    async def _let_in(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        come, address = await loop.sock_accept(listening)
        group = group_of(address)
        if not self._makes_room(group):
            come.close()
            await asyncio.sleep(0)
            return
        one = LimitedConnection(self, self._speak(), group)
        if self._tls is None:
            await self._greet(one, come)
            return
        # a stranger that does not shake hands keeps nobody waiting; owned, awaited in aclose
        one.greeting = loop.create_task(self._greet(one, come), name="shake hands")
        self._greeting.add(one.greeting)
        one.greeting.add_done_callback(self._greeting.discard)

    async def _greet(self, one: LimitedConnection, come: socket.socket) -> None:
        loop, seconds = asyncio.get_running_loop(), self.limits.request_s
        try:
            await loop.connect_accepted_socket(
                lambda: one,
                come,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else seconds,
            )
        except OSError:  # it has gone already, or speaks no TLS
            one.leave()
            come.close()
        except asyncio.CancelledError:
            one.leave()
            come.close()
            raise

    def _makes_room(self, address: str) -> bool:
        """Return whether one more may come in; somebody may have to go for it."""
        limits, inside = self.limits, self.inside.values()
        same = [one for one in inside if one.address == address]
        if len(same) >= limits.per_address:
            return self._expels(same)
        if len(inside) < limits.connections:
            return True
        most = Counter(one.address for one in inside).most_common(1)[0][0]
        return self._expels([one for one in inside if one.address == most])

    def _expels(self, some: Sequence[LimitedConnection]) -> bool:
        self.log.info("more connections than are taken", remote=some[0].address)
        going = _longest(one for one in some if not one.has_asked)
        if going is None:
            going = _longest(some)
            if going is None or asyncio.get_running_loop().time() - going.since < _BUSY_S:
                return False
        self.inside = {k: one for k, one in self.inside.items() if one is not going}
        going.abort()
        return True


def _longest(some: Iterable[LimitedConnection]) -> LimitedConnection | None:
    return min(some, key=lambda one: one.since, default=None)


def group_of(peer: Sequence[object] | None) -> str:
    """Return what counts as one address: of IPv6 a network of 64 bits, which one host may own."""
    text = str(peer[0]) if peer else ""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, 64), strict=False))
    return text
