"""A queue full of hostile labels, through a running broker: the others are served meanwhile.

The template that is attacked runs on a cluster whose pods are never online, so all that was ordered
there is seen; the other one runs real processes. Whoever may queue builds writes labels.
"""

import pathlib
import re

import aiohttp
import pytest

from tests.e2e import stage
from tests.kubernetes import fake

CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:TOKEN", timeout: 20s}}
poll: {{busy: 250ms, idle: 1s}}
state_dir: {state}
listen: "127.0.0.1:0"
log: {{format: console}}
backends:
  cluster: {{kind: kubernetes, namespace: agents, server: "{cluster}"}}
  local: {{kind: process, directory: {directory}}}
templates:
  box:
    backends: [cluster]
    labels: box
    image: lab/go:1.21
    cap: 5
    parameters:
      image: {{allow: ["lab/go:*"]}}
      memory: {{min: 64Mi, max: 1g}}
      cpu: {{max: 4}}
  pool:
    backends: [local]
    labels: pool
    command: {command}
    parameters:
      size: {{values: {{small: {{}}, large: {{}}}}}}
advanced: {{resume_grace: 500ms, orphan_grace: 1s, backoff_base: 500ms, backoff_max: 2s}}
"""
ODD = [
    *("image=", "image=a&&image=b", "image=lab/go:1&&image=lab/go:2", "!image=lab/go:1"),
    *("(image=evil:1||image=worse:1)", "!(image=evil:1)", "image", "=", "image==lab/go:1"),
    *('"image=lab/go:1;id"', '"image=lab/go:1 --privileged"', '"image=lab/go:1\\n"', '"'),
    *("image=lab/g\u043e:1", "image\uff1dlab/go:1", "\u200bimage=lab/go:1", "image=lab/go:\u202e1"),
    *("image=LAB/GO:1", f"image=lab/go:1@sha256:{'0' * 64}", "image=lab/go:../../../etc/passwd"),
    *("image=lab%2Fgo:1", "image=lab/go:%31", "image=evil.example/lab/go:1", "image=lab/go/x:1"),
    *("image=lab/go:1\x00", "image=lab/go:\x1b[2J", '"image=lab/go:\r\nX-Evil: 1"', "image=${work}"),
    *("image={name}", "image=lab/go:{value}", "image=$(HOME)", "image=lab/go:`id`", "image=-"),
    *("memory=1e99", "memory=-1g", "memory=NaN", "memory=inf", "memory=0g", "memory=\u0661g"),
    *("memory=99999999999999g", "memory=2g", "memory=1m", "memory=1g1g", "memory=0x40000000"),
    *("cpu=1e9", "cpu=-1", "cpu=nan", "cpu=4.0001", "cpu=0", "cpu=\u0664", "cpu=1_0"),
    *("size=small", "size=large&&image=lab/go:1", "image=lab/go:1&&image=lab/go:1&&size=huge"),
    *("(" * 100, "!" * 301 + "x", "||".join(f"image=lab/go:{n}" for n in range(300))),
    *("&&".join(f"image=evil:{n}" for n in range(300)), f"image=lab/go:{'1' * 500}"),
]  # fmt: skip


def hostile(number):
    """Return labels: so many different images, allowed and not, and the odd ones."""
    many = [f"image=lab/go:{one}" for one in range(number)]
    many += [f"image=evil.example/go:{one}" for one in range(number)]
    for first in range(0, 10 * number, 200):  # ten times as many in all, in fewer items
        many.append("||".join(f"image=lab/go:x{one}" for one in range(first, first + 200)))
    many += ["image=" + "a" * 1_000_000, "&&".join(["image=lab/go:1"] * 300)]
    return [f"box&&{one}" for one in (*many, *ODD)]


def resident_mib(process):
    told = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", told)[1]) / 1024


def allowed(manifest):
    """Tell whether a pod is nothing but what its template lets builds ask for."""
    (container,) = manifest["spec"]["containers"]
    limits = container["resources"].get("limits", {})
    asked = limits.get("memory", "64Mi"), limits.get("cpu", "1")
    return (
        re.fullmatch(r"lab/go:[\w.-]{1,128}", container["image"], re.ASCII) is not None
        and asked in {("64Mi", "1"), ("64Mi", "4")}
        and not manifest["spec"].get("initContainers")
        and "privileged" not in str(manifest)
    )


async def read(url, path):
    async with aiohttp.ClientSession() as http, http.get(f"{url}{path}") as answer:
        assert answer.status == 200, path
        return await answer.text()


@pytest.mark.parametrize(
    "number", [50, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
)
async def test_hostile_labels_reach_no_backend_and_nobody_else(tmp_path, number):
    """The loop goes on, memory, page and metrics stay small, every pod is an allowed one."""
    async with fake.Cluster().serving() as cluster, stage.Stage(tmp_path) as made:
        made.config.write_text(
            CONFIG.format(
                owner=stage.OWNER,
                url=made.server.url,
                state=made.state,
                cluster=cluster.url,
                directory=made.instances,
                command=[stage.sys.executable, "-S", str(stage.AGENT)],
            )
        )
        broker = await made.start()
        made.server.submit(job="before", label="pool && size=small", duration_s=0.1)
        await made.until_served()
        before_mib = resident_mib(broker)
        for place, label in enumerate(hostile(number)):
            made.server.submit(job=f"evil-{place % 50}", label=label)
        held = len(made.open)
        for one in range(3):
            size = ("small", "large")[one % 2]
            made.server.submit(job=f"good-{one}", label=f"pool && size={size}", duration_s=0.1)
        await made.until(lambda: len(made.open) == held, "the others are served", within_s=120)
        await made.until(lambda: cluster.manifests, "what is allowed is ordered", within_s=60)
        assert [one for one in cluster.manifests.values() if not allowed(one)] == []
        assert len(cluster.pods) <= 5
        url = re.search(r"status page served +url=(\S+)/", broker.said.read_text())[1]
        page, metrics = await read(url, "/"), await read(url, "/metrics")
        assert len(page) < 1_000_000
        assert "lab/go" not in metrics
        assert "evil" not in metrics
        assert metrics.count("\n") < 1000
        assert resident_mib(broker) < before_mib + 100
        assert (await made.stop(broker, within_s=60)).code == 0
