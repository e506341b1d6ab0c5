"""One run: a script is played to a broker in simulated time, and judged."""

import asyncio
import logging
import random
import statistics
import time
import zlib
from unittest import mock

from attrs import Factory, define

from broker.loop import turn
from outside import secrets
from tests.soak import faults, script
from tests.soak.clockwork import Clockwork
from tests.soak.invariants import WITHIN_S, Invariants, Log
from tests.soak.world import World

LOOK_S = 1.0


@define(kw_only=True)
class Report:
    """What one run was like."""

    seed: str
    rounds: int
    strikes: dict = Factory(dict)  # of each kind
    together: int = 0  # strikes that began while another fault was there
    checked: dict = Factory(dict)
    broken: list = Factory(list)
    items: int = 0
    builds: int = 0
    lost: int = 0
    ended_by_us: int = 0
    excused: int = 0
    left: dict = Factory(dict)
    longest_ms: float = 0.0
    turns: int = 0
    turn_ms: float = 0.0  # all of them
    calls: dict = Factory(dict)
    most: dict = Factory(dict)
    lines: dict = Factory(dict)
    simulated_s: float = 0.0
    took_s: float = 0.0
    calm_s: list = Factory(list)  # starts beside faults
    alone_s: list = Factory(list)  # starts without any
    trace: int = 0


class Run:
    """Plays one script."""

    def __init__(self, seed, *, rounds, only=None, plan=None):
        self.seed = seed
        kinds = {k: half for k, half in faults.KINDS.items() if only is None or k in only}
        self.script = plan or script.script(seed, kinds, rounds=rounds)
        self.report = Report(seed=seed, rounds=rounds)
        self._stops_at = None
        self._lasting = []

    def play(self, *, stops_at=None):
        """Play it to its end, or until this invariant does not hold; return the report."""
        began = time.perf_counter()
        self._stops_at = stops_at
        loop = Clockwork()
        world = self.world = World(loop, self.seed)
        log = Log(world)
        root = logging.getLogger("broker")
        level = root.level
        root.setLevel(logging.INFO)
        root.addHandler(log)
        real = turn.take_in

        def take_in(*about):
            before = time.perf_counter()
            taken = real(*about)
            self.report.turn_ms += (time.perf_counter() - before) * 1000
            self.report.turns += 1
            with loop.outside():
                world.invariants.turned(taken)
            return taken

        try:
            with mock.patch.object(turn, "take_in", take_in):
                loop.run_until_complete(self._go())
        finally:
            root.removeHandler(log)
            root.setLevel(level)
            self._close(loop)
            secrets.forget()
        self._tell(log, time.perf_counter() - began)
        return self.report

    def _close(self, loop):
        if self.world.life is not None:
            self.world.life.kill()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.close()

    async def _go(self):
        world, plan = self.world, self.script
        with world.loop.outside():
            world.live()
        began = world.now
        dice = random.Random(f"demand {self.seed}")
        world.at(began + 3.0, world.arrive, dice, began + plan.ends)
        world.at(began + 1.0, world.arrive_calmly, began + plan.ends)
        for strike in plan.strikes:
            world.at(began + strike.at, self._strike, strike)
        if await self._watch(until=began + plan.ends):
            return
        world.heal()
        await self._quiesce()

    def _strike(self, strike):
        world = self.world
        world.step = strike.step
        self.report.strikes[strike.kind] = self.report.strikes.get(strike.kind, 0) + 1
        self._lasting = [ends for ends in self._lasting if ends > world.now]
        self.report.together += bool(self._lasting)
        self._lasting.append(world.now + strike.lasts_s)
        world.invariants.look_around()
        end = faults.begin(strike.kind, world, strike, random.Random(strike.dice))
        world.invariants.look_around()
        if end is not None:
            world.at(world.now + strike.lasts_s, end)

    async def _watch(self, *, until):
        """Look at the world from time to time; return whether to stop."""
        world = self.world
        while world.now < until:
            await asyncio.sleep(LOOK_S)
            with world.loop.outside():
                world.invariants.look_around()
                world.invariants.judge_deaths()
                world.invariants.judge_calls()
                world.invariants.judge_builds()
                world.invariants.judge_mishaps()
                world.invariants.judge_hosts()
            if self._is_over():
                return True
        return False

    def _is_over(self):
        return any(broken.what == self._stops_at for broken in self.world.invariants.broken)

    async def _quiesce(self):
        world, judge = self.world, self.world.invariants
        until = world.now + WITHIN_S
        while world.now < until and not self._is_over():
            await self._watch(until=world.now + 5.0)
            world.give_up_pinned()
            if not world.servable():
                break
        judge.judge_served(world.servable(), self._reasons())
        judge.judge_foreign()
        self._judge_calm()
        if self._is_over() or world.life is None:
            return
        world.drains = True
        world.life.broker.draining = True
        until = world.now + WITHIN_S
        while world.now < until and any(world.left().values()):
            await self._watch(until=world.now + 5.0)
        judge.judge_left()

    def _reasons(self):
        life = self.world.life
        plan = life.state.plan if life is not None else None
        return {u.item: (u.reason.value, u.text) for u in plan.unmet} if plan else {}

    def _judge_calm(self):
        """Compare starts on the healthy backend beside faults with those before the first one."""
        began = self.world.now - self.world.loop.time()
        report = self.report
        for item in self.world.sim.items.values():
            if item.label != "calm" or item.started_at is None or item.buildable_since is None:
                continue
            waited = item.started_at - item.buildable_since
            since, started = item.buildable_since - began, item.started_at - began
            if any(s.begins <= since and since <= s.ends - 8.0 for s in self.script.beside):
                report.calm_s.append(waited)
            elif started < script.BEGINS_S and since > 5.0:
                report.alone_s.append(waited)
        if report.calm_s and report.alone_s:
            means = statistics.fmean(report.calm_s), statistics.fmean(report.alone_s)
            self.world.invariants.judge_calm(*means)

    def _tell(self, log, took_s):
        world, report = self.world, self.report
        judge: Invariants = world.invariants
        report.checked, report.broken = dict(judge.checked), list(judge.broken)
        fates = [item.fate.value for item in world.sim.items.values()]
        report.items = len(fates)
        report.builds = fates.count("done")
        report.lost = fates.count("lost")
        report.ended_by_us = sum(b.what == "no build is ended by us" for b in judge.broken)
        report.excused = fates.count("failed")
        report.left = {what: len(names) for what, names in world.left().items()}
        report.longest_ms = world.loop.longest_s * 1000
        report.calls = dict(world.tally.calls)
        report.most = dict(world.tally.most)
        report.lines = dict(log.lines)
        report.simulated_s = world.loop.time()
        report.took_s = took_s
        told = [(i.id, i.fate.value, i.started_at, i.node) for i in world.sim.items.values()]
        report.trace = zlib.crc32(repr(told).encode())
