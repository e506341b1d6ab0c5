"""Keeps one framework subscribed: the only part of the backend that runs by itself.

Theory of operation. One task keeps the stream open and feeds the session; whatever the session
says is sent in its order; a lost stream is opened again after a pause that grows and has jitter,
since 2000 brokers lose their master in the same second. The framework's id is kept in the store
before it is first used. Everybody else waits for facts with ``ready`` and ``until``. Refuses to
know specifications and instances.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from backends import api
from backends.mesos import calls, cluster, session, settings, statuses, transport
from outside import quotes, text, typed, waits

_LOG = logging.getLogger("backends.mesos")
_PAUSE_S = (0.5, 30.0)
_STEADY_S = 10.0  # a stream that lived this long was a good one
_UNSEEN_MAX = 5  # looks at a page that does not show our framework, until it counts as free
_MOMENT_S = 2.0  # for a master that is whole to say so
_SAID_EVERY_S = 60.0  # of what could not be read; it may come a thousand times a second
_OF_ONE_TASK = frozenset(("ACKNOWLEDGE", "KILL"))
_SUPERSEDED = (
    "another broker has taken over our framework; hint: one owner name, one broker; this one goes "
    "on when the other has gone"
)
_LAST_WORDS_S = 2.0  # for the master to say on the stream why it takes no more calls


def key_of(owner: str, configured: settings.MesosSettings) -> str:
    """Return the key in the store under which the framework's id is kept."""
    digest = hashlib.sha256(f"{owner}\0{configured.name}".encode()).hexdigest()
    return f"mesos.{digest[:16]}"


class Driver:
    """One framework at one cluster, within one event loop."""

    def __init__(
        self,
        configured: settings.MesosSettings,
        *,
        owner: str,
        store: api.Store,
        now: Callable[[], float],
        pause_s: tuple[float, float] = _PAUSE_S,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """``now``: POSIX seconds that never leap; ``jitter`` gives numbers between 0 and 1."""
        self._settings = configured
        self._owner = owner
        self._store = store
        self._now = now
        self._pause_s, self._jitter = pause_s, jitter
        self._key = key_of(owner, configured)
        self._link = transport.Link(configured)
        self.cluster = cluster.Cluster(self._link, role=configured.role)
        self.closed = False
        self.inherits = False  # tasks of an earlier life, of which nobody may have told us yet
        self.changes = 0  # grows when a task's state has changed
        self._session: session.Session | None = None
        self._outbox: list[calls.Call] = []
        self._sending = False
        self._wishes = asyncio.Event()
        self._wakers: set[asyncio.Event] = set()
        self._runner: asyncio.Task[None] | None = None
        self._failures = 0
        self._unseen = 0
        self._said_odd = (0, -_SAID_EVERY_S)  # oddities when last told, and when that was
        self._trouble: api.BackendError = api.Unavailable("not yet connected to a master")

    async def ready(self, *, whole: bool = True) -> session.Session:
        """Return the session when it is connected and knows all, or say why it is not.

        Not ``whole``: one that still waits for some will do, after a moment (``synced`` tells).
        """
        if self.closed:
            raise api.Unavailable("the backend is closed")
        self.start()
        if self._session is not None and self._session.phase is session.SessionPhase.SUPERSEDED:
            raise self._trouble.with_traceback(None)  # for minutes, perhaps: nothing to wait for
        failures = self._failures

        def settled() -> bool:
            return self.closed or self._online() is not None or self._failures > failures

        def connected() -> bool:
            known = self._session
            return settled() or (known is not None and known.phase is session.SessionPhase.ONLINE)

        within_s = self._settings.request_timeout_s
        if not whole:
            await self.until(connected, within_s=within_s)
            within_s = min(_MOMENT_S, within_s)
        await self.until(settled, within_s=within_s)
        machine = self._online()
        if machine is not None and not self.closed:
            return machine
        machine = self._session
        if (
            machine is not None
            and machine.phase is session.SessionPhase.ONLINE
            and not self.closed
        ):
            if not whole:
                return machine
            raise api.Unavailable(await self.awaited(machine))
        raise self._trouble.with_traceback(None)

    async def awaited(self, machine: session.Session) -> str:
        """Say for which agents the master waits, so that it does not know all tasks."""
        try:
            _, names = await self.cluster.framework(machine.framework.id)
        except api.BackendError:
            names = []
        such = f": {len(names)}, such as {', '.join(names[:3])}" if names else ""
        return f"the master does not know all tasks yet, it waits for agents{such}"[:256]

    def _online(self) -> session.Session | None:
        machine = self._session
        if (
            machine is None
            or machine.phase is not session.SessionPhase.ONLINE
            or not machine.synced
        ):
            return None
        return machine

    async def until(self, true: Callable[[], bool], *, within_s: float) -> bool:
        """Wait until it is true; False when the time is over."""
        with self.listening() as waker, contextlib.suppress(TimeoutError):
            async with waits.timeout(within_s):
                while not true():
                    await waker.wait()
                    waker.clear()
        return true()

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Give an event that is set with every change, until the block ends."""
        waker = asyncio.Event()
        self._wakers.add(waker)
        try:
            yield waker
        finally:
            self._wakers.discard(waker)

    def notify(self) -> None:
        """Wake everybody who waits."""
        for waker in self._wakers:
            waker.set()

    def say(self, said: Sequence[calls.Call]) -> None:
        """Put calls into the outbox; the same wish twice in a row is said once."""
        for call in said:
            if not self._outbox or self._outbox[-1] != call:
                self._outbox.append(call)
        if said:
            self._wishes.set()

    async def spoken_out(self) -> None:
        """Wait until all that was said has reached the master, or the stream is lost."""

        def silent() -> bool:
            return self._online() is None or not (self._outbox or self._sending)

        await self.until(silent, within_s=self._settings.request_timeout_s)

    async def depart(self, machine: session.Session) -> None:
        """End the framework at the master; nothing is subscribed any more. Raises BackendError.

        The master kills what runs of a framework that ends: nothing of ours may.
        """
        self.closed = True
        self.say([calls.teardown(machine.framework)])

        def over() -> bool:
            return machine.phase is not session.SessionPhase.ONLINE

        if not await self.until(over, within_s=self._settings.request_timeout_s):
            raise api.Unavailable("the master has not ended our framework")
        if isinstance(self._trouble, transport.BadCall):
            raise self._trouble
        self._store.save(self._key, "")

    async def aclose(self) -> None:
        """Leave the framework to its failover time-out; its tasks run on. Idempotent."""
        self.closed = True
        self.notify()
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])
        await self._link.aclose()

    # --- the stream ---

    def start(self) -> None:
        """Begin to work, with the first call."""
        if self._runner is None and not self.closed:
            # owned by this object and awaited in aclose: no verb's task group outlives its call
            loop = asyncio.get_running_loop()
            self._runner = loop.create_task(self._run(), name="mesos session")

    async def _run(self) -> None:
        """Keep a stream open until closed."""
        pause_s = self._pause_s[0]
        removed = ""
        while not self.closed:
            began = self._now()
            try:
                await self._look_around()
                await self._live()
            except* api.BackendError as group:
                self._trouble = _first(group)
            except* Exception as group:  # noqa: BLE001 -- a bug of ours must not end the backend in silence
                self._trouble = _bug("the subscription", group)
            machine = self._session
            if machine is not None:
                machine.disconnected()
                if machine.phase is session.SessionPhase.SUPERSEDED and machine.error:
                    machine.error = ""
                    self._trouble = api.Unavailable(_SUPERSEDED)
                    _LOG.error("another broker took our Mesos framework over")
            self._outbox.clear()
            self._failures += 1
            self.notify()
            gone = machine is not None and machine.phase is session.SessionPhase.REMOVED
            anew = gone and machine is not None and machine.framework.id != removed
            removed = machine.framework.id if gone and machine is not None else removed
            if anew or self._now() - began >= _STEADY_S:
                pause_s = self._pause_s[0]
            await self._rest(pause_s * (0.5 + self._jitter()))
            pause_s = min(2 * pause_s, self._pause_s[1])

    async def _look_around(self) -> None:
        """Raise Unavailable while another broker holds our framework's stream."""
        machine = self._session
        if machine is None or machine.phase is not session.SessionPhase.SUPERSEDED:
            return
        told, _ = await self.cluster.framework(machine.framework.id)
        # a master that was restarted has forgotten it, and one that hides it never shows it
        self._unseen = self._unseen + 1 if told is None else 0
        held = told is not None and told.get("connected", told.get("active")) is not False
        if held or 0 < self._unseen < _UNSEEN_MAX:
            raise api.Unavailable(_SUPERSEDED)
        self._unseen = 0
        _LOG.warning("the other broker is gone: we speak for our Mesos framework again")
        machine.left_alone()
        self.inherits = True

    async def _rest(self, seconds: float) -> None:
        """Sleep, unless closed: a group that fails while it is cancelled hides that it was."""
        if not self.closed:
            await asyncio.sleep(seconds)

    async def _live(self) -> None:
        """One subscription, from SUBSCRIBE to its end."""
        machine = await self._renewed()
        async with (
            self._link.subscribed(machine.subscribe()) as stream,
            waits.TaskGroup() as group,
        ):
            speaker = group.create_task(self._speak(stream, machine), name="mesos calls")
            async for event in self._link.events(stream):
                self._hear(machine, event)
            speaker.cancel()
        if machine.error:
            if "uthorized" in machine.error:
                raise api.Unauthorized(f"the master says: {machine.error}")
            raise api.Unavailable(f"the master says: {machine.error}")
        raise api.Unavailable("the master ended the stream")

    def _hear(self, machine: session.Session, event: Mapping[str, Any] | None) -> None:
        """Give an event to the session; what goes wrong with one costs that one."""
        if event is None:
            machine.set_aside("an event that is not a JSON object")
        else:
            before = _seen(machine, event)
            try:
                self.say(machine.receive(event, self._now()))
            except Exception as error:  # noqa: BLE001 -- a bug of ours; the stream goes on
                _bug("an event", error)
                self.say(machine.give_back(event))
                machine.set_aside(
                    f"event {quotes.shown(str(event.get('type')))}: internal error: {error!r}"
                )
            warned = event.get("type") == "INVERSE_OFFERS"
            self.changes += warned or before != _seen(machine, event)
        count, at = self._said_odd
        if machine.oddities.count > count and self._now() - at >= _SAID_EVERY_S:
            more = typed.Odd(
                count=machine.oddities.count - count, reasons=machine.oddities.reasons[-1:]
            )
            _LOG.warning(
                "the Mesos master is not understood",
                extra={"reason": more.words("part of its messages", "parts of its messages")},
            )
            self._said_odd = (machine.oddities.count, self._now())
        self.notify()

    async def _renewed(self) -> session.Session:
        """Return the session; under a new id when the old one was removed and nothing runs."""
        machine = self._session
        if machine is None:
            identity = self._store.load(self._key) or None
            self.inherits = identity is not None
            identity = identity or self._new_identity()
            self._session = machine = session.Session(
                self._framework(identity), refuse_s=self._settings.refuse_s
            )
            if not self.inherits:
                machine.is_new()
        if machine.phase is session.SessionPhase.REMOVED:
            left = await self.cluster.living(machine.framework.id)
            if left:
                raise api.Unavailable(
                    f"the master removed our framework, but {quotes.shown(left[0])} still runs"
                )
            machine.renew(self._framework(self._new_identity()))
        return machine

    def _new_identity(self) -> str:
        """Choose an id and keep it; a master takes it as it is (recording 15)."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", self._owner)[:40].strip("-")
        identity = f"{slug}-{uuid.uuid4()}".lstrip("-")
        self._store.save(self._key, identity)
        return identity

    def _framework(self, identity: str) -> calls.Framework:
        configured = self._settings
        return calls.Framework(
            id=identity,
            name=f"{configured.name} {self._owner}",
            user=configured.user,
            role=configured.role,
            failover_timeout_s=configured.failover_timeout_s,
            principal=configured.principal,
            hostname=configured.hostname,
            web_url=configured.web_url,
            gpus=configured.gpus,
        )

    async def _speak(self, stream: transport.Stream, machine: session.Session) -> None:
        """Send what the session says, and wake it when it wants to say something again."""
        while True:
            while self._outbox:
                call = self._outbox.pop(0)
                self._sending = True
                try:
                    await self._link.send(stream, call)
                except transport.BadCall as error:
                    if call["type"] == "ACCEPT":
                        self.say(machine.refused(call, error.reason))
                    elif call["type"] in _OF_ONE_TASK:
                        machine.set_aside(f"{call['type']}: {error.reason}")
                    else:
                        raise
                except transport.LostStream:
                    # perhaps another broker has our framework: to subscribe at once is a fight
                    await asyncio.sleep(_LAST_WORDS_S)
                    raise
                finally:
                    self._sending = False
            self.notify()
            self._wishes.clear()
            if machine.phase is session.SessionPhase.ONLINE:
                self.say(machine.tick(self._now()))
                wait_s = max(0.05, machine.wake_at() - self._now())
            else:
                wait_s = 1.0
            with contextlib.suppress(TimeoutError):
                async with waits.timeout(wait_s):
                    await self._wishes.wait()


def _bug(where: str, error: BaseException) -> api.Unavailable:
    """Log a bug of ours once with its trace, and return it as a reason."""
    inner = error
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    _LOG.error("internal error in %s of Mesos", where, exc_info=inner)
    return api.Unavailable(text.clean(f"internal error in {where}: {inner!r}"))


def _first(group: BaseExceptionGroup[api.BackendError]) -> api.BackendError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, api.BackendError) else api.Unavailable(str(error))


def _seen(machine: session.Session, event: Mapping[str, Any]) -> tuple[str, bool] | None:
    """Return what an instance shows of the task that an event is about."""
    if event.get("type") != "UPDATE":
        return None
    update = event.get("update")
    name, _, _ = statuses.names(update.get("status") if isinstance(update, Mapping) else None)
    task = machine.tasks.get(name) if name is not None else None
    return None if task is None else (task.state, task.final is None)
