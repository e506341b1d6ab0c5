"""Every recording of a real master, held against the fake master and against the session.

The same calls have to give the same answers, offers and updates, word by word; the same bytes have
to leave the session in the state that the cluster was in. What cannot be held says why.
"""

import json

import attrs

from backends.mesos import calls, instances, offers, records, session
from tests.each import each
from tests.mesos import master, replay


@attrs.frozen(kw_only=True)
class Held:
    """How a scenario is played to the fake.

    ``phase_s``: when the master's allocation, once a second, was due. ``offers``: how many of the
    recorded offers are compared (None: all); ``skip``: streams that the fake cannot give.
    """

    phase_s: float = 0.0
    acts: tuple[tuple[float, replay.Act], ...] = ()
    offers: int | None = None
    skip: tuple[str, ...] = ()


S0 = f"{master.MASTER_ID}-S0"


def kill_executor(machine: master.Master) -> None:
    (task,) = machine.tasks.values()
    machine.change(
        task, "TASK_FAILED", "Executor terminated", "REASON_EXECUTOR_TERMINATED", "SOURCE_AGENT"
    )


FAKE = {
    "01-subscribe-heartbeat": Held(),
    "02-launch-finish": Held(phase_s=0.62),
    "04-kill": Held(offers=0),
    "05-unacknowledged-update": Held(phase_s=0.92),
    "06-acknowledge-wrong": Held(),
    "07-reconcile": Held(offers=0),
    "08-decline": Held(phase_s=0.69),
    "09-suppress-revive": Held(),
    "11-accept-errors": Held(offers=0),
    "13-disconnect-resubscribe": Held(phase_s=0.7),
    "14-subscribe-twice": Held(offers=0),
    "15-failover-timeout": Held(offers=0),
    "16-teardown": Held(offers=0, acts=((1.592, lambda machine: machine.remove(f"{master.MASTER_ID}-0001")),)),
    "17-executor-killed": Held(phase_s=0.9, acts=((0.282, kill_executor),)),
    "20-two-frameworks-one-agent": Held(phase_s=0.0),
    "22-agent-lost": Held(
        offers=0,
        skip=("stream-no-checkpoint", "stream-no-checkpoint-partition-aware"),
        acts=((6.783, lambda machine: machine.lose(S0)), (15.096, lambda machine: machine.come_back(S0))),
    ),
    "23-agent-restart-quick": Held(offers=1, skip=("stream-no-checkpoint",)),
    "24-agent-shutdown": Held(acts=((0.426, lambda machine: machine.shut_down(S0)),)),
    "25-mark-agent-gone": Held(acts=((0.572, lambda machine: machine.mark_gone(S0)),)),
    "26-offer-timeout": Held(acts=((0.0, lambda machine: setattr(machine, "offer_timeout_s", 3.0)),)),
    "30-two-masters": Held(
        phase_s=0.84,
        acts=((8.954, lambda machine: machine.fail_over()), (14.8, lambda machine: machine.reregister())),
    ),
    "32-suppress-and-resubscribe": Held(),
    "33-early-kill-and-reconcile": Held(phase_s=0.325),
    "34-many-tasks-one-accept": Held(),
    "35-health-and-shutdown-calls": Held(phase_s=0.95),
}  # fmt: skip

NOT_PLAYED = {
    "00-on-the-wire": "bytes of HTTP: test_wire.py reads them with the product's own client",
    "03-launch-fail": "ends are the programs' own, the fake runs none: test_death.py, and SESSION below",
    "10-roles-suppressed": "frameworks of several roles: ours has one, as SUBSCRIBE shows (test_calls.py)",
    "12-http-errors": "status lines of HTTP: test_wire.py plays them to the fake's sockets",
    "18-offer-constraints": "offer_constraints are never sent: Mesos before 1.11 knows none",
    "19-maintenance-drain": "an operator's calls: the session hears their effects, below",
    "21-operator-views": "pages, no stream of interest: test_offers.py reads the agents of it",
    "27-memory-limit": "the kernel's work, the fake has no memory: test_death.py, and below",
    "28-docker": "programs in containers: test_death.py, and below",
    "29-authentication": "principals and ACLs: test_wire.py and test_tls.py have the answers",
    "31-master-stops": "the end of a TCP connection: test_wire.py cuts streams, inside a record too",
    "36-no-leader": "503 before there is any state: test_wire.py has both sentences",
}

SCENARIOS = sorted(path.name for path in replay.RECORDED.iterdir() if path.is_dir())


def test_every_recording_is_held_or_says_why_not():
    """A new one has to come into one of the tables; and nothing is in both."""
    assert SCENARIOS == sorted([*FAKE, *NOT_PLAYED])


# --- the fake ---


@each("scenario", FAKE)
def test_recorded_calls_give_the_recorded_answers(scenario):
    """Statuses and texts of calls; updates with words, source, reason, members; what was offered."""
    held = FAKE[scenario]
    played = replay.Replay(scenario, acts=held.acts, phase_s=held.phase_s).run()
    for kind, status, text, given_status, given_text in played.answers:
        assert (kind, status) == (kind, given_status), (text, given_text)
        assert text.split("'")[0] == given_text.split("'")[0], kind
    for name, stream in played.recorded.items():
        if name in held.skip:
            continue
        ours = played.events[name]
        assert replay.told(stream.told()) == replay.told(ours), name
        assert replay.others(stream.told()) == replay.others(ours), name
        last = held.offers
        assert replay.amounts(stream.told())[:last] == replay.amounts(ours)[:last], name
        assert (stream.end == "eof") == (ours[-1] is None), name


# --- the session ---

STREAMS = [
    (scenario, name)
    for scenario in SCENARIOS
    for name in replay.streams(scenario)
]  # fmt: skip


@each(("scenario", "name"), STREAMS)
def test_recorded_bytes_are_the_recorded_events(scenario, name):
    """The bytes of the wire, cut as the chunks were, give the documents."""
    assert replay.streams(scenario)[name].told() == replay.decoded(scenario, name)


@each(("scenario", "name"), STREAMS)
def test_recorded_streams_leave_the_session_right(scenario, name):
    """Offers answered at once, updates acknowledged exactly once each, states as last told."""
    framework = calls.Framework(id="f", name="f", user="u", role="*", failover_timeout_s=1.0)
    machine = session.Session(framework, refuse_s=3600.0)
    machine.subscribe()
    last: dict[str, dict] = {}
    for one in replay.streams(scenario)[name].events:
        event = one["event"]
        said = machine.receive(event, one["t"])
        answered = [
            offer["value"]
            for call in said
            if call["type"] == "DECLINE"
            for offer in call["decline"]["offer_ids"]
        ]
        assert [offer["id"]["value"] for offer in replay.offered([event])] == answered
        acknowledged = [c["acknowledge"]["uuid"] for c in said if c["type"] == "ACKNOWLEDGE"]
        (status,) = replay.updates([event]) or ({},)
        live = status.get("state") in master.LIVE
        assert ([status["uuid"]] if live and "uuid" in status else []) == acknowledged
        if status:
            last[status["task_id"]["value"]] = status
    for task, status in last.items():
        held = machine.tasks.get(task)
        if held is None:  # the master's own word on what has never been
            assert "uuid" not in status
            continue
        if "uuid" in status or status["state"] in master.LIVE:
            assert status["state"] == held.state, task
        if held.final is not None:
            uuid = held.unacknowledged
            assert ["ACKNOWLEDGE"] * (uuid is not None) == [
                c["type"] for c in machine.forget(task)
            ]


PHASES = {
    ("14-subscribe-twice", "stream-1"): session.SessionPhase.SUPERSEDED,
    ("15-failover-timeout", "stream-after-timeout"): session.SessionPhase.REMOVED,
    ("15-failover-timeout", "stream-zero-after"): session.SessionPhase.REMOVED,
    ("16-teardown", "stream-after-teardown"): session.SessionPhase.REMOVED,
}


@each(("scenario", "name"), STREAMS)
def test_only_an_error_of_the_master_ends_a_session(scenario, name):
    """Failed over and removed are told apart; everything else leaves it online."""
    framework = calls.Framework(id="f", name="f", user="u", role="*", failover_timeout_s=1.0)
    machine = session.Session(framework, refuse_s=3600.0)
    told = replay.streams(scenario)[name]
    for one in told.events:
        machine.receive(one["event"], one["t"])
    first = told.told()[0]["type"] == "SUBSCRIBED"
    usual = session.SessionPhase.ONLINE if first else session.SessionPhase.OFFLINE
    assert PHASES.get((scenario, name), usual) is machine.phase
    assert bool(machine.error) == ("ERROR" in [event["type"] for event in told.told()])


def test_recorded_maintenance_is_seen_in_the_offer():
    """Its start is read; an agent whose maintenance is within the hour gets no task."""
    told = replay.streams("19-maintenance-drain")["stream-1"].told()
    found = [offers.parse(one) for one in replay.offered(told)]
    starts = [one.unavailable_at for one in found]
    assert [None, 1795480166.0, None, None] == [one and round(one) for one in starts]
    assert [True, False, True, True] == [one.lasts_until(1795480167.0) for one in found]
    assert json.dumps(told).count('"INVERSE_OFFERS"') == 1


def announced(machine):
    """Return what is shown of the tasks: place, and why each will be ended."""
    return {
        name: instances.instance(
            task, maintenance_at=machine.maintenance.get(task.agent_id)
        ).ends_because
        for name, task in machine.tasks.items()
    }


def test_a_recorded_drain_is_announced_before_it_ends_the_task():
    """By the agent's name as far as it is known; the certificate says it, too."""
    told = replay.streams("19-maintenance-drain")["stream-1"]
    framework = calls.Framework(id="f", name="f", user="u", role="*", failover_timeout_s=1.0)
    machine = session.Session(framework, refuse_s=3600.0)
    seen = []
    for one in told.events:
        machine.receive(one["event"], one["t"])
        seen += [why for why in announced(machine).values() if why and why not in seen]
    where = "its Mesos agent b4015961-58dd-4904-97ba-6af388c473d9-S0"
    assert seen == [f"{where} goes into maintenance", f"{where} is drained"]
    (end,) = [
        instances.instance(task).exit for task in machine.tasks.values() if task.final is not None
    ]
    assert "evicted" == end.slug
    assert end.message.startswith("its Mesos agent ")
    assert "was drained: Command terminated with signal Terminated" in end.message


def test_maintenance_of_which_the_master_warns_is_announced_for_tasks_there():
    """Until the agent is offered as it was before."""
    events = replay.streams("19-maintenance-drain")["stream-1"].told()
    (warning,) = [event for event in events if event["type"] == "INVERSE_OFFERS"]
    (raw,) = warning["inverse_offers"]["inverse_offers"]
    agent = raw["agent_id"]["value"]
    framework = calls.Framework(id="f", name="f", user="u", role="*", failover_timeout_s=1.0)
    machine = session.Session(framework, refuse_s=3600.0)
    machine.receive({"type": "SUBSCRIBED", "subscribed": {}}, 0.0)
    labels = {"agent-broker/place.agent": "rack-7"}
    for name, where in (("there", agent), ("elsewhere", "S9")):
        machine.tasks[name] = records.Task(
            name=name, agent_id=where, state="TASK_RUNNING", labels=labels
        )
    machine.receive(warning, 1.0)
    assert {agent: 1795480166.0} == {k: round(v) for k, v in machine.maintenance.items()}
    assert {"there": "its Mesos agent rack-7 goes into maintenance", "elsewhere": ""} == (
        announced(machine)
    )
    machine.tasks["there"].grace_s = 5.0
    assert "" == announced(machine)["there"], "it is ended by us"
    offered = next(
        one for one in replay.offered(events)
        if one["agent_id"]["value"] == agent and "unavailability" not in one
    )  # fmt: skip
    machine.receive({"type": "OFFERS", "offers": {"offers": [offered]}}, 2.0)
    assert {} == machine.maintenance
