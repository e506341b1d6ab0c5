"""The page and the JSON: what the person on call sees, from one fixed moment of a broker."""

import asyncio
import html.parser
import json
import os
import pathlib

import aiohttp
import attrs
import pytest

from broker import config
from broker.core import model
from broker.leading import leadership
from broker.status import Server, documents, page, server, terminal
from tests.status import status_source

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "status"
NAMES = ("queue", "history", "agents", "templates", "plan", "events", "agent")


def document(name, source):
    """Make a document; that of one agent is of the one that the moment has."""
    more = ("o-release-aaaaaa",) if name == "agent" else ()
    return getattr(documents, name)(source, *more)


@pytest.mark.parametrize("name", NAMES)
def test_the_documents_are_as_agreed(name):
    """Programs rely on these fields."""
    made = document(name, status_source.full())
    text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    golden = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert golden.read_text() == text


@pytest.mark.parametrize("limit", [f.name for f in attrs.fields(model.Retention)])
def test_every_limit_of_retention_is_shown(limit):
    """Each under its own name; one without end is none."""
    is_time = limit.endswith("_s")
    value = 7.0 if is_time else True if limit == "once" else 7
    source = status_source.full()
    for given, expected in ((value, value), *(((float("inf"), None),) if is_time else ())):
        keep = attrs.evolve(model.Retention(idle_s=None), **{limit: given})
        template = attrs.evolve(status_source.RELEASE, retention=keep)
        source.policy = attrs.evolve(status_source.POLICY, templates=(template,))
        (row, *_) = documents.templates(source)["templates"]
        none = {
            f.name: getattr(model.Retention(idle_s=None), f.name)
            for f in attrs.fields(model.Retention)
        }
        assert row["retention"] == {**none, limit: expected}


@pytest.mark.parametrize("name", NAMES)
def test_before_the_first_look_the_fields_are_there_and_empty(name):
    """Null is unknown, a list is empty, nothing fails."""
    first = document(name, status_source.FixedSource(is_ready=(False, "nothing was read yet")))
    later = document(name, status_source.full())
    assert set(later) == set(first)
    assert first["ready"] is False
    json.dumps(first, allow_nan=False)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_chosen_fields_goes_out(name):
    """Metadata, descriptions, environment and commands stay inside."""
    assert "secret-of-nobody" not in json.dumps(document(name, status_source.full()))


def test_the_last_lines_of_an_agent_hold_no_secret():
    """Some agents print the options that they do not understand."""
    secret = "0123456789abcdef" * 4
    source = status_source.full(f"unknown option: {secret} in sha256:{secret}")
    (bad,) = [d for d in documents.agents(source)["deaths"] if d["last_lines"]]
    assert bad["last_lines"][1] == f"unknown option: (hidden) in sha256:{secret}"


def test_remote_texts_are_cut():
    """A megabyte in a cause of offline does not go to every reader of the page."""
    made = documents.agents(status_source.full("x" * 100_000))
    (agent,) = made["agents"]
    assert len(agent["offline_cause"]) == 256
    assert all(len(line) <= 256 for dead in made["deaths"] for line in dead["last_lines"])
    assert len(page.render(status_source.full("x" * 100_000))) < 40_000


class Reader(html.parser.HTMLParser):
    """Reads as a browser would: which tags, attributes and texts there really are."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.attributes, self.text, self.open = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.links += [value for name, value in attrs if name in {"href", "src"}]
        if tag not in {"meta", "br", "img", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def read(source):
    reader = Reader()
    reader.feed(page.render(source))
    reader.close()
    assert reader.open == []
    return reader


def test_a_hostile_text_is_shown_and_does_nothing():
    """Same tags and attributes as with harmless words; no link that is not to the web."""
    calm, hostile = read(status_source.full()), read(status_source.full(status_source.HOSTILE))
    assert calm.tags == hostile.tags
    assert calm.attributes == hostile.attributes
    assert hostile.tags.count("script") == 1  # our own
    assert not [link for link in hostile.links if link.startswith("javascript:")]
    assert "<script>alert('x')</script>" in "".join(hostile.text)


def test_the_person_on_call_sees_what_waits_what_died_and_what_is_set_aside():
    """In this order, above everything else."""
    text = " ".join(read(status_source.full("the platform's words")).text)
    order = [
        text.index(word)
        for word in (
            "2 waiting",
            "1 needs help",
            "1 died",
            "Waiting builds",
            "Held back",
            "Died",
            "Templates",
        )
    ]
    assert order == sorted(order)
    for told in (
        "no-template",
        "longest 75 s",
        "lost-out-of-memory",
        "20:28:40 UTC, in 2 min",
        "o-release-aaaaaa",
        "the platform's words, 2.0 s ago, 3 times by now",
        "overshoot 0",
    ):
        assert told in text


def test_a_partly_seen_backend_is_shown_first_with_what_is_missing():
    """It works, but somebody has to look after one of its machines."""
    source = status_source.full()
    (name, view), *others = source.world.backends.items()
    views = {name: attrs.evolve(view, hidden="unix:///two does not answer"), **dict(others)}
    source.world = attrs.evolve(source.world, backends=views)
    text = " ".join(read(source).text)
    assert text.index("partly") < text.index("Waiting builds")
    assert "unix:///two does not answer" in text


def test_nothing_is_fetched_from_elsewhere():
    """One document, and one script of ours beside it; no styles or fonts from outside."""
    reader = read(status_source.full())
    assert {"link", "img", "iframe"}.isdisjoint(reader.tags)
    assert [link for link in reader.links if not link.startswith(("https://c/", "#"))] == [
        "./",
        "agents/o-release-aaaaaa",
        "agents/o-release-aaaaaa",
        "agents/o-release-cccccc",
        "api/v1/queue",
        "api/v1/history",
        "api/v1/agents",
        "api/v1/templates",
        "api/v1/plan",
        "api/v1/events",
        "metrics",
        "live.js",
    ]


def test_a_long_queue_is_cut_on_the_page_and_whole_in_the_json():
    """2000 waiting builds do not make a page of megabytes."""
    source = status_source.full()
    source.plan = attrs.evolve(
        source.plan,
        unmet=tuple(
            model.Unmet(item=model.ItemId(n), reason=model.WaitReason.CAP_TOTAL, text="full")
            for n in range(2000)
        ),
    )
    assert len(documents.queue(source)["items"]) == 2000
    reader = read(source)
    assert "and 1980 more" in " ".join(reader.text)
    assert len(page.render(source)) < 60_000


# --- over HTTP ---


@pytest.fixture
async def served():
    source = status_source.full()
    server = Server(source, metrics=lambda: (b"m 1\n", "text/plain; version=0.0.4; charset=utf-8"))
    url = await server.start(host="127.0.0.1", port=0)
    async with aiohttp.ClientSession(url) as session:
        yield source, session
    await server.aclose()


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/", 200, "text/html"),
        ("/healthz", 200, "text/plain"),
        ("/readyz", 200, "text/plain"),
        ("/metrics", 200, "text/plain"),
        *((f"/api/v1/{name}", 200, "application/json") for name in NAMES if name != "agent"),
        ("/api/v1/agents/o-release-aaaaaa", 200, "application/json"),
        ("/api/v1/agents/nobody", 200, "application/json"),
        ("/api/v1/agents/%3Cscript%3E", 404, "text/plain"),
        ("/api/v1/", 404, "text/plain"),
        ("/favicon.ico", 404, "text/plain"),
        ("/../etc/passwd", 404, "text/plain"),
    ],
)
async def test_paths(served, path, status, kind):
    """GET and HEAD alike; every answer forbids scripts, frames, sniffing and storing."""
    _, session = served
    for method in ("GET", "HEAD"):
        async with session.request(method, path) as answer:
            assert (status, kind) == (answer.status, answer.content_type)
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/api/v1/plan", "/healthz"])
async def test_nothing_can_be_changed(served, method, path):
    """There is no control verb, so there is nothing to log in to."""
    _, session = served
    async with session.request(method, path) as answer:
        assert answer.status == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8087", 200),
        ("localhost", 200),
        ("[::1]:1", 200),
        ("10.0.0.1", 200),
        ("evil.example.com", 421),
        ("localhost.evil.example.com:80", 421),
    ],
)
async def test_a_foreign_name_that_points_here_is_refused(served, host, status):
    """Else a page elsewhere could read the answers through a browser on this machine."""
    _, session = served
    async with session.get("/api/v1/queue", headers={"Host": host}) as answer:
        assert status == answer.status


async def test_not_ready_and_not_alive_are_said(served):
    """503 with one line, for probes and for people."""
    source, session = served
    source.is_ready, source.is_alive = (
        (False, "controller: unreachable"),
        (False, "the loop hangs"),
    )
    for path, text in (("/readyz", "controller: unreachable\n"), ("/healthz", "the loop hangs\n")):
        async with session.get(path) as answer:
            assert (answer.status, await answer.text()) == (503, text)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (leadership.LeadershipState(), None),
        (
            leadership.LeadershipState(shared=True, holder="me_1", since=status_source.NOW - 9),
            "leads",
        ),
        (
            leadership.LeadershipState(
                leading=False,
                shared=True,
                holder="other_1",
                since=status_source.NOW - 9,
                reason="other_1 leads",
            ),
            "standby: other_1 leads",
        ),
        (
            leadership.LeadershipState(leading=False, shared=True, reason=status_source.HOSTILE),
            "standby: ",
        ),
    ],
)
def test_page_and_terminal_say_who_leads(state, words):
    """Of several brokers; nothing about it where there is one."""
    source = status_source.full()
    source.leadership = state
    shown = page.render(source)
    assert "<script>" not in shown
    told = {name: document(name, source) for name in NAMES}
    line = terminal.render(told).splitlines()[0]
    if words is None:
        assert "leads" not in shown
        assert "leads" not in line
    else:
        assert words in shown
        assert ("STANDBY" in line) is not state.leading
        assert (", leads as me_1" in line) is state.leading


def test_page_and_terminal_say_what_is_not_in_force():
    """A refused configuration, escaped, and what waits for a restart; nothing where all is well."""
    source = status_source.full()
    told = {name: document(name, source) for name in NAMES}
    for text in (page.render(source), terminal.render(told)):
        assert "configuration" not in text
        assert "a restart" not in text
    source.configuration = config.ConfigurationState(
        refused_at=status_source.NOW - 9, refusal=status_source.HOSTILE, waits=("backends", "log")
    )
    told = {name: document(name, source) for name in NAMES}
    for text in (shown := page.render(source), terminal.render(told)):
        assert f"configuration refused {terminal.seconds(9.0)} ago, one before it" in text
        assert "a restart is needed for backends, log" in text
    assert "<script>" not in shown


async def test_many_rows_are_made_slice_by_slice():
    """The loop goes round between them, and the answer is the document."""
    turns = []

    async def watch():
        while True:
            turns.append(len(made))
            await asyncio.sleep(0)

    made = []
    rows = (made.append(n) or {"id": n} for n in range(1000))
    watching = asyncio.create_task(watch())
    answer = await server.json_in_slices({"owner": "o", "items": rows, "total": 1000})
    watching.cancel()
    expected = {"owner": "o", "items": [{"id": n} for n in range(1000)], "total": 1000}
    assert json.loads(answer.body) == expected
    assert len({count for count in turns if 0 < count < 1000}) >= 5


# --- a controller that does not answer ---


def away(*, before):
    """A broker whose controller was read ``before``, and is away for 40 s."""
    known = status_source.full()
    world = attrs.evolve(
        known.world, controller=model.ControllerView(error="unreachable: no answer")
    )
    return attrs.evolve(
        known,
        world=world,
        plan=model.Plan(),
        last_read=(known.world, known.plan) if before else None,
        as_of={"controller": status_source.NOW - 41.0} if before else {},
        unread_since={"controller": status_source.NOW - 40.0},
    )


def test_what_waited_still_waits_while_nobody_can_ask():
    """Queue and agents as they were, with of when that is and since when nobody knows more."""
    source, known = away(before=True), status_source.full()
    for made, key in ((documents.queue, "items"), (documents.agents, "agents")):
        told = made(source)
        assert told[key] == made(known)[key]
        assert told["synced"] is False
        assert (41.0, 40.0) == (told["as_of_age_s"], told["unknown_age_s"])
    shown = page.render(source)
    words = "as of 20:25:59 UTC, unknown for 40 s"
    assert f'Waiting builds <span class="bad">{words}</span></h2>' in shown
    assert f'Agents <span class="bad">{words}</span></h2>' in shown
    told = {name: document(name, source) for name in NAMES}
    assert f"waiting ({words}):" in terminal.render(told)


def test_a_controller_that_was_never_read_shows_nothing_of_a_queue():
    """Not that nothing waits."""
    shown = page.render(away(before=False))
    assert "Nothing waits." not in shown
    assert 'Waiting builds <span class="bad">unknown for 40 s</span></h2>' in shown


def test_nothing_is_said_of_an_old_queue_while_the_controller_answers():
    """The page is as calm as ever."""
    assert "unknown for" not in page.render(status_source.full())
