"""A container as the agent of a real controller: ``--live jenkins=URL`` and a Docker engine here.

The agent's container sees this machine by its bridge alone. Java is the machine's own, mounted.
"""

import asyncio
import contextlib
import shutil
import signal
import socket

import pytest

from tests import patience, programs
from tests.docker import engines
from tests.e2e.test_real_controller import (  # noqa: F401
    Controller,
    Forwarder,
    pytest_generate_tests,
)

CONFIG = """\
owner: {owner}
controller:
  url: "{url}"
  user: "{user}"
  token: "env:TOKEN"
  agent_url: "http://{gateway}:{pages}{url.path}"
poll: {{busy: 250ms, idle: 1s}}
state_dir: {folder}/state
listen: "off"
backends:
  engine: {{kind: docker, hosts: [{{url: "{engine}"}}]}}
templates:
  boxed:
    labels: {owner}-boxed
    image: {image}
    remote_fs: /tmp/agent
    retention: {{idle: 5m}}
    connect: {{tunnel: "{gateway}:{tunnel}"}}
    command:
      - sh
      - -c
      - >-
        exec {java} -Xmx128m -jar /lab/agent.jar -url "$JENKINS_URL" -name "$JENKINS_AGENT_NAME"
        -secret "@$JENKINS_SECRET_FILE" -tunnel "$JENKINS_TUNNEL" -workDir /tmp/agent
    docker:
      pull: never
      ports: ["{gateway}::8080"]
      volumes:
        - {{name: /usr, target: /usr, read_only: true}}
        - {{name: /lib, target: /lib, read_only: true}}
        - {{name: /lib64, target: /lib64, read_only: true}}
        - {{name: /etc, target: /etc, read_only: true}}
        - {{name: {folder}/lab, target: /lab, read_only: true}}
"""
BUILD = "head -c 300000 /dev/zero | tr '\\0' x; echo; echo told $HOST_ADDRESS:$PORT_8080"


class MappedPort:
    """A forwarder in a container, socat, at a port of the machine that is mapped to its own."""

    def __init__(self, engine, address, port, there):
        self.client = engines.connected(engine)
        folders = ("/usr", "/lib", "/lib64")
        host = self.client.create_host_config(
            port_bindings={9000: (address, port)},
            binds={folder: {"bind": folder, "mode": "ro"} for folder in folders},
            init=True,
        )
        words = ["socat", "TCP-LISTEN:9000,fork,reuseaddr", f"TCP:{address}:{there}"]
        made = self.client.create_container(engines.IMAGE, words, ports=[9000], host_config=host)
        self.id = made["Id"]

    def __enter__(self):
        self.client.start(self.id)
        return self

    def __exit__(self, *raised):
        self.client.remove_container(self.id, force=True, v=True)
        self.client.close()

    def cut(self):
        self.client.kill(self.id, "SIGKILL")

    def serve_again(self):
        self.client.start(self.id)


def gateway(engine):
    """Return the address of this machine that its containers see."""
    with contextlib.closing(engines.connected(engine)) as client:
        (told, *_) = client.inspect_network("bridge")["IPAM"]["Config"]
        return told["Gateway"]


def free_port(address):
    with contextlib.closing(socket.create_server((address, 0))) as taken:
        return taken.getsockname()[1]


async def test_a_container_comes_through_a_mapped_port_and_back(address, tmp_path):
    """All that it says goes that way; builds are told where their own port is mapped to."""
    engine = await engines.with_image(engines.address())
    for program in ("socat", "java"):
        if shutil.which(program) is None:
            engines.absent(programs.want(program))
    here = gateway(engine)
    async with contextlib.AsyncExitStack() as stack:
        real = await stack.enter_async_context(Controller(address, tmp_path))
        host, port = await real.agent_port()
        gate = await stack.enter_async_context(Forwarder(host, port, at=here))
        pages = await stack.enter_async_context(Forwarder(real.url.host, real.url.port, at=here))
        mapped_to = free_port(here)
        mapped = stack.enter_context(MappedPort(engine, here, mapped_to, gate.port))
        await fetch(real, tmp_path / "lab" / "agent.jar")
        real.config.write_text(
            CONFIG.format(
                owner=real.owner, url=real.url, user=real.user, folder=tmp_path, engine=engine,
                gateway=here, pages=pages.port, tunnel=mapped_to, image=engines.IMAGE,
                java=shutil.which("java"),
            )
        )  # fmt: skip
        job = await real.job(f"{real.owner}-boxed", BUILD)
        broker = await real.start()
        await real.submit(job)
        result, node = await real.ended(job)
        assert result == "SUCCESS", await console(real, job, 1)
        assert gate.carried > 300_000
        with contextlib.closing(engines.connected(engine)) as client:
            label = f"agent-broker.name={node}"
            (entry,) = client.containers(filters={"label": label})
            (bound,) = [one for one in entry["Ports"] if one.get("PublicPort")]
        told = f"told {here}:{bound['PublicPort']}"
        assert told in await console(real, job, 1)

        mapped.cut()
        await real.until(lambda: offline(real, node), "the agent is cut off")
        mapped.serve_again()
        await real.submit(job)
        assert ("SUCCESS", node) == await real.ended(job, 2)
        assert told in await console(real, job, 2)
        broker.send_signal(signal.SIGTERM)
        assert await patience.wait_for(broker.wait(), 30) == 0
        assert await real.nodes() == []


async def fetch(real, path):
    path.parent.mkdir()
    async with real.http.get("jnlpJars/agent.jar") as answer:
        content = await answer.read()
    await asyncio.to_thread(path.write_bytes, content)


async def console(real, job, number):
    async with real.http.get(f"job/{job}/{number}/consoleText") as answer:
        return (await answer.text())[-2000:]


async def offline(real, node):
    seen = await real.get(f"computer/{node}/", "offline")
    return bool(seen and seen["offline"])


pytestmark = pytest.mark.enable_socket  # a real controller is rarely on the loopback
