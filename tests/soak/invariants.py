"""What must hold, whatever is wrong: judged on the world itself, not on what the broker believes.

Each is counted as often as it was checked. What does not hold is kept with the step of the script
and the moment, so that it can be played again.
"""

import collections
import logging
import re

from attrs import Factory, define, frozen

from backends import api
from broker.core import model
from broker.core.demand import labels as expressions
from broker.core.fleet import builds, places
from broker.simulator.inventory import Fate
from broker.status import documents, terminal
from tests.soak import faults, lives, wire
from tests.soak.sites import OWNER, PET

NAMES = (
    "no build is lost", "no build is ended by us", "caps hold", "no more than needed",
    "served in time", "nothing is left over", "beside it all goes on as fast",
    "platform and controller are asked politely", "every reason is of one that serves",
    "every death has its cause", "the log is bounded", "what is not ours stays",
    "no name twice", "no mistake of ours", "the broker lives", "a mishap is named",
    "a broken host is named and left alone", "no healthy host is blamed",
)  # fmt: skip
MORE = 2
"""Agents of a template that may be there beyond what waits, at most, when one is made."""
SURELY_S = 12.0
"""For so long after a platform or the controller could not be seen rightly nobody can know."""
KEPT = 5
"""Of what does not hold, of each invariant."""
WITHIN_S = 900.0
"""After the last fault everything is served within this, and after that all has gone."""
SLOWER = 1.2
"""How much longer a start on the healthy backend may take, on average, beside what is wrong."""
POLITE = {
    ("one", "refused"): 60, ("two", "refused"): 60, ("calm", "refused"): 0,
    ("controller", "refused"): 150, "controller": 2200, "one": 850, "two": 850, "calm": 850,
}  # fmt: skip
"""Calls and refusals in the worst minute.

Refusals: a burst of twenty starts of each of three templates may be under way before the first is
refused. The controller: four looks a second (``poll.busy`` is at its least here) of two reads each,
two glances at single-use agents between them, and nine requests for each of a hundred agents, for
single-use ones are worn out as fast when a host fails every build at once.
"""
LINES = 800
"""Of the log, in the worst minute: seven of each of these agents."""
WORDS = 1500
"""Characters of a line of the log, without its fields."""
ENOUGH = builds.LEAST_SCORE + 4
"""Times that builds fared worse on a host than elsewhere, as far as the broker was told, until it
must be named."""
BLAMED_S = places.WINDOW_S + places.AVOID_S
"""For so long after its end a broken host may be blamed."""
_CAUSES = {slug: model.Cause.of_exit(slug) for slug in api.EXIT_SLUGS}
_VAGUE = {
    model.Cause.LOST_INSTANCE, model.Cause.LOST_UNKNOWN, model.Cause.SWEPT,
    model.Cause.CONNECT_TIMEOUT,
}  # fmt: skip
_WITH_NODE = model.RetireAgent | model.SweepNode
_NAME = re.compile(rf"{OWNER}-[a-z]+-[a-z0-9]{{6}}")
_TEMPLATE = re.compile(rf"\b({'|'.join(lives.LABELS)})\b(?!')")


@frozen(kw_only=True)
class Broken:
    """Something did not hold."""

    what: str
    text: str
    step: int
    at: float

    def __str__(self):
        return f"{self.what}: {self.text} (step {self.step}, after {self.at:.3f} s)"


@define(kw_only=True)
class _Harmed:
    """An agent that something befell, until that is told."""

    site: object
    name: str
    words: str
    calm: int = 0  # looks in a row at which nothing was wrong


@define(kw_only=True)
class _Host:
    """A host that is, or was, broken."""

    ended_at: float | None = None
    life: object = None  # of the broker that could see these ...
    builds: list = Factory(list)  # ... items that began since, and whether on this host


class Invariants:
    """Judges one run."""

    def __init__(self, world):
        self.world = world
        self.checked = collections.Counter()
        self.broken = []
        self._failed = collections.Counter()
        self._asked_at = {}  # name -> when its node was asked for
        self._policy_of = {}  # name -> caps then
        self._names = set()
        self._sightless_until = collections.defaultdict(float)
        self._reloaded_at = 0.0
        self._deaths = set()
        self._ended = set()
        self._item_at = 0
        self._harmed = []
        self._told = {}  # name -> the mishap that was named
        self._words = set()  # of all mishaps
        self._hosts = {}  # place -> _Host
        self._named_at = {}  # place -> since when it is named, by this life

    def hold(self, what, holds, text):
        self.checked[what] += 1
        self._failed[what] += not holds
        if not holds and self._failed[what] <= KEPT:
            world = self.world
            self.broken.append(Broken(what=what, text=text, step=world.step, at=world.loop.time()))
        return holds

    # --- what nobody can know just now ---

    def seen_badly(self, name):
        self._sightless_until[name] = self.world.now + SURELY_S

    def reloaded(self):
        self._reloaded_at = self.world.now

    def look_around(self):
        """Note who is seen badly in this moment."""
        world = self.world
        for site in world.sites.values():
            if faults.BLIND & set(site.faults):
                self.seen_badly(site.name)
        lies = faults.LYING & set(world.controller.faults)
        if lies or world.sim.is_down(world.now) or world.sim.quieting_down:
            self.seen_badly("controller")

    def is_seen(self, *names):
        self.look_around()
        return all(self.world.now >= self._sightless_until[name] for name in names)

    # --- the controller's nodes ---

    def node_asked_for(self, name):
        if not name.startswith((f"{OWNER}-placeholder", f"{OWNER}-claim")):
            self._asked_at.setdefault(name, self.world.now)

    def node_made(self, name):
        if name in self._asked_at:
            self.hold("no name twice", name not in self._names, f"node {name} is made again")
            self._names.add(name)

    def touches_node(self, node, verb):
        ours = wire.is_ours(node, OWNER) or node.name.startswith(f"{OWNER}-")
        self.hold("what is not ours stays", ours, f"{verb} of node {node.name}")
        if verb != "doDelete":
            return
        running = [slot.item.id for slot in node.slots if slot.item is not None and slot.running]
        if node.connected:
            self.hold("no build is ended by us", not running, f"{node.name} goes, {running} run")

    # --- the platforms' instances ---

    def instance_asked_for(self, site, spec):
        name, world = spec.name, self.world
        self._asked_at.setdefault(name, world.now)
        if name not in self._policy_of and world.life is not None:
            self._policy_of[name] = world.life.broker.policy

    def touches_instance(self, site, name):
        world = self.world
        cell = site.cells.get(name)
        owner = cell.owner if cell is not None else OWNER
        self.hold("what is not ours stays", owner == OWNER, f"{name} of {owner} is terminated")
        node = world.sim.nodes.get(name)
        if node is not None and node.connected:
            running = [s.item.id for s in node.slots if s.item is not None and s.running]
            self.hold("no build is ended by us", not running, f"{name} is ended, {running} run")
        if world.life is not None and cell is not None and not cell.held:  # it was an agent
            named = any(death.name == name for death in world.life.state.deaths)
            self.hold("every death has its cause", named, f"{name} goes, and nobody says why")

    def instance_made(self, site, spec):
        world, name = self.world, spec.name
        template = spec.metadata["template"]
        self._check_caps(site, name, template)
        self._judge_place(site, name)
        asked_at = self._asked_at.get(name, world.now)
        places = lives.BACKENDS[template]
        if not self.is_seen("controller", *places) or world.now - asked_at > SURELY_S:
            return
        if world.now - self._reloaded_at < SURELY_S or world.life is None:
            return
        if asked_at - world.life.began_at < SURELY_S:
            return
        there = self._useful(template)
        wanted = self._wanted(template, since=asked_at - 5.0)
        warm = 1 if template == "delta" else 0
        slots = 2 if template == "gamma" else 1
        self.hold(
            "no more than needed",
            (len(there) - 1) * slots < wanted + warm + MORE * slots,
            f"{len(there)} agents of {template} for {wanted} items: {sorted(there)}",
        )

    def _check_caps(self, site, name, template):
        world = self.world
        policy = self._policy_of.get(name)
        if policy is None or world.life is None or not self.is_seen(*world.sites):
            return
        if world.life.began_at > world.now - SURELY_S:
            return
        # what only a finalizer keeps takes nothing from anybody
        held = {n: _counting(one) for n, one in world.sites.items()}
        mine = {n: c for cells in held.values() for n, c in cells.items()}
        of_template = sum(c.spec.metadata["template"] == template for c in mine.values())
        cap = policy.template(template).cap if policy.template(template) else None
        if cap is not None and world.now - self._reloaded_at > SURELY_S:
            self.hold("caps hold", of_template <= cap, f"{of_template} of {template}, cap {cap}")
        cap = policy.backends[site.name].cap
        there = len(held[site.name])
        self.hold("caps hold", cap is None or there <= cap, f"{there} on {site.name}, cap {cap}")
        cap = policy.cap
        self.hold("caps hold", cap is None or len(mine) <= cap, f"{len(mine)} in all, cap {cap}")

    def _useful(self, template):
        """Return who could still work for what waits."""
        world, found = self.world, set()
        for site in world.sites.values():
            for name, cell in site.live().items():
                if cell.spec.metadata["template"] != template:
                    continue
                node = world.sim.nodes.get(name)
                is_old = world.now - cell.created_at > 50.0
                if cell.held:  # its room is taken, it is yet to be launched
                    found |= set() if is_old else {name}
                    continue
                if node is None or node.offline_message is not None or node.scheduled:
                    continue
                if is_old and not node.connected:
                    continue
                if node.connected_at is not None and not node.connected:
                    continue
                if template in lives.ONCE and node.connected_at is not None and not node.idle:
                    continue
                if all(slot.item is not None for slot in node.slots):
                    continue
                if template in lives.ONCE and self._has_worked(name):
                    continue
                found.add(name)
        return found

    def _has_worked(self, name):
        return any(i.node == name and i.ended_at is not None for i in self._recent_items())

    def _recent_items(self):
        """Return the items that are open or have ended lately."""
        items = self.world.sim.items
        while self._item_at < len(items):
            item = items.get(self._item_at + 1)
            if item is None or item.fate is Fate.OPEN:
                break
            if max(item.ended_at or 0.0, item.left_at or 0.0) > self.world.now - 300.0:
                break
            self._item_at += 1
        return (items[n] for n in range(self._item_at + 1, len(items) + 1))

    def _wanted(self, template, *, since):
        labels = frozenset(lives.LABELS[template])
        return sum(
            item.wanted is not None
            and item.wanted.fits(labels)
            and (item.left_at is None or item.left_at >= since)
            for item in self._recent_items()
        )

    # --- mishaps ---

    def harmed(self, site, name, words):
        self._harmed.append(_Harmed(site=site, name=name, words=words))
        self._words.add(words)

    def judge_mishaps(self):
        """Judge whether what befell agents is told, once nothing has hidden it for a while."""
        for one in list(self._harmed):
            if one.name not in one.site.live():
                self._harmed.remove(one)
                continue
            one.calm = one.calm + 1 if self._is_calm(one.site) else 0
            told = one.calm > 0 and self._tells(one)
            if told or one.calm >= SURELY_S:
                self.hold("a mishap is named", told, f"{one.name}: nobody tells {one.words!r}")
                self._told[one.name] = one.words
                self._harmed.remove(one)

    def _is_calm(self, site):
        world = self.world
        if site.faults or world.controller.faults or world.sim.is_down(world.now):
            return False
        if world.life is None or world.now - world.life.began_at < SURELY_S:
            return False
        seen = world.life.state.world  # a listing that hangs since then is told as such
        return seen is not None and seen.backends[site.name].synced

    def _is_calm_at(self, backend):
        return all(self._is_calm(s) for s in self.world.sites.values() if s.name == backend)

    def _tells(self, one):
        """Return whether the page names it, and the metric has counted it."""
        broker = self.world.life.broker
        rows = [row for row in documents.agents(broker)["agents"] if row["name"] == one.name]
        if not any(one.words in terminal.mishap_words(row) for row in rows):
            return False
        template = one.site.cells[one.name].spec.metadata["template"]
        counted = re.compile(rf'agents_harmed_total{{[^}}]*template="{template}"}} ([0-9.]+)')
        text = broker.recorder.render()[0].decode()
        return sum(float(number) for number in counted.findall(text)) > 0

    def node_changed(self, node, verb):
        """What takes an agent out of service says what has befallen it.

        What was written before that stays as it is; at the deletion the certificate tells it.
        """
        words, message = self._told.get(node.name), node.offline_message
        if verb == "doDelete":
            return
        sites_ = [site for site in self.world.sites.values() if node.name in site.live()]
        if words is None or not message or not message.startswith(model.CORDON_MARK):
            return
        if all(self._is_calm(site) for site in sites_):
            self.hold("a mishap is named", words in message, f"{node.name} goes: {message!r}")

    def _judge_words(self, plan):
        for agent in plan.agents:
            mishap = agent.memory.mishap if agent.memory is not None else None
            if mishap is not None:
                self.hold(
                    "a mishap is named", mishap.text in self._words, f"{agent.name}: {mishap}"
                )

    # --- hosts ---

    def host_breaks(self, place):
        self._hosts[place] = _Host()

    def host_mended(self, place):
        self._hosts[place].ended_at = self.world.now

    def is_named(self, place):
        return place in self._named_at

    def build_begins(self, item, where):
        """Note the builds from which anybody could tell."""
        for place, host in self._hosts.items():
            if host.ended_at is None and where is not None:
                if host.life is not self.world.life:
                    host.life, host.builds = self.world.life, []
                host.builds.append((item, where == place))

    def _worse(self, host):
        """Return how often a build failed on it and the next one of its job elsewhere did not.

        As far as the broker could learn it: by results that it was told, and by what has run for
        long. Each comparison takes all that began before it.
        """
        worse, here, others = 0, set(), set()
        for item, is_here in sorted(host.builds, key=lambda build: build[0].started_at or 0.0):
            lasted_s = (item.ended_at or self.world.now) - (item.started_at or self.world.now)
            if is_here and item.id in self.world.told_failed:
                here.add(item.job)
            elif not is_here and lasted_s > builds.QUICK_S:
                others.add(item.job)
            if here & others:
                worse += 1
                here, others = set(), set()
        return worse

    def judge_hosts(self):
        """Judge whether a host that fails builds is named, once the broker knows enough."""
        for place, host in self._hosts.items():
            if host.ended_at is None and host.life is self.world.life and host.life is not None:
                if not self.is_named(place) and self._worse(host) < ENOUGH:
                    continue
                what = "a broken host is named and left alone"
                self.hold(what, self.is_named(place), f"{place} fails builds, nobody says so")

    def _judge_hosts(self, plan):
        now = self.world.life.watch.now()  # it may have begun while the wall clock was wrong
        named = {
            key.place: backoff.reason
            for key, backoff in plan.ledger.backoffs.items()
            if backoff.cause is model.Cause.BLACK_HOLE and backoff.until_at > now
        }
        for place in named.keys() - self._named_at.keys():
            if " build on " not in named[place]:
                continue  # for agents that ended: faults of a whole site may look like that a while
            self.hold(
                "no healthy host is blamed", self._was_broken(place), f"{place}: {named[place]}"
            )
        self._named_at = {p: self._named_at.get(p, self.world.now) for p in named}
        for action in plan.actions:
            if isinstance(action, model.CordonAgent) and action.cause is model.Cause.BLACK_HOLE:
                place = self.world.place_of(action.name)
                fine = place is None or self._was_broken(place)
                self.hold("no healthy host is blamed", fine, f"{action.name} on {place}: {action}")

    def _was_broken(self, place):
        host = self._hosts.get(place)
        if host is None:
            return False
        return host.ended_at is None or self.world.now - host.ended_at < BLAMED_S

    def _judge_place(self, site, name):
        """No agent is started on a host that is named, while there is another one."""
        place = site.cells[name].place
        since = self._named_at.get(place)
        asked_at = self._asked_at.get(name, self.world.now)
        is_named = since is not None and asked_at > since + 1.0
        if is_named or since is None:
            alone = all(other in self._named_at for other in site.places)
            what = "a broken host is named and left alone"
            self.hold(what, not is_named or alone, f"{name} is started on {place}")

    # --- each turn ---

    def turned(self, taken):
        """Judge what one turn of the broker has made."""
        plan, world = taken.state.plan, taken.state.world
        self.look_around()
        mine = "no mistake of ours"
        self.hold(mine, plan.overshoot == 0, f"{plan.overshoot} ordered beyond what is wanted")
        if self.is_seen("controller"):
            self.hold(mine, not plan.illegal, f"phase changes {plan.illegal}")
        names = [action.name for action in plan.actions]
        self.hold(mine, len(names) == len(set(names)), f"two actions for one: {plan.actions}")
        busy = {agent.name for agent in plan.agents if agent.phase is model.Phase.BUSY}
        gone = [
            action.name
            for action in plan.actions
            if isinstance(action, model.Removal)
            and action.name in busy
            and not (isinstance(action, model.ReleaseAgent) and self._is_dead(action.name))
        ]
        self.hold("no build is ended by us", not gone, f"{gone} work, and are to go")
        self._judge_causes(taken)
        self._judge_words(plan)
        self._judge_hosts(plan)
        if world.controller.synced:
            self._judge_reasons(world.controller, plan)

    def _is_dead(self, name):
        """Return whether an agent has gone: only the deletion of its node ends its steps."""
        node = self.world.sim.nodes.get(name)
        return node is None or not node.connected

    def _judge_reasons(self, view, plan):
        unmet = {one.item: one for one in plan.unmet}
        what = "every reason is of one that serves"
        for item in view.items:
            if item.stage is model.Stage.PENDING:
                continue
            one = unmet.get(item.id)
            if not self.hold(what, one is not None and bool(one.text), f"{item.id} has none"):
                continue
            expression = one.label.expression
            is_pinned = expression is not None and _NAME.fullmatch(expression)
            if expression is None or is_pinned or one.reason is model.WaitReason.NO_TEMPLATE:
                continue
            told = set(_TEMPLATE.findall(_NAME.sub("", one.text)))
            told |= {one.template} if one.template is not None else set()
            wrong = [name for name in told if not _serves(name, expression)]
            self.hold(what, not wrong, f"{one.text!r} of {expression!r} is of {wrong}")

    def _judge_causes(self, taken):
        agents = {agent.name: agent for agent in taken.state.plan.agents}
        for action in taken.orders:
            instance = agents[action.name].instance if action.name in agents else None
            if instance is None or instance.exit is None or not isinstance(action, _WITH_NODE):
                continue
            wanted = _CAUSES[instance.exit.slug]
            self.hold(
                "every death has its cause", action.cause not in _VAGUE - {wanted},
                f"{action.name} ended of {instance.exit.slug}, and goes for {action.cause}",
            )  # fmt: skip

    def judge_deaths(self):
        """Judge what is said of those that ended since the last time."""
        life = self.world.life
        if life is None:
            return
        for death in life.state.deaths:
            key = (death.name, death.at)
            if key in self._deaths:
                continue
            self._deaths.add(key)
            what = "every death has its cause"
            self.hold(what, isinstance(death.cause, model.Cause) and death.text, str(death))
            words = self._told.get(death.name)
            if words is not None and not death.cause.accident and self._is_calm_at(death.backend):
                self.hold("a mishap is named", words in death.text, str(death))

    # --- at the end ---

    def judge_builds(self):
        """Judge what became of the items that have ended since the last time."""
        excused = self.world.excused
        for item in self._recent_items():
            if item.fate is Fate.OPEN or item.id in self._ended:
                continue
            self._ended.add(item.id)
            fine = item.id in excused
            lost, failed = item.fate is Fate.LOST, item.fate is Fate.FAILED
            self.hold("no build is lost", fine or not lost, f"item {item.id} is lost")
            self.hold("no build is ended by us", fine or not failed, f"{item.id} died of us")

    def judge_foreign(self):
        world = self.world
        self.hold("what is not ours stays", PET in world.sim.nodes, "a node of others is gone")
        for site in world.sites.values():
            self.hold("what is not ours stays", PET in site.cells, "an instance of others is gone")

    def judge_calls(self):
        """Judge what was asked in the worst minute so far."""
        most = self.world.tally.most
        for who, bound in POLITE.items():
            self.hold(
                "platform and controller are asked politely", most[who] <= bound,
                f"{who}: {most[who]} in a minute, at most {bound}",
            )  # fmt: skip
        self.hold("the log is bounded", most["log"] <= LINES, f"{most['log']} lines in a minute")

    def judge_left(self):
        left = self.world.left()
        self.hold("nothing is left over", not any(left.values()), str(left))

    def judge_served(self, waiting, reasons):
        told = [(item.id, item.label, reasons.get(item.id)) for item in waiting[:10]]
        self.hold("served in time", not waiting, f"{len(waiting)} wait still: {told}")

    def judge_calm(self, beside, alone):
        """Judge the mean start beside faults (seconds) against that without."""
        self.hold(
            "beside it all goes on as fast", beside <= SLOWER * alone,
            f"a start takes {beside:.2f} s beside what is wrong, {alone:.2f} s without",
        )  # fmt: skip


class Log(logging.Handler):
    """Counts the lines of the log; one that tells of a bug is a mistake of ours."""

    def __init__(self, world):
        super().__init__(logging.INFO)
        self.world = world
        self.lines = collections.Counter()

    def emit(self, record):
        world = self.world
        self.lines[record.levelname, record.msg] += 1
        world.tally.line(world.now)
        words = len(record.getMessage())
        world.invariants.hold("the log is bounded", words <= WORDS, f"a line of {words}")
        if record.levelno >= logging.ERROR and not _is_scripted(record):
            text = f"{record.getMessage()} {record.exc_info and record.exc_info[1]!r}"
            world.invariants.hold("no mistake of ours", False, text)


def _is_scripted(record):
    """Whether a bug is that of an adapter, which the script has made."""
    return record.getMessage() == "listing failed by a bug" and isinstance(
        record.exc_info[1], KeyError
    )


def _serves(template, expression):
    try:
        return expressions.parse(expression).matches(frozenset(lives.LABELS[template]))
    except expressions.LabelError:
        return False


def _counting(site):
    """Return the instances of ours on a platform that count for a cap."""
    return {name: cell for name, cell in site.ours().items() if name not in site.held}
