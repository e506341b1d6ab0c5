"""Everything outside the broker: controller, platforms, agents, people; and the broker's lives."""

import itertools
import random

from backends import api
from broker.core.demand import labels as expressions
from broker.core.fleet import marks
from broker.simulator import inventory, simulation
from broker.simulator.inventory import TaskKind
from tests.soak import lives, sites, wire
from tests.soak.invariants import Invariants
from tests.soak.sites import OTHER, OWNER, PET
from tests.soak.tally import Tally

HANDOVER_S = inventory.HANDOVER_S
VERSIONS = ("2.528.3", "2.263.4", "2.541.1")
LAUNCH_S, CONNECTS_S = 1.5, 2.0
CALM_EVERY_S, CALM_LASTS_S = 12.0, 3.0
ARRIVES_S = 5.0
FAILS_WITHIN_S = 3.0  # a build on a host that is broken
LASTS = (2.0, 1.0)  # of the logarithm of seconds
TESTS_LAST_S, TESTS_EVERY_S = 11.0, 4.0
_LABELS = (("a", 5), ("b", 4), ("linux", 3), ("a||b", 2), ("g", 3), ("d", 2), ("firm", 2),
           ("linux&&!g", 1))  # fmt: skip


class Simulation(simulation.Simulation):
    """The product's controller, whose time passes with the loop's."""

    def __init__(self, world, **more):
        super().__init__(**more)
        self._world = world

    def at(self, at, what):
        super().at(at, what)
        self._world.at(at, self._due, at)

    def _due(self, at):
        self.advance(max(at, self._world.now))

    def _begin(self, item, node, slot, now):
        if slot.item is item:
            self._world.build_begins(item, node.name)
        super()._begin(item, node, slot, now)


class World:
    """One run's world. ``now`` is POSIX seconds, on the loop's clock."""

    def __init__(self, loop, seed):
        self.loop = loop
        self.dice = random.Random(f"world {seed}")
        self.tally = Tally()
        self.sim = Simulation(self, version=self.dice.choice(VERSIONS), handover_s=HANDOVER_S)
        self.sim.on_gone = self._node_gone
        self.controller = wire.Controller(self)
        self.sites = {
            name: sites.Site(self, name, launch_s=LAUNCH_S) for name in ("one", "two", "calm")
        }
        self.broken_templates = {}
        self.broken_hosts = set()  # places where every build fails at once
        self.failed = set()  # items whose build has failed by its host ...
        self.told_failed = set()  # ... and of which the broker knows
        self.store = lives.Store()
        self.wall_ahead_s = 0.0
        self.drains = False  # then the broker may end by itself
        self.definition = 1
        self.settings = lives.settings()
        self.jobs = itertools.count()
        self.ids = itertools.count(1)
        self.mishaps = itertools.count(1)
        self.excused = set()  # items whose build dies of a fault
        self.life = None
        self.step = -1  # of the script: the last fault that began
        self.invariants = Invariants(self)
        self._foreign()

    @property
    def now(self):
        return self.loop.now

    def at(self, when, what, *about):
        """Let something happen at a time (POSIX seconds)."""
        self.loop.call_later(max(0.0, when - self.now), self._happens, what, about)

    def _happens(self, what, about):
        with self.loop.outside():
            what(*about)

    def place_of(self, name):
        """Return where an instance runs; None for one that is not there."""
        for site in self.sites.values():
            if name in site.cells:
                return site.cells[name].place
        return None

    def build_begins(self, item, name):
        """On a broken host it fails at once."""
        place = self.place_of(name)
        if place in self.broken_hosts:
            item.duration_s = min(item.duration_s, FAILS_WITHIN_S)
            self.failed.add(item.id)
        self.invariants.build_begins(item, place)

    def break_host(self, place):
        self.broken_hosts.add(place)
        self.invariants.host_breaks(place)

    def mend_host(self, place):
        self.broken_hosts.discard(place)
        self.invariants.host_mended(place)

    def build(self, job, number):
        """Return what the controller says of a build."""
        for item in reversed(self.sim.items.values()):
            if (item.job, item.number) == (job, number) and item.started_at is not None:
                break
        else:
            raise inventory.SimulatedRefusal(404)
        told = {"result": None, "building": item.ended_at is None, "duration": 0}
        if item.ended_at is not None:
            good = item.fate is inventory.Fate.DONE and item.id not in self.failed
            told["result"] = "SUCCESS" if good else "FAILURE"
            self.told_failed |= set() if good else {item.id}
            told["duration"] = int((item.ended_at - item.started_at) * 1000)
        return told

    def _foreign(self):
        for site in self.sites.values():
            other = marks.Marks(
                owner=OTHER, template="t", backend=site.name, revision="r", created_at=self.now
            )
            spec = api.InstanceSpec(name=PET, metadata=other.metadata(PET), argv=("x",))
            site.platform.start(spec, owner=OTHER, now=self.now)
        node = inventory.Node(name=PET, labels=frozenset({"pet"}), description=other.description())
        self.sim.create_node(self.now, node)

    # --- the broker ---

    def live(self):
        """Let a life of the broker begin."""
        self.life = lives.Life(self)

    def kill_broker(self, *, down_s, state):
        if self.life is None:
            return
        self.life.kill()
        self.life = None
        if state == "lost":
            self.store.values.clear()
        elif state == "damaged":
            self.store.damage(self.dice)
        self.at(self.now + down_s, self.live)

    def next_id(self):
        """Return a suffix for an agent's name; no other life gets it."""
        return f"{next(self.ids):06x}"

    def life_ended(self, why):
        """Start it again, as whoever watches over services does.

        Whose question goes unseen behind an old answer takes another broker for alive, and ends.
        """
        excused = "SecondBroker" in why and not self.invariants.is_seen("controller")
        fine = self.drains or excused
        self.invariants.hold("the broker lives", fine, f"it has ended by itself: {why}")
        self.life = None
        if not self.drains:
            self.at(self.now + 5.0, self.live)

    def saved(self, key, value):
        if key not in {"holder", "builds.json"} and not key.startswith("page"):
            self.invariants.hold("no mistake of ours", False, f"kept {key}: {value[:600]}")

    def reload(self, **changes):
        """Put the configuration in force, with changes."""
        self.settings = lives.settings(version=self.definition, **changes)
        self.invariants.reloaded()
        if self.life is not None:
            self.life.broker.reload(self.settings)

    # --- what the broker does ---

    def node_asked_for(self, name):
        self.invariants.node_asked_for(name)

    def node_made(self, name):
        self.invariants.node_made(name)

    def touches_node(self, node, verb):
        self.invariants.touches_node(node, verb)

    def instance_asked_for(self, site, spec):
        self.invariants.instance_asked_for(site, spec)

    def instance_made(self, site, spec):
        self.invariants.instance_made(site, spec)

    def node_changed(self, node, verb):
        self.invariants.node_changed(node, verb)

    def touches_instance(self, site, name):
        self.invariants.touches_instance(site, name)

    def note_sight(self, site):
        self.invariants.seen_badly(site.name)

    # --- agents ---

    def broken(self, site, template):
        return self.broken_templates.get((site.name, template))

    def instance_runs(self, site, spec):
        kind = self.broken(site, spec.metadata["template"])
        name, now = spec.name, self.now
        match kind:
            case "image missing":
                self.at(now, site.kill, name, api.Exit(slug="image", message="manifest unknown"))
            case "command missing":
                self.at(now, site.kill, name, api.Exit(slug="command", code=127))
            case "dies before it is online":
                self.at(now + 1.0, site.kill, name, api.Exit(slug="exited", code=1))
            case "never connects":
                pass
            case "connects late":
                self.at(now + self.dice.uniform(20.0, 90.0), self._connect, name)
            case "dies soon after it is online":
                self.at(now + CONNECTS_S, self._connect, name)
                self.at(
                    now + CONNECTS_S + 1.5,
                    self.kill_instance,
                    name,
                    api.Exit(slug="killed", code=-9),
                )
            case _:
                self.at(now + CONNECTS_S, self._connect, name)

    def instance_ended(self, name):
        self.sim.disconnect(self.now, name)

    def _runs_on(self, name):
        running = api.InstanceState.RUNNING
        for site in self.sites.values():
            cell = site.ours().get(name)
            if cell is not None and cell.state is running:
                return site
        return None

    def _connect(self, name):
        site = self._runs_on(name)
        if site is None:
            return
        if self.sim.is_down(self.now):
            self.at(self.now + 5.0, self._connect, name)
        elif name not in self.sim.nodes:
            site.platform.kill(name, api.Exit(slug="exited", code=255), now=self.now)
        elif not self.sim.nodes[name].connected:
            self.sim.connect(self.now, name)

    def _node_gone(self, name, why):
        if why == "restart":
            self.at(self.sim.down_until + 5.0, self._connect, name)
        else:
            self.at(self.now + 1.0, self._agent_gives_up, name)

    def _agent_gives_up(self, name):
        site = self._runs_on(name)
        if site is not None:
            site.platform.kill(name, api.Exit(slug="exited", code=0), now=self.now)

    def agent(self, dice, *, busy, on):
        """Return the name of one of our agents; ``busy``: at work, not online yet, or either."""
        names = []
        for name in sorted(itertools.chain(*(self.sites[site].live() for site in on))):
            node = self.sim.nodes.get(name)
            works = node is not None and not node.idle
            online = node is not None and node.connected
            if busy is None or (works if busy else not online):
                names.append(name)
        return dice.choice(names) if names else None

    def excuse(self, name, *, but_running=False):
        """What builds on this node dies of a fault, not of the broker.

        ``but_running``: only what was just given to it, which old controllers then forget.
        """
        node = self.sim.nodes.get(name) or self.sim.ghosts.get(name)
        for slot in node.slots if node is not None else ():
            if slot.item is not None and not (but_running and slot.running):
                self.excused.add(slot.item.id)

    def kill_instance(self, name, end):
        self.excuse(name)
        for site in self.sites.values():
            site.kill(name, end)

    def harm(self, name):
        """Let a process in an instance be killed; the instance lives on."""
        (site,) = (site for site in self.sites.values() if name in site.cells)
        if site.cells[name].mishap is None:
            words = f"a process in it was killed for memory ({next(self.mishaps)})"
            site.harm(name, api.Mishap(slug="out-of-memory", text=words, at=self.now))
            self.invariants.harmed(site, name, words)

    def vanish(self, name):
        self.excuse(name)
        for site in self.sites.values():
            site.vanish(name)

    def drops(self, name):
        self.excuse(name)
        self.sim.disconnect(self.now, name)
        self.at(self.now + 10.0, self._connect, name)

    def restart(self, down_s):
        for name in self.sim.nodes:
            self.excuse(name)
        self.controller.crumbs.clear()
        self.sim.restart(self.now, down_s=down_s)

    # --- people and jobs ---

    def crowd(self, dice, label, many, *, kind=None):
        """Let many items come at once; return their numbers."""
        return [self.submit(dice, label, kind=kind) for _ in range(many)]

    def submit(self, dice, label, *, kind=None, lasts_s=None):
        kind = kind or dice.choice(list(TaskKind))
        lasts_s = min(dice.lognormvariate(*LASTS), 120.0) if lasts_s is None else lasts_s
        return self.sim.submit(
            self.now, job=f"job-{next(self.jobs)}", label=label, kind=kind, duration_s=lasts_s,
            quiet_s=dice.choice([0.0, 0.0, 3.0]) if kind is TaskKind.FREESTYLE else 0.0,
        )  # fmt: skip

    def run_tests(self, label, until):
        """Let builds of the same jobs come again and again, on a host that is broken and others."""
        for _ in range(3):  # the host takes one of them at least, others the rest
            job = f"tests-{next(self.jobs) % 2}"
            self.sim.submit(self.now, job=job, label=label, duration_s=TESTS_LAST_S)
        if self.now + TESTS_EVERY_S < until:
            self.at(self.now + TESTS_EVERY_S, self.run_tests, label, until)

    def arrive(self, dice, until):
        """Let items come one by one until a time."""
        names, weights = zip(*_LABELS, strict=True)
        if (
            not self.broken_hosts
        ):  # its builds are demand enough, and each short one is asked about
            self.submit(dice, dice.choices(names, weights)[0])
        after = self.now + dice.expovariate(1 / ARRIVES_S)
        if after < until:
            self.at(after, self.arrive, dice, until)

    def arrive_calmly(self, until):
        """Let an item for the healthy backend come from time to time, alike in every run."""
        self.sim.submit(
            self.now, job=f"calm-{next(self.jobs)}", label="calm", duration_s=CALM_LASTS_S
        )
        if self.now + CALM_EVERY_S < until:
            self.at(self.now + CALM_EVERY_S, self.arrive_calmly, until)

    # --- what is there ---

    def servable(self):
        """Return the open items that one of our templates could serve."""
        return [
            item
            for item in self.sim.items.values()
            if item.fate is inventory.Fate.OPEN and (item.pinned or serving(item.label))
        ]

    def give_up_pinned(self):
        """Cancel what must go on with an agent that a fault has taken away for good."""
        for item in list(self.sim.wanted):
            if item.pinned is not None and item.pinned not in self.sim.nodes:
                self.sim.cancel(self.now, item.id)

    def left(self):
        """Return what is there of our agents: nodes, instances, secrets they were given."""
        nodes = [name for name, node in self.sim.nodes.items() if wire.is_ours(node, OWNER)]
        nodes += [name for name in self.sim.nodes if name.startswith(f"{OWNER}-claim-")]
        cells = {name: cell for site in self.sites.values() for name, cell in site.ours().items()}
        secrets = [name for name, cell in cells.items() if cell.spec.secret_files]
        return {"nodes": nodes, "instances": list(cells), "secrets": secrets}

    def heal(self):
        """End everything that is wrong: what lasts ends with its strike, this is for the rest."""
        self.controller.faults.clear()
        self.controller.skew_s = 0.0
        self.broken_templates.clear()
        for place in sorted(self.broken_hosts):
            self.mend_host(place)
        self.wall_ahead_s = 0.0
        self.store.is_full = False
        for site in self.sites.values():
            site.faults.clear()
            site.resize(None)
            site.release()
        self.reload()


def serving(label):
    """Return the templates that serve a label."""
    if label is None:
        return ()
    try:
        wanted = expressions.parse(label)
    except expressions.LabelError:
        return ()
    return tuple(name for name, has in lives.LABELS.items() if wanted.matches(frozenset(has)))
