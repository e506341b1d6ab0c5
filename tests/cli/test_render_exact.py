"""``render`` shows what is created: compared with what an engine, an API server and a master got.

The order is made as the broker makes it, for a controller of each age; the platforms are ours, and
keep what they were sent.
"""

import asyncio
import contextlib
import json
import pathlib
import time

import attrs
import pytest
import yaml

from broker import clock
from broker.cli import main as cli
from broker.cli import shared, single_look
from broker.core import model
from broker.core.fleet import marks
from jnlp import secret as jnlp_secret
from tests import patience
from tests.docker import scripted_engine
from tests.kubernetes import fake
from tests.mesos import master, wire

NAME = marks.node_name("o", "t", "xxxxxx")
"""As ``render`` calls what it shows."""
CONFIG = """
owner: o
controller: {{url: "http://controller:8080/", agent_url: "http://controller.ci:8080/"}}
listen: "off"
state_dir: {folder}/state
backends:
  there: {backend}
templates:
  t:
    labels: linux
    resources: {{memory: 1Gi, cpu_limit: 1}}
    jvm_options: [-Dx=y]
    environment: {{A: b}}
    {more}
"""


@attrs.define
class Stage:
    """A configuration, and what its platform was sent."""

    path: pathlib.Path

    def rendered(self, capsys, controller):
        assert 0 == cli.main(
            ["render", "t", "--config", str(self.path), "--controller", controller]
        )
        text = capsys.readouterr().out
        assert f"next to a controller {controller}" in text
        return list(yaml.safe_load_all(text))

    async def launch(self, controller):
        """Launch one as the broker would, for a controller of that version."""
        options = cli.parser().parse_args(["plan", "--config", str(self.path)])
        settings = shared.settings_of(options)
        async with single_look.built(settings, clock.Clock(), reads_only=False) as broker:
            broker.session.version = controller
            action = model.LaunchAgent(
                name=NAME, template=model.TemplateName("t"),
                backend=model.BackendName("there"), reason="",
            )  # fmt: skip
            order = broker.reconciler.executor.order(action)
            backend = broker.backends[action.backend]
            async with patience.limit(30):
                await backend.launch(order.spec_with(jnlp_secret.Secret("not-shown")))


def staged(tmp_path, backend, more):
    path = tmp_path / "broker.yaml"
    path.write_text(CONFIG.format(folder=tmp_path, backend=json.dumps(backend), more=more))
    return Stage(path)


def settled(document, *moving):
    """Return a document without what is of the moment: the time it was made, and its digest."""
    text = json.dumps(document, sort_keys=True)
    found = json.loads(text)

    def walk(value):
        if isinstance(value, dict):
            return {k: walk(v) for k, v in value.items() if not k.endswith(moving)}
        if isinstance(value, list):
            kept = (v for v in value if not (isinstance(v, dict) and is_moving(v)))
            return [walk(v) for v in kept]
        return value

    def is_moving(entry):
        return str(entry.get("key", "")).endswith(moving)

    return walk(found)


@pytest.mark.parametrize("controller", ["2.426.3", "2.541.1"])
async def test_docker(tmp_path, capsys, controller):
    """The body of the creation, with the options of the agent's Java."""
    with scripted_engine.engine() as engine:
        stage = staged(
            tmp_path, {"kind": "docker", "hosts": [{"url": engine.url}]},
            "image: jenkins/inbound-agent",
        )  # fmt: skip
        shown = await asyncio.to_thread(stage.rendered, capsys, controller)
        engine.answer("POST", "/start", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        engine.answer("PUT", "/archive", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(Exception):  # what it is asked afterwards is not what is tested
            await stage.launch(controller)
        sent, *_ = (r for r in engine.requests if f"/containers/create?name={NAME}" in r.target)
    moving = ("created", "digest")
    (body,), made = shown, json.loads(sent.body)
    for mount in [*made["HostConfig"].get("Mounts", ())]:
        if (
            mount["Target"] == "/agent-broker/secrets"
        ):  # where this machine's memory is the engine's
            made["HostConfig"]["Mounts"].remove(mount)
    if not made["HostConfig"].get("Mounts"):
        made["HostConfig"].pop("Mounts", None)
    assert settled(body, *moving) == settled(made, *moving)
    _check_java(controller, dict(one.split("=", 1) for one in body["Env"]))


@pytest.mark.parametrize("controller", ["2.426.3", "2.541.1"])
async def test_kubernetes(tmp_path, capsys, controller):
    """Pod and secret, but for what the API server adds and what is secret."""
    async with fake.Cluster().serving() as cluster:
        stage = staged(
            tmp_path,
            {"kind": "kubernetes", "server": cluster.url, "namespace": cluster.namespace},
            "image: jenkins/inbound-agent",
        )
        shown = await asyncio.to_thread(stage.rendered, capsys, controller)
        await stage.launch(controller)
        sent = cluster.manifests[NAME]
        given = cluster.secrets[NAME]
    pod, secret = shown
    assert secret["stringData"].keys() == given["stringData"].keys()
    assert {"not shown"} == set(secret["stringData"].values())
    assert secret["metadata"]["labels"].keys() == given["metadata"]["labels"].keys()
    moving = ("broker/metadata", "digest")  # as one text, with the time
    assert settled(pod, *moving) == settled(sent, *moving)
    (container,) = pod["spec"]["containers"]
    _check_java(controller, {one["name"]: one.get("value") for one in container["env"]})


def _check_java(controller, env):
    """Newer images are told by a variable of their own; of an old one builds would inherit it."""
    if controller.startswith("2.541"):
        assert env["JENKINS_JAVA_OPTS"].endswith("-Xmx256m -Dx=y")
        assert "JAVA_OPTS" not in env
    else:
        assert env["JENKINS_JAVA_OPTS"] == env["JAVA_OPTS"] == "-Dx=y"
    assert env["A"] == "b"


@pytest.mark.parametrize("controller", ["2.426.3", "2.541.1"])
async def test_mesos(tmp_path, capsys, controller):
    """The TaskInfo, but for what the offer decides, and where its secret is fetched."""
    machine = master.Master(
        agents=1, wall=time.time(), plan=lambda _: master.Plan(starting=0.01, running=0.02)
    )
    machine.allocation_s = 0.05
    async with wire.Wire(machine).serving() as served:
        stage = staged(
            tmp_path,
            {"kind": "mesos", "master": served.base, "handover":
             {"listen": "127.0.0.1:0", "url": "http://127.0.0.1:0"}},
            "retention: {once: true}",
        )  # fmt: skip
        shown = await asyncio.to_thread(stage.rendered, capsys, controller)
        await stage.launch(controller)
        (sent,) = (task.info for task in machine.tasks.values())
    (task,) = shown
    for info in (task, sent):
        (secret,) = (u for u in info["command"]["uris"] if u["output_file"].startswith("secrets/"))
        assert secret.pop("value").startswith("http://")
    moving = (
        "digest.spec",
        "created.at",
        "place.agent",
        "traits.agent",
        "agent_id",
        "resources",
        "created",
    )
    assert settled(task, *moving) == settled(sent, *moving)
    assert "-workDir" in task["command"]["value"]
