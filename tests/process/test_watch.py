"""Waking up when an instance ends, with and without the kernel's help."""

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
from collections.abc import Iterator

import pytest

from backends.process import kernel, proc
from tests import patience
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop


@pytest.fixture(params=["pidfd", "no-pidfd"])
def kernel_kind(request, monkeypatch) -> str:
    """Give a kernel that has pidfds, and one that has not."""
    if request.param == "no-pidfd":

        def refuse(_: int) -> int:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(os, "pidfd_open", refuse)
    return request.param


async def _wake(watch) -> asyncio.Task:
    """Begin to wait for a wake-up, past the ones that the launches caused."""
    while True:
        wake = asyncio.ensure_future(anext(watch))
        done, _ = await asyncio.wait([wake], timeout=0.4)
        if not done:
            return wake


async def test_a_wake_up_comes_at_once(shop: Workshop, made, kernel_kind):
    """Within a second of the end, for every instance that was there or came later."""
    await shop.started(made, "a1", "")
    async with contextlib.aclosing(made.watch()) as watch:
        wake = await _wake(watch)
        await shop.started(made, "a2", "")  # later than the watch
        for name in ("a2", "a1"):
            os.kill(shop.claim(name)["agent"], signal.SIGKILL)
            at_once = patience.Patience(1.0)
            await patience.wait_for(wake, WITHIN_S)
            assert not at_once.is_over()
            assert "exited" == {i.name: i for i in await made.list()}[name].state.value
            wake = await _wake(watch)
        wake.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await wake


async def test_two_watches_both_wake(shop: Workshop, made, kernel_kind):
    """A wake-up is nobody's property."""
    await shop.started(made, "a1", "")
    async with (
        contextlib.aclosing(made.watch()) as one,
        contextlib.aclosing(made.watch()) as two,
    ):
        wakes = [await _wake(one), await _wake(two)]
        os.kill(shop.claim("a1")["agent"], signal.SIGKILL)
        await patience.wait_for(asyncio.gather(*wakes), WITHIN_S)


async def test_terminate_without_pidfds(shop: Workshop, made, kernel_kind):
    """The signals go the old way; nothing is left."""
    await shop.started(made, "a1", "")
    await patience.wait_for(made.terminate("a1", grace_s=5), WITHIN_S)
    assert [] == list(await shop.harness.remains())


async def test_a_watch_holds_no_descriptor_of_the_dead(shop: Workshop, made):
    """Hundreds of instances come and go: open files stay as they were."""
    async with contextlib.aclosing(made.watch()) as watch:
        wake = asyncio.ensure_future(anext(watch))
        counts = []
        for number in range(4):
            await made.launch(shop.spec(f"a{number}"))
            await made.terminate(f"a{number}", grace_s=0)
            counts.append(len(os.listdir("/proc/self/fd")))
        assert 1 == len(set(counts[1:])), counts
        wake.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await wake


def test_a_process_is_known_by_more_than_its_pid():
    """Another start time or another boot is another process; nobody is signalled for it."""
    me = proc.Process(
        pid=os.getpid(), start=kernel.stat_fields(os.getpid())[19], boot=kernel.boot_id()
    )
    assert proc.alive(me)
    for other in (
        proc.Process(pid=me.pid, start="1", boot=me.boot),
        proc.Process(pid=me.pid, start=me.start, boot="x"),
    ):
        assert not proc.alive(other)
        proc.send(other, signal.SIGKILL)  # would end this test


@pytest.fixture
def process_one() -> Iterator[None]:
    """Let orphans become our children, as they do for process 1 of a container."""
    kernel.adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER off


async def test_as_process_one_of_a_container(shop: Workshop, made, process_one):
    """Supervisors are inherited: the ended ones do not stay as zombies."""
    for name in ("a1", "a2"):
        await shop.started(made, name, "")
    supervisors = [shop.claim(name)["pid"] for name in ("a1", "a2")]
    assert set(supervisors) <= set(kernel.descendants(os.getpid()))
    os.kill(shop.claim("a1")["agent"], signal.SIGKILL)
    await shop.ended(made, "a1")
    await made.terminate("a2", grace_s=0)

    async def collected() -> bool:
        return not set(supervisors) & set(kernel.descendants(os.getpid()))

    await checks.until("both are collected", collected, within_s=WITHIN_S)
