"""What is shown again and again: on a terminal in its place, in a file appended; how it ends."""

import asyncio
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import struct
import sys
import termios

import pytest

from broker.cli import agents, watching
from broker.cli import main as cli
from broker.status import Server, terminal
from tests import forked, patience
from tests.status import status_source

HOME = "\x1b[H"


@contextlib.asynccontextmanager
async def page(source=None):
    server = Server(source or status_source.full(), metrics=lambda: (b"", "text/plain"))
    url = await server.start(host="127.0.0.1", port=0)
    try:
        yield server, url
    finally:
        await server.aclose()


class Seen:
    """A program whose output is a terminal, or a pipe."""

    def __init__(self, process, handle):
        self.process, self.handle, self.text = process, handle, ""

    async def until(self, fits):
        async with patience.limit(60):
            while not fits(self.text):
                try:
                    part = await asyncio.to_thread(os.read, self.handle, 65536)
                except OSError:  # of a terminal whose last program has ended
                    part = b""
                assert part, self.text
                self.text += part.decode()

    async def ended(self):
        async with patience.limit(60):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def running(*arguments, columns=None, rows=24):
    """Run a command; with ``columns`` on a terminal of so many."""
    if columns is not None:
        try:
            reads, writes = pty.openpty()
        except OSError as error:
            pytest.skip(f"this system has no terminals to give: {error}")
        fcntl.ioctl(writes, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    else:
        reads, writes = os.pipe()
    environment = {k: v for k, v in os.environ.items() if k not in {"COLUMNS", "LINES"}}
    process = await forked.start(
        *arguments,
        output=writes,
        errors=2,
        cwd=pathlib.Path.cwd(),
        env={**environment, "TERM": "xterm"},
    )
    os.close(writes)
    try:
        yield Seen(process, reads)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        with contextlib.suppress(OSError):
            os.close(reads)


@pytest.mark.parametrize("columns", [40, 80])
async def test_on_a_terminal_it_is_drawn_in_its_place_until_ctrl_c(columns):
    """No line is wider than the terminal, and no picture higher."""
    async with (
        page(status_source.full("some words " * 20)) as (_, url),
        running("status", "--watch", "0.5", "--url", url, columns=columns) as seen,
    ):
        await seen.until(lambda text: text.count(HOME) >= 3)
        seen.process.send_signal(signal.SIGINT)
        assert 0 == await seen.ended()
    _, first, second, *_ = seen.text.split(HOME)
    for picture in (first, second):
        lines = re.sub(r"\x1b\[\w*", "", picture).splitlines()
        assert max(map(terminal.columns, lines)) <= columns
        assert len(lines) <= 24
        assert "; Ctrl-C ends" in picture
        assert re.search(r"\.\.\. and \d+ lines? more", picture)
    assert 1 == seen.text.count("\x1b[2J")


async def test_elsewhere_it_is_appended_and_a_broker_that_is_away_is_waited_for():
    """With no control character; the second page is that of the next broker."""
    async with page() as (server, url):
        async with running("status", "--watch", "0.5", "--url", url) as seen:
            await seen.until(lambda text: text.count("owner o, ready") >= 2)
            await server.aclose()
            await seen.until(lambda text: "no broker answers at" in text)
            seen.process.send_signal(signal.SIGINT)
            assert 0 == await seen.ended()
    assert "\x1b" not in seen.text


async def test_for_programs_each_is_a_line():
    """Whole documents."""
    async with page() as (_, url):
        async with running("status", "--json", "--watch", "0.5", "--url", url) as seen:
            await seen.until(lambda text: text.count("\n") >= 2)
    first, second, *_ = seen.text.splitlines()
    assert {"plan", "queue", "templates", "agents"} == set(json.loads(first))
    assert json.loads(second)["plan"]["owner"] == "o"


@pytest.mark.parametrize("command", [("status", "--watch", "3600"), ("events", "--follow")])
async def test_a_reader_that_goes_away_ends_it_at_once(command):
    """Also while nothing is to be said: ``| head -1``."""
    async with page() as (_, url):
        async with running(*command, "--url", url) as seen:
            await seen.until(lambda text: "\n" in text)
            os.close(seen.handle)
            assert 0 == await seen.ended()


async def test_whoever_was_never_there_is_not_waited_for():
    """A wrong address is told as without --watch."""
    async with running("status", "--watch", "--url", "http://127.0.0.1:1") as seen:
        assert 1 == await seen.ended()


async def test_events_follow_what_happens():
    """What is known already, the oldest first, then what is new, each once."""
    source = status_source.full()
    async with page(source) as (_, url):
        async with running("events", "--follow", "--url", url) as seen:
            await seen.until(lambda text: text.count("\n") >= 3)
            old = seen.text
            (before,) = source.outcomes
            source.outcomes.append(type(before)(action=before.action, at=before.at + 3))
            await seen.until(lambda text: text.count("\n") >= 4)
            seen.process.send_signal(signal.SIGINT)
            assert 0 == await seen.ended()
    (new,) = seen.text.removeprefix(old).splitlines()
    assert "2026-05-28 20:26:39  launch  o-release-bbbbbb  some words (some words)" == new


def test_a_picture_is_never_higher_than_the_terminal(monkeypatch, capsys):
    """Of one line there is none but that one."""
    monkeypatch.setattr(watching, "_is_drawn_on", lambda: True)
    for rows in (1, 2, 5):
        monkeypatch.setenv("LINES", str(rows))
        monkeypatch.setenv("COLUMNS", "20")
        watching.Screen().show("a\nb\nc\nd", "head")
        assert capsys.readouterr().out.count("\n") <= max(rows - 1, 1)


# --- what is new in an output ---


@pytest.mark.parametrize(
    ("looks", "news"),
    [
        ([["a"], ["a", "b"]], [["a"], ["b"]]),
        ([["a", "b"], ["a", "b"]], [["a", "b"], []]),
        ([["a", "b", "c"], ["b", "c", "d"]], [["a", "b", "c"], ["d"]]),
        ([["a", "b"], ["x", "y"]], [["a", "b"], ["x", "y"]]),
        ([[], ["a"]], [[], ["a"]]),
        ([["a"], []], [["a"], []]),
        ([["x", "x"], ["x", "x", "x"]], [["x", "x"], ["x"]]),
    ],
)
def test_what_is_new_is_found_by_what_was_there(looks, news):
    """A window that slides over an output; what slid out of it is not said again."""
    tail = agents.Tail()
    assert news == [list(tail.news(lines)) for lines in looks]


def test_a_gap_is_noticed():
    """More was written than the window is wide."""
    tail = agents.Tail()
    tail.news(["a"])
    assert not tail.missed
    tail.news(["x", "y"])
    assert tail.missed


def test_a_password_of_the_page_is_not_repeated(capsys):
    """It may stand in the address of a page behind a proxy."""
    code = cli.main(["status", "--url", "http://u:hunter2@127.0.0.1:1"])

    assert code == cli.FAILED
    assert "hunter2" not in capsys.readouterr().err


async def test_an_output_that_is_closed_is_nobody_who_reads():
    """``agent-broker status >&-`` ends as if all had been written."""
    async with page() as (_, url):
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", 'exec "$0" -m broker "$@" >&-', sys.executable),
            *("status", "--url", url),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()

    assert (process.returncode, said) == (cli.OK, b"")
