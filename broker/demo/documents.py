"""What the simulated controller answers: JSON documents, node XML, and the ``tree`` parameter.

Fields, classes and order as recorded (``queue/*``, ``nodes/*``). Pure; refuses to know HTTP and
to change anything.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any
from xml.sax import saxutils

from broker.demo import simulation
from broker.demo import why as words
from broker.demo.simulation import Kind, Stage
from jnlp import version as jnlp_version

Document = dict[str, Any]
Tree = Mapping[str, Any]

_TASKS = {
    Kind.FREESTYLE: "hudson.model.FreeStyleProject",
    Kind.PIPELINE: (
        "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"
    ),
    Kind.MATRIX: "hudson.matrix.MatrixConfiguration",
}
_RUNS = {
    Kind.FREESTYLE: "hudson.model.FreeStyleBuild",
    Kind.PIPELINE: f"{_TASKS[Kind.PIPELINE]}$PlaceholderExecutable",
    Kind.MATRIX: "hudson.matrix.MatrixRun",
}
_LEAF: Tree = {}
_UNASKED = {"labelExpression"}
"""Shown only when a tree asks for it (visibility 2 on an object one step inside)."""
_ALWAYS = '<retentionStrategy class="hudson.slaves.RetentionStrategy$Always"/>'
_NEVER = (
    '<retentionStrategy class="hudson.slaves.SimpleScheduledRetentionStrategy">\n'
    "    <startTimeSpec>0 0 31 2 *</startTimeSpec>\n    <upTimeMins>1</upTimeMins>\n"
    "    <keepUpWhenActive>true</keepUpWhenActive>\n  </retentionStrategy>"
)
_PART = re.compile(r"[\[\],]|[^\[\],]+")


def secret_of(name: str) -> str:
    """Return an agent's secret: HMAC of its name, 64 hexadecimal digits."""
    return hmac.new(b"simulated", name.encode(), hashlib.sha256).hexdigest()


def jnlp(name: str, url: str) -> str:
    """Return ``slave-agent.jnlp``; the secret is its first argument."""
    arguments = (secret_of(name), name, "-url", url)
    listed = "".join(f"<argument>{saxutils.escape(text)}</argument>" for text in arguments)
    return (
        f'<jnlp codebase="{url}computer/{name}/" spec="1.0+"><application-desc '
        f'main-class="hudson.remoting.jnlp.Main">{listed}</application-desc></jnlp>'
    )


# --- queue -------------------------------------------------------------------------------------


def queue(
    sim: simulation.Simulation, *, now: float, url: str, language: words.Language
) -> Document:
    """Return ``/queue/api/json``: waiting and blocked items first, the oldest buildable last."""
    early = [i for i in sim.wanted if i.stage in {Stage.WAITING, Stage.BLOCKED}]
    late = [i for i in reversed(sim.wanted) if i.stage in {Stage.BUILDABLE, Stage.PENDING}]
    return {
        "_class": "hudson.model.Queue",
        "discoverableItems": [],
        "items": [item(sim, i, now=now, url=url, language=language) for i in (*early, *late)],
    }


def item(
    sim: simulation.Simulation,
    told: simulation.Item,
    *,
    now: float,
    url: str,
    language: words.Language,
) -> Document:
    """Return one item, also one that has left."""
    name = "BuildableItem" if told.stage is Stage.PENDING else told.stage.value
    document: Document = {
        "_class": f"hudson.model.Queue${name}",
        "actions": [],
        "blocked": told.stage is Stage.BLOCKED,
        "buildable": told.stage in {Stage.BUILDABLE, Stage.PENDING},
        "id": told.id,
        "inQueueSince": _ms(told.in_queue_since),
        "params": "",
        "stuck": words.is_stuck(sim, told),
        "task": _task(sim, told, url),
        "url": f"queue/item/{told.id}/",
        "why": words.why(sim, told, now=now, language=language),
    }
    match told.stage:
        case Stage.WAITING:
            document["timestamp"] = _ms(told.quiet_until)
        case Stage.LEFT:
            started = told.started_at is not None
            document["cancelled"] = told.fate is simulation.Fate.CANCELLED
            document["executable"] = _run(told, url) if started else None
        case _:
            document["buildableStartMilliseconds"] = _ms(told.buildable_since or now)
            document["pending"] = told.stage is Stage.PENDING
    return document


def _task(sim: simulation.Simulation, told: simulation.Item, url: str) -> Document:
    document: Document = {"_class": _TASKS[told.kind]}
    match told.kind:
        case Kind.FREESTYLE:
            document |= {
                "name": told.job,
                "url": f"{url}job/{told.job}/",
                "color": "notbuilt",
                "labelExpression": told.label,
            }
        case Kind.MATRIX:
            axis = f"label={told.label}"
            document |= {
                "name": axis,
                "url": f"{url}job/{told.job}/{axis}/",
                "color": "notbuilt",
                "labelExpression": None,
            }
        case Kind.PIPELINE:
            # the plugin that goes with an old controller exports nothing but the class
            if jnlp_version.at_least(sim.version, (2, 277), (2, 277, 1)):
                document |= {
                    "name": f"part of {told.job} #{told.number}",
                    "url": f"job/{told.job}/{told.number}/",
                    "fullDisplayName": f"part of {told.job} #{told.number}",
                }
    return document


def _run(told: simulation.Item, url: str) -> Document:
    document: Document = {
        "_class": _RUNS[told.kind],
        "number": told.number,
        "url": f"{url}job/{told.job}/{told.number}/",
    }
    if told.kind is not Kind.PIPELINE:
        document["queueId"] = told.id
    return document


def _ms(at: float) -> int:
    return int(at * 1000)


# --- computers ---------------------------------------------------------------------------------


def computers(sim: simulation.Simulation, *, url: str) -> Document:
    """Return ``/computer/api/json``; a node without executors has no computer."""
    shown = [n for n in sim.all_nodes() if n.slots or n.built_in]
    return {
        "_class": "hudson.model.ComputerSet",
        "busyExecutors": sum(s.item is not None for n in shown for s in n.slots),
        "computer": [computer(n, url=url) for n in shown],
        "displayName": "Nodes",
        "totalExecutors": sum(len(n.slots) for n in shown if n.connected),
    }


def computer(node: simulation.Node, *, url: str) -> Document:
    """Return one computer."""
    offline = not node.online
    return {
        "_class": (
            "hudson.model.Hudson$MasterComputer"
            if node.built_in
            else "hudson.slaves.SlaveComputer"
        ),
        "actions": [],
        "assignedLabels": [{"name": n} for n in sorted(node.labels | {node.name})],
        "description": node.description,
        "displayName": node.name,
        "executors": [_executor(n, slot, url) for n, slot in enumerate(node.slots)],
        "icon": "computer-x.png" if offline else "computer.png",
        "idle": node.idle,
        "jnlpAgent": not node.built_in,
        "launchSupported": node.built_in,
        "manualLaunchAllowed": True,
        "numExecutors": node.executors,
        "offline": offline,
        "offlineCause": _cause(node),
        "offlineCauseReason": _reason(node),
        "oneOffExecutors": [],
        "temporarilyOffline": node.offline_message is not None,
    }


def _executor(number: int, slot: simulation.Slot, url: str) -> Document:
    running = slot.item if slot.running else None
    return {
        "currentExecutable": _run(running, url) if running is not None else None,
        "idle": slot.item is None,
        "likelyStuck": False,
        "number": number,
        "progress": -1,
    }


def _reason(node: simulation.Node) -> str:
    if node.offline_message is not None:
        return node.offline_message
    if node.connected or node.connected_at is None:
        return ""
    return "Connection was broken: java.io.EOFException"


def _cause(node: simulation.Node) -> Document | None:
    if node.offline_message is not None:
        return {
            "_class": "hudson.slaves.OfflineCause$UserCause",
            "description": f"Disconnected by the broker : {node.offline_message}",
        }
    if node.online or node.connected_at is None:
        return None
    return {"_class": "hudson.slaves.OfflineCause$ChannelTermination"}


def config_xml(node: simulation.Node) -> str:
    """Return ``config.xml`` of a node."""
    mode = "EXCLUSIVE" if node.exclusive else "NORMAL"
    return (
        '<?xml version="1.1" encoding="UTF-8"?>\n<slave>\n'
        f"  <name>{saxutils.escape(node.name)}</name>\n"
        f"  <description>{saxutils.escape(node.description)}</description>\n"
        f"  <remoteFS>{saxutils.escape(node.remote_fs)}</remoteFS>\n"
        f"  <numExecutors>{node.executors}</numExecutors>\n"
        f"  <mode>{mode}</mode>\n"
        f"  {_ALWAYS if node.accepting else _NEVER}\n"
        '  <launcher class="hudson.slaves.JNLPLauncher">\n'
        "    <webSocket>false</webSocket>\n  </launcher>\n"
        f"  <label>{saxutils.escape(' '.join(sorted(node.labels)))}</label>\n"
        "  <nodeProperties/>\n</slave>"
    )


# --- the tree parameter ------------------------------------------------------------------------


def parse_tree(text: str) -> Tree:
    """Read ``a,b[c,d[e]]`` as nested mappings; a leaf is an empty one. Ranges are not read."""
    return _level(_PART.findall(text))


def _level(parts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    while parts:
        part = parts.pop(0)
        if part == "[":
            found[name] = _level(parts)
        elif part == "]":
            return found
        elif part != ",":
            name = part.strip()
            found[name] = {}
    return found


def pruned(document: Any, tree: Tree | None) -> Any:
    """Return what a tree asks for; without one, what a stranger sees by default."""
    if isinstance(document, list):
        return [pruned(part, tree) for part in document]
    if not isinstance(document, dict):
        return document
    if tree is None:
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
