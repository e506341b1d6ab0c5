"""What is kept of an agent that is about to go: why, how its instance ended, its last lines.

What its lines complain of (``complaints``) is said with the reason. Refuses to decide when, and to
fail: an agent without words goes all the same.
"""

from collections.abc import Sequence

from backends import api as backends_api
from broker.core import model
from broker.core.fleet import agents, death
from broker.loop import complaints
from outside import text as texts
from outside import waits

_KEPT = 20
_READ = 120
"""A trace of Java alone has 40 lines, and what it is about stands above it."""


def are_wanted(action: model.Removal, agent: model.Agent | None) -> bool:
    """Return whether anybody asks what an agent said last: not of one that goes as planned.

    Each reading is a call to the platform, and to the host of the instance.
    """
    if agent is None or agent.instance is None:
        return False
    planned = isinstance(action, model.RetireAgent) and not action.cause.accident
    return not planned or agent.instance.exit is not None


async def read(backend: backends_api.Backend, name: str, *, within_s: float) -> Sequence[str]:
    """Return the last lines of an instance, cut and cleaned; none if they are not had in time."""
    try:
        async with waits.timeout(within_s):
            text = await backend.logs(name, tail=_READ)
    except (backends_api.BackendError, TimeoutError):
        return ()
    return texts.last_lines(text, _READ)


def death_of(
    action: model.Removal,
    agent: model.Agent | None,
    lines: Sequence[str],
    *,
    at: float,
) -> death.Death:
    """Return the certificate."""
    exit_ = agent.instance.exit if agent is not None and agent.instance is not None else None
    is_accident = action.cause.accident and not action.cause.unfit  # its check said it all
    said = complaints.complaint(lines) if is_accident else complaints.Complaint()
    is_new = bool(said.words) and said.words not in action.reason
    more = f"; {said.words}" if said.cause else f"; it said last: {said.words}"
    words = agents.after_mishap(agent, action.reason) if agent is not None else action.reason
    return death.Death(
        name=action.name,
        template=agent.template if agent is not None else None,
        backend=agent.backend if agent is not None else None,
        at=at,
        phase=agent.phase if agent is not None else model.Phase.UNKNOWN,
        cause=said.cause or action.cause,
        text=words + more if is_new else words,
        place=agent.instance.place if agent is not None and agent.instance is not None else "",
        exit_code=exit_.code if exit_ is not None else None,
        usage=agent.memory.usage if agent is not None and agent.memory is not None else None,
        last_lines=tuple(complaints.telling(lines)[-_KEPT:]),
    )
