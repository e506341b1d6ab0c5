"""What a swarm tells of tasks and refusals, against recordings of a real one."""

import json
import pathlib

import pytest

from backends import api
from backends.docker.swarm import refusals, states
from tests.docker import recorded

STATE = api.InstanceState
API_STATES = {
    "new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting",
    "running", "complete", "shutdown", "failed", "rejected", "remove", "orphaned",
}  # fmt: skip
"""``TaskState`` of the Engine's API."""
HERE = states.SwarmNode(id="n", name="node-1")
DOWN = states.SwarmNode(
    id="n", name="node-1", is_down=True, takes_tasks=False, why="heartbeat failure"
)
DRAINED = states.SwarmNode(id="n", name="node-1", takes_tasks=False, is_drained=True)


def load(name):
    return json.loads((pathlib.Path(recorded.FOLDER) / "swarm" / f"{name}.json").read_text())


def answers(name, note=None, path="/tasks"):
    """Return the first entry of each recorded answer of a path."""
    return [
        entry["body"][0]
        for entry in load(name)
        if entry.get("request", {}).get("path", "").startswith(path)
        and isinstance(entry["body"], list)
        and entry["body"]
        and (note is None or entry.get("note") == note)
    ]


def task(state, *, desired="running", **status):
    told = {"ID": "t1", "NodeID": "n", "DesiredState": desired}
    return states.task({**told, "Status": {"State": state, **status}})


def test_every_state_of_the_api_has_an_entry():
    """None forgotten, none made up; and each is an instance's state with a reason for an end."""
    assert set(states.STAGES) == API_STATES
    for state in API_STATES:
        found = states.state_of(task(state), HERE)
        ended = found is STATE.EXITED
        assert ended == (states.exit_of(task(state), HERE) is not None), state


def test_a_state_that_nobody_has_heard_of_is_no_end():
    assert states.state_of(task("hibernating"), HERE) is STATE.RUNNING


def test_a_program_that_failed_tells_its_code():
    (told,) = answers("03-dead-service")[:1]
    end = states.exit_of(states.task(told), HERE)
    assert ("exited", 7, True) == (end.slug, end.code, end.witnessed)
    assert "non-zero exit (7)" in end.message
    assert end.at is not None


@pytest.mark.parametrize("number", [0, 1])
def test_a_kill_is_a_kill_whoever_did_it(number):
    """Of ``docker kill`` and ``docker rm -f`` alike; memory is asked of the node's engine."""
    end = states.exit_of(states.task(answers("20-deaths-and-privileges")[number]), HERE)
    assert ("killed", -9) == (end.slug, end.code)


def test_an_image_that_cannot_be_had():
    (told,) = answers("06-images", "p1: private, no auth header")
    end = states.exit_of(states.task(told), HERE)
    assert ("image", None) == (end.slug, end.code)
    assert "127.0.0.1:5005/team/bb:1" in end.message


def test_a_node_that_lost_its_label_sends_the_agent_away():
    (told,) = answers("12-constraints-resources-names", "label taken away")
    end = states.exit_of(states.task(told), HERE)
    assert "evicted" == end.slug
    assert "no longer meets constraints" in end.message


def test_a_drained_node_sends_the_agent_away():
    (told,) = answers("11-drain-pause", "after drain")
    end = states.exit_of(states.task(told), DRAINED)
    assert ("evicted", -15) == (end.slug, end.code)
    assert "node-1 was drained" in end.message


def test_while_a_node_drains_the_agent_is_on_its_way_out():
    going = task("running", desired="shutdown")
    assert states.state_of(going, DRAINED) is STATE.STOPPING
    assert "evicted" == states.exit_of(going, DRAINED).slug


def test_of_a_node_that_is_down_the_tasks_are_lost():
    """Its manager goes on to say that they run; nobody has seen their end."""
    for state in ("running", "starting", "assigned"):
        lost = task(state, desired="shutdown")
        end = states.exit_of(lost, DOWN)
        assert states.state_of(lost, DOWN) is STATE.EXITED
        assert ("platform-lost", False) == (end.slug, end.witnessed)
        assert "node-1 is down: heartbeat failure" in end.message


def test_what_has_ended_before_its_node_went_down_keeps_its_own_end():
    end = states.exit_of(task("complete", ContainerStatus={"ExitCode": 0}), DOWN)
    assert ("exited", 0, True) == (end.slug, end.code, end.witnessed)


def test_what_waits_says_so_in_the_schedulers_words():
    """The reason stands in brackets."""
    waiting = [
        states.waits_for(states.task(told))
        for told in answers("12-constraints-resources-names")
        if told["Status"]["State"] == "pending"
    ]
    assert waiting == [
        "no node takes it: scheduling constraints not satisfied on 1 node",
        "no node takes it: insufficient resources on 1 node",
    ]


def test_a_command_that_is_none_is_told_by_the_init():
    end = api.Exit(slug="exited", code=127, message="task: non-zero exit (127)")
    words = "[FATAL tini (7)] exec /no/such failed: No such file or directory"
    assert "command" == states.with_last_words(end, words).slug
    assert "exited" == states.with_last_words(end, "sh: make: not found").slug


@pytest.mark.parametrize(
    ("told", "takes", "down"),
    [
        ({"Spec": {"Availability": "active"}, "Status": {"State": "ready"}}, True, False),
        ({"Spec": {"Availability": "pause"}, "Status": {"State": "ready"}}, False, False),
        ({"Spec": {"Availability": "drain"}, "Status": {"State": "ready"}}, False, False),
        ({"Spec": {"Availability": "active"}, "Status": {"State": "down"}}, False, True),
    ],
)
def test_which_nodes_take_tasks(told, takes, down):
    found = states.node({"ID": "n", "Description": {"Hostname": "h"}, **told})
    assert (takes, down, "h") == (found.takes_tasks, found.is_down, found.name)


@pytest.mark.parametrize("entry", [None, [], {}, {"ID": "t"}, {"ID": "../x", "Status": {}}])
def test_what_is_no_task_is_said_to_be_none(entry):
    with pytest.raises(ValueError, match="task"):
        states.task(entry)


# --- refusals ---


def words_of(name):
    return [
        (entry["status"], entry["body"]["message"])
        for entry in load(name)
        if entry.get("status", 200) >= 400 and "message" in (entry["body"] or {})
    ]


NO_LEADER = "The swarm does not have a leader. It's possible that too few managers are online."


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (500, f"rpc error: code = Unknown desc = {NO_LEADER}"),
        # a service with network host is answered so, without a quorum
        (
            404,
            f"could not find the corresponding predefined swarm network: rpc error: {NO_LEADER}",
        ),
        (500, "rpc error: code = Unknown desc = raft: failed: node lost leader status"),
    ],
)
def test_without_a_quorum_the_swarm_is_unavailable(status, words):
    """Whatever the status says; another manager is asked."""
    for error in (refusals.refused(status, words), refusals.refused_creation(status, words)):
        assert isinstance(error, refusals.NoQuorumError)
        assert refusals.is_gone_elsewhere(error)


def test_the_words_above_are_those_of_the_recording():
    told = json.dumps(load("17-quorum-lost"))
    assert "The swarm does not have a leader" in told
    assert "could not find the corresponding predefined swarm network" in told


@pytest.mark.parametrize(
    ("status", "words", "kind", "elsewhere"),
    [
        (503, "This node is not a swarm manager. Worker nodes can't be used to view or modify",
         api.Unauthorized, True),
        (503, "rpc error: code = Unknown desc = Manager is being prepared", api.Unavailable, True),
        (503, "Swarm is encrypted and needs to be unlocked before it can be used.",
         api.Unauthorized, True),
        (403, "authorization denied by plugin", api.Unauthorized, True),
        (404, "service x not found", api.NotFound, False),
        (500, "rpc error: code = Unknown desc = constraint expected one operator from ==, !=",
         api.Rejected, False),
        (400, 'rpc error: code = InvalidArgument desc = ContainerSpec: "BAD NAME" is not valid',
         api.Rejected, False),
    ],
)  # fmt: skip
def test_whose_fault_a_refusal_is(status, words, kind, elsewhere):
    error = refusals.refused(status, words)
    assert type(error) is kind
    assert refusals.is_gone_elsewhere(error) == elsewhere
    assert "rpc error" not in error.reason


@pytest.mark.parametrize(
    "name", ["o-secret-scan-x", "o-quorum-x", "o-invalid-x", "o-raft-x", "team/quorum:1"]
)
@pytest.mark.parametrize(
    ("status", "words", "kind"),
    [
        (404, "service {} not found", api.NotFound),
        (500, "rpc error: code = Unknown desc = {} is odd", api.Unavailable),
        (400, "secret of {} is odd", api.Rejected),
    ],
)
def test_what_was_asked_for_says_nothing_of_the_fault(name, status, words, kind):
    """Whatever a template, an owner or an image is called."""
    error = refusals.refused(status, words.format(name), named=(name,))
    assert type(error) is kind
    assert name in error.reason


def test_what_a_template_names_and_is_not_there_is_the_templates_fault():
    for name in ("06-images", "12-constraints-resources-names"):
        for status, words in words_of(name):
            if "co5" not in words:  # that was asked for, not created
                assert type(refusals.refused_creation(status, words)) is api.Rejected, words


def test_published_ports_are_told_by_the_task_and_by_the_service():
    """As 20.10 has them: each once for IPv4 and IPv6; ingress has its number in the service."""
    udp = {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 15353, "PublishMode": "host"}
    tcp = {"Protocol": "tcp", "TargetPort": 8080, "PublishedPort": 32768, "PublishMode": "host"}
    assert states.ports([udp, udp, tcp, tcp]) == (
        api.Port(port=53, protocol="udp", host_port=15353),
        api.Port(port=8080, host_port=32768),
    )
    odd = [{**tcp, "PublishedPort": told} for told in (None, 0, True, "80", 70_000)]
    assert () == states.ports([*odd, "x", None])
    assert () == states.ports({"Ports": 1})
