"""SIGHUP: the configuration is read beside the loop, in order, and never ends a broker."""

import asyncio
import contextlib
import logging
import os
import signal
import threading

import attrs
import pytest

from broker import config, reloading, signals
from broker.config import kinds, loading
from tests import patience


@attrs.define
class Running:
    """What of a broker the signals and a reading touch."""

    settings: config.Settings = attrs.Factory(lambda: parsed("watch_files: off"))
    put_in_force: list = attrs.Factory(list)
    refused: list = attrs.Factory(list)

    def reload(self, settings):
        self.put_in_force.append(settings)

    def refuse(self, reason):
        self.refused.append(reason)

    def stop(self):
        raise AssertionError("nobody asked for it")


def parsed(more, digest=""):
    text = (
        f"owner: o\ncontroller: {{url: 'https://c/'}}\ntemplates: {{t: {{labels: l}}}}\n{more}\n"
    )
    return attrs.evolve(loading.parse(text, kinds.classes(), environ={}), digest=digest)


@contextlib.contextmanager
def obeyed(made, load, look=lambda: "", drain_s=None):
    """A broker that obeys signals, and reads when it is told to."""
    reloader = reloading.Reloader(broker=made, load=load, look=look)
    with reloader.at_work(), signals.obeyed(made, drain_s=drain_s, again=reloader.again):
        yield reloader


async def until(fits, within_s=10.0):
    patient = patience.Patience(within_s)
    while not fits():
        assert not patient.is_over()
        await asyncio.sleep(0.01)


async def test_the_loop_goes_on_while_the_configuration_is_read():
    """A slow file stops nothing; what was asked for last is in force at the end."""
    made, may_end, begun = Running(), threading.Event(), []

    def load():
        begun.append(len(begun))
        mine = begun[-1]
        assert may_end.wait(10)
        return mine

    with obeyed(made, load):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: begun)
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
        assert ([0], []) == (begun, made.put_in_force), "one after the other, and we still run"
        may_end.set()
        await until(lambda: len(made.put_in_force) == 2)

    assert [0, 1] == made.put_in_force


async def test_a_configuration_that_cannot_be_used_is_said(caplog):
    """What was in force stays."""
    made = Running()

    def load():
        raise config.ConfigError(("broker.yaml:3: wrong",))

    with caplog.at_level(logging.ERROR), obeyed(made, load):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: caplog.records)

    assert [] == made.put_in_force
    assert "broker.yaml:3: wrong" == caplog.records[0].reason
    assert ["broker.yaml:3: wrong"] == made.refused


async def test_a_reading_that_is_under_way_at_the_end_is_dropped():
    """An ending broker is not configured anew, and does not wait for a file."""
    made, may_end, begun = Running(), threading.Event(), threading.Event()

    def load():
        begun.set()
        may_end.wait(10)

    with obeyed(made, load):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(begun.is_set)
    may_end.set()
    await asyncio.sleep(0.1)

    assert [] == made.put_in_force


async def test_a_pipe_in_the_place_of_the_configuration_swallows_no_later_signal(tmp_path, caplog):
    """It is refused at once; what a later SIGHUP finds is in force."""
    made, path = Running(), tmp_path / "broker.yaml"
    os.mkfifo(path)
    with obeyed(made, lambda: loading.load(path, kinds.classes(), environ={})):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: caplog.records, within_s=60)
        assert "not a regular file" in caplog.records[0].reason
        path.unlink()
        path.write_text("owner: o\ncontroller: {url: 'https://c/'}\ntemplates: {t: {labels: l}}\n")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: made.put_in_force, within_s=60)


async def test_a_mistake_of_ours_in_reading_is_said_and_no_more(caplog):
    """Later signals are obeyed all the same."""
    made, told = Running(), [KeyError("ours"), "good"]

    def load():
        found = told.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    with obeyed(made, load):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: caplog.records)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: made.put_in_force)
    assert ["configuration not reloaded"] == [r.getMessage() for r in caplog.records]
    (words,) = made.refused
    assert "KeyError" in words
    assert "ours" not in words


# --- watching the files ---


@attrs.define
class Files:
    """Files that a test changes; how often they were looked at."""

    text: str = "first"
    looks: int = 0

    def look(self):
        self.looks += 1
        return self.text

    async def seen(self, times=3):
        """Wait until they have been looked at so often from now on."""
        enough = self.looks + times
        await until(lambda: self.looks >= enough)


@pytest.fixture
def quick(monkeypatch):
    """Settings cannot ask for less than a second; a test can."""
    monkeypatch.setattr(reloading, "_AGAIN_S", 0.01)
    return attrs.evolve(parsed(""), watch_files_s=0.01, digest="first")


async def test_a_change_of_the_files_is_read_once(quick):
    """When they look the same twice; what is as it was read is not read again."""
    files, made = Files(), Running(settings=quick)
    with obeyed(made, lambda: files.text, files.look):
        await files.seen()
        assert [] == made.put_in_force
        files.text = "second"
        await until(lambda: made.put_in_force)
        await files.seen()
    assert ["second"] == made.put_in_force


async def test_files_that_change_all_the_time_are_not_read(quick):
    """Somebody is writing still."""
    files, made = Files(), Running(settings=quick)

    def look():
        files.look()
        return str(files.looks)

    with obeyed(made, lambda: files.text, look):
        await files.seen(10)
    assert [] == made.put_in_force


async def test_a_bad_change_is_refused_once_and_a_good_one_is_in_force(quick, caplog):
    """The same bad text is not told again and again."""
    files, made = Files(), Running(settings=quick)

    def load():
        if files.text == "bad":
            raise config.ConfigError(("broker.yaml:1: bad",))
        return files.text

    with obeyed(made, load, files.look):
        files.text = "bad"
        await until(lambda: made.refused)
        await files.seen()
        assert ["broker.yaml:1: bad"] == made.refused
        files.text = "good"
        await until(lambda: made.put_in_force)
    assert ["good"] == made.put_in_force


async def test_nothing_is_watched_that_nobody_asked_for(quick):
    """A reading that asks for it begins it."""
    files, made = Files(), Running(settings=attrs.evolve(quick, watch_files_s=None))
    with obeyed(made, lambda: files.text, files.look) as reloader:
        await asyncio.sleep(0.05)
        assert 0 == files.looks
        made.settings = quick
        reloader.again()
        await files.seen()
    assert ["first"] == made.put_in_force
