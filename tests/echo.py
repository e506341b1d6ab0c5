"""A server that tells back what it was sent, in every way in which servers do; and a search for it.

For each client of ours: speak to ``serving(way)``, for every way in ``WAYS``; then
``found(secret, output)`` must be empty for whatever a person could get to see, and
``server.was_sent(secret)`` true, or the test has shown nothing. The search knows nothing of
``outside.secrets``: it undoes encodings and looks for any piece of a secret that is long enough
to be of use to somebody.
"""

import binascii
import contextlib
import functools
import html
import json
import re
import socketserver
import threading
import urllib.parse
from collections.abc import Callable, Iterator

from attrs import define, field

PIECE = 10
"""So many characters of a secret in a row are a leak; of a shorter secret all."""


@define(kw_only=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    head: str  # request line and headers
    body: bytes

    def everything(self) -> str:
        """Return all of it as one line of text."""
        return f"{self.head} {self.body.decode('latin-1')}".replace("\r\n", " ").replace("\n", " ")

    def shown(self) -> str:
        """Return what may stand in a header: a little, and of that what we were told as who."""
        lines = self.head.split("\r\n")
        secrets = [line for line in lines[1:] if not line.lower().startswith(_DULL)]
        text = " ".join((*secrets, lines[0], self.body.decode("latin-1")[:4000]))
        return "".join(c if 32 <= ord(c) < 127 else " " for c in text)[:7000]


_DULL = ("host:", "accept", "connection:", "content-", "user-agent:", "sec-", "upgrade:")


def _answer(status: str, body: str, kind: str = "text/html;charset=utf-8", *more: str) -> bytes:
    data = body.encode("utf-8", "surrogatepass")
    head = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(data)}", *more)
    return ("\r\n".join((*head, "Connection: close")) + "\r\n\r\n").encode("latin-1") + data


def _page(status: str) -> Callable[[Request], bytes]:
    def page(request: Request) -> bytes:
        text = html.escape(request.everything())
        return _answer(
            status, f"<html><title>Error</title><body><h1>Error</h1><p>{text}</p></body></html>"
        )

    return page


def _json(status: str) -> Callable[[Request], bytes]:
    def document(request: Request) -> bytes:
        said = request.everything()
        told = {
            "message": said,
            "error": said,
            "errorDetail": {"message": said},
            "reason": said,
            "status": "Failure",
            "details": {"causes": [{"reason": said, "message": said, "field": said}]},
            "headers": request.head.split("\r\n"),
        }
        return _answer(status, json.dumps(told), "application/json")

    return document


def _redirect(request: Request) -> bytes:
    where = f"http://elsewhere.invalid/login?from={urllib.parse.quote(request.shown())}"
    return _answer("307 Temporary Redirect", "", "text/plain", f"Location: {where}")


WAYS: dict[str, Callable[[Request], bytes]] = {
    "page 500": _page("500 Server Error"),
    "page 400": _page("400 Bad Request"),
    "page 401": _page("401 Unauthorized"),
    "page 403": _page("403 Forbidden"),
    "page 404": _page("404 Not Found"),
    "page 409": _page("409 Conflict"),
    "page 503": _page("503 Unavailable"),
    "page 200": _page("200 OK"),
    "json 500": _json("500 Server Error"),
    "json 403": _json("403 Forbidden"),
    "json 409": _json("409 Conflict"),
    "json 422": _json("422 Unprocessable Entity"),
    "json 200": _json("200 OK"),
    "text": lambda r: _answer("500 Server Error", r.everything(), "text/plain"),
    "x-error": lambda r: _answer("400 Bad", "", "text/html", f"X-Error: {r.shown()}"),
    "login": lambda r: _answer(
        "401 Unauthorized", "", "text/html", f'WWW-Authenticate: Basic realm="{r.shown()}"'
    ),
    "status line": lambda r: _answer(f"500 {r.shown()}", ""),
    "redirect": _redirect,
    "type": lambda r: _answer("200 OK", "x", r.shown()[:2000]),
    "cookie": lambda r: _answer("403 No", "", "text/html", f"Set-Cookie: a={r.shown()[:2000]}"),
    "session": lambda r: _answer(
        "200 OK",
        "{}",
        "application/json",
        f"X-Jenkins: {r.shown()[:2000]}",
        f"X-Jenkins-Session: {r.shown()[:2000]}",
    ),
    "packed": lambda r: _answer(
        "200 OK", r.everything(), "application/json", f"Content-Encoding: {r.shown()[:2000]}"
    ),
    "no http": lambda r: r.everything().encode("latin-1") + b"\r\n\r\n",
    "bad header": lambda r: b"HTTP/1.1 200 OK\r\n" + r.shown().encode() + b"\r\n\r\n",
}
"""By name: how a request comes back."""


@define
class Server:
    """What was sent, and where to."""

    url: str  # http://127.0.0.1:PORT/
    port: int
    requests: list[Request] = field(factory=list)

    def was_sent(self, secret: str) -> bool:
        """Whether a client really sent a secret, in some form."""
        return any(found(secret, r.head + "\n" + r.body.decode("latin-1")) for r in self.requests)


@contextlib.contextmanager
def serving(
    way: str | Callable[[Request], bytes],
    *,
    first: Callable[[Request], bytes | None] = lambda _: None,
    tls: Callable[[object], object] | None = None,
) -> Iterator[Server]:
    """Serve on a free loopback port, in threads: for any kind of client.

    ``first`` may answer a request properly (``reply``) where a client has to get past it.
    ``tls`` wraps an accepted socket.
    """
    told = WAYS[way] if isinstance(way, str) else way

    class Handler(socketserver.StreamRequestHandler):
        timeout = 10

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                request = _read(self.rfile)
                seen.requests.append(request)
                self.wfile.write(first(request) or told(request))

    class Threads(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = False
        block_on_close = True

        def get_request(self):
            sock, address = super().get_request()
            return (tls(sock) if tls is not None else sock), address

        def handle_error(self, request, client_address) -> None:
            """Say nothing: clients that leave are what is tested."""

    with Threads(("127.0.0.1", 0), Handler) as server:
        port = server.server_address[1]
        scheme = "https" if tls is not None else "http"
        seen = Server(f"{scheme}://127.0.0.1:{port}/", port)
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="echo"
        )
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()


def reply(document: object, *headers: str, status: str = "200 OK") -> bytes:
    """Make a proper JSON answer, for ``first``."""
    return _answer(status, json.dumps(document), "application/json", *headers)


def _read(stream) -> Request:
    lines = []
    while (line := stream.readline(65537)) not in (b"\r\n", b"\n", b""):
        lines.append(line.rstrip(b"\r\n").decode("latin-1"))
    method, target = ([*lines[0].split(" "), "", ""])[:2]
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
    body = b""
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int(stream.readline(100).split(b";")[0], 16):
            body += stream.read(size)
            stream.readline(10)
    elif size := int(headers.get("content-length", "0")):
        body = stream.read(size)
    return Request(method=method, target=target, head="\r\n".join(lines), body=body)


# --- the search ---------------------------------------------------------------------------------

_RUN = re.compile(r"[A-Za-z0-9+/_-]{8,}")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){4,}")


def found(secret: str, output: str) -> list[str]:
    """Return where a piece of a secret stands in an output, in whatever form; empty if nowhere."""
    size = min(PIECE, len(secret))
    pieces = {secret[i : i + size] for i in range(len(secret) - size + 1)}
    return [
        f"{how}: …{text[max(0, text.find(piece) - 40) : text.find(piece) + 60]!r}"
        for how, text in _readings(output)
        for piece in [next((p for p in pieces if p in text), None)]
        if piece is not None
    ]


@functools.lru_cache(maxsize=4)  # several secrets are looked for in one output
def _readings(output: str) -> list[tuple[str, str]]:
    """Return an output as it is and with each encoding undone, and one inside the other."""
    plain = {
        "as it is": output,
        "URL": urllib.parse.unquote_plus(output),
        "HTML": html.unescape(output),
        "backslashes": re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), output)
        .replace('\\"', '"')
        .replace("\\\\", "\\"),
    }
    plain["HTML, then URL"] = urllib.parse.unquote(plain["HTML"])
    plain["backslashes, then HTML"] = html.unescape(plain["backslashes"])
    readings, read = [*plain.items()], set[str]()
    for how, text in plain.items():
        runs = {*_RUN.findall(text), *_HEX.findall(text)} - read
        read |= runs
        readings.append(
            (f"{how}, packed", "\n".join(one for run in runs for one in _unpacked(run)))
        )
    return readings


def _unpacked(run: str) -> Iterator[str]:
    """Yield a run of letters and digits taken for base64, from each place, and hexadecimal."""
    letters = run.replace("-", "+").replace("_", "/")
    for skipped in range(4):
        part = letters[skipped:]
        inner = binascii.a2b_base64(part[: len(part) // 4 * 4])
        yield inner.decode("latin-1")
        yield inner.decode("utf-8", "replace")
    if _HEX.fullmatch(run):
        yield bytes.fromhex(run).decode("utf-8", "replace")
