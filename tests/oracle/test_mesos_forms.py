"""The fake master's documents beside those of a real one: members, JSON types, words of enums.

Recorded from a master and an agent 1.11.0. A path has the members and types that all recorded
documents together have there; one that every recorded document has must be in the fake's, too. ``7``
is another type than ``7.0``. Then the other way: the product reads everything recorded, and nothing
of it is odd to it.
"""

import collections
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest

from backends import api
from backends.mesos import calls, cluster, offers, reader, session, settings, transport
from tests.each import each
from tests.mesos import master, replay, wire

VIEWS = {
    one["request"]["path"]: one["response"]["body"]
    for one in json.loads((replay.RECORDED / "21-operator-views/calls.json").read_text())
    if one["request"]["method"] == "GET"
}
PAGES = ("/slaves", "/master/frameworks", "/master/tasks", "/roles")
STREAMS = [
    (path.name, name)
    for path in sorted(replay.RECORDED.iterdir())
    if path.is_dir()
    for name in replay.streams(path.name)
]
NAMED_BY_PEOPLE = re.compile(
    r"^/.*\.(attributes|(\w+_)?resources|limit|consumed|guarantee|allocated|offered|reserved"
    r"|reserved_resources\.\*|reserved_resources_full)$"
)
"""Objects of the pages whose members operators name."""
CLOSED = {"type", "state", "source", "reason", "scheme", "protocol"}
"""Members whose words are those of an enum: what no recording says, nobody says."""


def unrecorded() -> list[tuple[str, Any]]:
    """What the recorded cluster had not, by Mesos' documentation (mesos.proto, its endpoints).

    Attributes were texts there, no resource a set, nothing reserved; the frameworks on the pages
    had one ``role`` and no MULTI_ROLE, their tasks no labels.
    """
    number = {"type": "SCALAR", "scalar": {"value": 7.0}}
    ranges = {"type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 3}]}}
    members = {"type": "SET", "set": {"item": ["a"]}}
    offer, agent = "OFFERS.offers.offers[]", "/slaves.slaves[]"
    found: list[tuple[str, Any]] = [
        (f"{offer}.attributes[]", {"name": "a", **one}) for one in (number, ranges, members)
    ]
    given = {"role": "*", "allocation_info": {"role": "*"}}
    found += [
        (f"{offer}.resources[]", {"name": "r", **members, "role": "*"}),
        (f"{offer}.resources[]", {"name": "r", **members, **given}),
        (f"{agent}.unreserved_resources_full[]", {"name": "r", **members, "role": "*"}),
    ]
    reserved = {"role": "ci", "reservations": [{"role": "ci", "type": "STATIC"}]}
    for one in (number, ranges, members):
        resource = {"name": "r", **one}
        found += [
            (f"{agent}.used_resources_full[]", resource | given),
            (f"{agent}.offered_resources_full[]", resource | given),
            (f"{agent}.reserved_resources_full", {"ci": [resource | reserved]}),
        ]
    frameworks = "/master/frameworks."
    (framework,) = VIEWS["/master/frameworks"]["frameworks"]
    several = {**framework, "roles": ["ci"], "capabilities": ["MULTI_ROLE"]}
    del several["role"]
    (task,) = VIEWS["/master/tasks"]["tasks"][:1]
    labelled = {**task, "labels": [{"key": "k", "value": "v"}]}
    amounts = {"cpus": 7.0, "ports": "[1-3, 7-9]"}
    found += [(f"{agent}.attributes", amounts), (f"{agent}.reserved_resources", {"ci": amounts})]
    found += [(f"{agent}.{one}_resources", amounts) for one in ("used", "offered")]
    found += [("/roles.roles[].offered", {"cpus": 7.0}), ("/master/tasks.tasks[]", labelled)]
    for kind in ("frameworks[]", "completed_frameworks[]"):
        found += [(f"{frameworks}{kind}", several)]
        found += [(f"{frameworks}{kind}.{one}resources", amounts) for one in ("", "used_")]
        for tasks in ("tasks[]", "unreachable_tasks[]", "completed_tasks[]"):
            found += [(f"{frameworks}{kind}.{tasks}", labelled)]
    every = [path for path, one in found if one is labelled]
    return found + [(f"{path}.resources", amounts) for path in every]


@attrs.define
class Form:
    """What is at one path of documents."""

    types: set[str] = attrs.field(factory=set)
    members: collections.Counter = attrs.field(factory=collections.Counter)
    objects: int = 0
    words: set[str] = attrs.field(factory=set)


def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every value with its path; of a typed value the type belongs to the path."""
    if isinstance(value, dict) and {"name", "type"} <= value.keys():
        path = f"{path}({value['type']})"
    yield path, value
    if isinstance(value, dict):
        named_by_people = NAMED_BY_PEOPLE.search(path)
        for name, member in value.items():
            yield from walk(member, f"{path}.{'*' if named_by_people else name}")
    elif isinstance(value, list):
        for entry in value:
            yield from walk(entry, f"{path}[]")


def forms_of(documents: list[tuple[str, Any]]) -> dict[str, Form]:
    found: dict[str, Form] = collections.defaultdict(Form)
    for root, document in documents:
        for path, value in walk(document, root):
            form = found[path]
            form.types.add(type(value).__name__)
            if isinstance(value, dict):
                form.objects += 1
                form.members.update(value.keys())
            if isinstance(value, str):
                form.words.add(value)
    return found


def events_of(events: list[Mapping[str, Any] | None]) -> list[tuple[str, Any]]:
    return [(one["type"], one) for one in events if one is not None]


def recorded() -> dict[str, Form]:
    documents = [(path, VIEWS[path]) for path in PAGES]
    for scenario, name in STREAMS:
        documents += events_of(replay.streams(scenario)[name].told())
    return forms_of(json.loads(json.dumps(documents + unrecorded())))


REAL = recorded()
ENUMS = {name: set() for name in CLOSED}
for _path, _form in REAL.items():
    if (_last := _path.rpartition(".")[2]) in CLOSED:
        ENUMS[_last] |= _form.words


def differences(documents: list[tuple[str, Any]]) -> list[str]:
    """Say what of these documents no real master would say, or would not leave out."""
    found = []
    for path, form in forms_of(json.loads(json.dumps(documents))).items():
        real = REAL.get(path)
        if real is None:
            found.append(f"{path}: never recorded")
            continue
        if form.types - real.types:
            found.append(f"{path}: {form.types} instead of {real.types}")
        if not NAMED_BY_PEOPLE.search(path):
            always = {name for name, n in real.members.items() if n == real.objects}
            lacks = {name for name in always if form.members[name] < form.objects}
            if lacks:
                found.append(f"{path}: lacks {sorted(lacks)}")
        last = path.rpartition(".")[2]
        if last in CLOSED and form.words - ENUMS[last]:
            found.append(f"{path}: {sorted(form.words - ENUMS[last])} are no words of it")
    return found


def framework(role: str) -> calls.Framework:
    return calls.Framework(
        id="f1", name="n", user="u", role=role, failover_timeout_s=60.0, gpus=True
    )


def info(name: str, offer: Mapping[str, Any]) -> dict[str, Any]:
    """A task that takes a little of an offer, of every resource that a task can take."""
    resources = []
    for one in offer["resources"]:
        if one["type"] == "SCALAR":
            resources.append({**one, "scalar": {"value": one["scalar"]["value"] / 4}})
        elif one["type"] == "RANGES":
            first = one["ranges"]["range"][0]["begin"]
            resources.append({**one, "ranges": {"range": [{"begin": first, "end": first}]}})
    labels = {"labels": [{"key": "k", "value": "v"}]}
    return {
        "name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"],
        "resources": resources, "command": {"value": "true"}, "labels": labels,
    }  # fmt: skip


def told_by_the_fake(role: str) -> list[tuple[str, Any]]:
    """All that the fake says in a life: stream, and pages again and again."""
    documents: list[tuple[str, Any]] = []
    agents = [master.Agent(id=f"S{n}", hostname=f"agent-{n}", cpus=4, role=role) for n in range(2)]
    machine = master.Master(agents=agents)
    told = framework(role)
    opened = machine.subscribe(calls.subscribe(told, suppressed=False), "s")
    assert isinstance(opened, master.Framework)
    stream = opened.stream
    assert stream is not None

    def look() -> None:
        views = {
            "/slaves": {"slaves": machine.view_agents(), "recovered_slaves": []},
            "/master/frameworks": machine.view_frameworks("f1"),
            "/master/tasks": {"tasks": machine.view_tasks("f1")},
            "/roles": {"roles": machine.view_roles()},
        }
        documents.extend(json.loads(json.dumps([*views.items()])))

    look()
    offered = replay.offered(stream)
    for number, offer in enumerate(offered):
        infos = [info(f"{kind}{number}", offer) for kind in ("ends", "stays")]
        infos.append({**info("bad/id", offer), "agent_id": offer["agent_id"]})
        accept = calls.accept_offers(
            told, offer_ids=[offer["id"]["value"]], task_infos=infos[number:], refuse_s=1.0
        )
        assert machine.call(accept) == (202, "")
    machine.advance(1.5)
    look()
    for task in [*machine.tasks.values()]:
        if task.name.startswith("ends"):
            machine.change(task, "TASK_FAILED", "Command exited with status 3")
    machine.call(
        {"type": "RECONCILE", "framework_id": {"value": "f1"}, "reconcile": {"tasks": []}}
    )
    machine.lose("S0")
    look()
    machine.come_back("S0")
    machine.shut_down("S1")
    machine.advance(3.0)
    look()
    machine.remove("f1")
    look()
    return documents + events_of(stream)


@pytest.mark.parametrize("role", ["*", "ci"])
def test_the_fake_says_what_a_real_master_could_say(role):
    """Offers, updates, pages; agents for all and agents that are reserved."""
    documents = told_by_the_fake(role)
    kinds = {root for root, _ in documents}
    assert kinds >= {*PAGES, "SUBSCRIBED", "HEARTBEAT", "OFFERS", "UPDATE", "FAILURE", "RESCIND"}
    assert [] == differences(documents)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda agent: agent["resources"].update(cpus=4), "int"),
        (lambda agent: agent["attributes"].update(build={"value": 7.0}), "dict"),
        (lambda agent: agent.update(port="5051"), "str"),
        (lambda agent: agent.pop("unreserved_resources"), "lacks ['unreserved_resources']"),
        (lambda agent: agent.update(colour="red"), "colour: never recorded"),
        (lambda agent: agent["unreserved_resources_full"][0].update(type="WHOLE"), "never"),
    ],
)
def test_the_comparison_sees_a_difference(change, words):
    page = json.loads(json.dumps(VIEWS["/slaves"]))
    assert [] == differences([("/slaves", page)])
    change(page["slaves"][0])
    found = differences([("/slaves", page)])
    assert found
    assert words in " ".join(found)


def test_an_agent_of_the_fake_has_attributes_of_every_type_told_alike():
    """So every test beside the fake meets them all; and offer and page are read as one."""
    machine = master.Master()
    opened = machine.subscribe(calls.subscribe(framework("*"), suppressed=False), "s")
    assert isinstance(opened, master.Framework)
    (raw,), (page,) = replay.offered(opened.stream or []), machine.view_agents()
    assert {"TEXT", "SCALAR", "RANGES", "SET"} == {one["type"] for one in raw["attributes"]}
    assert {"SCALAR", "RANGES", "SET"} == {one["type"] for one in raw["resources"]}
    assert (7.0, "[1-3, 7-9]", "{make, git}") == tuple(
        page["attributes"][name] for name in ("generation", "disks", "tools")
    )
    assert '"generation": 7.0' in json.dumps(page)
    offer, agent = offers.parse(raw), offers.parse_agent(page, role="*")
    assert offer.attributes == agent.attributes
    assert not offer.unreadable | agent.unreadable


# --- what a real cluster does not put up with ---


def launch(machine: master.Master, name: str, **changes: Any) -> list[dict[str, Any]]:
    """Launch one task on the last offer; return the updates since then."""
    stream = machine.frameworks["f1"].stream
    assert stream is not None
    offer = replay.offered(stream)[-1]
    before = len(stream)
    machine.call(
        calls.accept_offers(
            framework("*"),
            offer_ids=[offer["id"]["value"]],
            task_infos=[info(name, offer) | changes],
            refuse_s=0.0,
        )
    )
    machine.advance(machine.now + 0.2)
    return replay.updates(stream[before:])


def end(machine: master.Master, name: str) -> None:
    """The task ends, and its end is acknowledged."""
    task = machine.tasks["f1", name]
    machine.change(task, "TASK_FINISHED")
    while task.pending:
        members = {"task_id": {"value": name}, "agent_id": {"value": task.agent.id}}
        members["uuid"] = task.pending[0]["uuid"]
        machine.call(
            {"type": "ACKNOWLEDGE", "framework_id": {"value": "f1"}, "acknowledge": members}
        )


@pytest.mark.parametrize(
    ("later_s", "aborted", "state"),
    [(0.0, ["a"], "away"), (master.EXECUTOR_S + 0.1, [], "up")],
)
def test_a_task_id_that_its_executor_still_has_ends_the_agent(later_s, aborted, state):
    """As the real one's ``Check failed: executor == nullptr``; its other tasks are unreachable."""
    machine = master.Master()
    machine.subscribe(calls.subscribe(framework("*"), suppressed=False), "s")
    for name in ("other", "a"):
        assert "TASK_RUNNING" == became(machine, name)
    end(machine, "a")
    machine.advance(machine.now + later_s)
    machine.allocate()
    seen = launch(machine, "a")
    assert (aborted, state) == (machine.aborted, next(iter(machine.agents.values())).state)
    lost = {one["task_id"]["value"] for one in seen if one["state"] == "TASK_UNREACHABLE"}
    assert lost == ({"a", "other"} if aborted else set())


def became(machine: master.Master, name: str) -> str:
    """Launch a task and return what has become of it; the rest is offered again."""
    machine.allocate()
    launch(machine, name)
    return machine.tasks["f1", name].state


def test_resources_of_another_role_than_offered_are_refused():
    machine = master.Master()
    machine.subscribe(calls.subscribe(framework("*"), suppressed=False), "s")
    cpus = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}, "role": "ci"}
    (one,) = launch(machine, "a", resources=[cpus])
    assert ("TASK_ERROR", "REASON_TASK_INVALID") == (one["state"], one["reason"])


# --- everything recorded is read ---


@each(("scenario", "name"), STREAMS)
def test_no_recorded_event_is_odd(scenario, name):
    """The session sets nothing aside, and of an offer no resource and no attribute is lost."""
    machine = session.Session(framework("*"), refuse_s=3600.0)
    events = replay.streams(scenario)[name].events
    for one in events:
        machine.receive(one["event"], one["t"])
    assert not machine.oddities
    assert not machine.odd
    for raw in replay.offered([one["event"] for one in events]):
        offer = offers.parse(raw)
        assert len(raw["resources"]) == len(offer.resources)
        assert {one["name"] for one in raw["attributes"]} == offer.attributes.keys()


async def test_no_recorded_page_is_odd():
    """Every framework's tasks, the agents and the quotas, by the product's own client."""
    page = VIEWS["/master/frameworks"]
    every = [one["id"] for kind in ("frameworks", "completed_frameworks") for one in page[kind]]
    assert len(every) > 20

    def answer(path: str, query: Mapping[str, str]) -> str | None:
        view = VIEWS.get(path) or VIEWS.get(f"/master{path}")
        return None if view is None else json.dumps(view)

    async with wire.Wire(master.Master()).serving() as served:
        served.page_fault = answer
        told = settings.MesosSettings(master=served.base)
        for identity in every:
            asked = reader.ClusterReader(told, identity=lambda identity=identity: identity)
            seen = await asked.list()  # a task that cannot be read would be an error
            running = [api.InstanceState.RUNNING] if identity == every[0] else []
            assert running == [one.state for one in seen]
            await asked.aclose()
        link = transport.Link(told)
        asked = cluster.Cluster(link, role="*")
        tasks, odd = await asked.tasks(every[0])
        assert ({"t-view"}, False) == (tasks.keys(), bool(odd))
        small, large = (
            offers.Need(name="n", scalars={"cpus": cores * 1000, "mem": 64_000})
            for cores in (1, 4)
        )
        assert await asked.full(small, [], before=()) is None
        full = await asked.full(large, [], before=())
        assert "none of 1 agent of the cluster has room for it now" == str(full)
        await link.aclose()
