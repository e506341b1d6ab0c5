"""What kubelets tell of pods: read line by line, asked seldom, and shown while an agent lives."""

import logging
import time
from collections.abc import Mapping

import attrs
import hypothesis
import pytest
from hypothesis import strategies as st

from backends import api
from backends.kubernetes.api import errors
from backends.kubernetes.pods import kubelet, pod, used
from tests.contract import checks
from tests.each import each
from tests.kubernetes import fake, test_backend

MIB = 1 << 20


def line(
    name: str, value: object, container: str = "jnlp", pod_name: str = "a", namespace: str = "ns"
) -> str:
    """Write one series as a kubelet does, with its time."""
    labels = (
        f'container="{container}",id="/kubepods/burstable/podx/{container}",image="i:1",'
        f'name="c",namespace="{namespace}",pod="{pod_name}"'
    )
    more = ',cpu="total"' if name == "container_cpu_usage_seconds_total" else ""
    return f"{name}{{{labels}{more}}} {value} 1796032800000\n"


def text(*, ooms: int = 0, **who: str) -> bytes:
    """Write what a kubelet tells of a pod with one container."""
    return "".join(
        (
            "# HELP container_oom_events_total Count of out of memory events\n",
            "# TYPE container_oom_events_total counter\n",
            line("container_oom_events_total", ooms, **who),
            line("container_oom_events_total", 0, **{**who, "container": ""}),
            line("container_cpu_usage_seconds_total", 12.5, **who),
            line("container_cpu_usage_seconds_total", 99, **{**who, "container": ""}),
            line("container_cpu_cfs_throttled_seconds_total", 3.25, **who),
            line("container_memory_working_set_bytes", 1.048576e08, **who),
            line("container_memory_max_usage_bytes", 2.097152e08, **who),
            line("container_memory_max_usage_bytes", 2.2e08, **{**who, "container": ""}),
            line("container_fs_usage_bytes", 7, **who),
        )
    ).encode()


def read(told: bytes, *pods: str) -> Mapping[str, kubelet.PodSample]:
    reader = kubelet.KubeletReader(pods or ("a",), namespace="ns")
    for one in told.splitlines():
        reader.take(one)
    return reader.samples(now=5.0)


def test_one_container_is_read() -> None:
    sample = read(text(ooms=2))["a"]
    assert (2, 12.5, 3.25) == (sample.kills, sample.used.cpu_s, sample.used.throttled_s)
    assert 100 * MIB == sample.used.memory_bytes
    assert 200 * MIB == sample.used.memory_cached_peak_bytes


def test_containers_come_together() -> None:
    """But for their peaks: the sum of those is none, so the pod's own group counts."""
    told = read(text(ooms=2) + text(ooms=1, container="db"))["a"]
    assert (3, 25.0, 200 * MIB) == (told.kills, told.used.cpu_s, told.used.memory_bytes)
    assert 440_000_000 == told.used.memory_cached_peak_bytes  # two lines of it here
    assert (
        None
        is read(
            line("container_memory_max_usage_bytes", 5).encode()
            + line("container_memory_max_usage_bytes", 5, container="db").encode()
        )["a"].used.memory_cached_peak_bytes
    )


@each(
    "told",
    [
        text(pod_name="b"),
        text(namespace="other"),
        b"",
        b"container_oom_events_total 5\n",
        b'container_oom_events_total{pod="a",namespace="ns"} five\n',
        b'container_oom_events_total{pod="a",namespace="ns"} -1\n',
        b'container_oom_events_total{pod="a",namespace="ns"} 1e999\n',
        b'container_oom_events_total{pod="a" namespace="ns} 1\n',
        b'container_oom_events_total{image="\\",pod=\\"a\\",namespace=\\"ns\\""} 1\n',
        b'container_oom_events_total_more{pod="a",namespace="ns"} 1\n',
        b'container_oom_events_total{pod="a",namespace="ns",id="' + b"x" * 5000 + b'"} 1\n',
        b'container_oom_events_total{id="' + b"\\" * 4000 + b"\n",
    ],
)
def test_what_tells_nothing(told: bytes) -> None:
    """Other people's pods, and what is none of cAdvisor's lines."""
    assert {} == read(told)


@hypothesis.given(st.binary(max_size=400))
def test_no_line_harms(told: bytes) -> None:
    """Whatever comes."""
    start = b'container_oom_events_total{namespace="ns",pod="a",container="'
    read(start + told)
    read(start + told + b'"} 1')


def test_a_number_beyond_all_measure_is_cut() -> None:
    sample = read(text().replace(b"1.048576e+08", b"1e300").replace(b" 0 ", b" 1e99 "))["a"]
    assert sample.kills < 1 << 32
    many = "".join(line("container_oom_events_total", 1, container=f"c{n}") for n in range(3000))
    assert 1000 == read(many.encode())["a"].kills


@attrs.define
class Source:
    """Answers by node, and notes who was asked."""

    answers: dict[str, bytes | Exception]
    asked: list[str] = attrs.field(factory=list)

    async def kubelet_metrics(self, node: str) -> bytes:
        self.asked.append(node)
        answer = self.answers[node]
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_node_that_does_not_answer_costs_nobody_else() -> None:
    source = Source({"n1": api.Unavailable("away"), "n2": text()})
    taken: list[str] = []
    await used.Kubelets().ask(
        source,
        {"n1": ["b"], "n2": ["a"]},
        lambda name, _: taken.append(name),
        namespace="ns",
        now=0.0,
    )
    assert (["n1", "n2"], ["a"]) == (sorted(source.asked), taken)


async def test_many_nodes_have_their_turn() -> None:
    """A large cluster is not asked at once, and nobody is left out."""
    nodes = {f"n{number:03}": ["a"] for number in range(100)}
    source, asked = Source(dict.fromkeys(nodes, b"")), used.Kubelets()
    for minute in range(3):
        await asked.ask(source, nodes, lambda *_: None, namespace="ns", now=60.0 * minute)
        assert len(source.asked) == 48 * (minute + 1)
    assert set(nodes) == set(source.asked)


async def test_a_right_that_is_missing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """And asked for again ten minutes later."""
    caplog.set_level(logging.INFO, logger="backends.kubernetes")
    asked, source = used.Kubelets(), Source({"n": errors.NoRight("it is not permitted")})
    for now in (0.0, 60.0, 599.0, 601.0):
        await asked.ask(source, {"n": ["a"]}, lambda *_: None, namespace="ns", now=now)
    assert ["n", "n"] == source.asked
    assert ["it is not permitted"] == [record.reason for record in caplog.records]


async def test_a_kill_is_told_while_the_agent_lives(
    cluster: fake.Cluster, make: test_backend.Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often, and since when it is known; a kubelet that counts anew takes nothing back."""
    monkeypatch.setattr(used, "KUBELETS_EVERY_S", 0.0)
    ours = make(usage="kubelet")
    await ours.launch(test_backend.spec())
    found = await test_backend.running(ours)
    called = pod.pod_name(found.name)

    def tell(ooms: int) -> None:
        told = text(ooms=ooms, pod_name=called, namespace=cluster.namespace)
        cluster.kubelets = {found.place: told}

    async def shown() -> api.Instance:
        return (await checks.listed(ours))[found.name]

    async def is_told() -> bool:
        usage = (await shown()).usage
        return usage is not None and usage.throttled_s == 3.25

    async def times() -> int:
        mishap = (await shown()).mishap
        return 0 if mishap is None else mishap.times

    tell(0)
    await checks.until("use is told", is_told, within_s=10.0)
    assert (await shown()).mishap is None
    before = time.time()
    tell(2)
    await checks.until("the kills are told", lambda: _is(times, 2), within_s=10.0)
    mishap = (await shown()).mishap
    assert mishap is not None
    assert ("out-of-memory", "a process in it was killed for memory") == (mishap.slug, mishap.text)
    assert mishap.at is not None
    assert mishap.at >= before - 1
    tell(1)
    asked = len(cluster.requests)
    await checks.until(
        "it is asked again",
        lambda: _asked(cluster, asked, shown),
        within_s=10.0,
    )
    assert 2 == await times()
    path = [path for verb, path in cluster.requests if verb == "get nodes/proxy"][-1]
    assert path == f"/api/v1/nodes/{found.place}/proxy/metrics/cadvisor"
    assert not any(verb.endswith("metrics") for verb, _ in cluster.requests)


async def _is(look, wanted):
    return await look() == wanted


async def _asked(cluster, since, look):
    await look()
    new = [verb for verb, _ in cluster.requests[since:] if verb == "get nodes/proxy"]
    return len(new) >= 2


@pytest.mark.parametrize("usage", ["off", "metrics-server"])
async def test_no_kubelet_is_asked_unless_it_is_said(
    cluster: fake.Cluster, make: test_backend.Make, usage: str
) -> None:
    """The right is too powerful to be tried for nothing."""
    ours = make(usage=usage)
    await ours.launch(test_backend.spec())
    await test_backend.running(ours)

    async def asked() -> set[str]:
        await ours.list()
        return {"get nodes/proxy", "get metrics"} & {verb for verb, _ in cluster.requests}

    if usage == "metrics-server":
        await checks.until("the metrics API is asked", asked, within_s=10.0)
    assert await asked() == ({"get metrics"} if usage == "metrics-server" else set())


async def test_an_answer_without_end_is_cut(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """Sixteen MiB are more than a node has to tell."""
    cluster.kubelets = {"n": b"x" * (17 * MIB)}
    ours = make(usage="kubelet")
    asked, _ = await ours._open()
    with pytest.raises(api.BackendError):
        await asked.kubelet_metrics("n")
