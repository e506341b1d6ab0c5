"""The JSON documents of the status API, made from the last ``World`` and ``Plan``.

Rules: fields are chosen one by one, so that nothing secret comes along (no environment, no
command, no metadata); remote texts are cut to 256 characters; times are ISO 8601 in UTC
(``..._at``) with an age or distance in seconds beside them (``..._age_s``, ``..._in_s``); null
means unknown. Reasons are worded by the core: nothing here invents one. Pure; refuses to know
HTTP and HTML. ``docs/metrics.md`` lists the fields; they are stable, new ones may be added.
"""

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from backends import api as backends_api
from broker import config
from broker.core import model
from broker.core.decide import explain, staying
from broker.core.decide import leftovers as remains
from broker.core.demand import parameters
from broker.core.fleet import accounts, death, ledger, lifecycle, standing, withheld
from broker.status import jobs
from broker.status.source import StatusSource
from outside import text as outside_text

Document = dict[str, Any]
_Items = Mapping[model.ItemId, model.QueueItem]
Rows = Callable[[Iterable[Document]], Iterable[Document]]

_CONTROLLER = "controller"
_QUOTE = 256
GROUPS = 100
_WHOLE_GROUPS, _FEW = 10, 3  # so many are given whole, so many rows of the others
_SEARCHED = 128  # characters of what somebody looks for
_FIRST_YEAR, _LAST_YEAR = -62135596800.0, 253402300799.0  # POSIX: begin of 1, end of 9999
_WITHOUT_CAUSE = (model.LaunchAgent, model.UncordonAgent, model.CheckAgent)


@frozen(kw_only=True)
class RowFilter:
    """What somebody looks for on the page: rows that have each of these words."""

    words: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words)

    def has(self, told: str) -> bool:
        """Whether a row, all its words in small letters, is looked for."""
        return all(word in told for word in self.words)


EVERYTHING = RowFilter()


@frozen(kw_only=True)
class _QueueRead:
    """Who waits, and all that is known of it, as of one moment."""

    now: float
    items: Mapping[model.ItemId, model.QueueItem]
    unmet: Mapping[model.ItemId, model.Unmet]
    keys: tuple[model.ItemId, ...]
    places: Mapping[model.ItemId, tuple[int, int]]
    waits: Mapping[model.ItemId, model.Account]

    @classmethod
    def of(cls, source: StatusSource) -> "_QueueRead":
        """Read the last look, and what has been written down of those that wait."""
        world, plan = _read(source)
        unmet = {u.item: u for u in plan.unmet} if plan is not None else {}
        known = world.controller.items if world is not None and plan is not None else ()
        items = {item.id: item for item in known}
        return cls(
            now=source.now(),
            items=items,
            unmet=unmet,
            keys=tuple(dict.fromkeys((*unmet, *items))),
            places=_places(unmet.values()),
            waits=source.waits.open,
        )

    def aged(self, key: model.ItemId) -> tuple[float, model.ItemId]:
        """Return what sorts those that wait longest first."""
        age = _age(_since(self.items.get(key), self.unmet.get(key)), self.now)
        return -(age or 0.0), key

    def row(self, key: model.ItemId) -> Document:
        """Return all that is told of one."""
        wait = self.waits.get(key)
        return {
            **_item(key, self.items.get(key), self.unmet.get(key), now=self.now),
            **_place(self.places.get(key)),
            "spell": wait.spell.value if wait is not None else None,
            "so_far_s": _so_far(wait, self.now),
        }


@frozen(kw_only=True)
class AlikeBuilds:
    """Items that wait for the same reason and the same label."""

    total: int
    longest_s: float
    rows: tuple[Document, ...]  # those that wait longest


def queue(source: StatusSource, *, most: int | None = None, rows: Rows = list) -> Document:
    """Return who waits, the longest first, and why; no more than ``most``.

    ``rows``: what its many rows are put into; ``iter`` leaves them to be made one by one.
    """
    read = _QueueRead.of(source)
    return {
        **_head(source),
        "total": len(read.keys),
        "items": rows(read.row(key) for _, key in sorted(map(read.aged, read.keys))[:most]),
    }


def history(source: StatusSource) -> Document:
    """Return the last items that started or left, the newest first, and what they waited for."""
    now = source.now()
    return {**_head(source), "items": [_ended(w, now=now) for w in reversed(source.waits.closed)]}


def wanted(told: str) -> RowFilter:
    """Return what rows a person looks for, by what they typed."""
    words = outside_text.clean(told, _SEARCHED).casefold().split()
    return RowFilter(words=tuple(words))


def groups(
    source: StatusSource, looked_for: RowFilter, *, most: int
) -> tuple[list[AlikeBuilds], int]:
    """Return who waits, gathered by reason and label, those who wait longest first.

    ``GROUPS`` of them at most, and how many more there are. Of each no more than ``most`` rows,
    and few of the later ones. What is not looked for is left out.
    """
    read = _QueueRead.of(source)
    gathered: dict[tuple[object, ...], list[tuple[float, model.ItemId]]] = {}
    for key in read.keys:
        item, one = read.items.get(key), read.unmet.get(key)
        if looked_for and not looked_for.has(_told_of(item, one)):
            continue
        alike = (
            (one.reason, one.label.expression or one.label.node, one.template)
            if one is not None
            else (item.stage if item is not None else None, None, None)
        )
        gathered.setdefault(alike, []).append(read.aged(key))
    made = []
    for number, keys in enumerate(sorted(gathered.values(), key=min)):
        keys.sort()
        shown = most if number < _WHOLE_GROUPS else _FEW
        rows = [read.row(key) for _, key in keys[:shown]]
        made.append(AlikeBuilds(total=len(keys), longest_s=-keys[0][0], rows=tuple(rows)))
        if len(made) == GROUPS:
            break
    return made, len(gathered) - len(made)


def _told_of(item: model.QueueItem | None, unmet: model.Unmet | None) -> str:
    """Return all of an item that may be looked for."""
    told = [jobs.full_name(item), str(item.id)] if item is not None else []
    if unmet is not None:
        label = unmet.label
        told += [unmet.reason.value, label.expression or "", label.node or ""]
        told += [unmet.template or "", unmet.agent or ""]
    return " ".join(told).casefold()


def _told_of_agent(agent: model.Agent) -> str:
    computer, instance = agent.computer, agent.instance
    urls = computer.executable_urls if computer is not None else ()
    told = [agent.name, agent.phase.value, agent.template or "", agent.backend or ""]
    told += [instance.place if instance is not None else "", *sorted(agent.asked)]
    return " ".join((*told, *(jobs.name_of(url) for url in urls))).casefold()


def agents(
    source: StatusSource,
    *,
    most: int | None = None,
    rows: Rows = list,
    looked_for: RowFilter = EVERYTHING,
) -> Document:
    """Return the agents by name, no more than ``most``, and the last deaths, newest first.

    ``rows``: as of ``queue``.
    """
    document = _head(source)
    now = source.now()
    _, plan = _read(source)
    present: Sequence[model.Agent] = plan.agents if plan is not None else ()
    if looked_for:
        present = [agent for agent in present if looked_for.has(_told_of_agent(agent))]
    document["total"] = len(present)
    document["agents"] = rows(_agent(a, now=now) for a in present[:most])
    document["deaths"] = [_death(d, now=now) for d in reversed(source.deaths)]
    return document


def agent(source: StatusSource, name: str) -> Document:
    """Return all that is known of one agent: null and empty lists of one that is not known.

    ``moments`` are the times of its life that are known, the oldest first.
    """
    world, plan = _read(source)
    now = source.now()
    one = next((a for a in plan.agents if a.name == name), None) if plan is not None else None
    dead = next((d for d in reversed(source.deaths) if d.name == name), None)
    known = one.template if one is not None else dead.template if dead is not None else None
    template = source.policy.by_name.get(known)
    unmet = [u for u in plan.unmet if u.agent == name] if plan is not None else []
    items = {item.id: item for item in world.controller.items} if world is not None else {}
    return {
        **_head(source),
        "name": name,
        "agent": _agent(one, now=now) if one is not None else None,
        "text": staying.words(one, plan, source.policy, now=now)
        if one is not None and plan is not None
        else "",
        "node": _node(one.computer) if one is not None and one.computer is not None else None,
        "ordered_for": _ordered_for(one, items) if one is not None else None,
        "serves": [_item(u.item, items.get(u.item), u, now=now) for u in unmet],
        "moments": [
            {"text": text, "at": _iso(at), "age_s": _age(at, now)}
            for at, text in (_moments(one) if one is not None else ())
        ],
        "template": _template(template) if template is not None else None,
        "death": _death(dead, now=now) if dead is not None else None,
        "events": [e for e in events(source)["events"] if e["agent"] == name],
    }


def events(source: StatusSource) -> Document:
    """Return what was done and what happened of late, the oldest first.

    Made of the last actions that ended, of the last deaths and of the configuration in force.
    """
    now, items = source.now(), _items(source)
    rows = [
        *((o.at, _event_of_outcome(o, items)) for o in source.outcomes),
        *((d.at, _event_of_death(d)) for d in source.deaths),
        *_events_of_configuration(source.configuration),
    ]
    rows.sort(key=lambda row: row[0])
    return {
        **_head(source),
        "events": [{"at": _iso(at), "age_s": _age(at, now), **row} for at, row in rows],
    }


def templates(source: StatusSource) -> Document:
    """Return the templates in order of preference, then those that only old agents know."""
    document = _head(source)
    plan, policy = source.plan, source.policy
    counts = dict(plan.counts) if plan is not None else {}
    phases: dict[str | None, Counter[str]] = defaultdict(Counter)
    for agent in plan.agents if plan is not None else ():
        phases[agent.template][agent.phase.value] += 1
    rows = [_template(t) for t in policy.templates]
    known = {t.name for t in policy.templates}
    old = sorted({n for n in (*counts, *phases) if n is not None and n not in known})
    rows.extend({"name": name, "configured": False} for name in old)
    for row in rows:
        row["counts"] = _count(counts.get(row["name"]))
        row["phases"] = dict(sorted(phases[row["name"]].items()))
    document["templates"] = rows
    return document


def plan(source: StatusSource, *, most: int | None = None) -> Document:
    """Return what is to be done now, what is held back and why, and what was done last.

    No more than ``most`` actions and refusals.
    """
    document = _head(source)
    last, now, state = source.plan, source.now(), source.configuration
    items = _items(source)
    document.update(
        cycle=last.ledger.cycle if last is not None else None,
        active=last.active if last is not None else None,
        overshoot=last.overshoot if last is not None else None,
        wake_at=_iso(last.wake_at) if last is not None else None,
        wake_in_s=_until(last.wake_at, now) if last is not None else None,
        draining=source.policy.draining,
        orders=_standing(source),
        configuration=source.fingerprint,
        configuration_at=_iso(state.read_at or None),
        configuration_age_s=_age(state.read_at or None, now),
        configuration_refused_at=_iso(state.refused_at),
        configuration_refused_age_s=_age(state.refused_at, now),
        configuration_refusal=_quote(state.refusal, limit=1024),
        configuration_waits=list(state.waits),
        actions=[_action(a, items) for a in last.actions[:most]] if last is not None else [],
        refusals=[_refusal(r) for r in last.refusals[:most]] if last is not None else [],
        backoffs=_backoffs(last, now=now) if last is not None else [],
        outcomes=[_outcome(o, items, now=now) for o in reversed(source.outcomes)],
        sources=_sources(source, now=now),
        hook=_hook(source, now=now),
    )
    return document


def orders(source: StatusSource) -> Document:
    """Return what people have ordered, and stands."""
    return {**_head(source), "orders": _standing(source)}


def _standing(source: StatusSource) -> list[Document]:
    now = source.now()
    return [
        {
            "kind": order.kind.value,
            "about": standing.subject(order),
            "template": order.template,
            "backend": order.backend,
            "agent": order.agent,
            "agents": order.agents or None,
            "who": _quote(order.who),
            "note": _quote(order.note),
            "since_at": _iso(order.since_at),
            "age_s": _age(order.since_at, now),
            "until_at": _iso(order.until_at),
            "until_in_s": _until(order.until_at, now) if order.until_at is not None else None,
            "text": _quote(standing.words(order), limit=1024),
        }
        for order in source.policy.standing
        if order.stands(now)
    ]


def _hook(source: StatusSource, *, now: float) -> Document | None:
    """Return how it stands with the push hook; None where there is to be none."""
    state = source.hooked
    if state is None:
        return None
    return {
        "heard_at": _iso(state.heard_at),
        "heard_age_s": _age(state.heard_at, now),
        "silent": state.is_silent(now),
        "silent_age_s": _age(state.heard_at or state.since_at, now),
        "version": state.version or None,
        "events": state.events,
        "lost": state.lost,
        "trouble": _quote(state.trouble),
    }


def configuration(source: StatusSource, *, blind: Callable[[str], str] | None) -> Document:
    """Return what is in force, setting by setting: to be compared by whoever has our key.

    ``blind`` makes of a digest what nobody else can; without it there is nothing to compare.
    """
    state = source.configuration
    parts = sorted(state.parts.items()) if blind is not None else ()
    return {
        **_head(source),
        "settings": {path: blind(digest) for path, digest in parts} if blind is not None else {},
        "waits": list(state.waits),
        "revisions": {t.name: t.revision for t in source.policy.templates},
    }


def leftovers(source: StatusSource, planned: model.Plan | None, *, everything: bool) -> Document:
    """Return what is left over by the last look, and what stands in the way of its removal.

    ``planned`` is what ``core.leftovers`` makes of that look, None before the first one.
    ``everything``: also the agents that have nothing to do, as ``sweep --all`` means it.
    """
    return {
        **_head(source),
        "everything": everything,
        "leftovers": [_action(a, {}) for a in remains.removals(planned)] if planned else [],
        "kept": [_refusal(r) for r in planned.refusals] if planned else [],
    }


def _read(source: StatusSource) -> tuple[model.World | None, model.Plan | None]:
    """Return the last look, or while the controller does not answer the last one at which it did.

    What waits and who works does not cease because nobody can ask; the head says of when it is.
    """
    world = source.world
    if world is None or world.controller.synced or source.last_read is None:
        return world, source.plan
    last_world, last_plan = source.last_read
    return last_world, explain.unsure(last_plan, world.controller)


def _head(source: StatusSource) -> Document:
    world = source.world
    ready, why = source.ready()
    led = source.leadership
    now = source.now()
    at = world.now if world is not None else None
    return {
        "owner": source.policy.owner,
        "version": source.version,
        "observed_at": _iso(at),
        "observed_age_s": _age(at, now),
        "synced": world is not None and world.controller.synced,
        "as_of": _iso(source.as_of.get(_CONTROLLER)),
        "as_of_age_s": _age(source.as_of.get(_CONTROLLER), now),
        "unknown_since": _iso(source.unread_since.get(_CONTROLLER)),
        "unknown_age_s": _age(source.unread_since.get(_CONTROLLER), now),
        "ready": ready,
        "ready_text": _quote(why),
        "leading": led.leading,
        "leader": _quote(led.holder) or None,
        "leader_since_at": _iso(led.since),
        "leader_age_s": _age(led.since, now),
        "standby_text": _quote(led.reason),
    }


def _since(item: model.QueueItem | None, unmet: model.Unmet | None) -> float | None:
    if unmet is not None and unmet.since_at:
        return unmet.since_at
    if item is None:
        return None
    return item.buildable_since_at or item.in_queue_since_at or None  # 0.0: it is not told


def _item(
    key: model.ItemId, item: model.QueueItem | None, unmet: model.Unmet | None, *, now: float
) -> Document:
    since = _since(item, unmet)
    label = unmet.label if unmet is not None else None
    return {
        "id": key,
        "stage": item.stage.value if item is not None else None,
        "job": jobs.full_name(item) if item is not None else "",
        "task": _quote(item.task_name) if item is not None else "",
        "url": _quote(item.task_url) if item is not None else "",
        "reason": unmet.reason.value if unmet is not None else None,
        "text": _quote(unmet.text, limit=1024) if unmet is not None else "",
        "controller_text": _quote(item.why) if item is not None else "",
        "label": _quote(label.expression) if label is not None and label.expression else None,
        "label_source": label.source.value if label is not None else None,
        "label_node": _quote(label.node) if label is not None and label.node else None,
        "template": unmet.template if unmet is not None else None,
        "agent": unmet.agent if unmet is not None else None,
        "stuck": item.stuck if item is not None else None,
        "waiting_since_at": _iso(since),
        "waiting_age_s": _age(since, now),
        "queued_at": _iso(item.in_queue_since_at or None) if item is not None else None,
        "quiet_until_at": _iso(item.quiet_until_at) if item is not None else None,
    }


_NOT_IN_LINE = frozenset(
    {
        model.WaitReason.QUIET_PERIOD,
        model.WaitReason.BLOCKED,
        model.WaitReason.NOT_OURS,
        model.WaitReason.NO_TEMPLATE,
    }
)
"""Who waits for these takes no turn: nobody of a template would be given them now."""


def _places(unmet: Iterable[model.Unmet]) -> Mapping[model.ItemId, tuple[int, int]]:
    """Return which one of how many each item is that waits for its template, as they are served.

    The oldest goes first (``draft.oldest_first``).
    """
    lines: dict[str, list[model.Unmet]] = defaultdict(list)
    for one in unmet:
        if one.template is not None and one.reason not in _NOT_IN_LINE:
            lines[one.template].append(one)
    places = {}
    for line in lines.values():
        line.sort(key=lambda one: (one.since_at or math.inf, one.item))
        places.update({one.item: (place, len(line)) for place, one in enumerate(line, 1)})
    return places


def _place(place: tuple[int, int] | None) -> Document:
    number, of = place if place is not None else (None, None)
    return {"place": number, "place_of": of}


def _so_far(account: model.Account | None, now: float) -> dict[str, float]:
    return _seconds(accounts.so_far(account, now)) if account is not None else {}


def _seconds(spent: Mapping[model.Spell, float]) -> dict[str, float]:
    return {spell.value: round(seconds, 3) for spell, seconds in spent.items()}


def _ended(wait: model.ClosedAccount, *, now: float) -> Document:
    job = jobs.name_of(wait.task_url) or outside_text.clean(wait.task_name, _QUOTE)
    return {
        "id": wait.item,
        "job": job,
        "url": _quote(wait.task_url),
        "label": _quote(wait.label) if wait.label else None,
        "template": wait.template,
        "agent": wait.agent,
        "end": wait.end.value,
        "queued_at": _iso(wait.since_at or None),
        "left_at": _iso(wait.ended_at),
        "left_age_s": _age(wait.ended_at, now),
        "waited_s": round(max(0.0, wait.ended_at - wait.since_at), 3),
        "spent_s": _seconds(wait.spent),
        "text": _quote(wait.text, limit=1024),
    }


def _agent(agent: model.Agent, *, now: float) -> Document:
    computer, memory, flight = agent.computer, agent.memory, agent.expectation
    idle_at = memory.idle_at if memory is not None else None
    online_at = memory.online_at if memory is not None else None
    held_at = withheld.held_since(agent) if withheld.is_held(agent) else None
    closed_at = memory.closed_at if memory is not None and agent.closed else None
    return {
        "name": agent.name,
        "phase": agent.phase.value,
        "template": agent.template,
        "asked": [_quote(label) for label in sorted(agent.asked)],
        "backend": agent.backend,
        "place": _quote(agent.instance.place) if agent.instance is not None else "",
        "revision": agent.revision,
        "cordoned": agent.cordoned,
        "check": agent.check.value if agent.check is not None else None,
        "created_at": _iso(agent.created_at),
        "age_s": _age(agent.created_at, now),
        "online_at": _iso(online_at),
        "online_age_s": _age(online_at, now),
        "idle_at": _iso(idle_at),
        "idle_age_s": _age(idle_at, now),
        "builds": memory.builds if memory is not None else 0,
        "running": [_quote(u) for u in computer.executable_urls] if computer is not None else [],
        "jobs": [_quote(jobs.name_of(u) or u) for u in computer.executable_urls]
        if computer is not None
        else [],
        "executors": computer.executors if computer is not None else None,
        "busy_executors": computer.busy_executors if computer is not None else None,
        "offline": computer.offline if computer is not None else None,
        "offline_cause": _quote(computer.offline_cause) if computer is not None else "",
        "held_by": _held_by(agent),
        "held_since_at": _iso(held_at),
        "held_age_s": _age(held_at, now),
        "closed_since_at": _iso(closed_at),
        "closed_age_s": _age(closed_at, now),
        "serves_nobody": _quote(withheld.words(agent, now=now), limit=1024),
        "instance": _instance(agent.instance, now=now) if agent.instance is not None else None,
        "in_flight": _flight(flight, now=now) if flight is not None else None,
    }


def _held_by(agent: model.Agent) -> str | None:
    """Return who holds an agent: a person's name, or what its offline cause says; null: nobody."""
    if agent.computer is None or not withheld.is_held(agent):
        return None
    cause = agent.computer.offline_cause
    if lifecycle.is_by_order(agent.computer):
        return _quote(cause)
    return _quote(agent.computer.offline_by or cause)


def _instance(instance: backends_api.Instance, *, now: float) -> Document:
    end = instance.exit
    return {
        "state": instance.state.value,
        "text": _quote(instance.detail),
        "leaving_at": _iso(instance.leaving_at),
        "leaving_age_s": _age(instance.leaving_at, now),
        "ends_because": _quote(instance.ends_because),
        "ends_at": _iso(instance.ends_at),
        "ends_in_s": _until(instance.ends_at, now),
        "mishap": _mishap(instance.mishap, now=now) if instance.mishap is not None else None,
        "host": _quote(instance.host),
        "ports": [
            {
                "port": one.port,
                "protocol": _quote(one.protocol),
                "address": _quote(one.address),
                "host_port": one.host_port,
            }
            for one in instance.ports
        ],
        "usage": _usage(instance.usage, now=now) if instance.usage is not None else None,
        "exit": {"slug": end.slug, "code": end.code, "text": _quote(end.message)}
        if end is not None
        else None,
    }


def _mishap(mishap: backends_api.Mishap, *, now: float) -> Document:
    return {
        "slug": mishap.slug,
        "text": _quote(mishap.text),
        "times": mishap.times,
        "at": _iso(mishap.at),
        "age_s": _age(mishap.at, now),
    }


def _usage(usage: backends_api.Usage, *, now: float) -> Document:
    return {
        "at": _iso(usage.at),
        "age_s": _age(usage.at, now),
        "memory_bytes": usage.memory_bytes,
        "memory_peak_bytes": usage.memory_peak_bytes,
        "memory_cached_peak_bytes": usage.memory_cached_peak_bytes,
        "memory_limit_bytes": usage.memory_limit_bytes,
        "cpu_s": _rounded(usage.cpu_s),
        "cpu_peak_cores": _rounded(usage.cpu_peak_cores),
        "throttled_s": _rounded(usage.throttled_s),
    }


def _rounded(amount: float | None) -> float | None:
    return round(amount, 3) if amount is not None and math.isfinite(amount) else None


def _flight(expectation: model.Expectation, *, now: float) -> Document:
    return {
        "verb": expectation.verb.value,
        "since_at": _iso(expectation.since_at),
        "age_s": _age(expectation.since_at, now),
        "reason": _quote(expectation.reason, limit=1024),
    }


def _death(dead: death.Death, *, now: float) -> Document:
    return {
        "name": dead.name,
        "template": dead.template,
        "backend": dead.backend,
        "place": _quote(dead.place),
        "at": _iso(dead.at),
        "age_s": _age(dead.at, now),
        "phase": dead.phase.value,
        "slug": dead.cause.slug,
        "text": _quote(dead.text, limit=1024),
        "exit_code": dead.exit_code,
        "usage": _usage(dead.usage, now=now) if dead.usage is not None else None,
        "last_lines": [_quote(line) for line in dead.last_lines],
    }


def _template(template: model.Template) -> Document:
    keep = template.retention
    return {
        "name": template.name,
        "configured": True,
        "labels": sorted(template.labels),
        "backends": list(template.backends),
        "revision": template.revision,
        "executors": template.executors,
        "exclusive": template.exclusive,
        "takes_unlabelled": template.takes_unlabelled,
        "start_early": template.start_early,
        "paused": template.paused,
        "only_for": list(template.only_for),
        "not_for": list(template.not_for),
        "cap": template.cap,
        "parameters": {
            name: parameters.words(name, one) for name, one in template.parameters.items()
        },
        "variants": template.variants,
        "min_idle": template.min_idle,
        "retention": {
            "once": keep.once,
            "max_builds": keep.max_builds,
            "idle_s": _finite(keep.idle_s),
            "max_age_s": _finite(keep.max_age_s),
            "keep_failed_s": _finite(keep.keep_failed_s),
            "keep_failed_most": keep.keep_failed_most,
        },
    }


def _count(count: model.TemplateCount | None) -> Document:
    one = count if count is not None else model.TemplateCount()
    return {
        "demand": one.demand,
        "warm_target": one.warm_target,
        "idle": one.idle,
        "busy": one.busy,
        "starting": one.starting,
        "agents": one.agents,
        "launches": one.launches,
    }


def _items(source: StatusSource) -> _Items:
    world, _ = _read(source)
    return {item.id: item for item in world.controller.items} if world is not None else {}


def _action(action: model.Action, items: _Items) -> Document:
    item = action.item if isinstance(action, model.LaunchAgent) else None
    waits = items.get(item) if item is not None else None
    return {
        "verb": ledger.verb_of(action).value,
        "name": action.name,
        "template": getattr(action, "template", None),
        "backend": getattr(action, "backend", None),
        "item": item,
        "job": jobs.full_name(waits) if waits is not None else "",
        "slug": _slug_of(action),
        "reason": _quote(action.reason, limit=1024),
    }


def _slug_of(action: model.Action) -> str | None:
    if isinstance(action, _WITHOUT_CAUSE):
        return None
    stays = isinstance(action, model.CordonAgent) and (action.check is not None or action.hold)
    return None if stays else action.cause.slug


def _result(outcome: ledger.Outcome) -> str:
    failed = outcome.failure.slug if outcome.failure is not None else "ok"
    return "withdrawn" if outcome.withdrawn else failed


def _outcome(outcome: ledger.Outcome, items: _Items, *, now: float) -> Document:
    return {
        **_action(outcome.action, items),
        "ended_at": _iso(outcome.at),
        "ended_age_s": _age(outcome.at, now),
        "result": _result(outcome),
        "text": _quote(outcome.text),
    }


def _event(
    kind: str,
    *,
    agent: str | None = None,
    result: str = "ok",
    slug: str | None = None,
    job: str = "",
    text: str = "",
) -> Document:
    return {
        "kind": kind,
        "agent": agent,
        "result": result,
        "slug": slug,
        "job": job,
        "text": _quote(text, limit=1024),
    }


def _event_of_outcome(outcome: ledger.Outcome, items: _Items) -> Document:
    action = _action(outcome.action, items)
    words = (outcome.action.reason, outcome.text)
    return _event(
        action["verb"],
        agent=action["name"],
        result=_result(outcome),
        slug=action["slug"],
        job=action["job"],
        text=": ".join(part for part in words if part),
    )


def _event_of_death(dead: death.Death) -> Document:
    return _event("death", agent=dead.name, slug=dead.cause.slug, text=dead.text)


def _events_of_configuration(
    state: config.ConfigurationState,
) -> Iterator[tuple[float, Document]]:
    if state.read_at:
        text = f"a restart is needed for {', '.join(state.waits)}" if state.waits else "in force"
        yield state.read_at, _event("configuration", text=text)
    if state.refused_at is not None:
        yield state.refused_at, _event("configuration", result="refused", text=state.refusal)


def _node(computer: model.Computer) -> Document:
    return {
        "labels": sorted(map(_quote, computer.labels)),
        "executors": computer.executors,
        "busy_executors": computer.busy_executors,
        "offline": computer.offline,
        "offline_cause": _quote(computer.offline_cause),
    }


def _ordered_for(agent: model.Agent, items: _Items) -> Document | None:
    """Return the item that an agent was started for; null: for the warm pool, or not known."""
    memory, flight = agent.memory, agent.expectation
    item = memory.item if memory is not None else None
    if item is None and flight is not None:
        item = flight.item
    if item is None:
        return None
    waits = items.get(item)
    return {"item": item, "job": jobs.full_name(waits) if waits is not None else ""}


def _moments(agent: model.Agent) -> list[tuple[float, str]]:
    """Return the times of an agent's life that are known, each with its words."""
    memory, flight, instance = agent.memory, agent.expectation, agent.instance
    known: list[tuple[float | None, str]] = [(agent.created_at, "ordered")]
    if flight is not None:
        known.append((flight.since_at, f"{flight.verb.value} begun"))
    if memory is not None:
        known += [
            (memory.online_at, "online for the first time"),
            (memory.offline_at, "not online from then on"),
            (memory.closed_at, "given no work by the controller from then on"),
            (memory.phase_at, f"{agent.phase.value} from then on"),
        ]
    if withheld.is_held(agent):
        known.append((withheld.held_since(agent), "out of service by somebody else"))
    if instance is not None:
        mishap, end = instance.mishap, instance.exit
        known += [
            (mishap.at if mishap is not None else None, mishap.text if mishap is not None else ""),
            (instance.leaving_at, "its instance is being removed from then on"),
            (end.at if end is not None else None, "its instance ended"),
        ]
    return sorted(((at, words) for at, words in known if at is not None), key=lambda one: one[0])


def _refusal(refusal: model.Refusal) -> Document:
    return {"subject": _quote(refusal.subject), "text": _quote(refusal.text, limit=1024)}


def _backoffs(last: model.Plan, *, now: float) -> list[Document]:
    return [
        {
            "scope": key.scope.value,
            "backend": key.backend or None,
            "template": key.template,
            "asked": [_quote(label) for label in sorted(key.asked)],
            "place": key.place or None,
            "failures": backoff.failures,
            "until_at": _iso(backoff.until_at),
            "until_in_s": _until(backoff.until_at, now),
            "slug": backoff.cause.slug,
            "text": _quote(backoff.reason, limit=1024),
        }
        for key, backoff in last.ledger.backoffs.items()
        if backoff.until_at > now
    ]


def _sources(source: StatusSource, *, now: float) -> list[Document]:
    world, policy = source.world, source.policy
    controller = world.controller if world is not None else model.ControllerView()
    rows: list[Document] = [
        {
            "source": _CONTROLLER,
            "backend": None,
            **_freshness(source, _CONTROLLER, controller, now=now),
            "version": _quote(controller.version),
            "quieting_down": controller.quieting_down,
            "capacity": "",
        }
    ]
    for name in dict.fromkeys((*policy.backends, *(world.backends if world is not None else ()))):
        view = world.backends.get(name) if world is not None else None
        shown = view if view is not None else model.BackendView()
        rows.append(
            {
                "source": "backend",
                "backend": name,
                **_freshness(source, f"backend {name}", shown, now=now),
                "version": "",
                "quieting_down": False,
                "capacity": _quote(shown.capacity.text) if shown.capacity is not None else "",
            }
        )
    return rows


def _freshness(
    source: StatusSource,
    name: str,
    view: model.ControllerView | model.BackendView,
    *,
    now: float,
) -> Document:
    """Return how old a view is; of an unknown source as of when it was known, and since when."""
    at = view.read_at or None
    as_of = at if view.synced else source.as_of.get(name)
    since = None if view.synced else source.unread_since.get(name)
    return {
        "synced": view.synced,
        "read_at": _iso(at),
        "read_age_s": _age(at, now),
        "as_of": _iso(as_of),
        "as_of_age_s": _age(as_of, now),
        "unknown_since": _iso(since),
        "unknown_age_s": _age(since, now),
        "error": _quote(view.error or getattr(view, "hidden", "") or view.odd, limit=512),
    }


def _quote(text: str, *, limit: int = _QUOTE) -> str:
    return outside_text.clean(text, limit)


def _iso(at: float | None) -> str | None:
    """Return ISO 8601 in UTC to the millisecond; None for what is no time."""
    if at is None or not _is_time(at):
        return None
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_time(at: float) -> bool:
    """Return whether there is a date for it; nan is none."""
    return _FIRST_YEAR <= at < _LAST_YEAR


def _age(at: float | None, now: float) -> float | None:
    return None if at is None or not _is_time(at) else round(max(0.0, now - at), 3)


def _until(at: float | None, now: float) -> float | None:
    return None if at is None or not _is_time(at) else round(max(0.0, at - now), 3)


def _finite(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None
