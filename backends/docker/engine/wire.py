"""One engine over HTTP: a request, and its answer with a type, a size and a time limit.

Why not the SDK's own client: it follows redirects to any host with the registry's password and
the archive that holds an agent's secret, unpacks and keeps bodies of any size, waits as long as
bytes come, takes ``{}`` for a listing, and reads a Docker configuration of any kind when it is
made. Of the SDK the pool of unix sockets is left, of urllib3 the connections.

Refuses to know what the Engine's API means, to follow a redirect, to keep a cookie, and to take
anything from the environment.

Theory of operation: a call is made and read to its end in one thread, so that thread knows until
when (``_Call``), and every single wait of its socket, also amid headers or a TLS record, ends by
then. Streams are read as they come, with a limit for one line.
"""

import contextlib
import json
import math
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from http.client import BadStatusLine, HTTPException
from typing import Any, BinaryIO

import urllib3
from attrs import frozen
from docker.transport import unixconn
from urllib3.connection import HTTPConnection

from backends.docker import settings
from backends.docker.engine import ssh
from outside import bodies, counts, files, odd_json, quotes, text, tls

_CONNECT_S = 5.0
_PIECE = 64 << 10
_ERROR_MAX = 64 << 10
_WORDS_MAX = 1024  # what they mean stands behind the names of all who passed them on
_FILE_MAX = 1 << 20  # of a certificate or key
_DIGITS = 25  # of a number: more than a size or a time in nanoseconds has
_MOST = int("9" * _DIGITS)
_SKIPPED_MAX = 16 << 20  # of a line that is too long, until its end is given up
_LINE_S = 300.0
_FRAME = 8  # type, three zeros, length: of multiplexed output
_FRAME_TYPES = frozenset({0, 1, 2})
_REDIRECTS = range(300, 400)
_NOT_MODIFIED = 304  # what was asked for is so already

JSON_MAX = 8 << 20
"""Of an answer; that are 4,000 containers of ours, and read it takes five times as much memory."""
LINE_MAX = 1 << 20
"""Of an event or of the progress of a pull; an event holds all labels of its container."""


Body = bytes | BinaryIO
"""What is sent; a file is read as it is sent."""


class RefusedError(Exception):
    """The engine answered, and it was no success."""

    def __init__(self, status: int, words: str, retry_after: float | None) -> None:
        super().__init__(words)
        self.status = status
        self.words = words
        self.retry_after = retry_after


class SshError(ConnectionError):
    """The ssh on the way to the engine ended; its last words."""


class OddReplyError(Exception):
    """An answer is not what an engine answers: its type, size or packing."""


@frozen(kw_only=True)
class Waits:
    """How long a call may take, in seconds: between two pieces, and in all."""

    silence_s: float
    within_s: float = math.inf


class _Sockets:
    """The sockets of the calls that are under way; any thread may end them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[socket.socket] = set()
        self._ended = False

    def hold(self, sock: socket.socket) -> None:
        """Note that a call waits for it; raises ConnectionError when all have ended."""
        with self._lock:
            if self._ended:
                raise ConnectionError("the connection was given up")
            self._held.add(sock)

    def release(self, sock: socket.socket | None) -> None:
        if sock is not None:
            with self._lock:
                self._held.discard(sock)

    def end(self) -> None:
        """Whoever waits for one sees its end, and nobody waits for one any more."""
        with self._lock:
            self._ended = True
            for sock in self._held:
                _end(sock)


class _Call(threading.local):
    """Of the call that this thread is at."""

    silence_s: float = _CONNECT_S
    end: float = math.inf  # time.monotonic()
    sock: socket.socket | None = None
    sockets: _Sockets | None = None

    def begin(self, waits: Waits, sockets: _Sockets) -> None:
        self.silence_s, self.end = waits.silence_s, time.monotonic() + waits.within_s
        self.sock, self.sockets = None, sockets

    def pace(self, sock: socket.socket) -> None:
        """Let the next wait of a socket end in time; raises TimeoutError if it is over."""
        left = min(self.silence_s, self.end - time.monotonic())
        if left <= 0:
            raise TimeoutError("timed out")
        sock.settimeout(left)
        if self.sock is not sock and self.sockets is not None:
            self.sockets.hold(sock)
        self.sock = sock


_THIS_CALL = _Call()


class _Plain(socket.socket):
    """A socket whose waits end with its call."""

    def recv_into(self, *args: Any) -> int:
        _THIS_CALL.pace(self)
        return super().recv_into(*args)

    def sendall(self, *args: Any) -> None:
        _THIS_CALL.pace(self)  # of all that is sent
        super().sendall(*args)


class _Secure(ssl.SSLSocket):
    """The same with TLS."""

    def recv_into(self, *args: Any) -> int:
        _THIS_CALL.pace(self)
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        _THIS_CALL.pace(self)
        return super().send(*args)


class _UnixConnection(unixconn.UnixHTTPConnection):
    def connect(self) -> None:
        sock = _Plain(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _THIS_CALL.pace(sock)
            sock.connect(self.unix_socket)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


class _UnixPool(unixconn.UnixHTTPConnectionPool):
    def _new_conn(self) -> _UnixConnection:  # type: ignore[override]  # the SDK's own way
        return _UnixConnection(self.base_url, self.socket_path)


class _SshSocket(_Plain):
    """A socket behind which an ssh stands, which ends with it."""

    def __init__(self, program: ssh.Program) -> None:
        super().__init__(fileno=program.fileno)
        self._program = program

    def _real_close(self, *args: Any) -> None:
        """Close it: nobody reads an answer from it any more."""
        super()._real_close(*args)  # type: ignore[misc]  # where the library closes in truth
        self._program.end()


class _SshConnection(HTTPConnection):
    """A connection through an ssh of its own."""

    def __init__(self, url: str) -> None:
        super().__init__("localhost")
        self._url = url
        self._program: ssh.Program | None = None

    def connect(self) -> None:
        self._program = ssh.Program(self._url)
        self.sock = _SshSocket(self._program)

    def getresponse(self) -> Any:
        """Return the answer; an end without one is told in the words of ssh."""
        try:
            return super().getresponse()
        except TimeoutError:
            raise
        except (OSError, HTTPException) as error:
            ended = error
        complaint = self._program.complaint() if self._program is not None else ""
        if type(ended) is BadStatusLine:  # a shell's greeting, or that there is no shell
            complaint = f"no engine answers there: {text.clean(str(ended))} {complaint}".strip()
        raise SshError(complaint) if complaint else ended


class _SshPool(urllib3.HTTPConnectionPool):
    def __init__(self, url: str, connections: int) -> None:
        super().__init__("localhost", maxsize=connections)
        self._url = url

    def _new_conn(self) -> _SshConnection:
        return _SshConnection(self._url)


class _EngineConnection(HTTPConnection):
    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            self.sock = _Plain(fileno=self.sock.detach())


class _ConnectionPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _EngineConnection


class Connections:
    """Connections to one engine."""

    def __init__(self, host: settings.Host, *, timeout_s: float, connections: int) -> None:
        """Raises ``OSError`` for a file of the host that cannot be read, and ``ssl.SSLError``."""
        self.version: str | None = None
        self._waits = Waits(silence_s=timeout_s, within_s=timeout_s)
        self._pool, self._prefix = _pool(host, connections)
        self._sockets = _Sockets()

    def close(self) -> None:
        """Let go of every connection; calls under way in other threads fail."""
        self._sockets.end()
        self._pool.close()

    def ask(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None,
        body: Body | None = None, headers: Mapping[str, str] | None = None,
        waits: Waits | None = None, limit: int = _ERROR_MAX,
    ) -> bytes:  # fmt: skip
        """Return the body of an answer, unpacked.

        Raises ``RefusedError``, ``OddReplyError``, and what urllib3 and the system raise.
        """
        with self.stream(
            method, path, query=query, body=body, headers=headers, waits=waits or self._waits
        ) as answer:
            return answer.whole(limit)

    def ask_json(self, kind: type[Any], method: str, path: str, **asked: Any) -> Any:
        """Return the answer's JSON, which is a ``kind``; raises as ``ask``."""
        document = read_json(self.ask(method, path, **{"limit": JSON_MAX, **asked}))
        if not isinstance(document, kind):
            raise OddReplyError(
                f"{path} answers with {_kind(document)} in place of {_kind(kind())}"
            )
        return document

    @contextlib.contextmanager
    def stream(
        self, method: str, path: str, *, query: Mapping[str, Any] | None = None,
        body: Body | None = None, headers: Mapping[str, str] | None = None, waits: Waits,
    ) -> Iterator["EngineAnswer"]:  # fmt: skip
        """Give the answer to read; its connection is kept only if it was read to its end.

        Raises as ``ask``.
        """
        url = f"{self._prefix}{f'/v{self.version}' if self.version else ''}{path}"
        if query:
            url = f"{url}?{urllib.parse.urlencode(query)}"
        sent = {"Accept-Encoding": "identity", "User-Agent": "agent-broker", **(headers or {})}
        _THIS_CALL.begin(waits, self._sockets)
        try:
            with self._answered(method, url, body=body, headers=sent, waits=waits) as answer:
                yield answer
        finally:
            self._sockets.release(_THIS_CALL.sock)

    @contextlib.contextmanager
    def _answered(
        self, method: str, url: str, *, body: Body | None, headers: dict[str, str], waits: Waits
    ) -> Iterator["EngineAnswer"]:
        response = self._pool.urlopen(
            method,
            url,
            body=body,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, waits.silence_s), read=None),
        )
        answer = EngineAnswer(response, _THIS_CALL.sock)
        try:
            answer.check()
            yield answer
        except BaseException:
            response.close()
            raise
        finally:
            if not response.closed:
                response.close()
            response.release_conn()


class EngineAnswer:
    """An answer that is being read."""

    def __init__(self, response: urllib3.BaseHTTPResponse, sock: socket.socket | None) -> None:
        self._response = response
        self._sock = sock

    def end(self) -> None:
        """End it from any thread: whoever reads it sees its end."""
        if self._sock is not None:
            _end(self._sock)

    def check(self) -> None:
        """Raise ``RefusedError`` for what is no success."""
        status = self._response.status
        if 200 <= status < 300 or status == _NOT_MODIFIED:
            return
        if status in _REDIRECTS:
            where = text.clean(self._response.headers.get("Location", ""), 80)
            raise RefusedError(
                status,
                f"it redirects us to {where or 'nowhere'}, which is not followed; hint: `url`",
                None,
            )
        after = self._response.headers.get("Retry-After", "")
        seconds = float(after) if re.fullmatch("[0-9]{1,7}", after) else None
        raise RefusedError(status, self._words(), seconds)

    def whole(self, limit: int) -> bytes:
        """Return the body to its end, unpacked. Raises ``OddReplyError``."""
        body, ended = self._begin(limit)
        if not ended:
            raise OddReplyError(f"the answer is larger than {counts.told(limit, 'byte')}")
        return body

    def first(self, size: int) -> bytes:
        """Return the first bytes, fewer if there are no more. Raises ``OddReplyError``."""
        self._check_unpacked()
        data = bytearray()
        while len(data) < size and (piece := self._read(size - len(data))):
            data += piece
        return bytes(data)

    def lines(self, longest: int = LINE_MAX) -> Iterator[bytes | None]:
        """Yield each line as it comes; None for one too long. Raises ``OddReplyError``."""
        self._check_unpacked()
        rest, skipped, began = bytearray(), 0, time.monotonic()
        for piece in self._pieces():
            *ended, last = piece.split(b"\n")
            for line in ended:
                yield None if skipped or len(rest) + len(line) > longest else bytes(rest + line)
                rest.clear()
                skipped, began = 0, time.monotonic()
            rest += last
            if skipped or len(rest) > longest:
                skipped += len(rest)
                rest.clear()
            late = time.monotonic() - began > _LINE_S
            if not rest and not skipped:
                began = time.monotonic()
            elif late or skipped > _SKIPPED_MAX:
                raise OddReplyError("a line of the answer has no end")
        if rest or skipped:
            yield None if skipped else bytes(rest)

    def output(self, *, multiplexed: bool, kept: int, limit: int) -> tuple[bytes, bool]:
        """Return the last ``kept`` bytes of a container's output, and whether that is all.

        Raises ``OddReplyError`` for more than ``limit`` bytes, and for frames that are none.
        """
        self._check_unpacked()
        tail, size, frames = bytearray(), 0, _Frames()
        for piece in self._pieces():
            size += len(piece)
            if size > limit:
                raise OddReplyError(f"the output is larger than {counts.told(limit, 'byte')}")
            for part in frames.contents(piece) if multiplexed else (piece,):
                tail += part
            if len(tail) > 2 * kept:
                del tail[:-kept]
        if not frames.complete:
            raise OddReplyError("the output ends in the middle of a frame")
        return bytes(tail[-kept:]), size <= kept

    def frames(self, take: Callable[[bytes], None]) -> None:
        """Hand over multiplexed output as it comes, to its end, whatever its size.

        Raises ``OddReplyError`` for frames that are none.
        """
        self._check_unpacked()
        frames = _Frames()
        for piece in self._pieces():
            for part in frames.contents(piece):
                take(bytes(part))

    # --- inside ---

    def _words(self) -> str:
        """Return the engine's words about a refusal: its message, or whatever came."""
        said = b""
        with contextlib.suppress(OddReplyError, urllib3.exceptions.HTTPError, OSError):
            said, _ = self._begin(_ERROR_MAX)
        with contextlib.suppress(OddReplyError):
            told = read_json(said)
            if isinstance(told, dict) and isinstance(told.get("message"), str):
                return text.clean(told["message"], _WORDS_MAX)
        return text.clean(said.decode("utf-8", "replace")) or text.clean(
            self._response.reason or "no reason is given"
        )

    def _begin(self, limit: int) -> tuple[bytes, bool]:
        """Return the first ``limit`` bytes unpacked, and whether that is all."""
        try:
            body = bodies.Body(self._response.headers.get("Content-Encoding", ""), limit)
            for piece in self._pieces():
                if not body.add(piece):
                    return body.data, False
        except bodies.Unreadable as error:
            raise OddReplyError(str(error)) from None
        return body.data, True

    def _check_unpacked(self) -> None:
        packing = self._response.headers.get("Content-Encoding", "").strip().lower()
        if packing not in {"", "identity"}:
            raise OddReplyError(f"a stream is packed as {quotes.shown(text.clean(packing, 40))}")

    def _pieces(self) -> Iterator[bytes]:
        while piece := self._read(_PIECE):
            yield piece

    def _read(self, size: int) -> bytes:
        return self._response.read1(size, decode_content=False)


class _Frames:
    """Takes output apart that engines send in frames; raises ``OddReplyError``."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0

    @property
    def complete(self) -> bool:
        return not self._head and not self._left

    def contents(self, piece: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(piece):
            if self._left:
                part = piece[at : at + self._left]
                self._left -= len(part)
                at += len(part)
                yield part
                continue
            part = piece[at : at + _FRAME - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == _FRAME:
                if self._head[0] not in _FRAME_TYPES or any(self._head[1:4]):
                    raise OddReplyError("the output is not in frames, or reports an error")
                self._left = int.from_bytes(self._head[4:], "big")
                self._head.clear()


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # no word of TLS is awaited


def read_json(data: bytes) -> Any:
    """Return what JSON says; numbers without end are clamped. Raises ``OddReplyError``."""
    try:
        return json.loads(data, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise OddReplyError(f"the answer is {odd_json.words(error)}") from None


def _integer(digits: str) -> int:
    if len(digits) <= _DIGITS:
        return int(digits)
    return -_MOST if digits.startswith("-") else _MOST


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else f"a value ({type(value).__name__})"


def _pool(host: settings.Host, connections: int) -> tuple[urllib3.HTTPConnectionPool, str]:
    """Return a pool of connections, and what every path begins with."""
    if host.url.startswith("unix://"):
        path = host.url.removeprefix("unix://")
        return _UnixPool("http+docker://localhost", path, maxsize=connections), ""
    if host.url.startswith("ssh://"):
        return _SshPool(host.url, connections), ""
    parts = urllib.parse.urlsplit(host.url)
    place, prefix = parts.hostname or "", parts.path.rstrip("/")
    if not host.tls and parts.scheme != "https":
        return _ConnectionPool(place, parts.port, maxsize=connections), prefix
    return (
        urllib3.HTTPSConnectionPool(
            place, parts.port, maxsize=connections, ssl_context=_context(host)
        ),
        prefix,
    )


def _context(host: settings.Host) -> ssl.SSLContext:
    """Return whom we trust and who we are; the authorities of the system without a ``ca_file``."""
    context = ssl.create_default_context() if host.ca_file is None else tls.trusting(host.ca_file)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # authorities of one's own are seldom strict
    context.sslsocket_class = _Secure
    if host.cert_file is not None and host.key_file is not None:
        for path in (host.cert_file, host.key_file):
            files.read(path, limit=_FILE_MAX)  # OpenSSL opens whatever is there
        # a key with a password would be asked for on the terminal
        context.load_cert_chain(host.cert_file, host.key_file, password="")
    return context
