"""What the push hook told between two reads, laid over the last one."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from broker.core import model
from broker.core.demand import pushed
from broker.core.model import ItemId, Stage

READ_AT = 100.0


def item(number, stage=Stage.BUILDABLE, **more):
    return model.QueueItem(id=ItemId(number), stage=stage, why="words", **more)


def event(number, at=READ_AT + 1, stage=Stage.BUILDABLE, **more):
    return model.QueueEvent(id=ItemId(number), at=at, stage=stage, **more)


def view(*items, read_at=READ_AT):
    return model.ControllerView(synced=True, read_at=read_at, items=items)


def laid(before, *events):
    return pushed.laid_over(before, pushed.told({}, events))


def test_a_new_item_is_there_at_once():
    """With what is known of it; the newest first, as the controller has them."""
    new = laid(view(item(1)), event(2, task_url="/job/a/", in_queue_since_at=99.0), event(3))
    assert [one.id for one in new.items] == [3, 2, 1]
    second = new.items[1]
    assert (second.task_url, second.in_queue_since_at) == ("/job/a/", 99.0)
    assert second.buildable_since_at == READ_AT + 1


def test_what_has_left_is_on_its_way():
    """Nobody is ordered for it; that it is gone the next read says."""
    (gone,) = laid(view(item(1)), event(1, stage=None)).items
    assert (gone.stage, gone.why) == (Stage.PENDING, "")
    assert laid(view(), event(1), event(1, at=READ_AT + 2, stage=None)).items == ()


def test_an_item_changes_its_stage():
    """And is buildable since then."""
    (now,) = laid(view(item(1, Stage.WAITING)), event(1)).items
    assert (now.stage, now.buildable_since_at) == (Stage.BUILDABLE, READ_AT + 1)


def test_what_needs_no_executor_is_no_demand():
    """A Pipeline itself runs on the controller."""
    assert laid(view(), event(1, flyweight=True)).items == ()


def test_a_read_that_began_later_is_the_truth():
    """Whatever the hook says: it may be wrong, or late."""
    later = view(read_at=READ_AT + 10)
    assert laid(later, event(1)) is later
    assert pushed.still(pushed.told({}, [event(1)]), later) == {}
    unknown = model.ControllerView(read_at=READ_AT + 10)
    kept = pushed.told({}, [event(1)])
    assert pushed.still(kept, unknown) is kept
    assert pushed.laid_over(unknown, kept) is unknown


def test_the_last_word_counts():
    """However messages overtake each other."""
    one, two = event(1, at=5.0), event(1, at=6.0, stage=None)
    assert pushed.told({}, [one, two]) == pushed.told({}, [two, one]) == {1: two}


def test_memory_is_bounded():
    """Of more items than that the oldest are left to polling."""
    kept = pushed.told({}, [event(number) for number in range(pushed.MOST + 5)])
    assert len(kept) == pushed.MOST
    assert min(kept) == 5


def test_labels_are_bounded_while_nobody_can_say_which_items_are_gone():
    """The controller is away, and its hook goes on and on."""
    told = [event(number, label="a") for number in range(pushed.MOST + 5)]
    labels = pushed.labels({}, told)
    assert len(pushed.labels(labels, told[:3])) == pushed.MOST


def test_labels_stay_as_long_as_their_items():
    """No label is a label, too."""
    told = [event(1, label="a"), event(2, label=None), event(3, label="c"), event(3, stage=None)]
    labels = pushed.labels({ItemId(9): "z"}, told)
    assert labels == {9: "z", 1: "a", 2: None}
    events = pushed.told({}, told)
    assert pushed.labels_kept(labels, view(item(2)), events) == {1: "a", 2: None}
    assert pushed.labels_kept(labels, view(item(2)), {}) == {2: None}
    assert pushed.labels_kept(labels, model.ControllerView(), {}) == labels


events = st.builds(
    event,
    st.integers(0, 5),
    at=st.floats(95.0, 105.0),
    stage=st.sampled_from([None, *Stage]),
    flyweight=st.booleans(),
)


@given(st.lists(events, max_size=12), st.sets(st.integers(0, 5)))
def test_nothing_is_there_twice_and_nothing_old_counts(told, there):
    """Whatever is told, in whatever order."""
    before = view(*(item(number) for number in there))
    after = laid(before, *told)
    ids = [one.id for one in after.items]
    assert len(ids) == len(set(ids))
    assert set(ids) >= there
    old = [one for one in told if one.at < READ_AT]
    assert laid(before, *old) is before
    assert attrs.evolve(after, items=()) == attrs.evolve(before, items=())
