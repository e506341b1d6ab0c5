"""Builds name image and memory by labels: a real swarm of one node, the simulated controller."""

import asyncio
import contextlib
import os

import pytest

from broker.demo import image
from tests.contract import swarm as managed_swarm
from tests.docker import engines
from tests.e2e import stage as stages
from tests.e2e import test_parameters

CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:TOKEN", timeout: 5s}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: 127.0.0.1:0
log: {{format: console}}
backends:
  it: {{kind: swarm, name_prefix: {prefix}, managers: [{{url: "{engine}"}}], look: 200ms}}
templates:
  box:
    labels: box
    image: no-such-image:0
    command: ["{agent}"]
    connect_deadline: 60s
    swarm: {{networks: [host], resolve: id, grace: 1s}}
    parameters:
      image: {{allow: ["agent-broker-demo:*"]}}
      memory: {{min: 64Mi, max: 512m}}
      cpu: {{max: 2}}
"""
PREFIX = "com.docker.swarm.service.name"


class Looker:
    """Looks at our services and containers behind the broker's back."""

    def __init__(self, url):
        self.prefix = f"params{os.urandom(3).hex()}-"
        self.client = engines.connected(url)

    def services(self):
        return [
            one["Spec"]
            for one in self.client.services()
            if one["Spec"]["Name"].startswith(self.prefix)
        ]

    def limits(self):
        """Return memory and thousandths of a core of what runs, as its engine has it."""
        found = [
            self.client.inspect_container(one["Id"])["HostConfig"]
            for one in self.client.containers()
            if one["Labels"].get(PREFIX, "").startswith(self.prefix)
        ]
        return [(one["Memory"], one["NanoCpus"] // 10**6) for one in found]

    def clear(self):
        for one in self.services():
            self.client.remove_service(one["Name"])
        for one in self.client.secrets():
            if one["Spec"]["Name"].startswith(self.prefix):
                self.client.remove_secret(one["ID"])
        self.client.close()


@contextlib.asynccontextmanager
async def at_work(folder):
    """Give a stage with a broker at work, and who looks at the swarm."""
    url = await engines.with_image(engines.address())
    await asyncio.to_thread(managed_swarm.managed, url)
    looker = Looker(url)
    try:
        async with stages.Stage(folder) as stage:
            stage.config.write_text(
                CONFIG.format(
                    owner=stages.OWNER, url=stage.server.url, state=stage.state, engine=url,
                    prefix=looker.prefix, agent=image.AGENT,
                )
            )  # fmt: skip
            broker = await stage.start()
            try:
                yield stage, looker
            finally:
                await stage.stop(broker)
    finally:
        await asyncio.to_thread(looker.clear)


@pytest.mark.timeout(200)
async def test_an_agent_of_a_variant_is_what_its_build_asked_for(tmp_path, monkeypatch):
    """Image and limits are in the service and on its container; the second build reuses it."""
    monkeypatch.setenv("TOKEN", stages.TOKEN)
    label = f"box && image={image.NAME} && memory=128m && cpu=1.5"
    async with at_work(tmp_path) as (stage, looker):
        stage.submit(label)
        await stage.until_served(within_s=90)
        (spec,) = await asyncio.to_thread(looker.services)
        limits = spec["TaskTemplate"]["Resources"]["Limits"]
        assert (limits["MemoryBytes"], limits["NanoCPUs"]) == (128 << 20, 1_500_000_000)
        there = await asyncio.to_thread(looker.client.inspect_image, image.NAME)
        assert spec["TaskTemplate"]["ContainerSpec"]["Image"] == there["Id"]
        assert await asyncio.to_thread(looker.limits) == [(128 << 20, 1500)]
        (name,) = stage.agents
        carried = set(stage.sim.nodes[name].labels) - {name}
        assert carried == {"box", f"image={image.NAME}", "memory=128m", "cpu=1.5"}
        stage.submit(label)
        evil = stage.submit("box && image=evil.example/demo:1")
        await stage.until(lambda: len(stage.open) == 1, "what is allowed is served", within_s=90)
        assert stage.agents == {name}
        assert [one.id for one in stage.open] == [getattr(evil, "id", evil)]
        reasons = await test_parameters.reasons(stage)
        ((reason, words),) = reasons.values()
        assert reason == "parameter"
        assert "image=evil.example/demo:1 is not allowed" in words
        assert len(await asyncio.to_thread(looker.services)) == 1
