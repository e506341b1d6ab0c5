"""What pods use, by the metrics API: read, asked for seldom, and shown with a pod and its end."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from backends import api
from backends.kit import usage
from backends.kubernetes.api import errors
from backends.kubernetes.pods import pod, used
from tests.contract import checks
from tests.each import each
from tests.kubernetes import fake, test_backend

MIB = 1 << 20


def metrics(*containers: tuple[str, str], timestamp: str = "2026-11-30T10:00:00Z") -> Any:
    """Write them as metrics-server does."""
    return {
        "timestamp": timestamp,
        "window": "15.2s",
        "containers": [
            {"name": f"c{number}", "usage": {"cpu": cpu, "memory": memory}}
            for number, (cpu, memory) in enumerate(containers)
        ],
    }


def test_all_containers_of_a_pod_count() -> None:
    told = used.read(metrics(("250000000n", "102400Ki"), ("1", "50Mi")), now=2e9)
    assert usage.Sample(at=1796032800.0, memory_bytes=150 * MIB, cpu_cores=1.25) == told


@each(
    "told",
    [
        {},
        {"containers": []},
        {"containers": "?"},
        {"containers": [{"usage": {"cpu": "much", "memory": 7}}]},
        {"containers": [{"usage": {"memory": "1Mi"}}, {"usage": {}}], "timestamp": 7},
    ],
)
def test_what_tells_nothing(told: dict[str, Any]) -> None:
    """Of a pod of which one container is not told, no sum is."""
    assert used.read(told, now=5.0) is None


def test_an_odd_time_is_now() -> None:
    for odd in ("yesterday", "9999-99-99T00:00:00Z", "2999-01-01T00:00:00Z"):
        told = used.read(metrics(("1", "1Mi"), timestamp=odd), now=5.0)
        assert told is not None
        assert told.at == 5.0


class Source:
    """Answers, and counts."""

    def __init__(self, answer: Sequence[Mapping[str, Any]] | Exception) -> None:
        self.answer, self.asked = answer, 0

    async def pod_metrics(self, selector: str) -> Sequence[Mapping[str, Any]]:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@each(
    ("trouble", "times"),
    [
        (errors.NoRight("it is not permitted"), 3),
        (api.NotFound("there is no such API"), 3),
        (api.Unavailable("metrics-server is away"), 22),
    ],
)
async def test_who_is_refused_asks_again_seldom(trouble: Exception, times: int) -> None:
    asked, source = used.PodMetrics(), Source(trouble)
    for second in range(0, 1300, 10):
        await asked.ask(source, "s", lambda *_: None, now=float(second))
    assert times == source.asked


async def test_a_right_that_is_missing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="backends.kubernetes")
    asked, source = used.PodMetrics(), Source(errors.NoRight("it is not permitted"))
    for second in (0.0, 700.0):
        await asked.ask(source, "s", lambda *_: None, now=second)
    assert ["it is not permitted"] == [record.reason for record in caplog.records]


async def test_it_is_shown_with_a_pod(cluster: fake.Cluster, make: test_backend.Make) -> None:
    """And costs no listing anything where the cluster has no such server."""
    ours = make()
    await ours.launch(test_backend.spec())
    found = await test_backend.running(ours)
    assert found.usage is None
    told = metrics(("1500m", "300Mi"))
    cluster.metrics = {pod.pod_name(found.name): told, "another": told}
    other = make()

    async def shown() -> api.Usage | None:
        return (await checks.listed(other))[found.name].usage

    seen = await checks.until("it is told", shown, within_s=10.0)
    assert (300 * MIB, 300 * MIB, 1.5) == (
        seen.memory_bytes,
        seen.memory_peak_bytes,
        seen.cpu_peak_cores,
    )
    asked = [path for verb, path in cluster.requests if verb.endswith("metrics")]
    assert "labelSelector=" in asked[-1]


async def test_an_addition_that_is_out_of_order_costs_nobody_else(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """One that does not know who we are is no reason to connect anew under what is going on."""
    cluster.faults += [
        fake.Fault(verb="get metrics", answer="error-401-bad-token", times=9),
        fake.Fault(verb="get metrics", body=b"[" * 99999),
    ]
    ours = make()
    await ours.launch(test_backend.spec())
    found = await test_backend.running(ours)
    asked, _ = await ours._open()
    session = asked._session
    with pytest.raises(api.Unauthorized):
        await asked.pod_metrics("a=b")
    assert asked._session is session
    await ours.terminate(found.name, grace_s=0)
