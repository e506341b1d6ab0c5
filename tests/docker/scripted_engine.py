"""An engine that answers whatever a test says, byte for byte; calm where nothing is said.

Not the real one: for what a real one never sends. Threads on a unix socket; no process is left.
Documents have the types that the Engine's API gives them (tests/oracle/engine_forms), and a test that
wants others says so.
"""

import contextlib
import json
import pathlib
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator

from attrs import define, field

from tests import echo
from tests.oracle import engine_forms

Answer = Callable[[echo.Request, socket.socket], None] | bytes

VERSION = {"Version": "28.2.2", "ApiVersion": "1.50", "MinAPIVersion": "1.24"}
CALM = {
    ("GET", "/version"): VERSION,
    ("GET", "/info"): {"ID": "x", "SecurityOptions": ["name=seccomp,profile=default"]},
    ("GET", "/containers/json"): [],
    ("POST", "/containers/create"): {"Id": "c" * 64, "Warnings": []},
    ("GET", "/volumes"): {"Volumes": [], "Warnings": None},
}


@define
class Engine:
    """What it is to answer, by method and the end of the path; what it was asked."""

    url: str
    answers: dict[tuple[str, str], Answer] = field(factory=dict)
    requests: list[echo.Request] = field(factory=list)
    sent: int = 0  # bytes, of answers that are pieces
    unlike: list[str] = field(factory=list)  # what of its answers no engine would answer
    _documents: dict[tuple[str, str], object] = field(factory=lambda: dict(CALM))

    def answer(self, method: str, end: str, told: object, *, odd: bool = False) -> None:
        """Answer with JSON, bytes as they are, or whatever a function does with the socket.

        To bytes with a whole head is added that the connection is closed, if they do not say it.
        ``odd``: it is no answer of an engine, and shall be none.
        """
        as_it_is = callable(told) or isinstance(told, bytes)
        reply = told if as_it_is else echo.reply(told)
        self.answers[method, end] = _closes(reply) if isinstance(reply, bytes) else reply
        self._documents.pop((method, end), None)
        if not as_it_is and not odd:
            self._documents[method, end] = told

    def pieces(self, head: bytes, *pieces: bytes, times: int | None = None) -> Answer:
        """Return an answer of a head and then these pieces, again and again."""

        def send(_: echo.Request, sock: socket.socket) -> None:
            sock.sendall(head)
            count = 0
            while times is None or count < times:
                for piece in pieces:
                    sock.sendall(piece)
                    self.sent += len(piece)
                count += 1

        return send

    def _find(self, request: echo.Request) -> Answer:
        path = request.target.partition("?")[0]
        for (method, end), told in self.answers.items():
            if method == request.method and path.endswith(end):
                self._judge(method, path, end)
                return told
        for (method, end), document in CALM.items():
            if method == request.method and path.endswith(end):
                self._judge(method, path, end)
                return echo.reply(document)
        return echo.reply({"message": "page not found"}, status="404 Not Found")

    def _judge(self, method: str, path: str, end: str) -> None:
        """Note what a document has that neither the recorded engine nor a newer one would send."""
        name = engine_forms.endpoint(method, path)
        if name is None or (method, end) not in self._documents:
            return
        told = self._documents[method, end]
        for version in engine_forms.VERSIONS:
            for problem in engine_forms.surprises(name, told, version=version):
                self.unlike.append(f"{name} of API {version}: {problem}")


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Give one; its socket is in a folder with a short name, as sockets want it.

    Raises AssertionError at its end if it gave answers of which nobody said that they are odd.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix="dkr-"))
    path = str(folder / "s")
    made = Engine(f"unix://{path}")
    made.answer("GET", "/info", {"ID": folder.name, "Name": "rough", "SecurityOptions": []})
    closing = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        timeout = 20

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                request = echo._read(self.rfile)
                made.requests.append(request)
                told = made._find(request)
                if isinstance(told, bytes):
                    self.wfile.write(told)
                else:
                    told(request, _Ending(self.connection, closing))

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = False
        block_on_close = True

        def handle_error(self, request, client_address) -> None:
            """Say nothing: clients that leave are what is tested."""

    with Server(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            closing.set()
            server.shutdown()
            thread.join()
            shutil.rmtree(folder)
    assert not made.unlike, made.unlike[:5]


class _Ending:
    """A socket that nothing can be sent on any more when the test is over."""

    def __init__(self, sock: socket.socket, closing: threading.Event) -> None:
        self._sock = sock
        self.closing = closing

    def sendall(self, data: bytes) -> None:
        if self.closing.is_set():
            raise OSError("the test is over")
        self._sock.sendall(data)

    def rest(self, seconds: float) -> None:
        """Send nothing for a while."""
        if self.closing.wait(seconds):
            raise OSError("the test is over")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
TO_THE_END = HEAD + b"\r\n"
GZIP = HEAD + b"Content-Encoding: gzip\r\n\r\n"


def _closes(told: bytes) -> bytes:
    """Say in the head of an answer that the connection is closed after it, as it is here.

    A client that was not told may send its next request while it is being closed.
    """
    status, _, head = told[: told.find(b"\r\n\r\n") + 2].partition(
        b"\r\n"
    )  # the body may be large
    is_last = status.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3", b"HTTP/1.1 4", b"HTTP/1.1 5"))
    if b"\r\n\r\n" not in told or not is_last or b"connection:" in head.lower():
        return told
    return status + b"\r\nConnection: close\r\n" + told[len(status) + 2 :]


def chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def lines(*documents: object) -> bytes:
    """Return a whole stream of events or of progress, which then ends."""
    told = [d if isinstance(d, bytes) else json.dumps(d).encode() for d in documents]
    return CHUNKED + b"".join(chunk(line + b"\n") for line in told) + chunk(b"")


def drip(head: bytes, piece: bytes, *, pause_s: float = 0.02) -> Answer:
    """Return an answer that goes on for ever, a little at a time."""

    def send(_: echo.Request, sock: _Ending) -> None:
        sock.sendall(head)
        while True:
            sock.sendall(piece)
            sock.rest(pause_s)

    return send


def refusal(status: int, words: str) -> bytes:
    """Return a refusal in an engine's form."""
    return echo.reply({"message": words}, status=f"{status} No")
