"""Places where agents end too soon: found by comparison, and left alone for a while.

A host with a full disk or a broken runtime is the emptiest of all, because nothing lives on it: it
draws every start, and each one fails. Rules, in numbers below:

* An agent has ended badly if it was never online (its deadline, an exit), or if its instance ended
  with a failure within ``EARLY_S`` of coming online or of the begin of its build. One that came
  online and is none of these has fared well. Ends of our own doing, evictions, and in a build want
  of memory, say nothing of a place.
* A bad end counts against its place only if the template does better elsewhere on that backend; if
  it was nowhere else lately, only a start that failed counts, and only if the same definition has
  been online on that backend before. So a template that is bad everywhere blames no place, and
  short builds that fail blame none, whatever their agents exit with.
* Where ``LEAST_BAD`` of the last ``LAST`` agents within ``WINDOW_S`` ended so, the place is
  avoided for ``AVOID_S``; at once no more if the blame proves wrong. Whoever came online a moment
  ago, and lives, does not count yet.
* The last place of a backend is never avoided; that it would be is said.
* Where at most one of them was online before it ended, whoever is online there goes on as it did:
  a start that fails costs no build, and may be the fault of a template that has just become bad.

Places where builds fail at once that do well elsewhere are avoided as well (``builds``). Pure;
refuses to decide what becomes of agents.
"""

import operator
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs
from attrs import frozen

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import builds, lifecycle
from broker.core.fleet import ledger as ledgers
from broker.core.model import Agent, AgentFate, BackendName, Memory, NodeName, Phase, Scope, Verb
from outside import counts

WINDOW_S = 1800.0
"""What is longer ago says nothing."""
LEAST_BAD = 4
LAST = 5
ELSEWHERE_SHARE = 0.25
"""A template of whose last agents elsewhere more than this ended badly blames no place."""
EARLY_S = 30.0
AVOID_S = 1200.0
_KEPT_S = WINDOW_S + AVOID_S
_KEPT = 5000

_BLAMELESS = frozenset({"evicted"})
_OF_BUILDS = frozenset({"out-of-memory", *_BLAMELESS})


@frozen(kw_only=True)
class Suspicion:
    """A place that is to be avoided, or would be if there were another one."""

    backend: BackendName
    place: str
    text: str
    templates: frozenset[str]  # whose agents have ended there; none if it is for builds
    blame: model.Blame


def fate(
    agent: Agent,
    old: Memory | None,
    *,
    why: Callable[[Agent], tuple[model.Cause, str]],
    now: float,
) -> AgentFate | None:
    """Return how an agent fared, as far as this look tells; ``why``: what one ended of that has.

    ``old``: what was remembered of it before this look.
    """
    instance, memory = agent.instance, agent.memory
    if instance is None or not instance.place or memory is None or old is None:
        return None
    if agent.backend is None or agent.template is None:
        return None
    flight = agent.expectation
    if flight is not None and flight.verb in {Verb.RETIRE, Verb.SWEEP}:
        return None  # our own doing
    came = memory.online_at is not None
    bad = (
        _ended_early(agent.phase, instance, old, memory, now=now)
        if came
        else _never_came(agent, instance)
    )
    if not (bad or came):
        return None  # it may come yet
    return AgentFate(
        backend=agent.backend,
        place=instance.place,
        template=agent.template,
        revision=agent.revision,
        asked=agent.asked,
        at=now,
        came=came,
        bad=why(agent)[1] if bad else "",
    )


def _never_came(agent: Agent, instance: backends_api.Instance) -> bool:
    if agent.phase is Phase.DRAINED:  # a place may be what is not fit
        return lifecycle.cause_of(agent.computer) is model.Cause.READY_CHECK
    if agent.phase is not Phase.LOST or instance.state is backends_api.InstanceState.STOPPING:
        return False
    return instance.exit is None or instance.exit.slug not in _BLAMELESS


def _ended_early(
    phase: Phase, instance: backends_api.Instance, old: Memory, memory: Memory, *, now: float
) -> bool:
    end = instance.exit
    if instance.state is not backends_api.InstanceState.EXITED or end is None:
        return False
    if phase is Phase.DRAINED and old.phase is not Phase.BUSY:
        return False  # it was at its end
    if end.code == 0 or end.slug in _OF_BUILDS:
        return False
    working = next((one for one in (old, memory) if one.phase is Phase.BUSY), None)
    since = [memory.online_at, working.phase_at if working is not None else None]
    return now - max(at for at in since if at is not None) <= EARLY_S


def note(fates: dict[NodeName, AgentFate], name: NodeName, new: AgentFate) -> None:
    """Put a fate among the others; what an agent ended of stays, as of when it was seen."""
    before = fates.get(name)
    if before is None or (new.bad and not before.bad):
        fates.pop(name, None)
        fates[name] = new


def forget(ledger: model.Ledger, *, now: float) -> model.Ledger:
    """Drop what is too long ago, or more than is kept."""
    fates = ledger.fates
    if all(now - one.at < _KEPT_S for one in fates.values()) and len(fates) <= _KEPT:
        return ledger
    recent = [(name, one) for name, one in fates.items() if now - one.at < _KEPT_S]
    return attrs.evolve(ledger, fates=dict(recent[-_KEPT:]))


def avoided(
    ledger: model.Ledger, *, now: float
) -> Mapping[tuple[BackendName, str], model.Backoff]:
    """Return the places that are left alone, and until when and why."""
    return {
        (key.backend, key.place): backoff
        for key, backoff in ledger.backoffs.items()
        if key.scope is Scope.PLACE
        and backoff.cause is model.Cause.BLACK_HOLE
        and 0.0 < backoff.until_at - now <= AVOID_S  # a clock may have been ahead when it was kept
    }


def words(ledger: model.Ledger, backend: BackendName | None, *, now: float) -> str:
    """Say which places of a backend are left alone, and why the first of them; "" if none is."""
    aside = {
        place: backoff
        for (of, place), backoff in avoided(ledger, now=now).items()
        if of == backend
    }
    if not aside:
        return ""
    first = min(aside)
    more = f" and {len(aside) - 1} more" if len(aside) > 1 else ""
    are = "are" if more else "is"
    return f"{first}{more} {are} avoided: {aside[first].reason}"


def judge(
    ledger: model.Ledger, known: Mapping[BackendName, Collection[str]], *, now: float
) -> tuple[model.Ledger, Sequence[Suspicion]]:
    """Return the ledger with the places that are to be avoided, and those that cannot be.

    ``known``: the places of each backend, as far as they can be told now.
    """
    ledger = builds.forget(forget(ledger, now=now), now=now)
    fates = ledger.fates.values()
    of_builds = _of_builds(ledger, now=now)
    if not of_builds and not any(one.bad for one in fates):
        return ledger, ()
    certain = sorted(
        (one for one in fates if (0.0 if one.bad else EARLY_S) <= now - one.at < WINDOW_S),
        key=operator.attrgetter("at"),
    )
    comparison = _Comparison.of(certain)
    ledger = _exonerated(ledger, comparison, now=now)
    only: list[Suspicion] = []
    for suspicion in (*_suspicions(ledger, certain, comparison), *of_builds):
        where, place = suspicion.backend, suspicion.place
        every = {*known.get(where, ()), *(one.place for one in fates if one.backend == where)}
        aside = {of for backend, of in avoided(ledger, now=now) if backend == where}
        if every - aside - {place}:
            ledger = _avoid(ledger, suspicion, now=now)
        else:
            only.append(suspicion)
    return ledger, only


def _of_builds(ledger: model.Ledger, *, now: float) -> Sequence[Suspicion]:
    """Return the places where builds fail that do well elsewhere, unless they are avoided."""
    aside = avoided(ledger, now=now)
    return [
        Suspicion(
            backend=backend,
            place=place,
            text=text,
            templates=frozenset(),
            blame=model.Blame.BUILDS,
        )
        for (backend, place), text in sorted(builds.suspect_places(ledger.build_fates).items())
        if (backend, place) not in aside
    ]


_Definition = tuple[BackendName, model.TemplateName, str, frozenset[str]]


def _definition(one: AgentFate) -> _Definition:
    """Return what agents that are made alike have in common; a variant is one of its own."""
    return one.backend, one.template, one.revision, one.asked


@frozen(kw_only=True)
class _Comparison:
    """The last agents of each definition, by place, as far as their fate is certain."""

    last: Mapping[_Definition, Mapping[str, Sequence[AgentFate]]]

    @classmethod
    def of(cls, fates: Iterable[AgentFate]) -> "_Comparison":
        """Sort them; told in the order in which they were seen."""
        last: dict[_Definition, dict[str, deque[AgentFate]]] = defaultdict(
            lambda: defaultdict(lambda: deque(maxlen=LAST))
        )
        for one in fates:
            last[_definition(one)][one.place].append(one)
        return cls(last=last)

    def does_better_elsewhere(self, one: AgentFate) -> bool | None:
        """Return whether others of its definition fare well at other places; None: none was."""
        by_place = self.last.get(_definition(one), {})
        elsewhere = [f for place, seen in by_place.items() if place != one.place for f in seen]
        if not elsewhere:
            return None
        return sum(bool(f.bad) for f in elsewhere) <= ELSEWHERE_SHARE * len(elsewhere)

    def is_witness(self, one: AgentFate, trials: Mapping[model.BackoffKey, model.Trial]) -> bool:
        """Return whether a bad end speaks against its place, and not against its template."""
        does_better = self.does_better_elsewhere(one)
        if does_better is not None:
            return does_better
        trial = trials.get(
            ledgers.key_of(Scope.TEMPLATE, one.backend, one.template, asked=one.asked)
        )
        proved = trial is not None and trial.revision == one.revision and trial.online > 0
        return proved and not one.came


def _suspicions(
    ledger: model.Ledger, certain: Sequence[AgentFate], comparison: _Comparison
) -> Sequence[Suspicion]:
    """Return the places that are not avoided and should be, by name."""
    last: dict[tuple[BackendName, str], deque[AgentFate]] = defaultdict(lambda: deque(maxlen=LAST))
    aside = {
        (key.backend, key.place): backoff.until_at
        for key, backoff in ledger.backoffs.items()
        if backoff.cause is model.Cause.BLACK_HOLE
    }
    for one in certain:
        where = (one.backend, one.place)
        if one.at < aside.get(where, one.at):
            continue  # it was avoided for that
        if not one.bad or comparison.is_witness(one, ledger.trials):
            last[where].append(one)
    found = []
    for (backend, place), seen in sorted(last.items()):
        bad = [one for one in seen if one.bad]
        if len(bad) >= LEAST_BAD:
            found.append(_worded(backend, place, bad, len(seen)))
    return found


def _worded(backend: BackendName, place: str, bad: Sequence[AgentFate], total: int) -> Suspicion:
    last = max(bad, key=operator.attrgetter("at"))
    text = f"{len(bad)} of the last {counts.told(total, 'agent')} on {place} ended too soon"
    return Suspicion(
        backend=backend,
        place=place,
        text=f"{text}, the last one so: {last.bad}",
        templates=frozenset(one.template for one in bad),
        blame=model.Blame.AGENTS if sum(one.came for one in bad) > 1 else model.Blame.STARTS,
    )


def _avoid(ledger: model.Ledger, suspicion: Suspicion, *, now: float) -> model.Ledger:
    """Leave a place alone; what its agents have cost their templates is forgotten."""
    key = ledgers.key_of(Scope.PLACE, suspicion.backend, None, place=suspicion.place)
    backoff = model.Backoff(
        failures=LEAST_BAD,
        until_at=now + AVOID_S,
        reason=suspicion.text,
        cause=model.Cause.BLACK_HOLE,
        blame=suspicion.blame,
    )
    kept = {
        other: value
        for other, value in ledger.backoffs.items()
        if other.backend != suspicion.backend
        or other.template not in suspicion.templates
        or not isinstance(value.cause, model.Cause)
    }
    left = tuple(
        fate
        for fate in ledger.build_fates
        if (fate.backend, fate.place) != (suspicion.backend, suspicion.place)
    )  # later it is judged by what is built there then
    return attrs.evolve(ledger, backoffs={**kept, key: backoff}, build_fates=left)


def _exonerated(ledger: model.Ledger, comparison: _Comparison, *, now: float) -> model.Ledger:
    """Use the places again of which the blame was wrong: its templates do no better elsewhere.

    Of a place that is avoided for builds the ends of agents prove nothing.
    """
    aside = {
        where: one
        for where, one in avoided(ledger, now=now).items()
        if one.blame is not model.Blame.BUILDS
    }
    bad: dict[tuple[BackendName, str], list[AgentFate]] = {where: [] for where in aside}
    for one in ledger.fates.values():
        where = (one.backend, one.place)
        if one.bad and where in aside and one.at >= aside[where].until_at - AVOID_S - WINDOW_S:
            bad[where].append(one)
    wrong = {
        ledgers.key_of(Scope.PLACE, backend, None, place=place)
        for (backend, place), ends in bad.items()
        if ends and all(comparison.does_better_elsewhere(one) is False for one in ends)
    }
    if not wrong:
        return ledger
    kept = {key: value for key, value in ledger.backoffs.items() if key not in wrong}
    return attrs.evolve(ledger, backoffs=kept)
