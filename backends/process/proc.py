"""What /proc tells about processes: who lives, who belongs to an instance; and killing them.

A process is named by pid *and* start time *and* boot, so that a reused pid is never taken for the
old one. Blocking but quick; refuses to know instances, directories or asyncio.
"""

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Iterable

from attrs import frozen

from backends.process import kernel

MARK = "AGENT_BROKER_INSTANCE"
"""In the environment of every agent, and so of its children: the token of its instance."""

_PROC = pathlib.Path("/proc")
_PAUSE_S = 0.01


@frozen(kw_only=True)
class Process:
    """One process of one boot."""

    pid: int
    start: str  # field 22 of /proc/PID/stat, proc(5): clock ticks after boot
    boot: str


def uptime_s() -> float:
    """Seconds since boot, suspended time included; no clock change moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def alive(process: Process) -> bool:
    """True when it runs; a zombie and another process with the same pid do not count."""
    if process.boot != kernel.boot_id():
        return False
    try:
        fields = kernel.stat_fields(process.pid)
    except OSError:
        return False
    return fields[0] not in "ZX" and fields[19] == process.start


def open_pidfd(process: Process) -> int | None:
    """Return a pidfd of it, readable when it ends; None when it does not run.

    Raises OSError where the kernel has none (before Linux 5.3, some sandboxes).
    """
    try:
        file = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if alive(process):
        return file
    os.close(file)
    return None


def send(process: Process, number: signal.Signals) -> None:
    """Signal exactly this process, or nobody when it does not run any more."""
    try:
        file = open_pidfd(process)
    except OSError:
        if alive(process):  # no pidfd here: a tiny window for pid reuse remains
            os.kill(process.pid, number)
        return
    if file is None:
        return
    try:
        signal.pidfd_send_signal(file, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(file)


def reap(pid: int) -> None:
    """Collect a dead child of ours: as process 1 of a container we inherit the supervisors."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        return


def marked(token: str) -> list[int]:
    """Return the living processes that carry an instance's token in their environment."""
    wanted = f"{MARK}={token}".encode()
    pids = []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # gone, or of another user: not one of ours
            continue
        if wanted in environment.split(b"\0"):
            pids.append(int(entry.name))
    return pids


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL; the dead are left alone, and those of other users (``sudo`` in a build)."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def gone(process: Process, *, within_s: float) -> bool:
    """Wait for the end of a process that was killed; False when it does not come."""
    end = time.monotonic() + within_s
    while alive(process):
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_S)
    return True


def kill_marked(token: str, *, within_s: float) -> list[int]:
    """Kill what carries the token until nothing does; return what is left after ``within_s``."""
    end = time.monotonic() + within_s
    while pids := marked(token):
        if time.monotonic() > end:
            return pids
        kill(pids)
        time.sleep(_PAUSE_S)
    return []
