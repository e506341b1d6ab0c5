"""The read side of the controller: queue, computers, and what became of an item.

Knows which fields are worth asking for and how to read them; refuses to change anything, to know
labels or demand, and to guess: a read that is not whole raises, and its caller sees "unknown". One
odd entry costs that entry: the others are used, and the view says how many there are and why.

Facts: sections 1.1 to 1.6 of the REST reference; recordings ``queue/*``, ``nodes/05-computers``,
``controller/01-restart``. Both calls are narrowed by ``tree``, which spares the controller the
evaluation of everything else. All times are put on the broker's clock here.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from attrs import frozen

from broker.core import model
from broker.core.demand import labels
from jnlp import entries as jnlp_entries
from jnlp import errors, http, state
from outside import text, typed, waits

QUEUE_TREE = (
    "items[id,why,stuck,blocked,buildable,pending,inQueueSince,buildableStartMilliseconds,"
    "timestamp,task[_class,name,url,labelExpression]]"
)
IDLE_TREE = "busyExecutors,idleExecutors,totalExecutors"
PEEK_TREE = "items[id,buildable]"
AT_WORK_TREE = "computer[displayName,idle,executors[currentExecutable[url]]]"
QUIET_TREE = "quietingDown"
COMPUTER_TREE = f"computer[{state.TREE}]"
SKEW_IGNORED_S = 2.0
"""The Date header is cut to whole seconds and the answer travels: less than this is noise."""

_DURABLE_TASK = "plugin/durable-task"
_LABEL = 2 * labels.MAX_LENGTH  # characters: of what is too long the length is still told
_WHY = labels.MAX_LENGTH + 512
_CLASS = 256
_MAX_ID = 2**63 - 1  # a Java long

_SHUTTING_DOWN = "Jenkins is about to shut down"
_OUTCOME_TREE = "cancelled,executable[url,builtOn]"


_RESULT_TREE = "result,duration,building"
_RESULT = re.compile(r"[A-Z_]{1,32}")


@frozen(kw_only=True)
class BuildResult:
    """What came of a build: Jenkins' word for it, empty while it runs on or if it says none."""

    result: str = ""
    duration_s: float = 0.0


@frozen(kw_only=True)
class ItemOutcome:
    """What became of a queue item. The controller remembers it for five minutes."""

    known: bool
    cancelled: bool = False
    executable_url: str | None = None  # the build it became
    built_on: str = ""  # the node that ran it; a Pipeline's does not say


T = TypeVar("T")


class LastRead(Generic[T]):
    """What the entries of the last read have meant: the same bytes are not read again.

    So what has not changed is the same object as before, which spares whoever compares the two.
    Holds the entries of two reads at most.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, T] = {}
        self._now: dict[bytes, T] = {}
        self._skew_s = 0.0

    def begin(self, skew_s: float) -> None:
        """Begin a read; times are put on our clock, so the controller's has to be the same."""
        self._last = self._now if skew_s == self._skew_s else {}
        self._now, self._skew_s = {}, skew_s

    def of(self, entry: Any) -> T | None:
        """Return what an entry meant at the last read, if it was there."""
        key = entry.text if isinstance(entry, jnlp_entries.Entry) else None
        return self._last.get(key) if key is not None else None

    def keep(self, entry: Any, value: T) -> None:
        """Note what an entry means."""
        if isinstance(entry, jnlp_entries.Entry) and entry.text is not None:
            self._now[entry.text] = value


class Reader:
    """Reads one controller."""

    def __init__(self, session: http.ControllerSession) -> None:
        self._session = session
        self._items: LastRead[model.QueueItem] = LastRead()
        self._seen: LastRead[model.Computer] = LastRead()
        self._releases: tuple[str, bool] | None = None  # controller session, answer

    async def read(
        self, now: Callable[[], float], *, to_order: bool = False
    ) -> model.ControllerView:
        """Read queue and computers; ``now`` is the broker's clock, POSIX seconds.

        An item may become a build in between. ``to_order``: it is then seen once or not at all,
        because nobody is to be ordered for what has its agent already; the queue is read last.
        Else it is seen once or twice, because nobody may go who has been given it.

        Raises any ``JenkinsError``; ``Unexpected`` when the controller restarted in between,
        because the two halves then do not belong together.
        """
        began = now()
        if to_order:
            computer_answer = await self._computers()
            queue_answer, skew_s = await self._queue(now)
        else:
            queue_answer, skew_s = await self._queue(now)
            computer_answer = await self._computers()
        if queue_answer.session != computer_answer.session:
            raise errors.Unexpected(
                "the controller restarted between two reads (X-Jenkins-Session "
                f"{queue_answer.session or 'absent'} and {computer_answer.session or 'absent'})"
            )
        items, odd_items = parse_queue(queue_answer.entries, skew_s, self._items)
        computers, odd_computers = parse_computers(computer_answer.entries, skew_s, self._seen)
        quieting_down = _tells_quieting_down(items)
        if quieting_down is None:
            quieting_down = await self._is_quieting_down()
        strands = any(computer.offline and computer.only_steps for computer in computers)
        return model.ControllerView(
            synced=True,
            read_at=began,
            version=queue_answer.version,
            session=queue_answer.session,
            quieting_down=quieting_down,
            items=items,
            computers=computers,
            odd_items=odd_items.words("item of the queue", "items of the queue"),
            odd_computers=odd_computers.words(),
            odd_names=odd_computers.names,
            odd_nameless=odd_computers.nameless,
            releases=strands and await self._can_release(queue_answer.session),
        )

    async def _is_quieting_down(self) -> bool:
        """Ask the controller itself; who does not let it be read is seen by its items alone."""
        try:
            answer = await self._session.get_json("api/json", {"tree": QUIET_TREE})
        except errors.JenkinsError:
            return False
        return isinstance(answer.json, dict) and answer.json.get(QUIET_TREE) is True

    async def _can_release(self, session: str) -> bool:
        """Ask for the plugin that single-use agents come with; once for each controller start.

        Anybody may see that it is there: its address is a folder, that of no plugin is unknown
        (2.541.3, a user with Overall/Read).
        """
        if self._releases is None or self._releases[0] != session:
            try:
                self._releases = session, await self._session.is_folder(_DURABLE_TASK)
            except errors.JenkinsError:
                return False  # not known now: the next look asks again
        return self._releases[1]

    async def peek(self) -> frozenset[tuple[int, bool]]:
        """Return every item's id and whether it is buildable: the cheapest look at the queue.

        Raises any ``JenkinsError``.
        """
        answer = await self._session.get_list("queue/api/json", "items", {"tree": PEEK_TREE})
        seen, _ = _each(answer.entries, _glimpse, "queue")
        return frozenset(pair for pair in seen if pair is not None)

    async def takes_work(self, names: Sequence[str]) -> Mapping[model.NodeName, bool]:
        """Ask about nodes that look free whether they accept tasks; raises any ``JenkinsError``.

        A computer does not say so, its own label does: what accepts none has no idle executor
        (``hudson/model/Label.java``, ``getIdleExecutors``; 2.263 to master; Overall/Read). The
        three counts come from one moment. A node that is not there any more is left out.
        """
        with waits.Ungrouped(errors.JenkinsError):
            async with waits.TaskGroup() as group:
                asked = {
                    model.NodeName(name): group.create_task(self._counts(name), name=f"ask {name}")
                    for name in names
                }
        counts = {name: task.result() for name, task in asked.items()}
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

    async def at_work(self) -> Mapping[model.NodeName, bool]:
        """Return who works just now, and whether a build shows: the cheapest look at computers.

        Without one it was only assigned, or may not be read. Raises any ``JenkinsError``.
        """
        answer = await self._session.get_list(
            "computer/api/json", "computer", {"tree": AT_WORK_TREE}
        )
        seen, _ = _each(answer.entries, _at_work, "computers")
        return {name: shows for name, works, shows in seen if works}

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
        executable = executable if isinstance(executable, dict) else {}
        url = executable.get("url")
        return ItemOutcome(
            known=True,
            cancelled=left.get("cancelled") is True,
            executable_url=state.address(url) or None,
            built_on=text.name(_text(executable, "builtOn")),
        )

    async def cancel_item(self, item: int) -> None:
        """Take an item out of the queue, its build will not be; needs Job/Cancel.

        204; 404 (``NotFound``) of one that was never there or left long ago, 422 without the
        permission, 500 of one that has just left (``hudson.model.Queue.doCancelItem``, measured
        on 2.516.3 and 2.541.3). Raises any ``JenkinsError``.
        """
        await self._session.post("queue/cancelItem", form={"id": f"{item:d}"})

    async def build_result(self, url: str) -> BuildResult:
        """Ask for a build by its address, wherever the controller thinks that it is itself.

        What is no build's address says nothing. Raises any ``JenkinsError``.
        """
        path = _path_of_build(url)
        if not path:
            return BuildResult()
        answer = await self._session.get_json(f"{path}/api/json", {"tree": _RESULT_TREE})
        told = answer.json if isinstance(answer.json, dict) else {}
        result = _text(told, "result")
        if told.get("building") is True or not _RESULT.fullmatch(result):
            return BuildResult()
        duration = typed.number(told.get("duration"), 0.0, state.LATEST_MS)
        return BuildResult(result=result, duration_s=(duration or 0.0) / 1000)

    def agent_jar_url(self) -> str:
        """Return where the controller serves its own agent.jar, without authentication."""
        return f"{self._session.url}jnlpJars/agent.jar"

    async def _queue(self, now: Callable[[], float]) -> tuple[http.ControllerAnswer, float]:
        asked = now()
        answer = await self._session.get_list("queue/api/json", "items", {"tree": QUEUE_TREE})
        return answer, skew(answer.date, asked=asked, answered=now())

    async def _computers(self) -> http.ControllerAnswer:
        tree = {"tree": COMPUTER_TREE}
        return await self._session.get_list("computer/api/json", "computer", tree)


def _tells_quieting_down(items: Iterable[model.QueueItem]) -> bool | None:
    """Return whether the controller prepares for a shut-down, as far as the queue tells.

    Then no item stays buildable, or it says so (``Queue.java``: ``isBlockedByShutdown`` and
    ``BuildableItem.getCauseOfBlockage``, 2.263 to master). None: nothing tells.
    """
    stages = {item.stage for item in items if item.why != _SHUTTING_DOWN}
    if any(item.why == _SHUTTING_DOWN for item in items):
        return True
    return False if model.Stage.BUILDABLE in stages else None


def _path_of_build(url: str) -> str:
    """Return where a build is on its controller; empty if that is no build's address."""
    _, job, rest = url.partition("/job/")
    parts = rest.rstrip("/").split("/")
    is_plain = not any(part in {"", ".", ".."} or set(part) & set("?#") for part in parts)
    is_build = len(parts) > 1 and parts[-1].isdecimal() and parts[-1].isascii()
    return f"job/{'/'.join(parts)}" if job and is_plain and is_build else ""


def skew(date: float | None, *, asked: float, answered: float) -> float:
    """Return by how many seconds the controller's clock is ahead of ours; 0.0 if about none.

    ``date`` is its Date header, cut to whole seconds, so its true time is half a second later on
    average, and it was written between ``asked`` and ``answered``.
    """
    if date is None:
        return 0.0
    ahead = date + 0.5 - (asked + answered) / 2
    return ahead if abs(ahead) > SKEW_IGNORED_S + (answered - asked) / 2 else 0.0


def parse_queue(
    entries: Iterable[Any], skew_s: float, known: LastRead[model.QueueItem] | None = None
) -> tuple[tuple[model.QueueItem, ...], typed.Odd]:
    """Read the items of ``queue/api/json``; items that have left are dropped.

    An item without an id, or with that of another one, is odd. Raises ``Unexpected`` for what is
    no list.
    """
    ids: set[int] = set()
    known = known if known is not None else LastRead()
    known.begin(skew_s)

    def read(entry: Any) -> model.QueueItem | None:
        parsed = known.of(entry)
        if parsed is None:
            item = _value(entry)
            if isinstance(item, dict) and _text(item, "_class").endswith("$LeftItem"):
                return None
            parsed = _item(item, skew_s)
        known.keep(entry, parsed)
        if parsed.id in ids:
            raise ValueError(f"two items have the id {parsed.id}")
        ids.add(parsed.id)
        return parsed

    parsed, odd = _each(entries, read, "queue")
    return tuple(item for item in parsed if item is not None), odd


@frozen(kw_only=True)
class OddComputers:
    """Computers that could not be read; whoever has no name may be any that is not seen."""

    odd: typed.Odd
    names: frozenset[model.NodeName] = frozenset()
    nameless: bool = False

    def words(self) -> str:
        """Return one sentence for people; empty if all could be read."""
        return self.odd.words("computer")


def parse_computers(
    entries: Iterable[Any], skew_s: float = 0.0, known: LastRead[model.Computer] | None = None
) -> tuple[tuple[model.Computer, ...], OddComputers]:
    """Read ``computer/api/json``; the controller's own node keeps the name it shows.

    Odd is a computer that cannot be told idle from busy, and each of two of one name. Raises
    ``Unexpected`` for what is no list.
    """
    names: set[str] = set()
    odd_names: set[model.NodeName] = set()
    nameless = False
    known = known if known is not None else LastRead()
    known.begin(skew_s)

    def read(entry: Any) -> model.Computer:
        nonlocal nameless
        parsed, computer = known.of(entry), None
        try:
            computer = _value(entry) if parsed is None else None
            name = model.NodeName(state.name_of(computer)) if parsed is None else parsed.name
        except (ValueError, errors.JenkinsError):
            nameless = True
            raise
        is_second = name in names
        names.add(name)
        odd_names.add(name)  # until it has been read
        if is_second:
            raise ValueError(f"two computers have the name {name}")
        parsed = _computer(state.parse(computer), skew_s) if parsed is None else parsed
        known.keep(entry, parsed)
        odd_names.remove(name)
        return parsed

    parsed, odd = _each(entries, read, "computers")
    return (
        tuple(computer for computer in parsed if computer.name not in odd_names),
        OddComputers(odd=odd, names=frozenset(odd_names), nameless=nameless),
    )


def _each(
    entries: Iterable[Any], read: Callable[[Any], T], what: str
) -> tuple[list[T], typed.Odd]:
    def told(entry: Any) -> T:
        try:
            return read(entry)
        except errors.JenkinsError as error:
            raise ValueError(error.text) from None

    try:
        return typed.each(entries, told)
    except ValueError as error:  # of the document, not of an entry
        raise errors.Unexpected(f"{what}: {error}") from None


def _value(entry: Any) -> Any:
    return entry.parse() if isinstance(entry, jnlp_entries.Entry) else entry


def _glimpse(entry: Any) -> tuple[int, bool] | None:
    item = _value(entry)
    if not isinstance(item, dict) or _text(item, "_class").endswith("$LeftItem"):
        return None
    return _id(item), item.get("buildable") is True


def _at_work(entry: Any) -> tuple[model.NodeName, bool, bool]:
    """Return a computer's name, whether it works, and whether a build shows."""
    computer = _value(entry)
    name = model.NodeName(state.name_of(computer))
    executors = computer.get("executors")
    shows = any(
        isinstance(one, dict) and isinstance(one.get("currentExecutable"), dict)
        for one in (executors if isinstance(executors, list) else ())
    )
    return name, computer.get("idle") is not True, shows


def _computer(live: state.NodeState, skew_s: float) -> model.Computer:
    since = live.offline_since
    return model.Computer(
        name=model.NodeName(live.name),
        offline=live.offline,
        temporarily_offline=live.temporarily_offline,
        offline_cause=live.offline_cause,
        offline_by=live.offline_by,
        offline_since_at=since - skew_s if since is not None else None,
        idle=live.idle,
        executors=live.executors,
        busy_executors=live.busy_executors,
        executable_urls=live.busy_urls,
        only_steps=live.only_steps,
        labels=frozenset(live.labels),
        description=live.description,
    )


def _item(item: Any, skew_s: float) -> model.QueueItem:
    if not isinstance(item, dict):
        raise errors.Unexpected("an item of the queue is not an object")
    number = _id(item)
    stage = _stage(item)
    task = item.get("task")
    task = task if isinstance(task, dict) else {}
    since = _time(item, "inQueueSince", skew_s)
    buildable = stage in {model.Stage.BUILDABLE, model.Stage.PENDING}
    return model.QueueItem(
        id=model.ItemId(number),
        stage=stage,
        why=text.fit(_text(item, "why"), _WHY),
        label_expression=text.fit(_text(task, "labelExpression"), _LABEL) or None,
        exports_label="labelExpression" in task,
        task_class=text.fit(_text(task, "_class"), _CLASS),
        task_name=text.clean(_text(task, "name")),
        task_url=state.address(task.get("url")),
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
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _MAX_ID:
        raise errors.Unexpected(f"the id of an item is {state.shown(number)}, a number expected")
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
    value = typed.number(values.get(key), 0.0, state.LATEST_MS)
    return value / 1000 - skew_s if value else None  # 1970 and before: it is not told
