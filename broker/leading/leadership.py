"""Whether this broker may act: always, or while it holds a lease that several brokers share.

``Elected`` carries out what ``core.election`` decides: it asks the platform, waits, and tells when
the answer changes. ``leading`` itself is computed at each question from a clock that goes on while
the machine sleeps, so a process that was stopped for a minute learns nothing late. Refuses to know
what leading is good for, and where the lease is kept.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable
from typing import Protocol

from attrs import define, field, frozen

from backends import api as backends_api
from backends import lease as leases
from broker import clock
from broker.core import election
from outside import waits

_LOG = logging.getLogger("broker.leadership")
_FIRST_S = 30.0


@frozen(kw_only=True)
class LeadershipState:
    """How it stands, for people and metrics."""

    leading: bool = True
    shared: bool = False  # there may be other brokers of this owner
    holder: str = ""  # who leads, as far as we know
    since: float | None = None  # POSIX seconds, when this was first seen
    transitions: int = 0  # how often the lease went to another
    reason: str = ""  # why we do not lead
    reached: bool = True  # whoever knows was asked just now


class Leadership(Protocol):
    """What the rest of the broker knows about it."""

    @property
    def leading(self) -> bool:
        """Whether this broker may act at this very moment."""

    @property
    def claim(self) -> str | None:
        """What all brokers that share this leadership have in common; None if there is one."""

    def state(self) -> LeadershipState:
        """Return how it stands."""

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep it up until ``leave``; ``changed`` is called when who leads has changed."""

    def leave(self) -> None:
        """Give it up at once: ``run`` then ends soon."""


class Always:
    """The only broker of its owner."""

    leading = True
    claim = None

    def state(self) -> LeadershipState:
        """Return that we lead."""
        return LeadershipState()

    async def run(self, changed: Callable[[], None]) -> None:
        """There is nothing to keep up."""

    def leave(self) -> None:
        """There is nothing to give up."""


class Onlooker(Always):
    """A command that only looks: it never acts, whoever leads."""

    leading = False


@define(kw_only=True, eq=False)
class Elected:
    """One of several brokers; the others are known by the lease alone."""

    lease: leases.Lease
    me: str
    terms: election.Terms
    watch: clock.Clock
    elapsed: Callable[[], float] = clock.elapsed
    _candidate: election.Candidate = field(init=False)
    _noted: tuple[bool, str, int] = (False, "", 0)  # what ``changed`` was last called for
    _trouble: str = ""
    _holder: str = ""
    _since: float | None = None
    _leaving: asyncio.Event = field(factory=asyncio.Event)
    _leaves_until: float = float("inf")

    def __attrs_post_init__(self) -> None:
        self._candidate = election.Candidate(me=self.me)

    @property
    def leading(self) -> bool:
        """Whether this broker may act at this very moment."""
        return election.leads(self._candidate, now=self.elapsed(), terms=self.terms)

    @property
    def claim(self) -> str | None:
        """The lease itself: two groups that happen to be called alike have different ones."""
        seen = self._candidate.seen
        return "".join(c for c in seen.uid if c.isalnum()).lower() if seen is not None else None

    def state(self) -> LeadershipState:
        """Return how it stands."""
        record = self._candidate.seen
        return LeadershipState(
            leading=self.leading,
            shared=True,
            holder=self._candidate.holder,
            since=self._since,
            transitions=record.record.transitions if record is not None else 0,
            reason=self._reason(),
            reached=not self._trouble,
        )

    def _reason(self) -> str:
        if self.leading:
            return ""
        if self._leaving.is_set():
            return f"{self.lease.where} was given back"
        if self._trouble:
            return f"{self.lease.where}: {self._trouble}"
        holder = self._candidate.holder
        if holder == self.me:
            return f"{self.lease.where} was not renewed in time"
        return f"{holder} leads" if holder else f"nobody leads; {self.lease.where} is free"

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep the lease, or wait for it, until ``leave``."""
        try:
            while self.elapsed() < self._leaves_until:
                if isinstance(await self._step(), election.Left):
                    break
                self._tell(changed)
        finally:
            await self.lease.aclose()

    def leave(self) -> None:
        """Act no more; ``run`` gives the lease back and ends, even if nobody answers."""
        self._candidate = election.leave(self._candidate)
        self._leaves_until = self.elapsed() + self.terms.renew_deadline_s
        self._leaving.set()

    async def _step(self) -> election.Step:
        now = self.elapsed()
        stamp = dt.datetime.fromtimestamp(self.watch.wall(), dt.UTC)
        step = election.step(
            self._candidate,
            now=now,
            terms=self.terms,
            stamp=stamp.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        )
        match step:
            case election.Wait(until=until):
                await self._sleep(self._within(until - now))
            case election.Read() | election.Write():
                await self._ask(step, began=now)
            case election.Left():
                pass
        return step

    def _within(self, seconds: float) -> float:
        """Return a wait that does not outlast our leading: its end has to be told at once."""
        until = election.acts_until(self._candidate, self.terms)
        left = until - self.elapsed() if until is not None else None
        return max(0.0, seconds if left is None or left <= 0 else min(seconds, left))

    def _limit(self) -> float:
        """Return how long a question may take: so that there is time for another one.

        The first may take long, as when a plugin fetches the credentials.
        """
        new = self._candidate.seen is None and not self._candidate.known
        return _FIRST_S if new else self._within(self.terms.renew_deadline_s / 2)

    async def _sleep(self, seconds: float) -> None:
        if self._leaving.is_set():
            await asyncio.sleep(seconds)
            return
        try:
            async with waits.timeout(seconds):
                await self._leaving.wait()
        except TimeoutError:
            return

    async def _ask(self, step: election.Read | election.Write, *, began: float) -> None:
        """Ask the platform; what becomes of it decides the next step."""
        trouble = ""
        record: leases.SeenRecord | None = None
        try:
            async with waits.timeout(self._limit()):
                if isinstance(step, election.Read):
                    record = await self.lease.read()
                else:
                    record = await self.lease.write(step.record, over=step.over)
        except TimeoutError:
            trouble = "no answer in time"
        except backends_api.BackendError as error:
            trouble = error.reason
        now, before = self.elapsed(), self._candidate
        if trouble:
            new = election.unanswered(before, began=began, now=now, terms=self.terms)
        elif isinstance(step, election.Read):
            new = election.looked(before, record, now=now, terms=self.terms)
        elif record is None:
            new = election.beaten(before, now=now, terms=self.terms)
        else:
            new = election.wrote(before, record, began=began, now=now, terms=self.terms)
        self._take(new, trouble)

    def _take(self, new: election.Candidate, trouble: str) -> None:
        self._candidate = new
        if trouble and trouble != self._trouble:
            _LOG.warning("lease not reached", extra={"lease": self.lease.where, "reason": trouble})
        self._trouble = trouble
        if new.holder != self._holder or self._since is None:
            self._holder, self._since = new.holder, self.watch.now()

    def _tell(self, changed: Callable[[], None]) -> None:
        state, (led, *_) = self.state(), self._noted
        now = (state.leading, state.holder, state.transitions)
        if now == self._noted:
            return
        self._noted = now
        if state.leading and not led:
            _LOG.info("leading", extra={"lease": self.lease.where, "identity": self.me})
        elif led and not state.leading:
            _LOG.warning("no longer leading", extra={"reason": state.reason})
        elif not state.leading and state.holder:
            _LOG.info("standby", extra={"reason": state.reason})
        changed()
