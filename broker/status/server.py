"""The HTTP side: ``/healthz``, ``/readyz``, ``/metrics``, ``/api/v1/…`` and the page at ``/``.

Everything is read from the last observation and plan at the moment of the request. Only GET and
HEAD are answered; nothing here changes anything, so nothing here asks who you are. Where only this
machine is served, a request under a foreign host name is refused: a web page elsewhere could
otherwise read the answers through a browser on this machine, by a name that it points here.
Refuses to wait for the controller or a backend.

aiohttp's low-level server is enough for a handful of fixed paths: its application framework would
be a megabyte more in every broker (docs/decisions/0050-memory.md).
"""

import asyncio
import ipaddress
import json
from collections.abc import Callable

import yarl
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response
from aiohttp.web_server import Server as LowLevelServer

from broker.status import documents, page
from broker.status.source import StatusSource

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_DOCUMENTS: dict[str, Callable[[StatusSource], documents.Document]] = {
    "queue": documents.queue,
    "agents": documents.agents,
    "templates": documents.templates,
    "plan": documents.plan,
}

_GOODBYE_S = 1.0

_Answer = Callable[[], Response]


class Server:
    """Serves one source; ``metrics`` gives an exposition and its content type."""

    def __init__(self, source: StatusSource, *, metrics: Callable[[], tuple[bytes, str]]) -> None:
        self._source = source
        self._metrics = metrics
        self._served: LowLevelServer | None = None
        self._listening: asyncio.Server | None = None
        self._is_local = True
        self._answers: dict[str, _Answer] = {
            "/": self._page,
            "/healthz": lambda: _verdict(*source.alive()),
            "/readyz": lambda: _verdict(*source.ready()),
            "/metrics": self._exposition,
            **{f"/api/v1/{name}": self._document(make) for name, make in _DOCUMENTS.items()},
        }

    async def start(self, *, host: str, port: int) -> str:
        """Listen, and return the page's address. Raises OSError if the port is taken."""
        self._is_local = _is_local(host)
        served = LowLevelServer(self._answer, access_log=None)
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(served, host, port)
        self._served = served
        found, bound = self._listening.sockets[0].getsockname()[:2]
        name = f"[{found}]" if ":" in found else found
        return f"http://{name}:{bound}/"

    async def aclose(self) -> None:
        """Stop listening; idempotent."""
        listening, self._listening = self._listening, None
        if listening is not None and self._served is not None:
            listening.close()
            self._served.pre_shutdown()
            await self._served.shutdown(_GOODBYE_S)
            await listening.wait_closed()

    async def _answer(self, request: BaseRequest) -> Response:
        answer = self._refusal(request) or self._answers[request.path]()
        answer.headers.update(_HEADERS)
        return answer

    def _refusal(self, request: BaseRequest) -> Response | None:
        host = yarl.URL(f"http://{request.host}").host or ""
        if self._is_local and not (host == "localhost" or _is_address(host)):
            text = "asked under a foreign host name; use the address of the page\n"
            return Response(status=421, text=text)
        if request.path not in self._answers:
            return Response(status=404, text="404: Not Found")
        if request.method not in {"GET", "HEAD"}:
            allowed = {"Allow": "GET,HEAD"}
            return Response(status=405, text="405: Method Not Allowed", headers=allowed)
        return None

    def _page(self) -> Response:
        return Response(text=page.render(self._source), content_type="text/html")

    def _exposition(self) -> Response:
        body, kind = self._metrics()
        return Response(body=body, headers={"Content-Type": kind})

    def _document(
        self, make: Callable[[StatusSource], documents.Document]
    ) -> Callable[[], Response]:
        def document() -> Response:
            text = json.dumps(make(self._source), ensure_ascii=False, allow_nan=False)
            return Response(text=text, content_type="application/json")

        return document


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _verdict(good: bool, text: str) -> Response:  # noqa: FBT001 -- a pair, unpacked above
    return Response(text=f"{text or 'ok'}\n", status=200 if good else 503)
