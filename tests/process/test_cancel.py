"""Calls that overtake each other, held up at a chosen step of their work in a thread."""

import asyncio
import contextlib
import threading

import pytest

from backends import api
from backends.process import launching, storage
from tests import patience
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop


class Gate:
    """Holds a blocking function up until it is opened."""

    def __init__(self, monkeypatch, place: object, name: str) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        really = getattr(place, name)

        def held(*arguments: object, **named: object) -> object:
            self.reached.set()
            assert self._open.wait(patience.seconds(WITHIN_S))
            return really(*arguments, **named)

        monkeypatch.setattr(place, name, held)

    async def cancelled_at(self, made: api.Backend, spec: api.InstanceSpec) -> None:
        """Launch, and cancel the launch when it is held up here."""
        launch = asyncio.ensure_future(made.launch(spec))
        assert await asyncio.to_thread(self.reached.wait, patience.seconds(WITHIN_S))
        launch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await launch
        assert launch.cancelled()

    def open(self) -> None:
        self._open.set()


async def test_a_cancelled_launch_that_can_turn_back_does(shop: Workshop, made, monkeypatch):
    """It is listed while it works, then it is gone without a trace."""
    gate = Gate(monkeypatch, launching, "fill")
    await gate.cancelled_at(made, shop.spec("a1"))
    seen = await checks.listed(made)
    assert {"a1": api.InstanceState.STARTING} == {n: i.state for n, i in seen.items()}
    gate.open()

    async def gone() -> bool:
        return not await checks.listed(made)

    await checks.until("it turned back", gone, within_s=WITHIN_S)
    assert [] == list(await shop.harness.remains())


async def test_terminate_waits_for_a_cancelled_launch(shop: Workshop, made, monkeypatch):
    """What cannot turn back any more is finished, then ended: NotFound means that nothing comes."""
    gate = Gate(monkeypatch, storage.Storage, "publish")
    await gate.cancelled_at(made, shop.spec("a1"))
    end = asyncio.ensure_future(made.terminate("a1", grace_s=0))
    await asyncio.wait([end], timeout=0.1)
    assert not end.done()
    assert ["a1"] == list(await checks.listed(made))
    gate.open()
    await patience.wait_for(end, WITHIN_S)
    assert {} == await checks.listed(made)
    assert [] == list(await shop.harness.remains())


async def test_closing_waits_for_a_launch_under_way(shop: Workshop, made, monkeypatch):
    """A broker that leaves finishes what it began; the next one finds it."""
    gate = Gate(monkeypatch, storage.Storage, "publish")
    launch = asyncio.ensure_future(made.launch(shop.spec("a1")))
    assert await asyncio.to_thread(gate.reached.wait, patience.seconds(WITHIN_S))
    closing = asyncio.ensure_future(made.aclose())
    await asyncio.wait([closing], timeout=0.1)
    assert not closing.done()
    gate.open()
    await patience.wait_for(closing, WITHIN_S)
    await launch
    await checks.running(shop.open(), "a1", within_s=WITHIN_S)
    with pytest.raises(api.Unavailable):
        await made.list()


async def test_a_slow_terminate_leaves_the_successor_alone(shop: Workshop, made, monkeypatch):
    """Another broker was faster, and the name has been used again since."""
    await shop.started(made, "a1", "")
    gate = Gate(monkeypatch, storage.Storage, "end_now")
    slow = asyncio.ensure_future(made.terminate("a1", grace_s=0))
    assert await asyncio.to_thread(gate.reached.wait, patience.seconds(WITHIN_S))
    monkeypatch.undo()  # only this one is held up
    other = shop.open()
    await other.terminate("a1", grace_s=0)
    await shop.started(other, "a1", "")
    before = await checks.listed(other)
    gate.open()
    with pytest.raises(api.NotFound):
        await patience.wait_for(slow, WITHIN_S)
    assert before == await checks.listed(other)
    assert ["a1"] == list(await shop.harness.running())


async def test_a_start_of_what_was_removed_meanwhile(shop: Workshop, made, monkeypatch):
    """Another broker ended it between its making and its start: no empty shell is left."""
    gate = Gate(monkeypatch, made, "_start")
    launch = asyncio.ensure_future(made.launch(shop.spec("a1")))
    assert await asyncio.to_thread(gate.reached.wait, patience.seconds(WITHIN_S))
    await shop.open().terminate("a1", grace_s=0)
    gate.open()
    with pytest.raises(api.Unavailable):
        await patience.wait_for(launch, WITHIN_S)
    assert {} == await checks.listed(made)
    assert [] == list(await shop.harness.remains())
