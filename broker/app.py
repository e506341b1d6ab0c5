"""One broker at work: its loop, its status page, and its end, in order.

One broker, one controller; where several brokers share the controller, one of them acts. Refuses
to know kinds of backends and HTTP, and how a broker is put together (``assembly``).
"""

import asyncio
import contextlib
import functools
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence

from attrs import define, evolve, field

import broker
from backends import api as backends_api
from broker import clock, config, metrics, page_address, status, store, tries
from broker.control import guard
from broker.control import orders as order_forms
from broker.controller import placeholder
from broker.core import model
from broker.core.fleet import death, standing
from broker.core.fleet import hour as hours
from broker.core.fleet import ledger as ledgers
from broker.hook import inbox, installing
from broker.leading import leadership
from broker.loop import ending, health, reconcile
from jnlp import errors as jnlp_errors
from jnlp import http as jnlp_http
from outside import waits

_LOG = logging.getLogger("broker.app")
_LAG_S = 1.0
_BEAT_LATE_S = 60.0
"""A controller that does not answer is no reason to restart: see ``health``."""
CLOSE_S = 8.0
"""For letting go of all connections, once what was in flight has ended."""
END_S = 30.0
"""Within this an end has come: what is in flight, the lease, ``CLOSE_S``, and whatever hangs."""
_DEPART_S = 5.0
_HOOK_S = 1.0
_DRAIN_SAID_S = 30.0  # all of it; what changes is said within a second
_LEFT_SHOWN = 100
HOLDER = "holder"
"""Key in the store: who this broker was in its lives so far."""
_HOLDERS_KEPT = 8


@define(kw_only=True, eq=False)
class Broker:
    """Everything of one broker, put together; also what the status pages ask."""

    settings: config.Settings
    files: store.FileStore
    session: jnlp_http.ControllerSession
    backends: Mapping[model.BackendName, backends_api.Backend]
    reconciler: reconcile.Reconciler
    recorder: metrics.PrometheusRecorder
    watch: clock.Clock
    leads: leadership.Leadership
    draining: bool = False
    drain_s: float = math.inf  # for how long at most
    left: str = ""  # what a drain has not waited for any longer
    ends_within: Callable[[float], None] = lambda _: None  # told the seconds that an end may take
    version: str = broker.__version__
    page: str = ""  # address of the status page once it is served
    configuration: config.ConfigurationState = field(factory=config.ConfigurationState)
    tried: tries.Tries | None = None  # what a person may have tried
    orders: order_forms.Orders | None = None  # what people may order, and what stands of it
    hook: inbox.Inbox | None = None
    _server: status.Server | None = None
    _disk_full: bool = False
    _drained: bool = False
    _acts: bool = True  # what the loop was last told

    def __attrs_post_init__(self) -> None:
        self._acts = self.leads.leading
        self._record_leader()
        self._in_force(waits=())

    # --- what the status pages ask ---

    @property
    def policy(self) -> model.Policy:
        """The configuration in force, of this moment."""
        told = config.policy(self.settings, wall_now=self.watch.wall(), draining=self.draining)
        if self.orders is None:
            return told
        return standing.in_force(told, self.orders.standing(), now=self.watch.now())

    @property
    def fingerprint(self) -> str:
        """What tells the file in force from another one."""
        return self.settings.fingerprint

    @property
    def world(self) -> model.World | None:
        """The last observation."""
        return self.reconciler.state.world

    @property
    def as_of(self) -> Mapping[str, float]:
        """When the last good read of each source began."""
        return self.reconciler.state.as_of

    @property
    def unread_since(self) -> Mapping[str, float]:
        """Since when a source is unknown, those that are."""
        return self.reconciler.state.unread_since

    @property
    def plan(self) -> model.Plan | None:
        """The last plan."""
        return self.reconciler.state.plan

    @property
    def last_read(self) -> tuple[model.World, model.Plan] | None:
        """The last observation, and its plan, of which the controller was a part."""
        return self.reconciler.state.last_read

    @property
    def outcomes(self) -> Sequence[ledgers.Outcome]:
        """The last actions that ended."""
        return self.reconciler.state.outcomes

    @property
    def deaths(self) -> Sequence[death.Death]:
        """The last agents that ended."""
        return self.reconciler.state.deaths

    @property
    def waits(self) -> model.WaitBook:
        """What the time of who waits was spent on."""
        return self.reconciler.state.waits

    @property
    def leadership(self) -> leadership.LeadershipState:
        """Whether this broker acts, and who does."""
        return self.leads.state()

    @property
    def hour(self) -> hours.Hour:
        """The last hour, minute by minute."""
        return self.reconciler.state.hour

    @property
    def hooked(self) -> inbox.HookState | None:
        """What is known of the push hook; None where there is to be none."""
        if self.hook is None or self.settings.hook is None:
            return None
        return evolve(self.hook.state, trouble=self.hook.state.trouble or self.hook.trouble)

    def now(self) -> float:
        """POSIX seconds on the broker's clock."""
        return self.watch.now()

    def ready(self) -> tuple[bool, str]:
        """Whether all sources are synced and this broker may work.

        A configuration that was refused is said and no more: the one before it works.
        """
        good, words = self._works()
        refusal = self.configuration.refusal
        if refusal:
            words = f"{words}; the newest configuration is refused, one before it is in force: "
            words += refusal.partition("\n")[0]
        return good, words

    def _works(self) -> tuple[bool, str]:
        world = self.world
        if world is None:
            return False, "nothing was read yet"
        if missing := health.unread(world):
            return False, "; ".join(f"{name}: {error}" for name, error in missing.items())
        led = self.leads.state()
        if not led.leading:
            return led.reached, f"standby: {led.reason}"
        if not self.reconciler.works:
            waits = "waiting whether another broker of this owner answers"
            return False, self.reconciler.place_trouble or waits
        return True, "ok"

    def alive(self) -> tuple[bool, str]:
        """Whether the loop turns; where it can do nothing for long, the words say so."""
        now, beat, whole = self.watch.now(), self.reconciler.beat_at, self.reconciler.whole_at
        late = now - beat if beat is not None else 0.0
        if late > _BEAT_LATE_S + self.settings.poll.idle_s:
            return False, f"the loop has not turned for {late:.0f} s"
        if whole is not None and now - whole > health.LONG_S:
            minutes = (now - whole) / 60
            return False, f"every look has failed by a bug for {minutes:.0f} min; see the log"
        idle = ""
        if self.world is not None:
            idle = health.idle_words(self.world, self.reconciler.state.unread_since, now=now)
        return True, f"the loop turns, but can do nothing: {idle}" if idle else "ok"

    # --- the life ---

    async def run(self, *, ready: Callable[["Broker"], None] | None = None) -> None:
        """Serve and reconcile until ``stop``.

        Raises ``placeholder.SecondBroker`` when another broker has this owner's claim, and OSError
        when the status address is taken.
        """
        try:
            if not self.leads.state().shared:
                self._remember_holder()
            await self._serve()
            if ready is not None:
                ready(self)
            async with waits.TaskGroup() as group:
                lag = group.create_task(self._measure_lag(), name="measure loop lag")
                drain = group.create_task(self._end_when_empty(), name="wait until drained")
                group.create_task(self.leads.run(self._led), name="keep the leadership")
                if self.tried is not None:
                    group.create_task(self.tried.run(), name="try what is ordered")
                kept = group.create_task(self._keep_hook(), name="keep the push hook")
                await self.reconciler.run()
                self._stop_tries()
                kept.cancel()
                lag.cancel()
                drain.cancel()
                self.leads.leave()  # only now: what was in flight has ended
            if self._drained:
                await self._leave_for_good()
        except BaseExceptionGroup as raised:
            second = raised.subgroup(placeholder.SecondBroker)
            if second is None:
                raise
            raise _first(second) from None
        finally:
            await self.aclose()

    def stop(self) -> None:
        """Order nothing new, finish what is in flight, keep the agents; ends within ``END_S``."""
        self.ends_within(END_S)
        self._stop_tries()
        self.reconciler.stop()

    def _stop_tries(self) -> None:
        if self.tried is not None:
            self.tried.stop()

    def drain(self, within_s: float = math.inf) -> None:
        """Launch nothing more, let every agent go after its build, then stop.

        When ``within_s`` are over it stops with what is ``left``.
        """
        _LOG.info("draining begun")
        self.drain_s = within_s
        self.draining = True
        self.reconciler.hint()

    def reload(self, settings: config.Settings) -> None:
        """Put another configuration in force: templates, limits and rules, not the connections.

        What was set aside, or backs off, is tried again, also where nothing changed here: perhaps
        a host was mended.
        """
        kept = config.RESTARTS
        waits = [n for n in sorted(kept) if getattr(settings, n) != getattr(self.settings, n)]
        for name in waits:
            _LOG.warning("a change needs a restart", extra={"setting": name})
        if waits:
            settings = evolve(settings, fingerprint="")
        before = self.settings
        parts = {
            path: digest
            for source, is_kept in ((before, True), (settings, False))
            for path, digest in source.parts.items()
            if (path.partition(".")[0] in kept) is is_kept
        }
        self.settings = evolve(
            settings, parts=parts, **{name: getattr(before, name) for name in kept}
        )
        self.reconciler.pace.busy_s = settings.poll.busy_s
        self.reconciler.pace.idle_s = settings.poll.idle_s
        if self.reconciler.place is not None:
            asks_s = placeholder.challenge_s(settings.poll.idle_s)
            self.reconciler.place.challenge_s = asks_s
        self.reconciler.executor.time_limit_s = self.policy.launch_timeout_s
        self.recorder.configured(self.policy)
        self._in_force(waits=tuple(waits))
        self.reconciler.ask_again()
        _LOG.info("configuration reloaded")

    def refuse(self, reason: str) -> None:
        """Remember that a newer configuration cannot be used; what was in force stays."""
        now = self.watch.now()
        self.configuration = evolve(self.configuration, refused_at=now, refusal=reason)
        self.recorder.configuration_read(now, good=False)

    def _in_force(self, *, waits: tuple[str, ...]) -> None:
        now = self.watch.now()
        self.configuration = config.ConfigurationState(
            read_at=now, parts=self.settings.parts, waits=waits
        )
        self.recorder.configuration_read(now, good=True)

    async def aclose(self) -> None:
        """Let go of every connection, of those that hang within ``CLOSE_S``; idempotent."""
        server, self._server = self._server, None
        closing: dict[str, Callable[[], Awaitable[None]]] = {
            **{f"backend {name}": backend.aclose for name, backend in self.backends.items()},
            "controller": self.session.aclose,
        }
        if server is not None:
            closing["status page"] = server.aclose
        async with waits.TaskGroup() as group:
            tasks = {
                name: group.create_task(_closed(name, close), name=f"close {name}")
                for name, close in closing.items()
            }
            await asyncio.wait(tasks.values(), timeout=CLOSE_S)
            late = [name for name, task in tasks.items() if not task.done()]
            for name in late:
                tasks[name].cancel()
        if late:
            _LOG.warning("not closed in time", extra={"sources": ", ".join(late)})

    def _led(self) -> None:
        """Act, or cease to act, as the leadership says."""
        self._record_leader()
        leading = self.leads.leading
        if leading == self._acts:
            return
        self._acts = leading
        if not leading:
            self.reconciler.step_down()
            return
        claim = self.leads.claim
        if self.reconciler.place is not None and claim:
            self.reconciler.place.begin(claim, now=self.watch.now())
            self._remember_holder()
        self.reconciler.take_over()

    def _record_leader(self) -> None:
        state = self.leads.state()
        self.recorder.led(
            leading=state.leading, holder=state.holder, transitions=state.transitions
        )

    def _remember_holder(self) -> None:
        """Note who we are, so that the next life knows this one's claim for its own."""
        if self.reconciler.place is None:
            return
        standing = self.reconciler.place.standing
        # several: this life may be killed before it has written its claim over an earlier one
        holders = (standing.mine.holder, *standing.previous)[:_HOLDERS_KEPT]
        try:
            self.files.save(HOLDER, " ".join(holders))
        except OSError as error:
            _LOG.warning("state directory not written", extra={"reason": str(error)})

    async def _serve(self) -> None:
        if self.settings.listen is None:
            with contextlib.suppress(OSError):  # then a command asks in vain, and looks by itself
                page_address.withdraw(self.files)
            return
        self._server = status.Server(
            self,
            metrics=self.recorder.render,
            gate=guard.Guard(lambda: self.settings.tokens_file),
            tries=self.tried,
            orders=self.orders,
            hook=self.hook,
        )
        host, port = self.settings.listen
        self.page = await self._server.start(host=host, port=port)
        self._announce(self._server)
        _LOG.info("status page served", extra={"url": self.page})

    def _announce(self, server: status.Server) -> None:
        """Let commands beside us find the page, and know that it is ours."""
        try:
            note = page_address.announce(self.files, self.page)
        except OSError as error:
            _LOG.warning("state directory not written", extra={"reason": str(error)})
            return
        server.prove = functools.partial(page_address.proof, note.key)
        server.blind = functools.partial(page_address.blinded, note.key)

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_S
            await asyncio.sleep(_LAG_S)
            self.recorder.loop_lag(max(0.0, loop.time() - due))

    async def _keep_hook(self) -> None:
        """Tell whether the push hook is heard, and put it in where that is wanted."""
        keeper = installing.HookKeeper(
            console=self.session, owner=self.settings.owner, now=self.watch.now
        )
        while True:
            await asyncio.sleep(_HOOK_S)
            told, hook = self.settings.hook, self.hook
            if told is None or hook is None or not self.leads.leading:
                continue
            heard = hook.state.is_heard(self.watch.now())
            self.recorder.hook_heard(heard=heard, lost=hook.state.lost)
            url = told.url or self.page
            view = self.world.controller if self.world is not None else None
            if not told.install or not url or view is None or not view.synced:
                continue
            is_there = heard and hook.state.session == view.session
            if keeper.is_due(session=view.session, heard=is_there):
                await keeper.put_in(session=view.session, url=url, key=told.key.reveal())
            hook.trouble = keeper.trouble

    async def _end_when_empty(self) -> None:
        """After a drain: stop once no agent is left, or its time is over; say what is awaited."""
        while not self.draining:  # noqa: ASYNC110 -- the loop itself rings no bell
            await asyncio.sleep(self.settings.poll.busy_s)
        began, news = self.watch.now(), ending.DrainNews(_DRAIN_SAID_S)
        while not self._is_empty():
            now = self.watch.now()
            if now - began >= self.drain_s:
                self.left = self._awaited(_LEFT_SHOWN)
                break
            if (said := news.of(self.reconciler.state, now=now)) is not None:
                _LOG.info("draining waits", extra=dict(said))
            await asyncio.sleep(self.settings.poll.busy_s)
        self._drained = not self.left
        self.stop()

    def _awaited(self, most: int) -> str:
        words = ending.waits_for(self.reconciler.state, now=self.watch.now(), most=most)
        return words or "a look that is newer than what was done last"

    def _is_empty(self) -> bool:
        """Whether everybody who can be asked shows no agent, and none is on its way."""
        world, plan = self.world, self.plan
        if world is None or plan is None or self.reconciler.in_flight:
            return False
        views = world.backends.values()
        view = world.controller
        ended = [outcome.at for outcome in self.outcomes[-1:]]  # what was read before knows less
        read = (view.read_at, *(one.read_at for one in views))
        if ended and min(read) < ended[0]:
            return False
        synced = view.synced and not view.odd_computers and all(v.whole for v in views)
        waits = plan.agents or plan.actions or self.reconciler.state.ledger.expectations
        return synced and not waits

    async def depart(self) -> list[str]:
        """Have every platform forget us, for good; return which did not, and why."""

        async def left(name: str, backend: backends_api.Backend) -> str | None:
            try:
                async with waits.timeout(_DEPART_S):
                    await backends_api.depart(backend)
            except backends_api.BackendError as error:
                return f"backend {name}: {error.reason}"
            except TimeoutError:
                return f"backend {name} does not answer"
            return None

        said = await asyncio.gather(*(left(*one) for one in self.backends.items()))
        return [words for words in said if words is not None]

    async def _leave_for_good(self) -> None:
        """Take the placeholder along; only now, when the loop makes no new one."""
        for words in await self.depart():
            _LOG.warning("not forgotten by a platform", extra={"reason": words})
        if self.reconciler.place is not None:
            try:
                await self.reconciler.place.remove()
            except jnlp_errors.JenkinsError as error:
                _LOG.warning("placeholder node not removed", extra={"reason": error.text})
        _LOG.info("drained")

    def keep(self, ledger: model.Ledger, builds: store.Builds) -> None:
        """Write down what cannot be observed again; a full disk costs only the count of builds."""
        try:
            builds.keep(ledger)
        except OSError as error:
            if not self._disk_full:
                _LOG.warning("state directory not written", extra={"reason": str(error)})
                self.recorder.cycle_failed(model.CycleFailure.STATE)
            self._disk_full = True
        else:
            self._disk_full = False


async def _closed(name: str, close: Callable[[], Awaitable[None]]) -> None:
    """Close something; a bug of it is not to keep the others open."""
    try:
        await close()
    except Exception:  # noqa: BLE001 -- as said
        _LOG.exception("%s was not closed", name)


def _first(group: BaseExceptionGroup[placeholder.SecondBroker]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
