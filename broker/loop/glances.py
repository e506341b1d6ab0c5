"""Glances at the computers between two looks, for single-use agents that begin to work.

Beside the loop, one at a time, and only as long as somebody may be given a build and then another
one. The pause between two is at least as long as a request takes: a slow controller is asked less
often, and has answered before it is asked again. A longer pause would be a build more: with one of
nine times the answer's time an agent was given seven builds of one second where answers took one.
An item that was only assigned would be turned back at the door: a build has to show, or somebody
to work at two glances in a row. Refuses to decide who is worth a glance, and what follows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet

from attrs import define

from broker.core import model
from jnlp import errors as jnlp_errors

PAUSE_S = 0.1


@define(kw_only=True)
class Glances:
    """Glances for as long as there is a reason."""

    ask: Callable[[], Awaitable[Mapping[model.NodeName, bool]]]  # who works; a build shows
    at_risk: Callable[[], AbstractSet[model.NodeName]]
    seen: Callable[[AbstractSet[model.NodeName]], None]  # who of them has begun

    async def run(self) -> None:
        """Return when nobody is at risk any more, or the controller does not answer."""
        loop = asyncio.get_running_loop()
        before: Mapping[model.NodeName, bool] = {}
        while at_risk := self.at_risk():
            began = loop.time()
            try:
                at_work = await self.ask()
            except jnlp_errors.JenkinsError:
                return  # the look will say what is wrong
            begun = {name for name, shows in at_work.items() if shows or name in before}
            before = at_work
            if begun & at_risk:
                self.seen(begun & at_risk)
            await asyncio.sleep(max(PAUSE_S, loop.time() - began))
