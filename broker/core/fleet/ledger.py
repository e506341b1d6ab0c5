"""What is remembered between cycles: ``Ledger`` in, ``Ledger`` out.

Rules: an expectation is written before its action starts and dropped when the sources show the
effect, or when it expires; nothing else is concluded from it. A back-off counts failures of one
scope and is cleared by a success. A fresh ledger is always a correct start. This module refuses
to read a clock or roll dice: ``now`` and ``jitter`` (0 to 1) come in.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from attrs import frozen

from broker.core import model
from broker.core.model import (
    BackoffKey,
    Cause,
    Expectation,
    Failure,
    Ledger,
    NodeName,
    Scope,
    Verb,
)

VISIBLE_S = 30.0
"""How long after its end an action's effect may stay invisible (stale reads, slow listings)."""
_MAX_DOUBLINGS = 16
_CHECKED_AGAIN = 2
"""As after so many failures in a row a check is tried again that did not come about."""
ROOM_MAX_S = 120.0
"""A platform that is full is asked again this often at least."""
FIRST_WINDOW = 8
"""Starts that a backend of which nothing is known is asked for at once."""
_MOST_AT_ONCE = 1024
DEPARTED_KEPT = 500
"""Agents that are gone; what became of an item is learnt within seconds of its end."""
_T = TypeVar("_T")
_VARIANTS_KEPT = 100
"""Of so many variants of templates it is remembered how their starts fared."""
ENOUGH_ONLINE = 6
"""Agents that came online: what has brought as many starts without a limit of its own."""

_VERBS: Mapping[type[model.Action], Verb] = {
    model.LaunchAgent: Verb.LAUNCH,
    model.CordonAgent: Verb.CORDON,
    model.UncordonAgent: Verb.UNCORDON,
    model.CheckAgent: Verb.CHECK,
    model.RetireAgent: Verb.RETIRE,
    model.ReleaseAgent: Verb.RETIRE,
    model.SweepNode: Verb.SWEEP,
    model.SweepInstance: Verb.SWEEP,
}


@frozen(kw_only=True)
class Outcome:
    """How an action ended. ``failure`` is None on success.

    ``controller`` tells whose error it was, ``scope`` how far it reaches and ``place`` where that
    is; ``withdrawn`` means that nothing was done, because a fresh look showed that it would have
    been wrong (busy, wanted).
    """

    action: model.Action
    at: float
    failure: Failure | None = None
    text: str = ""
    controller: bool = False
    scope: Scope = Scope.TEMPLATE
    place: str = ""
    retry_after: float | None = None
    withdrawn: bool = False
    held: int | None = None  # agents that the backend held when it refused for want of room
    passed: bool | None = None  # of a check: whether it did; None: it did not come about


def verb_of(action: model.Action) -> Verb:
    """Return what an action keeps in flight for its agent."""
    return _VERBS[type(action)]


def expect(ledger: Ledger, *actions: model.Action, now: float, policy: model.Policy) -> Ledger:
    """Write down actions before they start (I4: one per agent)."""
    expectations, buckets = dict(ledger.expectations), dict(ledger.buckets)
    for action in actions:
        template, backend = _whose(ledger, action)
        expectations[action.name] = Expectation(
            verb=verb_of(action),
            name=action.name,
            template=template,
            backend=backend,
            since_at=now,
            expires_at=now + policy.launch_timeout_s + _check_s(action, policy) + VISIBLE_S,
            reason=action.reason,
            item=action.item if isinstance(action, model.LaunchAgent) else None,
            asked=frozenset(action.asked if isinstance(action, model.LaunchAgent) else ()),
            slot=action.slot if isinstance(action, model.LaunchAgent) else None,
            check=action.check if isinstance(action, model.CordonAgent) else None,
            hold=isinstance(action, model.CordonAgent) and action.hold,
        )
        if isinstance(action, model.LaunchAgent):
            limits = policy.backends.get(action.backend, model.BackendPolicy())
            bucket = refilled(buckets.get(action.backend), limits, now=now)
            buckets[action.backend] = attrs.evolve(bucket, tokens=bucket.tokens - 1.0)
    return attrs.evolve(ledger, expectations=expectations, buckets=buckets)


def _check_s(action: model.Action, policy: model.Policy) -> float:
    """Return how much longer an action may take because a command runs in it."""
    if not isinstance(action, model.CheckAgent):
        return 0.0
    template = policy.template(action.template)
    command = template.checks.of(action.check) if template is not None else None
    return command.within_s if command is not None else 0.0


def _whose(
    ledger: Ledger, action: model.Action
) -> tuple[model.TemplateName | None, model.BackendName | None]:
    if isinstance(action, model.LaunchAgent | model.CheckAgent):
        return action.template, action.backend
    memory = ledger.memories.get(action.name)
    if memory is not None:
        return memory.template, memory.backend
    if isinstance(action, model.RetireAgent | model.ReleaseAgent | model.SweepInstance):
        return None, action.backend
    return None, None


def settle(
    ledger: Ledger, outcome: Outcome, *, policy: model.Policy, jitter: float, revision: str = ""
) -> Ledger:
    """Take in how an action ended."""
    action = outcome.action
    expectations = dict(ledger.expectations)
    expectation = expectations.pop(action.name, None)
    if expectation is None or expectation.verb is not verb_of(action):
        expectations = dict(ledger.expectations)
    elif outcome.failure is None and not outcome.withdrawn:
        pause = VISIBLE_S
        if expectation.verb in {Verb.RETIRE, Verb.SWEEP}:
            ledger, tries = _count_removal(ledger, action)
            pause = max(pause, delay(tries, policy=policy, jitter=jitter) if tries > 1 else 0.0)
        expectations[action.name] = attrs.evolve(
            expectation, done_at=outcome.at, expires_at=outcome.at + pause
        )
    elif outcome.failure is not None and not isinstance(action, model.LaunchAgent):
        # tried again, but not in the next cycle, and later each time; of a check nothing is
        # counted: the agent is not to go, and its deadline ends it
        tries = _CHECKED_AGAIN
        if not isinstance(action, model.CheckAgent):
            ledger, tries = _count_removal(ledger, action)
        pause = max(delay(tries, policy=policy, jitter=jitter), outcome.retry_after or 0.0)
        expectations[action.name] = attrs.evolve(
            expectation, done_at=outcome.at, expires_at=outcome.at + pause
        )
    ledger = attrs.evolve(ledger, expectations=expectations)
    if not isinstance(action, model.LaunchAgent):
        is_done = outcome.failure is None and not outcome.withdrawn
        if outcome.passed and isinstance(action, model.CheckAgent):
            return _note_checked(ledger, action.name)
        return _note_removed(ledger, action, at=outcome.at) if is_done else ledger
    if outcome.withdrawn:
        return ledger
    backend = key_of(Scope.BACKEND, action.backend, None)
    pair = key_of(Scope.TEMPLATE, action.backend, action.template, asked=action.asked)
    if outcome.failure is None:
        began = expectation.since_at if expectation is not None else outcome.at
        told = [key for key in (backend, pair) if not _was_full(ledger, key, since=began)]
        ledger = _had_room(_widened(ledger, *told), *told)
        controller = key_of(Scope.CONTROLLER, action.backend, None)
        windows = {key: size for key, size in ledger.windows.items() if key != controller}
        ledger = attrs.evolve(ledger, windows=windows)
        launch = key_of(Scope.LAUNCH, action.backend, action.template, asked=action.asked)
        return succeeded(ledger, controller, backend, launch)
    # if it was looked at meanwhile: only newer views end it
    ledger = _note(ledger, action.name, failed_at=outcome.at)
    return _launch_failed(ledger, action, outcome, policy, jitter, revision)


def _note_removed(ledger: Ledger, action: model.Action, *, at: float) -> Ledger:
    """Remember what is gone for good, whatever else of a list cannot be read."""
    changes: dict[str, Any] = {}
    if isinstance(action, model.RetireAgent | model.ReleaseAgent | model.SweepNode):
        changes["deleted_at"] = at
    ends = isinstance(action, model.RetireAgent | model.SweepInstance)
    if ends and not _keeps(action):
        changes["terminated_at"] = at
    return _note(ledger, action.name, **changes) if changes else ledger


def _note_checked(ledger: Ledger, name: NodeName) -> Ledger:
    """Remember that what an agent has built until now was looked at: nothing is left of it."""
    memory = ledger.memories.get(name)
    return _note(ledger, name, checked=memory.builds) if memory is not None else ledger


def _note(ledger: Ledger, name: NodeName, **changes: Any) -> Ledger:
    """Change what is remembered of an agent, if anything is."""
    memory = ledger.memories.get(name)
    if memory is None:
        return ledger
    noted = attrs.evolve(memory, **changes)
    return attrs.evolve(ledger, memories={**ledger.memories, name: noted})


def _count_removal(ledger: Ledger, action: model.Action) -> tuple[Ledger, int]:
    """Count an action upon an agent that is to go; it is forgotten with the agent.

    Not one that keeps its instance: how that ended is still its own doing.
    """
    memory = ledger.memories.get(action.name)
    if memory is None or _keeps(action):
        return ledger, 1
    counted = attrs.evolve(memory, removals=memory.removals + 1)
    memories = {**ledger.memories, action.name: counted}
    return attrs.evolve(ledger, memories=memories), counted.removals


def _keeps(action: model.Action) -> bool:
    return isinstance(action, model.RetireAgent | model.ReleaseAgent) and action.keeps


def _launch_failed(
    ledger: Ledger,
    action: model.LaunchAgent,
    outcome: Outcome,
    policy: model.Policy,
    jitter: float,
    revision: str,
) -> Ledger:
    """Count it for what it reaches; a place's for this one start, too: the next goes elsewhere.

    A platform that has nowhere else refuses that one as well, and is left alone for a while.
    """
    scopes = [outcome.scope]
    if outcome.scope is Scope.PLACE:
        scopes.append(Scope.LAUNCH)
    for scope in scopes:
        ledger = failed(
            ledger,
            key_of(
                scope, action.backend, action.template, place=outcome.place, asked=action.asked
            ),
            cause=outcome.failure or Failure.BUG,
            reason=outcome.text,
            retry_after=outcome.retry_after,
            now=outcome.at,
            policy=policy,
            jitter=jitter,
            revision=revision,
            held=outcome.held,
        )
    return ledger


def window(ledger: Ledger, key: BackoffKey) -> int:
    """Return how many starts of a scope may be asked for and not be answered yet.

    A controller that has refused no node is asked for all of them.
    """
    most = _MOST_AT_ONCE if key.scope is Scope.CONTROLLER else FIRST_WINDOW
    return ledger.windows.get(key, most)


def _widened(ledger: Ledger, *keys: BackoffKey) -> Ledger:
    """Ask for one more at once: so many doubles with every answer, as long as there is room."""
    wider = {key: min(window(ledger, key) + 1, _MOST_AT_ONCE) for key in keys}
    return attrs.evolve(ledger, windows=_bounded({**ledger.windows, **wider}))


def _bounded(by_key: dict[BackoffKey, _T]) -> dict[BackoffKey, _T]:
    """Forget the oldest of too many variants: what builds ask for has no end."""
    variants = [key for key in by_key if key.asked]
    for key in variants[:-_VARIANTS_KEPT]:
        del by_key[key]
    return by_key


def proved(ledger: Ledger, pair: BackoffKey, revision: str) -> Ledger:
    """Count an agent of a definition that came online."""
    before = ledger.trials.get(pair)
    online = before.online if before is not None and before.revision == revision else 0
    if online >= ENOUGH_ONLINE:
        return ledger
    trial = model.Trial(revision=revision, online=online + 1)
    return attrs.evolve(ledger, trials=_bounded({**ledger.trials, pair: trial}))


def reworded(ledger: Ledger, key: BackoffKey, before: str, after: str) -> Ledger:
    """Tell more of a failure that was counted, now that more is known of it."""
    backoff = ledger.backoffs.get(key)
    if backoff is None or backoff.reason != before:
        return ledger
    changed = {key: attrs.evolve(backoff, reason=after)}
    return attrs.evolve(ledger, backoffs={**ledger.backoffs, **changed})


def cancelled(ledger: Ledger, item: model.ItemId) -> Ledger:
    """Note that an item was cancelled: who was started for it may not be needed any more."""
    memories = {
        name: attrs.evolve(memory, item_cancelled=True)
        for name, memory in ledger.memories.items()
        if memory.item == item
    }
    return attrs.evolve(ledger, memories={**ledger.memories, **memories}) if memories else ledger


def key_of(
    scope: Scope,
    backend: model.BackendName,
    template: model.TemplateName | None,
    *,
    place: str = "",
    asked: Iterable[str] = (),
) -> BackoffKey:
    """Return the key of a back-off: only what its scope needs."""
    match scope:
        case Scope.CONTROLLER:
            return BackoffKey(scope=scope, backend=model.BackendName(""))
        case Scope.BACKEND:
            return BackoffKey(scope=scope, backend=backend)
        case Scope.PLACE:
            return BackoffKey(scope=scope, backend=backend, place=place)
        case Scope.TEMPLATE | Scope.LAUNCH:
            return BackoffKey(
                scope=scope, backend=backend, template=template, asked=frozenset(asked)
            )


def delay(
    failures: int, *, policy: model.Policy, jitter: float, most_s: float | None = None
) -> float:
    """Return the seconds to wait after so many failures in a row: exponential, half jitter."""
    doublings = min(max(failures, 1) - 1, _MAX_DOUBLINGS)
    most_s = policy.backoff_max_s if most_s is None else most_s
    full = min(policy.backoff_base_s * 2.0**doublings, most_s)
    return full * (0.5 + 0.5 * min(max(jitter, 0.0), 1.0))


def failed(  # noqa: PLR0913 -- one failure has this many facts, all by keyword
    ledger: Ledger,
    key: BackoffKey,
    *,
    cause: Cause | Failure,
    reason: str,
    now: float,
    policy: model.Policy,
    jitter: float,
    retry_after: float | None = None,
    revision: str = "",
    held: int | None = None,
) -> Ledger:
    """Count a failure of a scope. "No capacity" waits as long, but is not counted as a failure.

    Failures while the scope is already left alone belong to attempts begun before: twenty parallel
    launches into one outage are one failure, not twenty doublings. What reaches no further than
    one launch costs no pause, unless the next one in a row fails as well.
    """
    before = ledger.backoffs.get(key)
    if before is not None and before.cause is Cause.BLACK_HOLE and now < before.until_at:
        return ledger  # it is left alone for longer, and for a better reason
    if before is not None and key.scope is Scope.PLACE:
        # nobody tells when a place has served again: long ago does not count
        before = before if now < before.until_at + policy.backoff_max_s else None
    failures = before.failures if before is not None else 0
    alone = key.scope is Scope.LAUNCH
    refusals = before.refusals if before is not None else 0
    full = cause is Failure.NO_CAPACITY and not alone
    if full:
        if before is None or refusals == 0 or now >= before.until_at:
            refusals += 1
        most_s = min(ROOM_MAX_S, policy.backoff_max_s)
        pause = delay(refusals, policy=policy, jitter=jitter, most_s=most_s)
        ledger = attrs.evolve(ledger, windows=_bounded({**ledger.windows, key: 1}))
    else:
        refusals = 0
        if before is None or before.cause is Failure.NO_CAPACITY or now >= before.until_at:
            failures += 1
        if key.scope is Scope.CONTROLLER:
            ledger = attrs.evolve(ledger, windows=_bounded({**ledger.windows, key: 1}))
        counted = failures - 1 if alone else failures
        pause = delay(counted, policy=policy, jitter=jitter) if counted else 0.0
    if cause is Failure.REJECTED and not alone:
        pause = max(pause, policy.rejected_retry_s)
    if retry_after is not None:
        pause = max(pause, retry_after)
    until = now + pause
    if before is not None and before.cause is not Failure.NO_CAPACITY:
        until = max(until, before.until_at)
    backoff = model.Backoff(
        failures=failures,
        until_at=until,
        reason=reason,
        cause=cause,
        revision=revision,
        refusals=refusals,
        at=now,
        held=held if full else None,
    )
    return attrs.evolve(ledger, backoffs=_bounded({**ledger.backoffs, key: backoff}))


def asked_again(
    ledger: Ledger, *, now: float, template: str | None = None, backend: str | None = None
) -> Ledger:
    """Let all that is left alone after failures be tried at once: a person has seen to something.

    The failures stay counted, so that the next one in a row waits longer. A platform that is full
    is asked as before: it shows by itself when it has room. ``template``, ``backend``: only of it.
    """
    lifted = {
        key: backoff
        if _is_full(backoff)
        or not (template in {None, key.template} and backend in {None, key.backend})
        else attrs.evolve(backoff, until_at=min(backoff.until_at, now))
        for key, backoff in ledger.backoffs.items()
    }
    return attrs.evolve(ledger, backoffs=lifted)


def succeeded(ledger: Ledger, *keys: BackoffKey) -> Ledger:
    """Forget the failures of these scopes; a platform that had no room may have none still."""
    return _without(ledger, [k for k in keys if (b := ledger.backoffs.get(k)) and not _is_full(b)])


def _had_room(ledger: Ledger, *keys: BackoffKey) -> Ledger:
    """Forget that there was no room."""
    return _without(ledger, [k for k in keys if (b := ledger.backoffs.get(k)) and _is_full(b)])


def _was_full(ledger: Ledger, key: BackoffKey, *, since: float) -> bool:
    """Return whether a start found no room after another one had begun, which had it before."""
    backoff = ledger.backoffs.get(key)
    return backoff is not None and _is_full(backoff) and backoff.at >= since


def _is_full(backoff: model.Backoff) -> bool:
    return backoff.cause is Failure.NO_CAPACITY


def _without(ledger: Ledger, keys: Sequence[BackoffKey]) -> Ledger:
    if not keys:
        return ledger
    kept = {key: value for key, value in ledger.backoffs.items() if key not in keys}
    return attrs.evolve(ledger, backoffs=kept)


def refilled(
    bucket: model.Bucket | None, limits: model.BackendPolicy, *, now: float
) -> model.Bucket:
    """Return the launch budget at ``now``; a new bucket is full."""
    if bucket is None:
        return model.Bucket(tokens=float(limits.launch_burst), at=now)
    gained = max(0.0, now - bucket.at) * limits.launch_rate
    return model.Bucket(tokens=min(float(limits.launch_burst), bucket.tokens + gained), at=now)


def is_visible(
    expectation: Expectation,
    *,
    computer: model.Computer | None,
    instance_seen: bool,
    cordoned: bool,
    check: model.Check | None = None,
    held: bool = False,
) -> bool:
    """Return whether synced sources show what an expectation waits for."""
    match expectation.verb:
        case Verb.LAUNCH:
            return computer is not None and instance_seen
        case Verb.RETIRE | Verb.SWEEP:
            return computer is None and not instance_seen
        case Verb.CORDON:
            is_meant = check is not None and check is expectation.check
            is_meant = is_meant or (held and expectation.hold)
            return cordoned or is_meant or computer is None
        case Verb.UNCORDON:
            return computer is None or not (cordoned or check or held)
        case Verb.CHECK:
            return computer is None or check is None


def resumed(ledger: Ledger) -> Ledger:
    """Return what is still true when this broker begins or ceases to act in another's place.

    As after a restart: of the agents only what decides their end, and of none the whole life; and
    since when the controller runs, for its pipelines resume after a start of its own alone. What
    is avoided stays so: to learn it again costs builds.
    """
    return Ledger(
        cycle=ledger.cycle,
        trials=ledger.trials,
        backoffs={
            key: backoff
            for key, backoff in ledger.backoffs.items()
            if backoff.cause is Cause.BLACK_HOLE
        },
        labels=ledger.labels,
        session=ledger.session,
        session_at=ledger.session_at,
        memories={
            name: model.Memory(
                first_seen_at=memory.first_seen_at,
                online_at=memory.online_at,
                whole=memory.whole,
                builds=memory.builds,
                executable_urls=memory.executable_urls,
                busy_session=memory.busy_session,
            )
            for name, memory in ledger.memories.items()
            if memory.online_at is not None
        },
    )


def forget(ledger: Ledger, names: set[NodeName]) -> Ledger:
    """Drop all about agents that are gone; what builds they had may be learnt after that."""
    if not names:
        return ledger
    worked = [(n, ledger.memories[n]) for n in sorted(names & ledger.memories.keys())]
    worked = [(n, memory) for n, memory in worked if memory.online_at is not None]
    return attrs.evolve(
        ledger,
        memories={n: m for n, m in ledger.memories.items() if n not in names},
        departed=dict([*ledger.departed.items(), *worked][-DEPARTED_KEPT:]),
        expectations={n: e for n, e in ledger.expectations.items() if n not in names},
    )
