"""Folders of agents on the nodes of a swarm (``folders``): where they can be, and their end.

Why: such an agent goes only to nodes whose engine can be reached: only there it is known where
volumes are, and only there somebody removes the folder, and what the builds of a dead agent left
running in it. Refuses to know tasks.

Theory of operation: the volume's labels say whose it is. It goes once its agent has; what an
engine that was away still has, or a broker that died has left, is swept later.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any

from backends import api
from backends.docker.engine import client
from backends.docker.swarm import folders, placement, states
from outside import text, waits

_LOG = logging.getLogger(__name__)
_KNOWN_S = 30.0  # for which an engine is believed where its volumes are
_ASK_S = 5.0
_REMOVE_S = 15.0  # a node removes a container two seconds after its service (20.10)
_LOOK_S = 0.3
_EVERY_S = 60.0  # between sweeps
_STALE_S = 120.0  # without an agent, until it is swept
_SHORT_ID = 12  # as the command `docker` shows ids
_RUNS = frozenset({"created", "running", "paused", "restarting"})


class NodeFolders:
    """The folders of one owner's agents; one object for each event loop."""

    def __init__(self, engines: Sequence[client.Engine], owner: Mapping[str, str]) -> None:
        """``owner``: the labels that make something ours."""
        self._engines = engines
        self._owner = dict(owner)
        self._places: dict[client.Engine, tuple[str, str, float]] = {}  # node, root, until
        self._spare: dict[tuple[int, str], float] = {}  # by engine and volume: since when
        self._swept_at = time.monotonic()  # a look of a moment sweeps nothing
        self._sweep: asyncio.Task[None] | None = None

    async def placed(
        self, nodes: Sequence[states.SwarmNode], told: Mapping[str, Any], root: str
    ) -> tuple[str, ...]:
        """Return ids of the nodes that an agent with such a folder has to be kept from.

        ``told``: the service's ``Placement``; ``root``: where engines keep what is theirs. Raises
        NoCapacity if no node could take it, and Unavailable if none that could is known to have
        its volumes there.
        """
        able = [node for node in nodes if node.takes_tasks and placement.fits(node, told)]
        if not able:
            raise api.NoCapacity("no node that takes tasks is one that the template allows")
        places = dict(await self._ask_places())
        if not any(places.get(node.id) == root for node in able):
            others = sorted({places[node.id] for node in able if node.id in places})
            why = (
                f"they are in {', '.join(others)[:128]}; hint: remote_fs of the template"
                if others
                else "none of their engines can be asked; hint: name them in `engines`"
            )
            words = f"docker_pipelines: no node that it may go to has volumes in {root}: {why}"
            raise api.Unavailable(text.clean(words, 256), reach=api.Reach.TEMPLATE)
        return tuple(node.id for node in nodes if places.get(node.id) != root)

    async def _ask_places(self) -> Sequence[tuple[str, str]]:
        found = await asyncio.gather(*(self._ask_place(one) for one in self._engines))
        return [place for place in found if place[0]]

    async def _ask_place(self, engine: client.Engine) -> tuple[str, str]:
        node, root, until = self._places.get(engine, ("", "", 0.0))
        if time.monotonic() < until:
            return node, root
        with contextlib.suppress(api.BackendError, TimeoutError):
            async with waits.timeout(_ASK_S):
                node, root = await engine.call(client.Lane.READ, engine.swarm_place)
            self._places[engine] = node, root, time.monotonic() + _KNOWN_S
            return node, root
        return "", ""

    # --- the end ---

    async def remove(self, name: str, volume: str) -> None:
        """Remove the folder of an agent that is gone, wherever that can be; waits a little."""
        await asyncio.gather(*(self._remove_one(one, name, volume) for one in self._engines))

    async def _remove_one(self, engine: client.Engine, name: str, volume: str) -> None:
        with contextlib.suppress(api.BackendError, client.OddAnswerError, TimeoutError):
            async with waits.timeout(_REMOVE_S):
                is_gone = False
                while not is_gone:
                    is_gone = await engine.call(client.Lane.END, self._tried, engine, name, volume)
                    await asyncio.sleep(0 if is_gone else _LOOK_S)

    def _tried(self, engine: client.Engine, name: str, volume: str) -> bool:
        """Remove what the builds of an agent left, and its volume; tell whether all is gone.

        Only what is ours, and only after the agent's own container has ended. Blocking.
        """
        labels = engine.volume(volume)
        if labels is None or not self._is_of(labels, name):
            return True
        there = []
        for found in engine.mounting([volume]):
            with contextlib.suppress(api.NotFound):
                there.append(engine.inspect(found))
        if any(one.labels.get(folders.VOLUME) == volume and one.state in _RUNS for one in there):
            return False
        for one in there:
            if one.mounts_of and one.labels.get(folders.VOLUME) != volume:
                with contextlib.suppress(api.NotFound, api.Rejected):  # somebody else removes it
                    engine.remove(one.id)
                    details = {"agent": name, "container": one.id[:_SHORT_ID]}
                    _LOG.info("container of a build removed", extra=details)
        try:
            engine.remove_volume(volume, within_s=_REMOVE_S)
        except api.Rejected:  # a container has it yet
            return False
        except api.NotFound:
            return True
        return True

    def _is_of(self, labels: Mapping[str, str], name: str) -> bool:
        return {**self._owner, folders.OF: name}.items() <= labels.items()

    # --- what is left ---

    def look(self, needed: Collection[str]) -> None:
        """Begin to sweep folders whose agent is none of ``needed``; nobody waits for it.

        A folder that is found only now may be that of an agent that is younger than ``needed``.
        """
        now = time.monotonic()
        is_due = now - self._swept_at >= _EVERY_S
        if not is_due or (self._sweep is not None and not self._sweep.done()):
            return
        self._swept_at = now
        self._sweep = asyncio.get_running_loop().create_task(self._sweep_all(frozenset(needed)))

    async def _sweep_all(self, needed: Collection[str]) -> None:
        await asyncio.gather(
            *(self._sweep_one(number, needed) for number in range(len(self._engines)))
        )

    async def _sweep_one(self, number: int, needed: Collection[str]) -> None:
        engine, now = self._engines[number], time.monotonic()
        with contextlib.suppress(api.BackendError):
            found = await engine.call(client.Lane.END, engine.volumes, self._owner)
            spare = {
                volume: labels[folders.OF]
                for volume, labels in found.items()
                if labels.get(folders.OF) and labels[folders.OF] not in needed
            }
            since = {(number, volume): self._spare.get((number, volume), now) for volume in spare}
            others = {key: at for key, at in self._spare.items() if key[0] != number}
            self._spare = {**others, **since}
            for volume, name in spare.items():
                if now - since[number, volume] >= _STALE_S:
                    work: Coroutine[Any, Any, bool] = engine.call(
                        client.Lane.END, self._tried, engine, name, volume
                    )
                    with contextlib.suppress(client.OddAnswerError):
                        await work

    def leave(self) -> None:
        """Give up a sweep that is going on."""
        if self._sweep is not None:
            self._sweep.cancel()
