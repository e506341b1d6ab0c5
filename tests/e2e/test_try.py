"""A person has a template tried by the broker at work: over HTTP, by ``doctor``, and cut short."""

import asyncio
import json
import os
import signal
import urllib.parse

import aiohttp
import pytest

from broker import page_address, store
from broker.core.fleet import marks
from tests import forked
from tests.e2e import stage

TEMPLATES = """\
  pool:
    labels: pool
    retention: {idle: 1h}
  never:
    labels: never
    command: [/bin/sleep, "600"]
    connect_deadline: 5m
"""
TOKEN = "t" * 40


@pytest.fixture
async def made(tmp_path):
    """A stage whose broker has a page, and takes orders."""
    async with stage.Stage(tmp_path, templates=TEMPLATES) as found:
        found.listen = "127.0.0.1:0"
        found.write_config()
        tokens = tmp_path / "tokens"
        tokens.write_text(f"alice operate {TOKEN}\n")
        tokens.chmod(0o600)
        text = found.config.read_text()
        found.config.write_text(f"{text}control: {{tokens_file: {tokens}}}\n")
        yield found


def note(made):
    return page_address.noted(store.ReadOnlyStore(made.state))


async def ready(made):
    """Start a broker; return it once it may be ordered to do something."""
    process = await made.start()
    await made.until_up(process)
    async with aiohttp.ClientSession() as session:
        patient = stage.patience.Patience(20.0)
        while True:
            async with session.get(f"{note(made).url}readyz") as answer:
                if answer.status == 200:
                    return process
            assert not patient.is_over(), made.describe()


async def ordered(made, template, **more):
    return await page_address.order(
        note(made), "try", token=TOKEN, told={"template": template, **more}
    )


def tried(made):
    """Return the nodes of agents that are tried."""
    return [
        name for name, node in made.sim.nodes.items()
        if (read := marks.from_description(node.description)) and read.template == marks.TRIED
    ]  # fmt: skip


async def doctor(made):
    output = made.folder / "doctor.json"
    with output.open("wb") as file:
        process = await forked.start(
            *("doctor", "--try", "--json", "--config", str(made.config)), output=file,
            cwd=made.folder, env={**os.environ, "TOKEN": stage.TOKEN},
        )  # fmt: skip
        await process.wait()
    text = output.read_text()
    return [
        row
        for row in json.loads(text[text.index("[") : text.rindex("]") + 1])
        if "try" in row["check"]
    ]


async def test_the_doctor_has_the_broker_try(made):
    """It says so; nothing is left, nothing else was started, and the order is in the log."""
    made.write_config(templates=TEMPLATES.partition("  never")[0])
    made.config.write_text(
        f"{made.config.read_text()}control: {{tokens_file: {made.folder}/tokens}}\n"
    )
    process = await ready(made)
    rows = await doctor(made)
    assert [row["verdict"] for row in rows] == ["ok", "ok"], rows
    assert "by the broker that works here" in rows[0]["text"]
    for phase in ("node", "launched", "running", "online on local"):
        assert phase in rows[1]["text"]
    await made.until(lambda: not made.agents, "that nothing is left")
    ended = await made.stop(process)
    assert "alice" in ended.said
    assert TOKEN not in ended.said
    assert "launch" not in [line for line in ended.said.splitlines() if "-pool-" in line]


async def test_without_a_token_the_doctor_tries_by_itself_and_says_so(made):
    """As another owner, as ever."""
    made.write_config(templates=TEMPLATES.partition("  never")[0])
    process = await ready(made)
    rows = await doctor(made)
    assert "from here, as another owner" in rows[0]["text"]
    assert "control.tokens_file" in rows[0]["text"]
    assert rows[1]["verdict"] == "ok"
    await made.stop(process)


async def test_one_at_a_time_and_only_what_there_is(made):
    """Each refusal has its words; builds are served meanwhile, by others."""
    process = await ready(made)
    await ordered(made, "never")
    await made.until(lambda: tried(made), "the node of an agent that is tried")
    with pytest.raises(page_address.OrderDeclined, match="template never is being tried"):
        await ordered(made, "pool")
    (name,) = tried(made)
    assert made.sim.nodes[name].labels == frozenset()
    item = made.submit("pool")
    await made.until(lambda: item not in {one.id for one in made.open}, "the end of a build")
    assert tried(made) == [name]
    await made.stop(process)
    assert not tried(made)


SENSELESS = [
    ({"template": "other"}, "no such template"),
    ({"template": "pool", "backend": "far"}, "may not go to that backend"),
    ({"template": "pool", "command": "rm"}, "allowed: an object with template, backend, why"),
    ({"backend": "local"}, "missing: template"),
    ({"template": "p" * 300}, "texts of at most 256 characters"),
    ({"template": "pool", "why": "w" * 9000}, "more than 4096 bytes"),
]


async def test_a_backend_that_is_full_is_passed_over(made):
    """A try takes room, and never more than there is: no build loses a place by it."""
    text = made.config.read_text()
    made.config.write_text(f"{text}limits: {{agents: 1}}\n")
    process = await ready(made)
    made.submit("pool")
    await made.until_served()
    rows = await doctor(made)
    assert "not tried on local: limits.agents: 1 agent, and so many are there" in rows[1]["text"]
    assert not tried(made)
    await made.stop(process)


async def test_an_order_that_makes_no_sense_is_refused(made):
    """Each in its words, and nothing is made."""
    process = await ready(made)
    for told, words in SENSELESS:
        with pytest.raises(page_address.OrderDeclined, match=words):
            await page_address.order(note(made), "try", token=TOKEN, told=told)
    assert not tried(made)
    await made.stop(process)


async def test_whoever_goes_away_amid_an_order_is_no_bug(made):
    """Nothing is ordered by half a text, and the log blames nobody."""
    process = await ready(made)
    host, port = urllib.parse.urlsplit(note(made).url).netloc.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /api/v1/try HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/json\r\nContent-Length: 19\r\nExpect: 100-continue\r\n\r\n".encode()
    )
    assert b"100" in await reader.readline(), "it is being read"
    writer.write(b'{"template":')
    await writer.drain()
    writer.transport.abort()
    await ordered(made, "never")
    ended = await made.stop(process)
    assert "bug" not in ended.said
    assert not tried(made)


async def test_a_stop_in_the_middle_leaves_nothing(made):
    """Node and instance go before the broker does."""
    process = await ready(made)
    await ordered(made, "never")
    await made.until(lambda: tried(made) and made.processes(), "an agent that is tried")
    process.send_signal(signal.SIGTERM)
    await made.ended(process)
    assert not tried(made)
    assert not made.processes()


async def test_what_a_killed_broker_left_is_swept_by_the_next(made):
    """It is an agent of a template that nobody has."""
    process = await ready(made)
    await ordered(made, "never")
    await made.until(lambda: tried(made) and made.processes(), "an agent that is tried")
    await made.kill(process)
    assert tried(made)
    process = await ready(made)
    await made.until(lambda: not tried(made) and not made.processes(), "that it is gone")
    await made.stop(process)
