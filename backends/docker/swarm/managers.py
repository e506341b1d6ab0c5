"""Several managers of one swarm as one: who is asked, and who next.

A swarm has one memory, so any manager does. The one that answered last is asked first; where it
does not, or is none any more, the next one. Each is asked which swarm it manages before it is
believed, and at each look, because in another swarm none of our agents are, which would read as
their end. Refuses to know what is asked.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from attrs import define

from backends import api
from backends.docker.engine import client
from backends.docker.swarm import manager, refusals

_P = ParamSpec("_P")
_T = TypeVar("_T")
_WORDS = 512
_PATIENCE_S = 3.0  # with one that is silent: without a quorum the refusal of a write takes 20 s


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

    async def view(self, labels: Mapping[str, str]) -> manager.SwarmView:
        """Return what a manager of our swarm shows of everything with these labels."""

        def look(one: manager.Manager) -> manager.SwarmView:
            seen = one.view(labels)
            self._check(one, seen.swarm)
            return seen

        return await self.ask(client.Lane.READ, look)

    async def ask(
        self,
        lane: client.Lane,
        question: Callable[Concatenate[manager.Manager, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Ask one after the other until one answers, or refuses what any of them would refuse.

        ``question`` is a method of ``Manager``; whatever it does may be done twice. Where it only
        reads, the next one is asked beside one that is silent. If none answers, raises what one
        says of the whole swarm, else the kind of error of the first one, with the words of all.
        """
        patience_s = _PATIENCE_S if lane is client.Lane.READ else None
        left = list(self._seats)
        asked: set[asyncio.Future[_T]] = set()
        order: list[asyncio.Future[_T]] = []
        failures: dict[asyncio.Future[_T], api.BackendError] = {}
        try:
            while left or asked:
                if left:
                    answer = self._ask_one(left.pop(0), lane, question, *args, **kwargs)
                    order.append(asyncio.ensure_future(answer))  # noqa: TID251 -- ended below
                    asked.add(order[-1])
                done, asked = await asyncio.wait(
                    asked,
                    timeout=patience_s if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                ends = {future: future.exception() for future in done}
                for future, error in ends.items():
                    if error is None:
                        return future.result()
                    if not (
                        isinstance(error, api.BackendError) and refusals.is_gone_elsewhere(error)
                    ):
                        raise error
                    failures[future] = error
        finally:
            for future in asked:
                future.cancel()
        errors = [failures[future] for future in order]
        for error in errors:
            if isinstance(error, refusals.NoQuorumError) or len(errors) == 1:
                raise error
        told = errors[0]
        reasons = "; ".join(dict.fromkeys(error.reason for error in errors))
        words = f"none of {len(errors)} managers does it: {reasons}"[:_WORDS]
        raise type(told)(words, retry_after=told.retry_after, reach=told.reach)

    async def _ask_one(
        self,
        seat: _Seat,
        lane: client.Lane,
        question: Callable[Concatenate[manager.Manager, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        try:
            if not seat.is_known:
                swarm = await seat.manager.call(client.Lane.READ, seat.manager.swarm)
                self._check(seat.manager, swarm)
                self._swarm, seat.is_known = swarm, True
            answer = await seat.manager.call(lane, question, seat.manager, *args, **kwargs)
        except api.BackendError as error:
            if refusals.is_gone_elsewhere(error):
                seat.is_known = False
            raise
        self._prefer(seat)
        return answer

    def _check(self, one: manager.Manager, swarm: str) -> None:
        """Raise Unauthorized if it is not ours."""
        if self._swarm and swarm != self._swarm:
            raise api.Unauthorized(
                f"{one.url} manages another swarm than the one that this broker knows; "
                "hint: `managers` of the backend; a restart takes the new one",
                reach=api.Reach.PLACE,
            )

    def _prefer(self, seat: _Seat) -> None:
        if self._seats[0] is not seat:
            self._seats.remove(seat)
            self._seats.insert(0, seat)

    def leave(self) -> frozenset[asyncio.Future[Any]]:
        """Begin nothing more; return the calls that are under way."""
        return frozenset[asyncio.Future[Any]]().union(*(one.leave() for one in self.all))
