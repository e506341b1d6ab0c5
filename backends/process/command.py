"""The small program that becomes a command inside an instance: it takes the agent's shape first.

Why: what is done to a child between its birth and its program belongs into no process with
threads. It is run as a file (``python -I -S command.py DIRECTORY REPORT PROGRAM ARGUMENT...``),
imports what the supervisor may import (see supervisor.py), and takes environment, directory,
cgroup and limits from ``plan.json``, as the supervisor did for the agent.

If it cannot become the program it says why as JSON on the file descriptor REPORT, and ends with
127. Refuses to know the broker, and to wait for anything.
"""

# pathlib would cost every command 10 ms: see supervisor.py

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import sys

if not __package__:  # run as a file: ``-I -S`` leaves only the standard library to import
    sys.path.append(__file__.rpartition("/backends/process/")[0])

from backends.process import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OOM_SCORE = "500"  # as the agent's
_MESSAGE_MAX = 256


def become(home: str, report: int, argv: list[str]) -> None:
    """Turn this process into a command of the instance in ``home``; never returns."""
    step, number = "prepare", errno.EINVAL
    try:
        plan = json.loads(kernel.read(f"{home}/plan.json"))
        _shape(plan)
        step = "directory"
        os.chdir(plan["work"])
        step = "execute"
        os.set_inheritable(report, False)
        os.execvpe(argv[0], argv, plan["env"])  # noqa: S606 -- no shell is the point
    except OSError as error:
        number, words = error.errno or number, error.strerror or "no reason is given"
    except BaseException:  # noqa: BLE001 -- a plan that somebody has changed; nothing of it is told
        words = "its plan.json is not what a broker wrote"
    told = {"step": step, "errno": number, "words": words[:_MESSAGE_MAX]}
    with contextlib.suppress(OSError):
        os.write(report, json.dumps(told).encode())
    os._exit(127)


def _shape(plan: dict[str, Any]) -> None:
    """Enter the agent's cgroup and take its limits; raises OSError."""
    if plan.get("cgroup"):
        file = os.open(f"{plan['cgroup']}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        os.write(file, b"0")
        os.close(file)
    os.nice(plan["nice"])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = plan["max_open_files"]
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with contextlib.suppress(OSError):
        file = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(file, _OOM_SCORE.encode())
        os.close(file)
    os.umask(0o022)


if __name__ == "__main__":
    become(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
