"""The page for people: alike builds are one row, rows are found, the last hour is a picture."""

import asyncio
import contextlib
import math
import re

import aiohttp
import attrs
import pytest

from broker.core import model
from broker.core.fleet import hour as hours
from broker.core.model import ItemId, NodeName, Phase, WaitReason
from broker.status import Server, agent_page, chart, documents, page
from tests import patience
from tests.status import status_source
from tests.status.status_source import NOW
from tests.status.test_status import Reader


def waiting(number, *, reason=WaitReason.CAP_TOTAL, label="maven", job="app", age_s=60.0):
    item = model.QueueItem(
        id=ItemId(number),
        stage=model.Stage.BUILDABLE,
        task_url=f"https://c/job/team/job/{job}/",
        in_queue_since_at=NOW - age_s,
        buildable_since_at=NOW - age_s,
    )
    known = model.KnownLabel(source=model.LabelSource.WHY, expression=label)
    unmet = model.Unmet(
        item=item.id,
        reason=reason,
        text=f"{reason.value} {label}",
        label=known,
        since_at=NOW - age_s,
    )
    return item, unmet


def agent(number, phase=Phase.BUSY, template="release", place="node-1"):
    (base,) = status_source.full().plan.agents
    name = NodeName(f"o-{template}-{number:06}")
    instance = attrs.evolve(base.instance, name=name, place=place, exit=None, mishap=None)
    computer = attrs.evolve(base.computer, name=name, executable_urls=("https://c/job/x/1/",))
    return attrs.evolve(
        base, name=name, phase=phase, template=template, instance=instance, computer=computer
    )


def source_of(pairs=(), agents=()):
    source = status_source.full()
    view = attrs.evolve(source.world.controller, items=tuple(item for item, _ in pairs))
    source.world = attrs.evolve(source.world, controller=view)
    source.plan = attrs.evolve(
        source.plan, unmet=tuple(unmet for _, unmet in pairs), agents=tuple(agents)
    )
    return source


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def words(text):
    return " ".join(" ".join(read(text).text).split())


def test_builds_that_wait_alike_are_one_row():
    """Those that wait longest come first, in it and of it."""
    pairs = [waiting(n, age_s=10.0 + n, job=f"app-{n % 4}") for n in range(95)]
    pairs.append(waiting(200, reason=WaitReason.NO_TEMPLATE, label="mac", age_s=500.0))
    (first, second), more = documents.groups(source_of(pairs), documents.EVERYTHING, most=20)
    assert more == 0
    assert (first.total, first.rows[0]["id"]) == (1, 200)
    assert (second.total, len(second.rows), second.longest_s) == (95, 20, pytest.approx(104.0))
    assert [row["id"] for row in second.rows] == list(range(94, 74, -1))
    text = page.render(source_of(pairs))
    assert "and 75 more" in words(text)
    assert text.count("<details") == 1


def test_rows_are_found_by_any_of_their_words():
    """Of builds and of agents; small letters and capitals are alike."""
    pairs = [waiting(1, job="app"), waiting(2, label="windows", job="Tool")]
    agents = [agent(1), agent(2, place="node-9"), agent(3, Phase.IDLE)]
    source = source_of(pairs, agents)
    for told, builds, names in (
        ("windows", [2], []),
        ("TOOL", [2], []),
        ("team app", [1], []),
        ("cap", [1, 2], []),
        ("node-9", [], ["o-release-000002"]),
        ("release idle", [], ["o-release-000003"]),
        ("nothing like that", [], []),
        ("", [1, 2], [one.name for one in agents]),
    ):
        wanted = documents.wanted(told)
        found, _ = documents.groups(source, wanted, most=9)
        assert sorted(row["id"] for group in found for row in group.rows) == builds, told
        shown = documents.agents(source, looked_for=wanted)["agents"]
        assert [row["name"] for row in shown] == names, told
    assert "Nothing that waits is like that." in words(page.render(source, looked_for="xyz"))


def test_what_is_looked_for_is_shown_and_does_nothing():
    """It comes from an address that anybody may have made."""
    hostile = '"><script>alert(1)</script>'
    reader = read(page.render(source_of(), looked_for=hostile))
    assert reader.tags.count("script") == 1
    assert "onload" not in reader.attributes
    page.render(source_of(), looked_for="\x00\ud800" * 1000)


def test_five_thousand_agents_and_builds_are_a_page_of_300_kilobytes():
    """Of different labels and reasons, too."""
    reasons = list(WaitReason)
    pairs = [waiting(n, label=f"l{n}", reason=reasons[n % len(reasons)]) for n in range(5000)]
    text = page.render(source_of(pairs, [agent(n) for n in range(5000)]))
    assert len(text.encode()) < 300_000
    assert "and 4800 more" in words(text)


def hour_of(figures, waits=()):
    minute = math.floor(NOW / 60) * 60
    return hours.Hour(
        minutes=tuple(
            hours.Minute(at=minute - 60 * back, waiting=waiting_, busy=busy)
            for back, waiting_, busy in figures
        ),
        waits=tuple(hours.StartWait(at=NOW, waited_s=waited_s) for waited_s in waits),
    )


def test_the_last_hour_is_a_picture_and_words():
    """A gap is a gap; what is older than an hour is not in it."""
    picture = chart.picture(hour_of([(70, 9, 9), (10, 1, 4), (9, 7, 4), (3, 2, 0)]), now=NOW)
    assert picture.count("<rect") == 2
    assert picture.count("<polyline") == 2
    assert "most builds waited" in picture
    assert ": 7;" in picture
    assert "Nothing was seen" in chart.picture(hours.Hour(), now=NOW)
    read(picture)


@pytest.mark.parametrize("most", [1, 3, 4, 5, 17, 99, 1000, 12_345])
def test_the_scale_has_whole_numbers(most):
    """And everything is within the picture."""
    picture = chart.picture(hour_of([(5, most, 1)]), now=NOW)
    marks = [int(number) for number in re.findall(r'text-anchor="end">(\d+)<', picture)]
    assert marks == sorted(set(marks))
    assert marks[-1] >= most
    assert all(0 <= float(y) for y in re.findall(r' y="(-?[\d.]+)"', picture))


def test_waits_of_the_last_hour_are_told():
    """The middle one, and within what most came."""
    source = source_of()
    source.hour = hour_of([(1, 1, 1)], waits=range(1, 101))
    text = words(page.render(source))
    assert "50 s wait" in text
    assert "95 % within 95 s" in text


def test_a_page_of_one_agent():
    """What it is at, its life, who waits for it, what it ended of."""
    source = status_source.full("the platform's words")
    text = words(agent_page.render(source, "o-release-aaaaaa"))
    for told in ("busy", "release", "Its life so far", "What it ended of", "lost-out-of-memory"):
        assert told in text
    assert "No agent of that name" in words(agent_page.render(source, "o-release-zzzzzz"))
    assert "It is gone." in words(agent_page.render(source, "o-release-cccccc"))
    hostile = status_source.full(status_source.HOSTILE)
    calm = read(agent_page.render(source, "o-release-aaaaaa"))
    assert calm.tags == read(agent_page.render(hostile, "o-release-aaaaaa")).tags


# --- over HTTP ---


@contextlib.asynccontextmanager
async def served(source):
    server = Server(source, metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    async with aiohttp.ClientSession(url) as session:
        try:
            yield server, session
        finally:
            await server.aclose()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/?q=maven", 200),
        ("/?q=%3Cscript%3E", 200),
        ("/?q=" + "x" * 5000, 200),
        ("/agents/o-release-aaaaaa", 200),
        ("/agents/nobody", 200),
        ("/agents/%3Cb%3E", 404),
        ("/agents/", 404),
        ("/live.js", 200),
    ],
)
async def test_paths(path, status):
    """Each is answered, and from nowhere else."""
    async with served(status_source.full()) as (_, session), session.get(path) as answer:
        assert answer.status == status
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        if status == 200:
            assert await answer.text()


async def test_a_page_is_told_of_each_look_and_of_nothing_else(monkeypatch):
    """By an event without a content; whoever watches too many is told to come back."""
    monkeypatch.setattr("broker.status.server._LIVE_S", 0.01)
    monkeypatch.setattr("broker.status.server._WATCHERS", 1)
    source = status_source.full()
    async with served(source) as (server, session):
        async with session.get("/live") as answer:
            assert answer.content_type == "text/event-stream"
            assert await answer.content.readuntil(b"\n\n") == b"retry: 2000\n\n"
            async with session.get("/live") as other:
                assert other.status == 503
            source.world = attrs.evolve(source.world, now=NOW + 1)
            told = await patience.wait_for(answer.content.readuntil(b"\n\n"), 20)
            assert told == b"event: look\ndata:\n\n"
        patient = patience.Patience(20)
        while server._watching:
            assert not patient.is_over()
            source.world = attrs.evolve(source.world, now=source.world.now + 1)
            await asyncio.sleep(0.01)
