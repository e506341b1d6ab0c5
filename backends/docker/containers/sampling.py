"""What the containers of one engine use, asked beside everything else.

Nobody waits for an answer: a listing shows what was told before, and begins the next round, once
the last one is over. Some are asked at the same time (``client.Lane``), because an answer takes a
second: so of a hundred containers each is asked every half minute. Refuses to know what the
numbers are good for.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection

from backends import api
from backends.docker.engine import client
from backends.kit import usage


class Sampler:
    """The samples of one engine's containers, by their ids."""

    def __init__(self, engine: client.Engine, *, now: Callable[[], float]) -> None:
        self._engine = engine
        self._now = now
        self._usages = usage.Usages()
        self._round: asyncio.Task[None] | None = None

    def of(self, container_id: str) -> api.Usage | None:
        """Return what is known by now."""
        return self._usages.of(container_id)

    def look(self, running: Collection[str], *, there: Collection[str]) -> None:
        """Begin to ask those that are due, unless that is going on; forget who is not there."""
        self._usages.keep(there)
        if self._round is not None and not self._round.done():
            return
        if due := self._usages.due(running, now=self._now()):
            self._round = asyncio.get_running_loop().create_task(self._ask(due))

    async def _ask(self, due: Collection[str]) -> None:
        await asyncio.gather(*map(self._ask_one, due))

    async def _ask_one(self, container_id: str) -> None:
        with contextlib.suppress(api.BackendError):  # the listing says what is wrong with it
            sample = await self._engine.call(
                client.Lane.USAGE, self._engine.sample, container_id, now=self._now
            )
            if sample is not None:
                self._usages.take(container_id, sample)

    def leave(self) -> frozenset[asyncio.Future[None]]:
        """Return what is under way; it ends as soon as its engine's calls do."""
        ended = self._round is None or self._round.done()
        return frozenset() if ended or self._round is None else frozenset({self._round})
