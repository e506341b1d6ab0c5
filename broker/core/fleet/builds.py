"""Builds that fail at once on one agent, or place, while the same jobs do well elsewhere.

An agent whose machine has no room on its disk, or no engine for its builds, is the first to be
free again: it draws every item and fails it. Over REST a result takes a request for each build, so
few are asked about. Rules, in numbers below:

* A build that is seen at work for ``QUICK_S`` has fared well, whatever becomes of it; nobody asks
  about it. One that is gone sooner is asked about, ``ASKED_A_MINUTE`` at most: it has fared badly
  if it failed within ``QUICK_S``, well if it was a success or unstable. Else it says nothing.
* A build on an agent is compared with the next one of the same job that begins on another, or the
  other way round, and both with nobody else. Where agents are alike as many comparisons speak for
  it as against it, however often the jobs fail: short tests that fail do so everywhere. Many that
  speak against it, of several jobs, and hardly one for it, make it suspect.
* Comparisons follow each other in time: each takes all that began before it. So what breaks all
  jobs for a while (a repository that is away) is one, though the first to be free fails hundreds
  of builds meanwhile, and what was at work already fares well on the others.

The same is asked of each place, by the builds of all agents there. Pure; refuses to ask, and to
decide what follows.
"""

import hashlib
import operator
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import attrs
from attrs import Factory, frozen

from broker.core import model
from broker.core.model import Agent, BackendName, BuildFate, NodeName, TemplateName
from outside import counts

K = TypeVar("K", bound=Hashable)
QUICK_S = 10.0
WINDOW_S = 1800.0
"""What began longer ago says nothing."""
ASKED_A_MINUTE = 20
WAITING = 60
"""Questions that wait for their turn: of more than can be asked the oldest are dropped."""
SETTLES_S = 3.0
"""A build is asked about so long after it was seen last: its result, a Pipeline's, comes late."""
KEPT = 2000
LEAST_SCORE = 14
"""One for each comparison that speaks against it: by chance alone once in some 10,000."""
_BETTER = 4  # the same for one that speaks for it: hardly any does for a broken host
LEAST_JOBS = 2


@frozen(kw_only=True)
class SeenBuild:
    """A build at work on an agent of ours."""

    agent: NodeName
    backend: BackendName
    template: TemplateName | None
    place: str
    url: str
    since_at: float  # when it was first seen
    settled: bool = False  # it has fared well


@frozen(kw_only=True)
class GoneBuild:
    """A build that was gone soon: its result is to be asked for, and given to ``learn``."""

    build: SeenBuild
    gone_at: float


@frozen(kw_only=True)
class Watch:
    """The builds at work at the last look, and what is to be asked of those before."""

    session: str = ""
    at_work: Mapping[tuple[NodeName, str], SeenBuild] = Factory(dict)
    questions: tuple[GoneBuild, ...] = ()
    asked_at: tuple[float, ...] = ()  # within the last minute


class BuildsSeen(NamedTuple):
    """What follows from one look."""

    watch: Watch
    fates: tuple[BuildFate, ...]
    questions: tuple[GoneBuild, ...]  # that may be asked now


def look(before: Watch, world: model.World, agents: Iterable[Agent]) -> BuildsSeen:
    """Compare the builds at work with those of the last look; an unknown controller shows none."""
    view, now = world.controller, world.now
    if not view.synced:
        return BuildsSeen(before, (), ())
    if before.session != view.session:  # what ended with the controller says nothing
        before = Watch(session=view.session, asked_at=before.asked_at)
    at_work: dict[tuple[NodeName, str], SeenBuild] = {}
    good = []
    for agent in agents:
        computer = agent.computer
        for url in computer.executable_urls if computer is not None else ():
            key = (agent.name, url)
            seen = before.at_work.get(key) or _seen(agent, url, now=now)
            if seen is None:
                continue
            if not seen.settled and now - seen.since_at >= QUICK_S:
                seen = attrs.evolve(seen, settled=True)
                good.append(_fate(seen, bad=False))
            at_work[key] = seen
    unread = view.odd_nameless or view.odd_names
    gone = [
        GoneBuild(build=seen, gone_at=now)
        for key, seen in before.at_work.items()
        if key not in at_work and not seen.settled and not unread
    ]
    waiting = (*before.questions, *gone)[-WAITING:]
    asked = tuple(at for at in before.asked_at if 0.0 <= now - at < 60.0)
    due = [one for one in waiting if now - one.gone_at >= SETTLES_S]
    asking = tuple(due[: max(0, ASKED_A_MINUTE - len(asked))])
    watch = Watch(
        session=view.session,
        at_work=at_work,
        questions=tuple(one for one in waiting if one not in asking),
        asked_at=(*asked, *(now for _ in asking)),
    )
    return BuildsSeen(watch, tuple(good), asking)


def missed(before: Watch, agent: Agent, url: str, *, now: float) -> Watch:
    """Take in a build that came and went on an agent between two looks."""
    seen = _seen(agent, url, now=now)
    known = {one.build.url for one in before.questions}
    if seen is None or (agent.name, url) in before.at_work or url in known:
        return before
    ended = GoneBuild(build=seen, gone_at=now)
    return attrs.evolve(before, questions=(*before.questions, ended)[-WAITING:])


def learn(ended: GoneBuild, *, result: str, duration_s: float) -> BuildFate | None:
    """Return how a build has fared; None if its result says nothing of where it ran.

    ``result`` as Jenkins writes it, empty while it runs on; ``duration_s`` is the build's own. A
    Pipeline's may be long before its block begins: then what was seen of that counts.
    """
    seen_s = ended.gone_at - ended.build.since_at
    is_quick = min(duration_s, seen_s if seen_s > 0.0 else duration_s) < QUICK_S
    if result == "FAILURE" and is_quick:
        return _fate(ended.build, bad=True)
    if result in {"SUCCESS", "UNSTABLE"} or (result == "FAILURE" and not is_quick):
        return _fate(ended.build, bad=False)
    return None


def noted(ledger: model.Ledger, fates: Sequence[BuildFate]) -> model.Ledger:
    """Add fates to those that are known."""
    if not fates:
        return ledger
    return attrs.evolve(ledger, build_fates=(*ledger.build_fates, *fates)[-KEPT:])


def forget(ledger: model.Ledger, *, now: float) -> model.Ledger:
    """Drop what is too long ago."""
    fates = ledger.build_fates
    if not fates or all(0.0 <= now - one.since_at < WINDOW_S for one in fates):
        return ledger
    recent = tuple(one for one in fates if 0.0 <= now - one.since_at < WINDOW_S)
    return attrs.evolve(ledger, build_fates=recent)


def suspect_agents(fates: Sequence[BuildFate]) -> Mapping[NodeName, str]:
    """Return the agents on which builds fail that do well on others, and why."""
    return _suspects(fates, lambda fate: fate.agent, "it")


def suspect_places(fates: Sequence[BuildFate]) -> Mapping[tuple[BackendName, str], str]:
    """Return the places of which that is true, and why."""
    told = [fate for fate in fates if fate.place]
    return _suspects(told, lambda fate: (fate.backend, fate.place), "agents there")


def _suspects(
    fates: Sequence[BuildFate], key_of: Callable[[BuildFate], K], where: str
) -> dict[K, str]:
    bad = Counter(key_of(fate) for fate in fates if fate.bad)
    in_order = sorted(fates, key=operator.attrgetter("since_at"))
    suspects = {}
    for key in [key for key, times in bad.items() if times >= LEAST_SCORE]:
        words = _judged(in_order, key, key_of, where)
        if words:
            suspects[key] = words
    return suspects


def _judged(
    fates: Iterable[BuildFate], key: K, key_of: Callable[[BuildFate], K], where: str
) -> str:
    """Return why a key is suspect; empty if it is not."""
    worse = better = score = 0
    jobs: set[str] = set()
    here: dict[str, bool] = {}  # by job, since the last comparison: whether its last build was bad
    others: dict[str, bool] = {}  # the same of those elsewhere
    for fate in fates:
        is_here = key_of(fate) == key
        own, other = (here, others) if is_here else (others, here)
        own[fate.job] = fate.bad
        if fate.job in other:
            was_bad, fares_badly = here[fate.job], others[fate.job]
            here.clear()
            others.clear()
            if was_bad and not fares_badly:
                worse, score = worse + 1, score + 1
                jobs.add(fate.job)
            elif fares_badly and not was_bad:
                better, score = better + 1, score - _BETTER
            if score <= 0:
                worse = better = score = 0
                jobs = set()
    if score < LEAST_SCORE or len(jobs) < LEAST_JOBS:
        return ""
    return (
        f"{worse} times a build on {where} failed within {QUICK_S:.0f} s and the next one of its "
        f"job elsewhere did not; the other way round {counts.told(better, 'time')}"
    )


def _seen(agent: Agent, url: str, *, now: float) -> SeenBuild | None:
    if agent.instance is None or agent.backend is None or not url:
        return None
    return SeenBuild(
        agent=agent.name,
        backend=agent.backend,
        template=agent.template,
        place=agent.instance.place,
        url=url,
        since_at=now,
    )


def _fate(seen: SeenBuild, *, bad: bool) -> BuildFate:
    job = seen.url.rstrip("/").rpartition("/")[0]
    return BuildFate(
        backend=seen.backend,
        place=seen.place,
        agent=seen.agent,
        job=hashlib.blake2s(job.encode(), digest_size=8).hexdigest(),
        since_at=seen.since_at,
        bad=bad,
    )
