"""A command in the agent's container of a pod: run, and ended if it does not end by itself.

A kubelet lets a command live on when its connection goes, and has no way to end it. So a few words
of shell mark it in its environment before they become it, and one out of time is looked for by
that mark from inside. An image without ``/bin/sh`` gets the command as it is; there it lives on.
Refuses to know which pod is whose.
"""

import contextlib
import secrets
from collections.abc import Sequence

from backends import api
from backends.kit import running
from backends.kubernetes.api import errors
from backends.kubernetes.exec import channels, execution
from outside import quotes, waits

_BEGIN = f"""
{running.MARK}=$1; export {running.MARK}; shift
command -v -- "$1" >/dev/null 2>&1 || {{ echo "no program ${running.MARK}"; exit 127; }}
exec "$@"
"""
_MARKED = ("/bin/sh", "-c", _BEGIN, "sh")
_NO_PROGRAM = 127
_END_S = 10.0
_STREAMS = ("stdout", "stderr")
_NO_CONTAINER = "container not found"


async def run(
    executor: execution.CommandExecutor,
    pod: str,
    container: str,
    argv: Sequence[str],
    *,
    within_s: float,
) -> api.Ran:
    """Run a command. Raises Rejected where its program is not there, NotFound, Unavailable."""
    value = secrets.token_hex(8)
    code: int | None = None
    output = running.LastOutput()
    try:
        async with waits.timeout(within_s):
            try:
                code = await _told(executor, pod, container, (*_MARKED, value, *argv), output)
            except _NoProgramError:  # no shell: as it is
                code = await _bare(executor, pod, container, argv, output)
    except TimeoutError:
        pass
    finally:
        if code is None:
            await _end(executor, pod, container, value)
    ran = running.ran(code, output)
    if code == _NO_PROGRAM and ran.output == f"no program {value}":
        raise api.Rejected(f"the image has no program {quotes.shown(argv[0])}")
    return ran


class _NoProgramError(Exception):
    """The container has no such program."""


async def _bare(
    executor: execution.CommandExecutor,
    pod: str,
    container: str,
    argv: Sequence[str],
    output: running.LastOutput,
) -> int:
    try:
        return await _told(executor, pod, container, argv, output)
    except _NoProgramError as error:
        raise api.Rejected(f"cannot execute {quotes.shown(argv[0])}: {error}") from error


async def _told(
    executor: execution.CommandExecutor,
    pod: str,
    container: str,
    argv: Sequence[str],
    output: running.LastOutput,
) -> int:
    """Return the exit status of a command, and take its output."""
    under_way = await executor.open(pod, container, argv, streams=_STREAMS)
    try:
        async with contextlib.aclosing(under_way.output()) as pieces:
            async for channel, data in pieces:
                if channel in {channels.STDOUT, channels.STDERR}:
                    output.take(data)
                elif channel == channels.STATUS:
                    return _code(channels.status(data))
    finally:
        await under_way.aclose()
    raise errors.Lost("the connection to the container ended")


def _code(status: channels.Status) -> int:
    if status.code is not None:
        return status.code
    if status.is_missing:
        raise _NoProgramError(status.message)
    if _NO_CONTAINER in status.message:
        raise api.NotFound(status.message)
    raise api.Unavailable(f"a command cannot be run: {status.message}", reach=api.Reach.LAUNCH)


async def _end(executor: execution.CommandExecutor, pod: str, container: str, value: str) -> None:
    """Kill what carries the mark; what goes wrong changes nothing in what is known of it."""
    argv = (*running.ENDING, f"{running.MARK}={value}")
    with contextlib.suppress(api.BackendError, _NoProgramError, TimeoutError):
        async with waits.timeout(_END_S):
            await _told(executor, pod, container, argv, running.LastOutput())
