"""A broker at rest is small, whatever it works with: it is paid once for each controller."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import yaml

from tests import patience
from tests.docker import engines
from tests.e2e import stage
from tests.kubernetes import fake
from tests.mesos import master, wire

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

# what docs/performance.md promises; later Pythons are larger by themselves
LARGER_MIB = 0 if sys.version_info < (3, 14) else 4
RSS_MIB = {"kubeconfig": 72}
RSS_MIB_OF_ANY = 64
SDKS = {
    *("docker", "kubernetes", "google", "oauthlib", "jenkins", "requests", "urllib3", "pymesos"),
    # what talks to a platform; the settings of every kind are read with the configuration
    *("backends.docker.backend", "backends.docker.engine.wire", "backends.kubernetes.backend"),
    *("backends.mesos.backend", "backends.process.backend"),
    *("broker.demo", "broker.simulator", "pytest"),
}
NEEDED = {
    "process": {"backends.process.backend"},
    "docker": {
        *("docker", "requests", "urllib3"),
        *("backends.docker.backend", "backends.docker.engine.wire"),
    },
    "kubernetes": {"backends.kubernetes.backend"},
    "kubeconfig": {"backends.kubernetes.backend"},  # the package itself: in a child that has ended
    "mesos": {"backends.mesos.backend"},
}
RUN = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules))))
from broker.cli import main as cli
sys.exit(cli.main(sys.argv[1:]))
"""


def kubeconfig(folder, server):
    """Write one; return where."""
    path = folder / "kubeconfig"
    told = {
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(told))
    return str(path)


@contextlib.asynccontextmanager
async def platform(kind, folder):
    """Serve what a backend talks to; give its settings, and whether it is at work."""
    if kind == "process":
        yield {"kind": kind, "directory": str(folder / "instances")}, lambda: True
    elif kind == "docker":
        yield {"kind": kind, "hosts": [{"url": engines.address()}]}, lambda: True
    elif kind == "mesos":
        async with wire.Wire(master.Master()).serving() as served:
            door = {"listen": "127.0.0.1:0", "url": "http://127.0.0.1:0"}
            told = {"kind": kind, "master": served.base, "handover": door}
            yield told, lambda: served.subscribes
    else:
        if kind == "kubeconfig":
            pytest.importorskip("kubernetes", reason="the extra `kubernetes` is not installed")
        async with fake.Cluster().serving() as cluster:
            where = {"server": cluster.url}
            if kind == "kubeconfig":
                where = {"kubeconfig": kubeconfig(folder, cluster.url)}
            told = {"kind": "kubernetes", "namespace": cluster.namespace, **where}
            yield told, lambda: "watch" in cluster.verbs()


@contextlib.asynccontextmanager
async def resting(kind, folder):
    """Run a broker that has nothing to do; give its process once it looks again and again."""
    async with stage.Stage(folder) as made, platform(kind, folder) as (told, is_at_work):
        made.write_config(listen="127.0.0.1:0", templates="  rare: {labels: rare, image: any}\n")
        document = yaml.safe_load(made.config.read_text())
        document["backends"] = {"there": told}
        if kind == "process":
            del document["templates"]["rare"]["image"]
        made.config.write_text(yaml.safe_dump(document))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RUN, "run", "--config", str(made.config)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TOKEN": stage.TOKEN},
        )
        try:
            looks = ("GET", "queue/api/json")
            await made.until(
                lambda: is_at_work() and made.server.requests.count(looks) >= 4, "it is at work"
            )
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes", "kubeconfig", "mesos"])
async def test_a_broker_at_rest_holds_what_it_needs(kind, tmp_path):
    """The whole process, as the kernel counts it; no SDK but that of its backend."""
    async with resting(kind, tmp_path) as process:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGTERM)
        out, _ = await patience.wait_for(process.communicate(), 20)

    assert process.returncode == 0
    loaded, needed = set(json.loads(out)), NEEDED[kind]
    assert needed <= loaded
    assert set() == loaded & (SDKS - needed)
    (rss,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss <= (RSS_MIB.get(kind, RSS_MIB_OF_ANY) + LARGER_MIB) * 1024
