"""``record`` writes what is seen to a file; ``plan --world`` decides on such a file anew.

Both only read. Refuses to know how a record is written: that is ``broker.recording``'s.
"""

import asyncio
import os
import pathlib
import sys
from collections.abc import Callable

import attrs

import broker
from broker import app, clock, config, exits, recording
from broker.cli import single_look
from broker.core import model
from broker.core.decide import plan as plans
from broker.loop import state
from broker.status import documents, terminal
from outside import counts, files


def replayed(path: pathlib.Path, *, number: int | None) -> dict[str, documents.Document]:
    """Plan on a world of a file: the last one, or the one of a number, from 1.

    Return the documents that a running broker would give. Raises BadInput.
    """
    worlds = [one for one in records(path) if isinstance(one, recording.RecordedWorld)]
    if not worlds:
        raise exits.BadInput(f"{path}: holds no world; hint: agent-broker record writes some")
    if number is not None and not 1 <= number <= len(worlds):
        raise exits.BadInput(
            f"{path}: no world {number}; it holds {counts.told(len(worlds), 'world')}"
        )
    one = worlds[-1 if number is None else number - 1]
    seen = single_look.Looked(
        policy=one.policy,
        world=one.world,
        plan=plans.plan(one.world, one.policy),
        fingerprint="",
        at=one.world.now,
        version=broker.__version__,
    )
    made_of = {"plan": documents.plan, "queue": documents.queue, "agents": documents.agents}
    return {name: make(seen) for name, make in made_of.items()}


def records(path: pathlib.Path) -> list[recording.Record]:
    """Read a whole file. Raises BadInput, which names file and line."""
    try:
        text = files.read(path, limit=2 * recording.LIMIT_BYTES).decode()
        return list(recording.read(text.splitlines()))
    except recording.RecordError as error:
        line, _, words = str(error).removeprefix("line ").partition(": ")
        raise exits.BadInput(f"{path}:{line}: {words}") from error
    except UnicodeDecodeError:
        raise exits.BadInput(f"{path}: not UTF-8 text") from None
    except OSError as error:
        raise exits.BadInput(f"{path}: {error.strerror or error}") from error


async def record(
    settings: config.Settings,
    path: pathlib.Path,
    *,
    seconds: float | None,
    every_s: float,
    with_names: bool,
) -> None:
    """Look again and again and write what is seen, until the time is over or Ctrl-C.

    The file is new and only its owner's. Raises BadInput, Failed.
    """
    watch = clock.Clock()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise exits.Refused(f"{path} exists; hint: name another file") from None
    except OSError as error:
        raise exits.BadInput(f"{path}: {error.strerror}") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        writer = recording.Writer(file.write, with_names=with_names)
        writer.begin(at=watch.now())
        async with single_look.built(settings, watch, reads_only=True) as made:
            await _follow(made, watch, writer, file.flush, seconds=seconds, every_s=every_s)


async def _follow(
    made: app.Broker,
    watch: clock.Clock,
    writer: recording.Writer,
    flush: Callable[[], None],
    *,
    seconds: float | None,
    every_s: float,
) -> None:
    after, looks = state.State.fresh(), 0
    seen: model.ControllerView | None = None
    until = None if seconds is None else watch.now() + seconds
    while True:
        before, policy = after, made.policy
        after = await single_look.look(made, watch, before, policy)
        if after.world is None:
            raise AssertionError(after)
        world = attrs.evolve(after.world, ledger=before.ledger)  # what the plan was made of
        looks += 1
        one_world = recording.RecordedWorld(at=world.now, world=world, policy=policy)
        for one in (*recording.changes(seen, after.world), one_world):
            if not writer.add(one):
                raise exits.Failed("the file is full; what it holds can be used")
        flush()
        seen = world.controller if world.controller.synced else seen
        _say(looks, world)
        if until is not None and watch.now() >= until:
            return
        await asyncio.sleep(every_s)


def _say(looks: int, world: model.World) -> None:
    items = counts.told(len(world.controller.items), "item")
    words = f"{items} in the queue" if world.controller.synced else world.controller.error
    print(terminal.plain(f"{counts.told(looks, 'look')}, {words}"), file=sys.stderr)
