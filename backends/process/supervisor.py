"""The small program that stands between the broker and one agent process.

Why: an agent outlives the broker, and the exit status of a process can be read by its parent only.
So each agent has a parent of its own that survives with it: it starts the agent, keeps a bounded
part of its output, watches its memory where the kernel does not, ends it with all descendants when
told to, and writes how it ended.

It is run as a file (``python -I -S supervisor.py DIRECTORY``), knows the directory and nothing
else, and imports the standard library only: about 10 MiB resident, 4 of them its own. It refuses
to know the broker, names, owners and settings; all it needs is in ``plan.json``.

Theory of operation. The first process forks and leaves, so nobody has to wait for the second, the
supervisor. A directory has at most one supervisor in its life: the hard link ``supervisor`` is
the claim, and who cannot make it leaves at once. Then, in this order: agent started, the claim
rewritten with the agent's pid, one line of JSON to standard output (what ``launch`` waits for),
``exit`` written when all is over. SIGTERM means: end it, with the grace in the file ``stop``.
"""

# pathlib would cost every agent 1.5 MiB:
# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH110, PTH123, PTH200, PTH208

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False  # typing would cost every agent 1 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_TICK_S = 1.0  # between looks at the memory
_HOUSE_S = 5.0  # between looks whether the directory still exists
_KILL_S = 10.0  # how long killed processes may take to vanish
_OOM_SCORE = "500"  # the kernel shall choose an agent before the broker or the controller
_EXIT_ROOM = 2048  # bytes reserved for the exit record, so that a full disk cannot lose it


def _prctl(option: int, value: int) -> bool:
    """Call prctl(2); False where it cannot be called."""
    try:
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _publish(path: str, value: object) -> None:
    """Write JSON so that readers see the old or the new content, never a part."""
    _write(path + ".new", json.dumps(value))
    os.replace(path + ".new", path)


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the command: state is 0, parent 1, start 19."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()


def _children(pid: int) -> list[int]:
    """Return the direct children of a process, zombies too; none when it is gone."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    return found


def _children_by_parent() -> dict[int, list[int]]:
    """Return all processes by parent: the slow way, for kernels without ``children`` files."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                parents.setdefault(int(_stat_fields(int(entry))[1]), []).append(int(entry))
    return parents


def descendants(pid: int) -> list[int]:
    """Return every process below ``pid``, zombies too."""
    fast = os.path.exists(f"/proc/{pid}/task/{pid}/children")
    parents = {} if fast else _children_by_parent()
    found, todo = [], [pid]
    while todo:
        below = _children(todo.pop()) if fast else parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def resident_bytes(pids: list[int]) -> int:
    """Return the memory of the processes together, without what is shared (files, libraries)."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _read(f"/proc/{pid}/statm").split()
            pages += int(fields[1]) - int(fields[2])
    return pages * resource.getpagesize()


class Output:
    """The bounded output: segment 0 is the head, of the later ones the last two are kept.

    Files are ``output.N``; a hole in the numbers tells the reader that something was left out.
    Output that cannot be written (disk full) is dropped: the agent must never block on us.
    """

    def __init__(self, limit: int) -> None:
        self._number = 0
        self._head = limit // 4
        self._segment = max(1, (limit - self._head) // 2)
        self._room = self._head
        self._file = self._open()

    def _open(self) -> int:
        return os.open(
            f"output.{self._number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )

    def write(self, data: bytes) -> None:
        """Keep or drop; never raises OSError."""
        while data:
            if not self._room:
                self._next()
            part, data = data[: self._room], data[self._room :]
            self._room -= len(part)
            with contextlib.suppress(OSError):
                os.write(self._file, part)

    def _next(self) -> None:
        self._number += 1
        self._room = self._segment
        if self._number > 2:
            with contextlib.suppress(OSError):
                os.unlink(f"output.{self._number - 2}")
        with contextlib.suppress(OSError):
            file = self._open()
            os.close(self._file)
            self._file = file


class Group:
    """A cgroup v2 of its own for the agent, where the plan names one and the kernel obeys."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.path = str(plan.get("cgroup") or "")
        self.limits_memory = False
        if not self.path:
            return
        try:
            os.mkdir(self.path)
            for name, value in (
                ("memory.max", plan.get("memory_bytes")),
                ("memory.low", plan.get("memory_reservation_bytes")),
                ("cpu.max", plan.get("cpu_max")),
                ("cpu.weight", plan.get("cpu_weight")),
            ):
                if value is not None:
                    self._set(name, str(value))
            self.limits_memory = plan.get("memory_bytes") is not None
            with contextlib.suppress(OSError):  # not in every kernel; one victim is enough then
                self._set("memory.oom.group", "1")
        except OSError:
            self.remove()
            self.path = ""

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
                for line in _read(f"{self.path}/memory.events").splitlines():
                    key, _, count = line.partition(" ")
                    if key == "oom_kill" and count.strip() != "0":
                        return True
        return False

    def remove(self) -> None:
        """Remove the group; it must be empty."""
        if self.path:
            with contextlib.suppress(OSError):
                os.rmdir(self.path)


class Supervisor:
    """One agent from start to end; the current directory is the instance's."""

    def __init__(self, plan: dict[str, Any], report: int) -> None:
        self.plan = plan
        self.report = report
        self.agent = 0
        self.status: int | None = None  # wait status of the agent, once it is known
        self.told_to_stop = False
        self.over_limit = ""
        self.deadline: float | None = None  # when a stopping agent is killed
        self.next_look = 0.0  # at the memory and the directory
        self.alarm, wake = os.pipe()
        for end in (self.alarm, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGHUP, signal.SIGINT):
            signal.signal(ignored, signal.SIG_IGN)

    def _on_term(self, *_: object) -> None:
        self.told_to_stop = True

    def run(self) -> None:
        """Claim, start, watch, clean up, record."""
        if not self._claim():
            self._say({"state": "claimed"})
            return
        _write("exit.new", " " * _EXIT_ROOM)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self.output = Output(self.plan["max_output_bytes"])
        self.group = Group(self.plan)
        problem = self._start()
        if problem:
            code, number, text = problem
            self._finish({"slug": "command", "code": code, "message": text})
            self._say({"state": "failed", "errno": number, "text": text})
            return
        try:
            _publish("supervisor", {**self.claim, "agent": self.agent})
        except OSError:
            self._kill_all()
            raise
        self._say({"state": "running"})
        self._watch()
        left = self._kill_all()
        self._drain()
        self._finish(self._verdict(left))

    def _claim(self) -> bool:
        """Become this directory's only supervisor; False: there is or was one."""
        pid = os.getpid()
        self.claim = {
            "pid": pid,
            "start": _stat_fields(pid)[19],
            "boot": _read("/proc/sys/kernel/random/boot_id").strip(),
        }
        name = f"claim.{pid}"
        _write(name, json.dumps(self.claim))
        try:
            os.link(name, "supervisor")
        except FileExistsError:
            return False
        finally:
            os.unlink(name)
        return True

    def _say(self, message: dict[str, Any]) -> None:
        """Tell the waiting ``launch``, if it still waits."""
        with contextlib.suppress(OSError):
            os.write(self.report, json.dumps(message).encode() + b"\n")
            os.close(self.report)

    def _start(self) -> tuple[int, int, str] | None:
        """Fork and execute; return exit code, errno and the words when it cannot be executed."""
        self.pipe, out = os.pipe()
        failed, fail = os.pipe()
        self.agent = os.fork()
        if self.agent == 0:
            self._become_agent(out, fail)
        os.close(out)
        os.close(fail)
        words = b""
        while part := os.read(failed, 4096):
            words += part
        os.close(failed)
        os.set_blocking(self.pipe, False)
        if not words:
            return None
        os.waitpid(self.agent, 0)
        code, number, text = words.decode("utf-8", "replace").split(" ", 2)
        return int(code), int(number), text

    def _become_agent(self, out: int, fail: int) -> None:
        """Turn the forked child into the agent; never returns."""
        step, code = "prepare", 126
        try:
            self._shape_process()
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (out, 1), (out, 2)):
                os.dup2(source, target)
            step = f"use the working directory {self.plan['work']}"
            os.chdir(self.plan["work"])
            argv = self.plan["argv"]
            step = f"execute {argv[0]!r}"
            os.execvpe(argv[0], argv, self.plan["env"])  # noqa: S606 -- no shell is the point
        except OSError as error:
            code = 127 if error.errno == errno.ENOENT else 126
            text = f"{code} {error.errno} cannot {step}: {error.strerror}"
            os.write(fail, text.encode("utf-8", "replace")[:2048])
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the child must not go on as a second supervisor
            text = f"{code} {errno.EINVAL} cannot {step}: {error}"
            os.write(fail, text.encode("utf-8", "replace")[:2048])
        finally:
            os._exit(127)

    def _shape_process(self) -> None:
        """Give the child its process group, cgroup, limits and clean signals."""
        parent = os.getppid()
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no agent without its supervisor
        if os.getppid() != parent:
            os._exit(127)
        self.group.enter()
        os.nice(self.plan["nice"])
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.plan["max_open_files"]
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        with contextlib.suppress(OSError):
            _write("/proc/self/oom_score_adj", _OOM_SCORE)
        os.umask(0o022)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)

    def _watch(self) -> None:
        """Copy output, reap, obey; return when the agent itself has ended or must be killed."""
        poll = select.poll()
        poll.register(self.pipe, select.POLLIN)
        poll.register(self.alarm, select.POLLIN)
        while self.status is None:
            for file, _ in poll.poll(self._wait_s() * 1000):
                if file == self.alarm:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.alarm, 512)
                elif not self._copy():
                    poll.unregister(self.pipe)
            self._reap()
            if self.told_to_stop and self.deadline is None:
                self._ask_to_end()
            if self.deadline is not None and time.monotonic() >= self.deadline:
                return
            if not self._in_order():
                return

    def _wait_s(self) -> float:
        """Return how long nothing has to be looked at."""
        until = self.next_look if self.deadline is None else min(self.next_look, self.deadline)
        return max(0.0, until - time.monotonic())

    def _tick_s(self) -> float:
        return _TICK_S if self._watches_memory() else _HOUSE_S

    def _watches_memory(self) -> bool:
        return self.plan.get("memory_bytes") is not None and not self.group.limits_memory

    def _in_order(self) -> bool:
        """False when the agent uses too much memory or its directory was taken away."""
        now = time.monotonic()
        if now < self.next_look:
            return True
        self.next_look = now + self._tick_s()
        if not os.path.exists("supervisor"):
            self.told_to_stop = True
            return False
        if self._watches_memory():
            limit = self.plan["memory_bytes"]
            used = resident_bytes(descendants(os.getpid()))
            if used > limit:
                self.over_limit = f"used {used >> 20} MiB of memory, {limit >> 20} MiB are allowed"
                return False
        return True

    def _ask_to_end(self) -> None:
        """Send SIGTERM to the agent's group and set the time of the SIGKILL."""
        grace = float(self.plan["grace_s"])
        with contextlib.suppress(OSError, ValueError):
            grace = float(_read("stop"))
        self.deadline = time.monotonic() + grace
        with contextlib.suppress(OSError):
            os.killpg(self.agent, signal.SIGTERM)

    def _copy(self) -> bool:
        """Move what the pipe holds into the output; False at its end."""
        try:
            data = os.read(self.pipe, 1 << 16)
        except BlockingIOError:
            return True
        self.output.write(data)
        return bool(data)

    def _drain(self) -> None:
        """Take what the dead left in the pipe."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.pipe, 1 << 16):
                self.output.write(data)

    def _reap(self) -> None:
        """Collect the dead, adopted ones too."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.agent:
                    self.status = status

    def _kill_all(self) -> int:
        """Kill every descendant, daemons too; return how many did not vanish in time."""
        end = time.monotonic() + _KILL_S
        while True:
            self.group.kill()
            left = descendants(os.getpid())
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            left = descendants(os.getpid())
            if not left or time.monotonic() > end:
                return len(left)
            time.sleep(0.005)

    def _verdict(self, left: int) -> dict[str, Any]:
        """Say how the agent ended."""
        code = None if self.status is None else os.waitstatus_to_exitcode(self.status)
        slug, message = "exited", f"exit status {code}"
        if code is None or code < 0:
            name = "SIGKILL" if code is None else signal.Signals(-code).name
            slug, message = "killed", f"killed by {name}"
            if self.told_to_stop:
                message += ", as the broker or the machine's shutdown asked"
            elif code == -signal.SIGKILL:
                message += ", not by the broker; the machine may have run out of memory"
        if self.over_limit:
            slug, message = "out-of-memory", self.over_limit
        elif self.group.out_of_memory():
            slug, message = "out-of-memory", f"over the memory limit, {message}"
        if left:
            message += f"; {left} of its processes did not die within {_KILL_S:g} s"
        return {"slug": slug, "code": code, "message": message}

    def _finish(self, record: dict[str, Any]) -> None:
        """Write the exit record into the room that was reserved for it."""
        self.group.remove()
        record["at"] = time.time()  # noqa: TID251 -- a program of its own: nobody can pass the time
        with contextlib.suppress(OSError):
            file = os.open("exit.new", os.O_WRONLY | os.O_CLOEXEC)
            os.write(file, json.dumps(record).encode().ljust(_EXIT_ROOM))
            os.close(file)
            os.replace("exit.new", "exit")


def main(directory: str) -> None:
    """Run as the supervisor of the instance in ``directory``."""
    os.chdir(directory)
    report = os.dup(1)
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(null, file)
    plan = json.loads(_read("plan.json"))
    try:
        Supervisor(plan, report).run()
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"state": "error", "text": str(error)}).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
