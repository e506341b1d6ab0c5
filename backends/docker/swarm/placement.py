"""Which nodes may take an agent, and which of them have the Java that it needs. Pure.

Why: a swarm puts a task on any node that its constraints allow, and a volume that is not there is
made empty. So an agent is kept from every node that has not been filled, by constraints of its own
service: labels of nodes are other people's.

Theory of operation: constraints cannot say "one of these", so they say "none of those". A node
that joins between the making of a service and the placing of its task is in none of them; what
ends there for want of its Java is told as such, and the next agent knows the node. Constraints are
read here as the scheduler reads them (swarmkit, ``manager/constraint``).
"""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from attrs import frozen

from backends import api
from backends.docker.engine import bodies
from backends.docker.swarm import states
from outside import counts, text

LATE_S = 20.0
"""Since a content began to come to the nodes: who has it not by then is gone without."""
NEVER_S = 100.0
"""As above, until a launch that has found no node gives up; less than an action may take."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NODE_LABEL, _ENGINE_LABEL = "node.labels.", "engine.labels."


@frozen(kw_only=True)
class Filling:
    """How far a content has come in the swarm; nodes by their ids."""

    ready: Collection[str]
    missed: Mapping[str, str]  # nodes that do not get it, as things are, and why
    since_s: float  # that it has been on its way, or there


@frozen(kw_only=True)
class AwaitedJava:
    """What an agent waits for before its service is made, in words."""

    words: str


@frozen(kw_only=True)
class Go:
    """What nodes an agent is kept from, by their ids."""

    without: tuple[str, ...]


def fits(node: states.SwarmNode, placement: Mapping[str, Any]) -> bool:
    """Tell whether a node is one that a service's ``Placement`` allows."""
    told = placement.get("Constraints")
    constraints = told if isinstance(told, list) else []
    platforms = placement.get("Platforms")
    wanted = platforms if isinstance(platforms, list) else []
    return all(_meets(node, str(line)) for line in constraints) and (
        not wanted or any(_is_on(node, one) for one in wanted if isinstance(one, Mapping))
    )


def judge(
    nodes: Sequence[states.SwarmNode], placement: Mapping[str, Any], filling: Filling
) -> Go | AwaitedJava:
    """Return which nodes an agent has to be kept from, or what it waits for.

    It goes as soon as every node that could take it has its Java, or at least one when the others
    do not get it or are late. Raises NoCapacity if there is no node that could take it, and
    Unavailable if none of them gets its Java.
    """
    able = [node for node in nodes if node.takes_tasks and fits(node, placement)]
    if not able:
        raise api.NoCapacity("no node that takes tasks is one that the template allows")
    ready = [node for node in able if node.id in filling.ready]
    missed = [node for node in able if node.id in filling.missed and node not in ready]
    late = filling.since_s > LATE_S
    if ready and (late or len(ready) + len(missed) == len(able)):
        return Go(without=tuple(node.id for node in nodes if node.id not in filling.ready))
    if not ready and (len(missed) == len(able) or filling.since_s > NEVER_S):
        of = f"the Java of the template has come to none of {_nodes(len(able))}"
        why = [f"{node.name}: {filling.missed[node.id]}" for node in missed]
        words = f"{of}: {why[0] if why else 'it takes too long'}"
        raise api.Unavailable(text.clean(words, 256), reach=api.Reach.TEMPLATE)
    return AwaitedJava(
        words=f"its Java is brought to the nodes: {len(ready)} of {len(able)} have it"
    )


def kept_from(placement: Mapping[str, Any], without: Collection[str]) -> dict[str, Any]:
    """Return a service's ``Placement`` that leaves out nodes, by their ids."""
    told = placement.get("Constraints")
    constraints = list(told) if isinstance(told, list) else []
    away = [f"node.id!={one}" for one in without]
    return bodies.without_nothing({**placement, "Constraints": [*constraints, *away]})


def _nodes(number: int) -> str:
    return counts.told(number, "node that it may go to", "nodes that it may go to")


def _meets(node: states.SwarmNode, constraint: str) -> bool:
    """Tell whether one constraint allows a node; one that cannot be read allows none."""
    key, sign, wanted = constraint.partition("==")
    if not sign or "!" in key:
        key, sign, wanted = constraint.partition("!=")
    same = _is(node, key.strip(), wanted.strip()) if sign else None
    return same is not None and same == (sign == "==")


def _is(node: states.SwarmNode, key: str, wanted: str) -> bool | None:
    """Tell whether what a key says of a node is what is wanted; None: no scheduler knows it."""
    low = key.lower()
    if low == "node.ip":
        return _is_at(node.address, wanted)
    told = {
        "node.id": node.id,
        "node.hostname": node.name,
        "node.role": node.role,
        "node.platform.os": node.system,
        "node.platform.arch": node.architecture,
    }.get(low)
    if low.startswith(_NODE_LABEL):
        told = node.labels.get(key[len(_NODE_LABEL) :], "")
    elif low.startswith(_ENGINE_LABEL):
        told = node.engine_labels.get(key[len(_ENGINE_LABEL) :], "")
    return None if told is None else told.lower() == wanted.lower()


def _is_at(address: str, wanted: str) -> bool | None:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(wanted, strict=False)
    except ValueError:
        return None


def _is_on(node: states.SwarmNode, platform: Mapping[str, Any]) -> bool:
    system, architecture = platform.get("OS"), platform.get("Architecture")
    of_node = _ARCHITECTURES.get(node.architecture, node.architecture)
    asked = _ARCHITECTURES.get(str(architecture), architecture)
    return (not system or system == node.system) and (not architecture or asked == of_node)
