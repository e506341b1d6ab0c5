"""The calls against those that a real master accepted."""

import json
import pathlib

import attrs

from backends.mesos import calls

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"
OURS = calls.Framework(id="f-1", name="broker", user="root", role="ci", failover_timeout_s=60.0)


def recorded(scenario: str, kind: str) -> dict:
    """Return the last call of that type to which the master said 202 or 200."""
    every = json.loads((RECORDED / scenario / "calls.json").read_text())
    fitting = [
        c["request"]["body"]
        for c in every
        if isinstance(c["request"]["body"], dict)
        and c["request"]["body"].get("type") == kind
        and c["response"]["status"] in (200, 202)
    ]
    return fitting[-1]


def shape(value):
    """The members of a document, without its values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return (
        [shape(value[0])]
        if isinstance(value, list) and value
        else type(value).__name__.replace("int", "float")
    )


def test_each_call_has_the_shape_that_was_accepted():
    """Members and types; our extra ones are named here."""
    infos = [
        {
            "name": "t",
            "task_id": {"value": "t"},
            "agent_id": {"value": "a"},
            "resources": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}}],
            "command": {"value": "x", "shell": True},
        }
    ]
    accept = calls.accept_offers(OURS, offer_ids=["o"], task_infos=infos, refuse_s=1.0)
    del accept["accept"]["operations"][0]["launch"]["task_infos"][0]["resources"][0]
    theirs = recorded("11-accept-errors", "ACCEPT")
    theirs.setdefault("accept", {}).setdefault("filters", {"refuse_seconds": 1.0})
    del theirs["accept"]["operations"][0]["launch"]["task_infos"][0]["resources"][:]
    assert shape(theirs) == shape(accept)
    kill = calls.kill_task(OURS, task="t", agent="a", grace_s=1.5)
    assert {"grace_period": {"nanoseconds": 1_500_000_000}} == kill["kill"].pop("kill_policy")
    assert shape(
        recorded("04-kill", "KILL")
        | {"kill": {"task_id": {"value": "t"}, "agent_id": {"value": "a"}}}
    ) == shape(kill)
    acknowledge = calls.acknowledge_status_update(OURS, task="t", agent="a", uuid="u")
    assert shape(recorded("04-kill", "ACKNOWLEDGE")) == shape(acknowledge)
    assert shape(recorded("07-reconcile", "RECONCILE")) == shape(
        calls.reconcile_tasks(OURS, {"t": "a"})
    )
    assert {"tasks": []} == calls.reconcile_tasks(OURS, {})["reconcile"]
    assert {"tasks": [{"task_id": {"value": "t"}}]} == calls.reconcile_tasks(OURS, {"t": None})[
        "reconcile"
    ]


def test_the_last_call_of_a_framework_is_the_accepted_one():
    """A second one is refused: then it is gone."""
    theirs = recorded("16-teardown", "TEARDOWN")
    assert shape(theirs) == shape(calls.teardown(OURS))


def test_subscribe_says_all_that_good_manners_ask():
    """The id twice, checkpointing, PARTITION_AWARE, a failover time-out, the suppressed role."""
    assert {
        "type": "SUBSCRIBE",
        "framework_id": {"value": "f-1"},
        "subscribe": {
            "framework_info": {
                "user": "root", "name": "broker", "id": {"value": "f-1"}, "failover_timeout": 60.0, "checkpoint": True, "roles": ["ci"],
                "capabilities": [{"type": "PARTITION_AWARE"}, {"type": "TASK_KILLING_STATE"}, {"type": "MULTI_ROLE"}],
            },
            "suppressed_roles": ["ci"],
        },
    } == calls.subscribe(OURS, suppressed=True)  # fmt: skip
    assert {"type": "GPU_RESOURCES"} in attrs.evolve(OURS, gpus=True).info()["capabilities"]
    assert b'"type":"REVIVE"' in calls.encode(calls.revive_offers(OURS))
