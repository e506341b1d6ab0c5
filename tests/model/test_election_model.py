"""Two or three brokers and one lease, with everything that can go wrong between them.

Clocks of their own that start anywhere and run up to a quarter too fast or too slow; requests that
take effect late, even after their sender has given up; answers that are late or lost; refusals;
brokers that are stopped for a minute, or killed and started anew; labels that somebody sets.
Never may two act at the same moment; when the faults stop, somebody does, and stays.
"""

import heapq
import itertools
import random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import lease
from broker.core import election

TERMS = election.Terms()
LIMIT_S = TERMS.renew_deadline_s / 2


class Server:
    """Keeps one record; a write takes effect at once, or not at all."""

    def __init__(self):
        self.seen = None
        self.versions = itertools.count(1)
        self.history = []

    def write(self, record, over):
        if (over.version if over else None) != (self.seen.version if self.seen else None):
            return None
        self.seen = lease.SeenRecord(record=record, version=str(next(self.versions)), uid="u")
        self.history.append(record.holder)
        return self.seen

    def touch(self):
        if self.seen is not None:
            self.seen = attrs.evolve(self.seen, version=str(next(self.versions)))


class Broker:
    """One candidate on its own clock; deaf to everything while it is stopped."""

    def __init__(self, world, name):
        self.world, self.dice = world, world.dice
        self.names = (f"{name}{n}" for n in itertools.count())
        self.offset = self.dice.uniform(-1e6, 1e6)
        self.rate = self.dice.uniform(0.8, 1.25)
        self.stopped_until = 0.0
        self.start()

    def start(self):
        """Begin a new life: everything of the old one is forgotten."""
        self.candidate = election.Candidate(me=next(self.names), next_at=self.clock())
        self.asking = None
        self.go_on()

    def clock(self):
        return self.offset + self.rate * self.world.now

    @property
    def acts(self):
        return election.leads(self.candidate, now=self.clock(), terms=self.world.terms)

    def later(self, seconds, what):
        """Do something of this life's after a while on the own clock, but not while stopped."""
        life = self.candidate.me

        def due():
            if self.candidate.me != life:
                return
            if self.world.now < self.stopped_until:
                self.world.at(self.stopped_until, due)
            else:
                what()

        self.world.at(self.world.now + max(0.0, seconds) / self.rate, due)

    def go_on(self):
        step = election.step(
            self.candidate, now=self.clock(), terms=self.world.terms, stamp=str(self.world.now)
        )
        match step:
            case election.Wait(until=until):
                self.later(until - self.clock(), self.go_on)
            case election.Left():
                self.start()
            case _:
                self.ask(step)

    def ask(self, step):
        """Send a request; it arrives, or does not, and so does its answer."""
        token = self.asking = object()
        began, world = self.clock(), self.world
        there, back = world.delay(), world.delay()

        def arrive():
            if world.lost():
                return
            if isinstance(step, election.Read):
                answer = world.server.seen
            else:
                answer = world.server.write(step.record, step.over)
            if not world.lost():
                world.at(world.now + back, lambda: self.later(0.0, lambda: heard(answer)))

        def heard(answer):
            if self.asking is not token:
                return
            self.asking = None
            at = {"now": self.clock(), "terms": world.terms}
            if isinstance(step, election.Read):
                self.candidate = election.looked(self.candidate, answer, **at)
            elif answer is None:
                self.candidate = election.beaten(self.candidate, **at)
            else:
                self.candidate = election.wrote(self.candidate, answer, began=began, **at)
            self.go_on()

        def give_up():
            if self.asking is not token:
                return
            self.asking = None
            self.candidate = election.unanswered(
                self.candidate, began=began, now=self.clock(), terms=world.terms
            )
            self.go_on()

        world.at(world.now + there, arrive)
        self.later(LIMIT_S, give_up)


class World:
    """A heap of what happens; after each event nobody, or one, may act."""

    def __init__(self, dice, brokers, *, terms=TERMS):
        self.dice, self.terms = dice, terms
        self.now, self.events, self.order = 0.0, [], itertools.count()
        self.server = Server()
        self.faulty = True
        self.most = 0
        self.brokers = [Broker(self, "abc"[n]) for n in range(brokers)]

    def at(self, moment, what):
        heapq.heappush(self.events, (moment, next(self.order), what))

    def delay(self):
        if self.faulty and self.dice.random() < 0.15:
            return self.dice.uniform(0.0, 25.0)
        return self.dice.uniform(0.001, 0.2)

    def lost(self):
        return self.faulty and self.dice.random() < 0.1

    def fault(self):
        """Let something befall somebody."""
        victim = self.dice.choice(self.brokers)
        match self.dice.randrange(5):
            case 0:
                victim.stopped_until = self.now + self.dice.uniform(0.0, 60.0)
            case 1:
                victim.start()  # kill -9, and at once another life
            case 2:
                victim.candidate = election.leave(victim.candidate)
            case 3:
                self.server.touch()
            case 4:
                victim.stopped_until = self.now + self.dice.uniform(0.0, 9.0)

    def run(self, until):
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
            self.most = max(self.most, sum(broker.acts for broker in self.brokers))
        self.now = until


@given(seed=st.integers(0, 2**64), brokers=st.integers(2, 3))
def test_never_two_and_at_last_one(seed, brokers):
    """For five minutes of faults, then without."""
    world = World(random.Random(seed), brokers)
    moment = 0.0
    while moment < 300.0:
        moment += world.dice.expovariate(1 / 8.0)
        world.run(moment)
        world.fault()
    world.faulty = False
    world.run(moment + 120.0)  # the longest stop, what is under way, a lease, a retry
    assert world.most <= 1
    (leader,) = [broker for broker in world.brokers if broker.acts]
    taken = len(set(world.server.history))
    world.run(world.now + 120.0)
    assert leader.acts
    assert taken == len(set(world.server.history))


@given(seed=st.integers(0, 2**64))
@settings(max_examples=20)
def test_without_faults_the_first_stays(seed):
    """Nobody is driven out by clocks that run at different speeds."""
    world = World(random.Random(seed), 3)
    world.faulty = False
    world.run(600.0)
    assert (1, 1) == (world.most, len(set(world.server.history)))


@pytest.mark.parametrize("lease_s", [3, 6])
def test_a_lease_not_longer_than_the_deadline_would_be_noticed(lease_s):
    """The property can fail: here two act."""
    terms = election.Terms(lease_s=lease_s)
    worst = 0
    for seed in range(200):
        world = World(random.Random(seed), 2, terms=terms)
        moment = 0.0
        while moment < 300.0:
            moment += world.dice.expovariate(1 / 8.0)
            world.run(moment)
            world.fault()
        worst = max(worst, world.most)
        if worst > 1:
            break
    assert 2 == worst
