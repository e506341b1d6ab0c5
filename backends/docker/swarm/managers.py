"""Several managers of one swarm as one: who is asked, and who next.

A swarm has one memory, so any manager does. The one that answered last is asked first; where it
does not, or is none any more, the next one. Each is asked which swarm it manages before it is
believed, because in another swarm none of our agents are, which would read as their end. Refuses
to know what is asked.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from attrs import define

from backends import api
from backends.docker.engine import client
from backends.docker.swarm import manager, refusals

_P = ParamSpec("_P")
_T = TypeVar("_T")


@define(eq=False)
class _Seat:
    manager: manager.Manager
    is_known: bool = False  # that it is a manager of our swarm; until it fails


class Managers:
    """The managers of a swarm; one object for each event loop."""

    def __init__(self, managers: Sequence[manager.Manager]) -> None:
        self._seats = [_Seat(one) for one in managers]
        self._swarm = ""

    @property
    def all(self) -> Sequence[manager.Manager]:
        """Every one, the one that answered last first."""
        return [seat.manager for seat in self._seats]

    async def ask(
        self,
        lane: client.Lane,
        question: Callable[Concatenate[manager.Manager, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Ask one after the other until one answers, or refuses what any of them would refuse.

        ``question`` is a method of ``Manager``; whatever it does may be done twice. Raises the
        error of the first one if none answers.
        """
        first: api.BackendError | None = None
        for seat in tuple(self._seats):
            try:
                if not seat.is_known:
                    await self._meet(seat)
                answer = await seat.manager.call(lane, question, seat.manager, *args, **kwargs)
            except api.BackendError as error:
                if not refusals.is_gone_elsewhere(error):
                    raise
                seat.is_known = False
                first = first or error
            else:
                self._prefer(seat)
                return answer
        assert first is not None  # noqa: S101 -- there is one manager at least
        raise first

    async def _meet(self, seat: _Seat) -> None:
        """Ask which swarm it manages. Raises Unauthorized if it is not ours."""
        swarm = await seat.manager.call(client.Lane.READ, seat.manager.swarm)
        if self._swarm and swarm != self._swarm:
            raise api.Unauthorized(
                f"{seat.manager.url} manages another swarm than the one that this broker knows; "
                "hint: `managers` of the backend; a restart takes the new one",
                reach=api.Reach.PLACE,
            )
        self._swarm, seat.is_known = swarm, True

    def _prefer(self, seat: _Seat) -> None:
        if self._seats[0] is not seat:
            self._seats.remove(seat)
            self._seats.insert(0, seat)

    def leave(self) -> frozenset[asyncio.Future[Any]]:
        """Begin nothing more; return the calls that are under way."""
        return frozenset[asyncio.Future[Any]]().union(*(one.leave() for one in self.all))

    def close(self) -> None:
        """Let go of every connection; blocking."""
        for one in self.all:
            one.close()
