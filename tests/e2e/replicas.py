"""Two brokers of one owner over one fake cluster and one simulated controller.

Agents are pods of the fake cluster: when its kubelet says that one runs, the agent connects. Each
broker reaches the API server by a line of its own that a test can cut.
"""

import asyncio
import collections
import contextlib
import json
import re
import urllib.request

from attrs import define, field

from backends.kubernetes.pods import pod
from tests import patience
from tests.e2e import stage
from tests.kubernetes import fake

LEASE = f"agent-broker-{stage.OWNER}"
QUICK = "busy: 250ms, idle: 1s"
SHORT = "lease: 3s, renew_deadline: 1800ms, retry: 300ms"

CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:TOKEN", timeout: 2s}}
poll: {{{poll}}}
state_dir: {state}
listen: {listen}
log: {{format: console}}
high_availability: {{{lease}, {terms}}}
backends:
  cluster: {{kind: kubernetes, namespace: agents, server: "{server}"}}
defaults:
  image: agent
  connect_deadline: 5s
templates:
  single:
    labels: single
    retention: {{once: true, idle: 1s}}
  pool:
    labels: pool
    retention: {{idle: 1h}}
advanced:
  resume_grace: 500ms
  orphan_grace: 1s
  backoff_base: 500ms
  backoff_max: 2s
"""


class Cluster(fake.Cluster):
    """Pods are agents of a stage's controller. Notes when pods outnumber what waited for them."""

    def __init__(self, made):
        super().__init__()
        self.made = made
        self.made_pods = []
        self.excess = []
        self.waited = collections.deque()

    def look(self):
        """Note what waits just now, and forget what waited long ago."""
        now = self.made.watch.now()
        waiting = collections.Counter(i.label for i in self.made.open if i.started_at is None)
        self.waited.append((now, waiting))
        while self.waited[0][0] < now - 2.0:
            self.waited.popleft()

    def put(self, told, kind="MODIFIED"):
        super().put(told, kind)
        name = told["metadata"].get("annotations", {}).get(pod.NAME)
        sim, now = self.made.sim, self.made.watch.now()
        phase = told["status"]["phase"]
        if kind == "ADDED":
            self.look()
            self.made_pods.append(name)
            self._judge(name)
        elif name in sim.nodes and phase == "Running" and not sim.nodes[name].connected:
            sim.connect(now, name)
        elif name in sim.nodes and (kind == "DELETED" or phase in {"Failed", "Succeeded"}):
            sim.disconnect(now, name)

    def _judge(self, name):
        """Agents that are there and have no work must never outnumber what waited of late."""
        label = name.split("-")[1]
        nodes = self.made.sim.nodes
        free = [
            agent
            for told in self.pods.values()
            if "deletionTimestamp" not in told["metadata"]
            and (agent := told["metadata"]["annotations"][pod.NAME]).split("-")[1] == label
            and agent in nodes  # made before the pod, deleted before it
            and nodes[agent].idle
            and nodes[agent].offline_message is None
        ]
        most = max(waiting[label] for _, waiting in self.waited)
        if len(free) > most:
            self.excess.append((self.made.watch.now(), name, free, most))


@define
class Line:
    """A broker's connection to the API server; cut, nothing goes through, and nobody is told."""

    target: str
    cut: asyncio.Event = field(factory=asyncio.Event)
    url: str = ""
    _tasks: set = field(factory=set)

    @contextlib.asynccontextmanager
    async def open(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        with contextlib.suppress(asyncio.CancelledError):  # the server asks what became of it
            await self._join(reader, writer)

    async def _join(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        host, port = re.fullmatch(r"http://(.*):(\d+)", self.target).groups()
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, far_writer))
                group.create_task(self._pass(far_reader, writer))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for one in (writer, far_writer):
                one.close()
            self._tasks.discard(asyncio.current_task())

    async def _pass(self, reader, writer):
        while data := await reader.read(65536):
            if self.cut.is_set():
                await asyncio.Event().wait()
            writer.write(data)
            await writer.drain()
        writer.close()


class Replicas:
    """The stage, the cluster, and brokers by name."""

    def __init__(self, folder, *, terms=SHORT, poll=QUICK, lease=None):
        """``lease``: where it is, if not on the fake cluster, as it is written in a file."""
        self.made = stage.Stage(folder, templates="")
        self.folder, self.terms, self.poll, self.lease = folder, terms, poll, lease
        self.cluster = Cluster(self.made)
        self.lines = {}
        self.brokers = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        await self._stack.__aenter__()
        await self._stack.enter_async_context(self.cluster.serving())
        await self._stack.enter_async_context(self.made)
        return self

    async def __aexit__(self, *raised):
        await self._stack.__aexit__(*raised)

    async def start(self, name):
        """Start a broker, or start it again; its state directory and its line are its own."""
        if name not in self.lines:
            line = Line(self.cluster.url)
            self.lines[name] = await self._stack.enter_async_context(line.open())
        config = self.folder / f"{name}.yaml"
        server = self.lines[name].url
        config.write_text(
            CONFIG.format(
                owner=stage.OWNER,
                url=self.made.server.url,
                state=self.folder / f"state-{name}",
                listen="127.0.0.1:0",
                server=server,
                poll=self.poll,
                lease=self.lease or f'namespace: agents, server: "{server}"',
                terms=f"identity: {name}, {self.terms}",
            )
        )
        self.brokers[name] = await self.made.start(config=config)
        return self.brokers[name]

    @property
    def holder(self):
        """Which broker's name stands in the lease."""
        told = self.cluster.leases.get(LEASE, {}).get("spec", {})
        return told.get("holderIdentity", "").partition("_")[0]

    async def until_leads(self, name, *, within_s=30.0):
        await self.made.until(lambda: self.holder == name, f"{name} leads", within_s=within_s)

    def said(self, name):
        return self.brokers[name].said.read_text()

    async def until_said(self, name, words, *, within_s=20.0):
        await self.made.until(
            lambda: words in self.said(name), f"{name} says {words!r}", within_s=within_s
        )

    async def page(self, name, path):
        """Return what a broker's status page answers, status and text."""
        found = re.search(r"http://127\.0\.0\.1:\d+/", self.said(name))

        def ask():
            try:
                with urllib.request.urlopen(
                    found[0] + path, timeout=patience.seconds(5)
                ) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await asyncio.to_thread(ask)

    async def until_ready(self, name, *, within_s=20.0):
        """Wait until a broker that was out of touch has seen everything again."""
        async with patience.limit(within_s):
            while (await self.page(name, "readyz"))[0] != 200:
                await asyncio.sleep(0.05)

    async def document(self, name):
        return json.loads((await self.page(name, "api/v1/plan"))[1])

    def describe(self):
        """Everything that both have said, for who reads a failure."""
        return "\n".join(p.said.read_text() for p in self.made.brokers)

    async def feed(self, dice):
        """Submit a build now and then, for as long as it is awaited."""
        while True:
            self.made.submit(dice.choice(("single", "pool")), dice.uniform(0.1, 1.0))
            until = self.made.watch.now() + dice.uniform(0.2, 1.0)
            while self.made.watch.now() < until:
                self.cluster.look()
                await asyncio.sleep(0.05)
