"""Farms of several hosts in simulated time: a broken host is found, a healthy farm meets no rule."""

import attrs
import pytest

from backends import api as backends_api
from backends import memory
from broker.core import model
from broker.core.fleet import places
from broker.core.model import Retention, TemplateName
from broker.simulator.inventory import TaskKind
from tests.model.daemon import Daemon
from tests.model.world import OWNER, B, World

HOSTS = ("north", "east", "south")
MINUTE_S = 60.0


class Farm(World):
    """One backend of three hosts; what runs on a broken one dies, by its kind of damage."""

    def __init__(self, *, once, broken=(), dies_in_build=False):
        linux = model.Template(
            name=TemplateName("linux"),
            labels=frozenset({"linux"}),
            revision="r1",
            backends=(B,),
            retention=Retention(idle_s=120.0, once=once),
        )
        policy = model.Policy(
            owner=OWNER, templates=(linux,), backends={B: model.BackendPolicy(cap=9)}
        )
        super().__init__(policy)
        self.platform = self.platforms[B]
        self.platform.settings = memory.MemorySettings(launch_s=2.0, places=HOSTS)
        self.broken, self.dies_in_build = set(broken), dies_in_build
        self.daemon = Daemon(self, plans_twice=False)
        self.launched = []  # when and where

    def _instance_runs(self, wanted):
        if wanted.metadata["owner"] != OWNER:
            return
        place = self.platform._cells[wanted.name].place
        self.launched.append((self.now, place))
        if place in self.broken and not self.dies_in_build:
            self.at(self.now + 1.0, self._dies, wanted.name)
        else:
            super()._instance_runs(wanted)

    def _dies(self, name):
        self.excuse([name])
        end = backends_api.Exit(slug="exited", code=1, message="no space left on device")
        self.platform.kill(name, end, now=self.now)

    def builds_die(self):
        """On a broken host a build takes its agent with it after two seconds."""
        for name, cell in list(self.platform._cells.items()):
            node = self.sim.nodes.get(name)
            at_work = node is not None and any(slot.running for slot in node.slots)
            if cell.place in self.broken and at_work and cell.exit is None:
                self.at(self.now + 2.0, self._dies, name)

    def submit(self, count, *, duration_s):
        for number in range(count):
            self.sim.submit(
                self.now, job=f"j{number}", label="linux", duration_s=duration_s,
                kind=TaskKind.FREESTYLE,
            )  # fmt: skip

    def run(self, minutes, *, every_s, count, duration_s):
        """Let builds arrive and turn the loop; return the places that were ever avoided."""
        ever, end, due = set(), self.now + minutes * MINUTE_S, self.now
        while self.now < end:
            if self.now >= due:
                self.submit(count, duration_s=duration_s)
                due = self.now + every_s
            self.daemon.cycle()
            self.daemon.finish_actions()
            if self.dies_in_build:
                self.builds_die()
            ever |= {place for _, place in places.avoided(self.daemon.state.ledger, now=self.now)}
            at = self.next_at()
            pause = min(self.daemon.next_look(), due - self.now, (at or end) - self.now)
            self.pass_time(max(pause, 0.5))
        return ever


@pytest.mark.parametrize(
    ("once", "duration_s"), [(False, 0.5), (False, 8.0), (True, 2.0)],
    ids=["reused, fast", "reused", "single use"],
)  # fmt: skip
def test_a_healthy_farm_of_short_failing_unit_tests_blames_no_place(once, duration_s):
    """Whatever the builds result in, and however fast: their agents live."""
    farm = Farm(once=once)
    assert set() == farm.run(6, every_s=15.0, count=4, duration_s=duration_s)
    assert {place for _, place in farm.launched} == set(HOSTS)


@pytest.mark.parametrize("dies_in_build", [False, True], ids=["never comes", "dies in builds"])
def test_a_broken_host_is_found_and_the_others_serve_everything(dies_in_build):
    """A few agents tell; after that none is started there."""
    farm = Farm(once=True)
    assert set() == farm.run(1, every_s=15.0, count=4, duration_s=5.0)
    farm.broken, farm.dies_in_build = {"north"}, dies_in_build
    began = farm.now
    assert {"north"} == farm.run(6, every_s=15.0, count=4, duration_s=5.0)
    (backoff,) = places.avoided(farm.daemon.state.ledger, now=farm.now).values()
    found_at = backoff.until_at - places.AVOID_S
    there = [at for at, place in farm.launched if place == "north" and at >= began]
    assert len(there) <= 3 * places.LEAST_BAD
    assert max(there) <= found_at + 5.0
    assert "no space left on device" in backoff.reason
    farm.daemon.live_until(lambda: not farm.waiting(), within_s=60.0, what="served")


def test_a_template_that_is_bad_everywhere_blames_no_place():
    """It is set aside, as any such; the hosts are left as they are."""
    farm = Farm(once=False)
    farm.run(1, every_s=15.0, count=4, duration_s=5.0)
    farm.broken = set(HOSTS)
    changed = attrs.evolve(farm.policy.templates[0], revision="r2")
    farm.policy = attrs.evolve(farm.policy, templates=(changed,))
    assert set() == farm.run(10, every_s=60.0, count=2, duration_s=5.0)
