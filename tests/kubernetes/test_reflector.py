"""The picture of the pods: true under every fault of the stream, and never a list at rest."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable

import hypothesis
import pytest
from hypothesis import strategies as st

from backends import api
from backends.kubernetes import backend
from backends.kubernetes.api import client, errors, reflector
from tests import patience
from tests.kubernetes import fake, recorded

Make = Callable[..., backend.KubernetesBackend]
WITHIN_S = 5.0


def spec(name: str = "a1") -> api.InstanceSpec:
    return api.InstanceSpec(name=name, metadata={"owner": "ours"}, image="busybox:1.36")


class Watched:
    """A watch that is followed by a task, as the broker does."""

    def __init__(self) -> None:
        self.hints = 0
        self.error: api.BackendError | None = None


@contextlib.asynccontextmanager
async def followed(
    ours: backend.KubernetesBackend, *, again: bool = False
) -> AsyncIterator[Watched]:
    watched = Watched()

    async def follow() -> None:
        try:
            async for _ in ours.watch():
                watched.hints += 1
        except api.BackendError as error:
            watched.error = error
            if again:  # as the broker does, only sooner
                await follow()

    task = asyncio.ensure_future(follow())
    try:
        await until(lambda: live(ours) or watched.error is not None)
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def live(ours: backend.KubernetesBackend) -> bool:
    return ours._reflector is not None and ours._reflector.live


async def until(true: Callable[[], bool]) -> None:
    async with patience.limit(WITHIN_S):
        while not true():
            await asyncio.sleep(0.005)


async def listed(ours: backend.KubernetesBackend, wanted: Callable[[dict], bool]) -> dict:
    """List until it is as wanted."""
    async with patience.limit(WITHIN_S):
        while True:
            found = {instance.name: instance for instance in await ours.list()}
            if wanted(found):
                return found
            await asyncio.sleep(0.005)


async def test_a_deletion_that_the_picture_shows_is_asked_about_no_more(
    cluster: fake.Cluster, make: Make
) -> None:
    """Pod and secret are deleted, and that is all; who keeps no picture looks for it."""
    keeps, looks = make(), make()
    async with followed(keeps):
        for name, ours in {"a1": keeps, "a2": looks}.items():
            await ours.launch(spec(name))
            await listed(keeps, lambda found: name in found)
            begun = len(cluster.requests)
            await ours.terminate(name, grace_s=0)
            asked = cluster.verbs()[begun:]
            assert (ours is looks) == ("list" in asked), asked
            assert {"delete", "delete secrets"} <= set(asked)


async def test_at_rest_nothing_is_asked(cluster: fake.Cluster, make: Make) -> None:
    """One list and one watch serve any number of looks, also at what changes."""
    ours = make()
    async with followed(ours) as watched:
        await ours.launch(spec())
        await listed(ours, lambda found: "a1" in found and found["a1"].state.value == "running")
        for _ in range(50):
            await ours.list()

        assert 1 == cluster.verbs().count("list")
        assert 1 == cluster.verbs().count("watch")
        assert watched.hints >= 1


async def test_a_picture_that_nobody_keeps_is_not_used(cluster: fake.Cluster, make: Make) -> None:
    """Without a watch, or while its consumer stays away, a look is a full list."""
    ours = make()
    await ours.list()
    await ours.list()
    assert 2 == cluster.verbs().count("list")

    watch = ours.watch()
    first = asyncio.ensure_future(anext(watch))
    await until(lambda: live(ours))
    await ours.launch(spec())
    await first
    before = cluster.verbs().count("list")
    cluster.delete("a1", grace_s=0)

    assert [] == list(await ours.list())
    assert before + 1 == cluster.verbs().count("list")
    await watch.aclose()


@pytest.mark.parametrize("cleanly", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999, 1.0])
async def test_a_stream_that_breaks_at_any_byte_loses_nothing(
    cluster: fake.Cluster, make: Make, cleanly: bool, share: float
) -> None:
    """It goes on from the last event that came whole; nothing is listed again."""
    ours = make()
    cluster.runs = False
    async with followed(ours):
        await ours.launch(spec("a0"))
        found = await listed(ours, lambda found: "a0" in found)
        size = len(json.dumps({"type": "ADDED", "object": cluster.pods["a0"]})) + 1
        cluster.cut_watch_at, cluster.cut_cleanly = int(size * share), cleanly
        cluster.drop_watches()
        await until(lambda: cluster.verbs().count("watch") == 2)
        await ours.launch(spec("a1"))
        await until(lambda: cluster.verbs().count("watch") >= 3)
        found = await listed(ours, lambda found: "a1" in found)

        assert {"a0", "a1"} == set(found)
        await until(lambda: live(ours))
        assert {"a0", "a1"} == {i.name for i in await ours.list()}


async def test_a_stream_byte_by_byte(cluster: fake.Cluster, make: Make) -> None:
    """Slow is not broken."""
    cluster.dribble = True
    ours = make()
    async with followed(ours):
        await ours.launch(spec())
        await listed(ours, lambda found: "a1" in found and found["a1"].state.value == "running")

        assert ["list", "watch"] == [v for v in cluster.verbs() if v in {"list", "watch"}]


async def test_a_version_that_is_too_old_is_listed_again(
    cluster: fake.Cluster, make: Make
) -> None:
    """410 in the stream: one list, and what went meanwhile is told."""
    ours = make()
    async with followed(ours) as watched:
        for name in ("a1", "a2"):
            await ours.launch(spec(name))
        await listed(ours, lambda found: len(found) == 2)
        hints = watched.hints
        del cluster.pods["a1"]
        cluster.compact()
        cluster.compacted += 1
        cluster._now += 1
        cluster.drop_watches()
        await until(lambda: cluster.verbs().count("list") == 2)
        found = await listed(ours, lambda found: "a1" in found and found["a1"].exit is not None)

        assert found["a1"].exit.slug == "unknown"
        assert found["a2"].exit is None
        await until(lambda: watched.hints > hints)


async def test_a_server_to_which_each_version_is_too_old_is_listed_ever_more_seldom(
    cluster: fake.Cluster, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 at once after each list: not a list after the other; and it comes back by itself."""
    monkeypatch.setattr(reflector, "_SHORT_S", 0.2)
    ours = make()
    async with followed(ours):
        await ours.launch(spec())
        began, before = time.monotonic(), cluster.verbs().count("list")
        cluster.compacted = 10**9
        cluster.drop_watches()
        await until(lambda: cluster.verbs().count("list") >= before + 4)
        assert time.monotonic() - began > 0.2 + 0.4 + 0.8 - 0.1
        assert {"a1"} == {one.name for one in await ours.list()}
        cluster.compacted = 0
        await until(lambda: live(ours))


async def test_the_end_of_a_server_s_time_is_ordinary(cluster: fake.Cluster, make: Make) -> None:
    """After timeoutSeconds the watch is opened again where it was."""
    ours = make(watch_timeout_s=1)
    async with followed(ours):
        await until(lambda: cluster.verbs().count("watch") == 2)
        await ours.launch(spec())
        await listed(ours, lambda found: "a1" in found)

        assert 1 == cluster.verbs().count("list")


async def test_silence_is_a_dead_connection_and_bookmarks_are_life(
    cluster: fake.Cluster, make: Make
) -> None:
    """A black hole is noticed by its silence."""
    cluster.bookmark_s = 0.1
    ours = make(watch_silence_s=0.5)
    async with followed(ours):
        await asyncio.sleep(0.8)
        assert 1 == cluster.verbs().count("watch")
        cluster.bookmark_s = 60.0
        await until(lambda: cluster.verbs().count("watch") == 2)


async def test_bookmarks_renew_the_version(cluster: fake.Cluster, make: Make) -> None:
    """A long quiet time does not make the version too old."""
    cluster.bookmark_s = 0.05
    ours = make()
    async with followed(ours):
        cluster._now += 500
        await asyncio.sleep(0.2)
        cluster.compacted = cluster._now - 1
        cluster.drop_watches()
        await until(lambda: cluster.verbs().count("watch") == 2)
        await asyncio.sleep(0.05)

        assert 1 == cluster.verbs().count("list")


@pytest.mark.parametrize(
    ("recording", "cls", "retry_after"),
    [
        ("error-429-flowcontrol-watch", api.Unavailable, 2.0),
        ("error-403-rbac-watch", api.Unauthorized, None),
        ("error-500-webhook-down", api.Unavailable, None),
    ],
)
async def test_a_watch_that_is_refused_ends_with_the_reason(
    cluster: fake.Cluster, make: Make, recording: str, cls: type, retry_after: float | None
) -> None:
    """Once, without a loop of requests; looks are lists meanwhile."""
    cluster.fail("watch", recording, times=1000)
    ours = make()
    async with followed(ours) as watched:
        assert cls is type(watched.error)
        assert retry_after == watched.error.retry_after
        assert 1 == cluster.verbs().count("watch")
        assert [] == list(await ours.list())


async def test_an_error_in_the_stream_ends_the_watch(cluster: fake.Cluster, make: Make) -> None:
    """The server's own failure is told, and looks are lists again."""
    ours = make()
    async with followed(ours) as watched:
        status = {"kind": "Status", "code": 500, "message": "etcdserver: leader changed"}
        cluster.drop_watches(error=status)
        await until(lambda: watched.error is not None)

        assert "leader changed" in watched.error.reason
        assert [] == list(await ours.list())
        assert 2 == cluster.verbs().count("list")


async def test_a_server_that_hangs_up_at_once_is_not_asked_in_a_loop(
    cluster: fake.Cluster, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that ends without a word is opened again after a pause."""
    monkeypatch.setattr(reflector, "_SHORT_S", 1.0)
    ours = make()
    async with followed(ours):
        cluster.drop_watches()
        await until(lambda: not live(ours))
        await asyncio.sleep(0.3)

        assert 1 == cluster.verbs().count("watch")


async def test_leaving_the_selector_is_leaving(cluster: fake.Cluster, make: Make) -> None:
    """Who takes our marks off a pod takes the pod."""
    ours = make()
    async with followed(ours):
        await ours.launch(spec())
        await listed(ours, lambda found: "a1" in found and found["a1"].state.value == "running")
        cluster.change("a1", lambda pod: pod["metadata"]["labels"].pop("agent-broker/owner"))
        found = await listed(ours, lambda found: found["a1"].exit is not None)

        assert "owner marks" in found["a1"].exit.message
        with pytest.raises(api.NotFound):
            await ours.terminate("a1", grace_s=0)
        assert "a1" in cluster.pods
        assert [] == list(await ours.list())


async def test_what_somebody_else_deletes_is_told_with_the_reason(
    cluster: fake.Cluster, make: Make
) -> None:
    """A preempted pod is gone, but the list says why, until the broker has taken note."""
    ours = make()
    _, _, seen = recorded.events("pod-53")[-1]
    async with followed(ours):
        await ours.launch(spec())
        await listed(ours, lambda found: "a1" in found and found["a1"].state.value == "running")
        conditions = seen["status"]["conditions"]
        cluster.change("a1", lambda pod: pod["status"].update(conditions=conditions))
        cluster.delete("a1")
        found = await listed(ours, lambda found: found["a1"].state is api.InstanceState.EXITED)

        assert found["a1"].exit.slug == "evicted"
        assert found["a1"].metadata == {"owner": "ours"}
        with pytest.raises(api.NotFound):
            await ours.terminate("a1", grace_s=0)
        assert [] == list(await ours.list())


async def test_who_takes_over_inherits_no_certificates(cluster: fake.Cluster, make: Make) -> None:
    """A broker that only looked on until now: the leader ended those pods, and had its reasons."""
    leader, ours = make(), make()
    async with followed(ours):
        for name in ("a1", "a2"):
            await leader.launch(spec(name))
        await listed(ours, lambda found: len(found) == 2)
        await leader.terminate("a1", grace_s=1)
        await listed(ours, lambda found: found["a1"].state is api.InstanceState.EXITED)
    await leader.terminate("a2", grace_s=1)  # while nobody follows
    async with followed(ours):
        assert [] == await ours.list()


async def test_our_own_terminations_need_no_certificate(cluster: fake.Cluster, make: Make) -> None:
    """What we end ourselves is simply gone."""
    ours = make()
    async with followed(ours):
        await ours.launch(spec())
        await listed(ours, lambda found: "a1" in found)
        await ours.terminate("a1", grace_s=0)
        await until(lambda: live(ours))

        assert [] == list(await ours.list())


async def test_an_absent_namespace_is_not_an_empty_one(cluster: fake.Cluster, make: Make) -> None:
    """A list there is an empty 200, as recorded; the namespace itself is asked for."""
    cluster.namespaces_readable = True
    with pytest.raises(api.Unauthorized) as raised:
        await make(namespace="absent").list()

    assert 'namespaces "absent" not found' in raised.value.reason


@hypothesis.given(st.lists(st.binary(max_size=9), max_size=6), st.data())
def test_lines_come_whole_however_they_are_cut(lines: list[bytes], data: st.DataObject) -> None:
    """The pieces of a stream do not matter; an unfinished last line is none."""
    lines = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    splitter = client.Lines()
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += splitter.feed(stream[start:end])

    assert [line for line in lines if line.strip()] == found


def test_an_endless_line_is_refused() -> None:
    """Nobody fills our memory with one line."""
    splitter = client.Lines()
    for _ in range(client._OBJECT_BYTES >> 16):
        splitter.feed(b"x" * (1 << 16))
    with pytest.raises(errors.Lost):
        splitter.feed(b"x")


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_the_picture_becomes_the_truth(
    cluster: fake.Cluster, make: Make, seed: int
) -> None:
    """Pods come, change and go while streams break at any byte and versions grow too old."""
    dice = random.Random(seed)
    cluster.runs = cluster.ends = False
    ours, truth = make(page_size=3), make()
    fates = ["launch"] * 4 + ["change"] * 4 + ["delete"] * 2 + ["cut", "drop", "rest"] * 2
    async with followed(ours, again=True):
        for number in range(80):
            fate = dice.choice([*fates, "compact"] if number % 20 == 0 else fates)
            await _happen(cluster, truth, fate, dice, number)
            if number % 8 == 7:
                wanted = {one.name: one.detail for one in await truth.list()}
                await listed(ours, lambda found: live(ours) and wanted == _there(found))


def _there(found: dict[str, api.Instance]) -> dict[str, str]:
    """What a look shows without the certificates of those who are gone."""
    return {name: one.detail for name, one in found.items() if one.exit is None}


async def _happen(
    cluster: fake.Cluster, truth: api.Backend, fate: str, dice: random.Random, number: int
) -> None:
    names = sorted(cluster.pods)
    match fate:
        case "launch":
            await truth.launch(spec(f"a{number}"))
        case "change" if names:
            word = dice.choice(["one", "two", "three"])
            condition = {"type": "PodScheduled", "status": "False", "message": word}
            cluster.change(
                dice.choice(names), lambda pod: pod["status"].update(conditions=[condition])
            )
        case "delete" if names:
            cluster.delete(dice.choice(names), grace_s=0)
        case "cut":
            cluster.cut_watch_at = dice.randrange(3000)
            cluster.cut_cleanly = dice.random() < 0.5
            cluster.drop_watches()
        case "drop":
            cluster.drop_watches()
        case "compact":
            cluster.compact()
            cluster.drop_watches()
        case "rest":
            await asyncio.sleep(0.02)
    await asyncio.sleep(0)
