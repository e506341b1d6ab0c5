"""A stage for whole programs: the broker as a subprocess, real agent processes, a controller here.

The simulated controller lives in the test's own loop, so that a test sees what really became of
every build; nothing is asked of the broker but its exit code and its words.
"""

import asyncio
import contextlib
import os
import pathlib
import signal
import sys

import attrs

from broker import clock
from broker.core.fleet import marks
from broker.simulator import controller, simulation
from tests import forked, patience

OWNER = "e2e"
PLACEHOLDER = marks.placeholder_name(OWNER)
AGENT = pathlib.Path(controller.__file__).with_name("agent.py")
TOKEN = "a-token-of-eleven"

CONFIG = """\
owner: {owner}
controller: {{url: "{url}", user: u, token: "env:TOKEN", timeout: 2s}}
poll: {{busy: 250ms, idle: {idle}}}
state_dir: {state}
listen: {listen}
log: {{format: console}}
backends:
  local: {{kind: process, directory: {directory}}}
defaults:
  command: ["{python}", "-S", "{agent}"]
  connect_deadline: 20s
templates:
{templates}
advanced:
  resume_grace: 500ms
  orphan_grace: 1s
  backoff_base: 500ms
  backoff_max: 2s
  sweep_floor: 1000  # lives of a second never sweep, so that much is left over for the last one
"""

TEMPLATES = """\
  pool:
    labels: pool
    retention: {idle: 1s, max_builds: 3}
  single:
    labels: single
    retention: {once: true, idle: 1s}
  wide:
    labels: wide
    executors: 2
    retention: {max_builds: 3, idle: 1s}
"""


@attrs.define
class Ended:
    """How a broker process ended."""

    code: int
    said: str


class Requests(list):
    """What the controller was asked; somebody may wait for a certain request."""

    def __init__(self):
        super().__init__()
        self.waiters = []

    def append(self, request):
        super().append(request)
        for fits, future in self.waiters:
            if fits(*request) and not future.done():
                future.set_result(None)

    async def next_that(self, fits):
        future = asyncio.get_running_loop().create_future()
        waiter = (fits, future)
        self.waiters.append(waiter)
        try:
            await future
        finally:
            self.waiters.remove(waiter)


class Stage:
    """One controller, one state directory, and the brokers that a test starts on them."""

    def __init__(self, folder, *, templates=TEMPLATES, idle="1s", version="2.528.3"):
        self.folder = folder
        self.templates = templates
        self.idle = idle
        self.listen = "off"
        self.watch = clock.Clock()
        self.sim = simulation.Simulation(version=version)
        self.server = controller.SimulatedController(
            self.sim, now=self.watch.now, access=controller.Accounts(user="u", token=TOKEN)
        )
        self.server.requests = Requests()
        self.state = folder / "state"
        self.instances = folder / "instances"
        self.config = folder / "broker.yaml"
        self.brokers = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        await self._stack.__aenter__()
        await self._stack.enter_async_context(self.server)
        clockwork = asyncio.create_task(self.server.run(), name="clockwork")
        self._stack.callback(clockwork.cancel)
        self._stack.push_async_callback(self._clean_up)
        self.write_config()
        return self

    async def __aexit__(self, *raised):
        await self._stack.__aexit__(*raised)

    def write_config(self, **changed):
        """Write the configuration file; ``changed`` are fields of the stage."""
        for name, value in changed.items():
            setattr(self, name, value)
        self.config.write_text(
            CONFIG.format(
                owner=OWNER,
                url=self.server.url,
                idle=self.idle,
                listen=self.listen,
                state=self.state,
                directory=self.instances,
                python=sys.executable,
                agent=AGENT,
                templates=self.templates,
            )
        )

    # --- brokers ---

    async def start(self, *arguments, config=None):
        """Start a broker; return its process."""
        said = self.folder / f"broker-{len(self.brokers)}.log"
        with said.open("wb") as log:
            process = await forked.start(
                *("run", "--config", str(config or self.config), *arguments),
                output=log,
                cwd=self.folder,
                env={**os.environ, "TOKEN": TOKEN},
            )
        process.said = said
        process.asked_before = len(self.server.requests)
        self.brokers.append(process)
        return process

    async def until_up(self, process):
        """Wait until a broker obeys signals: it does before its first look."""
        await self.until(
            lambda: ("GET", "computer/api/json") in self.server.requests[process.asked_before :],
            "its first look",
        )

    async def ended(self, process, *, within_s=20.0):
        """Wait for a broker's end."""
        try:
            async with patience.limit(within_s):
                code = await process.wait()
        except TimeoutError:
            raise AssertionError(f"no end within {within_s} s\n{self.describe()}") from None
        return Ended(code, process.said.read_text())

    async def kill(self, process):
        """Kill -9 and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def stop(self, process, *, within_s=20.0):
        """End a broker as a service manager would."""
        await self.until_up(process)
        process.send_signal(signal.SIGTERM)
        return await self.ended(process, within_s=within_s)

    # --- the world ---

    def submit(self, label, duration_s=0.3, **more):
        return self.server.submit(job=f"job-{label}", label=label, duration_s=duration_s, **more)

    @property
    def open(self):
        """Builds that are not done yet."""
        items = self.sim.items.values()
        return [item for item in items if item.fate is simulation.Fate.OPEN]

    @property
    def agents(self):
        """Nodes of agents on the controller."""
        return {name for name in self.sim.nodes if name != PLACEHOLDER}

    @property
    def directories(self):
        """What the process backend keeps on the disk, half made and half removed too."""
        found = []
        for home in self.instances.glob("owners/*"):
            for entry in home.iterdir():
                inside = list(entry.iterdir()) if entry.name.startswith(".") else [entry]
                found += [path.name for path in inside]
        return found

    def processes(self):
        """Everything alive that was started from this stage's folder, but brokers."""
        mark = str(self.instances).encode()
        brokers = {process.pid for process in self.brokers}
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in brokers | {os.getpid()}:
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if line and mark in line + (entry / "environ").read_bytes():
                    found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace")
        return found

    async def until(self, fits, what, *, within_s=20.0):
        """Wait for a state of the world; say how it was when it did not come."""
        patient = patience.Patience(within_s)
        while not fits():
            if patient.is_over():
                raise AssertionError(f"not within {within_s} s: {what}\n{self.describe()}")
            await asyncio.sleep(0.02)

    async def until_served(self, *, within_s=20.0):
        await self.until(lambda: not self.open, "every build has ended", within_s=within_s)

    def fates(self):
        """How many builds ended how."""
        counts = {}
        for item in self.sim.items.values():
            counts[item.fate.value] = counts.get(item.fate.value, 0) + 1
        return counts

    def describe(self):
        """Everything a person needs who reads a failure."""
        said = "".join(
            f"--- {p.said.name}, {p.returncode}\n{p.said.read_text()[-6000:]}"
            for p in self.brokers[-3:]
        )
        nodes = {
            name: (
                node.connected,
                node.offline_message,
                [s.item and s.item.id for s in node.slots],
            )
            for name, node in self.sim.nodes.items()
        }
        waiting = [(i.id, i.label, i.stage, i.node) for i in self.open]
        return (
            f"fates {self.fates()}\nopen {waiting}\nnodes {nodes}\n"
            f"directories {self.directories}\nprocesses {self.processes()}\n{said}"
        )

    async def _clean_up(self):
        """Leave nothing behind, whatever a failed test left."""
        for process in self.brokers:
            await self.kill(process)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
