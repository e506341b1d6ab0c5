"""What the simulated controller answers: JSON documents, node XML, and the ``tree`` parameter.

Fields, classes and order as recorded (``queue/*``, ``nodes/*``). Pure; refuses to know HTTP and
to change anything.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any
from urllib import parse
from xml.sax import saxutils

from broker.simulator import reasons, simulation
from broker.simulator.simulation import ItemClass, TaskKind
from jnlp import node as jnlp_node
from jnlp import version as jnlp_version

Document = dict[str, Any]
Tree = Mapping[str, Any]

_TASKS = {
    TaskKind.FREESTYLE: "hudson.model.FreeStyleProject",
    TaskKind.PIPELINE: (
        "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"
    ),
    TaskKind.MATRIX: "hudson.matrix.MatrixConfiguration",
}
_RUNS = {
    TaskKind.FREESTYLE: "hudson.model.FreeStyleBuild",
    TaskKind.PIPELINE: f"{_TASKS[TaskKind.PIPELINE]}$PlaceholderExecutable",
    TaskKind.MATRIX: "hudson.matrix.MatrixRun",
}
_OPEN = simulation.Fate.OPEN
_CLASS_ONLY = {"offlineCause"}
_LEAF: Tree = {}
_UNASKED = {"labelExpression", "queueId", "builtOn"}
"""Shown only when a tree asks for it (visibility 2 on an object one step inside)."""
_KEPT = (
    f'<nodeProperties>\n    <{jnlp_node.KEEP_PROPERTY} plugin="configuration-as-code@2080"/>\n'
    "  </nodeProperties>"
)
_ALWAYS = '<retentionStrategy class="hudson.slaves.RetentionStrategy$Always"/>'
_NEVER = (
    '<retentionStrategy class="hudson.slaves.SimpleScheduledRetentionStrategy">\n'
    "    <startTimeSpec>0 0 31 2 *</startTimeSpec>\n    <upTimeMins>1</upTimeMins>\n"
    "    <keepUpWhenActive>true</keepUpWhenActive>\n  </retentionStrategy>"
)
_SINGLE_USE = (
    '<retentionStrategy class="org.jenkinsci.plugins.durabletask.executors.OnceRetentionStrategy" '
    'plugin="durable-task@639">\n    <idleMinutes>10</idleMinutes>\n  </retentionStrategy>'
)
_PART = re.compile(r"[\[\],]|[^\[\],]+")


def secret_of(name: str) -> str:
    """Return an agent's secret: HMAC of its name, 64 hexadecimal digits."""
    return hmac.new(b"simulated", name.encode(), hashlib.sha256).hexdigest()


def jnlp(node: simulation.Node, url: str) -> str:
    """Return ``slave-agent.jnlp``; the secret is its first argument."""
    arguments = [secret_of(node.name), node.name]
    if node.websocket:
        arguments.append("-webSocket")
    if node.tunnel:
        arguments += ["-tunnel", node.tunnel]
    arguments += ["-workDir", node.remote_fs, "-internalDir", "remoting", "-url", url]
    listed = "".join(f"<argument>{saxutils.escape(text)}</argument>" for text in arguments)
    return (
        f'<jnlp codebase="{url}computer/{node.name}/" spec="1.0+"><information>'
        f"<title>Agent for {saxutils.escape(node.name)}</title></information><application-desc "
        f'main-class="hudson.remoting.jnlp.Main">{listed}</application-desc></jnlp>'
    )


def crumb(value: str) -> Document:
    """Return ``/crumbIssuer/api/json``."""
    return {
        "_class": "hudson.security.csrf.DefaultCrumbIssuer",
        "crumb": value,
        "crumbRequestField": "Jenkins-Crumb",
    }


def root(sim: simulation.Simulation) -> Document:
    """Return ``/api/json``."""
    return {
        "_class": "hudson.model.Hudson",
        "jobs": [],
        "mode": "NORMAL",
        "numExecutors": sim.built_in.executors,
        "quietingDown": sim.quieting_down,
    }


# --- queue -------------------------------------------------------------------------------------


def queue(
    sim: simulation.Simulation, *, now: float, url: str, language: reasons.Language
) -> Document:
    """Return ``/queue/api/json``: waiting and blocked items first, the oldest buildable last."""
    early = [i for i in sim.wanted if i.stage in {ItemClass.WAITING, ItemClass.BLOCKED}]
    late = [i for i in reversed(sim.wanted) if i.stage in {ItemClass.BUILDABLE, ItemClass.PENDING}]
    return {
        "_class": "hudson.model.Queue",
        "discoverableItems": [],
        "items": [item(sim, i, now=now, url=url, language=language) for i in (*early, *late)],
    }


def hidden(told: Document, *, discover: bool) -> Document:
    """Return the queue as somebody without Job/Read sees it."""
    names = [{"task": {"name": one["task"].get("name", "")}} for one in told["items"]]
    return {**told, "items": [], "discoverableItems": names if discover else []}


def item(
    sim: simulation.Simulation,
    waiting: simulation.Item,
    *,
    now: float,
    url: str,
    language: reasons.Language,
) -> Document:
    """Return one item, also one that has left."""
    name = "BuildableItem" if waiting.stage is ItemClass.PENDING else waiting.stage.value
    document: Document = {
        "_class": f"hudson.model.Queue${name}",
        "actions": [],
        "blocked": waiting.stage is ItemClass.BLOCKED,
        "buildable": waiting.stage in {ItemClass.BUILDABLE, ItemClass.PENDING},
        "id": waiting.id,
        "inQueueSince": _ms(waiting.in_queue_since),
        "params": "",
        "stuck": reasons.is_stuck(sim, waiting),
        "task": _task(sim, waiting, url),
        "url": f"queue/item/{waiting.id}/",
        "why": reasons.why(sim, waiting, now=now, language=language),
    }
    match waiting.stage:
        case ItemClass.WAITING:
            document["timestamp"] = _ms(waiting.quiet_until)
        case ItemClass.LEFT:
            started = waiting.started_at is not None
            document["cancelled"] = waiting.fate is simulation.Fate.CANCELLED
            document["executable"] = _run(waiting, url) if started else None
        case _:
            document["buildableStartMilliseconds"] = _ms(waiting.buildable_since or now)
            if waiting.stage is not ItemClass.BLOCKED:
                document["pending"] = waiting.stage is ItemClass.PENDING
    return document


def _task(sim: simulation.Simulation, item: simulation.Item, url: str) -> Document:
    document: Document = {"_class": _TASKS[item.kind]}
    match item.kind:
        case TaskKind.FREESTYLE:
            document |= {
                "name": item.job,
                "url": f"{url}job/{item.job}/",
                "color": "notbuilt",
                "labelExpression": item.label,
            }
        case TaskKind.MATRIX:
            document |= {
                "name": item.cell,
                "url": f"{url}job/{item.job}/{parse.quote(item.cell, safe='=,&')}/",
                "color": "notbuilt",
                "labelExpression": None,
            }
        case TaskKind.PIPELINE:
            # the plugin that goes with an old controller exports nothing but the class
            if jnlp_version.at_least(sim.version, (2, 277), (2, 277, 1)):
                document |= {
                    "name": f"part of {item.job} #{item.number}",
                    "url": f"job/{item.job}/{item.number}/",
                    "fullDisplayName": f"part of {item.job} #{item.number}",
                }
    return document


def _run(item: simulation.Item, url: str) -> Document:
    document: Document = {
        "_class": _RUNS[item.kind],
        "number": item.number,
        "url": f"{url}job/{item.job}/{item.number}/",
    }
    if item.kind is not TaskKind.PIPELINE:
        document["queueId"] = item.id
        document["builtOn"] = item.node  # of a Pipeline's run nobody tells
    return document


def _ms(at: float) -> int:
    return int(at * 1000)


# --- computers ---------------------------------------------------------------------------------


def computers(sim: simulation.Simulation, *, url: str) -> Document:
    """Return ``/computer/api/json``, by name; a node without executors has no computer."""
    named = sorted({**sim.nodes, **sim.ghosts}.items())
    agents = [node for _, node in named if node.slots]
    shown = [sim.built_in, *agents]
    return {
        "_class": "hudson.model.ComputerSet",
        "busyExecutors": sum(s.item is not None for n in shown for s in n.slots),
        "computer": [built_in(sim, url=url), *(computer(n, url=url) for n in agents)],
        "displayName": "Nodes",
        "totalExecutors": sum(len(n.slots) for n in shown if n.online),
    }


def built_in(sim: simulation.Simulation, *, url: str) -> Document:
    """Return the controller's own computer, where the pipelines themselves run."""
    runs = [i for i in sim.items.values() if i.kind is TaskKind.PIPELINE and i.fate is _OPEN]
    document = computer(sim.built_in, url=url)
    document["oneOffExecutors"] = [
        {
            "currentExecutable": {
                "_class": "org.jenkinsci.plugins.workflow.job.WorkflowRun",
                "fullDisplayName": f"{run.job} #{run.number}",
                "url": f"{url}job/{run.job}/{run.number}/",
            },
            "idle": False,
        }
        for run in runs
    ]
    document["idle"] = document["idle"] and not runs
    return document


def built_in_paths(sim: simulation.Simulation) -> set[str]:
    """Return the names of the controller's own computer in a path."""
    newer = jnlp_version.at_least(sim.version, (2, 307), (2, 319, 1))
    return {"(master)", "(built-in)"} if newer else {"(master)"}


def menu(sim: simulation.Simulation, path: str, *, deletes: bool) -> Document:
    """Return ``contextMenu`` of a computer: what the user may go to from its page.

    From the source (``ModelObjectWithContextMenu``, ``Computer/sidepanel.jelly``); seen on a real
    2.541.3, where the controller's own computer has no entry for its deletion, whoever asks.
    """
    base = path.removesuffix("contextMenu")
    verb = "doDelete" if jnlp_version.at_least(sim.version, (2, 415), (2, 426, 1)) else "delete"
    entries = [("Delete Agent", verb)] if deletes else []
    entries += [("Build History", "builds"), ("Load Statistics", "load-statistics")]
    return {
        "_class": "jenkins.model.ModelObjectWithContextMenu$ContextMenu",
        "items": [{"displayName": name, "url": f"{base}{where}"} for name, where in entries],
    }


def computer(node: simulation.Node, *, url: str) -> Document:
    """Return one computer."""
    kind = "hudson.model.Hudson$MasterComputer"
    labels = node.labels
    document: Document = {}
    if not node.built_in:
        kind = "hudson.slaves.SlaveComputer"
        labels = labels | {node.name} if node.executors else frozenset()
        document["absoluteRemotePath"] = node.remote_fs if node.connected else None
    icon = "computer-user-offline" if node.offline_message is not None else "computer-x"
    icon = "computer" if node.online else icon
    return {
        "_class": kind,
        "actions": [],
        "assignedLabels": [{"name": n} for n in sorted(labels)],
        "description": node.description,
        "displayName": node.name,
        "executors": [_executor(n, slot, url) for n, slot in enumerate(node.slots)],
        "icon": f"{icon}.png",
        "iconClassName": f"icon-{icon}",
        "idle": node.idle,
        "jnlpAgent": not node.built_in,
        "launchSupported": node.built_in,
        "manualLaunchAllowed": True,
        "numExecutors": node.executors,
        "offline": not node.online,
        "offlineCause": _cause(node),
        "offlineCauseReason": _reason(node),
        "oneOffExecutors": [],
        "temporarilyOffline": node.offline_message is not None,
        **document,
    }


def _executor(number: int, slot: simulation.Slot, url: str) -> Document:
    running = slot.item if slot.running else None
    run: Document | None = None
    if running is not None:
        part = "part of " if running.kind is TaskKind.PIPELINE else ""
        run = _run(running, url)
        run["fullDisplayName"] = f"{part}{running.job} #{running.number}"
    return {
        "currentExecutable": run,
        "idle": slot.item is None,
        "likelyStuck": False,
        "number": number,
        "progress": -1,
    }


def _reason(node: simulation.Node) -> str:
    if node.offline_message is not None:
        return node.offline_message
    if node.launch_failed:
        return "This agent is offline because Jenkins failed to launch the agent process on it."
    if node.connected or node.connected_at is None:
        return ""
    return "Connection was broken: java.nio.channels.ClosedChannelException\n\tat java.base/x"


def _cause(node: simulation.Node) -> Document | None:
    if node.offline_message is not None:
        text = f"Disconnected by {node.offline_by} : {node.offline_message}"
        return {
            "_class": "hudson.slaves.OfflineCause$UserCause",
            "timestamp": _ms(node.offline_at or 0.0),
            "description": text,
        }
    if node.launch_failed:
        return {"_class": "hudson.slaves.OfflineCause$LaunchFailed"}
    if node.online or node.connected_at is None:
        return None
    return {"_class": "hudson.slaves.OfflineCause$ChannelTermination"}


def label(sim: simulation.Simulation, name: str) -> Document:
    """Return the counts of a node's own label: what accepts no tasks has no idle executor."""
    node = next((n for n in sim.all_nodes() if n.name == name and n.online), None)
    slots = node.slots if node is not None else []
    busy = sum(slot.item is not None for slot in slots)
    takes = node is not None and sim.takes(node)
    return {
        "_class": "hudson.model.labels.LabelAtom",
        "busyExecutors": busy,
        "idleExecutors": len(slots) - busy if takes else 0,
        "totalExecutors": len(slots),
    }


def config_xml(node: simulation.Node) -> str:
    """Return ``config.xml`` of a node."""
    mode = "EXCLUSIVE" if node.exclusive else "NORMAL"
    strategy = _SINGLE_USE if node.single_use else _NEVER if node.scheduled else _ALWAYS
    tunnel = f"    <tunnel>{saxutils.escape(node.tunnel)}</tunnel>\n" if node.tunnel else ""
    properties = _KEPT if node.kept else "<nodeProperties/>"
    if node.properties:
        properties = f"<nodeProperties>{node.properties}</nodeProperties>"
    return (
        '<?xml version="1.1" encoding="UTF-8"?>\n<slave>\n'
        f"  <name>{saxutils.escape(node.name)}</name>\n"
        f"  <description>{saxutils.escape(node.description)}</description>\n"
        f"  <remoteFS>{saxutils.escape(node.remote_fs)}</remoteFS>\n"
        f"  <numExecutors>{node.executors}</numExecutors>\n"
        f"  <mode>{mode}</mode>\n"
        f"  {strategy}\n"
        f'  <launcher class="hudson.slaves.JNLPLauncher">\n{tunnel}'
        "    <workDirSettings>\n      <disabled>false</disabled>\n"
        "      <internalDir>remoting</internalDir>\n"
        "      <failIfWorkDirIsMissing>false</failIfWorkDirIsMissing>\n    </workDirSettings>\n"
        f"    <webSocket>{str(node.websocket).lower()}</webSocket>\n  </launcher>\n"
        f"  <label>{saxutils.escape(' '.join(sorted(node.labels)))}</label>\n"
        f"  {properties}\n</slave>"
    )


# --- the tree parameter ------------------------------------------------------------------------


def parse_tree(text: str) -> Tree:
    """Read ``a,b[c,d[e]]`` as nested mappings; a leaf is an empty one. Ranges are not read."""
    return _level(_PART.findall(text))


def _level(parts: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    name = ""
    while parts:
        part = parts.pop(0)
        if part == "[":
            fields[name] = _level(parts)
        elif part == "]":
            return fields
        elif part != ",":
            name = part.strip()
            fields[name] = {}
    return fields


def pruned(document: Any, tree: Tree | None) -> Any:
    """Return what a tree asks for; without one, what a stranger sees by default."""
    if isinstance(document, list):
        return [pruned(part, tree) for part in document]
    if not isinstance(document, dict):
        return document
    if tree is None:
        document = {
            k: {"_class": v["_class"]} if k in _CLASS_ONLY and v else v
            for k, v in document.items()
        }
        return {
            k: (
                [{} for _ in v]
                if k.endswith("xecutors") and isinstance(v, list)
                else pruned(v, None)
            )
            for k, v in document.items()
            if k not in _UNASKED
        }
    return {
        k: v if "*" in tree and k not in tree else pruned(v, tree.get(k) or _LEAF)
        for k, v in document.items()
        if k == "_class" or k in tree or "*" in tree
    }
