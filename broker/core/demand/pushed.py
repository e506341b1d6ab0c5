"""What the push hook told between two reads of the queue, laid over the last read.

A read says all that there was when it began; an event says what became of one item, and when. So
an event counts until a read that began after it has come: polling stays the truth, and a hook that
is silent, late or wrong costs nothing but time. An item that left may be on its way to an executor
that no read shows yet: it is kept as pending, for which nobody is ordered. Pure; refuses to know
how events come, and what is done about them.
"""

from collections.abc import Iterable, Mapping

import attrs

from broker.core import model
from broker.core.model import ItemId, QueueEvent, QueueItem, Stage

SURELY_S = 1.0
"""A read that began so much later than an event shows what it has told, whatever clocks say."""
MOST = 20_000
"""Events of so many items are kept; of more the oldest are left to polling."""

Pushed = Mapping[ItemId, QueueEvent]


def told(before: Pushed, events: Iterable[QueueEvent]) -> dict[ItemId, QueueEvent]:
    """Return the last event of each item; one that is older than what is known says nothing."""
    after = dict(before)
    for event in events:
        known = after.get(event.id)
        if known is None or known.at <= event.at:
            after.pop(event.id, None)  # the last one stands last
            after[event.id] = event
    return dict(list(after.items())[-MOST:])


def still(pushed: Pushed, view: model.ControllerView) -> Pushed:
    """Return what a read does not know yet; one that failed knows nothing."""
    if not pushed or not view.synced:
        return pushed
    return {key: one for key, one in pushed.items() if one.at + SURELY_S >= view.read_at}


def labels(
    before: Mapping[ItemId, str | None], events: Iterable[QueueEvent]
) -> dict[ItemId, str | None]:
    """Return the exact label of each item that was told of and may wait; ``MOST`` at most."""
    after = dict(before)
    for event in events:
        if event.stage is None:
            after.pop(event.id, None)
        else:
            after[event.id] = event.label
    return dict(list(after.items())[-MOST:]) if len(after) > MOST else after


def labels_kept(
    before: Mapping[ItemId, str | None], view: model.ControllerView, pushed: Pushed
) -> Mapping[ItemId, str | None]:
    """Return the labels of items that are in the queue, or were told of after it was read."""
    if not before or not view.synced:
        return before
    there = {item.id for item in view.items}
    if before.keys() <= there:
        return before
    return {key: label for key, label in before.items() if key in there or key in pushed}


def laid_over(view: model.ControllerView, pushed: Pushed) -> model.ControllerView:
    """Return a view with what was told since its read began."""
    if not view.synced:
        return view
    later = {key: event for key, event in pushed.items() if event.at >= view.read_at}
    if not later:
        return view
    items = [_changed(item, later.pop(item.id, None)) for item in view.items]
    # in the order in which the controller has them: the newest first
    fresh = [item for event in later.values() if (item := _new(event)) is not None]
    fresh.sort(key=lambda item: item.id, reverse=True)
    return attrs.evolve(view, items=(*fresh, *items))


def _changed(item: QueueItem, event: QueueEvent | None) -> QueueItem:
    if event is None:
        return item
    stage = event.stage if event.stage is not None else Stage.PENDING
    if stage is item.stage:
        return item
    since = event.at if stage is Stage.BUILDABLE else item.buildable_since_at
    # its words were said of another stage
    return attrs.evolve(item, stage=stage, why="", buildable_since_at=since)


def _new(event: QueueEvent) -> QueueItem | None:
    """Return an item that the read has not seen, unless it needs nobody or has left."""
    if event.stage is None or event.flyweight:
        return None
    return QueueItem(
        id=event.id,
        stage=event.stage,
        task_class=event.task_class,
        task_name=event.task_name,
        task_url=event.task_url,
        in_queue_since_at=event.in_queue_since_at,
        buildable_since_at=event.at if event.stage is Stage.BUILDABLE else None,
    )
