"""What the Kubernetes backend costs a broker: memory at rest, with 1000 pods, and afterwards.

Run: ``python benchmarks/kubernetes_memory.py [--pods N] [--kubeconfig]``. First a real broker at
rest, against a simulated controller and a fake API server in other processes; then the backend
alone with many pods. docs/performance.md holds what was measured.
"""

# ruff: noqa: S603, TID251, ASYNC110, SIM117 -- our own commands; a measurement, not a model

import argparse
import asyncio
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import yaml

import broker.app  # noqa: F401 -- what a broker has loaded counts
from backends import api
from backends.kubernetes import backend, settings
from tests.kubernetes import fake

_SETTLE_S = 20.0
_ROUNDS = 3


def rss(pid: int | str = "self") -> float:
    """Resident memory of a process in MiB."""
    told = pathlib.Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", told)
    return int(found[1]) / 1024 if found else 0.0


async def serve() -> None:
    """Be the API server, until somebody ends us."""
    async with fake.Cluster().serving() as cluster:
        print(cluster.url, flush=True)
        await asyncio.sleep(3600)


def broker_at_rest(server: str, *, kubeconfig: bool) -> float:
    """Memory of a whole broker that has nothing to do."""
    script = [pathlib.Path(sys.executable).with_name("agent-broker"), "demo", "--controller-only"]
    script += ["--listen", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory() as folder:
        with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as controller:
            try:
                told = ""
                while "url:" not in told:
                    told = controller.stdout.readline()
                    if not told:
                        raise SystemExit("the simulated controller did not start")
                url = re.search(r'url: "([^"]+)"', told)[1]
                return _run(pathlib.Path(folder), url, server, kubeconfig=kubeconfig)
            finally:
                controller.kill()


def _run(folder: pathlib.Path, url: str, server: str, *, kubeconfig: bool) -> float:
    told = {"kind": "kubernetes", "namespace": "agents"}
    if kubeconfig:
        config = folder / "config"
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        cluster = {"name": "c", "cluster": {"server": server}}
        user = {"name": "u", "user": {"token": "t"}}
        config.write_text(
            yaml.safe_dump(
                {"clusters": [cluster], "users": [user], "contexts": [context]}
                | {"current-context": "c", "apiVersion": "v1", "kind": "Config"}
            )
        )
        told["kubeconfig"] = str(config)
    else:
        told["server"] = server
    document = {
        "owner": "rest",
        "controller": {"url": url, "user": "demo", "token": "env:DEMO_TOKEN"},
        "listen": "127.0.0.1:0",
        "state_dir": str(folder / "state"),
        "backends": {"cluster": told},
        "templates": {"rare": {"labels": "nobody-asks", "image": "jenkins/inbound-agent"}},
    }
    (folder / "broker.yaml").write_text(yaml.safe_dump(document))
    command = [pathlib.Path(sys.executable).with_name("agent-broker"), "run"]
    with subprocess.Popen(
        [*command, "--config", folder / "broker.yaml"],
        env={**os.environ, "DEMO_TOKEN": "11demo"},
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            time.sleep(_SETTLE_S)
            return rss(running.pid)
        finally:
            running.kill()


async def many(server: str, pods: int) -> None:
    """Memory of the backend alone with many pods, again and again."""
    ours = backend.KubernetesBackend(
        settings.KubernetesSettings(server=server, namespace="agents"), owner="many", now=time.time
    )

    async def follow() -> None:
        async for _ in ours.watch():
            pass

    task = asyncio.ensure_future(follow())
    await ours.list()
    print(f"backend alone, at rest: {rss():.1f} MiB")
    for number in range(_ROUNDS):
        names = [f"many-{number}-{n}" for n in range(pods)]
        gate = asyncio.Semaphore(20)

        async def one(name: str, gate: asyncio.Semaphore = gate) -> None:
            async with gate:
                await ours.launch(
                    api.InstanceSpec(name=name, metadata={"owner": "many"}, image="busybox")
                )

        began = time.monotonic()
        await asyncio.gather(*map(one, names))
        rate = pods / (time.monotonic() - began)
        while len(await ours.list()) < pods:
            await asyncio.sleep(0.1)
        looks = time.monotonic()
        await ours.list()
        looks = time.monotonic() - looks
        full = rss()

        async def end(name: str, gate: asyncio.Semaphore = gate) -> None:
            async with gate:
                await ours.terminate(name, grace_s=0)

        await asyncio.gather(*map(end, names))
        while await ours.list():
            await asyncio.sleep(0.1)
        print(
            f"round {number + 1}: {rate:.0f} launches/s, {pods} pods {full:.1f} MiB, a look "
            f"{looks * 1000:.1f} ms, afterwards {rss():.1f} MiB"
        )
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ours.aclose()


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--kubeconfig", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    again = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(again, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().strip()
            at_rest = broker_at_rest(url, kubeconfig=options.kubeconfig)
            print(f"agent-broker run, at rest: {at_rest:.1f} MiB")
            if not options.kubeconfig:
                asyncio.run(many(url, options.pods))
        finally:
            server.kill()


if __name__ == "__main__":
    main()
