"""Why an agent is still there, or goes: an answer for whoever asks about one agent.

What the plan has decided comes first, with its own words; of whoever nothing is decided the rule
that holds it is said, with its limit. Pure; refuses to decide anything.
"""

from broker.core import model
from broker.core.decide import retention
from broker.core.fleet import withheld
from broker.core.model import Phase


def words(agent: model.Agent, plan: model.Plan, policy: model.Policy, *, now: float) -> str:
    """Return why an agent stays or goes.

    ``plan``: the last one, of which the agent is a part.
    """
    decided = [
        f"is to be {_DONE[type(action)]}: {action.reason}"
        for action in plan.actions
        if action.name == agent.name
    ]
    decided += [r.text for r in plan.refusals if r.subject == agent.name]
    flight = agent.expectation
    if flight is not None and flight.verb is not model.Verb.LAUNCH:
        waited = withheld.duration(now - flight.since_at)
        decided.insert(0, f"{flight.verb.value} is under way for {waited}: {flight.reason}")
    return "; ".join(decided) or _rule(agent, plan, policy, now)


_DONE = {
    model.LaunchAgent: "started",
    model.CordonAgent: "taken out of service",
    model.UncordonAgent: "brought back into service",
    model.CheckAgent: "checked",
    model.RetireAgent: "retired",
    model.ReleaseAgent: "released",
    model.SweepNode: "swept",
    model.SweepInstance: "swept",
}


def _rule(  # noqa: PLR0911 -- one rule, one return
    agent: model.Agent, plan: model.Plan, policy: model.Policy, now: float
) -> str:
    template = policy.by_name.get(agent.template)
    if (told := withheld.words(agent, now=now)) != "":
        return f"stays: it {told}"
    match agent.phase:
        case Phase.LAUNCHING:
            return "is being started"
        case Phase.CONNECTING:
            return f"is awaited: {_awaited(agent, template, now)}"
        case Phase.CHECKING:
            which = agent.check.value if agent.check is not None else "ready"
            awaited = "" if agent.instance is None else f" ({agent.instance.state.value})"
            return f"is out of service until its {which} check has passed{awaited}"
        case Phase.BUSY:
            spent = retention.spent(agent, template, now=now, policy=policy)
            last = f"; this build is its last: {spent.text}" if spent is not None else ""
            last = last or ("; this build is its last" if agent.cordoned else "")
            return f"stays: it works{last}"
        case Phase.IDLE:
            return f"stays: {_idle(agent, template, plan, now)}"
        case Phase.DRAINED:
            return "goes: it is out of service and empty"
        case Phase.UNKNOWN:
            return "stays: a source that knows of it does not answer, so nothing of it is removed"
        case Phase.LOST | Phase.ORPHAN:
            seen = agent.memory.orphan_sightings if agent.memory is not None else 0
            often = f"seen so {seen} times" if seen > 1 else "a second look has to show the same"
            return f"goes: node and instance do not belong together any more; {often}"
        case _:
            return "goes"


def _awaited(agent: model.Agent, template: model.Template | None, now: float) -> str:
    memory = agent.memory
    since = agent.created_at if memory is None or memory.offline_at is None else memory.offline_at
    if template is None or since is None:
        return "it is not online"
    rest = max(0.0, template.connect_deadline_s - (now - since))
    return f"it may take {withheld.duration(rest)} more to come online (connect_deadline)"


def _idle(
    agent: model.Agent, template: model.Template | None, plan: model.Plan, now: float
) -> str:
    served = [unmet.item for unmet in plan.unmet if unmet.agent == agent.name]
    if served:
        return f"item {served[0]} is about to be given to it"
    if template is None:
        return "its template is no longer configured, and it goes when nothing speaks against it"
    idle_s, memory = template.retention.idle_s, agent.memory
    idle_at = memory.idle_at if memory is not None else None
    warm = f"{template.min_idle} are kept warm (warm.min_idle)" if template.min_idle else ""
    if idle_s is None or idle_at is None:
        return "; ".join(part for part in (warm, "nobody goes for idleness here") if part)
    idle = f"idle for {withheld.duration(now - idle_at)}, allowed are {withheld.duration(idle_s)}"
    return "; ".join(part for part in (idle, warm) if part)
