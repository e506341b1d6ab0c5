"""Every gauge, recounted from one ``World`` and one ``Plan``.

Rules: nothing is incremented, so a gauge falls when things vanish; a series exists for every
configured template, backend and reason, with zero; what is rare (a back-off, and what belongs to
no configured template, which is summed under ``(unconfigured)``) has one from its first time on,
and keeps it. While the controller is not synced, what is derived from its
queue keeps its last value: unknown is not zero, and ``sources_synced`` tells. Pure; refuses to
know Prometheus.
"""

from collections import Counter
from collections.abc import Mapping

from attrs import frozen

from broker.core import model
from broker.core.fleet import places
from broker.metrics.values import UNCONFIGURED

Labels = tuple[str, ...]
Reading = Mapping[str, Mapping[Labels, float]]

_NOTHING: Reading = {}
_SLOT_STATES = ("idle", "busy", "starting")
_OF_QUEUE = (
    "slots_demanded",
    "slots_targeted_warm",
    "slots_present",
    "agents_counted",
    "items_waiting",
    "items_waited_longest_seconds",
)
"""Unknown while the controller is not synced: the plan of such a cycle counts nothing."""


@frozen
class Gauge:
    """Help text and label names."""

    text: str
    labels: Labels = ()


GAUGES: Mapping[str, Gauge] = {
    "agents_present": Gauge("Agents by phase.", ("template", "phase")),
    "agents_counted": Gauge("Agents that count against the template's cap.", ("template",)),
    "agents_allowed": Gauge("Cap of the template; +Inf without one.", ("template",)),
    "slots_demanded": Gauge("Queue items that the template is to serve.", ("template",)),
    "slots_targeted_warm": Gauge("Slots to be kept idle for later items.", ("template",)),
    "slots_present": Gauge(
        "Slots (executors) of agents by state; busy also of those that take nothing more.",
        ("template", "state"),
    ),
    "overshoot_agents": Gauge(
        "Agents ordered beyond demand and warm target in the last cycle; must be 0."
    ),
    "items_waiting": Gauge("Queue items that do not run yet, by reason.", ("reason",)),
    "items_waited_longest_seconds": Gauge("Age of the longest waiting item.", ("reason",)),
    "sources_synced": Gauge(
        "1 if the last read of the controller or backend was complete.", ("source", "backend")
    ),
    "sources_whole": Gauge(
        "1 if that read showed everything: no entry that cannot be read, no part out of sight.",
        ("source", "backend"),
    ),
    "backoffs_active": Gauge(
        "1 while something is left alone after failures.", ("scope", "backend", "template")
    ),
    "places_avoided": Gauge(
        "Places (hosts, nodes) that get no agents for a while, because agents end too soon there.",
        ("backend",),
    ),
    "controller_quieted": Gauge("1 while the controller prepares for a shut-down."),
    "cycles_succeeded_timestamp_seconds": Gauge(
        "POSIX time of the last cycle that ended well; 0 before the first."
    ),
}


def zeros(policy: model.Policy, before: Reading = _NOTHING) -> dict[str, dict[Labels, float]]:
    """Return every gauge with every series that the configuration asks for.

    Of the rare ones those that there are ``before``.
    """
    templates = [t.name for t in policy.templates]
    reading: dict[str, dict[Labels, float]] = {
        "agents_present": {(t, p.value): 0.0 for t in templates for p in model.Phase},
        "agents_counted": {(t,): 0.0 for t in templates},
        "agents_allowed": {
            (t.name,): float("inf") if t.cap is None else float(t.cap) for t in policy.templates
        },
        "slots_demanded": {(t,): 0.0 for t in templates},
        "slots_targeted_warm": {(t,): 0.0 for t in templates},
        "slots_present": {(t, s): 0.0 for t in templates for s in _SLOT_STATES},
        "items_waiting": {(r.value,): 0.0 for r in model.WaitReason},
        "items_waited_longest_seconds": {(r.value,): 0.0 for r in model.WaitReason},
        "sources_synced": {
            ("controller", ""): 0.0,
            **{("backend", b): 0.0 for b in policy.backends},
        },
        "sources_whole": {
            ("controller", ""): 0.0,
            **{("backend", b): 0.0 for b in policy.backends},
        },
        "places_avoided": {(b,): 0.0 for b in policy.backends},
        "backoffs_active": {
            (scope, backend, template): 0.0
            for scope, backend, template in before.get("backoffs_active", {})
            if _is_configured(policy, backend, template)
        },
    }
    for name in GAUGES:
        reading.setdefault(name, {(): 0.0})
        for labels in before.get(name, {}):
            if UNCONFIGURED in labels:
                reading[name].setdefault(labels, 0.0)
    return reading


def _is_configured(policy: model.Policy, backend: str, template: str) -> bool:
    """Return whether there still is what a back-off is of; empty: it is of none in particular."""
    known = not backend or backend in policy.backends
    return known and (not template or policy.template(template) is not None)


def recount(
    world: model.World, plan: model.Plan, policy: model.Policy, *, before: Reading
) -> dict[str, dict[Labels, float]]:
    """Count everything anew; ``before`` only stands in for what cannot be known now."""
    reading = zeros(policy, before)
    known = {t.name for t in policy.templates}
    _count_agents(reading, plan, known)
    if world.controller.synced:
        _count_slots(reading, plan, known)
        _count_items(reading, world, plan)
        reading["controller_quieted"][()] = float(world.controller.quieting_down)
    else:
        for name in _OF_QUEUE:
            reading[name] = {k: before[name].get(k, v) for k, v in reading[name].items()}
        reading["controller_quieted"] = dict(before["controller_quieted"])
    reading["overshoot_agents"][()] = float(plan.overshoot)
    reading["sources_synced"]["controller", ""] = float(world.controller.synced)
    reading["sources_whole"]["controller", ""] = float(world.controller.whole)
    for backend, view in world.backends.items():
        if ("backend", backend) in reading["sources_synced"]:
            reading["sources_synced"]["backend", backend] = float(view.synced)
            reading["sources_whole"]["backend", backend] = float(view.whole)
    for key, backoff in plan.ledger.backoffs.items():
        labels = (key.scope.value, key.backend, key.template or "")
        if backoff.until_at > world.now and _is_configured(policy, labels[1], labels[2]):
            reading["backoffs_active"][labels] = 1.0
    for backend, _ in places.avoided(plan.ledger, now=world.now):
        if (backend,) in reading["places_avoided"]:
            reading["places_avoided"][backend,] += 1.0
    reading["cycles_succeeded_timestamp_seconds"][()] = world.now
    return reading


def _count_agents(
    reading: dict[str, dict[Labels, float]], plan: model.Plan, known: set[model.TemplateName]
) -> None:
    counted = Counter((_known(a.template, known), a.phase.value) for a in plan.agents)
    reading["agents_present"].update({labels: float(n) for labels, n in counted.items()})


def _count_slots(
    reading: dict[str, dict[Labels, float]], plan: model.Plan, known: set[model.TemplateName]
) -> None:
    for template, count in plan.counts.items():
        name = _known(template, known)
        for gauge, labels, amount in (
            ("slots_demanded", (name,), count.demand),
            ("slots_targeted_warm", (name,), count.warm_target),
            ("slots_present", (name, "idle"), count.idle),
            ("slots_present", (name, "busy"), count.busy),
            ("slots_present", (name, "starting"), count.starting),
            ("agents_counted", (name,), count.agents),
        ):
            if amount or labels in reading[gauge]:
                reading[gauge][labels] = reading[gauge].get(labels, 0.0) + amount


def _count_items(
    reading: dict[str, dict[Labels, float]], world: model.World, plan: model.Plan
) -> None:
    longest = reading["items_waited_longest_seconds"]
    for unmet in plan.unmet:
        labels = (unmet.reason.value,)
        reading["items_waiting"][labels] += 1.0
        if unmet.since_at > 0.0:
            longest[labels] = max(longest[labels], world.now - unmet.since_at)


def _known(template: model.TemplateName | None, known: set[model.TemplateName]) -> str:
    return template if template is not None and template in known else UNCONFIGURED
