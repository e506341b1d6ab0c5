"""Where ``in-container`` of the agents is answered: HTTP in front of the sessions.

Its own address, apart from the broker's page, and only if it is set. Every request carries the
token of its agent; what a pod may do, it may do in itself alone. Refuses to know the exec
protocol.

``/v1/POD/ID/…``, ``ID`` chosen by the program: ``run`` brings the order and answers with standard
output, as long as the command lives; ``stderr``; ``stdin``; ``pid`` (empty while it is not known);
``signal/NAME``; ``exit``: the exit code, a blank, and what to say of it.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import aiohttp
from aiohttp import web
from attrs import frozen

from backends import api
from backends.kubernetes import execution, incontainer, sessions, settings
from outside import waits

_LOG = logging.getLogger("backends.kubernetes")
_MANY = 32  # commands at a time of one agent
_KEPT_S = 60.0  # how long a result waits for whoever asks for it
_SOON_S = 2.0
_ARRIVE_S = 30.0  # within which an order follows those that want its output
_MAX_ORDER = 8 << 20  # twice what Linux lets a program be started with
_STRANGERS = 4
_GOODBYE_S = 3.0

Find = Callable[[str], Awaitable[Mapping[str, Any] | None]]
_Key = tuple[str, str]


@frozen(kw_only=True)
class Rules:
    """What the backend tells: how to find a pod of ours, and how long a sick one is waited for."""

    find: Find
    patience_s: float


class Listener:
    """Answers the agents of one backend."""

    def __init__(
        self, told: settings.InContainer, *, rules: Rules, executor: execution.Executor
    ) -> None:
        self._told = told
        self._rules = rules
        self._executor = executor
        self._sessions: dict[_Key, sessions.Session] = {}
        self._arrived = asyncio.Event()
        self._strangers = asyncio.Semaphore(_STRANGERS)
        self._closing = False
        self._runner: web.AppRunner | None = None
        self._working: set[asyncio.Task[None]] = set()

    async def start(self) -> tuple[str, int]:
        """Listen; return the address. Raises Unauthorized: it is the operator's to mend."""
        host, port = settings.address(self._told.listen)
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # who goes away ends what he asked for
            shutdown_timeout=0.5,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=self._tls()).start()
        except (OSError, ssl.SSLError) as error:
            await runner.cleanup()
            raise api.Unauthorized(
                f"in_container: cannot listen on {self._told.listen}: {error.strerror or error}"
            ) from error
        self._runner = runner
        found, bound = runner.addresses[0][:2]
        _LOG.info("in-container is served", extra={"address": f"{found}:{bound}"})
        return found, bound

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
                    await session.told.wait()
                while self._working:
                    await asyncio.wait(self._working)
        for task in self._working:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._executor.aclose()

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_ORDER)
        path = "/v1/{pod:[a-z0-9][-a-z0-9]*}/{id:[-0-9a-f]{36}}"
        app.router.add_post(f"{path}/run", self._run)
        app.router.add_get(f"{path}/stderr", self._stderr)
        app.router.add_put(f"{path}/stdin", self._stdin)
        app.router.add_get(f"{path}/pid", self._pid)
        app.router.add_post(f"{path}/signal/{{name}}", self._signal)
        app.router.add_get(f"{path}/exit", self._exit)
        return app

    def _tls(self) -> ssl.SSLContext | None:
        if self._told.cert_file is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._told.cert_file, self._told.key_file)
        return context

    # --- the requests ---

    async def _run(self, request: web.Request) -> web.StreamResponse:
        pod, told = await self._proven(request)
        body = await request.read()
        session = self._begin(request, pod, told)
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

    def _begin(self, request: web.Request, pod: str, told: str) -> sessions.Session:
        key = (pod, request.match_info["id"])
        if self._closing:
            raise web.HTTPServiceUnavailable(text="125 the broker is being stopped\n")
        if key in self._sessions:
            raise web.HTTPConflict(text="125 this order was given before\n")
        now = asyncio.get_running_loop().time()
        for old, session in list(self._sessions.items()):
            if session.ended.is_set() and session.ended_at < now - _KEPT_S:
                del self._sessions[old]
        busy = sum(s.agent == pod and not s.ended.is_set() for s in self._sessions.values())
        session = sessions.Session(agent=pod, digest=told, executor=self._executor)
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
        session.told.set()
        assert session.result is not None  # noqa: S101 -- set before the event; for mypy
        words = " ".join(session.result.message.split())
        return web.Response(text=f"{session.result.code} {words}")

    async def _signal(self, request: web.Request) -> web.Response:
        """Pass a signal on; END also for a command of a broker that is no more."""
        name = request.match_info["name"]
        session = self._sessions.get(self._key(request))
        if session is not None:
            self._check(request, session.digest)
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

    async def _awaited(self, request: web.Request, within_s: float) -> sessions.Session:
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
        told = str(annotations.get(incontainer.DIGEST, ""))
        self._check(request, told)
        return pod, told

    @staticmethod
    def _check(request: web.Request, told: str) -> None:
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not incontainer.fits(shown, told):
            raise web.HTTPUnauthorized(text="125 the broker does not know this agent's token\n")


def _stream() -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    answer.enable_chunked_encoding()
    return answer
