"""The simulated controller says what a real one was recorded to say, request by request.

Each recording is driven into its situation and then replayed: status, the headers that clients act
on, and every field that the simulation claims to know. What it does not claim is listed here.
"""

import base64
import contextlib
import itertools
import json
import re
from urllib.parse import urlsplit

import aiohttp
import pytest
import recorded
import yarl
from attrs import define

from broker.simulator import access, inventory, simulation
from broker.simulator import controller as controllers
from broker.simulator.simulation import Node, TaskKind
from jnlp import client, errors, http, node
from jnlp import secret as jnlp_secret
from jnlp import settings as jnlp_settings

OLD = "2.263.4"
NOW = 1_795_475_491.0
USER, TOKEN, PASSWORD = "admin", "11aa-token", "a password"

HEADERS = ("X-Error", "X-Required-Permission", "WWW-Authenticate", "X-You-Are-Authenticated-As")
PRESENT = ("X-Jenkins", "X-Jenkins-Session", "Last-Modified", "X-Hudson-JNLP-Port",
           "X-Jenkins-JNLP-Port", "X-Remoting-Minimum-Version",
           "Content-Disposition")  # fmt: skip
UNCLAIMED = {
    "actions", "params", "color",  # of items: who started them with what
    "monitorData", "loadStatistics", "propertiesList",  # of computers: numbers of their own
    "id", "queueId", "timestamp", "inQueueSince", "buildableStartMilliseconds", "crumb",  # values
    "description",  # of the controller's own node
}  # fmt: skip
UNCLAIMED_CALLS = re.compile(
    r"/scriptText|/label/|/overallLoad|/job/[^?]*(api/json|config.xml|console)|/logText|"
    r"encrypt=true|/instance-identity"
)
"""The script console, statistics, jobs, logs, and the encrypted file that agent.jar asks for."""


@define
class Clock:
    now: float = NOW

    def read(self):
        return self.now


@define
class Stage:
    """A simulated controller, and a plain client that repeats recorded requests."""

    clock: Clock
    sim: simulation.Simulation
    server: controllers.SimulatedController
    http: aiohttp.ClientSession

    def node(self, name, *labels, online=False, seen=False, **more):
        """Put a node there; ``seen``: it was online once."""
        node = Node(name=name, labels=frozenset(labels), **more)
        self.sim.create_node(self.clock.now, node)
        if online or seen:
            self.sim.connect(self.clock.now, name)
        if seen and not online:
            self.sim.disconnect(self.clock.now, name)
        return node

    def submit(self, job, label=None, **more):
        return self.sim.submit(self.clock.now, job=job, label=label, duration_s=900.0, **more)

    def pipeline(self, label=None, job="wf"):
        return self.submit(job, label, kind=TaskKind.PIPELINE)

    def wait(self, seconds=1.0):
        self.clock.now += seconds
        self.sim.advance(self.clock.now)

    async def repeat(self, exchange):
        """Send a recorded request; return what a recording would hold of the answer."""
        request = exchange["request"]
        headers = dict(request.get("headers", {}))
        told = headers.pop("Authorization", None)
        if told is not None:
            headers["Authorization"] = self.authorization(told, exchange)
        data = request.get("form") or request.get("body")
        if isinstance(data, dict):
            data = {k: v if isinstance(v, str) else json.dumps(v) for k, v in data.items()}
        elif isinstance(data, str):
            data = data.encode()
        url = yarl.URL(self.server.url.rstrip("/") + request["path"], encoded=True)
        async with self.http.request(
            request["method"], url, headers=headers, data=data, allow_redirects=False
        ) as answer:
            text = await answer.text() if answer.content_type != "application/java-archive" else ""
            return answer, text

    def authorization(self, told, exchange):
        user = re.match(r"Basic <([^:]+):", told)[1]
        secret = PASSWORD if "password" in told else TOKEN
        if re.search("wrong (API )?token", exchange["note"]):
            secret = "wrong"
        return f"Basic {base64.b64encode(f'{user}:{secret}'.encode()).decode()}"


@contextlib.asynccontextmanager
async def staged(*, user=USER, built_in=1, locale="en"):
    clock = Clock()
    sim = simulation.Simulation(version=OLD, built_in_executors=built_in)
    sim.built_in.labels = frozenset({"built-in", "controller", "master"})
    may = access.Accounts(user=user, token=TOKEN, password=PASSWORD)
    server = controllers.SimulatedController(sim, now=clock.read, access=may, locale=locale)
    async with (
        server,
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
    ):
        yield Stage(clock, sim, server, http)


def essence(value, url):
    """Take away what is not claimed, and where the controller is."""
    if isinstance(value, dict):
        return {k: essence(v, url) for k, v in value.items() if k not in UNCLAIMED}
    if isinstance(value, list):
        return [essence(v, url) for v in value]
    if isinstance(value, str):
        value = value.replace(url, "URL/").replace("http://localhost:8080/", "URL/")
        value = re.sub(r"queue/item/\d+/", "queue/item/N/", value)
        return value.split("\n")[0]  # the first line of a stack trace
    return value


def flat(value, path=""):
    """Take a document apart, so that a difference is one line."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from flat(part, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from flat(part, f"{path}[{number}]")
    else:
        yield path, str(value)


def check(exchange, answer, text, url):
    """Compare an answer with the recorded one."""
    then = exchange["response"]
    headers = then.get("headers") or {}
    where = f"{exchange['note']}: {exchange['request']['method']} {exchange['request']['path']}"
    assert then["status"] == answer.status, where
    for name in HEADERS:
        assert headers.get(name) == answer.headers.get(name), f"{where}: {name}"
    for name in PRESENT:
        assert (name in headers) == (name in answer.headers), f"{where}: {name}"
    if "Location" in headers:
        expected = re.sub(r"/item/\d+", "/item/N", urlsplit(headers["Location"]).path)
        actual = re.sub(r"/item/\d+", "/item/N", urlsplit(answer.headers["Location"]).path)
        assert expected == actual, where
    if "Content-Type" in headers:
        assert headers["Content-Type"].split(";")[0] == answer.content_type, where
    if "json" in then:
        expected, actual = (dict(flat(essence(d, url))) for d in (then["json"], json.loads(text)))
        assert expected == actual, f"{where}: {set(expected.items()) ^ set(actual.items())}"
        return
    body = then.get("body") or ""
    title = re.search("<title>(Error .*?|Starting Jenkins)</title>", body)
    if title:
        assert f"<title>{title[1]}</title>" in text, where
    for sentence in re.findall(r'<p class="error">(.*?)</div>', then.get("body_main") or ""):
        assert sentence in text, where


async def replay(stage, name, *, before=None, skip=()):
    """Repeat every exchange that is claimed; ``before`` is told each note first."""
    counted = 0
    for exchange in recorded.load(name)["exchanges"]:
        if before is not None:
            before(exchange)
        if exchange["note"] in skip or UNCLAIMED_CALLS.search(exchange["request"]["path"]):
            continue
        answer, text = await stage.repeat(exchange)
        check(exchange, answer, text, stage.server.url)
        counted += 1
    assert counted > 0


# --- queue ---------------------------------------------------------------------------------------


def busy_two(s):
    s.node("two-1", "two", online=True)
    s.node("two-2", "two", online=True)
    s.submit("busy", "two-1")
    s.submit("busy-2", "two-2")
    s.wait()


def q35(s):
    busy_two(s)
    s.submit("two-wait", "two")
    s.submit("two-tied", "two-1")
    s.pipeline("two")


def q36(s):
    s.node("two-1", "two", online=True)
    s.node("two-2", "two", online=True)
    s.submit("busy", "two-1")
    s.wait()
    s.sim.take_offline(s.clock.now, "two-2", "away")
    s.submit("two-wait", "two")
    s.pipeline("two")


def both_away(s):
    for name in ("two-1", "two-2"):
        s.node(name, "two", online=True)
        s.sim.take_offline(s.clock.now, name, "away")


def q37(s):
    both_away(s)
    s.submit("two-wait", "two")
    s.pipeline("two")


def q38(s):
    both_away(s)
    s.submit("two-wait", "two")
    s.submit("fs-nobody", "nobody-serves-this")
    s.sim.quiet_down(s.clock.now)


def occupied(s):
    s.submit("occupier", "built-in")
    s.wait()


def matrix(s, job, axes):
    for cell, label in axes:
        s.submit(job, label, kind=TaskKind.MATRIX, cell=cell)


MX = (("PY=3.9,label=mx-linux", "mx-linux"), ("PY=3.9,label=mx-win", "mx-win"))
MX_EXPR = (
    ("where=windows||macos", "windows||macos"),
    ("where=linux && docker", "linux && docker"),
)
EXPR = "linux && (docker || !arm)"
QUEUE = {
    "01-freestyle-label-nobody-serves": (1, lambda s: (s.node("z"), s.submit("fs-nobody", "nobody-serves-this"))),
    "02-freestyle-label-expression": (1, lambda s: (s.node("z"), s.submit("fs-expr", EXPR))),
    "03-freestyle-no-label-all-busy": (1, lambda s: (s.node("z"), occupied(s), s.submit("fs-any"))),
    "04-freestyle-tied-to-offline-node": (1, lambda s: (s.node("off-1", "offlabel"), s.submit("fs-offline-node", "off-1"))),
    "05-freestyle-label-of-offline-node": (1, lambda s: (s.node("off-1", "offlabel"), s.submit("fs-offline-label", "offlabel"))),
    "06-freestyle-label-of-two-offline-nodes": (1, lambda s: (s.node("a", "pair"), s.node("b", "pair"), s.submit("fs-offline-label2", "pair"))),
    "07-freestyle-quiet-period": (1, lambda s: (s.submit("fs-quiet", "nobody-serves-this", quiet_s=120.0), s.wait(3.2))),
    "08-freestyle-blocked-by-own-build": (2, lambda s: (s.submit("fs-blockself", "built-in", concurrent=False), s.wait(), s.submit("fs-blockself", "built-in", concurrent=False))),
    "09-freestyle-parameterised": (1, lambda s: (s.node("z"), s.submit("fs-param", "gpu"))),
    "10-freestyle-quoted-label": (1, lambda s: (s.node("z"), s.submit("fs-quoted", '"label with space"'))),
    "11-freestyle-label-busy-node": (1, lambda s: (s.node("z"), occupied(s), s.submit("fs-wait-busy", "built-in"))),
    "12-freestyle-expression-busy-node": (1, lambda s: (s.node("z"), occupied(s), s.submit("fs-wait-busy-multi", "built-in && controller"))),
    "13-freestyle-label-no-agents-at-all": (1, lambda s: s.submit("fs-nobody", "nobody-serves-this")),
    "14-freestyle-label-no-executors-at-all": (0, lambda s: s.submit("fs-nobody", "nobody-serves-this")),
    "15-freestyle-no-label-no-executors-at-all": (0, lambda s: s.submit("fs-any")),
    "16-freestyle-no-label-no-executors-one-offline-agent": (0, lambda s: (s.node("z"), s.submit("fs-any"))),
    "17-freestyle-no-label-one-offline-normal-agent": (0, lambda s: (s.node("z", exclusive=False), s.submit("fs-any"))),
    "20-pipeline-node-label": (1, lambda s: (s.node("z"), s.pipeline("foo"))),
    "21-pipeline-node-expression": (1, lambda s: (s.node("z"), s.pipeline(EXPR))),
    "22-pipeline-node-no-label": (1, lambda s: (s.node("z"), occupied(s), s.pipeline())),
    "23-pipeline-parallel": (1, lambda s: (s.node("z"), s.pipeline("pa && x"), s.pipeline("pb"))),
    "24-pipeline-label-no-agents-at-all": (1, lambda s: s.pipeline("foo")),
    "25-pipeline-label-one-unrelated-offline-agent": (1, lambda s: (s.node("z"), s.pipeline("foo"))),
    "26-pipeline-label-node-created-not-connected": (1, lambda s: (s.node("foo-1", "foo"), s.pipeline("foo"))),
    "27-pipeline-label-two-nodes-not-connected": (1, lambda s: (s.node("a", "foo"), s.node("b", "foo"), s.pipeline("foo"))),
    "28-pipeline-label-no-executors-at-all": (0, lambda s: s.pipeline("foo")),
    "29-pipeline-label-no-executors-one-offline-agent": (0, lambda s: (s.node("z"), s.pipeline("foo"))),
    "30-matrix-label-axis": (1, lambda s: (s.node("z"), matrix(s, "mx", MX))),
    "31-matrix-label-expression-axis": (1, lambda s: (s.node("z"), matrix(s, "mx-expr", MX_EXPR))),
    "32-matrix-no-agents-at-all": (1, lambda s: matrix(s, "mx", MX)),
    "33-matrix-no-executors-at-all": (0, lambda s: matrix(s, "mx", MX)),
    "34-pipeline-label-only-a-zero-executor-node": (0, lambda s: (s.node("foo-z", "foo", executors=0), s.pipeline("foo"))),
    "35-label-two-nodes-both-busy": (1, q35),
    "36-label-one-node-busy-one-marked-offline": (1, q36),
    "37-label-both-nodes-marked-offline": (1, q37),
    "38-quieting-down": (1, q38),
}  # fmt: skip
ELSEWHERE = {"40-life-of-an-item", "50-language-of-why-on-a-german-controller"}


def test_every_recording_of_the_queue_is_compared():
    """A new recording must be added here."""
    recordings = {p.stem for p in (recorded.RECORDINGS / "queue").glob("*.json")}
    assert recordings == QUEUE.keys() | ELSEWHERE


@pytest.mark.parametrize("name", QUEUE)
async def test_the_queue_in_every_recorded_situation(name):
    """Whole, by tree, by item, and in other languages than English and German in English."""
    executors, arrange = QUEUE[name]
    async with staged(built_in=executors) as stage:
        exchanges = recorded.load(f"queue/{name}")["exchanges"]
        first = exchanges[0]["response"]["json"]["items"]
        arrange(stage)
        by_age = sorted(stage.sim.wanted, key=lambda item: item.id)
        ids = sorted(item["id"] for item in first)
        stage.sim.items = dict(zip(ids, by_age, strict=True))
        for number, item in stage.sim.items.items():
            item.id = number
        await replay(stage, f"queue/{name}")


async def test_the_life_of_an_item():
    """Waiting, left with its build, the same again, cancelled, unknown (queue/40)."""
    async with staged() as stage:
        stage.node("z")
        stage.sim._ids = itertools.count(70)

        def before(exchange):
            match exchange["note"]:
                case "waiting in the quiet period":
                    stage.wait(0.05)
                case "build done, item still known":
                    stage.wait(4.0)
                case "start a job nobody serves":
                    stage.submit("fs-nobody", "nobody-serves-this", quiet_s=0.0)
                    stage.sim.items[71].in_queue_since += 1

        # an item whose quiet period is over is never seen there: maintenance is immediate
        skip = {"left the queue, build runs: executable is set", "with tree"}
        await replay(stage, "queue/40-life-of-an-item", before=before, skip=skip)


async def test_the_language_of_a_german_controller():
    """Without Accept-Language its own, otherwise what was asked for (queue/50)."""
    async with staged(locale="de") as stage:
        for job, label, number in (("fs-nobody", "nobody-serves-this", 122), ("wf", "foo", 124)):
            stage.sim._ids = itertools.count(number)
            stage.submit(job, label)
        await replay(stage, "queue/50-language-of-why-on-a-german-controller")


# --- nodes ---------------------------------------------------------------------------------------


async def test_nodes_are_created_as_recorded():
    """Form, tunnel, WebSocket, the smallest JSON (nodes/01)."""
    async with staged() as stage:
        for exchange in recorded.load("nodes/01-create")["exchanges"]:
            if "Demand" in exchange["note"] or "agent-demand" in exchange["request"]["path"]:
                continue  # a strategy that disconnects idle agents is not simulated
            answer, text = await stage.repeat(exchange)
            check(exchange, answer, text, stage.server.url)
            if exchange["note"] == "its config.xml":
                told = re.sub(
                    r"<nodeProperties>.*</nodeProperties>",
                    "<nodeProperties/>",
                    exchange["response"]["body"],
                    flags=re.DOTALL,
                )
                for line in told.splitlines():
                    assert line.strip() in text


async def test_every_refusal_at_creation_and_all_that_is_taken_silently():
    """Names, executors, types, forms (nodes/02), and the list afterwards."""
    async with staged() as stage:
        for name in ("agent-1", "agent-demand", "agent-min", "agent-ws"):
            stage.node(name, "docker")
        await replay(stage, "nodes/02-create-errors")


SILENT = (
    "space in the name", "non-ASCII name", "name master", "name built-in", "zero executors",
    "negative executors", "executors not a number", "empty remote FS root",
    "relative remote FS root", "odd label string", "node with zero executors",
)  # fmt: skip
"""What the controller takes without a word; two names that differ in case only are not seen."""


@pytest.mark.parametrize("note", SILENT)
async def test_what_it_takes_silently_we_do_not_send(note):
    """The recorded request made the node; the same from us is refused before it leaves."""
    exchanges = [
        exchange
        for name in ("nodes/02-create-errors", "nodes/08-zero-executors")
        for exchange in recorded.load(name)["exchanges"]
        if exchange["note"].startswith(note)
    ]
    for exchange in exchanges:
        assert exchange["response"]["status"] == 302
        form = exchange["request"]["form"]
        told = form["json"]
        count = told["numExecutors"]
        wanted = node.NodeDefinition(
            name=form["name"],
            executors=int(count) if re.fullmatch(r"-?\d+", count) else count,
            remote_fs=told["remoteFS"],
            labels=told["labelString"].split(),
        )
        async with staged() as stage:
            credentials = jnlp_settings.Credentials(user=USER, secret=jnlp_secret.Secret(TOKEN))
            settings = recorded.settings(stage.server.url, credentials=credentials)
            async with http.ControllerSession(settings) as session:
                with pytest.raises(errors.BadRequest, match="node not sent"):
                    await client.NodeClient(session).create(wanted)
            assert (stage.sim.nodes, stage.server.requests) == ({}, [])
    assert exchanges


async def test_a_node_without_executors():
    """Not listed, not readable, not deletable, and its name is taken (nodes/08)."""
    async with staged() as stage:
        await replay(stage, "nodes/08-zero-executors")


def several(stage):
    more = {"description": "made over REST"}
    stage.node("idle-1", "idlelabel", "docker", online=True, remote_fs="/home/jenkins/idle-1", **more)  # fmt: skip
    stage.node("busy-1", "busylabel", "docker", online=True, executors=2, remote_fs="/home/jenkins/busy-1", **more)  # fmt: skip
    stage.node("gone-1", "gonelabel", seen=True, remote_fs="/home/jenkins/gone-1", **more)
    stage.node("marked-1", "markedlabel", online=True, remote_fs="/home/jenkins/marked-1", **more)
    stage.node("never-1", "neverlabel", **more)
    stage.sim.take_offline(stage.clock.now, "marked-1", "drain: replaced by new image", by="admin")
    stage.pipeline("busy-1", job="wf-busy")
    stage.submit("long-busy", "busy-1")
    stage.wait()


async def test_computers_in_every_state():
    """Idle, busy, gone, marked, never there, and the controller's own (nodes/05)."""
    async with staged() as stage:
        several(stage)
        await replay(stage, "nodes/05-computers")


@pytest.mark.parametrize("name", ["03-online-node", "04-node-after-agent-went-away"])
async def test_one_computer(name):
    """Online, and after its agent was stopped."""
    async with staged() as stage:
        online = name.startswith("03")
        stage.node("tcp-1", "tcplabel", online=online, seen=True, remote_fs="/home/jenkins/tcp-1", description="made over REST")  # fmt: skip
        await replay(stage, f"nodes/{name}")


async def test_operations_on_nodes():
    """Offline and back, config.xml with other labels, broken, with another name; delete."""
    async with staged() as stage:
        several(stage)
        await replay(stage, "nodes/06-operations")


async def test_deleting_a_node_that_works():
    """The freestyle build fails, the pipeline's holds on to what is left (nodes/07, nodes/09)."""
    async with staged() as stage:
        stage.node("busy-1", "busylabel", "docker", online=True, executors=2)
        stage.pipeline("busy-1", job="wf-busy")
        stage.submit("long-busy", "busy-1")
        stage.wait()
        fates = stage.sim.items
        await replay(stage, "nodes/07-delete-while-building")
        assert [item.fate.value for item in fates.values()] == ["open", "failed"]
        stage.wait(inventory.PIPELINE_WAITS_S)
        assert [item.fate.value for item in fates.values()] == ["failed", "failed"]
        with pytest.raises(simulation.SimulatedRefusal):
            stage.sim.computer("busy-1")


# --- who may ---------------------------------------------------------------------------------------


async def test_crumbs_tokens_and_strangers():
    """401 for the wrong, 403 for nobody, crumb and cookie for passwords (auth/01)."""
    crumbs = {}
    async with staged() as stage:
        for exchange in recorded.load("auth/01-crumb-token-errors")["exchanges"]:
            headers = exchange["request"]["headers"]
            then = headers.get("Jenkins-Crumb")
            if then in crumbs:  # the crumbs and cookies of the recording are ours by now
                headers["Jenkins-Crumb"], cookie = crumbs[then]
                if "Cookie" in headers:
                    headers["Cookie"] = cookie
            poor = "user without" in exchange["note"]
            user = re.match(r"Basic <([^:]+):", headers["Authorization"])[1] if poor else USER
            stage.server.access.user = user
            allow(stage, () if poor else access.ALL)
            answer, text = await stage.repeat(exchange)
            check(exchange, answer, text, stage.server.url)
            if answer.status == 200 and "crumbIssuer" in exchange["request"]["path"]:
                cookie = answer.headers["Set-Cookie"].split(";")[0]
                crumbs[exchange["response"]["json"]["crumb"]] = (json.loads(text)["crumb"], cookie)
    assert len(crumbs) == 2


def allow(stage, permissions):
    stage.server.access.permissions = frozenset(permissions)


async def test_the_smallest_permissions_of_each_call():
    """403 names the missing one, until it is granted (permissions/01)."""
    async with staged(user="broker") as stage:
        stage.node("perm-1", "permlabel", description="made over REST")
        stage.sim._ids = itertools.count(95)
        stage.submit("fs-cancel", "nobody")

        def before(exchange):
            allow(stage, exchange["granted_permissions"])

        lists = {"computers"}  # they hold what other recordings left behind
        exchanges = recorded.load("permissions/01-minimum-per-operation")["exchanges"]
        for exchange in exchanges:
            before(exchange)
            if UNCLAIMED_CALLS.search(exchange["request"]["path"]):
                continue
            answer, text = await stage.repeat(exchange)
            if exchange["note"] in lists and answer.status == 200:
                continue
            check(exchange, answer, text, stage.server.url)


async def test_what_the_queue_shows_to_whom():
    """Nothing without Job/Read, names with Job/Discover (permissions/02)."""
    async with staged(user="broker") as stage:
        stage.node("z")
        by_id = {89: ("fs-nobody", "nobody-serves-this", TaskKind.FREESTYLE, None)}
        by_id[92] = ("mx", "mx-linux", TaskKind.MATRIX, MX[0][0])
        by_id[93] = ("mx", "mx-win", TaskKind.MATRIX, MX[1][0])
        by_id[94] = ("wf-foo", "foo", TaskKind.PIPELINE, None)
        for number, (job, label, kind, cell) in by_id.items():
            stage.sim._ids = itertools.count(number)
            stage.submit(job, label, kind=kind, cell=cell)
        for exchange in recorded.load("permissions/02-queue-visibility")["exchanges"]:
            granted = exchange["note"].partition(" with ")[2].split(", ")
            allow(stage, granted)
            if exchange["note"].startswith("computers"):
                continue
            answer, text = await stage.repeat(exchange)
            if "Discover" in exchange["note"] and answer.status == 200:
                assert json.loads(text)["items"] == []
                names = [one["task"]["name"] for one in json.loads(text)["discoverableItems"]]
                assert names[1:] == ["PY=3.9,label=mx-win", "PY=3.9,label=mx-linux", "fs-nobody"]
                continue
            if "Discover" in exchange["note"]:
                exchange["response"]["body_main"] = ""  # the path of the job is shortened here
            check(exchange, answer, text, stage.server.url)


async def test_the_brokers_set_is_enough():
    """A whole life with the permissions that the manual asks for (permissions/03)."""
    async with staged(user="broker") as stage:
        allow(stage, ("Overall/Read", "Job/Read", "Agent/Create", "Agent/Connect", "Agent/Disconnect", "Agent/Delete"))  # fmt: skip
        exchanges = recorded.load("permissions/03-broker-set")["exchanges"]
        for exchange in exchanges:
            answer, text = await stage.repeat(exchange)
            if exchange["note"] not in {"queue", "computers"}:
                check(exchange, answer, text, stage.server.url)
            assert answer.status < 400


# --- agents and starts -----------------------------------------------------------------------------


async def test_what_agents_ask_before_they_connect():
    """Listener headers, agent.jar and its 304, wsagents (agent/02)."""
    seen = ""
    async with staged() as stage:
        for exchange in recorded.load("agent/02-listener-and-jar")["exchanges"]:
            if UNCLAIMED_CALLS.search(exchange["request"]["path"]):
                continue
            headers = exchange["request"].get("headers", {})
            if "If-Modified-Since" in headers:
                headers["If-Modified-Since"] = seen
            answer, text = await stage.repeat(exchange)
            check(exchange, answer, text, stage.server.url)
            if "tcpSlave" in exchange["request"]["path"]:
                assert answer.headers["X-Instance-Identity"]
            seen = answer.headers.get("Last-Modified", seen)


async def test_the_jnlp_file():
    """Secret first, name, then the settings; one name of it on old versions (agent/01)."""
    async with staged() as stage:
        fs = {"remote_fs": "/home/jenkins/agent"}
        stage.node("tcp-1", **fs)
        stage.node("ws-1", websocket=True, **fs)
        stage.node("tun-1", tunnel="localhost:50443", **fs)
        exchanges = recorded.load("agent/01-jnlp-files")["exchanges"]
        for exchange in exchanges:
            path = exchange["request"]["path"]
            if UNCLAIMED_CALLS.search(path) or re.search(r"tun-2|nowd-1", path):
                continue
            if path.endswith(("doCreateItem", "/computer/tcp-1/")):
                continue
            answer, text = await stage.repeat(exchange)
            check(exchange, answer, text, stage.server.url)
            if answer.content_type == "application/x-java-jnlp-file":
                then, now = (
                    re.findall("<argument>(.*?)</argument>", body)
                    for body in (exchange["response"]["body"], text)
                )
                same = [a.replace("http://localhost:8080/", "U") for a in then[1:]]
                tunnel = same.index("-tunnel") if "-tunnel" in same else None
                if tunnel is not None:
                    same[tunnel + 1] = "localhost:50443"
                assert sorted(same) == sorted(a.replace(stage.server.url, "U") for a in now[1:])
                assert re.fullmatch("[0-9a-f]{64}", now[0])


@pytest.mark.parametrize(("version", "status"), [(OLD, 404), ("2.277.1", 200), ("2.264", 200)])
async def test_the_new_name_of_the_jnlp_file(version, status):
    """``jenkins-agent.jnlp`` came with 2.264; the old name stays."""
    async with staged() as stage:
        stage.sim.version = version
        stage.node("n")
        for name, expected in (("slave-agent", 200), ("jenkins-agent", status)):
            request = {"method": "GET", "path": f"/computer/n/{name}.jnlp"}
            request["headers"] = {"Authorization": "Basic <admin:api-token>"}
            answer, _ = await stage.repeat({"note": "", "request": request})
            assert answer.status == expected


async def test_every_path_while_it_starts():
    """503 and a page; without X-Jenkins on a GET (controller/02)."""
    async with staged() as stage:
        stage.sim.restart(stage.clock.now, down_s=10.0)
        await replay(stage, "controller/02-starting-up")


async def test_a_restart():
    """Another session, the same items in their order on disk, all agents away (controller/01)."""
    async with staged() as stage:
        for name in ("nr-tcp", "nr-ws", "tcp-1", "ws-1"):
            stage.node(name, online=True)
        stage.node("tun-1")
        stage.sim._ids = itertools.count(78)
        stage.submit("fs-nobody", "nobody-serves-this")
        stage.sim._ids = itertools.count(80)
        stage.pipeline("foo")
        sessions = {}

        def before(exchange):
            if exchange["note"] == "queue right after the restart":
                stage.sim.restart(stage.clock.now, down_s=5.0)
                stage.wait(6.0)
            if exchange["note"] == "computers after the agents came back":
                stage.sim.connect(stage.clock.now, "tcp-1")

        for exchange in recorded.load("controller/01-restart")["exchanges"]:
            before(exchange)
            answer, text = await stage.repeat(exchange)
            check(exchange, answer, text, stage.server.url)
            then = exchange["response"]["headers"]["X-Jenkins-Session"]
            sessions.setdefault(then, set()).add(answer.headers["X-Jenkins-Session"])
        assert [len(now) for now in sessions.values()] == [1, 1]
        assert len(set.union(*sessions.values())) == 2
