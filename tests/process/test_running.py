"""A command inside an instance: it has all that the agent has, and is ended with what it started."""

import asyncio
import json
import os
from collections.abc import Callable

import pytest

from backends import api
from tests import patience
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop, dead, lives


async def _ran(made: api.Backend, script: str, within_s: float | None = None) -> api.Ran:
    within_s = within_s or patience.seconds(WITHIN_S)
    return await api.run(made, "a1", ("/bin/sh", "-c", script), within_s=within_s)


async def _until(look: Callable[[], object]) -> None:
    async def is_so() -> object:
        return look()

    await checks.until("it has begun", is_so, within_s=WITHIN_S)


async def test_it_starts_where_the_agent_works_and_as_nice(shop: Workshop, made):
    """Its directory, its mask, its niceness."""
    await shop.started(made, "a1", "")
    ran = await _ran(made, "pwd -P; umask; nice")
    theirs = json.loads((shop.home("a1") / "plan.json").read_text())
    nice = min(19, os.nice(0) + theirs["nice"])
    assert [made.work_dir("a1"), "0022", str(nice)] == ran.output.splitlines()


async def test_it_enters_the_cgroup_of_the_agent(shop: Workshop, made, tmp_path):
    """So that its memory counts, and the end of the agent is its own."""
    await shop.started(made, "a1", "")
    plan = shop.home("a1") / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "cgroup": str(tmp_path)}))
    (tmp_path / "cgroup.procs").write_text("")
    assert api.Ran(code=0) == await _ran(made, "true")
    assert "0" == (tmp_path / "cgroup.procs").read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"env": {"A": 1}}', "{", '{"work": 3, "nice": 0}'])
async def test_a_plan_that_somebody_has_changed_is_told_as_that(shop: Workshop, made, content):
    """A build may write what it likes."""
    await shop.started(made, "a1", "")
    (shop.home("a1") / "plan.json").write_text(content)
    with pytest.raises(api.Unavailable, match=r"plan\.json"):
        await _ran(made, "true")


async def test_a_directory_that_is_gone_is_told(shop: Workshop, made):
    """In the system's words."""
    await shop.started(made, "a1", "")
    plan = shop.home("a1") / "plan.json"
    plan.write_text(json.dumps({**json.loads(plan.read_text()), "work": "/no/such/place"}))
    with pytest.raises(api.Unavailable, match="working directory: No such file"):
        await _ran(made, "true")


async def test_what_it_leaves_in_the_background_holds_nobody_up(shop: Workshop, made):
    """It lives until the instance ends, and may write for ever."""
    await shop.started(made, "a1", "")
    ran = await _ran(made, "yes & echo $! > pid; sleep 0.1; exit 4")
    assert 4 == ran.code
    pid = int((await _ran(made, "cat pid")).output)
    await made.terminate("a1", grace_s=0)
    assert not lives(pid)


async def test_out_of_time_its_children_end_too(shop: Workshop, made):
    """Also those with a session of their own."""
    await shop.started(made, "a1", "")
    script = "setsid sleep 86400 & echo $! > pid; while :; do sleep 0.1; done"
    ran = await _ran(made, script, within_s=patience.seconds(0.2))
    assert None is ran.code
    pid = int((await _ran(made, "cat pid")).output)
    await dead(pid)


async def test_a_cancelled_call_ends_its_command(shop: Workshop, made):
    """Nobody waits for it any more."""
    await shop.started(made, "a1", "")
    call = asyncio.ensure_future(_ran(made, "echo $$ > pid; exec sleep 86400"))
    file = shop.home("a1") / "work" / "pid"
    await _until(lambda: file.exists() and file.read_text().strip())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    pid = int(file.read_text())
    await dead(pid)


async def test_a_backend_that_closes_ends_its_commands(shop: Workshop, made):
    """And says that it is closed."""
    await shop.started(made, "a1", "")
    call = asyncio.ensure_future(_ran(made, "touch begun; exec sleep 86400"))
    file = shop.home("a1") / "work" / "begun"
    await _until(file.exists)
    await made.aclose()
    with pytest.raises(api.Unavailable):
        await call
