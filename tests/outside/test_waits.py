"""Limits and groups of tasks are alike on every Python; each of these fails on some with asyncio's."""

# ruff: noqa: PT012 -- what is raised comes out of a block

import ast
import asyncio
import pathlib

import pytest

from outside import waits
from tests import patience

ROOT = pathlib.Path(__file__).parents[2]


async def late_failure():
    """Leave a group while its task fails: the parent waits for nothing but that."""
    async with waits.TaskGroup() as group:
        group.create_task(fail())


async def fail():
    await asyncio.sleep(0)
    raise LookupError("it fails")


async def for_ever(seconds=0.01):
    async with waits.timeout(seconds):
        await asyncio.Event().wait()


async def test_a_failed_group_leaves_nothing_behind():
    """Else whatever sets a limit later in the same task, a library too, ends as cancelled."""
    with pytest.raises(ExceptionGroup):
        await late_failure()
    assert 0 == asyncio.current_task().cancelling()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()


async def test_a_group_that_fails_while_its_body_runs_leaves_nothing_behind():
    """Here the standard library is right; we must not take back twice."""
    with pytest.raises(ExceptionGroup):
        async with waits.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()
    assert 0 == asyncio.current_task().cancelling()


async def test_a_group_in_a_group_leaves_nothing_behind():
    """Each takes back its own."""
    with pytest.raises(ExceptionGroup):
        async with waits.TaskGroup() as group:
            group.create_task(late_failure())
            with pytest.raises(ExceptionGroup):
                await late_failure()
    assert 0 == asyncio.current_task().cancelling()


async def test_a_limit_in_the_clean_up_of_a_cancelled_task_is_a_timeout():
    """What waits there with a limit goes on to its own end."""
    steps = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            with pytest.raises(TimeoutError):
                await for_ever()
            steps.append("cleaned up")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ["cleaned up"] == steps


async def test_a_limit_within_a_limit():
    """The inner one is reached first, the outer one holds on."""
    with pytest.raises(TimeoutError):
        async with waits.timeout(0.05):
            with pytest.raises(TimeoutError):
                await for_ever()
            await asyncio.Event().wait()
    assert 0 == asyncio.current_task().cancelling()


async def test_a_limit_that_is_set_later():
    """None is no limit until there is one."""
    with pytest.raises(TimeoutError):
        async with waits.timeout(None) as limit:
            limit.reschedule(asyncio.get_running_loop().time())
            await asyncio.Event().wait()
    assert limit.expired()


@pytest.mark.parametrize("step", range(8))
async def test_who_is_cancelled_stays_cancelled(step):
    """Also when a limit is reached or a task of a group fails in the same moment."""

    async def work():
        try:
            async with waits.timeout(0):
                await late_failure()
        except (TimeoutError, ExceptionGroup):
            await asyncio.sleep(10)

    task = asyncio.create_task(work())
    for _ in range(step):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=patience.seconds(5))
    assert done
    assert task.cancelled()


def test_a_group_of_one_kind_is_its_first_error():
    """So that who waits for it meets it by its class."""
    group = ExceptionGroup("", [ExceptionGroup("", [KeyError("one")]), ValueError("two")])
    with pytest.raises(KeyError, match="one"), waits.Ungrouped(LookupError, ValueError):
        raise group
    with pytest.raises(ExceptionGroup), waits.Ungrouped(LookupError):
        raise group
    with pytest.raises(KeyError), waits.Ungrouped(ValueError):
        raise KeyError


def test_nothing_is_raised_in_an_except_with_a_star():
    """Before 3.11.4 it would come out in a group."""
    trees = [
        ast.parse(path.read_bytes())
        for package in ("backends", "broker", "jnlp", "outside")
        for path in (ROOT / package).rglob("*.py")
    ]
    starred = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.TryStar)]
    handlers = [handler for node in starred for handler in node.handlers]
    assert handlers
    found = [n for h in handlers for n in ast.walk(h) if isinstance(n, ast.Raise)]
    assert [] == [ast.unparse(node) for node in found]
