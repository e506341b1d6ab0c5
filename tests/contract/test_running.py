"""The contract: a command inside an instance."""

import asyncio

import pytest

from backends import api, registry
from tests import patience
from tests.contract import checks
from tests.contract.harness import Harness, Program

SECRET = "b0cad1a5ecret0f64hexdigits0123456789abcdef0123456789abcdef012345"
OUTPUT_MAX = 4096
SHORT_S = 0.25


async def _started(harness: Harness, backend: api.Backend, **changes: object) -> None:
    await backend.launch(harness.spec("a1", **changes))
    await checks.running(backend, "a1", within_s=harness.within_s)


async def _ran(harness: Harness, backend: api.Backend, *argv: str) -> api.Ran:
    return await api.run(backend, "a1", argv, within_s=patience.seconds(harness.within_s))


async def _shell(harness: Harness, backend: api.Backend, script: str) -> api.Ran:
    return await _ran(harness, backend, "/bin/sh", "-c", script)


async def test_a_kind_that_runs_no_commands_says_so(harness: Harness, backend):
    """As the registry has it, so that a template that wants some is refused before it is used."""
    kind = registry.kind(harness.kind)
    if kind.runs:
        pytest.skip(f"{harness.kind} runs commands")
    await _started(harness, backend)
    with pytest.raises(api.Rejected):
        await api.run(backend, "a1", ("/bin/true",), within_s=1)
    assert kind.run_refusal


@pytest.mark.needs("run")
async def test_a_command_tells_its_status_and_what_it_wrote(harness: Harness, backend):
    """And the instance runs on."""
    await _started(harness, backend)
    command = harness.command(Program(lines=("one", "two"), exit_code=3))
    ran = await api.run(backend, "a1", command, within_s=patience.seconds(harness.within_s))
    assert api.Ran(code=3, output="one\ntwo") == ran
    command = harness.command(Program(exit_code=0))
    ran = await api.run(backend, "a1", command, within_s=patience.seconds(harness.within_s))
    assert api.Ran(code=0, output="") == ran
    await checks.running(backend, "a1", within_s=harness.within_s)


@pytest.mark.needs("run")
async def test_a_command_that_does_not_end_has_no_status(harness: Harness, backend):
    """It is given its time, and what it wrote is told."""
    await _started(harness, backend)
    command = harness.command(Program(lines=("begun",)))
    ran = await api.run(backend, "a1", command, within_s=patience.seconds(SHORT_S))
    assert api.Ran(code=None, output="begun") == ran
    await checks.running(backend, "a1", within_s=harness.within_s)


@pytest.mark.needs("run")
async def test_a_command_needs_an_instance_of_ours_that_runs(
    harness: Harness, backend, open_backend
):
    """Unknown, another owner's, dead: there is none."""
    await _started(harness, backend)
    await backend.launch(harness.spec("a2", Program(exit_code=0)))
    await checks.exited(backend, "a2", within_s=harness.within_s)
    command = harness.command(Program(exit_code=0))
    other = open_backend("theirs")
    for whose, name in ((backend, "a3"), (backend, "a2"), (other, "a1"), (backend, "../a1")):
        with pytest.raises(api.NotFound):
            await api.run(whose, name, command, within_s=patience.seconds(harness.within_s))


@pytest.mark.needs("run")
async def test_nothing_is_run_by_a_backend_that_is_closed(harness: Harness, open_backend):
    """As everything else."""
    backend = open_backend()
    await _started(harness, backend)
    await backend.aclose()
    with pytest.raises(api.Unavailable):
        await api.run(backend, "a1", harness.command(Program(exit_code=0)), within_s=1)


@pytest.mark.needs("run")
@pytest.mark.parametrize("argv", [(), ("",), ("a", "b\0c")])
async def test_what_is_no_command_is_rejected(harness: Harness, backend, argv):
    """Before anybody is asked."""
    with pytest.raises(api.Rejected):
        await api.run(backend, "a1", argv, within_s=1)


@pytest.mark.needs("run", "shell")
async def test_words_arrive_as_they_are(harness: Harness, backend):
    """Nothing is a shell's, or a placeholder."""
    await _started(harness, backend)
    odd = ("two words", "", "$HOME `x` \\", "'\"", "ä", "${work}")
    script = 'for word; do printf "<%s>\\n" "$word"; done'
    ran = await _ran(harness, backend, "/bin/sh", "-c", script, "sh", *odd)
    assert api.Ran(code=0, output="\n".join(f"<{word}>" for word in odd)) == ran


@pytest.mark.needs("run", "shell")
async def test_a_command_has_the_environment_of_the_agent_and_no_input(harness: Harness, backend):
    """A check looks at what the agent has."""
    await _started(harness, backend, env={"GREETING": "hello"})
    ran = await _shell(harness, backend, 'cat; echo "$GREETING"; echo error >&2')
    assert 0 == ran.code
    assert ["error", "hello"] == sorted(ran.output.splitlines())


@pytest.mark.needs("run", "shell")
async def test_of_much_output_the_end_is_kept(harness: Harness, backend):
    """Whatever it writes costs nobody anything."""
    await _started(harness, backend)
    script = 'i=0; while [ $i -lt 30000 ]; do echo "line $i"; i=$((i+1)); done; echo last'
    ran = await _shell(harness, backend, script)
    assert 0 == ran.code
    lines = ran.output.splitlines()
    assert ["line 29998", "line 29999", "last"] == lines[-3:]
    assert 100 < len(lines)
    assert OUTPUT_MAX >= len(ran.output.encode())


@pytest.mark.needs("run", "shell")
async def test_output_is_fit_to_be_shown(harness: Harness, backend):
    """No colours, no bytes that are no text."""
    await _started(harness, backend)
    ran = await _shell(harness, backend, "printf 'a\\033[31mb\\377\\n'")
    assert "\033" not in ran.output
    assert ran.output.startswith("a")


@pytest.mark.needs("run", "shell", "blank-secrets")
async def test_a_secret_that_a_command_prints_is_blanked_out(harness: Harness, backend):
    """It goes into pages and records."""
    env = {"PLACE": api.SECRETS}
    await _started(harness, backend, env=env, secret_files={"secret": SECRET})
    ran = await _shell(harness, backend, 'cat "$PLACE/secret"; echo; echo done')
    assert ran.output.endswith("done")
    assert SECRET not in ran.output
    assert SECRET[:32] not in ran.output


@pytest.mark.needs("run", "shell")
async def test_a_program_that_is_not_there_is_named(harness: Harness, backend):
    """Configuration, not a check that fails; what the environment holds is not told."""
    await _started(harness, backend, env={"GREETING": "hello-to-nobody"})
    with pytest.raises(api.Rejected, match="no-such-program") as caught:
        await _ran(harness, backend, "/no-such-program", "--all")
    assert "hello-to-nobody" not in str(caught.value)
    with pytest.raises(api.Rejected, match="no-such-program"):
        await _ran(harness, backend, "no-such-program")


@pytest.mark.needs("run", "shell")
async def test_the_end_by_a_signal_is_told(harness: Harness, backend):
    """As far as the platform does; shells and engines add 128."""
    await _started(harness, backend)
    ran = await _shell(harness, backend, "kill -9 $$")
    assert ran.code in {-9, 137}


@pytest.mark.needs("run", "shell")
async def test_a_command_out_of_time_is_ended(harness: Harness, backend):
    """With what it started; the instance's own program goes on."""
    env = {"PLACE": api.WORK}
    await _started(harness, backend, env=env)
    script = 'cd "$PLACE"; (while :; do echo x >> grows; sleep 0.1; done) & wait'
    ran = await api.run(
        backend, "a1", ("/bin/sh", "-c", script), within_s=patience.seconds(SHORT_S)
    )
    assert None is ran.code

    async def is_still() -> bool:
        sizes = []
        for _ in range(2):
            told = await _shell(harness, backend, 'cd "$PLACE" && wc -c < grows')
            sizes.append(int(told.output))
            await asyncio.sleep(0.5)
        return sizes[0] == sizes[1] > 0

    await checks.until("it has ended", is_still, within_s=harness.within_s)
    await checks.running(backend, "a1", within_s=harness.within_s)


@pytest.mark.needs("run", "shell")
async def test_several_commands_run_at_once(harness: Harness, backend):
    """Each tells its own."""
    await _started(harness, backend)
    scripts = [f"sleep 0.3; echo {number}; exit {number}" for number in range(4)]
    rans = await asyncio.gather(*(_shell(harness, backend, script) for script in scripts))
    assert [api.Ran(code=number, output=str(number)) for number in range(4)] == rans
