"""A Jenkinsfile names its image, on a real controller: ``--live jenkins=http://USER:TOKEN@HOST:PORT/``.

The user is an administrator. Each platform takes part if it is named as well, and nothing stands
in for the controller or for the broker, which runs as a program:

* ``--live docker=unix:///run/docker.sock``: a real engine on this machine, with the images
  ``lab/go:1.21`` and ``lab/go:1.22`` (busybox and ``/etc/image`` are enough, no Java), and the
  archive of a Java in ``AGENT_RUNTIME`` (``agent-broker runtime build``).
* ``--live swarm=unix:///run/docker.sock``: the same, of an engine that manages a swarm; the image
  of that Java is in ``AGENT_RUNTIME_IMAGE`` (``runtime build --image``), on the engine.
* ``--live kubernetes=https://HOST:PORT``: a real API server, ``KUBERNETES_TOKEN`` a file with an
  administrator's token, ``KUBERNETES_CA`` its authority; no kubelet: the one here takes the pods
  and runs the agent's container as a process of this machine.
* ``--live mesos=here``: the fake master, whose agents really run the command as a process.

What the builds were given and how long they took is printed, as a row of ``docs/performance.md``.
"""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import ssl
import sys
import time
from xml.sax import saxutils

import aiohttp
import pytest
import yarl

from tests import patience
from tests.mesos import agent, master, wire

pytestmark = [pytest.mark.enable_socket, pytest.mark.timeout(400)]

PLATFORMS = ("docker", "swarm", "kubernetes", "mesos")
NAMESPACE = "agent-broker-parameters"
BACKENDS = {
    "docker": "{{kind: docker, hosts: [{{url: '{address}'}}], runtimes: {{default: {{tar: '{runtime}'}}}}}}",
    "swarm": (
        "{{kind: swarm, managers: [{{url: '{address}'}}], "
        "runtimes: {{default: {{image: '{runtime_image}', resolve: id}}}}}}"
    ),
    "kubernetes": (
        "{{kind: kubernetes, namespace: " + NAMESPACE + ", server: '{address}', token_file: "
        "'{token}', ca_file: '{ca}', pods: {{maven: {{spec: {{containers: [{{name: maven, image: "
        "'maven:3'}}]}}}}, golang: {{spec: {{containers: [{{name: golang, image: 'golang:1'}}]}}}}}}}}"
    ),
    "mesos": "{{kind: mesos, master: '{address}', name: broker}}",
}
SECTIONS = {
    "docker": "inject: true\n    docker: {network: host, user: '1000'}",
    "swarm": (
        "inject: true\n    remote_fs: /work\n    swarm: {networks: [host], resolve: id, grace: 1s, "
        "volumes: [{target: /work, tmpfs: 4Gi}]}"
    ),
    "kubernetes": "kubernetes: {fs_group: 1000}",
    "mesos": "remote_fs: '{folder}/work/{{name}}'\n    mesos: {{secrets: environment}}",
}
MORE = """
      maven: {stands_for: "maven:{value}", allow: ["3.*"], container: maven, inherits: [maven]}
      golang: {stands_for: "golang:{value}", allow: ["1.*"], container: golang, inherits: [golang]}"""
CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: "{user}", token: "env:TOKEN"}}
poll: {{busy: 500ms, idle: 1s}}
state_dir: {folder}/state
listen: "127.0.0.1:{port}"
backends:
  {platform}: {backend}
templates:
  box:
    labels: {owner}
    image: lab/go:1.21
    cap: 4
    jvm_options: [-Xmx96m]
    {section}
    parameters:
      image: {{allow: ["lab/go:*"]}}
      memory: {{min: 256Mi, max: 1g}}{more}
"""
JOB = """<flow-definition plugin="workflow-job">
<definition class="org.jenkinsci.plugins.workflow.cps.CpsFlowDefinition" plugin="workflow-cps">
<script>{}</script><sandbox>true</sandbox></definition></flow-definition>"""


def pytest_generate_tests(metafunc):
    """One test per platform that is named beside the controller."""
    live = dict(wish.split("=", 1) for wish in metafunc.config.getoption("live"))
    named = [name for name in PLATFORMS if name in live and "jenkins" in live]
    skipped = pytest.param(("", ""), id="none", marks=pytest.mark.skip("needs --live jenkins=URL"))
    params = [pytest.param((name, live[name]), id=name) for name in named]
    metafunc.parametrize("platform", params or [skipped])


@pytest.fixture
def controller(request):
    live = dict(wish.split("=", 1) for wish in request.config.getoption("live"))
    return yarl.URL(live["jenkins"])


class Kubelet:
    """Takes the pods of the namespace from an API server, and runs their agents as processes."""

    def __init__(self, url, token, ca, folder, jar):
        self.url, self.folder, self.jar = url, folder, jar
        self.head = {"Authorization": f"Bearer {token}"}
        self.tls = ssl.create_default_context(cafile=ca)
        self.processes = {}
        self.images = {}

    async def call(self, method, path, body=None, kind="application/json"):
        async with self.http.request(
            method, f"{self.url}/api/v1/{path}", ssl=self.tls,
            data=None if body is None else json.dumps(body),
            headers={**self.head, "Content-Type": kind},
        ) as answer:  # fmt: skip
            return answer.status, await answer.json()

    @contextlib.asynccontextmanager
    async def serving(self):
        async with aiohttp.ClientSession() as self.http:
            await self.call("POST", "namespaces", {"metadata": {"name": NAMESPACE}})
            running = asyncio.ensure_future(self.run())
            try:
                yield
            finally:
                running.cancel()
                for process in self.processes.values():
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()

    async def run(self):
        while True:
            _, pods = await self.call("GET", f"namespaces/{NAMESPACE}/pods")
            for pod in pods.get("items", ()):
                name = pod["metadata"]["name"]
                if "deletionTimestamp" in pod["metadata"]:
                    await self.end(name)
                elif name not in self.processes:
                    await self.start(name, pod)
            await asyncio.sleep(0.1)

    async def end(self, name):
        process = self.processes.get(name)
        if process is not None and process.returncode is None:
            process.terminate()
            await process.wait()
        now = {"gracePeriodSeconds": 0}
        await self.call("DELETE", f"namespaces/{NAMESPACE}/pods/{name}", now)

    async def start(self, name, pod):
        pods = f"namespaces/{NAMESPACE}/pods/{name}"
        code, secret = await self.call("GET", f"namespaces/{NAMESPACE}/secrets/{name}")
        if code != 200:
            return  # it comes in a moment
        target = {"target": {"kind": "Node", "name": "node-1"}, "metadata": {"name": name}}
        await self.call("POST", f"{pods}/binding", target)
        containers = pod["spec"]["containers"]
        self.images[name] = {one["name"]: one["image"] for one in containers}
        told = {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": one["name"], "image": one["image"], "imageID": "", "ready": True,
                    "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }
                for one in containers
            ],
        }  # fmt: skip
        file = self.folder / f"{name}.secret"
        file.write_bytes(base64.b64decode(secret["data"]["agent-secret"]))
        own = next(one for one in containers if one["name"] == "jnlp")
        env = {one["name"]: one.get("value", "") for one in own["env"]}
        self.processes[name] = await asyncio.create_subprocess_exec(
            "java", "-Xmx96m", "-jar", self.jar, "-url", env["JENKINS_URL"],
            "-name", env["JENKINS_AGENT_NAME"], "-secret", f"@{file}",
            "-workDir", str(self.folder / name), env={**os.environ, **env},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        kind = "application/merge-patch+json"
        await self.call("PATCH", f"{pods}/status", {"status": told}, kind)


class Launcher(agent.Launcher):
    """Takes tasks with an image as well: this machine is what is in all of them."""

    def takes(self, info):
        return set(info.get("container", {})) <= {"type", "volumes", "mesos", "docker"}


@contextlib.asynccontextmanager
async def _platform(name, address, folder, jar):
    """Yield what the configuration needs of a platform, and who saw what was started."""
    needs = {
        "address": address,
        "runtime": os.environ.get("AGENT_RUNTIME", ""),
        "runtime_image": os.environ.get("AGENT_RUNTIME_IMAGE", ""),
    }
    if name == "kubernetes":
        token, ca = os.environ["KUBERNETES_TOKEN"], os.environ["KUBERNETES_CA"]
        kubelet = Kubelet(address, pathlib.Path(token).read_text(), ca, folder, jar)
        async with kubelet.serving():
            yield {**needs, "token": token, "ca": ca}, kubelet
    elif name == "mesos":
        machine = master.Master(agents=1, wall=time.time())
        machine.allocation_s = 0.05
        machine.launcher = Launcher(machine, folder / "agents")
        async with wire.Wire(machine).serving() as served:
            yield {**needs, "address": served.base}, machine
            await machine.launcher.aclose()
    else:
        yield needs, None


class Live:
    """A real controller, the jobs of one owner, and the broker that works for them."""

    def __init__(self, address, folder):
        self.url, self.user, self.token = address.with_user(None), address.user, address.password
        self.owner = f"p{secrets.token_hex(3)}"
        self.folder, self.jobs = folder, []
        self.config = folder / "broker.yaml"

    async def __aenter__(self):
        login = aiohttp.encode_basic_auth(self.user, self.token)
        self.http = aiohttp.ClientSession(self.url, headers={"Authorization": login})
        return self

    async def __aexit__(self, *raised):
        async with self.http:
            for job in self.jobs:
                await self.http.post(f"job/{job}/doDelete", allow_redirects=False)
            found = await self.get("computer/", "computer[displayName]")
            names = [one["displayName"] for one in found["computer"]]
            for name in names:
                if name.startswith(f"{self.owner}-"):
                    await self.http.post(f"computer/{name}/doDelete", allow_redirects=False)

    async def get(self, path, tree):
        async with self.http.get(f"{path}api/json", params={"tree": tree}) as answer:
            return await answer.json() if answer.ok else None

    async def job(self, script):
        name = f"{self.owner}-{len(self.jobs)}"
        body = JOB.format(saxutils.escape(script))
        xml = {"Content-Type": "application/xml"}
        async with self.http.post(f"createItem?name={name}", data=body, headers=xml) as answer:
            assert answer.ok, await answer.text()
        self.jobs.append(name)
        return name

    async def submit(self, job):
        async with self.http.post(f"job/{job}/build?delay=0sec", allow_redirects=False) as answer:
            assert answer.status < 400, await answer.text()

    async def log(self, job, number):
        async with self.http.get(f"job/{job}/{number}/consoleText") as answer:
            return await answer.text() if answer.ok else ""

    async def until(self, fits, what, *, within_s=120.0):
        """Wait for what an asynchronous question answers; return it."""
        patient = patience.Patience(within_s)
        while not (answer := await fits()):
            if patient.is_over():
                log = (self.folder / "broker.log").read_text()[-8000:]
                raise AssertionError(f"not within {within_s} s: {what}\n{log}")
            await asyncio.sleep(0.1)
        return answer

    async def built(self, job, number=1):
        """Run a build to its end; return what its log says, and after how many seconds it began."""
        await self.submit(job)
        began = asyncio.get_running_loop().time()

        async def began_at():
            return "RUNS ON" in await self.log(job, number)

        await self.until(began_at, f"build {number} of {job} has begun")
        after_s = asyncio.get_running_loop().time() - began

        async def ended():
            found = await self.get(f"job/{job}/{number}/", "result,building")
            return found and not found["building"] and found["result"]

        result = await self.until(ended, f"build {number} of {job} has ended")
        log = await self.log(job, number)
        assert result == "SUCCESS", log
        return log, after_s

    async def page(self, port):
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"http://127.0.0.1:{port}/api/v1/queue") as answer,
        ):
            return await answer.text()

    @contextlib.asynccontextmanager
    async def broker(self):
        with (self.folder / "broker.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "broker", "run", "--drain", "--config", self.config,
                stdout=log, stderr=log, env={**os.environ, "TOKEN": self.token},
            )  # fmt: skip
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await patience.wait_for(process.wait(), 60)
            except TimeoutError:
                process.kill()
                await process.wait()


def _script(label, *commands):
    """Return a Jenkinsfile."""
    steps = "\n".join(f"sh '{command}'" for command in commands)
    return f"node('{label}') {{\necho \"RUNS ON ${{env.NODE_NAME}}\"\n{steps}\n}}"


def _node(log):
    return re.search(r"RUNS ON (\S+)", log)[1]


async def test_a_jenkinsfile_names_its_image(platform, controller, tmp_path, unused_tcp_port):
    """Twice, the second time on the warm agent; another image; one that it may not have."""
    kind, address = platform
    jar = tmp_path / "agent.jar"
    async with Live(controller, tmp_path) as live:
        async with live.http.get("jnlpJars/agent.jar") as answer:
            jar.write_bytes(await answer.read())
        async with _platform(kind, address, tmp_path, jar) as (needs, seen):
            section = SECTIONS[kind]
            live.config.write_text(
                CONFIG.format(
                    owner=live.owner, url=live.url, user=live.user, folder=tmp_path,
                    port=unused_tcp_port, platform=kind, backend=BACKENDS[kind].format(**needs),
                    section=section.format(folder=tmp_path) if kind == "mesos" else section,
                    more=MORE if kind == "kubernetes" else "",
                )
            )  # fmt: skip
            async with live.broker():
                await _builds(live, kind, seen)
                await _refused(live, unused_tcp_port)


async def _builds(live, kind, seen):
    shown = "cat /etc/image" if kind in {"docker", "swarm"} else "true"
    first = await live.job(_script(f"{live.owner} && image=lab/go:1.22 && memory=512m", shown))
    log, cold_s = await live.built(first)
    name = _node(log)
    labels = await live.get(f"computer/{name}/", "assignedLabels[name]")
    carried = {one["name"] for one in labels["assignedLabels"]} - {name}
    assert carried == {live.owner, "image=lab/go:1.22", "memory=512m"}
    again, warm_s = await live.built(first, 2)
    assert _node(again) == name
    assert warm_s < cold_s
    # the same in another order is the same variant
    turned = await live.job(_script(f"memory=512m && image=lab/go:1.22 && {live.owner}", shown))
    assert _node((await live.built(turned))[0]) == name
    other = await live.job(_script(f"{live.owner} && image=lab/go:1.21", shown))
    more, other_s = await live.built(other)
    assert _node(more) != name
    if kind in {"docker", "swarm"}:
        assert "go-1.22" in log
        assert "go-1.21" in more
    if kind == "kubernetes":
        assert seen.images[name] == {"jnlp": "lab/go:1.22"}
        talk = await live.job(_script(f"{live.owner} && maven=3.9 && golang=1.22", "true"))
        podded, _ = await live.built(talk)
        assert seen.images[_node(podded)] == {
            "jnlp": "lab/go:1.21", "maven": "maven:3.9", "golang": "golang:1.22",
        }  # fmt: skip
    print(f"\n| {kind} | {cold_s:.1f} | {warm_s:.1f} | {other_s:.1f} |")


async def _refused(live, port):
    """Neither an image of another registry nor more memory: the page and the queue tell it."""
    evil = await live.job(_script(f"{live.owner} && image=evil.example/lab/go:1.22", "true"))
    await live.submit(evil)

    async def told():
        return "image=evil.example/lab/go:1.22 is not allowed" in await live.page(port)

    await live.until(told, "the page says what is not allowed")
    assert "but image=lab/go:*" in await live.page(port)
    queue = await live.get("queue/", "items[why]")
    whys = [item["why"] for item in queue["items"]]
    assert any("image=evil.example/lab/go:1.22" in why for why in whys), whys
