"""The HTTP side: ``/healthz``, ``/readyz``, ``/metrics``, ``/api/v1/…`` and the page at ``/``.

Everything is read from the last observation and plan at the moment of the request, by anybody.
What changes something is a POST that a guard (``broker.control``) lets in, where there is a file
of tokens; it is a person's order to a room beside the loop, and decides nothing here. Where only
this machine is served, a request under a foreign host name is refused: a web page elsewhere could
otherwise read the answers through a browser on this machine, by a name that it points here.
Refuses to wait for the controller or a backend.

What a stranger sends costs little (``doors``), is answered 400 in one line where it is no request,
and is logged once a minute. A document that cannot be made costs that document.

Each path is a route of one application. What holds for every request stands in its middlewares,
from the outside in: ``_met`` tells the door that a request is whole and turns refusals into lines,
``_addressed`` refuses foreign hosts, ``_proven`` signs what a command beside us asked. What holds
for every answer, also for those that no route makes, stands in ``_dressed``.
"""

import asyncio
import functools
import importlib.resources
import ipaddress
import itertools
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from http import HTTPStatus

import aiohttp
import attrs
from aiohttp import hdrs, web
from aiohttp.http import HttpVersion11
from attrs import frozen

from broker import page_address
from broker.control import guard, tokens
from broker.control import orders as order_forms
from broker.core import model
from broker.core.decide import leftovers
from broker.hook import inbox, messages
from broker.status import agent_page, documents, page, routes
from broker.status.source import HookEnd, PersonOrders, StatusSource, TryOrders, TryRefused
from outside import counts, doors, http_handler, limited_log, waits

_LOG = logging.getLogger("broker.status")
_HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",  # it is for one request: see doors
    # one script of our own and what it asks of us; a form asks us, and nobody frames the page
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "agent-broker",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_DOCUMENTS: dict[str, Callable[[StatusSource], documents.Document]] = {
    "queue": functools.partial(documents.queue, rows=iter),
    "agents": functools.partial(documents.agents, rows=iter),
    "templates": documents.templates,
    "plan": documents.plan,
    "orders": documents.orders,
    "events": documents.events,
    "history": documents.history,
}
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

_LOOKED_FOR = 256  # characters of what somebody looks for
_WATCHERS = 24
_LIVE_S, _BEAT_S, _WATCH_S, _WRITE_S = 1.0, 15.0, 3600.0, 5.0
_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}")

_GOODBYE_S = 1.0
_BEARER = "bearer "
_HOOK_BODY_S = 5.0
_UNHEARD = {
    messages.HookRefusal.RATE: HTTPStatus.TOO_MANY_REQUESTS,
    messages.HookRefusal.MALFORMED: HTTPStatus.BAD_REQUEST,
    messages.HookRefusal.STANDBY: HTTPStatus.SERVICE_UNAVAILABLE,
}
_GOOD = {HTTPStatus.OK, HTTPStatus.ACCEPTED}

_DEAR = 9.0
"""How long an answer is good, in times of what it took to make."""

_SLICE = 100
"""Rows that are made before the loop goes round: some milliseconds."""

_Make = Callable[[], web.Response | Awaitable[web.Response]]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Ordering = Callable[[web.Request, tokens.Holder], Awaitable[web.Response]]
_WORDS_MAX = 256  # characters of a text in an order
_Prove = Callable[[str, str, bytes], str | None]


@frozen(kw_only=True)
class _Made:
    """A body that was made a moment ago."""

    body: bytes
    kind: str
    until: float  # loop time


class Server:
    """Serves one source; ``metrics`` gives an exposition and its content type.

    ``prove`` is ``page_address.proof`` with the key of this life.
    """

    def __init__(
        self,
        source: StatusSource,
        *,
        metrics: Callable[[], tuple[bytes, str]],
        limits: doors.DoorLimits | None = None,
        gate: guard.Guard | None = None,
        tries: TryOrders | None = None,
        orders: PersonOrders | None = None,
        hook: HookEnd | None = None,
    ) -> None:
        """``gate`` lets in who may order something, ``tries`` and ``orders`` do it.

        ``hook`` takes what the controller's push hook tells.
        """
        self.prove: _Prove = lambda word, path, body: None  # noqa: ARG005 -- until there is a key
        self.blind: Callable[[str], str] | None = None  # as well
        self._source = source
        self._gate = gate
        self._tries = tries
        self._orders = orders
        self._hook = hook
        self._metrics = metrics
        self._limits = limits if limits is not None else doors.DoorLimits()
        if hook is not None:  # it brings more than a stranger may, once it is let in
            self._limits = attrs.evolve(self._limits, takes_bodies=True)
        self._runner: web.AppRunner | None = None
        self._door: doors.Door | None = None
        self._log = limited_log.LimitedLog(_LOG)
        self.routes: list[routes.ServedRoute] = []  # that are served
        self._is_local = True
        self._costly: dict[str, _Made] = {}
        self._one_by_one = asyncio.Lock()
        self._page_lock = asyncio.Lock()
        self._watching = 0  # pages that are told of each look
        self._left_over: dict[bool, tuple[model.World, model.Plan]] = {}

    async def start(self, *, host: str, port: int) -> str:
        """Listen, and return the page's address. Raises OSError if the port is taken."""
        self._is_local = _is_local(host)
        loop = asyncio.get_running_loop()
        runner = web.AppRunner(self._application(), shutdown_timeout=_GOODBYE_S)
        await runner.setup()
        served = runner.server
        assert served is not None  # noqa: S101 -- it is set up; for mypy

        def speak() -> http_handler.Handler:
            return http_handler.Handler(served, log=self._log, headers=_HEADERS, loop=loop)

        door = doors.Door(speak, limits=self._limits, logger=_LOG)
        try:
            bound_host, bound = await door.open(host=host, port=port)
        except OSError:
            await runner.cleanup()
            raise
        self._runner, self._door = runner, door
        name = f"[{bound_host}]" if ":" in bound_host else bound_host
        return f"http://{name}:{bound}/"

    async def aclose(self) -> None:
        """Stop listening; idempotent."""
        door, self._door = self._door, None
        runner, self._runner = self._runner, None
        if door is not None and runner is not None:
            await door.aclose()
            await runner.cleanup()
            door.expel()

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._met, self._addressed, self._proven])
        app.on_response_prepare.append(_dressed)
        handlers = self._handlers()
        for route in routes.ROUTES:
            handler = handlers.get(route.name)
            if handler is None:
                continue
            self.routes.append(route)
            if route.method == "GET":
                app.router.add_get(
                    route.path, handler, allow_head=route.body is not routes.AnswerBody.EVENTS
                )
            else:
                app.router.add_route(route.method, route.path, handler)
        return app

    def _handlers(self) -> dict[str, _Handler]:
        """Return who answers, by the name of the route; a route without anybody is not served."""
        source = self._source
        made: dict[str, _Make] = {
            "script": _script,
            "alive": lambda: _verdict(*source.alive()),
            "ready": lambda: _verdict(*source.ready()),
            "metrics": self._exposition,
            **{name: self._document(make) for name, make in _DOCUMENTS.items()},
            "configuration": self._configuration,
            "leftovers": lambda: _json(self._leftovers(everything=False)),
            "leftovers_all": lambda: _json(self._leftovers(everything=True)),
            "openapi": lambda: _json(routes.document(self.routes, version=source.version)),
        }
        handlers: dict[str, _Handler] = {
            name: self._answering(name, make) for name, make in made.items()
        }
        handlers |= {
            "page": self._first_page,
            "agent_page": self._agent_page,
            "live": self._live,
            "agent": self._one_agent,
        }
        if self._hook is not None:
            handlers["hook"] = self._hooked
        if self._gate is not None and self._tries is not None:
            handlers["tried"] = self._ordering(tokens.Role.VIEW, self._tried)
            handlers["try"] = self._ordering(tokens.Role.OPERATE, self._try)
        if self._gate is not None and self._orders is not None:
            for form in order_forms.FORMS.values():
                handlers[form.name] = self._ordering(tokens.Role.OPERATE, self._taking(form))
        return handlers

    def _answering(self, name: str, make: _Make) -> _Handler:
        """Answer by what is made from memory."""
        one_at_a_time = asyncio.Lock()
        path = next(route.path for route in routes.ROUTES if route.name == name)

        async def answer(_: web.Request) -> web.Response:
            async with one_at_a_time:
                return await self._made(path, make)

        return answer

    # --- what holds for every request ---

    @web.middleware
    async def _met(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Tell the door that a request is whole; answer what is refused in one line."""
        if self._door is not None and (there := self._door.inside.get(request.protocol)):
            there.asked()
        try:
            return await handler(request)
        except web.HTTPException as refused:
            answer = _line(refused.status, f"{refused.status}: {refused.reason}")
            if (allowed := refused.headers.get(hdrs.ALLOW)) is not None:
                answer.headers[hdrs.ALLOW] = allowed
            return answer

    @web.middleware
    async def _addressed(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Refuse what is asked of another host, or of none."""
        hosts = request.headers.getall(hdrs.HOST, [])
        parts = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if parts is None and (hosts or request.version >= HttpVersion11):
            return _line(HTTPStatus.BAD_REQUEST, "no host, or none that there can be")
        host = parts["name"].strip("[]") if parts is not None else ""
        if self._is_local and parts and not (host == "localhost" or _is_address(host)):
            return _line(
                HTTPStatus.MISDIRECTED_REQUEST,
                "asked under a foreign host name; use the address of the page",
            )
        if not request.raw_path.startswith("/"):  # as to a proxy: for whatever host it names
            return _line(HTTPStatus.BAD_REQUEST, "a path is expected, not a whole address")
        return await handler(request)

    @web.middleware
    async def _proven(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Prove who answers to whoever brings a word for it."""
        answer = await handler(request)
        word = request.headers.get(page_address.CHALLENGE)
        if word is None or answer.status not in _GOOD or not isinstance(answer, web.Response):
            return answer
        body = answer.body if isinstance(answer.body, bytes) else b""
        given = self.prove(word, request.path, body)
        if given is not None:
            answer.headers[page_address.PROOF] = given
        return answer

    # --- what the controller tells ---

    async def _hooked(self, request: web.Request) -> web.Response:
        """Take a message of the push hook, if it brings the key; answer what it is to do."""
        assert self._hook is not None  # noqa: S101 -- or there is no such route
        told = request.headers.get(hdrs.AUTHORIZATION, "")
        given = told[len(_BEARER) :].strip() if told.lower().startswith(_BEARER) else ""
        is_json = request.content_type == "application/json"
        refusal = self._hook.admit(given) if is_json else "what is told is JSON"
        if refusal:
            status = HTTPStatus.UNAUTHORIZED if is_json else HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            return _line(status, refusal)
        if self._door is not None and (there := self._door.inside.get(request.protocol)):
            there.let_in()
        try:
            async with waits.timeout(_HOOK_BODY_S):
                body = await _read(request, messages.BODY_MAX)
            return _json(self._hook.receive(body).document())
        except inbox.NotHeard as error:
            return _line(_UNHEARD.get(error.why, HTTPStatus.CONFLICT), str(error))
        except TimeoutError:
            return _line(HTTPStatus.REQUEST_TIMEOUT, "it did not come to its end")
        except ValueError as error:
            return _line(HTTPStatus.BAD_REQUEST, str(error))

    # --- what may be ordered ---

    def _ordering(self, role: tokens.Role, order: _Ordering) -> _Handler:
        """Answer whoever the guard lets in."""

        async def answer(request: web.Request) -> web.StreamResponse:
            assert self._gate is not None  # noqa: S101 -- or there is no such route
            asked = guard.OrderRequest(
                method=request.method,
                path=request.path,
                headers=request.headers,
                remote=str(request.remote),
            )
            admitted = self._gate.admit(asked, wanted=role)
            if isinstance(admitted, guard.TurnedAway):
                refusal = _line(admitted.status, admitted.words)
                if admitted.status == HTTPStatus.UNAUTHORIZED:
                    refusal.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
                return refusal
            return await order(request, admitted)

        return answer

    async def _tried(self, _: web.Request, __: tokens.Holder) -> web.Response:
        assert self._tries is not None  # noqa: S101 -- as above
        return _json(self._tries.document())

    async def _try(self, request: web.Request, holder: tokens.Holder) -> web.Response:
        """Have a template tried: {"template": NAME, "backend": NAME, "why": WORDS}."""
        assert self._tries is not None  # noqa: S101 -- as above
        try:
            told = await _order(request, wanted=("template",), may_have=("backend", "why"))
        except ValueError as error:
            return _line(HTTPStatus.BAD_REQUEST, str(error))
        try:
            self._tries.begin(told["template"], told.get("backend"))
        except TryRefused as refused:
            return _line(HTTPStatus.CONFLICT, str(refused))
        where = f" on {told['backend']}" if "backend" in told else ""
        guard.ordered(
            holder,
            f"try {told['template']}{where}",
            remote=str(request.remote),
            why=told.get("why", ""),
        )
        return _json(self._tries.document(), status=HTTPStatus.ACCEPTED)

    def _taking(self, form: order_forms.OrderForm) -> _Ordering:
        """Return what takes an order of one kind."""

        async def take(request: web.Request, holder: tokens.Holder) -> web.Response:
            assert self._orders is not None  # noqa: S101 -- as above
            try:
                told = await _order(request, wanted=form.wanted, may_have=form.may_have)
                said = self._orders.take(form.name, told, who=holder.who)
            except ValueError as error:
                return _line(HTTPStatus.BAD_REQUEST, str(error))
            except order_forms.OrderDenied as refused:
                return _line(HTTPStatus.CONFLICT, str(refused))
            about = " ".join(told[name] for name in order_forms.TOLD if name in told)
            what = f"{form.name} {about}" if about else form.name
            guard.ordered(holder, what, remote=str(request.remote), why=told.get("note", ""))
            return _json({**documents.orders(self._source), "said": said})

        return take

    # --- the answers ---

    async def _made(self, path: str, make: _Make, *, kept: bool = True) -> web.Response:
        """Make one answer; a bug costs that answer, and is told once in a while.

        One that was dear is given again for a while: whoever asks without end gets a tenth of the
        loop's time for it, and no more. Not ``kept``: each is another one.
        """
        elapsed = asyncio.get_running_loop().time
        known = self._costly.get(path)
        if known is not None and elapsed() < known.until:
            return web.Response(body=known.body, headers={hdrs.CONTENT_TYPE: known.kind})
        began = elapsed()
        try:
            answer = made if isinstance(made := make(), web.Response) else await made
        except Exception as error:  # noqa: BLE001 -- whoever asks again gets the same; the rest lives
            self._log.bug(f"{path} cannot be made, by a bug", error)
            return _line(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"{path} cannot be made, by a bug of the broker ({type(error).__name__}); its log "
                "says where. The other pages are not concerned.",
            )
        if kept and answer.status == HTTPStatus.OK and isinstance(answer.body, bytes):
            until = elapsed() + _DEAR * (elapsed() - began)
            kind = answer.headers[hdrs.CONTENT_TYPE]
            self._costly[path] = _Made(body=answer.body, kind=kind, until=until)
        return answer

    async def _first_page(self, request: web.Request) -> web.StreamResponse:
        """Answer from memory; what is looked for is made anew, one after the other."""
        told = request.query.get("q", "")[:_LOOKED_FOR]
        if not told.strip():
            async with self._page_lock:
                return await self._made("/", lambda: _html(page.render(self._source)))
        return await self._one_made(
            "/?q", lambda: _html(page.render(self._source, looked_for=told))
        )

    async def _agent_page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if not _NAME.fullmatch(name):
            return _line(HTTPStatus.NOT_FOUND, "no agent has such a name")
        return await self._one_made(
            "/agents/...", lambda: _html(agent_page.render(self._source, name))
        )

    async def _one_made(self, path: str, make: _Make) -> web.Response:
        """Make an answer of which there is no end: who asks for many waits for each."""
        elapsed = asyncio.get_running_loop().time
        async with self._one_by_one:
            began = elapsed()
            answer = await self._made(path, make, kept=False)
            await asyncio.sleep(_DEAR * (elapsed() - began))
        return answer

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """Say, by server-sent events, whenever there has been another look; no more than that."""
        if self._watching >= _WATCHERS:
            return _line(HTTPStatus.SERVICE_UNAVAILABLE, "too many watch already")
        if self._door is not None and (there := self._door.inside.get(request.protocol)):
            there.let_in()
        answer = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        self._watching += 1
        try:
            await answer.prepare(request)
            await self._tell_looks(answer)
        except (ConnectionError, TimeoutError):
            pass  # whoever watched has gone
        finally:
            self._watching -= 1
        return answer

    async def _tell_looks(self, answer: web.StreamResponse) -> None:
        elapsed = asyncio.get_running_loop().time
        until, told_at, seen = elapsed() + _WATCH_S, elapsed(), self._source.world
        await answer.write(b"retry: 2000\n\n")
        while self._door is not None and elapsed() < until:
            await asyncio.sleep(_LIVE_S)
            world = self._source.world
            if world is not seen:
                seen, told_at = world, elapsed()
                async with waits.timeout(_WRITE_S):
                    await answer.write(b"event: look\ndata:\n\n")
            elif elapsed() - told_at >= _BEAT_S:  # so that a watcher that is gone is noticed
                told_at = elapsed()
                async with waits.timeout(_WRITE_S):
                    await answer.write(b":\n\n")

    def _exposition(self) -> web.Response:
        body, kind = self._metrics()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: kind})

    def _document(
        self, make: Callable[[StatusSource], documents.Document]
    ) -> Callable[[], Awaitable[web.Response]]:
        return lambda: json_in_slices(make(self._source))

    async def _one_agent(self, request: web.Request) -> web.Response:
        """Tell of one agent; of a name that there cannot be nothing is looked for."""
        name = request.match_info["name"]
        if not _NAME.fullmatch(name):
            return _line(HTTPStatus.NOT_FOUND, "no agent has such a name")
        return await self._one_made(
            f"{routes.API}agents/...", lambda: _json(documents.agent(self._source, name))
        )

    def _configuration(self) -> web.Response:
        return _json(documents.configuration(self._source, blind=self.blind))

    def _leftovers(self, *, everything: bool) -> documents.Document:
        """Plan once more, at most once for each look."""
        world, planned = self._source.world, None
        if world is not None:
            kept = self._left_over.get(everything)
            if kept is None or kept[0] is not world:
                policy = self._source.policy
                kept = (world, leftovers.look(world, policy, everything=everything))
                self._left_over[everything] = kept
            planned = kept[1]
        return documents.leftovers(self._source, planned, everything=everything)


async def _dressed(_: web.Request, answer: web.StreamResponse) -> None:
    """Give every answer its headers, none of which names what we are made of."""
    answer.headers.update(_HEADERS)
    answer.force_close()


async def _read(request: web.Request, most: int) -> bytes:
    """Return what is sent. Raises ValueError for more than ``most`` bytes, or a part."""
    parts, size = [], 0
    try:
        while size <= most and (more := await request.content.read(most)):
            parts.append(more)
            size += len(more)
    except (OSError, aiohttp.ClientError, web.RequestPayloadError) as error:
        raise ValueError("what is sent did not come to its end") from error
    if size > most:
        raise ValueError(f"more than {counts.told(most, 'byte')}")
    return b"".join(parts)


def _html(document: str) -> web.Response:
    return _text(document, kind="text/html")


def _script() -> web.Response:
    script = importlib.resources.files("broker.status") / "live.js"
    return _text(script.read_text("utf-8"), kind="text/javascript")


async def _order(
    request: web.Request, *, wanted: Sequence[str], may_have: Sequence[str]
) -> dict[str, str]:
    """Return what is ordered: short texts by name. Raises ValueError that says what is wrong."""
    body = await _read(request, guard.BODY_MAX)
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("what is ordered is not JSON") from None
    allowed = [*wanted, *may_have]
    if not isinstance(told, dict) or not told.keys() <= {*allowed}:
        raise ValueError(f"allowed: an object with {', '.join(allowed)}")
    told = {name: value for name, value in told.items() if value is not None}
    if not all(isinstance(value, str) and len(value) <= _WORDS_MAX for value in told.values()):
        raise ValueError(f"allowed: texts of at most {_WORDS_MAX} characters")
    if missing := [name for name in wanted if name not in told]:
        raise ValueError(f"missing: {', '.join(missing)}")
    return told


def _json(document: documents.Document, *, status: int = HTTPStatus.OK) -> web.Response:
    return _text(_dumped(document), kind="application/json", status=status)


async def json_in_slices(document: documents.Document) -> web.Response:
    """Return the same as ``_json``; between some rows of an iterator the loop goes round."""
    fields = []
    for name, value in document.items():
        if isinstance(value, Iterator):
            parts = []
            while rows := [_dumped(row) for row in itertools.islice(value, _SLICE)]:
                parts.append(", ".join(rows))
                await asyncio.sleep(0)
            text = f"[{', '.join(parts)}]"
        else:
            text = _dumped(value)
        fields.append(f"{_dumped(name)}: {text}")
    return _text(f"{{{', '.join(fields)}}}", kind="application/json")


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _line(status: int, text: str) -> web.Response:
    return _text(f"{text}\n", status=status)


def _text(text: str, *, kind: str = "text/plain", status: int = HTTPStatus.OK) -> web.Response:
    """Return an answer; halves of surrogate pairs, which nobody can read, become ``?``."""
    body = text.encode("utf-8", "replace")
    return web.Response(body=body, status=status, content_type=kind, charset="utf-8")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _verdict(good: bool, text: str) -> web.Response:  # noqa: FBT001 -- a pair, unpacked above
    return _line(HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE, text or "ok")
