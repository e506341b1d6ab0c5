"""The read side: whole reads from a loopback server, halves that do not fit; what answers mean."""

import asyncio
import email.utils

import pytest
import recorded
from aiohttp import web

from broker.controller import reading
from jnlp import errors, http
from tests import patience

RESTART = "controller/01-restart"
COMPUTERS = recorded.exchange("nodes/05-computers", "all computers, tree")
QUEUE = recorded.exchange(RESTART, "queue right after the restart")


def dated(exchange, at):
    """The same answer with a Date header, as the controller sends it (whole seconds)."""
    headers = {**exchange["response"]["headers"], "Date": email.utils.formatdate(int(at))}
    return {**exchange, "response": {**exchange["response"], "headers": headers}}


async def test_a_whole_read():
    """Queue and computers, with version and session of the controller."""
    times = iter(range(1795477000, 1795478000))
    async with recorded.replaying(dated(QUEUE, 1795477001), COMPUTERS) as (session, controller):
        view = await reading.Reader(session).read(lambda: float(next(times)))
    assert view.synced
    assert view.read_at == 1795477000
    assert (view.version, view.session) == ("2.263.4", "38015f04")
    assert [item.id for item in view.items] == [78, 80]
    assert view.items[0].in_queue_since_at == 1795476333.288
    assert [c.name for c in view.computers] == [
        "master",
        "busy-1",
        "gone-1",
        "idle-1",
        "marked-1",
        "never-1",
    ]
    assert not view.quieting_down
    queries = {seen.path: seen.query["tree"] for seen in controller.seen}
    assert queries == {
        "/queue/api/json": reading.QUEUE_TREE,
        "/computer/api/json": reading.COMPUTER_TREE,
    }


async def test_a_peek_shows_the_same_items_as_a_read():
    """What it says and what a read says can be compared."""
    async with recorded.replaying(QUEUE) as (session, controller):
        seen = await reading.Reader(session).peek()
    assert seen == {(78, True), (80, True)}
    assert [asked.query["tree"] for asked in controller.seen] == [reading.PEEK_TREE]


async def test_a_glance_shows_who_works_and_whether_a_build_shows():
    """Who was only assigned something shows none; what is odd costs itself."""
    told = [
        {"displayName": "idle-1", "idle": True, "executors": [{"currentExecutable": None}]},
        {"displayName": "given-1", "idle": False, "executors": [{"currentExecutable": None}]},
        {"displayName": "busy-1", "idle": False, "executors": [{"currentExecutable": {"url": 7}}]},
        {"displayName": "odd-1", "executors": "many"},
        {"idle": False},
        7,
    ]
    asked = f"computer/api/json?tree={reading.AT_WORK_TREE}"
    async with recorded.canned(asked, payload={"computer": told}) as session:
        seen = await reading.Reader(session).at_work()
    assert seen == {"given-1": False, "busy-1": True, "odd-1": False}


async def peeked(text):
    async with recorded.canned(f"queue/api/json?tree={reading.PEEK_TREE}", body=text) as session:
        return await reading.Reader(session).peek()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "<html>please log in</html>",
        '{"items": [{"id": 1, "buildable": true}',
        '{"items": [{"id": 1, "buildable": true}]',
        '{"items": {"id": 1}}',
        '{"items": null}',
        '{"computer": []}',
        '{"items": [{"id": 1}], "items": []}',
    ],
)
async def test_a_peek_at_no_queue_is_unknown_and_not_empty(text):
    """An empty answer would read as "nothing waits"."""
    with pytest.raises(errors.Unexpected):
        await peeked(text)


@pytest.mark.parametrize(
    "entry",
    [
        "null",
        "7",
        '"x"',
        "[]",
        "{}",
        '{"id": null}',
        '{"id": "2"}',
        '{"id": true}',
        '{"id": -1}',
        '{"id": 1.5}',
        '{"id": 9223372036854775808}',
        '{"id": 1e400}',
        '{"id": ' + "9" * 5000 + "}",
        '{"id": NaN}',
        '{"id": 2, "x": "\\ud800"' + "[" * 9 + "]" * 9 + "}",
        '{"id": 2, "x": ' + "[" * 20 + "]" * 20 + "}",
        '{"_class": "hudson.model.Queue$LeftItem", "id": 2}',
    ],
)
async def test_an_odd_entry_costs_a_peek_that_entry(entry):
    """The items before and behind it are seen, up to the largest id that there can be."""
    largest = 2**63 - 1
    text = (
        f'{{"items": [{{"id": 1, "buildable": true}}, {entry}, '
        f'{{"id": {largest}, "buildable": "yes"}}]}}'
    )
    assert await peeked(text) == {(1, True), (largest, False)}


async def test_an_entry_that_is_too_large_costs_a_peek_that_entry():
    """It comes in many pieces."""
    entries = [{"id": 1, "buildable": True}, {"id": 2, "x": "x" * 300 * 1024}, {"id": 3}]
    answer = {**QUEUE["response"], "json": {"items": entries}}
    async with recorded.replaying({**QUEUE, "response": answer}) as (session, _):
        assert await reading.Reader(session).peek() == {(1, True), (3, False)}


@pytest.mark.parametrize("ahead", [3600.0, -86400.0, 1.0])
async def test_times_are_put_on_our_clock(ahead):
    """A controller whose clock is wrong shows the same waiting times; a second is noise."""
    now = 1795476400.0
    async with recorded.replaying(dated(QUEUE, now + ahead), COMPUTERS) as (session, _):
        view = await reading.Reader(session).read(lambda: now)
    corrected = view.items[0].in_queue_since_at
    expected = 1795476333.288 - (ahead if abs(ahead) > 2 else 0)
    assert corrected == pytest.approx(expected, abs=0.51)
    if abs(ahead) <= 2:
        assert corrected == 1795476333.288


_BUILDABLE = {"_class": "hudson.model.Queue$BuildableItem", "id": 1, "why": "No idle executors"}
_BLOCKED = {"_class": "hudson.model.Queue$BlockedItem", "id": 2, "why": "another build runs"}
_SHUT = {**_BUILDABLE, "why": "Jenkins is about to shut down"}


@pytest.mark.parametrize(
    ("items", "root", "quieting_down", "is_asked"),
    [
        ([], {"quietingDown": True}, True, True),
        ([], {"quietingDown": False}, False, True),
        ([], None, False, True),  # nobody lets us read it
        ([], {"quietingDown": "yes"}, False, True),
        ([_BLOCKED], {"quietingDown": True}, True, True),
        ([_BLOCKED, _BUILDABLE], {"quietingDown": True}, False, False),  # it would say so
        ([_BLOCKED, _SHUT], {"quietingDown": False}, True, False),
    ],
)
async def test_a_shut_down_that_is_prepared_is_seen_though_nothing_waits(
    items, root, quieting_down, is_asked
):
    """The queue tells where it has anything to tell; else the controller is asked itself."""
    asked = []
    headers = {"X-Jenkins-Session": COMPUTERS["response"]["headers"]["X-Jenkins-Session"]}

    async def handler(request: web.Request) -> web.Response:
        asked.append((request.path, request.query["tree"]))
        if request.path == "/api/json":
            return web.Response(status=404) if root is None else web.json_response(root)
        if "queue" in request.path:
            return web.json_response({"items": items}, headers=headers)
        return recorded.answer(COMPUTERS)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        view = await reading.Reader(session).read(lambda: 0.0)
    assert view.quieting_down == quieting_down
    assert (("/api/json", "quietingDown") in asked) == is_asked


async def test_a_restart_between_the_two_reads():
    """Two halves of different sessions do not belong together."""
    other = recorded.exchange(RESTART, "queue before the restart")
    async with recorded.replaying(other, COMPUTERS) as (session, _):
        with pytest.raises(errors.Unexpected, match="restarted between two reads"):
            await reading.Reader(session).read(lambda: 0.0)


@pytest.mark.parametrize("broken", ["queue", "computer"])
async def test_one_failed_half_fails_the_read(broken):
    """A half is unknown, not empty; the error is the controller's, not a group of errors."""

    async def handler(request: web.Request) -> web.Response:
        if broken in request.path:
            return web.Response(status=503)
        return recorded.answer(QUEUE if "queue" in request.path else COMPUTERS)

    async with (
        recorded.serving(handler) as url,
        http.ControllerSession(recorded.settings(url)) as session,
    ):
        with pytest.raises(errors.Starting):
            await reading.Reader(session).read(lambda: 0.0)


async def test_a_starting_controller_is_not_synced():
    """Both halves answer 503 while it starts."""
    starting = recorded.load("controller/02-starting-up")["exchanges"][:2]
    async with recorded.replaying(*starting) as (session, _):
        with pytest.raises(errors.Starting):
            await reading.Reader(session).read(lambda: 0.0)


async def test_a_bug_of_ours_is_not_called_the_controllers():
    """It comes as it is."""

    def clock():
        raise ZeroDivisionError

    async with recorded.replaying(QUEUE, COMPUTERS) as (session, _):
        calls = iter([lambda: 0.0, clock])
        with pytest.raises(ZeroDivisionError):
            await reading.Reader(session).read(lambda: next(calls)())


async def test_cancelling_a_read():
    """A cancelled read ends as cancelled."""
    arrived, release = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response()

    async with recorded.serving(handler) as url:
        async with http.ControllerSession(recorded.settings(url)) as session:
            task = asyncio.create_task(reading.Reader(session).read(lambda: 0.0))
            async with patience.limit(5):
                await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        release.set()


async def outcome_of(number, **answer):
    asked = f"queue/item/{number}/api/json?tree=cancelled,executable[url,builtOn]"
    async with recorded.canned(asked, **answer) as session:
        return await reading.Reader(session).item_outcome(number)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        # shapes of recording queue/40-life-of-an-item
        ({"_class": "hudson.model.Queue$WaitingItem"}, (True, False, None, "")),
        (
            {
                "_class": "hudson.model.Queue$LeftItem",
                "cancelled": False,
                "executable": {
                    "_class": "hudson.model.FreeStyleBuild",
                    "builtOn": "ci-t-a1",
                    "url": "http://localhost:8080/job/life/1/",
                },
            },
            (True, False, "http://localhost:8080/job/life/1/", "ci-t-a1"),
        ),
        (
            {"_class": "hudson.model.Queue$LeftItem", "cancelled": True, "executable": None},
            (True, True, None, ""),
        ),
    ],
)
async def test_what_became_of_an_item(document, expected):
    """Waiting, built, cancelled."""
    outcome = await outcome_of(70, payload=document)
    told = outcome.known, outcome.cancelled, outcome.executable_url, outcome.built_on
    assert told == expected


async def test_an_item_that_is_forgotten():
    """After five minutes the controller answers 404."""
    assert await outcome_of(99999, status=404) == reading.ItemOutcome(known=False)


def test_where_the_agent_jar_is():
    """Below the controller's URL, prefix included."""
    session = http.ControllerSession(recorded.settings("http://x:8080/ci"))
    url = reading.Reader(session).agent_jar_url()
    assert url == "http://x:8080/ci/jnlpJars/agent.jar"


async def result_of(url, **answer):
    asked = "job/a/job/b%20c/12/api/json?tree=result,duration,building"
    async with recorded.canned(asked, **answer) as session:
        return await reading.Reader(session).build_result(url)


BUILD = "http://ci.example.com/jenkins/job/a/job/b%20c/12/"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"building": False, "duration": 2345, "result": "FAILURE"}, ("FAILURE", 2.345)),
        ({"building": False, "duration": 90000, "result": "SUCCESS"}, ("SUCCESS", 90.0)),
        ({"building": True, "duration": 0, "result": None}, ("", 0.0)),
        ({"building": True, "duration": 0, "result": "FAILURE"}, ("", 0.0)),
        ({"building": False, "duration": "long", "result": "FAILURE"}, ("FAILURE", 0.0)),
        ({"result": "<b>bad</b>", "duration": 5}, ("", 0.0)),
        ([], ("", 0.0)),
    ],
)
async def test_what_came_of_a_build(document, expected):
    """Asked of the controller that we know, whatever its own address is in its answers."""
    told = await result_of(BUILD, payload=document)
    assert expected == (told.result, told.duration_s)


BUILDS = "builds/01-results"
RESULTS = {
    "success": "SUCCESS",
    "failure": "FAILURE",
    "unstable": "UNSTABLE",
    "not built": "NOT_BUILT",
    "aborted": "ABORTED",
    "running": "",
    "in folders": "FAILURE",  # blanks, brackets, a plus, an umlaut
    "odd name": "FAILURE",  # quotes, commas, signs, other scripts
    "a branch": "FAILURE",  # feature/x of a multibranch project: escaped, and that escaped again
}


@pytest.mark.parametrize("note", RESULTS)
async def test_what_came_of_a_real_build(note):
    """Asked by the address that the controller tells of it, letter by letter."""
    exchange = recorded.exchange(BUILDS, note)
    async with recorded.replaying(exchange) as (session, controller):
        told = await reading.Reader(session).build_result(exchange["url"])
    assert told.result == RESULTS[note]
    asked = exchange["request"]["path"].partition("?")[0]
    assert [seen.raw_path.partition("?")[0] for seen in controller.seen] == [asked]
    duration_s = exchange["response"]["json"]["duration"] / 1000
    assert told.duration_s == (duration_s if told.result else 0.0)


@pytest.mark.parametrize("note", ["deleted", "renamed", "deleted job"])
async def test_a_build_that_is_no_more(note):
    """Whoever asks is told, and takes it for nothing said."""
    exchange = recorded.exchange(BUILDS, note)
    async with recorded.replaying(exchange) as (session, _):
        with pytest.raises(errors.NotFound):
            await reading.Reader(session).build_result(exchange["url"])


@pytest.mark.parametrize(
    "url", ["", "http://c/job/x/", "http://c/computer/x/1/", "http://c/job/../1/", "http://c//1"]
)
async def test_what_is_no_address_of_a_build_is_not_asked_for(url):
    """Nothing goes out."""
    told = await result_of(url, payload={})
    assert "" == told.result
