"""What the kept picture costs: reads at changes only, no held-up loop, no growth with the pods."""

import asyncio
import copy
import gc
from collections.abc import AsyncGenerator
from typing import Any

from backends.kubernetes.api import client, reflector
from backends.kubernetes.pods import pod
from tests.kubernetes import fake, recorded, test_pod, test_reflector

LIFE = recorded.events("pod-45")
MARKS = test_pod.made(test_pod.PLAIN, owner="ours").pod["metadata"]


def life(number: int) -> list[client.WatchEvent]:
    """One recorded life, as a pod of ours."""
    events = []
    for _, kind, thing in LIFE:
        told = copy.deepcopy(thing)
        told["metadata"] |= {"name": f"a{number}", "uid": f"u{number}"}
        told["metadata"] |= {"labels": MARKS["labels"]}
        told["metadata"] |= {"annotations": {**MARKS["annotations"], pod.NAME: f"a{number}"}}
        events.append(client.WatchEvent(kind=kind, object=told))
    return events


class Scripted:
    """Stands for the requests: a list in one page, a watch that tells what it is given."""

    def __init__(self, pods: list[dict[str, Any]]) -> None:
        self.pods = pods
        self.told: asyncio.Queue[list[client.WatchEvent]] = asyncio.Queue()

    async def list_pods(self, selector: str) -> AsyncGenerator[client.Page, None]:
        yield client.Page(pods=self.pods, version="1")

    async def watch_pods(
        self, selector: str, version: str
    ) -> AsyncGenerator[list[client.WatchEvent], None]:
        yield []
        while True:
            yield await self.told.get()


def picture(server: Scripted, clock: list[float]) -> reflector.Reflector:
    return reflector.Reflector(server, owner="ours", selector="", now=lambda: clock[0])


async def test_a_look_reads_only_what_changed(
    cluster: fake.Cluster, make: test_reflector.Make
) -> None:
    """What did not change is the very same value as at the look before."""
    ours = make()
    async with test_reflector.followed(ours):
        for name in ("a1", "a2"):
            await ours.launch(test_reflector.spec(name))
        await test_reflector.listed(
            ours, lambda found: [i.state.value for i in found.values()] == ["running"] * 2
        )
        before = {i.name: i for i in await ours.list()}
        cluster.kill("a1")
        await test_reflector.until(lambda: test_reflector.live(ours))
        after = await test_reflector.listed(ours, lambda found: found["a1"].exit is not None)

        assert before["a2"] is after["a2"]
        assert before["a1"] is not after["a1"]


async def test_a_long_list_lets_others_go_on() -> None:
    """Also of one page without any waiting: a pause at least every 50 pods."""
    events = [life(number)[0].object for number in range(500)]
    kept, turns = picture(Scripted(events), [0.0]), 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(turn())
    found = await kept.look()
    task.cancel()

    assert 500 == len(found.pods)
    assert turns >= 10


async def test_how_it_ended_outlives_its_deletion() -> None:
    """A pod that had ended by itself is not told to have died of the broom that swept it up."""
    server = Scripted([])
    kept = picture(server, [1e9])
    changes = kept.changes()
    for event in life(0):
        server.told.put_nowait([event])
        await anext(changes)
    (gone,) = (await kept.look()).departed
    await changes.aclose()

    assert gone.exit is not None
    assert ("exited", 0, "ended with 0") == (gone.exit.slug, gone.exit.code, gone.exit.message)


async def test_nothing_is_left_of_pods_that_are_gone() -> None:
    """Hundreds of lives leave what a few do; whoever died by other hands is remembered for a while."""
    clock = [1e9]
    server = Scripted([])
    kept = picture(server, clock)
    changes = kept.changes()

    async def live_through(first: int, count: int) -> int:
        for number in range(first, first + count):
            if number % 2:
                kept.forget(f"a{number}")  # our own doing
            server.told.put_nowait(life(number))
            await anext(changes)
            clock[0] += 1.0
            await kept.look()
        gc.collect()
        return len(gc.get_objects())

    before = await live_through(0, 130)
    after = await live_through(130, 250)
    departed = (await kept.look()).departed
    await changes.aclose()

    assert after - before < 125  # those that others end, one in two, would be as many at least
    assert 50 <= len(departed) <= 61
