"""What instances use, asked beside everything else.

Nobody waits for an answer: a listing shows what was told before, and begins the next round once
the last one is over. What goes wrong with a round is the listing's to tell, or nobody's. Refuses
to know how a platform is asked, and what the numbers are good for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection

from backends import api
from backends.kit import usage

Take = Callable[[str, usage.Sample], None]
"""Where an answer goes: the key of an instance, and what it uses."""


class Sampler:
    """The samples of a platform's instances, by its own keys."""

    def __init__(
        self,
        ask: Callable[[Collection[str], Take], Awaitable[None]],
        *,
        now: Callable[[], float],
        every_s: float = usage.EVERY_S,
        together: bool = False,
    ) -> None:
        """``ask`` is given the keys of who is due; it may raise any ``BackendError``.

        ``together``: one request tells of all, so all are due at once.
        """
        self._ask = ask
        self._now = now
        self._usages = usage.Usages(every_s=every_s, together=together)
        self._round: asyncio.Task[None] | None = None

    def of(self, key: str) -> api.Usage | None:
        """Return what is known by now."""
        return self._usages.of(key)

    def look(self, running: Collection[str], *, there: Collection[str]) -> None:
        """Begin to ask those that are due, unless that is going on; forget who is not there."""
        self._usages.keep(there)
        if self._round is not None and not self._round.done():
            return
        if due := self._usages.due(running, now=self._now()):
            self._round = asyncio.get_running_loop().create_task(self._go_round(due))

    async def _go_round(self, due: Collection[str]) -> None:
        with contextlib.suppress(api.BackendError):
            await self._ask(due, self._usages.take)

    def leave(self) -> frozenset[asyncio.Future[None]]:
        """Return what is under way; it ends as soon as its calls do."""
        if self._round is None or self._round.done():
            return frozenset()
        return frozenset({self._round})

    async def aclose(self) -> None:
        """Give up what is under way."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait({self._round})
