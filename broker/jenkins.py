"""The read side of the controller: queue, computers, and what became of an item.

Knows which fields are worth asking for and how to read them; refuses to change anything, to know
labels or demand, and to guess: a read that is not whole raises, and its caller sees "unknown".

Facts: sections 1.1 to 1.6 of the REST reference; recordings ``queue/*``, ``nodes/05-computers``,
``controller/01-restart``. Both calls are narrowed by ``tree``, which spares the controller the
evaluation of everything else. All times are put on the broker's clock here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from attrs import frozen

from broker.core import model
from jnlp import errors, http, state
from outside import waits

QUEUE_TREE = (
    "items[id,why,stuck,blocked,buildable,pending,inQueueSince,buildableStartMilliseconds,"
    "timestamp,task[_class,name,url,labelExpression]]"
)
IDLE_TREE = "busyExecutors,idleExecutors,totalExecutors"
PEEK_TREE = "items[id,buildable]"
COMPUTER_TREE = f"computer[{state.TREE}]"
SKEW_IGNORED_S = 2.0
"""The Date header is cut to whole seconds and the answer travels: less than this is noise."""

_SHUTTING_DOWN = "Jenkins is about to shut down"
_OUTCOME_TREE = "cancelled,executable[url]"


@frozen(kw_only=True)
class ItemOutcome:
    """What became of a queue item. The controller remembers it for five minutes."""

    known: bool
    cancelled: bool = False
    executable_url: str | None = None  # the build it became


class Reader:
    """Reads one controller."""

    def __init__(self, session: http.Session) -> None:
        self._session = session

    async def read(self, now: Callable[[], float]) -> model.ControllerView:
        """Read queue and computers at once; ``now`` is the broker's clock, POSIX seconds.

        Raises any ``JenkinsError``; ``Unexpected`` when the controller restarted in between,
        because the two halves then do not belong together.
        """
        began = now()
        failed: errors.JenkinsError | None = None
        try:
            async with waits.TaskGroup() as group:
                queue = group.create_task(self._queue(now), name="read queue")
                computers = group.create_task(self._computers(), name="read computers")
        except ExceptionGroup as raised:
            failed = _controllers_fault(raised)
        if failed is not None:
            raise failed
        queue_answer, skew_s = queue.result()
        computer_answer = computers.result()
        if queue_answer.session != computer_answer.session:
            raise errors.Unexpected(
                "the controller restarted between two reads (X-Jenkins-Session "
                f"{queue_answer.session or 'absent'} and {computer_answer.session or 'absent'})"
            )
        items = parse_queue(queue_answer.json, skew_s)
        return model.ControllerView(
            synced=True,
            read_at=began,
            version=queue_answer.version,
            session=queue_answer.session,
            quieting_down=any(item.why == _SHUTTING_DOWN for item in items),
            items=items,
            computers=parse_computers(computer_answer.json, skew_s),
        )

    async def peek(self) -> frozenset[tuple[int, bool]]:
        """Return every item's id and whether it is buildable: the cheapest look at the queue.

        Raises any ``JenkinsError``.
        """
        answer = await self._session.get_json("queue/api/json", {"tree": PEEK_TREE})
        items = answer.json.get("items") if isinstance(answer.json, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise errors.Unexpected("queue: no list of items in the answer")
        return frozenset(
            (_id(item), item.get("buildable") is True)
            for item in items
            if not _text(item, "_class").endswith("$LeftItem")
        )

    async def takes_work(self, names: Sequence[str]) -> Mapping[model.NodeName, bool]:
        """Ask about nodes that look free whether they accept tasks; raises any ``JenkinsError``.

        A computer does not say so, its own label does: what accepts none has no idle executor
        (``hudson/model/Label.java``, ``getIdleExecutors``; 2.263 to master; Overall/Read). The
        three counts come from one moment. A node that is not there any more is left out.
        """
        with waits.Ungrouped(errors.JenkinsError):
            async with waits.TaskGroup() as group:
                told = {
                    model.NodeName(name): group.create_task(self._counts(name), name=f"ask {name}")
                    for name in names
                }
        counts = {name: task.result() for name, task in told.items()}
        return {
            name: idle > 0 or busy >= total
            for name, (busy, idle, total) in counts.items()
            if total > 0
        }

    async def _counts(self, name: str) -> tuple[int, int, int]:
        path = f"label/{quote(name, safe='')}/api/json"
        try:
            answer = (await self._session.get_json(path, {"tree": IDLE_TREE})).json
        except errors.NotFound:
            return 0, 0, 0
        told = answer if isinstance(answer, dict) else {}
        busy, idle, total = (told.get(key) for key in IDLE_TREE.split(","))
        if not isinstance(busy, int) or not isinstance(idle, int) or not isinstance(total, int):
            raise errors.Unexpected(f"label {name}: no counts of executors in the answer")
        return busy, idle, total

    async def item_outcome(self, item: int) -> ItemOutcome:
        """Ask for an item that has left the queue; raises any ``JenkinsError``."""
        try:
            answer = await self._session.get_json(
                f"queue/item/{item:d}/api/json", {"tree": _OUTCOME_TREE}
            )
        except errors.NotFound:
            return ItemOutcome(known=False)
        left = answer.json if isinstance(answer.json, dict) else {}
        executable = left.get("executable")
        url = executable.get("url") if isinstance(executable, dict) else None
        return ItemOutcome(
            known=True,
            cancelled=left.get("cancelled") is True,
            executable_url=url if isinstance(url, str) else None,
        )

    def agent_jar_url(self) -> str:
        """Return where the controller serves its own agent.jar, without authentication."""
        return f"{self._session.url}jnlpJars/agent.jar"

    async def _queue(self, now: Callable[[], float]) -> tuple[http.Answer, float]:
        asked = now()
        answer = await self._session.get_json("queue/api/json", {"tree": QUEUE_TREE})
        return answer, skew(answer.date, asked=asked, answered=now())

    async def _computers(self) -> http.Answer:
        return await self._session.get_json("computer/api/json", {"tree": COMPUTER_TREE})


def skew(date: float | None, *, asked: float, answered: float) -> float:
    """Return by how many seconds the controller's clock is ahead of ours; 0.0 if about none.

    ``date`` is its Date header, cut to whole seconds, so its true time is half a second later on
    average, and it was written between ``asked`` and ``answered``.
    """
    if date is None:
        return 0.0
    ahead = date + 0.5 - (asked + answered) / 2
    return ahead if abs(ahead) > SKEW_IGNORED_S + (answered - asked) / 2 else 0.0


def parse_queue(document: Any, skew_s: float) -> tuple[model.QueueItem, ...]:
    """Read the items of ``queue/api/json``; items that have left are dropped.

    Raises ``Unexpected`` for a document without items or an item without id, because an item that
    is overlooked is a build that nobody starts an agent for.
    """
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise errors.Unexpected(
            "queue: no list of items in the answer; is the URL a Jenkins controller's?"
        )
    return tuple(
        _item(item, skew_s)
        for item in items
        if not (isinstance(item, dict) and _text(item, "_class").endswith("$LeftItem"))
    )


def parse_computers(document: Any, skew_s: float = 0.0) -> tuple[model.Computer, ...]:
    """Read ``computer/api/json``; the controller's own node keeps the name it shows.

    Raises ``Unexpected`` for a computer that cannot be told idle from busy.
    """
    computers = document.get("computer") if isinstance(document, dict) else None
    if not isinstance(computers, list):
        raise errors.Unexpected("computers: no list of computers in the answer")
    return tuple(_computer(state.parse(computer), skew_s) for computer in computers)


def _computer(seen: state.NodeState, skew_s: float) -> model.Computer:
    since = seen.offline_since
    return model.Computer(
        name=model.NodeName(seen.name),
        offline=seen.offline,
        temporarily_offline=seen.temporarily_offline,
        offline_cause=seen.offline_cause,
        offline_by=seen.offline_by,
        offline_since_at=since - skew_s if since is not None else None,
        idle=seen.idle,
        executors=seen.executors,
        busy_executors=seen.busy_executors,
        executable_urls=seen.busy_urls,
        labels=frozenset(seen.labels),
        description=seen.description,
    )


def _item(item: Any, skew_s: float) -> model.QueueItem:
    if not isinstance(item, dict):
        raise errors.Unexpected("queue: an item is no object")
    number = _id(item)
    stage = _stage(item)
    task = item.get("task")
    task = task if isinstance(task, dict) else {}
    since = _time(item, "inQueueSince", skew_s)
    buildable = stage in {model.Stage.BUILDABLE, model.Stage.PENDING}
    return model.QueueItem(
        id=model.ItemId(number),
        stage=stage,
        why=_text(item, "why"),
        label_expression=_text(task, "labelExpression") or None,
        exports_label="labelExpression" in task,
        task_class=_text(task, "_class"),
        task_name=_text(task, "name"),
        task_url=_text(task, "url"),
        stuck=item.get("stuck") is True,
        in_queue_since_at=0.0 if since is None else since,
        buildable_since_at=(
            _time(item, "buildableStartMilliseconds", skew_s) if buildable else None
        ),
        quiet_until_at=(
            _time(item, "timestamp", skew_s) if stage is model.Stage.WAITING else None
        ),
    )


def _id(item: dict[str, Any]) -> int:
    number = item.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        raise errors.Unexpected(f"queue: the id of an item is {number!r}, a number expected")
    return number


def _stage(item: dict[str, Any]) -> model.Stage:
    """Tell the stage by the class, and by the flags where a class is not known."""
    kind = _text(item, "_class").rpartition("$")[2]
    if kind == "BuildableItem" or item.get("buildable") is True:
        pending = item.get("pending") is True
        return model.Stage.PENDING if pending else model.Stage.BUILDABLE
    if kind == "BlockedItem" or item.get("blocked") is True:
        return model.Stage.BLOCKED
    return model.Stage.WAITING


def _text(values: dict[str, Any], key: str) -> str:
    value = values.get(key)
    return value if isinstance(value, str) else ""


def _time(values: dict[str, Any], key: str, skew_s: float) -> float | None:
    value = values.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value / 1000 - skew_s


def _controllers_fault(group: ExceptionGroup) -> errors.JenkinsError:
    """Take the controller's error out of a task group; a fault of ours goes on as it is."""
    for error in group.exceptions:
        if not isinstance(error, errors.JenkinsError):
            raise group
    return next(error for error in group.exceptions if isinstance(error, errors.JenkinsError))
