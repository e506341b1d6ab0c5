"""Agents and builds behind a proxy, with the real agent.jar: ``--live jenkins=URL``.

The controller is on this machine. Its agents know it by a name that only the proxy can resolve,
or, where they are to go without one, by a name that only their Java can.
"""

import asyncio
import contextlib
import shutil

import pytest

from tests.e2e.test_real_controller import Controller, pytest_generate_tests  # noqa: F401

CONFIG = """\
owner: {owner}
controller:
  url: "{url}"
  user: "{user}"
  token: "env:TOKEN"
  agent_url: "http://jenkins.test:{url.port}{url.path}"
  proxy: "{brokers}"
poll: {{busy: 250ms, idle: 1s}}
state_dir: {folder}/state
listen: "off"
templates:
  behind:
    labels: {owner}-behind
    jvm_options: {options}
    connect: {connect}
    proxy: {{http: "{agents}", agent: {agent}}}
"""
BUILD = "curl -s http://maven.test/of-a-build; echo $no_proxy"
SCRIPT = """
try { new URL("http://maven.test/of-the-jvm").text } catch (IOException refused) { "" + refused }
"""


class Recording:
    """A proxy that knows one name, and writes down what it is asked for.

    Requests are handed on as they are: a server takes a whole URL, too (RFC 9112, 3.2.2).
    """

    def __init__(self, port=None):
        self.port = port  # for names that are none, of the test's own
        self.asked = []
        self.tasks = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *raised):
        self.server.close()
        for task in self.tasks:
            task.cancel()

    async def _serve(self, reader, writer):
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.split(b"\r\n")[0].decode()
            self.asked.append(line)
            verb, target, _ = line.split()
            host, _, port = target.removeprefix("http://").partition("/")[0].partition(":")
            if host not in {"jenkins.test", "127.0.0.1"}:
                writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                writer.close()
                return
            there, back = await asyncio.open_connection("127.0.0.1", int(port))
            if verb == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                back.write(head)
            await asyncio.gather(self._carry(reader, back), self._carry(there, writer))

    async def _carry(self, reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()


@pytest.mark.parametrize("agent", [False, True])
@pytest.mark.parametrize("mode", ["tcp", "websocket"])
async def test_who_goes_by_way_of_the_proxy(address, tmp_path, mode, agent):
    """Builds and the JVM always; the agent's own connection where that is said, and only there."""
    names = tmp_path / "names"
    names.write_text("127.0.0.1 jenkins.test localhost\n")
    async with (
        Recording() as agents,
        Recording() as brokers,
        Controller(address, tmp_path) as real,
    ):
        _, port = await real.agent_port()
        tunnel = {"tunnel": f"jenkins.test:{port}"} if mode == "tcp" else {}
        text = CONFIG.format(
            owner=real.owner,
            url=real.url,
            user=real.user,
            folder=tmp_path,
            agents=agents.url,
            brokers=brokers.url,
            agent=str(agent).lower(),
            # who goes without a proxy has to find it: by its Java's own hosts file
            options=[] if agent else [f"-Djdk.net.hosts.file={names}"],
            connect={"mode": mode, **tunnel},
        )
        real.config.write_text(text)
        job = await real.job(f"{real.owner}-behind", BUILD)
        await real.start()
        await real.submit(job)
        result, node = await real.ended(job)
        assert result == "SUCCESS"
        async with real.http.get(f"job/{job}/1/consoleText") as answer:
            console = await answer.text()
        async with real.http.post(f"computer/{node}/scriptText", data={"script": SCRIPT}) as said:
            assert "403" in await said.text()
    own = [line for line in agents.asked if "jenkins.test" in line]
    others = [line for line in agents.asked if line not in own]
    of_builds = ["GET http://maven.test/of-a-build HTTP/1.1"] if shutil.which("curl") else []
    assert others == [*of_builds, "GET http://maven.test/of-the-jvm HTTP/1.1"]
    assert agent != ("jenkins.test" in console.splitlines()[-2])
    if not agent:
        assert own == []
    elif mode == "tcp":
        assert f"CONNECT jenkins.test:{port} HTTP/1.1" in own
        assert any("/tcpSlaveAgentListener/" in line for line in own)
    else:
        assert f"CONNECT jenkins.test:{real.url.port} HTTP/1.1" in own
        assert any("/login" in line for line in own)
