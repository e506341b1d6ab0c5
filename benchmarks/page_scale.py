"""What a look at a large broker costs: the page, the JSON documents, a scrape.

Run: ``python -m benchmarks.page_scale [--rounds N]``. 5000 agents and 10,000 waiting items on
twenty templates, as ``plan_scale`` has them. Median and largest processor time in which an answer
holds the loop, and its size. A scrape is a recount after a look and the text of it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import attrs

from benchmarks import plan_scale as worlds
from broker import metrics
from broker.core import model
from broker.core.decide import plan as plans
from broker.core.fleet import death, ledger
from broker.leading import leadership as standing
from broker.status import documents, page

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
    outcomes: Sequence[ledger.Outcome] = ()
    deaths: Sequence[death.Death] = ()
    leadership: standing.LeadershipState = attrs.Factory(standing.LeadershipState)

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


def _document(make: Callable[..., documents.Document], shown: Source) -> str:
    return json.dumps(make(shown), ensure_ascii=False, allow_nan=False)


def answers(shown: Source) -> dict[str, Callable[[], str | bytes]]:
    """Return what makes each answer."""
    recorder = metrics.PrometheusRecorder(shown.policy, version="0")

    def scrape() -> bytes:
        recorder.cycle(shown.world, shown.plan, 0.0)
        return recorder.render()[0]

    made = (documents.queue, documents.agents, documents.templates, documents.plan)
    return {
        "page": lambda: page.render(shown),
        "a scrape": scrape,
        **{f"{one.__name__} as JSON": lambda one=one: _document(one, shown) for one in made},
    }


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print("| answer | items | agents | median ms | most ms | kB |")
    print("|---|---|---|---|---|---|")
    for case in _CASES:
        for name, make in answers(source(case)).items():
            took, size = [], 0
            for _ in range(rounds):
                began = time.process_time()
                size = len(make())
                took.append((time.process_time() - began) * 1000)
            print(
                f"| {name} | {case.items} | {case.agents} | {statistics.median(took):.1f} "
                f"| {max(took):.1f} | {size / 1000:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
