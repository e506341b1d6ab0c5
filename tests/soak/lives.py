"""The broker's lives: the product put together by its own assembly, run, and killed.

A life that was killed does nothing any more: whatever it still asks ends where it is asked. What
it had sent before is done or not, as the world decides.
"""

import asyncio
import types
from unittest import mock

from broker import assembly, clock
from broker.config import kinds, loading
from tests.soak import sites, wire

CONFIG = """
owner: soak
controller: {{url: '{url}', user: {user}, password: env:PASSWORD}}
listen: off
state_dir: state
limits: {{agents: 34}}
backends:
  one: {{kind: memory, cap: 12}}
  two: {{kind: memory, cap: 12}}
  calm: {{kind: memory, cap: 10}}
advanced: {{backoff_max: 120s, rejected_retry: 120s}}
defaults:
  retention: {{idle: 45s}}
  connect_deadline: 60s
templates:
{templates}
"""
TEMPLATES = {
    "alpha": "{labels: a linux, backends: [one, two], cap: %(cap)s, environment: {V: '%(version)s'}}",
    "beta": "{labels: b linux, backends: [two, one], retention: {once: true}, paused: %(paused)s}",
    "gamma": "{labels: g linux, backends: [one], executors: 2, retention: {max_builds: 4}}",
    "delta": "{labels: d, backends: [two], cap: 3, warm: {min_idle: 1}}",
    "firm": "{labels: firm, backends: [one, two], retention: {once: true}}",
    "calm": "{labels: calm, backends: [calm], retention: {once: true}}",
}
LABELS = {
    "alpha": {"a", "linux"}, "beta": {"b", "linux"}, "gamma": {"g", "linux"}, "delta": {"d"},
    "firm": {"firm"}, "calm": {"calm"},
}  # fmt: skip
BACKENDS = {
    "alpha": ("one", "two"), "beta": ("two", "one"), "gamma": ("one",), "delta": ("two",),
    "firm": ("one", "two"), "calm": ("calm",),
}  # fmt: skip
ONCE = {"beta", "firm", "calm"}
MINE = {"cap": 8, "version": 1, "paused": "false", "without": ()}


def settings(**changes):
    """Return the settings in force, with what differs from ``MINE``."""
    values = {**MINE, **changes}
    lines = [
        f"  {name}: {text % values if '%(' in text else text}"
        for name, text in TEMPLATES.items()
        if name not in values["without"]
    ]
    text = CONFIG.format(url=wire.URL, user=wire.USER, templates="\n".join(lines))
    return loading.parse(text, kinds.classes(), environ={"PASSWORD": wire.PASSWORD})


class Store:
    """The state directory, of which each life holds an end of its own."""

    def __init__(self):
        self.values = {}
        self.is_full = False

    def load(self, key):
        return self.values.get(key)

    def save(self, key, value):
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.values[key] = value

    def damage(self, dice):
        """Leave of each file what a power loss leaves, or somebody's hand."""
        for key, value in self.values.items():
            cut = value[: dice.randrange(len(value) + 1)]
            self.values[key] = dice.choice([cut, "", "null", "[1]", value.replace('"', "'"), "\0"])


class _End:
    """The store as one life has it."""

    def __init__(self, store, life):
        self._store, self._life = store, life

    def load(self, key):
        return self._store.load(key)

    def save(self, key, value):
        if not self._life.dead:
            self._store.save(key, value)
            self._life.world.saved(key, value)


class Life:
    """One life of the broker."""

    def __init__(self, world):
        self.world = world
        self.dead = False
        self.began_at = world.now
        dice = world.dice
        self.watch = clock.Clock(
            wall=lambda: world.now + world.wall_ahead_s, monotonic=world.loop.time
        )
        secrets = types.SimpleNamespace(
            token_hex=lambda count: f"{dice.getrandbits(8 * count):0{2 * count}x}",
            choice=dice.choice,
        )
        backends = {name: sites.Backend(site, self) for name, site in world.sites.items()}
        with (
            mock.patch.object(assembly, "make_backends", return_value=backends),
            mock.patch.object(assembly, "secrets", secrets),
        ):
            self.broker = assembly.build(world.settings, _End(world.store, self), watch=self.watch)
        self.broker.session._http = wire.Session(world, self)
        self.broker.reconciler.roll = dice.random
        self.broker.reconciler.new_id = world.next_id
        self.task = world.loop.create_task(self.broker.run(), name="life")
        self.task.add_done_callback(self._ended)

    async def breathe(self):
        """End whatever a dead life still does."""
        if self.dead:
            raise asyncio.CancelledError

    @property
    def state(self):
        return self.broker.reconciler.state

    def kill(self):
        self.dead = True
        self.task.cancel()

    def _ended(self, task):
        if not self.dead:
            why = "it was cancelled" if task.cancelled() else repr(task.exception())
            self.world.life_ended(why)
