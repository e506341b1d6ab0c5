"""A stage for whole lives: the real command as a process, against the simulated controller.

The controller lives in the test's process, so the test counts builds by itself and does not have
to believe the broker.
"""

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
import time

from broker import clock
from broker.core import marks
from broker.demo import controller, simulation

OWNER = "e2e"
TOKEN = "a-token-that-nobody-may-see"
AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
MARK = b"AGENT_BROKER_INSTANCE="

CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:BROKER_TOKEN"}}
poll: {{busy: 250ms, idle: 500ms}}
state_dir: {state}
listen: "127.0.0.1:0"
log: {{format: console}}
defaults:
  command: ["{python}", "{agent}"]
  connect_deadline: 20s
advanced: {{orphan_grace: 1s, resume_grace: 2s, settle: 2s, backoff_base: 500ms}}
templates:
{templates}
"""

TEMPLATES = """\
  reused: {labels: linux shell, retention: {idle: 2s}, cap: 6}
  single: {labels: once, retention: {once: true}, cap: 4}
  several: {labels: wide, executors: 2, retention: {max_builds: 3, idle: 2s}, cap: 3}
"""


class Stage:
    """One controller, one configuration, any number of broker processes one after the other."""

    def __init__(self, base, *, version="2.528.3", templates=TEMPLATES):
        self.base = base
        self.state = base / "state"
        self.watch = clock.Clock()
        self.sim = simulation.Simulation(version=version)
        self.server = controller.SimulatedController(
            self.sim, now=self.watch.now, access=controller.Access(user="u", token=TOKEN)
        )
        self.templates = templates
        self.broker = None
        self.lives = 0
        self._clockwork = None

    async def __aenter__(self):
        await self.server.start()
        self.config = self.base / "broker.yaml"
        self.configure(self.templates)
        self._clockwork = asyncio.create_task(self.server.run())
        return self

    async def __aexit__(self, *_):
        if self.broker is not None:
            await self.kill()
        for pid in self.agents():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._clockwork.cancel()
        await self.server.aclose()

    def configure(self, templates, *, state=None, path=None):
        """Write the configuration."""
        text = CONFIG.format(
            owner=OWNER,
            url=self.server.url,
            state=state or self.state,
            python=sys.executable,
            agent=AGENT,
            templates=templates,
        )
        (path or self.config).write_text(text)

    # --- the broker ---

    async def start(self, *more, config=None):
        """Start a broker process and return it."""
        self.lives += 1
        self.log = self.base / f"log.{self.lives}"
        with self.log.open("wb") as log:
            started = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "broker",
                "run",
                "--config",
                str(config or self.config),
                *more,
                stderr=log,
                env={**os.environ, "BROKER_TOKEN": TOKEN},
            )
        if config is None:
            self.broker = started
        return started

    async def until_up(self):
        """Wait until the broker that was started last obeys signals."""
        await self.until(lambda: "status page served" in self.log.read_text())

    async def kill(self):
        """Kill -9."""
        with contextlib.suppress(ProcessLookupError):
            self.broker.kill()
        await self.broker.wait()
        self.broker = None

    async def stop(self, within_s=30.0):
        """SIGTERM; return the exit code."""
        self.broker.terminate()
        try:
            code = await asyncio.wait_for(self.broker.wait(), within_s)
        except TimeoutError:
            told = f"{self.left_over()}\n{self.log.read_text()[-6000:]}"
            raise AssertionError(f"still there after {within_s} s: {told}") from None
        self.broker = None
        return code

    def said(self):
        """Return what all broker processes wrote."""
        return "".join(
            path.read_text(errors="replace") for path in sorted(self.base.glob("log.*"))
        )

    # --- the world ---

    def submit(self, label, seconds, **more):
        """Put a build into the queue."""
        return self.server.submit(label=label, duration_s=seconds, job=f"job-{label}", **more)

    def fates(self):
        """Return what became of all items, with how many."""
        found = [item.fate.value for item in self.sim.items.values()]
        return {fate: found.count(fate) for fate in found}

    def nodes(self):
        """Return the nodes on the controller but for the placeholder."""
        return set(self.sim.nodes) - {marks.placeholder_name(OWNER)}

    def connected(self):
        """Return the nodes whose agent is connected."""
        return {name for name in self.nodes() if self.sim.nodes[name].connected}

    def agents(self):
        """Return the pids of all processes that belong to agents of this stage."""
        mine = str(self.state).encode()
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if MARK in environment and mine in environment:
                found.append(int(entry.name))
        return found

    def directories(self):
        """Return what lies in the process backend's directories."""
        owners = self.state / "processes" / "owners"
        shown = [path for path in owners.glob("*/*") if not path.name.startswith(".")]
        return [*shown, *owners.glob("*/.*/*")]

    async def until(self, what, within_s=30.0):
        """Wait for a state; a broker that ended meanwhile is an error."""
        end = time.monotonic() + within_s
        while not what():
            if time.monotonic() > end:
                raise AssertionError(f"not so within {within_s} s\n{self.said()[-3000:]}")
            if self.broker is not None and self.broker.returncode is not None:
                raise AssertionError(f"the broker ended\n{self.said()[-3000:]}")
            await asyncio.sleep(0.02)

    async def until_served(self, within_s=60.0):
        """Wait until every item has met its fate."""
        await self.until(lambda: "open" not in self.fates(), within_s)

    def left_over(self):
        """Return everything that should not be there when all is over."""
        return [*self.nodes(), *self.agents(), *self.directories()]
