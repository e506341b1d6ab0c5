"""A failure of the loop leaves a file from which it can be shown again."""

import asyncio

import attrs
import pytest

from broker import recording
from broker.core import model
from broker.loop import black_box, turn
from outside import secrets
from tests.core import worlds
from tests.loop.daemons import Daemon

pytestmark = pytest.mark.looptime


class Files(dict):
    """A store whose disk may be full."""

    full = False

    def save(self, key, text):
        if self.full:
            raise OSError(28, "No space left on device")
        self[key] = text


async def test_a_bug_leaves_the_world_it_came_from(monkeypatch):
    """With how the last orders ended; and the loop goes on, whether it could be written or not."""
    files = Files()
    real = turn.plans.plan

    def broken(world, policy, last=None):
        if len(world.controller.items) == 3:
            raise KeyError("three is too much")
        return real(world, policy, last)

    async with Daemon() as made:
        made.loop.box = black_box.BlackBox(save=files.save)
        made.submit(duration_s=1.0)
        await asyncio.sleep(5)
        assert {} == files
        monkeypatch.setattr(turn.plans, "plan", broken)
        for _ in range(3):
            made.submit("nobody-serves-it", duration_s=1.0)
        await asyncio.sleep(3)
        looks = len(made.controller.reads)
        files.full = True
        await asyncio.sleep(100)
        assert len(made.controller.reads) > looks
    (key,) = files
    assert key == "failure-bug.jsonl"
    note, world, *outcomes = recording.read(files[key].splitlines())
    assert "three is too much" in note.text
    assert 3 == len(world.world.controller.items)
    assert [False] * len(outcomes) == [bool(one.outcome.failure) for one in outcomes]
    assert outcomes
    with pytest.raises(KeyError, match="three is too much"):
        broken(world.world, world.policy)


async def test_an_illegal_phase_and_an_overshoot_are_kept(monkeypatch):
    """What the rules forbid to themselves, once a minute at most."""
    files = Files()
    real = turn.plans.plan

    def odd(world, policy, last):
        return attrs.evolve(
            real(world, policy, last), illegal=((model.Phase.GONE, model.Phase.IDLE),), overshoot=2
        )

    monkeypatch.setattr(turn.plans, "plan", odd)
    async with Daemon() as made:
        made.loop.box = black_box.BlackBox(save=files.save)
        await asyncio.sleep(30)
    assert {"failure-phase.jsonl", "failure-overshoot.jsonl"} == set(files)
    words = [next(recording.read(text.splitlines())).text for text in files.values()]
    assert "2 launches beyond what was wanted, and taken back" in words


def test_once_a_minute_at_most():
    """A loop that fails at every look does not write all day."""
    written = []
    box = black_box.BlackBox(save=lambda key, text: written.append(key))
    scene = worlds.Scene(worlds.template("t"))
    for second in range(130):
        world = attrs.evolve(scene.world(), now=worlds.NOW + second)
        box.keep(black_box.Breakdown.BUG, "x", world, scene.policy)
    assert 3 == len(written)


def test_no_secret_that_a_bug_quotes_is_kept():
    """The words of an exception may hold whatever it was raised over."""
    written = []
    secrets.register("hunter2-hunter2")
    box = black_box.BlackBox(save=lambda key, text: written.append(text))
    scene = worlds.Scene(worlds.template("t"))
    box.keep(black_box.Breakdown.BUG, "KeyError('hunter2-hunter2')", scene.world(), scene.policy)
    (text,) = written
    assert "KeyError" in text
    assert "hunter2" not in text
