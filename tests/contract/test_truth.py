"""The contract: errors of the closed tree, wake-ups, secrets, places, and the end of a backend."""

import asyncio
import contextlib
import logging

import pytest

from backends import api, registry
from tests import patience
from tests.contract import checks
from tests.contract.conftest import skip_where_lacking
from tests.contract.harness import Harness, Program
from tests.each import each

SECRET = "b0cad1a5ecret0f64hexdigits0123456789abcdef0123456789abcdef012345"
ERRORS = {cls.slug: cls for cls in (api.NoCapacity, api.Unauthorized, api.Unavailable)}
FAULTS = [
    ("launch", "no-capacity"),
    *((verb, slug) for verb in ("launch", "list", "terminate", "logs", "run")
      for slug in ("unauthorized", "unavailable")),
    ("list-part", "unavailable"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "slug"), FAULTS)
async def test_what_the_platform_refuses_is_mapped(harness: Harness, backend, verb, slug):
    """Exactly the error of the tree, in words for people; all is well when the platform is.

    A listing that fails, or of which a part fails, is never an answer.
    """
    skip_where_lacking(harness, f"{verb} {slug}")
    await backend.launch(harness.spec("a1", Program(lines=("here",))))
    await checks.running(backend, "a1", within_s=harness.within_s)
    spec = harness.spec("a2", secret_files={"secret": SECRET})
    command = harness.command(Program(exit_code=0)) if verb == "run" else ()
    calls = {
        "launch": lambda: backend.launch(spec),
        "list": backend.list,
        "list-part": backend.list,
        "terminate": lambda: backend.terminate("a1", grace_s=0),
        "logs": lambda: backend.logs("a1", tail=1),
        "run": lambda: api.run(backend, "a1", command, within_s=harness.within_s),
    }
    async with harness.provoke(verb, slug):
        with pytest.raises(api.BackendError) as caught:
            await calls[verb]()
    assert ERRORS[slug] is caught.type, caught.value
    assert 0 < len(caught.value.reason) <= 256
    assert SECRET not in str(caught.value)
    await asyncio.sleep(caught.value.retry_after or 0)  # as it was asked for
    assert "a1" in await checks.listed(backend)
    await backend.launch(spec)
    assert {"a1", "a2"} == set(await checks.listed(backend))
    for name in ("a1", "a2"):
        await backend.terminate(name, grace_s=0)
    assert [] == list(await harness.remains())


@each("name", ["", "..", ".hidden", "a/b", "-a", "a b", "ä", "a" * 64, "a\n"])
async def test_an_unsafe_name_is_rejected(harness: Harness, backend, name):
    """Before anything happens on the platform."""
    with pytest.raises(api.Rejected):
        await backend.launch(harness.spec(name))
    assert {} == await checks.listed(backend)
    assert [] == list(await harness.remains())


@pytest.mark.needs("any-name")
async def test_every_safe_name_is_taken_as_it_is(harness: Harness, backend):
    """Shortest, longest, every sign; upper and lower case are different names."""
    wanted = ["a", "A", "0", "z" * 63, "A_b.C--9", "con"]
    for name in wanted:
        await backend.launch(harness.spec(name))
    assert sorted(wanted) == sorted(await checks.listed(backend))
    await backend.terminate("A", grace_s=0)
    assert "a" in await checks.listed(backend)


@pytest.mark.needs("watch", "outside-kill")
async def test_the_watch_wakes_when_an_instance_ends(harness: Harness, backend):
    """Within the deadline, and the listing after it tells the end; the watch may end instead."""
    await backend.launch(harness.spec("a1"))
    await checks.running(backend, "a1", within_s=harness.within_s)
    async with contextlib.aclosing(backend.watch()) as watch:
        wake = asyncio.ensure_future(anext(watch, "ended"))
        with contextlib.suppress(TimeoutError):  # let it begin, and have its say on the launch
            while True:
                await asyncio.wait_for(asyncio.shield(wake), 0.4)
                assert wake.result() != "ended"
                wake = asyncio.ensure_future(anext(watch, "ended"))
        await harness.kill("a1")
        await patience.wait_for(wake, harness.within_s)
        await checks.exited(backend, "a1", within_s=harness.within_s)


async def test_closing_ends_a_watch(harness: Harness, backend):
    """Nobody waits for ever on a backend that was closed."""
    async with contextlib.aclosing(backend.watch()) as watch:
        wake = asyncio.ensure_future(anext(watch, "ended"))
        await asyncio.sleep(0.05)
        await backend.aclose()
        assert "ended" == await patience.wait_for(wake, harness.within_s)


async def test_a_secret_is_seen_by_its_program_only(harness: Harness, backend, caplog):
    """Not in any representation, listing, log record, command line or environment."""
    caplog.set_level(logging.DEBUG)
    spec = harness.spec("a1", Program(lines=("hello",)), secret_files={"secret": SECRET})
    assert SECRET not in repr(spec)
    await backend.launch(spec)
    instance = await checks.running(backend, "a1", within_s=harness.within_s)
    assert SECRET not in repr(instance)
    assert SECRET not in repr(backend)
    assert SECRET not in await backend.logs("a1", tail=100)
    if "exposure" not in harness.lacks:
        assert SECRET not in await harness.exposed("a1")
    await backend.terminate("a1", grace_s=0)
    assert SECRET not in caplog.text
    assert SECRET not in "".join(repr(vars(record)) for record in caplog.records)


@pytest.mark.needs("blank-secrets", "shell")
async def test_a_secret_that_a_program_prints_is_blanked_out(harness: Harness, backend):
    """Agents print their arguments when they fail; the logs go into pages and records."""
    program = Program(commands="cat \"$1/secret\"; printf '\\ndone\\n'", arguments=(api.SECRETS,))
    await backend.launch(harness.spec("a1", program, secret_files={"secret": SECRET}))

    async def done() -> str:
        text = await backend.logs("a1", tail=10)
        return text if "done" in text else ""

    text = await checks.until("it has printed", done, within_s=harness.within_s)
    assert SECRET not in text
    assert SECRET[:32] not in text


@pytest.mark.needs("shell")
async def test_the_program_gets_its_words_and_places(harness: Harness, backend):
    """Arguments and environment arrive byte for byte; the placeholders are paths that exist."""
    odd = ("two words", "", "$HOME `x` \\", "'\"", "ä\nö")
    commands = (
        'for word; do printf "<%s>\\n" "$word"; done; printf "<%s>\\n" "$ODD" "$PLACE"\n'
        'cd "$PLACE" && touch here && printf "secret:%s\\n" "$(cat "$1/secret" | wc -c)"'
    )
    program = Program(commands=commands, arguments=(api.SECRETS, *odd), exit_code=0)
    env = {"ODD": odd[-1], "PLACE": f"{api.WORK}"}
    spec = harness.spec("a1", program, env=env, secret_files={"secret": SECRET})
    await backend.launch(spec)
    await checks.exited(backend, "a1", within_s=harness.within_s)
    told = await backend.logs("a1", tail=100)
    assert "".join(f"<{word}>\n" for word in (*odd, odd[-1])) in told
    assert f"secret:{len(SECRET)}" == told.splitlines()[-1].replace(" ", "")
    assert "${" not in told


@pytest.mark.needs("shell")
async def test_files_of_ours_are_there_before_the_program_begins(harness: Harness, backend):
    """All of them, where the kind brings them; they are gone with the instance."""
    files = {"binary": bytes(range(256)) * 1024, "word": b"of-ours"}
    kind = registry.kind(harness.kind)
    brings = not kind.given_refusal or kind.given_needs  # which every harness has
    if not brings and sum(map(len, files.values())) > kind.given_most_bytes:
        pytest.skip(f"{harness.kind} brings no files of ours")
    commands = 'cat "$1/binary" | wc -c; cat "$PLACE"; printf "\\n%s\\n" "$PLACE"'
    program = Program(commands=commands, arguments=(api.FILES,), exit_code=0)
    env = {"PLACE": f"{api.FILES}/word"}
    await backend.launch(harness.spec("a1", program, env=env, given_files=files))
    await checks.exited(backend, "a1", within_s=harness.within_s)
    size, word, place = (await backend.logs("a1", tail=100)).split()
    assert (str(256 * 1024), "of-ours") == (size, word)
    assert place.endswith("/word")
    assert "${" not in place
    await backend.terminate("a1", grace_s=0)
    assert [] == list(await harness.remains())


@pytest.mark.needs("shell")
async def test_the_work_directory_is_known_before_the_launch(harness: Harness, backend):
    """What the controller is told is where the program finds WORK."""
    told = backend.work_dir("a1")
    if told is None:
        pytest.skip(f"{harness.kind}: the image decides the work directory")
    program = Program(commands='printf "%s\\n" "$1"', arguments=(api.WORK,), exit_code=0)
    await backend.launch(harness.spec("a1", program))
    await checks.exited(backend, "a1", within_s=harness.within_s)
    assert told == (await backend.logs("a1", tail=1)).strip()
    assert told.startswith("/")
    assert told != backend.work_dir("a2")


async def test_capacity_is_a_number_or_unknown(harness: Harness, backend):
    """It never grows by a launch and is no promise; where it is unknown it is None."""
    before = await backend.capacity()
    await backend.launch(harness.spec("a1"))
    after = await backend.capacity()
    assert (before is None) == (after is None)
    if before is not None and before.free_instances is not None:
        assert 0 <= after.free_instances < before.free_instances
        assert before.text


async def test_closing_is_repeatable_and_leaves_instances_alone(harness: Harness, open_backend):
    """Every call after it is a plain Unavailable; the instances run on."""
    backend = open_backend()
    await backend.launch(harness.spec("a1"))
    await checks.running(backend, "a1", within_s=harness.within_s)
    await asyncio.gather(backend.aclose(), backend.aclose())
    await backend.aclose()
    for call in (
        backend.launch(harness.spec("a1")),
        backend.launch(harness.spec("a2")),
        backend.list(),
        backend.terminate("a1", grace_s=0),
        backend.logs("a1", tail=1),
        backend.capacity(),
    ):
        with pytest.raises(api.Unavailable):
            await call
    assert [] == [_ async for _ in backend.watch()]
    assert backend.work_dir("a1") == open_backend().work_dir("a1")
    assert ["a1"] == list(await harness.running())
    assert "a1" in await checks.listed(open_backend())


async def test_a_backend_is_of_a_known_kind(harness: Harness, backend):
    """Its kind is the one that the registry knows it by."""
    from backends import registry

    assert harness.kind == backend.kind
    assert registry.kind(backend.kind)
