"""Commands that read, beside a broker at work: on every backend everything stays as it is.

A real broker, as a program, on each platform (fakes on the wire, a real engine where there is one);
then each command once. Before and after each the state directory, the platform,
the controller and what they were asked are compared; in the end the broker serves another build.
"""

import asyncio
import contextlib
import io
import json
import os
import pathlib
import re
import stat
import sys
import time

import pytest

from broker.cli import main as cli
from broker.core.fleet import marks
from broker.demo import image
from broker.simulator import inventory
from tests import patience
from tests.contract import swarm as managed_swarm
from tests.docker import engines
from tests.e2e import stage as stages
from tests.kubernetes import fake
from tests.mesos import agent as mesos_agent
from tests.mesos import master, wire

OWNER = stages.OWNER
CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:TOKEN", timeout: 5s}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: {listen}
log: {{format: console}}
backends:
  it: {{{backend}}}
templates:
  t:
    labels: t
    connect_deadline: 60s
    retention: {{idle: 10m, max_builds: 2}}
{template}
"""
READING = (
    ("plan",),
    ("plan", "--json"),
    ("doctor",),
    ("doctor", "--read-only", "--json"),
    ("sweep",),
    ("sweep", "--all", "--json"),
    ("status",),
    ("explain", "t"),
    ("render", "t"),
    ("check-config",),
)
WITHOUT_SECRET = ("status", "explain", "render")
ASKING = ("plan", "sweep")
WITHIN_S = 60.0


class Platform:
    """One backend's platform: how it is configured, what is there, and what changed it."""

    def __init__(self, stage):
        self.stage = stage
        self.backend = ""
        self.template = f'    command: ["{sys.executable}", "-S", "{stages.AGENT}"]'

    def there(self):
        """Return all that a reading command must leave as it is."""
        return None

    def changes(self):
        """Return what was asked for that changes something, since the start."""
        return None

    def connects(self):
        """Return the nodes whose agent the test itself plays."""
        return ()


class Memory(Platform):
    """Its agents live inside the broker: what connects is played here."""

    def __init__(self, stage):
        super().__init__(stage)
        self.backend = "kind: memory"

    def connects(self):
        return self.stage.agents


class Process(Platform):
    def __init__(self, stage):
        super().__init__(stage)
        self.backend = f"kind: process, directory: {stage.instances}"

    def there(self):
        return tree(self.stage.instances), sorted(self.stage.processes())


class Kubernetes(Platform):
    """The fake API server; its kubelet runs nothing, so agents are played here."""

    def __init__(self, stage, cluster):
        super().__init__(stage)
        self.cluster = cluster
        self.backend = f'kind: kubernetes, namespace: agents, server: "{cluster.url}"'
        self.template = "    image: jenkins/inbound-agent"

    def there(self):
        return json.dumps([self.cluster.pods, self.cluster.secrets, self.cluster.leases])

    def changes(self):
        reads = ("get", "list", "watch")
        return [
            (verb, path)
            for verb, path in self.cluster.requests
            if not verb.startswith(reads)
            and "dryRun=All" not in path
            and not path.endswith("/selfsubjectaccessreviews")
        ]

    def connects(self):
        names = {marks.placeholder_name(OWNER)}
        running = json.dumps(
            [p for p in self.cluster.pods.values() if p["status"]["phase"] == "Running"]
        )
        return {name for name in self.stage.agents - names if name in running}


class Mesos(Platform):
    def __init__(self, stage, served):
        super().__init__(stage)
        self.served = served
        work = stage.folder / "work"
        self.backend = f'kind: mesos, master: "{served.base}", user: nobody, work_root: {work}'
        self.backend += ", handover: {listen: '127.0.0.1:0', url: 'http://127.0.0.1:0'}"
        self.template += "\n    mesos: {default_cpus: 0.1, default_memory: 64Mi}"

    def there(self):
        machine = self.served.machine
        return (
            [(f.id, f.stream_id, f.stream is not None) for f in machine.frameworks.values()],
            sorted((task.name, task.state) for task in machine.tasks.values()),
        )

    def changes(self):
        return dict(self.served.machine.calls)


class Docker(Platform):
    def __init__(self, stage, url):
        super().__init__(stage)
        self.client = engines.connected(url)
        self.prefix = f"beside{os.urandom(3).hex()}-"
        self.backend = f'kind: docker, name_prefix: {self.prefix}, hosts: [{{url: "{url}"}}]'
        self.template = (
            f'    command: ["{image.AGENT}"]\n    image: {image.NAME}\n'
            "    docker: {network: host, pull: never}"
        )
        self.began = time.time()

    def there(self):
        kept = ("Id", "Names", "State", "Image", "Created", "Mounts")
        ours = [
            {key: one.get(key) for key in kept}
            for one in self.client.containers(all=True)
            if one["Names"][0].startswith(f"/{self.prefix}")
        ]
        # the engine is everybody's: of images and volumes only what is ours by name or label
        images = sorted(one["Id"] for one in self.client.images(image.NAME))
        volumes = sorted(
            one["Name"]
            for one in self.client.volumes()["Volumes"] or ()
            if one["Name"].startswith(self.prefix) or OWNER in (one["Labels"] or {}).values()
        )
        return ours, images, volumes

    def changes(self):
        """Every event of our containers; none comes of a command that reads."""
        told = self.client.events(
            since=self.began, until=time.time(), decode=True, filters={"type": ["container"]}
        )
        return [
            (one["Action"], one["Actor"]["ID"])
            for one in told
            if one["Actor"]["Attributes"].get("name", "").startswith(self.prefix)
        ]


class Swarm(Platform):
    """A real swarm of one node; services and secrets of others are there beside ours."""

    def __init__(self, stage, url):
        super().__init__(stage)
        self.client = engines.connected(url)
        self.prefix = f"beside{os.urandom(3).hex()}-"
        self.backend = f'kind: swarm, name_prefix: {self.prefix}, managers: [{{url: "{url}"}}]'
        self.template = (
            f'    command: ["{image.AGENT}"]\n    image: {image.NAME}\n'
            "    swarm: {networks: [host], resolve: id, grace: 1s}"
        )

    def services(self):
        """Return all of ours, by id; a version counts every change."""
        return {
            one["ID"]: one["Version"]["Index"]
            for one in self.client.services()
            if one["Spec"]["Name"].startswith(self.prefix)
        }

    def there(self):
        services = self.services()
        tasks = sorted(
            (one["ID"], one["DesiredState"], one["Status"]["State"])
            for one in self.client.tasks()
            if one["ServiceID"] in services
        )
        secrets = sorted(
            (one["ID"], one["Version"]["Index"])
            for one in self.client.secrets()
            if one["Spec"]["Name"].startswith(self.prefix)
        )
        return services, tasks, secrets

    def clear(self):
        """Remove what is left; secrets go once their service has."""
        for one in self.services():
            self.client.remove_service(one)
        for one in self.client.secrets():
            if one["Spec"]["Name"].startswith(self.prefix):
                self.client.remove_secret(one["ID"])
        self.client.close()


@contextlib.asynccontextmanager
async def platform(kind, stage):
    match kind:
        case "memory":
            yield Memory(stage)
        case "process":
            yield Process(stage)
        case "kubernetes":
            async with fake.Cluster(namespaces_readable=True).serving() as cluster:
                yield Kubernetes(stage, cluster)
        case "mesos":
            machine = master.Master(agents=1)
            launcher = mesos_agent.Launcher(machine, stage.instances / "mesos")
            machine.launcher = launcher
            served = wire.Wire(machine)
            async with served.serving():
                try:
                    yield Mesos(stage, served)
                finally:
                    await launcher.aclose()
        case "docker":
            made = Docker(stage, await engines.with_image(engines.address()))
            try:
                yield made
            finally:
                for one in made.client.containers(all=True):
                    if one["Names"][0].startswith(f"/{made.prefix}"):
                        made.client.remove_container(one["Id"], force=True)
                made.client.close()
        case "swarm":
            url = await engines.with_image(engines.address())
            await asyncio.to_thread(managed_swarm.managed, url)
            there = Swarm(stage, url)
            try:
                yield there
            finally:
                await asyncio.to_thread(there.clear)


def tree(folder):
    """Return every file below a folder: kind, mode, size, times and content."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        told = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(told.st_mode) else b""
        if path.name == "agent.log" or "output" in path.name:  # the agent may write at any time
            found[str(path)] = oct(told.st_mode)
            continue
        found[str(path)] = (oct(told.st_mode), told.st_size, told.st_mtime_ns, content)
    return found


def controller_of(stage):
    """Return what the controller has, and every request that was to change it."""
    nodes = {
        name: (node.offline_message, node.connected, node.description, sorted(node.labels))
        for name, node in stage.sim.nodes.items()
    }
    return nodes, [one for one in stage.server.requests if one[0] not in {"GET", "HEAD"}]


async def everything(stage, it):
    return {
        "state_dir": tree(stage.state),
        "controller": controller_of(stage),
        "platform": await asyncio.to_thread(it.there),
        "changes": await asyncio.to_thread(it.changes),
    }


async def command(stage, monkeypatch, *arguments, secret=True):
    """Run one command, here in a thread; return its exit code and what it said."""
    monkeypatch.delenv("TOKEN", raising=False)
    if secret:
        monkeypatch.setenv("TOKEN", stages.TOKEN)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        told = [*arguments, "--config", str(stage.config)]
        code = await patience.wait_for(asyncio.to_thread(cli.main, told), WITHIN_S)
    return code, out.getvalue(), err.getvalue()


def write_config(stage, it, *, listen):
    stage.config.write_text(
        CONFIG.format(
            owner=OWNER,
            url=stage.server.url,
            state=stage.state,
            listen=listen,
            backend=it.backend,
            template=it.template,
        )
    )


@contextlib.asynccontextmanager
async def at_work(kind, folder, *, listen="127.0.0.1:0"):
    """Yield a stage, a platform and a broker that has served a build and is at rest."""
    async with stages.Stage(folder) as stage, platform(kind, stage) as it:
        write_config(stage, it, listen=listen)
        playing = asyncio.create_task(play(stage, it), name="agents that are played")
        try:
            process = await stage.start()
            stage.submit("t")
            await stage.until_served(within_s=WITHIN_S)
            await at_rest(stage, it)
            yield stage, it, process
            await stage.stop(process)
        finally:
            playing.cancel()


async def play(stage, it):
    while True:
        for name in set(it.connects()):
            with contextlib.suppress(inventory.SimulatedRefusal):
                if not stage.sim.nodes[name].connected:
                    stage.sim.connect(stage.watch.now(), name)
        await asyncio.sleep(0.05)


async def at_rest(stage, it):
    """Wait until nothing changes any more of what is going to be compared."""
    before, since, patient = (
        await everything(stage, it),
        time.monotonic(),
        patience.Patience(WITHIN_S),
    )
    while time.monotonic() - since < 2.5:
        await asyncio.sleep(0.25)
        now = await everything(stage, it)
        if now != before:
            before, since = now, time.monotonic()
        assert not patient.is_over(), stage.describe()


KINDS = ("memory", "process", "kubernetes", "mesos", "docker", "swarm")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", ["on", pytest.param("off", marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", KINDS)
async def test_commands_that_read_leave_everything_as_it_is(kind, page, tmp_path, monkeypatch):
    """With the broker's page to ask, and without; and the broker goes on as if nothing was."""
    listen = "127.0.0.1:0" if page == "on" else "off"
    async with at_work(kind, tmp_path, listen=listen) as (stage, it, process):
        before = await everything(stage, it)
        for arguments in READING:
            if arguments[0] == "status" and page == "off":
                continue
            code, out, err = await command(
                stage, monkeypatch, *arguments, secret=arguments[0] not in WITHOUT_SECRET
            )
            after = await everything(stage, it)
            assert {key: before[key] == after[key] for key in before} == dict.fromkeys(
                before, True
            ), (arguments, before, after)
            assert "Traceback" not in err, err
            good = {0}
            if arguments[0] == "sweep":
                good = {0, 3}  # with --all the idle agent would go
            if arguments[0] == "render" and kind in {"memory", "process"}:
                good = {2}  # nothing to show
            if arguments[0] == "doctor":
                good = {0, 1}  # the simulated controller has no agent port, the fake few pages
            assert code in good, (arguments, out, err)
            if arguments[0] in ASKING:
                assert ("asked the broker that works here" in err) == (page == "on"), err
        assert process.returncode is None, stage.describe()
        stage.submit("t")
        stage.submit("t")
        await stage.until_served(within_s=WITHIN_S)
        said = process.said.read_text()
        assert "taken over" not in said, said
        assert not re.search(r"Traceback", said), said


@pytest.mark.timeout(120)
async def test_a_sweep_that_removes_is_refused_beside_a_broker(tmp_path, monkeypatch):
    """It sweeps by itself; two at once would take each other's steps for a stranger's."""
    async with at_work("process", tmp_path) as (stage, it, _):
        before = await everything(stage, it)
        for more in ((), ("--all",)):
            code, out, err = await command(stage, monkeypatch, "sweep", "--yes", *more)
            assert (code, out) == (3, "")
            assert "sweeps by itself" in err
        assert before == await everything(stage, it)
