"""The door for the agents' secrets: once, to whoever has the token, and to nobody else."""

import asyncio
import contextlib
import ssl
import time
import urllib.parse

import attrs
import pytest
import pytest_asyncio

from backends import api
from backends.mesos import doctor, handover, settings
from tests import patience
from tests.contract import checks
from tests.mesos import agent, master, wire
from tests.mesos.test_tls import authority
from tests.mesos.test_wire import broker, listed_soon, spec

__all__ = ["authority", "broker"]

DOOR = settings.Handover(listen="127.0.0.1:0", url="http://127.0.0.1:0")
SECRET = "5ecret" * 10


@pytest_asyncio.fixture
async def door():
    one = handover.HandoverDoor(DOOR, now=time.time)
    await one.open()
    yield one
    await one.aclose()


async def ask(url: str, head: str = "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n", **tls) -> bytes:
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, **tls)
    try:
        writer.write(head.format(path=parts.path).encode())
        return await patience.wait_for(reader.read(), 30)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_it_gives_a_secret_once(door, caplog):
    url = door.leave("a1", SECRET)
    other = door.leave("a2", "other")
    answer = await ask(url)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(f"\r\n\r\n{SECRET}".encode())
    assert (await ask(url)).startswith(b"HTTP/1.1 410 Gone")
    (warning,) = caplog.records
    assert ("a1", "by 127.0.0.1; it was taken, or its task is gone") == (
        warning.agent, warning.reason,
    )  # fmt: skip
    assert SECRET not in caplog.text
    assert (await ask(other)).endswith(b"other")


async def test_it_gives_nothing_to_others(door):
    url = door.leave("a1", SECRET)
    base, _, token = url.rpartition("/")
    for wrong in (f"{base}/{'0' * 64}", f"{base}/", f"{base}/{token[:-1]}", f"{base}/{token}0"):
        assert (await ask(wrong)).startswith(b"HTTP/1.1 404"), wrong
    for head in (
        "HEAD {path} HTTP/1.1\r\n\r\n",
        "POST {path} HTTP/1.1\r\n\r\n",
        "GET /x{path}/y HTTP/1.1\r\n\r\n",
        "GET {path} HTTP/3.0\r\n\r\n",
        "x\r\n\r\n",
    ):
        assert (await ask(url, head)).startswith(b"HTTP/1.1 404"), head
    door.withdraw("a1")
    assert (await ask(url)).startswith(b"HTTP/1.1 410")


async def test_it_gives_what_is_no_secret_as_often_as_it_is_asked_for(door, caplog):
    """Whole, byte for byte, until its instance is gone; nothing of it is worth a word."""
    content = bytes(range(256)) * 4096
    url = door.give("a1", content)
    secret = door.leave("a1", SECRET)
    for answer in await asyncio.gather(*(ask(url) for _ in range(5))):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(content)}".encode() in head
        assert content == body
    assert (await ask(secret)).endswith(SECRET.encode())
    door.withdraw("a1")
    assert (await ask(url)).startswith(b"HTTP/1.1 410")
    assert [] == caplog.records
    with pytest.raises(api.Rejected, match="has 2097153 bytes"):
        door.give("a1", bytes((2 << 20) + 1))


async def test_what_nobody_took_is_worth_nothing_after_a_while(door):
    url = door.leave("a1", SECRET)
    now = time.time()
    door._now = lambda: now + 2 * handover._KEPT_S
    assert (await ask(url)).startswith(b"HTTP/1.1 404")
    door.leave("a2", SECRET)
    assert 1 == len(door._left), "old ones are forgotten"


@contextlib.asynccontextmanager
async def silent(url: str, count: int):
    """So many connections that say a word and no more."""
    parts = urllib.parse.urlsplit(url)
    mute = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"G")
        mute.append(writer)
    try:
        yield
    finally:
        for writer in mute:
            writer.close()


async def test_who_says_nothing_or_too_much_holds_up_nobody(door):
    """A fetcher is served at once beside three hundred who wait, and they are limited."""
    urls = [door.leave(f"a{number}", SECRET) for number in range(3)]
    async with silent(urls[0], 300):
        for url in urls:
            assert (await ask(url)).endswith(SECRET.encode())
        assert len(door._door.inside) <= door._limits.per_address
    url = door.leave("b1", SECRET)
    with contextlib.suppress(OSError):
        assert b"" == await ask(url, "GET / HTTP/1.1\r\nx: " + "y" * 100_000 + "\r\n\r\n")
    assert (await ask(url)).endswith(SECRET.encode())


async def test_who_says_nothing_has_to_go():
    one = handover.HandoverDoor(
        DOOR, now=time.time, limits=attrs.evolve(handover._LIMITS, request_s=0.2)
    )
    await one.open()
    parts = urllib.parse.urlsplit(one.leave("a1", SECRET))
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(b"GET /hand")
    with contextlib.suppress(OSError):
        assert b"" == await patience.wait_for(reader.read(), 30)
    writer.close()
    await one.aclose()


async def test_over_tls(authority):
    told = attrs.evolve(
        DOOR, url="https://127.0.0.1:0", cert_file=str(authority / "IP.pem"),
        key_file=str(authority / "IP.pem"),
    )  # fmt: skip
    one = handover.HandoverDoor(told, now=time.time)
    await one.open()
    url = one.leave("a1", SECRET)
    context = ssl.create_default_context(cafile=str(authority / "ours.pem"))
    assert (await ask(url, ssl=context)).endswith(SECRET.encode())
    url = one.leave("a2", SECRET)
    async with silent(url, 150):  # who do not shake hands
        assert (await ask(url, ssl=context)).endswith(SECRET.encode())
        assert len(one._door.inside) <= one._limits.per_address
    await one.aclose()


async def test_a_door_that_cannot_be_opened_is_told(door):
    port = urllib.parse.urlsplit(door.leave("a1", SECRET)).port
    for told in (
        attrs.evolve(DOOR, listen=f"127.0.0.1:{port}"),
        attrs.evolve(DOOR, url="https://x", cert_file="/no/such", key_file="/no/such"),
    ):
        second = handover.HandoverDoor(told, now=time.time)
        with pytest.raises(api.Rejected, match=r"handover: cannot listen on 127\.0"):
            await second.open()
        await second.aclose()


@pytest_asyncio.fixture
async def real(tmp_path):
    """A fake master whose agents run programs and fetch."""
    machine = master.Master(agents=1, wall=time.time())
    machine.allocation_s = 0.05
    machine.launcher = agent.Launcher(machine, tmp_path / "agents")
    async with wire.Wire(machine).serving() as served:
        yield served
        await machine.launcher.aclose()


async def test_an_agent_gets_its_secret_and_the_master_never(broker, real, tmp_path):
    backend = broker(
        real.base, handover=DOOR, user="nobody", work_root=str(tmp_path / "work"),
        offer_timeout_s=5, request_timeout_s=5,
    )  # fmt: skip
    show = ("sh", "-c", 'cat "$1/agent-secret" | tr 5 x; exec sleep 1000', "a", api.SECRETS)
    order = attrs.evolve(spec("a1"), argv=show, secret_files={"agent-secret": SECRET})
    await backend.launch(order)

    async def written() -> str:
        return await backend.logs("a1", tail=3)

    shown = await checks.until("the agent has its secret", written, within_s=10)
    assert SECRET.replace("5", "x") == shown
    (task,) = real.machine.tasks.values()
    assert SECRET not in repr(task.info)
    assert task.info["command"]["uris"][0]["value"].startswith("http://127.0.0.1:")
    await backend.terminate("a1", grace_s=0)


async def test_an_agent_gets_files_of_ours_beside_its_secret(broker, real, tmp_path):
    """Whatever the way of the secret is; they are not to be had any more when it is gone."""
    backend = broker(
        real.base, handover=DOOR, user="nobody", work_root=str(tmp_path / "work"),
        offer_timeout_s=5, request_timeout_s=5,
    )  # fmt: skip
    show = ("sh", "-c", 'wc -c <"$CA"; cat "$1/own"; exec sleep 1000', "a", api.FILES)
    order = attrs.evolve(
        spec("a1"), argv=show, env={"CA": f"{api.FILES}/ca"}, secret_files={"s": SECRET},
        options=settings.MesosTemplate(secrets="environment"),
        given_files={"ca": bytes(300_000), "own": b"ours\n"},
    )  # fmt: skip
    await backend.launch(order)

    async def written() -> bool:
        return (await backend.logs("a1", tail=3)).split() == ["300000", "ours"]

    await checks.until("the agent has its files", written, within_s=10)
    (task,) = real.machine.tasks.values()
    uris = task.info["command"]["uris"]
    assert ["files/ca", "files/own"] == [one["output_file"] for one in uris]
    assert (await ask(uris[1]["value"])).endswith(b"ours\n")
    await backend.terminate("a1", grace_s=0)
    assert (await ask(uris[1]["value"])).startswith(b"HTTP/1.1 410")


async def test_without_a_door_no_file_of_ours_is_launched(broker, real):
    backend = broker(real.base, offer_timeout_s=0.3)
    order = attrs.evolve(spec("a1"), secret_files={}, given_files={"ca": b"x"})
    with pytest.raises(api.Rejected, match=r"the file ca to its task; hint: `handover`"):
        await backend.launch(order)
    assert not real.machine.tasks


async def test_a_secret_that_somebody_took_first_ends_the_task(broker, real, tmp_path, caplog):
    """The rightful one comes too late, and its node goes with its task."""
    real.machine.launcher.fetches = asyncio.Event()
    backend = broker(
        real.base, handover=DOOR, work_root=str(tmp_path / "work"), offer_timeout_s=5,
        request_timeout_s=5,
    )  # fmt: skip
    order = attrs.evolve(spec("a1"), argv=("sleep", "1000"), secret_files={"s": SECRET})
    await backend.launch(order)
    (task,) = real.machine.tasks.values()
    assert (await ask(task.info["command"]["uris"][0]["value"])).endswith(SECRET.encode())
    real.machine.launcher.fetches.set()

    async def ended():
        return (await listed_soon(backend))["a1"].exit

    found = await checks.until("it has ended", ended, within_s=10)
    assert "network" == found.slug
    assert "Failed to fetch" in found.message
    assert "asked for again" in caplog.text


async def test_nothing_is_left_at_the_door_for_who_was_not_launched(broker, real, tmp_path):
    backend = broker(real.base, handover=DOOR, offer_timeout_s=0.3)
    for one in real.machine.agents.values():
        one.used["cpus"] += 4_000_000
    order = attrs.evolve(spec("a1"), secret_files={"s": SECRET})
    with pytest.raises(api.NoCapacity):
        await backend.launch(order)
    assert [None] == [left.content for left in backend._door._left.values()]


@pytest.mark.parametrize(
    ("isolation", "verdict"),
    [
        ("cgroups/cpu,filesystem/linux,volume/secret", "ok"),
        ("posix/cpu,posix/mem", "FAIL"),
        (None, "warn"),
    ],
)
async def test_the_doctor_tells_what_agents_need_for_volumes(real, isolation, verdict):
    flags = {"isolation": isolation, "launcher": "linux"}
    real.flags = None if isolation is None else flags
    order = attrs.evolve(spec("x"), options=settings.MesosTemplate(secrets="volume"))
    told = settings.MesosSettings(master=real.base)
    found = [
        one async for one in doctor.examine(told, owner="o", orders={"t": order}, now=time.time)
    ]
    assert ["agents", "secrets"] == [one.check for one in found]
    assert verdict == found[1].verdict.value
    assert 0 == real.subscribes
