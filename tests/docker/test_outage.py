"""An engine of our own that is killed, stopped and restarted, and hosts that stand in for it."""

import asyncio
import contextlib
import re
import signal
import time

import attrs
import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import pool
from broker.loop import observe
from tests import patience
from tests.contract import checks
from tests.docker import engines
from tests.docker.conftest import WITHIN_S, Rig, backend_on, cleaned

STOPS_LATE = {"StopTimeout": 5}
NOWHERE = settings.Host(url="unix:///nonexistent/docker.sock")


async def own_rig(engine: engines.OwnEngine) -> Rig:
    await engines.with_image(engine.url)
    return Rig(engine.url, backend_on())


async def gone(backend: api.Backend) -> None:
    """Wait until the engine is known to be away."""

    async def look() -> bool:
        try:
            await backend.list()
        except api.Unavailable:
            return True
        return False

    await checks.until("the engine is away", look, within_s=WITHIN_S)


async def answering(backend: api.Backend) -> dict[str, api.Instance]:
    async def look() -> dict[str, api.Instance]:
        with contextlib.suppress(api.Unavailable):
            return await checks.listed(backend)
        return {}

    return await checks.until("the engine is back", look, within_s=WITHIN_S)


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
async def test_an_engine_without_live_restore_takes_its_containers_along(how):
    """Meanwhile nothing is known; afterwards each is dead of its engine, and the watch woke."""
    with engines.own_engine() as engine:
        rig = await own_rig(engine)
        async with cleaned(rig):
            await rig.backend.launch(rig.spec("a1"))
            await rig.running("a1")
            await asyncio.to_thread(engine.end, how)
            await gone(rig.backend)
            for call in (
                rig.backend.launch(rig.spec("a2")),
                rig.backend.terminate("a1", grace_s=0),
                rig.backend.logs("a1", tail=1),
            ):
                with pytest.raises(api.Unavailable, match=r"docker\.sock"):
                    await call
            watch = rig.backend.watch()
            wake = asyncio.ensure_future(anext(watch))
            await asyncio.to_thread(engine.start)
            await patience.wait_for(wake, WITHIN_S)
            await watch.aclose()
            assert ["a1"] == list(await answering(rig.backend))
            end = await rig.exited("a1")
            assert "platform-lost" == end.slug, end
            await rig.backend.launch(rig.spec("a2"))
            await rig.running("a2")
            for name in ("a1", "a2"):
                await rig.backend.terminate(name, grace_s=0)
            assert {} == await checks.listed(rig.backend)
        left = await asyncio.to_thread(engines.left_behind, engine.url)
        assert (set(), set()) == (left["containers"], left["volumes"])


@pytest.mark.parametrize("listening", [True, False])
async def test_whatever_an_engine_ends_when_it_is_stopped_died_of_that(listening):
    """The one that ends at once too, though the stop lasts; also for a broker that comes later."""
    stubborn = "trap '' TERM; while :; do sleep 0.2; done"
    with engines.own_engine("--shutdown-timeout=6") as engine:
        rig = await own_rig(engine)
        async with cleaned(rig):
            for name, commands in (("quick", ""), ("stubborn", stubborn)):
                spec = rig.spec(name, commands, init=name == "quick", docker=STOPS_LATE)
                await rig.backend.launch(spec)
                await rig.running(name)
            if not listening:
                await rig.backend.aclose()
            ending = asyncio.create_task(asyncio.to_thread(engine.end))
            while listening and not ending.done():
                with contextlib.suppress(api.Unavailable):
                    await rig.backend.list()
                await asyncio.sleep(0.1)
            await ending
            await asyncio.to_thread(engine.start)
            if not listening:
                rig.backend = rig.make(rig)
            await answering(rig.backend)
            ends = {name: await rig.exited(name) for name in ("quick", "stubborn")}
            assert {"platform-lost"} == {end.slug for end in ends.values()}, ends


async def test_with_live_restore_they_survive():
    """The same container runs on, also after a kill; the backend adopts what it knew."""
    with engines.own_engine(live_restore=True) as engine:
        rig = await own_rig(engine)
        async with cleaned(rig):
            spec = rig.spec("a1")
            await rig.backend.launch(spec)
            before = await rig.running("a1")
            await asyncio.to_thread(engine.end, signal.SIGKILL)
            await gone(rig.backend)
            await asyncio.to_thread(engine.start)
            assert {"a1": before} == await answering(rig.backend)
            await rig.backend.launch(spec)
            assert {"a1": before} == await checks.listed(rig.backend)
            await rig.backend.terminate("a1", grace_s=1)
            assert {} == await checks.listed(rig.backend)


async def test_a_host_that_is_away_is_passed_over(engine_url):
    """The launch goes to the next one; what cannot be listed is no empty list."""
    rig = Rig(engine_url, backend_on(NOWHERE, settings.Host(url=engine_url)))
    async with cleaned(rig):
        await rig.backend.launch(rig.spec("a1"))
        entries = await rig.sdk("containers")
        assert f"/{rig.prefix}a1" in {name for entry in entries for name in entry["Names"]}
        with pytest.raises(api.Unavailable, match=r"/nonexistent/docker\.sock"):
            await rig.backend.list()


async def test_a_host_that_is_full_is_passed_over(engine_url):
    """And when all are full that is no capacity, with the figures; nobody lists for it."""
    with engines.own_engine() as engine:
        await engines.with_image(engine.url)
        hosts = [settings.Host(url=url, max_instances=1) for url in (engine.url, engine_url)]
        rig = Rig(engine_url, backend_on(*hosts))
        async with cleaned(rig):
            assert 2 == (await rig.backend.capacity()).free_instances
            await rig.backend.launch(rig.spec("a1"))
            await rig.backend.launch(rig.spec("a2"))
            with pytest.raises(api.NoCapacity, match=r"unix:.* is full: it may have 1 container$"):
                await rig.backend.launch(rig.spec("a3"))
            assert ["a1", "a2"] == sorted(await checks.listed(rig.backend))


async def test_a_host_that_is_to_be_avoided_is_passed_over(engine_url):
    """By the name that its instances show; what is there already is adopted where it is."""
    with engines.own_engine() as engine:
        await engines.with_image(engine.url)
        hosts = [settings.Host(url=url) for url in (engine.url, engine_url)]
        rig = Rig(engine_url, backend_on(*hosts))
        async with cleaned(rig):
            first, second = (await rig.backend.capacity()).places
            await rig.backend.launch(rig.spec("a1"))
            await rig.backend.launch(attrs.evolve(rig.spec("a2"), avoid=(first,)))
            await rig.backend.launch(attrs.evolve(rig.spec("a1"), avoid=(first,)))
            nowhere = attrs.evolve(rig.spec("a3"), avoid=(first, second))
            for start in (rig.backend.reserve, rig.backend.launch):
                with pytest.raises(api.NoCapacity, match="avoided"):
                    await start(nowhere)
            places = {name: one.place for name, one in (await checks.listed(rig.backend)).items()}
            assert {"a1": first, "a2": second} == places


async def test_a_host_that_goes_away_keeps_its_instances_in_the_list(engine_url):
    """As they were, and said so; they vanish when they are terminated, not before."""
    with engines.own_engine() as engine:
        await engines.with_image(engine.url)
        hosts = [settings.Host(url=url) for url in (engine.url, engine_url)]
        rig = Rig(engine_url, backend_on(*hosts))
        async with cleaned(rig):
            await rig.backend.launch(rig.spec("a1"))
            await rig.running("a1")
            await asyncio.to_thread(engine.end)
            await rig.backend.list()
            await rig.backend.launch(rig.spec("a2"))
            found = await checks.listed(rig.backend)
            assert ["a1", "a2"] == sorted(found)
            assert "does not answer" in found["a1"].detail
            with pytest.raises(api.Unavailable):
                await rig.backend.terminate("a1", grace_s=0)
            assert ["a1", "a2"] == sorted(await checks.listed(rig.backend))
            await asyncio.to_thread(engine.start)

            async def told() -> bool:
                return (await checks.listed(rig.backend))["a1"].exit is not None

            await checks.until("its end is known", told, within_s=WITHIN_S)
            await rig.backend.terminate("a1", grace_s=0)
            assert ["a2"] == list(await checks.listed(rig.backend))


async def test_a_host_that_is_down_when_we_start(engine_url, monkeypatch):
    """The other serves and its agents come and go; what the first has is unknown, not dead."""
    monkeypatch.setattr(pool, "_ASIDE_S", (300.0,))  # its return is heard, not waited for
    with engines.own_engine(live_restore=True) as engine:
        await engines.with_image(engine.url)
        away, here = (settings.Host(url=url) for url in (engine.url, engine_url))
        rig = Rig(engine_url, backend_on(away, here))
        async with cleaned(rig):
            await rig.backend.launch(rig.spec("old"))
            await rig.running("old")
            await rig.backend.aclose()
            await asyncio.to_thread(engine.end, signal.SIGKILL)
            rig.backend = rig.make(rig)  # as after a restart of the broker

            await rig.backend.launch(rig.spec("new"))
            view = await observe.read_backend(rig.backend, now=time.time, time_limit_s=WITHIN_S)
            assert (True, ["new"]) == (view.synced, [one.name for one in view.instances])
            assert re.fullmatch(
                f"not all engines are known: .* {engine.url}: .*refused", view.hidden
            )
            assert "" == await rig.backend.logs("new", tail=1)
            await rig.backend.terminate("new", grace_s=0)
            with pytest.raises(api.Unavailable, match=r"docker\.sock"):
                await rig.backend.terminate("old", grace_s=0)
            with pytest.raises(api.Partial) as told:
                await rig.backend.list()
            assert [] == told.value.seen

            watch = rig.backend.watch()
            wake = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            await asyncio.to_thread(engine.start)
            async with patience.limit(WITHIN_S):
                await wake
            await watch.aclose()
            assert ["old"] == list(await answering(rig.backend))
            assert api.InstanceState.RUNNING is (await rig.running("old")).state
            await rig.backend.launch(rig.spec("newer"))
            found = await asyncio.to_thread(engines.left_behind, engine.url)
            assert 2 == len(found["containers"]), "it is the first in order again"
            for name in ("old", "newer"):
                await rig.backend.terminate(name, grace_s=0)


async def test_a_host_that_says_nothing_holds_nobody_up(engine_url, monkeypatch):
    """It is waited for once; then the others are asked alone."""
    monkeypatch.setattr(pool, "_PATIENCE_S", 1.0)
    held: list[asyncio.StreamWriter] = []

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    hosts = (
        settings.Host(url=url, max_instances=3),
        settings.Host(url=engine_url, max_instances=3),
    )
    rig = Rig(engine_url, backend_on(*hosts, timeout_s=60.0))
    async with cleaned(rig):
        with pytest.raises(api.Partial, match="no answer within 1 s"):
            await rig.backend.list()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await rig.backend.launch(rig.spec("a1"))
        with pytest.raises(api.Partial):
            await rig.backend.list()
        assert 2 == (await rig.backend.capacity()).free_instances, "of those that answer"
        await rig.backend.terminate("a1", grace_s=0)
        assert loop.time() - began < 30.0, "nobody waited for the minute of its calls"
        for writer in held:
            writer.close()
        server.close()


async def test_of_two_containers_of_one_name_one_is_removed(engine_url):
    """A call that timed out may have taken effect on the host that it was given up on."""
    with engines.own_engine() as engine:
        await engines.with_image(engine.url)
        hosts = [settings.Host(url=url) for url in (engine.url, engine_url)]
        both = Rig(engine_url, backend_on(*hosts))
        async with cleaned(both):
            for host in hosts:
                alone = backend_on(host)(both)
                await alone.launch(both.spec("a1"))
                await alone.aclose()
            assert ["a1"] == list(await checks.listed(both.backend))
            left = await asyncio.to_thread(engines.left_behind, engine.url)
            entries = await both.sdk("containers", all=True)
            here = [e for e in entries if f"/{both.prefix}a1" in e["Names"]]
            assert 1 == len(left["containers"]) + len(here)


async def test_a_version_that_the_engine_does_not_know(engine_url):
    """Told by the engine's words; without a setting both sides agree on one."""
    rig = Rig(engine_url, backend_on(api_version="1.99"))
    async with cleaned(rig):
        with pytest.raises(api.Unauthorized, match=r"1\.99 is too new.*`api_version`"):
            await rig.backend.list()


async def test_proxies_and_authorities_of_the_environment_are_ignored(engine_url, monkeypatch):
    """They are for other servers; with them the SDK would send our calls elsewhere."""
    asked: list[bool] = []

    async def proxy(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(True)
        writer.close()

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent")
    rig = Rig(engine_url, backend_on())
    async with cleaned(rig):
        assert {} == await checks.listed(rig.backend)
        tcp = backend_on(settings.Host(url="tcp://127.0.0.1:1"))(rig)
        with pytest.raises(api.Unavailable, match=r"127\.0\.0\.1:1: .*refused"):
            await tcp.list()
        await tcp.aclose()
    server.close()
    assert [] == asked
