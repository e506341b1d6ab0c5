"""A user who moves from a plugin with ``agent-broker import`` alone: the next build is served.

What the plugin's configuration said is imported, what the command lists is made (the token, an
address), and a broker runs on it, on each plugin's platform.
"""

import asyncio
import contextlib
import json

import pytest

from broker.cli import main as cli
from broker.demo import image
from tests import patience
from tests.docker import engines
from tests.e2e import stage as stages
from tests.kubernetes import fake
from tests.mesos import master, wire

OWNER = "jenkins"  # what an import names it
WITHIN_S = 60.0
CLOUDS = {
    "docker": """\
    - docker:
        name: docker
        dockerApi: {dockerHost: {uri: "%(at)s"}}
        templates:
          - labelString: moved
            mode: EXCLUSIVE
            instanceCapStr: "2"
            pullStrategy: PULL_NEVER
            remoteFs: /home/jenkins
            connector: {jnlp: {jenkinsUrl: "%(url)s"}}
            dockerTemplateBase: {image: "%(image)s", network: host}
""",
    "kubernetes": """\
    - kubernetes:
        name: kubernetes
        serverUrl: "%(at)s"
        namespace: agents
        templates:
          - name: moved
            label: moved
            nodeUsageMode: EXCLUSIVE
            containers:
              - {name: jnlp, image: "jenkins/inbound-agent", args: "", command: ""}
              - {name: maven, image: "maven:3.9-eclipse-temurin-21", command: sleep, args: 99d}
""",
    "mesos": """\
    - mesos:
        agentUser: nobody
        frameworkName: agents
        jenkinsURL: "%(url)s"
        mesosMasterUrl: "%(at)s"
        mesosAgentSpecTemplates:
          - {label: moved, cpus: 0.1, mem: 64, maxExecutors: 1, mode: EXCLUSIVE, reusable: true}
""",
}


@contextlib.asynccontextmanager
async def platform(kind):
    """Yield its address, and what tells which agents are to be played by the test itself."""
    match kind:
        case "docker":
            yield await engines.with_image(engines.address()), lambda: ""
        case "kubernetes":
            async with fake.Cluster(namespaces_readable=True).serving() as cluster:
                yield (
                    cluster.url,
                    lambda: json.dumps(
                        [
                            one
                            for one in cluster.pods.values()
                            if one["status"]["phase"] == "Running"
                        ]
                    ),
                )
        case "mesos":
            machine = master.Master(agents=1)
            served = wire.Wire(machine)
            async with served.serving():
                yield (
                    served.base,
                    lambda: " ".join(
                        task.name
                        for task in machine.tasks.values()
                        if task.state == "TASK_RUNNING"
                    ),
                )


async def play(stage, running):
    """Connect the agents of platforms that run nothing."""
    while True:
        for name, node in stage.sim.nodes.items():
            if name.startswith(f"{OWNER}-moved") and not node.connected and name in running():
                stage.sim.connect(stage.watch.now(), name)
        await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", CLOUDS)
async def test_the_next_build_is_served(kind, tmp_path, capfd):
    async with stages.Stage(tmp_path) as stage, platform(kind) as (at, running):
        told = {"at": at, "url": stage.server.url, "image": image.NAME}
        cloud = CLOUDS[kind] % told
        (tmp_path / "jenkins.yaml").write_text(
            f'jenkins:\n  clouds:\n{cloud}unclassified:\n  location: {{url: "{stage.server.url}"}}\n'
        )
        imported = tmp_path / "imported.yaml"
        asked = ["import", str(tmp_path / "jenkins.yaml"), "--output", str(imported)]
        assert await asyncio.to_thread(cli.main, asked) == 0
        to_do = capfd.readouterr().err
        assert "jenkins-token" in to_do
        # what it says is to be made, and what only this controller and this machine know
        (tmp_path / "jenkins-token").write_text(stages.TOKEN)
        (tmp_path / "kubernetes-token").write_text("a-token-of-the-cluster")
        text = imported.read_text().replace("user: agent-broker", "user: u")
        # no official agent image, whose entry point starts an inbound agent
        text = text.replace(image.NAME, f"{image.NAME}\n    command: [{image.AGENT}]")
        text = text.replace("/etc/agent-broker/", f"{tmp_path}/")
        text = text.replace("0.0.0.0:8088", "127.0.0.1:0")
        text = text.replace("http://agent-broker.example.com:8088", "http://127.0.0.1:0")
        imported.write_text(text)
        (tmp_path / "here.yaml").write_text(f"state_dir: {tmp_path / 'state'}\nlisten: 'off'\n")
        files = ("--config", str(tmp_path / "here.yaml"))
        playing = asyncio.create_task(play(stage, running), name="agents that are played")
        try:
            process = await stage.start(*files, config=imported)
            stage.submit("moved")
            await stage.until_served(within_s=WITHIN_S)
            assert stage.fates() == {"done": 1}
            await stage.stop(process)
            swept = ["sweep", "--all", "--yes", "--config", str(imported), *files]
            async with patience.limit(WITHIN_S):
                code = await asyncio.to_thread(cli.main, swept)
            assert (code, stage.agents) == (0, set()), capfd.readouterr()
        finally:
            playing.cancel()
