"""The controller on the other end of the broker's own HTTP client, without a socket.

The product's session, reader, crumbs and readings of answers are the real ones; here is what an
``aiohttp`` session would be to them. What is asked is answered by the product's simulated
controller; faults change the answer, lose it, or let it never come.
"""

import asyncio
import contextlib
import http.cookies
import json
from email.utils import formatdate
from unittest import mock

import aiohttp
import yarl
from attrs import Factory, frozen
from multidict import CIMultiDict

from broker.core.fleet import marks
from broker.simulator import documents, inventory, nodes, pages, reasons

URL = "http://controller.test/"
USER = "broker"
PASSWORD = "correct horse"
COOKIE = "JSESSIONID.simulated"
_TRAVELS_S = 0.01


@frozen(kw_only=True)
class Answer:
    """What the controller says."""

    status: int = 200
    kind: str = "application/json"
    body: bytes = b""
    headers: dict = Factory(dict)
    cookies: dict = Factory(dict)
    cut: bool = False


class _Content:
    def __init__(self, answer):
        self._answer = answer

    async def iter_any(self):
        yield self._answer.body
        if self._answer.cut:
            raise aiohttp.ClientPayloadError("cut off")

    async def read(self, limit):
        body, self._answer = self._answer.body[:limit], Answer()
        return body


class _Response:
    def __init__(self, answer, headers):
        self.status = answer.status
        self.headers = CIMultiDict({"Content-Type": answer.kind, **headers, **answer.headers})
        self.cookies = http.cookies.SimpleCookie(answer.cookies)
        self.content = _Content(answer)


class _Request:
    """What ``async with session.request(…)`` enters."""

    def __init__(self, session, *about):
        self._session, self._about = session, about

    async def __aenter__(self):
        return await self._session.send(*self._about)

    async def __aexit__(self, *_):
        return None


class Session:
    """In the place of ``aiohttp.ClientSession``, for one life of the broker."""

    def __init__(self, world, life):
        self._world, self._life = world, life
        self.cookie_jar = {}

    def request(self, method, url, *, data=None, headers=None, **_):
        return _Request(self, method, url, data, headers or {})

    async def close(self):
        return None

    async def send(self, method, url, data, headers):
        world = self._world
        await self._life.breathe()
        world.tally.asked("controller", world.now)
        await asyncio.sleep(_TRAVELS_S + world.controller.extra_s())
        await self._life.breathe()
        with world.loop.outside():
            answer = world.controller.answer(
                method, yarl.URL(url), data, headers, dict(self.cookie_jar)
            )
        if answer is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        self.cookie_jar.update(answer.cookies)
        if answer.status >= 400 and answer.status != 404:
            world.tally.refused("controller", world.now)
        return _Response(answer, world.controller.headers())


class Controller:
    """Answers requests; ``faults`` holds what is wrong with it, by kind."""

    def __init__(self, world):
        self.world = world
        self.faults = {}  # kind -> dice of its strike
        self.skew_s = 0.0
        self.crumbs = {}  # cookie -> crumb
        self.kept = {}  # path and tree -> answer, for stale reads

    def extra_s(self):
        return self.world.dice.uniform(1.0, 6.0) if "slow answers" in self.faults else 0.0

    def headers(self):
        sim = self.world.sim
        return {
            "X-Jenkins": sim.version,
            "X-Jenkins-Session": sim.session,
            "Date": formatdate(self.world.now + self.skew_s, usegmt=True),
        }

    def answer(self, method, url, data, headers, cookies):
        """Return an answer, an error of the HTTP library, or None for none at all."""
        world, path = self.world, url.raw_path.removeprefix("/")
        world.sim.advance(world.now)
        if world.sim.is_down(world.now):
            return _page(pages.starting(method))
        wrong = self._before(method, path)
        if wrong is not None:
            return wrong
        late = self._late(method)
        if late is not None and world.dice.random() < 0.5:
            return late if isinstance(late, Exception) else None
        if method == "POST" and self.crumbs.get(cookies.get(COOKIE)) != headers.get(
            "Jenkins-Crumb", "?"
        ):
            return _page(pages.bare(403, "No valid crumb was included in the request"))
        try:
            told = self._route(method, path, url.query, data)
        except inventory.SimulatedRefusal as refused:
            return _page(pages.refusal(refused))
        if late is not None:  # it was done, and nobody hears of it
            return late if isinstance(late, Exception) else None
        return self._after(path, url, told)

    # --- what goes wrong ---

    def _before(self, method, path):
        faults, chance = self.faults, self.world.dice.random
        if "status 500" in faults and chance() < 0.8:
            return Answer(status=500, kind="text/html", body=b"<h1>Oops</h1>")
        if "status 502 and 503" in faults and chance() < 0.9:
            if chance() < 0.5:
                return Answer(status=502, kind="text/html", body=b"<h1>Bad Gateway</h1>")
            return Answer(status=503, kind="text/html", body=b"wait", headers={"Retry-After": "3"})
        if "status 401" in faults:
            return _page(pages.bare(401, f"Invalid password/token for user: {USER}"))
        if "status 403" in faults:
            return _page(_missing("Overall/Read"))
        if "nodes refused" in faults and path == "computer/doCreateItem":
            return _page(_missing("Agent/Create"))
        if "deletions refused" in faults and path.endswith("/doDelete"):
            return _page(_missing("Agent/Delete"))
        if "crumbs refused" in faults and method == "POST":
            return _page(pages.bare(403, "No valid crumb was included in the request"))
        if "nodes refused as sent" in faults and path == "computer/doCreateItem":
            refused = inventory.SimulatedRefusal(400, "is an unsafe character")
            return _page(pages.refusal(refused))
        return None

    def _late(self, method):
        """Return what becomes of an answer that is lost: an error, or True for silence."""
        chance = self.world.dice.random
        if "connections reset" in self.faults and chance() < 0.6:
            return aiohttp.ServerDisconnectedError()
        if "answers lost" in self.faults and method == "POST" and chance() < 0.8:
            return aiohttp.ClientOSError(104, "Connection reset by peer")
        if "hanging requests" in self.faults and chance() < 0.5:
            return True
        return None

    def _after(self, path, url, answer):
        faults, chance = self.faults, self.world.dice.random
        if answer.kind != "application/json":
            return answer
        key = str(url)
        if "stale answers" in faults and path in {"queue/api/json", "computer/api/json"}:
            return self.kept.setdefault(key, answer)
        self.kept.pop(key, None)
        if "cut answers" in faults and chance() < 0.7:
            half = answer.body[: len(answer.body) // 2]
            return Answer(body=half, cut=chance() < 0.5)
        if "odd documents" in faults and chance() < 0.7:
            odd = self.world.dice.choice([b"[]", b"null", b"{}", b"[" * 400, b'{"items":7}', b""])
            kind = self.world.dice.choice(["application/json", "text/html"])
            return Answer(body=odd, kind=kind)
        if "odd items" in faults and path == "queue/api/json":
            return _with(answer, "items", _ODD_ITEMS, self.world.dice)
        if "odd computers" in faults and path == "computer/api/json":
            return _with(answer, "computer", _ODD_COMPUTERS, self.world.dice)
        if "an entry made odd" in faults:
            return _spoilt(answer, self.world.dice)
        return answer

    # --- what goes right ---

    def _route(self, method, path, query, data):
        world, sim, now = self.world, self.world.sim, self.world.now
        tree = documents.parse_tree(query["tree"]) if "tree" in query else None
        match path.split("/"):
            case ["queue", "api", "json"]:
                with _once_for_each_label():
                    told = documents.queue(sim, now=now, url=URL, language="en")
            case ["computer", "api", "json"]:
                told = documents.computers(sim, url=URL)
            case ["crumbIssuer", "api", "json"]:
                return self._crumb()
            case ["label", name, "api", "json"]:
                told = documents.label(sim, name)
            case ["queue", "item", number, "api", "json"]:
                told = self._item(int(number))
            case ["job", job, number, "api", "json"]:
                told = world.build(job, int(number))
            case ["computer", "doCreateItem"] if method == "POST":
                world.node_asked_for(data["name"])
                nodes.create(sim, data, now=now)
                world.node_made(data["name"])
                return Answer(
                    status=302, kind="text/html", headers={"Location": f"{URL}computer/"}
                )
            case ["computer", name, *rest]:
                return self._node(method, name, "/".join(rest), data, tree)
            case _:
                raise inventory.SimulatedRefusal(404)
        return _json(documents.pruned(told, tree))

    def _item(self, number):
        sim, now = self.world.sim, self.world.now
        item = sim.items.get(number)
        gone = item is None or item.fate is inventory.Fate.LOST
        if gone or (item.left_at is not None and now - item.left_at > inventory.LEFT_KEPT_S):
            raise inventory.SimulatedRefusal(404)
        return documents.item(sim, item, now=now, url=URL, language="en")

    def _crumb(self):
        cookie = f"node{self.world.dice.getrandbits(64):x}"
        self.crumbs[cookie] = f"{self.world.dice.getrandbits(128):x}"
        answer = _json(documents.crumb(self.crumbs[cookie]))
        return Answer(body=answer.body, cookies={COOKIE: cookie})

    def _node(self, method, name, rest, data, tree):
        world, sim = self.world, self.world.sim
        if method == "GET":
            node = sim.computer(name)
            if rest == "api/json":
                return _json(documents.pruned(documents.computer(node, url=URL), tree))
            return _page(nodes.show(sim, node, rest, url=URL))
        node = sim.node(name)
        world.touches_node(node, rest)
        if rest == "config.xml":
            text = data.decode("utf-8", "replace")
            nodes.configure(sim, node, text, now=world.now)
            return Answer(kind="text/html")
        where = nodes.operate(sim, node, rest, data, now=world.now, by=USER)
        world.node_changed(node, rest)
        return Answer(status=302, kind="text/html", headers={"Location": f"{URL}computer/{where}"})


_ODD_ITEMS = (
    None, 7, "x", [], {}, {"id": "1"}, {"id": -5}, {"id": 2**80}, {"id": True},
    {"id": 1e99, "task": []}, {"_class": "x", "id": None, "why": {"a": 1}},
)  # fmt: skip
_ODD_COMPUTERS = (
    None, 3, {}, {"displayName": 7}, {"displayName": "x", "idle": "yes"}, [],
    {"displayName": "somebody", "executors": 3, "idle": None}, {"idle": True},
)  # fmt: skip


@contextlib.contextmanager
def _once_for_each_label():
    """Let the controller look for the nodes of a label once for all that ask for it."""
    matching, real = {}, reasons._matching

    def kept(sim, item):
        key = item.label, item.pinned
        if key not in matching:
            matching[key] = real(sim, item)
        return matching[key]

    with mock.patch.object(reasons, "_matching", kept):
        yield


def _with(answer, key, odd, dice):
    """Return a list with odd entries among the others."""
    document = json.loads(answer.body)
    for _ in range(dice.randint(1, 4)):
        document[key].insert(dice.randint(0, len(document[key])), dice.choice(odd))
    return _json(document)


def _spoilt(answer, dice):
    """Return a list one of whose own entries has lost what it is known by, or is there twice."""
    document = json.loads(answer.body)
    key = next((key for key in ("items", "computer") if document.get(key)), None)
    if key is None:
        return answer
    entries = document[key]
    index = dice.randrange(len(entries))
    if not isinstance(entries[index], dict):
        return answer
    if dice.random() < 0.3:
        entries.append(entries[index])
    else:
        field = dice.choice(sorted(entries[index]))
        entries[index] = {**entries[index], field: dice.choice([None, [], {"x": 1}, 1e300, "?"])}
    return _json(document)


def _json(document):
    return Answer(body=json.dumps(document).encode())


def _page(answer):
    headers = dict(answer.headers)
    kind = headers.pop("Content-Type", "text/html")
    return Answer(status=answer.status, kind=kind, body=answer.body or b"", headers=headers)


def _missing(permission):
    return pages.refusal(
        inventory.SimulatedRefusal(403, f"{USER} is missing the {permission} permission")
    )


def is_ours(node, owner):
    """Return whether a node is an agent of ours."""
    read = marks.from_description(node.description)
    return read is not None and read.owner == owner
