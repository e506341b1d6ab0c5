"""The configuration is read again while a broker works: when asked for, and when files change.

One thread reads, so that a lease is renewed meanwhile; it reads one after the other, so what was
asked for last is in force at the end. Refuses to know what a configuration says, and how it is put
in force.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from attrs import define, field

from broker import config

_LOG = logging.getLogger("broker.reloading")
_AGAIN_S = 1.0
"""A change counts when it looks the same after this: nobody is writing any more."""


class Reloadable(Protocol):
    """What is needed of a broker."""

    @property
    def settings(self) -> config.Settings:
        """Return the settings in force."""

    def reload(self, settings: config.Settings) -> None:
        """Put another configuration in force."""

    def refuse(self, reason: str) -> None:
        """Say that a newer configuration cannot be used."""


@define(kw_only=True, eq=False)
class Reloader:
    """Reads for one broker, in the event loop that it was made in."""

    broker: Reloadable
    load: Callable[[], config.Settings]  # raises ConfigError
    look: Callable[[], str]  # what tells the files from others; never raises
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop)
    _thread: concurrent.futures.Executor = field(
        factory=lambda: concurrent.futures.ThreadPoolExecutor(1, "configuration")
    )
    _work: set[asyncio.Future[Any]] = field(factory=set)
    _timer: asyncio.TimerHandle | None = None
    _read: str = ""  # what the files were when they were read
    _seen: str = ""  # what they were at the last look

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Watch while inside, as often as the settings in force ask for it."""
        self._read = self._seen = self.broker.settings.digest
        self._plan_look()
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for one in self._work:
                one.cancel()
            self._thread.shutdown(wait=False, cancel_futures=True)

    def again(self) -> None:
        """Read, and put in force what can be used."""
        self._begin(self._reading, self._put_in_force)

    def _begin(self, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        future = self._loop.run_in_executor(self._thread, work)
        self._work.add(future)

        def done(ended: asyncio.Future[Any]) -> None:
            self._work.discard(ended)
            if not ended.cancelled():
                then(ended.result())

        future.add_done_callback(done)

    # --- reading ---

    def _reading(self) -> tuple[str, config.Settings | Exception]:
        look = self.look()  # before: what changes meanwhile is seen by the next look
        try:
            return look, self.load()
        except Exception as error:  # noqa: BLE001 -- a mistake of ours ends no broker, and swallows no later SIGHUP
            return look, error

    def _put_in_force(self, reading: tuple[str, config.Settings | Exception]) -> None:
        self._read, outcome = reading
        self._seen = self._read
        match outcome:
            case config.ConfigError():
                _LOG.error("configuration not reloaded", extra={"reason": str(outcome)})
                self.broker.refuse(str(outcome))
            case Exception():
                _LOG.error("configuration not reloaded", exc_info=outcome)
                bug = type(outcome).__name__
                self.broker.refuse(f"a bug of the broker ({bug}); its log says where")
            case _:
                self.broker.reload(outcome)
        self._plan_look()

    # --- watching ---

    def _plan_look(self, after_s: float | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        every_s = self.broker.settings.watch_files_s
        if every_s is not None:
            pause_s = every_s if after_s is None else min(after_s, every_s)
            self._timer = self._loop.call_later(
                pause_s, lambda: self._begin(self.look, self._looked)
            )

    def _looked(self, look: str) -> None:
        changed, settled = look != self._read, look == self._seen
        self._seen = look
        if changed and settled:
            _LOG.info("configuration changed: it is read again")
            self.again()
        else:
            self._plan_look(_AGAIN_S if changed else None)
