"""The simulated controller on HTTP: the paths that a provisioner and python-jenkins use.

Status codes, headers and bodies as recorded; authentication with token or password and crumb;
faults on demand. Agents hold one streaming request open (``/simulated-agent/NAME``) in place of
the agent protocol: closing it is losing the channel. Refuses to decide anything: ``simulation``
does.
"""

import asyncio
import base64
import contextlib
import datetime as dt
import fnmatch
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import format_datetime
from types import TracebackType
from typing import Any, Literal, Self

from aiohttp import web
from attrs import define, field

from broker.demo import documents, simulation
from broker.demo import why as words
from jnlp import node as jnlp_node
from jnlp import version as jnlp_version

FaultKind = Literal["timeout", "500", "503", "slow", "cut", "stale", "reset"]
_BAD_IN_NAME = re.compile(r"[?*/\\%!@#$^&|<>\[\]:;]")
_NEVER_DUE = re.compile(
    r"SimpleScheduledRetentionStrategy\"[^>]*>\s*<startTimeSpec>0 0 3[01] 2 \*</startTimeSpec>"
)
"""The 31st of February."""
_LONGEST_NAME = 255
_PING_S = 1.0
_SLOW_S = 0.5
_JAR = b"PK\x05\x06" + bytes(18)
"""An empty archive: the simulation's agents are no Java programs."""
_JAR_DATE = "Tue, 02 Mar 2021 10:00:00 GMT"
_STARTING = "<html><head><title>Starting Jenkins</title></head><body>Please wait</body></html>"


@define(kw_only=True)
class Access:
    """Who may come in. Without a user everybody may do everything."""

    user: str | None = None
    token: str | None = None
    password: str | None = None
    missing: dict[str, str] = field(factory=dict)
    """Path pattern to the permission that the user lacks there (its class and name)."""


@define(kw_only=True)
class _Fault:
    pattern: str
    kind: FaultKind
    times: int
    method: str | None


@define(kw_only=True, eq=False)
class _Channel:
    """One agent's open request; ``news`` wakes it."""

    news: asyncio.Event = field(factory=asyncio.Event)
    gone: str = ""


class SimulatedController:
    """Serves a ``Simulation``; ``now`` is the clock of both."""

    def __init__(
        self,
        sim: simulation.Simulation,
        *,
        now: Callable[[], float],
        access: Access | None = None,
        locale: words.Language = "en",
        prefix: str = "",
    ) -> None:
        """``prefix`` is the path under which it lives, like ``/jenkins``; ``locale`` the JVM's."""
        self.sim = sim
        self.now = now
        self.access = access or Access()
        self.locale = locale
        self.prefix = prefix
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self._channels: dict[str, _Channel] = {}
        self._faults: list[_Fault] = []
        self._stale: dict[str, str] = {}
        self._crumbs: dict[str, str] = {}  # session cookie -> crumb
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()
        self._tick: asyncio.Task[None] | None = None
        sim.on_gone = self._close_channel

    # --- life ---

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; return the address, with "/" at the end."""
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.router.add_route("*", f"{self.prefix}/{{path:.*}}", self._handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,
            shutdown_timeout=0.5,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}{self.prefix}/"
        return self.url

    async def aclose(self) -> None:
        """Close every channel and stop listening; idempotent."""
        for channel in self._channels.values():
            channel.gone = "restart"
            channel.news.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def run(self) -> None:
        """Move time on for as long as it is awaited: builds end while nobody asks."""
        while True:
            self._changed.clear()
            due = self.sim.next_at()
            pause = None if due is None else max(0.0, due - self.now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            self.sim.advance(self.now())

    def submit(self, **job: Any) -> int:
        """Put a build into the queue, now."""
        number = self.sim.submit(self.now(), **job)
        self._changed.set()
        return number

    def restart(self, *, down_s: float) -> None:
        """Go down and come back, now."""
        self.sim.restart(self.now(), down_s=down_s)
        self._crumbs.clear()
        self._changed.set()

    def fail_next(
        self, pattern: str, kind: FaultKind, *, times: int = 1, method: str | None = None
    ) -> None:
        """Let the next requests that fit go wrong; ``pattern`` is a glob over the path."""
        self._faults.append(_Fault(pattern=pattern, kind=kind, times=times, method=method))

    # --- one request ---

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.requests.append((request.method, path))
        self.sim.advance(self.now())
        if self.sim.is_down(self.now()):
            return web.Response(status=503, text=_STARTING, content_type="text/html")
        faulty = await self._misbehave(request, path)
        if faulty is not None:
            return faulty
        try:
            self._admit(request, path)
            answer = await self._route(request, path)
        except simulation.Refused as refused:
            answer = _refusal(refused)
        except web.HTTPException as early:
            early.headers.update(self._headers())
            raise
        self._changed.set()
        if answer.prepared:
            return answer
        answer.headers.update(self._headers())
        if answer.content_type == "application/json" and isinstance(answer, web.Response):
            self._stale[path] = answer.text or ""
            answer.enable_compression()  # if the request accepts it
        return answer

    def _headers(self) -> dict[str, str]:
        moment = dt.datetime.fromtimestamp(self.now(), dt.UTC)
        return {
            "X-Jenkins": self.sim.version,
            "X-Jenkins-Session": self.sim.session,
            "X-Content-Type-Options": "nosniff",
            "Date": format_datetime(moment, usegmt=True),
        }

    async def _misbehave(self, request: web.Request, path: str) -> web.StreamResponse | None:
        for fault in self._faults:
            if fault.method not in {None, request.method}:
                continue
            if fault.times > 0 and fnmatch.fnmatchcase(path, fault.pattern):
                fault.times -= 1
                return await self._fault(fault.kind, request, path)
        return None

    async def _fault(
        self, kind: FaultKind, request: web.Request, path: str
    ) -> web.StreamResponse | None:
        match kind:
            case "timeout":
                await asyncio.Event().wait()
            case "slow":
                await asyncio.sleep(_SLOW_S)
            case "500" | "503":
                return web.Response(status=int(kind), text=f"<h1>Oops {kind}</h1>")
            case "reset":
                if request.transport is not None:
                    request.transport.close()
                return web.Response()
            case "cut":
                answer = web.StreamResponse(headers={"Content-Length": "100000"})
                await answer.prepare(request)
                await answer.write(b'{"_class":"hudson.model.Queue","items":[{')
                if request.transport is not None:
                    request.transport.close()
                return answer
            case "stale":
                old = self._stale.get(path)
                if old is not None:
                    return web.Response(
                        text=old, content_type="application/json", headers=self._headers()
                    )
        return None

    # --- who may come in ---

    def _admit(self, request: web.Request, path: str) -> None:
        access = self.access
        public = path.startswith(
            ("jnlpJars/", "tcpSlaveAgentListener", "login", "simulated-agent")
        )
        if access.user is None or public:
            return
        kind = self._authenticate(request)
        for pattern, permission in access.missing.items():
            if fnmatch.fnmatchcase(path, pattern):
                name = permission.rpartition(".")[2]
                raise web.HTTPForbidden(
                    text=f"{access.user} is missing the Agent/{name} permission",
                    headers={"X-Required-Permission": permission},
                )
        if request.method == "POST" and kind == "password" and not self._has_crumb(request):
            raise web.HTTPForbidden(text="No valid crumb was included in the request")

    def _authenticate(self, request: web.Request) -> str:
        access = self.access
        told = request.headers.get("Authorization", "")
        if not told:
            raise web.HTTPForbidden(text="Authentication required")
        try:
            user, _, given = base64.b64decode(told.removeprefix("Basic ")).decode().partition(":")
        except ValueError:
            user, given = "", ""
        if user == access.user and given:
            if access.token is not None and secrets.compare_digest(given, access.token):
                return "token"
            if access.password is not None and secrets.compare_digest(given, access.password):
                return "password"
        raise web.HTTPUnauthorized(
            text=f"Invalid password/token for user: {user}",
            headers={"WWW-Authenticate": 'Basic realm="Jenkins"'},
        )

    def _has_crumb(self, request: web.Request) -> bool:
        cookie = request.cookies.get("JSESSIONID", "")
        crumb = request.headers.get("Jenkins-Crumb", "")
        return bool(crumb) and self._crumbs.get(cookie) == crumb

    def _crumb(self, request: web.Request) -> web.Response:
        cookie = request.cookies.get("JSESSIONID") or secrets.token_hex(8)
        crumb = hashlib.sha256(f"{cookie}{self.sim.session}".encode()).hexdigest()
        self._crumbs[cookie] = crumb
        answer = _json(
            {
                "_class": "hudson.security.csrf.DefaultCrumbIssuer",
                "crumb": crumb,
                "crumbRequestField": "Jenkins-Crumb",
            }
        )
        answer.set_cookie("JSESSIONID", cookie, httponly=True)
        return answer

    # --- the paths ---

    async def _route(self, request: web.Request, path: str) -> web.StreamResponse:
        fixed: dict[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
            "computer/doCreateItem": self._create,
            "queue/cancelItem": self._cancel,
        }
        if path in fixed:
            if request.method != "POST":
                raise simulation.Refused(404)
            return await fixed[path](request)
        if path.startswith("simulated-agent/"):
            return await self._agent(request, path.partition("/")[2])
        if path.startswith("computer/") and not path.startswith("computer/api/"):
            _, name, rest = (*path.split("/", 2), "")[:3]
            return await self._node(request, name, rest)
        if path.startswith("job/"):
            return await self._job(request, path)
        return self._plain(request, path)

    def _plain(  # noqa: PLR0911 -- one path, one answer
        self, request: web.Request, path: str
    ) -> web.Response:
        now, url, language = self.now(), self.url, self._language(request)
        match path.rstrip("/").split("/"):
            case ["queue", "api", "json"]:
                told = documents.queue(self.sim, now=now, url=url, language=language)
                return self._document(request, told)
            case ["queue", "item", number, "api", "json"]:
                item = self.sim.items.get(int(number)) if number.isdecimal() else None
                if item is None or not self._is_known(item):
                    raise simulation.Refused(404)
                told = documents.item(self.sim, item, now=now, url=url, language=language)
                return self._document(request, told)
            case ["computer", "api", "json"]:
                return self._document(request, documents.computers(self.sim, url=url))
            case ["crumbIssuer", "api", "json"]:
                return self._crumb(request)
            case ["whoAmI", "api", "json"]:
                return _json(
                    {"_class": "hudson.security.WhoAmI", "name": self.access.user or "anonymous"}
                )
            case ["jnlpJars", "agent.jar"]:
                return _jar(request)
            case ["api", "json"] | [""] | ["login"]:
                return _json({"_class": "hudson.model.Hudson", "mode": "NORMAL", "jobs": []})
            case ["tcpSlaveAgentListener"]:
                return web.Response(
                    text="Jenkins",
                    headers={"X-Jenkins-JNLP-Port": "50000", "X-Remoting-Minimum-Version": "3.14"},
                )
            case _:
                raise simulation.Refused(404)

    def _is_known(self, item: simulation.Item) -> bool:
        if item.fate is simulation.Fate.LOST:
            return False
        if item.left_at is None:
            return True
        return self.now() - item.left_at <= simulation.LEFT_KEPT_S

    def _document(self, request: web.Request, told: documents.Document) -> web.Response:
        text = request.query.get("tree")
        tree = documents.parse_tree(text) if text is not None else None
        return _json(documents.pruned(told, tree))

    def _language(self, request: web.Request) -> words.Language:
        told = request.headers.get("Accept-Language")
        if told is None or told.startswith("*"):
            return self.locale
        return "de" if told.lower().startswith("de") else "en"

    async def _job(self, request: web.Request, path: str) -> web.StreamResponse:
        found = re.fullmatch(r"job/([^/]+)/build(?:WithParameters)?", path)
        if found is None or request.method != "POST":
            raise simulation.Refused(404)
        form = {**request.query, **await request.post()}
        number = self.submit(
            job=found[1],
            label=str(form["label"]) if form.get("label") else None,
            duration_s=float(str(form.get("duration", "1"))),
        )
        return web.Response(status=201, headers={"Location": f"{self.url}queue/item/{number}/"})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        told = str(request.query.get("id") or (await request.post()).get("id", ""))
        self.sim.cancel(self.now(), int(told) if told.isdecimal() else -1)
        return web.Response(status=204)

    # --- nodes ---

    async def _create(self, request: web.Request) -> web.StreamResponse:
        form = {**request.query, **await request.post()}
        name = str(form.get("name", ""))
        if "json" not in form:
            raise simulation.Refused(400, "This page expects a form submission")
        self._check_name(name)
        try:
            told = json.loads(str(form["json"]))
            launcher = told.get("launcher", {})
            _ = launcher["stapler-class"] if launcher else None
        except (ValueError, AttributeError, KeyError) as error:
            raise simulation.Refused(500, "Oops") from error
        count = str(told.get("numExecutors", 1))
        node = simulation.Node(
            name=str(told.get("name", name)),
            labels=frozenset(str(told.get("labelString", "")).split()),
            executors=int(count) if re.fullmatch(r"-?\d+", count) else 0,
            exclusive=told.get("mode") == "EXCLUSIVE",
            description=str(told.get("nodeDescription", "")),
            remote_fs=str(told.get("remoteFS", "")),
        )
        self.sim.create_node(self.now(), node)
        return web.Response(status=302, headers={"Location": f"{self.url}computer/"})

    def _check_name(self, name: str) -> None:
        if not name:
            raise simulation.Refused(400, "Query parameter 'name' is required")
        if name in {".", ".."}:
            raise simulation.Refused(400, f"{name}  is not an allowed name")
        bad = _BAD_IN_NAME.search(name)
        if bad is not None:
            raise simulation.Refused(400, f"{bad[0]}  is an unsafe character")
        if name in self.sim.nodes:
            raise simulation.Refused(400, f"Agent called  {name}  already exists")
        if len(name) > _LONGEST_NAME:
            raise simulation.Refused(500, "Oops")

    async def _node(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        if name in {"(master)", "(built-in)"} and rest == "api/json":
            return self._document(request, documents.computer(self.sim.built_in, url=self.url))
        node = self.sim.node(name)
        now = self.now()
        back = web.Response(status=302, headers={"Location": f"{self.url}computer/{name}/"})
        if request.method == "GET":
            return self._node_page(request, node, rest)
        form = {**request.query, **await request.post()} if rest != "config.xml" else {}
        message = str(form.get("offlineMessage", ""))
        match rest:
            case "config.xml":
                await self._configure(request, node)
                return web.Response()
            case "changeOfflineCause":
                self.sim.take_offline(now, name, message)
            case "toggleOffline":
                self.sim.toggle(now, name, message)
            case "doDisconnect":
                self._close_channel(name, "disconnect")
                self.sim.disconnect(now, name)
            case "doDelete":
                self.sim.delete_node(now, name)
                back.headers["Location"] = f"{self.url}computer/"
            case _:
                raise simulation.Refused(404)
        return back

    def _node_page(
        self, request: web.Request, node: simulation.Node, rest: str
    ) -> web.StreamResponse:
        newer = jnlp_version.at_least(self.sim.version, (2, 264), (2, 277, 1))
        match rest:
            case "api/json":
                return self._document(request, documents.computer(node, url=self.url))
            case "config.xml":
                return web.Response(
                    text=documents.config_xml(node), content_type="application/xml"
                )
            case "slave-agent.jnlp":
                pass
            case "jenkins-agent.jnlp" if newer:
                pass
            case "doDelete":
                raise simulation.Refused(405)
            case _:
                raise simulation.Refused(404)
        return web.Response(
            text=documents.jnlp(node.name, self.url), content_type="application/x-java-jnlp-file"
        )

    async def _configure(self, request: web.Request, node: simulation.Node) -> None:
        text = (await request.read()).decode("utf-8")
        try:
            wanted = jnlp_node.labels_of(text)
            exclusive = jnlp_node.is_exclusive(text)
        except ValueError as error:
            raise simulation.Refused(400, "No name is specified") from error
        self.sim.configure(
            self.now(),
            node.name,
            wanted=frozenset(wanted),
            exclusive=exclusive,
            accepting=_NEVER_DUE.search(text) is None,
        )

    # --- agents ---

    async def _agent(self, request: web.Request, name: str) -> web.StreamResponse:
        """Hold an agent's request open for as long as it is connected."""
        given = request.headers.get("X-Agent-Secret", "")
        if not secrets.compare_digest(given, documents.secret_of(name)):
            raise simulation.Refused(403)
        self.sim.connect(self.now(), name)
        channel = self._channels[name] = _Channel()
        self._changed.set()
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        try:
            await answer.prepare(request)
            async for line in self._lines(channel):
                await answer.write(line.encode())
            await answer.write_eof()
        except ConnectionError:
            pass
        finally:
            if self._channels.get(name) is channel:
                del self._channels[name]
                self.sim.disconnect(self.now(), name)
                self._changed.set()
        return answer

    async def _lines(self, channel: _Channel) -> AsyncIterator[str]:
        yield "connected\n"
        while not channel.gone:
            try:
                async with asyncio.timeout(_PING_S):
                    await channel.news.wait()
            except TimeoutError:
                yield "ping\n"
        yield f"gone {channel.gone}\n"

    def _close_channel(self, name: str, why: str) -> None:
        channel = self._channels.pop(name, None)
        if channel is not None:
            channel.gone = why
            channel.news.set()


def _json(document: Any) -> web.Response:
    return web.Response(
        text=json.dumps(document, ensure_ascii=False), content_type="application/json"
    )


def _jar(request: web.Request) -> web.Response:
    if request.headers.get("If-Modified-Since") == _JAR_DATE:
        return web.Response(status=304)
    return web.Response(
        body=_JAR, content_type="application/java-archive", headers={"Last-Modified": _JAR_DATE}
    )


def _refusal(refused: simulation.Refused) -> web.Response:
    headers = {"X-Error": refused.text} if refused.status == 400 and refused.text else {}
    return web.Response(
        status=refused.status,
        text=f"<html><body><h1>Error</h1><p>{refused.text or refused.status}</body></html>",
        content_type="text/html",
        headers=headers,
    )
