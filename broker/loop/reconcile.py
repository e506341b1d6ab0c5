"""The loop: wait, observe, plan, dispatch; and take in how actions ended.

One cycle at a time; actions run as named tasks beside it, at most one per agent (I4). Between the
end of a look and the dispatch nothing waits, so the ledger cannot change underneath a plan. The
only place where errors are caught broadly: an action, or a cycle, that fails by a bug of ours is
logged with its traceback and counted, and the loop lives. Refuses to know HTTP and SDKs.
"""

import asyncio
import collections
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import attrs
from attrs import define, field

from backends import api as backends_api
from broker import clock, metrics
from broker import log as logs
from broker.controller import placeholder, reading
from broker.core import model
from broker.core.decide import judge
from broker.core.decide import plan as plans
from broker.core.fleet import death, latency
from broker.core.fleet import ledger as ledgers
from broker.loop import execute, health, last_words, observe, watches
from jnlp import errors as jnlp_errors
from outside import waits

_LOG = logging.getLogger("broker.reconcile")
_FRESH_IDS = 64
_DEATHS = 100
_OUTCOMES = 50
_QUESTIONS = 10
"""Vanished items asked about in one cycle, the others in the next ones ..."""
_QUESTIONS_KEPT = 1000
"""... as long as the controller remembers them (five minutes)."""


@define(kw_only=True)
class Pace:
    """How often to look, in seconds.

    At rest a peek at the queue every ``busy_s`` is what notices new items: one small request in
    place of two larger ones, because a controller saves a file for every authenticated request.
    """

    busy_s: float = 1.0
    idle_s: float = 5.0
    least_s: float = 0.1  # between two looks, however many hints come
    failing_s: float = 5.0  # while the controller does not answer, at most


@define(kw_only=True, eq=False)
class Reconciler:
    """One controller's loop and its present picture."""

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
    persist: Callable[[model.Ledger], None] = field(default=lambda _: None)
    ask_item: Callable[[int], Awaitable[reading.ItemOutcome]] | None = None
    leads: Callable[[], bool] = lambda: True  # whether we may change anything at this very moment

    ledger: model.Ledger = field(factory=model.Ledger)
    world: model.World | None = None
    last_plan: model.Plan | None = None
    outcomes: collections.deque[ledgers.Outcome] = field(
        factory=lambda: collections.deque(maxlen=_OUTCOMES)
    )
    deaths: collections.deque[death.Death] = field(
        factory=lambda: collections.deque(maxlen=_DEATHS)
    )
    last_cycle_at: float | None = None  # of the last one with a synced controller
    beat_at: float | None = None  # of the last one at all
    whole_at: float | None = None  # of the last one without a bug; at first of the first
    unread_since: dict[str, float] = field(factory=dict)  # sources, by name; see ``health``
    works: bool = False
    place_trouble: str = ""  # why the placeholder node is not as it should be
    known: latency.Known | None = None
    starts: list[latency.Started] = field(factory=list)  # of the last cycle
    launches: int = 0
    ends: int = 0
    _questions: collections.deque[latency.Vanished] = field(
        factory=lambda: collections.deque(maxlen=_QUESTIONS_KEPT)
    )
    _hint: asyncio.Event = field(factory=asyncio.Event)
    _tasks: dict[model.NodeName, asyncio.Task[None]] = field(factory=dict)
    _failures: int = 0
    _implausible: bool = False  # more is left over than we dare to remove
    _stopping: bool = False
    _looking: asyncio.Lock = field(factory=asyncio.Lock)
    _looks_begun: int = 0
    _looked: judge.SecondLook | None = None
    _terms: int = 0  # of leading, begun or ended
    _watches: watches.Watches = field(init=False)
    _watches_are_old: bool = False

    def __attrs_post_init__(self) -> None:
        self._watches = watches.Watches(
            backends=self.backends,
            wake=lambda: self.hint() if self.leads() else None,
            outlived=self._outlived,
            pause_s=self.pace.failing_s,
        )

    def hint(self) -> None:
        """Wake the loop; carries nothing."""
        self._hint.set()

    @property
    def in_flight(self) -> int:
        """How many actions run."""
        return len(self._tasks)

    async def run(self) -> None:
        """Run until ``stop``; then wait for what is in flight."""
        async with waits.TaskGroup() as group:
            self._watches.start(group)
            while not self._stopping:
                await self.cycle(group)
                await self._wait()
            while self._tasks:
                await asyncio.wait(self._tasks.values())
            self._watches.stop()

    def stop(self) -> None:
        """Order nothing new and return from ``run`` when everything in flight has ended."""
        self._stopping = True
        self._hint.set()

    # --- one of several brokers ---

    def take_over(self) -> None:
        """Begin to act where another broker has acted until now.

        Nothing is done on what was seen before this moment: the other's last action may not be in
        it. So everything is looked at anew, and what was only followed is listed.
        """
        self._change_term()
        self._watches_are_old = True
        self.hint()

    def step_down(self) -> None:
        """Act no more: what is in flight is abandoned where it is, as if by a kill."""
        self._change_term()
        self.works = False
        for task in self._tasks.values():
            task.cancel()

    def _change_term(self) -> None:
        self._terms += 1
        self.ledger = ledgers.resumed(self.ledger)
        self.known = None

    @contextlib.contextmanager
    def _outlived(self, what: str) -> Iterator[None]:
        """Log and count a bug of ours that ends ``what``; the one broad catch of the loop."""
        try:
            yield
        except placeholder.SecondBroker:
            raise
        except Exception:  # noqa: BLE001 -- the loop outlives our bugs
            self.recorder.cycle_failed("bug")
            _LOG.exception("%s failed by a bug", what)

    async def _wait(self) -> None:
        pause = self._pause()
        await asyncio.sleep(self.pace.least_s)
        left = pause - self.pace.least_s
        while left > 0 and not await self._hinted(min(left, self.pace.busy_s)):
            left -= self.pace.busy_s
            if left > 0 and self.leads() and await self._has_news():
                break
        self._hint.clear()

    def _pause(self) -> float:
        """Return the seconds until the next look; who may not act is in no hurry."""
        pause = self.pace.idle_s
        plan = self.last_plan
        if self._failures:
            grown = self.pace.busy_s * 2.0 ** min(self._failures - 1, 6)
            pause = min(grown, self.pace.failing_s)
        elif self.leads() and (plan is None or plan.active):
            pause = self.pace.busy_s
        if plan is not None and plan.wake_at is not None and self.leads():
            pause = min(pause, max(plan.wake_at - self.watch.now(), 0.0))
        return pause

    async def _hinted(self, within_s: float) -> bool:
        try:
            async with waits.timeout(within_s):
                await self._hint.wait()
        except TimeoutError:
            return False
        return True

    async def _has_news(self) -> bool:
        """Peek at the queue; return whether a look is worth it. What it shows decides nothing."""
        view = self.world.controller if self.world is not None else None
        if view is None or not view.synced:
            return False
        ready = {model.Stage.BUILDABLE, model.Stage.PENDING}
        try:
            seen = await self.reader.peek()
        except jnlp_errors.JenkinsError:
            return True  # the look will say what is wrong
        return seen != {(item.id, item.stage in ready) for item in view.items}

    async def cycle(self, group: waits.TaskGroup) -> None:
        """Observe, plan and dispatch once. Raises only ``SecondBroker`` and cancellation."""
        with logs.bound(cycle=self.ledger.cycle + 1):  # also on every line of what it dispatches
            await self._cycle(group)

    async def _cycle(self, group: waits.TaskGroup) -> None:
        began = self.beat_at = self.watch.now()
        if self.whole_at is None:
            self.whole_at = began
        self._failures += 1  # until it has gone well
        with self._outlived("cycle"):
            if self._watches_are_old:
                self._watches_are_old = False
                await self._watches.renew(group)
            term = self._terms
            plan = await self._look_and_plan(term)
            if self.world is not None and self.world.controller.synced:
                self._failures = 0
                self.last_cycle_at = self.watch.now()
            else:
                self.recorder.cycle_failed("controller")
            acts = self.works and self._leads_since(term)
            if acts and not self._stopping:
                self._dispatch(plan, group)
            if self.world is not None:
                if self._leads_since(term):
                    self._note_starts(self.world, plan, group)
                self.recorder.cycle(self.world, plan, self.watch.now() - began)
            self.whole_at = self.watch.now()

    def _leads_since(self, term: int) -> bool:
        """Whether we may act, and could all the time since a term was noted."""
        return term == self._terms and self.leads()

    async def _look_and_plan(self, term: int) -> model.Plan:
        seen = await observe.observe(
            self.reader,
            self.backends,
            now=self.watch.now,
            time_limit_s=self.time_limit_s,
        )
        if self._leads_since(term):
            await self._tend(seen.controller)
        controller = await observe.ask_suspects(
            self.reader, seen.controller, self.ledger, at=self.watch.now()
        )
        policy = self.policy()
        # nothing waits from here to the end of the dispatch
        world = model.World(
            now=self.watch.now(),
            controller=controller,
            backends=seen.backends,
            ledger=self.ledger,
            fresh_ids=tuple(self.new_id() for _ in range(_FRESH_IDS)),
            jitter=self.roll(),
        )
        plan = plans.plan(world, policy)
        observe.note_changes(self.world, world)
        self.unread_since = health.since(self.unread_since, world)
        self.ledger = plan.ledger
        self.world, self.last_plan = attrs.evolve(world, ledger=plan.ledger), plan
        for old, new in plan.illegal:
            _LOG.warning("phase change is not in the table", extra={"old": old, "new": new})
        self._tell_implausible(plan)
        self.persist(self.ledger)
        return plan

    def _tell_implausible(self, plan: model.Plan) -> None:
        """Say once that a person is needed: a drain waits for it as well."""
        text = next((r.text for r in plan.refusals if r.subject == "sweep"), "")
        if text and not self._implausible:
            _LOG.warning("sweep refused", extra={"reason": text})
        self._implausible = bool(text)

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

    def _note_starts(self, world: model.World, plan: model.Plan, group: waits.TaskGroup) -> None:
        seen = latency.look(self.known, world, plan)
        self.known = seen.known
        self.starts = list(seen.started)
        for start in seen.started:
            self._note_start(start)
        if self.ask_item is not None and not self._stopping:
            self._questions.extend(seen.vanished)
            for _ in range(min(_QUESTIONS, len(self._questions))):
                vanished = self._questions.popleft()
                group.create_task(self._ask(vanished), name=f"ask item {vanished.item}")

    def _note_start(self, start: latency.Started) -> None:
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

    async def _ask(self, vanished: latency.Vanished) -> None:
        """Find out what became of an item that was gone before it was seen to start."""
        if self.ask_item is None or self.last_plan is None:
            return
        outcome = reading.ItemOutcome(known=False)
        with self._outlived("question"), contextlib.suppress(jnlp_errors.JenkinsError):
            outcome = await self.ask_item(vanished.item)
        url = outcome.executable_url
        if url is None:
            if outcome.cancelled:
                self.ledger = ledgers.cancelled(self.ledger, vanished.item)
                self.hint()
            self.recorder.left("cancelled")
            return
        start = latency.claim(vanished, executable_url=url, agents=self.last_plan.agents)
        if start is None:
            self.recorder.left("elsewhere")
        else:
            self._note_start(start)

    # --- actions -------------------------------------------------------------------------------

    def _dispatch(self, plan: model.Plan, group: waits.TaskGroup) -> None:
        policy = self.policy()
        for action in plan.actions:
            if action.name in self._tasks:
                continue
            now = self.watch.now()
            self.ledger = ledgers.expect(self.ledger, action, now=now, policy=policy)
            verb = ledgers.verb_of(action).value
            task = group.create_task(self._perform(action), name=f"{verb} {action.name}")
            self._tasks[action.name] = task

    async def _perform(self, action: model.Action) -> None:
        began = self.watch.now()
        verb = ledgers.verb_of(action).value
        with logs.bound(agent=action.name):
            _LOG.info("%s begun", verb, extra={"reason": action.reason})
            try:
                outcome = await self.executor.perform(action)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 -- as in _outlived, and it has an outcome
                _LOG.exception("%s failed by a bug", verb)
                outcome = ledgers.Outcome(
                    action=action, at=self.watch.now(), slug="bug", text=repr(error)[:256]
                )
            finally:
                self._tasks.pop(action.name, None)
            with self._outlived("settlement"):
                self._settle(action, outcome, began)
        self.hint()

    def _settle(self, action: model.Action, outcome: ledgers.Outcome, began: float) -> None:
        policy = self.policy()
        revision = ""
        if isinstance(action, model.LaunchAgent):
            template = policy.template(action.template)
            revision = template.revision if template is not None else ""
        self.ledger = ledgers.settle(
            self.ledger, outcome, policy=policy, jitter=self.roll(), revision=revision
        )
        verb = ledgers.verb_of(action).value
        seconds = outcome.at - began
        if outcome.withdrawn:
            _LOG.info("%s withdrawn", verb, extra={"reason": outcome.text})
        elif outcome.slug:
            _LOG.warning("%s failed", verb, extra={"slug": outcome.slug, "reason": outcome.text})
        else:
            _LOG.info("%s done", verb, extra={"seconds": round(seconds, 3)})
        self._count(action, outcome, seconds)

    def _count(self, action: model.Action, outcome: ledgers.Outcome, seconds: float) -> None:
        slug = "withdrawn" if outcome.withdrawn else (outcome.slug or "ok")
        self.outcomes.append(outcome)
        self.recorder.acted(ledgers.verb_of(action), slug, seconds)
        if isinstance(action, model.LaunchAgent):
            self.launches += not outcome.slug
            self.recorder.launched(action.template, action.backend, outcome.slug or "ok", seconds)
        elif isinstance(action, model.RetireAgent | model.SweepNode | model.SweepInstance):
            if outcome.withdrawn or outcome.slug:
                return
            self.ends += 1
            memory = self.ledger.memories.get(action.name)
            template = memory.template if memory is not None else None
            slug = action.slug if isinstance(action, model.RetireAgent) else "swept"
            told = next((d.slug for d in self.deaths if d.name == action.name), slug)
            self.recorder.ended(template, told if last_words.is_bad(slug) else slug)

    async def before_end(self, action: model.Action) -> None:
        """Keep the last words of an agent before its instance is removed."""
        plan = self.last_plan
        agent = next((a for a in plan.agents if a.name == action.name), None) if plan else None
        lines: Sequence[str] = ()
        if agent is not None and agent.backend is not None and agent.instance is not None:
            backend = self.backends.get(agent.backend)
            with self._outlived("last words"):
                if backend is not None:
                    lines = await last_words.read(backend, action.name, within_s=self.time_limit_s)
        for earlier in [d for d in self.deaths if d.name == action.name]:
            self.deaths.remove(earlier)  # of an end that was put off, or did not come about
        dead = last_words.death_of(action, agent, lines, at=self.watch.now())
        self.deaths.append(dead)
        if agent is not None and agent.backend is not None and agent.template is not None:
            # what holds its successors back is said with its reason as well
            key = ledgers.key_of(model.Scope.TEMPLATE, agent.backend, agent.template)
            if last_words.is_bad(dead.slug) and dead.text != action.reason:
                self.ledger = ledgers.reworded(self.ledger, key, action.reason, dead.text)

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
                    backends=self.world.backends if self.world is not None else {},
                    ledger=self.ledger,
                )
                self._looked = judge.prepare(world, self.policy())
            return self._looked
