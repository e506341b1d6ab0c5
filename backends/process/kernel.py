"""What the supervisor asks of the kernel: descendants, their memory, process attributes, a cgroup.

Refuses to know instances and files of ours. Imports what the supervisor may import (see
supervisor.py): the standard library, and of that only what is cheap.
"""

# ruff: noqa: PTH102, PTH106, PTH110, PTH123, PTH208 -- pathlib would cost every agent 1.5 MiB

from __future__ import annotations

import contextlib
import ctypes
import os
import resource

TYPE_CHECKING = False  # typing would cost every agent 1 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def _prctl(option: int, value: int) -> None:
    """Call prctl(2); nothing where it cannot be called."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, daemons too."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int) -> None:
    """Let the kernel send us a signal when our parent ends, however it ends."""
    _prctl(_PR_SET_PDEATHSIG, number)


def boot_id() -> str:
    """Return the id of this boot of the machine (random(4))."""
    return read("/proc/sys/kernel/random/boot_id").strip()


def read(path: str) -> str:
    """Return the text of a file; raises OSError."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command: state is 0, parent 1, start 19."""
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def descendants(pid: int) -> list[int]:
    """Return every process below ``pid``, zombies too; a picture that may miss the newest."""
    fast = os.path.exists(f"/proc/{pid}/task/{pid}/children")
    parents = {} if fast else _children_by_parent()
    pids, todo = [], [pid]
    while todo:
        parent = todo.pop()
        below = _children(parent) if fast else parents.get(parent, [])
        pids += below
        todo += below
    return pids


def _children(pid: int) -> list[int]:
    """Return the direct children of a process, zombies too; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def _children_by_parent() -> dict[int, list[int]]:
    """Return all processes by parent: the slow way, for kernels without ``children`` files."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                parents.setdefault(int(stat_fields(int(entry))[1]), []).append(int(entry))
    return parents


def resident_bytes(pids: list[int]) -> int:
    """Return the memory of the processes together, without what is shared (files, libraries)."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = read(f"/proc/{pid}/statm").split()
            pages += int(fields[1]) - int(fields[2])
    return pages * resource.getpagesize()


class Group:
    """A cgroup v2 of its own for the agent, if the plan names one; else it does nothing."""

    def __init__(self, plan: dict[str, Any]) -> None:
        """Make it and set its limits; raises OSError: who asked for limits must get them."""
        self.path = str(plan.get("cgroup") or "")
        self.limits_memory = bool(self.path) and plan.get("memory_bytes") is not None
        if not self.path:
            return
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path)
            for name, value in (
                ("memory.max", plan.get("memory_bytes")),
                ("memory.low", plan.get("memory_reservation_bytes")),
                ("cpu.max", plan.get("cpu_max")),
                ("cpu.weight", plan.get("cpu_weight")),
            ):
                if value is not None:
                    self._set(name, str(value))
        except OSError as error:
            self.remove()
            text = f"cannot use the cgroup {error.filename or self.path}: {error.strerror}"
            raise OSError(error.errno, text) from error
        with contextlib.suppress(OSError):  # not in every kernel; one victim is enough then
            self._set("memory.oom.group", "1")

    def _set(self, name: str, value: str) -> None:
        """Write a control file; never create one (OSError when the kernel does not offer it)."""
        file = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, value.encode())
        finally:
            os.close(file)

    def enter(self) -> None:
        """Move the calling process into the group."""
        if self.path:
            self._set("cgroup.procs", "0")

    def kill(self) -> None:
        """Kill everything in the group at once."""
        if self.path:
            with contextlib.suppress(OSError):
                self._set("cgroup.kill", "1")

    def out_of_memory(self) -> bool:
        """True when the kernel killed something in the group for its memory."""
        if self.path:
            with contextlib.suppress(OSError):
                for line in read(f"{self.path}/memory.events").splitlines():
                    key, _, count = line.partition(" ")
                    if key == "oom_kill" and count.strip() != "0":
                        return True
        return False

    def remove(self) -> None:
        """Remove the group; it must be empty."""
        if self.path:
            with contextlib.suppress(OSError):
                os.rmdir(self.path)
