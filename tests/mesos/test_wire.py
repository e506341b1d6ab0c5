"""The wire: recorded bytes, leaders that change, silence, refusals, restarts, other brokers."""

import asyncio
import contextlib
import json
import pathlib
import struct
import time

import aiohttp
import attrs
import pytest
import pytest_asyncio

from backends import api
from backends.kit import names
from backends.mesos import backend as mesos
from backends.mesos import calls, cluster, driver, offers, session, settings, transport, zookeeper
from tests import patience
from tests.contract import checks
from tests.contract.mesos import MemoryStore
from tests.mesos import master, wire

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"
KEPT_HEADERS = ("Content-Type", "Accept", "Mesos-Stream-Id")
RIGHT_STREAM = "a976132b-e8b4-4013-bae6-5dd74dc16118"  # of recording 12
OURS = calls.Framework(id="f", name="f", user="u", role="ci", failover_timeout_s=1e6)


@pytest_asyncio.fixture
async def served():
    machine = master.Master(
        agents=2, wall=time.time(), plan=lambda info: master.Plan(starting=0.01, running=0.02)
    )
    machine.allocation_s = 0.05
    async with wire.Wire(machine).serving() as opened:
        yield opened


class Brokers:
    """Makes backends on one store; closes them all."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.made: list[mesos.MesosBackend] = []

    def __call__(self, address: str, **changes) -> mesos.MesosBackend:
        told = settings.MesosSettings(
            **({"master": address, "offer_timeout_s": 0.5, "request_timeout_s": 1.0} | changes)
        )
        driven = driver.Driver(
            told, owner="ours", store=self.store, now=time.time, pause_s=(0.02, 0.1)
        )
        self.made.append(mesos.MesosBackend(told, driver=driven, now=time.time))
        return self.made[-1]


@pytest_asyncio.fixture
async def broker():
    brokers = Brokers()
    yield brokers
    for one in brokers.made:
        await one.aclose()


def spec(name: str = "a1", **more) -> api.InstanceSpec:
    options = settings.MesosTemplate(default_cpus=0.5, default_memory_bytes=64 << 20, **more)
    return api.InstanceSpec(name=name, metadata={"owner": "ours"}, argv=("true",), options=options)


@contextlib.asynccontextmanager
async def raw_server(answer):
    """Serve bytes as they were recorded; ``answer(reader, writer)`` is one connection."""
    connections = set()

    async def tracked(reader, writer):
        connections.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError):
                await answer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(tracked, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        if connections:
            _, stuck = await asyncio.wait(connections, timeout=patience.seconds(2))
            assert not stuck


async def listed_soon(backend: mesos.MesosBackend) -> dict[str, api.Instance]:
    async def look() -> dict | None:
        try:
            return {"listed": await checks.listed(backend)}
        except api.Unavailable as error:
            words[:] = [error.reason]
            return None

    words: list[str] = []
    return (await checks.until("it lists", look, within_s=8))["listed"]


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
async def test_recorded_bytes_are_heard_whatever_the_packets(size):
    """The complete HTTP response of a 1.11 master, chunk framing included."""
    response = (RECORDED / "00-on-the-wire" / "subscribe.response.http").read_bytes()
    asked = asyncio.Queue()

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await asked.put((head, await reader.readexactly(length)))
        for start in range(0, len(response), size):
            writer.write(response[start : start + size])
            await writer.drain()
        writer.close()

    async with raw_server(answer) as port:
        link = transport.Link(settings.MesosSettings(master=f"127.0.0.1:{port}"))
        async with link.subscribed(calls.subscribe(OURS, suppressed=True)) as stream:
            heard = [event["type"] async for event in link.events(stream)]
            assert "3f32b005-922a-4f03-b348-d1c1c9e2ccce" == stream.id
        await link.aclose()
    assert ["SUBSCRIBED", "OFFERS", "HEARTBEAT", "HEARTBEAT"] == heard
    head, body = await asked.get()
    assert b"\r\nContent-Type: application/json\r\n" in head, "exact, or the answer is 415"
    assert b"POST /api/v1/scheduler HTTP/1.1" in head
    assert "SUBSCRIBE" == json.loads(body)["type"]


async def test_the_fake_refuses_as_a_master_does():
    """Recording 12: every request again, to the fake's sockets; status and words are the same."""
    recorded = json.loads((RECORDED / "12-http-errors" / "calls.json").read_text())
    machine = master.Master()
    machine._framework_count = 13
    open_stream, stream_id = None, ""
    async with wire.Wire(machine).serving() as served, aiohttp.ClientSession() as http:
        for one in recorded:
            request, response = one["request"], one["response"]
            headers = {k: v for k, v in request["headers"] if k in KEPT_HEADERS}
            if headers.get("Mesos-Stream-Id") == RIGHT_STREAM:
                headers["Mesos-Stream-Id"] = stream_id
            body = request["body"]
            answer = await http.request(
                request["method"],
                served.base + request["path"],
                data=body if isinstance(body, str | None) else json.dumps(body),
                headers=headers,
                skip_auto_headers=("Content-Type", "Accept"),
            )
            assert response["status"] == answer.status, one.get("note")
            if response["status"] == 200:
                open_stream, stream_id = answer, answer.headers["Mesos-Stream-Id"]
                continue
            assert response["body"] == await answer.text(), one.get("note")
        assert open_stream is not None
        open_stream.close()


async def test_a_master_that_does_not_lead_tells_who_does(served, broker):
    """307 with a scheme-relative Location, as recorded; also when the first address is dead."""
    follower = wire.Wire(master.Master())
    async with follower.serving():
        follower.redirect = served.base
        backend = broker(f"http://127.0.0.1:1,{follower.base},{served.base}")
        assert {} == await listed_soon(backend)
        await backend.launch(spec())
        assert 0 == follower.subscribes


async def test_masters_may_know_each_other_by_other_names(served, broker):
    """What a redirect names is not in the configuration: the others that are there are asked."""
    follower = wire.Wire(master.Master())
    async with follower.serving():
        follower.redirect = "http://master-2.internal:5050"
        backend = broker(f"{follower.base},{served.base}")
        assert {} == await listed_soon(backend)


@pytest.mark.parametrize("scheme", ["http", ""])
async def test_a_redirect_to_somebody_else_is_told_and_not_followed(
    served, broker, tmp_path, scheme
):
    """Neither credentials nor calls, which hold the agents' secrets, go to who is not configured."""
    asked = []

    async def listen(reader, writer):
        asked.append(await reader.readline())

    (tmp_path / "secret").write_text("s3cret-word\n")
    async with raw_server(listen) as port:
        served.redirect_to = f"{scheme and 'http:'}//127.0.0.1:{port}/master/api/v1/scheduler"
        backend = broker(served.base, principal="p", secret_file=str(tmp_path / "secret"))
        with pytest.raises(
            api.Unavailable, match=rf"says that http://127.0.0.1:{port} leads.*hint"
        ):
            await backend.list()
        with pytest.raises(api.Unavailable, match="which is not in `master`"):
            await backend._driver.cluster.tasks("x")
        served.redirect_to = None
        assert {} == await listed_soon(backend)
    assert [] == asked


async def test_a_redirect_to_a_dead_leader_is_asked_again(served, broker):
    """For one ZooKeeper time-out the follower still names the dead one; then it leads itself."""
    served.redirect = "http://127.0.0.1:1"
    backend = broker(served.base)
    with pytest.raises(api.Unavailable):
        await backend.list()
    served.redirect = None
    assert {} == await listed_soon(backend)


@pytest.mark.parametrize("words", ["No leader elected", "Master has not finished recovery"])
async def test_without_a_leader_nothing_is_listed(served, broker, words):
    """503 (recording 36) is an error with the master's words, never an empty list."""
    served.fault = (503, words, {})
    with pytest.raises(api.Unavailable, match=words):
        await broker(served.base).list()


async def test_a_master_that_falls_silent_is_given_up(served, broker):
    """No heartbeat for three intervals: the connection looks open, but nobody is there."""
    served.machine.heartbeat_s = patience.seconds(0.05)
    backend = broker(served.base)
    await listed_soon(backend)
    served.silent = True
    framework = next(iter(served.machine.frameworks.values()))
    first = framework.stream_id

    async def given_up() -> bool:
        return served.subscribes > 1

    await checks.until("it subscribes anew", given_up, within_s=5)
    served.silent = False
    assert {} == await listed_soon(backend)
    assert first != next(iter(served.machine.frameworks.values())).stream_id


@pytest.mark.parametrize("inside", [False, True])
async def test_a_broken_stream_loses_nothing(served, broker, inside):
    """Also when it breaks inside a record: the task stays, its end is told after the return."""
    served.chunk = 5
    backend = broker(served.base)
    await backend.launch(spec())
    served.cut_record = inside
    served.fault = (503, "No leader elected", {})
    served.cut()
    (task,) = served.machine.tasks.values()
    served.machine.change(task, "TASK_FAILED", "Command exited with status 3")
    served.fault = None

    async def ended() -> bool:
        return (await listed_soon(backend))["a1"].exit is not None

    await checks.until("the end is told", ended, within_s=5)
    found = (await listed_soon(backend))["a1"].exit
    assert ("exited", 3) == (found.slug, found.code)


async def test_a_killed_broker_finds_its_tasks_and_their_ends(served, broker):
    """kill -9 at any time: the id is in the store, the ends are not yet acknowledged."""
    first = broker(served.base)
    await first.launch(spec("a1"))
    await first.launch(spec("a2"))
    task = next(task for task in served.machine.tasks.values() if task.name == "a2")
    served.machine.change(task, "TASK_FAILED", "Command exited with status 7")

    async def told() -> bool:
        return (await listed_soon(first))["a2"].exit is not None

    await checks.until("the first life knows", told, within_s=5)
    await first.aclose()
    second = broker(served.base)
    found = await listed_soon(second)
    assert {"a1", "a2"} == set(found)
    assert 7 == found["a2"].exit.code
    assert 1 == len(served.machine.frameworks)


async def test_a_killed_broker_finds_tasks_on_agents_that_do_not_answer(served, broker):
    """No update tells of them, the master's page does; they may come back, and then they run."""
    first = broker(served.base)
    await first.launch(spec("a1"))
    (task,) = served.machine.tasks.values()
    served.machine.lose(task.agent.id)
    await first.aclose()
    second = broker(served.base)
    found = (await listed_soon(second))["a1"]
    assert (api.InstanceState.RUNNING, {"owner": "ours"}) == (found.state, found.metadata)
    assert "does not answer" in found.detail
    with pytest.raises(api.AlreadyExists):
        await second.launch(attrs.evolve(spec("a1"), argv=("other",)))
    served.machine.come_back(task.agent.id)

    async def back() -> bool:
        return (await listed_soon(second))["a1"].detail == ""

    await checks.until("it is back", back, within_s=5)
    await second.terminate("a1", grace_s=0)
    assert {} == await listed_soon(second)


async def test_constraints_look_at_tasks_of_an_earlier_life(served, broker):
    """Two of a template never on one host, also when the broker was restarted in between."""
    apart = offers.Constraint(attribute=offers.HOSTNAME, operator="UNIQUE")
    made = [
        attrs.evolve(
            spec(name, constraints=(apart,)), metadata={"owner": "ours", names.TEMPLATE: "t"}
        )
        for name in ("a1", "a2", "a3")
    ]
    first = broker(served.base)
    await first.launch(made[0])
    await first.aclose()
    second = broker(served.base)
    await second.launch(made[1])
    assert 2 == len({task.agent.hostname for task in served.machine.tasks.values()})
    with pytest.raises(api.NoCapacity, match="where 1 run already"):
        await second.launch(made[2])


async def test_why_a_program_could_not_be_executed_is_in_its_certificate(served, broker):
    """Mesos tells a number; the shell's words are in the sandbox, and are read once."""
    served.machine.plan = lambda info: master.Plan(
        end=0.05, state="TASK_FAILED", message="Command exited with status 127"
    )
    served.output = lambda task: "sh: 1: exec: java: not found\n\n"
    backend = broker(served.base)
    await backend.launch(spec())

    async def ended() -> api.Exit | None:
        return (await listed_soon(backend))["a1"].exit

    found = await checks.until("it has ended", ended, within_s=5)
    words = "Command exited with status 127: sh: 1: exec: java: not found"
    assert ("command", 127, words) == (found.slug, found.code, found.message)
    served.agent_fault = (503, "", {})
    assert words == (await listed_soon(backend))["a1"].exit.message


STDERR = """\
mesos-fetcher: libcrypto.so.1.0.0: no version information available (required by libmesos)
I1129 10:58:46.574473  5706 fetcher.cpp:459] Fetching URI 'http://127.0.0.1:9/jdk.tar.gz'
I1129 10:58:46.574496  5706 fetcher.cpp:290] Fetching 'http://127.0.0.1:9/jdk.tar.gz' directly into the sandbox directory
E1129 10:58:46.608007  5706 fetcher.cpp:615] EXIT with status 1: Failed to fetch 'http://127.0.0.1:9/jdk.tar.gz': Error downloading resource: Couldn't connect to server
Failed to synchronize with agent (it's probably exited)
"""  # of 1.11.0


async def test_which_file_was_not_fetched_is_in_its_certificate(served, broker):
    """Mesos says "Failed to fetch all URIs": which, and why, is in the sandbox's stderr."""
    words = "Failed to launch container: Failed to fetch all URIs for container 'x': exited with status 1"
    served.machine.plan = lambda info: master.Plan(
        starting=None, running=None, end=0.05, state="TASK_FAILED", message=words,
        reason="REASON_CONTAINER_LAUNCH_FAILED", source="SOURCE_AGENT",
    )  # fmt: skip
    served.stderr = lambda task: STDERR
    backend = broker(served.base)
    await backend.launch(spec())

    async def ended() -> api.Exit | None:
        return (await listed_soon(backend))["a1"].exit

    found = await checks.until("it has ended", ended, within_s=5)
    assert "network" == found.slug
    assert found.message.startswith("Failed to launch container: Failed to fetch all URIs")
    assert found.message.endswith(
        "jdk.tar.gz': Error downloading resource: Couldn't connect to server"
    )


async def test_the_identity_is_kept_before_it_is_used(served, broker):
    """A crash right after SUBSCRIBE must not leave a framework that nobody knows."""
    served.fault = (503, "No leader elected", {})
    first = broker(served.base)
    with pytest.raises(api.Unavailable):
        await first.list()
    await first.aclose()
    (kept,) = broker.store.kept.values()
    served.fault = None
    await listed_soon(broker(served.base))
    assert [kept] == list(served.machine.frameworks)


async def test_the_loser_of_two_brokers_waits_until_the_other_has_gone(served, broker):
    """One id, two brokers: the first is told so, never fights, and goes on by itself afterwards."""
    first, second = broker(served.base), broker(served.base)
    await first.launch(spec())
    assert ["a1"] == list(await listed_soon(second))

    async def told() -> str:
        try:
            await first.list()
        except api.Unavailable as error:
            return error.reason
        return ""

    assert "another broker" in await checks.until("the first is told", told, within_s=5)
    with pytest.raises(api.Unavailable, match="another broker"):
        await first.launch(spec("a2"))
    looked = len(served.pages)

    async def looks() -> bool:
        return len(served.pages) > looked + 5

    await checks.until("it looks again and again", looks, within_s=5)
    assert 2 == served.subscribes
    await second.launch(spec("a3"))
    assert {"a1", "a3"} == set(await listed_soon(second))
    await second.aclose()
    found = await listed_soon(first)
    assert {"a1", "a3"} == set(found), "also what the other one left, from the first list on"
    assert {"owner": "ours"} == found["a3"].metadata
    await first.launch(spec("a2"))
    assert 3 == served.subscribes


async def test_a_framework_that_nobody_shows_is_taken_back_in_the_end(served, broker):
    """The master hides it, or has forgotten it: after some looks, not at once and not never."""
    first = broker(served.base)
    await first.launch(spec())
    served.page_fault = lambda path, query: (
        '{"frameworks": [], "completed_frameworks": []}' if path == "/frameworks" else None
    )
    second = broker(served.base)
    await listed_soon(second)
    await second.aclose()
    assert ["a1"] == list(await listed_soon(first))
    assert driver._UNSEEN_MAX <= served.pages.count("/frameworks")


async def test_a_call_that_is_refused_before_the_stream_tells_why_is_no_reason_to_fight(
    served, broker
):
    """The other broker has subscribed; our call is answered before we hear that we lost."""
    first = broker(served.base)
    await first.list()
    (framework,) = served.machine.frameworks.values()
    served.silent = True
    served.page_fault = lambda path, query: "[]" if path == "/slaves" else None  # no hope of room
    served.machine.subscribe(
        {"framework_id": {"value": framework.id}, "subscribe": {"framework_info": framework.info}},
        "another",
    )
    with pytest.raises(api.BackendError):
        await first.launch(spec())
    served.silent = False

    async def told() -> bool:
        return first._driver._session.phase is session.SessionPhase.SUPERSEDED

    await checks.until("it hears that it lost", told, within_s=5)
    assert 1 == served.subscribes
    assert "another" == served.machine.frameworks[framework.id].stream_id


async def test_an_id_is_used_once(served, broker):
    """Also that of an earlier life: the agent would abort; what no agent ever had is free."""
    first = broker(served.base)
    await first.launch(spec("a1"))
    await first.launch(spec("a1"))  # the same again is no other task
    await first.terminate("a1", grace_s=0)
    with pytest.raises(api.AlreadyExists, match="'a1' was there before"):
        await first.launch(spec("a1"))
    served.machine.refused_users.add("jenkins")
    with pytest.raises(api.Rejected):
        await first.launch(spec("a2"))
    served.machine.refused_users.clear()
    await first.launch(spec("a2"))
    await first.aclose()
    second = broker(served.base)
    with pytest.raises(api.AlreadyExists, match="'a1' was there before"):
        await second.launch(spec("a1"))
    assert ["a2"] == list(await listed_soon(second))
    launched = [task.name for task in served.machine.completed if task.name == "a1"]
    assert ["a1"] == launched


async def test_who_departs_for_good_is_forgotten_by_the_master(served, broker):
    """The framework is gone at once, not after its time-out; whoever comes next begins anew."""
    backend = broker(served.base)
    await backend.launch(spec())
    (old,) = served.machine.frameworks
    with pytest.raises(api.Unavailable, match="left as it is: 'a1' is there"):
        await api.depart(backend)
    assert [old] == [*served.machine.frameworks]
    await backend.terminate("a1", grace_s=0)
    await api.depart(backend)
    assert {} == served.machine.frameworks
    assert [""] == [*broker.store.kept.values()]
    await backend.aclose()

    assert {} == await listed_soon(broker(served.base))
    (new,) = served.machine.frameworks
    assert new != old


@pytest.mark.parametrize("page", ["TASK_RUNNING", "TASK_STAGING"])
async def test_who_departs_looks_twice_whether_anything_runs(served, broker, page):
    """The master kills what runs of a framework that ends: its page counts, too."""
    backend = broker(served.base)
    await listed_soon(backend)
    (ours,) = served.machine.frameworks
    left = {"id": "a9", "state": page, "framework_id": ours, "slave_id": "S9", "labels": []}
    served.page_fault = lambda path, query: (
        json.dumps({"tasks": [left]}) if path == "/tasks" else None
    )
    with pytest.raises(api.Unavailable, match="'a9' is there"):
        await api.depart(backend)
    assert [ours] == [*served.machine.frameworks]


async def test_a_removed_framework_begins_anew(served, broker):
    """Under another id, with what it had shown as ended."""
    backend = broker(served.base)
    await backend.launch(spec())
    (old,) = served.machine.frameworks
    served.machine.remove(old)

    async def renewed() -> bool:
        return bool(served.machine.frameworks) and old not in served.machine.frameworks

    await checks.until("there is a new framework", renewed, within_s=5)
    found = await listed_soon(backend)
    assert "killed" == found["a1"].exit.slug
    await backend.launch(spec("a2"))
    assert [*served.machine.frameworks] == [*broker.store.kept.values()]


@pytest.mark.parametrize(
    ("state", "begins"), [("TASK_RUNNING", False), ("TASK_UNREACHABLE", True)]
)
async def test_nothing_begins_anew_while_a_task_of_the_old_framework_runs(
    served, broker, state, begins
):
    """But a dead agent, which nobody hears of again, does not stop us for ever."""
    backend = broker(served.base)
    await backend.launch(spec())
    (old,) = served.machine.frameworks
    served.machine.remove(old)
    left = {"id": "a1", "state": state, "framework_id": old, "slave_id": "S9", "labels": []}
    page = json.dumps({"tasks": [left]})
    served.page_fault = lambda path, query: page if path == "/tasks" else None

    async def decided() -> bool:
        try:
            await backend.list()
        except api.Unavailable as error:
            return "'a1' still runs" in error.reason
        return bool(served.machine.frameworks)

    await checks.until("it begins anew, or says why not", decided, within_s=5)
    assert begins == bool(served.machine.frameworks)


async def test_a_forbidden_role_and_wrong_credentials_are_told(served, broker, tmp_path):
    """Whose fault it is, in the master's words; the right credentials then work."""
    served.machine.refused_roles.add("secret")
    with pytest.raises(api.Unauthorized, match="Not authorized to register framework"):
        await broker(served.base, role="secret").list()
    served.credentials = "Basic YnJva2VyOnM="
    with pytest.raises(api.Unauthorized, match="401"):
        await broker(served.base, name="two").list()
    (tmp_path / "secret").write_text("s\n")
    backend = broker(
        served.base, name="two", principal="broker", secret_file=str(tmp_path / "secret")
    )
    assert {} == await listed_soon(backend)


async def test_why_a_launch_does_not_start_is_told_within_seconds(served, broker):
    """Too large for every agent; everything in use; a forbidden user."""
    backend = broker(served.base)
    with pytest.raises(api.Rejected, match=r"none of 2 agents can ever hold it.*cpus 4 of 5"):
        await backend.launch(
            api.InstanceSpec(
                name="a1", metadata={}, argv=("x",), options=settings.MesosTemplate(default_cpus=5)
            )
        )
    for agent in served.machine.agents.values():
        agent.used["cpus"] += 3900
    with pytest.raises(api.NoCapacity, match=r"cpus 0.1 of 0.5"):
        await backend.launch(spec())
    for agent in served.machine.agents.values():
        agent.used["cpus"] -= 3900
    served.machine.refused_users.add("jenkins")
    with pytest.raises(api.Rejected, match=r"under user 'jenkins'.*hint: `user`"):
        await backend.launch(spec())
    assert {} == await checks.listed(backend)
    await backend.launch(spec(user="other"))  # of another template: nothing is wrong with it
    await backend.terminate("a1", grace_s=0)
    (framework,) = served.machine.frameworks.values()

    async def suppressed() -> bool:
        return framework.suppressed

    await checks.until("it asks for nothing any more", suppressed, within_s=5)


async def test_who_is_offered_nothing_while_there_is_room_waits_for_its_turn(served, broker):
    """Other frameworks have the offers; once they give them back the task is launched."""
    others = attrs.evolve(OURS, id="others")
    served.machine.subscribe(calls.subscribe(others, suppressed=False), "others")
    assert 2 == len(served.machine.offers), "both agents, offered to somebody else"
    backend = broker(served.base, offer_timeout_s=0.2)
    async with asyncio.TaskGroup() as group:
        launch = group.create_task(backend.launch(spec()))

        async def gave_up_once() -> bool:
            return "/slaves" in served.pages

        await checks.until("it looks for room", gave_up_once, within_s=5)
        assert not launch.done()
        served.machine.remove("others")
    assert ["a1"] == list(await listed_soon(backend))


async def test_who_waits_for_its_turn_gives_up_in_the_end(served, broker):
    """Whoever has the offers keeps them."""
    others = attrs.evolve(OURS, id="others")
    served.machine.subscribe(calls.subscribe(others, suppressed=False), "others")
    with pytest.raises(api.NoCapacity, match="made no offer to the role"):
        await broker(served.base, offer_timeout_s=0.1).launch(spec())


async def test_room_where_maintenance_is_near_is_not_waited_for(served, broker):
    """Both agents are empty, and go within the hour: said after one turn, with the reason."""
    for agent in served.machine.agents.values():
        agent.maintenance_at = time.time() + 1200
    before = len(served.pages)
    with pytest.raises(api.NoCapacity, match="agent-1: goes into maintenance"):
        await broker(served.base, offer_timeout_s=0.3).launch(spec())
    assert 2 >= served.pages[before:].count("/slaves"), "it has not waited for another turn"
    for agent in served.machine.agents.values():
        agent.maintenance_at = None
    backend = broker(served.base)
    await backend.launch(spec("a2"))
    assert ["a2"] == list(await listed_soon(backend))


def large(name):
    """Return what takes three of an agent's four cores: two fit, one on each agent."""
    options = settings.MesosTemplate(default_cpus=3)
    return api.InstanceSpec(name=name, metadata={}, argv=("x",), options=options)


async def test_room_is_asked_for_before_anything_is_wanted(served, broker):
    """What is reserved, wanted or runs already takes its room; nothing is launched by it."""
    backend = broker(served.base)
    for name in ("a1", "a2", "a1"):
        await backend.reserve(large(name))
    with pytest.raises(api.NoCapacity, match="none of 2 agents of the cluster has room"):
        await backend.reserve(large("a3"))
    assert {} == await checks.listed(backend)
    with pytest.raises(api.NotFound):
        await backend.terminate("a1", grace_s=0)
    await backend.reserve(large("a3"))
    for name in ("a2", "a3"):
        await backend.launch(large(name))

    async def has_room() -> bool:
        try:
            await backend.reserve(large("a4"))
        except api.NoCapacity:
            return False
        with contextlib.suppress(api.NotFound):
            await backend.terminate("a4", grace_s=0)
        return True

    async def is_full() -> bool:
        return not await has_room()

    await checks.until("the master's page shows what runs", is_full, within_s=10)
    await backend.terminate("a2", grace_s=0)
    await checks.until("the room of what has ended is free", has_room, within_s=10)


async def test_what_can_never_run_is_refused_before_its_node_is_made(served, broker):
    """As at the launch."""
    options = settings.MesosTemplate(default_cpus=5)
    with pytest.raises(api.Rejected, match="none of 2 agents can ever hold it"):
        await broker(served.base).reserve(attrs.evolve(large("a1"), options=options))


async def test_where_the_pages_tell_nothing_a_launch_finds_out(served, broker):
    """Nobody is refused for want of a right to look; it costs one request a second at most."""
    backend = broker(served.base)
    served.page_fault = lambda path, query: 403 if path == "/slaves" else None
    for number in range(5):
        await backend.reserve(large(f"a{number}"))
    served.page_fault = None
    await backend.launch(large("a0"))
    assert ["a0"] == list(await listed_soon(backend))


async def test_the_last_lines_of_a_long_output_are_whole(served, broker):
    """Only its end is read, and what was cut in two is left out."""
    lines = [f"{number:04} {'x' * 95}" for number in range(2000)]
    served.output = lambda task: "\n".join(lines) + "\n"
    backend = broker(served.base)
    await backend.launch(spec())
    read = (await backend.logs("a1", tail=5000)).splitlines()
    assert 500 < len(read) < 1000
    assert lines[-len(read) :] == read
    assert lines[-2:] == (await backend.logs("a1", tail=2)).splitlines()


async def test_a_page_that_comes_in_many_pieces_is_read_to_its_end(served, broker):
    """Of a large cluster: one read gives only what has arrived."""
    (agent, _) = served.machine.view_agents()
    page = json.dumps({"slaves": [agent | {"hostname": f"host-{n}"} for n in range(3000)]})
    assert len(page) > 500_000
    served.page_fault = lambda path, query: page if path == "/slaves" else None
    options = settings.MesosTemplate(default_cpus=5)
    wanted = api.InstanceSpec(name="a1", metadata={}, argv=("x",), options=options)
    with pytest.raises(api.Rejected, match="none of 3000 agents can ever hold it"):
        await broker(served.base).launch(wanted)


@pytest.mark.parametrize(
    ("role", "limited", "cpus", "words"),
    [
        ("*", "*", 0.0, r"quota of role '\*' is used up: cpus 0 of 0"),
        ("ci/builds", "ci", 0.25, r"quota of role 'ci' is used up: cpus 0.25 of 0.25.*0.5 are"),
    ],
)
async def test_a_quota_that_is_used_up_is_told(served, broker, role, limited, cpus, words):
    """Also that of a role above ours, and when an offer is cut to what is left."""
    served.machine.quota_limit[limited] = {"cpus": cpus}
    backend = broker(served.base, role=role)
    with pytest.raises(api.NoCapacity, match=words):
        await backend.launch(spec())
    served.machine.quota_limit.clear()
    await backend.launch(spec())


async def test_a_failed_over_master_is_not_believed_too_early(served, broker):
    """A new life must not list before the agents are back: absence may mean terminate."""
    first = broker(served.base)
    await first.launch(spec())
    await first.aclose()
    served.machine.fail_over()
    second = broker(served.base)
    with pytest.raises(api.Partial, match=r"waits for agents: \d, such as agent-\d") as caught:
        await second.list()
    assert caught.value.odd, "of what is absent nothing is known"
    served.machine.reregister()
    assert ["a1"] == list(await listed_soon(second))


async def test_one_agent_that_stays_away_stops_no_orders(served, broker, monkeypatch):
    """After the master's restart: what is there is listed, and the others' room is used."""
    monkeypatch.setattr(driver, "_MOMENT_S", 0.1)
    first = broker(served.base)
    await first.launch(spec("a1"))
    await first.aclose()
    served.machine.fail_over()
    served.cut()
    (away,) = [task.agent for task in served.machine.tasks.values()]
    for agent in served.machine.agents.values():
        agent.state = "recovered" if agent is away else "up"
    second = broker(served.base)
    with pytest.raises(api.Partial, match="waits for agents"):
        await second.list()
    await second.launch(spec("a2"))
    with pytest.raises(api.Partial, match=f"such as {away.hostname}") as caught:
        await second.list()
    assert ["a2"] == [one.name for one in caught.value.seen]
    served.machine.reregister()
    assert {"a1", "a2"} == set(await listed_soon(second))


async def test_a_new_framework_waits_for_nobody(served, broker):
    """Nothing of it can be on an agent that is away."""
    served.machine.fail_over()
    backend = broker(served.base)
    assert [] == await backend.list()


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"tasks": null}'])
async def test_a_failing_second_page_fails_the_listing(served, broker, monkeypatch, broken):
    """A listing of some of our tasks would mean the end of the others; all is well afterwards."""
    monkeypatch.setattr(cluster, "_PAGE", 2)
    first = broker(served.base)
    for number in range(5):
        await first.launch(spec(f"a{number}"))
    await first.aclose()
    asked: list[str] = []

    def fault(path, query) -> str | None:
        asked.append(query["offset"])
        return broken if query["offset"] == "2" else None

    served.page_fault = fault
    second = broker(served.base)
    with pytest.raises(api.Unavailable, match=r"JSON|something else"):
        await second.list()
    assert ["0", "2"] == asked
    served.page_fault = lambda path, query: None
    found = await listed_soon(second)
    assert {f"a{number}" for number in range(5)} == set(found)
    assert all(one.metadata == {"owner": "ours"} for one in found.values())


async def test_pages_that_cannot_be_read_do_not_hide_the_reason(served, broker):
    """No offer fits, and the pages that would tell why are broken: said so, not a crash."""
    for agent in served.machine.agents.values():
        agent.used["cpus"] += 3900
    served.page_fault = lambda path, query: "[]" if path in ("/slaves", "/roles") else None
    with pytest.raises(api.NoCapacity, match=r"cpus 0.1 of 0.5"):
        await broker(served.base).launch(spec())
    served.page_fault = lambda path, query: None if path == "/tasks" else "<html>"
    with pytest.raises(api.NoCapacity, match=r"cpus 0.1 of 0.5.*do not tell more"):
        await broker(served.base).launch(spec())


# --- ZooKeeper ---


def zookeeper_server(
    children: list[str], data: bytes, *, error: int = 0, seen: list | None = None
):
    """Answer as ZooKeeper 3 does, packet by packet."""

    async def answer(reader, writer):
        def reply(body: bytes) -> None:
            writer.write(struct.pack(">i", len(body)) + body)

        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            (length,) = struct.unpack(">i", await reader.readexactly(4))
            assert length == len(await reader.readexactly(length)) == 45
            reply(struct.pack(">iiqi16s?", 0, 10000, 77, 16, bytes(16), True))
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                packet = await reader.readexactly(length)
                xid, kind = struct.unpack_from(">ii", packet)
                if seen is not None:
                    seen.append((kind, packet[8:]))
                head = struct.pack(">iqi", xid, 5, error)
                if kind == 8:
                    names = b"".join(struct.pack(">i", len(n)) + n.encode() for n in children)
                    reply(head + (b"" if error else struct.pack(">i", len(children)) + names))
                elif kind == 4:
                    reply(head + struct.pack(">i", len(data)) + data + bytes(68))
                else:
                    reply(head)
        writer.close()

    return answer


async def test_the_leader_is_found_in_zookeeper(served, broker):
    """The lowest number leads; dead servers are passed over; the path may be deep."""
    host, port = served.base.removeprefix("http://").split(":")
    info = json.dumps(
        {"hostname": "x", "port": 1, "address": {"hostname": host, "ip": host, "port": int(port)}}
    ).encode()
    seen: list = []
    nodes = ["log_replicas", "json.info_0000000012", "json.info_0000000003", "info_0000000001"]
    async with raw_server(zookeeper_server(nodes, info, seen=seen)) as zk:
        backend = broker(f"zk://user:word@127.0.0.1:1,127.0.0.1:{zk}/deep/mesos")
        assert {} == await listed_soon(backend)
    assert b"user:word" in next(body for kind, body in seen if kind == 100)
    assert b"/deep/mesos/json.info_0000000003" in next(body for kind, body in seen if kind == 4)


@pytest.mark.parametrize(
    ("children", "data", "error", "words"),
    [
        ([], b"", 0, "no master is registered under /mesos"),
        (["json.info_0000000001"], b"{", 0, "cannot be read"),
        (["json.info_0000000001"], b'{"hostname":"h","port":1e999}', 0, "cannot be read"),
        (["json.info_0000000001"], b'{"hostname":"h","port":1%s}' % (b"0" * 400), 0, "no host"),
        (["json.info_0000000001"], b'{"hostname":"h","port":"%s"}' % (b"7" * 4000), 0, "no host"),
        (["json.info_0000000001"], b"[" * 100_000, 0, "cannot be read"),
        (["json.info_0000000001"], b'{"hostname":"a\\nb","port":5}', 0, "no host and port"),
        ([], b"", -101, "/mesos does not exist"),
        ([], b"", -102, "/mesos is forbidden"),
    ],
)
async def test_zookeeper_without_a_leader(children, data, error, words):
    """Each with its words; no password in them."""
    async with raw_server(zookeeper_server(children, data, error=error)) as zk:
        address = zookeeper.parse(f"zk://127.0.0.1:{zk}/mesos")
        with pytest.raises(zookeeper.ZooKeeperError, match=words) as caught:
            await zookeeper.leader(address, timeout_s=2)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "said",
    [b"", b"\xff\xff\xff\xfb", b"\x7f\xff\xff\xff", b"HTTP/1.1 400 Bad\r\n\r\n", bytes(2_000_000),
     struct.pack(">iiiqi16s?", 37, 0, 10000, 77, 16, bytes(16), True) + bytes(12)],
    ids=["silence", "negative", "2 GiB", "another server", "zeros", "half an answer"],
)  # fmt: skip
async def test_zookeeper_that_drips_or_says_anything(said):
    """Within the limit of time, however often a byte comes, and with words."""
    over = asyncio.Event()

    async def answer(reader, writer):
        with contextlib.suppress(ConnectionError):
            writer.write(said)
            while not over.is_set():
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 0.02)
                writer.write(b"\0")
        writer.close()

    async with raw_server(answer) as zk:
        address = zookeeper.parse(f"zk://127.0.0.1:{zk}/mesos")
        try:
            with pytest.raises(zookeeper.ZooKeeperError, match=r"127\.0\.0\.1"):
                await patience.wait_for(zookeeper.leader(address, timeout_s=0.5), 10)
        finally:
            over.set()


async def test_no_password_is_shown():
    """Neither in a representation nor in an error."""
    address = zookeeper.parse("zk://u:passw0rd@127.0.0.1:1/mesos")
    assert "passw0rd" not in repr(address)
    with pytest.raises(zookeeper.ZooKeeperError) as caught:
        await zookeeper.leader(address, timeout_s=2)
    assert "passw0rd" not in str(caught.value)
