"""The supervisor: it starts one program, keeps what it says, and ends it with all its children."""

import asyncio
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import sys

import attrs
import pytest

from backends import api
from backends.process import settings
from tests import patience
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop, dead, lives

_CHILDREN = (
    "sleep 86411 & echo child $!\n"
    "setsid sleep 86412 & echo child $!\n"
    "(setsid sh -c 'echo child $$; exec sleep 86413' &)\n"  # a daemon: its parent leaves
    "(env -i setsid sh -c 'trap \"\" TERM HUP INT; echo child $$; while :; do sleep 1; done' &)\n"
    'while [ $(cat "$OUT" | grep -c child) -lt 4 ]; do sleep 0.01; done\n'
)


def _with_children(shop: Workshop, made: api.Backend) -> dict[str, object]:
    out = pathlib.Path(made.work_dir("a1")).parent / "output.0"
    return {"name": "a1", "commands": _CHILDREN, "env": {"OUT": str(out)}}


async def _children(made: api.Backend) -> list[int]:
    told = await made.logs("a1", tail=100)
    pids = [int(pid) for pid in re.findall(r"child (\d+)", told)]
    assert 4 == len(pids)
    return pids


# --- the end of the program and of its children ---


async def test_children_of_every_kind_end_with_the_program(shop: Workshop, made):
    """Background jobs, sessions, daemons, those without our mark and deaf to signals."""
    await shop.started(made, **_with_children(shop, made))
    pids = await _children(made)
    assert all(map(lives, pids))
    os.kill(shop.claim("a1")["agent"], signal.SIGTERM)  # the program ends by itself
    end = await shop.ended(made, "a1")
    assert ("exited", 143) == (end.slug, end.code)
    assert [] == [pid for pid in pids if lives(pid)]


async def test_children_of_every_kind_end_with_terminate(shop: Workshop, made):
    """When terminate returns, none of them runs."""
    await shop.started(made, **_with_children(shop, made))
    pids = await _children(made)
    await made.terminate("a1", grace_s=0.1)
    assert [] == [pid for pid in pids if lives(pid)]


async def test_a_killed_supervisor_takes_its_program_with_it(shop: Workshop, made):
    """The kernel kills the program; the children with our mark go with terminate."""
    await shop.started(made, "a1", "setsid sleep 86414 & echo child $!")
    (child,) = re.findall(r"child (\d+)", await made.logs("a1", tail=9))
    claim = shop.claim("a1")
    os.kill(claim["pid"], signal.SIGKILL)
    await dead(claim["pid"], claim["agent"])
    end = await shop.ended(made, "a1")
    assert ("platform-lost", "its supervisor process was killed") == (end.slug, end.message)
    assert end.witnessed
    await made.terminate("a1", grace_s=0)
    assert not lives(int(child))
    assert [] == list(await shop.harness.remains())


async def test_the_shutdown_of_the_machine_gives_its_own_grace(shop: Workshop):
    """SIGTERM to a supervisor from anybody: SIGTERM to the program, then SIGKILL."""
    made = shop.open(terminate_grace_s=0.3)
    await shop.started(made, "a1", "trap '' TERM")
    os.kill(shop.claim("a1")["pid"], signal.SIGTERM)
    end = await shop.ended(made, "a1")
    assert ("killed", -signal.SIGKILL) == (end.slug, end.code)
    assert "as the broker or the machine's shutdown asked" in end.message


async def test_impatience_shortens_the_grace(shop: Workshop, made):
    """A second terminate with less grace is obeyed; one with more changes nothing."""
    deaf = "trap '' TERM; printf 'ready\\n'; while :; do sleep 1; done"
    await shop.started(made, "a1", deaf)
    graceless = patience.Patience(8)
    slow = asyncio.ensure_future(made.terminate("a1", grace_s=600))

    async def stopping() -> bool:
        return (await checks.listed(made))["a1"].state is api.InstanceState.STOPPING

    await checks.until("it is stopping", stopping, within_s=WITHIN_S)
    other = shop.open()
    both = asyncio.gather(slow, other.terminate("a1", grace_s=0), return_exceptions=True)
    ends = await patience.wait_for(both, WITHIN_S)
    assert None in ends
    assert all(end is None or isinstance(end, api.NotFound) for end in ends)
    assert not graceless.is_over(), "less than the supervisor's own grace of 10 s"


async def test_a_directory_taken_away_ends_the_program(shop: Workshop, made):
    """Somebody removed it by hand: no agent stays that nobody can see."""
    await shop.started(made, "a1", "")
    claim = shop.claim("a1")
    shutil.rmtree(shop.home("a1"))
    await dead(claim["pid"], claim["agent"])


@pytest.mark.parametrize(
    ("commands", "slug", "code", "words"),
    [
        ("exit 0", "exited", 0, "exit status 0"),
        ("exit 255", "exited", 255, "exit status 255"),
        ("kill -SEGV $$", "killed", -11, "SIGSEGV"),
        ("kill -40 $$", "killed", -40, "SIGRTMIN+6|signal 40"),
        ("kill -KILL $$", "killed", -9, "not by the broker; the machine may have run out"),
    ],
)
async def test_how_it_ended_is_kept(shop: Workshop, made, commands, slug, code, words):
    """Exit status or signal, in numbers and words."""
    await made.launch(shop.spec("a1", commands, exit_code=3))
    end = await shop.ended(made, "a1")
    assert (slug, code) == (end.slug, end.code)
    assert re.search(words.replace("+", r"\+"), end.message)


# --- limits ---


async def test_a_program_over_its_memory_is_killed_and_it_is_said(shop: Workshop, made):
    """All its processes count together."""
    grow = "import time; x = bytearray(%d << 20); time.sleep(600)"
    commands = " & ".join(f"'{sys.executable}' -S -c '{grow % 40}'" for _ in range(2))
    limit = api.Resources(memory_bytes=60 << 20)
    await made.launch(shop.spec("a1", commands, resources=limit))
    end = await shop.ended(made, "a1")
    assert "out-of-memory" == end.slug
    used = re.fullmatch(r"used (\d+) MiB of memory, 60 MiB are allowed", end.message)
    assert used is not None, end
    assert int(used[1]) > 60
    await made.terminate("a1", grace_s=0)
    assert [] == list(await shop.harness.remains())


async def test_a_program_under_its_memory_lives(shop: Workshop, made):
    """Shared libraries do not count, and neither does the supervisor itself."""
    limit = api.Resources(memory_bytes=8 << 20)
    await shop.started(made, "a1", "sleep 1.2", resources=limit)  # two looks at the memory
    assert "running" == (await made.list())[0].state.value


async def test_output_is_bounded_to_head_and_tail(shop: Workshop):
    """A program that never stops talking: its first and last words, the rest is left out."""
    made = shop.open(max_output_bytes=40_000)
    commands = (
        "echo first; i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo last"
    )
    await made.launch(shop.spec("a1", commands, exit_code=0))
    await shop.ended(made, "a1")
    kept = sum(file.stat().st_size for file in shop.home("a1").glob("output.*"))
    assert 20_000 <= kept <= 40_000
    told = (await made.logs("a1", tail=100_000)).splitlines()
    assert ["first", "line 0"] == told[:2]
    assert ["line 19998", "line 19999", "last"] == told[-3:]
    assert 1 == told.count("[... output left out ...]")


async def test_output_that_is_no_text(shop: Workshop, made):
    """Any byte may come, without an end of line."""
    await made.launch(shop.spec("a1", r"printf 'a\000\377b'", exit_code=0))
    await shop.ended(made, "a1")
    assert "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b" == await made.logs("a1", tail=1)


async def test_what_a_program_is_born_with(shop: Workshop, made):
    """Niceness, limits, group, signals, no open files of ours, nothing of our environment."""
    os.environ["BROKER_SECRET"] = "not-for-agents"
    odd = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGTTOU)  # as of a broker in the background
    before = [signal.signal(number, signal.SIG_IGN) for number in odd]
    look = (
        "import json, os, resource, signal, sys\n"
        "print(json.dumps({'nice': os.nice(0), 'umask': os.umask(0),"
        " 'files': resource.getrlimit(resource.RLIMIT_NOFILE)[0],"
        " 'core': resource.getrlimit(resource.RLIMIT_CORE)[0],"
        " 'leads': os.getpgrp() == os.getpid(), 'open': sorted(map(int, os.listdir('/proc/self/fd')))[:-1],"
        " 'stdin': os.readlink('/proc/self/fd/0'), 'cwd': os.getcwd(), 'env': sorted(os.environ),"
        " 'ignored': [n for n in range(1, 32) if signal.getsignal(n) is signal.SIG_IGN],"
        " 'blocked': len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),"
        " 'oom': open('/proc/self/oom_score_adj').read().strip()}))"
    )
    options = settings.ProcessTemplate(nice=7, max_open_files=123)
    spec = shop.spec("a1", exit_code=0, options=options, env={"MINE": "1"})
    try:
        await made.launch(attrs.evolve(spec, argv=(sys.executable, "-I", "-S", "-c", look)))
    finally:
        del os.environ["BROKER_SECRET"]
        for number, reaction in zip(odd, before, strict=True):
            signal.signal(number, reaction)
    await shop.ended(made, "a1")
    told = json.loads(await made.logs("a1", tail=1))
    env = ["AGENT_BROKER_INSTANCE", "HOME", "LANG", "MINE", "PATH", "TMPDIR"]
    assert env == [key for key in told.pop("env") if key != "LC_CTYPE"]  # Python's own
    # Python itself ignores these two
    assert {signal.SIGPIPE, signal.SIGXFSZ} == set(told.pop("ignored"))
    assert {
        "nice": os.nice(0) + 7, "umask": 0o022, "files": 123, "core": 0, "leads": True,
        "open": [0, 1, 2], "stdin": "/dev/null", "cwd": made.work_dir("a1"), "blocked": 0,
        "oom": "500",
    } == told  # fmt: skip


# --- starts that fail ---


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("/no/such/program",), "cannot execute '/no/such/program': No such file"),
        (("no-such-program",), "cannot execute 'no-such-program': No such file"),
        (("/etc/passwd",), "cannot execute '/etc/passwd': Permission denied"),
        (("/tmp",), "cannot execute '/tmp': Permission denied"),
        (("/etc/passwd/x",), "cannot execute '/etc/passwd/x': Not a directory"),
        (("./garbage",), "cannot execute './garbage': Exec format error"),
        (("./orphan",), "cannot execute './orphan': No such file"),
        (("/bin/sh", "nul\0byte"), "cannot execute '/bin/sh': embedded null byte"),
        (("/bin/sh", "x" * 200_000), "cannot execute '/bin/sh': Argument list too long"),
    ],
)
async def test_a_command_that_cannot_be_executed_is_rejected(
    shop: Workshop, made, tmp_path, argv, words
):
    """With the kernel's words and a hint; nothing is left of the attempt."""
    for name, content in (("garbage", b"\0\1\2\3"), ("orphan", b"#!/no/such/shell\n")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    argv = tuple(word.replace("./", f"{tmp_path}/") for word in argv)
    with pytest.raises(api.Rejected) as caught:
        await made.launch(attrs.evolve(shop.spec("a1"), argv=argv))
    told = caught.value.reason.replace(f"{tmp_path}/", "./")
    assert told.startswith(words)
    assert "hint: `command`" in told
    assert [] == list(await made.list())
    assert [] == list(await shop.harness.remains())


async def test_a_work_directory_that_cannot_be_made(shop: Workshop, made):
    """It is the machine's trouble, told with the path; nothing is left."""
    options = settings.ProcessTemplate(working_directory="/etc/passwd/work")
    with pytest.raises(api.Unavailable, match=r"Not a directory: .*/etc/passwd"):
        await made.launch(shop.spec("a1", options=options))
    assert [] == list(await made.list())
    assert [] == list(await shop.harness.remains())


async def test_a_work_directory_elsewhere(shop: Workshop, made, tmp_path):
    """The program runs there; the path told before leads there; it goes with the instance."""
    options = settings.ProcessTemplate(working_directory=str(tmp_path / "fast"))
    spec = shop.spec("a1", 'pwd; echo x >"$1/file"', options=options)
    spec = attrs.evolve(spec, argv=(*spec.argv, api.WORK))
    await made.launch(spec)

    async def said() -> str:
        return (await made.logs("a1", tail=1)).strip()

    place = await checks.until("it says where it is", said, within_s=WITHIN_S)
    assert place.startswith(f"{tmp_path}/fast/")
    linked = pathlib.Path(made.work_dir("a1"))
    assert pathlib.Path(place) == linked.resolve()
    await made.terminate("a1", grace_s=0)
    assert not pathlib.Path(place).exists()


async def test_what_agents_share_outlives_them(shop: Workshop, made):
    """One directory for all instances and their heirs, closed to other users."""
    await shop.started(made, "first", 'echo mine >"$SHARED/jar"', env={"SHARED": api.SHARED})
    await made.terminate("first", grace_s=0)
    await shop.started(made, "second", 'cp "$SHARED/jar" .', env={"SHARED": api.SHARED})
    assert (shop.home("second") / "work" / "jar").read_text() == "mine\n"
    assert stat.S_IMODE((shop.root / "shared").stat().st_mode) == 0o700


async def test_two_supervisors_never_share_a_directory(shop: Workshop, made):
    """The second finds the claim and leaves at once."""
    from backends.process import launching

    await shop.started(made, "a1", "")
    claim = shop.claim("a1")
    reports = await asyncio.gather(
        *(
            asyncio.to_thread(launching.start_supervisor, shop.home("a1"), timeout_s=9)
            for _ in "abc"
        )
    )
    assert [{"state": "claimed"}] * 3 == reports
    assert claim == shop.claim("a1")
    assert ["a1"] == list(await shop.harness.running())


# --- a kernel that limits for us ---


def _delegated() -> pathlib.Path | None:
    """Return a cgroup v2 directory in which we may make groups with limits."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        mount = line.split(" ")[4]
        if " - cgroup2 " in line and os.access(mount, os.W_OK):
            control = pathlib.Path(mount, "cgroup.subtree_control").read_text().split()
            if {"memory", "cpu"} <= set(control):
                return pathlib.Path(mount)
    return None


async def test_a_cgroup_limits_memory_and_processors(shop: Workshop):
    """Where one is delegated to us the kernel limits, and its kill is told as such."""
    parent = _delegated()
    if parent is None:
        pytest.skip("no cgroup v2 with memory and cpu is delegated to this user")
    made = shop.open(cgroup=str(parent))
    limits = api.Resources(memory_bytes=30 << 20, cpu_limit=0.5, cpu_shares=2)
    grow = f"'{sys.executable}' -S -c 'x = bytearray(90 << 20)'"
    await made.launch(shop.spec("a1", f"cat /proc/self/cgroup; {grow}", resources=limits))
    end = await shop.ended(made, "a1")
    assert "out-of-memory" == end.slug
    await made.terminate("a1", grace_s=0)
    assert [] == list(parent.glob("ours-*"))


async def test_a_cgroup_that_cannot_be_used_is_no_silent_loss_of_limits(shop: Workshop, tmp_path):
    """Who asked for limits gets them or a refusal that names the group."""
    made = shop.open(cgroup=str(tmp_path / "no-cgroup"))
    with pytest.raises(api.BackendError, match="cgroup"):
        await made.launch(shop.spec("a1", resources=api.Resources(memory_bytes=1 << 30)))
    assert [] == list(await made.list())
    assert [] == list(await shop.harness.remains())
