import json
import pathlib

import pytest

from broker.controller import reading
from broker.core import model
from broker.core.decide import draft
from broker.core.demand import wishes as demand
from broker.core.fleet import latency
from broker.status import documents
from jnlp import entries, errors
from tests.each import each
from tests.status import status_source

RECORDINGS = pathlib.Path(__file__).parents[1] / "recordings" / "jenkins"
PLACEHOLDER = "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"
LABEL = model.KnownLabel(source=model.LabelSource.WHY)


def load(name, note):
    exchanges = json.loads((RECORDINGS / f"{name}.json").read_text())["exchanges"]
    return next(e for e in exchanges if e["note"] == note)["response"]["json"]


def restart_queue():
    exchanges = json.loads((RECORDINGS / "controller" / "01-restart.json").read_text())[
        "exchanges"
    ]
    return next(e for e in exchanges if "queue" in e["note"])["response"]["json"]


def one(**changes):
    item = {
        "_class": "hudson.model.Queue$BuildableItem",
        "id": 7,
        "why": "There are no nodes with the label ‘x’",
        "blocked": False,
        "buildable": True,
        "pending": False,
        "stuck": True,
        "inQueueSince": 1795475513235,
        "buildableStartMilliseconds": 1795475518235,
        "task": {
            "_class": "hudson.model.FreeStyleProject",
            "name": "fs",
            "url": "http://localhost:8080/job/fs/",
            "labelExpression": "x && y",
        },
    }
    item.update(changes)
    (parsed,) = reading.parse_queue([item], 0.0)[0]
    return parsed


def test_the_recorded_queue():
    """An old Pipeline plugin exports nothing of its task but the class."""
    by_id = {item.id: item for item in reading.parse_queue(restart_queue()["items"], 0.0)[0]}
    pipeline, freestyle = by_id[80], by_id[78]
    assert pipeline.task_class == PLACEHOLDER
    assert (pipeline.task_name, pipeline.task_url, pipeline.exports_label) == ("", "", False)
    assert freestyle.task_name == "fs-nobody"
    assert freestyle.why == "There are no nodes with the label ‘nobody-serves-this’"
    assert freestyle.stage is model.Stage.BUILDABLE
    assert freestyle.stuck
    assert freestyle.in_queue_since_at == 1795476333.288
    assert freestyle.buildable_since_at == 1795476333.289


@pytest.mark.parametrize(
    ("task", "expression", "exports"),
    [
        ({"labelExpression": "x && y"}, "x && y", True),
        ({"labelExpression": None}, None, True),
        ({"labelExpression": ""}, None, True),
        ({}, None, False),
        (None, None, False),
    ],
)
def test_a_label_that_is_null_is_not_one_that_is_absent(task, expression, exports):
    """Null says "no label" (or a matrix cell), absent says nothing at all."""
    item = one(task=task)
    assert (item.label_expression, item.exports_label) == (expression, exports)


@each(
    ("changes", "stage"),
    [
        ({}, model.Stage.BUILDABLE),
        ({"pending": True}, model.Stage.PENDING),
        (
            {"_class": "hudson.model.Queue$BlockedItem", "blocked": True, "buildable": False},
            model.Stage.BLOCKED,
        ),
        ({"_class": "hudson.model.Queue$WaitingItem", "buildable": False}, model.Stage.WAITING),
        ({"_class": "", "buildable": True}, model.Stage.BUILDABLE),
        ({"_class": "", "buildable": False, "blocked": True}, model.Stage.BLOCKED),
        ({"_class": "x", "buildable": None}, model.Stage.WAITING),
        ({"buildable": None}, model.Stage.BUILDABLE),
    ],
)
def test_stages(changes, stage):
    """By class, and by flags where the class is unknown."""
    assert one(**changes).stage is stage


def test_times_of_a_waiting_item():
    """End of the quiet period; it is not buildable yet."""
    item = one(
        _class="hudson.model.Queue$WaitingItem",
        buildable=False,
        timestamp=1795475849748,
        buildableStartMilliseconds=None,
    )
    assert item.quiet_until_at == 1795475849.748
    assert item.buildable_since_at is None
    assert one(timestamp=1).quiet_until_at is None


def test_times_are_moved_by_the_skew():
    """A controller an hour ahead: its times are an hour less on our clock."""
    ahead = reading.parse_queue(restart_queue()["items"], 3600.0)[0]
    right = reading.parse_queue(restart_queue()["items"], 0.0)[0]
    for moved, item in zip(ahead, right, strict=True):
        assert moved.in_queue_since_at == item.in_queue_since_at - 3600
        assert moved.buildable_since_at == item.buildable_since_at - 3600


def test_an_item_that_has_left_is_no_demand():
    """It can be listed for a moment while it leaves."""
    left = {"_class": "hudson.model.Queue$LeftItem", "id": 1, "cancelled": False}
    assert reading.parse_queue([left], 0.0)[0] == ()


def test_missing_fields_of_an_item():
    """Only the id is needed."""
    (item,) = reading.parse_queue([{"id": 1}], 0.0)[0]
    assert item == model.QueueItem(id=1, stage=model.Stage.WAITING)
    assert one(why=None).why == ""


@each(
    "document",
    [
        "null",
        "[]",
        "{}",
        '{"items": null}',
        '{"items": {}}',
        '{"other": [], "items": 7}',
        '{"items": [',
        '{"items": [{"id": 7}',
        '{"items": [{"id": 7}, ',
        '{"items": [{"id": 7} {"id": 8}]}',
        '{"items": [}',
        "",
        "[" * 100_000,
        '{"items": [], "items": [{"id": 7}]}',
        '{"items": [{"id": 7}], "a": {}, "items": []}',
        '{"items": [{"id": 7}]} <!-- served by a proxy -->',
        '{"items": []}{"items": [{"id": 7}]}',
        '{"items": [{"id": 7}]',
        '{"items": [], "a"}',
        '{"items": [], 7: 7}',
        '{"items": [],}',
        '{"items": [], "a": [}',
    ],
)
def test_a_queue_that_is_none(document):
    """Unknown is not empty."""
    with pytest.raises((errors.Unexpected, ValueError)):  # the session makes the latter ours
        reading.parse_queue(entries.Entries(document.encode(), "items"), 0.0)


@each(
    ("item", "why"),
    [
        (None, "not an object"),
        ([], "not an object"),
        ("x", "not an object"),
        ({}, "the id of an item is None"),
        ({"id": "7"}, "the id of an item is '7'"),
        ({"id": True}, "the id of an item is True"),
        ({"id": -1}, "the id of an item is -1"),
        ({"id": 10**400}, "the id of an item is 1000"),
        ({"id": 10**5000}, "a very large number"),
        ({"id": float("nan")}, "the id of an item is nan"),
        ({"id": 1}, "two items have the id 1"),
    ],
)
def test_one_odd_item_costs_that_item(item, why):
    """The others are there, and somebody is told."""
    found, odd = reading.parse_queue([{"id": 1}, item, {"id": 2}], 0.0)
    assert [one.id for one in found] == [1, 2]
    assert odd.count == 1
    assert why in odd.words("item")


@each("value", [10**400, -(10**400), float("inf"), float("nan"), "1", True, [], {}, 1e308])
def test_numbers_of_any_size_and_kind(value):
    """Times are clamped, or not told; nothing else of the item is lost."""
    item = one(inQueueSince=value, buildableStartMilliseconds=value, timestamp=value)
    assert 0.0 <= item.in_queue_since_at <= 253402300799.0
    assert item.buildable_since_at is None or 0.0 <= item.buildable_since_at <= 253402300799.0


def test_the_recorded_computers():
    """Agents by the name of their node, the built-in node as it shows itself."""
    exchanges = json.loads((RECORDINGS / "nodes" / "05-computers.json").read_text())["exchanges"]
    document = next(e for e in exchanges if e["note"] == "all computers, tree")["response"]["json"]
    computers = {c.name: c for c in reading.parse_computers(document["computer"])[0]}
    assert sorted(computers) == ["busy-1", "gone-1", "idle-1", "marked-1", "master", "never-1"]
    busy = computers["busy-1"]
    assert (busy.idle, busy.executors, busy.busy_executors) == (False, 2, 2)
    assert len(busy.executable_urls) == 2
    assert computers["idle-1"].labels == frozenset({"docker", "idle-1", "idlelabel"})
    assert computers["idle-1"].description == "made over REST"
    assert computers["marked-1"].temporarily_offline
    assert all(len(c.offline_cause) <= 256 for c in computers.values())


IDLE = {"displayName": "a", "idle": True, "offline": False, "temporarilyOffline": False}


@each(
    ("computer", "names", "nameless"),
    [
        (None, set(), True),
        ({}, set(), True),
        ({"displayName": 7}, set(), True),
        ({"displayName": "b"}, {"b"}, False),
        ({**IDLE, "displayName": "b", "idle": "no"}, {"b"}, False),
        ({**IDLE, "displayName": "b", "executors": {}}, {"b"}, False),
        ({**IDLE, "displayName": "b", "executors": ""}, {"b"}, False),
        ({**IDLE, "displayName": "b", "oneOffExecutors": [7]}, {"b"}, False),
        (IDLE, {"a"}, False),  # two of one name: which is it?
    ],
)
def test_one_odd_computer_costs_that_computer(computer, names, nameless):
    """It is told by its name where that can be read: of the others absence is still known."""
    found, odd = reading.parse_computers([IDLE, computer, {**IDLE, "displayName": "z"}])
    assert {one.name for one in found} == {"a", "z"} - names
    assert (odd.names, odd.nameless, odd.odd.count) == (names, nameless, 1)
    assert odd.words().startswith("1 computer cannot be read: ")


def test_a_number_of_executors_that_nobody_has():
    """Nothing may be sized by it."""
    for told, kept in ((2**31, 10_000), (-5, 0), ("2", 1), (True, 1), (10**400, 10_000)):
        (found,), _ = reading.parse_computers([{**IDLE, "numExecutors": told}])
        assert found.executors == kept


@pytest.mark.parametrize(
    ("date", "asked", "answered", "expected"),
    [
        (None, 100.0, 100.0, 0.0),
        (100.0, 100.4, 100.6, 0.0),
        (102.0, 100.4, 100.6, 0.0),
        (103.0, 100.4, 100.6, 3.0),
        (97.0, 100.4, 100.6, -3.0),
        (105.0, 100.0, 108.0, 0.0),  # a slow answer: 4 s either way are not known
        (3700.0, 100.0, 100.0, 3600.5),
    ],
)
def test_skew(date, asked, answered, expected):
    """More than two seconds beyond what the answer's own travel leaves open."""
    assert reading.skew(date, asked=asked, answered=answered) == pytest.approx(expected)


def test_members_beside_the_list_are_nobodys_business():
    """Before it and behind it."""
    document = (
        '{"_class": "x", "a": {"items": [1]}, "items": [{"id": 7}] , "b": [{}], "c": null }\n'
    )
    items, odd = reading.parse_queue(entries.Entries(document.encode(), "items"), 0.0)
    assert ([7], False) == ([item.id for item in items], bool(odd))


@pytest.mark.parametrize("told", [None, "soon", -1e400, float("nan"), {}])
def test_who_does_not_say_since_when_waits_since_it_was_seen(told):
    """Not since 1970: it is not the first in the row, nor the longest wait of all figures."""
    silent = one(inQueueSince=told, buildableStartMilliseconds=told)
    wishes = [
        demand.Wish(item=item, label=LABEL, kind=demand.WishKind.NOW)
        for item in (silent, one(id=8))
    ]
    assert [8, 7] == [wish.item.id for wish in sorted(wishes, key=draft.age)]
    known = None
    for at in (100.0, 105.0):
        view = model.ControllerView(synced=True, read_at=at, items=(silent,))
        known = latency.look(
            known, model.World(now=at, controller=view, backends={}), model.Plan()
        ).known
    assert 100.0 == known.waiting[7].ready_at
    world = model.World(now=105.0, controller=view, backends={})
    source = status_source.FixedSource(world=world, plan=model.Plan())
    (row,) = documents.queue(source)["items"]
    assert (None, None, None) == (row["waiting_since_at"], row["waiting_age_s"], row["queued_at"])


# --- what has not changed ---


def as_entries(key, *values):
    return entries.Entries(json.dumps({key: values}).encode(), key)


def test_an_entry_in_the_same_bytes_is_not_read_again():
    """It is the very object of the read before; what changed, came or was away is read."""
    known = reading.LastRead()
    other = {**IDLE, "displayName": "z"}
    first = reading.parse_computers(as_entries("computer", IDLE, other), 0.0, known)[0]
    busy = {**other, "idle": False}
    second = reading.parse_computers(as_entries("computer", busy, IDLE), 0.0, known)[0]
    assert second[1] is first[0]
    assert (first[1].idle, second[0].idle) == (True, False)
    reading.parse_computers(as_entries("computer"), 0.0, known)
    (third,) = reading.parse_computers(as_entries("computer", IDLE), 0.0, known)[0]
    assert third == first[0]
    assert third is not first[0]


def test_what_is_odd_is_odd_whether_it_was_known_or_not():
    """Two of one name, the one before them included; an entry that cannot be read, each time."""
    known = reading.LastRead()
    for _ in range(2):
        document = as_entries("computer", IDLE, {**IDLE, "idle": True}, {"displayName": 7})
        computers, odd = reading.parse_computers(document, 0.0, known)
        assert ((), True) == (computers, odd.nameless)
        assert frozenset({IDLE["displayName"]}) == odd.names


def test_an_item_is_read_again_when_the_controllers_clock_has_changed():
    """Its times are on ours."""
    known = reading.LastRead()
    item = {"id": 1, "_class": "x$BuildableItem", "inQueueSince": 10_000_000}
    read = [
        reading.parse_queue(as_entries("items", item), skew_s, known)[0][0]
        for skew_s in (0.0, 0.0, 60.0, 0.0)
    ]
    assert read[1] is read[0]
    assert [10_000.0, 10_000.0, 9_940.0, 10_000.0] == [one.in_queue_since_at for one in read]
    assert reading.parse_queue(as_entries("items", item, item), 0.0, known)[1].count == 1
