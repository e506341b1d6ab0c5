"""Odd entries of an engine cost themselves: nothing is lost, removed or ended for them."""

import asyncio
import contextlib
import copy
import json
import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import api
from backends.docker import backend as docker_engine
from backends.docker import settings
from backends.docker.containers import container
from backends.docker.engine import answers, client, events
from backends.kit import names
from outside import text
from tests.docker import recorded, scripted_engine

OWNER = "ours"
METADATA = {names.OWNER: OWNER, "template": "maven", "revision": "0123456789", "created": "1.5"}


def entry(name: str, **changes: object) -> dict[str, object]:
    """Return a recorded entry of a listing as one of ours."""
    (told,) = recorded.load("list-by-label")["body"]
    spec = api.InstanceSpec(name=name, metadata=METADATA, image="x")
    labels = container.plan(spec, owner=OWNER).body["Labels"]
    own = {"Id": name.encode().hex().ljust(64, "0"), "Names": [f"/{name}"], "Labels": labels}
    return {**told, **own, **changes}


def labels(name: str, **changes: object) -> dict[str, object]:
    told = {**entry(name)["Labels"], **changes}
    return {key: value for key, value in told.items() if value is not ...}


@contextlib.contextmanager
def backend(engine: scripted_engine.Engine, **told: object):
    """Give a backend and what runs coroutines for it."""
    configured = settings.DockerSettings(
        **{
            "hosts": (settings.Host(url=engine.url),),
            "timeout_s": 10.0,
            "docker_config": "/nonexistent",
            **told,
        }
    )
    made = docker_engine.create(
        configured, owner=OWNER, store=None, state_dir=None, now=lambda: 1795477200.0
    )
    with asyncio.Runner() as runner:
        try:
            yield made, runner.run
        finally:
            runner.run(made.aclose())


def listed(
    engine: scripted_engine.Engine, entries: list[object]
) -> tuple[dict[str, api.Instance], str]:
    """Return what a listing of these shows, and why it is not whole."""
    engine.answer("GET", "/containers/json", entries, odd=True)
    with backend(engine) as (made, run):
        return seen_by(made, run)


def seen_by(made, run) -> tuple[dict[str, api.Instance], str]:
    try:
        found, odd = run(made.list()), ""
    except api.Partial as error:
        found, odd = error.seen, error.reason if error.odd else ""
    for one in found:
        assert text.clean(one.detail) == one.detail
    return {one.name: one for one in found}, odd


WHOLE = {  # odd, and yet all that is needed is known
    "no state": {"State": ...}, "a state of another kind": {"State": {"Status": "exited"}},
    "an unknown state": {"State": "hibernating"}, "no time": {"Created": ...},
    "a time that is a text": {"Created": "2026-11-23"}, "a time beyond all": {"Created": 1e300},
    "a time before all": {"Created": -5}, "no number": {"Created": float("nan")},
    "endless": {"Created": float("inf")}, "a huge number": {"Created": 10**400},
    "true": {"Created": True}, "ports: null": {"Ports": None}, "ports: a text": {"Ports": "80"},
    "ports: odd ones": {"Ports": [None, 5, {}, {"PublicPort": "x"},
                                  {"PublicPort": 1, "PrivatePort": None}]},
    "ports: odd addresses": {"Ports": [{"IP": 5, "PublicPort": 1, "PrivatePort": 2, "Type": 3}]},
    "a million ports": {"Ports": [{"PublicPort": n, "PrivatePort": n} for n in range(100_000)]},
    "no names": {"Names": None}, "names of another kind": {"Names": {"a": 1}},
    "odd names": {"Names": [None, 5, "", "/", "/" * 5000]},
    "an id of another kind": {"Id": 7}, "no id": {"Id": ...}, "an empty id": {"Id": ""},
    "an id that is a path": {"Id": "../../images/json"}, "an id with lines": {"Id": "a\r\nX: y"},
    "other keys": {"\ud800": "\u202e"}, "mounts": {"Mounts": 5, "NetworkSettings": []},
    "a state that shouts": {"State": "\x1b[31mRUNNING\x07"},
    "deep": {"HostConfig": json.loads("[" * 200 + "]" * 200)},
}  # fmt: skip
DAMAGED = {  # the name can be told, and not whose it is or of what
    "labels: null": {"Labels": None}, "labels: a list": {"Labels": []}, "no labels": {"Labels": ...},
    "labels: a text": {"Labels": "x=y"}, "labels: empty": {"Labels": {}},
    "a label of another kind": {"Labels": labels("odd", **{"agent-broker.metadata.created": 5})},
    "a label that is null": {"Labels": labels("odd", other=None)},
    "the owner is a number": {"Labels": labels("odd", **{"agent-broker.owner": 5})},
    "a piece is missing": {"Labels": labels("odd", **{"agent-broker.metadata.template": "x-.ax"})},
    "no bytes": {"Labels": labels("odd", **{"agent-broker.metadata.template": "x--_ZZx"})},
    "the name is a number": {"Labels": labels("odd", **{"agent-broker.name": 5})},
    "ten thousand labels": {"Labels": labels("odd", **{f"l{n}": "" for n in range(10_000)})},
}  # fmt: skip
NAMELESS = {  # nothing tells which it is
    "null": None, "a number": 5, "a text": "x", "a list": [], "an empty object": {},
    "names and labels gone": {**entry("odd"), "Names": None, "Labels": None},
    "a name that is none": entry("odd", Names=["/b c"], Labels=labels("odd", **{
        "agent-broker.name": "b c"})),
    "a name too long": entry("odd", Names=None, Labels=labels("odd", **{
        "agent-broker.name": "x" * 64})),
    "a name with an escape": entry("odd", Names=[], Labels=labels("odd", **{
        "agent-broker.name": "a\x1b[2J"})),
    "a name that is a path": entry("odd", Names=["/../x"], Labels=labels("odd", **{
        "agent-broker.name": "../x"})),
}  # fmt: skip


def changed(changes: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in entry("odd", **changes).items() if value is not ...}


def test_there_are_fifty_of_them():
    """Or what is tried here got lost."""
    assert 50 <= len(WHOLE) + len(DAMAGED) + len(NAMELESS)


@pytest.fixture(scope="module")
def engine():
    with scripted_engine.engine() as made:
        yield made


@pytest.mark.parametrize("kind", WHOLE)
def test_an_odd_value_costs_itself(kind, engine):
    """The container is there, never at an end; the list is whole."""
    found, odd = listed(engine, [entry("a1"), changed(WHOLE[kind]), entry("a2")])
    assert ({"a1", "odd", "a2"}, "") == (set(found), odd)
    assert METADATA == dict(found["odd"].metadata)
    assert api.InstanceState.RUNNING is found["odd"].state
    assert found["odd"].created_at is None or 0 < found["odd"].created_at < 1e11


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_container_keeps_what_is_absent_from_being_removed(kind, engine):
    """The others are served as ever; that it cannot be read is said."""
    found, odd = listed(engine, [entry("a1"), changed(DAMAGED[kind]), entry("a2")])
    assert {"a1", "odd", "a2"} == set(found)
    assert METADATA == dict(found["a1"].metadata)
    assert "the labels of odd are damaged" in odd


@pytest.mark.parametrize("kind", NAMELESS)
def test_a_container_without_a_name(kind, engine):
    """Whatever is not in the list may be it."""
    found, odd = listed(engine, [entry("a1"), NAMELESS[kind], entry("a2")])
    assert {"a1", "a2"} == set(found)
    assert "cannot be read" in odd or "no name" in odd
    assert text.clean(odd) == odd


def test_what_is_not_ours_is_not_listed(engine):
    """An engine that does not know the filter shows all it has."""
    foreign = entry("b1", Labels={"com.example": "x"})
    theirs = entry("b2", Labels=labels("b2", **{"agent-broker.owner": "theirs"}))
    found, odd = listed(engine, [foreign, entry("a1"), theirs])
    assert ({"a1"}, "") == (set(found), odd)


def test_the_same_id_twice(engine):
    """One agent."""
    found, odd = listed(engine, [entry("a1"), entry("a1")])
    assert ({"a1"}, "") == (set(found), odd)


def test_an_image_made_of_an_agent_has_its_labels(engine):
    """What runs from it is not the agent, and costs it nothing: neither is removed."""
    copied = entry("a1", Names=["/eager_noether"], Id="f" * 64, State="exited")
    for entries in ([copied, entry("a1")], [entry("a1"), copied]):
        engine.requests.clear()
        found, odd = listed(engine, entries)
        assert (api.InstanceState.RUNNING, "") == (found["a1"].state, odd)
        assert not [asked for asked in engine.requests if asked.method == "DELETE"]


# --- looked at -----------------------------------------------------------------------------------


def ended(engine: scripted_engine.Engine, inspect: object, *, state: str = "exited"):
    """Return what is told of a container that has ended, and whose inspect is this."""
    engine.answer("GET", "/json", b"")
    del engine.answers["GET", "/json"]
    told = entry("odd", State=state)
    engine.answer("GET", f"/{told['Id']}/json", inspect, odd=True)
    return listed(engine, [entry("a1"), told])


def inspect(**changes: object) -> dict[str, object]:
    told = copy.deepcopy(recorded.load("container-exit3")["inspect_exited"]["body"])
    told["State"].update(changes)
    return told


@pytest.mark.parametrize(
    "told",
    [[], "x", 5, {}, {"State": {}}, {"Id": "x", "State": {"Status": None}, "Config": {}}],
    ids=repr,
)
def test_an_end_that_cannot_be_looked_at(told, engine):
    """It has ended all the same: the listing says so."""
    found, odd = ended(engine, told)
    assert ({"a1", "odd"}, "") == (set(found), odd)
    assert (api.InstanceState.EXITED, "unknown") == (found["odd"].state, found["odd"].exit.slug)


@pytest.mark.parametrize(
    "changes",
    [{"ExitCode": None}, {"ExitCode": "3"}, {"ExitCode": 10**300}, {"ExitCode": -(10**300)},
     {"ExitCode": 1.5}, {"FinishedAt": 5}, {"FinishedAt": "x" * 100_000}, {"FinishedAt": "9" * 30},
     {"FinishedAt": "9999-99-99T99:99:99Z"}, {"FinishedAt": "2026-01-01T00:00:00+99:99"},
     {"StartedAt": None}, {"OOMKilled": "yes"}, {"Error": {"a": 1}}, {"Error": "x" * 1_000_000},
     {"Error": "\x1b]0;title\x07\u202ename\nnext"}],
    ids=lambda changes: repr(changes)[:40],
)  # fmt: skip
def test_an_end_with_odd_facts(changes, engine):
    """Each costs itself; what is shown is fit to be shown."""
    found, _ = ended(engine, inspect(**changes))
    end = found["odd"].exit
    assert api.InstanceState.EXITED is found["odd"].state
    assert text.clean(end.message) == end.message
    assert end.code is None or abs(end.code) <= 1 << 32


@pytest.mark.parametrize(
    ("status", "state"),
    [("exited", api.InstanceState.EXITED), ("running", api.InstanceState.RUNNING)],
)
def test_an_end_that_is_told_and_not_listed_yet(status, state):
    """An engine lists it some time later and tells nobody; one that runs again is looked at, too."""
    told = entry("a1")
    died = {"Action": "die", "Actor": {"ID": told["Id"]}, "timeNano": 1795477200 * 10**9}
    life = scripted_engine.lines(died).removesuffix(scripted_engine.chunk(b""))

    def send(_, sock) -> None:
        sock.sendall(life)
        sock.rest(30)

    with scripted_engine.engine() as engine:
        engine.answer("GET", "/events", send)
        engine.answer("GET", "/containers/json", [told])
        engine.answer("GET", f"/{told['Id']}/json", inspect(Status=status))
        with backend(engine) as (made, run):

            async def seen() -> api.Instance:
                waking = made.watch()
                async with contextlib.aclosing(waking):
                    await anext(waking)
                    (one,) = await made.list()
                    return one

            one = run(seen())
    assert state is one.state
    assert (one.exit.code if one.exit else None) == (3 if status == "exited" else None)


def test_an_engine_that_fails_while_it_is_looked_at(engine):
    """That is no oddness of one: nothing is known."""
    engine.answer("GET", "/containers/json", [entry("odd", State="exited")])
    engine.answer(
        "GET", f"/{entry('odd')['Id']}/json", scripted_engine.refusal(503, "is shutting down")
    )
    with backend(engine) as (made, run), pytest.raises(api.Unavailable, match="shutting down"):
        run(made.list())


def test_a_created_one_that_nobody_starts_has_ended(engine):
    """Whoever made it was killed before; while it may be made it is starting."""
    born = recorded.load("container-exit3")["inspect_created"]["body"]
    told = {**born, "Id": entry("odd")["Id"]}
    told["State"] = {**told["State"], "Status": "created", "Error": "", "ExitCode": 0}
    for age, state in ((500.0, "STARTING"), (700.0, "EXITED")):
        engine.answer("GET", f"/{told['Id']}/json", told)
        created = entry("odd", State="created", Created=1795477200.0 - age)
        found, _ = listed(engine, [created])
        assert state == found["odd"].state.name
    assert "never started" in found["odd"].exit.message


# --- fuzz ----------------------------------------------------------------------------------------

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([10**400, -1, 2**63, "\x1b[2J", "\u202e", "running", "exited", "../.."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@st.composite
def _mutated(draw, base):
    """Return a recording of which a few values are something else, gone, or there twice."""
    told = copy.deepcopy(base)
    for _ in range(draw(st.integers(1, 4))):
        place, key = told, None
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or draw(st.booleans()):
                break
            place = place[key]
        if key is None or not isinstance(place, dict | list) or not place:
            return draw(_VALUES)
        if isinstance(place, dict) and draw(st.booleans()):
            del place[key]
        else:
            place[key] = draw(_VALUES)
    return told


@pytest.fixture(scope="module")
def standing():
    """Give an engine of its own, and one backend on it: to make one takes its time."""
    with scripted_engine.engine() as made, backend(made) as (one, run):
        told = recorded.load("container-exit3")["inspect_exited"]["body"]
        made.answer("GET", "/containers/json", [])
        made.answer("GET", "/json", told)
        yield made, one, run


@given(bad=st.lists(_mutated(entry("odd")), min_size=1, max_size=3))
def test_a_listing_that_was_tampered_with(bad, standing):
    """The good ones are all there; a bad one is there too, or it is said that it may be."""
    engine, made, run = standing
    engine.answer("GET", "/containers/json", [entry("a1"), *bad, entry("a2")], odd=True)
    found, odd = seen_by(made, run)
    assert {"a1", "a2"} <= set(found)
    for name in ("a1", "a2"):
        assert METADATA == dict(found[name].metadata)
        assert api.InstanceState.RUNNING is found[name].state
    foreign = all(
        isinstance(one, dict)
        and isinstance(one.get("Labels"), dict)
        and one["Labels"].get("agent-broker.owner") != OWNER
        for one in bad
    )
    assert len(found) > 2 or odd or foreign


@given(_mutated(recorded.load("container-exit3")["inspect_exited"]["body"]))
def test_an_inspect_that_was_tampered_with(told):
    """Read, or refused as none."""
    try:
        read = answers.inspected(told if isinstance(told, dict) else {})
    except ValueError:
        return
    assert read.id
    assert text.clean(read.error) == read.error


@given(_mutated(recorded.load("events-oom-pid1")[0]))
def test_an_event_that_was_tampered_with(told):
    """Read, or refused as none, and remembered either way without harm."""
    try:
        event = answers.event(told)
    except ValueError:
        return
    assert event.at is None or 0 < event.at <= 1e11


# --- events --------------------------------------------------------------------------------------

ODD_EVENTS = [
    None, 5, "x", [], {}, {"Action": 5}, {"Actor": "x"}, {"Actor": {"ID": 5, "Attributes": []}},
    {"Action": "die", "Actor": {"ID": "c1"}, "timeNano": None},
    {"Action": "oom", "Actor": {"ID": "c1"}, "timeNano": "1", "time": {}},
    {"Action": "kill", "Actor": {"ID": "c1", "Attributes": {"signal": "²"}}, "timeNano": 1},
    {"Action": "kill", "Actor": {"ID": "c1", "Attributes": {"signal": "9" * 5000}}},
    {"Action": "kill", "Actor": {"ID": "c1", "Attributes": {"signal": 9}}, "timeNano": 10**400},
    {"Action": "start", "Actor": {"ID": "c1"}, "timeNano": float("nan")},
    {"Action": "die", "Actor": {"ID": "c1"}, "timeNano": float("-inf")},
    b"", b"{", b"\xff\xff", b"[" * 100_000, b'{"timeNano": ' + b"9" * 100_000 + b"}",
]  # fmt: skip


def following(engine: scripted_engine.Engine, wakes: list[int], **changes: object):
    one = client.Engine(
        settings.Host(url=engine.url), settings.DockerSettings(timeout_s=10.0, **changes)
    )
    return one, events.Follower(
        one, {"x": "y"}, wake=lambda: wakes.append(1), now=lambda: 1795477200.0
    )


def until(what, *, within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_odd_events_are_wake_ups_and_the_stream_goes_on(caplog):
    """What comes after them is heard on the same connection, and remembered."""
    last = {"Action": "die", "Actor": {"ID": "c9"}, "timeNano": 1795477200 * 10**9}
    told = scripted_engine.lines(*ODD_EVENTS, last).removesuffix(scripted_engine.chunk(b""))

    def send(_, sock) -> None:
        sock.sendall(told)
        sock.rest(30)

    async def go() -> None:
        wakes: list[int] = []
        with scripted_engine.engine() as engine:
            engine.answer("GET", "/events", send)
            one, follower = following(engine, wakes)
            follower.start()
            await asyncio.to_thread(until, lambda: follower.heard_of_end("c9"))
            assert 1 == follower.stream()
            assert len(wakes) > 5
            await asyncio.to_thread(follower.close)
            await asyncio.to_thread(one.close)

    with caplog.at_level(logging.WARNING):
        asyncio.run(go())
    assert 1 == sum("cannot be read" in line for line in caplog.messages), "once, not for each"


class Buggy:
    """A client that fails by a bug, twice, and then tells of an end."""

    url = "unix:///x"

    def __init__(self) -> None:
        self.calls = 0
        self.open = False

    def events(self, labels, since, begun):
        self.calls += 1
        begun(lambda: None)
        if self.calls < 3:
            raise ZeroDivisionError("a bug")
        yield answers.ContainerEvent(id="c1", action="die", at=1.0)
        self.open = True
        while self.open:
            time.sleep(0.01)


def test_the_thread_outlives_a_bug_and_says_so(caplog, monkeypatch):
    """The stream is told as closed meanwhile, and everybody is woken: the list is asked."""
    monkeypatch.setattr(events, "_RETRY_S", (0.3,))
    wakes: list[int] = []
    one = Buggy()
    follower = events.Follower(one, {}, wake=lambda: wakes.append(1), now=lambda: 2.0)
    with caplog.at_level(logging.WARNING):
        follower.start()
        until(lambda: one.calls == 1 and follower.stream() == 0 and wakes)
        until(lambda: follower.heard_of_end("c1"))
    assert 3 == follower.stream()
    one.open = False
    follower.close()
    (record,) = [r for r in caplog.records if "a bug" in r.getMessage()]
    assert record.exc_info is not None


def test_a_time_to_come_does_not_make_us_deaf():
    """With it as the beginning of the next stream no event would be told for years."""
    asked: list[int] = []

    class Once(Buggy):
        def events(self, labels, since, begun):
            asked.append(since)
            begun(lambda: None)
            yield answers.ContainerEvent(id="c1", action="die", at=9e9)

    follower = events.Follower(Once(), {}, wake=lambda: None, now=lambda: 5000.0)
    follower.start()
    until(lambda: len(asked) > 1)
    follower.close()
    assert [1, 5000] == asked[:2]


def test_an_engine_that_talks_without_end_wakes_the_loop_once_at_a_time():
    """A hundred thousand events are not a hundred thousand callbacks of the loop."""
    with scripted_engine.engine() as engine, backend(engine) as (made, run):

        async def count() -> int:
            loop, calls = asyncio.get_running_loop(), 0
            await made.list()
            original = loop.call_soon_threadsafe

            def counted(*args, **kwargs):
                nonlocal calls
                calls += 1
                return original(*args, **kwargs)

            loop.call_soon_threadsafe = counted
            for _ in range(1000):
                made._wake()
            return calls

        assert 1 == run(count())
