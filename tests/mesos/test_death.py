"""Death certificates: every recorded end, and a total table."""

import json
import pathlib

from backends.mesos import death
from tests.each import each

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"

ENDS = {
    ("02-launch-finish/stream-1", "t-finish"): ("exited", 0),
    ("03-launch-fail/stream-1", "t-exit3"): ("exited", 3),
    ("03-launch-fail/stream-1", "t-sigkill"): ("killed", -9),
    ("03-launch-fail/stream-1", "t-sigterm"): ("killed", -15),
    ("03-launch-fail/stream-1", "t-nocmd"): ("command", 127),
    ("03-launch-fail/stream-1", "t-baduser"): ("command", None),
    ("03-launch-fail/stream-1", "t-baduri"): ("network", None),
    ("03-launch-fail/stream-1", "t-maxtime"): ("evicted", -15),
    ("04-kill/stream-killing-state", "t-kill"): ("killed", -15),
    ("22-agent-lost/stream-plain", "t-plain"): ("platform-lost", None),
    ("24-agent-shutdown/stream-partition-aware", "t-b"): ("platform-lost", None),
    ("25-mark-agent-gone/stream-partition-aware", "t-b"): ("platform-lost", None),
    ("27-memory-limit/stream-1", "t-oom"): ("out-of-memory", None),
    ("28-docker/stream-1", "d-exit5"): ("exited", 5),
    ("28-docker/stream-1", "d-noimage"): ("image", None),
    ("29-authentication/stream-right", "t-root"): ("command", None),
}

ALL_REASONS = """
COMMAND_EXECUTOR_FAILED CONTAINER_LAUNCH_FAILED CONTAINER_LIMITATION CONTAINER_LIMITATION_DISK
CONTAINER_LIMITATION_MEMORY CONTAINER_PREEMPTED CONTAINER_UPDATE_FAILED
MAX_COMPLETION_TIME_REACHED EXECUTOR_REGISTRATION_TIMEOUT EXECUTOR_REREGISTRATION_TIMEOUT
EXECUTOR_TERMINATED EXECUTOR_UNREGISTERED FRAMEWORK_REMOVED GC_ERROR INVALID_FRAMEWORKID
INVALID_OFFERS IO_SWITCHBOARD_EXITED MASTER_DISCONNECTED RECONCILIATION RESOURCES_UNKNOWN
AGENT_DISCONNECTED AGENT_DRAINING AGENT_REMOVED AGENT_REMOVED_BY_OPERATOR AGENT_REREGISTERED
AGENT_RESTARTED AGENT_UNKNOWN TASK_CHECK_STATUS_UPDATED TASK_GROUP_INVALID TASK_GROUP_UNAUTHORIZED
TASK_HEALTH_CHECK_STATUS_UPDATED TASK_INVALID TASK_KILLED_DURING_LAUNCH TASK_UNAUTHORIZED
TASK_UNKNOWN
"""
SLUGS = set(
    "exited killed out-of-memory image command network evicted platform-lost unknown".split()
)


def statuses(stream: str) -> list[dict]:
    events = json.loads((RECORDED / f"{stream}.json").read_text())["events"]
    return [one["event"]["update"]["status"] for one in events if one["event"]["type"] == "UPDATE"]


@each("end", ENDS, ids=lambda end: end[1])
def test_recorded_ends(end):
    """What a real agent said, in the vocabulary that all backends share."""
    stream, task = end
    live = {"TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"}
    final = next(
        s for s in statuses(stream) if s["task_id"]["value"] == task and s["state"] not in live
    )
    exit_ = death.certificate(final)
    assert ENDS[end] == (exit_.slug, exit_.code)
    assert 0 < len(exit_.message) <= 256
    assert final["timestamp"] == exit_.at


def test_the_table_is_total():
    """Every reason of the API, and every word of ours is one of the contract's."""
    assert {f"REASON_{name}" for name in ALL_REASONS.split()} == set(death.REASONS)
    assert set(death.REASONS.values()) <= SLUGS


@each("reason", ["REASON_OF_THE_FUTURE", "REASON_TASK_INVALID", None])
@each("state", ["TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_OF_THE_FUTURE"])
@each("message", ["", "?!", "terminated with signal Nonsense", "exited with status"])
def test_anything_gets_a_certificate(reason, state, message):
    """Unknown words never raise, and never lack a sentence."""
    status = {"state": state, "message": message} | ({"reason": reason} if reason else {})
    exit_ = death.certificate(status)
    assert exit_.slug in SLUGS
    assert exit_.message
