"""``record`` writes what is seen to a file; ``plan --world`` decides on such a file anew.

Both only read. Refuses to know how a record is written: that is ``broker.recording``'s.
"""

import asyncio
import pathlib
from collections.abc import Callable, Iterator

import attrs

from broker import app, clock, config, exits, recording, signals
from broker.cli import shared, single_look
from broker.core import model
from broker.core.decide import plan as plans
from broker.loop import state
from broker.status import documents
from outside import counts, files, waits


def replayed(path: pathlib.Path, *, number: int | None) -> dict[str, documents.Document]:
    """Plan on a world of a file: the last one, or the one of a number, from 1.

    Return the documents that a running broker would give. Raises BadInput.
    """
    one, count = None, 0
    for record in records(path):
        if isinstance(record, recording.RecordedWorld):
            count += 1
            one = record if number in {None, count} else one
    if not count:
        raise exits.BadInput(f"{path}: holds no world; hint: agent-broker record writes some")
    if one is None:
        raise exits.BadInput(f"{path}: no world {number}; it holds {counts.told(count, 'world')}")
    looked = single_look.Looked(
        policy=one.policy,
        world=one.world,
        plan=plans.plan(one.world, one.policy),
        fingerprint="",
        at=one.world.now,
    )
    made_of = {"plan": documents.plan, "queue": documents.queue, "agents": documents.agents}
    return {name: make(looked) for name, make in made_of.items()}


def records(path: pathlib.Path) -> Iterator[recording.Record]:
    """Read a file line by line. Raises BadInput, which names file and line."""
    try:
        yield from recording.read(_whole_lines(path))
    except recording.RecordError as error:
        line, _, words = str(error).removeprefix("line ").partition(": ")
        raise exits.BadInput(f"{path}:{line}: {words}") from error
    except UnicodeDecodeError:
        raise exits.BadInput(f"{path}: not UTF-8 text") from None
    except FileNotFoundError:
        raise exits.BadInput(
            f"{path}: there is no such file; hint: agent-broker record writes one"
        ) from None
    except OSError as error:
        raise exits.BadInput(f"{path}: cannot be read: {error.strerror or error}") from error


def _whole_lines(path: pathlib.Path) -> Iterator[str]:
    """Leave out a last line without an end: it is still being written, or was cut off."""
    for number, line in enumerate(files.lines(path, limit=2 * recording.LIMIT_BYTES)):
        if number == 0 or line.endswith(b"\n"):
            yield line.decode()


async def record(
    settings: config.Settings,
    path: pathlib.Path,
    *,
    seconds: float | None,
    every_s: float,
    with_names: bool,
) -> None:
    """Look again and again and write what is seen, until the time is over or a signal comes.

    The file is new and only its owner's. Raises BadInput, Refused, and Failed if it is full.
    """
    watch = clock.Clock()
    with signals.awaited() as asked:
        async with single_look.built(settings, watch, reads_only=True) as broker:
            with shared.new_file(path, mode=0o600) as file:
                writer = recording.Writer(file.write, with_names=with_names)
                writer.begin(at=watch.now())
                if seconds is None:
                    shared.note(f"recording to {path}; Ctrl-C ends it")
                async with waits.TaskGroup() as group:
                    following = group.create_task(
                        _follow(
                            broker, watch, writer, file.flush, seconds=seconds, every_s=every_s
                        ),
                        name="record",
                    )
                    ending = group.create_task(_end(following, asked), name="signal")
                    await asyncio.wait({following})
                    ending.cancel()
    shared.note(f"{path} is complete")


async def _end(following: asyncio.Task[None], asked: asyncio.Event) -> None:
    """End a recording when a signal comes: each line that was written is a whole one."""
    await asked.wait()
    following.cancel()


async def _follow(
    broker: app.Broker,
    watch: clock.Clock,
    writer: recording.Writer,
    flush: Callable[[], None],
    *,
    seconds: float | None,
    every_s: float,
) -> None:
    after, looks = state.State.fresh(), 0
    last_view: model.ControllerView | None = None
    until = None if seconds is None else watch.now() + seconds
    while True:
        before, policy = after, broker.policy
        after = await single_look.look(broker, watch, before, policy)  # failed or not
        if after.world is None:
            raise AssertionError(after)
        world = attrs.evolve(after.world, ledger=before.ledger)  # what the plan was made of
        looks += 1
        one_world = recording.RecordedWorld(at=world.now, world=world, policy=policy)
        try:
            for one in (*recording.changes(last_view, after.world), one_world):
                if not writer.add(one):
                    raise exits.Failed("the file is full; what it holds can be used")
            flush()
        except OSError as error:
            raise exits.Failed(f"the file cannot be written: {error.strerror or error}") from error
        last_view = world.controller if world.controller.synced else last_view
        _say(looks, world)
        if until is not None and watch.now() >= until:
            return
        await asyncio.sleep(every_s)


def _say(looks: int, world: model.World) -> None:
    items = counts.told(len(world.controller.items), "item")
    words = f"{items} in the queue" if world.controller.synced else world.controller.error
    shared.note(
        "; ".join([f"{counts.told(looks, 'look')}: {words}", *single_look.troubles(world)])
    )
