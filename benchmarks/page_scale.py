"""What a look at a large broker costs: the page, the JSON documents, a scrape.

Run: ``python -m benchmarks.page_scale [--rounds N]``. 5000 agents and 10,000 waiting items on
twenty templates, as ``plan_scale`` has them. The processor time for which an answer holds the
loop, between two turns of it (median and most of the rounds); all that it takes; its size. A
scrape is a recount after a look and the text of it.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence

import attrs

from benchmarks import plan_scale as worlds
from broker import config, metrics
from broker.core import model
from broker.core.decide import plan as plans
from broker.core.fleet import death, ledger
from broker.core.fleet import hour as hours
from broker.leading import leadership as standing
from broker.status import documents, page, server
from outside import waits

_CASES = (
    worlds.Case(name="small", items=20, agents=20, labels=20, busy=6),
    worlds.Case(name="large", items=1000, agents=1000, labels=20, busy=6),
    worlds.Case(name="huge", items=10_000, agents=5000, labels=20, busy=6),
)


@attrs.frozen(kw_only=True)
class Source:
    """What a broker shows after a look."""

    policy: model.Policy
    world: model.World
    plan: model.Plan
    version: str = "0"
    fingerprint: str = ""
    as_of: Mapping[str, float] = attrs.Factory(dict)
    unread_since: Mapping[str, float] = attrs.Factory(dict)
    configuration: config.ConfigurationState = attrs.Factory(config.ConfigurationState)
    outcomes: Sequence[ledger.Outcome] = ()
    deaths: Sequence[death.Death] = ()
    leadership: standing.LeadershipState = attrs.Factory(standing.LeadershipState)
    hooked: None = None
    hour: hours.Hour = attrs.Factory(hours.Hour)
    waits: model.WaitBook = attrs.Factory(model.WaitBook)
    last_read: None = None

    def now(self) -> float:
        """Return the time of the look."""
        return self.world.now

    def ready(self) -> tuple[bool, str]:
        """Say that all is well."""
        return True, "ok"

    def alive(self) -> tuple[bool, str]:
        """Say that all is well."""
        return True, "ok"


def source(case: worlds.Case) -> Source:
    """Return a broker that has looked twice."""
    wanted = worlds.policy()
    last = plans.plan(worlds.world(case, wanted, model.Ledger(session="s1")), wanted)
    world = worlds.world(case, wanted, last.ledger)
    return Source(policy=wanted, world=world, plan=plans.plan(world, wanted, last))


async def _at_once(make: Callable[[], str | bytes]) -> int:
    return len(make())


async def _document(make: Callable[[], documents.Document]) -> int:
    answer = await server.json_in_slices(make())
    return len(answer.body) if isinstance(answer.body, bytes) else 0


def answers(shown: Source) -> dict[str, Callable[[], Coroutine[None, None, int]]]:
    """Return what makes each answer."""
    recorder = metrics.PrometheusRecorder(shown.policy, version="0")

    def scrape() -> bytes:
        recorder.cycle(shown.world, shown.plan, 0.0)
        return recorder.render()[0]

    return {
        "page": lambda: _at_once(lambda: page.render(shown)),
        "a scrape": lambda: _at_once(scrape),
        "queue as JSON": lambda: _document(lambda: documents.queue(shown, rows=iter)),
        "agents as JSON": lambda: _document(lambda: documents.agents(shown, rows=iter)),
        "templates as JSON": lambda: _document(lambda: documents.templates(shown)),
        "plan as JSON": lambda: _document(lambda: documents.plan(shown)),
    }


async def held(make: Callable[[], Coroutine[None, None, int]]) -> tuple[float, float, int]:
    """Return the longest time between two turns of the loop, all of them, in ms, and the size."""
    longest, began = 0.0, time.thread_time()
    async with waits.TaskGroup() as group:
        task = group.create_task(make(), name="answer")
        while not task.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)
    return longest * 1000, (time.thread_time() - began) * 1000, task.result()


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print("| answer | items | agents | held ms | most ms | takes ms | kB |")
    print("|---|---|---|---|---|---|---|")
    for case in _CASES:
        for name, make in answers(source(case)).items():
            longest, took, sizes = zip(
                *(asyncio.run(held(make)) for _ in range(rounds)), strict=True
            )
            print(
                f"| {name} | {case.items} | {case.agents} | {statistics.median(longest):.1f} "
                f"| {max(longest):.1f} | {statistics.median(took):.1f} | {sizes[0] / 1000:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
