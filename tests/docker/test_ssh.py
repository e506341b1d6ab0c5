"""An engine by ssh, through a real server on loopback, and what goes wrong on the way."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest
import pytest_asyncio

from backends import api
from backends.docker import settings
from backends.docker.engine import ssh
from tests import patience, programs
from tests.docker import engines
from tests.docker.conftest import Rig, backend_on, cleaned

WITHIN_S = 30.0


@pytest.mark.parametrize(
    ("url", "user", "port", "there"),
    [
        ("ssh://build-1", (), (), ()),
        ("ssh://build-1/", (), (), ()),
        ("ssh://ci@build-1:2222", ("-l", "ci"), ("-p", "2222"), ()),
        ("ssh://build-1/run/user/1/d.sock", (), (), ("--host=unix:///run/user/1/d.sock",)),
    ],
)
def test_what_is_run(url: str, user: object, port: object, there: object) -> None:
    """As Docker's own client runs it; whatever is in the address is no option."""
    words = ssh.command(url)
    before, _, after = ("\0".join(words)).partition("\0--\0")
    assert before.split("\0")[: 1 + len(user) + len(port)] == ["ssh", *user, *port]
    assert "-oBatchMode=yes" in words
    assert after.split("\0") == ["build-1", "docker", *there, "system", "dial-stdio"]


@attrs.frozen
class Server:
    """A real sshd before a real engine, and the folder that holds an ``ssh`` with its key."""

    port: int
    folder: pathlib.Path
    engine: str

    def url(self, **changes: object) -> str:
        told = {"user": "root", "host": "127.0.0.1", "port": self.port, "path": "", **changes}
        return "ssh://{user}@{host}:{port}{path}".format(**told)


def children(name: str) -> list[int]:
    """Return the processes of that name that this one has started, those not waited for too."""
    found = []
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread, or a process, may end meanwhile
            for pid in (task / "children").read_text().split():
                if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    found.append(int(pid))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, engine_url: str) -> Iterator[Server]:
    if os.geteuid() != 0:
        pytest.skip("only root can start an sshd of one's own")
    for name in ("sshd", "ssh", "docker"):
        if shutil.which(name) is None:
            engines.absent(programs.want({"sshd": "sshd", "docker": "dockerd"}.get(name, "sshd")))
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "key", "stranger"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = (folder / "host.pub").read_text()
    (folder / "known").write_text(f"[127.0.0.1]:{port} {known}")
    shutil.copy(folder / "key.pub", folder / "authorized")
    path = os.environ["PATH"]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nMaxStartups 50\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv DOCKER_HOST={engine_url} PATH={path}\n"
    )
    real = shutil.which("ssh")
    (folder / "bin").mkdir()
    program = folder / "bin/ssh"
    program.write_text(
        f'#!/bin/sh\nexec {real} -F none -i "${{TEST_KEY:-{folder}/key}}" -oIdentitiesOnly=yes '
        f'-oUserKnownHostsFile={folder}/known "$@"\n'
    )
    program.chmod(0o755)
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)
    sshd = subprocess.Popen(
        [shutil.which("sshd"), "-D", "-f", folder / "sshd_config", "-E", folder / "log"]
    )
    try:
        patient = patience.Patience(WITHIN_S)
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert sshd.poll() is None
            assert not patient.is_over()
            time.sleep(0.05)
        yield Server(port, folder, engine_url)
    finally:
        sshd.terminate()
        sshd.wait()


@pytest.fixture(autouse=True)
def _with_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:{os.environ['PATH']}")


@pytest_asyncio.fixture
async def by_ssh(server: Server) -> AsyncIterator[Rig]:
    """Give a backend that reaches the engine by ssh; no program of it is left."""
    rig = Rig(server.engine, backend_on(settings.Host(url=server.url())))
    async with cleaned(rig):
        yield rig
    await _until(lambda: not children("ssh"))


async def _until(holds: object) -> None:
    patient = patience.Patience(WITHIN_S)
    while not holds():
        assert not patient.is_over()
        await asyncio.sleep(0.02)


def _one_that(rig: Rig, url: str, **told: object) -> api.Backend:
    return attrs.evolve(rig, make=backend_on(settings.Host(url=url), **told)).backend


async def test_a_life(by_ssh: Rig) -> None:
    """Start, output, end, removal; its secret is unpacked, as the engine is elsewhere."""
    await by_ssh.backend.launch(by_ssh.spec("a1", "echo hello"))
    await by_ssh.running("a1")
    patient = patience.Patience(WITHIN_S)
    while "hello" not in await by_ssh.backend.logs("a1", tail=5):
        assert not patient.is_over()
        await asyncio.sleep(0.1)
    for script, within_s, code in (("exit 3", 10.0, 3), ("sleep 86400", 0.5, None)):
        command = ("/bin/sh", "-c", f"echo checked; {script}")
        ran = await api.run(by_ssh.backend, "a1", command, within_s=patience.seconds(within_s))
        assert api.Ran(code=code, output="checked") == ran
    await by_ssh.sdk("kill", by_ssh.container("a1"))
    assert (await by_ssh.exited("a1")).slug == "killed"
    await by_ssh.backend.terminate("a1", grace_s=1)
    assert await by_ssh.backend.list() == []


async def test_the_events_are_followed_again_when_the_way_ends(by_ssh: Rig) -> None:
    """Whose ssh is killed hears of it at once, and of what happens after that."""
    told = asyncio.Event()

    async def follow() -> None:
        async for _ in by_ssh.backend.watch():
            told.set()

    following = asyncio.create_task(follow())
    async with patience.limit(WITHIN_S):
        await by_ssh.backend.launch(by_ssh.spec("a1"))
        await told.wait()  # it is followed
        for pid in children("ssh"):
            os.kill(pid, signal.SIGKILL)
        told.clear()
        await told.wait()  # that the way has ended
        while True:  # a call that was under way ended with it
            with contextlib.suppress(api.Unavailable):
                await by_ssh.running("a1")
                break
        told.clear()
        await by_ssh.sdk("kill", by_ssh.container("a1"))
        await told.wait()
        await by_ssh.exited("a1")
    following.cancel()


async def test_one_that_hangs_costs_its_calls_their_time_and_no_more(
    by_ssh: Rig, server: Server
) -> None:
    """As an engine that hangs: refused after ``timeout``; a close does not wait for it."""
    slow = _one_that(by_ssh, server.url(), timeout_s=0.5 * patience.seconds(1.0))
    (server.folder / "bin/ssh").rename(server.folder / "bin/real")
    (server.folder / "bin/ssh").write_text("#!/bin/sh\nexec sleep 600\n")
    (server.folder / "bin/ssh").chmod(0o755)
    try:
        with pytest.raises(api.Unavailable, match="timed out"):
            await slow.list()
    finally:
        (server.folder / "bin/real").rename(server.folder / "bin/ssh")
        await slow.aclose()
    await _until(lambda: not children("sleep"))


async def test_a_close_ends_what_is_under_way(by_ssh: Rig) -> None:
    """Also where the program itself is stopped and hears nothing."""
    await by_ssh.backend.list()
    for pid in children("ssh"):
        os.kill(pid, signal.SIGSTOP)
    asked = asyncio.create_task(by_ssh.backend.list())
    await asyncio.sleep(0)
    await by_ssh.backend.aclose()
    with pytest.raises(api.Unavailable):
        await asked
    await _until(lambda: not children("ssh"))


@pytest.mark.parametrize(
    ("change", "environment", "kind", "words"),
    [
        ({"path": "/no/such.sock"}, {}, api.Unavailable, "dial unix /no/such.sock"),
        ({"port": 1}, {}, api.Unavailable, "port 1: Connection refused"),
        ({"host": "localhost"}, {}, api.Unauthorized, r"says whose key that is \(known_hosts\)"),
        ({}, {"TEST_KEY": "stranger"}, api.Unauthorized, "hint: a key of the broker's user"),
        ({}, {"PATH": "/nowhere"}, api.Unauthorized, "install the OpenSSH client"),
    ],
)
async def test_whose_a_failure_is(
    by_ssh: Rig, server: Server, monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object], environment: dict[str, str], kind: type[Exception], words: str,
) -> None:  # fmt: skip
    """The last words of ssh are told, with who has to act."""
    for name, value in environment.items():
        told = str(server.folder / value) if name == "TEST_KEY" else value
        monkeypatch.setenv(name, told)
    lame = _one_that(by_ssh, server.url(**change))
    with pytest.raises(kind, match=words) as refused:
        await lame.list()
    assert type(refused.value) is kind
    await lame.aclose()


async def test_a_greeting_in_place_of_an_engine_is_told(
    by_ssh: Rig, server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell that talks is the usual reason why ssh works for people and not for programs."""
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho Welcome to build-1\nexec cat >/dev/null\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    greeted = _one_that(by_ssh, server.url())
    with pytest.raises(api.Unavailable, match="no engine answers there: Welcome to build-1"):
        await greeted.list()
    await greeted.aclose()
