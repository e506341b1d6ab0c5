"""What a probe of life is told: dead only where a restart can help, in words whatever else."""

import asyncio
import types

import attrs
import pytest

from broker import app
from broker.core import model
from broker.loop import health

A, B = model.BackendName("a"), model.BackendName("b")
GOOD = model.BackendView(synced=True, read_at=1.0)
BAD = model.BackendView(read_at=1.0, error="unavailable: away")


def world(now, *, controller="", **backends):
    view = model.ControllerView(synced=not controller, error=controller)
    views = {model.BackendName(name): one for name, one in backends.items()}
    return model.World(now=now, controller=view, backends=views, ledger=model.Ledger())


def lived(*worlds):
    since = {}
    for one in worlds:
        since = health.since(since, one)
    return since


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (world(1000, controller="unreachable: no", a=GOOD), "controller not read for 10 min"),
        (world(1000, a=BAD, b=BAD), "backend a not read for 10 min: unavailable: away; backend b"),
        (world(1000, a=BAD, b=GOOD), ""),  # the other one serves
        (world(1000, a=GOOD), ""),
    ],
)
def test_it_is_said_when_nothing_can_be_done_for_long(one, words):
    """With each source that is away, since when, and why."""
    since = lived(attrs.evolve(one, now=400.0), one)
    told = health.idle_words(one, since, now=1000.0)
    assert told.startswith(words)
    assert bool(told) == bool(words)
    assert health.idle_words(one, lived(one), now=1000.0 + health.LONG_S - 1) == ""


def test_what_came_back_begins_anew():
    """A source that answers now and then is not away for long."""
    away, back = world(100.0, a=BAD), world(200.0, a=GOOD)
    since = lived(away, back, world(300.0, a=BAD))
    assert since == {"backend a": 300.0}


def test_readiness_names_every_source_that_is_away():
    """A person looks at one line, and has several to call."""
    missing = health.unread(world(1.0, controller="unauthorized: no", a=BAD, b=GOOD))
    assert missing == {"controller": "unauthorized: no", "backend a": "unavailable: away"}


@pytest.mark.looptime
async def test_a_bug_in_every_look_is_dead_and_a_controller_that_is_away_is_not():
    """What a restart can help is told from what it cannot."""
    from tests.loop.daemons import Daemon

    def alive(made):
        return app.Broker.alive(
            types.SimpleNamespace(
                watch=made.watch,
                reconciler=made.loop,
                world=made.loop.state.world,
                settings=types.SimpleNamespace(poll=types.SimpleNamespace(idle_s=5.0)),
            )
        )

    async with Daemon() as made:
        await asyncio.sleep(20)
        assert alive(made) == (True, "ok")
        made.controller.down = True
        await asyncio.sleep(health.LONG_S + 60)
        good, words = alive(made)
        assert (good, words.startswith("the loop turns, but can do nothing: controller")) == (
            True,
            True,
        ), words
        made.controller.down = False
        await asyncio.sleep(20)
        assert alive(made) == (True, "ok")
        made.controller.broken.add("read")
        await asyncio.sleep(health.LONG_S - 60)
        assert alive(made)[0]
        await asyncio.sleep(120)
        good, words = alive(made)
        assert (good, "failed by a bug" in words) == (False, True)
        made.controller.broken.clear()
        await asyncio.sleep(20)
        assert alive(made) == (True, "ok")
