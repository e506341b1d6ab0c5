"""The contract: an instance from launch to its end."""

import asyncio
import time

import attrs
import pytest

from backends import api
from backends.kit import names
from outside import text
from tests import patience
from tests.contract import checks
from tests.contract.conftest import skip_where_lacking
from tests.contract.harness import Harness, Program
from tests.each import each

ODD = {
    "empty": "",
    "longest-label": "x" * 63,
    "long": "0123456789" * 40,
    "unicode": "Grüße, 世界 \N{PARTY POPPER}",
    "lines": "one\ntwo\r\n\ttab ",
    "edges": " -._ ",
    "quotes": '"it\'s" \\ ${work} {{x}} $HOME %s',
    "looks-encoded": "x--_41x",
    names.CREATED: "1700000000.123456",
}


async def test_a_launched_instance_is_listed_and_comes_to_run(harness: Harness, backend):
    """It is in the next listing, whatever its state, and RUNNING before the deadline."""
    before = time.time()
    await backend.launch(harness.spec("a1"))
    first = await checks.listed(backend)
    assert ["a1"] == list(first)
    assert first["a1"].state in {api.InstanceState.STARTING, api.InstanceState.RUNNING}
    instance = await checks.running(backend, "a1", within_s=harness.within_s)
    assert instance.created_at is not None
    assert before - 2 <= instance.created_at <= time.time() + 2
    assert ["a1"] == list(await harness.running())


async def test_launching_twice_makes_one_instance(harness: Harness, backend):
    """The same specification again is no error and no second instance, also at the same time."""
    await asyncio.gather(*(backend.launch(harness.spec("a1")) for _ in range(4)))
    await backend.launch(harness.spec("a1"))
    await checks.running(backend, "a1", within_s=harness.within_s)
    await backend.launch(harness.spec("a1"))
    assert ["a1"] == list(await checks.listed(backend))
    assert ["a1"] == list(await harness.running())


async def test_the_secret_does_not_tell_specifications_apart(harness: Harness, backend):
    """A controller may give another secret after a restart: still the same instance."""
    await backend.launch(harness.spec("a1", secret_files={"secret": "first-secret"}))
    await backend.launch(harness.spec("a1", secret_files={"secret": "other-secret"}))
    assert ["a1"] == list(await checks.listed(backend))


@pytest.mark.needs("place")
async def test_an_instance_says_where_it_runs(harness: Harness, backend):
    """Once it runs its place has a name, fit to be shown, in every listing."""
    await backend.launch(harness.spec("a1"))
    instance = await checks.running(backend, "a1", within_s=harness.within_s)
    assert instance.place
    assert instance.place == text.clean(instance.place)
    assert (await checks.listed(backend))["a1"].place == instance.place


async def test_what_it_is_to_avoid_does_not_tell_specifications_apart(harness: Harness, backend):
    """Places come and go between two tries of one launch: still the same instance."""
    await backend.launch(harness.spec("a1"))
    await backend.launch(harness.spec("a1", avoid=("somewhere-else",)))
    assert ["a1"] == list(await checks.listed(backend))


@pytest.mark.parametrize("field", ["metadata", "env", "argv"])
async def test_another_specification_under_the_same_name(harness: Harness, backend, field):
    """It is refused with AlreadyExists; the first instance is untouched."""
    spec = harness.spec("a1")
    other = {
        "metadata": {**spec.metadata, names.REVISION: "2"},
        "env": {"OTHER": "1"},
        "argv": (*spec.argv, "other"),
    }[field]
    await backend.launch(spec)
    first = await checks.running(backend, "a1", within_s=harness.within_s)
    with pytest.raises(api.AlreadyExists):
        await backend.launch(attrs.evolve(spec, **{field: other}))
    assert {"a1": first} == await checks.listed(backend)


async def test_metadata_comes_back_byte_for_byte(harness: Harness, backend):
    """Long, empty, foreign and misleading values; also while it starts and after it ended."""
    spec = harness.spec("a1", Program(exit_code=0))
    metadata = {**spec.metadata, **ODD}
    await backend.launch(attrs.evolve(spec, metadata=metadata))
    assert metadata == dict((await checks.listed(backend))["a1"].metadata)
    ended = await checks.exited(backend, "a1", within_s=harness.within_s)
    assert metadata == dict(ended.metadata)


async def test_an_ended_instance_tells_how_and_keeps_its_last_words(harness: Harness, backend):
    """Exit status, slug, time and output stay until it is terminated."""
    lines = tuple(f"line {number} ä" for number in range(20))
    before = time.time()
    await backend.launch(harness.spec("a1", Program(lines=lines, exit_code=7)))
    instance = await checks.exited(backend, "a1", within_s=harness.within_s)
    assert ("exited", 7) == (instance.exit.slug, instance.exit.code)
    assert instance.exit.at is None or before - 2 <= instance.exit.at <= time.time() + 2
    assert list(lines[-3:]) == (await backend.logs("a1", tail=3)).splitlines()
    assert list(lines) == (await backend.logs("a1", tail=1000)).splitlines()
    assert "" == await backend.logs("a1", tail=0)
    await backend.terminate("a1", grace_s=0)
    assert {} == await checks.listed(backend)
    with pytest.raises(api.NotFound):
        await backend.logs("a1", tail=3)
    assert [] == list(await harness.remains())


async def test_an_instance_that_succeeded_is_listed_until_it_is_terminated(harness, backend):
    """Exit status 0 is an end like any other; nothing removes or restarts it."""
    await backend.launch(harness.spec("a1", Program(exit_code=0)))
    instance = await checks.exited(backend, "a1", within_s=harness.within_s)
    assert ("exited", 0) == (instance.exit.slug, instance.exit.code)
    await backend.launch(harness.spec("a1", Program(exit_code=0)))
    assert {"a1": instance} == await checks.listed(backend), "ended, not started again"


async def test_the_output_of_a_running_instance(harness: Harness, backend):
    """Logs can be read while it runs."""
    await backend.launch(harness.spec("a1", Program(lines=("hello", "world"))))

    async def said() -> bool:
        return ["hello", "world"] == (await backend.logs("a1", tail=10)).splitlines()

    await checks.running(backend, "a1", within_s=harness.within_s)
    await checks.until("both lines are in the logs", said, within_s=harness.within_s)
    assert "world" == (await backend.logs("a1", tail=1)).strip()


@pytest.mark.needs("outside-kill")
async def test_an_instance_killed_from_outside(harness: Harness, backend):
    """It is listed as ended, not as gone, and not as a success."""
    await backend.launch(harness.spec("a1"))
    await checks.running(backend, "a1", within_s=harness.within_s)
    await harness.kill("a1")
    instance = await checks.exited(backend, "a1", within_s=harness.within_s)
    assert instance.exit.slug in {"killed", "out-of-memory", "platform-lost"}
    assert instance.exit.code != 0


@pytest.mark.parametrize("flaw", ["bad-command", "bad-image"])
async def test_what_cannot_run_is_told_with_the_platforms_words(harness: Harness, backend, flaw):
    """Rejected at once; or, before the deadline, EXITED or STARTING with the words in it."""
    skip_where_lacking(harness, flaw)
    spec = harness.broken(flaw, "a1")
    wanted = spec.argv[0] if flaw == "bad-command" else spec.image
    refusal = None
    try:
        await backend.launch(spec)
    except api.Rejected as error:
        refusal = error
    if refusal is not None:
        assert wanted in refusal.reason
        assert {} == await checks.listed(backend)
        assert [] == list(await harness.remains())
        return

    async def words() -> str:
        instance = (await checks.listed(backend))["a1"]
        assert instance.state is not api.InstanceState.RUNNING or flaw == "bad-command"
        if instance.exit is not None:
            assert instance.exit.slug in {"command", "image"}
            return instance.exit.message
        return instance.detail if wanted in instance.detail else ""

    text = await checks.until("it says why", words, within_s=harness.within_s)
    assert wanted in text
    await backend.terminate("a1", grace_s=0)
    assert [] == list(await harness.remains())


# --- the end ---


async def test_terminate_removes_everything(harness: Harness, backend):
    """Nothing is listed, nothing runs, nothing lies about."""
    spec = harness.spec("a1", Program(lines=("x",)), secret_files={"secret": "s3cret-word"})
    await backend.launch(spec)
    await checks.running(backend, "a1", within_s=harness.within_s)
    await backend.terminate("a1", grace_s=5)
    assert {} == await checks.listed(backend)
    assert [] == list(await harness.running())
    assert [] == list(await harness.remains())


@pytest.mark.needs("shell")
async def test_terminate_ends_the_children_too(harness: Harness, backend):
    """Sessions of their own, daemons and those that ignore SIGTERM included."""
    daemons = (
        "(trap '' TERM; exec sleep 86401) &\n"
        "setsid sh -c 'trap \"\" TERM HUP; sleep 86402 & sleep 86403' &\n"
        "(setsid sleep 86404 &) &\n"
        "printf 'started\\n'"
    )
    await backend.launch(harness.spec("a1", Program(commands=daemons)))

    async def started() -> bool:
        return "started" in await backend.logs("a1", tail=5)

    await checks.until("the children run", started, within_s=harness.within_s)
    await backend.terminate("a1", grace_s=0.2)
    assert [] == list(await harness.remains())


@pytest.mark.needs("shell")
async def test_terminate_gives_the_grace_and_not_more(harness: Harness, backend):
    """A program that ends itself on SIGTERM does so; one that ignores it is killed."""
    polite = "trap 'printf bye; exit 0' TERM; printf 'ready\\n'"
    deaf = "trap '' TERM; printf 'ready\\n'; while :; do sleep 1; done"
    await backend.launch(harness.spec("polite", Program(commands=polite)))
    await backend.launch(harness.spec("deaf", Program(commands=deaf)))

    async def ready() -> bool:
        told = [await backend.logs(name, tail=5) for name in ("polite", "deaf")]
        return all("ready" in text for text in told)

    await checks.until("both are ready", ready, within_s=harness.within_s)
    start, patient = time.monotonic(), patience.Patience(harness.within_s)
    await backend.terminate("polite", grace_s=300)
    await backend.terminate("deaf", grace_s=0.5)
    assert time.monotonic() - start >= 0.5
    assert not patient.is_over()
    assert [] == list(await harness.remains())


async def test_terminating_twice(harness: Harness, backend):
    """The second time there is nothing: NotFound; at the same time, either is right."""
    await backend.launch(harness.spec("a1"))
    await backend.terminate("a1", grace_s=0)
    with pytest.raises(api.NotFound):
        await backend.terminate("a1", grace_s=0)
    await backend.launch(harness.spec("a2"))
    ends = await asyncio.gather(
        *(backend.terminate("a2", grace_s=0) for _ in range(4)), return_exceptions=True
    )
    assert None in ends
    assert all(end is None or isinstance(end, api.NotFound) for end in ends), ends
    assert {} == await checks.listed(backend)


@each("name", ["never-was", "..", "a/b", "../ours", "", "x" * 300])
async def test_an_unknown_name_is_not_found(harness: Harness, backend, name):
    """Whatever the name is; and nothing is touched by asking."""
    await backend.launch(harness.spec("a1"))
    with pytest.raises(api.NotFound):
        await backend.terminate(name, grace_s=0)
    with pytest.raises(api.NotFound):
        await backend.logs(name, tail=3)
    assert ["a1"] == list(await checks.listed(backend))


@pytest.mark.needs("reused-name")
async def test_a_name_can_be_used_again(harness: Harness, backend):
    """After terminate the name is free for another specification."""
    await backend.launch(harness.spec("a1"))
    await backend.terminate("a1", grace_s=0)
    spec = harness.spec("a1", Program(lines=("second",)), metadata={names.OWNER: "ours", "n": "2"})
    await backend.launch(spec)
    instance = await checks.running(backend, "a1", within_s=harness.within_s)
    assert "2" == instance.metadata["n"]


# --- room first ---


def blank(spec):
    """Return what is known of a specification before the controller has given a secret."""
    return attrs.evolve(spec, secret_files=dict.fromkeys(spec.secret_files, ""))


def with_secret(harness: Harness, name: str = "a1"):
    return harness.spec(name, secret_files={"secret": "s3cret-word"})


async def test_a_reservation_starts_nothing_and_terminate_undoes_it(harness: Harness, backend):
    """Made twice it is one; nothing is left of it, and the name is still free."""
    spec = with_secret(harness)
    await backend.reserve(blank(spec))
    await backend.reserve(blank(spec))
    assert set(await checks.listed(backend)) <= {"a1"}
    assert [] == list(await harness.running())
    try:
        await backend.terminate("a1", grace_s=0)
    except api.NotFound:
        assert {} == await checks.listed(backend)
    assert [] == list(await harness.remains())
    await backend.launch(harness.spec("a2"))
    assert ["a2"] == list(await checks.listed(backend))


async def test_a_launch_starts_what_was_reserved(harness: Harness, backend):
    """One instance, which runs; to reserve it again changes nothing."""
    spec = with_secret(harness)
    await backend.reserve(blank(spec))
    await backend.launch(spec)
    await backend.reserve(blank(spec))
    await checks.running(backend, "a1", within_s=harness.within_s)
    assert ["a1"] == list(await checks.listed(backend))
    assert ["a1"] == list(await harness.running())
    await backend.terminate("a1", grace_s=0)
    assert [] == list(await harness.remains())


async def test_what_was_reserved_in_an_earlier_life_is_launched(harness: Harness, open_backend):
    """Another broker of the owner, or this one after a restart, starts the very same."""
    spec = with_secret(harness)
    before = open_backend()
    await before.reserve(blank(spec))
    await before.aclose()
    other = open_backend()
    await other.launch(spec)
    await checks.running(other, "a1", within_s=harness.within_s)
    assert ["a1"] == list(await harness.running())
    await other.terminate("a1", grace_s=0)
    assert [] == list(await harness.remains())


async def test_a_full_platform_refuses_the_reservation(harness: Harness, backend):
    """Where it can be full at all: before anybody has made a node for it."""
    skip_where_lacking(harness, "launch no-capacity")
    await backend.launch(harness.spec("a0"))
    async with harness.provoke("launch", "no-capacity"):
        spec = with_secret(harness)
        try:
            await backend.reserve(blank(spec))
        except api.NoCapacity:
            return
        with pytest.raises(api.NoCapacity):  # it tells only when it is asked to start one
            await backend.launch(spec)
