"""Starts a command that an agent wants to be run in another container of its pod.

That is all: once it runs, the two containers are among themselves. An order that is given twice,
because nobody heard whether it arrived, is carried out once (``beside.sh``); so whatever is in
doubt is answered with "again". Refuses to know HTTP and tokens, and what becomes of the command.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from backends import api
from backends.kubernetes.exec import channels, containers, execution, incontainer
from outside import text, waits

_LOOK_S = 1.0
_ROOM_S = 600.0  # how long the image of a side container may take
_ANSWER_S = 30.0
_FIRST_LINE = 32
_WORDS = 4096
_DEAD_LOOKS = 10  # after so many a pod's state has told of a container's end

Tell = Callable[[str], Awaitable[None]]
Look = Callable[[], Awaitable[Mapping[str, Any] | None]]


class OrderRefused(Exception):  # noqa: N818 -- what happened
    """The command could not be run; ``code``: what the program is to end with."""

    def __init__(self, message: str, code: int = incontainer.CANNOT_RUN) -> None:
        super().__init__(message)
        self.code = code


async def room(container: str, *, look: Look, tell: Tell, patience_s: float) -> None:
    """Wait until a container runs; ``tell`` what is waited for.

    Raises OrderRefused if it never will, and the contract's errors.
    """
    loop = asyncio.get_running_loop()
    began, said = loop.time(), ""
    while True:
        obstacle = await _obstacle(container, look)
        if obstacle is None:
            return
        waited_s = loop.time() - began
        patient_s = patience_s if obstacle.is_trouble else _ROOM_S
        if obstacle.is_final or waited_s >= patient_s:
            raise OrderRefused(obstacle.text)
        if waited_s >= _LOOK_S and obstacle.text != said:
            said = obstacle.text
            await tell(said)
        await asyncio.sleep(_LOOK_S / 5 if waited_s < _LOOK_S else _LOOK_S)


async def _obstacle(container: str, look: Look) -> containers.Obstacle | None:
    seen = await look()
    if seen is None:
        raise OrderRefused("the pod is gone")
    return containers.obstacle(seen, container)


async def start(
    order: incontainer.CommandOrder,
    number: str,
    *,
    pod: str,
    executor: execution.CommandExecutor,
) -> None:
    """Start the command of an order, unless it was. Raises OrderRefused and the contract's errors.

    ``number``: the order's; whoever gives the same again asks whether it was carried out.
    """
    running = await executor.open(pod, order.container, incontainer.beside())
    try:
        await running.send(incontainer.line(order, number))
        async with waits.timeout(_ANSWER_S):
            await _answered(order.container, running)
    except TimeoutError as error:
        words = f"the shell of container {order.container} does not answer"
        raise api.Unavailable(words) from error
    finally:
        await running.aclose()


async def _answered(container: str, running: execution.Execution) -> None:
    head, words = b"", b""
    async with contextlib.aclosing(running.output()) as output:
        async for channel, data in output:
            match channel:
                case channels.STDOUT:
                    head += data[:_FIRST_LINE]
                    if b"\n" in head or len(head) > _FIRST_LINE:
                        return _judge(container, head.partition(b"\n")[0])
                case channels.STDERR:
                    words = (words + data)[:_WORDS]
                case channels.STATUS:
                    raise _refusal(container, channels.status(data), words)
    raise api.Unavailable("the connection to the container ended")


def _judge(container: str, answer: bytes) -> None:
    match answer:
        case b"started":
            return
        case b"gone":
            raise OrderRefused(
                f"container {container} does not share {incontainer.SHARED} with the agent"
            )
        case _:
            raise OrderRefused(f"the shell of container {container} says something of its own")


def _refusal(container: str, status: channels.Status, words: bytes) -> OrderRefused:
    where = f"container {container}"
    if status.is_missing or status.code == incontainer.NO_SHELL:
        return OrderRefused(f"{where} has no shell, sh", code=incontainer.NO_SHELL)
    said = text.clean(words.decode("utf-8", "replace")) or status.message
    return OrderRefused(said or f"{where} ends with {status.code} before the command")


async def end_of(container: str, *, look: Look) -> str:
    """Say what has become of a container whose command left no exit code.

    Raises the contract's errors.
    """
    try:
        for _ in range(_DEAD_LOOKS):
            obstacle = await _obstacle(container, look)
            if obstacle is not None:
                return obstacle.text
            await asyncio.sleep(_LOOK_S)
    except OrderRefused as gone:
        return str(gone)
    return f"what was started in container {container} was killed there; the container runs on"
