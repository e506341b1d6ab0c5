"""Commands in agents: by a WebSocket, up to real processes of this machine."""

import pathlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backends import api
from backends.kubernetes.exec import channels
from tests import patience
from tests.contract import checks
from tests.contract import kubernetes as contract
from tests.kubernetes import fake

WITHIN_S = 20.0


@pytest_asyncio.fixture
async def rig(tmp_path: pathlib.Path) -> AsyncIterator[contract.FakeHarness]:
    async with contract.open_harness(tmp_path, None) as opened:
        yield opened


@pytest_asyncio.fixture
async def made(rig: contract.FakeHarness) -> AsyncIterator[api.Backend]:
    backend = rig.backend()
    await backend.launch(rig.spec("a1"))
    await checks.running(backend, "a1", within_s=WITHIN_S)
    yield backend
    await backend.aclose()


def _cluster(rig: contract.FakeHarness) -> fake.Cluster:
    return rig._cluster


async def _ran(made: api.Backend, *argv: str, within_s: float = WITHIN_S) -> api.Ran:
    return await api.run(made, "a1", argv, within_s=patience.seconds(within_s))


async def test_its_status_output_and_words(rig, made):
    """Both streams, no input, every word as it is, and a mark in its environment."""
    odd = ("two words", "", "$HOME `x` \\", "'\"", "-n")
    script = 'cat; for word; do printf "<%s>\\n" "$word"; done; echo error >&2; exit 7'
    ran = await _ran(made, "/bin/sh", "-c", script, "sh", *odd)
    assert 7 == ran.code
    assert sorted([*(f"<{word}>" for word in odd), "error"]) == sorted(ran.output.splitlines())
    assert all("stdin" not in query for query in _cluster(rig).node.queries)
    marked = await _ran(made, "/bin/sh", "-c", "env")
    assert "AGENT_BROKER_COMMAND=" in marked.output


async def test_it_is_run_in_the_container_of_the_agent(rig, made):
    """Whatever that is called."""
    await _ran(made, "/bin/true")
    assert ["container=jnlp" in query for query in _cluster(rig).node.queries] == [True]


async def test_out_of_time_all_that_it_started_ends(rig, made):
    """Also those of a session of their own."""
    script = "setsid sleep 86421 & echo $!; (trap '' TERM; sleep 86421) & echo $!; wait"
    ran = await _ran(made, "/bin/sh", "-c", script, within_s=0.4)
    assert None is ran.code
    pids = ran.output.split()
    assert 2 == len(pids)

    async def dead() -> bool:
        return not any(_lives(pid) for pid in pids)

    await checks.until("they have ended", dead, within_s=WITHIN_S)


def _lives(pid: str) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_program_that_is_not_there_is_named(made):
    """By the shell that looks for it."""
    for program in ("no-such-program", "/no/such/program"):
        with pytest.raises(api.Rejected, match=program):
            await _ran(made, program, "x")
    assert 127 == (await _ran(made, "/bin/sh", "-c", "no-such-program")).code


async def test_without_a_connection_it_is_unavailable(rig, made):
    """Who asked may ask again."""
    _cluster(rig).node.protocols = ()
    _cluster(rig).node.allowed = False
    with pytest.raises(api.Unauthorized, match="pods/exec"):
        await _ran(made, "/bin/true")


@pytest.mark.parametrize("message", ["", "what nobody has heard of"])
async def test_what_the_kubelet_does_not_run(rig, made, monkeypatch, message):
    """In its words; another agent may well be able to."""
    monkeypatch.setattr(channels, "status", lambda _: channels.Status(message=message))
    with pytest.raises(api.Unavailable) as caught:
        await _ran(made, "/bin/true")
    assert api.Reach.LAUNCH is caught.value.reach


async def test_an_image_without_a_shell(rig, made, monkeypatch):
    """The command is run as it is."""
    node = _cluster(rig).node
    real = node._status

    async def bare(wire, pod, container, command):
        if command[0] == "/bin/sh":
            words = 'exec: "/bin/sh": stat /bin/sh: no such file or directory: unknown'
            told = {"status": "Failure", "message": words, "reason": "InternalError"}
            return {**told, "details": {"causes": [{"message": words}]}, "code": 500}
        return await real(wire, pod, container, command)

    monkeypatch.setattr(type(node), "_status", lambda _, *args: bare(*args))
    assert api.Ran(code=0, output="here") == await _ran(made, "/bin/echo", "here")
    with pytest.raises(api.Rejected, match="/bin/sh"):
        await _ran(made, "/bin/sh", "-c", "true")
    assert api.Ran(code=None) == await _ran(made, "/bin/sleep", "86422", within_s=0.3)


async def test_one_whose_container_has_just_died(rig, made):
    """Its pod's state does not say so yet."""
    _cluster(rig).node.gone.add("jnlp")
    with pytest.raises(api.NotFound):
        await _ran(made, "/bin/true")
