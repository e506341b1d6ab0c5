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
RSS_MIB = 48 if sys.version_info < (3, 14) else 52
SDKS = {
    *("docker", "kubernetes", "jenkins", "requests", "urllib3", "pymesos", "pytest"),
    *("backends.docker", "backends.kubernetes", "backends.mesos", "backends.memory"),
}
NEEDED = {
    "docker": {"docker", "requests", "urllib3", "backends.docker"},
    "kubernetes": {"backends.kubernetes"},
    "kubeconfig": {"backends.kubernetes"},
    "mesos": {"backends.mesos"},
}
NEVER = {  # for reading a configuration, for a person, for the demo, or for nothing at all
    *(
        "yaml",
        "cattrs",
        "difflib",
        "zoneinfo",
        "charset_normalizer",
        "aiohttp.web",
        "frozenlist._frozenlist",
    ),
    *("broker.config.loading", "broker.config.building", "broker.config.shape"),
    *(
        "broker.demo",
        "broker.cli.doctor",
        "broker.cli.rendering",
        "kubernetes",
        "google",
        "oauthlib",
    ),
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
    """The whole process, as the kernel counts it; nothing of other backends, nothing used once."""
    async with resting(kind, tmp_path) as process:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGTERM)
        out, _ = await patience.wait_for(process.communicate(), 20)

    assert process.returncode == 0
    loaded, needed = set(json.loads(out)), NEEDED.get(kind, set())
    assert needed <= loaded
    assert set() == loaded & ((SDKS | NEVER) - needed)
    (rss,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss <= RSS_MIB * 1024
