"""What a broker that runs does on a signal.

The first SIGTERM or SIGINT finishes what is in flight and keeps the agents (or drains, if so asked
at the start), the second leaves at once, SIGHUP reads the configuration again. Refuses to know how
a broker does any of it.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

from broker import app

_LOG = logging.getLogger("broker.signals")

AT_ONCE_S = 1.0
"""How long the second signal waits for what does not end by itself."""


@contextlib.contextmanager
def obeyed(
    broker: app.Broker, *, drain_s: float | None, again: Callable[[], None]
) -> Iterator[None]:
    """React to signals while inside; must run in the broker's event loop and task.

    ``drain_s``: the first one drains, for so long at most; None: it does not. ``again``: read the
    configuration again.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = 0

    def end() -> None:
        nonlocal asked
        asked += 1
        if asked > 1 and task is not None:
            _LOG.warning("leaving at once")
            broker.ends_within(AT_ONCE_S)
            task.cancel()
        elif drain_s is not None:
            broker.drain(drain_s)
        else:
            _LOG.info("stopping", extra={"in_flight": broker.reconciler.in_flight})
            broker.stop()

    for number, react in ((signal.SIGTERM, end), (signal.SIGINT, end), (signal.SIGHUP, again)):
        loop.add_signal_handler(number, react)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def awaited() -> Iterator[asyncio.Event]:
    """Give an event that SIGTERM or SIGINT sets while inside; for what has nothing to finish.

    Whoever is started in the background of a shell script inherits that SIGINT is ignored, and a
    handler of the interpreter's own is then not installed.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        yield asked
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
