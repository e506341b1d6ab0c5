"""Node autoscalers spare the pods of agents, but for those that have been idle for a while."""

import asyncio
import logging
from typing import Any

import pytest

from backends import api
from backends.kubernetes import backend, settings
from backends.kubernetes.pods import pod as pods
from tests import patience
from tests.kubernetes import fake, test_backend

SAFE, DISRUPT = pods.GUARDS


async def followed(ours: backend.KubernetesBackend) -> Any:
    """Keep the picture, as the loop does; return the task."""

    async def follow() -> None:
        async for _ in ours.watch():
            pass

    task = asyncio.ensure_future(follow())
    async with patience.limit(5):
        while (await ours._open())[1].shown() is None:
            await asyncio.sleep(0.005)
    return task


def guards(cluster: fake.Cluster, name: str) -> dict[str, str]:
    told = cluster.pods[name]["metadata"]["annotations"]
    return {key: told[key] for key in pods.GUARDS if key in told}


async def shown(ours: backend.KubernetesBackend, cluster: fake.Cluster, count: int) -> None:
    """Wait until the picture shows the versions that the cluster has."""
    kept = (await ours._open())[1]
    async with patience.limit(5):
        while {one.pod: one.version for one in kept.shown() or ()} != {
            name: pod["metadata"]["resourceVersion"] for name, pod in cluster.pods.items()
        } or len(cluster.pods) != count:
            await asyncio.sleep(0.005)


async def test_a_pod_is_spared_unless_its_agent_is_idle(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """From its creation on, taken off when idle and put back with a build; nothing else changes."""
    ours = make()
    task = await followed(ours)
    for name in ("a0", "a1"):
        await ours.launch(test_backend.spec(name))
        await test_backend.running(ours, name)
    await shown(ours, cluster, 2)
    assert pods.GUARDS == guards(cluster, "a0") == guards(cluster, "a1")

    assert await ours.tell_idle({"a0"})
    assert ({}, pods.GUARDS) == (guards(cluster, "a0"), guards(cluster, "a1"))
    await shown(ours, cluster, 2)
    asked = cluster.verbs().count("patch")
    assert await ours.tell_idle({"a0"})
    assert asked == cluster.verbs().count("patch") == 1

    assert await ours.tell_idle(set())
    assert pods.GUARDS == guards(cluster, "a0")
    await shown(ours, cluster, 2)
    assert {api.InstanceState.RUNNING} == {one.state for one in await ours.list()}
    task.cancel()


async def test_nothing_is_told_while_the_picture_is_not_kept(make: test_backend.Make) -> None:
    """An old one would name pods that are gone."""
    assert not await make().tell_idle({"a0"})


async def test_without_the_right_all_stay_spared(
    cluster: fake.Cluster, make: test_backend.Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once; the cluster is not asked again for a while."""
    caplog.set_level(logging.INFO, logger="backends.kubernetes")
    cluster.denied.add(("patch", "pods"))
    ours = make()
    task = await followed(ours)
    for name in ("a0", "a1"):
        await ours.launch(test_backend.spec(name))
    await test_backend.running(ours, "a1")
    for _ in range(3):
        assert await ours.tell_idle({"a0", "a1"})
    assert pods.GUARDS == guards(cluster, "a0")
    assert 1 == cluster.verbs().count("patch")
    said = [r for r in caplog.records if r.message == "idle pods stay spared by node autoscalers"]
    assert 1 == len(said)
    assert "cannot patch" in said[0].reason or "not allowed to patch" in said[0].reason
    task.cancel()


async def test_one_that_is_refused_or_gone_is_not_waited_for(
    cluster: fake.Cluster, make: test_backend.Make
) -> None:
    """The others are told all the same; the refusal is."""
    ours = make()
    task = await followed(ours)
    for name in ("a0", "a1", "a2"):
        await ours.launch(test_backend.spec(name))
        await test_backend.running(ours, name)
    await shown(ours, cluster, 3)
    cluster.fail("patch", "error-422-patch-uid", when=lambda r: r.path.endswith("/a0"))
    cluster.fail("patch", "error-404-pod-patch", when=lambda r: r.path.endswith("/a1"))
    with pytest.raises(api.Rejected):
        await ours.tell_idle({"a0", "a1", "a2"})
    assert (pods.GUARDS, {}) == (guards(cluster, "a1"), guards(cluster, "a2"))
    task.cancel()


async def test_a_few_at_a_time_and_who_has_a_build_first(
    cluster: fake.Cluster, make: test_backend.Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told the rest later tells it again until it is done."""
    monkeypatch.setattr(backend, "_PATCHES", 2)
    ours = make()
    task = await followed(ours)
    for name in ("a0", "a1", "a2"):
        await ours.launch(test_backend.spec(name))
        await test_backend.running(ours, name)
    cluster.change("a2", lambda pod: [pod["metadata"]["annotations"].pop(k) for k in pods.GUARDS])
    await shown(ours, cluster, 3)
    assert not await ours.tell_idle({"a0", "a1"})
    assert pods.GUARDS == guards(cluster, "a2")
    await shown(ours, cluster, 3)
    assert await ours.tell_idle({"a0", "a1"})
    assert ({}, {}) == (guards(cluster, "a0"), guards(cluster, "a1"))
    task.cancel()


@pytest.mark.parametrize(
    ("annotations", "kept", "ours"),
    [
        ({}, pods.GUARDS, [SAFE, DISRUPT]),
        ({SAFE: "true"}, {SAFE: "true", DISRUPT: "true"}, [DISRUPT]),
        ({SAFE: "false"}, pods.GUARDS, [DISRUPT]),
        ({SAFE: None}, {DISRUPT: "true"}, [DISRUPT]),
        ({SAFE: None, DISRUPT: None}, {}, []),
    ],
)
def test_what_a_template_says_itself_is_not_touched(
    annotations: dict[str, Any], kept: dict[str, str], ours: list[str]
) -> None:
    """In its own `pod` or in a fragment: the broker neither sets nor removes it."""
    layer = {"metadata": {"annotations": annotations}}
    for options, fragments in (
        (settings.KubernetesTemplate(pod=layer), {}),
        (settings.KubernetesTemplate(inherits=("f",)), {"f": layer}),
    ):
        spec = api.InstanceSpec(name="a", metadata={}, image="i", options=options)
        told = pods.make(spec, owner="o", fragments=fragments).pod["metadata"]["annotations"]
        assert kept == {key: told[key] for key in pods.GUARDS if key in told}
        assert ours == told.get(pods.GUARDED, "").split()
