"""One command that an agent runs in another container of its pod, from its order to its exit code.

A session lives as long as the request that brings its standard output: whoever goes away in the
middle ends the command, as a closed terminal does, and so does a broker that stops. But it is no
part of that request, which may be cancelled again while the command is being ended. Input,
standard error and the exit code come by requests beside it. Nothing is kept that nobody has read:
a slow reader slows the command. Refuses to know HTTP and tokens.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from attrs import define, field, frozen

from backends import api
from backends.kubernetes.api import errors
from backends.kubernetes.exec import channels, containers, execution, incontainer
from outside import text, waits

_LOG = logging.getLogger("backends.kubernetes")
_ATTACH_S = 30.0  # the program opens its streams at once
_LOOK_S = 1.0
_ROOM_S = 600.0  # how long the image of a side container may take
_FIRST_LINE = 32  # digits of a process id, and a line end
_WORDS = 4096
_END_S = 15.0
_END_TRIES_S = 20.0
_LAST_WORDS_S = 3.0
_OUTAGE_S = 30.0  # an API server or a kubelet that is being restarted

_GONE = "the caller went away"

_T = TypeVar("_T")
Sink = Callable[[bytes], Awaitable[None]]
Look = Callable[[], Awaitable[Mapping[str, Any] | None]]


@frozen(kw_only=True)
class Result:
    """How it ended: the program's exit code, and what it says of its own."""

    code: int
    message: str = ""


class OrderRefused(Exception):  # noqa: N818 -- what happened
    """The command could not be run; carries the result."""

    def __init__(self, message: str, code: int = incontainer.CANNOT_RUN) -> None:
        super().__init__(message)
        self.result = Result(code=code, message=message)


class _Abandoned(Exception):  # noqa: N818 -- what happened
    """Somebody asked for the end."""


@define(eq=False, kw_only=True)
class Command:
    """One command."""

    agent: str  # its pod's name
    digest: str = field(repr=False)
    executor: execution.CommandExecutor
    container: str = ""
    pid: int | None = None
    result: Result | None = None
    started: asyncio.Event = field(factory=asyncio.Event)  # or ended before
    ended: asyncio.Event = field(factory=asyncio.Event)
    result_taken: asyncio.Event = field(factory=asyncio.Event)  # somebody took the result
    ended_at: float = 0.0
    _stderr: Sink | None = None
    _listening: asyncio.Event = field(factory=asyncio.Event)
    _running: execution.Execution | None = None
    _limit: asyncio.Timeout | None = None
    _why: str = ""
    _hurry: bool = False

    # --- the request that carries it ---

    async def run(self, body: bytes, *, look: Look, stdout: Sink, patience_s: float) -> None:
        """Run an order to the end; the result says how. To be ended by ``abandon`` alone."""
        try:
            order = incontainer.read_order(body)
            self.container = order.container
            await self._limited(order, look, stdout, patience_s)
        except incontainer.Malformed as error:
            self._why = str(error)
        except OrderRefused as refused:
            self.result = refused.result
        except _Abandoned:
            self.result = Result(code=incontainer.CANNOT_RUN, message=await self._end())
        except api.BackendError as error:
            self._why = error.reason
            self.result = Result(code=incontainer.CANNOT_RUN, message=await self._end())
        except ConnectionError:
            self._why = _GONE
            self.result_taken.set()
            await self._end()
        finally:
            self._close()

    async def _limited(
        self, order: incontainer.CommandOrder, look: Look, stdout: Sink, patience_s: float
    ) -> None:
        try:
            async with waits.timeout(None) as self._limit:
                if self._why:
                    raise _Abandoned
                await self._room(look, patience_s)
                self.result = await self._command(order, stdout)
        except TimeoutError as error:
            raise _Abandoned from error
        finally:
            self._limit = None

    def refuse(self, why: str) -> None:
        """End before the beginning."""
        self._why = why
        self._close()

    def _close(self) -> None:
        if self.result is None:
            message = self._why or "the broker failed; its log says how"
            self.result = Result(code=incontainer.CANNOT_RUN, message=message)
        self.ended_at = asyncio.get_running_loop().time()
        self.started.set()
        self.ended.set()
        _LOG.info(
            "command in a side container ended",
            extra={"instance": self.agent, "container": self.container, "code": self.result.code},
        )

    # --- the requests beside it ---

    async def listen(self, stderr: Sink) -> None:
        """Take standard error; returns at the end."""
        self._stderr = stderr
        self._listening.set()
        try:
            await self.ended.wait()
        except asyncio.CancelledError:
            self.leave()
            raise

    async def feed(self, data: bytes) -> bool:
        """Give the command input, at its pace; tell whether it still wants any."""
        await self.started.wait()
        if self._running is None or self.ended.is_set():
            return False
        try:
            await self._running.send(data)
        except errors.Lost:
            return False
        return not self._running.input_ended

    async def end_input(self) -> None:
        """Say that there is no more input."""
        await self.started.wait()
        if self._running is not None and not self.ended.is_set():
            with contextlib.suppress(errors.Lost):
                await self._running.end_input()

    def abandon(self, why: str, *, hurry: bool = False) -> None:
        """End the command; in a hurry only TERM is waited for."""
        self._why, self._hurry = self._why or why, hurry
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())
            self._limit = None  # once is enough

    def leave(self) -> None:
        """End the command of a caller that is no more; nobody will ask how it ended."""
        self.result_taken.set()
        self.abandon(_GONE)

    # --- the steps ---

    async def _room(self, look: Look, patience_s: float) -> None:
        """Wait until the container runs. Raises OrderRefused if it never will."""
        loop = asyncio.get_running_loop()
        began, said = loop.time(), ""
        while True:
            seen = await _patiently(look)
            if seen is None:
                raise OrderRefused("the pod is gone")
            obstacle = containers.obstacle(seen, self.container)
            if obstacle is None:
                return
            waited_s = loop.time() - began
            patient_s = patience_s if obstacle.is_trouble else _ROOM_S
            if obstacle.is_final or waited_s >= patient_s:
                raise OrderRefused(obstacle.text)
            if waited_s >= _LOOK_S and obstacle.text != said:
                said = obstacle.text
                await self._say(f"in-container: waiting: {said}\n".encode())
            await asyncio.sleep(_LOOK_S / 5 if waited_s < _LOOK_S else _LOOK_S)

    async def _command(self, order: incontainer.CommandOrder, stdout: Sink) -> Result:

        async def ask() -> execution.Execution:
            return await self.executor.open(self.agent, self.container, incontainer.READ)

        self._running = running = await _patiently(ask)
        try:
            with waits.Ungrouped(OrderRefused, api.BackendError, ConnectionError):
                _check_input(order, running)
                mark = secrets.token_hex(16)
                await running.send(incontainer.line(order, mark))
                async with waits.TaskGroup() as group:
                    pings = group.create_task(running.ping(), name="ping the API server")
                    try:
                        return await self._streamed(running, stdout, incontainer.Marked(mark))
                    finally:
                        pings.cancel()
        finally:
            await running.aclose()

    async def _streamed(
        self, running: execution.Execution, stdout: Sink, marked: incontainer.Marked
    ) -> Result:
        """Pass on what the command says, from its first line on, which is its process id."""
        head, words = b"", b""
        async with contextlib.aclosing(running.output()) as output:
            async for channel, data in output:
                if channel == channels.STATUS:
                    await self._say(marked.rest())
                    return self._judged(channels.status(data), words)
                if channel == channels.STDERR and self.pid is None:
                    words = (words + data)[:_WORDS]
                elif channel == channels.STDERR:
                    said, command_ended = marked.feed(data)
                    if command_ended:
                        await running.end_input()
                    await self._say(said)
                elif channel == channels.STDOUT and self.pid is not None:
                    await stdout(data)
                elif channel == channels.STDOUT:
                    head += data
                    head = await self._begin(head, words, stdout)
        raise errors.Lost("the connection to the container ended")

    async def _begin(self, head: bytes, words: bytes, stdout: Sink) -> bytes:
        """Take the process id off the output; return what is not yet a whole line."""
        number, line_end, rest = head.partition(b"\n")
        if not line_end and len(head) < _FIRST_LINE:
            return head
        if not number.isdigit():
            raise OrderRefused(
                f"the shell of container {self.container} says something of its own"
            )
        self.pid = int(number)
        self.started.set()
        if words:
            await self._say(words)
        if rest:
            await stdout(rest)
        return b""

    def _judged(self, status: channels.Status, words: bytes) -> Result:
        where = f"container {self.container}"
        if self.pid is not None and status.code is not None:
            self.pid = None  # nothing is left to end
            return Result(code=status.code)
        said = text.clean(words.decode("utf-8", "replace")) or status.message
        if status.is_missing or status.code == incontainer.NO_SHELL:
            raise OrderRefused(f"{where} has no shell, sh", code=incontainer.NO_SHELL)
        if self.pid is None:
            raise OrderRefused(said or f"{where} ends with {status.code} before the command")
        raise errors.Lost(f"{where}: {said}")

    async def _say(self, data: bytes) -> None:
        """Write to the caller's standard error, once it is there."""
        if not data:
            return
        try:
            async with waits.timeout(_ATTACH_S):
                await self._listening.wait()
        except TimeoutError as error:
            raise errors.Lost("the caller does not read standard error") from error
        assert self._stderr is not None  # noqa: S101 -- set before the event; for mypy
        await self._stderr(data)

    async def _end(self) -> str:
        """End a command that is left alone; return what is to be said of it."""
        if self.pid is None:
            return self._why
        loop = asyncio.get_running_loop()
        command, until = incontainer.end(self.pid), loop.time() + _END_TRIES_S
        while True:
            try:
                async with waits.timeout(_LAST_WORDS_S if self._hurry else _END_S):
                    await self.executor.do(
                        self.agent, self.container, command, until_heard=self._hurry
                    )
            except (api.NotFound, api.Rejected):
                return f"{self._why}; so did the container"
            except (api.BackendError, TimeoutError) as error:
                if self._hurry or loop.time() > until:
                    _LOG.warning(
                        "command in a side container may still run",
                        extra={"instance": self.agent, "container": self.container},
                    )
                    return f"{self._why}; the command may still run: {error}"
                await asyncio.sleep(_LOOK_S)
            else:
                return f"{self._why}; the command was ended"


async def _patiently(ask: Callable[[], Awaitable[_T]]) -> _T:
    """Ask again while the platform does not answer; nothing is begun by asking."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _OUTAGE_S
    while True:
        try:
            return await ask()
        except api.Unavailable:
            if loop.time() > until:
                raise
        await asyncio.sleep(_LOOK_S)


def _check_input(order: incontainer.CommandOrder, running: execution.Execution) -> None:
    if order.has_input and not running.ends_input:
        raise OrderRefused(
            "the API server cannot end a command's input (Kubernetes 1.30 can); hint: </dev/null"
        )
