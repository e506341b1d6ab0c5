"""Who leads, asked of ZooKeeper: a read-only client for one question, nothing more.

Mesos masters keep a sequential node ``json.info_NNNNNNNNNN`` each under their path; the lowest
number leads, its content is a MasterInfo in JSON. One short session per question: connect,
perhaps authenticate, list, read, close. No watches, no writes, no recipes; a client library would
bring a thread. Refuses to know what a master is asked afterwards.
"""

import asyncio
import contextlib
import json
import re
import struct
from typing import Any

from attrs import field, frozen

from outside import counts, text, waits

_ADDRESS = re.compile(r"zk://(?:(?P<user>[^@/\s]+)@)?(?P<hosts>[^@/\s]+)(?P<path>/\S*)")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,255}|[0-9A-Fa-f:.]{2,45}")
_NODE = re.compile(r"json\.info_(\d{10})")
_CONNECT_TIMEOUT_MS = 10_000
_GET_DATA, _GET_CHILDREN, _CLOSE, _AUTH = 4, 8, -11, 100
_AUTH_XID = -4
_NO_NODE, _NO_AUTH = -101, -102
_REPLY_MAX = 1 << 20
_DAMAGED = (
    *(ValueError, ArithmeticError, LookupError),
    *(TypeError, AttributeError, RecursionError),
)


class ZooKeeperError(Exception):
    """No server answered, or none knows a leader."""


@frozen(kw_only=True)
class Address:
    """Where to ask. ``credentials``: ``user:password`` of the digest scheme."""

    hosts: tuple[tuple[str, int], ...]
    path: str
    credentials: str | None = field(default=None, repr=False)


def parse(told: str) -> Address:
    """Read ``zk://[user:password@]host[:port],.../path``; raises ValueError."""
    parts = _ADDRESS.fullmatch(told)
    if parts is None:
        raise ValueError("not a zk://host:port,.../path address")
    hosts = []
    for one in parts["hosts"].split(","):
        name, _, port = one.rpartition(":") if ":" in one else (one, "", "2181")
        hosts.append((name, int(port)))
    path = "/" + parts["path"].strip("/")
    return Address(hosts=tuple(hosts), path=path, credentials=parts["user"])


async def leader(address: Address, *, timeout_s: float) -> tuple[str, int]:
    """Return host and port of the leading master; the servers are asked in turn.

    Raises ``ZooKeeperError``.
    """
    words = []
    for host, port in address.hosts:
        try:
            async with waits.timeout(timeout_s):
                return await _ask(host, port, address)
        except (OSError, TimeoutError, EOFError, struct.error, ZooKeeperError) as error:
            words.append(f"{host}:{port}: {str(error) or type(error).__name__}")
    raise ZooKeeperError("; ".join(words))


async def _ask(host: str, port: int, address: Address) -> tuple[str, int]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        talk = _Talk(reader, writer)
        await talk.connect()
        if address.credentials is not None:
            await talk.authenticate(address.credentials)
        children = await talk.children(address.path)
        numbered = sorted(name for name in children if _NODE.fullmatch(name))
        if not numbered:
            raise ZooKeeperError(f"no master is registered under {address.path}")
        info = json.loads(await talk.data(f"{address.path}/{numbered[0]}"))
        talk.say_goodbye()
        return _address_of(info)
    except _DAMAGED as error:
        words = text.clean(f"{type(error).__name__}: {error}", 120)  # they quote what was sent
        raise ZooKeeperError(f"the leader's node cannot be read: {words}") from error
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _address_of(info: dict[str, Any]) -> tuple[str, int]:
    address = info.get("address", {})
    host = address.get("hostname") or address.get("ip") or info["hostname"]
    port = int(address.get("port") or info["port"])
    if not _HOST.fullmatch(str(host)) or not 0 < port < 65536:
        raise ValueError("no host and port")
    return f"[{host}]" if ":" in str(host) else str(host), port


class _Talk:
    """One session: length-prefixed packets, big endian, as ZooKeeper's jute writes them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._xid = 0

    async def connect(self) -> None:
        self._send(struct.pack(">iqiqi16s?", 0, 0, _CONNECT_TIMEOUT_MS, 0, 16, bytes(16), True))
        reply = await self._receive()
        if struct.unpack_from(">i", reply, 4)[0] <= 0:
            raise ZooKeeperError("the session was refused")

    async def authenticate(self, credentials: str) -> None:
        body = struct.pack(">i", 0) + _buffer("digest") + _buffer(credentials)
        self._send(struct.pack(">ii", _AUTH_XID, _AUTH) + body)
        await self._answer(_AUTH_XID, "authentication")

    async def children(self, path: str) -> list[str]:
        reply = await self._call(_GET_CHILDREN, path)
        (count,) = struct.unpack_from(">i", reply)
        names, offset = [], 4
        for _ in range(count):
            name, offset = _take(reply, offset)
            names.append(name.decode())
        return names

    async def data(self, path: str) -> bytes:
        return _take(await self._call(_GET_DATA, path), 0)[0]

    def say_goodbye(self) -> None:
        self._send(struct.pack(">ii", self._xid + 1, _CLOSE))

    async def _call(self, kind: int, path: str) -> bytes:
        self._xid += 1
        self._send(struct.pack(">ii", self._xid, kind) + _buffer(path) + b"\0")
        return await self._answer(self._xid, path)

    async def _answer(self, xid: int, what: str) -> bytes:
        reply = await self._receive()
        told, _, error = struct.unpack_from(">iqi", reply)
        if told != xid:
            raise ZooKeeperError("an answer to another question")
        if error:
            words = {_NO_NODE: "does not exist", _NO_AUTH: "is forbidden"}
            raise ZooKeeperError(f"{what} {words.get(error, f'failed with error {error}')}")
        return reply[16:]

    def _send(self, packet: bytes) -> None:
        self._writer.write(struct.pack(">i", len(packet)) + packet)

    async def _receive(self) -> bytes:
        (length,) = struct.unpack(">i", await self._reader.readexactly(4))
        if not 0 <= length <= _REPLY_MAX:
            raise ZooKeeperError(f"a packet of {counts.told(length, 'byte')}")
        return await self._reader.readexactly(length)


def _buffer(told: str) -> bytes:
    data = told.encode()
    return struct.pack(">i", len(data)) + data


def _take(packet: bytes, offset: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">i", packet, offset)
    offset += 4
    if length < 0 or offset + length > len(packet):
        raise ZooKeeperError("a packet that is shorter than it says")
    return packet[offset : offset + length], offset + length
