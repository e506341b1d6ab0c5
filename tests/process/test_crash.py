"""kill -9 of the broker at every step of a launch and of a terminate, then another broker."""

import asyncio
import contextlib
import json
import os
import pathlib
import random
import signal
import sys
from collections.abc import AsyncIterator

import attrs
import pytest
import pytest_asyncio

from backends import api
from tests import patience
from tests.contract import checks
from tests.contract.process import ProcessHarness
from tests.process.conftest import WITHIN_S, Workshop
from tests.process.test_fetch import serving

_STEPS_MAX = 200


class Brokers:
    """Brokers that are killed; see ``crashing.py``."""

    def __init__(self, process: asyncio.subprocess.Process, folder: pathlib.Path) -> None:
        self._process, self._folder = process, folder
        self._count = 0

    async def run(self, verb: str, **when: float) -> tuple[str, Workshop]:
        """Let one work in a directory of its own; say what came of it, and where it worked."""
        self._count += 1
        shop = Workshop(self._folder / str(self._count))
        spec = shop.spec("a1")
        told = {"name": spec.name, "metadata": spec.metadata, "argv": spec.argv}
        told["secret_files"] = {"secret": "0123456789abcdef"}
        order = {"verb": verb, "root": str(shop.root), "spec": told, **when}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with patience.limit(WITHIN_S):
            told = (await self._process.stdout.readline()).decode().strip()
        assert told == "killed" or told.isdecimal(), told
        return told, shop


@pytest_asyncio.fixture
async def brokers(tmp_path: pathlib.Path) -> AsyncIterator[Brokers]:
    """Give the killed brokers; what they left is ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.process.crashing",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[2],
    )  # fmt: skip
    try:
        yield Brokers(process, tmp_path)
    finally:
        process.stdin.close()
        await process.wait()
        await _end_all(tmp_path)


async def _end_all(folder: pathlib.Path) -> None:
    """End what a failed test left."""
    for pid, _, _ in ProcessHarness(folder)._processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _consistent(shop: Workshop, *, again: bool) -> None:
    """Check what another broker makes of it, with or without the same launch again."""
    made = shop.open()
    try:
        if again:
            spec = shop.spec("a1", secret_files={"secret": "0123456789abcdef"})
            await made.launch(spec)
            await checks.running(made, "a1", within_s=WITHIN_S)
            assert ["a1"] == list(await shop.harness.running())
        found = await checks.listed(made)
        assert set(await shop.harness.running()) <= set(found)
        assert set(found) <= {"a1"}
        for name in found:
            await made.terminate(name, grace_s=0)

        async def clean() -> bool:
            await made.list()
            return not await shop.harness.remains()

        await checks.until("nothing is left", clean, within_s=WITHIN_S)
    finally:
        await made.aclose()


@pytest.mark.parametrize(
    "again", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["give-up", "launch-again"]
)
async def test_killed_at_every_step_of_a_launch(brokers: Brokers, again):
    """Whatever was done: at most one instance, listed; and all of it can be removed."""
    for step in range(1, _STEPS_MAX):
        told, shop = await brokers.run("launch", step=step)
        await _consistent(shop, again=again)
        if told != "killed":
            break
    assert 12 <= step == int(told) + 1, "every step was tried, the launch succeeded after the last"


async def test_killed_at_every_step_of_a_terminate(brokers: Brokers):
    """The instance is listed until it is gone; nothing of it stays."""
    for step in range(1, _STEPS_MAX):
        told, shop = await brokers.run("terminate", step=step)
        await _consistent(shop, again=False)
        if told != "killed":
            break
    assert 4 <= step == int(told) + 1


async def test_killed_at_any_moment_of_a_launch(brokers: Brokers):
    """Between the steps as well, while the supervisor starts."""
    seed = random.randrange(1 << 30)
    rolls = random.Random(seed)
    for number in range(20):
        _, shop = await brokers.run("launch", after_s=rolls.uniform(0.001, 0.06))
        try:
            await _consistent(shop, again=bool(number % 2))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, round {number}: {error}") from error


async def test_a_launch_that_nobody_finishes_is_called_lost(brokers: Brokers):
    """Published, never started: it is starting for a while, then lost, and no one can start it."""
    for step in range(1, _STEPS_MAX):
        told, shop = await brokers.run("launch", step=step)
        assert "killed" == told, "no step left it published and not started"
        made = shop.open(start_timeout_s=0.5)
        found = await checks.listed(made)
        if not found or await shop.harness.running():
            await _consistent(shop, again=False)
            await made.aclose()
            continue
        ended = await checks.exited(made, "a1", within_s=WITHIN_S)
        assert "the broker ended before it could start the program" == ended.exit.message
        await made.launch(shop.spec("a1"))
        assert {"a1": ended} == await checks.listed(made), "what is lost stays lost"
        await _consistent(shop, again=False)
        await made.aclose()
        return


async def test_a_crashed_download_is_swept(shop: Workshop):
    """A file that was half fetched when the broker was killed does not stay for ever."""
    cache = shop.root / "cache"
    cache.mkdir(parents=True)
    (cache / "new.abandoned").write_bytes(b"x" * 1000)
    made = shop.open()
    async with serving() as server:
        file = api.RemoteFile(url=server.url, name="agent.jar")
        spec = shop.spec("a1", 'cat "$1/agent.jar"', exit_code=0, files=(file,))
        await made.launch(attrs.evolve(spec, argv=(*spec.argv, api.FILES)))
    assert [] == list(cache.glob("new.*"))
    await shop.ended(made, "a1")
    assert "jar one" == await made.logs("a1", tail=1)
