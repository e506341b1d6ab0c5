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

from broker import app, config

_LOG = logging.getLogger("broker.signals")

Load = Callable[[], config.Settings]


@contextlib.contextmanager
def obeyed(made: app.Broker, *, drain: bool, load: Load | None) -> Iterator[None]:
    """React to signals while inside; must run in the broker's event loop and task."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    asked = 0

    def end() -> None:
        nonlocal asked
        asked += 1
        if asked > 1 and task is not None:
            _LOG.warning("leaving at once")
            task.cancel()
        elif drain:
            made.drain()
        else:
            _LOG.info("stopping", extra={"in_flight": made.reconciler.in_flight})
            made.stop()

    def again() -> None:
        if load is None:
            return
        try:
            made.reload(load())
        except config.ConfigError as error:
            _LOG.error("configuration not reloaded", extra={"reason": str(error)})

    for number, react in ((signal.SIGTERM, end), (signal.SIGINT, end), (signal.SIGHUP, again)):
        loop.add_signal_handler(number, react)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
