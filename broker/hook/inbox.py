"""What the hook has told lately, and what it is to be told: answered at once, from memory.

Theory of operation: the hook comes by itself, with events or after the pause that the last answer
named. Whatever is to be done on the controller waits here until then, and its result comes with
the next message. Nobody waits for a hook that is silent: then all goes on over REST, as without
one. Refuses to know HTTP, and to decide what is to be done.
"""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import define, evolve, field, frozen

from broker.core import model
from broker.hook import messages, reasons
from outside import limited_log, text, waits

_LOG = logging.getLogger("broker.hook")
SILENT_S = 45.0
"""Without a word for so long it is silent: it comes every ``_REST_MS``."""
_BUSY_MS, _REST_MS = 1000, 5000
_SOON_MS = 200  # when it has brought something, or is to do something
_WITHIN_S = 8.0  # in which it comes, does something and says so
_PER_S, _BURST = 40.0, 80.0
"""Messages that are taken: 500 events at once are three, a hook in a loop is turned away."""


class RefusalCounter(Protocol):
    """Counts what is not taken."""

    def hook_refused(self, slug: str) -> None:
        """One message more."""


class NotHeard(Exception):  # noqa: N818 -- an answer
    """A message is not taken; the text says why."""

    def __init__(self, why: messages.HookRefusal, words: str) -> None:
        super().__init__(words)
        self.why = why


@frozen(kw_only=True)
class HookState:
    """What is known of the hook, for people and metrics; times on the broker's clock."""

    since_at: float  # when it was first waited for
    heard_at: float | None = None  # when it came last, to be believed
    session: str = ""  # of the controller, as it said then
    version: int = 0
    lost: int = 0  # events that it dropped, since it was installed
    events: int = 0  # that were taken
    trouble: str = ""  # why the last one was not taken, if nothing came since

    def is_silent(self, now: float) -> bool:
        """Whether nothing that could be believed has come for a while."""
        last = self.since_at if self.heard_at is None else self.heard_at
        return now - last >= SILENT_S

    def is_heard(self, now: float) -> bool:
        """Whether it may be counted on now."""
        return self.heard_at is not None and not self.is_silent(now)


@define(eq=False)
class _HookErrand:
    """One thing that the hook is to do, and who waits for it."""

    done: asyncio.Future[bool]
    sent: bool = False


@define(kw_only=True, eq=False)
class Inbox:
    """The broker's end of the hook."""

    owner: str
    key: Callable[[], str | None]  # None: there is to be no hook
    now: Callable[[], float]
    session: Callable[[], str]  # the controller's, as it was read last; "": not yet
    take: Callable[[Sequence[model.QueueEvent]], None]
    seen: Callable[[], tuple[model.World | None, model.Plan | None]]
    tells_builds: Callable[[], bool]
    recorder: RefusalCounter
    leads: Callable[[], bool] = lambda: True
    trouble: str = ""  # why it could not be put in
    state: HookState = field(init=False)
    _closing: dict[model.NodeName, _HookErrand] = field(factory=dict)
    _ending: dict[model.NodeName, _HookErrand] = field(factory=dict)
    _reopening: dict[model.NodeName, None] = field(factory=dict)
    _told: reasons.Told = field(factory=dict)
    _tokens: float = _BURST
    _tokens_at: float = 0.0
    _log: limited_log.LimitedLog = field(factory=lambda: limited_log.LimitedLog(_LOG))

    def __attrs_post_init__(self) -> None:
        self.state = HookState(since_at=self.now())

    # --- what comes ---

    def admit(self, given: str) -> str:
        """Say why whoever brings this key is not let in; empty: it is. In constant time."""
        key = self.key()
        if key is None:
            return "no hook is taken here: control.hook is not set"
        if is_key(given, key):
            return ""
        return str(self.refuse(messages.HookRefusal.KEY, "this is not the hook's key"))

    def _count(self) -> None:
        """Count a message before it is read. Raises NotHeard for more than are taken."""
        now = self.now()
        self._tokens = min(_BURST, self._tokens + max(0.0, now - self._tokens_at) * _PER_S)
        self._tokens_at = now
        if self._tokens < 1.0:
            raise self.refuse(messages.HookRefusal.RATE, "more messages than are taken")
        self._tokens -= 1.0

    def refuse(self, why: messages.HookRefusal, words: str) -> NotHeard:
        """Note that a message is not taken; return what is to be raised."""
        self.state = evolve(self.state, trouble=words)
        self.recorder.hook_refused(why.value)
        self._log.warning("a message of the hook is not taken", reason=words)
        return NotHeard(why, words)

    def receive(self, body: bytes) -> messages.HookAnswer:
        """Take a message in, and answer it. Raises NotHeard."""
        now = self.now()
        self._count()
        try:
            message = messages.parsed(body, now=now)
        except messages.NoMessage as error:
            raise self.refuse(messages.HookRefusal.MALFORMED, str(error)) from error
        self._check(message)
        if message.odd:
            self._log.warning("events of the hook", reason=message.odd.words("event"))
        self.state = evolve(
            self.state,
            heard_at=now,
            session=message.session,
            version=message.version,
            lost=message.lost,
            events=self.state.events + len(message.events),
            trouble="",
        )
        self._settle(message)
        if message.events:
            self.take(message.events)
        return self._answer(message, now)

    def _check(self, message: messages.HookMessage) -> None:
        if message.owner != self.owner:
            told = text.clean(message.owner, 64)
            words = f"it is the hook of {told}, not of {self.owner}"
            raise self.refuse(messages.HookRefusal.OWNER, words)
        session = self.session()
        if session and message.session != session:
            words = "it comes from another controller, or from another start of ours"
            raise self.refuse(messages.HookRefusal.SESSION, words)
        if not self.leads():
            raise self.refuse(messages.HookRefusal.STANDBY, "this broker is a standby")

    def _settle(self, message: messages.HookMessage) -> None:
        for asked, good, bad in (
            (self._closing, message.closed, message.busy),
            (self._ending, message.ended, frozenset[model.NodeName]()),
        ):
            for name in good | bad:
                waiting = asked.get(name)
                if waiting is not None and waiting.sent and not waiting.done.done():
                    waiting.done.set_result(name in good)

    def _answer(self, message: messages.HookMessage, now: float) -> messages.HookAnswer:
        close, end = _unsent(self._closing), _unsent(self._ending)
        reopen = tuple(self._reopening)
        self._reopening.clear()
        world, plan = self.seen()
        say: tuple[tuple[model.ItemId, str], ...] = ()
        if self.tells_builds() and world is not None and plan is not None:
            say, self._told = reasons.lines(world.controller.items, plan.unmet, self._told, now)
        pause_ms = _REST_MS
        if close or end or reopen or message.events:
            pause_ms = _SOON_MS
        elif plan is None or plan.active or plan.unmet:
            pause_ms = _BUSY_MS
        return messages.HookAnswer(
            pause_ms=pause_ms, close=close, reopen=reopen, end_steps=end, say=say
        )

    # --- what is asked of it ---

    async def close(self, name: model.NodeName) -> bool | None:
        """Have an agent take nothing more, if it is idle; return whether it was.

        Decided under the queue's lock: what is closed stays idle. None: it does not come.
        """
        return await self._ask(self._closing, name)

    def reopen(self, name: model.NodeName) -> None:
        """Let an agent take work again: it stays after all."""
        self._reopening[name] = None

    async def end_steps(self, name: model.NodeName) -> bool | None:
        """End Pipeline's steps on an agent that is gone for good; whether there were any.

        None: the hook does not come.
        """
        return await self._ask(self._ending, name)

    async def _ask(
        self, asked: dict[model.NodeName, _HookErrand], name: model.NodeName
    ) -> bool | None:
        if not self.state.is_heard(self.now()):
            return None
        asked[name] = mine = _HookErrand(asyncio.get_running_loop().create_future())
        self._reopening.pop(name, None)
        try:
            async with waits.timeout(_WITHIN_S):
                return await mine.done
        except TimeoutError:
            if mine.sent and asked is self._closing:
                self.reopen(name)  # it may have been done all the same
            return None
        finally:
            if asked.get(name) is mine:
                del asked[name]


def _unsent(asked: Mapping[model.NodeName, _HookErrand]) -> tuple[model.NodeName, ...]:
    names = tuple(name for name, one in asked.items() if not one.sent)
    for name in names:
        asked[name].sent = True
    return names


def is_key(given: str, key: str) -> bool:
    """Compare in constant time, whatever the lengths."""
    digests = [hashlib.sha256(one.encode("utf-8", "replace")).digest() for one in (given, key)]
    return hmac.compare_digest(*digests)
