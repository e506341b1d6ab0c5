"""Brings a Java to the nodes of a swarm, for agents in images that have none.

Each node has a volume for each content. An image's is filled by a job of the swarm, one task for
each node; an archive's through the engines that can be reached, as it is on plain engines.
Refuses to know agents, and which of the nodes one may go to (``placement``).

Theory of operation: the name of a job is that of its volume, made of the owner and of what the
nodes are told for the image, so its service is the lock, and another content is another job. Its
tasks tell which nodes are done: the filler writes ``.complete`` last, and a task that is complete
has seen it. For a node that takes tasks later it is begun anew, which finds all others done. A
content that nobody uses or wants is removed by the same job, which then empties the volume, and
goes when all of its tasks have done so; who wants it in the meantime waits for that.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from attrs import define, field, frozen

from backends import api
from backends.docker.containers import container
from backends.docker.containers import runtimes as of_archives
from backends.docker.engine import bodies, client
from backends.docker.swarm import (
    errand,
    keepers,
    manager,
    placement,
    service,
    settings,
    states,
)
from backends.kit import runtime

_LOOK_S = 0.3
_AGAIN_S = 10.0  # until a content is brought anew once more
_LATELY_S = 300.0  # after it was given to an agent, whose service may not be listed yet
_CLEARED_S = 600.0  # for nodes that do not do what they are told
_FAILED = frozenset({"failed", "rejected"})
_OVER = _FAILED | {"complete"}


class Ask(Protocol):
    """Asks the managers of the swarm (``SwarmBackend``)."""

    def __call__(
        self, lane: client.Lane, question: Callable[..., Any], *args: Any
    ) -> Coroutine[Any, Any, Any]:
        """Ask one after the other; ``question`` is a method of ``Manager``."""


class Resolve(Protocol):
    """Tells what the nodes are told for an image (``SwarmBackend``)."""

    def __call__(self, image: str, how: str) -> Coroutine[Any, Any, str]:
        """Return an image that does not move; ``how``: digest or id."""


@frozen(kw_only=True)
class _Content:
    """One content of a runtime, and where it is in the nodes."""

    volume: str
    source: settings.SwarmRuntime
    image: str = ""  # that holds it, as the nodes are told
    archive: tuple[runtime.Manifest, str] | None = None  # and its path


class SwarmRuntimes:
    """The runtimes of one owner in a swarm; one object for each event loop."""

    def __init__(
        self,
        configured: settings.SwarmSettings,
        *,
        owner: str,
        ask: Ask,
        resolve: Resolve,
        engines: Sequence[client.Engine],
    ) -> None:
        self._configured = configured
        self._owner = owner
        self._marks = errand.marks(owner)
        self._ask, self._resolve = ask, resolve
        self._keepers = [keepers.Keeper(engine, owner) for engine in engines]
        self._turn = asyncio.Lock()
        self._seen: dict[str, _ContentSeen] = {}  # by volume
        self._given: dict[str, float] = {}  # volumes, and when to an agent last; loop time
        self._anew: dict[str, float] = {}  # volumes, and when they were last filled anew
        self._late: dict[str, set[str]] = {}  # by job, nodes for which it was begun anew
        self._clearing: dict[str, float] = {}  # volumes that are emptied, and since when
        self._swept_at: float | None = None

    async def brought(
        self, plan: service.ServicePlan, tell: Callable[[str], None]
    ) -> service.ServicePlan:
        """Return the same once nodes that it may go to have its Java; ``tell`` gets why it waits.

        Raises what ``placement.judge`` does, Rejected for a runtime that cannot be, Unavailable.
        """
        if plan.runtime is None or not plan.runtime.is_volume:
            return plan
        while True:
            content = await self._content(plan.runtime)
            nodes, filling = await self._filling(content)
            verdict = placement.judge(nodes, plan.placement, filling)
            if isinstance(verdict, placement.Go):
                self._given[content.volume] = _now()
                return plan.with_volume(content.volume, verdict.without)
            tell(verdict.words)
            await asyncio.sleep(_LOOK_S)

    async def fill_anew(self, volume: str) -> None:
        """Have a content brought once more: on some node it is not what it should be."""
        if _now() - self._anew.get(volume, -_AGAIN_S) < _AGAIN_S:
            return
        self._anew[volume] = _now()
        self._seen.pop(volume, None)
        for keeper in self._keepers:
            keeper.held.pop(volume, None)
        for one in await self._jobs(volume):
            if one.labels.get(container.DIGEST) != errand.EMPTIES:
                await self._ask(client.Lane.START, manager.Manager.change_errand, one, one.spec)

    async def sweep(self, used: Collection[str]) -> None:
        """Remove contents that are neither wanted nor ``used``, now and then.

        ``used``: volumes of everything that runs, or may yet. Raises BackendError.
        """
        is_due = self._swept_at is None or _now() - self._swept_at > of_archives.SWEEP_S
        if not (is_due or self._clearing):
            return
        try:
            contents = [
                await self._content(brought)
                for brought in self._configured.runtimes.values()
                if brought.is_volume
            ]
        except api.BackendError:
            return  # which ones they will be is not known
        self._swept_at = _now()
        lately = {key for key, at in self._given.items() if _now() - at < _LATELY_S}
        wanted = {one.volume for one in contents} | lately | set(used)
        jobs = await self._jobs()
        for one in jobs:
            if (volume := one.labels.get(container.RUNTIME, "")) not in wanted:
                await self._clear(one, volume)
        for keeper in self._keepers:
            # what a job has at work is left to it; the swarm leaves its containers behind
            await keeper.begin_sweep(wanted | {one.name for one in jobs})

    # --- contents ---

    async def _content(self, source: settings.SwarmRuntime) -> _Content:
        if source.tar is not None:
            manifest = await asyncio.to_thread(of_archives.manifest_of, source.tar)
            return _Content(
                volume=of_archives.volume_of(manifest),
                source=source,
                archive=(manifest, source.tar),
            )
        image = await self._resolve(source.image or "", source.resolve)
        digits = bodies.fingerprint([self._owner, image])[:16]
        return _Content(volume=f"agent-broker-runtime-{digits}", source=source, image=image)

    async def _filling(
        self, content: _Content
    ) -> tuple[Sequence[states.SwarmNode], placement.Filling]:
        """Return the nodes, and how far it has come to them; begins what has to be done."""
        async with self._turn:
            seen = self._seen.setdefault(content.volume, _ContentSeen())
            if seen.nodes is None or _now() - seen.at > _LOOK_S:
                nodes = await self._ask(client.Lane.READ, manager.Manager.nodes)
                if content.archive is None:
                    told = await self._by_job(content, nodes)
                else:
                    told = await self._by_engines(*content.archive, nodes)
                seen.take(nodes, *told)
            return seen.nodes or (), seen.filling()

    # --- by a job of the swarm ---

    async def _jobs(self, volume: str = "") -> Sequence[manager.Errand]:
        of_volume = {container.RUNTIME: volume} if volume else {}
        found: Sequence[manager.Errand] = await self._ask(
            client.Lane.READ, manager.Manager.errands, {**self._marks, **of_volume}
        )
        return found

    async def _by_job(
        self, content: _Content, nodes: Sequence[states.SwarmNode]
    ) -> tuple[Collection[str], Mapping[str, str]]:
        there = await self._job(content)
        if there is None:
            return (), {}
        tasks: Sequence[states.SwarmTask] = await self._ask(
            client.Lane.READ, manager.Manager.tasks_of, there.id
        )
        current = [task for task in tasks if task.run == there.run]
        ready = {task.node for task in current if task.state == "complete"}
        missed = {
            task.node: task.error or task.message or task.state
            for task in current
            if task.state in _FAILED
        }
        told = {"Constraints": list(content.source.constraints)}
        able = {node.id for node in nodes if node.takes_tasks and placement.fits(node, told)}
        late = able - {task.node for task in current} - self._late.get(there.id, set())
        if late and current and all(task.state in _OVER for task in current):
            # a job that is done makes no task for a node that takes tasks only now (20.10)
            self._late.setdefault(there.id, set()).update(late)
            await self._ask(client.Lane.START, manager.Manager.change_errand, there, there.spec)
            return (), {}
        for node in nodes:
            if not placement.fits(node, told):
                missed[node.id] = "`constraints` of the runtime leave it out"
        return ready, {key: words for key, words in missed.items() if key not in ready}

    async def _job(self, content: _Content) -> manager.Errand | None:
        """Return the job that fills the volume; None if it has just been begun, or clears it."""
        constraints = content.source.constraints
        body = errand.filling(content.volume, content.image, constraints, owner=self._owner)
        there = next(iter(await self._jobs(content.volume)), None)
        if there is None:
            with contextlib.suppress(client.NameTakenError):  # somebody was faster
                await self._ask(
                    client.Lane.START, manager.Manager.begin_errand, body, content.image
                )
            return None
        told = there.labels.get(container.DIGEST)
        if told == errand.EMPTIES:
            self._clearing.setdefault(content.volume, _now())
            await self._clear(there, content.volume)
            return None
        if told != body["Labels"][container.DIGEST]:
            await self._ask(client.Lane.START, manager.Manager.change_errand, there, body)
            return None
        return there

    async def _clear(self, there: manager.Errand, volume: str) -> None:
        """Have a job empty its volume, and remove it once it has."""
        if there.labels.get(container.DIGEST) != errand.EMPTIES:
            self._clearing[volume] = _now()
            await self._ask(
                client.Lane.END, manager.Manager.change_errand, there, errand.emptying(there)
            )
            return
        since = self._clearing.setdefault(volume, _now())
        tasks: Sequence[states.SwarmTask] = await self._ask(
            client.Lane.READ, manager.Manager.tasks_of, there.id
        )
        states_now = {task.state for task in tasks if task.run == there.run}
        if states_now == {"complete"} or _now() - since > _CLEARED_S:
            with contextlib.suppress(api.NotFound):
                await self._ask(client.Lane.END, manager.Manager.remove_service, there.id)
            self._clearing.pop(volume, None)

    # --- through the engines ---

    async def _by_engines(
        self, manifest: runtime.Manifest, tar: str, nodes: Sequence[states.SwarmNode]
    ) -> tuple[Collection[str], Mapping[str, str]]:
        volume = of_archives.volume_of(manifest)
        for keeper in self._keepers:
            await keeper.begin_to_hold(manifest, tar)
        ready = {keeper.node for keeper in self._keepers if volume in keeper.held}
        missed = {
            keeper.node: keeper.failed[volume][0]
            for keeper in self._keepers
            if volume in keeper.failed and keeper.node
        }
        known = {keeper.node for keeper in self._keepers}
        if not any(keeper.is_asked and not keeper.node for keeper in self._keepers):
            for node in nodes:
                if node.id not in known:
                    missed[node.id] = "its engine is none of `managers` and `engines`, or is away"
        return ready, missed


def _now() -> float:
    return asyncio.get_running_loop().time()


@define(eq=False)
class _ContentSeen:
    """What was seen of a content last; times of the loop's clock."""

    nodes: Sequence[states.SwarmNode] | None = None
    ready: Collection[str] = ()
    missed: Mapping[str, str] = field(factory=dict)
    at: float = 0.0
    since: float = field(factory=_now)

    def take(
        self,
        nodes: Sequence[states.SwarmNode],
        ready: Collection[str],
        missed: Mapping[str, str],
    ) -> None:
        """Take what is seen now; a content that is gone from everywhere begins anew."""
        if self.ready and not ready:
            self.since = _now()
        self.nodes, self.ready, self.missed, self.at = nodes, ready, missed, _now()

    def filling(self) -> placement.Filling:
        """Return it as the rule wants it."""
        return placement.Filling(ready=self.ready, missed=self.missed, since_s=_now() - self.since)
