"""The platforms: the product's memory platform, and what can be wrong with one.

A ``Site`` outlives the broker's lives; each life reaches it through a ``Backend`` of its own, by
which nothing is done any more once that life has been killed.
"""

import asyncio
import collections
import contextlib
import math
import zlib

import attrs

from backends import api, memory

OWNER = "soak"
OTHER = "somebody-else"
PET = "pet"
"""A node and an instance on each platform that belong to another broker."""
_TRAVELS_S = 0.02
_SKEWS = (-600.0, 600.0)


class Platform(memory.Platform):
    """The product's, which says when something is due next."""

    def __init__(self, site, settings):
        super().__init__(settings, on_start=site.begins, on_stop=site.ended)
        self.site = site

    def advance(self, now):
        super().advance(now)
        self.site.arm()


class Site:
    """One platform, its faults, and who is told of its changes."""

    def __init__(self, world, name, *, launch_s):
        self.world, self.name = world, name
        self.faults = {}  # kind -> dice
        self.terms = collections.Counter()  # of each kind, how often it has begun
        self.shown = None  # the picture that a lagging listing gives
        self.shown_at = 0.0
        self.held = set()  # instances that something keeps from going
        self._armed_at = None
        self._version = 0
        self.changed = asyncio.Event()
        self.places = tuple(f"{name}-{letter}" for letter in "abcd")
        self.platform = Platform(
            self,
            memory.MemorySettings(launch_s=launch_s, terminate_s=0.3, places=self.places),
        )

    @property
    def cells(self):
        return self.platform._cells

    def ours(self):
        return {name: cell for name, cell in self.cells.items() if cell.owner == OWNER}

    def live(self):
        """Return our instances that have not ended."""
        ended = {api.InstanceState.EXITED, api.InstanceState.STOPPING}
        return {name: cell for name, cell in self.ours().items() if cell.state not in ended}

    def arm(self):
        """Let the loop come back when something is due, and tell whoever watches."""
        if self.platform.version != self._version:
            self._version = self.platform.version
            self.changed.set()
        due = self.platform.wake_at()
        if due is not None and due != self._armed_at:
            self._armed_at = due
            self.world.at(due, self._wake, due)

    def _wake(self, due):
        if self._armed_at == due:
            self._armed_at = None
        self.platform.advance(max(self.world.now, due))

    def begins(self, spec):
        if spec.metadata["owner"] == OWNER:
            self.world.instance_runs(self, spec)

    def ended(self, name):
        self.world.instance_ended(name)

    def kill(self, name, end):
        """Let an instance end by a fault of the platform."""
        if name in self.live():
            self.platform.kill(name, end, now=self.world.now)

    def vanish(self, name):
        """Let somebody remove an instance behind everybody's back."""
        cell = self.cells.pop(name, None)
        if cell is not None:
            self.world.instance_ended(name)
            self.arm()

    def harm(self, name, mishap):
        """Let something befall an instance that lives on."""
        self.cells[name].mishap = mishap
        self.platform.version += 1
        self.arm()

    def resize(self, capacity):
        """Let it have so many places; None: it is endless."""
        self.platform.settings = attrs.evolve(self.platform.settings, capacity=capacity)
        self.changed.set()

    def hold(self, name):
        """Keep an instance that ends from going."""
        if name in self.cells:
            self.held.add(name)
            self.cells[name].due_at = math.inf

    def release(self):
        """Let everybody go who was held."""
        for name in self.held & set(self.cells):
            self.cells[name].due_at = self.world.now
        self.held.clear()
        self.platform.advance(self.world.now)

    def picture(self):
        """Return what a listing shows; raises what stands in its way."""
        dice, faults = self.world.dice, self.faults
        seen = self.platform.visible(owner=OWNER, now=self.world.now)
        if "listings lag" in faults:
            if self.shown is None or self.world.now - self.shown_at > faults["listings lag"] % 9:
                self.shown, self.shown_at = seen, self.world.now
            seen = self.shown
        if self.held:
            seen = [_held(one) if one.name in self.held else one for one in seen]
        if "clock skewed" in faults:
            skew_s = _SKEWS[faults["clock skewed"] % 2]
            seen = [_skewed(instance, skew_s) for instance in seen]
        if "listings odd" in faults:
            kept = [one for one in seen if dice.random() < 0.6]
            raise api.Partial("an entry is odd", seen=kept, odd=True)
        return seen


def _held(instance):
    return attrs.evolve(instance, spent=True, detail="finalizer example.test/hold")


def _skewed(instance, skew_s):
    end = instance.exit
    if end is not None and end.at is not None:
        end = attrs.evolve(end, at=end.at + skew_s)
    created_at = instance.created_at + skew_s if instance.created_at is not None else None
    return attrs.evolve(instance, created_at=created_at, exit=end)


class Backend:
    """The contract, for one life of the broker, with the site's faults."""

    kind = "memory"

    def __init__(self, site, life):
        self.site, self._life, self._world = site, life, site.world
        self._inner = memory.MemoryBackend(site.platform, owner=OWNER, now=lambda: site.world.now)
        self._seen = set()  # names of earlier listings, of this life

    async def _reach(self, verb):
        await self._life.breathe()
        site, faults = self.site, self.site.faults
        self._world.tally.asked(site.name, self._world.now, verb)
        await asyncio.sleep(_TRAVELS_S)
        await self._life.breathe()
        if "unavailable" in faults:
            raise api.Unavailable("connection refused")
        if "rights taken away" in faults:
            raise api.Unauthorized("permission denied")
        if f"{verb} hangs" in faults:
            await asyncio.get_running_loop().create_future()

    async def reserve(self, spec):
        with self._counted():
            await self._reach("reserve")
            self._refuse(spec)
            with self._world.loop.outside():
                self._world.instance_asked_for(self.site, spec)
            await self._made(self._inner.reserve, spec)

    async def launch(self, spec):
        with self._counted():
            await self._launch(spec)

    async def _launch(self, spec):
        site, world = self.site, self._world
        late = "launch hangs" in site.faults and world.dice.random() < 0.5
        if late:
            await asyncio.sleep(_TRAVELS_S)
            await self._life.breathe()
        else:
            await self._reach("launch")
        if "launches slow" in site.faults:
            await asyncio.sleep(world.dice.uniform(5.0, 45.0))
            await self._life.breathe()
        self._refuse(spec)
        await self._made(self._inner.launch, spec)
        if late:
            await asyncio.get_running_loop().create_future()
        if "launch answers lost" in site.faults:
            raise api.Unavailable("the answer was lost")

    @contextlib.contextmanager
    def _counted(self):
        try:
            yield
        except api.BackendError:
            self._world.tally.refused(self.site.name, self._world.now)
            raise

    def _refuse(self, spec):
        site = self.site
        if "launches refused" in site.faults:
            raise api.Unavailable("try again", reach=api.Reach.LAUNCH)
        if "place broken" in site.faults:
            raise api.Unavailable("host one does not answer", place="host-one")
        if self._world.broken(site, spec.metadata["template"]) == "template refused":
            error = api.Rejected("manifest unknown", reach=api.Reach.TEMPLATE)
            error.nothing_left = True
            raise error

    async def _made(self, make, spec):
        is_new = spec.name not in self.site.cells
        with self._world.loop.outside():
            await make(spec)
            if is_new:
                self._world.instance_made(self.site, spec)

    async def list(self):
        await self._reach("list")
        site, world = self.site, self._world
        if "listings slow" in site.faults:
            await asyncio.sleep(world.dice.uniform(2.0, 9.0))
            await self._life.breathe()
        if "listings fail" in site.faults:
            raise api.Unavailable("500")
        if "adapter bug" in site.faults:
            raise KeyError("Id")
        with world.loop.outside():
            seen = site.picture()
        if "listings partial" in site.faults:
            # of a place that has not answered since this life began nothing earlier is known
            seen = [one for one in seen if not self._is_hidden(one)]
            self._seen |= {one.name for one in seen}
            raise api.Partial("host two has not answered yet", seen=seen)
        self._seen |= {one.name for one in seen}
        return seen

    def _is_hidden(self, instance):
        is_old = instance.created_at is not None and instance.created_at < self._life.began_at
        return (
            is_old and instance.name not in self._seen and zlib.crc32(instance.name.encode()) % 2
        )

    async def watch(self):
        while True:
            await self._life.breathe()
            self.site.changed.clear()
            await self.site.changed.wait()
            await asyncio.sleep(0.1)
            yield

    async def terminate(self, name, *, grace_s):
        await self._reach("terminate")
        if "terminations fail" in self.site.faults:
            raise api.Unavailable("timeout")
        with self._world.loop.outside():
            self._world.touches_instance(self.site, name)
        if name not in self.site.ours():
            raise api.NotFound(f"no instance {name}")
        gone_at = self.site.platform.stop(name, owner=OWNER, now=self._world.now)
        if "finalizers" in self.site.faults:
            self.site.hold(name)
        await asyncio.sleep(max(0.0, gone_at - self._world.now))
        while name in self.site.held:
            await asyncio.sleep(1.0)
            await self._life.breathe()

    async def capacity(self):
        await self._reach("capacity")
        if "full, and says nothing" in self.site.faults:
            return None
        return await self._inner.capacity()

    async def logs(self, name, *, tail):
        await self._reach("logs")
        return "java.io.IOException: what it said last\n"

    def work_dir(self, name):
        return f"/memory/{name}"

    async def aclose(self):
        return None
