"""The simulated controller's nodes over HTTP: create, read, change, delete.

Checks, codes and what is taken without a word are as recorded (``nodes/01``, ``nodes/02``,
``nodes/06``, ``nodes/08``). Refuses to know who asks (``access``) and what follows for builds
(``simulation``).
"""

import json
import re
from collections.abc import Mapping

from aiohttp import web

from broker.simulator import documents, inventory, pages, simulation
from jnlp import node as jnlp_node
from jnlp import version as jnlp_version

_BAD_IN_NAME = re.compile(r"[?*/\\%!@#$^&|<>\[\]:;]")
_LONGEST_NAME = 255
_TYPES = {"hudson.slaves.DumbSlave", "hudson.slaves.DumbSlave$DescriptorImpl"}
_NEVER_DUE = re.compile(
    r"SimpleScheduledRetentionStrategy\"[^>]*>\s*<startTimeSpec>0 0 3[01] 2 \*</startTimeSpec>"
)
"""The 31st of February."""

Form = Mapping[str, str]


def create(sim: simulation.Simulation, form: Form, *, now: float) -> None:
    """Carry out ``doCreateItem``. Raises ``Refused``."""
    if "json" not in form:
        raise simulation.SimulatedRefusal(400, inventory.NO_FORM)
    name = form.get("name", "")
    _check_name(sim, name)
    try:
        definition = json.loads(form["json"])
        launcher = definition.get("launcher", {})
        bindable = not launcher or "stapler-class" in launcher or "$class" in launcher
    except (ValueError, AttributeError, TypeError) as error:
        raise simulation.SimulatedRefusal(500) from error
    if form.get("type") not in _TYPES or not bindable:
        raise simulation.SimulatedRefusal(500)
    properties = definition.get("nodeProperties")
    knows_properties = sim.casc == "new" and isinstance(properties, dict)
    count = str(definition.get("numExecutors", 1))
    node = simulation.Node(
        name=name,  # the name inside the JSON counts for nothing
        labels=frozenset(str(definition.get("labelString", "")).split()),
        executors=int(count) if re.fullmatch(r"-?\d+", count) else 0,
        exclusive=definition.get("mode") == "EXCLUSIVE",
        description=str(definition.get("nodeDescription", "")),
        remote_fs=str(definition.get("remoteFS", "")),
        tunnel=str(launcher.get("tunnel", "")) if launcher else "",
        websocket=bool(launcher) and launcher.get("webSocket") is True,
        kept=knows_properties and jnlp_node.KEEP_PROPERTY.replace(".", "-") in properties,
    )
    sim.create_node(now, node)


def _check_name(sim: simulation.Simulation, name: str) -> None:
    if not name:
        raise simulation.SimulatedRefusal(400, "Query parameter 'name' is required")
    if name in {".", ".."}:
        raise simulation.SimulatedRefusal(400, f"{name}  is not an allowed name")
    bad = _BAD_IN_NAME.search(name)
    if bad is not None:
        raise simulation.SimulatedRefusal(400, f"{bad[0]}  is an unsafe character")
    if name in sim.nodes:
        raise simulation.SimulatedRefusal(400, f"Agent called  {name}  already exists")
    if len(name) > _LONGEST_NAME:
        raise simulation.SimulatedRefusal(500)


def show(
    sim: simulation.Simulation, node: simulation.Node, rest: str, *, url: str
) -> web.Response:
    """Answer a GET below a node, JSON aside. Raises ``Refused``."""
    match rest:
        case "":
            return pages.page(node.name, f"<h1>Agent {node.name}</h1>")
        case "config.xml" if node.name in sim.nodes:
            return web.Response(text=documents.config_xml(node), content_type="application/xml")
        case "slave-agent.jnlp":
            return _jnlp(node, url)
        case "jenkins-agent.jnlp" if jnlp_version.at_least(sim.version, (2, 264), (2, 277, 1)):
            return _jnlp(node, url)
        case "doDelete":
            raise simulation.SimulatedRefusal(405)
        case _:
            raise simulation.SimulatedRefusal(404)


def _jnlp(node: simulation.Node, url: str) -> web.Response:
    return web.Response(
        text=documents.jnlp(node, url), content_type="application/x-java-jnlp-file"
    )


def configure(sim: simulation.Simulation, node: simulation.Node, text: str, *, now: float) -> None:
    """Carry out a POST of ``config.xml``; another name inside renames. Raises ``Refused``."""
    try:
        name = jnlp_node.name_of(text)
        wanted = jnlp_node.labels_of(text)
        exclusive = jnlp_node.is_exclusive(text)
        properties = jnlp_node.properties_of(text)
    except ValueError as error:
        raise simulation.SimulatedRefusal(400, "No name is specified") from error
    if not name:
        raise simulation.SimulatedRefusal(400, "No name is specified")
    count = re.search(r"<numExecutors>(-?\d{1,9})</numExecutors>", text)
    sim.configure(
        now,
        node.name,
        wanted=frozenset(wanted),
        exclusive=exclusive,
        scheduled=_NEVER_DUE.search(text) is not None,
        single_use=jnlp_node.is_single_use(text),
        executors=int(count[1]) if count is not None else None,
    )
    node.properties = properties
    if name != node.name:
        sim.rename(now, node.name, name)


def operate(
    sim: simulation.Simulation,
    node: simulation.Node,
    verb: str,
    form: Form,
    *,
    now: float,
    by: str,
) -> str:
    """Carry out a POST below a node; return where it redirects to, below ``computer/``."""
    message = form.get("offlineMessage", "")
    match verb:
        case "changeOfflineCause":
            sim.take_offline(now, node.name, message, by=by)
        case "toggleOffline":
            sim.toggle(now, node.name, message, by=by)
        case "doDisconnect":
            sim.disconnect(now, node.name)
            sim.on_gone(node.name, "disconnect")
        case "launchSlaveAgent":
            node.launch_failed = True
            return f"{node.name}/log"
        case "doDelete":
            sim.delete_node(now, node.name)
            return ""
        case _:
            raise simulation.SimulatedRefusal(404)
    return f"{node.name}/"
