"""Commands in containers: what engines say of them, and the end of one that does not end."""

import asyncio
import contextlib
import threading

import pytest

from backends import api
from backends.docker import settings
from backends.docker.containers import commands
from backends.docker.engine import answers, client
from backends.kit import running
from tests import echo, patience
from tests.contract import checks
from tests.docker import scripted_engine
from tests.docker.conftest import Rig, backend_on, cleaned

WITHIN_S = 30.0


async def _ran(rig: Rig, *argv: str, within_s: float = 10.0) -> api.Ran:
    return await api.run(rig.backend, "a1", argv, within_s=patience.seconds(within_s))


async def _processes(rig: Rig, word: str) -> list[str]:
    table = await rig.sdk("top", rig.container("a1"))
    return [row[-1] for row in table["Processes"] if row[-1].endswith(f"sleep {word}")]


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (
            126,
            'OCI runtime exec failed: exec failed: exec: "/nope": stat /nope: no such file: unknown',
        ),  # 20.10
        (
            127,
            'exec failed: exec: "nope": executable file not found in $PATH: unknown',
        ),  # 28
        (127, "crun: executable file `nope` not found in $PATH: No such file or directory"),
    ],
)
def test_a_program_that_is_not_there(code, output):
    """An engine says it in the output, with the statuses of a shell."""
    assert answers.is_no_program(code, output)
    assert not answers.is_no_program(1, output)
    assert not answers.is_no_program(code, "sh: nope: not found")


@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (409, "Container 1af7 is not running", api.NotFound),
        (409, "Container xx is paused, unpause the container before exec", api.NotFound),
        (404, "No such container: xx", api.NotFound),
        (400, 'exec: "nope": executable file not found in $PATH', api.Rejected),
        (403, "authorization denied by plugin", api.Unauthorized),
        (500, "what nobody has heard of", api.Unavailable),
    ],
)
def test_what_a_refusal_means(status, words, kind):
    """The first three and the fifth are of 20.10."""
    assert kind is type(answers.refused_exec(status, words))


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"Running": False, "ExitCode": 3}, 3),
        ({"Running": True, "ExitCode": None}, None),
        ({"Running": False, "ExitCode": None}, None),
        ({"Running": False, "ExitCode": "3"}, None),
        ({}, None),
    ],
)
def test_what_is_read_of_its_end(told, status):
    """What is no number is none."""
    assert status == answers.exec_status(told)


class _Blocked(client.Engine):
    """One whose commands all are out of time, when they are told so."""

    def __init__(self) -> None:
        super().__init__(settings.Host(url="unix:///nowhere"), settings.DockerSettings())
        self.out_of_time = threading.Semaphore(0)
        self.begun: list[str] = []
        self.killed: list[str] = []

    def run(self, container_id, argv, *, mark, within_s):
        if argv[0] == running.ENDING[0]:
            self.killed.append(container_id)
            return 0, running.LastOutput()
        self.begun.append(container_id)
        self.out_of_time.acquire()
        return None, running.LastOutput()


async def test_who_is_out_of_time_is_ended_though_many_others_wait_for_their_turn():
    """The kill stands in no queue behind commands that are as slow."""
    engine = _Blocked()
    at_once = client.Lane.RUN.value
    calls = [
        asyncio.ensure_future(commands.run(engine, f"c{number}", ("true",), within_s=1.0, hide=()))
        for number in range(3 * at_once)
    ]

    async def begun(number: int) -> bool:
        return len(engine.begun) == number

    try:
        await checks.until("as many as may run", lambda: begun(at_once), within_s=WITHIN_S)
        engine.out_of_time.release()
        await checks.until("the next one runs", lambda: begun(at_once + 1), within_s=WITHIN_S)
        done, _ = await asyncio.wait(calls, timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        assert [None] == [(await call).code for call in done]
        calls[-1].cancel()  # it has not begun: there is nothing to be killed
        with pytest.raises(asyncio.CancelledError):
            await calls[-1]
        assert len(engine.killed) == 1
        assert engine.killed[0] in engine.begun
    finally:
        engine.out_of_time.release(len(calls))
        await asyncio.gather(*calls, return_exceptions=True)


async def test_out_of_time_all_that_it_started_ends(rig):
    """Sessions of their own, and those deaf to signals; not the agent, nor another command."""
    await rig.backend.launch(rig.spec("a1", "sleep 86401 &"))
    await rig.running("a1")
    other = asyncio.ensure_future(_ran(rig, "sleep", "86402", within_s=WITHIN_S))
    script = "setsid sleep 86403 & (trap '' TERM HUP; sleep 86403) & echo begun; wait"
    ran = await _ran(rig, "/bin/sh", "-c", script, within_s=0.5)
    assert api.Ran(code=None, output="begun") == ran
    assert [] == await _processes(rig, "86403")
    assert ["sleep 86401"] == await _processes(rig, "86401")
    assert ["sleep 86402"] == await _processes(rig, "86402")
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other

    async def gone() -> bool:
        return not await _processes(rig, "86402")

    await checks.until("who was cancelled is ended", gone, within_s=WITHIN_S)


RAW = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"


async def test_output_that_is_cut_is_no_end_of_the_command(monkeypatch):
    """Of a stream without a length nobody can tell: what the engine says of the command counts."""
    monkeypatch.setattr(client, "_EXEC_ENDS_S", 0.0)
    asked = []

    def told(_, sock) -> None:
        asked.append(1)
        runs = len(asked) < 4
        sock.sendall(echo.reply({"Running": runs, "ExitCode": None if runs else 3}))

    with scripted_engine.engine() as engine:
        engine.answer("POST", "/containers/c1/exec", {"Id": "e" * 64})
        engine.answer("POST", "/start", RAW + b"\x01\0\0\0\0\0\0\x02a\n")
        engine.answer("GET", "/json", told)
        one = client.Engine(settings.Host(url=engine.url), settings.DockerSettings())
        try:
            ran = await commands.run(one, "c1", ("look",), within_s=WITHIN_S, hide=())
        finally:
            one.close()
    assert api.Ran(code=3, output="a") == ran


async def test_what_may_run_on_is_ended_before_it_is_begun_once_more():
    """The engine went away amid it: whoever asks again begins another one."""
    with scripted_engine.engine() as engine:
        engine.answer("POST", "/containers/c1/exec", {"Id": "e" * 64})
        engine.answer("POST", "/start", RAW + b"\x01\0\0\0\0\0\0\x02a\n")
        engine.answer("GET", "/exec/" + "e" * 64 + "/json", b"HTTP/1.1 500 Oh\r\n\r\n")
        one = client.Engine(settings.Host(url=engine.url), settings.DockerSettings())
        try:
            with pytest.raises(api.Unavailable):
                await commands.run(one, "c1", ("look",), within_s=WITHIN_S, hide=())
        finally:
            one.close()
        begun = [r for r in engine.requests if r.target.endswith("/containers/c1/exec")]
    assert len(begun) == 2
    assert running.MARK.encode() in begun[1].body


async def test_without_a_shell_it_is_told_and_lives_on(rig):
    """Nothing ends it there but the end of the container."""
    await rig.backend.launch(rig.spec("a1", "rm /bin/sh", user="0"))
    await rig.running("a1")

    async def bare() -> bool:
        with contextlib.suppress(api.Rejected):
            await _ran(rig, "/bin/sh", "-c", "exit 0")
            return False
        return True

    await checks.until("the shell is gone", bare, within_s=WITHIN_S)
    assert api.Ran(code=None) == await _ran(rig, "/bin/sleep", "86404", within_s=0.5)
    assert ["/bin/sleep 86404"] == await _processes(rig, "86404")


async def test_a_paused_container_runs_nothing(rig):
    """As one that does not run."""
    await rig.backend.launch(rig.spec("a1"))
    await rig.running("a1")
    await rig.sdk("pause", rig.container("a1"))
    with pytest.raises(api.NotFound, match="paused"):
        await _ran(rig, "/bin/true")


async def test_of_several_engines_the_one_that_has_it_runs_it(engine_url):
    """The others are asked whether they have it, and no more."""
    with scripted_engine.engine() as empty:
        empty.answer("GET", "/containers/json", [])
        hosts = (settings.Host(url=empty.url), settings.Host(url=engine_url))
        rig = Rig(engine_url, backend_on(*hosts))
        alone = Rig(engine_url, backend_on(), prefix=rig.prefix)
        async with cleaned(rig), cleaned(alone):
            await alone.backend.launch(alone.spec("a1"))
            await alone.running("a1")
            ran = await _ran(rig, "/bin/sh", "-c", "echo here; exit 5")
            assert api.Ran(code=5, output="here") == ran
        assert [] == [one.target for one in empty.requests if "exec" in one.target]
