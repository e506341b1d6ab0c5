"""``java -jar agent.jar`` end to end, with a stand-in for Java that is strict about options.

The real broker downloads agent.jar from the (simulated) controller, starts "java" by the process
backend, and a build runs on it. The stand-in takes exactly the options that the agent.jar of the
controller's version knows, and ends with usage and status 0 on any other, as the real one does.
"""

import asyncio
import pathlib
import sys

import pytest

from broker import assembly, clock, store
from broker.config import kinds, loading
from broker.simulator import controller, simulation
from tests import patience

AGENT = pathlib.Path(controller.__file__).with_name("agent.py")

JAVA = """import os, pathlib, sys
style, arguments = {style!r}, sys.argv[1:]
options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m"]
assert [arguments.pop(0) for _ in options] == options
pathlib.Path({seen!r}).write_text(" ".join(arguments))
if style == "positional":
    assert arguments.pop(0) == "-cp"
    jar = arguments.pop(0)
    assert arguments[:2] == ["hudson.remoting.jnlp.Main", "-headless"]
    arguments = arguments[2:]
else:
    assert arguments.pop(0) == "-jar"
    jar = arguments.pop(0)
flags = {{"-noreconnect", "-webSocket"}}
takes = {{"-url", "-workDir", "-tunnel", "-jar-cache"}}
if style != "positional":
    takes |= {{"-secret", "-name"}}
if style == "named-with-limit":
    takes |= {{"-noReconnectAfter"}}
told, words = {{}}, []
while arguments:
    word = arguments.pop(0)
    if word in flags:
        told[word] = True
    elif word in takes:
        told[word] = arguments.pop(0)
    elif word.startswith("-"):
        print("usage:", word)
        sys.exit(0)
    else:
        words.append(word)
if style == "positional":
    told["-secret"], told["-name"] = words
else:
    assert not words
assert told["-secret"].startswith("@")
assert pathlib.Path(jar).read_bytes()[:2] == b"PK"
assert pathlib.Path(told["-workDir"]).is_dir()
assert pathlib.Path(told["-jar-cache"]).parent.is_dir()
os.execve({python!r}, [{python!r}, {agent!r}], {{
    **os.environ,
    "JENKINS_URL": told["-url"],
    "JENKINS_AGENT_NAME": told["-name"],
    "JENKINS_SECRET_FILE": told["-secret"][1:],
}})
"""

CONFIG = """\
owner: jar
controller: {{url: "{url}", user: u, token: "env:TOKEN"}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: "127.0.0.1:0"
templates:
  maven:
    labels: maven
    java: {java}
    jvm_options: [-Xmx64m]
    connect: {{{connect}}}
    connect_deadline: 10s
"""


async def _served(sim, within_s=20.0):
    async with patience.limit(within_s):
        while any(item.fate is simulation.Fate.OPEN for item in sim.items.values()):
            await asyncio.sleep(0.05)
    return {item.fate for item in sim.items.values()}


@pytest.mark.parametrize(
    ("version", "style", "connect", "expected"),
    [
        ("2.263.4", "positional", "", "hudson.remoting.jnlp.Main"),
        ("2.440.1", "named", "tunnel: 'gate:'", "-tunnel gate:"),
        ("2.528.3", "named-with-limit", "mode: websocket", "-webSocket"),
    ],
)
async def test_a_build_runs_on_an_agent_started_from_agent_jar(
    tmp_path, version, style, connect, expected
):
    """Download, options by version, secret by file, connection settings, a build, and no rest."""
    java, seen, program = tmp_path / "java", tmp_path / "seen", tmp_path / "java.py"
    program.write_text(
        JAVA.format(python=sys.executable, style=style, seen=str(seen), agent=str(AGENT))
    )
    java.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{program}' \"$@\"\n")
    java.chmod(0o755)
    watch, sim = clock.Clock(), simulation.Simulation(version=version)
    access = controller.Accounts(user="u", token="a-token-of-eleven")
    async with controller.SimulatedController(sim, now=watch.now, access=access) as server:
        settings = loading.parse(
            CONFIG.format(url=server.url, state=tmp_path / "state", java=java, connect=connect),
            kinds.classes(),
            environ={"TOKEN": "a-token-of-eleven"},
            base=tmp_path,
        )
        made = assembly.build(settings, store.FileStore(settings.state_dir), watch=watch)
        async with asyncio.TaskGroup() as group:
            clockwork = group.create_task(server.run(), name="clockwork")
            life = group.create_task(made.run(), name="broker")
            server.submit(label="maven", duration_s=0.1)
            assert await _served(sim) == {simulation.Fate.DONE}
            made.drain()
            await patience.wait_for(life, 30)
            clockwork.cancel()
    assert expected in seen.read_text()
    assert sim.nodes == {}
    jars = [path for method, path in server.requests if path.endswith("agent.jar")]
    assert len(jars) == 1
