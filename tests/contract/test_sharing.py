"""The contract: several brokers, restarts, foreign things, and calls that are cut off."""

import asyncio
import contextlib

import pytest

from backends import api
from backends.kit import names
from tests.contract import checks
from tests.contract.harness import Harness, Program


async def test_a_restarted_broker_adopts_what_runs(harness: Harness, open_backend):
    """Another object of the same owner sees the same, and may do everything with it."""
    first = open_backend()
    spec = harness.spec("a1", Program(lines=("before",)))
    await first.launch(spec)
    seen = await checks.running(first, "a1", within_s=harness.within_s)
    await first.aclose()
    second = open_backend()
    assert {"a1": seen} == await checks.listed(second)
    await second.launch(spec)
    assert {"a1": seen} == await checks.listed(second)
    assert ["a1"] == list(await harness.running())

    async def said() -> bool:
        return ["before"] == (await second.logs("a1", tail=3)).splitlines()

    await checks.until("its words can be read", said, within_s=harness.within_s)
    await second.terminate("a1", grace_s=0)
    assert [] == list(await harness.remains())


async def test_what_ended_while_no_broker_ran_is_told(harness: Harness, open_backend):
    """The exit status waits for the next broker."""
    first = open_backend()
    await first.launch(harness.spec("a1", Program(exit_code=9)))
    await first.aclose()
    second = open_backend()
    ended = await checks.exited(second, "a1", within_s=harness.within_s)
    assert ("exited", 9) == (ended.exit.slug, ended.exit.code)


@pytest.mark.needs("two-brokers")
async def test_two_brokers_of_one_owner_make_one_instance(harness: Harness, open_backend):
    """An old broker that still runs while the new one starts: by name there is one instance."""
    first, second = open_backend(), open_backend()
    spec = harness.spec("a1")
    await asyncio.gather(*(backend.launch(spec) for backend in (first, second) * 3))
    await checks.running(first, "a1", within_s=harness.within_s)
    assert await checks.listed(first) == await checks.listed(second)
    assert ["a1"] == list(await harness.running())


async def test_owners_do_not_see_each_other(harness: Harness, open_backend):
    """Each lists its own; what is another's cannot be terminated or read."""
    ours, theirs = open_backend("ours"), open_backend("ours-2")
    await ours.launch(harness.spec("a1"))
    await theirs.launch(harness.spec("b1", metadata={names.OWNER: "ours-2"}))
    await checks.running(ours, "a1", within_s=harness.within_s)
    await checks.running(theirs, "b1", within_s=harness.within_s)
    assert ["a1"] == list(await checks.listed(ours))
    assert ["b1"] == list(await checks.listed(theirs))
    with pytest.raises(api.NotFound):
        await ours.terminate("b1", grace_s=0)
    with pytest.raises(api.NotFound):
        await ours.logs("b1", tail=1)
    assert ["a1", "b1"] == sorted(await harness.running())


@pytest.mark.needs("odd-owner")
async def test_an_owner_may_have_any_name(harness: Harness, open_backend):
    """Owners that differ in case, signs or length only are different owners."""
    owners = ["Team Ünit/1", "team ünit/1", "team-unit-1", "../x", "o" * 100, "o" * 101]
    backends = {owner: open_backend(owner) for owner in owners}
    for number, (owner, backend) in enumerate(backends.items()):
        await backend.launch(harness.spec(f"a{number}", metadata={names.OWNER: owner}))
    for number, backend in enumerate(backends.values()):
        assert [f"a{number}"] == list(await checks.listed(backend))


async def test_foreign_things_are_invisible_and_untouched(harness: Harness, backend):
    """What has no owner mark is not listed, not read, not terminated, and survives our work."""
    await harness.plant("stranger")
    await backend.launch(harness.spec("a1"))
    assert ["a1"] == list(await checks.listed(backend))
    with pytest.raises(api.NotFound):
        await backend.terminate("stranger", grace_s=0)
    with pytest.raises(api.NotFound):
        await backend.logs("stranger", tail=1)
    await backend.terminate("a1", grace_s=0)
    assert {} == await checks.listed(backend)
    assert await harness.intact("stranger")


async def test_a_foreign_name_is_never_taken_over(harness: Harness, backend):
    """Where names are shared: AlreadyExists. Else both live side by side. Nothing is harmed."""
    await harness.plant("stranger")
    with contextlib.suppress(api.AlreadyExists):
        await backend.launch(harness.spec("stranger"))
        await checks.running(backend, "stranger", within_s=harness.within_s)
        await backend.terminate("stranger", grace_s=0)
    assert await harness.intact("stranger")
    assert {} == await checks.listed(backend)


@pytest.mark.parametrize(
    "after",
    [
        0,
        2,
        5,
        13,
        0.03,
        *(pytest.param(one, marks=pytest.mark.soak) for one in (1, 3, 8, 0.01, 0.06)),
    ],
)
async def test_a_cancelled_launch_leaves_at_most_one_listed_instance(
    harness: Harness, backend, after
):
    """Wherever it is cut off: what came to run is listed, and launching again gives one."""
    task = asyncio.ensure_future(backend.launch(harness.spec("a1")))
    if isinstance(after, int):  # turns of the loop
        for _ in range(after):
            await asyncio.sleep(0)
    else:  # seconds
        await asyncio.sleep(after)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    for _ in range(5):
        seen = set(await harness.running())
        assert seen <= set(await checks.listed(backend))
    await backend.launch(harness.spec("a1"))
    await checks.running(backend, "a1", within_s=harness.within_s)
    assert ["a1"] == list(await checks.listed(backend))
    assert ["a1"] == list(await harness.running())
    await backend.terminate("a1", grace_s=0)
    assert [] == list(await harness.remains())


async def test_terminate_right_after_launch(harness: Harness, backend):
    """An instance that is still starting can be terminated, and stays away."""
    launch = asyncio.ensure_future(backend.launch(harness.spec("a1")))
    await asyncio.sleep(0)
    with contextlib.suppress(api.NotFound):
        await backend.terminate("a1", grace_s=0)
    with contextlib.suppress(api.BackendError):
        await launch
    if await checks.listed(backend):
        await backend.terminate("a1", grace_s=0)
    assert {} == await checks.listed(backend)
    assert [] == list(await harness.remains())


async def _end(harness: Harness, backend, name):
    """Terminate as the broker does: whom a slow platform has not ended yet is told again."""

    async def is_told() -> bool:
        try:
            await backend.terminate(name, grace_s=2)
        except api.Unavailable:
            return False
        except api.NotFound:
            pass
        return True

    await checks.until(f"{name} ends", is_told, within_s=2 * harness.within_s)


async def test_many_launches_at_once(harness: Harness, backend):
    """All come to run, each once; all can be terminated at once, and nothing is left."""
    wanted = [f"a{number}" for number in range(harness.burst)]
    await asyncio.gather(*(backend.launch(harness.spec(name)) for name in wanted))

    async def all_run() -> bool:
        found = await checks.listed(backend)
        return all(i.state is api.InstanceState.RUNNING for i in found.values())

    await checks.until("all run", all_run, within_s=2 * harness.within_s)
    assert sorted(wanted) == sorted(await checks.listed(backend))
    assert sorted(wanted) == sorted(await harness.running())
    await asyncio.gather(*(_end(harness, backend, name) for name in wanted))
    assert {} == await checks.listed(backend)
    assert [] == list(await harness.remains())
