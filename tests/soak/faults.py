"""Every kind of fault: where it belongs, how it begins and how it ends.

A kind is a function of the world, the strike and its dice (a ``random.Random`` of its own); what it
returns is called when its time is over. What befalls platforms, templates and agents leaves the
backend ``calm`` alone.
"""

import functools

from backends import api
from broker.simulator.inventory import SimulatedRefusal, TaskKind
from tests.soak.script import ALL, ALONE, BESIDE

KINDS = {}  # name -> half of the round
_BEGIN = {}
FRAIL = ("one", "two")
HOST_LABELS = {"one": "a", "two": "b"}  # of builds that run there first
HURT = ("alpha", "beta", "gamma", "delta")  # templates that break; "firm" and "calm" never do


def begin(kind, world, strike, dice):
    """Let it begin; return what ends it."""
    return _BEGIN[kind](world, strike, dice)


def _kind(name, half):
    def note(function):
        KINDS[name], _BEGIN[name] = half, function
        return function

    return note


# --- the controller ---

CONTROLLER = (
    "status 500", "status 502 and 503", "status 401", "status 403", "nodes refused",
    "deletions refused", "nodes refused as sent", "crumbs refused", "slow answers",
    "cut answers", "odd documents", "odd items", "odd computers", "an entry made odd",
    "stale answers", "connections reset", "answers lost", "hanging requests",
)  # fmt: skip
LYING = {"odd computers", "odd items", "an entry made odd", "stale answers", "slow answers"}
"""While the controller's answers are so, nobody can know what is needed in this moment."""


def _controller(kind, world, strike, dice):
    world.controller.faults[kind] = dice.getrandbits(16)

    def end():
        world.controller.faults.pop(kind, None)
        if kind == "stale answers":
            world.controller.kept.clear()

    return end


for _name in CONTROLLER:
    _kind(_name, ALL)(functools.partial(_controller, _name))


@_kind("controller restarts", ALL)
def _restarts(world, strike, dice):
    world.restart(dice.choice([1.0, 5.0, 30.0]))


@_kind("controller prepares to shut down", ALL)
def _quiets_down(world, strike, dice):
    world.sim.quiet_down(world.now, on=True)
    return lambda: world.sim.quiet_down(world.now, on=False)


@_kind("controller's clock is wrong", ALL)
def _skewed(world, strike, dice):
    world.controller.skew_s = dice.choice([-600.0, -5.0, 5.0, 600.0])

    def end():
        world.controller.skew_s = 0.0

    return end


# --- platforms ---

PLATFORM = (
    "unavailable", "rights taken away", "list hangs", "launch hangs", "terminate hangs",
    "capacity hangs", "logs hangs", "listings slow", "listings fail", "listings lag",
    "listings odd", "listings partial", "adapter bug", "launches slow", "launches refused",
    "launch answers lost", "place broken", "terminations fail", "clock skewed",
)  # fmt: skip
BLIND = {
    "unavailable", "rights taken away", "list hangs", "listings slow", "listings fail",
    "listings lag", "listings odd", "listings partial", "adapter bug", "capacity hangs",
}  # fmt: skip
"""While a platform is so, its listing does not show what is there."""


def _platform(kind, world, strike, dice):
    site = world.sites[dice.choice(FRAIL)]
    site.faults[kind] = dice.getrandbits(16)

    def end():
        site.faults.pop(kind, None)
        site.shown = None
        world.note_sight(site)

    return end


for _name in PLATFORM:
    _kind(_name, BESIDE)(functools.partial(_platform, _name))


@_kind("finalizers", BESIDE)
def _finalizers(world, strike, dice):
    site = world.sites[dice.choice(FRAIL)]
    site.faults["finalizers"] = 1

    def end():
        site.faults.pop("finalizers", None)
        site.release()

    return end


def _full(kind, world, strike, dice):
    site = world.sites[dice.choice(FRAIL)]
    site.faults[kind] = 1
    site.resize(len(site.cells) + dice.randint(0, 1))
    world.crowd(dice, dice.choice(["a", "b", "linux"]), dice.randint(5, 20))

    def end():
        site.faults.pop(kind, None)
        if not {"full", "full, and says nothing"} & set(site.faults):
            site.resize(None)

    return end


for _name in ("full", "full, and says nothing"):
    _kind(_name, BESIDE)(functools.partial(_full, _name))


# --- templates ---

BROKEN = (
    "template refused", "image missing", "command missing", "dies before it is online",
    "never connects", "connects late", "dies soon after it is online",
)  # fmt: skip


def _broken(kind, world, strike, dice):
    site, template = world.sites[dice.choice(FRAIL)], dice.choice(HURT)
    world.broken_templates[site.name, template] = kind
    world.crowd(dice, {"alpha": "a", "beta": "b", "gamma": "g", "delta": "d"}[template], 3)
    return lambda: world.broken_templates.pop((site.name, template), None)


for _name in BROKEN:
    _kind(_name, BESIDE)(functools.partial(_broken, _name))


# --- agents ---


def _killed(busy, exit_, world, strike, dice):
    found = world.agent(dice, busy=busy, on=FRAIL)
    if found is None and busy is not None:
        found = world.agent(dice, busy=None, on=FRAIL)
    if found is not None:
        world.kill_instance(found, api.Exit(**exit_))


for _name, _busy, _exit in (
    ("killed in mid-build", True, {"slug": "killed", "code": -9}),
    ("killed before it is online", False, {"slug": "exited", "code": 1}),
    ("out of memory", True, {"slug": "out-of-memory", "code": 137}),
    ("evicted", None, {"slug": "evicted", "message": "node drained"}),
    ("host lost", None, {"slug": "platform-lost"}),
):
    _kind(_name, BESIDE)(functools.partial(_killed, _busy, _exit))


@_kind("a process killed for memory", BESIDE)
def _harmed(world, strike, dice):
    name = world.agent(dice, busy=True, on=FRAIL) or world.agent(dice, busy=None, on=FRAIL)
    if name is not None:
        world.harm(name)


@_kind("builds fail on a host", ALONE)
def _bad_host(world, strike, dice):
    """To be told from builds that fail everywhere takes many of them."""
    site = world.sites[dice.choice(FRAIL)]
    place = dice.choice(site.places)
    world.break_host(place)
    world.run_tests(HOST_LABELS[site.name], world.now + strike.lasts_s)
    return lambda: world.mend_host(place)


@_kind("removed by a person", BESIDE)
def _vanishes(world, strike, dice):
    name = world.agent(dice, busy=None, on=FRAIL)
    if name is not None:
        world.vanish(name)


@_kind("node deleted by a person", BESIDE)
def _node_deleted(world, strike, dice):
    name = world.agent(dice, busy=None, on=FRAIL)
    if name in world.sim.nodes:
        world.excuse(name)
        world.sim.delete_node(world.now, name)


@_kind("channel drops", BESIDE)
def _drops(world, strike, dice):
    name = world.agent(dice, busy=None, on=FRAIL)
    if name in world.sim.nodes:
        world.drops(name)


@_kind("held by a person", BESIDE)
def _held(world, strike, dice):
    name = world.agent(dice, busy=None, on=FRAIL)
    node = world.sim.nodes.get(name)
    if node is None or node.offline_message is not None:
        return None
    world.excuse(name, but_running=True)
    world.sim.take_offline(world.now, name, "I look into it", by="alice")

    def end():
        if (
            node.offline_by == "alice"
            and world.sim.nodes.get(name) is node
            and node.offline_message
        ):
            world.sim.toggle(world.now, name, "")

    return end


# --- people and jobs ---


@_kind("crowd", BESIDE)
def _crowd(world, strike, dice):
    world.crowd(dice, dice.choice(["a", "b", "linux", "g", "a||b"]), dice.randint(8, 25))


@_kind("items cancelled", BESIDE)
def _cancelled(world, strike, dice):
    world.crowd(dice, dice.choice(["a", "b", "firm"]), dice.randint(1, 8))
    asked = [item.id for item in world.sim.wanted if item.label != "calm"]

    def end():
        for number in asked:
            if dice.random() < 0.8:
                try:
                    world.sim.cancel(world.now, number)
                except SimulatedRefusal:
                    continue

    return end


@_kind("labels that nobody serves", BESIDE)
def _nobody(world, strike, dice):
    numbers = world.crowd(
        dice, dice.choice(["nobody", "a&&nobody", "a b c", "((", "!linux&&!d"]), 2
    )

    def end():
        for number in numbers:
            if world.sim.items[number] in world.sim.wanted:
                world.sim.cancel(world.now, number)

    return end


@_kind("pipelines that span", BESIDE)
def _pipelines(world, strike, dice):
    world.crowd(dice, "linux", 3, kind=TaskKind.PIPELINE)


# --- the broker ---


def _life_ends(what, world, strike, dice):
    world.kill_broker(down_s=dice.choice([0.0, 2.0, 20.0]), state=what)


for _name in ("kept", "lost", "damaged"):
    _kind(f"killed, state {_name}", ALL)(functools.partial(_life_ends, _name))


@_kind("state not written", ALL)
def _disk_full(world, strike, dice):
    world.store.is_full = True

    def end():
        world.store.is_full = False

    return end


@_kind("wall clock jumps", ALL)
def _wall(world, strike, dice):
    world.wall_ahead_s = dice.choice([-900.0, -30.0, 30.0, 900.0])
    if dice.random() < 0.5:  # who starts now begins with it
        world.kill_broker(down_s=1.0, state="kept")

    def end():
        world.wall_ahead_s = 0.0

    return end


@_kind("reload: a smaller cap", ALL)
def _cap(world, strike, dice):
    world.reload(cap=dice.choice([0, 2, 5]))
    return world.reload


@_kind("reload: another definition", ALL)
def _definition(world, strike, dice):
    world.definition += 1
    world.reload()


@_kind("reload: a template goes", ALL)
def _goes(world, strike, dice):
    world.reload(without=(dice.choice(["alpha", "gamma", "delta"]),))
    return world.reload


@_kind("reload: a template pauses", ALL)
def _pauses(world, strike, dice):
    world.reload(paused="true")
    return world.reload
