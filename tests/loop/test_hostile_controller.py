"""What a controller may send, changed in any place: nothing crashes, nobody is harmed, all is told.

The answers are recorded ones, with agents of ours beside them; each change puts something odd
somewhere. They are read as they come over the wire, planned with, and shown in every form (K2, K5).
"""

import copy
import io
import json
import logging

import attrs
from hypothesis import example, given
from hypothesis import strategies as st

from broker import log, metrics
from broker.controller import reading
from broker.core import model
from broker.core.decide import plan
from broker.core.fleet import marks
from broker.loop import health
from broker.status import documents, page, terminal
from jnlp import entries, errors
from outside import text
from tests.core import worlds
from tests.each import each
from tests.loop import test_jenkins_parse
from tests.status import status_source

DEEP = [[[[[[[[[[["deep"]]]]]]]]]]]
HUGE = 10**400
ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, HUGE, -HUGE, 0.5, 1e308, float("nan"), float("inf"),
    "", " ", "x", "\ud800", "\udfff\ud800", "\x1b[2J\x1b]0;title\x07", "\u202egnp.exe", "\x85\x9b31m",
    "a\nb 12:00:00 INFO     launch done", "\r\n", "\x00", "\u2028", "</script><script>", "%s%n{}",
    "linux" * 2000, "a&&" * 3000, "(" * 3000, "‘" * 3000, [], {}, [None], [[]], DEEP, {"a": DEEP},
    "There are no nodes with the label ‘x", "Must run on o-maven-busy not x", "[agent-broker ",
    "hudson.model.Queue$LeftItem", "$MasterComputer", "o-maven-busy", "o-maven-idle", {"url": 7},
    [{"idle": "no"}], [{"idle": False, "currentExecutable": {"url": ["x"]}}], [{"name": HUGE}],
]  # fmt: skip
CONTROL = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u202e", "\u2028"}


def marked(name, template="maven"):
    made = marks.Marks(
        owner="o", template=template, backend="local", revision="r1", created_at=9.0
    )
    return {
        "_class": "hudson.slaves.SlaveComputer",
        "displayName": name,
        "description": made.description(),
        "numExecutors": 1,
        "assignedLabels": [{"name": "maven"}, {"name": name}],
        "offlineCauseReason": "",
        "offlineCause": None,
        "idle": True,
        "offline": False,
        "temporarilyOffline": False,
        "executors": [{"idle": True, "currentExecutable": None}],
        "oneOffExecutors": [],
    }


def answers():
    """Return a queue and the computers, as a controller writes them."""
    queue = copy.deepcopy(test_jenkins_parse.restart_queue())
    busy, idle, lost = (marked(f"o-maven-{name}") for name in ("busy", "idle", "lost"))
    work = {"idle": False, "currentExecutable": {"url": "http://c/job/x/1/"}}
    busy.update(idle=False, executors=[work])
    lost.update(offline=True)
    recorded = test_jenkins_parse.load("nodes/05-computers", "all computers, tree")
    foreign = copy.deepcopy(recorded["computer"])
    return {"items": queue["items"][:5]}, {"computer": [busy, idle, lost, *foreign[:3]]}


def places(value):
    """Yield every container of a document with every key in it."""
    found = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(found):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def changed(document, changes):
    for where, how, odd in changes:
        found = list(places(document))
        container, key = found[where % len(found)]
        if how == "put":
            container[key] = copy.deepcopy(odd)
        elif how == "remove" and container is not document:
            del container[key]
        elif how == "twice" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
    return document


def read(queue, computers):
    """Read two answers like the reader, from their bytes."""
    body = {
        name: json.dumps(told).encode()
        for name, told in (("items", queue), ("computer", computers))
    }
    try:
        items, odd_items = reading.parse_queue(entries.Entries(body["items"], "items"), 0.0)
        seen, odd = reading.parse_computers(entries.Entries(body["computer"], "computer"))
    except (ValueError, errors.JenkinsError) as error:
        return model.ControllerView(error=text.clean(str(error)))
    return model.ControllerView(
        synced=True,
        read_at=worlds.NOW,
        version="2.528.3",
        session="s1",
        items=items,
        computers=seen,
        odd_items=odd_items.words("item of the queue", "items of the queue"),
        odd_computers=odd.words(),
        odd_names=odd.names,
        odd_nameless=odd.nameless,
    )


def planned(view):
    """Plan with three agents that are known, one of them busy."""
    scene = worlds.Scene(
        worlds.template("maven", "maven", "linux", min_idle=1), worlds.template("x")
    )
    for name, phase in (
        ("busy", model.Phase.BUSY),
        ("idle", model.Phase.IDLE),
        ("lost", model.Phase.LOST),
    ):
        scene.agent("maven", phase, suffix=name)
    world = attrs.evolve(scene.world(), controller=view)
    looks = [plan.plan(world, scene.policy)]
    for n in (60.0, 600.0, 6000.0):  # and what the second looks would sweep
        world = attrs.evolve(world, now=worlds.NOW + n, ledger=looks[-1].ledger)
        looks.append(plan.plan(world, scene.policy))
    return world, looks, scene.policy


def harmless(view, looks):
    """Check what must hold whatever is sent."""
    unread = {
        name for name in ("o-maven-busy", "o-maven-idle", "o-maven-lost") if view.is_unread(name)
    }
    present = {computer.name for computer in view.computers}
    busy = {c.name for c in view.computers if not c.idle or c.busy_executors}
    for made in looks:
        assert made.overshoot == 0
        launches = [a for a in made.actions if isinstance(a, model.LaunchAgent)]
        assert len(launches) <= len(view.items) + 1
        gone = {
            a.name
            for a in made.actions
            if not isinstance(a, model.LaunchAgent | model.CordonAgent)
        }
        assert not gone & busy
        assert not gone & (unread - present)


def shown(world, made, policy):
    """Show everything in every form; nothing of it controls a terminal or breaks a document."""
    source = status_source.FixedSource(world=world, plan=made, policy=policy)
    told = {n: getattr(documents, n)(source) for n in ("plan", "queue", "agents", "templates")}
    whole = json.dumps(told, ensure_ascii=False, allow_nan=False)
    whole.encode()  # no half of a surrogate pair
    page.render(source).encode()
    recorder = metrics.PrometheusRecorder(policy, version="1")
    recorder.cycle(world, made, 0.1)
    recorder.render()
    lines = terminal.render(told)
    assert not CONTROL & set(lines.replace("\n", ""))
    assert not CONTROL & set(whole)
    return whole, lines


def logged(world, made):
    """Write what is logged of a look, for a terminal."""
    stream = io.StringIO()
    log.configure(form="console", level="debug", stream=stream)
    for lost in health.changes(None, world):
        logging.getLogger("broker.x").warning("source lost", extra=attrs.asdict(lost))
    for row in made.unmet:
        logging.getLogger("broker.x").info(
            "%s", row.text, extra={"reason": row.text, "url": row.label}
        )
    return stream.getvalue()


_STEP = 23
PLACES = st.integers(0, 10**6)
CHANGES = st.lists(
    st.tuples(
        PLACES, st.sampled_from(["put", "put", "put", "remove", "twice"]), st.sampled_from(ODD)
    ),
    min_size=1,
    max_size=6,
)


@given(CHANGES, CHANGES)
@example([(0, "put", ODD[0])], [(1, "put", ODD[0])])
def test_whatever_stands_anywhere(of_queue, of_computers):
    """Our own errors, and no others; no busy agent goes; nothing is ordered that nobody wants."""
    queue, computers = answers()
    view = read(changed(queue, of_queue), changed(computers, of_computers))
    world, looks, policy = planned(view)
    harmless(view, looks)
    shown(world, looks[0], policy)


def flat(odd):
    return f"{odd!r}"[:40]


@each("odd", ODD, ids=flat)
def test_each_odd_value_in_every_place(odd):
    """One place after the other; each value in some of them, all values together in all."""
    for which in range(2):
        count = len(list(places(answers()[which])))
        for where in range(ODD.index(odd) % _STEP, count, _STEP):
            both = list(answers())
            both[which] = changed(both[which], [(where, "put", odd)])
            view = read(*both)
            world, looks, policy = planned(view)
            harmless(view, looks)
            if where % 3 == 0:
                shown(world, looks[0], policy)
            if view.synced and which == 1 and where > 0:
                assert len(view.computers) + view.odd_computers.count("computers cannot") >= 1


def test_an_odd_agent_keeps_all_others_as_they_are():
    """It is unknown by its name; of those that are really gone absence is still known."""
    queue, computers = answers()
    computers["computer"][1]["idle"] = "maybe"  # the idle one
    del computers["computer"][2]  # the lost one has no node any more
    view = read(queue, computers)
    assert (view.odd_names, view.odd_nameless) == ({"o-maven-idle"}, False)
    _, looks, _ = planned(view)
    phases = {agent.name: agent.phase for agent in looks[0].agents}
    assert phases["o-maven-idle"] is model.Phase.UNKNOWN
    assert phases["o-maven-busy"] is model.Phase.BUSY
    assert "o-maven-lost" not in phases or phases["o-maven-lost"] is model.Phase.GONE
    del computers["computer"][1]["displayName"]
    view = read(queue, computers)
    _, looks, _ = planned(view)
    assert {a.name: a.phase for a in looks[0].agents}["o-maven-lost"] is model.Phase.UNKNOWN


def test_odd_entries_are_told_once_with_a_count_and_a_reason():
    """On the page, in the JSON, as a metric and in the log."""
    queue, computers = answers()
    queue["items"] += [{"id": None}, {"id": HUGE}]
    computers["computer"][1]["idle"] = "maybe"
    view = read(queue, computers)
    world, looks, policy = planned(view)
    whole, _ = shown(world, looks[0], policy)
    words = "2 items of the queue cannot be read: the id of an item is None"
    assert words in whole
    assert "1 computer cannot be read: computer o-maven-idle: idle is 'maybe'" in whole
    source = status_source.FixedSource(world=world, plan=looks[0], policy=policy)
    assert words in page.render(source)
    recorder = metrics.PrometheusRecorder(policy, version="1")
    recorder.cycle(world, looks[0], 0.1)
    found = recorder.render()[0].decode()
    assert 'jenkins_broker_sources_whole{backend="",source="controller"} 0.0' in found
    assert 'jenkins_broker_sources_synced{backend="",source="controller"} 1.0' in found
    assert words in logged(world, looks[0])


@each("words", [t for t in ODD if isinstance(t, str) and t], ids=flat)
def test_no_text_forges_a_line_of_the_log(words):
    """Neither in a field, nor in a message, nor in a traceback that quotes it."""
    stream = io.StringIO()
    log.configure(form="console", level="debug", stream=stream)
    logger = logging.getLogger("broker.x")
    logger.info("%s", words, extra={"reason": words})
    try:
        raise ValueError(words)
    except ValueError:
        logger.exception("failed: %s", words)
    written = stream.getvalue()
    written.encode()
    lines = written.rstrip("\n").split("\n")
    assert not CONTROL & set(written.replace("\n", ""))
    assert sum(not line.startswith("    | ") for line in lines) == 2
    stream = io.StringIO()
    log.configure(form="json", level="debug", stream=stream)
    logger.warning("%s", words, extra={"reason": words})
    assert len(stream.getvalue().splitlines()) == 1
    assert stream.getvalue().isascii()
