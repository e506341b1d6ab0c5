"""Who is told which agents are idle, and when: on changes, a call at a time, whatever is refused."""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Any

import attrs
import pytest

from backends import api
from broker.core import model
from broker.core.fleet import idleness as rule
from broker.core.model import Phase
from broker.loop import idleness
from outside import waits
from tests import patience
from tests.core.worlds import B, Scene, template
from tests.each import each
from tests.loop import daemons

NOW = 1000.0


def agents(*phases: Phase, idle_s: float = 120.0) -> list[model.Agent]:
    """Agents in these phases, as a plan shows them; the idle ones for so long."""
    return [
        model.Agent(
            name=model.NodeName(f"a{number}"),
            phase=phase,
            backend=model.BackendName(B),
            instance=api.Instance(name=f"a{number}", state=api.InstanceState.RUNNING),
            memory=model.Memory(first_seen_at=0.0, idle_at=NOW - idle_s),
        )
        for number, phase in enumerate(phases)
    ]


@each("phase", Phase)
def test_only_who_is_idle_is_idle(phase: Phase) -> None:
    """Every other phase may have a build, or get one at once."""
    told = rule.idle(agents(phase), now=NOW)
    assert ({B: {"a0"}} if phase is Phase.IDLE else {}) == told


@pytest.mark.parametrize(("idle_s", "idle"), [(59.9, {}), (60.0, {B: {"a0"}})])
def test_a_pause_between_two_builds_is_none(idle_s: float, idle: dict[str, set[str]]) -> None:
    """An agent rests when it has been idle for a minute."""
    assert idle == rule.idle(agents(Phase.IDLE, idle_s=idle_s), now=NOW)


def test_a_scene_of_the_core_is_judged() -> None:
    """By the agents of a plan: the one at work is not idle."""
    from broker.core.decide import plan as plans

    scene = Scene(template("t", min_idle=2))
    rests = scene.agent("t", Phase.IDLE, idle_s=300, age_s=400)
    scene.agent("t", Phase.BUSY, age_s=400)
    world = scene.world()
    plan = plans.plan(world, scene.policy)
    assert {B: {rests}} == rule.idle(plan.agents, now=world.now + rule.IDLE_S)


class Platform:
    """A backend that is told who is idle, as a test has it answer."""

    kind = "test"

    def __init__(self) -> None:
        self.told: list[set[str]] = []
        self.answers: list[bool | Exception] = []
        self.held = asyncio.Event()
        self.held.set()

    async def tell_idle(self, names: Collection[str]) -> bool:
        self.told.append(set(names))
        await self.held.wait()
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


@attrs.define
class Telling:
    """The telling, with a clock that a test turns."""

    platform: Platform = attrs.field(factory=Platform)
    now: float = NOW
    bugs: list[str] = attrs.field(factory=list)
    under: Any = None

    def __attrs_post_init__(self) -> None:
        self.under = idleness.Telling(
            backends={model.BackendName(B): self.platform},
            now=lambda: self.now,
            time_limit_s=5.0,
            outlived=self._outlived,
        )

    @contextlib.contextmanager
    def _outlived(self, what: str):
        try:
            yield
        except Exception as error:
            self.bugs.append(f"{what}: {error}")

    async def look(self, *phases: Phase, later_s: float = 10.0) -> None:
        """Look so much later, and wait for what is told then."""
        self.now += later_s
        async with patience.limit(5), waits.TaskGroup() as group:
            self.under.begin(agents(*phases), group)


async def test_told_once_for_each_change() -> None:
    """At the first look too, when nobody is idle: an earlier broker may have said otherwise."""
    telling = Telling()
    for phases in ([Phase.BUSY], [Phase.BUSY], [Phase.IDLE], [Phase.IDLE], [Phase.BUSY]):
        await telling.look(*phases)
    assert [set(), {"a0"}, set()] == telling.platform.told
    telling.under.forget()
    await telling.look(Phase.BUSY)
    assert [set(), {"a0"}, set(), set()] == telling.platform.told


async def test_what_is_not_done_is_told_again_after_a_pause() -> None:
    """A platform makes a few changes at a time."""
    telling = Telling()
    telling.platform.answers = [False, True]
    await telling.look(Phase.IDLE)
    await telling.look(Phase.IDLE, later_s=1.0)
    await telling.look(Phase.IDLE, later_s=1.0)
    await telling.look(Phase.IDLE)
    assert [{"a0"}, {"a0"}] == telling.platform.told


@pytest.mark.parametrize(
    ("error", "bugs"),
    [
        (api.Unauthorized("no right to patch"), []),
        (TimeoutError(), []),
        (KeyError("x"), ["telling who is idle: 'x'"]),
    ],
)
async def test_a_refusal_harms_nobody(error: Exception, bugs: list[str]) -> None:
    """And is no reason to ask again before a minute is over."""
    telling = Telling()
    telling.platform.answers = [error]
    await telling.look(Phase.IDLE)
    await telling.look(Phase.IDLE, later_s=59.0)
    assert [{"a0"}] == telling.platform.told
    await telling.look(Phase.IDLE, later_s=1.0)
    assert ([{"a0"}, {"a0"}], bugs) == (telling.platform.told, telling.bugs)


async def test_one_call_at_a_time() -> None:
    """One that hangs is waited for, and cut when the loop ends."""
    telling = Telling()
    telling.platform.held.clear()
    async with patience.limit(5), waits.TaskGroup() as group:
        telling.under.begin(agents(Phase.IDLE), group)
        await asyncio.sleep(0)
        telling.now += 100.0
        telling.under.begin(agents(Phase.BUSY), group)
        await asyncio.sleep(0)
        telling.under.stop()
    assert [{"a0"}] == telling.platform.told


async def test_a_backend_that_cannot_be_told_is_left_alone() -> None:
    """Nothing is asked of it."""
    telling = Telling()
    telling.under.backends = {model.BackendName(B): object()}
    await telling.look(Phase.IDLE)
    assert [] == telling.bugs


@pytest.mark.looptime
@pytest.mark.parametrize("leads", [True, False])
async def test_the_loop_tells_what_it_sees(leads: bool) -> None:
    """Idle after a minute, at work as soon as it is seen to be; a standby tells nobody anything."""
    async with daemons.Daemon(daemons.template(min_idle=1)) as made:
        told: list[set[str]] = []

        async def tell(names: Collection[str]) -> bool:
            told.append(set(names))
            return True

        made.backends[daemons.LOCAL].tell_idle = tell
        made.loop.leads = lambda: leads
        await asyncio.sleep(200)
        (agent,) = made.instances or {""}
        assert ([set(), {agent}] if leads else []) == told
        made.submit(duration_s=100.0)
        await asyncio.sleep(20)
        assert ([set(), {agent}, set()] if leads else []) == told[:3]
