"""A push hook for the simulated controller: sends what the real one sends, does what it is told.

What it sends was compared with what ``hook.groovy`` sent from Jenkins 2.541.3, field by field
(``tests/hook/sent.json``). It shares no code with the broker's end.
"""

import json

from broker.simulator import inventory

_KINDS = {
    inventory.ItemClass.WAITING: "waiting",
    inventory.ItemClass.BLOCKED: "blocked",
    inventory.ItemClass.BUILDABLE: "buildable",
    inventory.ItemClass.LEFT: "left",
}
_CLASSES = {
    inventory.TaskKind.FREESTYLE: "hudson.model.FreeStyleProject",
    inventory.TaskKind.MATRIX: "hudson.matrix.MatrixConfiguration",
    inventory.TaskKind.PIPELINE: (
        "org.jenkinsci.plugins.workflow.support.steps.ExecutorStepExecution$PlaceholderTask"
    ),
}


class Hook:
    """The controller's side; ``wake`` is called when something is to be sent."""

    def __init__(self, sim, *, owner, wake=lambda: None):
        self.sim, self.owner, self.wake = sim, owner, wake
        self.events, self.done, self.lines, self.ended = [], {}, [], []
        self.lost = 0
        sim.tell = self.happened

    def happened(self, item, now):
        """Note an event as in the queue's lock: a single-use agent is closed with its build."""
        kind = _KINDS[item.stage]
        if kind == "left" and item.node in self.sim.nodes:
            node = self.sim.nodes[item.node]
            if " use=once]" in node.description:
                node.accepting = False
        self.events.append((kind, item, now))
        self.wake()

    def message(self, now):
        """Return what is sent now, as bytes."""
        events, self.events = self.events[:200], self.events[200:]
        told = {
            "hook": 1,
            "owner": self.owner,
            "session": self.sim.session,
            "sent_ms": int(now * 1000),
            "lost": self.lost,
            "events": [self._described(*event) for event in events],
            **self.done,
        }
        self.done = {}
        return json.dumps(told).encode()

    def _described(self, kind, item, at):
        told = {"event": kind, "id": item.id, "at_ms": int(at * 1000), "flyweight": False}
        if kind == "left":
            cancelled = item.started_at is None
            return {**told, "node": None if cancelled else item.node, "cancelled": cancelled}
        part = f"{item.number}/" if item.kind is inventory.TaskKind.PIPELINE else ""
        label = item.cell if item.kind is inventory.TaskKind.MATRIX else item.label
        told |= {
            "label": label,
            "since_ms": int(item.in_queue_since * 1000),
            "class": _CLASSES[item.kind],
            "name": item.job,
            "url": f"job/{item.job}/{part}",
            "causes": ["Started by a test"],
        }
        if kind == "buildable":
            free = [
                slot
                for node in self.sim.all_nodes()
                if self.sim.takes(node) and item.fits(node)
                for slot in node.slots
                if slot.item is None
            ]
            told["idle"] = -1 if label is None else len(free)
            if item.stage is not inventory.ItemClass.BUILDABLE:
                told["event"] = "pending"
        return told

    def obey(self, answer, now):
        """Do what the broker answers, about nodes of this owner."""
        closed, busy = [], []
        for name in answer["close"]:
            node = self.sim.nodes.get(name)
            if node is not None and node.idle:
                node.accepting = False
                closed.append(name)
            else:
                busy.append(name)
        for name in answer["open"]:
            if name in self.sim.nodes:
                self.sim.nodes[name].accepting = True
                self.sim.maintain(now)
        for name in answer["end_steps"]:
            self.ended.append(name)
        self.lines += [(line["id"], line["text"]) for line in answer["say"]]
        self.done = {key: names for key, names in (("closed", closed), ("busy", busy)) if names}
        return answer["pause_ms"] / 1000
