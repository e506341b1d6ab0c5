"""How long the loop is held while many agents are removed at once.

Run: ``python -m benchmarks.removal_hold [AGENTS] [ITEMS]``. The product's loop and executor, with
a controller and a platform in memory that answer each call after 1 to 5 ms. All agents have been
idle for too long, the items wait for what nobody serves. Beside them a task that asks for nothing
but its next turn: the processor time between two of its turns is how long the loop was held. The
first look after a start, which joins every agent anew, is told apart from the removals. "As if
quiet" is as in ``plan_scale``.
"""

import argparse
import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator

import attrs

from backends import api as backends_api
from benchmarks import plan_scale as worlds
from broker import clock, metrics
from broker.core import model
from broker.loop import execute, reconcile
from jnlp import secret as jnlp_secret
from jnlp import state as jnlp_state
from outside import waits

_LIMIT_MS = 50.0


class Site:
    """Controller and platform: what there is, and what is done to it."""

    kind = "memory"

    def __init__(self, wanted: model.Policy, agents: int, items: int) -> None:
        """Agents of the templates of ``wanted``."""
        self._dice = random.Random(1)  # noqa: S311 -- of a benchmark
        case = worlds.Case(name="", items=items, agents=agents, labels=20)
        controller, view = worlds.views(case, wanted)
        self._controller = attrs.evolve(
            controller,
            items=tuple(
                attrs.evolve(item, label_expression="nobody", why="") for item in controller.items
            ),
        )
        self.computers = {computer.name: computer for computer in controller.computers}
        self.instances = {instance.name: instance for instance in view.instances}

    async def _answer(self) -> None:
        await asyncio.sleep(self._dice.uniform(0.001, 0.005))

    async def read_all(self, now: object, *, to_order: bool = False) -> model.ControllerView:
        """Answer a look: what is there, and new objects of it."""
        del now, to_order
        await self._answer()
        return attrs.evolve(self._controller, computers=tuple(self.computers.values()))

    async def watch(self) -> AsyncIterator[None]:
        """Tell nothing: looks do."""
        await asyncio.get_running_loop().create_future()
        yield

    async def list(self) -> list[backends_api.Instance]:
        """Return what runs."""
        await self._answer()
        return list(self.instances.values())

    async def capacity(self) -> None:
        """Tell nothing."""

    async def logs(self, name: str, *, tail: int) -> str:
        """Return the output."""
        del name, tail
        await self._answer()
        return "one line\n" * 20

    async def terminate(self, name: str, *, grace_s: float) -> None:
        """Remove an instance."""
        del grace_s
        await self._answer()
        self.instances.pop(name)

    async def read(self, name: str) -> jnlp_state.NodeState:
        """Return the state of a node."""
        await self._answer()
        computer = self.computers.get(model.NodeName(name))
        if computer is None:
            return jnlp_state.NodeState(exists=False)
        return jnlp_state.NodeState(
            exists=True, name=name, idle=True, temporarily_offline=computer.temporarily_offline
        )

    async def cordon(self, name: str, message: str) -> None:
        """Take a node out of service."""
        await self._answer()
        key = model.NodeName(name)
        self.computers[key] = attrs.evolve(
            self.computers[key], temporarily_offline=True, offline_cause=message
        )

    async def delete(self, name: str) -> None:
        """Delete a node."""
        await self._answer()
        self.computers.pop(model.NodeName(name))

    async def secret(self, name: str) -> jnlp_secret.Secret:
        """Nothing is launched here."""
        raise NotImplementedError(name)


class _Reader:
    def __init__(self, site: Site) -> None:
        self.read = site.read_all


@attrs.frozen
class Took:
    """The longest times that the loop was held, and how long everything took; in ms."""

    first_look: float
    removals: float
    all: float


async def removed(agents: int, items: int) -> Took:
    """Let the loop remove all agents."""
    wanted = worlds.policy()
    wanted = attrs.evolve(
        wanted,
        templates=tuple(
            attrs.evolve(t, min_idle=0, retention=model.Retention(idle_s=0.5))
            for t in wanted.templates
        ),
        placeholder=False,
        resume_grace_s=0.0,
    )
    site = Site(wanted, agents, items)
    watch = clock.Clock(wall=time.time, monotonic=time.monotonic)  # noqa: TID251 -- as the shell
    loop: reconcile.Reconciler
    backends = dict.fromkeys(wanted.backends, site)
    executor = execute.Executor(
        nodes=site,
        backends=backends,
        order=lambda _: NotImplemented,
        look=lambda: loop.look(),  # noqa: PLW0108 -- it is made below
        retires_by_offline=lambda: True,
        now=watch.now,
        before_end=lambda action: loop.before_end(action),  # noqa: PLW0108 -- as above
    )
    loop = reconcile.Reconciler(
        reader=_Reader(site),
        backends=backends,
        executor=executor,
        place=None,
        policy=lambda: wanted,
        recorder=metrics.PrometheusRecorder(wanted, version="0"),
        watch=watch,
        roll=lambda: 0.5,
        new_id=lambda: "x",
    )
    first_look = removals = 0.0
    began = time.monotonic()
    async with waits.TaskGroup() as group:
        life = group.create_task(loop.run(), name="life")
        while site.computers or site.instances:
            is_first = loop.state.plan is None
            before = time.thread_time()
            await asyncio.sleep(0)
            held = (time.thread_time() - before) * 1000
            if is_first:
                first_look = max(first_look, held)
            else:
                removals = max(removals, held)
        loop.stop()
        await life
    return Took(first_look, removals, (time.monotonic() - began) * 1000)


def main() -> None:
    """Print the longest times of each round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agents", type=int, nargs="?", default=1000)
    parser.add_argument("items", type=int, nargs="?", default=500)
    parser.add_argument("--rounds", type=int, default=5)
    told = parser.parse_args()
    gc.collect()
    gc.freeze()  # as the broker does when it has started
    print(f"{told.agents} agents removed, {told.items} items waiting; allowed {_LIMIT_MS:.0f} ms")
    print(
        "| held by the removals, ms | as if quiet | by the first look, ms | as if quiet | all, s |"
    )
    print("|---|---|---|---|---|")
    for _ in range(told.rounds):
        before = worlds.yardstick_ms()
        took = asyncio.run(removed(told.agents, told.items))
        quiet = worlds.YARDSTICK_MS * 2 / (before + worlds.yardstick_ms())
        print(
            f"| {took.removals:.0f} | {took.removals * quiet:.0f} | {took.first_look:.0f} "
            f"| {took.first_look * quiet:.0f} | {took.all / 1000:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
