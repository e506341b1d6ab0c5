"""What ``sweep --yes`` says while a removal lasts: who, or what, it waits for."""

import asyncio

import attrs
import pytest

from backends import api
from broker.cli import single_look
from broker.core import model
from broker.core.model import BackendName, NodeName
from tests import patience

NAME, B = NodeName("o-t-aaaaaa"), BackendName("pods")
SWEEP = model.SweepInstance(name=NAME, backend=B, reason="it has no node", cause=model.Cause.SWEPT)
HELD = api.Instance(
    name=NAME, state=api.InstanceState.STOPPING, leaving_at=100.0,
    detail="held by finalizer example.com/hold",
)  # fmt: skip


@attrs.define
class Platform:
    answer: object

    async def list(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return self.answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([HELD], f"sweep {NAME} on pods: leaving for 30 s: held by finalizer example.com/hold"),
        ([], f"sweep {NAME} on pods"),
        ([attrs.evolve(HELD, name="other")], f"sweep {NAME} on pods"),
        (
            [attrs.evolve(HELD, leaving_at=None, detail="its agent s3 is unreachable")],
            f"sweep {NAME} on pods: its agent s3 is unreachable",
        ),
        (api.Unavailable("refused"), f"sweep {NAME} on pods: backend pods: refused"),
        (None, f"sweep {NAME} on pods: backend pods: no answer yet"),
    ],
)
async def test_the_platform_is_asked_what_holds_it_up(answer, words):
    """In its words; one that does not answer is what it waits for."""
    async with patience.limit(10):
        told = await single_look.waits_for(SWEEP, {B: Platform(answer)}, now=lambda: 130.0)
    assert words == told


async def test_a_node_waits_for_the_controller_alone():
    """No backend is asked for what is none of its business."""
    action = model.SweepNode(name=NAME, reason="no instance", cause=model.Cause.SWEPT)
    assert f"sweep {NAME}" == await single_look.waits_for(action, {}, now=lambda: 0.0)


async def test_it_is_said_again_and_again_until_the_removal_has_ended(capsys):
    """And nothing is said of one that takes no time."""
    said = asyncio.Event()
    times = 0

    async def words():
        nonlocal times
        times += 1
        if times == 3:
            said.set()
        return "sweep x"

    async def removal():
        await said.wait()
        return "gone"

    async with patience.limit(10):
        assert "gone" == await single_look.aloud(removal(), words, every_s=0.01)
    assert capsys.readouterr().err.startswith("waits for sweep x\n" * 3)

    async def at_once():
        return "gone"

    assert "gone" == await single_look.aloud(at_once(), words, every_s=10.0)
    assert "" == capsys.readouterr().err
