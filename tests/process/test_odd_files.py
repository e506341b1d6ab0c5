"""A build writes what it likes into its own directory: that costs it, nobody else, and hangs nothing."""

import json
import os
import pathlib
import shutil
import socket

import pytest

from backends import api
from backends.process import output, records, storage
from tests import patience
from tests.contract import checks
from tests.process.conftest import WITHIN_S, Workshop

FILES = ["instance.json", "supervisor", "exit", "stop", "output.0", "output.1", "secrets/secret"]


def fifo(path):
    os.mkfifo(path)


def zero(path):
    path.symlink_to("/dev/zero")


def large(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no room


def loop(path):
    path.symlink_to(path.name)


def folder(path):
    path.mkdir()


def sock(path):
    here = pathlib.Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def deep(path):
    path.write_text("[" * 200_000)


def types(path):
    path.write_text(
        '{"metadata": 7, "token": {}, "pid": "1", "start": [], "boot": 4, "slug": {}, "at": "x"}'
    )


def numbers(path):
    path.write_text(
        '{"metadata": {"a": 1}, "created_at": 1e999, "pid": 1e400, "start": -1, "boot": "", '
        '"code": 99999999999999999999, "message": "\\ud800\\u001b[31m", "token": "../.."}'
    )


KINDS = [fifo, zero, large, loop, folder, sock, deep, types, numbers]


def put(make, path):
    if os.path.lexists(path):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    path.parent.mkdir(exist_ok=True)
    make(path)


async def listed(backend):
    """List, odd or not; never for long."""
    async with patience.limit(WITHIN_S):
        try:
            return {one.name: one for one in await backend.list()}, False
        except api.Partial as error:
            return {one.name: one for one in error.seen}, error.odd


PAIRS = [
    # each kind in the place of two or three files, and each file by three kinds: all for the soak
    pytest.param(make, file, marks=[pytest.mark.soak] * ((row + column) % 3 != 0))
    for row, make in enumerate(KINDS)
    for column, file in enumerate(FILES)
]


@pytest.mark.parametrize(("make", "file"), PAIRS)
async def test_an_odd_file_costs_its_instance_only(shop: Workshop, made, make, file):
    """The others are listed, logged, ended; so is this one, and its place is empty afterwards."""
    await shop.started(made, "a1", "echo one")
    await shop.started(made, "a2", "echo two")
    await made.list()
    put(make, shop.home("a1") / file)
    for backend in (made, shop.open()):  # one that knew it before, and one that comes now
        seen, odd = await listed(backend)
        assert seen["a2"].state is api.InstanceState.RUNNING
        assert "a1" in seen or odd
        async with patience.limit(WITHIN_S):
            assert "two" in await backend.logs("a2", tail=5)
            await backend.logs("a1", tail=5)
    seen, odd = await listed(made)
    assert not odd, "what was read before is remembered"
    if file in {"instance.json", "supervisor"} and make not in {deep, types, numbers}:
        assert seen["a1"].state is api.InstanceState.RUNNING
    again = shop.open()
    async with patience.limit(WITHIN_S):
        await again.terminate("a1", grace_s=0)
        await again.terminate("a2", grace_s=0)
    assert await listed(again) == ({}, False)

    async def nothing_remains() -> bool:
        """A supervisor whose claim cannot be read is not waited for: it leaves after its agent."""
        return list(await shop.harness.remains()) == []

    await checks.until("nothing remains", nothing_remains, within_s=WITHIN_S)


async def test_a_machine_that_fails_is_not_a_file_that_is_odd(shop: Workshop, made, monkeypatch):
    """Out of descriptors: nothing is known, and nothing is called dead."""
    await shop.started(made, "a1", "")

    def full(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(records.files, "read", full)
    with pytest.raises(api.Unavailable) as caught:
        await made.list()
    assert not isinstance(caught.value, api.Partial)
    monkeypatch.undo()
    await checks.running(made, "a1", within_s=WITHIN_S)


async def test_a_file_that_names_other_things_removes_none_of_them(shop: Workshop, made, tmp_path):
    """Paths without the instance's name, other processes, ourselves: left alone."""
    await shop.started(made, "a1", "")
    precious = tmp_path / "precious"
    precious.mkdir()
    path = shop.home("a1") / "instance.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "work": str(precious), "cgroup": str(precious)}))
    claim = shop.home("a1") / "supervisor"
    told = json.loads(claim.read_text())
    assert records.supervisor({**told, "pid": os.getpid()}) is None
    for pid in (0, 1, -1, 2**40, True, "7", None):
        found = records.supervisor({**told, "pid": pid})
        assert found is None or found.pid == 1 << 31
    await shop.open().terminate("a1", grace_s=0)
    assert precious.is_dir()
    assert records.about(tmp_path / "none.json", "a1") is None


async def test_a_name_that_nobody_gave_is_no_instance(shop: Workshop, made):
    """A link or a folder beside the instances, with a description in it."""
    await shop.started(made, "a1", "")
    home = shop.home("a1").parent
    for name in ("a b", "-x", "ä"):
        (home / name).mkdir()
        (home / name / "instance.json").write_text("{}")
    (home / "link").symlink_to("a1")
    seen, _ = await listed(made)
    assert {"a1"} <= set(seen) <= {"a1", "link"}
    await made.terminate("a1", grace_s=0)
    assert await listed(made) == ({}, False)
    for name in ("a b", "-x", "ä"):
        shutil.rmtree(home / name)
    (home / "link").unlink()


async def test_directories_within_each_other_end_no_removal(shop: Workshop, made):
    """Three thousand of them, deeper than any path is long, beside others."""
    await shop.started(made, "a1", "")
    here = os.open(shop.home("a1") / "work", os.O_RDONLY | os.O_DIRECTORY)
    for number in range(3000):
        os.mkdir("d", dir_fd=here)
        if number % 500 == 0:
            os.mkdir("e", dir_fd=here)
        inner = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    await made.terminate("a1", grace_s=0)
    assert list(await shop.harness.remains()) == []


def test_what_lies_in_the_trash_is_removed_whatever_it_is(tmp_path):
    """Links are not followed."""
    (tmp_path / "precious").mkdir()
    for make in (fifo, zero, large, loop, folder, sock):
        path = tmp_path / "x"
        put(make, path)
        storage.remove_tree(path)
        assert not os.path.lexists(path)
    (tmp_path / "x").symlink_to("precious")
    storage.remove_tree(tmp_path / "x")
    assert (tmp_path / "precious").is_dir()


def test_output_that_somebody_else_wrote_is_bounded(tmp_path):
    """Of each part the end, of many parts the first and the newest, and no numbers without end."""
    for number in range(200):
        (tmp_path / f"output.{number}").write_text(f"part {number}\n")
    (tmp_path / ("output." + "9" * 200)).write_text("x")
    large(tmp_path / "output.1")
    (tmp_path / "output.199").write_text("a" * 5000 + "end")
    told = output.read(str(tmp_path), limit=100)
    assert told.startswith(b"part 0\n")
    assert told.endswith(b"end")
    assert len(told) < 1000
    assert b"part 197" in told
    assert b"part 50\n" not in told


@pytest.mark.parametrize("umask", [0o000, 0o027])
async def test_what_is_above_the_instances_is_private(shop: Workshop, umask):
    """Whatever the umask: others may neither look nor put their own beside."""
    before = os.umask(umask)
    try:
        made = shop.open()
        await shop.started(made, "a1", "")
    finally:
        os.umask(before)
    home = shop.home("a1")
    for path in (home, home.parent, home.parent.parent, home.parent / ".trash"):
        assert path.stat().st_mode & 0o777 == 0o700, path
    found = [path for path in home.parent.parent.rglob("*") if not path.is_symlink()]
    assert home / "supervisor" in found
    assert [] == [path for path in found if path.stat().st_mode & (0o077 if not umask else 0o022)]
