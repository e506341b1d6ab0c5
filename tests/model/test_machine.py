"""The broker in a hostile world: anything happens between any two steps, the invariants hold."""

import attrs
import hypothesis
import pytest
from hypothesis import stateful
from hypothesis import strategies as st

from broker.core import model
from broker.core.model import Retention, TemplateName
from broker.simulator import inventory
from jnlp import errors as jnlp_errors
from tests.model.daemon import CONTROLLER, Daemon, backend_errors
from tests.model.world import OWNER, B, C, World

pytestmark = pytest.mark.timeout(300)  # of all its lives, of which `make soak` has many

LABELS = ["a", "b", "a&&linux", "b||a", "linux&&!b", "nobody"]
QUICK = {"connect_deadline_s": 60.0}
TEMPLATES = {
    "a": model.Template(
        name=TemplateName("a"), labels=frozenset({"a", "linux"}), backends=(B, C),
        revision="r1", cap=4, min_idle=1, retention=Retention(idle_s=60.0, max_age_s=600.0, keep_failed_s=45.0, keep_failed_most=2),
        numbered=True, **QUICK,
    ),
    "b": model.Template(
        name=TemplateName("b"), labels=frozenset({"b", "linux"}), backends=(C,), revision="r1",
        executors=2, start_early=True, retention=Retention(idle_s=30.0, max_builds=3), numbered=True,
        **QUICK,
    ),
    "once": model.Template(
        name=TemplateName("a"), labels=frozenset({"a", "linux"}), backends=(B,), revision="r2",
        retention=Retention(once=True, idle_s=90.0), **QUICK,
    ),
}  # fmt: skip
LIMITS = {
    "cap": 6,
    "backoff_max_s": 60.0,
    "rejected_retry_s": 60.0,
    "yield_after_s": 30.0,
    "orphan_grace_s": 10.0,
    "settle_s": 5.0,
    "resume_grace_s": 15.0,
    "reservation_s": 30.0,
}
PAUSE, DRAIN = model.StandingKind.PAUSE, model.StandingKind.DRAIN


def ordered(kind, **more):
    return model.StandingOrder(kind=kind, who="alice", since_at=0.0, **more)


POINTS = ["create", "create-late", "secret", "cordon", "cordon-late", "seal", "delete",
          "delete-late", "release", "release-late"]  # fmt: skip
CHANGES = {
    "as it was": {"templates": (TEMPLATES["a"], TEMPLATES["b"])},
    "a becomes single-use": {"templates": (TEMPLATES["once"], TEMPLATES["b"])},
    "a is removed": {"templates": (TEMPLATES["b"],)},
    "cap 2": {"cap": 2},
    "cap 6": {"cap": 6},
    "drain": {"draining": True},
    "work again": {"draining": False},
    "a is paused": {"standing": (ordered(PAUSE, template=TemplateName("a")),)},
    "C is paused": {"standing": (ordered(PAUSE, backend=C),)},
    "all is paused": {"standing": (ordered(PAUSE),)},
    "b is drained": {"standing": (ordered(DRAIN, template=TemplateName("b")),)},
    "C is drained": {"standing": (ordered(DRAIN, backend=C),)},
    "orders are taken back": {"standing": ()},
    "a is prewarmed": {"templates": (attrs.evolve(TEMPLATES["a"], min_idle=3), TEMPLATES["b"])},
}
POLICY = model.Policy(
    owner=OWNER,
    templates=(TEMPLATES["a"], TEMPLATES["b"]),
    backends={B: model.BackendPolicy(cap=3), C: model.BackendPolicy(max_starting=3)},
    **LIMITS,
)


CHECK = model.CheckCommand(argv=("look",), within_s=10.0)
CHECKED = attrs.evolve(
    POLICY,
    templates=(
        attrs.evolve(TEMPLATES["a"], checks=model.Checks(ready=CHECK, dirty=CHECK)),
        attrs.evolve(TEMPLATES["b"], checks=model.Checks(dirty=CHECK)),
    ),
)


class Hostile(stateful.RuleBasedStateMachine):
    """Rules are what the world does; the broker goes on cycle by cycle and step by step."""

    policy = POLICY
    version = "2.528.3"

    def __init__(self):
        super().__init__()
        self.world = World(self.policy, version=self.version)
        self.daemon = Daemon(self.world)

    def some(self, names, index):
        names = sorted(names)
        return names[index % len(names)] if names else None

    # --- the broker ---

    @stateful.rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 20.0]))
    def tick(self, seconds):
        self.world.pass_time(seconds)
        self.daemon.cycle()

    @stateful.rule(times=st.integers(1, 4), index=st.integers(0, 5))
    def step(self, times, index):
        for _ in range(times):
            name = self.some(self.daemon.running, index)
            if name is not None:
                self.daemon.step(name)

    @stateful.rule()
    def finish(self):
        self.daemon.finish_actions()

    @stateful.rule()
    def kill_broker(self):
        self.daemon.crash()

    @stateful.rule(seconds=st.sampled_from([100.0, 700.0, 5000.0]))
    def clock_leaps(self, seconds):
        self.world.pass_time(seconds)

    @stateful.rule(change=st.sampled_from(sorted(CHANGES)))
    def configure(self, change):
        self.world.policy = attrs.evolve(self.world.policy, **CHANGES[change])

    @stateful.rule(
        index=st.integers(0, 5),
        kind=st.sampled_from([model.StandingKind.RETIRE, model.StandingKind.HOLD]),
    )
    def person_orders(self, index, kind):
        name = self.some(self.world.created & set(self.world.sim.nodes), index)
        if name is not None:
            standing = (*self.world.policy.standing, ordered(kind, agent=name))
            self.world.policy = attrs.evolve(self.world.policy, standing=standing)

    # --- people and jobs ---

    @stateful.rule(
        label=st.sampled_from(LABELS),
        seconds=st.sampled_from([0.5, 10.0, 90.0]),
        quiet_s=st.sampled_from([0.0, 0.0, 5.0]),
        kind=st.sampled_from(list(inventory.TaskKind)),
        many=st.integers(1, 3),
        concurrent=st.booleans(),
    )
    def queue_up(self, label, seconds, quiet_s, kind, many, concurrent):
        for _ in range(many):
            self.world.sim.submit(
                self.world.now, job=f"j-{kind.value}", label=label, duration_s=seconds,
                quiet_s=quiet_s, kind=kind, concurrent=concurrent,
            )  # fmt: skip

    @stateful.rule(index=st.integers(0, 5))
    def cancel(self, index):
        item = self.some([i.id for i in self.world.sim.wanted], index)
        if item is not None:
            self.world.sim.cancel(self.world.now, item)

    @stateful.rule(index=st.integers(0, 5))
    def human_cordons(self, index):
        name = self.some(self.world.created & set(self.world.sim.nodes), index)
        if name is not None and self.world.sim.nodes[name].offline_message is None:
            self.world.sim.take_offline(self.world.now, name, "maintenance")

    # --- faults ---

    @stateful.rule(index=st.integers(0, 5))
    def instance_dies(self, index):
        name = self.some(self.world.ours(), index)
        if name is not None:
            self.world.instance_dies(name)

    @stateful.rule(index=st.integers(0, 5))
    def agent_drops(self, index):
        name = self.some([n for n in self.world.ours() if n in self.world.sim.nodes], index)
        if name is not None:
            self.world.drops(name)

    @stateful.rule(seconds=st.sampled_from([30.0, 100.0]))
    def slow_launch(self, seconds):
        self.world.slow_s.append(seconds)

    @stateful.rule(backend=st.sampled_from([B, C]))
    def list_fails(self, backend):
        self.world.dark ^= {backend}

    @stateful.rule(source=st.sampled_from([B, C, CONTROLLER]))
    def source_does_not_answer(self, source):
        self.world.silent ^= {source}

    @stateful.rule(backend=st.sampled_from([B, C]), reads=st.integers(1, 4))
    def list_is_stale(self, backend, reads):
        self.world.platforms[backend].stale_list(reads=reads)

    @stateful.rule(
        point=st.sampled_from(POINTS),
        error=st.sampled_from([
            jnlp_errors.Unreachable("time-out"),
            jnlp_errors.Forbidden("no"),
            jnlp_errors.BadRequest("odd"),
            jnlp_errors.Unexpected("500"),
        ]),
    )  # fmt: skip
    def controller_fails(self, point, error):
        self.world.fail_next(point, error)

    @stateful.rule(
        point=st.sampled_from(["reserve", "reserve-late", "launch", "launch-late", "terminate"]),
        error=st.sampled_from(backend_errors()),
    )
    def backend_fails(self, point, error):
        self.world.fail_next(point, error)

    @stateful.rule()
    def controller_is_mute(self):
        self.world.mute = not self.world.mute

    @stateful.rule(down_s=st.sampled_from([0.0, 5.0, 40.0]))
    def controller_restarts(self, down_s):
        self.world.restart(down_s)

    @stateful.rule(on=st.booleans())
    def quiet_down(self, on):
        self.world.sim.quiet_down(self.world.now, on=on)

    # --- what must always hold ---

    @stateful.invariant()
    def nothing_is_lost_and_nothing_foreign_touched(self):
        self.world.check()

    def teardown(self):
        """I8: when the faults stop, everything is served and then cleaned up."""
        self.world.policy = self.policy
        try:
            self.daemon.settle_down()
        finally:
            self.daemon.crash()


class HostileToChecks(Hostile):
    """The same for agents that are checked: before they count, and after each build."""

    policy = CHECKED

    @stateful.rule(codes=st.lists(st.sampled_from([0, 1, None, -9]), min_size=1, max_size=3))
    def checks_end_so(self, codes):
        self.world.codes += codes

    @stateful.rule(on=st.sampled_from([True, True, False]))
    def checks_are_wanted(self, on):
        self.world.policy = CHECKED if on else POLICY

    @stateful.rule(
        point=st.sampled_from(["run", "run-late"]), error=st.sampled_from(backend_errors())
    )
    def check_does_not_come_about(self, point, error):
        self.world.fail_next(point, error)


class HostileToSeals(HostileToChecks):
    """The same on a controller where busy agents are taken out of service by a seal."""

    version = "2.440.3"


SETTINGS = hypothesis.settings(
    stateful_step_count=30,
    # a failure is told as it was found: making it smaller takes minutes (phases=None does it)
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate],
)
TestHostile = Hostile.TestCase
TestHostile.settings = SETTINGS
TestHostileToChecks = HostileToChecks.TestCase
TestHostileToChecks.settings = SETTINGS
TestHostileToSeals = pytest.mark.soak(HostileToSeals.TestCase)
TestHostileToSeals.settings = SETTINGS
