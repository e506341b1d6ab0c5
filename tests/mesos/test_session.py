"""The session as a machine: its promises under any order of events, and each of its rules."""

import collections
import json
import pathlib

import pytest
from hypothesis import settings, stateful
from hypothesis import strategies as st

from backends.mesos import calls, offers, reconciliation, records, session
from tests.mesos import master

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"
FRAMEWORK = calls.Framework(
    id="ours-1", name="ours", user="nobody", role="ci", failover_timeout_s=1e9
)
NAMES = [f"a{number}" for number in range(6)]


APART = {
    "group": "apart",
    "constraints": (offers.Constraint(attribute=offers.HOSTNAME, operator="UNIQUE"),),
}


def want(name: str, cpus: int = 1000, mem: int = 512_000, **more) -> records.Want:
    info = {"name": name, "task_id": {"value": name}, "command": {"value": "agent"}}
    return records.Want(
        need=offers.Need(name=name, scalars={"cpus": cpus, "mem": mem}, **more), info=info
    )


class Conversation(stateful.RuleBasedStateMachine):
    """One session and one master; each side's words wait in a queue until they are delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.master = master.Master(agents=2, plan=lambda info: master.Plan())
        self.session = session.Session(FRAMEWORK, refuse_s=3600.0)
        self.stream = None
        self.read = 0
        self.outbox: collections.deque = collections.deque()
        self.open_offers: dict[str, dict] = {}  # received in this step, to be answered in it
        self.delivered: collections.Counter = collections.Counter()  # uuid: deliveries
        self.acknowledged: collections.Counter = collections.Counter()

    # --- what the driver of a session does ---

    def send(self, said: list) -> None:
        for call in said:
            self.check(call)
            self.outbox.append(call)

    def check(self, call: dict) -> None:
        kind = call["type"]
        if kind in ("ACCEPT", "DECLINE"):
            ids = [one["value"] for one in call[kind.lower()]["offer_ids"]]
            assert len(set(ids)) == len(ids)
            room = collections.Counter()
            agents = set()
            for one in ids:
                assert one in self.open_offers, "an offer that is used, rescinded or not ours"
                offer = self.open_offers.pop(one)
                agents.add(offer["agent_id"]["value"])
                for resource in offer["resources"]:
                    if resource["type"] == "SCALAR":
                        room[resource["name"]] += round(resource["scalar"]["value"] * 1000)
            if kind == "ACCEPT":
                assert len(agents) == 1
                for operation in call["accept"]["operations"]:
                    for info in operation["launch"]["task_infos"]:
                        assert {info["agent_id"]["value"]} == agents
                        room.subtract(master._wanted(info)[0])
                assert all(left >= 0 for left in room.values()), "more than was offered"
        if kind == "ACKNOWLEDGE":
            uuid = call["acknowledge"]["uuid"]
            self.acknowledged[uuid] += 1
            assert self.acknowledged[uuid] <= self.delivered[uuid], (
                "acknowledged what never came, or twice"
            )

    def receive(self, event: dict) -> None:
        if event["type"] == "OFFERS":
            self.open_offers = {one["id"]["value"]: one for one in event["offers"]["offers"]}
        if event["type"] == "UPDATE" and "uuid" in event["update"]["status"]:
            self.delivered[event["update"]["status"]["uuid"]] += 1
        self.send(self.session.receive(event, self.master.now))
        assert not self.open_offers, "an offer is held"

    # --- rules ---

    @stateful.initialize()
    def begin(self) -> None:
        self.reconnect()
        self.talk()

    @stateful.rule()
    def talk(self) -> None:
        """All that was said is heard, on both sides, until nobody has more to say."""
        while self.outbox or (self.stream is not None and self.read < len(self.stream)):
            self.speak(99)
            self.hear(99)

    @stateful.rule(seconds=st.sampled_from([0.02, 1.0, 6.0]))
    def wait_and_talk(self, seconds: float) -> None:
        self.wait(seconds)
        self.talk()

    @stateful.rule()
    @stateful.precondition(lambda self: self.stream is None)
    def reconnect(self) -> None:
        opened = self.master.subscribe(self.session.subscribe(), "s")
        self.stream, self.framework, self.read = opened.stream, opened, 0

    @stateful.rule(count=st.integers(1, 20))
    def hear(self, count: int) -> None:
        while count and self.stream is not None and self.read < len(self.stream):
            event = self.stream[self.read]
            self.read += 1
            count -= 1
            self.receive(event)

    @stateful.rule(count=st.integers(1, 20))
    def speak(self, count: int) -> None:
        while count and self.outbox:
            count -= 1
            call = self.outbox.popleft()
            self.master.call(call)

    @stateful.rule(seconds=st.sampled_from([0.0, 0.02, 0.2, 1.0, 6.0, 40.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.master.advance(self.master.now + seconds)
        self.send(self.session.tick(self.master.now))

    @stateful.rule(
        names=st.sets(st.sampled_from(NAMES), min_size=1),
        cpus=st.sampled_from([500, 1500, 4000]),
        apart=st.booleans(),
    )
    def wish(self, names: set[str], cpus: int, apart: bool = False) -> None:
        taken = {*self.session.tasks, *self.session.wants}
        new = [
            want(name, cpus, **(APART if apart else {}))
            for name in sorted(names - taken)
            if not self.session.may_come_back(name)
        ]
        if new and self.session.synced:
            self.send(self.session.want(new))

    @stateful.rule(which=st.integers(0, 5))
    @stateful.precondition(lambda self: self.session.wants)
    def unwish(self, which: int) -> None:
        self.send(self.session.unwant(sorted(self.session.wants)[which % len(self.session.wants)]))

    @stateful.rule(which=st.integers(0, 5), grace_s=st.sampled_from([0.0, 5.0]))
    @stateful.precondition(lambda self: self.session.tasks)
    def kill(self, which: int, grace_s: float) -> None:
        name = sorted(self.session.tasks)[which % len(self.session.tasks)]
        self.send(self.session.kill(name, grace_s=grace_s, now=self.master.now))

    @stateful.rule(which=st.integers(0, 5))
    @stateful.precondition(lambda self: self.gone())
    def forget(self, which: int) -> None:
        self.send(self.session.forget(self.gone()[which % len(self.gone())]))

    def gone(self) -> list[str]:
        tasks = self.session.tasks.items()
        return sorted(name for name, task in tasks if task.final is not None or task.is_away)

    @stateful.rule(which=st.integers(0, 3))
    @stateful.precondition(lambda self: self.master.tasks)
    def end_a_task(self, which: int) -> None:
        live = [task for task in self.master.tasks.values() if task.state in master.LIVE]
        if which < len(live):
            self.master.change(live[which], "TASK_FAILED", "Command exited with status 3")

    @stateful.rule(which=st.integers(0, 1))
    @stateful.precondition(lambda self: self.master.offers)
    def rescind(self, which: int) -> None:
        if which < len(self.master.offers) and self.stream is not None:
            self.master.rescind(list(self.master.offers)[which])

    @stateful.rule()
    @stateful.precondition(lambda self: self.stream is not None)
    def disconnect(self) -> None:
        self.master.disconnect(self.framework)
        self.stream = None
        self.outbox.clear()
        self.session.disconnected()

    @stateful.rule()
    @stateful.precondition(lambda self: self.session.tasks)
    def crash(self) -> None:
        """The broker is killed: what it knew is gone, and so are its wishes."""
        if self.stream is not None:
            self.disconnect()
        self.session = session.Session(FRAMEWORK, refuse_s=3600.0)

    @stateful.rule()
    @stateful.precondition(lambda self: self.session.synced)
    def look_at_the_page(self) -> None:
        """What a broker does that inherits: tasks of silent agents are in no update."""
        found = {
            task.name: task.agent.id
            for task in self.master.tasks.values()
            if task.state in master.LIVE and task.agent.state == "away"
        }
        self.send(self.session.adopt(found, self.master.now))

    @stateful.rule(which=st.integers(0, 1))
    def agent_away_or_back(self, which: int) -> None:
        agents = list(self.master.agents.values())
        agent = agents[which % len(agents)]
        if agent.state == "up":
            self.master.lose(agent.id)
        elif agent.state == "away":
            self.master.come_back(agent.id)

    @stateful.rule()
    @stateful.precondition(lambda self: self.session.tasks)
    def master_fails_over(self) -> None:
        if self.stream is not None:
            self.disconnect()
        self.master.fail_over()

    @stateful.rule()
    @stateful.precondition(
        lambda self: any(one.state == "recovered" for one in self.master.agents.values())
    )
    def agents_reregister(self) -> None:
        self.master.reregister()

    # --- promises ---

    @stateful.invariant()
    def nothing_exceeds_its_offer(self) -> None:
        assert not [problem for problem in self.master.problems if "exceeds" in problem]

    @stateful.invariant()
    def no_agent_is_crashed(self) -> None:
        assert not self.master.aborted

    @stateful.invariant()
    def a_task_is_wanted_or_there(self) -> None:
        assert not set(self.session.wants) & set(self.session.tasks)

    def teardown(self) -> None:
        """When the faults stop: both sides agree, nothing is unanswered, nobody is kept busy."""
        for agent in self.master.agents.values():
            if agent.state == "away":
                self.master.come_back(agent.id)
        self.master.reregister()
        if self.stream is None:
            self.reconnect()
        for _ in range(60):
            self.wait(20.0)
            self.talk()
        mine, there = self.session, self.master
        assert mine.synced
        live = {task.name for task in there.tasks.values() if task.state in master.LIVE}
        assert live == {name for name, task in mine.tasks.items() if task.final is None}
        assert not live & {name for name, task in mine.tasks.items() if task.grace_s is not None}
        for task in there.tasks.values():
            held = mine.tasks.get(task.name)
            assert len(task.pending) == (0 if task.state in master.LIVE else 1)
            assert not task.pending or (
                held is not None and held.unacknowledged == task.pending[0]["uuid"]
            )
        assert not there.offers, "the master still waits for an answer to an offer"
        assert there.frameworks["ours-1"].suppressed == (not mine.wants)
        for one in mine.wants.values():
            for agent in there.agents.values():
                short = any(
                    agent.free()[name] < amount for name, amount in one.need.scalars.items()
                )
                assert short or self.spoilt(one.need, agent), "it would fit"

    def spoilt(self, need: offers.Need, agent: master.Agent) -> bool:
        """True when another of its group is there, and they shall be apart."""
        there = [
            task.traits.get(offers.HOSTNAME)
            for task in self.session.tasks.values()
            if task.final is None and task.group == need.group
        ]
        return bool(need.constraints) and agent.hostname in there


Conversation.TestCase.settings = settings(stateful_step_count=40)
test_any_order_of_events = Conversation.TestCase


# --- one rule at a time ---


def online(*, synced: bool = True) -> session.Session:
    made = session.Session(FRAMEWORK, refuse_s=3600.0)
    made.receive({"type": "SUBSCRIBED", "subscribed": {"heartbeat_interval_seconds": 15.0}}, 0.0)
    if synced:
        made.receive(
            update(reconciliation.SENTINEL, "TASK_UNKNOWN", reason="REASON_RECONCILIATION"), 0.0
        )
    return made


def update(name: str, state: str, **more) -> dict:
    return {
        "type": "UPDATE",
        "update": {"status": {"task_id": {"value": name}, "state": state, **more}},
    }


def kinds(said: list) -> list[str]:
    return [call["type"] for call in said]


def offer(number: int = 1, cpus: float = 4.0) -> dict:
    machine = master.Master(agents=[master.Agent(id=f"S{number}", cpus=cpus)])
    opened = machine.subscribe(
        {
            "subscribe": {"framework_info": {**FRAMEWORK.info(), "id": {"value": "ours-1"}}},
            "framework_id": {"value": "ours-1"},
        },
        "s",
    )
    event = json.loads(json.dumps(opened.stream[2]))
    event["offers"]["offers"][0]["id"]["value"] = f"O{number}"
    return event


def launched(name: str = "a1") -> session.Session:
    made = online()
    made.want([want(name)])
    assert ["ACCEPT", "RECONCILE", "SUPPRESS"] == kinds(made.receive(offer(), 1.0))
    return made


def test_without_a_wish_the_role_is_suppressed_in_subscribe():
    """A master forgets SUPPRESS at each subscribe; with a wish it must not be suppressed."""
    made = session.Session(FRAMEWORK, refuse_s=1.0)
    assert ["ci"] == made.subscribe()["subscribe"]["suppressed_roles"]
    made.want([want("a1")])
    assert "suppressed_roles" not in made.subscribe()["subscribe"]


def test_a_new_wish_revives_although_others_wait():
    """What was refused for the first may fit the second."""
    made = online()
    assert ["REVIVE"] == kinds(made.want([want("a1")]))
    assert ["REVIVE"] == kinds(made.want([want("a2"), want("a3")]))
    assert [] == made.unwant("a1")
    assert [] == made.unwant("a2")
    assert ["SUPPRESS"] == kinds(made.unwant("a3"))


def test_several_tasks_go_in_one_accept():
    """And what is left of the offer is refused for long."""
    made = online()
    made.want([want("a1"), want("a2"), want("a3")])
    said = made.receive(offer(), 1.0)
    infos = said[0]["accept"]["operations"][0]["launch"]["task_infos"]
    assert ["a1", "a2", "a3"] == [info["task_id"]["value"] for info in infos]
    assert 3600.0 == said[0]["accept"]["filters"]["refuse_seconds"]


def test_what_a_rejected_task_would_have_had_is_asked_for_again():
    """A master puts it into the refusal of the rest, so for whom it would fit it was refused.

    Found by the machine: a task of an earlier life on an agent that was unreachable, its name
    launched again (TASK_ERROR, duplicate ID), and another of the same size that waits.
    """
    both = Conversation()
    both.master = master.Master(agents=1, plan=lambda info: master.Plan())
    both.begin()
    both.wish(names={"a1"}, cpus=1500)
    both.talk()
    both.agent_away_or_back(0)
    both.crash()
    both.reconnect()
    both.talk()
    both.wish(names={"a1", "a2"}, cpus=1500)
    both.disconnect()
    both.agent_away_or_back(0)
    both.reconnect()
    both.wait_and_talk(1.0)
    assert {} == both.session.wants
    assert {"a1", "a2"} == {task.name for task in both.master.tasks.values()}


@pytest.mark.parametrize("name", ["a1", "other"])
def test_an_error_revives_while_something_is_wanted(name):
    """Whoever's it is, and once nothing is wanted no more."""
    made = launched()
    made.want([want("a2", 9000)])
    error = update(name, "TASK_ERROR", reason="REASON_TASK_INVALID", message="no")
    assert ["REVIVE"] == kinds(made.receive(error, 2.0))
    made.unwant("a2")
    assert [] == kinds(made.receive(error, 3.0))


def test_the_end_of_a_task_revives_where_it_was_in_the_way():
    """Its agent was refused because of it, as large as it may be when another uses what it had."""
    made = online()
    made.want([want("a1", **APART), want("a2", **APART)])
    assert ["ACCEPT", "RECONCILE"] == kinds(made.receive(offer(), 1.0))
    ended = update("a1", "TASK_FINISHED", uuid="u", agent_id={"value": "S1"})
    assert ["REVIVE"] == kinds(made.receive(ended, 2.0))
    assert [] == kinds(made.receive(ended, 12.0)), "once"
    assert ["a2"] == list(made.wants)
    made = launched()
    made.want([want("a2", **APART)])
    assert [] == kinds(made.receive(ended, 2.0)), "of another group: not in the way"


def test_the_listing_is_known_only_after_the_sentinel():
    """A master in failover answers nothing; the question is repeated, slower and slower."""
    made = online(synced=False)
    times = []
    now = 0.0
    while now < 130:
        now = max(now, made.wake_at())
        if made.tick(now):
            times.append(now)
    assert [1, 3, 7, 15, 31, 63, 123, 183] == [round(time) for time in times]
    assert not made.synced
    made.receive(update(reconciliation.SENTINEL, "TASK_UNKNOWN"), now)
    assert made.synced
    assert made.wake_at() >= now + 600


def test_a_dropped_task_is_wanted_again_and_a_started_one_never():
    """TASK_DROPPED of a stale offer; the same words about a task that runs are not believed."""
    made = launched()
    dropped = update(
        "a1", "TASK_DROPPED", reason="REASON_INVALID_OFFERS", agent_id={"value": "S1"}
    )
    assert ["REVIVE"] == kinds(made.receive(dropped, 2.0))
    assert ["a1"] == list(made.wants)
    made = launched()
    made.receive(update("a1", "TASK_RUNNING", uuid="u", agent_id={"value": "S1"}), 2.0)
    made.receive(dropped, 3.0)
    assert {} == made.wants


def test_a_duplicate_id_is_not_the_death_of_the_running_task():
    """Recording 11: TASK_ERROR under the same id, without a uuid."""
    made = launched()
    made.receive(update("a1", "TASK_RUNNING", uuid="u", agent_id={"value": "S1"}), 2.0)
    made.receive(
        update(
            "a1", "TASK_ERROR", message="Task has duplicate ID: a1", reason="REASON_TASK_INVALID"
        ),
        3.0,
    )
    assert ("TASK_RUNNING", None) == (made.tasks["a1"].state, made.tasks["a1"].final)


def test_the_end_is_acknowledged_when_it_is_forgotten():
    """Until then the agent keeps it for the next life of the broker."""
    made = launched()
    ended = update("a1", "TASK_FAILED", uuid="u", agent_id={"value": "S1"})
    assert [] == made.receive(ended, 2.0)
    assert [] == made.receive(ended, 12.0)
    assert ["ACKNOWLEDGE"] == kinds(made.forget("a1"))
    assert ["ACKNOWLEDGE"] == kinds(made.receive(ended, 32.0)), "the first one was lost"
    assert {} == made.tasks


def test_recorded_agent_that_comes_back():
    """TASK_UNREACHABLE, then TASK_RUNNING again (recording 22): nothing has ended."""
    made = session.Session(FRAMEWORK, refuse_s=1.0)
    seen = []
    for one in json.loads((RECORDED / "22-agent-lost/stream-partition-aware.json").read_text())[
        "events"
    ]:
        made.receive(one["event"], one["t"])
        task = made.tasks.get("t-partition-aware")
        if task is not None:
            seen.append((task.state, task.final is None))
    assert [
        ("TASK_STARTING", True),
        ("TASK_RUNNING", True),
        ("TASK_UNREACHABLE", True),
        ("TASK_RUNNING", True),
    ] == [one for n, one in enumerate(seen) if n == 0 or seen[n - 1] != one]


def test_a_task_given_up_while_unreachable_is_killed_when_it_returns():
    """A kill is not queued for an unreachable agent."""
    made = launched()
    made.receive(update("a1", "TASK_UNREACHABLE", agent_id={"value": "S1"}), 2.0)
    assert ["KILL"] == kinds(made.kill("a1", grace_s=0, now=3.0))
    made.forget("a1")
    assert [] == made.receive(update("a1", "TASK_UNREACHABLE", agent_id={"value": "S1"}), 4.0)
    assert ["KILL"] == kinds(
        made.receive(update("a1", "TASK_RUNNING", agent_id={"value": "S1"}), 9.0)
    )
    assert ["ACKNOWLEDGE"] == kinds(
        made.receive(update("a1", "TASK_KILLED", uuid="u", agent_id={"value": "S1"}), 9.1)
    )
    assert {} == made.tasks


def test_a_kill_is_repeated_until_the_end():
    """With growing pauses, also after a new subscribe."""
    made = launched()
    assert ["KILL"] == kinds(made.kill("a1", grace_s=2.0, now=1.0))
    assert [] == made.kill("a1", grace_s=2.0, now=1.5)
    assert [] == [call for call in made.tick(7.9) if call["type"] == "KILL"]
    assert 1 == kinds(made.tick(8.1)).count("KILL")
    made.disconnected()
    assert 1 == kinds(made.receive({"type": "SUBSCRIBED", "subscribed": {}}, 9.0)).count("KILL")
    made.receive(update("a1", "TASK_KILLED", uuid="u", agent_id={"value": "S1"}), 10.0)
    assert 0 == kinds(made.tick(1000.0)).count("KILL")


@pytest.mark.parametrize(
    ("message", "phase"),
    [
        ("Framework failed over", session.SessionPhase.SUPERSEDED),
        ("Framework has been removed", session.SessionPhase.REMOVED),
        ("Not authorized to register framework with roles { ci }", session.SessionPhase.ONLINE),
    ],
)
def test_what_the_master_says_last(message, phase):
    """Another broker, a removed framework, a forbidden role: three different things."""
    made = online()
    made.receive({"type": "ERROR", "error": {"message": message}}, 1.0)
    made_phase = made.phase
    assert (phase, message) == (made_phase, made.error)
    made.disconnected()
    assert (made.phase is phase) == (phase is not session.SessionPhase.ONLINE)


def test_a_refused_accept_gives_the_offer_back():
    """400 for a malformed task: nobody else would ever answer that offer."""
    made = online()
    made.want([want("a1")])
    accept = made.receive(offer(), 1.0)[0]
    said = made.refused(accept, "Failed to convert JSON into Call protobuf")
    assert [("DECLINE", "O1")] == [
        (call["type"], call["decline"]["offer_ids"][0]["value"]) for call in said
    ]
    assert "TASK_ERROR" == made.tasks["a1"].final["state"]


def test_an_agent_that_goes_into_maintenance_gets_nothing():
    """A build would be cut off within the hour."""
    made = online()
    made.want([want("a1")])
    event = offer()
    event["offers"]["offers"][0]["unavailability"] = {
        "start": {"nanoseconds": 10**12 + 60 * 10**9}
    }
    assert ["DECLINE"] == kinds(made.receive(event, 1000.0))
    assert "maintenance" in made.wants["a1"].miss, "that is why"
    assert ["ACCEPT", "RECONCILE", "SUPPRESS"] == kinds(made.receive(offer(2), 1001.0))
    assert {"S1"} == made.leaving(1001.0)
    made.receive(offer(1), 1002.0)
    assert set() == made.leaving(1002.0), "it is offered again without a plan"


def test_a_removed_framework_begins_anew_with_its_dead():
    """Its tasks are shown as ended, and what is wanted is wanted from the new one."""
    made = launched()
    made.want([want("a2")])
    made.receive({"type": "ERROR", "error": {"message": "Framework has been removed"}}, 2.0)
    made.renew(calls.Framework(id="ours-2", name="o", user="u", role="ci", failover_timeout_s=1.0))
    assert "TASK_GONE" == made.tasks["a1"].final["state"]
    assert "ours-2" == made.subscribe()["framework_id"]["value"]
    assert ["a2"] == list(made.wants)


def test_a_wish_between_subscribe_and_its_answer_is_not_lost():
    """SUBSCRIBE said that the role is suppressed; the answer comes after the wish, or its end."""
    made = session.Session(FRAMEWORK, refuse_s=1.0)
    made.subscribe()
    assert [] == made.want([want("a1")])
    assert "REVIVE" in kinds(made.receive({"type": "SUBSCRIBED", "subscribed": {}}, 0.0))
    made.disconnected()
    made.subscribe()
    assert [] == made.unwant("a1")
    assert "SUPPRESS" in kinds(made.receive({"type": "SUBSCRIBED", "subscribed": {}}, 1.0))
