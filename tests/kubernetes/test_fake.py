"""The fake is held against the recordings: the same requests give the same story."""

import asyncio
from typing import Any

import aiohttp
import pytest

from tests import patience
from tests.kubernetes import fake, recorded

Step = tuple[Any, ...]


def step(kind: str, pod: dict[str, Any]) -> Step:
    """What a watcher learns from one event, without times and words."""
    status, meta = pod["status"], pod["metadata"]
    states = [next(iter(c["state"]), "") for c in status.get("containerStatuses", [])]
    return (
        kind,
        status["phase"],
        "nodeName" in pod["spec"],
        "deletionTimestamp" in meta,
        tuple(states),
    )


def story(events: list[tuple[str, dict[str, Any]]]) -> list[Step]:
    told: list[Step] = []
    for kind, pod in events:
        if kind != "BOOKMARK" and step(kind, pod) not in told[-1:]:
            told.append(step(kind, pod))
    return told


RUNNING = "running"
CASES = {
    "pod-02": (fake.Program(exit_code=3), "terminated"),
    "pod-40": (fake.Program(), RUNNING),
    "pod-41": (fake.Program(obeys=False), RUNNING),
    "pod-42": (fake.Program(obeys=False), RUNNING),
    "pod-43": (fake.Program(), None),
    "pod-44": (fake.Program(obeys=False), RUNNING),
    "pod-45": (fake.Program(exit_code=0), "Succeeded"),
}


@pytest.mark.parametrize("name", CASES)
async def test_the_same_requests_give_the_recorded_story(cluster: fake.Cluster, name: str) -> None:
    """Creation, deletion with and without grace, finalizers, an end of its own."""
    program, until = CASES[name]
    recording = recorded.load(name)
    asked = [r.get("request", r) for r in recording["requests"]]
    body = asked[0]["body"]
    pod = body["metadata"]["name"]
    cluster.programs[pod] = program
    cluster.runs = until is not None

    def reached() -> bool:
        found = cluster.pods[pod]
        states = [list(c["state"]) for c in found["status"].get("containerStatuses", [])]
        phase = found["status"]["phase"]
        return until is None or phase == until or any(until in state for state in states)

    async with aiohttp.ClientSession(cluster.url) as session:
        url = "/api/v1/namespaces/agents/pods"
        async with session.post(url, json=body) as answer:
            assert answer.status == 201
        async with patience.limit(5):
            while not reached():
                await asyncio.sleep(0.005)
            async with session.delete(f"{url}/{pod}", json=asked[1].get("body")) as answer:
                assert answer.status == 200
            if name == "pod-44":
                while cluster.pods[pod]["status"]["phase"] == "Running":
                    await asyncio.sleep(0.005)
                cluster.release(pod)
            while pod in cluster.pods:
                await asyncio.sleep(0.005)

    real = [(kind, thing) for _, kind, thing in recorded.events(name)]
    assert story(real) == story([(kind, thing) for _, kind, thing in cluster._history])


async def test_a_watch_without_news_ends_as_recorded(cluster: fake.Cluster) -> None:
    """Bookmarks only when asked for, a clean end after timeoutSeconds, 410 in an answer 200."""
    cluster.bookmark_s = 0.1
    url = f"{cluster.url}/api/v1/namespaces/agents/pods?watch=1&resourceVersion="
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}100&timeoutSeconds=0.25") as plain:
            assert (200, b"") == (plain.status, await plain.read())
        marks = f"{url}100&timeoutSeconds=0.25&allowWatchBookmarks=true"
        async with session.get(marks) as marked:
            assert b'"BOOKMARK"' in await marked.read()
        cluster.compacted = 200
        async with session.get(f"{url}100") as expired:
            assert 200 == expired.status
            assert b'"code": 410' in await expired.read()
