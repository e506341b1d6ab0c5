"""A look without a loop: what ``plan``, ``doctor`` and ``sweep`` do without a broker to ask.

A look reads, and nothing else: no file is made, no session opened that ends another's. Only
``clear`` acts, and only where no broker does. Refuses to hold rules: the core decides, the
executor performs, as ever.
"""

import asyncio
import contextlib
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TypeVar

from attrs import field, frozen

from backends import api as backends_api
from broker import __version__, app, assembly, clock, config, exits, store
from broker.core import model
from broker.core.decide import leftovers
from broker.core.fleet import death, marks
from broker.core.fleet import hour as hours
from broker.core.fleet import ledger as ledgers
from broker.hook import inbox
from broker.leading import leadership as leaderships
from broker.loop import ending, observe, state, turn
from broker.status import documents, terminal
from jnlp import errors as jnlp_errors
from outside import waits

Rows = list[dict[str, str]]
_ASK_S = 10.0
_SAY_S = 1.0
T = TypeVar("T")


@frozen(kw_only=True)
class Looked:
    """One look as the status documents are made from (``status.StatusSource``)."""

    policy: model.Policy
    world: model.World
    plan: model.Plan
    fingerprint: str
    at: float
    version: str = __version__
    outcomes: Sequence[ledgers.Outcome] = ()
    deaths: Sequence[death.Death] = ()
    last_read: tuple[model.World, model.Plan] | None = None
    waits: model.WaitBook = field(factory=model.WaitBook)
    as_of: Mapping[str, float] = field(factory=dict)
    unread_since: Mapping[str, float] = field(factory=dict)
    configuration: config.ConfigurationState = field(factory=config.ConfigurationState)
    leadership: leaderships.LeadershipState = field(factory=leaderships.LeadershipState)
    hooked: inbox.HookState | None = None
    hour: hours.Hour = field(factory=hours.Hour)

    def now(self) -> float:
        """Return the moment of the look."""
        return self.at

    def ready(self) -> tuple[bool, str]:
        """Whether everything was read, and what was not."""
        return not (trouble := troubles(self.world)), "; ".join(trouble) or "ok"

    def alive(self) -> tuple[bool, str]:
        """Nothing runs that could be dead."""
        return True, "ok"


def troubles(world: model.World) -> list[str]:
    """Return which backends could not be read, or not whole, in words."""
    return [
        f"backend {name} does not answer: {view.error}"
        if not view.synced
        else f"backend {name}: {view.hidden or view.odd}"
        for name, view in world.backends.items()
        if not view.synced or not view.whole
    ]


def complain(world: model.World) -> None:
    """Raise ``Failed`` when the controller could not be read; warn of backends."""
    if not world.controller.synced:
        raise exits.Failed(f"controller: {world.controller.error}")
    for text in troubles(world):
        print(terminal.plain(f"warning: {text}"), file=sys.stderr)


async def dry(settings: config.Settings) -> dict[str, documents.Document]:
    """Look once; return the documents that a running broker would give. Raises Failed."""
    watch = clock.Clock()
    async with built(settings, watch, reads_only=True) as broker:
        looked = shown(broker, await good_look(broker, watch, state.State.fresh(), broker.policy))
        made_of = {"plan": documents.plan, "queue": documents.queue, "agents": documents.agents}
        return {name: make(looked) for name, make in made_of.items()}


async def agent(settings: config.Settings, name: str) -> documents.Document:
    """Look once; return what is seen of one agent. Raises Failed."""
    watch = clock.Clock()
    async with built(settings, watch, reads_only=True) as broker:
        looked = shown(broker, await good_look(broker, watch, state.State.fresh(), broker.policy))
        return documents.agent(looked, name)


@contextlib.asynccontextmanager
async def built(
    settings: config.Settings, watch: clock.Clock, *, reads_only: bool
) -> AsyncIterator[app.Broker]:
    """Yield a broker that does not run; who does not only read holds the state directory."""
    kind = store.ReadOnlyStore if reads_only else store.FileStore
    try:
        files = kind(settings.state_dir)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # then it holds nothing
            files.check()
        broker = assembly.build(settings, files, watch=watch, reads_only=reads_only)
    except ValueError as error:
        raise exits.BadInput(str(error)) from error
    except OSError as error:
        raise exits.BadInput(
            f"state_dir {settings.state_dir}: {error.strerror or error}"
        ) from error
    try:
        yield broker
    finally:
        await broker.aclose()


async def look(
    broker: app.Broker, watch: clock.Clock, before: state.State, policy: model.Policy
) -> state.State:
    """Turn the loop once, with what is remembered of an earlier look; it may show nothing.

    Planned as if we might act, for that is what is asked for; the orders are left where they are.
    """
    views = await observe.observe(
        broker.reconciler.reader, broker.backends, now=watch.now, time_limit_s=_ASK_S
    )
    sightings = turn.Sightings(controller=views.controller, backends=views.backends)
    dice = turn.Dice(ids=tuple(broker.reconciler.new_id() for _ in range(64)))
    return turn.take_in(before, sightings, policy, watch.now(), dice).state


async def good_look(
    broker: app.Broker, watch: clock.Clock, before: state.State, policy: model.Policy
) -> state.State:
    """Look once, and warn of backends. Raises Failed when the controller cannot be read."""
    after = await look(broker, watch, before, policy)
    if after.world is not None:
        complain(after.world)
    return after


def shown(broker: app.Broker, after: state.State) -> Looked:
    """Return one look as the status documents want it."""
    if after.world is None or after.plan is None:
        raise AssertionError(after)
    return Looked(
        policy=broker.policy,
        world=after.world,
        plan=after.plan,
        fingerprint=broker.settings.fingerprint,
        at=after.world.now,
        as_of=after.as_of,
        unread_since=after.unread_since,
    )


# --- leftovers ---------------------------------------------------------------------------------


async def leftover(settings: config.Settings, *, everything: bool) -> documents.Document:
    """Look twice, with the grace between; return the document that a running broker would give."""
    watch = clock.Clock()
    async with built(settings, watch, reads_only=True) as broker:
        looked = shown(broker, await _twice(broker, watch, everything=everything))
        return documents.leftovers(looked, looked.plan, everything=everything)


async def clear(
    settings: config.Settings, *, everything: bool, before: Callable[[Rows], None]
) -> tuple[Rows, list[str], Rows]:
    """Look twice, then remove with the same steps as ever: found, removed, kept.

    ``before`` is told what was found, before any of it is removed.
    The caller holds the state directory. Raises Refused where another broker is at work.
    """
    watch = clock.Clock()
    async with built(settings, watch, reads_only=False) as broker:
        await _nobody_leads(settings)
        after = await _twice(
            broker, watch, everything=everything, first=functools.partial(_nobody_claims, broker)
        )
        broker.draining = everything
        broker.reconciler.state = after
        planned = shown(broker, after).plan
        doing = leftovers.removals(planned)
        rows = [{"name": str(a.name), "reason": a.reason} for a in doing]
        kept = [{"name": r.subject, "reason": r.text} for r in planned.refusals]
        before(rows)
        removed: list[str] = []
        for action in doing:
            policy = broker.policy
            after = turn.begin(broker.reconciler.state, (action,), watch.now(), policy)
            broker.reconciler.state = after
            outcome = await aloud(
                broker.reconciler.executor.perform(action),
                functools.partial(waits_for, action, broker.backends, now=watch.now),
            )
            after = turn.settle(broker.reconciler.state, outcome, policy, turn.Dice())
            broker.reconciler.state = after
            if outcome.failure is not None or outcome.withdrawn:
                kept.append({"name": action.name, "reason": outcome.text})
            else:
                removed.append(action.name)
        if everything and broker.reconciler.place is not None:
            with contextlib.suppress(jnlp_errors.JenkinsError):
                await broker.reconciler.place.remove()
                removed.append(marks.placeholder_name(settings.owner))
        if everything and not kept:
            for words in await broker.depart():
                print(terminal.plain(f"warning: {words}"), file=sys.stderr)
        return rows, removed, kept


async def aloud(
    removal: Coroutine[object, object, T],
    words: Callable[[], Awaitable[str]],
    *,
    every_s: float = _SAY_S,
) -> T:
    """Wait for a removal, and say now and then what it waits for."""
    async with waits.TaskGroup() as group:
        task = group.create_task(removal, name="removal")
        while not (await asyncio.wait([task], timeout=every_s))[0]:
            print(terminal.plain(f"waits for {await words()}"), file=sys.stderr, flush=True)
    return task.result()


async def waits_for(
    action: model.Removal,
    backends: Mapping[model.BackendName, backends_api.Backend],
    *,
    now: Callable[[], float],
) -> str:
    """Say what a removal waits for, in its platform's words where there are any."""
    under_way = ending.orders({action.name: action})
    name = getattr(action, "backend", None)
    backend = backends.get(name) if name is not None else None
    if backend is None:
        return under_way
    try:
        async with waits.timeout(_SAY_S):
            instances = await backend.list()
    except (TimeoutError, backends_api.BackendError) as error:
        why = error.reason if isinstance(error, backends_api.BackendError) else "no answer yet"
        return f"{under_way}: backend {name}: {why}"
    found = [one for one in instances if one.name == action.name]
    if not found:
        return under_way
    since = found[0].leaving_at
    leaving = f"leaving for {max(0.0, now() - since):.0f} s" if since is not None else ""
    told = ": ".join(part for part in (leaving, found[0].detail) if part)
    return f"{under_way}{f': {told}' if told else ''}"


async def _twice(
    broker: app.Broker,
    watch: clock.Clock,
    *,
    everything: bool,
    first: Callable[[model.World], None] = lambda _: None,
) -> state.State:
    """Return the state after a second look; ``first`` is called after the first one."""
    policy = leftovers.unsparing(broker.policy, everything=everything)
    after = await good_look(broker, watch, state.State.fresh(), policy)
    looked = shown(broker, after)
    first(looked.world)
    if any(a.phase in {model.Phase.ORPHAN, model.Phase.LOST} for a in looked.plan.agents):
        print(f"looking again in {policy.orphan_grace_s:.0f} s", file=sys.stderr)
        await asyncio.sleep(policy.orphan_grace_s)
    return await good_look(broker, watch, after, policy)


def _nobody_claims(broker: app.Broker, world: model.World) -> None:
    """Look whether the owner's claim is that of another state directory. Raises Refused.

    Whether its broker lives only a claim over it could tell, and that might end it. Replicas claim
    by their lease, which was looked at.
    """
    place = broker.reconciler.place
    if place is None or broker.settings.high_availability is not None:
        return
    if place.is_claimed_by_another(world.controller):
        name = marks.placeholder_name(broker.settings.owner)
        raise exits.Refused(
            f"a broker with another state_dir has the claim of owner {broker.settings.owner}; "
            f"hint: run the sweep with its state_dir, or delete the node {name} if it is gone for "
            "good"
        )


async def _nobody_leads(settings: config.Settings) -> None:
    """Look whether one of several brokers renews the lease that they share. Raises Refused."""
    shared = settings.high_availability
    if shared is None:
        return
    lease = assembly.make_lease(shared)
    try:
        before = await lease.read()
        if before is None or not before.record.holder:
            return
        await asyncio.sleep(shared.terms.lease_s)  # within it whoever leads has renewed it
        after = await lease.read()
    except backends_api.BackendError as error:
        raise exits.Failed(f"{lease.where} cannot be read: {error.reason}") from error
    finally:
        await lease.aclose()
    if after is not None and after.record != before.record and after.record.holder:
        raise exits.Refused(
            f"{after.record.holder} leads and sweeps by itself; hint: stop all replicas first"
        )
