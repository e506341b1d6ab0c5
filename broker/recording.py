"""Worlds, outcomes and arrivals as JSON lines: what was seen and decided, to be replayed later.

A file is one header line and then one line for each record, in the order of time:

* ``world``: everything that a plan is made of, and the policy that was in force;
* ``outcome``: how an action ended;
* ``arrival`` and ``departure``: an item came into the queue, or left it; with its label.

Whoever reads it needs no controller, no backend and no secret: ``plan --world``, later the
simulator of capacity. What a launch hands over (environment, addresses, files) is left out of the
policy, for secrets may stand there; names of jobs and people are replaced by a hash unless they
are asked for. A file is bounded: a record that does not fit any more is not written, and the file
says so in its last line. Refuses to know where worlds come from.
"""

import enum
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_origin

import attrs
import cattrs
from attrs import field, frozen
from cattrs.strategies import configure_tagged_union

import broker
from broker.core import model
from broker.core.demand import jobs
from broker.core.fleet import ledger as ledgers
from outside import odd_json, quotes

FORMAT = "agent-broker-record"
VERSION = 1
LIMIT_BYTES = 64 << 20
"""Of a whole file, written or read."""


class RecordError(ValueError):
    """A line is none of ours; the text says which and why."""


class RecordKind(enum.Enum):
    """What a line tells."""

    WORLD = "world"
    OUTCOME = "outcome"
    ARRIVAL = "arrival"
    DEPARTURE = "departure"
    NOTE = "note"


@frozen(kw_only=True)
class RecordedWorld:
    """One observation with the policy that was in force."""

    at: float
    world: model.World
    policy: model.Policy


@frozen(kw_only=True)
class RecordedOutcome:
    """How an action ended."""

    at: float
    outcome: ledgers.Outcome


@frozen(kw_only=True)
class Arrival:
    """An item that came into the queue."""

    at: float
    item: model.ItemId
    label: str | None = None  # as an expression, where it is known
    task: str = ""  # the job's name, or its hash
    since_at: float = 0.0  # on the broker's clock: when the controller took it in


@frozen(kw_only=True)
class Departure:
    """An item that left the queue: a build of it began, or it was cancelled."""

    at: float
    item: model.ItemId
    waited_s: float


@frozen(kw_only=True)
class Note:
    """Something for people: why a file was written, or where it was cut."""

    at: float
    text: str


Record = RecordedWorld | RecordedOutcome | Arrival | Departure | Note
_KINDS: Mapping[type[Record], RecordKind] = {
    RecordedWorld: RecordKind.WORLD,
    RecordedOutcome: RecordKind.OUTCOME,
    Arrival: RecordKind.ARRIVAL,
    Departure: RecordKind.DEPARTURE,
    Note: RecordKind.NOTE,
}


# --- writing -----------------------------------------------------------------------------------


@frozen
class Writer:
    """Writes records to a sink of lines, as far as the limit allows."""

    sink: Callable[[str], object]
    limit_bytes: int = LIMIT_BYTES
    with_names: bool = False  # of jobs and people, as they are
    _state: dict[str, int] = field(factory=lambda: {"bytes": 0, "full": 0})

    def begin(self, *, at: float) -> None:
        """Write the header."""
        fields = {"format": FORMAT, "version": VERSION, "broker": broker.__version__, "at": at}
        self._put(fields | {"names": self.with_names})

    def add(self, record: Record) -> bool:
        """Write a record; False: the file is full, and says so."""
        if self._state["full"]:
            return False
        if not self.with_names:
            record = disguised(record)
        fields = {"kind": _KINDS[type(record)].value, **_converter().unstructure(record)}
        if self._put(fields):
            return True
        self._state["full"] = 1
        note = Note(at=record.at, text=f"full: the limit is {self.limit_bytes}, in bytes")
        self.sink(_line({"kind": RecordKind.NOTE.value, **attrs.asdict(note)}))
        return False

    def _put(self, fields: Mapping[str, Any]) -> bool:
        line = _line(fields)
        if self._state["bytes"] + len(line.encode()) > self.limit_bytes:
            return False
        self._state["bytes"] += len(line.encode())
        self.sink(line)
        return True


def _line(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":"), allow_nan=False) + "\n"


def changes(before: model.ControllerView | None, world: model.World) -> Iterator[Record]:
    """Yield who came and who left between two looks; nothing of a look that showed nothing."""
    view = world.controller
    if not view.synced:
        return
    waiting = {item.id: item for item in before.items} if before is not None else {}
    here = {item.id: item for item in view.items}
    for number, item in here.items():
        if number not in waiting:
            label = world.ledger.labels.get(number)
            yield Arrival(
                at=world.now,
                item=number,
                label=label.expression if label is not None else item.label_expression,
                task=item.task_name,
                since_at=item.in_queue_since_at,
            )
    if view.odd_items:
        return  # whoever is not here may only not have been read
    for number, item in waiting.items():
        if number not in here:
            waited = max(0.0, world.now - item.in_queue_since_at)
            yield Departure(at=world.now, item=number, waited_s=waited)


# --- reading -----------------------------------------------------------------------------------


def read(lines: Iterable[str]) -> Iterator[Record]:
    """Yield the records of a file, a line at a time.

    Raises ``RecordError``: which line, what is wrong with it, what is expected.
    """
    numbered = enumerate(lines, 1)
    first = next(numbered, None)
    if first is None:
        raise RecordError("line 1: the file is empty; expected: a header")
    head = _object(*first)
    if head.get("format") != FORMAT:
        raise RecordError(
            f"line 1: no record of agent-broker; expected: format {quotes.shown(FORMAT)}; "
            "hint: agent-broker record writes one"
        )
    if head.get("version") != VERSION:
        raise RecordError(
            f"line 1: version {quotes.shown(str(head.get('version')), 20)} of the format; "
            f"this program reads version {VERSION}"
        )
    classes = {kind.value: one for one, kind in _KINDS.items()}
    for number, line in numbered:
        raw = _object(number, line)
        one = classes.get(str(raw.pop("kind", None)))
        if one is None:
            continue  # a later release may tell more
        try:
            yield _converter().structure(raw, one)
        except (cattrs.BaseValidationError, ValueError, TypeError, KeyError) as error:
            first_error = cattrs.transform_error(error)[:1]
            words = first_error[0] if first_error else str(error)
            raise RecordError(f"line {number}: {words[:200]}") from error


def _object(number: int, line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"line {number}: {odd_json.words(error)}") from None
    if not isinstance(parsed, dict):
        raise RecordError(f"line {number}: expected: a JSON object")
    return parsed


# --- how values are written --------------------------------------------------------------------


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(
        omit_if_default=True, unstruct_collection_overrides={frozenset: sorted}
    )
    configure_tagged_union(model.Action, converter, tag_name="action")
    for one in (model.BackoffKey,):  # a key that is no text: as pairs
        converter.register_unstructure_hook_func(
            functools.partial(_has_key, one), lambda told: _pairs(converter, told)
        )
        converter.register_structure_hook_func(
            functools.partial(_has_key, one), lambda told, kind: _from_pairs(converter, told, kind)
        )
    converter.register_structure_hook_func(
        lambda kind: kind == model.Cause | model.Failure, lambda told, _: _cause_of(told)
    )
    converter.register_unstructure_hook(  # as of a launch: secrets may stand there
        model.CheckCommand,
        cattrs.gen.make_dict_unstructure_fn(
            model.CheckCommand,
            converter,
            _cattrs_omit_if_default=True,
            argv=cattrs.override(omit=True),
        ),
    )
    converter.register_unstructure_hook(
        model.Template,
        cattrs.gen.make_dict_unstructure_fn(
            model.Template,
            converter,
            _cattrs_omit_if_default=True,
            launch=cattrs.override(omit=True),
        ),
    )
    converter.register_structure_hook(
        model.Template,
        cattrs.gen.make_dict_structure_fn(
            model.Template, converter, launch=cattrs.override(omit=True)
        ),
    )
    return converter


def _cause_of(slug: Any) -> model.Cause | model.Failure:
    """Return whatever of both is meant: no slug is one of both."""
    causes: tuple[model.Cause | model.Failure, ...] = (*model.Cause, *model.Failure)
    for one in causes:
        if one.slug == slug:
            return one
    raise ValueError(f"found {quotes.shown(str(slug))}; allowed: the slug of a cause or a failure")


def _has_key(key: type, kind: Any) -> bool:
    return get_origin(kind) is not None and getattr(kind, "__args__", (None,))[0] is key


def _pairs(made: cattrs.Converter, told: Mapping[Any, Any]) -> list[Any]:
    return [[made.unstructure(key), made.unstructure(value)] for key, value in told.items()]


def _from_pairs(made: cattrs.Converter, told: Any, kind: Any) -> dict[Any, Any]:
    key, value = kind.__args__
    return {made.structure(k, key): made.structure(v, value) for k, v in told}


# --- names -------------------------------------------------------------------------------------

_NO_JOB = "/"
"""No job's name: a template that is only for this one is for none."""
_SEGMENT = re.compile(r"(?:(?<=/)|^)(?:job|view|user)/[^/]+")


def disguised(record: Record) -> Record:
    """Return a record without the names of jobs and people; alike stay alike."""
    match record:
        case RecordedWorld():
            world = _disguised_world(record.world)
            policy = _disguised_policy(record.policy, record.world, world)
            return attrs.evolve(record, world=world, policy=policy)
        case Arrival():
            return attrs.evolve(record, task=_hashed(record.task))
        case _:
            return record


def _disguised_world(world: model.World) -> model.World:
    view = world.controller
    items = tuple(
        attrs.evolve(
            item,
            task_name=_hashed(item.task_name),
            task_url=_hidden(item.task_url),
            # of a blocked item it names builds, and nothing is decided on it
            why="" if item.stage is model.Stage.BLOCKED else item.why,
        )
        for item in view.items
    )
    computers = tuple(_disguised_computer(one) for one in view.computers)
    memories = {
        name: attrs.evolve(one, executable_urls=tuple(map(_hidden, one.executable_urls)))
        for name, one in world.ledger.memories.items()
    }
    return attrs.evolve(
        world,
        controller=attrs.evolve(view, items=items, computers=computers),
        ledger=attrs.evolve(world.ledger, memories=memories, departed={}),
    )


def _disguised_policy(
    policy: model.Policy, world: model.World, disguised_world: model.World
) -> model.Policy:
    """Have each template be for the same items by their other names, and for no more."""
    pairs = list(zip(world.controller.items, disguised_world.controller.items, strict=True))

    def disguised_template(template: model.Template) -> model.Template:
        served = {
            jobs.name_of(other.task_url)
            for item, other in pairs
            if jobs.is_for(template, jobs.name_of(item.task_url))
        }
        return attrs.evolve(template, only_for=(*sorted(served), _NO_JOB), not_for=())

    return attrs.evolve(
        policy,
        templates=tuple(disguised_template(t) if t.restricted else t for t in policy.templates),
        standing=tuple(
            attrs.evolve(one, who=_hashed(one.who), note=_hashed(one.note))
            for one in policy.standing
        ),
    )


def _disguised_computer(one: model.Computer) -> model.Computer:
    is_ours = one.offline_cause.startswith(model.CORDON_MARK)
    return attrs.evolve(
        one,
        executable_urls=tuple(map(_hidden, one.executable_urls)),
        offline_by=_hashed(one.offline_by),
        offline_cause=one.offline_cause if is_ours else _hashed(one.offline_cause),
    )


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12] if text else ""


def _hidden(url: str) -> str:
    """Return an address whose job names are hashed, one by one: a part of a job stays a part."""

    def hidden(found: re.Match[str]) -> str:
        kind, _, name = found[0].partition("/")
        return f"{kind}/{_hashed(name)}"

    return _SEGMENT.sub(hidden, url)
