"""What /proc tells about processes: who lives, who belongs to an instance; and killing them.

A process is named by pid *and* start time *and* boot, so that a reused pid is never taken for the
old one. Blocking but quick; refuses to know instances, directories or asyncio.
"""

import os
import pathlib
import signal
import time
from collections.abc import Iterable

from attrs import frozen

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


def boot_id() -> str:
    """Return the id of this boot of the machine (random(4))."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def uptime_s() -> float:
    """Seconds since boot, suspended time included; no clock change moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def alive(process: Process) -> bool:
    """True when it runs; a zombie and another process with the same pid do not count."""
    if process.boot != boot_id():
        return False
    try:
        fields = (_PROC / str(process.pid) / "stat").read_text(errors="replace")
    except OSError:
        return False
    state, *rest = fields.rpartition(")")[2].split()
    return state not in "ZX" and rest[18] == process.start


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
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # gone, or of another user: not one of ours
            continue
        if wanted in environment.split(b"\0"):
            found.append(int(entry.name))
    return found


def below(pid: int) -> list[int]:
    """Return every process below ``pid``."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                text = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(
                int(entry.name)
            )
    found: list[int] = []
    todo = [pid]
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += more
    return found


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL; the dead are ignored."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_marked(token: str, *, within_s: float) -> list[int]:
    """Kill what carries the token until nothing does; return what is left after ``within_s``."""
    end = time.monotonic() + within_s
    while pids := marked(token):
        if time.monotonic() > end:
            return pids
        kill(pids)
        time.sleep(_PAUSE_S)
    return []
