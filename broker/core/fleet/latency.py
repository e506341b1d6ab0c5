"""How long items waited: which items left the queue between two reads, and where they run now.

Theory of operation: every synced read gives a ``Known`` (who waits, what runs on our agents). The
next synced read is compared with it. An item that is gone is looked for among the builds that our
agents newly run: by URL where the task tells one (a build's URL is its task's URL with one number
in it, so of several builds of one task that began none is certain; a Pipeline placeholder has
its run's own URL), else, for a task without any URL (Pipeline
before workflow-durable-task-step 2.38, recording ``queue/20-pipeline-node-label``), by the agent
nominated to it and by template, oldest item first.

Error, stated once: a start is noticed at the read after it, so ``waited_s`` is too long by up to
one poll interval and never too short, but for the time between our clock and the controller's.
Time in the quiet period or blocked is not counted, although ``buildableStartMilliseconds`` is not
reset by blocking (``hudson/model/Queue.java``): the last read that showed the item blocked bounds
it. A build that came and went between two reads is not seen at all. A read that follows its
predecessor by more than ``MAX_GAP_S``, or another start of the controller, measures nothing.

Pure and total. Refuses to know metrics, reasons and the controller's other answers: what cannot
be matched is returned as ``Vanished``, and the shell may ask ``queue/item/ID`` about it and pass
the answer to ``claim``.
"""

import math
from collections.abc import Iterable, Mapping

from attrs import Factory, evolve, frozen

from broker.core import model
from broker.core.model import Agent, ItemId, NodeName, Stage, TemplateName

MAX_GAP_S = 60.0
"""Two reads further apart than this say too little about when something started."""

_READY = frozenset({Stage.BUILDABLE, Stage.PENDING})


@frozen(kw_only=True)
class Waiter:
    """An item in the queue, as far as its start can be recognised later."""

    item: ItemId
    stage: Stage
    ready_at: float  # since when only an executor was missing, as well as we know
    held_at: float = 0.0  # the last read that showed it in the quiet period or blocked
    template: TemplateName | None = None
    agent: NodeName | None = None  # nominated to it
    task_url: str = ""


@frozen(kw_only=True)
class Known:
    """What one synced read of the controller showed, as far as the next comparison needs it."""

    read_at: float
    session: str
    waiting: Mapping[ItemId, Waiter] = Factory(dict)
    running: Mapping[NodeName, tuple[str, ...]] = Factory(dict)  # "" where the URL is hidden


@frozen(kw_only=True)
class Started:
    """A build began on one of our agents. ``item`` None: its item came and went unseen."""

    item: ItemId | None
    agent: NodeName
    template: TemplateName | None
    warm: bool  # the agent was online before the item became buildable
    waited_s: float  # at most, see above; never negative


@frozen(kw_only=True)
class Vanished:
    """A buildable item of a template is gone: cancelled, elsewhere, or too short to be seen."""

    item: ItemId
    template: TemplateName
    ready_at: float
    gone_at: float
    looked_at: float = math.inf  # the look that showed it; agents seen by then may have run it
    taken: frozenset[NodeName] = frozenset()  # where other blocks of the same Pipeline ran by then


@frozen(kw_only=True)
class Look:
    """The result of one comparison; pass ``known`` to the next one."""

    known: Known | None = None
    started: tuple[Started, ...] = ()
    vanished: tuple[Vanished, ...] = ()


@frozen(kw_only=True)
class _Run:
    agent: Agent
    url: str


def look(before: Known | None, world: model.World, plan: model.Plan) -> Look:
    """Compare this observation with the last synced one; an unsynced one changes nothing."""
    view = world.controller
    if not view.synced:
        return Look(known=before)
    after = _know(before, world, plan)
    if before is None or before.session != after.session:
        return Look(known=after)
    if not 0.0 <= after.read_at - before.read_at <= MAX_GAP_S:
        return Look(known=after)
    gone = sorted(
        (w for item, w in before.waiting.items() if item not in after.waiting),
        key=lambda w: (w.ready_at, w.item),
    )
    fresh = _fresh_runs(before, after, plan)
    picked: list[tuple[Waiter, _Run]] = []
    missed: list[Waiter] = []
    for waiter in gone:
        run = _pick(waiter, fresh)
        if run is not None:
            fresh.remove(run)
            picked.append((waiter, run))
        elif waiter.template is not None and _was_ready(waiter, after.read_at):
            missed.append(waiter)
    tasks = {waiter.task_url for waiter in missed if waiter.task_url}
    unsure = [(w, run) for w, run in picked if w.task_url in tasks and _tells_number(w, run)]
    started = [
        _started(waiter, run.agent, gone_at=after.read_at)
        for waiter, run in picked
        if (waiter, run) not in unsure
    ]
    vanished = [
        Vanished(
            item=waiter.item,
            template=waiter.template,
            ready_at=waiter.ready_at,
            gone_at=after.read_at,
            looked_at=world.now,
            taken=_taken(after, waiter),
        )
        for waiter in sorted((*missed, *(w for w, _ in unsure)), key=lambda w: w.item)
        if waiter.template is not None
    ]
    started.extend(
        Started(
            item=None,
            agent=run.agent.name,
            template=run.agent.template,
            warm=_is_warm(run.agent, before.read_at),
            waited_s=after.read_at - before.read_at,
        )
        for run in fresh
    )
    return Look(known=after, started=tuple(started), vanished=tuple(vanished))


def _tells_number(waiter: Waiter, run: _Run) -> bool:
    """Return whether a run's URL is of one build of the task, and not of all blocks of a Pipeline.

    Where several builds of a task began it may be any of them: its item tells.
    """
    return waiter.template is not None and _segments(run.url) != _segments(waiter.task_url)


def _taken(known: Known, waiter: Waiter) -> frozenset[NodeName]:
    task = _segments(waiter.task_url)
    return frozenset(
        name
        for name, urls in known.running.items()
        if task and any(_segments(url) == task for url in urls)
    )


def _was_ready(waiter: Waiter, at: float) -> bool:
    """Return whether an item may have begun: also when its quiet period is over since."""
    return waiter.stage in _READY or (waiter.stage is Stage.WAITING and waiter.ready_at <= at)


def claim(vanished: Vanished, *, executable_url: str, agents: Iterable[Agent]) -> Started | None:
    """Return where a vanished item runs, given what ``queue/item/ID`` says of its build.

    None: on no agent of ours, or it has already ended.
    """
    for agent in agents:
        if agent.computer is None or agent.name in vanished.taken:
            continue
        if executable_url in agent.computer.executable_urls:
            return started(vanished, agent)
    return None


def started(vanished: Vanished, agent: Agent) -> Started:
    """Return the start of a vanished item, given the agent that ran it."""
    waiter = Waiter(
        item=vanished.item,
        stage=Stage.BUILDABLE,
        ready_at=vanished.ready_at,
        template=vanished.template,
    )
    return _started(waiter, agent, gone_at=vanished.gone_at)


def is_run_of(run_url: str, task_url: str) -> bool:
    """Return whether a build belongs to a task, by their URLs.

    ``job/a/7/`` runs ``job/a/``; a matrix cell may read ``job/m/7/x=1/``; the placeholder of a
    Pipeline has its run's own URL. The host is not compared: some tasks export a relative URL.
    """
    run, task = _segments(run_url), _segments(task_url)
    if not task:
        return False
    if run == task:
        return True
    return any(
        run[:index] + run[index + 1 :] == task
        for index, segment in enumerate(run)
        if segment.isdigit()
    )


def _segments(url: str) -> list[str]:
    """Return the path from its first ``job`` on; empty if there is none."""
    parts = [part for part in url.split("/") if part]
    return parts[parts.index("job") :] if "job" in parts else []


def _know(before: Known | None, world: model.World, plan: model.Plan) -> Known:
    view = world.controller
    unmet = {u.item: u for u in plan.unmet}
    old = before.waiting if before is not None and before.session == view.session else {}
    return Known(
        read_at=view.read_at,
        session=view.session,
        waiting={
            item.id: _waiter(item, unmet.get(item.id), old.get(item.id), read_at=view.read_at)
            for item in view.items
        },
        running=_running(view, plan),
    )


def _waiter(
    item: model.QueueItem, unmet: model.Unmet | None, old: Waiter | None, *, read_at: float
) -> Waiter:
    held_at = old.held_at if old is not None else 0.0
    if item.stage in _READY:
        since = item.buildable_since_at or item.in_queue_since_at
        if not since:  # not told: since it was seen
            since = old.ready_at if old is not None else read_at
        ready_at = max(since, held_at)
    else:
        held_at = read_at
        ready_at = max(read_at, item.quiet_until_at or 0.0)
    waiter = Waiter(
        item=item.id,
        stage=item.stage,
        ready_at=ready_at,
        held_at=held_at,
        task_url=item.task_url,
    )
    # an item that is already given to an executor may have no reason any more
    source = unmet if unmet is not None else old
    if source is None:
        return waiter
    return evolve(waiter, template=source.template, agent=source.agent)


def _running(view: model.ControllerView, plan: model.Plan) -> dict[NodeName, tuple[str, ...]]:
    """Return what runs on each agent.

    While an item is pending, an executor that shows no build has been given it and has not begun:
    it would be taken for a start now, and for another one when it begins.
    """
    pending = sum(item.stage is Stage.PENDING for item in view.items)
    running: dict[NodeName, tuple[str, ...]] = {}
    for agent in plan.agents:
        if agent.computer is None:
            continue
        runs = list(_runs(agent.computer))
        while pending and "" in runs:
            runs.remove("")
            pending -= 1
        running[agent.name] = tuple(runs)
    return running


def _runs(computer: model.Computer) -> tuple[str, ...]:
    """Return one entry per running build; empty text where its URL may not be read."""
    hidden = max(0, computer.busy_executors - len(computer.executable_urls))
    return (*computer.executable_urls, *("",) * hidden)


def _fresh_runs(before: Known, after: Known, plan: model.Plan) -> list[_Run]:
    fresh: list[_Run] = []
    for agent in sorted(plan.agents, key=lambda a: a.name):
        earlier = list(before.running.get(agent.name, ()))
        for url in after.running.get(agent.name, ()):
            if url in earlier:
                earlier.remove(url)
            else:
                fresh.append(_Run(agent=agent, url=url))
    return fresh


def _pick(waiter: Waiter, fresh: list[_Run]) -> _Run | None:
    """Return the new run that is most likely this item's."""
    candidates = [run for run in fresh if run.url and is_run_of(run.url, waiter.task_url)]
    if not candidates and waiter.template is not None and waiter.stage in _READY:
        candidates = [
            run
            for run in fresh
            if run.agent.template == waiter.template and not (run.url and waiter.task_url)
        ]
    return min(
        candidates,
        key=lambda run: (
            run.agent.name != waiter.agent,
            run.agent.template != waiter.template,
            run.agent.name,
        ),
        default=None,
    )


def _started(waiter: Waiter, agent: Agent, *, gone_at: float) -> Started:
    return Started(
        item=waiter.item,
        agent=agent.name,
        template=agent.template if agent.template is not None else waiter.template,
        warm=_is_warm(agent, waiter.ready_at),
        waited_s=max(0.0, gone_at - waiter.ready_at),
    )


def _is_warm(agent: Agent, ready_at: float) -> bool:
    online_at = agent.memory.online_at if agent.memory is not None else None
    return online_at is not None and online_at <= ready_at
