"""Another user of the machine who may write to the state directory, or made it before the broker."""

import asyncio
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile

import pytest

from backends import api
from backends.process import storage
from tests import echo, patience, programs
from tests.e2e import stage as stages

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")

OURS, THEIRS = 41500, 41501


@pytest.fixture
def folder():
    """A folder that every user may enter."""
    made = pathlib.Path(tempfile.mkdtemp(prefix="another-user-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def as_ours(*command):
    """Return the command line of a command as the broker's user."""
    return (
        *(programs.need("setpriv"), f"--reuid={OURS}", f"--regid={OURS}", "--clear-groups"),
        # the interpreter of the tests may lie where only root may read
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
        *(sys.executable, "-B", *command),
    )


EACH = """
import json, sys
from broker.cli import main as cli
for arguments in json.loads(sys.argv[1]):
    print(f"code {cli.main(arguments)}", flush=True)
"""


async def ran(folder, *commands):
    """Run commands as the broker's user, in one process; return code and words of each."""
    process = await asyncio.create_subprocess_exec(
        *as_ours("-c", EACH, json.dumps(commands)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "TOKEN": stages.TOKEN, "HOME": str(folder)},
    )
    try:
        said, _ = await patience.wait_for(process.communicate(), 60)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    *parts, rest = re.split(r"code (\d)\n", said.decode())
    assert (0, "") == (process.returncode, rest), said
    return list(zip(map(int, parts[1::2]), parts[::2], strict=True))


def state(stage, *, owner):
    """Make the directory before the broker does, open to everybody."""
    stage.state.mkdir()
    stage.state.chmod(0o777)
    os.chown(stage.state, owner, owner)


def theirs(path, text=""):
    path.write_text(text)
    path.chmod(0o644)
    os.chown(path, THEIRS, THEIRS)


async def test_a_state_directory_of_another_user_is_refused(folder):
    """Whoever owns it may put anything in its place; also a command that reads believes nothing."""
    async with stages.Stage(folder) as stage:
        state(stage, owner=THEIRS)
        commands = [(name, "--config", str(stage.config)) for name in ("run", "plan", "sweep")]
        for code, said in await ran(folder, *commands):
            assert code == 2, said
            assert f"state_dir {stage.state}: belongs to user {THEIRS}" in said
        assert [] == list(stage.state.iterdir())
        assert stage.sim.nodes == {}


async def test_a_forged_note_leads_nowhere(folder):
    """A command that reads asks no server that another user named, and looks by itself."""
    ways = ("file", "hard link", "symbolic link", "pipe")
    with echo.serving("page 200") as forger:
        async with stages.Stage(folder) as stage:
            commands = []
            for way in ways:
                stage.write_config(state=folder / f"state of {way}")
                state(stage, owner=OURS)
                note, page = folder / f"note of {way}", stage.state / "page"
                theirs(note, f'{{"url": "{forger.url}", "key": "{"0" * 64}"}}')
                match way:
                    case "file":
                        theirs(page, note.read_text())
                    case "hard link":
                        os.link(note, page)
                    case "symbolic link":
                        page.symlink_to(note)
                    case "pipe":
                        os.mkfifo(page, 0o666)
                config = folder / f"broker of {way}.yaml"
                config.write_text(stage.config.read_text())
                commands.append(("plan", "--config", str(config)))
            found = zip(ways, await ran(folder, *commands), strict=True)
            for way, (code, said) in found:
                assert (code, "nothing to do" in said or "would" in said) == (0, True), (way, said)
            assert forger.requests == []


async def test_a_lock_of_another_user_is_refused(folder):
    """He may hold it for as long as he likes, and no broker would start."""
    async with stages.Stage(folder) as stage:
        state(stage, owner=OURS)
        theirs(stage.state / "lock")
        (stage.state / "lock").chmod(0o666)
        ((code, said),) = await ran(folder, ("run", "--config", str(stage.config)))
        assert (code, f"belongs to user {THEIRS}" in said) == (2, True), said


def test_an_instance_of_another_user_is_none(folder):
    """Its description may name any path that has its name in it, which would be removed with it."""
    made = storage.Storage(folder, owner="ours", start_timeout_s=1)
    forged = made.home / "precious"
    forged.mkdir(parents=True)
    told = {"metadata": {}, "token": "t", "work": str(folder / "precious")}
    (forged / "instance.json").write_text(json.dumps(told))
    assert made.names() == ["precious"]
    assert made.read("precious", boot="", ends=True) is not None
    os.chown(forged, THEIRS, THEIRS)
    assert made.names() == []
    assert made.read("precious", boot="", ends=True) is None
    with pytest.raises(api.NotFound):
        made.ask_to_end("precious", grace_s=0)


@pytest.mark.parametrize("where", ["processes", "processes/owners"])
async def test_no_agent_is_made_where_another_user_can_exchange_it(folder, where):
    """He made a folder of the local agents first: the launch is refused, in words."""
    async with stages.Stage(folder) as stage:
        stage.instances = stage.state / "processes"
        stage.write_config()
        state(stage, owner=OURS)
        for path in (stage.state / where).relative_to(stage.state).parents[-2::-1]:
            (stage.state / path).mkdir()
            (stage.state / path).chmod(0o777)
            os.chown(stage.state / path, OURS, OURS)
        (stage.state / where).mkdir()
        (stage.state / where).chmod(0o777)
        os.chown(stage.state / where, THEIRS, THEIRS)
        stage.submit("pool")
        process = await started(stage)
        try:
            await stage.until(
                lambda: f"belongs to user {THEIRS}" in process.said.read_text(), "it is said"
            )
            assert stage.processes() == {}
            assert process.returncode is None
        finally:
            await stage.kill(process)


async def test_what_is_put_in_place_of_its_files_while_it_works(folder):
    """It goes on, serves, and writes nowhere else."""
    async with stages.Stage(folder) as stage:
        state(stage, owner=OURS)
        process = await started(stage)
        stage.submit("pool")
        await stage.until_served()
        target = folder / "elsewhere"
        theirs(target, "as it was")
        target.chmod(0o666)
        for kind in ("pipe", "link", "theirs", "folder"):
            for name in ("builds.json", "page", "lock"):
                put(kind, stage.state / name, target)
            stage.submit("pool")
            await stage.until_served()
            assert (kind, None) == (kind, process.returncode)
            assert (kind, "as it was") == (kind, target.read_text())
        process.terminate()
        ended = await stage.ended(process)
        assert "Traceback" not in ended.said


def put(kind, path, target):
    """Put a pipe, a link, a folder or another user's file in place of a file of the broker.

    The broker may write its own anew between the two steps.
    """
    while True:
        path.unlink(missing_ok=True)
        try:
            match kind:
                case "pipe":
                    os.mkfifo(path, 0o666)
                case "folder":
                    path.mkdir()
                case "link":
                    path.symlink_to(target)
                case "theirs":
                    theirs(path, "{}")
        except FileExistsError:
            continue
        return


async def started(stage):
    """Start a broker as its user; in its folder agents can be made."""
    stage.folder.chmod(0o777)
    said = stage.folder / "broker.log"
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *as_ours("-m", "broker", "run", "--config", str(stage.config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TOKEN": stages.TOKEN, "HOME": str(stage.folder)},
        )
    process.said = said
    stage.brokers.append(process)
    return process
