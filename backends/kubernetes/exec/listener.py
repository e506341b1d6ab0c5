"""Where ``in-container`` of the agents is answered: HTTP in front of the sessions.

Its own address, apart from the broker's page, and only if it is set. Every request carries the
token of its agent; what a pod may do, it may do in itself alone. Until it has shown it, whoever
sends one is a stranger, of whom the door takes few (``outside.doors``); after it there are so many
of one agent, and of all of them no more than half of what files the process may open. A
connection is for one request. Refuses to know the exec protocol.

``/v1/POD/ID/…``, ``ID`` chosen by the program: ``run`` brings the order and answers with standard
output, as long as the command lives; ``stderr``; ``stdin``; ``pid`` (empty while it is not known);
``signal/NAME``; ``exit``: the exit code, a blank, and what to say of it.
"""

import asyncio
import contextlib
import logging
import resource
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import aiohttp
from aiohttp import web
from attrs import frozen

from backends import api
from backends.kubernetes import settings
from backends.kubernetes.exec import execution, incontainer, sessions
from outside import doors, http_handler, waits

_LOG = logging.getLogger("backends.kubernetes")
_MANY = 32  # commands at a time of one agent
_KEPT_S = 60.0  # how long a result waits for whoever asks for it
_SOON_S = 2.0
_ARRIVE_S = 30.0  # within which an order follows those that want its output
_MAX_ORDER = 8 << 20  # twice what Linux lets a program be started with
_ORDERS_OF_ONE = 2 * _MAX_ORDER  # bytes at a time
_ORDERS = 8 * _MAX_ORDER
_STRANGERS = 4
_GOODBYE_S = 3.0
_OF_ONE_AGENT = 5 * _MANY  # connections: a command has four, and asks for its end by one more
_KEPT = 16 * _MANY  # commands of one agent, running and ended, that are kept in mind
_HEADERS = {"Server": "agent-broker"}

LIMITS = doors.DoorLimits(
    connections=128,
    per_address=96,  # a build may begin some twenty commands at once; nodes may hide their pods
    request_s=10.0,
    answer_s=_ARRIVE_S + 5.0,
    takes_bodies=True,
)

Find = Callable[[str], Awaitable[Mapping[str, Any] | None]]
_Key = tuple[str, str]
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
        self._sessions: dict[_Key, sessions.Command] = {}
        self._arrived = asyncio.Event()
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._closing = False
        self._limits = limits
        self._most = max(_OF_ONE_AGENT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._guests: dict[object, str] = {}  # connections whose sender is known: which agent
        self._orders: Counter[str] = Counter()  # bytes of orders that are kept, by agent
        self.address = ("", 0)
        self._runner: web.AppRunner | None = None
        self._door: doors.Door | None = None
        self._working: set[asyncio.Task[None]] = set()

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
        """End every command, let its caller know, and stop listening; idempotent."""
        self._closing = True
        recent = asyncio.get_running_loop().time() - _SOON_S
        asking = [
            session
            for session in self._sessions.values()
            if not session.ended.is_set() or session.ended_at > recent
        ]
        for session in asking:
            session.abandon("the broker was stopped", hurry=True)
        with contextlib.suppress(TimeoutError):
            async with waits.timeout(_GOODBYE_S):
                for session in asking:
                    await session.result_taken.wait()
                while self._working:
                    await asyncio.wait(self._working)
        for task in self._working:
            task.cancel()
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
        path = "/v1/{pod:[a-z0-9][-a-z0-9]*}/{id:[-0-9a-f]{36}}"
        app.router.add_post(f"{path}/run", self._run)
        app.router.add_get(f"{path}/stderr", self._stderr)
        app.router.add_put(f"{path}/stdin", self._stdin)
        app.router.add_get(f"{path}/pid", self._pid)
        app.router.add_post(f"{path}/signal/{{name}}", self._signal)
        app.router.add_get(f"{path}/exit", self._exit)
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
            raise web.HTTPServiceUnavailable(text="125 too many commands at a time\n")
        self._guests[request.protocol] = pod
        if self._door is not None and (there := self._door.inside.get(request.protocol)):
            there.let_in()

    async def _run(self, request: web.Request) -> web.StreamResponse:
        pod, digest = await self._proven(request)
        taken = 0
        try:
            body = bytearray()
            async for piece in request.content.iter_any():
                taken += len(piece)
                self._take(pod, len(piece), of=taken)
                body += piece
            return await self._carried(request, self._begin(request, pod, digest), bytes(body))
        finally:
            self._orders[pod] -= taken
            self._orders += Counter()  # drop those without any

    def _take(self, pod: str, size: int, *, of: int) -> None:
        """Count a piece of an order that is kept; there is room for so much."""
        self._orders[pod] += size
        if of > _MAX_ORDER:
            raise web.HTTPRequestEntityTooLarge(_MAX_ORDER, of, text="125 too long a command\n")
        if self._orders[pod] > _ORDERS_OF_ONE or self._orders.total() > _ORDERS:
            raise web.HTTPServiceUnavailable(text="125 too many long commands at a time\n")

    async def _carried(
        self, request: web.Request, session: sessions.Command, body: bytes
    ) -> web.StreamResponse:
        pod = session.agent
        answer = _stream()

        async def look() -> Mapping[str, Any] | None:
            return await self._rules.find(pod)

        try:
            await answer.prepare(request)
        except (asyncio.CancelledError, ConnectionError):
            session.refuse("the caller went away")
            raise
        if not session.ended.is_set():
            patience_s = self._rules.patience_s
            self._work(session.run(body, look=look, stdout=answer.write, patience_s=patience_s))
        try:
            await session.ended.wait()
        except asyncio.CancelledError:
            session.leave()
            raise
        await answer.write_eof()
        return answer

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it whatever becomes of the request; owned by this object and awaited in aclose."""
        task = asyncio.get_running_loop().create_task(work, name="command in a side container")
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _begin(self, request: web.Request, pod: str, digest: str) -> sessions.Command:
        key = (pod, request.match_info["id"])
        if self._closing:
            raise web.HTTPServiceUnavailable(text="125 the broker is being stopped\n")
        if key in self._sessions:
            raise web.HTTPConflict(text="125 this order was given before\n")
        now = asyncio.get_running_loop().time()
        for old, session in list(self._sessions.items()):
            kept_s = _SOON_S if session.result_taken.is_set() else _KEPT_S
            if session.ended.is_set() and session.ended_at < now - kept_s:
                del self._sessions[old]
        known = [s for s in self._sessions.values() if s.agent == pod]
        if len(known) >= _KEPT:
            raise web.HTTPServiceUnavailable(text="125 too many commands in a minute\n")
        busy = sum(not s.ended.is_set() for s in known)
        session = sessions.Command(agent=pod, digest=digest, executor=self._executor)
        self._sessions[key] = session
        if busy >= _MANY:
            session.refuse(f"{busy} commands run in this pod already")
        self._arrived.set()
        self._arrived = asyncio.Event()
        return session

    async def _stderr(self, request: web.Request) -> web.StreamResponse:
        session = await self._awaited(request, _ARRIVE_S)
        answer = _stream()
        await answer.prepare(request)
        await session.listen(answer.write)
        await answer.write_eof()
        return answer

    async def _stdin(self, request: web.Request) -> web.Response:
        session = await self._awaited(request, _ARRIVE_S)
        try:
            async for data in request.content.iter_any():
                if not await session.feed(data):
                    return web.Response()
        except (asyncio.CancelledError, ConnectionError, aiohttp.ClientError):
            session.abandon("the input broke off")  # half of it must not pass for the whole
            raise
        await session.end_input()
        return web.Response()

    async def _pid(self, request: web.Request) -> web.Response:
        session = await self._awaited(request, _SOON_S)
        with contextlib.suppress(TimeoutError):
            async with waits.timeout(_SOON_S):
                await session.started.wait()
        if session.ended.is_set():
            raise web.HTTPGone(text="- the command has ended\n")
        return web.Response(text="" if session.pid is None else str(session.pid))

    async def _exit(self, request: web.Request) -> web.Response:
        session = await self._awaited(request, 0.0)
        await session.ended.wait()
        session.result_taken.set()
        assert session.result is not None  # noqa: S101 -- set before the event; for mypy
        words = " ".join(session.result.message.split())
        return web.Response(text=f"{session.result.code} {words}")

    async def _signal(self, request: web.Request) -> web.Response:
        """Pass a signal on; END also for a command of a broker that is no more."""
        name = request.match_info["name"]
        session = self._sessions.get(self._key(request))
        if session is not None:
            self._check(request, session.digest)
            self._let_in(request, session.agent)
            pod, container, pid = session.agent, session.container, session.pid
            if pid is None:  # it is not running yet, or any more
                session.abandon("a signal came")
                return web.Response()
        else:
            pod, _ = await self._proven(request)
            container, number = request.query.get("container", ""), request.query.get("pid", "")
            if not number.isdecimal() or not number.isascii() or number in {"0", "1"}:
                raise web.HTTPNotFound(text="- no such command\n")
            pid = int(number)
        if name == "END":
            command = incontainer.end(pid)
        elif name in incontainer.SIGNALS:
            command = incontainer.send(name, pid)
        else:
            raise web.HTTPNotFound(text="125 no such signal\n")
        try:
            await self._executor.do(pod, container, command)
        except api.BackendError as error:
            raise web.HTTPServiceUnavailable(text=f"125 {error.reason}\n") from error
        return web.Response()

    # --- who asks ---

    @staticmethod
    def _key(request: web.Request) -> _Key:
        return request.match_info["pod"], request.match_info["id"]

    async def _awaited(self, request: web.Request, within_s: float) -> sessions.Command:
        """Return the session that is meant; it may be a moment behind."""
        key = self._key(request)
        with contextlib.suppress(TimeoutError):
            async with waits.timeout(within_s):
                while key not in self._sessions:
                    await self._arrived.wait()
        session = self._sessions.get(key)
        if session is None:
            await self._proven(request)
            raise web.HTTPNotFound(text="- no such command\n")
        self._check(request, session.digest)
        self._let_in(request, session.agent)
        return session

    async def _proven(self, request: web.Request) -> tuple[str, str]:
        """Return the pod and its digest, if the token is that of its agent."""
        pod = request.match_info["pod"]
        try:
            async with self._strangers:  # whoever they are, the API server is spared
                found = await self._rules.find(pod)
        except api.BackendError as error:
            raise web.HTTPServiceUnavailable(text=f"125 {error.reason}\n") from error
        annotations = (found or {}).get("metadata", {}).get("annotations") or {}
        digest = str(annotations.get(incontainer.DIGEST, ""))
        self._check(request, digest)
        self._let_in(request, pod)
        return pod, digest

    @staticmethod
    def _check(request: web.Request, digest: str) -> None:
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not incontainer.fits(shown, digest):
            raise web.HTTPUnauthorized(text="125 the broker does not know this agent's token\n")


async def _for_one_request(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers.update(_HEADERS)
    answer.force_close()


def _stream() -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    answer.enable_chunked_encoding()
    return answer
