"""One odd entry costs that entry: offers, updates, pages; and no bug of ours ends a subscription."""

import base64
import copy
import json
import random

import pytest

from backends import api
from backends.mesos import cluster, offers, records, session, settings, statuses
from tests.contract import checks
from tests.mesos.test_session import kinds, offer, online, want
from tests.mesos.test_wire import OURS, RECORDED, broker, listed_soon, served, spec

__all__ = ["broker", "served"]

UUID = base64.b64encode(b"0123456789abcdef").decode()
ODD = (None, True, -1, 10**400, 1e308, float("nan"), "", "\ud800", "x" * 3000, [], {}, [None],
       {"value": 1}, {"value": None}, [[]], "0", 0.5)  # fmt: skip


def places(document, path=()):
    """Yield the path of every value of a JSON document."""
    yield path
    if isinstance(document, dict | list):
        entries = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in entries:
            yield from places(value, (*path, key))


def changed(document, path, value):
    """Return a copy of a document with another value in one place; ``...`` takes it away."""
    if not path:
        return value
    made, (key, *rest) = copy.copy(document), path
    if rest or value is not ...:
        made[key] = changed(document[key], rest, value)
    else:
        del made[key]
    return made


def event_of(raw) -> dict:
    return {"type": "OFFERS", "offers": {"offers": raw}}


def good_offer(number: int) -> dict:
    (raw,) = offer()["offers"]["offers"]
    return changed(
        changed(raw, ("id", "value"), f"O{number}"), ("agent_id", "value"), f"S{number}"
    )


def rich_offer() -> dict:
    """Return a recorded offer with everything that we look at."""
    events = json.loads((RECORDED / "02-launch-finish/stream-1.json").read_text())["events"]
    raw = next(e["event"]["offers"]["offers"][0] for e in events if e["event"]["type"] == "OFFERS")
    raw["unavailability"] = {"start": {"nanoseconds": 10**19}}
    raw["attributes"] += [
        {"name": "n", "type": "SCALAR", "scalar": {"value": 7}},
        {"name": "r", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 3}]}},
        {"name": "s", "type": "SET", "set": {"item": ["a"]}},
    ]
    return raw


def test_an_odd_offer_is_declined_and_the_others_are_used():
    """Every place of a recorded offer, with every odd value: the good one beside it is taken."""
    raw = rich_offer()
    tried = 0
    for path in places(raw):
        for value in (*ODD, ...):
            if not path and value is ...:
                continue
            made = online()
            made.want([want("a1", cpus=0.1)])
            odd = changed(raw, path, value)
            said = made.receive(event_of([odd, good_offer(9)]), 1.0)
            json.dumps(said)
            assert ["a1"] == list(made.tasks), (path, value)
            answered = [
                one["value"]
                for call in said
                for one in call.get("accept", call.get("decline", {})).get("offer_ids", ())
            ]
            assert "O9" in answered, (path, value)
            name = odd.get("id") if isinstance(odd, dict) else None
            name = name.get("value") if isinstance(name, dict) else None
            if isinstance(name, str) and name:
                assert name in answered, "whatever has a name is answered"
            tried += 1
    assert tried > 300


STATUS = {
    "task_id": {"value": "a1"},
    "agent_id": {"value": "S1"},
    "state": "TASK_RUNNING",
    "uuid": UUID,
    "message": "words",
    "reason": "REASON_RECONCILIATION",
    "source": "SOURCE_EXECUTOR",
    "timestamp": 1.5,
    "container_status": {"container_id": {"value": "c"}},
    "limitation": {"resources": []},
}


def test_an_odd_update_does_not_come_again_and_takes_nothing_along():
    """Acknowledged where it can be; its task is known as it was; a sound one heals all."""
    for path in places(STATUS):
        for value in (*ODD, ...):
            if not path and value is ...:
                continue
            made = online()
            made.want([want("a1"), want("a2")])
            made.receive(event_of([good_offer(1)]), 1.0)
            odd = changed(STATUS, path, value)
            said = made.receive({"type": "UPDATE", "update": {"status": odd}}, 2.0)
            json.dumps(said)
            assert {"a1", "a2"} <= made.tasks.keys(), (path, value)
            name, agent, uuid = statuses.names(odd)
            if None not in (name, agent, uuid):
                assert "ACKNOWLEDGE" in kinds(said), (path, value)
            made.receive({"type": "UPDATE", "update": {"status": STATUS}}, 3.0)
            assert "TASK_RUNNING" == made.tasks["a1"].state


def test_an_odd_update_of_an_unknown_task_is_remembered_until_it_is_understood():
    """Else its absence would mean that it is gone."""
    made = online()
    made.receive({"type": "UPDATE", "update": {"status": STATUS | {"state": 7}}}, 1.0)
    assert ["a1"] == [*made.odd]
    assert 1 == made.oddities.count
    made.receive({"type": "UPDATE", "update": {"status": STATUS}}, 2.0)
    assert {} == made.odd
    made.receive({"type": "UPDATE", "update": {"status": None}}, 3.0)
    assert ["?"] == [*made.odd]


def recorded_events() -> list[dict]:
    found = []
    for path in sorted(RECORDED.glob("*/stream-*.json")):
        if path.name.endswith("chunks.json"):
            continue
        told = json.loads(path.read_text())
        found += [one["event"] for one in told["events"] if isinstance(one.get("event"), dict)]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_mutated_recordings_never_raise(seed):
    """Whatever stands in an event of a recorded stream, one place of it odd: the machine goes on."""
    dice = random.Random(seed)
    events = recorded_events()
    assert len(events) > 100
    made = session.Session(OURS, refuse_s=3600.0)
    now, heard = 0.0, 0
    made.subscribe()
    for round_number in range(1500):
        event = dice.choice(events)
        for _ in range(dice.randint(1, 3)):
            path = dice.choice([*places(event)])
            event = changed(event, path, dice.choice(ODD)) if path else event
        if dice.random() < 0.2:
            name = f"n{round_number}"
            made.want([want(name)])
        said = made.receive(event, now) + made.tick(now)
        json.dumps(said)
        for call in said:
            assert isinstance(call["type"], str)
        now += 0.5
        heard += 1
        if made.phase is not session.SessionPhase.ONLINE:
            made.left_alone()
            made.renew(OURS)
            made.subscribe()
            made.receive({"type": "SUBSCRIBED", "subscribed": {}}, now)
    assert heard > 1000
    assert records.alive(made.tasks) is not None


class Pages:
    """A link whose every page is one document."""

    scheme = "http"

    def __init__(self, document) -> None:
        self.document = document

    async def page(self, path, **query):
        return self.document

    async def agent_page(self, base, page, **query):
        return self.document


def recorded_pages() -> dict[str, dict]:
    told = json.loads((RECORDED / "21-operator-views" / "calls.json").read_text())
    pages = {one["request"]["path"]: one["response"]["body"] for one in told}
    return {
        path: pages[path] for path in ("/slaves", "/roles", "/master/tasks", "/master/frameworks")
    } | {"/files/read": {"offset": 5, "data": "hello"}}


async def test_pages_raise_our_own_errors_only():
    """Every place of the pages that we read, with every odd value."""
    need = offers.Need(name="n", scalars={"cpus": 1000}, ports=1, constraints=(
        offers.Constraint(attribute="os", operator="IS", value="linux"),))  # fmt: skip
    wanted = records.Want(need=need, info={})
    identity = "fa7a75d4-36a2-434f-99c1-fb69c24140c7-0026"
    task = records.Task(name="n", agent_id="fa7a75d4-36a2-434f-99c1-fb69c24140c7-S0")
    tried = 0
    for path, document in recorded_pages().items():
        every = [*places(document)]
        dice = random.Random(path)
        dice.shuffle(every)
        for place in every[:24]:
            for value in (*dice.sample(ODD, 3), ...):
                if not place and value is ...:
                    continue
                asked = cluster.Cluster(Pages(changed(document, place, value)), role="*")
                for question in (
                    asked.tasks(identity),
                    asked.living(identity),
                    asked.framework(identity),
                    asked.why_not(wanted),
                    asked.output(copy.copy(task), framework=identity),
                ):
                    try:
                        await question
                    except api.BackendError:
                        tried += 1
                    else:
                        tried += 1
    assert tried > 300


async def test_one_odd_agent_is_no_verdict_for_ever(served, broker):
    """It might be the one that fits."""
    served.page_fault = lambda path, query: (
        json.dumps({"slaves": [*served.machine.view_agents(), {"hostname": 7}]})
        if path == "/slaves"
        else None
    )
    with pytest.raises(api.NoCapacity):
        await broker(served.base).launch(_large())
    served.page_fault = lambda path, query: None
    with pytest.raises(api.Rejected, match="can ever hold it"):
        await broker(served.base, name="two").launch(_large())


def _large() -> api.InstanceSpec:
    options = settings.MesosTemplate(default_cpus=99)
    return api.InstanceSpec(name="a1", metadata={}, argv=("x",), options=options)


async def test_the_stream_lives_through_odd_events(served, broker, caplog):
    """No JSON, no object, odd offers, odd updates: one subscription, said once, all work done."""
    backend = broker(served.base)
    await backend.launch(spec("a1"))
    (framework,) = served.machine.frameworks.values()
    framework.stream += [
        {"type": "OFFERS", "offers": {"offers": [{"id": {"value": "O99"}}, None, 7]}},
        {"type": "OFFERS", "offers": None},
        {"type": "UPDATE", "update": {"status": {"task_id": {"value": "a1"}, "state": None}}},
        {"type": "UPDATE"},
        {"type": ["x"]},
        [],
        "x",
        {"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": [{}]}},
        {"type": "FAILURE", "failure": 7},
    ]
    await backend.launch(spec("a2"))
    assert 1 == served.subscribes
    with pytest.raises(api.Partial) as caught:
        await backend.list()
    assert caught.value.odd
    assert {"a1", "a2"} == {one.name for one in caught.value.seen}
    warnings = [r for r in caplog.records if "not understood" in r.message]
    assert 1 == len(warnings)
    served.cut()  # everything is told again
    assert {"a1", "a2"} == set(await listed_soon(backend))


async def test_a_bug_of_ours_costs_its_event_and_is_told(served, broker, caplog, monkeypatch):
    """The stream goes on, the trace is in the log."""
    backend = broker(served.base)
    await backend.launch(spec("a1"))
    machine = backend._driver._session
    sound = machine._offered

    def broken(raw, now):
        monkeypatch.setattr(machine, "_offered", sound)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(machine, "_offered", broken)
    with pytest.raises(api.NoCapacity):
        await backend.launch(spec("a2"))
    await backend.launch(spec("a3"))
    assert 1 == served.subscribes
    assert "ZeroDivisionError" in caplog.text


async def test_an_acknowledgement_that_is_refused_ends_no_subscription(served, broker):
    """400 for one call about one task: it is said, and the others go their way."""
    backend = broker(served.base)
    await backend.launch(spec("a1"))
    driven = backend._driver
    driven.say([{"type": "ACKNOWLEDGE", "framework_id": {"value": driven._session.framework.id}}])
    await driven.spoken_out()
    await backend.launch(spec("a2"))
    assert 1 == served.subscribes
    assert "ACKNOWLEDGE" in driven._session.oddities.words("x")
    assert {"a1", "a2"} == set(await checks.listed(backend))
