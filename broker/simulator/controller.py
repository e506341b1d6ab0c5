"""The simulated controller on HTTP: the paths that a provisioner and python-jenkins use.

Status codes, headers and bodies as recorded (``tests/wire/test_simulated_controller.py`` compares
them); authentication with token or password and crumb; faults on demand. Agents hold one streaming
request open (``/simulated-agent/NAME``) in place of the agent protocol: closing it is losing the
channel. Refuses to decide anything: ``simulation`` does.
"""

import asyncio
import contextlib
import datetime as dt
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable
from email.utils import format_datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from attrs import define, field

from broker.simulator import access as accesses
from broker.simulator import documents, faults, inventory, nodes, pages, reasons, simulation
from broker.simulator.access import Accounts
from jnlp import version as jnlp_version
from outside import waits

__all__ = ["Accounts", "SimulatedController"]

_PING_S = 1.0
_DELAY = re.compile(r"(\d+)(?:sec)?")


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
        access: Accounts | None = None,
        locale: reasons.Language = "en",
        prefix: str = "",
    ) -> None:
        """``prefix`` is the path under which it lives, like ``/jenkins``; ``locale`` the JVM's."""
        self.sim = sim
        self.now = now
        self.access = access or Accounts()
        self.locale = locale
        self.prefix = prefix
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self._channels: dict[str, _Channel] = {}
        self._faults = faults.Faults()
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()
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
                async with waits.timeout(pause):
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
        self.access.forget_sessions()
        self._changed.set()

    def fail_next(
        self, pattern: str, kind: faults.Kind, *, times: int = 1, method: str | None = None
    ) -> None:
        """Let the next requests that fit go wrong; ``pattern`` is a glob over the path."""
        self._faults.add(pattern, kind, times=times, method=method)

    # --- one request ---

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self.requests.append((request.method, path))
        self.sim.advance(self.now())
        if self.sim.is_down(self.now()):
            return self._sent(pages.starting(request.method))
        answer = await self._faults.strike(request, path, self._headers())
        if answer is not None:
            return answer
        answer = self.access.refusal(request, path, toggles_on=self._toggles_on(path))
        if answer is None:
            try:
                answer = await self._route(request, path)
            except simulation.SimulatedRefusal as refused:
                answer = pages.refusal(refused)
        self._changed.set()
        if isinstance(answer, web.Response) and answer.content_type == "application/json":
            self._faults.remember(path, answer)
            answer.enable_compression()  # if the request accepts it
        return self._sent(answer)

    def _sent(self, answer: web.StreamResponse) -> web.StreamResponse:
        if not answer.prepared:
            told = self._headers()
            if not pages.is_jenkins(answer):
                told = {"Date": told["Date"]}
            answer.headers.update(told)
        return answer

    def _headers(self) -> dict[str, str]:
        moment = dt.datetime.fromtimestamp(self.now(), dt.UTC)
        return {
            "X-Jenkins": self.sim.version,
            "X-Jenkins-Session": self.sim.session,
            "X-Content-Type-Options": "nosniff",
            "Date": format_datetime(moment, usegmt=True),
        }

    def _toggles_on(self, path: str) -> bool:
        node = self.sim.nodes.get(path.removeprefix("computer/").partition("/")[0])
        return node is not None and node.offline_message is not None

    # --- the paths ---

    async def _route(self, request: web.Request, path: str) -> web.StreamResponse:
        if path in {"computer/doCreateItem", "queue/cancelItem"}:
            if request.method != "POST":
                raise simulation.SimulatedRefusal(404)
            return await (self._create if path.startswith("c") else self._cancel)(request)
        if path == "configuration-as-code/" and self.sim.casc:
            raise simulation.SimulatedRefusal(403)
        if path == "computer/createItem":
            raise simulation.SimulatedRefusal(400, "No mode given")
        if path.startswith("simulated-agent/"):
            return await self._agent(request, path.partition("/")[2])
        if path.startswith("computer/") and not path.startswith("computer/api/"):
            _, name, rest = (*path.split("/", 2), "")[:3]
            if name:
                return await self._node(request, name, rest)
        if path.startswith("job/"):
            return await self._job(request, path)
        return self._plain(request, path)

    def _plain(  # noqa: C901, PLR0911 -- one path, one answer
        self, request: web.Request, path: str
    ) -> web.Response:
        match path.rstrip("/").split("/"):
            case ["queue", *rest]:
                return self._queue(request, rest)
            case ["widget", "BuildQueueWidget", "ajax"]:
                return self._queue_widget()
            case ["computer", "api", "json"]:
                return self._document(request, documents.computers(self.sim, url=self.url))
            case ["crumbIssuer" | "whoAmI" | "me" as what, "api", "json"]:
                return self._who(request, what)
            case ["label", name, "api", "json"]:
                return self._document(request, documents.label(self.sim, name))
            case ["jnlpJars", "agent.jar" | "remoting.jar" | "slave.jar"]:
                return pages.jar(request)
            case ["plugin", "durable-task"] if self.sim.durable_task:
                where = {"Location": f"{self.prefix}/{path}/"}
                return web.Response(status=302, headers=where)
            case ["tcpSlaveAgentListener"]:
                return pages.listener(jnlp_version.parse(self.sim.version) or ())
            case ["wsagents"]:
                text = "This endpoint is only for use from agent.jar in WebSocket mode"
                return pages.bare(400, text)
            case ["api", "json"]:
                return self._document(request, documents.root(self.sim))
            case [""] | ["login"] | ["computer"]:
                return pages.page("Dashboard")
            case _:
                raise simulation.SimulatedRefusal(404)

    def _queue_widget(self) -> web.Response:
        """Answer as 2.541.3 does, as far as who may cancel is told by it."""
        sees, cancels = self.access.may("Job/Read"), self.access.may("Job/Cancel")
        rows = [
            f'<a href="/queue/cancelItem?id={item.id}">cancel</a>' if cancels else "<td/>"
            for item in self.sim.items.values()
            if sees and item.stage is not simulation.ItemClass.LEFT
        ]
        return pages.page("Build Queue", "".join(rows))

    def _who(self, request: web.Request, what: str) -> web.Response:
        if what == "whoAmI":
            return _json(self.access.whoami(request))
        if what == "me":
            name = self.access.user or "anonymous"
            return _json({"_class": "hudson.model.User", "fullName": name, "id": name})
        value, cookie = self.access.crumb(request, self.sim.session)
        answer = _json(documents.crumb(value))
        answer.set_cookie(accesses.COOKIE, cookie, httponly=True)
        return answer

    def _queue(self, request: web.Request, rest: list[str]) -> web.Response:
        now, url, language = self.now(), self.url, self._language(request)
        sees = self.access.may("Job/Read")
        match rest:
            case ["api", "json"]:
                document = documents.queue(self.sim, now=now, url=url, language=language)
                if not sees:
                    document = documents.hidden(document, discover=self.access.may("Job/Discover"))
                return self._document(request, document)
            case ["item", number, "api", "json"]:
                item = self.sim.items.get(int(number)) if number.isdecimal() else None
                if item is None or not self._is_known(item):
                    raise simulation.SimulatedRefusal(404)
                document = documents.item(self.sim, item, now=now, url=url, language=language)
                if sees:
                    return self._document(request, document)
                if not self.access.may("Job/Discover"):
                    raise simulation.SimulatedRefusal(404)
                where = f"job/{item.job}/"
                raise simulation.SimulatedRefusal(403, f"Please log in to access {where}")
            case _:
                raise simulation.SimulatedRefusal(404)

    def _is_known(self, item: simulation.Item) -> bool:
        if item.fate is simulation.Fate.LOST:
            return False
        if item.left_at is None:
            return True
        return self.now() - item.left_at <= inventory.LEFT_KEPT_S

    def _document(self, request: web.Request, told: documents.Document) -> web.Response:
        text = request.query.get("tree")
        tree = documents.parse_tree(text) if text is not None else None
        return _json(documents.pruned(told, tree))

    def _language(self, request: web.Request) -> reasons.Language:
        told = request.headers.get("Accept-Language")
        if told is None:
            return self.locale
        return "de" if told.lower().startswith("de") else "en"

    async def _job(self, request: web.Request, path: str) -> web.StreamResponse:
        parts = re.fullmatch(r"job/([^/]+)/build(?:WithParameters)?", path)
        if parts is None or request.method != "POST":
            raise simulation.SimulatedRefusal(404)
        form = await _form(request)
        delay = _DELAY.fullmatch(form.get("delay", ""))
        waits = self.sim.waiting_for(parts[1])
        if waits is not None and not form.keys() - {"delay"}:
            number = waits.id  # two triggers without parameters are one item
        else:
            number = self.submit(
                job=parts[1],
                label=form.get("label") or None,
                duration_s=float(form.get("duration", "1")),
                quiet_s=float(delay[1]) if delay else 0.0,
            )
        return web.Response(status=201, headers={"Location": f"{self.url}queue/item/{number}/"})

    async def _cancel(self, request: web.Request) -> web.StreamResponse:
        told = (await _form(request)).get("id", "")
        if not self.access.may("Job/Cancel"):
            raise simulation.SimulatedRefusal(422)
        self.sim.cancel(self.now(), int(told) if told.isdecimal() else -1)
        return web.Response(status=204)

    # --- nodes ---

    async def _create(self, request: web.Request) -> web.StreamResponse:
        nodes.create(self.sim, await _form(request), now=self.now())
        return web.Response(status=302, headers={"Location": f"{self.url}computer/"})

    async def _node(self, request: web.Request, name: str, rest: str) -> web.StreamResponse:
        if name in documents.built_in_paths(self.sim):
            if rest == "contextMenu":
                return _json(documents.menu(self.sim, request.path, deletes=False))
            if rest != "api/json":
                raise simulation.SimulatedRefusal(400)
            return self._document(request, documents.built_in(self.sim, url=self.url))
        if request.method != "POST":
            return self._shown(request, self.sim.computer(name), rest)
        node = self.sim.node(name)
        if rest == "config.xml":
            text = (await request.read()).decode("utf-8", "replace")
            nodes.configure(self.sim, node, text, now=self.now())
            return web.Response()
        if rest == "launchSlaveAgent" and node.connected:
            return pages.page(name)
        where = nodes.operate(
            self.sim,
            node,
            rest,
            await _form(request),
            now=self.now(),
            by=self.access.user or "anonymous",
        )
        return web.Response(status=302, headers={"Location": f"{self.url}computer/{where}"})

    def _shown(self, request: web.Request, node: simulation.Node, rest: str) -> web.Response:
        if rest == "api/json":
            return self._document(request, documents.computer(node, url=self.url))
        if rest == "contextMenu":
            return self._menu(request)
        return nodes.show(self.sim, node, rest, url=self.url)

    def _menu(self, request: web.Request) -> web.Response:
        deletes = self.access.may("Agent/Delete")
        return _json(documents.menu(self.sim, request.path, deletes=deletes))

    # --- agents ---

    async def _agent(self, request: web.Request, name: str) -> web.StreamResponse:
        """Hold an agent's request open for as long as it is connected."""
        given = request.headers.get("X-Agent-Secret", "")
        if not secrets.compare_digest(given, documents.secret_of(name)):
            raise simulation.SimulatedRefusal(403)
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
                async with waits.timeout(_PING_S):
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


async def _form(request: web.Request) -> dict[str, str]:
    """Return the fields of query and body; the query's come first, as Stapler has it."""
    body = await request.post()
    return {**{k: str(v) for k, v in body.items()}, **request.query}
