"""What people have ordered and what stands: whom it concerns, and its words.

A pause ends no build and no agent; what drains lets its agents go after their builds; what is
prewarmed is a warm minimum, and keeps to every cap. Whose time is over counts no more. Pure;
refuses to know who may order, and where it is kept.
"""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from broker.core import model
from broker.core.fleet import withheld
from broker.core.model import BackendName, StandingKind, StandingOrder, TemplateName

_STOPS = frozenset({StandingKind.PAUSE, StandingKind.DRAIN})
_WORDS = {
    StandingKind.PAUSE: "is paused",
    StandingKind.DRAIN: "is being drained",
    StandingKind.RETIRE: "is to go after its build",
    StandingKind.HOLD: "is held",
}


def in_force(policy: model.Policy, orders: Iterable[StandingOrder], *, now: float) -> model.Policy:
    """Return a policy with what people have ordered, as far as it stands now."""
    standing = tuple(order for order in orders if order.stands(now))
    if not standing:
        return policy
    warm = {
        order.template: order.agents for order in standing if order.kind is StandingKind.PREWARM
    }
    templates = tuple(
        attrs.evolve(one, min_idle=max(one.min_idle, warm[one.name])) if one.name in warm else one
        for one in policy.templates
    )
    return attrs.evolve(policy, templates=templates, standing=standing)


def stopping(
    orders: Sequence[StandingOrder],
    *,
    template: TemplateName | None = None,
    backend: BackendName | None = None,
    now: float,
) -> StandingOrder | None:
    """Return what keeps agents from being started: of a template, or on a backend.

    An order about the whole broker is found for a template.
    """
    for order in orders:
        if order.kind not in _STOPS or not order.stands(now):
            continue
        if backend is not None:
            if order.backend == backend:
                return order
        elif order.backend is None and order.template in {None, template}:
            return order
    return None


def dismissing(
    orders: Sequence[StandingOrder], agent: model.Agent, *, now: float
) -> StandingOrder | None:
    """Return by which order an agent is to go after its build; None: by none.

    One about this very agent comes first.
    """
    found = None
    for order in orders:
        if not order.stands(now):
            continue
        if order.kind is StandingKind.RETIRE and order.agent == agent.name:
            return order
        if order.kind is StandingKind.DRAIN and (
            order.template in {None, agent.template} and order.backend in {None, agent.backend}
        ):
            found = order
    return found


def holding(
    orders: Sequence[StandingOrder], *, now: float
) -> Mapping[model.NodeName, StandingOrder]:
    """Return by which orders agents are held."""
    return {
        order.agent: order
        for order in orders
        if order.kind is StandingKind.HOLD and order.agent is not None and order.stands(now)
    }


def subject(order: StandingOrder) -> str:
    """Return what an order is about, in words."""
    for what, name in (
        ("template", order.template),
        ("backend", order.backend),
        ("agent", order.agent),
    ):
        if name is not None:
            return f"{what} {name}"
    return "the broker"


def words(order: StandingOrder, *, now: float | None = None) -> str:
    """Say what stands, by whom and why; with ``now``, for how long."""
    what = _WORDS.get(order.kind, f"has {order.agents} kept warm")
    until = order.until_at
    left = f" for another {withheld.duration(until - now)}" if until and now is not None else ""
    note = f": {order.note}" if order.note else ""
    return f"{subject(order)} {what} by {order.who}{left}{note}"
