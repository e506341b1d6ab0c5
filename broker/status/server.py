"""The HTTP side: ``/healthz``, ``/readyz``, ``/metrics``, ``/api/v1/…`` and the page at ``/``.

Everything is read from the last observation and plan at the moment of the request. Only GET and
HEAD are answered; nothing here changes anything, so nothing here asks who you are. Where only this
machine is served, a request under a foreign host name is refused: a web page elsewhere could
otherwise read the answers through a browser on this machine, by a name that it points here.
Refuses to wait for the controller or a backend.

What a stranger sends costs little (``doors``), is answered 400 in one line where it is no request,
and is logged once a minute. A document that cannot be made costs that document.

aiohttp's low-level server is enough for a handful of fixed paths: its application framework would
be a megabyte more in every broker (docs/decisions/0050-memory.md).
"""

import asyncio
import ipaddress
import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus

from aiohttp.http import HttpVersion11
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server as LowLevelServer
from attrs import frozen

from broker import presence
from broker.core import model
from broker.core.decide import leftovers
from broker.status import documents, page
from broker.status.source import StatusSource
from outside import doors, seldom, speaking

_LOG = logging.getLogger("broker.status")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "Server": "agent-broker",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_DOCUMENTS: dict[str, Callable[[StatusSource], documents.Document]] = {
    "queue": documents.queue,
    "agents": documents.agents,
    "templates": documents.templates,
    "plan": documents.plan,
}
_API = "/api/v1/"
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

_GOODBYE_S = 1.0

_DEAR = 9.0
"""How long an answer is good, in times of what it took to make."""

_Answer = Callable[[], Response]
_Prove = Callable[[str, str, bytes], str | None]


@frozen(kw_only=True)
class _Made:
    """A body that was made a moment ago."""

    body: bytes
    kind: str
    until: float  # loop time


class Server:
    """Serves one source; ``metrics`` gives an exposition and its content type.

    ``prove`` is ``presence.proof`` with the key of this life.
    """

    def __init__(
        self,
        source: StatusSource,
        *,
        metrics: Callable[[], tuple[bytes, str]],
        limits: doors.Limits | None = None,
    ) -> None:
        self.prove: _Prove = lambda word, path, body: None  # noqa: ARG005 -- until there is a key
        self._source = source
        self._metrics = metrics
        self._limits = limits if limits is not None else doors.Limits()
        self._served: LowLevelServer | None = None
        self._door: doors.Door | None = None
        self._told = seldom.Seldom(_LOG)
        self._is_local = True
        self._dear: dict[str, _Made] = {}
        self._left_over: dict[bool, tuple[model.World, model.Plan]] = {}
        self._answers: dict[str, _Answer] = {
            "/": self._page,
            "/healthz": lambda: _verdict(*source.alive()),
            "/readyz": lambda: _verdict(*source.ready()),
            "/metrics": self._exposition,
            **{f"{_API}{name}": self._document(make) for name, make in _DOCUMENTS.items()},
            f"{_API}leftovers": lambda: _json(self._leftovers(everything=False)),
            f"{_API}leftovers/all": lambda: _json(self._leftovers(everything=True)),
        }

    async def start(self, *, host: str, port: int) -> str:
        """Listen, and return the page's address. Raises OSError if the port is taken."""
        self._is_local = _is_local(host)
        loop = asyncio.get_running_loop()
        served = LowLevelServer(self._answer)

        def speak() -> speaking.Handler:
            return speaking.Handler(served, told=self._told, headers=_HEADERS, loop=loop)

        door = doors.Door(speak, limits=self._limits, logger=_LOG)
        found, bound = await door.open(host=host, port=port)
        self._served, self._door = served, door
        name = f"[{found}]" if ":" in found else found
        return f"http://{name}:{bound}/"

    async def aclose(self) -> None:
        """Stop listening; idempotent."""
        door, self._door = self._door, None
        if door is not None and self._served is not None:
            await door.aclose()
            self._served.pre_shutdown()
            await self._served.shutdown(_GOODBYE_S)
            door.expel()

    async def _answer(self, request: BaseRequest) -> Response:
        if self._door is not None and (there := self._door.inside.get(request.protocol)):
            there.asked()
        answer = self._refusal(request) or self._made(request.path)
        answer.headers.update(_HEADERS)
        word = request.headers.get(presence.CHALLENGE)
        if word is not None and answer.status == HTTPStatus.OK:
            body = answer.body if isinstance(answer.body, bytes) else b""
            given = self.prove(word, request.path, body)
            if given is not None:
                answer.headers[presence.PROOF] = given
        answer.force_close()  # a connection is for one request: see doors
        return answer

    def _refusal(self, request: BaseRequest) -> Response | None:
        told = request.headers.getall("Host", [])
        found = _HOST.fullmatch(told[0]) if len(told) == 1 else None
        if found is None and (told or request.version >= HttpVersion11):
            return _line(HTTPStatus.BAD_REQUEST, "no host, or none that there can be")
        host = found["name"].strip("[]") if found is not None else ""
        if self._is_local and found and not (host == "localhost" or _is_address(host)):
            return _line(
                HTTPStatus.MISDIRECTED_REQUEST,
                "asked under a foreign host name; use the address of the page",
            )
        if not request.raw_path.startswith("/"):  # as to a proxy: for whatever host it names
            return _line(HTTPStatus.BAD_REQUEST, "a path is expected, not a whole address")
        if request.path not in self._answers:
            return _line(HTTPStatus.NOT_FOUND, "404: Not Found")
        if request.method not in {"GET", "HEAD"}:
            refused = _line(HTTPStatus.METHOD_NOT_ALLOWED, "405: Method Not Allowed")
            refused.headers["Allow"] = "GET,HEAD"
            return refused
        return None

    def _made(self, path: str) -> Response:
        """Make one answer; a bug costs that answer, and is told once in a while.

        One that was dear is given again for a while: whoever asks without end gets a tenth of the
        loop's time for it, and no more.
        """
        elapsed = asyncio.get_running_loop().time
        known = self._dear.get(path)
        if known is not None and elapsed() < known.until:
            return Response(body=known.body, headers={"Content-Type": known.kind})
        began = elapsed()
        try:
            answer = self._answers[path]()
        except Exception as error:  # noqa: BLE001 -- whoever asks again gets the same; the rest lives
            self._told.bug(f"{path} cannot be made, by a bug", error)
            return _line(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"{path} cannot be made, by a bug of the broker ({type(error).__name__}); its log "
                "says where. The other pages are not concerned.",
            )
        if answer.status == HTTPStatus.OK and isinstance(answer.body, bytes):
            until = elapsed() + _DEAR * (elapsed() - began)
            kind = answer.headers["Content-Type"]
            self._dear[path] = _Made(body=answer.body, kind=kind, until=until)
        return answer

    def _page(self) -> Response:
        return _text(page.render(self._source), kind="text/html")

    def _exposition(self) -> Response:
        body, kind = self._metrics()
        return Response(body=body, headers={"Content-Type": kind})

    def _document(
        self, make: Callable[[StatusSource], documents.Document]
    ) -> Callable[[], Response]:
        return lambda: _json(make(self._source))

    def _leftovers(self, *, everything: bool) -> documents.Document:
        """Plan once more, at most once for each look."""
        world, planned = self._source.world, None
        if world is not None:
            known = self._left_over.get(everything)
            if known is None or known[0] is not world:
                policy = self._source.policy
                known = (world, leftovers.look(world, policy, everything=everything))
                self._left_over[everything] = known
            planned = known[1]
        return documents.leftovers(self._source, planned, everything=everything)


def _json(document: documents.Document) -> Response:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return _text(text, kind="application/json")


def _line(status: HTTPStatus, text: str) -> Response:
    return _text(f"{text}\n", status=status)


def _text(text: str, *, kind: str = "text/plain", status: int = HTTPStatus.OK) -> Response:
    """Return an answer; halves of surrogate pairs, which nobody can read, become ``?``."""
    body = text.encode("utf-8", "replace")
    return Response(body=body, status=status, content_type=kind, charset="utf-8")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _verdict(good: bool, text: str) -> Response:  # noqa: FBT001 -- a pair, unpacked above
    return _line(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, text or "ok")
