"""Simulated days on a heap: arrivals and faults from a seed, the real rules, no event loop.

Time jumps from one event to the next look at it, so a quiet night costs nothing. The same seed
gives the same run, told by the hash of its trace. Invariants are judged in every cycle, liveness
when the faults stop.
"""

import hashlib
import math
import random

import attrs

from broker.core import model
from broker.core.model import Phase, Retention, TemplateName
from broker.simulator.inventory import Fate, TaskKind
from jnlp import errors as jnlp_errors
from tests.model.daemon import PACE, Daemon, backend_errors
from tests.model.world import OWNER, B, C, World

HOUR_S = 3600.0
VERSIONS = ("2.528.3", "2.263.4")
LABELS = (("maven", 5), ("linux", 3), ("maven||gradle", 1), ("gradle", 2), ("big", 1),
          ("linux&&!gradle", 1))  # fmt: skip
POINTS = ("create", "create-late", "secret", "cordon", "cordon-late", "seal", "delete",
          "delete-late", "release", "release-late")  # fmt: skip


def policy(*, min_idle=0, idle_s=600.0, once=False):
    """Return the default policy for four kinds of agents on two backends, and what differs."""

    def template(name, *labels, **more):
        fields = {
            "backends": (B, C),
            "retention": Retention(idle_s=idle_s, once=once),
            "min_idle": min_idle,
            **more,
        }
        return model.Template(
            name=TemplateName(name), labels=frozenset(labels), revision="r1", **fields
        )

    return model.Policy(
        owner=OWNER,
        templates=(
            template("maven", "maven", "linux"),
            template("gradle", "gradle", "linux", retention=Retention(max_builds=5)),
            template("big", "big", executors=4, backends=(C,), min_idle=0),
        ),
        backends={B: model.BackendPolicy(cap=12), C: model.BackendPolicy(cap=12)},
        cap=20,
    )


POLICIES = {
    "default": policy(),
    "warm": policy(min_idle=2),
    "single-use": policy(once=True),
    "single-use, warm": policy(once=True, min_idle=2),
}


@attrs.define(kw_only=True)
class Report:
    """What a run was like, for judging a policy by numbers."""

    seed: int
    trace: str
    builds: int = 0
    waits: list = attrs.Factory(list)
    warm: int = 0
    launches: int = 0
    idle_s: float = 0.0
    cycles: int = 0
    excused: int = 0


class Run:
    """One seed."""

    def __init__(self, seed, *, hours, policy, faults=True):
        self.dice = random.Random(seed)
        self.demand = random.Random(seed)  # its own: every policy meets the same demand
        self.world = World(policy, version=VERSIONS[seed % len(VERSIONS)], starts_s=3.0)
        self.daemon = Daemon(self.world, plans_twice=False)
        self.hash = hashlib.sha256(str(seed).encode())
        self.report = Report(seed=seed, trace="")
        self.end_at = self.world.now + hours * HOUR_S
        self.began_at = self.world.now
        self.stepping = set()
        self._plan_day(faults=faults)

    # --- what happens, decided before it begins ---

    def _plan_day(self, *, faults):
        at = self.world.now
        while (at := at + self.demand.expovariate(1 / 45.0)) < self.end_at:
            day = 0.5 - 0.5 * math.cos((at - self.began_at) / (24 * HOUR_S) * 2 * math.pi)
            if self.demand.random() < 0.25 + 0.75 * day:
                self.world.at(at, self._arrive)
        at = self.world.now
        while faults and (at := at + self.demand.expovariate(1 / 600.0)) < self.end_at:
            self.world.at(at, self._fault)

    def _arrive(self):
        dice = self.demand
        label = dice.choices([name for name, _ in LABELS], [weight for _, weight in LABELS])[0]
        kind = dice.choice(list(TaskKind))
        many = {TaskKind.FREESTYLE: 1, TaskKind.PIPELINE: dice.randint(1, 3), TaskKind.MATRIX: 3}[
            kind
        ]
        if dice.random() < 0.03:
            many = dice.randint(8, 20)
        for _ in range(many):
            self.world.sim.submit(
                self.world.now, job=f"job-{dice.randrange(40)}", label=label, kind=kind,
                duration_s=min(dice.lognormvariate(4.0, 1.2), 3000.0), concurrent=many > 1,
                quiet_s=5.0 if kind is TaskKind.FREESTYLE else 0.0,
            )  # fmt: skip

    def _fault(self):
        name = self.dice.choice([n for n in dir(self) if n.startswith("_fault_")])
        self.hash.update(name.encode())
        getattr(self, name)()

    def _some_agent(self):
        names = sorted(self.world.ours())
        return self.dice.choice(names) if names else None

    def _fault_instance_dies(self):
        if (name := self._some_agent()) is not None:
            self.world.instance_dies(name)

    def _fault_agent_drops(self):
        name = self._some_agent()
        if name in self.world.sim.nodes:
            self.world.drops(name)

    def _fault_slow_starts(self):
        self.world.slow_s += [self.dice.choice([30.0, 200.0, 900.0]) for _ in range(3)]

    def _fault_controller_call(self):
        error = self.dice.choice([
            jnlp_errors.Unreachable("time-out"),
            jnlp_errors.Forbidden("no"),
            jnlp_errors.BadRequest("odd"),
        ])  # fmt: skip
        self.world.fail_next(self.dice.choice(POINTS), error)

    def _fault_backend_call(self):
        point = self.dice.choice(["reserve", "reserve-late", "launch", "launch-late", "terminate"])
        self.world.fail_next(point, self.dice.choice(backend_errors()))

    def _fault_backend_dark(self):
        name = self.dice.choice([B, C])
        self.world.dark.add(name)
        self.world.at(
            self.world.now + self.dice.choice([20.0, 300.0]), self.world.dark.discard, name
        )

    def _fault_stale_list(self):
        name = self.dice.choice([B, C])
        self.world.platforms[name].stale_list(reads=self.dice.randint(1, 5))

    def _fault_controller_mute(self):
        self.world.mute = True
        self.world.at(self.world.now + self.dice.choice([5.0, 120.0]), self._speak)

    def _speak(self):
        self.world.mute = False

    def _fault_controller_restarts(self):
        self.world.restart(self.dice.choice([5.0, 60.0]))

    def _fault_broker_killed(self):
        self.daemon.crash()

    def _fault_human_cordons(self):
        name = self._some_agent()
        node = self.world.sim.nodes.get(name)
        if node is not None and node.offline_message is None:
            self.world.sim.take_offline(self.world.now, name, "maintenance")
            self.world.at(self.world.now + 900.0, self._human_done, name)

    def _human_done(self, name):
        node = self.world.sim.nodes.get(name)
        if node is not None and node.offline_message == "maintenance":
            self.world.sim.toggle(self.world.now, name, "")

    def _fault_cancel(self):
        if self.world.sim.wanted:
            item = self.dice.choice(self.world.sim.wanted)
            self.world.sim.cancel(self.world.now, item.id)

    # --- running ---

    def _step(self, name):
        self.stepping.discard(name)
        self.daemon.step(name)
        self._schedule_steps()

    def _schedule_steps(self):
        for name in self.daemon.running:
            if name not in self.stepping:
                self.stepping.add(name)
                self.world.at(self.world.now + self.dice.uniform(0.02, 0.4), self._step, name)

    def _cycle(self):
        made = self.daemon.cycle()
        self._schedule_steps()
        self.report.cycles += 1
        for action in made.actions:
            self.hash.update(f"{self.world.now:.3f} {action}".encode())
            self.report.launches += isinstance(action, model.LaunchAgent)
        if self.report.cycles % 50 == 0:
            self.world.check()
        return made

    def _next_look(self, made):
        """Return when to look again: nothing changes before the next event or the plan's own."""
        pace = max(self.daemon.next_look(), PACE.least_s)
        due = [at for at in (self.world.next_at(), made.wake_at) if at is not None]
        wait = max(min(due, default=self.end_at) - self.world.now, 0.0)
        return self.world.now + pace * max(1, math.ceil(min(wait, 60.0) / pace))

    def go(self):
        """Run to the end; raises ``Broken`` when an invariant does not hold."""
        while self.world.now < self.end_at:
            made = self._cycle()
            idle = sum(a.phase is Phase.IDLE for a in made.agents)
            pause = self._next_look(made) - self.world.now
            self.report.idle_s += idle * pause
            self.world.pass_time(pause)
        self.world.timers = [
            t for t in self.world.timers if t[2] not in {self._arrive, self._fault}
        ]
        self.daemon.settle_down(within_s=4 * HOUR_S)
        self._tell()
        return self.report

    def _tell(self):
        report = self.report
        for item in self.world.sim.items.values():
            self.hash.update(f"{item.id} {item.fate} {item.started_at}".encode())
            if item.fate is Fate.DONE and item.buildable_since is not None:
                report.builds += 1
                report.waits.append(max(0.0, item.started_at - item.buildable_since))
                report.warm += item.node_since <= item.buildable_since
        report.excused = len(self.world.excused)
        report.trace = self.hash.hexdigest()[:16]


def run(seed, *, hours, policy_name="default", faults=True):
    """Simulate one seed under one policy."""
    return Run(seed, hours=hours, policy=POLICIES[policy_name], faults=faults).go()
