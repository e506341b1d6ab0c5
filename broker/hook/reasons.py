"""Which lines a build that waits gets into its own log: why it waits, as that changes.

Pipeline's ``node`` steps alone have a log before they run. The first line comes when a step has
waited a little, the next one when its reason is another and a minute has gone by; that it is given
up is said at once. Pure.
"""

from collections.abc import Iterable, Mapping

from broker.core import model
from outside import text

FIRST_S = 5.0
EVERY_S = 60.0
MOST = 100
"""Lines in one answer; the others come with the next."""
_PLACEHOLDER = "ExecutorStepExecution$PlaceholderTask"
_LENGTH = 500

Told = Mapping[model.ItemId, tuple[str, float]]


def lines(
    items: Iterable[model.QueueItem], unmet: Iterable[model.Unmet], told: Told, now: float
) -> tuple[tuple[tuple[model.ItemId, str], ...], Told]:
    """Return the lines that are due, and what has been told by then to whom still waits."""
    steps = {
        item.id: item.buildable_since_at or item.in_queue_since_at
        for item in items
        if item.task_class.endswith(_PLACEHOLDER) and item.stage is model.Stage.BUILDABLE
    }
    if not steps:
        return (), {}
    after = {item: one for item, one in told.items() if item in steps}
    due: list[tuple[model.ItemId, str]] = []
    for one in unmet:
        since = steps.get(one.item)
        if since is None or now - since < FIRST_S or len(due) >= MOST:
            continue
        known = after.get(one.item)
        is_due = known is None or now - known[1] >= EVERY_S or one.last
        if is_due and (known is None or known[0] != one.text):
            # it may quote what others wrote, and goes where many read it
            due.append((one.item, text.clean(one.text, _LENGTH)))
            after[one.item] = (one.text, now)
    return tuple(due), after
