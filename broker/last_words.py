"""What is kept of an agent that is about to go: why, how its instance ended, its last lines.

Refuses to decide when, and to fail: an agent without words goes all the same.
"""

from collections.abc import Sequence

from backends import api as backends_api
from broker.core import death, model
from outside import waits

_LINES = 20


async def read(backend: backends_api.Backend, name: str, *, within_s: float) -> Sequence[str]:
    """Return the last lines of an instance; none when they cannot be had in time."""
    try:
        async with waits.timeout(within_s):
            text = await backend.logs(name, tail=_LINES)
    except (backends_api.BackendError, TimeoutError):
        return ()
    return text.splitlines()[-_LINES:]


def death_of(
    action: model.Action, agent: model.Agent | None, lines: Sequence[str], *, at: float
) -> death.Death:
    """Return the certificate."""
    exit_ = agent.instance.exit if agent is not None and agent.instance is not None else None
    return death.Death(
        name=action.name,
        template=agent.template if agent is not None else None,
        backend=agent.backend if agent is not None else None,
        at=at,
        phase=agent.phase if agent is not None else model.Phase.UNKNOWN,
        slug=action.slug if isinstance(action, model.RetireAgent) else "swept",
        text=action.reason,
        exit_code=exit_.code if exit_ is not None else None,
        last_lines=tuple(lines),
    )
