"""What an agent and all its descendants use: by its cgroup, else by /proc. Blocking but quick.

Refuses to know instances; who is asked when is ``kit.usage``'s.
"""

import contextlib
import os
from collections.abc import Callable

from backends.kit import usage
from backends.process import kernel, proc
from outside import typed

_BYTES_MAX = 1 << 62
_USER, _CHILDREN_SYSTEM = 11, 14  # of kernel.stat_fields: utime, stime, cutime, cstime; proc(5)


def sample(
    supervisor: proc.Process, group: str | None, limit: int | None, *, now: Callable[[], float]
) -> usage.Sample | None:
    """Return what is in use below a supervisor just now; None if it does not run.

    ``group``: the cgroup v2 of the agent, which knows more than its processes do; ``limit``: what
    the supervisor watches over where there is none.
    """
    if not proc.alive(supervisor):
        return None
    if group is not None:
        with contextlib.suppress(OSError):
            return _of_group(group, at=now())
    pids = kernel.descendants(supervisor.pid)
    ticks = [_ticks(pid) for pid in (supervisor.pid, *pids)]
    return usage.Sample(
        at=now(),
        memory_bytes=kernel.resident_bytes(pids),
        memory_limit_bytes=limit,
        cpu_s=sum(ticks) / os.sysconf("SC_CLK_TCK"),
    )


def _ticks(pid: int) -> int:
    """Return the time of a process and of all children that it has seen end; 0: it is gone."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return sum(map(int, kernel.stat_fields(pid)[_USER : _CHILDREN_SYSTEM + 1]))
    return 0


def _of_group(path: str, *, at: float) -> usage.Sample:
    """Read a cgroup v2 (the kernel's cgroup-v2.rst). Raises OSError if it is none."""
    used = _number(kernel.read(f"{path}/memory.current"))
    files = _of(f"{path}/memory.stat", "inactive_file") or 0
    spent = _of(f"{path}/cpu.stat", "usage_usec")
    held = _of(f"{path}/cpu.stat", "throttled_usec")  # only where processors are limited
    return usage.Sample(
        at=at,
        memory_bytes=max(0, used - files) if used is not None else None,
        memory_cached_peak_bytes=_optional(f"{path}/memory.peak"),  # since Linux 5.19
        memory_limit_bytes=_optional(f"{path}/memory.max"),
        cpu_s=spent / 1e6 if spent is not None else None,
        throttled_s=held / 1e6 if held is not None else None,
    )


def _optional(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return _number(kernel.read(path))
    return None


def _of(path: str, wanted: str) -> int | None:
    """Return one value of a file of lines ``key value``."""
    with contextlib.suppress(OSError):
        for line in kernel.read(path).splitlines():
            key, _, value = line.partition(" ")
            if key == wanted:
                return _number(value)
    return None


def _number(words: str) -> int | None:
    """Return a number of the kernel's; None for ``max``, which is no limit."""
    told = words.strip()
    return typed.integer(int(told), 0, _BYTES_MAX) if told.isdecimal() else None
