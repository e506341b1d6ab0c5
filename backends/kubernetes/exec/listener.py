"""Where ``in-container`` of the agents is answered: HTTP in front of what starts commands.

Its own address, apart from the broker's page, and only if it is set. Every request carries the
token of its agent; what a pod may do, it may do in itself alone. Until it has shown it, whoever
sends one is a stranger, of whom the door takes few (``outside.doors``); after it there are so many
of one agent, and of all of them no more than half of what files the process may open. A
connection is for one request. Nothing is remembered between two: another broker answers the next
one as well. Refuses to know the exec protocol.

``POST /v2/POD/NUMBER``, the number chosen by the program, brings an order. Lines answer it:
``wait`` and for what, any number of them; then ``started``, or an exit code and words, or
``again`` and words: to be asked once more. ``GET /v2/POD/NUMBER/end?container=NAME``: what has
become of a command that left no exit code.
"""

import asyncio
import logging
import resource
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from attrs import frozen

from backends import api
from backends.kubernetes import settings
from backends.kubernetes.exec import execution, incontainer, starting
from outside import doors, http_handler

_LOG = logging.getLogger("backends.kubernetes")
_MANY = 32  # commands of one agent that are started at a time
_MAX_ORDER = 8 << 20  # twice what Linux lets a program be started with
_ORDERS_OF_ONE = 2 * _MAX_ORDER  # bytes at a time
_ORDERS = 8 * _MAX_ORDER
_STRANGERS = 4
_OF_ONE_AGENT = 2 * _MANY  # connections: as many commands may have died meanwhile
_HEADERS = {"Server": "agent-broker"}

LIMITS = doors.DoorLimits(
    connections=128,
    per_address=96,  # a build may begin some twenty commands at once; nodes may hide their pods
    request_s=10.0,
    answer_s=35.0,
    takes_bodies=True,
)

Find = Callable[[str], Awaitable[Mapping[str, Any] | None]]
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@frozen(kw_only=True)
class Rules:
    """What the backend tells: how to find a pod of ours, and how long a sick one is waited for."""

    find: Find
    patience_s: float


class Listener:
    """Answers the agents of one backend."""

    def __init__(
        self,
        configured: settings.InContainer,
        *,
        rules: Rules,
        executor: execution.CommandExecutor,
        limits: doors.DoorLimits = LIMITS,
    ) -> None:
        self._settings = configured
        self._rules = rules
        self._executor = executor
        self._starting: Counter[str] = Counter()  # commands, by agent
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._limits = limits
        self._most = max(_OF_ONE_AGENT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._guests: dict[object, str] = {}  # connections whose sender is known: which agent
        self._orders: Counter[str] = Counter()  # bytes of orders that are kept, by agent
        self.address = ("", 0)
        self._runner: web.AppRunner | None = None
        self._door: doors.Door | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; return the address. Raises Unauthorized: it is the operator's to mend."""
        host, port = settings.address(self._settings.listen)
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # who goes away ends what he asked for
            shutdown_timeout=0.5,
        )
        await runner.setup()
        try:
            door = self._made_door(runner)
            bound_host, bound = await door.open(host=host, port=port)
        except (OSError, ssl.SSLError) as error:
            await runner.cleanup()
            raise api.Unauthorized(
                f"in_container: cannot listen on {self._settings.listen}: "
                f"{error.strerror or error}"
            ) from error
        self._runner, self._door, self.address = runner, door, (bound_host, bound)
        _LOG.info("in-container is served", extra={"address": f"{bound_host}:{bound}"})
        return bound_host, bound

    def _made_door(self, runner: web.AppRunner) -> doors.Door:
        loop, served = asyncio.get_running_loop(), runner.server
        assert served is not None  # noqa: S101 -- it is set up; for mypy

        def speak() -> http_handler.Handler:
            return http_handler.Handler(served, log=door.log, headers=_HEADERS, loop=loop)

        door = doors.Door(speak, limits=self._limits, logger=_LOG, tls=self._tls())
        return door

    async def aclose(self) -> None:
        """Stop listening; whoever asks is answered by the next broker. Idempotent."""
        door, self._door = self._door, None
        if door is not None:
            await door.aclose()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if door is not None:
            door.expel()
        await self._executor.aclose()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_ORDER, middlewares=[self._met])
        app.on_response_prepare.append(_for_one_request)
        path = "/v2/{pod:[a-z0-9][-a-z0-9]*}/{number:[-0-9a-f]{36}}"
        app.router.add_post(path, self._run)
        app.router.add_get(f"{path}/end", self._end)
        return app

    def _tls(self) -> ssl.SSLContext | None:
        if self._settings.cert_file is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._settings.cert_file, self._settings.key_file)
        return context

    # --- the requests ---

    @web.middleware
    async def _met(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """A request is whole; if it turns out to be an agent's, its connection is one of those."""
        if self._door is not None and (there := self._door.inside.get(request.protocol)):
            there.asked()
        try:
            return await handler(request)
        finally:
            self._guests.pop(request.protocol, None)

    def _let_in(self, request: web.Request, pod: str) -> None:
        """Take a connection whose sender has shown the token of an agent."""
        of_it = sum(guest == pod for guest in self._guests.values())
        if of_it >= _OF_ONE_AGENT or len(self._guests) >= self._most:
            raise web.HTTPServiceUnavailable(text="again too many commands at a time\n")
        self._guests[request.protocol] = pod
        if self._door is not None and (there := self._door.inside.get(request.protocol)):
            there.let_in()

    async def _run(self, request: web.Request) -> web.StreamResponse:
        """Start what is ordered; who goes away meanwhile wants it no more."""
        pod = await self._proven(request)
        taken = 0
        try:
            body = bytearray()
            async for piece in request.content.iter_any():
                taken += len(piece)
                self._take(pod, len(piece), of=taken)
                body += piece
            answer = _stream()
            await answer.prepare(request)
            last = await self._started(pod, request.match_info["number"], bytes(body), answer)
            await answer.write(f"{last}\n".encode())
            await answer.write_eof()
            return answer
        finally:
            self._orders[pod] -= taken
            self._orders += Counter()  # drop those without any

    def _take(self, pod: str, size: int, *, of: int) -> None:
        """Count a piece of an order that is kept; there is room for so much."""
        self._orders[pod] += size
        if of > _MAX_ORDER:
            raise web.HTTPRequestEntityTooLarge(_MAX_ORDER, of, text="125 too long a command\n")
        if self._orders[pod] > _ORDERS_OF_ONE or self._orders.total() > _ORDERS:
            raise web.HTTPServiceUnavailable(text="again too many long commands at a time\n")

    async def _started(
        self, pod: str, number: str, body: bytes, answer: web.StreamResponse
    ) -> str:
        """Return the last line of the answer to an order."""
        if self._starting[pod] >= _MANY:
            return f"again {_MANY} commands are being started in this pod already"

        async def look() -> Mapping[str, Any] | None:
            return await self._rules.find(pod)

        async def tell(words: str) -> None:
            await answer.write(f"{_line('wait', words)}\n".encode())

        self._starting[pod] += 1
        try:
            order = incontainer.read_order(body)
            name = order.container
            await starting.room(name, look=look, tell=tell, patience_s=self._rules.patience_s)
            await starting.start(order, number, pod=pod, executor=self._executor)
        except incontainer.Malformed as error:
            return f"{incontainer.CANNOT_RUN} {error}"
        except starting.OrderRefused as refused:
            return _line(refused.code, str(refused))
        except api.Unavailable as error:
            return _line("again", error.reason)
        except api.BackendError as error:
            return _line(incontainer.CANNOT_RUN, error.reason)
        finally:
            self._starting[pod] -= 1
            self._starting += Counter()  # drop those without any
        _LOG.info("command in a side container", extra={"instance": pod, "container": name})
        return "started"

    async def _end(self, request: web.Request) -> web.Response:
        pod = await self._proven(request)

        async def look() -> Mapping[str, Any] | None:
            return await self._rules.find(pod)

        try:
            words = await starting.end_of(request.query.get("container", ""), look=look)
        except api.BackendError as error:
            raise web.HTTPServiceUnavailable(text=f"{error.reason}\n") from error
        return web.Response(text=words)

    # --- who asks ---

    async def _proven(self, request: web.Request) -> str:
        """Return the pod, if the token is that of its agent."""
        pod = request.match_info["pod"]
        try:
            async with self._strangers:  # whoever they are, the API server is spared
                found = await self._rules.find(pod)
        except api.BackendError as error:
            raise web.HTTPServiceUnavailable(text=_line("again", error.reason) + "\n") from error
        annotations = (found or {}).get("metadata", {}).get("annotations") or {}
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not incontainer.fits(
            shown, str(annotations.get(incontainer.DIGEST, ""))
        ):
            raise web.HTTPUnauthorized(text="125 the broker does not know this agent's token\n")
        self._let_in(request, pod)
        return pod


def _line(code: int | str, words: str) -> str:
    return f"{code} {' '.join(words.split())}"


async def _for_one_request(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers.update(_HEADERS)
    answer.force_close()


def _stream() -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    answer.enable_chunked_encoding()
    return answer
