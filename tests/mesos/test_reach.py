"""How far a refusal of a master reaches: every recorded one, by one table."""

import json
import pathlib

import pytest

from backends import api
from backends.mesos import backend, death, records, transport
from broker.core import model
from tests.each import each

RECORDED = pathlib.Path(__file__).parent.parent / "recordings" / "mesos"
LAUNCHES = {  # reason: what the launch raises; of the others the end is told by the listing
    "REASON_TASK_INVALID": api.Rejected,
    "REASON_TASK_UNAUTHORIZED": api.Rejected,
}
DUPLICATE = "duplicate ID"  # among the invalid ones: of that name alone


def final_statuses():
    """Return each recorded status that ended a task, once for each reason and message."""
    found = {}
    for path in sorted(RECORDED.glob("*/stream*.json")):
        events = json.loads(path.read_text())
        if not isinstance(events, dict) or "events" not in events:
            continue
        for told in events["events"]:
            status = told.get("event", {}).get("update", {}).get("status", {})
            if status.get("state") in records.TERMINAL:
                key = status.get("state"), status.get("reason", ""), status.get("message", "")
                found[key] = status
    return list(found.values())


STATUSES = final_statuses()


def test_the_recordings_are_there():
    """Refusals of several kinds among them."""
    reasons = {status.get("reason") for status in STATUSES}
    assert set(LAUNCHES) < reasons
    assert len(STATUSES) >= 20


@each("status", STATUSES, ids=lambda s: f"{s['state']} {s.get('reason', '')}")
def test_a_task_that_is_not_taken_is_its_templates_trouble(status):
    """Or nobody's: the backend goes on, whatever ended a task."""
    task = records.Task(name="a1", final=status)
    error = backend._refusal(task)
    kind = LAUNCHES.get(status.get("reason", ""))
    if kind is None:
        assert error is None
        cause = model.Cause.of_exit(death.certificate(status).slug)
        assert cause.scope in {model.Scope.TEMPLATE, model.Scope.LAUNCH}
    elif DUPLICATE in status.get("message", ""):
        assert (api.AlreadyExists, api.Reach.LAUNCH) == (type(error), error.reach)
    else:
        assert (kind, api.Reach.TEMPLATE) == (type(error), error.reach)


@each("reason", death.REASONS)
def test_a_place_that_goes_away_is_no_templates_trouble(reason):
    """An agent of Mesos that is drained, lost or removed: the next task goes elsewhere."""
    cause = model.Cause.of_exit(death.REASONS[reason])
    gone = cause in {model.Cause.LOST_PLATFORM, model.Cause.LOST_EVICTED}
    assert cause.scope is (model.Scope.LAUNCH if gone else model.Scope.TEMPLATE)


@pytest.mark.parametrize(
    ("status", "kind", "reach"),
    [
        (401, api.Unauthorized, api.Reach.BACKEND),
        (403, api.Unauthorized, api.Reach.BACKEND),
        (400, transport.BadCall, api.Reach.TEMPLATE),
        (503, api.Unavailable, api.Reach.BACKEND),
    ],
)
def test_what_a_master_says_to_a_call(status, kind, reach):
    """A right or a master that does not answer is everybody's."""
    error = transport._refusal(status, "said so")
    assert (kind, reach) == (type(error), error.reach)


def test_files_of_the_backend_are_everybodys(tmp_path):
    """No template can do anything about them."""
    missing = str(tmp_path / "none")
    for read in (
        lambda: transport._credentials("p", missing),
        lambda: transport._authorities(missing),
        lambda: transport._trusted(None, "no such cipher"),
    ):
        with pytest.raises(api.Rejected) as caught:
            read()
        assert caught.value.reach is api.Reach.BACKEND
