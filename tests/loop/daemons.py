"""A whole broker loop in simulated time: real plan, real executor, both sides in memory.

The controller is the simulation behind the two doors that the loop has (what it reads, what it
does to nodes); the backend is the memory backend, whose instances connect when they start.
"""

import asyncio
import collections
import contextlib
import itertools

from backends import api as backends_api
from backends import memory
from broker import clock, metrics
from broker.controller import reading as readers
from broker.core import model
from broker.core.fleet import marks
from broker.hook import inbox
from broker.loop import execute, reconcile
from broker.loop import pace as paces
from broker.loop import state as states
from broker.simulator import documents, simulation
from jnlp import errors, state
from jnlp import node as jnlp_node
from jnlp import secret as jnlp_secret
from tests import hooked

OWNER = "o"
URL = "http://c/"
LOCAL = model.BackendName("local")
OTHER = model.BackendName("other")


def template(name="t", **more):
    fields = {
        "name": name,
        "labels": frozenset({name}),
        "backends": (LOCAL,),
        "revision": "r1",
        "retention": model.Retention(idle_s=60.0),
        "connect_deadline_s": 30.0,
    }
    return model.Template(**{**fields, **more})


class Controller:
    """The simulated controller, read and written without HTTP; faults are switches."""

    def __init__(self, sim, now):
        self.sim = sim
        self.now = now
        self.down = False
        self.retry_after = None
        self.slow_s = 0.0
        self.hanging = set()  # verbs that never answer
        self.broken = set()  # verbs with a bug
        self.fails = collections.Counter()  # verbs that are not answered so often
        self.asked = collections.Counter()
        self.reads = []
        self.result = "SUCCESS"  # of every build

    async def _ask(self, verb):
        self.asked[verb] += 1
        if verb in self.broken:
            raise KeyError(verb)
        if self.fails[verb] > 0:
            self.fails[verb] -= 1
            raise errors.Unreachable("no answer")
        if verb in self.hanging:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.slow_s)
        if self.down:
            raise errors.Unreachable("no answer", retry_after=self.retry_after)
        self.sim.advance(self.now())

    async def read(self, now, *, to_order=False):
        began = now()
        self.reads.append(began)
        await self._ask("read")
        queue = documents.queue(self.sim, now=began, url=URL, language="en")
        computers = documents.computers(self.sim, url=URL)
        return model.ControllerView(
            synced=True,
            read_at=began,
            version=self.sim.version,
            session=self.sim.session,
            quieting_down=self.sim.quieting_down,
            items=readers.parse_queue(queue["items"], 0.0)[0],
            computers=readers.parse_computers(computers["computer"])[0],
            releases=self.sim.durable_task,
        )

    async def peek(self):
        await self._ask("peek")
        ready = {simulation.ItemClass.BUILDABLE, simulation.ItemClass.PENDING}
        return frozenset((item.id, item.stage in ready) for item in self.sim.wanted)

    async def ask_item(self, number):
        await self._ask("item")
        item = self.sim.items[number]
        if item.started_at is None:
            return readers.ItemOutcome(known=True, cancelled=True)
        url = f"{URL}job/{item.job}/{item.number}/"
        built_on = item.node if item.kind is simulation.TaskKind.FREESTYLE else ""
        return readers.ItemOutcome(known=True, executable_url=url, built_on=built_on)

    async def cancel_item(self, number):
        await self._ask("cancel-item")
        self.sim.cancel(self.now(), number)

    async def ask_result(self, url):
        await self._ask("result")
        (item,) = [
            one for one in self.sim.items.values() if url == f"{URL}job/{one.job}/{one.number}/"
        ]
        return readers.BuildResult(result=self.result, duration_s=item.duration_s)

    async def at_work(self):
        await self._ask("at-work")
        return {
            node.name: any(slot.running for slot in node.slots)
            for node in self.sim.all_nodes()
            if not node.idle
        }

    async def takes_work(self, names):
        await self._ask("takes-work")
        told = {name: documents.label(self.sim, name) for name in names}
        return {name: one["idleExecutors"] > 0 for name, one in told.items()}

    async def create(self, definition):
        await self._ask("create")
        node = simulation.Node(
            name=definition.name,
            labels=frozenset(definition.labels),
            executors=definition.executors,
            exclusive=definition.exclusive,
            description=definition.description,
            remote_fs=definition.remote_fs,
        )
        self.sim.create_node(self.now(), node)

    async def secret(self, name):
        await self._ask("secret")
        return jnlp_secret.Secret("0" * 64)

    async def read_node(self, name):
        await self._ask("read-node")
        if name not in self.sim.nodes:
            return state.NodeState(exists=False, name=name)
        return state.parse(documents.computer(self.sim.nodes[name], url=URL))

    async def cordon(self, name, message):
        await self._ask("cordon")
        self.sim.take_offline(self.now(), name, message)

    async def uncordon(self, name):
        await self._ask("uncordon")
        if self.sim.node(name).offline_message is not None:
            self.sim.toggle(self.now(), name, "")

    async def delete(self, name):
        await self._ask("delete")
        self.sim.delete_node(self.now(), name)

    async def release(self, name):
        await self._ask("release")
        self.sim.nodes[name].single_use = True
        self.sim.delete_node(self.now(), name)


class Nodes:
    """The write side, whose ``read`` is of one node."""

    def __init__(self, controller):
        self.create, self.secret = controller.create, controller.secret
        self.cordon, self.uncordon = controller.cordon, controller.uncordon
        self.delete, self.read = controller.delete, controller.read_node
        self.release = controller.release


class Notes(metrics.NullRecorder):
    """Keeps what a test asks for."""

    def __init__(self):
        self.failed = []
        self.latencies = []
        self.results = collections.Counter()
        self.checks = collections.Counter()
        self.extra_builds = self.unused_agents = 0

    def unused(self, template):
        self.unused_agents += 1

    def extra_build(self, template):
        self.extra_builds += 1

    def cycle_failed(self, why):
        self.failed.append(why.value)

    def queue_latency(self, template, *, warm, seconds):
        self.latencies.append((template, warm, seconds))

    def checked(self, template, check, *, passed):
        self.checks[template, check.value, passed] += 1

    def acted(self, verb, slug, seconds):
        self.results[verb.value, slug] += 1


class Daemon:
    """The loop with everything around it. Times are those of the (simulated) event loop."""

    def __init__(
        self,
        *templates,
        launch_s=1.0,
        backends=(LOCAL,),
        limits=None,
        pace=None,
        owner=OWNER,
        sim=None,
    ):
        self.owner = owner
        self.now = asyncio.get_running_loop().time
        self.tick_s = 0.2
        self.hook_s = 0.002  # what a message takes
        self._coming = None  # the hook
        self.connects_s = None  # how long an agent takes to come once its instance runs
        self.watch = clock.Clock(wall=lambda: self.now() + 1e9, monotonic=self.now)
        self.sim = sim or simulation.Simulation()
        self.controller = Controller(self.sim, self.watch.now)
        self.platforms = {
            name: memory.Platform(
                memory.MemorySettings(launch_s=launch_s),
                on_start=self._connect,
                on_stop=self._disconnect,
            )
            for name in backends
        }
        self.backends = {
            name: memory.MemoryBackend(platform, owner=owner, now=self.watch.now)
            for name, platform in self.platforms.items()
        }
        self.policy = model.Policy(
            owner=owner,
            templates=templates or (template(),),
            backends={name: limits or model.BackendPolicy() for name in backends},
            placeholder=False,
            orphan_grace_s=5.0,
            resume_grace_s=1.0,
            backoff_max_s=60.0,
        )
        self.notes = Notes()
        executor = execute.Executor(
            nodes=Nodes(self.controller),
            backends=self.backends,
            order=self._order,
            look=lambda: self.loop.look(),
            retires_by_offline=lambda: True,
            now=self.watch.now,
            before_end=lambda action: self.loop.before_end(action),
            released=lambda: self.loop.hint(),
            check_command=self._check_command,
            time_limit_s=self.policy.launch_timeout_s,
        )
        self.ids = itertools.count()
        self.loop = reconcile.Reconciler(
            reader=self.controller,
            backends=self.backends,
            executor=executor,
            place=None,
            policy=lambda: self.policy,
            recorder=self.notes,
            watch=self.watch,
            roll=lambda: 0.5,
            new_id=lambda: f"{next(self.ids):06}",
            pace=pace or paces.Pace(),
            ask_item=self.controller.ask_item,
            cancel_item=self.controller.cancel_item,
            ask_result=self.controller.ask_result,
            ask_at_work=self.controller.at_work,
        )

    def hooked(self):
        """Return a hook on the controller, and have it come as the real one does."""
        end = inbox.Inbox(
            owner=self.owner,
            key=lambda: "k" * 32,
            now=self.watch.now,
            session=lambda: self.loop.state.world.controller.session,
            take=self.loop.push,
            seen=lambda: (self.loop.state.world, self.loop.state.plan),
            tells_builds=lambda: True,
            recorder=self.notes,
        )
        self.loop.executor.hook = end
        due = asyncio.Event()
        hook = hooked.Hook(self.sim, owner=self.owner, wake=due.set)

        async def come():
            pause_s = 0.0
            while True:
                if not hook.events and not hook.done:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await due.wait()
                due.clear()
                await asyncio.sleep(self.hook_s)
                try:
                    answer = end.receive(hook.message(self.watch.now()))
                except inbox.NotHeard:
                    pause_s = 0.5
                    continue
                pause_s = hook.obey(answer.document(), self.watch.now())

        self.hook, self.inbox = hook, end
        self._coming = asyncio.create_task(come(), name="hook")
        return hook

    def _connect(self, instance):
        if self.connects_s is None:
            self._come(instance.name)
        else:
            asyncio.get_running_loop().call_later(self.connects_s(), self._come, instance.name)

    def _come(self, name):
        if name in self.sim.nodes:
            self.sim.connect(self.watch.now(), name)

    def _disconnect(self, name):
        self.sim.disconnect(self.watch.now(), name)

    def _check_command(self, action):
        template = self.policy.template(action.template)
        return template.checks.of(action.check) if template is not None else None

    def _order(self, action):
        owned = marks.Marks(
            owner=self.owner,
            template=action.template,
            backend=action.backend,
            revision="r1",
            created_at=self.watch.now(),
        )
        definition = jnlp_node.NodeDefinition(
            name=action.name,
            description=owned.description(
                single_use=self.policy.template(action.template).retention.once
            ),
            executors=1,
            remote_fs="/w",
            labels=tuple(self.policy.template(action.template).labels),
            exclusive=True,
        )
        instance = backends_api.InstanceSpec(
            name=action.name, metadata=owned.metadata(action.name)
        )
        return execute.Order(definition=definition, spec_with=lambda _: instance)

    # --- what a test does and sees ---

    def ghost(self, name, *, age_s=0.0):
        """Return a node that a cut-off life left: it has no instance."""
        created_at = self.watch.now() - age_s
        owned = marks.Marks(
            owner=OWNER, template="t", backend=LOCAL, revision="r1", created_at=created_at
        )
        return simulation.Node(
            name=name,
            labels=frozenset({"t"}),
            executors=1,
            exclusive=True,
            description=owned.description(),
        )

    async def __aenter__(self):
        self._clockwork = asyncio.create_task(self._tick(), name="clockwork")
        self.life = asyncio.create_task(self.loop.run(), name="life")
        return self

    async def restart(self):
        """End this life where it is, as by a kill, and begin another that remembers nothing."""
        self.life.cancel()
        await asyncio.gather(self.life, return_exceptions=True)
        self.loop._stopping, self.loop.state = False, states.State.fresh()
        self.life = asyncio.create_task(self.loop.run(), name="next life")

    async def __aexit__(self, *_):
        self.life.cancel()
        self._clockwork.cancel()
        others = [task for task in (self._coming,) if task is not None]
        for task in others:
            task.cancel()
        await asyncio.gather(self.life, self._clockwork, *others, return_exceptions=True)

    async def _tick(self):
        while True:
            await asyncio.sleep(self.tick_s)
            self.sim.advance(self.watch.now())
            for platform in self.platforms.values():
                platform.advance(self.watch.now())

    def submit(self, label="t", duration_s=10.0, **more):
        return self.sim.submit(
            self.watch.now(), job="j", label=label, duration_s=duration_s, **more
        )

    @property
    def instances(self):
        """Return what really runs, whatever listings show."""
        return {name for name in self.platforms for name in self.on(name)}

    def on(self, backend):
        return set(self.platforms[backend]._cells)

    def fates(self):
        return [item.fate.value for item in self.sim.items.values()]
