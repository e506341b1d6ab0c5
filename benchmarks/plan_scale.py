"""What one plan costs: items x agents x distinct labels, and the judgement of many removals.

Run: ``python -m benchmarks.plan_scale [--rounds N]``. Every round plans a world as a look makes
it, with the ledger of the plan before it: instances are new objects, computers and items the same
ones where the controller says the same of them (``reading.LastRead``), and one of fifty is new.
Median and range of the processor time in milliseconds. Others on the machine slow everything down,
so a yardstick (a plain loop) is timed before and after each plan: "as if quiet" is the median of
what a plan would take where the yardstick takes 3 ms. The growth exponent is the slope of a line
through these, by the sizes of a kind, both axes logarithmic: 1 grows with the number of agents and
items, 2 with its square.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from backends import api as backends_api
from broker.core import model
from broker.core.decide import judge
from broker.core.decide import plan as plans
from broker.core.fleet import ledger as ledgers
from broker.core.fleet import marks

_OWNER = "scale"
_NOW = 1_700_000_000.0
_BACKEND = model.BackendName("local")
_TEMPLATES = 20
YARDSTICK_MS = 3.0
"""What the yardstick takes on a machine as the figures are those of."""
_GROWTH = (0.25, 0.5, 1.0, 2.0)
_CHANGES = 50
"""One computer and one item of so many is not what it was at the look before."""
_IDS = tuple(f"n{number}" for number in range(64))


@attrs.frozen(kw_only=True)
class Case:
    """A world by its numbers; ``busy`` of ten agents work, ``labels`` are different."""

    name: str
    items: int
    agents: int
    labels: int
    busy: int = 0
    limit_ms: float = math.inf

    def sized(self, factor: float) -> "Case":
        """Return the same kind of world in another size; the labels stay as distinct as before."""
        few = self.labels <= _TEMPLATES
        return attrs.evolve(
            self,
            items=round(self.items * factor),
            agents=round(self.agents * factor),
            labels=self.labels if few else round(self.labels * factor),
        )


CASES = (
    Case(name="as many", items=1000, agents=1000, labels=20, busy=6, limit_ms=20.0),
    Case(name="all different", items=1000, agents=1000, labels=1000, busy=6),
    Case(name="a flood", items=10_000, agents=5000, labels=20, busy=6, limit_ms=150.0),
    Case(name="nothing waits", items=0, agents=5000, labels=0, limit_ms=40.0),
)


def policy() -> model.Policy:
    """Twenty templates on one backend."""
    templates = tuple(
        model.Template(
            name=model.TemplateName(f"t{number}"),
            labels=frozenset({f"l{number}", "linux"}),
            backends=(_BACKEND,),
            revision="r1",
            min_idle=2,
            retention=model.Retention(once=number % 2 == 0, idle_s=100_000.0),
        )
        for number in range(_TEMPLATES)
    )
    limits = model.BackendPolicy(cap=100_000, launch_burst=64)
    return model.Policy(owner=_OWNER, templates=templates, backends={_BACKEND: limits})


def views(case: Case, wanted: model.Policy) -> tuple[model.ControllerView, model.BackendView]:
    """Return what one look shows, every object of it new."""
    computers, instances = [], []
    for number in range(case.agents):
        template = wanted.templates[number % _TEMPLATES]
        name = marks.node_name(_OWNER, template.name, f"a{number}")
        owned = marks.Marks(
            owner=_OWNER,
            template=template.name,
            backend=_BACKEND,
            revision="r1",
            created_at=_NOW - 600 - number,
        )
        busy = number % 10 < case.busy
        computers.append(
            model.Computer(
                name=name,
                idle=not busy,
                busy_executors=int(busy),
                executable_urls=(f"http://c/job/x/{number}/",) if busy else (),
                labels=template.labels | {name},
                description=owned.description(),
            )
        )
        instances.append(
            backends_api.Instance(
                name=name,
                state=backends_api.InstanceState.RUNNING,
                metadata=owned.metadata(name),
            )
        )
    controller = model.ControllerView(
        synced=True,
        read_at=_NOW,
        version="2.528.3",
        session="s1",
        computers=tuple(computers),
        items=tuple(_items(case)),
    )
    return controller, model.BackendView(synced=True, read_at=_NOW, instances=tuple(instances))


def _items(case: Case) -> Iterator[model.QueueItem]:
    for number in range(case.items):
        label = f"l{number % _TEMPLATES}"
        if case.labels > _TEMPLATES:
            label += f"&&!x{number % case.labels}"
        yield model.QueueItem(
            id=model.ItemId(number + 1),
            stage=model.Stage.BUILDABLE,
            why=f"There are no nodes with the label ‘{label}’",
            label_expression=label,
            exports_label=True,
            task_class="hudson.model.FreeStyleProject",
            in_queue_since_at=_NOW - 1,
            buildable_since_at=_NOW - 1,
        )


def world(case: Case, wanted: model.Policy, ledger: model.Ledger) -> model.World:
    """Return a world just looked at."""
    controller, view = views(case, wanted)
    return model.World(
        now=_NOW,
        controller=controller,
        backends={_BACKEND: view},
        ledger=ledger,
        fresh_ids=_IDS,
    )


@attrs.frozen
class Took:
    """Milliseconds of each round, and what they would be on a quiet machine."""

    measured: list[float]
    quiet: list[float]


def plan_ms(case: Case, rounds: int) -> Took:
    """Plan for a broker that has been at work for some looks."""
    wanted = policy()
    shown = views(case, wanted)[0]
    last = _settled(case, wanted, shown)
    took = Took([], [])
    for number in range(rounds):
        seen = world(case, wanted, last.ledger)
        shown = _repeated(shown, seen.controller, number)
        seen = attrs.evolve(seen, controller=shown)
        before = yardstick_ms()
        measured = _spent_ms(lambda seen=seen: plans.plan(seen, wanted, last))
        yardstick = (before + yardstick_ms()) / 2
        took.measured.append(measured)
        took.quiet.append(measured / yardstick * YARDSTICK_MS)
    return took


def _repeated(
    last: model.ControllerView, now: model.ControllerView, number: int
) -> model.ControllerView:
    """Return a view with the objects of the last one, but for one of fifty."""

    def merged(before: Sequence[Any], after: Sequence[Any]) -> tuple[Any, ...]:
        pairs = zip(before, after, strict=True)
        return tuple(
            new if index % _CHANGES == number % _CHANGES else old
            for index, (old, new) in enumerate(pairs)
        )

    return attrs.evolve(
        now,
        computers=merged(last.computers, now.computers),
        items=merged(last.items, now.items),
    )


def yardstick_ms() -> float:
    """Return what a plain loop takes now; ``YARDSTICK_MS`` where nothing else is done."""
    return _spent_ms(_yardstick)


def _yardstick() -> None:
    total, last = 0, {}
    for number in range(60_000):
        total += number
        last[number & 255] = total


def _settled(case: Case, wanted: model.Policy, shown: model.ControllerView) -> model.Plan:
    """Return the plan after some looks at the same; every agent was there from its beginning."""

    def look(ledger: model.Ledger) -> model.World:
        return attrs.evolve(world(case, wanted, ledger), controller=shown)

    last = plans.plan(look(_started()), wanted)
    witnessed = {
        name: attrs.evolve(memory, online_witnessed=True)
        for name, memory in last.ledger.memories.items()
    }
    last = attrs.evolve(last, ledger=attrs.evolve(last.ledger, memories=witnessed))
    for _ in range(3):
        last = plans.plan(look(last.ledger), wanted, last)
    return last


def judge_ms(agents: int, items: int, rounds: int) -> float:
    """Return the median of judging the removal of all agents on one shared look."""
    wanted = policy()
    case = Case(name="", items=items, agents=agents, labels=20)
    ledger = _settled(case, wanted, views(case, wanted)[0]).ledger
    removals = [
        model.RetireAgent(name=name, backend=_BACKEND, reason="idle", cause=model.Cause.IDLE)
        for name in ledger.memories
    ]
    for action in removals:
        ledger = ledgers.expect(ledger, action, now=_NOW, policy=wanted)
    took = []
    for _ in range(rounds):
        seen = world(case, wanted, ledger)
        took.append(_spent_ms(lambda seen=seen: _judge(removals, seen, wanted)))
    return statistics.median(took)


def _judge(
    removals: list[model.RetireAgent], seen: model.World, wanted: model.Policy
) -> list[str | None]:
    look = judge.prepare(seen, wanted)
    return [judge.objection(action, look) for action in removals]


def _started() -> model.Ledger:
    return model.Ledger(session="s1", session_at=_NOW - 3600)


def _spent_ms(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1000


def exponent(sizes: list[float], took: list[float]) -> float:
    """Return the slope of the line through the logarithms."""
    xs, ys = [math.log(s) for s in sizes], [math.log(t) for t in took]
    mx, my = statistics.fmean(xs), statistics.fmean(ys)
    over = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return over / sum((x - mx) ** 2 for x in xs)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-judge", action="store_true")
    arguments = parser.parse_args()
    print("| what waits | items | agents | labels | ms | range | as if quiet | allowed | growth |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        took = [plan_ms(case.sized(factor), arguments.rounds) for factor in _GROWTH]
        quiet = [statistics.median(one.quiet) for one in took]
        limit = f"{case.limit_ms:g}" if math.isfinite(case.limit_ms) else ""
        here = _GROWTH.index(1.0)
        measured = took[here].measured
        print(
            f"| {case.name} | {case.items} | {case.agents} | {case.labels} "
            f"| {statistics.median(measured):.1f} | {min(measured):.1f} to {max(measured):.1f} "
            f"| {quiet[here]:.1f} | {limit} | {exponent(list(_GROWTH), quiet):.2f} |",
            flush=True,
        )
    if not arguments.no_judge:
        agents, items = 1000, 500
        print(f"\n{agents} removals judged, {items} items waiting: ", end="", flush=True)
        print(f"{judge_ms(agents, items, 1):.0f} ms")


if __name__ == "__main__":
    main()
