"""SIGHUP: the configuration is read beside the loop, in order, and never ends a broker."""

import asyncio
import logging
import os
import signal
import threading

import attrs

from broker import config, signals
from broker.config import kinds, loading
from tests import patience


@attrs.define
class Running:
    """What of a broker the signals touch."""

    put_in_force: list = attrs.Factory(list)

    def reload(self, settings):
        self.put_in_force.append(settings)

    def stop(self):
        raise AssertionError("nobody asked for it")


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

    with signals.obeyed(made, drain_s=None, load=load):
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

    with caplog.at_level(logging.ERROR), signals.obeyed(made, drain_s=None, load=load):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: caplog.records)

    assert [] == made.put_in_force
    assert "broker.yaml:3: wrong" == caplog.records[0].reason


async def test_a_reading_that_is_under_way_at_the_end_is_dropped():
    """An ending broker is not configured anew, and does not wait for a file."""
    made, may_end, begun = Running(), threading.Event(), threading.Event()

    def load():
        begun.set()
        may_end.wait(10)

    with signals.obeyed(made, drain_s=None, load=load):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(begun.is_set)
    may_end.set()
    await asyncio.sleep(0.1)

    assert [] == made.put_in_force


async def test_a_pipe_in_the_place_of_the_configuration_swallows_no_later_signal(tmp_path, caplog):
    """It is refused at once; what a later SIGHUP finds is in force."""
    made, path = Running(), tmp_path / "broker.yaml"
    os.mkfifo(path)
    with signals.obeyed(
        made, drain_s=None, load=lambda: loading.load(path, kinds.classes(), environ={})
    ):
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

    with signals.obeyed(made, drain_s=None, load=load):
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: caplog.records)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: made.put_in_force)
    assert ["configuration not reloaded"] == [r.getMessage() for r in caplog.records]
