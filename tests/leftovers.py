"""Processes that tests have started and that are still there when all tests have ended.

Known by their environment: the run's own mark, and pytest's name of the test that they were started
in. Who was given another environment is known by the tests' folder, in which it works or which it
names.
"""

import contextlib
import os
import pathlib
import re
import secrets
import signal
import time

from attrs import frozen

from tests import patience

MARK = "AGENT_BROKER_TEST_RUN"
_TEST = re.compile(rb"PYTEST_CURRENT_TEST=([^\0]*)")
_EXPECTED_S = 1.0  # for what is just ending


@frozen
class Leftover:
    """A process, and where it is from."""

    pid: int
    command: str
    test: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command[:200]}) of {self.test}"


def mark_run() -> None:
    """Let everything that is started from now on carry a mark of this run; workers inherit it."""
    os.environ.setdefault(MARK, secrets.token_hex(8))


def found(folder: pathlib.Path | None) -> list[Leftover]:
    """Return what runs of this run's tests; ``folder``: where their folders are."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    seen = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environ = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
            test = _TEST.search(environ)
            if test and mark in environ.split(b"\0"):
                name = os.fsdecode(test[1])
            elif folder is not None and (place := _place(entry, environ + command, folder)):
                name = place
            else:
                continue
            text = os.fsdecode(command.replace(b"\0", b" ")).strip()
            if text:  # a zombie has none
                seen.append(Leftover(int(entry.name), text, name))
    return seen


def _place(entry: pathlib.Path, told: bytes, folder: pathlib.Path) -> str:
    """Return the test's folder that a process works in or names."""
    told += b"\0" + os.readlink(entry / "cwd").encode() + b"\0"
    place = re.search(re.escape(os.fsencode(folder)) + rb"/([^\0 :]+)", told)
    return f"the test with the folder {os.fsdecode(place[1])}" if place else ""


def ended(folder: pathlib.Path | None) -> list[Leftover]:
    """Wait for what is ending; kill what is not, and return it."""
    patient = patience.Patience(_EXPECTED_S)
    while (left := found(folder)) and not patient.is_over():
        time.sleep(0.05)
    for one in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGKILL)
    return left
