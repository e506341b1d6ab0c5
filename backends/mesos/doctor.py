"""What may stand between this configuration and a task, looked at from outside.

Pages only: nothing is subscribed, so a broker at work keeps its stream. The way of the agents'
secret needs something of each Mesos agent, which only the agent's own page tells; some are asked.
Refuses to be needed by a broker at work.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from backends import api
from backends.kit import finding
from backends.mesos import cluster, settings, transport
from outside import counts, text

_LOOKED_AT = 10  # agents
_ISOLATORS = frozenset(("filesystem/linux", "volume/secret"))
_HINT = "--launcher=linux and --isolation=...,filesystem/linux,volume/secret; or `secrets: fetch`"


async def examine(
    configured: settings.MesosSettings,
    *,
    owner: str,  # noqa: ARG001 -- part of every examiner
    orders: Mapping[str, api.InstanceSpec],
    now: Callable[[], float],  # noqa: ARG001 -- part of every examiner; nothing is timed
) -> AsyncIterator[finding.Finding]:
    """Yield what is found; ``orders`` by template, as they would be given to ``launch``."""
    link = transport.Link(configured)
    try:
        asked = cluster.Cluster(link, role=configured.role)
        agents = await asked.agents()
        yield finding.ok("agents", f"the master shows {counts.told(len(agents), 'Mesos agent')}")
        by_volume = [name for name, order in orders.items() if _by_volume(order)]
        if by_volume and agents:
            yield await _volumes(asked, agents, by_volume)
    except api.BackendError as error:
        yield finding.fail("agents", error.reason, finding.whose(error.fault))
    finally:
        await link.aclose()


def _by_volume(order: api.InstanceSpec) -> bool:
    options = order.options
    return isinstance(options, settings.MesosTemplate) and options.secrets == "volume"


async def _volumes(
    asked: cluster.Cluster, agents: Mapping[str, str], templates: list[str]
) -> finding.Finding:
    """Say whether the agents can mount the secrets of these templates."""
    check = "secrets"
    able: list[str] = []
    lacking: list[str] = []
    for host, url in [*agents.items()][:_LOOKED_AT]:
        try:
            flags = await asked.flags(url)
        except api.BackendError:
            continue
        (able if _mounts(flags) else lacking).append(host)
    names = text.clean(", ".join(templates), 80)
    if lacking:
        return finding.fail(
            check,
            f"of {counts.told(len(able) + len(lacking), 'Mesos agent')} that we looked at "
            f"{counts.told(len(lacking), 'mounts', 'mount')} no secret volumes for {names}, such "
            f"as {text.clean(lacking[0], 80)}",
            _HINT,
        )
    if not able:
        return finding.warn(
            check, f"no Mesos agent says whether it mounts secret volumes, for {names}", _HINT
        )
    return finding.ok(
        check,
        f"{counts.told(len(able), 'Mesos agent was', 'Mesos agents were')} looked at: "
        "secret volumes are mounted",
    )


def _mounts(flags: Mapping[str, Any]) -> bool:
    isolation = flags.get("isolation")
    told = {one.strip() for one in isolation.split(",")} if isinstance(isolation, str) else set()
    return told >= _ISOLATORS and flags.get("launcher", "linux") == "linux"
