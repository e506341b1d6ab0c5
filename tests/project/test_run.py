"""What ``tests/conftest.py`` adds to a run: waits for slow machines, leftovers, missing programs."""

import os
import pathlib
import re
import subprocess
import sys
import types

import pytest

from tests import conftest, leftovers, patience, programs

ROOT = pathlib.Path(__file__).parents[2]
OWN_LIMITS = {  # their time is simulated, or the limit is what they are about
    *("tests/patience.py", "tests/project/test_run.py", "tests/outside/test_waits.py"),
    *("tests/contract/test_memory_platform.py", "tests/kubernetes/fake.py"),
    *("tests/contract/test_truth.py", "tests/e2e/test_crash.py", "tests/e2e/test_faults.py"),
    *("tests/e2e/test_failover.py", "tests/mesos/wire.py", "tests/mesos/test_wire.py"),
}
LEAVES = """
import subprocess, sys
import pytest
from tests import programs

def test_of_a_daemon(tmp_path):
    subprocess.Popen(["sleep", "600"], start_new_session=True)

def test_of_one_with_another_environment(tmp_path):
    subprocess.Popen(["sleep", "601"], start_new_session=True, env={}, cwd=tmp_path)

def test_that_fails():
    subprocess.Popen(["sleep", "602"])
    assert not "it fails"

def test_that_needs_a_program(monkeypatch):
    monkeypatch.setenv("PATH", "")
    programs.need("busybox")

def test_that_cleans_up():
    subprocess.run(["sleep", "0.01"])
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Run those tests as tests are run here, with a worker."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    (folder / "test_it.py").write_text(LEAVES)
    environ = {k: v for k, v in os.environ.items() if k != leftovers.MARK and "PYTEST" not in k}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "1", "-c", os.devnull,
         "--rootdir", str(folder), "--basetemp", str(folder / "base"), str(folder)],
        env={**environ, "PYTHONPATH": str(ROOT)}, cwd=folder, text=True, check=False,
        capture_output=True, timeout=patience.seconds(30),
    )  # fmt: skip


def runs(pid):
    """Tell whether a process runs; a zombie that nobody has reaped has no command line."""
    try:
        return bool(pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def test_a_process_that_a_test_leaves_is_named_and_ended(done):
    """With its test, whatever became of the test and however it was started."""
    told = re.findall(r"left behind, and ended now: process (\d+) \((.*?)\) of (.*)", done.stdout)
    places = {command: place for _, command, place in told}
    assert {"sleep 600", "sleep 601", "sleep 602"} == set(places), done.stdout
    assert "test_it.py::test_of_a_daemon" in places["sleep 600"]
    assert "test_of_one_with_another" in places["sleep 601"]
    assert "test_it.py::test_that_fails" in places["sleep 602"]
    assert not [pid for pid, _, _ in told if runs(pid)]


def test_a_process_that_a_test_leaves_fails_the_run(tmp_path, monkeypatch):
    """Though every test has passed."""
    monkeypatch.setattr(leftovers, "found", lambda _: [leftovers.Leftover(0, "sleep", "a test")])
    monkeypatch.setattr(leftovers, "_EXPECTED_S", 0.0)
    monkeypatch.setattr(leftovers.os, "kill", lambda *_: None)
    session = types.SimpleNamespace(
        config=types.SimpleNamespace(stash={}), exitstatus=pytest.ExitCode.OK
    )
    conftest.pytest_sessionfinish(session)
    assert pytest.ExitCode.TESTS_FAILED == session.exitstatus


def test_what_was_skipped_for_want_of_a_program_is_said(done):
    """In one line, with the package that brings it."""
    words = "skipped for want of a program: 1 without busybox (apt-get install busybox-static)"
    assert words in done.stdout
    assert "1 failed, 3 passed, 1 skipped" in done.stdout


def test_every_program_has_a_package():
    """A skip says what helps."""
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert set(re.findall(r'programs\.(?:need|want)\("(\w+)"\)', text)) <= set(programs.PACKAGES)


def test_tests_wait_by_one_notion_of_slowness():
    """A limit in plain seconds fails on somebody's machine."""
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        place = path.relative_to(ROOT)
        if str(place) in OWN_LIMITS or place.parts[1] == "loop":
            continue
        if re.search(r"asyncio\.(timeout|wait_for)\(", path.read_text()):
            found.add(str(place))
    assert set() == found, "use tests/patience.py"


def test_what_passes_on_a_slow_machine_counts_less(monkeypatch):
    """Also when it becomes slow in the middle of a wait."""
    now, slowness = [0.0], [1.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(patience, "slowness", lambda: slowness[0])
    patient = patience.Patience(10)
    now[0] = 6.0
    assert not patient.is_over()
    slowness[0] = 10.0
    now[0] += 39.0
    assert not patient.is_over()
    now[0] += 2.0
    assert patient.is_over()


async def test_a_limit_is_reached():
    """And as asyncio's: by a TimeoutError."""
    import asyncio

    with pytest.raises(TimeoutError):
        await patience.wait_for(asyncio.Event().wait(), 0.05)
    assert 1 == await patience.wait_for(asyncio.sleep(0, 1), 5)
