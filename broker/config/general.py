"""Settings that the broker uses as they stand in the document: sections of its shape.

Apart from ``shape``, so that a broker at work need not hold the classes that only a document has.
Refuses to read or check anything.
"""

from typing import Any

import attrs
from attrs import NOTHING, frozen

from broker.core import model


def doc(text: str, default: Any = NOTHING, **more: Any) -> Any:
    """Return a documented field; ``word`` in ``more`` is how None is written in the file."""
    if isinstance(default, dict | list):
        return attrs.field(factory=type(default), metadata={"doc": text, **more})
    return attrs.field(default=default, metadata={"doc": text, **more})


def same(cls: type, name: str, text: str, **more: Any) -> Any:
    """Return a field with the default that the core has."""
    default = getattr(attrs.fields(cls), name).default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class at run time
        default = default.factory()
    return doc(text, default, **more)


@frozen(kw_only=True)
class Poll:
    """How often to look."""

    busy_s: float = doc(
        "While anything waits, starts or leaves; at rest a peek at the queue. 250ms at least.", 1.0
    )
    idle_s: float = doc("At rest, for everything else: two requests each time.", 5.0)


@frozen(kw_only=True)
class Log:
    """The log, on standard error."""

    format: str = doc(
        "auto (JSON unless it is a terminal), json or console.",
        "auto",
        choices=("auto", "json", "console"),
    )
    level: str = doc(
        "debug, info, warning or error.", "info", choices=("debug", "info", "warning", "error")
    )


@frozen(kw_only=True)
class Limits:
    """Over everything; each template and backend may have its own."""

    agents: int | None = doc("Agents in all; default: no limit.", None)
    starting: int | None = doc("Agents ordered and not yet online; default: no limit.", None)


@frozen(kw_only=True)
class Advanced:
    """Figures that hardly anybody needs to change."""

    reservation_s: float = same(
        model.Policy,
        "reservation_s",
        "An idle agent that fits and is given nothing for this long is no longer counted on.",
    )
    orphan_grace_s: float = same(
        model.Policy, "orphan_grace_s", "From the first to the deciding sighting of a leftover."
    )
    yield_after_s: float = same(
        model.Policy, "yield_after_s", "A label that waits this long on a shared cap gets a turn."
    )
    launch_timeout_s: float = same(
        model.Policy, "launch_timeout_s", "One launch: node, secret, instance."
    )
    backoff_base_s: float = same(model.Policy, "backoff_base_s", "Pause after one failure.")
    backoff_max_s: float = same(model.Policy, "backoff_max_s", "Longest pause after failures.")
    rejected_retry_s: float = same(
        model.Policy,
        "rejected_retry_s",
        "Pause after the platform refused a template; a changed template is tried at once.",
    )
    sweep_share: float = same(
        model.Policy, "sweep_share", "Never sweep a larger share of all agents at once ..."
    )
    sweep_floor: int = same(model.Policy, "sweep_floor", "... unless they are this few.")
    resume_grace_s: float = same(
        model.Policy,
        "resume_grace_s",
        "After a start: time for pipelines to ask for the nodes that they ran on.",
    )
    settle_s: float = same(
        model.Policy, "settle_s", "The controller gives an idle agent its item within this."
    )
