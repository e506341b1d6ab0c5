"""What is said when a source is lost and when it is back."""

import logging

import pytest

from broker.core import model
from broker.loop import observe

FINE = model.World(
    now=1.0,
    controller=model.ControllerView(synced=True),
    backends={model.BackendName("b"): model.BackendView(synced=True)},
)
BLIND = model.World(
    now=2.0,
    controller=model.ControllerView(error="refused"),
    backends={model.BackendName("b"): model.BackendView(synced=True)},
)
PARTLY = model.World(
    now=3.0,
    controller=model.ControllerView(synced=True),
    backends={model.BackendName("b"): model.BackendView(synced=True, hidden="two is down")},
)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, FINE, []),
        (None, BLIND, [("WARNING", "source lost", "controller", "refused")]),
        (FINE, BLIND, [("WARNING", "source lost", "controller", "refused")]),
        (BLIND, BLIND, []),
        (BLIND, FINE, [("INFO", "source back", "controller", None)]),
        (FINE, FINE, []),
        (FINE, PARTLY, [("WARNING", "source lost", "b", "two is down")]),
        (PARTLY, PARTLY, []),
        (PARTLY, FINE, [("INFO", "source back", "b", None)]),
    ],
)
def test_a_change_is_said_once(caplog, before, now, said):
    """An outage of an hour is two lines, not one per look; the first one names the reason."""
    with caplog.at_level(logging.INFO, logger="broker.observe"):
        observe.note_changes(before, now)
    assert said == [
        (r.levelname, r.message, r.source, getattr(r, "reason", None)) for r in caplog.records
    ]
