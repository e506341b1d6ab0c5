"""The HTTP side: ``/healthz``, ``/readyz``, ``/metrics``, ``/api/v1/…`` and the page at ``/``.

Everything is read from the last observation and plan at the moment of the request. Only GET and
HEAD are answered; nothing here changes anything, so nothing here asks who you are. Where only this
machine is served, a request under a foreign host name is refused: a web page elsewhere could
otherwise read the answers through a browser on this machine, by a name that it points here.
Refuses to wait for the controller or a backend.
"""

import ipaddress
import json
from collections.abc import Awaitable, Callable

import yarl
from aiohttp import web

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

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Serves one source; ``metrics`` gives an exposition and its content type."""

    def __init__(self, source: StatusSource, *, metrics: Callable[[], tuple[bytes, str]]) -> None:
        self._source = source
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self._is_local = True

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[_with_headers, self._check_host])
        app.router.add_get("/", self._page)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/metrics", self._exposition)
        for name in _DOCUMENTS:
            app.router.add_get(f"/api/v1/{name}", self._document)
        return app

    async def start(self, *, host: str, port: int) -> str:
        """Listen, and return the page's address. Raises OSError if the port is taken."""
        self._is_local = _is_local(host)
        runner = web.AppRunner(
            self.application(), access_log=None, handle_signals=False, shutdown_timeout=1.0
        )
        await runner.setup()
        self._runner = runner
        await web.TCPSite(runner, host, port).start()
        found, bound = runner.addresses[0][:2]
        name = f"[{found}]" if ":" in found else found
        return f"http://{name}:{bound}/"

    async def aclose(self) -> None:
        """Stop listening; idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @web.middleware
    async def _check_host(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        host = yarl.URL(f"http://{request.host}").host or ""
        if self._is_local and not (host == "localhost" or _is_address(host)):
            raise web.HTTPMisdirectedRequest(
                text="asked under a foreign host name; use the address of the page\n"
            )
        return await handler(request)

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(text=page.render(self._source), content_type="text/html")

    async def _health(self, _: web.Request) -> web.Response:
        return _verdict(*self._source.alive())

    async def _ready(self, _: web.Request) -> web.Response:
        return _verdict(*self._source.ready())

    async def _exposition(self, _: web.Request) -> web.Response:
        body, kind = self._metrics()
        return web.Response(body=body, headers={"Content-Type": kind})

    async def _document(self, request: web.Request) -> web.Response:
        make = _DOCUMENTS[request.path.rpartition("/")[2]]
        text = json.dumps(make(self._source), ensure_ascii=False, allow_nan=False)
        return web.Response(text=text, content_type="application/json")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _verdict(good: bool, text: str) -> web.Response:  # noqa: FBT001 -- a pair, unpacked above
    return web.Response(text=f"{text or 'ok'}\n", status=200 if good else 503)


@web.middleware
async def _with_headers(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(_HEADERS)
        raise
    response.headers.update(_HEADERS)
    return response
