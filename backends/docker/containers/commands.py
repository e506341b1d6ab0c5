"""A command in a container: run, and ended if it does not end by itself.

Why: an engine starts a command in a container, and has no way to end it; the process id that it
tells is that of its host. So each command carries a mark in its environment, which all that it
starts inherit, and one out of time is looked for by it, from inside, by a few lines of shell.
Where the image has no shell it lives on until the container ends. Refuses to know instances.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Collection, Sequence

from backends import api
from backends.docker.engine import answers, client
from backends.kit import running
from outside import quotes

_END_S = 10.0


async def run(
    engine: client.Engine,
    container_id: str,
    argv: Sequence[str],
    *,
    within_s: float,
    hide: Collection[str],
) -> api.Ran:
    """Run a command. Raises Rejected where its program is not there, NotFound, Unavailable."""
    value = secrets.token_hex(8)
    under_way = await engine.begin(
        client.Lane.RUN, engine.run, container_id, argv, mark=f"{running.MARK}={value}",
        within_s=within_s,
    )  # fmt: skip
    try:
        code, output = await under_way
    except (asyncio.CancelledError, api.Unavailable):  # it may run on, and be begun once more
        await _end(engine, container_id, value)
        raise
    if code is None:
        await _end(engine, container_id, value)
    ran = running.ran(code, output, hide=hide)
    if answers.is_no_program(code, ran.output):
        raise api.Rejected(f"cannot execute {quotes.shown(argv[0])}: {ran.output}")
    return ran


async def _end(engine: client.Engine, container_id: str, value: str) -> None:
    """Kill what carries the mark. What goes wrong changes nothing in what is known of it."""
    with contextlib.suppress(api.BackendError):
        await engine.call(
            client.Lane.KILL,
            engine.run,
            container_id,
            # as an argument: by its environment the shell would find itself
            (*running.ENDING, f"{running.MARK}={value}"),
            mark="AGENT_BROKER_ENDS=1",
            within_s=_END_S,
        )
