"""A pod that does not go, or goes by other hands: named wherever somebody looks, and no standstill.

The real loop beside a simulated controller, on the fake cluster: agents connect as their pods run.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest

from backends import api
from backends.kubernetes import backend
from backends.kubernetes.pods import pod
from broker.core import model
from broker.core.fleet import ledger as ledgers
from broker.loop import pace
from broker.status import documents
from tests import patience
from tests.kubernetes import fake
from tests.loop import daemons
from tests.status import status_source

WITHIN_S = 60.0
HOLD = "example.com/hold"


class Daemon(daemons.Daemon):
    """A broker whose agents are pods."""

    def __init__(self, cluster: fake.Cluster, ours: api.Backend, **template: Any) -> None:
        template = {"retention": model.Retention(once=True), **template}
        super().__init__(
            daemons.template(**template),
            pace=pace.Pace(busy_s=0.05, idle_s=0.1, least_s=0.01),
        )
        self.cluster = cluster
        self.backends[daemons.LOCAL] = ours
        self.loop.executor.grace_s = 0

    def _order(self, action: model.LaunchAgent) -> Any:
        order = super()._order(action)

        def spec_with(secret: Any) -> api.InstanceSpec:
            made = order.spec_with(secret)
            return attrs.evolve(made, image="busybox", secret_files={"agent-secret": "s" * 64})

        return attrs.evolve(order, spec_with=spec_with)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            now = self.watch.now()
            running = {
                p["metadata"]["annotations"][pod.NAME]
                for p in self.cluster.pods.values()
                if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]
            }
            for name, node in list(self.sim.nodes.items()):
                if name in running and not node.connected:
                    self.sim.connect(now, name)
                elif name not in running and node.connected:
                    self.sim.disconnect(now, name)
            self.sim.advance(now)

    async def until(self, what: str, true: Callable[[], Any]) -> Any:
        try:
            async with patience.limit(WITHIN_S):
                while not (found := true()):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not in {WITHIN_S} s: {what}; {self.shown()}") from None
        return found

    def shown(self) -> dict[str, Any]:
        """What the page and the commands are made of."""
        source = status_source.FixedSource(
            world=self.loop.state.world,
            plan=self.loop.state.plan,
            policy=self.policy,
            deaths=self.loop.state.deaths,
        )
        return {
            "agents": documents.agents(source)["agents"],
            "deaths": documents.agents(source)["deaths"],
            "queue": documents.queue(source)["items"],
            "held": documents.plan(source)["refusals"],
        }

    def texts(self) -> str:
        """Return why items wait."""
        return " | ".join(row["text"] for row in self.shown()["queue"])


@contextlib.asynccontextmanager
async def broker(
    cluster: fake.Cluster, ours: backend.KubernetesBackend, **template: Any
) -> AsyncIterator[Daemon]:
    async with Daemon(cluster, ours, **template) as made:
        made.policy = attrs.evolve(made.policy, orphan_grace_s=0.2, resume_grace_s=0.0)
        yield made


def hold(cluster: fake.Cluster) -> None:
    """Put a finalizer on every pod that there is."""
    for name in cluster.pods:
        cluster.change(name, lambda p: p["metadata"].update(finalizers=[HOLD]))


async def test_a_pod_held_by_a_finalizer_fills_no_cap(
    cluster: fake.Cluster, make: Callable[..., backend.KubernetesBackend], monkeypatch: Any
) -> None:
    """The next build is served; who holds the first pod stands beside its agent."""
    monkeypatch.setattr(ledgers, "VISIBLE_S", 1.0)
    monkeypatch.setattr(backend, "_END_MARGIN_S", 0.2)
    async with broker(cluster, make(), cap=1) as made:
        made.submit(duration_s=0.3)
        await made.until("its pod runs", lambda: cluster.pods)
        hold(cluster)
        await made.until("one is done", lambda: made.fates() == ["done"])
        made.submit(duration_s=0.1)
        await made.until("both are done", lambda: made.fates() == ["done", "done"])
        await made.until("only one is left", lambda: len(cluster.pods) == 1)
        (name,) = cluster.pods

        def held() -> list[Any]:
            return [row for row in made.shown()["held"] if row["subject"] == name]

        (row,) = await made.until("it is named", held)
        (agent,) = made.shown()["agents"]
        assert ("gone", "stopping") == (agent["phase"], agent["instance"]["state"])
        assert f"held by finalizer {HOLD}" == agent["instance"]["text"]
        assert agent["instance"]["leaving_age_s"] >= 0
        assert row["text"].startswith("leaving for ")
        assert row["text"].endswith(f"held by finalizer {HOLD}")
        deletions = cluster.verbs().count("delete")
        await asyncio.sleep(0.3)
        assert deletions == cluster.verbs().count("delete")
        assert 1 == [death["name"] for death in made.shown()["deaths"]].count(name)
        cluster.release(name)
        await made.until("nothing is left", lambda: not made.shown()["agents"])


async def test_a_pod_whose_kubelet_is_silent_is_named_in_the_cap(
    cluster: fake.Cluster, make: Callable[..., backend.KubernetesBackend], monkeypatch: Any
) -> None:
    """It may still run, so it takes its room; the reason says who does, and for how long."""
    monkeypatch.setattr(backend, "_END_MARGIN_S", 0.2)
    cluster.ends = False
    async with broker(cluster, make(), cap=1) as made:
        made.submit(duration_s=0.1)
        await made.until("one is done", lambda: made.fates() == ["done"])
        made.submit(duration_s=0.1)
        text = await made.until(
            "it is said", lambda: "1 of them leaving for " in made.texts() and made.texts()
        )
        assert text.startswith("template t has 1 of 1 agent, 1 of them leaving for ")
        assert text.endswith(" s: being deleted")


async def test_a_pod_that_may_not_be_deleted_is_named(
    cluster: fake.Cluster, make: Callable[..., backend.KubernetesBackend], monkeypatch: Any
) -> None:
    """While it runs it takes its room, and the reason says so; with the right back it goes."""
    monkeypatch.setattr(backend, "_REFUSED_S", 0.2)
    monkeypatch.setattr(backend, "_REFUSED_LONG_S", 0.4)
    cluster.fail("delete", "error-403-rbac-delete", times=10_000)
    async with broker(cluster, make(), cap=1) as made:
        made.policy = attrs.evolve(made.policy, backoff_base_s=0.2)
        made.submit(duration_s=0.1)
        await made.until("one is done", lambda: made.fates() == ["done"])
        made.submit(duration_s=0.1)
        words = "we are not allowed to delete it: "
        text = await made.until("it is said", lambda: words in made.texts() and made.texts())
        assert "1 of 1 agent, 1 of them leaving for " in text
        assert "is not allowed to delete pods in namespace" in text
        (agent,) = made.shown()["agents"]
        assert agent["instance"]["text"].startswith(words)
        (name,) = cluster.pods
        cluster._end(name, 0)  # its agent gives up, as a node that is deleted makes it do
        await made.until("both are done", lambda: made.fates() == ["done", "done"])
        assert name in cluster.pods
        cluster.faults.clear()
        await made.until("nothing is left", lambda: not cluster.pods)


async def test_refused_deletions_are_tried_ever_more_seldom(
    cluster: fake.Cluster, make: Callable[..., backend.KubernetesBackend]
) -> None:
    """Rights come back by a person's hand."""
    ours = make()
    await ours.launch(api.InstanceSpec(name="a1", metadata={"owner": "ours"}, image="busybox"))
    cluster.fail("delete", "error-403-rbac-delete", times=10_000)
    pauses = []
    for _ in range(9):
        with pytest.raises(api.Unauthorized) as raised:
            await ours.terminate("a1", grace_s=0)
        pauses.append(raised.value.retry_after)
    assert [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0] == pauses
    cluster.faults.clear()
    await ours.terminate("a1", grace_s=0)
    assert [] == list(await ours.list())


@pytest.mark.parametrize(
    ("reason", "slug", "text"),
    [
        ("EvictionByEvictionAPI", "lost-evicted", "as when a node is drained"),
        ("PreemptionByScheduler", "lost-evicted", "made room for pods of higher priority"),
        ("DeletionByTaintManager", "lost-platform-lost", "got a taint"),
        ("DeletionByPodGC", "lost-platform-lost", "its node is gone"),
    ],
)
async def test_a_pod_that_others_delete_is_told_with_their_reason(
    cluster: fake.Cluster,
    make: Callable[..., backend.KubernetesBackend],
    reason: str,
    slug: str,
    text: str,
) -> None:
    """Already while it is on its way out, as a drained node's pods may take their whole grace."""
    async with broker(cluster, make(), retention=model.Retention()) as made:
        made.submit(duration_s=1000)
        await made.until("it builds", lambda: any(n.connected for n in made.sim.nodes.values()))
        (name,) = cluster.pods
        cluster.ends = False
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        cluster.change(name, lambda p: p["status"].update(conditions=[condition]))
        cluster.delete(name, grace_s=30)
        told = await made.until("it is told", lambda: _told(made, name))
        assert "announced: " in told or slug in told  # as soon as its end is seen coming, or later
        assert text in told
        if name in cluster.pods:
            cluster._end(name, 143)
        dead = await made.until("it died", lambda: _deaths(made, name))
        assert slug in dead
        assert text in dead


def _told(made: Daemon, name: str) -> str:
    """Return the controller's offline cause, or what is kept of the agent once it is gone."""
    node = made.sim.nodes.get(name)
    return (node.offline_message if node is not None else "") or _deaths(made, name)


def _deaths(made: Daemon, name: str) -> str:
    """Return what is kept of an agent that died."""
    deaths = [f"{d['slug']}: {d['text']}" for d in made.shown()["deaths"] if d["name"] == name]
    return " ".join(deaths)


async def test_a_pod_that_ended_and_is_then_deleted_keeps_its_end(
    cluster: fake.Cluster, make: Callable[..., backend.KubernetesBackend]
) -> None:
    """Whoever cleans up a dead pod does not take its reason away."""
    ours = make()
    await ours.launch(api.InstanceSpec(name="a1", metadata={"owner": "ours"}, image="busybox"))

    async def follow() -> None:
        async for _ in ours.watch():
            pass

    task = asyncio.ensure_future(follow())
    try:
        async with patience.limit(WITHIN_S):
            while not cluster.pods or cluster.pods["a1"]["status"]["phase"] != "Running":
                await asyncio.sleep(0.01)
            cluster._end("a1", 3)
            while (await ours.list())[0].exit is None:
                await asyncio.sleep(0.01)
            cluster.change("a1", lambda p: p["metadata"].update(finalizers=[HOLD]))
            cluster.delete("a1")
            while (await ours.list())[0].state is not api.InstanceState.STOPPING:
                await asyncio.sleep(0.01)
        (seen,) = await ours.list()
        assert seen.exit is not None
        assert ("exited", 3) == (seen.exit.slug, seen.exit.code)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_launch_that_is_taken_back_is_no_death(
    cluster: fake.Cluster, make: Callable[..., backend.KubernetesBackend]
) -> None:
    """Its secret is refused: the reason is that of the launch, and neither node nor pod stays."""
    cluster.fail("create secrets", "error-403-rbac-create", times=3)
    async with broker(cluster, make()) as made:
        made.policy = attrs.evolve(made.policy, backoff_base_s=0.5)
        made.submit(duration_s=0.1)
        refused = ("launch", "unauthorized")
        await made.until("it is refused", lambda: made.notes.results[refused])
        await made.until("it is said why", lambda: "is not allowed to create" in made.texts())
        await made.until("then it is served", lambda: made.fates() == ["done"])
        await made.until("nothing is left", lambda: not cluster.pods)
        assert ["once"] == [death["slug"] for death in made.shown()["deaths"]]
