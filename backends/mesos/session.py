"""The scheduler session as a pure machine: events, wishes and the time in, calls out.

Theory of operation. The machine never waits and never looks at a clock; whoever drives it sends
the calls in the order given. Its rules:

* An offer is answered in the step in which it arrives, by ACCEPT or DECLINE. None is ever held, so
  none can be leaked, used twice, or used after a RESCIND that we have seen.
* An ACCEPT is followed by an explicit RECONCILE of its tasks: 202 proves nothing, the answer does
  (TASK_STAGING within milliseconds; recording 33). A task that was dropped (a stale offer) has
  never existed and is wanted again.
* Offers are wanted only while a task is: REVIVE with every new wish, SUPPRESS with the last one;
  SUBSCRIBE says so too, because a master forgets SUPPRESS there.
* A refusal is for long, and REVIVE takes it back as soon as it may be wrong: with a new wish; when
  the master does not make a task (what it would have had is in the refusal of the rest); when
  the end of a task lifts a constraint. More free room than was refused is offered unasked.
* An update is acknowledged exactly when it has a uuid, once per delivery, after it is recorded. A
  final one is recorded with the agent until ``forget``: it comes again after our crash.
* After each SUBSCRIBED everything is reconciled, implicitly and by name, until it is answered
  (``questions``).
* Without a uuid, LOST and UNREACHABLE are what the master believes. A task that we gave up in that
  state is killed when it comes back.
* "Framework failed over": another broker has our id, for as long as it holds its stream.
  "Framework has been removed" asks for a new id.
* A task's name is never used again in our life, once an agent may have had it: an executor lives
  on for a moment after its task, and an agent that is given the id meanwhile aborts.
* What cannot be read costs itself: an odd offer is declined, an odd update is acknowledged, if
  its three names can be read, and its task goes into ``odd`` until something sound comes of it.

Refuses to know HTTP, JSON on the wire, specifications and what an instance is to a broker.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backends.mesos import calls, offers, reconciliation, records, statuses, tasks
from outside import text, typed

_NEVER_WAS = frozenset(("REASON_INVALID_OFFERS",))
_REFUSED = frozenset(("TASK_ERROR", "TASK_DROPPED"))  # no agent has had such a task
MAINTENANCE_S = 3600.0  # an agent that goes into maintenance sooner gets no new task
_UNSEEN_REFUSE_S = 5.0  # the master's own default
_GRAVES_MAX = 4096
_USED_MAX = 65_536


class SessionPhase(enum.Enum):
    """Where the session stands."""

    OFFLINE = "offline"
    ONLINE = "online"
    REMOVED = "removed"  # the master has forgotten our framework; ``renew`` goes on
    SUPERSEDED = "superseded"  # another broker has taken our framework over


class Session:
    """One framework at one master. Every method that may say something returns calls to send."""

    def __init__(self, framework: calls.Framework, *, refuse_s: float) -> None:
        self.framework = framework
        self.phase = SessionPhase.OFFLINE
        self.heartbeat_s: float | None = None
        self.error = ""  # the master's last ERROR
        self.wants: dict[str, records.Want] = {}
        self.tasks: dict[str, records.Task] = {}
        self._refuse_s = refuse_s
        # what was forgotten, oldest first: uuid of its end, or None while it may come back
        self._graves: dict[str, str | None] = {}
        # names of tasks that are gone and that an agent may have had, oldest first
        self._used: dict[str, None] = {}
        self.odd: dict[str, str] = {}  # name of a task to why the last word of it was not read
        self.oddities = typed.Odd()  # all that could not be read, since the beginning
        # POSIX seconds: when maintenance of a Mesos agent begins, as the master warned us last
        self.maintenance: dict[str, float] = {}
        self._suppressed = True  # as the master was told
        self._questions = reconciliation.OpenQuestions()

    @property
    def synced(self) -> bool:
        """True when we have known everything at least once."""
        return self._questions.synced

    def leaving(self, now: float) -> set[str]:
        """Return the ids of the agents that go into maintenance too soon for another task."""
        return {agent for agent, at in self.maintenance.items() if at <= now + MAINTENANCE_S}

    # --- the connection ---

    def subscribe(self) -> calls.Call:
        """Return the call that opens a stream."""
        self._suppressed = not self.wants
        return calls.subscribe(self.framework, suppressed=not self.wants)

    def disconnected(self) -> None:
        """The stream is gone; wishes and facts stay."""
        if self.phase is SessionPhase.ONLINE:
            self.phase = SessionPhase.OFFLINE

    def is_new(self) -> None:
        """Nobody has spoken for our framework yet: there is nothing to be known of it."""
        self._questions.synced = True

    def left_alone(self) -> None:
        """Whoever had taken our framework over is gone, and may have left tasks."""
        if self.phase is SessionPhase.SUPERSEDED:
            self.phase = SessionPhase.OFFLINE
            self._questions.synced = False

    def renew(self, framework: calls.Framework) -> None:
        """Begin anew under another id; nothing of the removed framework runs any more."""
        self.framework, self.phase = framework, SessionPhase.OFFLINE
        for task in self.tasks.values():
            if task.final is None:
                task.end("TASK_GONE", "REASON_FRAMEWORK_REMOVED", "the master removed us")
            task.unacknowledged = None
        self._graves.clear()
        self.odd.clear()
        self.is_new()

    def receive(self, event: Mapping[str, Any], now: float) -> list[calls.Call]:
        """Take one event of the stream; unknown kinds are ignored, as the API asks."""
        match event.get("type"):
            case "SUBSCRIBED":
                return self._subscribed(event.get("subscribed"), now)
            case "OFFERS":
                return self._offered(_list(event, "offers", "offers"), now)
            case "INVERSE_OFFERS":
                return self._warned(_list(event, "inverse_offers", "inverse_offers"))
            case "UPDATE":
                return self._told(event.get("update"), now)
            case "ERROR":
                error = event.get("error")
                message = error.get("message") if isinstance(error, Mapping) else error
                self._failed(text.clean(str(message)))
        return []

    def give_back(self, event: Mapping[str, Any]) -> list[calls.Call]:
        """Decline for a moment what an event offers, which nobody could look at."""
        ids, _ = typed.each(_list(event, "offers", "offers"), _id_of)
        if not ids:
            return []
        return self._say(
            calls.decline_offers(self.framework, offer_ids=ids, refuse_s=_UNSEEN_REFUSE_S)
        )

    def set_aside(self, what: str) -> None:
        """Take note of something that could not be read."""
        reasons = dict.fromkeys((*self.oddities.reasons[-4:], text.clean(what, 120)))
        self.oddities = typed.Odd(count=self.oddities.count + 1, reasons=tuple(reasons))

    # --- what is wished ---

    def may_come_back(self, name: str) -> bool:
        """True when an earlier task of that name was given up and its end is not known."""
        return name in self._graves and self._graves[name] is None

    def was_used(self, name: str) -> bool:
        """True when an agent may have had a task of that name, which is gone."""
        return name in self._used

    def note_used(self, names: Iterable[str]) -> None:
        """Take note of names that tasks of earlier lives had."""
        self._used |= dict.fromkeys(name for name in names if name not in self.tasks)
        while len(self._used) > _USED_MAX:
            self._used.pop(next(iter(self._used)))

    def want(self, wants: Iterable[records.Want]) -> list[calls.Call]:
        """Ask for tasks to be launched; none of their names is taken or may come back."""
        self.wants |= {one.need.name: one for one in wants}
        return self._revive()

    def adopt(self, agents: Mapping[str, str], now: float) -> list[calls.Call]:
        """Take tasks (name to agent) of an earlier life whose agents do not answer.

        No update tells of them: only the master's page does.
        """
        known = self.tasks.keys() | self._graves.keys()
        new = {name: agent for name, agent in agents.items() if name not in known}
        for name, agent in new.items():
            self.wants.pop(name, None)
            self.tasks[name] = records.Task(
                name=name, agent_id=agent, state="TASK_UNREACHABLE", confirmed=True, started=True
            )
        if not new:
            return []
        self._questions.add(new, now)
        said = self._say(calls.reconcile_tasks(self.framework, new))
        return said + self._suppress_if_idle()

    def unwant(self, name: str) -> list[calls.Call]:
        """Take a wish back; a task that was launched meanwhile stays."""
        self.wants.pop(name, None)
        return self._suppress_if_idle()

    def kill(self, name: str, *, grace_s: float, now: float) -> list[calls.Call]:
        """End a task; repeated by ``tick`` until it has ended."""
        task = self.tasks[name]
        if task.final is not None and not task.is_away:
            return []
        shorter = task.grace_s is None or grace_s < task.grace_s
        task.grace_s = grace_s if shorter else task.grace_s
        return self._kill(task, now) if shorter or task.kill_at <= now else []

    def forget(self, name: str) -> list[calls.Call]:
        """Drop a task that has ended or is away; now its end is acknowledged.

        What comes of it later is acknowledged or killed, and never taken for a new task.
        """
        task = self.tasks.pop(name)
        self.odd.pop(name, None)
        if task.started or task.state not in _REFUSED:
            self.note_used([name])
        if task.unacknowledged is not None or task.is_away:
            self._graves.pop(name, None)
            self._graves[name] = task.unacknowledged if self.phase is SessionPhase.ONLINE else None
        while len(self._graves) > _GRAVES_MAX:
            self._graves.pop(next(iter(self._graves)))
        said = self._acknowledge(name, task.agent_id, task.unacknowledged)
        return said + (self._lifted(task) if task.final is None else [])

    def refused(self, call: calls.Call, text: str) -> list[calls.Call]:
        """An ACCEPT was answered 400: its tasks cannot be, and its offers are given back."""
        accept = call["accept"]
        for operation in accept["operations"]:
            for info in operation["launch"]["task_infos"]:
                task = self.tasks.get(info["task_id"]["value"])
                if task is not None and not task.started:
                    task.end("TASK_ERROR", "REASON_TASK_INVALID", text)
        ids = [one["value"] for one in accept["offer_ids"]]
        declined = calls.decline_offers(self.framework, offer_ids=ids, refuse_s=self._refuse_s)
        return self._say(declined) + self._revive_if_wanted()

    # --- the time ---

    def wake_at(self) -> float:
        """When ``tick`` has something to do next."""
        kills = [task.kill_at for task in self.tasks.values() if task.is_to_end]
        return min([self._questions.next_at, *kills])

    def tick(self, now: float) -> list[calls.Call]:
        """Say again what has not been answered."""
        if self.phase is not SessionPhase.ONLINE:
            return []
        said: list[calls.Call] = []
        for task in self.tasks.values():
            if task.is_to_end and task.kill_at <= now:
                said += self._kill(task, now)
        if self._questions.next_at <= now:
            if not self._questions.open:
                self._questions.begin(records.alive(self.tasks))
            said += self._reconcile(now)
        return said

    # --- inside ---

    def _say(self, call: calls.Call) -> list[calls.Call]:
        """Nothing can be said while there is no stream: SUBSCRIBE will say it all."""
        return [call] if self.phase is SessionPhase.ONLINE else []

    def _revive(self) -> list[calls.Call]:
        said = self._say(calls.revive_offers(self.framework))
        self._suppressed = self._suppressed and not said
        return said

    def _revive_if_wanted(self) -> list[calls.Call]:
        return self._revive() if self.wants else []

    def _lifted(self, gone: records.Task) -> list[calls.Call]:
        """A task no longer counts: agents that it spoilt for others of its group may do now."""
        needs = [want.need for want in self.wants.values()]
        spoilt = any(need.constraints and need.group == gone.group for need in needs)
        return self._revive() if spoilt else []

    def _suppress_if_idle(self) -> list[calls.Call]:
        if self.wants or self._suppressed:
            return []
        said = self._say(calls.suppress_offers(self.framework))
        self._suppressed = bool(said)
        return said

    def _subscribed(self, subscribed: Any, now: float) -> list[calls.Call]:
        self.phase, self.error = SessionPhase.ONLINE, ""
        self.odd.clear()  # everything is told again
        told = subscribed if isinstance(subscribed, Mapping) else {}
        self.heartbeat_s = typed.number(told.get("heartbeat_interval_seconds"), 0.0, 3600.0)
        self._questions.begin(records.alive(self.tasks))
        said = self._reconcile(now)
        # a wish may have come or gone since SUBSCRIBE was sent
        said += self._revive() if self.wants and self._suppressed else self._suppress_if_idle()
        for task in self.tasks.values():
            if task.is_to_end:
                said += self._kill(task, now)
        return said

    def _reconcile(self, now: float) -> list[calls.Call]:
        """Ask for everything, for each, and for the one that does not exist, in this order."""
        asked = self._questions.ask(self.tasks, now)
        named = {name: self.tasks[name].agent_id for name in sorted(asked) if name in self.tasks}
        said = [calls.reconcile_tasks(self.framework, {})]
        if named:
            said.append(calls.reconcile_tasks(self.framework, named))
        if reconciliation.SENTINEL in asked:
            said.append(calls.reconcile_tasks(self.framework, {reconciliation.SENTINEL: None}))
        return said

    def _warned(self, raw: Sequence[Any]) -> list[calls.Call]:
        ids, odd = typed.each(raw, _id_of)
        for reason in odd.reasons:
            self.set_aside(f"inverse offer: {reason}")
        warnings, _ = typed.each(raw, offers.parse_warning)
        self.maintenance |= dict(warnings)
        if not ids:
            return []
        return [
            calls.decline_inverse_offers(self.framework, offer_ids=ids, refuse_s=self._refuse_s)
        ]

    def _offered(self, raw: Sequence[Any], now: float) -> list[calls.Call]:
        every: dict[str, offers.Offer] = {}
        unread: list[str] = []
        for one in raw:
            read, odd = typed.each([one], offers.parse)
            if odd:
                self.set_aside(f"offer: {odd.reasons[0]}")
                unread += typed.each([one], _id_of)[0]
            every |= {offer.id: offer for offer in read}
        for offer in every.values():
            if offer.unavailable_at is None:
                self.maintenance.pop(offer.agent_id, None)
            else:
                self.maintenance[offer.agent_id] = offer.unavailable_at
        needs = [want.need for want in self.wants.values()]
        placed = records.placed(self.tasks)
        matching = offers.match(needs, every.values(), placed, until=now + MAINTENANCE_S)
        for name, miss in matching.misses.items():
            self.wants[name].miss = miss
        for want in self.wants.values():
            want.offers_seen += len(every)
        said: list[calls.Call] = []
        for offer_ids, placements in matching.accepted:
            said += self._accept(offer_ids, placements, now)
        if declined := [*matching.declined, *unread]:
            said.append(
                calls.decline_offers(self.framework, offer_ids=declined, refuse_s=self._refuse_s)
            )
        return said + self._suppress_if_idle()

    def _accept(
        self, offer_ids: Iterable[str], placements: Sequence[offers.Placement], now: float
    ) -> list[calls.Call]:
        """Launch; the tasks exist for us from here on, confirmed or not."""
        infos, named = [], {}
        for placement in placements:
            name = placement.need.name
            want = self.wants.pop(name)
            infos.append(tasks.placed(want.info, placement))
            named[name] = placement.agent_id
            self.tasks[name] = records.Task(
                name=name,
                agent_id=placement.agent_id,
                agent_url=placement.agent_url,
                group=placement.need.group,
                traits=placement.traits,
                labels=tasks.labels_of(infos[-1]),
                ports=placement.ports,
                secrets=want.secrets,
                want=want,
            )
        accept = calls.accept_offers(
            self.framework, offer_ids=offer_ids, task_infos=infos, refuse_s=self._refuse_s
        )
        self._questions.add(named, now)
        return [accept, calls.reconcile_tasks(self.framework, named)]

    def _told(self, update: Any, now: float) -> list[calls.Call]:
        raw = update.get("status") if isinstance(update, Mapping) else None
        read, odd = typed.each([raw], statuses.read)
        if odd:
            return self._told_oddly(raw, odd.reasons[0])
        (status,) = read
        said = self._updated(status, now)
        self.odd.pop(status["task_id"]["value"], None)
        return said + (self._revive_if_wanted() if status["state"] == "TASK_ERROR" else [])

    def _told_oddly(self, raw: Any, reason: str) -> list[calls.Call]:
        """Let an update that cannot be read not come again; what it is about may be anything."""
        self.set_aside(f"update: {reason}")
        name, agent, uuid = statuses.names(raw)
        if name not in self.tasks:
            self.odd[text.clean(name, 80) if name else "?"] = reason
        if name is None or agent is None or uuid is None:
            return []
        return self._acknowledge(name, agent, uuid)

    def _updated(  # noqa: PLR0911 -- one kind of word, one return
        self, status: Mapping[str, Any], now: float
    ) -> list[calls.Call]:
        name, state = status["task_id"]["value"], status["state"]
        agent = status.get("agent_id", {}).get("value")
        uuid = status.get("uuid")
        self._questions.answered(name, now)
        task = self.tasks.get(name)
        if name == reconciliation.SENTINEL or (name in self.wants and state == "TASK_UNREACHABLE"):
            return []  # a dropped task has never been, wherever its agent is
        if uuid is not None and self._graves.get(name) == uuid:
            return self._acknowledge(name, agent, uuid)  # the first one was lost
        if task is None:
            return self._stranger(status)
        if uuid is None and not self._believes(task, status):
            return []
        if uuid is None and not task.started and status.get("reason") in _NEVER_WAS:
            return self._dropped(task)
        task.confirmed, task.want = True, None
        task.agent_id = agent or task.agent_id
        task.started = task.started or uuid is not None
        task.state, task.detail = state, status.get("message", "")
        task.reason = str(status.get("reason", ""))
        if state not in records.TERMINAL:
            task.final, task.unacknowledged = None, None
            said = self._acknowledge(name, agent, uuid)
            if task.is_to_end and task.kill_at <= now:
                said += self._kill(task, now)
            return said
        said = self._lifted(task) if task.final is None else []
        task.final, task.unacknowledged = status, uuid
        return said

    def _believes(self, task: records.Task, status: Mapping[str, Any]) -> bool:
        """True unless the master's own word is about something else than this task's life."""
        if status["state"] == "TASK_ERROR":
            fresh = not task.started and not task.confirmed
            return fresh or "duplicate" not in status.get("message", "")
        if task.unacknowledged is not None:
            return False  # the agent itself has told the end
        return not (task.final is not None and status["state"] in records.TERMINAL)

    def _dropped(self, task: records.Task) -> list[calls.Call]:
        """The offer was no longer valid: the task has never been, and is wanted again."""
        del self.tasks[task.name]
        if task.want is None or task.grace_s is not None:
            return []
        return self.want([task.want])

    def _stranger(self, status: Mapping[str, Any]) -> list[calls.Call]:
        """An update of a task that we do not know: of an earlier life, given up, or nothing."""
        name, state, uuid = status["task_id"]["value"], status["state"], status.get("uuid")
        agent = status.get("agent_id", {}).get("value")
        if uuid is None and state in records.TERMINAL:
            return []
        if name in self._graves:
            if state in records.TERMINAL:
                del self._graves[name]
                return self._acknowledge(name, agent, uuid)
            said = self._acknowledge(name, agent, uuid)
            if state == "TASK_UNREACHABLE":
                return said
            return [
                *said,
                *self._say(calls.kill_task(self.framework, task=name, agent=agent, grace_s=0.0)),
            ]
        self.wants.pop(name, None)  # it exists; whoever wants it finds out
        said = self._suppress_if_idle()
        self.tasks[name] = records.Task(
            name=name,
            agent_id=agent,
            state=state,
            confirmed=True,
            started=uuid is not None or state != "TASK_STAGING",
            detail=status.get("message", ""),
        )
        if state in records.TERMINAL:
            self.tasks[name].final = status
            self.tasks[name].unacknowledged = uuid
            return said
        return said + self._acknowledge(name, agent, uuid)

    def _acknowledge(self, name: str, agent: str | None, uuid: str | None) -> list[calls.Call]:
        if agent is None or uuid is None:
            return []
        return self._say(
            calls.acknowledge_status_update(self.framework, task=name, agent=agent, uuid=uuid)
        )

    def _kill(self, task: records.Task, now: float) -> list[calls.Call]:
        task.told_to_end(now)
        call = calls.kill_task(
            self.framework, task=task.name, agent=task.agent_id, grace_s=task.grace_s or 0.0
        )
        return self._say(call)

    def _failed(self, message: str) -> None:
        self.error = message
        if "failed over" in message:
            self.phase = SessionPhase.SUPERSEDED
        elif "removed" in message:
            self.phase = SessionPhase.REMOVED


def _list(event: Mapping[str, Any], *path: str) -> Sequence[Any]:
    """Return the list at the end of a path; empty where there is none."""
    found: Any = event
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, list | tuple) else ()


def _id_of(raw: Mapping[str, Any]) -> str:
    found = raw["id"]["value"]
    if not isinstance(found, str) or not found:
        raise ValueError("an id that is not a text")
    return found
