"""``run`` and ``demo``: a broker at work.

Refuses to hold rules: the broker is built by ``assembly``, and runs by itself.
"""

import argparse
import asyncio
import gc
import logging
import os
import threading

from broker import assembly, clock, config, exits, log, reloading, signals, store
from broker.cli import shared
from broker.config import kinds, texts
from broker.controller import placeholder
from broker.core.fleet import withheld

_PAGE, _CONTROLLER = "127.0.0.1:8087", "127.0.0.1:8088"
"""Where the demo serves: its page where that of any broker is, a controller alone beside it."""
_LOG = logging.getLogger("broker.commands")
_SAID_S = 0.2  # for the last line of the log, should nobody take it


def run(options: argparse.Namespace) -> None:
    """Work until a signal."""
    settings = shared.settings_of(options)
    log.configure(form=settings.log.format, level=settings.log.level, secrets=settings.secrets())
    for warning in settings.warnings:
        _LOG.warning("configuration", extra={"reason": warning.placed()})
    with shared.state_dir(settings) as files:
        asyncio.run(_run(settings, files, options))


async def _run(
    settings: config.Settings, files: store.FileStore, options: argparse.Namespace
) -> None:
    if options.drain is not None and settings.high_availability is not None:
        raise exits.BadInput(
            "--drain and high_availability: the other replica would start again what this one "
            "lets go; hint: to leave for good run one broker without high_availability"
        )
    watch = clock.Clock()
    try:
        broker = assembly.build(
            settings, files, watch=watch, leads=assembly.elect(settings, watch=watch)
        )
    except ValueError as error:
        raise exits.BadInput(str(error)) from error
    broker.ends_within = _end_by_force
    gc.collect()
    gc.freeze()  # what was loaded stays: the collector need not look at it again
    try:
        reloader = reloading.Reloader(
            broker=broker,
            load=lambda: shared.settings_of(options),
            look=lambda: texts.digest_of(shared.files_of(options)),
        )
        if broker.orders is not None:
            broker.orders.reload = reloader.again
        with (
            reloader.at_work(),
            signals.obeyed(broker, drain_s=options.drain, again=reloader.again),
        ):
            await broker.run()
    except placeholder.SecondBroker as error:
        raise exits.Refused(str(error)) from error
    except OSError as error:
        raise exits.Failed(f"cannot serve {settings.listen}: {error.strerror or error}") from error
    except asyncio.CancelledError:
        raise exits.Failed(
            "left at once; agents and nodes stay, the next start adopts them"
        ) from None
    if broker.left:
        raise exits.Failed(
            f"draining was given up after {withheld.duration(options.drain)}; left: {broker.left}"
        )


def _end_by_force(within_s: float) -> None:
    """End the process when the time is over, whatever thread still waits for somebody."""
    for after_s, end in ((within_s, _say_who_hangs), (within_s + _SAID_S, _exit)):
        timer = threading.Timer(after_s, end)
        timer.daemon = True
        timer.start()


def _say_who_hangs() -> None:
    names = [one.name for one in threading.enumerate() if not one.daemon]
    _LOG.warning("ended by force", extra={"threads": ", ".join(names)})


def _exit() -> None:
    os._exit(1)  # as main does for what has failed


def demo(options: argparse.Namespace) -> None:
    """Show it at work without a Jenkins and without Java."""
    from broker.demo import scenario, standalone  # noqa: PLC0415 -- only the demo pays for it

    if options.controller_only:
        listen = options.listen or _CONTROLLER
        try:
            asyncio.run(standalone.serve(listen=listen))
        except OSError as error:
            raise exits.Failed(f"cannot serve {listen}: {error.strerror or error}") from error
        return

    try:
        summary = asyncio.run(
            scenario.play(
                seconds=options.seconds,
                listen=options.listen or _PAGE,
                quiet=options.json,
                kinds=kinds.classes(),
                backend=options.backend,
                stay=options.stay,
            )
        )
    except scenario.Trouble as error:
        raise exits.Failed(str(error)) from error
    except asyncio.CancelledError:
        raise exits.Failed("left at once; every agent of the demo was ended") from None
    if options.json:
        shared.print_json(summary)
    if any(
        summary[name] for name in ("left_over", "builds_lost", "builds_failed", "builds_unserved")
    ):
        raise exits.Failed(
            "a build was lost, failed or not served, or something is left: see above"
        )
