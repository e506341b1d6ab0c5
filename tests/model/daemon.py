"""A broker over a ``World``: the real turn, state, judge and executor, driven step by step.

Only who reads, who performs and the time are simulated here; what the loop does with what it sees
and with how its orders end is the product's own (``broker.loop.turn``).
"""

import functools
import itertools

import attrs

from backends import api as backends_api
from broker.controller import reading
from broker.core import model
from broker.core.decide import judge, spec
from broker.core.fleet import accounts
from broker.core.fleet import ledger as ledgers
from broker.loop import execute, pace, sources, turn
from broker.loop import state as states
from broker.simulator import documents
from jnlp import version as jnlp_version
from tests.model.world import OWNER, URL, Backend, Broken, Nodes, Pause, require

CONTROLLER = "controller"
TIME_LIMIT_S = 120.0
PACE = pace.Pace()


class Daemon:
    """One life after another of a broker; ``crash`` ends one at whatever step it is."""

    def __init__(self, world, *, plans_twice=True):
        self.world = world
        self.plans_twice = plans_twice  # judge in every cycle that the plan is a fixed point
        self.ids = (f"{n:05d}" for n in itertools.count())
        self.state = states.State.fresh()
        self.reads = {}  # source -> newest view, since when one is under way, what it will show
        self.running = {}  # name -> (coroutine, action, begun at)
        self.executor = execute.Executor(
            nodes=Nodes(world),
            backends={name: Backend(world, name) for name in world.platforms},
            order=self._order,
            look=self._fresh_look,
            retires_by_offline=lambda: jnlp_version.safe_to_retire_by_offline(world.sim.version),
            now=lambda: world.now,
            before_end=self._before_end,
            check_command=self._check_command,
        )

    async def _before_end(self, action):
        await Pause()
        self.state = turn.bury(self.state, action, (), self.world.now)

    def _check_command(self, action):
        template = self.world.policy.template(action.template)
        return template.checks.of(action.check) if template is not None else None

    def _order(self, action):
        template = self.world.policy.template(action.template)
        site = spec.Site(
            owner=OWNER,
            style=spec.Style.COMMAND,
            controller_version=self.world.sim.version,
            jar_url=f"{URL}jnlpJars/agent.jar",
            work_dir="/w",
            now=self.world.now,
        )
        return execute.Order(
            definition=spec.definition(action, template, site),
            spec_with=lambda secret: spec.instance(action, template, site, secret),
        )

    async def _fresh_look(self):
        await Pause()
        before = self.state.world
        silent = CONTROLLER in self.world.silent
        fresh = model.World(
            now=self.world.now,
            controller=model.ControllerView(error="silent") if silent else self._controller(),
            backends=before.backends if before is not None else {},
            ledger=self.state.ledger,
        )
        return judge.prepare(fresh, self.world.policy)

    # --- seeing ---

    def _controller(self):
        world = self.world
        world.sim.advance(world.now)
        if world.mute or world.sim.is_down(world.now):
            return model.ControllerView(error="no answer", read_at=world.now)
        told = documents.queue(world.sim, now=world.now, url=URL, language="en")
        items = reading.parse_queue(told["items"], 0.0)[0]
        return model.ControllerView(
            synced=True,
            read_at=world.now,
            version=world.sim.version,
            session=world.sim.session,
            quieting_down=world.sim.quieting_down,
            items=items,
            computers=reading.parse_computers(documents.computers(world.sim, url=URL)["computer"])[
                0
            ],
            releases=world.sim.durable_task,
        )

    def _newest(self, source, read, unread):
        """Return the newest view of a source; of one that is silent it grows old."""
        now = self.world.now
        view, asked_at, coming = self.reads.get(source, (unread, None, None))
        if source not in self.world.silent:
            # what was under way comes first, as it was when its read began
            view = coming if coming is not None else read()
            self.reads[source] = view, None, None
            return view
        if asked_at is None:
            asked_at, coming = now, read()
        self.reads[source] = view, asked_at, coming
        return sources.aged(view, asked_at, now=now, patience_s=sources.PATIENCE_S)

    def _list(self, name):
        world = self.world
        if name in world.dark:
            return model.BackendView(error="no answer", read_at=world.now)
        seen = world.platforms[name].visible(owner=OWNER, now=world.now)
        return model.BackendView(synced=True, read_at=world.now, instances=tuple(seen))

    # --- one cycle ---

    def cycle(self):
        """Observe, plan, judge the plan, dispatch, and judge once more that it is a fixed point."""
        self._time_out()
        world, policy = self.world, self.world.policy
        sightings = turn.Sightings(
            controller=self._newest(CONTROLLER, self._controller, model.ControllerView()),
            backends={
                name: self._newest(name, functools.partial(self._list, name), model.BackendView())
                for name in world.platforms
            },
        )
        before = turn.look(self.state)
        taken = turn.take_in(before, sightings, policy, world.now, self._dice(16))
        self.state = taken.state
        made = taken.state.plan
        self._judge(taken.state.world, made)
        self._waits_add_up(taken)
        require(
            {a.name for a in taken.orders} == {a.name for a in made.actions} - set(self.running),
            f"I4: orders {taken.orders}, planned {made.actions}, running {set(self.running)}",
        )
        for action in taken.orders:
            self.state = turn.begin(self.state, (action,), world.now, policy)
            coroutine = self.executor.attempt(action)
            coroutine.send(None)  # up to its first call to the outside, not beyond
            self.running[action.name] = (coroutine, action, world.now)
        require(set(self.running) == set(self.state.running), "what runs is not what is known")
        self._caps_hold(made)
        self._slots_are_free(made)
        if not self.plans_twice:
            return made
        again = turn.take_in(self.state, sightings, policy, world.now, self._dice(16)).state.plan
        require(not again.actions, f"I6: more at once: {again.actions}; {self._story(made)}")
        return made

    def _dice(self, ids=0):
        return turn.Dice(jitter=0.5, ids=tuple(itertools.islice(self.ids, ids)))

    def next_look(self):
        """Return the pause that the loop would make now."""
        return turn.next_look(self.state, PACE, self.world.now)

    def _judge(self, seen, made):
        names = [a.name for a in made.actions]
        require(len(names) == len(set(names)), f"I4: two actions for one agent: {made.actions}")
        require(made.overshoot == 0, f"ordered {made.overshoot} more than wanted")
        require(made.illegal == (), f"illegal phase changes {made.illegal}")
        if not seen.controller.synced:
            require(made.actions == (), "I3: it acts without a controller")
            return
        told = {u.item for u in made.unmet}
        for item in seen.controller.items:
            if item.stage is not model.Stage.PENDING:
                require(item.id in told, f"I7: item {item.id} has no reason ({item.why})")
        phases = {a.name: a for a in made.agents}
        for action in made.actions:
            if not isinstance(action, model.Removal):
                continue
            agent = phases[action.name]
            dead = isinstance(action, model.ReleaseAgent) and agent.computer.offline
            busy = agent.phase is model.Phase.BUSY and not dead
            require(not busy, f"I2: busy {agent.name} is to go")
            view = seen.backends.get(agent.backend)
            require(view is not None and view.synced, f"I3: {agent.name} goes unseen")

    def _waits_add_up(self, taken):
        """What is booked of a wait is the wait, and everybody who waits has an account."""
        book, seen = taken.state.waits, taken.state.world
        if seen.controller.synced and not seen.controller.odd_items:
            told = {u.item for u in taken.state.plan.unmet}
            require(told <= book.open.keys(), f"no account: {told - book.open.keys()}")
        for one in book.open.values():
            spent = accounts.so_far(one, seen.now)
            wait = max(seen.now - one.since_at, 0.0)
            require(abs(sum(spent.values()) - wait) < 1e-3, f"not {wait} s: {one}")
        for one in book.closed[-5:]:
            wait = max(one.ended_at - one.since_at, 0.0)
            require(abs(sum(one.spent.values()) - wait) < 1e-3, f"not {wait} s: {one}")
        for note in taken.notes:
            if isinstance(note, turn.Waited):
                require(min(note.seconds.values()) > 0, f"time runs backwards: {note}")

    def _caps_hold(self, made):
        """I1, counted on the world itself: what is there and what is being launched."""
        if self.world.dark or any(p._stale_reads for p in self.world.platforms.values()):
            return
        there = self.world.ours()
        for _, action, _ in self.running.values():
            if isinstance(action, model.LaunchAgent):
                there.setdefault(action.name, (action.template, action.backend))
        policy = self.world.policy
        for action in made.actions:
            if not isinstance(action, model.LaunchAgent):
                continue
            of_template = sum(t == action.template for t, _ in there.values())
            on_backend = sum(b == action.backend for _, b in there.values())
            cap = policy.template(action.template).cap
            require(cap is None or of_template <= cap, f"I1: {of_template} of {cap}")
            cap = policy.backends[action.backend].cap
            require(cap is None or on_backend <= cap, f"I1: {on_backend} on it, cap {cap}")
            require(policy.cap is None or len(there) <= policy.cap, f"I1: {len(there)} in all")

    def _slots_are_free(self, made):
        """Nobody is ordered into the slot of one that is there or is being launched."""
        if self.world.dark or any(p._stale_reads for p in self.world.platforms.values()):
            return
        taken = self.world.slots()
        for _, action, _ in self.running.values():
            if isinstance(action, model.LaunchAgent):
                taken.setdefault((action.template, action.slot), action.name)
        for action in made.actions:
            if isinstance(action, model.LaunchAgent) and action.slot is not None:
                other = taken.setdefault((action.template, action.slot), action.name)
                require(other == action.name, f"{other} is in slot {action.slot}")

    # --- steps ---

    def step(self, name):
        """Let one action make one call to the outside."""
        self._time_out()
        if name not in self.running:
            return
        coroutine, action, _ = self.running[name]
        try:
            coroutine.send(None)
        except StopIteration as end:
            self._settle(action, end.value)

    def _time_out(self):
        """End what takes too long, as the executor's time limit does."""
        for coroutine, action, begun_at in list(self.running.values()):
            if self.world.now - begun_at >= TIME_LIMIT_S:
                coroutine.close()
                late = {
                    "failure": model.Failure.UNAVAILABLE,
                    "text": "not done in time",
                }
                self._settle(action, ledgers.Outcome(action=action, at=self.world.now, **late))

    def _settle(self, action, outcome):
        del self.running[action.name]
        self.state = turn.settle(self.state, outcome, self.world.policy, self._dice())

    def finish_actions(self):
        """Let everything in flight end."""
        while self.running:
            self.step(next(iter(self.running)))

    def crash(self):
        """kill -9: what was under way stops where it is, what was remembered is gone."""
        for coroutine, _, _ in self.running.values():
            coroutine.close()
        self.running.clear()
        self.reads.clear()
        self.state = states.State.fresh()

    # --- liveness ---

    def live_until(self, is_done, *, within_s, what):
        """Run cycles until something holds; I8 is that it does, in time."""
        world = self.world
        deadline = world.now + within_s
        while True:
            made = self.cycle()
            self.finish_actions()
            world.check()
            if is_done():
                return
            if world.now >= deadline:
                raise Broken(f"I8: not {what} within {within_s:g} s: {self._story(made)}")
            pause = self.next_look()
            if (at := world.next_at()) is not None:
                pause = min(pause, at - world.now)
            world.pass_time(max(pause, 0.5))

    def _story(self, made):
        return (
            [(u.item, u.reason.value, u.text) for u in made.unmet],
            [(a.name, a.phase.value, a.in_flight) for a in made.agents],
            [r.text for r in made.refusals],
            made.actions,
        )

    def settle_down(self, *, within_s=1500.0):
        """Heal the world: all demand is served, then, draining, nothing of ours is left (I8)."""
        world = self.world
        world.heal()
        self.live_until(lambda: not world.waiting(), within_s=within_s, what="served")
        world.policy = attrs.evolve(world.policy, draining=True)
        self.live_until(lambda: not world.ours(), within_s=within_s, what="cleaned up")


def backend_errors():
    """One of each error of the backend contract."""
    return [
        backends_api.Rejected("no such image"),
        backends_api.NoCapacity("full", retry_after=20.0),
        backends_api.Unauthorized("no"),
        backends_api.Unavailable("busy", retry_after=7.0),
        backends_api.AlreadyExists("taken"),
    ]
