"""Images without Java, named in the queue: brought a Java, they run builds, as the program is started.

The platforms are the tests' own: a Mesos master whose agents fetch, unpack and run. What is in every
image is this machine in a mount namespace, with the mounts that the platform was told; a small Java
that connects to the simulated controller stands for the real one (``brought``).
"""

import asyncio
import contextlib
import getpass
import json
import os
import time

import attrs
import pytest
from aiohttp import web

from tests import brought, forked, patience, programs
from tests.e2e import stage
from tests.kubernetes import fake
from tests.kubernetes import machine as machines
from tests.mesos import agent, master, wire

CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:TOKEN", timeout: 2s}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: "127.0.0.1:0"
log: {{format: console}}
backends:
  it: {backend}
templates:
  box:
    labels: box
    image: lab/go:1.21
    inject: true
    cap: 3
    retention: {{idle: 1h}}
    {section}
    parameters:
      image: {{allow: ["lab/go:*"]}}
      memory: {{min: 64Mi, max: 1g}}{more}
advanced: {{resume_grace: 500ms, orphan_grace: 1s, backoff_base: 500ms, backoff_max: 2s}}
"""


@attrs.define
class Platform:
    """What a broker's configuration says of a platform, and what the platform was told."""

    backend: str
    section: str
    images: object  # a function: the images of an agent's containers, by its name
    memory_mib: object  # a function: what the agent's container may use
    more: str = ""
    cluster: object = None


@contextlib.asynccontextmanager
async def serving(path):
    """Serve one file; yield its address."""
    app = web.Application()
    app.router.add_static("/", path.parent)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/{path.name}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def mesos(folder, archive, containerizer):
    machine = master.Master(agents=1, wall=time.time())
    machine.allocation_s = 0.05
    machine.launcher = agent.Launcher(machine, folder / "agents", images=True)
    secrets = {"mesos": "volume", "docker": "environment"}[containerizer]

    def images(name):
        (info,) = (task.info for task in machine.tasks.values() if task.name == name)
        told = info["container"][containerizer]
        image = told["image"]["docker"]["name"] if containerizer == "mesos" else told["image"]
        return {"agent": image}

    def memory_mib(name):
        (info,) = (task.info for task in machine.tasks.values() if task.name == name)
        return sum(one["scalar"]["value"] for one in info["resources"] if one["name"] == "mem")

    async with wire.Wire(machine).serving() as served, serving(archive) as uri:
        try:
            yield Platform(
                backend=(
                    f'{{kind: mesos, master: "{served.base}", user: "{getpass.getuser()}", '
                    f'runtimes: {{default: {{uri: "{uri}"}}}}}}'
                ),
                section=(
                    f"mesos: {{containerizer: {containerizer}, secrets: {secrets}, default_cpus: 0.1}}"
                ),
                images=images,
                memory_mib=memory_mib,
            )
            assert machine.launcher.fetched == [uri]  # once, whatever was started
        finally:
            await machine.launcher.aclose()


RUNTIME = "registry.example/agent-runtime:1"
MORE = """
      maven: {stands_for: "maven:{value}", allow: ["3.*"], container: maven, inherits: [maven]}
      golang: {stands_for: "golang:{value}", allow: ["1.*"], container: golang, inherits: [golang]}"""


@contextlib.asynccontextmanager
async def kubernetes(folder, archive, how="", *, images=None, port=None, **changes):
    images_there = {RUNTIME: archive.with_suffix("")} if images is None else images
    if images == "empty":  # what an API server without image volumes makes of one: `emptyDir`
        images_there = {RUNTIME: folder / "empty"}
    cluster = fake.Cluster(runner=machines.Machine(folder / "node", images_there), **changes)
    sides = ", ".join(
        f"{name}: {{spec: {{containers: [{{name: {name}, image: nothing, command: [sleep, '9'], "
        f"env: [{{name: WHO, value: {name}}}]}}]}}}}"
        for name in ("maven", "golang")
    )

    told = f'listen: "127.0.0.1:{port}", url: "http://127.0.0.1:{port}"'
    steps = "" if port is None else f"in_container: {{{told}}}, "

    def shown(name):
        told = cluster.manifests[name]["spec"]["containers"]
        return {{"jnlp": "agent"}.get(one["name"], one["name"]): one["image"] for one in told}

    def memory_mib(name):
        told = cluster.manifests[name]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        return int(told.removesuffix("Mi"))

    async with cluster.serving():
        yield Platform(
            backend=(
                f'{{kind: kubernetes, namespace: agents, server: "{cluster.url}", start_patience: 300ms, '
                f"{steps}"
                f"pods: {{{sides}}}, runtimes: {{default: {{image: '{RUNTIME}'{how}}}}}}}"
            ),
            section=(
                "kubernetes: {run_as_user: null, fs_group: null"
                f"{', in_container: true' if steps else ''}}}"
            ),
            cluster=cluster,
            images=shown,
            memory_mib=memory_mib,
            more=MORE,
        )


PLATFORMS = {
    "kubernetes": lambda folder, archive: kubernetes(folder, archive),
    "kubernetes-mount": lambda folder, archive: kubernetes(folder, archive, ", mount: true"),
    "mesos": lambda folder, archive: mesos(folder, archive, "mesos"),
    "mesos-docker": lambda folder, archive: mesos(folder, archive, "docker"),
}


@pytest.fixture
def archive(tmp_path):
    brought.need_images()
    path = tmp_path / "runtime.tar"
    brought.archive(path)
    brought.unpacked(path, path.with_suffix(""))
    return path


def write(made, platform):
    made.config.write_text(
        CONFIG.format(
            owner=stage.OWNER,
            url=made.server.url,
            state=made.state,
            backend=platform.backend,
            section=platform.section,
            more=platform.more,
        )
    )


def labels_of(made, name):
    return set(made.sim.nodes[name].labels) - {name}


async def reason_of(made, job, reason):
    """Ask the running broker, as a person would, until a build waits for that; return the words."""
    patient = patience.Patience(20)
    while True:
        process = await forked.talking(
            *("status", "--json", "--config", str(made.config)), cwd=made.folder, env=os.environ
        )
        out, _ = await patience.wait_for(process.communicate(), 60)
        rows = json.loads(out)["queue"]["items"] if out else []  # nothing: it is not up yet
        found = [row for row in rows if (row["job"], row["reason"]) == (job, reason)]
        if found:
            return found[0]["text"]
        assert not patient.is_over(), (rows, made.describe())


@pytest.mark.parametrize("kind", PLATFORMS)
async def test_a_build_gets_the_image_that_it_names(tmp_path, archive, kind, monkeypatch):
    """Once cold, then the same agent; another image; one that it may not have, and what it may."""
    monkeypatch.setenv("TOKEN", stage.TOKEN)
    async with (
        PLATFORMS[kind](tmp_path, archive) as platform,
        stage.Stage(tmp_path) as made,
    ):
        write(made, platform)
        broker = await made.start()
        asked = "box && image=lab/go:1.22 && memory=128m"
        made.server.submit(job="first", label=asked, duration_s=0.1)
        await made.until_served()
        (name,) = made.agents
        assert labels_of(made, name) == {"box", "image=lab/go:1.22", "memory=128m"}
        assert platform.images(name) == {"agent": "lab/go:1.22"}
        assert platform.memory_mib(name) == 128
        made.server.submit(job="second", label=f"{asked}&&box", duration_s=0.1)
        await made.until_served()
        assert made.agents == {name}
        made.server.submit(job="third", label="box && image=lab/go:1.20", duration_s=0.1)
        await made.until_served()
        (other,) = made.agents - {name}
        assert platform.images(other) == {"agent": "lab/go:1.20"}
        made.server.submit(job="denied", label="box && image=evil.example/lab/go:1")
        made.server.submit(job="last", label="box && image=lab/go:1.20", duration_s=0.1)
        await made.until(lambda: len(made.open) == 1, "all but one are served")
        words = await reason_of(made, "denied", "parameter")
        assert words == (
            "of template box image=evil.example/lab/go:1 is not allowed, but image=lab/go:*"
        )
        assert made.agents == {name, other}
        assert (await made.stop(broker)).code == 0


WHOSE = "the runtime of inject (container agent-broker-runtime): "


def ends(code, reason):
    return {
        "inits": {"agent-broker-runtime": {"terminated": {"exitCode": code, "reason": reason}}}
    }


@pytest.mark.parametrize(
    ("how", "changes", "words"),
    [
        ("", ends(137, "OOMKilled"), f"{WHOSE}killed for using more memory than its limit"),
        ("", {}, f"{WHOSE}ended with 1; it said last: the tree has not come whole"),
        ("", {"images": {}}, f"{WHOSE}the image cannot be pulled"),
        (
            ", mount: true",
            {"images": {}},
            "the runtime of inject (volume agent-broker-runtime): the image cannot be pulled",
        ),
        (
            ", mount: true",
            {"images": "empty"},
            "the runtime of inject is not in its volume (does the cluster mount images?): could",
        ),
    ],
    ids=["memory", "half-an-image", "no-image", "no-image-volume", "empty-volume"],
)
async def test_what_keeps_java_away_is_told_with_the_runtimes_name(
    tmp_path, archive, how, changes, words, monkeypatch
):
    """The build waits with it, and an agent's end says it; others are served meanwhile."""
    monkeypatch.setenv("TOKEN", stage.TOKEN)
    if not changes:
        (archive.with_suffix("") / "opt/agent/.complete").unlink()
    async with (
        kubernetes(tmp_path, archive, how, **changes) as platform,
        stage.Stage(tmp_path) as made,
    ):
        write(made, platform)
        broker = await made.start()
        made.server.submit(job="one", label="box", duration_s=0.1)
        patient = patience.Patience(60)
        while words not in (told := await reason_of(made, "one", "set-aside")):
            # of an end whose output could not be read in time the next try tells
            assert not patient.is_over(), told
        assert (await made.stop(broker)).code == 0


async def step(platform, name, words):
    """Run a shell's words in the agent's container, as a build does; return what they write."""
    life = platform.cluster.runner.lives[name]
    process = await asyncio.create_subprocess_exec(
        *life.inside("jnlp", ["sh", "-c", words]),
        env=life.env("jnlp"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await patience.wait_for(process.communicate(), 30)
    return process.returncode, out.decode()


async def test_the_containers_that_a_label_names_run_steps(tmp_path, archive, unused_tcp_port):
    """Each of its own image, in the agent's folder; the next build finds them again."""
    programs.need("curl")
    async with (
        kubernetes(tmp_path, archive, port=unused_tcp_port) as platform,
        stage.Stage(tmp_path) as made,
    ):
        write(made, platform)
        broker = await made.start()
        for number in range(2):
            made.server.submit(job=f"{number}", label="box && maven=3.9 && golang=1.22")
            await made.until(lambda: made.agents, "it has an agent")
            (name,) = made.agents
            await made.until(lambda: made.sim.nodes[name].connected, "its agent is online")
            code, said = await step(
                *(platform, name),
                f"""
                echo $$ > number-{number} &&
                in-container golang sh -c 'pwd; echo "$WHO-{number}" >> built' &&
                in-container maven sh -c 'cat number-{number} built; echo "$WHO"; exit 3'
                """,
            )
            work, pid, *rest, last = said.split()
            assert (code, pid.isdigit(), last) == (3, True, "maven"), said
            assert work == "/home/jenkins/agent"
            assert rest == [f"golang-{one}" for one in range(number + 1)]
        assert labels_of(made, name) == {"box", "maven=3.9", "golang=1.22"}
        assert platform.images(name) == {
            "agent": "lab/go:1.21",
            "maven": "maven:3.9",
            "golang": "golang:1.22",
        }
        assert (await made.stop(broker)).code == 0
