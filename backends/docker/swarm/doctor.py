"""Whether a swarm can be asked and can take agents, without starting anything.

Each manager by itself; its nodes; of each image what the nodes would be told for it. Refuses to be
needed by a broker at work.
"""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from backends import api
from backends.docker.containers import runtimes
from backends.docker.engine import client
from backends.docker.swarm import folders, manager, settings
from backends.kit import finding
from outside import counts

_ONE = 1


async def examine(
    configured: settings.SwarmSettings,
    *,
    owner: str,  # noqa: ARG001 -- the shape of all examiners
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],  # noqa: ARG001 -- likewise
) -> AsyncIterator[finding.Finding]:
    """Yield what stands between a configuration and its agents; ``orders`` by template."""
    for found in runtimes.examined(configured.runtimes, orders):
        yield found
    managers = [manager.Manager(host, configured) for host in configured.managers]
    try:
        able: list[manager.Manager] = []
        swarms: set[str] = set()
        for one in managers:
            try:
                swarms.add(await one.call(client.Lane.READ, one.swarm))
            except api.BackendError as error:
                yield finding.fail("manager", error.reason, fault=error.fault)
            else:
                able.append(one)
                yield finding.ok("manager", f"{one.url} manages a swarm")
        if len(swarms) > _ONE:
            yield finding.fail(
                "manager", "the managers are of different swarms", "`managers` of the backend",
                fault="configuration",
            )  # fmt: skip
        if able:
            yield await _nodes(able[0])
            async for found in _images(able[0], orders):
                yield found
        async for found in _folders(configured, managers, orders):
            yield found
    finally:
        for one in managers:
            one.close()


async def _nodes(one: manager.Manager) -> finding.Finding:
    try:
        nodes = await one.call(client.Lane.READ, one.nodes)
    except api.BackendError as error:
        return finding.fail("nodes", error.reason, fault=error.fault)
    free = [node.name for node in nodes if node.takes_tasks]
    away = [node.name for node in nodes if node.is_down]
    words = f"{len(free)} of {counts.told(len(nodes), 'node', 'nodes')} can be given tasks"
    if not free:
        return finding.fail("nodes", words, "docker node ls", fault="operator")
    if away:
        return finding.warn("nodes", f"{words}; down: {', '.join(away[:3])}", "docker node ls")
    return finding.ok("nodes", words)


async def _folders(
    configured: settings.SwarmSettings,
    managers: Sequence[client.Engine],
    orders: Mapping[str, api.InstanceSpec],
) -> AsyncIterator[finding.Finding]:
    """Say to how many nodes agents with the socket of their engine can go."""
    roots: dict[str, list[str]] = defaultdict(list)
    for template, order in orders.items():
        if order.pipelines is not None and order.pipelines.mode == "socket":
            with contextlib.suppress(ValueError):  # check-config refuses it
                roots[folders.parts(order.work_dir or "", order.name)[0]].append(template)
    if not roots:
        return
    others = [client.Engine(host, configured) for host in configured.engines]
    places: dict[str, str] = {}
    try:
        for engine in (*managers, *others):
            with contextlib.suppress(api.BackendError):
                node, root = await engine.call(client.Lane.READ, engine.swarm_place)
                places[node] = root
    finally:
        for engine in others:
            engine.close()
    places.pop("", None)
    for root, templates in roots.items():
        fitting = sum(there == root for there in places.values())
        told = counts.told(len(places), "node whose engine", "nodes whose engines")
        of = f"template {', '.join(templates)}"
        words = f"volumes in {root} ({of}): {fitting} of {told} can be asked"
        if fitting:
            yield finding.ok("folders", words)
        else:
            hint = "`docker info` of a node says Docker Root Dir: put it into remote_fs"
            yield finding.fail("folders", words, hint, fault="configuration")


async def _images(
    one: manager.Manager, orders: Mapping[str, api.InstanceSpec]
) -> AsyncIterator[finding.Finding]:
    wanted: dict[tuple[str, str], list[str]] = defaultdict(list)
    for template, order in orders.items():
        options = order.options
        resolve = options.resolve if isinstance(options, settings.SwarmTemplate) else "digest"
        if order.image is not None:
            wanted[order.image, resolve].append(template)
    for (image, resolve), templates in wanted.items():
        words = f"{image} (template {', '.join(templates)})"
        ask = one.image_id if resolve == "id" else one.ask_registry
        try:
            await one.call(client.Lane.READ, ask, image)
        except api.BackendError as error:
            yield finding.fail("image", f"{words}: {error.reason}", fault=error.fault)
        else:
            there = "is on the manager" if resolve == "id" else "can be had from its registry"
            yield finding.ok("image", f"{words} {there}")
