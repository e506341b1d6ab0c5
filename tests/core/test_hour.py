"""What is kept of the last hour for people."""

from hypothesis import given
from hypothesis import strategies as st

from broker.core import model
from broker.core.fleet import hour as hours
from broker.core.model import ItemId, NodeName, Phase, Stage


def look(hour, now, *, waiting=0, phases=(), synced=True):
    items = tuple(model.QueueItem(id=ItemId(n), stage=Stage.BUILDABLE) for n in range(waiting))
    agents = tuple(
        model.Agent(name=NodeName(f"n{n}"), phase=phase) for n, phase in enumerate(phases)
    )
    view = model.ControllerView(synced=synced, items=items)
    return hours.noted(hour, view, model.Plan(agents=agents), now=now)


def test_a_minute_has_the_most_of_what_its_looks_showed():
    """So that a rush of seconds is seen."""
    hour = look(hours.Hour(), 600.0, waiting=3, phases=[Phase.IDLE, Phase.CONNECTING])
    hour = look(hour, 630.0, waiting=1, phases=[Phase.BUSY, Phase.BUSY])
    hour = look(hour, 661.0, phases=[Phase.IDLE])
    first, second = hour.minutes
    assert first == hours.Minute(at=600.0, waiting=3, starting=1, idle=1, busy=2)
    assert second == hours.Minute(at=660.0, idle=1)


def test_who_cannot_be_read_shows_nothing():
    """The picture has a gap then."""
    hour = look(hours.Hour(), 600.0, waiting=3)
    assert look(hour, 700.0, synced=False) is hour
    assert [one.at for one in look(hour, 1000.0).minutes] == [600.0, 960.0]


def test_a_clock_that_goes_back_changes_no_order():
    """What is seen counts for the last minute."""
    hour = look(look(hours.Hour(), 660.0), 600.0, waiting=2)
    assert hour.minutes == (hours.Minute(at=660.0, waiting=2),)


@given(st.lists(st.floats(0, 20_000), max_size=80))
def test_an_hour_is_kept_and_no_more(times):
    """Whenever it is looked."""
    hour = hours.Hour()
    for now in times:
        hour = look(hours.started(hour, [("t", 1.0)], now=now), now)
    assert len(hour.minutes) <= hours.MINUTES
    begun = [one.at for one in hour.minutes]
    assert begun == sorted(set(begun))


def test_how_long_starts_took():
    """Of one template or of all."""
    hour = hours.started(hours.Hour(), [("a", float(n)) for n in range(1, 101)], now=1.0)
    hour = hours.started(hour, [("b", 1000.0)], now=1.0)
    assert hour.waited(0.5, "a") == 50.0
    assert hour.waited(0.95, "a") == 95.0
    assert hour.waited(1.0) == 1000.0
    assert hour.waited(0.5, "c") is None
    assert hours.started(hour, [], now=2.0) is hour
    many = hours.started(hour, [("a", 1.0)] * 2 * hours.MOST_WAITS, now=2.0)
    assert len(many.waits) == hours.MOST_WAITS
