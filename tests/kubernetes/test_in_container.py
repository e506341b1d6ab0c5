"""``in-container``: the program itself, run by real shells, up to real processes.

With the machine's curl; where there is none, with a stand-in (``curl.py``).
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio
from aiohttp import web
from attrs import define, field

from backends import api
from backends.kit import names
from backends.kubernetes import backend, settings
from backends.kubernetes.exec import incontainer, listener, starting
from tests import patience, programs
from tests.docker import certificates
from tests.kubernetes import fake, kubelet

_SECRETS = "/run/agent-broker"
_URL = "http://broker.invalid:8088"


def spec_of(name: str = "agent-1", **changes: object) -> api.InstanceSpec:
    sides = [
        {"name": name, "image": "busybox:1.36", "command": ["sleep", "9"]}
        for name in ("maven", "golang", "bare")
    ]
    options = settings.KubernetesTemplate(in_container=True, pod={"spec": {"containers": sides}})
    told = {
        "name": name,
        "metadata": {names.OWNER: "ours"},
        "image": "jenkins/inbound-agent",
        "use_entry_point": True,
        "secret_files": {"agent-secret": f"secret of {name}"},
        "options": options,
        **changes,
    }
    return api.InstanceSpec(**told)


@define
class Outcome:
    code: int
    out: bytes
    err: bytes


@define
class Agent:
    """What runs in the container ``jnlp``: the program where the pod's secret puts it."""

    folder: pathlib.Path
    cluster: fake.Cluster
    name: str
    address: tuple[str, int] = ("", 0)
    shell: Sequence[str] = ("sh",)
    env: dict[str, str] = field(factory=lambda: {"PATH": os.environ["PATH"]})
    processes: list[asyncio.subprocess.Process] = field(factory=list)

    def install(self) -> None:
        """Do what the kubelet does with the secret of the pod."""
        self.folder.mkdir(exist_ok=True)
        self.env["TMPDIR"] = str(self.folder)
        if shutil.which("curl") is None:
            self.use_stand_in()
        for name, text in self.cluster.secrets[self.name]["stringData"].items():
            told = text.replace(_SECRETS, str(self.folder))
            told = told.replace("broker.invalid:8088", "{}:{}".format(*self.address))
            (self.folder / name).write_text(told)

    def use_stand_in(self) -> None:
        """Put a curl that is ours before the machine's."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        source = pathlib.Path(__file__).with_name("curl.py").read_text()
        (folder / "curl").write_text(f"#!/usr/bin/env -S python -IS\n{source}")
        if not (folder / "python").exists():  # by itself its path may have blanks
            (folder / "python").symlink_to(sys.executable)
        (folder / "curl").chmod(0o755)
        self.env["PATH"] = f"{folder}:{self.env['PATH']}"

    async def start(
        self, *argv: str | bytes, stdin: int = asyncio.subprocess.DEVNULL, **how: object
    ) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *programs.hearing(),
            *self.shell,
            str(self.folder / "in-container"),
            *argv,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.env,
            **{"cwd": self.folder, **how},
        )
        self.processes.append(process)
        return process

    async def aclose(self) -> None:
        """End what a test that failed has left: else a later one is told of it."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
            process._transport.close()

    async def run(self, *argv: str | bytes, given: bytes | None = None) -> Outcome:
        pipe = asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE
        process = await self.start(*argv, stdin=pipe)
        async with patience.limit(20):
            out, err = await process.communicate(given)
        assert process.returncode is not None
        return Outcome(process.returncode, out, err)


@define
class Stage:
    cluster: fake.Cluster
    folder: pathlib.Path
    make: Callable[..., backend.KubernetesBackend]
    broker: backend.KubernetesBackend = field(init=False)
    agents: list[Agent] = field(factory=list)
    _watching: asyncio.Task[None] | None = None

    async def begin(self, port: int = 0, **more: str) -> None:
        told = settings.InContainer(**{"listen": f"127.0.0.1:{port}", "url": _URL, **more})
        self.broker = self.make(in_container=told)
        self._watching = asyncio.ensure_future(self._watch(self.broker))
        async with patience.limit(20):
            while self.broker._listener is None:
                await asyncio.sleep(0.005)

    async def _watch(self, watched: backend.KubernetesBackend) -> None:
        async for _ in watched.watch():
            pass

    async def end(self) -> None:
        """Stop the broker as its own stop does."""
        await self.broker.aclose()
        assert self._watching is not None
        await self._watching

    async def crash(self) -> None:
        """Let the broker vanish without a word: its sockets are closed by the kernel."""
        made = self.broker._listener
        assert made is not None
        assert made._runner is not None
        await made._door.aclose()
        for connection in list(made._runner.server.connections):
            connection.transport.abort()
        self.cluster.node.cut()
        await self.end()

    async def agent(self, name: str = "agent-1") -> Agent:
        await self.broker.launch(spec_of(name))
        async with patience.limit(20):
            while self.cluster.pods[name]["status"]["phase"] != "Running":
                await asyncio.sleep(0.005)
        made = self.broker._listener
        assert made is not None
        agent = Agent(self.folder / name, self.cluster, name, made.address)
        self.agents.append(agent)
        agent.install()
        return agent


@pytest_asyncio.fixture
async def stage(
    cluster: fake.Cluster,
    make: Callable[..., backend.KubernetesBackend],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Stage]:
    monkeypatch.setattr(starting, "_LOOK_S", 0.02)
    monkeypatch.setattr(incontainer, "SHARED", str(tmp_path / "pipes"))
    (tmp_path / "pipes").mkdir()
    made = Stage(cluster, tmp_path, make)
    await made.begin()
    yield made
    for agent in made.agents:
        await agent.aclose()
    await made.end()


SHELLS = {"sh": ("sh",), "busybox": ("busybox", "sh"), "bash": ("bash", "--posix")}


def shell(name: str) -> Sequence[str]:
    """Return a shell, or skip where the machine does not have it."""
    programs.need(SHELLS[name][0])
    return SHELLS[name]


@pytest.mark.parametrize("there", SHELLS)
@pytest.mark.parametrize("here", SHELLS)
async def test_a_command_runs_where_it_was_asked(stage: Stage, here: str, there: str) -> None:
    """Output, errors, exit code, arguments, directory and input arrive as they were given."""
    stage.cluster.node.shells["maven"] = shell(there)
    agent = await stage.agent()
    agent.shell = shell(here)
    given = bytes(range(256)) * 300
    words = ["", "a b", "it's", 'say "x" $HOME `id` \\', "two\nlines\n", b"\xff\x81\x88\xc3\xa4\n"]
    agent.env["GREETING"] = "from the\nbuild's 'own' ${X}\n"
    script = 'pwd >&2; printf "%s|" "$GREETING" "$@"; cat; exit 3'
    outcome = await agent.run("maven", "sh", "-c", script, "sh", *words, given=given)
    expected = b"|".join(w if isinstance(w, bytes) else w.encode() for w in words)
    assert f"{agent.folder}\n".encode() == outcome.err
    assert agent.env["GREETING"].encode() + b"|" + expected + b"|" + given == outcome.out
    assert 3 == outcome.code


async def test_the_stand_in_does_as_curl(stage: Stage) -> None:
    """Else a machine without curl would test something of its own."""
    agent = await stage.agent()
    agent.use_stand_in()
    agent.env["GREETING"] = "hello"
    given = bytes(range(256)) * 3000
    outcome = await agent.run(
        "maven", "sh", "-c", 'echo "$GREETING" >&2; cat; exit 3', given=given
    )
    assert (3, given, b"hello\n") == (outcome.code, outcome.out, outcome.err)


async def until(true: Callable[[], bool], within_s: float = 10) -> None:
    async with patience.limit(within_s):
        while not true():
            await asyncio.sleep(0.005)


def pids(stage: Stage) -> list[int]:
    """Return the commands that run in side containers: their process groups, with who starts them."""
    found = []
    for process in stage.cluster.node.processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 0)
            found.append(process.pid)
    return found


def children(program: int) -> list[tuple[int, bytes]]:
    """Return what a program has started and runs, with its command lines."""
    pids = pathlib.Path(f"/proc/{program}/task/{program}/children").read_text().split()
    found = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            found.append((int(pid), pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()))
    return found


def feeding(program: int) -> int:
    """Return the process that reads a program's input."""
    inside = [pid for pid, _ in children(program)]
    (found,) = [cat for pid in inside for cat, line in children(pid) if line == b"cat\0"]
    return found


def ended(stage: Stage) -> bool:
    return not pids(stage)


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("exec /no/such", 127), ("exit 125", 125)],
)
async def test_its_exit_code_is_the_commands(stage: Stage, script: str, code: int) -> None:
    """Whatever it is, a signal's too, and nothing is said beside it."""
    agent = await stage.agent()
    outcome = await agent.run("maven", "sh", "-c", f"{script} 2>/dev/null")
    assert (code, b"", b"") == (outcome.code, outcome.out, outcome.err)


async def test_variables_of_the_build_go_along(stage: Stage) -> None:
    """But not those that belong to each container, and no secret is seen outside the process."""
    agent = await stage.agent()
    agent.env |= {"BUILD_TAG": "b-1", "PASSWORD": "hunter2", "JAVA_HOME": "/jnlp", "HOME": "/h"}
    agent.env |= {"UID": "7", "PPID": "1", "library.a.version": "1"}
    outcome = await agent.run("maven", "env")
    assert b"" == outcome.err
    seen = set(outcome.out.decode().splitlines())
    assert {"BUILD_TAG=b-1", "PASSWORD=hunter2", "HOME=/"} <= seen
    assert not [text for text in seen if text.startswith(("JAVA_HOME", "UID", "library"))]
    wire = " ".join([*stage.cluster.node.queries, *map(str, stage.cluster.node.commands)])
    assert "hunter2" not in wire
    assert "b-1" not in wire


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ("mavne", "no container 'mavne' in this pod; others there: maven, golang, bare"),
        ("jnlp", "jnlp is this container itself"),
        ("a\nb", "no container"),
        ("", "no container ''"),
    ],
)
async def test_a_wrong_name_is_told(stage: Stage, container: str, words: str) -> None:
    """With the names that would be right."""
    agent = await stage.agent()
    outcome = await agent.run(container, "true")
    assert (125, b"") == (outcome.code, outcome.out)
    assert f"in-container: {words}" in outcome.err.decode()


async def test_usage(stage: Stage) -> None:
    """A container without a command is a mistake of its own."""
    agent = await stage.agent()
    outcome = await agent.run("maven")
    assert (125, True) == (outcome.code, b"usage: in-container NAME" in outcome.err)


async def test_a_dead_container_is_told(stage: Stage) -> None:
    """With what it died of, as the pod's state has it."""
    agent = await stage.agent()

    change_state(stage, {"terminated": {"reason": "OOMKilled", "exitCode": 137}})
    outcome = await agent.run("maven", "true")
    assert (125, b"") == (outcome.code, outcome.out)
    assert b"in-container: container maven is dead (OOMKilled, exit code 137)\n" == outcome.err


async def test_a_container_that_died_a_moment_ago(stage: Stage) -> None:
    """The kubelet's refusal comes after the upgrade, with its own words."""
    agent = await stage.agent()
    stage.cluster.node.gone.add("maven")
    outcome = await agent.run("maven", "true")
    assert 125 == outcome.code
    assert b'container not found ("maven")' in outcome.err


def change_state(stage: Stage, state: dict) -> None:
    """Let the pod say of the container maven what a kubelet would."""

    def change(found: dict) -> None:
        for status in found["status"]["containerStatuses"]:
            status["state"] = state if status["name"] == "maven" else status["state"]

    stage.cluster.change("agent-1", change)


CREATING = {"waiting": {"reason": "ContainerCreating"}}
RUNNING = {"running": {"startedAt": "2026-11-24T00:00:00Z"}}


async def test_a_container_that_is_still_made_is_waited_for(stage: Stage) -> None:
    """A build may be faster than the image of a side container; the log says what is waited for."""
    agent = await stage.agent()
    change_state(stage, CREATING)
    process = await agent.start("maven", "echo", "at last")
    assert process.stderr is not None
    async with patience.limit(10):
        line = await process.stderr.readline()
    assert b"in-container: waiting: container maven does not run yet (ContainerCreating)\n" == line
    change_state(stage, RUNNING)
    assert (b"at last\n", b"") == await process.communicate()


async def test_an_image_that_cannot_be_pulled_is_given_up(stage: Stage) -> None:
    """After the patience that a whole pod has too."""
    agent = await stage.agent()
    stage.broker._listener._rules = listener.Rules(
        find=stage.broker._listener._rules.find, patience_s=0.1
    )

    told = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "mavn"'}
    change_state(stage, {"waiting": told})
    outcome = await agent.run("maven", "true")
    assert 125 == outcome.code
    assert b'(ImagePullBackOff): Back-off pulling image "mavn"' in outcome.err


async def test_an_image_without_a_shell_is_refused(stage: Stage) -> None:
    """As a distroless one; nothing could be told what to run, nor where."""
    agent = await stage.agent()
    stage.cluster.node.shells["bare"] = ()
    outcome = await agent.run("bare", "true")
    assert (127, b"") == (outcome.code, outcome.out)
    assert b"in-container: container bare has no shell, sh\n" == outcome.err


async def test_a_directory_that_is_not_shared_is_told(
    stage: Stage, tmp_path: pathlib.Path
) -> None:
    """The command does not run somewhere else instead."""
    agent = await stage.agent()
    here = tmp_path / "it's\nhere"
    here.mkdir()
    change_state(stage, CREATING)
    process = await agent.start("maven", "true", cwd=here)
    assert process.stderr is not None
    assert b"does not run yet" in await process.stderr.readline()
    here.rmdir()
    change_state(stage, RUNNING)
    out, err = await process.communicate()
    assert (125, b"") == (process.returncode, out)
    words = f"in-container: in container maven there is no directory {tmp_path}/it's here\n"
    assert words == err.decode()


async def test_without_curl_it_says_so(stage: Stage, tmp_path: pathlib.Path) -> None:
    """And names no other reason."""
    agent = await stage.agent()
    agent.shell = ("/bin/sh",)
    agent.env["PATH"] = str(tmp_path)
    outcome = await agent.run("maven", "true")
    assert 127 == outcome.code
    assert b"in-container: there is no curl in this container; use an image that has it\n" == (
        outcome.err
    )


async def test_without_a_folder_for_temporary_files_it_says_so(stage: Stage) -> None:
    """As with a root file system that may only be read."""
    agent = await stage.agent()
    agent.env["TMPDIR"] = "/no/such"
    outcome = await agent.run("maven", "true")
    assert (125, []) == (outcome.code, stage.cluster.node.commands)
    assert b"hint: a volume at /tmp, or TMPDIR" in outcome.err


async def test_another_user_is_told_why(stage: Stage) -> None:
    """The token's file is closed to whoever is not the agent."""
    agent = await stage.agent()
    (agent.folder / "in-container.curl").unlink()
    outcome = await agent.run("maven", "true")
    assert 125 == outcome.code
    assert b"in-container.curl is closed to this user" in outcome.err


async def test_a_token_opens_its_own_pod_alone(stage: Stage) -> None:
    """A wrong token and another agent's are refused alike, and nothing is run."""
    one, two = await stage.agent("agent-1"), await stage.agent("agent-2")
    program = one.folder / "in-container"
    program.write_text(program.read_text().replace(str(one.folder), str(two.folder)))
    settings_of_two = two.folder / "in-container.curl"
    for told in (
        settings_of_two.read_text(),
        settings_of_two.read_text().replace("Bearer ", "Bearer 0"),
    ):
        settings_of_two.write_text(told)
        outcome = await one.run("maven", "true")
        assert 125 == outcome.code
        assert b"in-container: the broker does not know this agent's token\n" == outcome.err
    assert [] == stage.cluster.node.commands


async def test_a_pod_of_another_broker_is_unknown(stage: Stage) -> None:
    """Its annotation may fit, but its owner's mark does not."""
    agent = await stage.agent()

    def change(found: dict) -> None:
        found["metadata"]["labels"]["agent-broker/owner"] = "theirs"

    stage.cluster.change("agent-1", change)
    outcome = await agent.run("maven", "true")
    assert 125 == outcome.code
    assert b"does not know this agent's token" in outcome.err


async def test_input_that_never_ends_holds_nobody_up(stage: Stage) -> None:
    """A command that does not read ends when it ends."""
    agent = await stage.agent()
    process = await agent.start("maven", "echo", "done", stdin=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    async with patience.limit(10):
        assert b"done\n" == await process.stdout.read()
        assert 0 == await process.wait()


async def test_closed_input_is_no_input(stage: Stage) -> None:
    """As for a program that was started without any."""
    agent = await stage.agent()
    agent.shell = ("sh", "-c", 'exec sh "$@" <&-', "sh")
    outcome = await agent.run("maven", "cat")
    assert (0, b"", b"") == (outcome.code, outcome.out, outcome.err)


async def test_input_that_breaks_off_is_not_the_whole(stage: Stage) -> None:
    """The command is ended rather than told that it has read everything."""
    agent = await stage.agent()
    process = await agent.start(
        "maven", "sh", "-c", "cat; echo whole", stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"half\n")
    assert b"half\n" == await process.stdout.readline()
    os.kill(feeding(process.pid), signal.SIGKILL)
    async with patience.limit(10):
        out, err = await process.communicate()
    assert (125, b"") == (process.returncode, out)
    assert b"in-container: the input broke off; the command was ended\n" == err
    await until(lambda: ended(stage))


async def test_input_is_cut_off_when_nobody_reads_it(stage: Stage) -> None:
    """More input than fits into any buffer does not keep the end from coming."""
    agent = await stage.agent()
    outcome = await agent.run("maven", "head", "-c", "3", given=b"abc" * (4 << 20))
    assert (0, b"abc") == (outcome.code, outcome.out)


@pytest.mark.parametrize(
    ("here", "number"),
    [
        *((shell, signal.SIGTERM) for shell in SHELLS),
        ("sh", signal.SIGINT),
        ("busybox", signal.SIGHUP),
    ],
)
async def test_a_signal_reaches_the_command(
    stage: Stage, here: str, number: signal.Signals
) -> None:
    """Its last words and its own exit code come back."""
    agent = await stage.agent()
    agent.shell = shell(here)
    name = number.name.removeprefix("SIG")
    script = f'trap "echo got {name}; exit 9" {name}; echo ready; while :; do sleep 0.01; done'
    script = f"exec 2>/dev/null; {script}"  # of what happens to sleep
    process = await agent.start("maven", "sh", "-c", script)
    assert process.stdout is not None
    assert b"ready\n" == await process.stdout.readline()
    process.send_signal(number)
    async with patience.limit(10):
        out, err = await process.communicate()
    assert (9, f"got {name}\n".encode(), b"") == (process.returncode, out, err)


async def test_a_signal_reaches_what_the_command_started(stage: Stage) -> None:
    """The whole process group, as at the end of a build on one's own machine."""
    agent = await stage.agent()
    process = await agent.start("maven", "sh", "-c", "sleep 60 | cat & echo ready; wait; echo no")
    assert process.stdout is not None
    assert b"ready\n" == await process.stdout.readline()
    process.terminate()
    async with patience.limit(10):
        await process.communicate()
    assert 143 == process.returncode
    await until(lambda: ended(stage))


async def test_a_signal_before_the_command_runs_ends_the_wait(stage: Stage) -> None:
    """An aborted build does not wait for an image."""
    agent = await stage.agent()
    change_state(stage, CREATING)
    process = await agent.start("maven", "true")
    assert process.stderr is not None
    await process.stderr.readline()
    process.terminate()
    async with patience.limit(10):
        _, err = await process.communicate()
    assert (125, b"in-container: a signal came\n") == (process.returncode, err)
    assert [] == stage.cluster.node.commands


async def test_a_caller_that_vanishes_takes_the_command_along(stage: Stage) -> None:
    """Killed with all it started, it can forward nothing; its connections tell."""
    agent = await stage.agent()
    process = await agent.start("maven", "sh", "-c", "echo ready; exec sleep 60", process_group=0)
    assert process.stdout is not None
    assert b"ready\n" == await process.stdout.readline()
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    await until(lambda: ended(stage))


async def test_a_reader_that_has_enough_ends_the_command(stage: Stage) -> None:
    """As in a pipe on one machine: 141, and no word of it."""
    agent = await stage.agent()
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        "sh",
        str(agent.folder / "in-container"),
        *("maven", "yes"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
        cwd=agent.folder,
        env=agent.env,
    )
    os.close(write)
    assert b"y\ny\n" == await asyncio.to_thread(os.read, read, 4)
    os.close(read)
    async with patience.limit(10):
        _, err = await process.communicate()
    assert (141, b"") == (process.returncode, err)
    await until(lambda: ended(stage))


@pytest.mark.parametrize("ends", ["stops", "crashes", "fails over"])
async def test_a_command_needs_no_broker_once_it_runs(stage: Stage, ends: str) -> None:
    """Input, output, a signal and the exit code arrive while none is there, or another one."""
    agent = await stage.agent()
    script = "exec 2>/dev/null; trap 'echo stopped; exit 7' TERM; echo ready; read word; echo $word; while :; do sleep 0.01; done"
    process = await agent.start("maven", "sh", "-c", script, stdin=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert b"ready\n" == await process.stdout.readline()
    await (stage.crash() if ends == "crashes" else stage.end())
    if ends == "fails over":
        await stage.begin(port=agent.address[1])
    process.stdin.write(b"word\n")
    assert b"word\n" == await process.stdout.readline()
    process.terminate()
    async with patience.limit(10):
        out, err = await process.communicate()
    assert (7, b"stopped\n", b"") == (process.returncode, out, err)
    await until(lambda: ended(stage))
    if ends != "fails over":
        await stage.begin()


async def test_an_order_that_is_given_twice_is_carried_out_once(stage: Stage) -> None:
    """The broker may vanish between the start and its answer."""
    agent = await stage.agent()
    stage.cluster.node.silent = 1  # the connection breaks before the answer comes
    outcome = await agent.run("maven", "sh", "-c", "echo once >>count; cat count; exit 4")
    assert (4, b"once\n", b"") == (outcome.code, outcome.out, outcome.err)
    assert 2 == len(stage.cluster.node.commands)


async def test_nothing_is_left_in_the_shared_folder(stage: Stage) -> None:
    """Whatever ended, and whoever was killed."""
    agent = await stage.agent()
    pipes = pathlib.Path(incontainer.SHARED)
    assert 3 == (await agent.run("maven", "sh", "-c", "exit 3")).code
    assert 125 == (await agent.run("none", "true")).code
    await until(lambda: [] == [*pipes.iterdir(), *agent.folder.glob("tmp.*")])
    process = await agent.start("maven", "sh", "-c", "echo ready; exec sleep 60", process_group=0)
    assert process.stdout is not None
    assert b"ready\n" == await process.stdout.readline()
    process.kill()  # alone: what it started still reads, as it may for a moment in any case
    await process.wait()
    await until(lambda: ended(stage) and [] == list(pipes.iterdir()), within_s=30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def test_a_container_that_dies_is_told(stage: Stage) -> None:
    """With what its pod says; no exit code is ever made up."""
    agent = await stage.agent()
    process = await agent.start("maven", "sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout is not None
    assert b"ready\n" == await process.stdout.readline()
    change_state(stage, {"terminated": {"reason": "OOMKilled", "exitCode": 137}})
    (group,) = pids(stage)
    os.killpg(group, signal.SIGKILL)
    async with patience.limit(15):
        _, err = await process.communicate()
    assert 125 == process.returncode
    assert b"in-container: container maven is dead (OOMKilled, exit code 137)\n" == err


async def test_what_kills_the_command_and_its_keepers_is_not_taken_for_its_end(
    stage: Stage,
) -> None:
    """The container lives on, as after an out of memory in it."""
    agent = await stage.agent()
    process = await agent.start("maven", "sh", "-c", "echo ready; exec sleep 60")
    assert process.stdout is not None
    assert b"ready\n" == await process.stdout.readline()
    (group,) = pids(stage)
    os.killpg(group, signal.SIGKILL)
    async with patience.limit(15):
        _, err = await process.communicate()
    assert 125 == process.returncode
    assert b"was killed there; the container runs on\n" in err


async def test_what_a_command_leaves_behind_holds_nobody_up(stage: Stage) -> None:
    """A server that was started and still has the output open: it is not waited for."""
    agent = await stage.agent()
    script = "sleep 60 & echo done"
    outcome = await agent.run("maven", "sh", "-c", script)
    assert (0, b"done\n", b"") == (outcome.code, outcome.out, outcome.err)


async def test_a_slow_reader_gets_all_of_what_was_said_last(stage: Stage) -> None:
    """However long it takes after the end of the command, which is not known from the output."""
    agent = await stage.agent()
    program = agent.folder / "in-container"
    told = program.read_text()
    assert "-lt 500 ]" in told
    program.write_text(told.replace("-lt 500 ]", "-lt 5 ]"))
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        "sh",
        str(program),
        *("maven", "sh", "-c", "head -c 65536 /dev/zero; head -c 65536 /dev/zero; touch ended"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
        cwd=agent.folder,
        env=agent.env,
    )
    os.close(write)
    await until((agent.folder / "ended").exists)
    await until(lambda: ended(stage))
    end = asyncio.ensure_future(process.wait())
    await asyncio.wait([end], timeout=1.0)  # longer than it waits for what is left behind
    got = 0
    while piece := await asyncio.to_thread(os.read, read, 65536):
        got += len(piece)
    os.close(read)
    assert 0 == await end
    assert 2 * 65536 == got


async def test_a_pod_without_the_shared_folder_is_told(
    stage: Stage, tmp_path: pathlib.Path
) -> None:
    """As one that an earlier broker made."""
    agent = await stage.agent()
    program = agent.folder / "in-container"
    (tmp_path / "elsewhere").mkdir()
    told = program.read_text().replace(incontainer.SHARED, str(tmp_path / "elsewhere"))
    program.write_text(told)
    outcome = await agent.run("maven", "true")
    assert 125 == outcome.code
    words = f"in-container: container maven does not share {incontainer.SHARED} with the agent\n"
    assert words == outcome.err.decode()


async def test_an_old_agent_knows_the_next_broker(stage: Stage) -> None:
    """Its token is in the pod, not in the broker; and it waits while none is there."""
    agent = await stage.agent()
    await stage.end()
    process = await agent.start("maven", "echo", "hello")
    await asyncio.sleep(0.1)
    await stage.begin(port=agent.address[1])
    async with patience.limit(15):
        out, err = await process.communicate()
    assert (0, b"hello\n", b"") == (process.returncode, out, err)


async def test_an_outage_is_waited_out(stage: Stage) -> None:
    """Before the command runs, a kubelet or API server that is restarted costs nothing."""
    agent = await stage.agent()
    stage.cluster.fail("get pods/exec", "error-500-webhook-down", times=1)
    stage.cluster.fail("get pods/exec", "error-429-flowcontrol-create", times=1)
    outcome = await agent.run("maven", "echo", "hello")
    assert (0, b"hello\n") == (outcome.code, outcome.out)


async def test_a_broker_that_stays_away_is_named(stage: Stage) -> None:
    """While it is waited for, and when it is waited for no longer."""
    agent = await stage.agent()
    await stage.end()
    program = agent.folder / "in-container"
    told = program.read_text()
    assert "patience_s=300 " in told
    assert "-ge 5 ]" in told
    program.write_text(
        told.replace("patience_s=300 ", "patience_s=2 ").replace("-ge 5 ]", "-ge 0 ]")
    )
    outcome = await agent.run("maven", "true")
    assert 125 == outcome.code
    words = "in-container: {}the broker at http://{}:{}/v2/agent-1 does not answer\n"
    waiting = words.format("waiting: ", *agent.address)
    assert waiting + words.format("", *agent.address) == outcome.err.decode()
    await stage.begin()


async def test_an_older_api_server(stage: Stage) -> None:
    """Version 4 cannot end the input of what it runs; it need not."""
    stage.cluster.node.protocols = (kubelet.V4,)
    agent = await stage.agent()
    outcome = await agent.run("maven", "cat", given=b"x")
    assert (0, b"x", b"") == (outcome.code, outcome.out, outcome.err)


async def test_what_a_proxy_says_is_no_answer(stage: Stage) -> None:
    """Its status is no exit code; the order is given again."""
    agent = await stage.agent()
    said = []

    async def answer(request: web.Request) -> web.Response:
        said.append(await request.read())
        return web.Response(status=502, text="502 Bad Gateway\nstarting <html>\n")

    await stage.end()
    proxy = web.AppRunner(app := web.Application())
    app.router.add_route("*", "/{path:.*}", answer)
    await proxy.setup()
    site = web.TCPSite(proxy, *agent.address, reuse_address=True)
    await site.start()
    process = await agent.start("maven", "sh", "-c", "exit 6")
    await until(lambda: len(said) > 0)
    await proxy.cleanup()
    await stage.begin(port=agent.address[1])
    async with patience.limit(20):
        await process.communicate()
    assert 6 == process.returncode


async def test_a_missing_right_is_named(stage: Stage) -> None:
    """So that the operator knows what to add."""
    stage.cluster.node.allowed = False
    agent = await stage.agent()
    outcome = await agent.run("maven", "true")
    assert 125 == outcome.code
    assert b"is not allowed to create pods/exec in namespace agents" in outcome.err


async def test_a_slow_reader_slows_the_command(stage: Stage, tmp_path: pathlib.Path) -> None:
    """Between the two nothing piles up."""
    agent = await stage.agent()
    script = "while head -c 4096 /dev/zero; do echo >>written; done"
    process = await agent.start("maven", "sh", "-c", script, process_group=0)
    written = agent.folder / "written"
    before = -1
    await until(written.exists)
    while before != written.stat().st_size:
        before = written.stat().st_size
        await asyncio.sleep(0.3)
    assert before < 256  # of 4 KiB: what the pipes hold
    assert process.stdout is not None
    async with patience.limit(40):
        while written.stat().st_size == before:  # it goes on as soon as somebody reads
            await process.stdout.read(1 << 16)
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    process._transport.close()


async def test_many_commands_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own output; what cannot be started at the same time waits for the others."""
    monkeypatch.setattr(listener, "_MANY", 2)
    agent = await stage.agent()
    script = 'echo "$0"; while [ ! -e go ]; do sleep 0.01; done'
    running = [await agent.start("maven", "sh", "-c", script, str(n)) for n in range(6)]
    for n, process in enumerate(running):
        assert process.stdout is not None
        assert f"{n}\n".encode() == await process.stdout.readline()
    (agent.folder / "go").touch()
    for process in running:
        assert (b"", b"") == await process.communicate()


async def test_without_the_setting_nothing_listens(
    make: Callable[..., backend.KubernetesBackend], cluster: fake.Cluster
) -> None:
    """And a template that asks for it is refused with the way out."""
    with pytest.raises(api.Rejected, match="the backend has no section `in_container`"):
        await make().launch(spec_of())
    assert {} == cluster.pods


async def test_the_token_is_for_the_agent_alone(stage: Stage) -> None:
    """No other container mounts the secret, and the pod's own text shows only a digest."""
    agent = await stage.agent()
    made = stage.cluster.pods["agent-1"]
    token = incontainer.token("agent-1", {"agent-secret": "secret of agent-1"})
    assert token in (agent.folder / "in-container.curl").read_text()
    assert token not in str(made)
    for container in made["spec"]["containers"]:
        mounted = {m["name"] for m in container["volumeMounts"]}
        secret = {"agent-broker-secrets", "agent-broker-in-container"}
        shared = {"workspace", "agent-broker-pipes"}
        assert (secret | shared if container["name"] == "jnlp" else shared) == mounted


async def test_a_repeated_launch_keeps_the_token(stage: Stage) -> None:
    """The secret may be lost between the two creations; a second order makes the same again."""
    agent = await stage.agent()
    before = stage.cluster.secrets.pop("agent-1")["stringData"]
    await stage.broker.launch(spec_of())
    assert before == stage.cluster.secrets["agent-1"]["stringData"]
    assert 0 == (await agent.run("maven", "true")).code


async def test_over_tls(stage: Stage, tmp_path: pathlib.Path) -> None:
    """The agent is given the authority, and trusts no other."""
    (tmp_path / "tls").mkdir()
    ours = certificates.Authority(tmp_path / "tls", "ours")
    pair = ours.signed("broker", "IP:127.0.0.1")
    theirs = certificates.Authority(tmp_path / "tls", "theirs")
    await stage.end()
    told = {"cert_file": pair.cert, "key_file": pair.key, "ca_file": ours.file}
    await stage.begin(url="https://broker.invalid:8088", **told)
    agent = await stage.agent()
    outcome = await agent.run("maven", "echo", "hello")
    assert (0, b"hello\n", b"") == (outcome.code, outcome.out, outcome.err)
    (agent.folder / incontainer.AUTHORITY).write_text(pathlib.Path(theirs.file).read_text())
    outcome = await agent.run("maven", "echo", "hello")
    assert 125 == outcome.code
    assert b"the certificate of the broker" in outcome.err
