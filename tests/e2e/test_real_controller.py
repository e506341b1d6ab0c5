"""The broker on a real controller with real agents: ``--live jenkins=http://USER:TOKEN@HOST:PORT/``.

The user is an administrator: the tests make jobs, and remove them. The broker runs as a program
with the process backend, so a Java stands on this machine and the controller's agent port and its
WebSocket end point are open to it. Without the option they are skipped.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys

import aiohttp
import pytest
import yarl

from tests import patience

CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: "{user}", token: "env:TOKEN"}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {folder}/state
listen: "off"
templates:
  kept: {{labels: "{owner}-kept", jvm_options: [-Xmx128m]}}
  single: {{labels: "{owner}-single", cap: 1, retention: {{once: true}}}}
  websocket: {{labels: "{owner}-websocket", connect: {{mode: websocket}}}}
"""

TUNNEL = """\
  tunnel: {{labels: "{owner}-tunnel", connect: {{tunnel: "{tunnel}"}}}}
"""

JOB = """<project><keepDependencies>false</keepDependencies><scm class="hudson.scm.NullSCM"/>
<assignedNode>{label}</assignedNode><canRoam>false</canRoam>
<builders><hudson.tasks.Shell><command>{command}</command></hudson.tasks.Shell></builders>
</project>"""

pytestmark = pytest.mark.enable_socket  # a real controller is rarely on the loopback


def pytest_generate_tests(metafunc):
    """One test per ``--live jenkins=URL``."""
    wishes = [wish.partition("=") for wish in metafunc.config.getoption("live")]
    urls = [url for kind, _, url in wishes if kind == "jenkins"]
    skipped = pytest.param("", id="none", marks=pytest.mark.skip("needs --live jenkins=URL"))
    params = [pytest.param(url, id=yarl.URL(url).host) for url in urls]
    metafunc.parametrize("address", params or [skipped])


class Forwarder:
    """A port of this machine from which everything goes to another one, as a mapped port does."""

    def __init__(self, host, port, at="127.0.0.1"):
        self.there, self.at = (host, port), at
        self.lines = []  # both ends of each connection
        self.carried = 0  # bytes

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, self.at, 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *raised):
        self.server.close()
        self.cut()

    def cut(self):
        for writer in self.lines:
            writer.transport.abort()
        self.lines.clear()

    async def _serve(self, reader, writer):
        there, back = await asyncio.open_connection(*self.there)
        self.lines += [writer, back]
        await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                self.carried += len(piece)
                writer.write(piece)
                await writer.drain()
        writer.close()


class Controller:
    """A real controller, with jobs of one owner, and the brokers that work for them."""

    def __init__(self, address, folder):
        address = yarl.URL(address)
        self.url, self.user, self.token = address.with_user(None), address.user, address.password
        self.owner = f"t{secrets.token_hex(3)}"
        self.folder = folder
        self.config = folder / "broker.yaml"
        self.config.write_text(
            CONFIG.format(owner=self.owner, url=self.url, user=self.user, folder=folder)
        )
        self.jobs, self.brokers = [], []

    async def __aenter__(self):
        login = aiohttp.encode_basic_auth(self.user, self.token)
        self.http = aiohttp.ClientSession(self.url, headers={"Authorization": login})
        return self

    async def __aexit__(self, *raised):
        async with self.http:
            for job in self.jobs:
                await self.post(f"job/{job}/doDelete")  # ends its builds, too
            for broker in self.brokers:
                with contextlib.suppress(ProcessLookupError):
                    broker.terminate()
                try:
                    await patience.wait_for(broker.wait(), 30)
                except TimeoutError:
                    broker.kill()
                    await broker.wait()
            for node in await self.nodes():
                await self.post(f"computer/{node}/doDelete")

    async def get(self, path, tree):
        async with self.http.get(f"{path}api/json", params={"tree": tree}) as answer:
            return await answer.json() if answer.ok else None

    async def post(self, path, data=None, **more):
        async with self.http.post(path, data=data, allow_redirects=False, **more) as answer:
            assert answer.status < 400, await answer.text()

    async def agent_port(self):
        """Return host and port for agents, as the controller announces them."""
        async with self.http.get("tcpSlaveAgentListener/") as answer:
            return self.url.host, int(answer.headers["X-Jenkins-JNLP-Port"])

    async def nodes(self):
        """Names of our nodes, the placeholder too."""
        found = await self.get("computer/", "computer[displayName]")
        names = [computer["displayName"] for computer in found["computer"]]
        return [name for name in names if name.startswith(f"{self.owner}-")]

    async def job(self, label, command="true"):
        name = f"{self.owner}-{len(self.jobs)}"
        xml = {"Content-Type": "application/xml"}
        await self.post(
            f"createItem?name={name}", JOB.format(label=label, command=command), headers=xml
        )
        self.jobs.append(name)
        return name

    async def submit(self, job):
        await self.post(f"job/{job}/build?delay=0sec")

    async def builds(self, job):
        """Return result and node of each build, the last one first."""
        found = await self.get(f"job/{job}/", "builds[result,builtOn]")
        return [(build["result"], build["builtOn"]) for build in found["builds"]]

    async def start(self):
        with (self.folder / "broker.log").open("ab") as log:
            command = (sys.executable, "-m", "broker", "run", "--drain", "--config", self.config)
            environ = {**os.environ, "TOKEN": self.token}
            broker = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, env=environ
            )
        self.brokers.append(broker)
        return broker

    async def until(self, fits, what, *, within_s=40.0):
        """Wait for what an asynchronous question answers; return it."""
        patient = patience.Patience(within_s)
        while not (answer := await fits()):
            if patient.is_over():
                log = (self.folder / "broker.log").read_text()[-6000:]
                raise AssertionError(f"not within {within_s} s: {what}\n{log}")
            await asyncio.sleep(0.1)
        return answer

    async def ended(self, job, number=1):
        """Wait for the end of a job's build; return its result and its node."""

        async def looked():
            builds = await self.builds(job)
            return len(builds) >= number and builds[-number][0] and builds[-number]

        return await self.until(looked, f"build {number} of {job} has ended")


async def test_builds_run_and_nothing_is_left(address, tmp_path):
    """TCP, WebSocket, single use, reuse, kill -9 with builds waiting, and a drained end."""
    async with Controller(address, tmp_path) as real:
        names = ("kept", "single", "websocket")
        jobs = {name: await real.job(f"{real.owner}-{name}") for name in names}
        broker = await real.start()
        for job in jobs.values():
            await real.submit(job)
        first = {name: await real.ended(job) for name, job in jobs.items()}
        assert {"SUCCESS"} == {result for result, _ in first.values()}

        await real.submit(jobs["kept"])
        await real.submit(jobs["single"])
        broker.kill()
        await broker.wait()
        broker = await real.start()
        assert first["kept"] == await real.ended(jobs["kept"], 2)
        result, node = await real.ended(jobs["single"], 2)
        assert result == "SUCCESS"
        assert node != first["single"][1]

        broker.send_signal(signal.SIGTERM)
        assert await patience.wait_for(broker.wait(), 30) == 0
        assert await real.nodes() == []


async def test_a_tunnel_leads_agents_through_a_mapped_port(address, tmp_path):
    """All that they say goes that way; where it is cut, they come back by it, and work on."""
    async with Controller(address, tmp_path) as real:
        async with Forwarder(*await real.agent_port()) as gate:
            with real.config.open("a") as file:
                file.write(TUNNEL.format(owner=real.owner, tunnel=f"127.0.0.1:{gate.port}"))
            job = await real.job(f"{real.owner}-tunnel", "head -c 300000 /dev/zero | tr '\\0' x")
            broker = await real.start()
            await real.submit(job)
            result, _ = await real.ended(job)
            assert result == "SUCCESS"
            assert gate.carried > 300_000

            gate.cut()
            await real.submit(job)
            assert (await real.ended(job, 2))[0] == "SUCCESS"
            assert gate.lines
            broker.send_signal(signal.SIGTERM)
            assert await patience.wait_for(broker.wait(), 30) == 0
            assert await real.nodes() == []


async def test_an_agent_out_of_service_is_given_nothing_that_names_it(address, tmp_path):
    """Its build goes on to the end; an item that it fits by its name goes to a fresh agent."""
    async with Controller(address, tmp_path) as real:
        job = await real.job(f"{real.owner}-single", "sleep 8")
        await real.start()
        await real.submit(job)

        async def working():
            builds = await real.builds(job)
            return builds and builds[0][1]

        node = await real.until(working, "its build runs")

        async def out_of_service():
            tree = "temporarilyOffline,assignedLabels[name]"
            seen = await real.get(f"computer/{node}/", tree)
            labels = {label["name"] for label in seen["assignedLabels"]}
            return seen["temporarilyOffline"] or f"{real.owner}-single" not in labels

        await real.until(out_of_service, "it is out of service")
        other = await real.job(f"{node}||{real.owner}-single")
        await real.submit(other)

        assert await real.ended(job) == ("SUCCESS", node)
        result, fresh = await real.ended(other)
        assert result == "SUCCESS"
        assert fresh != node


async def test_an_agent_that_accepts_no_tasks_is_replaced(address, tmp_path):
    """It fills the template's cap, and no key of ``computer/api/json`` shows what is the matter."""
    async with Controller(address, tmp_path) as real:
        text = real.config.read_text()
        real.config.write_text(text.replace('-kept"', '-kept", cap: 1'))
        job = await real.job(f"{real.owner}-kept")
        await real.start()
        await real.submit(job)
        result, node = await real.ended(job)
        assert result == "SUCCESS"
        script = f"jenkins.model.Jenkins.get().getComputer('{node}').setAcceptingTasks(false)"
        await real.post("scriptText", data={"script": script})
        await real.submit(job)
        result, fresh = await real.ended(job, 2)
        assert result == "SUCCESS"
        assert fresh != node
        assert node not in await real.nodes()


async def test_an_agent_that_a_person_took_out_of_service_is_left_alone(address, tmp_path):
    """Also after its build, and for single use: whoever holds it wants to look at it."""
    async with Controller(address, tmp_path) as real:
        job = await real.job(f"{real.owner}-kept", "sleep 4")
        await real.start()
        await real.submit(job)

        async def working():
            builds = await real.builds(job)
            return builds and builds[0][1]

        node = await real.until(working, "its build runs")
        await real.post(f"computer/{node}/changeOfflineCause", {"offlineMessage": "mine"})
        assert await real.ended(job) == ("SUCCESS", node)
        await real.submit(job)
        result, fresh = await real.ended(job, 2)
        assert (result, fresh != node) == ("SUCCESS", True)
        seen = await real.get(f"computer/{node}/", "offlineCauseReason")
        assert seen["offlineCauseReason"] == "mine"
        await real.post(
            f"computer/{node}/toggleOffline", {"offlineMessage": ""}
        )  # or no drain ends
