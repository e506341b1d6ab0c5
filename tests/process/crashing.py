"""A broker that is killed at a chosen step: run as a program by ``test_crash.py``.

It imports everything once, then forks a broker per line of standard input and answers with one
line. A step is what changes the world (Python's audit events for files, links and processes), the
kill is SIGKILL right before it, in whatever thread it happens. ``step`` 0: no kill.

Line in: JSON {"verb", "root", "step" or "after_s", "spec": {...}}; line out: the number of steps
that were begun, or "killed".
"""

import asyncio
import json
import os
import pathlib
import signal
import sys
import time

from backends import api
from backends.process import backend, settings

_CHANGES = frozenset(
    (
        "open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir",
        "os.chmod", "subprocess.Popen", "os.kill", "signal.pthread_kill", "fcntl.flock",
    )
)  # fmt: skip
_READS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY


class Steps:
    """Counts the steps and kills at one of them."""

    def __init__(self, last: int) -> None:
        self.begun, self._last, self.on = 0, last, False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on or event not in _CHANGES:
            return
        if event == "open" and not int(arguments[2] or 0) & ~_READS:
            return
        self.begun += 1
        if self.begun == self._last:
            os.kill(os.getpid(), signal.SIGKILL)


async def _work(order: dict[str, object], steps: Steps) -> None:
    configured = settings.ProcessSettings(directory=str(order["root"]))
    root = pathlib.Path(order["root"])
    made = backend.create(configured, owner="ours", store=None, state_dir=root, now=time.time)
    spec = api.InstanceSpec(**{**order["spec"], "argv": tuple(order["spec"]["argv"])})
    if order["verb"] == "terminate":
        await made.launch(spec)
    if order.get("after_s"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default is to die of it at once
        signal.setitimer(signal.ITIMER_REAL, order["after_s"])
    steps.on = True
    if order["verb"] == "terminate":
        await made.terminate(spec.name, grace_s=0)
    else:
        await made.launch(spec)
    steps.on = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    await made.aclose()


def main() -> None:
    """Fork one broker after the other."""
    for line in sys.stdin:
        order = json.loads(line)
        listen, say = os.pipe()
        pid = os.fork()
        if pid == 0:
            steps = Steps(order.get("step", 0))
            asyncio.run(_work(order, steps))
            os.write(say, b"%d" % steps.begun)
            os._exit(0)
        os.close(say)
        _, status = os.waitpid(pid, 0)
        told = os.read(listen, 100).decode() or "killed"
        os.close(listen)
        if status not in {0, signal.SIGKILL, signal.SIGALRM}:
            told = f"failed with {status}"
        print(told, flush=True)


if __name__ == "__main__":
    main()
