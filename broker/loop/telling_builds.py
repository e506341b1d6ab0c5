"""Telling builds which ports of the machine their agents have, beside the loop.

A platform chooses a port when it starts an instance, so it comes too late for anything inside; a
property of the node reaches every build that begins later. What a node has is read once before it
is written, and written only if it differs: once for each agent in the usual case, while its agent
still connects. A few nodes at a time; after a refusal a while later. Nothing waits for it and
nothing depends on it. Refuses to know how a node holds an environment.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from attrs import define, field

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import published
from jnlp import errors as jnlp_errors
from outside import waits

_LOG = logging.getLogger("broker.builds")
_AT_ONCE = 4
_REFUSED_S = 300.0
_FAILED_S = 10.0
_REFUSALS = (
    jnlp_errors.Unauthorized,
    jnlp_errors.Forbidden,
    jnlp_errors.BadRequest,
    jnlp_errors.Unexpected,
)
"""What a person has to look at, and what another try will not mend."""


class Environments(Protocol):
    """The controller's side, as far as builds are told something."""

    async def tell_builds(self, name: str, variables: Mapping[str, str]) -> None:
        """Set the environment of the builds on a node, if it differs."""


@define(kw_only=True, eq=False)
class BuildNotices:
    """What the builds of each agent are told, as far as its node has it."""

    nodes: Environments
    now: Callable[[], float]
    leads: Callable[[], bool]
    time_limit_s: float
    outlived: Callable[[str], AbstractContextManager[None]]
    _done: dict[model.NodeName, Mapping[str, str]] = field(factory=dict)
    _not_before: dict[model.NodeName, float] = field(factory=dict)
    _tasks: dict[model.NodeName, asyncio.Task[None]] = field(factory=dict)

    def begin(self, agents: Iterable[model.Agent], group: waits.TaskGroup) -> None:
        """Begin to tell whoever has not been told this; ``agents`` as a whole look shows them."""
        now, there = self.now(), {agent.name: agent for agent in agents}
        for known in (self._done, self._not_before):
            for name in known.keys() - there.keys():
                known.pop(name, None)
        for name, agent in there.items():
            if len(self._tasks) >= _AT_ONCE:
                return
            wanted = _wanted(agent)
            is_due = now >= self._not_before.get(name, 0.0) and name not in self._tasks
            if wanted is not None and is_due and self._done.get(name, {}) != wanted:
                work = self._tell(name, wanted)
                self._tasks[name] = group.create_task(work, name=f"tell builds on {name}")

    def forget(self) -> None:
        """Look at every node anew: another broker has written them meanwhile."""
        self._done.clear()

    def stop(self) -> None:
        """Leave what is under way where it is; the next broker looks at what a node has."""
        for task in self._tasks.values():
            task.cancel()

    async def _tell(self, name: model.NodeName, wanted: Mapping[str, str]) -> None:
        pause_s = _FAILED_S
        try:
            with self.outlived("telling builds their ports"):
                pause_s = await self._told(name, wanted)
        finally:
            self._tasks.pop(name, None)
            self._not_before[name] = self.now() + pause_s

    async def _told(self, name: model.NodeName, wanted: Mapping[str, str]) -> float:
        """Return the seconds until it may be tried again."""
        if not self.leads():
            return 0.0
        try:
            async with waits.timeout(self.time_limit_s):
                await self.nodes.tell_builds(name, wanted)
        except jnlp_errors.NotFound:
            return _FAILED_S
        except _REFUSALS as error:
            _LOG.warning("builds not told", extra={"agent": name, "reason": str(error)})
            return _REFUSED_S
        except (jnlp_errors.JenkinsError, TimeoutError) as error:
            _LOG.info("builds not told", extra={"agent": name, "reason": str(error)})
            return _FAILED_S
        self._done[name] = wanted
        return 0.0


def _wanted(agent: model.Agent) -> Mapping[str, str] | None:
    """Return what builds on an agent are to be told; None: leave its node alone.

    An instance that does not run shows no ports; what its node says of it stays. A node that an
    action is under way with, or that takes no more builds, is nobody's business.
    """
    instance = agent.instance
    if agent.computer is None or instance is None or agent.in_flight or agent.cordoned:
        return None
    if instance.state is not backends_api.InstanceState.RUNNING or not instance.ports:
        return None
    return published.variables(instance)
