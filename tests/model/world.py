"""A whole world without an event loop: controller, platform, agents, and a broker over them.

Controller and platform are the product's own simulations; plan, ledger, judge and the executor are
the real ones. The executor's coroutines are driven by hand, one call to the outside at a time, so
that a crash fits between any two of them. Everything happens on ``now``, moved by ``pass_time``.
"""

import heapq
import itertools

from backends import api as backends_api
from backends import memory
from broker.core import model
from broker.core.fleet import marks
from broker.core.model import BackendName
from broker.simulator import documents, inventory, simulation
from jnlp import errors as jnlp_errors
from jnlp import secret as jnlp_secret
from jnlp import state as jnlp_state
from jnlp import version as jnlp_version

OWNER = "o"
START = 1_000_000.0
URL = "http://c/"
B, C = BackendName("one"), BackendName("two")
FOREIGN_NODE = "pet"


QUARANTINE = (model.Cause.READY_CHECK, model.Cause.DIRTY_CHECK)


class Pause:
    """What an executor awaits at each call to the outside: the driver takes over."""

    def __await__(self):
        yield self


class Broken(AssertionError):
    """An invariant does not hold."""


def require(holds, what):
    if not holds:
        raise Broken(what)


class Nodes:
    """The write side of the controller; each call is one step, and may be told to fail."""

    def __init__(self, world):
        self.world = world

    async def _call(self):
        await Pause()
        self.world.controller_answers()

    async def create(self, definition):
        await self._call()
        world = self.world
        world.strike("create")
        require(definition.name not in world.created, f"I5: {definition.name} is used again")
        world.created.add(definition.name)
        node = inventory.Node(
            name=definition.name,
            labels=frozenset(definition.labels),
            executors=definition.executors,
            exclusive=definition.exclusive,
            description=definition.description,
        )
        world.sim.create_node(world.now, node)
        world.unchecked.add(definition.name)
        world.strike("create-late")

    async def secret(self, name):
        await self._call()
        self.world.strike("secret")
        return jnlp_secret.Secret("0" * 64)

    async def cordon(self, name, message):
        await self._call()
        self.world.strike("cordon")
        self.world.on_node(self.world.sim.take_offline, name, message)
        self.world.strike("cordon-late")

    async def uncordon(self, name):
        await self._call()
        self.world.strike("uncordon")
        node = self.world.sim.nodes.get(name)
        if node is not None and node.offline_message is not None:
            self.world.sim.toggle(self.world.now, name, "")

    async def seal(self, name, *labels, busy):
        await self._call()
        self.world.strike("seal")
        # as the client does it: an old controller would drop an idle agent for its schedule
        refuses = busy or jnlp_version.schedule_only_refuses(self.world.sim.version)
        self.world.on_node(
            self.world.sim.configure, name, wanted=frozenset(labels), scheduled=refuses
        )

    async def unseal(self, name, *labels, exclusive=True):
        await self._call()
        node = self.world.sim.nodes.get(name)
        kept = node.labels if node is not None else frozenset()
        wanted = frozenset(labels) or kept
        self.world.on_node(self.world.sim.configure, name, wanted=wanted)

    async def delete(self, name):
        await self._call()
        self.world.strike("delete")
        world = self.world
        node = world.sim.nodes.get(name)
        world.must_be_ours(name)
        if node is not None and node.connected:
            require(
                not any(s.item is not None and s.running for s in node.slots),
                f"I2: {name} is deleted while it builds",
            )
        world.on_node(world.sim.delete_node, name)
        world.strike("delete-late")

    async def release(self, name):
        await self._call()
        self.world.strike("release")
        world = self.world
        world.must_be_ours(name)
        node = world.sim.nodes.get(name)
        if node is None:
            return
        require(not node.connected, f"I2: {name} is released while it is connected")
        kinds = {s.item.kind for s in node.slots if s.item is not None}
        require(kinds <= {inventory.TaskKind.PIPELINE}, f"I2: {name} is released with {kinds}")
        node.single_use = world.sim.durable_task
        world.strike("release-late")
        world.on_node(world.sim.delete_node, name)
        world.strike("delete-late")

    async def read(self, name):
        await self._call()
        world = self.world
        world.sim.advance(world.now)
        node = world.sim.nodes.get(name)
        if node is None:
            return jnlp_state.NodeState(exists=False)
        return jnlp_state.parse(documents.computer(node, url=URL))


class Backend:
    """One platform behind the contract, as far as the executor uses it."""

    kind = "memory"

    def __init__(self, world, name):
        self.world, self.name = world, name

    async def _call(self):
        await Pause()
        if self.name in self.world.dark:
            raise backends_api.Unavailable("no answer")

    async def reserve(self, wanted):
        await self._call()
        self.world.strike("reserve")
        self.world.platforms[self.name].reserve(wanted, owner=OWNER, now=self.world.now)
        self.world.strike("reserve-late")

    async def launch(self, wanted):
        await self._call()
        self.world.strike("launch")
        self.world.platforms[self.name].start(wanted, owner=OWNER, now=self.world.now)
        self.world.strike("launch-late")

    async def run(self, name, argv, *, within_s):
        await self._call()
        self.world.strike("run")
        ran = self.world.platforms[self.name].command(name, argv, owner=OWNER, now=self.world.now)
        await Pause()  # it takes a while, and what is the matter then the answer does not say
        if ran.code == 0:
            self.world.unchecked.discard(name)
        self.world.strike("run-late")
        return ran

    async def terminate(self, name, *, grace_s):
        await self._call()
        self.world.strike("terminate")
        node = self.world.sim.nodes.get(name)
        if node is not None and node.connected:
            require(node.idle, f"I2: the instance of {name} is terminated while it builds")
        self.world.platforms[self.name].stop(name, owner=OWNER, now=self.world.now)


class World:
    """Everything outside the broker."""

    def __init__(self, policy, *, version="2.528.3", starts_s=2.0, connects_s=3.0, restless=False):
        self.policy = policy
        self.now = START
        self.sim = simulation.Simulation(version=version)
        self.sim.on_gone = self._node_gone
        self.platforms = {
            name: memory.Platform(
                memory.MemorySettings(launch_s=starts_s),
                on_start=self._instance_runs,
                on_stop=self._instance_stops,
                on_run=self._checked,
            )
            for name in policy.backends
        }
        self.connects_s = connects_s
        self.slow_s = []  # extra seconds until the next agents connect
        self.dark = set()  # backends that do not answer
        self.silent = set()  # sources whose read is under way, and does not end
        self.mute = False  # the controller does not answer
        self.faults = {}  # point -> errors to raise there, one a call
        self.created = set()
        self.unchecked = set()  # no ready check of them has passed
        self.quarantined = set()
        self.codes = []  # what the next checks end with; then 0
        self.excused = set()  # items whose build died of a scripted fault
        self.timers = []
        self.count = itertools.count()
        self._foreign()

    def _foreign(self):
        """Put a node and an instance there that belong to somebody else (I9)."""
        other = marks.Marks(owner="other", template="t", backend=B, revision="r", created_at=START)
        self.sim.create_node(
            self.now,
            inventory.Node(
                name=FOREIGN_NODE, labels=frozenset({"pet"}), description=other.description()
            ),
        )
        for platform in self.platforms.values():
            wanted = backends_api.InstanceSpec(
                name=FOREIGN_NODE, metadata=other.metadata(FOREIGN_NODE), argv=("x",)
            )
            platform.start(wanted, owner="other", now=self.now)
        place = inventory.Node(name=f"{OWNER}-placeholder", labels=frozenset())
        self.sim.create_node(self.now, place)

    # --- faults ---

    def fail_next(self, point, error):
        self.faults.setdefault(point, []).append(error)

    def strike(self, point):
        if self.faults.get(point):
            raise self.faults[point].pop(0)

    def controller_answers(self):
        if self.mute or self.sim.is_down(self.now):
            raise jnlp_errors.Unreachable("no answer")

    def heal(self):
        self.faults.clear()
        self.dark.clear()
        self.silent.clear()
        self.mute = False
        self.slow_s.clear()
        for platform in self.platforms.values():
            platform.clear_faults()
        self.sim.quiet_down(self.now, on=False)
        for name, node in self.sim.nodes.items():
            if node.offline_message is not None and not node.offline_message.startswith(
                model.CORDON_MARK
            ):
                self.sim.toggle(self.now, name, "")

    def excuse(self, names):
        """Builds on these nodes die of what a test does now, not of the broker."""
        for name in names:
            node = self.sim.nodes.get(name)
            for slot in node.slots if node is not None else ():
                if slot.item is not None:
                    self.excused.add(slot.item.id)

    def instance_dies(self, name):
        self.excuse([name])
        for platform in self.platforms.values():
            if name in platform._cells:
                platform.kill(name, backends_api.Exit(slug="killed", code=-9), now=self.now)

    def drops(self, name):
        """The channel breaks; the agent comes back by itself."""
        self.excuse([name])
        self.sim.disconnect(self.now, name)
        self.at(self.now + 10.0, self._connect, name)

    def restart(self, down_s=5.0):
        self.excuse(list(self.sim.nodes))
        self.sim.restart(self.now, down_s=down_s)

    # --- time and agents ---

    def at(self, when, what, *about):
        heapq.heappush(self.timers, (when, next(self.count), what, about))

    def next_at(self):
        due = [self.timers[0][0] if self.timers else None, self.sim.next_at()]
        due += [platform.wake_at() for platform in self.platforms.values()]
        return min((at for at in due if at is not None), default=None)

    def pass_time(self, seconds):
        until = self.now + seconds
        while (due := self.next_at()) is not None and due <= until:
            self.now = max(self.now, due)
            self._advance()
        self.now = until
        self._advance()

    def _advance(self):
        while self.timers and self.timers[0][0] <= self.now:
            _, _, what, about = heapq.heappop(self.timers)
            what(*about)
        for platform in self.platforms.values():
            platform.advance(self.now)
        self.sim.advance(self.now)

    def _instance_runs(self, wanted):
        if wanted.metadata["owner"] == OWNER:
            extra = self.slow_s.pop(0) if self.slow_s else 0.0
            self.at(self.now + self.connects_s + extra, self._connect, wanted.name)

    def _connect(self, name):
        if not any(
            name in p._cells and p._cells[name].state is backends_api.InstanceState.RUNNING
            for p in self.platforms.values()
        ):
            return
        if self.sim.is_down(self.now):
            self.at(self.now + 5.0, self._connect, name)
        elif name not in self.sim.nodes:
            self.instance_dies(name)  # agent.jar gives up on a node that does not exist
        elif not self.sim.nodes[name].connected:
            self.sim.connect(self.now, name)

    def _checked(self, name, argv):
        return backends_api.Ran(code=self.codes.pop(0) if self.codes else 0, output="said so")

    def _node_gone(self, name, why):
        if why == "restart":
            self.at(self.sim.down_until + 5.0, self._connect, name)
        else:
            self.at(self.now + 1.0, self.instance_dies, name)

    def _instance_stops(self, name):
        self.sim.disconnect(self.now, name)

    def on_node(self, what, name, *more, **named):
        """Do something to one of our nodes; 404 as the client says it."""
        self.must_be_ours(name)
        try:
            what(self.now, name, *more, **named)
        except inventory.SimulatedRefusal as refused:
            raise jnlp_errors.NotFound(str(refused)) from refused

    def must_be_ours(self, name):
        require(name in self.created, f"I9: {name} is not ours")

    # --- what is there, and what became of it ---

    def ours(self):
        """Return names of ours on either side with template and backend."""
        found = {}
        for name, node in self.sim.nodes.items():
            read = marks.from_description(node.description)
            if read is not None and read.owner == OWNER:
                found[name] = (read.template, read.backend)
        for backend, platform in self.platforms.items():
            for cell in platform._cells.values():
                if cell.owner == OWNER:
                    found[cell.spec.name] = (cell.spec.metadata["template"], backend)
        return found

    def slots(self):
        """Return who of ours is in which slot of its template, by its instance."""
        told = [
            cell.spec for p in self.platforms.values() for cell in p._cells.values()
            if cell.owner == OWNER
        ]  # fmt: skip
        return {
            (spec.metadata["template"], int(spec.metadata["slot"])): spec.name
            for spec in told
            if "slot" in spec.metadata
        }

    def check(self):
        """Judge what has happened so far."""
        require(FOREIGN_NODE in self.sim.nodes, "I9: a foreign node was deleted")
        for platform in self.platforms.values():
            require(FOREIGN_NODE in platform._cells, "I9: a foreign instance was terminated")
        for item in self.sim.items.values():
            require(item.fate is not inventory.Fate.LOST, f"item {item.id} was lost")
            if item.fate is inventory.Fate.FAILED:
                require(item.id in self.excused, f"I2: the build of item {item.id} died of us")

        self._check_fitness()

    def _check_fitness(self):
        """Whoever is to be checked works on nothing before; who has failed, never again."""
        for name, node in self.sim.nodes.items():
            read = marks.from_description(node.description)
            if read is None or read.owner != OWNER:
                continue
            template = self.policy.template(read.template)
            if template is None or template.checks.ready is None:
                self.unchecked.discard(name)  # it may have been let in meanwhile
            at_work = any(slot.item is not None for slot in node.slots)
            require(not (at_work and name in self.unchecked), f"{name} works unchecked")
            require(not (at_work and name in self.quarantined), f"{name} works in quarantine")
            words = node.offline_message or ""
            if words.startswith(tuple(f"{model.CORDON_MARK} {c.slug}:" for c in QUARANTINE)):
                self.quarantined.add(name)

    def waiting(self):
        """Return the items that somebody of ours could serve and that are not done yet."""
        served = [t.labels for t in self.policy.templates]
        return [
            item
            for item in self.sim.items.values()
            if item.fate is inventory.Fate.OPEN
            and (item.pinned is not None or any(item.wanted.fits(x) for x in served))
        ]
