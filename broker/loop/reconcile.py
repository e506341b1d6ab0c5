"""The driver of the loop: the only one that awaits.

It reads the sources, gives what they show to ``turn``, begins the orders that come out as named
tasks, at most one per agent (I4), and gives their outcomes back; notes are logged and counted
here. Between the end of a look and the last order nothing waits, so the state cannot change
underneath a plan. The only place where errors are caught broadly: an action, or a cycle, that
fails by a bug of ours is logged with its traceback and counted, and the loop lives. Refuses to
decide, to remember (``state``), and to know HTTP and SDKs.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, assert_never

from attrs import define, evolve, field

from backends import api as backends_api
from broker import clock, metrics
from broker import log as logs
from broker.controller import placeholder, reading
from broker.core import model
from broker.core.decide import giving_up, judge
from broker.core.fleet import builds, latency, marks
from broker.core.fleet import ledger as ledgers
from broker.loop import (
    black_box,
    ending,
    execute,
    glances,
    health,
    idleness,
    last_words,
    observe,
    sources,
    telling_builds,
    turn,
    watches,
)
from broker.loop import state as states
from broker.loop.pace import Haste, Pace
from jnlp import errors as jnlp_errors
from outside import waits

_LOG = logging.getLogger("broker.reconcile")
_FRESH_IDS = 64
_PUSH_REST_S = 0.005
FINISH_S = 15.0
"""How long the end waits for what is in flight: then it is left where it is, as by a kill."""


@define(kw_only=True, eq=False)
class Reconciler:
    """One controller's loop; what it remembers is ``state``."""

    reader: observe.ControllerReader
    backends: Mapping[model.BackendName, backends_api.Backend]
    executor: execute.Executor
    place: placeholder.Placeholder | None
    policy: Callable[[], model.Policy]
    recorder: metrics.Recorder
    watch: clock.Clock
    roll: Callable[[], float]
    new_id: Callable[[], str]
    pace: Pace = field(factory=Pace)
    time_limit_s: float = 20.0
    finish_s: float = FINISH_S
    persist: Callable[[model.Ledger], None] = field(default=lambda _: None)
    box: black_box.BlackBox | None = None
    ask_item: Callable[[int], Awaitable[reading.ItemOutcome]] | None = None
    ask_result: Callable[[str], Awaitable[reading.BuildResult]] | None = None
    cancel_item: Callable[[int], Awaitable[None]] | None = None
    ask_at_work: Callable[[], Awaitable[Mapping[model.NodeName, bool]]] | None = None
    leads: Callable[[], bool] = lambda: True  # whether we may change anything at this very moment
    environments: telling_builds.Environments | None = None  # None: builds are told nothing
    ends_steps: Callable[[], bool] = lambda: False  # whether the hook is there to do so

    state: states.State = field(factory=states.State.fresh)
    beat_at: float | None = None  # of the last cycle
    whole_at: float | None = None  # of the last one without a bug; at first of the first
    works: bool = False
    place_trouble: str = ""  # why the placeholder node is not as it should be
    _haste: Haste = field(init=False)
    _hint: asyncio.Event = field(factory=asyncio.Event)
    _tasks: dict[model.NodeName, asyncio.Task[None]] = field(factory=dict)
    _asking: set[asyncio.Task[None]] = field(factory=set)  # what became of items
    _peeking: asyncio.Task[None] | None = None
    _pushed: list[model.QueueEvent] = field(factory=list)  # by the hook, not taken in yet
    _pushing: asyncio.Task[None] | None = None
    _group: waits.TaskGroup | None = None  # of ``run``, while it runs
    _glancing: asyncio.Task[None] | None = None
    _happened: bool = False  # a hint has come since the last look began
    _stopping: bool = False
    _stopped: asyncio.Event = field(factory=asyncio.Event)
    _looking: asyncio.Lock = field(factory=asyncio.Lock)
    _looks_begun: int = 0
    _looked: judge.SecondLook | None = None
    _watches: watches.Watches = field(init=False)
    _watches_are_old: bool = False
    _sources: sources.Sources = field(init=False)
    _idleness: idleness.Telling = field(init=False)
    _builds: telling_builds.BuildNotices | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._haste = Haste(pace=self.pace)
        self._sources = sources.Sources(
            read_controller=self._read_controller,
            backends=self.backends,
            now=self.watch.now,
            time_limit_s=self.time_limit_s,
            news=self._hint.set,
        )
        self._watches = watches.Watches(
            backends=self.backends,
            wake=lambda: self.hint() if self.leads() else None,
            outlived=self._outlived,
            pause_s=self.pace.failing_s,
        )

        self._idleness = idleness.Telling(
            backends=self.backends,
            now=self.watch.now,
            time_limit_s=self.time_limit_s,
            outlived=self._outlived,
        )
        if self.environments is not None:
            self._builds = telling_builds.BuildNotices(
                nodes=self.environments,
                now=self.watch.now,
                leads=self.leads,
                time_limit_s=self.time_limit_s,
                outlived=self._outlived,
            )

    def hint(self) -> None:
        """Wake the loop; carries nothing."""
        self._happened = True
        self._hint.set()

    @property
    def in_flight(self) -> int:
        """How many actions run."""
        return len(self._tasks)

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is ordered any more."""
        return self._stopping

    async def run(self) -> None:
        """Run until ``stop``; then wait for what is in flight, ``finish_s`` at most."""
        self._sources.forget()  # by an earlier run, which was cancelled
        async with waits.TaskGroup() as group:
            self._group = group
            self._watches.start(group)
            while not self._stopping:
                await self.cycle(group)
                await self._wait(group)
            await self._finish()
            self._group = None
            self._watches.stop()
            self._idleness.stop()
            if self._builds is not None:
                self._builds.stop()
            self._sources.forget()
            for task in (*self._asking, self._glancing, self._pushing):
                if task is not None:
                    task.cancel()

    def stop(self) -> None:
        """Order nothing new and return from ``run`` when everything in flight has ended."""
        self._stopping = True
        self._sources.forget()  # nobody waits for what a read would show
        self._stopped.set()
        self._hint.set()

    async def _finish(self) -> None:
        """Wait for what is in flight; what hangs is left where it is, and named."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self.finish_s)
        if not self._tasks:
            return
        _LOG.warning(
            "not ended in time and left to the next start",
            extra={"orders": ending.orders(self.state.running), "seconds": self.finish_s},
        )
        for task in self._tasks.values():
            task.cancel()

    # --- one of several brokers ---

    def ask_again(self, *, template: str | None = None, backend: str | None = None) -> int:
        """Try at once what is left alone after failures: a person says that it may be well now.

        Of a template, on a backend, or all of it. Returns how many back-offs that ended.
        """
        before, now = self.state.ledger, self.watch.now()
        ledger = ledgers.asked_again(before, now=now, template=template, backend=backend)
        self.state = evolve(self.state, ledger=ledger)
        self.hint()
        return sum(
            backoff.until_at > now and ledger.backoffs[key].until_at <= now
            for key, backoff in before.backoffs.items()
        )

    def hold(self, name: model.NodeName, *, backend: model.BackendName, within_s: float) -> None:
        """Decide nothing about an agent that is tried, for so many seconds at most."""
        now = self.watch.now()
        self.state = turn.hold(
            self.state, name, backend, template=marks.TRIED, now=now, until=now + within_s
        )

    def let_go(self, name: model.NodeName) -> None:
        """Expect that an agent which was tried is gone."""
        self.state = turn.let_go(self.state, name, now=self.watch.now())
        self.hint()

    def take_over(self) -> None:
        """Begin to act where another broker has acted until now.

        Nothing is done on what was seen before this moment: the other's last action may not be in
        it. So everything is looked at anew, and what was only followed is listed.
        """
        self.state = turn.change_term(self.state)
        self._sources.forget()
        self._idleness.forget()
        if self._builds is not None:
            self._builds.forget()
        self._watches_are_old = True
        self.hint()

    def step_down(self) -> None:
        """Act no more: what is in flight is abandoned where it is, as if by a kill."""
        self.state = turn.change_term(self.state)
        self.works = False
        for task in self._tasks.values():
            task.cancel()

    @contextlib.contextmanager
    def _outlived(self, what: str) -> Iterator[None]:
        """Log and count a bug of ours that ends ``what``; the one broad catch of the loop."""
        try:
            yield
        except placeholder.SecondBroker:
            raise
        except Exception:  # noqa: BLE001 -- the loop outlives our bugs
            self.recorder.cycle_failed(model.CycleFailure.BUG)
            _LOG.exception("%s failed by a bug", what)

    # --- when to look ---

    async def _wait(self, group: waits.TaskGroup) -> None:
        now = self.watch.now()
        pause = turn.next_look(self.state, self.pace, now)
        took = now - self.beat_at if self.beat_at is not None else 0.0
        least = self._haste.pause_s(took_s=took, now=now)
        await _comes(self._stopped, within_s=least)
        left = pause - least
        while left > 0 and not await _comes(self._hint, within_s=min(left, self.pace.busy_s)):
            left -= self.pace.busy_s
            if left > 0 and self.leads():
                self._begin_peek(group)
        self._hint.clear()
        if self._peeking is not None:
            self._peeking.cancel()  # what it would find out the look shows
            self._peeking = None

    def _begin_peek(self, group: waits.TaskGroup) -> None:
        """Peek at the queue beside the loop: a controller that does not answer holds up nobody."""
        if self._peeking is None and not self._sources.is_reading_controller:
            self._peeking = group.create_task(self._peek(), name="peek at the queue")

    async def _peek(self) -> None:
        with self._outlived("peek"):
            if await self._has_news():
                self.hint()
        self._peeking = None

    async def _has_news(self) -> bool:
        """Peek at the queue; return whether a look is worth it. What it shows decides nothing."""
        view = self.state.world.controller if self.state.world is not None else None
        if view is None or not view.synced:
            return False
        ready = {model.Stage.BUILDABLE, model.Stage.PENDING}
        try:
            queue = await self.reader.peek()
        except jnlp_errors.JenkinsError:
            return True  # the look will say what is wrong
        return queue != {(item.id, item.stage in ready) for item in view.items}

    def _begin_glances(self, group: waits.TaskGroup) -> None:
        """Glance at the computers beside the loop, as long as single-use agents are at risk."""
        if self.ask_at_work is None or self._glancing is not None or not self._at_risk():
            return
        glancing = glances.Glances(
            ask=self.ask_at_work,
            at_risk=self._at_risk,
            seen=lambda at_work: self._glanced(at_work, group),
        )

        async def glance() -> None:
            with self._outlived("glance"):
                await glancing.run()
            self._glancing = None

        self._glancing = group.create_task(glance(), name="glance at the computers")

    def _at_risk(self) -> AbstractSet[model.NodeName]:
        if self._stopping or not self.works or not self.leads():
            return frozenset()
        return turn.at_risk(self.state, self.policy(), self.watch.now())

    def _glanced(self, at_work: AbstractSet[model.NodeName], group: waits.TaskGroup) -> None:
        taken = turn.glance(self.state, at_work, self.policy(), self.watch.now())
        self.state = turn.begin(taken.state, taken.orders, self.watch.now(), self.policy())
        for order in taken.orders:
            self._begin(order, group)
        self.hint()

    # --- what the push hook tells ---

    def push(self, events: Sequence[model.QueueEvent]) -> None:
        """Take in what has happened in the queue; who is to be launched for it is so at once.

        Nothing is read for it: a look follows, and is the truth.
        """
        if self._stopping or self._group is None:
            return
        self._pushed.extend(events)
        if self._pushing is None:
            group = self._group
            self._pushing = group.create_task(self._push(group), name="take in the hook's events")
        self.hint()

    async def _push(self, group: waits.TaskGroup) -> None:
        """Take in all that has come, then rest as long as that took: the loop is not alone."""
        try:
            while self._pushed and not self._stopping:
                events, self._pushed = self._pushed, []
                began = self.watch.now()
                with self._outlived("push"):
                    self._take_events(events, group)
                await asyncio.sleep(max(_PUSH_REST_S, self.watch.now() - began))
        finally:
            self._pushing = None

    def _take_events(self, events: Sequence[model.QueueEvent], group: waits.TaskGroup) -> None:
        views = self._sources.newest()
        sightings = turn.Sightings(
            controller=views.controller,
            backends=views.backends,
            leads=self.leads(),
            may_order=self.works and not self._stopping,
        )
        taken = turn.push(
            self.state, events, sightings, self.policy(), self.watch.now(), self._dice(_FRESH_IDS)
        )
        now = self.watch.now()
        self.state = turn.begin(taken.state, taken.orders, now, self.policy())
        for order in taken.orders:
            self._begin(order, group)
        for event in events:
            if event.stage is model.Stage.BUILDABLE:
                self.recorder.hook_decided(max(0.0, now - event.at))

    # --- looking ---

    async def cycle(self, group: waits.TaskGroup) -> None:
        """Look, take in and begin the orders once. Raises ``SecondBroker`` and cancellation."""
        with logs.bound(cycle=self.state.ledger.cycle + 1):  # also on every line of its orders
            await self._cycle(group)

    async def _cycle(self, group: waits.TaskGroup) -> None:
        began = self.beat_at = self.watch.now()
        if self.whole_at is None:
            self.whole_at = began
        self.state = turn.look(self.state)
        with self._outlived("cycle"):
            if self._watches_are_old:
                self._watches_are_old = False
                await self._watches.renew(group)
            term = self.state.term
            happened, self._happened = self._happened, False
            views = await self._sources.look(group, something_happened=happened)
            # nothing waits from here on
            if self._stopping:
                return
            sightings = turn.Sightings(
                controller=views.controller,
                backends=views.backends,
                leads=self._leads_since(term),
                may_order=self.works and not self._stopping,
                hindrance=self._hindrance(),
            )
            self._take_in(sightings, group, began)
            self.whole_at = self.watch.now()

    def _hindrance(self) -> str:
        """Say why nothing may be ordered although this broker leads; empty where it does not."""
        if not self.leads():
            return ""
        if self._stopping:
            return "this broker is stopping"
        return self.place_trouble or "whether another broker works for this owner is not known yet"

    def _leads_since(self, term: int) -> bool:
        """Whether we may act, and could all the time since a term was noted."""
        return term == self.state.term and self.leads()

    async def _read_controller(self) -> model.ControllerView:
        """Read all that a look wants of the controller, and keep the placeholder in its place."""
        term = self.state.term
        view = await observe.read_controller(self.reader, now=self.watch.now, to_order=True)
        if view.synced and not view.releases and self.ends_steps():
            strands = any(computer.offline and computer.only_steps for computer in view.computers)
            view = evolve(view, releases=strands)
        if self._leads_since(term):
            await self._tend(view)
        return await observe.ask_suspects(
            self.reader, view, self.state.ledger, at=self.watch.now()
        )

    def _take_in(self, sightings: turn.Sightings, group: waits.TaskGroup, began: float) -> None:
        before, policy, now = self.state, self.policy(), self.watch.now()
        dice = self._dice(_FRESH_IDS)
        world = turn.world_of(before, sightings, now, dice)
        try:
            taken = turn.take_in(before, sightings, policy, now, dice)
        except Exception as error:
            self._keep(black_box.Breakdown.BUG, repr(error), world, policy)
            raise
        self.state = taken.state
        self._keep_what_is_wrong(taken, world, policy)
        self.state = turn.begin(self.state, taken.orders, self.watch.now(), self.policy())
        for order in taken.orders:
            self._begin(order, group)
        self.persist(self.state.ledger)
        if not sightings.controller.synced:
            self.recorder.cycle_failed(model.CycleFailure.CONTROLLER)
        for note in taken.notes:
            self._tell(note, group)
        self._begin_glances(group)
        if sightings.controller.synced and sightings.leads and sightings.may_order:
            agents = self.state.plan.agents if self.state.plan else ()
            self._idleness.begin(agents, group)
            if self._builds is not None:
                self._builds.begin(agents, group)
        if self.state.world is not None and self.state.plan is not None:
            self.recorder.cycle(self.state.world, self.state.plan, self.watch.now() - began)

    def _keep_what_is_wrong(
        self, taken: turn.Turn, world: model.World, policy: model.Policy
    ) -> None:
        for note in taken.notes:
            if isinstance(note, turn.Illegal):
                text = f"phase change is not in the table: {note.old} to {note.new}"
                self._keep(black_box.Breakdown.PHASE, text, world, policy)
        plan = taken.state.plan
        if plan is not None and plan.overshoot:
            text = f"{plan.overshoot} launches beyond what was wanted, and taken back"
            self._keep(black_box.Breakdown.OVERSHOOT, text, world, policy)

    def _keep(
        self, failure: black_box.Breakdown, text: str, world: model.World, policy: model.Policy
    ) -> None:
        if self.box is not None:
            self.box.keep(failure, text, world, policy, self.state.outcomes)

    def _dice(self, ids: int = 0) -> turn.Dice:
        return turn.Dice(jitter=self.roll(), ids=tuple(self.new_id() for _ in range(ids)))

    async def _tend(self, view: model.ControllerView) -> None:
        if self.place is None:
            self.works = True
            return
        if not view.synced:
            return
        trouble = ""
        try:
            self.works = await self.place.tend(view, now=self.watch.now())
            trouble = self.place.doubt
        except jnlp_errors.JenkinsError as error:
            # without the node labels are harder to read, and nothing else: go on
            self.works = self.works or self.place.standing.works
            trouble = f"placeholder node not kept ({error.slug}): {error.text}"
        if trouble and trouble != self.place_trouble:
            _LOG.warning("placeholder node not as it should be", extra={"reason": trouble})
        self.place_trouble = trouble

    # --- notes ---

    def _tell(self, note: turn.Note, group: waits.TaskGroup) -> None:
        """Log and count what a turn noted; what is to be asked for is asked beside the loop."""
        match note:
            case latency.Started():
                self._tell_start(note)
            case latency.Vanished():
                self._beside(lambda: self._ask(note, group), f"ask item {note.item}", group)
            case builds.GoneBuild():
                self._beside(lambda: self._ask_result(note), f"ask {note.build.agent}", group)
            case giving_up.GiveUp():
                self._beside(lambda: self._give_up(note), f"give up item {note.item}", group)
            case turn.ExtraBuild():
                self.recorder.extra_build(note.template)
                extra = {"template": note.template}
                _LOG.warning("a single-use agent had another build", extra=extra)
            case turn.Harmed():
                self.recorder.harmed(note.template, note.mishap.slug)
                reason = note.mishap.text
                _LOG.warning(
                    "an agent lives on after a mishap",
                    extra={"agent": note.name, "template": note.template, "reason": reason},
                )
            case turn.Waited():
                self._tell_waits(note)
            case turn.Cancelled() | turn.Elsewhere():
                is_cancelled = isinstance(note, turn.Cancelled)
                self.recorder.left("cancelled" if is_cancelled else "elsewhere")
            case _:
                _log(note)

    def _beside(
        self, ask: Callable[[], Coroutine[Any, Any, None]], name: str, group: waits.TaskGroup
    ) -> None:
        """Ask the controller something beside the loop, unless that is about to end."""
        if not self._stopping:
            task = group.create_task(ask(), name=name)
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def _tell_waits(self, waited: turn.Waited) -> None:
        for (template, spell), seconds in waited.seconds.items():
            self.recorder.waited(template, spell.value, seconds)

    def _tell_start(self, start: latency.Started) -> None:
        self.recorder.queue_latency(start.template, warm=start.warm, seconds=start.waited_s)
        self.recorder.left("started")
        _LOG.info(
            "item started",
            extra={
                "item": start.item,
                "agent": start.agent,
                "template": start.template,
                "warm": start.warm,
                "waited_s": round(start.waited_s, 3),
            },
        )

    async def _ask(self, vanished: latency.Vanished, group: waits.TaskGroup) -> None:
        """Find out what became of an item that was gone before it was seen to start."""
        if self.ask_item is None:
            return
        outcome = reading.ItemOutcome(known=False)
        with self._outlived("question"), contextlib.suppress(jnlp_errors.JenkinsError):
            outcome = await self.ask_item(vanished.item)
        learnt = turn.learn(
            self.state,
            vanished,
            self.policy(),
            cancelled=outcome.cancelled,
            executable_url=outcome.executable_url,
            built_on=outcome.built_on,
        )
        if learnt.state is not self.state:
            self.state = learnt.state
            self.hint()
        for note in learnt.notes:
            self._tell(note, group)

    async def _give_up(self, note: giving_up.GiveUp) -> None:
        """Cancel an item that nothing can serve; while it is refused it is tried again later."""
        if self.cancel_item is None or not self.leads():
            return
        extra = {"item": note.item, "template": note.template, "reason": note.text}
        with self._outlived("giving an item up"):
            try:
                await self.cancel_item(note.item)
            except jnlp_errors.NotFound:
                return  # it has left meanwhile
            except jnlp_errors.JenkinsError as error:
                words = "item not given up: it could not be cancelled; is Job/Cancel granted?"
                _LOG.warning(words, extra={**extra, "slug": error.slug, "error": error.text})
                return
            self.state = turn.gave_up(self.state, note.item)
            _LOG.warning("item given up: cancelled, since nothing can serve it", extra=extra)
            self.hint()

    async def _ask_result(self, ended: builds.GoneBuild) -> None:
        """Find out what came of a build that was gone soon; whatever is not told says nothing."""
        if self.ask_result is None:
            return
        with self._outlived("question"), contextlib.suppress(jnlp_errors.JenkinsError):
            told = await self.ask_result(ended.build.url)
            self.state = turn.learn_result(
                self.state, ended, result=told.result, duration_s=told.duration_s
            )

    # --- orders ---

    def _begin(self, order: model.Action, group: waits.TaskGroup) -> None:
        verb = ledgers.verb_of(order).value
        task = group.create_task(self._perform(order), name=f"{verb} {order.name}")
        self._tasks[order.name] = task

    async def _perform(self, order: model.Action) -> None:
        began = self.watch.now()
        verb = ledgers.verb_of(order).value
        with logs.bound(agent=order.name):
            _LOG.info("%s begun", verb, extra={"reason": order.reason})
            try:
                outcome = await self.executor.perform(order)
            except asyncio.CancelledError:
                self.state = turn.abandon(self.state, order.name)
                raise
            except Exception as error:  # noqa: BLE001 -- as in _outlived, and it has an outcome
                _LOG.exception("%s failed by a bug", verb)
                outcome = ledgers.Outcome(
                    action=order,
                    at=self.watch.now(),
                    failure=model.Failure.BUG,
                    text=repr(error)[:256],
                )
            finally:
                self._tasks.pop(order.name, None)
            with self._outlived("settlement"):
                self.state = turn.settle(self.state, outcome, self.policy(), self._dice())
                self._tell_outcome(outcome, seconds=outcome.at - began)
        self.hint()

    def _tell_outcome(self, outcome: ledgers.Outcome, *, seconds: float) -> None:
        action = outcome.action
        verb = ledgers.verb_of(action)
        if isinstance(action, model.CheckAgent) and outcome.passed is not None:
            self.recorder.checked(action.template, action.check, passed=outcome.passed)
        if outcome.passed is False:
            extra = {"check": _check_of(action), "reason": outcome.text}
            _LOG.warning("agent put into quarantine", extra=extra)
        elif outcome.withdrawn:
            _LOG.info("%s withdrawn", verb.value, extra={"reason": outcome.text})
        elif outcome.failure is not None:
            extra = {"slug": outcome.failure.slug, "reason": outcome.text}
            _LOG.warning("%s failed", verb.value, extra=extra)
        else:
            _LOG.info("%s done", verb.value, extra={"seconds": round(seconds, 3)})
        failed = outcome.failure.slug if outcome.failure is not None else ""
        slug = "withdrawn" if outcome.withdrawn else failed
        self.recorder.acted(verb, slug, seconds)
        if isinstance(action, model.LaunchAgent):
            self.recorder.launched(action.template, action.backend, slug, seconds)
        elif turn.is_end(action) and not slug:
            template, cause = turn.end_of(self.state, action)
            self.recorder.ended(template, cause)
            if turn.is_unused(self.state, action):
                self.recorder.unused(template)

    async def before_end(self, action: model.Removal) -> None:
        """Keep the last words of an agent before its instance is removed."""
        agent = turn.agent_of(self.state, action.name)
        lines: Sequence[str] = ()
        if agent is not None and agent.backend and last_words.are_wanted(action, agent):
            backend = self.backends.get(agent.backend)
            with self._outlived("last words"):
                if backend is not None:
                    lines = await last_words.read(backend, action.name, within_s=self.time_limit_s)
        self.state = turn.bury(self.state, action, lines, self.watch.now())
        self._tell_death(action.name)

    def _tell_death(self, name: model.NodeName) -> None:
        """Log an end that nobody planned, whether the agent had come online or not."""
        dead = self.state.deaths[-1] if self.state.deaths else None
        if dead is not None and dead.name == name and dead.cause.accident:
            extra = {"cause": dead.cause.slug, "reason": dead.text, "exit_code": dead.exit_code}
            _LOG.warning("agent died", extra=extra)

    async def look(self) -> judge.SecondLook:
        """Read the controller anew, for the second judgement before a removal.

        Many removals at once share reads, and what a read is made into: any read that began after
        the call will do.
        """
        begun = self._looks_begun
        async with self._looking:
            if self._looks_begun == begun or self._looked is None:
                self._looks_begun, self._looked = self._looks_begun + 1, None
                view = await observe.read_controller(self.reader, now=self.watch.now)
                world = model.World(
                    now=self.watch.now(),
                    controller=view,
                    backends=self.state.world.backends if self.state.world is not None else {},
                    ledger=self.state.ledger,
                )
                self._looked = judge.prepare(world, self.policy(), self.state.plan)
            return self._looked


def _check_of(action: model.Action) -> str:
    return action.check.value if isinstance(action, model.CheckAgent) else ""


def _log(
    note: health.SourceLost | health.SourceBack | turn.Illegal | turn.Implausible | turn.HeldBack,
) -> None:
    match note:
        case health.SourceLost():
            _LOG.warning("source lost", extra={"source": note.source, "reason": note.reason})
        case health.SourceBack():
            _LOG.info("source back", extra={"source": note.source})
        case turn.Illegal():
            extra = {"old": note.old, "new": note.new}
            _LOG.warning("phase change is not in the table", extra=extra)
        case turn.Implausible():  # a person is needed: a drain waits for it as well
            _LOG.warning("sweep refused", extra={"reason": note.text})
        case turn.HeldBack():
            _LOG.debug("held back", extra={"actions": len(note.actions)})
        case _:
            assert_never(note)


async def _comes(event: asyncio.Event, *, within_s: float) -> bool:
    try:
        async with waits.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
