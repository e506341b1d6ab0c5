"""The small program that stands between the broker and one agent process.

Why: an agent outlives the broker, and the exit status of a process can be read by its parent only.
So each agent has a parent of its own that survives with it: it starts the agent, keeps a bounded
part of its output, watches its memory where the kernel does not, ends it with all descendants when
told to, and writes how it ended.

It is run as a file (``python -I -S supervisor.py DIRECTORY``), knows the directory and nothing
else, and imports the standard library and two modules beside it only: about 10 MiB resident, 4 of
them its own. It refuses to know the broker, names, owners and settings; all it needs is in
``plan.json``.

Theory of operation. The first process forks and leaves, so nobody has to wait for the second, the
supervisor. A directory has at most one supervisor in its life: the hard link ``supervisor`` is
the claim, and who cannot make it leaves at once. Then, in this order: agent started, the claim
rewritten with the agent's pid, one line of JSON to standard output (what ``launch`` waits for),
``exit`` written when all is over. SIGTERM means: end it, with the grace in the file ``stop``.
"""

# pathlib would cost every agent 1.5 MiB:
# ruff: noqa: PTH105, PTH108, PTH116

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import sys
import time

if not __package__:  # run as a file: ``-I -S`` leaves only the standard library to import
    sys.path.append(__file__.rpartition("/backends/process/")[0])

from backends.process import kernel, output

TYPE_CHECKING = False  # typing would cost every agent 1 MiB; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

_TICK_S = 1.0  # between looks at the memory
_HOUSE_S = 5.0  # between looks whether the directory still exists
_KILL_S = 10.0  # how long killed processes may take to vanish
_OOM_SCORE = "500"  # the kernel shall choose an agent before the broker or the controller
_EXIT_ROOM = 2048  # bytes reserved for the exit record, so that a full disk cannot lose it
_MESSAGE_MAX = 256  # characters, at most 4 bytes each


def _write(path: str, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _publish(path: str, value: object) -> None:
    """Write JSON so that readers see the old or the new content, never a part."""
    _write(path + ".new", json.dumps(value))
    os.replace(path + ".new", path)


class Supervisor:
    """One agent from start to end; the current directory is the instance's."""

    def __init__(self, home: str, plan: dict[str, Any], report: int) -> None:
        self.home = home
        self.plan = plan
        self.report = report  # where ``launch`` listens; -1 when everything is said
        self.agent = 0
        self.group = kernel.Group({})
        self.pipe = -1
        self.status: int | None = None  # wait status of the agent, once it is known
        self.asked = self.told_to_stop = False
        self.trouble: dict[str, Any] = {}  # what ended it besides itself and the broker
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
        self.asked = self.told_to_stop = True

    def run(self) -> None:
        """Claim, start, watch, clean up, record; raises OSError while nothing is claimed."""
        if not self._claim():
            self._say({"state": "claimed"})
            return
        try:
            self._prepare()
            if self._start():
                _publish("supervisor", {**self.claim, "agent": self.agent})
                self._say({"state": "running"})
                self._watch()
        except OSError as error:
            text = f"the supervisor process failed: {error.strerror or error}"
            self.trouble = {"slug": "platform-lost", "errno": error.errno, "message": text}
        left = self._kill_all()
        self._drain()
        self._finish(self._verdict(left))
        self._say({"state": "failed", **self.trouble})

    def _claim(self) -> bool:
        """Become this directory's only supervisor; False: there is or was one."""
        pid = os.getpid()
        start = kernel.stat_fields(pid)[19]
        self.claim = {"pid": pid, "start": start, "boot": kernel.boot_id()}
        name = f"claim.{pid}"
        _write(name, json.dumps(self.claim))
        try:
            os.link(name, "supervisor")
        except FileExistsError:
            return False
        finally:
            os.unlink(name)
        return self._in_place()  # else the claim of who removed it was removed with it

    def _in_place(self) -> bool:
        """False when the directory was taken away."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.stat(self.home), os.stat("."))
        return False

    def _prepare(self) -> None:
        _write("exit.new", " " * _EXIT_ROOM)
        kernel.adopt_orphans()
        self.output = output.Output(self.plan["max_output_bytes"])

    def _say(self, message: dict[str, Any]) -> None:
        """Tell the waiting ``launch``, if it still waits; only the first word counts."""
        if self.report < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self.report, json.dumps(message).encode() + b"\n")
        os.close(self.report)
        self.report = -1

    def _start(self) -> bool:
        """Fork and execute; False, and why in ``trouble``, when it cannot be executed."""
        try:
            self.group = kernel.Group(self.plan)
        except OSError as error:
            words = str(error.strerror)
            self.trouble = {"slug": "unknown", "errno": error.errno, "message": words}
            self.trouble["everybody"] = True  # the group is the backend's
            return False
        self.pipe, out = os.pipe()
        failed, fail = os.pipe()
        self.agent = os.fork()
        if self.agent == 0:
            self._become_agent(out, fail)
        os.close(out)
        os.close(fail)
        os.set_blocking(self.pipe, False)
        trouble = b""
        while part := os.read(failed, 4096):  # the end comes with the execution
            trouble += part
        os.close(failed)
        if trouble:
            self.trouble = json.loads(trouble)
        return not trouble

    def _become_agent(self, out: int, fail: int) -> None:
        """Turn the forked child into the agent; never returns."""
        step, argv = "prepare the process", self.plan["argv"]
        code, number, words = 126, errno.EINVAL, "no reason"
        try:
            self._shape_process()
            null = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((null, 0), (out, 1), (out, 2)):
                os.dup2(source, target)
            step = f"use the working directory {self.plan['work']}"
            os.chdir(self.plan["work"])
            step = f"execute '{argv[0]}'"
            os.execvpe(argv[0], argv, self.plan["env"])  # noqa: S606 -- no shell is the point
        except OSError as error:
            code = 127 if error.errno == errno.ENOENT else 126
            number, words = error.errno or number, error.strerror or str(error)
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the child must not go on as a second supervisor
            words = str(error)
        finally:
            trouble = {
                "slug": "command" if step.startswith("execute") else "unknown",
                "code": code,
                "errno": number,
                "message": f"cannot {step[:200]}: {words}"[:_MESSAGE_MAX],
            }
            os.write(fail, json.dumps(trouble).encode())
            os._exit(code)

    def _shape_process(self) -> None:
        """Give the child its process group, cgroup, limits and clean signals."""
        os.setpgid(0, 0)
        kernel.die_with_parent(signal.SIGKILL)  # no agent without its supervisor
        if os.getppid() != self.claim["pid"]:  # it ended before the kernel knew our wish
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
        for number in signal.valid_signals():  # a broker in the background ignores SIGQUIT
            if signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

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
            if self.asked and self.status is None:
                self._ask_to_end()
            if self.deadline is not None and time.monotonic() >= self.deadline:
                return
            if not self._in_order():
                return

    def _wait_s(self) -> float:
        """Return how long nothing has to be looked at."""
        until = self.next_look if self.deadline is None else min(self.next_look, self.deadline)
        return max(0.0, until - time.monotonic())

    def _in_order(self) -> bool:
        """False when the agent uses too much memory or its directory was taken away."""
        now = time.monotonic()
        if now < self.next_look:
            return True
        limit = None if self.group.limits_memory else self.plan.get("memory_bytes")
        self.next_look = now + (_HOUSE_S if limit is None else _TICK_S)
        if not self._in_place():
            self.told_to_stop = True
            return False
        if limit is not None:
            used = kernel.resident_bytes(kernel.descendants(os.getpid()))
            if used > limit:
                words = f"used {used >> 20} MiB of memory, {limit >> 20} MiB are allowed"
                self.trouble = {"slug": "out-of-memory", "message": words}
                return False
        return True

    def _ask_to_end(self) -> None:
        """Send SIGTERM to the agent's group and set the time of the SIGKILL, never later."""
        self.asked = False
        grace = float(self.plan["grace_s"])
        with contextlib.suppress(OSError, ValueError):
            grace = float(kernel.read("stop"))
        deadline = time.monotonic() + grace
        self.deadline = deadline if self.deadline is None else min(deadline, self.deadline)
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
        if self.pipe >= 0:
            with contextlib.suppress(BlockingIOError):
                while data := os.read(self.pipe, 1 << 16):
                    self.output.write(data)

    def _reap(self) -> bool:
        """Collect the dead, adopted ones too; False when nobody is left."""
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self.agent:
                    self.status = status
        except ChildProcessError:
            return False

    def _kill_all(self) -> int:
        """Kill every descendant, daemons too; return how many did not vanish in time."""
        end = time.monotonic() + _KILL_S
        while self._reap():
            self.group.kill()
            left = kernel.descendants(os.getpid())
            for pid in left:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > end:
                return len(left)
            time.sleep(0.002)
        return 0

    def _verdict(self, left: int) -> dict[str, Any]:
        """Say how the agent ended."""
        code = None if self.status is None else os.waitstatus_to_exitcode(self.status)
        slug, message = "exited", f"exit status {code}"
        if code is None or code < 0:
            slug, message = "killed", f"killed by {_signal_name(-(code or -signal.SIGKILL))}"
            if self.told_to_stop:
                message += ", as the broker or the machine's shutdown asked"
            elif code == -signal.SIGKILL:
                message += ", not by the broker; the machine may have run out of memory"
        if self.trouble:
            slug, message = self.trouble["slug"], self.trouble["message"]
            code = self.trouble.get("code", code)
        elif self.group.out_of_memory():
            slug, message = "out-of-memory", f"over the memory limit, {message}"
        if left:
            message += f"; {left} of its processes did not die within {_KILL_S:g} s"
        return {"slug": slug, "code": code, "message": message[:_MESSAGE_MAX]}

    def _finish(self, record: dict[str, Any]) -> None:
        """Write the exit record into the room that was reserved for it."""
        self.group.remove()
        record["at"] = time.time()  # noqa: TID251 -- a program of its own: nobody can pass the time
        text = json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")
        with contextlib.suppress(OSError):
            file = os.open("exit.new", os.O_WRONLY | os.O_CLOEXEC)
            os.write(file, text.ljust(_EXIT_ROOM))
            os.close(file)
            os.replace("exit.new", "exit")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


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
    try:
        Supervisor(directory, json.loads(kernel.read("plan.json")), report).run()
    except OSError as error:
        text = f"the supervisor process failed: {error.strerror or error}"
        told = {"state": "failed", "errno": error.errno, "message": text}
        with contextlib.suppress(OSError):
            os.write(report, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
