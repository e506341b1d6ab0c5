"""What is noted when a source is lost and when it is back."""

from broker.core import model
from broker.loop import health
from broker.loop.health import SourceBack, SourceLost
from tests.each import each

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


@each(
    ("before", "now", "noted"),
    [
        (None, FINE, ()),
        (None, BLIND, (SourceLost(source="controller", reason="refused"),)),
        (FINE, BLIND, (SourceLost(source="controller", reason="refused"),)),
        (BLIND, BLIND, ()),
        (BLIND, FINE, (SourceBack(source="controller"),)),
        (FINE, FINE, ()),
        (FINE, PARTLY, (SourceLost(source="b", reason="two is down"),)),
        (PARTLY, PARTLY, ()),
        (PARTLY, FINE, (SourceBack(source="b"),)),
    ],
)
def test_a_change_is_noted_once(before, now, noted):
    """An outage of an hour is two lines, not one per look; the first one names the reason."""
    assert noted == health.changes(before, now)
