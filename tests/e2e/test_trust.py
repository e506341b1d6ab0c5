"""An agent of a template with authorities of its own trusts a server that nobody else trusts.

The real broker starts a process by the process backend, beside a simulated controller; with
``--live jenkins=URL`` a real agent does, whose builds and JVM are asked.
"""

import asyncio
import pathlib
import sys

from broker import assembly, clock, store
from broker.config import kinds, loading
from broker.simulator import controller, simulation
from tests import https_server, patience
from tests.docker import certificates
from tests.e2e.test_real_controller import Controller
from tests.e2e.test_real_controller import pytest_generate_tests as _addresses

AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
PROGRAM = """import os, pathlib, sys, urllib.request
pathlib.Path({seen!r}).write_bytes(urllib.request.urlopen({url!r}).read())
os.execv(sys.executable, [sys.executable, {agent!r}])
"""
CONFIG = """\
owner: trust
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: "off"
templates:
  maven:
    labels: maven
    command: {command}
    trust: {{ca_file: {ca}, public_file: {public}}}
"""
REAL = """\
owner: {owner}
controller: {{url: "{url}", user: "{user}", token: "env:TOKEN"}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {folder}/state
listen: "off"
templates:
  trusting: {{labels: {owner}-trusting, trust: {{ca_file: {ca}, java_tools: true}}}}
"""

JAVA = """
class Asks {
    public static void main(String[] told) throws Exception {
        System.out.write(new java.net.URL(told[0]).openStream().readAllBytes());
        System.out.println();
    }
}
"""


def pytest_generate_tests(metafunc):
    """One test per ``--live jenkins=URL``, of those that want one."""
    if "address" in metafunc.fixturenames:
        _addresses(metafunc)


async def test_an_agent_trusts_the_authorities_of_its_template(tmp_path):
    """By the files and variables that it is given; they go with it."""
    own, public = (certificates.Authority(tmp_path, name) for name in ("own", "public"))
    seen, program = tmp_path / "seen", tmp_path / "program.py"
    watch, sim = clock.Clock(), simulation.Simulation()
    access = controller.Accounts(user="u", token="a-token-of-eleven")
    async with controller.SimulatedController(sim, now=watch.now, access=access) as server:
        with https_server.serving(own.signed("localhost", "DNS:localhost")) as url:
            program.write_text(PROGRAM.format(seen=str(seen), url=url, agent=str(AGENT)))
            settings = loading.parse(
                CONFIG.format(
                    url=server.url,
                    state=tmp_path / "state",
                    command=[sys.executable, str(program)],
                    ca=own.file,
                    public=public.file,
                ),
                kinds.classes(),
                environ={"TOKEN": "a-token-of-eleven"},
                base=tmp_path,
            )
            made = assembly.build(settings, store.FileStore(settings.state_dir), watch=watch)
            async with asyncio.TaskGroup() as group:
                clockwork = group.create_task(server.run(), name="clockwork")
                life = group.create_task(made.run(), name="broker")
                server.submit(label="maven", duration_s=0.1)
                async with patience.limit(30):
                    while any(one.fate is simulation.Fate.OPEN for one in sim.items.values()):
                        await asyncio.sleep(0.05)
                made.drain()
                await patience.wait_for(life, 30)
                clockwork.cancel()
    assert seen.read_bytes() == https_server.WORDS
    assert not list((tmp_path / "state").rglob("ca-*"))


async def test_builds_and_the_jvm_of_a_real_agent_trust_them(address, tmp_path):
    """Curl and Java of a build, and what an installer does in the agent's own JVM."""
    own = certificates.Authority(tmp_path, "own")
    (tmp_path / "Asks.java").write_text(JAVA)
    with https_server.serving(own.signed("localhost", "DNS:localhost")) as url:
        async with Controller(address, tmp_path) as real:
            real.config.write_text(
                REAL.format(
                    owner=real.owner, url=real.url, user=real.user, folder=tmp_path, ca=own.file
                )
            )
            command = f"curl -sS {url}; echo; java {tmp_path}/Asks.java {url}"
            job = await real.job(f"{real.owner}-trusting", command)
            await real.start()
            await real.submit(job)
            result, node = await real.ended(job)
            async with real.http.get(f"job/{job}/1/consoleText") as answer:
                console = await answer.text()
            assert result == "SUCCESS", console
            assert console.count("well met") == 2, console
            script = {"script": f'new URL("{url}").text'}
            async with real.http.post(f"computer/{node}/scriptText", data=script) as said:
                assert "well met" in await said.text()
