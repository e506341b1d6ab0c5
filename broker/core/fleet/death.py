"""What is kept of an agent that ended, for the people who ask what it died of.

A plain value without a rule: ``explain`` words it, the shell collects it, the status page shows
it. Refuses to know how a death is found out.
"""

from attrs import frozen

from backends import api as backends_api
from broker.core import model


@frozen(kw_only=True)
class Death:
    """The end of one agent. ``text`` is a sentence for people."""

    name: model.NodeName
    template: model.TemplateName | None
    backend: model.BackendName | None
    at: float  # when it was seen to have ended
    phase: model.Phase  # the last one before the end
    cause: model.Cause
    text: str
    place: str = ""  # where it ran, as its backend calls it
    exit_code: int | None = None  # negative: minus the signal's number
    usage: backends_api.Usage | None = None  # as far as it was told while it lived
    last_lines: tuple[str, ...] = ()  # of its output, oldest first; remote text
