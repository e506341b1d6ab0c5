"""A loopback server that replays the recordings of a real controller and remembers what it saw.

It answers by method and path, in the order in which they were recorded, the last answer again and
again. What the recordings do not hold is answered 404 and kept in ``unexpected``.

Where only the meaning of one answer is looked at, and not how it comes, ``canned`` gives it without
a socket.
"""

import contextlib
import inspect
import json
import pathlib
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest import mock

import aiohttp
from aiohttp import test_utils, web
from aioresponses import aioresponses
from attrs import define, field

from jnlp import http
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings

RECORDINGS = pathlib.Path(__file__).parents[1] / "recordings" / "jenkins"
TOKEN = "11a0b1c2d3-token-nobody-may-see"


def load(name: str) -> dict[str, Any]:
    """Read one recording, for example ``nodes/01-create``."""
    return json.loads((RECORDINGS / f"{name}.json").read_text())


def exchange(name: str, note: str, nth: int = 0) -> dict[str, Any]:
    """Return the nth exchange of a recording with that note."""
    return [e for e in load(name)["exchanges"] if e["note"] == note][nth]


@define
class Seen:
    """One request as the server saw it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    form: dict[str, str]
    body: bytes
    raw_path: str = ""  # as it came, escapes and query included


@define
class Controller:
    """Replays exchanges."""

    exchanges: list[dict[str, Any]]
    prefix: str = ""
    seen: list[Seen] = field(factory=list)
    unexpected: list[str] = field(factory=list)
    played: dict[tuple[str, str], int] = field(factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        form = await request.post() if request.content_type.endswith("urlencoded") else {}
        self.seen.append(
            Seen(
                method=request.method,
                path=request.path,
                query=dict(request.query),
                headers={k.lower(): v for k, v in request.headers.items()},
                form={k: str(v) for k, v in form.items()},
                body=body,
                raw_path=request.raw_path,
            )
        )
        key = (request.method, request.path.removeprefix(self.prefix))
        fitting = [e for e in self.exchanges if self.key(e) == key]
        if not fitting:
            self.unexpected.append(f"{request.method} {request.path}")
            return web.Response(status=404, text="not recorded")
        number = self.played.get(key, 0)
        self.played[key] = number + 1
        return answer(fitting[min(number, len(fitting) - 1)])

    @staticmethod
    def key(exchange: dict[str, Any]) -> tuple[str, str]:
        request = exchange["request"]
        path = request["path"].partition("?")[0]
        return request["method"], urllib.parse.unquote(path)

    def paths(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.seen]


def answer(exchange: dict[str, Any]) -> web.Response:
    """Make the recorded answer again: status, headers, body (long pages are shortened there)."""
    recorded = exchange["response"]
    if "json" in recorded:
        body = json.dumps(recorded["json"], ensure_ascii=False)
    elif "body_excerpt" in recorded:
        body = recorded["body_excerpt"] + (recorded.get("body_main") or "")
    else:
        body = recorded.get("body") or ""
    response = web.Response(status=recorded["status"], body=body.encode())
    for name, value in (recorded.get("headers") or {}).items():
        for one in value if isinstance(value, list) else [value]:
            if name in {"Content-Type", "Date"}:
                response.headers[name] = one
            else:
                response.headers.add(name, one.encode("latin-1", "replace").decode("latin-1"))
    return response


@contextlib.asynccontextmanager
async def serving(handler: Callable[[web.Request], Any], **options: Any) -> AsyncIterator[str]:
    """Serve every path of a free loopback port with one handler; gives the URL."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    server = test_utils.TestServer(app, host="127.0.0.1", **options)
    await server.start_server(ssl=options.get("ssl"))
    try:
        yield str(server.make_url("/"))
    finally:
        await server.close()


class _Canned(aiohttp.ClientResponse):
    """An answer that aiohttp 3.14 can make as well: https://github.com/pnuckowski/aioresponses/issues/289."""

    def __init__(self, *args: Any, **told: Any) -> None:
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse).parameters:
            told.setdefault("stream_writer", mock.Mock(output_size=0))
        super().__init__(*args, **told)


@contextlib.asynccontextmanager
async def canned(asked: str, **answer: Any) -> AsyncIterator[http.ControllerSession]:
    """Give a session whose controller answers GET of this path and query, once, and nothing else.

    What comes between a session and a controller is not tried: what a socket brings and when,
    large bodies (it has no socket to hold up), redirects, proxies, TLS.
    """
    url = "http://controller.example/"
    with aioresponses() as controller:
        controller.get(url + asked, response_class=_Canned, **answer)
        async with http.ControllerSession(settings(url)) as session:
            yield session


def settings(url: str, **changes: Any) -> jnlp_settings.ControllerAccess:
    """Settings with an API token, unless changed."""
    values: dict[str, Any] = {
        "url": url,
        "credentials": jnlp_settings.Credentials(user="admin", secret=jnlp_secret.Secret(TOKEN)),
        "timeout_s": 5.0,
    }
    return jnlp_settings.ControllerAccess(**{**values, **changes})


def password() -> jnlp_settings.Credentials:
    """Credentials of a person: crumbs and cookies are wanted."""
    return jnlp_settings.Credentials(
        user="admin", secret=jnlp_secret.Secret(TOKEN), is_password=True
    )


@contextlib.asynccontextmanager
async def replaying(
    *exchanges: dict[str, Any], **changes: Any
) -> AsyncIterator[tuple[http.ControllerSession, Controller]]:
    """Serve exchanges and give a session to them."""
    controller = Controller(exchanges=list(exchanges))
    async with (
        serving(controller.handle) as url,
        http.ControllerSession(settings(url, **changes)) as session,
    ):
        yield session, controller
