"""2000 brokers on one master, with and without manners: how long from demand to launch?

A simulation on the machines of both sides (the product's own session, the tests' master that keeps
to the recordings), in simulated time. ``python -m tests.mesos.many_frameworks [frameworks [seconds]]``.
Without manners: never suppressed, and refusals of five seconds, the master's default.
"""

import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from backends.mesos import calls, offers, records, session
from tests.mesos import master

STEP_S = 0.1
TASK = {"cpus": 400, "mem": 1_000_000}


class Rude(session.Session):
    """A framework as many are: it always wants to hear of everything."""

    def subscribe(self) -> calls.Call:
        call = super().subscribe()
        call["subscribe"].pop("suppressed_roles", None)
        self._suppressed = False
        return call

    def _suppress_if_idle(self) -> list[calls.Call]:
        return []

    def _revive(self) -> list[calls.Call]:
        return []


class Broker:
    def __init__(self, name: str, machine: master.Master, *, manners: bool) -> None:
        framework = calls.Framework(
            id=name, name=name, user="jenkins", role="*", failover_timeout_s=1e9
        )
        made = (
            session.Session(framework, refuse_s=3600.0)
            if manners
            else Rude(framework, refuse_s=5.0)
        )
        self.session, self.machine = made, machine
        self.stream = machine.subscribe(made.subscribe(), name).stream
        self.read = 0
        self.asked: dict[str, float] = {}
        self.waited: list[float] = []

    def want(self, names: Sequence[str], now: float) -> None:
        self.asked |= dict.fromkeys(names, now)
        info: Mapping[str, Any] = {"command": {"value": "agent"}}
        wants = [
            records.Want(
                need=offers.Need(name=name, scalars=TASK),
                info={**info, "name": name, "task_id": {"value": name}},
            )
            for name in names
        ]
        self.send(self.session.want(wants))

    def send(self, said: Sequence[calls.Call]) -> None:
        for call in said:
            self.machine.call(call)

    def step(self, now: float) -> None:
        while self.read < len(self.stream):
            event = self.stream[self.read]
            self.read += 1
            self.send(self.session.receive(event, now))
        for name in [name for name in self.asked if name in self.session.tasks]:
            self.waited.append(now - self.asked.pop(name))
        for name in [name for name, task in self.session.tasks.items() if task.final is not None]:
            self.send(self.session.forget(name))


def simulate(*, frameworks: int, seconds: float, manners: bool, seed: int = 1) -> dict[str, float]:
    dice = random.Random(seed)
    size = max(1, frameworks * 317 // 2000)
    agents = [
        master.Agent(id=f"S{n}", hostname=f"agent-{n}", cpus=12, mem=40_000) for n in range(size)
    ]
    machine = master.Master(
        agents=agents,
        plan=lambda info: master.Plan(
            starting=None, running=1.0, end=60 + dice.expovariate(1 / 60)
        ),
    )
    brokers = [Broker(f"b{n}", machine, manners=manners) for n in range(frameworks)]
    rate, number, now = frameworks * 33 / 2000 / 3, 0, 0.0
    next_at = dice.expovariate(rate)
    while now < seconds:
        now = round(now + STEP_S, 3)
        while next_at <= now:
            next_at += dice.expovariate(rate)
            count = dice.choice([1, 1, 2, 3, 8])
            brokers[dice.randrange(frameworks)].want([f"t{number + n}" for n in range(count)], now)
            number += count
        machine.advance(now)
        for broker in brokers:
            if broker.read < len(broker.stream) or broker.asked:
                broker.step(now)
    waiting = [now - at for broker in brokers for at in broker.asked.values()]
    waited = sorted([*(one for broker in brokers for one in broker.waited), *waiting])
    return {
        "asked": number,
        "launched": number - len(waiting),
        "median_s": statistics.median(waited),
        "p99_s": waited[int(0.99 * (len(waited) - 1))],
        "calls_per_s": sum(count for kind, count in machine.calls.items() if kind != "SUBSCRIBE")
        / seconds,
        "offers_per_s": machine._offer_count / seconds,
    }


if __name__ == "__main__":
    frameworks, seconds = (
        int(sys.argv[1]) if len(sys.argv) > 1 else 2000,
        float(sys.argv[2]) if len(sys.argv) > 2 else 180.0,
    )
    for manners in (True, False):
        found = simulate(frameworks=frameworks, seconds=seconds, manners=manners)
        print(
            "with manners   " if manners else "without manners",
            {key: round(value, 2) for key, value in found.items()},
            flush=True,
        )
