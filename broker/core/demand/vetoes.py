"""Vetoes: free executors that fit, and the controller gives an item to none of them.

A plugin or a permission stands in the way, and only ``why`` tells. Rules: what is refused by
agents that have nothing to do, the next agent would refuse as well; that is learnt for a label and
a task, and forgotten when an item of theirs has left the queue. Till then one agent for all of
them tries it again from time to time: so neither is nothing ordered for ever, nor one agent a
minute. An agent that works and refuses says nothing of another
one (a plugin may allow one build of a kind on each node). Pure; refuses to know agents.
"""

import re
from collections.abc import Collection, Mapping

import attrs

from broker.core import model
from broker.core.demand import queue_texts
from broker.core.demand import wishes as demand
from broker.core.model import ItemId, Veto, VetoKey

_RUN = re.compile(r"/\d+/?$")
_PLACEHOLDER = "PlaceholderTask"


def is_vetoed(wish: demand.Wish) -> bool:
    """Return whether the controller says that something speaks against executors that are free."""
    is_now = wish.kind is demand.WishKind.NOW and wish.unmet is None
    return is_now and bool(queue_texts.veto(wish.item.why))


def key_of(wish: demand.Wish) -> VetoKey:
    """Return what a veto is learnt for: the label, and the task without the number of its run."""
    item = wish.item
    label = wish.expression.canonical() if wish.expression is not None else wish.label.node or ""
    task = item.task_url or item.task_name
    if item.task_class.endswith(_PLACEHOLDER):  # it has its run's address
        task = _RUN.sub("", task)
    return VetoKey(label=label, task=task)


def seen(ledger: model.Ledger, wishes: Collection[demand.Wish], *, now: float) -> model.Ledger:
    """Note since when items are vetoed; forget what is over."""
    vetoed = {w.item.id: ledger.vetoed.get(w.item.id, now) for w in wishes if is_vetoed(w)}
    english = ledger.english or any(queue_texts.is_english(w.item.why) for w in wishes)
    vetoes = ledger.vetoes
    if vetoes:
        present = {wish.item.id for wish in wishes}
        vetoes = {
            key: veto
            for key, veto in vetoes.items()
            if veto.items <= present
        }
    if (vetoed, vetoes, english) == (ledger.vetoed, ledger.vetoes, ledger.english):
        return ledger
    return attrs.evolve(ledger, vetoed=vetoed, vetoes=vetoes, english=english)


def learnt(
    ledger: model.Ledger, refused: Mapping[VetoKey, frozenset[ItemId]], *, until_at: float
) -> model.Ledger:
    """Remember that idle agents are not given these items."""
    if not refused:
        return ledger
    vetoes = {key: Veto(items=items, until_at=until_at) for key, items in sorted(refused.items())}
    return attrs.evolve(ledger, vetoes={**ledger.vetoes, **vetoes})
