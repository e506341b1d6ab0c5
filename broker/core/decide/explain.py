"""Which templates could serve a label, and what the others lack: an answer for people.

Pure. The sentences of waiting items are made where the decision is made; here is what has no item:
the question "who would serve this label, and why not that one?" (``agent-broker explain``).
"""

import attrs
from attrs import frozen

from broker.core import model
from broker.core.decide import capacity
from broker.core.demand import jobs, labels, nearest, parameters

_PROMISES = frozenset(
    {
        model.WaitReason.AGENT_IDLE,
        model.WaitReason.AGENT_STARTING,
        model.WaitReason.AGENT_ORDERED,
        model.WaitReason.UNANSWERED,
    }
)
"""Reasons that say what is about to happen."""


def unsure(plan: model.Plan, controller: model.ControllerView) -> model.Plan:
    """Return the last plan as it reads while the controller is away: without its promises.

    Whether they are kept nobody sees, and nothing more is ordered.
    """
    words = f" ({controller.error})" if controller.error else ""
    text = f"the controller's state is unknown{words}: nothing is ordered; at the last look "
    unmet = tuple(
        attrs.evolve(one, reason=model.WaitReason.NOT_SYNCED, text=f"{text}{one.text}")
        if one.reason in _PROMISES
        else one
        for one in plan.unmet
    )
    return attrs.evolve(plan, unmet=unmet)


@frozen(kw_only=True)
class Answer:
    """One template's answer to a label expression."""

    template: model.TemplateName
    serves: bool
    text: str
    asked: tuple[str, ...] = ()  # the labels of the variant that would be started, sorted


def explain_label(
    expression: str,
    policy: model.Policy,
    room: capacity.Room | None = None,
    job: str | None = None,
) -> tuple[Answer, ...]:
    """Ask every template, in order of preference. Raises ``labels.LabelError``.

    An empty expression asks for items without a label. With a ``room`` the answer also says
    whether an agent could start right now. Without a ``job`` it is asked for any that may.
    """
    parsed = labels.parse(expression) if expression.strip() else None
    return tuple(_ask(template, parsed, room, job) for template in policy.templates)


def _ask(
    template: model.Template,
    parsed: labels.Expression | None,
    room: capacity.Room | None,
    job: str | None,
) -> Answer:
    asked = parameters.NONE
    if parsed is None:
        serves = template.takes_unlabelled
        why = "takes items without a label" if serves else "takes no items without a label"
    else:
        wanted = parameters.asked(parsed, template)
        serves = wanted is not None and not wanted.complaint
        asked = wanted.labels if wanted is not None else parameters.NONE
        has = ", ".join(sorted(template.labels)) or "no label"
        why = f"has {has}{'' if wanted is not None else _lacks(parsed, template.labels)}"
        if wanted is not None and wanted.complaint:
            why += f"; {wanted.complaint}"
        elif asked:
            why += f", and is started with {', '.join(sorted(asked))}"
        elif template.parameters:
            why += f"; may be asked for {parameters.all_words(template)}"
    if template.restricted:
        why += f"; is {jobs.words(template)}"
        serves = serves and (job is None or jobs.is_for(template, job))
    if serves and room is not None:
        placed = capacity.place(room, template, asked)
        if isinstance(placed, capacity.Shortage):
            why += f"; not now: {placed.text}"
        else:
            why += f"; would start on backend {placed}"
    return Answer(template=template.name, serves=serves, text=why, asked=tuple(sorted(asked)))


def _lacks(parsed: labels.Expression, has: frozenset[str]) -> str:
    """Say what keeps labels from matching: those that are missing, those that are denied."""
    missing, denied = nearest.change(parsed, has) or (sorted(parsed.atoms() - has), ())
    lacks = f", does not have {', '.join(missing)}" if missing else ""
    return lacks + (f", must not have {', '.join(denied)}" if denied else "")
