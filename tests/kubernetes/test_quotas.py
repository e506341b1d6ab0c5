"""What quotas leave, when they are asked, and that room which they show is taken at once."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from backends import api
from backends.kubernetes import backend
from backends.kubernetes.api import errors, rights
from backends.kubernetes.pods import quantities, quotas, refused_pod
from tests.each import each
from tests.kubernetes import fake, test_backend, test_held

RIGHT = rights.OptionalRight("what a quota leaves is not known")
POD: dict[str, Any] = {
    "spec": {
        "containers": [
            {"resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
            {"resources": {"limits": {"cpu": "1", "memory": "512Mi"}}},
        ]
    }
}


def quota(hard: dict[str, Any], used: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}}


@each(
    ("told", "pods", "alike"),
    [
        ([], None, None),
        ([quota({"pods": "3"}, {"pods": "1"})], 2, 2),
        ([quota({"count/pods": "3"}, {"count/pods": "5"})], 0, 0),
        ([quota({"pods": "3"}, {}), quota({"pods": "9"}, {"pods": "8"})], 1, 1),
        ([quota({"requests.cpu": "6"}, {"requests.cpu": "0"})], None, 4),
        ([quota({"cpu": "6"}, {"cpu": "4501m"})], None, 0),
        ([quota({"limits.memory": "1Gi"}, {"limits.memory": "0"})], None, 2),
        ([quota({"memory": "3Gi", "pods": "9"}, {"memory": "1536Mi", "pods": "1"})], 8, 1),
        ([quota({"requests.ephemeral-storage": "1"}, {})], None, None),
        ([quota({"services": "0", "requests.nvidia.com/gpu": "0"}, {})], None, None),
        ([quota({"pods": "0"}, {}, scopes=["BestEffort"])], None, None),
        ([quota({"pods": "0"}, {}, scopeSelector={"matchExpressions": []})], None, None),
        ([quota({"pods": ["x"]}, {"pods": None}), {"status": 7}, {}], None, None),
    ],
)
def test_what_quotas_leave(told: list[Any], pods: int | None, alike: int | None) -> None:
    """For any pod, and for one that asks for so much; what is not told is no limit."""
    found = quotas.room(told, POD)
    assert (pods, alike) == (found.pods, found.alike)
    assert bool(found.text) == (alike == 0)


@each(
    ("told", "meant"),
    [
        ("3", 3.0),
        ("250m", 0.25),
        ("1.5Gi", 1.5 * 2**30),
        ("2k", 2000.0),
        ("31250n", 3.125e-5),
        ("7u", 7e-6),
        ("-1", None),
        ("1e3", None),
        ("three", None),
        (3, None),
    ],
)
def test_quantities(told: Any, meant: float | None) -> None:
    """As Kubernetes writes them back; others are unknown."""
    assert meant == quantities.amount(told)


class Asked:
    """Quotas that change, or may not be read."""

    def __init__(self) -> None:
        self.used = 3
        self.times = 0
        self.error: api.BackendError | None = None

    async def quotas(self) -> list[dict[str, Any]]:
        self.times += 1
        if self.error is not None:
            raise self.error
        return [quota({"pods": "3"}, {"pods": str(self.used)})]


async def test_a_quota_is_read_seldom_and_its_room_is_a_sign() -> None:
    """Every few seconds; at once when the number of our pods changes."""
    asked, refused = Asked(), refused_pod.RefusedPod(pod=POD, at=100.0, right=RIGHT)

    async def told(now: float, pods: int = 3) -> tuple[int | None, float | None]:
        seen = await refused.capacity(asked, pods=pods, now=now)
        assert seen is not None
        return seen.free_instances, seen.room_at

    assert [(0, None)] * 3 == [await told(100.1), await told(104.0), await told(108.0)]
    before = asked.times
    assert (0, None) == await told(109.0)
    assert before == asked.times
    asked.used = 2
    assert (1, 109.6) == await told(109.6, pods=2)
    asked.used = 1
    assert (2, 109.6) == await told(130.0, pods=2), "room that grows is no new sign"


async def test_a_quota_that_may_not_be_read_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is known then; it is said once and not asked again and again, whoever is refused."""
    caplog.set_level(logging.INFO, logger="backends.kubernetes")
    right = rights.OptionalRight("what a quota leaves is not known")
    asked, refused = Asked(), refused_pod.RefusedPod(pod=POD, at=100.0, right=right)
    asked.error = errors.NoRight("no")
    for now in range(100, 200):
        if now % 10 == 0:
            refused = refused_pod.RefusedPod(pod=POD, at=now, right=right, before=refused)
        assert await refused.capacity(asked, pods=3, now=float(now)) is None
    assert asked.times == 1
    assert [right.cost] == [record.message for record in caplog.records]


async def test_without_a_refusal_nothing_is_asked(
    cluster: fake.Cluster, make: Callable[..., backend.KubernetesBackend]
) -> None:
    """A quota is looked at only while it is in the way."""
    cluster.quotas, cluster.most_pods = [], 1
    ours = make()
    assert await ours.capacity() is None
    await ours.launch(test_backend.spec())
    with pytest.raises(api.NoCapacity):
        await ours.reserve(test_backend.reservation("a2"))
    seen = await ours.capacity()
    assert seen is not None
    assert (0, "quota agents: pods 1 of 1") == (seen.free_instances, seen.text)


@pytest.mark.parametrize("readable", [True, False])
async def test_a_quota_that_is_full(
    cluster: fake.Cluster,
    make: Callable[..., backend.KubernetesBackend],
    monkeypatch: pytest.MonkeyPatch,
    readable: bool,
) -> None:
    """No node for a pod that is refused; what others free is seen, where it may be looked at."""
    monkeypatch.setattr(refused_pod, "_EVERY_S", 0.1)
    cluster.quotas, cluster.most_pods = [] if readable else None, 2
    async with test_held.broker(cluster, make()) as made:
        for _ in range(6):
            made.submit(duration_s=3600.0)

        def at_work() -> int:
            return sum(item.started_at is not None for item in made.sim.items.values())

        await made.until("two are at work", lambda: at_work() == 2)
        await made.until("the others are told", lambda: "quota" in made.texts())
        assert made.controller.asked["create"] == 2
        if not readable:
            return
        refused = cluster.refused
        cluster.most_pods = 4
        await made.until("two more are at work", lambda: at_work() == 4)
        assert cluster.refused <= refused + 1
