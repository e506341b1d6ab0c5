"""The fake master and its agents on the wire: the machine of ``master.py`` behind real sockets.

Answers, words and headers are those of the recordings; faults are switches.
"""

import asyncio
import contextlib
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from aiohttp import web

from backends.mesos import recordio
from tests.mesos import master

TEXT = "text/plain; charset=utf-8"


class Wire:
    """One master with its agents on one port; time runs as on the wall."""

    def __init__(
        self,
        machine: master.Master,
        *,
        step_s: float = 0.005,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.machine = machine
        self._tls = tls
        self.base = ""
        self.credentials: str | None = None  # the Authorization header that is asked for
        self.fault: tuple[int, str, dict] | None = None  # what every request is answered with
        self.agent_fault: tuple[int, str, dict] | None = None
        self.page_fault: Callable[[str, Mapping], str | None] = lambda path, query: None
        self.redirect: str | None = None  # another master leads
        self.redirect_to: str | None = None  # a Location as it is
        self.silent = False  # no heartbeats, no events, nothing
        self.cut_record = False  # streams end inside a record
        self.chunk: int | None = None  # bytes per write; None: one record
        self.output: Callable[[master.Task], str] = lambda task: ""
        self.stderr: Callable[[master.Task], str] = lambda task: ""  # what Mesos wrote there
        self.subscribes = 0
        self.flags: dict | None = None  # of the agents
        self.pages: list[str] = []  # that were asked for
        self.containers: list[dict[str, object]] | None = None  # of an agent's page
        self._step_s = step_s
        self._start = 0.0
        self._streams: set[asyncio.Event] = set()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Wire"]:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        port = runner.addresses[0][1]
        self.base = f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"
        for agent in self.machine.agents.values():
            agent.address = ("127.0.0.1", port)
        self._start = asyncio.get_running_loop().time()
        ticking = asyncio.ensure_future(self._tick())
        try:
            yield self
            assert not self.machine.aborted, "a task's id was used while its executor was alive"
        finally:
            ticking.cancel()
            self.cut()
            await runner.cleanup()

    def cut(self) -> None:
        """Every stream breaks off, as when a master dies."""
        for stream in self._streams:
            stream.set()

    async def _tick(self) -> None:
        while True:
            self.machine.advance(asyncio.get_running_loop().time() - self._start)
            await asyncio.sleep(self._step_s)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/master").rstrip("/")
        agents = path.startswith("/files/")
        if agents:  # who registers an agent must not be told what is the masters'
            assert "Authorization" not in request.headers
        elif (
            self.credentials is not None
            and request.headers.get("Authorization") != self.credentials
        ):
            realm = 'Basic realm="mesos-master-scheduler"'
            return web.Response(
                status=401, text="401 Unauthorized.", headers={"WWW-Authenticate": realm}
            )
        fault = self.agent_fault if agents else self.fault
        if fault is not None:
            return web.Response(status=fault[0], text=fault[1], headers=fault[2])
        if self.redirect is not None:
            target = self.redirect.removeprefix("http:")  # scheme-relative, as recorded
            return web.Response(status=307, headers={"Location": f"{target}/master{path}"})
        if self.redirect_to is not None:
            return web.Response(status=307, headers={"Location": self.redirect_to})
        if path == "/api/v1/scheduler":
            return await self._scheduler(request)
        if path == "/teardown":
            self.machine.remove(str((await request.post())["frameworkId"]))
            return web.Response()
        self.pages.append(path)
        if (text := self.page_fault(path, request.query)) is not None:
            return web.Response(text=text)
        return self._page(path, request.query)

    async def _scheduler(self, request: web.Request) -> web.StreamResponse:
        if (refusal := _unfit(request)) is not None:
            return web.Response(status=refusal[0], text=refusal[1])
        data = await request.text()
        try:
            call = json.loads(data)
        except ValueError:
            words = f"Failed to parse body into JSON: syntax error at line 1 near: {data.lstrip(chr(123))}"
            return web.Response(status=400, text=words)
        stream_id = request.headers.get("Mesos-Stream-Id")
        if call.get("type") == "SUBSCRIBE":
            if stream_id is not None:
                return web.Response(
                    status=400,
                    text="Subscribe calls should not include the 'Mesos-Stream-Id' header",
                )
            return await self._stream(request, call)
        if (
            stream_id is None
            and call.get("framework_id", {}).get("value") in self.machine.frameworks
        ):
            return web.Response(
                status=400,
                text="All non-subscribe calls should include the 'Mesos-Stream-Id' header",
            )
        status, text = self.machine.call(call, stream_id)
        return web.Response(status=status, text=text)

    async def _stream(self, request: web.Request, call: Mapping[str, Any]) -> web.StreamResponse:
        self.subscribes += 1
        stream_id = str(uuid.uuid4())
        opened = self.machine.subscribe(call, stream_id)
        if isinstance(opened, tuple):
            return web.Response(status=opened[0], text=opened[1])
        response = web.StreamResponse(
            headers={"Mesos-Stream-Id": stream_id, "Content-Type": "application/json"}
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        events = opened.stream
        assert events is not None
        cut = asyncio.Event()
        self._streams.add(cut)
        read, beat_at = 0, asyncio.get_running_loop().time() + self.machine.heartbeat_s
        try:
            while not cut.is_set():
                if request.transport is None or request.transport.is_closing():
                    return response  # noticed at once, as a master does
                if self.silent:
                    await asyncio.sleep(self._step_s)
                    continue
                if read < len(events):
                    event = events[read]
                    read += 1
                    if event is None:
                        return response  # a clean end
                    await self._write(response, event)
                    continue
                if asyncio.get_running_loop().time() >= beat_at:
                    beat_at += self.machine.heartbeat_s
                    await self._write(response, {"type": "HEARTBEAT"})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(cut.wait(), self._step_s)
            if self.cut_record:
                await response.write(b"20\n{")
            if request.transport is not None:
                request.transport.abort()
            return response
        except ConnectionError:  # the client has gone
            return response
        finally:
            self._streams.discard(cut)
            self.machine.disconnect(opened)

    async def _write(self, response: web.StreamResponse, event: Mapping[str, Any]) -> None:
        data = recordio.encode(json.dumps(event, separators=(",", ":")).encode())
        size = self.chunk or len(data)
        for start in range(0, len(data), size):
            await response.write(data[start : start + size])

    def _page(self, path: str, query: Mapping[str, str]) -> web.Response:
        if path == "/tasks":
            found = self.machine.view_tasks(query["framework_id"])
            start = int(query.get("offset", 0))
            return web.json_response(
                {"tasks": found[start : start + int(query.get("limit", 100))]}
            )
        if path == "/slaves":
            agents = self.machine.view_agents()
            if "slave_id" in query:
                agents = [agent for agent in agents if agent["id"] == query["slave_id"]]
            away = [a for a in self.machine.agents.values() if a.state == "recovered"]
            recovered = [{"id": {"value": a.id}, "hostname": a.hostname} for a in away]
            return web.json_response({"slaves": agents, "recovered_slaves": recovered})
        if path == "/frameworks":
            return web.json_response(self.machine.view_frameworks(query["framework_id"]))
        if path == "/roles":
            return web.json_response({"roles": self.machine.view_roles()})
        if path == "/files/read":
            return self._file(query)
        if path == "/containers" and self.containers is not None:
            return web.json_response(self.containers)
        if path == "/flags" and self.flags is not None:
            return web.json_response({"flags": self.flags})
        return web.Response(status=404)

    def _file(self, query: Mapping[str, str]) -> web.Response:
        """Answer as an agent does for a sandbox (no recording: after the documentation)."""
        _, _, framework, _, name, _, _, _file = query["path"].split("/")
        every = [*self.machine.tasks.values(), *self.machine.completed]
        task = next((one for one in every if (one.framework, one.name) == (framework, name)), None)
        if task is None:
            return web.Response(status=404)
        text = (self.stderr if _file == "stderr" else self.output)(task).encode()
        if task.launcher is not None:
            text = task.launcher.output(framework, name, _file) or b""
        offset = int(query["offset"])
        if offset == -1:
            return web.json_response({"offset": len(text), "data": ""})
        part = text[offset : offset + int(query["length"])]
        return web.json_response({"offset": offset, "data": part.decode(errors="replace")})


def _unfit(request: web.Request) -> tuple[int, str] | None:
    """Return the refusal of a request that cannot hold a call (recording 12)."""
    if request.method != "POST":
        words = f"Expecting one of {{ 'POST' }}, but received '{request.method}'."
        return 405, f"405 Method Not Allowed. {words}"
    kind = request.headers.get("Content-Type")
    if kind is None:
        return 400, "Expecting 'Content-Type' to be present"
    if kind != "application/json":
        return 415, "Expecting 'Content-Type' of application/json or application/x-protobuf"
    if request.headers.get("Accept", "*/*") not in ("*/*", "application/json"):
        return 406, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'"
    return None
