"""Checks of an agent, as far as they are seen: whose is due, and the words of its node.

A check is a command in the agent's instance: the ready check before it is given anything, the
dirty check after each build. As long as one is due the node is out of service with words of ours
that say which (``lifecycle.check_due``): nothing else remembers it, so whoever begins anew goes on
with it. One that does not pass leaves the node out of service with the words of a cause by which
the agent goes. Pure; refuses to run anything, and to decide who is looked at when.
"""

from backends import api as backends_api
from broker.core import model
from broker.core.model import Agent, Cause, Check, Phase, Template
from outside import text as texts

CAUSES = {Check.READY: Cause.READY_CHECK, Check.DIRTY: Cause.DIRTY_CHECK}
_DUE = {
    Check.READY: "its ready check has not passed yet",
    Check.DIRTY: "a build ran on it, and its dirty check has not passed yet",
}
_LINE = 120
"""Characters of what a check said last; a node's words have 256 in all."""


def due_message(check: Check) -> str:
    """Return the offline message of a node until a check has passed."""
    return f"{model.CORDON_MARK} {model.check_slug(check)}: {_DUE[check]}"


def failed_message(check: Check, words: str) -> str:
    """Return the offline message of a node whose check did not pass."""
    return f"{model.CORDON_MARK} {CAUSES[check].slug}: {words}"


def failure(check: Check, ran: backends_api.Ran, *, within_s: float) -> str:
    """Return what came of a check that did not pass, in words; empty: it passed."""
    if ran.code == 0:
        return ""
    lines = [line.strip() for line in ran.output.splitlines() if line.strip()]
    if ran.code is None:
        end = f"did not end within {within_s:g} s"
    elif ran.code < 0:
        end = f"was ended by signal {-ran.code}"
    else:
        end = f"ended with exit status {ran.code}" + (" and wrote nothing" if not lines else "")
    said = texts.clean(lines[-1], _LINE) if lines else ""
    return f"its {check.value} check {end}" + (f": {said}" if said else "")


def may_be_dirty(agent: Agent, template: Template | None) -> bool:
    """Return whether a build has run on an agent, or may have, that no dirty check came after."""
    memory = agent.memory
    if template is None or template.checks.dirty is None or memory is None:
        return False
    if agent.phase is Phase.BUSY:
        return True
    if agent.phase is not Phase.IDLE:
        return False
    if memory.checked is not None:
        return memory.builds > memory.checked
    return memory.builds > 0 or not memory.online_witnessed
