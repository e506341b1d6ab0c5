import json
import pathlib

import pytest

from jnlp import errors, state
from tests.each import each

RECORDINGS = pathlib.Path(__file__).parents[1] / "recordings" / "jenkins"
IDLE = {
    "_class": "hudson.slaves.SlaveComputer",
    "displayName": "a",
    "idle": True,
    "offline": False,
    "temporarilyOffline": False,
    "numExecutors": 1,
    "executors": [{"idle": True, "currentExecutable": None}],
    "oneOffExecutors": [],
}


def recorded(note):
    exchanges = json.loads((RECORDINGS / "nodes" / "05-computers.json").read_text())["exchanges"]
    (found,) = (e for e in exchanges if e["note"] == note)
    return {c["displayName"]: state.parse(c) for c in found["response"]["json"]["computer"]}


@pytest.mark.parametrize("note", ["all computers, tree", "smallest useful tree"])
def test_the_recorded_computers(note):
    """Busy with what, lost, marked, never seen: as the controller showed them."""
    seen = recorded(note)
    assert {name: one.idle for name, one in seen.items()} == {
        "master": False,
        "busy-1": False,
        "gone-1": True,
        "idle-1": True,
        "marked-1": True,
        "never-1": True,
    }
    assert {name for name, one in seen.items() if one.offline} == {"gone-1", "marked-1", "never-1"}
    assert {name for name, one in seen.items() if one.temporarily_offline} == {"marked-1"}
    assert seen["busy-1"].busy_urls == (
        "http://localhost:8080/job/wf-busy/1/",
        "http://localhost:8080/job/long-busy/1/",
    )
    assert seen["busy-1"].busy_executors == 2
    assert seen["busy-1"].labels == ("busy-1", "busylabel", "docker")
    assert [name for name, one in seen.items() if one.built_in] == ["master"]
    assert seen["gone-1"].offline_cause.startswith("Connection was broken")
    assert len(seen["gone-1"].offline_cause) == 256


def test_a_flyweight_run_makes_its_node_busy_but_takes_no_slot():
    """One-off executors are extra; the recorded built-in node runs a Pipeline on one."""
    master = recorded("all computers, tree")["master"]
    assert (master.idle, master.busy_executors, master.executors) == (False, 0, 1)
    assert master.busy_urls == ("http://localhost:8080/job/wf-busy/1/",)


@pytest.mark.parametrize(
    "work",
    [
        {"executors": [{"idle": False, "currentExecutable": None}]},
        {"executors": [{"currentExecutable": {"url": "http://x/1/"}}]},
        {"executors": [{"idle": True, "currentExecutable": {}}]},
        {"oneOffExecutors": [{"idle": False}]},
        {"idle": False},
    ],
)
def test_any_sign_of_work_outranks_idle(work):
    """The flags are read one after the other, and a build we may not see shows no executable."""
    assert state.parse({**IDLE, **work}).idle is False


@each(
    "broken",
    [
        {"idle": None},
        {"idle": "false"},
        {"offline": None},
        {"temporarilyOffline": 0},
        {"displayName": None},
        {"displayName": ""},
        {"executors": "x"},
        {"executors": ["x"]},
        {"oneOffExecutors": [None]},
    ],
)
def test_what_a_build_could_be_lost_over_must_be_there(broken):
    """Unknown is never taken for idle or online."""
    with pytest.raises(errors.Unexpected):
        state.parse({**IDLE, **broken})
    for key in ("idle", "offline", "temporarilyOffline", "displayName"):
        with pytest.raises(errors.Unexpected):
            state.parse({k: v for k, v in IDLE.items() if k != key})


@pytest.mark.parametrize("computer", [None, [], "x", 1])
def test_what_is_no_computer(computer):
    """An error of the answer."""
    with pytest.raises(errors.Unexpected, match="an object expected"):
        state.parse(computer)


def test_the_rest_may_be_missing():
    """Narrow trees and later versions leave fields out."""
    seen = state.parse(
        {"displayName": "a", "idle": True, "offline": True, "temporarilyOffline": False}
        | {"assignedLabels": [{"name": "x"}, {}, None], "offlineCauseReason": None}
    )
    assert (seen.labels, seen.offline_cause, seen.executors) == (("x",), "", 1)
