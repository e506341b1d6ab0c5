"""The files of an instance after a reboot, a reused pid, a full disk, damage and other brokers."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from backends import api
from backends.process import kernel, locks
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop, dead, lives


async def _orphan(shop: Workshop, made: api.Backend, **changes: object) -> None:
    """Leave an instance of which everything was killed, its claim changed."""
    await shop.started(made, "a1", "")
    claim = shop.claim("a1")

    async def family() -> list[int]:
        below = kernel.descendants(claim["pid"])
        return below if len(below) == 2 else []  # the shell, and what it waits for

    below = await checks.until("the program waits", family, within_s=WITHIN_S)
    for pid in (claim["pid"], *below):
        os.kill(pid, signal.SIGKILL)
    await dead(claim["pid"], claim["agent"])
    (shop.home("a1") / "supervisor").write_text(json.dumps({**claim, **changes}))


async def test_a_restart_of_the_machine_is_told(shop: Workshop, made, innocent):
    """A claim of another boot is over, even when a process with its pid runs now."""
    await _orphan(shop, made, boot="another-boot", pid=innocent)
    again = shop.open()
    end = await shop.ended(again, "a1")
    assert ("platform-lost", "the machine was restarted") == (end.slug, end.message)
    await again.terminate("a1", grace_s=0)
    assert lives(innocent)
    assert [] == list(await shop.harness.remains())


async def test_a_reused_pid_is_somebody_else(shop: Workshop, made, innocent):
    """Same boot, same pid, another start time: it is neither shown nor killed."""
    await _orphan(shop, made, pid=innocent)
    end = await shop.ended(made, "a1")
    assert "platform-lost" == end.slug
    await made.terminate("a1", grace_s=0)
    assert lives(innocent)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff\0"])
@pytest.mark.parametrize("file", ["instance.json", "supervisor", "exit"])
async def test_a_damaged_file_is_no_damaged_listing(shop: Workshop, made, file, content):
    """Power was lost while it was written: the instance is listed, and can be removed."""
    await _orphan(shop, made)
    (shop.home("a1") / file).write_bytes(content)
    again = shop.open()
    assert ["a1"] == list(await checks.listed(again))
    await again.terminate("a1", grace_s=0)
    assert [] == list(await shop.harness.remains())


async def test_what_somebody_else_put_there_is_no_instance(shop: Workshop, made):
    """A file or a directory without our description is not listed, not counted, not removed."""
    await shop.started(made, "a1", "")
    home = shop.home("a1").parent
    (home / "lost+found").mkdir()
    (home / "notes").mkdir()
    (home / "notes.txt").write_text("mine")
    assert ["a1"] == list(await checks.listed(made))
    with pytest.raises(api.NotFound):
        await made.terminate("notes", grace_s=0)
    assert (home / "notes").is_dir()
    (home / "notes").rmdir()
    (home / "lost+found").rmdir()


async def test_a_supervisor_that_comes_too_late_starts_nothing(shop: Workshop, made, tmp_path):
    """It was already in the directory when that was given up, moved away and half removed."""
    await shop.started(made, "a1", "")
    home = shop.home("a1")
    code = (
        "import os, sys; os.chdir(sys.argv[1]); print('there', flush=True); sys.stdin.read(1)\n"
        "from backends.process import supervisor as s\n"
        "s.Supervisor(sys.argv[1], {'max_output_bytes': 4096}, 1).run()"
    )
    late = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(home), stdin=-1, stdout=-1, cwd=pathlib.Path(__file__).parents[2]
    )  # fmt: skip
    assert b"there\n" == await late.stdout.readline()
    home.rename(tmp_path / "trash")
    (tmp_path / "trash" / "supervisor").unlink()
    told, _ = await late.communicate(b"x")
    assert {"state": "claimed"} == json.loads(told)
    shutil.rmtree(tmp_path / "trash")


async def test_leftovers_of_a_killed_broker_are_swept(shop: Workshop, made):
    """With the first listing, but not while another broker is making something there."""
    await shop.started(made, "a1", "")
    home = shop.home("a1").parent
    for folder in (".staging", ".trash"):
        (home / folder / "left" / "work").mkdir(parents=True)
        (home / folder / "left" / "work" / "file").write_text("x")
        (home / folder / "left" / "work").chmod(0o500)  # module caches make such
    second = shop.open()
    with locks.working_in(home / ".staging"):
        await second.list()

        async def trash_gone() -> bool:
            return not (home / ".trash" / "left").exists()

        await checks.until("the trash is swept", trash_gone, within_s=WITHIN_S)
        assert (home / ".staging" / "left").exists()

    async def swept() -> bool:
        await second.list()
        return not (home / ".staging" / "left").exists()

    await checks.until("a later listing sweeps the rest", swept, within_s=WITHIN_S)
    assert not (home / ".staging" / "left").exists()
    assert ["a1"] == list(await checks.listed(made))


async def test_brokers_that_fight_over_names(shop: Workshop):
    """Launches and removals by three at once: only errors of the tree, and soon a true list."""
    brokers = [shop.open() for _ in range(3)]
    spec = {name: shop.spec(name) for name in ("a1", "a2", "a3")}

    async def work(made: api.Backend, name: str, verb: str) -> None:
        try:
            if verb == "launch":
                await made.launch(spec[name])
            else:
                await made.terminate(name, grace_s=0)
        except (api.NotFound, api.AlreadyExists, api.Unavailable):
            pass

    await asyncio.gather(
        *(
            work(made, name, verb)
            for verb in ("launch", "terminate", "launch", "terminate", "launch")
            for made in brokers
            for name in spec
        )
    )

    async def agreed() -> bool:
        """What a removal took away by mistake ends within seconds by itself."""
        found = [await checks.listed(made) for made in brokers]
        alive = [n for n, i in found[0].items() if i.state is api.InstanceState.RUNNING]
        return sorted(alive) == sorted(await shop.harness.running()) and found[0] == found[1]

    await checks.until("what runs is what is listed", agreed, within_s=WITHIN_S)
    found = await checks.listed(brokers[0])
    assert set(found) <= set(spec)
    for name in found:
        await brokers[2].terminate(name, grace_s=0)

    left: list[str] = []

    async def nothing() -> bool:
        """Two that remove the same can be in each other's way: the next removal sweeps."""
        left[:] = await shop.harness.remains()
        return not left

    try:
        await checks.until("nothing is left", nothing, within_s=WITHIN_S)
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from None


# --- a full disk ---


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a directory on a disk of 1 MiB."""
    place = tmp_path / "root"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode()}")
    yield place
    subprocess.run([umount, "-l", str(place)], check=True)


def _fill(place: pathlib.Path) -> None:
    """Write until the disk is full, to the last page and the last small file."""
    for size in (1 << 16, 1 << 12, 1):
        number = 0
        with pytest.raises(OSError, match="No space left"):  # noqa: PT012
            while True:
                number += 1
                (place / f"filler.{size}.{number}").write_bytes(b"x" * size)


async def test_a_launch_on_a_full_disk_is_unavailable(shop: Workshop, small_disk):
    """With the kernel's words; nothing is left of it, and it works when there is room again."""
    made = shop.open()
    assert [] == list(await made.list())
    _fill(small_disk)
    with pytest.raises(api.Unavailable, match="No space left on device"):
        await made.launch(shop.spec("a1"))
    assert [] == list(await made.list())
    assert [] == list(await shop.harness.remains())
    for filler in small_disk.glob("filler.*"):
        filler.unlink()
    await made.launch(shop.spec("a1"))
    await checks.running(made, "a1", within_s=WITHIN_S)
    await made.terminate("a1", grace_s=0)
    await made.aclose()


async def test_a_full_disk_takes_neither_the_program_nor_its_end(shop: Workshop, small_disk):
    """Output is dropped, the program goes on; its exit status is kept; it can be removed."""
    made = shop.open()
    go = shop.root.parent / "go"
    talk = f"while [ ! -e {go} ]; do sleep 0.01; done; head -c 300000 /dev/zero; exit 5"
    await made.launch(shop.spec("a1", talk))
    await made.launch(shop.spec("a2"))
    await checks.running(made, "a1", within_s=WITHIN_S)
    _fill(small_disk)
    go.touch()
    end = await shop.ended(made, "a1")
    assert ("exited", 5) == (end.slug, end.code)
    await made.terminate("a1", grace_s=0)
    await made.terminate("a2", grace_s=5)
    assert [] == list(await made.list())
    assert [] == list(await shop.harness.remains())
    await made.aclose()


@pytest.mark.parametrize("free", range(0, 40, 4))
async def test_a_disk_with_a_little_room(shop: Workshop, small_disk, free):
    """It becomes full at some step of the launch: refused without a trace, or it runs."""
    made = shop.open()
    await made.list()
    _fill(small_disk)
    for filler in sorted(small_disk.glob("filler.4096.*"))[:free]:
        filler.unlink()
    fillers = sorted(small_disk.glob("filler.65536.*"))
    if free > 20:
        fillers[0].unlink()
    try:
        await made.launch(shop.spec("a1"))
    except api.Unavailable as error:
        words = error.reason
        assert [] == list(await made.list()), words
        assert [] == list(await shop.harness.remains()), words
    else:
        await checks.running(made, "a1", within_s=WITHIN_S)
        await made.terminate("a1", grace_s=0)
        assert [] == list(await shop.harness.remains())
    await made.aclose()
